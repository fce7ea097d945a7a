#include "bus/effects.h"

#include "base/json.h"
#include "base/ulid.h"

#include <inttypes.h>
#include <stdlib.h>

/* ---- memory of one batch: everything below lives until effects_clear ---- */

#define ARENA_CHUNK (64u * 1024)

struct arena_chunk {
    struct arena_chunk *next;
    size_t used, size;
    char bytes[];
};

struct arena {
    struct arena_chunk *head; /* the chunk being filled; older ones follow */
    size_t total;
};

static char *arena_take(struct arena *a, size_t n)
{
    if (a->head == NULL || a->head->size - a->head->used < n) {
        size_t size = n > ARENA_CHUNK ? n : ARENA_CHUNK;
        struct arena_chunk *c = sl_alloc(sizeof(*c) + size);
        c->size = size;
        c->next = a->head;
        a->head = c;
    }
    char *p = a->head->bytes + a->head->used;
    a->head->used += n;
    a->total += n;
    return p;
}

static struct sl_str arena_copy(struct arena *a, struct sl_str s)
{
    if (s.len == 0)
        return SL_STR_NONE;
    char *p = arena_take(a, s.len);
    memcpy(p, s.ptr, s.len);
    return sl_str_n(p, s.len);
}

/* Keeps one chunk, so that a quiet partition holds 64 KiB and a busy one does not call malloc for each batch.
 */
static void arena_clear(struct arena *a)
{
    while (a->head != NULL && a->head->next != NULL) {
        struct arena_chunk *c = a->head;
        a->head = c->next;
        free(c);
    }
    if (a->head != NULL && a->head->size > ARENA_CHUNK) {
        free(a->head);
        a->head = NULL;
    }
    if (a->head != NULL)
        a->head->used = 0;
    a->total = 0;
}

static void arena_free(struct arena *a)
{
    while (a->head != NULL) {
        struct arena_chunk *c = a->head;
        a->head = c->next;
        free(c);
    }
}

/* A growing array of structs; its memory stays from batch to batch. */
#define LIST(type)                                                                                           \
    struct {                                                                                                 \
        type *at;                                                                                            \
        size_t count, cap;                                                                                   \
    }

static void *list_grow(void *at, size_t count, size_t *cap, size_t size)
{
    if (count < *cap)
        return at;
    *cap = *cap == 0 ? 16 : *cap * 2;
    return sl_realloc(at, *cap * size);
}
#define LIST_ADD(list, item)                                                                                 \
    do {                                                                                                     \
        (list).at = list_grow((list).at, (list).count, &(list).cap, sizeof(*(list).at));                     \
        (list).at[(list).count++] = (item);                                                                  \
    } while (0)

/* ---- the cache of states ---- */

struct state_cache {
    struct sl_map *by_key;
    struct state *newest, *oldest;
    size_t max;
};

static void cache_key(struct sl_buf *out, const struct state_kind *kind, struct sl_str id)
{
    sl_buf_clear(out);
    sl_buf_c(out, kind->prefix);
    sl_buf_char(out, ':');
    sl_buf_str(out, id);
}

static void cache_unlink(struct state_cache *c, struct state *s)
{
    if (s->newer != NULL)
        s->newer->older = s->older;
    else
        c->newest = s->older;
    if (s->older != NULL)
        s->older->newer = s->newer;
    else
        c->oldest = s->newer;
    s->newer = s->older = NULL;
}

static void cache_push_newest(struct state_cache *c, struct state *s)
{
    s->older = c->newest;
    s->newer = NULL;
    if (c->newest != NULL)
        c->newest->newer = s;
    else
        c->oldest = s;
    c->newest = s;
}

static void state_free(struct state *s)
{
    if (s->kind->fini != NULL)
        s->kind->fini(s);
    free(s->id);
    free(s);
}

static void cache_drop(struct state_cache *c, struct state *s)
{
    struct sl_buf key;
    sl_buf_init(&key, 0);
    cache_key(&key, s->kind, sl_str_c(s->id));
    (void)sl_map_del(c->by_key, sl_buf_view(&key));
    sl_buf_fini(&key);
    cache_unlink(c, s);
    state_free(s);
}

static void cache_shrink(struct state_cache *c)
{
    for (struct state *s = c->oldest; s != NULL && sl_map_count(c->by_key) > c->max;) {
        struct state *next = s->newer;
        if (!s->is_changed && !s->is_deleted)
            cache_drop(c, s);
        s = next;
    }
}

