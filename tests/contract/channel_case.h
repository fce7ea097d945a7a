/* tests/contract/channel_case.h - what one adapter's provider looks like, so that the nine rules can be tried on it.
 *
 * A new adapter: one file tests/contract/<channel>_case.c, its name below, in test_channels.c's table and in meson.build.
 */
#ifndef TESTS_CONTRACT_CHANNEL_CASE_H
#define TESTS_CONTRACT_CHANNEL_CASE_H

#include "channels/channel.h"

#define CHANNEL_POST_HEADERS 8
struct channel_post { /* one webhook request */
    const char *method, *rest, *query;
    const char *header[CHANNEL_POST_HEADERS][2]; /* lower-case name, value */
    char body[65536];
    size_t body_bytes; /* 0: a C string */
    char store[4096];  /* for header values and the query, when they are made */
};
struct channel_case {
    const char *channel; /* ops->name */
    const char *yaml;    /* members of the inbox "box": "secret: abc, mode: safe" */
    const char *bad_yaml,
        *bad_secret; /* a configuration that open() refuses, and a word of it that must not be told */
    const char *address, *context; /* whom to send to; NULL: "a", none */
    int ok_status, busy_status;    /* what the provider gets for accepted and for busy */
    /* CHAN_CAP_REQUEST: the provider's request for a message it names by id, at this time; NULL: it calls no webhook */
    void (*build)(struct channel_post *out, const char *id, int64_t now_unix_ms);
    /* A provider with a connection of its own (SMPP, LMTP): give this message; the status it got, 0: none yet */
    void (*deliver)(struct chan *ch, const char *id);
    int (*answered)(const char *id);
    /* Install scripted transports; the provider answers every send with success unless it says otherwise. */
    void (*before_open)(struct sl_loop *loop);
    void (*after_close)(void);
};
extern const struct channel_case wechat_case, wecom_case, wechat_kf_case;
extern const struct channel_case webhook_case, sms_http_case;
extern const struct channel_case loopback_case, webchat_case, smpp_case, email_case;

/* fake_services.c: the core's shared values and media, in memory, answering on a later turn. */
void fake_services_open(struct sl_loop *loop);
void fake_services_close(void);
sl_err fake_kv(struct chan *ch, const struct chan_kv *op, chan_kv_fn fn, void *arg);
sl_err fake_media_put(struct chan *ch, struct sl_str bytes, struct sl_str type, struct sl_str name,
                      chan_media_fn fn, void *arg);
sl_err fake_media_fetch(struct chan *ch, const struct chan_fetch *f, chan_media_fn fn, void *arg);
sl_err fake_media_read(struct chan *ch, struct sl_str id, chan_media_fn fn, void *arg);

#endif
