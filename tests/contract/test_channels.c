/* tests/contract/test_channels.c - the nine rules of channels/channel.h over every registered adapter.
 *
 * A fake host and a virtual clock; a provider is played by requests (CHAN_CAP_REQUEST) and jobs (CHAN_CAP_SEND), a visitor by
 * hello and frame (CHAN_CAP_SOCKET).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include <malloc.h>
#include <stdio.h>
#include <time.h>

#include "channels/channel.h"
#include "proto/keys.h"

#define SECRET      "sixteen bytes or more of it"
#define TICKETS_MAX 2000
#define JOBS_MAX    2000

struct chan_job {
    unsigned settled;
};

struct request {
    struct chan_request rq; /* first */
    struct world *world;
    int status; /* 0: not answered */
};

struct world {
    const struct chan_ops *ops;
    struct sl_loop *loop;
    struct sl_config *cfg;
    struct chan *ch;
    bool is_inside; /* an ops call is running */
    bool is_busy;   /* the core answers inbound with SL_EAGAIN */
    unsigned calls, ups, inbounds, closed, settled;
    char last_id[MSG_ID_MAX_BYTES + 1];
    struct chan_ticket *ticket[TICKETS_MAX];
    size_t tickets;
};

/* ---- the fake host ---- */

static struct world *called(struct chan *ch)
{
    struct world *w = chan_core(ch);
    assert_int_equal(w->closed, 0); /* rule 5 */
    w->calls++;
    return w;
}

static sl_err host_inbound(struct chan *ch, const struct msg *m, struct chan_ticket *t)
{
    struct world *w = called(ch);
    assert_true(m->id.len > 0 && m->id.len <= MSG_ID_MAX_BYTES);
    memcpy(w->last_id, m->id.ptr, m->id.len);
    w->last_id[m->id.len] = '\0';
    if (w->is_busy || w->tickets == TICKETS_MAX)
        return SL_EAGAIN;
    w->ticket[w->tickets++] = t;
    w->inbounds++;
    return SL_OK;
}

static void settle(struct chan *ch, struct chan_job *job)
{
    struct world *w = called(ch);
    assert_false(w->is_inside);          /* rule 2 */
    assert_int_equal(job->settled++, 0); /* rule 3 */
    w->settled++;
}

static void host_sent(struct chan *ch, struct chan_job *job, struct sl_str remote_id)
{
    (void)remote_id;
    settle(ch, job);
}

static void host_failed(struct chan *ch, struct chan_job *job, const struct sl_fail *why)
{
    assert_true(why->text[0] != '\0');
    settle(ch, job);
}

static void host_state(struct chan *ch, enum chan_state now)
{
    struct world *w = called(ch);
    assert_false(w->is_inside); /* rule 2 */
    w->ups += now == CHAN_UP;
}

static void host_closed(struct chan *ch)
{
    struct world *w = called(ch);
    assert_false(w->is_inside); /* rule 2 */
    w->closed++;
}

static const struct chan_host host = {.inbound = host_inbound,
                                      .sent = host_sent,
                                      .failed = host_failed,
                                      .unknown = host_failed,
                                      .state = host_state,
                                      .closed = host_closed};

/* ---- the world ---- */

static uint64_t thread_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Rule 1, in every call that these tests make: time goes by on the loop, never in a call. */
#define CALL(w, expression)                                                                                  \
    do {                                                                                                     \
        uint64_t before_ = thread_ns();                                                                      \
        (w)->is_inside = true;                                                                               \
        expression;                                                                                          \
        (w)->is_inside = false;                                                                              \
        assert_true(thread_ns() - before_ < 50000000u);                                                      \
    } while (0)

static void turns(struct world *w)
{
    for (int i = 0; i < 100; i++) {
        while (sl_loop_virtual_step(w->loop)) {
        }
        uint64_t due;
        if (!sl_loop_virtual_next(w->loop, &due))
            return;
        uint64_t now = sl_loop_mono_ms(w->loop);
        uint64_t ms = due > now ? due - now : 0;
        sl_loop_virtual_set(w->loop, now + ms, sl_loop_unix_ms(w->loop) + (int64_t)ms);
    }
}

static void world_open(struct world *w, const struct chan_ops *ops)
{
    struct sl_fail why = {.text = ""};
    *w = (struct world){.ops = ops};
    w->loop = sl_loop_new_virtual(1);
    w->cfg = sl_config_load_text(ops->keys, SL_STR("inboxes: {box: {secret: \"" SECRET "\"}}"), "test", &why);
    assert_non_null(w->cfg);
    CALL(w, w->ch = chan_new(ops, &host, w, w->loop, "box", "demo", w->cfg, &why));
    assert_non_null(w->ch);
    assert_int_equal(w->calls, 0);
    CALL(w, assert_int_equal(chan_start(w->ch), SL_OK));
    assert_int_equal(w->ups, 0);
    turns(w);
    assert_int_equal(w->ups, 1);
}

