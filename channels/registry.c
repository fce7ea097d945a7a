/* channels/registry.c - every adapter by name, and the checked door to it. */
#include "channels/channel.h"

#include "channels/email/email.h"
#include "channels/loopback/loopback.h"
#include "channels/sms/smpp.h"
#include "channels/sms/sms_http.h"
#include "channels/webchat/webchat.h"
#include "channels/webhook/webhook.h"
#include "channels/wechat/wechat.h"

#include "base/metrics.h"
#include "proto/keys.h"

#include <stdio.h>
#include <stdlib.h>

#define CHAN_MAGIC 0x6e616863u

struct chan {
    uint32_t magic;
    const struct chan_ops *ops;
    const struct chan_host *host;
    void *core;
    struct sl_loop *loop;
    char *inbox, *tenant;
    void *priv;
    struct sl_metric *sends, *frames, *requests;
    bool is_started, is_draining;
};

static const struct chan_ops *const adapters[] = {
    &loopback_ops,     &webchat_ops,   &webhook_ops, &sms_http_ops, &wechat_ops,
    &wechat_wecom_ops, &wechat_kf_ops, &smpp_ops,    &email_ops,
};

const struct chan_ops *const *chan_all(size_t *count)
{
    *count = sizeof adapters / sizeof adapters[0];
    return adapters;
}

const struct chan_ops *chan_find(struct sl_str name)
{
    for (size_t i = 0; i < sizeof adapters / sizeof adapters[0]; i++)
        if (sl_str_eq_c(name, adapters[i]->name))
            return adapters[i];
    return NULL;
}

static bool has_key(const struct sl_key *table, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(table[i].key, name) == 0)
            return true;
    return false;
}

#define KEYS_MAX 256
const struct sl_key *chan_keys(void)
{
    static struct sl_key all[KEYS_MAX + 1];
    size_t count = 0;
    if (all[0].key != NULL)
        return all;
    for (size_t i = 0; i < sizeof adapters / sizeof adapters[0]; i++) {
        for (const struct sl_key *k = adapters[i]->keys; k->key != NULL; k++) {
            if (has_key(all, count, k->key))
                continue; /* adapters may share a key: the first one's type and default count */
            sl_assert(count < KEYS_MAX);
            all[count++] = *k;
        }
    }
    return all;
}

static struct chan *checked(const struct chan *ch)
{
    sl_assert(ch != NULL && ch->magic == CHAN_MAGIC);
    return (struct chan *)(uintptr_t)ch;
}

/* The whole table knows the keys of every adapter; an inbox may have those of its own only. */
static sl_err refuse_foreign_keys(const struct chan *ch, const struct sl_config *cfg, struct sl_fail *why)
{
    for (const struct sl_key *k = chan_keys(); k->key != NULL; k++) {
        char key[CHAN_KEY_MAX];
        bool is_its = false;
        for (const struct sl_key *own = ch->ops->keys; own->key != NULL; own++)
            is_its = is_its || strcmp(own->key, k->key) == 0;
        if (is_its || !sl_str_starts(sl_str_c(k->key), "inboxes.*."))
            continue;
        chan_key(ch, k->key + strlen("inboxes.*."), key);
        if (sl_config_is_given(cfg, key))
            return sl_fail_set(why, SL_EINVAL, 0, "%s: the channel %s has no such key", key, ch->ops->name);
    }
    return SL_OK;
}

/* Wrong members are a programming fault of the adapter, found at the first start. */
static void check_ops(const struct chan_ops *ops)
{
    sl_assert(ops->api == CHAN_API);
    sl_assert(ops->open != NULL && ops->start != NULL && ops->drain != NULL && ops->close != NULL);
    sl_assert(((ops->caps & CHAN_CAP_SEND) != 0) == (ops->send != NULL));
    sl_assert(ops->query == NULL || ops->send != NULL);
    sl_assert(((ops->caps & CHAN_CAP_REQUEST) != 0) == (ops->request != NULL));
    sl_assert(((ops->caps & CHAN_CAP_SOCKET) != 0) == (ops->hello != NULL && ops->frame != NULL));
}

static struct sl_metric *counter_of(const char *what, const char *channel)
{
    char labels[96];
    (void)snprintf(labels, sizeof labels, "channel=\"%s\",call=\"%s\"", channel, what);
    return sl_counter("sluice_channel_calls_total", labels, "Calls of the core into channel adapters");
}

static void chan_destroy(struct chan *ch)
{
    free(ch->inbox);
    free(ch->tenant);
    free(ch->priv);
    ch->magic = 0;
    free(ch);
}

struct chan *chan_new(const struct chan_ops *ops, const struct chan_host *host, void *core, struct sl_loop *l,
                      const char *inbox, const char *tenant, const struct sl_config *cfg, struct sl_fail *why)
{
    check_ops(ops);
    if (!key_part_ok(sl_str_c(inbox)) || !key_part_ok(sl_str_c(tenant)) ||
        strlen(tenant) > KEY_TENANT_MAX_BYTES) {
        (void)sl_fail_set(why, SL_EINVAL, 0,
                          "inboxes.%s: the names of inbox and tenant are letters, digits and ._@+- only",
                          inbox);
        return NULL;
    }
    struct chan *ch = sl_alloc(sizeof *ch);
    *ch = (struct chan){.magic = CHAN_MAGIC, .ops = ops, .host = host, .core = core, .loop = l};
    ch->inbox = sl_strdup(inbox);
    ch->tenant = sl_strdup(tenant);
    ch->priv = ops->priv_size > 0 ? sl_alloc(ops->priv_size) : NULL;
    if (refuse_foreign_keys(ch, cfg, why) != SL_OK || ops->open(ch, cfg, why) != SL_OK) {
        chan_destroy(ch);
        return NULL;
    }
    ch->sends = counter_of("send", ops->name);
    ch->frames = counter_of("frame", ops->name);
    ch->requests = counter_of("request", ops->name);
    return ch;
}

