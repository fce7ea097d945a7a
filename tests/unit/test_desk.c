/* tests/unit/test_desk.c - the desk alone, and the desk with conversations whose messages are late. */
#include "steps.h"

#include "base/fault.h"
#include "router/conversation.h"
#include "router/desk.h"
#include "router/rules.h"

#define CONV(n) "3.01HZZZZZZZ00000000000000" n /* n: two characters */
#define TAG     "desk:acme"

static void run(struct stage *s, struct event ev)
{
    stage_run(s, &ev);
}

static void need(struct stage *s, const char *conv, int64_t ticket)
{
    run(s, (struct event){
               .type = EVENT_NEED, .conv = sl_str_c(conv), .ticket = ticket, .queue = SL_STR("default")});
}

static void online(struct stage *s, const char *agent, const char *session, int64_t capacity)
{
    run(s, (struct event){.type = EVENT_AGENT_ONLINE,
                          .agent = sl_str_c(agent),
                          .session = sl_str_c(session),
                          .capacity = capacity});
}

/* For good, and at once: the grace has tests of its own. */
static void offline(struct stage *s, const char *agent, const char *session)
{
    run(s, (struct event){.type = EVENT_RULES, .hash = SL_STR("h"), .data = SL_STR("{\"offline_ms\":0}")});
    run(s,
        (struct event){.type = EVENT_AGENT_OFFLINE, .agent = sl_str_c(agent), .session = sl_str_c(session)});
}

static void freed(struct stage *s, enum event_type type, const char *conv, int64_t ticket, const char *agent)
{
    run(s, (struct event){.type = type, .conv = sl_str_c(conv), .ticket = ticket, .agent = sl_str_c(agent)});
}

static const struct desk_agent *agent(struct stage *s, const char *id)
{
    return stage_state(s, &desk_agent_kind, sl_str_c(id));
}

static size_t waiting(struct stage *s)
{
    const struct desk_queue *q = stage_state(s, &desk_queue_kind, SL_STR("default"));
    return q == NULL ? 0 : q->count;
}

/* The conversation of the i-th ASSIGN since stage_forget. */
static struct sl_str assigned(const struct stage *s, size_t i)
{
    for (size_t k = 0; k < s->fact_count; k++)
        if (s->facts[k].ev.type == EVENT_ASSIGN && i-- == 0)
            return s->facts[k].ev.conv;
    return SL_STR_NONE;
}

static void test_need_waits_for_an_agent(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    need(s, CONV("0A"), 1);
    assert_int_equal(stage_facts(s, EVENT_ASSIGN), 0);
    assert_int_equal(stage_fact(s, EVENT_PLACE)->number, 1);
    online(s, "a1", "s1", 1);
    const struct event *assign = stage_fact(s, EVENT_ASSIGN);
    assert_non_null(assign);
    assert_string_equal(s->facts[s->fact_count - 1].to, "in:{3}");
    assert_int_equal(assign->ticket, 1);
    assert_bytes(assign->agent, "a1");
    assert_bytes(assign->reply_to, "in:{" TAG "}");
    assert_false(
        stage_said(s, "offered")); /* not before the conversation has taken it: she might accept at once */
    freed(s, EVENT_OFFERED, CONV("0A"), 1, "a1");
    assert_true(stage_said(
        s, "a1 {\"n\":1,\"v\":0,\"at\":1700000000000,\"t\":\"offered\",\"c\":\"" CONV("0A") "\",\"tk\":1}"));
    assert_true(stage_pushed(s, "pa:{" TAG "}:a1", "e 7 1 - -\n"));
    assert_true(stage_pushed(s, "pq:{" TAG "}", "{\"waiting\":{\"default\":1},\"agents\":{\"ready\":0"));
    assert_true(
        stage_pushed(s, "pq:{" TAG "}", "{\"waiting\":{\"default\":0},\"agents\":{\"ready\":0,\"busy\":1"));
    stage_free(&s);
}

static void test_offer_that_is_over_is_not_told(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    online(s, "a1", "s1", 1);
    need(s, CONV("0A"), 2);
    freed(s, EVENT_OFFERED, CONV("0A"), 1, "a1"); /* of an older ticket */
    freed(s, EVENT_OFFERED, CONV("0B"), 2, "a1"); /* not hers */
    offline(s, "a1", "s1");
    freed(s, EVENT_OFFERED, CONV("0A"), 2, "a1"); /* she has gone, and its conversation was told */
    assert_false(stage_said(s, "offered"));
    freed(s, EVENT_RELEASED, CONV("0A"), 2, "a1");
    freed(s, EVENT_OFFERED, CONV("0A"), 2, "a1");
    assert_false(stage_said(s, "offered"));
    stage_free(&s);
}

static void test_capacity_is_never_exceeded(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    online(s, "a1", "s1", 2);
    need(s, CONV("0A"), 1);
    need(s, CONV("0B"), 1);
    need(s, CONV("0C"), 1);
    assert_int_equal(stage_facts(s, EVENT_ASSIGN), 2);
    freed(s, EVENT_RELEASED, CONV("0A"), 9, "a1"); /* another ticket frees nothing */
    assert_int_equal(stage_facts(s, EVENT_ASSIGN), 2);
    freed(s, EVENT_RELEASED, CONV("0A"), 1, "a1");
    assert_int_equal(stage_facts(s, EVENT_ASSIGN), 3);
    assert_bytes(assigned(s, 2), CONV("0C"));
    stage_free(&s);
}