struct state_cache *state_cache_new(size_t max)
{
    struct state_cache *c = sl_alloc(sizeof(*c));
    c->by_key = sl_map_new();
    c->max = max < 16 ? 16 : max; /* one event may need several states at once */
    return c;
}

void state_cache_clear(struct state_cache *c)
{
    while (c->oldest != NULL)
        cache_drop(c, c->oldest);
}

void state_cache_free(struct state_cache **pc)
{
    struct state_cache *c = *pc;
    *pc = NULL;
    if (c == NULL)
        return;
    state_cache_clear(c);
    sl_map_free(&c->by_key);
    free(c);
}

size_t state_cache_count(const struct state_cache *c)
{
    return sl_map_count(c->by_key);
}

static struct state *cache_find(struct state_cache *c, struct sl_buf *key, const struct state_kind *kind,
                                struct sl_str id)
{
    cache_key(key, kind, id);
    struct state *s = sl_map_get(c->by_key, sl_buf_view(key));
    if (s != NULL && s != c->newest) {
        cache_unlink(c, s);
        cache_push_newest(c, s);
    }
    return s;
}

const void *state_cache_peek(const struct state_cache *c, const struct state_kind *kind, struct sl_str id)
{
    struct sl_buf key;
    sl_buf_init(&key, 0);
    cache_key(&key, kind, id);
    const struct state *s = sl_map_get(c->by_key, sl_buf_view(&key));
    sl_buf_fini(&key);
    return s != NULL && s->exists ? s : NULL;
}

sl_err state_cache_put(struct state_cache *c, const struct state_kind *kind, struct sl_str id, bool exists,
                       struct sl_str json, uint64_t n, uint64_t v)
{
    sl_assert(kind->size >= sizeof(struct state));
    struct state *s = sl_alloc(kind->size);
    s->kind = kind;
    s->exists = exists;
    s->n = n;
    s->v = v;
    if (exists && kind->decode(s, json) != SL_OK) {
        state_free(s);
        return SL_EINVAL;
    }
    s->id = sl_str_dup(id);
    cache_shrink(c);
    struct sl_buf key;
    sl_buf_init(&key, 0);
    cache_key(&key, kind, id);
    struct state *old = sl_map_set(c->by_key, sl_buf_view(&key), s);
    sl_buf_fini(&key);
    if (old != NULL) {
        sl_assert(!old->is_changed); /* a fetch never replaces work that is not written */
        cache_unlink(c, old);
        state_free(old);
    }
    cache_push_newest(c, s);
    return SL_OK;
}

/* ---- effects ---- */

struct number {
    uint64_t last;    /* given to a fact of this batch or before */
    uint64_t written; /* what the store has */
};

struct effects {
    char tag[KEY_TAG_MAX_BYTES];
    struct state_cache *cache;
    bool absent_is_empty;
    uint64_t gen, salt;
    int64_t epoch;
    struct sl_buf key, scratch;
    struct arena arena;
    struct sl_map *numbers; /* destination -> struct number */

    LIST(struct sl_str) records;
    LIST(struct fx_history) histories;
    LIST(struct fx_fact_item) facts;
    LIST(struct fx_timer) timers;
    LIST(struct fx_push) pushes;
    LIST(struct state *) states;
    LIST(struct event) deeds;

    /* the event being stepped */
    const struct event *event;
    uint32_t ordinal;
    size_t facts_before;
    bool is_missing, is_changing;
    bool has_deleted; /* in this batch */
    const struct state_kind *missing_kind;
    struct sl_str missing_id;
};

struct effects *effects_new(const char *tag, struct state_cache *cache, bool absent_is_empty)
{
    struct effects *fx = sl_alloc(sizeof(*fx));
    size_t n = strlen(tag);
    sl_assert(n < sizeof(fx->tag));
    memcpy(fx->tag, tag, n + 1);
    fx->cache = cache;
    fx->absent_is_empty = absent_is_empty;
    fx->salt = sl_str_hash(sl_str_c(tag), 0);
    fx->numbers = sl_map_new();
    sl_buf_init(&fx->key, 0);
    sl_buf_init(&fx->scratch, 0);
    return fx;
}

static void numbers_free(struct sl_map **numbers)
{
    struct sl_str key;
    void *value;
    for (size_t i = 0; sl_map_next(*numbers, &i, &key, &value);)
        free(value);
    sl_map_free(numbers);
}

