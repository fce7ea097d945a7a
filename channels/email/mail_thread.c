/* channels/email/mail_thread.c - tokens of conversations and sends. */
#include "channels/email/mail_thread.h"

#include "base/crypto.h"
#include "base/ulid.h"

#include <ctype.h>

#define MAC_CHARS 12 /* of base32: 60 bits */

static void mac_write(struct sl_str secret, struct sl_str inbox, char kind, struct sl_str a, struct sl_str b,
                      char out[MAC_CHARS + 1])
{
    static const char base32[] = "abcdefghijklmnopqrstuvwxyz234567"; /* RFC 4648 6 */
    struct sl_buf in;
    unsigned char hash[32];
    uint64_t bits = 0;
    sl_buf_init(&in, 0);
    sl_buf_c(&in, "email\n");
    sl_buf_char(&in, kind);
    sl_buf_char(&in, '\n');
    sl_buf_str(&in, inbox);
    sl_buf_char(&in, '\n');
    sl_buf_str(&in, a);
    sl_buf_char(&in, '\n');
    sl_buf_str(&in, b);
    sl_hmac_sha256(secret, sl_buf_view(&in), hash);
    sl_buf_fini(&in);
    for (size_t i = 0; i < 8; i++)
        bits = bits << 8 | hash[i];
    for (size_t i = 0; i < MAC_CHARS; i++, bits <<= 5)
        out[i] = base32[bits >> 59];
    out[MAC_CHARS] = '\0';
}

static bool mac_ok(const struct email_keys *k, char kind, struct sl_str a, struct sl_str b, struct sl_str mac)
{
    char want[MAC_CHARS + 1];
    mac_write(k->secret, k->inbox, kind, a, b, want);
    bool is_ok = sl_secret_eq(mac, sl_str_c(want));
    if (!is_ok && k->old_secret.len > 0) {
        mac_write(k->old_secret, k->inbox, kind, a, b, want);
        is_ok = sl_secret_eq(mac, sl_str_c(want));
    }
    return is_ok;
}

/* "17.01JD..." to "17-01jd..."; false when it is no such id. */
static bool token_of(struct sl_str conversation, char out[EMAIL_CONV_MAX])
{
    const char *dot = conversation.len > 0 ? memchr(conversation.ptr, '.', conversation.len) : NULL;
    uint64_t k;
    if (dot == NULL || conversation.len >= EMAIL_CONV_MAX)
        return false;
    const size_t at = (size_t)(dot - conversation.ptr);
    if (at > 6 || sl_str_uint(sl_str_n(conversation.ptr, at), &k) != SL_OK ||
        !sl_ulid_valid(sl_str_n(dot + 1, conversation.len - at - 1)))
        return false;
    for (size_t i = 0; i < conversation.len; i++)
        out[i] = (char)tolower((unsigned char)conversation.ptr[i]);
    out[at] = '-';
    out[conversation.len] = '\0';
    return true;
}

static bool conversation_of(struct sl_str token, char out[EMAIL_CONV_MAX])
{
    char again[EMAIL_CONV_MAX];
    const char *dash = token.len > 0 ? memchr(token.ptr, '-', token.len) : NULL;
    if (dash == NULL || token.len >= EMAIL_CONV_MAX)
        return false;
    for (size_t i = 0; i < token.len; i++)
        out[i] = (char)toupper((unsigned char)token.ptr[i]);
    out[dash - token.ptr] = '.';
    out[token.len] = '\0';
    return token_of(sl_str_c(out), again);
}

static bool key_ok(struct sl_str key)
{
    for (size_t i = 0; i < key.len; i++)
        if (!(key.ptr[i] >= '0' && key.ptr[i] <= '9') && !(key.ptr[i] >= 'a' && key.ptr[i] <= 'z') &&
            key.ptr[i] != '_' && key.ptr[i] != '-')
            return false;
    return key.len > 0 && key.len < EMAIL_CONV_MAX;
}

static bool address_write(const struct email_keys *k, char kind, struct sl_str token, struct sl_buf *out)
{
    char mac[MAC_CHARS + 1];
    struct sl_str local, domain;
    email_address_split(k->address, &local, &domain);
    if (local.len + 2 + token.len + 1 + MAC_CHARS > EMAIL_LOCAL_MAX_BYTES)
        return false;
    mac_write(k->secret, k->inbox, kind, token, SL_STR_NONE, mac);
    sl_buf_str(out, local);
    sl_buf_char(out, '+');
    sl_buf_char(out, kind);
    sl_buf_str(out, token);
    sl_buf_char(out, '.');
    sl_buf_c(out, mac);
    sl_buf_char(out, '@');
    sl_buf_str(out, domain);
    return true;
}

bool email_conversation_address(const struct email_keys *k, struct sl_str conversation, struct sl_buf *out)
{
    char token[EMAIL_CONV_MAX];
    return token_of(conversation, token) && address_write(k, 'c', sl_str_c(token), out);
}

bool email_bounce_address(const struct email_keys *k, struct sl_str key, struct sl_buf *out)
{
    return key_ok(key) && address_write(k, 'b', key, out);
}

void email_message_id(const struct email_keys *k, struct sl_str conversation, struct sl_str key,
                      struct sl_buf *out)
{
    char token[EMAIL_CONV_MAX], mac[MAC_CHARS + 1];
    if (!token_of(conversation, token))
        (void)memcpy(token, "0", 2);
    mac_write(k->secret, k->inbox, 'm', sl_str_c(token), key, mac);
    sl_buf_c(out, "<sluice.");
    sl_buf_c(out, token);
    sl_buf_char(out, '.');
    sl_buf_str(out, key);
    sl_buf_char(out, '.');
    sl_buf_c(out, mac);
    sl_buf_char(out, '@');
    sl_buf_str(out, k->domain);
    sl_buf_char(out, '>');
}