static void test_order_priority_then_waiting(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    need(s, CONV("0A"), 1);
    s->now_ms += 10;
    need(s, CONV("0B"), 1);
    run(s, (struct event){.type = EVENT_NEED,
                          .conv = SL_STR(CONV("0C")),
                          .ticket = 1,
                          .queue = SL_STR("vip"),
                          .priority = 5});
    run(s, (struct event){.type = EVENT_NEED,
                          .conv = SL_STR(CONV("0D")),
                          .ticket = 1,
                          .queue = SL_STR("default"),
                          .wait_ms = 60000});
    online(s, "a1", "s1", 4);
    assert_bytes(assigned(s, 0), CONV("0C"));
    assert_bytes(assigned(s, 1), CONV("0D"));
    assert_bytes(assigned(s, 2), CONV("0A"));
    assert_bytes(assigned(s, 3), CONV("0B"));
    stage_free(&s);
}

static void test_skills_and_queues_are_respected(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    run(s, (struct event){.type = EVENT_NEED,
                          .conv = SL_STR(CONV("0A")),
                          .ticket = 1,
                          .queue = SL_STR("default"),
                          .skills = SL_STR("english,refunds")});
    need(s, CONV("0B"), 1);
    run(s, (struct event){.type = EVENT_AGENT_ONLINE,
                          .agent = SL_STR("a0"),
                          .session = SL_STR("s0"),
                          .capacity = 5,
                          .skills = SL_STR("english,refunds"),
                          .text = SL_STR("billing")});
    assert_int_equal(stage_facts(s, EVENT_ASSIGN), 0);
    run(s, (struct event){.type = EVENT_AGENT_ONLINE,
                          .agent = SL_STR("a1"),
                          .session = SL_STR("s1"),
                          .capacity = 5,
                          .skills = SL_STR("english"),
                          .text = SL_STR("default,billing")});
    assert_int_equal(stage_facts(s, EVENT_ASSIGN), 1); /* who needs no skill does not wait behind who does */
    assert_bytes(assigned(s, 0), CONV("0B"));
    run(s, (struct event){.type = EVENT_AGENT_ONLINE,
                          .agent = SL_STR("a2"),
                          .session = SL_STR("s2"),
                          .capacity = 5,
                          .skills = SL_STR("english,refunds"),
                          .text = SL_STR("default")});
    assert_bytes(assigned(s, 1), CONV("0A"));
    stage_free(&s);
}

static void test_choice_last_agent_then_load_then_idle(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    online(s, "a1", "s1", 4);
    s->now_ms += 10;
    online(s, "a2", "s2", 2);
    need(s, CONV("0A"), 1); /* both empty: a1 is idle for longer */
    assert_bytes(stage_fact(s, EVENT_ASSIGN)->agent, "a1");
    need(s, CONV("0B"), 1);
    assert_bytes(stage_fact(s, EVENT_ASSIGN)->agent, "a2");
    need(s, CONV("0C"), 1); /* 1/4 against 1/2 */
    assert_bytes(stage_fact(s, EVENT_ASSIGN)->agent, "a1");
    run(s, (struct event){.type = EVENT_NEED,
                          .conv = SL_STR(CONV("0D")),
                          .ticket = 1,
                          .queue = SL_STR("default"),
                          .agent = SL_STR("a2")});
    assert_bytes(stage_fact(s, EVENT_ASSIGN)->agent, "a2");
    freed(s, EVENT_RELEASED, CONV("0D"), 1, "a2");
    freed(s, EVENT_RELEASED, CONV("0B"), 1, "a2");
    run(s, (struct event){.type = EVENT_NEED,
                          .conv = SL_STR(CONV("0E")),
                          .ticket = 1,
                          .queue = SL_STR("default"),
                          .name = SL_STR("a2")}); /* let it lie just now */
    assert_bytes(stage_fact(s, EVENT_ASSIGN)->agent, "a1");
    stage_free(&s);
}

static void test_need_repeats_are_harmless(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    need(s, CONV("0A"), 1);
    need(s, CONV("0A"), 1);
    assert_int_equal(waiting(s), 1);
    online(s, "a1", "s1", 5);
    stage_forget(s);
    need(s, CONV("0A"), 1); /* held: the assignment is sent again, the slot is not doubled */
    assert_int_equal(stage_facts(s, EVENT_ASSIGN), 1);
    assert_int_equal(agent(s, "a1")->count, 1);
    assert_int_equal(waiting(s), 0);
    stage_free(&s);
}

/* The new need comes before the slot is released and takes over the place in line. */
static void test_requeue_keeps_its_first_place(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    online(s, "a1", "s1", 1);
    need(s, CONV("0A"), 1);
    s->now_ms += 1000;
    need(s, CONV("0B"), 1);
    s->now_ms += 5000;
    stage_forget(s);
    run(s, (struct event){.type = EVENT_NEED,
                          .conv = SL_STR(CONV("0A")),
                          .ticket = 2,
                          .queue = SL_STR("default"),
                          .wait_ms = 1});
    assert_int_equal(waiting(s), 2);
    assert_int_equal(stage_facts(s, EVENT_ASSIGN), 0); /* the old slot still counts */
    freed(s, EVENT_RELEASED, CONV("0A"), 1, "a1");
    assert_bytes(assigned(s, 0), CONV("0A"));
    assert_int_equal(stage_fact(s, EVENT_ASSIGN)->ticket, 2);
    stage_free(&s);
}

