/* gateway/lane_queue.c - the two ready queues of a lane, what ends, what starts. */
#include "gateway/lane_priv.h"

#include "base/fault.h"

#include <inttypes.h>

#define DONE_OPEN_MS      3600000
#define TOKEN_WAIT_MAX_MS 50

/* ---- ready queues ---- */

static void ready_push(struct gw_lane_run *t, struct gw_line *line, int band)
{
    struct gw_lane *l = t->lane;
    struct gw_shelf *shelf = t->last[band];
    char name[LANE_NAME_BYTES];
    if (shelf->count >= LANE_SHELF) {
        shelf = fx_blank(t->fx, &gw_shelf_kind,
                         gw_lane_shelf_name(gw_lane_bands[band], ++*gw_lane_last_of(l, band), name));
        t->last[band] = shelf;
    }
    fx_changed(t->fx, shelf);
    gw_shelf_push(shelf, sl_str_c(line->s.id));
    ++*gw_lane_count_of(l, band);
    fx_changed(t->fx, line);
    line->ready = 1 + band;
}

/* The first item; the next shelf, when there is one, was loaded with what may start. */
static void ready_pop(struct gw_lane_run *t, int band)
{
    struct gw_lane *l = t->lane;
    struct gw_shelf *shelf = t->first[band];
    fx_changed(t->fx, shelf);
    gw_shelf_pop(shelf);
    --*gw_lane_count_of(l, band);
    if (shelf->count > 0)
        return;
    fx_delete(t->fx, shelf);
    if (*gw_lane_first_of(l, band) == *gw_lane_last_of(l, band))
        return;
    ++*gw_lane_first_of(l, band);
    t->first[band] = NULL;
    if (*gw_lane_first_of(l, band) == *gw_lane_last_of(l, band))
        t->first[band] = t->last[band];
}

static int band_of_send(const struct gw_send *x)
{
    return x->priority < 0 ? 1 : 0;
}

/* A conversation whose first message may go takes its place in the queue of its band. */
void gw_lane_line_is_ready(struct gw_lane_run *t, struct gw_line *line, const struct gw_send *first)
{
    if (line->ready == 0)
        ready_push(t, line, first != NULL ? band_of_send(first) : 0);
}

/* ---- outcomes ---- */

static void tell(struct gw_lane_run *t, const struct gw_send *x, const char *state, struct sl_str code,
                 struct sl_str words)
{
    struct sl_str conv = gw_lane_conv_of(sl_str_c(x->s.id));
    char tag[KEY_TAG_MAX_BYTES];
    if (key_conversation_tag(tag, conv) != SL_OK)
        return;
    struct key in = key_in(tag);
    fx_fact(t->fx, key_str(&in),
            &(struct event){.type = EVENT_OUTCOME,
                            .conv = conv,
                            .id = gw_lane_str(x->id),
                            .number = gw_lane_number_of(x),
                            .reason = sl_str_c(state),
                            .code = code,
                            .text = words});
}

void gw_lane_tell(struct gw_lane_run *t, const struct gw_send *x)
{
    tell(t, x, gw_send_state_name(x->state), gw_lane_str(x->code), gw_lane_str(x->words));
}

void gw_lane_tell_waiting(struct gw_lane_run *t, struct gw_send *x, int64_t after_ms)
{
    const struct gw_lane *l = t->lane;
    bool is_down = l->idle_ms >= LANE_IDLE_MAX_MS;
    int64_t pause_ms = l->pause_ms - t->now_ms;
    after_ms = pause_ms > after_ms ? pause_ms : after_ms;
    if (x->is_told || (after_ms < LANE_TOLD_MS && l->breaker == LANE_CLOSED && !is_down))
        return;
    x->is_told = 1;
    fx_changed(t->fx, x);
    if (x->words != NULL || x->code != NULL)
        tell(t, x, "waiting", gw_lane_str(x->code), gw_lane_str(x->words));
    else if (is_down)
        tell(t, x, "waiting", SL_STR("not_connected"), SL_STR_NONE);
    else
        tell(t, x, "waiting", gw_lane_str(l->error_code), gw_lane_str(l->error_words));
}

void gw_lane_because(struct gw_send *x, struct sl_str code, struct sl_str words)
{
    gw_lane_set(&x->code, gw_lane_shortened(code, 64));
    gw_lane_set(&x->words, gw_lane_shortened(words, LANE_WORDS_MAX));
}

bool gw_lane_is_half_sent(const struct gw_send *x)
{
    return x->part > 1 || x->done != NULL;
}

/* A message that ends half sent says so to the agent, before the provider's reason. */
void gw_lane_say_how_far(struct gw_send *x)
{
    struct sl_buf words;
    if (x->part <= 1)
        return; /* of pieces its adapter speaks */
    sl_buf_init(&words, 0);
    sl_buf_printf(&words,
                  "客户只收到前 %" PRId64 " 段，共 %" PRId64 " 段 (sent: %" PRId64 " of %" PRId64 " parts)",
                  x->part - 1, x->parts, x->part - 1, x->parts);
    if (x->words != NULL)
        sl_buf_printf(&words, ": %s", x->words);
    gw_lane_set(&x->words, gw_lane_shortened(sl_buf_view(&words), LANE_WORDS_MAX));
    sl_buf_fini(&words);
}

