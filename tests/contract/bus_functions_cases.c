/* tests/contract/bus_functions_cases.c - what bus/functions.md promises, Function by Function. */
#include "tests/unit/unit.h"

#include "tests/contract/bus_world.h"

#include <stdio.h>

#define KEYS_COMMIT  "FCALL commit_1 7 meta:{3} in:{3} out:{3} timers:{3} num:{3} relay:{3} dead:{3}"
#define KEYS_ACQUIRE "FCALL acquire_1 5 meta:{3} in:{3} timers:{3} num:{3} relay:{3}"
#define NOTHING      "0 0 0 0 0 0 0 0"

/* ---- helpers ---- */

/* Refused for good, by our own check or by Redis's for the type of a key. */
static bool is_refused(const char *text)
{
    return strncmp(text, "!EREFUSED BAD ", 14) == 0 || strncmp(text, "!EREFUSED WRONGTYPE ", 20) == 0;
}

/* Member i of the array that a reply's text shows, at the top level. */
static const char *member(const char *text, size_t i, char out[512])
{
    size_t n = 0, depth = 0;
    out[0] = '\0';
    assert_int_equal(text[0], '[');
    for (const char *p = text + 1; *p != '\0' && !(depth == 0 && *p == ']'); p++) {
        depth += (*p == '[') ? 1 : 0;
        depth -= (*p == ']') ? 1 : 0;
        if (depth == 0 && *p == ' ') {
            if (i == 0)
                break;
            i--;
        } else if (i == 0) {
            assert_true(n < 511);
            out[n++] = *p;
        }
    }
    out[n] = '\0';
    return out;
}

static uint64_t number_of(const char *s)
{
    return strtoull(s, NULL, 10);
}

struct lease {
    char run[8], offset[64];
    uint64_t epoch, now, gen, tries;
    char last[64], due[64], numbers[512], relay[512];
};

static bool acquire(struct world *w, const char *run, unsigned lease_ms, int lost, struct lease *l)
{
    char m[512];
    const char *text =
        world_say(w, KEYS_ACQUIRE " %s %lld %u %d", run, (long long)sl_loop_unix_ms(w->loop), lease_ms, lost);
    if (strcmp(member(text, 0, m), "ok") != 0)
        return false;
    (void)snprintf(l->run, sizeof(l->run), "%s", run);
    l->epoch = number_of(member(text, 1, m));
    (void)snprintf(l->offset, sizeof(l->offset), "%.60s", member(text, 2, m));
    l->now = number_of(member(text, 3, m));
    l->gen = number_of(member(text, 4, m));
    l->tries = number_of(member(text, 5, m));
    (void)snprintf(l->last, sizeof(l->last), "%.60s", member(text, 6, m));
    (void)snprintf(l->due, sizeof(l->due), "%.60s", member(text, 7, m));
    (void)member(text, 8, l->numbers);
    (void)member(text, 9, l->relay);
    return true;
}

static struct lease acquired(struct world *w, const char *run)
{
    struct lease l = {.epoch = 0};
    assert_true(acquire(w, run, 5000, 0, &l));
    return l;
}

static const char *commit(struct world *w, const struct lease *l, const char *from, const char *to,
                          const char *sections)
{
    return world_say(w, KEYS_COMMIT " %llu %s %s %s %llu 5000 3 500 %s", (unsigned long long)l->epoch, l->run,
                     from, to, (unsigned long long)l->now, sections);
}

/* Everything partition 3 holds, as text; caller frees. */
static char *dump(struct world *w)
{
    static const char *const COMMANDS[] = {"HGETALL meta:{3}",      "XRANGE in:{3} - +",
                                           "XRANGE out:{3} - +",    "ZRANGE timers:{3} 0 -1 WITHSCORES",
                                           "HGETALL num:{3}",       "HGETALL relay:{3}",
                                           "XRANGE dead:{3} - +",   "HGETALL conv:{3}:x",
                                           "LRANGE log:{3}:x 0 -1", "HGETALL conv:{3}:y",
                                           "LRANGE log:{3}:y 0 -1"};
    struct sl_buf all;
    sl_buf_init(&all, 0);
    for (size_t i = 0; i < sizeof(COMMANDS) / sizeof(COMMANDS[0]); i++) {
        sl_buf_c(&all, world_say(w, "%s", COMMANDS[i]));
        sl_buf_char(&all, '\n');
    }
    sl_buf_char(&all, '\0');
    return all.ptr;
}

static const char *accept_number(struct world *w, unsigned number, const char *limits)
{
    return world_say(w, "FCALL accept_1 2 in:{3} sess:{3}:s n %u %s 60000 4 t message x hi", number, limits);
}

static void finish(struct world *w)
{
    w->is_finished = true;
}

/* ---- accept ---- */

static void accept_numbers_frames_without_gaps(void **state)
{
    struct world *w = *state;
    char m[512], first[64], second[64];
    (void)snprintf(first, sizeof(first), "%.60s", member(accept_number(w, 1, "100 0 0"), 1, m));
    (void)snprintf(second, sizeof(second), "%.60s", member(accept_number(w, 2, "100 0 0"), 1, m));
    assert_string_not_equal(first, second);
    const char *text = accept_number(w, 1, "100 0 0");
    assert_string_equal(member(text, 0, m), "dup");
    assert_string_equal(member(text, 1, m), first);
    assert_string_equal(accept_number(w, 4, "100 0 0"), "!EGAP GAP 2");
    assert_int_equal(w->err, SL_EGAP);
    world_expect(w, "2", "XLEN in:{3}");
    char expected[256];
    (void)snprintf(expected, sizeof(expected), "[[%s [t message x hi]] [%s [t message x hi]]]", first,
                   second);
    world_expect(w, expected, "XRANGE in:{3} - +");
    finish(w);
}

