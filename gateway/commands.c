/* gateway/commands.c - appending to command logs, in order, with the outcome always known in the end.
 *
 * An append whose outcome is unknown (the connection broke, the deadline passed) is repeated with the same number: the store
 * knows the number, so a repeat is harmless. Until then later commands of the same origin wait, or they would arrive first.
 */
#include "gateway/hub_priv.h"

#include "base/fault.h"

#include <stdlib.h>

#define RETRY_MS 100

struct gw_command {
    struct gw_queue *queue; /* NULL: its origin is gone */
    struct gw_hub *hub;
    struct gw_command *next;
    uint64_t started_mono_ms;
    size_t bytes;
    bool in_flight;
    char tag[KEY_TAG_MAX_BYTES];
    struct bus_accept accept;
    struct event event;
    char copy[]; /* every string of accept and event */
};

struct sl_str gw_command_id(const struct gw_command *c)
{
    return c->event.id;
}

uint64_t gw_command_number(const struct gw_command *c)
{
    return c->accept.number;
}

static size_t strings_length(const struct bus_accept *in)
{
    size_t n = in->session.len + in->target.len + in->id.len;
#define S_LEN(member)         in->event->member.len
#define I_LEN(member)         0
#define X(member, name, form) n += form##_LEN(member);
    EVENT_FIELDS(X)
#undef X
#undef S_LEN
#undef I_LEN
    return n;
}

static void keep(struct sl_str *s, char **at)
{
    if (s->len == 0)
        return;
    memcpy(*at, s->ptr, s->len);
    s->ptr = *at;
    *at += s->len;
}

static struct gw_command *command_new(struct gw_queue *q, const struct bus_accept *in)
{
    size_t bytes = strings_length(in);
    struct gw_command *c = malloc(sizeof *c + bytes);
    sl_assert(c != NULL);
    c->queue = q;
    c->hub = q->hub;
    c->next = NULL;
    c->started_mono_ms = sl_loop_mono_ms(q->hub->loop);
    c->bytes = bytes;
    c->in_flight = false;
    size_t tag_len = strlen(in->tag);
    sl_assert(tag_len < sizeof c->tag);
    memcpy(c->tag, in->tag, tag_len + 1);
    c->accept = *in;
    c->event = *in->event;
    c->accept.tag = c->tag;
    c->accept.event = &c->event;
    char *at = c->copy;
    keep(&c->accept.session, &at);
    keep(&c->accept.target, &at);
    keep(&c->accept.id, &at);
#define S_KEEP(member)        keep(&c->event.member, &at)
#define I_KEEP(member)        (void)0
#define X(member, name, form) form##_KEEP(member);
    EVENT_FIELDS(X)
#undef X
#undef S_KEEP
#undef I_KEEP
    return c;
}

void gw_queue_init(struct gw_queue *q, struct gw_hub *hub, void *owner,
                   void (*settled)(void *, const struct gw_command *, sl_err, uint64_t, const char *))
{
    *q = (struct gw_queue){.hub = hub, .owner = owner, .settled = settled};
    q->count_max = GW_QUEUE_COMMANDS_MAX;
    q->bytes_max = GW_QUEUE_BYTES_MAX;
}

static void unlink_command(struct gw_queue *q, struct gw_command *c)
{
    struct gw_command **at = &q->first, *before = NULL;
    while (*at != c) {
        before = *at;
        at = &(*at)->next;
    }
    *at = c->next;
    if (q->last == c)
        q->last = before;
    q->count--;
    q->bytes -= c->bytes;
}

static void settle(struct gw_command *c, sl_err err, uint64_t last_number, const char *words)
{
    struct gw_queue *q = c->queue;
    if (q != NULL) {
        unlink_command(q, c);
        q->settled(q->owner, c, err, last_number, words);
    }
    free(c);
}

static void stall(struct gw_queue *q)
{
    if (q->is_stalled)
        return;
    q->is_stalled = true;
    q->next_stalled = q->hub->stalled;
    q->hub->stalled = q;
    if (!sl_timer_is_active(&q->hub->command_retry))
        sl_timer_start(&q->hub->command_retry, RETRY_MS);
}

static void on_accepted(void *arg, sl_err err, const struct bus_accept_result *res, const struct sl_fail *why)
{
    struct gw_command *c = arg;
    c->hub->commands--;
    c->in_flight = false;
    if (c->queue != NULL)
        c->queue->in_flight--;
    bool is_unknown = err == SL_ETIMEOUT || err == SL_ECLOSED;
    if (is_unknown && c->queue != NULL) {
        SL_COUNT("sluice_gateway_commands_unknown_total", "",
                 "Appends whose outcome had to be found out by repeating", 1);
        stall(c->queue);
        return;
    }
    settle(c, err, res != NULL ? res->last_number : 0,
           err == SL_OK || why == NULL || why->text[0] == '\0' ? NULL : why->text);
}

static sl_err issue(struct gw_command *c)
{
    sl_err err = bus_accept(c->hub->bus, &c->accept, on_accepted, c);
    if (err != SL_OK)
        return err;
    c->in_flight = true;
    c->hub->commands++;
    c->queue->in_flight++;
    return SL_OK;
}

sl_err gw_queue_append(struct gw_queue *q, const struct bus_accept *in)
{
    if (q->count >= q->count_max || q->bytes > q->bytes_max)
        return SL_EAGAIN;
    struct gw_command *c = command_new(q, in);
    sl_err err = q->is_stalled ? SL_OK : issue(c);
    if (err != SL_OK) {
        free(c);
        return err;
    }
    if (q->last != NULL)
        q->last->next = c;
    else
        q->first = c;
    q->last = c;
    q->count++;
    q->bytes += c->bytes;
    return SL_OK;
}

static void leave_stalled(struct gw_queue *q)
{
    struct gw_queue **at = &q->hub->stalled;
    while (*at != q)
        at = &(*at)->next_stalled;
    *at = q->next_stalled;
    q->is_stalled = false;
}

void gw_queue_fini(struct gw_queue *q)
{
    if (q->is_stalled)
        leave_stalled(q);
    for (struct gw_command *c = q->first, *next; c != NULL; c = next) {
        next = c->next;
        c->queue = NULL;
        if (!c->in_flight)
            free(c);
    }
    q->first = q->last = NULL;
    q->count = 0;
}

static void drop_late(struct gw_queue *q, uint64_t now_mono_ms)
{
    while (q->first != NULL && now_mono_ms - q->first->started_mono_ms >= q->hub->cfg.command_ms)
        settle(q->first, SL_EAGAIN, 0, NULL);
}

/* Everything again, in order. True when the queue runs freely again. */
static bool repeat(struct gw_queue *q)
{
    if (q->in_flight > 0)
        return false; /* their answers are still to come */
    drop_late(q, sl_loop_mono_ms(q->hub->loop));
    for (struct gw_command *c = q->first; c != NULL; c = c->next)
        if (issue(c) != SL_OK)
            return false; /* the rest at the next try */
    return true;
}

void gw_commands_on_retry(void *arg)
{
    struct gw_hub *hub = arg;
    struct gw_queue *q = hub->stalled;
    hub->stalled = NULL;
    while (q != NULL) {
        struct gw_queue *next = q->next_stalled;
        q->is_stalled = false;
        if (!repeat(q))
            stall(q);
        q = next;
    }
}
