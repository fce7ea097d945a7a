/* tests/unit/test_conversation.c - every cell of the conversation's table, and what must hold whatever happens. */
#include "steps.h"

#include "base/fault.h"
#include "router/conversation.h"
#include "router/rules.h"

#define ADDR SL_STR("acme/web/u1")
#define DESK "in:{desk:acme}"

static char conv_id[64]; /* of the conversation under test */

static struct sl_str conv(void)
{
    return sl_str_c(conv_id);
}

static const struct conversation *look(struct stage *s)
{
    return stage_state(s, &conversation_kind, conv());
}

static void run(struct stage *s, struct event ev)
{
    stage_run(s, &ev);
}

static void message(struct stage *s, const char *id, const char *text)
{
    run(s, (struct event){.type = EVENT_MESSAGE,
                          .addr = ADDR,
                          .session = SL_STR("sv"),
                          .id = sl_str_c(id),
                          .text = sl_str_c(text),
                          .channel = SL_STR("webchat"),
                          .at_ms = s->now_ms});
}

static void answer(struct stage *s, int64_t control, int64_t turn, const char *text, const char *reason)
{
    run(s, (struct event){.type = EVENT_ANSWER,
                          .conv = conv(),
                          .control = control,
                          .turn = turn,
                          .text = sl_str_c(text),
                          .reason = sl_str_c(reason)});
}

static struct stage *open_stage(void)
{
    struct stage *s = stage_new(&conversation_ops, "3");
    message(s, "m1", "Where is my order from Monday?");
    const struct event *opened = stage_fact(s, EVENT_OPENED);
    assert_non_null(opened);
    snprintf(conv_id, sizeof conv_id, "%.*s", (int)opened->conv.len, opened->conv.ptr);
    return s;
}

static void assign(struct stage *s, int64_t ticket, const char *agent)
{
    run(s, (struct event){.type = EVENT_ASSIGN,
                          .conv = conv(),
                          .ticket = ticket,
                          .agent = sl_str_c(agent),
                          .reply_to = SL_STR(DESK)});
}

static struct event by_agent(enum event_type type)
{
    return (struct event){
        .type = type, .conv = conv(), .agent = SL_STR("a1"), .session = SL_STR("sa"), .id = SL_STR("c1")};
}

/* A stage whose conversation is in the given state, with nothing collected. */
static struct stage *stage_in(enum conversation_control control)
{
    struct stage *s = open_stage();
    if (control == CONVERSATION_NEW) {
        stage_free(&s);
        return stage_new(&conversation_ops, "3");
    }
    if (control >= CONVERSATION_QUEUED)
        message(s, "m2", "人工");
    if (control >= CONVERSATION_OFFERED)
        assign(s, 1, "a1");
    if (control >= CONVERSATION_ASSIGNED)
        run(s, by_agent(EVENT_AGENT_ACCEPT));
    if (control == CONVERSATION_CLOSED)
        run(s, by_agent(EVENT_AGENT_CLOSE));
    assert_int_equal(look(s)->control, control);
    stage_forget(s);
    return s;
}

/* The expected table, written down a second time: where the conversation is afterwards, and with what answer.
 * R: a REFUSAL record; F: REFUSED to the desk; none: neither. */
struct expected {
    enum event_type type;
    struct {
        enum conversation_control to;
        char answer;
    } in[CONVERSATION_CONTROL_COUNT];
};
#define N CONVERSATION_NEW
#define B CONVERSATION_BOT
#define Q CONVERSATION_QUEUED
#define O CONVERSATION_OFFERED
#define A CONVERSATION_ASSIGNED
#define C CONVERSATION_CLOSED
static const struct expected cells[] = {
    {EVENT_MESSAGE, {{B, 0}, {B, 0}, {Q, 0}, {O, 0}, {A, 0}, {B, 0}}},
    {EVENT_RATING, {{N, 'R'}, {B, 'R'}, {Q, 'R'}, {O, 'R'}, {A, 'R'}, {C, 0}}},
    {EVENT_HANGUP, {{N, 'R'}, {C, 0}, {C, 0}, {C, 0}, {C, 0}, {C, 'R'}}},
    {EVENT_ANSWER, {{N, 'R'}, {B, 0}, {Q, 'R'}, {O, 'R'}, {A, 'R'}, {C, 'R'}}},
    {EVENT_AGENT_ACCEPT, {{N, 'R'}, {B, 'R'}, {Q, 'R'}, {A, 0}, {A, 'R'}, {C, 'R'}}},
    {EVENT_AGENT_MESSAGE, {{N, 'R'}, {B, 'R'}, {Q, 'R'}, {A, 0}, {A, 0}, {C, 'R'}}},
    {EVENT_AGENT_NOTE, {{N, 'R'}, {B, 'R'}, {Q, 'R'}, {O, 0}, {A, 0}, {C, 'R'}}},
    {EVENT_AGENT_TRANSFER, {{N, 'R'}, {B, 'R'}, {Q, 'R'}, {Q, 0}, {Q, 0}, {C, 'R'}}},
    {EVENT_AGENT_CLOSE, {{N, 'R'}, {B, 'R'}, {Q, 'R'}, {C, 0}, {C, 0}, {C, 'R'}}},
    {EVENT_ASSIGN, {{N, 'F'}, {B, 'F'}, {O, 0}, {O, 0}, {A, 0}, {C, 'F'}}},
    {EVENT_GONE, {{N, 'F'}, {B, 'F'}, {Q, 'F'}, {Q, 0}, {Q, 0}, {C, 'F'}}},
    {EVENT_PLACE, {{N, 0}, {B, 0}, {Q, 0}, {O, 0}, {A, 0}, {C, 0}}},
    {EVENT_TIMER, {{N, 0}, {B, 0}, {Q, 0}, {Q, 0}, {Q, 0}, {N, 0}}},
};