static void test_higher_ticket_replaces_and_cancel_names_one(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    need(s, CONV("0A"), 1);
    need(s, CONV("0A"), 3);
    need(s, CONV("0A"), 2);
    assert_int_equal(waiting(s), 1);
    freed(s, EVENT_CANCEL, CONV("0A"), 2, "");
    assert_int_equal(waiting(s), 1);
    freed(s, EVENT_CANCEL, CONV("0A"), 3, "");
    assert_int_equal(waiting(s), 0);
    stage_free(&s);
}

static void test_late_offline_of_another_session_changes_nothing(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    online(s, "a1", "old", 2);
    online(s, "a1", "new", 2);
    need(s, CONV("0A"), 1);
    offline(s, "a1", "old");
    assert_int_equal(stage_facts(s, EVENT_GONE), 0);
    assert_true(agent(s, "a1")->is_online);
    stage_free(&s);
}

static void test_offline_says_gone_and_keeps_the_slot(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    online(s, "a1", "s1", 1);
    need(s, CONV("0A"), 1);
    offline(s, "a1", "s1");
    assert_int_equal(stage_facts(s, EVENT_GONE), 1);
    assert_int_equal(stage_fact(s, EVENT_GONE)->ticket, 1);
    assert_int_equal(agent(s, "a1")->count, 1);
    need(s, CONV("0B"), 1);
    online(s, "a1", "s2", 1); /* back before the conversation has let go */
    assert_int_equal(stage_facts(s, EVENT_ASSIGN), 1);
    freed(s, EVENT_RELEASED, CONV("0A"), 1, "a1");
    assert_int_equal(stage_facts(s, EVENT_ASSIGN), 2);
    assert_true(stage_said(s, "\"t\":\"gone\""));
    assert_true(stage_said(s, "\"t\":\"released\""));
    stage_free(&s);
}

static void test_away_gets_nothing_new(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    online(s, "a1", "s1", 2);
    struct event away = {
        .type = EVENT_AGENT_STATE, .agent = SL_STR("a1"), .session = SL_STR("s1"), .reason = SL_STR("away")};
    run(s, away);
    need(s, CONV("0A"), 1);
    assert_int_equal(stage_facts(s, EVENT_ASSIGN), 0);
    away.reason = SL_STR("ready");
    away.session = SL_STR("other");
    run(s, away);
    assert_int_equal(stage_facts(s, EVENT_ASSIGN), 0);
    away.session = SL_STR("s1");
    run(s, away);
    assert_int_equal(stage_facts(s, EVENT_ASSIGN), 1);
    stage_free(&s);
}

static void test_silent_session_ends_and_may_come_back(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    online(s, "a1", "s1", 2);
    need(s, CONV("0A"), 1);
    int64_t begin = s->now_ms;
    while (stage_facts(s, EVENT_GONE) == 0)
        assert_true(stage_fire(s));
    assert_true(s->now_ms - begin > 30000 && s->now_ms - begin <= 45000);
    assert_false(agent(s, "a1")->is_online);
    need(s, CONV("0B"), 1);
    run(s, (struct event){.type = EVENT_AGENT_ALIVE, .agent = SL_STR("a1"), .session = SL_STR("s1")});
    assert_int_equal(stage_facts(s, EVENT_ASSIGN), 2);
    stage_free(&s);
}

/* Her "online" was lost, or she was taken for gone: the next sign of life brings her back, with what she can do. */
static void test_sign_of_life_of_who_is_not_online_brings_her_in(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    struct event alive = {.type = EVENT_AGENT_ALIVE,
                          .agent = SL_STR("a1"),
                          .session = SL_STR("s1"),
                          .capacity = 1,
                          .text = SL_STR("default")};
    need(s, CONV("0A"), 1);
    run(s, alive);
    assert_int_equal(stage_facts(s, EVENT_ASSIGN), 1);
    assert_int_equal(agent(s, "a1")->capacity, 1);
    offline(s, "a1", "s1");
    freed(s, EVENT_RELEASED, CONV("0A"), 1, "a1");
    alive.session = SL_STR("s2");
    run(s, alive);
    assert_true(agent(s, "a1")->is_online);
    alive.session = SL_STR("s1"); /* while she is there, another session's sign of life changes nothing */
    run(s, alive);
    offline(s, "a1", "s1");
    assert_true(agent(s, "a1")->is_online);
    stage_free(&s);
}

static void hang_up(struct stage *s, const char *agent, const char *session)
{
    run(s,
        (struct event){.type = EVENT_AGENT_OFFLINE, .agent = sl_str_c(agent), .session = sl_str_c(session)});
}

