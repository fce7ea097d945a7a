/* channels/wechat/wechat_passive.c - the answer in the callback itself, for accounts without the customer-service interface.
 *
 * The customer's callback is held up to 4.5 s. When it ends without an answer the platform asks again with the same MsgId, which is
 * held again: about 14 s in all. The lane that has the answer may belong to another gateway than the one the platform is connected
 * to, so the answer is handed over by two shared values of one message:
 *
 *   pa-<id>   "=" + XML: here it is (added once: one message has one answer)
 *             "!" + XML: claimed by who holds a callback, by comparing and swapping, before the first byte is written
 *             "x": withdrawn, because nobody claimed it in time
 *   pd-<id>   written to the platform's connection: only now is the job settled as sent
 *
 * A claim without pd (its gateway died) settles as unknown.
 */
#include "channels/wechat/wechat_priv.h"

#include <stdio.h>
#include <stdlib.h>

#define POLL_MS 200
#define KEEP_MS 30000
#define LAST_TRY_MS                                                                                          \
    9000 /* a callback this long after its message is the third: better no answer than an error for the customer */
#define GRACE_POLLS 10 /* for pd after a claim was seen at the deadline */
#define ANSWER_MAX  16384

static void value_name(char out[64], const char *what, const char *id)
{
    (void)snprintf(out, 64, "%s-%s", what, id);
}

static void on_nothing(void *arg, sl_err err, struct sl_str value)
{
    (void)arg;
    (void)err;
    (void)value;
}

/* ---- who holds a callback ---- */

static void seal(struct wechat *wc, struct sl_str xml, struct sl_buf *out)
{
    unsigned char random[WECHAT_RANDOM_BYTES];
    char nonce[40], timestamp[24], signature[WECHAT_SIGNATURE_LEN + 1];
    struct sl_buf encrypt;
    if (wc->mode == WECHAT_PLAIN) {
        sl_buf_str(out, xml);
        return;
    }
    sl_buf_init(&encrypt, 0);
    sl_random_bytes(random, sizeof random);
    wechat_encrypt(&wc->key, random, xml, sl_str_c(wc->receive_id), &encrypt);
    (void)wechat_random_name(nonce);
    nonce[10] = '\0';
    (void)snprintf(timestamp, sizeof timestamp, "%lld",
                   (long long)(sl_loop_unix_ms(chan_loop(wc->ch)) / 1000));
    const struct sl_str parts[] = {sl_str_c(wc->token), sl_str_c(timestamp), sl_str_c(nonce),
                                   sl_buf_view(&encrypt)};
    wechat_sign(parts, 4, signature);
    wechat_xml_envelope(out, parts[3], sl_str_c(signature), parts[1], parts[2]);
    sl_buf_fini(&encrypt);
}

static void write_answer(struct wechat_call *c, struct sl_str xml)
{
    struct wechat *wc = c->wc;
    struct chan_request *rq = c->rq;
    char name[64];
    struct sl_buf out;
    sl_buf_init(&out, 0);
    seal(wc, xml, &out);
    c->rq = NULL;
    if (rq != NULL) {
        rq->answer(rq, 200, "text/xml; charset=utf-8", sl_buf_view(&out));
        value_name(name, "pd", c->answer_id);
        (void)!wechat_kv(wc, CHAN_KV_SET, name, SL_STR("1"), SL_STR_NONE, KEEP_MS, on_nothing, wc);
        wechat_count("passive_answered");
    }
    sl_buf_fini(&out);
    wechat_call_free(c);
}

/* No answer yet: the platform asks again, but after its last try the customer would read an error. */
static void give_up(struct wechat_call *c)
{
    int64_t age_ms = sl_loop_unix_ms(chan_loop(c->wc->ch)) - c->sent_unix_ms;
    struct chan_request *rq = c->rq;
    if (age_ms >= LAST_TRY_MS || rq == NULL) {
        wechat_success(c);
    } else {
        c->rq = NULL;
        rq->answer(rq, 503, "text/plain; charset=utf-8", SL_STR("again"));
    }
    wechat_call_free(c);
}

static void park_poll(struct wechat_call *c)
{
    if (sl_loop_mono_ms(chan_loop(c->wc->ch)) >= c->began_mono_ms + WECHAT_ANSWER_MS || c->wc->is_draining)
        give_up(c);
    else
        sl_timer_start(&c->timer, POLL_MS);
}

