#include "router/orphans.h"

#include "base/json.h"
#include "base/log.h"
#include "base/metrics.h"
#include "bus/effects.h"
#include "proto/keys.h"

#include <stdio.h>
#include <stdlib.h>

#define PAGE_KEYS 200

struct router_orphans {
    struct sl_loop *loop;
    struct bus *bus;
    bool (*is_mine)(void *arg);
    void *arg;
    struct sl_timer next;
    struct bus_args args;
    struct sl_metric *gauge;
    unsigned in_flight;
    int64_t found; /* in this round */
    char cursor[24];
    bool is_last_page, is_freed;
};

/* One conversation: its state, then its timer; when that is missing the state again, for it may have moved in between. */
struct look {
    struct router_orphans *o;
    int64_t gen;
    bool is_second;
    size_t len;
    char key[KEY_MAX_BYTES + 1];
};

static void finish(struct router_orphans *o)
{
    bus_args_fini(&o->args);
    free(o);
}

/* Is there anybody to go on for? */
static bool settle(struct router_orphans *o)
{
    o->in_flight--;
    if (!o->is_freed)
        return true;
    if (o->in_flight == 0)
        finish(o);
    return false;
}

/* All looks of the page are done: the next one, or the round's end. */
static void page_end(struct router_orphans *o)
{
    if (o->in_flight > 0)
        return;
    if (o->is_last_page) {
        sl_gauge_set(o->gauge, o->found);
        o->found = 0;
        o->is_last_page = false;
    }
    sl_timer_start(&o->next, ROUTER_ORPHANS_PAGE_MS);
}

static bool ask(struct router_orphans *o, bus_reply_fn fn, void *arg)
{
    if (bus_command(o->bus, &o->args, BUS_DEADLINE_MS, fn, arg) != SL_OK)
        return false;
    o->in_flight++;
    return true;
}

static void look_end(struct look *l)
{
    struct router_orphans *o = l->o;
    free(l);
    page_end(o);
}

static void on_state(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why);

static void look_at_state(struct look *l)
{
    struct bus_args *a = &l->o->args;
    bus_args_clear(a);
    bus_args_c(a, "HGET");
    bus_args_c(a, l->key);
    bus_args_c(a, "s");
    if (!ask(l->o, on_state, l))
        look_end(l);
}

static void on_timer_read(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct look *l = arg;
    (void)why;
    if (!settle(l->o)) {
        free(l);
    } else if (err == SL_OK && bus_value_type(v) != BUS_STR) {
        l->is_second = true;
        look_at_state(l);
    } else {
        look_end(l);
    }
}

/* conv:{<tag>}:<id> */
static bool split(struct look *l, struct sl_str *tag, struct sl_str *id)
{
    size_t at;
    struct sl_str key = sl_str_n(l->key, l->len);
    if (!sl_str_starts(key, "conv:{") || !sl_str_find(key, SL_STR("}:"), &at) || at - 6 >= KEY_TAG_MAX_BYTES)
        return false;
    *tag = sl_str_n(l->key + 6, at - 6);
    *id = sl_str_n(l->key + at + 2, l->len - at - 2);
    return true;
}

static void look_at_timer(struct look *l)
{
    struct sl_str id, name;
    char tag[KEY_TAG_MAX_BYTES], member[KEY_MAX_BYTES + 40];
    if (!split(l, &name, &id)) {
        look_end(l);
        return;
    }
    memcpy(tag, name.ptr, name.len);
    tag[name.len] = '\0';
    const struct key timers = key_timers(tag);
    (void)snprintf(member, sizeof member, "%.*s|hold|%lld", (int)id.len, id.ptr, (long long)l->gen);
    struct bus_args *a = &l->o->args;
    bus_args_clear(a);
    bus_args_c(a, "ZSCORE");
    bus_args_key(a, &timers);
    bus_args_c(a, member);
    if (!ask(l->o, on_timer_read, l))
        look_end(l);
}

