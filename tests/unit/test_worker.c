/* tests/unit/test_worker.c - bot/worker.c over the store in memory: every task is answered and acknowledged, whatever breaks. */
#include "bot/worker.h"
#include "bus/bus_priv.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#define PROCESS_MAX 4

struct process {
    struct world *world;
    unsigned number;
    struct sl_loop *loop;
    struct bus *bus;
    struct bot_worker *worker;
    bool has_stopped;
};
struct world {
    struct memory_store *store;
    struct process process[PROCESS_MAX];
    struct bus_args args;
    unsigned asked;
};

/* The world moves. */

static bool move_process(struct process *p)
{
    if (p->loop == NULL)
        return false;
    if (memory_pending_replies(p->world->store, p->number) > 0) {
        memory_reply(p->world->store, p->number, 0);
        return true;
    }
    return sl_loop_virtual_step(p->loop);
}

static void settle(struct world *w)
{
    for (bool moved = true; moved;) {
        moved = false;
        for (size_t i = 0; i < PROCESS_MAX; i++)
            moved = move_process(&w->process[i]) || moved;
        if (memory_pending_requests(w->store) > 0) {
            memory_execute(w->store, 0);
            moved = true;
        }
    }
}

static void pass(struct world *w, uint64_t ms)
{
    for (uint64_t done = 0; done < ms; done += 50) {
        for (size_t i = 0; i < PROCESS_MAX; i++) {
            struct sl_loop *l = w->process[i].loop;
            if (l == NULL)
                continue;
            sl_loop_virtual_set(l, sl_loop_mono_ms(l) + 50, sl_loop_unix_ms(l) + 50);
            memory_store_clock(w->store, sl_loop_unix_ms(l));
        }
        settle(w);
    }
}

static int setup(void **state)
{
    struct world *w = sl_alloc(sizeof *w);
    w->store = memory_store_new(11);
    memory_store_clock(w->store, 1700000000000);
    bus_args_init(&w->args);
    *state = w;
    return 0;
}

static void end_process(struct process *p)
{
    if (p->loop == NULL)
        return;
    bot_worker_free(&p->worker);
    bus_close(&p->bus);
    settle(p->world);
    sl_loop_close(&p->loop);
}

static void kill_process(struct process *p)
{
    memory_kill(p->world->store, p->number);
    bot_worker_free(&p->worker);
    bus_close(&p->bus);
    sl_loop_close(&p->loop);
}

static int teardown(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < PROCESS_MAX; i++)
        end_process(&w->process[i]);
    memory_store_free(&w->store);
    bus_args_fini(&w->args);
    free(w);
    return 0;
}

/* Workers. */

static void on_task(void *arg, const struct event *task, struct bot_reply *reply)
{
    struct process *p = arg;
    p->world->asked++;
    sl_buf_c(reply->text, "re: ");
    sl_buf_str(reply->text, task->text);
    if (sl_str_eq_c(task->text, "human"))
        reply->reason = SL_STR("handoff");
}

static void on_stopped(void *arg)
{
    struct process *p = arg;
    p->has_stopped = true;
}

static const struct bot_worker_ops ops = {.answer = on_task, .stopped = on_stopped};
static void on_ready(void *arg, bool is_ready)
{
    struct process *p = arg;
    if (is_ready && p->worker != NULL)
        bot_worker_wake(p->worker);
}

static const struct bus_events events = {.ready = on_ready};

static struct process *start(struct world *w, size_t at, const char *consumer, uint64_t delay_ms)
{
    struct process *p = &w->process[at];
    const struct bus_config store = {.partitions = 4};
    *p = (struct process){.world = w, .number = (unsigned)at};
    p->loop = sl_loop_new_virtual(at);
    int64_t now = 1700000000000;
    for (size_t i = 0; i < PROCESS_MAX; i++) {
        if (i != at && w->process[i].loop != NULL)
            now = sl_loop_unix_ms(w->process[i].loop);
    }
    sl_loop_virtual_set(p->loop, sl_loop_mono_ms(p->loop), now);
    p->bus = memory_bus_open(w->store, p->number, p->loop, &store, &events, p);
    const struct bot_worker_config cfg = {
        .bus = p->bus,
        .name = SL_STR("faq"),
        .consumer = sl_str_c(consumer),
        .claim_idle_ms = 5000,
        .delay_ms = delay_ms,
        .drain_ms = 10000,
    };
    p->worker = bot_worker_start(&cfg, &ops, p);
    pass(w, 300); /* its second connection, for reading, is tried a little later */
    return p;
}

