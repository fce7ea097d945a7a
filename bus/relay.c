/* bus/relay.c - committed facts become entries of other logs, exactly once and in order.
 *
 * A fact has a number without gaps per (partition, destination). The destination's mark decides: the next
 * number is appended, an earlier one is dropped, a later one is refused. So after any doubt the same facts
 * are simply sent again.
 */
#include "bus/part_priv.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/map.h"
#include "base/metrics.h"

#include <stdlib.h>

#define DELIVER_FACTS_MAX 64
#define DELIVER_RETRY_MS  100
#define HOLE_RETRY_MS     5000 /* a destination that lost facts which the fact log has not either */
#define BATCHES_SPARE     64   /* entries held beyond twice the facts that wait */
#define BOT_TASK_KEEP_MS                                                                                     \
    600000 /* bot streams are trimmed to the longest turn deadline: an older answer would be refused anyway  \
            */

/* One entry of the fact log that has facts still to be delivered. */
struct relay_batch {
    struct relay_batch *next;
    size_t open; /* facts not yet delivered */
    char out_id[48];
};

struct relay_fact {
    struct relay_fact *next;
    struct relay_batch *batch;
    uint64_t number, epoch;
    size_t item_count;
    struct sl_str *items; /* name, value ...; bytes follow in the same block */
};

struct relay_lane { /* one destination */
    struct relay *relay;
    char *destination;
    uint64_t mark;         /* delivered up to here */
    uint64_t sent_through; /* the last number of the call in flight */
    struct relay_fact *first, *last;
    bool is_sending, is_dirty, is_saving;
    struct sl_timer retry;
};

struct relay {
    struct relay_host host;
    struct sl_map *lanes;
    struct sl_map *gaps; /* destination -> struct relay_gap; outlives a reset, for what comes after it */
    struct relay_batch *first, *last;
    size_t batches, backlog;
    char position[48]; /* out id up to which all is delivered */
    bool position_dirty, position_saving;
    unsigned in_flight; /* callbacks still to come */
    bool is_freed;
    uint64_t era; /* answers from before a reset count for nothing */
    struct bus_args args;
};

struct relay_gap { /* the destination said that it has less than we thought */
    uint64_t mark;
};

struct relay_call {
    struct relay *relay;
    uint64_t era;
    struct relay_lane *lane; /* valid only in the same era */
};

static void lane_pump(struct relay_lane *lane);

static void on_retry(void *arg)
{
    lane_pump(arg);
}

static struct relay_lane *lane_of(struct relay *r, struct sl_str destination)
{
    struct relay_lane *lane = sl_map_get(r->lanes, destination);
    if (lane != NULL)
        return lane;
    lane = sl_alloc(sizeof(*lane));
    lane->relay = r;
    lane->destination = sl_str_dup(destination);
    sl_timer_init(&lane->retry, r->host.loop, on_retry, lane);
    (void)sl_map_set(r->lanes, destination, lane);
    return lane;
}

struct relay *relay_new(const struct relay_host *host)
{
    struct relay *r = sl_alloc(sizeof(*r));
    r->host = *host;
    r->lanes = sl_map_new();
    r->gaps = sl_map_new();
    bus_args_init(&r->args);
    return r;
}

static void lane_free(struct relay_lane *lane)
{
    while (lane->first != NULL) {
        struct relay_fact *f = lane->first;
        lane->first = f->next;
        free(f);
    }
    sl_timer_stop(&lane->retry);
    free(lane->destination);
    free(lane);
}

void relay_reset(struct relay *r)
{
    struct sl_str key;
    void *lane;
    for (size_t i = 0; sl_map_next(r->lanes, &i, &key, &lane);)
        lane_free(lane);
    sl_map_free(&r->lanes);
    r->lanes = sl_map_new();
    while (r->first != NULL) {
        struct relay_batch *b = r->first;
        r->first = b->next;
        free(b);
    }
    r->last = NULL;
    r->batches = r->backlog = 0;
    r->position[0] = '\0';
    r->position_dirty = r->position_saving = false;
    r->era++;
}

static void gap_forget(struct relay *r, struct sl_str destination)
{
    free(sl_map_del(r->gaps, destination));
}

static void gap_note(struct relay *r, struct sl_str destination, uint64_t mark)
{
    struct relay_gap *g = sl_alloc(sizeof(*g));
    g->mark = mark;
    free(sl_map_set(r->gaps, destination, g));
}

