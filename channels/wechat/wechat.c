/* channels/wechat/wechat.c - configuration and life cycle of the three adapters. */
#include "channels/wechat/wechat_priv.h"

#include "base/log.h"
#include "proto/keys.h"

#include <stdio.h>
#include <stdlib.h>

#define OA_URL   "https://api.weixin.qq.com"
#define WORK_URL "https://qyapi.weixin.qq.com"

static const char *const channel_names[] = {"wechat", "wecom", "wechat_kf"};

struct wechat *wechat_of(struct chan *ch)
{
    return chan_priv(ch);
}

void wechat_count(const char *what)
{
    char labels[64];
    (void)snprintf(labels, sizeof labels, "what=\"%s\"", what);
    sl_count(sl_counter("sluice_wechat_total", labels, "What happened with WeChat, by kind"), 1);
}

const char *wechat_random_name(char out[40])
{
    unsigned char bytes[16];
    sl_random_bytes(bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof bytes; i++)
        (void)snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    return out;
}

sl_err wechat_kv(struct wechat *wc, enum chan_kv_op op, const char *name, struct sl_str value,
                 struct sl_str expected, int64_t ttl_ms, chan_kv_fn fn, void *arg)
{
    const struct chan_kv kv = {
        .op = op, .name = sl_str_c(name), .value = value, .expected = expected, .ttl_ms = ttl_ms};
    return chan_host_of(wc->ch)->kv(wc->ch, &kv, fn, arg);
}

void wechat_alarm(struct wechat *wc, const struct wechat_error *why)
{
    char code[32];
    struct sl_buf words;
    if (wc->tok.alarm_code == why->code)
        return;
    wechat_alarm_clear(wc);
    wc->tok.alarm_code = why->code;
    (void)snprintf(code, sizeof code, "errcode-%d", why->code);
    sl_buf_init(&words, 1024);
    wechat_error_words(why, &words);
    sl_buf_char(&words, '\0');
    chan_host_of(wc->ch)->alarm(wc->ch, code, true, words.ptr);
    sl_buf_fini(&words);
}

void wechat_alarm_clear(struct wechat *wc)
{
    char code[32];
    if (wc->tok.alarm_code == 0)
        return;
    (void)snprintf(code, sizeof code, "errcode-%d", (int)wc->tok.alarm_code);
    wc->tok.alarm_code = 0;
    chan_host_of(wc->ch)->alarm(wc->ch, code, false, "");
}

/* ---- opening ---- */

static char *copy_key(const struct wechat *wc, const struct sl_config *cfg, const char *name)
{
    char key[CHAN_KEY_MAX];
    chan_key(wc->ch, name, key);
    return sl_strdup(sl_config_str(cfg, key));
}

static int64_t number_key(const struct wechat *wc, const struct sl_config *cfg, const char *name)
{
    char key[CHAN_KEY_MAX];
    chan_key(wc->ch, name, key);
    return sl_config_int(cfg, key);
}

static void wechat_free(struct wechat *wc)
{
    char *const texts[] = {wc->appid,     wc->secret,  wc->token,      wc->receive_id, wc->agent_id,
                           wc->open_kfid, wc->api_url, wc->kf_account, wc->welcome};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        free(texts[i]);
    for (size_t i = 0; i < wc->event_count; i++)
        free(wc->events[i]);
    free(wc->events);
    wc->events = NULL;
    wc->event_count = 0;
}

static void copy_events(struct wechat *wc, const struct sl_config *cfg)
{
    char key[CHAN_KEY_MAX];
    const char *const *items;
    chan_key(wc->ch, "events", key);
    wc->event_count = sl_config_list(cfg, key, &items);
    wc->events = sl_alloc((wc->event_count + 1) * sizeof wc->events[0]);
    for (size_t i = 0; i < wc->event_count; i++)
        wc->events[i] = sl_strdup(items[i]);
}

