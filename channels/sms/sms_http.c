/* channels/sms/sms_http.c - the adapter: keys, numbers, Twilio's signature, and the ledger of those who opted out. */
#include "channels/sms/sms_http.h"

#include "base/crypto.h"
#include "channels/sms/sms_http_priv.h"
#include "channels/sms/sms_optout.h"
#include "channels/sms/sms_sign.h"
#include "proto/keys.h"

#include <stdio.h>
#include <stdlib.h>

static struct sms_http *sms_of(struct chan *ch)
{
    return chan_priv(ch);
}

/* ---- hooks: who it is ---- */

static sl_err sms_address(void *owner, struct sl_str raw, char out[MSG_ID_MAX_BYTES + 1])
{
    struct sms_http *s = owner;
    return sms_number_canonical(raw, s->country, out);
}

/* Both URLs of one port are tried, and a JSON body is signed by its hash: more than a rule can say. */
static sl_err sms_verify(void *owner, const struct chan_request *rq, const struct webhook_parts *parts,
                         struct sl_fail *why)
{
    struct sms_http *s = owner;
    bool is_right = false;
    if (s->provider !=
        SMS_TWILIO) { /* the secret path was looked at, or a scheme of one's own says how it is signed */
        struct sl_str secrets[] = {sl_str_c(s->engine.secrets[0]), s->engine.secrets[1] != NULL
                                                                       ? sl_str_c(s->engine.secrets[1])
                                                                       : SL_STR_NONE};
        return webhook_verify(&s->engine.scheme->rule, parts, secrets, 2,
                              sl_loop_unix_ms(chan_loop(s->engine.ch)), why);
    }
    struct sl_str type = rq->header(rq, "content-type");
    struct sms_twilio_request in = {.url = parts->url,
                                    .body = rq->body,
                                    .signature = parts->signature,
                                    .is_form = !sl_str_starts(type, "application/json")};
    for (size_t i = 0; i < WEBHOOK_SECRETS_MAX && s->engine.secrets[i] != NULL; i++)
        is_right |= in.signature.len > 0 && sms_twilio_ok(sl_str_c(s->engine.secrets[i]), &in);
    return is_right ? SL_OK
                    : sl_fail_set(why, SL_EAUTH, 0, "Twilio's signature is missing or wrong for public_url");
}

/* ---- hooks: the ledger ---- */

static struct sms_wait *wait_new(struct sms_http *s, struct webhook_item *item, struct webhook_job *job)
{
    struct sms_wait *w = sl_alloc(sizeof *w);
    *w = (struct sms_wait){.s = s, .next = s->waits, .item = item, .job = job};
    s->waits = w;
    return w;
}

static void wait_free(struct sms_wait *w)
{
    struct sms_wait **at = &w->s->waits;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    free(w);
}

/* The item may be gone when its request was closed: the engine frees waits' items only when it closes, and then nothing is called. */
static void on_word_kept(void *arg, sl_err err, struct sl_str value)
{
    struct sms_wait *w = arg;
    struct webhook_item *item = w->item;
    (void)value;
    wait_free(w);
    if (err == SL_OK || err == SL_ENOTFOUND)
        webhook_item_go(item);
    else
        webhook_item_refuse(item);
}

/* STOP is in the ledger before it is acknowledged; the message goes on, so that an agent sees it. */
static bool sms_hold(void *owner, struct webhook_item *it)
{
    struct sms_http *s = owner;
    enum sms_optout word = sms_optout_word(sl_str_c(it->text));
    if (word == SMS_OPTOUT_NONE)
        return false;
    struct sms_wait *w = wait_new(s, it, NULL);
    sl_err err = sms_optout_put(s->engine.ch, sl_str_c(it->who), word == SMS_OPTOUT_STOP, on_word_kept, w);
    if (err == SL_OK)
        return true;
    wait_free(w);
    webhook_item_refuse(it); /* the provider repeats */
    return true;
}

