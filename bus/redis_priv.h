/* bus/redis_priv.h - the parts of the Redis implementation: one connection, its checks, the subscribing connection.
 *
 * redis.c        struct redis: what bus.h promises, put together; readers
 * redis_link.c   one connection for commands: hiredis on libuv, deadlines, reconnecting
 * redis_reply.c  the memory of replies
 * redis_check.c  what a server must be before we use it, and the Functions in it
 * redis_sub.c    one connection for subscriptions, on a plain libuv stream
 * redis_url.c    where the server is
 */
#ifndef BUS_REDIS_PRIV_H
#define BUS_REDIS_PRIV_H

#include "bus/bus_priv.h"

#define REDIS_NAME_MAX 200

struct redis_where {
    char *path; /* UNIX socket; NULL: host and port */
    char *host, *user, *password;
    int port;
    char name[REDIS_NAME_MAX]; /* for people: without the password */
};
/* Fills *w (bus_where_fini frees). SL_EINVAL with words; user and password of the configuration win over those in the url. */
sl_err bus_where_parse(struct redis_where *w, const struct bus_config *cfg,
                       struct sl_fail *why) SL_MUST_CHECK;
void bus_where_fini(struct redis_where *w);

/* Look the host up without blocking; fn is called once unless cancelled first. NULL: could not even begin. */
struct redis_resolve;
typedef void (*bus_resolve_fn)(void *arg, int status, const struct sockaddr *found);
struct redis_resolve *bus_resolve(uv_loop_t *uv, const struct redis_where *w, bus_resolve_fn fn, void *arg);
void bus_resolve_cancel(struct redis_resolve **r); /* NULL is fine */

/* Back-off between attempts: at once, then 50 ms doubling to 2 s, each time a random part of it. */
struct redis_backoff {
    unsigned failures;
    uint64_t ready_since_mono_ms; /* 0: not ready */
};
uint64_t bus_backoff_next_ms(struct redis_backoff *b, struct sl_loop *l);
void bus_backoff_ready(struct redis_backoff *b, struct sl_loop *l);

/* ---- one connection ---- */

struct redis_link;
/* Writes what was issued in a turn of the loop in one go, just before the loop waits for the next event. Counted: each link
 * holds a reference, memory goes with the last. */
struct redis_flusher;
struct redis_flusher *bus_flusher_new(uv_loop_t *uv);
void bus_flusher_unref(struct redis_flusher **f);

struct redis_link_config {
    struct sl_loop *loop;
    struct redis_flusher *flusher;
    const struct redis_where *where; /* borrowed for the life of the link */
    uint64_t connect_deadline_ms;    /* for connecting and checking together */
    bool pings;                      /* ask an idle server for a sign of life */
    void (*connected)(
        void *arg, struct redis_link *l); /* authenticated: check it, then bus_link_ready or bus_link_cut */
    void (*lost)(void *arg, struct redis_link *l, bool was_ready,
                 const struct sl_fail *why); /* it connects again by itself */
    void (*freed)(void *arg);                /* the last callback, after bus_link_close; may be NULL */
    void *arg;
};
struct redis_link *bus_link_open(const struct redis_link_config *cfg);
void bus_link_close(struct redis_link **l); /* pending commands settle on a later turn, then memory goes */
/* From now until the connection is lost FCALL <operation> goes out as sluice.<operation>. */
void bus_link_use_module(struct redis_link *l, bool has_module);
/* is_check: a command of the checks, allowed before bus_link_ready. */
sl_err bus_link_command(struct redis_link *l, const struct bus_args *args, uint64_t deadline_ms,
                        bool is_check, bus_reply_fn fn, void *arg) SL_MUST_CHECK;
void bus_link_ready(struct redis_link *l);
bool bus_link_is_ready(const struct redis_link *l);
/* Break the connection on the next turn; pending commands settle with err, and it connects again after the back-off. */
void bus_link_cut(struct redis_link *l, sl_err err, const char *words);
size_t bus_link_pending(const struct redis_link *l);

/* ---- replies ---- */

/* How a redisReader makes replies in one block; they are freed whole, by the same functions (never freeReplyObject). */
redisReplyObjectFunctions *bus_reply_functions(void);

/* ---- the checks after each connect ---- */

struct redis_check;
struct redis_check_config {
    unsigned partitions;
    bool require_aof;
    int64_t unix_ms;
};
enum redis_fit { REDIS_FIT, REDIS_RETRY, REDIS_UNFIT };
/* done is called once: fit with what was found; retry (loading, busy: try again later); unfit: why says what to change. */
struct redis_found {
    unsigned partitions;
    bool has_module; /* of this very build: it does what the Functions do, cheaper */
};
typedef void (*bus_check_fn)(void *arg, enum redis_fit fit, const struct redis_found *found,
                             const struct sl_fail *why);
void bus_check_start(struct redis_link *l, const struct redis_check_config *cfg, bus_check_fn done,
                     void *arg);
/* The library's text; in a test build without the lines of the mutant that is on. Caller frees. */
char *bus_functions_text(size_t *len);

/* ---- the subscribing connection ---- */

struct redis_sub;
struct redis_sub *
bus_sub_open(struct sl_loop *loop, const struct redis_where *where, uint64_t connect_deadline_ms,
             void (*on_message)(void *arg, bool is_confirm, struct sl_str channel, struct sl_str payload),
             void (*on_change)(void *arg, bool is_up), void (*freed)(void *owner), void *owner, void *arg);
void bus_sub_close(struct redis_sub *s);
void bus_sub_send(struct redis_sub *s, bool subscribe, const struct sl_str *channels, size_t count);

#endif
