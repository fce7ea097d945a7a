/* gateway/lane.c - step() of a delivery lane. Read lane.h first, then lane_step() at the end.
 *
 * Every event runs in two halves: gw_lane_load() asks for all states that it may need and returns when one is not at hand; what
 * follows changes them. What may start besides is gathered there, too: the first few of the ready queues (lane_queue.c).
 */
#include "gateway/lane_priv.h"

#include "base/fault.h"

#define BACK_OFF_MIN_MS 1000 /* full jitter between 1 s and 2^tries s ... */
#define BACK_OFF_MAX_MS 900000
#define IDLE_MIN_MS     250 /* the adapter took nothing: not connected, or too much at once */
#define BREAKER_ROW     10  /* failures of account or transport in a row, ... */
#define BREAKER_RECENT  20  /* ... or more than half of so many */
#define BREAKER_MIN_MS  5000
#define BREAKER_MAX_MS  300000
#define ASK_MAX         5 /* queries without an answer, then the outcome stays unknown */

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

static void wait_for(struct gw_lane_run *t, struct gw_lane_pair *p, enum gw_send_state state,
                     int64_t after_ms)
{
    gw_lane_go(t, p->send, state);
    fx_changed(t->fx, p->line);
    p->line->wait_gen = ++t->lane->gen;
    fx_timer_set(t->fx, sl_str_c(p->line->s.id), "retry", p->line->wait_gen, t->now_ms + after_ms);
}

static void pause_lane(struct gw_lane_run *t, int64_t after_ms)
{
    if (t->now_ms + after_ms > t->lane->pause_ms)
        t->lane->pause_ms = t->now_ms + after_ms;
}

/* ---- the breaker ---- */

static void breaker_opens(struct gw_lane_run *t)
{
    struct gw_lane *l = t->lane;
    l->breaker_ms = l->breaker == LANE_CLOSED || l->breaker_ms == 0 ? BREAKER_MIN_MS : 2 * l->breaker_ms;
    if (l->breaker_ms > BREAKER_MAX_MS)
        l->breaker_ms = BREAKER_MAX_MS;
    l->breaker = LANE_OPEN;
    l->recent = l->recent_count = 0;
    pause_lane(t, l->breaker_ms);
}

