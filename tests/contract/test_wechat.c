/* tests/contract/test_wechat.c - what the nine rules do not ask of WeChat's adapters: a scripted platform and a virtual clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include <stdio.h>

#include "base/http_client.h"
#include "channels/wechat/wechat.h"
#include "channels/wechat/wechat_crypt.h"
#include "channels/wechat/wechat_xml.h"
#include "tests/contract/channel_case.h"

#define AES_KEY "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
#define COMMON  "secret: the-app-secret, token: tok, aes_key: " AES_KEY
#define OA      "appid: wx1, " COMMON
#define WECOM   "corpid: ww1, agent_id: 7, " COMMON
#define KF      "corpid: ww1, open_kfid: wk1, " COMMON
#define IN_MAX  64

struct chan_job {
    unsigned settled;
    enum chan_outcome outcome;
    bool may_retry, is_account;
    char code[32], words[512], remote_id[64];
};
struct request {
    struct chan_request rq; /* first */
    int status;
    char type[64], body[8192];
};
struct box { /* one gateway's inbox; all share the fake values */
    struct chan *ch;
    struct sl_config *cfg;
    struct chan_ticket *ticket[IN_MAX];
    size_t tickets;
    char id[IN_MAX][64], text[IN_MAX][64], data[IN_MAX][1024], context[512];
    unsigned inbounds, receipts, closed, alarms;
    enum chan_what what;
    int rating;
    unsigned quota_count;
    char receipt_of[64], receipt_code[32];
    bool is_busy, is_storing; /* storing: accepted at once by the test's next turn */
};

/* ---- the platform ---- */

static struct {
    struct sl_loop *loop;
    unsigned tokens, forced, sends, syncs, uploads, gets, others;
    char send_body[8192], send_url[512], send_answer[256], sync_body[1024], other_body[2048];
    int send_status;
    sl_err send_err;
    enum sl_http_sent send_sent;
    char token[16], bad[40]; /* bad: "access_token=T0" is refused */
    bool is_media_stuck;
    char page[4096];
    char sync_cursor[64];
} api;

static bool has(const struct sl_http_request *rq, const char *path)
{
    return strstr(rq->url, path) != NULL;
}

static void copy(char *out, size_t size, struct sl_str s)
{
    (void)snprintf(out, size, "%.*s", (int)s.len, s.ptr);
}

static void on_api(void *arg, struct sl_http *h, uint64_t id, const struct sl_http_request *rq)
{
    struct sl_http_answer a = {
        .err = SL_OK, .status = 200, .head = SL_STR("content-type: application/json\r\n")};
    char body[4200] = "{\"errcode\":0,\"errmsg\":\"ok\"}";
    (void)arg;
    if (has(rq, "stable_token") || has(rq, "gettoken")) {
        char text[512];
        copy(text, sizeof text, rq->body);
        bool is_forced = strstr(text, "\"force_refresh\":true") != NULL;
        api.forced += is_forced;
        api.tokens++;
        if (is_forced)
            (void)snprintf(api.token, sizeof api.token, "T%u", api.tokens);
        (void)snprintf(body, sizeof body, "{\"access_token\":\"%s\",\"expires_in\":7200}", api.token);
    } else if (has(rq, "message/custom/send") || has(rq, "message/send?") || has(rq, "kf/send_msg")) {
        api.sends++;
        copy(api.send_body, sizeof api.send_body, rq->body);
        (void)snprintf(api.send_url, sizeof api.send_url, "%s", rq->url);
        bool is_bad = api.bad[0] != '\0' && has(rq, api.bad);
        (void)snprintf(body, sizeof body, "%s", is_bad ? "{\"errcode\":40001}" : api.send_answer);
        a.status = api.send_status;
        a.err = api.send_err;
        a.sent = api.send_sent;
        (void)snprintf(a.why.text, sizeof a.why.text, "scripted");
    } else if (has(rq, "sync_msg")) {
        api.syncs++;
        copy(api.sync_body, sizeof api.sync_body, rq->body);
        (void)snprintf(body, sizeof body, "%s", api.page);
    } else if (has(rq, "media/get")) {
        api.gets++;
        if (api.is_media_stuck)
            return; /* no answer: closing settles it */
        a.head = SL_STR("Content-Type: image/png\r\nContent-Disposition: attachment; filename=\"a.png\"\r\n");
        (void)snprintf(body, sizeof body, "\x89PNG");
    } else if (has(rq, "media/upload")) {
        api.uploads++;
        (void)snprintf(body, sizeof body, "{\"media_id\":\"UP1\"}");
    } else {
        api.others++;
        copy(api.other_body, sizeof api.other_body, rq->body);
    }
    a.body = sl_str_c(body);
    (void)sl_http_fake_answer(h, id, &a);
}

/* ---- the host ---- */

static sl_err host_inbound(struct chan *ch, const struct msg *m, struct chan_ticket *t)
{
    struct box *b = chan_core(ch);
    if (b->is_busy)
        return SL_EAGAIN;
    assert_true(b->tickets < IN_MAX);
    copy(b->id[b->tickets], 64, m->id);
    copy(b->text[b->tickets], 64, m->text);
    copy(b->data[b->tickets], 1024, m->data);
    copy(b->context, sizeof b->context, t->context);
    b->what = t->what;
    b->rating = t->rating;
    b->quota_count = t->quota_count;
    b->ticket[b->tickets++] = t;
    b->inbounds++;
    return SL_OK;
}

static sl_err host_receipt(struct chan *ch, const struct chan_receipt *r, struct chan_ticket *t)
{
    struct box *b = chan_core(ch);
    copy(b->receipt_of, sizeof b->receipt_of, r->remote_id);
    copy(b->receipt_code, sizeof b->receipt_code, r->code);
    b->ticket[b->tickets++] = t;
    b->receipts++;
    return SL_OK;
}

