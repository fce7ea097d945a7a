/* bus/commit.c - one commit: its eight sections in the order of bus/functions.md, and what its answer means.
 *
 * Unknown outcome: the very same commit is sent again. It is refused as "moved" exactly when the first one was executed.
 */
#include "bus/part_priv.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/metrics.h"

#include <stdio.h>

/* Strings of an entry that its dead letter keeps, even: functions.md allows 4,000. Only a bare XADD can write more. */
#define DEAD_STRINGS_MAX  3000
#define HISTORY_ARGS      4 /* log, state, number, entry */
#define ENTRIES_LOOKED_AT 4 /* entry and record, entry and push come in the same order */

/* {"epoch":1,"now":2,"first":"..","last":"..","count":3,"dead":["..",..]} : with the command log, enough to
 * replay the batch. */
static void build_batch_record(struct part *p)
{
    struct sl_json j;
    sl_buf_clear(&p->batch_record);
    sl_json_begin(&j, &p->batch_record);
    sl_json_open(&j, NULL, '{');
    sl_json_int(&j, "epoch", p->epoch);
    sl_json_int(&j, "now", p->batch_now_ms);
    sl_json_str(&j, "first", p->first->event.entry);
    sl_json_str(&j, "last", p->batch_last->event.entry);
    sl_json_int(&j, "count", (int64_t)p->batch_count);
    if (p->first->is_to_bury) { /* an event that is buried is alone in its batch */
        sl_json_c(&j, "why", p->first->why);
        sl_json_open(&j, "dead", '[');
        sl_json_str(&j, NULL, p->first->event.entry);
        sl_json_close(&j, ']');
    }
    sl_json_close(&j, '}');
}

static void build_states(struct part *p, struct bus_args *a)
{
    struct state *const *states;
    size_t count = effects_states(p->fx, &states);
    bus_args_int(a, (int64_t)count);
    for (size_t i = 0; i < count; i++) {
        const struct state *s = states[i];
        struct sl_str id = sl_str_c(s->id);
        struct key key = key_state(s->kind->prefix, p->tag, id);
        bus_args_copy(a, key_str(&key));
        if (s->is_deleted) {
            struct key log = key_log(p->tag, id);
            bus_args_c(a, "d");
            bus_args_copy(a, s->kind->has_history ? key_str(&log) : SL_STR_NONE);
        } else {
            bus_args_c(a, "s");
            sl_buf_clear(&p->encoded);
            s->kind->encode(s, &p->encoded);
            bus_args_copy(a, sl_buf_view(&p->encoded));
        }
        bus_args_int(a, (int64_t)s->n);
        bus_args_int(a, (int64_t)s->v);
    }
}

static void build_history(struct part *p, struct bus_args *a)
{
    const struct fx_history *h;
    size_t count = effects_histories(p->fx, &h);
    bus_args_int(a, (int64_t)count);
    p->first_entry_arg = a->count + 3;
    for (size_t i = 0; i < count; i++) {
        struct key log = key_log(p->tag, h[i].object),
                   state = key_state(h[i].kind->prefix, p->tag, h[i].object);
        bus_args_copy(a, key_str(&log));
        bus_args_copy(a, key_str(&state));
        bus_args_int(a, (int64_t)h[i].n);
        bus_args_str(a, h[i].entry);
    }
}

/* The last argument repeats a history entry, `behind` bytes before its end: say so. Looks at a few entries from *next on. */
static void note_entry(struct part *p, struct bus_args *a, size_t *next, size_t behind)
{
    const struct fx_history *h;
    size_t count = effects_histories(p->fx, &h), len = a->len[a->count - 1];
    for (size_t i = *next; i < count && i < *next + ENTRIES_LOOKED_AT; i++) {
        struct sl_str entry = h[i].entry;
        if (entry.len + behind > len)
            continue;
        size_t from = len - behind - entry.len;
        if (memcmp(a->ptr[a->count - 1] + from, entry.ptr, entry.len) != 0)
            continue;
        bus_args_note_same(a, p->first_entry_arg + HISTORY_ARGS * i, from);
        *next = i;
        return;
    }
}

