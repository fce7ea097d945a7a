/* bus/redis_sub.c - a connection for subscriptions, on a plain libuv stream with hiredis' reader.
 *
 * Why      hiredis' own subscriptions keep a callback record for every channel, and abort the process on some replies. Here the
 *          list of channels is kept once, by subscriber.c.
 * Silence  it asks PING every 5 s; silent for 10 s it is cut: a half-open connection would swallow pushes without a sign.
 */
#include "bus/redis_priv.h"

#include "base/log.h"
#include "base/metrics.h"

#include <stdlib.h>

#define SUB_PING_MS      5000
#define SUB_SILENT_MS    10000
#define SUB_READ_BYTES   16384
#define SUB_UNSENT_BYTES (16u << 20) /* a server that takes less than it is given is cut */
#define SUB_WORDS_MAX    200

/* One attempt to connect and what becomes of it. It outlives the subscriber until libuv has let go of it. */
struct sub_conn {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_pipe_t pipe;
        uv_tcp_t tcp;
    } h;
    uv_connect_t connect;
    struct redis_sub *sub; /* NULL: abandoned */
    redisReader *reader;
};

struct sub_write {
    uv_write_t request;
    char *command; /* hiredis' memory */
};

struct redis_sub {
    struct sl_loop *loop;
    const struct redis_where *where;
    uint64_t connect_deadline_ms;
    void (*on_message)(void *arg, bool is_confirm, struct sl_str channel, struct sl_str payload);
    void (*on_change)(void *arg, bool is_up);
    void *arg;
    void (*freed)(void *owner);
    void *owner;
    struct sub_conn *conn;
    struct redis_resolve *resolve;
    struct sl_timer retry, watchdog;
    struct sl_post close_post;
    struct redis_backoff backoff;
    uint64_t heard_mono_ms;
    bool is_up, is_closing, is_greeted; /* greeted: AUTH was answered */
    char in[SUB_READ_BYTES];
};

/* ---- losing it ---- */

static void on_conn_closed(uv_handle_t *h)
{
    struct sub_conn *c = h->data;
    redisReaderFree(c->reader);
    free(c);
}

static void conn_abandon(struct redis_sub *s)
{
    struct sub_conn *c = s->conn;
    s->conn = NULL;
    if (c == NULL)
        return;
    c->sub = NULL;
    uv_close(&c->h.handle, on_conn_closed);
}

static void sub_lost(struct redis_sub *s, const char *words)
{
    bool was_up = s->is_up;
    s->is_up = false;
    conn_abandon(s);
    bus_resolve_cancel(&s->resolve);
    sl_timer_stop(&s->watchdog);
    if (s->is_closing)
        return;
    if (was_up)
        sl_log(SL_WARN, "redis: subscribing connection lost", SL_KV("server", s->where->name),
               SL_KV("why", words));
    sl_timer_start(&s->retry, bus_backoff_next_ms(&s->backoff, s->loop));
    if (was_up) {
        SL_COUNT("sluice_redis_reconnects_total", "", "Redis connections that had to be made again", 1);
        s->on_change(s->arg, false);
    }
}

/* ---- writing ---- */

static void on_written(uv_write_t *request, int status)
{
    struct sub_write *w = request->data;
    (void)status; /* a broken connection shows itself to the reader */
    redisFreeCommand(w->command);
    free(w);
}

static void sub_write(struct redis_sub *s, int argc, const char **argv, const size_t *len)
{
    char *command = NULL;
    int bytes = redisFormatCommandArgv(&command, argc, argv, len);
    sl_assert(bytes > 0);
    struct sub_write *w = sl_alloc(sizeof(*w));
    uv_buf_t buf = uv_buf_init(command, (unsigned)bytes);
    w->command = command;
    w->request.data = w;
    if (uv_write(&w->request, &s->conn->h.stream, &buf, 1, on_written) != 0) {
        redisFreeCommand(command);
        free(w);
        sub_lost(s, "cannot write");
    } else if (s->conn->h.stream.write_queue_size > SUB_UNSENT_BYTES) {
        sub_lost(s, "the server does not read");
    }
}

