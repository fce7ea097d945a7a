/* gateway/front_plain.c - the listening socket without TLS: connections that stay open between requests.
 *
 * A connection is read by ourselves until it asks to become a WebSocket; then its descriptor, with what was read, is given to
 * libwebsockets and forgotten here. Requests behind one another are answered in their order, one at a time.
 *
 * Bounds   connections: when all are taken, the one that waits longest goes; bytes of requests that wait: of each
 *          PIPELINE_MAX_BYTES, of all BUFFERED_MAX_BYTES; requests: GW_REQUESTS_MAX.
 * Waits    each step has a deadline, looked at once a second; a body and an answer must move RATE_BYTES_PER_S on the whole.
 */
#include "gateway/front_priv.h"

#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

#define ACCEPTS_PER_TURN   64
#define ACCEPT_PAUSE_MS    100 /* without a descriptor to spare */
#define TELL_MS            60000
#define REQUESTS_PER_TURN  16 /* of one connection */
#define READ_BYTES         65536
#define PIPELINE_MAX_BYTES (2 * GW_HTTP_HEAD_MAX_BYTES)
#define BUFFERED_MAX_BYTES (16u << 20)
#define TICK_MS            1000
#define FIRST_MS           (GW_FRONT_TIMEOUT_S * 1000)
#define IDLE_MS                                                                                              \
    75000 /* longer than a proxy keeps a connection (nginx: 60 s), so that it is the one to close it */
#define STALL_MS         (GW_FRONT_TIMEOUT_S * 1000)
#define PIECE_MS         (GW_FRONT_KEEPALIVE_S * 1000)
#define ANSWER_MS        120000
#define LINGER_MS        2000
#define RATE_BYTES_PER_S 1000
#define PLAIN_CONN_MAGIC 0x706c636eu

/* What a connection does; each step is a function below, and has a deadline of its own. */
#define STEPS(X)                                                                                             \
    X(HEAD, step_head)     /* waits for a request, or for the rest of its head */                            \
    X(BODY, step_body)     /* waits for its body */                                                          \
    X(ASK, step_ask)       /* gives it to cfg.request */                                                     \
    X(ANSWER, step_answer) /* waits for its answer */                                                        \
    X(WRITE, step_write)   /* waits for room in the socket */                                                \
    X(LINGER, step_linger) /* is done; lets the peer read what it was told before the connection is reset */
#define STEP_MEMBER(name, fn) STEP_##name,
enum step { STEPS(STEP_MEMBER) };
enum go { GO_ON, GO_WAIT, GO_END };

struct plain_conn {
    uv_poll_t poll;
    uint32_t magic;
    int fd, mask;
    enum step step;
    bool is_closed, is_running, is_eof, is_waiting;
    struct gw_plain *plain;
    struct sl_buf in; /* read, and not yet part of a request */
    struct gw_request *request;
    int64_t body_left;
    uint64_t since_mono_ms, due_mono_ms; /* of the step */
    uint64_t moved;                      /* bytes of a body, of an answer */
    struct sl_post again;
    struct plain_conn *next, *before;
    char remote[46];
};

struct conn_list {
    struct plain_conn *head, *tail;
};

struct gw_plain {
    struct gw_front *front;
    uv_poll_t listener;
    int fd, port;
    unsigned open_handles; /* freed at 0 */
    size_t count, max, buffered;
    struct conn_list waiting, busy; /* waiting: for a request, or to close; who waits longest is the last */
    struct sl_timer tick, pause;
    uint64_t told_mono_ms; /* of the limit of open files */
    struct sl_metric *count_gauge, *buffered_gauge;
    char scratch[READ_BYTES];
};

static void run(struct plain_conn *c);

static struct plain_conn *conn_of(void *p)
{
    struct plain_conn *c = p;
    sl_assert(c->magic == PLAIN_CONN_MAGIC);
    return c;
}

/* ---- life of a connection ---- */

static void list_remove(struct conn_list *l, struct plain_conn *c)
{
    *(c->before != NULL ? &c->before->next : &l->head) = c->next;
    *(c->next != NULL ? &c->next->before : &l->tail) = c->before;
    c->next = c->before = NULL;
}

static void list_add(struct conn_list *l, struct plain_conn *c)
{
    c->before = NULL;
    c->next = l->head;
    *(l->head != NULL ? &l->head->before : &l->tail) = c;
    l->head = c;
}

