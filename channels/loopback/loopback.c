/* channels/loopback/loopback.c - the smallest complete adapter; read this one first.
 *
 * In       POST /loopback/<inbox>, Authorization: Bearer <the inbox's secret>, {"address","id","kind","text","data"}; 202 once durable.
 * Out      send() keeps the job and settles it as sent on the next turn.
 */
#include "channels/loopback/loopback.h"

#include "base/crypto.h"
#include "proto/keys.h"

#include <stdio.h>
#include <stdlib.h>

#define SECRET_MIN_BYTES 16

struct loopback_inbound {
    struct chan_ticket ticket;
    struct chan_request *request;
};

struct loopback {
    struct chan *ch;
    struct sl_post turn;
    char *secret;
    bool is_closing;
    bool is_up_due;
    size_t jobs, inbounds;
    struct chan_job *job[LOOPBACK_JOBS_MAX];
    char remote_id[LOOPBACK_JOBS_MAX][33]; /* the key of each: it names the message for good */
};

static void loopback_on_turn(void *arg);

static sl_err loopback_open(struct chan *ch, const struct sl_config *cfg, struct sl_fail *why)
{
    struct loopback *lb = chan_priv(ch);
    char key[MSG_ID_MAX_BYTES + 32];
    int n = snprintf(key, sizeof key, "inboxes.%s.secret", chan_inbox(ch));
    sl_assert(n > 0 && (size_t)n < sizeof key);
    const char *secret = sl_config_str(cfg, key);
    if (strlen(secret) < SECRET_MIN_BYTES)
        return sl_fail_set(why, SL_EINVAL, 0, "%s: give %d bytes or more, or secret_file", key,
                           SECRET_MIN_BYTES);
    lb->ch = ch;
    lb->secret = sl_strdup(secret);
    sl_post_init(&lb->turn, chan_loop(ch), loopback_on_turn, lb);
    return SL_OK;
}

static sl_err loopback_start(struct chan *ch)
{
    struct loopback *lb = chan_priv(ch);
    lb->is_up_due = true;
    sl_post_now(&lb->turn);
    return SL_OK;
}

static sl_err loopback_send(struct chan *ch, const struct chan_send *s, struct chan_job *job)
{
    struct loopback *lb = chan_priv(ch);
    if (lb->jobs == LOOPBACK_JOBS_MAX)
        return SL_EAGAIN;
    (void)snprintf(lb->remote_id[lb->jobs], sizeof lb->remote_id[0], "%.*s", (int)s->key.len, s->key.ptr);
    lb->job[lb->jobs++] = job;
    sl_post_now(&lb->turn);
    return SL_OK;
}

static void loopback_settle_jobs(struct loopback *lb)
{
    const struct chan_host *host = chan_host_of(lb->ch);
    size_t count = lb->jobs;
    for (size_t i = 0; i < count; i++)
        host->settled(lb->ch, lb->job[i],
                      &(struct chan_result){.outcome = CHAN_SENT, .remote_id = sl_str_c(lb->remote_id[i])});
    lb->jobs -= count; /* the host may have given new ones meanwhile */
    memmove(lb->job, lb->job + count, lb->jobs * sizeof lb->job[0]);
    memmove(lb->remote_id, lb->remote_id + count, lb->jobs * sizeof lb->remote_id[0]);
    if (lb->jobs > 0)
        sl_post_now(&lb->turn);
}

static void loopback_on_turn(void *arg)
{
    struct loopback *lb = arg;
    if (lb->is_up_due) {
        lb->is_up_due = false;
        chan_host_of(lb->ch)->state(lb->ch, CHAN_UP);
    }
    loopback_settle_jobs(lb);
    if (!lb->is_closing || lb->jobs > 0)
        return;
    free(lb->secret);
    chan_host_of(lb->ch)->closed(lb->ch); /* lb may be gone now */
}

/* Fill m from the request's JSON; everything is borrowed from *hold. */
static sl_err loopback_read(struct loopback *lb, struct sl_str body, struct msg *m, struct sl_buf *data,
                            json_t **hold, struct sl_fail *why)
{
    *hold = sl_json_parse(body, why);
    if (*hold == NULL)
        return SL_EINVAL;
    if (!json_is_object(*hold))
        return sl_fail_set(why, SL_EINVAL, 0, "the body is not a JSON object");
    struct sl_str kind = sl_json_get_str(*hold, "kind");
    m->who = sl_json_get_str(*hold, "address");
    m->id = sl_json_get_str(*hold, "id");
    m->text = sl_json_get_str(*hold, "text");
    m->inbox = sl_str_c(chan_inbox(lb->ch));
    m->tenant = sl_str_c(chan_tenant(lb->ch));
    m->channel = SL_STR("loopback");
    const json_t *object = json_object_get(*hold, "data"); /* borrowed */
    if (json_is_object(object)) {
        sl_json_dump(data, object);
        m->data = sl_buf_view(data);
    }
    if (kind.len > 0 && !msg_kind_from(kind, &m->kind))
        return sl_fail_set(why, SL_EINVAL, 0, "kind is not one that is known");
    if (!key_part_ok(m->who))
        return sl_fail_set(why, SL_EINVAL, 0, "address is missing or has characters that are not allowed");
    return msg_check(m, why);
}

