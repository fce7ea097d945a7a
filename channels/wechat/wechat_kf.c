/* channels/wechat/wechat_kf.c - customer service: a callback is a hint, the messages are fetched by kf/sync_msg from a stored cursor.
 *
 * One drain at a time in this process, and one per service account over all gateways, by a shared lock with a time limit. The lock
 * saves calls, it does not carry the promise: messages are known by their msgid, and the cursor is stored only after every item of a
 * page is durable. A page whose item was refused is fetched again from the old cursor, so nothing is lost and nothing passes another.
 */
#include "channels/wechat/wechat_priv.h"

#include "base/log.h"
#include "proto/keys.h"

#include <stdio.h>
#include <stdlib.h>

#define LOCK_MS    10000 /* renewed with each page; a dead holder keeps others waiting this long */
#define PAGE_ITEMS 200   /* of 1000: a page stays small enough to parse, and a refused one cheap to repeat */
#define PAGE_MAX   (1 << 20)
#define TOKEN_MS   590000 /* a callback's token lives 10 minutes: developer.work.weixin.qq.com path 94670 */
#define BUSY_MS    500    /* another gateway drains: look again, there may be news it has not seen */
#define AGAIN_MS   1000
#define TRIES_MAX  20

static void kf_go(struct wechat *wc, enum wechat_kf_step step);

static struct wechat_kf_account *current(struct wechat *wc)
{
    return &wc->kf->account[wc->kf->at];
}

static void value_name(const struct wechat *wc, char out[MSG_ID_MAX_BYTES + 16], const char *what)
{
    (void)snprintf(out, MSG_ID_MAX_BYTES + 16, "%s-%.100s", what, wc->kf->account[wc->kf->at].open_kfid);
}

/* ---- which account is next ---- */

static void on_timer(void *arg);

/* Start what is due, or sleep until it is. On a timer: nobody is called back inside his call. */
static void kf_wake(struct wechat *wc)
{
    struct wechat_kf *kf = wc->kf;
    uint64_t now = sl_loop_mono_ms(chan_loop(wc->ch)), wait = UINT64_MAX;
    if (kf->step != KF_IDLE || wc->is_draining || wc->http == NULL)
        return;
    for (size_t i = 0; i < kf->accounts; i++) {
        const struct wechat_kf_account *a = &kf->account[i];
        if (!a->is_due)
            continue;
        uint64_t ms = a->not_before_mono_ms > now ? a->not_before_mono_ms - now : 0;
        wait = ms < wait ? ms : wait;
    }
    if (wait != UINT64_MAX)
        sl_timer_start(&kf->timer, wait);
}

static void on_timer(void *arg)
{
    struct wechat *wc = arg;
    struct wechat_kf *kf = wc->kf;
    uint64_t now = sl_loop_mono_ms(chan_loop(wc->ch));
    if (kf->step != KF_IDLE || wc->is_draining)
        return;
    for (size_t n = 0; n < kf->accounts; n++) {
        size_t i = (kf->at + 1 + n) % kf->accounts; /* in turns */
        if (!kf->account[i].is_due || kf->account[i].not_before_mono_ms > now)
            continue;
        kf->at = i;
        kf->account[i].is_due = false;
        kf_go(wc, KF_LOCK);
        return;
    }
    kf_wake(wc);
}

static struct wechat_kf_account *account_of(struct wechat *wc, struct sl_str open_kfid)
{
    struct wechat_kf *kf = wc->kf;
    for (size_t i = 0; i < kf->accounts; i++)
        if (sl_str_eq_c(open_kfid, kf->account[i].open_kfid))
            return &kf->account[i];
    if (kf->accounts == WECHAT_KF_MAX || open_kfid.len > MSG_ID_MAX_BYTES)
        return NULL;
    struct wechat_kf_account *a = &kf->account[kf->accounts++];
    *a = (struct wechat_kf_account){.open_kfid = ""};
    memcpy(a->open_kfid, open_kfid.ptr, open_kfid.len);
    return a;
}

void wechat_kf_hint(struct wechat *wc, struct sl_str open_kfid, struct sl_str token)
{
    struct wechat_kf_account *a = wc->kf != NULL ? account_of(wc, open_kfid) : NULL;
    if (a == NULL) {
        wechat_count("kf_hint_ignored");
        return;
    }
    if (token.len > 0 && token.len < sizeof a->token) {
        memcpy(a->token, token.ptr, token.len);
        a->token[token.len] = '\0';
        a->token_until_mono_ms = sl_loop_mono_ms(chan_loop(wc->ch)) + TOKEN_MS;
    }
    a->is_due = true;
    a->tries = 0;
    a->not_before_mono_ms = 0;
    kf_wake(wc);
}

