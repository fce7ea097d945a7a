/* tests/vectors/vec_smpp.c FILE - the cases of a smpp.json: one line a case, "ok <name>" or "not ok <name>: why". Exit 1 on a failure.
 *
 * pdus       hex is read, every field compared, the text decoded and encoded again, and the PDU written back to the same bytes;
 *            receipts and ids read; parts of a long message joined when all of them are in the file.
 * negative   must be refused by the framing or by the reader.
 * gsm7       each code both ways.
 */
#include "base/json.h"
#include "channels/sms/smpp_part.h"
#include "channels/sms/smpp_pdu.h"
#include "channels/sms/smpp_receipt.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned failures;
static char why[400];

static bool wrong(const char *fmt, ...) SL_PRINTF(1, 2);
static bool wrong(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    return false;
}

static void report(const char *group, const char *name, bool is_ok)
{
    if (is_ok)
        printf("ok %s/%s\n", group, name);
    else
        printf("not ok %s/%s: %s\n", group, name, why);
    failures += !is_ok;
}

static bool unhex(struct sl_str hex, struct sl_buf *out)
{
    for (size_t i = 0; i + 2 <= hex.len; i += 2) {
        unsigned v;
        char two[3] = {hex.ptr[i], hex.ptr[i + 1], 0};
        if (sscanf(two, "%2x", &v) != 1)
            return false;
        sl_buf_char(out, (char)v);
    }
    return hex.len % 2 == 0;
}

/* ---- one field ---- */

static bool same_number(const char *name, const json_t *want, uint32_t got)
{
    return (json_is_integer(want) && json_integer_value(want) == got) || wrong("%s is %u", name, got);
}

static bool same_text(const char *name, const json_t *want, struct sl_str got)
{
    return (json_is_string(want) && sl_str_eq_c(got, json_string_value(want))) ||
           wrong("%s is \"%.*s\"", name, (int)got.len, got.ptr);
}

/* A text as a string, {"message": string}, or {"hex": octets}. */
static bool same_message(const char *name, const json_t *want, const struct smpp_pdu *p, struct sl_str octets)
{
    const json_t *hex = json_object_get(want, "hex"), *inner = json_object_get(want, "message");
    const json_t *text = json_is_string(want) ? want : inner;
    struct sl_buf b, again;
    bool is_ok;
    sl_buf_init(&b, 0);
    sl_buf_init(&again, 0);
    if (json_is_string(hex)) {
        is_ok = unhex(sl_str_c(json_string_value(hex)), &b) && sl_str_eq(sl_buf_view(&b), octets);
        is_ok = is_ok || wrong("%s: %zu octets differ", name, octets.len);
    } else if (json_is_string(text)) {
        enum sms_alphabet a = sms_alphabet_of(p->data_coding, SMS_GSM7);
        sms_decode(a, octets, &b);
        is_ok = sl_str_eq_c(sl_buf_view(&b), json_string_value(text));
        is_ok = is_ok || wrong("%s reads \"%.*s\"", name, (int)b.len, b.ptr);
        if (is_ok && (a == SMS_GSM7 || a == SMS_LATIN1 || a == SMS_UCS2)) {
            is_ok = sms_encode(a, sl_buf_view(&b), &again) == SL_OK && sl_str_eq(sl_buf_view(&again), octets);
            is_ok = is_ok || wrong("%s is written otherwise", name);
        }
    } else {
        is_ok = wrong("%s: unknown form", name);
    }
    sl_buf_fini(&b);
    sl_buf_fini(&again);
    return is_ok;
}

