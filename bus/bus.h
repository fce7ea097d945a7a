/* bus/bus.h - one process's way to the store: Redis over hiredis, or the same store in memory for simulation.
 *
 * What     a struct bus owns a few connections (commands, blocking reads, subscriptions), reconnects by
 *          itself with jittered back-off, and on every connect checks the server (version, policy,
 *          persistence) and loads the Functions.
 * Calls    asynchronous. A call that returns SL_OK calls back exactly once, never before it returns; one that
 *          returns anything else never calls back. SL_EAGAIN: not connected, or too much in flight. In a
 *          callback SL_ETIMEOUT and SL_ECLOSED mean that the outcome is unknown: the command may have been
 *          executed, or may yet be.
 * Order    commands of one bus are executed in the order they were issued, as long as the connection lasts.
 * Values   borrowed until the callback returns.
 * Read     bus/functions.lua says what each Function checks and writes; bus/memory.c says the same in C.
 */
#ifndef BUS_BUS_H
#define BUS_BUS_H

#include "base/loop.h"
#include "base/str.h"
#include "proto/event.h"
#include "proto/keys.h"

struct bus;
struct bus_value; /* a reply: nil, integer, status, string, error or array */
enum bus_type { BUS_NIL, BUS_INT, BUS_STR, BUS_ARRAY };
enum bus_type bus_value_type(const struct bus_value *v); /* v NULL: BUS_NIL */
struct sl_str bus_value_str(const struct bus_value *v);  /* empty unless a string or status */
int64_t bus_value_int(const struct bus_value *v);        /* integers, and strings that are one; else 0 */
size_t bus_value_count(const struct bus_value *v);
const struct bus_value *bus_value_at(const struct bus_value *v, size_t i); /* NULL when out of range */

/* Arguments of a command; reuse one builder per owner. Strings are borrowed until the call returns; integers
 * and copies are kept inside. */
struct bus_args {
    size_t count, cap;
    const char **ptr;
    size_t *len;
    size_t bytes;
    struct bus_chunk *chunks; /* memory for integers and copies; addresses stay put as it grows */
    struct bus_args_same *same;
    size_t same_count, same_cap;
};
/* Argument `at` holds the bytes of the earlier argument `source`, which holds none itself, from byte `from` on. */
struct bus_args_same {
    size_t at, source, from;
};
void bus_args_init(struct bus_args *a);
void bus_args_fini(struct bus_args *a);
void bus_args_clear(struct bus_args *a);
void bus_args_str(struct bus_args *a, struct sl_str s);
static inline void bus_args_c(struct bus_args *a, const char *s)
{
    bus_args_str(a, sl_str_n(s, strlen(s))); /* here, so that a constant's length is one */
}
void bus_args_key(struct bus_args *a, const struct key *k); /* k must live until the call returns */
void bus_args_int(struct bus_args *a, int64_t v);
void bus_args_copy(struct bus_args *a, struct sl_str s); /* as str, but keeps a copy of its own */
size_t bus_args_mark(struct bus_args *a); /* reserves an argument whose value, a count, comes later */
void bus_args_set_int(struct bus_args *a, size_t at, int64_t v);
/* The last argument is one of those: where the store takes it, what is the same travels once. */
void bus_args_note_same(struct bus_args *a, size_t source, size_t from);

typedef void (*bus_reply_fn)(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why);

/* SL_OK in the callback: v is the reply and no error. Error replies are mapped: FENCED -> SL_EFENCED,
 * MOVED_OFFSET -> SL_EMOVED, GAP -> SL_EGAP, FULL/RATE -> SL_EAGAIN/SL_ERATE,
 * LOADING/BUSY/OOM/MISCONF/NOREPLICAS/READONLY/MASTERDOWN/TRYAGAIN/CLUSTERDOWN -> SL_EAGAIN (nothing was
 * executed), MOVED/ASK -> SL_EREFUSED (a cluster needs the cluster client), others -> SL_EREFUSED. why->text
 * carries the server's words. */
sl_err bus_command(struct bus *b, const struct bus_args *args, uint64_t deadline_ms, bus_reply_fn fn,
                   void *arg) SL_MUST_CHECK;
#define BUS_DEADLINE_MS   5000 /* the usual deadline of one command */
#define BUS_IN_FLIGHT_MAX 4096 /* commands without an answer on one connection; beyond it SL_EAGAIN */
/* For commands that block at the server (XREAD, XREADGROUP with BLOCK <= 1000): a connection of their own,
 * one in flight. */
struct bus_reader;
struct bus_reader *bus_reader_open(struct bus *b);
void bus_reader_close(
    struct bus_reader **r); /* a command in flight settles with SL_ECLOSED before memory goes */
sl_err bus_reader_command(struct bus_reader *r, const struct bus_args *args, uint64_t deadline_ms,
                          bus_reply_fn fn, void *arg) SL_MUST_CHECK;
void bus_reader_unblock(struct bus_reader *r); /* a blocked read returns empty at once (CLIENT UNBLOCK) */

struct bus_config {
    const char *url; /* unix:/path, redis://[user[:password]@]host:port ; password better by password below */
    const char *user, *password;
    uint64_t connect_deadline_ms, command_deadline_ms;
    unsigned partitions; /* wanted when the store is created; the store's own number counts afterwards */
    bool require_aof;    /* refuse appendonly no */
};
/* on_ready(true) after every connect that passed its checks, on_ready(false) when the connection is lost.
 * fatal: the server is there but unfit (version, eviction policy, no AOF, a cluster): *why says what to
 * change; it keeps trying. */