static struct event event_for(enum event_type type, const struct conversation *c)
{
    struct event ev = by_agent(type);
    ev.addr = ADDR;
    ev.text = SL_STR("some words to be read");
    ev.ticket = 1;
    ev.number = 4;
    ev.queue = type == EVENT_AGENT_TRANSFER ? SL_STR("vip") : SL_STR_NONE;
    ev.reply_to = SL_STR(DESK);
    ev.name = type == EVENT_TIMER ? SL_STR("hold") : SL_STR_NONE;
    if (c != NULL) {
        ev.control = c->epoch;
        ev.turn = c->turn;
        ev.gen = c->hold_gen;
    }
    return ev;
}

/* Fire timers until the holder's deadline is really due: one armed for an earlier deadline is only put off. */
static bool fire_due(struct stage *s)
{
    int64_t due = look(s)->hold_due_ms;
    bool has_fired;
    do
        has_fired = stage_fire(s);
    while (has_fired && s->now_ms < due);
    return has_fired;
}

static void test_conversation_every_cell(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cells / sizeof cells[0]; i++) {
        for (int from = 0; from < CONVERSATION_CONTROL_COUNT; from++) {
            struct stage *s = stage_in((enum conversation_control)from);
            int64_t before = from == N ? 0 : look(s)->epoch;
            if (cells[i].type == EVENT_TIMER && from != N)
                s->now_ms = look(s)->hold_due_ms;
            run(s, event_for(cells[i].type, from == N ? NULL : look(s)));
            if (from == N && stage_fact(s, EVENT_OPENED) != NULL) {
                const struct event *opened = stage_fact(s, EVENT_OPENED);
                snprintf(conv_id, sizeof conv_id, "%.*s", (int)opened->conv.len, opened->conv.ptr);
            }
            const struct conversation *c = look(s);
            char what[80];
            snprintf(what, sizeof what, "%s in %s", event_type_name(cells[i].type),
                     conversation_control_name((enum conversation_control)from));
            if ((c == NULL ? N : c->control) != cells[i].in[from].to)
                fail_msg("%s ends in %s", what, conversation_control_name(c == NULL ? N : c->control));
            if (stage_facts(s, EVENT_REFUSAL) != (cells[i].in[from].answer == 'R' ? 1u : 0u))
                fail_msg("%s: %zu refusals", what, stage_facts(s, EVENT_REFUSAL));
            if (stage_facts(s, EVENT_REFUSED) != (cells[i].in[from].answer == 'F' ? 1u : 0u))
                fail_msg("%s: %zu answers to the desk", what, stage_facts(s, EVENT_REFUSED));
            if (c != NULL && c->epoch < before)
                fail_msg("%s: the control epoch fell", what);
            if (cells[i].in[from].answer != 0)
                assert_int_equal(s->entry_count, 0);
            stage_free(&s);
        }
    }
}
#undef N
#undef B
#undef Q
#undef O
#undef A
#undef C

static void test_message_asks_the_bot(void **state)
{
    (void)state;
    struct stage *s = open_stage();
    const struct event *task = stage_fact(s, EVENT_TASK);
    assert_non_null(task);
    assert_string_equal(s->facts[s->fact_count - 1].to, "bot:faq");
    assert_bytes(task->text, "Where is my order from Monday?");
    assert_bytes(task->reply_to, "in:{3}");
    assert_bytes(task->id, "m1");
    assert_int_equal(task->turn, 1);
    assert_int_equal(task->control, look(s)->epoch);
    assert_int_equal(task->due_ms, s->now_ms + 15000);
    assert_true(stage_pushed(s, "pv:{3}:acme/web/u1", "e 7 1 sv m1\n"));
    assert_false(stage_pushed(s, "pc:", ""));
    stage_free(&s);
}

static void test_answer_once_a_turn(void **state)
{
    (void)state;
    struct stage *s = open_stage();
    int64_t control = look(s)->epoch;
    stage_forget(s);
    answer(s, control, 1, "On its way.", "");
    assert_true(stage_said(s, "\"tn\":1,\"m\":{"));
    assert_true(stage_said(s, "On its way."));
    answer(s, control, 1, "Twice.", "");
    answer(s, control, 2, "Of the future.", "");
    answer(s, control - 1, 1, "Of another time.", "");
    assert_false(stage_said(s, "Twice."));
    assert_int_equal(s->entry_count, 1);
    assert_int_equal(stage_facts(s, EVENT_REFUSAL), 3);
    stage_free(&s);
}

static void test_answer_of_an_overtaken_turn_is_refused(void **state)
{
    (void)state;
    struct stage *s = open_stage();
    int64_t control = look(s)->epoch;
    message(s, "m2", "And what does the return cost me?");
    const struct event *task = stage_fact(s, EVENT_TASK);
    assert_int_equal(task->turn, 2);
    assert_bytes(task->text, "Where is my order from Monday?\nAnd what does the return cost me?");
    stage_forget(s);
    answer(s, control, 1, "Old.", "");
    assert_int_equal(s->entry_count, 0);
    answer(s, control, 2, "Both.", "");
    assert_int_equal(s->entry_count, 1);
    message(s, "m3", "Thanks, and when does it arrive?");
    assert_bytes(stage_fact(s, EVENT_TASK)->text, "Thanks, and when does it arrive?");
    stage_free(&s);
}

