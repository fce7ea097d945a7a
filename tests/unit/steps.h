/* tests/unit/steps.h - runs step functions against a store in memory, so that tests see what a commit would write.
 *
 * What     a stage is one partition: its store (encoded states, histories), its armed timers, the facts and pushes of the last
 *          events. stage_run() feeds one event the way bus/partition.c does: a state that is not at hand is fetched and the same
 *          event runs again. The cache is emptied now and then, so every test also tests encode and decode.
 */
#ifndef TESTS_UNIT_STEPS_H
#define TESTS_UNIT_STEPS_H

#include "unit.h"

#include "bus/effects.h"

#include <stdio.h>

#define STAGE_MAX 4096
struct stage_state {
    char *key;
    const struct state_kind *kind;
    char *id, *json;
    uint64_t n, v;
    bool is_there;
};
struct stage_timer {
    char *member;
    int64_t due_ms;
};
struct stage_fact {
    char *to, *json;
    struct event ev; /* strings live in hold */
    json_t *hold;
};
struct stage {
    const struct part_ops *ops;
    struct state_cache *cache;
    struct effects *fx;
    int64_t now_ms;
    uint64_t seq;
    size_t state_count, timer_count, fact_count, entry_count, push_count;
    void (*on_deed)(void *arg, const struct event *deed); /* what an owner would do; NULL: nobody does it */
    void *deed_arg;
    struct stage_state states[STAGE_MAX];
    struct stage_timer timers[STAGE_MAX];
    struct stage_fact facts[STAGE_MAX]; /* until stage_forget */
    char *entries[STAGE_MAX];           /* "<object> <entry>", until stage_forget */
    char *pushes[STAGE_MAX];            /* "<channel>\n<payload>", until stage_forget */
    uint64_t entry_n;                   /* histories: numbers are checked to be dense */
    struct sl_map *last_n;              /* object -> last number + 1, as a pointer */
};

static inline struct stage *stage_new(const struct part_ops *ops, const char *tag)
{
    struct stage *s = sl_alloc(sizeof *s);
    s->ops = ops;
    s->cache = state_cache_new(100000);
    s->fx = effects_new(tag, s->cache, false);
    s->now_ms = 1700000000000;
    s->last_n = sl_map_new();
    effects_set_gen(s->fx, 7);
    return s;
}

static inline void stage_forget(struct stage *s)
{
    for (size_t i = 0; i < s->fact_count; i++) {
        free(s->facts[i].to);
        free(s->facts[i].json);
        json_decref(s->facts[i].hold);
    }
    for (size_t i = 0; i < s->entry_count; i++)
        free(s->entries[i]);
    for (size_t i = 0; i < s->push_count; i++)
        free(s->pushes[i]);
    s->fact_count = s->entry_count = s->push_count = 0;
}

static inline void stage_free(struct stage **ps)
{
    struct stage *s = *ps;
    *ps = NULL;
    stage_forget(s);
    for (size_t i = 0; i < s->state_count; i++) {
        free(s->states[i].key);
        free(s->states[i].id);
        free(s->states[i].json);
    }
    for (size_t i = 0; i < s->timer_count; i++)
        free(s->timers[i].member);
    effects_free(&s->fx);
    state_cache_free(&s->cache);
    sl_map_free(&s->last_n);
    free(s);
}

static inline struct stage_state *stage_find(struct stage *s, const struct state_kind *kind, struct sl_str id)
{
    for (size_t i = 0; i < s->state_count; i++)
        if (s->states[i].kind == kind && sl_str_eq_c(id, s->states[i].id))
            return &s->states[i];
    return NULL;
}

static inline void stage_fetch(struct stage *s)
{
    struct sl_str id;
    const struct state_kind *kind = effects_missing(s->fx, &id);
    struct stage_state *st = stage_find(s, kind, id);
    bool is_there = st != NULL && st->is_there;
    assert_int_equal(state_cache_put(s->cache, kind, id, is_there,
                                     is_there ? sl_str_c(st->json) : SL_STR_NONE, is_there ? st->n : 0,
                                     is_there ? st->v : 0),
                     SL_OK);
}

/* Decoding what was encoded and encoding it again gives the same bytes. */
static inline void stage_check_round_trip(const struct state *state, struct sl_str json)
{
    struct sl_buf again;
    struct state *copy = sl_alloc(state->kind->size);
    copy->kind = state->kind;
    sl_buf_init(&again, 0);
    assert_int_equal(state->kind->decode(copy, json), SL_OK);
    state->kind->encode(copy, &again);
    assert_true(sl_str_eq(sl_buf_view(&again), json));
    if (state->kind->fini != NULL)
        state->kind->fini(copy);
    free(copy);
    sl_buf_fini(&again);
}

