/* bus/partition.c - acquire, tail, step, commit; relay.c does the rest. One struct part is one owned partition.
 *
 * The order of things: acquire answers epoch, offset, now, numbers and relay positions, and nothing read
 * before it is used after it. Facts that were committed but not relayed are read again from the fact log.
 * Then the command log is tailed from the offset; pump() builds a batch, commit_1 writes it, and only then
 * are its facts relayed and its events forgotten.
 *
 * Unknown outcome: the very same commit is sent again. It is refused as "moved" exactly when the first one
 * was executed.
 */
#include "bus/part_priv.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/metrics.h"

#include <stdatomic.h>
#include <stdlib.h>

#define RETRY_MS        50
#define HOUSEKEEPING_MS 1000 /* or a third of the lease */
#define TRIM_EVERY      10   /* housekeepings */
#define TRIM_EVENTS     5000 /* or sooner: the command log has a cap */
#define RELOAD_COUNT    128
#define TICK_LIMIT      256
#define SLEW_PCT        5 /* now runs at most this much faster or slower than the monotonic clock */
#define TRIES_CAREFUL                                                                                        \
    2 /* takeovers at one offset: from the second one event a commit, at the third it is buried */
#define TRIES_BURY 3

static _Atomic uint64_t stepping_since_mono_ms;
static _Atomic uint64_t steps_count;
static void (*poison_hook)(void *);
static void *poison_arg;

static void pump(struct part *p);
static void commit_send(struct part *p);
static void reload(struct part *p);
static void batch_drop(struct part *p);
static void tick_arm(struct part *p);
static void release_acquired(struct part *p, sl_err err, const struct bus_value *v);

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

const char *part_tag(const struct part *p)
{
    return p->tag;
}

enum part_state part_state_now(const struct part *p)
{
    return p->state;
}

static struct sl_loop *loop_of(const struct part *p)
{
    return bus_loop(p->cfg.bus);
}

/* ---- calls that may outlive their partition or its lease ---- */

struct part_call {
    struct part *p;
    uint64_t era;
    void (*fn)(struct part *p, sl_err err, const struct bus_value *v, const struct sl_fail *why);
};

static void part_finish(struct part *p);

static void on_reply(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct part_call call = *(struct part_call *)arg;
    struct part *p = call.p;
    free(arg);
    p->in_flight--;
    if (p->is_freed) {
        if (p->in_flight == 0)
            part_finish(p);
        return;
    }
    if (call.era == p->era)
        call.fn(p, err, v, why);
}

static sl_err part_send(struct part *p, const struct bus_args *args,
                        void (*fn)(struct part *, sl_err, const struct bus_value *, const struct sl_fail *))
{
    struct part_call *call = sl_alloc(sizeof(*call));
    *call = (struct part_call){.p = p, .era = p->era, .fn = fn};
    sl_err err = bus_command(p->cfg.bus, args, BUS_DEADLINE_MS, on_reply, call);
    if (err != SL_OK) {
        free(call);
        return err;
    }
    p->in_flight++;
    return SL_OK;
}

void part_args_function(struct bus_args *a, const char *name, const struct key *const *keys, size_t count)
{
    bus_args_clear(a);
    bus_args_c(a, "FCALL");
    bus_args_c(a, name);
    bus_args_int(a, (int64_t)count);
    for (size_t i = 0; i < count; i++)
        bus_args_key(a, keys[i]);
}

void part_args_fence(struct part *p, struct bus_args *a)
{
    bus_args_int(a, p->epoch);
    bus_args_c(a, p->run);
}

void part_id_set(char out[48], struct sl_str id)
{
    size_t n = id.len < 47 ? id.len : 47;
    memcpy(out, id.ptr, n);
    out[n] = '\0';
}

/* "ms-seq" compared as numbers. */
static int id_compare(const char *a, const char *b)
{
    unsigned long long am = 0, as = 0, bm = 0, bs = 0;
    (void)sscanf(a, "%llu-%llu", &am, &as);
    (void)sscanf(b, "%llu-%llu", &bm, &bs);
    if (am != bm)
        return am < bm ? -1 : 1;
    return as < bs ? -1 : as > bs;
}

/* ---- the partition's clock: never runs back, slewed towards the wall clock ---- */

