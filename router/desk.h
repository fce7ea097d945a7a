/* router/desk.h - the pure desk of one tenant: who is at work, who waits, who gets whom.
 *
 * What     desk_ops.step() answers needs with assignments. Highest priority first, then longest waiting (I8); among agents who
 *          are ready, serve the queue, have the skills and have room: the last agent first, then the least loaded, then the
 *          longest idle. A slot is freed by the conversation alone (REFUSED, RELEASED), so the desk never counts too few.
 * Tickets  every fact names (conversation, ticket). A repeat of a need that is held already gets its assignment again, which
 *          the conversation ignores when it has it; an old ticket changes nothing.
 *          The agent hears of an offer when its conversation has taken it (OFFERED), so that her "accept" cannot come too early.
 * States   desk   id "desk": names of agents and queues, cursors
 *          queue  id = its name: who waits, in order
 *          agent  id = agent's id: session, capacity, what she holds; with a history of her own that her socket follows:
 *                 {"t":"offered" | "released" | "gone", "c":<conversation>, "tk":<ticket>, ...}
 * Timers   object "desk": "presence" (silent sessions), "leave" (sockets that did not come back), "place" (places in line), "more" (work left over: one event causes at
 *          most FX_FACTS_MAX facts)
 * Bounds   rules.queue_max waiting in a queue, DESK_QUEUES_MAX queues, rules.agents_max agents, DESK_CAPACITY_MAX each.
 *          Beyond: the need is refused with PLACE reason "full", the conversation repeats it; an agent is refused with a record.
 * Source   docs/adr/0004-routing.md
 */
#ifndef ROUTER_DESK_H
#define ROUTER_DESK_H

#include "bus/effects.h"

extern const struct part_ops desk_ops;
extern const struct state_kind desk_kind, desk_queue_kind, desk_agent_kind;

#define DESK_ID           "desk"
#define DESK_QUEUES_MAX   64
#define DESK_AGENTS_MAX   1000
#define DESK_CAPACITY_MAX 100 /* conversations of one agent */
#define DESK_CAPACITY     3   /* when the agent's session names none */
#define DESK_PLACES_MAX   100 /* places are told to the first so many of a queue */

struct desk_names {
    size_t count;
    char **at;
};

struct desk {
    struct state s;
    struct desk_names agents; /* online, or still holding something */
    struct desk_names queues;
    int64_t seq;                                          /* order of needs, counts up */
    int64_t gen;                                          /* of timers, counts up */
    int64_t presence_gen, leave_gen, place_gen, more_gen; /* armed ones; 0 none */
    int64_t is_placing, place_queue, place_at;            /* the cursor of telling places */
    struct sl_buf board;                                  /* last published; not stored */
};

struct desk_wait {
    char *conv;
    int64_t ticket, priority, since_ms, seq;
    int64_t told; /* place it was told last */
    char *skills, *prefer, *avoid;
};
struct desk_queue {
    struct state s;
    size_t count, cap;
    struct desk_wait *at; /* in the order they will be served */
    int64_t pace_ms;      /* smoothed time between two departures; 0 unknown */
    int64_t left_ms;      /* the last departure */
};

struct desk_held {
    char *conv;
    int64_t ticket, since_ms, seq;
    int64_t is_gone; /* its conversation was told that the agent is gone */
};
struct desk_agent {
    struct state s;
    char *session, *skills, *queues; /* lists are comma-separated; queues "": all */
    int64_t capacity, is_online, is_away, alive_ms, idle_ms;
    int64_t leaving_ms; /* since when her socket is gone, partition's now; 0: it is not */
    size_t count, cap;
    struct desk_held *held;
};

/* ---- shared by desk.c and desk_state.c ---- */
void desk_names_add(struct desk_names *n, struct sl_str name);
void desk_names_remove(struct desk_names *n, size_t i);
bool desk_names_find(const struct desk_names *n, struct sl_str name, size_t *at);
bool desk_before(const struct desk_wait *a, const struct desk_wait *b);
/* Takes over w's strings; returns its index. */
size_t desk_queue_insert(struct desk_queue *q, const struct desk_wait *w);
struct desk_wait desk_queue_take(struct desk_queue *q, size_t i); /* the caller frees it */
void desk_wait_fini(struct desk_wait *w);
void desk_agent_hold(struct desk_agent *a, const struct desk_held *h); /* takes over h's string */
void desk_agent_drop(struct desk_agent *a, size_t i);
void desk_set(char **member, struct sl_str value);
/* Is every item of `wanted` in `list`? Both comma-separated. */
bool desk_list_has(struct sl_str list, struct sl_str wanted);

#endif
