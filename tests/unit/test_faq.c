/* tests/unit/test_faq.c - bot/faq.c: reading the file, exact and similar questions, languages, hostile input.
 */
#include "bot/faq.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#ifndef SL_SOURCE_ROOT
#define SL_SOURCE_ROOT "."
#endif

static const char small[] =
    "threshold: 50\n"
    "handoff: {words: [投诉, lawyer], text: {zh: 转人工, en: a person comes}}\n"
    "not_found: {zh: 不知道, en: no idea}\n"
    "faq:\n"
    "  - {id: hours, ask: [营业时间, what are your opening hours], answer: {zh: 九点, en: nine}}\n"
    "  - {id: return, ask: [怎么退货, how do I return an item], answer: {zh: 七天, en: seven days}}\n"
    "  - {id: hi, ask: hi, answer: hello}\n";

struct answer {
    struct bot_faq_result result;
    char text[4096];
};

static struct bot_faq *load_small(void)
{
    struct sl_fail why = {0};
    struct bot_faq *f = bot_faq_load_text(sl_str_c(small), "small", 0, &why);
    if (f == NULL)
        fail_msg("%s", why.text);
    return f;
}

static struct answer ask(const struct bot_faq *f, const char *question)
{
    struct answer a = {0};
    struct sl_buf out;
    sl_buf_init(&out, sizeof a.text - 1);
    bot_faq_answer(f, sl_str_c(question), &out, &a.result);
    assert_false(out.overflow);
    if (out.len > 0)
        memcpy(a.text, out.ptr, out.len);
    sl_buf_fini(&out);
    return a;
}

static void expect(const struct bot_faq *f, const char *question, const char *id)
{
    const struct answer a = ask(f, question);
    const bool is_found = a.result.outcome == BOT_FAQ_ANSWERED;
    if (!is_found || !sl_str_eq_c(a.result.entry, id))
        fail_msg("\"%s\": wanted %s, got %.*s at %u%% (%s)", question, id, (int)a.result.entry.len,
                 a.result.entry.ptr, a.result.score_pct, is_found ? "answered" : "not answered");
}

static void expect_unsure(const struct bot_faq *f, const char *question)
{
    const struct answer a = ask(f, question);
    if (a.result.outcome != BOT_FAQ_UNSURE)
        fail_msg("\"%s\": wanted no answer, got %.*s at %u%%", question, (int)a.result.entry.len,
                 a.result.entry.ptr, a.result.score_pct);
}

static void test_answer_exact_ignores_case_width_and_signs(void **state)
{
    struct bot_faq *f = load_small();
    (void)state;
    static const char *const same[] = {"what are your opening hours", "What are your OPENING hours?!",
                                       "  what are  your opening-hours ",
                                       "ｗｈａｔ ａｒｅ ｙｏｕｒ ｏｐｅｎｉｎｇ ｈｏｕｒｓ？"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        expect(f, same[i], "hours");
        assert_int_equal(ask(f, same[i]).result.score_pct, 100);
    }
    bot_faq_free(&f);
}

static void test_answer_in_the_language_of_the_question(void **state)
{
    struct bot_faq *f = load_small();
    (void)state;
    assert_string_equal(ask(f, "营业时间？").text, "九点");
    assert_string_equal(ask(f, "opening hours").text, "nine");
    assert_string_equal(ask(f, "天气怎么样").text, "不知道");
    assert_string_equal(ask(f, "tell me a joke").text, "no idea");
    assert_string_equal(ask(f, "Hi!").text, "hello"); /* one text for every language */
    bot_faq_free(&f);
}

static void test_answer_does_not_find_short_words_inside_long_ones(void **state)
{
    struct bot_faq *f = load_small();
    (void)state;
    expect_unsure(f, "shipping this machine");
    bot_faq_free(&f);
}

static void test_answer_handoff_words(void **state)
{
    struct bot_faq *f = load_small();
    (void)state;
    struct answer a = ask(f, "我要投诉你们");
    assert_int_equal(a.result.outcome, BOT_FAQ_HANDOFF);
    assert_string_equal(a.text, "转人工");
    a = ask(f, "营业时间\nMy LAWYER will call");
    assert_int_equal(a.result.outcome, BOT_FAQ_HANDOFF);
    bot_faq_free(&f);
}

static void test_answer_each_line_of_a_burst_once(void **state)
{
    struct bot_faq *f = load_small();
    (void)state;
    assert_string_equal(ask(f, "营业时间\n怎么退货\n营业时间").text, "九点\n\n七天");
    assert_string_equal(ask(f, "how do I\nreturn\nan item").text, "seven days"); /* in pieces */
    bot_faq_free(&f);
}

