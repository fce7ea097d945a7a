/* channels/email/mail_build.c - outgoing mails. */
#include "channels/email/mail_build.h"

#include "base/crypto.h"

#include <stdio.h>
#include <time.h>

#define BASE64_LINE 57 /* bytes that make 76 characters: RFC 2045 6.8 */
#define QP_LINE     75 /* before the soft break: RFC 2045 6.7 (5) */
#define PLAIN_LINE  78 /* RFC 5322 2.1.1 */

/* ---- what may stand in a header ---- */

static bool is_line(struct sl_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] == '\r' || s.ptr[i] == '\n' || s.ptr[i] == '\0')
            return false;
    return sl_str_utf8(s);
}

static bool is_id(struct sl_str s)
{
    if (s.len < 3 || s.len > EMAIL_ID_MAX_BYTES || s.ptr[0] != '<' || s.ptr[s.len - 1] != '>')
        return false;
    for (size_t i = 1; i + 1 < s.len; i++)
        if ((unsigned char)s.ptr[i] <= ' ' || s.ptr[i] == 0x7F || s.ptr[i] == '<' || s.ptr[i] == '>')
            return false;
    return true;
}

static bool is_type(struct sl_str s)
{
    size_t slashes = 0;
    for (size_t i = 0; i < s.len; i++) {
        const char c = s.ptr[i];
        const bool is_word =
            (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '+' || c == '-' || c == '_';
        slashes += c == '/';
        if (!is_word && c != '/')
            return false;
    }
    return slashes == 1 && s.len <= 100 && s.ptr[0] != '/' && s.ptr[s.len - 1] != '/';
}

static sl_err check(const struct email_draft *d, struct sl_fail *why)
{
    if (!email_address_ok(d->from) || !email_address_ok(d->to) ||
        (d->reply_to.len > 0 && !email_address_ok(d->reply_to)))
        return sl_fail_set(why, SL_EINVAL, 0, "mail: an address of it is none");
    if (!is_line(d->from_name) || !is_line(d->subject))
        return sl_fail_set(why, SL_EINVAL, 0, "mail: a name or the subject has a line end or NUL in it");
    if (!is_id(d->message_id) || (d->in_reply_to.len > 0 && !is_id(d->in_reply_to)))
        return sl_fail_set(why, SL_EINVAL, 0, "mail: a message id is none");
    for (size_t i = 0; i < d->reference_count; i++)
        if (!is_id(d->references[i]))
            return sl_fail_set(why, SL_EINVAL, 0, "mail: a message id among the references is none");
    for (size_t i = 0; i < d->file_count; i++)
        if (!is_line(d->files[i].name) || !is_type(d->files[i].type))
            return sl_fail_set(why, SL_EINVAL, 0,
                               "mail: name or type of an attachment cannot stand in a header");
    return sl_str_utf8(d->text) ? SL_OK : sl_fail_set(why, SL_EINVAL, 0, "mail: the text is not UTF-8");
}

/* ---- fields ---- */

static void field(struct sl_buf *out, const char *name, struct sl_str value)
{
    sl_buf_c(out, name);
    sl_buf_c(out, ": ");
    email_words_encode(out, value, strlen(name) + 2);
    sl_buf_c(out, "\r\n");
}

static bool is_atoms(struct sl_str name)
{
    for (size_t i = 0; i < name.len; i++) {
        const char c = name.ptr[i];
        if (c < ' ' || c > '~' || strchr("()<>[]:;@\\,.\"=?", c) != NULL)
            return false;
    }
    return true;
}

/* RFC 2047 5 (3): an encoded word must not stand in quotes; ASCII with specials must. */
static void field_mailbox(struct sl_buf *out, const char *field_name, struct sl_str name,
                          struct sl_str address)
{
    bool is_ascii = true;
    for (size_t i = 0; i < name.len; i++)
        is_ascii = is_ascii && name.ptr[i] >= ' ' && name.ptr[i] <= '~';
    sl_buf_c(out, field_name);
    sl_buf_c(out, ": ");
    if (name.len > 0 && (is_atoms(name) || !is_ascii)) {
        email_words_encode(out, name, strlen(field_name) + 2);
        sl_buf_c(out, "\r\n ");
    } else if (name.len > 0) {
        sl_buf_char(out, '"');
        for (size_t i = 0; i < name.len; i++) {
            if (name.ptr[i] == '"' || name.ptr[i] == '\\')
                sl_buf_char(out, '\\');
            sl_buf_char(out, name.ptr[i]);
        }
        sl_buf_c(out, "\"\r\n ");
    }
    sl_buf_char(out, '<');
    sl_buf_str(out, address);
    sl_buf_c(out, ">\r\n");
}

static void field_date(struct sl_buf *out, int64_t unix_ms)
{
    static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    const time_t t = (time_t)(unix_ms / 1000);
    struct tm tm = {.tm_mday = 1};
    (void)gmtime_r(&t, &tm);
    sl_buf_printf(out, "Date: %s, %d %s %d %02d:%02d:%02d +0000\r\n", days[tm.tm_wday % 7], tm.tm_mday,
                  months[tm.tm_mon % 12], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

static void field_references(struct sl_buf *out, const struct email_draft *d)
{
    const size_t n = d->reference_count;
    if (n == 0)
        return;
    sl_buf_c(out, "References:");
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && n - i >= EMAIL_CHAIN_MAX)
            continue; /* the first stays: it names the thread (RFC 5322 3.6.4) */
        sl_buf_c(out, i > 0 ? "\r\n " : " ");
        sl_buf_str(out, d->references[i]);
    }
    sl_buf_c(out, "\r\n");
}

static void write_header(struct sl_buf *out, const struct email_draft *d)
{
    field_mailbox(out, "From", d->from_name, d->from);
    field_mailbox(out, "To", SL_STR_NONE, d->to);
    if (d->reply_to.len > 0)
        field_mailbox(out, "Reply-To", d->from_name, d->reply_to);
    field(out, "Subject", d->subject);
    field_date(out, d->date_unix_ms);
    sl_buf_c(out, "Message-ID: ");
    sl_buf_str(out, d->message_id);
    sl_buf_c(out, "\r\n");
    if (d->in_reply_to.len > 0) {
        sl_buf_c(out, "In-Reply-To: ");
        sl_buf_str(out, d->in_reply_to);
        sl_buf_c(out, "\r\n");
    }
    field_references(out, d);
    if (d->is_auto)
        sl_buf_c(out, "Auto-Submitted: auto-replied\r\nX-Auto-Response-Suppress: All\r\n");
    sl_buf_c(out, "MIME-Version: 1.0\r\n");
}

/* ---- bodies ---- */

enum encoding { PLAIN, QUOTED, BASE64 };

static enum encoding encoding_of(struct sl_str text)
{
    size_t high = 0, column = 0;
    bool is_plain = true;
    for (size_t i = 0; i < text.len; i++) {
        const unsigned char c = (unsigned char)text.ptr[i];
        const bool is_end = c == '\n' || i + 1 == text.len;
        column = c == '\n' ? 0 : column + 1;
        high += c >= 0x80;
        if (column > PLAIN_LINE || (c < ' ' && c != '\n' && c != '\r' && c != '\t') || c == 0x7F)
            is_plain = false;
        if (is_end && i > 0 && (text.ptr[i - 1] == ' ' || text.ptr[i - 1] == '\t'))
            is_plain = false; /* blanks at the end of a line get lost */
        if (column == 5 && email_starts_nocase(sl_str_n(text.ptr + i - 4, text.len - i + 4), "From "))
            is_plain = false; /* mbox writers put a > before it */
    }
    if (high == 0 && is_plain)
        return PLAIN;
    return high * 6 > text.len ? BASE64 : QUOTED;
}

static void write_base64(struct sl_buf *out, struct sl_str bytes)
{
    for (size_t i = 0; i < bytes.len; i += BASE64_LINE) {
        const size_t n = bytes.len - i < BASE64_LINE ? bytes.len - i : BASE64_LINE;
        email_base64_encode(out, sl_str_n(bytes.ptr + i, n));
        sl_buf_c(out, "\r\n");
    }
}

/* A character of a line of quoted-printable text; blanks at the end of a line and dots at its head are coded, too. */
static size_t quoted_char(char piece[4], unsigned char c, bool is_last, bool is_first)
{
    const bool is_literal = (c > ' ' && c <= '~' && c != '=') || ((c == ' ' || c == '\t') && !is_last);
    if (is_literal && !(is_first && (c == '.' || c == 'F'))) {
        piece[0] = (char)c;
        return 1;
    }
    (void)snprintf(piece, 4, "=%02X", c);
    return 3;
}

static void write_quoted(struct sl_buf *out, struct sl_str text)
{
    struct sl_str line;
    while (email_next_line(&text, &line)) {
        size_t column = 0;
        for (size_t i = 0; i < line.len; i++) {
            char piece[4];
            size_t n = quoted_char(piece, (unsigned char)line.ptr[i], i + 1 == line.len, column == 0);
            if (column + n > QP_LINE) {
                sl_buf_c(out, "=\r\n");
                column = 0;
                n = quoted_char(piece, (unsigned char)line.ptr[i], i + 1 == line.len, true);
            }
            sl_buf_add(out, piece, n);
            column += n;
        }
        sl_buf_c(out, "\r\n");
    }
}

static void write_lines(struct sl_buf *out, struct sl_str text)
{
    struct sl_str line;
    while (email_next_line(&text, &line)) {
        sl_buf_str(out, line);
        sl_buf_c(out, "\r\n");
    }
}

static void write_text_part(struct sl_buf *out, const char *type, struct sl_str text)
{
    static const char *const names[] = {[PLAIN] = "7bit", [QUOTED] = "quoted-printable", [BASE64] = "base64"};
    const enum encoding encoding = encoding_of(text);
    struct sl_buf lines;
    sl_buf_printf(out, "Content-Type: %s; charset=utf-8\r\nContent-Transfer-Encoding: %s\r\n\r\n", type,
                  names[encoding]);
    switch (encoding) {
    case PLAIN:
        write_lines(out, text);
        break;
    case QUOTED:
        write_quoted(out, text);
        break;
    case BASE64:
        sl_buf_init(&lines, text.len * 2 + 64);
        write_lines(&lines, text); /* RFC 2045 6.8: line ends of text are CRLF before they are coded */
        write_base64(out, sl_buf_view(&lines));
        sl_buf_fini(&lines);
        break;
    }
}

static void html_escaped(struct sl_buf *out, char c)
{
    if (c == '&')
        sl_buf_c(out, "&amp;");
    else if (c == '<')
        sl_buf_c(out, "&lt;");
    else if (c == '>')
        sl_buf_c(out, "&gt;");
    else if (c == '"')
        sl_buf_c(out, "&quot;");
    else if (c == '\n')
        sl_buf_c(out, "<br>\n");
    else if (c != '\r')
        sl_buf_char(out, c);
}

/* Length of a web address at the head of s. */
static size_t url_at(struct sl_str s)
{
    if (!sl_str_starts(s, "https://") && !sl_str_starts(s, "http://"))
        return 0;
    size_t n = 0;
    while (n < s.len && s.ptr[n] > ' ' && s.ptr[n] <= '~' && strchr("<>\"'()", s.ptr[n]) == NULL)
        n++;
    while (n > 0 && strchr(".,;:!?", s.ptr[n - 1]) != NULL)
        n--;
    return n;
}

static void html_of(struct sl_str text, struct sl_buf *out)
{
    sl_buf_c(out, "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"></head><body>\n<p>");
    for (size_t i = 0; i < text.len; i++) {
        const size_t url = url_at(sl_str_n(text.ptr + i, text.len - i));
        if (url == 0) {
            html_escaped(out, text.ptr[i]);
            continue;
        }
        sl_buf_c(out, "<a href=\"");
        for (size_t k = 0; k < url; k++)
            html_escaped(out, text.ptr[i + k]);
        sl_buf_c(out, "\">");
        for (size_t k = 0; k < url; k++)
            html_escaped(out, text.ptr[i + k]);
        sl_buf_c(out, "</a>");
        i += url - 1;
    }
    sl_buf_c(out, "</p>\n</body></html>\n");
}

/* ---- parts ---- */

/* "=_" stands neither in base64 nor in quoted-printable text; the hash keeps it out of plain text. */
static void boundary(struct sl_str id, char kind, char out[40])
{
    unsigned char hash[32];
    char hex[33];
    sl_sha256(id, hash);
    sl_hex(hex, hash, 12);
    (void)snprintf(out, 40, "=_%c_%s", kind, hex);
}

static void write_alternative(struct sl_buf *out, const struct email_draft *d)
{
    char mark[40];
    struct sl_buf html;
    sl_buf_init(&html, d->text.len * 12 + 1024);
    html_of(d->text, &html);
    boundary(d->message_id, 'a', mark);
    sl_buf_printf(out, "Content-Type: multipart/alternative; boundary=\"%s\"\r\n\r\n--%s\r\n", mark, mark);
    write_text_part(out, "text/plain", d->text);
    sl_buf_printf(out, "--%s\r\n", mark);
    write_text_part(out, "text/html", sl_buf_view(&html));
    sl_buf_printf(out, "--%s--\r\n", mark);
    sl_buf_fini(&html);
}

/* RFC 2231 4: filename*=utf-8''%E4..; and an encoded word in name, for those who read nothing else. */
static void write_file_header(struct sl_buf *out, const struct email_draft_file *f)
{
    sl_buf_c(out, "Content-Type: ");
    sl_buf_str(out, f->type);
    sl_buf_c(out, ";\r\n name=\"");
    bool is_ascii = true;
    for (size_t i = 0; i < f->name.len; i++)
        is_ascii = is_ascii && f->name.ptr[i] >= ' ' && f->name.ptr[i] <= '~';
    for (size_t i = 0; is_ascii && i < f->name.len; i++)
        sl_buf_char(out, f->name.ptr[i] == '"' || f->name.ptr[i] == '\\' ? '_' : f->name.ptr[i]);
    if (!is_ascii)
        email_words_encode(out, f->name, 20);
    sl_buf_c(
        out,
        "\"\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment;\r\n filename*=utf-8''");
    for (size_t i = 0; i < f->name.len; i++) {
        const unsigned char c = (unsigned char)f->name.ptr[i];
        const bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                              c == '.' || c == '-' || c == '_';
        if (is_plain)
            sl_buf_char(out, (char)c);
        else
            sl_buf_printf(out, "%%%02X", c);
    }
    sl_buf_c(out, "\r\n\r\n");
}

static void write_mixed(struct sl_buf *out, const struct email_draft *d)
{
    char mark[40];
    boundary(d->message_id, 'm', mark);
    sl_buf_printf(out, "Content-Type: multipart/mixed; boundary=\"%s\"\r\n\r\n--%s\r\n", mark, mark);
    write_alternative(out, d);
    for (size_t i = 0; i < d->file_count; i++) {
        sl_buf_printf(out, "--%s\r\n", mark);
        write_file_header(out, &d->files[i]);
        write_base64(out, d->files[i].bytes);
    }
    sl_buf_printf(out, "--%s--\r\n", mark);
}

sl_err email_build(const struct email_draft *d, struct sl_buf *out, struct sl_fail *why)
{
    const sl_err err = check(d, why);
    if (err != SL_OK)
        return err;
    write_header(out, d);
    if (d->file_count > 0)
        write_mixed(out, d);
    else
        write_alternative(out, d);
    return out->overflow ? sl_fail_set(why, SL_ETOOBIG, 0, "mail: larger than %zu bytes", out->max) : SL_OK;
}

/* ---- subjects ---- */

static size_t reply_mark(struct sl_str s)
{
    static const char *const words[] = {"re", "回复", "答复", "回覆", "答覆", "aw", "sv"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        const size_t n = strlen(words[i]);
        if (!email_starts_nocase(s, words[i]))
            continue;
        const struct sl_str rest = sl_str_n(s.ptr + n, s.len - n);
        if (sl_str_starts(rest, ":"))
            return n + 1;
        if (sl_str_starts(rest, "："))
            return n + strlen("：");
    }
    return 0;
}

void email_reply_subject(struct sl_str subject, struct sl_buf *out)
{
    struct sl_str rest = email_trim(subject);
    for (size_t n = reply_mark(rest); n > 0; n = reply_mark(rest))
        rest = email_trim(sl_str_n(rest.ptr + n, rest.len - n));
    sl_buf_c(out, "Re: ");
    sl_buf_str(out, rest);
}