void bus_sub_send(struct redis_sub *s, bool subscribe, const struct sl_str *channels, size_t count)
{
    if (!s->is_up || count == 0)
        return;
    const char **argv = sl_alloc((count + 1) * sizeof(*argv));
    size_t *len = sl_alloc((count + 1) * sizeof(*len));
    argv[0] = subscribe ? "SUBSCRIBE" : "UNSUBSCRIBE";
    len[0] = strlen(argv[0]);
    for (size_t i = 0; i < count; i++) {
        argv[i + 1] = channels[i].ptr;
        len[i + 1] = channels[i].len;
    }
    sub_write(s, (int)count + 1, argv, len);
    free(argv);
    free(len);
}

static void sub_command(struct redis_sub *s, const char *a, const char *b, const char *c)
{
    const char *argv[3] = {a, b, c};
    size_t len[3] = {strlen(a), b == NULL ? 0 : strlen(b), c == NULL ? 0 : strlen(c)};
    sub_write(s, c != NULL ? 3 : b != NULL ? 2 : 1, argv, len);
}

/* ---- reading ---- */

static struct sl_str item(const redisReply *r, size_t i)
{
    if (i >= r->elements ||
        (r->element[i]->type != REDIS_REPLY_STRING && r->element[i]->type != REDIS_REPLY_STATUS))
        return SL_STR_NONE;
    return sl_str_n(r->element[i]->str, r->element[i]->len);
}

static void sub_up(struct redis_sub *s)
{
    s->is_greeted = s->is_up = true;
    bus_backoff_ready(&s->backoff, s->loop);
    s->on_change(s->arg, true);
}

/* An error is never expected: the credentials, or a channel that an ACL forbids. */
static void take_reply(struct redis_sub *s, const redisReply *r)
{
    if (r->type == REDIS_REPLY_ERROR) {
        char words[SUB_WORDS_MAX];
        size_t len = r->len < sizeof(words) - 1 ? r->len : sizeof(words) - 1;
        memcpy(words, r->str, len);
        words[len] = '\0';
        sl_log(SL_WARN, "redis: subscribing is refused", SL_KV("server", s->where->name),
               SL_KV("why", words));
        sub_lost(s, words);
        return;
    }
    if (!s->is_greeted) {
        sub_up(s);
        return;
    }
    if (r->type != REDIS_REPLY_ARRAY)
        return; /* +PONG */
    struct sl_str kind = item(r, 0);
    if (sl_str_eq_c(kind, "message"))
        s->on_message(s->arg, false, item(r, 1), item(r, 2));
    else if (sl_str_eq_c(kind, "subscribe"))
        s->on_message(s->arg, true, item(r, 1), SL_STR_NONE);
}

/* A callback may close the subscriber or lose the connection: then the rest is nobody's. */
static void take_replies(struct sub_conn *c)
{
    while (c->sub != NULL && !c->sub->is_closing) {
        void *reply = NULL;
        if (redisReaderGetReply(c->reader, &reply) != REDIS_OK) {
            sub_lost(c->sub, "not RESP");
            return;
        }
        if (reply == NULL)
            return;
        take_reply(c->sub, reply);
        bus_reply_functions()->freeObject(reply);
    }
}

static void on_alloc(uv_handle_t *h, size_t wanted, uv_buf_t *buf)
{
    struct sub_conn *c = h->data;
    (void)wanted;
    *buf = c->sub == NULL ? uv_buf_init(NULL, 0) : uv_buf_init(c->sub->in, sizeof(c->sub->in));
}

static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *buf)
{
    struct sub_conn *c = h->data;
    if (c->sub == NULL || n == 0)
        return;
    if (n < 0) {
        sub_lost(c->sub, n == UV_EOF ? "closed by the server" : uv_strerror((int)n));
        return;
    }
    c->sub->heard_mono_ms = sl_loop_mono_ms(c->sub->loop);
    if (redisReaderFeed(c->reader, buf->base, (size_t)n) != REDIS_OK) {
        sub_lost(c->sub, "not RESP");
        return;
    }
    take_replies(c);
}

/* ---- connecting ---- */

static void sub_greet(struct redis_sub *s)
{
    const struct redis_where *w = s->where;
    s->heard_mono_ms = sl_loop_mono_ms(s->loop);
    sl_timer_start(&s->watchdog, SUB_PING_MS);
    if (w->password == NULL)
        sub_up(s);
    else if (w->user != NULL)
        sub_command(s, "AUTH", w->user, w->password);
    else
        sub_command(s, "AUTH", w->password, NULL);
}

