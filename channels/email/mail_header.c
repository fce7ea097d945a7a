/* channels/email/mail_header.c - header fields, mailboxes, message ids, dates. */
#include "channels/email/mail_header.h"

#include <ctype.h>
#include <stdlib.h>
#include <time.h>

/* ---- fields ---- */

static bool is_field_name(struct sl_str name)
{
    for (size_t i = 0; i < name.len; i++)
        if (name.ptr[i] <= ' ' || name.ptr[i] == ':' || name.ptr[i] == 0x7F)
            return false;
    return name.len > 0;
}

/* The first field of a line: "Name: value"; obsolete blanks before the colon are allowed. */
static bool field_begin(struct sl_str line, struct email_field *f)
{
    const char *colon = memchr(line.ptr, ':', line.len);
    if (colon == NULL)
        return false;
    f->name = email_trim(sl_str_n(line.ptr, (size_t)(colon - line.ptr)));
    f->value = sl_str_n(colon + 1, line.len - (size_t)(colon - line.ptr) - 1);
    return is_field_name(f->name);
}

static size_t fields_count(struct sl_str raw)
{
    struct sl_str line;
    size_t n = 0;
    while (email_next_line(&raw, &line) && line.len > 0)
        n++;
    return n;
}

sl_err email_headers_read(struct email_heap *h, struct sl_str raw, struct email_headers *out,
                          struct sl_fail *why)
{
    struct sl_str rest = raw, line;
    struct email_headers hs = {.count = 0};
    struct email_field *last = NULL;
    const size_t lines =
        fields_count(sl_str_n(raw.ptr, raw.len < EMAIL_HEADER_MAX_BYTES ? raw.len : EMAIL_HEADER_MAX_BYTES));
    hs.field = email_heap_get(h, (lines + 1) * sizeof *hs.field);
    while (email_next_line(&rest, &line)) {
        if ((size_t)(rest.ptr - raw.ptr) > EMAIL_HEADER_MAX_BYTES)
            return sl_fail_set(why, SL_ETOOBIG, 0, "the header has more than %d bytes",
                               EMAIL_HEADER_MAX_BYTES);
        if (line.len == 0)
            break;
        if (line.ptr[0] == ' ' || line.ptr[0] == '\t') {
            if (last != NULL)
                last->value.len = (size_t)(line.ptr + line.len - last->value.ptr);
            continue;
        }
        last = NULL;
        if (hs.count == EMAIL_HEADER_FIELDS_MAX)
            return sl_fail_set(why, SL_ETOOBIG, 0, "the header has more than %d fields",
                               EMAIL_HEADER_FIELDS_MAX);
        if (field_begin(line, &hs.field[hs.count]))
            last = &hs.field[hs.count++];
    }
    hs.size_bytes = (size_t)(rest.ptr - raw.ptr);
    *out = hs;
    return SL_OK;
}

struct sl_str email_header(const struct email_headers *hs, const char *name)
{
    for (size_t i = 0; i < hs->count; i++)
        if (email_eq_nocase(hs->field[i].name, name))
            return email_trim(hs->field[i].value);
    return SL_STR_NONE;
}

size_t email_header_count(const struct email_headers *hs, const char *name)
{
    size_t n = 0;
    for (size_t i = 0; i < hs->count; i++)
        n += email_eq_nocase(hs->field[i].name, name);
    return n;
}

struct sl_str email_header_text(struct email_heap *h, const struct email_headers *hs, const char *name)
{
    struct sl_buf b;
    sl_buf_init(&b, EMAIL_HEADER_MAX_BYTES * 4);
    email_words_decode(&b, email_header(hs, name));
    const struct sl_str s = email_heap_copy(h, email_trim(sl_buf_view(&b)));
    sl_buf_fini(&b);
    return s;
}

/* ---- mailboxes ---- */

struct reader { /* of one mailbox */
    struct sl_buf phrase, angle, comment;
    bool has_angle;
    bool has_quotes; /* "a b"@c.cn: no address that we would write again */
};

static void reader_clear(struct reader *r)
{
    sl_buf_clear(&r->phrase);
    sl_buf_clear(&r->angle);
    sl_buf_clear(&r->comment);
    r->has_angle = r->has_quotes = false;
}

