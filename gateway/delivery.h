/* gateway/delivery.h - the delivery lanes of this process: owns partitions {send:<inbox>} and does what they say.
 *
 * What     every gateway that has an inbox configured may own its lane; one does, by the lease of its partition. Gateways with
 *          the same inboxes share the lanes evenly. A deed of
 *          the lane (gateway/lane.h) becomes a job of the adapter; the adapter's word is appended to the lane's own log
 *          until it is known to stand there. Twice does no harm: a try is known by its number.
 * Order    SENDING is committed before the job is given; when the lease may have run out meanwhile, the job is not given.
 * Owner    the gateway; jobs are owned here and valid for the adapter until it settles them.
 * Stop     gw_delivery_stop(): nothing begins any more. gw_delivery_release(): leases are given back. Both return at once.
 */
#ifndef GATEWAY_DELIVERY_H
#define GATEWAY_DELIVERY_H

#include "channels/channel.h"

struct gw;
struct gw_box;
struct gw_delivery;
struct gw_sender; /* one inbox's lane in this process */

#define DELIVERY_KEYS                                                                                        \
    {"inboxes.*.unknown",                                                                                    \
     SL_CFG_STR,                                                                                             \
     "",                                                                                                     \
     0,                                                                                                      \
     0,                                                                                                      \
     true,                                                                                                   \
     "what to do when nobody can say whether a message was sent: at_most_once, at_least_once, "              \
     "idempotent, queryable; empty: the channel's own"},                                                     \
        {"inboxes.*.send_rate",                                                                              \
         SL_CFG_INT,                                                                                         \
         "0",                                                                                                \
         0,                                                                                                  \
         100000,                                                                                             \
         true,                                                                                               \
         "parts of messages sent in a second; 0: the channel's own"},                                        \
        {"inboxes.*.send_burst", SL_CFG_INT, "0", 0, 100000, true, "parts sent at once; 0: send_rate"},      \
        {"inboxes.*.send_window",                                                                            \
         SL_CFG_INT,                                                                                         \
         "0",                                                                                                \
         0,                                                                                                  \
         1000,                                                                                               \
         true,                                                                                               \
         "messages without an answer at once; 0: the channel's own"},                                        \
        {"inboxes.*.send_tries", SL_CFG_INT, "5", 1, 100, true, "a message is tried so often"},              \
        {"inboxes.*.send_deadline",                                                                          \
         SL_CFG_MS,                                                                                          \
         "1h",                                                                                               \
         1000,                                                                                               \
         2592000000,                                                                                         \
         true,                                                                                               \
         "a message is not begun later than this after it was decided"},                                     \
        {"inboxes.*.send_grace",                                                                             \
         SL_CFG_MS,                                                                                          \
         "30s",                                                                                              \
         0,                                                                                                  \
         3600000,                                                                                            \
         true,                                                                                               \
         "at_least_once: how long an unknown outcome is waited for before it is sent again"},                \
        {"inboxes.*.send_keep",                                                                              \
         SL_CFG_MS,                                                                                          \
         "72h",                                                                                              \
         1000,                                                                                               \
         2592000000,                                                                                         \
         true,                                                                                               \
         "a sent message waits so long for receipts"},

struct gw_delivery *gw_delivery_new(struct gw *gw);
void gw_delivery_free(struct gw_delivery **d); /* before the store is closed */
/* Before start: what the table of keys cannot. */
sl_err gw_delivery_check(const struct chan *ch, const struct sl_config *cfg,
                         struct sl_fail *why) SL_MUST_CHECK;
/* The inbox's limits as configured; again after a reload. */
void gw_delivery_add(struct gw_delivery *d, struct gw_box *box, const struct sl_config *cfg);
struct sl_str gw_delivery_fit_word(const struct gw_sender *s); /* fit_limits_write() of its inbox */
void gw_delivery_settled(struct chan_job *job, const struct chan_result *r);
void gw_delivery_wake(struct gw_sender *s); /* the adapter is up: what it refused may begin */
const char *gw_delivery_tag(const struct gw_delivery *d, size_t i); /* of the lanes; NULL behind the last */
/* A lane that we own has ready messages, nothing in the way, and begins none: words say which. */
bool gw_delivery_stands(const struct gw_delivery *d, char *words, size_t size);
void gw_delivery_stop(struct gw_delivery *d);
void gw_delivery_release(struct gw_delivery *d);
bool gw_delivery_is_idle(
    const struct gw_delivery *d); /* no job is out or about to be, every word is in its log */
bool gw_delivery_is_released(const struct gw_delivery *d); /* no lease is held */

#endif
