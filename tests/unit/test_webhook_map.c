/* tests/unit/test_webhook_map.c - the shipped schemes on bodies as their providers send them; what a scheme file may not say. */
#include "unit.h"

#include <stdio.h>

#include "channels/webhook/webhook_engine.h"
#include "channels/webhook/webhook_scheme.h"

struct seen {
    char lines[4096]; /* "does id from text|remote word code data context" a line */
};

static void on_event(void *arg, const struct webhook_event *e)
{
    struct seen *s = arg;
    size_t n = strlen(s->lines);
    if (e->rule->does == WEBHOOK_RECEIPT)
        (void)snprintf(s->lines + n, sizeof s->lines - n, "receipt %.*s %d %.*s\n", (int)e->remote_id.len,
                       e->remote_id.ptr, (int)e->word, (int)e->code.len, e->code.ptr);
    else
        (void)snprintf(s->lines + n, sizeof s->lines - n, "%s %.*s %.*s <%.*s> %lld %.*s%.*s\n",
                       msg_kind_name(e->rule->kind), (int)e->id.len, e->id.ptr, (int)e->from.len, e->from.ptr,
                       (int)e->text.len, e->text.ptr, (long long)e->at_unix_ms, (int)e->data.len, e->data.ptr,
                       (int)e->context.len, e->context.ptr);
}

static struct sl_str header(void *arg, const char *name)
{
    (void)arg;
    return strcmp(name, "webhook-id") == 0 ? SL_STR("msg_1") : SL_STR_NONE;
}

static void expect(const char *scheme, const char *body, const char *want, size_t want_ignored)
{
    struct sl_fail why = {.text = ""};
    struct seen seen = {.lines = ""};
    size_t ignored = 0;
    struct webhook_scheme *s = webhook_scheme_load(scheme, &why);
    if (s == NULL)
        fail_msg("%s: %s", scheme, why.text);
    struct webhook_body *b = webhook_body_read(sl_str_c(body), s->is_form, &why);
    assert_non_null(b);
    sl_err err = webhook_map_run(&s->map, b, header, NULL, on_event, &seen, &ignored, &why);
    if (err != SL_OK)
        fail_msg("%s: %s", scheme, why.text);
    assert_string_equal(seen.lines, want);
    assert_int_equal(ignored, want_ignored);
    webhook_body_free(&b);
    webhook_scheme_free(&s);
}

static void test_line(void **state)
{
    (void)state;
    expect(
        "line",
        "{\"destination\":\"U1\",\"events\":["
        "{\"type\":\"message\",\"webhookEventId\":\"01H\",\"timestamp\":1700000000123,\"source\":{\"type\":"
        "\"user\",\"userId\":\"Uabc\"},"
        "\"message\":{\"id\":\"9\",\"type\":\"text\",\"text\":\"こんにちは\"}},"
        "{\"type\":\"follow\",\"webhookEventId\":\"01I\",\"source\":{\"userId\":\"Uabc\"}},"
        "{\"type\":\"message\",\"webhookEventId\":\"01J\",\"timestamp\":1,\"source\":{\"userId\":\"Uabc\"},"
        "\"message\":{\"id\":\"10\",\"type\":\"location\",\"title\":\"t\",\"address\":\"a\",\"latitude\":35."
        "5,\"longitude\":139}}]}",
        "text 01H Uabc <こんにちは> 1700000000123 \n"
        "location 01J Uabc <t a> 1000 {\"location\":{\"latitude\":35.5,\"longitude\":139}}\n",
        1);
    expect("line", "{\"destination\":\"U1\",\"events\":[]}", "", 0); /* the handshake */
}

