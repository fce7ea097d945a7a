/* channels/sms/sms_optout.c - the words, the numbers and the ledger. */
#include "channels/sms/sms_optout.h"

#include <stdio.h>

static const struct {
    const char *word; /* lower case */
    enum sms_optout means;
} words[] = {
    {"stop", SMS_OPTOUT_STOP},    {"stopall", SMS_OPTOUT_STOP}, {"unsubscribe", SMS_OPTOUT_STOP},
    {"cancel", SMS_OPTOUT_STOP},  {"end", SMS_OPTOUT_STOP},     {"quit", SMS_OPTOUT_STOP},
    {"t", SMS_OPTOUT_STOP},       {"td", SMS_OPTOUT_STOP},      {"退订", SMS_OPTOUT_STOP},
    {"回t退订", SMS_OPTOUT_STOP}, {"拒收", SMS_OPTOUT_STOP},    {"start", SMS_OPTOUT_START},
    {"unstop", SMS_OPTOUT_START}, {"恢复", SMS_OPTOUT_START},
};

/* Bytes at p of a blank or of a mark that people put around a word; 0: none. */
static size_t mark_at(struct sl_str s)
{
    static const char *const wide[] = {"。", "，", "！", "、", "　", "“", "”", "：", "；", "．"};
    if (s.len > 0 && strchr(" \t\r\n.,!\"':;()[]", s.ptr[0]) != NULL && s.ptr[0] != '\0')
        return 1;
    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++)
        if (sl_str_starts(s, wide[i]))
            return strlen(wide[i]);
    return 0;
}

/* Lower case, full-width letters made narrow, marks and blanks left out; false: longer than any word. */
static bool plain_word(struct sl_str text, char *out, size_t size)
{
    size_t n = 0;
    while (text.len > 0) {
        size_t mark = mark_at(text);
        size_t step = mark;
        if (mark == 0) {
            unsigned char c = (unsigned char)text.ptr[0];
            step = 1;
            if (text.len >= 3 && c == 0xef && (unsigned char)text.ptr[1] == 0xbc &&
                (unsigned char)text.ptr[2] >= 0xa1 &&
                (unsigned char)text.ptr[2] <= 0xba) { /* U+FF21..FF3A: full-width A..Z */
                c = (unsigned char)('a' + (unsigned char)text.ptr[2] - 0xa1);
                step = 3;
            } else if (text.len >= 3 && c == 0xef && (unsigned char)text.ptr[1] == 0xbd &&
                       (unsigned char)text.ptr[2] >= 0x81 && (unsigned char)text.ptr[2] <= 0x9a) { /* a..z */
                c = (unsigned char)('a' + (unsigned char)text.ptr[2] - 0x81);
                step = 3;
            }
            if (n + 1 >= size)
                return false;
            out[n++] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
        }
        text = sl_str_n(text.ptr + step, text.len - step);
    }
    out[n] = '\0';
    return n > 0;
}

enum sms_optout sms_optout_word(struct sl_str text)
{
    char word[32];
    if (!plain_word(text, word, sizeof word))
        return SMS_OPTOUT_NONE;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(words[i].word, word) == 0)
            return words[i].means;
    return SMS_OPTOUT_NONE;
}

/* ---- numbers ---- */

static bool is_all_digits(const char *s)
{
    return s[0] != '\0' && strspn(s, "0123456789") == strlen(s);
}

sl_err sms_number_canonical(struct sl_str raw, const char *country, char out[SMS_NUMBER_MAX + 1])
{
    char digits[SMS_NUMBER_MAX + 1];
    size_t n = 0;
    for (size_t i = 0; i < raw.len; i++) {
        char c = raw.ptr[i];
        if (strchr(" -.()", c) != NULL && c != '\0')
            continue;
        bool is_known = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c == '+' && n == 0);
        if (!is_known || n == SMS_NUMBER_MAX)
            return SL_EINVAL;
        digits[n++] = c;
    }
    digits[n] = '\0';
    if (n == 0 || (digits[0] == '+' && !is_all_digits(digits + 1)))
        return SL_EINVAL;
    const char *prefix = "", *rest = digits;
    bool is_national = digits[0] != '+' && is_all_digits(digits);
    if (is_national && strncmp(digits, "00", 2) == 0) {
        prefix = "+";
        rest = digits + 2;
    } else if (is_national && country[0] != '\0' && n > 6) { /* six digits or fewer are a short code */
        prefix = "+";
        if (strncmp(digits, country, strlen(country)) != 0 || n < strlen(country) + 9)
            prefix = country;
    }
    int len = snprintf(out, SMS_NUMBER_MAX + 1, "%s%s%s", prefix[0] == '+' || prefix[0] == '\0' ? "" : "+",
                       prefix, rest);
    return len > 1 && len <= SMS_NUMBER_MAX ? SL_OK : SL_EINVAL;
}

/* ---- the ledger ---- */

static bool ledger_name(struct sl_str number, char *out, size_t size)
{
    int n = snprintf(out, size, "optout.%.*s", (int)number.len, number.ptr);
    return n > 0 && (size_t)n < size;
}

sl_err sms_optout_ask(struct chan *ch, struct sl_str number, chan_kv_fn fn, void *arg)
{
    char name[MSG_ID_MAX_BYTES + 1];
    if (!ledger_name(number, name, sizeof name))
        return SL_EINVAL;
    struct chan_kv op = {.op = CHAN_KV_GET, .name = sl_str_c(name)};
    return chan_host_of(ch)->kv(ch, &op, fn, arg);
}

sl_err sms_optout_put(struct chan *ch, struct sl_str number, bool is_out, chan_kv_fn fn, void *arg)
{
    char name[MSG_ID_MAX_BYTES + 1];
    if (!ledger_name(number, name, sizeof name))
        return SL_EINVAL;
    struct chan_kv op = {.op = is_out ? CHAN_KV_SET : CHAN_KV_DROP,
                         .name = sl_str_c(name),
                         .value = is_out ? SL_STR("1") : SL_STR_NONE};
    return chan_host_of(ch)->kv(ch, &op, fn, arg);
}
