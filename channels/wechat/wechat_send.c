/* channels/wechat/wechat_send.c - one job at a time through its steps: token, media, the call itself, the settlement.
 *
 * Nothing is retried here: the lane decides. What this file knows better than the lane is whether the message may have left: before
 * SEND_POST it certainly has not, whatever fails.
 */
#include "channels/wechat/wechat_priv.h"

#include "base/fault.h"
#include "proto/keys.h"

#include <stdio.h>
#include <stdlib.h>

#define BODY_MAX       (256 * 1024)
#define ALARM_PAUSE_MS 60000
#define QUOTA_PAUSE_MS 600000

static void job_go(struct wechat_job *j, enum wechat_step step);

/* ---- life ---- */

static void job_free(struct wechat_job *j)
{
    *j->prev = j->next;
    if (j->next != NULL)
        j->next->prev = j->prev;
    sl_gauge_set(j->wc->jobs_gauge, (int64_t)--j->wc->job_count);
    sl_timer_stop(&j->timer);
    wechat_token_leave(j->wc, &j->waiter);
    sl_buf_fini(&j->bytes);
    sl_buf_fini(&j->answer);
    free(j);
}

void wechat_job_unref(struct wechat_job *j)
{
    if (j->is_settled && j->calls == 0)
        job_free(j);
}

void wechat_job_settle(struct wechat_job *j, const struct chan_result *r)
{
    sl_assert(!j->is_settled);
    j->is_settled = true;
    j->step = SEND_DONE;
    sl_timer_stop(&j->timer);
    wechat_token_leave(j->wc, &j->waiter);
    chan_host_of(j->wc->ch)->settled(j->wc->ch, j->job, r);
    j->job = NULL;
}

void wechat_job_fail(struct wechat_job *j, enum chan_outcome outcome, bool may_retry, const char *code,
                     const char *words)
{
    wechat_job_settle(
        j, &(struct chan_result){
               .outcome = outcome, .may_retry = may_retry, .code = sl_str_c(code), .words = sl_str_c(words)});
}

static void fail_by(struct wechat_job *j, const struct wechat_error *e)
{
    char code[24];
    struct sl_buf words;
    (void)snprintf(code, sizeof code, "%d", e->code);
    sl_buf_init(&words, 1024);
    wechat_error_words(e, &words);
    if (e->what == WECHAT_TOKEN)
        wechat_token_refused(j->wc, j->used_token);
    if (e->what == WECHAT_ALARM || e->what == WECHAT_QUOTA)
        wechat_alarm(j->wc, e);
    wechat_job_settle(j, &(struct chan_result){.outcome = CHAN_FAILED,
                                               .code = sl_str_c(code),
                                               .words = sl_buf_view(&words),
                                               .may_retry = wechat_class_may_retry(e->what),
                                               .is_account = wechat_class_is_account(e->what),
                                               .retry_after_ms = e->what == WECHAT_ALARM   ? ALARM_PAUSE_MS
                                                                 : e->what == WECHAT_QUOTA ? QUOTA_PAUSE_MS
                                                                                           : 0});
    sl_buf_fini(&words);
}

void wechat_jobs_end(struct wechat *wc)
{
    for (struct wechat_job *j = wc->jobs, *next; j != NULL; j = next) {
        next = j->next;
        if (!j->is_settled) {
            bool may_be_sent = j->is_posted;
            wechat_job_fail(
                j, may_be_sent ? CHAN_UNKNOWN : CHAN_FAILED, true, "closing",
                may_be_sent
                    ? "程序停止时尚未收到平台的答复 (no answer of the platform before the program stopped)"
                    : "程序停止时尚未发送 (not yet sent when the program stopped)");
        }
        wechat_job_unref(j);
    }
}

void wechat_jobs_free(struct wechat *wc)
{
    while (wc->jobs != NULL)
        job_free(wc->jobs);
}

/* ---- answers of the API ---- */

static void fail_transport(struct wechat_job *j, const struct sl_http_answer *a)
{
    bool may_be_sent = j->step == SEND_POST && a->sent == SL_HTTP_MAY_BE_SENT;
    wechat_job_settle(
        j,
        &(struct chan_result){
            .outcome = may_be_sent ? CHAN_UNKNOWN : CHAN_FAILED,
            .code = sl_str_c(sl_err_name(a->err)),
            .words =
                may_be_sent
                    ? SL_STR(
                          "平台没有答复，不知是否已送出 (the platform did not answer: it may have been sent)")
                    : SL_STR("连不上微信平台 (the platform cannot be reached)"),
            .may_retry = true,
            .is_account = !may_be_sent});
}

