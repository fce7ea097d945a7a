/* tests/unit/test_wechat_wire.c - callbacks and sync_msg items become messages; messages become bodies; codes have a meaning. */
#include "unit.h"

#include "channels/wechat/wechat_wire.h"

#define HEAD                                                                                                 \
    "<xml><ToUserName>gh_1</ToUserName><FromUserName>oA</FromUserName><CreateTime>1348831860</CreateTime>"
#define MESSAGE(type, rest) HEAD "<MsgType>" type "</MsgType>" rest "<MsgId>1234567890123456</MsgId></xml>"
#define EVENT(name, rest)   HEAD "<MsgType>event</MsgType><Event>" name "</Event>" rest "</xml>"

static struct wechat_xml x;
static struct wechat_in in;

static sl_err read_as(enum wechat_product product, const char *text)
{
    wechat_in_fini(&in);
    wechat_xml_fini(&x);
    assert_int_equal(wechat_xml_read(&x, sl_str_c(text), NULL), SL_OK);
    return wechat_in_read(&in, product, &x, NULL);
}

static int done(void **state)
{
    (void)state;
    wechat_in_fini(&in);
    wechat_xml_fini(&x);
    return 0;
}

static void assert_has(struct sl_str text, const char *needle)
{
    size_t at;
    if (!sl_str_find(text, sl_str_c(needle), &at))
        fail_msg("no %s in %.*s", needle, (int)text.len, text.ptr);
}

static void test_messages_of_every_type(void **state)
{
    (void)state;
    static const struct {
        const char *xml;
        enum msg_kind kind;
        const char *text, *data, *media;
    } table[] = {
        {MESSAGE("text", "<Content><![CDATA[hi]]></Content>"), MSG_TEXT, "hi", "{}", ""},
        {MESSAGE("image", "<PicUrl>http://a/b?c=1&amp;d=2</PicUrl><MediaId>m1</MediaId>"), MSG_IMAGE, "",
         "\"media_id\":\"m1\"", "m1"},
        {MESSAGE("voice", "<MediaId>m2</MediaId><Format>amr</Format><Recognition>said</Recognition>"),
         MSG_AUDIO, "said", "\"format\":\"amr\"", "m2"},
        {MESSAGE("video", "<MediaId>m3</MediaId><ThumbMediaId>t</ThumbMediaId>"), MSG_VIDEO, "",
         "\"thumb_media_id\":\"t\"", "m3"},
        {MESSAGE("shortvideo", "<MediaId>m4</MediaId>"), MSG_VIDEO, "", "m4", "m4"},
        {MESSAGE("location",
                 "<Location_X>23.1</Location_X><Location_Y>113.3</Location_Y><Label>here</Label>"),
         MSG_LOCATION, "here", "\"latitude\":\"23.1\"", ""},
        {MESSAGE("link", "<Title>t</Title><Description>d</Description><Url>https://a/</Url>"), MSG_LINK, "t",
         "\"url\":\"https://a/\"", ""},
        {MESSAGE("hologram", "<X>1</X>"), MSG_FILE, "", "\"type\":\"hologram\"", ""},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        assert_int_equal(read_as(WECHAT_OA, table[i].xml), SL_OK);
        assert_int_equal(in.what, WECHAT_IN_MESSAGE);
        assert_int_equal(in.kind, table[i].kind);
        assert_bytes(in.text, table[i].text);
        assert_has(in.data, table[i].data);
        assert_bytes(in.media_id, table[i].media);
        assert_bytes(in.id, "1234567890123456");
        assert_bytes(in.who, "oA");
        assert_true(in.sent_unix_ms == INT64_C(1348831860000));
        assert_int_equal(in.quota_count, 5);
        assert_true(in.quota_ms == INT64_C(172800000));
    }
}

static void test_a_text_too_long_is_cut(void **state)
{
    (void)state;
    struct sl_buf b;
    sl_buf_init(&b, 0);
    sl_buf_c(&b, HEAD "<MsgType>text</MsgType><Content>x"); /* so that a character straddles the limit */
    for (size_t i = 0; i < MSG_TEXT_MAX_BYTES / 4 + 10; i++)
        sl_buf_c(&b, "\xF0\x9F\x98\x80");
    sl_buf_c(&b, "</Content><MsgId>1</MsgId></xml>");
    sl_buf_char(&b, '\0');
    assert_int_equal(read_as(WECHAT_OA, b.ptr), SL_OK);
    assert_true(in.text.len > MSG_TEXT_MAX_BYTES - 4 && in.text.len <= MSG_TEXT_MAX_BYTES);
    assert_true(sl_str_utf8(in.text));
    assert_has(in.data, "\"cut\":true");
    sl_buf_fini(&b);
}

