/* proto/event.c: both forms of an event, and what is refused. */
#include "proto/event.h"

#include "tests/unit/golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct sl_str S(const char *s) {
    return sl_str_c(s);
}

#define assert_str(got, want)                                                                                \
    do {                                                                                                     \
        struct sl_str got_ = (got);                                                                          \
        assert_int_equal(got_.len, strlen(want));                                                            \
        assert_memory_equal(got_.ptr, (want), got_.len);                                                     \
    } while (0)

static struct sl_str
to_json(const struct event *ev, struct sl_buf *buf)
{
    struct sl_json j;
    sl_buf_init(buf, 0);
    sl_json_begin(&j, buf);
    event_to_json(ev, &j, NULL);
    return sl_buf_view(buf);
}

static sl_err from_fields(struct event *ev, size_t count, const char *const *words)
{
    struct sl_str items[80];
    for (size_t i = 0; i < count; i++)
        items[i] = S(words[i]);
    struct sl_fail why = {.text = ""};
    sl_err err = event_from_fields(items, count, ev, &why);
    assert_true(err == SL_OK || why.text[0] != '\0');
    return err;
}
#define FIELDS(ev, ...)                                                                                      \
    from_fields((ev), sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *), (const char *[]){__VA_ARGS__})

static unsigned long long seen_types;

static void check_golden(const struct golden *g)
{
    struct event ev, again;
    struct event_fields fields;
    struct sl_buf out;
    struct sl_fail why;
    json_t *hold;
    if (event_from_json(g->text, &ev, &hold, &why) != SL_OK)
        fail_msg("%s: %s", g->name, why.text);
    seen_types |= 1ULL << ev.type;
    event_to_fields(&ev, &fields);
    assert_int_equal(event_from_fields(fields.item, fields.count, &again, &why), SL_OK);
    struct sl_str json = to_json(&again, &out);
    if (!sl_str_eq(json, g->text))
        fail_msg("%s: came back as %.*s", g->name, (int)json.len, json.ptr);
    sl_buf_fini(&out);
    json_decref(hold);
}

static void test_every_type_has_a_golden_file_that_comes_back_to_the_byte(void **state)
{
    (void)state;
    assert_true(golden_each("", "event.", check_golden) >= EVENT_TYPE_COUNT - 1);
    for (int t = EVENT_NONE + 1; t < EVENT_TYPE_COUNT; t++)
        if ((seen_types >> t & 1) == 0)
            fail_msg("no golden file of type %s", event_type_name((enum event_type)t));
}

static void check_bad(const struct golden *g)
{
    struct event ev;
    struct sl_fail why = {.text = ""};
    json_t *hold = NULL;
    if (event_from_json(g->text, &ev, &hold, &why) != SL_EINVAL)
        fail_msg("%s was taken", g->name);
    assert_null(hold);
    assert_int_not_equal(why.text[0], 0);
}

static void test_every_bad_file_is_refused(void **state)
{
    (void)state;
    assert_true(golden_each("bad/", "event.", check_bad) >= 15);
}

static void test_every_field_is_found_by_its_name(void **state)
{
    (void)state;
    struct event ev;
#define CHECK_S(member, word)                                                                                \
    assert_int_equal(FIELDS(&ev, "t", "task", word, "1"), SL_OK);                                            \
    assert_str(ev.member, "1");
#define CHECK_I(member, word)                                                                                \
    assert_int_equal(FIELDS(&ev, "t", "task", word, "-7"), SL_OK);                                           \
    assert_int_equal(ev.member, -7);
#define X(member, word, form) CHECK_##form(member, word)
    EVENT_FIELDS(X)
#undef X
}

static void test_type_names_go_both_ways(void **state)
{
    (void)state;
    enum event_type t = EVENT_NONE;
    for (int i = EVENT_NONE + 1; i < EVENT_TYPE_COUNT; i++) {
        assert_true(event_type_from(S(event_type_name((enum event_type)i)), &t));
        assert_int_equal(t, i);
    }
    assert_false(event_type_from(S(""), &t));
    assert_false(event_type_from(S("tas"), &t));
}

static void test_from_fields_ignores_unknown_names(void **state)
{
    (void)state;
    struct event ev;
    assert_int_equal(FIELDS(&ev, "zz", "\xff", "t", "task", "", "x", "later", "y", "c", "1"), SL_OK);
    assert_int_equal(ev.type, EVENT_TASK);
    assert_str(ev.conv, "1");
}

