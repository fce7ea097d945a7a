/* Slices, numbers, UTF-8, the stored hash, and buffers at their maximum. */
#include "base/str.h"

#include "unit.h"

static void test_str_compares_bytes_not_text(void **state)
{
    (void)state;
    assert_true(sl_str_eq(sl_str_n("a\0b", 3), sl_str_n("a\0b", 3)));
    assert_false(sl_str_eq(sl_str_n("a\0b", 3), sl_str_n("a\0c", 3)));
    assert_false(sl_str_eq_c(sl_str_n("ab", 2), "abc"));
    assert_true(sl_str_eq(SL_STR_NONE, sl_str_n(NULL, 0)));
    assert_true(sl_str_starts(SL_STR("in:{1}"), "in:"));
    assert_false(sl_str_starts(SL_STR("in"), "in:"));
    assert_true(sl_str_starts(SL_STR_NONE, ""));
}

static void test_str_find_leaves_at_alone_when_absent(void **state)
{
    (void)state;
    size_t at = 77;
    assert_false(sl_str_find(SL_STR("haystack"), SL_STR("needle"), &at));
    assert_false(sl_str_find(SL_STR("nee"), SL_STR("needle"), &at));
    assert_int_equal(at, 77);
    assert_true(sl_str_find(SL_STR("haystack"), SL_STR("stack"), &at));
    assert_int_equal(at, 3);
    assert_true(sl_str_find(sl_str_n("a\0b", 3), sl_str_n("\0b", 2), &at));
    assert_int_equal(at, 1);
    assert_true(sl_str_find(SL_STR("x"), SL_STR_NONE, &at));
    assert_int_equal(at, 0);
}

static bool utf8(const char *bytes, size_t n)
{
    /* Once alone and once behind and before plain text, so that both the quick and the careful path see it.
     */
    char padded[64] = "0123456789abcdef";
    memcpy(padded + 16, bytes, n);
    memcpy(padded + 16 + n, "0123456789abcdef", 16);
    bool is_valid = sl_str_utf8(sl_str_n(bytes, n));
    assert_int_equal(sl_str_utf8(sl_str_n(padded, n + 32)), is_valid);
    return is_valid;
}
#define UTF8(lit) utf8("" lit, sizeof(lit) - 1)

static void test_str_utf8_follows_rfc_3629(void **state)
{
    (void)state;
    assert_true(UTF8(""));
    assert_true(UTF8("plain"));
    assert_true(UTF8("\x7f"));
    assert_true(UTF8("\xc2\x80"));
    assert_true(UTF8("\xdf\xbf"));
    assert_true(UTF8("\xe0\xa0\x80"));
    assert_true(UTF8("\xed\x9f\xbf"));
    assert_true(UTF8("\xef\xbf\xbf"));
    assert_true(UTF8("\xf0\x90\x80\x80"));
    assert_true(UTF8("\xf4\x8f\xbf\xbf"));
    assert_false(UTF8("\x80"));             /* continuation alone */
    assert_false(UTF8("\xc0\xaf"));         /* overlong '/' */
    assert_false(UTF8("\xc1\xbf"));         /* overlong */
    assert_false(UTF8("\xe0\x9f\xbf"));     /* overlong */
    assert_false(UTF8("\xf0\x8f\xbf\xbf")); /* overlong */
    assert_false(UTF8("\xed\xa0\x80"));     /* surrogate */
    assert_false(UTF8("\xf4\x90\x80\x80")); /* above U+10FFFF */
    assert_false(UTF8("\xf5\x80\x80\x80"));
    assert_false(UTF8("\xff"));
    assert_false(UTF8("\xe4\xbd")); /* cut short */
    assert_false(UTF8("\xe4\x41\x41"));
    assert_false(UTF8("\0")); /* NUL is not text here */
    assert_false(UTF8("abcdefg\0abcdefgh"));
}

static void test_str_int_takes_the_whole_range_and_nothing_else(void **state)
{
    (void)state;
    int64_t i = 5;
    assert_int_equal(sl_str_int(SL_STR("9223372036854775807"), &i), SL_OK);
    assert_true(i == INT64_MAX);
    assert_int_equal(sl_str_int(SL_STR("-9223372036854775808"), &i), SL_OK);
    assert_true(i == INT64_MIN);
    i = 5;
    static const char *const bad[] = {"",
                                      "-",
                                      "+1",
                                      " 1",
                                      "1 ",
                                      "1a",
                                      "0x1",
                                      "--1",
                                      "1.0",
                                      "9223372036854775808",
                                      "-9223372036854775809",
                                      "99999999999999999999999"};
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++)
        assert_int_equal(sl_str_int(sl_str_c(bad[k]), &i), SL_EINVAL);
    assert_int_equal(i, 5);
    uint64_t u = 6;
    assert_int_equal(sl_str_uint(SL_STR("18446744073709551615"), &u), SL_OK);
    assert_true(u == UINT64_MAX);
    u = 6;
    assert_int_equal(sl_str_uint(SL_STR("18446744073709551616"), &u), SL_EINVAL);
    assert_int_equal(sl_str_uint(SL_STR("-0"), &u), SL_EINVAL);
    assert_int_equal(u, 6);
}

