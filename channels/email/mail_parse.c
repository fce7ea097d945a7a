/* channels/email/mail_parse.c - a mail's parts through gmime, its words through the files beside this one. */
#include "channels/email/mail_parse.h"

#include "channels/email/mail_html.h"
#include "channels/email/mail_quote.h"

#include "base/crypto.h"

#include <gmime/gmime.h>
#include <pthread.h>
#include <stdlib.h>

#define MARKS_MAX                                                                                            \
    1000 /* of "boundary" and "message/" in a mail: gmime's parser recurses once for each, at most */
#define NAME_MAX_BYTES 120

struct walk {
    struct email_mail *m;
    struct sl_fail *why;
    size_t parts;
    struct sl_buf text, visible;
    bool has_report_part;
};

/* The words of one subtree: multipart/alternative chooses between two of them. */
struct words {
    struct sl_buf text, visible, html;
    bool is_plain; /* comes from text/plain */
};

static void words_init(struct words *w)
{
    sl_buf_init(&w->text, EMAIL_TEXT_MAX_BYTES * 4);
    sl_buf_init(&w->visible, EMAIL_TEXT_MAX_BYTES * 4);
    sl_buf_init(&w->html, EMAIL_TEXT_MAX_BYTES * 4);
    w->is_plain = false;
}

static void words_fini(struct words *w)
{
    sl_buf_fini(&w->text);
    sl_buf_fini(&w->visible);
    sl_buf_fini(&w->html);
}

static void words_join(struct words *to, const struct words *from)
{
    if (from->text.len > 0 && to->text.len > 0 && to->text.ptr[to->text.len - 1] != '\n')
        sl_buf_char(&to->text, '\n');
    sl_buf_str(&to->text, sl_buf_view(&from->text));
    if (from->visible.len > 0 && to->visible.len > 0 && to->visible.ptr[to->visible.len - 1] != '\n')
        sl_buf_char(&to->visible, '\n');
    sl_buf_str(&to->visible, sl_buf_view(&from->visible));
    if (to->html.len == 0)
        sl_buf_str(&to->html, sl_buf_view(&from->html));
    to->is_plain = to->is_plain || from->is_plain;
}

/* ---- one part ---- */

static struct sl_str lower_type(struct email_heap *h, GMimeContentType *type)
{
    char *text = g_mime_content_type_get_mime_type(type);
    struct sl_str s = email_heap_copy(h, sl_str_c(text != NULL ? text : "application/octet-stream"));
    g_free(text);
    char *p = (char *)(uintptr_t)s.ptr;
    bool is_ok = s.len <= 100;
    for (size_t i = 0; i < s.len; i++) {
        p[i] = (char)g_ascii_tolower(p[i]);
        is_ok = is_ok && (g_ascii_isalnum(p[i]) || strchr("/.+-_", p[i]) != NULL);
    }
    return is_ok ? s : SL_STR("application/octet-stream");
}

/* A part's bytes, its transfer encoding taken off. */
static struct sl_str part_bytes(struct email_heap *h, GMimePart *part)
{
    GMimeDataWrapper *content = g_mime_part_get_content(part);
    if (content == NULL)
        return SL_STR_NONE;
    GMimeStream *mem = g_mime_stream_mem_new();
    (void)g_mime_data_wrapper_write_to_stream(content, mem);
    const GByteArray *bytes = g_mime_stream_mem_get_byte_array(GMIME_STREAM_MEM(mem)); /* borrowed */
    const struct sl_str s = email_heap_copy(h, sl_str_n((const char *)bytes->data, bytes->len));
    g_object_unref(mem);
    return s;
}

static struct sl_str object_bytes(struct email_heap *h, GMimeObject *o)
{
    GMimeStream *mem = g_mime_stream_mem_new();
    GMimeFormatOptions *format = g_mime_format_options_new();
    g_mime_format_options_set_newline_format(
        format, GMIME_NEWLINE_FORMAT_DOS); /* a file of its own ends lines by CRLF */
    (void)g_mime_object_write_to_stream(o, format, mem);
    g_mime_format_options_free(format);
    const GByteArray *bytes = g_mime_stream_mem_get_byte_array(GMIME_STREAM_MEM(mem)); /* borrowed */
    const struct sl_str s = email_heap_copy(h, sl_str_n((const char *)bytes->data, bytes->len));
    g_object_unref(mem);
    return s;
}

