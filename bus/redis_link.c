/* bus/redis_link.c - one connection: hiredis 0.14.1 on libuv, with what hiredis leaves out: deadlines and reconnecting.
 *
 * hiredis  - its own libuv adapter drops poll errors, so a refused or reset connection goes unnoticed: on_poll hands them on.
 *          - it frees a context whose connect failed by itself: on_connect only forgets the pointer.
 *          - nothing in it times out: one watchdog timer a connection looks at the oldest deadline.
 *          - a dying context calls every pending callback with NULL; that is where commands settle, each exactly once.
 *          - a context must not be freed inside its callbacks: bus_link_cut waits for the next turn.
 * Writing  waits for the end of the turn (struct redis_flusher): commands issued together leave in one write, without the two
 *          epoll_ctl calls that arming and disarming POLLOUT would cost.
 */
#include "bus/functions.h"
#include "bus/pack.h"
#include "bus/redis_priv.h"

#include "base/log.h"
#include "base/metrics.h"

#include <hiredis/async.h>

#include <stdio.h>
#include <stdlib.h>

#define LINK_MAGIC        0x6b6e696cu
#define LINK_BYTES_MAX    (64u << 20) /* of commands without an answer; one command may be larger */
#define LINK_PING_MS      5000
#define LINK_GRACE_MS     20 /* a late process reads what has arrived before it calls the server late */
#define LINK_SAMPLE_EVERY 16 /* round trips measured: one of so many */
#define BACKOFF_MIN_MS    50
#define BACKOFF_MAX_MS    2000
#define BACKOFF_GOOD_MS   1000 /* a connection that was good for less counts as a failure */

enum link_state { LINK_DOWN, LINK_CONNECTING, LINK_CHECKING, LINK_READY };

struct link_pending {
    struct redis_link *link;
    bus_reply_fn fn;
    void *arg;
    uint64_t deadline_mono_ms;
    uint64_t sent_ns; /* 0: not measured */
    size_t bytes;
    struct link_pending *next, *prev;
};

/* The poll handle of one hiredis context. It outlives the context until libuv has let go of it. */
struct link_io {
    uv_poll_t poll;
    redisAsyncContext *ac; /* NULL: the context is gone */
    struct redis_link *link;
    bool reads, writes;
    int armed;
};

struct redis_flusher {
    uv_prepare_t prepare;
    struct redis_link *dirty;
    struct redis_link *flushing;
    unsigned references;
};

struct redis_link {
    uint32_t magic;
    struct redis_link_config cfg;
    enum link_state state;
    bool is_closing, is_suspect, is_dirty, has_module;
    redisAsyncContext *ac;
    struct redis_resolve *resolve;
    struct sl_timer watchdog, retry;
    struct sl_post cut_post, close_post;
    uint64_t attempt_deadline_mono_ms;
    struct redis_backoff backoff;
    struct link_pending *first, *last, *spare;
    size_t pending_count, pending_bytes;
    unsigned unanswered; /* commands that this connection took with it */
    unsigned sample;
    sl_err cut_err;     /* what pending commands settle with when the context dies */
    struct sl_fail why; /* of the last loss */
    struct redis_link *next_dirty;
    unsigned connects;
    char *command; /* the command being formatted */
    size_t command_cap;
    struct sl_metric *in_flight, *roundtrip;
};

/* ---- back-off ---- */

uint64_t bus_backoff_next_ms(struct redis_backoff *b, struct sl_loop *l)
{
    if (b->ready_since_mono_ms != 0 && sl_loop_mono_ms(l) - b->ready_since_mono_ms >= BACKOFF_GOOD_MS)
        b->failures = 0;
    b->ready_since_mono_ms = 0;
    unsigned n = b->failures++;
    if (n == 0)
        return 0;
    uint64_t ms = n > 6 ? BACKOFF_MAX_MS : (uint64_t)BACKOFF_MIN_MS << (n - 1);
    if (ms > BACKOFF_MAX_MS)
        ms = BACKOFF_MAX_MS;
    return ms / 2 + sl_loop_jitter(l, ms / 2);
}

