/* The pure life of a delivery lane: transitions one by one, then random worlds against a small account of what must hold. */
#include "tests/unit/steps.h"

#include "gateway/lane.h"

#include "base/fault.h"

#include <stdlib.h>

#define S(text) SL_STR(text)

/* ---- one lane, and what it asked for ---- */

#define DEEDS_MAX 64
struct bench {
    struct stage *s;
    int64_t epoch;
    size_t deeds;
    struct given {
        char id[80];
        int64_t part, attempt, epoch;
        bool is_query;
        char key[40], text[40], done[LANE_DONE_MAX + 1], remote[64];
        int64_t parts, most;
    } deed[DEEDS_MAX];
};

static void on_deed(void *arg, const struct event *d)
{
    struct bench *b = arg;
    assert_true(b->deeds < DEEDS_MAX);
    struct given *g = &b->deed[b->deeds++];
    *g = (struct given){
        .part = d->number, .attempt = d->gen, .epoch = d->control, .is_query = d->type == EVENT_QUERY};
    (void)snprintf(g->id, sizeof g->id, "%.*s", (int)d->conv.len, d->conv.ptr);
    (void)snprintf(g->key, sizeof g->key, "%.*s", (int)d->hash.len, d->hash.ptr);
    (void)snprintf(g->text, sizeof g->text, "%.*s", (int)d->text.len, d->text.ptr);
    (void)snprintf(g->done, sizeof g->done, "%.*s", (int)d->done.len, d->done.ptr);
    (void)snprintf(g->remote, sizeof g->remote, "%.*s", (int)d->remote.len, d->remote.ptr);
    g->parts = d->capacity, g->most = d->ticket;
}

static void own(struct bench *b, const char *limits)
{
    effects_set_epoch(b->s->fx, ++b->epoch);
    state_cache_clear(b->s->cache);
    stage_run(b->s, &(struct event){.type = EVENT_LANE, .hash = S("h"), .data = sl_str_c(limits)});
}

#define LIMITS(policy)                                                                                       \
    "{\"policy\":" #policy ",\"window\":3,\"tries\":3,\"grace_ms\":30000,\"deadline_ms\":3600000}"

static struct bench *bench_new(const char *limits)
{
    struct bench *b = sl_alloc(sizeof *b);
    b->s = stage_new(&gw_lane_ops, "send:sms");
    b->s->on_deed = on_deed;
    b->s->deed_arg = b;
    b->epoch = 100;
    own(b, limits);
    return b;
}

static void bench_free(struct bench *b)
{
    (void)stage_state(b->s, NULL, SL_STR_NONE);
    stage_free(&b->s);
    free(b);
}

static const char *conv_name(unsigned i)
{
    static const char *const names[] = {"3.01JD8Z6V3K9Q2W4E5R6T7Y8A9B", "4.01JD8Z6V3K9Q2W4E5R6T7Y8A9C",
                                        "3.01JD8Z6V3K9Q2W4E5R6T7Y8A9D", "5.01JD8Z6V3K9Q2W4E5R6T7Y8A9E",
                                        "6.01JD8Z6V3K9Q2W4E5R6T7Y8A9F", "7.01JD8Z6V3K9Q2W4E5R6T7Y8A9G"};
    return names[i % 6];
}

static void send_text(struct bench *b, unsigned conv, int64_t number, const char *text, int64_t priority)
{
    stage_run(b->s, &(struct event){.type = EVENT_SEND,
                                    .conv = sl_str_c(conv_name(conv)),
                                    .id = S("m"),
                                    .number = number,
                                    .addr = S("t/sms/+8613"),
                                    .name = S("bot"),
                                    .kind = S("text"),
                                    .text = sl_str_c(text),
                                    .priority = priority,
                                    .at_ms = b->s->now_ms});
}

static void settle(struct bench *b, const struct given *g, const char *reason, const char *ids,
                   const char *hints, int64_t wait_ms)
{
    stage_run(b->s, &(struct event){.type = EVENT_SETTLED,
                                    .id = sl_str_c(g->id),
                                    .number = g->part,
                                    .gen = g->attempt,
                                    .control = g->epoch,
                                    .capacity = 1,
                                    .reason = sl_str_c(reason),
                                    .remote = sl_str_c(ids),
                                    .name = sl_str_c(hints),
                                    .code = S("c"),
                                    .text = S("words"),
                                    .wait_ms = wait_ms});
}

static void receipt(struct bench *b, const char *id, const char *word)
{
    stage_run(b->s,
              &(struct event){
                  .type = EVENT_RECEIPT, .remote = sl_str_c(id), .reason = sl_str_c(word), .text = S("why")});
}

/* The last outcome told; "" when none was since stage_forget. */
static const char *told(struct bench *b)
{
    const struct event *ev = stage_fact(b->s, EVENT_OUTCOME);
    static char word[32];
    (void)snprintf(word, sizeof word, "%.*s", ev != NULL ? (int)ev->reason.len : 0,
                   ev != NULL ? ev->reason.ptr : "");
    return word;
}

static const struct gw_lane *lane_of(struct bench *b)
{
    return stage_state(b->s, &gw_lane_kind, LANE_ID);
}

/* ---- transitions ---- */