/* A parameter as it stands in the raw field, for senders who put encoded words of odd charsets there. */
static struct sl_str name_of(struct email_heap *h, GMimeObject *o)
{
    const char *name = g_mime_object_get_content_disposition_parameter(o, "filename");
    if (name == NULL)
        name = g_mime_object_get_content_type_parameter(o, "name");
    if (name == NULL)
        return SL_STR_NONE;
    struct sl_buf b, clean;
    sl_buf_init(&b, 0);
    sl_buf_init(&clean, 0);
    email_words_decode(&b, sl_str_c(name));
    const char *slash = b.len > 0 ? memrchr(b.ptr, '/', b.len) : NULL; /* no path, of either kind */
    const char *back = b.len > 0 ? memrchr(b.ptr, '\\', b.len) : NULL;
    const char *start = slash > back ? slash : back;
    const size_t skip = start != NULL ? (size_t)(start - b.ptr) + 1 : 0;
    email_utf8_clean(&clean, email_trim(sl_str_n(b.len > 0 ? b.ptr + skip : "", b.len - skip)));
    struct sl_str s = email_heap_copy(h, email_utf8_head(sl_buf_view(&clean), NAME_MAX_BYTES));
    if (sl_str_eq_c(s, ".") || sl_str_eq_c(s, ".."))
        s = SL_STR_NONE;
    sl_buf_fini(&b);
    sl_buf_fini(&clean);
    return s;
}

static void add_file(struct walk *w, enum email_file_kind kind, struct sl_str bytes, struct sl_str type,
                     struct sl_str name)
{
    struct email_mail *m = w->m;
    if (bytes.len == 0)
        return;
    if (m->file_count == EMAIL_FILES_MAX) {
        m->files_left_out++;
        return;
    }
    if (name.len == 0)
        name = kind == EMAIL_CALENDAR    ? SL_STR("invite.ics")
               : kind == EMAIL_FORWARDED ? SL_STR("forwarded.eml")
                                         : SL_STR("attachment");
    m->files[m->file_count++] = (struct email_file){.kind = kind, .bytes = bytes, .type = type, .name = name};
}

static bool is_parameter(GMimeObject *o, const char *name, const char *value)
{
    const char *v = g_mime_object_get_content_type_parameter(o, name);
    return v != NULL && g_ascii_strcasecmp(v, value) == 0;
}

static void without_cr(struct sl_str in, struct sl_buf *out)
{
    for (size_t i = 0; i < in.len; i++)
        if (in.ptr[i] != '\r')
            sl_buf_char(out, in.ptr[i]);
}

static void read_text(struct walk *w, GMimeObject *o, struct sl_str bytes, bool is_html, struct words *out)
{
    const char *charset = g_mime_object_get_content_type_parameter(o, "charset");
    struct sl_buf utf8, plain;
    if (bytes.len > EMAIL_TEXT_MAX_BYTES) {
        bytes.len = EMAIL_TEXT_MAX_BYTES;
        w->m->is_text_cut = true;
    }
    sl_buf_init(&utf8, bytes.len * 4 + 64);
    email_charset_decode(&utf8, bytes, charset != NULL ? sl_str_c(charset) : SL_STR_NONE);
    if (is_html) {
        email_html_text(sl_buf_view(&utf8), &out->text, &out->visible);
        sl_buf_str(&out->html, sl_buf_view(&utf8));
        sl_buf_fini(&utf8);
        return;
    }
    sl_buf_init(&plain, utf8.len + 64);
    without_cr(sl_buf_view(&utf8), &plain);
    sl_buf_clear(&utf8);
    if (is_parameter(o, "format", "flowed"))
        email_unflow(sl_buf_view(&plain), is_parameter(o, "delsp", "yes"), &utf8);
    else
        sl_buf_str(&utf8, sl_buf_view(&plain));
    sl_buf_str(&out->text, sl_buf_view(&utf8));
    sl_buf_str(&out->visible, sl_buf_view(&utf8));
    out->is_plain = true;
    sl_buf_fini(&plain);
    sl_buf_fini(&utf8);
}