struct bus_events {
    void (*ready)(void *arg, bool is_ready);
    void (*unfit)(void *arg, const struct sl_fail *why);
};
/* Can cfg->url be understood? Nothing is opened. */
sl_err bus_check(const struct bus_config *cfg, struct sl_fail *why) SL_MUST_CHECK;
struct bus *bus_open(struct sl_loop *l, const struct bus_config *cfg, const struct bus_events *ev, void *arg);
void bus_close(
    struct bus **b); /* every pending call settles with SL_ECLOSED on a later turn, then memory goes */
bool bus_is_ready(const struct bus *b);
unsigned bus_partitions(const struct bus *b); /* of the store; 0 until first ready */
struct sl_loop *bus_loop(const struct bus *b);

/* Subscriptions. confirmed: the store has it, read the log now. message: a push. lost: the subscribing
 * connection changed; every subscription is being renewed and confirmed again, each reader compares its
 * cursor (jittered by the caller). */
struct bus_subscriber_ops {
    void (*confirmed)(void *arg, struct sl_str channel);
    void (*message)(void *arg, struct sl_str channel, struct sl_str payload);
    void (*lost)(void *arg);
};
struct bus_subscriber;
struct bus_subscriber *bus_subscriber_open(struct bus *b, const struct bus_subscriber_ops *ops, void *arg);
void bus_subscriber_close(struct bus_subscriber **s);
void bus_subscribe(struct bus_subscriber *s,
                   struct sl_str channel); /* channels are counted: twice needs two unsubscribes */
void bus_unsubscribe(struct bus_subscriber *s, struct sl_str channel);

/* Tail: all command logs a process owns, read by one blocking XREAD on one reader. Entries of a stream come
 * in order, each once, from the position given to add; a stream's callbacks end with remove. A stream that is
 * paused is left out of the next read. */
struct bus_tail;
struct bus_entry {
    struct sl_str id;
    size_t count; /* strings: name, value, ... */
    const struct sl_str *item;
};
typedef void (*bus_tail_fn)(void *arg, void *stream_arg, const struct bus_entry *entries, size_t count);
struct bus_tail *bus_tail_open(struct bus *b, size_t count_max, bus_tail_fn fn, void *arg);
void bus_tail_close(struct bus_tail **t);
void bus_tail_add(struct bus_tail *t, struct sl_str stream, struct sl_str after_id, void *stream_arg);
void bus_tail_remove(struct bus_tail *t, struct sl_str stream);
void bus_tail_pause(struct bus_tail *t, struct sl_str stream, bool is_paused);

/* ---- the Functions, typed. See functions.lua for keys, checks and writes. ---- */

enum bus_dedupe { BUS_BY_NUMBER, BUS_BY_ID, BUS_BY_NOTHING };
struct bus_accept {
    const char *tag; /* partition */
    enum bus_dedupe dedupe;
    struct sl_str session, target; /* BY_NUMBER: sess:{tag}:<session>[:<target>] */
    uint64_t number;
    struct sl_str id;   /* BY_ID */
    int64_t horizon_ms; /* BY_ID: how long a provider may repeat; buckets of 1 h up to 6 h, of 1 day above */
    unsigned rate_per_s, burst; /* BY_NUMBER; 0: no limit */
    const struct event *event;
};
enum bus_accepted { BUS_APPENDED, BUS_REPEAT };
struct bus_accept_result {
    enum bus_accepted how;
    struct sl_str entry; /* id in the command log; for a repeat the first one's, empty when no longer known */
    uint64_t
        last_number; /* SL_EGAP: the last number appended in this session; the client goes on from it + 1 */
};
/* err: SL_OK, SL_EGAP, SL_ERATE, SL_EAGAIN (log full, memory, store not able), SL_ETIMEOUT/SL_ECLOSED
 * (unknown: repeat it). */
typedef void (*bus_accept_fn)(void *arg, sl_err err, const struct bus_accept_result *res,
                              const struct sl_fail *why);
sl_err bus_accept(struct bus *b, const struct bus_accept *in, bus_accept_fn fn, void *arg) SL_MUST_CHECK;

/* A value, or a map, that the gateways share for one inbox (box_1). value and field are at most 65,536 bytes. */
enum bus_box_op { BUS_BOX_GET, BUS_BOX_SET, BUS_BOX_ADD, BUS_BOX_SWAP, BUS_BOX_DROP, BUS_BOX_PUT };
struct bus_box {
    enum bus_box_op op;
    struct key key; /* key_box */
    struct sl_str field, value, expected;
    int64_t ttl_ms; /* 0: it stays */
};
/* SL_OK; SL_ENOTFOUND (GET); SL_ECONFLICT with the present value (ADD, SWAP); SL_ETOOBIG; SL_EAGAIN; SL_ETIMEOUT and SL_ECLOSED:
 * it may have been written. PUT: value is the whole map, name\0value\0 ... */
typedef void (*bus_box_fn)(void *arg, sl_err err, struct sl_str value);
sl_err bus_box(struct bus *b, const struct bus_box *in, bus_box_fn fn, void *arg) SL_MUST_CHECK;

#define BUS_LOG_MAX          100000    /* entries of in:{k} beyond which accept says busy */
#define BUS_SESSION_TTL_MS   604800000 /* a session's numbering is forgotten after a week without a frame */
#define BUS_FUNCTION_LIBRARY "sluice_1"

#endif
