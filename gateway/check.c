/* gateway/check.c - would a gateway start with this configuration? What the table of keys cannot check; nothing is opened for good. */
#include "gateway/gateway_priv.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

/* Every adapter reads its inbox as it would at start, on a loop where nothing ever happens. */
struct probe {
    bool is_closed;
};

static void on_closed(struct chan *ch)
{
    struct probe *p = chan_core(ch);
    p->is_closed = true;
}

static void on_state(struct chan *ch, enum chan_state now)
{
    (void)ch;
    (void)now;
}

static void close_probe(struct sl_loop *loop, struct chan *ch, const struct probe *p)
{
    uint64_t due;
    chan_close(ch);
    while (!p->is_closed) {
        if (sl_loop_virtual_step(loop))
            continue;
        bool is_more = sl_loop_virtual_next(loop, &due);
        sl_assert(is_more); /* it was never started: it waits for nobody */
        sl_loop_virtual_set(loop, due, sl_loop_unix_ms(loop));
    }
    chan_free(&ch);
}

static sl_err check_inbox(struct sl_loop *loop, const struct sl_config *cfg, const char *name,
                          struct sl_fail *why)
{
    static const struct chan_host host = {.state = on_state, .closed = on_closed};
    struct probe p = {.is_closed = false};
    char key[CHAN_KEY_MAX];
    (void)snprintf(key, sizeof key, "inboxes.%.*s.channel", MSG_ID_MAX_BYTES, name);
    const struct chan_ops *ops = chan_find(sl_str_c(sl_config_str(cfg, key)));
    if (ops == NULL)
        return sl_fail_set(why, SL_EINVAL, 0, "%s: there is no adapter \"%s\"", key, sl_config_str(cfg, key));
    (void)snprintf(key, sizeof key, "inboxes.%.*s.tenant", MSG_ID_MAX_BYTES, name);
    struct chan *ch = chan_new(ops, &host, &p, loop, name, sl_config_str(cfg, key), cfg, why);
    if (ch == NULL)
        return SL_EINVAL;
    sl_err err = gw_delivery_check(ch, cfg, why);
    if (err == SL_OK && (ops->caps & CHAN_CAP_STORE) && sl_config_str(cfg, "media.dir")[0] == '\0' &&
        sl_config_str(cfg, "media.s3_endpoint")[0] == '\0')
        err = sl_fail_set(
            why, SL_EINVAL, 0,
            "inboxes.%s: channel %s needs a media store: give media.dir or media.s3_endpoint; without "
            "one, what carries attachments is never taken",
            name, ops->name);
    close_probe(loop, ch, &p);
    return err;
}

static sl_err check_inboxes(const struct sl_config *cfg, struct sl_fail *why)
{
    const char *const *names;
    size_t count = sl_config_entries(cfg, "inboxes", &names);
    struct sl_loop *loop = sl_loop_new_virtual(1);
    sl_err err = SL_OK;
    for (size_t i = 0; i < count && err == SL_OK; i++)
        err = check_inbox(loop, cfg, names[i], why);
    sl_loop_close(&loop);
    return err;
}

static sl_err check_file(const struct sl_config *cfg, const char *key, struct sl_fail *why)
{
    const char *path = sl_config_str(cfg, key);
    if (path[0] == '\0' || access(path, R_OK) == 0)
        return SL_OK;
    return sl_fail_set(why, SL_EINVAL, errno, "%s: %s cannot be read", key, path);
}

sl_err gw_check(const struct sl_config *cfg, struct sl_fail *why)
{
    char address[256];
    int port;
    struct gw_people *people = gw_people_new(cfg, why);
    if (people == NULL)
        return SL_EINVAL;
    gw_people_free(&people);
    sl_err err = gw_parse_listen(sl_config_str(cfg, "gateway.listen"), address, sizeof address, &port, why);
    if (err == SL_OK)
        err = check_file(cfg, "gateway.tls_cert", why);
    if (err == SL_OK)
        err = check_file(cfg, "gateway.tls_key", why);
    return err == SL_OK ? check_inboxes(cfg, why) : err;
}
