/* channels/sms/smpp_pdu.c - one cursor that never passes its end; one list of fields for each body, read and
 * written by the same walk, so that the two directions cannot drift apart. */
#include "channels/sms/smpp_pdu.h"

/* Sizes with the terminating NUL: 5.2.1 .. 5.2.23 */
#define SYSTEM_ID_MAX     16
#define PASSWORD_MAX      9
#define SYSTEM_TYPE_MAX   13
#define ADDRESS_RANGE_MAX 41
#define SERVICE_TYPE_MAX  6
#define ADDRESS_MAX       21
#define ALERT_ADDRESS_MAX 65
#define TIME_MAX          17
#define MESSAGE_ID_MAX    65
#define TLV_HEADER_BYTES  4
#define TLV_VALUE_MAX     65535

static uint32_t get32(const char *p)
{
    const unsigned char *u = (const unsigned char *)p;
    return (uint32_t)u[0] << 24 | (uint32_t)u[1] << 16 | (uint32_t)u[2] << 8 | u[3];
}

static uint16_t get16(const char *p)
{
    const unsigned char *u = (const unsigned char *)p;
    return (uint16_t)(u[0] << 8 | u[1]);
}

static void put32(char *p, uint32_t v)
{
    p[0] = (char)(v >> 24);
    p[1] = (char)(v >> 16);
    p[2] = (char)(v >> 8);
    p[3] = (char)v;
}

/* ---- the walk: one of the two directions at a time ---- */

struct walk {
    bool is_write;
    uint32_t status; /* first trouble */
    const char *at, *end;
    struct sl_buf *out;
};

static void fail(struct walk *w, uint32_t status)
{
    if (w->status == SMPP_OK)
        w->status = status;
    w->at = w->end;
}

static void octet(struct walk *w, uint8_t *v)
{
    if (w->is_write) {
        sl_buf_char(w->out, (char)*v);
        return;
    }
    if (w->at == w->end) {
        fail(w, SMPP_INVCMDLEN);
        return;
    }
    *v = (uint8_t)*w->at++;
}

/* A C-octet string of at most max bytes, its NUL included; over: what a longer one is answered with. */
static void c_string(struct walk *w, struct sl_str *v, size_t max, uint32_t over)
{
    if (w->is_write) {
        if (v->len >= max || (v->len > 0 && memchr(v->ptr, '\0', v->len) != NULL)) {
            fail(w, over);
            return;
        }
        sl_buf_str(w->out, *v);
        sl_buf_char(w->out, '\0');
        return;
    }
    size_t left = (size_t)(w->end - w->at);
    const char *nul = left > 0 ? memchr(w->at, '\0', left) : NULL;
    if (nul == NULL) {
        fail(w, SMPP_INVCMDLEN);
        return;
    }
    if ((size_t)(nul - w->at) >= max) {
        fail(w, over);
        return;
    }
    *v = sl_str_n(w->at, (size_t)(nul - w->at));
    w->at = nul + 1;
}

static void address(struct walk *w, struct smpp_address *a, size_t max, uint32_t over)
{
    octet(w, &a->ton);
    octet(w, &a->npi);
    c_string(w, &a->number, max, over);
}

static void short_message(struct walk *w, struct smpp_pdu *p)
{
    uint8_t len = 0;
    if (w->is_write) {
        if (!p->has_payload && p->text.len > SMPP_TEXT_MAX) {
            fail(w, SMPP_INVMSGLEN);
            return;
        }
        len = p->has_payload ? 0 : (uint8_t)p->text.len;
    }
    octet(w, &len);
    if (w->is_write) {
        sl_buf_add(w->out, p->text.ptr, len);
        return;
    }
    if (len > (size_t)(w->end - w->at)) {
        fail(w, SMPP_INVCMDLEN);
        return;
    }
    p->text = sl_str_n(w->at, len);
    w->at += len;
}

