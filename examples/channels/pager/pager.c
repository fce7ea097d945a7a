/* channels/pager/pager.c - the example of docs/write-a-channel.md; a service for pagers that does not exist.
 *
 * In       POST /pager/<inbox>, Authorization: Bearer <secret>, {"from","id","text"}; 204 once durable.
 *          POST /pager/<inbox>/read, {"key"}: a pager has shown what was sent under that key.
 * Out      POST <url>, {"to","text","key"}. The service drops a key it knows, so a send may be repeated.
 */
#include "channels/pager/pager.h"

#include "base/crypto.h"
#include "base/http_client.h"
#include "base/json.h"
#include "proto/keys.h"

#include <stdio.h>
#include <stdlib.h>

#define PAGER_JOBS_MAX     64  /* sends under way; beyond it SL_EAGAIN */
#define PAGER_REQUESTS_MAX 256 /* requests that wait for the store; beyond it 503 */
#define PAGER_TEXT_CHARS   240

struct pager {
    struct chan *ch;
    struct sl_http *http;
    struct sl_post turn;
    char *url, *secret;
    size_t jobs, waiting;
    bool is_up, is_closing;
};
/* One send under way, or one request that waits for the store. */
struct pager_job {
    struct pager *p;
    struct chan_job *job;
    char key[40];
};
struct pager_waiting {
    struct chan_ticket ticket;
    struct chan_request *request;
};

/* ---- life ---- */

static void pager_on_turn(void *arg)
{
    struct pager *p = arg;
    if (!p->is_up && !p->is_closing) {
        p->is_up = true;
        chan_host_of(p->ch)->state(p->ch, CHAN_UP);
    }
    if (!p->is_closing || p->jobs > 0)
        return;
    free(p->url);
    free(p->secret);
    chan_host_of(p->ch)->closed(p->ch); /* p may be gone now */
}

static sl_err pager_open(struct chan *ch, const struct sl_config *cfg, struct sl_fail *why)
{
    struct pager *p = chan_priv(ch);
    char key[CHAN_KEY_MAX];
    chan_key(ch, "secret", key);
    if (strlen(sl_config_str(cfg, key)) < 16)
        return sl_fail_set(why, SL_EINVAL, 0, "%s: give 16 bytes or more", key);
    p->secret = sl_strdup(sl_config_str(cfg, key));
    chan_key(ch, "url", key);
    p->url = sl_strdup(sl_config_str(cfg, key));
    p->ch = ch;
    sl_post_init(&p->turn, chan_loop(ch), pager_on_turn, p);
    return SL_OK;
}

static sl_err pager_start(struct chan *ch)
{
    struct pager *p = chan_priv(ch);
    p->http =
        sl_http_new(chan_loop(ch), &(struct sl_http_options){.name = "pager", .max_calls = PAGER_JOBS_MAX});
    sl_post_now(&p->turn); /* rule 2: CHAN_UP is said on a later turn */
    return SL_OK;
}

static void pager_drain(struct chan *ch, uint64_t deadline_mono_ms)
{
    (void)ch;
    (void)deadline_mono_ms; /* calls end by their own deadline; what is left is settled by close */
}

static void pager_close(struct chan *ch)
{
    struct pager *p = chan_priv(ch);
    p->is_closing = true;
    sl_http_close(&p->http); /* every call under way settles as closed */
    sl_post_now(&p->turn);
}

/* ---- out ---- */

/* What the answer means. "May have been sent" is unknown, never failed. */
static struct chan_result pager_result(struct sl_loop *l, const struct sl_http_answer *a, const char *key)
{
    struct chan_result r = {.outcome = CHAN_FAILED, .code = SL_STR("http")};
    if (a->err != SL_OK) {
        r.outcome = a->sent == SL_HTTP_NOT_SENT ? CHAN_FAILED : CHAN_UNKNOWN;
        r.may_retry = true;
        r.words = SL_STR("the pager service could not be reached");
    } else if (a->status >= 200 && a->status < 300) {
        r = (struct chan_result){.outcome = CHAN_SENT, .remote_id = sl_str_c(key)};
    } else {
        r.may_retry = a->status == 429 || a->status >= 500;
        r.is_account = r.may_retry;
        r.retry_after_ms = sl_http_retry_after_ms(a, sl_loop_unix_ms(l));
        r.words = SL_STR("the pager service refused the message");
    }
    return r;
}

static void pager_on_answer(void *arg, const struct sl_http_answer *a)
{
    struct pager_job *j = arg;
    struct pager *p = j->p;
    const struct chan_result r = pager_result(chan_loop(p->ch), a, j->key);
    p->jobs--;
    chan_host_of(p->ch)->settled(p->ch, j->job, &r); /* rule 3: once */
    free(j);
    if (p->is_closing)
        sl_post_now(&p->turn);
}

