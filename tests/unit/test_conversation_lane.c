/* A conversation whose customer is on a channel without a socket: what leaves through the delivery lane, what a grant of the
 * channel allows, what comes back. */
#include "tests/unit/steps.h"

#include "router/conversation.h"

#define S(text) SL_STR(text)
#define ADDR    S("t/sms/+8613")
#define LANE    "in:{send:sms}"

static char conv_id[80];

static struct sl_str conv(void)
{
    return sl_str_c(conv_id);
}

static void write_text(struct stage *s, const char *id, const char *text, const char *quota)
{
    stage_run(s, &(struct event){.type = EVENT_MESSAGE,
                                 .addr = ADDR,
                                 .id = sl_str_c(id),
                                 .text = sl_str_c(text),
                                 .channel = S("sms"),
                                 .lane = S(LANE),
                                 .context = S("{\"thread\":1}"),
                                 .quota = sl_str_c(quota)});
}

static struct stage *open_stage(const char *text, const char *quota)
{
    struct stage *s = stage_new(&conversation_ops, "3");
    write_text(s, "m1", text, quota);
    const struct event *opened = stage_fact(s, EVENT_OPENED);
    assert_non_null(opened);
    (void)snprintf(conv_id, sizeof conv_id, "%.*s", (int)opened->conv.len, opened->conv.ptr);
    return s;
}

static const struct conversation *look(struct stage *s)
{
    return stage_state(s, &conversation_kind, conv());
}

static void close_stage(struct stage **s)
{
    (void)stage_state(*s, NULL, SL_STR_NONE);
    stage_free(s);
}

static void answer(struct stage *s, const char *text)
{
    const struct conversation *c = look(s);
    stage_run(s, &(struct event){.type = EVENT_ANSWER,
                                 .conv = conv(),
                                 .control = c->epoch,
                                 .turn = c->turn,
                                 .text = sl_str_c(text)});
}

static void ask_and_answer(struct stage *s, int i, const char *quota)
{
    char id[16];
    (void)snprintf(id, sizeof id, "q%d", i);
    write_text(s, id, "another question, please?", quota);
    stage_forget(s);
    answer(s, "an answer");
}

static void test_answers_leave_through_the_lane(void **state)
{
    (void)state;
    struct stage *s = open_stage("a question, please?", "");
    assert_int_equal(stage_facts(s, EVENT_SEND), 0); /* a customer's own words do not */
    answer(s, "the answer");
    const struct event *send = stage_fact(s, EVENT_SEND);
    assert_non_null(send);
    assert_bytes(send->text, "the answer");
    assert_bytes(send->name, "bot");
    assert_bytes(send->kind, "text");
    assert_bytes(send->context, "{\"thread\":1}");
    assert_bytes(send->addr, "t/sms/+8613");
    assert_int_equal(send->number, 2);
    assert_int_equal(send->priority, 0);
    stage_forget(s);
    write_text(s, "m2", "人工", ""); /* notices leave as texts, behind answers */
    send = stage_fact(s, EVENT_SEND);
    assert_non_null(send);
    assert_bytes(send->kind, "text");
    assert_int_equal(send->data.len, 0);
    assert_int_equal(send->priority, -1);
    close_stage(&s);
}

static void test_a_socket_ends_the_way_through_the_lane(void **state)
{
    (void)state;
    struct stage *s = open_stage("a question, please?", "");
    stage_run(s,
              &(struct event){
                  .type = EVENT_MESSAGE, .addr = ADDR, .id = S("m2"), .text = S("on the web now, please?")});
    answer(s, "the answer");
    assert_int_equal(stage_facts(s, EVENT_SEND), 0);
    close_stage(&s);
}

static void test_a_lane_that_is_none_gets_nothing(void **state)
{
    (void)state;
    static const char *const lanes[] = {"in:{3}",     "in:{desk:t}",   "bot:faq",
                                        "in:{send:}", "in:{send:a b}", "in:{send:sms}x"};
    struct stage *s = open_stage("a question, please?", "");
    for (size_t i = 0; i < sizeof lanes / sizeof lanes[0]; i++) {
        char id[16];
        (void)snprintf(id, sizeof id, "x%zu", i);
        stage_run(s, &(struct event){.type = EVENT_MESSAGE,
                                     .addr = ADDR,
                                     .id = sl_str_c(id),
                                     .text = S("a question, please?"),
                                     .lane = sl_str_c(lanes[i])});
        answer(s, "the answer");
        assert_int_equal(stage_facts(s, EVENT_SEND), 0);
    }
    close_stage(&s);
}