static sl_err read_mode(struct wechat *wc, const struct sl_config *cfg, struct sl_fail *why)
{
    static const char *const modes[] = {"safe", "compatible", "plain"};
    char key[CHAN_KEY_MAX];
    if (wc->product != WECHAT_OA)
        return SL_OK; /* the others encrypt always */
    chan_key(wc->ch, "mode", key);
    const char *mode = sl_config_str(cfg, key);
    for (int i = 0; i < 3; i++) {
        if (strcmp(mode, modes[i]) != 0)
            continue;
        wc->mode = (enum wechat_mode)i;
        if (wc->mode == WECHAT_PLAIN)
            sl_log(SL_WARN,
                   "wechat: mode plain: whoever knows one signature can write any message; choose safe on "
                   "the platform's page",
                   SL_KV("inbox", chan_inbox(wc->ch)));
        return SL_OK;
    }
    return sl_fail_set(why, SL_EINVAL, 0, "%s: safe, compatible or plain", key);
}

static sl_err need(struct wechat *wc, const char *value, const char *name, struct sl_fail *why)
{
    char key[CHAN_KEY_MAX];
    if (value[0] != '\0')
        return SL_OK;
    chan_key(wc->ch, name, key);
    return sl_fail_set(why, SL_EINVAL, 0, "%s: is needed; the platform's page shows it", key);
}

static sl_err read_aes_key(struct wechat *wc, const struct sl_config *cfg, struct sl_fail *why)
{
    char key[CHAN_KEY_MAX];
    struct sl_fail inner = {.text = ""};
    chan_key(wc->ch, "aes_key", key);
    const char *chars = sl_config_str(cfg, key);
    if (wc->mode == WECHAT_PLAIN && chars[0] == '\0')
        return SL_OK;
    if (wechat_key_read(sl_str_c(chars), &wc->key, &inner) == SL_OK)
        return SL_OK;
    return sl_fail_set(why, SL_EINVAL, 0, "%s: %s", key, inner.text);
}

static sl_err check_needed(struct wechat *wc, const struct sl_config *cfg, struct sl_fail *why)
{
    const char *id = wc->product == WECHAT_OA ? "appid" : "corpid";
    sl_err err = need(wc, wc->appid, id, why);
    if (err == SL_OK)
        err = need(wc, wc->token, "token", why);
    if (err == SL_OK && !wc->is_passive)
        err = need(wc, wc->secret, "secret", why);
    if (err == SL_OK && wc->product == WECHAT_WECOM)
        err = need(wc, wc->agent_id, "agent_id", why);
    if (err == SL_OK)
        err = read_mode(wc, cfg, why);
    return err == SL_OK ? read_aes_key(wc, cfg, why) : err;
}

/* A platform's page may be told to write JSON; a bot of WeCom's has no receive id ("-"). */
static void read_work(struct wechat *wc, const struct sl_config *cfg)
{
    char key[CHAN_KEY_MAX];
    chan_key(wc->ch, "envelope", key);
    wc->is_json = strcmp(sl_config_str(cfg, key), "json") == 0;
    char *id = copy_key(wc, cfg, "receive_id");
    if (id[0] != '\0') {
        free(wc->receive_id);
        wc->receive_id = strcmp(id, "-") == 0 ? sl_strdup("") : sl_strdup(id);
    }
    free(id);
}

static void read_texts(struct wechat *wc, const struct sl_config *cfg)
{
    bool is_oa = wc->product == WECHAT_OA, is_kf = wc->product == WECHAT_KF;
    wc->appid = copy_key(wc, cfg, is_oa ? "appid" : "corpid");
    wc->secret = copy_key(wc, cfg, "secret");
    wc->token = copy_key(wc, cfg, "token");
    wc->receive_id = sl_strdup(wc->appid);
    wc->agent_id = wc->product == WECHAT_WECOM ? copy_key(wc, cfg, "agent_id") : sl_strdup("");
    wc->open_kfid = is_kf ? copy_key(wc, cfg, "open_kfid") : sl_strdup("");
    wc->welcome = is_kf ? copy_key(wc, cfg, "welcome") : sl_strdup("");
    wc->kf_account = is_oa ? copy_key(wc, cfg, "kf_account") : sl_strdup("");
    wc->api_url = copy_key(wc, cfg, "api_url");
    wc->freshness_ms = number_key(wc, cfg, "freshness");
    if (is_kf) {
        char key[CHAN_KEY_MAX];
        chan_key(wc->ch, "kf_take_back", key);
        wc->kf_take_back = sl_config_bool(cfg, key);
    }
    if (wc->product == WECHAT_WECOM)
        wc->duplicate_check_s = number_key(wc, cfg, "duplicate_check") / 1000;
    if (!is_oa)
        read_work(wc, cfg);
    if (wc->api_url[0] == '\0') {
        free(wc->api_url);
        wc->api_url = sl_strdup(is_oa ? OA_URL : WORK_URL);
    }
    copy_events(wc, cfg);
}

