/* channels/webchat/webchat.c - who a visitor is, and what a visitor may say.
 *
 * What     sockets, numbering and resuming are the core's (gateway/session.c); here is only what is
 * particular to web chat: origins, tokens, kinds. A visitor without a token is given a new address and a
 * token to keep.
 */
#include "channels/webchat/webchat.h"

#include "channels/webchat/webchat_wire.h"

#include "base/ulid.h"

#include <stdlib.h>

#define SECRET_MIN_BYTES 16

struct webchat {
    struct chan *ch;
    char *secret;
    char **origins;
    size_t origin_count;
    bool allow_no_origin;
    bool is_closing;
    struct sl_post turn;
};

static void webchat_free_origins(struct webchat *wc)
{
    for (size_t i = 0; i < wc->origin_count; i++)
        free(wc->origins[i]);
    free(wc->origins);
}

static void webchat_on_turn(void *arg)
{
    struct webchat *wc = arg;
    if (!wc->is_closing) {
        chan_host_of(wc->ch)->state(wc->ch, CHAN_UP);
        return;
    }
    webchat_free_origins(wc);
    free(wc->secret);
    chan_host_of(wc->ch)->closed(wc->ch); /* wc may be gone now */
}

static void webchat_key(char *out, size_t size, const char *inbox, const char *name)
{
    struct sl_buf b;
    sl_buf_init(&b, size - 1);
    sl_buf_printf(&b, "inboxes.%s.%s", inbox, name);
    sl_assert(!b.overflow);
    memcpy(out, b.ptr, b.len);
    out[b.len] = '\0';
    sl_buf_fini(&b);
}

static void webchat_copy_origins(struct webchat *wc, const struct sl_config *cfg, const char *key)
{
    const char *const *items;
    wc->origin_count = sl_config_list(cfg, key, &items);
    wc->origins = sl_alloc((wc->origin_count + 1) * sizeof wc->origins[0]);
    for (size_t i = 0; i < wc->origin_count; i++)
        wc->origins[i] = sl_strdup(items[i]);
}

/* The keys that a running gateway takes over. */
static void webchat_read_reloadable(struct webchat *wc, const struct sl_config *cfg)
{
    char key[MSG_ID_MAX_BYTES + 64];
    webchat_key(key, sizeof key, chan_inbox(wc->ch), "allow_no_origin");
    wc->allow_no_origin = sl_config_bool(cfg, key);
    webchat_key(key, sizeof key, chan_inbox(wc->ch), "origins");
    webchat_copy_origins(wc, cfg, key);
}

static void webchat_reload(struct chan *ch, const struct sl_config *cfg)
{
    struct webchat *wc = chan_priv(ch);
    webchat_free_origins(wc);
    webchat_read_reloadable(wc, cfg);
}

static sl_err webchat_open(struct chan *ch, const struct sl_config *cfg, struct sl_fail *why)
{
    struct webchat *wc = chan_priv(ch);
    char key[MSG_ID_MAX_BYTES + 64];
    webchat_key(key, sizeof key, chan_inbox(ch), "secret");
    const char *secret = sl_config_str(cfg, key);
    if (strlen(secret) < SECRET_MIN_BYTES)
        return sl_fail_set(why, SL_EINVAL, 0, "inboxes.%s.secret: give %d bytes or more, or secret_file",
                           chan_inbox(ch), SECRET_MIN_BYTES);
    wc->ch = ch;
    wc->secret = sl_strdup(secret);
    webchat_read_reloadable(wc, cfg);
    sl_post_init(&wc->turn, chan_loop(ch), webchat_on_turn, wc);
    return SL_OK;
}

static sl_err webchat_start(struct chan *ch)
{
    struct webchat *wc = chan_priv(ch);
    sl_post_now(&wc->turn);
    return SL_OK;
}

/* An origin that the core found to be the gateway's own arrives as "self". */
static sl_err webchat_check_origin(const struct webchat *wc, struct sl_str origin, struct sl_fail *why)
{
    if (origin.len == 0 && wc->allow_no_origin)
        return SL_OK;
    if (sl_str_eq_c(origin, "self") ||
        webchat_origin_listed(origin, (const char *const *)wc->origins, wc->origin_count))
        return SL_OK;
    return sl_fail_set(why, SL_EDENIED, 0, "this origin is not in the inbox's list");
}

static void webchat_new_visitor(struct webchat *wc, int64_t now_unix_ms, struct chan_visitor *out)
{
    char ulid[SL_ULID_LEN + 1];
    sl_ulid_new(ulid, now_unix_ms);
    memcpy(out->address, "w-", 2);
    memcpy(out->address + 2, ulid, sizeof ulid);
    struct sl_buf token;
    sl_buf_init(&token, sizeof out->token - 1);
    webchat_token_write(&token, sl_str_c(wc->secret), sl_str_c(chan_inbox(wc->ch)), sl_str_c(out->address),
                        now_unix_ms / 1000);
    sl_assert(!token.overflow);
    memcpy(out->token, token.ptr, token.len);
    out->token[token.len] = '\0';
    sl_buf_fini(&token);
}

static sl_err webchat_hello(struct chan *ch, const struct chan_hello *in, struct chan_visitor *out,
                            struct sl_fail *why)
{
    struct webchat *wc = chan_priv(ch);
    sl_err err = webchat_check_origin(wc, in->origin, why);
    if (err != SL_OK)
        return err;
    if (in->token.len == 0) {
        webchat_new_visitor(wc, in->now_unix_ms, out);
        return SL_OK;
    }
    struct sl_str address;
    err = webchat_token_read(in->token, sl_str_c(wc->secret), sl_str_c(chan_inbox(ch)), in->now_unix_ms,
                             &address, why);
    if (err != SL_OK)
        return err;
    memcpy(out->address, address.ptr, address.len);
    out->address[address.len] = '\0';
    return SL_OK;
}

/* What a visitor may send: everything but notes (agents') and events (ours). */
static sl_err webchat_frame(struct chan *ch, struct sl_str kind, struct sl_str text, struct sl_str data_json,
                            struct msg *m, struct sl_fail *why)
{
    m->channel = SL_STR("webchat");
    m->inbox = sl_str_c(chan_inbox(ch));
    m->tenant = sl_str_c(chan_tenant(ch));
    m->by = MSG_BY_VISITOR;
    m->kind = MSG_TEXT;
    m->text = text;
    m->data = data_json;
    if (kind.len > 0 && (!msg_kind_from(kind, &m->kind) || m->kind == MSG_NOTE || m->kind == MSG_EVENT))
        return sl_fail_set(why, SL_EINVAL, 0, "d.kind is not one that a visitor may send");
    return msg_check(m, why);
}

static void webchat_drain(struct chan *ch, uint64_t deadline_mono_ms)
{
    (void)ch;
    (void)deadline_mono_ms; /* it holds no jobs: sockets are the core's */
}

static void webchat_close(struct chan *ch)
{
    struct webchat *wc = chan_priv(ch);
    wc->is_closing = true;
    sl_post_now(&wc->turn);
}

static const struct sl_key webchat_keys[] = {WEBCHAT_KEYS, {.key = NULL}};

const struct chan_ops webchat_ops = {
    .api = CHAN_API,
    .name = "webchat",
    .caps = CHAN_CAP_SOCKET,
    .priv_size = sizeof(struct webchat),
    .horizon_ms = 0,
    .keys = webchat_keys,
    .open = webchat_open,
    .start = webchat_start,
    .hello = webchat_hello,
    .frame = webchat_frame,
    .reload = webchat_reload,
    .drain = webchat_drain,
    .close = webchat_close,
};