/* Looking into the store. */

static const struct bus_value *peek(struct world *w, const char *line)
{
    static char words[256];
    (void)snprintf(words, sizeof words, "%s", line);
    bus_args_clear(&w->args);
    char *rest = words;
    for (char *word; (word = strsep(&rest, " ")) != NULL;)
        bus_args_c(&w->args, word);
    return memory_peek(w->store, &w->args);
}

static void add_task(struct world *w, const char *text, const char *due)
{
    char line[200];
    (void)snprintf(line, sizeof line, "XADD bot:faq * t task c 2.X ce 3 tn 7 x %s due %s rt in:{2}", text,
                   due);
    assert_int_equal(bus_value_type(peek(w, line)), BUS_STR);
}

static size_t answers(struct world *w)
{
    return (size_t)bus_value_int(peek(w, "XLEN in:{2}"));
}

static size_t pending(struct world *w)
{
    return (size_t)bus_value_int(bus_value_at(peek(w, "XPENDING bot:faq workers"), 0));
}

static struct event answer_at(struct world *w, size_t i)
{
    struct sl_str item[64];
    struct event ev = {0};
    struct sl_fail why = {0};
    const struct bus_value *fields = bus_value_at(bus_value_at(peek(w, "XRANGE in:{2} - +"), i), 1);
    const size_t count = bus_value_count(fields);
    for (size_t k = 0; k < count && k < 64; k++)
        item[k] = bus_value_str(bus_value_at(fields, k));
    if (event_from_fields(item, count, &ev, &why) != SL_OK)
        fail_msg("the answer cannot be read: %s", why.text);
    return ev;
}

#define LATER "9999999999999"

static void test_answer_names_the_turn_and_is_acknowledged(void **state)
{
    struct world *w = *state;
    start(w, 0, "a", 0);
    settle(w);
    add_task(w, "hello", LATER);
    add_task(w, "human", LATER);
    settle(w);
    assert_int_equal(answers(w), 2);
    pass(w, 50); /* an acknowledgement waits a little for company */
    assert_int_equal(pending(w), 0);
    const struct event ev = answer_at(w, 0);
    assert_int_equal(ev.type, EVENT_ANSWER);
    assert_true(sl_str_eq_c(ev.conv, "2.X"));
    assert_int_equal(ev.control, 3);
    assert_int_equal(ev.turn, 7);
    assert_true(sl_str_eq_c(ev.text, "re: hello"));
    assert_int_equal(ev.reason.len, 0);
    assert_true(sl_str_eq_c(answer_at(w, 1).reason, "handoff"));
}

static void test_tasks_before_the_group_existed_are_answered(void **state)
{
    struct world *w = *state;
    add_task(w, "early", LATER);
    start(w, 0, "a", 0);
    settle(w);
    assert_int_equal(answers(w), 1);
}

static void test_overdue_and_unreadable_tasks_are_only_acknowledged(void **state)
{
    struct world *w = *state;
    start(w, 0, "a", 0);
    settle(w);
    add_task(w, "late", "1600000000000");
    (void)peek(w, "XADD bot:faq * junk 1");
    (void)peek(w, "XADD bot:faq * t task c 2.X ce 1 tn 1 x hi rt conv:{2}:stolen");
    add_task(w, "good", LATER);
    settle(w);
    assert_int_equal(answers(w), 1);
    assert_int_equal(pending(w), 0);
    assert_int_equal(w->asked, 1);
}

