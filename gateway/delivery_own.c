/* gateway/delivery_own.c - which gateway owns which lane, what it tells the lane, and what it tells operators.
 *
 * A survey looks at the leases twice a second. Gateways with the same inboxes share the lanes evenly: whoever has too few takes what is free,
 * whoever has too many lets one go. Letting go is gentle: nothing begins any more, and the lease is given back when nothing is out, for
 * what is out at a takeover is unknown.
 */
#include "gateway/delivery_priv.h"

#include "gateway/lane.h"

#include "base/crypto.h"
#include "base/log.h"
#include "base/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define SURVEY_MS 500
#define ALIVE_MS                                                                                             \
    1500 /* a gateway silent for longer is not counted; its lanes are its own until their leases end */
#define TAIL_COUNT   128
#define CACHE_MAX    20000
#define HISTORY_KEEP 1 /* a lane has none */
#define STANDS_MS                                                                                            \
    30000 /* ready messages, nothing in the way, and nothing begun for so long: something is broken */

/* ---- ownership ---- */

static void hold(struct gw_sender *s, bool is_held)
{
    if (s->is_held == is_held)
        return;
    s->is_held = is_held;
    sl_log(SL_INFO, "delivery lane", SL_KV("inbox", s->box->inbox.name),
           SL_KV("is", is_held ? "held" : "not held"), SL_KV("run", s->d->run));
    if (!s->box->is_closed)
        chan_hold(s->box->inbox.ch, is_held);
}

static void on_part_changed(void *arg, struct part *p, enum part_state now, const struct sl_fail *why)
{
    struct gw_sender *s = arg;
    (void)p;
    if (now == PART_LOST && s->is_held)
        sl_log(SL_WARN, "a delivery lane was lost", SL_KV("inbox", s->box->inbox.name), SL_KV_FAIL(why));
    s->is_limits_told = s->is_telling = false;
    s->is_leaving = s->is_leaving && now == PART_RUNNING;
    hold(s, now == PART_RUNNING);
    gw_delivery_tell_limits(s);
}

static void on_part_appended(void *arg, struct part *p, sl_err err)
{
    struct gw_sender *s = arg;
    (void)p;
    s->is_telling = false;
    s->is_limits_told = s->is_limits_told && err == SL_OK;
}

/* The owner's first word: limits, and a step under its own lease epoch. Told again at the next survey when it failed. */
void gw_delivery_tell_limits(struct gw_sender *s)
{
    if (s->part == NULL || part_state_now(s->part) != PART_RUNNING || s->is_limits_told || s->is_telling)
        return;
    const struct event ev = {.type = EVENT_LANE, .hash = sl_str_c(s->hash), .data = sl_str_c(s->limits)};
    s->is_telling = s->is_limits_told = part_append(s->part, &ev) == SL_OK;
}

bool gw_delivery_is_held(const struct gw_sender *s)
{
    if (s->part == NULL)
        return false;
    enum part_state now = part_state_now(s->part);
    return now != PART_IDLE && now != PART_LOST;
}

static void acquire(struct gw_sender *s)
{
    if (s->part == NULL) {
        const struct part_config cfg = {.bus = s->d->gw->bus,
                                        .tail = s->d->tail,
                                        .run = sl_str_c(s->d->run),
                                        .lease_ms = s->d->lease_ms,
                                        .history_keep = HISTORY_KEEP,
                                        .cache_max = CACHE_MAX};
        const struct part_events events = {
            .changed = on_part_changed, .appended = on_part_appended, .deed = gw_delivery_on_deed};
        s->part = part_new(&cfg, s->tag, &gw_lane_ops, &events, s);
    }
    s->is_free = false;
    part_acquire(s->part);
}

static void survey_end(struct gw_delivery *d)
{
    d->is_surveying = false;
    if (!d->is_stopping)
        sl_timer_start(&d->survey, SURVEY_MS);
}

/* While the breaker is not closed a person should look: the account or the way to its provider is broken. */
static void alarm_of_breaker(struct gw_sender *s, const struct gw_lane *l)
{
    bool is_on = l != NULL && l->breaker != LANE_CLOSED;
    if (is_on == s->is_alarmed || s->box->is_closed)
        return;
    s->is_alarmed = is_on;
    char words[600];
    (void)snprintf(words, sizeof words,
                   "many messages in a row failed, the last one with \"%s %s\": sending pauses, and one "
                   "message at a time "
                   "tries again; mend that, `sluice lane show %s` tells more",
                   l != NULL && l->error_code != NULL ? l->error_code : "",
                   l != NULL && l->error_words != NULL ? l->error_words : "", s->box->inbox.name);
    gw_host.alarm(s->box->inbox.ch, "send_breaker", is_on, words);
}

