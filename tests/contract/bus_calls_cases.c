/* tests/contract/bus_calls_cases.c - the typed calls of bus/bus.h: accept, tail, subscriber, and how calls settle. */
#include "tests/unit/unit.h"

#include "tests/contract/bus_world.h"

#include "bus/bus_priv.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>

#define SOON_MS 5000

/* The store goes away and comes back with its data. */
static void restart_store(struct world *w)
{
    if (w->kind == WORLD_MEMORY) {
        memory_restart(w->store);
        return;
    }
    server_kill(&w->server);
    server_start(&w->server);
}

/* ---- accept ---- */

struct accepted {
    unsigned calls;
    sl_err err;
    enum bus_accepted how;
    char entry[64];
    uint64_t last_number;
};

static void on_accepted(void *arg, sl_err err, const struct bus_accept_result *res, const struct sl_fail *why)
{
    struct accepted *a = arg;
    assert_true(err == SL_OK || why != NULL);
    a->calls++;
    a->err = err;
    a->how = res->how;
    a->last_number = res->last_number;
    (void)snprintf(a->entry, sizeof(a->entry), "%.*s", (int)res->entry.len, res->entry.ptr);
}

static struct accepted accept_now(struct world *w, const struct bus_accept *in)
{
    struct accepted a = {.calls = 0};
    assert_int_equal(bus_accept(w->bus, in, on_accepted, &a), SL_OK);
    assert_int_equal(a.calls, 0);
    assert_true(world_wait_count(w, &a.calls, 1, SOON_MS));
    assert_int_equal(a.calls, 1);
    return a;
}

static const struct event MESSAGE = {.type = EVENT_MESSAGE, .addr = {"t/web/7", 7}, .text = {"hi", 2}};

static struct bus_accept by_number(uint64_t number)
{
    return (struct bus_accept){.tag = "3",
                               .dedupe = BUS_BY_NUMBER,
                               .session = SL_STR("s1"),
                               .target = SL_STR("me"),
                               .number = number,
                               .event = &MESSAGE};
}

static void accept_by_number_answers_repeats_and_gaps(void **state)
{
    struct world *w = *state;
    struct bus_accept in = by_number(1);
    struct accepted first = accept_now(w, &in), again = accept_now(w, &in);
    assert_int_equal(first.err, SL_OK);
    assert_int_equal(first.how, BUS_APPENDED);
    assert_int_equal(again.err, SL_OK);
    assert_int_equal(again.how, BUS_REPEAT);
    assert_string_equal(again.entry, first.entry);
    in = by_number(5);
    struct accepted gap = accept_now(w, &in);
    assert_int_equal(gap.err, SL_EGAP);
    assert_int_equal(gap.last_number, 1);
    in = by_number(2);
    in.session = SL_STR("s2");
    gap = accept_now(w, &in);
    assert_int_equal(gap.err, SL_EGAP);
    assert_int_equal(gap.last_number, 0); /* each session has numbers of its own */
    char wanted[160];
    (void)snprintf(wanted, sizeof(wanted), "[[%s [t message a t/web/7 x hi]]]", first.entry);
    world_expect(w, wanted, "XRANGE in:{3} - +");
    w->is_finished = true;
}

static void accept_limits_rate_and_room(void **state)
{
    struct world *w = *state;
    struct bus_accept in = by_number(1);
    in.rate_per_s = 2;
    in.burst = 1;
    assert_int_equal(accept_now(w, &in).err, SL_OK);
    in.number = 2;
    assert_int_equal(accept_now(w, &in).err, SL_ERATE);
    world_pass(w, 600);
    assert_int_equal(accept_now(w, &in).err, SL_OK);
    w->is_finished = true;
}

static struct accepted accept_by_id(struct world *w, const char *id, int64_t horizon_ms)
{
    struct bus_accept in = {
        .tag = "3", .dedupe = BUS_BY_ID, .id = sl_str_c(id), .horizon_ms = horizon_ms, .event = &MESSAGE};
    return accept_now(w, &in);
}

