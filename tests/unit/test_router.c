/* tests/unit/test_router.c - who holds what: even shares, takeovers, rules and stopping, over the store in memory. */
#include "unit.h"

#include "base/metrics.h"
#include "bus/memory_priv.h"
#include "router/router.h"

#include <limits.h>
#include <stdio.h>

#define PARTITIONS  8
#define TAGS        (PARTITIONS + 1) /* and the desk of tenant "t" */
#define ROUTERS_MAX 4
#define SLACK_MS    20 /* steps of the test's clock */
#define RULES       "{\"merge_ms\":250}"

struct world;
struct proc {
    struct world *w;
    unsigned id;
    struct sl_loop *loop;
    struct bus *bus;
    struct router *router;
    unsigned stopped;
    bool is_dead, is_calling, called_early;
};
struct world {
    struct memory_store *store;
    struct proc proc[ROUTERS_MAX];
    size_t procs;
    uint64_t survey_ms, lease_ms;
    const char *held;
    unsigned acquires, releases; /* executed */
    struct bus_args args;
    struct sl_buf text;
};

static struct proc *start(struct world *w, const char *rules)
{
    static const char *const tenants[] = {"t"};
    struct proc *pr = &w->proc[w->procs];
    pr->w = w;
    pr->id = (unsigned)++w->procs;
    pr->loop = sl_loop_new_virtual(pr->id);
    if (w->procs > 1)
        sl_loop_virtual_set(pr->loop, sl_loop_mono_ms(w->proc[0].loop), sl_loop_unix_ms(w->proc[0].loop));
    char run[32];
    int n = snprintf(run, sizeof run, "01HZZZZZZZZZZZZZZZZZZZZZZ%u", pr->id);
    const struct router_config cfg = {.loop = pr->loop,
                                      .run = sl_str_n(run, (size_t)n),
                                      .lease_ms = w->lease_ms,
                                      .survey_ms = w->survey_ms,
                                      .history_keep = 500,
                                      .cache_max = 100,
                                      .rules_json = rules == NULL ? SL_STR_NONE : sl_str_c(rules),
                                      .tenants = tenants,
                                      .tenant_count = 1};
    const struct bus_config store = {.partitions = PARTITIONS};
    pr->router = router_new(&cfg);
    pr->bus = memory_bus_open(w->store, pr->id, pr->loop, &store, &router_bus_events, pr->router);
    router_attach(pr->router, pr->bus);
    return pr;
}

static void finish(struct proc *pr)
{
    router_free(&pr->router);
    bus_close(&pr->bus);
    while (sl_loop_virtual_step(pr->loop)) {
    }
    sl_loop_close(&pr->loop);
}

static void die(struct proc *pr)
{
    memory_kill(pr->w->store, pr->id);
    pr->is_dead = true;
}

static bool execute_one(struct world *w)
{
    for (size_t i = 0; i < memory_pending_requests(w->store); i++) {
        struct sl_str name = memory_request_name(w->store, i);
        if (w->held != NULL && sl_str_eq_c(name, w->held))
            continue;
        w->acquires += sl_str_eq_c(name, "acquire_1") ? 1 : 0;
        w->releases += sl_str_eq_c(name, "release_1") ? 1 : 0;
        memory_execute(w->store, i);
        return true;
    }
    return false;
}

static bool reply_one(struct world *w)
{
    for (size_t i = 0; i < w->procs; i++) {
        if (w->proc[i].is_dead || memory_pending_replies(w->store, w->proc[i].id) == 0)
            continue;
        memory_reply(w->store, w->proc[i].id, 0);
        return true;
    }
    return false;
}

static void settle(struct world *w)
{
    for (bool is_moving = true; is_moving;) {
        for (size_t i = 0; i < w->procs; i++)
            while (!w->proc[i].is_dead && sl_loop_virtual_step(w->proc[i].loop)) {
            }
        is_moving = execute_one(w) || reply_one(w);
    }
}

