/* gateway/delivery_priv.h - what delivery.c and delivery_own.c share: the process's lanes and their jobs. */
#ifndef GATEWAY_DELIVERY_PRIV_H
#define GATEWAY_DELIVERY_PRIV_H

#include "gateway/delivery.h"

#include "gateway/gateway_priv.h"

#include "base/ulid.h"
#include "bus/partition.h"
#include "proto/fit.h"

struct chan_job {
    struct chan_job *next, *before;
    struct gw_sender *sender;
    char *id; /* of the send */
    int64_t part, parts, attempt, epoch;
    bool is_out;  /* the adapter has it: its memory stays until it settles */
    bool is_told; /* word holds what became of it */
    bool is_appending;
    bool is_renewed;       /* a better word came while one was on its way */
    struct event word;     /* its strings are owned */
    struct sl_timer timer; /* JOB_MS, or REPEAT_MS */
};

struct gw_sender {
    struct gw_delivery *d;
    struct gw_box *box;
    char tag[KEY_TAG_MAX_BYTES];
    struct key in;
    struct part *part;
    char *limits; /* JSON for the lane */
    char hash[17], fit_word[FIT_LIMITS_BYTES];
    bool is_free, is_held;
    bool is_leaving;        /* more than our share: nothing begins, and it is let go when nothing is out */
    uint64_t moved_mono_ms; /* when something was begun, or nothing could be */
    bool is_limits_told, is_telling, is_alarmed;
    struct chan_job *jobs;
    size_t job_count;
    struct sl_metric *queued, *flying, *unknown, *early, *breaker, *kept, *held;
};

struct gw_delivery {
    struct gw *gw;
    char run[SL_ULID_LEN + 1];
    struct bus_tail *tail;
    struct bus_args args;
    struct gw_sender **senders;
    size_t count;
    char group[17];     /* hash of the inboxes' names: gateways with the same ones share them evenly */
    size_t alive, rank; /* by the last survey: of this group, and how many of them began before this one */
    int64_t store_now_ms;
    uint64_t lease_ms; /* after kill -9 another gateway holds the lane within lease + survey */
    struct sl_timer survey;
    bool is_surveying, is_stopping, is_freed;
    unsigned in_flight; /* callbacks still to come */
    struct fit fit;
};

/* ---- delivery.c ---- */

/* False: the store is not there. fn is not called after the delivery is freed. */
bool gw_delivery_ask(struct gw_delivery *d,
                     void (*fn)(struct gw_delivery *, void *, sl_err, const struct bus_value *), void *arg);
struct fit_limits gw_delivery_fit_limits(struct chan *ch);
void gw_delivery_on_deed(void *arg, struct part *p, const struct event *deed);

/* ---- delivery_own.c ---- */

void gw_delivery_on_survey(void *arg);
bool gw_delivery_is_held(const struct gw_sender *s); /* or about to be */
void gw_delivery_tell_limits(struct gw_sender *s);
void gw_delivery_write_limits(struct gw_sender *s, const struct sl_config *cfg);
void gw_delivery_make_gauges(struct gw_sender *s);
void gw_delivery_make_group(struct gw_delivery *d); /* after a lane was added */
void gw_delivery_leave(struct gw_delivery *d);
void gw_delivery_go_if_done(
    struct gw_sender *s); /* let go a lane that is leaving, when nothing of it is out */

#endif