static inline void stage_write_state(struct stage *s, struct state *state)
{
    struct stage_state *st = stage_find(s, state->kind, sl_str_c(state->id));
    if (st == NULL) {
        assert_true(s->state_count < STAGE_MAX);
        st = &s->states[s->state_count++];
        *st = (struct stage_state){.kind = state->kind, .id = sl_strdup(state->id)};
    }
    st->is_there = !state->is_deleted;
    if (state->is_deleted)
        return;
    struct sl_buf json;
    sl_buf_init(&json, 0);
    state->kind->encode(state, &json);
    stage_check_round_trip(state, sl_buf_view(&json));
    free(st->json);
    st->json = sl_str_dup(sl_buf_view(&json));
    st->n = state->n;
    st->v = state->v;
    sl_buf_fini(&json);
}

static inline void stage_write_timer(struct stage *s, const struct fx_timer *t)
{
    for (size_t i = 0; i < s->timer_count; i++) {
        if (!sl_str_eq_c(t->member, s->timers[i].member))
            continue;
        if (t->is_set) {
            s->timers[i].due_ms = t->due_ms;
            return;
        }
        free(s->timers[i].member);
        s->timers[i] = s->timers[--s->timer_count];
        return;
    }
    if (!t->is_set)
        return;
    assert_true(s->timer_count < STAGE_MAX);
    s->timers[s->timer_count++] = (struct stage_timer){.member = sl_str_dup(t->member), .due_ms = t->due_ms};
}

static inline char *stage_join(struct sl_str a, const char *between, struct sl_str b)
{
    struct sl_buf out;
    sl_buf_init(&out, 0);
    sl_buf_str(&out, a);
    sl_buf_c(&out, between);
    sl_buf_str(&out, b);
    char *joined = sl_str_dup(sl_buf_view(&out));
    sl_buf_fini(&out);
    return joined;
}

static inline void stage_write_entry(struct stage *s, const struct fx_history *h)
{
    char *key = stage_join(sl_str_c(h->kind->prefix), ":", h->object);
    uintptr_t last = (uintptr_t)sl_map_get(s->last_n, sl_str_c(key));
    assert_int_equal(h->n, last == 0 ? 1 : last); /* stored as the next number */
    (void)sl_map_set(s->last_n, sl_str_c(key), (void *)(uintptr_t)(h->n + 1));
    free(key);
    assert_true(s->entry_count < STAGE_MAX);
    json_t *parsed = sl_json_parse(h->entry, NULL);
    assert_non_null(parsed);
    json_decref(parsed);
    s->entries[s->entry_count++] = stage_join(h->object, " ", h->entry);
}

static inline void stage_write_fact(struct stage *s, const struct fx_fact_item *item)
{
    assert_true(s->fact_count < STAGE_MAX);
    struct stage_fact *f = &s->facts[s->fact_count++];
    struct sl_buf json;
    struct sl_json j;
    sl_buf_init(&json, 0);
    sl_json_begin(&j, &json);
    event_to_json(&item->event, &j, NULL);
    f->to = sl_str_dup(item->destination);
    f->json = sl_str_dup(sl_buf_view(&json));
    assert_int_equal(event_from_json(sl_str_c(f->json), &f->ev, &f->hold, NULL), SL_OK);
    sl_buf_fini(&json);
}

static inline void stage_commit(struct stage *s)
{
    struct state *const *states;
    const struct fx_history *histories;
    const struct fx_timer *timers;
    const struct fx_fact_item *facts;
    const struct fx_push *pushes;
    size_t count = effects_states(s->fx, &states);
    for (size_t i = 0; i < count; i++)
        stage_write_state(s, states[i]);
    count = effects_histories(s->fx, &histories);
    for (size_t i = 0; i < count; i++)
        stage_write_entry(s, &histories[i]);
    count = effects_timers(s->fx, &timers);
    for (size_t i = 0; i < count; i++)
        stage_write_timer(s, &timers[i]);
    count = effects_facts(s->fx, &facts);
    for (size_t i = 0; i < count; i++)
        stage_write_fact(s, &facts[i]);
    count = effects_pushes(s->fx, &pushes);
    for (size_t i = 0; i < count; i++) {
        assert_true(s->push_count < STAGE_MAX);
        s->pushes[s->push_count++] = stage_join(pushes[i].channel, "\n", pushes[i].payload);
    }
    const struct event *deeds;
    count = effects_deeds(s->fx, &deeds);
    for (size_t i = 0; i < count && s->on_deed != NULL; i++)
        s->on_deed(s->deed_arg, &deeds[i]);
    effects_written(s->fx);
    effects_clear(s->fx);
}