/* We may have missed hints while nobody was here: fetch once from where we were. */
void wechat_kf_hold(struct wechat *wc)
{
    if (wc->open_kfid[0] != '\0')
        wechat_kf_hint(wc, sl_str_c(wc->open_kfid), SL_STR_NONE);
}

/* ---- the end of a drain ---- */

static void page_drop(struct wechat_kf *kf)
{
    if (kf->has_page)
        wechat_page_fini(&kf->page);
    kf->has_page = false;
}

static void on_unlocked(void *arg, sl_err err, struct sl_str value)
{
    struct wechat *wc = arg;
    (void)err;
    (void)value;
    if (wc->is_closing)
        return;
    wc->kf->step = KF_IDLE;
    kf_wake(wc);
}

static void kf_end(struct wechat *wc)
{
    page_drop(wc->kf);
    kf_go(wc, KF_UNLOCK);
}

/* Again after a pause, from the stored cursor. */
static void kf_later(struct wechat *wc, uint64_t ms, const char *what)
{
    struct wechat_kf_account *a = current(wc);
    wechat_count(what);
    if (++a->tries <= TRIES_MAX) {
        a->is_due = true;
        a->not_before_mono_ms = sl_loop_mono_ms(chan_loop(wc->ch)) + ms * (a->tries < 10 ? a->tries : 10);
    } else {
        sl_log(SL_ERROR,
               "wechat: customer service messages wait to be fetched; the next callback tries again",
               SL_KV("inbox", chan_inbox(wc->ch)));
    }
    kf_end(wc);
}

/* ---- items ---- */

static void kf_next(struct wechat *wc);

static void kf_welcome(struct wechat *wc, const struct wechat_in *in)
{
    char code[128], kfid[MSG_ID_MAX_BYTES + 1];
    if (wc->welcome[0] == '\0' || in->welcome_code.len == 0)
        return;
    (void)snprintf(code, sizeof code, "%.*s", (int)(in->welcome_code.len < 127 ? in->welcome_code.len : 127),
                   in->welcome_code.ptr);
    (void)snprintf(kfid, sizeof kfid, "%.*s",
                   (int)(in->open_kfid.len < MSG_ID_MAX_BYTES ? in->open_kfid.len : MSG_ID_MAX_BYTES),
                   in->open_kfid.ptr);
    if (wechat_tell(wc, code, kfid, sl_str_c(wc->welcome)) != SL_OK)
        wechat_count("not_told");
}

/* SL_OK: stored later. SL_ENOTFOUND: passed over. */
static sl_err give_item(struct wechat *wc, struct wechat_call *kept, size_t item, bool may_fetch)
{
    struct wechat_in in;
    wechat_page_item(&in, &wc->kf->page, item);
    struct wechat_call *c = kept != NULL ? kept : wechat_call_new(wc);
    sl_err err = SL_EAGAIN;
    if (sl_str_eq_c(in.event, "unusable"))
        wechat_count("kf_item_unusable");
    if (sl_str_eq_c(in.event, "enter_session") && may_fetch)
        kf_welcome(wc, &in);
    if (c != NULL) {
        c->is_kf_item = true;
        c->kf_item = item;
        err = may_fetch && in.media_id.len > 0 ? wechat_ingest_with_media(c, &in) : wechat_ingest(c, &in);
        if (err != SL_OK)
            wechat_call_free(c);
    }
    wechat_in_fini(&in);
    return err;
}

static void kf_failed_item(struct wechat *wc, sl_err err)
{
    if (err == SL_EAGAIN || sl_err_retry(err)) {
        kf_later(wc, AGAIN_MS, "kf_page_again");
        return;
    }
    wechat_count("kf_item_refused"); /* it can never be taken: it must not stop those behind it */
    wc->kf->item++;
    kf_next(wc);
}

/* Strictly one after the other: a refused item must not be passed by a later one of the same customer. */
static void kf_next(struct wechat *wc)
{
    struct wechat_kf *kf = wc->kf;
    while (kf->item < kf->page.items) {
        sl_err err = give_item(wc, NULL, kf->item, true);
        if (err == SL_OK)
            return; /* wechat_kf_stored or wechat_kf_media_done goes on */
        if (err != SL_ENOTFOUND) {
            kf_failed_item(wc, err);
            return;
        }
        kf->item++;
    }
    kf_go(wc, KF_SAVE);
}

void wechat_kf_media_done(struct wechat *wc, struct wechat_call *c)
{
    sl_err err =
        wc->kf->step == KF_ITEMS && wc->kf->has_page ? give_item(wc, c, c->kf_item, false) : SL_ECLOSED;
    if (err == SL_ECLOSED)
        wechat_call_free(c);
    else if (err != SL_OK)
        kf_failed_item(wc, err);
}

