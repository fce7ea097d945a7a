/* bus/memory_functions.c - the operations of functions.c over the keys of the store in memory (the back end of store.h). */
#include "bus/functions.h"

#include "bus/memory_priv.h"

#include <stdlib.h>

#define REPLY_DEPTH 4

struct store {
    struct memory_data *data;
    struct memory_arena *arena;
    redisReply *reply;
    struct {
        redisReply *array;
        size_t at;
    } level[REPLY_DEPTH]; /* arrays that still want members */
    size_t depth;
};

/* ---- keys ---- */

int64_t store_now_ms(struct store *s)
{
    return s->data->now_unix_ms;
}

void *store_take(struct store *s, size_t n)
{
    return memory_arena_take(s->arena, n);
}

static enum memory_type memory_type_of(enum store_type type)
{
    switch (type) {
    case STORE_HASH:
        return MEMORY_HASH;
    case STORE_LIST:
        return MEMORY_LIST;
    case STORE_STREAM:
        return MEMORY_STREAM;
    case STORE_ZSET:
        return MEMORY_ZSET;
    }
    return MEMORY_SET;
}

bool store_open(struct store_key *key, const struct sl_str *name)
{
    bool ok = true;
    (void)memory_find(key->store->data, *name, memory_type_of(key->type), &ok);
    return ok;
}

void store_delete(struct store_key *key)
{
    memory_drop(key->store->data, key->name);
}

/* Time is the simulation's: nothing goes by itself. */
void store_expire(struct store_key *key, int64_t ttl_ms, bool only_if_none)
{
    (void)key;
    (void)ttl_ms;
    (void)only_if_none;
}

/* ---- hashes ---- */

bool store_hash_get(struct store_key *hash, const struct sl_str *field, struct sl_str *out)
{
    return memory_hash_get(hash->store->data, hash->name, *field, out);
}

void store_hash_set(struct store_key *hash, const struct sl_str *field, const struct sl_str *value)
{
    (void)memory_hash_set(hash->store->data, hash->name, *field, *value);
}

void store_hash_del(struct store_key *hash, const struct sl_str *field)
{
    (void)memory_hash_del(hash->store->data, hash->name, *field);
}

void store_hash_walk(struct store_key *hash,
                     void (*fn)(void *arg, const struct sl_str *field, const struct sl_str *value), void *arg)
{
    const struct memory_key *k = memory_find(hash->store->data, hash->name, MEMORY_HASH, NULL);
    struct sl_str field, value;
    void *bytes;
    for (size_t i = 0; k != NULL && sl_map_next(k->map, &i, &field, &bytes);) {
        value = memory_bytes_str(bytes);
        fn(arg, &field, &value);
    }
}

/* ---- lists ---- */

size_t store_list_len(struct store_key *list)
{
    return memory_list_len(list->store->data, list->name);
}

void store_list_push(struct store_key *list, const struct sl_str *value)
{
    memory_list_push(list->store->data, list->name, *value);
}

void store_list_cut(struct store_key *list, size_t n)
{
    memory_list_cut(list->store->data, list->name, n);
}

/* ---- streams ---- */

static const struct memory_stream *stream_of(const struct store_key *stream)
{
    const struct memory_key *k = memory_find(stream->store->data, stream->name, MEMORY_STREAM, NULL);
    return k != NULL ? &k->stream : NULL;
}

size_t store_stream_len(struct store_key *stream)
{
    return memory_stream_len(stream->store->data, stream->name);
}

struct store_id store_stream_last(struct store_key *stream)
{
    const struct memory_stream *s = stream_of(stream);
    return s != NULL ? (struct store_id){s->last.ms, s->last.seq} : (struct store_id){0, 0};
}

struct store_id store_stream_add(struct store_key *stream, const struct sl_str *item, size_t count)
{
    struct memory_id id = memory_stream_add(stream->store->data, stream->name, item, count);
    return (struct store_id){id.ms, id.seq};
}

void store_stream_trim(struct store_key *stream, struct store_id min)
{
    (void)memory_stream_trim(stream->store->data, stream->name, (struct memory_id){min.ms, min.seq});
}

bool store_stream_get(struct store_key *stream, struct store_id id, const struct sl_str **item, size_t *count)
{
    const struct memory_stream *s = stream_of(stream);
    for (size_t i = 0; s != NULL && i < s->count; i++) {
        const struct memory_entry *e = &s->entry[s->first + i];
        if (e->id.ms != id.ms || e->id.seq != id.seq)
            continue;
        *item = e->item;
        *count = e->count;
        return true;
    }
    return false;
}

