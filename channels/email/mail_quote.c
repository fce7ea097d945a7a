/* channels/email/mail_quote.c - quotes and signatures folded, line by line. */
#include "channels/email/mail_quote.h"

#include "channels/email/mail_text.h"

#include <stdlib.h>

#define LINES_MAX           20000 /* more lines than this are not looked at: they stay */
#define ATTRIBUTION_LINES   3     /* "On .. wrote:" may be folded */
#define HEADER_BLOCK_LINES  6
#define SIGNATURE_MAX_BYTES 80
#define CLOSING_MAX_BYTES   25 /* "Best regards," */
#define CLOSING_LINES_MAX   6

struct view {
    struct sl_str *line;
    size_t count;
};

/* ---- lines ---- */

static struct sl_str without_marks(struct sl_str s) /* *From:* as some write bold */
{
    s = email_trim(s);
    while (s.len > 0 && *s.ptr == '*')
        s = sl_str_n(s.ptr + 1, s.len - 1);
    return s;
}

static bool ends_with(struct sl_str s, const char *tail)
{
    const size_t n = strlen(tail);
    return s.len >= n && memcmp(s.ptr + s.len - n, tail, n) == 0;
}

static bool has(struct sl_str s, const char *part)
{
    size_t at;
    return sl_str_find(s, sl_str_c(part), &at);
}

static bool is_blank_line(struct sl_str s)
{
    return email_trim(s).len == 0;
}

static bool is_quoted_line(struct sl_str s)
{
    s = email_trim(s);
    return s.len > 0 && *s.ptr == '>';
}

/* "Word:", "Word：", "Word :" at the head of a line. */
static bool has_label(struct sl_str s, const char *const *words, size_t count)
{
    s = without_marks(s);
    for (size_t i = 0; i < count; i++) {
        const size_t n = strlen(words[i]);
        if (!email_starts_nocase(s, words[i]))
            continue;
        struct sl_str rest = sl_str_n(s.ptr + n, s.len - n);
        while (rest.len > 0 && (*rest.ptr == ' ' || *rest.ptr == '*'))
            rest = sl_str_n(rest.ptr + 1, rest.len - 1);
        if (sl_str_starts(rest, ":") || sl_str_starts(rest, "\xEF\xBC\x9A")) /* U+FF1A */
            return true;
    }
    return false;
}
#define LABEL(s, ...)                                                                                        \
    has_label((s), (const char *const[]){__VA_ARGS__},                                                       \
              sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

static bool is_from_label(struct sl_str s)
{
    return LABEL(s, "From", "发件人", "寄件者", "寄件人", "Von", "De", "Da", "Van", "差出人", "보낸 사람");
}

static unsigned block_labels(struct sl_str s)
{
    if (LABEL(s, "Sent", "Date", "发送时间", "发送日期", "日期", "时间", "寄件日期", "傳送時間", "Gesendet",
              "Envoyé", "Enviado", "Inviato", "Verzonden", "送信日時", "보낸 날짜"))
        return 1;
    if (LABEL(s, "To", "收件人", "收件者", "An", "À", "Para", "A", "Aan", "宛先", "받는 사람"))
        return 2;
    return LABEL(s, "Subject", "主题", "主旨", "主題", "Betreff", "Objet", "Asunto", "Oggetto", "Onderwerp",
                 "件名", "제목")
               ? 4
               : 0;
}

/* From:, then two of Sent, To, Subject within the next lines: Outlook's block, and what Foxmail and 163 write. */
static bool is_header_block(const struct view *v, size_t i)
{
    unsigned found = 0;
    if (!is_from_label(v->line[i]))
        return false;
    for (size_t k = i + 1; k < v->count && k <= i + HEADER_BLOCK_LINES; k++)
        found |= block_labels(v->line[k]);
    return (found & (found - 1)) != 0; /* two bits or more */
}

/* "-----Original Message-----", "------------------ 原始邮件 ------------------", "---- 回复的原邮件 ----" */
static bool is_separator(struct sl_str s)
{
    static const char *const words[] = {
        "Original Message", "Original message",  "original message",  "原始邮件",     "原邮件",    "原始郵件",
        "回复的原邮件",     "Forwarded message", "Forwarded Message", "转发邮件信息", "转发的邮件"};
    s = without_marks(s);
    if (!sl_str_starts(s, "--") || !(ends_with(s, "--") || s.len < 200))
        return false;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (has(s, words[i]))
            return true;
    return false;
}

/* A line of underscores, above Outlook's block. */
static bool is_rule_above_block(const struct view *v, size_t i)
{
    const struct sl_str s = email_trim(v->line[i]);
    for (size_t k = 0; k < s.len; k++)
        if (s.ptr[k] != '_' && s.ptr[k] != '-')
            return false;
    if (s.len < 10)
        return false;
    size_t k = i + 1;
    while (k < v->count && is_blank_line(v->line[k]))
        k++;
    return k < v->count && is_header_block(v, k);
}

/* How programs introduce what they quote: heads and tails, in the languages they speak. */
static const struct {
    const char *head;
    bool is_weak; /* a common word otherwise: there must be a date behind it, and marked quotes below */
} attribution_heads[] = {{"On ", false},    {"Le ", false},  {"Am ", false}, {"在", false}, {"於", false},
                         {"于", false},     {"El ", true},   {"Il ", true},  {"Em ", true}, {"Op ", true},
                         {"W dniu ", true}, {"Dnia ", true}, {"Den ", true}, {"pe ", true}};
static const struct {
    const char *tail;
    bool stands_alone; /* without a head, and without an address */
} attribution_tails[] = {
    {"wrote:", false},     {"schrieb:", false},     {"a écrit :", false}, {"a écrit:", false},
    {"escribió:", false},  {"ha scritto:", false},  {"escreveu:", false}, {"schreef:", false},
    {"napisał:", false},   {"napisał(a):", false},  {"pisze:", false},    {"skrev:", false},
    {"kirjoitti:", false}, {"写道：", true},        {"写道:", true},      {"寫道：", true},
    {"寫道:", true},       {"のメッセージ:", true}, {"작성:", true}};

static bool has_digit(struct sl_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] >= '0' && s.ptr[i] <= '9')
            return true;
    return false;
}