static void on_asked(void *arg, sl_err err, struct sl_str value)
{
    struct sms_wait *w = arg;
    struct webhook_job *job = w->job;
    (void)value;
    wait_free(w);
    if (err == SL_ENOTFOUND)
        webhook_job_go(job);
    else if (err == SL_OK)
        webhook_job_refuse(job, SMS_OPTED_OUT_CODE, SMS_OPTED_OUT_WORDS, false);
    else
        webhook_job_refuse(job, sl_err_name(err),
                           "the ledger of opted-out numbers could not be asked; nothing was sent", true);
}

static sl_err sms_ask(void *owner, struct webhook_job *j)
{
    struct sms_http *s = owner;
    struct sms_wait *w = wait_new(s, NULL, j);
    sl_err err = sms_optout_ask(s->engine.ch, sl_str_c(j->address), on_asked, w);
    if (err != SL_OK)
        wait_free(w);
    return err;
}

static sl_err sms_call(void *owner, const struct chan_send *send, struct webhook_job *out,
                       struct sl_fail *why)
{
    return sms_provider_call(owner, send, out, why);
}

static void sms_judge(void *owner, const struct webhook_job *j, const struct webhook_body *answer,
                      struct chan_result *r)
{
    sms_provider_judge(owner, j, answer, r);
}

static void sms_closed(void *owner);

static const struct webhook_hooks sms_hooks = {.verify = sms_verify,
                                               .address = sms_address,
                                               .hold = sms_hold,
                                               .call = sms_call,
                                               .ask = sms_ask,
                                               .judge = sms_judge,
                                               .closed = sms_closed};

/* ---- life ---- */

static char *copy_key(struct chan *ch, const struct sl_config *cfg, const char *name)
{
    char key[MSG_ID_MAX_BYTES + 64];
    chan_key(ch, name, key);
    return sl_strdup(sl_config_str(cfg, key));
}

static const char *const providers[] = {"twilio", "aliyun", "tencent", "generic"};

static sl_err read_provider(struct chan *ch, struct sms_http *s, const struct sl_config *cfg,
                            struct sl_fail *why)
{
    char key[MSG_ID_MAX_BYTES + 64];
    chan_key(ch, "provider", key);
    const char *given = sl_config_str(cfg, key);
    for (size_t i = 0; i < sizeof providers / sizeof providers[0]; i++) {
        if (strcmp(providers[i], given) != 0)
            continue;
        s->provider = (enum sms_provider)i;
        return SL_OK;
    }
    return sl_fail_set(why, SL_EINVAL, 0, "%s: \"%.40s\" is not twilio, aliyun, tencent or generic", key,
                       given);
}

static sl_err need(struct chan *ch, const char *value, const char *name, struct sl_fail *why)
{
    if (value[0] != '\0')
        return SL_OK;
    return sl_fail_set(why, SL_EINVAL, 0, "inboxes.%s.%s must be given for this provider", chan_inbox(ch),
                       name);
}

static sl_err check_needed(struct chan *ch, const struct sms_http *s, struct sl_fail *why)
{
    const struct {
        unsigned providers; /* 1u << SMS_TWILIO | ... */
        const char *value, *name;
    } all[] = {{1u << SMS_TWILIO | 1u << SMS_ALIYUN | 1u << SMS_TENCENT, s->account, "account"},
               {1u << SMS_TWILIO, s->number, "number"},
               {1u << SMS_TWILIO, s->engine.public_url, "public_url"},
               {1u << SMS_ALIYUN | 1u << SMS_TENCENT, s->engine.access_token, "access_token"},
               {1u << SMS_ALIYUN | 1u << SMS_TENCENT, s->sign_name, "sign_name"},
               {1u << SMS_TENCENT, s->app_id, "app_id"}};
    sl_err err = SL_OK;
    for (size_t i = 0; i < sizeof all / sizeof all[0] && err == SL_OK; i++)
        if (all[i].providers & (1u << s->provider))
            err = need(ch, all[i].value, all[i].name, why);
    return err;
}

