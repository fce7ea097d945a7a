/* bus/effects.h - what one event causes, collected without doing it; and the states that step() may see.
 *
 * What     step() asks for states, changes them, and says what follows: history entries, facts, timers,
 *          publishes. Nothing here does I/O, so a step runs the same in the router, in a unit test, in
 *          simulation and in `sluice replay`.
 * Missing  fx_state() returns NULL when the state is not at hand. step() must then return at once, having
 *          changed nothing: the machinery fetches it and runs the same event again.
 * Rule     all changes of a step happen after its last fx_state() that may fail.
 */
#ifndef BUS_EFFECTS_H
#define BUS_EFFECTS_H

#include "base/map.h"
#include "base/str.h"
#include "proto/event.h"
#include "proto/keys.h"
#include "proto/push.h"

struct state;
/* A kind of object a partition keeps: "conv", "addr", "agent", ... Objects begin with struct state. */
struct state_kind {
    const char *prefix;                                    /* key prefix: <prefix>:{tag}:<id> */
    size_t size;                                           /* of the whole object, struct state included */
    bool has_history;                                      /* log:{tag}:<id> belongs to it */
    sl_err (*decode)(struct state *s, struct sl_str json); /* fill a zeroed object from its stored form */
    void (*encode)(const struct state *s, struct sl_buf *out);
    void (*fini)(struct state *s); /* free what the object owns; may be NULL */
};
struct state {
    const struct state_kind *kind;
    char *id;
    bool exists; /* in the store, or created by an event of this batch: set by fx_changed */
    bool is_changed, is_deleted;
    uint64_t n, v;               /* numbers of the last history entry, and of the last one a visitor sees */
    struct state *newer, *older; /* the cache's own */
};

struct effects;

/* ---- for step() ---- */
/* The state, zeroed with exists=false when the store has none; NULL: not at hand, return at once. */
void *fx_state(struct effects *fx, const struct state_kind *kind, struct sl_str id);
void fx_changed(struct effects *fx, void *state); /* it will be written */
void fx_delete(struct effects *fx, void *state);  /* it and its history leave the store */
/* For kinds without a history, and without looking into the store: what stands there is of no interest.
 * fx_blank: a zeroed state with exists=false, never NULL. fx_drop: it leaves the store. */
void *fx_blank(struct effects *fx, const struct state_kind *kind, struct sl_str id);
void fx_drop(struct effects *fx, const struct state_kind *kind, struct sl_str id);
/* Append to the state's history. members is JSON members without braces: "\"at\":1,\"m\":{...}"; the entry
 * becomes
 * {"n":<n>,"v":<v>,<members>}. Returns the whole entry, valid until the next call; *n and *v get its numbers.
 */
struct sl_str fx_append(struct effects *fx, void *state, bool is_visible, struct sl_str members, uint64_t *n,
                        uint64_t *v);
/* A fact: destination "" is a record for readers of the fact log, otherwise a stream key (key_in, key_bot).
 * Copied. */
void fx_fact(struct effects *fx, struct sl_str destination, const struct event *fact);
/* Timers are (object, name, generation); setting the same again moves it. due is in the partition's now. */
void fx_timer_set(struct effects *fx, struct sl_str object, const char *name, int64_t gen, int64_t due_ms);
void fx_timer_clear(struct effects *fx, struct sl_str object, const char *name, int64_t gen);
void fx_publish(struct effects *fx, const struct key *channel, const struct push *p);
/* An id that this event makes: from its entry, the partition and an ordinal that counts up within the event.
 */
void fx_ulid(struct effects *fx, char out[27]);
/* A deed: what the partition's owner shall do outside the store, once, after the batch that says so is in the
 * store (part_events.deed). Not stored, not a record, copied: what is lost with its owner must be found by the
 * next one in the state. */
void fx_do(struct effects *fx, const struct event *deed);
int64_t fx_epoch(const struct effects *fx); /* lease epoch of the batch: an input of step() like now */
uint64_t fx_gen(const struct effects *fx);  /* generation of this partition's histories */
const char *fx_tag(const struct effects *fx);
struct sl_str fx_entry(const struct effects *fx); /* id of the event's log entry */
#define FX_FACTS_MAX 64 /* one event's facts; longer work continues by a timer of 0 ms */

