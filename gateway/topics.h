/* gateway/topics.h - one socket following one log: subscribe, read from the cursor, take pushes, notice gaps.
 *
 * What     a watch is one (session, topic). A push is only a hint: the log is the truth. The order is always
 *          subscribe -> the store confirms -> read the log from the cursor -> take what was buffered meanwhile.
 *          Once per heartbeat the cursor is compared with the log's end: a lost last push is otherwise never noticed.
 * Owner    the session; gw_watch_close frees at once, whatever is in flight.
 * Bounds   pushes buffered during a read GW_HELD_BYTES_MAX; beyond it they are dropped and the log is read again.
 */
#ifndef GATEWAY_TOPICS_H
#define GATEWAY_TOPICS_H

#include "gateway/hub.h"

enum gw_topic {
    GW_TOPIC_VISITOR, /* "me" of a visitor: object is tenant/inbox/address; numbers count what visitors see */
    GW_TOPIC_CONVERSATION, /* "conv:<id>" of an agent: numbers count everything */
    GW_TOPIC_AGENT,        /* "me" of an agent: her own log in the desk's partition */
    GW_TOPIC_QUEUE,        /* "queue": hints only */
    GW_TOPIC_REFUSALS      /* refusals of this session's commands: no log */
};

#define GW_HELD_BYTES_MAX (64 * 1024)
#define GW_CHUNK_ENTRIES  64 /* read at once */
#define GW_ROOM_RESERVE_BYTES                                                                                \
    (32 * 1024) /* a replay leaves this much of a socket's queue for everything else */
#define GW_SNAP_BYTES_MAX (96 * 1024)
#define GW_FRESH_ENTRIES  100 /* shown to who comes without a position */
#define GW_SNAP_ENTRIES   50

struct gw_position {
    uint64_t gen, number; /* as the client was given them; gen 0: none */
};

struct gw_watch {
    struct gw_session *session;
    struct gw_hub *hub;
    struct gw_watch *next; /* of the session */
    struct gw_channel *channel;
    struct gw_watch *channel_next, *channel_before;
    struct gw_read_node node[2];     /* by enum gw_haste */
    struct gw_read *read;            /* under way */
    struct gw_position asked;        /* by the client; means nothing once has_read */
    uint64_t gen, number, shown_gen; /* the cursor; shown_gen is what the client sees of gen and object */
    char *conv;                      /* VISITOR: the conversation the cursor is in; NULL: none yet */
    struct sl_buf *held;             /* pushes that came while not live */
    char *reply_id;                  /* id of the sub frame that is not answered yet */
    enum gw_topic kind;
    bool is_live;         /* pushes are forwarded; otherwise held */
    bool has_read;        /* the cursor means something */
    bool is_allowed;      /* CONVERSATION: its state says that she may read it */
    bool waits_for_room;  /* a replay stopped: the socket takes no more now */
    bool must_read_again; /* asked for while a read was under way */
    char *object;         /* after topic in the same allocation */
    char *tag;            /* likewise */
    char topic[];
};

/* Watch `object` in partition `tag`. The first read answers with ok when reply_id is not empty. */
struct gw_watch *gw_watch_open(struct gw_session *s, enum gw_topic kind, const char *topic, const char *tag,
                               struct sl_str object, struct gw_position from, struct sl_str reply_id);
void gw_watch_close(struct gw_watch **w);
/* Compare the cursor with the store when there is room for it. */
void gw_watch_check(struct gw_watch *w);
void gw_watch_room(struct gw_watch *w); /* the socket takes more: go on with a replay that stopped */

#endif
