/* cli/story.c - steps in a table; frames that arrive become facts; a step is done when its facts are there. */
#include "cli/story.h"

#include "base/json.h"
#include "cli/story_phone.h"
#include "cli/tcp.h"

#include <stdio.h>
#include <stdlib.h>

#define STEP_DEADLINE_MS 8000
#define AGAIN_MS         100 /* after "busy" */
#define SOCKET_PATH      "/ws"
#define ID_MAX_BYTES     128
#define AGENT_SAYS       "您好，我是客服。七天内都可以退，我帮您登记了。"
#define AGENT_SAYS_EN                                                                                        \
    "Hello, I am from the service desk. You can return it within seven days; I have registered it."

/* One side of the conversation. */
struct party {
    struct cli_story *story;
    const char *label;
    struct cli_socket *socket;
    bool is_open, is_welcome;
    unsigned n;                /* of the last command */
    bool is_acked, is_decided; /* the last command */
    uint64_t sent_ns;
    double ack_ms;
    char *frame; /* the last command, to repeat it when the gateway is busy */
    struct sl_timer again;
};

enum code { CODE_QUEUED, CODE_AGENT_JOINED, CODE_CLOSED, CODE_RATE, CODE_RATED, CODE_COUNT };
static const char *const codes[CODE_COUNT] = {"queued", "agent_joined", "closed", "rate", "rated"};

struct cli_story {
    struct sl_loop *loop;
    struct cli_story_config cfg;
    void (*fn)(void *arg, bool is_complete);
    void *arg;
    size_t step;
    uint64_t began_ns;
    int64_t began_unix_ms;
    struct party visitor, agent;
    struct cli_http *login;
    bool has_code[CODE_COUNT];
    unsigned bot_answers, agent_answers, agent_saw;
    int64_t answer_number,
        delivered_number; /* of the agent's answer; the last one that she was told was sent */
    struct cli_phone *phone;
    char menu[ID_MAX_BYTES]; /* the best rating of a menu that the phone showed */
    char conv[ID_MAX_BYTES];
    int64_t ticket, control;
    bool has_snapshot, is_over, is_complete;
    struct sl_timer deadline;
    struct sl_post end;
    struct sl_buf text; /* scratch */
};
/* The steps. */
#define STEPS(X)                                                                                             \
    X(visitor_comes, "the customer comes")                                                                   \
    X(asks_in_chinese, "the visitor asks in Chinese, the bot answers")                                       \
    X(asks_in_english, "the visitor asks in English, the bot answers")                                       \
    X(asks_for_human, "the visitor asks for a person and is in line")                                        \
    X(agent_logs_in, "an agent logs in")                                                                     \
    X(agent_connects, "the agent connects and is offered the visitor")                                       \
    X(agent_looks, "the agent reads the conversation")                                                       \
    X(agent_accepts, "the agent accepts")                                                                    \
    X(agent_answers, "the agent answers")                                                                    \
    X(visitor_thanks, "the visitor writes back to the agent")                                                \
    X(agent_closes, "the agent closes, the visitor is asked to rate")                                        \
    X(visitor_rates, "the visitor rates")

#define X(name, title)                                                                                       \
    static void enter_##name(struct cli_story *s);                                                           \
    static bool is_done_##name(const struct cli_story *s);
STEPS(X)
#undef X
static const struct {
    const char *title;
    void (*enter)(struct cli_story *s);
    bool (*is_done)(const struct cli_story *s);
} steps[] = {
#define X(name, title_) {title_, enter_##name, is_done_##name},
    STEPS(X)
#undef X
};
#define STEP_COUNT (sizeof steps / sizeof *steps)

static double ms_since(uint64_t ns)
{
    return (double)(uv_hrtime() - ns) / 1e6;
}

static void print_note(const char *note)
{
    printf("%22s%s\n", "", note);
}