static void build_out(struct part *p, struct bus_args *a)
{
    const struct sl_str *records;
    size_t count = effects_records(p->fx, &records), entry = 0;
    build_batch_record(p);
    bus_args_int(a, (int64_t)(2 * count + 2));
    bus_args_c(a, "b");
    bus_args_str(a, sl_buf_view(&p->batch_record));
    for (size_t i = 0; i < count; i++) {
        bus_args_c(a, "f");
        bus_args_str(a, records[i]);
        note_entry(p, a, &entry, 1); /* {"h":"...","e":<entry>} */
    }
}

/* Last number per destination: walking backwards, the first seen of each is the last given. */
static void build_numbers(struct part *p, struct bus_args *a)
{
    const struct fx_fact_item *facts;
    size_t count = effects_facts(p->fx, &facts), at = bus_args_mark(a);
    int64_t written = 0;
    for (size_t i = count; i-- > 0;) {
        if (facts[i].destination.len == 0 || effects_number(p->fx, facts[i].destination) != facts[i].number)
            continue;
        bus_args_str(a, facts[i].destination);
        bus_args_int(a, (int64_t)facts[i].number);
        written++;
    }
    bus_args_set_int(a, at, written);
}

static void build_timers(struct part *p, struct bus_args *a)
{
    const struct fx_timer *timers;
    size_t count = effects_timers(p->fx, &timers), at = bus_args_mark(a);
    int64_t written = (int64_t)count;
    for (const struct queued *q = p->first; q != p->next;
         q = q->next) { /* a due timer leaves in the commit of its event, unless set again */
        const struct event *ev = &q->event;
        if (ev->type != EVENT_TIMER)
            continue;
        sl_buf_clear(&p->encoded);
        sl_buf_printf(&p->encoded, "%.*s|%.*s|%lld", (int)ev->conv.len, ev->conv.ptr, (int)ev->name.len,
                      ev->name.ptr, (long long)ev->gen);
        bus_args_c(a, "-");
        bus_args_copy(a, sl_buf_view(&p->encoded));
        bus_args_int(a, 0);
        written++;
    }
    for (size_t i = 0; i < count; i++) {
        bus_args_c(a, timers[i].is_set ? "+" : "-");
        bus_args_str(a, timers[i].member);
        bus_args_int(a, timers[i].due_ms);
        if (timers[i].is_set && timers[i].due_ms < p->due_since_tick_ms)
            p->due_since_tick_ms = timers[i].due_ms;
    }
    bus_args_set_int(a, at, written);
}

static void build_dead(struct part *p, struct bus_args *a)
{
    struct queued *q = p->first;
    if (!q->is_to_bury) {
        bus_args_int(a, 0);
        return;
    }
    bus_args_int(a, 1);
    bus_args_str(a, q->event.entry);
    bus_args_c(a, q->why);
    size_t count = q->item_count < DEAD_STRINGS_MAX ? q->item_count : DEAD_STRINGS_MAX;
    bus_args_int(a, (int64_t)count);
    for (size_t i = 0; i < count; i++)
        bus_args_str(a, q->items[i]);
}

static void build_pushes(struct part *p, struct bus_args *a)
{
    const struct fx_push *pushes;
    size_t count = effects_pushes(p->fx, &pushes), entry = 0;
    bus_args_int(a, (int64_t)count);
    for (size_t i = 0; i < count; i++) {
        bus_args_str(a, pushes[i].channel);
        bus_args_str(a, pushes[i].payload);
        note_entry(p, a, &entry, 0); /* <head>\n<entry> */
    }
}

/* ---- deliveries: facts whose destination has all before them go along; what is not taken is relayed ---- */

/* The destinations that go along, each once. */
static void choose_deliveries(struct part *p)
{
    const struct fx_fact_item *facts;
    size_t count = effects_facts(p->fx, &facts);
    p->deliveries = 0;
    for (size_t i = 0; i < count && p->deliveries < PART_DELIVERIES_MAX; i++) {
        bool is_new = facts[i].destination.len > 0 && relay_is_clear(p->relay, facts[i].destination);
        for (size_t j = 0; j < p->deliveries && is_new; j++)
            is_new = !sl_str_eq(p->delivery[j].destination, facts[i].destination);
        if (is_new)
            p->delivery[p->deliveries++] =
                (struct part_delivery){.destination = facts[i].destination, .first = facts[i].number};
    }
}

static void add_delivery_keys(struct part *p, struct bus_args *a)
{
    for (size_t i = 0; i < p->deliveries; i++) {
        struct key from = key_from(p->delivery[i].destination);
        bus_args_str(a, p->delivery[i].destination);
        bus_args_copy(a, key_str(&from));
    }
}

