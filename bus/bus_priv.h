/* bus/bus_priv.h - what a store must give so that all above is the same code over both stores.
 *
 * What     two implementations: redis.c (hiredis on libuv) and memory.c (for simulation). bus.h's functions
 *          dispatch here.
 * Values   struct bus_value is hiredis's redisReply under another name, so replies are never copied; memory.c
 *          builds the same.
 */
#ifndef BUS_BUS_PRIV_H
#define BUS_BUS_PRIV_H

#include "bus/bus.h"

#include <hiredis/hiredis.h>

struct bus_impl {
    sl_err (*command)(struct bus *b, const struct bus_args *args, uint64_t deadline_ms, bus_reply_fn fn,
                      void *arg);
    void *(*reader_open)(struct bus *b);
    void (*reader_close)(void *reader);
    sl_err (*reader_command)(void *reader, const struct bus_args *args, uint64_t deadline_ms, bus_reply_fn fn,
                             void *arg);
    void (*reader_unblock)(void *reader);
    /* One subscribing connection a subscriber; the list of wanted channels is kept above (subscriber.c).
     * on_message is called for "subscribe" confirmations (is_confirm) and messages; on_change when the
     * connection was lost (up=false) or is there (up=true): then subscriber.c subscribes to everything again.
     */
    void *(*sub_open)(struct bus *b,
                      void (*on_message)(void *arg, bool is_confirm, struct sl_str channel,
                                         struct sl_str payload),
                      void (*on_change)(void *arg, bool is_up), void *arg);
    void (*sub_close)(void *sub);
    void (*sub_send)(void *sub, bool subscribe, const struct sl_str *channels, size_t count);
    void (*close)(struct bus *b);
};
/* Every implementation's struct begins with this. */
struct bus {
    const struct bus_impl *impl;
    struct sl_loop *loop;
    struct bus_events events;
    void *events_arg;
    unsigned partitions;
    bool is_ready;
};

#define BUS_MODULE_PREFIX "sluice."                      /* of the commands of module/module.c */
#define BUS_MODULE_GONE   "ERR unknown command 'sluice." /* the server was restarted without it */

/* redis.c and memory.c turn an error reply into an sl_err with words; NULL or a value without error: SL_OK.
 * value.c. */
sl_err bus_reply_error(const redisReply *r, struct sl_fail *why);

/* ---- in memory, for simulation (memory.c) ---- */
struct memory_store; /* the "Redis" of one simulation: keys, streams, functions, subscriptions */
/* Requests and replies lie in queues until the simulation's scheduler moves them, so it decides every
 * interleaving. */
struct memory_store *memory_store_new(uint64_t seed);
void memory_store_free(struct memory_store **s);
void memory_store_clock(struct memory_store *s, int64_t unix_ms); /* Redis TIME */
/* A bus of process `process` (a number of the simulation's). */
struct bus *memory_bus_open(struct memory_store *s, unsigned process, struct sl_loop *l,
                            const struct bus_config *cfg, const struct bus_events *ev, void *arg);
/* One action of the store: execute a request that has arrived, or hand a reply or message to `process`. The
 * scheduler picks. */
size_t memory_pending_requests(const struct memory_store *s);
void memory_execute(struct memory_store *s, size_t which); /* keeps the order within a connection */
size_t memory_pending_replies(const struct memory_store *s, unsigned process);
void memory_reply(struct memory_store *s, unsigned process, size_t which); /* runs that process's callback */
void memory_cut(struct memory_store *s,
                unsigned process); /* its connections break: callbacks get SL_ECLOSED; requests that
                                      were sent stay and may still be executed */
void memory_kill(struct memory_store *s,
                 unsigned process);          /* the process is gone: nothing is called back, requests stay */
void memory_restart(struct memory_store *s); /* the store crashes and comes back: all connections break,
                                                nothing is lost (AOF always) */
void memory_lose_pushes(struct memory_store *s,
                        unsigned per_thousand); /* drop that share of published messages */
/* Look inside, for the checker: a plain command, executed at once. The reply is owned by the store until the
 * next peek. */
const struct bus_value *memory_peek(struct memory_store *s, const struct bus_args *args);

#endif
