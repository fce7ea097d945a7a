/* tests/unit/test_partition.c - tail, step, commit under one lease: every interleaving by hand, over the store in memory. */
#include "part_world.h"

#define COMMIT "commit_1"

static int setup(void **state)
{
    *state = world_new(1);
    return 0;
}

static int teardown(void **state)
{
    world_free(*state);
    return 0;
}

/* ---- batches ---- */

struct batch {
    int64_t events, now;
    size_t records, bytes;
};

/* Batch i of the fact log. */
static bool batch_at(struct world *w, size_t i, struct batch *out)
{
    const struct bus_value *log = peek(w, "XRANGE out:{" TAG "} - +");
    if (i >= bus_value_count(log))
        return false;
    const struct bus_value *items = bus_value_at(bus_value_at(log, i), 1);
    *out = (struct batch){.records = bus_value_count(items) / 2 - 1};
    for (size_t f = 1; f < bus_value_count(items); f += 2)
        out->bytes += f == 1 ? 0 : bus_value_str(bus_value_at(items, f)).len;
    json_t *record = sl_json_parse(bus_value_str(bus_value_at(items, 1)), NULL);
    assert_non_null(record);
    out->events = sl_json_get_int(record, "count", 0);
    out->now = sl_json_get_int(record, "now", 0);
    json_decref(record);
    return true;
}

static void test_batch_ends_at_64_events(void **state)
{
    struct world *w = *state;
    struct batch b;
    int64_t events = 0;
    say_many(w, "a", 500);
    own(&w->proc[0]);
    pass(w, 100);
    for (size_t i = 0; batch_at(w, i, &b); i++) {
        assert_true(b.events >= 1 && b.events <= PART_BATCH_EVENTS);
        events += b.events;
    }
    assert_int_equal(events, 500);
    assert_true(batch_at(w, 1, &b) && b.events == PART_BATCH_EVENTS);
    assert_int_equal(w->steps, 500);
    assert_int_equal(number(w, "LLEN log:{" TAG "}:a"), 500);
}

static void test_batch_ends_at_256_facts(void **state)
{
    struct world *w = *state;
    struct batch b;
    char id[48];
    for (int i = 0; i < 40; i++)
        say_facts(w, "a", 60, id);
    own(&w->proc[0]);
    pass(w, 100);
    size_t batches = 0;
    for (; batch_at(w, batches, &b); batches++)
        assert_true(b.records - (size_t)b.events <= PART_BATCH_FACTS); /* an entry of the history each */
    assert_true(batches >= 10 && batches <= 14);
    assert_int_equal(number(w, "XLEN " TO), 2400);
}

static void test_batch_ends_at_128_kib(void **state)
{
    struct world *w = *state;
    struct batch b;
    char id[48];
    struct sl_buf big;
    sl_buf_init(&big, 0);
    sl_buf_char(&big, '{');
    for (int i = 0; i < 20000; i++)
        sl_buf_char(&big, ' ');
    sl_buf_char(&big, '}');
    for (int i = 0; i < 30; i++) {
        struct event ev = message("a");
        ev.data = sl_buf_view(&big);
        append(w, &ev, id);
    }
    own(&w->proc[0]);
    pass(w, 100);
    size_t batches = 0;
    for (; batch_at(w, batches, &b); batches++)
        assert_true(b.bytes < PART_BATCH_BYTES + 2 * 20000);
    assert_true(batches >= 5);
    assert_int_equal(w->steps, 30);
    sl_buf_fini(&big);
}

static void test_one_commit_is_in_flight(void **state)
{
    struct world *w = *state;
    char id[48];
    say(w, "a", id);
    own(&w->proc[0]);
    w->held = COMMIT;
    for (int i = 0; i < 10; i++) {
        say(w, "a", id);
        pass(w, 50);
    }
    assert_true(execute(w, COMMIT));
    assert_false(is_pending(w, 1, COMMIT)); /* there was one only */
    w->held = NULL;
    pass(w, 100);
    assert_string_equal(offset(w), id);
    assert_int_equal(w->steps, 11);
}

static void test_queue_pauses_the_tail_and_resumes(void **state)
{
    struct world *w = *state;
    struct part *p = w->proc[0].part;
    own(&w->proc[0]);
    w->held = COMMIT;
    say_many(w, "a", 1500);
    pass(w, 100);
    assert_true(p->is_paused);
    assert_true(p->queue_count >= PART_QUEUE_EVENTS && p->queue_count < PART_QUEUE_EVENTS + 64);
    w->held = NULL;
    pass(w, 500);
    assert_false(p->is_paused);
    assert_int_equal(w->steps, 1500);
    assert_int_equal(p->queue_count, 0);
}

/* A batch is stepped with the instant that its record names, also when it had to wait for a state. */
static void test_batch_has_one_now(void **state)
{
    struct world *w = *state;
    struct batch b;
    char id[48];
    struct event ev = message("a");
    ev.name = SL_STR("soon"), ev.gen = 1, ev.wait_ms = 300;
    append(w, &ev, id);
    own(&w->proc[0]);
    settle(w);
    say(w, "a", id);
    ev = message("a");
    ev.queue = SL_STR("second");
    append(w, &ev, id);
    w->held = "HMGET"; /* the second event waits for its state while a timer comes due */
    pass(w, 500);
    w->held = NULL;
    assert_true(execute(w, "HMGET") && execute(w, "tick_1") && execute(w, "XREAD"));
    memory_reply(w->store, 1, 1); /* the timer's event is read before the state's answer is */
    assert_true(w->proc[0].part->is_fetching && w->proc[0].part->queue_count == 3);
    pass(w, 500);
    unsigned at = 0;
    for (size_t i = 0; batch_at(w, i, &b); i++)
        for (int64_t n = 0; n < b.events; n++)
            assert_int_equal(w->step[at++].now_ms, b.now);
    assert_int_equal(at, w->steps);
    assert_int_equal(w->steps, 4);
    assert_int_equal(w->timers['s'], 1);
    assert_true(w->step[3].now_ms >= w->step[0].now_ms + 300); /* nor is a deadline judged before it is due */
}