static void accept_by_id_sees_the_whole_horizon(void **state)
{
    struct world *w = *state;
    long long hour = (long long)(sl_loop_unix_ms(w->loop) / 3600000), day = hour / 24;
    struct accepted first = accept_by_id(w, "id0", 3600000), again = accept_by_id(w, "id0", 3600000);
    assert_int_equal(first.how, BUS_APPENDED);
    assert_int_equal(again.how, BUS_REPEAT);
    assert_string_equal(again.entry, first.entry);
    /* what was accepted in the hour before, and by a gateway whose clock is ahead */
    world_expect(w, "1", "HSET seen:{3}:h%lld id1 1-1", hour - 1);
    world_expect(w, "1", "HSET seen:{3}:h%lld id2 2-2", hour + 1);
    world_expect(w, "1", "HSET seen:{3}:h%lld id3 3-3", hour - 2);
    again = accept_by_id(w, "id1", 3600000);
    assert_int_equal(again.how, BUS_REPEAT);
    assert_string_equal(again.entry, "1-1");
    assert_int_equal(accept_by_id(w, "id2", 3600000).how, BUS_REPEAT);
    assert_int_equal(accept_by_id(w, "id3", 3600000).how, BUS_APPENDED);
    /* days for a long horizon */
    world_expect(w, "1", "HSET seen:{3}:d%lld id4 4-4", day - 8);
    world_expect(w, "1", "HSET seen:{3}:d%lld id5 5-5", day - 9);
    assert_int_equal(accept_by_id(w, "id4", 8 * 86400000LL).how, BUS_REPEAT);
    assert_int_equal(accept_by_id(w, "id5", 8 * 86400000LL).how, BUS_APPENDED);
    w->is_finished = true;
}

/* The whole way, with the store's own clock: only in memory can an hour pass. */
static void accept_by_id_remembers_over_the_turn_of_the_hour(void **state)
{
    struct world *w = *state;
    assert_int_equal(accept_by_id(w, "id0", 3600000).how, BUS_APPENDED);
    world_pass(w, 59 * 60000);
    assert_int_equal(accept_by_id(w, "id0", 3600000).how, BUS_REPEAT);
    w->is_finished = true;
}

/* ---- tail ---- */

struct taken {
    struct bus_tail *tail;
    unsigned count;
    struct sl_buf text;    /* "a1 a2 b1 " in order of arrival */
    const char *remove_at; /* a value at which its stream is removed, in the callback */
};

static void on_entries(void *arg, void *stream_arg, const struct bus_entry *entries, size_t count)
{
    struct taken *t = arg;
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(entries[i].count, 2);
        assert_true(sl_str_eq_c(entries[i].item[0], "v"));
        sl_buf_c(&t->text, stream_arg);
        sl_buf_str(&t->text, entries[i].item[1]);
        sl_buf_char(&t->text, ' ');
        t->count++;
        if (t->remove_at != NULL && sl_str_eq_c(entries[i].item[1], t->remove_at))
            bus_tail_remove(t->tail, SL_STR("in:{3}"));
    }
}

static void assert_taken(struct taken *t, const char *wanted)
{
    struct sl_str all = sl_buf_view(&t->text);
    if (!sl_str_eq_c(all, wanted))
        fail_msg("taken \"%.*s\", expected \"%s\"", (int)all.len, all.ptr, wanted);
}

static void tail_hands_over_in_order_each_once(void **state)
{
    struct world *w = *state;
    struct taken t = {.count = 0};
    sl_buf_init(&t.text, 0);
    for (int i = 1; i <= 5; i++)
        (void)world_say(w, "XADD in:{3} %d-0 v %d", i, i);
    t.tail = bus_tail_open(w->bus, 2, on_entries, &t);
    bus_tail_add(t.tail, SL_STR("in:{3}"), SL_STR("1-0"), (void *)(uintptr_t) "a");
    assert_true(world_wait_count(w, &t.count, 4, SOON_MS));
    assert_taken(&t, "a2 a3 a4 a5 ");
    (void)world_say(w, "XADD in:{3} 6-0 v 6");
    assert_true(world_wait_count(w, &t.count, 5, 500)); /* it was blocked, and woke */
    world_pass(w, 1500);                                /* over the end of a block */
    (void)world_say(w, "XADD in:{3} 7-0 v 7");
    assert_true(world_wait_count(w, &t.count, 6, 500));
    assert_taken(&t, "a2 a3 a4 a5 a6 a7 ");
    bus_tail_close(&t.tail);
    sl_buf_fini(&t.text);
    w->is_finished = true;
}