static void on_turn(void *arg);
static void on_drain_deadline(void *arg);

static enum wechat_product product_of(const struct chan *ch)
{
    const char *name = chan_ops_of(ch)->name;
    return strcmp(name, channel_names[WECHAT_OA]) == 0      ? WECHAT_OA
           : strcmp(name, channel_names[WECHAT_WECOM]) == 0 ? WECHAT_WECOM
                                                            : WECHAT_KF;
}

static void open_gauges(struct wechat *wc)
{
    char labels[MSG_ID_MAX_BYTES + 16];
    (void)snprintf(labels, sizeof labels, "inbox=\"%s\"", chan_inbox(wc->ch));
    wc->jobs_gauge = sl_gauge("sluice_wechat_sends", labels, "Sends of an inbox that are not settled");
    wc->calls_gauge =
        sl_gauge("sluice_wechat_callbacks", labels, "Callbacks of an inbox that are not answered");
    sl_gauge_max(wc->jobs_gauge, WECHAT_JOBS_MAX);
    sl_gauge_max(wc->calls_gauge, WECHAT_CALLS_MAX);
}

static sl_err wechat_open(struct chan *ch, const struct sl_config *cfg, struct sl_fail *why)
{
    struct wechat *wc = wechat_of(ch);
    char key[CHAN_KEY_MAX];
    *wc = (struct wechat){.ch = ch, .product = product_of(ch)};
    if (wc->product == WECHAT_OA) {
        chan_key(ch, "passive", key);
        wc->is_passive = sl_config_bool(cfg, key);
    }
    read_texts(wc, cfg);
    sl_err err = check_needed(wc, cfg, why);
    if (err != SL_OK) {
        wechat_free(wc);
        return err;
    }
    sl_post_init(&wc->turn, chan_loop(ch), on_turn, wc);
    sl_timer_init(&wc->drain, chan_loop(ch), on_drain_deadline, wc);
    wechat_token_init(wc);
    wechat_kf_open(wc);
    open_gauges(wc);
    return SL_OK;
}

static sl_err wechat_start(struct chan *ch)
{
    struct wechat *wc = wechat_of(ch);
    wc->http = sl_http_new(chan_loop(ch), &(struct sl_http_options){.name = channel_names[wc->product],
                                                                    .max_calls = WECHAT_JOBS_MAX + 64});
    wc->is_up_due = true;
    sl_post_now(&wc->turn);
    return SL_OK;
}

/* ---- the end ---- */

static void on_turn(void *arg)
{
    struct wechat *wc = arg;
    if (wc->is_up_due) {
        wc->is_up_due = false;
        chan_host_of(wc->ch)->state(wc->ch, CHAN_UP);
    }
    if (!wc->is_closing)
        return;
    wechat_jobs_end(wc);
    wechat_calls_end(wc);
    wechat_finish(wc);
}

void wechat_finish(struct wechat *wc)
{
    struct chan *ch = wc->ch;
    if (!wc->is_closing || wc->http_calls > 0 || wc->ticket_count > 0)
        return;
    sl_timer_stop(&wc->drain);
    sl_post_cancel(&wc->turn);
    wechat_jobs_free(wc);
    wechat_calls_free(wc);
    wechat_token_close(wc);
    wechat_kf_close(wc);
    wechat_free(wc);
    chan_host_of(ch)->closed(ch); /* wc may be gone now */
}