/* "2024年1月1日(月) 8:00 Support <s@x.cn>:", and "Am 1. Jan. schrieb Support <s@x.cn>:" */
static bool is_address_tail(struct sl_str s)
{
    return ends_with(s, ">:") && has(s, "@");
}

static bool is_attribution_end(struct sl_str s, bool has_head)
{
    for (size_t i = 0; i < sizeof attribution_tails / sizeof attribution_tails[0]; i++)
        if (ends_with(s, attribution_tails[i].tail))
            return has_head || attribution_tails[i].stands_alone || has(s, "@");
    return is_address_tail(s) && (has_head || has_digit(s));
}

static bool is_all_quoted_after(const struct view *v, size_t i)
{
    while (i < v->count && is_blank_line(v->line[i]))
        i++;
    return i < v->count && is_quoted_line(v->line[i]);
}

/* Length of an attribution in lines, 0: there is none here. */
static size_t attribution_at(const struct view *v, size_t i)
{
    const struct sl_str first = without_marks(v->line[i]);
    bool has_head = false, is_weak = false, has_date = false;
    for (size_t k = 0; k < sizeof attribution_heads / sizeof attribution_heads[0] && !has_head; k++) {
        has_head = sl_str_starts(first, attribution_heads[k].head);
        is_weak = has_head && attribution_heads[k].is_weak;
    }
    for (size_t k = 0; k < ATTRIBUTION_LINES && i + k < v->count; k++) {
        const struct sl_str s = email_trim(v->line[i + k]);
        if (s.len == 0 || is_quoted_line(s))
            return 0;
        has_date = has_date || has_digit(s);
        if (is_attribution_end(s, has_head && (has_date || !is_weak))) {
            is_weak = is_weak || (!has_head && is_address_tail(s));
            return is_weak && !is_all_quoted_after(v, i + k + 1) ? 0 : k + 1;
        }
        if (!has_head)
            return 0;
    }
    return 0;
}

/* "Sent from my iPhone", "发自我的iPhone": only as the last words of what stands before a quote or the end. */
static bool is_phone_signature(struct sl_str s)
{
    static const char *const heads[] = {
        "Sent from my ", "Sent from Mail for", "Sent via ",        "Get Outlook for", "发自我的",
        "发送自",        "来自我的",           "從我的",           "傳送自我的",      "获取 Outlook",
        "Von meinem ",   "Gesendet von ",      "Envoyé de mon ",   "Envoyé depuis ",  "Enviado desde ",
        "Inviato da ",   "Verzonden vanaf ",   "Verstuurd vanaf ", "Sendt fra ",      "iPhoneから送信"};
    s = without_marks(s);
    if (s.len > SIGNATURE_MAX_BYTES)
        return false;
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++)
        if (email_starts_nocase(s, heads[i]))
            return true;
    return false;
}

