/* bus/store.h - what the operations of functions.h need of a store: hashes, lists, streams, sorted sets, a clock, replies.
 *
 * What     two back ends, chosen by the linker: memory_functions.c (the simulation's store) and module/module.c (inside
 *          Redis). One struct store is one call of one operation; the back end fills it, functions*.c use it.
 * Strings  are handed over by pointer: a back end knows its own arguments and the names below by their address, and has
 *          no need to copy those. What a store hands out stays valid until the call ends or that value is written.
 * Keys     are opened once a call and type. A key that does not exist is opened like an empty one.
 * Errors   types are checked when a key is opened; nothing fails after that.
 */
#ifndef BUS_STORE_H
#define BUS_STORE_H

#include "base/str.h"

struct store;
enum store_type { STORE_HASH, STORE_LIST, STORE_STREAM, STORE_ZSET };
struct store_id {
    uint64_t ms, seq;
};
struct store_key {
    struct store *store;
    struct sl_str name;
    enum store_type type;
    void *handle;            /* the back end's */
    struct store_key *state; /* of a history: the state it belongs to */
    int64_t number;          /* of a history: its last number, as this call goes on */
    struct store_key *next;  /* with the same hash */
};

/* Names of fields and words that operations write. */
/* clang-format off */
#define STORE_NAMES(X)                                                                                       \
    X(EPOCH, "epoch") X(RUN, "run") X(UNTIL, "until") X(OFFSET, "offset") X(NOW, "now") X(GEN, "gen")         \
    X(TRIES, "tries") X(TRIED, "tried") X(N, "n") X(S, "s") X(V, "v") X(B, "b") X(K, "k") X(T, "t")           \
    X(FORKS, "forks") X(TIMER, "timer") X(C, "c") X(NM, "nm") X(E, "e") X(R, "r") X(POSITION, "@")            \
    X(E0, "e0") X(E1, "e1") X(E2, "e2") X(E3, "e3") X(E4, "e4") X(E5, "e5") X(E6, "e6") X(E7, "e7")           \
    X(E8, "e8") X(E9, "e9") X(E10, "e10") X(E11, "e11") X(E12, "e12") X(E13, "e13") X(E14, "e14")             \
    X(E15, "e15")
/* clang-format on */
enum store_name {
#define X(name, text) STORE_NAME_##name,
    STORE_NAMES(X)
#undef X
        STORE_NAME_COUNT
};
extern const struct sl_str store_names[STORE_NAME_COUNT]; /* functions.c */
#define STORE_NAME(name) (&store_names[STORE_NAME_##name])

int64_t store_now_ms(struct store *s);       /* the server's clock, the same for the whole call */
void *store_take(struct store *s, size_t n); /* zeroed; goes with the call */
/* Fills key->handle; name is key->name as the caller was given it. false: the key holds another type. */
bool store_open(struct store_key *key, const struct sl_str *name) SL_MUST_CHECK;
void store_delete(struct store_key *key); /* the whole key */
/* only_if_none: a time that is set already stays. */
void store_expire(struct store_key *key, int64_t ttl_ms, bool only_if_none);

bool store_hash_get(struct store_key *hash, const struct sl_str *field, struct sl_str *out);
void store_hash_set(struct store_key *hash, const struct sl_str *field, const struct sl_str *value);
void store_hash_del(struct store_key *hash, const struct sl_str *field);
/* Every pair; both strings are the callback's alone, and it changes nothing. */
void store_hash_walk(struct store_key *hash,
                     void (*fn)(void *arg, const struct sl_str *field, const struct sl_str *value),
                     void *arg);

size_t store_list_len(struct store_key *list);
void store_list_push(struct store_key *list, const struct sl_str *value);
void store_list_cut(struct store_key *list, size_t n); /* drop the first n */

size_t store_stream_len(struct store_key *stream);
struct store_id
store_stream_last(struct store_key *stream); /* last generated id, also of an entry that is gone */
struct store_id store_stream_add(struct store_key *stream, const struct sl_str *item, size_t count);
void store_stream_trim(struct store_key *stream, struct store_id min); /* drop entries below min */
/* The strings of one entry; false when there is none. */
bool store_stream_get(struct store_key *stream, struct store_id id, const struct sl_str **item,
                      size_t *count);
void store_stream_del(struct store_key *stream, struct store_id id);

void store_zset_set(struct store_key *zset, const struct sl_str *member, double score);
void store_zset_del(struct store_key *zset, const struct sl_str *member);
bool store_zset_first(struct store_key *zset, struct sl_str *member, double *score); /* of the lowest score */

void store_publish(struct store *s, const struct sl_str *channel, const struct sl_str *payload);
/* The count at `from` and what it counts, up to `to`, only concern who listens now: whoever repeats this call reads "0". */
void store_leave_out(struct store *s, const struct sl_str *from, const struct sl_str *to);

/* Replies, in the order in which they are read; an array is followed by its members. One reply a call. */
void store_reply_error(struct store *s, const char *words);
void store_reply_ok(struct store *s);
void store_reply_text(struct store *s, struct sl_str text);
void store_reply_int(struct store *s, int64_t v);
void store_reply_array(struct store *s, size_t n);
void store_reply_hash(struct store *s, struct store_key *hash); /* a flat array: field, value ... */

#endif
