/* channels/pager/pager.h - the example of docs/write-a-channel.md: pagers behind a service that speaks JSON over HTTP. */
#ifndef CHANNELS_PAGER_PAGER_H
#define CHANNELS_PAGER_PAGER_H

#include "channels/channel.h"

extern const struct chan_ops pager_ops;

#endif
