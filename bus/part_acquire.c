/* bus/part_acquire.c - how a partition is taken, kept and given back: acquire, loading, timers, housekeeping, release.
 *
 * Loading reads facts again that were committed but perhaps not relayed, so it may have to wait for their destinations; the
 * lease is kept meanwhile.
 */
#include "bus/part_priv.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/metrics.h"

#define HOUSEKEEPING_MS 1000 /* or a third of the lease */
#define TRIM_EVERY      10   /* housekeepings */
#define TRIM_EVENTS     5000 /* or sooner: the command log has a cap */
#define RELOAD_COUNT    128
#define TICK_LIMIT      256

static void reload(struct part *p);
static void release_acquired(struct part *p, sl_err err, const struct bus_value *v);

/* ---- acquire ---- */

static uint64_t house_ms(const struct part *p)
{
    return p->cfg.lease_ms / 3 < HOUSEKEEPING_MS ? p->cfg.lease_ms / 3 : HOUSEKEEPING_MS;
}

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
    return !p->was_lost && part_id_compare(stored, p->offset) < 0;
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
    part_clock_set(p, bus_value_int(bus_value_at(v, 3)));
    if (!sl_mutant("warm-cache"))
        effects_forget(p->fx);
    effects_set_gen(p->fx, (uint64_t)bus_value_int(bus_value_at(v, 4)));
    effects_set_epoch(p->fx, p->epoch);
    p->tries = (unsigned)bus_value_int(bus_value_at(v, 5));
    part_id_set(p->careful_until,
                p->tries >= PART_TRIES_CAREFUL ? bus_value_str(bus_value_at(v, 6)) : SL_STR("0-0"));
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
        part_lose(p, why);
        return;
    }
    if (sl_str_eq_c(bus_value_str(bus_value_at(v, 0)), "ok")) {
        acquired(p, v);
        return;
    }
    (void)sl_fail_set(&fail, SL_EFENCED, 0, "partition %s is held by another router for %lld ms more", p->tag,
                      (long long)bus_value_int(bus_value_at(v, 2)));
    part_lose(p, &fail);
}

void part_acquire(struct part *p)
{
    sl_assert(p->state == PART_IDLE || p->state == PART_LOST);
    p->era++;
    const struct key *keys[] = {&p->meta, &p->in, &p->timers, &p->numbers, &p->relay_key};
    part_args_function(&p->args, "acquire_1", keys, 5);
    bus_args_c(&p->args, p->run);
    bus_args_int(&p->args, sl_loop_unix_ms(part_loop(p)));
    bus_args_int(&p->args, (int64_t)p->cfg.lease_ms);
    bus_args_int(&p->args, p->was_lost ? 1 : 0);
    p->state = PART_ACQUIRING;
    p->lease_sent_mono_ms = sl_loop_mono_ms(part_loop(p));
    if (part_send(p, &p->args, on_acquired) != SL_OK)
        sl_post_now(&p->unsent_post);
}

/* ---- loading: facts that were committed but perhaps not relayed are read again from the fact log ---- */

static void start_running(struct part *p)
{
    p->state = PART_RUNNING;
    bus_tail_add(p->cfg.tail, key_str(&p->in), sl_str_c(p->offset), p);
    part_tick_arm(p);
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

/* Of a later version, perhaps. Who can read it must still find it, so the place before it is not passed. */
static void fact_is_unreadable(struct part *p, struct sl_str id, struct relay_batch *batch)
{
    SL_COUNT("sluice_facts_unreadable_total", "", "facts in a fact log that this version cannot read", 1);
    sl_log(SL_ERROR, "a fact cannot be read by this version: its destination has to wait",
           SL_KV("partition", p->tag), SL_KV_S("entry", id));
    relay_batch_hold(batch);
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
        } else if (sl_str_starts(value, "{\"d\":")) {
            if (fact_read(value, &item, &outer, &hold))
                relay_batch_put(p->relay, batch, epoch, &item);
            else
                fact_is_unreadable(p, id, batch);
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
        part_lose(p, why);
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
        PART_RELAY_MAX) { /* bounded: read on when some are delivered; part_relay_moved comes back here */
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
        part_lose(p, &fail);
    }
}

void part_relay_moved(void *arg, bool is_gap)
{
    struct part *p = arg;
    if (is_gap) { /* the destination has less than we thought: start over from the fact log, under the same
                     lease */
        struct sl_fail fail;
        (void)sl_fail_set(&fail, SL_EGAP, 0, "partition %s: a destination lost facts; acquiring again",
                          p->tag);
        part_lose(p, &fail);
        return;
    }
    if (p->state == PART_LOADING && p->is_reload_needed)
        reload(p);
    else
        sl_post_now(&p->pump_post);
}