/* A page that is loaded again is back within seconds: her conversations stay, and she is offered none meanwhile. */
static void test_socket_that_comes_back_keeps_the_conversations(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    online(s, "a1", "s1.1", 2);
    need(s, CONV("0A"), 1);
    hang_up(s, "a1", "s1.1");
    need(s, CONV("0B"), 1);
    assert_int_equal(stage_facts(s, EVENT_GONE), 0);
    assert_int_equal(stage_facts(s, EVENT_ASSIGN), 1);
    assert_int_equal(waiting(s), 1);
    online(s, "a1", "s1.2", 2);
    assert_int_equal(stage_facts(s, EVENT_ASSIGN), 2);
    int64_t begin = s->now_ms;
    while (s->now_ms - begin < 20000 && stage_fire(s)) {
    }
    assert_int_equal(stage_facts(s, EVENT_GONE), 0);
    stage_free(&s);
}

static void test_socket_that_stays_away_ends_after_the_grace(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    online(s, "a1", "s1", 2);
    online(s, "a2", "s2", 2);
    need(s, CONV("0A"), 1);
    need(s, CONV("0B"), 1);
    hang_up(s, "a1", "s1");
    int64_t begin = s->now_ms;
    s->now_ms += 5000;
    hang_up(s, "a2", "s2");
    while (stage_facts(s, EVENT_GONE) == 0)
        assert_true(stage_fire(s));
    assert_int_equal(s->now_ms - begin, 15000); /* each by its own clock */
    assert_false(agent(s, "a1")->is_online);
    assert_true(agent(s, "a2")->is_online);
    while (stage_facts(s, EVENT_GONE) == 1)
        assert_true(stage_fire(s));
    assert_int_equal(s->now_ms - begin, 20000);
    stage_free(&s);
}

/* Two windows: the one that the desk knows is closed, the other's next sign of life brings her in. */
static void test_other_window_brings_a_leaving_agent_back(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    online(s, "a1", "s1", 2);
    online(s, "a1", "s2", 2);
    need(s, CONV("0A"), 1);
    hang_up(s, "a1", "s2");
    run(s, (struct event){
               .type = EVENT_AGENT_ALIVE, .agent = SL_STR("a1"), .session = SL_STR("s1"), .capacity = 2});
    int64_t begin = s->now_ms;
    while (s->now_ms - begin < 20000 && stage_fire(s)) {
    }
    assert_int_equal(stage_facts(s, EVENT_GONE), 0);
    stage_free(&s);
}

/* A session's command counts on each of its sockets: it may have been on its way when she came back on the next. */
static void test_state_of_an_earlier_socket_of_the_session_counts(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    online(s, "a1", "s1.1", 2);
    online(s, "a1", "s1.2", 2);
    run(s, (struct event){.type = EVENT_AGENT_STATE,
                          .agent = SL_STR("a1"),
                          .session = SL_STR("s1.1"),
                          .reason = SL_STR("away")});
    assert_true(agent(s, "a1")->is_away);
    offline(s, "a1", "s1.1");
    assert_true(agent(s, "a1")->is_online);
    stage_free(&s);
}

/* Loaded again, or a network that changed: she is as she was. A new login is ready, and so is she after the grace. */
static void test_session_comes_back_as_it_was_left(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    struct event away = {.type = EVENT_AGENT_STATE,
                         .agent = SL_STR("a1"),
                         .session = SL_STR("s1.1"),
                         .reason = SL_STR("away")};
    online(s, "a1", "s1.1", 2);
    run(s, away);
    need(s, CONV("0A"), 1);
    online(s, "a1", "s1.2", 2); /* before the end of the old socket is known */
    hang_up(s, "a1", "s1.2");
    online(s, "a1", "s1.3", 2); /* and after it */
    assert_true(agent(s, "a1")->is_away);
    assert_int_equal(stage_facts(s, EVENT_ASSIGN), 0);
    online(s, "a1", "s2.1", 2);
    assert_false(agent(s, "a1")->is_away);
    assert_int_equal(stage_facts(s, EVENT_ASSIGN), 1);
    away.session = SL_STR("s2.1");
    run(s, away);
    offline(s, "a1", "s2.1");
    online(s, "a1", "s2.2", 2);
    assert_false(agent(s, "a1")->is_away);
    stage_free(&s);
}

static void test_timers_end_when_nobody_is_there(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    online(s, "a1", "s1", 2);
    offline(s, "a1", "s1");
    const struct desk *d = stage_state(s, &desk_kind, SL_STR(DESK_ID));
    assert_int_equal(d->agents.count, 0);
    for (int i = 0; i < 10 && stage_fire(s); i++)
        ;
    assert_int_equal(s->timer_count, 0);
    stage_free(&s);
}

static void numbered(char out[64], unsigned i)
{
    snprintf(out, 64, "3.01HZZZZZZZ000000000000%04u", i % 10000);
}

/* Far more than one event may cause goes on by timers, in portions, and ends. */
static void test_much_work_goes_on_by_timer(void **state)
{
    (void)state;
    enum { MANY = 180 };
    struct stage *s = stage_new(&desk_ops, TAG);
    char id[64];
    for (unsigned i = 0; i < MANY; i++) {
        numbered(id, i);
        need(s, id, 1);
    }
    stage_forget(s);
    for (int i = 0; i < 3; i++) { /* each event is within the bound: stage_run asserts FX_DONE */
        char name[16];
        snprintf(name, sizeof name, "a%d", i);
        online(s, name, "s1", 60);
    }
    for (int i = 0; i < 60 && stage_facts(s, EVENT_ASSIGN) < MANY; i++)
        assert_true(stage_fire(s));
    assert_int_equal(stage_facts(s, EVENT_ASSIGN), MANY);
    for (unsigned i = 0; i < MANY; i++) {
        numbered(id, i);
        assert_bytes(assigned(s, i), id);
    }
    stage_forget(s);
    offline(s, "a0", "s1");
    for (int i = 0; i < 60 && stage_facts(s, EVENT_GONE) < 60; i++)
        assert_true(stage_fire(s));
    assert_int_equal(stage_facts(s, EVENT_GONE), 60);
    stage_free(&s);
}