/* A batch of two entries: kinds stay in order, statuses come after, in any order of theirs. */
static void test_whatsapp(void **state)
{
    (void)state;
    expect("whatsapp",
           "{\"object\":\"whatsapp_business_account\",\"entry\":[{\"id\":\"1\",\"changes\":[{\"field\":"
           "\"messages\",\"value\":{"
           "\"messages\":[{\"from\":\"8613800138000\",\"id\":\"wamid.A\",\"timestamp\":\"1700000000\","
           "\"type\":\"text\",\"text\":{\"body\":\"1\"}},"
           "{\"from\":\"8613800138000\",\"id\":\"wamid.B\",\"timestamp\":\"1700000001\",\"type\":\"image\","
           "\"image\":{\"id\":\"77\",\"mime_type\":\"image/jpeg\",\"caption\":\"2\"}},"
           "{\"from\":\"8613800138000\",\"id\":\"wamid.C\",\"timestamp\":\"1700000002\",\"type\":"
           "\"interactive\",\"interactive\":{\"type\":\"button_reply\",\"button_reply\":{\"id\":\"x\","
           "\"title\":\"3\"}}}]}}]},"
           "{\"id\":\"2\",\"changes\":[{\"value\":{\"statuses\":[{\"id\":\"wamid.X\",\"status\":\"read\"},{"
           "\"id\":\"wamid.X\",\"status\":\"sent\"},"
           "{\"id\":\"wamid.Y\",\"status\":\"failed\",\"errors\":[{\"code\":131026,\"title\":"
           "\"undeliverable\"}]},{\"id\":\"wamid.Y\",\"status\":\"warning\"}]}}]}]}",
           "text wamid.A 8613800138000 <1> 1700000000000 \n"
           "image wamid.B 8613800138000 <2> 1700000001000 "
           "{\"provider_media\":{\"id\":\"77\",\"type\":\"image/jpeg\"}}\n"
           "text wamid.C 8613800138000 <3> 1700000002000 \n"
           "receipt wamid.X 2 \nreceipt wamid.X 0 \nreceipt wamid.Y 3 131026\n",
           1);
}

static void test_messenger(void **state)
{
    (void)state;
    expect("messenger",
           "{\"object\":\"page\",\"entry\":[{\"messaging\":[{\"sender\":{\"id\":\"1\"},\"timestamp\":"
           "1700000000000,\"message\":{\"mid\":\"m_1\",\"text\":\"hi\"}},"
           "{\"sender\":{\"id\":\"9\"},\"message\":{\"is_echo\":true,\"mid\":\"m_2\",\"text\":\"ours\"}},"
           "{\"sender\":{\"id\":\"1\"},\"delivery\":{\"mids\":[\"m_3\",\"m_4\"],\"watermark\":1}}]}]}",
           "text m_1 1 <hi> 1700000000000 \nreceipt m_3 1 \nreceipt m_4 1 \n", 2);
}

static void test_feishu(void **state)
{
    (void)state;
    expect("feishu",
           "{\"schema\":\"2.0\",\"header\":{\"event_id\":\"e1\",\"event_type\":\"im.message.receive_v1\","
           "\"token\":\"v\"},\"event\":{"
           "\"sender\":{\"sender_id\":{\"open_id\":\"ou_1\"}},\"message\":{\"message_id\":\"om_1\",\"chat_"
           "id\":\"oc_1\",\"create_time\":\"1700000000000\","
           "\"message_type\":\"text\",\"content\":\"{\\\"text\\\":\\\"你好 \\\\\\\"x\\\\\\\"\\\"}\"}}}",
           "text e1 ou_1 <你好 \"x\"> 1700000000000 {\"chat\":\"oc_1\"}\n", 0);
}

