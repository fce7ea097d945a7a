/* tests/unit/test_rules.c - what rules say, and what is refused. */
#include "unit.h"

#include "router/rules.h"

static struct rules parse(const char *json)
{
    struct rules r;
    struct sl_fail why = {.code = SL_OK};
    if (rules_parse(sl_str_c(json), &r, &why) != SL_OK)
        fail_msg("refused: %s", why.text);
    return r;
}

static void test_defaults_are_those_of_the_table(void **state)
{
    (void)state;
    struct rules empty = parse("{}"), whole = parse(rules_default_json());
#define X(member, fallback, least, most, words)                                                              \
    assert_int_equal(empty.member, INT64_C(fallback));                                                       \
    assert_int_equal(whole.member, INT64_C(fallback));
    RULES_NUMBERS(X)
#undef X
    assert_string_equal(empty.language, whole.language);
    assert_int_equal(empty.human.count, whole.human.count);
    for (size_t i = 0; i < empty.human.count; i++)
        assert_string_equal(empty.human.at[i], whole.human.at[i]);
    assert_int_equal(empty.not_human.count, whole.not_human.count);
    for (size_t i = 0; i < empty.not_human.count; i++)
        assert_string_equal(empty.not_human.at[i], whole.not_human.at[i]);
    assert_int_equal(empty.inbox_count, 1);
    assert_int_equal(whole.inbox_count, 1);
    assert_string_equal(empty.inboxes[0].bot, whole.inboxes[0].bot);
    assert_string_equal(empty.inboxes[0].queue, whole.inboxes[0].queue);
    rules_fini(&empty);
    rules_fini(&whole);
}

static void test_inbox_closest_name_counts(void **state)
{
    (void)state;
    struct rules r = parse("{\"inboxes\":{\"*\":{\"bot\":\"any\"},\"acme\":{\"bot\":\"tenant\"},"
                           "\"acme/web\":{\"bot\":\"inbox\",\"priority\":3}}}");
    assert_string_equal(rules_inbox(&r, SL_STR("acme"), SL_STR("web"))->bot, "inbox");
    assert_int_equal(rules_inbox(&r, SL_STR("acme"), SL_STR("web"))->priority, 3);
    assert_string_equal(rules_inbox(&r, SL_STR("acme"), SL_STR("sms"))->bot, "tenant");
    assert_string_equal(rules_inbox(&r, SL_STR("acm"), SL_STR("web"))->bot, "any");
    assert_string_equal(rules_inbox(&r, SL_STR(""), SL_STR(""))->bot, "any");
    rules_fini(&r);
}

static void test_wants_human(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool wants;
    } cases[] = {
        {"人工", true},
        {"我要转人工！", true},
        {"请帮我找真人客服", true},
        {"你是人工智能吗？", false},
        {"人工智能不行，转人工", true},
        {"I want a HUMAN please", true},
        {"humane treatment", false},
        {"agent", true},
        {"agents", false},
        {"my travel agent said", false},
        {"a real person, now", true},
        {"I want a person", true},
        {"Where is my order?", false},
        {"", false},
        {"人", false},
    };
    struct rules r = parse("{}");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (rules_wants_human(&r, sl_str_c(cases[i].text)) != cases[i].wants)
            fail_msg("\"%s\"", cases[i].text);
    rules_fini(&r);
    r = parse("{\"human_words\":[\"operator\"],\"not_human_words\":[]}");
    assert_true(rules_wants_human(&r, SL_STR("Operator!")));
    assert_false(rules_wants_human(&r, SL_STR("人工")));
    rules_fini(&r);
}

