/* channels/email/mail_text.c - one mail's memory, charsets, encoded words. */
#include "channels/email/mail_text.h"

#include <ctype.h>
#include <iconv.h>
#include <stdlib.h>
#include <strings.h>

#define FFFD          "\xEF\xBF\xBD"
#define BLOCK_BYTES   16384
#define WORD_MAX      75 /* RFC 2047 2: an encoded word is at most 75 characters */
#define LINE_SOFT_MAX 76 /* RFC 2047 2: a line with encoded words is at most 76 */
#define CHARSET_MAX   40
#define CONVERT_CHUNK 4096

/* ---- heap ---- */

struct block {
    struct block *next;
    size_t used, size;
    _Alignas(max_align_t) char bytes[];
};

struct email_heap {
    struct block *last;
};

struct email_heap *email_heap_new(void)
{
    return sl_alloc(sizeof(struct email_heap));
}

void email_heap_free(struct email_heap **hp)
{
    struct email_heap *h = *hp;
    *hp = NULL;
    if (h == NULL)
        return;
    while (h->last != NULL) {
        struct block *b = h->last;
        h->last = b->next;
        free(b);
    }
    free(h);
}

void *email_heap_get(struct email_heap *h, size_t n)
{
    const size_t align = _Alignof(max_align_t);
    sl_assert(n <= SIZE_MAX / 2);
    n = (n + align - 1) / align * align;
    struct block *b = h->last;
    if (b == NULL || b->size - b->used < n) {
        const size_t size = n > BLOCK_BYTES ? n : BLOCK_BYTES;
        b = sl_alloc(sizeof *b + size); /* zeroed */
        b->size = size;
        b->next = h->last;
        h->last = b;
    }
    void *p = b->bytes + b->used;
    b->used += n;
    return p;
}

struct sl_str email_heap_copy(struct email_heap *h, struct sl_str s)
{
    char *p = email_heap_get(h, s.len + 1);
    if (s.len > 0)
        memcpy(p, s.ptr, s.len);
    return sl_str_n(p, s.len);
}

/* ---- UTF-8 ---- */

/* Bounds of the second byte after this first one, and the length; 0: no first byte. RFC 3629 4, Unicode table 3-7. */
static size_t utf8_shape(unsigned char c, unsigned char *low, unsigned char *high)
{
    *low = 0x80;
    *high = 0xBF;
    if (c >= 0xC2 && c <= 0xDF)
        return 2;
    if (c >= 0xE0 && c <= 0xEF) {
        *low = c == 0xE0 ? 0xA0 : 0x80;
        *high = c == 0xED ? 0x9F : 0xBF;
        return 3;
    }
    if (c >= 0xF0 && c <= 0xF4) {
        *low = c == 0xF0 ? 0x90 : 0x80;
        *high = c == 0xF4 ? 0x8F : 0xBF;
        return 4;
    }
    return 0;
}

/* Length of the well-formed sequence at p, or 0 with *bad: how many bytes one U+FFFD stands for (maximal subpart). */
static size_t utf8_take(const unsigned char *p, size_t n, size_t *bad)
{
    unsigned char low, high;
    *bad = 1;
    if (p[0] < 0x80)
        return p[0] != 0 ? 1 : 0;
    const size_t len = utf8_shape(p[0], &low, &high);
    for (size_t i = 1; i < len; i++) {
        if (i >= n || p[i] < low || p[i] > high) {
            *bad = i;
            return 0;
        }
        low = 0x80;
        high = 0xBF;
    }
    return len;
}

void email_utf8_clean(struct sl_buf *out, struct sl_str in)
{
    const unsigned char *p = (const unsigned char *)in.ptr;
    size_t start = 0, i = 0;
    while (i < in.len) {
        size_t bad;
        const size_t len = utf8_take(p + i, in.len - i, &bad);
        if (len > 0) {
            i += len;
            continue;
        }
        sl_buf_add(out, in.ptr + start, i - start);
        sl_buf_c(out, FFFD);
        i += bad;
        start = i;
    }
    sl_buf_add(out, in.ptr + start, in.len - start);
}

struct sl_str email_utf8_head(struct sl_str s, size_t max)
{
    if (s.len <= max)
        return s;
    while (max > 0 && ((unsigned char)s.ptr[max] & 0xC0) == 0x80)
        max--;
    return sl_str_n(s.ptr, max);
}

/* ---- charsets ---- */