static void test_send_starts_at_once_and_is_sent(void **state)
{
    (void)state;
    struct bench *b = bench_new(LIMITS(0));
    send_text(b, 0, 4, "hello", 0);
    assert_int_equal(b->deeds, 1);
    assert_string_equal(b->deed[0].text, "hello");
    assert_int_equal(strlen(b->deed[0].key), 32);
    assert_int_equal(b->deed[0].epoch, b->epoch);
    settle(b, &b->deed[0], "sent", "p1", "", 0);
    assert_string_equal(told(b), "sent");
    assert_int_equal(lane_of(b)->queued, 0);
    assert_int_equal(lane_of(b)->flying_count, 0);
    receipt(b, "p1", "read");
    assert_string_equal(told(b), "read");
    stage_forget(b->s);
    receipt(b, "p1", "delivered"); /* never backwards */
    assert_string_equal(told(b), "");
    bench_free(b);
}

static void test_one_in_flight_for_each_conversation(void **state)
{
    (void)state;
    struct bench *b = bench_new(LIMITS(0));
    send_text(b, 0, 1, "a", 0);
    send_text(b, 0, 2, "b", 0);
    send_text(b, 1, 1, "c", 0);
    assert_int_equal(b->deeds, 2);
    settle(b, &b->deed[0], "sent", "p1", "", 0);
    assert_int_equal(b->deeds, 3);
    assert_string_equal(b->deed[2].text, "b");
    bench_free(b);
}

static void test_window_is_kept_and_replies_go_before_bulk(void **state)
{
    (void)state;
    struct bench *b = bench_new(LIMITS(0));
    for (unsigned i = 0; i < 4; i++)
        send_text(b, i, 1, i == 3 ? "bulk" : "x", i == 3 ? -1 : 0);
    send_text(b, 4, 1, "reply", 0);
    assert_int_equal(b->deeds, 3);
    settle(b, &b->deed[0], "sent", "p1", "", 0);
    assert_int_equal(b->deeds, 4);
    assert_string_equal(b->deed[3].text, "reply");
    settle(b, &b->deed[1], "sent", "p2", "", 0);
    assert_string_equal(b->deed[4].text, "bulk");
    bench_free(b);
}

static void test_failed_for_now_is_tried_again_with_the_same_key(void **state)
{
    (void)state;
    struct bench *b = bench_new(LIMITS(0));
    send_text(b, 0, 1, "a", 0);
    settle(b, &b->deed[0], "failed", "", "retry", 5000);
    assert_string_equal(told(b), "");
    int64_t before = b->s->now_ms;
    assert_true(stage_fire(b->s));
    assert_true(b->s->now_ms - before >= 5000); /* Retry-After */
    assert_int_equal(b->deeds, 2);
    assert_string_equal(b->deed[1].key, b->deed[0].key);
    settle(b, &b->deed[1], "failed", "", "retry", 0);
    assert_true(stage_fire(b->s));
    settle(b, &b->deed[2], "failed", "", "retry", 0);
    assert_string_equal(told(b), "failed"); /* tries: 3 */
    bench_free(b);
}

static void test_account_failure_pauses_the_lane_and_costs_no_try(void **state)
{
    (void)state;
    struct bench *b = bench_new(LIMITS(0));
    for (int i = 0; i < 6; i++) {
        if (i == 0)
            send_text(b, 0, 1, "a", 0);
        settle(b, &b->deed[i], "failed", "", "retry,account", 7000);
        send_text(b, 1, i + 1, "other", 0);
        assert_int_equal(b->deeds, i + 1); /* nobody else starts, either */
        int64_t before = b->s->now_ms;
        while (b->deeds == (size_t)i + 1)
            assert_true(stage_fire(b->s));
        assert_true(b->s->now_ms - before >= 7000);
        b->deeds = (size_t)i + 2; /* forget the other conversation's */
        if (i == 0)
            settle(b, &b->deed[1], "failed", "", "", 0);
        break;
    }
    bench_free(b);
}

static void test_policies_for_unknown(void **state)
{
    (void)state;
    static const char *const limits[] = {LIMITS(0), LIMITS(1), LIMITS(2), LIMITS(3)};
    for (int policy = 0; policy < 4; policy++) {
        struct bench *b = bench_new(limits[policy]);
        send_text(b, 0, 1, "a", 0);
        settle(b, &b->deed[0], "unknown", "", "", 0);
        int64_t before = b->s->now_ms;
        if (policy == LANE_AT_MOST_ONCE) {
            assert_string_equal(told(b), "unknown");
            assert_int_equal(b->deeds, 1);
            bench_free(b);
            continue;
        }
        while (b->deeds < 2)
            assert_true(stage_fire(b->s));
        assert_int_equal(b->deed[1].is_query, policy == LANE_QUERYABLE);
        assert_string_equal(b->deed[1].key, b->deed[0].key);
        assert_true(policy == LANE_AT_LEAST_ONCE ? b->s->now_ms - before >= 30000 : b->s->now_ms == before);
        if (policy == LANE_QUERYABLE) {
            settle(b, &b->deed[1], "never", "", "", 0);
            while (b->deeds < 3)
                assert_true(stage_fire(b->s));
            assert_false(b->deed[2].is_query);
        }
        settle(b, &b->deed[b->deeds - 1], "sent", "p9", "", 0);
        assert_string_equal(told(b), "sent");
        bench_free(b);
    }
}

/* "Failed" would be a lie when an earlier try may lie on the customer's phone. */
static void test_what_may_have_been_taken_has_not_failed(void **state)
{
    (void)state;
    static const char *const limits[] = {LIMITS(1), LIMITS(2), LIMITS(3)};
    for (int i = 0; i < 3; i++) {
        struct bench *b = bench_new(limits[i]);
        send_text(b, 0, 1, "a", 0);
        settle(b, &b->deed[0], "unknown", "", "", 0);
        while (b->deeds < 2)
            assert_true(stage_fire(b->s));
        settle(b, &b->deed[1], "failed", "", "", 0);
        /* who was asked knows of all tries */
        assert_string_equal(told(b), b->deed[1].is_query ? "failed" : "unknown");
        settle(b, &b->deed[1], "failed", "", "", 0); /* the same word again says nothing of the first try */
        assert_string_equal(told(b), b->deed[1].is_query ? "failed" : "unknown");
        bench_free(b);
    }
}