/* ---- a commit whose outcome is unknown ---- */

static void test_lost_reply_is_success(void **state)
{
    struct world *w = *state;
    char id[48], second[48];
    own(&w->proc[0]);
    w->held = COMMIT;
    say_facts(w, "a", 3, id);
    settle(w);
    assert_true(execute(w, COMMIT));
    w->held = NULL;
    memory_cut(w->store, 1);
    pass(w, 300);
    assert_int_equal(w->steps, 1);
    assert_string_equal(offset(w), id);
    assert_int_equal(number(w, "XLEN out:{" TAG "}"), 1);
    assert_int_equal(number(w, "XLEN " TO), 3);
    say_facts(w, "a", 1, second); /* and the next commit is an ordinary one */
    pass(w, 300);
    assert_int_equal(w->steps, 2);
    assert_string_equal(offset(w), second);
    assert_int_equal(number(w, "XLEN dead:{" TAG "}"), 0);
    assert_int_equal(number(w, "XLEN " TO), 4);
    assert_int_equal(w->proc[0].lost, 0);
    pass(w, 1500);
    assert_string_not_equal(ask(w, "HGET relay:{" TAG "} @"), "nil");
    assert_string_equal(ask(w, "HGET relay:{" TAG "} " TO), "4");
}

/* The request may be lost with its connection, or float and be executed before or after the repetition. */
static void test_lost_request_is_repeated_as_it_was(void **unused)
{
    (void)unused;
    unsigned gone = 0, early = 0, late = 0;
    for (uint64_t seed = 1; seed <= 24; seed++) {
        struct world *w = world_new(seed);
        char id[48];
        own(&w->proc[0]);
        w->held = COMMIT;
        say_facts(w, "a", 2, id);
        pass(w, 20);
        memory_cut(w->store, 1);
        bool is_floating = is_pending(w, UINT_MAX, COMMIT);
        gone += is_floating ? 0 : 1;
        if (is_floating && seed % 2 == 0) {
            assert_true(execute(w, COMMIT));
            early++;
        }
        say_many(w, "b", 3); /* what comes meanwhile must not join the commit that is repeated */
        pass(w, 300);
        if (is_floating && seed % 2 != 0) {
            execute_of(w, 1, COMMIT);
            execute_of(w, UINT_MAX, COMMIT); /* the one that floated: refused, and nobody hears it */
            late++;
        }
        w->held = NULL;
        pass(w, 500);
        assert_int_equal(w->steps, 4);
        assert_int_equal(number(w, "LLEN log:{" TAG "}:a"), 1);
        assert_int_equal(number(w, "LLEN log:{" TAG "}:b"), 3);
        assert_int_equal(number(w, "XLEN " TO), 2);
        assert_int_equal(w->proc[0].lost, 0);
        world_free(w);
    }
    assert_true(gone > 0 && early > 0 && late > 0);
}

static void test_reconnect_after_reconnect(void **state)
{
    struct world *w = *state;
    char id[48];
    own(&w->proc[0]);
    w->held = COMMIT;
    say_facts(w, "a", 2, id);
    for (int i = 0; i < 5; i++) {
        pass(w, 120);
        memory_cut(w->store, 1);
        settle(w);
    }
    w->held = NULL;
    pass(w, 500);
    assert_int_equal(w->steps, 1);
    assert_string_equal(offset(w), id);
    assert_int_equal(number(w, "XLEN " TO), 2);
    assert_int_equal(w->proc[0].lost, 0);
}

/* ---- fenced ---- */

static void test_fenced_commit_writes_nothing(void **state)
{
    struct world *w = *state;
    struct proc *old = &w->proc[0], *fresh = proc_start(w);
    char id[48];
    turn(w);
    own(old);
    w->held = COMMIT;
    say_facts(w, "a", 2, id);
    settle(w);
    clocks(w, 1); /* the old one is asleep: only the store's clock and the new owner's move on */
    int64_t later = sl_loop_unix_ms(fresh->loop) + LEASE_MS + 1;
    memory_store_clock(w->store, later);
    w->held = NULL;
    part_acquire(fresh->part);
    settle_alone(w, fresh);
    assert_int_equal(fresh->running, 1);
    assert_int_equal(old->lost, 0);
    assert_true(is_pending(w, 1, COMMIT));
    settle(w); /* now the old commit arrives */
    assert_int_equal(old->lost, 1);
    assert_int_equal(part_state_now(old->part), PART_LOST);
    assert_null(old->part->first);
    assert_int_equal(relay_backlog(old->part->relay), 0);
    assert_int_equal(number(w, "XLEN out:{" TAG "}"), 1);
    assert_int_equal(number(w, "LLEN log:{" TAG "}:a"), 1);
    assert_int_equal(number(w, "XLEN " TO), 2);
    assert_int_equal(steps_of(w, id), 2); /* once by each, written once */
}

static void test_lost_owner_acquires_again(void **state)
{
    struct world *w = *state;
    struct proc *pr = &w->proc[0];
    char id[48];
    own(pr);
    say(w, "a", id);
    settle(w);
    (void)ask(w, "HSET meta:{" TAG "} epoch 1999999999999");
    say(w, "a", id);
    settle(w);
    assert_int_equal(pr->lost, 1);
    own(pr);
    assert_int_equal(pr->running, 2);
    pass(w, 100);
    assert_string_equal(offset(w), id);
    assert_int_equal(number(w, "LLEN log:{" TAG "}:a"), 2);
    assert_string_equal(ask(w, "HGET conv:{" TAG "}:a s"), "2");
}

/* ---- lost data ---- */