static void tail_takes_a_new_stream_while_blocked(void **state)
{
    struct world *w = *state;
    struct taken t = {.count = 0};
    sl_buf_init(&t.text, 0);
    (void)world_say(w, "XADD in:{4} 1-0 v 1");
    t.tail = bus_tail_open(w->bus, 64, on_entries, &t);
    bus_tail_add(t.tail, SL_STR("in:{3}"), SL_STR("0-0"), (void *)(uintptr_t) "a");
    world_pass(w, 300); /* connected and blocked */
    bus_tail_add(t.tail, SL_STR("in:{4}"), SL_STR("0-0"), (void *)(uintptr_t) "b");
    assert_true(world_wait_count(w, &t.count, 1, 400)); /* a block lasts 1,000 */
    assert_taken(&t, "b1 ");
    bus_tail_close(&t.tail);
    sl_buf_fini(&t.text);
    w->is_finished = true;
}

static void tail_pauses_and_removes(void **state)
{
    struct world *w = *state;
    struct taken t = {.count = 0, .remove_at = "3"};
    sl_buf_init(&t.text, 0);
    t.tail = bus_tail_open(w->bus, 1, on_entries, &t);
    bus_tail_add(t.tail, SL_STR("in:{3}"), SL_STR("0-0"), (void *)(uintptr_t) "a");
    bus_tail_add(t.tail, SL_STR("in:{4}"), SL_STR("0-0"), (void *)(uintptr_t) "b");
    bus_tail_pause(t.tail, SL_STR("in:{4}"), true);
    (void)world_say(w, "XADD in:{4} 1-0 v 1");
    (void)world_say(w, "XADD in:{3} 1-0 v 1");
    assert_true(world_wait_count(w, &t.count, 1, SOON_MS));
    world_pass(w, 200);
    assert_taken(&t, "a1 ");
    bus_tail_pause(t.tail, SL_STR("in:{4}"), false);
    assert_true(world_wait_count(w, &t.count, 2, 400));
    assert_taken(&t, "a1 b1 ");
    for (int i = 2; i <= 4; i++)
        (void)world_say(w, "XADD in:{3} %d-0 v %d", i, i);
    assert_true(world_wait_count(w, &t.count, 4, SOON_MS));
    world_pass(w, 200);
    assert_taken(&t, "a1 b1 a2 a3 "); /* removed in the callback of 3 */
    bus_tail_add(t.tail, SL_STR("in:{3}"), SL_STR("2-0"), (void *)(uintptr_t) "c");
    t.remove_at = NULL;
    assert_true(world_wait_count(w, &t.count, 6, SOON_MS));
    assert_taken(&t, "a1 b1 a2 a3 c3 c4 ");
    bus_tail_close(&t.tail);
    sl_buf_fini(&t.text);
    w->is_finished = true;
}

static void tail_goes_on_after_a_restart_of_the_store(void **state)
{
    struct world *w = *state;
    struct taken t = {.count = 0};
    struct sl_buf wanted;
    int n = 0;
    sl_buf_init(&t.text, 0);
    sl_buf_init(&wanted, 0);
    t.tail = bus_tail_open(w->bus, 2, on_entries, &t);
    bus_tail_add(t.tail, SL_STR("in:{3}"), SL_STR("0-0"), (void *)(uintptr_t) "a");
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 5; i++) {
            n++;
            sl_buf_printf(&wanted, "a%d ", n);
            (void)world_say(w, "XADD in:{3} %d-0 v %d", n, n);
        }
        if (round == 1) /* now with some read and some not */
            assert_true(world_wait_count(w, &t.count, (unsigned)n - 2, SOON_MS));
        restart_store(w);
        assert_true(world_wait_count(w, &w->losses, (unsigned)round + 1, SOON_MS));
        assert_true(world_wait_count(w, &w->readies, (unsigned)round + 2, SOON_MS));
    }
    assert_true(world_wait_count(w, &t.count, (unsigned)n, SOON_MS));
    world_pass(w, 100);
    sl_buf_char(&wanted, '\0');
    assert_taken(&t, wanted.ptr);
    bus_tail_close(&t.tail);
    sl_buf_fini(&t.text);
    sl_buf_fini(&wanted);
    w->is_finished = true;
}