static void test_answer_must_say_something(void **state)
{
    (void)state;
    struct stage *s = open_stage();
    int64_t control = look(s)->epoch;
    stage_forget(s);
    answer(s, control, 1, "", "");
    run(s, (struct event){.type = EVENT_ANSWER,
                          .conv = conv(),
                          .control = control,
                          .turn = 1,
                          .kind = SL_STR("note"),
                          .text = SL_STR("x")});
    run(s, (struct event){
               .type = EVENT_ANSWER, .conv = conv(), .control = control, .turn = 1, .data = SL_STR("[1]")});
    assert_int_equal(stage_facts(s, EVENT_REFUSAL), 3);
    assert_int_equal(s->entry_count, 0);
    answer(s, control, 1, "Still welcome.", "");
    assert_int_equal(s->entry_count, 1);
    stage_free(&s);
}

static void test_answer_handoff_queues(void **state)
{
    (void)state;
    struct stage *s = open_stage();
    int64_t control = look(s)->epoch;
    stage_forget(s);
    answer(s, control, 1, "Let me get somebody.", "handoff");
    assert_int_equal(look(s)->control, CONVERSATION_QUEUED);
    assert_true(stage_said(s, "Let me get somebody."));
    assert_true(stage_said(s, "\"code\":\"queued\""));
    const struct event *need = stage_fact(s, EVENT_NEED);
    assert_non_null(need);
    assert_int_equal(need->ticket, 1);
    assert_bytes(need->queue, "default");
    assert_int_equal(need->wait_ms, 0);
    stage_free(&s);
}

static void test_answer_unsure_twice_queues(void **state)
{
    (void)state;
    struct stage *s = open_stage();
    int64_t control = look(s)->epoch;
    answer(s, control, 1, "Perhaps so.", "unsure");
    assert_int_equal(look(s)->control, CONVERSATION_BOT);
    message(s, "m2", "That is not what I asked for.");
    answer(s, control, 2, "Perhaps not.", "unsure");
    assert_int_equal(look(s)->control, CONVERSATION_QUEUED);
    stage_free(&s);
}

static void test_bot_deadline_asks_again_then_queues(void **state)
{
    (void)state;
    struct stage *s = open_stage();
    stage_forget(s);
    assert_true(stage_fire(s));
    assert_int_equal(stage_fact(s, EVENT_TASK)->turn, 2);
    assert_bytes(stage_fact(s, EVENT_TASK)->text, "Where is my order from Monday?");
    assert_true(stage_fire(s));
    assert_int_equal(look(s)->control, CONVERSATION_QUEUED);
    assert_bytes(stage_fact(s, EVENT_QUEUED)->reason, "bot_late");
    stage_free(&s);
}

/* A customer who keeps writing does not keep a dead bot. */
static void test_bot_deadline_is_not_pushed_away_by_messages(void **state)
{
    (void)state;
    struct stage *s = open_stage();
    for (int i = 0; i < 4; i++) {
        s->now_ms += 10000;
        message(s, "mx", "Hello? Is anybody there, please?");
    }
    assert_int_equal(look(s)->control, CONVERSATION_QUEUED);
    stage_free(&s);
}

static void test_fragments_merge_into_one_turn(void **state)
{
    (void)state;
    struct stage *s = stage_new(&conversation_ops, "3");
    message(s, "m1", "hi");
    message(s, "m2", "I ordered");
    s->now_ms += 100;
    message(s, "m3", "on Monday");
    assert_int_equal(stage_facts(s, EVENT_TASK), 0);
    assert_true(stage_fire(s));
    assert_int_equal(stage_facts(s, EVENT_TASK), 1);
    assert_bytes(stage_fact(s, EVENT_TASK)->text, "hi\nI ordered\non Monday");
    stage_free(&s);
}

static void test_fragments_end_by_a_whole_text_or_by_patience(void **state)
{
    (void)state;
    struct stage *s = stage_new(&conversation_ops, "3");
    message(s, "m1", "hi");
    message(s, "m2", "你好吗？");
    assert_bytes(stage_fact(s, EVENT_TASK)->text, "hi\n你好吗？");
    int64_t begin = s->now_ms;
    stage_forget(s);
    while (stage_facts(s, EVENT_TASK) == 0) {
        s->now_ms += 250;
        size_t i = stage_earliest(s);
        if (s->timers[i].due_ms <= s->now_ms)
            assert_true(stage_fire(s));
        else
            message(s, "mx", "uh");
    }
    assert_true(s->now_ms - begin < 2000);
    stage_free(&s);
}

/* An answer that comes while fragments wait ends its own turn only: what came after it is asked next. */
static void test_fragments_survive_an_answer(void **state)
{
    (void)state;
    struct stage *s = open_stage();
    message(s, "m2", "and also");
    answer(s, look(s)->epoch, 1, "On its way.", "");
    stage_forget(s);
    assert_true(stage_fire(s));
    assert_bytes(stage_fact(s, EVENT_TASK)->text, "and also");
    assert_int_equal(stage_fact(s, EVENT_TASK)->turn, 2);
    stage_free(&s);
}

