/* channels/email/lmtp_server.c - LMTP connections: TCP or a UNIX socket of the adapter's own.
 *
 * A connection reads, feeds its dialogue, and stops reading while its mail is on its way to the store or while the peer has
 * not taken the replies. Mails hold their connection by an id: it may have gone meanwhile.
 */
#include "channels/email/email_priv.h"

#include "base/log.h"
#include "base/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define IDLE_MS    300000 /* RFC 5321 4.5.3.2.7 */
#define READ_BYTES 65536
#define BACKLOG    64

struct email_conn {
    struct email_conn *next, **prev;
    struct email_lmtp_server *s;
    uint64_t intake; /* 0: none */
    struct email_lmtp *dialogue;
    struct email_transport t;
    struct sl_timer idle;
    struct sl_buf rest; /* bytes that came while a mail waits: PIPELINING */
    bool has_mail;
};

struct email_lmtp_server {
    struct email *em;
    struct email_conn *conns;
    struct lmtp_socket *open;   /* all there are */
    size_t conn_count, sockets; /* sockets: uv handles that are not closed yet */
    bool is_draining, is_closing, is_listening;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } listener;
    struct sl_metric *gauge;
    char *path; /* of a UNIX socket, to be removed */
};

/* ---- connections ---- */

static void conn_end(struct email_conn *c)
{
    struct email_lmtp_server *s = c->s;
    *c->prev = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    s->conn_count--;
    sl_gauge_set(s->gauge, (int64_t)s->conn_count);
    sl_timer_stop(&c->idle);
    if (c->intake != 0)
        email_intake_forget(s->em, c->intake);
    email_lmtp_free(&c->dialogue);
    sl_buf_fini(&c->rest);
    free(c);
}

/* Writes what there is to write. */
static void conn_flush(struct email_conn *c)
{
    struct sl_buf *out = email_lmtp_out(c->dialogue);
    if (out->len > 0)
        c->t.write(c->t.arg, sl_buf_view(out));
    sl_buf_clear(out);
}

static void conn_close(struct email_conn *c)
{
    const struct email_transport t = c->t;
    conn_flush(c);
    conn_end(c);
    t.close(t.arg);
}

/* Whose mail is it? The connection may have gone meanwhile. */
static struct email_conn *conn_find(struct email_lmtp_server *s, uint64_t intake)
{
    for (struct email_conn *c = s->conns; c != NULL; c = c->next)
        if (c->intake == intake)
            return c;
    return NULL;
}

static void on_idle(void *arg)
{
    struct email_conn *c = arg;
    if (c->has_mail) { /* the store decides about that */
        sl_timer_start(&c->idle, IDLE_MS);
        return;
    }
    email_count("lmtp-idle");
    email_lmtp_bye(c->dialogue, "idle for too long");
    conn_close(c);
}

static bool is_ours(void *arg, struct sl_str address)
{
    const struct email_conn *c = arg;
    char what[EMAIL_CONV_MAX];
    return email_address_read(&c->s->em->keys, address, what) != EMAIL_TO_OTHERS;
}

static bool has_room(void *arg)
{
    const struct email_conn *c = arg;
    size_t mails = c->s->em->intake_count;
    for (const struct email_conn *o = c->s->conns; o != NULL; o = o->next)
        mails += email_lmtp_is_in_data(o->dialogue);
    return !c->s->is_draining && email_intake_has_room(c->s->em) && mails < EMAIL_INTAKES_MAX;
}

static void conn_run(struct email_conn *c, struct sl_str in);

static void on_intake_done(void *arg, uint64_t id, sl_err result)
{
    struct email_conn *c = conn_find(arg, id);
    if (c == NULL)
        return;
    c->intake = 0;
    c->has_mail = false;
    email_lmtp_settle(c->dialogue, result, NULL);
    if (c->s->is_draining) {
        email_lmtp_bye(c->dialogue, "closing");
        conn_close(c);
        return;
    }
    struct sl_buf rest = c->rest;
    sl_buf_init(&c->rest, READ_BYTES * 2);
    conn_run(c, sl_buf_view(&rest)); /* c may be gone after that */
    sl_buf_fini(&rest);
}