void bus_backoff_ready(struct redis_backoff *b, struct sl_loop *l)
{
    b->ready_since_mono_ms = sl_loop_mono_ms(l);
}

/* ---- flushing ---- */

static void on_prepare(uv_prepare_t *h)
{
    struct redis_flusher *f = h->data;
    while (f->dirty != NULL) {
        struct redis_link *l = f->dirty;
        f->dirty = l->next_dirty;
        l->is_dirty = false;
        if (l->ac == NULL)
            continue;
        f->flushing = l;
        redisAsyncHandleWrite(l->ac); /* may end the connection and call everybody back */
        f->flushing = NULL;
    }
    (void)uv_prepare_stop(&f->prepare);
}

struct redis_flusher *bus_flusher_new(uv_loop_t *uv)
{
    struct redis_flusher *f = sl_alloc(sizeof(*f));
    sl_assert(uv_prepare_init(uv, &f->prepare) == 0);
    f->prepare.data = f;
    f->references = 1;
    return f;
}

static void on_flusher_closed(uv_handle_t *h)
{
    free(h->data);
}

void bus_flusher_unref(struct redis_flusher **fp)
{
    struct redis_flusher *f = *fp;
    *fp = NULL;
    if (--f->references == 0)
        uv_close((uv_handle_t *)&f->prepare, on_flusher_closed);
}

static void flusher_add(struct redis_flusher *f, struct redis_link *l)
{
    if (l->is_dirty)
        return;
    l->is_dirty = true;
    l->next_dirty = f->dirty;
    f->dirty = l;
    (void)uv_prepare_start(&f->prepare, on_prepare);
}

static void flusher_remove(struct redis_flusher *f, struct redis_link *l)
{
    for (struct redis_link **p = &f->dirty; *p != NULL; p = &(*p)->next_dirty) {
        if (*p == l) {
            *p = l->next_dirty;
            break;
        }
    }
    l->is_dirty = false;
}

/* ---- hiredis on libuv ---- */

static void link_connect(void *arg);
static void on_poll(uv_poll_t *h, int status, int events);

static void io_arm(struct link_io *io)
{
    int events = (io->reads ? UV_READABLE : 0) | (io->writes ? UV_WRITABLE : 0);
    if (events == io->armed)
        return;
    io->armed = events;
    if (events == 0)
        (void)uv_poll_stop(&io->poll);
    else
        (void)uv_poll_start(&io->poll, events, on_poll);
}

static void on_add_read(void *arg)
{
    struct link_io *io = arg;
    io->reads = true;
    io_arm(io);
}

static void on_del_read(void *arg)
{
    struct link_io *io = arg;
    io->reads = false;
    io_arm(io);
}

/* While connecting the poll tells when; later the flusher writes, and only what the kernel does not take waits for the poll. */
static void on_add_write(void *arg)
{
    struct link_io *io = arg;
    struct redis_link *l = io->link;
    if (l->state >= LINK_CHECKING && l->cfg.flusher->flushing != l) {
        if (!io->writes)
            flusher_add(l->cfg.flusher, l);
        return;
    }
    io->writes = true;
    io_arm(io);
}

static void on_del_write(void *arg)
{
    struct link_io *io = arg;
    io->writes = false;
    io_arm(io);
}

static void on_io_closed(uv_handle_t *h)
{
    free(h->data);
}

static void on_cleanup(void *arg)
{
    struct link_io *io = arg;
    io->ac = NULL;
    (void)uv_poll_stop(&io->poll);
    uv_close((uv_handle_t *)&io->poll, on_io_closed);
}

