/* Timers and posts under the virtual clock and on libuv, and the process's signals. */
#include "base/loop.h"

#include "unit.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define MANY 2000

static struct {
    int fired[MANY * 4];
    size_t count;
} seen;

struct probe {
    struct sl_timer timer;
    struct sl_post post;
    int id;
    int again; /* times to start once more from inside */
};

static void note(void *arg)
{
    struct probe *p = arg;
    assert_true(seen.count < sizeof seen.fired / sizeof seen.fired[0]);
    seen.fired[seen.count++] = p->id;
}

static void note_and_restart(void *arg)
{
    struct probe *p = arg;
    note(arg);
    if (p->again-- > 0)
        sl_timer_start(&p->timer, 0);
}

static void note_and_post(void *arg)
{
    struct probe *p = arg;
    note(arg);
    if (p->again-- > 0)
        sl_post_now(&p->post);
}

static int setup(void **state)
{
    seen.count = 0;
    *state = sl_loop_new_virtual(7);
    return 0;
}

static int teardown(void **state)
{
    struct sl_loop *l = *state;
    sl_loop_close(&l);
    assert_null(l);
    return 0;
}

/* Go to whatever is next until nothing is, or until mono_ms. */
static void run_until(struct sl_loop *l, uint64_t mono_ms)
{
    uint64_t due;
    while (sl_loop_virtual_next(l, &due) && due <= mono_ms) {
        if (due > sl_loop_mono_ms(l))
            sl_loop_virtual_set(l, due, sl_loop_unix_ms(l) + (int64_t)(due - sl_loop_mono_ms(l)));
        assert_true(sl_loop_virtual_step(l));
    }
}

static void test_timers_fire_by_due_time_then_by_start_order(void **state)
{
    struct sl_loop *l = *state;
    struct probe *p = sl_alloc(MANY * sizeof *p);
    uint64_t random = 99, due_of[MANY];
    for (int i = 0; i < MANY; i++) {
        random = random * 6364136223846793005ULL + 1442695040888963407ULL;
        p[i].id = i;
        sl_timer_init(&p[i].timer, l, note, &p[i]);
        sl_timer_start(&p[i].timer, (random >> 33) % 100);
        due_of[i] = p[i].timer.due_mono_ms;
    }
    for (int i = 0; i < MANY; i += 3)
        sl_timer_stop(&p[i].timer);
    for (int i = 0; i < MANY; i += 7) { /* a restart goes behind its equals */
        sl_timer_start(&p[i].timer, 50);
        due_of[i] = p[i].timer.due_mono_ms;
    }
    run_until(l, 100000);
    size_t expected = 0;
    for (int i = 0; i < MANY; i++) {
        expected += i % 3 != 0 || i % 7 == 0 ? 1 : 0;
        assert_false(sl_timer_is_active(&p[i].timer));
    }
    assert_int_equal(seen.count, expected);
    for (size_t i = 1; i < seen.count; i++) {
        const struct probe *a = &p[seen.fired[i - 1]], *b = &p[seen.fired[i]];
        assert_true(due_of[a->id] < due_of[b->id] ||
                    (due_of[a->id] == due_of[b->id] && a->timer.order < b->timer.order));
    }
    free(p);
}

static void test_timer_stop_is_immediate_and_memory_is_free_at_once(void **state)
{
    struct sl_loop *l = *state;
    struct probe *p = sl_alloc(sizeof *p);
    sl_timer_init(&p->timer, l, note, p);
    sl_timer_stop(&p->timer);
    sl_timer_start(&p->timer, 5);
    assert_true(sl_timer_is_active(&p->timer));
    sl_timer_stop(&p->timer);
    sl_timer_stop(&p->timer);
    assert_false(sl_timer_is_active(&p->timer));
    free(p);
    sl_loop_virtual_set(l, 5000, 0);
    assert_false(sl_loop_virtual_step(l));
    assert_int_equal(seen.count, 0);
}

