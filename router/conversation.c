/* router/conversation.c - the transition table of a conversation, and what each cell does. */
#include "router/conversation.h"

#include "router/quota.h"
#include "router/rules.h"

#include "base/fault.h"
#include "proto/message.h"

/* Everything one event needs; made by step(), borrowed by every handler. */
struct talk {
    struct effects *fx;
    const struct event *ev;
    int64_t now_ms;
    const struct rules *rules;
    const struct rules_inbox *inbox;
    struct conversation *c;         /* NULL: no such conversation */
    struct conversation_addr *addr; /* by address, and when a closed conversation leaves; else NULL */
    struct sl_str tenant, inbox_name, address;
    bool is_too_much; /* what was said needs more sends than the channel has left */
};

typedef void (*cell_fn)(struct talk *t);

/* One row an event, one column a state. no_*: refused, with a record and, for a person's command, a push. */
/* clang-format off */
#define CONVERSATION_TABLE(X)                                                                                                     \
    /* event           new                bot                queued             offered            assigned           closed */   \
    X(MESSAGE,         on_first_message,  on_bot_message,    on_line_message,   on_line_message,   on_agents_message, on_reopen)  \
    X(RATING,          no_conversation,   on_rating,         on_rating,         on_rating,         on_rating,         on_rating)  \
    X(HANGUP,          no_conversation,   on_hangup,         on_hangup,         on_hangup,         on_hangup,         no_closed)  \
    X(ANSWER,          no_conversation,   on_answer,         no_stale,          no_stale,          no_stale,          no_stale)   \
    X(AGENT_ACCEPT,    no_conversation,   no_holder,         no_holder,         on_accept,         no_accepted,       no_closed)  \
    X(AGENT_MESSAGE,   no_conversation,   no_holder,         no_holder,         on_agent_message,  on_agent_message,  no_closed)  \
    X(AGENT_NOTE,      no_conversation,   no_holder,         no_holder,         on_note,           on_note,           no_closed)  \
    X(AGENT_TRANSFER,  no_conversation,   no_holder,         no_holder,         on_transfer,       on_transfer,       no_closed)  \
    X(AGENT_CLOSE,     no_conversation,   no_holder,         no_holder,         on_close,          on_close,          no_closed)  \
    X(ASSIGN,          no_assign,         no_assign,         on_assign,         on_assign_again,   on_assign_again,   no_assign)  \
    X(GONE,            no_assign,         no_assign,         no_assign,         on_gone,           on_gone,           no_assign)  \
    X(PLACE,           nothing,           nothing,           on_place,          nothing,           nothing,           nothing)    \
    X(OUTCOME,         nothing,           on_outcome,         on_outcome,        on_outcome,        on_outcome,        on_outcome) \
    X(TIMER,           nothing,           on_bot_timer,      on_line_timer,     on_offer_timer,    on_agent_timer,    on_retained)
/* clang-format on */

#define X(event, in_new, in_bot, in_queued, in_offered, in_assigned, in_closed)                              \
    static void in_new(struct talk *t);                                                                      \
    static void in_bot(struct talk *t);                                                                      \
    static void in_queued(struct talk *t);                                                                   \
    static void in_offered(struct talk *t);                                                                  \
    static void in_assigned(struct talk *t);                                                                 \
    static void in_closed(struct talk *t);
CONVERSATION_TABLE(X)
#undef X

static const cell_fn table[EVENT_TYPE_COUNT][CONVERSATION_CONTROL_COUNT] = {
#define X(event, ...) [EVENT_##event] = {__VA_ARGS__},
    CONVERSATION_TABLE(X)
#undef X
};

/* Who may follow whom. The move from offered to assigned keeps its holder and with it the control epoch: an
 * agent may send "accept" and the first words in one breath. */
#define CONVERSATION_MOVES(X)                                                                                \
    X(NEW, BOT)                                                                                              \
    X(NEW, QUEUED)                                                                                           \
    X(NEW, CLOSED)                                                                                           \
    X(BOT, QUEUED)                                                                                           \
    X(BOT, CLOSED)                                                                                           \
    X(QUEUED, OFFERED)                                                                                       \
    X(QUEUED, CLOSED)                                                                                        \
    X(OFFERED, ASSIGNED)                                                                                     \
    X(OFFERED, QUEUED)                                                                                       \
    X(OFFERED, CLOSED)                                                                                       \
    X(ASSIGNED, QUEUED)                                                                                      \
    X(ASSIGNED, CLOSED)                                                                                      \
    X(CLOSED, BOT)                                                                                           \
    X(CLOSED, QUEUED)
static const bool moves[CONVERSATION_CONTROL_COUNT][CONVERSATION_CONTROL_COUNT] = {
#define X(from, to) [CONVERSATION_##from][CONVERSATION_##to] = true,
    CONVERSATION_MOVES(X)
#undef X
};

struct move {            /* strings may be the conversation's own: they are read before it changes them */
    const char *reason;  /* one word, for records */
    struct sl_str queue; /* to queued: the queue; empty: the one it had, or the inbox's */
    struct sl_str agent; /* to offered: the agent; to queued: the one to prefer */
    struct sl_str avoid; /* to queued: an agent who just let it lie */
    bool keeps_place;    /* to queued: its first place, not a new one */
};
static void conversation_go(struct talk *t, enum conversation_control to, const struct move *m);
static void refuse(struct talk *t, const char *code, const char *text);

/* ---- finding what an event is about ---- */

static bool is_by_address(enum event_type type)
{
    return type == EVENT_MESSAGE || type == EVENT_RATING || type == EVENT_HANGUP;
}

static struct sl_str cut_at_slash(struct sl_str *rest)
{
    const char *slash = rest->len > 0 ? memchr(rest->ptr, '/', rest->len) : NULL;
    struct sl_str head = *rest;
    if (slash != NULL)
        head.len = (size_t)(slash - rest->ptr);
    size_t used = slash != NULL ? head.len + 1 : head.len;
    *rest = sl_str_n(rest->ptr + used, rest->len - used);
    return head;
}

#define ADDR_MAX_BYTES 330 /* of KEY_MAX_BYTES, with room for any prefix and tag */

/* Leaves t->address empty when the address is malformed. */
static bool split_addr(struct talk *t, struct sl_str addr)
{
    struct sl_str rest = addr;
    t->tenant = cut_at_slash(&rest);
    t->inbox_name = cut_at_slash(&rest);
    bool is_ok = addr.len <= ADDR_MAX_BYTES && t->tenant.len <= KEY_TENANT_MAX_BYTES &&
                 key_part_ok(t->tenant) && key_part_ok(t->inbox_name) && key_part_ok(rest);
    t->address = is_ok ? rest : SL_STR_NONE;
    return is_ok;
}

static bool is_conversation_id(struct sl_str id)
{
    char tag[KEY_TAG_MAX_BYTES];
    return key_conversation_tag(tag, id) == SL_OK;
}

enum found { FOUND, FOUND_NOTHING, FOUND_MALFORMED, FOUND_LATER, FOUND_ELSEWHERE };

static enum found load(struct talk *t, struct sl_str id)
{
    struct conversation *c = fx_state(t->fx, &conversation_kind, id);
    if (c == NULL)
        return FOUND_LATER;
    if (!c->s.exists)
        return FOUND_NOTHING;
    t->c = c;
    if (!split_addr(t, sl_str_c(c->addr)))
        return FOUND_MALFORMED;
    t->inbox = rules_inbox(t->rules, t->tenant, t->inbox_name);
    return FOUND;
}