static void fail_status(struct wechat_job *j, const struct sl_http_answer *a)
{
    char code[24];
    int64_t after = sl_http_retry_after_ms(a, sl_loop_unix_ms(chan_loop(j->wc->ch)));
    bool is_busy = a->status == 429 || a->status == 503, is_refusal = a->status >= 400 && a->status < 500;
    bool may_be_sent = j->step == SEND_POST && !is_busy && !is_refusal;
    (void)snprintf(code, sizeof code, "http-%d", a->status);
    wechat_job_settle(
        j, &(struct chan_result){.outcome = may_be_sent ? CHAN_UNKNOWN : CHAN_FAILED,
                                 .code = sl_str_c(code),
                                 .words = may_be_sent
                                              ? SL_STR("平台答复出错，不知是否已送出 (the platform's answer "
                                                       "is an error: it may have been sent)")
                                              : SL_STR("平台拒绝了请求 (the platform refused the request)"),
                                 .may_retry = !is_refusal || is_busy,
                                 .is_account = is_busy,
                                 .retry_after_ms = after > 0 ? after : 0});
}

static bool take_upload(struct wechat_job *j, struct sl_str body)
{
    struct sl_fail why;
    json_t *root = sl_json_parse(body, &why);
    struct sl_str id = sl_json_get_str(root, "media_id");
    int64_t code = sl_json_get_int(root, "errcode", 0);
    bool is_taken = code == 0 && id.len > 0 && id.len < sizeof j->media_id;
    if (is_taken) {
        memcpy(j->media_id, id.ptr, id.len);
        j->media_id[id.len] = '\0';
    } else {
        fail_by(j, wechat_error_find(j->wc->product, code != 0 ? code : 1));
    }
    json_decref(root);
    return is_taken;
}

static void on_uploaded(void *arg, const struct sl_http_answer *a)
{
    struct wechat_job *j = arg;
    struct wechat *wc = j->wc;
    wc->http_calls--;
    j->calls--;
    if (!j->is_settled && !wc->is_closing) {
        if (a->err != SL_OK)
            fail_transport(j, a);
        else if (a->status != 200)
            fail_status(j, a);
        else if (take_upload(j, a->body))
            job_go(j, SEND_POST);
    }
    wechat_job_unref(j);
    wechat_finish(wc);
}

#define KF_STATE_REFUSED 95018 /* send_msg: the session is in a state that forbids it */

void wechat_job_post(struct wechat_job *j)
{
    job_go(j, SEND_POST);
}

static void settle_by_answer(struct wechat_job *j, struct sl_str body)
{
    struct wechat_result r;
    json_t *hold = NULL;
    if (wechat_result_read(&r, j->wc->product, body, &hold) != SL_OK) {
        wechat_job_fail(j, CHAN_UNKNOWN, true, "answer",
                        "平台的答复无法识别，不知是否已送出 (the platform's answer makes no sense: it may "
                        "have been sent)");
        return;
    }
    if (r.error->what == WECHAT_FINE) {
        wechat_count("sent");
        wechat_alarm_clear(j->wc);
        wechat_job_settle(j, &(struct chan_result){.outcome = CHAN_SENT, .remote_id = r.remote_id});
    } else if (r.error->code != KF_STATE_REFUSED || !wechat_state_ask(j)) {
        fail_by(j, r.error);
    } else {
        j->step = SEND_STATE;
    }
    json_decref(hold);
}

static void on_posted(void *arg, const struct sl_http_answer *a)
{
    struct wechat_job *j = arg;
    struct wechat *wc = j->wc;
    wc->http_calls--;
    j->calls--;
    if (!j->is_settled) {
        if (a->err != SL_OK)
            fail_transport(j, a);
        else if (a->status != 200)
            fail_status(j, a);
        else
            settle_by_answer(j, a->body);
    }
    wechat_job_unref(j);
    wechat_finish(wc);
}

/* ---- the steps ---- */

static struct wechat_out out_of(const struct wechat_job *j)
{
    const struct wechat *wc = j->wc;
    return (struct wechat_out){.product = wc->product,
                               .m = &j->m,
                               .to = j->address,
                               .media_id = sl_str_c(j->media_id),
                               .agent_id = sl_str_c(wc->agent_id),
                               .open_kfid = sl_str_c(j->open_kfid),
                               .key = j->key,
                               .kf_account = sl_str_c(wc->kf_account),
                               .duplicate_check_s = wc->duplicate_check_s};
}