static void test_offset_that_moved_back_raises_the_generation(void **state)
{
    struct world *w = *state;
    struct proc *pr = &w->proc[0];
    char first[48], id[48], line[120];
    own(pr);
    say(w, "a", first);
    settle(w);
    say(w, "a", id);
    settle(w);
    int64_t gen = number(w, "HGET meta:{" TAG "} gen");
    (void)snprintf(line, sizeof line, "HSET meta:{" TAG "} offset %s", first); /* as after a failover */
    (void)ask(w, line);
    (void)ask(w, "RPUSH spare x");
    say(w, "b", id);
    settle(w);
    assert_int_equal(pr->lost, 1);
    clocks(w, 5);
    own(pr);
    assert_true(number(w, "HGET meta:{" TAG "} gen") > gen);
    assert_int_equal(number(w, "HGET meta:{" TAG "} gen"), pr->part->epoch);
}

/* The epoch went back with the rest, so the owner is fenced first: it must still see that its own offset is gone. */
static void test_fenced_owner_sees_that_data_was_lost(void **state)
{
    struct world *w = *state;
    struct proc *pr = &w->proc[0];
    char first[48], id[48], line[120];
    own(pr);
    say(w, "a", first);
    settle(w);
    say(w, "a", id);
    settle(w);
    int64_t gen = number(w, "HGET meta:{" TAG "} gen");
    (void)snprintf(line, sizeof line, "HSET meta:{" TAG "} offset %s epoch 5 run OTHER until 0", first);
    (void)ask(w, line);
    say(w, "b", id);
    settle(w);
    assert_int_equal(pr->lost, 1);
    clocks(w, 5);
    own(pr);
    settle(w);
    assert_int_equal(part_state_now(pr->part), PART_RUNNING);
    assert_true(number(w, "HGET meta:{" TAG "} gen") > gen);
}

/* ---- facts and positions ---- */

static void test_nothing_is_relayed_before_its_commit(void **state)
{
    struct world *w = *state;
    char id[48];
    own(&w->proc[0]);
    w->held = COMMIT;
    say_facts(w, "a", 5, id);
    pass(w, 200);
    assert_int_equal(number(w, "EXISTS " TO), 0);
    w->held = NULL;
    settle(w);
    assert_int_equal(number(w, "XLEN " TO), 5);
}

static void test_positions_are_saved_alone_within_a_second(void **state)
{
    struct world *w = *state;
    char id[48];
    own(&w->proc[0]);
    say_facts(w, "a", 5, id);
    settle(w);
    assert_string_equal(ask(w, "HGET relay:{" TAG "} " TO), "nil");
    pass(w, 1100);
    assert_string_equal(ask(w, "HGET relay:{" TAG "} " TO), "5");
    assert_string_not_equal(ask(w, "HGET relay:{" TAG "} @"), "nil");
}

static void test_positions_are_saved_with_the_next_commit(void **state)
{
    struct world *w = *state;
    char id[48];
    own(&w->proc[0]);
    say_facts(w, "a", 5, id);
    settle(w);
    say(w, "a", id);
    settle(w);
    assert_string_equal(ask(w, "HGET relay:{" TAG "} " TO), "5");
}

static void test_positions_are_saved_on_release(void **state)
{
    struct world *w = *state;
    struct proc *pr = &w->proc[0];
    char id[48];
    own(pr);
    say_facts(w, "a", 5, id);
    settle(w);
    part_release(pr->part);
    assert_int_equal(pr->idle, 0);
    settle(w);
    assert_int_equal(pr->idle, 1);
    assert_string_equal(ask(w, "HGET relay:{" TAG "} " TO), "5");
    assert_string_equal(ask(w, "HGET meta:{" TAG "} run"), "nil");
}

/* The answer about positions that were saved alone is lost while a commit without positions is under way. */
static void test_positions_not_saved_are_tried_again(void **state)
{
    struct world *w = *state;
    struct proc *pr = &w->proc[0];
    char id[48];
    own(pr);
    say_facts(w, "a", 5, id);
    settle(w);
    w->held = "relay_1";
    for (int i = 0; i < 120 && !is_pending(w, 1, "relay_1"); i++)
        pass(w, 10);
    assert_true(is_pending(w, 1, "relay_1"));
    assert_true(pr->part->is_housekeeping);
    say(w, "a", id);
    pass(w, 20); /* read and stepped; its commit stands behind the held one */
    assert_true(pr->part->is_committing);
    (void)ask(w, "SET nothing x");
    memory_restart(w->store); /* both are gone */
    w->held = NULL;
    pass(w, 200);
    assert_string_equal(offset(w), id);
    pass(w, 1200);
    assert_string_equal(ask(w, "HGET relay:{" TAG "} " TO), "5");
}

/* ---- takeover ---- */

static struct proc *take_over(struct world *w, struct proc *from)
{
    struct proc *to = proc_start(w);
    proc_kill(from);
    clocks(w, LEASE_MS + 10);
    own(to);
    return to;
}

static void test_takeover_relays_what_was_committed(void **state)
{
    struct world *w = *state;
    char id[48];
    own(&w->proc[0]);
    w->held = "deliver_1";
    say_facts(w, "a", 5, id);
    settle(w);
    assert_int_equal(number(w, "XLEN out:{" TAG "}"), 1);
    w->held = NULL;
    struct proc *fresh = take_over(w, &w->proc[0]);
    assert_int_equal(fresh->running, 1);
    assert_int_equal(number(w, "XLEN " TO), 5);
    assert_int_equal(w->steps, 1);
    say_facts(w, "a", 1, id);
    settle(w);
    assert_int_equal(number(w, "XLEN " TO), 6);
    assert_string_equal(ask(w, "HGET from:{9} forks"), "nil");
}

static void test_takeover_doubles_nothing(void **state)
{
    struct world *w = *state;
    char id[48];
    own(&w->proc[0]);
    for (int i = 0; i < 3; i++) {
        say_facts(w, "a", 5, id);
        settle(w);
    }
    (void)ask(w, "DEL relay:{" TAG "}"); /* the positions were not saved */
    (void)take_over(w, &w->proc[0]);
    assert_int_equal(number(w, "XLEN " TO), 15);
    assert_string_equal(ask(w, "HGET from:{9} forks"), "nil");
    pass(w, 1200);
    assert_string_equal(ask(w, "HGET relay:{" TAG "} " TO), "15");
}