static sl_err pager_send(struct chan *ch, const struct chan_send *s, struct chan_job *job)
{
    struct pager *p = chan_priv(ch);
    static const char *const headers[] = {"Content-Type: application/json", NULL};
    if (p->jobs == PAGER_JOBS_MAX)
        return SL_EAGAIN; /* rule 8: the lane asks again */
    struct pager_job *j = sl_alloc(sizeof *j);
    struct sl_buf body;
    struct sl_json out;
    *j = (struct pager_job){.p = p, .job = job};
    (void)snprintf(j->key, sizeof j->key, "%.*s", (int)s->key.len, s->key.ptr);
    sl_buf_init(&body, 0);
    sl_json_begin(&out, &body);
    sl_json_open(&out, NULL, '{');
    sl_json_str(&out, "to", s->address);
    sl_json_str(&out, "text", s->m->text);
    sl_json_c(&out, "key", j->key);
    sl_json_close(&out, '}');
    const sl_err err = sl_http_request(
        p->http,
        &(struct sl_http_request){
            .url = p->url, .headers = headers, .body = sl_buf_view(&body), .may_repeat = true},
        pager_on_answer, j, NULL);
    sl_buf_fini(&body);
    if (err != SL_OK)
        free(j);
    else
        p->jobs++;
    return err;
}

/* ---- in ---- */

static bool pager_is_allowed(const struct pager *p, const struct chan_request *rq)
{
    const struct sl_str given = rq->header(rq, "authorization"), scheme = SL_STR("Bearer ");
    return sl_str_starts(given, scheme.ptr) &&
           sl_secret_eq(sl_str_n(given.ptr + scheme.len, given.len - scheme.len), sl_str_c(p->secret));
}

static void pager_answer(struct chan_request *rq, sl_err result)
{
    rq->answer(rq, result == SL_OK ? 204 : sl_err_http(result), "text/plain", SL_STR_NONE);
}

/* A message of a customer, or the word that she has read ours. */
static sl_err pager_take(struct pager *p, struct chan_request *rq, const json_t *body, struct chan_ticket *t)
{
    const struct chan_host *host = chan_host_of(p->ch);
    if (sl_str_eq_c(rq->rest, "/read")) {
        char id[64];
        const struct sl_str key = sl_json_get_str(body, "key");
        if (key.len == 0 || key.len > 32)
            return SL_EINVAL;
        (void)snprintf(id, sizeof id, "read-%.*s", (int)key.len, key.ptr);
        t->id = sl_str_c(id); /* rule 7: the same when it is repeated */
        return host->receipt(p->ch, &(struct chan_receipt){.remote_id = key, .word = CHAN_WORD_READ}, t);
    }
    const struct msg m = {.by = MSG_BY_VISITOR,
                          .id = sl_json_get_str(body, "id"),
                          .who = sl_json_get_str(body, "from"),
                          .text = sl_json_get_str(body, "text"),
                          .channel = SL_STR("pager"),
                          .inbox = sl_str_c(chan_inbox(p->ch)),
                          .tenant = sl_str_c(chan_tenant(p->ch))};
    struct sl_fail why = {0};
    t->id = m.id;
    if (!key_part_ok(m.who) || rq->rest.len > 0 || msg_check(&m, &why) != SL_OK)
        return SL_EINVAL;
    return host->inbound(p->ch, &m, t);
}

static sl_err pager_request(struct chan *ch, struct chan_request *rq)
{
    struct pager *p = chan_priv(ch);
    if (!pager_is_allowed(p, rq)) {
        pager_answer(rq, SL_EAUTH);
        return SL_OK;
    }
    struct pager_waiting *w = sl_alloc(sizeof *w);
    json_t *body = sl_json_parse(rq->body, NULL); /* owned */
    *w = (struct pager_waiting){.ticket.owner = w, .request = rq};
    sl_err err = body == NULL ? SL_EINVAL : p->waiting == PAGER_REQUESTS_MAX ? SL_EAGAIN : SL_OK;
    if (err == SL_OK)
        err = pager_take(p, rq, body, &w->ticket);
    json_decref(body);
    if (err != SL_OK) {
        free(w);
        pager_answer(rq, err);
        return SL_OK;
    }
    p->waiting++;
    return SL_OK;
}

/* Rule 9: only now does the provider hear yes. */
static void pager_accepted(struct chan *ch, struct chan_ticket *t, sl_err result)
{
    struct pager *p = chan_priv(ch);
    struct pager_waiting *w = t->owner;
    p->waiting--;
    pager_answer(w->request, result);
    free(w);
}

static const struct sl_key pager_keys[] = {
    {"inboxes.*.secret", SL_CFG_SECRET, "", 0, 0, false, "the service shows it as a bearer token"},
    {"inboxes.*.url", SL_CFG_STR, "", 0, 0, false, "where messages for pagers go"},
    {.key = NULL}};

const struct chan_ops pager_ops = {
    .api = CHAN_API,
    .name = "pager",
    .caps = CHAN_CAP_SEND | CHAN_CAP_REQUEST,
    .priv_size = sizeof(struct pager),
    .limits = {.text_max = PAGER_TEXT_CHARS,
               .text_unit = CHAN_CHARS,
               .unknown = CHAN_IDEMPOTENT,
               .rate_per_s = 20,
               .window = PAGER_JOBS_MAX},
    .horizon_ms = 3600000,
    .keys = pager_keys,
    .open = pager_open,
    .start = pager_start,
    .send = pager_send,
    .accepted = pager_accepted,
    .request = pager_request,
    .drain = pager_drain,
    .close = pager_close,
};