/* The transcript: time since the beginning, who, what; below it a translation, or how long it took. */
static void print_line(const struct cli_story *s, const char *who, const char *what, const char *note)
{
    printf("%8.1f ms  %-8s %s\n", ms_since(s->began_ns), who, what);
    if (note[0] != '\0')
        print_note(note);
    fflush(stdout);
}

static void finish(struct cli_story *s, bool is_complete)
{
    if (s->is_over)
        return;
    s->is_over = true;
    s->is_complete = is_complete;
    sl_timer_stop(&s->deadline);
    sl_post_now(&s->end);
}

static void SL_PRINTF(2, 3) fail(struct cli_story *s, const char *fmt, ...)
{
    if (s->is_over)
        return;
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "story: step %zu of %zu (%s): ", s->step + 1, STEP_COUNT, steps[s->step].title);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    finish(s, false);
}

static void advance(struct cli_story *s)
{
    while (!s->is_over && steps[s->step].is_done(s)) {
        if (++s->step == STEP_COUNT) {
            s->step--;
            finish(s, true);
            return;
        }
        sl_timer_start(&s->deadline, STEP_DEADLINE_MS);
        steps[s->step].enter(s);
    }
}

static void on_deadline(void *arg)
{
    fail(arg, "did not happen within %d s", STEP_DEADLINE_MS / 1000);
}

static void on_end(void *arg)
{
    struct cli_story *s = arg;
    s->fn(s->arg, s->is_complete);
}

/* Sending. */

static void send_command(struct party *p, const char *topic, const char *command, const char *members)
{
    struct sl_buf *b = &p->story->text;
    sl_buf_clear(b);
    p->n++;
    sl_buf_printf(b, "{\"t\":\"cmd\",\"id\":\"%s-%u\",\"n\":%u,\"topic\":\"%s\",\"k\":\"%s\",\"d\":{%s}}",
                  p->label, p->n, p->n, topic, command, members);
    free(p->frame);
    p->frame = sl_str_dup(sl_buf_view(b));
    p->is_acked = p->is_decided = false;
    p->sent_ns = uv_hrtime();
    cli_socket_send(p->socket, sl_buf_view(b));
}

static void on_again(void *arg)
{
    struct party *p = arg;
    if (p->socket != NULL && !p->story->is_over)
        cli_socket_send(p->socket, sl_str_c(p->frame));
}

/* Receiving: a frame becomes facts, and a line of the transcript. */

static void on_welcome(struct party *p)
{
    p->is_welcome = true;
}

static void print_times(const struct party *p)
{
    char note[96];
    if (p->is_acked)
        (void)snprintf(note, sizeof note, "[acknowledged after %.1f ms, decided after %.1f ms]", p->ack_ms,
                       ms_since(p->sent_ns));
    else
        (void)snprintf(note, sizeof note, "[decided after %.1f ms]", ms_since(p->sent_ns));
    print_note(note);
}

static bool is_last_command(const struct party *p, struct sl_str id)
{
    char last[32];
    (void)snprintf(last, sizeof last, "%s-%u", p->label, p->n);
    return sl_str_eq_c(id, last);
}

static void on_decided(struct party *p)
{
    if (p->is_decided)
        return;
    p->is_decided = true;
    print_times(p);
}

static void on_result(struct party *p, const json_t *frame)
{
    const struct sl_str code = sl_json_get_str(frame, "code"), text = sl_json_get_str(frame, "text");
    if (!is_last_command(p, sl_json_get_str(frame, "id")))
        return;
    if (p == &p->story->agent)
        p->story->answer_number = json_integer_value(json_array_get(json_object_get(frame, "pos"), 1));
    if (sl_json_get_bool(frame, "ok", false))
        on_decided(p);
    else
        fail(p->story, "the command was refused: %.*s (%.*s)", (int)code.len, code.ptr, (int)text.len,
             text.ptr);
}

static void on_ack(struct party *p)
{
    p->is_acked = true;
    p->ack_ms = ms_since(p->sent_ns);
}

