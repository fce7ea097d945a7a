/* bus/part_priv.h - a partition's insides, shared by partition.c, part_acquire.c, part_batch.c, commit.c and relay.c. */
#ifndef BUS_PART_PRIV_H
#define BUS_PART_PRIV_H

#include "bus/partition.h"

/* ---- relay.c: committed facts on their way to other logs ---- */

struct relay;
struct relay_host {
    struct bus *bus;
    struct sl_loop *loop;
    const char *tag;
    /* A mark moved or a gap was found; is_gap: facts must be read again from the fact log. */
    void (*moved)(void *arg, bool is_gap);
    void *arg;
};
struct relay *relay_new(const struct relay_host *host);
void relay_free(struct relay **r); /* callbacks in flight settle into nothing */
void relay_reset(struct relay *r); /* forget everything: before an acquire */
void relay_set_mark(struct relay *r, struct sl_str destination, uint64_t number); /* delivered up to here */
/* One committed batch: out_id is its entry in the fact log. Facts without destination are ignored, those at
 * or below the mark too. */
void relay_add(struct relay *r, struct sl_str out_id, uint64_t epoch, const struct fx_fact_item *facts,
               size_t count);
/* The same in pieces: the entry's place is not passed before end, and end takes it. */
struct relay_batch;
struct relay_batch *relay_batch_begin(struct sl_str out_id);
void relay_batch_put(struct relay *r, struct relay_batch *b, uint64_t epoch, const struct fx_fact_item *fact);
void relay_batch_hold(
    struct relay_batch *b); /* something in it will not get out: its place is never passed */
void relay_batch_end(struct relay *r, struct relay_batch *b);
/* Nothing is queued or in flight for it, so the next fact may go along in the commit that causes it. */
bool relay_is_clear(const struct relay *r, struct sl_str destination);
/* It went along: count facts up to number are there. Before relay_add, which then leaves them out. */
void relay_delivered(struct relay *r, struct sl_str destination, uint64_t number, size_t count);
int64_t relay_trim_ms(struct sl_str destination); /* how long its entries are kept; 0: no limit in time */
void relay_pump(struct relay *r);
size_t relay_backlog(const struct relay *r);
size_t relay_batches(const struct relay *r); /* entries of the fact log that are held */
bool relay_is_idle(const struct relay *r);   /* nothing queued, nothing in flight */
/* Positions that changed since the last relay_saved: (destination, number) pairs and ("@", out id) into args;
 * returns how many. */
size_t relay_positions(struct relay *r, struct bus_args *args);
void relay_saved(struct relay *r,
                 bool is_saved); /* the positions of the last call are in the store, or are not */
/* A destination was found to have less than was thought: the fact log is to be read from its beginning. */
bool relay_has_gap(const struct relay *r);
bool relay_is_dirty(const struct relay *r);
struct sl_str
relay_out_position(const struct relay *r); /* everything up to this out entry was relayed; empty: unknown */

/* ---- one partition ---- */

struct queued {
    struct queued *next;
    struct event event; /* type EVENT_NONE: it could not be read; why says how */
    const char *why;
    size_t bytes, item_count;
    struct sl_str *items; /* the entry as it stands in the log; bytes follow in the same block */
    bool is_to_bury;      /* it goes to the dead letters unstepped, with a placeholder in the history */
    bool is_bare;         /* not even the placeholder can be written: only the record and the dead letter */
};

#define PART_DELIVERIES_MAX     8  /* destinations whose facts go along in one commit */
#define PART_DELIVERY_FACTS_MAX 64 /* for one of them; the rest is relayed */
struct part_delivery {
    struct sl_str destination; /* the batch's */
    uint64_t first;
    size_t count;
};

struct part {
    struct part_config cfg;
    struct part_events events;
    void *arg;
    char tag[KEY_TAG_MAX_BYTES];
    const struct part_ops *ops;
    enum part_state state;
    struct key in, out, meta, timers, numbers, relay_key, tails, dead;

    char run[27];
    int64_t epoch;
    char offset[48], new_offset[48];
    bool was_lost; /* the offset moved back: tell the next acquire that data was lost */
    unsigned tries;
    char careful_until[48]; /* one event a commit up to this entry */