/* ---- reading ---- */

static bool lower(struct sl_str s, char *out, size_t size)
{
    if (s.len >= size)
        return false;
    for (size_t i = 0; i < s.len; i++)
        out[i] = (char)tolower((unsigned char)s.ptr[i]);
    out[s.len] = '\0';
    return true;
}

/* "<kind><token>.<mac>" */
static enum email_to tag_read(const struct email_keys *k, struct sl_str tag, char what[EMAIL_CONV_MAX])
{
    const char *dot = tag.len > 1 ? memrchr(tag.ptr, '.', tag.len) : NULL;
    if (dot == NULL || dot == tag.ptr)
        return EMAIL_TO_US;
    const char kind = tag.ptr[0];
    const struct sl_str token = sl_str_n(tag.ptr + 1, (size_t)(dot - tag.ptr) - 1);
    const struct sl_str mac = sl_str_n(dot + 1, tag.len - (size_t)(dot - tag.ptr) - 1);
    if ((kind != 'c' && kind != 'b') || token.len == 0 || token.len >= EMAIL_CONV_MAX ||
        !mac_ok(k, kind, token, SL_STR_NONE, mac))
        return EMAIL_TO_US;
    if (kind == 'c')
        return conversation_of(token, what) ? EMAIL_TO_CONVERSATION : EMAIL_TO_US;
    memcpy(what, token.ptr, token.len);
    what[token.len] = '\0';
    return EMAIL_TO_BOUNCE;
}

enum email_to email_address_read(const struct email_keys *k, struct sl_str address, char what[EMAIL_CONV_MAX])
{
    char text[EMAIL_ADDRESS_MAX_BYTES + 2];
    struct sl_str local, domain, our_local, our_domain;
    what[0] = '\0';
    if (!lower(address, text, sizeof text))
        return EMAIL_TO_OTHERS;
    email_address_split(sl_str_c(text), &local, &domain);
    email_address_split(k->address, &our_local, &our_domain);
    if (!sl_str_eq(domain, our_domain) || local.len < our_local.len ||
        memcmp(local.ptr, our_local.ptr, our_local.len) != 0)
        return EMAIL_TO_OTHERS;
    if (local.len == our_local.len)
        return EMAIL_TO_US;
    if (local.ptr[our_local.len] != '+')
        return EMAIL_TO_OTHERS;
    const enum email_to to =
        tag_read(k, sl_str_n(local.ptr + our_local.len + 1, local.len - our_local.len - 1), what);
    if (to == EMAIL_TO_US)
        what[0] = '\0';
    return to;
}

bool email_message_id_read(const struct email_keys *k, struct sl_str id, char conversation[EMAIL_CONV_MAX],
                           char key[EMAIL_CONV_MAX])
{
    static const char head[] = "<sluice.";
    char text[EMAIL_ID_MAX_BYTES + 1];
    conversation[0] = key[0] = '\0';
    if (!lower(id, text, sizeof text) || !sl_str_starts(sl_str_c(text), head) || text[id.len - 1] != '>')
        return false;
    struct sl_str local, domain;
    email_address_split(sl_str_n(text + sizeof head - 1, id.len - sizeof head), &local, &domain);
    const char *first = local.len > 0 ? memchr(local.ptr, '.', local.len) : NULL;
    const char *second = local.len > 0 ? memrchr(local.ptr, '.', local.len) : NULL;
    if (first == NULL || first == second || !sl_str_eq(domain, k->domain))
        return false;
    const struct sl_str token = sl_str_n(local.ptr, (size_t)(first - local.ptr));
    const struct sl_str seq = sl_str_n(first + 1, (size_t)(second - first) - 1);
    const struct sl_str mac = sl_str_n(second + 1, local.len - (size_t)(second - local.ptr) - 1);
    if (!key_ok(seq) || token.len >= EMAIL_CONV_MAX || !mac_ok(k, 'm', token, seq, mac))
        return false;
    if (!conversation_of(token, conversation))
        conversation[0] = '\0';
    memcpy(key, seq.ptr, seq.len);
    key[seq.len] = '\0';
    return true;
}

/* ---- the order ---- */

const char *email_proof_name(enum email_proof p)
{
    switch (p) {
    case EMAIL_NO_THREAD:
        return "";
    case EMAIL_BY_ADDRESS:
        return "address";
    case EMAIL_BY_IN_REPLY_TO:
        return "in-reply-to";
    case EMAIL_BY_REFERENCES:
        return "references";
    }
    return "";
}

enum email_proof email_thread_of(const struct email_keys *k, const struct email_mail *m,
                                 const struct sl_str *envelope, size_t envelope_count,
                                 char conversation[EMAIL_CONV_MAX])
{
    char key[EMAIL_CONV_MAX];
    for (size_t i = 0; i < envelope_count; i++)
        if (email_address_read(k, envelope[i], conversation) == EMAIL_TO_CONVERSATION)
            return EMAIL_BY_ADDRESS;
    for (size_t i = 0; i < m->to_count; i++)
        if (email_address_read(k, m->to[i].address, conversation) == EMAIL_TO_CONVERSATION)
            return EMAIL_BY_ADDRESS;
    if (email_message_id_read(k, m->in_reply_to, conversation, key) && conversation[0] != '\0')
        return EMAIL_BY_IN_REPLY_TO;
    for (size_t i = m->reference_count; i > 0; i--)
        if (email_message_id_read(k, m->references[i - 1], conversation, key) && conversation[0] != '\0')
            return EMAIL_BY_REFERENCES;
    conversation[0] = '\0';
    return EMAIL_NO_THREAD;
}
