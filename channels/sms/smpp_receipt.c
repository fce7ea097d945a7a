/* channels/sms/smpp_receipt.c - see smpp_receipt.h. */
#include "channels/sms/smpp_receipt.h"

#include "channels/sms/sms_text.h"

#include <ctype.h>
#include <strings.h>

bool smpp_is_receipt(const struct smpp_pdu *p)
{
    uint8_t type = p->esm_class & SMPP_ESM_TYPE;
    struct sl_str id;
    return type == SMPP_ESM_RECEIPT || type == SMPP_ESM_INTERMEDIATE ||
           (type == 0 && smpp_tlv_find(p->tlvs, SMPP_TAG_RECEIPTED_MESSAGE_ID, &id));
}

/* ---- the text form: key:value pairs in any case, with and without blanks inside the keys ---- */

enum field { FIELD_NONE, FIELD_ID, FIELD_STATE, FIELD_ERROR, FIELD_DONE, FIELD_TEXT, FIELD_OTHER };
static const struct {
    const char *key; /* without blanks and underscores, lower case */
    enum field field;
} keys[] = {{"id", FIELD_ID},           {"msgid", FIELD_ID},    {"messageid", FIELD_ID},
            {"stat", FIELD_STATE},      {"state", FIELD_STATE}, {"status", FIELD_STATE},
            {"err", FIELD_ERROR},       {"error", FIELD_ERROR}, {"donedate", FIELD_DONE},
            {"text", FIELD_TEXT},       {"sub", FIELD_OTHER},   {"dlvrd", FIELD_OTHER},
            {"submitdate", FIELD_OTHER}};

static const struct {
    const char *word;
    enum smpp_state state;
} words[] = {{"DELIVRD", SMPP_STATE_DELIVERED},         {"DELIVERED", SMPP_STATE_DELIVERED},
             {"EXPIRED", SMPP_STATE_EXPIRED},           {"DELETED", SMPP_STATE_DELETED},
             {"UNDELIV", SMPP_STATE_UNDELIVERABLE},     {"UNDELIVERABLE", SMPP_STATE_UNDELIVERABLE},
             {"UNDELIVERED", SMPP_STATE_UNDELIVERABLE}, {"FAILED", SMPP_STATE_UNDELIVERABLE},
             {"ACCEPTD", SMPP_STATE_ACCEPTED},          {"ACCEPTED", SMPP_STATE_ACCEPTED},
             {"UNKNOWN", SMPP_STATE_UNKNOWN},           {"REJECTD", SMPP_STATE_REJECTED},
             {"REJECTED", SMPP_STATE_REJECTED},         {"ENROUTE", SMPP_STATE_ENROUTE},
             {"BUFFERED", SMPP_STATE_ENROUTE},          {"SCHEDULED", SMPP_STATE_ENROUTE}};

/* Does a key of the table stand at `at`, with its colon? Then *value is where the value begins. */
static enum field key_at(struct sl_str s, size_t at, size_t *value)
{
    for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
        size_t i = at, n = 0, key_len = strlen(keys[k].key);
        while (i < s.len && n < key_len) {
            char c = (char)tolower((unsigned char)s.ptr[i]);
            if (c == keys[k].key[n])
                n++;
            else if (n == 0 || (c != ' ' && c != '_'))
                break;
            i++;
        }
        while (n == key_len && i < s.len && s.ptr[i] == ' ')
            i++;
        if (n < key_len || i >= s.len || s.ptr[i] != ':')
            continue;
        *value = i + 1;
        return keys[k].field;
    }
    return FIELD_NONE;
}

static bool is_key_start(struct sl_str s, size_t at)
{
    return at == 0 || s.ptr[at - 1] == ' ' || s.ptr[at - 1] == '\t' || s.ptr[at - 1] == '\n' ||
           s.ptr[at - 1] == '\r' || s.ptr[at - 1] == ';' || s.ptr[at - 1] == ',';
}

static enum smpp_state state_of(struct sl_str word)
{
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (word.len == strlen(words[i].word) && strncasecmp(word.ptr, words[i].word, word.len) == 0)
            return words[i].state;
    return SMPP_STATE_NONE;
}

static struct sl_str word_at(struct sl_str s, size_t at)
{
    while (at < s.len && s.ptr[at] == ' ')
        at++;
    size_t end = at;
    while (end < s.len && !isspace((unsigned char)s.ptr[end]) && s.ptr[end] != ';' && s.ptr[end] != ',')
        end++;
    return sl_str_n(s.ptr + at, end - at);
}