/* ---- subscriptions ---- */

struct heard {
    unsigned confirms, messages, losses;
    struct sl_buf text;
};

static void on_confirmed(void *arg, struct sl_str channel)
{
    struct heard *h = arg;
    (void)channel;
    h->confirms++;
}

static void on_pushed(void *arg, struct sl_str channel, struct sl_str payload)
{
    struct heard *h = arg;
    h->messages++;
    sl_buf_str(&h->text, channel);
    sl_buf_char(&h->text, '=');
    sl_buf_str(&h->text, payload);
    sl_buf_char(&h->text, ' ');
}

static void on_lost(void *arg)
{
    struct heard *h = arg;
    h->losses++;
}

static const struct bus_subscriber_ops HEARD = {
    .confirmed = on_confirmed, .message = on_pushed, .lost = on_lost};

static void subscriber_counts_channels(void **state)
{
    struct world *w = *state;
    struct heard h = {.confirms = 0};
    sl_buf_init(&h.text, 0);
    struct bus_subscriber *s = bus_subscriber_open(w->bus, &HEARD, &h);
    bus_subscribe(s, SL_STR("one"));
    bus_subscribe(s, SL_STR("two"));
    assert_true(world_wait_count(w, &h.confirms, 2, SOON_MS));
    bus_subscribe(s, SL_STR("one"));
    assert_int_equal(h.confirms, 2);
    assert_true(world_wait_count(w, &h.confirms, 3, SOON_MS)); /* the second asker is told, too */
    world_expect(w, "1", "PUBLISH one a");
    world_expect(w, "1", "PUBLISH two b");
    assert_true(world_wait_count(w, &h.messages, 2, SOON_MS));
    bus_unsubscribe(s, SL_STR("one"));
    bus_unsubscribe(s, SL_STR("two"));
    bus_unsubscribe(s, SL_STR("three"));
    world_pass(w, 100);
    world_expect(w, "1", "PUBLISH one c");
    world_expect(w, "0", "PUBLISH two d");
    assert_true(world_wait_count(w, &h.messages, 3, SOON_MS));
    bus_unsubscribe(s, SL_STR("one"));
    world_pass(w, 100);
    world_expect(w, "0", "PUBLISH one e");
    world_pass(w, 50);
    sl_buf_char(&h.text, '\0');
    assert_string_equal(h.text.ptr, "one=a two=b one=c ");
    assert_int_equal(h.losses, 0);
    bus_subscriber_close(&s);
    sl_buf_fini(&h.text);
    w->is_finished = true;
}

static void subscriber_renews_everything_after_a_loss(void **state)
{
    struct world *w = *state;
    struct heard h = {.confirms = 0};
    char name[16];
    sl_buf_init(&h.text, 0);
    struct bus_subscriber *s = bus_subscriber_open(w->bus, &HEARD, &h);
    for (int i = 0; i < 1200; i++) {
        (void)snprintf(name, sizeof(name), "ch%d", i);
        bus_subscribe(s, sl_str_c(name));
    }
    assert_true(world_wait_count(w, &h.confirms, 1200, SOON_MS));
    restart_store(w);
    assert_true(world_wait_count(w, &h.losses, 1, SOON_MS));
    bus_unsubscribe(s, SL_STR("ch7")); /* while there is no connection */
    bus_subscribe(s, SL_STR("new"));
    assert_true(world_wait_count(w, &h.confirms, 2400, SOON_MS));
    assert_true(world_wait_count(w, &w->readies, 2, SOON_MS));
    world_expect(w, "1", "PUBLISH ch1199 x");
    world_expect(w, "1", "PUBLISH new y");
    world_expect(w, "0", "PUBLISH ch7 z");
    assert_true(world_wait_count(w, &h.messages, 2, SOON_MS));
    sl_buf_char(&h.text, '\0');
    assert_string_equal(h.text.ptr, "ch1199=x new=y ");
    assert_int_equal(h.losses, 1); /* once for a change of the connection */
    assert_int_equal(h.confirms, 2400);
    bus_subscriber_close(&s);
    sl_buf_fini(&h.text);
    w->is_finished = true;
}