static const char no_such_kind[] = "微信不能发送这种消息 (WeChat cannot carry this kind of message)";

static void step_post(struct wechat_job *j)
{
    struct sl_buf body;
    struct wechat_out o = out_of(j);
    sl_buf_init(&body, BODY_MAX);
    if (!wechat_out_write(&o, &body)) {
        wechat_job_fail(j, CHAN_FAILED, false, "kind", no_such_kind);
    } else {
        sl_err err =
            wechat_api(j->wc, wechat_out_path(&o), j->used_token, NULL, sl_buf_view(&body), 0, on_posted, j);
        j->is_posted = err == SL_OK;
        j->calls += err == SL_OK;
        if (err != SL_OK)
            wechat_job_fail(j, CHAN_FAILED, true, sl_err_name(err),
                            "太多请求同时进行 (too many requests at once)");
    }
    sl_buf_fini(&body);
}

/* What the platform takes as this type: the page of temporary media. Other files become a text with a link. */
static bool is_uploadable(enum wechat_product product, const char *type, const struct chan_media *m)
{
    static const struct {
        const char *type, *mime;
        int64_t max;
    } table[] = {
        {"image", "image/png", 10 << 20}, {"image", "image/jpeg", 10 << 20}, {"image", "image/gif", 10 << 20},
        {"voice", "audio/amr", 2 << 20},  {"voice", "audio/mpeg", 2 << 20},  {"voice", "audio/mp3", 2 << 20},
        {"video", "video/mp4", 10 << 20},
    };
    if (m->size <= 5) /* WeCom: more than 5 bytes */
        return false;
    if (strcmp(type, "file") == 0)
        return m->size <= WECHAT_MEDIA_MAX;
    bool is_amr_only = product != WECHAT_OA; /* the other two take AMR alone */
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(type, table[i].type) == 0 && strcmp(m->type, table[i].mime) == 0)
            return m->size <= table[i].max &&
                   (strcmp(type, "voice") != 0 || !is_amr_only || strcmp(m->type, "audio/amr") == 0);
    return false;
}

static void multipart(struct sl_buf *out, const char *boundary, const struct chan_media *m,
                      struct sl_str bytes)
{
    char name[sizeof m->name];
    size_t n = 0;
    for (const char *p = m->name; *p != '\0' && n + 1 < sizeof name; p++)
        if (*p != '"' && *p != '\\' && (unsigned char)*p >= 0x20)
            name[n++] = *p;
    name[n] = '\0';
    sl_buf_printf(out,
                  "--%s\r\nContent-Disposition: form-data; name=\"media\"; filename=\"%s\"; "
                  "filelength=%lld\r\nContent-Type: %s\r\n\r\n",
                  boundary, n > 0 ? name : "file", (long long)bytes.len, m->type);
    sl_buf_str(out, bytes);
    sl_buf_printf(out, "\r\n--%s--\r\n", boundary);
}

/* The picture cannot go as one: its caption and a link go instead. */
static void become_link(struct wechat_job *j, const struct chan_media *m)
{
    struct sl_buf text;
    sl_buf_init(&text, MSG_TEXT_MAX_BYTES);
    sl_buf_str(&text, j->m.text);
    if (j->m.text.len > 0)
        sl_buf_char(&text, '\n');
    size_t before = text.len;
    chan_host_of(j->wc->ch)->media_link(j->wc->ch, sl_str_c(m->id), sl_str_c(m->name), &text);
    if (text.len == before || text.overflow) {
        wechat_job_fail(j, CHAN_FAILED, false, "media",
                        "微信不支持这种文件，也没有可用的链接 (WeChat does not take this file, and there is "
                        "no public address for a link)");
    } else {
        sl_buf_clear(&j->answer);
        sl_buf_str(&j->answer, sl_buf_view(&text));
        j->m.kind = MSG_TEXT;
        j->m.text = sl_buf_view(&j->answer);
        job_go(j, SEND_POST);
    }
    sl_buf_fini(&text);
}