static void test_a_late_failure_speaks_of_its_own_try(void **state)
{
    (void)state;
    struct bench *b = bench_new(LIMITS(1));
    send_text(b, 0, 1, "a", 0);
    settle(b, &b->deed[0], "unknown", "", "", 0);
    while (b->deeds < 2)
        assert_true(stage_fire(b->s));
    settle(b, &b->deed[1], "unknown", "", "", 0);
    settle(b, &b->deed[1], "failed", "", "", 0); /* late, in the time of grace; the first is unknown still */
    assert_string_equal(told(b), "unknown");
    bench_free(b);

    b = bench_new(LIMITS(1));
    send_text(b, 0, 1, "a", 0);
    settle(b, &b->deed[0], "unknown", "", "", 0);
    settle(b, &b->deed[0], "failed", "", "", 0);
    assert_string_equal(told(b), "failed");
    bench_free(b);
}

static void test_takeover_makes_unknown_what_the_old_owner_had_in_flight(void **state)
{
    (void)state;
    struct bench *b = bench_new(LIMITS(0));
    send_text(b, 0, 1, "a", 0);
    send_text(b, 0, 2, "b", 0);
    own(b, LIMITS(0));
    assert_string_equal(told(b), "unknown");
    while (b->deeds < 2)
        assert_true(stage_fire(b->s));
    assert_string_equal(b->deed[1].text, "b");
    stage_forget(b->s);
    settle(b, &b->deed[0], "sent", "p1", "",
           0); /* the old owner's word comes late: it settles what was unknown */
    assert_string_equal(told(b), "sent");
    receipt(b, "p1", "delivered");
    assert_string_equal(told(b), "delivered");
    bench_free(b);
}

static void test_word_that_stood_in_the_log_before_the_takeover_counts(void **state)
{
    (void)state;
    struct bench *b = bench_new(LIMITS(0));
    send_text(b, 0, 1, "a", 0);
    effects_set_epoch(b->s->fx, ++b->epoch); /* acquired; the old owner's word is read before our own event */
    settle(b, &b->deed[0], "sent", "p1", "", 0);
    assert_string_equal(told(b), "sent");
    bench_free(b);
}

static void test_receipt_before_the_answer_waits_for_it(void **state)
{
    (void)state;
    struct bench *b = bench_new(LIMITS(0));
    send_text(b, 0, 1, "a", 0);
    receipt(b, "p1", "delivered");
    assert_int_equal(lane_of(b)->early, 1);
    assert_string_equal(told(b), "");
    settle(b, &b->deed[0], "sent", "p1", "", 0);
    assert_string_equal(told(b), "delivered");
    assert_int_equal(lane_of(b)->early, 0);
    receipt(b, "p7", "delivered"); /* nobody's */
    while (lane_of(b)->early > 0)
        assert_true(stage_fire(b->s));
    assert_int_equal(lane_of(b)->early_lost, 1);
    bench_free(b);
}

static void test_several_ids_are_delivered_when_all_are_and_failed_when_one_is(void **state)
{
    (void)state;
    struct bench *b = bench_new(LIMITS(0));
    send_text(b, 0, 1, "a", 0);
    settle(b, &b->deed[0], "sent", "p1,p2", "", 0);
    stage_forget(b->s);
    receipt(b, "p1", "delivered");
    assert_string_equal(told(b), "");
    receipt(b, "p2", "delivered");
    assert_string_equal(told(b), "delivered");
    stage_forget(b->s);
    receipt(b, "p2", "failed"); /* after delivered: ignored */
    assert_string_equal(told(b), "");
    send_text(b, 0, 2, "b", 0);
    settle(b, &b->deed[1], "sent", "p3,p4", "", 0);
    receipt(b, "p3", "delivered");
    receipt(b, "p4", "failed");
    assert_string_equal(told(b), "failed");
    bench_free(b);
}

static void settle_piece(struct bench *b, const struct given *g, int64_t parts, const char *reason,
                         const char *ids, const char *hints, const char *done)
{
    stage_run(b->s, &(struct event){.type = EVENT_SETTLED,
                                    .id = sl_str_c(g->id),
                                    .number = g->part,
                                    .gen = g->attempt,
                                    .capacity = parts,
                                    .reason = sl_str_c(reason),
                                    .name = sl_str_c(hints),
                                    .remote = sl_str_c(ids),
                                    .done = sl_str_c(done),
                                    .text = S("words")});
}

static void settle_parts(struct bench *b, const struct given *g, int64_t parts, const char *ids)
{
    settle_piece(b, g, parts, "sent", ids, "", "");
}

static void fire_until(struct bench *b, size_t deeds)
{
    while (b->deeds < deeds)
        assert_true(stage_fire(b->s));
}

static const struct gw_send *message_of(struct bench *b, const struct given *g)
{
    return stage_state(b->s, &gw_send_kind, sl_str_c(g->id));
}