bool relay_has_gap(const struct relay *r)
{
    return sl_map_count(r->gaps) > 0;
}

static void relay_finish(struct relay *r)
{
    struct sl_str key;
    void *gap;
    for (size_t i = 0; sl_map_next(r->gaps, &i, &key, &gap);)
        free(gap);
    sl_map_free(&r->gaps);
    sl_map_free(&r->lanes);
    bus_args_fini(&r->args);
    free(r);
}

void relay_free(struct relay **pr)
{
    struct relay *r = *pr;
    *pr = NULL;
    if (r == NULL)
        return;
    relay_reset(r);
    r->is_freed = true;
    if (r->in_flight == 0)
        relay_finish(r);
}

void relay_set_mark(struct relay *r, struct sl_str destination, uint64_t number)
{
    if (sl_str_eq_c(destination, "@"))
        return;
    const struct relay_gap *g = sl_map_get(r->gaps, destination);
    lane_of(r, destination)->mark = g != NULL && g->mark < number ? g->mark : number;
}

/* ---- queueing ---- */

static struct relay_fact *fact_new(const struct fx_fact_item *item, uint64_t epoch, struct relay_batch *batch)
{
    struct event_fields fields;
    event_to_fields(&item->event, &fields);
    size_t bytes = sizeof(struct relay_fact) + fields.count * sizeof(struct sl_str);
    for (size_t i = 0; i < fields.count; i++)
        bytes += fields.item[i].len;
    struct relay_fact *f = sl_alloc(bytes);
    f->batch = batch;
    f->number = item->number;
    f->epoch = epoch;
    f->item_count = fields.count;
    f->items = (struct sl_str *)(void *)(f + 1);
    char *p = (char *)(f->items + fields.count);
    for (size_t i = 0; i < fields.count; i++) {
        memcpy(p, fields.item[i].ptr, fields.item[i].len);
        f->items[i] = sl_str_n(p, fields.item[i].len);
        p += fields.item[i].len;
    }
    return f;
}

static void lane_append(struct relay_lane *lane, struct relay_fact *f)
{
    if (lane->last != NULL)
        lane->last->next = f;
    else
        lane->first = f;
    lane->last = f;
    lane->relay->backlog++;
}

/* The later of two neighbours goes up in the earlier: its facts are all out, so whoever passes the earlier passes both. */
static void batch_absorb(struct relay *r, struct relay_batch *b)
{
    struct relay_batch *next = b->next;
    if (next->out_id[0] != '\0')
        memcpy(b->out_id, next->out_id, sizeof(b->out_id));
    b->next = next->next;
    if (r->last == next)
        r->last = b;
    r->batches--;
    free(next);
}

/* Behind a batch that waits for one destination, those that are through would pile up. Twice as many as there are facts
 * is often enough: a walk then frees at least half. */
static void batches_compact(struct relay *r)
{
    if (r->batches <= 2 * r->backlog + BATCHES_SPARE)
        return;
    for (struct relay_batch *b = r->first; b != NULL; b = b->next)
        while (b->next != NULL && b->next->open == 0)
            batch_absorb(r, b);
}

/* Whole batches at the head whose facts are all delivered: the position moves past them. A batch whose entry is
 * unknown (its commit was found out to be executed, its answer was lost) is passed with the next one. */
static void position_advance(struct relay *r)
{
    while (r->first != NULL && r->first->open == 0) {
        struct relay_batch *b = r->first;
        if (b->out_id[0] != '\0') {
            memcpy(r->position, b->out_id, sizeof(r->position));
            r->position_dirty = true;
        }
        r->first = b->next;
        if (r->first == NULL)
            r->last = NULL;
        r->batches--;
        free(b);
    }
    batches_compact(r);
}

struct relay_batch *relay_batch_begin(struct sl_str out_id)
{
    struct relay_batch *b = sl_alloc(sizeof(*b));
    part_id_set(b->out_id, out_id);
    return b;
}

void relay_batch_put(struct relay *r, struct relay_batch *b, uint64_t epoch, const struct fx_fact_item *fact)
{
    if (fact->destination.len == 0)
        return;
    struct relay_lane *lane = lane_of(r, fact->destination);
    if (fact->number <= lane->mark)
        return; /* read again from the fact log, delivered before */
    b->open++;
    lane_append(lane, fact_new(fact, epoch, b));
}