static void world_close(struct world *w)
{
    if (w->closed == 0) {
        CALL(w, chan_close(w->ch));
        turns(w);
    }
    assert_int_equal(w->closed, 1);
    turns(w); /* rule 5: called() asserts */
    chan_free(&w->ch);
    sl_config_free(&w->cfg);
    sl_loop_close(&w->loop);
}

static struct sl_str request_header(const struct chan_request *rq, const char *name)
{
    (void)rq;
    if (strcmp(name, "authorization") == 0)
        return SL_STR("Bearer " SECRET);
    return strcmp(name, "content-type") == 0 ? SL_STR("application/json") : SL_STR_NONE;
}

static void request_answer(struct chan_request *rq, int status, const char *content_type, struct sl_str body)
{
    struct request *r = (struct request *)rq;
    (void)content_type;
    (void)body;
    assert_int_equal(r->status, 0); /* once */
    r->status = status;
}

/* One message as this adapter's provider would send it. */
static void post(struct world *w, struct request *r, const char *id)
{
    char body[200];
    (void)snprintf(body, sizeof body, "{\"address\":\"a\",\"id\":\"%s\",\"kind\":\"text\",\"text\":\"hi\"}",
                   id);
    *r = (struct request){.world = w};
    r->rq = (struct chan_request){.method = SL_STR("POST"),
                                  .path = SL_STR("/x/box"),
                                  .body = sl_str_c(body),
                                  .header = request_header,
                                  .answer = request_answer};
    CALL(w, assert_int_equal(chan_request(w->ch, &r->rq), SL_OK));
}

static void each(void (*rule)(struct world *w, const struct chan_ops *ops))
{
    size_t count;
    const struct chan_ops *const *all = chan_all(&count);
    assert_true(count >= 2);
    for (size_t i = 0; i < count; i++) {
        struct world *w = sl_alloc(sizeof *w);
        world_open(w, all[i]);
        rule(w, all[i]);
        world_close(w);
        free(w);
    }
}

/* ---- the rules ---- */

/* 1 and 2 are asserted in every call; here with many of them. */
static void calls_are_short_and_quiet(struct world *w, const struct chan_ops *ops)
{
    struct msg m = {.id = SL_STR("m"), .text = SL_STR("hello"), .kind = MSG_TEXT};
    static struct chan_job jobs[100];
    memset(jobs, 0, sizeof jobs);
    if (!(ops->caps & CHAN_CAP_SEND))
        return;
    for (size_t i = 0; i < 100; i++)
        CALL(w, assert_int_equal(chan_send(w->ch, &m, &jobs[i]), SL_OK));
    turns(w);
    assert_int_equal(w->settled, 100);
}

static void rule_1_2_no_blocking_no_call_back(void **state)
{
    (void)state;
    each(calls_are_short_and_quiet);
}

static void jobs_settle_once(struct world *w, const struct chan_ops *ops)
{
    struct msg m = {.id = SL_STR("m"), .text = SL_STR("hello"), .kind = MSG_TEXT};
    struct chan_job *jobs = sl_alloc(JOBS_MAX * sizeof *jobs);
    size_t accepted = 0;
    for (size_t i = 0; i < JOBS_MAX && (ops->caps & CHAN_CAP_SEND); i++) {
        sl_err err;
        CALL(w, err = chan_send(w->ch, &m, &jobs[i]));
        assert_true(err == SL_OK || err == SL_EAGAIN); /* rule 8: it says when it has no room */
        accepted += err == SL_OK;
        if (err == SL_EAGAIN)
            turns(w);
    }
    turns(w);
    assert_int_equal(w->settled, accepted);
    free(jobs);
}

static void rule_3_one_settlement(void **state)
{
    (void)state;
    each(jobs_settle_once);
}

static void nothing_comes_in_after_drain(struct world *w, const struct chan_ops *ops)
{
    struct request r = {.world = w};
    CALL(w, chan_drain(w->ch, sl_loop_mono_ms(w->loop) + 1000));
    turns(w);
    r.rq = (struct chan_request){.body = SL_STR("{\"address\":\"a\",\"id\":\"late\",\"text\":\"hi\"}"),
                                 .header = request_header,
                                 .answer = request_answer};
    if (ops->caps & CHAN_CAP_REQUEST)
        assert_int_equal(chan_request(w->ch, &r.rq), SL_EAGAIN);
    turns(w);
    assert_int_equal(w->inbounds, 0);
}

static void rule_4_after_drain_no_inbound(void **state)
{
    (void)state;
    each(nothing_comes_in_after_drain);
}

/* world_close asserts that closed comes once, on a later turn, and that it is the last call, with work under way. */
static void closes_with_work_under_way(struct world *w, const struct chan_ops *ops)
{
    struct msg m = {.id = SL_STR("m"), .text = SL_STR("hello"), .kind = MSG_TEXT};
    static struct chan_job jobs[10];
    memset(jobs, 0, sizeof jobs);
    for (size_t i = 0; i < 10 && (ops->caps & CHAN_CAP_SEND); i++)
        CALL(w, assert_int_equal(chan_send(w->ch, &m, &jobs[i]), SL_OK));
    CALL(w, chan_close(w->ch));
    turns(w);
    assert_int_equal(w->settled, ops->caps & CHAN_CAP_SEND ? 10 : 0);
}