/* The second of three is throttled: it alone goes again, whatever the account's pause, a takeover, or the message's age. */
static void test_a_throttled_part_is_tried_again_from_there(void **state)
{
    (void)state;
    for (int is_account = 0; is_account < 2; is_account++) {
        struct bench *b = bench_new(LIMITS(1));
        send_text(b, 0, 1, "long", 0);
        settle_parts(b, &b->deed[0], 3, "p1");
        settle_piece(b, &b->deed[1], 3, "failed", "", is_account ? "retry,account" : "retry", "");
        fire_until(b, 3);
        assert_int_equal(b->deed[2].part, 2);
        assert_int_equal(b->deed[2].parts, 3);
        assert_string_equal(b->deed[2].key, b->deed[1].key);
        own(b, LIMITS(1)); /* at_least_once: the part that was out is sent again, the first is not */
        fire_until(b, 4);
        assert_int_equal(b->deed[3].part, 2);
        b->s->now_ms += 2 * 3600000; /* over the deadline; but half of it is there */
        settle_piece(b, &b->deed[3], 3, "failed", "", "retry,account", "");
        fire_until(b, 5);
        assert_int_equal(b->deed[4].part, 2);
        settle_parts(b, &b->deed[4], 3, "p2");
        assert_int_equal(b->deed[5].part, 3);
        assert_string_equal(told(b), "");
        settle_parts(b, &b->deed[5], 3, "p3");
        assert_string_equal(told(b), "sent");
        assert_string_equal(message_of(b, &b->deed[0])->remote, "p1,p2,p3");
        bench_free(b);
    }
}

static void test_what_ends_half_sent_says_so(void **state)
{
    (void)state;
    struct bench *b = bench_new(LIMITS(0));
    send_text(b, 0, 1, "long", 0);
    settle_parts(b, &b->deed[0], 3, "p1");
    settle_piece(b, &b->deed[1], 3, "failed", "", "", "");
    assert_string_equal(told(b), "failed");
    assert_non_null(strstr(message_of(b, &b->deed[0])->words, "sent: 1 of 3 parts): words"));
    send_text(b, 1, 1, "long", 0);
    settle_parts(b, &b->deed[2], 2, "p2");
    settle_piece(b, &b->deed[3], 2, "failed", "", "retry,account", "");
    b->s->now_ms += (LANE_HALF_TIMES + 1) * 3600000;
    stage_forget(b->s);
    while (told(b)[0] == '\0')
        assert_true(stage_fire(b->s));
    assert_string_equal(told(b), "failed"); /* not for ever */
    assert_int_equal(b->deeds, 4);
    bench_free(b);
}

/* Pieces that an adapter brought to its provider before the rest was refused. */
static void test_pieces_go_back_to_the_adapter(void **state)
{
    (void)state;
    struct bench *b = bench_new(LIMITS(1));
    send_text(b, 0, 1, "long", 0);
    receipt(b, "a2", "delivered"); /* of a piece, before the try has ended */
    settle_piece(b, &b->deed[0], 1, "failed", "a1,a2", "retry,account", "3.2.2.3");
    fire_until(b, 2);
    assert_string_equal(b->deed[1].done, "3.2.2.3");
    settle_piece(b, &b->deed[1], 1, "unknown", "", "", ""); /* nothing new: what was known stays */
    receipt(b, "a1", "delivered");
    fire_until(b, 3);
    assert_string_equal(b->deed[2].done, "3.2.2.3");
    settle_piece(b, &b->deed[2], 2, "sent", "a3", "", "");
    assert_int_equal(b->deed[3].part, 2);
    assert_string_equal(b->deed[3].done, ""); /* of another part */
    settle_piece(b, &b->deed[3], 2, "sent", "b1,b1,a1", "", "");
    assert_string_equal(told(b), "sent");
    assert_string_equal(message_of(b, &b->deed[0])->remote, "a1,a2,a3,b1"); /* an id told twice is one */
    receipt(b, "a3", "delivered");
    receipt(b, "b1", "delivered");
    assert_string_equal(told(b), "delivered");
    bench_free(b);
}

static void test_a_query_names_the_ids_of_its_part_alone(void **state)
{
    (void)state;
    struct bench *b = bench_new(LIMITS(3));
    send_text(b, 0, 1, "long", 0);
    settle_parts(b, &b->deed[0], 2, "p1");
    settle_piece(b, &b->deed[1], 2, "unknown", "", "", "");
    fire_until(b, 3);
    assert_true(b->deed[2].is_query);
    assert_string_equal(b->deed[2].remote, ""); /* p1 would say "sent" of what was never there */
    settle_piece(b, &b->deed[2], 2, "never", "", "", "");
    fire_until(b, 4);
    settle_piece(b, &b->deed[3], 2, "unknown", "p2", "", "");
    fire_until(b, 5);
    assert_string_equal(b->deed[4].remote, "p2");
    settle_piece(b, &b->deed[4], 2, "sent", "p2", "", "");
    assert_string_equal(told(b), "sent");
    bench_free(b);
}

static void test_the_number_of_sends_that_was_paid_for_goes_along(void **state)
{
    (void)state;
    struct bench *b = bench_new(LIMITS(0));
    stage_run(b->s, &(struct event){.type = EVENT_SEND,
                                    .conv = sl_str_c(conv_name(0)),
                                    .id = S("m"),
                                    .number = 1,
                                    .addr = S("t/wx/o"),
                                    .kind = S("text"),
                                    .text = S("x"),
                                    .capacity = 2,
                                    .at_ms = b->s->now_ms});
    assert_int_equal(b->deed[0].most, 2);
    assert_int_equal(b->deed[0].parts, 1);
    settle_parts(b, &b->deed[0], 2, "p1");
    assert_int_equal(b->deed[1].most, 2);
    bench_free(b);
}