void chan_free(struct chan **chp)
{
    struct chan *ch = *chp;
    *chp = NULL;
    if (ch != NULL)
        chan_destroy(checked(ch));
}

void *chan_priv(struct chan *ch)
{
    return checked(ch)->priv;
}

void *chan_core(struct chan *ch)
{
    return checked(ch)->core;
}

struct sl_loop *chan_loop(struct chan *ch)
{
    return checked(ch)->loop;
}

const struct chan_host *chan_host_of(struct chan *ch)
{
    return checked(ch)->host;
}

const char *chan_inbox(const struct chan *ch)
{
    return checked(ch)->inbox;
}

const char *chan_tenant(const struct chan *ch)
{
    return checked(ch)->tenant;
}

const struct chan_ops *chan_ops_of(const struct chan *ch)
{
    return checked(ch)->ops;
}

void chan_limits(const struct chan *ch, struct chan_limits *out)
{
    const struct chan_ops *ops = checked(ch)->ops;
    if (ops->limits_of != NULL)
        ops->limits_of(ch, out);
    else
        *out = ops->limits;
}

void chan_key(const struct chan *ch, const char *name, char out[CHAN_KEY_MAX])
{
    int n = snprintf(out, CHAN_KEY_MAX, "inboxes.%s.%s", checked(ch)->inbox, name);
    sl_assert(n > 0 && n < CHAN_KEY_MAX);
}

sl_err chan_start(struct chan *ch)
{
    sl_assert(!checked(ch)->is_started);
    ch->is_started = true;
    return ch->ops->start(ch);
}

void chan_hold(struct chan *ch, bool is_holder)
{
    if (checked(ch)->ops->hold != NULL)
        ch->ops->hold(ch, is_holder);
}

sl_err chan_send(struct chan *ch, const struct chan_send *s, struct chan_job *job)
{
    sl_assert(checked(ch)->ops->caps & CHAN_CAP_SEND);
    if (ch->is_draining)
        return SL_EAGAIN;
    sl_count(ch->sends, 1);
    return ch->ops->send(ch, s, job);
}

sl_err chan_query(struct chan *ch, const struct chan_send *s, struct chan_job *job)
{
    if (checked(ch)->ops->query == NULL)
        return SL_ENOTFOUND;
    if (ch->is_draining)
        return SL_EAGAIN;
    return ch->ops->query(ch, s, job);
}

void chan_typing(struct chan *ch, struct sl_str address, bool is_typing)
{
    if (checked(ch)->ops->typing != NULL && !ch->is_draining)
        ch->ops->typing(ch, address, is_typing);
}

void chan_accepted(struct chan *ch, struct chan_ticket *t, sl_err result)
{
    if (checked(ch)->ops->accepted != NULL)
        ch->ops->accepted(ch, t, result);
}

sl_err chan_request(struct chan *ch, struct chan_request *rq)
{
    if (!(checked(ch)->ops->caps & CHAN_CAP_REQUEST))
        return SL_ENOTFOUND;
    if (ch->is_draining)
        return SL_EAGAIN;
    sl_count(ch->requests, 1);
    return ch->ops->request(ch, rq);
}

sl_err chan_hello(struct chan *ch, const struct chan_hello *in, struct chan_visitor *out, struct sl_fail *why)
{
    if (!(checked(ch)->ops->caps & CHAN_CAP_SOCKET))
        return sl_fail_set(why, SL_EDENIED, 0, "inbox %s takes no sockets", ch->inbox);
    *out = (struct chan_visitor){.address = ""};
    sl_err err = ch->ops->hello(ch, in, out, why);
    sl_assert(err != SL_OK || key_part_ok(sl_str_c(out->address)));
    return err;
}

sl_err chan_frame(struct chan *ch, struct sl_str kind, struct sl_str text, struct sl_str data_json,
                  struct msg *m, struct sl_fail *why)
{
    if (!(checked(ch)->ops->caps & CHAN_CAP_SOCKET))
        return sl_fail_set(why, SL_EDENIED, 0, "inbox %s takes no sockets", ch->inbox);
    sl_count(ch->frames, 1);
    return ch->ops->frame(ch, kind, text, data_json, m, why);
}

void chan_reload(struct chan *ch, const struct sl_config *cfg)
{
    if (checked(ch)->ops->reload != NULL)
        ch->ops->reload(ch, cfg);
}

void chan_drain(struct chan *ch, uint64_t deadline_mono_ms)
{
    checked(ch)->is_draining = true;
    ch->ops->drain(ch, deadline_mono_ms);
}

void chan_close(struct chan *ch)
{
    checked(ch)->is_draining = true;
    ch->ops->close(ch);
}