/* Reading: check that the rest is whole parameters. Unknown ones are kept; who walks them skips them. */
static void tlvs(struct walk *w, struct smpp_pdu *p)
{
    if (w->is_write) {
        sl_buf_str(w->out, p->tlvs);
        return;
    }
    p->tlvs = sl_str_n(w->at, (size_t)(w->end - w->at));
    while (w->at < w->end) {
        size_t left = (size_t)(w->end - w->at);
        if (left < TLV_HEADER_BYTES || get16(w->at + 2) > left - TLV_HEADER_BYTES) {
            p->tlvs = SL_STR_NONE;
            fail(w, SMPP_INVTLVSTREAM);
            return;
        }
        w->at += TLV_HEADER_BYTES + get16(w->at + 2);
    }
}

static void payload(struct walk *w, struct smpp_pdu *p)
{
    if (w->is_write) {
        if (p->has_payload)
            smpp_tlv_add(w->out, SMPP_TAG_MESSAGE_PAYLOAD, p->text);
        return;
    }
    struct sl_str value;
    if (smpp_tlv_find(p->tlvs, SMPP_TAG_MESSAGE_PAYLOAD, &value) && p->text.len == 0) {
        p->text = value;
        p->has_payload = true;
    }
}

/* ---- bodies ---- */

static void walk_bind(struct walk *w, struct smpp_pdu *p)
{
    c_string(w, &p->system_id, SYSTEM_ID_MAX, SMPP_INVSYSID);
    c_string(w, &p->password, PASSWORD_MAX, SMPP_INVPASWD);
    if (p->command == SMPP_OUTBIND)
        return;
    c_string(w, &p->system_type, SYSTEM_TYPE_MAX, SMPP_INVCMDLEN);
    octet(w, &p->interface_version);
    octet(w, &p->addr_ton);
    octet(w, &p->addr_npi);
    c_string(w, &p->address_range, ADDRESS_RANGE_MAX, SMPP_INVCMDLEN);
}

static void walk_bind_resp(struct walk *w, struct smpp_pdu *p)
{
    c_string(w, &p->system_id, SYSTEM_ID_MAX, SMPP_INVSYSID);
    tlvs(w, p);
}

static void walk_message(struct walk *w, struct smpp_pdu *p)
{
    c_string(w, &p->service_type, SERVICE_TYPE_MAX, SMPP_INVCMDLEN);
    address(w, &p->source, ADDRESS_MAX, SMPP_INVSRCADR);
    address(w, &p->destination, ADDRESS_MAX, SMPP_INVDSTADR);
    octet(w, &p->esm_class);
    octet(w, &p->protocol_id);
    octet(w, &p->priority);
    c_string(w, &p->schedule, TIME_MAX, SMPP_INVCMDLEN);
    c_string(w, &p->validity, TIME_MAX, SMPP_INVCMDLEN);
    octet(w, &p->registered);
    octet(w, &p->replace);
    octet(w, &p->data_coding);
    octet(w, &p->default_message);
    short_message(w, p);
    tlvs(w, p);
    payload(w, p);
}

static void walk_data(struct walk *w, struct smpp_pdu *p)
{
    c_string(w, &p->service_type, SERVICE_TYPE_MAX, SMPP_INVCMDLEN);
    address(w, &p->source, ALERT_ADDRESS_MAX, SMPP_INVSRCADR);
    address(w, &p->destination, ALERT_ADDRESS_MAX, SMPP_INVDSTADR);
    octet(w, &p->esm_class);
    octet(w, &p->registered);
    octet(w, &p->data_coding);
    tlvs(w, p);
    payload(w, p);
}

/* deliver_sm_resp's message_id is unused and empty; data_sm_resp may carry parameters. */
static void walk_message_resp(struct walk *w, struct smpp_pdu *p)
{
    c_string(w, &p->message_id, MESSAGE_ID_MAX, SMPP_INVCMDLEN);
    tlvs(w, p);
}

static void walk_query(struct walk *w, struct smpp_pdu *p)
{
    c_string(w, &p->message_id, MESSAGE_ID_MAX, SMPP_INVCMDLEN);
    address(w, &p->source, ADDRESS_MAX, SMPP_INVSRCADR);
}