static void test_parts_go_one_after_another(void **state)
{
    (void)state;
    struct bench *b = bench_new(LIMITS(0));
    send_text(b, 0, 1, "long", 0);
    send_text(b, 0, 2, "next", 0);
    settle_parts(b, &b->deed[0], 2, "p1");
    assert_string_equal(told(b), "");
    assert_int_equal(b->deed[1].part, 2);
    assert_string_not_equal(b->deed[1].key, b->deed[0].key);
    settle_parts(b, &b->deed[0], 2, "p1"); /* appended twice */
    receipt(b, "p1", "delivered");
    assert_string_equal(told(b), "");
    settle_parts(b, &b->deed[1], 2, "p2");
    assert_string_equal(told(b), "sent");
    receipt(b, "p2", "delivered");
    assert_string_equal(told(b), "delivered");
    assert_string_equal(b->deed[2].text, "next");
    bench_free(b);
}

static void test_breaker_opens_and_one_message_tries_it(void **state)
{
    (void)state;
    struct bench *b = bench_new("{\"window\":20,\"tries\":3}");
    for (unsigned i = 0; i < 12; i++)
        send_text(b, 0, i + 1, "x", 0);
    for (size_t i = 0; i < 10; i++) /* each conversation has one in flight: they end one by one */
        settle(b, &b->deed[i], "unknown", "", "", 0);
    assert_int_equal(lane_of(b)->breaker, LANE_OPEN);
    assert_int_equal(b->deeds, 10);
    int64_t before = b->s->now_ms;
    while (b->deeds == 10)
        assert_true(stage_fire(b->s));
    assert_true(b->s->now_ms - before >= 5000);
    assert_int_equal(lane_of(b)->breaker, LANE_PROBING);
    send_text(b, 1, 1, "y", 0);
    assert_int_equal(b->deeds, 11);
    settle(b, &b->deed[10], "sent", "p", "", 0);
    assert_int_equal(lane_of(b)->breaker, LANE_CLOSED);
    while (b->deeds < 13)
        assert_true(stage_fire(b->s));
    bench_free(b);
}

static void test_tokens_are_spent_and_come_back(void **state)
{
    (void)state;
    struct bench *b = bench_new("{\"window\":100,\"rate\":10,\"burst\":2}");
    b->s->now_ms += 1000;
    for (unsigned i = 0; i < 6; i++)
        send_text(b, i, 1, "x", 0);
    assert_int_equal(b->deeds, 2);
    int64_t before = b->s->now_ms;
    while (b->deeds < 6)
        assert_true(stage_fire(b->s));
    assert_in_range(b->s->now_ms - before, 400, 500);
    bench_free(b);
}

static void test_not_begun_costs_no_try_and_waits_longer_each_time(void **state)
{
    (void)state;
    struct bench *b = bench_new(LIMITS(0));
    send_text(b, 0, 1, "a", 0);
    for (size_t i = 0; i < 8; i++) {
        settle(b, &b->deed[i], "not_begun", "", "", 0);
        assert_string_equal(told(b),
                            i < 5 ? "" : "waiting"); /* 250 ms, 500 ms ... 5 s: nothing is there to take it */
        while (b->deeds == i + 1)
            assert_true(stage_fire(b->s));
    }
    settle(b, &b->deed[8], "not_begun", "", "", 0);
    own(b, LIMITS(0)); /* the adapter came up: at once */
    assert_int_equal(b->deeds, 10);
    settle(b, &b->deed[9], "sent", "p", "", 0);
    assert_string_equal(told(b), "sent");
    bench_free(b);
}

static const struct event *last_told(struct bench *b)
{
    const struct event *ev = stage_fact(b->s, EVENT_OUTCOME);
    assert_non_null(ev);
    return ev;
}

/* People are told once why nothing happens; a short wait is no news. */
static void test_people_hear_of_a_long_wait(void **state)
{
    (void)state;
    struct bench *b = bench_new(LIMITS(0));
    send_text(b, 0, 1, "a", 0);
    settle(b, &b->deed[0], "failed", "", "retry,account", 3000);
    assert_string_equal(told(b), "");
    fire_until(b, 2);
    settle(b, &b->deed[1], "failed", "", "retry,account", 60000);
    assert_string_equal(told(b), "waiting");
    assert_bytes(last_told(b)->code, "c");
    assert_bytes(last_told(b)->text, "words");
    stage_forget(b->s);
    send_text(b, 1, 1, "behind it", 0); /* what waits behind the account hears the same */
    assert_string_equal(told(b), "waiting");
    assert_bytes(last_told(b)->text, "words");
    stage_forget(b->s);
    fire_until(b, 3);
    settle(b, &b->deed[2], "failed", "", "retry,account", 60000);
    assert_string_equal(told(b), ""); /* once */
    assert_string_equal(lane_of(b)->error_words, "words");
    assert_int_equal(lane_of(b)->error_ms, b->s->now_ms);
    bench_free(b);
}

static void test_what_waits_behind_an_open_breaker_is_said(void **state)
{
    (void)state;
    struct bench *b = bench_new("{\"window\":20,\"tries\":3}");
    for (unsigned i = 0; i < 10; i++) {
        send_text(b, 0, i + 1, "x", 0);
        settle(b, &b->deed[i], "unknown", "", "", 0);
    }
    assert_int_equal(lane_of(b)->breaker, LANE_OPEN);
    stage_forget(b->s);
    send_text(b, 1, 1, "y", 0);
    assert_string_equal(told(b), "waiting");
    bench_free(b);
}