static void test_is_fragment(void **state)
{
    (void)state;
    struct rules r = parse("{\"merge_below_chars\":4}");
    assert_true(rules_is_fragment(&r, SL_STR("hi")));
    assert_true(rules_is_fragment(&r, SL_STR("你好啊")));
    assert_false(rules_is_fragment(&r, SL_STR("你好啊啊")));
    assert_false(rules_is_fragment(&r, SL_STR("hi.")));
    assert_false(rules_is_fragment(&r, SL_STR("好。")));
    assert_false(rules_is_fragment(&r, SL_STR("好？")));
    assert_false(rules_is_fragment(&r, SL_STR("")));
    rules_fini(&r);
    r = parse("{\"merge_ms\":0}");
    assert_false(rules_is_fragment(&r, SL_STR("hi")));
    rules_fini(&r);
}

static void test_lists_and_queues(void **state)
{
    (void)state;
    assert_true(rules_list_ok(SL_STR("")));
    assert_true(rules_list_ok(SL_STR("english,refunds")));
    assert_false(rules_list_ok(SL_STR("english,,refunds")));
    assert_false(rules_list_ok(SL_STR("two words")));
    struct rules r = parse("{}");
    assert_true(rules_has_queue(&r, SL_STR("whatever")));
    rules_fini(&r);
    r = parse("{\"queues\":[\"vip\"]}");
    assert_true(rules_has_queue(&r, SL_STR("vip")));
    assert_true(rules_has_queue(&r, SL_STR("default")));
    assert_false(rules_has_queue(&r, SL_STR("whatever")));
    rules_fini(&r);
}

static void test_texts_of_a_tenant(void **state)
{
    (void)state;
    const char *zh, *en;
    struct rules r =
        parse("{\"texts\":{\"acme\":{\"queued\":{\"en\":\"Hold on.\"},\"of_tomorrow\":{\"en\":\"x\"}}}}");
    rules_words_for(&r, SL_STR("acme"), RULES_TEXT_queued, &zh, &en);
    assert_string_equal(en, "Hold on.");
    assert_true(strlen(zh) > 0);
    rules_words_for(&r, SL_STR("other"), RULES_TEXT_queued, &zh, &en);
    assert_string_not_equal(en, "Hold on.");
    rules_fini(&r);
}

static void test_parse_refuses(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "[]",
                                      "{",
                                      "{\"accept_ms\":\"soon\"}",
                                      "{\"accept_ms\":1}",
                                      "{\"merge_ms\":1.5}",
                                      "{\"queue_max\":2001}",
                                      "{\"human_words\":\"agent\"}",
                                      "{\"human_words\":[\"\"]}",
                                      "{\"human_words\":[1]}",
                                      "{\"inboxes\":[]}",
                                      "{\"inboxes\":{\"a/b\":1}}",
                                      "{\"inboxes\":{\"a/b\":{\"bot\":7}}}",
                                      "{\"inboxes\":{\"a/b\":{\"bot\":\"x y\"}}}",
                                      "{\"inboxes\":{\"a/b\":{\"queue\":\"\"}}}",
                                      "{\"inboxes\":{\"a/b\":{\"priority\":101}}}",
                                      "{\"inboxes\":{\"*\":{\"skills\":\"two words\"}}}",
                                      "{\"language\":\"fr\"}",
                                      "{\"language\":1}",
                                      "{\"texts\":{\"acme\":{\"queued\":{\"zh\":1}}}}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct rules r;
        struct sl_fail why = {.code = SL_OK};
        if (rules_parse(sl_str_c(bad[i]), &r, &why) != SL_EINVAL)
            fail_msg("taken: %s", bad[i]);
        assert_true(why.text[0] != '\0');
    }
}

static void test_unknown_members_are_ignored(void **state)
{
    (void)state;
    struct rules r = parse("{\"of_tomorrow\":{\"x\":[1,2]},\"accept_ms\":5000}");
    assert_int_equal(r.accept_ms, 5000);
    rules_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_those_of_the_table),
        cmocka_unit_test(test_inbox_closest_name_counts),
        cmocka_unit_test(test_wants_human),
        cmocka_unit_test(test_is_fragment),
        cmocka_unit_test(test_lists_and_queues),
        cmocka_unit_test(test_texts_of_a_tenant),
        cmocka_unit_test(test_parse_refuses),
        cmocka_unit_test(test_unknown_members_are_ignored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
