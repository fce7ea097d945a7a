/* tests/contract/webhook_case.c - a provider of the Standard Webhooks scheme, and Twilio, over a scripted transport. */
#include "base/http_client.h"
#include "channels/sms/sms_sign.h"
#include "channels/webhook/webhook_sign.h"
#include "tests/contract/channel_case.h"

#include <stdio.h>

#define SECRET "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

static void provider_takes(void *arg, struct sl_http *h, uint64_t id, const struct sl_http_request *rq)
{
    static unsigned serial;
    char body[100];
    (void)arg;
    (void)rq;
    int n = snprintf(body, sizeof body, "{\"id\":\"P%u\",\"sid\":\"SM%u\",\"status\":\"queued\"}", serial,
                     serial);
    serial++;
    struct sl_http_answer a = {
        .err = SL_OK, .status = 201, .head = SL_STR(""), .body = sl_str_n(body, (size_t)n), .url = ""};
    (void)sl_http_fake_answer(h, id, &a);
}

static void before_open(struct sl_loop *loop)
{
    (void)loop;
    sl_http_fake_set(&(struct sl_http_fake){.request = provider_takes});
}

static void after_close(void)
{
    sl_http_fake_set(NULL);
}

static const struct webhook_rule standard = {.place = WEBHOOK_HEADER,
                                             .name = "",
                                             .prefix = "v1,",
                                             .separator = " ",
                                             .base = "${id}.${ts}.${body}",
                                             .digest = WEBHOOK_HMAC_SHA256,
                                             .output = WEBHOOK_BASE64,
                                             .is_key_base64 = true,
                                             .key_prefix = "whsec_"};

static void build_standard(struct channel_post *out, const char *id, int64_t now_unix_ms)
{
    char *ts = out->store, *signature = out->store + 64, *name = out->store + 256;
    struct sl_buf made;
    (void)snprintf(ts, 64, "%lld", (long long)(now_unix_ms / 1000));
    (void)snprintf(name, 128, "%s", id);
    (void)snprintf(out->body, sizeof out->body,
                   "{\"type\":\"message.received\",\"data\":{\"from\":\"+15551234567\",\"text\":\"hi %s\"}}",
                   id);
    struct webhook_parts parts = {.id = sl_str_c(name), .ts = sl_str_c(ts), .body = sl_str_c(out->body)};
    sl_buf_init(&made, 0);
    sl_assert(webhook_signature(&standard, &parts, SL_STR(SECRET), &made) == SL_OK);
    (void)snprintf(signature, 128, "%.*s", (int)made.len, made.ptr);
    sl_buf_fini(&made);
    out->header[0][0] = "webhook-id";
    out->header[0][1] = name;
    out->header[1][0] = "webhook-timestamp";
    out->header[1][1] = ts;
    out->header[2][0] = "webhook-signature";
    out->header[2][1] = signature;
}

const struct channel_case webhook_case = {.channel = "webhook",
                                          .yaml = "scheme: standard, secret: " SECRET ", access_token: t",
                                          .bad_yaml = "scheme: standard, secret: abbrev",
                                          .bad_secret = "abbrev",
                                          .ok_status = 200,
                                          .busy_status = 503,
                                          .build = build_standard,
                                          .before_open = before_open,
                                          .after_close = after_close};

/* ---- Twilio ---- */

#define PUBLIC_URL "https://gw.example.com/sms_http/box"

static void build_twilio(struct channel_post *out, const char *id, int64_t now_unix_ms)
{
    struct sl_buf bytes, made;
    struct sms_param p[16];
    size_t count = 0;
    (void)now_unix_ms;
    (void)snprintf(out->body, sizeof out->body,
                   "MessageSid=SM%s&From=%%2B15551234567&To=%%2B15550000000&Body=hi&NumMedia=0", id);
    sl_buf_init(&bytes, 0);
    sl_buf_init(&made, 0);
    sl_assert(sms_form_read(sl_str_c(out->body), &bytes, p, &count) == SL_OK);
    sms_sign_twilio(SL_STR("twilio auth token"), SL_STR(PUBLIC_URL), p, count, &made);
    (void)snprintf(out->store, sizeof out->store, "%.*s", (int)made.len, made.ptr);
    sl_buf_fini(&bytes);
    sl_buf_fini(&made);
    out->header[0][0] = "x-twilio-signature";
    out->header[0][1] = out->store;
    out->header[1][0] = "content-type";
    out->header[1][1] = "application/x-www-form-urlencoded";
}

const struct channel_case sms_http_case = {
    .channel = "sms_http",
    .yaml = "provider: twilio, account: AC1, secret: twilio auth token, number: \"+15550000000\", "
            "public_url: \"" PUBLIC_URL "\"",
    .bad_yaml =
        "provider: twilio, account: AC1, secret: abbrev, number: \"+15550000000\", public_url: \"" PUBLIC_URL
        "\"",
    .bad_secret = "abbrev",
    .address = "+15551234567",
    .ok_status = 200,
    .busy_status = 503,
    .build = build_twilio,
    .before_open = before_open,
    .after_close = after_close};