static void pass(struct world *w, uint64_t ms)
{
    settle(w);
    for (uint64_t i = 0; i < ms; i += 10) {
        for (size_t p = 0; p < w->procs; p++)
            sl_loop_virtual_set(w->proc[p].loop, sl_loop_mono_ms(w->proc[p].loop) + 10,
                                sl_loop_unix_ms(w->proc[p].loop) + 10);
        memory_store_clock(w->store, sl_loop_unix_ms(w->proc[0].loop));
        settle(w);
    }
}

static const struct bus_value *peek(struct world *w, const char *line)
{
    bus_args_clear(&w->args);
    while (*line != '\0') {
        size_t n = strcspn(line, " ");
        bus_args_str(&w->args, sl_str_n(line, n));
        line += n + (line[n] == ' ' ? 1 : 0);
    }
    return memory_peek(w->store, &w->args);
}

static void tag_of(char tag[KEY_TAG_MAX_BYTES], unsigned i)
{
    if (i < PARTITIONS)
        key_partition_tag(tag, i);
    else
        key_desk_tag(tag, SL_STR("t"));
}

/* How many partitions a router holds by the store's word. */
static size_t leases(struct world *w, const struct proc *pr)
{
    size_t n = 0;
    for (unsigned i = 0; i < TAGS; i++) {
        char tag[KEY_TAG_MAX_BYTES], line[100];
        tag_of(tag, i);
        (void)snprintf(line, sizeof line, "HGET meta:{%s} run", tag);
        struct sl_str run = bus_value_str(peek(w, line));
        n += run.len > 0 && run.ptr[run.len - 1] == (char)('0' + pr->id) ? 1 : 0;
    }
    return n;
}

/* RULES events that this partition was ever told; its log is short enough not to be trimmed. */
static unsigned told(struct world *w, unsigned i)
{
    char tag[KEY_TAG_MAX_BYTES], line[100];
    unsigned n = 0;
    tag_of(tag, i);
    (void)snprintf(line, sizeof line, "XRANGE in:{%s} - +", tag);
    const struct bus_value *log = peek(w, line);
    for (size_t e = 0; e < bus_value_count(log); e++)
        n += sl_str_eq_c(bus_value_str(bus_value_at(bus_value_at(bus_value_at(log, e), 1), 1)), "rules") ? 1
                                                                                                         : 0;
    return n;
}

static int setup(void **state)
{
    struct world *w = sl_alloc(sizeof *w);
    w->store = memory_store_new(5);
    w->survey_ms = ROUTER_SURVEY_MS;
    w->lease_ms = ROUTER_LEASE_MS;
    bus_args_init(&w->args);
    sl_buf_init(&w->text, 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < w->procs; i++)
        if (w->proc[i].loop != NULL)
            finish(&w->proc[i]);
    memory_store_free(&w->store);
    bus_args_fini(&w->args);
    sl_buf_fini(&w->text);
    free(w);
    sl_metrics_reset();
    return 0;
}

static void on_stopped(void *arg)
{
    struct proc *pr = arg;
    pr->stopped++;
    pr->called_early = pr->called_early || pr->is_calling;
}

static void stop(struct proc *pr)
{
    pr->is_calling = true;
    router_release_all(pr->router, on_stopped, pr);
    pr->is_calling = false;
}

/* ---- shares ---- */

static void expect_shares(struct world *w, const size_t *shares, size_t n)
{
    size_t held = 0;
    for (size_t i = 0; i < w->procs; i++) {
        if (w->proc[i].is_dead || w->proc[i].stopped > 0)
            continue;
        assert_int_equal(router_held(w->proc[i].router), leases(w, &w->proc[i]));
        held += router_held(w->proc[i].router);
        bool is_expected = false;
        for (size_t s = 0; s < n; s++)
            is_expected = is_expected || shares[s] == router_held(w->proc[i].router);
        assert_true(is_expected);
    }
    assert_int_equal(held, TAGS);
}

static void test_router_alone_holds_everything(void **state)
{
    struct world *w = *state;
    (void)start(w, NULL);
    settle(w); /* with the first survey, no time passes */
    expect_shares(w, (const size_t[]){TAGS}, 1);
    assert_int_equal(w->acquires, TAGS);
}

