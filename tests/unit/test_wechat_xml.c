/* tests/unit/test_wechat_xml.c - callbacks read by expat, and what is refused of them. */
#include "unit.h"

#include "channels/wechat/wechat_xml.h"

static struct wechat_xml x;

static sl_err read_text(struct sl_str text, struct sl_fail *why)
{
    wechat_xml_fini(&x);
    return wechat_xml_read(&x, text, why);
}

static void test_read_finds_leaves_by_path(void **state)
{
    (void)state;
    assert_int_equal(read_text(SL_STR("<xml>\n <MsgType><![CDATA[event]]></MsgType><A><B>1</B><B>2</B></A>"
                                      "<C>a<![CDATA[]]]]><![CDATA[>]]>&lt;\xe4\xbd\xa0</C><Empty/></xml>"),
                               NULL),
                     SL_OK);
    assert_bytes(wechat_xml_get(&x, "MsgType"), "event");
    assert_bytes(wechat_xml_get(&x, "A/B"), "1");
    assert_bytes(wechat_xml_nth(&x, "A/B", 1), "2");
    assert_bytes(wechat_xml_get(&x, "C"), "a]]><\xe4\xbd\xa0");
    assert_true(wechat_xml_has(&x, "Empty"));
    assert_false(wechat_xml_has(&x, "A"));
    assert_int_equal(wechat_xml_get(&x, "Nothing").len, 0);
    wechat_xml_fini(&x);
}

static void test_read_refuses(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        sl_err err;
        const char *words;
    } table[] = {
        {"", SL_EINVAL, "not XML"},
        {"{}", SL_EINVAL, "not XML"},
        {"<html></html>", SL_EINVAL, "root"},
        {"<xml><a></xml>", SL_EINVAL, "not XML"},
        {"<xml></xml><xml></xml>", SL_EINVAL, "not XML"},
        {"<!DOCTYPE xml><xml></xml>", SL_EINVAL, "DOCTYPE"},
        {"<!DOCTYPE xml [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><xml>&b;</xml>", SL_EINVAL, "DOCTYPE"},
        {"<!DOCTYPE xml SYSTEM \"file:///etc/passwd\"><xml></xml>", SL_EINVAL, "DOCTYPE"},
        {"<xml><a>&unknown;</a></xml>", SL_EINVAL, "not XML"},
        {"<xml><a>\xff</a></xml>", SL_EINVAL, "not XML"},
        {"<xml><a>&#0;</a></xml>", SL_EINVAL, "not XML"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct sl_fail why = {.text = ""};
        assert_int_equal(read_text(sl_str_c(table[i].text), &why), table[i].err);
        assert_contains(why.text, table[i].words);
    }
    wechat_xml_fini(&x);
}

static void test_json_without_names(void **state)
{
    (void)state;
    wechat_xml_fini(&x);
    assert_int_equal(wechat_xml_from_json(&x, SL_STR("{\"\":\"\"}"), NULL), SL_OK);
    assert_int_equal(wechat_xml_get(&x, "MsgType").len, 0);
    assert_true(wechat_xml_has(&x, ""));
    wechat_xml_fini(&x);
}

static void test_read_has_limits(void **state)
{
    (void)state;
    struct sl_buf text;
    struct sl_fail why;
    for (unsigned depth = WECHAT_XML_DEPTH_MAX - 1; depth <= WECHAT_XML_DEPTH_MAX; depth++) {
        sl_buf_init(&text, 0);
        sl_buf_c(&text, "<xml>");
        for (unsigned i = 0; i < depth; i++)
            sl_buf_c(&text, "<a>");
        for (unsigned i = 0; i < depth; i++)
            sl_buf_c(&text, "</a>");
        sl_buf_c(&text, "</xml>");
        assert_int_equal(read_text(sl_buf_view(&text), &why),
                         depth < WECHAT_XML_DEPTH_MAX ? SL_OK : SL_ETOOBIG);
        sl_buf_fini(&text);
    }
    for (unsigned leaves = WECHAT_XML_LEAVES_MAX; leaves <= WECHAT_XML_LEAVES_MAX + 1; leaves++) {
        sl_buf_init(&text, 0);
        sl_buf_c(&text, "<xml>");
        for (unsigned i = 0; i < leaves; i++)
            sl_buf_c(&text, "<a/>");
        sl_buf_c(&text, "</xml>");
        assert_int_equal(read_text(sl_buf_view(&text), &why),
                         leaves <= WECHAT_XML_LEAVES_MAX ? SL_OK : SL_ETOOBIG);
        sl_buf_fini(&text);
    }
    sl_buf_init(&text, 0);
    for (size_t i = 0; i <= WECHAT_XML_MAX_BYTES; i++)
        sl_buf_char(&text, 'a');
    assert_int_equal(read_text(sl_buf_view(&text), &why), SL_ETOOBIG);
    sl_buf_fini(&text);
    wechat_xml_fini(&x);
}

static void test_answers_are_read_back(void **state)
{
    (void)state;
    struct sl_buf out;
    struct wechat_answer a = {.to_openid = SL_STR("oA"),
                              .from_account = SL_STR("gh_1"),
                              .now_unix_s = 7,
                              .type = WECHAT_ANSWER_TEXT,
                              .text = SL_STR("a ]]> b ]]]]>> \x01 <x>"),
                              .media_id = SL_STR("m"),
                              .title = SL_STR("t"),
                              .description = SL_STR("d"),
                              .picture_url = SL_STR("p"),
                              .url = SL_STR("u"),
                              .account = SL_STR("k@x")};
    static const struct {
        unsigned type;
        const char *name, *path, *value;
    } table[] = {
        {WECHAT_ANSWER_TEXT, "text", "Content", "a ]]> b ]]]]>> \xef\xbf\xbd <x>"},
        {WECHAT_ANSWER_IMAGE, "image", "Image/MediaId", "m"},
        {WECHAT_ANSWER_VOICE, "voice", "Voice/MediaId", "m"},
        {WECHAT_ANSWER_VIDEO, "video", "Video/Title", "t"},
        {WECHAT_ANSWER_NEWS, "news", "Articles/item/Url", "u"},
        {WECHAT_ANSWER_TRANSFER, "transfer_customer_service", "TransInfo/KfAccount", "k@x"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        a.type = table[i].type;
        sl_buf_init(&out, 0);
        wechat_xml_answer(&out, &a);
        assert_int_equal(read_text(sl_buf_view(&out), NULL), SL_OK);
        assert_bytes(wechat_xml_get(&x, "MsgType"), table[i].name);
        assert_bytes(wechat_xml_get(&x, table[i].path), table[i].value);
        assert_bytes(wechat_xml_get(&x, "ToUserName"), "oA");
        assert_bytes(wechat_xml_get(&x, "CreateTime"), "7");
        sl_buf_fini(&out);
    }
    wechat_xml_fini(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_finds_leaves_by_path), cmocka_unit_test(test_read_refuses),
        cmocka_unit_test(test_json_without_names),        cmocka_unit_test(test_read_has_limits),
        cmocka_unit_test(test_answers_are_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