static void clock_set(struct part *p, int64_t now_ms)
{
    p->now_ms = now_ms;
    p->now_fraction = 0;
    p->now_read_mono_ms = sl_loop_mono_ms(loop_of(p));
}

static int64_t clock_now(struct part *p)
{
    uint64_t mono = sl_loop_mono_ms(loop_of(p));
    double elapsed = (double)(mono - p->now_read_mono_ms);
    double error = (double)(sl_loop_unix_ms(loop_of(p)) - p->now_ms) - elapsed;
    double most = elapsed * SLEW_PCT / 100.0;
    double slew = error > most ? most : error < -most ? -most : error;
    double step = elapsed + slew + p->now_fraction;
    int64_t whole = (int64_t)step;
    p->now_fraction = step - (double)whole;
    p->now_ms += whole;
    p->now_read_mono_ms = mono;
    return p->now_ms;
}

/* ---- the queue of read entries ---- */

static void queue_drop_first(struct part *p)
{
    struct queued *q = p->first;
    p->first = q->next;
    if (p->first == NULL)
        p->last = NULL;
    p->queue_count--;
    free(q);
}

static void queue_clear(struct part *p)
{
    while (p->first != NULL)
        queue_drop_first(p);
    p->next = NULL;
}

static struct queued *queued_new(const struct bus_entry *e)
{
    size_t bytes = e->id.len;
    for (size_t i = 0; i < e->count; i++)
        bytes += e->item[i].len;
    struct queued *q =
        sl_alloc(sizeof(*q) + e->count * sizeof(struct sl_str) + bytes + 1); /* the id ends with NUL */
    q->bytes = bytes;
    q->item_count = e->count;
    q->items = (struct sl_str *)(void *)(q + 1);
    char *at = (char *)(q->items + e->count);
    for (size_t i = 0; i < e->count; i++) {
        memcpy(at, e->item[i].ptr, e->item[i].len);
        q->items[i] = sl_str_n(at, e->item[i].len);
        at += e->item[i].len;
    }
    memcpy(at, e->id.ptr, e->id.len);
    struct sl_fail why = {0};
    if (event_from_fields(q->items, e->count, &q->event, &why) != SL_OK) {
        q->event = (struct event){.type = EVENT_NONE};
        q->why = "it is not an event that this version can read";
    }
    q->event.entry = sl_str_n(at, e->id.len);
    return q;
}

void part_on_entries(void *arg, void *stream_arg, const struct bus_entry *entries, size_t count)
{
    (void)arg;
    struct part *p = stream_arg;
    for (size_t i = 0; i < count; i++) {
        struct queued *q = queued_new(&entries[i]);
        if (p->last != NULL)
            p->last->next = q;
        else
            p->first = q;
        p->last = q;
        if (p->next == NULL)
            p->next = q;
        p->queue_count++;
    }
    if (p->queue_count >= PART_QUEUE_EVENTS && !p->is_paused) {
        p->is_paused = true;
        bus_tail_pause(p->cfg.tail, key_str(&p->in), true);
    }
    sl_post_now(&p->pump_post);
}

static void queue_resume(struct part *p)
{
    if (p->is_paused && p->queue_count < PART_QUEUE_EVENTS / 2) {
        p->is_paused = false;
        bus_tail_pause(p->cfg.tail, key_str(&p->in), false);
    }
}

uint64_t part_lag_ms(const struct part *p)
{
    uint64_t ms;
    if (p->first == NULL ||
        sl_str_uint(sl_str_n(p->first->event.entry.ptr, strcspn(p->first->event.entry.ptr, "-")), &ms) !=
            SL_OK)
        return 0;
    int64_t lag = sl_loop_unix_ms(loop_of(p)) - (int64_t)ms;
    return lag > 0 ? (uint64_t)lag : 0;
}

/* ---- states of ownership ---- */

static void part_go(struct part *p, enum part_state to, const struct sl_fail *why)
{
    p->state = to;
    p->events.changed(p->arg, p, to, why);
}

static void stop_reading(struct part *p)
{
    bus_tail_remove(p->cfg.tail, key_str(&p->in));
    sl_timer_stop(&p->retry);
    sl_timer_stop(&p->tick);
    sl_timer_stop(&p->house);
    sl_post_cancel(&p->pump_post);
    sl_post_cancel(&p->unsent_post);
    queue_clear(p);
    p->is_paused = p->batch_is_open = p->is_fetching = p->is_committing = p->is_housekeeping = p->is_ticking =
        false;
    p->batch_count = 0;
    relay_reset(p->relay);
    p->is_reload_needed = false;
    p->era++;
}

