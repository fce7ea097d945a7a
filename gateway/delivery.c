/* gateway/delivery.c - who owns which lane, jobs on their way to adapters, and their words on the way back. */
#include "gateway/delivery.h"

#include "gateway/gateway_priv.h"
#include "gateway/lane.h"

#include "base/crypto.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/ulid.h"
#include "bus/partition.h"
#include "proto/fit.h"

#include <stdio.h>
#include <stdlib.h>

#define SURVEY_MS    500
#define TAIL_COUNT   128
#define CACHE_MAX    20000
#define REPEAT_MS    200    /* a word that is not known to stand in the log is appended again */
#define JOB_MS       120000 /* an adapter that has not settled a job by now: unknown */
#define JOBS_MAX     (2 * LANE_WINDOW_MAX)
#define HISTORY_KEEP 1 /* a lane has none */

struct chan_job {
    struct chan_job *next, *before;
    struct gw_sender *sender;
    char *id; /* of the send */
    int64_t part, parts, attempt, epoch;
    bool is_out;  /* the adapter has it: its memory stays until it settles */
    bool is_told; /* word holds what became of it */
    bool is_appending;
    bool is_renewed;       /* a better word came while one was on its way */
    struct event word;     /* its strings are owned */
    struct sl_timer timer; /* JOB_MS, or REPEAT_MS */
};

struct gw_sender {
    struct gw_delivery *d;
    struct gw_box *box;
    char tag[KEY_TAG_MAX_BYTES];
    struct key in;
    struct part *part;
    char *limits; /* JSON for the lane */
    char hash[17], fit_word[FIT_LIMITS_BYTES];
    bool is_free, is_held;
    bool is_limits_told, is_telling, is_alarmed;
    struct chan_job *jobs;
    size_t job_count;
    struct sl_metric *queued, *flying, *unknown, *early, *breaker, *kept;
};

struct gw_delivery {
    struct gw *gw;
    char run[SL_ULID_LEN + 1];
    struct bus_tail *tail;
    struct bus_args args;
    struct gw_sender **senders;
    size_t count;
    int64_t store_now_ms;
    uint64_t lease_ms; /* after kill -9 another gateway holds the lane within lease + survey */
    struct sl_timer survey;
    bool is_surveying, is_stopping, is_freed;
    unsigned in_flight; /* callbacks still to come */
    struct fit fit;
};

static void tell_limits(struct gw_sender *s);

/* ---- calls that may outlive the delivery ---- */

struct call {
    struct gw_delivery *d;
    void *arg;
    void (*fn)(struct gw_delivery *d, void *arg, sl_err err, const struct bus_value *v);
};

static void delivery_finish(struct gw_delivery *d)
{
    bus_args_fini(&d->args);
    fit_fini(&d->fit);
    free(d);
}

static void on_reply(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct call call = *(struct call *)arg;
    (void)why;
    free(arg);
    call.d->in_flight--;
    if (!call.d->is_freed)
        call.fn(call.d, call.arg, err, v);
    else if (call.d->in_flight == 0)
        delivery_finish(call.d);
}

static bool ask(struct gw_delivery *d,
                void (*fn)(struct gw_delivery *, void *, sl_err, const struct bus_value *), void *arg)
{
    struct call *call = sl_alloc(sizeof *call);
    *call = (struct call){d, arg, fn};
    if (bus_command(d->gw->bus, &d->args, BUS_DEADLINE_MS, on_reply, call) != SL_OK) {
        free(call);
        return false;
    }
    d->in_flight++;
    return true;
}

/* ---- jobs ---- */

static void free_word(struct event *word)
{
    free((void *)(uintptr_t)word->remote.ptr);
    free((void *)(uintptr_t)word->done.ptr);
    free((void *)(uintptr_t)word->code.ptr);
    free((void *)(uintptr_t)word->text.ptr);
    *word = (struct event){.type = EVENT_NONE};
}

static void job_free(struct chan_job *job)
{
    struct gw_sender *s = job->sender;
    if (job->next != NULL)
        job->next->before = job->before;
    if (job->before != NULL)
        job->before->next = job->next;
    else
        s->jobs = job->next;
    s->job_count--;
    sl_timer_stop(&job->timer);
    if (job->is_told)
        free_word(&job->word);
    free(job->id);
    free(job);
}

static void job_append(struct chan_job *job);