static void test_outcomes_stand_in_the_history_for_agents_alone(void **state)
{
    (void)state;
    struct stage *s = open_stage("a question, please?", "");
    answer(s, "the answer");
    uint64_t v = look(s)->s.v;
    stage_forget(s);
    struct event ev = {.type = EVENT_OUTCOME,
                       .conv = conv(),
                       .number = 2,
                       .reason = S("failed"),
                       .code = S("EXPIRED"),
                       .text = S("handset off"),
                       .source = S("send:sms")};
    stage_run(s, &ev);
    assert_true(stage_said(s, "\"code\":\"delivery\",\"of\":2,\"state\":\"failed\",\"why\":{\"code\":"
                              "\"EXPIRED\",\"text\":\"handset off\"}"));
    assert_int_equal(look(s)->s.v, v);
    assert_false(stage_pushed(s, "pv:", "delivery"));
    assert_int_equal(stage_facts(s, EVENT_SEND), 0);
    ev.reason = S("unknown"), ev.code = S("unknown"), ev.text = SL_STR_NONE;
    stage_run(s, &ev);
    assert_true(stage_said(s, "\"zh\":\"无法确认是否已发出。\""));
    stage_forget(s);
    ev.number = 99;
    stage_run(s, &ev);
    assert_int_equal(stage_facts(s, EVENT_REFUSAL), 1);
    assert_false(stage_said(s, "delivery"));
    close_stage(&s);
}

static void test_a_grant_is_spent_and_then_the_window_is_closed(void **state)
{
    (void)state;
    struct stage *s = open_stage("a question, please?", "5/172800000");
    answer(s, "the answer");
    for (int i = 0; i < 4; i++) {
        ask_and_answer(s, i, "");
        assert_int_equal(stage_facts(s, EVENT_SEND), 1);
    }
    ask_and_answer(s, 9, "");
    assert_int_equal(stage_facts(s, EVENT_SEND), 0);
    assert_true(stage_said(s, "\"state\":\"failed\",\"why\":{\"code\":\"window_closed\",\"zh\""));
    ask_and_answer(s, 10, "5/172800000"); /* the customer writes: a new grant */
    assert_int_equal(stage_facts(s, EVENT_SEND), 1);
    assert_int_equal(look(s)->quota_left, 4);
    s->now_ms += 172800001;
    ask_and_answer(s, 11, "");
    assert_int_equal(stage_facts(s, EVENT_SEND), 0);
    close_stage(&s);
}

static void test_a_click_grants_for_a_minute_beside_the_longer_grant(void **state)
{
    (void)state;
    struct stage *s = open_stage("a question, please?", "5/172800000");
    for (int i = 0; i < 4; i++)
        ask_and_answer(s, i, "");
    ask_and_answer(s, 5, "3/60000");
    assert_int_equal(look(s)->quota_left, 2); /* of the minute */
    assert_int_equal(look(s)->other_left, 0); /* of the two days */
    ask_and_answer(s, 6, "");
    assert_int_equal(stage_facts(s, EVENT_SEND), 1);
    s->now_ms += 60001;
    ask_and_answer(s, 7, "");
    assert_int_equal(stage_facts(s, EVENT_SEND), 0);
    ask_and_answer(s, 8, "5/172800000");
    assert_int_equal(look(s)->quota_left, 4);
    close_stage(&s);
}

static void test_comfort_does_not_take_the_last_sends(void **state)
{
    (void)state;
    struct stage *s = open_stage("a question, please?", "2/60000");
    stage_forget(s);
    write_text(s, "m2", "人工", "");
    assert_true(stage_said(s, "\"code\":\"queued\""));
    assert_int_equal(stage_facts(s, EVENT_SEND), 0); /* said, shown to the agent, not sent */
    assert_false(stage_said(s, "window_closed"));
    close_stage(&s);
}

/* ---- what a message costs ---- */

#define WECHAT_LIMITS "60b/14/14/10/1048576/0" /* 60 bytes a part; image, audio, video without words */