static void on_error(struct party *p, const json_t *frame)
{
    const struct sl_str code = sl_json_get_str(frame, "code"), text = sl_json_get_str(frame, "text");
    if (sl_json_get_bool(frame, "retry", false) && p->frame != NULL)
        sl_timer_start(&p->again, AGAIN_MS);
    else
        fail(p->story, "the gateway answered %.*s: %.*s", (int)code.len, code.ptr, (int)text.len, text.ptr);
}

/* A system entry carries its words in both languages. */
static void on_notice(struct cli_story *s, const json_t *message)
{
    const json_t *data = json_object_get(message, "data"); /* borrowed */
    const struct sl_str code = sl_json_get_str(data, "code");
    const struct sl_str zh = sl_json_get_str(data, "zh"), en = sl_json_get_str(data, "en");
    char en_text[256];
    (void)snprintf(en_text, sizeof en_text, "%.*s", (int)en.len, en.ptr);
    for (size_t i = 0; i < CODE_COUNT; i++)
        s->has_code[i] = s->has_code[i] || sl_str_eq_c(code, codes[i]);
    sl_buf_clear(&s->text);
    sl_buf_str(&s->text, zh);
    sl_buf_char(&s->text, '\0');
    print_line(s, "(system)", s->text.ptr, en_text);
}

/* An answer that the visitor sees, and how long after `asked` it came. */
static void print_answer(struct cli_story *s, const char *who, struct sl_str text, const char *gloss,
                         const struct party *asked)
{
    char note[96];
    (void)snprintf(note, sizeof note, "[with the visitor %.1f ms after the %s sent it off]",
                   ms_since(asked->sent_ns), asked->label);
    sl_buf_clear(&s->text);
    sl_buf_str(&s->text, text);
    sl_buf_char(&s->text, '\0');
    print_line(s, who, s->text.ptr, gloss);
    print_note(note);
}

static void on_visitor_entry(struct cli_story *s, const json_t *entry)
{
    const json_t *message = json_object_get(entry, "m"); /* borrowed */
    const struct sl_str by = sl_json_get_str(message, "by"), text = sl_json_get_str(message, "text");
    if (is_last_command(&s->visitor, sl_json_get_str(message, "id")))
        on_decided(&s->visitor); /* read from the log, not pushed: the entry stands for the result */
    if (sl_str_eq_c(by, "system")) {
        on_notice(s, message);
    } else if (sl_str_eq_c(by, "bot")) {
        s->bot_answers++;
        print_answer(s, "bot", text, "", &s->visitor);
    } else if (sl_str_eq_c(by, "agent")) {
        s->agent_answers++;
        print_answer(s, "agent", text, AGENT_SAYS_EN, &s->agent);
    }
}

/* What the agent is told of a message on its way: {"code":"delivery","of":n,"state":...}. */
static void on_delivery(struct cli_story *s, const json_t *data)
{
    const struct sl_str state = sl_json_get_str(data, "state");
    char note[96];
    if (!sl_str_eq_c(sl_json_get_str(data, "code"), "delivery"))
        return;
    if (sl_str_eq_c(state, "failed") || sl_str_eq_c(state, "unknown")) {
        fail(s, "message %lld is %.*s", (long long)sl_json_get_int(data, "of", 0), (int)state.len, state.ptr);
        return;
    }
    s->delivered_number = sl_json_get_int(data, "of", 0);
    (void)snprintf(note, sizeof note, "[the agent sees message %lld: %.*s]", (long long)s->delivered_number,
                   (int)state.len, state.ptr);
    print_note(note);
}