static void lose(struct part *p, const struct sl_fail *why)
{
    SL_COUNT("sluice_partitions_lost_total", "", "partitions that another owner took or the store refused",
             1);
    stop_reading(p);
    part_go(p, PART_LOST, why);
}

static uint64_t house_ms(const struct part *p)
{
    return p->cfg.lease_ms / 3 < HOUSEKEEPING_MS ? p->cfg.lease_ms / 3 : HOUSEKEEPING_MS;
}

/* ---- acquire ---- */

static void set_numbers(struct part *p, const struct bus_value *flat)
{
    for (size_t i = 0; i + 1 < bus_value_count(flat); i += 2)
        effects_number_set(p->fx, bus_value_str(bus_value_at(flat, i)),
                           (uint64_t)bus_value_int(bus_value_at(flat, i + 1)));
}

static void set_marks(struct part *p, const struct bus_value *flat)
{
    part_id_set(p->reload_from, SL_STR("0-0"));
    for (size_t i = 0; i + 1 < bus_value_count(flat); i += 2) {
        struct sl_str name = bus_value_str(bus_value_at(flat, i)),
                      value = bus_value_str(bus_value_at(flat, i + 1));
        if (sl_str_eq_c(name, "@"))
            part_id_set(p->reload_from, value);
        else
            relay_set_mark(p->relay, name, (uint64_t)bus_value_int(bus_value_at(flat, i + 1)));
    }
    if (relay_has_gap(p->relay))
        part_id_set(p->reload_from, SL_STR("0-0"));
}

static int64_t due_of(struct sl_str s)
{
    int64_t due;
    return s.len == 0 || sl_str_int(s, &due) != SL_OK ? INT64_MAX : due;
}

/* An offset that lies before one we wrote ourselves: the store lost data while we were not the owner, epoch included. The histories
 * need a new generation, which acquire gives to whoever says so. */
static bool is_lost_unnoticed(struct part *p, struct sl_str offset)
{
    char stored[48];
    part_id_set(stored, offset);
    return !p->was_lost && id_compare(stored, p->offset) < 0;
}

static void acquired(struct part *p, const struct bus_value *v)
{
    if (is_lost_unnoticed(p, bus_value_str(bus_value_at(v, 2)))) {
        sl_log(SL_ERROR, "the store lost data: the offset lies before what was committed here",
               SL_KV("partition", p->tag), SL_KV("ours", p->offset));
        p->was_lost = true;
        p->state = PART_LOST;
        part_acquire(p);
        return;
    }
    p->epoch = bus_value_int(bus_value_at(v, 1));
    part_id_set(p->offset, bus_value_str(bus_value_at(v, 2)));
    clock_set(p, bus_value_int(bus_value_at(v, 3)));
    if (!sl_mutant("warm-cache"))
        effects_forget(p->fx);
    effects_set_gen(p->fx, (uint64_t)bus_value_int(bus_value_at(v, 4)));
    p->tries = (unsigned)bus_value_int(bus_value_at(v, 5));
    part_id_set(p->careful_until,
                p->tries >= TRIES_CAREFUL ? bus_value_str(bus_value_at(v, 6)) : SL_STR("0-0"));
    p->next_due_ms = due_of(bus_value_str(bus_value_at(v, 7)));
    p->due_since_tick_ms = INT64_MAX;
    p->was_lost = false;
    p->batch_limit = PART_BATCH_EVENTS;
    set_numbers(p, bus_value_at(v, 8));
    set_marks(p, bus_value_at(v, 9));
    p->state = PART_LOADING;
    sl_timer_start(&p->house, house_ms(p)); /* loading may wait for a destination: the lease is kept */
    reload(p);
}

static void on_acquired(struct part *p, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct sl_fail fail;
    if (p->state == PART_RELEASING) {
        release_acquired(p, err, v);
        return;
    }
    if (err != SL_OK) {
        lose(p, why);
        return;
    }
    if (sl_str_eq_c(bus_value_str(bus_value_at(v, 0)), "ok")) {
        acquired(p, v);
        return;
    }
    (void)sl_fail_set(&fail, SL_EFENCED, 0, "partition %s is held by another router for %lld ms more", p->tag,
                      (long long)bus_value_int(bus_value_at(v, 2)));
    lose(p, &fail);
}