static struct conn_list *list_of(struct plain_conn *c)
{
    return c->is_waiting ? &c->plain->waiting : &c->plain->busy;
}

static void set_waiting(struct plain_conn *c, bool is_waiting)
{
    list_remove(list_of(c), c);
    c->is_waiting = is_waiting;
    list_add(list_of(c), c);
}

static void plain_unref(struct gw_plain *p)
{
    sl_assert(p->open_handles > 0);
    if (--p->open_handles == 0)
        free(p);
}

static void on_conn_handle_closed(uv_handle_t *h)
{
    struct plain_conn *c = conn_of(h->data);
    struct gw_plain *p = c->plain;
    c->magic = 0;
    free(c);
    plain_unref(p);
}

static void count_in(struct plain_conn *c, size_t before)
{
    struct gw_plain *p = c->plain;
    p->buffered = p->buffered - before + c->in.len;
    sl_gauge_set(p->buffered_gauge, (int64_t)p->buffered);
}

/* Forget the connection; its descriptor is the caller's. */
static void release(struct plain_conn *c)
{
    struct gw_plain *p = c->plain;
    size_t before = c->in.len;
    c->is_closed = true;
    sl_post_cancel(&c->again);
    gw_request_leave(&c->request);
    sl_buf_fini(&c->in);
    count_in(c, before);
    list_remove(list_of(c), c);
    sl_gauge_set(p->count_gauge, (int64_t)--p->count);
    uv_close((uv_handle_t *)&c->poll, on_conn_handle_closed);
}

static void conn_close(struct plain_conn *c)
{
    int fd = c->fd;
    release(c);
    (void)close(fd);
}

static void on_again(void *arg)
{
    run(conn_of(arg));
}

static uint64_t now_of(const struct plain_conn *c)
{
    return sl_loop_mono_ms(c->plain->front->cfg.hub->loop);
}

static void set_step(struct plain_conn *c, enum step step, uint64_t within_ms)
{
    c->step = step;
    c->since_mono_ms = now_of(c);
    c->due_mono_ms = c->since_mono_ms + within_ms;
    c->moved = 0;
    bool is_waiting = step == STEP_HEAD || step == STEP_LINGER;
    if (is_waiting || c->is_waiting)
        set_waiting(c, is_waiting);
}

/* Bytes moved: it may take stall_ms until the next do, and on the whole no longer than RATE_BYTES_PER_S allows. */
static void set_moved(struct plain_conn *c, size_t n, uint64_t stall_ms)
{
    uint64_t whole, next = now_of(c) + stall_ms;
    c->moved += n;
    whole = c->since_mono_ms + stall_ms + c->moved * 1000 / RATE_BYTES_PER_S;
    c->due_mono_ms = next < whole ? next : whole;
}

/* ---- requests ---- */

static struct sl_str plain_header(struct gw_request *r, const char *lower_case_name)
{
    return gw_http_field(r->fields, lower_case_name);
}