static void on_word_appended(struct gw_delivery *d, void *arg, sl_err err, const struct bus_value *v)
{
    struct chan_job *job = arg;
    (void)d;
    (void)v;
    job->is_appending = false;
    if (err != SL_OK) {
        job->is_renewed = false; /* the better word is what is repeated */
        sl_timer_start(&job->timer, REPEAT_MS);
        return;
    }
    sl_kill_point("lane.after_append_settled");
    if (job->is_renewed) {
        job->is_renewed = false;
        job_append(job);
        return;
    }
    free_word(&job->word);
    job->is_told = false;
    if (!job->is_out)
        job_free(job);
}

static void job_append(struct chan_job *job)
{
    struct gw_delivery *d = job->sender->d;
    struct event_fields fields;
    if (job->is_appending)
        return;
    event_to_fields(&job->word, &fields);
    bus_args_clear(&d->args);
    bus_args_c(&d->args, "XADD");
    bus_args_key(&d->args, &job->sender->in);
    bus_args_c(&d->args, "*");
    for (size_t i = 0; i < fields.count; i++)
        bus_args_str(&d->args, fields.item[i]);
    sl_kill_point("lane.before_append_settled");
    job->is_appending = ask(d, on_word_appended, job);
    if (!job->is_appending)
        sl_timer_start(&job->timer, REPEAT_MS);
}

static struct sl_str owned(struct sl_str s)
{
    return sl_str_n(sl_str_dup(s), s.len);
}

/* What became of a try, on its way to the lane's log. */
static void job_tell(struct chan_job *job, const char *reason, const struct chan_result *r)
{
    char *name = "";
    if (job->is_told) /* given up as unknown, and the log has not taken even that: the better word counts */
        free_word(&job->word);
    if (r->may_retry)
        name = r->is_account ? "retry,account" : "retry";
    else if (r->is_account)
        name = "account";
    job->is_told = true;
    job->word =
        (struct event){.type = EVENT_SETTLED,
                       .id = sl_str_c(job->id),
                       .number = job->part,
                       .capacity = job->parts,
                       .gen = job->attempt,
                       .control = job->epoch,
                       .name = sl_str_c(name),
                       .reason = sl_str_c(reason),
                       .wait_ms = r->retry_after_ms,
                       .remote = owned(r->remote_id),
                       .done = owned(sl_str_n(r->done.ptr, r->done.len <= CHAN_DONE_MAX ? r->done.len : 0)),
                       .code = owned(r->code),
                       .text = owned(r->words)};
    sl_timer_stop(&job->timer);
    job_append(job);
}

static void on_job_timer(void *arg)
{
    struct chan_job *job = arg;
    if (job->is_told) {
        job_append(job);
        return;
    }
    sl_log(SL_ERROR, "an adapter did not settle a job in time: its outcome is unknown",
           SL_KV("inbox", job->sender->box->inbox.name), SL_KV_I("seconds", JOB_MS / 1000));
    job_tell(job, "unknown",
             &(struct chan_result){.outcome = CHAN_UNKNOWN,
                                   .words = SL_STR("The channel did not answer in time.")});
}

void gw_delivery_settled(struct chan_job *job, const struct chan_result *r)
{
    static const char *const words[] = {
        [CHAN_SENT] = "sent", [CHAN_FAILED] = "failed", [CHAN_UNKNOWN] = "unknown", [CHAN_NEVER] = "never"};
    sl_assert(job->is_out);
    job->is_out = false;
    if (job->sender == NULL) { /* the gateway has gone without waiting for this adapter */
        free(job->id);
        free(job);
        return;
    }
    sl_kill_point("lane.answer");
    job->is_renewed = job->is_appending;
    job_tell(job, words[r->outcome], r);
}

static struct chan_job *job_new(struct gw_sender *s, const struct event *deed)
{
    struct chan_job *job = sl_alloc(sizeof *job);
    *job = (struct chan_job){.sender = s};
    job->id = sl_str_dup(deed->conv);
    job->part = deed->number;
    job->parts = deed->capacity;
    job->attempt = deed->gen;
    job->epoch = deed->control;
    sl_timer_init(&job->timer, s->d->gw->loop, on_job_timer, job);
    job->next = s->jobs;
    if (s->jobs != NULL)
        s->jobs->before = job;
    s->jobs = job;
    s->job_count++;
    return job;
}

static void not_begun(struct chan_job *job)
{
    job_tell(job, "not_begun", &(struct chan_result){.outcome = CHAN_FAILED});
}