static void host_settled(struct chan *ch, struct chan_job *job, const struct chan_result *r)
{
    (void)ch;
    assert_int_equal(job->settled++, 0);
    job->outcome = r->outcome;
    job->may_retry = r->may_retry;
    job->is_account = r->is_account;
    copy(job->code, sizeof job->code, r->code);
    copy(job->words, sizeof job->words, r->words);
    copy(job->remote_id, sizeof job->remote_id, r->remote_id);
}

static void host_link(struct chan *ch, struct sl_str id, struct sl_str name, struct sl_buf *out)
{
    (void)ch;
    (void)name;
    sl_buf_c(out, "https://media.example/");
    sl_buf_str(out, id);
}

static void host_alarm(struct chan *ch, const char *code, bool is_on, const char *words)
{
    struct box *b = chan_core(ch);
    (void)code;
    (void)words;
    b->alarms += is_on;
}

static void host_state(struct chan *ch, enum chan_state now)
{
    (void)ch;
    (void)now;
}

static void host_closed(struct chan *ch)
{
    struct box *b = chan_core(ch);
    b->closed++;
}

static const struct chan_host host = {.inbound = host_inbound,
                                      .receipt = host_receipt,
                                      .settled = host_settled,
                                      .kv = fake_kv,
                                      .media_put = fake_media_put,
                                      .media_fetch = fake_media_fetch,
                                      .media_read = fake_media_read,
                                      .media_link = host_link,
                                      .alarm = host_alarm,
                                      .state = host_state,
                                      .closed = host_closed};

/* ---- time ---- */

static void turn_until(uint64_t end_mono_ms)
{
    for (int i = 0; i < 2000; i++) {
        uint64_t due, now = sl_loop_mono_ms(api.loop);
        while (sl_loop_virtual_step(api.loop)) {
        }
        if (!sl_loop_virtual_next(api.loop, &due) || due > end_mono_ms)
            due = end_mono_ms;
        if (due <= now && now >= end_mono_ms)
            return;
        uint64_t ms = due > now ? due - now : 0;
        sl_loop_virtual_set(api.loop, now + ms, sl_loop_unix_ms(api.loop) + (int64_t)ms);
    }
    fail_msg("the loop never rests");
}

static void pass(uint64_t ms)
{
    turn_until(sl_loop_mono_ms(api.loop) + ms);
    while (sl_loop_virtual_step(api.loop)) {
    }
}

/* ---- boxes and requests ---- */

static void platform_open(void)
{
    memset(&api, 0, sizeof api);
    api.loop = sl_loop_new_virtual(1);
    api.send_status = 200;
    (void)snprintf(api.send_answer, sizeof api.send_answer, "{\"errcode\":0,\"errmsg\":\"ok\"}");
    (void)snprintf(api.token, sizeof api.token, "T0");
    fake_services_open(api.loop);
    sl_http_fake_set(&(struct sl_http_fake){.request = on_api});
}

static void platform_close(void)
{
    sl_http_fake_set(NULL);
    fake_services_close();
    sl_loop_close(&api.loop);
}

static struct box *box_open(const char *channel, const char *members)
{
    char yaml[1024];
    struct sl_fail why = {.text = ""};
    struct box *b = sl_alloc(sizeof *b);
    const struct chan_ops *ops = chan_find(sl_str_c(channel));
    (void)snprintf(yaml, sizeof yaml, "inboxes: {box: {%s}}", members);
    b->cfg = sl_config_load_text(ops->keys, sl_str_c(yaml), "test", &why);
    if (b->cfg == NULL)
        fail_msg("%s", why.text);
    b->ch = chan_new(ops, &host, b, api.loop, "box", "demo", b->cfg, &why);
    if (b->ch == NULL)
        fail_msg("%s", why.text);
    assert_int_equal(chan_start(b->ch), SL_OK);
    pass(0);
    return b;
}

static void box_close(struct box *b)
{
    chan_close(b->ch);
    pass(3000);
    assert_int_equal(b->closed, 1);
    chan_free(&b->ch);
    sl_config_free(&b->cfg);
    free(b);
}

static struct sl_str no_header(const struct chan_request *rq, const char *name)
{
    (void)rq;
    (void)name;
    return SL_STR_NONE;
}

static void on_answer(struct chan_request *rq, int status, const char *type, struct sl_str body)
{
    struct request *r = (struct request *)rq;
    assert_int_equal(r->status, 0);
    r->status = status;
    (void)snprintf(r->type, sizeof r->type, "%s", type);
    copy(r->body, sizeof r->body, body);
}

static void ask(struct box *b, struct request *r, const char *method, const char *query, struct sl_str body)
{
    *r = (struct request){.status = 0};
    r->rq = (struct chan_request){.method = sl_str_c(method),
                                  .query = sl_str_c(query),
                                  .body = body,
                                  .header = no_header,
                                  .answer = on_answer};
    assert_int_equal(chan_request(b->ch, &r->rq), SL_OK);
}

static struct wechat_key the_key(void)
{
    struct wechat_key key;
    assert_int_equal(wechat_key_read(SL_STR(AES_KEY), &key, NULL), SL_OK);
    return key;
}

static int64_t now_s(void)
{
    return sl_loop_unix_ms(api.loop) / 1000;
}

