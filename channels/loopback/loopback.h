/* channels/loopback/loopback.h - the smallest adapter: a provider that is always there and never says no. */
#ifndef CHANNELS_LOOPBACK_LOOPBACK_H
#define CHANNELS_LOOPBACK_LOOPBACK_H

#include "channels/channel.h"

extern const struct chan_ops loopback_ops;

#define LOOPBACK_JOBS_MAX     256 /* sends that are not settled yet; beyond it SL_EAGAIN */
#define LOOPBACK_REQUESTS_MAX 256 /* requests that wait for the store; beyond it 503 */
#define LOOPBACK_KEYS                                                                                        \
    {                                                                                                        \
        "inboxes.*.secret", SL_CFG_SECRET, "", 0, 0, false, "its callers show it as a bearer token"          \
    }

#endif