static void test_answer_takes_anything(void **state)
{
    struct bot_faq *f = load_small();
    (void)state;
    static const char *const odd[] = {"", "\n\n\n", "???", "😀😀", "\xff\xfe\xe4\xbd", "\xf0\x9f", "啊"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        expect_unsure(f, odd[i]);
    char *large = malloc(65536);
    for (size_t i = 0; i < 65535; i++)
        large[i] = (char)('a' + (i * 7919) % 26);
    large[65535] = '\0';
    expect_unsure(f, large);
    for (size_t i = 0; i < 65535; i++)
        large[i] = (char)(i % 3 == 0 ? 0xe4 + (char)(i % 5) : 0x80 + (char)(i % 61));
    expect_unsure(f, large);
    free(large);
    bot_faq_free(&f);
}

static void expect_refused(const char *yaml, const char *words)
{
    struct sl_fail why = {0};
    struct bot_faq *f = bot_faq_load_text(sl_str_c(yaml), "x.yaml", 0, &why);
    if (f != NULL || strstr(why.text, words) == NULL)
        fail_msg("%s: wanted a refusal with \"%s\", got \"%s\"", yaml, words, why.text);
}

static void test_load_refuses_with_line_and_column(void **state)
{
    (void)state;
    expect_refused("", "x.yaml");
    expect_refused("[1, 2]", "mapping");
    expect_refused("faq: []", "no entry");
    expect_refused("faq:\n  - {ask: a}", "x.yaml:2:5");
    expect_refused("faq:\n  - {ask: a, answer: b}\n  - {ask: A!, answer: c}", "x.yaml:3:11");
    expect_refused("faq: [{ask: '?!', answer: b}]", "letters");
    expect_refused("threshold: 101\nfaq: [{ask: a, answer: b}]", "1 to 100");
    expect_refused("colour: red", "x.yaml:1:1");
    expect_refused("faq: [{ask: a, answer: {fr: b}}]", "zh or en");
    expect_refused("faq: [{ask: {a: b}, answer: c}]", "list of texts");
    expect_refused("faq: [", "x.yaml");
    expect_refused("faq: [{ask: a, answer: b}]\nfaq: [{ask: c, answer: d}]", "twice");
}

static void test_load_missing_file_names_it(void **state)
{
    (void)state;
    struct sl_fail why = {0};
    assert_null(bot_faq_load("/nowhere/faq.yaml", 0, &why));
    assert_non_null(strstr(why.text, "/nowhere/faq.yaml"));
}

/* The demo file: what people write, in their own words, finds the entry; what it does not hold finds none. */
static void test_demo_file_finds_paraphrases(void **state)
{
    (void)state;
    struct sl_fail why = {0};
    struct bot_faq *f = bot_faq_load(SL_SOURCE_ROOT "/deploy/faq.yaml", 0, &why);
    if (f == NULL)
        fail_msg("%s", why.text);
    assert_int_equal(bot_faq_count(f), 20);
    static const char *const pairs[][2] = {
        {"请问怎么退货啊", "return"},
        {"退货", "return"},
        {"我买的衣服不喜欢，想退货", "return"},
        {"How can I return this item?", "return"},
        {"hello, I would like to know your opening hours please", "opening-hours"},
        {"你们周末营业吗？", "opening-hours"},
        {"退款什么时候到账", "refund"},
        {"where's my refund??", "refund"},
        {"请问运费是多少钱", "shipping-cost"},
        {"how much does shipping cost", "shipping-cost"},
        {"我的快递现在到哪里了", "tracking"},
        {"can you track my order", "tracking"},
        {"忘记了密码怎么办", "password"},
        {"forgot password", "password"},
        {"怎样开发票", "invoice"},
        {"我想取消订单", "cancel"},
        {"warranty", "warranty"},
        {"优惠券用不了", "coupon"},
        {"你好呀", "hello"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        expect(f, pairs[i][0], pairs[i][1]);
    static const char *const unknown[] = {"今天天气怎么样",
                                          "给我讲个笑话",
                                          "the quick brown fox jumps",
                                          "what is the meaning of life",
                                          "你叫什么名字",
                                          "asdfghjkl",
                                          "who won the football game yesterday",
                                          "帮我写一首诗"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        expect_unsure(f, unknown[i]);
    bot_faq_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answer_exact_ignores_case_width_and_signs),
        cmocka_unit_test(test_answer_in_the_language_of_the_question),
        cmocka_unit_test(test_answer_does_not_find_short_words_inside_long_ones),
        cmocka_unit_test(test_answer_handoff_words),
        cmocka_unit_test(test_answer_each_line_of_a_burst_once),
        cmocka_unit_test(test_answer_takes_anything),
        cmocka_unit_test(test_load_refuses_with_line_and_column),
        cmocka_unit_test(test_load_missing_file_names_it),
        cmocka_unit_test(test_demo_file_finds_paraphrases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