static void on_poll(uv_poll_t *h, int status, int events)
{
    struct link_io *io = h->data;
    if (status != 0) {
        struct redis_link *l = io->link;
        redisAsyncHandleRead(io->ac); /* finds the error itself and tells the callbacks */
        if (io->ac != NULL)           /* it found none, but libuv has stopped polling */
            bus_link_cut(l, SL_ECLOSED, "the system reports a broken connection");
        return;
    }
    if (io->ac != NULL && (events & UV_READABLE))
        redisAsyncHandleRead(io->ac);
    if (io->ac != NULL && (events & UV_WRITABLE))
        redisAsyncHandleWrite(io->ac);
}

/* ---- pending commands ---- */

static struct link_pending *pending_add(struct redis_link *l, size_t bytes, uint64_t deadline_mono_ms)
{
    struct link_pending *p = l->spare;
    if (p != NULL)
        l->spare = p->next;
    else
        p = sl_alloc(sizeof(*p));
    *p = (struct link_pending){
        .link = l, .bytes = bytes, .deadline_mono_ms = deadline_mono_ms, .prev = l->last};
    if (l->last != NULL)
        l->last->next = p;
    else
        l->first = p;
    l->last = p;
    l->pending_count++;
    l->pending_bytes += bytes;
    return p;
}

static void pending_remove(struct redis_link *l, struct link_pending *p)
{
    if (p->prev != NULL)
        p->prev->next = p->next;
    else
        l->first = p->next;
    if (p->next != NULL)
        p->next->prev = p->prev;
    else
        l->last = p->prev;
    l->pending_count--;
    l->pending_bytes -= p->bytes;
    p->next = l->spare;
    l->spare = p;
}

static void show_in_flight(struct redis_link *l)
{
    if (l->in_flight != NULL)
        sl_gauge_set(l->in_flight, (int64_t)l->pending_count);
}

/* The words of a loss that we did not bring about ourselves. */
static void note_loss(struct redis_link *l, const redisAsyncContext *ac)
{
    if (l->ac != ac)
        return;
    const char *text = ac->errstr != NULL && ac->errstr[0] != '\0' ? ac->errstr : "connection closed";
    l->cut_err = SL_ECLOSED;
    (void)sl_fail_set(&l->why, SL_ECLOSED, 0, "redis %s: %s", l->cfg.where->name, text);
}

static void count_error(sl_err err)
{
    if (err == SL_ETIMEOUT)
        SL_COUNT("sluice_redis_errors_total", "kind=\"timeout\"", "Redis commands that failed", 1);
    else if (err == SL_ECLOSED)
        SL_COUNT("sluice_redis_errors_total", "kind=\"closed\"", "Redis commands that failed", 1);
    else if (err == SL_EAGAIN)
        SL_COUNT("sluice_redis_errors_total", "kind=\"busy\"", "Redis commands that failed", 1);
    else if (err == SL_EREFUSED)
        SL_COUNT("sluice_redis_errors_total", "kind=\"refused\"", "Redis commands that failed", 1);
    else
        SL_COUNT("sluice_redis_errors_total", "kind=\"answered\"", "Redis commands that failed", 1);
}

/* The server is not any more what the checks found: connecting anew finds out, and loads the Functions. */
static bool has_changed(const struct redis_link *l, const struct sl_fail *why)
{
    return strncmp(why->text, "ERR Function not found", 22) == 0 ||
           (l->has_module && strncmp(why->text, BUS_MODULE_GONE, strlen(BUS_MODULE_GONE)) == 0) ||
           strncmp(why->text, "READONLY", 8) == 0;
}

static void on_reply(redisAsyncContext *ac, void *reply, void *data)
{
    struct link_pending *p = data;
    struct redis_link *l = p->link;
    bus_reply_fn fn = p->fn;
    void *arg = p->arg;
    struct sl_fail why = {.code = SL_OK};
    if (reply != NULL && p->sent_ns != 0)
        sl_observe_ms(l->roundtrip, (double)(uv_hrtime() - p->sent_ns) / 1e6);
    pending_remove(l, p);
    show_in_flight(l);
    if (reply == NULL) {
        note_loss(l, ac);
        l->unanswered++;
        count_error(l->cut_err);
        why = l->why;
        why.code = l->cut_err;
        fn(arg, l->cut_err, NULL, &why);
        return;
    }
    l->is_suspect = false;
    sl_err err = bus_reply_error(reply, &why);
    if (err != SL_OK)
        count_error(err);
    if (err == SL_EAGAIN && has_changed(l, &why))
        bus_link_cut(l, SL_ECLOSED, "its role or its Functions have changed: connecting anew");
    fn(arg, err, err == SL_OK ? (const struct bus_value *)reply : NULL, &why);
}