/* As much as the socket takes. False: the connection is broken. */
static bool send_answer(struct plain_conn *c)
{
    struct gw_request *r = c->request;
    while (r->sent < r->answer.len) {
        ssize_t n = send(c->fd, r->answer.ptr + r->sent, r->answer.len - r->sent, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        r->sent += (size_t)n;
        set_moved(c, (size_t)n, PIECE_MS);
    }
    return true;
}

/* Out of an adapter's own stack: what follows (the next request of this connection) waits for the next turn. */
static void plain_answered(struct gw_request *r)
{
    struct plain_conn *c = conn_of(r->peer);
    if (c->is_running)
        return;
    set_step(c, STEP_WRITE, PIECE_MS);
    (void)send_answer(c); /* what is broken is still broken when run() looks */
    sl_post_now(&c->again);
}

static const struct gw_carrier plain_carrier = {.header = plain_header, .answered = plain_answered};

/* An answer of our own. What comes behind the request is not read. */
static enum go refuse(struct plain_conn *c, int status, const char *words)
{
    if (c->request == NULL)
        c->request = gw_request_new(c->plain->front, &plain_carrier, c);
    gw_request_refuse(c->request, status, words);
    set_step(c, STEP_ANSWER, ANSWER_MS);
    return GO_ON;
}

/* The strings of the request, in memory of its own. False: the path or the query cannot be read. */
static bool take_head(struct gw_request *r, const struct gw_http_head *h)
{
    struct sl_buf *t = &r->text;
    if (!gw_http_decode(h->path, false, t))
        return false;
    size_t path = t->len;
    if (!gw_http_decode(h->query, true, t))
        return false;
    size_t query = t->len - path;
    sl_buf_str(t, h->method);
    sl_buf_str(t, h->fields);
    sl_assert(!t->overflow);
    gw_request_name(r, sl_str_n(t->ptr + path + query, h->method.len), path, query);
    r->fields = sl_str_n(t->ptr + t->len - h->fields.len, h->fields.len);
    r->is_last = h->is_last;
    r->is_http_10 = h->is_http_10;
    return true;
}

static void cut_in(struct plain_conn *c, size_t n)
{
    size_t before = c->in.len;
    sl_buf_cut(&c->in, n);
    if (c->in.len == 0)
        sl_buf_fini(&c->in); /* a connection that waits costs nothing but itself */
    count_in(c, before);
}

/* libwebsockets reads the head again, and all that came with it; whatever it says, the descriptor is its own. */
static enum go hand_over(struct plain_conn *c)
{
    struct gw_front *f = c->plain->front;
    struct sl_buf in = c->in;
    int fd = c->fd;
    sl_buf_init(&c->in, 0);
    count_in(c, in.len);
    release(c);
    (void)lws_adopt_socket_vhost_readbuf(f->vhost, fd, in.ptr, in.len);
    sl_buf_fini(&in);
    return GO_END;
}

static enum go take_upgrade(struct plain_conn *c, const struct gw_http_head *h)
{
    if (h->upgrade == GW_HTTP_WEBSOCKET && sl_str_eq_c(h->path, GW_FRONT_WS_PATH))
        return hand_over(c);
    SL_COUNT("sluice_ws_refused_total", "reason=\"upgrade\"", "Upgrades refused", 1);
    return refuse(c, 400, "WebSockets of version 13 are at " GW_FRONT_WS_PATH "\n");
}

static enum go take_request(struct plain_conn *c, const struct gw_http_head *h)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct gw_front *f = c->plain->front;
    bool has_room = gw_request_has_room(f);
    struct gw_request *r = c->request = gw_request_new(f, &plain_carrier, c);
    memcpy(r->remote, c->remote, sizeof r->remote);
    bool is_read = take_head(r, h);
    c->body_left = h->body;
    cut_in(c, h->len);
    if (!is_read)
        return refuse(c, 400, "a percent sign in the target is not followed by two hex digits\n");
    if (gw_http_has_dots(c->request->rq.path))
        return refuse(c, 404, "there is nothing at this path\n");
    if (!has_room)
        return refuse(c, 503, "too many requests at once\n");
    set_step(c, STEP_ANSWER, ANSWER_MS);
    if (!gw_request_expect_body(r, c->body_left))
        return GO_ON;
    set_step(c, STEP_BODY, STALL_MS);
    /* RFC 9110 10.1.1: unless some of it is there already. A socket that does not take 25 bytes is broken. */
    if (h->expects_continue && c->body_left > 0 && c->in.len == 0 &&
        send(c->fd, go_on, sizeof go_on - 1, MSG_NOSIGNAL) != (ssize_t)sizeof go_on - 1)
        return GO_END;
    return GO_ON;
}

/* ---- steps ---- */

static enum go step_head(struct plain_conn *c)
{
    struct gw_http_head h;
    if (c->in.len == 0)
        return c->is_eof ? GO_END : GO_WAIT;
    switch (gw_http_read(sl_buf_view(&c->in), &h)) {
    case GW_HTTP_MORE:
        if (c->plain->buffered > BUFFERED_MAX_BYTES)
            return refuse(c, 503, "too many requests at once\n");
        if (c->moved == 0) { /* its first bytes: the rest within FIRST_MS, however it dribbles */
            c->moved = 1;
            c->due_mono_ms = now_of(c) + FIRST_MS;
        }
        return c->is_eof ? GO_END : GO_WAIT;
    case GW_HTTP_BAD:
        SL_COUNT("sluice_http_bad_total", "", "Requests that are not HTTP/1.1, or whose end is in doubt", 1);
        return refuse(c, h.status, h.why);
    case GW_HTTP_WHOLE:
        return h.upgrade != GW_HTTP_STAY ? take_upgrade(c, &h) : take_request(c, &h);
    }
    return GO_END;
}

