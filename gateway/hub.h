/* gateway/hub.h - what all sessions of one process share: the store, the wheel, the topics, the commands under way.
 *
 * What     free of sockets and of libwebsockets, so unit tests and the simulation drive it with sl_loop's virtual clock.
 * Owner    gateway.c, or a test. Sessions must be freed before the hub.
 * Bounds   sessions: by the front's admission; reads in flight GW_READS_MAX; commands per session GW_QUEUE_COMMANDS_MAX.
 */
#ifndef GATEWAY_HUB_H
#define GATEWAY_HUB_H

#include "base/loop.h"
#include "base/map.h"
#include "base/metrics.h"
#include "bus/bus.h"
#include "channels/channel.h"
#include "gateway/wire.h"

struct gw_session;
struct gw_watch;
struct gw_read;
struct gw_command;
struct gw_agent_side;

/* Whom and what the configuration knows. Borrowed until the next reload: copy what you keep. */
struct gw_inbox {
    const char *name, *tenant;
    struct chan *ch;
    unsigned rate_per_s, burst; /* of one session; 0: no limit */
};
struct gw_agent {
    const char *tenant, *id, *name, *password_hash;
    const char *skills, *queues; /* comma-separated, sorted */
    unsigned capacity;
};
struct gw_directory {
    const struct gw_inbox *(*inbox)(void *arg, struct sl_str name);
    const struct gw_agent *(*agent)(void *arg, struct sl_str tenant, struct sl_str id_or_name);
    void *arg;
};

struct gw_hub_config {
    struct sl_loop *loop;
    struct bus *bus;
    struct gw_directory directory;
    uint64_t heartbeat_ms;         /* ping, and comparison of every cursor with the store */
    uint64_t hello_ms;             /* to the first frame */
    uint64_t alive_ms;             /* how often the desks are told which agents are here */
    uint64_t command_ms;           /* how long a command whose outcome is unknown is repeated */
    unsigned messages_per_s;       /* of one socket; beyond it 4429. 0: GW_MESSAGES_PER_S */
    uint64_t attachment_max_bytes; /* told to clients; 0: none are taken */
};
#define GW_HEARTBEAT_MS   25000 /* below the usual 60 s cut of proxies, and I11's 30 s with reserve */
#define GW_HELLO_MS       5000
#define GW_MESSAGES_PER_S 2000 /* far above any client of ours: a flood costs a parse each */
#define GW_COMMAND_MS     10000
#define GW_ALIVE_MS       8000 /* under a third of rules.presence_ms */

#define GW_WHEEL_SLOTS        25
#define GW_MISSED_MAX         2  /* pings without any sign of life */
#define GW_QUEUE_COMMANDS_MAX 64 /* unanswered commands of one session */
#define GW_QUEUE_BYTES_MAX    (256 * 1024)
#define GW_DESK_COMMANDS_MAX  4000 /* signs of life of one gateway's agents */
#define GW_READS_MAX          64   /* logs being read at once, of which ... */
#define GW_READS_SWEEP_MAX    32   /* ... for comparing cursors */

/* Commands of one origin, in order. Embedded in its owner. */
struct gw_queue {
    struct gw_hub *hub;
    void *owner;
    /* err: SL_OK durable; SL_EGAP: last_number tells where to go on; others refused, or unknown for too long (SL_EAGAIN). */
    void (*settled)(void *owner, const struct gw_command *c, sl_err err, uint64_t last_number,
                    const char *words);
    struct gw_command *first, *last;
    size_t count, bytes, in_flight;
    size_t count_max, bytes_max;
    struct gw_queue *next_stalled; /* in the hub's list while is_stalled */
    bool is_stalled;               /* an outcome is unknown: everything waits and is repeated in order */
};

/* Watches whose log is to be read: at once (a newcomer, a gap), or when there is time (comparing cursors). */
enum gw_haste { GW_URGENT, GW_SWEEP };
struct gw_read_node {
    struct gw_watch *next, *before;
    bool is_queued;
};
struct gw_read_queue {
    struct gw_watch *first, *last;
    size_t count;
};

struct gw_hub {
    struct gw_hub_config cfg;
    struct sl_loop *loop;
    struct bus *bus;
    struct bus_subscriber *subscriber;
    struct sl_map *channels; /* name of a push channel -> struct gw_channel */
    struct sl_map *sessions; /* session id -> struct gw_session, open ones */
    struct gw_session *wheel[GW_WHEEL_SLOTS];
    unsigned wheel_at, wheel_next_slot;
    struct sl_timer tick;
    size_t session_count;
    struct gw_session *hello_first, *hello_last; /* in the order of their deadlines */
    struct sl_buf scratch;           /* the frame being written; begins with GW_FRAME_ROOM bytes */
    struct gw_read_queue to_read[2]; /* by enum gw_haste */
    size_t reads[2];
    struct sl_timer read_retry;
    struct gw_queue *stalled;
    struct sl_timer command_retry;
    struct gw_queue desk; /* events of our own for desks: agents' comings and goings */
    struct gw_agent_side *agents;
    struct sl_timer alive;
    size_t commands; /* handed to the store, without an answer */
    struct bus_args args;
    bool is_draining;
    struct sl_metric *frames_in[FRAME_PING + 1], *frames_out; /* in: by enum frame_type */
    struct sl_metric *sessions_gauge, *commands_gauge, *reads_gauge;
};

struct gw_hub *gw_hub_new(const struct gw_hub_config *cfg);
/* In this order: free every session, stop, close the bus, and free when its last callback has come. */
void gw_hub_stop(struct gw_hub *hub);
void gw_hub_free(struct gw_hub **hub);
/* Tell it that the store came or went (bus_events.ready). */
void gw_hub_store_ready(struct gw_hub *hub, bool is_ready);

/* The frame buffer: begin, write one frame with frame_write_*, then hand it to the wire. */
struct sl_buf *gw_hub_frame(struct gw_hub *hub);
void gw_hub_send(struct gw_hub *hub, struct gw_wire *w, enum gw_urgency when);

/* commands.c */
void gw_queue_init(struct gw_queue *q, struct gw_hub *hub, void *owner,
                   void (*settled)(void *, const struct gw_command *, sl_err, uint64_t, const char *));
/* Append in->event. SL_OK: settled() follows, never before return. SL_EAGAIN: the store or this queue has no room. The
 * accept and its event are copied. */
sl_err gw_queue_append(struct gw_queue *q, const struct bus_accept *in) SL_MUST_CHECK;
void gw_queue_fini(struct gw_queue *q); /* what is in flight settles into nothing */
struct sl_str gw_command_id(const struct gw_command *c);
uint64_t gw_command_number(const struct gw_command *c);

#endif