/* Two sockets of one session count apart: the second command must not pass for a repeat of the first. */
static void accept_knows_a_repeat_from_another_command(void **state)
{
    struct world *w = *state;
    static const char FORM[] = "FCALL accept_1 2 in:{3} sess:{3}:s n %u 100 0 0 60000 4 t message id %s";
    char m[512], first[64];
    (void)snprintf(first, sizeof(first), "%.60s", member(world_say(w, FORM, 1, "a"), 1, m));
    const char *repeat = world_say(w, FORM, 1, "a");
    assert_string_equal(member(repeat, 0, m), "dup");
    assert_string_equal(member(repeat, 1, m), first);
    (void)world_say(w, FORM, 1, "b");
    assert_int_equal(w->err, SL_ECONFLICT);
    assert_string_equal(member(world_say(w, FORM, 2, "b"), 0, m), "ok");
    world_expect(w, "2", "XLEN in:{3}");
    finish(w);
}

static void accept_answers_old_repeats_without_the_entry(void **state)
{
    struct world *w = *state;
    char m[512], last[64] = "";
    for (unsigned i = 1; i <= 20; i++)
        (void)snprintf(last, sizeof(last), "%.60s", member(accept_number(w, i, "100 0 0"), 1, m));
    assert_string_equal(accept_number(w, 4, "100 0 0"), "[dup ]");
    assert_string_equal(member(accept_number(w, 20, "100 0 0"), 1, m), last);
    assert_string_not_equal(accept_number(w, 5, "100 0 0"), "[dup ]");
    world_expect(w, "20", "XLEN in:{3}");
    finish(w);
}

static void accept_limits_the_rate_of_a_session(void **state)
{
    struct world *w = *state;
    char m[512];
    assert_string_equal(member(accept_number(w, 1, "100 5 2"), 0, m), "ok");
    assert_string_equal(member(accept_number(w, 2, "100 5 2"), 0, m), "ok");
    const char *text = accept_number(w, 3, "100 5 2");
    assert_int_equal(w->err, SL_ERATE);
    uint64_t retry_ms = number_of(text + strlen("!ERATE RATE "));
    assert_in_range(retry_ms, 1, 200);
    assert_string_equal(member(accept_number(w, 2, "100 5 2"), 0, m), "dup"); /* repeats cost nothing */
    world_pass(w, retry_ms + 10);
    assert_string_equal(member(accept_number(w, 3, "100 5 2"), 0, m), "ok");
    world_expect(w, "3", "XLEN in:{3}");
    finish(w);
}

static void accept_refuses_when_the_log_is_full_but_knows_repeats(void **state)
{
    struct world *w = *state;
    char m[512];
    (void)accept_number(w, 1, "2 0 0");
    (void)accept_number(w, 2, "2 0 0");
    assert_string_equal(accept_number(w, 3, "2 0 0"), "!EAGAIN FULL 2");
    assert_string_equal(member(accept_number(w, 2, "2 0 0"), 0, m), "dup");
    world_expect(w, "2", "HGET sess:{3}:s n");
    finish(w);
}

static void accept_looks_for_an_id_in_every_bucket(void **state)
{
    struct world *w = *state;
    char m[512], first[64];
    const char *text =
        world_say(w, "FCALL accept_1 3 in:{3} seen:{3}:1 seen:{3}:0 i abc 100 0 0 60000 2 t message");
    assert_string_equal(member(text, 0, m), "ok");
    (void)snprintf(first, sizeof(first), "%.60s", member(text, 1, m));
    text = world_say(
        w, "FCALL accept_1 4 in:{3} seen:{3}:3 seen:{3}:2 seen:{3}:1 i abc 100 0 0 60000 2 t message");
    assert_string_equal(member(text, 0, m), "dup");
    assert_string_equal(member(text, 1, m), first);
    text = world_say(w, "FCALL accept_1 3 in:{3} seen:{3}:4 seen:{3}:3 i abc 100 0 0 60000 2 t message");
    assert_string_equal(member(text, 0, m), "ok"); /* the bucket with it is out of the horizon */
    world_expect(w, "0", "EXISTS seen:{3}:3");
    world_expect(w, "2", "XLEN in:{3}");
    finish(w);
}

static void accept_checks_its_arguments_before_it_writes(void **state)
{
    struct world *w = *state;
    static const char *const BAD[] = {
        "FCALL accept_1 2 in:{3} sess:{3}:s n 0 100 0 0 1000 2 t message",
        "FCALL accept_1 2 in:{3} sess:{3}:s n x 100 0 0 1000 2 t message",
        "FCALL accept_1 2 in:{3} sess:{3}:s n 1 100 0 0 1000 3 t message x",
        "FCALL accept_1 2 in:{3} sess:{3}:s n 1 100 0 0 1000 4 t message",
        "FCALL accept_1 2 in:{3} sess:{3}:s n 1 100 0 0 1000 2 t message x",
        "FCALL accept_1 2 in:{3} sess:{3}:s n 1 100 0 0 1000 0",
        "FCALL accept_1 2 in:{3} sess:{3}:s q 1 100 0 0 1000 2 t message",
        "FCALL accept_1 2 in:{3} sess:{3}:s n 1 -1 0 0 1000 2 t message",
        "FCALL accept_1 1 in:{3} n 1 100 0 0 1000 2 t message",
        "FCALL accept_1 1 in:{3} i 1 100 0 0 1000 2 t message",
    };
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        const char *text = world_say(w, "%s", BAD[i]);
        if (strncmp(text, "!EREFUSED BAD", 13) != 0)
            fail_msg("%s -> %s", BAD[i], text);
    }
    world_expect(w, "0", "EXISTS in:{3}");
    world_expect(w, "0", "EXISTS sess:{3}:s");
    finish(w);
}

/* ---- the lease ---- */

static void acquire_gives_one_owner_at_a_time(void **state)
{
    struct world *w = *state;
    struct lease a = acquired(w, "A"), b = {.epoch = 0};
    char m[512];
    assert_string_equal(a.offset, "0-0");
    assert_string_equal(a.last, "0-0");
    assert_string_equal(a.due, "");
    assert_int_equal(a.tries, 0);
    assert_int_equal(a.gen, a.epoch);
    assert_false(acquire(w, "B", 5000, 0, &b));
    const char *text = world_say(w, KEYS_ACQUIRE " B 1 5000 0");
    assert_string_equal(member(text, 0, m), "held");
    assert_string_equal(member(text, 1, m), "A");
    assert_in_range(number_of(member(text, 2, m)), 1, 5000);
    finish(w);
}

