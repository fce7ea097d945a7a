/* bus/partition.c - one struct part is one owned partition: its calls, its clock, its queue, its life.
 *
 * The order of things: acquire answers epoch, offset, now, numbers and relay positions, and nothing read before it is used
 * after it (part_acquire.c). Facts that were committed but not relayed are read again from the fact log. Then the command
 * log is tailed from the offset; part_pump() builds a batch (part_batch.c), commit_1 writes it (commit.c), and only then are
 * its facts relayed (relay.c) and its events forgotten.
 */
#include "bus/part_priv.h"

#include "base/metrics.h"

#include <stdlib.h>

#define SLEW_PCT 5 /* now runs at most this much faster or slower than the monotonic clock */

const char *part_tag(const struct part *p)
{
    return p->tag;
}

enum part_state part_state_now(const struct part *p)
{
    return p->state;
}

const void *part_peek(const struct part *p, const struct state_kind *kind, struct sl_str id)
{
    return p->state == PART_RUNNING ? state_cache_peek(p->cache, kind, id) : NULL;
}

int64_t part_epoch(const struct part *p)
{
    return p->epoch;
}

bool part_is_leased(const struct part *p)
{
    return p->state == PART_RUNNING &&
           sl_loop_mono_ms(part_loop(p)) - p->lease_sent_mono_ms < p->cfg.lease_ms;
}

bool part_has_deeds(const struct part *p)
{
    const struct event *deeds;
    return p->state == PART_RUNNING && p->is_committing && effects_deeds(p->fx, &deeds) > 0;
}

struct sl_loop *part_loop(const struct part *p)
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

sl_err part_send(struct part *p, const struct bus_args *args,
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

/* BAD is functions.md's, ERR a fault inside a Function, WRONGTYPE a key that holds something else. */
bool part_refuses_event(const struct sl_fail *why)
{
    struct sl_str words = sl_str_c(why->text);
    return sl_str_starts(words, "BAD ") || sl_str_starts(words, "ERR ") || sl_str_starts(words, "WRONGTYPE ");
}

static uint64_t leading_number(const char **at)
{
    uint64_t n = 0;
    for (; **at >= '0' && **at <= '9'; (*at)++)
        n = n * 10 + (uint64_t)(**at - '0');
    return n;
}

static void id_parts(const char *id, uint64_t *ms, uint64_t *seq)
{
    *ms = leading_number(&id);
    *seq = *id++ == '-' ? leading_number(&id) : 0;
}

/* "ms-seq" compared as numbers. */
int part_id_compare(const char *a, const char *b)
{
    uint64_t a_ms, a_seq, b_ms, b_seq;
    id_parts(a, &a_ms, &a_seq);
    id_parts(b, &b_ms, &b_seq);
    if (a_ms != b_ms)
        return a_ms < b_ms ? -1 : 1;
    return a_seq < b_seq ? -1 : a_seq > b_seq;
}

/* ---- the partition's clock: never runs back, slewed towards the wall clock ---- */

void part_clock_set(struct part *p, int64_t now_ms)
{
    p->now_ms = now_ms;
    p->now_fraction = 0;
    p->now_read_mono_ms = sl_loop_mono_ms(part_loop(p));
}

int64_t part_clock_now(struct part *p)
{
    uint64_t mono = sl_loop_mono_ms(part_loop(p));
    double elapsed = (double)(mono - p->now_read_mono_ms);
    double error = (double)(sl_loop_unix_ms(part_loop(p)) - p->now_ms) - elapsed;
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

void part_queue_drop_first(struct part *p)
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
        part_queue_drop_first(p);
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

void part_queue_resume(struct part *p)
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
    int64_t lag = sl_loop_unix_ms(part_loop(p)) - (int64_t)ms;
    return lag > 0 ? (uint64_t)lag : 0;
}

/* ---- states of ownership ---- */

void part_go(struct part *p, enum part_state to, const struct sl_fail *why)
{
    p->state = to;
    p->events.changed(p->arg, p, to, why);
}

void part_stop_reading(struct part *p)
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

void part_lose(struct part *p, const struct sl_fail *why)
{
    SL_COUNT("sluice_partitions_lost_total", "", "partitions that another owner took or the store refused",
             1);
    part_stop_reading(p);
    part_go(p, PART_LOST, why);
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
        .bus = cfg->bus, .loop = part_loop(p), .tag = p->tag, .moved = part_relay_moved, .arg = p};
    p->relay = relay_new(&host);
    bus_args_init(&p->commit_args);
    bus_args_init(&p->args);
    sl_buf_init(&p->encoded, 0);
    sl_buf_init(&p->batch_record, 0);
    sl_timer_init(&p->retry, part_loop(p), part_on_retry, p);
    sl_timer_init(&p->tick, part_loop(p), part_on_tick, p);
    sl_timer_init(&p->house, part_loop(p), part_on_house, p);
    sl_post_init(&p->pump_post, part_loop(p), part_on_pump, p);
    sl_post_init(&p->unsent_post, part_loop(p), part_on_unsent, p);
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
    part_stop_reading(p);
    relay_free(&p->relay);
    p->is_freed = true;
    if (p->in_flight == 0)
        part_finish(p);
}