static void build_delivery(struct part *p, struct bus_args *a, struct part_delivery *d)
{
    const struct fx_fact_item *facts;
    size_t count = effects_facts(p->fx, &facts);
    bus_args_int(a, (int64_t)d->first);
    bus_args_int(a, relay_trim_ms(d->destination));
    size_t at = bus_args_mark(a);
    for (size_t i = 0; i < count && d->count < PART_DELIVERY_FACTS_MAX; i++) {
        struct event_fields fields;
        if (!sl_str_eq(facts[i].destination, d->destination))
            continue;
        event_to_fields(&facts[i].event, &fields);
        bus_args_int(a, (int64_t)fields.count);
        for (size_t j = 0; j < fields.count; j++)
            bus_args_copy(a, fields.item[j]);
        d->count++;
    }
    bus_args_set_int(a, at, (int64_t)d->count);
}

static void build_deliveries(struct part *p, struct bus_args *a)
{
    if (p->deliveries == 0)
        return;
    bus_args_int(a, (int64_t)p->deliveries);
    for (size_t i = 0; i < p->deliveries; i++)
        build_delivery(p, a, &p->delivery[i]);
}

/* v NULL: nothing is known, so all is relayed; what is there already will be dropped. */
static void note_deliveries(struct part *p, const struct bus_value *v)
{
    for (size_t i = 0; i < p->deliveries; i++) {
        int64_t mark = bus_value_int(bus_value_at(v, 2 + i));
        if (mark > 0)
            relay_delivered(p->relay, p->delivery[i].destination, (uint64_t)mark, p->delivery[i].count);
    }
    p->deliveries = 0;
}

/* ---- deeds ---- */

static void do_deeds(struct part *p)
{
    const struct event *deeds;
    size_t count = effects_deeds(p->fx, &deeds);
    for (size_t i = 0; i < count && p->events.deed != NULL; i++)
        p->events.deed(p->arg, p, &deeds[i]);
}

#ifdef SL_TEST_BUILD
/* The marked points of a delivery, for the fault suite: what this batch is about says which are passed. */
struct about {
    bool is_sending, has_settled, has_receipt;
};

static struct about about(const struct part *p)
{
    const struct event *deeds;
    struct about a = {.is_sending = effects_deeds(p->fx, &deeds) > 0};
    for (const struct queued *q = p->first; q != p->next && q != NULL; q = q->next) {
        a.has_settled = a.has_settled || q->event.type == EVENT_SETTLED;
        a.has_receipt = a.has_receipt || q->event.type == EVENT_RECEIPT;
    }
    return a;
}

static void kill_points_before(const struct part *p)
{
    struct about a = about(p);
    if (a.is_sending)
        sl_kill_point("lane.before_commit_sending");
    if (a.has_settled)
        sl_kill_point("lane.before_commit_settled");
    if (a.has_receipt)
        sl_kill_point("lane.before_commit_receipt");
}

static void kill_points_after(const struct part *p)
{
    struct about a = about(p);
    if (a.is_sending)
        sl_kill_point("lane.after_commit_sending");
    if (a.has_settled)
        sl_kill_point("lane.after_commit_settled");
    if (a.has_receipt)
        sl_kill_point("lane.after_commit_receipt");
}

static void kill_point_relay(struct part *p)
{
    const struct fx_fact_item *facts;
    size_t count = effects_facts(p->fx, &facts);
    for (size_t i = 0; i < count; i++)
        if (facts[i].event.type == EVENT_OUTCOME) {
            sl_kill_point("lane.before_relay_outcome");
            return;
        }
}
#else
#define kill_points_before(p) ((void)0)
#define kill_points_after(p)  ((void)0)
#define kill_point_relay(p)   ((void)0)
#endif