static void report(struct look *l)
{
    l->o->found++;
    sl_log(SL_WARN, "a conversation has no deadline", SL_KV("key", l->key));
    look_end(l);
}

static void on_state(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct look *l = arg;
    (void)why;
    if (!settle(l->o)) {
        free(l);
        return;
    }
    json_t *root = err == SL_OK ? sl_json_parse(bus_value_str(v), NULL) : NULL; /* owned */
    const int64_t gen = root != NULL ? sl_json_get_int(root, "hold_gen", 0) : 0;
    const bool is_there = root != NULL;
    json_decref(root);
    if (!l->is_second)
        SL_COUNT("sluice_orphan_looks_total", "", "conversations looked at for a missing deadline", 1);
    if (!is_there || (l->is_second && gen != l->gen)) {
        look_end(l); /* gone, unreadable (the owner reports that), or it has moved on */
    } else if (l->is_second || gen == 0) {
        report(l);
    } else {
        l->gen = gen;
        look_at_timer(l);
    }
}

static void on_page(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct router_orphans *o = arg;
    (void)why;
    if (!settle(o))
        return;
    const struct bus_value *keys = bus_value_at(v, 1);
    const struct sl_str cursor = bus_value_str(bus_value_at(v, 0));
    if (err == SL_OK && cursor.len > 0 && cursor.len < sizeof o->cursor)
        (void)snprintf(o->cursor, sizeof o->cursor, "%.*s", (int)cursor.len, cursor.ptr);
    o->is_last_page = err == SL_OK && strcmp(o->cursor, "0") == 0;
    o->in_flight++; /* ours, so that the page does not end before its last look began */
    for (size_t i = 0; err == SL_OK && i < bus_value_count(keys); i++) {
        const struct sl_str key = bus_value_str(bus_value_at(keys, i));
        struct look *l = key.len <= KEY_MAX_BYTES ? sl_alloc(sizeof *l) : NULL;
        if (l == NULL)
            continue;
        l->o = o;
        l->len = key.len;
        memcpy(l->key, key.ptr, key.len);
        look_at_state(l);
    }
    o->in_flight--;
    page_end(o);
}

static void on_next(void *arg)
{
    struct router_orphans *o = arg;
    struct bus_args *a = &o->args;
    if (!o->is_mine(o->arg)) {
        sl_gauge_set(o->gauge, 0);
        o->found = 0;
        (void)snprintf(o->cursor, sizeof o->cursor, "0");
        sl_timer_start(&o->next, ROUTER_ORPHANS_PAGE_MS);
        return;
    }
    bus_args_clear(a);
    bus_args_c(a, "SCAN");
    bus_args_c(a, o->cursor);
    bus_args_c(a, "MATCH");
    bus_args_c(a, "conv:{*");
    bus_args_c(a, "COUNT");
    bus_args_int(a, PAGE_KEYS);
    if (!ask(o, on_page, o))
        sl_timer_start(&o->next, ROUTER_ORPHANS_PAGE_MS);
}

struct router_orphans *router_orphans_new(struct sl_loop *loop, struct bus *bus, bool (*is_mine)(void *arg),
                                          void *arg)
{
    struct router_orphans *o = sl_alloc(sizeof *o);
    *o = (struct router_orphans){.loop = loop, .bus = bus, .is_mine = is_mine, .arg = arg, .cursor = "0"};
    o->gauge = sl_gauge("sluice_orphans", "", "conversations without a deadline of their holder");
    bus_args_init(&o->args);
    sl_timer_init(&o->next, loop, on_next, o);
    sl_timer_start(&o->next, ROUTER_ORPHANS_PAGE_MS);
    return o;
}

void router_orphans_free(struct router_orphans **op)
{
    struct router_orphans *o = *op;
    *op = NULL;
    if (o == NULL)
        return;
    sl_timer_stop(&o->next);
    o->is_freed = true;
    if (o->in_flight == 0)
        finish(o);
}