static void find_reported_id(struct email_mail *m, struct sl_str header)
{
    struct email_headers hs;
    if (m->reported_id.len == 0 && email_headers_read(m->heap, header, &hs, NULL) == SL_OK)
        (void)email_ids(m->heap, email_header(&hs, "message-id"), &m->reported_id, 1);
}

/* What a report consists of. true: it is no attachment beside that. */
static bool read_report_part(struct walk *w, struct sl_str type, struct sl_str bytes)
{
    struct email_mail *m = w->m;
    if (sl_str_eq_c(type, "message/delivery-status") || sl_str_eq_c(type, "message/global-delivery-status")) {
        m->report_count = email_reports_read(m->heap, bytes, m->reports, EMAIL_REPORTS_MAX);
        w->has_report_part = true;
        return true;
    }
    if (sl_str_eq_c(type, "message/disposition-notification")) {
        struct email_headers hs;
        if (email_headers_read(m->heap, bytes, &hs, NULL) == SL_OK)
            (void)email_ids(m->heap, email_header(&hs, "original-message-id"), &m->reported_id, 1);
        w->has_report_part = true;
        return true;
    }
    if (sl_str_eq_c(type, "text/rfc822-headers") || sl_str_eq_c(type, "message/rfc822-headers")) {
        find_reported_id(m, bytes);
        return true;
    }
    return false;
}

static void read_leaf(struct walk *w, GMimePart *part, struct words *out)
{
    struct email_heap *h = w->m->heap;
    GMimeObject *o = GMIME_OBJECT(part);
    GMimeContentType *content_type = g_mime_object_get_content_type(o); /* borrowed */
    const struct sl_str type = lower_type(h, content_type), name = name_of(h, o), bytes = part_bytes(h, part);
    const char *disposition = g_mime_object_get_disposition(o);
    const bool is_attachment = disposition != NULL && g_ascii_strcasecmp(disposition, "attachment") == 0;
    const bool is_html = sl_str_eq_c(type, "text/html"), is_plain = sl_str_eq_c(type, "text/plain");
    if (!is_attachment && name.len == 0 && (is_plain || is_html)) {
        read_text(w, o, bytes, is_html, out);
        return;
    }
    if (read_report_part(w, type, bytes) &&
        email_has_nocase(email_header(&w->m->headers, "content-type"), "multipart/report"))
        return; /* in a letter it is an attachment like others */
    const bool is_inline = g_mime_object_get_content_id(o) != NULL && !is_attachment;
    add_file(w,
             sl_str_eq_c(type, "text/calendar") ? EMAIL_CALENDAR
             : is_inline                        ? EMAIL_INLINE
                                                : EMAIL_FILE,
             bytes, type, name);
}

/* ---- the tree ---- */

static sl_err visit(struct walk *w, GMimeObject *o, unsigned depth, struct words *out);

/* The last part that is plain text with words wins over HTML: RFC 2046 5.1.4 has the richest last, we want the plainest. */
static sl_err visit_alternative(struct walk *w, GMimeMultipart *mp, unsigned depth, struct words *out)
{
    const int count = g_mime_multipart_get_count(mp);
    struct words best, html;
    sl_err err = SL_OK;
    words_init(&best);
    words_init(&html);
    for (int i = 0; i < count && err == SL_OK; i++) {
        struct words one;
        words_init(&one);
        err = visit(w, g_mime_multipart_get_part(mp, i), depth + 1, &one);
        const bool has_words = email_trim(sl_buf_view(&one.text)).len > 0;
        if (html.html.len == 0)
            sl_buf_str(&html.html, sl_buf_view(&one.html));
        if (err == SL_OK && has_words && (best.text.len == 0 || (one.is_plain && !best.is_plain))) {
            words_fini(&best);
            best = one;
        } else {
            words_fini(&one);
        }
    }
    if (best.html.len == 0)
        sl_buf_str(&best.html, sl_buf_view(&html.html));
    words_join(out, &best);
    words_fini(&best);
    words_fini(&html);
    return err;
}