static void write_metered(struct stage *s, const char *id, const char *text, const char *quota)
{
    stage_run(s, &(struct event){.type = EVENT_MESSAGE,
                                 .addr = ADDR,
                                 .id = sl_str_c(id),
                                 .text = sl_str_c(text),
                                 .lane = S(LANE),
                                 .quota = sl_str_c(quota),
                                 .limits = S(WECHAT_LIMITS)});
}

static struct stage *open_metered(const char *quota)
{
    struct stage *s = stage_new(&conversation_ops, "3");
    write_metered(s, "m1", "a question, please?", quota);
    const struct event *opened = stage_fact(s, EVENT_OPENED);
    assert_non_null(opened);
    (void)snprintf(conv_id, sizeof conv_id, "%.*s", (int)opened->conv.len, opened->conv.ptr);
    stage_forget(s);
    return s;
}

#define FORTY                                                                                                \
    "Forty bytes of text make up a sentence. " /* one such a part; filled parts hold one and a half */

static void test_a_message_costs_what_its_parts_cost(void **state)
{
    (void)state;
    struct stage *s = open_metered("5/172800000");
    answer(s, FORTY FORTY FORTY);
    assert_int_equal(stage_facts(s, EVENT_SEND), 1);
    assert_int_equal(stage_fact(s, EVENT_SEND)->capacity, 3);
    assert_int_equal(look(s)->quota_left, 2);
    write_metered(s, "m2", "another question, please?", "");
    stage_forget(s);
    answer(s, FORTY FORTY FORTY); /* 120 bytes: two filled parts */
    assert_int_equal(stage_facts(s, EVENT_SEND), 1);
    assert_int_equal(stage_fact(s, EVENT_SEND)->capacity, 2);
    assert_int_equal(look(s)->quota_left, 0);
    close_stage(&s);
}

static void test_an_answer_is_never_half_sent(void **state)
{
    (void)state;
    struct stage *s = open_metered("2/172800000");
    answer(s, FORTY FORTY FORTY FORTY);
    assert_int_equal(stage_facts(s, EVENT_SEND), 0);
    assert_int_equal(look(s)->quota_left, 2); /* nothing was spent */
    assert_true(stage_said(s, "\"of\":2,\"state\":\"failed\",\"why\":{\"code\":\"needs_sends\""));
    assert_true(stage_said(s, "It needs 3 sends, the channel has 2 left"));
    assert_true(stage_said(s, "需要发送 3 条，渠道只剩 2 条"));
    assert_true(stage_said(s, "\"needs\":3,\"left\":2"));
    assert_int_equal(look(s)->control, CONVERSATION_QUEUED); /* a bot cannot shorten it: a person can */
    close_stage(&s);
}

static void test_an_agent_is_told_and_may_say_it_shorter(void **state)
{
    (void)state;
    struct stage *s = open_metered("2/172800000");
    write_metered(s, "m2", "人工", "");
    stage_run(s, &(struct event){.type = EVENT_ASSIGN,
                                 .conv = conv(),
                                 .ticket = 1,
                                 .agent = S("a1"),
                                 .reply_to = S("in:{desk:t}")});
    stage_run(s, &(struct event){.type = EVENT_AGENT_ACCEPT, .conv = conv(), .agent = S("a1")});
    stage_forget(s);
    struct event ev = {
        .type = EVENT_AGENT_MESSAGE, .conv = conv(), .agent = S("a1"), .text = S(FORTY FORTY FORTY FORTY)};
    stage_run(s, &ev);
    assert_int_equal(stage_facts(s, EVENT_SEND), 0);
    assert_true(stage_pushed(s, "pc:", "needs_sends"));
    assert_false(stage_pushed(s, "pv:", "needs_sends"));
    assert_int_equal(look(s)->control, CONVERSATION_ASSIGNED);
    ev.text = S("shorter");
    stage_run(s, &ev);
    assert_int_equal(stage_facts(s, EVENT_SEND), 1);
    assert_int_equal(look(s)->quota_left, 1);
    close_stage(&s);
}

static void test_attachments_cost_their_sends(void **state)
{
    (void)state;
    struct stage *s = open_metered("5/172800000");
    const struct conversation *c = look(s);
    stage_run(s, &(struct event){.type = EVENT_ANSWER,
                                 .conv = conv(),
                                 .control = c->epoch,
                                 .turn = c->turn,
                                 .kind = S("image"),
                                 .text = S("two pictures"),
                                 .data = S("{\"attachments\":[{\"id\":\"a\",\"type\":\"image/png\"},{"
                                           "\"id\":\"b\",\"type\":\"image/png\"}]}")});
    assert_int_equal(stage_fact(s, EVENT_SEND)->capacity,
                     3); /* and the words, which no picture carries there */
    assert_int_equal(look(s)->quota_left, 2);
    close_stage(&s);
}

