/* vec_email FILE: mails composed by nodemailer or by hand, as mailparser reads them, against our own reading; and the visible text
 * as email-reply-parser shows it. FILE is email.json; the mails lie beside it.
 *
 * Where we differ on purpose: NUL and bytes that are no text are U+FFFD with us; a mail nested deeper than the limit is refused; a
 * delivery report's fields and a forwarded mail are no text; blocks that email-reply-parser leaves in (Outlook's in Chinese) are folded.
 */
#include "base/json.h"
#include "channels/email/mail_parse.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

static unsigned passed, failed;

struct a_case {
    const json_t *want; /* borrowed */
    const char *name;
    const struct email_mail *m;
    char why[400];
};

static struct sl_str str_of(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key); /* borrowed */
    return json_is_string(v) ? sl_str_n(json_string_value(v), json_string_length(v)) : SL_STR_NONE;
}

static bool wrong(struct a_case *c, const char *what, struct sl_str got, struct sl_str want)
{
    if (c->why[0] == '\0')
        (void)snprintf(c->why, sizeof c->why, "%s is \"%.*s\", expected \"%.*s\"", what,
                       (int)(got.len < 120 ? got.len : 120), got.ptr, (int)(want.len < 120 ? want.len : 120),
                       want.ptr);
    return false;
}

static bool same(struct a_case *c, const char *what, struct sl_str got, struct sl_str want)
{
    return sl_str_eq(got, want) || wrong(c, what, got, want);
}

/* NUL to U+FFFD, runs of blanks to one, none at the ends. */
static void normal(struct sl_str in, struct sl_buf *out)
{
    bool is_blank = true;
    for (size_t i = 0; i < in.len; i++) {
        const bool is_nbsp = in.ptr[i] == '\xC2' && i + 1 < in.len && in.ptr[i + 1] == '\xA0';
        if (isspace((unsigned char)in.ptr[i]) || is_nbsp) {
            is_blank = true;
            i += is_nbsp;
            continue;
        }
        if (is_blank && out->len > 0)
            sl_buf_char(out, ' ');
        is_blank = false;
        if (in.ptr[i] == '\0')
            sl_buf_c(out, "\xEF\xBF\xBD");
        else
            sl_buf_char(out, in.ptr[i]);
    }
}

/* Letters and figures only: two renderings of HTML agree on no more. */
static void letters(struct sl_str in, struct sl_buf *out)
{
    for (size_t i = 0; i < in.len; i++) {
        if (in.ptr[i] == '\xC2' && i + 1 < in.len && in.ptr[i + 1] == '\xA0')
            i++; /* a blank */
        else if ((unsigned char)in.ptr[i] >= 0x80 || isalnum((unsigned char)in.ptr[i]))
            sl_buf_char(out, (char)tolower((unsigned char)in.ptr[i]));
    }
}

static bool gave_up(struct sl_str s)
{
    size_t at;
    return sl_str_find(s, SL_STR("\xEF\xBF\xBD"), &at);
}

static bool has_same_ascii(const struct sl_buf *a, const struct sl_buf *b)
{
    size_t i = 0, k = 0;
    for (;;) {
        while (i < a->len && (unsigned char)a->ptr[i] >= 0x80)
            i++;
        while (k < b->len && ((unsigned char)b->ptr[k] >= 0x80 || b->ptr[k] == '?'))
            k++;
        if (i == a->len || k == b->len || a->ptr[i] != b->ptr[k])
            return i == a->len;
        i++;
        k++;
    }
}

static bool same_text(struct a_case *c, const char *what, struct sl_str got, struct sl_str want, bool is_html)
{
    struct sl_buf a, b;
    sl_buf_init(&a, 0);
    sl_buf_init(&b, 0);
    (is_html ? letters : normal)(got, &a);
    (is_html ? letters : normal)(want, &b);
    bool is_ok = sl_str_eq(sl_buf_view(&a), sl_buf_view(&b));
    bool has_letter =
        false; /* a forwarded mail, or a text with a name, is an attachment with us; text and attachment with them */
    for (size_t i = 0; i < c->m->file_count; i++)
        has_letter = has_letter || c->m->files[i].kind == EMAIL_FORWARDED ||
                     sl_str_eq_c(c->m->files[i].type, "text/plain");
    if (c->m->kind != EMAIL_LETTER || has_letter) /* the report's own fields follow there */
        is_ok = a.len <= b.len && memcmp(a.ptr != NULL ? a.ptr : "", b.ptr != NULL ? b.ptr : "", a.len) == 0;
    if (!is_ok && gave_up(want) &&
        !gave_up(got)) /* bytes without a charset, which we guess and they do not */
        is_ok = has_same_ascii(&a, &b);
    if (!is_ok)
        (void)wrong(c, what, got, want);
    sl_buf_fini(&a);
    sl_buf_fini(&b);
    return is_ok;
}