static void epoch_rises_with_every_acquire_and_fences_the_one_before(void **state)
{
    struct world *w = *state;
    struct lease a = {.epoch = 0}, b;
    assert_true(acquire(w, "A", 20, 0, &a));
    world_pass(w, 30);
    b = acquired(w, "B"); /* the lease has ended; nobody asked A */
    assert_true(b.epoch > a.epoch);
    assert_int_equal(b.gen, a.gen);
    world_expect(w, "!EFENCED FENCED another owner holds this partition",
                 "FCALL renew_1 1 meta:{3} %llu A 5000", (unsigned long long)a.epoch);
    world_expect(w, "!EFENCED FENCED another owner holds this partition",
                 "FCALL renew_1 1 meta:{3} %llu A 5000", (unsigned long long)b.epoch);
    world_expect(w, "!EFENCED FENCED another owner holds this partition",
                 "FCALL renew_1 1 meta:{3} %llu B 5000", (unsigned long long)a.epoch);
    world_expect(w, "OK", "FCALL renew_1 1 meta:{3} %llu B 5000", (unsigned long long)b.epoch);
    (void)commit(w, &a, "0-0", "1-0", NOTHING);
    assert_int_equal(w->err, SL_EFENCED);
    assert_string_not_equal(commit(w, &b, "0-0", "1-0", NOTHING), "");
    assert_int_equal(w->err, SL_OK);
    struct lease again = acquired(w, "B");
    assert_true(again.epoch > b.epoch);
    finish(w);
}

static void renew_keeps_the_lease_and_release_frees_it(void **state)
{
    struct world *w = *state;
    struct lease a = {.epoch = 0}, b = {.epoch = 0};
    assert_true(acquire(w, "A", 60, 0, &a));
    world_expect(w, "OK", "FCALL renew_1 1 meta:{3} %llu A 5000", (unsigned long long)a.epoch);
    world_pass(w, 80);
    assert_false(acquire(w, "B", 5000, 0, &b));
    world_expect(w, "OK", "FCALL release_1 2 meta:{3} relay:{3} %llu A 2 in:{5} 7 @ 12-0",
                 (unsigned long long)a.epoch);
    world_expect(w, "!EFENCED FENCED another owner holds this partition",
                 "FCALL release_1 2 meta:{3} relay:{3} %llu A 0", (unsigned long long)a.epoch);
    b = acquired(w, "B");
    assert_true(b.epoch > a.epoch);
    assert_string_equal(b.relay, "[in:{5} 7 @ 12-0]");
    finish(w);
}

static void tries_count_takeovers_at_an_unchanged_offset(void **state)
{
    struct world *w = *state;
    struct lease l = {.epoch = 0};
    (void)accept_number(w, 1, "100 0 0");
    static const char *const RUNS[] = {"A", "B", "B", "C"};
    static const uint64_t TRIES[] = {1, 2, 2, 3};
    for (size_t i = 0; i < 4; i++) {
        assert_true(acquire(w, RUNS[i], 5, 0, &l));
        assert_int_equal(l.tries, TRIES[i]);
        world_pass(w, 10);
    }
    l = acquired(w, "D");
    assert_int_equal(l.tries, 4);
    (void)commit(w, &l, "0-0", l.last, NOTHING);
    assert_int_equal(w->err, SL_OK);
    (void)accept_number(w, 2, "100 0 0");
    world_expect(w, "OK", "FCALL release_1 2 meta:{3} relay:{3} %llu D 0", (unsigned long long)l.epoch);
    assert_true(acquire(w, "E", 5, 0, &l));
    assert_int_equal(l.tries, 1); /* another offset */
    world_expect(w, "OK", "FCALL release_1 2 meta:{3} relay:{3} %llu E 0", (unsigned long long)l.epoch);
    l = acquired(w, "F");
    assert_int_equal(l.tries, 1); /* a release is no death */
    finish(w);
}

static void lost_data_begin_a_generation(void **state)
{
    struct world *w = *state;
    struct lease a = {.epoch = 0}, b = {.epoch = 0}, c;
    assert_true(acquire(w, "A", 5, 0, &a));
    world_pass(w, 10);
    assert_true(acquire(w, "B", 5, 1, &b));
    assert_int_equal(b.gen, b.epoch);
    assert_true(b.gen > a.gen);
    (void)commit(w, &b, "0-0", "99999999999999-0",
                 NOTHING); /* in:{3} does not reach so far: it must have lost entries */
    assert_int_equal(w->err, SL_OK);
    world_expect(w, "OK", "FCALL release_1 2 meta:{3} relay:{3} %llu B 0", (unsigned long long)b.epoch);
    c = acquired(w, "C");
    assert_int_equal(c.gen, c.epoch);
    assert_string_equal(c.offset, "0-0");
    finish(w);
}

static void now_never_runs_back(void **state)
{
    struct world *w = *state;
    struct lease a = {.epoch = 0}, b = {.epoch = 0};
    char m[512];
    const char *text = world_say(w, KEYS_ACQUIRE " A 1000 5 0"); /* an owner whose clock stands in 1970 */
    assert_int_equal(number_of(member(text, 3, m)), 1000);
    world_pass(w, 10);
    text =
        world_say(w, KEYS_ACQUIRE " A 99999999999999 5 0"); /* and one in the year 5138: Redis' clock wins */
    a.epoch = number_of(member(text, 1, m));
    a.now = number_of(member(text, 3, m));
    assert_true(a.now < 99999999999999);
    (void)snprintf(a.run, sizeof(a.run), "A");
    (void)commit(w, &a, "0-0", "1-0", NOTHING);
    assert_int_equal(w->err, SL_OK);
    a.now--;
    assert_string_equal(commit(w, &a, "1-0", "2-0", NOTHING), "!EREFUSED BAD now: it would run back");
    world_expect(w, "OK", "FCALL release_1 2 meta:{3} relay:{3} %llu A 0", (unsigned long long)a.epoch);
    text = world_say(w, KEYS_ACQUIRE " B 5 5 0");
    b.now = number_of(member(text, 3, m));
    assert_int_equal(b.now, a.now + 1);
    finish(w);
}