static sl_err visit_multipart(struct walk *w, GMimeMultipart *mp, unsigned depth, struct words *out)
{
    GMimeContentType *type = g_mime_object_get_content_type(GMIME_OBJECT(mp)); /* borrowed */
    const int count = g_mime_multipart_get_count(mp);
    if (g_mime_content_type_is_type(type, "multipart", "alternative"))
        return visit_alternative(w, mp, depth, out);
    for (int i = 0; i < count; i++) {
        struct words one;
        words_init(&one);
        const sl_err err = visit(w, g_mime_multipart_get_part(mp, i), depth + 1, &one);
        words_join(out, &one);
        words_fini(&one);
        if (err != SL_OK)
            return err;
    }
    return SL_OK;
}

static void visit_message(struct walk *w, GMimeMessagePart *part)
{
    GMimeMessage *inner = g_mime_message_part_get_message(part); /* borrowed */
    if (inner == NULL)
        return;
    const struct sl_str bytes = object_bytes(w->m->heap, GMIME_OBJECT(inner));
    struct sl_str name = name_of(w->m->heap, GMIME_OBJECT(part));
    find_reported_id(w->m, bytes);
    add_file(w, EMAIL_FORWARDED, bytes, SL_STR("message/rfc822"), name);
}

static sl_err visit(struct walk *w, GMimeObject *o, unsigned depth, struct words *out)
{
    if (depth > EMAIL_DEPTH_MAX)
        return sl_fail_set(w->why, SL_ETOOBIG, 0, "the mail is nested deeper than %d", EMAIL_DEPTH_MAX);
    if (++w->parts > EMAIL_PARTS_MAX)
        return sl_fail_set(w->why, SL_ETOOBIG, 0, "the mail has more than %d parts", EMAIL_PARTS_MAX);
    if (o == NULL)
        return SL_OK;
    if (GMIME_IS_MULTIPART(o))
        return visit_multipart(w, GMIME_MULTIPART(o), depth, out);
    if (GMIME_IS_MESSAGE_PART(o))
        visit_message(w, GMIME_MESSAGE_PART(o));
    else if (GMIME_IS_PART(o))
        read_leaf(w, GMIME_PART(o), out);
    return SL_OK;
}

/* ---- the header ---- */

static void add_recipients(struct email_mail *m, const char *name)
{
    for (size_t i = 0; i < m->headers.count; i++)
        if (email_eq_nocase(m->headers.field[i].name, name))
            m->to_count += email_mailboxes(m->heap, m->headers.field[i].value, m->to + m->to_count,
                                           EMAIL_MAILBOXES_MAX - m->to_count);
}

static void read_references(struct email_mail *m)
{
    enum { ALL = 1000 };
    struct sl_str *all = sl_alloc(ALL * sizeof *all);
    const size_t n = email_ids(m->heap, email_header(&m->headers, "references"), all, ALL);
    for (size_t i = 0; i < n; i++) /* of a long chain: the first, and the newest */
        if (i == 0 || n - i < EMAIL_REFERENCES_MAX)
            m->references[m->reference_count++] = all[i];
    free(all);
}

static sl_err read_header(struct email_mail *m, struct sl_str raw, struct sl_fail *why)
{
    struct email_mailbox box;
    const sl_err err = email_headers_read(m->heap, raw, &m->headers, why);
    if (err != SL_OK)
        return err;
    if (m->headers.count == 0)
        return sl_fail_set(why, SL_EINVAL, 0, "the mail has no header");
    if (email_mailboxes(m->heap, email_header(&m->headers, "from"), &m->from, 1) == 0 &&
        email_mailboxes(m->heap, email_header(&m->headers, "sender"), &m->from, 1) == 0)
        return sl_fail_set(why, SL_EINVAL, 0, "the mail names no sender that can be read");
    add_recipients(m, "to");
    m->to_header_count = m->to_count;
    add_recipients(m, "cc");
    add_recipients(m, "delivered-to");
    add_recipients(m, "x-original-to");
    if (email_mailboxes(m->heap, email_header(&m->headers, "reply-to"), &box, 1) == 1)
        m->reply_to = box.address;
    m->subject = email_header_text(m->heap, &m->headers, "subject");
    (void)email_ids(m->heap, email_header(&m->headers, "message-id"), &m->message_id, 1);
    (void)email_ids(m->heap, email_header(&m->headers, "in-reply-to"), &m->in_reply_to, 1);
    read_references(m);
    m->date_unix_ms = email_date_unix_ms(email_header(&m->headers, "date"));
    return SL_OK;
}

