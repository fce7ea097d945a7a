/* gateway/lane_priv.h - what the files of a lane's step() share: one event's run.
 *
 * What     lane_load.c gathers every state that an event may need; lane_queue.c holds the ready queues, ends and starts messages;
 *          lane.c says what each event means, and is where to begin. lane_state.c, how states are stored, needs none of this.
 * Memory   states belong to the effects (bus/effects.h); a run lives as long as one call of step() and owns nothing.
 * Source   docs/adr/0007-delivery-lanes.md
 */
#ifndef GATEWAY_LANE_PRIV_H
#define GATEWAY_LANE_PRIV_H

#include "gateway/lane.h"

#define LANE_TAKEOVER_MAX 8 /* tries of an old owner judged by one event */
#define LANE_NAME_BYTES   32
#define LANE_WORDS_MAX    500 /* of a provider's reason */

struct gw_lane_pair { /* a conversation's line and the first message in it */
    struct gw_line *line;
    struct gw_send *send;
    int band;
};

struct gw_lane_run { /* everything one event needs; borrowed by every function below */
    struct effects *fx;
    const struct event *ev;
    int64_t now_ms;
    struct gw_lane *lane;
    struct gw_shelf *first[2], *last[2], *done; /* ready queues, and what ended */
    struct gw_lane_pair own;                    /* of the event's conversation */
    struct gw_send *next;                       /* behind own.send */
    struct gw_pid *pid[LANE_IDS_MAX];
    size_t pid_count;
    struct gw_shelf *swept;
    struct gw_lane_pair taken[LANE_TAKEOVER_MAX];
    size_t taken_count;
    struct gw_lane_pair may_start[LANE_START_MAX];
    size_t start_count;
};

static inline int64_t *gw_lane_count_of(struct gw_lane *l, int band)
{
    return band == 0 ? &l->replies : &l->bulk;
}

static inline int64_t *gw_lane_first_of(struct gw_lane *l, int band)
{
    return band == 0 ? &l->first_reply : &l->first_bulk;
}

static inline int64_t *gw_lane_last_of(struct gw_lane *l, int band)
{
    return band == 0 ? &l->last_reply : &l->last_bulk;
}

/* ---- lane_load.c ---- */

extern const char *const gw_lane_bands[2]; /* how the shelves of a ready queue begin: replies, bulk */

struct sl_str gw_lane_shelf_name(const char *queue, int64_t number, char out[LANE_NAME_BYTES]);
struct sl_str gw_lane_send_name(struct sl_str conv, int64_t number, char out[KEY_MAX_BYTES]);
struct sl_str gw_lane_conv_of(struct sl_str send); /* of "<conversation>/<number>" */
int64_t gw_lane_number_of(const struct gw_send *x);
/* A provider's id may be anything: what could not be a key is named by its hash. */
struct sl_str gw_lane_pid_name(struct sl_str id, char out[LANE_KEY_BYTES + 2]);
struct sl_str gw_lane_cut_id(struct sl_str *rest);            /* the first of ids with commas between them */
struct sl_str gw_lane_shortened(struct sl_str s, size_t max); /* between code points */
void gw_lane_refuse(struct gw_lane_run *t, const char *code);
bool gw_lane_is_timer(const struct gw_lane_run *t, const char *name);
/* False: a state is not at hand, step() returns at once and is called again. */
bool gw_lane_load(struct gw_lane_run *t);

/* ---- lane_queue.c ---- */

/* A message that is known takes another state; one that people see is told to the conversation. */
void gw_lane_go(struct gw_lane_run *t, struct gw_send *x, enum gw_send_state to);
void gw_lane_tell(struct gw_lane_run *t, const struct gw_send *x);
/* Once, and only when it waits long: after_ms from now, or behind a lane that stands. */
void gw_lane_tell_waiting(struct gw_lane_run *t, struct gw_send *x, int64_t after_ms);
void gw_lane_because(struct gw_send *x, struct sl_str code, struct sl_str words);
void gw_lane_keep(struct gw_lane_run *t, const struct gw_send *x); /* for receipts that come later */
void gw_lane_drop_content(struct gw_send *x);
bool gw_lane_is_half_sent(const struct gw_send *x);
void gw_lane_say_how_far(struct gw_send *x);
/* Out of its line for good; next is the message behind it, NULL: not at hand. */
void gw_lane_end(struct gw_lane_run *t, struct gw_lane_pair *p, struct gw_send *next, enum gw_send_state to);
/* A conversation whose first message may go takes its place in the queue of its band. */
void gw_lane_line_is_ready(struct gw_lane_run *t, struct gw_line *line, const struct gw_send *first);
/* The same, but it starts at once when nobody waits before it. first NULL: not at hand. */
void gw_lane_is_ready(struct gw_lane_run *t, struct gw_line *line, struct gw_send *first);
void gw_lane_count_tokens(struct gw_lane_run *t);
void gw_lane_start_ready(struct gw_lane_run *t);
void gw_lane_arm_go(struct gw_lane_run *t);

#endif
