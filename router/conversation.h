/* router/conversation.h - the pure life of one conversation: who holds it, what may happen, what follows.
 *
 * What     conversation_ops.step() is a function of (states, event, now): no clock, no I/O, no randomness. It
 *          carries the invariants I4 (a turn has one answer), I6 (no answer of an old control epoch), I7 (one
 *          holder, with a deadline) and, together with router/desk.h, I8.
 * States   addr   id tenant/inbox/address: which conversation a message of this address belongs to
 *          conv   id <partition>.<ulid>: struct conversation, with its history
 *          rules  router/rules.h
 * Lanes    a customer on a channel without a socket gets answers through a delivery lane: every visible entry that is not
 *          theirs goes there as a fact SEND, and its OUTCOME comes back as an entry that agents see. What a channel
 *          grants (so many sends within a time) is counted here (quota.h), and comfort texts do not take the last ones.
 * Timers   object = conversation id. "hold": the deadline of whoever holds it, always armed (for a closed
 *          one: leaving the store). "merge": a burst of fragments ends.
 * Read     the table in conversation.c: one row an event, one column a state.
 * Source   docs/adr/0004-routing.md
 */
#ifndef ROUTER_CONVERSATION_H
#define ROUTER_CONVERSATION_H

#include "bus/effects.h"

extern const struct part_ops conversation_ops;
extern const struct state_kind conversation_kind, conversation_addr_kind;

#define CONVERSATION_CONTROLS(X)                                                                             \
    X(NEW, "new")                                                                                            \
    X(BOT, "bot") X(QUEUED, "queued") X(OFFERED, "offered") X(ASSIGNED, "assigned") X(CLOSED, "closed")
enum conversation_control {
#define X(name, word) CONVERSATION_##name,
    CONVERSATION_CONTROLS(X)
#undef X
        CONVERSATION_CONTROL_COUNT
};
const char *conversation_control_name(enum conversation_control control);

/* What is stored, besides `control` and `pending`; zero and empty are not written. */
/* clang-format off */ /* tables with a note on each line */
#define CONVERSATION_INTS(X)                                                                                 \
    X(epoch) /* control epoch */                                                                             \
    X(turn)                                                                                                  \
    X(tries)        /* turns re-issued because no answer came */                                             \
    X(unsure)       /* answers of low confidence in a row */                                                 \
    X(ticket)       /* of the last need */                                                                   \
    X(is_answered)  /* no turn is open */                                                                    \
    X(is_waiting)   /* assigned: the customer waits for the agent */                                         \
    X(had_human)    /* was queued once: agents follow its pushes */                                          \
    X(is_told_full) /* "leave a message" was said in this stay in the queue */                               \
    X(place)        /* in line, 0 unknown */                                                                 \
    X(place_wait_ms)                                                                                         \
    X(priority)                                                                                              \
    X(rating) /* 0 not asked, -1 asked, 1..5 given */                                                        \
    X(opened_ms)                                                                                             \
    X(last_ms)   /* the customer's last message */                                                           \
    X(asked_ms)  /* the first turn since the last answer */                                                  \
    X(queued_ms) /* when it first took its place in line */                                                  \
    X(closed_ms)                                                                                             \
    X(gen)           /* of timers, counts up */                                                              \
    X(hold_gen)      /* of the armed holder's deadline */                                                    \
    X(hold_due_ms)   /* when it is really due */                                                             \
    X(hold_armed_ms) /* when its timer fires: never later than it is due */                                  \
    X(merge_gen)     /* of the armed merge timer; 0 none */                                                  \
    X(merge_ms)      /* when this burst began */                                                             \
    X(asked_len)     /* bytes of pending that the open turn carries */                                       \
    X(is_metered)    /* its channel grants a number of sends, for a time */                                  \
    X(quota_ms)    /* the last grant, ... */                                                                 \
    X(quota_left)                                                                                            \
    X(quota_until)                                                                                           \
    X(other_ms)    /* ... and the last one of another length */                                              \
    X(other_left)                                                                                            \
    X(other_until)
#define CONVERSATION_STRINGS(X)                                                                              \
    X(addr) /* tenant/inbox/address */                                                                       \
    X(channel)                                                                                               \
    X(queue)                                                                                                 \
    X(skills)                                                                                                \
    X(agent) /* offered or assigned to */                                                                    \
    X(last_agent)                                                                                            \
    X(last_id)    /* id of the customer's last message */                                                    \
    X(trace)      /* its traceparent */                                                                      \
    X(lane)       /* stream of the delivery lane that takes answers; empty: a socket */                      \
    X(context)    /* JSON, what its adapter needs to answer */                                               \
    X(limits)     /* how a message is cut there (proto/fit.h), where sends are counted */                  \
    X(reply_addr) /* tenant/inbox/address that wrote last, when it is not addr */

/* clang-format on */
#define CONVERSATION_PENDING_MAX 32768 /* customer's words since the last answer; over it the oldest go */

struct conversation {
    struct state s;
    enum conversation_control control;
#define X(member) int64_t member;
    CONVERSATION_INTS(X)
#undef X
#define X(member) char *member; /* never NULL once decoded or opened */
    CONVERSATION_STRINGS(X)
#undef X
    struct sl_buf pending; /* the customer's texts since the last answer, joined by newlines */
};

struct conversation_addr {
    struct state s;
    char *conv; /* id of this address's conversation */
};

/* Give a member of a conversation a new value. */
void conversation_set(char **member, struct sl_str value);
/* A text of a customer joins `pending`. */
void conversation_remember(struct conversation *c, struct sl_str text);

#endif
