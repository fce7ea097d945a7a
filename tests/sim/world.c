/* tests/sim/world.c - one seed: processes that are born, sleep, die; and a scheduler that moves one thing at a time. */
#include "base/metrics.h"
#include "base/ulid.h"
#include "bot/worker.h"
#include "bus/partition.h"
#include "router/router.h"

#include "sim.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#define FAULT_STEPS  3500  /* of the first phase; then everything is healed and must drain */
#define HEALED_STEPS 30000 /* more than this after healing: stalled */
#define LEASE_MS     1500
#define SURVEY_MS    900
#define PEOPLE_MS    60 /* beat of a gateway */
/* Short times, so that everything happens within seconds. %d: how long a silent customer's and a closed conversation stay, and how
 * long a broken socket of an agent is waited for. */
#define RULES                                                                                                \
    "{\"merge_ms\":150,\"bot_answer_ms\":1500,\"bot_tries\":2,\"bot_idle_ms\":%d,\"queue_repeat_ms\":2000,"  \
    "\"accept_ms\":1500,\"agent_idle_ms\":3000,\"agent_quiet_ms\":5000,\"presence_ms\":4000,\"place_ms\":"   \
    "1500,\"offline_ms\":%d,"                                                                                \
    "\"reopen_agent_ms\":1000,\"retain_ms\":%d}"

/* ---- small helpers ---- */

uint64_t sim_random(struct world *w, uint64_t n)
{
    uint64_t z = w->random_state += 0x9e3779b97f4a7c15ULL; /* SplitMix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return n == 0 ? 0 : (z ^ (z >> 31)) % n;
}

bool sim_chance(struct world *w, unsigned of_thousand)
{
    return sim_random(w, 1000) < of_thousand;
}

void sim_digest(struct world *w, const void *p, size_t n)
{
    const unsigned char *b = p;
    for (size_t i = 0; i < n; i++)
        w->digest = (w->digest ^ b[i]) * 0x100000001b3ULL; /* FNV-1a */
}

void sim_fail(struct world *w, const char *fmt, ...)
{
    va_list ap;
    if (w->verdict[0] != '\0')
        return;
    va_start(ap, fmt);
    (void)vsnprintf(w->verdict, sizeof w->verdict, fmt, ap);
    va_end(ap);
    sim_trace(w, "VIOLATION %s", w->verdict);
}

void sim_trace(struct world *w, const char *fmt, ...)
{
    va_list ap;
    if (!w->is_traced)
        return;
    (void)printf("  %6" PRIu64 " %7" PRIu64 " ms  ", w->steps, w->now_ms);
    va_start(ap, fmt);
    (void)vprintf(fmt, ap);
    va_end(ap);
    (void)putchar('\n');
}

const struct bus_value *sim_peek(struct world *w, const char *const *words)
{
    bus_args_clear(&w->args);
    for (; *words != NULL; words++)
        bus_args_c(&w->args, *words);
    return memory_peek(w->store, &w->args);
}

static const char *kind_name(enum process_kind kind)
{
    static const char *const names[] = {
        [SIM_ROUTER] = "router", [SIM_GATEWAY] = "gateway", [SIM_BOT] = "bot", [SIM_SENDER] = "sender"};
    return names[kind];
}

static bool is_awake(const struct process *p)
{
    return p->is_alive && !p->is_doomed && p->asleep_until_ms <= p->w->now_ms;
}

bool process_is_usable(const struct process *p)
{
    return is_awake(p) && bus_is_ready(p->bus);
}

/* ---- processes ---- */

static void set_clock(struct process *p)
{
    sl_loop_virtual_set(p->loop, p->w->now_ms, p->w->unix_ms + p->skew_ms);
}

static void on_confirmed(void *arg, struct sl_str channel)
{
    people_on_confirmed(arg, channel);
}

static void on_message(void *arg, struct sl_str channel, struct sl_str payload)
{
    people_on_push(arg, channel, payload);
}