static enum found find_by_address(struct talk *t)
{
    if (!split_addr(t, t->ev->addr))
        return FOUND_MALFORMED;
    t->inbox = rules_inbox(t->rules, t->tenant, t->inbox_name);
    t->addr = fx_state(t->fx, &conversation_addr_kind, t->ev->addr);
    if (t->addr == NULL)
        return FOUND_LATER;
    if (!t->addr->s.exists || !is_conversation_id(sl_str_c(t->addr->conv)))
        return FOUND_NOTHING;
    return load(t, sl_str_c(t->addr->conv));
}

static bool is_partition(struct sl_str tag)
{
    for (size_t i = 0; i < tag.len; i++)
        if (tag.ptr[i] < '0' || tag.ptr[i] > '9')
            return false;
    return tag.len >= 1 && tag.len <= 5;
}

static enum found hand_on(struct talk *t, struct sl_str tag, struct sl_str conv)
{
    char name[KEY_TAG_MAX_BYTES];
    struct event fact = *t->ev;
    memcpy(name, tag.ptr, tag.len);
    name[tag.len] = '\0';
    struct key in = key_in(name);
    fact.conv = conv;
    fx_fact(t->fx, key_str(&in), &fact);
    return FOUND_ELSEWHERE;
}

/* A message that proves which conversation it belongs to, an email's thread for one: wherever that lives. When it is not there
 * (any more), the message goes back to the partition of its address, as one that proves nothing. */
static enum found find_by_thread(struct talk *t)
{
    const struct event *ev = t->ev;
    char tag[KEY_TAG_MAX_BYTES];
    if (key_conversation_tag(tag, ev->conv) != SL_OK || !split_addr(t, ev->addr))
        return FOUND_NOTHING;
    bool is_here = strcmp(tag, fx_tag(t->fx)) == 0;
    if (!is_here)
        return ev->source.len > 0 ? FOUND_NOTHING : hand_on(t, sl_str_c(tag), ev->conv);
    struct sl_str tenant = t->tenant;
    enum found found = load(t, ev->conv);
    if (found == FOUND_LATER)
        return found;
    bool is_same_tenant = found == FOUND && sl_str_eq(tenant, t->tenant);
    (void)split_addr(t, ev->addr); /* who writes, and where */
    if (is_same_tenant)
        return FOUND;
    t->c = NULL;
    if (is_partition(ev->source))
        return hand_on(t, ev->source, SL_STR_NONE);
    return FOUND_NOTHING;
}

static enum found find(struct talk *t)
{
    if (t->ev->type == EVENT_MESSAGE && t->ev->conv.len > 0) {
        enum found found = find_by_thread(t);
        if (found != FOUND_NOTHING)
            return found;
    }
    if (is_by_address(t->ev->type))
        return find_by_address(t);
    if (!is_conversation_id(t->ev->conv))
        return FOUND_MALFORMED;
    enum found found = load(t, t->ev->conv);
    if (found == FOUND && t->ev->type == EVENT_TIMER && t->c->control == CONVERSATION_CLOSED) {
        t->addr = fx_state(t->fx, &conversation_addr_kind, sl_str_c(t->c->addr));
        if (t->addr == NULL)
            return FOUND_LATER;
    }
    return found;
}

/* A conversation for an address that has none. Its state is fetched like any other: NULL means later.
 * An owner who has lost the partition and does not know it yet may read what the next owner wrote: then the conversation is there
 * already. What this step decides is never committed, but it must not stumble. */
static struct conversation *make(struct talk *t)
{
    char ulid[27];
    struct sl_buf id;
    fx_ulid(t->fx, ulid);
    sl_buf_init(&id, 0);
    sl_buf_c(&id, fx_tag(t->fx));
    sl_buf_char(&id, '.');
    sl_buf_c(&id, ulid);
    struct conversation *c = fx_state(t->fx, &conversation_kind, sl_buf_view(&id));
    sl_buf_fini(&id);
    if (c != NULL && c->s.exists) {
        refuse(t, "exists", "");
        return NULL;
    }
    t->c = c;
    return c;
}

static void open_made(struct talk *t)
{
    struct conversation *c = t->c;
#define X(member) conversation_set(&c->member, SL_STR_NONE);
    CONVERSATION_STRINGS(X)
#undef X
    conversation_set(&c->addr, t->ev->addr);
    conversation_set(&c->channel, t->ev->channel);
    conversation_set(&t->addr->conv, sl_str_c(c->s.id));
    c->is_answered = 1;
    c->opened_ms = t->now_ms;
    c->priority = t->inbox->priority;
    fx_changed(t->fx, c);
    fx_changed(t->fx, t->addr);
    fx_fact(
        t->fx, SL_STR_NONE,
        &(struct event){
            .type = EVENT_OPENED, .conv = sl_str_c(c->s.id), .addr = t->ev->addr, .channel = t->ev->channel});
}

/* ---- refusing ---- */

static bool is_agents(enum event_type type)
{
    return type == EVENT_AGENT_ACCEPT || type == EVENT_AGENT_MESSAGE || type == EVENT_AGENT_NOTE ||
           type == EVENT_AGENT_TRANSFER || type == EVENT_AGENT_CLOSE;
}

static void push_refusal(struct talk *t, const char *code, const char *text)
{
    const struct event *ev = t->ev;
    struct key channel;
    if (is_by_address(ev->type) && t->address.len > 0)
        channel = key_push_visitor(fx_tag(t->fx), ev->addr);
    else if (is_agents(ev->type) && key_part_ok(ev->session))
        channel = key_push_session(ev->session);
    else
        return;
    struct sl_buf json;
    struct sl_json j;
    sl_buf_init(&json, 0);
    sl_json_begin(&j, &json);
    sl_json_open(&j, NULL, '{');
    sl_json_c(&j, "code", code);
    sl_json_c(&j, "text", text);
    sl_json_close(&j, '}');
    fx_publish(t->fx, &channel,
               &(struct push){.what = PUSH_REFUSAL,
                              .gen = fx_gen(t->fx),
                              .session = ev->session,
                              .id = ev->id,
                              .json = sl_buf_view(&json)});
    sl_buf_fini(&json);
}

/* A refusal is a record, never history. */
static void refuse(struct talk *t, const char *code, const char *text)
{
    const struct event *ev = t->ev;
    struct event record = {.type = EVENT_REFUSAL,
                           .conv = t->c != NULL ? sl_str_c(t->c->s.id) : ev->conv,
                           .id = ev->id,
                           .agent = ev->agent,
                           .control = ev->control,
                           .turn = ev->turn,
                           .ticket = ev->ticket,
                           .name = sl_str_c(event_type_name(ev->type)),
                           .reason = sl_str_c(code)};
    fx_fact(t->fx, SL_STR_NONE, &record);
    push_refusal(t, code, text);
}

static void nothing(struct talk *t)
{
    (void)t;
}

static void no_conversation(struct talk *t)
{
    refuse(t, "no_conversation", "There is no such conversation.");
}

static void no_closed(struct talk *t)
{
    refuse(t, "closed", "The conversation is closed.");
}

static void no_holder(struct talk *t)
{
    refuse(t, "not_yours", "The conversation is not with you.");
}

static void no_accepted(struct talk *t)
{
    bool is_own = sl_str_eq_c(t->ev->agent, t->c->agent);
    refuse(t, is_own ? "accepted" : "not_yours",
           is_own ? "It was accepted already." : "The conversation is not with you.");
}

