/* tests/unit/part_world.h - up to three processes that want the same toy partition, over the store in memory.
 *
 * What     every request and reply moves only when a test says so: settle() moves all but the held command. Time moves by pass().
 * Toy      one kind of state, a counter with a history. A message's text says what else its step does (toy_step).
 */
#ifndef TESTS_UNIT_PART_WORLD_H
#define TESTS_UNIT_PART_WORLD_H

#include "unit.h"

#include "base/fault.h"
#include "base/metrics.h"
#include "bus/memory_priv.h"
#include "bus/part_priv.h"

#include <limits.h>
#include <stdio.h>

#define TAG       "7"
#define LEASE_MS  3000
#define PROCS_MAX 3
#define STEPS_MAX 4096
#define TO        "in:{9}" /* where toy facts go */

struct world;
struct proc {
    struct world *w;
    unsigned id;
    struct sl_loop *loop;
    struct bus *bus;
    struct bus_tail *tail;
    struct part *part;
    int64_t skew_ms;
    unsigned running, lost, idle;
    bool is_dead, is_calling, called_early;
    char why[240];
};
struct world {
    struct memory_store *store;
    struct proc proc[PROCS_MAX];
    size_t procs;
    const char *held; /* a request of this name waits */
    struct bus_args args;
    struct sl_buf text;
    unsigned steps, buried;
    unsigned timers[128]; /* timers stepped, by the first letter of their name */
    struct {
        char entry[48];
        int64_t now_ms;
    } step[STEPS_MAX];
};
static struct world *the_world;

/* Strings that end nowhere are found, too (sscanf, strcspn). */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "strict_string_checks=1";
}

/* ---- the toy partition ---- */

struct counter {
    struct state s;
    int64_t value;
};

static inline sl_err counter_decode(struct state *s, struct sl_str json)
{
    return sl_str_int(json, &((struct counter *)s)->value);
}

static inline void counter_encode(const struct state *s, struct sl_buf *out)
{
    sl_buf_int(out, ((const struct counter *)s)->value);
}

static const struct state_kind counter_kind = {.prefix = "conv",
                                               .size = sizeof(struct counter),
                                               .has_history = true,
                                               .decode = counter_decode,
                                               .encode = counter_encode};

static inline void toy_count(struct effects *fx, const struct event *ev, struct counter *c)
{
    struct sl_buf members;
    sl_buf_init(&members, 0);
    sl_buf_printf(&members, "\"e\":\"%.*s\",\"x\":\"%.*s\"", (int)ev->entry.len, ev->entry.ptr,
                  (int)ev->data.len, ev->data.ptr);
    c->value++;
    (void)fx_append(fx, c, true, sl_buf_view(&members), NULL, NULL);
    sl_buf_fini(&members);
}

/* number facts to reply_to; with a name a timer (name, gen) in wait_ms; queue: a second state is needed. */
static inline void toy_step(struct effects *fx, const struct event *ev, int64_t now_ms)
{
    struct world *w = the_world;
    struct counter *c = fx_state(fx, &counter_kind, ev->conv);
    if (c == NULL)
        return;
    if (ev->queue.len > 0 && fx_state(fx, &counter_kind, ev->queue) == NULL)
        return;
    assert_true(w->steps < STEPS_MAX);
    part_id_set(w->step[w->steps].entry, ev->entry);
    w->step[w->steps++].now_ms = now_ms;
    toy_count(fx, ev, c);
    struct event fact = {.type = EVENT_NEED, .conv = ev->conv, .text = ev->entry};
    for (int64_t i = 0; i < ev->number; i++) {
        fact.ticket = i + 1;
        fx_fact(fx, ev->reply_to, &fact);
    }
    if (ev->type == EVENT_MESSAGE && ev->name.len > 0) {
        char name[32];
        (void)snprintf(name, sizeof name, "%.*s", (int)ev->name.len, ev->name.ptr);
        fx_timer_set(fx, ev->conv, name, ev->gen, now_ms + ev->wait_ms);
    }
    if (ev->type == EVENT_TIMER)
        w->timers[ev->name.ptr[0] & 127]++;
    if (ev->type == EVENT_TIMER && sl_str_eq_c(ev->name, "again"))
        fx_timer_set(fx, ev->conv, "again", ev->gen + 1, now_ms + 1000);
    if (ev->type == EVENT_TIMER && sl_str_eq_c(ev->name, "same") && w->timers['s'] < 3)
        fx_timer_set(fx, ev->conv, "same", ev->gen, now_ms + 1000);
    if (ev->type == EVENT_HANGUP)
        fx_delete(fx, c);
}

static inline void toy_bury(struct effects *fx, const struct event *ev, struct sl_str reason, int64_t now_ms)
{
    (void)reason, (void)now_ms;
    struct counter *c = fx_state(fx, &counter_kind, ev->conv.len > 0 ? ev->conv : SL_STR("nobody"));
    if (c == NULL)
        return;
    the_world->buried++;
    struct event fact = {.type = EVENT_NEED};
    for (int64_t i = 0; sl_str_eq_c(ev->kind, "loud") && i < ev->number; i++)
        fx_fact(fx, SL_STR(TO), &fact);
    (void)fx_append(fx, c, true, SL_STR("\"dead\":true"), NULL, NULL);
}