void part_acquire(struct part *p)
{
    sl_assert(p->state == PART_IDLE || p->state == PART_LOST);
    p->era++;
    const struct key *keys[] = {&p->meta, &p->in, &p->timers, &p->numbers, &p->relay_key};
    part_args_function(&p->args, "acquire_1", keys, 5);
    bus_args_c(&p->args, p->run);
    bus_args_int(&p->args, sl_loop_unix_ms(loop_of(p)));
    bus_args_int(&p->args, (int64_t)p->cfg.lease_ms);
    bus_args_int(&p->args, p->was_lost ? 1 : 0);
    p->state = PART_ACQUIRING;
    p->lease_sent_mono_ms = sl_loop_mono_ms(loop_of(p));
    if (part_send(p, &p->args, on_acquired) != SL_OK)
        sl_post_now(&p->unsent_post);
}

/* ---- loading: facts that were committed but perhaps not relayed are read again from the fact log ---- */

static void start_running(struct part *p)
{
    p->state = PART_RUNNING;
    bus_tail_add(p->cfg.tail, key_str(&p->in), sl_str_c(p->offset), p);
    tick_arm(p);
    relay_pump(p->relay);
    p->events.changed(p->arg, p, PART_RUNNING, NULL);
}

/* {"d":"in:{7}","f":12,"e":{...}} */
static bool fact_read(struct sl_str json, struct fx_fact_item *item, json_t **hold_outer, json_t **hold)
{
    struct sl_buf text;
    *hold = NULL;
    *hold_outer = sl_json_parse(json, NULL);
    item->destination = sl_json_get_str(*hold_outer, "d");
    item->number = (uint64_t)sl_json_get_int(*hold_outer, "f", 0);
    if (item->destination.len == 0 || item->number == 0)
        return false;
    sl_buf_init(&text, 0);
    sl_json_dump(&text, json_object_get(*hold_outer, "e"));
    sl_err err = event_from_json(sl_buf_view(&text), &item->event, hold, NULL);
    sl_buf_fini(&text);
    return err == SL_OK;
}

static void reload_entry(struct part *p, const struct bus_value *entry)
{
    struct sl_str id = bus_value_str(bus_value_at(entry, 0));
    const struct bus_value *items = bus_value_at(entry, 1);
    struct relay_batch *batch = relay_batch_begin(id);
    uint64_t epoch = 0;
    for (size_t i = 0; i + 1 < bus_value_count(items); i += 2) {
        struct sl_str name = bus_value_str(bus_value_at(items, i)),
                      value = bus_value_str(bus_value_at(items, i + 1));
        struct fx_fact_item item = {0};
        json_t *outer = NULL, *hold = NULL;
        if (sl_str_eq_c(name, "b")) {
            outer = sl_json_parse(value, NULL);
            epoch = (uint64_t)sl_json_get_int(outer, "epoch", 0);
        } else if (sl_str_starts(value, "{\"d\":") && fact_read(value, &item, &outer, &hold)) {
            relay_batch_put(p->relay, batch, epoch, &item);
        }
        json_decref(hold);
        json_decref(outer);
    }
    relay_batch_end(p->relay, batch);
    part_id_set(p->reload_from, id);
}

static void on_reloaded(struct part *p, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    if (err != SL_OK) {
        lose(p, why);
        return;
    }
    size_t count = bus_value_count(v);
    for (size_t i = 0; i < count; i++)
        reload_entry(p, bus_value_at(v, i));
    relay_pump(p->relay);
    if (count < RELOAD_COUNT)
        start_running(p);
    else
        reload(p);
}

static void reload(struct part *p)
{
    if (sl_mutant("lose-relay-position")) {
        start_running(p);
        return;
    }
    if (relay_backlog(p->relay) >
        PART_RELAY_MAX) { /* bounded: read on when some are delivered; relay_moved comes back here */
        p->is_reload_needed = true;
        return;
    }
    p->is_reload_needed = false;
    struct sl_buf from;
    sl_buf_init(&from, 0);
    sl_buf_printf(&from, "(%s", p->reload_from);
    bus_args_clear(&p->args);
    bus_args_c(&p->args, "XRANGE");
    bus_args_key(&p->args, &p->out);
    bus_args_str(&p->args, sl_buf_view(&from));
    bus_args_c(&p->args, "+");
    bus_args_c(&p->args, "COUNT");
    bus_args_int(&p->args, RELOAD_COUNT);
    sl_err err = part_send(p, &p->args, on_reloaded);
    sl_buf_fini(&from);
    if (err != SL_OK) {
        struct sl_fail fail;
        (void)sl_fail_set(&fail, err, 0, "partition %s: the store cannot be asked now", p->tag);
        lose(p, &fail);
    }
}

