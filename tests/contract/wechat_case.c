/* tests/contract/wechat_case.c - the WeChat platform as the nine rules need it: signed, encrypted callbacks and an API that says yes. */
#include "base/http_client.h"
#include "base/loop.h"
#include "channels/wechat/wechat_crypt.h"
#include "tests/contract/channel_case.h"

#include <stdio.h>
#include <stdlib.h>

#define TOKEN   "callback-token"
#define AES_KEY "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
#define COMMON  "secret: the-app-secret, token: " TOKEN ", aes_key: " AES_KEY

static char next_item[64]; /* kf: what sync_msg has to give; empty: nothing */

/* ---- the API ---- */

static void api_answer(void *arg, struct sl_http *h, uint64_t id, const struct sl_http_request *rq)
{
    char body[1024];
    (void)arg;
    if (strstr(rq->url, "stable_token") != NULL || strstr(rq->url, "gettoken") != NULL) {
        (void)snprintf(body, sizeof body, "{\"errcode\":0,\"access_token\":\"A\",\"expires_in\":7200}");
    } else if (strstr(rq->url, "sync_msg") != NULL && next_item[0] != '\0') {
        (void)snprintf(
            body, sizeof body,
            "{\"errcode\":0,\"next_cursor\":\"c-%s\",\"has_more\":0,\"msg_list\":[{\"msgid\":\"%s\",\"open_"
            "kfid\":\"wk1\",\"external_userid\":"
            "\"wm1\",\"send_time\":1,\"origin\":3,\"msgtype\":\"text\",\"text\":{\"content\":\"hi\"}}]}",
            next_item, next_item);
    } else {
        (void)snprintf(
            body, sizeof body,
            "{\"errcode\":0,\"errmsg\":\"ok\",\"msgid\":\"m1\",\"next_cursor\":\"c\",\"msg_list\":[]}");
    }
    (void)sl_http_fake_answer(h, id,
                              &(struct sl_http_answer){.err = SL_OK, .status = 200, .body = sl_str_c(body)});
}

static void before_open(struct sl_loop *loop)
{
    (void)loop;
    next_item[0] = '\0';
    sl_http_fake_set(&(struct sl_http_fake){.request = api_answer});
}

static void after_close(void)
{
    sl_http_fake_set(NULL);
}

/* ---- callbacks ---- */

static void seal(struct channel_post *out, const char *xml, const char *receive_id, int64_t now_unix_ms)
{
    static const unsigned char random[WECHAT_RANDOM_BYTES];
    char signature[WECHAT_SIGNATURE_LEN + 1], timestamp[24];
    struct wechat_key key;
    struct sl_buf cipher;
    sl_assert(wechat_key_read(SL_STR(AES_KEY), &key, NULL) == SL_OK);
    sl_buf_init(&cipher, 0);
    wechat_encrypt(&key, random, sl_str_c(xml), sl_str_c(receive_id), &cipher);
    (void)snprintf(timestamp, sizeof timestamp, "%lld", (long long)(now_unix_ms / 1000));
    const struct sl_str parts[] = {SL_STR(TOKEN), sl_str_c(timestamp), SL_STR("n"), sl_buf_view(&cipher)};
    wechat_sign(parts, 4, signature);
    (void)snprintf(out->store, sizeof out->store, "timestamp=%s&nonce=n&msg_signature=%s&encrypt_type=aes",
                   timestamp, signature);
    out->query = out->store;
    (void)snprintf(out->body, sizeof out->body,
                   "<xml><ToUserName>gh_1</ToUserName><Encrypt><![CDATA[%.*s]]></Encrypt></xml>",
                   (int)cipher.len, cipher.ptr);
    sl_buf_fini(&cipher);
}

/* The platform's ids are numbers. */
static void build(struct channel_post *out, const char *id, const char *receive_id, int64_t now_unix_ms)
{
    char xml[1024];
    (void)snprintf(xml, sizeof xml,
                   "<xml><ToUserName>gh_1</ToUserName><FromUserName>oA</FromUserName><CreateTime>%lld</"
                   "CreateTime><MsgType>text</MsgType>"
                   "<Content>hi</Content><MsgId>%llu</MsgId></xml>",
                   (long long)(now_unix_ms / 1000), (unsigned long long)(sl_str_hash(sl_str_c(id), 0) >> 1));
    seal(out, xml, receive_id, now_unix_ms);
}

static void build_oa(struct channel_post *out, const char *id, int64_t now_unix_ms)
{
    build(out, id, "wx1", now_unix_ms);
}

static void build_wecom(struct channel_post *out, const char *id, int64_t now_unix_ms)
{
    build(out, id, "ww1", now_unix_ms);
}

/* kf: a hint, and the message waits to be fetched. */
static struct sl_str no_header(const struct chan_request *rq, const char *name)
{
    (void)rq;
    (void)name;
    return SL_STR_NONE;
}

static void ignore_answer(struct chan_request *rq, int status, const char *content_type, struct sl_str body)
{
    (void)rq;
    (void)status;
    (void)content_type;
    (void)body;
}

static void deliver_kf(struct chan *ch, const char *id)
{
    static struct channel_post p;
    int64_t now = sl_loop_unix_ms(chan_loop(ch));
    (void)snprintf(next_item, sizeof next_item, "%s", id);
    seal(&p,
         "<xml><ToUserName>ww1</ToUserName><CreateTime>1</CreateTime><MsgType>event</"
         "MsgType><Event>kf_msg_or_event</Event>"
         "<Token>T</Token><OpenKfId>wk1</OpenKfId></xml>",
         "ww1", now);
    struct chan_request rq = {.method = SL_STR("POST"),
                              .query = sl_str_c(p.query),
                              .body = sl_str_c(p.body),
                              .header = no_header,
                              .answer = ignore_answer};
    (void)!chan_request(ch, &rq);
}

const struct channel_case wechat_case = {.channel = "wechat",
                                         .yaml = "appid: wx1, " COMMON,
                                         .bad_yaml = "appid: wx1, secret: s, token: t, aes_key: abbreviated",
                                         .bad_secret = "abbreviated",
                                         .address = "oA",
                                         .ok_status = 200,
                                         .busy_status = 503,
                                         .build = build_oa,
                                         .before_open = before_open,
                                         .after_close = after_close};
const struct channel_case wecom_case = {
    .channel = "wecom",
    .yaml = "corpid: ww1, agent_id: 1000002, " COMMON,
    .bad_yaml = "corpid: ww1, agent_id: 1, secret: s, token: t, aes_key: abbreviated",
    .bad_secret = "abbreviated",
    .address = "u1",
    .ok_status = 200,
    .busy_status = 503,
    .build = build_wecom,
    .before_open = before_open,
    .after_close = after_close};
const struct channel_case wechat_kf_case = {.channel = "wechat_kf",
                                            .yaml = "corpid: ww1, " COMMON,
                                            .bad_yaml =
                                                "corpid: ww1, secret: s, token: t, aes_key: abbreviated",
                                            .bad_secret = "abbreviated",
                                            .address = "wm1",
                                            .context = "{\"kf\":\"wk1\"}",
                                            .ok_status = 200,
                                            .busy_status = 503,
                                            .deliver = deliver_kf,
                                            .before_open = before_open,
                                            .after_close = after_close};