/* Every field counts once, the first time; what stands behind text: is the customer's. */
void smpp_receipt_text(struct sl_str text, struct smpp_receipt *out)
{
    for (size_t at = 0; at < text.len; at++) {
        size_t value = 0;
        enum field field = is_key_start(text, at) ? key_at(text, at, &value) : FIELD_NONE;
        if (field == FIELD_NONE)
            continue;
        if (field == FIELD_TEXT)
            return;
        struct sl_str word = word_at(text, value), none = SL_STR_NONE;
        size_t ignored;
        if (is_key_start(text, (size_t)(word.ptr - text.ptr)) &&
            key_at(text, (size_t)(word.ptr - text.ptr), &ignored) != FIELD_NONE)
            word = none; /* "id: stat:DELIVRD": the value is missing */
        if (field == FIELD_ID && out->id.len == 0)
            out->id = word;
        else if (field == FIELD_STATE && out->state == SMPP_STATE_NONE)
            out->state = state_of(word);
        else if (field == FIELD_ERROR && out->error.len == 0)
            out->error = word;
        else if (field == FIELD_DONE && out->done.len == 0)
            out->done = word;
        at = value - 1;
    }
}

/* Some centres write receipts as UCS-2, too. What we look for in them is ASCII. */
static struct sl_str plain_text(const struct smpp_pdu *p, struct smpp_receipt *out)
{
    size_t n = 0;
    if (sms_alphabet_of(p->data_coding, SMS_GSM7) != SMS_UCS2)
        return p->text;
    for (size_t i = 0; i + 2 <= p->text.len && n < sizeof out->plain; i += 2)
        out->plain[n++] = p->text.ptr[i] == 0 ? p->text.ptr[i + 1] : '?';
    return sl_str_n(out->plain, n);
}

sl_err smpp_receipt_read(const struct smpp_pdu *p, struct smpp_receipt *out)
{
    struct sl_str id;
    uint32_t state;
    *out = (struct smpp_receipt){.id = SL_STR_NONE, .error = SL_STR_NONE, .done = SL_STR_NONE};
    smpp_receipt_text(p->text, out);
    if (out->id.len == 0 && out->state == SMPP_STATE_NONE)
        smpp_receipt_text(plain_text(p, out), out);
    if (smpp_tlv_find(p->tlvs, SMPP_TAG_RECEIPTED_MESSAGE_ID, &id)) {
        const char *nul = id.len > 0 ? memchr(id.ptr, '\0', id.len) : NULL;
        size_t len = nul != NULL ? (size_t)(nul - id.ptr) : id.len; /* peers leave the NUL out */
        if (len > 0)
            out->id = sl_str_n(id.ptr, len);
    }
    if (smpp_tlv_uint(p->tlvs, SMPP_TAG_MESSAGE_STATE, 1, &state) && state >= SMPP_STATE_ENROUTE &&
        state <= SMPP_STATE_REJECTED)
        out->state = (enum smpp_state)state;
    struct sl_str error;
    if (smpp_tlv_find(p->tlvs, SMPP_TAG_NETWORK_ERROR_CODE, &error) && error.len == 3)
        out->network_error = (uint32_t)(unsigned char)error.ptr[0] << 16 |
                             (uint32_t)(unsigned char)error.ptr[1] << 8 | (unsigned char)error.ptr[2];
    return out->id.len == 0 || out->state == SMPP_STATE_NONE ? SL_EINVAL : SL_OK;
}

const char *smpp_state_word(enum smpp_state s)
{
    static const char *const state_words[] = {"none",          "enroute",  "delivered", "expired", "deleted",
                                              "undeliverable", "accepted", "unknown",   "rejected"};
    return state_words[s];
}

/* ---- ids ---- */

static bool number_of(struct sl_str id, unsigned base, uint64_t *out)
{
    uint64_t n = 0;
    if (id.len == 0 || id.len > 64)
        return false;
    for (size_t i = 0; i < id.len; i++) {
        int c = tolower((unsigned char)id.ptr[i]);
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                                                : 99;
        if (digit >= base || n > (UINT64_MAX - digit) / base)
            return false;
        n = n * base + digit;
    }
    *out = n;
    return true;
}

void smpp_id_form(struct sl_buf *out, struct sl_str id, enum smpp_ids ids, bool is_receipt)
{
    uint64_t n;
    bool is_hex = (ids == SMPP_IDS_HEX_DEC) != is_receipt;
    if (ids != SMPP_IDS_SAME && number_of(id, is_hex ? 16 : 10, &n)) {
        sl_buf_uint(out, n);
        return;
    }
    while (id.len > 1 && id.ptr[0] == '0')
        id = sl_str_n(id.ptr + 1, id.len - 1);
    for (size_t i = 0; i < id.len; i++) {
        unsigned char c = (unsigned char)id.ptr[i];
        if ((c < 0x80 && isalnum(c)) || c == '.' || c == '_' || c == ':' || c == '-')
            sl_buf_char(out, (char)tolower(c));
        else
            sl_buf_printf(out, "%%%02x", c);
    }
}