void wechat_kf_stored(struct wechat *wc, struct wechat_call *c, sl_err result)
{
    bool is_ours = wc->kf != NULL && wc->kf->step == KF_ITEMS && !wc->is_closing;
    wechat_call_free(c);
    if (!is_ours)
        return;
    if (result != SL_OK) {
        kf_failed_item(wc, result);
        return;
    }
    wc->kf->item++;
    sl_timer_start(&wc->kf->timer, 0); /* not inside the host's call */
}

/* ---- the steps ---- */

static void on_lock(void *arg, sl_err err, struct sl_str value)
{
    struct wechat *wc = arg;
    (void)value;
    if (wc->is_closing)
        return;
    wc->kf->has_lock = err == SL_OK;
    if (err == SL_OK) {
        kf_go(wc, KF_CURSOR);
    } else {
        struct wechat_kf_account *a = current(wc);
        a->is_due = true;
        a->not_before_mono_ms = sl_loop_mono_ms(chan_loop(wc->ch)) + BUSY_MS;
        wc->kf->step = KF_IDLE;
        kf_wake(wc);
    }
}

/* Ours no longer: somebody thought us dead. He goes on from the stored cursor, and so may we, later. */
static void on_renewed(void *arg, sl_err err, struct sl_str value)
{
    struct wechat *wc = arg;
    (void)value;
    if (wc->is_closing)
        return;
    wc->kf->has_lock = err == SL_OK;
    if (err == SL_OK)
        kf_go(wc, KF_TOKEN);
    else
        kf_later(wc, AGAIN_MS, "kf_lock_lost");
}

static void on_cursor(void *arg, sl_err err, struct sl_str value)
{
    struct wechat *wc = arg;
    struct wechat_kf *kf = wc->kf;
    if (wc->is_closing)
        return;
    if ((err != SL_OK && err != SL_ENOTFOUND) || value.len >= sizeof kf->cursor) {
        kf_later(wc, AGAIN_MS, "kf_cursor_unread");
        return;
    }
    size_t n = err == SL_OK ? value.len : 0;
    if (n > 0)
        memcpy(kf->cursor, value.ptr, n);
    kf->cursor[n] = '\0';
    kf_go(wc, KF_TOKEN);
}

static void on_token(void *arg, const struct wechat_error *why)
{
    struct wechat *wc = arg;
    if (wc->is_closing)
        return;
    if (why == NULL)
        kf_go(wc, KF_TOKEN);
    else
        kf_later(wc, 5 * AGAIN_MS, "kf_no_token");
}

static void kf_refused(struct wechat *wc, int64_t code)
{
    const struct wechat_error *e = wechat_error_find(WECHAT_KF, code);
    if (e->what == WECHAT_TOKEN)
        wechat_token_refused(wc, wc->kf->used_token);
    else if (e->what == WECHAT_ALARM)
        wechat_alarm(wc, e);
    current(wc)->token_until_mono_ms = 0; /* it may be the callback's token that is over */
    sl_log(SL_WARN, "wechat: kf/sync_msg was refused", SL_KV("inbox", chan_inbox(wc->ch)),
           SL_KV_I("errcode", code));
    kf_later(wc, AGAIN_MS, "kf_sync_refused");
}

static void on_page(void *arg, const struct sl_http_answer *a)
{
    struct wechat *wc = arg;
    struct wechat_kf *kf = wc->kf;
    struct sl_fail why;
    int64_t code = 0;
    wc->http_calls--;
    if (wc->is_closing) {
        wechat_finish(wc);
        return;
    }
    if (a->err != SL_OK || a->status != 200) {
        kf_later(wc, AGAIN_MS, "kf_sync_failed");
        return;
    }
    page_drop(kf);
    sl_err err = wechat_page_read(&kf->page, a->body, &code, &why);
    kf->has_page = true;
    if (err != SL_OK) {
        sl_log(SL_WARN, "wechat: a page of kf/sync_msg could not be read", SL_KV("inbox", chan_inbox(wc->ch)),
               SL_KV_FAIL(&why));
        kf_later(wc, AGAIN_MS, "kf_page_unread");
    } else if (code != 0) {
        kf_refused(wc, code);
    } else {
        kf_go(wc, KF_ITEMS);
    }
}

static void step_sync(struct wechat *wc)
{
    struct wechat_kf *kf = wc->kf;
    const struct wechat_kf_account *a = current(wc);
    struct sl_buf body;
    struct sl_json j;
    sl_buf_init(&body, 4096);
    sl_json_begin(&j, &body);
    sl_json_open(&j, NULL, '{');
    if (kf->cursor[0] != '\0')
        sl_json_c(&j, "cursor", kf->cursor);
    if (a->token_until_mono_ms > sl_loop_mono_ms(chan_loop(wc->ch)))
        sl_json_c(&j, "token", a->token);
    sl_json_int(&j, "limit", PAGE_ITEMS);
    sl_json_int(&j, "voice_format", 0);
    sl_json_c(&j, "open_kfid", a->open_kfid);
    sl_json_close(&j, '}');
    sl_err err = wechat_api(wc, "/cgi-bin/kf/sync_msg", kf->used_token, NULL, sl_buf_view(&body), PAGE_MAX,
                            on_page, wc);
    sl_buf_fini(&body);
    if (err != SL_OK)
        kf_later(wc, AGAIN_MS, "kf_sync_failed");
}

