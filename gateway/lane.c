/* gateway/lane.c - step() of a delivery lane. Read lane.h first, then lane_step() at the end.
 *
 * Every event runs in two halves: load() asks for all states that it may need and returns when one is not at hand; what follows
 * changes them. What may start besides is gathered in load(), too: the first few of the ready queues.
 */
#include "gateway/lane.h"

#include "base/fault.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define BACK_OFF_MIN_MS   1000 /* full jitter between 1 s and 2^tries s ... */
#define BACK_OFF_MAX_MS   900000
#define IDLE_MIN_MS       250 /* the adapter took nothing: not connected, or too much at once */
#define IDLE_MAX_MS       5000
#define BREAKER_ROW       10 /* failures of account or transport in a row, ... */
#define BREAKER_RECENT    20 /* ... or more than half of so many */
#define BREAKER_MIN_MS    5000
#define BREAKER_MAX_MS    300000
#define ASK_MAX           5 /* queries without an answer, then the outcome stays unknown */
#define TAKEOVER_MAX      8 /* tries of an old owner judged by one event */
#define DONE_OPEN_MS      3600000
#define WORDS_MAX         500
#define TOKEN_WAIT_MAX_MS 50

struct pair { /* a conversation's line and the first message in it */
    struct gw_line *line;
    struct gw_send *send;
    int band;
};
struct run { /* everything one event needs; borrowed by every function below */
    struct effects *fx;
    const struct event *ev;
    int64_t now_ms;
    struct gw_lane *lane;
    struct gw_shelf *first[2], *last[2], *done; /* ready queues, and what ended */
    struct pair own;                            /* of the event's conversation */
    struct gw_send *next;                       /* behind own.send */
    struct gw_pid *pid[LANE_IDS_MAX];
    size_t pid_count;
    struct gw_shelf *swept;
    struct pair taken[TAKEOVER_MAX];
    size_t taken_count;
    struct pair may_start[LANE_START_MAX];
    size_t start_count;
};

#define NAME_BYTES 32
static const char *const band_of[2] = {"0", "1"};

/* ---- small helpers ---- */

static struct sl_str shelf_name(const char *queue, int64_t number, char out[NAME_BYTES])
{
    int n = snprintf(out, NAME_BYTES, "%s.%" PRId64, queue, number);
    return sl_str_n(out, (size_t)n);
}

static struct sl_str send_name(struct sl_str conv, int64_t number, char out[KEY_MAX_BYTES])
{
    int n = snprintf(out, KEY_MAX_BYTES, "%.*s/%" PRId64, (int)conv.len, conv.ptr, number);
    return sl_str_n(out, n < KEY_MAX_BYTES ? (size_t)n : KEY_MAX_BYTES - 1);
}

static struct sl_str conv_of(struct sl_str send)
{
    const char *slash = send.len > 0 ? memchr(send.ptr, '/', send.len) : NULL;
    return sl_str_n(send.ptr, slash != NULL ? (size_t)(slash - send.ptr) : send.len);
}

static int64_t number_of(const struct gw_send *x)
{
    const char *slash = strchr(x->s.id, '/');
    int64_t n = 0;
    return slash != NULL && sl_str_int(sl_str_c(slash + 1), &n) == SL_OK ? n : 0;
}

static int64_t *count_of(struct gw_lane *l, int band)
{
    return band == 0 ? &l->replies : &l->bulk;
}

static int64_t *first_of(struct gw_lane *l, int band)
{
    return band == 0 ? &l->first_reply : &l->first_bulk;
}

static int64_t *last_of(struct gw_lane *l, int band)
{
    return band == 0 ? &l->last_reply : &l->last_bulk;
}

static void refuse(struct run *t, const char *code)
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
static struct sl_str shortened(struct sl_str s, size_t max)
{
    if (s.len <= max)
        return s;
    size_t n = max;
    while (n > 0 && ((unsigned char)s.ptr[n] & 0xC0) == 0x80)
        n--;
    return sl_str_n(s.ptr, n);
}

/* ---- loading ---- */

static struct gw_shelf *load_shelf(struct run *t, const char *queue, int64_t number)
{
    char name[NAME_BYTES];
    return fx_state(t->fx, &gw_shelf_kind, shelf_name(queue, number, name));
}

/* False: not at hand, return at once. */
static bool load_pair(struct run *t, struct sl_str conv, struct pair *out)
{
    char name[KEY_MAX_BYTES];
    out->line = fx_state(t->fx, &gw_line_kind, conv);
    if (out->line == NULL)
        return false;
    if (out->line->count == 0)
        return true;
    out->send = fx_state(t->fx, &gw_send_kind, send_name(conv, out->line->number[0], name));
    return out->send != NULL;
}

static bool load_next(struct run *t, struct sl_str conv)
{
    char name[KEY_MAX_BYTES];
    if (t->own.line->count < 2)
        return true;
    t->next = fx_state(t->fx, &gw_send_kind, send_name(conv, t->own.line->number[1], name));
    return t->next != NULL;
}

/* A provider's id may be anything: what could not be a key is named by its hash. */
static struct sl_str pid_name(struct sl_str id, char out[LANE_KEY_BYTES + 2])
{
    if (key_part_ok(id) && !sl_str_starts(id, "h-"))
        return id;
    char key[LANE_KEY_BYTES];
    gw_lane_key("", id, 0, key);
    memcpy(out, "h-", 2);
    memcpy(out + 2, key, sizeof key);
    return sl_str_c(out);
}

static struct sl_str cut_id(struct sl_str *rest)
{
    const char *comma = rest->len > 0 ? memchr(rest->ptr, ',', rest->len) : NULL;
    struct sl_str id = sl_str_n(rest->ptr, comma != NULL ? (size_t)(comma - rest->ptr) : rest->len);
    size_t used = id.len + (comma != NULL ? 1 : 0);
    *rest = sl_str_n(rest->ptr + used, rest->len - used);
    return id;
}