static void refused(struct chan_job *job, const char *code, const char *words)
{
    job_tell(job, "failed",
             &(struct chan_result){.outcome = CHAN_FAILED, .code = sl_str_c(code), .words = sl_str_c(words)});
}

/* ---- deeds ---- */

static struct sl_str address_in(struct sl_str addr)
{
    for (int slashes = 0; slashes < 2 && addr.len > 0; addr.ptr++, addr.len--)
        slashes += *addr.ptr == '/';
    return addr;
}

static void write_link(void *arg, struct sl_str id, struct sl_str name, struct sl_buf *out)
{
    struct chan *ch = arg;
    if (gw_host.media_link != NULL)
        gw_host.media_link(ch, id, name, out);
}

static struct fit_limits limits_for(struct chan *ch)
{
    struct chan_limits l;
    chan_limits(ch, &l);
    return (struct fit_limits){.text_max = l.text_max,
                               .is_chars = l.text_unit == CHAN_CHARS,
                               .kinds = l.kinds,
                               .bare = l.bare,
                               .options_max = l.options_max,
                               .media_max_bytes = l.media_max_bytes,
                               .link = write_link,
                               .link_arg = ch};
}

static struct msg message_of(struct gw_sender *s, const struct event *deed)
{
    struct msg m = {.id = deed->id,
                    .tenant = sl_str_c(s->box->inbox.tenant),
                    .inbox = sl_str_c(s->box->inbox.name),
                    .channel = sl_str_c(chan_ops_of(s->box->inbox.ch)->name),
                    .text = deed->text,
                    .data = deed->data,
                    .traceparent = deed->trace};
    const char *slash = deed->conv.len > 0 ? memchr(deed->conv.ptr, '/', deed->conv.len) : NULL;
    m.conversation =
        sl_str_n(deed->conv.ptr, slash != NULL ? (size_t)(slash - deed->conv.ptr) : deed->conv.len);
    if (!msg_author_from(deed->name, &m.by))
        m.by = MSG_BY_SYSTEM;
    if (!msg_kind_from(deed->kind, &m.kind))
        m.kind = MSG_TEXT;
    return m;
}

static void give(struct gw_sender *s, struct chan_job *job, const struct event *deed, const struct msg *part)
{
    struct chan *ch = s->box->inbox.ch;
    struct chan_send send = {.m = part,
                             .address = address_in(deed->addr),
                             .key = deed->hash,
                             .context = deed->context,
                             .part = (unsigned)job->part,
                             .parts = (unsigned)job->parts,
                             .attempt = (unsigned)deed->turn,
                             .done = deed->done,
                             .remote_id = deed->remote};
    job->is_out = true;
    sl_kill_point("lane.before_first_byte");
    sl_err err = deed->type == EVENT_QUERY ? chan_query(ch, &send, job) : chan_send(ch, &send, job);
    if (err == SL_OK) {
        sl_timer_start(&job->timer, JOB_MS);
        return;
    }
    job->is_out = false;
    if (err == SL_EAGAIN)
        not_begun(job);
    else if (deed->type == EVENT_QUERY)
        job_tell(job, "unknown", &(struct chan_result){.words = SL_STR("The channel cannot be asked.")});
    else
        refused(job, sl_err_name(err), sl_err_text(err));
}

static void send_part(struct gw_sender *s, struct chan_job *job, const struct event *deed)
{
    struct fit_limits limits = limits_for(s->box->inbox.ch);
    struct msg m = message_of(s, deed);
    struct sl_fail why = {.text = ""};
    struct fit *fit = &s->d->fit;
    size_t most = deed->ticket > 0 ? (size_t)deed->ticket : 0; /* the conversation paid for so many */
    sl_err err = fit_within(fit, &m, &limits, most, &why);
    if (err == SL_ETOOBIG && job->part == 1)
        refused(job, "limits_changed", why.text);
    else if (err != SL_OK && err != SL_ETOOBIG)
        refused(job, "malformed", why.text);
    else if (fit->count == 0)
        refused(job, "nothing_to_send", "This channel cannot show such a message.");
    else if (job->part < 1 || (size_t)job->part > fit->count ||
             (job->part > 1 && (size_t)job->parts != fit->count))
        refused(job, "limits_changed", "The channel's limits changed while the message was being sent.");
    else {
        job->parts = (int64_t)fit->count;
        give(s, job, deed, &fit->part[job->part - 1]);
    }
}

