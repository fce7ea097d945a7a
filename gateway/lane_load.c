/* gateway/lane_load.c - what an event of a lane needs, asked for before anything is changed; and the names of states. */
#include "gateway/lane_priv.h"

#include "base/fault.h"

#include <inttypes.h>
#include <stdio.h>

const char *const gw_lane_bands[2] = {"0", "1"};

/* ---- small helpers ---- */

struct sl_str gw_lane_shelf_name(const char *queue, int64_t number, char out[LANE_NAME_BYTES])
{
    int n = snprintf(out, LANE_NAME_BYTES, "%s.%" PRId64, queue, number);
    return sl_str_n(out, (size_t)n);
}

struct sl_str gw_lane_send_name(struct sl_str conv, int64_t number, char out[KEY_MAX_BYTES])
{
    int n = snprintf(out, KEY_MAX_BYTES, "%.*s/%" PRId64, (int)conv.len, conv.ptr, number);
    return sl_str_n(out, n < KEY_MAX_BYTES ? (size_t)n : KEY_MAX_BYTES - 1);
}

struct sl_str gw_lane_conv_of(struct sl_str send)
{
    const char *slash = send.len > 0 ? memchr(send.ptr, '/', send.len) : NULL;
    return sl_str_n(send.ptr, slash != NULL ? (size_t)(slash - send.ptr) : send.len);
}

int64_t gw_lane_number_of(const struct gw_send *x)
{
    const char *slash = strchr(x->s.id, '/');
    int64_t n = 0;
    return slash != NULL && sl_str_int(sl_str_c(slash + 1), &n) == SL_OK ? n : 0;
}

void gw_lane_refuse(struct gw_lane_run *t, const char *code)
{
    fx_fact(t->fx, SL_STR_NONE,
            &(struct event){.type = EVENT_REFUSAL,
                            .conv = t->ev->conv,
                            .id = t->ev->id,
                            .name = sl_str_c(event_type_name(t->ev->type)),
                            .remote = t->ev->remote,
                            .reason = sl_str_c(code)});
}

/* A cut between code points. */
struct sl_str gw_lane_shortened(struct sl_str s, size_t max)
{
    if (s.len <= max)
        return s;
    size_t n = max;
    while (n > 0 && ((unsigned char)s.ptr[n] & 0xC0) == 0x80)
        n--;
    return sl_str_n(s.ptr, n);
}

/* ---- loading ---- */

static struct gw_shelf *load_shelf(struct gw_lane_run *t, const char *queue, int64_t number)
{
    char name[LANE_NAME_BYTES];
    return fx_state(t->fx, &gw_shelf_kind, gw_lane_shelf_name(queue, number, name));
}

/* False: not at hand, return at once. */
static bool load_pair(struct gw_lane_run *t, struct sl_str conv, struct gw_lane_pair *out)
{
    char name[KEY_MAX_BYTES];
    out->line = fx_state(t->fx, &gw_line_kind, conv);
    if (out->line == NULL)
        return false;
    if (out->line->count == 0)
        return true;
    out->send = fx_state(t->fx, &gw_send_kind, gw_lane_send_name(conv, out->line->number[0], name));
    return out->send != NULL;
}

static bool load_next(struct gw_lane_run *t, struct sl_str conv)
{
    char name[KEY_MAX_BYTES];
    if (t->own.line->count < 2)
        return true;
    t->next = fx_state(t->fx, &gw_send_kind, gw_lane_send_name(conv, t->own.line->number[1], name));
    return t->next != NULL;
}

/* A provider's id may be anything: what could not be a key is named by its hash. */
struct sl_str gw_lane_pid_name(struct sl_str id, char out[LANE_KEY_BYTES + 2])
{
    if (key_part_ok(id) && !sl_str_starts(id, "h-"))
        return id;
    char key[LANE_KEY_BYTES];
    gw_lane_key("", id, 0, key);
    memcpy(out, "h-", 2);
    memcpy(out + 2, key, sizeof key);
    return sl_str_c(out);
}

struct sl_str gw_lane_cut_id(struct sl_str *rest)
{
    const char *comma = rest->len > 0 ? memchr(rest->ptr, ',', rest->len) : NULL;
    struct sl_str id = sl_str_n(rest->ptr, comma != NULL ? (size_t)(comma - rest->ptr) : rest->len);
    size_t used = id.len + (comma != NULL ? 1 : 0);
    *rest = sl_str_n(rest->ptr + used, rest->len - used);
    return id;
}

/* Unless a receipt waits somewhere, no id that an answer names is known, and the store need not be asked. */
static bool load_pids(struct gw_lane_run *t)
{
    char name[LANE_KEY_BYTES + 2];
    struct sl_str rest = t->ev->remote;
    bool is_receipt = t->ev->type == EVENT_RECEIPT;
    while (rest.len > 0 && t->pid_count < LANE_IDS_MAX && (is_receipt || t->lane->early > 0)) {
        struct sl_str id = gw_lane_cut_id(&rest);
        if (id.len == 0)
            continue;
        struct gw_pid *pid = fx_state(t->fx, &gw_pid_kind, gw_lane_pid_name(id, name));
        if (pid == NULL)
            return false;
        t->pid[t->pid_count++] = pid;
        if (is_receipt)
            break;
    }
    return true;
}

