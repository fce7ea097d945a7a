/* channels/wechat/wechat_state.c - customer service: a send was refused with 95018, because the session is not ours. Whose is it, and
 * may we take it back?
 *
 * kf/service_state/get and trans; the states: developer.work.weixin.qq.com, "分配客服会话". 95018 says that nothing was sent, and msgid
 * drops a repeat, so sending again after the state was changed is safe. Once a job: a session that changes under us is not fought over.
 */
#include "channels/wechat/wechat_priv.h"

#include "base/json.h"

#include <stdio.h>

enum kf_state { KF_NEW, KF_BOT, KF_QUEUED, KF_HUMAN, KF_ENDED }; /* KF_NEW, KF_BOT: send_msg works */

static sl_err call(struct wechat_job *j, const char *path, int state, sl_http_fn fn)
{
    struct sl_buf body;
    struct sl_json w;
    sl_buf_init(&body, 2048);
    sl_json_begin(&w, &body);
    sl_json_open(&w, NULL, '{');
    sl_json_c(&w, "open_kfid", j->open_kfid);
    sl_json_str(&w, "external_userid", j->address);
    if (state >= 0)
        sl_json_int(&w, "service_state", state);
    sl_json_close(&w, '}');
    sl_err err = wechat_api(j->wc, path, j->used_token, NULL, sl_buf_view(&body), 0, fn, j);
    j->calls += err == SL_OK;
    sl_buf_fini(&body);
    return err;
}

static void refuse(struct wechat_job *j, const char *words)
{
    wechat_count("kf_session_not_ours");
    wechat_job_fail(j, CHAN_FAILED, false, "95018", words);
}

/* errcode of an answer; -1: none that can be read. *root is the caller's. */
static int64_t answer_of(const struct sl_http_answer *a, json_t **root)
{
    struct sl_fail why;
    *root = a->err == SL_OK && a->status == 200 ? sl_json_parse(a->body, &why) : NULL;
    return json_is_object(*root) ? sl_json_get_int(*root, "errcode", 0) : -1;
}

static void on_taken(void *arg, const struct sl_http_answer *a)
{
    struct wechat_job *j = arg;
    struct wechat *wc = j->wc;
    json_t *root;
    const int64_t code = answer_of(a, &root);
    json_decref(root);
    wc->http_calls--;
    j->calls--;
    if (!j->is_settled && !wc->is_closing) {
        if (code == 0) {
            wechat_count("kf_session_taken_back");
            wechat_job_post(j);
        } else {
            refuse(j, "会话不在我们手中，平台也不允许取回 (the session is not ours, and the platform does "
                      "not let us take it back)");
        }
    }
    wechat_job_unref(j);
    wechat_finish(wc);
}

static void judge(struct wechat_job *j, int64_t state)
{
    switch (state) {
    case KF_NEW:
    case KF_BOT: /* it changed meanwhile */
        wechat_job_post(j);
        return;
    case KF_QUEUED:
    case KF_HUMAN:
        if (j->wc->kf_take_back && call(j, "/cgi-bin/kf/service_state/trans", KF_BOT, on_taken) == SL_OK)
            return;
        refuse(
            j,
            state == KF_QUEUED
                ? "客户在企业微信的接待池中排队 (the customer waits in WeCom's own queue)"
                : "客户正由企业微信客户端的人工接待 (a person in WeCom's own client serves this customer)");
        return;
    case KF_ENDED:
        refuse(j, "会话已结束，客户再次发消息后才能回复 (the session has ended: it opens again when the "
                  "customer writes)");
        return;
    default:
        refuse(j, "会话状态不允许发送 (the session's state forbids it)");
    }
}

static void on_state(void *arg, const struct sl_http_answer *a)
{
    struct wechat_job *j = arg;
    struct wechat *wc = j->wc;
    json_t *root;
    const int64_t code = answer_of(a, &root),
                  state = code == 0 ? sl_json_get_int(root, "service_state", -1) : -1;
    json_decref(root);
    wc->http_calls--;
    j->calls--;
    if (!j->is_settled && !wc->is_closing)
        judge(j, state);
    wechat_job_unref(j);
    wechat_finish(wc);
}

bool wechat_state_ask(struct wechat_job *j)
{
    if (j->wc->product != WECHAT_KF || j->has_asked_state || j->wc->is_closing)
        return false;
    j->has_asked_state = true;
    j->is_posted = false; /* refused: it has not left */
    return call(j, "/cgi-bin/kf/service_state/get", -1, on_state) == SL_OK;
}
