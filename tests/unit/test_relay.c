/* tests/unit/test_relay.c - committed facts on their way to other logs: exactly once, in order, whatever is lost. */
#include "part_world.h"

/* A relay by itself: the toy partition of the world stays idle. */
struct relay_world {
    struct world *w;
    struct proc *pr;
    struct relay *relay;
    struct bus_args args;
    unsigned moved, gaps;
    bool reset_when_moved;
};

static void on_moved(void *arg, bool is_gap)
{
    struct relay_world *rw = arg;
    rw->moved++;
    rw->gaps += is_gap ? 1 : 0;
    if (is_gap || rw->reset_when_moved)
        relay_reset(rw->relay);
}

static int setup(void **state)
{
    struct relay_world *rw = sl_alloc(sizeof *rw);
    rw->w = world_new(1);
    rw->pr = &rw->w->proc[0];
    const struct relay_host host = {
        .bus = rw->pr->bus, .loop = rw->pr->loop, .tag = TAG, .moved = on_moved, .arg = rw};
    rw->relay = relay_new(&host);
    bus_args_init(&rw->args);
    *state = rw;
    return 0;
}

static int teardown(void **state)
{
    struct relay_world *rw = *state;
    relay_free(&rw->relay);
    bus_args_fini(&rw->args);
    world_free(rw->w);
    free(rw);
    return 0;
}

static void put(struct relay_world *rw, const char *out_id, uint64_t epoch, const char *to, uint64_t first,
                uint64_t last)
{
    struct fx_fact_item items[128];
    size_t n = 0;
    for (uint64_t i = first; i <= last; i++)
        items[n++] = (struct fx_fact_item){
            .destination = sl_str_c(to), .number = i, .event = {.type = EVENT_NEED, .ticket = (int64_t)i}};
    relay_add(rw->relay, sl_str_c(out_id), epoch, items, n);
}

/* What would be saved now, as words. */
static const char *positions(struct relay_world *rw)
{
    bus_args_clear(&rw->args);
    size_t n = relay_positions(rw->relay, &rw->args);
    sl_buf_clear(&rw->w->text);
    assert_int_equal(rw->args.count, 2 * n);
    for (size_t i = 0; i < rw->args.count; i++) {
        sl_buf_str(&rw->w->text, sl_str_n(rw->args.ptr[i], rw->args.len[i]));
        sl_buf_char(&rw->w->text, ' ');
    }
    sl_buf_char(&rw->w->text, '\0');
    return rw->w->text.ptr;
}

static bool is_in_order(struct world *w, const char *stream, int64_t count)
{
    char line[64];
    (void)snprintf(line, sizeof line, "XRANGE %s - +", stream);
    const struct bus_value *log = peek(w, line);
    bool ok = (int64_t)bus_value_count(log) == count;
    for (size_t i = 0; i < bus_value_count(log); i++) {
        const struct bus_value *items = bus_value_at(bus_value_at(log, i), 1);
        ok = ok && bus_value_int(bus_value_at(items, 3)) == (int64_t)i + 1; /* t need tk <n> */
    }
    return ok;
}

static void test_relay_delivers_each_fact_once_in_order(void **state)
{
    struct relay_world *rw = *state;
    put(rw, "1-0", 10, TO, 1, 100);
    put(rw, "2-0", 10, TO, 101, 150);
    put(rw, "2-1", 10, "bot:x", 1, 3);
    relay_pump(rw->relay);
    settle(rw->w);
    assert_true(is_in_order(rw->w, TO, 150));
    assert_true(is_in_order(rw->w, "bot:x", 3));
    assert_true(relay_is_idle(rw->relay));
    assert_string_equal(positions(rw), TO " 150 bot:x 3 @ 2-1 ");
}

static void test_relay_repeats_after_a_lost_answer(void **state)
{
    struct relay_world *rw = *state;
    put(rw, "1-0", 10, TO, 1, 100);
    relay_pump(rw->relay);
    for (int i = 0; i < 8; i++) {
        (void)execute(rw->w, "deliver_1");
        memory_cut(rw->w->store, 1);
        pass(rw->w, i % 2 == 0 ? 210 : 20);
        if (i == 3)
            put(rw, "3-0", 11, TO, 101, 120);
        relay_pump(rw->relay);
    }
    pass(rw->w, 500);
    assert_true(is_in_order(rw->w, TO, 120));
    assert_string_equal(ask(rw->w, "HGET from:{9} forks"), "nil");
}

/* Each call carries facts of one commit epoch: one under a higher epoch than its own would be taken for a fork. */
static void test_relay_sends_a_fact_under_the_epoch_of_its_commit(void **state)
{
    struct relay_world *rw = *state;
    put(rw, "1-0", 10, TO, 1, 2);
    put(rw, "2-0", 12, TO, 3, 4);
    relay_pump(rw->relay);
    (void)execute(rw->w, "deliver_1");
    assert_string_equal(ask(rw->w, "HGET from:{9} 7"), "2 10");
    settle(rw->w);
    assert_string_equal(ask(rw->w, "HGET from:{9} 7"), "4 12");
    relay_reset(rw->relay); /* another owner sends the same again */
    put(rw, "1-0", 10, TO, 1, 2);
    put(rw, "2-0", 12, TO, 3, 4);
    relay_pump(rw->relay);
    settle(rw->w);
    assert_true(is_in_order(rw->w, TO, 4));
    assert_string_equal(ask(rw->w, "HGET from:{9} forks"), "nil");
}