static void on_claimed(void *arg, sl_err err, struct sl_str value)
{
    struct wechat_call *c = arg;
    if (c->wc->is_closing)
        return;
    if (err == SL_OK) {
        struct sl_str xml = sl_buf_view(&c->plain);
        struct sl_buf copy;
        sl_buf_init(&copy, 0);
        sl_buf_add(&copy, xml.ptr + 1, xml.len - 1);
        write_answer(c, sl_buf_view(&copy));
        sl_buf_fini(&copy);
    } else {
        (void)value;
        park_poll(c);
    }
}

static void on_offer(void *arg, sl_err err, struct sl_str value)
{
    struct wechat_call *c = arg;
    char name[64];
    if (c->wc->is_closing)
        return;
    if (err != SL_OK || value.len < 2) {
        park_poll(c);
        return;
    }
    if (value.ptr[0] == '!') { /* a repeat after the answer: the same again */
        write_answer(c, sl_str_n(value.ptr + 1, value.len - 1));
        return;
    }
    struct sl_buf claimed;
    sl_buf_init(&claimed, ANSWER_MAX);
    sl_buf_clear(&c->plain);
    sl_buf_str(&c->plain, value);
    sl_buf_char(&claimed, '!');
    sl_buf_add(&claimed, value.ptr + 1, value.len - 1);
    value_name(name, "pa", c->answer_id);
    sl_err swap = value.ptr[0] == '=' ? wechat_kv(c->wc, CHAN_KV_SWAP, name, sl_buf_view(&claimed), value,
                                                  KEEP_MS, on_claimed, c)
                                      : SL_EAGAIN;
    sl_buf_fini(&claimed);
    if (swap != SL_OK)
        park_poll(c);
}

static void on_park_timer(void *arg)
{
    struct wechat_call *c = arg;
    char name[64];
    if (c->wc->is_closing)
        return;
    value_name(name, "pa", c->answer_id);
    if (wechat_kv(c->wc, CHAN_KV_GET, name, SL_STR_NONE, SL_STR_NONE, 0, on_offer, c) != SL_OK)
        park_poll(c);
}

void wechat_passive_park(struct wechat_call *c)
{
    c->is_parked = true;
    sl_timer_init(&c->timer, chan_loop(c->wc->ch), on_park_timer, c);
    sl_timer_start(&c->timer, 0);
}

/* ---- who has the answer ---- */

static void job_poll(struct wechat_job *j);

static void settle_sent(struct wechat_job *j)
{
    wechat_job_settle(j, &(struct chan_result){.outcome = CHAN_SENT, .remote_id = sl_str_c(j->answer_id)});
}

static bool is_over(const struct wechat_job *j)
{
    return sl_loop_unix_ms(chan_loop(j->wc->ch)) >= j->asked_unix_ms + WECHAT_PASSIVE_ALL_MS;
}

static void on_withdrawn(void *arg, sl_err err, struct sl_str value)
{
    struct wechat_job *j = arg;
    (void)value;
    j->calls--;
    if (!j->is_settled && !j->wc->is_closing) {
        if (err == SL_OK || err == SL_ENOTFOUND) {
            wechat_job_fail(
                j, CHAN_FAILED, false, "late",
                "客户的消息已超过被动回复的时限 (too late to answer within the customer's request)");
        } else if (j->polls < GRACE_POLLS) {
            job_poll(j);
        } else {
            wechat_job_fail(j, CHAN_UNKNOWN, false, "passive",
                            "回复已交给连接，不知是否写出 (the answer was handed to a connection: it may "
                            "have been written)");
        }
    }
    wechat_job_unref(j);
}

static void withdraw(struct wechat_job *j)
{
    char name[64];
    value_name(name, "pa", j->answer_id);
    j->polls++;
    sl_err err =
        wechat_kv(j->wc, CHAN_KV_SWAP, name, SL_STR("x"), sl_buf_view(&j->answer), KEEP_MS, on_withdrawn, j);
    j->calls += err == SL_OK;
    if (err != SL_OK)
        wechat_job_fail(
            j, CHAN_UNKNOWN, false, "passive",
            "共享数据不可用，不知是否已回复 (the shared values are out of reach: it may have been answered)");
}

