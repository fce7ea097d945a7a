/* channels/email/lmtp_dialogue.c - the state machine of an LMTP connection. */
#include "channels/email/lmtp_dialogue.h"

#include <ctype.h>
#include <stdlib.h>

#define OUT_MAX (256u << 10)

enum data_state { LINE_START, IN_LINE, AFTER_CR, AFTER_DOT, AFTER_DOT_CR, DATA_END };

struct email_lmtp {
    struct email_lmtp_options o;
    char *host;
    struct sl_buf out, line, data;
    struct email_heap *heap; /* of the transaction: sender and recipients */
    struct sl_str sender, recipients[EMAIL_LMTP_RECIPIENTS_MAX];
    size_t recipient_count;
    bool is_greeted, has_sender, is_in_data, is_waiting, is_closing;
    bool is_line_too_long, has_line_bare;     /* of the command being read */
    bool is_too_big, has_bare, has_long_line; /* of the mail being read */
    enum data_state state;
    size_t text_line_bytes;
    unsigned bad;
};

static void reply(struct email_lmtp *l, const char *text)
{
    sl_buf_c(&l->out, text);
    sl_buf_c(&l->out, "\r\n");
}

static void bad(struct email_lmtp *l, const char *text)
{
    if (++l->bad > EMAIL_LMTP_BAD_MAX) {
        reply(l, "421 4.7.0 too many bad commands");
        l->is_closing = true;
        return;
    }
    reply(l, text);
}

static void reset(struct email_lmtp *l)
{
    email_heap_free(&l->heap);
    l->heap = email_heap_new();
    l->has_sender = l->is_in_data = l->is_too_big = l->has_bare = l->has_long_line = false;
    l->recipient_count = 0;
    sl_buf_fini(&l->data); /* 25 MB are not kept for the next mail */
    sl_buf_init(&l->data, l->o.size_max);
}

struct email_lmtp *email_lmtp_new(const struct email_lmtp_options *o)
{
    struct email_lmtp *l = sl_alloc(sizeof *l);
    l->o = *o;
    l->host = sl_strdup(o->host);
    sl_buf_init(&l->out, OUT_MAX);
    sl_buf_init(&l->line, EMAIL_LMTP_LINE_MAX + 2);
    sl_buf_init(&l->data, o->size_max);
    l->heap = email_heap_new();
    sl_buf_printf(&l->out, "220 %s LMTP Sluice\r\n", l->host);
    return l;
}

void email_lmtp_free(struct email_lmtp **lp)
{
    struct email_lmtp *l = *lp;
    *lp = NULL;
    if (l == NULL)
        return;
    sl_buf_fini(&l->out);
    sl_buf_fini(&l->line);
    sl_buf_fini(&l->data);
    email_heap_free(&l->heap);
    free(l->host);
    free(l);
}

struct sl_buf *email_lmtp_out(struct email_lmtp *l)
{
    return &l->out;
}

bool email_lmtp_is_in_data(const struct email_lmtp *l)
{
    return l->is_in_data;
}

/* ---- commands ---- */

static void on_lhlo(struct email_lmtp *l, struct sl_str arg)
{
    if (arg.len == 0) {
        bad(l, "501 5.5.4 LHLO needs the name of the client");
        return;
    }
    reset(l);
    l->is_greeted = true;
    sl_buf_printf(&l->out,
                  "250-%s\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-"
                  "SMTPUTF8\r\n250 SIZE %zu\r\n",
                  l->host, l->o.size_max);
}

static void on_helo(struct email_lmtp *l, struct sl_str arg)
{
    (void)arg;
    bad(l, "500 5.5.1 this is LMTP: say LHLO"); /* RFC 2033 4.1 */
}

/* "<path>" at the head of *arg, parameters left in it. false: no path. */
static bool cut_path(struct sl_str *arg, struct sl_str *path)
{
    *arg = email_trim(*arg);
    const char *close = arg->len > 0 ? memchr(arg->ptr, '>', arg->len) : NULL;
    if (close == NULL || arg->ptr[0] != '<')
        return false;
    *path = sl_str_n(arg->ptr + 1, (size_t)(close - arg->ptr) - 1);
    *arg = email_trim(sl_str_n(close + 1, arg->len - path->len - 2));
    if (path->len > 0 && path->ptr[0] == '@') { /* a source route, to be ignored: RFC 5321 4.1.1.3 */
        const char *colon = memchr(path->ptr, ':', path->len);
        if (colon == NULL)
            return false;
        *path = sl_str_n(colon + 1, path->len - (size_t)(colon - path->ptr) - 1);
    }
    return true;
}