/* ---- the whole ---- */

/* gmime's parser recurses for each level; what could make levels is counted before it sees the mail. */
static sl_err count_marks(struct sl_str raw, struct sl_fail *why)
{
    size_t marks = 0;
    for (size_t i = 0; i + 8 <= raw.len; i++) {
        const char c = (char)(raw.ptr[i] | 0x20);
        if ((c == 'b' && email_starts_nocase(sl_str_n(raw.ptr + i, 8), "boundary")) ||
            (c == 'm' && email_starts_nocase(sl_str_n(raw.ptr + i, 8), "message/")))
            marks++;
    }
    return marks <= MARKS_MAX ? SL_OK
                              : sl_fail_set(why, SL_ETOOBIG, 0, "the mail has more than %d parts", MARKS_MAX);
}

/* gmime also makes every part before anybody can count them, 20 MB of "--x" for a quarter of a minute. So lines that part the mail
 * are counted first: those that begin with a boundary that the mail declares, or, when one is declared in a roundabout way (RFC 2231,
 * comments, escapes), any that begin like one. */
#define BOUNDARIES_MAX 64
struct boundaries {
    struct sl_str value[BOUNDARIES_MAX];
    size_t count;
    bool is_any; /* not all of them are known */
};

static size_t skip_blanks(struct sl_str s, size_t at)
{
    while (at < s.len && (s.ptr[at] == ' ' || s.ptr[at] == '\t' || s.ptr[at] == '\r' || s.ptr[at] == '\n'))
        at++;
    return at;
}

/* A parameter stands behind a semicolon, or a comment behind it. */
static bool begins_parameter(struct sl_str raw, size_t at)
{
    while (at > 0 && strchr(" \t\r\n", raw.ptr[at - 1]) != NULL && raw.ptr[at - 1] != '\0')
        at--;
    return at > 0 && (raw.ptr[at - 1] == ';' || raw.ptr[at - 1] == ')');
}

/* s begins behind the word "boundary". */
static void note_boundary(struct boundaries *b, struct sl_str s)
{
    size_t at = skip_blanks(s, 0);
    if (at < s.len && (s.ptr[at] == '*' || s.ptr[at] == '('))
        b->is_any = true;
    if (at == s.len || s.ptr[at] != '=')
        return; /* a word among others */
    at = skip_blanks(s, at + 1);
    const bool is_quoted = at < s.len && s.ptr[at] == '"';
    at += is_quoted;
    const size_t from = at;
    while (at < s.len && s.ptr[at] != '\0' &&
           strchr(is_quoted ? "\"\\\r\n" : "\"\\(;=? \t\r\n", s.ptr[at]) == NULL)
        at++;
    const bool is_plain = at < s.len && s.ptr[at] != '\0' && s.ptr[at] != '\\' &&
                          (s.ptr[at] == '"') == is_quoted && strchr("(=?", s.ptr[at]) == NULL && at > from;
    while (at > from && s.ptr[at - 1] == ' ')
        at--;
    if (is_plain && at > from && b->count < BOUNDARIES_MAX)
        b->value[b->count++] = sl_str_n(s.ptr + from, at - from);
    else
        b->is_any = true;
}

static bool parts_here(const struct boundaries *b, struct sl_str line)
{
    bool is_known = b->is_any;
    for (size_t i = 0; i < b->count && !is_known; i++)
        is_known = line.len >= b->value[i].len && memcmp(line.ptr, b->value[i].ptr, b->value[i].len) == 0;
    return is_known;
}