static void relay_moved(void *arg, bool is_gap)
{
    struct part *p = arg;
    if (is_gap) { /* the destination has less than we thought: start over from the fact log, under the same
                     lease */
        struct sl_fail fail;
        (void)sl_fail_set(&fail, SL_EGAP, 0, "partition %s: a destination lost facts; acquiring again",
                          p->tag);
        lose(p, &fail);
        return;
    }
    if (p->state == PART_LOADING && p->is_reload_needed)
        reload(p);
    else
        sl_post_now(&p->pump_post);
}

/* ---- fetching states ---- */

/* The event needs something that the store or this version cannot give: it must not stop the partition. */
static void bury_next(struct part *p, const char *why)
{
    struct queued *q = p->next;
    q->is_bare = q->is_to_bury;
    q->is_to_bury = true;
    q->why = why;
    batch_drop(p);
    sl_post_now(&p->pump_post);
}

static void on_fetched(struct part *p, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    p->is_fetching = false;
    if (err == SL_EREFUSED) {
        sl_log(SL_ERROR, "a state cannot be read from the store", SL_KV("partition", p->tag),
               SL_KV_FAIL(why));
        bury_next(p, "a state it needs cannot be read from the store");
        return;
    }
    if (err != SL_OK) {
        sl_timer_start(&p->retry, RETRY_MS);
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
    pump(p);
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
        sl_timer_start(&p->retry, RETRY_MS);
        return;
    }
    p->is_fetching = true;
}

/* ---- stepping ---- */

static bool is_careful(const struct part *p, const struct queued *q)
{
    return id_compare(q->event.entry.ptr, p->careful_until) <= 0;
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
    else if (p->tries >= TRIES_BURY && q == p->first && p->batch_count == 0)
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
    atomic_store(&stepping_since_mono_ms, sl_loop_mono_ms(loop_of(p)));
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
    p->batch_now_ms = clock_now(p);
}

/* A batch that cannot be written as it is: everything it did in memory is forgotten, its events are still
 * queued. */
static void batch_drop(struct part *p)
{
    effects_rollback(p->fx);
    p->batch_is_open = false;
    p->batch_count = 0;
    p->next = p->first;
}

static void pump(struct part *p)
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
            q->is_to_bury = true;
            q->why = "it caused too many facts at once";
            batch_drop(p);
            sl_post_now(&p->pump_post);
            return;
        case FX_DONE:
            p->batch_count++;
            p->batch_last = q;
            p->next = q->next;
        }
    }
    commit_send(p);
}

static void on_pump(void *arg)
{
    pump(arg);
}

static void on_retry(void *arg)
{
    struct part *p = arg;
    if (p->state == PART_RUNNING && p->is_committing)
        commit_send(p);
    else
        pump(p);
}

/* ---- commit ---- */

static void commit_is_written(struct part *p, struct sl_str out_id)
{
    const struct fx_fact_item *facts;
    size_t count = effects_facts(p->fx, &facts);
    p->is_committing = false;
    if (p->has_positions)
        relay_saved(p->relay, true);
    if (!sl_mutant("relay-before-commit"))
        relay_add(p->relay, out_id, (uint64_t)p->epoch, facts, count);
    effects_written(p->fx);
    SL_COUNT("sluice_commits_total", "", "batches written", 1);
    SL_COUNT("sluice_events_total", "", "events processed", p->batch_count);
    p->events_since_trim += p->batch_count;
    if (p->first->is_to_bury)
        SL_COUNT("sluice_dead_letters_total", "", "events that went to the dead letters", 1);
    memcpy(p->offset, p->new_offset, sizeof(p->offset));
    p->tries = 0;
    static uint64_t mutant_commits;
    bool is_twice = sl_mutant("commit-twice") && ++mutant_commits % 50 == 0;
    for (size_t i = 0; i < p->batch_count && !is_twice; i++)
        queue_drop_first(p);
    p->batch_is_open = false;
    p->batch_count = 0;
    p->next = p->first;
    p->batch_limit = p->batch_limit * 2 < PART_BATCH_EVENTS ? p->batch_limit * 2 : PART_BATCH_EVENTS;
    queue_resume(p);
    if (p->due_since_tick_ms < p->next_due_ms) {
        p->next_due_ms = p->due_since_tick_ms;
        tick_arm(p);
    }
    if (!p->is_ticking)
        p->due_since_tick_ms = INT64_MAX;
    relay_pump(p->relay);
    pump(p);
}