static void test_others(void **state)
{
    (void)state;
    expect("dingtalk",
           "{\"msgId\":\"m==\",\"msgtype\":\"text\",\"senderId\":\"$:LWCP_v1:$abc\",\"createAt\":"
           "1700000000000,\"text\":{\"content\":\" hi\"},"
           "\"sessionWebhook\":\"https://oapi.dingtalk.com/robot/sendBySession?session=s\"}",
           "text m== $:LWCP_v1:$abc < hi> 1700000000000 "
           "{\"session_webhook\":\"https://oapi.dingtalk.com/robot/sendBySession?session=s\"}\n",
           0);
    expect("slack",
           "{\"type\":\"event_callback\",\"event_id\":\"Ev1\",\"event\":{\"type\":\"message\",\"user\":"
           "\"U1\",\"text\":\"hi\",\"ts\":\"1700000000.000100\",\"channel\":\"D1\"}}",
           "text Ev1 U1 <hi> 1700000000000 {\"channel\":\"D1\"}\n", 0);
    expect("slack",
           "{\"type\":\"event_callback\",\"event_id\":\"Ev2\",\"event\":{\"type\":\"message\",\"bot_id\":"
           "\"B1\",\"user\":\"U1\",\"text\":\"ours\"}}",
           "", 1);
    expect("telegram",
           "{\"update_id\":7,\"message\":{\"message_id\":1,\"date\":1700000000,\"chat\":{\"id\":-5},\"text\":"
           "\"hi\"}}",
           "text 7 -5 <hi> 1700000000000 \n", 0);
    expect("standard", "{\"type\":\"message.received\",\"data\":{\"from\":\"a\",\"text\":\"hi\"}}",
           "text msg_1 a <hi> 0 \n", 0);
    expect(
        "standard",
        "{\"type\":\"message.status\",\"data\":{\"message_id\":\"P1\",\"status\":\"failed\",\"code\":\"x\"}}",
        "receipt P1 3 x\n", 0);
    expect("twilio", "MessageSid=SM1&From=%2B1555&To=%2B1&Body=a+b%26c",
           "text SM1 +1555 <a b&c> 0 {\"number\":\"+1\"}\n", 0);
    expect("twilio", "MessageSid=SM1&MessageStatus=undelivered&ErrorCode=30005", "receipt SM1 3 30005\n", 0);
    expect("twilio", "MessageSid=SM1&MessageStatus=queued", "", 1);
    expect("aliyun",
           "[{\"phone_number\":\"13800138000\",\"content\":\"hi\",\"send_time\":\"2024\",\"dest_code\":"
           "\"1069\",\"sequence_id\":12},"
           "{\"phone_number\":\"13800138000\",\"success\":false,\"err_code\":\"MK:0001\",\"biz_id\":\"9^0\","
           "\"out_id\":\"k\"}]",
           "text up 13800138000 12 2024 13800138000 <hi> 0 {\"number\":\"1069\"}\nreceipt 9^0 3 MK:0001\n",
           0);
    expect("tencent",
           "[{\"mobile\":\"13800138000\",\"nationcode\":\"86\",\"report_status\":\"SUCCESS\",\"errmsg\":"
           "\"DELIVRD\",\"sid\":\"2019:1\"}]",
           "receipt 2019:1 1 DELIVRD\n", 1);
    expect("tencent",
           "{\"extend\":\"01\",\"mobile\":\"13800138000\",\"nationcode\":\"86\",\"text\":\"hi\",\"time\":"
           "1700000000}",
           "text up 8613800138000 1700000000 hi +8613800138000 <hi> 1700000000000 {\"number\":\"01\"}\n", 0);
}

static sl_err run_on(const char *scheme, const char *body)
{
    struct sl_fail why = {.text = ""};
    struct seen seen = {.lines = ""};
    size_t ignored;
    struct webhook_scheme *s = webhook_scheme_load(scheme, &why);
    struct webhook_body *b = webhook_body_read(sl_str_c(body), s->is_form, &why);
    sl_err err =
        b != NULL ? webhook_map_run(&s->map, b, header, NULL, on_event, &seen, &ignored, &why) : SL_EINVAL;
    webhook_body_free(&b);
    webhook_scheme_free(&s);
    return err;
}

static void test_broken_bodies(void **state)
{
    (void)state;
    assert_int_equal(run_on("line", "{\"events\":[{\"type\":\"message\",\"source\":{\"userId\":\"U\"},"
                                    "\"message\":{\"type\":\"text\",\"text\":\"x\"}}]}"),
                     SL_EINVAL); /* no id: a repeat could not be known */
    assert_int_equal(run_on("line", "{\"events\":"), SL_EINVAL);
    assert_int_equal(run_on("line", "[1,2]"), SL_OK);
    assert_int_equal(run_on("line", "{\"events\":{\"a\":1}}"), SL_OK);
    assert_int_equal(run_on("twilio", "Body=%zz"), SL_EINVAL);
    struct sl_buf b;
    sl_buf_init(&b, 0);
    sl_buf_c(&b, "[");
    for (int i = 0; i <= WEBHOOK_EVENTS_MAX; i++)
        sl_buf_printf(&b, "%s{\"biz_id\":\"%d\",\"success\":true}", i > 0 ? "," : "", i);
    sl_buf_c(&b, "]");
    sl_buf_char(&b, '\0');
    assert_int_equal(run_on("aliyun", b.ptr), SL_ETOOBIG);
    sl_buf_fini(&b);
}

#define GOOD_EVENT "events: {m: {id: \"${/id}\", from: \"${/from}\"}}\n"
static void expect_refused(const char *yaml, const char *word)
{
    struct sl_fail why = {.text = ""};
    struct webhook_scheme *s = webhook_scheme_read(sl_str_c(yaml), "own.yaml", &why);
    assert_null(s);
    assert_contains(why.text, "own.yaml");
    assert_contains(why.text, word);
}