bool email_address_ok(struct sl_str a)
{
    struct sl_str local, domain;
    email_address_split(a, &local, &domain);
    if (a.len > EMAIL_ADDRESS_MAX_BYTES || local.len == 0 || local.len > EMAIL_LOCAL_MAX_BYTES ||
        domain.len == 0)
        return false;
    for (size_t i = 0; i < a.len; i++) {
        const unsigned char c = (unsigned char)a.ptr[i];
        if (c <= ' ' || c == 0x7F || strchr("<>()[],;:\\\"", c) != NULL)
            return false;
    }
    return memchr(local.ptr, '@', local.len) == NULL && sl_str_utf8(a) && domain.ptr[0] != '.' &&
           domain.ptr[domain.len - 1] != '.';
}

void email_address_split(struct sl_str address, struct sl_str *local, struct sl_str *domain)
{
    const char *at = address.len > 0 ? memrchr(address.ptr, '@', address.len) : NULL;
    const size_t n = at != NULL ? (size_t)(at - address.ptr) : 0;
    *local = sl_str_n(address.ptr, n);
    *domain = at != NULL ? sl_str_n(at + 1, address.len - n - 1) : SL_STR_NONE;
}

static struct sl_str lower(struct email_heap *h, struct sl_str s)
{
    char *p = email_heap_get(h, s.len + 1);
    for (size_t i = 0; i < s.len; i++)
        p[i] = (char)((unsigned char)s.ptr[i] < 0x80 ? tolower((unsigned char)s.ptr[i]) : s.ptr[i]);
    return sl_str_n(p, s.len);
}

static bool reader_end(struct email_heap *h, struct reader *r, struct email_mailbox *out)
{
    struct sl_buf name;
    struct sl_str address = sl_buf_view(r->has_angle ? &r->angle : &r->phrase);
    if (r->has_angle && address.len > 0 && address.ptr[0] == '@') { /* an obsolete route: <@a,@b:c@d> */
        const char *colon = memrchr(address.ptr, ':', address.len);
        if (colon != NULL)
            address = sl_str_n(colon + 1, address.len - (size_t)(colon - address.ptr) - 1);
    }
    address = lower(h, email_trim(address));
    const bool is_ok = email_address_ok(address) && (r->has_angle || !r->has_quotes);
    if (is_ok) {
        sl_buf_init(&name, 0);
        email_words_decode(&name, sl_buf_view(r->has_angle && r->phrase.len > 0 ? &r->phrase : &r->comment));
        *out = (struct email_mailbox){.address = address,
                                      .name = email_heap_copy(h, email_trim(sl_buf_view(&name)))};
        sl_buf_fini(&name);
    }
    reader_clear(r);
    return is_ok;
}

/* Text in quotes from raw[i], which is the first behind the quote; returns where it ends. */
static size_t quoted(struct sl_str raw, size_t i, struct sl_buf *out)
{
    for (; i < raw.len && raw.ptr[i] != '"'; i++) {
        if (raw.ptr[i] == '\\' && i + 1 < raw.len)
            i++;
        sl_buf_char(out, raw.ptr[i]);
    }
    return i;
}

static size_t comment(struct sl_str raw, size_t i, struct sl_buf *out)
{
    unsigned depth = 1;
    for (; i < raw.len; i++) {
        if (raw.ptr[i] == '\\' && i + 1 < raw.len) {
            i++;
        } else if (raw.ptr[i] == '(') {
            depth++;
        } else if (raw.ptr[i] == ')' && --depth == 0) {
            break;
        }
        sl_buf_char(out, raw.ptr[i]);
    }
    return i;
}

static size_t angle(struct sl_str raw, size_t i, struct reader *r)
{
    r->has_angle = true;
    for (; i < raw.len && raw.ptr[i] != '>'; i++)
        sl_buf_char(&r->angle, raw.ptr[i]);
    return i;
}

size_t email_mailboxes(struct email_heap *h, struct sl_str raw, struct email_mailbox *out, size_t max)
{
    struct reader r = {.has_angle = false};
    size_t n = 0;
    sl_buf_init(&r.phrase, EMAIL_HEADER_MAX_BYTES);
    sl_buf_init(&r.angle, EMAIL_HEADER_MAX_BYTES);
    sl_buf_init(&r.comment, EMAIL_HEADER_MAX_BYTES);
    for (size_t i = 0; i <= raw.len && n < max; i++) {
        const char c = i < raw.len ? raw.ptr[i] : ',';
        if (c == ',' || c == ';') {
            n += reader_end(h, &r, &out[n]);
        } else if (c == '"') {
            r.has_quotes = true;
            i = quoted(raw, i + 1, &r.phrase);
        } else if (c == '(') {
            i = comment(raw, i + 1, &r.comment);
        } else if (c == '<') {
            i = angle(raw, i + 1, &r);
        } else if (c == ':' && r.phrase.len > 0) {
            reader_clear(&r); /* the name of a group */
        } else {
            sl_buf_char(&r.phrase, c);
        }
        if (i >= raw.len && c != ',') /* cut short inside: what there is */
            n += reader_end(h, &r, &out[n]);
    }
    sl_buf_fini(&r.phrase);
    sl_buf_fini(&r.angle);
    sl_buf_fini(&r.comment);
    return n;
}

