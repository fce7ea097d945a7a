/* proto/event.h - what stands in the logs: one flat event, as stream fields and as JSON.
 *
 * What     an entry of a command log, a task for a bot, and a fact in a fact log are all a struct event: a
 *          type and those of the fields below that it uses. An absent field is empty or 0 and not written.
 * Forms    stream fields (name, value, name, value ...) in `in:{k}` and `bot:<name>`; a JSON object with the
 *          same names in `out:{k}`. Both keep the table's order, so equal events have equal bytes.
 * Source   proto/schema/event.json, golden files in tests/vectors/proto
 */
#ifndef PROTO_EVENT_H
#define PROTO_EVENT_H

/* clang-format off */ /* tables with a note on each line */

#include "base/json.h"
#include "base/str.h"

#define EVENT_TYPES(X)                                                                                      \
    /* into a conversation's command log, from the edges */                                                \
    X(MESSAGE, "message")               /* a customer's message: addr, id, kind, text, data */              \
    X(RATING, "rating")                 /* a customer's rating: addr, number 1..5, text */                  \
    X(HANGUP, "hangup")                 /* the customer ends the conversation: addr */                      \
    X(ANSWER, "answer")                 /* a bot's: conv, control, turn, text, data, reason "handoff" */    \
    X(AGENT_ACCEPT, "agent.accept")     /* conv, agent, ticket */                                           \
    X(AGENT_MESSAGE, "agent.message")   /* conv, agent, control, kind, text, data */                        \
    X(AGENT_NOTE, "agent.note")         /* conv, agent, text: never shown to the customer */                \
    X(AGENT_TRANSFER, "agent.transfer") /* conv, agent, control, queue, reason */                           \
    X(AGENT_CLOSE, "agent.close")       /* conv, agent, control */                                          \
    /* between partitions */                                                                               \
    X(NEED, "need")                   /* to the desk: conv, ticket, queue, skills, priority, agent (last) */ \
    X(CANCEL, "cancel")                 /* to the desk: conv, ticket */                                     \
    X(REFUSED, "refused")               /* to the desk: conv, ticket, agent: the slot is free again */      \
    X(RELEASED, "released")             /* to the desk: conv, ticket, agent */                              \
    X(OFFERED, "offered")               /* to the desk: conv, ticket, agent: she may take it now */         \
    X(ASSIGN, "assign")                 /* to a conversation: ticket, agent */                              \
    X(GONE, "gone")                     /* to a conversation: ticket, agent has vanished */                 \
    X(PLACE, "place")                   /* to a conversation: ticket, number = place in line, wait */       \
    X(TASK, "task")                     /* to a bot: conv, control, turn, text, due, reply_to */            \
    /* a delivery lane, in:{send:<inbox>} */                                                               \
    X(SEND, "send")                   /* to a lane: conv, id, number of the entry, addr, name = author, kind, text, data, context */ \
    X(SETTLED, "settled")               /* an adapter's word on a try: id, number = part, gen = try, control = lease epoch, reason */ \
    X(RECEIPT, "receipt")               /* a provider's word, later: remote, reason, code, text, at */      \
    X(LANE, "lane")                   /* its owner has come, or its limits changed: hash, data */         \
    X(QUERY, "query")                 /* to the owner, never in a log: what became of a try? */           \
    X(OUTCOME, "outcome")               /* to a conversation: conv, id, number, reason, code, text */       \
    /* to the desk, from the edges */                                                                      \
    X(AGENT_ONLINE, "agent.online")     /* agent, session, capacity, skills, queue list in text */          \
    X(AGENT_ALIVE, "agent.alive")       /* heartbeat; the same as agent.online */                           \
    X(AGENT_STATE, "agent.state")       /* agent, session, reason = ready | away */                         \
    X(AGENT_OFFLINE, "agent.offline")   /* agent, session */                                                \
    /* everywhere */                                                                                       \
    X(TIMER, "timer")                   /* conv (or object id), name, gen */                                \
    X(RULES, "rules")                   /* hash, data */                                                    \
    /* records in a fact log with no destination */                                                        \
    X(ENTRY, "entry")                   /* a history entry: conv, number, data = the entry itself */        \
    X(OPENED, "opened")                 /* conv, addr */                                                    \
    X(TURN, "turn")                     /* conv, control, turn */                                           \
    X(QUEUED, "queued")                 /* conv, ticket, queue */                                           \
    X(ASSIGNED, "assigned")             /* conv, ticket, agent, control */                                  \
    X(CLOSED, "closed")                 /* conv, reason */                                                  \
    X(REFUSAL, "refusal")               /* an event refused by step(): conv, type in name, reason */        \
    X(DEAD, "dead")                     /* an event that went to the dead letters: id, reason */

