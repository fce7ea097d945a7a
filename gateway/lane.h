/* gateway/lane.h - the pure life of a delivery lane: what is sent on an inbox, in which order, how fast, how often.
 *
 * What     gw_lane_ops.step() is a function of (states, event, now, lease epoch): no clock, no I/O, no randomness. A
 *          lane is the partition {send:<inbox>}; gateway/delivery.c owns it and does what the lane says by fx_do().
 * States   lane   id "lane": limits as they entered by event, tokens, breaker, what is in flight, the ready queues
 *          line   id = conversation: its messages in order; at most the first is in flight
 *          send   id = <conversation>/<number of the entry>: one message, until its receipts may be forgotten
 *          pid    id = a provider's id: which send it belongs to, or a receipt that came before the answer
 *          shelf  up to LANE_SHELF items of a ready queue ("0.<n>" replies, "1.<n>" bulk) or of what ended ("done.<n>")
 * Events   SEND, SETTLED, RECEIPT, LANE, TIMER. Deeds: SEND (hand this part to the adapter), QUERY (ask what became
 *          of a try). Facts: OUTCOME to the conversation.
 * Parts    a deed names part (number), parts (capacity; 1 until the first answer), most (ticket) and done. A try that failed is
 *          repeated from what was not taken: earlier parts are never sent again, nor pieces of this one (done).
 * Rules    SENDING is in the store before the deed is done. A try is known by (send, number of the try): a word on
 *          another one changes nothing. A try whose owner lost the lease is unknown, and the policy decides.
 *          A state never goes backwards. One in flight for each conversation.
 * People   are told of every end, and once of a message that waits long ("waiting"): LANE_TOLD_MS for a retry, or behind a lane
 *          that is paused so long, whose breaker is open, or whose adapter takes nothing.
 * Timers   object lane: "go" something may start, "takeover" goes on. A conversation: "retry". A pid: "early" ends.
 *          done.<n>: "sweep". Each counts under its generation only.
 * Source   docs/adr/0007-delivery-lanes.md
 */
#ifndef GATEWAY_LANE_H
#define GATEWAY_LANE_H

#include "bus/effects.h"

extern const struct part_ops gw_lane_ops;
extern const struct state_kind gw_lane_kind, gw_line_kind, gw_send_kind, gw_pid_kind, gw_shelf_kind;
#define LANE_ID SL_STR("lane")

#define LANE_SHELF       64
#define LANE_LINE_MAX    200     /* messages of one conversation that wait */
#define LANE_QUEUE_MAX   100000  /* messages that wait, of all; beyond it a message fails */
#define LANE_KEPT_MAX    1000000 /* ended sends kept for receipts; beyond it the oldest are forgotten early */
#define LANE_EARLY_MAX   10000   /* receipts whose answer has not come */
#define LANE_EARLY_MS    600000
#define LANE_IDS_MAX     32 /* provider's ids of one message */
#define LANE_DONE_MAX    160
#define LANE_TOLD_MS     10000
#define LANE_IDLE_MAX_MS 5000 /* the longest pause because the adapter took nothing */
#define LANE_HALF_TIMES  4    /* what is sent in part is given so many times the deadline for the rest */
#define LANE_WINDOW_MAX  1000
#define LANE_START_MAX   16 /* messages that one event starts; more by a timer of 0 ms */

enum gw_lane_policy { LANE_AT_MOST_ONCE, LANE_AT_LEAST_ONCE, LANE_IDEMPOTENT, LANE_QUERYABLE };
enum gw_lane_breaker { LANE_CLOSED, LANE_OPEN, LANE_PROBING };

/* clang-format off */ /* tables */
#define LANE_INTS(X)                                                                                         \
    X(policy)                                                                                                \
    X(rate_per_s) /* 0: no limit */                                                                          \
    X(burst)                                                                                                 \
    X(window) /* in flight at once; 0: no limits have come yet, nothing starts */                            \
    X(tries_max)                                                                                             \
    X(deadline_ms) /* from the message's decision; later it is not begun */                                  \
    X(grace_ms)                                                                                              \
    X(keep_ms)                                                                                               \
    X(milli_tokens)                                                                                          \
    X(tokens_ms) /* when they were counted */                                                                \
    X(pause_ms)  /* nothing begins before */                                                                 \
    X(idle_ms)   /* length of the last pause because the adapter took nothing */                             \
    X(breaker)                                                                                               \
    X(breaker_ms)   /* length of the last opening */                                                         \
    X(failures)     /* of account or transport, in a row */                                                  \
    X(recent)       /* the last tries, a bit each: 1 failed so */                                            \
    X(recent_count) /* of them */                                                                            \
    X(gen)          /* of timers, counts up */                                                               \
    X(go_gen)                                                                                                \
    X(go_ms)                                                                                                 \
    X(takeover_gen)                                                                                          \
    X(first_reply)                                                                                           \
    X(last_reply)                                                                                            \
    X(replies) /* shelves and items of the two ready queues */                                               \
    X(first_bulk)                                                                                            \
    X(last_bulk)                                                                                             \
    X(bulk)                                                                                                  \
    X(first_done)                                                                                            \
    X(last_done)                                                                                             \
    X(done_since_ms)                                                                                         \
    X(queued) /* messages that have not ended, in flight included */                                         \
    X(kept)                                                                                                  \
    X(early)                                                                                                 \
    X(sent) /* ever, as the ones below: for gauges */                                                        \
    X(delivered)                                                                                             \
    X(read)                                                                                                  \
    X(failed)                                                                                                \
    X(unknown)                                                                                               \
    X(retried)                                                                                               \
    X(early_lost)                                                                                            \
    X(error_ms) /* when the last error of account or transport came */