static void test_pending_is_bounded(void **state)
{
    (void)state;
    struct conversation c = {.asked_len = 0};
    char text[1001];
    memset(text, 'x', 1000);
    text[1000] = '\0';
    for (int i = 0; i < 100; i++) {
        text[0] = (char)('A' + i % 26);
        conversation_remember(&c, sl_str_c(text));
        if (i == 10)
            c.asked_len = (int64_t)c.pending.len;
        assert_true(c.pending.len <= CONVERSATION_PENDING_MAX);
        assert_true(c.asked_len <= (int64_t)c.pending.len);
    }
    assert_int_equal(c.pending.ptr[c.pending.len - 1000], 'A' + 99 % 26);
    assert_true(c.pending.ptr[0] >= 'A' && c.pending.ptr[0] <= 'Z');
    assert_int_equal(c.asked_len, 0);
    sl_buf_fini(&c.pending);
}

static void test_assign_stale_is_always_answered(void **state)
{
    (void)state;
    struct stage *s = stage_in(CONVERSATION_QUEUED);
    assign(s, 9, "a1");
    assert_int_equal(look(s)->control, CONVERSATION_QUEUED);
    const struct event *refused = stage_fact(s, EVENT_REFUSED);
    assert_non_null(refused);
    assert_int_equal(refused->ticket, 9);
    assert_bytes(refused->agent, "a1");
    assert_string_equal(s->facts[s->fact_count - 1].to, DESK);
    stage_forget(s);
    assign(s, 1, "a1");
    const struct event *offered = stage_fact(s, EVENT_OFFERED); /* now the agent may hear of it */
    assert_non_null(offered);
    assert_int_equal(offered->ticket, 1);
    assert_bytes(offered->agent, "a1");
    assert_string_equal(s->facts[s->fact_count - 1].to, DESK);
    stage_forget(s);
    assign(s, 1, "a1"); /* the desk repeats: ours already */
    assert_int_equal(s->fact_count, 0);
    assign(s, 1, "a2");
    assert_int_equal(stage_facts(s, EVENT_REFUSED), 1);
    assert_bytes(sl_str_c(look(s)->agent), "a1");
    stage_free(&s);
}

/* Any worker may write into a command log: what is no desk's stream is never delivered to. A name too long for a key would end every
 * owner of the partition in turn, since the fact is committed by then. */
static void test_answer_goes_to_a_desk_or_nowhere(void **state)
{
    (void)state;
    char longer[KEY_MAX_BYTES];
    memset(longer, 'a', sizeof longer);
    memcpy(longer, "in:{desk:", 9);
    const struct sl_str bad[] = {
        SL_STR_NONE,           SL_STR("in:{3}"),        SL_STR("in:{desk:"),
        SL_STR("in:{desk:}"),  SL_STR("in:{desk:a"),    SL_STR("in:{desk:a}b"),
        SL_STR("in:{desk:}}"), SL_STR("in:{desk:a b}"), sl_str_n(longer, sizeof longer - 1)};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct stage *s = stage_new(&conversation_ops, "3");
        struct event ev = {.type = EVENT_ASSIGN, .conv = SL_STR("3.01HZZZZZZZZZZZZZZZZZZZZZZZ"), .ticket = 1};
        ev.reply_to = bad[i];
        ev.agent = SL_STR("a1");
        run(s, ev);
        assert_int_equal(stage_facts(s, EVENT_REFUSED), 0);
        assert_int_equal(stage_facts(s, EVENT_REFUSAL), 1);
        stage_free(&s);
    }
}

/* The new need comes before the release, so that the desk knows the place that is kept. */
static void test_offer_without_answer_goes_back_to_its_place(void **state)
{
    (void)state;
    struct stage *s = stage_in(CONVERSATION_OFFERED);
    assert_true(fire_due(s));
    assert_int_equal(look(s)->control, CONVERSATION_QUEUED);
    assert_int_equal(look(s)->ticket, 2);
    size_t need = 0, released = 0;
    for (size_t i = 0; i < s->fact_count; i++) {
        need = s->facts[i].ev.type == EVENT_NEED ? i + 1 : need;
        released = s->facts[i].ev.type == EVENT_RELEASED ? i + 1 : released;
    }
    assert_true(need > 0 && released > need);
    assert_int_equal(s->facts[need - 1].ev.ticket, 2);
    assert_int_equal(s->facts[need - 1].ev.wait_ms, 30000);
    assert_bytes(s->facts[need - 1].ev.name, "a1");
    assert_int_equal(s->facts[released - 1].ev.ticket, 1);
    assert_true(stage_said(s, "\"code\":\"requeued\""));
    stage_free(&s);
}

static void test_gone_of_another_ticket_changes_nothing(void **state)
{
    (void)state;
    struct stage *s = stage_in(CONVERSATION_ASSIGNED);
    struct event gone = event_for(EVENT_GONE, NULL);
    gone.ticket = 7;
    run(s, gone);
    assert_int_equal(look(s)->control, CONVERSATION_ASSIGNED);
    assert_int_equal(stage_facts(s, EVENT_REFUSED), 1);
    stage_free(&s);
}

static void test_agent_words_accept_and_answer_both_channels(void **state)
{
    (void)state;
    struct stage *s = stage_in(CONVERSATION_OFFERED);
    struct event ev = by_agent(EVENT_AGENT_MESSAGE);
    ev.text = SL_STR("Hello, I am here.");
    ev.control = look(s)->epoch;
    run(s, ev);
    assert_int_equal(look(s)->control, CONVERSATION_ASSIGNED);
    assert_true(stage_pushed(s, "pv:{3}:acme/web/u1", "sa c1\n"));
    char channel[96];
    snprintf(channel, sizeof channel, "pc:{3}:%s", conv_id);
    assert_true(stage_pushed(s, channel, "sa c1\n"));
    assert_true(stage_said(s, "\"code\":\"agent_joined\""));
    stage_free(&s);
}