static void conn_mail(struct email_conn *c)
{
    struct email_lmtp_mail m;
    struct sl_buf raw;
    email_lmtp_mail(c->dialogue, &m);
    const struct email_envelope env = {.is_known = true,
                                       .sender = m.sender,
                                       .recipients = m.recipients,
                                       .recipient_count = m.recipient_count};
    email_lmtp_take(c->dialogue, &raw);
    c->has_mail = true;
    c->intake = email_intake(c->s->em, &raw, &env, on_intake_done, c->s);
}

static void conn_run(struct email_conn *c, struct sl_str in)
{
    size_t used = 0;
    const enum email_lmtp_want want = email_lmtp_feed(c->dialogue, in, &used);
    if (want == EMAIL_LMTP_CLOSE) {
        conn_close(c);
        return;
    }
    if (want == EMAIL_LMTP_MAIL) {
        sl_buf_add(&c->rest, in.ptr + used, in.len - used);
        conn_mail(c);
    }
    conn_flush(c);
}

struct email_conn *email_lmtp_accept(struct email_lmtp_server *s, const struct email_transport *t)
{
    if (s->conn_count == EMAIL_CONNS_MAX || s->is_draining) {
        email_count("lmtp-refused");
        return NULL;
    }
    struct email_conn *c = sl_alloc(sizeof *c);
    c->s = s;
    c->t = *t;
    const struct email_lmtp_options o = {.host = s->em->lmtp_host,
                                         .size_max = s->em->size_max,
                                         .is_ours = is_ours,
                                         .has_room = has_room,
                                         .arg = c};
    c->dialogue = email_lmtp_new(&o);
    sl_buf_init(&c->rest, READ_BYTES * 2);
    sl_timer_init(&c->idle, chan_loop(s->em->ch), on_idle, c);
    sl_timer_start(&c->idle, IDLE_MS);
    c->next = s->conns;
    c->prev = &s->conns;
    if (s->conns != NULL)
        s->conns->prev = &c->next;
    s->conns = c;
    sl_gauge_set(s->gauge, (int64_t)++s->conn_count);
    conn_flush(c);
    return c;
}

bool email_conn_wants_bytes(const struct email_conn *c)
{
    return !c->has_mail;
}

void email_conn_bytes(struct email_conn *c, struct sl_str bytes)
{
    sl_timer_start(&c->idle, IDLE_MS);
    if (!c->has_mail) {
        conn_run(c, bytes);
        return;
    }
    sl_buf_str(&c->rest, bytes);
    if (c->rest.overflow) { /* it talks on while it should wait */
        email_lmtp_bye(c->dialogue, "too much at once");
        conn_close(c);
    }
}

void email_conn_gone(struct email_conn *c)
{
    conn_end(c);
}

/* ---- sockets ---- */

struct lmtp_socket {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } h;
    struct lmtp_socket *next, **prev;
    struct email_lmtp_server *s;
    struct email_conn *c; /* NULL: over */
    size_t unsent_bytes;
    bool is_reading;
};

struct write {
    uv_write_t req;
    struct lmtp_socket *sock;
    size_t len;
    char bytes[];
};

static void server_free_when_over(struct email_lmtp_server *s);

static void on_socket_closed(uv_handle_t *h)
{
    struct lmtp_socket *sock = h->data;
    struct email_lmtp_server *s = sock->s;
    *sock->prev = sock->next;
    if (sock->next != NULL)
        sock->next->prev = sock->prev;
    free(sock);
    s->sockets--;
    server_free_when_over(s);
}

static void socket_close(struct lmtp_socket *sock)
{
    if (!uv_is_closing(&sock->h.handle))
        uv_close(&sock->h.handle, on_socket_closed);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    (void)h;
    (void)suggested;
    *buf = uv_buf_init(sl_alloc(READ_BYTES), READ_BYTES);
}