/* What a label means to iconv(3) of glibc. Only names in this table reach iconv: a mail must not choose which module
 * is loaded. first NULL: UTF-8 itself. */
static const struct charset {
    const char *label, *first, *second;
} charsets[] = {
    {"utf-8", NULL, NULL},
    {"utf8", NULL, NULL},
    {"unicode-1-1-utf-8", NULL, NULL},
    {"utf-7", "UTF-7", NULL},
    {"unicode-1-1-utf-7", "UTF-7", NULL},
    {"utf-16", "UTF-16", NULL},
    {"utf-16le", "UTF-16LE", NULL},
    {"utf-16be", "UTF-16BE", NULL},
    {"gb2312", "GB18030", "CP936"},
    {"gb_2312-80", "GB18030", "CP936"},
    {"euc-cn", "GB18030", "CP936"},
    {"gbk", "GB18030", "CP936"},
    {"x-gbk", "GB18030", "CP936"},
    {"cp936", "GB18030", "CP936"},
    {"ms936", "GB18030", "CP936"},
    {"windows-936", "GB18030", "CP936"},
    {"gb18030", "GB18030", "CP936"},
    {"big5", "BIG5-HKSCS", "CP950"},
    {"big5-hkscs", "BIG5-HKSCS", "CP950"},
    {"cp950", "BIG5-HKSCS", "CP950"},
    {"x-x-big5", "BIG5-HKSCS", "CP950"},
    {"ks_c_5601-1987", "CP949", NULL},
    {"ks_c_5601", "CP949", NULL},
    {"euc-kr", "CP949", NULL},
    {"cp949", "CP949", NULL},
    {"iso-2022-kr", "ISO-2022-KR", NULL},
    {"shift_jis", "CP932", NULL},
    {"shift-jis", "CP932", NULL},
    {"sjis", "CP932", NULL},
    {"windows-31j", "CP932", NULL},
    {"euc-jp", "EUC-JP", NULL},
    {"iso-2022-jp", "ISO-2022-JP-2", NULL},
    {"iso-8859-1", "CP1252", NULL},
    {"latin1", "CP1252", NULL},
    {"windows-1252", "CP1252", NULL},
    {"cp1252", "CP1252", NULL},
    {"iso-8859-2", "ISO-8859-2", NULL},
    {"iso-8859-3", "ISO-8859-3", NULL},
    {"iso-8859-4", "ISO-8859-4", NULL},
    {"iso-8859-5", "ISO-8859-5", NULL},
    {"iso-8859-6", "ISO-8859-6", NULL},
    {"iso-8859-7", "ISO-8859-7", NULL},
    {"iso-8859-8", "ISO-8859-8", NULL},
    {"iso-8859-9", "CP1254", NULL},
    {"iso-8859-10", "ISO-8859-10", NULL},
    {"iso-8859-11", "CP874", NULL},
    {"tis-620", "CP874", NULL},
    {"windows-874", "CP874", NULL},
    {"iso-8859-13", "ISO-8859-13", NULL},
    {"iso-8859-14", "ISO-8859-14", NULL},
    {"iso-8859-15", "ISO-8859-15", NULL},
    {"iso-8859-16", "ISO-8859-16", NULL},
    {"windows-1250", "CP1250", NULL},
    {"windows-1251", "CP1251", NULL},
    {"windows-1253", "CP1253", NULL},
    {"windows-1254", "CP1254", NULL},
    {"windows-1255", "CP1255", NULL},
    {"windows-1256", "CP1256", NULL},
    {"windows-1257", "CP1257", NULL},
    {"windows-1258", "CP1258", NULL},
    {"koi8-r", "KOI8-R", NULL},
    {"koi8-u", "KOI8-U", NULL},
    {"ibm866", "CP866", NULL},
    {"cp866", "CP866", NULL},
    {"macintosh", "MACINTOSH", NULL},
};

static const struct charset *charset_find(struct sl_str label)
{
    for (size_t i = 0; i < sizeof charsets / sizeof charsets[0]; i++)
        if (email_eq_nocase(label, charsets[i].label))
            return &charsets[i];
    return NULL;
}