static void test_router_share_is_even_and_little_moves(void **state)
{
    struct world *w = *state;
    (void)start(w, NULL);
    pass(w, 1000);
    (void)start(w, NULL);
    pass(w, 1500);
    expect_shares(w, (const size_t[]){5, 4}, 2);
    assert_int_equal(w->releases, 4); /* what the second needed, no more */
    assert_int_equal(w->acquires, TAGS + 4);
    (void)start(w, NULL);
    pass(w, 1500);
    expect_shares(w, (const size_t[]){3}, 1);
    assert_int_equal(w->releases, 4 + 3);
    assert_int_equal(w->acquires, TAGS + 4 + 3);
    pass(w, 5000); /* and then nothing moves */
    assert_int_equal(w->acquires, TAGS + 4 + 3);
}

static void test_router_share_of_four_is_even(void **state)
{
    struct world *w = *state;
    for (int i = 0; i < 4; i++)
        (void)start(w, NULL);
    pass(w, 8000);
    expect_shares(w, (const size_t[]){2, 3}, 2);
    unsigned acquires = w->acquires;
    pass(w, 5000);
    assert_int_equal(w->acquires, acquires);
}

/* Surveys may be far apart: a router is alive as long as its next survey is not overdue. */
static void test_router_share_is_even_with_slow_surveys(void **state)
{
    struct world *w = *state;
    w->survey_ms = 8000;
    w->lease_ms = 9000;
    (void)start(w, NULL);
    pass(w, 4000); /* they look at different times */
    (void)start(w, NULL);
    pass(w, 30000);
    expect_shares(w, (const size_t[]){5, 4}, 2);
    unsigned acquires = w->acquires;
    pass(w, 30000);
    assert_int_equal(w->acquires, acquires);
}

static void test_router_keeps_short_leases(void **state)
{
    struct world *w = *state;
    w->survey_ms = 100;
    w->lease_ms = 500; /* the least that the configuration allows */
    (void)start(w, NULL);
    (void)start(w, NULL);
    pass(w, 3000);
    for (int i = 0; i < 50; i++) {
        pass(w, 50);
        for (unsigned t = 0; t < TAGS; t++) {
            char tag[KEY_TAG_MAX_BYTES], line[100];
            tag_of(tag, t);
            (void)snprintf(line, sizeof line, "HGET meta:{%s} until", tag);
            assert_true(bus_value_int(peek(w, line)) > sl_loop_unix_ms(w->proc[0].loop));
        }
    }
}

static void test_router_takes_over_after_a_kill(void **state)
{
    struct world *w = *state;
    (void)start(w, NULL);
    struct proc *second = start(w, NULL);
    pass(w, 3000);
    expect_shares(w, (const size_t[]){5, 4}, 2);
    die(second);
    pass(w, ROUTER_LEASE_MS + ROUTER_SURVEY_MS + SLACK_MS);
    expect_shares(w, (const size_t[]){TAGS}, 1);
}

static void test_router_takes_over_at_once_after_a_clean_stop(void **state)
{
    struct world *w = *state;
    (void)start(w, NULL);
    struct proc *second = start(w, NULL);
    pass(w, 3000);
    stop(second);
    assert_false(second->called_early);
    settle(w); /* no time passes */
    assert_int_equal(second->stopped, 1);
    expect_shares(w, (const size_t[]){TAGS}, 1);
}

static void test_router_survives_a_broken_connection(void **state)
{
    struct world *w = *state;
    struct proc *first = start(w, NULL);
    (void)start(w, NULL);
    pass(w, 3000);
    for (int i = 0; i < 20; i++) { /* at whatever it was doing */
        memory_cut(w->store, first->id);
        pass(w, (uint64_t)(i * 37 % 400 + 10));
    }
    pass(w, 5000);
    expect_shares(w, (const size_t[]){5, 4}, 2);
}

/* ---- rules ---- */