static void test_agent_of_another_time_is_refused_to_her_session(void **state)
{
    (void)state;
    struct stage *s = stage_in(CONVERSATION_ASSIGNED);
    struct event ev = by_agent(EVENT_AGENT_MESSAGE);
    ev.text = SL_STR("Too late.");
    ev.control = look(s)->epoch - 1;
    run(s, ev);
    ev.control = 0;
    ev.agent = SL_STR("a2");
    run(s, ev);
    assert_int_equal(s->entry_count, 0);
    assert_int_equal(stage_facts(s, EVENT_REFUSAL), 2);
    assert_true(stage_pushed(s, "ps:sa", "r 7 0 sa c1\n{\"code\":\"stale\""));
    assert_true(stage_pushed(s, "ps:sa", "r 7 0 sa c1\n{\"code\":\"not_yours\""));
    stage_free(&s);
}

static void test_notes_are_not_for_visitors(void **state)
{
    (void)state;
    struct stage *s = stage_in(CONVERSATION_ASSIGNED);
    struct event ev = by_agent(EVENT_AGENT_NOTE);
    ev.text = SL_STR("Angry customer.");
    run(s, ev);
    assert_true(stage_said(s, "\"v\":0,"));
    assert_false(stage_pushed(s, "pv:", "Angry"));
    assert_true(stage_pushed(s, "pc:", "Angry"));
    stage_free(&s);
}

static void test_silent_agent_loses_a_waiting_customer(void **state)
{
    (void)state;
    struct stage *s = stage_in(CONVERSATION_ASSIGNED);
    struct event ev = by_agent(EVENT_AGENT_MESSAGE);
    ev.text = SL_STR("One moment.");
    run(s, ev);
    s->now_ms += 1000;
    message(s, "m5", "Are you still there?");
    s->now_ms += 200000;
    message(s, "m6", "Hello?");
    assert_true(fire_due(s)); /* the deadline runs from the first message that waits */
    assert_int_equal(s->now_ms - 1700000000000, 1000 + 300000);
    assert_int_equal(look(s)->control, CONVERSATION_QUEUED);
    stage_free(&s);
}

static void test_transfer_asks_another_queue(void **state)
{
    (void)state;
    struct stage *s = stage_in(CONVERSATION_ASSIGNED);
    s->now_ms += 5000;
    struct event ev = by_agent(EVENT_AGENT_TRANSFER);
    ev.queue = SL_STR("billing");
    run(s, ev);
    assert_bytes(stage_fact(s, EVENT_NEED)->queue, "billing");
    assert_int_equal(stage_fact(s, EVENT_NEED)->wait_ms, 0);
    assert_int_equal(stage_facts(s, EVENT_RELEASED), 1);
    stage_free(&s);
}

static void test_close_asks_for_a_rating_once(void **state)
{
    (void)state;
    struct stage *s = stage_in(CONVERSATION_ASSIGNED);
    run(s, by_agent(EVENT_AGENT_CLOSE));
    assert_true(stage_said(s, "\"kind\":\"choice\""));
    assert_true(stage_said(s, "\"ask\":\"rating\""));
    struct event rating = {
        .type = EVENT_RATING, .addr = ADDR, .session = SL_STR("sv"), .id = SL_STR("r1"), .number = 5};
    run(s, rating);
    assert_true(stage_said(s, "\"score\":5"));
    assert_int_equal(look(s)->rating, 5);
    rating.number = 1;
    run(s, rating);
    assert_int_equal(look(s)->rating, 5);
    assert_true(stage_pushed(s, "pv:{3}:acme/web/u1", "r 7 0 sv r1\n{\"code\":\"rated\""));
    stage_free(&s);
}

/* The timer of the last question fires while the answered customer thinks: nobody is closed, one timer stays armed. */
static void test_timer_armed_for_a_deadline_that_was_met_is_put_off(void **state)
{
    (void)state;
    struct stage *s = stage_in(CONVERSATION_BOT);
    run(s, (struct event){.type = EVENT_ANSWER,
                          .conv = conv(),
                          .control = look(s)->epoch,
                          .turn = look(s)->turn,
                          .text = SL_STR("So.")});
    int64_t due = look(s)->hold_due_ms;
    assert_true(stage_fire(s));
    assert_true(s->now_ms < due);
    assert_int_equal(look(s)->control, CONVERSATION_BOT);
    assert_int_equal(s->timer_count, 1);
    assert_true(stage_fire(s));
    assert_int_equal(s->now_ms, due);
    assert_int_equal(look(s)->control, CONVERSATION_CLOSED);
    stage_free(&s);
}

static void test_queue_repeats_its_need_and_cancels(void **state)
{
    (void)state;
    struct stage *s = stage_in(CONVERSATION_QUEUED);
    assert_true(fire_due(s));
    assert_int_equal(stage_fact(s, EVENT_NEED)->ticket, 1);
    assert_int_equal(stage_fact(s, EVENT_NEED)->wait_ms, 30000);
    run(s, (struct event){.type = EVENT_HANGUP, .addr = ADDR});
    assert_int_equal(stage_fact(s, EVENT_CANCEL)->ticket, 1);
    stage_free(&s);
}

