/* tests/unit/test_memory.c - the store in memory: Redis's answers to plain commands, and the scheduler's
 * promises. */
#include "bus/memory_priv.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- plain commands, by memory_peek ---- */

struct fixture {
    struct memory_store *store;
    struct bus_args args;
    struct sl_buf text;
};

static int setup(void **state)
{
    struct fixture *f = sl_alloc(sizeof *f);
    f->store = memory_store_new(1);
    memory_store_clock(f->store, 5000);
    bus_args_init(&f->args);
    sl_buf_init(&f->text, 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    memory_store_free(&f->store);
    bus_args_fini(&f->args);
    sl_buf_fini(&f->text);
    free(f);
    return 0;
}

static void show(struct sl_buf *out, const redisReply *r)
{
    switch (r->type) {
    case REDIS_REPLY_NIL:
        sl_buf_c(out, "nil");
        break;
    case REDIS_REPLY_INTEGER:
        sl_buf_int(out, r->integer);
        break;
    case REDIS_REPLY_ARRAY:
        sl_buf_char(out, '[');
        for (size_t i = 0; i < r->elements; i++) {
            if (i > 0)
                sl_buf_char(out, ' ');
            show(out, r->element[i]);
        }
        sl_buf_char(out, ']');
        break;
    default:
        sl_buf_add(out, r->str, r->len);
    }
}

/* The words of a command, split at blanks; "''" is the empty string. */
static const char *ask(struct fixture *f, const char *line)
{
    bus_args_clear(&f->args);
    while (*line != '\0') {
        size_t n = strcspn(line, " ");
        bool is_empty = n == 2 && memcmp(line, "''", 2) == 0;
        bus_args_str(&f->args, sl_str_n(line, is_empty ? 0 : n));
        line += n + (line[n] == ' ' ? 1 : 0);
    }
    sl_buf_clear(&f->text);
    show(&f->text, (const redisReply *)memory_peek(f->store, &f->args));
    sl_buf_char(&f->text, '\0');
    return f->text.ptr;
}

static void expect(struct fixture *f, const char *line, const char *answer)
{
    assert_string_equal(ask(f, line), answer);
}

static void test_hash_answers_as_redis(void **state)
{
    struct fixture *f = *state;
    expect(f, "HSET h a 1 b 2", "2");
    expect(f, "HSET h a 3 c 4", "1");
    expect(f, "HGET h a", "3");
    expect(f, "HGET h x", "nil");
    expect(f, "HMGET h a x c", "[3 nil 4]");
    expect(f, "HGETALL h", "[a 3 b 2 c 4]");
    expect(f, "HSETNX h a 9", "0");
    expect(f, "HSETNX h d 9", "1");
    expect(f, "HINCRBY h d -4", "5");
    expect(f, "HDEL h a b c d x", "4");
    expect(f, "EXISTS h", "0");
    expect(f, "HSET h a", "ERR wrong number of arguments for 'HSET' command");
    expect(f, "RPUSH l x", "1");
    expect(f, "HGET l a", "WRONGTYPE Operation against a key holding the wrong kind of value");
    expect(f, "NONSENSE 1", "ERR unknown command 'NONSENSE'");
}

static void test_list_answers_as_redis(void **state)
{
    struct fixture *f = *state;
    expect(f, "RPUSH l a b c d e", "5");
    expect(f, "LRANGE l 1 3", "[b c d]");
    expect(f, "LRANGE l -2 -1", "[d e]");
    expect(f, "LRANGE l 7 9", "[]");
    expect(f, "LINDEX l -1", "e");
    expect(f, "LINDEX l 9", "nil");
    expect(f, "LTRIM l -3 -1", "OK");
    expect(f, "LRANGE l 0 -1", "[c d e]");
    expect(f, "LTRIM l 0 1", "OK");
    expect(f, "LRANGE l 0 -1", "[c d]");
    expect(f, "LLEN l", "2");
    expect(f, "LTRIM l 5 9", "OK");
    expect(f, "EXISTS l", "0");
}

static void test_zset_is_ordered_by_score_and_member(void **state)
{
    struct fixture *f = *state;
    expect(f, "ZADD z 5 e 1 b 1 a 9 x", "4");
    expect(f, "ZADD z 3 x", "0");
    expect(f, "ZRANGE z 0 -1 WITHSCORES", "[a 1 b 1 x 3 e 5]");
    expect(f, "ZRANGEBYSCORE z (1 5", "[x e]");
    expect(f, "ZRANGEBYSCORE z -inf +inf LIMIT 1 2", "[b x]");
    expect(f, "ZRANGE z 2 4 BYSCORE", "[x]");
    expect(f, "ZREM z a q", "1");
    expect(f, "ZREMRANGEBYSCORE z -inf 3", "2");
    expect(f, "ZRANGE z 0 -1", "[e]");
    expect(f, "ZSCORE z e", "5");
    expect(f, "ZREM z e", "1");
    expect(f, "EXISTS z", "0");
}

static void test_stream_ids_follow_the_clock_and_never_run_back(void **state)
{
    struct fixture *f = *state;
    expect(f, "XADD s * k 1", "5000-0");
    expect(f, "XADD s * k 2", "5000-1");
    memory_store_clock(f->store, 4000);
    expect(f, "XADD s * k 3", "5000-2");
    memory_store_clock(f->store, 6000);
    expect(f, "XADD s * k 4", "6000-0");
    expect(f, "XRANGE s (5000-1 +", "[[5000-2 [k 3]] [6000-0 [k 4]]]");
    expect(f, "XREVRANGE s + - COUNT 1", "[[6000-0 [k 4]]]");
    expect(f, "XREAD COUNT 2 STREAMS s none 5000-0 0", "[[s [[5000-1 [k 2]] [5000-2 [k 3]]]]]");
    expect(f, "XREAD BLOCK 10 STREAMS s 6000-0", "nil");
    expect(f, "XADD s 6000-0 k 5",
           "ERR The ID specified in XADD is equal or smaller than the target stream top item");
    expect(f, "XTRIM s MINID 5000-2", "2");
    expect(f, "XDEL s 5000-2", "1");
    expect(f, "XLEN s", "1");
    expect(f, "XADD s * k", "ERR wrong number of arguments for 'XADD' command");
}

static void test_consumer_group_gives_each_entry_once(void **state)
{
    struct fixture *f = *state;
    expect(f, "XGROUP CREATE s g 0 MKSTREAM", "OK");
    expect(f, "XGROUP CREATE s g 0 MKSTREAM", "BUSYGROUP Consumer Group name already exists");
    expect(f, "XREADGROUP GROUP x a STREAMS s >", "NOGROUP No such key 's' or consumer group 'x'");
    expect(f, "XADD s * k 1", "5000-0");
    expect(f, "XADD s * k 2", "5000-1");
    expect(f, "XREADGROUP GROUP g a COUNT 1 STREAMS s >", "[[s [[5000-0 [k 1]]]]]");
    expect(f, "XREADGROUP GROUP g b STREAMS s >", "[[s [[5000-1 [k 2]]]]]");
    expect(f, "XREADGROUP GROUP g b STREAMS s >", "nil");
    expect(f, "XREADGROUP GROUP g a STREAMS s 0", "[[s [[5000-0 [k 1]]]]]");
    expect(f, "XACK s g 5000-1", "1");
    expect(f, "XAUTOCLAIM s g b 100 0-0", "[0-0 [] []]");
    memory_store_clock(f->store, 6000);
    expect(f, "XAUTOCLAIM s g b 100 0-0", "[0-0 [[5000-0 [k 1]]] []]");
    expect(f, "XREADGROUP GROUP g a STREAMS s 0", "[[s []]]");
    expect(f, "XDEL s 5000-0", "1");
    expect(f, "XAUTOCLAIM s g b 0 0-0", "[0-0 [] [5000-0]]");
    expect(f, "XPENDING s g", "[0 nil nil nil]");
}

/* ---- the Functions: what tests/contract checks against both stores is not repeated here ---- */

static void test_accept_appends_each_number_once(void **state)
{
    struct fixture *f = *state;
    expect(f, "FCALL accept_1 2 in:{0} sess:{0}:a n 1 100 0 0 1000 2 t message", "[ok 5000-0]");
    expect(f, "FCALL accept_1 2 in:{0} sess:{0}:a n 1 100 0 0 1000 2 t message", "[dup 5000-0]");
    expect(f, "FCALL accept_1 2 in:{0} sess:{0}:a n 3 100 0 0 1000 2 t message", "GAP 1");
    expect(f, "FCALL accept_1 2 in:{0} sess:{0}:a n 2 1 0 0 1000 2 t message", "FULL 1");
    expect(f, "FCALL accept_1 2 in:{0} sess:{0}:b n 1 9 1 1 1000 2 t message", "[ok 5000-1]");
    expect(f, "FCALL accept_1 2 in:{0} sess:{0}:b n 2 9 1 1 1000 2 t message", "RATE 1000");
    expect(f, "FCALL accept_1 3 in:{0} seen:{0}:2 seen:{0}:1 i x 9 0 0 1000 2 t message", "[ok 5000-2]");
    expect(f, "FCALL accept_1 3 in:{0} seen:{0}:3 seen:{0}:2 i x 9 0 0 1000 2 t message", "[dup 5000-2]");
    expect(f, "XLEN in:{0}", "3");
}

#define OWNED "meta:{0} in:{0} out:{0} timers:{0} num:{0} relay:{0} dead:{0}"

static void test_commit_writes_all_or_nothing(void **state)
{
    struct fixture *f = *state;
    expect(f, "FCALL acquire_1 5 meta:{0} in:{0} timers:{0} num:{0} relay:{0} A 5000 3000 0",
           "[ok 5000 0-0 5000 5000 0 0-0  [] []]");
    expect(f, "FCALL acquire_1 5 meta:{0} in:{0} timers:{0} num:{0} relay:{0} B 5000 3000 0",
           "[held A 3000]");
    expect(f, "FCALL commit_1 7 " OWNED " 4999 A 0-0 1-0 5000 3000 0 500 0 0 0 0 0 0 0 0",
           "FENCED another owner holds this partition");
    expect(f, "FCALL commit_1 7 " OWNED " 5000 A 0-1 1-0 5000 3000 0 500 0 0 0 0 0 0 0 0",
           "MOVED_OFFSET 0-0");
    expect(f,
           "FCALL commit_1 7 " OWNED " 5000 A 0-0 1-0 5000 3000 0 500 1 conv:{0}:a s {} 2 1 "
           "1 log:{0}:a conv:{0}:a 2 entry 0 0 0 0 0 0",
           "BAD number in log:{0}:a: 1 is next");
    expect(f, "EXISTS conv:{0}:a log:{0}:a out:{0}", "0");
    expect(f,
           "FCALL commit_1 7 " OWNED " 5000 A 0-0 1-0 5000 3000 0 500 1 conv:{0}:a s {} 1 1 "
           "1 log:{0}:a conv:{0}:a 1 entry 4 b {} f {} 1 bot:x 1 1 + a|idle|7 5100 1 @ 0-0 1 1-0 why 2 t "
           "message 1 ch hello",
           "[ok 5000-0]");
    expect(f, "HGETALL conv:{0}:a", "[s {} n 1 v 1]");
    expect(f, "LRANGE log:{0}:a 0 -1", "[entry]");
    expect(f, "XRANGE out:{0} - +", "[[5000-0 [b {} f {}]]]");
    expect(f, "XRANGE dead:{0} - +", "[[5000-0 [e 1-0 r why t message]]]");
    expect(f, "FCALL tick_1 3 meta:{0} in:{0} timers:{0} 5000 A 5099 10", "[0 5100]");
    expect(f, "FCALL tick_1 3 meta:{0} in:{0} timers:{0} 5000 A 5100 10", "[1 ]");
    expect(f, "FCALL tick_1 3 meta:{0} in:{0} timers:{0} 5000 A 5100 10", "[0 ]");
    expect(f, "XRANGE in:{0} - +", "[[5000-0 [t timer c a nm idle gen 7]]]");
    expect(f, "FCALL release_1 2 meta:{0} relay:{0} 5000 A 1 bot:x 1", "OK");
    expect(f, "FCALL renew_1 1 meta:{0} 5000 A 3000", "FENCED another owner holds this partition");
}

static void test_deliver_takes_each_number_once(void **state)
{
    struct fixture *f = *state;
    expect(f, "FCALL deliver_1 2 bot:x from:{bot:x} 0 10 1 0 1 2 t task", "1");
    expect(f, "FCALL deliver_1 2 bot:x from:{bot:x} 0 10 1 0 2 2 t task 2 t task", "2");
    expect(f, "FCALL deliver_1 2 bot:x from:{bot:x} 0 10 4 0 1 2 t task", "GAP 2");
    expect(f, "FCALL deliver_1 2 bot:x from:{bot:x} 0 11 2 0 1 2 t task", "2");
    expect(f, "HGETALL from:{bot:x}", "[0 2 11 forks 1]");
    expect(f, "XLEN bot:x", "3");
}

/* ---- the scheduler ---- */

struct world {
    struct memory_store *store;
    struct sl_loop *loop;
    struct bus *bus;
    struct bus_args args;
    int ready, answers, closed, late;
    char log[200];
};

static void on_ready(void *arg, bool is_ready)
{
    struct world *w = arg;
    w->ready += is_ready ? 1 : -1;
}

static void turn(struct world *w)
{
    while (sl_loop_virtual_step(w->loop)) {
    }
}

static void pass(struct world *w, uint64_t ms)
{
    sl_loop_virtual_set(w->loop, sl_loop_mono_ms(w->loop) + ms, sl_loop_unix_ms(w->loop) + (int64_t)ms);
    memory_store_clock(w->store, sl_loop_unix_ms(w->loop));
    turn(w);
}

static int world_setup(void **state)
{
    static const struct bus_events events = {.ready = on_ready};
    struct world *w = sl_alloc(sizeof *w);
    w->store = memory_store_new(7);
    w->loop = sl_loop_new_virtual(7);
    const struct bus_config cfg = {.partitions = 4};
    w->bus = memory_bus_open(w->store, 3, w->loop, &cfg, &events, w);
    bus_args_init(&w->args);
    assert_false(bus_is_ready(w->bus));
    turn(w);
    assert_true(bus_is_ready(w->bus));
    assert_int_equal(bus_partitions(w->bus), 4);
    *state = w;
    return 0;
}

static int world_teardown(void **state)
{
    struct world *w = *state;
    if (w->bus != NULL)
        bus_close(&w->bus);
    turn(w);
    memory_store_free(&w->store);
    sl_loop_close(&w->loop);
    bus_args_fini(&w->args);
    free(w);
    return 0;
}

static void on_answer(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct world *w = arg;
    size_t at = strlen(w->log);
    (void)why;
    w->answers++;
    w->closed += err == SL_ECLOSED ? 1 : 0;
    w->late += err == SL_ETIMEOUT ? 1 : 0;
    (void)snprintf(w->log + at, sizeof w->log - at, "%lld ", (long long)bus_value_int(v));
}

static void push(struct world *w, const char *member)
{
    bus_args_clear(&w->args);
    bus_args_c(&w->args, "RPUSH");
    bus_args_c(&w->args, "l");
    bus_args_c(&w->args, member);
    assert_int_equal(bus_command(w->bus, &w->args, 1000, on_answer, w), SL_OK);
}

static size_t length(struct world *w)
{
    bus_args_clear(&w->args);
    bus_args_c(&w->args, "LLEN");
    bus_args_c(&w->args, "l");
    return (size_t)bus_value_int(memory_peek(w->store, &w->args));
}

static void test_nothing_moves_by_itself(void **state)
{
    struct world *w = *state;
    push(w, "a");
    push(w, "b");
    turn(w);
    assert_int_equal(length(w), 0);
    assert_int_equal(memory_pending_requests(w->store), 1);
    memory_execute(w->store, 0);
    assert_int_equal(length(w), 1);
    assert_int_equal(w->answers, 0);
    assert_int_equal(memory_pending_replies(w->store, 3), 1);
    assert_int_equal(memory_pending_replies(w->store, 4), 0);
    memory_execute(w->store, 0);
    memory_reply(w->store, 3, 0);
    memory_reply(w->store, 3, 0);
    assert_string_equal(w->log, "1 2 ");
}

static void test_cut_settles_each_call_once(void **state)
{
    struct world *w = *state;
    for (int i = 0; i < 5; i++)
        push(w, "x");
    memory_execute(w->store, 0);
    memory_cut(w->store, 3);
    assert_int_equal(w->answers, 0); /* never before the next turn */
    assert_int_equal(bus_command(w->bus, &w->args, 1000, on_answer, w), SL_EAGAIN);
    turn(w);
    assert_int_equal(w->answers, 5);
    assert_int_equal(w->closed, 5);
    while (memory_pending_requests(w->store) > 0)
        memory_execute(w->store, 0); /* late ones, as many as had arrived */
    assert_true(length(w) >= 1 && length(w) <= 5);
    pass(w, 100);
    assert_true(bus_is_ready(w->bus));
    assert_int_equal(w->answers, 5);
}

static void test_deadline_settles_with_timeout(void **state)
{
    struct world *w = *state;
    push(w, "x");
    pass(w, 999);
    assert_int_equal(w->answers, 0);
    pass(w, 1);
    assert_int_equal(w->late, 1);
}

static void test_killed_process_hears_nothing(void **state)
{
    struct world *w = *state;
    push(w, "x");
    memory_execute(w->store, 0);
    memory_kill(w->store, 3);
    assert_int_equal(memory_pending_replies(w->store, 3), 0);
    pass(w, 10000);
    assert_int_equal(w->answers, 0);
    assert_int_equal(bus_command(w->bus, &w->args, 1000, on_answer, w), SL_EAGAIN);
    bus_close(&w->bus);
    assert_int_equal(w->closed, 1); /* now its objects may go */
}

static void test_restart_loses_requests_and_keeps_data(void **state)
{
    struct world *w = *state;
    push(w, "x");
    memory_execute(w->store, 0);
    push(w, "y");
    memory_restart(w->store);
    turn(w);
    assert_int_equal(w->closed, 2);
    assert_int_equal(memory_pending_requests(w->store), 0);
    assert_int_equal(length(w), 1);
}

static void read_blocking(struct world *w, struct bus_reader *r)
{
    bus_args_clear(&w->args);
    static const char *const words[] = {"XREAD", "BLOCK", "1000", "STREAMS", "s", "0-0"};
    for (size_t i = 0; i < 6; i++)
        bus_args_c(&w->args, words[i]);
    assert_int_equal(bus_reader_command(r, &w->args, 5000, on_answer, w), SL_OK);
    memory_execute(w->store, 0);
    assert_int_equal(memory_pending_requests(w->store), 0);
}

static void test_blocked_read_ends_by_data_unblock_or_time(void **state)
{
    struct world *w = *state;
    struct bus_reader *r = bus_reader_open(w->bus);
    turn(w);
    read_blocking(w, r);
    bus_reader_unblock(r);
    memory_execute(w->store, 0); /* CLIENT UNBLOCK */
    memory_execute(w->store, 0);
    pass(w, 0);
    while (memory_pending_replies(w->store, 3) > 0)
        memory_reply(w->store, 3, 0);
    assert_int_equal(w->answers, 1);

    read_blocking(w, r);
    int64_t due = 0;
    assert_true(memory_next_due(w->store, &due));
    assert_int_equal(due, sl_loop_unix_ms(w->loop) + 1000);
    pass(w, 1000);
    assert_int_equal(memory_pending_requests(w->store), 1);
    memory_execute(w->store, 0);
    memory_reply(w->store, 3, 0);
    assert_int_equal(w->answers, 2);

    read_blocking(w, r);
    bus_args_clear(&w->args);
    static const char *const words[] = {"XADD", "s", "*", "k", "v"};
    for (size_t i = 0; i < 5; i++)
        bus_args_c(&w->args, words[i]);
    (void)memory_peek(w->store, &w->args);
    assert_int_equal(memory_pending_requests(w->store), 1);
    memory_execute(w->store, 0);
    memory_reply(w->store, 3, 0);
    assert_int_equal(w->answers, 3);
    bus_reader_close(&r);
    turn(w);
}

struct subscription {
    int ups, downs, confirms, messages;
};

static void on_message(void *arg, bool is_confirm, struct sl_str channel, struct sl_str payload)
{
    struct subscription *s = arg;
    assert_true(sl_str_eq_c(channel, "ch"));
    s->confirms += is_confirm ? 1 : 0;
    s->messages += !is_confirm && sl_str_eq_c(payload, "hello") ? 1 : 0;
}

static void on_change(void *arg, bool is_up)
{
    struct subscription *s = arg;
    s->ups += is_up ? 1 : 0;
    s->downs += is_up ? 0 : 1;
}

static void test_push_reaches_who_has_subscribed(void **state)
{
    struct world *w = *state;
    struct subscription s = {0};
    const struct sl_str channel = SL_STR("ch");
    void *sub = w->bus->impl->sub_open(w->bus, on_message, on_change, &s);
    turn(w);
    assert_int_equal(s.ups, 1);
    w->bus->impl->sub_send(sub, true, &channel, 1);
    memory_execute(w->store, 0);
    for (int i = 0; i < 2; i++) {
        bus_args_clear(&w->args);
        bus_args_c(&w->args, "PUBLISH");
        bus_args_c(&w->args, "ch");
        bus_args_c(&w->args, "hello");
        assert_int_equal(bus_value_int(memory_peek(w->store, &w->args)), 1);
        memory_lose_pushes(w->store, 1000);
    }
    while (memory_pending_replies(w->store, 3) > 0)
        memory_reply(w->store, 3, 0);
    assert_int_equal(s.confirms, 1);
    assert_int_equal(s.messages, 1);
    memory_cut(w->store, 3);
    turn(w);
    pass(w, 100);
    assert_int_equal(s.downs, 1);
    assert_int_equal(s.ups, 2);
    w->bus->impl->sub_close(sub);
    turn(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_hash_answers_as_redis, setup, teardown),
        cmocka_unit_test_setup_teardown(test_list_answers_as_redis, setup, teardown),
        cmocka_unit_test_setup_teardown(test_zset_is_ordered_by_score_and_member, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stream_ids_follow_the_clock_and_never_run_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_consumer_group_gives_each_entry_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_accept_appends_each_number_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_commit_writes_all_or_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deliver_takes_each_number_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_moves_by_itself, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_cut_settles_each_call_once, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_deadline_settles_with_timeout, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_killed_process_hears_nothing, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_restart_loses_requests_and_keeps_data, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(test_blocked_read_ends_by_data_unblock_or_time, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(test_push_reaches_who_has_subscribed, world_setup, world_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