static void a_channel_costs_less_than_300_bytes(void **state)
{
    struct world *w = *state;
    struct heard h = {.confirms = 0};
    struct bus_subscriber *s = bus_subscriber_open(w->bus, &HEARD, &h);
    char name[96];
    world_pass(w, 100);
    size_t before = mallinfo2().uordblks;
    for (int i = 0; i < 15000; i++) {
        (void)snprintf(name, sizeof(name), "pv:{%d}:some-tenant/web/01JD3Q5Y8Z7X6W5V4T3S2R%06d", i % 64, i);
        bus_subscribe(s, sl_str_c(name));
    }
    assert_true(world_wait_count(w, &h.confirms, 15000, SOON_MS));
    size_t each = (mallinfo2().uordblks - before) / 15000;
    if (before > 0) /* a sanitizer keeps no such books */
        assert_in_range(each, 1, 300);
    bus_subscriber_close(&s);
    w->is_finished = true;
}

/* ---- how calls settle ---- */

struct settled {
    unsigned calls, ok, closed, timed_out, other;
};

static void on_settled(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct settled *s = arg;
    assert_true(err == SL_OK ? why == NULL || why->code == SL_OK : v == NULL && why != NULL);
    s->calls++;
    if (err == SL_OK)
        s->ok++;
    else if (err == SL_ECLOSED)
        s->closed++;
    else if (err == SL_ETIMEOUT)
        s->timed_out++;
    else
        s->other++;
}

static void closing_the_bus_settles_every_call_once(void **state)
{
    struct world *w = *state;
    struct settled s = {.calls = 0}, r = {.calls = 0};
    struct bus_args a;
    bus_args_init(&a);
    struct bus_reader *reader = bus_reader_open(w->bus);
    static const char *const READ[] = {"XREAD", "COUNT", "1", "BLOCK", "1000", "STREAMS", "in:{3}", "0-0"};
    for (size_t i = 0; i < 8; i++)
        bus_args_c(&a, READ[i]);
    while (bus_reader_command(reader, &a, 3000, on_settled, &r) != SL_OK)
        world_pass(w, 10);
    if (w->kind == WORLD_REDIS) /* one in flight */
        assert_int_equal(bus_reader_command(reader, &a, 3000, on_settled, &r), SL_EAGAIN);
    world_pass(w, 50);
    bus_args_clear(&a);
    bus_args_c(&a, "TIME");
    for (int i = 0; i < 100; i++)
        assert_int_equal(bus_command(w->bus, &a, 1000, on_settled, &s), SL_OK);
    bus_reader_close(&reader);
    bus_close(&w->bus);
    assert_int_equal(s.calls + r.calls, 0); /* not before it returns */
    world_pass(w, 50);
    assert_int_equal(s.calls, 100);
    assert_int_equal(r.calls, 1);
    assert_int_equal(r.closed, 1);
    bus_args_fini(&a);
    w->is_finished = true;
}