/* clang-format on */
struct gw_flying {
    char *conv;
    int64_t epoch;
};
struct gw_lane {
    struct state s;
#define X(member) int64_t member;
    LANE_INTS(X)
#undef X
    char *hash;                     /* of the limits */
    char *error_code, *error_words; /* of account or transport, the last one; NULL: none */
    size_t flying_count, flying_cap;
    struct gw_flying *flying;
};

struct gw_line {
    struct state s;
    int64_t ready;     /* 0: not in a ready queue; 1 + band */
    int64_t is_flying; /* the first is in flight */
    int64_t wait_gen;  /* of the armed "retry"; 0 none */
    size_t count, cap;
    int64_t *number; /* of entries, in order */
};

/* clang-format off */
#define LANE_SEND_STATES(X)                                                                                  \
    X(QUEUED, "queued")                                                                                      \
    X(SENDING, "sending")                                                                                    \
    X(ASKING, "asking")                                                                                      \
    X(WAITING, "waiting")                                                                                    \
    X(GRACE, "grace")                                                                                        \
    X(SENT, "sent") X(DELIVERED, "delivered") X(READ, "read") X(FAILED, "failed") X(UNKNOWN, "unknown")
enum gw_send_state {
#define X(name, word) SEND_##name,
    LANE_SEND_STATES(X)
#undef X
        SEND_STATE_COUNT
};
const char *gw_send_state_name(enum gw_send_state state);

#define LANE_SEND_INTS(X)                                                                                    \
    X(at_ms)    /* when it was decided */                                                                    \
    X(priority) /* below 0: bulk */                                                                          \
    X(part)     /* 1.. */                                                                                    \
    X(parts)                                                                                                 \
    X(most)    /* parts that the customer's channel grants; 0: any number */                                 \
    X(tries)   /* of this part that failed or are unknown */                                                 \
    X(doubts)  /* of them, those that may have been taken */                                                 \
    X(doubted) /* attempt: the last of them */                                                               \
    X(attempt) /* tries begun, ever: names a try */                                                          \
    X(epoch)   /* under which the last one began */                                                          \
    X(ids)     /* provider's ids so far */                                                                   \
    X(delivered)                                                                                             \
    X(read)    /* of them */                                                                                 \
    X(before)  /* bytes of remote that belong to the parts before this one */                                \
    X(is_lost) /* a receipt said that a part failed */                                                       \
    X(is_told) /* people were told that it waits */
#define LANE_SEND_STRINGS(X)                                                                                 \
    X(id)                                                                                                    \
    X(addr)                                                                                                  \
    X(by)                                                                                                    \
    X(kind)                                                                                                  \
    X(text)                                                                                                  \
    X(data) X(context) X(trace) X(channel) X(remote) /* ids of all parts, by commas */                       \
        X(done) /* what the provider has of this part, in the adapter's words */                             \
        X(code) X(words)
/* clang-format on */
struct gw_send {
    struct state s;
    enum gw_send_state state;
#define X(member) int64_t member;
    LANE_SEND_INTS(X)
#undef X
#define X(member) char *member; /* NULL: empty */
    LANE_SEND_STRINGS(X)
#undef X
};

enum gw_pid_rank { PID_SENT, PID_DELIVERED, PID_READ, PID_FAILED };
struct gw_pid {
    struct state s;
    int64_t rank, gen; /* gen: of "early" */
    char *send;        /* NULL: the answer has not come */
    char *code, *words;
};

struct gw_shelf {
    struct state s;
    size_t count, cap;
    char **item;
};

/* lane_state.c */
static inline struct sl_str gw_lane_str(const char *s)
{
    return s != NULL ? sl_str_c(s) : SL_STR_NONE;
}
void gw_lane_set(char **member, struct sl_str value);
void gw_lane_fly(struct gw_lane *l, struct sl_str conv, int64_t epoch);
void gw_lane_land(struct gw_lane *l, struct sl_str conv);
void gw_line_push(struct gw_line *l, int64_t number);
void gw_line_pop(struct gw_line *l);
void gw_shelf_push(struct gw_shelf *s, struct sl_str item);
void gw_shelf_pop(struct gw_shelf *s);
/* The key of an attempt's part for the provider: 32 hex digits, the same in every try. */
#define LANE_KEY_BYTES 33
void gw_lane_key(const char *tag, struct sl_str send, int64_t part, char out[LANE_KEY_BYTES]);

#endif
