/* ULIDs: known vectors, sorting, derivation. */
#include "base/ulid.h"

#include "unit.h"

static void test_ulid_make_known_vectors(void **state)
{
    (void)state;
    char u[SL_ULID_LEN + 1];
    const unsigned char zero[10] = {0}, counting[10] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    unsigned char ones[10];
    memset(ones, 0xff, sizeof ones);
    sl_ulid_make(u, 1469918176385, zero); /* the time of the example in the specification: 01ARYZ6S41 */
    assert_string_equal(u, "01ARYZ6S410000000000000000");
    sl_ulid_make(u, 1469918176385, counting);
    assert_string_equal(u, "01ARYZ6S41041061050R3GG28A");
    sl_ulid_make(u, 281474976710655, ones); /* the largest the specification allows */
    assert_string_equal(u, "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
    assert_true(sl_ulid_valid(sl_str_c(u)));
    sl_ulid_make(u, -5, zero);
    assert_string_equal(u, "00000000000000000000000000");
}

static void test_ulid_sorts_by_time(void **state)
{
    (void)state;
    char a[SL_ULID_LEN + 1], b[SL_ULID_LEN + 1];
    for (int64_t ms = 1700000000000; ms < 1700000001000; ms++) {
        sl_ulid_new(a, ms);
        sl_ulid_new(b, ms + 1);
        assert_true(strcmp(a, b) < 0);
        assert_true(sl_ulid_valid(sl_str_c(a)));
    }
    sl_ulid_new(b, 1700000000999);
    assert_string_not_equal(a, b);
}

static void test_ulid_derive_is_pinned_and_tells_all_inputs_apart(void **state)
{
    (void)state;
    char a[SL_ULID_LEN + 1], b[SL_ULID_LEN + 1];
    sl_ulid_derive(a, 1700000000000, 7, 3, 99);
    assert_string_equal(a, "01HF7YAT00SD4BEDYZCD4R6JBW");
    sl_ulid_derive(b, 1700000000000, 8, 3, 99);
    assert_string_not_equal(a, b);
    sl_ulid_derive(b, 1700000000000, 7, 4, 99);
    assert_string_not_equal(a, b);
    sl_ulid_derive(b, 1700000000000, 7, 3, 98);
    assert_string_not_equal(a, b);
    sl_ulid_derive(b, 1700000000000, 7, 3, ~99ULL); /* the second half must not mirror the first */
    assert_string_not_equal(a, b);
}

static void test_ulid_valid_is_strict(void **state)
{
    (void)state;
    assert_true(sl_ulid_valid(SL_STR("01ARZ3NDEKTSV4RRFFQ69G5FAV")));
    assert_false(sl_ulid_valid(SL_STR_NONE));
    assert_false(sl_ulid_valid(SL_STR("01ARZ3NDEKTSV4RRFFQ69G5FA")));
    assert_false(sl_ulid_valid(SL_STR("01ARZ3NDEKTSV4RRFFQ69G5FAVX")));
    assert_false(sl_ulid_valid(SL_STR("81ARZ3NDEKTSV4RRFFQ69G5FAV"))); /* passes 128 bits */
    assert_false(sl_ulid_valid(SL_STR("01arz3ndektsv4rrffq69g5fav"))); /* one spelling only */
    assert_false(sl_ulid_valid(SL_STR("01ARZ3NDEKTSV4RRFFQ69G5FAI")));
    assert_false(sl_ulid_valid(SL_STR("01ARZ3NDEKTSV4RRFFQ69G5FAU")));
    assert_false(sl_ulid_valid(sl_str_n("01ARZ3NDEKTSV4RRFFQ69G5FA\0", 26)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ulid_make_known_vectors),
        cmocka_unit_test(test_ulid_sorts_by_time),
        cmocka_unit_test(test_ulid_derive_is_pinned_and_tells_all_inputs_apart),
        cmocka_unit_test(test_ulid_valid_is_strict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