static void test_timer_never_fires_early_nor_wraps(void **state)
{
    struct sl_loop *l = *state;
    struct probe p = {.id = 1};
    uint64_t due = 0;
    sl_timer_init(&p.timer, l, note, &p);
    sl_timer_start(&p.timer, 100);
    assert_true(sl_loop_virtual_next(l, &due));
    assert_int_equal(due, 1100);
    sl_loop_virtual_set(l, 1099, 0);
    assert_false(sl_loop_virtual_step(l));
    sl_loop_virtual_set(l, 1100, 0);
    assert_true(sl_loop_virtual_step(l));
    assert_int_equal(seen.count, 1);
    sl_timer_start(&p.timer, UINT64_MAX);
    sl_loop_virtual_set(l, UINT64_MAX / 2, 0);
    assert_false(sl_loop_virtual_step(l));
    sl_timer_stop(&p.timer);
    assert_false(sl_loop_virtual_next(l, &due));
}

static void test_posts_run_before_timers_in_order(void **state)
{
    struct sl_loop *l = *state;
    struct probe p[4] = {{.id = 0}, {.id = 1}, {.id = 2}, {.id = 3}};
    uint64_t due = 0;
    sl_timer_init(&p[0].timer, l, note, &p[0]);
    sl_timer_start(&p[0].timer, 0);
    for (int i = 1; i < 4; i++) {
        sl_post_init(&p[i].post, l, note, &p[i]);
        sl_post_now(&p[i].post);
        sl_post_now(&p[i].post); /* once queued, once run */
    }
    sl_post_cancel(&p[2].post);
    sl_post_cancel(&p[2].post);
    assert_true(sl_loop_virtual_next(l, &due));
    assert_int_equal(due, sl_loop_mono_ms(l));
    run_until(l, 1000);
    assert_int_equal(seen.count, 3);
    assert_int_equal(seen.fired[0], 1);
    assert_int_equal(seen.fired[1], 3);
    assert_int_equal(seen.fired[2], 0);
}

static void test_post_list_survives_cancelling_at_each_place(void **state)
{
    struct sl_loop *l = *state;
    for (int out = 0; out < 5; out++) {
        struct probe p[5];
        seen.count = 0;
        for (int i = 0; i < 5; i++) {
            p[i] = (struct probe){.id = i};
            sl_post_init(&p[i].post, l, note, &p[i]);
            sl_post_now(&p[i].post);
        }
        sl_post_cancel(&p[out].post);
        sl_post_now(&p[out].post); /* now last */
        run_until(l, 1000);
        assert_int_equal(seen.count, 5);
        assert_int_equal(seen.fired[4], out);
    }
}

static void test_random_repeats_from_its_seed(void **state)
{
    (void)state;
    struct sl_loop *a = sl_loop_new_virtual(5), *b = sl_loop_new_virtual(5), *c = sl_loop_new_virtual(6);
    assert_null(sl_loop_uv(a));
    assert_int_equal(sl_loop_mono_ms(a), 1000);
    assert_true(sl_loop_unix_ms(a) == 1700000000000);
    bool differs = false;
    for (int i = 0; i < 100; i++) {
        uint64_t v = sl_loop_random(a);
        assert_true(v == sl_loop_random(b));
        differs = differs || v != sl_loop_random(c);
    }
    assert_true(differs);
    unsigned bucket[4] = {0};
    for (int i = 0; i < 4000; i++)
        bucket[sl_loop_jitter(a, 3)]++;
    for (int i = 0; i < 4; i++)
        assert_in_range(bucket[i], 850, 1150);
    assert_int_equal(sl_loop_jitter(a, 0), 0);
    (void)sl_loop_jitter(a, UINT64_MAX);
    sl_loop_close(&a);
    sl_loop_close(&b);
    sl_loop_close(&c);
}

static void test_owners_may_stop_after_the_loop_was_closed(void **state)
{
    (void)state;
    struct sl_loop *l = sl_loop_new_virtual(1);
    struct probe p = {.id = 1};
    sl_timer_init(&p.timer, l, note, &p);
    sl_post_init(&p.post, l, note, &p);
    sl_timer_start(&p.timer, 5);
    sl_post_now(&p.post);
    sl_loop_close(&l);
    assert_false(sl_timer_is_active(&p.timer));
    sl_timer_stop(&p.timer);
    sl_post_cancel(&p.post);
    sl_loop_close(&l);
}

/* On libuv. */

static int setup_uv(void **state)
{
    seen.count = 0;
    uv_loop_t *uv = sl_alloc(sizeof *uv);
    assert_int_equal(uv_loop_init(uv), 0);
    *state = sl_loop_new(uv);
    return 0;
}

static int teardown_uv(void **state)
{
    struct sl_loop *l = *state;
    uv_loop_t *uv = sl_loop_uv(l);
    sl_loop_close(&l);
    (void)uv_run(uv, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(uv), 0);
    free(uv);
    return 0;
}

