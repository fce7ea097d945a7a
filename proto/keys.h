/* proto/keys.h - every key and channel name of the store, in one place.
 *
 * What     a partition is named by its tag: "17" for conversations, "desk:<tenant>" for a desk, "send:<inbox>" for a
 *          delivery lane. All its keys carry {tag}, so they share a slot of a Redis Cluster.
 * Limits   KEY_MAX_BYTES; parts come from ids that were checked at the edge (key_part_ok).
 */
#ifndef PROTO_KEYS_H
#define PROTO_KEYS_H

/* clang-format off */ /* tables with a note on each line */

#include "base/str.h"

#define KEY_MAX_BYTES 512     /* the longest: an address (3 ids and 2 slashes) of a conversation partition */
#define KEY_TAG_MAX_BYTES 80
#define KEY_TENANT_MAX_BYTES 64 /* a configured name; it stands in tags and in every address */

struct key {
    size_t len;
    char ptr[KEY_MAX_BYTES];
};
static inline struct sl_str key_str(const struct key *k) { return sl_str_n(k->ptr, k->len); }

/* Of a partition: <name>:{tag}[:<part>] */
struct key key_in(const char *tag);      /* in:      command log (stream) */
struct key key_out(const char *tag);     /* out:     fact log (stream): b = batch record, f = fact, f = .. */
struct key key_meta(const char *tag);    /* meta:    lease, epoch, offset, now (hash) */
struct key key_timers(const char *tag);  /* timers:  deadlines (sorted set): member "<object>|<name>|<gen>" */
struct key key_numbers(const char *tag); /* num:     last fact number per destination (hash) */
struct key key_relay(const char *tag);   /* relay:   last relayed number per destination, "@" = its place */
struct key key_tails(const char *tag);   /* tails:   readers: "<in|out>:<name>" -> "<must|may> <entry id>" */
struct key key_dead(const char *tag);    /* dead:    dead letters (stream): e = entry id, r = why, fields */

/* <kind>:{tag}:<id> (hash: s, n, v, b); log:{tag}:<id> history (list) */
struct key key_state(const char *kind, const char *tag, struct sl_str id);
struct key key_log(const char *tag, struct sl_str id);
/* sess:{tag}:<session>[:<target>] (hash); seen:{tag}:<bucket> ids of a span of time (hash) */
struct key key_session(const char *tag, struct sl_str session, struct sl_str target);
struct key key_seen(const char *tag, struct sl_str bucket);

/* box:{send:<inbox>}:<name>  what the adapters of an inbox share (hash), in its lane's slot */
struct key key_box(const char *inbox, struct sl_str name);

struct key key_from(struct sl_str destination); /* from:{..}  marks of a destination, in its slot (hash) */
struct key key_bot(struct sl_str name);         /* bot:<name>  tasks (stream) */

/* Channels (PUBLISH): hints only, a log is the truth. */
struct key key_push_visitor(const char *tag, struct sl_str addr);      /* pv:{tag}:<addr> */
struct key key_push_conversation(const char *tag, struct sl_str conv); /* pc:{tag}:<conv> */
struct key key_push_agent(const char *tag, struct sl_str agent);       /* pa:{tag}:<agent> */
struct key key_push_queue(const char *tag);                            /* pq:{tag} */
struct key key_push_session(struct sl_str session);                    /* ps:<session>: an agent's refusals */

#define KEY_STORE "sluice:store"      /* hash: partitions, created, level */
#define KEY_ROUTERS "sluice:routers"  /* sorted set: run id -> Redis time of its last heartbeat */
#define KEY_GATEWAYS "sluice:gateways" /* sorted set: <run id>/<hash of its lanes> -> Redis time of its last heartbeat */
#define KEY_EXTRA "sluice:extra"      /* set: tags of partitions beside 0..P-1 (desks, lanes) */
#define KEY_LANE_PREFIX "send:"
#define KEY_LANE_INBOX_MAX_BYTES 64   /* of an inbox that has a lane */

void key_desk_tag(char out[KEY_TAG_MAX_BYTES], struct sl_str tenant);                 /* desk:<tenant> */
void key_lane_tag(char out[KEY_TAG_MAX_BYTES], struct sl_str inbox);                   /* send:<inbox> */
/* in:{send:<inbox>}, to the letter? */
bool key_is_lane_log(struct sl_str stream);
void key_partition_tag(char out[KEY_TAG_MAX_BYTES], unsigned k);                       /* "17" */
/* The partition of a conversation id "<k>.<ulid>". */
sl_err key_conversation_tag(char out[KEY_TAG_MAX_BYTES], struct sl_str conv) SL_MUST_CHECK;
/* tenant/inbox/address -> partition; FNV-1a 64 then modulo; fixed for ever: the store depends on it. */
unsigned key_address_partition(struct sl_str addr, unsigned partitions);
/* A name from outside that may become part of a key or a topic: 1..MSG_ID_MAX_BYTES of [A-Za-z0-9._@+-],
 * but not "-" alone, which stands for "none" in pushes. */
bool key_part_ok(struct sl_str s);

#endif