/* NULL, or the reply that refuses. */
static const char *mail_parameters(const struct email_lmtp *l, struct sl_str params)
{
    while (params.len > 0) {
        const char *blank = memchr(params.ptr, ' ', params.len);
        const struct sl_str p =
            sl_str_n(params.ptr, blank != NULL ? (size_t)(blank - params.ptr) : params.len);
        params = email_trim(sl_str_n(params.ptr + p.len, params.len - p.len));
        uint64_t size;
        if (email_starts_nocase(p, "SIZE=")) {
            if (sl_str_uint(sl_str_n(p.ptr + 5, p.len - 5), &size) != SL_OK)
                return "501 5.5.4 SIZE is not a number";
            if (size > l->o.size_max)
                return "552 5.3.4 the mail is too large";
        } else if (!email_eq_nocase(p, "SMTPUTF8") && !email_eq_nocase(p, "BODY=8BITMIME") &&
                   !email_eq_nocase(p, "BODY=7BIT")) {
            return "555 5.5.4 parameter not known";
        }
    }
    return NULL;
}

static void on_mail(struct email_lmtp *l, struct sl_str arg)
{
    struct sl_str path;
    if (!email_starts_nocase(arg, "FROM:")) {
        bad(l, "501 5.5.4 say MAIL FROM:<address>");
        return;
    }
    arg = sl_str_n(arg.ptr + 5, arg.len - 5);
    if (!l->is_greeted || l->has_sender) {
        bad(l, l->is_greeted ? "503 5.5.1 one mail at a time" : "503 5.5.1 say LHLO first");
    } else if (!cut_path(&arg, &path) || path.len > 2 * EMAIL_ADDRESS_MAX_BYTES) {
        bad(l, "501 5.1.7 the sender's address is none");
    } else {
        const char *refusal = mail_parameters(l, arg);
        if (refusal != NULL) {
            reply(l, refusal);
            return;
        }
        l->has_sender = true;
        l->sender = email_heap_copy(l->heap, path);
        reply(l, "250 2.1.0 ok");
    }
}

/* Not in the transaction's memory: a peer may ask for any number of recipients that are refused. */
static struct sl_str lower(struct sl_str s, char out[EMAIL_ADDRESS_MAX_BYTES])
{
    sl_assert(s.len <= EMAIL_ADDRESS_MAX_BYTES); /* email_address_ok */
    for (size_t i = 0; i < s.len; i++)
        out[i] = (char)((unsigned char)s.ptr[i] < 0x80 ? tolower((unsigned char)s.ptr[i]) : s.ptr[i]);
    return sl_str_n(out, s.len);
}

static void on_rcpt(struct email_lmtp *l, struct sl_str arg)
{
    struct sl_str path;
    if (!email_starts_nocase(arg, "TO:")) {
        bad(l, "501 5.5.4 say RCPT TO:<address>");
        return;
    }
    arg = sl_str_n(arg.ptr + 3, arg.len - 3);
    if (!l->has_sender) {
        bad(l, "503 5.5.1 say MAIL first");
    } else if (!cut_path(&arg, &path) || !email_address_ok(path)) {
        bad(l, "501 5.1.3 the recipient's address is none");
    } else if (arg.len > 0) {
        reply(l, "555 5.5.4 parameter not known");
    } else if (l->recipient_count == EMAIL_LMTP_RECIPIENTS_MAX) {
        reply(l, "452 4.5.3 too many recipients");
    } else {
        char text[EMAIL_ADDRESS_MAX_BYTES];
        const struct sl_str address = lower(path, text);
        if (!l->o.is_ours(l->o.arg, address)) {
            reply(l, "550 5.1.1 no such recipient here");
            return;
        }
        l->recipients[l->recipient_count++] = email_heap_copy(l->heap, address);
        reply(l, "250 2.1.5 ok");
    }
}