static inline void stage_go(struct stage *s, const struct event *given, bool is_buried)
{
    struct event ev = *given;
    char entry[48];
    int n = snprintf(entry, sizeof entry, "%lld-%llu", (long long)s->now_ms, (unsigned long long)++s->seq);
    ev.entry = sl_str_n(entry, (size_t)n);
    effects_clear(s->fx);
    for (;;) {
        enum fx_outcome out = is_buried ? effects_bury(s->fx, s->ops, &ev, SL_STR("test"), s->now_ms)
                                        : effects_run(s->fx, s->ops, &ev, s->now_ms);
        if (out == FX_DONE)
            break;
        assert_int_equal(out, FX_MISSING);
        stage_fetch(s);
    }
    if (ev.type == EVENT_TIMER) { /* the machinery takes a processed timer away, before what the step sets */
        char member[256];
        n = snprintf(member, sizeof member, "%.*s|%.*s|%lld", (int)ev.conv.len, ev.conv.ptr, (int)ev.name.len,
                     ev.name.ptr, (long long)ev.gen);
        stage_write_timer(s, &(struct fx_timer){.member = sl_str_n(member, (size_t)n)});
    }
    stage_commit(s);
    if (s->seq % 5 == 0)
        state_cache_clear(s->cache);
}

static inline void stage_run(struct stage *s, const struct event *ev)
{
    stage_go(s, ev, false);
}

static inline size_t stage_earliest(const struct stage *s)
{
    size_t best = s->timer_count;
    for (size_t i = 0; i < s->timer_count; i++)
        if (best == s->timer_count || s->timers[i].due_ms < s->timers[best].due_ms)
            best = i;
    return best;
}

/* Let time pass up to the earliest timer and run it. False: none is armed. */
static inline bool stage_fire(struct stage *s)
{
    size_t i = stage_earliest(s);
    if (i == s->timer_count)
        return false;
    struct event ev = {.type = EVENT_TIMER};
    char *member = sl_strdup(s->timers[i].member);
    if (s->timers[i].due_ms > s->now_ms)
        s->now_ms = s->timers[i].due_ms;
    assert_int_equal(effects_timer_parse(sl_str_c(member), &ev.conv, &ev.name, &ev.gen), SL_OK);
    stage_run(s, &ev);
    free(member);
    return true;
}

/* The state as it stands in the store; NULL: not there. Valid until the next call. */
static inline const void *stage_state(struct stage *s, const struct state_kind *kind, struct sl_str id)
{
    static struct state *last;
    if (last != NULL) {
        last->kind->fini(last);
        free(last);
        last = NULL;
    }
    struct stage_state *st = kind != NULL ? stage_find(s, kind, id) : NULL;
    if (st == NULL || !st->is_there)
        return NULL;
    last = sl_alloc(kind->size);
    last->kind = kind;
    last->n = st->n;
    last->v = st->v;
    assert_int_equal(kind->decode(last, sl_str_c(st->json)), SL_OK);
    return last;
}

/* The newest fact of this type since stage_forget; NULL: none. */
static inline const struct event *stage_fact(const struct stage *s, enum event_type type)
{
    for (size_t i = s->fact_count; i > 0; i--)
        if (s->facts[i - 1].ev.type == type)
            return &s->facts[i - 1].ev;
    return NULL;
}

static inline size_t stage_facts(const struct stage *s, enum event_type type)
{
    size_t count = 0;
    for (size_t i = 0; i < s->fact_count; i++)
        count += s->facts[i].ev.type == type;
    return count;
}

static inline bool stage_said(const struct stage *s, const char *part)
{
    for (size_t i = 0; i < s->entry_count; i++)
        if (strstr(s->entries[i], part) != NULL)
            return true;
    return false;
}

static inline bool stage_pushed(const struct stage *s, const char *channel, const char *part)
{
    for (size_t i = 0; i < s->push_count; i++)
        if (strncmp(s->pushes[i], channel, strlen(channel)) == 0 && strstr(s->pushes[i], part) != NULL)
            return true;
    return false;
}

#endif
