/* router/rules.h - what an operator may change about routing without a restart, and how it enters step().
 *
 * What     rules are one JSON object. They enter each partition as an event (RULES: hash, data) and are kept
 *          there as the state "rules", so that a replay sees the rules that were in force. A partition that
 *          was never told has the defaults below.
 * Checked  rules_parse() refuses a wrong type or a number out of its range and says which member; unknown
 *          members are ignored.
 * Cost     parsed once for each cached state object; every reader borrows.
 * Pure     no I/O, no clock.
 */
#ifndef ROUTER_RULES_H
#define ROUTER_RULES_H

#include "bus/effects.h"

/* X(member, default, least, most, what it is): all durations in ms. The words stand in --print-config. */
#define RULES_NUMBERS(X)                                                                                     \
    X(merge_ms, 300, 0, 10000,                                                                               \
      "a short text without closing punctuation waits this long for more; 0: never")                         \
    X(merge_below_chars, 12, 0, 1000, "what counts as short for merge_ms")                                   \
    X(bot_answer_ms, 15000, 100, 600000, "a bot has this long for an answer, ms")                            \
    X(bot_tries, 2, 1, 10, "unanswered turns before a person gets the conversation")                         \
    X(bot_unsure_max, 2, 1, 10, "answers of low confidence in a row before a person gets it")                \
    X(bot_idle_ms, 1800000, 1000, 604800000, "an answered customer who is silent this long: closed")         \
    X(queue_repeat_ms, 30000, 1000, 86400000, "a waiting conversation asks its desk again after this")       \
    X(accept_ms, 30000, 500, 3600000, "an agent has this long to take what was offered")                     \
    X(agent_idle_ms, 300000, 1000, 86400000, "a customer waits this long for the agent: back to the queue")  \
    X(agent_quiet_ms, 14400000, 1000, 604800000, "an answered customer is silent this long: closed")         \
    X(reopen_agent_ms, 0, 0, 2592000000, "one closed less long ago returns to its agent; 0: to the bot")     \
    X(retain_ms, 604800000, 1000, 31536000000, "a closed conversation leaves the store after this")          \
    X(presence_ms, 30000, 1000, 3600000, "an agent whose session is silent this long is offline")            \
    X(offline_ms, 15000, 0, 600000,                                                                          \
      "an agent whose last socket closed keeps her conversations this long; she is offered none meanwhile")  \
    X(place_ms, 10000, 100, 3600000, "places in line are told at most this often")                           \
    X(rating_ms, 86400000, 1000, 2592000000, "a digit sent this long after the question counts as a rating") \
    X(queue_max, 2000, 1, 2000, "waiting in one queue; beyond it customers are asked to leave a message")    \
    X(agents_max, 1000, 1, 1000, "agents online at one desk")

/* Words that visitors see, by code; a tenant may have its own. */
#define RULES_TEXTS(X)                                                                                       \
    X(queued, "正在为您转接人工客服，请稍候。", "You are in line for a person. One moment, please.")         \
    X(leave_message, "现在排队人数较多，请直接留言，我们会尽快回复。",                                       \
      "The line is full. Leave your message here, we will answer as soon as we can.")                        \
    X(offered, "已分配给客服，等待接听。", "Offered to an agent.")                                           \
    X(agent_joined, "客服已接入，为您服务。", "An agent has joined.")                                        \
    X(requeued, "客服暂时离开，您已回到原来的排队位置。",                                                    \
      "The agent had to leave. You are back at your place in the line.")                                     \
    X(transferred, "正在为您转接到其他客服。", "You are being transferred.")                                 \
    X(closed, "会话已结束。再次留言即可重新开始。",                                                          \
      "This conversation is closed. Write again to reopen it.")                                              \
    X(rate, "请为本次服务评分（1 到 5 分）。", "How was it? Please rate from 1 to 5.")                       \
    X(rated, "感谢您的评价。", "Thank you for rating.")                                                      \
    X(dead, "有一条消息无法处理，已记录。", "A message could not be processed; it was put aside.")

enum rules_code {
#define X(code, zh, en) RULES_TEXT_##code,
    RULES_TEXTS(X)
#undef X
        RULES_TEXT_COUNT
};

/* How one inbox is served. JSON: "inboxes": {"<tenant>/<inbox>" | "<tenant>" | "*": {...}}; the closest name
 * counts. */
struct rules_inbox {
    char *name;
    char *bot;        /* default "faq"; "": no bot, straight to the queue */
    char *queue;      /* default "default" */
    char *skills;     /* comma-separated, sorted; default "" */
    int64_t priority; /* -100..100, default 0; higher first */
};
/* JSON: "texts": {"<tenant>": {"<code>": {"zh": "...", "en": "..."}}} */
struct rules_text {
    char *tenant;
    enum rules_code code;
    char *zh, *en;
};
struct rules_words {
    size_t count;
    char **at;
    bool begins[256]; /* some word begins with this byte, in lower case: most places of a text are passed at
                         once */
};

struct rules {
#define X(member, fallback, least, most, words) int64_t member;
    RULES_NUMBERS(X)
#undef X
    char *language; /* "zh" (default) or "en": the text of system entries for channels that show text alone */
    struct rules_words human;     /* "human_words": a customer who says one of these asks for a human */
    struct rules_words not_human; /* "not_human_words": phrases that contain one and mean something else */
    struct rules_words queues;    /* "queues": names to which agents may transfer; empty: any */
    size_t inbox_count;
    struct rules_inbox *inboxes;
    size_t text_count;
    struct rules_text *texts;
};

/* Fill *out (caller's memory, rules_fini() it). SL_EINVAL with *why: nothing to free, *out untouched. */
sl_err rules_parse(struct sl_str json, struct rules *out, struct sl_fail *why) SL_MUST_CHECK;
void rules_fini(struct rules *r);
/* The whole object with every default: what a router tells its partitions when nothing was configured. */
const char *rules_default_json(void);

const struct rules_inbox *rules_inbox(const struct rules *r, struct sl_str tenant,
                                      struct sl_str inbox); /* never NULL */
/* Does this text ask for a human? ASCII words count whole and in any case, others wherever they stand. */
bool rules_wants_human(const struct rules *r, struct sl_str text);
/* Is this text a fragment that waits for more? */
bool rules_is_fragment(const struct rules *r, struct sl_str text);
/* A list of names (key_part_ok), comma-separated, at most RULES_LIST_MAX bytes: skills, queues. May be empty. */
bool rules_list_ok(struct sl_str list);
#define RULES_LIST_MAX 1024
bool rules_has_queue(const struct rules *r, struct sl_str name);
const char *rules_code_name(enum rules_code code);
void rules_words_for(const struct rules *r, struct sl_str tenant, enum rules_code code, const char **zh,
                     const char **en);

/* ---- as a state of a partition ---- */
extern const struct state_kind rules_kind; /* "rules", id "rules" */
#define RULES_ID SL_STR("rules")
/* The rules in force; NULL: not at hand, return at once (effects.h). Borrowed until the step returns. */
const struct rules *rules_of(struct effects *fx);
/* A RULES event. SL_EINVAL: refused, the old ones stay. Call it after rules_of() in the same step. */
sl_err rules_take(struct effects *fx, const struct event *ev, struct sl_fail *why) SL_MUST_CHECK;

#endif