/* A sealed callback; shape: how the cipher text is wrapped ("%.*s"). */
static void post_as(struct box *b, struct request *r, const char *id, const char *xml, const char *shape,
                    int64_t at_s)
{
    static const unsigned char random[WECHAT_RANDOM_BYTES];
    char query[512], timestamp[24], signature[WECHAT_SIGNATURE_LEN + 1], body[16384];
    struct wechat_key key = the_key();
    struct sl_buf cipher;
    sl_buf_init(&cipher, 0);
    wechat_encrypt(&key, random, sl_str_c(xml), sl_str_c(id), &cipher);
    (void)snprintf(timestamp, sizeof timestamp, "%lld", (long long)at_s);
    const struct sl_str parts[] = {SL_STR("tok"), sl_str_c(timestamp), SL_STR("n"), sl_buf_view(&cipher)};
    wechat_sign(parts, 4, signature);
    (void)snprintf(query, sizeof query, "timestamp=%s&nonce=n&msg_signature=%s", timestamp, signature);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    (void)snprintf(body, sizeof body, shape, (int)cipher.len, cipher.ptr);
#pragma GCC diagnostic pop
    ask(b, r, "POST", query, sl_str_c(body));
    sl_buf_fini(&cipher);
}

#define XML_SHAPE "<xml><ToUserName>gh_1</ToUserName><Encrypt><![CDATA[%.*s]]></Encrypt></xml>"
static void post_xml(struct box *b, struct request *r, const char *xml)
{
    post_as(b, r, "wx1", xml, XML_SHAPE, now_s());
}

static const char *text_of(const char *id, const char *text)
{
    static char xml[1024];
    (void)snprintf(xml, sizeof xml,
                   "<xml><ToUserName>gh_1</ToUserName><FromUserName>oA</FromUserName><CreateTime>%lld</"
                   "CreateTime><MsgType>text</MsgType>"
                   "<Content>%s</Content><MsgId>%s</MsgId></xml>",
                   (long long)now_s(), text, id);
    return xml;
}

static void accept_all(struct box *b, sl_err result)
{
    size_t count = b->tickets;
    struct chan_ticket *taken[IN_MAX];
    memcpy(taken, b->ticket, count * sizeof taken[0]);
    b->tickets = 0;
    for (size_t i = 0; i < count; i++)
        chan_accepted(b->ch, taken[i], result);
}

static sl_err send_kind(struct box *b, struct chan_job *job, enum msg_kind kind, const char *text,
                        const char *data, const char *context)
{
    const struct msg m = {
        .id = SL_STR("m"), .by = MSG_BY_BOT, .kind = kind, .text = sl_str_c(text), .data = sl_str_c(data)};
    const struct chan_send s = {.m = &m,
                                .address = SL_STR("oA"),
                                .key = SL_STR("key-1"),
                                .context = sl_str_c(context),
                                .part = 1,
                                .parts = 1,
                                .attempt = 1};
    *job = (struct chan_job){.settled = 0};
    return chan_send(b->ch, &s, job);
}

static sl_err send_text(struct box *b, struct chan_job *job, const char *text)
{
    return send_kind(b, job, MSG_TEXT, text, "", "");
}

/* ---- callbacks ---- */

static void test_what_is_not_from_the_platform_is_refused(void **state)
{
    struct request r;
    char big[140000];
    (void)state;
    platform_open();
    struct box *b = box_open("wechat", OA);
    post_as(b, &r, "wx1", text_of("1", "hi"), XML_SHAPE, now_s() - 400); /* stale */
    assert_int_equal(r.status, 403);
    post_as(b, &r, "wx1", text_of("1", "hi"), XML_SHAPE, now_s() + 400);
    assert_int_equal(r.status, 403);
    post_as(b, &r, "wx2", text_of("1", "hi"), XML_SHAPE, now_s()); /* of another account */
    assert_int_equal(r.status, 403);
    post_as(b, &r, "wx1", text_of("1", "hi"), "<xml><Encrypt>x%.*s</Encrypt></xml>", now_s()); /* changed */
    assert_int_equal(r.status, 403);
    post_as(b, &r, "wx1", text_of("1", "hi"), "<!DOCTYPE xml><xml><Encrypt>%.*s</Encrypt></xml>", now_s());
    assert_int_equal(r.status, 403);
    post_xml(
        b, &r,
        "<!DOCTYPE xml [<!ENTITY a \"b\">]><xml><Content>&a;</Content></xml>"); /* signed, and no less refused */
    assert_int_equal(r.status, 400);
    post_xml(b, &r, "<xml><MsgType>text</MsgType></xml>");
    assert_int_equal(r.status, 400);
    memset(big, 'a', sizeof big);
    ask(b, &r, "POST", "timestamp=1&nonce=n&msg_signature=x", sl_str_n(big, sizeof big));
    assert_int_equal(r.status, 413);
    ask(b, &r, "POST", "", SL_STR(""));
    assert_int_equal(r.status, 403);
    ask(b, &r, "PUT", "", SL_STR(""));
    assert_int_equal(r.status, 405);
    assert_int_equal(b->inbounds, 0);
    post_xml(b, &r, text_of("1", "hi"));
    assert_int_equal(b->inbounds, 1); /* and the proper one is taken */
    accept_all(b, SL_OK);
    assert_int_equal(r.status, 200);
    assert_string_equal(r.body, "success");
    box_close(b);
    platform_close();
}