static void on_connected(uv_connect_t *request, int status)
{
    struct sub_conn *c = request->data;
    if (c->sub == NULL)
        return;
    if (status == 0)
        status = uv_read_start(&c->h.stream, on_alloc, on_read);
    if (status != 0)
        sub_lost(c->sub, uv_strerror(status));
    else
        sub_greet(c->sub);
}

static struct sub_conn *conn_new(struct redis_sub *s)
{
    struct sub_conn *c = sl_alloc(sizeof(*c));
    uv_loop_t *uv = sl_loop_uv(s->loop);
    if (s->where->path != NULL)
        sl_assert(uv_pipe_init(uv, &c->h.pipe, 0) == 0);
    else
        sl_assert(uv_tcp_init(uv, &c->h.tcp) == 0);
    c->h.handle.data = c;
    c->connect.data = c;
    c->sub = s;
    c->reader = redisReaderCreateWithFunctions(bus_reply_functions());
    sl_assert(c->reader != NULL);
    s->conn = c;
    return c;
}

static void on_resolved(void *arg, int status, const struct sockaddr *found)
{
    struct redis_sub *s = arg;
    s->resolve = NULL;
    if (status == 0) {
        struct sub_conn *c = conn_new(s);
        (void)uv_tcp_nodelay(&c->h.tcp, 1);
        status = uv_tcp_connect(&c->connect, &c->h.tcp, found, on_connected);
    }
    if (status != 0)
        sub_lost(s, uv_strerror(status));
}

static void sub_connect(void *arg)
{
    struct redis_sub *s = arg;
    s->is_greeted = false;
    s->heard_mono_ms = sl_loop_mono_ms(s->loop);
    sl_timer_start(&s->watchdog, s->connect_deadline_ms);
    if (s->where->path != NULL) {
        struct sub_conn *c = conn_new(s);
        uv_pipe_connect(&c->connect, &c->h.pipe, s->where->path, on_connected);
        return;
    }
    s->resolve = bus_resolve(sl_loop_uv(s->loop), s->where, on_resolved, s);
    if (s->resolve == NULL)
        sub_lost(s, "the host's name cannot be looked up");
}

static void on_watchdog(void *arg)
{
    struct redis_sub *s = arg;
    uint64_t silent_ms = sl_loop_mono_ms(s->loop) - s->heard_mono_ms;
    if (!s->is_up) {
        sub_lost(s, "no answer while connecting");
    } else if (silent_ms >= SUB_SILENT_MS) {
        sub_lost(s, "silent for 10 s");
    } else {
        sl_timer_start(&s->watchdog, SUB_PING_MS);
        sub_command(s, "PING", NULL, NULL);
    }
}

/* ---- open and close ---- */

static void on_close_post(void *arg)
{
    struct redis_sub *s = arg;
    void (*freed)(void *) = s->freed;
    void *owner = s->owner;
    conn_abandon(s);
    bus_resolve_cancel(&s->resolve);
    sl_timer_stop(&s->retry);
    sl_timer_stop(&s->watchdog);
    free(s);
    freed(owner);
}

struct redis_sub *bus_sub_open(struct sl_loop *loop, const struct redis_where *where,
                               uint64_t connect_deadline_ms,
                               void (*on_message)(void *, bool, struct sl_str, struct sl_str),
                               void (*on_change)(void *, bool), void (*freed)(void *), void *owner, void *arg)
{
    struct redis_sub *s = sl_alloc(sizeof(*s));
    s->loop = loop;
    s->where = where;
    s->connect_deadline_ms = connect_deadline_ms;
    s->on_message = on_message;
    s->on_change = on_change;
    s->freed = freed;
    s->owner = owner;
    s->arg = arg;
    sl_timer_init(&s->retry, loop, sub_connect, s);
    sl_timer_init(&s->watchdog, loop, on_watchdog, s);
    sl_post_init(&s->close_post, loop, on_close_post, s);
    sl_timer_start(&s->retry, 0);
    return s;
}

void bus_sub_close(struct redis_sub *s)
{
    s->is_closing = true;
    s->is_up = false;
    sl_timer_stop(&s->retry);
    sl_post_now(&s->close_post);
}