static void no_stale(struct talk *t)
{
    refuse(t, "stale", "Another one holds the conversation now.");
}

static void refuse_malformed(struct talk *t)
{
    refuse(t, "malformed", "The command is malformed.");
}

/* ---- what people see ---- */

struct said {
    enum msg_author by;
    struct sl_str who, id;
    enum msg_kind kind;
    struct sl_str text, data, reply_to;
    int64_t turn;    /* a bot's */
    bool is_hidden;  /* agents only */
    bool is_result;  /* this entry answers the event's sender */
    bool is_comfort; /* a customer who does not get it misses nothing */
};

static void publish_entry(struct talk *t, const struct said *what, struct sl_str entry, uint64_t n,
                          uint64_t v)
{
    const char *tag = fx_tag(t->fx);
    struct push p = {.what = PUSH_ENTRY, .gen = fx_gen(t->fx), .json = entry};
    if (what->is_result) {
        p.session = t->ev->session;
        p.id = t->ev->id;
    }
    if (!what->is_hidden) {
        struct key channel = key_push_visitor(tag, sl_str_c(t->c->addr));
        p.number = v;
        fx_publish(t->fx, &channel, &p);
    }
    if (t->c->had_human) {
        struct key channel = key_push_conversation(tag, sl_str_c(t->c->s.id));
        p.number = n;
        fx_publish(t->fx, &channel, &p);
    }
}

/* The entry's members without braces (effects.h). */
static void write_members(struct talk *t, const struct said *what, struct sl_str id, struct sl_buf *out)
{
    struct msg m = {.id = id,
                    .tenant = t->tenant,
                    .inbox = t->inbox_name,
                    .channel = sl_str_c(t->c->channel),
                    .conversation = sl_str_c(t->c->s.id),
                    .by = what->by,
                    .who = what->who,
                    .kind = what->kind,
                    .text = what->text,
                    .data = what->data,
                    .reply_to = what->reply_to,
                    .received_unix_ms = t->ev->at_ms,
                    .traceparent = t->ev->trace};
    struct sl_json j;
    sl_json_begin(&j, out);
    sl_json_int(&j, "at", t->now_ms);
    sl_json_int(&j, "ce", t->c->epoch);
    sl_json_str(&j, "src", fx_entry(t->fx));
    if (what->turn != 0)
        sl_json_int(&j, "tn", what->turn);
    msg_write(&j, "m", &m);
}

/* ---- what goes out through a delivery lane ---- */

/* How to answer: as the customer's latest message says. */
static void take_way_back(struct talk *t)
{
    const struct event *ev = t->ev;
    struct conversation *c = t->c;
    bool has_lane = key_is_lane_log(ev->lane);
    bool is_other = !sl_str_eq_c(ev->addr, c->addr);
    if (ev->context.len > EVENT_TEXT_MAX_BYTES / 8)
        return;
    fx_changed(t->fx, c);
    conversation_set(&c->lane, has_lane ? ev->lane : SL_STR_NONE);
    conversation_set(&c->context, has_lane ? ev->context : SL_STR_NONE);
    conversation_set(&c->reply_addr, is_other ? ev->addr : SL_STR_NONE);
    if (has_lane && ev->quota.len > 0)
        conversation_quota_grant(c, t->now_ms, ev->quota, ev->limits);
}

/* What became of an entry on its way to the customer. */
struct fate {
    int64_t number; /* of the entry */
    struct sl_str state, code, words;
    int64_t needs, left; /* sends; 0: the reason has no numbers */
};
static void tell_delivery(struct talk *t, const struct fate *fate);

/* A channel that counts: may this be sent, and what does it take? False: it is not sent, and agents see why. */
static bool spend(struct talk *t, const struct said *what, const struct msg *m, int64_t n, int64_t *sends)
{
    struct conversation *c = t->c;
    int64_t left = conversation_quota_left(c, t->now_ms);
    struct fate fate = {
        .number = n, .state = SL_STR("failed"), .code = SL_STR("window_closed"), .needs = 0, .left = left};
    *sends = left > 0 ? conversation_quota_cost(c, m, left) : 1;
    if (what->is_comfort && left - *sends < CONVERSATION_COMFORT_MIN)
        return false; /* nothing is missed */
    if (*sends <= left) {
        conversation_quota_spend(c, *sends);
        return true;
    }
    if (left > 0) {
        fate.code = SL_STR("needs_sends");
        fate.needs = *sends;
        t->is_too_much = true;
    }
    tell_delivery(t, &fate);
    return false;
}

static void send_out(struct talk *t, const struct said *what, struct sl_str id, uint64_t n)
{
    struct conversation *c = t->c;
    bool is_notice = what->kind == MSG_EVENT; /* a channel of texts shows its words */
    const struct msg m = {.kind = is_notice ? MSG_TEXT : what->kind,
                          .text = what->text,
                          .data = is_notice ? SL_STR_NONE : what->data};
    int64_t sends = 0;
    if (c->is_metered && !spend(t, what, &m, (int64_t)n, &sends))
        return;
    fx_fact(t->fx, sl_str_c(c->lane),
            &(struct event){.type = EVENT_SEND,
                            .conv = sl_str_c(c->s.id),
                            .addr = sl_str_c(c->reply_addr[0] != '\0' ? c->reply_addr : c->addr),
                            .id = id,
                            .number = (int64_t)n,
                            .name = sl_str_c(msg_author_name(what->by)),
                            .kind = sl_str_c(msg_kind_name(m.kind)),
                            .text = m.text,
                            .data = m.data,
                            .priority = what->is_comfort ? -1 : 0,
                            .capacity = c->limits[0] != '\0' ? sends : 0,
                            .channel = sl_str_c(c->channel),
                            .at_ms = t->now_ms,
                            .trace = sl_str_c(c->trace),
                            .context = sl_str_c(c->context)});
}

static void say(struct talk *t, const struct said *what)
{
    char ulid[27];
    struct sl_str id = what->id;
    if (id.len == 0) {
        fx_ulid(t->fx, ulid);
        id = sl_str_n(ulid, 26);
    }
    struct sl_buf members;
    uint64_t n, v;
    sl_buf_init(&members, 0);
    write_members(t, what, id, &members);
    struct sl_str entry = fx_append(t->fx, t->c, !what->is_hidden, sl_buf_view(&members), &n, &v);
    publish_entry(t, what, entry, n, v);
    if (!what->is_hidden && what->by != MSG_BY_VISITOR && t->c->lane[0] != '\0')
        send_out(t, what, id, n);
    sl_buf_fini(&members);
}

/* Reasons that are ours, in both languages; a provider's stand in its own words. */
static const struct {
    const char *code, *zh, *en;
} reasons[] = {
    {"window_closed", "渠道允许的回复次数或时间已用完。客户再次发言后才能发送。",
     "The channel allows no more messages until the customer writes again."},
    {"unknown", "无法确认是否已发出。", "Nobody can say whether it was sent."},
    {"queue_full", "待发送的消息过多。", "Too many messages wait to be sent."},
    {"not_connected", "渠道未连接，连接恢复后自动发送。",
     "The channel is not connected; it is sent when the connection is back."},
    {"too_late", "等待过久，没有发送。", "It waited too long and was not sent."},
    {"dead", "消息无法处理，没有发送。", "The message could not be processed."},
    {"nothing_to_send", "该渠道无法显示这种消息。", "This channel cannot show such a message."},
    {"limits_changed", "发送途中渠道的限制已改变。", "The channel's limits changed while it was being sent."},
};