void effects_free(struct effects **pfx)
{
    struct effects *fx = *pfx;
    *pfx = NULL;
    if (fx == NULL)
        return;
    numbers_free(&fx->numbers);
    sl_buf_fini(&fx->key);
    sl_buf_fini(&fx->scratch);
    arena_free(&fx->arena);
    free(fx->records.at);
    free(fx->histories.at);
    free(fx->facts.at);
    free(fx->timers.at);
    free(fx->pushes.at);
    free(fx->states.at);
    free(fx->deeds.at);
    free(fx);
}

void effects_set_gen(struct effects *fx, uint64_t gen)
{
    fx->gen = gen;
}

void effects_set_epoch(struct effects *fx, int64_t epoch)
{
    fx->epoch = epoch;
}

void effects_clear(struct effects *fx)
{
    arena_clear(&fx->arena);
    fx->records.count = fx->histories.count = fx->facts.count = 0;
    fx->timers.count = fx->pushes.count = fx->states.count = fx->deeds.count = 0;
    fx->has_deleted = false;
}

static struct number *number_of(struct effects *fx, struct sl_str destination)
{
    struct number *n = sl_map_get(fx->numbers, destination);
    if (n == NULL) {
        n = sl_alloc(sizeof(*n));
        (void)sl_map_set(fx->numbers, destination, n);
    }
    return n;
}

void effects_number_set(struct effects *fx, struct sl_str destination, uint64_t last)
{
    *number_of(fx, destination) = (struct number){.last = last, .written = last};
}

uint64_t effects_number(struct effects *fx, struct sl_str destination)
{
    return number_of(fx, destination)->last;
}

void effects_rollback(struct effects *fx)
{
    struct sl_str key;
    void *value;
    for (size_t i = 0; sl_map_next(fx->numbers, &i, &key, &value);) {
        struct number *n = value;
        n->last = n->written;
    }
    state_cache_clear(fx->cache);
    effects_clear(fx);
}

void effects_forget(struct effects *fx)
{
    numbers_free(&fx->numbers);
    fx->numbers = sl_map_new();
    state_cache_clear(fx->cache);
    effects_clear(fx);
}

/* ---- what step() calls ---- */

void *fx_state(struct effects *fx, const struct state_kind *kind, struct sl_str id)
{
    struct state *s = cache_find(fx->cache, &fx->key, kind, id);
    if (s == NULL && fx->absent_is_empty) {
        sl_assert(state_cache_put(fx->cache, kind, id, false, SL_STR_NONE, 0, 0) == SL_OK);
        s = cache_find(fx->cache, &fx->key, kind, id);
    }
    if (s != NULL)
        return s;
    sl_assert(!fx->is_changing); /* effects.h: all changes happen after the last fx_state() that may fail */
    fx->is_missing = true;
    fx->missing_kind = kind;
    fx->missing_id = arena_copy(&fx->arena, id);
    return NULL;
}

static void fx_touch(struct effects *fx, struct state *s)
{
    fx->is_changing = true;
    if (!s->is_changed && !s->is_deleted)
        LIST_ADD(fx->states, s);
}

void fx_changed(struct effects *fx, void *state)
{
    struct state *s = state;
    fx_touch(fx, s);
    s->exists = true;
    s->is_changed = true;
    s->is_deleted = false;
}

/* Nothing of it may be seen by a later event: the object is empty from here on. */
void fx_delete(struct effects *fx, void *state)
{
    struct state *s = state;
    fx_touch(fx, s);
    if (s->kind->fini != NULL)
        s->kind->fini(s);
    memset((char *)s + sizeof(*s), 0, s->kind->size - sizeof(*s));
    s->exists = false;
    s->is_changed = false;
    s->is_deleted = true;
    s->n = s->v = 0;
    fx->has_deleted = fx->has_deleted || s->kind->has_history;
}

/* Whatever the cache holds of it is as uninteresting as what the store holds; both look the same in a replay. */
void *fx_blank(struct effects *fx, const struct state_kind *kind, struct sl_str id)
{
    sl_assert(!kind->has_history);
    struct state *s = cache_find(fx->cache, &fx->key, kind, id);
    if (s == NULL) {
        sl_assert(state_cache_put(fx->cache, kind, id, false, SL_STR_NONE, 0, 0) == SL_OK);
        return cache_find(fx->cache, &fx->key, kind, id);
    }
    if (s->exists)
        fx_delete(fx, s);
    return s;
}

void fx_drop(struct effects *fx, const struct state_kind *kind, struct sl_str id)
{
    fx_delete(fx, fx_blank(fx, kind, id));
}

static struct sl_str fx_keep(struct effects *fx)
{
    return arena_copy(&fx->arena, sl_buf_view(&fx->scratch));
}