bool gw_lane_is_timer(const struct gw_lane_run *t, const char *name)
{
    return t->ev->type == EVENT_TIMER && sl_str_eq_c(t->ev->name, name);
}

static bool is_of_takeover(const struct gw_lane_run *t)
{
    return t->ev->type == EVENT_LANE || gw_lane_is_timer(t, "takeover");
}

static bool load_takeover(struct gw_lane_run *t)
{
    int64_t epoch = sl_mutant("lane-forget-epoch") ? 0 : fx_epoch(t->fx);
    for (size_t i = 0; i < t->lane->flying_count && t->taken_count < LANE_TAKEOVER_MAX; i++) {
        if (t->lane->flying[i].epoch >= epoch)
            continue;
        if (!load_pair(t, sl_str_c(t->lane->flying[i].conv), &t->taken[t->taken_count]))
            return false;
        t->taken_count++;
    }
    return true;
}

static bool load_receipt(struct gw_lane_run *t)
{
    if (!load_pids(t))
        return false;
    if (t->pid_count == 0 || t->pid[0]->send == NULL)
        return true;
    t->own.send = fx_state(t->fx, &gw_send_kind, sl_str_c(t->pid[0]->send));
    return t->own.send != NULL;
}

static bool load_settled(struct gw_lane_run *t)
{
    struct sl_str conv = gw_lane_conv_of(t->ev->id);
    if (!key_part_ok(conv))
        return true;
    if (!load_pair(t, conv, &t->own) || !load_next(t, conv) || !load_pids(t))
        return false;
    if (t->own.send != NULL && sl_str_eq_c(t->ev->id, t->own.send->s.id))
        return true;
    t->own.line = NULL; /* a late word on a message that has left its line */
    t->next = NULL;
    t->own.send = fx_state(t->fx, &gw_send_kind, t->ev->id);
    return t->own.send != NULL;
}

static bool load_timer(struct gw_lane_run *t)
{
    if (gw_lane_is_timer(t, "retry"))
        return !key_part_ok(t->ev->conv) || load_pair(t, t->ev->conv, &t->own);
    if (gw_lane_is_timer(t, "early")) {
        t->pid[0] = fx_state(t->fx, &gw_pid_kind, t->ev->conv);
        t->pid_count = t->pid[0] != NULL;
        return t->pid[0] != NULL;
    }
    if (gw_lane_is_timer(t, "sweep")) {
        t->swept = fx_state(t->fx, &gw_shelf_kind, t->ev->conv);
        return t->swept != NULL;
    }
    return true;
}

static bool load_event(struct gw_lane_run *t)
{
    if (is_of_takeover(t))
        return load_takeover(t);
    if (t->ev->type == EVENT_TIMER)
        return load_timer(t);
    if (t->ev->type == EVENT_SETTLED)
        return load_settled(t);
    if (t->ev->type == EVENT_RECEIPT)
        return load_receipt(t);
    return t->ev->type != EVENT_SEND || !key_part_ok(t->ev->conv) || load_pair(t, t->ev->conv, &t->own);
}

/* How many might start behind this event; what really may is asked again when it does. */
static size_t places(const struct gw_lane_run *t)
{
    const struct gw_lane *l = t->lane;
    size_t room = l->window > (int64_t)l->flying_count ? (size_t)l->window - l->flying_count : 0;
    bool has_end = t->ev->type == EVENT_SETTLED;
    bool is_paused = l->pause_ms > t->now_ms && t->ev->type != EVENT_LANE; /* which may end a pause */
    if (is_paused || (l->breaker == LANE_PROBING && !has_end))
        return 0;
    room += has_end ? 1 : 0;
    size_t most = gw_lane_is_timer(t, "go") || t->ev->type == EVENT_LANE ? LANE_START_MAX : 2;
    return room < most ? room : most;
}

static bool load_ready_of(struct gw_lane_run *t, int band, size_t most)
{
    struct gw_lane *l = t->lane;
    struct gw_shelf *shelf = t->first[band];
    int64_t number = *gw_lane_first_of(l, band);
    size_t at = 0;
    for (int64_t left = *gw_lane_count_of(l, band); left > 0 && t->start_count < most; left--, at++) {
        if (at == shelf->count) {
            shelf = load_shelf(t, gw_lane_bands[band], ++number);
            if (shelf == NULL)
                return false;
            at = 0;
            if (shelf->count == 0)
                return true;
        }
        struct gw_lane_pair *p = &t->may_start[t->start_count];
        if (!load_pair(t, sl_str_c(shelf->item[at]), p))
            return false;
        p->band = band;
        t->start_count++;
    }
    return true;
}

bool gw_lane_load(struct gw_lane_run *t)
{
    t->lane = fx_state(t->fx, &gw_lane_kind, LANE_ID);
    if (t->lane == NULL)
        return false;
    for (int band = 0; band < 2; band++) {
        t->first[band] = load_shelf(t, gw_lane_bands[band], *gw_lane_first_of(t->lane, band));
        if (t->first[band] == NULL)
            return false;
        t->last[band] = load_shelf(t, gw_lane_bands[band], *gw_lane_last_of(t->lane, band));
        if (t->last[band] == NULL)
            return false;
    }
    t->done = load_shelf(t, "done", t->lane->last_done);
    if (t->done == NULL || !load_event(t))
        return false;
    size_t most = places(t);
    return load_ready_of(t, 0, most) && load_ready_of(t, 1, most);
}
