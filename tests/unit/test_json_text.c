/* proto/json_text.c: the judge of JSON that takes no memory, held against jansson. */
#include "proto/proto_priv.h"

#include "base/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static struct sl_str S(const char *s) {
    return sl_str_c(s);
}

static const char *const good[] = {
    "{}",
    "[]",
    " { } ",
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-1.5e+9",
    "1E2",
    "\"\"",
    "\"\\u00e9\"",
    "[1,2]",
    "[[],{}]",
    "{\"a\":{\"b\":[1,{\"c\":null}]},\"d\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}",
    "\"\\ud83d\\ude00\"",
    "\t[\n1 , 2\r]\n",
    "999999999999999999",
};
static const char *const bad[] = {
    "",
    " ",
    "{",
    "}",
    "[",
    "]",
    "{]",
    "[}",
    "{\"a\"}",
    "{\"a\":}",
    "{\"a\":1,}",
    "[1,]",
    "[,1]",
    "[1 2]",
    "{,}",
    "{1:2}",
    "{\"a\":1 \"b\":2}",
    "nul",
    "nullx",
    "True",
    "01",
    "-",
    "1.",
    ".5",
    "1e",
    "1e+",
    "+1",
    "0x1",
    "1 2",
    "\"",
    "\"\\",
    "\"\\x\"",
    "\"\\u12\"",
    "\"\\u123g\"",
    "\"\n\"",
    "{}{}",
    "[1]]",
    "{\"a\":1}}",
    "'a'",
    "NaN",
    "Infinity",
    "\"a",
    "[\"a]",
    "{\"a:1}",
    "/**/1",
};
/* Well-formed, but a later reader would stumble. */
static const char *const too_much[] = {
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\\ud800x\"",
    "\"\\udc00\"",
    "\"\\ud800\\u0041\"",
    "9999999999999999999",
    "1e999",
    "1e100",
    "123456789012345678901234567890.123",
};

static void test_judges_like_the_parser(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        json_t *parsed = sl_json_parse(S(good[i]), NULL);
        if (parsed == NULL || !msg_json_ok(S(good[i]), 32))
            fail_msg("refused: %s", good[i]);
        json_decref(parsed);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        json_t *parsed = sl_json_parse(S(bad[i]), NULL);
        if (parsed != NULL || msg_json_ok(S(bad[i]), 32))
            fail_msg("taken: %s", bad[i]);
    }
}

static void test_refuses_what_a_later_reader_cannot_hold(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof too_much / sizeof too_much[0]; i++)
        if (msg_json_ok(S(too_much[i]), 32))
            fail_msg("taken: %s", too_much[i]);
}

static void test_counts_depth(void **state)
{
    (void)state;
    assert_true(msg_json_ok(S("1"), 0));
    assert_false(msg_json_ok(S("[]"), 0));
    assert_true(msg_json_ok(S("[[[]],{}]"), 3));
    assert_false(msg_json_ok(S("[[[]],{}]"), 2));
    char deep[201];
    memset(deep, '[', 100);
    memset(deep + 100, ']', 100);
    assert_true(msg_json_ok(sl_str_n(deep + 68, 64), 32));
    assert_false(msg_json_ok(sl_str_n(deep, 200), 1000));
}

static void member(const char *json, const char *want)
{
    struct sl_str value = SL_STR_NONE;
    bool found = msg_json_member(S(json), "d", &value);
    if (found != (want != NULL) || (found && !sl_str_eq_c(value, want)))
        fail_msg("%s gave %.*s", json, (int)value.len, value.ptr);
}

static void test_member_is_cut_out_at_the_top_level_only(void **state)
{
    (void)state;
    member("{\"d\":1}", "1");
    member(" { \"a\" : {\"d\":2} , \"d\" : [ 1, {\"d\":3} ] , \"e\":4}", "[ 1, {\"d\":3} ]");
    member("{\"d\":\"a\\\"}\"}", "\"a\\\"}\"");
    member("{\"d\":{}", "{}"); /* the rest is for the parser to judge */
    member("{\"a\":\"\\\"d\\\":1\"}", NULL);
    member("{\"a\":{\"d\":1}}", NULL);
    member("[\"d\",1]", NULL);
    member("{\"d\"", NULL);
    member("{\"d\":", NULL);
    member("{\"d\":[1}", NULL);
    member("{\"x\":tru,\"d\":1}", NULL);
    member("{}", NULL);
    member("", NULL);
}

static void test_every_cut_of_a_text_is_safe(void **state)
{
    (void)state;
    static const char text[] =
        "{\"a\":[1,-2.5e3,\"\\u00e9\\ud83d\\ude00\",true,false,null,{\"b\":{}}],\"d\":{\"x\":[]}}";
    struct sl_str value;
    for (size_t n = 0; n < sizeof text - 1; n++) {
        char *copy = sl_alloc(n + 1); /* its own block, so that a sanitizer sees one byte too many */
        memcpy(copy, text, n);
        char *tight = sl_realloc(copy, n > 0 ? n : 1);
        assert_false(msg_json_ok(sl_str_n(tight, n), 32));
        (void)msg_json_member(sl_str_n(tight, n), "zz", &value);
        free(tight);
    }
    assert_true(msg_json_ok(S(text), 32));
}

static void test_trace_has_one_form(void **state)
{
    (void)state;
    assert_true(msg_trace_ok(S("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")));
    assert_false(msg_trace_ok(S("00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")));
    assert_false(msg_trace_ok(S("00-4bf92f3577b34da6a3ce929d0e0e473600f067aa0ba902b7-01-")));
    assert_false(msg_trace_ok(S("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")));
    assert_false(msg_trace_ok(S("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0")));
    assert_false(msg_trace_ok(S("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_judges_like_the_parser),
        cmocka_unit_test(test_refuses_what_a_later_reader_cannot_hold),
        cmocka_unit_test(test_counts_depth),
        cmocka_unit_test(test_member_is_cut_out_at_the_top_level_only),
        cmocka_unit_test(test_every_cut_of_a_text_is_safe),
        cmocka_unit_test(test_trace_has_one_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