static void arm_watchdog(struct redis_link *l, uint64_t due_mono_ms)
{
    uint64_t now = sl_loop_mono_ms(l->cfg.loop);
    if (sl_timer_is_active(&l->watchdog) && l->watchdog.due_mono_ms <= due_mono_ms)
        return;
    sl_timer_start(&l->watchdog, due_mono_ms > now ? due_mono_ms - now : 0);
}

#define COMMAND_KEEP_BYTES 65536 /* a larger one is not kept for the next command */
#define HEAD_BYTES_MAX     24    /* '$' or '*', 20 digits, CR and LF; more than a pack needs before an item */
#define PREFIX_BYTES_MAX   24    /* "sluice.packed_1." */

static char *put_head(char *at, char kind, size_t n)
{
    char digits[SL_DIGITS_MAX], *end = digits + sizeof(digits);
    char *start = sl_digits_before(end, n);
    *at++ = kind;
    for (; start < end; start++)
        *at++ = *start;
    *at++ = '\r';
    *at++ = '\n';
    return at;
}

static char *put_bytes(char *at, const char *bytes, size_t len)
{
    if (len > 0)
        memcpy(at, bytes, len);
    return at + len;
}

static char *put_arg(char *at, struct sl_str s)
{
    at = put_head(at, '$', s.len);
    at = put_bytes(at, s.ptr, s.len);
    *at++ = '\r';
    *at++ = '\n';
    return at;
}

static struct sl_str arg_at(const struct bus_args *args, size_t i)
{
    return sl_str_n(args->ptr[i], args->len[i]);
}

/* The module has the operations of functions.c; others stay Functions. */
static bool is_in_module(const struct bus_args *args)
{
    if (args->count < 2 || args->len[0] != 5 || memcmp(args->ptr[0], "FCALL", 5) != 0)
        return false;
    for (size_t i = 0; i < FUNCTIONS_COUNT; i++)
        if (sl_str_eq_c(arg_at(args, 1), functions_table[i].name))
            return true;
    return false;
}

/* Where the arguments begin behind the keys; 0: the keys are not as many as is said, which the server will find out. */
static size_t first_packed(const struct bus_args *args)
{
    uint64_t keys = 0;
    if (args->count < 3 || sl_str_uint(arg_at(args, 2), &keys) != SL_OK || keys > args->count - 3)
        return 0;
    return 3 + (size_t)keys;
}

static size_t pack_size(const struct bus_args *args, size_t first)
{
    const struct bus_args_same *same = args->same, *end = same + args->same_count;
    size_t size = 0;
    for (size_t i = first; i < args->count; i++) {
        if (same == end || same->at != i) {
            size += bus_pack_size(args->len[i]);
            continue;
        }
        size += bus_pack_shared_size(same->source - first, same->from,
                                     args->len[i] - same->from - args->len[same->source]);
        same++;
    }
    return size;
}

static char *put_pack(char *at, const struct bus_args *args, size_t first)
{
    const struct bus_args_same *same = args->same, *end = same + args->same_count;
    for (size_t i = first; i < args->count; i++) {
        struct sl_str s = arg_at(args, i);
        if (same == end || same->at != i) {
            at = bus_pack_put(at, s);
            continue;
        }
        size_t behind = same->from + args->len[same->source];
        at = bus_pack_put_shared(at, same->source - first, sl_str_n(s.ptr, same->from),
                                 sl_str_n(s.ptr + behind, s.len - behind));
        same++;
    }
    return at;
}