/* Refused for a reason that repeating does not cure: halve down to one event, then bury that one. */
static void commit_is_refused(struct part *p, const struct sl_fail *why)
{
    sl_log(SL_ERROR, "the store refuses a commit", SL_KV("partition", p->tag),
           SL_KV_I("events", p->batch_count), SL_KV_FAIL(why));
    SL_COUNT("sluice_commits_refused_total", "", "commits refused for good, halved until one event is left",
             1);
    p->is_committing = false;
    if (p->has_positions)
        relay_saved(p->relay, false);
    struct queued *q = p->first;
    if (p->batch_count == 1 && q->is_bare) {
        lose(p, why); /* the store takes nothing: leave the partition, acquire again later */
        return;
    }
    if (p->batch_count == 1) {
        q->is_bare = q->is_to_bury;
        q->is_to_bury = true;
        q->why = "its effects were refused by the store";
    }
    p->batch_limit = p->batch_count > 1 ? p->batch_count / 2 : 1;
    batch_drop(p);
    sl_post_now(&p->pump_post);
}

static void commit_has_moved(struct part *p, const struct sl_fail *why)
{
    const char *stored = strrchr(why->text, ' ');
    stored = stored == NULL ? "" : stored + 1;
    if (p->commit_attempts > 1 && strcmp(stored, p->new_offset) == 0) {
        commit_is_written(p, SL_STR_NONE); /* an earlier attempt was executed */
        return;
    }
    p->was_lost = id_compare(stored, p->offset) < 0;
    sl_log(SL_ERROR, "the stored offset is not ours", SL_KV("partition", p->tag), SL_KV("stored", stored),
           SL_KV("ours", p->offset));
    lose(p, why);
}

static void on_committed(struct part *p, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    if (err == SL_OK) {
        commit_is_written(p, bus_value_str(bus_value_at(v, 1)));
    } else if (err == SL_EMOVED) {
        commit_has_moved(p, why);
    } else if (err == SL_EFENCED) {
        lose(p, why);
    } else if (sl_err_retry(err) || err == SL_ECLOSED) {
        sl_timer_start(&p->retry, RETRY_MS); /* unknown or not now: the very same commit again */
    } else {
        commit_is_refused(p, why);
    }
}

static void commit_send(struct part *p)
{
    if (!p->is_committing)
        part_commit_build(p);
    if (part_send(p, &p->commit_args, on_committed) != SL_OK) {
        sl_timer_start(&p->retry, RETRY_MS);
        return;
    }
    p->commit_attempts++;
}

/* ---- timers of the partition ---- */

static void tick_arm(struct part *p)
{
    if (p->next_due_ms == INT64_MAX || p->is_ticking || p->state != PART_RUNNING)
        return;
    int64_t wait = p->next_due_ms - clock_now(p);
    sl_timer_start(&p->tick, wait > 0 ? (uint64_t)wait : 0);
}

static void on_ticked(struct part *p, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    p->is_ticking = false;
    if (err == SL_EFENCED) {
        lose(p, why);
        return;
    }
    if (err == SL_OK) {
        p->next_due_ms = due_of(bus_value_str(bus_value_at(v, 1)));
        if (p->due_since_tick_ms < p->next_due_ms)
            p->next_due_ms = p->due_since_tick_ms;
        p->due_since_tick_ms = INT64_MAX;
        tick_arm(p);
        return;
    }
    sl_timer_start(&p->tick, RETRY_MS * 2);
}