static void on_agent_entry(struct cli_story *s, struct sl_str topic, const json_t *entry)
{
    if (sl_str_eq_c(topic, "me")) {
        const struct sl_str conv = sl_json_get_str(entry, "c");
        if (!sl_str_eq_c(sl_json_get_str(entry, "t"), "offered") || conv.len >= sizeof s->conv ||
            sl_json_get_int(entry, "at", 0) < s->began_unix_ms) /* of a story before */
            return;
        (void)snprintf(s->conv, sizeof s->conv, "%.*s", (int)conv.len, conv.ptr);
        s->ticket = sl_json_get_int(entry, "tk", 0);
        return;
    }
    s->control = sl_json_get_int(entry, "ce", s->control); /* transfers raise it */
    const json_t *message = json_object_get(entry, "m");   /* borrowed */
    if (sl_str_eq_c(sl_json_get_str(message, "by"), "visitor"))
        s->agent_saw++;
    on_delivery(s, json_object_get(message, "data"));
}

static void on_snapshot(struct cli_story *s, const json_t *frame)
{
    const json_t *state = json_object_get(json_object_get(frame, "snap"), "state"); /* borrowed */
    s->control = sl_json_get_int(state, "epoch", 0);
    s->has_snapshot = true;
}

static void on_frame(struct party *p, const json_t *frame)
{
    struct cli_story *s = p->story;
    const struct sl_str t = sl_json_get_str(frame, "t");
    const json_t *entry = json_object_get(frame, "d"); /* borrowed */
    if (sl_str_eq_c(t, "welcome"))
        on_welcome(p);
    else if (sl_str_eq_c(t, "ack"))
        on_ack(p);
    else if (sl_str_eq_c(t, "res"))
        on_result(p, frame);
    else if (sl_str_eq_c(t, "err"))
        on_error(p, frame);
    else if (sl_str_eq_c(t, "ok"))
        on_snapshot(s, frame);
    else if (sl_str_eq_c(t, "ev") && p == &s->visitor)
        on_visitor_entry(s, entry);
    else if (sl_str_eq_c(t, "ev"))
        on_agent_entry(s, sl_json_get_str(frame, "topic"), entry);
}

static void on_message(void *arg, struct sl_str text)
{
    struct party *p = arg;
    struct sl_fail why = {0};
    json_t *root = sl_json_parse(text, &why); /* owned */
    if (root == NULL) {
        fail(p->story, "a message of the gateway is no JSON: %s", why.text);
        return;
    }
    if (json_is_array(root)) {
        for (size_t i = 0; i < json_array_size(root); i++)
            on_frame(p, json_array_get(root, i));
    } else {
        on_frame(p, root);
    }
    json_decref(root);
    advance(p->story);
}

static void on_opened(void *arg)
{
    struct party *p = arg;
    struct cli_story *s = p->story;
    struct sl_json j;
    p->is_open = true;
    sl_buf_clear(&s->text);
    sl_json_begin(&j, &s->text);
    sl_json_open(&j, NULL, '{');
    sl_json_c(&j, "t", "hello");
    sl_json_c(&j, "role", p == &s->visitor ? "visitor" : "agent");
    if (p == &s->visitor)
        sl_json_c(&j, "inbox", s->cfg.inbox);
    else
        sl_json_c(&j, "token", s->cfg.token);
    sl_json_c(&j, "client", "sluice-up/1");
    sl_json_close(&j, '}');
    cli_socket_send(p->socket, sl_buf_view(&s->text));
}

static void on_closed(void *arg, int code, const char *why)
{
    struct party *p = arg;
    p->socket = NULL;
    fail(p->story, "the %s's socket ended: %s (code %d)", p->label, why, code);
}

static void connect_party(struct party *p)
{
    static const struct cli_socket_ops ops = {
        .opened = on_opened, .message = on_message, .closed = on_closed};
    const struct cli_story *s = p->story;
    p->socket = cli_socket_open(s->loop, s->cfg.ip, s->cfg.port, SOCKET_PATH, &ops, p);
}

/* A customer of another channel. Her phone shows texts; which step it is says what they are. */

static void enter_asks_for_human(struct cli_story *s);
static void enter_agent_closes(struct cli_story *s);
static void enter_visitor_rates(struct cli_story *s);

