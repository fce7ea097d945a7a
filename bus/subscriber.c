/* bus/subscriber.c - which channels are wanted, how often, and whether the store has confirmed them; the same over both stores.
 *
 * Memory   a channel is one entry of a map whose value is a number: count and state, no record of its own.
 * Batches  what changed in a turn of the loop leaves together, in the order of the calls, at most 512 channels a command.
 */
#include "bus/bus_priv.h"

#include "base/map.h"
#include "base/metrics.h"

#include <stdlib.h>

#define SUBSCRIBE_BATCH 512

/* The value of a channel: references * 2 + 1 if confirmed on this connection. Never 0, as there is at least one reference. */
static void *channel_value(size_t references, bool is_confirmed)
{
    return (void *)(uintptr_t)(references * 2 + (is_confirmed ? 1 : 0));
}

static size_t value_references(const void *value)
{
    return (size_t)(uintptr_t)value / 2;
}

static bool value_is_confirmed(const void *value)
{
    return ((uintptr_t)value & 1) != 0;
}

enum change_kind { CHANGE_SUBSCRIBE, CHANGE_UNSUBSCRIBE, CHANGE_CONFIRM };
struct change {
    enum change_kind kind;
    size_t at, len; /* name in names */
};

struct bus_subscriber {
    const struct bus_impl *impl;
    void *sub; /* the implementation's; NULL: closing */
    struct bus_subscriber_ops ops;
    void *arg;
    struct sl_map *channels;
    struct change *changes;
    size_t change_count, change_cap;
    struct sl_buf names;
    struct sl_post flush_post, free_post;
    bool is_up;
    struct sl_metric *gauge;
};

static void show_count(struct bus_subscriber *s)
{
    sl_gauge_set(s->gauge, (int64_t)sl_map_count(s->channels));
}

static void add_change(struct bus_subscriber *s, enum change_kind kind, struct sl_str channel)
{
    if (s->change_count == s->change_cap) {
        s->change_cap = s->change_cap == 0 ? 64 : s->change_cap * 2;
        s->changes = sl_realloc(s->changes, s->change_cap * sizeof(*s->changes));
    }
    s->changes[s->change_count++] = (struct change){.kind = kind, .at = s->names.len, .len = channel.len};
    sl_buf_str(&s->names, channel);
    sl_assert(!s->names.overflow);
    sl_post_now(&s->flush_post);
}

static void send_batch(struct bus_subscriber *s, enum change_kind kind, const struct sl_str *channels,
                       size_t count)
{
    if (count > 0 && s->sub != NULL)
        s->impl->sub_send(s->sub, kind == CHANGE_SUBSCRIBE, channels, count);
}

/* A second asker of a channel that stands already: nothing to send, it may read the log now. */
static void confirm(struct bus_subscriber *s, struct sl_str channel)
{
    void *value = sl_map_get(s->channels, channel);
    if (value != NULL && value_is_confirmed(value))
        s->ops.confirmed(s->arg, channel);
}

static void flush_changes(struct bus_subscriber *s, const struct change *changes, size_t count,
                          const char *names)
{
    struct sl_str batch[SUBSCRIBE_BATCH];
    enum change_kind kind = CHANGE_SUBSCRIBE;
    size_t n = 0;
    for (size_t i = 0; i < count && s->sub != NULL; i++) {
        struct sl_str channel = sl_str_n(names + changes[i].at, changes[i].len);
        if (changes[i].kind == CHANGE_CONFIRM) {
            confirm(s, channel);
            continue;
        }
        if (!s->is_up)
            continue; /* the next connection subscribes to everything anyway */
        if (n == SUBSCRIBE_BATCH || changes[i].kind != kind) {
            send_batch(s, kind, batch, n);
            n = 0;
        }
        kind = changes[i].kind;
        batch[n++] = channel;
    }
    send_batch(s, kind, batch, n);
}

static void on_flush(void *arg)
{
    struct bus_subscriber *s = arg;
    struct change *changes = s->changes;
    struct sl_buf names = s->names;
    size_t count = s->change_count;
    s->changes = NULL; /* callbacks may add more */
    s->change_count = s->change_cap = 0;
    sl_buf_init(&s->names, 64u << 20);
    flush_changes(s, changes, count, names.ptr != NULL ? names.ptr : "");
    free(changes);
    sl_buf_fini(&names);
}

