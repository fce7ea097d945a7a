/* gateway/outbox.h - frames that wait for one socket, bounded, and put together into WebSocket messages. Pure.
 *
 * What     several frames that wait leave as one JSON array: a write costs more than a byte.
 * Memory   none while empty.
 */
#ifndef GATEWAY_OUTBOX_H
#define GATEWAY_OUTBOX_H

#include "base/str.h"

#define GW_OUTBOX_FRAMES_MAX  256
#define GW_OUTBOX_BYTES_MAX   (256 * 1024)
#define GW_MESSAGE_FRAMES_MAX 64
#define GW_MESSAGE_BYTES_MAX  (64 * 1024) /* of several frames; a single longer one goes alone */

struct gw_outbox {
    char *ptr; /* from start: length (4 bytes, ours) and bytes of each frame */
    uint32_t start, len, cap, count;
};

/* False, and nothing added, when it would pass a bound. */
bool gw_outbox_add(struct gw_outbox *o, struct sl_str frame) SL_MUST_CHECK;
/* Append the next WebSocket message to out: a frame, or an array of frames. False when there is none. */
bool gw_outbox_take(struct gw_outbox *o, struct sl_buf *out);
/* Bytes that may still be added; 0 when it is nearly full of frames. */
size_t gw_outbox_room(const struct gw_outbox *o);
void gw_outbox_fini(struct gw_outbox *o);
static inline bool gw_outbox_is_empty(const struct gw_outbox *o)
{
    return o->count == 0;
}

#endif