static bool is_signature_mark(struct sl_str s)
{
    return sl_str_eq_c(s, "-- ") ||
           sl_str_eq_c(s, "--"); /* RFC 3676 4.3, and with the blank lost on the way */
}

/* A closing line that people type, not programs. It counts only when what follows, up to a quote or the end, looks like a
 * name and an address: a few short lines. */
static bool is_closing_line(struct sl_str s)
{
    static const char *const closings[] = {"regards", "cheers", "best wishes", "cordialement"};
    s = email_trim(s);
    while (s.len > 0 && strchr(",!.", s.ptr[s.len - 1]) != NULL)
        s.len--;
    if (s.len > CLOSING_MAX_BYTES)
        return false;
    for (size_t i = 0; i < sizeof closings / sizeof closings[0]; i++) {
        const size_t n = strlen(closings[i]);
        if (s.len >= n && email_eq_nocase(sl_str_n(s.ptr + s.len - n, n), closings[i]))
            return true;
    }
    return false;
}

static bool ends_closing(const struct view *v, size_t i)
{
    return is_quoted_line(v->line[i]) || is_header_block(v, i) || is_separator(v->line[i]) ||
           attribution_at(v, i) > 0;
}

static bool is_closing(const struct view *v, size_t i)
{
    size_t lines = 0;
    if (i == 0 || !is_closing_line(v->line[i]))
        return false;
    for (size_t k = i + 1; k < v->count && lines <= CLOSING_LINES_MAX; k++) {
        const struct sl_str s = email_trim(v->line[k]);
        if (ends_closing(v, k))
            break;
        if (s.len > SIGNATURE_MAX_BYTES || has(s, "?") || has(s, "？"))
            return false;
        lines += s.len > 0;
    }
    return lines <= CLOSING_LINES_MAX;
}

/* ---- folding ---- */

/* Marks what stays; returns how many lines do. */
static size_t fold(const struct view *v, bool *stays)
{
    size_t kept = 0;
    for (size_t i = 0; i < v->count; i++) {
        if (is_header_block(v, i) || is_separator(v->line[i]) || is_rule_above_block(v, i) ||
            is_signature_mark(v->line[i]))
            break;
        if (is_quoted_line(v->line[i]))
            continue;
        if (kept > 0 && is_closing(v, i)) {
            while (i + 1 < v->count && !ends_closing(v, i + 1))
                i++;
            continue;
        }
        const size_t attribution = attribution_at(v, i);
        if (attribution > 0 && !is_all_quoted_after(v, i + attribution))
            break; /* the quote has no marks of its own */
        if (attribution > 0) {
            i += attribution - 1;
            continue;
        }
        stays[i] = true;
        kept += !is_blank_line(v->line[i]);
    }
    return kept;
}

static void drop_phone_signature(const struct view *v, bool *stays)
{
    size_t last = v->count;
    while (last > 0 && (!stays[last - 1] || is_blank_line(v->line[last - 1])))
        last--;
    if (last > 1 && is_phone_signature(v->line[last - 1]))
        stays[last - 1] = false;
}

static void write_lines(const struct view *v, const bool *stays, struct sl_buf *out)
{
    size_t blanks = 0;
    bool is_first = true;
    for (size_t i = 0; i < v->count; i++) {
        if (!stays[i])
            continue;
        if (is_blank_line(v->line[i])) {
            blanks++;
            continue;
        }
        for (size_t k = 0; !is_first && k < blanks + 1; k++)
            sl_buf_char(out, '\n');
        sl_buf_str(out, v->line[i]);
        blanks = 0;
        is_first = false;
    }
}

static bool has_words(const struct view *v, const bool *stays)
{
    for (size_t i = 0; i < v->count; i++)
        if (stays[i] && !is_blank_line(v->line[i]))
            return true;
    return false;
}

void email_quote_fold(struct sl_str text, struct sl_buf *out)
{
    struct view v = {.line = sl_alloc(LINES_MAX * sizeof(struct sl_str))};
    bool *stays = sl_alloc(LINES_MAX * sizeof *stays);
    struct sl_str rest = text, line;
    while (v.count < LINES_MAX - 1 && email_next_line(&rest, &line))
        v.line[v.count++] = line;
    if (rest.len > 0)
        v.line[v.count++] = rest;
    if (fold(&v, stays) > 0)
        drop_phone_signature(&v, stays);
    if (!has_words(&v, stays))
        memset(stays, true, v.count * sizeof *stays);
    write_lines(&v, stays, out);
    free(stays);
    free(v.line);
}
