/* channels/wechat/wechat_token.c - one access token for all gateways of an inbox, and calls of the API with it.
 *
 * Official Account: /cgi-bin/stable_token, which gives the same token to all who ask while it is valid; a forced refresh makes a new
 * one, at most 20 a day and 30 s apart (doc/offiaccount getStableAccessToken). WeCom and kf: /cgi-bin/gettoken, the same while valid.
 * The holder of the lock asks; the others read the shared value. When the shared values are out of reach each asks for itself: that
 * is safe, because asking does not end anybody's token.
 */
#include "channels/wechat/wechat_priv.h"

#include "base/log.h"

#include <stdio.h>

#define LOCK_MS   15000
#define FORCED_MS 30000 /* doc/offiaccount: at least 30 s between forced refreshes */
#define PAUSE_MS  300
#define TRIES_MAX 60    /* of PAUSE_MS: longer than a lock lives */
#define EARLY_S   300   /* ask anew so long before the end: the platform renews 5 min before it */
#define REST_MS   10000 /* a token with less life than this is not used */

static void token_go(struct wechat *wc);

void wechat_url_part(struct sl_buf *out, struct sl_str text)
{
    static const char digit[] = "0123456789ABCDEF";
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        bool is_plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                        c == '-' || c == '_' || c == '.' || c == '~';
        if (is_plain) {
            sl_buf_char(out, (char)c);
            continue;
        }
        sl_buf_char(out, '%');
        sl_buf_char(out, digit[c >> 4]);
        sl_buf_char(out, digit[c & 15]);
    }
}

sl_err wechat_api(struct wechat *wc, const char *path, const char *token, const char *content_type,
                  struct sl_str body, size_t max_bytes, sl_http_fn fn, void *arg)
{
    struct sl_buf url;
    char type[160];
    sl_buf_init(&url, 8192);
    sl_buf_c(&url, wc->api_url);
    sl_buf_c(&url, path);
    if (token != NULL) {
        sl_buf_c(&url, strchr(path, '?') != NULL ? "&access_token=" : "?access_token=");
        wechat_url_part(&url, sl_str_c(token));
    }
    sl_buf_char(&url, '\0');
    (void)snprintf(type, sizeof type, "Content-Type: %s",
                   content_type != NULL ? content_type : "application/json; charset=utf-8");
    const char *const headers[] = {type, NULL};
    const struct sl_http_request rq = {.url = url.ptr,
                                       .headers = body.len > 0 ? headers : NULL,
                                       .body = body,
                                       .connect_ms = 5000,
                                       .whole_ms = 15000,
                                       .max_bytes = max_bytes};
    sl_err err = url.overflow ? SL_ETOOBIG : sl_http_request(wc->http, &rq, fn, arg, NULL);
    sl_buf_fini(&url);
    if (err == SL_OK)
        wc->http_calls++;
    return err;
}

/* ---- waiting ---- */

const char *wechat_token_now(struct wechat *wc)
{
    bool is_good =
        wc->tok.token[0] != '\0' && wc->tok.until_unix_ms > sl_loop_unix_ms(chan_loop(wc->ch)) + REST_MS;
    return is_good ? wc->tok.token : NULL;
}

void wechat_token_wait(struct wechat *wc, struct wechat_waiter *w)
{
    sl_assert(!w->is_waiting);
    w->is_waiting = true;
    w->next = NULL;
    *wc->tok.last = w;
    wc->tok.last = &w->next;
    if (wc->tok.step == TOKEN_IDLE) {
        wc->tok.step = TOKEN_READ;
        wc->tok.tries = 0;
        sl_timer_start(&wc->tok.pause, 0);
    }
}

void wechat_token_leave(struct wechat *wc, struct wechat_waiter *w)
{
    if (!w->is_waiting)
        return;
    w->is_waiting = false;
    for (struct wechat_waiter **at = &wc->tok.first; *at != NULL; at = &(*at)->next) {
        if (*at != w)
            continue;
        *at = w->next;
        if (wc->tok.last == &w->next)
            wc->tok.last = at;
        return;
    }
}

/* On the loop, never inside a caller's turn: every road here is a callback or a timer. */
static void token_end(struct wechat *wc, const struct wechat_error *why)
{
    wc->tok.step = TOKEN_IDLE;
    struct wechat_waiter *w = wc->tok.first;
    wc->tok.first = NULL;
    wc->tok.last = &wc->tok.first;
    while (w != NULL) {
        struct wechat_waiter *next = w->next;
        w->is_waiting = false;
        w->fn(w->arg, why);
        w = next;
    }
}

static const struct wechat_error unreachable = {0, WECHAT_BUSY, "暂时无法取得微信调用凭证",
                                                "no access token could be had just now"};