static void on_data(struct email_lmtp *l, struct sl_str arg)
{
    if (arg.len > 0) {
        bad(l, "501 5.5.4 DATA takes no parameter");
    } else if (l->recipient_count == 0) { /* RFC 2033 4.2 */
        bad(l, "503 5.5.1 no recipient was accepted");
    } else if (!l->o.has_room(l->o.arg)) {
        reply(l, "451 4.3.2 busy, come again");
        reset(l);
    } else {
        l->is_in_data = true;
        l->state = LINE_START;
        l->text_line_bytes = 0;
        reply(l, "354 go on, end with a dot");
    }
}

static void on_rset(struct email_lmtp *l, struct sl_str arg)
{
    (void)arg;
    reset(l);
    reply(l, "250 2.0.0 ok");
}

static void on_noop(struct email_lmtp *l, struct sl_str arg)
{
    (void)arg;
    reply(l, "250 2.0.0 ok");
}

static void on_vrfy(struct email_lmtp *l, struct sl_str arg)
{
    (void)arg;
    bad(l, "252 2.5.0 send the mail and see");
}

static void on_quit(struct email_lmtp *l, struct sl_str arg)
{
    (void)arg;
    reply(l, "221 2.0.0 bye");
    l->is_closing = true;
}

static const struct command {
    const char *word;
    void (*run)(struct email_lmtp *l, struct sl_str arg);
} commands[] = {{"LHLO", on_lhlo}, {"HELO", on_helo}, {"EHLO", on_helo}, {"MAIL", on_mail},
                {"RCPT", on_rcpt}, {"DATA", on_data}, {"RSET", on_rset}, {"NOOP", on_noop},
                {"VRFY", on_vrfy}, {"QUIT", on_quit}};

static bool has_control(struct sl_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] < ' ' || s.ptr[i] == 0x7F)
            return true;
    return false;
}

static void on_line(struct email_lmtp *l, struct sl_str line)
{
    const char *blank = line.len > 0 ? memchr(line.ptr, ' ', line.len) : NULL;
    const size_t n = blank != NULL ? (size_t)(blank - line.ptr) : line.len;
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (email_eq_nocase(sl_str_n(line.ptr, n), commands[i].word)) {
            commands[i].run(l, email_trim(sl_str_n(line.ptr + n, line.len - n)));
            return;
        }
    bad(l, "500 5.5.2 command not known");
}

/* One command line, or what there is of it. */
static size_t eat_line(struct email_lmtp *l, struct sl_str in)
{
    const char *end = memchr(in.ptr, '\n', in.len);
    const size_t n = end != NULL ? (size_t)(end - in.ptr) + 1 : in.len;
    sl_buf_add(&l->line, in.ptr, n);
    if (l->line.overflow) {
        sl_buf_clear(&l->line);
        l->line.overflow = false;
        l->is_line_too_long = true;
    }
    if (end == NULL)
        return n;
    struct sl_str line = sl_buf_view(&l->line);
    const bool is_crlf = line.len >= 2 && line.ptr[line.len - 2] == '\r';
    line.len -= line.len >= 2 ? 2 : line.len;
    if (l->is_line_too_long)
        bad(l, "500 5.5.2 the line is too long");
    else if (!is_crlf || has_control(line) || !sl_str_utf8(line))
        bad(l, "500 5.5.2 a line ends in CR LF and has no control characters");
    else
        on_line(l, line);
    sl_buf_clear(&l->line);
    l->is_line_too_long = false;
    return n;
}

/* ---- the mail ---- */

static void keep(struct email_lmtp *l, const char *p, size_t n)
{
    if (l->is_too_big)
        return;
    if (n > l->o.size_max - l->data.len) {
        l->is_too_big = true;
        sl_buf_fini(&l->data);
        sl_buf_init(&l->data, l->o.size_max);
        return;
    }
    sl_buf_add(&l->data, p, n);
}

/* A run of bytes that are neither CR nor LF, within a line. */
static size_t keep_run(struct email_lmtp *l, struct sl_str in)
{
    size_t n = 0;
    while (n < in.len && in.ptr[n] != '\r' && in.ptr[n] != '\n')
        n++;
    keep(l, in.ptr, n);
    l->text_line_bytes += n;
    l->has_long_line = l->has_long_line || l->text_line_bytes > EMAIL_LMTP_TEXT_LINE_MAX;
    return n;
}

/* The byte after a CR: a line end, or the CR was bare. */
static enum data_state after_cr(struct email_lmtp *l, char c)
{
    if (c == '\n') {
        keep(l, "\r\n", 2);
        l->text_line_bytes = 0;
        return LINE_START;
    }
    l->has_bare = true;
    return c == '\r' ? AFTER_CR : IN_LINE;
}