/* ---- commit ---- */

static void commit_writes_all_eight_sections(void **state)
{
    struct world *w = *state;
    struct lease l = acquired(w, "A");
    char m[512];
    world_expect(w, "1", "RPUSH log:{3}:y old");
    world_expect(w, "4", "HSET conv:{3}:y s {} n 1 v 1 b 0");
    const char *text = commit(w, &l, "0-0", "5-1",
                              "2 conv:{3}:x s {\"a\":1} 2 1 conv:{3}:y d log:{3}:y 0 0 "
                              "2 log:{3}:x conv:{3}:x 1 one log:{3}:x conv:{3}:x 2 two "
                              "4 b batch f fact "
                              "1 in:{5} 9 "
                              "3 + x|idle|2 5000 + x|wait|0 6000 - x|wait|0 0 "
                              "2 in:{5} 8 @ 4-4 "
                              "1 5-0 boom 4 t message x hi "
                              "1 channel payload");
    assert_string_equal(member(text, 0, m), "ok");
    char out_id[64], wanted[256];
    (void)snprintf(out_id, sizeof(out_id), "%.60s", member(text, 1, m));
    world_expect(w, "[{\"a\":1} 2 1 ~]", "HMGET conv:{3}:x s n v b");
    world_expect(w, "[one two]", "LRANGE log:{3}:x 0 -1");
    world_expect(w, "0", "EXISTS conv:{3}:y");
    world_expect(w, "0", "EXISTS log:{3}:y");
    (void)snprintf(wanted, sizeof(wanted), "[[%s [b batch f fact]]]", out_id);
    world_expect(w, wanted, "XRANGE out:{3} - +");
    world_expect(w, "[in:{5} 9]", "HGETALL num:{3}");
    world_expect(w, "[x|idle|2 5000]", "ZRANGE timers:{3} 0 -1 WITHSCORES");
    world_expect(w, "[in:{5} 8 @ 4-4]", "HGETALL relay:{3}");
    text = world_say(w, "XRANGE dead:{3} - +");
    assert_non_null(strstr(text, "[e 5-0 r boom t message x hi]"));
    world_expect(w, "5-1", "HGET meta:{3} offset");
    (void)snprintf(wanted, sizeof(wanted), "%llu", (unsigned long long)l.now);
    world_expect(w, wanted, "HGET meta:{3} now");
    finish(w);
}

static void commit_twice_is_answered_with_the_own_new_offset(void **state)
{
    struct world *w = *state;
    struct lease l = acquired(w, "A");
    static const char SECTIONS[] =
        "1 conv:{3}:x s {} 1 1 1 log:{3}:x conv:{3}:x 1 one 2 b batch 1 in:{5} 1 0 0 0 0";
    (void)commit(w, &l, "0-0", "5-0", SECTIONS);
    assert_int_equal(w->err, SL_OK);
    char *before = dump(w);
    assert_string_equal(commit(w, &l, "0-0", "5-0", SECTIONS), "!EMOVED MOVED_OFFSET 5-0");
    char *after = dump(w);
    assert_string_equal(after, before);
    free(before);
    free(after);
    finish(w);
}

static void a_refused_commit_leaves_nothing_written(void **state)
{
    struct world *w = *state;
    struct lease l = acquired(w, "A");
    static const char *const BAD[] = {
        /* counts: too many, too few, left over, odd, not a number */
        "2 conv:{3}:x s {} 1 1 0 0 0 0 0 0 0",
        "0 0 0 0 0 0 0",
        "0 0 0 0 0 0 0 0 more",
        "0 0 1 b 0 0 0 0 0",
        "0 0 x 0 0 0 0 0",
        "0 0 2 b batch 0 0 0 1 5-0 boom 3 t message x 0",
        "0 0 2 b batch 0 0 0 2 5-0 boom 2 t message 0",
        /* states */
        "1 conv:{4}:x s {} 1 1 0 2 b batch 0 0 0 0 0",
        "1 conv:{3}:x q {} 1 1 0 2 b batch 0 0 0 0 0",
        "1 conv:{3}:x s {} x 1 0 2 b batch 0 0 0 0 0",
        "1 wrong:{3} s {} 1 1 1 log:{3}:x conv:{3}:x 1 one 2 b batch 0 0 0 0 0",
        "1 conv:{3}:x d meta:{3} 0 0 0 2 b batch 0 0 0 0 0",
        /* history: a hole, a repeat, the wrong type, another partition, two states of one log */
        "1 conv:{3}:x s {} 2 2 1 log:{3}:x conv:{3}:x 2 one 2 b batch 0 0 0 0 0",
        "0 2 log:{3}:x conv:{3}:x 1 one log:{3}:x conv:{3}:x 1 one 2 b batch 0 0 0 0 0",
        "0 1 meta:{3} conv:{3}:x 1 one 2 b batch 0 0 0 0 0",
        "0 1 log:{4}:x conv:{3}:x 1 one 2 b batch 0 0 0 0 0",
        "0 1 log:{3}:x conv:{4}:x 1 one 2 b batch 0 0 0 0 0",
        "0 2 log:{3}:x conv:{3}:x 1 one log:{3}:x conv:{3}:y 2 one 2 b batch 0 0 0 0 0",
        /* numbers, timers, relay, each after sections that are good */
        "1 conv:{3}:x s {} 1 1 0 2 b batch 1 in:{5} x 0 0 0 0",
        "1 conv:{3}:x s {} 1 1 0 2 b batch 1 in:{7} 3 0 0 0 0",
        "1 conv:{3}:x s {} 1 1 0 2 b batch 0 1 + x|idle 5000 0 0 0",
        "1 conv:{3}:x s {} 1 1 0 2 b batch 0 1 + x|idle|2 soon 0 0 0",
        "1 conv:{3}:x s {} 1 1 0 2 b batch 0 1 * x|idle|2 5000 0 0 0",
        "1 conv:{3}:x s {} 1 1 0 2 b batch 0 0 1 @ 17 0 0",
        "1 conv:{3}:x s {} 1 1 0 2 b batch 0 0 1 in:{5} 1-1 0 0",
        "1 conv:{3}:x s {} 1 1 0 2 b batch 0 0 0 0 1 channel",
    };
    world_expect(w, "1", "RPUSH wrong:{3} a");
    world_expect(w, "1", "HSET num:{3} in:{7} 4");
    char *before = dump(w);
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        const char *text = commit(w, &l, "0-0", "5-0", BAD[i]);
        if (!is_refused(text))
            fail_msg("%s -> %s", BAD[i], text);
        char *after = dump(w);
        if (strcmp(after, before) != 0)
            fail_msg("%s left something written", BAD[i]);
        free(after);
    }
    free(before);
    world_expect(w, "[a]", "LRANGE wrong:{3} 0 -1");
    finish(w);
}