static void token_pause(struct wechat *wc)
{
    if (++wc->tok.tries > TRIES_MAX) {
        token_end(wc, &unreachable);
        return;
    }
    wc->tok.step = TOKEN_READ;
    sl_timer_start(&wc->tok.pause, PAUSE_MS);
}

/* ---- the steps ---- */

/* "1700000000000 token" */
static bool token_take(struct wechat *wc, struct sl_str value)
{
    const char *blank = value.len > 0 ? memchr(value.ptr, ' ', value.len) : NULL;
    int64_t until;
    if (blank == NULL || value.len >= sizeof wc->tok.stored ||
        sl_str_int(sl_str_n(value.ptr, (size_t)(blank - value.ptr)), &until) != SL_OK)
        return false;
    struct sl_str token = sl_str_n(blank + 1, value.len - (size_t)(blank + 1 - value.ptr));
    bool is_bad = wc->tok.is_bad && sl_str_eq_c(token, wc->tok.bad);
    if (token.len == 0 || token.len >= sizeof wc->tok.token || is_bad ||
        until <= sl_loop_unix_ms(chan_loop(wc->ch)) + REST_MS)
        return false;
    memcpy(wc->tok.token, token.ptr, token.len);
    wc->tok.token[token.len] = '\0';
    memcpy(wc->tok.stored, value.ptr, value.len);
    wc->tok.stored[value.len] = '\0';
    wc->tok.until_unix_ms = until;
    wc->tok.is_bad = false;
    return true;
}

static void on_read(void *arg, sl_err err, struct sl_str value)
{
    struct wechat *wc = arg;
    if (wc->is_closing)
        return;
    if (err == SL_OK && token_take(wc, value)) {
        token_end(wc, NULL);
        return;
    }
    wc->tok.step = TOKEN_LOCK;
    token_go(wc);
}

static void on_lock(void *arg, sl_err err, struct sl_str value)
{
    struct wechat *wc = arg;
    (void)value;
    if (wc->is_closing)
        return;
    wc->tok.has_lock = err == SL_OK;
    if (err == SL_ECONFLICT) {
        token_pause(wc);
        return;
    }
    wc->tok.step = wc->tok.is_bad && wc->product == WECHAT_OA ? TOKEN_FORCE : TOKEN_FETCH;
    wc->tok.is_forced = false;
    token_go(wc);
}

/* Who may force a refresh: the first in 30 s, over all gateways. Without the shared values nobody may. */
static void on_force(void *arg, sl_err err, struct sl_str value)
{
    struct wechat *wc = arg;
    (void)value;
    if (wc->is_closing)
        return;
    wc->tok.is_forced = err == SL_OK;
    wc->tok.step = TOKEN_FETCH;
    token_go(wc);
}

static void on_nothing(void *arg, sl_err err, struct sl_str value)
{
    (void)arg;
    (void)err;
    (void)value;
}

static void token_unlock(struct wechat *wc)
{
    if (wc->tok.has_lock)
        (void)!wechat_kv(wc, CHAN_KV_DROP, "token-lock", SL_STR_NONE, sl_str_c(wc->tok.lock), 0, on_nothing,
                         wc);
    wc->tok.has_lock = false;
}

static bool token_store(struct wechat *wc, struct sl_str token, int64_t expires_s)
{
    int64_t life_s = expires_s > 2 * EARLY_S ? expires_s - EARLY_S
                     : expires_s > 20        ? expires_s - 10
                                             : expires_s;
    struct sl_buf value;
    sl_buf_init(&value, sizeof wc->tok.stored);
    sl_buf_int(&value, sl_loop_unix_ms(chan_loop(wc->ch)) + life_s * 1000 + (expires_s <= 20 ? REST_MS : 0));
    sl_buf_char(&value, ' ');
    sl_buf_str(&value, token);
    bool is_taken = !value.overflow && token_take(wc, sl_buf_view(&value));
    if (is_taken)
        (void)!wechat_kv(wc, CHAN_KV_SET, "token", sl_buf_view(&value), SL_STR_NONE, life_s * 1000,
                         on_nothing, wc);
    sl_buf_fini(&value);
    return is_taken;
}

/* 40001 is said of a token that is not valid and, by the calls that give one, of the secret. */
static const struct wechat_error bad_secret = {40001, WECHAT_ALARM, "Secret 不正确",
                                               "the secret is not right"};