/* Nothing is ready, or something is in the way that ends by itself. */
static bool is_free_to_stand(const struct gw_sender *s, const struct gw_lane *l)
{
    return l == NULL || part_state_now(s->part) != PART_RUNNING || s->is_leaving ||
           l->replies + l->bulk == 0 || l->flying_count > 0 || l->breaker != LANE_CLOSED ||
           l->pause_ms > s->d->store_now_ms;
}

static void write_gauges(struct gw_sender *s)
{
    const struct gw_lane *l = s->part != NULL ? part_peek(s->part, &gw_lane_kind, LANE_ID) : NULL;
    if (is_free_to_stand(s, l))
        s->moved_mono_ms = sl_loop_mono_ms(s->d->gw->loop);
    alarm_of_breaker(s, l);
    sl_gauge_set(s->held, s->is_held ? 1 : 0);
    sl_gauge_set(s->queued, l != NULL ? l->queued : 0);
    sl_gauge_set(s->flying, l != NULL ? (int64_t)l->flying_count : 0);
    sl_gauge_set(s->unknown, l != NULL ? l->unknown : 0);
    sl_gauge_set(s->early, l != NULL ? l->early : 0);
    sl_gauge_set(s->breaker, l != NULL ? l->breaker : 0);
    sl_gauge_set(s->kept, l != NULL ? l->kept : 0);
}

/* The oldest take one more each where the division leaves a rest, so that a newcomer changes little. */
static size_t share_of(const struct gw_delivery *d)
{
    size_t alive = d->alive > 0 ? d->alive : 1;
    return d->count / alive + (d->rank < d->count % alive ? 1 : 0);
}

void gw_delivery_go_if_done(struct gw_sender *s)
{
    if (!s->is_leaving || s->job_count > 0 || part_state_now(s->part) != PART_RUNNING ||
        part_has_deeds(s->part))
        return;
    sl_log(SL_INFO, "delivery lane is left to another gateway", SL_KV("inbox", s->box->inbox.name));
    s->is_leaving = false;
    part_release(s->part);
}

static void stay(struct gw_sender *s)
{
    s->is_leaving = false;
    gw_delivery_wake(s); /* what was not begun meanwhile may */
}

/* One at a time: the others are busy as ever. */
static void let_one_go(struct gw_delivery *d)
{
    for (size_t i = 0; i < d->count; i++)
        if (d->senders[i]->is_leaving)
            return;
    for (size_t i = 0; i < d->count; i++) {
        struct gw_sender *s = d->senders[i];
        if (s->part == NULL || part_state_now(s->part) != PART_RUNNING)
            continue;
        s->is_leaving = true;
        gw_delivery_go_if_done(s);
        return;
    }
}

static void take_share(struct gw_delivery *d)
{
    size_t share = share_of(d), held = 0;
    size_t start = (size_t)sl_str_hash(sl_str_c(d->run), 0) % d->count;
    for (size_t i = 0; i < d->count; i++) /* about to be let go does not count */
        held += gw_delivery_is_held(d->senders[i]) && part_state_now(d->senders[i]->part) != PART_RELEASING;
    for (size_t i = 0; i < d->count && held < share; i++) {
        struct gw_sender *s = d->senders[(start + i) % d->count];
        if (!s->is_free || gw_delivery_is_held(s))
            continue;
        acquire(s);
        held++;
    }
    for (size_t i = 0; i < d->count; i++) {
        if (!d->senders[i]->is_leaving)
            continue;
        if (held <= share)
            stay(d->senders[i]); /* another one went meanwhile */
        else
            gw_delivery_go_if_done(d->senders[i]);
    }
    if (held > share)
        let_one_go(d);
}

static void on_survey_done(struct gw_delivery *d, void *arg, sl_err err, const struct bus_value *v)
{
    (void)arg;
    (void)v;
    if (err == SL_OK && !d->is_stopping)
        take_share(d);
    for (size_t i = 0; i < d->count; i++) {
        gw_delivery_tell_limits(d->senders[i]);
        write_gauges(d->senders[i]);
    }
    survey_end(d);
}