static const struct part_ops toy_ops = {.name = "toy", .step = toy_step, .bury = toy_bury};

/* ---- processes ---- */

static inline void on_changed(void *arg, struct part *p, enum part_state now, const struct sl_fail *why)
{
    struct proc *pr = arg;
    (void)p;
    pr->called_early = pr->called_early || pr->is_calling;
    pr->running += now == PART_RUNNING ? 1 : 0;
    pr->lost += now == PART_LOST ? 1 : 0;
    pr->idle += now == PART_IDLE ? 1 : 0;
    if (why != NULL)
        (void)snprintf(pr->why, sizeof pr->why, "%s", why->text);
}

static inline struct proc *proc_start(struct world *w)
{
    struct proc *pr = &w->proc[w->procs];
    pr->w = w;
    pr->id = (unsigned)++w->procs;
    pr->loop = sl_loop_new_virtual(pr->id);
    const struct bus_config cfg = {.partitions = 16};
    pr->bus = memory_bus_open(w->store, pr->id, pr->loop, &cfg, NULL, NULL);
    pr->tail = bus_tail_open(pr->bus, 64, part_on_entries, NULL);
    char run[8];
    int n = snprintf(run, sizeof run, "RUN%u", pr->id);
    struct part_config pc = {.bus = pr->bus,
                             .tail = pr->tail,
                             .run = sl_str_n(run, (size_t)n),
                             .lease_ms = LEASE_MS,
                             .history_keep = 1000,
                             .cache_max = 64};
    const struct part_events events = {.changed = on_changed};
    pr->part = part_new(&pc, TAG, &toy_ops, &events, pr);
    return pr;
}

/* As a process ends: killed ones hear nothing more, others close their bus and let it settle. */
static inline void proc_end(struct proc *pr)
{
    part_free(&pr->part);
    bus_tail_close(&pr->tail);
    if (pr->bus != NULL)
        bus_close(&pr->bus);
    while (!pr->is_dead && sl_loop_virtual_step(pr->loop)) {
    }
    sl_loop_close(&pr->loop);
}

static inline void proc_kill(struct proc *pr)
{
    memory_kill(pr->w->store, pr->id);
    pr->is_dead = true;
}

/* ---- moving things ---- */

static inline void turn(struct world *w)
{
    for (size_t i = 0; i < w->procs; i++)
        while (!w->proc[i].is_dead && sl_loop_virtual_step(w->proc[i].loop)) {
        }
}

static inline bool execute_one(struct world *w)
{
    for (size_t i = 0; i < memory_pending_requests(w->store); i++) {
        if (w->held != NULL && sl_str_eq_c(memory_request_name(w->store, i), w->held))
            continue;
        memory_execute(w->store, i);
        return true;
    }
    return false;
}

static inline bool reply_one(struct world *w)
{
    for (size_t i = 0; i < w->procs; i++) {
        if (w->proc[i].is_dead || memory_pending_replies(w->store, w->proc[i].id) == 0)
            continue;
        memory_reply(w->store, w->proc[i].id, 0);
        return true;
    }
    return false;
}

/* Everything that can move without time passing, but held requests. */
static inline void settle(struct world *w)
{
    for (bool is_moving = true; is_moving;) {
        turn(w);
        is_moving = execute_one(w) || reply_one(w);
    }
}

static inline void clocks(struct world *w, uint64_t ms)
{
    int64_t unix_ms = sl_loop_unix_ms(w->proc[0].loop) - w->proc[0].skew_ms + (int64_t)ms;
    for (size_t i = 0; i < w->procs; i++)
        if (w->proc[i].loop != NULL)
            sl_loop_virtual_set(w->proc[i].loop, sl_loop_mono_ms(w->proc[i].loop) + ms,
                                unix_ms + w->proc[i].skew_ms);
    memory_store_clock(w->store, unix_ms);
}

static inline void pass(struct world *w, uint64_t ms)
{
    settle(w);
    for (uint64_t i = 0; i < ms; i += 10) {
        clocks(w, ms - i < 10 ? ms - i : 10);
        settle(w);
    }
}

static inline bool is_pending(struct world *w, unsigned process, const char *name)
{
    for (size_t i = 0; i < memory_pending_requests(w->store); i++)
        if (memory_request_process(w->store, i) == process &&
            sl_str_eq_c(memory_request_name(w->store, i), name))
            return true;
    return false;
}

/* Executes the first request of this name, of whatever process; its reply stays on the way. */
static inline bool execute(struct world *w, const char *name)
{
    for (size_t i = 0; i < memory_pending_requests(w->store); i++) {
        if (!sl_str_eq_c(memory_request_name(w->store, i), name))
            continue;
        memory_execute(w->store, i);
        return true;
    }
    return false;
}