static void test_uv_runs_timers_in_order_and_then_ends(void **state)
{
    struct sl_loop *l = *state;
    struct probe p[5];
    static const uint64_t after_ms[5] = {12, 3, 7, 3, 0};
    for (int i = 0; i < 5; i++) {
        p[i] = (struct probe){.id = i};
        sl_timer_init(&p[i].timer, l, note, &p[i]);
        sl_timer_start(&p[i].timer, after_ms[i]);
    }
    sl_timer_stop(&p[2].timer);
    uint64_t began = uv_hrtime();
    assert_int_equal(uv_run(sl_loop_uv(l), UV_RUN_DEFAULT), 0); /* ends by itself: nothing is left armed */
    assert_true(uv_hrtime() - began >= 11 * 1000000ULL);
    static const int order[] = {4, 1, 3, 0};
    assert_int_equal(seen.count, 4);
    assert_memory_equal(seen.fired, order, sizeof order);
}

static void test_uv_stopped_timers_do_not_hold_the_loop(void **state)
{
    struct sl_loop *l = *state;
    struct probe p = {.id = 1};
    sl_timer_init(&p.timer, l, note, &p);
    sl_timer_start(&p.timer, 3600 * 1000);
    sl_timer_stop(&p.timer);
    assert_int_equal(uv_run(sl_loop_uv(l), UV_RUN_DEFAULT), 0);
    assert_int_equal(seen.count, 0);
}

static void test_uv_post_never_runs_before_return_and_holds_the_loop(void **state)
{
    struct sl_loop *l = *state;
    struct probe p = {.id = 1, .again = 3};
    sl_post_init(&p.post, l, note_and_post, &p);
    sl_post_now(&p.post);
    assert_int_equal(seen.count, 0);
    (void)uv_run(sl_loop_uv(l), UV_RUN_NOWAIT);
    assert_int_equal(seen.count, 1); /* one made inside waits for the next turn */
    (void)uv_run(sl_loop_uv(l), UV_RUN_NOWAIT);
    assert_int_equal(seen.count, 2);
    assert_int_equal(uv_run(sl_loop_uv(l), UV_RUN_DEFAULT), 0);
    assert_int_equal(seen.count, 4);
}

static void cancel_other(void *arg)
{
    struct probe *p = arg;
    note(arg);
    sl_post_cancel(&p[1].post);
}

static void test_uv_post_cancelled_by_one_before_it(void **state)
{
    struct sl_loop *l = *state;
    struct probe p[3] = {{.id = 0}, {.id = 1}, {.id = 2}};
    for (int i = 0; i < 3; i++) {
        sl_post_init(&p[i].post, l, i == 0 ? cancel_other : note, &p[i]);
        sl_post_now(&p[i].post);
    }
    assert_int_equal(uv_run(sl_loop_uv(l), UV_RUN_DEFAULT), 0);
    assert_int_equal(seen.count, 2);
    assert_int_equal(seen.fired[1], 2);
}

static void on_prepare(uv_prepare_t *h)
{
    int *turns = h->data;
    (*turns)++;
}

/* A timer of 0 started from inside itself must leave the sockets their turn. */
static void test_uv_timer_of_zero_does_not_starve_the_loop(void **state)
{
    struct sl_loop *l = *state;
    struct probe p = {.id = 1, .again = 50};
    static uv_prepare_t prepare; /* closed by the teardown's run of the loop */
    int turns = 0;
    assert_int_equal(uv_prepare_init(sl_loop_uv(l), &prepare), 0);
    prepare.data = &turns;
    assert_int_equal(uv_prepare_start(&prepare, on_prepare), 0);
    uv_unref((uv_handle_t *)&prepare);
    sl_timer_init(&p.timer, l, note_and_restart, &p);
    sl_timer_start(&p.timer, 0);
    assert_int_equal(uv_run(sl_loop_uv(l), UV_RUN_DEFAULT), 0);
    assert_int_equal(seen.count, 51);
    assert_true(turns >= 50);
    uv_close((uv_handle_t *)&prepare, NULL);
}

static void close_loop(void *arg)
{
    struct sl_loop **l = arg;
    sl_loop_close(l);
}

