/* gateway/delivery.c - jobs on their way to adapters, and their words on the way back. */
#include "gateway/delivery_priv.h"

#include "gateway/lane.h"

#include "base/fault.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

#define REPEAT_MS 200    /* a word that is not known to stand in the log is appended again */
#define JOB_MS    120000 /* an adapter that has not settled a job by now: unknown */
#define JOBS_MAX  (2 * LANE_WINDOW_MAX)

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

bool gw_delivery_ask(struct gw_delivery *d,
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
    if (job->is_out)
        return;
    struct gw_sender *s = job->sender;
    job_free(job);
    gw_delivery_go_if_done(s);
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
    job->is_appending = gw_delivery_ask(d, on_word_appended, job);
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

struct fit_limits gw_delivery_fit_limits(struct chan *ch)
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
    struct fit_limits limits = gw_delivery_fit_limits(s->box->inbox.ch);
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

void gw_delivery_on_deed(void *arg, struct part *p, const struct event *deed)
{
    struct gw_sender *s = arg;
    if (s->job_count >= JOBS_MAX) {
        sl_log(SL_ERROR, "too many jobs without a word: this one stays unknown",
               SL_KV("inbox", s->box->inbox.name));
        return;
    }
    struct chan_job *job = job_new(s, deed);
    s->moved_mono_ms = sl_loop_mono_ms(s->d->gw->loop);
    if (s->d->is_stopping || s->is_leaving || !part_is_leased(p) ||
        (!sl_mutant("lane-forget-epoch") && part_epoch(p) != deed->control))
        not_begun(job);
    else
        send_part(s, job, deed);
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
        s->moved_mono_ms = sl_loop_mono_ms(d->gw->loop);
        gw_delivery_make_gauges(s);
        gw_delivery_make_group(d);
    }
    gw_delivery_write_limits(s, cfg);
    s->is_limits_told = false;
    gw_delivery_tell_limits(s);
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
    sl_timer_init(&d->survey, gw->loop, gw_delivery_on_survey, d);
    return d;
}

void gw_delivery_wake(struct gw_sender *s)
{
    s->is_limits_told = false;
    gw_delivery_tell_limits(s);
}

void gw_delivery_stop(struct gw_delivery *d)
{
    if (!d->is_stopping)
        gw_delivery_leave(d);
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
    for (size_t i = 0; i < d->count; i++) {
        const struct gw_sender *s = d->senders[i];
        if (s->job_count > 0 || (s->part != NULL && part_has_deeds(s->part)))
            return false;
    }
    return true;
}

bool gw_delivery_is_released(const struct gw_delivery *d)
{
    for (size_t i = 0; i < d->count; i++)
        if (gw_delivery_is_held(d->senders[i]))
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