/* A new connection: subscribe to all, without waiting for a turn. */
static void subscribe_all(struct bus_subscriber *s)
{
    struct sl_str batch[SUBSCRIBE_BATCH], channel;
    size_t n = 0;
    void *value;
    for (size_t i = 0; sl_map_next(s->channels, &i, &channel, &value);) {
        batch[n++] = channel;
        if (n == SUBSCRIBE_BATCH) {
            send_batch(s, CHANGE_SUBSCRIBE, batch, n);
            n = 0;
        }
    }
    send_batch(s, CHANGE_SUBSCRIBE, batch, n);
}

static void forget_confirmations(struct bus_subscriber *s)
{
    struct sl_str channel;
    void *value;
    for (size_t i = 0; sl_map_next(s->channels, &i, &channel, &value);)
        if (value_is_confirmed(value))
            (void)sl_map_set(s->channels, channel, channel_value(value_references(value), false));
}

static void on_change(void *arg, bool is_up)
{
    struct bus_subscriber *s = arg;
    if (s->sub == NULL || s->is_up == is_up)
        return;
    s->is_up = is_up;
    if (is_up) {
        s->change_count = 0; /* all of it is in the map */
        sl_buf_clear(&s->names);
        subscribe_all(s);
        return;
    }
    forget_confirmations(s);
    s->ops.lost(s->arg);
}

static void on_message(void *arg, bool is_confirm, struct sl_str channel, struct sl_str payload)
{
    struct bus_subscriber *s = arg;
    void *value = s->sub == NULL ? NULL : sl_map_get(s->channels, channel);
    if (value == NULL)
        return; /* unsubscribed meanwhile */
    if (!is_confirm) {
        s->ops.message(s->arg, channel, payload);
        return;
    }
    (void)sl_map_set(s->channels, channel, channel_value(value_references(value), true));
    s->ops.confirmed(s->arg, channel);
}

static void on_free(void *arg)
{
    struct bus_subscriber *s = arg;
    sl_map_free(&s->channels);
    free(s->changes);
    sl_buf_fini(&s->names);
    free(s);
}

struct bus_subscriber *bus_subscriber_open(struct bus *b, const struct bus_subscriber_ops *ops, void *arg)
{
    struct bus_subscriber *s = sl_alloc(sizeof(*s));
    s->impl = b->impl;
    s->ops = *ops;
    s->arg = arg;
    s->channels = sl_map_new();
    s->gauge = sl_gauge("sluice_redis_channels", "", "Channels subscribed to");
    sl_buf_init(&s->names, 64u << 20);
    sl_post_init(&s->flush_post, b->loop, on_flush, s);
    sl_post_init(&s->free_post, b->loop, on_free, s);
    s->sub = b->impl->sub_open(b, on_message, on_change, s);
    return s;
}

void bus_subscriber_close(struct bus_subscriber **sp)
{
    struct bus_subscriber *s = *sp;
    *sp = NULL;
    if (s == NULL)
        return;
    s->impl->sub_close(s->sub);
    s->sub = NULL;
    sl_post_cancel(&s->flush_post);
    sl_gauge_set(s->gauge, 0);
    sl_post_now(&s->free_post);
}

void bus_subscribe(struct bus_subscriber *s, struct sl_str channel)
{
    void *value = sl_map_get(s->channels, channel);
    size_t references = value == NULL ? 0 : value_references(value);
    bool is_confirmed = value != NULL && value_is_confirmed(value);
    (void)sl_map_set(s->channels, channel, channel_value(references + 1, is_confirmed));
    show_count(s);
    if (references == 0)
        add_change(s, CHANGE_SUBSCRIBE, channel);
    else if (is_confirmed)
        add_change(s, CHANGE_CONFIRM, channel);
}

void bus_unsubscribe(struct bus_subscriber *s, struct sl_str channel)
{
    void *value = sl_map_get(s->channels, channel);
    if (value == NULL)
        return;
    size_t references = value_references(value);
    if (references > 1) {
        (void)sl_map_set(s->channels, channel, channel_value(references - 1, value_is_confirmed(value)));
        return;
    }
    (void)sl_map_del(s->channels, channel);
    show_count(s);
    add_change(s, CHANGE_UNSUBSCRIBE, channel);
}