struct sl_str fx_append(struct effects *fx, void *state, bool is_visible, struct sl_str members, uint64_t *n,
                        uint64_t *v)
{
    struct state *s = state;
    sl_assert(s->kind->has_history);
    fx_changed(fx, s);
    s->n++;
    if (is_visible)
        s->v++;
    struct sl_buf *b = &fx->scratch;
    sl_buf_clear(b);
    sl_buf_c(b, "{\"n\":");
    sl_buf_uint(b, s->n);
    sl_buf_c(b, ",\"v\":");
    sl_buf_uint(b, is_visible ? s->v : 0);
    sl_buf_char(b, ',');
    sl_buf_str(b, members);
    sl_buf_char(b, '}');
    struct sl_str entry = fx_keep(fx);
    struct fx_history h = {
        .object = arena_copy(&fx->arena, sl_str_c(s->id)), .entry = entry, .kind = s->kind, .n = s->n};
    LIST_ADD(fx->histories, h);

    sl_buf_clear(b);
    sl_buf_c(b, "{\"h\":\"");
    sl_buf_c(b, s->kind->prefix);
    sl_buf_char(b, ':');
    sl_buf_c(b, s->id); /* ids are key_part_ok parts joined by '/' and '.': nothing to escape */
    sl_buf_c(b, "\",\"e\":");
    sl_buf_str(b, entry);
    sl_buf_char(b, '}');
    LIST_ADD(fx->records, fx_keep(fx));
    if (n != NULL)
        *n = s->n;
    if (v != NULL)
        *v = is_visible ? s->v : 0;
    return entry;
}

static struct event event_copy(struct arena *a, const struct event *in)
{
    struct event out = *in;
#define COPY_S(member) out.member = arena_copy(a, in->member);
#define COPY_I(member)
#define X(member, name, form) COPY_##form(member)
    EVENT_FIELDS(X)
#undef X
    return out;
}

void fx_fact(struct effects *fx, struct sl_str destination, const struct event *fact)
{
    struct fx_fact_item item = {.destination = arena_copy(&fx->arena, destination),
                                .event = event_copy(&fx->arena, fact)};
    fx->is_changing = true;
    struct sl_buf *b = &fx->scratch;
    sl_buf_clear(b);
    struct sl_json j;
    sl_json_begin(&j, b);
    sl_json_open(&j, NULL, '{');
    if (destination.len > 0) {
        item.number = ++number_of(fx, destination)->last;
        item.event.source = sl_str_c(fx->tag);
        item.event.fact = (int64_t)item.number;
        sl_json_str(&j, "d", destination);
        sl_json_int(&j, "f", (int64_t)item.number);
    }
    event_to_json(&item.event, &j, "e");
    sl_json_close(&j, '}');
    item.json = fx_keep(fx);
    LIST_ADD(fx->records, item.json);
    LIST_ADD(fx->facts, item);
}

static struct sl_str timer_member(struct effects *fx, struct sl_str object, const char *name, int64_t gen)
{
    sl_buf_clear(&fx->scratch);
    sl_buf_str(&fx->scratch, object);
    sl_buf_char(&fx->scratch, '|');
    sl_buf_c(&fx->scratch, name);
    sl_buf_char(&fx->scratch, '|');
    sl_buf_int(&fx->scratch, gen);
    return fx_keep(fx);
}

void fx_timer_set(struct effects *fx, struct sl_str object, const char *name, int64_t gen, int64_t due_ms)
{
    fx->is_changing = true;
    struct fx_timer t = {.is_set = true, .member = timer_member(fx, object, name, gen), .due_ms = due_ms};
    LIST_ADD(fx->timers, t);
}

void fx_timer_clear(struct effects *fx, struct sl_str object, const char *name, int64_t gen)
{
    fx->is_changing = true;
    struct fx_timer t = {.is_set = false, .member = timer_member(fx, object, name, gen)};
    LIST_ADD(fx->timers, t);
}

void fx_publish(struct effects *fx, const struct key *channel, const struct push *p)
{
    fx->is_changing = true;
    sl_buf_clear(&fx->scratch);
    push_write(&fx->scratch, p);
    struct fx_push out = {.channel = arena_copy(&fx->arena, key_str(channel)), .payload = fx_keep(fx)};
    LIST_ADD(fx->pushes, out);
}

/* An entry id is "<ms>-<seq>". */
static void entry_parts(struct sl_str entry, uint64_t *ms, uint64_t *seq)
{
    size_t dash = 0;
    *ms = *seq = 0;
    if (!sl_str_find(entry, SL_STR("-"), &dash))
        dash = entry.len;
    if (sl_str_uint(sl_str_n(entry.ptr, dash), ms) != SL_OK)
        *ms = 0;
    if (dash < entry.len && sl_str_uint(sl_str_n(entry.ptr + dash + 1, entry.len - dash - 1), seq) != SL_OK)
        *seq = 0;
}