void store_stream_del(struct store_key *stream, struct store_id id)
{
    char text[MEMORY_ID_BYTES];
    const struct sl_str arg[3] = {SL_STR("XDEL"), stream->name,
                                  memory_id_text((struct memory_id){id.ms, id.seq}, text)};
    struct memory_call del = {
        .data = stream->store->data, .arena = stream->store->arena, .arg = arg, .count = 3};
    (void)memory_run(&del);
}

/* ---- sorted sets ---- */

void store_zset_set(struct store_key *zset, const struct sl_str *member, double score)
{
    memory_zset_set(zset->store->data, zset->name, *member, score);
}

void store_zset_del(struct store_key *zset, const struct sl_str *member)
{
    (void)memory_zset_del(zset->store->data, zset->name, *member);
}

/* A copy: the set moves its members about while they are written. */
bool store_zset_first(struct store_key *zset, struct sl_str *member, double *score)
{
    const struct memory_key *k = memory_find(zset->store->data, zset->name, MEMORY_ZSET, NULL);
    if (k == NULL || k->zset.count == 0)
        return false;
    const struct memory_bytes *first = k->zset.item[0].member;
    char *copy = memory_arena_take(zset->store->arena, first->len + 1);
    memcpy(copy, first->ptr, first->len);
    *member = sl_str_n(copy, first->len);
    *score = k->zset.item[0].score;
    return true;
}

/* ---- listeners ---- */

void store_publish(struct store *s, const struct sl_str *channel, const struct sl_str *payload)
{
    if (s->data->published != NULL)
        (void)s->data->published(s->data->owner, *channel, *payload);
}

void store_leave_out(struct store *s, const struct sl_str *from, const struct sl_str *to)
{
    (void)s; /* nobody repeats a call here */
    (void)from;
    (void)to;
}

/* ---- replies ---- */

static void put(struct store *s, redisReply *r)
{
    if (s->depth == 0) {
        sl_assert(s->reply == NULL); /* one reply a call */
        s->reply = r;
    } else {
        redisReply *array = s->level[s->depth - 1].array;
        array->element[s->level[s->depth - 1].at++] = r;
    }
    if (r->type == REDIS_REPLY_ARRAY && r->elements > 0) {
        sl_assert(s->depth < REPLY_DEPTH);
        s->level[s->depth].array = r;
        s->level[s->depth++].at = 0;
    }
    while (s->depth > 0 && s->level[s->depth - 1].at == s->level[s->depth - 1].array->elements)
        s->depth--;
}

void store_reply_error(struct store *s, const char *words)
{
    put(s, memory_error(s->arena, "%s", words));
}

void store_reply_ok(struct store *s)
{
    put(s, memory_status(s->arena, "OK"));
}

void store_reply_text(struct store *s, struct sl_str text)
{
    put(s, memory_text(s->arena, text));
}

void store_reply_int(struct store *s, int64_t v)
{
    put(s, memory_int(s->arena, v));
}

void store_reply_array(struct store *s, size_t n)
{
    put(s, memory_array(s->arena, n));
}

static void reply_pair(void *arg, const struct sl_str *field, const struct sl_str *value)
{
    store_reply_text(arg, *field);
    store_reply_text(arg, *value);
}

void store_reply_hash(struct store *s, struct store_key *hash)
{
    const struct memory_key *k = memory_find(s->data, hash->name, MEMORY_HASH, NULL);
    store_reply_array(s, k != NULL ? 2 * sl_map_count(k->map) : 0);
    store_hash_walk(hash, reply_pair, s);
}

/* ---- FCALL name numkeys key ... arg ... ---- */

redisReply *memory_fcall(struct memory_call *c)
{
    struct store s = {.data = c->data, .arena = c->arena};
    uint64_t keys = 0;
    if (sl_str_uint(c->arg[2], &keys) != SL_OK || keys > c->count - 3)
        return memory_error(c->arena, "ERR Number of keys can't be greater than number of args");
    if (sl_str_eq_c(c->arg[1], "box_1"))
        return memory_box(c->data, c->arena, &c->arg[3], (size_t)keys, &c->arg[3 + keys],
                          c->count - 3 - (size_t)keys);
    for (size_t i = 0; i < FUNCTIONS_COUNT; i++) {
        if (!sl_str_eq_c(c->arg[1], functions_table[i].name))
            continue;
        functions_run(&functions_table[i], &s, &c->arg[3], (size_t)keys, &c->arg[3 + keys],
                      c->count - 3 - (size_t)keys);
        sl_assert(s.reply != NULL && s.depth == 0);
        return s.reply;
    }
    return memory_error(c->arena, "ERR Function not found");
}