static void socket_pace(struct lmtp_socket *sock);

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct lmtp_socket *sock = stream->data;
    if (n > 0 && sock->c != NULL)
        email_conn_bytes(sock->c, sl_str_n(buf->base, (size_t)n));
    free(buf->base);
    if (n < 0 && sock->c != NULL) {
        struct email_conn *c = sock->c;
        sock->c = NULL;
        email_conn_gone(c);
    }
    if (n < 0)
        socket_close(sock);
    else
        socket_pace(sock);
}

/* Reads only while a mail may come and the peer takes our replies. */
static void socket_pace(struct lmtp_socket *sock)
{
    const bool wants = sock->c != NULL && sock->unsent_bytes < READ_BYTES;
    if (uv_is_closing(&sock->h.handle) || wants == sock->is_reading)
        return;
    sock->is_reading = wants;
    if (!wants)
        (void)uv_read_stop(&sock->h.stream);
    else if (uv_read_start(&sock->h.stream, on_alloc, on_read) != 0)
        socket_close(sock);
}

static void on_written(uv_write_t *req, int status)
{
    struct write *w = (struct write *)req;
    struct lmtp_socket *sock = w->sock;
    sock->unsent_bytes -= w->len;
    free(w);
    if (sock->c == NULL && (sock->unsent_bytes == 0 || status < 0))
        socket_close(sock);
    else
        socket_pace(sock);
}

static void socket_write(void *arg, struct sl_str bytes)
{
    struct lmtp_socket *sock = arg;
    struct write *w = sl_alloc(sizeof *w + bytes.len);
    w->sock = sock;
    w->len = bytes.len;
    memcpy(w->bytes, bytes.ptr, bytes.len);
    const uv_buf_t buf = uv_buf_init(w->bytes, (unsigned)bytes.len);
    if (uv_is_closing(&sock->h.handle) || uv_write(&w->req, &sock->h.stream, &buf, 1, on_written) != 0) {
        free(w);
        return;
    }
    sock->unsent_bytes += bytes.len;
}

/* The connection is over: what was written last still leaves. */
static void socket_end(void *arg)
{
    struct lmtp_socket *sock = arg;
    sock->c = NULL;
    if (sock->unsent_bytes == 0)
        socket_close(sock);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct email_lmtp_server *s = listener->data;
    if (status < 0)
        return;
    struct lmtp_socket *sock = sl_alloc(sizeof *sock);
    sock->s = s;
    sock->next = s->open;
    sock->prev = &s->open;
    if (s->open != NULL)
        s->open->prev = &sock->next;
    s->open = sock;
    const int err = listener->type == UV_TCP ? uv_tcp_init(listener->loop, &sock->h.tcp)
                                             : uv_pipe_init(listener->loop, &sock->h.pipe, 0);
    sl_assert(err == 0);
    sock->h.handle.data = sock;
    s->sockets++;
    if (uv_accept(listener, &sock->h.stream) != 0) {
        socket_close(sock);
        return;
    }
    sock->c = email_lmtp_accept(s, &(struct email_transport){socket_write, socket_end, sock});
    if (sock->c == NULL) {
        static const char busy[] = "421 4.3.2 too many connections\r\n";
        socket_write(sock, sl_str_n(busy, sizeof busy - 1));
        socket_end(sock);
        return;
    }
    socket_pace(sock);
}

/* ---- the listener ---- */

static void on_listener_closed(uv_handle_t *h)
{
    struct email_lmtp_server *s = h->data;
    s->sockets--;
    server_free_when_over(s);
}

static void server_free_when_over(struct email_lmtp_server *s)
{
    struct email *em = s->em;
    if (!s->is_closing || s->sockets > 0)
        return;
    free(s->path);
    free(s);
    em->is_lmtp_open = false;
    email_finish(em);
}

static sl_err bind_failed(struct email_lmtp_server *s, int err, struct sl_fail *why)
{
    return sl_fail_set(why, SL_EINVAL, err, "inboxes.%s.lmtp_listen: cannot listen on %s: %s",
                       chan_inbox(s->em->ch), s->em->lmtp_listen, uv_strerror(err));
}