static void add_body(struct plain_conn *c, const char *bytes, size_t n)
{
    sl_buf_add(&c->request->body, bytes, n);
    c->body_left -= (int64_t)n;
    set_moved(c, n, STALL_MS);
}

static enum go step_body(struct plain_conn *c)
{
    size_t n = c->body_left < (int64_t)c->in.len ? (size_t)c->body_left : c->in.len;
    if (n > 0) {
        add_body(c, c->in.ptr, n);
        cut_in(c, n);
    }
    if (c->body_left > 0)
        return c->is_eof ? GO_END : GO_WAIT;
    set_step(c, STEP_ASK, ANSWER_MS);
    return GO_ON;
}

static enum go step_ask(struct plain_conn *c)
{
    set_step(c, STEP_ANSWER, ANSWER_MS);
    gw_request_dispatch(c->request);
    return GO_ON;
}

static enum go step_answer(struct plain_conn *c)
{
    if (!c->request->is_answered)
        return GO_WAIT;
    set_step(c, STEP_WRITE, PIECE_MS);
    return GO_ON;
}

static enum go step_write(struct plain_conn *c)
{
    struct gw_request *r = c->request;
    if (!send_answer(c))
        return GO_END;
    if (r->sent < r->answer.len)
        return GO_WAIT;
    bool is_last = r->is_last, is_all_read = c->in.len == 0 && c->body_left == 0;
    gw_request_leave(&c->request);
    if (!is_last) {
        set_step(c, STEP_HEAD, IDLE_MS);
        return GO_ON;
    }
    if (is_all_read && c->is_eof)
        return GO_END;
    (void)shutdown(c->fd,
                   SHUT_WR); /* RFC 9112 9.6: closing with bytes unread would reset what was answered */
    cut_in(c, c->in.len);
    set_step(c, STEP_LINGER, LINGER_MS);
    return GO_ON;
}

static enum go step_linger(struct plain_conn *c)
{
    cut_in(c, c->in.len);
    return c->is_eof ? GO_END : GO_WAIT;
}

#define STEP_FN(name, fn) fn,
static enum go (*const steps[])(struct plain_conn *c) = {STEPS(STEP_FN)};

static void on_ready(uv_poll_t *h, int status, int events);

static void set_mask(struct plain_conn *c)
{
    bool is_full = c->step != STEP_HEAD && c->step != STEP_BODY && c->in.len >= PIPELINE_MAX_BYTES;
    int mask = (c->is_eof || is_full ? 0 : UV_READABLE) | (c->step == STEP_WRITE ? UV_WRITABLE : 0);
    if (mask == c->mask)
        return;
    c->mask = mask;
    if (mask == 0)
        (void)uv_poll_stop(&c->poll); /* the answer, or the deadline, wakes it */
    else
        sl_assert(uv_poll_start(&c->poll, mask, on_ready) == 0);
}

static void run(struct plain_conn *c)
{
    enum go go = GO_ON;
    unsigned asked = 0;
    sl_assert(!c->is_running);
    c->is_running = true;
    while (go == GO_ON && !c->is_closed) {
        if (c->step == STEP_ASK && asked++ == REQUESTS_PER_TURN) {
            sl_post_now(&c->again); /* others have their turn */
            go = GO_WAIT;
        } else {
            go = steps[c->step](c);
        }
    }
    c->is_running = false;
    if (c->is_closed)
        return;
    if (go == GO_END)
        conn_close(c);
    else
        set_mask(c);
}

/* ---- events ---- */

static size_t room_of(const struct plain_conn *c)
{
    if (c->step == STEP_LINGER)
        return READ_BYTES;
    if (c->step == STEP_BODY)
        return c->body_left < READ_BYTES ? (size_t)c->body_left : READ_BYTES;
    return c->in.len < PIPELINE_MAX_BYTES ? PIPELINE_MAX_BYTES - c->in.len : 0;
}

/* False: the connection is broken. */
static bool read_some(struct plain_conn *c)
{
    struct gw_plain *p = c->plain;
    size_t room = room_of(c), before = c->in.len;
    if (room == 0)
        return true;
    ssize_t n = recv(c->fd, p->scratch, room, 0);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    c->is_eof = n == 0;
    if (n == 0 || c->step == STEP_LINGER)
        return true;
    if (c->step == STEP_BODY) {
        add_body(c, p->scratch, (size_t)n);
        return true;
    }
    sl_buf_add(&c->in, p->scratch, (size_t)n);
    count_in(c, before);
    return true;
}