static void test_relay_ignores_what_was_delivered_before(void **state)
{
    struct relay_world *rw = *state;
    relay_set_mark(rw->relay, SL_STR(TO), 5);
    put(rw, "1-0", 10, TO, 1, 5);
    assert_int_equal(relay_backlog(rw->relay), 0);
    assert_string_equal(positions(rw), "@ 1-0 ");
}

/* After lost data the destination may have more than this side ever sent: what comes new must still be sent. */
static void test_relay_does_not_drop_new_facts_below_an_old_mark(void **state)
{
    struct relay_world *rw = *state;
    (void)ask(rw->w, "HSET from:{9} 7 x");
    bus_args_clear(&rw->args);
    static const char *const words[] = {"HSET", "from:{9}", "7", "10 5"};
    for (size_t i = 0; i < 4; i++)
        bus_args_c(&rw->args, words[i]);
    (void)memory_peek(rw->w->store, &rw->args);
    put(rw, "1-0", 5, TO, 8, 8);  /* before the loss */
    put(rw, "2-0", 6, TO, 9, 10); /* after it, under a new epoch */
    relay_pump(rw->relay);
    settle(rw->w);
    assert_int_equal(number(rw->w, "XLEN " TO), 2);
    put(rw, "3-0", 6, TO, 11, 11);
    relay_pump(rw->relay);
    settle(rw->w);
    assert_int_equal(number(rw->w, "XLEN " TO), 3);
    assert_string_equal(ask(rw->w, "HGET from:{9} 7"), "11 6");
    assert_string_equal(ask(rw->w, "HGET from:{9} forks"), "1");
}

static void test_relay_position_waits_for_every_destination(void **state)
{
    struct relay_world *rw = *state;
    (void)ask(rw->w, "RPUSH " TO " not-a-stream");
    const struct fx_fact_item both[] = {
        {.destination = SL_STR("bot:x"), .number = 1, .event = {.type = EVENT_TASK}},
        {.destination = SL_STR(TO), .number = 1, .event = {.type = EVENT_NEED, .ticket = 1}}};
    relay_add(rw->relay, SL_STR("1-0"), 10, both, 2);
    put(rw, "2-0", 10, "bot:x", 2, 2);
    relay_pump(rw->relay);
    pass(rw->w, 300);
    assert_string_equal(positions(rw), "bot:x 2 ");
    assert_int_equal(relay_out_position(rw->relay).len, 0);
    (void)ask(rw->w, "DEL " TO);
    pass(rw->w, 300);
    assert_string_equal(positions(rw), TO " 1 @ 2-0 ");
}

/* An entry that is read again is one entry, however its facts are handed over. */
static void test_relay_position_waits_for_the_whole_entry(void **state)
{
    struct relay_world *rw = *state;
    (void)ask(rw->w, "RPUSH " TO " not-a-stream");
    relay_set_mark(rw->relay, SL_STR("bot:x"), 1);
    struct relay_batch *b = relay_batch_begin(SL_STR("1-0"));
    const struct fx_fact_item first = {
        .destination = SL_STR("bot:x"), .number = 1, .event = {.type = EVENT_TASK}};
    const struct fx_fact_item second = {
        .destination = SL_STR(TO), .number = 1, .event = {.type = EVENT_NEED, .ticket = 1}};
    relay_batch_put(rw->relay, b, 10, &first);
    relay_batch_put(rw->relay, b, 10, &second);
    relay_batch_end(rw->relay, b);
    relay_pump(rw->relay);
    pass(rw->w, 300);
    assert_string_equal(positions(rw), "");
}

static void test_relay_positions_come_back_when_not_saved(void **state)
{
    struct relay_world *rw = *state;
    put(rw, "1-0", 10, TO, 1, 2);
    relay_pump(rw->relay);
    settle(rw->w);
    assert_true(relay_is_dirty(rw->relay));
    assert_string_equal(positions(rw), TO " 2 @ 1-0 ");
    assert_false(relay_is_dirty(rw->relay));
    relay_saved(rw->relay, false);
    assert_string_equal(positions(rw), TO " 2 @ 1-0 ");
    relay_saved(rw->relay, true);
    assert_string_equal(positions(rw), "");
}