static void test_place_is_a_hint_and_full_is_said_once(void **state)
{
    (void)state;
    struct stage *s = stage_in(CONVERSATION_QUEUED);
    run(s, (struct event){.type = EVENT_PLACE, .conv = conv(), .ticket = 1, .number = 4, .wait_ms = 9000});
    assert_true(stage_pushed(s, "pv:{3}:acme/web/u1", "h 7 0 - -\n{\"place\":4,\"wait_ms\":9000}"));
    assert_int_equal(look(s)->place, 4);
    assert_int_equal(s->entry_count, 0);
    struct event full = {.type = EVENT_PLACE, .conv = conv(), .ticket = 1, .reason = SL_STR("full")};
    run(s, full);
    run(s, full);
    assert_int_equal(s->entry_count, 1);
    assert_true(stage_said(s, "\"code\":\"leave_message\""));
    run(s, (struct event){.type = EVENT_PLACE, .conv = conv(), .ticket = 9, .number = 1});
    assert_int_equal(look(s)->place, 4);
    stage_free(&s);
}

static void test_closed_leaves_the_store(void **state)
{
    (void)state;
    struct stage *s = stage_in(CONVERSATION_CLOSED);
    assert_true(fire_due(s));
    assert_null(look(s));
    assert_null(stage_state(s, &conversation_addr_kind, ADDR));
    assert_int_equal(s->timer_count, 0);
    message(s, "m9", "Hello again, here I am.");
    assert_non_null(stage_fact(s, EVENT_OPENED));
    stage_free(&s);
}

static void test_closed_reopens_to_the_bot_or_to_its_agent(void **state)
{
    (void)state;
    struct stage *s = stage_in(CONVERSATION_CLOSED);
    message(s, "m9", "One more question, please.");
    assert_int_equal(look(s)->control, CONVERSATION_BOT);
    assert_int_equal(stage_facts(s, EVENT_TASK), 1);
    stage_free(&s);
    s = stage_in(CONVERSATION_CLOSED);
    run(s, (struct event){
               .type = EVENT_RULES, .hash = SL_STR("h2"), .data = SL_STR("{\"reopen_agent_ms\":60000}")});
    message(s, "m9", "One more question, please.");
    assert_int_equal(look(s)->control, CONVERSATION_QUEUED);
    assert_bytes(stage_fact(s, EVENT_NEED)->agent, "a1");
    stage_free(&s);
}

static void test_rules_enter_as_an_event(void **state)
{
    (void)state;
    struct stage *s = stage_new(&conversation_ops, "3");
    run(s, (struct event){.type = EVENT_RULES,
                          .hash = SL_STR("h1"),
                          .data = SL_STR("{\"inboxes\":{\"acme/web\":{\"bot\":\"\",\"queue\":\"vip\"}}}")});
    message(s, "m1", "Good morning to you all!");
    assert_int_equal(stage_facts(s, EVENT_TASK), 0);
    assert_bytes(stage_fact(s, EVENT_NEED)->queue, "vip");
    stage_forget(s);
    run(s, (struct event){.type = EVENT_RULES, .hash = SL_STR("h2"), .data = SL_STR("{\"accept_ms\":-1}")});
    assert_int_equal(stage_facts(s, EVENT_REFUSAL), 1);
    assert_non_null(strstr(stage_find(s, &rules_kind, RULES_ID)->json, "h1"));
    stage_free(&s);
}

static void test_hostile_events_are_refused(void **state)
{
    (void)state;
    struct stage *s = stage_new(&conversation_ops, "3");
    char longer[600];
    memset(longer, 'a', sizeof longer);
    longer[3] = longer[7] = '/';
    const struct event bad[] = {
        {.type = EVENT_MESSAGE, .text = SL_STR("x")},
        {.type = EVENT_MESSAGE, .addr = SL_STR("acme/web"), .text = SL_STR("x")},
        {.type = EVENT_MESSAGE, .addr = SL_STR("acme/web/u{1}"), .text = SL_STR("x")},
        {.type = EVENT_MESSAGE, .addr = sl_str_n(longer, sizeof longer), .text = SL_STR("x")},
        {.type = EVENT_MESSAGE, .addr = ADDR, .kind = SL_STR("nonsense"), .text = SL_STR("x")},
        {.type = EVENT_MESSAGE, .addr = ADDR, .kind = SL_STR("event"), .text = SL_STR("x")},
        {.type = EVENT_MESSAGE, .addr = ADDR, .data = SL_STR("[1]")},
        {.type = EVENT_ANSWER, .conv = SL_STR("nonsense"), .text = SL_STR("x")},
        {.type = EVENT_AGENT_MESSAGE,
         .conv = sl_str_n(longer, sizeof longer),
         .session = sl_str_n(longer, sizeof longer)},
        {.type = EVENT_TIMER, .conv = SL_STR("desk"), .name = SL_STR("hold")},
        {.type = EVENT_NEED, .conv = SL_STR("3.x")},
        {.type = EVENT_RULES, .data = SL_STR("[]")},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        stage_forget(s);
        stage_run(s, &bad[i]);
        assert_int_equal(stage_facts(s, EVENT_REFUSAL), 1);
        assert_int_equal(s->entry_count, 0);
    }
    assert_int_equal(s->timer_count, 0);
    stage_free(&s);
}