static void on_tick(void *arg)
{
    struct part *p = arg;
    if (p->state != PART_RUNNING || p->is_ticking)
        return;
    int64_t now = clock_now(p);
    if (now < p->next_due_ms) {
        tick_arm(p);
        return;
    }
    const struct key *keys[] = {&p->meta, &p->in, &p->timers};
    part_args_function(&p->args, "tick_1", keys, 3);
    part_args_fence(p, &p->args);
    bus_args_int(&p->args, now);
    bus_args_int(&p->args, TICK_LIMIT);
    if (part_send(p, &p->args, on_ticked) != SL_OK) {
        sl_timer_start(&p->tick, RETRY_MS);
        return;
    }
    p->is_ticking = true;
}

/* ---- housekeeping: the lease, relay positions, trimming ---- */

static void on_kept(struct part *p, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    (void)v;
    p->is_housekeeping = false;
    relay_saved(p->relay, err == SL_OK); /* a commit built meanwhile took no positions */
    if (err == SL_EFENCED)
        lose(p, why);
}

static void on_renewed(struct part *p, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    (void)v;
    if (err == SL_EFENCED)
        lose(p, why);
}

static void send_renew(struct part *p)
{
    const struct key *keys[] = {&p->meta};
    part_args_function(&p->args, "renew_1", keys, 1);
    part_args_fence(p, &p->args);
    bus_args_int(&p->args, (int64_t)p->cfg.lease_ms);
    if (part_send(p, &p->args, on_renewed) == SL_OK)
        p->lease_sent_mono_ms = sl_loop_mono_ms(loop_of(p));
}

static void send_positions(struct part *p)
{
    const struct key *keys[] = {&p->meta, &p->relay_key};
    part_args_function(&p->args, "relay_1", keys, 2);
    part_args_fence(p, &p->args);
    size_t at = bus_args_mark(&p->args);
    bus_args_set_int(&p->args, at, (int64_t)relay_positions(p->relay, &p->args));
    if (part_send(p, &p->args, on_kept) == SL_OK)
        p->is_housekeeping = true;
    else
        relay_saved(p->relay, false);
}

static void on_trimmed(struct part *p, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    (void)v;
    if (err == SL_EFENCED)
        lose(p, why);
}

static void send_trim(struct part *p)
{
    p->events_since_trim = 0;
    struct sl_str relayed = relay_out_position(p->relay);
    if (sl_mutant("trim-too-far") && p->last != NULL) {
        bus_args_clear(&p->args);
        bus_args_c(&p->args, "XTRIM");
        bus_args_key(&p->args, &p->in);
        bus_args_c(&p->args, "MINID");
        bus_args_str(&p->args, p->last->event.entry);
        (void)!part_send(p, &p->args, on_trimmed);
        return;
    }
    if (relayed.len == 0)
        return;
    const struct key *keys[] = {&p->meta, &p->in, &p->out, &p->tails, &p->relay_key};
    part_args_function(&p->args, "trim_1", keys, 5);
    part_args_fence(p, &p->args);
    bus_args_copy(&p->args, relayed);
    (void)!part_send(p, &p->args, on_trimmed);
}

static void on_house(void *arg)
{
    struct part *p = arg;
    if (p->state != PART_RUNNING && p->state != PART_LOADING)
        return;
    sl_timer_start(&p->house, house_ms(p));
    if (!p->is_committing && !p->is_housekeeping && relay_is_dirty(p->relay))
        send_positions(p);
    if (sl_loop_mono_ms(loop_of(p)) - p->lease_sent_mono_ms >= p->cfg.lease_ms / 3)
        send_renew(p);
    if (++p->housekeepings % TRIM_EVERY == 0 || p->events_since_trim > TRIM_EVENTS ||
        sl_mutant("trim-too-far"))
        send_trim(p);
}

/* ---- release ---- */

static void on_released(struct part *p, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    (void)err, (void)v, (void)why; /* if it failed, the lease runs out by itself */
    stop_reading(p);
    part_go(p, PART_IDLE, NULL);
}

static void send_release(struct part *p)
{
    const struct key *keys[] = {&p->meta, &p->relay_key};
    part_args_function(&p->args, "release_1", keys, 2);
    part_args_fence(p, &p->args);
    size_t at = bus_args_mark(&p->args);
    bus_args_set_int(&p->args, at, (int64_t)relay_positions(p->relay, &p->args));
    if (part_send(p, &p->args, on_released) != SL_OK)
        sl_post_now(&p->unsent_post);
}