static void upload(struct wechat_job *j, const struct chan_media *m, struct sl_str bytes)
{
    char boundary[40], type[96], path[64];
    const char *what = wechat_out_media_type(j->wc->product, &j->m);
    struct sl_buf body;
    if (what == NULL || !is_uploadable(j->wc->product, what, m)) {
        become_link(j, m);
        return;
    }
    (void)snprintf(type, sizeof type, "multipart/form-data; boundary=%s", wechat_random_name(boundary));
    (void)snprintf(path, sizeof path, "/cgi-bin/media/upload?type=%s", what);
    sl_buf_init(&body, WECHAT_MEDIA_MAX + 4096);
    multipart(&body, boundary, m, bytes);
    j->step = SEND_UPLOAD;
    sl_err err = body.overflow
                     ? SL_ETOOBIG
                     : wechat_api(j->wc, path, j->used_token, type, sl_buf_view(&body), 0, on_uploaded, j);
    sl_buf_fini(&body);
    j->calls += err == SL_OK;
    if (err != SL_OK)
        wechat_job_fail(j, CHAN_FAILED, true, sl_err_name(err),
                        "太多请求同时进行 (too many requests at once)");
}

static void on_read(void *arg, sl_err err, const struct chan_media *media, struct sl_str bytes,
                    const struct sl_fail *why)
{
    struct wechat_job *j = arg;
    (void)why;
    j->calls--;
    if (!j->is_settled && !j->wc->is_closing) {
        if (err == SL_OK)
            upload(j, media, bytes);
        else
            wechat_job_fail(j, CHAN_FAILED, sl_err_retry(err), sl_err_name(err),
                            "附件读不出来 (the attachment cannot be read)");
    }
    wechat_job_unref(j);
}

/* The first attachment's id; empty: none. */
static void attachment_of(const struct msg *m, char out[65])
{
    struct sl_fail why;
    json_t *data = m->data.len > 0 ? sl_json_parse(m->data, &why) : NULL;
    struct sl_str id = sl_json_get_str(json_array_get(json_object_get(data, "attachments"), 0), "id");
    size_t n = id.len <= 64 ? id.len : 0;
    if (n > 0)
        memcpy(out, id.ptr, n);
    out[n] = '\0';
    json_decref(data);
}

static void step_read(struct wechat_job *j)
{
    char id[65];
    if (wechat_out_media_type(j->wc->product, &j->m) == NULL) {
        job_go(j, SEND_POST);
        return;
    }
    attachment_of(&j->m, id);
    if (id[0] == '\0') {
        wechat_job_fail(j, CHAN_FAILED, false, "media", "消息没有附件 (the message has no attachment)");
        return;
    }
    sl_err err = chan_host_of(j->wc->ch)->media_read(j->wc->ch, sl_str_c(id), on_read, j);
    j->calls += err == SL_OK;
    if (err != SL_OK)
        wechat_job_fail(j, CHAN_FAILED, true, sl_err_name(err),
                        "附件暂时读不出来 (the attachment cannot be read just now)");
}

static void on_token(void *arg, const struct wechat_error *why)
{
    struct wechat_job *j = arg;
    if (why == NULL)
        job_go(j, SEND_TOKEN);
    else
        fail_by(j, why);
    wechat_job_unref(j);
}

static void step_token(struct wechat_job *j)
{
    const char *token = wechat_token_now(j->wc);
    if (token == NULL) {
        wechat_token_wait(j->wc, &j->waiter);
        return;
    }
    (void)snprintf(j->used_token, sizeof j->used_token, "%s", token);
    job_go(j, SEND_READ);
}

static void job_go(struct wechat_job *j, enum wechat_step step)
{
    j->step = step;
    switch (step) {
    case SEND_TOKEN:
        step_token(j);
        return;
    case SEND_READ:
        step_read(j);
        return;
    case SEND_POST:
        step_post(j);
        return;
    case SEND_PASSIVE:
        wechat_passive_begin(j);
        return;
    case SEND_UPLOAD: /* entered by upload() */
    case SEND_STATE:  /* and by settle_by_answer() */
    case SEND_DONE:
        return;
    }
}

/* ---- accepting ---- */

static struct sl_str keep(struct wechat_job *j, struct sl_str s)
{
    struct sl_str kept = sl_str_n(j->bytes.ptr + j->bytes.len, s.len);
    sl_buf_str(&j->bytes, s);
    return kept;
}

static void copy_word(char *out, size_t size, struct sl_str s)
{
    size_t n = s.len < size ? s.len : 0;
    if (n > 0)
        memcpy(out, s.ptr, n);
    out[n] = '\0';
}