static void write_numbers(struct sl_json *j, const struct fate *fate)
{
    char zh[160], en[160];
    (void)snprintf(zh, sizeof zh, "需要发送 %lld 条，渠道只剩 %lld 条，没有发送。请缩短后再发。",
                   (long long)fate->needs, (long long)fate->left);
    (void)snprintf(en, sizeof en,
                   "It needs %lld sends, the channel has %lld left: it was not sent. Make it shorter.",
                   (long long)fate->needs, (long long)fate->left);
    sl_json_c(j, "zh", zh);
    sl_json_c(j, "en", en);
    sl_json_int(j, "needs", fate->needs);
    sl_json_int(j, "left", fate->left);
}

static void write_reason(struct sl_json *j, const struct fate *fate)
{
    sl_json_open(j, "why", '{');
    sl_json_str(j, "code", fate->code);
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        if (!sl_str_eq_c(fate->code, reasons[i].code))
            continue;
        sl_json_c(j, "zh", reasons[i].zh);
        sl_json_c(j, "en", reasons[i].en);
    }
    if (fate->needs > 0)
        write_numbers(j, fate);
    if (fate->words.len > 0)
        sl_json_str(j, "text", fate->words);
    sl_json_close(j, '}');
}

/* For agents, never for the customer. */
static void tell_delivery(struct talk *t, const struct fate *fate)
{
    struct sl_buf data;
    struct sl_json j;
    sl_buf_init(&data, 0);
    sl_json_begin(&j, &data);
    sl_json_open(&j, NULL, '{');
    sl_json_c(&j, "code", "delivery");
    sl_json_int(&j, "of", fate->number);
    sl_json_str(&j, "state", fate->state);
    if (fate->code.len > 0 || fate->words.len > 0)
        write_reason(&j, fate);
    sl_json_close(&j, '}');
    say(t, &(struct said){
               .by = MSG_BY_SYSTEM, .kind = MSG_EVENT, .data = sl_buf_view(&data), .is_hidden = true});
    sl_buf_fini(&data);
}

static void on_outcome(struct talk *t)
{
    const struct event *ev = t->ev;
    if (ev->number <= 0 || ev->number > (int64_t)t->c->s.n || ev->reason.len == 0 || ev->reason.len > 32 ||
        ev->text.len > MSG_TEXT_MAX_BYTES / 8 || ev->code.len > 128) {
        refuse_malformed(t);
        return;
    }
    tell_delivery(
        t, &(struct fate){.number = ev->number, .state = ev->reason, .code = ev->code, .words = ev->text});
}

/* data of a system entry: its code, both languages, and members that only some codes have. */
static void write_notice(struct sl_buf *out, enum rules_code code, const char *zh, const char *en,
                         struct sl_str more)
{
    struct sl_json j;
    sl_json_begin(&j, out);
    sl_json_open(&j, NULL, '{');
    sl_json_c(&j, "code", rules_code_name(code));
    sl_json_c(&j, "zh", zh);
    sl_json_c(&j, "en", en);
    if (more.len > 0) {
        sl_buf_char(out, ',');
        sl_buf_str(out, more);
    }
    sl_json_close(&j, '}');
}

#define TELL_RESULT 1u
#define TELL_HIDDEN 2u

static void tell_kind(struct talk *t, enum rules_code code, enum msg_kind kind, struct sl_str more,
                      unsigned flags)
{
    const char *zh, *en;
    struct sl_buf data;
    rules_words_for(t->rules, t->tenant, code, &zh, &en);
    sl_buf_init(&data, 0);
    write_notice(&data, code, zh, en, more);
    struct said what = {.by = MSG_BY_SYSTEM,
                        .kind = kind,
                        .text = sl_str_c(strcmp(t->rules->language, "en") == 0 ? en : zh),
                        .data = sl_buf_view(&data),
                        .is_result = (flags & TELL_RESULT) != 0,
                        .is_comfort = code != RULES_TEXT_rate && code != RULES_TEXT_leave_message,
                        .is_hidden = (flags & TELL_HIDDEN) != 0};
    say(t, &what);
    sl_buf_fini(&data);
}

static void tell(struct talk *t, enum rules_code code, unsigned flags)
{
    tell_kind(t, code, MSG_EVENT, SL_STR_NONE, flags);
}

static void tell_agent(struct talk *t, enum rules_code code, unsigned flags)
{
    struct sl_buf more;
    sl_buf_init(&more, 0);
    sl_buf_c(&more, "\"agent\":");
    sl_json_escape(&more, sl_str_c(t->c->agent));
    tell_kind(t, code, MSG_EVENT, sl_buf_view(&more), flags);
    sl_buf_fini(&more);
}

/* What somebody's message may be: a known kind, words within the limit, data an object. Event fields are
 * UTF-8 and data is JSON by the time they come here (proto/event.h). */
static bool content_of(const struct event *ev, enum msg_kind *kind)
{
    *kind = MSG_TEXT;
    if (ev->kind.len > 0 && !msg_kind_from(ev->kind, kind))
        return false;
    return *kind != MSG_EVENT && *kind != MSG_NOTE && ev->text.len <= MSG_TEXT_MAX_BYTES &&
           ev->data.len <= MSG_DATA_MAX_BYTES && (ev->data.len == 0 || ev->data.ptr[0] == '{');
}

/* ---- timers ---- */

/* The one deadline of whoever holds the conversation. */
static void hold_arm(struct talk *t)
{
    struct sl_str id = sl_str_c(t->c->s.id);
    fx_changed(t->fx, t->c);
    if (t->c->hold_gen != 0)
        fx_timer_clear(t->fx, id, "hold", t->c->hold_gen);
    t->c->hold_gen = ++t->c->gen;
    t->c->hold_armed_ms = t->c->hold_due_ms;
    fx_timer_set(t->fx, id, "hold", t->c->hold_gen, t->c->hold_due_ms);
}

/* A timer that is armed for an earlier instant stays: when it fires too soon it is put off (is_hold_due). So a lively conversation
 * moves a number in its state, not a timer in the store, with each message. */
static void hold(struct talk *t, int64_t after_ms)
{
    t->c->hold_due_ms = t->now_ms + after_ms;
    if (t->c->hold_gen == 0 || t->c->hold_armed_ms > t->c->hold_due_ms)
        hold_arm(t);
}

static void merge_end(struct talk *t)
{
    if (t->c->merge_gen != 0)
        fx_timer_clear(t->fx, sl_str_c(t->c->s.id), "merge", t->c->merge_gen);
    t->c->merge_gen = t->c->merge_ms = 0;
}

#define MERGE_PATIENCE 4 /* a burst that does not end is a turn after this many times merge_ms */

static void merge_wait(struct talk *t)
{
    int64_t since = t->c->merge_gen != 0 ? t->c->merge_ms : t->now_ms;
    int64_t due = t->now_ms + t->rules->merge_ms, last = since + MERGE_PATIENCE * t->rules->merge_ms;
    merge_end(t);
    t->c->merge_ms = since;
    t->c->merge_gen = ++t->c->gen;
    fx_timer_set(t->fx, sl_str_c(t->c->s.id), "merge", t->c->merge_gen, due < last ? due : last);
}

static bool is_timer(const struct talk *t, const char *name, int64_t gen)
{
    return sl_str_eq_c(t->ev->name, name) && gen != 0 && (t->ev->gen == gen || sl_mutant("timer-no-gen"));
}