static void test_url_checks(void **state)
{
    char query[1024], timestamp[24], signature[WECHAT_SIGNATURE_LEN + 1];
    struct request r;
    (void)state;
    platform_open();
    struct box *oa = box_open("wechat", OA), *work = box_open("wecom", WECOM);
    (void)snprintf(timestamp, sizeof timestamp, "%lld", (long long)now_s());
    const struct sl_str plain[] = {SL_STR("tok"), sl_str_c(timestamp), SL_STR("n")};
    wechat_sign(plain, 3, signature);
    (void)snprintf(query, sizeof query, "signature=%s&timestamp=%s&nonce=n&echostr=68616c6c6f", signature,
                   timestamp);
    ask(oa, &r, "GET", query, SL_STR_NONE);
    assert_int_equal(r.status, 200);
    assert_string_equal(r.body, "68616c6c6f");
    query[12] = query[12] == '0' ? '1' : '0';
    ask(oa, &r, "GET", query, SL_STR_NONE);
    assert_int_equal(r.status, 403);
    /* WeCom's word is encrypted, and comes percent-encoded */
    static const unsigned char random[WECHAT_RANDOM_BYTES] = "0123456789abcde";
    struct wechat_key key = the_key();
    struct sl_buf cipher, escaped;
    sl_buf_init(&cipher, 0);
    sl_buf_init(&escaped, 0);
    wechat_encrypt(&key, random, SL_STR("1616140317555161061"), SL_STR("ww1"), &cipher);
    const struct sl_str all[] = {SL_STR("tok"), sl_str_c(timestamp), SL_STR("n"), sl_buf_view(&cipher)};
    wechat_sign(all, 4, signature);
    for (size_t i = 0; i < cipher.len; i++)
        sl_buf_printf(&escaped, "%%%02X", (unsigned char)cipher.ptr[i]);
    (void)snprintf(query, sizeof query, "msg_signature=%s&timestamp=%s&nonce=n&echostr=%.*s", signature,
                   timestamp, (int)escaped.len, escaped.ptr);
    ask(work, &r, "GET", query, SL_STR_NONE);
    assert_int_equal(r.status, 200);
    assert_string_equal(r.body, "1616140317555161061");
    sl_buf_fini(&cipher);
    sl_buf_fini(&escaped);
    box_close(oa);
    box_close(work);
    platform_close();
}

static void test_modes(void **state)
{
    char query[512], timestamp[24], signature[WECHAT_SIGNATURE_LEN + 1];
    struct request r, r1, r2, r3;
    (void)state;
    platform_open();
    struct box *both = box_open("wechat", OA ", mode: compatible"),
               *plain = box_open("wechat", OA ", mode: plain"),
               *json = box_open("wecom", WECOM ", envelope: json");
    /* what stands in the open beside the encrypted part is nobody's word */
    post_as(both, &r1, "wx1", text_of("7", "sealed"),
            "<xml><FromUserName>oEvil</FromUserName><Content>forged</Content><MsgId>8</MsgId><Encrypt>%.*s</"
            "Encrypt></xml>",
            now_s());
    assert_int_equal(both->inbounds, 1);
    assert_string_equal(both->text[0], "sealed");
    assert_string_equal(both->id[0], "7");
    ask(both, &r, "POST", "timestamp=1&nonce=n", sl_str_c(text_of("9", "open")));
    assert_int_equal(r.status, 403);
    (void)snprintf(timestamp, sizeof timestamp, "%lld", (long long)now_s());
    const struct sl_str parts[] = {SL_STR("tok"), sl_str_c(timestamp), SL_STR("n")};
    wechat_sign(parts, 3, signature);
    (void)snprintf(query, sizeof query, "signature=%s&timestamp=%s&nonce=n", signature, timestamp);
    ask(plain, &r2, "POST", query, sl_str_c(text_of("10", "open")));
    assert_string_equal(plain->text[0], "open");
    post_as(json, &r3, "ww1",
            "{\"ToUserName\":\"ww1\",\"FromUserName\":\"zhang\",\"CreateTime\":1,\"MsgType\":\"text\","
            "\"Content\":\"j\",\"MsgId\":11,\"AgentID\":7}",
            "{\"encrypt\":\"%.*s\"}", now_s());
    assert_string_equal(json->text[0], "j");
    assert_string_equal(json->id[0], "11");
    accept_all(both, SL_OK);
    accept_all(plain, SL_OK);
    accept_all(json, SL_OK);
    box_close(both);
    box_close(plain);
    box_close(json);
    platform_close();
}

#define EVENT(name, rest)                                                                                    \
    "<xml><ToUserName>gh_1</ToUserName><FromUserName>oA</FromUserName><CreateTime>1</"                       \
    "CreateTime><MsgType>event</MsgType><Event>" name "</Event>" rest "</xml>"

static void test_events_and_ratings(void **state)
{
    struct request r, r1, r2, r3;
    (void)state;
    platform_open();
    struct box *b = box_open("wechat", OA);
    post_xml(b, &r, EVENT("VIEW", "<EventKey>https://a/</EventKey>"));
    assert_int_equal(r.status, 200); /* nothing to store */
    assert_int_equal(b->inbounds, 0);
    post_xml(b, &r1, EVENT("CLICK", "<EventKey>HUMAN</EventKey>"));
    assert_string_equal(b->text[0], "HUMAN");
    assert_int_equal(b->quota_count, 3);
    post_xml(b, &r2, EVENT("unsubscribe", ""));
    assert_int_equal(b->what, CHAN_HANGUP);
    post_xml(b, &r3,
             "<xml><ToUserName>gh_1</ToUserName><FromUserName>oA</FromUserName><CreateTime>1</"
             "CreateTime><MsgType>text</MsgType>"
             "<Content>5</Content><bizmsgmenuid>sluice-rate-5</bizmsgmenuid><MsgId>3</MsgId></xml>");
    assert_int_equal(b->what, CHAN_RATING);
    assert_int_equal(b->rating, 5);
    post_xml(b, &r, EVENT("TEMPLATESENDJOBFINISH", "<MsgID>77</MsgID><Status>failed:user block</Status>"));
    assert_int_equal(b->receipts, 1);
    assert_string_equal(b->receipt_of, "77");
    assert_int_equal(r.status, 0);
    accept_all(b, SL_OK);
    assert_int_equal(r.status, 200);
    box_close(b);
    platform_close();
}