static void on_drain_deadline(void *arg)
{
    struct wechat *wc = arg;
    if (!wc->is_closing) {
        wechat_jobs_end(wc);
        return;
    }
    wc->ticket_count = 0; /* the core will not say any more: it does not after close */
    wechat_calls_free(wc);
    wechat_finish(wc);
}

static void wechat_drain(struct chan *ch, uint64_t deadline_mono_ms)
{
    struct wechat *wc = wechat_of(ch);
    uint64_t now = sl_loop_mono_ms(chan_loop(ch)), left = deadline_mono_ms > now ? deadline_mono_ms - now : 0;
    wc->is_draining = true;
    sl_timer_start(&wc->drain, left > 200 ? left - 200 : 0);
}

#define CLOSE_MS 2000 /* how long close waits for the store's word on what was handed in */

static void wechat_close(struct chan *ch)
{
    struct wechat *wc = wechat_of(ch);
    wc->is_closing = wc->is_draining = true;
    if (wc->http != NULL)
        sl_http_close(&wc->http);
    sl_timer_start(&wc->drain, CLOSE_MS);
    sl_post_now(&wc->turn);
}

static void wechat_hold(struct chan *ch, bool is_holder)
{
    struct wechat *wc = wechat_of(ch);
    wc->is_holder = is_holder;
    if (is_holder && wc->product == WECHAT_KF)
        wechat_kf_hold(wc);
}

/* Without the customer-service interface there is one answer to a message, and it has words or one article. */
#define KIND(name) (1u << MSG_##name)

static void wechat_limits(const struct chan *ch, struct chan_limits *out)
{
    const struct wechat *wc = wechat_of((struct chan *)(uintptr_t)ch);
    *out = chan_ops_of(ch)->limits;
    if (wc->is_passive) {
        out->kinds = 1u << MSG_CARD | 1u << MSG_LINK;
        out->options_max = 0;
        out->media_max_bytes = 0;
    }
    out->bare = KIND(IMAGE) | KIND(AUDIO) | KIND(FILE) | KIND(VIDEO);
    if (wc->product == WECHAT_WECOM && wc->duplicate_check_s > 0)
        out->unknown = CHAN_IDEMPOTENT; /* inside the interval the platform drops an equal message */
}

/* clang-format off */ /* tables */
#define COMMON_KEYS                                                                                                                                                       \
    {"inboxes.*.secret", SL_CFG_SECRET, "", 0, 0, false, "of the application, as the platform's page shows it"},                                                           \
    {"inboxes.*.token", SL_CFG_SECRET, "", 0, 0, false, "of the callback, as typed into the platform's page"},                                                             \
    {"inboxes.*.aes_key", SL_CFG_SECRET, "", 0, 0, false, "EncodingAESKey of the callback: 43 characters"},                                                                \
    {"inboxes.*.api_url", SL_CFG_STR, "", 0, 0, false, "where the provider's API is; empty: the provider's own"},                                                          \
    {"inboxes.*.freshness", SL_CFG_MS, "5m", 1000, 3600000, false, "how far a callback's timestamp may be from our clock"},                                               \
    {"inboxes.*.events", SL_CFG_LIST, "CLICK", 0, 0, false, "events that are given to the conversation as a choice, by name: CLICK, SCAN, subscribe, enter_session, ..."}
#define WORK_KEYS                                                                                                                                                         \
    {"inboxes.*.corpid", SL_CFG_STR, "", 0, 0, false, "id of the company in WeCom"},                                                                                       \
    {"inboxes.*.receive_id", SL_CFG_STR, "", 0, 0, false, "id at the end of encrypted messages; empty: corpid; -: none"},                                                  \
    {"inboxes.*.envelope", SL_CFG_STR, "xml", 0, 0, false, "form of encrypted callbacks: xml or json"}