static bool is_in(const struct cli_story *s, void (*enter)(struct cli_story *))
{
    return steps[s->step].enter == enter;
}

/* A menu for the rating: the item of five stars. */
static void keep_menu(struct cli_story *s, const json_t *entry)
{
    const json_t *options = json_object_get(json_object_get(entry, "more"), "options"); /* borrowed */
    for (size_t i = 0; i < json_array_size(options); i++) {
        const json_t *o = json_array_get(options, i); /* borrowed */
        const struct sl_str id = sl_json_get_str(o, "id");
        size_t at = 0;
        if (id.len > 0 && id.len < sizeof s->menu &&
            sl_str_find(sl_json_get_str(o, "text"), SL_STR("★★★★★"), &at))
            (void)snprintf(s->menu, sizeof s->menu, "%.*s", (int)id.len, id.ptr);
    }
}

static void on_shown(void *arg, const json_t *entry)
{
    struct cli_story *s = arg;
    const struct sl_str text = sl_json_get_str(entry, "text");
    size_t at = 0;
    keep_menu(s, entry);
    if (sl_str_eq_c(sl_json_get_str(entry, "by"), "platform")) {
        fail(s, "the provider says: %.*s", (int)text.len, text.ptr);
        return;
    }
    if (sl_str_find(text, SL_STR(AGENT_SAYS), &at)) {
        s->agent_answers++;
        print_answer(s, "agent", text, AGENT_SAYS_EN, &s->agent);
    } else if (s->conv[0] == '\0' && !is_in(s, enter_asks_for_human)) {
        s->bot_answers++;
        print_answer(s, "bot", text, "", &s->visitor);
    } else {
        s->has_code[CODE_QUEUED] = s->has_code[CODE_QUEUED] || is_in(s, enter_asks_for_human);
        s->has_code[CODE_RATE] = s->has_code[CODE_RATE] || sl_str_find(text, SL_STR("评分"), &at) ||
                                 sl_str_find(text, SL_STR("rate from 1"), &at);
        s->has_code[CODE_RATED] = s->has_code[CODE_RATED] || sl_str_find(text, SL_STR("感谢您的评价"), &at) ||
                                  sl_str_find(text, SL_STR("Thank you for rating"), &at);
        print_answer(s, "(system)", text, "", is_in(s, enter_agent_closes) ? &s->agent : &s->visitor);
    }
    advance(s);
}

static void on_written(void *arg, bool ok)
{
    struct cli_story *s = arg;
    if (!ok) {
        fail(s, "the gateway did not take the customer's message");
        return;
    }
    on_ack(&s->visitor);
    on_decided(&s->visitor);
    advance(s);
}

static void on_phone_failed(void *arg, const char *why)
{
    fail(arg, "%s", why);
}

static void write_by_phone(struct cli_story *s, const char *text, const char *menu)
{
    s->visitor.is_acked = s->visitor.is_decided = false;
    s->visitor.sent_ns = uv_hrtime();
    cli_phone_say(s->phone, sl_str_c(text), sl_str_c(menu));
}

/* What the two say. */

static void say(struct cli_story *s, const char *members, const char *text, const char *en)
{
    print_line(s, s->visitor.label, text, en);
    if (s->phone != NULL)
        write_by_phone(s, text, "");
    else
        send_command(&s->visitor, "me", "message.send", members);
}

static void enter_visitor_comes(struct cli_story *s)
{
    static const struct cli_phone_ops ops = {
        .written = on_written, .shown = on_shown, .failed = on_phone_failed};
    if (s->cfg.channel == NULL) {
        connect_party(&s->visitor);
        return;
    }
    const struct cli_phone_config phone = {
        .ip = s->cfg.ip, .port = s->cfg.sim_port, .channel = s->cfg.channel, .customer = s->cfg.customer};
    s->phone = cli_phone_open(s->loop, &phone, &ops, s);
    s->visitor.is_welcome = true;
}
static bool is_done_visitor_comes(const struct cli_story *s)
{
    return s->visitor.is_welcome;
}