static const char picture[] = "<xml><ToUserName>gh_1</ToUserName><FromUserName>oA</"
                              "FromUserName><CreateTime>1</CreateTime><MsgType>image</MsgType>"
                              "<PicUrl>http://p/</PicUrl><MediaId>M1</MediaId><MsgId>5</MsgId></xml>";

static void test_a_picture_comes_with_its_bytes_or_without_but_in_time(void **state)
{
    struct request r, late;
    (void)state;
    platform_open();
    struct box *b = box_open("wechat", OA);
    post_xml(b, &r, picture);
    assert_int_equal(b->inbounds, 0);
    pass(10);
    assert_int_equal(b->inbounds, 1);
    assert_non_null(strstr(b->data[0], "\"attachments\":[{\"id\":\"aaaa"));
    assert_non_null(strstr(b->data[0], "\"media_id\":\"M1\""));
    accept_all(b, SL_OK);
    assert_int_equal(r.status, 200);
    api.is_media_stuck = true;
    post_xml(b, &late, picture);
    pass(2900);
    assert_int_equal(b->inbounds, 1);
    pass(200);
    assert_int_equal(b->inbounds, 2);
    assert_null(strstr(b->data[0], "attachments"));
    assert_non_null(strstr(b->data[0], "\"media_id\":\"M1\""));
    accept_all(b, SL_OK);
    assert_int_equal(late.status, 200);
    post_xml(b, &late, picture); /* and closing while one is fetched answers it */
    box_close(b);
    assert_int_equal(late.status, 503);
    platform_close();
}

/* ---- sending ---- */

static void test_one_token_for_all_and_one_forced_refresh(void **state)
{
    struct chan_job jobs[10], again;
    unsigned refused = 0;
    (void)state;
    platform_open();
    struct box *a = box_open("wechat", OA), *b = box_open("wechat", OA);
    for (int i = 0; i < 10; i++)
        assert_int_equal(send_text(i % 2 ? a : b, &jobs[i], "hi"), SL_OK);
    pass(2000);
    for (int i = 0; i < 10; i++)
        assert_int_equal(jobs[i].outcome, CHAN_SENT);
    assert_int_equal(api.tokens, 1);
    assert_int_equal(api.sends, 10);
    assert_non_null(strstr(api.send_url, "access_token=T0"));
    (void)snprintf(api.bad, sizeof api.bad, "access_token=T0");
    for (int i = 0; i < 10; i++)
        assert_int_equal(send_text(i % 2 ? a : b, &jobs[i], "hi"), SL_OK);
    pass(3000);
    for (int i = 0; i < 10;
         i++) { /* refused ones say so to the lane; those that had not left yet got the new one */
        assert_int_equal(jobs[i].settled, 1);
        assert_true(jobs[i].outcome == CHAN_SENT ||
                    (jobs[i].outcome == CHAN_FAILED && jobs[i].may_retry && !jobs[i].is_account));
        refused += jobs[i].outcome == CHAN_FAILED;
    }
    assert_true(refused > 0);
    assert_int_equal(send_text(a, &again, "hi"), SL_OK);
    assert_int_equal(send_text(b, &jobs[0], "hi"), SL_OK);
    pass(2000);
    assert_int_equal(again.outcome, CHAN_SENT);
    assert_int_equal(jobs[0].outcome, CHAN_SENT);
    assert_int_equal(api.forced, 1);
    assert_non_null(strstr(api.send_url, "access_token=T2"));
    /* the new one is refused at once: no second forced refresh within 30 s, whoever asks */
    (void)snprintf(api.bad, sizeof api.bad, "access_token=T2");
    for (int i = 0; i < 8; i++) {
        assert_int_equal(send_text(i % 2 ? a : b, &jobs[i], "hi"), SL_OK);
        pass(1000);
        assert_int_equal(jobs[i].outcome, CHAN_FAILED);
        assert_true(jobs[i].may_retry);
    }
    assert_int_equal(api.forced, 1);
    pass(30000);
    assert_int_equal(send_text(a, &again, "hi"), SL_OK);
    assert_int_equal(send_text(b, &jobs[0], "hi"), SL_OK);
    pass(2000);
    assert_int_equal(api.forced, 2);
    assert_int_equal(again.outcome, CHAN_SENT);
    assert_int_equal(jobs[0].outcome, CHAN_SENT);
    box_close(a);
    box_close(b);
    platform_close();
}