/* Does this begin like a quote or a signature? A list of its own, so that what we fold is not judged by what we fold. */
static bool begins_a_quote(struct sl_str s)
{
    static const char *const marks[] = {"wrote:", "写道",  "寫道",    "发件人", "寄件者",
                                        "寄件人", "From:", "----",    "____",   "Sent from",
                                        "发自",   ">:",    "schrieb", "écrit",  "escribió"};
    size_t at;
    while (s.len > 0 && *s.ptr == ' ')
        s = sl_str_n(s.ptr + 1, s.len - 1);
    s.len = s.len < 160 ? s.len : 160;
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++)
        if (sl_str_find(s, sl_str_c(marks[i]), &at))
            return true;
    return false;
}

/* Theirs leaves some quotes in: then ours may end earlier, at a quote, but never says anything else. */
static bool same_visible(struct a_case *c)
{
    const struct sl_str want = str_of(c->want, "visible_by_email_reply_parser"),
                        text = str_of(c->want, "text");
    if (!json_is_string(json_object_get(c->want, "visible_by_email_reply_parser")))
        return true;
    struct sl_buf a, b;
    sl_buf_init(&a, 0);
    sl_buf_init(&b, 0);
    normal(c->m->visible, &a);
    normal(want, &b);
    const bool left_all = sl_str_eq(want, text);
    bool is_ok = sl_str_eq(sl_buf_view(&a), sl_buf_view(&b));
    if (!is_ok && a.len > 0 && a.len < b.len && memcmp(a.ptr, b.ptr, a.len) == 0)
        is_ok = left_all || begins_a_quote(sl_str_n(b.ptr + a.len, b.len - a.len));
    if (!is_ok)
        (void)wrong(c, "visible text", c->m->visible, want);
    sl_buf_fini(&a);
    sl_buf_fini(&b);
    return is_ok;
}

/* They turn xn--... into letters; we keep what the mail says. */
static bool same_address(struct sl_str ours, struct sl_str theirs)
{
    const char *a = memchr(ours.len > 0 ? ours.ptr : "", '@', ours.len),
               *b = memchr(theirs.len > 0 ? theirs.ptr : "", '@', theirs.len);
    size_t at;
    if (a != NULL && b != NULL && sl_str_find(ours, SL_STR("xn--"), &at))
        return a - ours.ptr == b - theirs.ptr &&
               strncasecmp(ours.ptr, theirs.ptr, (size_t)(a - ours.ptr)) == 0;
    return ours.len == theirs.len && (ours.len == 0 || strncasecmp(ours.ptr, theirs.ptr, ours.len) == 0);
}

static bool same_mailboxes(struct a_case *c)
{
    const json_t *from = json_array_get(json_object_get(c->want, "from"), 0); /* borrowed */
    const json_t *to = json_object_get(c->want, "to");                        /* borrowed */
    if (!same_address(c->m->from.address, str_of(from, "address")))
        return wrong(c, "from", c->m->from.address, str_of(from, "address"));
    if (!same(c, "the sender's name", c->m->from.name, str_of(from, "name")))
        return false;
    size_t groups = 0;
    for (size_t i = 0; i < json_array_size(to); i++) {
        const json_t *one = json_array_get(to, i); /* borrowed */
        const struct sl_str want = str_of(one, "address");
        bool is_there = false;
        groups += want.len == 0; /* the name of a group, its members in a list of their own */
        for (size_t k = 0; k < c->m->to_header_count; k++)
            is_there = is_there || (k >= i - groups && same_address(c->m->to[k].address, want));
        if (want.len > 0 && !is_there)
            return wrong(c, "to", SL_STR("another"), want);
    }
    return true;
}

static struct sl_str first_id(struct sl_str s) /* of several */
{
    const char *end = s.len > 0 ? memchr(s.ptr, '>', s.len) : NULL;
    return end != NULL ? sl_str_n(s.ptr, (size_t)(end - s.ptr) + 1) : s;
}

static bool same_ids(struct a_case *c)
{
    const json_t *all = json_object_get(c->want, "references"); /* borrowed */
    const size_t count = json_is_array(all) ? json_array_size(all) : 0;
    if (!same(c, "message id", c->m->message_id, str_of(c->want, "messageId")) ||
        !same(c, "in-reply-to", c->m->in_reply_to, first_id(str_of(c->want, "inReplyTo"))))
        return false;
    for (size_t i = 0; i < count && i < c->m->reference_count; i++)
        if (!same(c, "reference", c->m->references[i], sl_str_c(json_string_value(json_array_get(all, i)))))
            return false;
    if (json_is_array(all) && count != c->m->reference_count)
        return wrong(c, "the chain of references", SL_STR("of another length"), SL_STR(""));
    return true;
}

static bool has_file(const struct email_mail *m, const json_t *want, bool *used)
{
    const struct sl_str type = str_of(want, "type"), name = str_of(want, "filename");
    const json_int_t size = json_integer_value(json_object_get(want, "size"));
    for (size_t i = 0; i < m->file_count; i++) {
        const struct email_file *f = &m->files[i];
        /* mailparser guesses a type from the name where the mail says octet-stream; we leave it */
        const bool is_type = sl_str_eq(f->type, type) || sl_str_eq_c(f->type, "application/octet-stream");
        if (!used[i] && is_type && f->bytes.len == (size_t)size &&
            (name.len == 0 || sl_str_eq(f->name, name))) {
            used[i] = true;
            return true;
        }
    }
    return false;
}