static void loopback_answer(struct chan_request *rq, sl_err result, const char *words)
{
    struct sl_buf body;
    sl_buf_init(&body, 4096);
    struct sl_json j;
    sl_json_begin(&j, &body);
    sl_json_open(&j, NULL, '{');
    sl_json_c(&j, "code", sl_err_name(result));
    sl_json_c(&j, "text", words);
    sl_json_close(&j, '}');
    rq->answer(rq, result == SL_OK ? 202 : sl_err_http(result), "application/json", sl_buf_view(&body));
    sl_buf_fini(&body);
}

static sl_err loopback_inbound(struct loopback *lb, const struct msg *m, struct chan_request *rq)
{
    if (lb->inbounds == LOOPBACK_REQUESTS_MAX)
        return SL_EAGAIN;
    struct loopback_inbound *in = sl_alloc(sizeof *in);
    in->ticket = (struct chan_ticket){.owner = in, .id = m->id};
    in->request = rq;
    sl_err err = chan_host_of(lb->ch)->inbound(lb->ch, m, &in->ticket);
    if (err != SL_OK)
        free(in);
    else
        lb->inbounds++;
    return err;
}

static bool loopback_is_allowed(const struct loopback *lb, const struct chan_request *rq)
{
    static const char scheme[] = "Bearer ";
    struct sl_str given = rq->header(rq, "authorization");
    if (!sl_str_starts(given, scheme))
        return false;
    return sl_secret_eq(sl_str_n(given.ptr + sizeof scheme - 1, given.len - (sizeof scheme - 1)),
                        sl_str_c(lb->secret));
}

/* Always answers, now or in accepted(). */
static sl_err loopback_request(struct chan *ch, struct chan_request *rq)
{
    struct loopback *lb = chan_priv(ch);
    struct sl_fail why = {.text = ""};
    struct msg m = {.by = MSG_BY_VISITOR};
    json_t *hold = NULL;
    struct sl_buf data;
    if (!loopback_is_allowed(lb, rq)) {
        loopback_answer(rq, SL_EAUTH, sl_err_text(SL_EAUTH));
        return SL_OK;
    }
    sl_buf_init(&data, MSG_DATA_MAX_BYTES * 2);
    sl_err err = loopback_read(lb, rq->body, &m, &data, &hold, &why);
    if (err == SL_OK) {
        err = loopback_inbound(lb, &m, rq);
        (void)sl_fail_set(&why, err, 0, "%s", sl_err_text(err));
    }
    if (err != SL_OK)
        loopback_answer(rq, err, why.text);
    json_decref(hold);
    sl_buf_fini(&data);
    return SL_OK;
}

static void loopback_accepted(struct chan *ch, struct chan_ticket *t, sl_err result)
{
    struct loopback *lb = chan_priv(ch);
    struct loopback_inbound *in = t->owner;
    lb->inbounds--;
    loopback_answer(in->request, result, sl_err_text(result));
    free(in);
}

static void loopback_drain(struct chan *ch, uint64_t deadline_mono_ms)
{
    (void)ch;
    (void)deadline_mono_ms; /* its jobs settle within a turn */
}

static void loopback_close(struct chan *ch)
{
    struct loopback *lb = chan_priv(ch);
    lb->is_closing = true;
    sl_post_now(&lb->turn);
}

static const struct sl_key loopback_keys[] = {LOOPBACK_KEYS, {.key = NULL}};

const struct chan_ops loopback_ops = {
    .api = CHAN_API,
    .name = "loopback",
    .caps = CHAN_CAP_SEND | CHAN_CAP_REQUEST,
    .priv_size = sizeof(struct loopback),
    .limits = {.text_max = MSG_TEXT_MAX_BYTES,
               .unknown = CHAN_AT_MOST_ONCE,
               .rate_per_s = 1000,
               .window = 100},
    .horizon_ms = 3600000, /* its callers repeat within an hour */
    .keys = loopback_keys,
    .open = loopback_open,
    .start = loopback_start,
    .send = loopback_send,
    .accepted = loopback_accepted,
    .request = loopback_request,
    .drain = loopback_drain,
    .close = loopback_close,
};