static char *put_name(char *at, const char *prefix, size_t prefix_len, struct sl_str name)
{
    at = put_head(at, '$', prefix_len + name.len);
    at = put_bytes(at, prefix, prefix_len);
    return put_bytes(at, name.ptr, name.len);
}

/* "FCALL", "commit_1", keys and arguments become "sluice.packed_1.commit_1", keys and one pack. */
static char *put_module_call(char *at, const struct bus_args *args)
{
    static const char PACKED[] = BUS_MODULE_PREFIX "packed_1.", PLAIN[] = BUS_MODULE_PREFIX;
    size_t first = first_packed(args), keys_end = first == 0 ? args->count : first;
    at = put_head(at, '*', keys_end - 1 + (first != 0));
    at = first != 0 ? put_name(at, PACKED, sizeof(PACKED) - 1, arg_at(args, 1))
                    : put_name(at, PLAIN, sizeof(PLAIN) - 1, arg_at(args, 1));
    *at++ = '\r';
    *at++ = '\n';
    for (size_t i = 2; i < keys_end; i++)
        at = put_arg(at, arg_at(args, i));
    if (first == 0)
        return at;
    at = put_pack(put_head(at, '$', pack_size(args, first)), args, first);
    *at++ = '\r';
    *at++ = '\n';
    return at;
}

/* RESP: *<count> and $<length> before each argument. Returns its length; it lies in l->command. */
static size_t format_command(struct redis_link *l, const struct bus_args *args)
{
    size_t most = args->bytes + PREFIX_BYTES_MAX + (args->count + 2) * (HEAD_BYTES_MAX + 2);
    if (most > l->command_cap) {
        free(l->command);
        l->command_cap = most * 2;
        l->command = sl_realloc(NULL, l->command_cap);
    }
    char *at = l->command;
    if (l->has_module && is_in_module(args)) {
        at = put_module_call(at, args);
    } else {
        at = put_head(at, '*', args->count);
        for (size_t i = 0; i < args->count; i++)
            at = put_arg(at, arg_at(args, i));
    }
    *at = '\0'; /* hiredis looks for the command's name with strchr */
    return (size_t)(at - l->command);
}

static void command_shrink(struct redis_link *l)
{
    if (l->command_cap <= COMMAND_KEEP_BYTES)
        return;
    free(l->command);
    l->command = NULL;
    l->command_cap = 0;
}

sl_err bus_link_command(struct redis_link *l, const struct bus_args *args, uint64_t deadline_ms,
                        bool is_check, bus_reply_fn fn, void *arg)
{
    if (l->is_closing)
        return SL_ECLOSED;
    if (l->state != (is_check ? LINK_CHECKING : LINK_READY) || l->ac == NULL || args->count > INT32_MAX)
        return SL_EAGAIN;
    size_t bytes = args->bytes + args->count * 16;
    if (l->pending_count >= BUS_IN_FLIGHT_MAX ||
        (l->pending_count > 0 && l->pending_bytes + bytes > LINK_BYTES_MAX))
        return SL_EAGAIN;
    uint64_t deadline = sl_loop_mono_ms(l->cfg.loop) + deadline_ms;
    struct link_pending *p = pending_add(l, bytes, deadline);
    p->fn = fn;
    p->arg = arg;
    if (l->sample++ % LINK_SAMPLE_EVERY == 0 && l->roundtrip != NULL)
        p->sent_ns = uv_hrtime();
    size_t len = format_command(l, args);
    int status = redisAsyncFormattedCommand(l->ac, on_reply, p, l->command, len);
    command_shrink(l);
    if (status != REDIS_OK) {
        pending_remove(l, p); /* the context is on its way out */
        return SL_EAGAIN;
    }
    show_in_flight(l);
    arm_watchdog(l, deadline);
    return SL_OK;
}

size_t bus_link_pending(const struct redis_link *l)
{
    return l->pending_count;
}

/* ---- losing the connection ---- */