    int64_t now_ms;       /* the partition's clock */
    int64_t batch_now_ms; /* of the open batch: the clock may go on while a state is fetched (I12) */
    double now_fraction;
    uint64_t now_read_mono_ms;

    struct queued *first, *last;
    struct queued *next; /* the first that is not in the open batch; NULL: none */
    size_t queue_count;
    bool is_paused;

    struct state_cache *cache;
    struct effects *fx;
    size_t batch_count, batch_limit; /* events in the open batch, counted from first */
    struct queued *batch_last;
    struct queued
        *batch_until; /* what comes after the batch was opened has a later now: it is not taken in */
    bool batch_is_open, is_fetching, is_committing, is_housekeeping;
    bool has_positions; /* the commit in flight carries relay positions */
    unsigned commit_attempts;
    struct bus_args commit_args, args;
    size_t first_entry_arg; /* of commit_args: the first history entry */
    struct sl_buf encoded, batch_record;

    struct part_delivery delivery[PART_DELIVERIES_MAX]; /* of the commit in flight */
    size_t deliveries;

    struct relay *relay;
    char reload_from[48];
    bool is_reload_needed;

    int64_t next_due_ms, due_since_tick_ms; /* INT64_MAX: none */
    bool is_ticking;
    unsigned housekeepings;
    size_t events_since_trim;
    uint64_t lease_sent_mono_ms;

    struct sl_timer retry, tick, house;
    struct sl_post pump_post, unsent_post;
    unsigned in_flight; /* callbacks still to come */
    bool is_freed;
    uint64_t era; /* raised by every acquire: older answers count for nothing */
};

#define PART_RETRY_MS      50
#define PART_TRIES_CAREFUL 2 /* takeovers at one offset: from the second one event a commit, ... */
#define PART_TRIES_BURY    3 /* ... at the third it is buried */

/* ---- partition.c ---- */
struct sl_loop *part_loop(const struct part *p);
/* A command whose answer counts only in this era, and settles into nothing when p was freed. */
sl_err part_send(struct part *p, const struct bus_args *args,
                 void (*fn)(struct part *, sl_err, const struct bus_value *,
                            const struct sl_fail *)) SL_MUST_CHECK;
/* FCALL name with its keys; arguments follow. */
void part_args_function(struct bus_args *a, const char *name, const struct key *const *keys, size_t count);
void part_args_fence(struct part *p, struct bus_args *a);
void part_id_set(char out[48], struct sl_str id);
/* Is a refusal about what was asked (so that an event may have to be buried), and not about the surroundings: a cluster that
 * moved, a password, a right? Those pass, and must cost no event. */
bool part_refuses_event(const struct sl_fail *why);
int part_id_compare(const char *a, const char *b); /* "ms-seq", as numbers */
void part_clock_set(struct part *p, int64_t now_ms);
int64_t part_clock_now(struct part *p); /* never runs back */
void part_queue_drop_first(struct part *p);
void part_queue_resume(struct part *p); /* the tail goes on when there is room */
void part_go(struct part *p, enum part_state to, const struct sl_fail *why);
void part_stop_reading(struct part *p); /* whatever was begun is forgotten, and a new era begins */
void part_lose(struct part *p, const struct sl_fail *why);

/* ---- part_acquire.c ---- */
void part_relay_moved(void *arg, bool is_gap);
void part_tick_arm(struct part *p); /* the timer for the next due deadline */
void part_on_tick(void *arg);
void part_on_house(void *arg);
void part_on_unsent(void *arg);

/* ---- part_batch.c ---- */
void part_pump(struct part *p); /* begin or go on with a batch, if that is possible now */
/* A batch that cannot be written as it is: everything it did in memory is forgotten, its events are still queued. */
void part_batch_drop(struct part *p);
void part_on_pump(void *arg);
void part_on_retry(void *arg);

/* ---- commit.c ---- */
/* Send the open batch, or the commit that is under way once more, as it was. */
void part_commit_send(struct part *p);

#endif