/* Two destinations in one entry, one is served, the other is not: the place in the fact log must not pass the entry. */
static void test_takeover_keeps_its_place_before_an_open_fact(void **state)
{
    struct world *w = *state;
    char id[48];
    struct event to_bot = message("a");
    to_bot.number = 1, to_bot.reply_to = SL_STR("bot:x");
    (void)ask(w, "RPUSH " TO " not-a-stream"); /* it refuses all */
    append(w, &to_bot, id);
    say_facts(w, "a", 1, id);
    own(&w->proc[0]);
    pass(w, 1500);
    assert_int_equal(number(w, "XLEN out:{" TAG "}"), 1);
    assert_string_equal(ask(w, "HGET relay:{" TAG "} bot:x"), "1");
    struct proc *second = take_over(w, &w->proc[0]);
    pass(w, 1500); /* positions are saved; the fact is still open */
    assert_int_equal(second->running, 1);
    (void)ask(w, "DEL " TO);
    proc_kill(second);
    struct proc *third = proc_start(w);
    clocks(w, LEASE_MS + 10);
    own(third);
    pass(w, 500);
    assert_int_equal(number(w, "XLEN " TO), 1);
}

/* A destination lost what it had: it gets the facts again, from the fact log, under a new lease epoch. */
static void test_gap_is_filled_from_the_fact_log(void **state)
{
    struct world *w = *state;
    struct proc *pr = &w->proc[0];
    char id[48];
    own(pr);
    say_facts(w, "a", 5, id);
    pass(w, 1200);
    assert_string_equal(ask(w, "HGET relay:{" TAG "} " TO), "5");
    (void)ask(w, "DEL " TO " from:{9}");
    say_facts(w, "a", 2, id);
    settle(w);
    assert_int_equal(pr->lost, 1);
    own(pr);
    pass(w, 1200);
    assert_int_equal(pr->lost, 1);
    assert_int_equal(number(w, "XLEN " TO), 7);
    assert_int_equal(w->steps, 2);
    assert_string_equal(ask(w, "HGET relay:{" TAG "} " TO), "7");
}

/* A fact that cannot be read again is said aloud; its destination waits (the next number would be a gap), the others do not. */
static void test_unreadable_fact_stops_its_destination_alone(void **state)
{
    struct world *w = *state;
    struct proc *pr = &w->proc[0];
    char id[48];
    bus_args_clear(&w->args);
    static const char *const words[] = {"XADD",
                                        "out:{" TAG "}",
                                        "*",
                                        "b",
                                        "{\"epoch\":5}",
                                        "f",
                                        "{\"d\":\"" TO "\",\"f\":1,\"e\":{\"t\":\"later-version\"}}"};
    for (size_t i = 0; i < 7; i++)
        bus_args_c(&w->args, words[i]);
    (void)memory_peek(w->store, &w->args);
    (void)ask(w, "HSET num:{" TAG "} " TO " 1");
    own(pr);
    assert_int_equal(sl_metric_value(sl_counter("sluice_facts_unreadable_total", "", "")), 1);
    say_facts(w, "a", 1, id);
    pass(w, 1500);
    assert_int_equal(number(w, "EXISTS " TO), 0);
    assert_int_equal(pr->lost, 0);
    struct event to_bot = message("a");
    to_bot.number = 1, to_bot.reply_to = SL_STR("bot:x");
    append(w, &to_bot, id);
    pass(w, 100);
    assert_int_equal(number(w, "XLEN bot:x"), 1);
    /* a takeover must find the place before it again */
    pass(w, 1500);
    assert_string_equal(ask(w, "HGET relay:{" TAG "} @"), "nil");
}

/* ---- poison ---- */

static bool is_dead_letter(struct world *w, const char *entry)
{
    char line[96];
    (void)snprintf(line, sizeof line, "[e %s r ", entry);
    return strstr(ask(w, "XRANGE dead:{" TAG "} - +"), line) != NULL;
}

static void test_takeovers_at_one_offset_are_counted(void **state)
{
    struct world *w = *state;
    char bad[48];
    own(&w->proc[0]);
    w->held = COMMIT; /* stands for a process that dies in step(): nothing of it is ever written */
    say(w, "a", bad);
    say_many(w, "a", 5);
    settle(w);
    assert_int_equal(w->proc[0].part->tries, 0);
    assert_int_equal(w->proc[0].part->batch_count, 1 + 5);
    struct proc *second = take_over(w, &w->proc[0]);
    assert_int_equal(second->part->tries, 1);
    struct proc *third = take_over(w, second);
    assert_int_equal(third->part->tries, 2);
    assert_int_equal(third->part->batch_count, 1); /* careful: one event a commit */
    assert_int_equal(w->buried, 0);
}

static void tries_set(struct world *w, int tries)
{
    char line[160], at[48];
    (void)snprintf(at, sizeof at, "%s", offset(w));
    if (strcmp(at, "nil") == 0)
        (void)snprintf(at, sizeof at, "0-0");
    (void)snprintf(line, sizeof line, "HSET meta:{" TAG "} run DEAD until 0 tries %d tried %s offset %s",
                   tries, at, at);
    (void)ask(w, line);
}

static void test_second_try_commits_one_event_at_a_time(void **state)
{
    struct world *w = *state;
    struct batch b;
    char id[48];
    for (int i = 0; i < 5; i++)
        say(w, "a", id);
    tries_set(w, 1);
    own(&w->proc[0]);
    pass(w, 100);
    for (size_t i = 0; i < 5; i++)
        assert_true(batch_at(w, i, &b) && b.events == 1);
    assert_int_equal(w->steps, 5);
    say_many(w, "a", 10); /* beyond what was there at the takeover */
    pass(w, 100);
    assert_true(batch_at(w, 5, &b) && b.events > 1);
}