static void walk_query_resp(struct walk *w, struct smpp_pdu *p)
{
    c_string(w, &p->message_id, MESSAGE_ID_MAX, SMPP_INVCMDLEN);
    c_string(w, &p->final_date, TIME_MAX, SMPP_INVCMDLEN);
    octet(w, &p->state);
    octet(w, &p->error_code);
}

static void walk_alert(struct walk *w, struct smpp_pdu *p)
{
    address(w, &p->source, ALERT_ADDRESS_MAX, SMPP_INVSRCADR);
    address(w, &p->destination, ALERT_ADDRESS_MAX, SMPP_INVDSTADR);
    tlvs(w, p);
}

static void walk_nothing(struct walk *w, struct smpp_pdu *p)
{
    (void)w;
    (void)p;
}

static const struct {
    uint32_t command;
    void (*walk)(struct walk *w, struct smpp_pdu *p);
} bodies[] = {
    {SMPP_SUBMIT_SM_RESP, walk_message_resp},
    {SMPP_DELIVER_SM, walk_message},
    {SMPP_SUBMIT_SM, walk_message},
    {SMPP_DELIVER_SM_RESP, walk_message_resp},
    {SMPP_ENQUIRE_LINK, walk_nothing},
    {SMPP_ENQUIRE_LINK_RESP, walk_nothing},
    {SMPP_UNBIND, walk_nothing},
    {SMPP_UNBIND_RESP, walk_nothing},
    {SMPP_GENERIC_NACK, walk_nothing},
    {SMPP_DATA_SM, walk_data},
    {SMPP_DATA_SM_RESP, walk_message_resp},
    {SMPP_BIND_RECEIVER, walk_bind},
    {SMPP_BIND_TRANSMITTER, walk_bind},
    {SMPP_BIND_TRANSCEIVER, walk_bind},
    {SMPP_OUTBIND, walk_bind},
    {SMPP_BIND_RECEIVER_RESP, walk_bind_resp},
    {SMPP_BIND_TRANSMITTER_RESP, walk_bind_resp},
    {SMPP_BIND_TRANSCEIVER_RESP, walk_bind_resp},
    {SMPP_QUERY_SM, walk_query},
    {SMPP_QUERY_SM_RESP, walk_query_resp},
    {SMPP_ALERT_NOTIFICATION, walk_alert},
};

typedef void walk_fn(struct walk *w, struct smpp_pdu *p);

static walk_fn *body_of(uint32_t command) /* NULL: no such command */
{
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++)
        if (bodies[i].command == command)
            return bodies[i].walk;
    return NULL;
}

/* ---- reading ---- */

enum smpp_framing smpp_frame(struct sl_str in, size_t *len)
{
    if (in.len < 4)
        return SMPP_FRAME_MORE;
    uint32_t n = get32(in.ptr);
    if (n < SMPP_HEADER_BYTES || n > SMPP_PDU_MAX_BYTES)
        return SMPP_FRAME_BAD;
    if (in.len < n)
        return SMPP_FRAME_MORE;
    *len = n;
    return SMPP_FRAME_WHOLE;
}

void smpp_header(struct sl_str frame, uint32_t *command, uint32_t *status, uint32_t *seq)
{
    *command = get32(frame.ptr + 4);
    *status = get32(frame.ptr + 8);
    *seq = get32(frame.ptr + 12);
}

uint32_t smpp_pdu_read(struct sl_str frame, struct smpp_pdu *out)
{
    *out = (struct smpp_pdu){.text = SL_STR_NONE};
    size_t len = 0;
    if (frame.len < SMPP_HEADER_BYTES)
        return SMPP_INVCMDLEN;
    smpp_header(frame, &out->command, &out->status, &out->seq);
    if (smpp_frame(frame, &len) != SMPP_FRAME_WHOLE || len != frame.len)
        return SMPP_INVCMDLEN;
    struct walk w = {.at = frame.ptr + SMPP_HEADER_BYTES, .end = frame.ptr + frame.len};
    walk_fn *body = body_of(out->command);
    if (body == NULL)
        return SMPP_INVCMDID;
    /* 4.4.2 and others: the body of a response is not there when its status is an error; peers leave it out of
     * a deliver_sm_resp with status 0, too. */
    if ((out->command & SMPP_RESP) && w.at == w.end)
        return SMPP_OK;
    body(&w, out);
    /* More after the last field: an error response's own body is not worth a complaint. */
    if (w.status == SMPP_OK && w.at != w.end && out->status == 0)
        fail(&w, SMPP_INVCMDLEN);
    return w.status;
}