static void on_deed(void *arg, struct part *p, const struct event *deed)
{
    struct gw_sender *s = arg;
    if (s->job_count >= JOBS_MAX) {
        sl_log(SL_ERROR, "too many jobs without a word: this one stays unknown",
               SL_KV("inbox", s->box->inbox.name));
        return;
    }
    struct chan_job *job = job_new(s, deed);
    if (s->d->is_stopping || !part_is_leased(p) ||
        (!sl_mutant("lane-forget-epoch") && part_epoch(p) != deed->control))
        not_begun(job);
    else
        send_part(s, job, deed);
}

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
    hold(s, now == PART_RUNNING);
    tell_limits(s);
}

static void on_part_appended(void *arg, struct part *p, sl_err err)
{
    struct gw_sender *s = arg;
    (void)p;
    s->is_telling = false;
    s->is_limits_told = s->is_limits_told && err == SL_OK;
}

/* The owner's first word: limits, and a step under its own lease epoch. Told again at the next survey when it failed. */
static void tell_limits(struct gw_sender *s)
{
    if (s->part == NULL || part_state_now(s->part) != PART_RUNNING || s->is_limits_told || s->is_telling)
        return;
    const struct event ev = {.type = EVENT_LANE, .hash = sl_str_c(s->hash), .data = sl_str_c(s->limits)};
    s->is_telling = s->is_limits_told = part_append(s->part, &ev) == SL_OK;
}

static bool is_held_or_coming(const struct gw_sender *s)
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
            .changed = on_part_changed, .appended = on_part_appended, .deed = on_deed};
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
    gw_host.alarm(s->box->inbox.ch, "send_breaker", is_on,
                  "many messages in a row failed: sending pauses, and one message at a time tries again");
}

static void write_gauges(struct gw_sender *s)
{
    const struct gw_lane *l = s->part != NULL ? part_peek(s->part, &gw_lane_kind, LANE_ID) : NULL;
    alarm_of_breaker(s, l);
    sl_gauge_set(s->queued, l != NULL ? l->queued : 0);
    sl_gauge_set(s->flying, l != NULL ? (int64_t)l->flying_count : 0);
    sl_gauge_set(s->unknown, l != NULL ? l->unknown : 0);
    sl_gauge_set(s->early, l != NULL ? l->early : 0);
    sl_gauge_set(s->breaker, l != NULL ? l->breaker : 0);
    sl_gauge_set(s->kept, l != NULL ? l->kept : 0);
}

static void on_survey_done(struct gw_delivery *d, void *arg, sl_err err, const struct bus_value *v)
{
    (void)arg;
    (void)v;
    for (size_t i = 0; i < d->count; i++) {
        struct gw_sender *s = d->senders[i];
        if (err == SL_OK && s->is_free && !d->is_stopping && !is_held_or_coming(s))
            acquire(s);
        tell_limits(s);
        write_gauges(s);
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
        if (is_held_or_coming(s))
            continue;
        struct key meta = key_meta(s->tag);
        bus_args_clear(&d->args);
        bus_args_c(&d->args, "HMGET");
        bus_args_key(&d->args, &meta);
        bus_args_c(&d->args, "run");
        bus_args_c(&d->args, "until");
        (void)ask(d, on_lease_read, s);
    }
    bus_args_clear(&d->args);
    bus_args_c(&d->args, "PING");
    if (!ask(d, on_survey_done, NULL))
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

static void on_time(struct gw_delivery *d, void *arg, sl_err err, const struct bus_value *v)
{
    (void)arg;
    if (err != SL_OK) {
        survey_end(d);
        return;
    }
    d->store_now_ms = bus_value_int(bus_value_at(v, 0)) * 1000 + bus_value_int(bus_value_at(v, 1)) / 1000;
    bus_args_clear(&d->args);
    bus_args_c(&d->args, "SADD");
    bus_args_c(&d->args, KEY_EXTRA);
    for (size_t i = 0; i < d->count; i++)
        bus_args_c(&d->args, d->senders[i]->tag);
    if (!ask(d, on_registered, NULL))
        survey_end(d);
}

static void on_survey(void *arg)
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
    if (!ask(d, on_time, NULL))
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
    struct fit_limits l = limits_for(s->box->inbox.ch);
    struct sl_buf link;
    sl_buf_init(&link, FIT_LINK_MAX_BYTES);
    write_link(s->box->inbox.ch, sl_str_c(nobody), SL_STR("x"), &link);
    fit_limits_write(&l, link.len > 0 && !link.overflow ? link.len - 1 : 0, s->fit_word);
    sl_buf_fini(&link);
}

