/* tests/sim/sim.h - one simulated world: real routers, partitions and bot workers over the store in memory, model people.
 *
 * What     world.c moves everything, one step at a time, as a seeded generator says; people.c are the visitors and agents;
 *          record.c keeps a copy of every log; check.c proves the invariants from what people saw and what is stored.
 * Repeats  equal seeds give equal bytes: no clock, no address, no order of a hash enters a decision.
 */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include "base/loop.h"
#include "base/map.h"

#include "bus/memory_priv.h"

#define SIM_PARTITIONS     4
#define SIM_TAGS           6 /* the desk, the delivery lane */
#define SIM_DESK           4
#define SIM_LANE           5
#define SIM_PROCESSES      9
#define SIM_VISITORS_MAX   6
#define SIM_FRAMES_MAX     16
#define SIM_AGENTS         2
#define SIM_AGENT_CAPACITY 2
#define SIM_TENANT         "t"
#define SIM_BOT_NAME       "faq"
#define SIM_SWEEP_MS       5000  /* of the model sessions; 30 s in the product */
#define SIM_SHOWN_IN_MS    30000 /* I11 */
#define SIM_POISON         "\x07poison"

struct world;

/* ---- processes (world.c) ---- */
enum process_kind { SIM_ROUTER, SIM_GATEWAY, SIM_BOT, SIM_SENDER };
struct process {
    struct world *w;
    enum process_kind kind;
    unsigned slot, pid;       /* pid is never used twice */
    bool is_alive, is_doomed; /* doomed: killed inside its own callback, taken apart after it */
    uint64_t asleep_until_ms, start_at_ms;
    int64_t skew_ms; /* its wall clock against the store's */
    struct sl_loop *loop;
    struct bus *bus;
    struct router *router;
    struct bot_worker *worker;
    struct bus_subscriber *subscriber;
    struct sl_timer people_timer;
    struct part *lane; /* a sender's */
    struct bus_tail *lane_tail;
    struct sl_timer lane_timer;
    bool is_lane_told;
};
bool process_is_usable(const struct process *p); /* alive, awake and connected */

/* ---- people (people.c) ---- */
enum frame_state { SIM_UNSENT, SIM_SENT, SIM_ACKED };
struct frame_plan {
    enum event_type type;
    char id[24], text[40];
    uint64_t not_before_ms;
    enum frame_state state;
    bool is_in_flight;
};
struct visitor {
    struct world *w;
    unsigned index;
    char address[32], session[16], tag[KEY_TAG_MAX_BYTES], conv[80];
    struct frame_plan frame[SIM_FRAMES_MAX];
    unsigned frames;
    struct process *gateway; /* NULL: not connected */
    unsigned gateway_pid;
    uint64_t connect_at_ms, sweep_at_ms, send_at_ms;
    bool is_reading, wants_read;
    uint64_t cursor; /* number of the last entry shown */
    struct sl_buf shown[200];
    uint64_t behind_since_ms, behind_at; /* I11: since when it shows this and no more, though there is more */
    unsigned refusals;
};
struct agent_command {
    struct agent_command *next;
    char tag[KEY_TAG_MAX_BYTES], session[24], target[80], agent[8], conv[80], id[32], text[40], queue[16];
    enum event_type type;
    uint64_t number;
    int64_t control, ticket, capacity;
};
struct held {
    char conv[80];
    int64_t ticket;
    int64_t control; /* when last looked; 0: not yet */
    bool is_offered, is_mine, is_asking;
    unsigned said, wanted;
};
struct agent {
    struct world *w;
    unsigned index, sessions;
    char name[8], session[24];
    struct process *gateway;
    unsigned gateway_pid;
    bool is_online;
    uint64_t connect_at_ms, alive_at_ms, think_at_ms;
    struct agent_command *first, *last;
    bool is_sending, is_reading;
    struct sl_map *numbers; /* (session, tag, target) -> last number given */
    uint64_t log_position;
    struct held held[16];
    size_t held_count;
    unsigned said;
};
void people_new(struct world *w);
void people_free(struct world *w);
void people_tick(struct process *gateway); /* everything that the people of this gateway do now */
void people_on_push(struct process *gateway, struct sl_str channel, struct sl_str payload);
void people_on_confirmed(struct process *gateway, struct sl_str channel);
void people_on_lost(struct process *gateway);
void people_heal(struct world *w);           /* no more mischief: send all, answer all */
bool people_are_done(const struct world *w); /* every frame acknowledged, no command waits */