static void a_commit_of_the_wrong_offset_or_owner_is_refused(void **state)
{
    struct world *w = *state;
    struct lease l = acquired(w, "A"), other = l;
    static const char SECTIONS[] = "1 conv:{3}:x s {} 1 1 0 2 b batch 0 0 0 0 0";
    char *before = dump(w);
    assert_string_equal(commit(w, &l, "1-0", "5-0", SECTIONS), "!EMOVED MOVED_OFFSET 0-0");
    other.epoch++;
    (void)commit(w, &other, "0-0", "5-0", SECTIONS);
    assert_int_equal(w->err, SL_EFENCED);
    other.epoch -= 2;
    (void)commit(w, &other, "0-0", "5-0", SECTIONS);
    assert_int_equal(w->err, SL_EFENCED);
    (void)commit(w, &other, "1-0", "5-0", SECTIONS);
    assert_int_equal(w->err, SL_EFENCED); /* who is not the owner is not told the offset */
    other = l;
    (void)snprintf(other.run, sizeof(other.run), "B");
    (void)commit(w, &other, "0-0", "5-0", SECTIONS);
    assert_int_equal(w->err, SL_EFENCED);
    char *after = dump(w);
    assert_string_equal(after, before);
    free(before);
    free(after);
    (void)commit(w, &l, "0-0", "5-0", SECTIONS);
    assert_int_equal(w->err, SL_OK);
    (void)commit(w, &l, "5-0", "4-9", SECTIONS);
    assert_int_equal(w->err, SL_EREFUSED); /* an offset never goes back */
    finish(w);
}

static void commit_cuts_a_long_history_and_goes_on_numbering(void **state)
{
    struct world *w = *state;
    struct lease l = acquired(w, "A");
    struct sl_buf sections;
    sl_buf_init(&sections, 0);
    sl_buf_c(&sections, "1 conv:{3}:x s {} 103 103 103");
    for (int i = 1; i <= 103; i++)
        sl_buf_printf(&sections, " log:{3}:x conv:{3}:x %d e%d", i, i);
    sl_buf_c(&sections, " 0 0 0 0 0 0");
    sl_buf_char(&sections, '\0');
    (void)world_say(w, KEYS_COMMIT " %llu A 0-0 1-0 %llu 5000 3 3 %s", (unsigned long long)l.epoch,
                    (unsigned long long)l.now, sections.ptr);
    assert_int_equal(w->err, SL_OK);
    world_expect(w, "103", "LLEN log:{3}:x"); /* keep + 100 is still allowed */
    (void)world_say(
        w,
        KEYS_COMMIT
        " %llu A 1-0 2-0 %llu 5000 3 3 1 conv:{3}:x s {} 104 104 1 log:{3}:x conv:{3}:x 104 e104 0 0 0 0 0 0",
        (unsigned long long)l.epoch, (unsigned long long)l.now);
    assert_int_equal(w->err, SL_OK);
    world_expect(w, "[e102 e103 e104]", "LRANGE log:{3}:x 0 -1");
    world_expect(w, "101", "HGET conv:{3}:x b");
    (void)commit(w, &l, "2-0", "3-0", "0 1 log:{3}:x conv:{3}:x 104 again 0 0 0 0 0 0");
    assert_int_equal(w->err, SL_EREFUSED);
    (void)commit(w, &l, "2-0", "3-0", "0 1 log:{3}:x conv:{3}:x 105 e105 0 0 0 0 0 0");
    assert_int_equal(w->err, SL_OK);
    sl_buf_fini(&sections);
    finish(w);
}

static void commit_takes_ten_thousand_values_and_any_bytes(void **state)
{
    struct world *w = *state;
    struct lease l = acquired(w, "A");
    static const char BYTES[] = "\0\r\n$5\r\n\xff\xfe{}|' ";
    struct sl_str bytes = sl_str_n(BYTES, sizeof(BYTES) - 1);
    struct bus_args a;
    bus_args_init(&a);
    char head[512];
    (void)snprintf(head, sizeof(head), KEYS_COMMIT " %llu A 0-0 1-0 %llu 5000 3 0 1 conv:{3}:x s",
                   (unsigned long long)l.epoch, (unsigned long long)l.now);
    for (char *save = NULL, *word = strtok_r(head, " ", &save); word != NULL;
         word = strtok_r(NULL, " ", &save))
        bus_args_c(&a, word);
    bus_args_str(&a, bytes);
    bus_args_c(&a, "1");
    bus_args_c(&a, "1");
    bus_args_c(&a, "2500");
    for (int i = 1; i <= 2500; i++) {
        bus_args_c(&a, "log:{3}:x");
        bus_args_c(&a, "conv:{3}:x");
        bus_args_int(&a, i);
        bus_args_str(&a, bytes);
    }
    bus_args_c(&a, "2");
    bus_args_c(&a, "f");
    bus_args_str(&a, bytes);
    for (int i = 0; i < 5; i++)
        bus_args_c(&a, "0");
    (void)world_send(w, &a);
    assert_int_equal(w->err, SL_OK);
    world_expect(w, "2500", "LLEN log:{3}:x");
    (void)world_say(w, "HGET conv:{3}:x s");
    assert_int_equal(w->text.len - 1, bytes.len);
    assert_memory_equal(w->text.ptr, bytes.ptr, bytes.len);
    (void)world_say(w, "LRANGE log:{3}:x 2499 2499");
    assert_memory_equal(w->text.ptr + 1, bytes.ptr, bytes.len);
    bus_args_fini(&a);
    finish(w);
}