struct sl_str gw_delivery_fit_word(const struct gw_sender *s)
{
    return sl_str_c(s->fit_word);
}

static void write_limits(struct gw_sender *s, const struct sl_config *cfg)
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

static void make_gauges(struct gw_sender *s)
{
    s->queued = gauge_of(s, "sluice_lane_queued", "messages that have not ended", LANE_QUEUE_MAX);
    s->flying =
        gauge_of(s, "sluice_lane_in_flight", "messages whose provider has not answered", LANE_WINDOW_MAX);
    s->unknown =
        gauge_of(s, "sluice_lane_unknown", "messages of which nobody can say whether they were sent", 0);
    s->early =
        gauge_of(s, "sluice_lane_early_receipts", "receipts whose answer has not come", LANE_EARLY_MAX);
    s->breaker = gauge_of(s, "sluice_lane_breaker", "0 closed, 1 open, 2 one message is tried", 0);
    s->kept = gauge_of(s, "sluice_lane_kept", "sent messages that wait for receipts", LANE_KEPT_MAX);
}

/* ---- life ---- */

void gw_delivery_add(struct gw_delivery *d, struct gw_box *box, const struct sl_config *cfg)
{
    if (!(chan_ops_of(box->inbox.ch)->caps & CHAN_CAP_SEND))
        return;
    d->lease_ms = (uint64_t)sl_config_int(cfg, "gateway.lease");
    struct gw_sender *s = box->sender;
    if (s == NULL) {
        s = sl_alloc(sizeof *s);
        s->d = d;
        s->box = box;
        key_lane_tag(s->tag, sl_str_c(box->inbox.name));
        s->in = key_in(s->tag);
        box->sender = s;
        d->senders = sl_realloc(d->senders, (d->count + 1) * sizeof(struct gw_sender *));
        d->senders[d->count++] = s;
        make_gauges(s);
    }
    write_limits(s, cfg);
    s->is_limits_told = false;
    tell_limits(s);
    if (d->count == 1 && !d->is_surveying)
        sl_timer_start(&d->survey, 0);
}

struct gw_delivery *gw_delivery_new(struct gw *gw)
{
    struct gw_delivery *d = sl_alloc(sizeof *d);
    d->gw = gw;
    sl_ulid_new(d->run, sl_loop_unix_ms(gw->loop));
    bus_args_init(&d->args);
    fit_init(&d->fit);
    sl_timer_init(&d->survey, gw->loop, on_survey, d);
    return d;
}

void gw_delivery_wake(struct gw_sender *s)
{
    s->is_limits_told = false;
    tell_limits(s);
}

void gw_delivery_stop(struct gw_delivery *d)
{
    d->is_stopping = true;
    sl_timer_stop(&d->survey);
}

void gw_delivery_release(struct gw_delivery *d)
{
    gw_delivery_stop(d);
    for (size_t i = 0; i < d->count; i++)
        if (d->senders[i]->part != NULL)
            part_release(d->senders[i]->part);
}

bool gw_delivery_is_idle(const struct gw_delivery *d)
{
    size_t jobs = 0;
    for (size_t i = 0; i < d->count; i++)
        jobs += d->senders[i]->job_count;
    return jobs == 0;
}

bool gw_delivery_is_released(const struct gw_delivery *d)
{
    for (size_t i = 0; i < d->count; i++)
        if (is_held_or_coming(d->senders[i]))
            return false;
    return true;
}

static void sender_free(struct gw_sender *s)
{
    part_free(&s->part);
    while (s->jobs != NULL) {
        struct chan_job *job = s->jobs;
        if (job->is_out && !s->box->is_closed) { /* its adapter still holds it */
            s->jobs = job->next;
            sl_timer_stop(&job->timer);
            job->sender = NULL;
        } else {
            job_free(job);
        }
    }
    s->box->sender = NULL;
    free(s->limits);
    free(s);
}

void gw_delivery_free(struct gw_delivery **dp)
{
    struct gw_delivery *d = *dp;
    *dp = NULL;
    if (d == NULL)
        return;
    sl_timer_stop(&d->survey);
    for (size_t i = 0; i < d->count; i++)
        sender_free(d->senders[i]);
    free(d->senders);
    bus_tail_close(&d->tail);
    d->is_freed = true;
    if (d->in_flight == 0)
        delivery_finish(d);
}