/* The store breaks all connections while answers are on their way: every task is answered at least once, and none stays pending. */
static void test_unknown_outcome_is_repeated(void **state)
{
    struct world *w = *state;
    start(w, 0, "a", 0);
    settle(w);
    for (int round = 0; round < 30; round++) {
        char text[16];
        (void)snprintf(text, sizeof text, "q%d", round);
        add_task(w, text, LATER);
        for (int i = 0; i <= round % 9; i++) {
            move_process(&w->process[0]);
            if (i < round % 9 && memory_pending_requests(w->store) > 0)
                memory_execute(w->store,
                               0); /* but not the last: it is sent, and what becomes of it is unknown */
        }
        if (round % 2 == 0)
            memory_cut(w->store, 0);
        else
            memory_restart(w->store);
        pass(w, 3000);
    }
    pass(w, 20000);
    assert_int_equal(pending(w), 0);
    bool seen[30] = {false};
    for (size_t i = 0; i < answers(w); i++) {
        const struct event ev = answer_at(w, i);
        const long k = strtol(ev.text.ptr + 5, NULL, 10);
        assert_in_range(k, 0, 29);
        seen[k] = true;
    }
    for (int k = 0; k < 30; k++)
        assert_true(seen[k]);
}

static void test_task_of_a_dead_worker_is_taken_over(void **state)
{
    struct world *w = *state;
    struct process *dead = start(w, 0, "a", 60000);
    settle(w);
    add_task(w, "hello", LATER);
    settle(w);
    assert_int_equal(bot_worker_in_hand(dead->worker), 1);
    kill_process(dead);
    start(w, 1, "b", 0);
    pass(w, 2000);
    assert_int_equal(answers(w), 0); /* it might still be working on it */
    pass(w, 8000);
    assert_int_equal(answers(w), 1);
    assert_int_equal(pending(w), 0);
}

static void test_restart_under_its_name_goes_on_at_once(void **state)
{
    struct world *w = *state;
    struct process *dead = start(w, 0, "a", 60000);
    settle(w);
    add_task(w, "hello", LATER);
    settle(w);
    kill_process(dead);
    start(w, 1, "a", 0);
    settle(w);
    assert_int_equal(answers(w), 1);
    assert_int_equal(pending(w), 0);
}

static void test_in_hand_is_bounded_and_all_are_answered(void **state)
{
    struct world *w = *state;
    struct process *p = start(w, 0, "a", 1000);
    settle(w);
    for (int i = 0; i < 1500; i++)
        add_task(w, "x", LATER);
    settle(w);
    assert_int_equal(bot_worker_in_hand(p->worker), BOT_WORKER_JOBS);
    pass(w, 10000);
    assert_int_equal(answers(w), 1500);
    assert_int_equal(pending(w), 0);
    assert_int_equal(bot_worker_in_hand(p->worker), 0);
}

static void test_drain_finishes_what_is_in_hand(void **state)
{
    struct world *w = *state;
    struct process *p = start(w, 0, "a", 500);
    settle(w);
    add_task(w, "hello", LATER);
    settle(w);
    bot_worker_drain(p->worker);
    settle(w);
    assert_false(p->has_stopped);
    pass(w, 100);
    add_task(w, "too-late-for-us", LATER);
    pass(w, 2000);
    assert_true(p->has_stopped);
    assert_int_equal(answers(w), 1);
    assert_int_equal(pending(w), 0);
    assert_int_equal(w->asked, 1);
}

static void test_drain_ends_in_time_without_a_store(void **state)
{
    struct world *w = *state;
    struct process *p = start(w, 0, "a", 500);
    settle(w);
    add_task(w, "hello", LATER);
    settle(w);
    bot_worker_drain(p->worker);
    for (int i = 0; i < 300 && !p->has_stopped; i++) {
        memory_cut(w->store, 0);
        sl_loop_virtual_set(p->loop, sl_loop_mono_ms(p->loop) + 50, sl_loop_unix_ms(p->loop) + 50);
        while (move_process(p)) {
        }
    }
    assert_true(p->has_stopped);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_answer_names_the_turn_and_is_acknowledged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tasks_before_the_group_existed_are_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_overdue_and_unreadable_tasks_are_only_acknowledged, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_unknown_outcome_is_repeated, setup, teardown),
        cmocka_unit_test_setup_teardown(test_task_of_a_dead_worker_is_taken_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restart_under_its_name_goes_on_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_in_hand_is_bounded_and_all_are_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drain_finishes_what_is_in_hand, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drain_ends_in_time_without_a_store, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