void relay_batch_hold(struct relay_batch *b)
{
    b->open++;
}

void relay_batch_end(struct relay *r, struct relay_batch *b)
{
    if (r->last != NULL)
        r->last->next = b;
    else
        r->first = b;
    r->last = b;
    r->batches++;
    position_advance(r);
}

void relay_add(struct relay *r, struct sl_str out_id, uint64_t epoch, const struct fx_fact_item *facts,
               size_t count)
{
    struct relay_batch *b = relay_batch_begin(out_id);
    for (size_t i = 0; i < count; i++)
        relay_batch_put(r, b, epoch, &facts[i]);
    relay_batch_end(r, b);
}

bool relay_is_clear(const struct relay *r, struct sl_str destination)
{
    const struct relay_lane *lane = sl_map_get(r->lanes, destination);
    return lane == NULL || lane->first == NULL;
}

void relay_delivered(struct relay *r, struct sl_str destination, uint64_t number, size_t count)
{
    struct relay_lane *lane = lane_of(r, destination);
    lane->mark = number;
    lane->is_dirty = true;
    SL_COUNT("sluice_facts_delivered_total", "", "facts handed to other logs, repeats included", count);
}

int64_t relay_trim_ms(struct sl_str destination)
{
    return sl_str_starts(destination, "bot:") ? BOT_TASK_KEEP_MS : 0;
}

/* ---- delivering ---- */

/* Only what was sent: after lost data the destination's mark may lie beyond facts that are still to be sent, under a
 * higher epoch (a fork, which it takes). */
static void lane_pop_sent(struct relay_lane *lane)
{
    struct relay *r = lane->relay;
    while (lane->first != NULL && lane->first->number <= lane->sent_through) {
        struct relay_fact *f = lane->first;
        lane->first = f->next;
        if (lane->first == NULL)
            lane->last = NULL;
        f->batch->open--;
        r->backlog--;
        free(f);
    }
    lane->mark = lane->sent_through;
    lane->is_dirty = true;
    position_advance(r);
}

/* "GAP <mark>". What the destination lost is read again from the beginning of the fact log. If it is not there either, starting
 * over once more would not help: this destination waits, and somebody has to look. */
static void lane_has_gap(struct relay_lane *lane, const struct sl_fail *why)
{
    struct relay *r = lane->relay;
    uint64_t mark = 0;
    if (strlen(why->text) > 4 && sl_str_uint(sl_str_c(why->text + 4), &mark) != SL_OK)
        mark = 0;
    bool is_hole = lane->mark <= mark;
    SL_COUNT("sluice_relay_gaps_total", "",
             "a destination's mark lies before the facts held here: read again", 1);
    sl_log(is_hole ? SL_ERROR : SL_WARN,
           is_hole ? "a destination misses facts that the fact log has not any more"
                   : "relay gap: facts are read again from the fact log",
           SL_KV("partition", r->host.tag), SL_KV("destination", lane->destination),
           SL_KV_I("next", lane->first->number), SL_KV_FAIL(why));
    if (is_hole) {
        sl_timer_start(&lane->retry, HOLE_RETRY_MS);
        return;
    }
    gap_note(r, sl_str_c(lane->destination), mark);
    r->host.moved(r->host.arg, true);
}

static void lane_answered(struct relay_lane *lane, sl_err err, const struct sl_fail *why)
{
    struct relay *r = lane->relay;
    lane->is_sending = false;
    if (err == SL_OK) {
        lane_pop_sent(lane);
        gap_forget(r, sl_str_c(lane->destination));
        lane_pump(lane);
        r->host.moved(r->host.arg, false); /* last: it may end in a reset, which frees the lanes */
        return;
    }
    if (err == SL_EGAP) {
        lane_has_gap(lane, why);
        return;
    }
    if (err == SL_EREFUSED)
        sl_log(SL_ERROR, "a destination refuses facts", SL_KV("partition", r->host.tag),
               SL_KV("destination", lane->destination), SL_KV_FAIL(why));
    sl_timer_start(&lane->retry,
                   DELIVER_RETRY_MS); /* the same facts again: their numbers make that harmless */
}