static void too_many_in_flight_is_busy(void **state)
{
    struct world *w = *state;
    struct settled s = {.calls = 0};
    struct bus_args a;
    bus_args_init(&a);
    bus_args_c(&a, "TIME");
    for (int i = 0; i < BUS_IN_FLIGHT_MAX; i++)
        assert_int_equal(bus_command(w->bus, &a, SOON_MS, on_settled, &s), SL_OK);
    assert_int_equal(bus_command(w->bus, &a, SOON_MS, on_settled, &s), SL_EAGAIN);
    assert_true(world_wait_count(w, &s.calls, BUS_IN_FLIGHT_MAX, SOON_MS));
    assert_int_equal(s.ok, BUS_IN_FLIGHT_MAX);
    assert_int_equal(bus_command(w->bus, &a, SOON_MS, on_settled, &s), SL_OK);
    assert_true(world_wait_count(w, &s.calls, BUS_IN_FLIGHT_MAX + 1, SOON_MS));
    bus_args_fini(&a);
    w->is_finished = true;
}

/* ---- box ---- */

struct boxed {
    unsigned calls;
    sl_err err;
    struct sl_buf value;
};

static void on_boxed(void *arg, sl_err err, struct sl_str value)
{
    struct boxed *b = arg;
    b->calls++;
    b->err = err;
    sl_buf_clear(&b->value);
    for (size_t i = 0; i < value.len; i++)
        sl_buf_char(&b->value, value.ptr[i] == '\0' ? '|' : value.ptr[i]);
    sl_buf_char(&b->value, '\0');
}

static void expect_box(struct world *w, sl_err err, const char *value, struct bus_box in)
{
    struct boxed b = {.calls = 0};
    sl_buf_init(&b.value, 0);
    in.key = key_box("wx", in.key.len > 0 ? key_str(&in.key) : SL_STR("token"));
    assert_int_equal(bus_box(w->bus, &in, on_boxed, &b), SL_OK);
    assert_int_equal(b.calls, 0);
    assert_true(world_wait_count(w, &b.calls, 1, SOON_MS));
    assert_int_equal(b.err, err);
    assert_string_equal(b.value.ptr, value);
    sl_buf_fini(&b.value);
}

#define BOX(...) ((struct bus_box){__VA_ARGS__})

static void box_gets_sets_adds_swaps_and_drops(void **state)
{
    struct world *w = *state;
    const struct sl_str one = SL_STR("one"), two = SL_STR("two");
    expect_box(w, SL_ENOTFOUND, "", BOX(.op = BUS_BOX_GET));
    expect_box(w, SL_OK, "", BOX(.op = BUS_BOX_ADD, .value = one, .ttl_ms = 60000));
    expect_box(w, SL_ECONFLICT, "one", BOX(.op = BUS_BOX_ADD, .value = two, .ttl_ms = 60000));
    expect_box(w, SL_OK, "one", BOX(.op = BUS_BOX_GET));
    expect_box(w, SL_ECONFLICT, "one", BOX(.op = BUS_BOX_SWAP, .value = two, .expected = two));
    expect_box(w, SL_OK, "", BOX(.op = BUS_BOX_SWAP, .value = two, .expected = one));
    expect_box(w, SL_OK, "two", BOX(.op = BUS_BOX_DROP, .expected = one)); /* another's lock stays */
    expect_box(w, SL_OK, "two", BOX(.op = BUS_BOX_GET));
    expect_box(w, SL_OK, "", BOX(.op = BUS_BOX_DROP, .expected = two));
    expect_box(w, SL_ENOTFOUND, "", BOX(.op = BUS_BOX_GET));
    expect_box(w, SL_OK, "", BOX(.op = BUS_BOX_SWAP, .value = one)); /* nothing equals the empty value */
    expect_box(w, SL_OK, "", BOX(.op = BUS_BOX_SET, .value = {"a\0b", 3}));
    expect_box(w, SL_OK, "a|b", BOX(.op = BUS_BOX_GET));
    expect_box(w, SL_OK, "", BOX(.op = BUS_BOX_DROP));
    expect_box(w, SL_OK, "", BOX(.op = BUS_BOX_DROP));
    expect_box(w, SL_ENOTFOUND, "", BOX(.op = BUS_BOX_GET));
    w->is_finished = true;
}