static void test_uv_close_from_inside_a_timer_with_work_left(void **state)
{
    (void)state;
    uv_loop_t uv;
    seen.count = 0;
    assert_int_equal(uv_loop_init(&uv), 0);
    struct sl_loop *l = sl_loop_new(&uv), *same = l;
    struct sl_timer closer;
    struct probe left = {.id = 1};
    sl_timer_init(&closer, l, close_loop, &l);
    sl_timer_start(&closer, 0);
    sl_timer_init(&left.timer, same, note, &left);
    sl_timer_start(&left.timer, 3600 * 1000);
    sl_post_init(&left.post, same, note, &left);
    assert_int_equal(uv_run(&uv, UV_RUN_DEFAULT), 0);
    assert_null(l);
    assert_int_equal(uv_loop_close(&uv), 0);
    assert_int_equal(seen.count, 0);
}

/* Signals. */

struct signals_probe {
    struct sl_signals *signals;
    struct sl_timer deadline;
    int terms, hups;
};

static void on_term(void *arg)
{
    struct signals_probe *p = arg;
    p->terms++;
    sl_timer_stop(&p->deadline);
}

static void on_hup(void *arg)
{
    struct signals_probe *p = arg;
    p->hups++;
    assert_int_equal(kill(getpid(), SIGTERM), 0);
}

static void on_deadline(void *arg)
{
    (void)arg;
}

static void test_signals_reach_their_callbacks_and_pipe_is_ignored(void **state)
{
    struct sl_loop *l = *state;
    struct signals_probe p = {.terms = 0};
    p.signals = sl_signals_start(l, on_term, on_hup, &p);
    sl_timer_init(&p.deadline, l, on_deadline, &p);
    sl_timer_start(&p.deadline, 5000); /* keeps the loop running until TERM came */
    assert_int_equal(kill(getpid(), SIGPIPE), 0);
    assert_int_equal(kill(getpid(), SIGHUP), 0);
    (void)uv_run(sl_loop_uv(l), UV_RUN_DEFAULT);
    assert_int_equal(p.hups, 1);
    assert_int_equal(p.terms, 1);
    sl_signals_stop(&p.signals);
    assert_null(p.signals);
    sl_signals_stop(&p.signals);
}

static void term_again(void *arg)
{
    (void)arg;
    (void)kill(getpid(), SIGINT);
}

static _Noreturn void child_with_two_signals(void)
{
    uv_loop_t uv;
    (void)uv_loop_init(&uv);
    struct sl_loop *l = sl_loop_new(&uv);
    (void)sl_signals_start(l, term_again, NULL, NULL);
    struct sl_timer deadline;
    sl_timer_init(&deadline, l, on_deadline, NULL);
    sl_timer_start(&deadline, 5000);
    (void)kill(getpid(), SIGTERM);
    (void)uv_run(&uv, UV_RUN_DEFAULT);
    _exit(1); /* the second signal should have ended it */
}

static void test_signals_second_term_exits_75(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0)
        child_with_two_signals();
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 75);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_timers_fire_by_due_time_then_by_start_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timer_stop_is_immediate_and_memory_is_free_at_once, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_timer_never_fires_early_nor_wraps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_posts_run_before_timers_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_post_list_survives_cancelling_at_each_place, setup, teardown),
        cmocka_unit_test(test_random_repeats_from_its_seed),
        cmocka_unit_test(test_owners_may_stop_after_the_loop_was_closed),
        cmocka_unit_test_setup_teardown(test_uv_runs_timers_in_order_and_then_ends, setup_uv, teardown_uv),
        cmocka_unit_test_setup_teardown(test_uv_stopped_timers_do_not_hold_the_loop, setup_uv, teardown_uv),
        cmocka_unit_test_setup_teardown(test_uv_post_never_runs_before_return_and_holds_the_loop, setup_uv,
                                        teardown_uv),
        cmocka_unit_test_setup_teardown(test_uv_post_cancelled_by_one_before_it, setup_uv, teardown_uv),
        cmocka_unit_test_setup_teardown(test_uv_timer_of_zero_does_not_starve_the_loop, setup_uv,
                                        teardown_uv),
        cmocka_unit_test(test_uv_close_from_inside_a_timer_with_work_left),
        cmocka_unit_test_setup_teardown(test_signals_reach_their_callbacks_and_pipe_is_ignored, setup_uv,
                                        teardown_uv),
        cmocka_unit_test(test_signals_second_term_exits_75),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