static void on_fetched(void *arg, const struct sl_http_answer *a)
{
    struct wechat *wc = arg;
    struct sl_fail why;
    wc->http_calls--;
    if (wc->is_closing) {
        wechat_finish(wc);
        return;
    }
    json_t *root = a->err == SL_OK ? sl_json_parse(a->body, &why) : NULL;
    int64_t code = sl_json_get_int(root, "errcode", 0);
    struct sl_str token = sl_json_get_str(root, "access_token");
    int64_t expires_s = sl_json_get_int(root, "expires_in", 0);
    bool is_bad = wc->tok.is_bad && sl_str_eq_c(token, wc->tok.bad);
    if (code == 0 && token.len > 0 && expires_s > 0 && !is_bad && token_store(wc, token, expires_s)) {
        wechat_alarm_clear(wc);
        token_unlock(wc);
        token_end(wc, NULL);
    } else {
        const struct wechat_error *e = code != 0 ? wechat_error_find(wc->product, code) : &unreachable;
        if (code == 40001)
            e = &bad_secret;
        wechat_count("token_failed");
        if (e->what == WECHAT_ALARM)
            wechat_alarm(wc, e);
        token_unlock(wc);
        token_end(wc, e);
    }
    json_decref(root);
}

static sl_err fetch_stable(struct wechat *wc)
{
    struct sl_buf body;
    struct sl_json j;
    sl_buf_init(&body, 4096);
    sl_json_begin(&j, &body);
    sl_json_open(&j, NULL, '{');
    sl_json_c(&j, "grant_type", "client_credential");
    sl_json_c(&j, "appid", wc->appid);
    sl_json_c(&j, "secret", wc->secret);
    sl_json_bool(&j, "force_refresh", wc->tok.is_forced);
    sl_json_close(&j, '}');
    sl_err err = wechat_api(wc, "/cgi-bin/stable_token", NULL, NULL, sl_buf_view(&body), 0, on_fetched, wc);
    sl_buf_fini(&body);
    return err;
}

static sl_err fetch_corp(struct wechat *wc)
{
    struct sl_buf path;
    sl_buf_init(&path, 2048);
    sl_buf_c(&path, "/cgi-bin/gettoken?corpid=");
    wechat_url_part(&path, sl_str_c(wc->appid));
    sl_buf_c(&path, "&corpsecret=");
    wechat_url_part(&path, sl_str_c(wc->secret));
    sl_buf_char(&path, '\0');
    sl_err err =
        path.overflow ? SL_ETOOBIG : wechat_api(wc, path.ptr, NULL, NULL, SL_STR_NONE, 0, on_fetched, wc);
    sl_buf_fini(&path);
    return err;
}

static void token_go(struct wechat *wc)
{
    sl_err err = SL_OK;
    switch (wc->tok.step) {
    case TOKEN_READ:
        err = wechat_kv(wc, CHAN_KV_GET, "token", SL_STR_NONE, SL_STR_NONE, 0, on_read, wc);
        if (err != SL_OK)
            on_read(wc, err, SL_STR_NONE);
        return;
    case TOKEN_LOCK:
        err = wechat_kv(wc, CHAN_KV_ADD, "token-lock", sl_str_c(wechat_random_name(wc->tok.lock)),
                        SL_STR_NONE, LOCK_MS, on_lock, wc);
        if (err != SL_OK)
            on_lock(wc, err, SL_STR_NONE);
        return;
    case TOKEN_FORCE:
        err = wechat_kv(wc, CHAN_KV_ADD, "token-forced", SL_STR("1"), SL_STR_NONE, FORCED_MS, on_force, wc);
        if (err != SL_OK)
            on_force(wc, err, SL_STR_NONE);
        return;
    case TOKEN_FETCH:
        err = wc->product == WECHAT_OA ? fetch_stable(wc) : fetch_corp(wc);
        if (err == SL_OK)
            return;
        token_unlock(wc);
        token_end(wc, &unreachable);
        return;
    case TOKEN_IDLE:
        return;
    }
}

static void on_pause(void *arg)
{
    struct wechat *wc = arg;
    if (!wc->is_closing)
        token_go(wc);
}

void wechat_token_refused(struct wechat *wc, const char *token)
{
    if (strcmp(token, wc->tok.token) != 0)
        return; /* another is there already */
    wechat_count("token_refused");
    memcpy(wc->tok.bad, wc->tok.token, sizeof wc->tok.bad);
    wc->tok.is_bad = true;
    wc->tok.token[0] = '\0';
    (void)!wechat_kv(wc, CHAN_KV_DROP, "token", SL_STR_NONE, sl_str_c(wc->tok.stored), 0, on_nothing, wc);
}

void wechat_token_init(struct wechat *wc)
{
    wc->tok.last = &wc->tok.first;
    sl_timer_init(&wc->tok.pause, chan_loop(wc->ch), on_pause, wc);
}

void wechat_token_close(struct wechat *wc)
{
    sl_timer_stop(&wc->tok.pause);
    token_unlock(wc);
    wc->tok.first = NULL;
    wc->tok.last = &wc->tok.first;
}