static bool is_hold_due(struct talk *t)
{
    bool is_due = is_timer(t, "hold", t->c->hold_gen);
    if (is_due && t->ev->gen == t->c->hold_gen)
        t->c->hold_gen = 0; /* it has left with this event */
    if (is_due && t->now_ms < t->c->hold_due_ms && !sl_mutant("timer-no-gen")) {
        hold_arm(t); /* armed for an earlier deadline that was met */
        return false;
    }
    return is_due;
}

/* ---- facts for the desk ---- */

static void to_desk(struct talk *t, struct event *fact)
{
    char tag[KEY_TAG_MAX_BYTES];
    key_desk_tag(tag, t->tenant);
    struct key in = key_in(tag);
    fact->conv = sl_str_c(t->c->s.id);
    fx_fact(t->fx, key_str(&in), fact);
}

static void need(struct talk *t, struct sl_str prefer, struct sl_str avoid, int64_t wait_ms)
{
    const struct conversation *c = t->c;
    to_desk(t, &(struct event){.type = EVENT_NEED,
                               .ticket = c->ticket,
                               .queue = sl_str_c(c->queue),
                               .skills = sl_str_c(c->skills),
                               .priority = c->priority,
                               .agent = prefer,
                               .name = avoid,
                               .wait_ms = wait_ms});
}

/* in:{desk:<tenant>}, to the letter: the fact will be relayed there, and whoever may write into a command log may write anything. */
static bool is_desk_log(struct sl_str stream)
{
    const size_t head = sizeof "in:{desk:" - 1;
    if (!sl_str_starts(stream, "in:{desk:") || stream.len <= head + 1 || stream.ptr[stream.len - 1] != '}')
        return false;
    const struct sl_str tenant = sl_str_n(stream.ptr + head, stream.len - head - 1);
    return tenant.len <= KEY_TENANT_MAX_BYTES && key_part_ok(tenant);
}

/* An assignment that cannot be taken, and a "gone" for something not held, are always answered: the desk
 * frees that slot. The stream that takes the answer came with the fact; a conversation that no longer exists
 * has no tenant to ask. */
static void no_assign(struct talk *t)
{
    const struct event *ev = t->ev;
    if (!is_desk_log(ev->reply_to)) {
        refuse(t, "no_desk", "");
        return;
    }
    fx_fact(
        t->fx, ev->reply_to,
        &(struct event){.type = EVENT_REFUSED, .conv = ev->conv, .ticket = ev->ticket, .agent = ev->agent});
}

static bool is_ticket(const struct talk *t)
{
    return t->ev->ticket == t->c->ticket || sl_mutant("no-ticket");
}

/* ---- the only place where control changes ---- */

static void enter_bot(struct talk *t, const struct move *m)
{
    (void)m;
    t->c->is_answered = 1;
    t->c->tries = t->c->unsure = 0;
    hold(t, t->rules->bot_answer_ms);
}

static void enter_queued(struct talk *t, const struct move *m)
{
    struct conversation *c = t->c;
    c->ticket++;
    c->place = c->place_wait_ms = c->is_told_full = 0;
    c->had_human = 1;
    if (m->queue.len > 0 || c->queue[0] == '\0')
        conversation_set(&c->queue, m->queue.len > 0 ? m->queue : sl_str_c(t->inbox->queue));
    conversation_set(&c->skills, sl_str_c(t->inbox->skills));
    if (!m->keeps_place)
        c->queued_ms = t->now_ms;
    int64_t waited_ms = t->now_ms - c->queued_ms;
    need(t, m->agent, m->avoid, m->keeps_place && waited_ms == 0 ? 1 : waited_ms);
    fx_fact(t->fx, SL_STR_NONE,
            &(struct event){.type = EVENT_QUEUED,
                            .conv = sl_str_c(c->s.id),
                            .ticket = c->ticket,
                            .control = c->epoch,
                            .queue = sl_str_c(c->queue),
                            .reason = sl_str_c(m->reason)});
    hold(t, t->rules->queue_repeat_ms);
}

static void enter_offered(struct talk *t, const struct move *m)
{
    conversation_set(&t->c->agent, m->agent);
    to_desk(t, &(struct event){.type = EVENT_OFFERED, .ticket = t->c->ticket, .agent = m->agent});
    hold(t, t->rules->accept_ms);
}

static void enter_assigned(struct talk *t, const struct move *m)
{
    struct conversation *c = t->c;
    (void)m;
    c->is_waiting = 1;
    fx_fact(t->fx, SL_STR_NONE,
            &(struct event){.type = EVENT_ASSIGNED,
                            .conv = sl_str_c(c->s.id),
                            .ticket = c->ticket,
                            .control = c->epoch,
                            .agent = sl_str_c(c->agent)});
    hold(t, t->rules->agent_idle_ms);
}

static void enter_closed(struct talk *t, const struct move *m)
{
    struct conversation *c = t->c;
    c->closed_ms = t->now_ms;
    conversation_set(&c->queue, SL_STR_NONE);
    fx_fact(t->fx, SL_STR_NONE,
            &(struct event){.type = EVENT_CLOSED,
                            .conv = sl_str_c(c->s.id),
                            .control = c->epoch,
                            .reason = sl_str_c(m->reason)});
    hold(t, t->rules->retain_ms);
}

static void leave_bot(struct talk *t)
{
    merge_end(t);
    sl_buf_clear(&t->c->pending);
    t->c->asked_len = 0;
    t->c->is_answered = 1;
}

/* The desk hears of the new need before the slot is free again, so that it still knows the place it has to
 * keep. */
static void leave_agent(struct talk *t, int64_t ticket, const char *reason)
{
    struct conversation *c = t->c;
    to_desk(t, &(struct event){.type = EVENT_RELEASED,
                               .ticket = ticket,
                               .agent = sl_str_c(c->agent),
                               .reason = sl_str_c(reason)});
    conversation_set(&c->last_agent, sl_str_c(c->agent));
    conversation_set(&c->agent, SL_STR_NONE);
    c->is_waiting = 0;
}

static void conversation_go(struct talk *t, enum conversation_control to, const struct move *m)
{
    static void (*const enter[CONVERSATION_CONTROL_COUNT])(struct talk *, const struct move *) = {
        [CONVERSATION_BOT] = enter_bot,         [CONVERSATION_QUEUED] = enter_queued,
        [CONVERSATION_OFFERED] = enter_offered, [CONVERSATION_ASSIGNED] = enter_assigned,
        [CONVERSATION_CLOSED] = enter_closed,
    };
    struct conversation *c = t->c;
    enum conversation_control from = c->control;
    int64_t ticket = c->ticket;
    sl_assert(moves[from][to]);
    fx_changed(t->fx, c);
    c->control = to;
    if (to != CONVERSATION_ASSIGNED)
        c->epoch++;
    if (from == CONVERSATION_BOT)
        leave_bot(t);
    enter[to](t, m);
    if (from == CONVERSATION_QUEUED && to != CONVERSATION_OFFERED)
        to_desk(t, &(struct event){.type = EVENT_CANCEL, .ticket = ticket});
    if ((from == CONVERSATION_OFFERED || from == CONVERSATION_ASSIGNED) && to != CONVERSATION_ASSIGNED)
        leave_agent(t, ticket, m->reason);
}

/* ---- the bot's turns ---- */