/* The lease came after it was given up: it goes back at once, or others would wait until it ends. */
static void release_acquired(struct part *p, sl_err err, const struct bus_value *v)
{
    if (err != SL_OK || !sl_str_eq_c(bus_value_str(bus_value_at(v, 0)), "ok")) {
        on_released(p, err, NULL, NULL);
        return;
    }
    p->epoch = bus_value_int(bus_value_at(v, 1));
    send_release(p);
}

/* An acquire or a release could not even be sent; told here, since neither calls back before it returns. */
static void on_unsent(void *arg)
{
    struct part *p = arg;
    struct sl_fail fail;
    if (p->state == PART_RELEASING) {
        on_released(p, SL_ECLOSED, NULL, NULL);
        return;
    }
    (void)sl_fail_set(&fail, SL_EAGAIN, 0, "partition %s: the store cannot be asked now", p->tag);
    lose(p, &fail);
}

void part_release(struct part *p)
{
    if (p->state == PART_IDLE || p->state == PART_LOST || p->state == PART_RELEASING)
        return;
    bool is_acquiring = p->state == PART_ACQUIRING;
    p->state = PART_RELEASING;
    if (is_acquiring)
        return; /* on_acquired or on_unsent goes on */
    /* A commit in flight may still be executed: it was sent before the release on the same connection, so it
     * comes first. Its answer is not awaited: the next owner reads the offset. */
    p->era++; /* answers to what was sent before count for nothing now */
    relay_saved(p->relay, false);
    bus_tail_remove(p->cfg.tail, key_str(&p->in));
    send_release(p);
}

/* ---- life ---- */

static void on_appended(struct part *p, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    (void)v, (void)why;
    if (p->events.appended != NULL)
        p->events.appended(p->arg, p, err);
}

sl_err part_append(struct part *p, const struct event *ev)
{
    struct event_fields fields;
    event_to_fields(ev, &fields);
    bus_args_clear(&p->args);
    bus_args_c(&p->args, "XADD");
    bus_args_key(&p->args, &p->in);
    bus_args_c(&p->args, "*");
    for (size_t i = 0; i < fields.count; i++)
        bus_args_str(&p->args, fields.item[i]);
    return part_send(p, &p->args, on_appended);
}

struct part *part_new(const struct part_config *cfg, const char *tag, const struct part_ops *ops,
                      const struct part_events *ev, void *arg)
{
    struct part *p = sl_alloc(sizeof(*p));
    p->cfg = *cfg;
    p->ops = ops;
    p->events = *ev;
    p->arg = arg;
    sl_assert(strlen(tag) < sizeof(p->tag) && cfg->run.len < sizeof(p->run));
    memcpy(p->tag, tag, strlen(tag) + 1);
    memcpy(p->run, cfg->run.ptr, cfg->run.len);
    p->in = key_in(tag), p->out = key_out(tag), p->meta = key_meta(tag), p->timers = key_timers(tag);
    p->numbers = key_numbers(tag), p->relay_key = key_relay(tag), p->tails = key_tails(tag),
    p->dead = key_dead(tag);
    p->cache = state_cache_new(cfg->cache_max);
    p->fx = effects_new(tag, p->cache, false);
    struct relay_host host = {
        .bus = cfg->bus, .loop = loop_of(p), .tag = p->tag, .moved = relay_moved, .arg = p};
    p->relay = relay_new(&host);
    bus_args_init(&p->commit_args);
    bus_args_init(&p->args);
    sl_buf_init(&p->encoded, 0);
    sl_buf_init(&p->batch_record, 0);
    sl_timer_init(&p->retry, loop_of(p), on_retry, p);
    sl_timer_init(&p->tick, loop_of(p), on_tick, p);
    sl_timer_init(&p->house, loop_of(p), on_house, p);
    sl_post_init(&p->pump_post, loop_of(p), on_pump, p);
    sl_post_init(&p->unsent_post, loop_of(p), on_unsent, p);
    return p;
}

static void part_finish(struct part *p)
{
    bus_args_fini(&p->commit_args);
    bus_args_fini(&p->args);
    sl_buf_fini(&p->encoded);
    sl_buf_fini(&p->batch_record);
    effects_free(&p->fx);
    state_cache_free(&p->cache);
    free(p);
}

void part_free(struct part **pp)
{
    struct part *p = *pp;
    *pp = NULL;
    if (p == NULL)
        return;
    stop_reading(p);
    relay_free(&p->relay);
    p->is_freed = true;
    if (p->in_flight == 0)
        part_finish(p);
}