static int listen_tcp(struct email_lmtp_server *s, uv_loop_t *uv, const char *where)
{
    char host[64];
    struct sockaddr_storage to;
    const char *colon = strrchr(where, ':');
    uint64_t port;
    if (colon == NULL || (size_t)(colon - where) >= sizeof host ||
        sl_str_uint(sl_str_c(colon + 1), &port) != SL_OK || port > 65535)
        return UV_EINVAL;
    (void)snprintf(host, sizeof host, "%.*s", (int)(colon - where), where);
    if (uv_ip4_addr(host, (int)port, (struct sockaddr_in *)&to) != 0 &&
        uv_ip6_addr(host, (int)port, (struct sockaddr_in6 *)&to) != 0)
        return UV_EINVAL;
    int err = uv_tcp_init(uv, &s->listener.tcp);
    sl_assert(err == 0);
    s->sockets++;
    err = uv_tcp_bind(&s->listener.tcp, (const struct sockaddr *)&to, 0);
    return err;
}

static int listen_unix(struct email_lmtp_server *s, uv_loop_t *uv, const char *path)
{
    struct stat st;
    const int err = uv_pipe_init(uv, &s->listener.pipe, 0);
    sl_assert(err == 0);
    s->sockets++;
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
        (void)unlink(path); /* left by a process that was killed */
    s->path = sl_strdup(path);
    return uv_pipe_bind(&s->listener.pipe, path);
}

sl_err email_lmtp_start(struct email *em, struct sl_fail *why)
{
    struct email_lmtp_server *s = sl_alloc(sizeof *s);
    uv_loop_t *uv = sl_loop_uv(chan_loop(em->ch));
    char labels[MSG_ID_MAX_BYTES + 16];
    s->em = em;
    em->lmtp = s;
    em->is_lmtp_open = true;
    (void)snprintf(labels, sizeof labels, "inbox=\"%s\"", chan_inbox(em->ch));
    s->gauge = sl_gauge("sluice_email_lmtp_connections", labels, "LMTP connections");
    sl_gauge_max(s->gauge, EMAIL_CONNS_MAX);
    if (uv == NULL)
        return SL_OK;
    const bool is_unix = strncmp(em->lmtp_listen, "unix:", 5) == 0;
    int err = is_unix ? listen_unix(s, uv, em->lmtp_listen + 5) : listen_tcp(s, uv, em->lmtp_listen);
    if (s->sockets > 0) {
        s->listener.handle.data = s;
        s->is_listening = true;
    }
    if (err == 0)
        err = uv_listen(&s->listener.stream, BACKLOG, on_connection);
    if (err == 0 && is_unix)
        (void)chmod(em->lmtp_listen + 5,
                    0666); /* the mail server runs as another user; the folder guards it */
    return err == 0 ? SL_OK : bind_failed(s, err, why);
}

static void stop_listening(struct email_lmtp_server *s)
{
    if (s->is_listening)
        uv_close(&s->listener.handle, on_listener_closed);
    if (s->is_listening && s->path != NULL)
        (void)unlink(s->path);
    s->is_listening = false;
}

void email_lmtp_drain(struct email_lmtp_server *s)
{
    s->is_draining = true;
    stop_listening(s);
    for (struct email_conn *c = s->conns, *next; c != NULL; c = next) {
        next = c->next;
        if (c->has_mail)
            continue; /* its replies first */
        email_lmtp_bye(c->dialogue, "closing");
        conn_close(c);
    }
}

void email_lmtp_close(struct email_lmtp_server **sp)
{
    struct email_lmtp_server *s = *sp;
    *sp = NULL;
    if (s == NULL)
        return;
    s->is_draining = s->is_closing = true;
    stop_listening(s);
    while (s->conns != NULL)
        conn_close(s->conns);
    for (struct lmtp_socket *sock = s->open; sock != NULL; sock = sock->next)
        socket_close(sock); /* a peer that takes nothing would keep us */
    if (s->sockets == 0)
        server_free_when_over(s);
}
