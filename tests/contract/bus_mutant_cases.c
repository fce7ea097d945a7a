/* tests/contract/bus_mutant_cases.c - the deliberate defects of the bus do what their names say, and go away again.
 *
 * The history checker must find each of them; a mutant that changes nothing would prove nothing.
 */
#include "tests/unit/unit.h"

#include "tests/contract/bus_world.h"

#include "base/fault.h"

#include "bus/bus_priv.h"

#ifdef SL_TEST_BUILD

#include <stdio.h>

#define SOON_MS 5000

/* A new connection loads the Functions as the mutant wants them. */
static void mutate(struct world *w, const char *name)
{
    sl_mutant_set(name);
    bus_close(&w->bus);
    world_pass(w, 5);
    world_open_bus(w);
    world_wait_ready(w);
}

static int teardown(void **state)
{
    sl_mutant_set(NULL);
    return world_teardown(state);
}

static uint64_t acquire(struct world *w)
{
    const char *text =
        world_say(w, "FCALL acquire_1 5 meta:{3} in:{3} timers:{3} num:{3} relay:{3} A 1000 60000 0");
    assert_int_equal(strncmp(text, "[ok ", 4), 0);
    return strtoull(text + 4, NULL, 10);
}

static sl_err commit(struct world *w, uint64_t epoch, const char *from, const char *to)
{
    (void)world_say(w,
                    "FCALL commit_1 7 meta:{3} in:{3} out:{3} timers:{3} num:{3} relay:{3} dead:{3} %llu A "
                    "%s %s 2000 5000 3 500 "
                    "0 0 2 b batch 0 0 0 0 0",
                    (unsigned long long)epoch, from, to);
    return w->err;
}

static void no_epoch_lets_anybody_commit(void **state)
{
    struct world *w = *state;
    uint64_t epoch = acquire(w);
    assert_int_equal(commit(w, epoch - 1, "0-0", "1-0"), SL_EFENCED);
    mutate(w, "no-epoch");
    assert_int_equal(commit(w, epoch - 1, "0-0", "1-0"), SL_OK);
    mutate(w, NULL);
    assert_int_equal(commit(w, epoch - 1, "1-0", "2-0"), SL_EFENCED);
    w->is_finished = true;
}

static void no_offset_lets_a_commit_be_repeated(void **state)
{
    struct world *w = *state;
    uint64_t epoch = acquire(w);
    mutate(w, "no-offset");
    assert_int_equal(commit(w, epoch, "0-0", "1-0"), SL_OK);
    assert_int_equal(commit(w, epoch, "0-0", "1-0"), SL_OK);
    mutate(w, NULL);
    assert_int_equal(commit(w, epoch, "0-0", "1-0"), SL_EMOVED);
    w->is_finished = true;
}

static void deliver_mutants_double_and_skip(void **state)
{
    struct world *w = *state;
    mutate(w, "deliver-no-mark");
    world_expect(w, "1", "FCALL deliver_1 2 in:{5} from:{5} 3 5 1 0 1 2 t need");
    world_expect(w, "1", "FCALL deliver_1 2 in:{5} from:{5} 3 5 1 0 1 2 t need");
    world_expect(w, "2", "XLEN in:{5}");
    mutate(w, "deliver-no-gap");
    world_expect(w, "1", "FCALL deliver_1 2 in:{5} from:{5} 3 5 1 0 1 2 t need");
    world_expect(w, "2", "XLEN in:{5}");
    world_expect(w, "9", "FCALL deliver_1 2 in:{5} from:{5} 3 5 9 0 1 2 t need");
    mutate(w, NULL);
    (void)world_say(w, "FCALL deliver_1 2 in:{5} from:{5} 3 5 11 0 1 2 t need");
    assert_int_equal(w->err, SL_EGAP);
    w->is_finished = true;
}

static void on_accepted(void *arg, sl_err err, const struct bus_accept_result *res, const struct sl_fail *why)
{
    (void)res;
    (void)why;
    assert_int_equal(err, SL_OK);
    ++*(unsigned *)arg;
}

static void no_dedupe_appends_a_repeat(void **state)
{
    struct world *w = *state;
    const struct event message = {.type = EVENT_MESSAGE, .text = SL_STR("hi")};
    const struct bus_accept in = {.tag = "3",
                                  .dedupe = BUS_BY_NUMBER,
                                  .session = SL_STR("s"),
                                  .target = SL_STR("me"),
                                  .number = 1,
                                  .event = &message};
    unsigned calls = 0;
    for (unsigned i = 0; i < 3; i++) {
        sl_mutant_set(i == 1 ? "no-dedupe" : NULL);
        assert_int_equal(bus_accept(w->bus, &in, on_accepted, &calls), SL_OK);
        assert_true(world_wait_count(w, &calls, i + 1, SOON_MS));
    }
    world_expect(w, "2", "XLEN in:{3}");
    w->is_finished = true;
}

static void on_entries(void *arg, void *stream_arg, const struct bus_entry *entries, size_t count)
{
    (void)stream_arg;
    for (size_t i = 0; i < count; i++)
        sl_buf_str(arg, entries[i].item[1]);
}

static void tail_skip_misses_one_entry_after_a_loss(void **state)
{
    struct world *w = *state;
    struct sl_buf taken;
    sl_buf_init(&taken, 0);
    struct bus_tail *t = bus_tail_open(w->bus, 8, on_entries, &taken);
    bus_tail_add(t, SL_STR("in:{3}"), SL_STR("0-0"), NULL);
    sl_mutant_set("tail-skip");
    for (int i = 1; i <= 6; i++) {
        (void)world_say(w, "XADD in:{3} %d-0 v %d", i, i);
        if (i != 3 && i != 4) {
            world_pass(w, 100);
            continue;
        }
        unsigned readies = w->readies;
        if (w->kind == WORLD_REDIS) {
            server_kill(&w->server);
            server_start(&w->server);
        } else {
            memory_restart(w->store);
        }
        assert_true(world_wait_count(w, &w->readies, readies + 1, SOON_MS));
        world_pass(w, 300);
    }
    assert_true(taken.len > 0 && taken.len < 6);
    bus_tail_close(&t);
    sl_buf_fini(&taken);
    w->is_finished = true;
}

#define MUTANT_REDIS(f)                                                                                      \
    {                                                                                                        \
        "redis: " #f, f, world_setup_redis, teardown, NULL                                                   \
    }

int run_mutant_cases(void)
{
    const struct CMUnitTest cases[] = {
        MUTANT_REDIS(no_epoch_lets_anybody_commit),
        MUTANT_REDIS(no_offset_lets_a_commit_be_repeated),
        MUTANT_REDIS(deliver_mutants_double_and_skip),
        MUTANT_REDIS(no_dedupe_appends_a_repeat),
        MUTANT_REDIS(tail_skip_misses_one_entry_after_a_loss),
    };
    return cmocka_run_group_tests_name("mutants", cases, NULL, NULL);
}

#else

int run_mutant_cases(void)
{
    return 0; /* a release has none */
}

#endif