/* Kept for receipts, together with others that ended about now. */
void gw_lane_keep(struct gw_lane_run *t, const struct gw_send *x)
{
    struct gw_lane *l = t->lane;
    struct sl_buf item;
    char name[LANE_NAME_BYTES];
    bool is_over = t->done->count > 0 && t->now_ms - l->done_since_ms > DONE_OPEN_MS;
    if (t->done->count >= LANE_SHELF || is_over) {
        if (l->kept > LANE_KEPT_MAX && l->first_done < l->last_done)
            fx_timer_set(t->fx, gw_lane_shelf_name("done", l->first_done, name), "sweep", 1, t->now_ms);
        t->done = fx_blank(t->fx, &gw_shelf_kind, gw_lane_shelf_name("done", ++l->last_done, name));
    }
    if (t->done->count == 0) {
        l->done_since_ms = t->now_ms;
        fx_timer_set(t->fx, gw_lane_shelf_name("done", l->last_done, name), "sweep", 1,
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
void gw_lane_drop_content(struct gw_send *x)
{
    gw_lane_set(&x->text, SL_STR_NONE);
    gw_lane_set(&x->data, SL_STR_NONE);
    gw_lane_set(&x->context, SL_STR_NONE);
    gw_lane_set(&x->done, SL_STR_NONE);
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

void gw_lane_go(struct gw_lane_run *t, struct gw_send *x, enum gw_send_state to)
{
    int64_t *total = total_of(t->lane, to);
    fx_changed(t->fx, x);
    x->state = to;
    if (total == NULL)
        return;
    ++*total;
    gw_lane_tell(t, x);
}

/* Out of the line; the conversation's next message may go. */
static void leave_line(struct gw_lane_run *t, struct gw_line *line, struct gw_send *next)
{
    gw_line_pop(line);
    fx_changed(t->fx, line);
    t->lane->queued--;
    if (line->count > 0)
        gw_lane_is_ready(t, line, next);
    else if (line->ready == 0)
        fx_delete(t->fx, line);
}

/* What may have been taken in an earlier try has not failed, whatever became of the last one. */
void gw_lane_end(struct gw_lane_run *t, struct gw_lane_pair *p, struct gw_send *next, enum gw_send_state to)
{
    if (to == SEND_FAILED && p->send->doubts > 0 && !sl_mutant("lane-forget-doubts"))
        to = SEND_UNKNOWN;
    gw_lane_drop_content(p->send);
    gw_lane_go(t, p->send, to);
    gw_lane_keep(t, p->send);
    leave_line(t, p->line, next);
}

/* ---- beginning ---- */

void gw_lane_count_tokens(struct gw_lane_run *t)
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

static bool may_start(const struct gw_lane_run *t)
{
    const struct gw_lane *l = t->lane;
    return (int64_t)l->flying_count < l->window && l->pause_ms <= t->now_ms && l->breaker != LANE_PROBING &&
           (l->rate_per_s == 0 || l->milli_tokens >= 1000);
}

static void deed(struct gw_lane_run *t, const struct gw_send *x, enum event_type type)
{
    char key[LANE_KEY_BYTES];
    struct sl_str remote = gw_lane_str(x->remote);
    size_t before = (size_t)x->before < remote.len ? (size_t)x->before : remote.len;
    before += before > 0 && before < remote.len; /* the comma */
    gw_lane_key(fx_tag(t->fx), sl_str_c(x->s.id), x->part, key);
    fx_do(t->fx, &(struct event){.type = type,
                                 .conv = sl_str_c(x->s.id),
                                 .addr = gw_lane_str(x->addr),
                                 .id = gw_lane_str(x->id),
                                 .number = x->part,
                                 .capacity = x->parts,
                                 .ticket = x->most,
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
                                 .done = gw_lane_str(x->done),
                                 .remote = sl_str_n(remote.ptr + before, remote.len - before)});
}

static void take_off(struct gw_lane_run *t, struct gw_lane_pair *p, enum gw_send_state to)
{
    struct gw_lane *l = t->lane;
    p->send->attempt++;
    p->send->epoch = fx_epoch(t->fx);
    gw_lane_go(t, p->send, to);
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
static void start(struct gw_lane_run *t, struct gw_lane_pair *p)
{
    struct gw_send *x = p->send;
    int64_t times = gw_lane_is_half_sent(x) ? LANE_HALF_TIMES : 1;
    bool is_late = t->now_ms > x->at_ms + times * t->lane->deadline_ms && x->state != SEND_ASKING;
    if (is_late) {
        if (x->words == NULL)
            gw_lane_because(x, SL_STR("too_late"), SL_STR("It waited longer than send_deadline allows."));
        gw_lane_say_how_far(x);
        gw_lane_end(t, p, NULL, SEND_FAILED);
        return;
    }
    take_off(t, p, x->state == SEND_ASKING ? SEND_ASKING : SEND_SENDING);
}

static bool is_startable(const struct gw_lane_pair *p)
{
    return p->line->count > 0 && p->send != NULL && p->send->s.exists && !p->line->is_flying &&
           p->line->wait_gen == 0;
}

/* What gw_lane_load() gathered, in its order; entries that another event has overtaken are passed. */
void gw_lane_start_ready(struct gw_lane_run *t)
{
    for (size_t i = 0; i < t->start_count && may_start(t); i++) {
        struct gw_lane_pair *p = &t->may_start[i];
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
void gw_lane_is_ready(struct gw_lane_run *t, struct gw_line *line, struct gw_send *first)
{
    struct gw_lane_pair p = {.line = line, .send = first};
    if (t->lane->replies + t->lane->bulk == 0 && line->ready == 0 && is_startable(&p) && may_start(t))
        start(t, &p);
    else
        gw_lane_line_is_ready(t, line, first);
}

/* When will something be able to start that cannot now? Ends of flights need no timer. */
static int64_t next_go_ms(const struct gw_lane_run *t)
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

void gw_lane_arm_go(struct gw_lane_run *t)
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
