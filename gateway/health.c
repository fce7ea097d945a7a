/* gateway/health.c - is the process alive, does the pipeline move, and how much of everything. */
#include "gateway/gateway_priv.h"

#include <stdio.h>
#include <stdlib.h>

#define CACHE_MS    1000
#define STUCK_MS    5000 /* an event that nobody processed for so long: the pipeline does not move */
#define WAITING_MAX 64

/* One look over all partitions: offset of each, then the first entry behind it. */
struct gw_health {
    struct gw *gw;
    uint64_t looked_mono_ms; /* 0: never */
    bool is_looking, has_failed;
    unsigned pending, stuck;
    char lane[KEY_LANE_INBOX_MAX_BYTES + 1]; /* whose log waits; "": none */
    uint64_t oldest_ms;
    struct chan_request *waiting[WAITING_MAX];
    size_t waiting_count;
    bool is_ready;
    char words[240];
};

struct look {
    struct gw_health *h;
    char tag[KEY_TAG_MAX_BYTES];
};

struct gw_health *gw_health_new(struct gw *gw)
{
    struct gw_health *h = sl_alloc(sizeof *h);
    h->gw = gw;
    return h;
}

void gw_health_free(struct gw_health **h)
{
    free(*h);
    *h = NULL;
}

void gw_health_live(struct gw *gw, struct chan_request *rq)
{
    (void)gw;
    rq->answer(rq, 200, "text/plain", SL_STR("alive\n"));
}

void gw_health_metrics(struct gw *gw, struct chan_request *rq)
{
    struct sl_buf out;
    (void)gw;
    sl_buf_init(&out, 0);
    sl_metrics_write(&out);
    rq->answer(rq, 200, "text/plain; version=0.0.4", sl_buf_view(&out));
    sl_buf_fini(&out);
}

static void answer_ready(const struct gw_health *h, struct chan_request *rq)
{
    struct sl_buf body;
    struct sl_json j;
    sl_buf_init(&body, 0);
    sl_json_begin(&j, &body);
    sl_json_open(&j, NULL, '{');
    sl_json_bool(&j, "ready", h->is_ready);
    sl_json_c(&j, "why", h->words);
    sl_json_close(&j, '}');
    rq->answer(rq, h->is_ready ? 200 : 503, "application/json", sl_buf_view(&body));
    sl_buf_fini(&body);
}

static void conclude(struct gw_health *h, bool is_ready, const char *words)
{
    h->is_ready = is_ready;
    (void)snprintf(h->words, sizeof h->words, "%s", words);
    h->is_looking = false;
    h->looked_mono_ms = sl_loop_mono_ms(h->gw->loop);
    for (size_t i = 0; i < h->waiting_count; i++)
        answer_ready(h, h->waiting[i]);
    h->waiting_count = 0;
}

static void look_done(struct gw_health *h)
{
    char words[240];
    if (--h->pending > 0)
        return;
    if (h->has_failed) {
        conclude(h, false, "the store does not answer");
    } else if (h->stuck > 0) {
        (void)snprintf(words, sizeof words,
                       "%u partitions have an event that waits to be processed, the oldest for %llu ms",
                       h->stuck, (unsigned long long)h->oldest_ms);
        conclude(h, false, words);
    } else if (h->lane[0] != '\0') {
        (void)snprintf(words, sizeof words,
                       "the delivery lane of inbox %s has an event that nobody processed for %llu ms",
                       h->lane, (unsigned long long)h->oldest_ms);
        conclude(h, false, words);
    } else if (gw_delivery_stands(h->gw->delivery, words, sizeof words)) {
        conclude(h, false, words);
    } else {
        conclude(h, true, "");
    }
}

static void note_stuck(struct gw_health *h, const char *tag, uint64_t age_ms)
{
    bool is_lane = strncmp(tag, KEY_LANE_PREFIX, sizeof KEY_LANE_PREFIX - 1) == 0;
    if (is_lane)
        (void)snprintf(h->lane, sizeof h->lane, "%s", tag + sizeof KEY_LANE_PREFIX - 1);
    h->stuck += !is_lane;
    h->oldest_ms = age_ms > h->oldest_ms ? age_ms : h->oldest_ms;
}