/* One line for a connection that was good, then for the 1st, 2nd, 4th, 8th ... failed attempt. */
static void log_loss(struct redis_link *l, bool was_ready)
{
    unsigned n = l->backoff.failures;
    if (l->why.code == SL_EREFUSED)
        return; /* unfit: whoever owns the bus is told */
    if (was_ready)
        sl_log(SL_WARN, "redis: connection lost", SL_KV_FAIL(&l->why), SL_KV_I("unanswered", l->unanswered));
    else if ((n & (n - 1)) == 0)
        sl_log(SL_WARN, "redis: cannot connect", SL_KV_FAIL(&l->why), SL_KV_I("attempt", n + 1));
}

static void link_lost(struct redis_link *l)
{
    bool was_ready = l->state == LINK_READY;
    l->state = LINK_DOWN;
    l->is_suspect = l->has_module = false;
    sl_timer_stop(&l->watchdog);
    sl_post_cancel(&l->cut_post);
    if (l->is_closing)
        return;
    log_loss(l, was_ready);
    sl_timer_start(&l->retry, bus_backoff_next_ms(&l->backoff, l->cfg.loop));
    l->cfg.lost(l->cfg.arg, l, was_ready, &l->why);
}

/* Not inside a hiredis callback. */
static void link_drop(struct redis_link *l)
{
    redisAsyncContext *ac = l->ac;
    bool was_ready = l->state == LINK_READY;
    l->ac = NULL;
    l->state = LINK_DOWN; /* those called back now get SL_EAGAIN for a new command */
    bus_resolve_cancel(&l->resolve);
    if (ac != NULL)
        redisAsyncFree(ac);
    l->state = was_ready ? LINK_READY : LINK_DOWN;
    link_lost(l);
}

static void on_cut_post(void *arg)
{
    struct redis_link *l = arg;
    if (l->ac != NULL)
        link_drop(l);
}

void bus_link_cut(struct redis_link *l, sl_err err, const char *words)
{
    if (l->is_closing || l->ac == NULL)
        return;
    l->cut_err = err;
    (void)sl_fail_set(&l->why, err, 0, "redis %s: %s", l->cfg.where->name, words);
    sl_post_now(&l->cut_post);
}

static void link_time_out(struct redis_link *l, const char *words)
{
    l->cut_err = SL_ETIMEOUT;
    (void)sl_fail_set(&l->why, SL_ETIMEOUT, 0, "redis %s: %s", l->cfg.where->name, words);
    link_drop(l);
}

static void on_ping_reply(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    (void)arg;
    (void)err;
    (void)v;
    (void)why;
}

static void ping(struct redis_link *l)
{
    struct bus_args args;
    bus_args_init(&args);
    bus_args_c(&args, "PING");
    sl_err err = bus_link_command(l, &args, LINK_PING_MS, false, on_ping_reply, NULL);
    bus_args_fini(&args);
    if (err != SL_OK)
        arm_watchdog(l, sl_loop_mono_ms(l->cfg.loop) + LINK_PING_MS);
}

static uint64_t earliest_deadline(const struct redis_link *l)
{
    uint64_t earliest = UINT64_MAX;
    for (const struct link_pending *p = l->first; p != NULL; p = p->next)
        if (p->deadline_mono_ms < earliest)
            earliest = p->deadline_mono_ms;
    return earliest;
}

static void watch_attempt(struct redis_link *l, uint64_t now)
{
    if (now >= l->attempt_deadline_mono_ms)
        link_time_out(l, "no answer while connecting");
    else
        arm_watchdog(l, l->attempt_deadline_mono_ms);
}

static void on_watchdog(void *arg)
{
    struct redis_link *l = arg;
    uint64_t now = sl_loop_mono_ms(l->cfg.loop), earliest;
    if (l->state != LINK_READY) {
        if (l->state != LINK_DOWN)
            watch_attempt(l, now);
        return;
    }
    earliest = earliest_deadline(l);
    if (earliest == UINT64_MAX) {
        if (l->cfg.pings)
            ping(l);
    } else if (earliest > now) {
        arm_watchdog(l, earliest);
    } else if (!l->is_suspect) {
        l->is_suspect = true;
        arm_watchdog(l, now + LINK_GRACE_MS);
    } else {
        link_time_out(l, "no answer within the deadline: the connection was cut");
    }
}