static void test_answers_become_outcomes(void **state)
{
    static const struct {
        const char *answer;
        int status;
        sl_err err;
        enum sl_http_sent sent;
        enum chan_outcome outcome;
        bool may_retry, is_account;
    } table[] = {
        {"{\"errcode\":0,\"msgid\":123}", 200, SL_OK, SL_HTTP_NOT_SENT, CHAN_SENT, false, false},
        {"{\"errcode\":-1}", 200, SL_OK, SL_HTTP_NOT_SENT, CHAN_FAILED, true, false},
        {"{\"errcode\":45015}", 200, SL_OK, SL_HTTP_NOT_SENT, CHAN_FAILED, false, false},
        {"{\"errcode\":45047}", 200, SL_OK, SL_HTTP_NOT_SENT, CHAN_FAILED, false, false},
        {"{\"errcode\":43004}", 200, SL_OK, SL_HTTP_NOT_SENT, CHAN_FAILED, false, false},
        {"{\"errcode\":45011}", 200, SL_OK, SL_HTTP_NOT_SENT, CHAN_FAILED, true, true},
        {"{\"errcode\":45009}", 200, SL_OK, SL_HTTP_NOT_SENT, CHAN_FAILED, true, true},
        {"{\"errcode\":48001}", 200, SL_OK, SL_HTTP_NOT_SENT, CHAN_FAILED, true, true},
        {"{\"errcode\":12345}", 200, SL_OK, SL_HTTP_NOT_SENT, CHAN_FAILED, false, false},
        {"<html>", 200, SL_OK, SL_HTTP_NOT_SENT, CHAN_UNKNOWN, true, false},
        {"", 500, SL_OK, SL_HTTP_NOT_SENT, CHAN_UNKNOWN, true, false},
        {"", 503, SL_OK, SL_HTTP_NOT_SENT, CHAN_FAILED, true, true},
        {"", 429, SL_OK, SL_HTTP_NOT_SENT, CHAN_FAILED, true, true},
        {"", 404, SL_OK, SL_HTTP_NOT_SENT, CHAN_FAILED, false, false},
        {"", 0, SL_ETIMEOUT, SL_HTTP_MAY_BE_SENT, CHAN_UNKNOWN, true, false},
        {"", 0, SL_EUPSTREAM, SL_HTTP_NOT_SENT, CHAN_FAILED, true, true},
    };
    (void)state;
    platform_open();
    struct box *b = box_open("wechat", OA);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct chan_job job;
        (void)snprintf(api.send_answer, sizeof api.send_answer, "%s", table[i].answer);
        api.send_status = table[i].status;
        api.send_err = table[i].err;
        api.send_sent = table[i].sent;
        assert_int_equal(send_text(b, &job, "hi"), SL_OK);
        pass(1000);
        assert_int_equal(job.settled, 1);
        if (job.outcome != table[i].outcome || job.may_retry != table[i].may_retry ||
            job.is_account != table[i].is_account)
            fail_msg("row %zu: %s (%d) became %d", i, table[i].answer, table[i].status, (int)job.outcome);
        assert_true(job.outcome == CHAN_SENT || job.words[0] != '\0');
    }
    assert_int_equal(b->alarms, 2); /* 45009: the day's calls are used up; 48001 */
    box_close(b);
    platform_close();
}

static void test_media_go_up_or_become_a_link(void **state)
{
    struct chan_job job;
    (void)state;
    platform_open();
    struct box *b = box_open("wechat", OA);
    assert_int_equal(send_kind(b, &job, MSG_IMAGE, "look", "{\"attachments\":[{\"id\":\"abc\"}]}", ""),
                     SL_OK);
    pass(1000);
    assert_int_equal(job.outcome, CHAN_SENT);
    /* the fake store's file has 4 bytes: too short for the platform, so a link goes */
    assert_int_equal(api.uploads, 0);
    assert_non_null(strstr(api.send_body, "https://media.example/aaaa"));
    assert_non_null(strstr(api.send_body, "look"));
    assert_int_equal(send_kind(b, &job, MSG_IMAGE, "", "{}", ""), SL_OK);
    pass(1000);
    assert_int_equal(job.outcome, CHAN_FAILED);
    assert_false(job.may_retry);
    box_close(b);
    platform_close();
}

static void test_work_bodies_and_invalid_users(void **state)
{
    struct chan_job job;
    struct chan_limits limits;
    (void)state;
    platform_open();
    struct box *b = box_open("wecom", WECOM ", duplicate_check: 30s"), *kf = box_open("wechat_kf", KF);
    chan_limits(b->ch, &limits);
    assert_int_equal(limits.unknown, CHAN_IDEMPOTENT);
    (void)snprintf(api.send_answer, sizeof api.send_answer,
                   "{\"errcode\":0,\"invaliduser\":\"oA\",\"msgid\":\"x\"}");
    assert_int_equal(send_text(b, &job, "hi"), SL_OK);
    pass(1000);
    assert_int_equal(job.outcome, CHAN_FAILED);
    assert_non_null(strstr(api.send_body, "\"duplicate_check_interval\":30"));
    assert_int_equal(send_kind(kf, &job, MSG_TEXT, "hi", "", "{\"kf\":\"wk9\"}"), SL_OK);
    pass(1000);
    assert_non_null(strstr(api.send_body, "\"open_kfid\":\"wk9\""));
    assert_non_null(strstr(api.send_body, "\"msgid\":\"key-1\""));
    box_close(b);
    box_close(kf);
    platform_close();
}

static void test_typing_is_shown_with_a_token_at_hand(void **state)
{
    struct chan_job job;
    struct chan_limits limits;
    (void)state;
    platform_open();
    struct box *b = box_open("wechat", OA), *passive = box_open("wechat", OA ", passive: true");
    chan_typing(b->ch, SL_STR("oA"), true);
    pass(100);
    assert_int_equal(api.others + api.tokens, 0); /* not worth a token */
    assert_int_equal(send_text(b, &job, "hi"), SL_OK);
    pass(100);
    chan_typing(b->ch, SL_STR("oA"), true);
    chan_typing(passive->ch, SL_STR("oA"), true);
    pass(100);
    assert_int_equal(api.others, 1);
    assert_string_equal(api.other_body, "{\"touser\":\"oA\",\"command\":\"Typing\"}");
    chan_limits(passive->ch, &limits);
    assert_int_equal(limits.kinds, 1u << MSG_CARD | 1u << MSG_LINK);
    assert_int_equal(limits.options_max, 0);
    box_close(b);
    box_close(passive);
    platform_close();
}

/* ---- passive answers ---- */

static void open_answer(const struct request *r, struct wechat_xml *x)
{
    struct wechat_xml outer;
    struct wechat_key key = the_key();
    struct sl_buf plain;
    struct sl_str message;
    sl_buf_init(&plain, 0);
    assert_int_equal(wechat_xml_read(&outer, sl_str_c(r->body), NULL), SL_OK);
    const struct wechat_envelope e = {.token = SL_STR("tok"),
                                      .timestamp = wechat_xml_get(&outer, "TimeStamp"),
                                      .nonce = wechat_xml_get(&outer, "Nonce"),
                                      .signature = wechat_xml_get(&outer, "MsgSignature"),
                                      .encrypt = wechat_xml_get(&outer, "Encrypt")};
    assert_int_equal(wechat_open_envelope(&key, &e, SL_STR("wx1"), &plain, &message, NULL), SL_OK);
    assert_int_equal(wechat_xml_read(x, message, NULL), SL_OK);
    wechat_xml_fini(&outer);
    sl_buf_fini(&plain);
}