static void on_lost(void *arg)
{
    people_on_lost(arg);
}

static void on_people(void *arg)
{
    struct process *p = arg;
    sl_timer_start(&p->people_timer, PEOPLE_MS / 2 + sim_random(p->w, PEOPLE_MS));
    people_tick(p);
}

static void start_gateway(struct process *p, const struct bus_config *cfg)
{
    static const struct bus_subscriber_ops ops = {on_confirmed, on_message, on_lost};
    p->bus = memory_bus_open(p->w->store, p->pid, p->loop, cfg, NULL, NULL);
    p->subscriber = bus_subscriber_open(p->bus, &ops, p);
    sl_timer_init(&p->people_timer, p->loop, on_people, p);
    sl_timer_start(&p->people_timer, sim_random(p->w, PEOPLE_MS));
}

static void start_router(struct process *p, const struct bus_config *cfg)
{
    static const char *const tenants[] = {SIM_TENANT};
    char run[SL_ULID_LEN + 1];
    sl_ulid_derive(run, p->w->unix_ms, p->pid, 0, p->w->seed);
    const struct router_config rc = {.loop = p->loop,
                                     .run = sl_str_c(run),
                                     .lease_ms = LEASE_MS,
                                     .survey_ms = SURVEY_MS,
                                     .history_keep = 500,
                                     .cache_max = 32,
                                     .rules_json = sl_str_c(p->w->rules),
                                     .tenants = tenants,
                                     .tenant_count = 1};
    p->router = router_new(&rc);
    p->bus = memory_bus_open(p->w->store, p->pid, p->loop, cfg, &router_bus_events, p->router);
    router_attach(p->router, p->bus);
}

static void on_task(void *arg, const struct event *task, struct bot_reply *reply)
{
    struct process *p = arg;
    size_t at = 0;
    if (sl_str_find(task->text, SL_STR("offer"), &at))
        reply->reason = SL_STR("handoff");
    else if (sim_chance(p->w, 100))
        reply->reason = SL_STR("unsure");
    sl_buf_printf(reply->text, "answer to turn %lld", (long long)task->turn);
}

static void on_worker_stopped(void *arg)
{
    (void)arg;
}

static void start_bot(struct process *p, const struct bus_config *cfg)
{
    static const struct bot_worker_ops ops = {.answer = on_task, .stopped = on_worker_stopped};
    static const uint64_t delays[] = {0, 0, 20, 400, 1450, 2000};
    char consumer[16];
    p->bus = memory_bus_open(p->w->store, p->pid, p->loop, cfg, NULL, NULL);
    (void)snprintf(consumer, sizeof consumer, "w%u", p->slot);
    const struct bot_worker_config wc = {.bus = p->bus,
                                         .name = SL_STR(SIM_BOT_NAME),
                                         .consumer = sl_str_c(consumer),
                                         .claim_idle_ms = 1000,
                                         .delay_ms = p->w->is_healed ? 0 : delays[sim_random(p->w, 6)],
                                         .drain_ms = 1000};
    p->worker = bot_worker_start(&wc, &ops, p);
}

static void process_start(struct process *p)
{
    static void (*const start[])(struct process *,
                                 const struct bus_config *) = {[SIM_ROUTER] = start_router,
                                                               [SIM_GATEWAY] = start_gateway,
                                                               [SIM_BOT] = start_bot,
                                                               [SIM_SENDER] = lanes_start};
    struct world *w = p->w;
    const struct bus_config cfg = {.partitions = SIM_PARTITIONS};
    p->pid = w->next_pid++;
    p->skew_ms = (int64_t)sim_random(w, 600) - 300;
    p->loop = sl_loop_new_virtual(w->seed ^ (p->pid * 0x9e3779b97f4a7c15ULL));
    p->is_alive = true;
    set_clock(p);
    start[p->kind](p, &cfg);
    sim_trace(w, "%s %u starts as %u", kind_name(p->kind), p->slot, p->pid);
}