static void test_scheme_is_read_strictly(void **state)
{
    (void)state;
    static const char *const good = "signature: {in: header, name: x-s}\n" GOOD_EVENT;
    struct sl_fail why = {.text = ""};
    struct webhook_scheme *s = webhook_scheme_read(sl_str_c(good), "own.yaml", &why);
    assert_non_null(s);
    assert_false(s->can_send);
    webhook_scheme_free(&s);
    expect_refused("signature: {in: header, nome: x-s}\n" GOOD_EVENT, "nome");
    expect_refused("signature: {in: header, nome: x-s}\n" GOOD_EVENT, ":1:25");
    expect_refused(GOOD_EVENT, "secret_path");
    expect_refused("signature: {in: header}\n" GOOD_EVENT, "signature.name");
    expect_refused("signature: {in: header, name: x, digest: md5}\n" GOOD_EVENT, "md5");
    expect_refused("signature: {in: header, name: x, base: \"${bodie}\"}\n" GOOD_EVENT, "signature.base");
    expect_refused("signature: {in: header, name: x}\n", "events");
    expect_refused("signature: {in: header, name: x}\nevents: {m: {id: \"${id}\", from: \"${/f}\"}}\n",
                   "events.m.id");
    expect_refused("signature: {in: header, name: x}\nevents: {m: {id: \"${/i}\"}}\n", "needs id and from");
    expect_refused(
        "signature: {in: header, name: x}\nevents: {m: {id: \"${/i}\", from: \"${/f}\", when: [type]}}\n",
        "when");
    expect_refused("signature: {in: header, name: x}\nevents: {m: {does: receipt, remote_id: \"${/i}\", "
                   "word: x, word_map: [a=b]}}\n",
                   "word_map");
    expect_refused("signature: {in: header, name: x}\nsend: {url: \"${context.u:raw}\"}\n" GOOD_EVENT,
                   "send.hosts");
    expect_refused("signature: {in: header, name: x}\nhandshake: {kind: get, answer: x}\n" GOOD_EVENT,
                   "handshake");
    assert_null(webhook_scheme_load("nonesuch", &why));
    assert_contains(why.text, "nonesuch");
}

static void test_addresses_come_back(void **state)
{
    (void)state;
    static const char *const raw[] = {"+8613800138000", "$:LWCP_v1:$abc", "a@b", "用户", "-5", "U0a1"};
    for (size_t i = 0; i < sizeof raw / sizeof raw[0]; i++) {
        char address[MSG_ID_MAX_BYTES + 1];
        struct sl_buf back;
        sl_buf_init(&back, 0);
        assert_int_equal(webhook_address_write(sl_str_c(raw[i]), address), SL_OK);
        webhook_address_read(sl_str_c(address), &back);
        assert_bytes(back, raw[i]);
        sl_buf_fini(&back);
    }
    char address[MSG_ID_MAX_BYTES + 1];
    char big[300];
    memset(big, ':', sizeof big);
    assert_int_equal(webhook_address_write(sl_str_n(big, sizeof big), address), SL_OK);
    assert_int_equal(strlen(address), 50);
    assert_int_equal(webhook_address_write(SL_STR_NONE, address), SL_EINVAL);
    assert_int_equal(webhook_address_write(SL_STR("-"), address), SL_EINVAL);
}

static void test_nets(void **state)
{
    (void)state;
    assert_true(webhook_net_has("10.1.2.3", SL_STR("10.1.2.3")));
    assert_true(webhook_net_has("10.1.0.0/16", SL_STR("10.1.255.255")));
    assert_true(webhook_net_has("10.1.0.0/16", SL_STR("::ffff:10.1.2.3")));
    assert_true(webhook_net_has("2001:db8::/32", SL_STR("2001:db8:1::1")));
    assert_true(webhook_net_has("0.0.0.0/0", SL_STR("8.8.8.8")));
    assert_false(webhook_net_has("10.1.0.0/16", SL_STR("10.2.0.0")));
    assert_false(webhook_net_has("10.1.0.0/16", SL_STR("2001:db8::1")));
    assert_false(webhook_net_has("10.1.0.0/16", SL_STR("nonsense")));
    assert_false(webhook_net_ok("10.1.0.0/33"));
    assert_false(webhook_net_ok("10.1.0"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_whatsapp),
        cmocka_unit_test(test_messenger),
        cmocka_unit_test(test_feishu),
        cmocka_unit_test(test_others),
        cmocka_unit_test(test_broken_bodies),
        cmocka_unit_test(test_scheme_is_read_strictly),
        cmocka_unit_test(test_addresses_come_back),
        cmocka_unit_test(test_nets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