static sl_err count_parts(struct sl_str raw, struct sl_fail *why)
{
    struct boundaries b = {.count = 0};
    size_t parts = 0;
    for (size_t i = 0; i + 8 <= raw.len; i++)
        if ((raw.ptr[i] | 0x20) == 'b' && email_starts_nocase(sl_str_n(raw.ptr + i, 8), "boundary") &&
            begins_parameter(raw, i))
            note_boundary(&b, sl_str_n(raw.ptr + i + 8, raw.len - i - 8));
    for (size_t i = 0; i + 2 <= raw.len && (b.count > 0 || b.is_any); i++) {
        const char *line = raw.ptr + i, *end = memchr(line, '\n', raw.len - i);
        if (line[0] == '-' && line[1] == '-' && parts_here(&b, sl_str_n(line + 2, raw.len - i - 2)))
            parts++;
        if (end == NULL)
            break;
        i += (size_t)(end - line);
    }
    return parts <= MARKS_MAX ? SL_OK
                              : sl_fail_set(why, SL_ETOOBIG, 0, "the mail has more than %d parts", MARKS_MAX);
}

static void init_gmime(void)
{
    g_mime_init();
}

static GMimeMessage *construct(struct sl_str raw)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, init_gmime);
    GMimeStream *stream = g_mime_stream_mem_new_with_buffer(raw.ptr, raw.len);
    GMimeParser *parser = g_mime_parser_new_with_stream(stream);
    GMimeParserOptions *options = g_mime_parser_options_new();
    GMimeMessage *message = g_mime_parser_construct_message(parser, options);
    g_mime_parser_options_free(options);
    g_object_unref(parser);
    g_object_unref(stream);
    return message;
}

static void take_words(struct email_mail *m, struct words *out)
{
    struct sl_buf visible;
    m->text = email_heap_copy(m->heap, email_utf8_head(sl_buf_view(&out->text), EMAIL_TEXT_MAX_BYTES));
    m->html = email_heap_copy(m->heap, sl_buf_view(&out->html));
    sl_buf_init(&visible, EMAIL_TEXT_MAX_BYTES * 4 + 64);
    const struct sl_str shown =
        sl_buf_view(email_trim(sl_buf_view(&out->visible)).len > 0 ? &out->visible : &out->text);
    email_quote_fold(shown, &visible);
    m->visible = email_heap_copy(m->heap, sl_buf_view(&visible));
    sl_buf_fini(&visible);
}

static enum email_kind kind_of(const struct email_mail *m, const struct walk *w)
{
    const struct sl_str type = email_header(&m->headers, "content-type");
    if (!w->has_report_part || !email_has_nocase(type, "multipart/report"))
        return EMAIL_LETTER;
    return email_has_nocase(type, "disposition-notification") ? EMAIL_READ_REPORT : EMAIL_DELIVERY_REPORT;
}

static sl_err read_body(struct email_mail *m, struct sl_str raw, struct sl_fail *why)
{
    struct walk w = {.m = m, .why = why};
    struct words out;
    GMimeMessage *message = construct(raw);
    if (message == NULL)
        return sl_fail_set(why, SL_EINVAL, 0, "the mail cannot be taken apart");
    words_init(&out);
    const sl_err err = visit(&w, g_mime_message_get_mime_part(message), 1, &out);
    if (err == SL_OK) {
        take_words(m, &out);
        m->kind = kind_of(m, &w);
    }
    words_fini(&out);
    g_object_unref(message);
    return err;
}

sl_err email_parse(struct sl_str raw, struct email_mail **out, struct sl_fail *why)
{
    if (raw.len > EMAIL_BYTES_MAX)
        return sl_fail_set(why, SL_ETOOBIG, 0, "the mail has more than %d bytes", EMAIL_BYTES_MAX);
    struct email_mail *m = sl_alloc(sizeof *m);
    m->heap = email_heap_new();
    sl_err err = count_marks(raw, why);
    if (err == SL_OK)
        err = count_parts(raw, why);
    if (err == SL_OK) {
        raw = email_heap_copy(m->heap, raw); /* headers borrow from it */
        m->raw = raw;
        err = read_header(m, raw, why);
    }
    if (err == SL_OK)
        err = read_body(m, raw, why);
    if (err != SL_OK) {
        email_mail_free(&m);
        return err;
    }
    sl_sha256(sl_str_n(raw.ptr + m->headers.size_bytes, raw.len - m->headers.size_bytes), m->body_sha256);
    *out = m;
    return SL_OK;
}

void email_mail_free(struct email_mail **mp)
{
    struct email_mail *m = *mp;
    *mp = NULL;
    if (m == NULL)
        return;
    email_heap_free(&m->heap);
    free(m);
}
