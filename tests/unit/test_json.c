/* The writer's bytes, and what the guarded parse refuses. */
#include "base/json.h"

#include "unit.h"

static void test_writer_places_commas_and_keys(void **state)
{
    (void)state;
    struct sl_buf b = {0};
    struct sl_json j;
    sl_json_begin(&j, &b);
    sl_json_open(&j, NULL, '{');
    sl_json_c(&j, "a", "x");
    sl_json_open(&j, "empty", '{');
    sl_json_close(&j, '}');
    sl_json_open(&j, "list", '[');
    sl_json_int(&j, NULL, INT64_MIN);
    sl_json_bool(&j, NULL, true);
    sl_json_open(&j, NULL, '[');
    sl_json_close(&j, ']');
    sl_json_raw(&j, NULL, SL_STR("{\"k\":1}"));
    sl_json_close(&j, ']');
    sl_json_raw(&j, "none", SL_STR_NONE);
    sl_json_str(&j, "q\"", SL_STR_NONE);
    sl_json_close(&j, '}');
    assert_bytes(b, "{\"a\":\"x\",\"empty\":{},\"list\":[-9223372036854775808,true,[],{\"k\":1}],\"none\":"
                    "null,\"q\\\"\":\"\"}");
    sl_buf_fini(&b);
}

/* Every byte below 0x80 at every place of a word, read back by jansson. */
static void test_escape_round_trips_each_byte_at_each_place(void **state)
{
    (void)state;
    struct sl_buf b = {0};
    for (int c = 1; c < 0x80; c++) {
        for (size_t at = 0; at < 20; at++) {
            char text[20];
            memset(text, 'x', sizeof text);
            text[at] = (char)c;
            sl_buf_clear(&b);
            sl_json_escape(&b, sl_str_n(text, sizeof text));
            struct sl_fail why;
            json_t *v = sl_json_parse(sl_buf_view(&b), &why);
            assert_non_null(v);
            assert_int_equal(json_string_length(v), sizeof text);
            assert_memory_equal(json_string_value(v), text, sizeof text);
            json_decref(v);
        }
    }
    sl_buf_fini(&b);
}

static void test_escape_spelling_is_fixed(void **state)
{
    (void)state;
    struct sl_buf b = {0};
    sl_json_escape(&b, SL_STR("\b\f\n\r\t\x01\x1f\x7f\"\\/\xe4\xbd\xa0\xf0\x9f\x98\x80"));
    assert_bytes(b, "\"\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\\\"\\\\/\xe4\xbd\xa0\xf0\x9f\x98\x80\"");
    sl_buf_clear(&b);
    sl_json_escape(&b, sl_str_n("a\0b", 3)); /* a coder's fault, yet the line stays whole */
    assert_bytes(b, "\"a\\u0000b\"");
    sl_buf_fini(&b);
}

static void refuse(struct sl_str text, const char *words)
{
    struct sl_fail why = {SL_OK, 0, ""};
    json_t *v = sl_json_parse(text, &why);
    assert_null(v);
    assert_int_equal(why.code, SL_EINVAL);
    assert_contains(why.text, "line ");
    assert_contains(why.text, " column ");
    assert_contains(why.text, words);
    assert_lacks(why.text, "SECRET"); /* the text itself is never told */
}

static void test_parse_refuses_what_is_not_json(void **state)
{
    (void)state;
    refuse(SL_STR_NONE, "ends too early");
    refuse(sl_str_n(NULL, 0), "ends too early");
    refuse(SL_STR("{\"SECRET\":"), "ends too early");
    refuse(SL_STR("\"SECRET"), "ends too early");
    refuse(SL_STR("\"SECRET\\"), "");
    refuse(SL_STR("{\"SECRET\" 1}"), "not JSON");
    refuse(SL_STR("SECRET"), "not JSON");
    refuse(SL_STR("[1,]"), "not JSON");
    refuse(SL_STR("[1}"), "not JSON");
    refuse(SL_STR("]]]]"), "not JSON");
    refuse(SL_STR("{\"a\":1} SECRET"), "something follows");
    refuse(SL_STR("{}{}"), "something follows");
    refuse(SL_STR("99999999999999999999"), "a number too large");
    refuse(SL_STR("1e999"), "a number too large");
    refuse(SL_STR("\xef\xbb\xbf{}"), "not JSON");
    refuse(SL_STR("\"\xff\""), "not valid UTF-8");
    refuse(SL_STR("\"\xed\xa0\x80\""), "not valid UTF-8");
    refuse(SL_STR("\"\\ud800\""), "not JSON");
    refuse(SL_STR("\"a\nb\""), "not JSON");
}

static void test_parse_refuses_duplicates_and_nul(void **state)
{
    (void)state;
    refuse(SL_STR("{\"SECRET\":1,\n \"SECRET\":2}"), "the same key twice");
    refuse(SL_STR("{\"a\":{\"SECRET\":1,\"SEC\\u0052ET\":2}}"), "the same key twice");
    refuse(SL_STR("\"a\\u0000b\""), "a NUL");
    refuse(SL_STR("{\"a\\u0000b\":1}"), "a NUL");
    refuse(sl_str_n("\"a\0b\"", 5), "");
    refuse(sl_str_n("{}\0", 3), "");
}

static void test_parse_tells_the_place(void **state)
{
    (void)state;
    struct sl_fail why;
    assert_null(sl_json_parse(SL_STR("{\n  \"a\": nope\n}"), &why));
    assert_contains(why.text, "line 2 column 11");
    assert_null(sl_json_parse(SL_STR("[\n[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["), &why));
    assert_string_equal(why.text, "line 2 column 32: nested deeper than 32");
}