static void commit_build(struct part *p)
{
    struct bus_args *a = &p->commit_args;
    const struct key *keys[] = {&p->meta, &p->in, &p->out, &p->timers, &p->numbers, &p->relay_key, &p->dead};
    part_id_set(p->new_offset, p->batch_last->event.entry);
    part_args_function(a, "commit_1", keys, 7);
    choose_deliveries(p);
    add_delivery_keys(p, a);
    bus_args_set_int(a, 2, 7 + 2 * (int64_t)p->deliveries);
    part_args_fence(p, a);
    bus_args_c(a, p->offset);
    bus_args_c(a, p->new_offset);
    bus_args_int(a, p->batch_now_ms);
    bus_args_int(a, 0); /* the lease is renewed by housekeeping, once for many commits */
    bus_args_c(a, p->tag);
    bus_args_int(a, p->cfg.history_keep);
    build_states(p, a);
    build_history(p, a);
    build_out(p, a);
    build_numbers(p, a);
    build_timers(p, a);
    size_t at = bus_args_mark(a);
    p->has_positions =
        !p->is_housekeeping; /* relay_1 is in flight with them: whose answer says saved is one alone */
    bus_args_set_int(a, at, p->has_positions ? (int64_t)relay_positions(p->relay, a) : 0);
    build_dead(p, a);
    build_pushes(p, a);
    build_deliveries(p, a);
    p->commit_attempts = 0;
    p->is_committing = true;
    kill_points_before(p);
    if (sl_mutant("deed-before-commit"))
        do_deeds(p);
    if (sl_mutant("relay-before-commit")) {
        const struct fx_fact_item *facts;
        size_t count = effects_facts(p->fx, &facts);
        relay_add(p->relay, SL_STR("0-0"), (uint64_t)p->epoch, facts, count);
        relay_pump(p->relay);
    }
}

/* ---- its answer ---- */

static void commit_is_written(struct part *p, const struct bus_value *v)
{
    struct sl_str out_id = bus_value_str(bus_value_at(v, 1));
    const struct fx_fact_item *facts;
    size_t count = effects_facts(p->fx, &facts);
    p->is_committing = false;
    kill_points_after(p);
    kill_point_relay(p);
    if (p->has_positions)
        relay_saved(p->relay, true);
    if (!sl_mutant("deed-before-commit"))
        do_deeds(p);
    note_deliveries(p, v);
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
        part_queue_drop_first(p);
    p->batch_is_open = false;
    p->batch_count = 0;
    p->next = p->first;
    p->batch_limit = p->batch_limit * 2 < PART_BATCH_EVENTS ? p->batch_limit * 2 : PART_BATCH_EVENTS;
    part_queue_resume(p);
    if (p->due_since_tick_ms < p->next_due_ms) {
        p->next_due_ms = p->due_since_tick_ms;
        part_tick_arm(p);
    }
    if (!p->is_ticking)
        p->due_since_tick_ms = INT64_MAX;
    relay_pump(p->relay);
    part_pump(p);
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
        part_lose(p, why); /* the store takes nothing: leave the partition, acquire again later */
        return;
    }
    if (p->batch_count == 1) {
        q->is_bare = q->is_to_bury;
        q->is_to_bury = true;
        q->why = "its effects were refused by the store";
    }
    p->batch_limit = p->batch_count > 1 ? p->batch_count / 2 : 1;
    part_batch_drop(p);
    sl_post_now(&p->pump_post);
}

static void commit_has_moved(struct part *p, const struct sl_fail *why)
{
    const char *stored = strrchr(why->text, ' ');
    stored = stored == NULL ? "" : stored + 1;
    if (p->commit_attempts > 1 && strcmp(stored, p->new_offset) == 0) {
        commit_is_written(p, NULL); /* an earlier attempt was executed */
        return;
    }
    p->was_lost = part_id_compare(stored, p->offset) < 0;
    sl_log(SL_ERROR, "the stored offset is not ours", SL_KV("partition", p->tag), SL_KV("stored", stored),
           SL_KV("ours", p->offset));
    part_lose(p, why);
}

static void on_committed(struct part *p, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    if (err == SL_OK) {
        commit_is_written(p, v);
    } else if (err == SL_EMOVED) {
        commit_has_moved(p, why);
    } else if (err == SL_EFENCED) {
        part_lose(p, why);
    } else if (sl_err_retry(err) || err == SL_ECLOSED) {
        sl_timer_start(&p->retry, PART_RETRY_MS); /* unknown or not now: the very same commit again */
    } else if (part_refuses_event(why)) {
        commit_is_refused(p, why);
    } else {
        part_lose(p, why);
    }
}

void part_commit_send(struct part *p)
{
    if (!p->is_committing)
        commit_build(p);
    if (part_send(p, &p->commit_args, on_committed) != SL_OK) {
        sl_timer_start(&p->retry, PART_RETRY_MS);
        return;
    }
    p->commit_attempts++;
}
