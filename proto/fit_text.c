/* proto/fit_text.c - where a text may be cut. See fit.h. */
#include "proto/fit.h"

#include <strings.h>
#include <utf8proc.h>

/* How good a place is, best last. */
enum rank { RANK_GRAPHEME, RANK_IDEOGRAPH, RANK_WORD, RANK_SENTENCE, RANKS };

struct scan {
    struct sl_str text;
    size_t at;                        /* between the code points before and next */
    utf8proc_int32_t before, earlier; /* the last two before `at`; 0: none */
    utf8proc_int32_t next;
    size_t next_bytes;
    utf8proc_int32_t state; /* utf8proc's, for graphemes of several code points */
    size_t url_end;         /* `at` below it stands inside an address */
    size_t best[RANKS];     /* the last place of each rank; 0: none */
    bool is_tight;
};

static bool is_one_of(utf8proc_int32_t c, const char *set)
{
    utf8proc_int32_t member;
    utf8proc_ssize_t n;
    for (const utf8proc_uint8_t *p = (const utf8proc_uint8_t *)set; *p != '\0'; p += n) {
        n = utf8proc_iterate(p, -1, &member);
        if (member == c)
            return true;
    }
    return false;
}

static bool is_space(utf8proc_int32_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || c == 0x3000;
}

static bool is_closing(utf8proc_int32_t c)
{
    return is_one_of(c, ")]}）】》」』”’");
}

/* Ends a sentence whatever follows, or only before a space. */
static bool is_stop(utf8proc_int32_t c, utf8proc_int32_t next)
{
    return c == '\n' || is_one_of(c, "。！？；…") || (is_one_of(c, ".!?;") && is_space(next));
}

static bool is_ideograph(utf8proc_int32_t c)
{
    return (c >= 0x3040 && c <= 0x30ff) || (c >= 0x3400 && c <= 0x9fff) || (c >= 0xf900 && c <= 0xfaff) ||
           (c >= 0x20000 && c <= 0x323af);
}

static enum rank rank_of(const struct scan *s)
{
    if (is_closing(s->next) || is_one_of(s->next, "，、。！？；：…,.!?;:"))
        return RANK_GRAPHEME; /* a part does not begin with what belongs to the one before */
    if (is_stop(s->before, s->next) || (is_closing(s->before) && is_stop(s->earlier, s->before)) ||
        (is_closing(s->before) && is_one_of(s->earlier, ".!?") && is_space(s->next)))
        return RANK_SENTENCE;
    if (is_space(s->before) || is_space(s->next) || is_one_of(s->before, "，、：") ||
        (is_one_of(s->before, ",:") && !(s->next >= '0' && s->next <= '9') && s->next != '/'))
        return RANK_WORD;
    return is_ideograph(s->before) || is_ideograph(s->next) ? RANK_IDEOGRAPH : RANK_GRAPHEME;
}

static bool is_url_char(char c)
{
    return c > ' ' && c < 127 && strchr("<>\"'`{}|\\^", c) == NULL;
}

/* Bytes of the address that begins at `at`; 0: none does, or it does not fit. */
static size_t url_at(struct sl_str text, size_t at, size_t max)
{
    const char *p = text.ptr + at;
    size_t left = text.len - at, n = 0;
    bool is_url =
        (left > 7 && strncasecmp(p, "http://", 7) == 0) || (left > 8 && strncasecmp(p, "https://", 8) == 0);
    if (!is_url)
        return 0;
    while (n < left && n <= max && is_url_char(p[n]))
        n++;
    if (n > max)
        return 0;
    while (n > 0 && strchr(".,;:!?)]", p[n - 1]) != NULL)
        n--;
    return n;
}

static void read_next(struct scan *s)
{
    utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)s->text.ptr + s->at,
                                          (utf8proc_ssize_t)(s->text.len - s->at), &s->next);
    if (n > 0) {
        s->next_bytes = (size_t)n;
        return;
    }
    s->next = 0xfffd; /* not UTF-8: the caller's fault, but no reason to stop */
    s->next_bytes = 1;
}

static void note_place(struct scan *s)
{
    bool is_boundary = utf8proc_grapheme_break_stateful(s->before, s->next, &s->state);
    if (is_boundary && s->at >= s->url_end)
        s->best[rank_of(s)] = s->at;
}

static size_t choose(const struct scan *s)
{
    /* A good place that would leave a part nearly empty is not good; where parts are scarce, one that leaves room is not. */
    size_t enough = s->is_tight ? s->at - s->at / 8 : s->at / 3, last = 0;
    for (int r = RANKS - 1; r >= 0; r--)
        if (s->best[r] > enough)
            return s->best[r];
    for (int r = RANKS - 1; r >= 0; r--) {
        if (s->best[r] > 0 && !s->is_tight)
            return s->best[r];
        last = s->best[r] > last ? s->best[r] : last;
    }
    if (last > 0)
        return last;
    return s->at > 0 ? s->at : s->next_bytes; /* one grapheme over the limit: cut it between code points */
}

static size_t trimmed_end(struct sl_str text, size_t end)
{
    for (;;) {
        if (end > 0 && is_space((unsigned char)text.ptr[end - 1]))
            end--;
        else if (end >= 3 && memcmp(text.ptr + end - 3, "\xe3\x80\x80", 3) == 0)
            end -= 3;
        else
            return end;
    }
}

static size_t skip_space(struct sl_str text, size_t at)
{
    for (;;) {
        if (at < text.len && is_space((unsigned char)text.ptr[at]))
            at++;
        else if (text.len - at >= 3 && memcmp(text.ptr + at, "\xe3\x80\x80", 3) == 0)
            at += 3;
        else
            return at;
    }
}

size_t fit_units(struct sl_str text, bool is_chars)
{
    size_t n = 0;
    if (!is_chars)
        return text.len;
    for (size_t i = 0; i < text.len; i++)
        n += ((unsigned char)text.ptr[i] & 0xc0) != 0x80;
    return n;
}

size_t fit_cut(struct sl_str text, size_t max, bool is_chars, bool is_tight, size_t *next)
{
    struct scan s = {.text = text, .is_tight = is_tight};
    size_t units = 0;
    sl_assert(max >= FIT_TEXT_MIN);
    if (text.len <= max) { /* no more characters than bytes: all of it, as nearly every message */
        *next = text.len;
        return text.len;
    }
    while (s.at < text.len) {
        read_next(&s);
        if (s.at > 0)
            note_place(&s);
        size_t url = s.at >= s.url_end ? url_at(text, s.at, max) : 0;
        if (url > 0)
            s.url_end = s.at + url;
        size_t more = is_chars ? 1 : s.next_bytes;
        if (units + more > max)
            break;
        units += more;
        s.earlier = s.before;
        s.before = s.next;
        s.at += s.next_bytes;
    }
    size_t end = s.at < text.len ? choose(&s) : text.len;
    *next = end < text.len ? skip_space(text, end) : end;
    return end < text.len ? trimmed_end(text, end) : end;
}
