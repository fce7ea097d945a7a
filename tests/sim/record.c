/* tests/sim/record.c - a faithful reader of every log, registered as `must`: nothing may be trimmed before it was here. */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>

static struct sl_str copy_into(char **at, struct sl_str s)
{
    struct sl_str copy = sl_str_n(*at, s.len);
    memcpy(*at, s.ptr, s.len);
    *at += s.len;
    return copy;
}

static void keep(struct recorded_log *log, const struct bus_value *entry)
{
    const struct bus_value *items = bus_value_at(entry, 1);
    struct sl_str id = bus_value_str(bus_value_at(entry, 0));
    size_t count = bus_value_count(items), bytes = id.len;
    for (size_t i = 0; i < count; i++)
        bytes += bus_value_str(bus_value_at(items, i)).len;
    if (log->count == log->cap) {
        log->cap = log->cap == 0 ? 64 : log->cap * 2;
        log->at = sl_realloc(log->at, log->cap * sizeof *log->at);
    }
    struct recorded *r = &log->at[log->count++];
    *r = (struct recorded){.entry.count = count};
    r->bytes = sl_alloc(count * sizeof(struct sl_str) + bytes + 1);
    struct sl_str *item = (struct sl_str *)(void *)r->bytes;
    char *at = r->bytes + count * sizeof *item;
    for (size_t i = 0; i < count; i++)
        item[i] = copy_into(&at, bus_value_str(bus_value_at(items, i)));
    r->entry.item = item;
    r->entry.id = copy_into(&at, id);
    struct sl_fail why;
    r->is_event = event_from_fields(item, count, &r->event, &why) == SL_OK;
    r->event.entry = r->entry.id;
    (void)snprintf(log->last, sizeof log->last, "%.*s", (int)id.len, id.ptr);
}

static void follow(struct world *w, struct recorded_log *log, const char *key)
{
    char from[64];
    (void)snprintf(from, sizeof from, "(%s", log->last[0] != '\0' ? log->last : "0-0");
    const struct bus_value *v = SIM_PEEK(w, "XRANGE", key, from, "+");
    for (size_t i = 0; i < bus_value_count(v); i++)
        keep(log, bus_value_at(v, i));
}

static void tell_position(struct world *w, const char *tag, const char *name, const struct recorded_log *log)
{
    struct key key = key_tails(tag);
    char value[64], tails[KEY_MAX_BYTES + 1];
    (void)snprintf(tails, sizeof tails, "%.*s", (int)key.len, key.ptr);
    (void)snprintf(value, sizeof value, "must %s", log->last[0] != '\0' ? log->last : "0-0");
    (void)SIM_PEEK(w, "HSET", tails, name, value);
}

void record_all(struct world *w)
{
    char name[KEY_MAX_BYTES + 1];
    for (unsigned k = 0; k < SIM_TAGS; k++) {
        struct key in = key_in(w->tag[k]), out = key_out(w->tag[k]);
        (void)snprintf(name, sizeof name, "%.*s", (int)in.len, in.ptr);
        follow(w, &w->in[k], name);
        (void)snprintf(name, sizeof name, "%.*s", (int)out.len, out.ptr);
        follow(w, &w->out[k], name);
        tell_position(w, w->tag[k], "in:sim", &w->in[k]);
        tell_position(w, w->tag[k], "out:sim", &w->out[k]);
    }
    follow(w, &w->bot, "bot:" SIM_BOT_NAME);
}

void record_start(struct world *w)
{
    record_all(w);
}

static void log_free(struct recorded_log *log)
{
    for (size_t i = 0; i < log->count; i++)
        free(log->at[i].bytes);
    free(log->at);
}

void record_free(struct world *w)
{
    for (unsigned k = 0; k < SIM_TAGS; k++) {
        log_free(&w->in[k]);
        log_free(&w->out[k]);
    }
    log_free(&w->bot);
}