static void test_old_message_is_not_begun(void **state)
{
    (void)state;
    struct bench *b = bench_new(LIMITS(0));
    for (unsigned i = 0; i < 4; i++)
        send_text(b, i, 1, "x", 0);
    b->s->now_ms += 3600001;
    stage_forget(b->s);
    settle(b, &b->deed[0], "sent", "p1", "", 0);
    assert_string_equal(told(b), "failed");
    assert_int_equal(b->deeds, 3);
    bench_free(b);
}

static void test_what_ended_is_forgotten_in_time(void **state)
{
    (void)state;
    struct bench *b = bench_new(LIMITS(0));
    for (int i = 0; i < 150; i++) {
        char id[16];
        b->deeds = 0;
        send_text(b, 0, i + 1, "x", 0);
        (void)snprintf(id, sizeof id, "p%d", i);
        settle(b, &b->deed[0], "sent", id, "", 0);
    }
    stage_forget(b->s);
    assert_int_equal(lane_of(b)->kept, 150);
    while (stage_fire(b->s))
        ;
    assert_int_equal(lane_of(b)->kept, 0);
    for (size_t i = 0; i < b->s->state_count; i++)
        assert_true(!b->s->states[i].is_there || strcmp(b->s->states[i].kind->prefix, "lane") == 0);
    bench_free(b);
}

static void test_bad_input_changes_nothing(void **state)
{
    (void)state;
    struct bench *b = bench_new(LIMITS(0));
    const struct event bad[] = {
        {.type = EVENT_SEND, .conv = S("a b")},
        {.type = EVENT_SEND, .conv = S("3.x"), .number = -1},
        {.type = EVENT_SETTLED},
        {.type = EVENT_SETTLED, .id = S("3.x/9"), .number = 1, .gen = 1, .reason = S("sent")},
        {.type = EVENT_RECEIPT},
        {.type = EVENT_RECEIPT, .remote = S(",,"), .reason = S("delivered")},
        {.type = EVENT_RECEIPT, .remote = S("p"), .reason = S("danced")},
        {.type = EVENT_TIMER, .conv = S("lane"), .name = S("go"), .gen = 999},
        {.type = EVENT_TIMER, .conv = S("x"), .name = S("retry"), .gen = 999},
        {.type = EVENT_TIMER, .conv = S("x"), .name = S("sweep"), .gen = 1},
        {.type = EVENT_TIMER, .conv = S("x"), .name = S("early"), .gen = 1},
        {.type = EVENT_TASK},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        stage_run(b->s, &bad[i]);
        stage_go(b->s, &bad[i], true);
    }
    assert_int_equal(b->deeds, 0);
    assert_int_equal(lane_of(b)->queued, 0);
    send_text(b, 0, 1, "a", 0);
    assert_int_equal(b->deeds, 1);
    bench_free(b);
}

static void test_poison_leaves_no_conversation_waiting(void **state)
{
    (void)state;
    struct bench *b = bench_new(LIMITS(0));
    stage_go(b->s,
             &(struct event){.type = EVENT_SEND, .conv = sl_str_c(conv_name(0)), .number = 1, .id = S("m")},
             true);
    assert_string_equal(told(b), "failed");
    send_text(b, 0, 2, "a", 0);
    stage_go(b->s,
             &(struct event){.type = EVENT_SETTLED,
                             .id = sl_str_c(b->deed[0].id),
                             .number = 1,
                             .gen = b->deed[0].attempt,
                             .reason = S("sent")},
             true);
    assert_string_equal(told(b), "unknown");
    assert_int_equal(lane_of(b)->flying_count, 0);
    bench_free(b);
}

/* ---- random worlds ---- */

#define SENDS_MAX 120
#define TRIES_MAX 2000

struct try_out { /* a job that some owner has, or had */
    size_t send;
    struct given g;
    bool is_done, is_told; /* the adapter has said its word; it stands in the log (and may be told again) */
    char reason[12], ids[24], hints[16];
};
struct model_send {
    unsigned conv;
    int64_t number;
    bool is_accepted;  /* the provider has it */
    bool is_in_doubt;  /* a try of it may have been sent, and nobody knew */
    unsigned accepted; /* times, by key */
    int told;          /* rank of the last outcome; 0 none */
    bool has_ended, is_told_waiting;
};
struct random_world {
    struct bench b; /* first: on_deed's argument is this */
    uint64_t state;
    int policy;
    size_t sends, tries, receipts;
    struct model_send send[SENDS_MAX];
    struct try_out out[TRIES_MAX];
    char receipt[TRIES_MAX][24];
    int64_t numbers[6];
    unsigned ids;
};

static uint64_t pick(struct random_world *w, uint64_t n)
{
    uint64_t z = w->state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return (z ^ (z >> 31)) % n;
}

static size_t send_of(struct random_world *w, const char *id)
{
    for (size_t i = 0; i < w->sends; i++) {
        char name[80];
        (void)snprintf(name, sizeof name, "%s/%lld", conv_name(w->send[i].conv),
                       (long long)w->send[i].number);
        if (strcmp(name, id) == 0)
            return i;
    }
    fail_msg("a deed for a message that nobody sent: %s", id);
    return 0;
}

static void judge_outcomes(struct random_world *w);