static void breaker_counts(struct gw_lane_run *t, bool is_bad)
{
    struct gw_lane *l = t->lane;
    l->failures = is_bad ? l->failures + 1 : 0;
    l->recent = (l->recent << 1 | (is_bad ? 1 : 0)) & ((1 << BREAKER_RECENT) - 1);
    l->recent_count = l->recent_count < BREAKER_RECENT ? l->recent_count + 1 : BREAKER_RECENT;
    if (is_bad) { /* for who looks at the lane: operators, and agents whose messages wait behind it */
        gw_lane_set(&l->error_code, gw_lane_shortened(t->ev->code, 64));
        gw_lane_set(&l->error_words, gw_lane_shortened(t->ev->text, LANE_WORDS_MAX));
        l->error_ms = t->now_ms;
    } else {
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

static bool has_hint(const struct gw_lane_run *t, const char *word)
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

static void pid_belongs(struct gw_lane_run *t, struct gw_send *x, struct gw_pid *pid)
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
        gw_lane_because(x, gw_lane_str(pid->code), gw_lane_str(pid->words));
    gw_lane_set(&pid->code, SL_STR_NONE);
    gw_lane_set(&pid->words, SL_STR_NONE);
}

static bool is_among(struct sl_str id, struct sl_str ids)
{
    while (ids.len > 0)
        if (sl_str_eq(id, gw_lane_cut_id(&ids)))
            return true;
    return false;
}

/* The provider's ids of what it just took. One that it gives twice is one. */
static void learn_ids(struct gw_lane_run *t, struct gw_send *x)
{
    char name[LANE_KEY_BYTES + 2];
    struct sl_str rest = t->ev->remote;
    struct sl_buf all;
    sl_buf_init(&all, 0);
    sl_buf_str(&all, gw_lane_str(x->remote));
    for (size_t i = 0; rest.len > 0 && x->ids < LANE_IDS_MAX && i < LANE_IDS_MAX;) {
        struct sl_str id = gw_lane_cut_id(&rest);
        if (id.len == 0)
            continue;
        size_t at = i++;
        if (is_among(gw_lane_pid_name(id, name), sl_buf_view(&all)))
            continue; /* known, with what receipts said of it */
        struct gw_pid *pid =
            at < t->pid_count ? t->pid[at] : fx_blank(t->fx, &gw_pid_kind, gw_lane_pid_name(id, name));
        if (all.len > 0)
            sl_buf_char(&all, ',');
        sl_buf_c(&all, pid->s.id);
        x->ids++;
        pid_belongs(t, x, pid);
    }
    gw_lane_set(&x->remote, sl_buf_view(&all));
    sl_buf_fini(&all);
}

/* A try that did not succeed may have brought some pieces of its part to the provider: the next one is told. */
static void learn_pieces(struct gw_lane_run *t, struct gw_send *x)
{
    fx_changed(t->fx, x);
    learn_ids(t, x);
    if (t->ev->done.len > 0 && t->ev->done.len <= LANE_DONE_MAX && !sl_mutant("lane-forget-pieces"))
        gw_lane_set(&x->done, t->ev->done);
    if (t->ev->capacity > 0)
        x->parts = t->ev->capacity;
}

static void is_sent(struct gw_lane_run *t, struct gw_lane_pair *p)
{
    struct gw_send *x = p->send;
    fx_changed(t->fx, x);
    learn_ids(t, x);
    gw_lane_set(&x->done, SL_STR_NONE);
    if (t->ev->capacity > 0)
        x->parts = t->ev->capacity;
    gw_lane_because(x, SL_STR_NONE, SL_STR_NONE);
    x->tries = x->doubts = 0;
    if (x->part >= x->parts || x->is_lost) {
        gw_lane_end(t, p, t->next, judged(x));
        return;
    }
    x->part++;
    x->before = x->remote != NULL ? (int64_t)strlen(x->remote) : 0;
    gw_lane_go(t, x, SEND_QUEUED);
    gw_lane_is_ready(t, t->own.line, x);
}

static bool is_worth_another(const struct gw_lane_run *t, const struct gw_send *x)
{
    int64_t times = gw_lane_is_half_sent(x) ? LANE_HALF_TIMES : 1;
    return x->tries < t->lane->tries_max && t->now_ms <= x->at_ms + times * t->lane->deadline_ms;
}

static void fails(struct gw_lane_run *t, struct gw_lane_pair *p)
{
    gw_lane_say_how_far(p->send);
    gw_lane_end(t, p, t->next, SEND_FAILED);
}

static void is_failed(struct gw_lane_run *t, struct gw_lane_pair *p)
{
    struct gw_send *x = p->send;
    bool is_account = has_hint(t, "account");
    int64_t after_ms =
        back_off_ms(sl_str_c(x->s.id), x->attempt, is_account ? t->lane->failures : x->tries + 1);
    if (t->ev->wait_ms > after_ms)
        after_ms = t->ev->wait_ms;
    learn_pieces(t, x);
    if (sl_mutant("lane-forget-parts"))
        x->part = 1;
    gw_lane_because(x, t->ev->code, t->ev->text);
    if (!has_hint(t, "retry")) {
        fails(t, p);
        return;
    }
    t->lane->retried++;
    if (is_account) { /* the message did nothing wrong: the account waits, and it keeps its tries */
        pause_lane(t, after_ms);
        gw_lane_tell_waiting(t, x, after_ms);
        gw_lane_go(t, x, SEND_QUEUED);
        gw_lane_line_is_ready(t, p->line, x);
        return;
    }
    x->tries++;
    if (!is_worth_another(t, x)) {
        fails(t, p);
        return;
    }
    gw_lane_tell_waiting(t, x, after_ms);
    wait_for(t, p, SEND_WAITING, after_ms);
}

static void stays_unknown(struct gw_lane_run *t, struct gw_lane_pair *p, struct gw_send *next)
{
    if (p->send->words == NULL)
        gw_lane_because(p->send, SL_STR("unknown"), SL_STR("Nobody can say whether it was sent."));
    gw_lane_end(t, p, next, SEND_UNKNOWN);
}

/* It may have been sent. What follows is the inbox's policy. */
static void is_unknown(struct gw_lane_run *t, struct gw_lane_pair *p, struct gw_send *next)
{
    struct gw_send *x = p->send;
    struct sl_str id = sl_str_c(x->s.id);
    enum gw_lane_policy policy = (enum gw_lane_policy)t->lane->policy;
    if (policy == LANE_AT_MOST_ONCE && sl_mutant("lane-retry-unknown"))
        policy = LANE_IDEMPOTENT;
    if (policy == LANE_QUERYABLE && sl_mutant("lane-send-unasked"))
        policy = LANE_IDEMPOTENT;
    fx_changed(t->fx, x);
    x->tries++;
    x->doubts++;
    x->doubted = x->attempt;
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
        gw_lane_go(t, x, policy == LANE_QUERYABLE ? SEND_ASKING : SEND_QUEUED);
        gw_lane_line_is_ready(t, p->line, x);
    }
}