static void test_comfort_counts_its_parts_before_it_spends(void **state)
{
    (void)state;
    struct stage *s = open_metered("3/172800000");
    write_metered(s, "m2", "人工", ""); /* "in line": one part of three sends */
    assert_int_equal(stage_facts(s, EVENT_SEND), 1);
    assert_int_equal(look(s)->quota_left, 2);
    close_stage(&s);
    s = open_metered("3/172800000");
    stage_run(s, &(struct event){.type = EVENT_RULES,
                                 .hash = S("h"),
                                 .data = S("{\"texts\":{\"t\":{\"queued\":{\"zh\":\"" FORTY FORTY
                                           "\",\"en\":\"" FORTY FORTY "\"}}}}")});
    write_metered(s, "m2", "人工", ""); /* two parts: an answer would have one left */
    assert_int_equal(stage_facts(s, EVENT_SEND), 0);
    assert_int_equal(look(s)->quota_left, 3);
    assert_false(stage_said(s, "needs_sends")); /* nobody misses it */
    close_stage(&s);
}

static void test_limits_that_make_no_sense_cost_one(void **state)
{
    (void)state;
    struct stage *s = open_metered("5/172800000");
    stage_run(s, &(struct event){.type = EVENT_MESSAGE,
                                 .addr = ADDR,
                                 .id = S("m2"),
                                 .text = S("a question, please?"),
                                 .lane = S(LANE),
                                 .quota = S("5/172800000"),
                                 .limits = S("60b/x")});
    stage_forget(s);
    answer(s, FORTY FORTY FORTY);
    assert_int_equal(stage_fact(s, EVENT_SEND)->capacity, 0); /* however many parts it has */
    assert_int_equal(look(s)->quota_left, 4);
    close_stage(&s);
}

static struct stage *rated_stage(void)
{
    struct stage *s = open_stage("人工", "");
    stage_run(s, &(struct event){.type = EVENT_ASSIGN,
                                 .conv = conv(),
                                 .ticket = 1,
                                 .agent = S("a1"),
                                 .reply_to = S("in:{desk:t}")});
    stage_run(s, &(struct event){.type = EVENT_AGENT_ACCEPT, .conv = conv(), .agent = S("a1")});
    stage_forget(s);
    stage_run(s, &(struct event){.type = EVENT_AGENT_CLOSE, .conv = conv(), .agent = S("a1")});
    const struct event *send = stage_fact(s, EVENT_SEND);
    assert_non_null(send);
    assert_bytes(send->kind, "choice"); /* the lane makes it numbered text when the channel shows none */
    assert_int_equal(send->priority, 0);
    stage_forget(s);
    return s;
}

static void test_a_digit_is_the_rating(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t score;
    } cases[] = {{"5", 5}, {" 4 ", 4}, {"３", 3},       {"二", 2}, {"1\n", 1},
                 {"6", 0}, {"55", 0},  {"5 thanks", 0}, {"", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct stage *s = rated_stage();
        write_text(s, "r1", cases[i].text[0] != '\0' ? cases[i].text : "hello there, again", "");
        assert_int_equal(look(s)->rating, cases[i].score > 0 ? cases[i].score : -1);
        assert_int_equal(look(s)->control, cases[i].score > 0 ? CONVERSATION_CLOSED : CONVERSATION_BOT);
        assert_true(stage_said(s, "\"r1\"")); /* and stands in the history in any case */
        close_stage(&s);
    }
    struct stage *late = rated_stage();
    late->now_ms += 86400001;
    write_text(late, "r1", "5", "");
    assert_int_equal(look(late)->rating, -1);
    close_stage(&late);
}