static void on_delivered(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    (void)v; /* the mark: not below what was sent */
    struct relay_call *call = arg;
    struct relay *r = call->relay;
    struct relay_lane *lane = call->lane;
    bool is_current = call->era == r->era && !r->is_freed;
    free(call);
    r->in_flight--;
    if (r->is_freed && r->in_flight == 0) {
        relay_finish(r);
        return;
    }
    if (is_current)
        lane_answered(lane, err, why);
}

static size_t lane_build(struct relay_lane *lane, struct bus_args *a)
{
    struct relay *r = lane->relay;
    struct sl_str destination = sl_str_c(lane->destination);
    struct key from = key_from(destination);
    bus_args_clear(a);
    bus_args_c(a, "FCALL");
    bus_args_c(a, "deliver_1");
    bus_args_int(a, 2);
    bus_args_str(a, destination);
    bus_args_copy(a, key_str(&from));
    bus_args_c(a, r->host.tag);
    bus_args_int(a, (int64_t)lane->first->epoch);
    bus_args_int(a, (int64_t)lane->first->number);
    bus_args_int(a, relay_trim_ms(destination));
    size_t at = bus_args_mark(a), count = 0;
    for (struct relay_fact *f = lane->first; f != NULL && count < DELIVER_FACTS_MAX; f = f->next) {
        if (f->epoch != lane->first->epoch)
            break; /* a fact goes under the epoch of its own commit */
        bus_args_int(a, (int64_t)f->item_count);
        for (size_t i = 0; i < f->item_count; i++)
            bus_args_str(a, f->items[i]);
        lane->sent_through = f->number;
        count++;
    }
    bus_args_set_int(a, at, (int64_t)count);
    return count;
}

static void lane_pump(struct relay_lane *lane)
{
    struct relay *r = lane->relay;
    if (lane->is_sending || lane->first == NULL || sl_timer_is_active(&lane->retry))
        return;
    size_t count = lane_build(lane, &r->args);
    struct relay_call *call = sl_alloc(sizeof(*call));
    *call = (struct relay_call){.relay = r, .era = r->era, .lane = lane};
    if (bus_command(r->host.bus, &r->args, BUS_DEADLINE_MS, on_delivered, call) != SL_OK) {
        free(call);
        sl_timer_start(&lane->retry, DELIVER_RETRY_MS);
        return;
    }
    r->in_flight++;
    lane->is_sending = true;
    SL_COUNT("sluice_facts_delivered_total", "", "facts handed to other logs, repeats included", count);
}

void relay_pump(struct relay *r)
{
    struct sl_str key;
    void *lane;
    for (size_t i = 0; sl_map_next(r->lanes, &i, &key, &lane);)
        lane_pump(lane);
}

size_t relay_backlog(const struct relay *r)
{
    return r->backlog;
}

size_t relay_batches(const struct relay *r)
{
    return r->batches;
}

bool relay_is_idle(const struct relay *r)
{
    return r->backlog == 0;
}

/* ---- positions ---- */

size_t relay_positions(struct relay *r, struct bus_args *args)
{
    struct sl_str key;
    void *value;
    size_t count = 0;
    for (size_t i = 0; sl_map_next(r->lanes, &i, &key, &value);) {
        struct relay_lane *lane = value;
        if (!lane->is_dirty)
            continue;
        lane->is_dirty = false;
        lane->is_saving = true;
        bus_args_str(args, key);
        bus_args_int(args, (int64_t)lane->mark);
        count++;
    }
    if (r->position_dirty) {
        r->position_dirty = false;
        r->position_saving = true;
        bus_args_c(args, "@");
        bus_args_copy(args, sl_str_c(r->position));
        count++;
    }
    return count;
}

void relay_saved(struct relay *r, bool is_saved)
{
    struct sl_str key;
    void *value;
    for (size_t i = 0; sl_map_next(r->lanes, &i, &key, &value);) {
        struct relay_lane *lane = value;
        lane->is_dirty = lane->is_dirty || (lane->is_saving && !is_saved);
        lane->is_saving = false;
    }
    r->position_dirty = r->position_dirty || (r->position_saving && !is_saved);
    r->position_saving = false;
}

bool relay_is_dirty(const struct relay *r)
{
    struct sl_str key;
    void *value;
    for (size_t i = 0; sl_map_next(r->lanes, &i, &key, &value);) {
        if (((struct relay_lane *)value)->is_dirty)
            return true;
    }
    return r->position_dirty;
}

struct sl_str relay_out_position(const struct relay *r)
{
    return sl_str_c(r->position);
}