static void test_places_are_told_to_the_first_hundred(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    char id[64];
    for (unsigned i = 0; i < 130; i++) {
        numbered(id, i);
        need(s, id, 1);
    }
    assert_int_equal(stage_facts(s, EVENT_PLACE), 100); /* each at once, as it came */
    stage_forget(s);
    numbered(id, 0);
    freed(s, EVENT_CANCEL, id, 1, "");
    assert_int_equal(stage_facts(s, EVENT_PLACE), 0);
    int64_t begin = s->now_ms;
    while (stage_facts(s, EVENT_PLACE) < 100)
        assert_true(stage_fire(s));
    assert_true(s->now_ms - begin <= 10000);
    numbered(id, 1);
    for (size_t i = 0; i < s->fact_count; i++)
        if (sl_str_eq_c(s->facts[i].ev.conv, id))
            assert_int_equal(s->facts[i].ev.number, 1);
    stage_forget(s);
    for (int i = 0; i < 3; i++)
        assert_true(stage_fire(s));
    assert_int_equal(stage_facts(s, EVENT_PLACE), 0); /* nobody moved */
    stage_free(&s);
}

static void test_full_queue_refuses_and_says_so(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    run(s, (struct event){.type = EVENT_RULES, .hash = SL_STR("h"), .data = SL_STR("{\"queue_max\":2}")});
    need(s, CONV("0A"), 1);
    need(s, CONV("0B"), 1);
    stage_forget(s);
    need(s, CONV("0C"), 1);
    assert_int_equal(waiting(s), 2);
    assert_bytes(stage_fact(s, EVENT_PLACE)->reason, "full");
    assert_bytes(stage_fact(s, EVENT_PLACE)->conv, CONV("0C"));
    assert_int_equal(stage_facts(s, EVENT_REFUSAL), 1);
    freed(s, EVENT_CANCEL, CONV("0A"), 1, "");
    need(s, CONV("0C"), 1); /* the repeat finds room */
    assert_int_equal(waiting(s), 2);
    stage_free(&s);
}

static void test_hostile_events_change_nothing(void **state)
{
    (void)state;
    char longer[2000];
    memset(longer, 'a', sizeof longer);
    struct sl_str big = sl_str_n(longer, sizeof longer);
    const struct event bad[] = {
        {.type = EVENT_NEED, .ticket = 1, .queue = SL_STR("default")},
        {.type = EVENT_NEED, .conv = SL_STR("x"), .ticket = 1, .queue = SL_STR("default")},
        {.type = EVENT_NEED, .conv = SL_STR(CONV("0A")), .queue = SL_STR("default")},
        {.type = EVENT_NEED, .conv = SL_STR(CONV("0A")), .ticket = 1, .queue = big},
        {.type = EVENT_NEED, .conv = big, .ticket = 1, .queue = SL_STR("default")},
        {.type = EVENT_AGENT_ONLINE, .agent = big, .session = SL_STR("s")},
        {.type = EVENT_AGENT_ONLINE, .agent = SL_STR("a b"), .session = SL_STR("s")},
        {.type = EVENT_AGENT_ONLINE, .agent = SL_STR("a"), .session = big},
        {.type = EVENT_AGENT_ONLINE, .agent = SL_STR("a"), .session = SL_STR("s"), .skills = SL_STR("a b")},
        {.type = EVENT_AGENT_ONLINE, .agent = SL_STR("a"), .session = SL_STR("s"), .text = big},
        {.type = EVENT_MESSAGE, .addr = SL_STR("acme/web/u1")},
        {.type = EVENT_RULES, .data = SL_STR("{\"queue_max\":0}")},
    };
    struct stage *s = stage_new(&desk_ops, TAG);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        stage_forget(s);
        stage_run(s, &bad[i]);
        assert_int_equal(stage_facts(s, EVENT_REFUSAL), 1);
        assert_int_equal(s->fact_count, 1);
    }
    assert_int_equal(s->timer_count, 0);
    const enum event_type quiet[] = {EVENT_CANCEL,      EVENT_REFUSED,     EVENT_RELEASED,      EVENT_OFFERED,
                                     EVENT_AGENT_ALIVE, EVENT_AGENT_STATE, EVENT_AGENT_OFFLINE, EVENT_TIMER};
    stage_forget(s);
    for (size_t i = 0; i < sizeof quiet / sizeof quiet[0]; i++)
        run(s, (struct event){
                   .type = quiet[i], .conv = big, .agent = big, .session = big, .name = SL_STR("more")});
    assert_int_equal(s->fact_count, 0);
    stage_free(&s);
}