/* An owner who lost the partition read the address before, and the conversation after the next owner had made it. */
static void test_states_of_two_owners_do_not_stumble(void **state)
{
    (void)state;
    struct stage *s = open_stage();
    stage_find(s, &conversation_addr_kind, ADDR)->is_there = false;
    state_cache_clear(s->cache);
    stage_forget(s);
    s->seq = 0; /* the same log entry once more */
    message(s, "m1", "Where is my order from Monday?");
    assert_bytes(stage_fact(s, EVENT_REFUSAL)->reason, "exists");
    assert_int_equal(s->entry_count, 0);
    s->seq = 0;
    struct event ev = {.type = EVENT_MESSAGE, .addr = ADDR, .id = SL_STR("m1"), .text = SL_STR("boom")};
    stage_go(s, &ev, true);
    assert_int_equal(s->entry_count, 0);
    stage_free(&s);
}

static void test_bury_leaves_a_placeholder(void **state)
{
    (void)state;
    struct stage *s = stage_new(&conversation_ops, "3");
    struct event ev = {.type = EVENT_MESSAGE,
                       .addr = ADDR,
                       .session = SL_STR("sv"),
                       .id = SL_STR("m1"),
                       .text = SL_STR("boom")};
    stage_go(s, &ev, true);
    assert_true(stage_said(s, "\"code\":\"dead\""));
    assert_true(stage_said(s, "\"id\":\"m1\",\"entry\":\""));
    assert_true(stage_pushed(s, "pv:{3}:acme/web/u1", "r 7 0 sv m1\n{\"code\":\"dead\""));
    assert_int_equal(s->timer_count, 1);
    message(s, "m2", "And once more from the top.");
    assert_int_equal(stage_facts(s, EVENT_TASK), 1);
    const struct event *opened = stage_fact(s, EVENT_OPENED);
    snprintf(conv_id, sizeof conv_id, "%.*s", (int)opened->conv.len, opened->conv.ptr);
    struct event timer = {
        .type = EVENT_TIMER, .conv = conv(), .name = SL_STR("hold"), .gen = look(s)->hold_gen};
    stage_go(s, &timer, true); /* its holder keeps a deadline */
    assert_int_equal(s->timer_count, 1);
    stage_free(&s);
}

/* ---- whatever happens ---- */

static uint64_t random_state;
static unsigned pick(unsigned below)
{
    random_state = random_state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(random_state >> 33) % below;
}

static struct event random_event(const struct conversation *c)
{
    static const enum event_type types[] = {
        EVENT_MESSAGE,        EVENT_MESSAGE,     EVENT_MESSAGE,      EVENT_RATING,        EVENT_HANGUP,
        EVENT_ANSWER,         EVENT_ANSWER,      EVENT_AGENT_ACCEPT, EVENT_AGENT_MESSAGE, EVENT_AGENT_NOTE,
        EVENT_AGENT_TRANSFER, EVENT_AGENT_CLOSE, EVENT_ASSIGN,       EVENT_ASSIGN,        EVENT_GONE,
        EVENT_PLACE,          EVENT_TIMER};
    static const char *const texts[] = {"hi", "a whole sentence of mine.", "人工", "and", ""};
    static const char *const reasons[] = {"", "", "handoff", "unsure", "full"};
    static const char *const agents[] = {"a1", "a2"};
    struct event ev = {.type = types[pick(sizeof types / sizeof types[0])], .conv = conv(), .addr = ADDR};
    ev.text = sl_str_c(texts[pick(5)]);
    ev.reason = sl_str_c(reasons[pick(5)]);
    ev.agent = sl_str_c(agents[pick(2)]);
    ev.session = SL_STR("s1");
    ev.id = SL_STR("i1");
    ev.reply_to = SL_STR(DESK);
    ev.number = pick(7);
    ev.name = pick(3) == 0 ? SL_STR("merge") : SL_STR("hold");
    if (c != NULL) {
        ev.control = c->epoch - (pick(4) == 0);
        ev.turn = c->turn - (pick(4) == 0);
        ev.ticket = c->ticket - (pick(4) == 0);
        ev.gen = (ev.name.len == 5 ? c->merge_gen : c->hold_gen) - (pick(2) == 0);
    }
    return ev;
}

static size_t timers_named(const struct stage *s, const char *name)
{
    size_t count = 0;
    for (size_t i = 0; i < s->timer_count; i++)
        count += strstr(s->timers[i].member, name) != NULL;
    return count;
}

struct watch {
    int64_t epoch;
    char answered[512]; /* turns of this conversation */
};

static void check_step(struct stage *s, struct watch *w)
{
    const struct conversation *c = look(s);
    for (size_t i = 0; i < s->entry_count; i++) {
        const char *tn = strstr(s->entries[i], "\"tn\":");
        if (tn == NULL)
            continue;
        int turn = (int)strtol(tn + 5, NULL, 10);
        assert_true(turn > 0 && turn < (int)sizeof w->answered);
        assert_int_equal(w->answered[turn], 0); /* at most one answer a turn */
        w->answered[turn] = 1;
    }
    if (c == NULL)
        return;
    assert_true(c->epoch >= w->epoch);
    w->epoch = c->epoch;
    assert_int_equal(timers_named(s, "|hold|"), 1);
    assert_int_equal(timers_named(s, "|merge|"), c->merge_gen != 0);
    assert_true((c->agent[0] != '\0') ==
                (c->control == CONVERSATION_OFFERED || c->control == CONVERSATION_ASSIGNED));
    assert_true(c->merge_gen == 0 || c->control == CONVERSATION_BOT);
    assert_true(c->pending.len == 0 || c->control == CONVERSATION_BOT);
}

