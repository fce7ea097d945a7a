/* bus/memory_store.c - the keys of the store in memory and its plain commands, in Redis's words. */
#include "bus/memory_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

/* ---- replies ---- */

#define CHUNK_BYTES 2048

struct memory_chunk {
    struct memory_chunk *next;
    size_t used, cap;
    _Alignas(16) char bytes[];
};

void *memory_arena_take(struct memory_arena *a, size_t n)
{
    n = (n + 15) & ~(size_t)15;
    if (a->chunk == NULL || a->chunk->cap - a->chunk->used < n) {
        size_t cap = n > CHUNK_BYTES ? n : CHUNK_BYTES;
        struct memory_chunk *c = sl_alloc(sizeof *c + cap);
        c->cap = cap;
        c->next = a->chunk;
        a->chunk = c;
    }
    void *p = a->chunk->bytes + a->chunk->used;
    a->chunk->used += n;
    return p;
}

void memory_arena_free(struct memory_arena *a)
{
    for (struct memory_chunk *c = a->chunk, *next; c != NULL; c = next) {
        next = c->next;
        free(c);
    }
    a->chunk = NULL;
}

static redisReply *reply_of(struct memory_arena *a, int type)
{
    redisReply *r = memory_arena_take(a, sizeof *r);
    r->type = type;
    return r;
}

static redisReply *reply_bytes(struct memory_arena *a, int type, struct sl_str s)
{
    redisReply *r = reply_of(a, type);
    r->str = memory_arena_take(a, s.len + 1);
    memcpy(r->str, s.ptr, s.len);
    r->len = s.len;
    return r;
}

redisReply *memory_nil(struct memory_arena *a)
{
    return reply_of(a, REDIS_REPLY_NIL);
}

redisReply *memory_int(struct memory_arena *a, int64_t v)
{
    redisReply *r = reply_of(a, REDIS_REPLY_INTEGER);
    r->integer = v;
    return r;
}

redisReply *memory_text(struct memory_arena *a, struct sl_str s)
{
    return reply_bytes(a, REDIS_REPLY_STRING, s);
}

redisReply *memory_status(struct memory_arena *a, const char *word)
{
    return reply_bytes(a, REDIS_REPLY_STATUS, sl_str_c(word));
}

redisReply *memory_error(struct memory_arena *a, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return reply_bytes(a, REDIS_REPLY_ERROR, sl_str_c(text));
}

redisReply *memory_array(struct memory_arena *a, size_t n)
{
    redisReply *r = reply_of(a, REDIS_REPLY_ARRAY);
    r->elements = n;
    r->element = memory_arena_take(a, (n + 1) * sizeof *r->element);
    for (size_t i = 0; i < n; i++)
        r->element[i] = NULL;
    return r;
}

redisReply *memory_wrong_type(struct memory_arena *a)
{
    return memory_error(a, "WRONGTYPE Operation against a key holding the wrong kind of value");
}

static redisReply *wrong_count(const struct memory_call *c)
{
    return memory_error(c->arena, "ERR wrong number of arguments for '%.*s' command", (int)c->arg[0].len,
                        c->arg[0].ptr);
}

static redisReply *syntax_error(const struct memory_call *c)
{
    return memory_error(c->arena, "ERR syntax error");
}

static redisReply *not_integer(const struct memory_call *c)
{
    return memory_error(c->arena, "ERR value is not an integer or out of range");
}

/* ---- bytes and ids ---- */

static struct memory_bytes *bytes_of(struct sl_str s)
{
    struct memory_bytes *b = sl_alloc(sizeof *b + s.len + 1);
    b->len = s.len;
    memcpy(b->ptr, s.ptr, s.len);
    return b;
}

int memory_id_compare(struct memory_id a, struct memory_id b)
{
    if (a.ms != b.ms)
        return a.ms < b.ms ? -1 : 1;
    return a.seq == b.seq ? 0 : a.seq < b.seq ? -1 : 1;
}

bool memory_id_parse(struct sl_str s, struct memory_id *out)
{
    size_t dash = 0;
    *out = (struct memory_id){0, 0};
    if (!sl_str_find(s, SL_STR("-"), &dash))
        return sl_str_uint(s, &out->ms) == SL_OK;
    return sl_str_uint(sl_str_n(s.ptr, dash), &out->ms) == SL_OK &&
           sl_str_uint(sl_str_n(s.ptr + dash + 1, s.len - dash - 1), &out->seq) == SL_OK;
}

struct sl_str memory_id_text(struct memory_id id, char out[MEMORY_ID_BYTES])
{
    int n =
        snprintf(out, MEMORY_ID_BYTES, "%llu-%llu", (unsigned long long)id.ms, (unsigned long long)id.seq);
    return sl_str_n(out, (size_t)n);
}

static struct memory_id id_after(struct memory_id id)
{
    return id.seq == UINT64_MAX ? (struct memory_id){id.ms + 1, 0} : (struct memory_id){id.ms, id.seq + 1};
}

/* ---- keys ---- */

struct memory_data *memory_data_new(void)
{
    struct memory_data *d = sl_alloc(sizeof *d);
    d->keys = sl_map_new();
    return d;
}

static void map_free(struct sl_map **m, bool owns_values)
{
    struct sl_str name;
    void *value;
    for (size_t i = 0; owns_values && sl_map_next(*m, &i, &name, &value);)
        free(value);
    sl_map_free(m);
}

static void group_free(struct memory_group *g)
{
    for (size_t i = 0; i < g->count; i++)
        free(g->waiting[i].consumer);
    free(g->waiting);
    free(g);
}

static void stream_free(struct memory_stream *s)
{
    struct sl_str name;
    void *value;
    for (size_t i = s->first; i < s->first + s->count; i++)
        free(s->entry[i].item);
    free(s->entry);
    for (size_t i = 0; s->groups != NULL && sl_map_next(s->groups, &i, &name, &value);)
        group_free(value);
    sl_map_free(&s->groups);
}

static void key_free(struct memory_key *k)
{
    switch (k->type) {
    case MEMORY_HASH:
    case MEMORY_SET:
        map_free(&k->map, k->type == MEMORY_HASH);
        break;
    case MEMORY_LIST:
        for (size_t i = k->list.first; i < k->list.first + k->list.count; i++)
            free(k->list.item[i]);
        free(k->list.item);
        break;
    case MEMORY_STREAM:
        stream_free(&k->stream);
        break;
    case MEMORY_ZSET:
        for (size_t i = 0; i < k->zset.count; i++)
            free(k->zset.item[i].member);
        free(k->zset.item);
        break;
    }
    free(k);
}

void memory_data_free(struct memory_data **dp)
{
    struct memory_data *d = *dp;
    *dp = NULL;
    if (d == NULL)
        return;
    struct sl_str name;
    void *value;
    for (size_t i = 0; sl_map_next(d->keys, &i, &name, &value);)
        key_free(value);
    sl_map_free(&d->keys);
    free(d);
}