static void on_lease_read(struct gw_delivery *d, void *arg, sl_err err, const struct bus_value *v)
{
    struct gw_sender *s = arg;
    struct sl_str run = bus_value_str(bus_value_at(v, 0));
    int64_t until = bus_value_int(bus_value_at(v, 1));
    s->is_free = err == SL_OK && (run.len == 0 || until <= d->store_now_ms || sl_str_eq_c(run, d->run));
}

static void read_leases(struct gw_delivery *d)
{
    for (size_t i = 0; i < d->count; i++) {
        struct gw_sender *s = d->senders[i];
        s->is_free = false;
        if (gw_delivery_is_held(s))
            continue;
        struct key meta = key_meta(s->tag);
        bus_args_clear(&d->args);
        bus_args_c(&d->args, "HMGET");
        bus_args_key(&d->args, &meta);
        bus_args_c(&d->args, "run");
        bus_args_c(&d->args, "until");
        (void)gw_delivery_ask(d, on_lease_read, s);
    }
    bus_args_clear(&d->args);
    bus_args_c(&d->args, "PING");
    if (!gw_delivery_ask(d, on_survey_done, NULL))
        survey_end(d);
}

static void on_registered(struct gw_delivery *d, void *arg, sl_err err, const struct bus_value *v)
{
    (void)arg;
    (void)v;
    if (err == SL_OK)
        read_leases(d);
    else
        survey_end(d);
}

/* Members are <run>/<group>. Runs are ULIDs: an earlier one began earlier. */
static void on_alive(struct gw_delivery *d, void *arg, sl_err err, const struct bus_value *v)
{
    (void)arg;
    if (err != SL_OK)
        return;
    d->alive = d->rank = 0;
    for (size_t i = 0; i < bus_value_count(v); i++) {
        struct sl_str member = bus_value_str(bus_value_at(v, i));
        if (member.len != SL_ULID_LEN + 1 + 16 || memcmp(member.ptr + SL_ULID_LEN + 1, d->group, 16) != 0)
            continue;
        d->alive++;
        d->rank += memcmp(member.ptr, d->run, SL_ULID_LEN) < 0;
    }
}

static void forget(struct gw_delivery *d, void *arg, sl_err err, const struct bus_value *v)
{
    (void)d;
    (void)arg;
    (void)err;
    (void)v;
}

static void name_myself(struct gw_delivery *d)
{
    char member[SL_ULID_LEN + 24];
    (void)snprintf(member, sizeof member, "%s/%s", d->run, d->group);
    bus_args_copy(&d->args, sl_str_c(member));
}

/* I am here; who else is? */
static void ask_who_is_alive(struct gw_delivery *d)
{
    bus_args_clear(&d->args);
    bus_args_c(&d->args, "ZADD");
    bus_args_c(&d->args, KEY_GATEWAYS);
    bus_args_int(&d->args, d->store_now_ms);
    name_myself(d);
    (void)gw_delivery_ask(d, forget, NULL);
    bus_args_clear(&d->args);
    bus_args_c(&d->args, "ZREMRANGEBYSCORE");
    bus_args_c(&d->args, KEY_GATEWAYS);
    bus_args_c(&d->args, "-inf");
    bus_args_int(&d->args, d->store_now_ms - 10 * ALIVE_MS);
    (void)gw_delivery_ask(d, forget, NULL);
    bus_args_clear(&d->args);
    bus_args_c(&d->args, "ZRANGEBYSCORE");
    bus_args_c(&d->args, KEY_GATEWAYS);
    bus_args_int(&d->args, d->store_now_ms - ALIVE_MS);
    bus_args_c(&d->args, "+inf");
    (void)gw_delivery_ask(d, on_alive, NULL);
}

/* On a clean stop: the others take over at once. */
void gw_delivery_leave(struct gw_delivery *d)
{
    if (d->count == 0 || !bus_is_ready(d->gw->bus))
        return;
    bus_args_clear(&d->args);
    bus_args_c(&d->args, "ZREM");
    bus_args_c(&d->args, KEY_GATEWAYS);
    name_myself(d);
    (void)gw_delivery_ask(d, forget, NULL);
}