static void enter_asks_in_chinese(struct cli_story *s)
{
    say(s, "\"text\":\"请问怎么退货？\"", "请问怎么退货？", "How do I return an item, please?");
}
static bool is_done_asks_in_chinese(const struct cli_story *s)
{
    return s->visitor.is_decided && s->bot_answers >= 1;
}

static void enter_asks_in_english(struct cli_story *s)
{
    say(s, "\"text\":\"How long does a refund take?\"", "How long does a refund take?", "");
}
static bool is_done_asks_in_english(const struct cli_story *s)
{
    return s->visitor.is_decided && s->bot_answers >= 2;
}

static void enter_asks_for_human(struct cli_story *s)
{
    say(s, "\"text\":\"转人工\"", "转人工", "A person, please.");
}
static bool is_done_asks_for_human(const struct cli_story *s)
{
    return s->visitor.is_decided && s->has_code[CODE_QUEUED];
}

static void on_login(void *arg, int status, struct sl_str body)
{
    struct cli_story *s = arg;
    s->login = NULL;
    json_t *root = status == 200 ? sl_json_parse(body, NULL) : NULL; /* owned */
    const struct sl_str token = root != NULL ? sl_json_get_str(root, "token") : SL_STR_NONE;
    if (token.len == 0 || token.len >= CLI_STORY_TOKEN_BYTES)
        fail(s, "POST /v1/login answered %d", status);
    else
        (void)snprintf(s->cfg.token, CLI_STORY_TOKEN_BYTES, "%.*s", (int)token.len, token.ptr);
    json_decref(root);
    advance(s);
}

static void enter_agent_logs_in(struct cli_story *s)
{
    if (s->cfg.once_token == NULL)
        return; /* she did, in the story before */
    sl_buf_clear(&s->text);
    sl_buf_printf(&s->text, "{\"once\":\"%s\"}", s->cfg.once_token);
    s->login = cli_http_open(s->loop, s->cfg.ip, s->cfg.port, "POST", "/v1/login", sl_buf_view(&s->text),
                             STEP_DEADLINE_MS, on_login, s);
}
static bool is_done_agent_logs_in(const struct cli_story *s)
{
    return s->cfg.token[0] != '\0';
}

static void enter_agent_connects(struct cli_story *s)
{
    print_line(s, "(agent)", "客服登录",
               s->cfg.once_token != NULL ? "The agent logs in with the one-time token."
                                         : "The agent connects again.");
    s->agent.sent_ns = uv_hrtime();
    connect_party(&s->agent);
}
static bool is_done_agent_connects(const struct cli_story *s)
{
    return s->agent.is_welcome && s->conv[0] != '\0';
}

static const char *conversation_topic(struct cli_story *s, char out[ID_MAX_BYTES + 8])
{
    (void)snprintf(out, ID_MAX_BYTES + 8, "conv:%s", s->conv);
    return out;
}

static void enter_agent_accepts(struct cli_story *s)
{
    char topic[ID_MAX_BYTES + 8], members[48], note[96];
    (void)snprintf(note, sizeof note, "Offered %.1f ms after the agent connected; accepted.",
                   ms_since(s->agent.sent_ns));
    print_line(s, "(agent)", "客服接入", note);
    (void)snprintf(members, sizeof members, "\"ticket\":%lld", (long long)s->ticket);
    send_command(&s->agent, conversation_topic(s, topic), "conv.accept", members);
}
static bool is_done_agent_accepts(const struct cli_story *s)
{
    /* the notice may be spared where each message counts */
    return s->agent.is_decided && (s->phone != NULL || s->has_code[CODE_AGENT_JOINED]);
}