static void rule_5_after_closed_nothing(void **state)
{
    (void)state;
    each(closes_with_work_under_way);
}

static void unknown_keys_are_refused(struct world *w, const struct chan_ops *ops)
{
    struct sl_fail why = {.text = ""};
    (void)w;
    struct sl_config *cfg = sl_config_load_text(
        ops->keys, SL_STR("inboxes: {box: {secret: \"" SECRET "\", surprise: 1}}"), "test", &why);
    assert_null(cfg);
    assert_non_null(strstr(why.text, "surprise"));
    /* and what a table cannot check: a secret that is none */
    cfg = sl_config_load_text(ops->keys, SL_STR("inboxes: {box: {secret: short}}"), "test", &why);
    assert_non_null(cfg);
    assert_null(chan_new(ops, &host, w, w->loop, "box", "demo", cfg, &why));
    assert_null(strstr(why.text, "short\"")); /* never the secret itself */
    sl_config_free(&cfg);
}

static void rule_6_unknown_keys(void **state)
{
    (void)state;
    each(unknown_keys_are_refused);
}

static void retry_has_the_same_id(struct world *w, const struct chan_ops *ops)
{
    struct request first, again;
    char id[MSG_ID_MAX_BYTES + 1];
    if (!(ops->caps & CHAN_CAP_REQUEST)) {
        /* a session numbers its frames: the adapter leaves the id alone */
        struct msg m = {.id = SL_STR("cid")};
        assert_int_equal(chan_frame(w->ch, SL_STR("text"), SL_STR("hi"), SL_STR_NONE, &m, NULL), SL_OK);
        assert_true(sl_str_eq_c(m.id, "cid"));
        return;
    }
    post(w, &first, "same");
    memcpy(id, w->last_id, sizeof id);
    post(w, &again, "same");
    assert_string_equal(id, w->last_id);
    for (size_t i = 0; i < w->tickets; i++)
        CALL(w, chan_accepted(w->ch, w->ticket[i], SL_OK));
    assert_int_equal(first.status, 202);
    assert_int_equal(again.status, 202);
}

static void rule_7_retry_same_id(void **state)
{
    (void)state;
    each(retry_has_the_same_id);
}

static void memory_stays_bounded(struct world *w, const struct chan_ops *ops)
{
    if (!(ops->caps & CHAN_CAP_REQUEST))
        return;
    struct request *requests = sl_alloc(TICKETS_MAX * sizeof *requests);
    struct mallinfo2 before = mallinfo2();
    size_t refused = 0;
    for (size_t i = 0; i < TICKETS_MAX; i++) { /* the core never answers: a stalled store */
        post(w, &requests[i], "m");
        refused += requests[i].status != 0;
    }
    struct mallinfo2 after = mallinfo2();
    assert_true(refused > 0);
    assert_true(after.uordblks < before.uordblks + (1u << 20));
    for (size_t i = 0; i < w->tickets; i++)
        CALL(w, chan_accepted(w->ch, w->ticket[i], SL_EAGAIN));
    for (size_t i = 0; i < TICKETS_MAX; i++)
        assert_int_equal(requests[i].status, 503);
    free(requests);
}

static void rule_8_bounded_memory(void **state)
{
    (void)state;
    each(memory_stays_bounded);
}

static void acknowledges_only_what_is_durable(struct world *w, const struct chan_ops *ops)
{
    struct request durable, refused, busy;
    if (!(ops->caps & CHAN_CAP_REQUEST))
        return;
    post(w, &durable, "d");
    post(w, &refused, "r");
    turns(w);
    assert_int_equal(durable.status, 0);
    assert_int_equal(refused.status, 0);
    CALL(w, chan_accepted(w->ch, w->ticket[0], SL_OK));
    CALL(w, chan_accepted(w->ch, w->ticket[1], SL_EAGAIN));
    assert_int_equal(durable.status, 202);
    assert_int_equal(refused.status, 503);
    w->is_busy = true;
    post(w, &busy, "b");
    assert_int_equal(busy.status, 503);
}

static void rule_9_no_early_acknowledgement(void **state)
{
    (void)state;
    each(acknowledges_only_what_is_durable);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rule_1_2_no_blocking_no_call_back),
        cmocka_unit_test(rule_3_one_settlement),
        cmocka_unit_test(rule_4_after_drain_no_inbound),
        cmocka_unit_test(rule_5_after_closed_nothing),
        cmocka_unit_test(rule_6_unknown_keys),
        cmocka_unit_test(rule_7_retry_same_id),
        cmocka_unit_test(rule_8_bounded_memory),
        cmocka_unit_test(rule_9_no_early_acknowledgement),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