static bool same_tlv(const char *name, const json_t *want, const struct smpp_pdu *p, uint16_t tag,
                     size_t bytes)
{
    struct sl_str v;
    uint32_t n;
    if (bytes > 0 && smpp_tlv_find(p->tlvs, tag, &v) && (v.len == 1 || v.len == 2 || v.len == 4))
        bytes = v.len; /* they are not sure of some sizes */
    if (bytes > 0)
        return smpp_tlv_uint(p->tlvs, tag, bytes, &n) ? same_number(name, want, n) : wrong("no %s", name);
    if (!smpp_tlv_find(p->tlvs, tag, &v))
        return wrong("no %s", name);
    if (json_is_integer(want))
        return true; /* there, without a value */
    if (!json_is_string(want))
        return same_message(name, want, p, v);
    while (v.len > 0 && v.ptr[v.len - 1] == '\0')
        v.len--;
    return same_text(name, want, v);
}

static bool same_field(const char *f, const json_t *want, const struct smpp_pdu *p)
{
    const struct {
        const char *name;
        uint32_t value;
    } numbers[] = {{"sequence_number", p->seq},
                   {"command_status", p->status},
                   {"interface_version", p->interface_version},
                   {"addr_ton", p->addr_ton},
                   {"addr_npi", p->addr_npi},
                   {"source_addr_ton", p->source.ton},
                   {"source_addr_npi", p->source.npi},
                   {"dest_addr_ton", p->destination.ton},
                   {"dest_addr_npi", p->destination.npi},
                   {"esme_addr_ton", p->destination.ton},
                   {"esme_addr_npi", p->destination.npi},
                   {"esm_class", p->esm_class},
                   {"protocol_id", p->protocol_id},
                   {"priority_flag", p->priority},
                   {"registered_delivery", p->registered},
                   {"replace_if_present_flag", p->replace},
                   {"data_coding", p->data_coding},
                   {"sm_default_msg_id", p->default_message},
                   {"error_code", p->error_code}};
    const struct {
        const char *name;
        struct sl_str value;
    } texts[] = {{"system_id", p->system_id},
                 {"password", p->password},
                 {"system_type", p->system_type},
                 {"address_range", p->address_range},
                 {"service_type", p->service_type},
                 {"source_addr", p->source.number},
                 {"destination_addr", p->destination.number},
                 {"esme_addr", p->destination.number},
                 {"schedule_delivery_time", p->schedule},
                 {"validity_period", p->validity},
                 {"message_id", p->message_id},
                 {"final_date", p->final_date}};
    static const struct {
        const char *name;
        uint16_t tag;
        size_t bytes;
    } tlvs[] = {{"receipted_message_id", SMPP_TAG_RECEIPTED_MESSAGE_ID, 0},
                {"network_error_code", SMPP_TAG_NETWORK_ERROR_CODE, 0},
                {"user_message_reference", SMPP_TAG_USER_MESSAGE_REFERENCE, 2},
                {"sar_msg_ref_num", SMPP_TAG_SAR_MSG_REF_NUM, 2},
                {"sar_total_segments", SMPP_TAG_SAR_TOTAL_SEGMENTS, 1},
                {"sar_segment_seqnum", SMPP_TAG_SAR_SEGMENT_SEQNUM, 1},
                {"sc_interface_version", SMPP_TAG_SC_INTERFACE_VERSION, 1},
                /* the others of 5.3.2, which mean nothing to us: they are kept and can be found */
                {"dest_addr_subunit", 0x0005, 1},
                {"dest_network_type", 0x0006, 1},
                {"dest_bearer_type", 0x0007, 1},
                {"dest_telematics_id", 0x0008, 2},
                {"source_addr_subunit", 0x000d, 1},
                {"source_network_type", 0x000e, 1},
                {"source_bearer_type", 0x000f, 1},
                {"source_telematics_id", 0x0010, 1},
                {"qos_time_to_live", 0x0017, 4},
                {"payload_type", 0x0019, 1},
                {"additional_status_info_text", 0x001d, 0},
                {"ms_msg_wait_facilities", 0x0030, 1},
                {"privacy_indicator", 0x0201, 1},
                {"source_subaddress", 0x0202, 0},
                {"dest_subaddress", 0x0203, 0},
                {"user_response_code", 0x0205, 1},
                {"source_port", 0x020a, 2},
                {"destination_port", 0x020b, 2},
                {"language_indicator", 0x020d, 1},
                {"callback_num_pres_ind", 0x0302, 1},
                {"callback_num_atag", 0x0303, 0},
                {"number_of_messages", 0x0304, 1},
                {"callback_num", 0x0381, 0},
                {"dpf_result", 0x0420, 1},
                {"set_dpf", 0x0421, 1},
                {"ms_availability_status", 0x0422, 1},
                {"delivery_failure_reason", 0x0425, 1},
                {"more_messages_to_send", 0x0426, 1},
                {"ussd_service_op", 0x0501, 0},
                {"display_time", 0x1201, 1},
                {"sms_signal", 0x1203, 2},
                {"ms_validity", 0x1204, 1},
                {"alert_on_message_delivery", 0x130c, 0},
                {"its_reply_type", 0x1380, 1},
                {"its_session_info", 0x1383, 0}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (strcmp(f, numbers[i].name) == 0)
            return same_number(f, want, numbers[i].value);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (strcmp(f, texts[i].name) == 0)
            return same_text(f, want, texts[i].value);
    for (size_t i = 0; i < sizeof tlvs / sizeof tlvs[0]; i++)
        if (strcmp(f, tlvs[i].name) == 0)
            return same_tlv(f, want, p, tlvs[i].tag, tlvs[i].bytes);
    if (strcmp(f, "message_state") == 0)
        return p->command == SMPP_QUERY_SM_RESP ? same_number(f, want, p->state)
                                                : same_tlv(f, want, p, SMPP_TAG_MESSAGE_STATE, 1);
    if (strcmp(f, "short_message") == 0)
        return same_message(f, want, p, p->has_payload ? SL_STR_NONE : p->text);
    if (strcmp(f, "message_payload") == 0)
        return same_message(f, want, p, p->has_payload ? p->text : SL_STR_NONE);
    return wrong("this program does not know the field %s", f);
}

/* ---- one PDU ---- */

static bool writes_the_same(const struct smpp_pdu *read, struct sl_str frame)
{
    struct smpp_pdu p = *read;
    struct sl_buf out;
    sl_buf_init(&out, 0);
    if (p.has_payload) { /* it stands among the parameters, which are written as they were */
        p.text = SL_STR_NONE;
        p.has_payload = false;
    }
    if (frame.len == SMPP_HEADER_BYTES)
        smpp_write_bare(&out, p.command, p.status, p.seq);
    else if (smpp_pdu_write(&out, &p) != SL_OK)
        out.len = 0;
    bool is_ok = sl_str_eq(sl_buf_view(&out), frame) || wrong("written as other bytes");
    sl_buf_fini(&out);
    return is_ok;
}

static bool id_is(struct sl_str id, enum smpp_ids ids, bool is_receipt, const char *want)
{
    struct sl_buf form;
    sl_buf_init(&form, 0);
    smpp_id_form(&form, id, ids, is_receipt);
    bool is_same = sl_str_eq_c(sl_buf_view(&form), want);
    sl_buf_fini(&form);
    return is_same;
}

/* All the receipts of the file are about the message 0a1b2c3d, spelt by one vendor or another. */
static bool receipt_is_right(const char *name, const json_t *fields, const struct smpp_pdu *p)
{
    struct smpp_receipt r;
    if (strncmp(name, "dlr_", 4) != 0)
        return true;
    if (!smpp_is_receipt(p) || smpp_receipt_read(p, &r) != SL_OK)
        return wrong("not read as a receipt");
    const json_t *state = json_object_get(fields, "message_state");
    if (state != NULL && json_integer_value(state) != r.state)
        return wrong("state %s", smpp_state_word(r.state));
    struct smpp_receipt text = {.id = SL_STR_NONE};
    if (!p->has_payload && sms_alphabet_of(p->data_coding, SMS_GSM7) == SMS_GSM7)
        smpp_receipt_text(p->text, &text);
    if (state != NULL && text.state != SMPP_STATE_NONE && text.state != r.state)
        return wrong("the text says %s", smpp_state_word(text.state));
    bool is_id = id_is(r.id, SMPP_IDS_SAME, true, "a1b2c3d") ||
                 id_is(r.id, SMPP_IDS_HEX_DEC, true, "169552957") ||
                 id_is(r.id, SMPP_IDS_DEC_HEX, true, "169552957");
    return is_id || wrong("id %.*s has no form of 0a1b2c3d", (int)r.id.len, r.id.ptr);
}

static bool check_pdu(const json_t *c, const char *name)
{
    struct sl_buf b;
    struct smpp_pdu p;
    size_t len = 0;
    sl_buf_init(&b, 0);
    const json_t *fields = json_object_get(c, "fields"), *want;
    bool is_ok = unhex(sl_json_get_str(c, "hex"), &b) || wrong("hex cannot be read");
    is_ok = is_ok && (smpp_frame(sl_buf_view(&b), &len) == SMPP_FRAME_WHOLE && len == b.len);
    is_ok = is_ok || wrong("not framed");
    uint32_t status = is_ok ? smpp_pdu_read(sl_buf_view(&b), &p) : 0;
    is_ok = is_ok && (status == SMPP_OK || wrong("refused with 0x%x", status));
    is_ok = is_ok && (strcmp(smpp_command_name(p.command), sl_json_get_str(c, "command").ptr) == 0 ||
                      wrong("command 0x%x", p.command));
    const char *field;
    json_object_foreach((json_t *)(uintptr_t)fields, field, want) is_ok =
        is_ok && same_field(field, want, &p);
    is_ok = is_ok && receipt_is_right(name, fields, &p) && writes_the_same(&p, sl_buf_view(&b));
    sl_buf_fini(&b);
    return is_ok;
}

/* ---- long messages: <name>_<i>of<n> ---- */

static const json_t *case_named(const json_t *pdus, const char *name)
{
    size_t i;
    const json_t *c;
    json_array_foreach(pdus, i, c) if (sl_str_eq_c(sl_json_get_str(c, "name"), name)) return c;
    return NULL;
}

static bool add_part(const json_t *c, unsigned seq, unsigned total, struct sl_buf *octets, struct smpp_pdu *p,
                     uint16_t *ref)
{
    struct sl_buf b;
    struct smpp_part part;
    sl_buf_init(&b, 0);
    bool is_ok = unhex(sl_json_get_str(c, "hex"), &b) && smpp_pdu_read(sl_buf_view(&b), p) == SMPP_OK &&
                 smpp_part_read(p, &part) == SL_OK;
    is_ok = is_ok && part.joint != SMPP_WHOLE && part.seq == seq && part.total == total;
    is_ok = is_ok && (seq == 1 || part.ref == *ref);
    if (is_ok) {
        *ref = part.ref;
        sl_buf_str(octets, part.octets);
    }
    sl_buf_fini(&b); /* p borrowed from it: only numbers of p are used after */
    return is_ok || wrong("part %u of %u is not read as such", seq, total);
}

static void check_long(const json_t *root, const json_t *pdus, const char *stem, unsigned total)
{
    struct sl_buf octets, text;
    struct smpp_pdu p = {.command = 0};
    uint16_t ref = 0;
    bool is_ok = true;
    sl_buf_init(&octets, 0);
    sl_buf_init(&text, 0);
    for (unsigned i = 1; i <= total && is_ok; i++) {
        char name[160];
        (void)snprintf(name, sizeof name, "%s_%uof%u", stem, i, total);
        const json_t *c = case_named(pdus, name);
        if (c == NULL) /* this file has not all of it */
            goto done;
        is_ok = add_part(c, i, total, &octets, &p, &ref);
    }
    enum sms_alphabet a = sms_alphabet_of(p.data_coding, SMS_GSM7);
    sms_decode(a, sl_buf_view(&octets), &text);
    struct sl_str want = sl_json_get_str(root, a == SMS_GSM7 ? "multipart_gsm" : "multipart_text");
    is_ok = is_ok && (sl_str_eq(want, sl_buf_view(&text)) || wrong("joined to another text"));
    report("joined", stem, is_ok);
done:
    sl_buf_fini(&octets);
    sl_buf_fini(&text);
}

/* ---- the rest ---- */

static bool is_refused(const json_t *c)
{
    struct sl_buf b;
    struct smpp_pdu p;
    struct smpp_part part;
    size_t len;
    sl_buf_init(&b, 0);
    bool is_hex = unhex(sl_json_get_str(c, "hex"), &b);
    enum smpp_framing framing = smpp_frame(sl_buf_view(&b), &len);
    bool is_ok = is_hex && (framing != SMPP_FRAME_WHOLE || smpp_pdu_read(sl_buf_view(&b), &p) != SMPP_OK ||
                            smpp_part_read(&p, &part) != SL_OK);
    sl_buf_fini(&b);
    return is_ok || wrong("taken: %s", sl_json_get_str(c, "why").ptr);
}

static bool gsm_is(struct sl_str octets, struct sl_str text)
{
    struct sl_buf to, back;
    sl_buf_init(&to, 0);
    sl_buf_init(&back, 0);
    sms_decode(SMS_GSM7, octets, &to);
    bool is_ok = sl_str_eq(sl_buf_view(&to), text) && sms_encode(SMS_GSM7, text, &back) == SL_OK &&
                 sl_str_eq(sl_buf_view(&back), octets);
    sl_buf_fini(&to);
    sl_buf_fini(&back);
    return is_ok || wrong("\"%.*s\" differs", (int)text.len, text.ptr);
}

static void check_gsm(const json_t *table)
{
    size_t i;
    json_t *row;
    const char *key;
    bool is_ok = true;
    json_array_foreach(json_object_get(table, "basic"), i, row)
    {
        char code = (char)json_integer_value(json_array_get(row, 0));
        is_ok = is_ok && gsm_is(sl_str_n(&code, 1), sl_str_c(json_string_value(json_array_get(row, 1))));
    }
    report("gsm7", "basic", is_ok);
    is_ok = true;
    json_object_foreach(json_object_get(table, "ext"), key, row)
    {
        struct sl_buf octets;
        sl_buf_init(&octets, 0);
        is_ok = is_ok && unhex(sl_str_c(json_string_value(row)), &octets) &&
                gsm_is(sl_buf_view(&octets), sl_str_c(key));
        sl_buf_fini(&octets);
    }
    report("gsm7", "extension", is_ok);
}

static void check_file(const json_t *root)
{
    size_t i;
    const json_t *c, *pdus = json_object_get(root, "pdus");
    json_array_foreach(pdus, i, c)
    {
        const char *name = sl_json_get_str(c, "name").ptr, *of = strrchr(name, '_');
        unsigned seq, total;
        report("pdu", name, check_pdu(c, name));
        if (of == NULL || sscanf(of, "_%uof%u", &seq, &total) != 2 || seq != 1)
            continue;
        char stem[128];
        (void)snprintf(stem, sizeof stem, "%.*s", (int)(of - name), name);
        check_long(root, pdus, stem, total);
    }
    json_array_foreach(json_object_get(root, "negative"), i, c)
        report("negative", sl_json_get_str(c, "name").ptr, is_refused(c));
    if (json_object_get(root, "gsm7") != NULL)
        check_gsm(json_object_get(root, "gsm7"));
}

int main(int argc, char **argv)
{
    json_error_t error;
    if (argc != 2) {
        fprintf(stderr, "usage: vec_smpp FILE\n");
        return 64;
    }
    json_t *root = json_load_file(argv[1], JSON_ALLOW_NUL, &error);
    if (root == NULL) {
        fprintf(stderr, "%s: %s\n", argv[1], error.text);
        return 65;
    }
    check_file(root);
    json_decref(root);
    return failures > 0;
}