static inline void execute_of(struct world *w, unsigned process, const char *name)
{
    size_t i = 0;
    while (memory_request_process(w->store, i) != process ||
           !sl_str_eq_c(memory_request_name(w->store, i), name))
        assert_true(++i < memory_pending_requests(w->store));
    memory_execute(w->store, i);
}

/* Only this process moves: the others are asleep, and what they sent is still on its way. */
static inline void settle_alone(struct world *w, struct proc *pr)
{
    for (bool is_moving = true; is_moving;) {
        is_moving = false;
        while (sl_loop_virtual_step(pr->loop)) {
        }
        for (size_t i = 0; i < memory_pending_requests(w->store) && !is_moving; i++) {
            is_moving = memory_request_process(w->store, i) == pr->id;
            if (is_moving)
                memory_execute(w->store, i);
        }
        for (; memory_pending_replies(w->store, pr->id) > 0; is_moving = true)
            memory_reply(w->store, pr->id, 0);
    }
}

static inline struct world *world_new(uint64_t seed)
{
    struct world *w = sl_alloc(sizeof *w);
    w->store = memory_store_new(seed);
    bus_args_init(&w->args);
    sl_buf_init(&w->text, 0);
    the_world = w;
    (void)proc_start(w);
    turn(w);
    return w;
}

static inline void world_free(struct world *w)
{
    for (size_t i = 0; i < w->procs; i++)
        if (w->proc[i].loop != NULL)
            proc_end(&w->proc[i]);
    memory_store_free(&w->store);
    bus_args_fini(&w->args);
    sl_buf_fini(&w->text);
    the_world = NULL;
    free(w);
    sl_metrics_reset();
}

/* ---- looking inside ---- */

static inline void show(struct sl_buf *out, const redisReply *r)
{
    if (r->type == REDIS_REPLY_NIL)
        sl_buf_c(out, "nil");
    else if (r->type == REDIS_REPLY_INTEGER)
        sl_buf_int(out, r->integer);
    else if (r->type != REDIS_REPLY_ARRAY)
        sl_buf_add(out, r->str, r->len);
    if (r->type != REDIS_REPLY_ARRAY)
        return;
    sl_buf_char(out, '[');
    for (size_t i = 0; i < r->elements; i++) {
        if (i > 0)
            sl_buf_char(out, ' ');
        show(out, r->element[i]);
    }
    sl_buf_char(out, ']');
}

static inline const struct bus_value *peek(struct world *w, const char *line)
{
    bus_args_clear(&w->args);
    while (*line != '\0') {
        size_t n = strcspn(line, " ");
        bus_args_str(&w->args, sl_str_n(line, n));
        line += n + (line[n] == ' ' ? 1 : 0);
    }
    return memory_peek(w->store, &w->args);
}

static inline const char *ask(struct world *w, const char *line)
{
    sl_buf_clear(&w->text);
    show(&w->text, (const redisReply *)peek(w, line));
    sl_buf_char(&w->text, '\0');
    return w->text.ptr;
}

static inline int64_t number(struct world *w, const char *line)
{
    return bus_value_int(peek(w, line));
}

/* Put an event into the command log, as accept does; returns its entry's id in id. */
static inline void append(struct world *w, const struct event *ev, char id[48])
{
    struct event_fields fields;
    event_to_fields(ev, &fields);
    bus_args_clear(&w->args);
    bus_args_c(&w->args, "XADD");
    bus_args_c(&w->args, "in:{" TAG "}");
    bus_args_c(&w->args, "*");
    for (size_t i = 0; i < fields.count; i++)
        bus_args_str(&w->args, fields.item[i]);
    part_id_set(id, bus_value_str(memory_peek(w->store, &w->args)));
}

static inline struct event message(const char *conv)
{
    return (struct event){.type = EVENT_MESSAGE, .conv = sl_str_c(conv)};
}

static inline void say(struct world *w, const char *conv, char id[48])
{
    struct event ev = message(conv);
    append(w, &ev, id);
}

static inline void say_many(struct world *w, const char *conv, size_t count)
{
    char id[48];
    for (size_t i = 0; i < count; i++)
        say(w, conv, id);
}

static inline void say_facts(struct world *w, const char *conv, int64_t count, char id[48])
{
    struct event ev = message(conv);
    ev.number = count;
    ev.reply_to = SL_STR(TO);
    append(w, &ev, id);
}

static inline void own(struct proc *pr)
{
    turn(pr->w);
    pr->is_calling = true;
    part_acquire(pr->part);
    pr->is_calling = false;
    settle(pr->w);
}

static inline const char *offset(struct world *w)
{
    return ask(w, "HGET meta:{" TAG "} offset");
}

/* How often an entry was stepped. */
static inline unsigned steps_of(const struct world *w, const char *entry)
{
    unsigned n = 0;
    for (unsigned i = 0; i < w->steps; i++)
        n += strcmp(w->step[i].entry, entry) == 0 ? 1 : 0;
    return n;
}

#endif