static void sms_free_keys(struct sms_http *s)
{
    char *all[] = {s->account,   s->number,        s->country,        s->region,
                   s->sign_name, s->template_code, s->template_param, s->app_id};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    for (size_t i = 0; i < s->price_count; i++)
        free(s->prices[i]);
    free(s->prices);
}

const char *sms_http_price_class(struct chan *ch, struct sl_str number)
{
    const struct sms_http *s = sms_of(ch);
    const char *found = "";
    size_t longest = 0;
    for (size_t i = 0; i < s->price_count; i++) {
        const char *eq = strchr(s->prices[i], '=');
        size_t n = eq != NULL ? (size_t)(eq - s->prices[i]) : 0;
        if (n <= longest || number.len < n || memcmp(number.ptr, s->prices[i], n) != 0)
            continue;
        longest = n;
        found = eq + 1;
    }
    return found;
}

static void read_prices(struct chan *ch, struct sms_http *s, const struct sl_config *cfg)
{
    char key[MSG_ID_MAX_BYTES + 64];
    const char *const *items;
    chan_key(ch, "price_classes", key);
    s->price_count = sl_config_list(cfg, key, &items);
    s->prices = sl_alloc((s->price_count + 1) * sizeof(char *));
    for (size_t i = 0; i < s->price_count; i++)
        s->prices[i] = sl_strdup(items[i]);
}

static void read_keys(struct chan *ch, struct sms_http *s, const struct sl_config *cfg)
{
    char key[CHAN_KEY_MAX];
    s->account = copy_key(ch, cfg, "account");
    s->number = copy_key(ch, cfg, "number");
    s->country = copy_key(ch, cfg, "country");
    s->region = copy_key(ch, cfg, "region");
    chan_key(ch, "mms", key);
    s->has_mms = s->provider == SMS_TWILIO && sl_config_bool(cfg, key);
    s->sign_name = copy_key(ch, cfg, "sign_name");
    s->template_code = copy_key(ch, cfg, "template_code");
    s->template_param = copy_key(ch, cfg, "template_param");
    s->app_id = copy_key(ch, cfg, "app_id");
    read_prices(ch, s, cfg);
}

static void sms_closed(void *owner)
{
    struct sms_http *s = owner;
    while (s->waits != NULL)
        wait_free(s->waits);
    sms_free_keys(s);
}

/* What Twilio's media want to see. */
static char *basic_of(const struct sms_http *s)
{
    struct sl_buf plain, coded;
    sl_buf_init(&plain, 0);
    sl_buf_init(&coded, 0);
    sl_buf_printf(&plain, "%s:%s", s->account,
                  s->engine.access_token[0] != '\0' ? s->engine.access_token : s->engine.secrets[0]);
    sl_b64(&coded, sl_buf_view(&plain));
    char *basic = sl_str_dup(sl_buf_view(&coded));
    explicit_bzero(plain.ptr, plain.len);
    sl_buf_fini(&plain);
    sl_buf_fini(&coded);
    return basic;
}

static sl_err sms_open(struct chan *ch, const struct sl_config *cfg, struct sl_fail *why)
{
    struct sms_http *s = sms_of(ch);
    sl_err err = read_provider(ch, s, cfg, why);
    if (err != SL_OK)
        return err;
    char *scheme_name = copy_key(ch, cfg, "scheme");
    const char *name = s->provider == SMS_GENERIC ? scheme_name : providers[s->provider];
    struct webhook_scheme *scheme = webhook_scheme_load(name, why);
    free(scheme_name);
    if (scheme == NULL)
        return SL_EINVAL;
    read_keys(ch, s, cfg);
    err = webhook_engine_open(&s->engine, ch, &sms_hooks, s, scheme, cfg, why);
    if (err == SL_OK) {
        err = check_needed(ch, s, why);
        if (err != SL_OK)
            webhook_engine_fini(&s->engine);
    }
    if (err != SL_OK)
        sms_free_keys(s);
    else
        s->engine.basic = basic_of(s);
    return err;
}