/* Append what iconv makes of in; returns how many places could not be read. */
static size_t convert(struct sl_buf *out, struct sl_str in, const char *from)
{
    size_t bad = 0, left = in.len;
    iconv_t cd = iconv_open("UTF-8", from);
    if (cd == (iconv_t)-1) { /* a libc without this charset */
        email_utf8_clean(out, in);
        return in.len;
    }
    char *p = (char *)(uintptr_t)in.ptr, chunk[CONVERT_CHUNK];
    for (bool is_end = false; !is_end;) {
        char *to = chunk;
        size_t room = sizeof chunk;
        is_end = left == 0; /* CP1255, BIG5-HKSCS and others keep a letter back until they see the next */
        const size_t n = iconv(cd, is_end ? NULL : &p, is_end ? NULL : &left, &to, &room);
        email_utf8_clean(out, sl_str_n(chunk, sizeof chunk - room)); /* NUL becomes U+FFFD */
        if (is_end)
            break;
        if (n != (size_t)-1 || room < sizeof chunk - 16)
            continue; /* done, or the chunk was full */
        bad++;
        sl_buf_c(out, FFFD);
        p++; /* malformed, or cut short at the end */
        left--;
    }
    iconv_close(cd);
    return bad;
}

static void decode_two(struct sl_buf *out, struct sl_str in, const char *first, const char *second)
{
    struct sl_buf one, two;
    sl_buf_init(&one, in.len * 4 + 64);
    const size_t bad = convert(&one, in, first);
    struct sl_buf *best = &one;
    sl_buf_init(&two, in.len * 4 + 64);
    if (bad > 0 && second != NULL && convert(&two, in, second) == 0)
        best = &two;
    sl_buf_str(out, sl_buf_view(best));
    sl_buf_fini(&one);
    sl_buf_fini(&two);
}

/* RFC 1843: ~{ begins two-byte text (GB 2312 with the high bits off), ~} ends it, ~~ is a tilde. */
static void decode_hz(struct sl_buf *out, struct sl_str in)
{
    struct sl_buf bytes;
    bool is_chinese = false;
    sl_buf_init(&bytes, in.len + 1);
    for (size_t i = 0; i < in.len; i++) {
        const char c = in.ptr[i], next = i + 1 < in.len ? in.ptr[i + 1] : '\0';
        if (c == '~' && (next == '{' || next == '}' || next == '~' || next == '\n')) {
            if (next == '~')
                sl_buf_char(&bytes, '~');
            is_chinese = next == '{' || (is_chinese && next != '}');
            i++;
        } else if (is_chinese && c > ' ' && next > ' ') {
            sl_buf_char(&bytes, (char)(c | 0x80));
            sl_buf_char(&bytes, (char)(next | 0x80));
            i++;
        } else {
            is_chinese = is_chinese && c != '\n';
            sl_buf_char(&bytes, c);
        }
    }
    decode_two(out, sl_buf_view(&bytes), "GB18030", "CP936");
    sl_buf_fini(&bytes);
}

static void decode_guess(struct sl_buf *out, struct sl_str in)
{
    struct sl_buf b;
    if (sl_str_utf8(in)) {
        sl_buf_str(out, in);
        return;
    }
    bool is_ascii = true;
    for (size_t i = 0; i < in.len; i++)
        is_ascii = is_ascii && (unsigned char)in.ptr[i] < 0x80;
    if (is_ascii) { /* only NUL is wrong with it */
        email_utf8_clean(out, in);
        return;
    }
    sl_buf_init(&b, in.len * 4 + 64);
    if (convert(&b, in, "GB18030") > 0) {
        sl_buf_clear(&b);
        (void)convert(&b, in, "CP1252");
    }
    sl_buf_str(out, sl_buf_view(&b));
    sl_buf_fini(&b);
}

void email_charset_decode(struct sl_buf *out, struct sl_str in, struct sl_str charset)
{
    const struct charset *known = charset_find(email_trim(charset));
    if (email_starts_nocase(charset, "hz"))
        decode_hz(out, in);
    else if (known == NULL)
        decode_guess(out, in);
    else if (known->first == NULL)
        email_utf8_clean(out, in);
    else
        decode_two(out, in, known->first, known->second);
}

/* ---- base64 ---- */

static const char base64_alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

void email_base64_decode(struct sl_buf *out, struct sl_str in)
{
    uint32_t bits = 0;
    unsigned count = 0;
    for (size_t i = 0; i < in.len; i++) {
        const int v = base64_value(in.ptr[i]);
        if (in.ptr[i] == '=') {
            bits = 0;
            count = 0;
        }
        if (v < 0)
            continue;
        bits = bits << 6 | (uint32_t)v;
        count += 6;
        if (count >= 8) {
            count -= 8;
            sl_buf_char(out, (char)(bits >> count & 0xFF));
        }
    }
}

