/* gateway/wire.h - what a session asks of its socket, so that it can live without one: in unit tests and in simulation.
 *
 * Owner    the socket's side (front_socket.c) owns struct gw_wire and embeds it; the session only borrows it.
 * Order    frames leave in the order of the calls, whatever their urgency.
 */
#ifndef GATEWAY_WIRE_H
#define GATEWAY_WIRE_H

#include "base/str.h"
#include "proto/frame.h"

/* Bytes that may be overwritten in front of every frame given to send(): the WebSocket header goes there without a copy. */
#define GW_FRAME_ROOM 32

enum gw_urgency {
    GW_HELD, /* may wait half of GW_HOLD_MS to the whole for the next frame of this socket */
    GW_NOW   /* at once, with everything that is held */
};
#define GW_HOLD_MS 20

struct gw_wire {
    const struct gw_wire_ops *ops;
};
struct gw_wire_ops {
    /* One frame. The bytes are borrowed until return. A socket that is over its bound closes itself. */
    void (*send)(struct gw_wire *w, struct sl_str frame, enum gw_urgency when);
    void (*ping)(struct gw_wire *w);
    /* Bytes of frames that may still wait. Who stops for lack of it sets the session's wants_room and is called when it is there. */
    size_t (*room)(const struct gw_wire *w);
    /* Idempotent; nothing is delivered to the session any more, and gw_session_free follows on a later turn. */
    void (*close)(struct gw_wire *w, enum frame_close code);
};

#endif
