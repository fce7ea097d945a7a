/* proto/message.c: the envelope's JSON form and its limits. */
#include "proto/message.h"

#include "tests/unit/golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct sl_str S(const char *s) {
    return sl_str_c(s);
}

static unsigned seen_kinds;

static void check_golden(const struct golden *g)
{
    struct msg m;
    struct sl_fail why;
    struct sl_buf out;
    struct sl_json j;
    json_t *hold;
    if (msg_read(g->text, &m, &hold, &why) != SL_OK)
        fail_msg("%s: %s", g->name, why.text);
    seen_kinds |= 1U << m.kind;
    sl_buf_init(&out, 0);
    sl_json_begin(&j, &out);
    msg_write(&j, NULL, &m);
    if (!sl_str_eq(sl_buf_view(&out), g->text))
        fail_msg("%s: came back as %.*s", g->name, (int)out.len, out.ptr);
    sl_buf_fini(&out);
    json_decref(hold);
}

static void test_every_kind_has_a_golden_file_that_comes_back_to_the_byte(void **state)
{
    (void)state;
    (void)golden_each("", "message.", check_golden);
    assert_int_equal(seen_kinds, (2U << MSG_NOTE) - 1);
}

static void check_bad(const struct golden *g)
{
    struct msg m;
    struct sl_fail why = {.text = ""};
    json_t *hold = NULL;
    sl_err err = msg_read(g->text, &m, &hold, &why);
    if (err != golden_refusal(g))
        fail_msg("%s: %s", g->name, sl_err_name(err));
    assert_null(hold);
    assert_int_not_equal(why.text[0], 0);
}

static void test_every_bad_file_is_refused(void **state)
{
    (void)state;
    assert_true(golden_each("bad/", "message.", check_bad) >= 20);
}

static struct msg plain(void)
{
    return (struct msg){.id = S("m-1"), .by = MSG_BY_BOT, .kind = MSG_TEXT, .text = S("hi")};
}

static void test_check_bounds_text_and_data_to_the_byte(void **state)
{
    (void)state;
    static char bytes[MSG_TEXT_MAX_BYTES + 1];
    memset(bytes, 'y', sizeof bytes);
    struct msg m = plain();
    m.text = sl_str_n(bytes, MSG_TEXT_MAX_BYTES);
    assert_int_equal(msg_check(&m, NULL), SL_OK);
    m.text.len++;
    assert_int_equal(msg_check(&m, NULL), SL_ETOOBIG);

    m = plain();
    memcpy(bytes, "{\"a\":\"", 6);
    memcpy(bytes + MSG_DATA_MAX_BYTES - 2, "\"}", 2);
    m.data = sl_str_n(bytes, MSG_DATA_MAX_BYTES);
    assert_int_equal(msg_check(&m, NULL), SL_OK);
    m.data.len++;
    assert_int_equal(msg_check(&m, NULL), SL_ETOOBIG);
}

static void test_check_refuses_bytes_that_are_not_text(void **state)
{
    (void)state;
    struct msg m = plain();
    m.text = S("a\xff");
    assert_int_equal(msg_check(&m, NULL), SL_EINVAL);
    m.text = sl_str_n("a\0b", 3);
    assert_int_equal(msg_check(&m, NULL), SL_EINVAL);
    m = plain();
    m.who = S("a\nb");
    assert_int_equal(msg_check(&m, NULL), SL_EINVAL);
    m = plain();
    m.data = S("{\"a\":\"\xff\"}");
    assert_int_equal(msg_check(&m, NULL), SL_EINVAL);
    m.data = S("[1]");
    assert_int_equal(msg_check(&m, NULL), SL_EINVAL);
    m.data = S("{\"a\":1,\"a\":2}");
    assert_int_equal(msg_check(&m, NULL), SL_EINVAL);
}

static void test_check_says_which_member_without_the_text(void **state)
{
    (void)state;
    struct msg m = plain();
    struct sl_fail why;
    m.tenant = S("s3cret/");
    assert_int_equal(msg_check(&m, &why), SL_EINVAL);
    assert_non_null(strstr(why.text, "tenant"));
    assert_null(strstr(why.text, "s3cret"));
}

static void test_check_refuses_enums_out_of_range(void **state)
{
    (void)state;
    struct msg m = plain();
    m.kind = (enum msg_kind)(MSG_NOTE + 1);
    assert_int_equal(msg_check(&m, NULL), SL_EINVAL);
    m = plain();
    m.by = (enum msg_author)(MSG_BY_SYSTEM + 1);
    assert_int_equal(msg_check(&m, NULL), SL_EINVAL);
}

static void test_read_gives_data_back_byte_for_byte(void **state)
{
    (void)state;
    struct msg m;
    json_t *hold;
    struct sl_str json = S("{\"id\":\"1\",\"by\":\"bot\",\"kind\":\"card\",\"data\": {\"a\": 1.10} }");
    assert_int_equal(msg_read(json, &m, &hold, NULL), SL_OK);
    assert_true(sl_str_eq_c(m.data, "{\"a\": 1.10}"));
    json_decref(hold);
}

static void test_words_go_both_ways(void **state)
{
    (void)state;
    enum msg_kind kind;
    enum msg_author by;
    for (int i = MSG_TEXT; i <= MSG_NOTE; i++) {
        assert_true(msg_kind_from(S(msg_kind_name((enum msg_kind)i)), &kind));
        assert_int_equal(kind, i);
    }
    for (int i = MSG_BY_VISITOR; i <= MSG_BY_SYSTEM; i++) {
        assert_true(msg_author_from(S(msg_author_name((enum msg_author)i)), &by));
        assert_int_equal(by, i);
    }
    assert_false(msg_kind_from(S("texts"), &kind));
    assert_false(msg_author_from(S(""), &by));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_has_a_golden_file_that_comes_back_to_the_byte),
        cmocka_unit_test(test_every_bad_file_is_refused),
        cmocka_unit_test(test_check_bounds_text_and_data_to_the_byte),
        cmocka_unit_test(test_check_refuses_bytes_that_are_not_text),
        cmocka_unit_test(test_check_says_which_member_without_the_text),
        cmocka_unit_test(test_check_refuses_enums_out_of_range),
        cmocka_unit_test(test_read_gives_data_back_byte_for_byte),
        cmocka_unit_test(test_words_go_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