/* Computed with another implementation of SipHash-1-3. These values name partitions: they may never change.
 */
static void test_str_hash_is_pinned(void **state)
{
    (void)state;
    const unsigned char fifteen[15] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
    assert_true(sl_str_hash(SL_STR_NONE, 0) == 0xf9cb2d4ff582ca0aULL);
    assert_true(sl_str_hash(SL_STR("a"), 0) == 0x1218ae8683cb740cULL);
    assert_true(sl_str_hash(SL_STR("acme/web/+4915112345678"), 0) == 0x6aa27b89a312ce29ULL);
    assert_true(sl_str_hash(SL_STR("12345678"), 42) == 0x59ba000fa53d631cULL);
    assert_true(sl_str_hash(sl_str_n((const char *)fifteen, 15), UINT64_MAX) == 0x6e0b443d02399c10ULL);
}

static void test_buf_grows_and_writes_numbers(void **state)
{
    (void)state;
    struct sl_buf b;
    sl_buf_init(&b, 0);
    sl_buf_int(&b, INT64_MIN);
    sl_buf_char(&b, ' ');
    sl_buf_int(&b, 0);
    sl_buf_char(&b, ' ');
    sl_buf_uint(&b, UINT64_MAX);
    assert_bytes(b, "-9223372036854775808 0 18446744073709551615");
    sl_buf_clear(&b);
    for (int i = 0; i < 10000; i++)
        sl_buf_printf(&b, "%04d", i);
    assert_int_equal(b.len, 40000);
    assert_memory_equal(b.ptr + 39996, "9999", 4);
    assert_false(b.overflow);
    sl_buf_fini(&b);
    assert_null(b.ptr);
    sl_buf_c(&b, "again");
    assert_bytes(b, "again");
    sl_buf_fini(&b);
}

/* Beyond half of the maximum, too: a mail of 20 MB comes in thousands of pieces. */
static void test_buf_grows_in_few_steps(void **state)
{
    (void)state;
    struct sl_buf b;
    unsigned steps = 0;
    sl_buf_init(&b, 1000000);
    for (size_t i = 0; i < 1000000; i++) {
        size_t cap = b.cap;
        sl_buf_char(&b, 'x');
        steps += b.cap != cap;
    }
    assert_false(b.overflow);
    assert_int_equal(b.len, 1000000);
    assert_true(steps < 20);
    sl_buf_fini(&b);
}

static void test_buf_stops_at_its_maximum_and_says_so(void **state)
{
    (void)state;
    struct sl_buf b;
    sl_buf_init(&b, 100);
    char block[101];
    memset(block, 'x', sizeof block);
    sl_buf_add(&b, block, 100); /* the maximum itself fits */
    assert_int_equal(b.len, 100);
    assert_false(b.overflow);
    sl_buf_char(&b, 'y');
    assert_true(b.overflow);
    assert_int_equal(b.len, 100);
    sl_buf_clear(&b);
    sl_buf_add(&b, block, 101);
    assert_true(b.overflow);
    assert_int_equal(b.len, 0);
    sl_buf_char(&b, 'z'); /* nothing is written behind a gap */
    sl_buf_printf(&b, "%d", 1);
    sl_buf_int(&b, 1);
    assert_int_equal(b.len, 0);
    sl_buf_clear(&b);
    sl_buf_printf(&b, "%s", "0123456789");
    assert_bytes(b, "0123456789");
    sl_buf_fini(&b);
}

static void test_buf_refuses_a_length_that_wraps(void **state)
{
    (void)state;
    static const size_t maxima[] = {10, SIZE_MAX - 1};
    for (size_t i = 0; i < 2; i++) {
        struct sl_buf b;
        sl_buf_init(&b, maxima[i]);
        sl_buf_char(&b, 'a');
        sl_buf_add(&b, "b", SIZE_MAX); /* never read: it cannot fit */
        assert_true(b.overflow);
        assert_bytes(b, "a");
        sl_buf_fini(&b);
    }
}

static void test_buf_overflow_stays_across_a_cut(void **state)
{
    (void)state;
    struct sl_buf b;
    sl_buf_init(&b, 4);
    sl_buf_c(&b, "abcd");
    sl_buf_c(&b, "e");
    sl_buf_cut(&b, 2);
    assert_bytes(b, "cd");
    assert_true(b.overflow);
    sl_buf_cut(&b, 99);
    assert_int_equal(b.len, 0);
    sl_buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_str_compares_bytes_not_text),
        cmocka_unit_test(test_str_find_leaves_at_alone_when_absent),
        cmocka_unit_test(test_str_utf8_follows_rfc_3629),
        cmocka_unit_test(test_str_int_takes_the_whole_range_and_nothing_else),
        cmocka_unit_test(test_str_hash_is_pinned),
        cmocka_unit_test(test_buf_grows_and_writes_numbers),
        cmocka_unit_test(test_buf_grows_in_few_steps),
        cmocka_unit_test(test_buf_stops_at_its_maximum_and_says_so),
        cmocka_unit_test(test_buf_refuses_a_length_that_wraps),
        cmocka_unit_test(test_buf_overflow_stays_across_a_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