/* ---- delivery lanes (lanes.c) ---- */
struct sim_job;
#define SIM_PIECE_BYTES 56
struct sim_taken { /* a piece of a message that the provider has */
    struct sim_taken *next;
    char key[SIM_PIECE_BYTES], send[100];
    unsigned times;
    uint64_t number; /* its id is p<number> */
};
void lanes_start(struct process *p, const struct bus_config *cfg);
void lanes_take_apart(struct process *p);
void lanes_free(struct world *w);
bool lanes_has_all(const struct world *w,
                   const char *send); /* the provider has every piece of this message */

/* ---- recorded logs (record.c) ---- */
struct recorded {
    struct bus_entry entry; /* owned */
    char *bytes;
    struct event event; /* of a command log or a bot's stream; borrows from bytes */
    bool is_event;
};
struct recorded_log {
    struct recorded *at;
    size_t count, cap;
    char last[48];
};
void record_start(struct world *w);
void record_all(struct world *w);
void record_free(struct world *w);

/* ---- the world ---- */
struct options {
    uint64_t first, seeds;
    const char *mutant;
    bool is_verbose, is_traced, is_twice, is_calm;
};
struct world {
    const struct options *o;
    uint64_t seed, random_state, now_ms, digest;
    int64_t unix_ms;
    struct memory_store *store;
    struct process process[SIM_PROCESSES];
    unsigned processes, next_pid;
    struct process *running; /* whose callback is on the stack */
    struct visitor visitor[SIM_VISITORS_MAX];
    unsigned visitors;
    struct agent agent[SIM_AGENTS];
    struct sim_job *jobs;
    struct sim_taken *taken;
    uint64_t taken_count;
    int policy; /* of the lane, for unknown outcomes */
    char tag[SIM_TAGS][KEY_TAG_MAX_BYTES];
    struct recorded_log in[SIM_TAGS], out[SIM_TAGS], bot;
    struct bus_args args;
    bool is_healed, is_traced;
    uint64_t steps, faults, fault_one_in; /* steps of the first phase for one fault */
    char rules[400];
    unsigned late_chance; /* of thousand: how soon a late command runs */
    char verdict[400];    /* first violation; empty: none */
};
uint64_t sim_random(struct world *w, uint64_t n); /* 0 .. n-1 */
bool sim_chance(struct world *w, unsigned of_thousand);
void sim_fail(struct world *w, const char *fmt, ...) SL_PRINTF(2, 3);
void sim_trace(struct world *w, const char *fmt, ...) SL_PRINTF(2, 3);
void sim_digest(struct world *w, const void *p, size_t n);
/* Look into the store at once: words end with NULL. */
const struct bus_value *sim_peek(struct world *w, const char *const *words);
#define SIM_PEEK(w, ...) sim_peek((w), (const char *const[]){__VA_ARGS__, NULL})

/* Runs one seed to its end; the verdict is empty when every invariant held. */
struct world *world_run(const struct options *o, uint64_t seed, bool is_traced);
void world_free(struct world **w);

/* ---- the checker (check.c) ---- */
int64_t check_last_batch(struct world *w, struct sl_str meta, char last[48]); /* its lease epoch and id */
bool check_is_drained(struct world *w, const char **why);
void check_often(struct world *w);  /* what must hold at every instant */
void check_places(struct world *w); /* drained: conversations and desk agree on who is where */
bool check_is_behind(struct world *w, const struct visitor *v); /* her socket does not show the end yet */
void check_shown(struct world *w);
void check_all(struct world *w);

#endif