static void test_third_try_buries_the_first_alone(void **state)
{
    struct world *w = *state;
    char bad[48], id[48];
    say(w, "a", bad);
    say(w, "a", id);
    say(w, "a", id);
    tries_set(w, 2);
    own(&w->proc[0]);
    pass(w, 100);
    assert_int_equal(steps_of(w, bad), 0);
    assert_int_equal(w->steps, 2);
    assert_true(is_dead_letter(w, bad));
    assert_int_equal(number(w, "XLEN dead:{" TAG "}"), 1);
    assert_string_equal(offset(w), id);
    assert_contains(ask(w, "LRANGE log:{" TAG "}:a 0 0"), "\"dead\":true");
    assert_int_equal(number(w, "LLEN log:{" TAG "}:a"), 3);
}

static void test_unreadable_event_is_buried_alone(void **state)
{
    struct world *w = *state;
    char id[48], bad[48];
    own(&w->proc[0]);
    w->held = "XREAD";
    say(w, "a", id);
    part_id_set(bad, bus_value_str(peek(w, "XADD in:{" TAG "} * t nonsense c a")));
    say(w, "a", id);
    w->held = NULL;
    pass(w, 1200);
    assert_int_equal(w->steps, 2);
    assert_true(is_dead_letter(w, bad));
    assert_contains(ask(w, "XRANGE dead:{" TAG "} - +"), "t nonsense c a");
    assert_int_equal(number(w, "LLEN log:{" TAG "}:nobody"), 1);
    assert_string_equal(offset(w), id);
}

/* An entry that nobody but a bare XADD can make: more strings than a dead letter may have. */
static void test_entry_with_too_many_fields_does_not_stop_the_partition(void **state)
{
    struct world *w = *state;
    char id[48];
    own(&w->proc[0]);
    bus_args_clear(&w->args);
    static const char *const words[] = {"XADD", "in:{" TAG "}", "*"};
    for (size_t i = 0; i < 3; i++)
        bus_args_c(&w->args, words[i]);
    for (int i = 0; i < 6000; i++)
        bus_args_c(&w->args, "x");
    (void)memory_peek(w->store, &w->args);
    say(w, "a", id);
    pass(w, 500);
    assert_string_equal(offset(w), id);
    assert_int_equal(number(w, "XLEN dead:{" TAG "}"), 1);
    assert_int_equal(w->proc[0].lost, 0);
}

static void test_refused_commit_is_halved_and_one_is_buried(void **state)
{
    struct world *w = *state;
    char bad[48], id[48];
    own(&w->proc[0]);
    say_many(w, "c", 1); /* in the cache, so the wrong type shows at the commit only */
    settle(w);
    (void)ask(w, "DEL log:{" TAG "}:c");
    (void)ask(w, "HSET log:{" TAG "}:c a list-no-more");
    for (int i = 0; i < 20; i++)
        say(w, i == 9 ? "c" : "a", i == 9 ? bad : id);
    pass(w, 500);
    assert_int_equal(number(w, "LLEN log:{" TAG "}:a"), 19);
    assert_true(is_dead_letter(w, bad));
    assert_int_equal(number(w, "XLEN dead:{" TAG "}"), 1);
    assert_string_equal(offset(w), id);
    assert_int_equal(w->proc[0].lost, 0);
}

static void test_state_of_wrong_type_buries_its_event(void **state)
{
    struct world *w = *state;
    char bad[48], id[48];
    (void)ask(w, "RPUSH conv:{" TAG "}:c x");
    own(&w->proc[0]);
    w->held = "XREAD";
    say(w, "a", id);
    say(w, "c", bad);
    say(w, "a", id);
    w->held = NULL;
    pass(w, 1500);
    assert_true(is_dead_letter(w, bad));
    assert_int_equal(number(w, "XLEN dead:{" TAG "}"), 1);
    assert_int_equal(number(w, "LLEN log:{" TAG "}:a"), 2);
    assert_string_equal(offset(w), id);
}

static void test_state_of_another_version_buries_its_event(void **state)
{
    struct world *w = *state;
    char bad[48], id[48];
    (void)ask(w, "HSET conv:{" TAG "}:c s not-a-number n 0 v 0");
    own(&w->proc[0]);
    say(w, "c", bad);
    say(w, "a", id);
    pass(w, 500);
    assert_true(is_dead_letter(w, bad));
    assert_string_equal(offset(w), id);
    assert_string_equal(ask(w, "HGET conv:{" TAG "}:c s"),
                        "not-a-number"); /* left as it is, for who can read it */
}

static void test_too_many_facts_bury_their_event(void **state)
{
    struct world *w = *state;
    char bad[48], id[48];
    say_facts(w, "a", 2, id);
    say_facts(w, "a", FX_FACTS_MAX + 1, bad);
    say_facts(w, "a", 2, id);
    own(&w->proc[0]);
    pass(w, 500);
    assert_true(is_dead_letter(w, bad));
    assert_int_equal(number(w, "XLEN " TO), 4);
    assert_string_equal(ask(w, "HGET num:{" TAG "} " TO), "4"); /* the numbers of the buried went back */
    assert_string_equal(offset(w), id);
    assert_int_equal(number(w, "LLEN log:{" TAG "}:a"), 3);
}

/* The placeholder itself is too much: then there is none, but the partition goes on. */
static void test_bury_that_causes_too_much_leaves_no_placeholder(void **state)
{
    struct world *w = *state;
    char bad[48], id[48];
    struct event ev = message("a");
    ev.number = FX_FACTS_MAX + 1, ev.reply_to = SL_STR(TO), ev.kind = SL_STR("loud");
    append(w, &ev, bad);
    say(w, "a", id);
    own(&w->proc[0]);
    for (int i = 0; i < 100 && part_state_now(w->proc[0].part) == PART_RUNNING; i++) {
        clocks(w, 1);
        for (int n = 0; n < 50 && sl_loop_virtual_step(w->proc[0].loop); n++) {
        }
        (void)(execute_one(w) || reply_one(w));
    }
    assert_true(is_dead_letter(w, bad));
    assert_string_equal(offset(w), id);
    assert_int_equal(number(w, "LLEN log:{" TAG "}:a"), 1);
}

/* ---- refusals that are not about the event: another store would take it ---- */