bool smpp_tlv_next(struct sl_str tlv_bytes, size_t *at, uint16_t *tag, struct sl_str *value)
{
    if (tlv_bytes.len - *at < TLV_HEADER_BYTES)
        return false;
    const char *p = tlv_bytes.ptr + *at;
    size_t len = get16(p + 2);
    if (len > tlv_bytes.len - *at - TLV_HEADER_BYTES)
        return false;
    *tag = get16(p);
    *value = sl_str_n(p + TLV_HEADER_BYTES, len);
    *at += TLV_HEADER_BYTES + len;
    return true;
}

bool smpp_tlv_find(struct sl_str tlv_bytes, uint16_t tag, struct sl_str *value)
{
    uint16_t found;
    struct sl_str v;
    for (size_t at = 0; smpp_tlv_next(tlv_bytes, &at, &found, &v);) {
        if (found != tag)
            continue;
        *value = v;
        return true;
    }
    return false;
}

bool smpp_tlv_uint(struct sl_str tlv_bytes, uint16_t tag, size_t bytes, uint32_t *out)
{
    struct sl_str v;
    if (!smpp_tlv_find(tlv_bytes, tag, &v) || v.len != bytes || bytes > 4)
        return false;
    uint32_t number = 0;
    for (size_t i = 0; i < bytes; i++)
        number = number << 8 | (unsigned char)v.ptr[i];
    *out = number;
    return true;
}

const char *smpp_command_name(uint32_t command)
{
    static const struct {
        uint32_t id;
        const char *name;
    } names[] = {
#define X(name, word) {SMPP_##name, word},
        SMPP_COMMANDS(X)
#undef X
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].id == command)
            return names[i].name;
    return "unknown";
}

/* ---- writing ---- */

sl_err smpp_pdu_write(struct sl_buf *out, const struct smpp_pdu *p)
{
    size_t start = out->len;
    struct smpp_pdu copy = *p; /* the walk is shared with reading: it takes a PDU that may be changed */
    struct walk w = {.is_write = true, .out = out};
    if (p->has_payload && p->text.len > TLV_VALUE_MAX)
        return SL_ETOOBIG;
    smpp_write_bare(out, p->command, p->status, p->seq);
    walk_fn *body = body_of(p->command);
    sl_assert(body != NULL); /* our own command */
    body(&w, &copy);
    if (w.status != SMPP_OK || out->overflow || out->len - start > SMPP_PDU_MAX_BYTES) {
        out->len = start;
        return SL_ETOOBIG;
    }
    put32(out->ptr + start, (uint32_t)(out->len - start));
    return SL_OK;
}

void smpp_tlv_add(struct sl_buf *out, uint16_t tag, struct sl_str value)
{
    sl_assert(value.len <= TLV_VALUE_MAX);
    char head[TLV_HEADER_BYTES] = {(char)(tag >> 8), (char)tag, (char)(value.len >> 8), (char)value.len};
    sl_buf_add(out, head, sizeof head);
    sl_buf_str(out, value);
}

void smpp_tlv_add_uint(struct sl_buf *out, uint16_t tag, size_t bytes, uint32_t value)
{
    char raw[4];
    put32(raw, value);
    sl_assert(bytes <= sizeof raw);
    smpp_tlv_add(out, tag, sl_str_n(raw + sizeof raw - bytes, bytes));
}

void smpp_write_bare(struct sl_buf *out, uint32_t command, uint32_t status, uint32_t seq)
{
    char head[SMPP_HEADER_BYTES];
    put32(head, SMPP_HEADER_BYTES);
    put32(head + 4, command);
    put32(head + 8, status);
    put32(head + 12, seq);
    sl_buf_add(out, head, sizeof head);
}