/* A query found nothing out. */
static void is_unasked(struct gw_lane_run *t, struct gw_lane_pair *p)
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
static void is_not_begun(struct gw_lane_run *t, struct gw_lane_pair *p, bool was_asking)
{
    struct gw_lane *l = t->lane;
    l->idle_ms = l->idle_ms == 0 ? IDLE_MIN_MS : 2 * l->idle_ms;
    if (l->idle_ms > LANE_IDLE_MAX_MS)
        l->idle_ms = LANE_IDLE_MAX_MS;
    if (l->breaker == LANE_PROBING)
        l->breaker = LANE_OPEN;
    pause_lane(t, l->idle_ms);
    gw_lane_tell_waiting(t, p->send, l->idle_ms);
    gw_lane_go(t, p->send, was_asking ? SEND_ASKING : SEND_QUEUED);
    gw_lane_line_is_ready(t, p->line, p->send);
}

enum word { WORD_SENT, WORD_FAILED, WORD_UNKNOWN, WORD_NEVER, WORD_NOT_BEGUN, WORD_COUNT };

static enum word word_of(const struct gw_lane_run *t)
{
    static const char *const words[WORD_COUNT] = {"sent", "failed", "unknown", "never", "not_begun"};
    for (int i = 0; i < WORD_COUNT; i++)
        if (sl_str_eq_c(t->ev->reason, words[i]))
            return (enum word)i;
    return WORD_UNKNOWN;
}

static void land(struct gw_lane_run *t, struct gw_line *line)
{
    fx_changed(t->fx, line);
    line->is_flying = 0;
    gw_lane_land(t->lane, sl_str_c(line->s.id));
}

/* The word on the try that is in flight. */
static void on_word(struct gw_lane_run *t, enum word word)
{
    struct gw_lane_pair *p = &t->own;
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
        if (was_asking)
            p->send->doubts = 0; /* who was asked speaks of all tries */
        is_failed(t, p);
        return;
    case WORD_UNKNOWN:
        breaker_counts(t, true);
        gw_lane_because(p->send, t->ev->code, t->ev->text);
        if (was_asking) {
            is_unasked(t, p);
            return;
        }
        learn_pieces(t, p->send);
        is_unknown(t, p, t->next);
        return;
    case WORD_NEVER:
        breaker_counts(t, false);
        p->send->doubts = 0;
        gw_lane_go(t, p->send, SEND_QUEUED);
        gw_lane_line_is_ready(t, p->line, p->send);
        return;
    case WORD_NOT_BEGUN:
        is_not_begun(t, p, was_asking);
        return;
    case WORD_COUNT:
        break;
    }
}

/* The last try is unknown no more. False: it was not; the word was heard before. */
static bool is_doubt_ended(struct gw_send *x)
{
    if (x->doubted != x->attempt)
        return false;
    x->doubted = 0;
    x->doubts--;
    return true;
}