/* ---- message ids ---- */

static bool id_ok(struct sl_str id)
{
    bool is_ok = id.len > 2 && id.len <= EMAIL_ID_MAX_BYTES && sl_str_utf8(id);
    for (size_t i = 0; i < id.len; i++)
        is_ok = is_ok && (unsigned char)id.ptr[i] > ' ' && id.ptr[i] != 0x7F;
    return is_ok;
}

/* Some programs leave the brackets out: words with an @ then are ids, and are given their brackets. */
static size_t bare_ids(struct email_heap *h, struct sl_str raw, struct sl_str *out, size_t max)
{
    size_t n = 0;
    for (size_t at = 0; at < raw.len && n < max;) {
        size_t end = at;
        while (end < raw.len && (unsigned char)raw.ptr[end] > ' ' && raw.ptr[end] != ',')
            end++;
        const struct sl_str word = sl_str_n(raw.ptr + at, end - at);
        at = end + 1;
        if (!id_ok(word) || word.len > EMAIL_ID_MAX_BYTES - 2 || memchr(word.ptr, '@', word.len) == NULL)
            continue;
        char *p = email_heap_get(h, word.len + 3);
        p[0] = '<';
        memcpy(p + 1, word.ptr, word.len);
        p[word.len + 1] = '>';
        out[n++] = sl_str_n(p, word.len + 2);
    }
    return n;
}

size_t email_ids(struct email_heap *h, struct sl_str raw, struct sl_str *out, size_t max)
{
    size_t n = 0;
    if (raw.len > 0 && memchr(raw.ptr, '<', raw.len) == NULL)
        return bare_ids(h, raw, out, max);
    while (n < max && raw.len > 0) {
        const char *open = memchr(raw.ptr, '<', raw.len);
        if (open == NULL)
            break;
        raw = sl_str_n(open, raw.len - (size_t)(open - raw.ptr));
        const char *close = memchr(raw.ptr, '>', raw.len);
        if (close == NULL)
            break;
        const struct sl_str id = sl_str_n(raw.ptr, (size_t)(close - raw.ptr) + 1);
        raw = sl_str_n(close + 1, raw.len - id.len);
        if (id_ok(id))
            out[n++] = email_heap_copy(h, id);
    }
    return n;
}

/* ---- dates ---- */

static int zone_minutes(const char *s)
{
    while (*s == ' ')
        s++;
    if ((*s == '+' || *s == '-') && strspn(s + 1, "0123456789") >= 4) {
        const int v = (s[1] - '0') * 600 + (s[2] - '0') * 60 + (s[3] - '0') * 10 + (s[4] - '0');
        return *s == '-' ? -v : v;
    }
    return 0; /* UT, GMT, Z, or a name that says nothing (RFC 5322 4.3) */
}

int64_t email_date_unix_ms(struct sl_str raw)
{
    static const char *const formats[] = {"%d %b %Y %H:%M:%S", "%d %b %Y %H:%M", "%d %b %y %H:%M:%S"};
    char text[80];
    struct sl_str s = email_trim(raw);
    const char *comma = s.len > 0 ? memchr(s.ptr, ',', s.len) : NULL;
    if (comma != NULL)
        s = email_trim(sl_str_n(comma + 1, s.len - (size_t)(comma - s.ptr) - 1));
    if (s.len == 0 || s.len >= sizeof text)
        return 0;
    for (size_t i = 0; i < s.len; i++)
        text[i] = isspace((unsigned char)s.ptr[i]) ? ' ' : s.ptr[i];
    text[s.len] = '\0';
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        struct tm tm = {.tm_isdst = 0};
        const char *end = strptime(text, formats[i], &tm); /* the C locale: months in English */
        if (end == NULL)
            continue;
        const int64_t t = (int64_t)timegm(&tm) - (int64_t)zone_minutes(end) * 60;
        return t > 0 && tm.tm_year >= 70 && tm.tm_year < 8000 ? t * 1000 : 0;
    }
    return 0;
}