static enum data_state next_state(struct email_lmtp *l, char c)
{
    switch (l->state) {
    case LINE_START:
        if (c == '.')
            return AFTER_DOT; /* stuffed, or the end */
        break;
    case AFTER_CR:
        return after_cr(l, c);
    case AFTER_DOT:
        if (c == '\r')
            return AFTER_DOT_CR;
        break;
    case AFTER_DOT_CR:
        if (c == '\n')
            return DATA_END;
        l->has_bare = true;
        return c == '\r' ? AFTER_CR : IN_LINE;
    case IN_LINE:
    case DATA_END:
        break;
    }
    if (c == '\r')
        return AFTER_CR;
    l->has_bare = l->has_bare || c == '\n'; /* and it ends no line */
    return IN_LINE;
}

static size_t eat_data(struct email_lmtp *l, struct sl_str in)
{
    size_t i = 0;
    while (i < in.len && l->state != DATA_END) {
        const bool is_break = in.ptr[i] == '\r' || in.ptr[i] == '\n';
        const bool may_run =
            l->state == IN_LINE || l->state == AFTER_DOT || (l->state == LINE_START && in.ptr[i] != '.');
        if (may_run && !is_break) {
            l->state = IN_LINE;
            i += keep_run(l, sl_str_n(in.ptr + i, in.len - i));
            continue;
        }
        l->state = next_state(l, in.ptr[i]);
        i++;
    }
    return i;
}

static void settle_each(struct email_lmtp *l, const char *code, const char *words)
{
    for (size_t i = 0; i < l->recipient_count; i++)
        sl_buf_printf(&l->out, "%s %s\r\n", code, words);
    reset(l);
}

/* The final dot came. false: it is refused at once. */
static bool is_to_judge(struct email_lmtp *l)
{
    l->is_in_data = false;
    if (l->has_bare)
        settle_each(l, "550 5.6.0", "the mail has a bare CR or LF in it");
    else if (l->is_too_big)
        settle_each(l, "552 5.3.4", "the mail is too large");
    else if (l->has_long_line)
        settle_each(l, "554 5.6.0", "the mail has a line that is too long");
    else
        return true;
    return false;
}

enum email_lmtp_want email_lmtp_feed(struct email_lmtp *l, struct sl_str in, size_t *used)
{
    size_t i = 0;
    while (i < in.len && !l->is_waiting && !l->is_closing && !l->out.overflow) {
        const struct sl_str rest = sl_str_n(in.ptr + i, in.len - i);
        i += l->is_in_data ? eat_data(l, rest) : eat_line(l, rest);
        if (l->is_in_data && l->state == DATA_END)
            l->is_waiting = is_to_judge(l);
    }
    *used = i;
    if (l->is_waiting)
        return EMAIL_LMTP_MAIL;
    return l->is_closing || l->out.overflow ? EMAIL_LMTP_CLOSE : EMAIL_LMTP_MORE;
}

void email_lmtp_mail(const struct email_lmtp *l, struct email_lmtp_mail *out)
{
    sl_assert(l->is_waiting);
    *out = (struct email_lmtp_mail){.data = sl_buf_view(&l->data),
                                    .sender = l->sender,
                                    .recipients = l->recipients,
                                    .recipient_count = l->recipient_count};
}

void email_lmtp_take(struct email_lmtp *l, struct sl_buf *data)
{
    sl_assert(l->is_waiting);
    *data = l->data;
    sl_buf_init(&l->data, l->o.size_max);
}

void email_lmtp_settle(struct email_lmtp *l, sl_err result, const char *words)
{
    sl_assert(l->is_waiting);
    l->is_waiting = false;
    if (result == SL_OK)
        settle_each(l, "250 2.0.0", words != NULL ? words : "taken");
    else if (sl_err_retry(result) || result == SL_ECLOSED)
        settle_each(l, "451 4.3.0", words != NULL ? words : "not now, come again");
    else
        settle_each(l, "554 5.6.0", words != NULL ? words : "not taken");
}

void email_lmtp_bye(struct email_lmtp *l, const char *words)
{
    sl_buf_printf(&l->out, "421 4.3.2 %s\r\n", words);
    l->is_closing = true;
}