static void enter_agent_looks(struct cli_story *s)
{
    sl_buf_clear(&s->text);
    sl_buf_printf(&s->text, "{\"t\":\"sub\",\"id\":\"look\",\"topic\":\"conv:%s\"}", s->conv);
    cli_socket_send(s->agent.socket, sl_buf_view(&s->text));
}
static bool is_done_agent_looks(const struct cli_story *s)
{
    return s->has_snapshot;
}

static void enter_agent_answers(struct cli_story *s)
{
    char topic[ID_MAX_BYTES + 8], members[160];
    (void)snprintf(members, sizeof members, "\"text\":\"" AGENT_SAYS "\",\"control\":%lld",
                   (long long)s->control);
    send_command(&s->agent, conversation_topic(s, topic), "message.send", members);
}
static bool is_done_agent_answers(const struct cli_story *s)
{
    return s->agent.is_decided && s->agent_answers >= 1 &&
           (s->phone == NULL || s->delivered_number >= s->answer_number);
}

static void enter_visitor_thanks(struct cli_story *s)
{
    say(s, "\"text\":\"太好了，谢谢！\"", "太好了，谢谢！", "Great, thank you!");
}
static bool is_done_visitor_thanks(const struct cli_story *s)
{
    return s->visitor.is_decided && s->agent_saw >= 1;
}

static void enter_agent_closes(struct cli_story *s)
{
    char topic[ID_MAX_BYTES + 8], members[48];
    (void)snprintf(members, sizeof members, "\"control\":%lld", (long long)s->control);
    send_command(&s->agent, conversation_topic(s, topic), "conv.close", members);
}
static bool is_done_agent_closes(const struct cli_story *s)
{
    return s->agent.is_decided && s->has_code[CODE_RATE] && (s->phone != NULL || s->has_code[CODE_CLOSED]);
}

static void enter_visitor_rates(struct cli_story *s)
{
    print_line(s, s->visitor.label, "★★★★★", "");
    if (s->phone != NULL)
        write_by_phone(s, "5", s->menu);
    else
        send_command(&s->visitor, "me", "message.rate", "\"score\":5");
}
static bool is_done_visitor_rates(const struct cli_story *s)
{
    return s->visitor.is_decided && (s->phone == NULL || s->has_code[CODE_RATED]);
}

/* Life. */

static void party_init(struct party *p, struct cli_story *s, const char *label)
{
    p->story = s;
    p->label = label;
    sl_timer_init(&p->again, s->loop, on_again, p);
}

struct cli_story *cli_story_start(struct sl_loop *l, const struct cli_story_config *cfg,
                                  void (*fn)(void *arg, bool is_complete), void *arg)
{
    struct cli_story *s = sl_alloc(sizeof *s);
    s->loop = l;
    s->cfg = *cfg;
    s->fn = fn;
    s->arg = arg;
    s->began_ns = uv_hrtime();
    s->began_unix_ms = sl_loop_unix_ms(l);
    sl_buf_init(&s->text, 0);
    party_init(&s->visitor, s, cfg->channel == NULL ? "visitor" : "customer");
    party_init(&s->agent, s, "agent");
    sl_timer_init(&s->deadline, l, on_deadline, s);
    sl_post_init(&s->end, l, on_end, s);
    sl_timer_start(&s->deadline, STEP_DEADLINE_MS);
    steps[0].enter(s);
    advance(s);
    return s;
}

static void party_fini(struct party *p)
{
    cli_socket_close(&p->socket);
    sl_timer_stop(&p->again);
    free(p->frame);
}

void cli_story_free(struct cli_story **sp)
{
    struct cli_story *s = *sp;
    *sp = NULL;
    if (s == NULL)
        return;
    party_fini(&s->visitor);
    party_fini(&s->agent);
    cli_phone_close(&s->phone);
    cli_http_close(&s->login);
    sl_timer_stop(&s->deadline);
    sl_post_cancel(&s->end);
    sl_buf_fini(&s->text);
    free(s);
}