static void to_queue(struct talk *t, const char *reason)
{
    conversation_go(t, CONVERSATION_QUEUED, &(struct move){.reason = reason});
    tell(t, RULES_TEXT_queued, 0);
}

static void task(struct talk *t)
{
    struct conversation *c = t->c;
    struct key bot = key_bot(sl_str_c(t->inbox->bot)), in = key_in(fx_tag(t->fx));
    struct sl_buf data;
    struct sl_json j;
    sl_buf_init(&data, 0);
    sl_json_begin(&j, &data);
    sl_json_open(&j, NULL, '{');
    sl_json_str(&j, "tenant", t->tenant);
    sl_json_str(&j, "inbox", t->inbox_name);
    sl_json_close(&j, '}');
    fx_fact(t->fx, key_str(&bot),
            &(struct event){.type = EVENT_TASK,
                            .conv = sl_str_c(c->s.id),
                            .control = c->epoch,
                            .turn = c->turn,
                            .id = sl_str_c(c->last_id),
                            .text = sl_buf_view(&c->pending),
                            .data = sl_buf_view(&data),
                            .due_ms = t->now_ms + t->rules->bot_answer_ms,
                            .reply_to = key_str(&in),
                            .trace = sl_str_c(c->trace)});
    sl_buf_fini(&data);
}

static bool is_bot_late(const struct talk *t)
{
    const struct conversation *c = t->c;
    return c->tries + 1 >= t->rules->bot_tries ||
           t->now_ms - c->asked_ms >= t->rules->bot_answer_ms * t->rules->bot_tries;
}

/* A turn carries all that the customer said since the last answer, so nothing asked is forgotten. */
static void open_turn(struct talk *t)
{
    struct conversation *c = t->c;
    merge_end(t);
    if (t->inbox->bot[0] == '\0') {
        to_queue(t, "no_bot");
        return;
    }
    fx_changed(t->fx, c);
    if (c->is_answered) {
        c->tries = 0;
        c->asked_ms = t->now_ms;
    }
    c->is_answered = 0;
    c->turn++;
    c->asked_len = (int64_t)c->pending.len;
    fx_fact(
        t->fx, SL_STR_NONE,
        &(struct event){.type = EVENT_TURN, .conv = sl_str_c(c->s.id), .control = c->epoch, .turn = c->turn});
    task(t);
    hold(t, t->rules->bot_answer_ms);
}

static void drop_asked(struct conversation *c)
{
    size_t cut = (size_t)c->asked_len;
    if (cut < c->pending.len && c->pending.ptr[cut] == '\n')
        cut++;
    sl_buf_cut(&c->pending, cut);
    c->asked_len = 0;
}

static bool is_answer_current(struct talk *t)
{
    const struct event *ev = t->ev;
    if (ev->control != t->c->epoch && !sl_mutant("no-control")) {
        no_stale(t);
        return false;
    }
    if ((ev->turn == t->c->turn && !t->c->is_answered) || sl_mutant("no-turn"))
        return true;
    refuse(t, ev->turn == t->c->turn ? "answered" : "stale_turn", "");
    return false;
}

static void on_answer(struct talk *t)
{
    const struct event *ev = t->ev;
    struct conversation *c = t->c;
    enum msg_kind kind;
    bool is_handoff = sl_str_eq_c(ev->reason, "handoff"), is_unsure = sl_str_eq_c(ev->reason, "unsure");
    bool is_empty = ev->text.len == 0 && ev->data.len == 0;
    if (!is_answer_current(t))
        return;
    if (!content_of(ev, &kind) || (is_empty && !is_handoff)) {
        refuse(t, is_empty ? "empty" : "malformed", "");
        return;
    }
    fx_changed(t->fx, c);
    if (!is_empty)
        say(t, &(struct said){.by = MSG_BY_BOT,
                              .who = sl_str_c(t->inbox->bot),
                              .kind = kind,
                              .text = ev->text,
                              .data = ev->data,
                              .turn = ev->turn});
    c->is_answered = 1;
    c->tries = 0;
    c->unsure = is_unsure ? c->unsure + 1 : 0;
    drop_asked(c);
    if (is_handoff || t->is_too_much || c->unsure >= t->rules->bot_unsure_max)
        to_queue(t, is_handoff       ? "handoff"
                    : t->is_too_much ? "too_much"
                                     : "unsure"); /* a person can say it shorter */
    else
        hold(t, t->rules->bot_idle_ms);
}

static void on_bot_timer(struct talk *t)
{
    struct conversation *c = t->c;
    if (is_timer(t, "merge", c->merge_gen)) {
        open_turn(t);
        return;
    }
    if (!is_hold_due(t))
        return;
    if (!c->is_answered && is_bot_late(t)) {
        to_queue(t, "bot_late");
    } else if (!c->is_answered) {
        c->tries++;
        open_turn(t);
    } else if (c->pending.len > 0) {
        open_turn(t);
    } else {
        conversation_go(t, CONVERSATION_CLOSED, &(struct move){.reason = "idle"});
        tell(t, RULES_TEXT_closed, 0);
    }
}

/* ---- the customer ---- */

/* Takes the message into the history; the caller decides what follows. */
static void customer_says(struct talk *t, enum msg_kind kind)
{
    const struct event *ev = t->ev;
    struct conversation *c = t->c;
    fx_changed(t->fx, c);
    c->last_ms = t->now_ms;
    take_way_back(t);
    conversation_set(&c->last_id, ev->id);
    conversation_set(&c->trace, ev->trace);
    say(t, &(struct said){.by = MSG_BY_VISITOR,
                          .who = t->address,
                          .id = ev->id,
                          .kind = kind,
                          .text = ev->text,
                          .data = ev->data,
                          .reply_to = ev->reply_to,
                          .is_result = true});
}

/* Sent by a machine, as the channel found out ("auto":true, an out-of-office mail): people see it, nobody answers it. */
static bool is_automatic(const struct event *ev)
{
    if (!sl_str_find(ev->data, SL_STR("\"auto\":true"), &(size_t){0}))
        return false;                             /* the usual case costs no parse */
    json_t *root = sl_json_parse(ev->data, NULL); /* owned */
    bool is_auto = root != NULL && json_is_true(json_object_get(root, "auto"));
    json_decref(root);
    return is_auto;
}

/* What a bot is told of a message: its words, or what kind of thing it was. */
static void ask_bot(struct talk *t, enum msg_kind kind)
{
    struct conversation *c = t->c;
    const struct event *ev = t->ev;
    if (is_automatic(ev)) {
        if (c->is_answered && c->pending.len == 0)
            hold(t, t->rules->bot_idle_ms);
        return;
    }
    if (ev->text.len > 0) {
        conversation_remember(c, ev->text);
    } else {
        char word[32];
        int n = snprintf(word, sizeof word, "[%s]", msg_kind_name(kind));
        conversation_remember(c, sl_str_n(word, (size_t)n));
    }
    if (rules_wants_human(t->rules, ev->text))
        to_queue(t, "asked");
    else if (!c->is_answered && t->now_ms - c->asked_ms >= t->rules->bot_answer_ms * t->rules->bot_tries)
        to_queue(t, "bot_late");
    else if (rules_is_fragment(t->rules, ev->text))
        merge_wait(t);
    else
        open_turn(t);
}

static void on_first_message(struct talk *t)
{
    enum msg_kind kind;
    if (!content_of(t->ev, &kind)) {
        refuse_malformed(t);
        return;
    }
    if (make(t) == NULL)
        return;
    open_made(t);
    conversation_go(t, CONVERSATION_BOT, &(struct move){.reason = "opened"});
    customer_says(t, kind);
    ask_bot(t, kind);
}

