/* channels/webhook/webhook.c - the adapter: a scheme, an inbox's secrets, and the engine. */
#include "channels/webhook/webhook.h"

#include "channels/webhook/webhook_engine.h"

struct webhook {
    struct webhook_engine engine;
};

static const struct webhook_hooks no_hooks = {.verify = NULL};

static sl_err webhook_open(struct chan *ch, const struct sl_config *cfg, struct sl_fail *why)
{
    struct webhook *w = chan_priv(ch);
    char key[MSG_ID_MAX_BYTES + 64];
    chan_key(ch, "scheme", key);
    struct webhook_scheme *scheme = webhook_scheme_load(sl_config_str(cfg, key), why);
    if (scheme == NULL)
        return SL_EINVAL;
    return webhook_engine_open(&w->engine, ch, &no_hooks, w, scheme, cfg, why);
}

static struct webhook_engine *engine_of(struct chan *ch)
{
    struct webhook *w = chan_priv(ch);
    return &w->engine;
}

static sl_err webhook_start(struct chan *ch)
{
    return webhook_engine_start(engine_of(ch));
}

static void webhook_limits_of(const struct chan *ch, struct chan_limits *out)
{
    *out = engine_of((struct chan *)(uintptr_t)ch)->scheme->limits;
}

static sl_err webhook_send(struct chan *ch, const struct chan_send *s, struct chan_job *job)
{
    return webhook_engine_send(engine_of(ch), s, job);
}

static void webhook_accepted(struct chan *ch, struct chan_ticket *t, sl_err result)
{
    webhook_engine_accepted(engine_of(ch), t, result);
}

static sl_err webhook_request(struct chan *ch, struct chan_request *rq)
{
    return webhook_engine_request(engine_of(ch), rq);
}

static void webhook_drain(struct chan *ch, uint64_t deadline_mono_ms)
{
    (void)deadline_mono_ms; /* a call ends within CALL_MS by itself */
    webhook_engine_drain(engine_of(ch));
}

static void webhook_close(struct chan *ch)
{
    webhook_engine_close(engine_of(ch));
}

static const struct sl_key webhook_keys[] = {
    {"inboxes.*.scheme", SL_CFG_STR, "", 0, 0, false,
     "line, whatsapp, messenger, feishu, dingtalk, slack, telegram, standard, or a file of your own"},
    WEBHOOK_KEYS,
    {.key = NULL}};

const struct chan_ops webhook_ops = {
    .api = CHAN_API,
    .name = "webhook",
    .caps = CHAN_CAP_SEND | CHAN_CAP_REQUEST,
    .priv_size = sizeof(struct webhook),
    .limits = {.text_max = 4096,
               .text_unit = CHAN_CHARS,
               .unknown = CHAN_AT_MOST_ONCE,
               .rate_per_s = 10,
               .window = 8},
    .horizon_ms = INT64_C(7) * 86400000, /* WhatsApp repeats for up to 7 days */
    .keys = webhook_keys,
    .open = webhook_open,
    .start = webhook_start,
    .limits_of = webhook_limits_of,
    .send = webhook_send,
    .accepted = webhook_accepted,
    .request = webhook_request,
    .drain = webhook_drain,
    .close = webhook_close,
};