static void on_done(void *arg, sl_err err, struct sl_str value)
{
    struct wechat_job *j = arg;
    (void)value;
    j->calls--;
    if (!j->is_settled && !j->wc->is_closing) {
        if (err == SL_OK)
            settle_sent(j);
        else if (is_over(j))
            withdraw(j);
        else
            job_poll(j);
    }
    wechat_job_unref(j);
}

static void on_job_timer(void *arg)
{
    struct wechat_job *j = arg;
    char name[64];
    value_name(name, "pd", j->answer_id);
    sl_err err = wechat_kv(j->wc, CHAN_KV_GET, name, SL_STR_NONE, SL_STR_NONE, 0, on_done, j);
    j->calls += err == SL_OK;
    if (err != SL_OK) {
        if (is_over(j))
            withdraw(j);
        else
            job_poll(j);
    }
    wechat_job_unref(j);
}

static void job_poll(struct wechat_job *j)
{
    sl_timer_init(&j->timer, chan_loop(j->wc->ch), on_job_timer, j);
    sl_timer_start(&j->timer, POLL_MS);
}

/* The callback may be held by this very process. */
static void poke(struct wechat_job *j)
{
    for (struct wechat_call *c = j->wc->calls; c != NULL; c = c->next)
        if (c->is_parked && strcmp(c->answer_id, j->answer_id) == 0 && sl_timer_is_active(&c->timer))
            sl_timer_start(&c->timer, 0);
}

static void on_offered(void *arg, sl_err err, struct sl_str value)
{
    struct wechat_job *j = arg;
    (void)value;
    j->calls--;
    if (!j->is_settled && !j->wc->is_closing) {
        if (err == SL_OK) {
            j->is_posted = true; /* somebody may claim it from now on */
            poke(j);
            job_poll(j);
        } else if (err == SL_ECONFLICT) {
            wechat_job_fail(j, CHAN_FAILED, false, "passive",
                            "一条客户消息只能被动回复一次 (a customer's message can be answered once without "
                            "the customer-service interface)");
        } else {
            wechat_job_fail(j, CHAN_UNKNOWN, true, sl_err_name(err),
                            "共享数据不可用，不知是否已回复 (the shared values are out of reach: it may have "
                            "been answered)");
        }
    }
    wechat_job_unref(j);
}

static bool build_answer(struct wechat_job *j)
{
    struct sl_fail why;
    struct wechat_answer a = {.to_openid = j->address,
                              .from_account = sl_str_c(j->account),
                              .now_unix_s = sl_loop_unix_ms(chan_loop(j->wc->ch)) / 1000,
                              .type = WECHAT_ANSWER_TEXT,
                              .text = j->m.text};
    json_t *data = j->m.data.len > 0 ? sl_json_parse(j->m.data, &why) : NULL;
    struct sl_str url = sl_json_get_str(data, "url"), title = sl_json_get_str(data, "title");
    if ((j->m.kind == MSG_CARD || j->m.kind == MSG_LINK) && url.len > 0) {
        a.type = WECHAT_ANSWER_NEWS;
        a.title = title.len > 0 ? title : j->m.text;
        a.description = sl_json_get_str(data, "description");
        a.picture_url = sl_json_get_str(data, "image");
        a.url = url;
    }
    sl_buf_clear(&j->answer);
    sl_buf_char(&j->answer, '=');
    wechat_xml_answer(&j->answer, &a);
    json_decref(data);
    return (a.type == WECHAT_ANSWER_NEWS || j->m.text.len > 0) && j->answer.len <= ANSWER_MAX;
}

void wechat_passive_begin(struct wechat_job *j)
{
    char name[64];
    if (j->answer_id[0] == '\0' || is_over(j)) {
        wechat_job_fail(j, CHAN_FAILED, false, "late",
                        "没有正在等待回复的客户消息 (no message of the customer waits for an answer)");
        return;
    }
    if (!build_answer(j)) {
        wechat_job_fail(
            j, CHAN_FAILED, false, "kind",
            "被动回复不能发送这种消息 (an answer in the callback cannot carry this kind of message)");
        return;
    }
    value_name(name, "pa", j->answer_id);
    sl_err err =
        wechat_kv(j->wc, CHAN_KV_ADD, name, sl_buf_view(&j->answer), SL_STR_NONE, KEEP_MS, on_offered, j);
    j->calls += err == SL_OK;
    if (err != SL_OK)
        wechat_job_fail(j, CHAN_FAILED, true, sl_err_name(err),
                        "共享数据暂时不可用 (the shared values are out of reach just now)");
}
