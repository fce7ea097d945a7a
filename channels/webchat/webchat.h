/* channels/webchat/webchat.h - visitors in a browser, over the WebSocket protocol sluice.v1. */
#ifndef CHANNELS_WEBCHAT_WEBCHAT_H
#define CHANNELS_WEBCHAT_WEBCHAT_H

#include "channels/channel.h"

extern const struct chan_ops webchat_ops;

/* Its keys below inboxes.*., for whoever puts the whole table together. */
#define WEBCHAT_KEYS                                                                                         \
    {"inboxes.*.secret",                                                                                     \
     SL_CFG_SECRET,                                                                                          \
     "",                                                                                                     \
     0,                                                                                                      \
     0,                                                                                                      \
     false,                                                                                                  \
     "signs visitors' tokens: 16 bytes or more, equal on every gateway"},                                    \
        {"inboxes.*.origins",                                                                                \
         SL_CFG_LIST,                                                                                        \
         "",                                                                                                 \
         0,                                                                                                  \
         0,                                                                                                  \
         true,                                                                                               \
         "web origins that may connect, exactly as browsers send them; empty: only the gateway's own"},      \
    {                                                                                                        \
        "inboxes.*.allow_no_origin", SL_CFG_BOOL, "true", 0, 0, true,                                        \
            "clients that send no Origin header may connect"                                                 \
    }

#endif