static void box_ends_by_itself(void **state)
{
    struct world *w = *state;
    const struct sl_str one = SL_STR("one"), two = SL_STR("two");
    expect_box(w, SL_OK, "", BOX(.op = BUS_BOX_SET, .value = one, .ttl_ms = 40));
    expect_box(w, SL_OK, "a|one|",
               BOX(.op = BUS_BOX_PUT, .key = {1, "m"}, .field = {"a", 1}, .value = one, .ttl_ms = 40));
    expect_box(w, SL_OK, "one", BOX(.op = BUS_BOX_GET));
    world_pass(w, 60);
    expect_box(w, SL_ENOTFOUND, "", BOX(.op = BUS_BOX_GET));
    expect_box(w, SL_OK, "b|two|",
               BOX(.op = BUS_BOX_PUT, .key = {1, "m"}, .field = {"b", 1}, .value = two, .ttl_ms = 40));
    expect_box(w, SL_OK, "", BOX(.op = BUS_BOX_ADD, .value = two, .ttl_ms = 40));
    expect_box(w, SL_OK, "", BOX(.op = BUS_BOX_SET, .value = two)); /* no end any more */
    world_pass(w, 60);
    expect_box(w, SL_OK, "two", BOX(.op = BUS_BOX_GET));
    w->is_finished = true;
}

static void box_refuses_what_is_wrong_or_too_large(void **state)
{
    struct world *w = *state;
    char *large = sl_alloc(65537);
    memset(large, 'x', 65537);
    expect_box(w, SL_ETOOBIG, "", BOX(.op = BUS_BOX_SET, .value = {large, 65537}));
    expect_box(w, SL_OK, "", BOX(.op = BUS_BOX_SET, .value = {large, 65536}));
    free(large);
    static const char *const bad[] = {"get",      "get x",   "get 1 2",  "set 1",
                                      "what 1 2", "put 1 f", "swap 1 2", "drop 1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_string_equal(world_say(w, "FCALL box_1 1 box:{send:wx}:t %s", bad[i]),
                            "!EREFUSED BAD arguments of box_1");
    (void)world_say(w, "RPUSH box:{send:wx}:list x");
    world_expect(w, "!EREFUSED BAD type of box:{send:wx}:list", "FCALL box_1 1 box:{send:wx}:list get 0");
    for (int i = 0; i < 1000; i++)
        (void)world_say(w, "FCALL box_1 1 box:{send:wx}:map put 0 f%d x", i);
    assert_int_equal(w->err, SL_OK);
    world_expect(w, "!ETOOBIG TOOBIG a map of a box", "FCALL box_1 1 box:{send:wx}:map put 0 f1001 x");
    (void)world_say(w, "FCALL box_1 1 box:{send:wx}:map put 0 f7 y");
    assert_int_equal(w->err, SL_OK);
    w->is_finished = true;
}

int run_calls_cases(void)
{
    const struct CMUnitTest cases[] = {
        WORLD_BOTH(accept_by_number_answers_repeats_and_gaps),
        WORLD_BOTH(accept_limits_rate_and_room),
        WORLD_BOTH(accept_by_id_sees_the_whole_horizon),
        {"memory: accept_by_id_remembers_over_the_turn_of_the_hour",
         accept_by_id_remembers_over_the_turn_of_the_hour, world_setup_memory, world_teardown, NULL},
        WORLD_BOTH(tail_hands_over_in_order_each_once),
        WORLD_BOTH(tail_takes_a_new_stream_while_blocked),
        WORLD_BOTH(tail_pauses_and_removes),
        WORLD_BOTH(tail_goes_on_after_a_restart_of_the_store),
        WORLD_BOTH(subscriber_counts_channels),
        WORLD_BOTH(subscriber_renews_everything_after_a_loss),
        WORLD_BOTH(a_channel_costs_less_than_300_bytes),
        WORLD_BOTH(closing_the_bus_settles_every_call_once),
        WORLD_BOTH(too_many_in_flight_is_busy),
        WORLD_BOTH(box_gets_sets_adds_swaps_and_drops),
        WORLD_BOTH(box_ends_by_itself),
        WORLD_BOTH(box_refuses_what_is_wrong_or_too_large),
    };
    return cmocka_run_group_tests_name("calls", cases, NULL, NULL);
}