struct refusing {
    struct bus_impl impl;
    const struct bus_impl *real;
    const char *name, *words; /* commands of this name are refused in these words */
    unsigned left;
    bus_reply_fn fn;
    void *arg;
};
static struct refusing refusing;

static void on_refused(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct sl_fail fail;
    (void)arg, (void)err, (void)v, (void)why;
    (void)sl_fail_set(&fail, SL_EREFUSED, 0, "%s", refusing.words);
    refusing.fn(refusing.arg, SL_EREFUSED, NULL, &fail);
}

static sl_err refusing_command(struct bus *b, const struct bus_args *args, uint64_t deadline_ms,
                               bus_reply_fn fn, void *arg)
{
    bool is_hit = refusing.left > 0 && args->count > 2;
    if (is_hit)
        is_hit = sl_str_eq_c(sl_str_n(args->ptr[0], args->len[0]), refusing.name) ||
                 sl_str_eq_c(sl_str_n(args->ptr[1], args->len[1]), refusing.name);
    if (!is_hit)
        return refusing.real->command(b, args, deadline_ms, fn, arg);
    refusing.left--;
    refusing.fn = fn, refusing.arg = arg;
    struct bus_args ping; /* in its place goes something that is executed without a trace */
    bus_args_init(&ping);
    bus_args_c(&ping, "PING");
    sl_err err = refusing.real->command(b, &ping, deadline_ms, on_refused, NULL);
    bus_args_fini(&ping);
    return err;
}

static void refuse(struct proc *pr, const char *name, const char *words, unsigned times)
{
    refusing = (struct refusing){
        .impl = *pr->bus->impl, .real = pr->bus->impl, .name = name, .words = words, .left = times};
    refusing.impl.command = refusing_command;
    pr->bus->impl = &refusing.impl;
}

static void test_commit_refused_by_the_surroundings_buries_nothing(void **unused)
{
    (void)unused;
    static const char *const words[] = {"MOVED 5 10.0.0.1:6379: this server is part of a Redis Cluster",
                                        "NOAUTH Authentication required.",
                                        "NOPERM this user has no permissions"};
    for (size_t i = 0; i < 3; i++) {
        struct world *w = world_new(i + 1);
        struct proc *pr = &w->proc[0];
        char id[48];
        own(pr);
        refuse(pr, COMMIT, words[i], (unsigned)i + 1); /* for a moment only */
        say(w, "a", id);
        pass(w, 200);
        for (int n = 0; n < 5 && part_state_now(pr->part) == PART_LOST; n++) {
            own(pr);
            pass(w, 200);
        }
        assert_int_equal(number(w, "XLEN dead:{" TAG "}"), 0);
        assert_string_equal(offset(w), id);
        assert_true(pr->lost > 0);
        world_free(w);
    }
}

static void test_fetch_refused_by_the_surroundings_buries_nothing(void **state)
{
    struct world *w = *state;
    struct proc *pr = &w->proc[0];
    char id[48];
    own(pr);
    refuse(pr, "HMGET", "NOPERM this user has no permissions to run the 'hmget' command", 1);
    say(w, "a", id);
    pass(w, 200);
    assert_int_equal(pr->lost, 1);
    own(pr);
    pass(w, 200);
    assert_int_equal(number(w, "XLEN dead:{" TAG "}"), 0);
    assert_string_equal(offset(w), id);
}

/* ---- timers ---- */

static unsigned timer_events(struct world *w, const char *name)
{
    char member[64];
    unsigned n = 0;
    (void)snprintf(member, sizeof member, "t timer c a nm %s gen", name);
    for (const char *at = ask(w, "XRANGE in:{" TAG "} - +"); (at = strstr(at, member)) != NULL; at++)
        n++;
    return n;
}

static void set_timer(struct world *w, const char *name, int64_t gen, int64_t wait_ms)
{
    char id[48];
    struct event ev = message("a");
    ev.name = sl_str_c(name), ev.gen = gen, ev.wait_ms = wait_ms;
    append(w, &ev, id);
}

static void test_timer_ticks_once(void **state)
{
    struct world *w = *state;
    own(&w->proc[0]);
    set_timer(w, "idle", 7, 500);
    pass(w, 450);
    assert_int_equal(w->steps, 1);
    pass(w, 2000);
    assert_int_equal(w->steps, 2);
    assert_int_equal(timer_events(w, "idle"), 1);
    assert_int_equal(number(w, "ZCARD timers:{" TAG "}"), 0);
    assert_true(w->step[1].now_ms >= w->step[0].now_ms + 500);
}

static void test_timer_leaves_only_in_its_commit(void **state)
{
    struct world *w = *state;
    own(&w->proc[0]);
    set_timer(w, "idle", 7, 500);
    pass(w, 300);
    w->held = COMMIT;
    pass(w, 500);
    assert_int_equal(timer_events(w, "idle"), 1);
    assert_int_equal(number(w, "ZCARD timers:{" TAG "}"), 1);
    w->held = NULL;
    struct proc *fresh = take_over(w, &w->proc[0]);
    pass(w, 2000);
    assert_int_equal(fresh->running, 1);
    assert_int_equal(timer_events(w, "idle"), 1); /* not appended a second time */
    assert_int_equal(number(w, "ZCARD timers:{" TAG "}"), 0);
    assert_int_equal(number(w, "LLEN log:{" TAG "}:a"), 2);
}

static void test_timer_set_again_in_its_own_commit_survives(void **state)
{
    struct world *w = *state;
    own(&w->proc[0]);
    set_timer(w, "again", 1, 500);
    pass(w, 3900);
    assert_int_equal(w->timers['a'], 4);
    assert_int_equal(number(w, "ZCARD timers:{" TAG "}"), 1);
    set_timer(w, "same", 1, 200); /* under the same name and generation, too */
    pass(w, 10000);
    assert_int_equal(number(w, "ZCARD timers:{" TAG "}"), 1); /* "again" goes on, "same" ends at its fifth */
    assert_int_equal(w->timers['s'], 3);
}

