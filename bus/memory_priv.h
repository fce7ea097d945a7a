/* bus/memory_priv.h - inside the store in memory: its keys, its replies, and how a command is run.
 *
 * What     memory.c moves requests and replies about, memory_store.c holds keys and runs plain commands,
 * memory_functions.c runs the Functions of bus/functions.md. Everything is single-threaded and repeats
 * itself: maps walk in order of insertion. Owner    struct memory_data owns every key; a reply owns its
 * memory through its arena. Errors   in Redis's words, so that value.c maps them alike.
 */
#ifndef BUS_MEMORY_PRIV_H
#define BUS_MEMORY_PRIV_H

#include "base/map.h"
#include "base/str.h"

#include "bus/bus_priv.h"

/* ---- replies: a tree of redisReply in one arena, freed as a whole ---- */
struct memory_chunk;
struct memory_arena {
    struct memory_chunk *chunk;
};
void *memory_arena_take(struct memory_arena *a, size_t n); /* zeroed, aligned for any object */
void memory_arena_free(struct memory_arena *a);
redisReply *memory_nil(struct memory_arena *a);
redisReply *memory_int(struct memory_arena *a, int64_t v);
redisReply *memory_text(struct memory_arena *a, struct sl_str s);
redisReply *memory_status(struct memory_arena *a, const char *word);
redisReply *memory_error(struct memory_arena *a, const char *fmt, ...) SL_PRINTF(2, 3);
redisReply *memory_array(struct memory_arena *a, size_t n); /* elements are nil until set */
redisReply *memory_wrong_type(struct memory_arena *a);

/* ---- keys ---- */
struct memory_bytes {
    size_t len;
    char ptr[];
};
static inline struct sl_str memory_bytes_str(const struct memory_bytes *b)
{
    return sl_str_n(b->ptr, b->len);
}

struct memory_id {
    uint64_t ms, seq;
};
struct memory_entry {
    struct memory_id id;
    size_t count;        /* strings: name, value, ... */
    struct sl_str *item; /* one block with their bytes */
};
struct memory_waiting { /* delivered to a consumer, not yet acknowledged */
    struct memory_id id;
    struct memory_bytes *consumer;
    int64_t at_ms;
    uint64_t deliveries;
};
struct memory_group {
    struct memory_id last;
    struct memory_waiting *waiting; /* in order of id */
    size_t count, cap;
};
/* Both lists and streams lose their first entries often: entries stand at first .. first + count. */
struct memory_stream {
    struct memory_entry *entry;
    size_t first, count, cap;
    struct memory_id last;
    struct sl_map *groups; /* name -> struct memory_group; NULL when there is none */
};
struct memory_list {
    struct memory_bytes **item;
    size_t first, count, cap;
};
struct memory_scored {
    double score;
    struct memory_bytes *member;
};
struct memory_zset {
    struct memory_scored *item; /* by score, then by bytes */
    size_t count, cap;
};
enum memory_type { MEMORY_HASH, MEMORY_LIST, MEMORY_STREAM, MEMORY_ZSET, MEMORY_SET };
struct memory_key {
    enum memory_type type;
    union {
        struct sl_map *map; /* hash: struct memory_bytes; set: any value */
        struct memory_list list;
        struct memory_stream stream;
        struct memory_zset zset;
    };
};

struct memory_data {
    struct sl_map *keys; /* name -> struct memory_key */
    int64_t now_unix_ms; /* Redis TIME */
    void *owner;
    void (*appended)(void *owner, struct sl_str key); /* a stream grew: wake who waits for it */
    size_t (*published)(void *owner, struct sl_str channel, struct sl_str payload);
};
struct memory_data *memory_data_new(void);
void memory_data_free(struct memory_data **d);

/* NULL when there is none. *ok is false when it is of another type (ok may be NULL when the type is known).
 */
struct memory_key *memory_find(const struct memory_data *d, struct sl_str name, enum memory_type type,
                               bool *ok);
struct memory_key *memory_make(struct memory_data *d, struct sl_str name, enum memory_type type);
void memory_drop(struct memory_data *d, struct sl_str name);

bool memory_hash_get(const struct memory_data *d, struct sl_str key, struct sl_str field, struct sl_str *out);
int64_t memory_hash_int(const struct memory_data *d, struct sl_str key,
                        struct sl_str field); /* 0 when absent */
bool memory_hash_set(struct memory_data *d, struct sl_str key, struct sl_str field,
                     struct sl_str value); /* true: new */
void memory_hash_set_int(struct memory_data *d, struct sl_str key, struct sl_str field, int64_t value);
bool memory_hash_del(struct memory_data *d, struct sl_str key, struct sl_str field);
void memory_list_push(struct memory_data *d, struct sl_str key, struct sl_str value);
void memory_list_cut(struct memory_data *d, struct sl_str key, size_t n); /* drop the first n */
size_t memory_list_len(const struct memory_data *d, struct sl_str key);
struct memory_id memory_stream_add(struct memory_data *d, struct sl_str key, const struct sl_str *item,
                                   size_t count);
size_t memory_stream_trim(struct memory_data *d, struct sl_str key,
                          struct memory_id min); /* drop entries below min */
size_t memory_stream_len(const struct memory_data *d, struct sl_str key);
void memory_zset_set(struct memory_data *d, struct sl_str key, struct sl_str member, double score);
bool memory_zset_del(struct memory_data *d, struct sl_str key, struct sl_str member);
bool memory_zset_score(const struct memory_data *d, struct sl_str key, struct sl_str member, double *out);

int memory_id_compare(struct memory_id a, struct memory_id b);
bool memory_id_parse(struct sl_str s, struct memory_id *out); /* "ms-seq" or "ms" */
#define MEMORY_ID_BYTES 44
struct sl_str memory_id_text(struct memory_id id, char out[MEMORY_ID_BYTES]);

/* ---- commands ---- */
struct memory_call {
    struct memory_data *data;
    struct memory_arena *arena;
    const struct sl_str *arg; /* arg[0] is the command's name */
    size_t count;
    bool may_block; /* a blocking read without data returns NULL and sets block_ms */
    int64_t block_ms;
};
/* The reply; NULL only when the call may block and has to. */
redisReply *memory_run(struct memory_call *c);
redisReply *memory_fcall(struct memory_call *c);
/* memory_box.c: box_1 */
redisReply *memory_box(struct memory_data *d, struct memory_arena *arena, const struct sl_str *key,
                       size_t keys, const struct sl_str *arg, size_t args);

/* ---- beside bus_priv.h, for simulations ---- */
/* When the next blocked read gives up; false: nothing is blocked. */
bool memory_next_due(const struct memory_store *s, int64_t *unix_ms);
/* What can be moved now, by connection: whose it is (UINT_MAX: of a connection that broke) and the command's
 * name, for traces. */
unsigned memory_request_process(const struct memory_store *s, size_t which);
struct sl_str memory_request_name(const struct memory_store *s, size_t which);
struct sl_str memory_request_key(const struct memory_store *s, size_t which);

#endif