static void test_menu_answers_are_clicks_and_ratings(void **state)
{
    (void)state;
    assert_int_equal(
        read_as(WECHAT_OA, MESSAGE("text", "<Content>yes</Content><bizmsgmenuid>101</bizmsgmenuid>")), SL_OK);
    assert_int_equal(in.what, WECHAT_IN_MESSAGE);
    assert_int_equal(in.quota_count, 3);
    assert_true(in.quota_ms == 60000);
    assert_has(in.data, "\"menu_id\":\"101\"");
    assert_int_equal(
        read_as(WECHAT_OA, MESSAGE("text", "<Content>x</Content><bizmsgmenuid>sluice-rate-4</bizmsgmenuid>")),
        SL_OK);
    assert_int_equal(in.what, WECHAT_IN_RATING);
    assert_int_equal(in.rating, 4);
    assert_int_equal(
        read_as(WECHAT_OA, MESSAGE("text", "<Content>x</Content><bizmsgmenuid>sluice-rate-6</bizmsgmenuid>")),
        SL_OK);
    assert_int_equal(in.what, WECHAT_IN_MESSAGE);
}

static void test_events_of_every_name(void **state)
{
    (void)state;
    static const struct {
        const char *xml;
        enum wechat_what what;
        const char *text, *data;
        unsigned quota;
    } table[] = {
        {EVENT("subscribe", "<EventKey>qrscene_7</EventKey><Ticket>T</Ticket>"), WECHAT_IN_EVENT, "qrscene_7",
         "\"ticket\":\"T\"", 3},
        {EVENT("unsubscribe", ""), WECHAT_IN_HANGUP, "", "unsubscribe", 0},
        {EVENT("SCAN", "<EventKey>7</EventKey>"), WECHAT_IN_EVENT, "7", "SCAN", 3},
        {EVENT("LOCATION", "<Latitude>1.5</Latitude><Longitude>2.5</Longitude>"), WECHAT_IN_EVENT, "",
         "\"latitude\":\"1.5\"", 0},
        {EVENT("CLICK", "<EventKey>HUMAN</EventKey>"), WECHAT_IN_EVENT, "HUMAN", "\"key\":\"HUMAN\"", 3},
        {EVENT("VIEW", "<EventKey>https://a/</EventKey>"), WECHAT_IN_EVENT, "https://a/", "VIEW", 0},
        {EVENT("view_miniprogram", "<EventKey>p</EventKey><MenuId>9</MenuId>"), WECHAT_IN_EVENT, "p",
         "\"menu_id\":\"9\"", 0},
        {EVENT("scancode_waitmsg", "<ScanCodeInfo><ScanResult>r</ScanResult></ScanCodeInfo>"),
         WECHAT_IN_EVENT, "", "\"scan_result\":\"r\"", 3},
        {EVENT("pic_weixin", "<SendPicsInfo><Count>2</Count></SendPicsInfo>"), WECHAT_IN_EVENT, "",
         "\"count\":\"2\"", 3},
        {EVENT("location_select", "<SendLocationInfo><Label>l</Label></SendLocationInfo>"), WECHAT_IN_EVENT,
         "", "\"label\":\"l\"", 3},
        {EVENT("user_enter_tempsession", "<SessionFrom>s</SessionFrom>"), WECHAT_IN_EVENT, "",
         "\"session_from\":\"s\"", 0},
        {EVENT("kf_switch_session", "<FromKfAccount>a</FromKfAccount><ToKfAccount>b</ToKfAccount>"),
         WECHAT_IN_NOTHING, "", "\"to\":\"b\"", 0},
        {EVENT("user_authorization_revoke", "<OpenID>o</OpenID><RevokeInfo>1</RevokeInfo>"), WECHAT_IN_HANGUP,
         "", "\"revoked\":\"1\"", 0},
        {EVENT("something_new", ""), WECHAT_IN_NOTHING, "", "", 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        assert_int_equal(read_as(WECHAT_OA, table[i].xml), SL_OK);
        assert_int_equal(in.what, table[i].what);
        assert_bytes(in.text, table[i].text);
        assert_has(in.data, table[i].data);
        assert_int_equal(in.quota_count, table[i].quota);
    }
}

/* The platform's own key of an event, From and CreateTime, makes one of two clicks in a second. */
static void test_event_ids_tell_clicks_apart(void **state)
{
    (void)state;
    char first[64];
    assert_int_equal(read_as(WECHAT_OA, EVENT("CLICK", "<EventKey>A</EventKey>")), SL_OK);
    assert_true(in.id.len < sizeof first);
    memcpy(first, in.id.ptr, in.id.len);
    first[in.id.len] = '\0';
    assert_int_equal(read_as(WECHAT_OA, EVENT("CLICK", "<EventKey>A</EventKey>")), SL_OK);
    assert_bytes(in.id, first);
    assert_int_equal(read_as(WECHAT_OA, EVENT("CLICK", "<EventKey>B</EventKey>")), SL_OK);
    assert_false(sl_str_eq_c(in.id, first));
}

/* Two template messages of one second have two receipts. */
static void test_event_ids_tell_receipts_apart(void **state)
{
    (void)state;
    char first[64];
    assert_int_equal(
        read_as(WECHAT_OA, EVENT("TEMPLATESENDJOBFINISH", "<MsgID>1</MsgID><Status>success</Status>")),
        SL_OK);
    memcpy(first, in.id.ptr, in.id.len);
    first[in.id.len] = '\0';
    assert_int_equal(
        read_as(WECHAT_OA, EVENT("TEMPLATESENDJOBFINISH", "<MsgID>2</MsgID><Status>success</Status>")),
        SL_OK);
    assert_false(sl_str_eq_c(in.id, first));
}

static void test_receipts_of_templates(void **state)
{
    (void)state;
    assert_int_equal(read_as(WECHAT_OA, EVENT("TEMPLATESENDJOBFINISH",
                                              "<MsgID>200163836</MsgID><Status>success</Status>")),
                     SL_OK);
    assert_int_equal(in.what, WECHAT_IN_RECEIPT);
    assert_true(in.is_delivered);
    assert_bytes(in.remote_id, "200163836");
    assert_int_equal(read_as(WECHAT_OA, EVENT("TEMPLATESENDJOBFINISH",
                                              "<MsgID>1</MsgID><Status>failed:user block</Status>")),
                     SL_OK);
    assert_false(in.is_delivered);
    assert_int_equal(in.why->what, WECHAT_GONE);
    assert_int_equal(
        read_as(WECHAT_OA, EVENT("subscribe_msg_sent_event",
                                 "<SubscribeMsgSentEvent><List><MsgID>5</MsgID><ErrorCode>43101</ErrorCode></"
                                 "List></SubscribeMsgSentEvent>")),
        SL_OK);
    assert_int_equal(in.what, WECHAT_IN_RECEIPT);
    assert_int_equal(in.why->what, WECHAT_GONE);
}

static void test_in_refuses_what_is_no_message(void **state)
{
    (void)state;
    assert_int_equal(read_as(WECHAT_OA, "<xml></xml>"), SL_EINVAL);
    assert_int_equal(read_as(WECHAT_OA, HEAD "<MsgType>text</MsgType><Content>a</Content></xml>"), SL_EINVAL);
    assert_int_equal(
        read_as(WECHAT_OA, HEAD "<MsgType>text</MsgType><Content>a</Content><MsgId>1:2</MsgId></xml>"),
        SL_EINVAL);
    assert_int_equal(
        read_as(WECHAT_OA,
                "<xml><FromUserName>a "
                "b</FromUserName><MsgType>text</MsgType><Content>a</Content><MsgId>1</MsgId></xml>"),
        SL_EINVAL);
}

static void test_kf_hint(void **state)
{
    (void)state;
    assert_int_equal(
        read_as(WECHAT_KF,
                "<xml><ToUserName>ww1</ToUserName><CreateTime>1</CreateTime><MsgType>event</MsgType>"
                "<Event>kf_msg_or_event</Event><Token>T</Token><OpenKfId>wk1</OpenKfId></xml>"),
        SL_OK);
    assert_int_equal(in.what, WECHAT_IN_HINT);
    assert_bytes(in.kf_token, "T");
    assert_bytes(in.open_kfid, "wk1");
}

static const char page_text[] =
    "{\"errcode\":0,\"next_cursor\":\"c2\",\"has_more\":1,\"msg_list\":["
    "{\"msgid\":\"m1\",\"open_kfid\":\"wk1\",\"external_userid\":\"wm1\",\"send_time\":1615478585,\"origin\":"
    "3,\"msgtype\":\"text\",\"text\":{\"content\":\"hi\",\"menu_id\":\"7\"}},"
    "{\"msgid\":\"m2\",\"open_kfid\":\"wk1\",\"external_userid\":\"wm1\",\"send_time\":1,\"origin\":3,"
    "\"msgtype\":\"image\",\"image\":{\"media_id\":\"M\"}},"
    "{\"msgid\":\"m3\",\"open_kfid\":\"wk1\",\"external_userid\":\"wm1\",\"send_time\":1,\"origin\":5,"
    "\"msgtype\":\"text\",\"text\":{\"content\":\"a colleague\"}},"
    "{\"msgid\":\"m4\",\"open_kfid\":\"wk1\",\"send_time\":1,\"origin\":4,\"msgtype\":\"event\",\"event\":{"
    "\"event_type\":\"enter_session\",\"open_kfid\":\"wk1\",\"external_userid\":\"wm1\",\"welcome_code\":"
    "\"W\"}},"
    "{\"msgid\":\"m5\",\"open_kfid\":\"wk1\",\"send_time\":1,\"origin\":4,\"msgtype\":\"event\",\"event\":{"
    "\"event_type\":\"msg_send_fail\",\"external_userid\":\"wm1\",\"fail_msgid\":\"key-1\",\"fail_type\":6}},"
    "{\"msgid\":\"m6\",\"open_kfid\":\"wk1\",\"external_userid\":\"not "
    "ok\",\"send_time\":1,\"origin\":3,\"msgtype\":\"text\",\"text\":{\"content\":\"x\"}},"
    "{\"msgid\":\"m7\",\"open_kfid\":\"wk1\",\"external_userid\":\"wm1\",\"send_time\":1,\"origin\":3,"
    "\"msgtype\":\"text\",\"text\":{\"content\":\"x\",\"menu_id\":\"sluice-rate-2\"}},"
    "7]}";

static void test_page_items(void **state)
{
    (void)state;
    static const struct {
        enum wechat_what what;
        enum msg_kind kind;
    } table[] = {{WECHAT_IN_MESSAGE, MSG_TEXT},   {WECHAT_IN_MESSAGE, MSG_IMAGE},
                 {WECHAT_IN_NOTHING, MSG_TEXT},   {WECHAT_IN_EVENT, MSG_CHOICE},
                 {WECHAT_IN_RECEIPT, MSG_CHOICE}, {WECHAT_IN_NOTHING, MSG_TEXT},
                 {WECHAT_IN_RATING, MSG_TEXT},    {WECHAT_IN_NOTHING, MSG_TEXT}};
    struct wechat_page p;
    int64_t code = 1;
    assert_int_equal(wechat_page_read(&p, sl_str_c(page_text), &code, NULL), SL_OK);
    assert_true(code == 0 && p.has_more);
    assert_bytes(p.next_cursor, "c2");
    assert_int_equal(p.items, sizeof table / sizeof table[0]);
    for (size_t i = 0; i < p.items; i++) {
        wechat_in_fini(&in);
        wechat_page_item(&in, &p, i);
        assert_int_equal(in.what, table[i].what);
        if (in.what != WECHAT_IN_NOTHING)
            assert_int_equal(in.kind, table[i].kind);
        if (i == 1)
            assert_bytes(in.media_id, "M");
        if (i == 3)
            assert_bytes(in.welcome_code, "W");
        if (i == 4) {
            assert_bytes(in.remote_id, "key-1");
            assert_bytes(in.code, "6");
            assert_int_equal(in.why->what, WECHAT_WINDOW);
        }
    }
    wechat_page_fini(&p);
}

static void assert_body(const struct wechat_out *o, const char *path, const char *const *needles)
{
    struct sl_buf out;
    sl_buf_init(&out, 0);
    assert_true(wechat_out_write(o, &out));
    json_t *parsed = sl_json_parse(sl_buf_view(&out), NULL);
    assert_non_null(parsed);
    json_decref(parsed);
    assert_string_equal(wechat_out_path(o), path);
    for (; *needles != NULL; needles++)
        assert_has(sl_buf_view(&out), *needles);
    sl_buf_fini(&out);
}
#define BODY(o, path, ...) assert_body((o), (path), (const char *const[]){__VA_ARGS__, NULL})

static void test_out_bodies(void **state)
{
    (void)state;
    struct msg m = {.kind = MSG_TEXT, .text = SL_STR("\xe4\xbd\xa0\"")};
    struct wechat_out o = {.product = WECHAT_OA,
                           .m = &m,
                           .to = SL_STR("oA"),
                           .key = SL_STR("k-1"),
                           .media_id = SL_STR("M"),
                           .agent_id = SL_STR("1000002"),
                           .open_kfid = SL_STR("wk1"),
                           .duplicate_check_s = 1800};
    BODY(&o, "/cgi-bin/message/custom/send", "\"touser\":\"oA\"",
         "\"text\":{\"content\":\"\xe4\xbd\xa0\\\"\"}");
    o.product = WECHAT_WECOM;
    BODY(&o, "/cgi-bin/message/send", "\"agentid\":1000002", "\"enable_duplicate_check\":1",
         "\"duplicate_check_interval\":1800");
    o.product = WECHAT_KF;
    BODY(&o, "/cgi-bin/kf/send_msg", "\"msgid\":\"k-1\"", "\"open_kfid\":\"wk1\"");
    o.welcome_code = SL_STR("W");
    BODY(&o, "/cgi-bin/kf/send_msg_on_event", "\"code\":\"W\"");
    o.welcome_code = SL_STR_NONE;
    m.kind = MSG_IMAGE;
    BODY(&o, "/cgi-bin/kf/send_msg", "\"image\":{\"media_id\":\"M\"}");
    m.kind = MSG_VIDEO;
    o.product = WECHAT_OA;
    BODY(&o, "/cgi-bin/message/custom/send", "\"video\":{\"media_id\":\"M\"");
    m = (struct msg){.kind = MSG_CHOICE,
                     .text = SL_STR("pick"),
                     .data = SL_STR("{\"options\":[{\"label\":\"one\"},{\"value\":2},\"three\"]}")};
    BODY(&o, "/cgi-bin/message/custom/send", "\"head_content\":\"pick\"",
         "{\"id\":\"1\",\"content\":\"one\"},{\"id\":\"2\",\"content\":\"2\"},{\"id\":\"3\",\"content\":"
         "\"three\"}");
    m.data = SL_STR("{\"ask\":\"rating\",\"options\":[{\"value\":1}]}");
    BODY(&o, "/cgi-bin/message/custom/send", "\"id\":\"sluice-rate-5\"", "\"id\":\"sluice-rate-1\"");
    o.product = WECHAT_KF;
    BODY(&o, "/cgi-bin/kf/send_msg", "{\"type\":\"click\",\"click\":{\"id\":\"sluice-rate-5\"");
    o.product = WECHAT_OA;
    m = (struct msg){.kind = MSG_CARD,
                     .data = SL_STR("{\"title\":\"T\",\"url\":\"https://a/\",\"image\":\"https://p/\"}")};
    BODY(&o, "/cgi-bin/message/custom/send", "\"articles\":[{\"title\":\"T\"", "\"picurl\":\"https://p/\"");
    m = (struct msg){
        .kind = MSG_TEXT,
        .text = SL_STR("t"),
        .data = SL_STR("{\"template\":{\"template_id\":\"TM\",\"data\":{\"a\":{\"value\":\"1\"}}}}")};
    BODY(&o, "/cgi-bin/message/template/send", "\"template_id\":\"TM\"", "\"data\":{\"a\":{\"value\":\"1\"}}",
         "\"client_msg_id\":\"k-1\"");
    m.data = SL_STR("{\"subscribe\":{\"template_id\":\"SM\",\"page\":\"p\",\"data\":{}}}");
    BODY(&o, "/cgi-bin/message/subscribe/bizsend", "\"template_id\":\"SM\"", "\"page\":\"p\"");
    o.product = WECHAT_KF;
    m = (struct msg){.kind = MSG_LOCATION,
                     .text = SL_STR("here"),
                     .data = SL_STR("{\"latitude\":23.1,\"longitude\":113.3}")};
    BODY(&o, "/cgi-bin/kf/send_msg", "\"latitude\":23.100000");
}

static void test_out_refuses_what_it_cannot_say(void **state)
{
    (void)state;
    struct sl_buf out;
    struct msg m = {.kind = MSG_NOTE, .text = SL_STR("secret")};
    struct wechat_out o = {.product = WECHAT_OA, .m = &m, .to = SL_STR("oA")};
    sl_buf_init(&out, 0);
    assert_false(wechat_out_write(&o, &out));
    m.kind = MSG_FILE; /* an Official Account has no files */
    o.media_id = SL_STR("M");
    assert_false(wechat_out_write(&o, &out));
    m.kind = MSG_IMAGE;
    o.media_id = SL_STR_NONE;
    assert_false(wechat_out_write(&o, &out));
    sl_buf_fini(&out);
}

static void test_results(void **state)
{
    (void)state;
    struct wechat_result r;
    json_t *hold;
    assert_int_equal(wechat_result_read(&r, WECHAT_OA,
                                        SL_STR("{\"errcode\":0,\"errmsg\":\"ok\",\"msgid\":200228332}"),
                                        &hold),
                     SL_OK);
    assert_bytes(r.remote_id, "200228332");
    json_decref(hold);
    assert_int_equal(wechat_result_read(&r, WECHAT_WECOM,
                                        SL_STR("{\"errcode\":0,\"invaliduser\":\"u1\",\"msgid\":\"x\"}"),
                                        &hold),
                     SL_OK);
    assert_int_equal(r.error->what, WECHAT_GONE);
    json_decref(hold);
    assert_int_equal(wechat_result_read(&r, WECHAT_OA, SL_STR("<html>"), &hold), SL_EUPSTREAM);
    assert_int_equal(wechat_result_read(&r, WECHAT_OA, SL_STR("{}"), &hold), SL_EUPSTREAM);
}

static void test_error_tables(void **state)
{
    (void)state;
    static const struct {
        enum wechat_product product;
        int code;
        enum wechat_class what;
    } table[] = {
        {WECHAT_OA, 0, WECHAT_FINE},         {WECHAT_OA, -1, WECHAT_BUSY},
        {WECHAT_OA, 40001, WECHAT_TOKEN},    {WECHAT_OA, 42001, WECHAT_TOKEN},
        {WECHAT_OA, 45015, WECHAT_WINDOW},   {WECHAT_OA, 45047, WECHAT_WINDOW},
        {WECHAT_OA, 45009, WECHAT_QUOTA},    {WECHAT_OA, 43004, WECHAT_GONE},
        {WECHAT_OA, 48001, WECHAT_ALARM},    {WECHAT_OA, 40164, WECHAT_ALARM},
        {WECHAT_OA, 40007, WECHAT_CONTENT},  {WECHAT_OA, 99999, WECHAT_CONTENT},
        {WECHAT_WECOM, 40001, WECHAT_TOKEN}, {WECHAT_WECOM, 60020, WECHAT_ALARM},
        {WECHAT_KF, 95001, WECHAT_WINDOW},   {WECHAT_KF, 95018, WECHAT_STATE},
        {WECHAT_KF, 42001, WECHAT_TOKEN},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        assert_int_equal(wechat_error_find(table[i].product, table[i].code)->what, table[i].what);
    for (int p = WECHAT_OA; p <= WECHAT_KF; p++) {
        size_t count;
        const struct wechat_error *rows = wechat_error_table((enum wechat_product)p, &count);
        for (size_t i = 0; i < count; i++) {
            assert_ptr_equal(wechat_error_find((enum wechat_product)p, rows[i].code),
                             &rows[i]); /* no code twice */
            assert_true(rows[i].zh[0] != '\0' && rows[i].en[0] != '\0');
        }
    }
    struct sl_buf words;
    sl_buf_init(&words, 0);
    wechat_error_words(wechat_error_find(WECHAT_OA, 45015), &words);
    assert_has(sl_buf_view(&words), "48");
    sl_buf_fini(&words);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_messages_of_every_type, done),
        cmocka_unit_test_teardown(test_a_text_too_long_is_cut, done),
        cmocka_unit_test_teardown(test_menu_answers_are_clicks_and_ratings, done),
        cmocka_unit_test_teardown(test_events_of_every_name, done),
        cmocka_unit_test_teardown(test_event_ids_tell_clicks_apart, done),
        cmocka_unit_test_teardown(test_event_ids_tell_receipts_apart, done),
        cmocka_unit_test_teardown(test_receipts_of_templates, done),
        cmocka_unit_test_teardown(test_in_refuses_what_is_no_message, done),
        cmocka_unit_test_teardown(test_kf_hint, done),
        cmocka_unit_test_teardown(test_page_items, done),
        cmocka_unit_test(test_out_bodies),
        cmocka_unit_test(test_out_refuses_what_it_cannot_say),
        cmocka_unit_test(test_results),
        cmocka_unit_test(test_error_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
