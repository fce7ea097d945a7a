/* The table of errors and failures with words. */
#include "base/error.h"

#include "unit.h"

static void test_err_every_row_has_name_text_and_status(void **state)
{
    (void)state;
    for (int e = SL_OK; e <= SL_EINTERNAL; e++) {
        assert_true(strlen(sl_err_name((sl_err)e)) > 0);
        assert_true(strlen(sl_err_text((sl_err)e)) > 0);
        assert_in_range(sl_err_http((sl_err)e), 200, 599);
    }
    assert_string_equal(sl_err_name(SL_EGAP), "EGAP");
    assert_int_equal(sl_err_http(SL_ERATE), 429);
    assert_true(sl_err_retry(SL_EAGAIN));
    assert_false(sl_err_retry(SL_EINVAL));
}

static void test_err_unknown_number_is_a_fault_of_ours(void **state)
{
    (void)state;
    assert_string_equal(sl_err_name((sl_err)9999), "EINTERNAL");
}

static void test_fail_set_fills_and_returns(void **state)
{
    (void)state;
    struct sl_fail why = {SL_OK, 0, ""};
    assert_int_equal(sl_fail_set(&why, SL_EUPSTREAM, 401, "inbox %s: %d", "cn-1", 7), SL_EUPSTREAM);
    assert_int_equal(why.code, SL_EUPSTREAM);
    assert_int_equal(why.sys, 401);
    assert_string_equal(why.text, "inbox cn-1: 7");
    assert_int_equal(sl_fail_set(NULL, SL_EINVAL, 0, "nobody listens"), SL_EINVAL);
}

static void test_fail_set_may_wrap_its_own_text_and_cuts(void **state)
{
    (void)state;
    struct sl_fail why = {SL_OK, 0, "inner"};
    (void)sl_fail_set(&why, SL_EINVAL, 0, "outer: %s", why.text);
    assert_string_equal(why.text, "outer: inner");
    char longer[1000];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    (void)sl_fail_set(&why, SL_EINVAL, 0, "%s", longer);
    assert_int_equal(strlen(why.text), sizeof why.text - 1);
}

static void test_alloc_is_zeroed_also_for_nothing(void **state)
{
    (void)state;
    char *p = sl_alloc(0);
    assert_non_null(p);
    p = sl_realloc(p, 8);
    free(p);
    unsigned char *q = sl_alloc(64);
    for (size_t i = 0; i < 64; i++)
        assert_int_equal(q[i], 0);
    free(q);
    char *s = sl_strdup("abc");
    assert_string_equal(s, "abc");
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_err_every_row_has_name_text_and_status),
        cmocka_unit_test(test_err_unknown_number_is_a_fault_of_ours),
        cmocka_unit_test(test_fail_set_fills_and_returns),
        cmocka_unit_test(test_fail_set_may_wrap_its_own_text_and_cuts),
        cmocka_unit_test(test_alloc_is_zeroed_also_for_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