static const struct sl_key oa_keys[] = {
    COMMON_KEYS,
    {"inboxes.*.appid", SL_CFG_STR, "", 0, 0, false, "AppID of the Official Account"},
    {"inboxes.*.mode", SL_CFG_STR, "safe", 0, 0, false, "of the callback's messages: safe, compatible or plain"},
    {"inboxes.*.passive", SL_CFG_BOOL, "false", 0, 0, false, "answer in the callback itself: for accounts without the customer-service interface"},
    {"inboxes.*.kf_account", SL_CFG_STR, "", 0, 0, false, "service account that replies are shown under; empty: the Official Account itself"},
    {.key = NULL}};
static const struct sl_key wecom_keys[] = {
    COMMON_KEYS, WORK_KEYS,
    {"inboxes.*.agent_id", SL_CFG_STR, "", 0, 0, false, "AgentId of the application"},
    {"inboxes.*.duplicate_check", SL_CFG_MS, "0ms", 0, 14400000, false, "the platform drops an equal text to the same member within this time; then sends of unknown outcome are repeated; 0: off"},
    {.key = NULL}};
static const struct sl_key kf_keys[] = {
    COMMON_KEYS, WORK_KEYS,
    {"inboxes.*.open_kfid", SL_CFG_STR, "", 0, 0, false, "the service account, when there is one: fetched from at start, too"},
    {"inboxes.*.kf_take_back", SL_CFG_BOOL, "false", 0, 0, false, "a session that waits for, or is with, a person in WeCom's own client is taken back when we send"},
    {"inboxes.*.welcome", SL_CFG_STR, "", 0, 0, false, "said to a customer who enters, when the platform allows it; empty: nothing"},
    {.key = NULL}};

#define WECHAT_COMMON                                                                                        \
    .api = CHAN_API, .caps = CHAN_CAP_SEND | CHAN_CAP_REQUEST, .priv_size = sizeof(struct wechat),            \
    .open = wechat_open, .start = wechat_start, .limits_of = wechat_limits, .hold = wechat_hold,              \
    .send = wechat_send, .accepted = wechat_accepted, .request = wechat_request, .drain = wechat_drain,       \
    .close = wechat_close, .typing = wechat_typing

/* text_max: WeCom's page says 2048 bytes; of the other two it is from memory (README.md). Media: the pages of temporary media. */
const struct chan_ops wechat_ops = {
    WECHAT_COMMON, .name = "wechat", .keys = oa_keys, .horizon_ms = 3600000, /* it repeats within 15 s */
    .limits = {.text_max = 2048, .text_unit = CHAN_BYTES,
               .kinds = KIND(IMAGE) | KIND(AUDIO) | KIND(VIDEO) | KIND(CARD) | KIND(LINK) | KIND(CHOICE), .options_max = 10,
               .media_max_bytes = 10 << 20, .unknown = CHAN_AT_MOST_ONCE, .rate_per_s = 20, .window = 20}};
const struct chan_ops wechat_wecom_ops = {
    WECHAT_COMMON, .name = "wecom", .keys = wecom_keys, .horizon_ms = 3600000,
    .limits = {.text_max = 2048, .text_unit = CHAN_BYTES,
               .kinds = KIND(IMAGE) | KIND(AUDIO) | KIND(VIDEO) | KIND(FILE) | KIND(CARD) | KIND(LINK), .options_max = 0,
               .media_max_bytes = 20 << 20, .unknown = CHAN_AT_MOST_ONCE, .rate_per_s = 20, .window = 20}};
const struct chan_ops wechat_kf_ops = {
    WECHAT_COMMON, .name = "wechat_kf", .keys = kf_keys, .horizon_ms = INT64_C(4) * 86400000, /* sync_msg goes back 3 days */
    .limits = {.text_max = 2048, .text_unit = CHAN_BYTES,
               .kinds = KIND(IMAGE) | KIND(AUDIO) | KIND(VIDEO) | KIND(FILE) | KIND(LOCATION) | KIND(CHOICE), .options_max = 10,
               .media_max_bytes = 20 << 20, .unknown = CHAN_IDEMPOTENT, .rate_per_s = 20, .window = 20}};
/* clang-format on */