enum event_type {
    EVENT_NONE,
#define X(name, word) EVENT_##name,
    EVENT_TYPES(X)
#undef X
    EVENT_TYPE_COUNT
};

/* X(member, name in the log, S string | I integer) */
#define EVENT_FIELDS(X)                                                                   \
    X(conv, "c", S)        /* conversation id <partition>.<ulid>, or a timer's object */  \
    X(addr, "a", S)        /* tenant/inbox/address in canonical form */                   \
    X(session, "s", S)     /* socket session that sent it */                              \
    X(id, "id", S)         /* client's or provider's id of it */                          \
    X(number, "n", I)                                                                     \
    X(agent, "g", S)                                                                      \
    X(control, "ce", I)    /* control epoch */                                            \
    X(turn, "tn", I)                                                                      \
    X(ticket, "tk", I)                                                                    \
    X(name, "nm", S)       /* a timer's or a type's name */                               \
    X(gen, "gen", I)       /* a timer's generation */                                     \
    X(kind, "kd", S)       /* msg_kind word */                                            \
    X(text, "x", S)                                                                       \
    X(data, "d", S)        /* JSON */                                                     \
    X(reason, "r", S)                                                                     \
    X(queue, "q", S)                                                                      \
    X(skills, "sk", S)     /* comma-separated, sorted */                                  \
    X(priority, "pr", I)   /* higher first; 0 is ordinary */                              \
    X(capacity, "cap", I)                                                                 \
    X(wait_ms, "w", I)     /* a duration */                                               \
    X(due_ms, "due", I)    /* a task's deadline, unix ms by the partition's now */        \
    X(reply_to, "rt", S)   /* stream that takes the answer */                             \
    X(hash, "h", S)                                                                       \
    X(channel, "ch", S)                                                                   \
    X(at_ms, "at", I)      /* unix ms, stamped by the edge that appended it */            \
    X(trace, "tp", S)      /* W3C traceparent */                                          \
    X(source, "src", S)    /* for a delivered fact: the partition it came from */         \
    X(fact, "fn", I)       /* for a delivered fact: its number */                         \
    X(lane, "ln", S)       /* stream of the lane that takes the answers to this sender */ \
    X(context, "cx", S)    /* JSON: what an adapter needs to answer */                    \
    X(quota, "qt", S)      /* "<count>/<ms>": so many sends are free within this time */  \
    X(remote, "ri", S)     /* a provider's ids of a message, separated by commas */       \
    X(code, "cd", S)       /* a provider's code */                                        \
    X(limits, "lm", S)     /* how a message is cut for this sender: fit_limits_write() */ \
    X(done, "dn", S)       /* what a provider has of a part already, in its adapter's words */

#define EVENT_S struct sl_str
#define EVENT_I int64_t
struct event {
    enum event_type type;
    struct sl_str entry;               /* id of the log entry it stands in, "ms-seq"; not written */
#define X(member, name, form) EVENT_##form member;
    EVENT_FIELDS(X)
#undef X
};

#define EVENT_FIELD_COUNT 36           /* fields, the type included; checked in event.c */
#define EVENT_TEXT_MAX_BYTES 65536     /* any single field but data */
#define EVENT_DATA_MAX_BYTES 262144 /* an entry: JSON may make 6 bytes of each of MSG_TEXT_MAX_BYTES */
#define EVENT_DATA_DEPTH_MAX 24        /* of sl_json_parse's 32: an event in a list in an answer still fits */

/* Stream fields: name, value, name, value ... borrowed from the event, the tables, `scratch` (integers). */
struct event_fields {
    size_t count;                      /* strings, twice the number of fields */
    struct sl_str item[EVENT_FIELD_COUNT * 2];
    char scratch[EVENT_FIELD_COUNT][21];
};
const char *event_type_name(enum event_type t);
bool event_type_from(struct sl_str word, enum event_type *out);
void event_to_fields(const struct event *ev, struct event_fields *out);
/* Borrows from the items. Refuses (EINVAL) an unknown type, an odd count, a repeated field, a malformed
 * integer, invalid UTF-8, an over-long field, data that is not well-formed JSON; ignores unknown field names,
 * so that an older reader can read a newer writer. No memory is taken. */
sl_err event_from_fields(const struct sl_str *items, size_t count, struct event *out,
                         struct sl_fail *why) SL_MUST_CHECK;
/* {"t":"task","c":...}; data is written as it is, so it must be JSON. */
void event_to_json(const struct event *ev, struct sl_json *j, const char *key);
/* The same checks. data comes back byte for byte. The result borrows from *hold, which the caller
 * json_decrefs. */
sl_err event_from_json(struct sl_str json, struct event *out, json_t **hold,
                       struct sl_fail *why) SL_MUST_CHECK;

#endif