/* ---- connecting ---- */

static void link_fail(struct redis_link *l, const char *words)
{
    (void)sl_fail_set(&l->why, SL_ECLOSED, 0, "redis %s: %s", l->cfg.where->name, words);
    link_lost(l);
}

static void on_auth_reply(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct redis_link *l = arg;
    (void)v;
    if (l->is_closing || l->state != LINK_CHECKING)
        return;
    if (err == SL_OK)
        l->cfg.connected(l->cfg.arg, l);
    else
        bus_link_cut(l, err, why->text); /* SL_EREFUSED: the credentials are wrong */
}

static void authenticate(struct redis_link *l)
{
    struct bus_args args;
    if (l->cfg.where->password == NULL) {
        l->cfg.connected(l->cfg.arg, l);
        return;
    }
    bus_args_init(&args);
    bus_args_c(&args, "AUTH");
    if (l->cfg.where->user != NULL)
        bus_args_c(&args, l->cfg.where->user);
    bus_args_c(&args, l->cfg.where->password);
    if (bus_link_command(l, &args, l->cfg.connect_deadline_ms, true, on_auth_reply, l) != SL_OK)
        bus_link_cut(l, SL_ECLOSED, "AUTH could not be sent");
    bus_args_fini(&args);
}

static void on_connect(const redisAsyncContext *ac, int status)
{
    struct redis_link *l = ac->data;
    if (l == NULL || ac != l->ac)
        return;
    if (status != REDIS_OK) {
        note_loss(l, ac);
        l->ac = NULL; /* hiredis frees it */
        link_lost(l);
        return;
    }
    l->state = LINK_CHECKING;
    authenticate(l);
}

static void on_disconnect(const redisAsyncContext *ac, int status)
{
    struct redis_link *l = ac->data;
    (void)status;
    if (l == NULL || ac != l->ac)
        return;
    note_loss(l, ac);
    l->ac = NULL;
    link_lost(l);
}

static sl_err link_attach(struct redis_link *l, redisAsyncContext *ac)
{
    struct link_io *io = sl_alloc(sizeof(*io));
    if (uv_poll_init(sl_loop_uv(l->cfg.loop), &io->poll, ac->c.fd) != 0) {
        free(io);
        return SL_EAGAIN;
    }
    io->poll.data = io;
    io->ac = ac;
    io->link = l;
    ac->data = l;
    ac->c.reader->fn = bus_reply_functions();
    ac->ev.data = io;
    ac->ev.addRead = on_add_read;
    ac->ev.delRead = on_del_read;
    ac->ev.addWrite = on_add_write;
    ac->ev.delWrite = on_del_write;
    ac->ev.cleanup = on_cleanup;
    l->ac = ac;
    (void)redisAsyncSetDisconnectCallback(ac, on_disconnect);
    (void)redisAsyncSetConnectCallback(ac, on_connect); /* begins to wait for the connection */
    return SL_OK;
}

static void link_take(struct redis_link *l, redisAsyncContext *ac)
{
    char words[200];
    if (ac != NULL && ac->err == 0 && link_attach(l, ac) == SL_OK)
        return;
    (void)snprintf(words, sizeof(words), "%s",
                   ac != NULL && ac->errstr != NULL ? ac->errstr : "no connection");
    if (ac != NULL)
        redisAsyncFree(ac);
    link_fail(l, words);
}

static void on_resolved(void *arg, int status, const struct sockaddr *found)
{
    struct redis_link *l = arg;
    char address[INET6_ADDRSTRLEN] = "";
    l->resolve = NULL;
    if (status == 0)
        status = uv_ip_name(found, address, sizeof(address));
    if (status == 0)
        link_take(l, redisAsyncConnect(address, l->cfg.where->port));
    else
        link_fail(l, uv_strerror(status));
}