/* ---- what a kind of partition gives the machinery ---- */
struct part_ops {
    const char *name; /* "conversation", "desk", "lane" */
    void (*step)(struct effects *fx, const struct event *ev, int64_t now_ms);
    /* The event could not be processed: leave a placeholder where its message would stand. dead_id names it.
     * Must be simple. */
    void (*bury)(struct effects *fx, const struct event *ev, struct sl_str reason, int64_t now_ms);
};

/* ---- for whoever runs steps: bus/partition.c, unit tests, replay ---- */
struct state_cache;
struct state_cache *state_cache_new(size_t max); /* beyond max the least recently used unchanged ones go */
void state_cache_free(struct state_cache **c);
void state_cache_clear(struct state_cache *c);
size_t state_cache_count(const struct state_cache *c);
const void *state_cache_peek(const struct state_cache *c, const struct state_kind *kind, struct sl_str id);
/* Put what the store answered: exists=false and empty json for "none". SL_EINVAL: the stored form cannot be
 * read. */
sl_err state_cache_put(struct state_cache *c, const struct state_kind *kind, struct sl_str id, bool exists,
                       struct sl_str json, uint64_t n, uint64_t v) SL_MUST_CHECK;

struct effects *effects_new(const char *tag, struct state_cache *cache,
                            bool absent_is_empty /* replay, tests: nothing is ever missing */);
void effects_free(struct effects **fx);
void effects_set_gen(struct effects *fx, uint64_t gen);
void effects_set_epoch(struct effects *fx, int64_t epoch);
/* Begin a batch; numbers of facts go on from what effects_number_set said. */
void effects_clear(struct effects *fx);
void effects_number_set(struct effects *fx, struct sl_str destination, uint64_t last);
uint64_t effects_number(struct effects *fx, struct sl_str destination);
enum fx_outcome { FX_DONE, FX_MISSING, FX_TOO_MUCH };
/* Run one event. FX_MISSING: effects_missing() says which state; nothing was changed. */
enum fx_outcome effects_run(struct effects *fx, const struct part_ops *ops, const struct event *ev,
                            int64_t now_ms);
/* The event goes to the dead letters: ops->bury leaves its placeholder (ops NULL: none), and a DEAD record
 * follows. */
enum fx_outcome effects_bury(struct effects *fx, const struct part_ops *ops, const struct event *ev,
                             struct sl_str reason, int64_t now_ms);
const struct state_kind *effects_missing(const struct effects *fx, struct sl_str *id);

struct fx_history {
    struct sl_str object, entry;
    const struct state_kind *kind;
    uint64_t n;
};
struct fx_fact_item {
    struct sl_str destination;
    uint64_t number;
    struct event event;
    struct sl_str json;
}; /* json: as it stands in out:{k} */
struct fx_timer {
    bool is_set;
    struct sl_str member;
    int64_t due_ms;
};
struct fx_push {
    struct sl_str channel, payload;
};
/* Every record and numbered fact as JSON in the order it was caused, as it stands in out:{k} (field f):
 * {"h":"<kind>:<object>","e":{entry}} for a history entry, {"e":{event}} for a record,
 * {"d":"<destination>","f":<number>,"e":{event}}. */
size_t effects_records(const struct effects *fx, const struct sl_str **out);
size_t effects_histories(const struct effects *fx, const struct fx_history **out);
size_t effects_facts(const struct effects *fx, const struct fx_fact_item **out);
size_t effects_timers(const struct effects *fx, const struct fx_timer **out);
size_t effects_pushes(const struct effects *fx, const struct fx_push **out);
size_t effects_deeds(const struct effects *fx, const struct event **out);
size_t
effects_states(const struct effects *fx,
               struct state *const **out); /* changed or deleted in this batch, in order of first change */
/* A batch ends with an event that deleted a state with a history: that must be gone before a new one begins. */
bool effects_has_deleted(const struct effects *fx);
size_t effects_bytes(const struct effects *fx);
void effects_written(
    struct effects *fx); /* the batch is in the store: changed flags go, deleted states leave the cache */
void effects_rollback(
    struct effects *fx); /* the batch is not in the store: numbers go back, the cache is emptied */
void effects_forget(
    struct effects *fx); /* another owner may have been here: everything read before is forgotten */
/* The timer's member "<object>|<name>|<gen>" taken apart; tick_1 does the same to make the event. */
sl_err effects_timer_parse(struct sl_str member, struct sl_str *object, struct sl_str *name,
                           int64_t *gen) SL_MUST_CHECK;

#endif
