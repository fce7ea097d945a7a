/* channels/sms/smpp_join.c - see smpp_join.h. */
#include "channels/sms/smpp_join.h"

#include "base/crypto.h"

#include <stdio.h>

#define MARK 'd' /* first letter of the fields that name what was handed on */

struct stored { /* one field of the map that is a part */
    struct sl_str field, octets_b64;
    unsigned seq;
    uint8_t data_coding;
    int64_t at_ms;
};

void smpp_join_init(struct smpp_joined *j)
{
    *j = (struct smpp_joined){.parts = 0};
    sl_buf_init(j->octets, 0);
    sl_buf_init(j->fields, 0);
}

void smpp_join_fini(struct smpp_joined *j)
{
    sl_buf_fini(j->octets);
    sl_buf_fini(j->fields);
}

static void hash10(struct sl_str bytes, char out[11])
{
    unsigned char sum[32];
    sl_sha256(bytes, sum);
    sl_hex(out, sum, 5);
}

void smpp_join_field(char out[SMPP_FIELD_MAX], const struct smpp_part *part)
{
    char hash[11];
    hash10(part->octets, hash);
    (void)snprintf(out, SMPP_FIELD_MAX, "%u-%s", part->seq, hash);
}

void smpp_join_value(struct sl_buf *out, const struct smpp_part *part, uint8_t data_coding, int64_t unix_ms)
{
    sl_buf_int(out, unix_ms);
    sl_buf_char(out, '.');
    sl_buf_uint(out, data_coding);
    sl_buf_char(out, '.');
    sl_b64url(out, part->octets);
}

void smpp_join_mark(const struct smpp_joined *j, char out[SMPP_FIELD_MAX])
{
    char hash[11];
    hash10(sl_buf_view(j->fields), hash);
    (void)snprintf(out, SMPP_FIELD_MAX, "%c-%s", MARK, hash);
}

/* ---- walking the map ---- */

static bool next_pair(struct sl_str map, size_t *at, struct sl_str *name, struct sl_str *value)
{
    struct sl_str *const both[2] = {name, value};
    for (size_t i = 0; i < 2; i++) {
        size_t left = map.len - *at;
        const char *nul = left > 0 ? memchr(map.ptr + *at, '\0', left) : NULL;
        if (nul == NULL)
            return false;
        *both[i] = sl_str_n(map.ptr + *at, (size_t)(nul - (map.ptr + *at)));
        *at += both[i]->len + 1;
    }
    return true;
}

static struct sl_str until(struct sl_str *rest, char stop)
{
    const char *p = rest->len > 0 ? memchr(rest->ptr, stop, rest->len) : NULL;
    struct sl_str head = sl_str_n(rest->ptr, p != NULL ? (size_t)(p - rest->ptr) : rest->len);
    size_t used = head.len + (p != NULL ? 1 : 0);
    *rest = sl_str_n(rest->ptr + used, rest->len - used);
    return head;
}

static bool stored_read(struct sl_str name, struct sl_str value, unsigned total, struct stored *out)
{
    struct sl_str rest = name;
    uint64_t seq, coding;
    if (sl_str_uint(until(&rest, '-'), &seq) != SL_OK || seq == 0 || seq > total || rest.len == 0 ||
        name.len >= SMPP_FIELD_MAX || memchr(name.ptr, ',', name.len) != NULL)
        return false;
    out->field = name;
    out->seq = (unsigned)seq;
    if (sl_str_int(until(&value, '.'), &out->at_ms) != SL_OK ||
        sl_str_uint(until(&value, '.'), &coding) != SL_OK || coding > 255)
        return false;
    out->data_coding = (uint8_t)coding;
    out->octets_b64 = value;
    return true;
}

static bool lists(struct sl_str list, struct sl_str field)
{
    while (list.len > 0)
        if (sl_str_eq(until(&list, ','), field))
            return true;
    return false;
}

/* The mark that names this field; false: not handed on yet. */
static bool mark_of(struct sl_str map, struct sl_str field, struct sl_str *fields)
{
    struct sl_str name, value;
    for (size_t at = 0; next_pair(map, &at, &name, &value);) {
        if (name.len == 0 || name.ptr[0] != MARK || !lists(value, field))
            continue;
        *fields = value;
        return true;
    }
    return false;
}

/* ---- joining ---- */

/* The part of this number among those that are allowed: in the list when there is one, else not handed on. Of several
 * the latest. */
static bool pick(struct sl_str map, unsigned total, unsigned seq, struct sl_str list, struct stored *out)
{
    struct sl_str name, value, mark;
    struct stored s = {.at_ms = 0};
    bool is_found = false;
    for (size_t at = 0; next_pair(map, &at, &name, &value);) {
        if (!stored_read(name, value, total, &s) || s.seq != seq)
            continue;
        bool is_allowed = list.len > 0 ? lists(list, name) : !mark_of(map, name, &mark);
        if (!is_allowed || (is_found && s.at_ms <= out->at_ms))
            continue;
        *out = s;
        is_found = true;
    }
    return is_found;
}

static void take(struct smpp_joined *j, const struct stored *s)
{
    size_t before = j->octets->len;
    if (sl_b64url_decode(j->octets, s->octets_b64) != SL_OK) {
        j->octets->len = before;
        return;
    }
    if (j->parts == 0)
        j->data_coding = s->data_coding;
    if (j->fields->len > 0)
        sl_buf_char(j->fields, ',');
    sl_buf_str(j->fields, s->field);
    j->have[s->seq] = 1;
    j->parts++;
}

enum smpp_join_result smpp_join(struct sl_str map, unsigned total, struct sl_str field,
                                struct smpp_joined *out)
{
    struct sl_str list = SL_STR_NONE;
    struct stored s = {.at_ms = 0};
    bool is_repeat = field.len > 0 && mark_of(map, field, &list);
    sl_assert(total <= SMPP_PARTS_MAX); /* an octet on the wire */
    for (unsigned seq = 1; seq <= total; seq++) {
        if (pick(map, total, seq, list, &s))
            take(out, &s);
        out->end[seq] = out->octets->len;
    }
    if (is_repeat && out->parts > 0)
        return SMPP_JOIN_REPEAT;
    return out->parts == total ? SMPP_JOIN_WHOLE : SMPP_JOIN_WAITS;
}

/* Runs of parts are decoded as one: a surrogate pair may lie over a seam. */
void smpp_join_text(const struct smpp_joined *j, unsigned total, enum sms_alphabet zero, struct sl_buf *text)
{
    enum sms_alphabet a = sms_alphabet_of(j->data_coding, zero);
    size_t from = 0;
    for (unsigned seq = 1; seq <= total; seq++) {
        if (j->have[seq] && seq < total && j->have[seq + 1])
            continue;
        if (j->have[seq])
            sms_decode(a, sl_str_n(sl_buf_view(j->octets).ptr + from, j->end[seq] - from), text);
        else if (seq == 1 || j->have[seq - 1])
            sl_buf_c(text, "[...]");
        from = j->end[seq];
    }
}