static sl_err sms_start(struct chan *ch)
{
    return webhook_engine_start(&sms_of(ch)->engine);
}

static void sms_limits_of(const struct chan *ch, struct chan_limits *out)
{
    const struct sms_http *s = sms_of((struct chan *)(uintptr_t)ch);
    *out = s->engine.scheme->limits;
    if (s->has_mms)
        out->kinds = out->bare = 1u << MSG_IMAGE;
}

static sl_err sms_send(struct chan *ch, const struct chan_send *send, struct chan_job *job)
{
    return webhook_engine_send(&sms_of(ch)->engine, send, job);
}

static void sms_accepted(struct chan *ch, struct chan_ticket *t, sl_err result)
{
    webhook_engine_accepted(&sms_of(ch)->engine, t, result);
}

static sl_err sms_request(struct chan *ch, struct chan_request *rq)
{
    return webhook_engine_request(&sms_of(ch)->engine, rq);
}

static void sms_drain(struct chan *ch, uint64_t deadline_mono_ms)
{
    (void)deadline_mono_ms;
    webhook_engine_drain(&sms_of(ch)->engine);
}

static void sms_close(struct chan *ch)
{
    webhook_engine_close(&sms_of(ch)->engine);
}

static const struct sl_key sms_http_keys[] = {
    {"inboxes.*.provider", SL_CFG_STR, "twilio", 0, 0, false,
     "twilio, aliyun, tencent, or generic (with scheme)"},
    {"inboxes.*.scheme", SL_CFG_STR, "", 0, 0, false, "of provider generic: a scheme's file"},
    {"inboxes.*.account", SL_CFG_STR, "", 0, 0, false, "account SID, AccessKey id, SecretId"},
    {"inboxes.*.number", SL_CFG_STR, "", 0, 0, false, "Twilio: our number, or a messaging service (MG...)"},
    {"inboxes.*.mms", SL_CFG_BOOL, "false", 0, 0, false,
     "Twilio: pictures go as MMS, where number and country can do that; else as a link"},
    {"inboxes.*.country", SL_CFG_STR, "86", 0, 0, false,
     "country code of numbers that come without one; empty: leave them"},
    {"inboxes.*.region", SL_CFG_STR, "ap-guangzhou", 0, 0, false, "Tencent: region"},
    {"inboxes.*.app_id", SL_CFG_STR, "", 0, 0, false, "Tencent: SmsSdkAppId"},
    {"inboxes.*.sign_name", SL_CFG_STR, "", 0, 0, false, "Aliyun, Tencent: approved signature"},
    {"inboxes.*.template_code", SL_CFG_STR, "", 0, 0, false,
     "Aliyun, Tencent: approved template that carries a free text"},
    {"inboxes.*.template_param", SL_CFG_STR, "content", 0, 0, false, "Aliyun: its one parameter"},
    {"inboxes.*.price_classes", SL_CFG_LIST, "", 0, 0, false,
     "prefix=class, shown before sending: +86=domestic"},
    WEBHOOK_KEYS,
    {.key = NULL}};

const struct chan_ops sms_http_ops = {
    .api = CHAN_API,
    .name = "sms_http",
    .caps = CHAN_CAP_SEND | CHAN_CAP_REQUEST,
    .priv_size = sizeof(struct sms_http),
    .limits = {.text_max = 1600,
               .text_unit = CHAN_CHARS,
               .unknown = CHAN_AT_MOST_ONCE,
               .rate_per_s = 10,
               .window = 8},
    .horizon_ms = 86400000, /* Aliyun repeats ten times within an hour, Twilio for hours */
    .keys = sms_http_keys,
    .open = sms_open,
    .start = sms_start,
    .limits_of = sms_limits_of,
    .send = sms_send,
    .accepted = sms_accepted,
    .request = sms_request,
    .drain = sms_drain,
    .close = sms_close,
};
