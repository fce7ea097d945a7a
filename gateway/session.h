/* gateway/session.h - sluice.v1 for one socket, visitor's or agent's; knows nothing of libwebsockets.
 *
 * What     hello, numbering, acknowledgements, topics, heartbeat, goodbye. docs/protocol.md is the manual.
 * Owner    whoever owns the wire (front_socket.c, a test): gw_session_new at connect, gw_session_free when the socket is gone.
 * Hello    is waited for gw_hub_config.hello_ms. Everything before it, and everything malformed, closes with a documented code.
 */
#ifndef GATEWAY_SESSION_H
#define GATEWAY_SESSION_H

#include "gateway/hub.h"
#include "gateway/topics.h"

#define GW_SESSION_ID_BYTES 32 /* base64url of 16 random bytes and 8 that bind them to their owner */
#define GW_TOPICS_MAX       32 /* open topics of one socket */

enum gw_phase { GW_PHASE_HELLO, GW_PHASE_PENDING, GW_PHASE_OPEN, GW_PHASE_CLOSING };

struct gw_agent_side;

struct gw_session {
    uint32_t magic;
    enum gw_phase phase;
    struct gw_hub *hub;
    struct gw_wire *wire;
    struct gw_session *wheel_next, *wheel_before;
    struct gw_session *hello_next, *hello_before;
    uint64_t hello_due_mono_ms;
    uint64_t flood_since_mono_ms;
    struct gw_session **lookup; /* what a reply that is awaited will find; cleared when we go first */
    unsigned flood_count;
    char *origin; /* until hello */
    char *addr;   /* visitor: tenant/inbox/address */
    char *inbox;  /* visitor */
    struct gw_agent_side *agent;
    struct gw_watch *watches;
    struct gw_queue queue;
    unsigned watch_count;
    unsigned char slot, missed;
    bool is_resumed;
    bool wants_room; /* a replay waits for the socket; the wire calls gw_session_room */
    char tag[8];     /* visitor: partition of the address */
    char id[GW_SESSION_ID_BYTES + 1];
};

/* origin: of the upgrade request, "self" when it names our own host, "" when there is none. */
struct gw_session *gw_session_new(struct gw_hub *hub, struct gw_wire *wire, struct sl_str origin);
void gw_session_message(struct gw_session *s, struct sl_str text); /* one whole WebSocket message */
void gw_session_alive(struct gw_session *s);                       /* a pong, or any byte */
void gw_session_room(struct gw_session *s);                        /* everything that waited was written */
void gw_session_too_big(struct gw_session *s);                     /* a message beyond FRAME_MAX_BYTES */
/* Say goodbye: reconnect after a random time in the range. Commands from now on are answered with EAGAIN. */
void gw_session_bye(struct gw_session *s, uint64_t after_min_ms, uint64_t after_max_ms);
void gw_session_close(struct gw_session *s, enum frame_close code);
void gw_session_free(struct gw_session **s);

struct sl_str gw_session_id(const struct gw_session *s);

/* ---- for agent_socket.c and topics.c ---- */
void gw_session_send(struct gw_session *s, enum gw_urgency when); /* the frame in gw_hub_frame */
void gw_session_error(struct gw_session *s, struct sl_str id, sl_err code, const char *words,
                      uint64_t expected_n);
/* Make the id: bound to `owner`, so that it can be resumed by its owner only; resume "" or not his: a new one. */
void gw_session_name(struct gw_session *s, struct sl_str resume, struct sl_str owner);
void gw_session_welcome(struct gw_session *s, struct sl_str me_json, uint64_t last_n);
struct gw_watch *gw_session_find_watch(const struct gw_session *s, struct sl_str topic);
void gw_session_add_watch(struct gw_session *s, struct gw_watch *w);
void gw_session_drop_watch(struct gw_session *s, struct gw_watch *w);
void gw_session_command(struct gw_session *s, const struct frame *f, const struct bus_accept *in);
struct gw_position gw_session_resume_position(const struct frame *f, const char *topic);

#endif