/* Nobody waits for this word any more, but it settles what was unknown. */
static void on_late_word(struct gw_lane_run *t, enum word word)
{
    struct gw_send *x = t->own.send;
    if (x->state == SEND_GRACE && t->own.line != NULL && (word == WORD_SENT || word == WORD_FAILED) &&
        is_doubt_ended(x)) {
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
    if (x->state != SEND_UNKNOWN || !is_whole || (word != WORD_SENT && word != WORD_FAILED) ||
        !is_doubt_ended(x)) {
        gw_lane_refuse(t, "stale");
        return;
    }
    fx_changed(t->fx, x);
    if (word == WORD_FAILED && x->doubts > 0)
        return; /* an earlier try may have been taken still */
    gw_lane_because(x, t->ev->code, t->ev->text);
    learn_ids(t, x);
    if (x->remote != NULL)
        gw_lane_keep(t, x); /* a second time: what is forgotten with it were not its ids yet */
    t->lane->unknown--;
    gw_lane_go(t, x, word == WORD_SENT ? judged(x) : SEND_FAILED);
}

static void on_settled(struct gw_lane_run *t)
{
    const struct gw_send *x = t->own.send;
    if (x == NULL || !x->s.exists || x->attempt != t->ev->gen || x->part != t->ev->number) {
        gw_lane_refuse(t, "stale");
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

static void early_receipt(struct gw_lane_run *t, struct gw_pid *pid, int64_t rank)
{
    struct gw_lane *l = t->lane;
    bool is_new = !pid->s.exists;
    if (is_new && l->early >= LANE_EARLY_MAX) {
        l->early_lost++;
        gw_lane_refuse(t, "too_many_early");
        return;
    }
    if (!is_new && (rank <= pid->rank || (rank == PID_FAILED && pid->rank != PID_SENT)))
        return;
    fx_changed(t->fx, pid);
    pid->rank = rank;
    if (rank == PID_FAILED) {
        gw_lane_set(&pid->code, gw_lane_shortened(t->ev->code, 64));
        gw_lane_set(&pid->words, gw_lane_shortened(t->ev->text, LANE_WORDS_MAX));
    }
    if (!is_new)
        return;
    l->early++;
    pid->gen = ++l->gen;
    fx_timer_set(t->fx, sl_str_c(pid->s.id), "early", pid->gen, t->now_ms + LANE_EARLY_MS);
}

static void on_receipt(struct gw_lane_run *t)
{
    int64_t rank = rank_of(t->ev->reason);
    struct gw_pid *pid = t->pid_count > 0 ? t->pid[0] : NULL;
    struct gw_send *x = t->own.send;
    if (pid == NULL || rank < 0) {
        gw_lane_refuse(t, "malformed");
        return;
    }
    if (pid->send == NULL) {
        early_receipt(t, pid, rank);
        return;
    }
    if (!x->s.exists || !receipt_counts(x, pid, rank)) {
        gw_lane_refuse(t, "no_news");
        return;
    }
    fx_changed(t->fx, pid);
    fx_changed(t->fx, x);
    if (rank == PID_FAILED)
        gw_lane_because(x, t->ev->code, t->ev->text);
    bool is_ended = x->state == SEND_SENT || x->state == SEND_DELIVERED || x->state == SEND_READ;
    enum gw_send_state now = judged(x);
    if (is_ended && now != x->state)
        gw_lane_go(t, x, now);
}

/* ---- messages ---- */

static void fill(struct gw_lane_run *t, struct gw_send *x)
{
    const struct event *ev = t->ev;
    fx_changed(t->fx, x);
    x->state = SEND_QUEUED;
    x->at_ms = ev->at_ms != 0 ? ev->at_ms : t->now_ms;
    x->priority = ev->priority;
    x->part = x->parts = 1;
    x->most = ev->capacity > 0 ? ev->capacity : 0;
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

static void on_send(struct gw_lane_run *t)
{
    struct gw_lane *l = t->lane;
    char name[KEY_MAX_BYTES];
    if (t->own.line == NULL || t->ev->number <= 0) {
        gw_lane_refuse(t, "malformed");
        return;
    }
    struct gw_line *line = t->own.line;
    struct gw_send *x = fx_blank(t->fx, &gw_send_kind, gw_lane_send_name(t->ev->conv, t->ev->number, name));
    fill(t, x);
    if (line->count >= LANE_LINE_MAX || l->queued >= LANE_QUEUE_MAX) {
        gw_lane_because(x, SL_STR("queue_full"), SL_STR("Too many messages wait to be sent."));
        gw_lane_drop_content(x);
        gw_lane_go(t, x, SEND_FAILED);
        gw_lane_keep(t, x);
        return;
    }
    l->queued++;
    gw_lane_tell_waiting(t, x, 0);
    fx_changed(t->fx, line);
    gw_line_push(line, t->ev->number);
    if (line->count == 1)
        gw_lane_is_ready(t, t->own.line, x);
}

/* ---- the owner ---- */

static int64_t number_in(const json_t *root, const char *name, int64_t least, int64_t most, int64_t fallback)
{
    int64_t n = sl_json_get_int(root, name, fallback);
    return n < least ? least : n > most ? most : n;
}

static void take_limits(struct gw_lane_run *t)
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
static void take_over(struct gw_lane_run *t)
{
    struct gw_lane *l = t->lane;
    int64_t epoch = sl_mutant("lane-forget-epoch") ? 0 : fx_epoch(t->fx);
    for (size_t i = 0; i < t->taken_count; i++) {
        struct gw_lane_pair *p = &t->taken[i];
        land(t, p->line);
        if (p->send == NULL || !p->send->s.exists)
            continue;
        if (p->send->state == SEND_ASKING)
            gw_lane_line_is_ready(t, p->line, p->send);
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

static void on_lane(struct gw_lane_run *t)
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

static void on_retry(struct gw_lane_run *t)
{
    struct gw_line *line = t->own.line;
    if (line == NULL || t->ev->gen == 0 || t->ev->gen != line->wait_gen)
        return;
    fx_changed(t->fx, line);
    line->wait_gen = 0;
    if (t->own.send == NULL || !t->own.send->s.exists)
        return;
    if (t->own.send->state != SEND_ASKING)
        gw_lane_go(t, t->own.send, SEND_QUEUED);
    gw_lane_is_ready(t, line, t->own.send);
}

static void on_early_end(struct gw_lane_run *t)
{
    struct gw_pid *pid = t->pid[0];
    if (!pid->s.exists || pid->send != NULL || pid->gen != t->ev->gen)
        return;
    t->lane->early--;
    t->lane->early_lost++;
    gw_lane_refuse(t, "never_sent_by_us");
    fx_delete(t->fx, pid);
}

static void on_sweep(struct gw_lane_run *t)
{
    struct gw_lane *l = t->lane;
    char name[LANE_NAME_BYTES];
    for (size_t i = 0; i < t->swept->count; i++) {
        struct sl_str rest = sl_str_c(t->swept->item[i]), send = gw_lane_cut_id(&rest);
        fx_drop(t->fx, &gw_send_kind, send);
        while (rest.len > 0)
            fx_drop(t->fx, &gw_pid_kind, gw_lane_cut_id(&rest));
    }
    l->kept -= (int64_t)t->swept->count;
    if (sl_str_eq(t->ev->conv, gw_lane_shelf_name("done", l->first_done, name)))
        l->first_done++;
    bool is_open = sl_str_eq(t->ev->conv, gw_lane_shelf_name("done", l->last_done, name));
    if (t->swept->s.exists)
        fx_delete(t->fx, t->swept);
    if (is_open)
        t->done = fx_blank(t->fx, &gw_shelf_kind, gw_lane_shelf_name("done", ++l->last_done, name));
}

static void on_timer(struct gw_lane_run *t)
{
    if (gw_lane_is_timer(t, "retry"))
        on_retry(t);
    else if (gw_lane_is_timer(t, "early"))
        on_early_end(t);
    else if (gw_lane_is_timer(t, "sweep"))
        on_sweep(t);
    else if (gw_lane_is_timer(t, "takeover") && t->ev->gen == t->lane->takeover_gen)
        take_over(t);
    else if (gw_lane_is_timer(t, "go") && t->ev->gen == t->lane->go_gen)
        t->lane->go_gen = 0;
}

/* ---- the machinery's side ---- */

static void lane_step(struct effects *fx, const struct event *ev, int64_t now_ms)
{
    struct gw_lane_run t = {.fx = fx, .ev = ev, .now_ms = now_ms};
    if (!gw_lane_load(&t))
        return;
    fx_changed(fx, t.lane);
    gw_lane_count_tokens(&t);
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
        gw_lane_refuse(&t, "not_for_lanes");
    gw_lane_start_ready(&t);
    gw_lane_arm_go(&t);
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
    struct gw_lane_run t = {.fx = fx, .ev = ev, .now_ms = now_ms};
    if (!gw_lane_load(&t))
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
        (void)gw_lane_send_name(ev->conv, ev->number, name);
        lost.s.id = name;
        gw_lane_set(&lost.id, ev->id);
        gw_lane_because(&lost, SL_STR("dead"), reason);
        gw_lane_tell(&t, &lost);
        gw_send_kind.fini(&lost.s);
    }
}

const struct part_ops gw_lane_ops = {.name = "lane", .step = lane_step, .bury = lane_bury};
