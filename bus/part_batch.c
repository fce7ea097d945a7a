/* bus/part_batch.c - the next batch: fetch the states that step() asks for, step, and hand it to commit.c.
 *
 * Nothing here is written anywhere: a batch that is dropped has not happened.
 */
#include "bus/part_priv.h"

#include "base/fault.h"
#include "base/log.h"

#include <stdatomic.h>
#include <stdlib.h>

static _Atomic uint64_t stepping_since_mono_ms;
static _Atomic uint64_t steps_count;
static void (*poison_hook)(void *);
static void *poison_arg;

uint64_t part_stepping_since_mono_ms(void)
{
    return atomic_load(&stepping_since_mono_ms);
}

uint64_t part_steps_count(void)
{
    return atomic_load(&steps_count);
}

void part_set_poison_hook(void (*fn)(void *), void *arg)
{
    poison_hook = fn;
    poison_arg = arg;
}

/* ---- fetching states ---- */

/* The event needs something that the store or this version cannot give: it must not stop the partition. */
static void bury_next(struct part *p, const char *why)
{
    struct queued *q = p->next;
    q->is_bare = q->is_to_bury;
    q->is_to_bury = true;
    q->why = why;
    part_batch_drop(p);
    sl_post_now(&p->pump_post);
}

static void on_fetched(struct part *p, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    p->is_fetching = false;
    if (err == SL_EREFUSED && !part_refuses_event(why)) {
        part_lose(p, why);
        return;
    }
    if (err == SL_EREFUSED) {
        sl_log(SL_ERROR, "a state cannot be read from the store", SL_KV("partition", p->tag),
               SL_KV_FAIL(why));
        bury_next(p, "a state it needs cannot be read from the store");
        return;
    }
    if (err != SL_OK) {
        sl_timer_start(&p->retry, PART_RETRY_MS);
        return;
    }
    struct sl_str id, json = bus_value_str(bus_value_at(v, 0));
    const struct state_kind *kind = effects_missing(p->fx, &id);
    bool exists = bus_value_type(bus_value_at(v, 0)) == BUS_STR;
    if (state_cache_put(p->cache, kind, id, exists, json, (uint64_t)bus_value_int(bus_value_at(v, 1)),
                        (uint64_t)bus_value_int(bus_value_at(v, 2))) != SL_OK) {
        sl_log(SL_ERROR, "a state cannot be read by this version", SL_KV("partition", p->tag),
               SL_KV("kind", kind->prefix), SL_KV_S("id", id));
        bury_next(p, "a state it needs cannot be read by this version");
        return;
    }
    part_pump(p);
}

static void fetch(struct part *p)
{
    struct sl_str id;
    const struct state_kind *kind = effects_missing(p->fx, &id);
    struct key key = key_state(kind->prefix, p->tag, id);
    bus_args_clear(&p->args);
    bus_args_c(&p->args, "HMGET");
    bus_args_key(&p->args, &key);
    bus_args_c(&p->args, "s");
    bus_args_c(&p->args, "n");
    bus_args_c(&p->args, "v");
    if (part_send(p, &p->args, on_fetched) != SL_OK) {
        sl_timer_start(&p->retry, PART_RETRY_MS);
        return;
    }
    p->is_fetching = true;
}

/* ---- stepping ---- */

static bool is_careful(const struct part *p, const struct queued *q)
{
    return part_id_compare(q->event.entry.ptr, p->careful_until) <= 0;
}

#ifdef SL_TEST_BUILD
static void poison_check(const struct event *ev)
{
    if (!sl_str_eq_c(ev->text, "\x07poison") || !sl_fault("step.poison"))
        return;
    if (poison_hook != NULL)
        poison_hook(poison_arg);
    else
        abort();
}
#endif

static enum fx_outcome step_one(struct part *p, struct queued *q)
{
    struct sl_str reason = SL_STR_NONE;
    if (q->event.type == EVENT_NONE)
        reason = sl_str_c(q->why);
    else if (q->is_to_bury)
        reason = sl_str_c(q->why);
    else if (p->tries >= PART_TRIES_BURY && q == p->first && p->batch_count == 0)
        reason = SL_STR("it ended the process that stepped it");
    if (reason.len > 0) {
        q->is_to_bury = true;
        q->why = reason.ptr;
        return effects_bury(p->fx, q->is_bare ? NULL : p->ops, &q->event, reason, p->batch_now_ms);
    }
#ifdef SL_TEST_BUILD
    poison_check(&q->event);
#endif
    return effects_run(p->fx, p->ops, &q->event, p->batch_now_ms);
}

/* The watchdog's eyes: a step that never returns is seen from another thread. */
static enum fx_outcome step_watched(struct part *p, struct queued *q)
{
    atomic_store(&stepping_since_mono_ms, sl_loop_mono_ms(part_loop(p)));
    enum fx_outcome outcome = step_one(p, q);
    atomic_store(&stepping_since_mono_ms, 0);
    atomic_fetch_add(&steps_count, 1);
    return outcome;
}

static bool batch_is_full(struct part *p)
{
    const struct fx_fact_item *facts;
    if (p->batch_count == 0)
        return false;
    if (p->batch_count >= p->batch_limit || p->batch_last == p->batch_until ||
        effects_bytes(p->fx) >= PART_BATCH_BYTES || effects_has_deleted(p->fx))
        return true;
    if (effects_facts(p->fx, &facts) + FX_FACTS_MAX > PART_BATCH_FACTS)
        return true;
    return is_careful(p, p->first) || p->first->is_to_bury;
}

static void batch_open(struct part *p)
{
    if (p->batch_is_open)
        return;
    p->batch_is_open = true;
    p->batch_count = 0;
    p->next = p->first;
    p->batch_until = p->last;
    effects_clear(p->fx);
    p->batch_now_ms = part_clock_now(p);
}

/* A batch that cannot be written as it is: everything it did in memory is forgotten, its events are still
 * queued. */
void part_batch_drop(struct part *p)
{
    effects_rollback(p->fx);
    p->batch_is_open = false;
    p->batch_count = 0;
    p->next = p->first;
}

void part_pump(struct part *p)
{
    if (p->state != PART_RUNNING || p->is_committing || p->is_fetching || sl_timer_is_active(&p->retry))
        return;
    if (p->first == NULL || relay_backlog(p->relay) > PART_RELAY_MAX)
        return;
    batch_open(p);
    while (p->next != NULL && !batch_is_full(p)) {
        struct queued *q = p->next;
        if (p->batch_count > 0 && (is_careful(p, q) || q->event.type == EVENT_NONE || q->is_to_bury))
            break; /* it gets a commit of its own */
        switch (step_watched(p, q)) {
        case FX_MISSING:
            fetch(p);
            return;
        case FX_TOO_MUCH: /* an event with too many facts would stop the partition for ever: it is buried,
                             alone */
            q->is_bare = q->is_to_bury;
            q->is_to_bury = true;
            q->why = "it caused too many facts at once";
            part_batch_drop(p);
            sl_post_now(&p->pump_post);
            return;
        case FX_DONE:
            p->batch_count++;
            p->batch_last = q;
            p->next = q->next;
        }
    }
    part_commit_send(p);
}

void part_on_pump(void *arg)
{
    part_pump(arg);
}

void part_on_retry(void *arg)
{
    struct part *p = arg;
    if (p->state == PART_RUNNING && p->is_committing)
        part_commit_send(p);
    else
        part_pump(p);
}