static void test_full_queue_is_stored_and_read_back(void **state)
{
    (void)state;
    struct desk_queue *q = sl_alloc(sizeof *q);
    for (int i = 0; i < 2000; i++) {
        struct desk_wait w = {.conv = sl_strdup(CONV("0A")),
                              .ticket = 1 + i,
                              .since_ms = 1700000000000 + i,
                              .seq = i,
                              .skills = sl_strdup("english,refunds"),
                              .prefer = sl_strdup(""),
                              .avoid = sl_strdup("agent-1")};
        (void)desk_queue_insert(q, &w);
    }
    struct sl_buf json;
    sl_buf_init(&json, 0);
    q->s.kind = &desk_queue_kind;
    desk_queue_kind.encode(&q->s, &json);
    stage_check_round_trip(&q->s, sl_buf_view(&json));
    sl_buf_fini(&json);
    desk_queue_kind.fini(&q->s);
    free(q);
    q = sl_alloc(sizeof *q);
    assert_int_equal(desk_queue_kind.decode(&q->s, SL_STR("{\"version\":1,\"waiting\":[\"3.x one\"]}")),
                     SL_EINVAL);
    assert_int_equal(desk_queue_kind.decode(&q->s, SL_STR("{\"version\":9,\"waiting\":[]}")), SL_EINVAL);
    desk_queue_kind.fini(&q->s);
    free(q);
}

static void test_bury_frees_a_released_slot_and_keeps_the_timers(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    online(s, "a1", "s1", 1);
    need(s, CONV("0A"), 1);
    struct event ev = {
        .type = EVENT_RELEASED, .conv = SL_STR(CONV("0A")), .ticket = 1, .agent = SL_STR("a1")};
    stage_go(s, &ev, true);
    assert_int_equal(agent(s, "a1")->count, 0);
    const struct desk *d = stage_state(s, &desk_kind, SL_STR(DESK_ID));
    ev = (struct event){
        .type = EVENT_TIMER, .conv = SL_STR(DESK_ID), .name = SL_STR("presence"), .gen = d->presence_gen};
    stage_go(s, &ev, true);
    assert_true(stage_fire(s));
    assert_true(s->timer_count > 0);
    stage_free(&s);
}

/* ---- desk and conversations together, with messages that are late ---- */

#define VISITORS 8
#define AGENTS   3
#define CAPACITY 2
struct office {
    struct stage *desk, *convs;
    struct event to_desk[4096], to_convs[4096]; /* strings live in arena */
    size_t desk_in, desk_out, convs_in, convs_out;
    struct sl_map *arrived; /* conversation -> when its need first came, as a number */
    struct sl_map *given;   /* conversation -> ticket of the last assignment: a repeat is no new one */
    uintptr_t arrivals;
    char *arena[65536];
    size_t arena_count;
    bool is_on[AGENTS];
    unsigned session[AGENTS];
};

static uint64_t random_state;
static unsigned pick(unsigned below)
{
    random_state = random_state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(random_state >> 33) % below;
}

static struct event keep(struct office *o, const struct event *ev)
{
    struct event copy = *ev;
#define KEEP_S(member)                                                                                       \
    if (copy.member.len > 0) {                                                                               \
        assert_true(o->arena_count < sizeof o->arena / sizeof o->arena[0]);                                  \
        o->arena[o->arena_count] = sl_str_dup(copy.member);                                                  \
        copy.member = sl_str_c(o->arena[o->arena_count++]);                                                  \
    }
#define KEEP_I(member)
#define X(member, name, form) KEEP_##form(member)
    EVENT_FIELDS(X)
#undef X
    return copy;
}

/* What the two stages said to each other goes into the logs, in order. */
static void collect(struct office *o)
{
    for (size_t i = 0; i < o->convs->fact_count; i++)
        if (strncmp(o->convs->facts[i].to, "in:{desk:", 9) == 0)
            o->to_desk[o->desk_in++ % 4096] = keep(o, &o->convs->facts[i].ev);
    for (size_t i = 0; i < o->desk->fact_count; i++)
        if (strcmp(o->desk->facts[i].to, "in:{3}") == 0)
            o->to_convs[o->convs_in++ % 4096] = keep(o, &o->desk->facts[i].ev);
    stage_forget(o->convs);
    stage_forget(o->desk);
}

static uintptr_t arrival_of(const struct office *o, struct sl_str conv)
{
    return (uintptr_t)sl_map_get(o->arrived, conv);
}

/* I8: whom the desk has just assigned, nobody still waiting in the same queue came before. */
static void check_line(struct office *o)
{
    for (size_t i = 0; i < o->desk->fact_count; i++) {
        const struct event *ev = &o->desk->facts[i].ev;
        if (ev->type != EVENT_ASSIGN ||
            sl_map_set(o->given, ev->conv, (void *)(uintptr_t)ev->ticket) == (void *)(uintptr_t)ev->ticket)
            continue;
        const struct desk_queue *q = stage_state(o->desk, &desk_queue_kind, SL_STR("default"));
        for (size_t k = 0; q != NULL && k < q->count; k++)
            assert_true(arrival_of(o, ev->conv) < arrival_of(o, sl_str_c(q->at[k].conv)));
    }
}