/* A commit whose reply was lost has no known place: the place before it stays, the next one passes both. */
static void test_relay_passes_a_batch_without_a_place(void **state)
{
    struct relay_world *rw = *state;
    put(rw, "1-0", 10, TO, 1, 1);
    put(rw, "", 10, TO, 2, 2);
    relay_pump(rw->relay);
    settle(rw->w);
    assert_string_equal(positions(rw), TO " 2 @ 1-0 ");
    put(rw, "3-0", 10, TO, 3, 3);
    relay_pump(rw->relay);
    settle(rw->w);
    assert_string_equal(positions(rw), TO " 3 @ 3-0 ");
}

/* A destination that refuses for hours must not make the list of passed entries grow. */
static void test_relay_memory_is_bounded_behind_a_closed_destination(void **state)
{
    struct relay_world *rw = *state;
    char id[32];
    (void)ask(rw->w, "RPUSH " TO " not-a-stream");
    put(rw, "1-0", 10, TO, 1, 1);
    for (unsigned i = 2; i < 3000; i++) {
        (void)snprintf(id, sizeof id, "%u-0", i);
        put(rw, id, 10, "bot:x", i / 2, i / 2 - 1 + i % 2); /* every other one has a fact for somebody else */
        relay_pump(rw->relay);
        settle(rw->w);
    }
    assert_true(relay_batches(rw->relay) < 200);
    (void)ask(rw->w, "DEL " TO);
    pass(rw->w, 300);
    assert_int_equal(relay_batches(rw->relay), 0);
    assert_bytes(relay_out_position(rw->relay), "2999-0");
}

static void test_relay_may_be_reset_by_whom_it_tells(void **state)
{
    struct relay_world *rw = *state;
    rw->reset_when_moved = true;
    put(rw, "1-0", 10, TO, 1, 100);
    relay_pump(rw->relay);
    settle(rw->w);
    assert_true(rw->moved > 0);
}

static void test_relay_free_with_a_delivery_in_flight(void **state)
{
    struct relay_world *rw = *state;
    put(rw, "1-0", 10, TO, 1, 100);
    relay_pump(rw->relay);
    (void)execute(rw->w, "deliver_1");
    relay_free(&rw->relay);
    settle(rw->w);
    assert_int_equal(rw->moved, 0);
}

/* ---- gaps: the destination lost facts that this side has already passed ---- */

static void test_relay_gap_is_told_and_repaired_from_the_log(void **state)
{
    struct relay_world *rw = *state;
    put(rw, "1-0", 10, TO, 1, 4);
    relay_pump(rw->relay);
    settle(rw->w);
    (void)ask(rw->w, "DEL " TO " from:{9}"); /* it is empty again */
    put(rw, "2-0", 10, TO, 5, 5);
    relay_pump(rw->relay);
    settle(rw->w);
    assert_int_equal(rw->gaps, 1);
    assert_true(relay_has_gap(rw->relay));    /* the log is to be read from its beginning */
    relay_set_mark(rw->relay, SL_STR(TO), 4); /* what was saved is too much now */
    put(rw, "1-0", 10, TO, 1, 4);
    put(rw, "2-0", 10, TO, 5, 5);
    relay_pump(rw->relay);
    settle(rw->w);
    assert_true(is_in_order(rw->w, TO, 5));
    assert_false(relay_has_gap(rw->relay));
    assert_int_equal(rw->gaps, 1);
}

/* The log does not have them any more: the destination stands, the owner is not made to start over for ever. */
static void test_relay_gap_that_cannot_be_filled_stands(void **state)
{
    struct relay_world *rw = *state;
    relay_set_mark(rw->relay, SL_STR(TO), 4);
    put(rw, "2-0", 10, TO, 5, 5);
    relay_pump(rw->relay);
    settle(rw->w);
    assert_int_equal(rw->gaps, 1);
    relay_set_mark(rw->relay, SL_STR(TO), 4);
    put(rw, "2-0", 10, TO, 5, 5);
    put(rw, "2-1", 10, "bot:x", 1, 1);
    relay_pump(rw->relay);
    pass(rw->w, 5000);
    assert_int_equal(rw->gaps, 1);
    assert_int_equal(number(rw->w, "XLEN bot:x"), 1);
    assert_int_equal(relay_backlog(rw->relay), 1);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        CASE(test_relay_delivers_each_fact_once_in_order),
        CASE(test_relay_repeats_after_a_lost_answer),
        CASE(test_relay_sends_a_fact_under_the_epoch_of_its_commit),
        CASE(test_relay_ignores_what_was_delivered_before),
        CASE(test_relay_does_not_drop_new_facts_below_an_old_mark),
        CASE(test_relay_position_waits_for_every_destination),
        CASE(test_relay_position_waits_for_the_whole_entry),
        CASE(test_relay_positions_come_back_when_not_saved),
        CASE(test_relay_passes_a_batch_without_a_place),
        CASE(test_relay_memory_is_bounded_behind_a_closed_destination),
        CASE(test_relay_may_be_reset_by_whom_it_tells),
        CASE(test_relay_free_with_a_delivery_in_flight),
        CASE(test_relay_gap_is_told_and_repaired_from_the_log),
        CASE(test_relay_gap_that_cannot_be_filled_stands),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