/* ---- deliver ---- */

static const char *deliver(struct world *w, unsigned first, unsigned epoch, unsigned count)
{
    struct sl_buf s;
    static char line[1024];
    sl_buf_init(&s, 0);
    for (unsigned i = 0; i < count; i++)
        sl_buf_printf(&s, " 4 t task fn %u.%u", first + i, epoch);
    sl_buf_char(&s, '\0');
    (void)snprintf(line, sizeof(line), "FCALL deliver_1 2 in:{5} from:{5} 3 %u %u 0 %u%s", epoch, first,
                   count, s.ptr);
    sl_buf_fini(&s);
    return world_say(w, "%s", line);
}

/* The facts that stand in the destination, by their "number.epoch". */
static const char *delivered(struct world *w)
{
    static char out[512];
    size_t n = 0;
    out[0] = '\0';
    const char *p = world_say(w, "XRANGE in:{5} - +");
    while ((p = strstr(p, "fn ")) != NULL) {
        size_t len = strcspn(p + 3, "]");
        n += (size_t)snprintf(out + n, sizeof(out) - n, "%s%.*s", n == 0 ? "" : " ", (int)len, p + 3);
        p += 3;
    }
    return out;
}

static void deliver_appends_each_fact_once_and_in_order(void **state)
{
    struct world *w = *state;
    assert_string_equal(deliver(w, 1, 5, 2), "2");
    assert_string_equal(deliver(w, 1, 5, 2), "2");           /* again */
    assert_string_equal(deliver(w, 2, 5, 3), "4");           /* overlapping */
    assert_string_equal(deliver(w, 6, 5, 1), "!EGAP GAP 4"); /* a hole */
    assert_string_equal(deliver(w, 5, 6, 1), "5");           /* the next owner goes on */
    assert_string_equal(deliver(w, 3, 5, 3), "5");           /* the one before wakes up */
    assert_string_equal(deliver(w, 5, 6, 0), "5");
    assert_string_equal(delivered(w), "1.5 2.5 3.5 4.5 5.6");
    world_expect(w, "5 6", "HGET from:{5} 3");
    world_expect(w, "~", "HGET from:{5} forks");
    finish(w);
}

static void deliver_takes_a_fork_and_counts_it(void **state)
{
    struct world *w = *state;
    assert_string_equal(deliver(w, 1, 5, 4), "4");
    assert_string_equal(deliver(w, 3, 7, 1), "3"); /* the source lost 3 and 4 and made others */
    assert_string_equal(deliver(w, 3, 7, 3), "5");
    assert_string_equal(deliver(w, 4, 5, 1), "5"); /* of the lost branch */
    assert_string_equal(delivered(w), "1.5 2.5 3.5 4.5 3.7 4.7 5.7");
    world_expect(w, "1", "HGET from:{5} forks");
    finish(w);
}

static void deliver_keeps_sources_apart_and_checks_before_it_writes(void **state)
{
    struct world *w = *state;
    assert_string_equal(deliver(w, 1, 5, 1), "1");
    world_expect(w, "1", "FCALL deliver_1 2 in:{5} from:{5} 4 5 1 0 1 2 fn other");
    static const char *const BAD[] = {
        "FCALL deliver_1 2 in:{5} from:{5} 3 5 2 0 2 2 t task",
        "FCALL deliver_1 2 in:{5} from:{5} 3 5 2 0 1 2 t task more",
        "FCALL deliver_1 2 in:{5} from:{5} 3 5 2 0 1 3 t task x",
        "FCALL deliver_1 2 in:{5} from:{5} 3 5 0 0 1 2 t task",
        "FCALL deliver_1 2 in:{5} from:{5} 3 x 2 0 1 2 t task",
        "FCALL deliver_1 2 from:{5} from:{5} 3 5 2 0 1 2 t task",
        "FCALL deliver_1 2 in:{5} in:{5} 3 5 2 0 1 2 t task",
    };
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++)
        if (!is_refused(world_say(w, "%s", BAD[i])))
            fail_msg("%s -> %s", BAD[i], w->text.ptr);
    world_expect(w, "2", "XLEN in:{5}");
    world_expect(w, "1 5", "HGET from:{5} 3");
    finish(w);
}

static void deliver_trims_what_is_too_old(void **state)
{
    struct world *w = *state;
    world_expect(w, "1-0", "XADD bot:faq 1-0 t old");
    for (int i = 1; i <= 64; i++) /* not at each: once in 64 */
        (void)world_say(w, "FCALL deliver_1 2 bot:faq from:{bot:faq} 3 5 %d 60000 1 2 t task", i);
    world_expect(w, "64", "XLEN bot:faq");
    finish(w);
}

static void deliver_takes_ten_thousand_values(void **state)
{
    struct world *w = *state;
    struct bus_args a;
    bus_args_init(&a);
    static const char *const HEAD[] = {"FCALL", "deliver_1", "2", "in:{5}", "from:{5}",
                                       "3",     "5",         "1", "0",      "5000"};
    for (size_t i = 0; i < sizeof(HEAD) / sizeof(HEAD[0]); i++)
        bus_args_c(&a, HEAD[i]);
    for (int i = 0; i < 5000; i++) {
        bus_args_c(&a, "2");
        bus_args_c(&a, "t");
        bus_args_int(&a, i);
    }
    assert_string_equal(world_send(w, &a), "5000");
    world_expect(w, "5000", "XLEN in:{5}");
    bus_args_fini(&a);
    finish(w);
}

/* ---- timers ---- */