/* An agent who accepts the moment she hears "offered" is never too early. */
static void check_offer(struct office *o, const struct event *ev)
{
    char told[200];
    snprintf(told, sizeof told, "\"t\":\"offered\",\"c\":\"%.*s\",\"tk\":%lld}", (int)ev->conv.len,
             ev->conv.ptr, (long long)ev->ticket);
    if (!stage_said(o->desk, told))
        return;
    const struct conversation *c = stage_state(o->convs, &conversation_kind, ev->conv);
    assert_true(c == NULL || c->ticket > ev->ticket || c->control != CONVERSATION_QUEUED);
}

static void desk_takes_one(struct office *o)
{
    const struct event *ev = &o->to_desk[o->desk_out++ % 4096];
    if (ev->type == EVENT_NEED && (ev->wait_ms == 0 || arrival_of(o, ev->conv) == 0))
        (void)sl_map_set(o->arrived, ev->conv, (void *)++o->arrivals);
    stage_run(o->desk, ev);
    check_line(o);
    check_offer(o, ev);
    collect(o);
}

static void convs_take_one(struct office *o)
{
    stage_run(o->convs, &o->to_convs[o->convs_out++ % 4096]);
    collect(o);
}

/* I8: never above capacity; and the desk never counts fewer than conversations hold. */
static void check_load(struct office *o)
{
    size_t truth[AGENTS] = {0};
    for (size_t i = 0; i < o->convs->state_count; i++) {
        const struct stage_state *st = &o->convs->states[i];
        if (st->kind != &conversation_kind || !st->is_there)
            continue;
        const struct conversation *c = stage_state(o->convs, &conversation_kind, sl_str_c(st->id));
        if (c->control == CONVERSATION_OFFERED || c->control == CONVERSATION_ASSIGNED)
            truth[c->agent[1] - '0']++;
    }
    for (unsigned i = 0; i < AGENTS; i++) {
        char id[8];
        snprintf(id, sizeof id, "a%u", i);
        const struct desk_agent *a = agent(o->desk, id);
        size_t held = a == NULL ? 0 : a->count;
        assert_true(held <= CAPACITY);
        assert_true(truth[i] <= held);
    }
}

static void set_online(struct office *o, unsigned i, bool is_on)
{
    char id[8], session[32];
    snprintf(id, sizeof id, "a%u", i);
    snprintf(session, sizeof session, "s%u", is_on ? ++o->session[i] : o->session[i] - pick(2));
    if (is_on)
        online(o->desk, id, session, CAPACITY);
    else
        offline(o->desk, id, session);
    check_line(o);
    collect(o);
    o->is_on[i] = agent(o->desk, id) != NULL && agent(o->desk, id)->is_online;
}

static void visitor_says(struct office *o, unsigned i, enum event_type type)
{
    char addr[32];
    snprintf(addr, sizeof addr, "acme/web/u%u", i);
    run(o->convs,
        (struct event){.type = type, .addr = sl_str_c(addr), .id = SL_STR("m"), .text = SL_STR("人工")});
    collect(o);
}

static void agent_does(struct office *o, enum event_type type)
{
    size_t i = pick((unsigned)o->convs->state_count + 1);
    if (i == o->convs->state_count || o->convs->states[i].kind != &conversation_kind ||
        !o->convs->states[i].is_there)
        return;
    const struct conversation *c =
        stage_state(o->convs, &conversation_kind, sl_str_c(o->convs->states[i].id));
    char *who = sl_strdup(c->agent);
    run(o->convs, (struct event){.type = type,
                                 .conv = sl_str_c(o->convs->states[i].id),
                                 .agent = sl_str_c(who),
                                 .control = pick(4) == 0 ? 1 : c->epoch,
                                 .text = SL_STR("here"),
                                 .session = SL_STR("s")});
    free(who);
    collect(o);
}

static void fire(struct office *o, struct stage *s)
{
    (void)stage_fire(s);
    check_line(o);
    collect(o);
    int64_t now = o->desk->now_ms > o->convs->now_ms ? o->desk->now_ms : o->convs->now_ms;
    o->desk->now_ms = o->convs->now_ms = now;
}

static void random_act(struct office *o)
{
    static const enum event_type acts[] = {EVENT_AGENT_ACCEPT, EVENT_AGENT_MESSAGE, EVENT_AGENT_CLOSE,
                                           EVENT_AGENT_CLOSE, EVENT_AGENT_TRANSFER};
    switch (pick(9)) {
    case 0:
        visitor_says(o, pick(VISITORS), EVENT_MESSAGE);
        break;
    case 1:
        if (pick(3) == 0)
            visitor_says(o, pick(VISITORS), EVENT_HANGUP);
        break;
    case 2:
        if (pick(3) == 0)
            set_online(o, pick(AGENTS), pick(2) == 0);
        break;
    case 3:
        fire(o, pick(2) == 0 ? o->desk : o->convs);
        break;
    case 4:
    case 5:
        agent_does(o, acts[pick(5)]);
        break;
    default:
        if (o->desk_out < o->desk_in && pick(2) == 0)
            desk_takes_one(o);
        else if (o->convs_out < o->convs_in)
            convs_take_one(o);
    }
    o->desk->now_ms += pick(40);
    o->convs->now_ms = o->desk->now_ms;
}