/* The store knows already that it is dead; its objects give back their memory. */
static void take_apart(struct process *p)
{
    if (p->kind == SIM_GATEWAY)
        sl_timer_stop(&p->people_timer);
    lanes_take_apart(p);
    router_free(&p->router);
    bot_worker_free(&p->worker);
    bus_subscriber_close(&p->subscriber);
    bus_close(&p->bus);
    uint64_t due = 0;
    while (sl_loop_virtual_next(p->loop, &due) && due <= sl_loop_mono_ms(p->loop))
        (void)sl_loop_virtual_step(p->loop);
    sl_loop_close(&p->loop);
    p->is_doomed = false;
}

/* Inside a callback of its own the process is only marked; the scheduler takes it apart when the callback has returned. */
static void process_kill(struct process *p, uint64_t back_in_ms)
{
    struct world *w = p->w;
    if (!p->is_alive || p->is_doomed)
        return;
    sim_trace(w, "%s %u is killed", kind_name(p->kind), p->pid);
    memory_kill(w->store, p->pid);
    p->start_at_ms = w->now_ms + back_in_ms;
    p->asleep_until_ms = 0;
    p->is_doomed = true;
    if (w->running == p)
        return;
    p->is_alive = false;
    take_apart(p);
}

static void reap(struct process *p)
{
    p->is_alive = false;
    take_apart(p);
}

static void on_poison(void *arg)
{
    struct world *w = arg;
    if (w->running != NULL)
        process_kill(w->running, 200 + sim_random(w, 1500));
}

static void on_router_stopped(void *arg)
{
    process_kill(arg, 200);
}

/* ---- time ---- */

static void clocks_set(struct world *w)
{
    memory_store_clock(w->store, w->unix_ms);
    for (unsigned i = 0; i < w->processes; i++)
        if (is_awake(&w->process[i]))
            set_clock(&w->process[i]);
}

static void time_pass(struct world *w, uint64_t ms)
{
    w->now_ms += ms;
    w->unix_ms += (int64_t)ms;
    clocks_set(w);
    for (unsigned i = 0; i < w->processes; i++) {
        struct process *p = &w->process[i];
        if (!p->is_alive && p->start_at_ms <= w->now_ms)
            process_start(p);
    }
}

static void at_most(uint64_t *target, uint64_t at)
{
    *target = at < *target ? at : *target;
}

/* Nothing can move: go to the next moment at which something can. */
static void time_jump(struct world *w)
{
    uint64_t target = w->now_ms + 1000, due = 0;
    int64_t unix_due = 0;
    for (unsigned i = 0; i < w->processes; i++) {
        const struct process *p = &w->process[i];
        if (!p->is_alive)
            at_most(&target, p->start_at_ms);
        else if (p->asleep_until_ms > w->now_ms)
            at_most(&target, p->asleep_until_ms);
        else if (sl_loop_virtual_next(p->loop, &due))
            at_most(&target, due);
    }
    if (memory_next_due(w->store, &unix_due))
        at_most(&target, w->now_ms + (uint64_t)(unix_due > w->unix_ms ? unix_due - w->unix_ms : 0));
    time_pass(w, target > w->now_ms ? target - w->now_ms : 1);
}

/* ---- one step ---- */

static bool is_due(const struct process *p)
{
    uint64_t due = 0;
    return sl_loop_virtual_next(p->loop, &due) && due <= p->w->now_ms;
}

static void leave_process(struct world *w)
{
    struct process *p = w->running;
    w->running = NULL;
    if (p->is_doomed)
        reap(p);
}

static void run_timer(struct process *p)
{
    p->w->running = p;
    (void)sl_loop_virtual_step(p->loop);
    leave_process(p->w);
}

static void run_reply(struct process *p, size_t which)
{
    p->w->running = p;
    memory_reply(p->w->store, p->pid, which);
    leave_process(p->w);
}