/* What a report consists of is no attachment with us. */
static bool is_report_part(const struct a_case *c, struct sl_str type)
{
    return c->m->kind != EMAIL_LETTER &&
           (sl_str_eq_c(type, "message/disposition-notification") ||
            sl_str_eq_c(type, "message/delivery-status") || sl_str_eq_c(type, "text/rfc822-headers"));
}

static bool same_files(struct a_case *c)
{
    const json_t *all = json_object_get(c->want, "attachments"); /* borrowed */
    bool used[EMAIL_FILES_MAX] = {false};
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *one = json_array_get(all, i); /* borrowed */
        if (!is_report_part(c, str_of(one, "type")) && !has_file(c->m, one, used))
            return wrong(c, "an attachment", SL_STR("missing or another"), str_of(one, "type"));
    }
    for (size_t i = 0; i < c->m->file_count; i++) { /* forwarded mails and named texts: text with them */
        const struct email_file *f = &c->m->files[i];
        if (!used[i] && f->kind != EMAIL_FORWARDED && !sl_str_eq_c(f->type, "text/plain"))
            return wrong(c, "an attachment", f->name, SL_STR("none"));
    }
    return true;
}

static bool check(struct a_case *c)
{
    const bool is_html = c->m->html.len > 0;
    if (is_html !=
        (json_object_get(c->want, "html") != NULL && !json_is_null(json_object_get(c->want, "html")) &&
         !json_is_false(json_object_get(c->want, "html"))))
        return wrong(c, "the HTML body", SL_STR("there or not"), SL_STR("otherwise"));
    return same_mailboxes(c) && same(c, "subject", c->m->subject, str_of(c->want, "subject")) &&
           same_ids(c) &&
           (!json_is_string(json_object_get(c->want, "text")) || /* HTML with pictures: they have none */
            same_text(c, "text", c->m->text, str_of(c->want, "text"), is_html)) &&
           same_files(c) && (is_html || same_visible(c));
}

static size_t count_of(struct sl_str in, const char *word)
{
    size_t n = 0, at;
    while (sl_str_find(in, sl_str_c(word), &at)) {
        n++;
        in = sl_str_n(in.ptr + at + 1, in.len - at - 1);
    }
    return n;
}

static void run(const json_t *want, struct sl_str raw)
{
    struct a_case c = {.want = want, .name = json_string_value(json_object_get(want, "name"))};
    struct email_mail *m = NULL;
    struct sl_fail why = {.text = ""};
    const sl_err err = email_parse(raw, &m, &why);
    const bool is_to_refuse =
        count_of(raw, "boundary=") > EMAIL_DEPTH_MAX && count_of(raw, "multipart/mixed") > EMAIL_DEPTH_MAX;
    bool is_ok = err == (is_to_refuse ? SL_ETOOBIG : SL_OK);
    if (!is_ok)
        (void)snprintf(c.why, sizeof c.why, "parsed: %s %s", sl_err_name(err), why.text);
    c.m = m;
    if (is_ok && m != NULL)
        is_ok = check(&c);
    if (is_ok)
        printf("ok %s\n", c.name);
    else
        printf("not ok %s: %s\n", c.name, c.why);
    *(is_ok ? &passed : &failed) += 1;
    email_mail_free(&m);
}

static bool read_file(const char *json_path, const char *name, struct sl_buf *out)
{
    char path[4096], chunk[8192];
    const char *slash = strrchr(json_path, '/');
    const int n = snprintf(path, sizeof path, "%.*s%s", slash != NULL ? (int)(slash - json_path + 1) : 0,
                           json_path, name);
    FILE *f = n > 0 && (size_t)n < sizeof path ? fopen(path, "rb") : NULL;
    if (f == NULL)
        return false;
    for (size_t got = fread(chunk, 1, sizeof chunk, f); got > 0; got = fread(chunk, 1, sizeof chunk, f))
        sl_buf_add(out, chunk, got);
    (void)fclose(f);
    return true;
}

int main(int argc, char **argv)
{
    json_error_t error;
    if (argc != 2) {
        fprintf(stderr, "usage: vec_email FILE\n");
        return 2;
    }
    json_t *all = json_load_file(argv[1], JSON_ALLOW_NUL, &error);
    const json_t *messages = json_object_get(all, "messages"); /* borrowed */
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *one = json_array_get(messages, i); /* borrowed */
        const char *name = json_string_value(json_object_get(one, "file"));
        struct sl_buf raw;
        sl_buf_init(&raw, EMAIL_BYTES_MAX + 1);
        if (name == NULL || !read_file(argv[1], name, &raw)) {
            printf("not ok %s: no such file\n", name != NULL ? name : "?");
            failed++;
        } else {
            run(one, sl_buf_view(&raw));
        }
        sl_buf_fini(&raw);
    }
    json_decref(all);
    if (passed + failed == 0)
        printf("not ok cases: there are none\n");
    return failed > 0 || passed == 0 ? 1 : 0;
}