static void copy_context(struct wechat_job *j, struct sl_str context)
{
    struct sl_fail why;
    json_t *c = context.len > 0 ? sl_json_parse(context, &why) : NULL;
    struct sl_str kf = sl_json_get_str(c, "kf");
    copy_word(j->open_kfid, sizeof j->open_kfid, kf.len > 0 ? kf : sl_str_c(j->wc->open_kfid));
    copy_word(j->answer_id, sizeof j->answer_id, sl_json_get_str(c, "id"));
    copy_word(j->account, sizeof j->account, sl_json_get_str(c, "account"));
    j->asked_unix_ms = sl_json_get_int(c, "at", 0);
    json_decref(c);
}

static void on_job_turn(void *arg)
{
    struct wechat_job *j = arg;
    if (!j->wc->is_closing)
        job_go(j, j->wc->is_passive ? SEND_PASSIVE : SEND_TOKEN);
    wechat_job_unref(j);
}

sl_err wechat_send(struct chan *ch, const struct chan_send *s, struct chan_job *job)
{
    struct wechat *wc = wechat_of(ch);
    if (wc->job_count >= WECHAT_JOBS_MAX || wc->is_closing || wc->http == NULL)
        return SL_EAGAIN;
    struct wechat_job *j = sl_alloc(sizeof *j);
    *j = (struct wechat_job){.wc = wc, .job = job, .prev = &wc->jobs, .next = wc->jobs};
    if (j->next != NULL)
        j->next->prev = &j->next;
    wc->jobs = j;
    sl_gauge_set(wc->jobs_gauge, (int64_t)++wc->job_count);
    size_t size = s->m->text.len + s->m->data.len + s->address.len + s->key.len + 16;
    sl_buf_init(&j->bytes, 0);
    sl_buf_init(&j->answer, 0);
    sl_assert(sl_buf_grow(&j->bytes, size)); /* made once: views into it do not move */
    j->m = (struct msg){
        .by = s->m->by, .kind = s->m->kind, .text = keep(j, s->m->text), .data = keep(j, s->m->data)};
    j->address = keep(j, s->address);
    j->key = keep(j, s->key);
    j->waiter = (struct wechat_waiter){.fn = on_token, .arg = j};
    copy_context(j, s->context);
    sl_timer_init(&j->timer, chan_loop(ch), on_job_turn, j);
    sl_timer_start(&j->timer, 0);
    return SL_OK;
}

/* ---- beside the lane: typing, a welcome ---- */

static void on_told(void *arg, const struct sl_http_answer *a)
{
    struct wechat *wc = arg;
    wc->http_calls--;
    wechat_count(a->err == SL_OK && a->status == 200 ? "told" : "not_told");
    wechat_finish(wc);
}

/* Best effort, so only with a token that is at hand. */
void wechat_typing(struct chan *ch, struct sl_str address, bool is_typing)
{
    struct wechat *wc = wechat_of(ch);
    const char *token = wechat_token_now(wc);
    struct sl_buf body;
    struct sl_json j;
    if (wc->product != WECHAT_OA || wc->is_passive || token == NULL || wc->is_closing || wc->http == NULL)
        return;
    sl_buf_init(&body, 1024);
    sl_json_begin(&j, &body);
    sl_json_open(&j, NULL, '{');
    sl_json_str(&j, "touser", address);
    sl_json_c(&j, "command", is_typing ? "Typing" : "CancelTyping");
    sl_json_close(&j, '}');
    (void)!wechat_api(wc, "/cgi-bin/message/custom/typing", token, NULL, sl_buf_view(&body), 0, on_told, wc);
    sl_buf_fini(&body);
}

sl_err wechat_tell(struct wechat *wc, const char *welcome_code, const char *open_kfid, struct sl_str text)
{
    const char *token = wechat_token_now(wc);
    char key[40];
    struct sl_buf body;
    const struct msg m = {.by = MSG_BY_SYSTEM, .kind = MSG_TEXT, .text = text};
    const struct wechat_out o = {.product = WECHAT_KF,
                                 .m = &m,
                                 .open_kfid = sl_str_c(open_kfid),
                                 .key = sl_str_n(wechat_random_name(key), 32),
                                 .welcome_code = sl_str_c(welcome_code)};
    if (token == NULL)
        return SL_EAGAIN;
    sl_buf_init(&body, BODY_MAX);
    sl_err err = wechat_out_write(&o, &body)
                     ? wechat_api(wc, wechat_out_path(&o), token, NULL, sl_buf_view(&body), 0, on_told, wc)
                     : SL_EINVAL;
    sl_buf_fini(&body);
    return err;
}