static void test_a_proven_thread_is_found_or_the_message_finds_its_own(void **state)
{
    (void)state;
    struct stage *s = open_stage("a question, please?", "");
    struct event ev = {.type = EVENT_MESSAGE,
                       .addr = S("t/sms/+8699"),
                       .id = S("e1"),
                       .text = S("from another address, please?"),
                       .conv = conv(),
                       .lane = S("in:{send:mail}")};
    stage_forget(s);
    stage_run(s, &ev); /* of this partition */
    assert_int_equal(stage_facts(s, EVENT_OPENED), 0);
    assert_true(stage_said(s, "\"who\":\"+8699\""));
    answer(s, "to you both");
    const struct event *send = stage_fact(s, EVENT_SEND);
    assert_non_null(send);
    assert_bytes(send->addr, "t/sms/+8699"); /* to whoever wrote last */

    stage_forget(s);
    ev.conv = S("7.01JD8Z6V3K9Q2W4E5R6T7Y8A9B"); /* of another: it goes there */
    stage_run(s, &ev);
    assert_int_equal(s->fact_count, 1);
    assert_string_equal(s->facts[0].to, "in:{7}");
    assert_bytes(s->facts[0].ev.conv, "7.01JD8Z6V3K9Q2W4E5R6T7Y8A9B");
    assert_int_equal(s->entry_count, 0);

    stage_forget(s);
    ev.conv = S("3.01JD8Z6V3K9Q2W4E5R6T7Y8A9B"), ev.source = S("7"),
    ev.fact = 3; /* came here, and is not here */
    stage_run(s, &ev);
    assert_string_equal(s->facts[0].to, "in:{7}");
    assert_int_equal(s->facts[0].ev.conv.len, 0);
    assert_int_equal(s->entry_count, 0);

    stage_forget(s);
    ev.conv = SL_STR_NONE, ev.id = S("e2"); /* and back at home it is a message like any other */
    stage_run(s, &ev);
    assert_int_equal(stage_facts(s, EVENT_OPENED), 1);

    stage_forget(s);
    ev = (struct event){.type = EVENT_MESSAGE,
                        .addr = S("other/sms/x"),
                        .id = S("e3"),
                        .text = S("another tenant's, please?"),
                        .conv = conv()};
    stage_run(s, &ev);
    assert_int_equal(stage_facts(s, EVENT_OPENED), 1); /* not in our tenant's conversation */
    close_stage(&s);
}

/* An out-of-office mail is seen by people; no bot is asked, nobody is said to be waiting. What only looks like the flag is none. */
static void test_what_a_machine_sent_is_not_answered(void **state)
{
    (void)state;
    struct stage *s = stage_new(&conversation_ops, "3");
    struct event mail = {.type = EVENT_MESSAGE,
                         .addr = ADDR,
                         .id = S("m1"),
                         .text = S("I am on holiday. Back on Monday."),
                         .channel = S("email"),
                         .lane = S(LANE),
                         .data = S("{\"auto\":true,\"email\":{\"auto\":\"reply\"}}")};
    stage_run(s, &mail);
    assert_int_equal(stage_facts(s, EVENT_OPENED), 1);
    assert_int_equal(stage_facts(s, EVENT_TASK), 0);
    mail.id = S("m2");
    mail.data = S("{\"note\":\"\\\"auto\\\":true\",\"auto\":false}");
    stage_run(s, &mail);
    assert_int_equal(stage_facts(s, EVENT_TASK), 1);
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_leave_through_the_lane),
        cmocka_unit_test(test_a_socket_ends_the_way_through_the_lane),
        cmocka_unit_test(test_a_lane_that_is_none_gets_nothing),
        cmocka_unit_test(test_outcomes_stand_in_the_history_for_agents_alone),
        cmocka_unit_test(test_a_grant_is_spent_and_then_the_window_is_closed),
        cmocka_unit_test(test_a_click_grants_for_a_minute_beside_the_longer_grant),
        cmocka_unit_test(test_comfort_does_not_take_the_last_sends),
        cmocka_unit_test(test_a_message_costs_what_its_parts_cost),
        cmocka_unit_test(test_an_answer_is_never_half_sent),
        cmocka_unit_test(test_an_agent_is_told_and_may_say_it_shorter),
        cmocka_unit_test(test_attachments_cost_their_sends),
        cmocka_unit_test(test_comfort_counts_its_parts_before_it_spends),
        cmocka_unit_test(test_limits_that_make_no_sense_cost_one),
        cmocka_unit_test(test_a_digit_is_the_rating),
        cmocka_unit_test(test_what_a_machine_sent_is_not_answered),
        cmocka_unit_test(test_a_proven_thread_is_found_or_the_message_finds_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
