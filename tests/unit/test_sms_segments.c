/* tests/unit/test_sms_segments.c - counting short messages: the edges. tests/vectors/sms_segments.json holds a third party's. */
#include "unit.h"

#include "channels/sms/sms_segments.h"

static struct sms_segments of_repeated(const char *piece, size_t times, const char *end)
{
    struct sl_buf b;
    struct sms_segments s;
    sl_buf_init(&b, 0);
    for (size_t i = 0; i < times; i++)
        sl_buf_c(&b, piece);
    sl_buf_c(&b, end);
    sms_segments_count(sl_buf_view(&b), &s);
    sl_buf_fini(&b);
    return s;
}

static void test_limits_of_both_alphabets(void **state)
{
    (void)state;
    static const struct {
        const char *piece;
        size_t fits_one, fits_two;
    } row[] = {{"a", 160, 306}, {"\xe4\xbd\xa0", 70, 134}, {"[", 80, 152}, {"\xf0\x9f\x98\x80", 35, 66}};
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        assert_int_equal(of_repeated(row[i].piece, row[i].fits_one, "").segments, 1);
        assert_int_equal(of_repeated(row[i].piece, row[i].fits_one + 1, "").segments, 2);
        assert_int_equal(of_repeated(row[i].piece, row[i].fits_two, "").segments, 2);
        assert_int_equal(of_repeated(row[i].piece, row[i].fits_two + 1, "").segments, 3);
    }
}

/* 152 septets, then a pair that has no room for both: it moves whole. */
static void test_pair_is_not_cut(void **state)
{
    (void)state;
    struct sms_segments s = of_repeated("a", 152, "[bcdefghi");
    assert_int_equal(s.units, 162);
    assert_int_equal(s.segments, 2);
    assert_int_equal(of_repeated("a", 152, "[").units, 154);
    assert_int_equal(of_repeated("a", 152, "[").segments, 1);
    /* 305 of 306 septets, but a pair over the seam leaves one empty */
    s = of_repeated("a", 152, "[");
    struct sl_buf b;
    sl_buf_init(&b, 0);
    for (size_t i = 0; i < 152; i++)
        sl_buf_char(&b, 'a');
    sl_buf_char(&b, '[');
    for (size_t i = 0; i < 152; i++)
        sl_buf_char(&b, 'b');
    sms_segments_count(sl_buf_view(&b), &s);
    assert_int_equal(s.units, 306);
    assert_int_equal(s.segments, 3);
    sl_buf_fini(&b);
}

static void test_graphemes_count_once_and_stay_whole(void **state)
{
    (void)state;
    /* family of four: 11 UTF-16 units */
    static const char family[] = "\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7"
                                 "\xe2\x80\x8d\xf0\x9f\x91\xa6";
    struct sms_segments s = of_repeated(family, 1, "");
    assert_false(s.is_gsm7);
    assert_int_equal(s.units, 1);
    assert_int_equal(s.message_bits, 11 * 16);
    assert_int_equal(of_repeated(family, 6, "").segments, 1);
    assert_int_equal(of_repeated(family, 12, "").segments, 2); /* six a segment: 66 of 67 units */
    assert_int_equal(of_repeated(family, 13, "").segments, 3);
    assert_int_equal(of_repeated("\r\n", 1, "\xe4\xbd\xa0").units, 3);
}

/* A peer's bytes: no UTF-8, and a grapheme longer than a segment. */
static void test_odd_bytes_end(void **state)
{
    (void)state;
    struct sms_segments s;
    sms_segments_count(sl_str_n("\xff\x80\xe4", 3), &s);
    assert_int_equal(s.message_bits, 48);
    sms_segments_count(SL_STR_NONE, &s);
    assert_int_equal(s.segments, 1);
    assert_int_equal(s.message_bits, 0);
    s = of_repeated("\xcc\x81", 1000, "");
    assert_int_equal(s.message_bits, 16000);
    assert_int_equal(s.segments, 15); /* 67 units each */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limits_of_both_alphabets),
        cmocka_unit_test(test_pair_is_not_cut),
        cmocka_unit_test(test_graphemes_count_once_and_stay_whole),
        cmocka_unit_test(test_odd_bytes_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