void fx_ulid(struct effects *fx, char out[27])
{
    uint64_t ms, seq;
    entry_parts(fx->event->entry, &ms, &seq);
    sl_ulid_derive(out, (int64_t)ms, seq, fx->ordinal++, fx->salt);
}

void fx_do(struct effects *fx, const struct event *deed)
{
    struct event copy = event_copy(&fx->arena, deed);
    fx->is_changing = true;
    LIST_ADD(fx->deeds, copy);
}

int64_t fx_epoch(const struct effects *fx)
{
    return fx->epoch;
}

uint64_t fx_gen(const struct effects *fx)
{
    return fx->gen;
}

const char *fx_tag(const struct effects *fx)
{
    return fx->tag;
}

struct sl_str fx_entry(const struct effects *fx)
{
    return fx->event->entry;
}

/* ---- running events ---- */

static void run_begin(struct effects *fx, const struct event *ev)
{
    fx->event = ev;
    fx->ordinal = 0;
    fx->facts_before = fx->facts.count;
    fx->is_missing = fx->is_changing = false;
}

static enum fx_outcome run_end(struct effects *fx)
{
    fx->event = NULL;
    if (fx->is_missing)
        return FX_MISSING;
    return fx->facts.count - fx->facts_before > FX_FACTS_MAX ? FX_TOO_MUCH : FX_DONE;
}

enum fx_outcome effects_run(struct effects *fx, const struct part_ops *ops, const struct event *ev,
                            int64_t now_ms)
{
    run_begin(fx, ev);
    ops->step(fx, ev, now_ms);
    return run_end(fx);
}

enum fx_outcome effects_bury(struct effects *fx, const struct part_ops *ops, const struct event *ev,
                             struct sl_str reason, int64_t now_ms)
{
    run_begin(fx, ev);
    if (ops != NULL)
        ops->bury(fx, ev, reason, now_ms);
    if (!fx->is_missing) {
        struct event dead = {
            .type = EVENT_DEAD, .id = ev->entry, .conv = ev->conv, .addr = ev->addr, .reason = reason};
        fx_fact(fx, SL_STR_NONE, &dead);
    }
    return run_end(fx);
}

const struct state_kind *effects_missing(const struct effects *fx, struct sl_str *id)
{
    *id = fx->missing_id;
    return fx->missing_kind;
}

void effects_written(struct effects *fx)
{
    for (size_t i = 0; i < fx->states.count; i++) {
        struct state *s = fx->states.at[i];
        if (s->is_deleted) {
            cache_drop(fx->cache, s);
            continue;
        }
        s->is_changed = false;
    }
    fx->states.count = 0;
    for (size_t i = 0; i < fx->facts.count; i++) {
        if (fx->facts.at[i].destination.len > 0)
            number_of(fx, fx->facts.at[i].destination)->written = fx->facts.at[i].number;
    }
}

#define READ_LIST(name, type)                                                                                \
    size_t effects_##name(const struct effects *fx, type **out)                                              \
    {                                                                                                        \
        *out = fx->name.at;                                                                                  \
        return fx->name.count;                                                                               \
    }
READ_LIST(records, const struct sl_str)
READ_LIST(histories, const struct fx_history)
READ_LIST(facts, const struct fx_fact_item)
READ_LIST(timers, const struct fx_timer)
READ_LIST(pushes, const struct fx_push)
READ_LIST(states, struct state *const)
READ_LIST(deeds, const struct event)

bool effects_has_deleted(const struct effects *fx)
{
    return fx->has_deleted;
}

size_t effects_bytes(const struct effects *fx)
{
    return fx->arena.total;
}

sl_err effects_timer_parse(struct sl_str member, struct sl_str *object, struct sl_str *name, int64_t *gen)
{
    const char *last = memrchr(member.ptr, '|', member.len);
    if (last == NULL)
        return SL_EINVAL;
    size_t head = (size_t)(last - member.ptr);
    const char *first = memrchr(member.ptr, '|', head);
    if (first == NULL || sl_str_int(sl_str_n(last + 1, member.len - head - 1), gen) != SL_OK)
        return SL_EINVAL;
    *object = sl_str_n(member.ptr, (size_t)(first - member.ptr));
    *name = sl_str_n(first + 1, (size_t)(last - first - 1));
    return SL_OK;
}