static void assert_says(const struct request *r, const char *text)
{
    struct wechat_xml x;
    assert_int_equal(r->status, 200);
    open_answer(r, &x);
    assert_true(sl_str_eq_c(wechat_xml_get(&x, "Content"), text));
    assert_true(sl_str_eq_c(wechat_xml_get(&x, "ToUserName"), "oA"));
    assert_true(sl_str_eq_c(wechat_xml_get(&x, "FromUserName"), "gh_1"));
    wechat_xml_fini(&x);
}

/* The callback stands at gateway a, the lane at gateway b. */
static void test_passive_answer_crosses_gateways(void **state)
{
    struct request r, again;
    struct chan_job job, second;
    (void)state;
    platform_open();
    struct box *a = box_open("wechat", OA ", passive: true"), *b = box_open("wechat", OA ", passive: true");
    post_xml(a, &r, text_of("21", "hi"));
    assert_int_equal(a->quota_count, 1);
    accept_all(a, SL_OK);
    pass(1000);
    assert_int_equal(r.status, 0); /* parked */
    assert_int_equal(send_kind(b, &job, MSG_TEXT, "hello", "", a->context), SL_OK);
    pass(1000);
    assert_says(&r, "hello");
    assert_int_equal(job.outcome, CHAN_SENT);
    assert_int_equal(send_kind(b, &second, MSG_TEXT, "more", "", a->context), SL_OK);
    pass(1000);
    assert_int_equal(second.outcome, CHAN_FAILED); /* one answer a message */
    assert_false(second.may_retry);
    post_xml(b, &again, text_of("21", "hi")); /* the platform did not see it: the same answer again */
    accept_all(b, SL_OK);
    pass(1000);
    assert_says(&again, "hello");
    box_close(a);
    box_close(b);
    platform_close();
}

static void test_passive_retry_attaches_and_the_last_one_ends_quietly(void **state)
{
    struct request first, retry, last;
    struct chan_job job;
    char xml[1024];
    (void)state;
    platform_open();
    struct box *b = box_open("wechat", OA ", passive: true");
    (void)snprintf(xml, sizeof xml, "%s", text_of("31", "hi"));
    post_xml(b, &first, xml);
    accept_all(b, SL_OK);
    pass(4800);
    assert_int_equal(first.status, 503); /* the platform asks again */
    post_xml(b, &retry, xml);
    accept_all(b, SL_OK);
    assert_int_equal(send_kind(b, &job, MSG_TEXT, "slow", "", b->context), SL_OK);
    pass(1000);
    assert_says(&retry, "slow");
    assert_int_equal(job.outcome, CHAN_SENT);
    /* nobody answers: the third try ends without an error for the customer, and a late answer is told so */
    (void)snprintf(xml, sizeof xml, "%s", text_of("32", "hi"));
    pass(10000);
    post_xml(b, &last, xml);
    accept_all(b, SL_OK);
    pass(4800);
    assert_int_equal(last.status, 200);
    assert_string_equal(last.body, "success");
    assert_int_equal(send_kind(b, &job, MSG_TEXT, "too late", "", b->context), SL_OK);
    pass(1000);
    assert_int_equal(job.outcome, CHAN_FAILED);
    assert_false(job.may_retry);
    box_close(b);
    platform_close();
}

/* An answer that nobody claims is withdrawn: it certainly was not written. */
static void test_passive_answer_without_a_callback_is_withdrawn(void **state)
{
    struct request r;
    struct chan_job job;
    (void)state;
    platform_open();
    struct box *b = box_open("wechat", OA ", passive: true");
    post_xml(b, &r, text_of("41", "hi"));
    accept_all(b, SL_OK);
    pass(4800);
    assert_int_equal(r.status, 503);
    assert_int_equal(send_kind(b, &job, MSG_TEXT, "hello", "", b->context), SL_OK);
    pass(9000);
    assert_int_equal(job.settled, 0);
    pass(2000);
    assert_int_equal(job.settled, 1);
    assert_int_equal(job.outcome, CHAN_FAILED);
    box_close(b);
    platform_close();
}

/* ---- customer service ---- */

#define HINT                                                                                                 \
    "<xml><ToUserName>ww1</ToUserName><CreateTime>1</CreateTime><MsgType>event</"                            \
    "MsgType><Event>kf_msg_or_event</Event>"                                                                 \
    "<Token>TOKEN</Token><OpenKfId>wk1</OpenKfId></xml>"
#define ITEM(id, text)                                                                                       \
    "{\"msgid\":\"" id "\",\"open_kfid\":\"wk1\",\"external_userid\":\"wm1\",\"send_time\":1,\"origin\":3,"  \
    "\"msgtype\":\"text\",\"text\":{\"content\":\"" text "\"}}"

static void hint(struct box *b)
{
    struct request r;
    post_as(b, &r, "ww1", HINT, XML_SHAPE, now_s());
    assert_int_equal(r.status,
                     200); /* a hint carries nothing: there is nothing to store before it is answered */
    pass(0);
}

static void set_page(const char *cursor, int has_more, const char *items)
{
    (void)snprintf(api.page, sizeof api.page,
                   "{\"errcode\":0,\"next_cursor\":\"%s\",\"has_more\":%d,\"msg_list\":[%s]}", cursor,
                   has_more, items);
}

