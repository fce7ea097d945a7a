/* bus/commit.c - what one commit carries: the eight sections of commit_1, in the order of bus/functions.md.
 */
#include "bus/part_priv.h"

#include "base/fault.h"

/* Strings of an entry that its dead letter keeps, even: functions.md allows 4,000. Only a bare XADD can write more. */
#define DEAD_STRINGS_MAX 3000

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
    for (size_t i = 0; i < count; i++) {
        struct key log = key_log(p->tag, h[i].object),
                   state = key_state(h[i].kind->prefix, p->tag, h[i].object);
        bus_args_copy(a, key_str(&log));
        bus_args_copy(a, key_str(&state));
        bus_args_int(a, (int64_t)h[i].n);
        bus_args_str(a, h[i].entry);
    }
}

static void build_out(struct part *p, struct bus_args *a)
{
    const struct sl_str *records;
    size_t count = effects_records(p->fx, &records);
    build_batch_record(p);
    bus_args_int(a, (int64_t)(2 * count + 2));
    bus_args_c(a, "b");
    bus_args_str(a, sl_buf_view(&p->batch_record));
    for (size_t i = 0; i < count; i++) {
        bus_args_c(a, "f");
        bus_args_str(a, records[i]);
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
    size_t count = effects_pushes(p->fx, &pushes);
    bus_args_int(a, (int64_t)count);
    for (size_t i = 0; i < count; i++) {
        bus_args_str(a, pushes[i].channel);
        bus_args_str(a, pushes[i].payload);
    }
}

void part_commit_build(struct part *p)
{
    struct bus_args *a = &p->commit_args;
    const struct key *keys[] = {&p->meta, &p->in, &p->out, &p->timers, &p->numbers, &p->relay_key, &p->dead};
    part_id_set(p->new_offset, p->batch_last->event.entry);
    part_args_function(a, "commit_1", keys, 7);
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
    p->commit_attempts = 0;
    p->is_committing = true;
    if (sl_mutant("relay-before-commit")) {
        const struct fx_fact_item *facts;
        size_t count = effects_facts(p->fx, &facts);
        relay_add(p->relay, SL_STR("0-0"), (uint64_t)p->epoch, facts, count);
        relay_pump(p->relay);
    }
}