static void on_saved(void *arg, sl_err err, struct sl_str value)
{
    struct wechat *wc = arg;
    struct wechat_kf *kf = wc->kf;
    (void)value;
    if (wc->is_closing)
        return;
    if (err != SL_OK) { /* at worst the page is fetched again, and its messages are known */
        kf_later(wc, AGAIN_MS, "kf_cursor_unsaved");
        return;
    }
    bool has_more = kf->page.has_more;
    (void)snprintf(kf->cursor, sizeof kf->cursor, "%.*s", (int)kf->page.next_cursor.len,
                   kf->page.next_cursor.ptr);
    page_drop(kf);
    current(wc)->tries = 0;
    if (has_more)
        kf_go(wc, KF_RENEW);
    else
        kf_end(wc);
}

static void on_items_timer(void *arg)
{
    struct wechat *wc = arg;
    if (wc->kf->step == KF_ITEMS)
        kf_next(wc);
    else
        on_timer(wc);
}

static void kf_go(struct wechat *wc, enum wechat_kf_step step)
{
    struct wechat_kf *kf = wc->kf;
    char name[MSG_ID_MAX_BYTES + 16];
    sl_err err = SL_OK;
    kf->step = step;
    switch (step) {
    case KF_LOCK:
        value_name(wc, name, "kf-lock");
        err = wechat_kv(wc, CHAN_KV_ADD, name, sl_str_c(wechat_random_name(kf->lock)), SL_STR_NONE, LOCK_MS,
                        on_lock, wc);
        if (err != SL_OK)
            on_lock(wc, err, SL_STR_NONE);
        return;
    case KF_RENEW:
        value_name(wc, name, "kf-lock");
        err = wechat_kv(wc, CHAN_KV_SWAP, name, sl_str_c(kf->lock), sl_str_c(kf->lock), LOCK_MS, on_renewed,
                        wc);
        if (err != SL_OK)
            on_renewed(wc, err, SL_STR_NONE);
        return;
    case KF_CURSOR:
        value_name(wc, name, "kf-cursor");
        if (wechat_kv(wc, CHAN_KV_GET, name, SL_STR_NONE, SL_STR_NONE, 0, on_cursor, wc) != SL_OK)
            kf_later(wc, AGAIN_MS, "kf_cursor_unread");
        return;
    case KF_TOKEN:
        if (wechat_token_now(wc) == NULL) {
            wechat_token_wait(wc, &kf->waiter);
            return;
        }
        (void)snprintf(kf->used_token, sizeof kf->used_token, "%s", wechat_token_now(wc));
        kf_go(wc, KF_SYNC);
        return;
    case KF_SYNC:
        step_sync(wc);
        return;
    case KF_ITEMS:
        kf->item = 0;
        kf_next(wc);
        return;
    case KF_SAVE:
        value_name(wc, name, "kf-cursor");
        if (kf->page.next_cursor.len == 0) { /* an empty page without a cursor: nothing moved */
            kf_end(wc);
            return;
        }
        if (wechat_kv(wc, CHAN_KV_SET, name, kf->page.next_cursor, SL_STR_NONE, 0, on_saved, wc) != SL_OK)
            kf_later(wc, AGAIN_MS, "kf_cursor_unsaved");
        return;
    case KF_UNLOCK:
        value_name(wc, name, "kf-lock");
        if (!kf->has_lock ||
            wechat_kv(wc, CHAN_KV_DROP, name, SL_STR_NONE, sl_str_c(kf->lock), 0, on_unlocked, wc) != SL_OK)
            on_unlocked(wc, SL_OK, SL_STR_NONE);
        kf->has_lock = false;
        return;
    case KF_IDLE:
        return;
    }
}

void wechat_kf_open(struct wechat *wc)
{
    if (wc->product != WECHAT_KF)
        return;
    wc->kf = sl_alloc(sizeof *wc->kf);
    wc->kf->waiter = (struct wechat_waiter){.fn = on_token, .arg = wc};
    sl_timer_init(&wc->kf->timer, chan_loop(wc->ch), on_items_timer, wc);
}

void wechat_kf_close(struct wechat *wc)
{
    if (wc->kf == NULL)
        return;
    sl_timer_stop(&wc->kf->timer);
    page_drop(wc->kf);
    free(wc->kf);
    wc->kf = NULL;
}