static void on_bot_message(struct talk *t)
{
    enum msg_kind kind;
    if (!content_of(t->ev, &kind)) {
        refuse_malformed(t);
        return;
    }
    customer_says(t, kind);
    ask_bot(t, kind);
}

static void on_line_message(struct talk *t)
{
    enum msg_kind kind;
    if (content_of(t->ev, &kind))
        customer_says(t, kind);
    else
        refuse_malformed(t);
}

static void on_agents_message(struct talk *t)
{
    enum msg_kind kind;
    if (!content_of(t->ev, &kind)) {
        refuse_malformed(t);
        return;
    }
    customer_says(t, kind);
    if (t->c->is_waiting || is_automatic(t->ev))
        return; /* the deadline runs from the first message that waits */
    t->c->is_waiting = 1;
    hold(t, t->rules->agent_idle_ms);
}

#define RATING_ASKED (-1)

/* A channel that shows texts alone takes the rating as one digit: 5, ５ or 五. 0: it is none. */
static int64_t digit_of(struct sl_str text)
{
    static const char *const digits[5][3] = {
        {"1", "１", "一"}, {"2", "２", "二"}, {"3", "３", "三"}, {"4", "４", "四"}, {"5", "５", "五"}};
    while (text.len > 0 && strchr(" \t\r\n", text.ptr[text.len - 1]) != NULL)
        text.len--;
    while (text.len > 0 && strchr(" \t\r\n", text.ptr[0]) != NULL)
        text = sl_str_n(text.ptr + 1, text.len - 1);
    for (int64_t i = 0; i < 5; i++)
        for (size_t form = 0; form < 3; form++)
            if (sl_str_eq_c(text, digits[i][form]))
                return i + 1;
    return 0;
}

static int64_t rating_in(const struct talk *t)
{
    const struct conversation *c = t->c;
    bool is_open = c->rating == RATING_ASKED && t->now_ms - c->closed_ms <= t->rules->rating_ms;
    return is_open && key_is_lane_log(t->ev->lane) ? digit_of(t->ev->text) : 0;
}

static void rate(struct talk *t, int64_t score)
{
    char more[32];
    int n = snprintf(more, sizeof more, "\"score\":%d", (int)score);
    fx_changed(t->fx, t->c);
    t->c->rating = score;
    tell_kind(t, RULES_TEXT_rated, MSG_EVENT, sl_str_n(more, (size_t)n), TELL_RESULT);
}

static void on_reopen(struct talk *t)
{
    struct conversation *c = t->c;
    enum msg_kind kind;
    if (!content_of(t->ev, &kind)) {
        refuse_malformed(t);
        return;
    }
    int64_t score = rating_in(t);
    if (score > 0) {
        customer_says(t, kind);
        rate(t, score);
        return;
    }
    if (c->last_agent[0] != '\0' && t->now_ms - c->closed_ms < t->rules->reopen_agent_ms) {
        conversation_go(t, CONVERSATION_QUEUED,
                        &(struct move){.reason = "reopened", .agent = sl_str_c(c->last_agent)});
        customer_says(t, kind);
        tell(t, RULES_TEXT_queued, 0);
        return;
    }
    conversation_go(t, CONVERSATION_BOT, &(struct move){.reason = "reopened"});
    customer_says(t, kind);
    ask_bot(t, kind);
}

static void on_rating(struct talk *t)
{
    struct conversation *c = t->c;
    int64_t score = t->ev->number;
    if (score < 1 || score > 5 || t->ev->text.len > MSG_TEXT_MAX_BYTES) {
        refuse_malformed(t);
        return;
    }
    if (c->rating != RATING_ASKED) {
        refuse(t, c->rating == 0 ? "not_asked" : "rated", "A rating is given once, after it was asked for.");
        return;
    }
    if (t->ev->lane.len > 0)
        take_way_back(t);
    if (t->ev->text.len > 0)
        say(t,
            &(struct said){.by = MSG_BY_VISITOR, .who = t->address, .kind = MSG_TEXT, .text = t->ev->text});
    rate(t, score);
}

static void on_hangup(struct talk *t)
{
    conversation_go(t, CONVERSATION_CLOSED, &(struct move){.reason = "visitor"});
    tell(t, RULES_TEXT_closed, TELL_RESULT);
}

/* ---- in line ---- */

static void on_assign(struct talk *t)
{
    if (!is_ticket(t) || t->ev->agent.len == 0) {
        no_assign(t);
        return;
    }
    conversation_go(t, CONVERSATION_OFFERED, &(struct move){.reason = "assign", .agent = t->ev->agent});
    tell_agent(t, RULES_TEXT_offered, TELL_HIDDEN);
}

/* The desk repeats an assignment when it meets a repeated need: what is ours already needs no answer. */
static void on_assign_again(struct talk *t)
{
    if (t->ev->ticket != t->c->ticket || !sl_str_eq_c(t->ev->agent, t->c->agent))
        no_assign(t);
}

static void on_place(struct talk *t)
{
    struct conversation *c = t->c;
    const struct event *ev = t->ev;
    if (!is_ticket(t))
        return;
    fx_changed(t->fx, c);
    if (sl_str_eq_c(ev->reason, "full")) {
        if (!c->is_told_full)
            tell(t, RULES_TEXT_leave_message, 0);
        c->is_told_full = 1;
        return;
    }
    c->place = ev->number;
    c->place_wait_ms = ev->wait_ms;
    char json[96];
    int n = snprintf(json, sizeof json, "{\"place\":%lld,\"wait_ms\":%lld}", (long long)ev->number,
                     (long long)ev->wait_ms);
    struct key channel = key_push_visitor(fx_tag(t->fx), sl_str_c(c->addr));
    fx_publish(t->fx, &channel,
               &(struct push){.what = PUSH_HINT, .gen = fx_gen(t->fx), .json = sl_str_n(json, (size_t)n)});
}

/* The repeat finds a desk that refused at its bound, or that was new. */
static void on_line_timer(struct talk *t)
{
    if (!is_hold_due(t))
        return;
    fx_changed(t->fx, t->c);
    need(t, SL_STR_NONE, SL_STR_NONE, t->now_ms - t->c->queued_ms);
    hold(t, t->rules->queue_repeat_ms);
}

/* ---- the agent ---- */

static void back_in_line(struct talk *t, const char *reason, bool is_avoided)
{
    struct sl_str avoid = is_avoided ? sl_str_c(t->c->agent) : SL_STR_NONE;
    conversation_go(t, CONVERSATION_QUEUED,
                    &(struct move){.reason = reason, .avoid = avoid, .keeps_place = true});
    tell(t, RULES_TEXT_requeued, 0);
}

static void on_offer_timer(struct talk *t)
{
    if (is_hold_due(t))
        back_in_line(t, "no_answer", true);
}

static void on_agent_timer(struct talk *t)
{
    if (!is_hold_due(t))
        return;
    if (t->c->is_waiting) {
        back_in_line(t, "agent_silent", true);
        return;
    }
    conversation_go(t, CONVERSATION_CLOSED, &(struct move){.reason = "idle"});
    tell(t, RULES_TEXT_closed, 0);
}

static void on_gone(struct talk *t)
{
    if (is_ticket(t) && sl_str_eq_c(t->ev->agent, t->c->agent))
        back_in_line(t, "gone", false);
    else
        no_assign(t);
}

