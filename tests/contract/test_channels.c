/* tests/contract/test_channels.c - the nine rules of channels/channel.h over every registered adapter.
 *
 * A fake host and a virtual clock; what an adapter's provider looks like stands in its case (channel_case.h), a visitor is played
 * by hello and frame (CHAN_CAP_SOCKET).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include <malloc.h>
#include <stdio.h>
#include <time.h>

#include "proto/keys.h"
#include "tests/contract/channel_case.h"

#define TICKETS_MAX 2000
#define JOBS_MAX    2000

struct chan_job {
    unsigned settled;
};

struct request {
    struct chan_request rq; /* first */
    const struct channel_post *post;
    int status; /* 0: not answered */
};

static const struct channel_case *const cases[] = {&webhook_case, &sms_http_case,  &wechat_case,
                                                   &wecom_case,   &wechat_kf_case, &loopback_case,
                                                   &webchat_case, &smpp_case,      &email_case};

static const struct channel_case *case_of(const struct chan_ops *ops)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (strcmp(cases[i]->channel, ops->name) == 0)
            return cases[i];
    fail_msg("the adapter %s has no case in tests/contract", ops->name);
    return NULL;
}

struct world {
    const struct chan_ops *ops;
    const struct channel_case *its;
    struct sl_loop *loop;
    struct sl_config *cfg;
    struct chan *ch;
    bool is_inside; /* an ops call is running */
    bool is_busy;   /* the core answers inbound with SL_EAGAIN */
    unsigned calls, ups, inbounds, receipts, closed, settled;
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

static void host_settled(struct chan *ch, struct chan_job *job, const struct chan_result *r)
{
    assert_true(r->outcome == CHAN_SENT || r->words.len > 0);
    settle(ch, job);
}

/* A receipt is one more thing that must be durable before its provider hears yes. */
static sl_err host_receipt(struct chan *ch, const struct chan_receipt *r, struct chan_ticket *t)
{
    struct world *w = called(ch);
    assert_true(r->remote_id.len > 0 && t->id.len > 0);
    if (w->is_busy || w->tickets == TICKETS_MAX)
        return SL_EAGAIN;
    w->ticket[w->tickets++] = t;
    w->receipts++;
    return SL_OK;
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

static void host_alarm(struct chan *ch, const char *code, bool is_on, const char *words)
{
    (void)called(ch);
    assert_true(code[0] != '\0' && (!is_on || words[0] != '\0'));
}

static void host_media_link(struct chan *ch, struct sl_str id, struct sl_str name, struct sl_buf *out)
{
    (void)ch;
    (void)name;
    sl_buf_c(out, "https://media.example/");
    sl_buf_str(out, id);
}

static const struct chan_host host = {.inbound = host_inbound,
                                      .receipt = host_receipt,
                                      .settled = host_settled,
                                      .kv = fake_kv,
                                      .media_put = fake_media_put,
                                      .media_fetch = fake_media_fetch,
                                      .media_read = fake_media_read,
                                      .media_link = host_media_link,
                                      .alarm = host_alarm,
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

static struct sl_config *config_of(const struct chan_ops *ops, const char *members, struct sl_fail *why)
{
    char yaml[4096];
    int n = snprintf(yaml, sizeof yaml, "inboxes: {box: {%s}}", members);
    assert_true(n > 0 && (size_t)n < sizeof yaml);
    return sl_config_load_text(ops->keys, sl_str_c(yaml), "test", why);
}

static void world_open(struct world *w, const struct chan_ops *ops)
{
    struct sl_fail why = {.text = ""};
    *w = (struct world){.ops = ops, .its = case_of(ops)};
    w->loop = sl_loop_new_virtual(1);
    fake_services_open(w->loop);
    if (w->its->before_open != NULL)
        w->its->before_open(w->loop);
    w->cfg = config_of(ops, w->its->yaml, &why);
    if (w->cfg == NULL)
        fail_msg("%s: %s", ops->name, why.text);
    CALL(w, w->ch = chan_new(ops, &host, w, w->loop, "box", "demo", w->cfg, &why));
    if (w->ch == NULL)
        fail_msg("%s: %s", ops->name, why.text);
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
    if (w->its->after_close != NULL)
        w->its->after_close();
    fake_services_close();
    sl_config_free(&w->cfg);
    sl_loop_close(&w->loop);
}

static struct sl_str request_header(const struct chan_request *rq, const char *name)
{
    const struct request *r = (const struct request *)rq;
    for (size_t i = 0; i < CHANNEL_POST_HEADERS; i++)
        if (r->post->header[i][0] != NULL && strcmp(name, r->post->header[i][0]) == 0)
            return sl_str_c(r->post->header[i][1]);
    return SL_STR_NONE;
}

static void request_answer(struct chan_request *rq, int status, const char *content_type, struct sl_str body)
{
    struct request *r = (struct request *)rq;
    (void)content_type;
    (void)body;
    assert_int_equal(r->status, 0); /* once */
    r->status = status;
}

/* What the provider sends for one message; the adapter takes what it needs before request() returns. */
static void post(struct world *w, struct request *r, const char *id)
{
    static struct channel_post p;
    p = (struct channel_post){.method = "POST", .query = "", .rest = ""};
    w->its->build(&p, id, sl_loop_unix_ms(w->loop));
    *r = (struct request){.post = &p};
    r->rq =
        (struct chan_request){.method = sl_str_c(p.method),
                              .path = SL_STR("/x/box"),
                              .rest = sl_str_c(p.rest),
                              .query = sl_str_c(p.query),
                              .body = p.body_bytes > 0 ? sl_str_n(p.body, p.body_bytes) : sl_str_c(p.body),
                              .remote = SL_STR("127.0.0.1"),
                              .header = request_header,
                              .answer = request_answer};
    CALL(w, assert_int_equal(chan_request(w->ch, &r->rq), SL_OK));
}

static const struct chan_send *a_send(const struct channel_case *its)
{
    static struct msg m;
    static struct chan_send s;
    m = (struct msg){.id = SL_STR("m"),
                     .conversation = SL_STR("1.01ARZ3NDEKTSV4RRFFQ69G5FAV"),
                     .text = SL_STR("hello"),
                     .by = MSG_BY_BOT,
                     .kind = MSG_TEXT};
    s = (struct chan_send){.m = &m,
                           .address = sl_str_c(its->address != NULL ? its->address : "a"),
                           .key = SL_STR("m-1"),
                           .context = sl_str_c(its->context != NULL ? its->context : ""),
                           .part = 1,
                           .parts = 1,
                           .attempt = 1};
    return &s;
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
    static struct chan_job jobs[100];
    memset(jobs, 0, sizeof jobs);
    if (!(ops->caps & CHAN_CAP_SEND))
        return;
    size_t accepted = 0;
    for (size_t i = 0; i < 100; i++) {
        sl_err err;
        CALL(w, err = chan_send(w->ch, a_send(w->its), &jobs[i]));
        assert_true(err == SL_OK || err == SL_EAGAIN);
        accepted += err == SL_OK;
    }
    turns(w);
    assert_true(accepted > 0);
    assert_int_equal(w->settled, accepted);
}

static void rule_1_2_no_blocking_no_call_back(void **state)
{
    (void)state;
    each(calls_are_short_and_quiet);
}

static void jobs_settle_once(struct world *w, const struct chan_ops *ops)
{
    struct chan_job *jobs = sl_alloc(JOBS_MAX * sizeof *jobs);
    size_t accepted = 0;
    for (size_t i = 0; i < JOBS_MAX && (ops->caps & CHAN_CAP_SEND); i++) {
        sl_err err;
        CALL(w, err = chan_send(w->ch, a_send(w->its), &jobs[i]));
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
    CALL(w, chan_drain(w->ch, sl_loop_mono_ms(w->loop) + 1000));
    turns(w);
    if (ops->caps & CHAN_CAP_REQUEST) {
        static const struct channel_post none = {.method = "POST"};
        struct request r = {.post = &none};
        r.rq = (struct chan_request){.header = request_header, .answer = request_answer};
        assert_int_equal(chan_request(w->ch, &r.rq), SL_EAGAIN);
    }
    if (w->its->deliver != NULL)
        w->its->deliver(w->ch, "late");
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
    static struct chan_job jobs[10];
    size_t accepted = 0;
    memset(jobs, 0, sizeof jobs);
    for (size_t i = 0; i < 10 && (ops->caps & CHAN_CAP_SEND); i++) {
        sl_err err;
        CALL(w, err = chan_send(w->ch, a_send(w->its), &jobs[i]));
        accepted += err == SL_OK;
    }
    CALL(w, chan_close(w->ch));
    turns(w);
    assert_int_equal(w->settled, accepted);
    assert_true(accepted > 0 || !(ops->caps & CHAN_CAP_SEND));
}

static void rule_5_after_closed_nothing(void **state)
{
    (void)state;
    each(closes_with_work_under_way);
}

static void unknown_keys_are_refused(struct world *w, const struct chan_ops *ops)
{
    struct sl_fail why = {.text = ""};
    char members[4096];
    (void)snprintf(members, sizeof members, "%s, surprise: 1", w->its->yaml);
    struct sl_config *cfg = config_of(ops, members, &why);
    assert_null(cfg);
    assert_non_null(strstr(why.text, "surprise"));
    /* and what a table cannot check: a secret that is none */
    cfg = config_of(ops, w->its->bad_yaml, &why);
    assert_non_null(cfg);
    assert_null(chan_new(ops, &host, w, w->loop, "box", "demo", cfg, &why));
    assert_null(strstr(why.text, w->its->bad_secret)); /* never the secret itself */
    sl_config_free(&cfg);
}

static void rule_6_unknown_keys(void **state)
{
    (void)state;
    each(unknown_keys_are_refused);
}

static void session_leaves_the_id_alone(struct world *w)
{
    struct msg m = {.id = SL_STR("cid")};
    assert_int_equal(chan_frame(w->ch, SL_STR("text"), SL_STR("hi"), SL_STR_NONE, &m, NULL), SL_OK);
    assert_true(sl_str_eq_c(m.id, "cid"));
}

/* A provider that has a connection to us, or is polled. */
static void delivered_again_has_the_same_id(struct world *w)
{
    char id[MSG_ID_MAX_BYTES + 1];
    for (int i = 0; i < 2; i++) {
        w->its->deliver(w->ch, "same");
        turns(w);
        assert_int_equal(w->inbounds, i + 1);
        CALL(w, chan_accepted(w->ch, w->ticket[w->tickets - 1], SL_OK));
        turns(w);
        if (i == 0)
            memcpy(id, w->last_id, sizeof id);
    }
    assert_string_equal(id, w->last_id);
}

static void retry_has_the_same_id(struct world *w, const struct chan_ops *ops)
{
    struct request first, again;
    char id[MSG_ID_MAX_BYTES + 1];
    if (ops->caps & CHAN_CAP_SOCKET)
        session_leaves_the_id_alone(w);
    if (w->its->deliver != NULL)
        delivered_again_has_the_same_id(w);
    if (w->its->build == NULL)
        return;
    size_t from = w->tickets;
    post(w, &first, "same");
    turns(w);
    memcpy(id, w->last_id, sizeof id);
    post(w, &again, "same");
    turns(w);
    assert_string_equal(id, w->last_id);
    for (size_t i = from; i < w->tickets; i++)
        CALL(w, chan_accepted(w->ch, w->ticket[i], SL_OK));
    assert_int_equal(first.status, w->its->ok_status);
    assert_int_equal(again.status, w->its->ok_status);
}

static void rule_7_retry_same_id(void **state)
{
    (void)state;
    each(retry_has_the_same_id);
}

static void memory_stays_bounded(struct world *w, const struct chan_ops *ops)
{
    (void)ops;
    if (w->its->build == NULL)
        return;
    struct request *requests = sl_alloc(TICKETS_MAX * sizeof *requests);
    struct mallinfo2 before = mallinfo2();
    size_t refused = 0;
    for (size_t i = 0; i < TICKETS_MAX; i++) { /* the core never answers: a stalled store */
        char id[32];
        (void)snprintf(id, sizeof id, "m%zu", i);
        post(w, &requests[i], id);
        refused += requests[i].status != 0;
    }
    struct mallinfo2 after = mallinfo2();
    assert_true(refused > 0);
    assert_true(after.uordblks < before.uordblks + (2u << 20));
    for (size_t i = 0; i < w->tickets; i++)
        CALL(w, chan_accepted(w->ch, w->ticket[i], SL_EAGAIN));
    for (size_t i = 0; i < TICKETS_MAX; i++)
        assert_int_equal(requests[i].status, w->its->busy_status);
    free(requests);
}

static void rule_8_bounded_memory(void **state)
{
    (void)state;
    each(memory_stays_bounded);
}

static void connection_acknowledges_only_what_is_durable(struct world *w)
{
    w->its->deliver(w->ch, "d");
    turns(w);
    assert_int_equal(w->its->answered("d"), 0);
    CALL(w, chan_accepted(w->ch, w->ticket[w->tickets - 1], SL_OK));
    turns(w);
    assert_int_equal(w->its->answered("d"), w->its->ok_status);
    w->its->deliver(w->ch, "r");
    turns(w);
    CALL(w, chan_accepted(w->ch, w->ticket[w->tickets - 1], SL_EAGAIN));
    turns(w);
    assert_int_equal(w->its->answered("r"), w->its->busy_status);
    w->is_busy = true;
    w->its->deliver(w->ch, "b");
    turns(w);
    assert_int_equal(w->its->answered("b"), w->its->busy_status);
    w->is_busy = false;
}

static void acknowledges_only_what_is_durable(struct world *w, const struct chan_ops *ops)
{
    struct request durable, refused, busy;
    (void)ops;
    if (w->its->deliver != NULL && w->its->answered != NULL)
        connection_acknowledges_only_what_is_durable(w);
    if (w->its->build == NULL)
        return;
    size_t from = w->tickets;
    post(w, &durable, "d");
    post(w, &refused, "r");
    for (int i = 0; i < 10; i++)
        (void)sl_loop_virtual_step(w->loop); /* no time passes: nothing may be late yet */
    assert_int_equal(durable.status, 0);
    assert_int_equal(refused.status, 0);
    assert_int_equal(w->tickets, from + 2);
    CALL(w, chan_accepted(w->ch, w->ticket[from], SL_OK));
    CALL(w, chan_accepted(w->ch, w->ticket[from + 1], SL_EAGAIN));
    assert_int_equal(durable.status, w->its->ok_status);
    assert_int_equal(refused.status, w->its->busy_status);
    w->is_busy = true;
    post(w, &busy, "b");
    turns(w);
    assert_int_equal(busy.status, w->its->busy_status);
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