static void execute_commit(struct world *w, size_t which, struct sl_str key)
{
    char meta[KEY_MAX_BYTES + 1], before[48], after[48];
    (void)snprintf(meta, sizeof meta, "%.*s", (int)key.len, key.ptr);
    (void)check_last_batch(w, sl_str_c(meta), before);
    memory_execute(w->store, which);
    int64_t epoch = check_last_batch(w, sl_str_c(meta), after);
    if (strcmp(before, after) != 0 && epoch != bus_value_int(SIM_PEEK(w, "HGET", meta, "epoch")))
        sim_fail(w, "I5 a commit to %s was taken under lease epoch %" PRId64, meta, epoch);
}

static void execute(struct world *w, size_t which)
{
    struct sl_str name = memory_request_name(w->store, which), key = memory_request_key(w->store, which);
    unsigned pid = memory_request_process(w->store, which);
    sim_trace(w, "execute %.*s %.*s of %d", (int)name.len, name.ptr, (int)key.len, key.ptr,
              pid == UINT_MAX ? -1 : (int)pid);
    if (sl_str_eq_c(name, "commit_1"))
        execute_commit(w, which, key);
    else
        memory_execute(w->store, which);
}

/* What could happen now, counted; `which` of them happens. */
static void move(struct world *w)
{
    size_t requests = memory_pending_requests(w->store), replies[SIM_PROCESSES] = {0}, total = requests;
    bool due[SIM_PROCESSES] = {false};
    for (unsigned i = 0; i < w->processes; i++) {
        struct process *p = &w->process[i];
        if (!is_awake(p))
            continue;
        replies[i] = memory_pending_replies(w->store, p->pid);
        due[i] = is_due(p);
        total += replies[i] + (due[i] ? 1 : 0);
    }
    if (total == 0) {
        time_jump(w);
        return;
    }
    size_t which = (size_t)sim_random(w, total);
    sim_digest(w, &which, sizeof which);
    if (which < requests) {
        bool is_late = memory_request_process(w->store, which) == UINT_MAX; /* of a connection that broke */
        if (!is_late || w->is_healed || sim_chance(w, w->late_chance))
            execute(w, which);
        else if (total == 1)
            time_jump(w);
        return;
    }
    which -= requests;
    for (unsigned i = 0; i < w->processes; i++) {
        if (which < replies[i]) {
            run_reply(&w->process[i], which);
            return;
        }
        which -= replies[i];
        if (due[i] && which-- == 0) {
            run_timer(&w->process[i]);
            return;
        }
    }
}

/* ---- faults ---- */

static struct process *pick(struct world *w, enum process_kind kind, bool any)
{
    struct process *found = NULL;
    uint64_t n = 0;
    for (unsigned i = 0; i < w->processes; i++) {
        struct process *p = &w->process[i];
        if (p->is_alive && (any || p->kind == kind) && sim_random(w, ++n) == 0)
            found = p;
    }
    return found;
}

static void fault_kill(struct world *w)
{
    struct process *p = pick(w, SIM_ROUTER, sim_chance(w, 500));
    if (p != NULL)
        process_kill(p, sim_random(w, 2500));
}

static void fault_sender(struct world *w)
{
    struct process *p = pick(w, SIM_SENDER, false);
    if (p == NULL)
        return;
    if (sim_chance(w, 600)) {
        process_kill(p, sim_random(w, 2500));
        return;
    }
    p->asleep_until_ms = w->now_ms + 50 + sim_random(w, 3000);
    sim_trace(w, "sender %u sleeps until %" PRIu64, p->pid, p->asleep_until_ms);
}

static void fault_sleep(struct world *w)
{
    struct process *p = pick(w, SIM_ROUTER, sim_chance(w, 400));
    if (p == NULL)
        return;
    p->asleep_until_ms = w->now_ms + 50 + sim_random(w, sim_chance(w, 300) ? 5000 : 1500);
    sim_trace(w, "%s %u sleeps until %" PRIu64, kind_name(p->kind), p->pid, p->asleep_until_ms);
}