static void test_earlier_timer_set_while_a_tick_is_in_flight(void **state)
{
    struct world *w = *state;
    struct proc *pr = &w->proc[0];
    own(pr);
    set_timer(w, "first", 1, 500);
    set_timer(w, "far", 1, 60000);
    pass(w, 480);
    w->held = "tick_1";
    pass(w, 40);
    assert_true(is_pending(w, 1, "tick_1"));
    assert_true(pr->part->is_ticking);
    set_timer(w, "near", 1, 100);
    pass(w, 10); /* its commit waits behind the tick on the connection */
    w->held = COMMIT;
    pass(w, 20); /* the tick is executed before it, and says "far" is next */
    w->held = NULL;
    pass(w, 400);
    assert_int_equal(timer_events(w, "first"), 1);
    assert_int_equal(timer_events(w, "near"), 1);
}

static void test_timer_of_the_last_owner_ticks_under_the_next(void **state)
{
    struct world *w = *state;
    own(&w->proc[0]);
    set_timer(w, "idle", 7, 4000);
    pass(w, 100);
    (void)take_over(w, &w->proc[0]);
    pass(w, 2000);
    assert_int_equal(timer_events(w, "idle"), 1);
    assert_int_equal(w->steps, 2);
}

/* ---- the clock ---- */

static void test_now_never_runs_back_between_skewed_owners(void **state)
{
    struct world *w = *state;
    char id[48];
    w->proc[0].skew_ms = 60000;
    clocks(w, 1);
    own(&w->proc[0]);
    for (int i = 0; i < 10; i++) {
        say(w, "a", id);
        pass(w, 500);
    }
    struct proc *slow = proc_start(w);
    slow->skew_ms = -120000;
    proc_kill(&w->proc[0]);
    clocks(w, LEASE_MS + 10);
    own(slow);
    for (int i = 0; i < 10; i++) {
        say(w, "a", id);
        pass(w, 500);
    }
    for (unsigned i = 1; i < w->steps; i++)
        assert_true(w->step[i].now_ms >= w->step[i - 1].now_ms);
    /* a clock two minutes behind slows it down by 5 % at most */
    int64_t passed = w->step[w->steps - 1].now_ms - w->step[w->steps - 10].now_ms;
    assert_true(passed >= 4500 * 95 / 100 - 10 && passed <= 4500);
    passed = w->step[9].now_ms - w->step[0].now_ms; /* and one a minute ahead speeds it up so much */
    assert_true(passed > 4500 && passed <= 4500 * 105 / 100 + 10);
}

/* ---- acquire, release, free, at any moment ---- */

static void test_release_during_a_commit(void **state)
{
    struct world *w = *state;
    struct proc *pr = &w->proc[0], *next = proc_start(w);
    char id[48];
    turn(w);
    own(pr);
    w->held = COMMIT;
    say_facts(w, "a", 2, id);
    settle(w);
    part_release(pr->part);
    w->held = NULL;
    settle(w);
    assert_int_equal(pr->idle, 1);
    assert_int_equal(pr->lost, 0);
    own(next);
    assert_int_equal(next->running, 1);
    assert_int_equal(number(w, "XLEN " TO), 2);
    assert_int_equal(w->steps, 1);
    assert_string_equal(offset(w), id);
}

/* Nobody must wait for a lease that its holder gave up before it heard that it had it. */
static void test_release_during_acquire_frees_the_lease(void **state)
{
    struct world *w = *state;
    struct proc *pr = &w->proc[0], *next = proc_start(w);
    turn(w);
    part_acquire(pr->part);
    pr->is_calling = true;
    part_release(pr->part);
    pr->is_calling = false;
    assert_int_equal(part_state_now(pr->part), PART_RELEASING);
    settle(w);
    assert_int_equal(pr->idle, 1);
    assert_int_equal(pr->running, 0);
    assert_false(pr->called_early);
    own(next);
    assert_int_equal(next->running, 1);
}

static void test_release_during_loading(void **state)
{
    struct world *w = *state;
    struct proc *pr = &w->proc[0], *next = proc_start(w);
    turn(w);
    w->held = "XRANGE";
    own(pr);
    assert_int_equal(part_state_now(pr->part), PART_LOADING);
    part_release(pr->part);
    w->held = NULL;
    settle(w);
    assert_int_equal(pr->idle, 1);
    assert_int_equal(pr->running, 0);
    own(next);
    assert_int_equal(next->running, 1);
}

static void test_no_callback_before_return(void **state)
{
    struct world *w = *state;
    struct proc *pr = &w->proc[0];
    memory_cut(w->store, 1); /* not connected: the store cannot be asked */
    pr->is_calling = true;
    part_acquire(pr->part);
    pr->is_calling = false;
    assert_false(pr->called_early);
    turn(w);
    assert_int_equal(pr->lost, 1);
    pass(w, 200);
    own(pr);
    assert_int_equal(pr->running, 1);
    memory_cut(w->store, 1);
    pr->is_calling = true;
    part_release(pr->part);
    pr->is_calling = false;
    assert_false(pr->called_early);
    turn(w);
    assert_int_equal(pr->idle, 1);
}

static void test_free_with_everything_in_flight(void **unused)
{
    (void)unused;
    static const char *const holds[] = {"acquire_1", "XRANGE", "HMGET",  COMMIT,
                                        "deliver_1", "tick_1", "relay_1"};
    for (size_t i = 0; i < sizeof holds / sizeof holds[0]; i++) {
        struct world *w = world_new(i + 1);
        char id[48];
        set_timer(w, "idle", 1, 300);
        say_facts(w, "a", 3, id);
        if (strcmp(holds[i], "deliver_1") == 0)
            (void)ask(w, "RPUSH " TO " not-a-stream"); /* or the facts would go along in the commit */
        w->held = holds[i];
        own(&w->proc[0]);
        pass(w, 1200);
        assert_true(is_pending(w, 1, holds[i]));
        part_free(&w->proc[0].part);
        w->held = NULL;
        pass(w, 100); /* the answers come to nobody */
        world_free(w);
    }
}