static void test_from_fields_refuses_what_is_malformed(void **state)
{
    (void)state;
    struct event ev = {.type = EVENT_DEAD};
    assert_int_equal(event_from_fields(NULL, 0, &ev, NULL), SL_EINVAL);
    assert_int_equal(FIELDS(&ev, "t"), SL_EINVAL);
    assert_int_equal(FIELDS(&ev, "t", "task", "c"), SL_EINVAL);
    assert_int_equal(FIELDS(&ev, "c", "1"), SL_EINVAL);
    assert_int_equal(FIELDS(&ev, "t", "nothing"), SL_EINVAL);
    assert_int_equal(FIELDS(&ev, "t", ""), SL_EINVAL);
    assert_int_equal(FIELDS(&ev, "t", "task", "t", "task"), SL_EINVAL);
    assert_int_equal(FIELDS(&ev, "t", "task", "c", "1", "c", "1"), SL_EINVAL);
    assert_int_equal(FIELDS(&ev, "t", "task", "c", "", "c", ""), SL_EINVAL);
    assert_int_equal(FIELDS(&ev, "t", "task", "n", ""), SL_EINVAL);
    assert_int_equal(FIELDS(&ev, "t", "task", "n", "1x"), SL_EINVAL);
    assert_int_equal(FIELDS(&ev, "t", "task", "n", "9223372036854775808"), SL_EINVAL);
    assert_int_equal(FIELDS(&ev, "t", "task", "x", "\xc3\x28"), SL_EINVAL);
    assert_int_equal(FIELDS(&ev, "t", "task", "d", "{\"a\":}"), SL_EINVAL);
    assert_int_equal(FIELDS(&ev, "t", "task", "d", "{},\"t\":\"dead\""), SL_EINVAL);
    assert_int_equal(ev.type, EVENT_DEAD); /* untouched on failure */
}

static void test_from_fields_bounds_every_field(void **state)
{
    (void)state;
    static char long_text[EVENT_DATA_MAX_BYTES + 1];
    memset(long_text, 'y', sizeof long_text);
    long_text[0] = '"';
    struct event ev;
    struct sl_str items[] = {S("t"), S("task"), S("x"), sl_str_n(long_text, EVENT_TEXT_MAX_BYTES)};
    assert_int_equal(event_from_fields(items, 4, &ev, NULL), SL_OK);
    items[3].len++;
    assert_int_equal(event_from_fields(items, 4, &ev, NULL), SL_EINVAL);
    items[2] = S("d");
    items[3].len = EVENT_DATA_MAX_BYTES;
    long_text[EVENT_DATA_MAX_BYTES - 1] = '"';
    assert_int_equal(event_from_fields(items, 4, &ev, NULL), SL_OK);
    long_text[EVENT_DATA_MAX_BYTES - 1] = 'y', long_text[EVENT_DATA_MAX_BYTES] = '"';
    items[3].len++;
    assert_int_equal(event_from_fields(items, 4, &ev, NULL), SL_EINVAL);
}

static void test_from_fields_takes_data_without_the_blanks_around_it(void **state)
{
    (void)state;
    struct event ev;
    assert_int_equal(FIELDS(&ev, "t", "rules", "d", " {\"a\": 1}\n"), SL_OK);
    assert_str(ev.data, "{\"a\": 1}");
}

static void test_to_fields_leaves_out_what_is_absent(void **state)
{
    (void)state;
    struct event ev = {.type = EVENT_TURN, .conv = S("c"), .turn = INT64_MIN, .control = INT64_MAX};
    struct event_fields fields;
    event_to_fields(&ev, &fields);
    assert_int_equal(fields.count, 8);
    const char *want[] = {"t", "turn", "c", "c", "ce", "9223372036854775807", "tn", "-9223372036854775808"};
    for (size_t i = 0; i < 8; i++)
        assert_str(fields.item[i], want[i]);
}

static void test_to_fields_has_room_for_every_field(void **state)
{
    (void)state;
    struct event ev = {.type = EVENT_TASK};
    struct event_fields fields;
#define SET_S                 S("1")
#define SET_I                 1
#define X(member, word, form) ev.member = SET_##form;
    EVENT_FIELDS(X)
#undef X
    event_to_fields(&ev, &fields);
    assert_int_equal(fields.count, EVENT_FIELD_COUNT * 2);
}

static void test_from_json_gives_data_back_byte_for_byte(void **state)
{
    (void)state;
    struct event ev;
    json_t *hold;
    struct sl_str json =
        S("{ \"t\":\"rules\", \"d\" : {\"b\": 1.10, \"a\":[ 1e2,\"\\u00e9\"]} , \"h\":\"x\"}");
    assert_int_equal(event_from_json(json, &ev, &hold, NULL), SL_OK);
    assert_str(ev.data, "{\"b\": 1.10, \"a\":[ 1e2,\"\\u00e9\"]}");
    assert_str(ev.hash, "x");
    json_decref(hold);
}

static void test_from_json_says_which_member_without_the_text(void **state)
{
    (void)state;
    struct event ev;
    struct sl_fail why;
    json_t *hold;
    assert_int_equal(event_from_json(S("{\"t\":\"task\",\"n\":\"s3cret\"}"), &ev, &hold, &why), SL_EINVAL);
    assert_non_null(strstr(why.text, "\"n\""));
    assert_null(strstr(why.text, "s3cret"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type_has_a_golden_file_that_comes_back_to_the_byte),
        cmocka_unit_test(test_every_bad_file_is_refused),
        cmocka_unit_test(test_every_field_is_found_by_its_name),
        cmocka_unit_test(test_type_names_go_both_ways),
        cmocka_unit_test(test_from_fields_ignores_unknown_names),
        cmocka_unit_test(test_from_fields_refuses_what_is_malformed),
        cmocka_unit_test(test_from_fields_bounds_every_field),
        cmocka_unit_test(test_from_fields_takes_data_without_the_blanks_around_it),
        cmocka_unit_test(test_to_fields_leaves_out_what_is_absent),
        cmocka_unit_test(test_to_fields_has_room_for_every_field),
        cmocka_unit_test(test_from_json_gives_data_back_byte_for_byte),
        cmocka_unit_test(test_from_json_says_which_member_without_the_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