/* Unless a receipt waits somewhere, no id that an answer names is known, and the store need not be asked. */
static bool load_pids(struct run *t)
{
    char name[LANE_KEY_BYTES + 2];
    struct sl_str rest = t->ev->remote;
    bool is_receipt = t->ev->type == EVENT_RECEIPT;
    while (rest.len > 0 && t->pid_count < LANE_IDS_MAX && (is_receipt || t->lane->early > 0)) {
        struct sl_str id = cut_id(&rest);
        if (id.len == 0)
            continue;
        struct gw_pid *pid = fx_state(t->fx, &gw_pid_kind, pid_name(id, name));
        if (pid == NULL)
            return false;
        t->pid[t->pid_count++] = pid;
        if (is_receipt)
            break;
    }
    return true;
}

static bool is_timer(const struct run *t, const char *name)
{
    return t->ev->type == EVENT_TIMER && sl_str_eq_c(t->ev->name, name);
}

static bool is_of_takeover(const struct run *t)
{
    return t->ev->type == EVENT_LANE || is_timer(t, "takeover");
}

static bool load_takeover(struct run *t)
{
    int64_t epoch = sl_mutant("lane-forget-epoch") ? 0 : fx_epoch(t->fx);
    for (size_t i = 0; i < t->lane->flying_count && t->taken_count < TAKEOVER_MAX; i++) {
        if (t->lane->flying[i].epoch >= epoch)
            continue;
        if (!load_pair(t, sl_str_c(t->lane->flying[i].conv), &t->taken[t->taken_count]))
            return false;
        t->taken_count++;
    }
    return true;
}

static bool load_receipt(struct run *t)
{
    if (!load_pids(t))
        return false;
    if (t->pid_count == 0 || t->pid[0]->send == NULL)
        return true;
    t->own.send = fx_state(t->fx, &gw_send_kind, sl_str_c(t->pid[0]->send));
    return t->own.send != NULL;
}