static void tick_appends_a_due_timer_once(void **state)
{
    struct world *w = *state;
    struct lease l = acquired(w, "A");
    char m[512];
    (void)commit(w, &l, "0-0", "1-0", "0 0 0 0 3 + 3.a|idle|2 100 + 3.a|wait|0 200 + d|e|late|1 300 0 0 0");
    assert_int_equal(w->err, SL_OK);
    world_expect(w, "[1 200]", "FCALL tick_1 3 meta:{3} in:{3} timers:{3} %llu A 150 64",
                 (unsigned long long)l.epoch);
    world_expect(w, "[0 200]", "FCALL tick_1 3 meta:{3} in:{3} timers:{3} %llu A 150 64",
                 (unsigned long long)l.epoch);
    world_expect(w, "[1 300]", "FCALL tick_1 3 meta:{3} in:{3} timers:{3} %llu A 900 1",
                 (unsigned long long)l.epoch);
    world_expect(w, "[1 ]", "FCALL tick_1 3 meta:{3} in:{3} timers:{3} %llu A 900 64",
                 (unsigned long long)l.epoch);
    const char *text = world_say(w, "XRANGE in:{3} - +");
    assert_non_null(strstr(text, "[t timer c 3.a nm idle gen 2]"));
    assert_non_null(strstr(text, "[t timer c 3.a nm wait]"));
    assert_non_null(strstr(text, "[t timer c d|e nm late gen 1]"));
    world_expect(w, "3", "XLEN in:{3}");
    world_expect(w, "!EFENCED FENCED another owner holds this partition",
                 "FCALL tick_1 3 meta:{3} in:{3} timers:{3} 5 A 900 64");
    /* in the log: not due any more, but there until the commit that processes it */
    struct lease again = acquired(w, "A");
    assert_string_equal(again.due, "");
    world_expect(w, "3", "ZCARD timers:{3}");
    (void)commit(w, &again, "1-0", "2-0", "0 0 0 0 1 - 3.a|idle|2 0 0 0 0");
    assert_int_equal(w->err, SL_OK);
    world_expect(w, "2", "ZCARD timers:{3}");
    (void)m;
    finish(w);
}

/* ---- relay positions and trimming ---- */

static void relay_saves_positions_of_the_owner_only(void **state)
{
    struct world *w = *state;
    struct lease l = acquired(w, "A");
    world_expect(w, "OK", "FCALL relay_1 2 meta:{3} relay:{3} %llu A 2 in:{5} 4 @ 9-1",
                 (unsigned long long)l.epoch);
    world_expect(w, "!EFENCED FENCED another owner holds this partition",
                 "FCALL relay_1 2 meta:{3} relay:{3} %llu B 1 in:{5} 5", (unsigned long long)l.epoch);
    world_expect(w, "!EREFUSED BAD relay positions",
                 "FCALL relay_1 2 meta:{3} relay:{3} %llu A 2 in:{5} 5 in:{6} x",
                 (unsigned long long)l.epoch);
    world_expect(w, "[in:{5} 4 @ 9-1]", "HGETALL relay:{3}");
    finish(w);
}

static void trim_waits_for_must_readers_and_the_relay(void **state)
{
    struct world *w = *state;
    struct lease l = acquired(w, "A");
    for (int i = 1; i <= 9; i++) {
        (void)world_say(w, "XADD in:{3} %d-0 a b", i);
        (void)world_say(w, "XADD out:{3} %d-0 a b", i);
    }
    (void)commit(w, &l, "0-0", "6-0", NOTHING);
    world_expect(w, "OK", "FCALL relay_1 2 meta:{3} relay:{3} %llu A 1 @ 5-0", (unsigned long long)l.epoch);
    /* values hold a blank, which world_say cannot say: */
    struct bus_args a;
    bus_args_init(&a);
    static const char *const WORDS[] = {"HSET",     "tails:{3}", "in:archive", "must 4-0", "out:archive",
                                        "must 3-0", "in:stats",  "may 2-0",    "in:gone",  "lapsed 1-0"};
    for (size_t i = 0; i < sizeof(WORDS) / sizeof(WORDS[0]); i++)
        bus_args_c(&a, WORDS[i]);
    (void)world_send(w, &a);
    bus_args_fini(&a);
    world_expect(w, "[7 6]", "FCALL trim_1 5 meta:{3} in:{3} out:{3} tails:{3} relay:{3} %llu A 5-0",
                 (unsigned long long)l.epoch);
    world_expect(w, "1", "HDEL tails:{3} in:stats");
    world_expect(w, "[5 6]", "FCALL trim_1 5 meta:{3} in:{3} out:{3} tails:{3} relay:{3} %llu A 9-0",
                 (unsigned long long)l.epoch);
    world_expect(w, "2", "HDEL tails:{3} in:archive out:archive");
    world_expect(w, "[3 4]", "FCALL trim_1 5 meta:{3} in:{3} out:{3} tails:{3} relay:{3} %llu A 9-0",
                 (unsigned long long)l.epoch);
    world_expect(w, "[[7-0 [a b]] [8-0 [a b]] [9-0 [a b]]]", "XRANGE in:{3} - +");
    world_expect(w, "!EFENCED FENCED another owner holds this partition",
                 "FCALL trim_1 5 meta:{3} in:{3} out:{3} tails:{3} relay:{3} %llu B 9-0",
                 (unsigned long long)l.epoch);
    finish(w);
}

static void fill(struct world *w, unsigned entries)
{
    struct bus_args a;
    unsigned n = 0, first = 1;
    bus_args_init(&a);
    while (first <= entries) { /* deliver is the quickest way to many entries */
        unsigned count = entries - first + 1 < 10000 ? entries - first + 1 : 10000;
        bus_args_clear(&a);
        static const char *const HEAD[] = {"FCALL", "deliver_1", "2", "in:{3}", "from:{3}", "9", "5"};
        for (size_t i = 0; i < sizeof(HEAD) / sizeof(HEAD[0]); i++)
            bus_args_c(&a, HEAD[i]);
        bus_args_int(&a, first);
        bus_args_c(&a, "0");
        bus_args_int(&a, count);
        for (n = 0; n < count; n++) {
            bus_args_c(&a, "2");
            bus_args_c(&a, "a");
            bus_args_c(&a, "b");
        }
        (void)world_send(w, &a);
        assert_int_equal(w->err, SL_OK);
        first += count;
    }
    bus_args_fini(&a);
}