static void drain(struct office *o)
{
    while (o->desk_out < o->desk_in || o->convs_out < o->convs_in) {
        if (o->desk_out < o->desk_in)
            desk_takes_one(o);
        if (o->convs_out < o->convs_in)
            convs_take_one(o);
    }
}

/* With nothing on its way, both sides tell the same story: who waits there is queued here, who is held there is held here. */
static void check_same_story(struct office *o)
{
    size_t held = 0, queued = 0;
    for (size_t i = 0; i < o->convs->state_count; i++) {
        const struct stage_state *st = &o->convs->states[i];
        if (st->kind != &conversation_kind || !st->is_there)
            continue;
        const struct conversation *c = stage_state(o->convs, &conversation_kind, sl_str_c(st->id));
        held += c->control == CONVERSATION_OFFERED || c->control == CONVERSATION_ASSIGNED;
        queued += c->control == CONVERSATION_QUEUED;
    }
    size_t desk_held = 0;
    for (unsigned i = 0; i < AGENTS; i++) {
        char id[8];
        snprintf(id, sizeof id, "a%u", i);
        const struct desk_agent *a = agent(o->desk, id);
        desk_held += a == NULL ? 0 : a->count;
    }
    assert_int_equal(held, desk_held);
    assert_int_equal(queued, waiting(o->desk));
}

static void run_office(uint64_t seed)
{
    random_state = seed;
    struct office *o = sl_alloc(sizeof *o);
    o->desk = stage_new(&desk_ops, TAG);
    o->convs = stage_new(&conversation_ops, "3");
    o->arrived = sl_map_new();
    o->given = sl_map_new();
    for (int i = 0; i < 400; i++) {
        random_act(o);
        check_load(o);
    }
    drain(o);
    check_same_story(o);
    for (unsigned i = 0; i < AGENTS; i++)
        set_online(o, i, true);
    drain(o);
    check_load(o);
    check_same_story(o);
    while (o->arena_count > 0)
        free(o->arena[--o->arena_count]);
    sl_map_free(&o->arrived);
    sl_map_free(&o->given);
    stage_free(&o->desk);
    stage_free(&o->convs);
    free(o);
}

static void test_office_with_late_messages(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++)
        run_office(seed);
}

#ifdef SL_TEST_BUILD
/* A desk that frees slots at "offline" counts too few; so does one that does not compare tickets. */
static void test_mutants_bite(void **state)
{
    (void)state;
    struct stage *s = stage_new(&desk_ops, TAG);
    online(s, "a1", "s1", 1);
    need(s, CONV("0A"), 1);
    sl_mutant_set("desk-frees-itself");
    offline(s, "a1", "s1");
    assert_int_equal(agent(s, "a1")->count, 0);
    online(s, "a1", "s2", 1);
    need(s, CONV("0B"), 1);
    sl_mutant_set("no-ticket");
    freed(s, EVENT_RELEASED, CONV("0B"), 99, "a1");
    assert_int_equal(agent(s, "a1")->count, 0);
    sl_mutant_set(NULL);
    stage_free(&s);
}
#endif

static int last_teardown(void **state)
{
    (void)state;
    (void)stage_state(NULL, NULL, SL_STR_NONE); /* free what it kept */
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_need_waits_for_an_agent),
        cmocka_unit_test(test_offer_that_is_over_is_not_told),
        cmocka_unit_test(test_capacity_is_never_exceeded),
        cmocka_unit_test(test_order_priority_then_waiting),
        cmocka_unit_test(test_skills_and_queues_are_respected),
        cmocka_unit_test(test_choice_last_agent_then_load_then_idle),
        cmocka_unit_test(test_need_repeats_are_harmless),
        cmocka_unit_test(test_requeue_keeps_its_first_place),
        cmocka_unit_test(test_higher_ticket_replaces_and_cancel_names_one),
        cmocka_unit_test(test_late_offline_of_another_session_changes_nothing),
        cmocka_unit_test(test_offline_says_gone_and_keeps_the_slot),
        cmocka_unit_test(test_away_gets_nothing_new),
        cmocka_unit_test(test_silent_session_ends_and_may_come_back),
        cmocka_unit_test(test_sign_of_life_of_who_is_not_online_brings_her_in),
        cmocka_unit_test(test_socket_that_comes_back_keeps_the_conversations),
        cmocka_unit_test(test_socket_that_stays_away_ends_after_the_grace),
        cmocka_unit_test(test_session_comes_back_as_it_was_left),
        cmocka_unit_test(test_other_window_brings_a_leaving_agent_back),
        cmocka_unit_test(test_state_of_an_earlier_socket_of_the_session_counts),
        cmocka_unit_test(test_timers_end_when_nobody_is_there),
        cmocka_unit_test(test_much_work_goes_on_by_timer),
        cmocka_unit_test(test_places_are_told_to_the_first_hundred),
        cmocka_unit_test(test_full_queue_refuses_and_says_so),
        cmocka_unit_test(test_hostile_events_change_nothing),
        cmocka_unit_test(test_full_queue_is_stored_and_read_back),
        cmocka_unit_test(test_bury_frees_a_released_slot_and_keeps_the_timers),
        cmocka_unit_test(test_office_with_late_messages),
#ifdef SL_TEST_BUILD
        cmocka_unit_test(test_mutants_bite),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, last_teardown);
}