static void nest(struct sl_buf *b, size_t depth, const char *open, const char *inner, char close)
{
    sl_buf_clear(b);
    for (size_t i = 0; i < depth; i++)
        sl_buf_c(b, open);
    sl_buf_c(b, inner);
    for (size_t i = 0; i < depth; i++)
        sl_buf_char(b, close);
}

static void test_parse_bounds_depth(void **state)
{
    (void)state;
    struct sl_buf b;
    sl_buf_init(&b, 0);
    nest(&b, SL_JSON_DEPTH_MAX, "[", "", ']');
    json_t *v = sl_json_parse(sl_buf_view(&b), NULL);
    assert_non_null(v);
    json_decref(v);
    nest(&b, SL_JSON_DEPTH_MAX + 1, "[", "", ']');
    refuse(sl_buf_view(&b), "nested deeper than 32");
    nest(&b, SL_JSON_DEPTH_MAX + 1, "{\"a\":", "1", '}');
    refuse(sl_buf_view(&b), "nested deeper than 32");
    nest(&b, 1000000, "[", "", ']'); /* would overrun the stack of a parser that recurses */
    refuse(sl_buf_view(&b), "nested deeper than 32");
    v = sl_json_parse(SL_STR("\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[ \\\" [[[[\""),
                      NULL); /* in a string they are text */
    assert_non_null(v);
    json_decref(v);
    sl_buf_fini(&b);
}

static json_t *parse_list_of(size_t values, const char *value, struct sl_fail *why)
{
    struct sl_buf b;
    sl_buf_init(&b, 0);
    sl_buf_char(&b, '[');
    for (size_t i = 0; i < values; i++) {
        sl_buf_c(&b, i > 0 ? " , " : "");
        sl_buf_c(&b, value);
    }
    sl_buf_char(&b, ']');
    json_t *v = sl_json_parse(sl_buf_view(&b), why);
    sl_buf_fini(&b);
    return v;
}

static void test_parse_counts_values_exactly(void **state)
{
    (void)state;
    struct sl_fail why = {SL_OK, 0, ""};
    static const char *const values[] = {"1", "[]", "{ }", "\"a,b\""};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        json_t *v = parse_list_of(SL_JSON_VALUES_MAX - 1, values[i], &why); /* the list is a value as well */
        assert_non_null(v);
        json_decref(v);
        assert_null(parse_list_of(SL_JSON_VALUES_MAX, values[i], &why));
        assert_contains(why.text, "more than 10000 values");
    }
    assert_null(parse_list_of(SL_JSON_VALUES_MAX / 2, "[1]", &why)); /* two each, and the list */
}

static void test_parse_takes_a_value_alone(void **state)
{
    (void)state;
    static const char *const good[] = {" 1 ", "null", "\"\"", "[]", "{}", "-0", "1.5e3"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        json_t *v = sl_json_parse(sl_str_c(good[i]), NULL);
        assert_non_null(v);
        json_decref(v);
    }
}

static void test_get_gives_the_default_for_another_type(void **state)
{
    (void)state;
    json_t *v = sl_json_parse(SL_STR("{\"s\":\"x\",\"i\":-3,\"b\":false,\"r\":1.5,\"n\":null}"), NULL);
    assert_bytes(sl_json_get_str(v, "s"), "x");
    assert_int_equal(sl_json_get_str(v, "i").len, 0);
    assert_int_equal(sl_json_get_str(v, "absent").len, 0);
    assert_int_equal(sl_json_get_int(v, "i", 9), -3);
    assert_int_equal(sl_json_get_int(v, "r", 9), 9);
    assert_int_equal(sl_json_get_int(v, "s", 9), 9);
    assert_false(sl_json_get_bool(v, "b", true));
    assert_true(sl_json_get_bool(v, "n", true));
    json_decref(v);
    json_t *list = sl_json_parse(SL_STR("[1]"), NULL); /* not an object at all */
    assert_int_equal(sl_json_get_int(list, "i", 9), 9);
    assert_int_equal(sl_json_get_str(NULL, "i").len, 0);
    json_decref(list);
}

static void test_dump_keeps_order_and_bytes(void **state)
{
    (void)state;
    const char *text = "{\"z\":1,\"a\":[true,false,null,-7,\"q\\\"\\n\",{}],\"m\":{\"y\":[],\"b\":1.5}}";
    json_t *v = sl_json_parse(sl_str_c(text), NULL);
    struct sl_buf b = {0};
    sl_json_dump(&b, v);
    assert_bytes(b, text);
    sl_buf_clear(&b);
    sl_json_dump(&b, NULL);
    assert_bytes(b, "null");
    sl_buf_fini(&b);
    json_decref(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writer_places_commas_and_keys),
        cmocka_unit_test(test_escape_round_trips_each_byte_at_each_place),
        cmocka_unit_test(test_escape_spelling_is_fixed),
        cmocka_unit_test(test_parse_refuses_what_is_not_json),
        cmocka_unit_test(test_parse_refuses_duplicates_and_nul),
        cmocka_unit_test(test_parse_tells_the_place),
        cmocka_unit_test(test_parse_bounds_depth),
        cmocka_unit_test(test_parse_counts_values_exactly),
        cmocka_unit_test(test_parse_takes_a_value_alone),
        cmocka_unit_test(test_get_gives_the_default_for_another_type),
        cmocka_unit_test(test_dump_keeps_order_and_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