static void trim_lapses_may_readers_of_a_long_log(void **state)
{
    struct world *w = *state;
    struct bus_args a;
    fill(w, 50001);
    struct lease l = acquired(w, "A");
    (void)commit(w, &l, "0-0", l.last, NOTHING);
    bus_args_init(&a);
    static const char *const WORDS[] = {"HSET", "tails:{3}", "in:stats", "may 2-0"};
    for (size_t i = 0; i < 4; i++)
        bus_args_c(&a, WORDS[i]);
    (void)world_send(w, &a);
    bus_args_fini(&a);
    world_expect(w, "[0 0]", "FCALL trim_1 5 meta:{3} in:{3} out:{3} tails:{3} relay:{3} %llu A 5-0",
                 (unsigned long long)l.epoch);
    world_expect(w, "lapsed 2-0", "HGET tails:{3} in:stats");
    struct lease again = acquired(w, "A"); /* the end of a trimmed log is still known */
    assert_string_equal(again.last, l.last);
    assert_int_equal(again.gen, l.gen);
    finish(w);
}

/* ---- workers and operators ---- */

static void answer_appends_within_limits(void **state)
{
    struct world *w = *state;
    static char big[65540];
    struct bus_args a;
    const char *text = world_say(w, "FCALL answer_1 1 in:{3} 4 t answer c 3.x");
    assert_int_equal(w->err, SL_OK);
    assert_non_null(strchr(text, '-'));
    memset(big, 'x', sizeof(big) - 1);
    for (size_t over = 0; over < 2; over++) {
        bus_args_init(&a);
        static const char *const WORDS[] = {"FCALL", "answer_1", "1", "in:{3}", "2", "x"};
        for (size_t i = 0; i < 6; i++)
            bus_args_c(&a, WORDS[i]);
        bus_args_str(&a, sl_str_n(big, 65536 + over));
        (void)world_send(w, &a);
        assert_int_equal(w->err, over == 0 ? SL_OK : SL_ETOOBIG);
        bus_args_fini(&a);
    }
    assert_string_equal(world_say(w, "FCALL answer_1 1 in:{3} 3 t answer c"), "!EREFUSED BAD counts");
    assert_string_equal(world_say(w, "FCALL answer_1 1 in:{3} 0"), "!EREFUSED BAD counts");
    world_expect(w, "2", "XLEN in:{3}");
    finish(w);
}

static void redrive_moves_a_dead_letter_back(void **state)
{
    struct world *w = *state;
    world_expect(w, "7-0", "XADD dead:{3} 7-0 e 5-0 r boom t message x hi");
    world_expect(w, "8-0", "XADD dead:{3} 8-0 e 6-0 r boom t message x ho");
    const char *text = world_say(w, "FCALL redrive_1 2 dead:{3} in:{3} 7-0");
    assert_int_equal(w->err, SL_OK);
    assert_non_null(strchr(text, '-'));
    (void)world_say(w, "FCALL redrive_1 2 dead:{3} in:{3} 7-0");
    assert_int_equal(w->err, SL_ENOTFOUND);
    assert_non_null(strstr(world_say(w, "XRANGE in:{3} - +"), " [t message x hi]]]"));
    world_expect(w, "1", "XLEN dead:{3}");
    finish(w);
}

int run_functions_cases(void)
{
    const struct CMUnitTest cases[] = {
        WORLD_BOTH(accept_numbers_frames_without_gaps),
        WORLD_BOTH(accept_knows_a_repeat_from_another_command),
        WORLD_BOTH(accept_answers_old_repeats_without_the_entry),
        WORLD_BOTH(accept_limits_the_rate_of_a_session),
        WORLD_BOTH(accept_refuses_when_the_log_is_full_but_knows_repeats),
        WORLD_BOTH(accept_looks_for_an_id_in_every_bucket),
        WORLD_BOTH(accept_checks_its_arguments_before_it_writes),
        WORLD_BOTH(acquire_gives_one_owner_at_a_time),
        WORLD_BOTH(epoch_rises_with_every_acquire_and_fences_the_one_before),
        WORLD_BOTH(renew_keeps_the_lease_and_release_frees_it),
        WORLD_BOTH(tries_count_takeovers_at_an_unchanged_offset),
        WORLD_BOTH(lost_data_begin_a_generation),
        WORLD_BOTH(now_never_runs_back),
        WORLD_BOTH(commit_writes_all_eight_sections),
        WORLD_BOTH(commit_twice_is_answered_with_the_own_new_offset),
        WORLD_BOTH(a_refused_commit_leaves_nothing_written),
        WORLD_BOTH(a_commit_of_the_wrong_offset_or_owner_is_refused),
        WORLD_BOTH(commit_cuts_a_long_history_and_goes_on_numbering),
        WORLD_BOTH(commit_takes_ten_thousand_values_and_any_bytes),
        WORLD_BOTH(deliver_appends_each_fact_once_and_in_order),
        WORLD_BOTH(deliver_takes_a_fork_and_counts_it),
        WORLD_BOTH(deliver_keeps_sources_apart_and_checks_before_it_writes),
        WORLD_BOTH(deliver_trims_what_is_too_old),
        WORLD_BOTH(deliver_takes_ten_thousand_values),
        WORLD_BOTH(tick_appends_a_due_timer_once),
        WORLD_BOTH(relay_saves_positions_of_the_owner_only),
        WORLD_BOTH(trim_waits_for_must_readers_and_the_relay),
        WORLD_BOTH(trim_lapses_may_readers_of_a_long_log),
        WORLD_BOTH(answer_appends_within_limits),
        WORLD_BOTH(redrive_moves_a_dead_letter_back),
    };
    return cmocka_run_group_tests_name("functions", cases, NULL, NULL);
}