/* What the owner would see: is it allowed that this try begins now? */
static void on_random_deed(void *arg, const struct event *d)
{
    struct random_world *w = arg;
    assert_true(w->tries < TRIES_MAX);
    struct try_out *t = &w->out[w->tries++];
    judge_outcomes(w); /* of the same batch */
    w->b.deeds = 0;
    on_deed(&w->b, d);
    *t = (struct try_out){.g = w->b.deed[0]};
    t->send = send_of(w, t->g.id);
    struct model_send *x = &w->send[t->send];
    for (size_t i = 0; i < w->sends; i++) /* the earlier ones of the conversation have ended */
        if (w->send[i].conv == x->conv && w->send[i].number < x->number)
            assert_true(w->send[i].has_ended);
    for (size_t i = 0; i + 1 < w->tries; i++) /* one in flight, but for owners that are gone */
        if (!w->out[i].is_done && w->send[w->out[i].send].conv == x->conv)
            assert_true(w->out[i].g.epoch < w->b.epoch);
    if (t->g.is_query)
        return;
    assert_false(x->has_ended);
    if (w->policy == LANE_AT_MOST_ONCE)
        assert_false(x->is_in_doubt || x->is_accepted);
    if (w->policy == LANE_QUERYABLE)
        assert_false(x->is_accepted);
}

static int rank_of_word(struct sl_str word)
{
    static const char *const words[] = {"", "unknown", "sent", "delivered", "read", "failed"};
    for (int i = 1; i < 6; i++)
        if (sl_str_eq_c(word, words[i]))
            return i;
    fail_msg("an outcome %.*s", (int)word.len, word.ptr);
    return 0;
}

/* Said once, and never of what has ended. */
static void judge_waiting(struct random_world *w, const struct event *ev)
{
    char id[80];
    (void)snprintf(id, sizeof id, "%.*s/%lld", (int)ev->conv.len, ev->conv.ptr, (long long)ev->number);
    struct model_send *x = &w->send[send_of(w, id)];
    assert_int_equal(x->told, 0);
    assert_false(x->is_told_waiting);
    x->is_told_waiting = true;
}

/* Outcomes go forward only, and none says sent of what the provider has not. */
static void judge_outcomes(struct random_world *w)
{
    for (size_t i = 0; i < w->b.s->fact_count; i++) {
        const struct event *ev = &w->b.s->facts[i].ev;
        if (ev->type != EVENT_OUTCOME)
            continue;
        if (sl_str_eq_c(ev->reason, "waiting")) {
            judge_waiting(w, ev);
            continue;
        }
        char id[80];
        (void)snprintf(id, sizeof id, "%.*s/%lld", (int)ev->conv.len, ev->conv.ptr, (long long)ev->number);
        struct model_send *x = &w->send[send_of(w, id)];
        int rank = rank_of_word(ev->reason);
        bool is_forward = rank == 5 ? x->told <= 2 : rank > x->told && x->told != 5;
        if (!is_forward)
            fail_msg("%s: %d after %d", id, rank, x->told);
        if (rank >= 2 && rank <= 4 && !x->is_accepted)
            fail_msg("%s: %d, and the provider never had it", id, rank);
        x->told = rank;
        x->has_ended = true;
    }
    stage_forget(w->b.s);
}

static void decide(struct random_world *w, struct try_out *t)
{
    struct model_send *x = &w->send[t->send];
    uint64_t dice = pick(w, 100);
    t->is_done = true;
    if (t->g.is_query) { /* what a provider says it never had does not come to it later: nobody could fence that */
        for (size_t i = 0; i < w->tries; i++)
            if (w->out[i].send == t->send && !w->out[i].is_done && !w->out[i].g.is_query)
                decide(w, &w->out[i]);
        (void)snprintf(t->reason, sizeof t->reason, "%s",
                       dice < 30        ? "unknown"
                       : x->is_accepted ? "sent"
                                        : "never");
        if (strcmp(t->reason, "sent") == 0)
            (void)snprintf(t->ids, sizeof t->ids, "q%u", w->ids++);
    } else if (dice < 50) {
        (void)snprintf(t->reason, sizeof t->reason, "%s", "sent");
        (void)snprintf(t->ids, sizeof t->ids, "p%u", w->ids++);
        x->is_accepted = true;
    } else if (dice < 62) {
        (void)snprintf(t->reason, sizeof t->reason, "%s", "failed");
    } else if (dice < 75) {
        (void)snprintf(t->reason, sizeof t->reason, "%s", "failed");
        (void)snprintf(t->hints, sizeof t->hints, "%s", dice < 70 ? "retry" : "retry,account");
    } else if (dice < 85) {
        (void)snprintf(t->reason, sizeof t->reason, "%s", "not_begun");
    } else {
        (void)snprintf(t->reason, sizeof t->reason, "%s", "unknown");
        x->is_in_doubt = true;
        x->is_accepted = x->is_accepted || dice < 93;
    }
}

static void tell_word(struct random_world *w, struct try_out *t)
{
    t->is_told = true;
    settle(&w->b, &t->g, t->reason, t->ids, t->hints, pick(w, 3) == 0 ? 2000 : 0);
}

static void random_receipt(struct random_world *w)
{
    static const char *const words[] = {"sent", "delivered", "read", "failed"};
    char id[24];
    if (w->ids == 0)
        return;
    (void)snprintf(id, sizeof id, "p%u", (unsigned)pick(w, w->ids));
    bool is_real = false;
    for (size_t i = 0; i < w->tries; i++)
        is_real = is_real || strcmp(w->out[i].ids, id) == 0;
    if (is_real)
        receipt(&w->b, id, words[pick(w, 4)]);
}

static void new_message(struct random_world *w)
{
    if (w->sends == SENDS_MAX)
        return;
    unsigned conv = (unsigned)pick(w, 6);
    struct model_send *x = &w->send[w->sends++];
    *x = (struct model_send){.conv = conv, .number = ++w->numbers[conv]};
    send_text(&w->b, conv, x->number, "x", pick(w, 4) == 0 ? -1 : 0);
}