static void link_connect(void *arg)
{
    struct redis_link *l = arg;
    const struct redis_where *w = l->cfg.where;
    l->state = LINK_CONNECTING;
    l->cut_err = SL_ECLOSED;
    l->unanswered = 0;
    l->attempt_deadline_mono_ms = sl_loop_mono_ms(l->cfg.loop) + l->cfg.connect_deadline_ms;
    arm_watchdog(l, l->attempt_deadline_mono_ms);
    if (w->path != NULL)
        link_take(l, redisAsyncConnectUnix(w->path));
    else if ((l->resolve = bus_resolve(sl_loop_uv(l->cfg.loop), w, on_resolved, l)) == NULL)
        link_fail(l, "the host's name cannot be looked up");
}

void bus_link_use_module(struct redis_link *l, bool has_module)
{
    l->has_module = has_module;
}

void bus_link_ready(struct redis_link *l)
{
    sl_assert(l->state == LINK_CHECKING);
    l->state = LINK_READY;
    sl_timer_stop(&l->watchdog);
    bus_backoff_ready(&l->backoff, l->cfg.loop);
    if (l->connects++ > 0)
        SL_COUNT("sluice_redis_reconnects_total", "", "Redis connections that had to be made again", 1);
    if (l->cfg.pings)
        arm_watchdog(l, sl_loop_mono_ms(l->cfg.loop) + LINK_PING_MS);
}

bool bus_link_is_ready(const struct redis_link *l)
{
    return l->state == LINK_READY && !l->is_closing && l->ac != NULL;
}

/* ---- open and close ---- */

static void on_close_post(void *arg)
{
    struct redis_link *l = arg;
    void (*freed)(void *) = l->cfg.freed;
    void *freed_arg = l->cfg.arg;
    l->cut_err = SL_ECLOSED;
    (void)sl_fail_set(&l->why, SL_ECLOSED, 0, "redis %s: closing", l->cfg.where->name);
    link_drop(l);
    sl_assert(l->pending_count == 0);
    sl_timer_stop(&l->retry);
    flusher_remove(l->cfg.flusher, l);
    bus_flusher_unref(&l->cfg.flusher);
    while (l->spare != NULL) {
        struct link_pending *next = l->spare->next;
        free(l->spare);
        l->spare = next;
    }
    l->magic = 0;
    free(l->command);
    free(l);
    if (freed != NULL)
        freed(freed_arg);
}

struct redis_link *bus_link_open(const struct redis_link_config *cfg)
{
    struct redis_link *l = sl_alloc(sizeof(*l));
    l->magic = LINK_MAGIC;
    l->cfg = *cfg;
    l->cfg.flusher->references++;
    sl_timer_init(&l->watchdog, cfg->loop, on_watchdog, l);
    sl_timer_init(&l->retry, cfg->loop, link_connect, l);
    sl_post_init(&l->cut_post, cfg->loop, on_cut_post, l);
    sl_post_init(&l->close_post, cfg->loop, on_close_post, l);
    if (cfg->pings) { /* the connection for commands; a reader's round trip is the server's patience */
        l->in_flight = sl_gauge("sluice_redis_in_flight", "", "Redis commands without an answer yet");
        l->roundtrip =
            sl_histogram("sluice_redis_roundtrip_seconds", "", "Redis command until its answer, sampled");
        sl_gauge_max(l->in_flight, BUS_IN_FLIGHT_MAX);
    }
    sl_timer_start(&l->retry, 0);
    return l;
}

void bus_link_close(struct redis_link **lp)
{
    struct redis_link *l = *lp;
    *lp = NULL;
    if (l == NULL)
        return;
    sl_assert(l->magic == LINK_MAGIC && !l->is_closing);
    l->is_closing = true;
    sl_timer_stop(&l->retry);
    sl_post_cancel(&l->cut_post);
    sl_post_now(&l->close_post);
}