void email_base64_encode(struct sl_buf *out, struct sl_str in)
{
    const unsigned char *p = (const unsigned char *)in.ptr;
    for (size_t i = 0; i < in.len; i += 3) {
        const size_t n = in.len - i < 3 ? in.len - i : 3;
        const uint32_t bits =
            (uint32_t)p[i] << 16 | (n > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (n > 2 ? p[i + 2] : 0u);
        char four[4] = {base64_alphabet[bits >> 18 & 63], base64_alphabet[bits >> 12 & 63],
                        n > 1 ? base64_alphabet[bits >> 6 & 63] : '=',
                        n > 2 ? base64_alphabet[bits & 63] : '='};
        sl_buf_add(out, four, 4);
    }
}

/* ---- encoded words ---- */

struct word {
    struct sl_str charset, text;
    char encoding; /* 'b' or 'q' */
};

/* Is there an encoded word at the head of s? RFC 2047 2, liberal in its length. */
static size_t word_at(struct sl_str s, struct word *w)
{
    if (s.len < 8 || s.ptr[0] != '=' || s.ptr[1] != '?')
        return 0;
    const char *end = s.ptr + s.len, *charset = s.ptr + 2;
    const char *mark = memchr(charset, '?', (size_t)(end - charset));
    if (mark == NULL || mark == charset || (size_t)(mark - charset) > CHARSET_MAX || end - mark < 5 ||
        mark[2] != '?')
        return 0;
    const char encoding = (char)tolower((unsigned char)mark[1]);
    const char *text = mark + 3;
    if (encoding != 'b' && encoding != 'q')
        return 0;
    for (const char *p = text; p + 1 < end && *p != '\n' && *p != '\r'; p++) {
        if (p[0] != '?' || p[1] != '=')
            continue;
        const char *language = memchr(charset, '*', (size_t)(mark - charset)); /* RFC 2231 5 */
        w->charset = sl_str_n(charset, (size_t)((language != NULL ? language : mark) - charset));
        w->text = sl_str_n(text, (size_t)(p - text));
        w->encoding = encoding;
        return (size_t)(p + 2 - s.ptr);
    }
    return 0;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void q_decode(struct sl_buf *out, struct sl_str in)
{
    for (size_t i = 0; i < in.len; i++) {
        const char c = in.ptr[i];
        if (c == '=' && i + 2 < in.len && hex_value(in.ptr[i + 1]) >= 0 && hex_value(in.ptr[i + 2]) >= 0) {
            sl_buf_char(out, (char)(hex_value(in.ptr[i + 1]) << 4 | hex_value(in.ptr[i + 2])));
            i += 2;
        } else {
            sl_buf_char(out, c == '_' ? ' ' : c);
        }
    }
}

/* Words of one charset that follow each other are decoded together: a character may be split across them. */
struct pending {
    struct sl_buf bytes;
    struct sl_str charset;
    bool is_word;
};

static void pending_flush(struct pending *p, struct sl_buf *out)
{
    if (p->bytes.len > 0)
        email_charset_decode(out, sl_buf_view(&p->bytes), p->is_word ? p->charset : SL_STR_NONE);
    sl_buf_clear(&p->bytes);
    p->is_word = false;
}

static void pending_word(struct pending *p, const struct word *w, struct sl_buf *out)
{
    const bool is_same = p->is_word && p->charset.len == w->charset.len &&
                         strncasecmp(p->charset.ptr, w->charset.ptr, w->charset.len) == 0;
    if (!is_same)
        pending_flush(p, out);
    p->is_word = true;
    p->charset = w->charset;
    if (w->encoding == 'b')
        email_base64_decode(&p->bytes, w->text);
    else
        q_decode(&p->bytes, w->text);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static size_t blanks_at(struct sl_str raw, size_t i)
{
    size_t n = 0;
    while (i + n < raw.len && is_blank(raw.ptr[i + n]))
        n++;
    return n;
}

void email_words_decode(struct sl_buf *out, struct sl_str raw)
{
    struct pending p = {.is_word = false};
    struct sl_buf text;
    struct word w;
    raw = email_trim(raw);
    sl_buf_init(&p.bytes, raw.len + 64);
    sl_buf_init(&text, raw.len * 4 + 64);
    for (size_t i = 0; i < raw.len;) {
        const size_t blanks = blanks_at(raw, i);
        const size_t word = word_at(sl_str_n(raw.ptr + i + blanks, raw.len - i - blanks), &w);
        if (word > 0 && p.is_word) { /* blanks between two words are none */
            pending_word(&p, &w, &text);
            i += blanks + word;
        } else if (word > 0 && blanks == 0) {
            pending_word(&p, &w, &text);
            i += word;
        } else {
            if (p.is_word)
                pending_flush(&p, &text);
            sl_buf_char(&p.bytes, raw.ptr[i]);
            i++;
        }
    }
    pending_flush(&p, &text);
    for (size_t i = 0; i < text.len; i++) { /* folds, and what an encoded word smuggled in */
        const unsigned char c = (unsigned char)text.ptr[i];
        if ((c == '\r' || c == '\n') && i + 1 < text.len && is_blank(text.ptr[i + 1]))
            continue;
        sl_buf_char(out, c < 0x20 || c == 0x7F ? ' ' : (char)c);
    }
    sl_buf_fini(&text);
    sl_buf_fini(&p.bytes);
}

static bool is_plain_header(struct sl_str text)
{
    size_t run = 0;
    for (size_t i = 0; i < text.len; i++) {
        const char c = text.ptr[i];
        if (c < 0x20 || c > 0x7E || (c == '=' && i + 1 < text.len && text.ptr[i + 1] == '?'))
            return false;
        run = c == ' ' ? 0 : run + 1;
        if (run > 200)
            return false; /* could not be folded */
    }
    return text.len == 0 || (text.ptr[0] != ' ' && text.ptr[text.len - 1] != ' ');
}

static void plain_encode(struct sl_buf *out, struct sl_str text, size_t column)
{
    for (size_t i = 0; i < text.len;) {
        const char *blank = i + 1 < text.len ? memchr(text.ptr + i + 1, ' ', text.len - i - 1) : NULL;
        const size_t n = blank != NULL ? (size_t)(blank - text.ptr) - i : text.len - i;
        if (column + n > LINE_SOFT_MAX && text.ptr[i] == ' ') {
            sl_buf_c(out, "\r\n");
            column = 0;
        }
        sl_buf_add(out, text.ptr + i, n);
        column += n;
        i += n;
    }
}

void email_words_encode(struct sl_buf *out, struct sl_str text, size_t column)
{
    static const char head[] = "=?UTF-8?B?", tail[] = "?=";
    const size_t frame = sizeof head - 1 + sizeof tail - 1;
    if (is_plain_header(text)) {
        plain_encode(out, text, column);
        return;
    }
    for (size_t i = 0; i < text.len;) {
        size_t room = WORD_MAX - frame;
        if (column + frame + 8 < WORD_MAX && column > 0)
            room = WORD_MAX - frame - column; /* the first word shares its line with the header's name */
        struct sl_str piece = email_utf8_head(sl_str_n(text.ptr + i, text.len - i), room / 4 * 3);
        if (piece.len == 0)
            piece.len = 1; /* not UTF-8: never stand still */
        if (i > 0)
            sl_buf_c(out, "\r\n ");
        sl_buf_c(out, head);
        email_base64_encode(out, piece);
        sl_buf_c(out, tail);
        i += piece.len;
        column = 1;
    }
}

/* ---- small things ---- */

struct sl_str email_trim(struct sl_str s)
{
    while (s.len > 0 && is_blank(s.ptr[0])) {
        s.ptr++;
        s.len--;
    }
    while (s.len > 0 && is_blank(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

bool email_eq_nocase(struct sl_str a, const char *b)
{
    return a.len == strlen(b) && (a.len == 0 || strncasecmp(a.ptr, b, a.len) == 0);
}

bool email_starts_nocase(struct sl_str s, const char *prefix)
{
    const size_t n = strlen(prefix);
    return s.len >= n && strncasecmp(s.ptr, prefix, n) == 0;
}

bool email_has_nocase(struct sl_str s, const char *part)
{
    const size_t n = strlen(part);
    for (size_t i = 0; i + n <= s.len; i++)
        if (strncasecmp(s.ptr + i, part, n) == 0)
            return true;
    return false;
}

bool email_next_line(struct sl_str *rest, struct sl_str *line)
{
    if (rest->len == 0)
        return false;
    const char *end = memchr(rest->ptr, '\n', rest->len);
    const size_t n = end != NULL ? (size_t)(end - rest->ptr) : rest->len;
    *line = sl_str_n(rest->ptr, n > 0 && rest->ptr[n - 1] == '\r' ? n - 1 : n);
    const size_t used = end != NULL ? n + 1 : n;
    *rest = sl_str_n(rest->ptr + used, rest->len - used);
    return true;
}