static void new_owner(struct random_world *w)
{
    static const char *const limits[] = {LIMITS(0), LIMITS(1), LIMITS(2), LIMITS(3)};
    for (size_t i = 0; i < w->tries; i++)
        if (!w->out[i].is_done)
            w->send[w->out[i].send].is_in_doubt = true;
    own(&w->b, limits[w->policy]);
}

/* An answer of a try: of the adapter, of an owner that is gone, or one that is told again. */
static void some_word(struct random_world *w)
{
    if (w->tries == 0)
        return;
    struct try_out *t = &w->out[w->tries - 1 - pick(w, w->tries < 8 ? w->tries : 8)];
    if (!t->is_done)
        decide(w, t);
    tell_word(w, t);
}

static bool is_over(struct random_world *w)
{
    for (size_t i = 0; i < w->sends; i++)
        if (!w->send[i].has_ended)
            return false;
    return true;
}

static void heal(struct random_world *w)
{
    for (int round = 0; round < 5000 && !is_over(w); round++) {
        bool is_waiting = false;
        for (size_t i = 0; i < w->tries; i++) {
            struct try_out *t = &w->out[i];
            if (t->is_told)
                continue;
            is_waiting = true;
            if (!t->is_done)
                decide(w, t);
            tell_word(w, t);
            judge_outcomes(w);
        }
        if (!is_waiting)
            assert_true(stage_fire(w->b.s));
        judge_outcomes(w);
    }
    for (size_t i = 0; i < w->sends; i++)
        if (!w->send[i].has_ended)
            fail_msg("message %lld of %s has no end", (long long)w->send[i].number,
                     conv_name(w->send[i].conv));
}

static void nothing_is_left(struct random_world *w)
{
    const struct gw_lane *l = lane_of(&w->b);
    assert_int_equal(l->queued, 0);
    assert_int_equal(l->flying_count, 0);
    while (stage_fire(w->b.s))
        judge_outcomes(w);
    l = lane_of(&w->b);
    assert_int_equal(l->early, 0);
    assert_int_equal(l->kept, 0);
    assert_int_equal(l->replies + l->bulk, 0);
    for (size_t i = 0; i < w->b.s->state_count; i++)
        if (w->b.s->states[i].is_there && strcmp(w->b.s->states[i].kind->prefix, "lane") != 0)
            fail_msg("%s:%s is left", w->b.s->states[i].kind->prefix, w->b.s->states[i].id);
}

static void run_world(uint64_t seed)
{
    struct random_world *w = sl_alloc(sizeof *w);
    w->state = seed * 7919;
    w->policy = (int)(seed % 4);
    w->b.s = stage_new(&gw_lane_ops, "send:sms");
    w->b.s->on_deed = on_random_deed;
    w->b.s->deed_arg = w;
    w->b.epoch = 100;
    new_owner(w);
    for (int i = 0; i < 500; i++) {
        uint64_t dice = pick(w, 100);
        if (dice < 25)
            new_message(w);
        else if (dice < 60)
            some_word(w);
        else if (dice < 80)
            random_receipt(w);
        else if (dice < 97)
            (void)stage_fire(w->b.s);
        else
            new_owner(w);
        judge_outcomes(w);
    }
    heal(w);
    nothing_is_left(w);
    (void)stage_state(w->b.s, NULL, SL_STR_NONE);
    stage_free(&w->b.s);
    free(w);
}

static void test_random_worlds_keep_every_promise(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 120; seed++)
        run_world(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_send_starts_at_once_and_is_sent),
        cmocka_unit_test(test_one_in_flight_for_each_conversation),
        cmocka_unit_test(test_window_is_kept_and_replies_go_before_bulk),
        cmocka_unit_test(test_failed_for_now_is_tried_again_with_the_same_key),
        cmocka_unit_test(test_account_failure_pauses_the_lane_and_costs_no_try),
        cmocka_unit_test(test_policies_for_unknown),
        cmocka_unit_test(test_what_may_have_been_taken_has_not_failed),
        cmocka_unit_test(test_a_late_failure_speaks_of_its_own_try),
        cmocka_unit_test(test_takeover_makes_unknown_what_the_old_owner_had_in_flight),
        cmocka_unit_test(test_word_that_stood_in_the_log_before_the_takeover_counts),
        cmocka_unit_test(test_receipt_before_the_answer_waits_for_it),
        cmocka_unit_test(test_several_ids_are_delivered_when_all_are_and_failed_when_one_is),
        cmocka_unit_test(test_people_hear_of_a_long_wait),
        cmocka_unit_test(test_what_waits_behind_an_open_breaker_is_said),
        cmocka_unit_test(test_parts_go_one_after_another),
        cmocka_unit_test(test_a_throttled_part_is_tried_again_from_there),
        cmocka_unit_test(test_what_ends_half_sent_says_so),
        cmocka_unit_test(test_pieces_go_back_to_the_adapter),
        cmocka_unit_test(test_a_query_names_the_ids_of_its_part_alone),
        cmocka_unit_test(test_the_number_of_sends_that_was_paid_for_goes_along),
        cmocka_unit_test(test_breaker_opens_and_one_message_tries_it),
        cmocka_unit_test(test_tokens_are_spent_and_come_back),
        cmocka_unit_test(test_not_begun_costs_no_try_and_waits_longer_each_time),
        cmocka_unit_test(test_old_message_is_not_begun),
        cmocka_unit_test(test_what_ended_is_forgotten_in_time),
        cmocka_unit_test(test_bad_input_changes_nothing),
        cmocka_unit_test(test_poison_leaves_no_conversation_waiting),
        cmocka_unit_test(test_random_worlds_keep_every_promise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