static void on_time(struct gw_delivery *d, void *arg, sl_err err, const struct bus_value *v)
{
    (void)arg;
    if (err != SL_OK || d->is_stopping) {
        survey_end(d);
        return;
    }
    d->store_now_ms = bus_value_int(bus_value_at(v, 0)) * 1000 + bus_value_int(bus_value_at(v, 1)) / 1000;
    ask_who_is_alive(d);
    bus_args_clear(&d->args);
    bus_args_c(&d->args, "SADD");
    bus_args_c(&d->args, KEY_EXTRA);
    for (size_t i = 0; i < d->count; i++)
        bus_args_c(&d->args, d->senders[i]->tag);
    if (!gw_delivery_ask(d, on_registered, NULL))
        survey_end(d);
}

void gw_delivery_on_survey(void *arg)
{
    struct gw_delivery *d = arg;
    if (d->is_surveying || d->is_stopping || d->count == 0)
        return;
    if (!bus_is_ready(d->gw->bus)) {
        sl_timer_start(&d->survey, SURVEY_MS / 5);
        return;
    }
    if (d->tail == NULL)
        d->tail = bus_tail_open(d->gw->bus, TAIL_COUNT, part_on_entries, NULL);
    d->is_surveying = true;
    bus_args_clear(&d->args);
    bus_args_c(&d->args, "TIME");
    if (!gw_delivery_ask(d, on_time, NULL))
        survey_end(d);
}

/* ---- limits ---- */

static const char *const policies[] = {"at_most_once", "at_least_once", "idempotent", "queryable"};

static sl_err policy_of(const struct chan *ch, const struct sl_config *cfg, int *out, struct sl_fail *why)
{
    struct chan_limits limits;
    char key[CHAN_KEY_MAX];
    chan_limits(ch, &limits);
    chan_key(ch, "unknown", key);
    const char *word = sl_config_str(cfg, key);
    *out = (int)limits.unknown;
    for (int i = 0; word[0] != '\0'; i++) {
        if (i == 4)
            return sl_fail_set(why, SL_EINVAL, 0,
                               "%s: expected at_most_once, at_least_once, idempotent or queryable", key);
        if (strcmp(word, policies[i]) == 0) {
            *out = i;
            break;
        }
    }
    if (*out == LANE_QUERYABLE && chan_ops_of(ch)->query == NULL)
        return sl_fail_set(why, SL_EINVAL, 0, "%s: the channel %s cannot be asked what became of a message",
                           key, chan_ops_of(ch)->name);
    return SL_OK;
}

sl_err gw_delivery_check(const struct chan *ch, const struct sl_config *cfg, struct sl_fail *why)
{
    int policy;
    if (!(chan_ops_of(ch)->caps & CHAN_CAP_SEND))
        return SL_OK;
    if (strlen(chan_inbox(ch)) > KEY_LANE_INBOX_MAX_BYTES)
        return sl_fail_set(why, SL_EINVAL, 0, "inboxes.%s: the name has more than %d bytes", chan_inbox(ch),
                           KEY_LANE_INBOX_MAX_BYTES);
    return policy_of(ch, cfg, &policy, why);
}

static int64_t setting(const struct chan *ch, const struct sl_config *cfg, const char *name,
                       int64_t otherwise)
{
    char key[CHAN_KEY_MAX];
    chan_key(ch, name, key);
    int64_t n = sl_config_int(cfg, key);
    return n != 0 ? n : otherwise;
}

/* For conversations whose channel counts sends: what this inbox makes of a message. */
static void write_fit_word(struct gw_sender *s)
{
    static const char nobody[] = "0000000000000000000000000000000000000000000000000000000000000000";
    struct fit_limits l = gw_delivery_fit_limits(s->box->inbox.ch);
    struct sl_buf link;
    sl_buf_init(&link, FIT_LINK_MAX_BYTES);
    gw_host.media_link(s->box->inbox.ch, sl_str_c(nobody), SL_STR("x"), &link);
    fit_limits_write(&l, link.len > 0 && !link.overflow ? link.len - 1 : 0, s->fit_word);
    sl_buf_fini(&link);
}

struct sl_str gw_delivery_fit_word(const struct gw_sender *s)
{
    return sl_str_c(s->fit_word);
}

