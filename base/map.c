/* base/map.c - entries stand densely in insertion order; a table of slots, probed linearly, points into them.
 *
 * A deleted entry keeps its place (key NULL) until the entries are full; then they are packed and the slots
 * rebuilt. So a delete never moves anything, which is what makes deleting inside a walk safe. Slots are at
 * least twice the entries, so a probe always meets an empty one.
 */
#include "base/map.h"

#include "base/loop.h"

#include <stdlib.h>

struct map_entry {
    char *key; /* NULL: deleted */
    size_t key_len;
    uint64_t hash;
    void *value;
};

struct sl_map {
    struct map_entry *entries;
    uint32_t *slots; /* index of an entry + 1; 0: empty */
    size_t used;     /* entries in use, deleted ones included */
    size_t cap;      /* entries there is room for; slots are cap * 2, both powers of two */
    size_t first;    /* no living entry before this one */
    size_t count;
    uint64_t seed; /* secret: peers choose keys */
};

#define MAP_CAP_MIN 8

struct sl_map *sl_map_new(void)
{
    struct sl_map *m = sl_alloc(sizeof *m);
    sl_random_bytes(&m->seed, sizeof m->seed);
    return m;
}

void sl_map_free(struct sl_map **mp)
{
    struct sl_map *m = *mp;
    *mp = NULL;
    if (m == NULL)
        return;
    for (size_t i = 0; i < m->used; i++)
        free(m->entries[i].key);
    free(m->entries);
    free(m->slots);
    free(m);
}

static bool is_entry(const struct map_entry *e, uint64_t hash, struct sl_str key)
{
    return e->hash == hash && e->key != NULL && sl_str_eq(sl_str_n(e->key, e->key_len), key);
}

static struct map_entry *find(const struct sl_map *m, uint64_t hash, struct sl_str key)
{
    if (m->count == 0)
        return NULL;
    size_t mask = m->cap * 2 - 1;
    for (size_t at = (size_t)hash & mask; m->slots[at] != 0; at = (at + 1) & mask) {
        struct map_entry *e = &m->entries[m->slots[at] - 1];
        if (is_entry(e, hash, key))
            return e;
    }
    return NULL;
}

static void put_slot(struct sl_map *m, uint64_t hash, size_t entry)
{
    size_t mask = m->cap * 2 - 1;
    size_t at = (size_t)hash & mask;
    while (m->slots[at] != 0)
        at = (at + 1) & mask;
    m->slots[at] = (uint32_t)(entry + 1);
}

/* Pack the living entries into an array with room for as many again, and point fresh slots at them. */
static void rebuild(struct sl_map *m)
{
    size_t cap = MAP_CAP_MIN;
    while (cap < m->count * 2)
        cap *= 2;
    sl_assert(cap <= UINT32_MAX / 4);
    struct map_entry *old = m->entries;
    size_t old_used = m->used;
    m->entries = sl_alloc(cap * sizeof *m->entries);
    free(m->slots);
    m->slots = sl_alloc(cap * 2 * sizeof *m->slots);
    m->cap = cap;
    m->used = 0;
    m->first = 0;
    for (size_t i = 0; i < old_used; i++) {
        if (old[i].key == NULL)
            continue;
        m->entries[m->used] = old[i];
        put_slot(m, old[i].hash, m->used++);
    }
    free(old);
}

void *sl_map_get(const struct sl_map *m, struct sl_str key)
{
    if (m->count == 0)
        return NULL;
    const struct map_entry *e = find(m, sl_str_hash(key, m->seed), key);
    return e != NULL ? e->value : NULL;
}

void *sl_map_set(struct sl_map *m, struct sl_str key, void *value)
{
    sl_assert(value != NULL);
    uint64_t hash = sl_str_hash(key, m->seed);
    struct map_entry *e = find(m, hash, key);
    if (e != NULL) {
        void *before = e->value;
        e->value = value;
        return before;
    }
    if (m->used == m->cap)
        rebuild(m);
    m->entries[m->used] =
        (struct map_entry){.key = sl_str_dup(key), .key_len = key.len, .hash = hash, .value = value};
    put_slot(m, hash, m->used++);
    m->count++;
    return NULL;
}

void *sl_map_del(struct sl_map *m, struct sl_str key)
{
    struct map_entry *e = m->count > 0 ? find(m, sl_str_hash(key, m->seed), key) : NULL;
    if (e == NULL)
        return NULL;
    void *value = e->value;
    free(e->key);
    *e = (struct map_entry){.key = NULL};
    m->count--;
    while (m->first < m->used && m->entries[m->first].key == NULL)
        m->first++;
    return value;
}

size_t sl_map_count(const struct sl_map *m)
{
    return m->count;
}

bool sl_map_next(const struct sl_map *m, size_t *i, struct sl_str *key, void **value)
{
    if (*i < m->first)
        *i = m->first;
    while (*i < m->used) {
        const struct map_entry *e = &m->entries[(*i)++];
        if (e->key == NULL)
            continue;
        *key = sl_str_n(e->key, e->key_len);
        *value = e->value;
        return true;
    }
    return false;
}