struct memory_key *memory_find(const struct memory_data *d, struct sl_str name, enum memory_type type,
                               bool *ok)
{
    struct memory_key *k = sl_map_get(d->keys, name);
    bool is_right = k == NULL || k->type == type;
    if (ok != NULL)
        *ok = is_right;
    return is_right ? k : NULL;
}

struct memory_key *memory_make(struct memory_data *d, struct sl_str name, enum memory_type type)
{
    struct memory_key *k = memory_find(d, name, type, NULL);
    if (k != NULL)
        return k;
    k = sl_alloc(sizeof *k);
    k->type = type;
    if (type == MEMORY_HASH || type == MEMORY_SET)
        k->map = sl_map_new();
    struct memory_key *old = sl_map_set(d->keys, name, k);
    sl_assert(old == NULL); /* callers check the type first */
    return k;
}

void memory_drop(struct memory_data *d, struct sl_str name)
{
    struct memory_key *k = sl_map_del(d->keys, name);
    if (k != NULL)
        key_free(k);
}

/* Room for one more at the end of an array that may have lost its first entries. */
static void *make_room(void *items, size_t size, size_t *first, size_t count, size_t *cap)
{
    if (*first + count < *cap)
        return items;
    if (*first > *cap / 2) {
        memmove(items, (char *)items + *first * size, count * size);
        *first = 0;
        return items;
    }
    *cap = *cap == 0 ? 8 : *cap * 2;
    return sl_realloc(items, *cap * size);
}

/* ---- hashes and sets ---- */

bool memory_hash_get(const struct memory_data *d, struct sl_str key, struct sl_str field, struct sl_str *out)
{
    const struct memory_key *k = memory_find(d, key, MEMORY_HASH, NULL);
    const struct memory_bytes *b = k != NULL ? sl_map_get(k->map, field) : NULL;
    if (b == NULL)
        return false;
    *out = memory_bytes_str(b);
    return true;
}

int64_t memory_hash_int(const struct memory_data *d, struct sl_str key, struct sl_str field)
{
    struct sl_str s = SL_STR_NONE;
    int64_t v = 0;
    if (!memory_hash_get(d, key, field, &s) || sl_str_int(s, &v) != SL_OK)
        return 0;
    return v;
}

bool memory_hash_set(struct memory_data *d, struct sl_str key, struct sl_str field, struct sl_str value)
{
    struct memory_key *k = memory_make(d, key, MEMORY_HASH);
    void *old = sl_map_set(k->map, field, bytes_of(value));
    free(old);
    return old == NULL;
}

void memory_hash_set_int(struct memory_data *d, struct sl_str key, struct sl_str field, int64_t value)
{
    char text[24];
    int n = snprintf(text, sizeof text, "%lld", (long long)value);
    (void)memory_hash_set(d, key, field, sl_str_n(text, (size_t)n));
}

bool memory_hash_del(struct memory_data *d, struct sl_str key, struct sl_str field)
{
    struct memory_key *k = memory_find(d, key, MEMORY_HASH, NULL);
    void *old = k != NULL ? sl_map_del(k->map, field) : NULL;
    if (old == NULL)
        return false;
    free(old);
    if (sl_map_count(k->map) == 0)
        memory_drop(d, key);
    return true;
}