static void fault_cut(struct world *w)
{
    const struct process *p = pick(w, SIM_ROUTER, sim_chance(w, 600));
    if (p == NULL)
        return;
    sim_trace(w, "connections of %s %u break", kind_name(p->kind), p->pid);
    memory_cut(w->store, p->pid);
}

static void fault_restart(struct world *w)
{
    sim_trace(w, "the store restarts");
    memory_restart(w->store);
}

static void fault_stop(struct world *w)
{
    struct process *p = pick(w, SIM_ROUTER, false);
    if (p == NULL || !is_awake(p))
        return;
    sim_trace(w, "router %u stops cleanly", p->pid);
    router_release_all(p->router, on_router_stopped, p);
}

static void fault_pushes(struct world *w)
{
    memory_lose_pushes(w->store, sim_chance(w, 500) ? 400 : 50);
}

static void fault_none(struct world *w)
{
    time_pass(w, sim_random(w, 400));
}

static void cause_fault(struct world *w)
{
    static void (*const faults[])(struct world *) = {fault_sender,  fault_kill, fault_kill,   fault_sleep,
                                                     fault_sleep,   fault_cut,  fault_cut,    fault_cut,
                                                     fault_restart, fault_stop, fault_pushes, fault_none};
    w->faults++;
    faults[sim_random(w, sizeof faults / sizeof faults[0])](w);
}

static void heal(struct world *w)
{
    sim_trace(w, "healed");
    w->is_healed = true;
    memory_lose_pushes(w->store, 0);
    for (unsigned i = 0; i < w->processes; i++) {
        struct process *p = &w->process[i];
        p->asleep_until_ms = 0;
        if (p->kind == SIM_BOT)
            process_kill(p, 0); /* a slow one becomes a quick one */
        at_most(&p->start_at_ms, w->now_ms);
    }
    people_heal(w);
    time_pass(w, 1);
}

/* ---- a whole run ---- */

static void add(struct world *w, enum process_kind kind, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct process *p = &w->process[w->processes];
        *p = (struct process){.w = w, .kind = kind, .slot = w->processes++};
        p->start_at_ms = w->now_ms + (i == 0 ? 0 : sim_random(w, 400));
    }
}

static struct world *world_new(const struct options *o, uint64_t seed, bool is_traced)
{
    struct world *w = sl_alloc(sizeof *w);
    w->o = o;
    w->seed = seed;
    w->random_state = seed * 0x2545f4914f6cdd1dULL + 1;
    w->digest = 0xcbf29ce484222325ULL;
    w->now_ms = 1000;
    w->unix_ms = 1700000000000;
    w->next_pid = 1;
    w->is_traced = is_traced;
    w->fault_one_in =
        UINT64_C(25) << sim_random(w, 4); /* a quiet world and a violent one find different things */
    w->late_chance = sim_chance(w, 500) ? 500 : 20;
    bool is_forgetful = sim_chance(w, 250);
    (void)snprintf(w->rules, sizeof w->rules, RULES, is_forgetful ? 1500 : 6000, sim_chance(w, 500) ? 0 : 900,
                   is_forgetful ? 1000 : 600000);
    w->store = memory_store_new(seed);
    bus_args_init(&w->args);
    for (unsigned k = 0; k < SIM_PARTITIONS; k++)
        key_partition_tag(w->tag[k], k);
    key_desk_tag(w->tag[SIM_DESK], SL_STR(SIM_TENANT));
    key_lane_tag(w->tag[SIM_LANE], SL_STR("sms"));
    w->policy = (int)(seed % 4);
    record_start(w);
    add(w, SIM_ROUTER, 2 + (unsigned)sim_random(w, 2));
    add(w, SIM_GATEWAY, 2);
    add(w, SIM_BOT, 2);
    add(w, SIM_SENDER, 2);
    people_new(w);
    part_set_poison_hook(on_poison, w);
    return w;
}