static void on_ready(uv_poll_t *h, int status, int events)
{
    struct plain_conn *c = conn_of(h->data);
    if (status < 0 || ((events & UV_READABLE) && !read_some(c)))
        conn_close(c);
    else
        run(c);
}

static void on_late(struct plain_conn *c)
{
    bool is_asked = c->step == STEP_BODY || (c->step == STEP_HEAD && c->in.len > 0);
    SL_COUNT("sluice_http_late_total", "",
             "HTTP connections closed because the peer, or the answer, took too long",
             (uint64_t)(c->step != STEP_HEAD || is_asked));
    if (is_asked) {
        (void)refuse(c, 408, "the request did not come in time\n");
        run(c);
        return;
    }
    if (c->step == STEP_ANSWER) {
        static const char late[] =
            "HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        (void)!send(c->fd, late, sizeof late - 1,
                    MSG_NOSIGNAL); /* its own answer may still come, to nobody */
    }
    conn_close(c);
}

static void look_at(struct conn_list *l, uint64_t now)
{
    for (struct plain_conn *c = l->head, *next; c != NULL; c = next) {
        next = c->next;
        if (now >= c->due_mono_ms)
            on_late(c);
    }
}

static void on_tick(void *arg)
{
    struct gw_plain *p = arg;
    uint64_t now = sl_loop_mono_ms(p->front->cfg.hub->loop);
    look_at(&p->busy, now);
    look_at(&p->waiting, now);
    if (p->count > 0)
        sl_timer_start(&p->tick, TICK_MS);
}

/* ---- accepting ---- */

static void name_peer(const struct sockaddr_storage *a, char *out, size_t size)
{
    const void *address = a->ss_family == AF_INET
                              ? (const void *)&((const struct sockaddr_in *)a)->sin_addr
                              : (const void *)&((const struct sockaddr_in6 *)a)->sin6_addr;
    if ((a->ss_family != AF_INET && a->ss_family != AF_INET6) ||
        inet_ntop(a->ss_family, address, out, (socklen_t)size) == NULL)
        out[0] = '\0';
    if (strncmp(out, "::ffff:", 7) == 0 && strchr(out, '.') != NULL)
        memmove(out, out + 7, strlen(out + 7) + 1);
}

static void conn_new(struct gw_plain *p, int fd, const struct sockaddr_storage *peer)
{
    struct plain_conn *c = sl_alloc(sizeof *c);
    c->magic = PLAIN_CONN_MAGIC;
    c->fd = fd;
    c->plain = p;
    if (uv_poll_init(sl_loop_uv(p->front->cfg.hub->loop), &c->poll, fd) != 0) {
        (void)close(fd);
        free(c);
        return;
    }
    c->poll.data = c;
    p->open_handles++;
    name_peer(peer, c->remote, sizeof c->remote);
    sl_buf_init(&c->in, PIPELINE_MAX_BYTES);
    sl_post_init(&c->again, p->front->cfg.hub->loop, on_again, c);
    list_add(&p->busy, c);
    set_step(c, STEP_HEAD, FIRST_MS);
    sl_gauge_set(p->count_gauge, (int64_t)++p->count);
    set_mask(c);
    if (!sl_timer_is_active(&p->tick))
        sl_timer_start(&p->tick, TICK_MS);
}

/* Room for one more: who waits longest goes. False: all are at work. */
static bool make_room(struct gw_plain *p)
{
    SL_COUNT("sluice_http_evicted_total", "", "HTTP connections closed, or not taken, for lack of room", 1);
    if (p->waiting.tail == NULL)
        return false;
    conn_close(p->waiting.tail);
    return true;
}

static void on_connections(uv_poll_t *h, int status, int events);

static void on_pause_over(void *arg)
{
    struct gw_plain *p = arg;
    sl_assert(uv_poll_start(&p->listener, UV_READABLE, on_connections) == 0);
}

static void pause_accepting(struct gw_plain *p)
{
    (void)uv_poll_stop(&p->listener); /* else it would be called again at once, for ever */
    sl_timer_start(&p->pause, ACCEPT_PAUSE_MS);
}

static void tell_limit(struct gw_plain *p, int sys)
{
    uint64_t now = sl_loop_mono_ms(p->front->cfg.hub->loop);
    if (p->told_mono_ms != 0 && now - p->told_mono_ms < TELL_MS)
        return;
    p->told_mono_ms = now;
    sl_log(SL_WARN, "a connection cannot be accepted: raise the limit of open files", SL_KV_I("errno", sys));
}