static bool load_settled(struct run *t)
{
    struct sl_str conv = conv_of(t->ev->id);
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

static bool load_timer(struct run *t)
{
    if (is_timer(t, "retry"))
        return !key_part_ok(t->ev->conv) || load_pair(t, t->ev->conv, &t->own);
    if (is_timer(t, "early")) {
        t->pid[0] = fx_state(t->fx, &gw_pid_kind, t->ev->conv);
        t->pid_count = t->pid[0] != NULL;
        return t->pid[0] != NULL;
    }
    if (is_timer(t, "sweep")) {
        t->swept = fx_state(t->fx, &gw_shelf_kind, t->ev->conv);
        return t->swept != NULL;
    }
    return true;
}

static bool load_event(struct run *t)
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
static size_t places(const struct run *t)
{
    const struct gw_lane *l = t->lane;
    size_t room = l->window > (int64_t)l->flying_count ? (size_t)l->window - l->flying_count : 0;
    bool has_end = t->ev->type == EVENT_SETTLED;
    bool is_paused = l->pause_ms > t->now_ms && t->ev->type != EVENT_LANE; /* which may end a pause */
    if (is_paused || (l->breaker == LANE_PROBING && !has_end))
        return 0;
    room += has_end ? 1 : 0;
    size_t most = is_timer(t, "go") || t->ev->type == EVENT_LANE ? LANE_START_MAX : 2;
    return room < most ? room : most;
}

static bool load_ready_of(struct run *t, int band, size_t most)
{
    struct gw_lane *l = t->lane;
    struct gw_shelf *shelf = t->first[band];
    int64_t number = *first_of(l, band);
    size_t at = 0;
    for (int64_t left = *count_of(l, band); left > 0 && t->start_count < most; left--, at++) {
        if (at == shelf->count) {
            shelf = load_shelf(t, band_of[band], ++number);
            if (shelf == NULL)
                return false;
            at = 0;
            if (shelf->count == 0)
                return true;
        }
        struct pair *p = &t->may_start[t->start_count];
        if (!load_pair(t, sl_str_c(shelf->item[at]), p))
            return false;
        p->band = band;
        t->start_count++;
    }
    return true;
}

static bool load(struct run *t)
{
    t->lane = fx_state(t->fx, &gw_lane_kind, LANE_ID);
    if (t->lane == NULL)
        return false;
    for (int band = 0; band < 2; band++) {
        t->first[band] = load_shelf(t, band_of[band], *first_of(t->lane, band));
        if (t->first[band] == NULL)
            return false;
        t->last[band] = load_shelf(t, band_of[band], *last_of(t->lane, band));
        if (t->last[band] == NULL)
            return false;
    }
    t->done = load_shelf(t, "done", t->lane->last_done);
    if (t->done == NULL || !load_event(t))
        return false;
    size_t most = places(t);
    return load_ready_of(t, 0, most) && load_ready_of(t, 1, most);
}

/* ---- ready queues ---- */

static void ready_push(struct run *t, struct gw_line *line, int band)
{
    struct gw_lane *l = t->lane;
    struct gw_shelf *shelf = t->last[band];
    char name[NAME_BYTES];
    if (shelf->count >= LANE_SHELF) {
        shelf = fx_blank(t->fx, &gw_shelf_kind, shelf_name(band_of[band], ++*last_of(l, band), name));
        t->last[band] = shelf;
    }
    fx_changed(t->fx, shelf);
    gw_shelf_push(shelf, sl_str_c(line->s.id));
    ++*count_of(l, band);
    fx_changed(t->fx, line);
    line->ready = 1 + band;
}

/* The first item; the next shelf, when there is one, was loaded with what may start. */
static void ready_pop(struct run *t, int band)
{
    struct gw_lane *l = t->lane;
    struct gw_shelf *shelf = t->first[band];
    fx_changed(t->fx, shelf);
    gw_shelf_pop(shelf);
    --*count_of(l, band);
    if (shelf->count > 0)
        return;
    fx_delete(t->fx, shelf);
    if (*first_of(l, band) == *last_of(l, band))
        return;
    ++*first_of(l, band);
    t->first[band] = NULL;
    if (*first_of(l, band) == *last_of(l, band))
        t->first[band] = t->last[band];
}

static int band_of_send(const struct gw_send *x)
{
    return x->priority < 0 ? 1 : 0;
}

/* A conversation whose first message may go takes its place in the queue of its band. */
static void line_is_ready(struct run *t, struct gw_line *line, const struct gw_send *first)
{
    if (line->ready == 0)
        ready_push(t, line, first != NULL ? band_of_send(first) : 0);
}

/* ---- outcomes ---- */

static void tell(struct run *t, const struct gw_send *x)
{
    struct sl_str conv = conv_of(sl_str_c(x->s.id));
    char tag[KEY_TAG_MAX_BYTES];
    if (key_conversation_tag(tag, conv) != SL_OK)
        return;
    struct key in = key_in(tag);
    fx_fact(t->fx, key_str(&in),
            &(struct event){.type = EVENT_OUTCOME,
                            .conv = conv,
                            .id = gw_lane_str(x->id),
                            .number = number_of(x),
                            .reason = sl_str_c(gw_send_state_name(x->state)),
                            .code = gw_lane_str(x->code),
                            .text = gw_lane_str(x->words)});
}

static void because(struct gw_send *x, struct sl_str code, struct sl_str words)
{
    gw_lane_set(&x->code, shortened(code, 64));
    gw_lane_set(&x->words, shortened(words, WORDS_MAX));
}

/* Kept for receipts, together with others that ended about now. */
static void keep(struct run *t, const struct gw_send *x)
{
    struct gw_lane *l = t->lane;
    struct sl_buf item;
    char name[NAME_BYTES];
    bool is_over = t->done->count > 0 && t->now_ms - l->done_since_ms > DONE_OPEN_MS;
    if (t->done->count >= LANE_SHELF || is_over) {
        if (l->kept > LANE_KEPT_MAX && l->first_done < l->last_done)
            fx_timer_set(t->fx, shelf_name("done", l->first_done, name), "sweep", 1, t->now_ms);
        t->done = fx_blank(t->fx, &gw_shelf_kind, shelf_name("done", ++l->last_done, name));
    }
    if (t->done->count == 0) {
        l->done_since_ms = t->now_ms;
        fx_timer_set(t->fx, shelf_name("done", l->last_done, name), "sweep", 1,
                     t->now_ms + DONE_OPEN_MS + l->keep_ms);
    }
    sl_buf_init(&item, 0);
    sl_buf_c(&item, x->s.id);
    sl_buf_char(&item, ',');
    sl_buf_str(&item, gw_lane_str(x->remote));
    fx_changed(t->fx, t->done);
    gw_shelf_push(t->done, sl_buf_view(&item));
    sl_buf_fini(&item);
    l->kept++;
}

/* Nothing of it will be sent again. */
static void drop_content(struct gw_send *x)
{
    gw_lane_set(&x->text, SL_STR_NONE);
    gw_lane_set(&x->data, SL_STR_NONE);
    gw_lane_set(&x->context, SL_STR_NONE);
    gw_lane_set(&x->trace, SL_STR_NONE);
}

static int64_t *total_of(struct gw_lane *l, enum gw_send_state state)
{
    switch (state) {
    case SEND_SENT:
        return &l->sent;
    case SEND_DELIVERED:
        return &l->delivered;
    case SEND_READ:
        return &l->read;
    case SEND_FAILED:
        return &l->failed;
    case SEND_UNKNOWN:
        return &l->unknown;
    case SEND_QUEUED:
    case SEND_SENDING:
    case SEND_ASKING:
    case SEND_WAITING:
    case SEND_GRACE:
    case SEND_STATE_COUNT:
        break;
    }
    return NULL;
}

static void go(struct run *t, struct gw_send *x, enum gw_send_state to)
{
    int64_t *total = total_of(t->lane, to);
    fx_changed(t->fx, x);
    x->state = to;
    if (total == NULL)
        return;
    ++*total;
    tell(t, x);
}

static void is_ready(struct run *t, struct gw_line *line, struct gw_send *first);

/* Out of the line; the conversation's next message may go. */
static void leave_line(struct run *t, struct gw_line *line, struct gw_send *next)
{
    gw_line_pop(line);
    fx_changed(t->fx, line);
    t->lane->queued--;
    if (line->count > 0)
        is_ready(t, line, next);
    else if (line->ready == 0)
        fx_delete(t->fx, line);
}

static void end(struct run *t, struct pair *p, struct gw_send *next, enum gw_send_state to)
{
    drop_content(p->send);
    go(t, p->send, to);
    keep(t, p->send);
    leave_line(t, p->line, next);
}

/* ---- beginning ---- */

static void count_tokens(struct run *t)
{
    struct gw_lane *l = t->lane;
    int64_t passed = t->now_ms - l->tokens_ms, full = l->burst * 1000;
    if (l->rate_per_s == 0)
        return;
    if (passed > 3600000)
        passed = 3600000;
    l->milli_tokens += passed * l->rate_per_s;
    if (l->milli_tokens > full)
        l->milli_tokens = full;
    l->tokens_ms = t->now_ms;
}

static bool may_start(const struct run *t)
{
    const struct gw_lane *l = t->lane;
    return (int64_t)l->flying_count < l->window && l->pause_ms <= t->now_ms && l->breaker != LANE_PROBING &&
           (l->rate_per_s == 0 || l->milli_tokens >= 1000);
}

static void deed(struct run *t, const struct gw_send *x, enum event_type type)
{
    char key[LANE_KEY_BYTES];
    gw_lane_key(fx_tag(t->fx), sl_str_c(x->s.id), x->part, key);
    fx_do(t->fx, &(struct event){.type = type,
                                 .conv = sl_str_c(x->s.id),
                                 .addr = gw_lane_str(x->addr),
                                 .id = gw_lane_str(x->id),
                                 .number = x->part,
                                 .capacity = x->parts,
                                 .turn = x->tries + 1,
                                 .gen = x->attempt,
                                 .control = x->epoch,
                                 .name = gw_lane_str(x->by),
                                 .kind = gw_lane_str(x->kind),
                                 .text = gw_lane_str(x->text),
                                 .data = gw_lane_str(x->data),
                                 .hash = sl_str_n(key, LANE_KEY_BYTES - 1),
                                 .channel = gw_lane_str(x->channel),
                                 .at_ms = x->at_ms,
                                 .trace = gw_lane_str(x->trace),
                                 .context = gw_lane_str(x->context),
                                 .remote = gw_lane_str(x->remote)});
}

static void take_off(struct run *t, struct pair *p, enum gw_send_state to)
{
    struct gw_lane *l = t->lane;
    p->send->attempt++;
    p->send->epoch = fx_epoch(t->fx);
    go(t, p->send, to);
    fx_changed(t->fx, p->line);
    p->line->is_flying = 1;
    gw_lane_fly(l, sl_str_c(p->line->s.id), p->send->epoch);
    if (l->rate_per_s > 0)
        l->milli_tokens -= 1000;
    if (l->breaker == LANE_OPEN)
        l->breaker = LANE_PROBING;
    deed(t, p->send, to == SEND_ASKING ? EVENT_QUERY : EVENT_SEND);
}

/* The first message of a line that waits for nothing else. */
static void start(struct run *t, struct pair *p)
{
    struct gw_send *x = p->send;
    bool is_late = t->now_ms > x->at_ms + t->lane->deadline_ms && x->part == 1 && x->state != SEND_ASKING;
    if (is_late) {
        if (x->words == NULL)
            because(x, SL_STR("too_late"), SL_STR("It waited longer than send_deadline allows."));
        end(t, p, NULL, SEND_FAILED);
        return;
    }
    take_off(t, p, x->state == SEND_ASKING ? SEND_ASKING : SEND_SENDING);
}

static bool is_startable(const struct pair *p)
{
    return p->line->count > 0 && p->send != NULL && p->send->s.exists && !p->line->is_flying &&
           p->line->wait_gen == 0;
}

/* What load() gathered, in its order; entries that another event has overtaken are passed. */
static void start_ready(struct run *t)
{
    for (size_t i = 0; i < t->start_count && may_start(t); i++) {
        struct pair *p = &t->may_start[i];
        if (t->first[p->band] == NULL)
            return; /* the next shelf is not at hand: the timer goes on */
        ready_pop(t, p->band);
        if (p->line->ready == 0)
            continue;
        fx_changed(t->fx, p->line);
        p->line->ready = 0;
        if (is_startable(p))
            start(t, p);
        else if (p->line->count == 0)
            fx_delete(t->fx, p->line);
    }
}

/* At once when nobody waits before it. first NULL: not at hand, so it takes its place. */
static void is_ready(struct run *t, struct gw_line *line, struct gw_send *first)
{
    struct pair p = {.line = line, .send = first};
    if (t->lane->replies + t->lane->bulk == 0 && line->ready == 0 && is_startable(&p) && may_start(t))
        start(t, &p);
    else
        line_is_ready(t, line, first);
}

/* When will something be able to start that cannot now? Ends of flights need no timer. */
static int64_t next_go_ms(const struct run *t)
{
    const struct gw_lane *l = t->lane;
    int64_t due = l->pause_ms > t->now_ms ? l->pause_ms : t->now_ms;
    if (l->rate_per_s > 0 && l->milli_tokens < 1000) {
        int64_t one = (1000 - l->milli_tokens + l->rate_per_s - 1) / l->rate_per_s;
        int64_t some = one < TOKEN_WAIT_MAX_MS ? one + (TOKEN_WAIT_MAX_MS - one) / 4 : one;
        due = t->now_ms + some > due ? t->now_ms + some : due;
    }
    return due;
}

static void arm_go(struct run *t)
{
    struct gw_lane *l = t->lane;
    bool is_wanted =
        l->replies + l->bulk > 0 && (int64_t)l->flying_count < l->window && l->breaker != LANE_PROBING;
    if (!is_wanted)
        return;
    int64_t due = next_go_ms(t);
    if (l->go_gen != 0 && l->go_ms <= due)
        return;
    if (l->go_gen != 0)
        fx_timer_clear(t->fx, LANE_ID, "go", l->go_gen);
    l->go_gen = ++l->gen;
    l->go_ms = due;
    fx_timer_set(t->fx, LANE_ID, "go", l->go_gen, due);
}

/* ---- waiting ---- */

static uint64_t mixed(struct sl_str id, int64_t attempt)
{
    uint64_t z = sl_str_hash(id, (uint64_t)attempt) + 0x9e3779b97f4a7c15ULL; /* SplitMix64's end */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

/* Full jitter over a span that doubles; repeatable, for a replay must find the same. */
static int64_t back_off_ms(struct sl_str id, int64_t attempt, int64_t times)
{
    int64_t span = BACK_OFF_MIN_MS;
    for (int64_t i = 1; i < times && span < BACK_OFF_MAX_MS; i++)
        span *= 2;
    if (span > BACK_OFF_MAX_MS)
        span = BACK_OFF_MAX_MS;
    return span / 10 + (int64_t)(mixed(id, attempt) % (uint64_t)span);
}

static void wait_for(struct run *t, struct pair *p, enum gw_send_state state, int64_t after_ms)
{
    go(t, p->send, state);
    fx_changed(t->fx, p->line);
    p->line->wait_gen = ++t->lane->gen;
    fx_timer_set(t->fx, sl_str_c(p->line->s.id), "retry", p->line->wait_gen, t->now_ms + after_ms);
}

static void pause_lane(struct run *t, int64_t after_ms)
{
    if (t->now_ms + after_ms > t->lane->pause_ms)
        t->lane->pause_ms = t->now_ms + after_ms;
}

/* ---- the breaker ---- */

static void breaker_opens(struct run *t)
{
    struct gw_lane *l = t->lane;
    l->breaker_ms = l->breaker == LANE_CLOSED || l->breaker_ms == 0 ? BREAKER_MIN_MS : 2 * l->breaker_ms;
    if (l->breaker_ms > BREAKER_MAX_MS)
        l->breaker_ms = BREAKER_MAX_MS;
    l->breaker = LANE_OPEN;
    l->recent = l->recent_count = 0;
    pause_lane(t, l->breaker_ms);
}

static void breaker_counts(struct run *t, bool is_bad)
{
    struct gw_lane *l = t->lane;
    l->failures = is_bad ? l->failures + 1 : 0;
    l->recent = (l->recent << 1 | (is_bad ? 1 : 0)) & ((1 << BREAKER_RECENT) - 1);
    l->recent_count = l->recent_count < BREAKER_RECENT ? l->recent_count + 1 : BREAKER_RECENT;
    if (!is_bad) {
        l->breaker = LANE_CLOSED;
        l->breaker_ms = l->idle_ms = 0;
        return;
    }
    int bad = __builtin_popcountll((unsigned long long)l->recent);
    bool is_much = l->recent_count == BREAKER_RECENT && bad > BREAKER_RECENT / 2;
    if (l->breaker == LANE_PROBING || (l->breaker == LANE_CLOSED && (l->failures >= BREAKER_ROW || is_much)))
        breaker_opens(t);
}

/* ---- what an adapter said ---- */

static bool has_hint(const struct run *t, const char *word)
{
    return sl_str_find(t->ev->name, sl_str_c(word), &(size_t){0});
}

static enum gw_send_state judged(const struct gw_send *x)
{
    if (x->is_lost)
        return SEND_FAILED;
    if (x->ids > 0 && x->read >= x->ids)
        return SEND_READ;
    return x->ids > 0 && x->delivered >= x->ids ? SEND_DELIVERED : SEND_SENT;
}

/* A receipt counts for its id once, and never backwards. False: it changed nothing. */
static bool receipt_counts(struct gw_send *x, struct gw_pid *pid, int64_t rank)
{
    bool is_backwards = rank <= pid->rank || (rank == PID_FAILED && pid->rank != PID_SENT);
    if (is_backwards && !sl_mutant("lane-receipt-backwards"))
        return false;
    if (rank == PID_FAILED)
        x->is_lost = 1;
    if (rank == PID_DELIVERED || (rank == PID_READ && pid->rank < PID_DELIVERED))
        x->delivered++;
    if (rank == PID_READ)
        x->read++;
    pid->rank = rank;
    return true;
}

static void pid_belongs(struct run *t, struct gw_send *x, struct gw_pid *pid)
{
    int64_t early = pid->send == NULL && pid->s.exists ? pid->rank : PID_SENT;
    bool was_early = pid->send == NULL && pid->s.exists;
    fx_changed(t->fx, pid);
    gw_lane_set(&pid->send, sl_str_c(x->s.id));
    pid->rank = PID_SENT;
    if (!was_early)
        return;
    fx_timer_clear(t->fx, sl_str_c(pid->s.id), "early", pid->gen);
    t->lane->early--;
    if (receipt_counts(x, pid, early) && early == PID_FAILED)
        because(x, gw_lane_str(pid->code), gw_lane_str(pid->words));
    gw_lane_set(&pid->code, SL_STR_NONE);
    gw_lane_set(&pid->words, SL_STR_NONE);
}

/* The provider's ids of the part that was just sent. */
static void learn_ids(struct run *t, struct gw_send *x)
{
    char name[LANE_KEY_BYTES + 2];
    struct sl_str rest = t->ev->remote;
    struct sl_buf all;
    sl_buf_init(&all, 0);
    sl_buf_str(&all, gw_lane_str(x->remote));
    for (size_t i = 0; rest.len > 0 && x->ids < LANE_IDS_MAX && i < LANE_IDS_MAX;) {
        struct sl_str id = cut_id(&rest);
        if (id.len == 0)
            continue;
        struct gw_pid *pid = i < t->pid_count ? t->pid[i] : fx_blank(t->fx, &gw_pid_kind, pid_name(id, name));
        i++;
        if (all.len > 0)
            sl_buf_char(&all, ',');
        sl_buf_c(&all, pid->s.id);
        x->ids++;
        pid_belongs(t, x, pid);
    }
    gw_lane_set(&x->remote, sl_buf_view(&all));
    sl_buf_fini(&all);
}

static void is_sent(struct run *t, struct pair *p)
{
    struct gw_send *x = p->send;
    fx_changed(t->fx, x);
    learn_ids(t, x);
    if (t->ev->capacity > 0)
        x->parts = t->ev->capacity;
    because(x, SL_STR_NONE, SL_STR_NONE);
    x->tries = 0;
    if (x->part >= x->parts || x->is_lost) {
        end(t, p, t->next, judged(x));
        return;
    }
    x->part++;
    go(t, x, SEND_QUEUED);
    is_ready(t, t->own.line, x);
}

static bool is_worth_another(const struct run *t, const struct gw_send *x)
{
    return x->tries < t->lane->tries_max && t->now_ms <= x->at_ms + t->lane->deadline_ms;
}

static void is_failed(struct run *t, struct pair *p)
{
    struct gw_send *x = p->send;
    bool is_account = has_hint(t, "account");
    int64_t after_ms =
        back_off_ms(sl_str_c(x->s.id), x->attempt, is_account ? t->lane->failures : x->tries + 1);
    if (t->ev->wait_ms > after_ms)
        after_ms = t->ev->wait_ms;
    because(x, t->ev->code, t->ev->text);
    if (!has_hint(t, "retry")) {
        end(t, p, t->next, SEND_FAILED);
        return;
    }
    t->lane->retried++;
    if (is_account) { /* the message did nothing wrong: the account waits, and it keeps its tries */
        pause_lane(t, after_ms);
        go(t, x, SEND_QUEUED);
        line_is_ready(t, p->line, x);
        return;
    }
    x->tries++;
    if (is_worth_another(t, x))
        wait_for(t, p, SEND_WAITING, after_ms);
    else
        end(t, p, t->next, SEND_FAILED);
}

static void stays_unknown(struct run *t, struct pair *p, struct gw_send *next)
{
    if (p->send->words == NULL)
        because(p->send, SL_STR("unknown"), SL_STR("Nobody can say whether it was sent."));
    end(t, p, next, SEND_UNKNOWN);
}

/* It may have been sent. What follows is the inbox's policy. */
static void is_unknown(struct run *t, struct pair *p, struct gw_send *next)
{
    struct gw_send *x = p->send;
    struct sl_str id = sl_str_c(x->s.id);
    enum gw_lane_policy policy = (enum gw_lane_policy)t->lane->policy;
    if (policy == LANE_AT_MOST_ONCE && sl_mutant("lane-retry-unknown"))
        policy = LANE_IDEMPOTENT;
    fx_changed(t->fx, x);
    x->tries++;
    if (policy == LANE_AT_MOST_ONCE || !is_worth_another(t, x)) {
        stays_unknown(t, p, next);
        return;
    }
    t->lane->retried++;
    if (policy == LANE_AT_LEAST_ONCE) {
        wait_for(t, p, SEND_GRACE, t->lane->grace_ms);
    } else if (policy == LANE_IDEMPOTENT && x->tries > 1) {
        wait_for(t, p, SEND_WAITING, back_off_ms(id, x->attempt, x->tries - 1));
    } else {
        go(t, x, policy == LANE_QUERYABLE ? SEND_ASKING : SEND_QUEUED);
        line_is_ready(t, p->line, x);
    }
}

/* A query found nothing out. */
static void is_unasked(struct run *t, struct pair *p)
{
    struct gw_send *x = p->send;
    fx_changed(t->fx, x);
    x->tries++;
    if (x->tries > ASK_MAX)
        stays_unknown(t, p, t->next);
    else
        wait_for(t, p, SEND_ASKING, back_off_ms(sl_str_c(x->s.id), x->attempt, x->tries));
}

/* The adapter took nothing, or was not asked: the message stands where it stood. */
static void is_not_begun(struct run *t, struct pair *p, bool was_asking)
{
    struct gw_lane *l = t->lane;
    l->idle_ms = l->idle_ms == 0 ? IDLE_MIN_MS : 2 * l->idle_ms;
    if (l->idle_ms > IDLE_MAX_MS)
        l->idle_ms = IDLE_MAX_MS;
    if (l->breaker == LANE_PROBING)
        l->breaker = LANE_OPEN;
    pause_lane(t, l->idle_ms);
    go(t, p->send, was_asking ? SEND_ASKING : SEND_QUEUED);
    line_is_ready(t, p->line, p->send);
}

enum word { WORD_SENT, WORD_FAILED, WORD_UNKNOWN, WORD_NEVER, WORD_NOT_BEGUN, WORD_COUNT };

static enum word word_of(const struct run *t)
{
    static const char *const words[WORD_COUNT] = {"sent", "failed", "unknown", "never", "not_begun"};
    for (int i = 0; i < WORD_COUNT; i++)
        if (sl_str_eq_c(t->ev->reason, words[i]))
            return (enum word)i;
    return WORD_UNKNOWN;
}

static void land(struct run *t, struct gw_line *line)
{
    fx_changed(t->fx, line);
    line->is_flying = 0;
    gw_lane_land(t->lane, sl_str_c(line->s.id));
}

/* The word on the try that is in flight. */
static void on_word(struct run *t, enum word word)
{
    struct pair *p = &t->own;
    bool was_asking = p->send->state == SEND_ASKING;
    fx_changed(t->fx, p->send);
    land(t, p->line);
    switch (word) {
    case WORD_SENT:
        breaker_counts(t, false);
        is_sent(t, p);
        return;
    case WORD_FAILED:
        breaker_counts(t, has_hint(t, "account") || has_hint(t, "retry"));
        is_failed(t, p);
        return;
    case WORD_UNKNOWN:
        breaker_counts(t, true);
        because(p->send, t->ev->code, t->ev->text);
        if (was_asking)
            is_unasked(t, p);
        else
            is_unknown(t, p, t->next);
        return;
    case WORD_NEVER:
        breaker_counts(t, false);
        go(t, p->send, SEND_QUEUED);
        line_is_ready(t, p->line, p->send);
        return;
    case WORD_NOT_BEGUN:
        is_not_begun(t, p, was_asking);
        return;
    case WORD_COUNT:
        break;
    }
}

/* Nobody waits for this word any more, but it settles what was unknown. */
static void on_late_word(struct run *t, enum word word)
{
    struct gw_send *x = t->own.send;
    if (x->state == SEND_GRACE && t->own.line != NULL && (word == WORD_SENT || word == WORD_FAILED)) {
        fx_timer_clear(t->fx, sl_str_c(t->own.line->s.id), "retry", t->own.line->wait_gen);
        t->own.line->wait_gen = 0;
        fx_changed(t->fx, t->own.line);
        if (word == WORD_SENT)
            is_sent(t, &t->own);
        else
            is_failed(t, &t->own);
        return;
    }
    bool is_whole = x->parts <= 1 && t->ev->capacity <= 1;
    if (x->state != SEND_UNKNOWN || !is_whole || (word != WORD_SENT && word != WORD_FAILED)) {
        refuse(t, "stale");
        return;
    }
    fx_changed(t->fx, x);
    because(x, t->ev->code, t->ev->text);
    if (word == WORD_SENT)
        learn_ids(t, x);
    if (x->remote != NULL)
        keep(t, x); /* a second time: what is forgotten with it were not its ids yet */
    t->lane->unknown--;
    go(t, x, word == WORD_SENT ? judged(x) : SEND_FAILED);
}

static void on_settled(struct run *t)
{
    const struct gw_send *x = t->own.send;
    if (x == NULL || !x->s.exists || x->attempt != t->ev->gen || x->part != t->ev->number) {
        refuse(t, "stale");
        return;
    }
    bool is_flying = x->state == SEND_SENDING || x->state == SEND_ASKING;
    if (is_flying && t->own.line != NULL && t->own.line->is_flying)
        on_word(t, word_of(t));
    else
        on_late_word(t, word_of(t));
}

/* ---- receipts ---- */

static int64_t rank_of(struct sl_str word)
{
    static const char *const words[] = {"sent", "delivered", "read", "failed"};
    for (int i = 0; i < 4; i++)
        if (sl_str_eq_c(word, words[i]))
            return i;
    return -1;
}

static void early_receipt(struct run *t, struct gw_pid *pid, int64_t rank)
{
    struct gw_lane *l = t->lane;
    bool is_new = !pid->s.exists;
    if (is_new && l->early >= LANE_EARLY_MAX) {
        l->early_lost++;
        refuse(t, "too_many_early");
        return;
    }
    if (!is_new && (rank <= pid->rank || (rank == PID_FAILED && pid->rank != PID_SENT)))
        return;
    fx_changed(t->fx, pid);
    pid->rank = rank;
    if (rank == PID_FAILED) {
        gw_lane_set(&pid->code, shortened(t->ev->code, 64));
        gw_lane_set(&pid->words, shortened(t->ev->text, WORDS_MAX));
    }
    if (!is_new)
        return;
    l->early++;
    pid->gen = ++l->gen;
    fx_timer_set(t->fx, sl_str_c(pid->s.id), "early", pid->gen, t->now_ms + LANE_EARLY_MS);
}

static void on_receipt(struct run *t)
{
    int64_t rank = rank_of(t->ev->reason);
    struct gw_pid *pid = t->pid_count > 0 ? t->pid[0] : NULL;
    struct gw_send *x = t->own.send;
    if (pid == NULL || rank < 0) {
        refuse(t, "malformed");
        return;
    }
    if (pid->send == NULL) {
        early_receipt(t, pid, rank);
        return;
    }
    if (!x->s.exists || !receipt_counts(x, pid, rank)) {
        refuse(t, "no_news");
        return;
    }
    fx_changed(t->fx, pid);
    fx_changed(t->fx, x);
    if (rank == PID_FAILED)
        because(x, t->ev->code, t->ev->text);
    bool is_ended = x->state == SEND_SENT || x->state == SEND_DELIVERED || x->state == SEND_READ;
    enum gw_send_state now = judged(x);
    if (is_ended && now != x->state)
        go(t, x, now);
}

/* ---- messages ---- */

static void fill(struct run *t, struct gw_send *x)
{
    const struct event *ev = t->ev;
    fx_changed(t->fx, x);
    x->state = SEND_QUEUED;
    x->at_ms = ev->at_ms != 0 ? ev->at_ms : t->now_ms;
    x->priority = ev->priority;
    x->part = x->parts = 1;
    gw_lane_set(&x->id, ev->id);
    gw_lane_set(&x->addr, ev->addr);
    gw_lane_set(&x->by, ev->name);
    gw_lane_set(&x->kind, ev->kind);
    gw_lane_set(&x->text, ev->text);
    gw_lane_set(&x->data, ev->data);
    gw_lane_set(&x->context, ev->context);
    gw_lane_set(&x->trace, ev->trace);
    gw_lane_set(&x->channel, ev->channel);
}

static void on_send(struct run *t)
{
    struct gw_lane *l = t->lane;
    char name[KEY_MAX_BYTES];
    if (t->own.line == NULL || t->ev->number <= 0) {
        refuse(t, "malformed");
        return;
    }
    struct gw_line *line = t->own.line;
    struct gw_send *x = fx_blank(t->fx, &gw_send_kind, send_name(t->ev->conv, t->ev->number, name));
    fill(t, x);
    if (line->count >= LANE_LINE_MAX || l->queued >= LANE_QUEUE_MAX) {
        because(x, SL_STR("queue_full"), SL_STR("Too many messages wait to be sent."));
        drop_content(x);
        go(t, x, SEND_FAILED);
        keep(t, x);
        return;
    }
    l->queued++;
    fx_changed(t->fx, line);
    gw_line_push(line, t->ev->number);
    if (line->count == 1)
        is_ready(t, t->own.line, x);
}

/* ---- the owner ---- */

static int64_t number_in(const json_t *root, const char *name, int64_t least, int64_t most, int64_t fallback)
{
    int64_t n = sl_json_get_int(root, name, fallback);
    return n < least ? least : n > most ? most : n;
}

static void take_limits(struct run *t)
{
    struct gw_lane *l = t->lane;
    json_t *root = t->ev->data.len > 0 ? sl_json_parse(t->ev->data, NULL) : NULL; /* owned */
    if (root == NULL)
        return;
    l->policy = number_in(root, "policy", LANE_AT_MOST_ONCE, LANE_QUERYABLE, LANE_AT_MOST_ONCE);
    l->rate_per_s = number_in(root, "rate", 0, 100000, 0);
    l->burst = number_in(root, "burst", 1, 100000, 10);
    l->window = number_in(root, "window", 1, LANE_WINDOW_MAX, 10);
    l->tries_max = number_in(root, "tries", 1, 100, 5);
    l->deadline_ms = number_in(root, "deadline_ms", 1000, 30 * (int64_t)86400000, 3600000);
    l->grace_ms = number_in(root, "grace_ms", 0, 3600000, 30000);
    l->keep_ms = number_in(root, "keep_ms", 1000, 30 * (int64_t)86400000, 259200000);
    gw_lane_set(&l->hash, t->ev->hash);
    json_decref(root);
}

/* What an owner that is gone had in flight: it may have been sent. A query that was out is simply asked again. */
static void take_over(struct run *t)
{
    struct gw_lane *l = t->lane;
    int64_t epoch = sl_mutant("lane-forget-epoch") ? 0 : fx_epoch(t->fx);
    for (size_t i = 0; i < t->taken_count; i++) {
        struct pair *p = &t->taken[i];
        land(t, p->line);
        if (p->send == NULL || !p->send->s.exists)
            continue;
        if (p->send->state == SEND_ASKING)
            line_is_ready(t, p->line, p->send);
        else
            is_unknown(t, p, NULL);
    }
    for (size_t i = 0; i < l->flying_count; i++) {
        if (l->flying[i].epoch >= epoch)
            continue;
        l->takeover_gen = ++l->gen;
        fx_timer_set(t->fx, LANE_ID, "takeover", l->takeover_gen, t->now_ms);
        return;
    }
    if (l->breaker == LANE_PROBING && l->flying_count == 0)
        l->breaker = LANE_OPEN; /* the probe went with its owner */
}

static void on_lane(struct run *t)
{
    struct gw_lane *l = t->lane;
    take_limits(t);
    if (l->idle_ms > 0) { /* the adapter is there again, or another is */
        l->idle_ms = 0;
        if (l->breaker == LANE_CLOSED)
            l->pause_ms = 0;
    }
    take_over(t);
}

/* ---- timers ---- */

static void on_retry(struct run *t)
{
    struct gw_line *line = t->own.line;
    if (line == NULL || t->ev->gen == 0 || t->ev->gen != line->wait_gen)
        return;
    fx_changed(t->fx, line);
    line->wait_gen = 0;
    if (t->own.send == NULL || !t->own.send->s.exists)
        return;
    if (t->own.send->state != SEND_ASKING)
        go(t, t->own.send, SEND_QUEUED);
    is_ready(t, line, t->own.send);
}

static void on_early_end(struct run *t)
{
    struct gw_pid *pid = t->pid[0];
    if (!pid->s.exists || pid->send != NULL || pid->gen != t->ev->gen)
        return;
    t->lane->early--;
    t->lane->early_lost++;
    refuse(t, "never_sent_by_us");
    fx_delete(t->fx, pid);
}

static void on_sweep(struct run *t)
{
    struct gw_lane *l = t->lane;
    char name[NAME_BYTES];
    for (size_t i = 0; i < t->swept->count; i++) {
        struct sl_str rest = sl_str_c(t->swept->item[i]), send = cut_id(&rest);
        fx_drop(t->fx, &gw_send_kind, send);
        while (rest.len > 0)
            fx_drop(t->fx, &gw_pid_kind, cut_id(&rest));
    }
    l->kept -= (int64_t)t->swept->count;
    if (sl_str_eq(t->ev->conv, shelf_name("done", l->first_done, name)))
        l->first_done++;
    bool is_open = sl_str_eq(t->ev->conv, shelf_name("done", l->last_done, name));
    if (t->swept->s.exists)
        fx_delete(t->fx, t->swept);
    if (is_open)
        t->done = fx_blank(t->fx, &gw_shelf_kind, shelf_name("done", ++l->last_done, name));
}

static void on_timer(struct run *t)
{
    if (is_timer(t, "retry"))
        on_retry(t);
    else if (is_timer(t, "early"))
        on_early_end(t);
    else if (is_timer(t, "sweep"))
        on_sweep(t);
    else if (is_timer(t, "takeover") && t->ev->gen == t->lane->takeover_gen)
        take_over(t);
    else if (is_timer(t, "go") && t->ev->gen == t->lane->go_gen)
        t->lane->go_gen = 0;
}

/* ---- the machinery's side ---- */

static void lane_step(struct effects *fx, const struct event *ev, int64_t now_ms)
{
    struct run t = {.fx = fx, .ev = ev, .now_ms = now_ms};
    if (!load(&t))
        return;
    fx_changed(fx, t.lane);
    count_tokens(&t);
    if (ev->type == EVENT_SEND)
        on_send(&t);
    else if (ev->type == EVENT_SETTLED)
        on_settled(&t);
    else if (ev->type == EVENT_RECEIPT)
        on_receipt(&t);
    else if (ev->type == EVENT_LANE)
        on_lane(&t);
    else if (ev->type == EVENT_TIMER)
        on_timer(&t);
    else
        refuse(&t, "not_for_lanes");
    start_ready(&t);
    arm_go(&t);
}

static const char *timer_name(struct sl_str word)
{
    static const char *const names[] = {"go", "takeover", "retry", "early", "sweep"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (sl_str_eq_c(word, names[i]))
            return names[i];
    return NULL;
}

/* A message that cannot be processed fails where people see it; a word that cannot be processed leaves its try unknown, or its
 * conversation would wait for ever; a deadline is set again. */
static void lane_bury(struct effects *fx, const struct event *ev, struct sl_str reason, int64_t now_ms)
{
    struct run t = {.fx = fx, .ev = ev, .now_ms = now_ms};
    if (!load(&t))
        return;
    fx_changed(fx, t.lane);
    const char *timer = ev->type == EVENT_TIMER ? timer_name(ev->name) : NULL;
    if (ev->type == EVENT_SETTLED && t.own.line != NULL && t.own.line->is_flying && t.own.send != NULL) {
        on_word(&t, WORD_UNKNOWN);
    } else if (timer != NULL) {
        fx_timer_set(fx, ev->conv, timer, ev->gen, now_ms + BACK_OFF_MAX_MS / 10);
    } else if (ev->type == EVENT_SEND && t.own.line != NULL) {
        struct gw_send lost = {.state = SEND_FAILED};
        char name[KEY_MAX_BYTES];
        (void)send_name(ev->conv, ev->number, name);
        lost.s.id = name;
        gw_lane_set(&lost.id, ev->id);
        because(&lost, SL_STR("dead"), reason);
        tell(&t, &lost);
        gw_send_kind.fini(&lost.s);
    }
}

const struct part_ops gw_lane_ops = {.name = "lane", .step = lane_step, .bury = lane_bury};