static void test_loading_keeps_the_lease(void **state)
{
    struct world *w = *state;
    struct proc *pr = &w->proc[0];
    char id[48];
    own(pr);
    (void)ask(w, "RPUSH " TO " not-a-stream");
    for (int i = 0; i < 80; i++)
        say_facts(w, "a", 64, id);
    pass(w, 500);
    proc_kill(pr);
    struct proc *next = proc_start(w), *other = proc_start(w);
    clocks(w, LEASE_MS + 10);
    for (int i = 0; i < 200; i++) /* more batches than are read at once, all of them open */
        (void)ask(w, "XADD out:{" TAG "} * b {\"epoch\":1}");
    own(next);
    assert_true(relay_backlog(next->part->relay) > PART_RELAY_MAX);
    assert_int_equal(part_state_now(next->part), PART_LOADING);
    pass(w, 2 * LEASE_MS);
    own(other);
    assert_int_equal(other->running, 0);
    assert_contains(other->why, "held by another");
    (void)ask(w, "DEL " TO);
    pass(w, 3000);
    assert_int_equal(next->running, 1);
    assert_int_equal(next->lost, 0);
}

static void test_relay_backlog_stops_new_batches(void **state)
{
    struct world *w = *state;
    struct part *p = w->proc[0].part;
    char id[48];
    own(&w->proc[0]);
    (void)ask(w, "RPUSH " TO " not-a-stream"); /* refused, again and again */
    for (int i = 0; i < 200; i++)
        say_facts(w, "a", 64, id);
    pass(w, 300);
    assert_true(relay_backlog(p->relay) > PART_RELAY_MAX);
    assert_true(relay_backlog(p->relay) <= PART_RELAY_MAX + PART_BATCH_FACTS);
    assert_true(w->steps < 200);
    (void)ask(w, "DEL " TO);
    pass(w, 1000);
    assert_int_equal(w->steps, 200);
    assert_int_equal(number(w, "XLEN " TO), 200 * 64);
    assert_false(p->is_paused);
}

static void test_lag_is_the_age_of_the_oldest(void **state)
{
    struct world *w = *state;
    struct part *p = w->proc[0].part;
    char id[48];
    own(&w->proc[0]);
    assert_int_equal(part_lag_ms(p), 0);
    w->held = COMMIT;
    say(w, "a", id);
    pass(w, 700);
    assert_int_equal(part_lag_ms(p), 700);
    w->held = NULL;
    pass(w, 100);
    assert_int_equal(part_lag_ms(p), 0);
}

static void test_deleted_state_begins_again_at_one(void **state)
{
    struct world *w = *state;
    char id[48];
    struct event bye = message("a");
    bye.type = EVENT_HANGUP;
    say_many(w, "a", 2);
    append(w, &bye, id);
    say(w, "a", id);
    own(&w->proc[0]);
    pass(w, 100);
    assert_int_equal(number(w, "LLEN log:{" TAG "}:a"), 1);
    assert_string_equal(ask(w, "HMGET conv:{" TAG "}:a s n"), "[1 1]");
    assert_int_equal(number(w, "XLEN dead:{" TAG "}"), 0);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        CASE(test_batch_ends_at_64_events),
        CASE(test_batch_ends_at_256_facts),
        CASE(test_batch_ends_at_128_kib),
        CASE(test_one_commit_is_in_flight),
        CASE(test_queue_pauses_the_tail_and_resumes),
        CASE(test_batch_has_one_now),
        CASE(test_lost_reply_is_success),
        cmocka_unit_test(test_lost_request_is_repeated_as_it_was),
        CASE(test_reconnect_after_reconnect),
        CASE(test_fenced_commit_writes_nothing),
        CASE(test_lost_owner_acquires_again),
        CASE(test_offset_that_moved_back_raises_the_generation),
        CASE(test_fenced_owner_sees_that_data_was_lost),
        CASE(test_nothing_is_relayed_before_its_commit),
        CASE(test_positions_are_saved_alone_within_a_second),
        CASE(test_positions_are_saved_with_the_next_commit),
        CASE(test_positions_are_saved_on_release),
        CASE(test_positions_not_saved_are_tried_again),
        CASE(test_takeover_relays_what_was_committed),
        CASE(test_takeover_doubles_nothing),
        CASE(test_takeover_keeps_its_place_before_an_open_fact),
        CASE(test_gap_is_filled_from_the_fact_log),
        CASE(test_unreadable_fact_stops_its_destination_alone),
        CASE(test_takeovers_at_one_offset_are_counted),
        CASE(test_second_try_commits_one_event_at_a_time),
        CASE(test_third_try_buries_the_first_alone),
        CASE(test_unreadable_event_is_buried_alone),
        CASE(test_entry_with_too_many_fields_does_not_stop_the_partition),
        CASE(test_refused_commit_is_halved_and_one_is_buried),
        CASE(test_state_of_wrong_type_buries_its_event),
        CASE(test_state_of_another_version_buries_its_event),
        CASE(test_too_many_facts_bury_their_event),
        CASE(test_bury_that_causes_too_much_leaves_no_placeholder),
        cmocka_unit_test(test_commit_refused_by_the_surroundings_buries_nothing),
        CASE(test_fetch_refused_by_the_surroundings_buries_nothing),
        CASE(test_timer_ticks_once),
        CASE(test_timer_leaves_only_in_its_commit),
        CASE(test_timer_set_again_in_its_own_commit_survives),
        CASE(test_earlier_timer_set_while_a_tick_is_in_flight),
        CASE(test_timer_of_the_last_owner_ticks_under_the_next),
        CASE(test_now_never_runs_back_between_skewed_owners),
        CASE(test_release_during_a_commit),
        CASE(test_release_during_acquire_frees_the_lease),
        CASE(test_release_during_loading),
        CASE(test_no_callback_before_return),
        cmocka_unit_test(test_free_with_everything_in_flight),
        CASE(test_loading_keeps_the_lease),
        CASE(test_relay_backlog_stops_new_batches),
        CASE(test_lag_is_the_age_of_the_oldest),
        CASE(test_deleted_state_begins_again_at_one),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