void gw_delivery_write_limits(struct gw_sender *s, const struct sl_config *cfg)
{
    const struct chan *ch = s->box->inbox.ch;
    struct chan_limits limits;
    struct sl_fail why;
    struct sl_buf out;
    struct sl_json j;
    unsigned char digest[32];
    char hex[65];
    int policy = LANE_AT_MOST_ONCE;
    chan_limits(ch, &limits);
    if (policy_of(ch, cfg, &policy, &why) != SL_OK) /* on reload only: at start it was checked */
        sl_log(SL_ERROR, "reload: outcomes that are unknown stay so", SL_KV_FAIL(&why));
    write_fit_word(s);
    int64_t rate = setting(ch, cfg, "send_rate", limits.rate_per_s);
    int64_t window = setting(ch, cfg, "send_window", limits.window > 0 ? limits.window : 10);
    sl_buf_init(&out, 0);
    sl_json_begin(&j, &out);
    sl_json_open(&j, NULL, '{');
    sl_json_int(&j, "policy", policy);
    sl_json_int(&j, "rate", rate);
    sl_json_int(&j, "burst", setting(ch, cfg, "send_burst", rate > 0 ? rate : 1));
    sl_json_int(&j, "window", window < LANE_WINDOW_MAX ? window : LANE_WINDOW_MAX);
    sl_json_int(&j, "tries", setting(ch, cfg, "send_tries", 5));
    sl_json_int(&j, "deadline_ms", setting(ch, cfg, "send_deadline", 3600000));
    sl_json_int(&j, "grace_ms", setting(ch, cfg, "send_grace", 0));
    sl_json_int(&j, "keep_ms", setting(ch, cfg, "send_keep", 259200000));
    sl_json_close(&j, '}');
    free(s->limits);
    s->limits = sl_str_dup(sl_buf_view(&out));
    sl_sha256(sl_buf_view(&out), digest);
    sl_hex(hex, digest, sizeof digest);
    memcpy(s->hash, hex, 16);
    sl_buf_fini(&out);
}

static struct sl_metric *gauge_of(const struct gw_sender *s, const char *name, const char *help, int64_t max)
{
    char labels[MSG_ID_MAX_BYTES + 16];
    (void)snprintf(labels, sizeof labels, "inbox=\"%s\"", s->box->inbox.name);
    struct sl_metric *m = sl_gauge(name, labels, help);
    if (max > 0)
        sl_gauge_max(m, max);
    return m;
}

void gw_delivery_make_gauges(struct gw_sender *s)
{
    s->queued = gauge_of(s, "sluice_lane_queued", "messages that have not ended", LANE_QUEUE_MAX);
    s->flying =
        gauge_of(s, "sluice_lane_in_flight", "messages whose provider has not answered", LANE_WINDOW_MAX);
    s->unknown =
        gauge_of(s, "sluice_lane_unknown", "messages of which nobody can say whether they were sent", 0);
    s->early =
        gauge_of(s, "sluice_lane_early_receipts", "receipts whose answer has not come", LANE_EARLY_MAX);
    s->breaker = gauge_of(s, "sluice_lane_breaker", "0 closed, 1 open, 2 one message is tried", 0);
    s->held = gauge_of(s, "sluice_lane_held", "1: this gateway owns the lane; over all gateways it is 1", 0);
    s->kept = gauge_of(s, "sluice_lane_kept", "sent messages that wait for receipts", LANE_KEPT_MAX);
}

/* ---- for health.c and who adds lanes ---- */

void gw_delivery_make_group(struct gw_delivery *d)
{
    uint64_t sum = 0; /* in whatever order they stand in the configuration */
    for (size_t i = 0; i < d->count; i++)
        sum += sl_str_hash(sl_str_c(d->senders[i]->tag), 5);
    (void)snprintf(d->group, sizeof d->group, "%016" PRIx64, sum);
}

const char *gw_delivery_tag(const struct gw_delivery *d, size_t i)
{
    return i < d->count ? d->senders[i]->tag : NULL;
}

bool gw_delivery_stands(const struct gw_delivery *d, char *words, size_t size)
{
    uint64_t now = sl_loop_mono_ms(d->gw->loop);
    for (size_t i = 0; i < d->count; i++) {
        const struct gw_sender *s = d->senders[i];
        if (!s->is_held || now - s->moved_mono_ms < STANDS_MS)
            continue;
        (void)snprintf(
            words, size,
            "the delivery lane of inbox %s stands: messages are ready and none was begun for %" PRIu64 " s",
            s->box->inbox.name, (now - s->moved_mono_ms) / 1000);
        return true;
    }
    return false;
}