static void fault_phase(struct world *w)
{
    while (w->steps < FAULT_STEPS && w->verdict[0] == '\0') {
        w->steps++;
        if (!w->o->is_calm && w->steps > 200 && sim_random(w, w->fault_one_in) == 0)
            cause_fault(w);
        else if (sim_random(w, 24) == 0)
            time_pass(w, sim_random(w, 8));
        else
            move(w);
        if (w->steps % 64 == 0) {
            record_all(w);
            check_often(w);
        }
    }
}

static void drain_phase(struct world *w)
{
    uint64_t end = w->steps + HEALED_STEPS;
    const char *why = "the people are not done";
    for (bool is_drained = false; !is_drained && w->verdict[0] == '\0';) {
        if (w->steps++ >= end) {
            sim_fail(w, "stalled: not drained %d steps after healing: %s", HEALED_STEPS, why);
            return;
        }
        move(w);
        if (w->steps % 64 != 0)
            continue;
        record_all(w);
        check_often(w);
        is_drained = check_is_drained(w, &why);
    }
}

static bool is_behind(struct world *w, struct visitor *v)
{
    if (!check_is_behind(w, v)) {
        v->behind_since_ms = 0;
        return false;
    }
    if (v->behind_since_ms == 0 || v->behind_at != v->cursor) {
        v->behind_since_ms = w->now_ms;
        v->behind_at = v->cursor;
    }
    if (w->now_ms - v->behind_since_ms > SIM_SHOWN_IN_MS)
        sim_fail(w, "I11 visitor %u has shown %" PRIu64 " entries for %d s, there are more", v->index,
                 v->cursor, SIM_SHOWN_IN_MS / 1000);
    return true;
}

/* Everything is decided; every open socket has 30 s to show it. */
static void watch_phase(struct world *w)
{
    for (bool is_anyone_behind = true; is_anyone_behind && w->verdict[0] == '\0';) {
        w->steps++;
        move(w);
        if (w->steps % 64 != 0)
            continue;
        is_anyone_behind = false;
        for (unsigned i = 0; i < w->visitors; i++)
            is_anyone_behind = is_behind(w, &w->visitor[i]) || is_anyone_behind;
    }
    record_all(w);
}

/* What was decided until it stalled, for whoever reads the trace. */
static void show_decisions(struct world *w)
{
    char verdict[sizeof w->verdict];
    memcpy(verdict, w->verdict, sizeof verdict);
    w->verdict[0] = '\0';
    check_all(w);
    memcpy(w->verdict, verdict, sizeof verdict);
}

/* A store that loses nothing never leaves a destination short of a fact; the relay heals it, so it must be seen here. */
static int64_t gaps_so_far(void)
{
    return sl_metric_value(sl_counter("sluice_relay_gaps_total", "", ""));
}

struct world *world_run(const struct options *o, uint64_t seed, bool is_traced)
{
    int64_t gaps = gaps_so_far();
    struct world *w = world_new(o, seed, is_traced);
    time_pass(w, 0);
    fault_phase(w);
    if (w->verdict[0] == '\0') {
        heal(w);
        drain_phase(w);
    }
    if (w->verdict[0] == '\0')
        check_places(w);
    if (gaps_so_far() != gaps)
        sim_fail(w, "I4 a destination lacked a fact that the relay took for delivered");
    if (w->verdict[0] == '\0')
        watch_phase(w);
    if (w->verdict[0] == '\0')
        check_shown(w);
    if (w->verdict[0] == '\0')
        check_all(w);
    else if (w->is_traced)
        show_decisions(w);
    sim_digest(w, &w->now_ms, sizeof w->now_ms);
    return w;
}

void world_free(struct world **wp)
{
    struct world *w = *wp;
    *wp = NULL;
    for (unsigned i = 0; i < w->processes; i++)
        process_kill(&w->process[i], 0);
    part_set_poison_hook(NULL, NULL);
    people_free(w);
    lanes_free(w);
    record_free(w);
    memory_store_free(&w->store);
    bus_args_fini(&w->args);
    free(w);
}