static void test_kf_cursor_moves_when_all_is_stored(void **state)
{
    (void)state;
    platform_open();
    struct box *b = box_open("wechat_kf", KF);
    set_page("c1", 0, ITEM("a", "1") "," ITEM("b", "2"));
    hint(b);
    assert_int_equal(api.syncs, 1);
    assert_non_null(strstr(api.sync_body, "\"token\":\"TOKEN\""));
    assert_null(strstr(api.sync_body, "\"cursor\""));
    assert_int_equal(b->inbounds, 1); /* one after the other */
    accept_all(b, SL_OK);
    pass(0);
    assert_int_equal(b->inbounds, 2);
    accept_all(b, SL_EAGAIN); /* the store is gone: the page is fetched again from where it began */
    pass(1500);
    assert_int_equal(api.syncs, 2);
    assert_null(strstr(api.sync_body, "\"cursor\""));
    assert_string_equal(b->id[0], "a");
    accept_all(b, SL_OK);
    pass(0);
    assert_string_equal(b->id[0], "b");
    accept_all(b, SL_OK);
    pass(100);
    set_page("c2", 0, ITEM("c", "3"));
    hint(b);
    assert_non_null(strstr(api.sync_body, "\"cursor\":\"c1\""));
    accept_all(b, SL_OK);
    pass(100);
    box_close(b);
    /* another gateway goes on where this one was */
    b = box_open("wechat_kf", KF);
    set_page("c2", 0, "");
    chan_hold(b->ch, true);
    pass(100);
    assert_non_null(strstr(api.sync_body, "\"cursor\":\"c2\""));
    box_close(b);
    platform_close();
}

static void test_kf_two_gateways_do_not_drain_at_once(void **state)
{
    (void)state;
    platform_open();
    struct box *a = box_open("wechat_kf", KF), *b = box_open("wechat_kf", KF);
    set_page("c1", 0, ITEM("a", "1"));
    hint(a);
    hint(b);
    pass(400);
    assert_int_equal(api.syncs, 1);
    assert_int_equal(a->inbounds + b->inbounds, 1);
    accept_all(a, SL_OK);
    pass(0);
    set_page("c1", 0, "");
    pass(2000);
    assert_int_equal(api.syncs, 2); /* b looks after a: there may have been news */
    assert_non_null(strstr(api.sync_body, "\"cursor\":\"c1\""));
    box_close(a);
    box_close(b);
    platform_close();
}

static void test_kf_events(void **state)
{
    (void)state;
    platform_open();
    struct box *b = box_open("wechat_kf", KF ", welcome: 您好");
    set_page("c1", 0,
             "{\"msgid\":\"e1\",\"open_kfid\":\"wk1\",\"send_time\":1,\"origin\":4,\"msgtype\":\"event\","
             "\"event\":{\"event_type\":\"enter_session\",\"open_kfid\":\"wk1\",\"external_userid\":\"wm1\","
             "\"welcome_code\":\"W\"}},"
             "{\"msgid\":\"e2\",\"open_kfid\":\"wk1\",\"send_time\":1,\"origin\":4,\"msgtype\":\"event\","
             "\"event\":{\"event_type\":\"msg_send_fail\",\"external_userid\":\"wm1\",\"fail_msgid\":\"key-"
             "1\",\"fail_type\":4}},"
             "{\"msgid\":\"e3\",\"external_userid\":\"no id\",\"origin\":3,\"msgtype\":\"text\"}," ITEM(
                 "z", "after"));
    hint(b);
    pass(100);
    assert_int_equal(b->receipts, 1);
    assert_string_equal(b->receipt_of, "key-1");
    assert_string_equal(b->receipt_code, "4");
    assert_int_equal(b->inbounds, 0);
    accept_all(b, SL_OK);
    pass(100);
    assert_string_equal(b->id[0], "z"); /* what cannot be taken does not stop what is behind it */
    accept_all(b, SL_OK);
    pass(100);
    assert_int_equal(api.sends, 1);
    assert_non_null(strstr(api.send_url, "send_msg_on_event"));
    assert_non_null(strstr(api.send_body, "\"code\":\"W\""));
    box_close(b);
    platform_close();
}

static void test_kf_refused_sync_is_tried_again(void **state)
{
    (void)state;
    platform_open();
    struct box *b = box_open("wechat_kf", KF);
    (void)snprintf(api.page, sizeof api.page, "{\"errcode\":42001}");
    hint(b);
    assert_int_equal(api.syncs, 1);
    set_page("c1", 0, ITEM("a", "1"));
    (void)snprintf(api.token, sizeof api.token, "TNEW");
    pass(3000);
    assert_int_equal(b->inbounds, 1);
    accept_all(b, SL_OK);
    box_close(b);
    platform_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_not_from_the_platform_is_refused),
        cmocka_unit_test(test_url_checks),
        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_events_and_ratings),
        cmocka_unit_test(test_a_picture_comes_with_its_bytes_or_without_but_in_time),
        cmocka_unit_test(test_one_token_for_all_and_one_forced_refresh),
        cmocka_unit_test(test_answers_become_outcomes),
        cmocka_unit_test(test_media_go_up_or_become_a_link),
        cmocka_unit_test(test_work_bodies_and_invalid_users),
        cmocka_unit_test(test_typing_is_shown_with_a_token_at_hand),
        cmocka_unit_test(test_passive_answer_crosses_gateways),
        cmocka_unit_test(test_passive_retry_attaches_and_the_last_one_ends_quietly),
        cmocka_unit_test(test_passive_answer_without_a_callback_is_withdrawn),
        cmocka_unit_test(test_kf_cursor_moves_when_all_is_stored),
        cmocka_unit_test(test_kf_two_gateways_do_not_drain_at_once),
        cmocka_unit_test(test_kf_events),
        cmocka_unit_test(test_kf_refused_sync_is_tried_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