static void test_router_tells_rules_once_for_a_hash(void **state)
{
    struct world *w = *state;
    struct proc *first = start(w, RULES);
    pass(w, 3000);
    for (unsigned i = 0; i < TAGS; i++)
        assert_int_equal(told(w, i), 1);
    struct proc *second = start(w, RULES); /* it has the same, and takes over some */
    pass(w, 3000);
    stop(first);
    pass(w, 1000);
    assert_int_equal(router_held(second->router), TAGS);
    for (unsigned i = 0; i < TAGS; i++)
        assert_int_equal(told(w, i), 1);
    router_set_rules(second->router, SL_STR("{\"merge_ms\":900}"));
    router_set_rules(second->router, SL_STR("{\"merge_ms\":900}")); /* a reload that changes nothing */
    pass(w, 1000);
    for (unsigned i = 0; i < TAGS; i++)
        assert_int_equal(told(w, i), 2);
}

/* The survey asks again while the first answer is still on its way. */
static void test_router_tells_rules_once_when_answers_are_late(void **state)
{
    struct world *w = *state;
    struct proc *first = start(w, NULL);
    pass(w, 1000);
    w->held = "HGET";
    router_set_rules(first->router, SL_STR(RULES));
    router_set_rules(first->router, SL_STR(RULES));
    pass(w, 1000);
    w->held = NULL;
    pass(w, 2000);
    for (unsigned i = 0; i < TAGS; i++)
        assert_int_equal(told(w, i), 1);
}

static void test_router_tells_rules_again_when_the_append_was_lost(void **state)
{
    struct world *w = *state;
    struct proc *first = start(w, NULL);
    pass(w, 1000);
    w->held = "XADD";
    router_set_rules(first->router, SL_STR(RULES));
    pass(w, 100);
    memory_restart(w->store); /* none of them was executed */
    w->held = NULL;
    pass(w, 3000);
    for (unsigned i = 0; i < TAGS; i++)
        assert_int_equal(told(w, i), 1);
}

/* ---- stopping ---- */

static void test_router_stop_ends_at_its_deadline(void **state)
{
    struct world *w = *state;
    struct proc *first = start(w, NULL);
    pass(w, 1000);
    w->held = "release_1";
    stop(first);
    pass(w, 4900);
    assert_int_equal(first->stopped, 0);
    pass(w, 200);
    assert_int_equal(first->stopped, 1);
    w->held = NULL;
    pass(w, 1000);
    assert_int_equal(first->stopped, 1);
}

static void test_router_stop_without_a_store(void **state)
{
    struct world *w = *state;
    struct proc *first = start(w, NULL); /* never connected */
    stop(first);
    assert_false(first->called_early);
    assert_int_equal(first->stopped, 0);
    pass(w, 10);
    assert_int_equal(first->stopped, 1);
}

static void test_router_stop_while_it_acquires(void **state)
{
    struct world *w = *state;
    struct proc *first = start(w, NULL);
    w->held = "acquire_1";
    pass(w, 100);
    stop(first);
    w->held = NULL;
    settle(w);
    assert_int_equal(first->stopped, 1);
    struct proc *second = start(w, NULL);
    settle(w);
    assert_int_equal(router_held(second->router), TAGS); /* nobody has to wait for a lease */
}

static void test_router_free_with_calls_in_flight(void **state)
{
    struct world *w = *state;
    static const char *const holds[] = {"TIME", "HMGET", "acquire_1", "PING"};
    for (size_t i = 0; i < sizeof holds / sizeof holds[0]; i++) {
        w->held = holds[i];
        struct proc *pr = start(w, RULES);
        pass(w, 20);
        router_free(&pr->router);
        w->held = NULL;
        pass(w, 100);
    }
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        CASE(test_router_alone_holds_everything),
        CASE(test_router_share_is_even_and_little_moves),
        CASE(test_router_share_of_four_is_even),
        CASE(test_router_share_is_even_with_slow_surveys),
        CASE(test_router_keeps_short_leases),
        CASE(test_router_takes_over_after_a_kill),
        CASE(test_router_takes_over_at_once_after_a_clean_stop),
        CASE(test_router_survives_a_broken_connection),
        CASE(test_router_tells_rules_once_for_a_hash),
        CASE(test_router_tells_rules_once_when_answers_are_late),
        CASE(test_router_tells_rules_again_when_the_append_was_lost),
        CASE(test_router_stop_ends_at_its_deadline),
        CASE(test_router_stop_without_a_store),
        CASE(test_router_stop_while_it_acquires),
        CASE(test_router_free_with_calls_in_flight),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