/* May this agent act on the conversation? A command that names a control epoch counts under that one only. */
static bool is_holder(struct talk *t)
{
    const struct event *ev = t->ev;
    if (sl_mutant("no-control"))
        return true;
    if (!sl_str_eq_c(ev->agent, t->c->agent)) {
        no_holder(t);
        return false;
    }
    if (ev->control != 0 && ev->control != t->c->epoch) {
        no_stale(t);
        return false;
    }
    return true;
}

static void on_accept(struct talk *t)
{
    const struct event *ev = t->ev;
    if (!is_holder(t))
        return;
    if (ev->ticket != 0 && !is_ticket(t)) {
        no_stale(t);
        return;
    }
    conversation_go(t, CONVERSATION_ASSIGNED, &(struct move){.reason = "accepted"});
    tell_agent(t, RULES_TEXT_agent_joined, TELL_RESULT);
}

/* Words say yes, too. */
static void accept_by_words(struct talk *t)
{
    if (t->c->control != CONVERSATION_OFFERED)
        return;
    conversation_go(t, CONVERSATION_ASSIGNED, &(struct move){.reason = "message"});
    tell_agent(t, RULES_TEXT_agent_joined, 0);
}

static void on_agent_message(struct talk *t)
{
    const struct event *ev = t->ev;
    enum msg_kind kind;
    if (!is_holder(t))
        return;
    if (!content_of(ev, &kind) || (ev->text.len == 0 && ev->data.len == 0)) {
        refuse_malformed(t);
        return;
    }
    accept_by_words(t);
    fx_changed(t->fx, t->c);
    t->c->is_waiting = 0;
    say(t, &(struct said){.by = MSG_BY_AGENT,
                          .who = ev->agent,
                          .id = ev->id,
                          .kind = kind,
                          .text = ev->text,
                          .data = ev->data,
                          .reply_to = ev->reply_to,
                          .is_result = true});
    hold(t, t->rules->agent_quiet_ms);
}

static void on_note(struct talk *t)
{
    const struct event *ev = t->ev;
    if (!is_holder(t))
        return;
    if (ev->text.len == 0 || ev->text.len > MSG_TEXT_MAX_BYTES) {
        refuse_malformed(t);
        return;
    }
    say(t, &(struct said){.by = MSG_BY_AGENT,
                          .who = ev->agent,
                          .id = ev->id,
                          .kind = MSG_NOTE,
                          .text = ev->text,
                          .is_hidden = true,
                          .is_result = true});
}

static void on_transfer(struct talk *t)
{
    const struct event *ev = t->ev;
    if (!is_holder(t))
        return;
    if (ev->queue.len > 0 && (!key_part_ok(ev->queue) || !rules_has_queue(t->rules, ev->queue))) {
        refuse(t, "no_queue", "There is no such queue.");
        return;
    }
    conversation_go(t, CONVERSATION_QUEUED,
                    &(struct move){.reason = "transfer",
                                   .queue = ev->queue,
                                   .avoid = sl_str_c(t->c->agent),
                                   .keeps_place = ev->queue.len == 0});
    tell(t, RULES_TEXT_transferred, TELL_RESULT);
}

static void on_close(struct talk *t)
{
    if (!is_holder(t))
        return;
    conversation_go(t, CONVERSATION_CLOSED, &(struct move){.reason = "agent"});
    tell(t, RULES_TEXT_closed, TELL_RESULT);
    t->c->rating = RATING_ASKED;
    tell_kind(t, RULES_TEXT_rate, MSG_CHOICE,
              SL_STR("\"ask\":\"rating\",\"options\":[{\"value\":1},{\"value\":2},{\"value\":3},{\"value\":4}"
                     ",{\"value\":5}]"),
              0);
}

/* ---- the end ---- */

static void on_retained(struct talk *t)
{
    if (!is_hold_due(t))
        return;
    bool is_ours = t->addr->s.exists && sl_str_eq_c(sl_str_c(t->c->s.id), t->addr->conv);
    if (is_ours)
        fx_delete(t->fx, t->addr);
    fx_delete(t->fx, t->c);
}

/* ---- the machinery's side ---- */

static bool is_command(enum event_type type)
{
    return type > EVENT_NONE && type < EVENT_TYPE_COUNT && table[type][CONVERSATION_NEW] != NULL;
}

static void take_rules(struct talk *t)
{
    struct sl_fail why = {.code = SL_OK};
    if (rules_take(t->fx, t->ev, &why) == SL_OK)
        return;
    fx_fact(t->fx, SL_STR_NONE,
            &(struct event){.type = EVENT_REFUSAL,
                            .name = sl_str_c(event_type_name(EVENT_RULES)),
                            .hash = t->ev->hash,
                            .reason = sl_str_c(why.text)});
}

static void conversation_step(struct effects *fx, const struct event *ev, int64_t now_ms)
{
    struct talk t = {.fx = fx, .ev = ev, .now_ms = now_ms, .rules = rules_of(fx)};
    if (t.rules == NULL)
        return;
    if (ev->type == EVENT_RULES) {
        take_rules(&t);
        return;
    }
    if (!is_command(ev->type)) {
        refuse(&t, "not_for_conversations", "");
        return;
    }
    enum found found = find(&t);
    if (found == FOUND_LATER || found == FOUND_ELSEWHERE)
        return;
    if (found == FOUND_MALFORMED) {
        refuse_malformed(&t);
        return;
    }
    table[ev->type][t.c != NULL ? t.c->control : CONVERSATION_NEW](&t);
}

/* The placeholder of an event that could not be processed. A first message still gets its conversation, a
 * closed one; a deadline that could not be processed is set again, so that the holder keeps one. */
static void conversation_bury(struct effects *fx, const struct event *ev, struct sl_str reason,
                              int64_t now_ms)
{
    struct talk t = {.fx = fx, .ev = ev, .now_ms = now_ms, .rules = rules_of(fx)};
    (void)reason; /* it stands in the record that the machinery writes */
    if (t.rules == NULL || !is_command(ev->type))
        return;
    enum found found = find(&t);
    if (found == FOUND_LATER || found == FOUND_MALFORMED || found == FOUND_ELSEWHERE)
        return;
    if (found == FOUND_NOTHING) {
        if (ev->type != EVENT_MESSAGE || make(&t) == NULL)
            return;
        open_made(&t);
        conversation_go(&t, CONVERSATION_CLOSED, &(struct move){.reason = "dead"});
    }
    fx_changed(fx, t.c);
    if (ev->type == EVENT_TIMER && is_hold_due(&t))
        hold(&t, t.rules->queue_repeat_ms);
    struct sl_buf more;
    sl_buf_init(&more, 0);
    sl_buf_c(&more, "\"id\":");
    sl_json_escape(&more, ev->id);
    sl_buf_c(&more, ",\"entry\":");
    sl_json_escape(&more, ev->entry);
    bool is_hidden = !is_by_address(ev->type) && !is_agents(ev->type) && ev->type != EVENT_ANSWER;
    tell_kind(&t, RULES_TEXT_dead, MSG_EVENT, sl_buf_view(&more), is_hidden ? TELL_HIDDEN : 0);
    sl_buf_fini(&more);
    push_refusal(&t, "dead", "The message could not be processed; it was put aside.");
}

const struct part_ops conversation_ops = {
    .name = "conversation", .step = conversation_step, .bury = conversation_bury};