static void on_first_pending(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct look *l = arg;
    struct gw_health *h = l->h;
    (void)why;
    if (err != SL_OK)
        h->has_failed = true;
    struct sl_str id = bus_value_str(bus_value_at(bus_value_at(v, 0), 0));
    const char *dash = id.len > 0 ? memchr(id.ptr, '-', id.len) : NULL;
    int64_t entry_unix_ms, now_unix_ms = sl_loop_unix_ms(h->gw->loop);
    if (err == SL_OK && dash != NULL &&
        sl_str_int(sl_str_n(id.ptr, (size_t)(dash - id.ptr)), &entry_unix_ms) == SL_OK &&
        now_unix_ms - entry_unix_ms > STUCK_MS)
        note_stuck(h, l->tag, (uint64_t)(now_unix_ms - entry_unix_ms));
    free(l);
    look_done(h);
}

static void on_offset(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct look *l = arg;
    struct gw_health *h = l->h;
    struct key in = key_in(l->tag);
    char after[64];
    (void)why;
    struct sl_str offset = bus_value_str(v);
    (void)snprintf(after, sizeof after, "(%.*s", (int)(offset.len < 48 ? offset.len : 0), offset.ptr);
    if (err == SL_OK) {
        struct bus_args *a = &h->gw->hub->args;
        bus_args_clear(a);
        bus_args_c(a, "XRANGE");
        bus_args_key(a, &in);
        bus_args_c(a, offset.len > 0 ? after : "-");
        bus_args_c(a, "+");
        bus_args_c(a, "COUNT");
        bus_args_int(a, 1);
        if (bus_command(h->gw->bus, a, BUS_DEADLINE_MS, on_first_pending, l) == SL_OK)
            return;
    }
    free(l);
    h->has_failed = true;
    look_done(h);
}

static void look_at(struct gw_health *h, const char *tag)
{
    struct look *l = sl_alloc(sizeof *l);
    l->h = h;
    (void)snprintf(l->tag, sizeof l->tag, "%s", tag);
    struct key meta = key_meta(l->tag);
    struct bus_args *a = &h->gw->hub->args;
    bus_args_clear(a);
    bus_args_c(a, "HGET");
    bus_args_key(a, &meta);
    bus_args_c(a, "offset");
    if (bus_command(h->gw->bus, a, BUS_DEADLINE_MS, on_offset, l) == SL_OK) {
        h->pending++;
        return;
    }
    free(l);
    h->has_failed = true;
}

static void begin_look(struct gw_health *h)
{
    h->is_looking = true;
    h->has_failed = false;
    h->stuck = 0;
    h->oldest_ms = 0;
    h->pending = 1; /* our own, so that it cannot end before all are asked */
    h->lane[0] = '\0';
    for (unsigned k = 0; k < bus_partitions(h->gw->bus); k++) {
        char tag[KEY_TAG_MAX_BYTES];
        key_partition_tag(tag, k);
        look_at(h, tag);
    }
    for (size_t i = 0; gw_delivery_tag(h->gw->delivery, i) != NULL; i++)
        look_at(h, gw_delivery_tag(h->gw->delivery, i));
    look_done(h);
}

void gw_health_ready(struct gw *gw, struct chan_request *rq)
{
    struct gw_health *h = gw->health;
    uint64_t now = sl_loop_mono_ms(gw->loop);
    if (gw->life != GW_RUNNING || !bus_is_ready(gw->bus)) {
        h->is_ready = false;
        h->looked_mono_ms = 0;
        (void)snprintf(h->words, sizeof h->words, "%s",
                       gw->life != GW_RUNNING ? "draining" : "the store is not connected");
        answer_ready(h, rq);
        return;
    }
    bool is_fresh = h->looked_mono_ms != 0 && now - h->looked_mono_ms < CACHE_MS;
    if ((is_fresh && !h->is_looking) || h->waiting_count == WAITING_MAX) {
        answer_ready(h, rq);
        return;
    }
    h->waiting[h->waiting_count++] = rq;
    if (!h->is_looking)
        begin_look(h);
}