/* ---- timers of the partition ---- */

void part_tick_arm(struct part *p)
{
    if (p->next_due_ms == INT64_MAX || p->is_ticking || p->state != PART_RUNNING)
        return;
    int64_t wait = p->next_due_ms - part_clock_now(p);
    sl_timer_start(&p->tick, wait > 0 ? (uint64_t)wait : 0);
}

static void on_ticked(struct part *p, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    p->is_ticking = false;
    if (err == SL_EFENCED) {
        part_lose(p, why);
        return;
    }
    if (err == SL_OK) {
        p->next_due_ms = due_of(bus_value_str(bus_value_at(v, 1)));
        if (p->due_since_tick_ms < p->next_due_ms)
            p->next_due_ms = p->due_since_tick_ms;
        p->due_since_tick_ms = INT64_MAX;
        part_tick_arm(p);
        return;
    }
    sl_timer_start(&p->tick, PART_RETRY_MS * 2);
}

void part_on_tick(void *arg)
{
    struct part *p = arg;
    if (p->state != PART_RUNNING || p->is_ticking)
        return;
    int64_t now = part_clock_now(p);
    if (now < p->next_due_ms) {
        part_tick_arm(p);
        return;
    }
    const struct key *keys[] = {&p->meta, &p->in, &p->timers};
    part_args_function(&p->args, "tick_1", keys, 3);
    part_args_fence(p, &p->args);
    bus_args_int(&p->args, now);
    bus_args_int(&p->args, TICK_LIMIT);
    if (part_send(p, &p->args, on_ticked) != SL_OK) {
        sl_timer_start(&p->tick, PART_RETRY_MS);
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
        part_lose(p, why);
}

static void on_renewed(struct part *p, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    (void)v;
    if (err == SL_EFENCED)
        part_lose(p, why);
}

static void send_renew(struct part *p)
{
    const struct key *keys[] = {&p->meta};
    part_args_function(&p->args, "renew_1", keys, 1);
    part_args_fence(p, &p->args);
    bus_args_int(&p->args, (int64_t)p->cfg.lease_ms);
    if (part_send(p, &p->args, on_renewed) == SL_OK)
        p->lease_sent_mono_ms = sl_loop_mono_ms(part_loop(p));
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
        part_lose(p, why);
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

void part_on_house(void *arg)
{
    struct part *p = arg;
    if (p->state != PART_RUNNING && p->state != PART_LOADING)
        return;
    sl_timer_start(&p->house, house_ms(p));
    if (!p->is_committing && !p->is_housekeeping && relay_is_dirty(p->relay))
        send_positions(p);
    if (sl_loop_mono_ms(part_loop(p)) - p->lease_sent_mono_ms >= p->cfg.lease_ms / 3)
        send_renew(p);
    if (++p->housekeepings % TRIM_EVERY == 0 || p->events_since_trim > TRIM_EVENTS ||
        sl_mutant("trim-too-far"))
        send_trim(p);
}

/* ---- release ---- */

static void on_released(struct part *p, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    (void)err, (void)v, (void)why; /* if it failed, the lease runs out by itself */
    part_stop_reading(p);
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
void part_on_unsent(void *arg)
{
    struct part *p = arg;
    struct sl_fail fail;
    if (p->state == PART_RELEASING) {
        on_released(p, SL_ECLOSED, NULL, NULL);
        return;
    }
    (void)sl_fail_set(&fail, SL_EAGAIN, 0, "partition %s: the store cannot be asked now", p->tag);
    part_lose(p, &fail);
}

void part_release(struct part *p)
{
    if (p->state == PART_IDLE || p->state == PART_LOST || p->state == PART_RELEASING)
        return;
    bool is_acquiring = p->state == PART_ACQUIRING;
    p->state = PART_RELEASING;
    if (is_acquiring)
        return; /* on_acquired or part_on_unsent goes on */
    /* A commit in flight may still be executed: it was sent before the release on the same connection, so it
     * comes first. Its answer is not awaited: the next owner reads the offset. */
    p->era++; /* answers to what was sent before count for nothing now */
    relay_saved(p->relay, false);
    bus_tail_remove(p->cfg.tail, key_str(&p->in));
    send_release(p);
}