static redisReply *run_hget(struct memory_call *c)
{
    bool ok = true;
    struct sl_str v = SL_STR_NONE;
    (void)memory_find(c->data, c->arg[1], MEMORY_HASH, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    return memory_hash_get(c->data, c->arg[1], c->arg[2], &v) ? memory_text(c->arena, v)
                                                              : memory_nil(c->arena);
}

static redisReply *run_hmget(struct memory_call *c)
{
    bool ok = true;
    (void)memory_find(c->data, c->arg[1], MEMORY_HASH, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    redisReply *r = memory_array(c->arena, c->count - 2);
    for (size_t i = 2; i < c->count; i++) {
        struct sl_str v = SL_STR_NONE;
        bool has = memory_hash_get(c->data, c->arg[1], c->arg[i], &v);
        r->element[i - 2] = has ? memory_text(c->arena, v) : memory_nil(c->arena);
    }
    return r;
}

static redisReply *flat_hash(struct memory_call *c, struct sl_str key, bool with_values)
{
    bool ok = true;
    const struct memory_key *k = memory_find(c->data, key, MEMORY_HASH, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    size_t width = with_values ? 2 : 1;
    redisReply *r = memory_array(c->arena, k != NULL ? width * sl_map_count(k->map) : 0);
    struct sl_str field;
    void *value;
    size_t at = 0;
    for (size_t i = 0; k != NULL && sl_map_next(k->map, &i, &field, &value);) {
        r->element[at++] = memory_text(c->arena, field);
        if (with_values)
            r->element[at++] = memory_text(c->arena, memory_bytes_str(value));
    }
    return r;
}

static redisReply *run_hgetall(struct memory_call *c)
{
    return flat_hash(c, c->arg[1], true);
}

static redisReply *run_hkeys(struct memory_call *c)
{
    return flat_hash(c, c->arg[1], false);
}

static redisReply *run_hset(struct memory_call *c)
{
    bool ok = true;
    (void)memory_find(c->data, c->arg[1], MEMORY_HASH, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    if (c->count % 2 != 0)
        return wrong_count(c);
    int64_t added = 0;
    for (size_t i = 2; i < c->count; i += 2)
        added += memory_hash_set(c->data, c->arg[1], c->arg[i], c->arg[i + 1]) ? 1 : 0;
    return memory_int(c->arena, added);
}

static redisReply *run_hsetnx(struct memory_call *c)
{
    bool ok = true;
    const struct memory_key *k = memory_find(c->data, c->arg[1], MEMORY_HASH, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    if (k != NULL && sl_map_get(k->map, c->arg[2]) != NULL)
        return memory_int(c->arena, 0);
    (void)memory_hash_set(c->data, c->arg[1], c->arg[2], c->arg[3]);
    return memory_int(c->arena, 1);
}

static redisReply *run_hdel(struct memory_call *c)
{
    bool ok = true;
    (void)memory_find(c->data, c->arg[1], MEMORY_HASH, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    int64_t gone = 0;
    for (size_t i = 2; i < c->count; i++)
        gone += memory_hash_del(c->data, c->arg[1], c->arg[i]) ? 1 : 0;
    return memory_int(c->arena, gone);
}

static redisReply *run_hlen(struct memory_call *c)
{
    bool ok = true;
    const struct memory_key *k = memory_find(c->data, c->arg[1], MEMORY_HASH, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    return memory_int(c->arena, k != NULL ? (int64_t)sl_map_count(k->map) : 0);
}

static redisReply *run_hincrby(struct memory_call *c)
{
    bool ok = true;
    int64_t by = 0;
    (void)memory_find(c->data, c->arg[1], MEMORY_HASH, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    if (sl_str_int(c->arg[3], &by) != SL_OK)
        return not_integer(c);
    int64_t v = memory_hash_int(c->data, c->arg[1], c->arg[2]) + by;
    memory_hash_set_int(c->data, c->arg[1], c->arg[2], v);
    return memory_int(c->arena, v);
}

static const char in_set; /* what every member of a set points to */

static redisReply *run_sadd(struct memory_call *c)
{
    bool ok = true;
    (void)memory_find(c->data, c->arg[1], MEMORY_SET, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    struct memory_key *k = memory_make(c->data, c->arg[1], MEMORY_SET);
    int64_t added = 0;
    for (size_t i = 2; i < c->count; i++)
        added += sl_map_set(k->map, c->arg[i], (void *)(uintptr_t)&in_set) == NULL ? 1 : 0;
    return memory_int(c->arena, added);
}

static redisReply *run_srem(struct memory_call *c)
{
    bool ok = true;
    struct memory_key *k = memory_find(c->data, c->arg[1], MEMORY_SET, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    int64_t gone = 0;
    for (size_t i = 2; k != NULL && i < c->count; i++)
        gone += sl_map_del(k->map, c->arg[i]) != NULL ? 1 : 0;
    if (k != NULL && sl_map_count(k->map) == 0)
        memory_drop(c->data, c->arg[1]);
    return memory_int(c->arena, gone);
}

static redisReply *run_smembers(struct memory_call *c)
{
    bool ok = true;
    const struct memory_key *k = memory_find(c->data, c->arg[1], MEMORY_SET, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    redisReply *r = memory_array(c->arena, k != NULL ? sl_map_count(k->map) : 0);
    struct sl_str member;
    void *value;
    size_t at = 0;
    for (size_t i = 0; k != NULL && sl_map_next(k->map, &i, &member, &value);)
        r->element[at++] = memory_text(c->arena, member);
    return r;
}

static redisReply *run_sismember(struct memory_call *c)
{
    const struct memory_key *k = memory_find(c->data, c->arg[1], MEMORY_SET, NULL);
    return memory_int(c->arena, k != NULL && sl_map_get(k->map, c->arg[2]) != NULL ? 1 : 0);
}

/* ---- lists ---- */

void memory_list_push(struct memory_data *d, struct sl_str key, struct sl_str value)
{
    struct memory_list *l = &memory_make(d, key, MEMORY_LIST)->list;
    l->item = make_room(l->item, sizeof *l->item, &l->first, l->count, &l->cap);
    l->item[l->first + l->count++] = bytes_of(value);
}

void memory_list_cut(struct memory_data *d, struct sl_str key, size_t n)
{
    struct memory_key *k = memory_find(d, key, MEMORY_LIST, NULL);
    if (k == NULL)
        return;
    struct memory_list *l = &k->list;
    for (; n > 0 && l->count > 0; n--, l->count--)
        free(l->item[l->first++]);
    if (l->count == 0)
        memory_drop(d, key);
}

size_t memory_list_len(const struct memory_data *d, struct sl_str key)
{
    const struct memory_key *k = memory_find(d, key, MEMORY_LIST, NULL);
    return k != NULL ? k->list.count : 0;
}

static redisReply *run_rpush(struct memory_call *c)
{
    bool ok = true;
    (void)memory_find(c->data, c->arg[1], MEMORY_LIST, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    for (size_t i = 2; i < c->count; i++)
        memory_list_push(c->data, c->arg[1], c->arg[i]);
    return memory_int(c->arena, (int64_t)memory_list_len(c->data, c->arg[1]));
}

static redisReply *run_llen(struct memory_call *c)
{
    bool ok = true;
    (void)memory_find(c->data, c->arg[1], MEMORY_LIST, &ok);
    return ok ? memory_int(c->arena, (int64_t)memory_list_len(c->data, c->arg[1]))
              : memory_wrong_type(c->arena);
}

static bool is_range(const struct sl_str *arg, size_t len, size_t *from, size_t *to, bool *ok)
{
    int64_t first = 0, last = 0, n = (int64_t)len;
    *ok = sl_str_int(arg[0], &first) == SL_OK && sl_str_int(arg[1], &last) == SL_OK;
    first = first < 0 ? first + n : first;
    last = last < 0 ? last + n : last;
    first = first < 0 ? 0 : first;
    last = last >= n ? n - 1 : last;
    if (!*ok || first > last)
        return false;
    *from = (size_t)first;
    *to = (size_t)last;
    return true;
}

static redisReply *run_lrange(struct memory_call *c)
{
    bool ok = true;
    const struct memory_key *k = memory_find(c->data, c->arg[1], MEMORY_LIST, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    size_t from = 0, to = 0;
    bool any = is_range(&c->arg[2], k != NULL ? k->list.count : 0, &from, &to, &ok);
    if (!ok)
        return not_integer(c);
    redisReply *r = memory_array(c->arena, any ? to - from + 1 : 0);
    for (size_t i = 0; i < r->elements; i++)
        r->element[i] = memory_text(c->arena, memory_bytes_str(k->list.item[k->list.first + from + i]));
    return r;
}

static redisReply *run_lindex(struct memory_call *c)
{
    bool ok = true;
    const struct memory_key *k = memory_find(c->data, c->arg[1], MEMORY_LIST, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    struct sl_str range[2] = {c->arg[2], c->arg[2]};
    size_t from = 0, to = 0;
    if (!is_range(range, k != NULL ? k->list.count : 0, &from, &to, &ok))
        return ok ? memory_nil(c->arena) : not_integer(c);
    return memory_text(c->arena, memory_bytes_str(k->list.item[k->list.first + from]));
}

static redisReply *run_ltrim(struct memory_call *c)
{
    bool ok = true;
    struct memory_key *k = memory_find(c->data, c->arg[1], MEMORY_LIST, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    size_t from = 0, to = 0;
    bool any = is_range(&c->arg[2], k != NULL ? k->list.count : 0, &from, &to, &ok);
    if (!ok)
        return not_integer(c);
    if (k == NULL)
        return memory_status(c->arena, "OK");
    if (!any) {
        memory_drop(c->data, c->arg[1]);
        return memory_status(c->arena, "OK");
    }
    for (; k->list.count > to + 1; k->list.count--)
        free(k->list.item[k->list.first + k->list.count - 1]);
    memory_list_cut(c->data, c->arg[1], from);
    return memory_status(c->arena, "OK");
}

/* ---- sorted sets ---- */

static int scored_compare(double score, struct sl_str member, const struct memory_scored *s)
{
    if (score < s->score || score > s->score)
        return score < s->score ? -1 : 1;
    struct sl_str other = memory_bytes_str(s->member);
    size_t n = member.len < other.len ? member.len : other.len;
    int c = memcmp(member.ptr, other.ptr, n);
    return c != 0 ? c : member.len < other.len ? -1 : member.len > other.len ? 1 : 0;
}

static size_t zset_find(const struct memory_zset *z, struct sl_str member)
{
    size_t i = 0;
    while (i < z->count && !sl_str_eq(memory_bytes_str(z->item[i].member), member))
        i++;
    return i;
}

bool memory_zset_del(struct memory_data *d, struct sl_str key, struct sl_str member)
{
    struct memory_key *k = memory_find(d, key, MEMORY_ZSET, NULL);
    size_t at = k != NULL ? zset_find(&k->zset, member) : 0;
    if (k == NULL || at == k->zset.count)
        return false;
    free(k->zset.item[at].member);
    memmove(&k->zset.item[at], &k->zset.item[at + 1], (k->zset.count - at - 1) * sizeof *k->zset.item);
    if (--k->zset.count == 0)
        memory_drop(d, key);
    return true;
}

void memory_zset_set(struct memory_data *d, struct sl_str key, struct sl_str member, double score)
{
    (void)memory_zset_del(d, key, member);
    struct memory_zset *z = &memory_make(d, key, MEMORY_ZSET)->zset;
    size_t none = 0;
    z->item = make_room(z->item, sizeof *z->item, &none, z->count, &z->cap);
    size_t at = z->count;
    while (at > 0 && scored_compare(score, member, &z->item[at - 1]) < 0)
        at--;
    memmove(&z->item[at + 1], &z->item[at], (z->count - at) * sizeof *z->item);
    z->item[at] = (struct memory_scored){.score = score, .member = bytes_of(member)};
    z->count++;
}

bool memory_zset_score(const struct memory_data *d, struct sl_str key, struct sl_str member, double *out)
{
    const struct memory_key *k = memory_find(d, key, MEMORY_ZSET, NULL);
    size_t at = k != NULL ? zset_find(&k->zset, member) : 0;
    if (k == NULL || at == k->zset.count)
        return false;
    *out = k->zset.item[at].score;
    return true;
}

/* "5", "(5", "-inf", "+inf" */
static bool score_parse(struct sl_str s, double *out, bool *is_open)
{
    char text[64];
    *is_open = s.len > 0 && s.ptr[0] == '(';
    if (*is_open)
        s = sl_str_n(s.ptr + 1, s.len - 1);
    if (s.len == 0 || s.len >= sizeof text)
        return false;
    memcpy(text, s.ptr, s.len);
    text[s.len] = '\0';
    char *end = NULL;
    *out = strtod(text, &end);
    return end == text + s.len;
}

static redisReply *score_reply(struct memory_arena *a, double score)
{
    char text[64];
    int n = snprintf(text, sizeof text, "%.17g", score);
    return memory_text(a, sl_str_n(text, (size_t)n));
}

static redisReply *run_zadd(struct memory_call *c)
{
    bool ok = true, is_open = false, only_new = false, only_old = false;
    (void)memory_find(c->data, c->arg[1], MEMORY_ZSET, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    size_t i = 2;
    for (; i < c->count && c->arg[i].len == 2; i++) {
        if (strncasecmp(c->arg[i].ptr, "NX", 2) == 0)
            only_new = true;
        else if (strncasecmp(c->arg[i].ptr, "XX", 2) == 0)
            only_old = true;
        else
            break;
    }
    if (i >= c->count || (c->count - i) % 2 != 0)
        return syntax_error(c);
    double score = 0, old = 0;
    for (size_t j = i; j < c->count; j += 2)
        if (!score_parse(c->arg[j], &score, &is_open) || is_open)
            return memory_error(c->arena, "ERR value is not a valid float");
    int64_t added = 0;
    for (; i < c->count; i += 2) {
        bool has = memory_zset_score(c->data, c->arg[1], c->arg[i + 1], &old);
        if ((has && only_new) || (!has && only_old))
            continue;
        (void)score_parse(c->arg[i], &score, &is_open);
        memory_zset_set(c->data, c->arg[1], c->arg[i + 1], score);
        added += has ? 0 : 1;
    }
    return memory_int(c->arena, added);
}

static redisReply *run_zrem(struct memory_call *c)
{
    bool ok = true;
    (void)memory_find(c->data, c->arg[1], MEMORY_ZSET, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    int64_t gone = 0;
    for (size_t i = 2; i < c->count; i++)
        gone += memory_zset_del(c->data, c->arg[1], c->arg[i]) ? 1 : 0;
    return memory_int(c->arena, gone);
}

static redisReply *run_zscore(struct memory_call *c)
{
    double score = 0;
    bool has = memory_zset_score(c->data, c->arg[1], c->arg[2], &score);
    return has ? score_reply(c->arena, score) : memory_nil(c->arena);
}

static redisReply *run_zcard(struct memory_call *c)
{
    const struct memory_key *k = memory_find(c->data, c->arg[1], MEMORY_ZSET, NULL);
    return memory_int(c->arena, k != NULL ? (int64_t)k->zset.count : 0);
}

struct zrange {
    bool by_score, with_scores, has_limit;
    int64_t offset, limit;
};

static bool zrange_options(const struct memory_call *c, size_t i, struct zrange *z)
{
    for (; i < c->count; i++) {
        struct sl_str a = c->arg[i];
        if (a.len == 7 && strncasecmp(a.ptr, "BYSCORE", 7) == 0) {
            z->by_score = true;
        } else if (a.len == 10 && strncasecmp(a.ptr, "WITHSCORES", 10) == 0) {
            z->with_scores = true;
        } else if (a.len == 5 && strncasecmp(a.ptr, "LIMIT", 5) == 0 && i + 2 < c->count) {
            z->has_limit = true;
            if (sl_str_int(c->arg[i + 1], &z->offset) != SL_OK ||
                sl_str_int(c->arg[i + 2], &z->limit) != SL_OK)
                return false;
            i += 2;
        } else {
            return false;
        }
    }
    return true;
}

/* The members from .. to (exclusive) whose score lies in the two bounds. */
static bool zset_span(const struct memory_zset *z, struct sl_str low, struct sl_str high, size_t *from,
                      size_t *to)
{
    double min = 0, max = 0;
    bool min_open = false, max_open = false;
    if (!score_parse(low, &min, &min_open) || !score_parse(high, &max, &max_open))
        return false;
    size_t i = 0;
    while (i < z->count && (z->item[i].score < min || (min_open && z->item[i].score <= min)))
        i++;
    *from = i;
    while (i < z->count && (z->item[i].score < max || (!max_open && z->item[i].score <= max)))
        i++;
    *to = i;
    return true;
}

static redisReply *zrange_reply(struct memory_call *c, const struct zrange *options)
{
    static const struct memory_zset empty;
    bool ok = true;
    const struct memory_key *k = memory_find(c->data, c->arg[1], MEMORY_ZSET, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    const struct memory_zset *z = k != NULL ? &k->zset : &empty;
    size_t from = 0, to = 0;
    if (options->by_score) {
        if (!zset_span(z, c->arg[2], c->arg[3], &from, &to))
            return memory_error(c->arena, "ERR min or max is not a float");
    } else if (is_range(&c->arg[2], z->count, &from, &to, &ok)) {
        to++;
    } else if (!ok) {
        return not_integer(c);
    }
    if (options->has_limit) {
        from = from + (size_t)options->offset < to ? from + (size_t)options->offset : to;
        if (options->limit >= 0 && to - from > (size_t)options->limit)
            to = from + (size_t)options->limit;
    }
    size_t width = options->with_scores ? 2 : 1;
    redisReply *r = memory_array(c->arena, (to - from) * width);
    for (size_t i = from; i < to; i++) {
        r->element[(i - from) * width] = memory_text(c->arena, memory_bytes_str(z->item[i].member));
        if (options->with_scores)
            r->element[(i - from) * width + 1] = score_reply(c->arena, z->item[i].score);
    }
    return r;
}

static redisReply *run_zrange(struct memory_call *c)
{
    struct zrange options = {0};
    return zrange_options(c, 4, &options) ? zrange_reply(c, &options) : syntax_error(c);
}

static redisReply *run_zrangebyscore(struct memory_call *c)
{
    struct zrange options = {0};
    if (!zrange_options(c, 4, &options))
        return syntax_error(c);
    options.by_score = true;
    return zrange_reply(c, &options);
}

static redisReply *run_zremrangebyscore(struct memory_call *c)
{
    bool ok = true;
    struct memory_key *k = memory_find(c->data, c->arg[1], MEMORY_ZSET, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    size_t from = 0, to = 0;
    if (k == NULL)
        return memory_int(c->arena, 0);
    if (!zset_span(&k->zset, c->arg[2], c->arg[3], &from, &to))
        return memory_error(c->arena, "ERR min or max is not a float");
    for (size_t i = from; i < to; i++)
        free(k->zset.item[i].member);
    memmove(&k->zset.item[from], &k->zset.item[to], (k->zset.count - to) * sizeof *k->zset.item);
    k->zset.count -= to - from;
    if (k->zset.count == 0)
        memory_drop(c->data, c->arg[1]);
    return memory_int(c->arena, (int64_t)(to - from));
}

/* ---- streams ---- */

static struct memory_entry entry_of(struct memory_id id, const struct sl_str *item, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += item[i].len;
    struct memory_entry e = {.id = id, .count = count};
    e.item = sl_alloc(count * sizeof *e.item + bytes + 1);
    char *at = (char *)(e.item + count);
    for (size_t i = 0; i < count; i++) {
        memcpy(at, item[i].ptr, item[i].len);
        e.item[i] = sl_str_n(at, item[i].len);
        at += item[i].len;
    }
    return e;
}

static void stream_put(struct memory_data *d, struct sl_str key, struct memory_id id,
                       const struct sl_str *item, size_t count)
{
    struct memory_stream *s = &memory_make(d, key, MEMORY_STREAM)->stream;
    s->entry = make_room(s->entry, sizeof *s->entry, &s->first, s->count, &s->cap);
    s->entry[s->first + s->count++] = entry_of(id, item, count);
    s->last = id;
    if (d->appended != NULL)
        d->appended(d->owner, key);
}

/* As Redis does with "*": the clock's ms, or the last id's if the clock ran back. */
struct memory_id memory_stream_add(struct memory_data *d, struct sl_str key, const struct sl_str *item,
                                   size_t count)
{
    struct memory_stream *s = &memory_make(d, key, MEMORY_STREAM)->stream;
    uint64_t now = (uint64_t)d->now_unix_ms;
    struct memory_id id = now > s->last.ms ? (struct memory_id){now, 0} : id_after(s->last);
    stream_put(d, key, id, item, count);
    return id;
}

size_t memory_stream_trim(struct memory_data *d, struct sl_str key, struct memory_id min)
{
    struct memory_key *k = memory_find(d, key, MEMORY_STREAM, NULL);
    size_t gone = 0;
    if (k == NULL)
        return 0;
    struct memory_stream *s = &k->stream;
    for (; s->count > 0 && memory_id_compare(s->entry[s->first].id, min) < 0; s->count--, gone++)
        free(s->entry[s->first++].item);
    return gone;
}

size_t memory_stream_len(const struct memory_data *d, struct sl_str key)
{
    const struct memory_key *k = memory_find(d, key, MEMORY_STREAM, NULL);
    return k != NULL ? k->stream.count : 0;
}

/* Index (from first) of the first entry at or above id. */
static size_t stream_at(const struct memory_stream *s, struct memory_id id)
{
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (memory_id_compare(s->entry[s->first + middle].id, id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static const struct memory_entry *stream_get(const struct memory_stream *s, struct memory_id id)
{
    size_t at = stream_at(s, id);
    bool has = at < s->count && memory_id_compare(s->entry[s->first + at].id, id) == 0;
    return has ? &s->entry[s->first + at] : NULL;
}

static redisReply *id_reply(struct memory_arena *a, struct memory_id id)
{
    char text[MEMORY_ID_BYTES];
    return memory_text(a, memory_id_text(id, text));
}

static redisReply *entry_reply(struct memory_arena *a, const struct memory_entry *e)
{
    redisReply *r = memory_array(a, 2), *fields = memory_array(a, e->count);
    for (size_t i = 0; i < e->count; i++)
        fields->element[i] = memory_text(a, e->item[i]);
    r->element[0] = id_reply(a, e->id);
    r->element[1] = fields;
    return r;
}

static redisReply *run_xadd(struct memory_call *c)
{
    bool ok = true;
    const struct memory_key *k = memory_find(c->data, c->arg[1], MEMORY_STREAM, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    if (c->count < 5 || c->count % 2 == 0)
        return wrong_count(c);
    if (sl_str_eq_c(c->arg[2], "*"))
        return id_reply(c->arena, memory_stream_add(c->data, c->arg[1], &c->arg[3], c->count - 3));
    struct memory_id id;
    if (!memory_id_parse(c->arg[2], &id))
        return memory_error(c->arena, "ERR Invalid stream ID specified as stream command argument");
    if (k != NULL && memory_id_compare(id, k->stream.last) <= 0)
        return memory_error(
            c->arena, "ERR The ID specified in XADD is equal or smaller than the target stream top item");
    stream_put(c->data, c->arg[1], id, &c->arg[3], c->count - 3);
    return id_reply(c->arena, id);
}

static redisReply *run_xlen(struct memory_call *c)
{
    bool ok = true;
    (void)memory_find(c->data, c->arg[1], MEMORY_STREAM, &ok);
    return ok ? memory_int(c->arena, (int64_t)memory_stream_len(c->data, c->arg[1]))
              : memory_wrong_type(c->arena);
}

static redisReply *run_xdel(struct memory_call *c)
{
    bool ok = true;
    struct memory_key *k = memory_find(c->data, c->arg[1], MEMORY_STREAM, &ok);
    int64_t gone = 0;
    if (!ok)
        return memory_wrong_type(c->arena);
    for (size_t i = 2; k != NULL && i < c->count; i++) {
        struct memory_stream *s = &k->stream;
        struct memory_id id;
        if (!memory_id_parse(c->arg[i], &id))
            return memory_error(c->arena, "ERR Invalid stream ID specified as stream command argument");
        if (stream_get(s, id) == NULL)
            continue;
        size_t at = s->first + stream_at(s, id);
        free(s->entry[at].item);
        memmove(&s->entry[at], &s->entry[at + 1], (s->first + s->count - at - 1) * sizeof *s->entry);
        s->count--;
        gone++;
    }
    return memory_int(c->arena, gone);
}

/* XTRIM key MINID [=|~] id: nothing else is used, and nothing else is safe. */
static redisReply *run_xtrim(struct memory_call *c)
{
    bool ok = true;
    struct memory_id id;
    (void)memory_find(c->data, c->arg[1], MEMORY_STREAM, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    if (c->arg[2].len != 5 || strncasecmp(c->arg[2].ptr, "MINID", 5) != 0)
        return syntax_error(c);
    if (!memory_id_parse(c->arg[c->count - 1], &id))
        return memory_error(c->arena, "ERR Invalid stream ID specified as stream command argument");
    return memory_int(c->arena, (int64_t)memory_stream_trim(c->data, c->arg[1], id));
}

static bool range_bound(struct sl_str s, bool is_low, struct memory_id *out)
{
    bool is_open = s.len > 1 && s.ptr[0] == '(';
    if (is_open)
        s = sl_str_n(s.ptr + 1, s.len - 1);
    if (sl_str_eq_c(s, "-")) {
        *out = (struct memory_id){0, 0};
        return true;
    }
    if (sl_str_eq_c(s, "+")) {
        *out = (struct memory_id){UINT64_MAX, UINT64_MAX};
        return true;
    }
    size_t dash = 0;
    if (!memory_id_parse(s, out))
        return false;
    if (!is_low && !sl_str_find(s, SL_STR("-"), &dash))
        out->seq = UINT64_MAX;
    if (is_open && is_low)
        *out = id_after(*out);
    if (is_open && !is_low)
        *out = out->seq > 0 ? (struct memory_id){out->ms, out->seq - 1}
                            : (struct memory_id){out->ms - 1, UINT64_MAX};
    return true;
}

static redisReply *xrange_reply(struct memory_call *c, bool is_backwards)
{
    bool ok = true;
    const struct memory_key *k = memory_find(c->data, c->arg[1], MEMORY_STREAM, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    struct memory_id low, high;
    int64_t limit = INT64_MAX;
    if (!range_bound(c->arg[is_backwards ? 3 : 2], true, &low) ||
        !range_bound(c->arg[is_backwards ? 2 : 3], false, &high))
        return memory_error(c->arena, "ERR Invalid stream ID specified as stream command argument");
    if (c->count > 4 && (c->count != 6 || sl_str_int(c->arg[5], &limit) != SL_OK || limit < 0))
        return syntax_error(c);
    if (k == NULL)
        return memory_array(c->arena, 0);
    const struct memory_stream *s = &k->stream;
    size_t from = stream_at(s, low), to = stream_at(s, high);
    if (to < s->count && memory_id_compare(s->entry[s->first + to].id, high) == 0)
        to++;
    size_t n = to > from ? to - from : 0;
    n = (int64_t)n > limit ? (size_t)limit : n;
    redisReply *r = memory_array(c->arena, n);
    for (size_t i = 0; i < n; i++)
        r->element[i] = entry_reply(c->arena, &s->entry[s->first + (is_backwards ? to - 1 - i : from + i)]);
    return r;
}

static redisReply *run_xrange(struct memory_call *c)
{
    return xrange_reply(c, false);
}

static redisReply *run_xrevrange(struct memory_call *c)
{
    return xrange_reply(c, true);
}

/* What XREAD and XREADGROUP have in common. */
struct reading {
    int64_t count, block_ms; /* block_ms -1: does not block */
    struct sl_str group, consumer;
    const struct sl_str *key, *id;
    size_t streams;
};

static bool reading_parse(const struct memory_call *c, size_t i, struct reading *r)
{
    *r = (struct reading){.count = INT64_MAX, .block_ms = -1};
    for (; i < c->count; i++) {
        struct sl_str a = c->arg[i];
        if (a.len == 5 && strncasecmp(a.ptr, "COUNT", 5) == 0 && i + 1 < c->count) {
            if (sl_str_int(c->arg[++i], &r->count) != SL_OK || r->count <= 0)
                return false;
        } else if (a.len == 5 && strncasecmp(a.ptr, "BLOCK", 5) == 0 && i + 1 < c->count) {
            if (sl_str_int(c->arg[++i], &r->block_ms) != SL_OK || r->block_ms < 0)
                return false;
        } else if (a.len == 5 && strncasecmp(a.ptr, "GROUP", 5) == 0 && i + 2 < c->count) {
            r->group = c->arg[++i];
            r->consumer = c->arg[++i];
        } else if (a.len == 7 && strncasecmp(a.ptr, "STREAMS", 7) == 0) {
            size_t rest = c->count - i - 1;
            r->key = &c->arg[i + 1];
            r->id = r->key + rest / 2;
            r->streams = rest / 2;
            return rest > 0 && rest % 2 == 0;
        } else {
            return false;
        }
    }
    return false;
}

static redisReply *entries_after(struct memory_call *c, const struct memory_stream *s, struct memory_id after,
                                 int64_t limit)
{
    size_t from = stream_at(s, id_after(after)), n = s->count - from;
    n = (int64_t)n > limit ? (size_t)limit : n;
    if (n == 0)
        return NULL;
    redisReply *r = memory_array(c->arena, n);
    for (size_t i = 0; i < n; i++)
        r->element[i] = entry_reply(c->arena, &s->entry[s->first + from + i]);
    return r;
}

/* The streams that have something, as Redis answers: {{key, entries} ...}; nil or a block when none has. */
static redisReply *reading_reply(struct memory_call *c, const struct reading *rd, redisReply **found)
{
    size_t n = 0;
    for (size_t i = 0; i < rd->streams; i++)
        n += found[i] != NULL ? 1 : 0;
    if (n == 0 && rd->block_ms >= 0 && c->may_block) {
        c->block_ms = rd->block_ms;
        return NULL;
    }
    if (n == 0)
        return memory_nil(c->arena);
    redisReply *r = memory_array(c->arena, n);
    n = 0;
    for (size_t i = 0; i < rd->streams; i++) {
        if (found[i] == NULL)
            continue;
        redisReply *pair = memory_array(c->arena, 2);
        pair->element[0] = memory_text(c->arena, rd->key[i]);
        pair->element[1] = found[i];
        r->element[n++] = pair;
    }
    return r;
}

static redisReply *run_xread(struct memory_call *c)
{
    struct reading rd;
    if (!reading_parse(c, 1, &rd) || rd.group.len > 0)
        return syntax_error(c);
    redisReply **found = memory_arena_take(c->arena, rd.streams * sizeof *found);
    for (size_t i = 0; i < rd.streams; i++) {
        bool ok = true;
        struct memory_id after;
        const struct memory_key *k = memory_find(c->data, rd.key[i], MEMORY_STREAM, &ok);
        if (!ok)
            return memory_wrong_type(c->arena);
        if (!memory_id_parse(rd.id[i], &after))
            return memory_error(c->arena, "ERR Invalid stream ID specified as stream command argument");
        found[i] = k != NULL ? entries_after(c, &k->stream, after, rd.count) : NULL;
    }
    return reading_reply(c, &rd, found);
}

/* ---- consumer groups: only as far as bot workers use them ---- */

static struct memory_group *group_find(const struct memory_data *d, struct sl_str key, struct sl_str name)
{
    const struct memory_key *k = memory_find(d, key, MEMORY_STREAM, NULL);
    return k != NULL && k->stream.groups != NULL ? sl_map_get(k->stream.groups, name) : NULL;
}

static redisReply *no_group(const struct memory_call *c, struct sl_str key, struct sl_str name)
{
    return memory_error(c->arena, "NOGROUP No such key '%.*s' or consumer group '%.*s'", (int)key.len,
                        key.ptr, (int)name.len, name.ptr);
}

/* XGROUP CREATE key group id|$ [MKSTREAM] */
static redisReply *run_xgroup(struct memory_call *c)
{
    bool ok = true;
    if (c->count < 5 || c->arg[1].len != 6 || strncasecmp(c->arg[1].ptr, "CREATE", 6) != 0)
        return syntax_error(c);
    struct memory_key *k = memory_find(c->data, c->arg[2], MEMORY_STREAM, &ok);
    if (!ok)
        return memory_wrong_type(c->arena);
    if (k == NULL && c->count < 6)
        return memory_error(c->arena, "ERR The XGROUP subcommand requires the key to exist.");
    if (k == NULL)
        k = memory_make(c->data, c->arg[2], MEMORY_STREAM);
    if (group_find(c->data, c->arg[2], c->arg[3]) != NULL)
        return memory_error(c->arena, "BUSYGROUP Consumer Group name already exists");
    struct memory_id id = k->stream.last;
    if (!sl_str_eq_c(c->arg[4], "$") && !memory_id_parse(c->arg[4], &id))
        return memory_error(c->arena, "ERR Invalid stream ID specified as stream command argument");
    if (k->stream.groups == NULL)
        k->stream.groups = sl_map_new();
    struct memory_group *g = sl_alloc(sizeof *g);
    g->last = id;
    (void)sl_map_set(k->stream.groups, c->arg[3], g);
    return memory_status(c->arena, "OK");
}

static void group_wait(struct memory_group *g, struct memory_id id, struct sl_str consumer, int64_t now)
{
    size_t none = 0;
    g->waiting = make_room(g->waiting, sizeof *g->waiting, &none, g->count, &g->cap);
    g->waiting[g->count++] =
        (struct memory_waiting){.id = id, .consumer = bytes_of(consumer), .at_ms = now, .deliveries = 1};
}

static redisReply *group_new_entries(struct memory_call *c, const struct memory_stream *s,
                                     struct memory_group *g, struct sl_str consumer, int64_t limit)
{
    size_t from = stream_at(s, id_after(g->last)), n = s->count - from;
    n = (int64_t)n > limit ? (size_t)limit : n;
    if (n == 0)
        return NULL;
    redisReply *r = memory_array(c->arena, n);
    for (size_t i = 0; i < n; i++) {
        const struct memory_entry *e = &s->entry[s->first + from + i];
        r->element[i] = entry_reply(c->arena, e);
        group_wait(g, e->id, consumer, c->data->now_unix_ms);
        g->last = e->id;
    }
    return r;
}

/* What this consumer was given and has not acknowledged. Deleted entries come with nil, as in Redis. */
static redisReply *group_own_entries(struct memory_call *c, const struct memory_stream *s,
                                     const struct memory_group *g, struct sl_str consumer,
                                     struct memory_id after, int64_t limit)
{
    size_t n = 0;
    redisReply *r = memory_array(c->arena, g->count);
    for (size_t i = 0; i < g->count && (int64_t)n < limit; i++) {
        const struct memory_waiting *w = &g->waiting[i];
        if (memory_id_compare(w->id, after) <= 0 || !sl_str_eq(memory_bytes_str(w->consumer), consumer))
            continue;
        const struct memory_entry *e = stream_get(s, w->id);
        if (e != NULL) {
            r->element[n++] = entry_reply(c->arena, e);
            continue;
        }
        redisReply *gone = memory_array(c->arena, 2);
        gone->element[0] = id_reply(c->arena, w->id);
        gone->element[1] = memory_nil(c->arena);
        r->element[n++] = gone;
    }
    r->elements = n;
    return r;
}

static redisReply *run_xreadgroup(struct memory_call *c)
{
    struct reading rd;
    if (!reading_parse(c, 1, &rd) || rd.group.len == 0)
        return syntax_error(c);
    redisReply **found = memory_arena_take(c->arena, rd.streams * sizeof *found);
    for (size_t i = 0; i < rd.streams; i++) {
        struct memory_group *g = group_find(c->data, rd.key[i], rd.group);
        if (g == NULL)
            return no_group(c, rd.key[i], rd.group);
    }
    for (size_t i = 0; i < rd.streams; i++) {
        const struct memory_stream *s = &memory_find(c->data, rd.key[i], MEMORY_STREAM, NULL)->stream;
        struct memory_group *g = group_find(c->data, rd.key[i], rd.group);
        struct memory_id after;
        if (sl_str_eq_c(rd.id[i], ">"))
            found[i] = group_new_entries(c, s, g, rd.consumer, rd.count);
        else if (memory_id_parse(rd.id[i], &after))
            found[i] = group_own_entries(c, s, g, rd.consumer, after, rd.count);
        else
            return memory_error(c->arena, "ERR Invalid stream ID specified as stream command argument");
    }
    return reading_reply(c, &rd, found);
}

static void group_forget(struct memory_group *g, size_t at)
{
    free(g->waiting[at].consumer);
    memmove(&g->waiting[at], &g->waiting[at + 1], (g->count - at - 1) * sizeof *g->waiting);
    g->count--;
}

static redisReply *run_xack(struct memory_call *c)
{
    struct memory_group *g = group_find(c->data, c->arg[1], c->arg[2]);
    int64_t done = 0;
    for (size_t i = 3; g != NULL && i < c->count; i++) {
        struct memory_id id;
        if (!memory_id_parse(c->arg[i], &id))
            return memory_error(c->arena, "ERR Invalid stream ID specified as stream command argument");
        for (size_t j = 0; j < g->count; j++) {
            if (memory_id_compare(g->waiting[j].id, id) != 0)
                continue;
            group_forget(g, j);
            done++;
            break;
        }
    }
    return memory_int(c->arena, done);
}

/* XAUTOCLAIM key group consumer min-idle start [COUNT n]: one pass over the whole list, so the cursor is
 * always 0-0. */
static redisReply *run_xautoclaim(struct memory_call *c)
{
    struct memory_group *g = group_find(c->data, c->arg[1], c->arg[2]);
    int64_t idle_ms = 0, limit = 100;
    struct memory_id start;
    if (g == NULL)
        return no_group(c, c->arg[1], c->arg[2]);
    if (sl_str_int(c->arg[4], &idle_ms) != SL_OK || !memory_id_parse(c->arg[5], &start))
        return not_integer(c);
    if (c->count > 6 && (c->count != 8 || sl_str_int(c->arg[7], &limit) != SL_OK))
        return syntax_error(c);
    const struct memory_stream *s = &memory_find(c->data, c->arg[1], MEMORY_STREAM, NULL)->stream;
    redisReply *claimed = memory_array(c->arena, g->count), *gone = memory_array(c->arena, g->count);
    size_t claims = 0, losses = 0;
    for (size_t i = 0; i < g->count && (int64_t)claims < limit;) {
        struct memory_waiting *w = &g->waiting[i];
        if (memory_id_compare(w->id, start) < 0 || c->data->now_unix_ms - w->at_ms < idle_ms) {
            i++;
            continue;
        }
        const struct memory_entry *e = stream_get(s, w->id);
        if (e == NULL) {
            gone->element[losses++] = id_reply(c->arena, w->id);
            group_forget(g, i);
            continue;
        }
        free(w->consumer);
        w->consumer = bytes_of(c->arg[3]);
        w->at_ms = c->data->now_unix_ms;
        w->deliveries++;
        claimed->element[claims++] = entry_reply(c->arena, e);
        i++;
    }
    claimed->elements = claims;
    gone->elements = losses;
    redisReply *r = memory_array(c->arena, 3);
    r->element[0] = memory_text(c->arena, SL_STR("0-0"));
    r->element[1] = claimed;
    r->element[2] = gone;
    return r;
}

/* XPENDING key group: {count, least id, greatest id, nil}; the last member is not filled. */
static redisReply *run_xpending(struct memory_call *c)
{
    const struct memory_group *g = group_find(c->data, c->arg[1], c->arg[2]);
    if (g == NULL)
        return no_group(c, c->arg[1], c->arg[2]);
    redisReply *r = memory_array(c->arena, 4);
    r->element[0] = memory_int(c->arena, (int64_t)g->count);
    r->element[1] = g->count > 0 ? id_reply(c->arena, g->waiting[0].id) : memory_nil(c->arena);
    r->element[2] = g->count > 0 ? id_reply(c->arena, g->waiting[g->count - 1].id) : memory_nil(c->arena);
    r->element[3] = memory_nil(c->arena);
    return r;
}

/* ---- keys and the rest ---- */

static redisReply *run_del(struct memory_call *c)
{
    int64_t gone = 0;
    for (size_t i = 1; i < c->count; i++) {
        if (sl_map_get(c->data->keys, c->arg[i]) == NULL)
            continue;
        memory_drop(c->data, c->arg[i]);
        gone++;
    }
    return memory_int(c->arena, gone);
}

static redisReply *run_exists(struct memory_call *c)
{
    int64_t n = 0;
    for (size_t i = 1; i < c->count; i++)
        n += sl_map_get(c->data->keys, c->arg[i]) != NULL ? 1 : 0;
    return memory_int(c->arena, n);
}

/* KEYS prefix*: in order of creation. For looking inside, never for the product. */
static redisReply *run_keys(struct memory_call *c)
{
    struct sl_str prefix = c->arg[1], name;
    void *value;
    if (prefix.len > 0 && prefix.ptr[prefix.len - 1] == '*')
        prefix.len--;
    redisReply *r = memory_array(c->arena, sl_map_count(c->data->keys));
    size_t n = 0;
    for (size_t i = 0; sl_map_next(c->data->keys, &i, &name, &value);)
        if (name.len >= prefix.len && memcmp(name.ptr, prefix.ptr, prefix.len) == 0)
            r->element[n++] = memory_text(c->arena, name);
    r->elements = n;
    return r;
}

static redisReply *run_expire(struct memory_call *c)
{
    return memory_int(c->arena, sl_map_get(c->data->keys, c->arg[1]) != NULL ? 1 : 0);
}

static redisReply *run_ping(struct memory_call *c)
{
    return memory_status(c->arena, "PONG");
}

static redisReply *run_time(struct memory_call *c)
{
    char text[24];
    redisReply *r = memory_array(c->arena, 2);
    int n = snprintf(text, sizeof text, "%lld", (long long)(c->data->now_unix_ms / 1000));
    r->element[0] = memory_text(c->arena, sl_str_n(text, (size_t)n));
    n = snprintf(text, sizeof text, "%lld", (long long)(c->data->now_unix_ms % 1000 * 1000));
    r->element[1] = memory_text(c->arena, sl_str_n(text, (size_t)n));
    return r;
}

static redisReply *run_publish(struct memory_call *c)
{
    size_t n = c->data->published != NULL ? c->data->published(c->data->owner, c->arg[1], c->arg[2]) : 0;
    return memory_int(c->arena, (int64_t)n);
}

static const struct command {
    const char *name;
    redisReply *(*run)(struct memory_call *c);
    size_t args_min; /* the name included */
} commands[] = {
    {"FCALL", memory_fcall, 3},      {"XREAD", run_xread, 4},
    {"HGET", run_hget, 3},           {"HMGET", run_hmget, 3},
    {"HGETALL", run_hgetall, 2},     {"HKEYS", run_hkeys, 2},
    {"HSET", run_hset, 4},           {"HSETNX", run_hsetnx, 4},
    {"HDEL", run_hdel, 3},           {"HLEN", run_hlen, 2},
    {"HINCRBY", run_hincrby, 4},     {"DEL", run_del, 2},
    {"UNLINK", run_del, 2},          {"LRANGE", run_lrange, 4},
    {"LLEN", run_llen, 2},           {"LINDEX", run_lindex, 3},
    {"LTRIM", run_ltrim, 4},         {"RPUSH", run_rpush, 3},
    {"XADD", run_xadd, 5},           {"XRANGE", run_xrange, 4},
    {"XREVRANGE", run_xrevrange, 4}, {"XLEN", run_xlen, 2},
    {"XDEL", run_xdel, 3},           {"XTRIM", run_xtrim, 4},
    {"XGROUP", run_xgroup, 5},       {"XREADGROUP", run_xreadgroup, 7},
    {"XACK", run_xack, 4},           {"XAUTOCLAIM", run_xautoclaim, 6},
    {"XPENDING", run_xpending, 3},   {"ZADD", run_zadd, 4},
    {"ZRANGE", run_zrange, 4},       {"ZRANGEBYSCORE", run_zrangebyscore, 4},
    {"ZREM", run_zrem, 3},           {"ZREMRANGEBYSCORE", run_zremrangebyscore, 4},
    {"ZSCORE", run_zscore, 3},       {"ZCARD", run_zcard, 2},
    {"SADD", run_sadd, 3},           {"SREM", run_srem, 3},
    {"SMEMBERS", run_smembers, 2},   {"SISMEMBER", run_sismember, 3},
    {"PUBLISH", run_publish, 3},     {"PING", run_ping, 1},
    {"TIME", run_time, 1},           {"EXISTS", run_exists, 2},
    {"EXPIRE", run_expire, 3},       {"PEXPIRE", run_expire, 3},
    {"KEYS", run_keys, 2},
};

redisReply *memory_run(struct memory_call *c)
{
    struct sl_str name = c->count > 0 ? c->arg[0] : SL_STR_NONE;
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        const struct command *k = &commands[i];
        if (strlen(k->name) != name.len || strncasecmp(k->name, name.ptr, name.len) != 0)
            continue;
        return c->count >= k->args_min ? k->run(c) : wrong_count(c);
    }
    return memory_error(c->arena, "ERR unknown command '%.*s'", (int)name.len, name.ptr);
}