static void on_connections(uv_poll_t *h, int status, int events)
{
    struct gw_plain *p = h->data;
    (void)events;
    if (status < 0) {
        pause_accepting(p);
        return;
    }
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage peer = {0};
        socklen_t size = sizeof peer;
        int fd = accept4(p->fd, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0 && p->count >= p->max && !make_room(p)) {
            (void)close(fd);
        } else if (fd >= 0) {
            conn_new(p, fd, &peer);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            tell_limit(p, errno);
            if (!make_room(p)) {
                pause_accepting(p);
                return;
            }
        } else if (errno == EAGAIN) {
            return;
        } /* else: that one is gone (ECONNABORTED and the network's own errors, accept(2)) */
    }
}

/* ---- life ---- */

static int listen_at(const struct addrinfo *a)
{
    int one = 1, fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* accepted ones have it, too */
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0)
        return fd;
    int err = errno;
    (void)close(fd);
    errno = err;
    return -1;
}

static int open_listener(const char *host, int port, struct sl_fail *why)
{
    char service[8];
    struct addrinfo *found = NULL, hints = {.ai_family = strchr(host, ':') != NULL ? AF_INET6 : AF_INET,
                                            .ai_socktype = SOCK_STREAM,
                                            .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    (void)snprintf(service, sizeof service, "%d", port);
    int err = getaddrinfo(host[0] != '\0' ? host : NULL, service, &hints, &found); /* before the loop runs */
    if (err != 0) {
        (void)sl_fail_set(why, SL_EINVAL, err, "gateway.listen %s:%d: there is no such address: %s", host,
                          port, gai_strerror(err));
        return -1;
    }
    int fd = listen_at(found);
    if (fd < 0)
        (void)sl_fail_set(why, SL_EINTERNAL, errno, "gateway.listen %s:%d: cannot listen: %s", host, port,
                          strerror(errno));
    freeaddrinfo(found);
    return fd;
}

static int port_of(int fd)
{
    struct sockaddr_storage a = {0};
    socklen_t size = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &size) != 0)
        return 0;
    return ntohs(a.ss_family == AF_INET ? ((struct sockaddr_in *)&a)->sin_port
                                        : ((struct sockaddr_in6 *)&a)->sin6_port);
}

struct gw_plain *gw_plain_open(struct gw_front *f, size_t connections_max, struct sl_fail *why)
{
    struct sl_loop *l = f->cfg.hub->loop;
    int fd = open_listener(f->host, f->cfg.port, why);
    if (fd < 0)
        return NULL;
    struct gw_plain *p = sl_alloc(sizeof *p);
    p->front = f;
    p->fd = fd;
    p->port = port_of(fd);
    p->max = connections_max;
    p->count_gauge = sl_gauge("sluice_http_connections", "", "HTTP connections without TLS");
    sl_gauge_max(p->count_gauge, (int64_t)connections_max);
    p->buffered_gauge =
        sl_gauge("sluice_http_buffered_bytes", "", "Bytes of requests that wait for their rest or turn");
    sl_gauge_max(p->buffered_gauge, BUFFERED_MAX_BYTES);
    sl_timer_init(&p->tick, l, on_tick, p);
    sl_timer_init(&p->pause, l, on_pause_over, p);
    sl_assert(uv_poll_init(sl_loop_uv(l), &p->listener, fd) == 0);
    p->listener.data = p;
    p->open_handles = 1;
    sl_assert(uv_poll_start(&p->listener, UV_READABLE, on_connections) == 0);
    return p;
}

int gw_plain_port(const struct gw_plain *p)
{
    return p->port;
}

static void on_listener_closed(uv_handle_t *h)
{
    plain_unref(h->data);
}

void gw_plain_close(struct gw_plain **pp)
{
    struct gw_plain *p = *pp;
    *pp = NULL;
    if (p == NULL)
        return;
    sl_timer_stop(&p->tick);
    sl_timer_stop(&p->pause);
    while (p->busy.head != NULL)
        conn_close(p->busy.head);
    while (p->waiting.head != NULL)
        conn_close(p->waiting.head);
    uv_close((uv_handle_t *)&p->listener, on_listener_closed);
    (void)close(p->fd);
}