static void run_seed(uint64_t seed)
{
    random_state = seed;
    struct stage *s = open_stage();
    struct watch w = {.epoch = 0};
    stage_forget(s);
    for (int i = 0; i < 120; i++) {
        const struct conversation *c = look(s);
        if (c == NULL) {
            message(s, "again", "It is me once more, hello!");
            const struct event *opened = stage_fact(s, EVENT_OPENED);
            snprintf(conv_id, sizeof conv_id, "%.*s", (int)opened->conv.len, opened->conv.ptr);
            w = (struct watch){.epoch = 0};
        } else if (pick(8) == 0) {
            assert_true(stage_fire(s));
        } else {
            run(s, random_event(c));
            s->now_ms += pick(500);
        }
        check_step(s, &w);
        stage_forget(s);
    }
    stage_free(&s);
}

static void test_random_events_keep_the_invariants(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++)
        run_seed(seed);
}

#ifdef SL_TEST_BUILD
/* Each deliberate defect does what its name says, so that a checker has something to find. */
static void test_mutants_bite(void **state)
{
    (void)state;
    struct stage *s = open_stage();
    int64_t control = look(s)->epoch;
    answer(s, control, 1, "One.", "");
    stage_forget(s);
    sl_mutant_set("no-turn");
    answer(s, control, 1, "Two.", "");
    assert_int_equal(s->entry_count, 1);
    sl_mutant_set("no-control");
    message(s, "m2", "What else is there to know?");
    stage_forget(s);
    answer(s, control - 1, 2, "Three.", "");
    assert_int_equal(s->entry_count, 1);
    stage_free(&s);
    s = stage_in(CONVERSATION_QUEUED);
    sl_mutant_set("no-ticket");
    assign(s, 77, "a1");
    assert_int_equal(look(s)->control, CONVERSATION_OFFERED);
    sl_mutant_set("timer-no-gen");
    run(s, (struct event){.type = EVENT_TIMER, .conv = conv(), .name = SL_STR("hold"), .gen = 1});
    assert_int_equal(look(s)->control, CONVERSATION_QUEUED);
    sl_mutant_set(NULL);
    stage_free(&s);
}
#endif

static void test_stored_form_of_another_version_is_refused(void **state)
{
    (void)state;
    struct conversation *c = sl_alloc(sizeof *c);
    assert_int_equal(conversation_kind.decode(&c->s, SL_STR("{\"version\":2,\"control\":\"bot\"}")),
                     SL_EINVAL);
    assert_int_equal(conversation_kind.decode(&c->s, SL_STR("{\"version\":1,\"control\":\"moon\"}")),
                     SL_EINVAL);
    assert_int_equal(conversation_kind.decode(&c->s, SL_STR("nonsense")), SL_EINVAL);
    conversation_kind.fini(&c->s);
    free(c);
}

static int last_teardown(void **state)
{
    (void)state;
    (void)stage_state(NULL, NULL, SL_STR_NONE); /* free what it kept */
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conversation_every_cell),
        cmocka_unit_test(test_message_asks_the_bot),
        cmocka_unit_test(test_answer_once_a_turn),
        cmocka_unit_test(test_answer_of_an_overtaken_turn_is_refused),
        cmocka_unit_test(test_answer_must_say_something),
        cmocka_unit_test(test_answer_handoff_queues),
        cmocka_unit_test(test_answer_unsure_twice_queues),
        cmocka_unit_test(test_bot_deadline_asks_again_then_queues),
        cmocka_unit_test(test_bot_deadline_is_not_pushed_away_by_messages),
        cmocka_unit_test(test_fragments_merge_into_one_turn),
        cmocka_unit_test(test_fragments_end_by_a_whole_text_or_by_patience),
        cmocka_unit_test(test_fragments_survive_an_answer),
        cmocka_unit_test(test_pending_is_bounded),
        cmocka_unit_test(test_assign_stale_is_always_answered),
        cmocka_unit_test(test_answer_goes_to_a_desk_or_nowhere),
        cmocka_unit_test(test_offer_without_answer_goes_back_to_its_place),
        cmocka_unit_test(test_gone_of_another_ticket_changes_nothing),
        cmocka_unit_test(test_agent_words_accept_and_answer_both_channels),
        cmocka_unit_test(test_agent_of_another_time_is_refused_to_her_session),
        cmocka_unit_test(test_notes_are_not_for_visitors),
        cmocka_unit_test(test_silent_agent_loses_a_waiting_customer),
        cmocka_unit_test(test_transfer_asks_another_queue),
        cmocka_unit_test(test_close_asks_for_a_rating_once),
        cmocka_unit_test(test_timer_armed_for_a_deadline_that_was_met_is_put_off),
        cmocka_unit_test(test_queue_repeats_its_need_and_cancels),
        cmocka_unit_test(test_place_is_a_hint_and_full_is_said_once),
        cmocka_unit_test(test_closed_leaves_the_store),
        cmocka_unit_test(test_closed_reopens_to_the_bot_or_to_its_agent),
        cmocka_unit_test(test_rules_enter_as_an_event),
        cmocka_unit_test(test_hostile_events_are_refused),
        cmocka_unit_test(test_states_of_two_owners_do_not_stumble),
        cmocka_unit_test(test_bury_leaves_a_placeholder),
        cmocka_unit_test(test_random_events_keep_the_invariants),
#ifdef SL_TEST_BUILD
        cmocka_unit_test(test_mutants_bite),
#endif
        cmocka_unit_test(test_stored_form_of_another_version_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, last_teardown);
}
