/* tests/unit/test_sms_text.c - alphabets of short messages. */
#include "unit.h"

#include "channels/sms/sms_text.h"

static void decodes(enum sms_alphabet a, const char *octets, size_t len, const char *want)
{
    struct sl_buf b;
    sl_buf_init(&b, 0);
    sms_decode(a, sl_str_n(octets, len), &b);
    assert_bytes(b, want);
    sl_buf_fini(&b);
}

static void test_data_coding_groups(void **state)
{
    (void)state;
    assert_int_equal(sms_alphabet_of(0, SMS_GSM7), SMS_GSM7);
    assert_int_equal(sms_alphabet_of(0, SMS_LATIN1), SMS_LATIN1);
    assert_int_equal(sms_alphabet_of(3, SMS_GSM7), SMS_LATIN1);
    assert_int_equal(sms_alphabet_of(8, SMS_GSM7), SMS_UCS2);
    assert_int_equal(sms_alphabet_of(15, SMS_GSM7), SMS_GBK);
    assert_int_equal(sms_alphabet_of(0x10, SMS_LATIN1), SMS_GSM7);
    assert_int_equal(sms_alphabet_of(0x18, SMS_GSM7), SMS_UCS2); /* a flash message */
    assert_int_equal(sms_alphabet_of(0x15, SMS_GSM7), SMS_BINARY);
    assert_int_equal(sms_alphabet_of(0xf1, SMS_GSM7), SMS_GSM7);
    assert_int_equal(sms_alphabet_of(0xf5, SMS_GSM7), SMS_BINARY);
    assert_int_equal(sms_alphabet_of(4, SMS_GSM7), SMS_BINARY);
}

static void test_gsm_decodes_what_is_no_character(void **state)
{
    (void)state;
    decodes(SMS_GSM7, "a\x1b\x41z", 4, "a z"); /* a pair nobody knows */
    decodes(SMS_GSM7, "a\x1b", 2, "a");        /* half a pair at the end */
    decodes(SMS_GSM7, "a\xe9", 2, "a\xef\xbf\xbd");
    decodes(SMS_GSM7, "\0", 1, "@");
}

static void test_ia5_is_ascii_or_gsm(void **state)
{
    (void)state;
    decodes(SMS_IA5, "a@b_{x}", 7, "a@b_{x}");
    decodes(SMS_IA5, "a\0b\x11\x1b\x28x\x1b\x29", 9, "a@b_{x}");
}

static void test_utf16_keeps_pairs_and_marks_halves(void **state)
{
    (void)state;
    decodes(SMS_UCS2, "\xd8\x3d\xde\x00", 4, "\xf0\x9f\x98\x80");
    decodes(SMS_UCS2, "\xfe\xff\x4e\xba", 4, "\xe4\xba\xba");
    decodes(SMS_UCS2, "\xd8\x3d\x4e\xba", 4, "\xef\xbf\xbd\xe4\xba\xba");
    decodes(SMS_UCS2, "\xde\x00", 2, "\xef\xbf\xbd");
    decodes(SMS_UCS2, "\x4e\xba\x4e", 3, "\xe4\xba\xba\xef\xbf\xbd");
    decodes(SMS_UCS2, "\0\0", 2, "\xef\xbf\xbd"); /* never a NUL in a text */
}

static void test_charsets_by_name(void **state)
{
    (void)state;
    decodes(SMS_GBK, "\xc8\xcb\xb9\xa4", 4, "\xe4\xba\xba\xe5\xb7\xa5");
    decodes(SMS_GBK, "\xc8", 1, "\xef\xbf\xbd");
    decodes(SMS_CYRILLIC, "\xbf\xe0", 2, "\xd0\x9f\xd1\x80");
    decodes(SMS_KOREAN, "\xc7\xd1", 2, "\xed\x95\x9c");
    char many[1000];
    memset(many, 0xc8, sizeof many);
    struct sl_buf b;
    sl_buf_init(&b, 0);
    sms_decode(SMS_GBK, sl_str_n(many, sizeof many), &b); /* more than the inner buffer */
    assert_int_equal(b.len, 1500);
    sl_buf_fini(&b);
}

static void test_alphabet_is_chosen_and_missing_characters_are_refused(void **state)
{
    (void)state;
    struct sl_buf b;
    sl_buf_init(&b, 0);
    assert_int_equal(sms_alphabet_for(SL_STR("Hello {world} \xe2\x82\xac")), SMS_GSM7);
    assert_int_equal(sms_alphabet_for(SL_STR("\xc3\x87")), SMS_GSM7); /* the capital one only */
    assert_int_equal(sms_alphabet_for(SL_STR("\xc3\xa7")), SMS_UCS2);
    assert_int_equal(sms_alphabet_for(SL_STR("`")), SMS_UCS2);
    assert_int_equal(sms_encode(SMS_GSM7, SL_STR("\xe4\xba\xba"), &b), SL_EINVAL);
    assert_int_equal(sms_encode(SMS_LATIN1, SL_STR("\xe4\xba\xba"), &b), SL_EINVAL);
    sl_buf_fini(&b);
}

/* Cut anywhere: parts joined again are the whole, and each part alone decodes to a piece of the text. */
static void cuts_well(enum sms_alphabet a, const char *text)
{
    struct sl_buf octets, joined;
    for (size_t max = 4; max < 20; max++) {
        sl_buf_init(&octets, 0);
        sl_buf_init(&joined, 0);
        assert_int_equal(sms_encode(a, sl_str_c(text), &octets), SL_OK);
        for (size_t at = 0; at < octets.len;) {
            struct sl_str rest = sl_str_n(octets.ptr + at, octets.len - at);
            size_t n = sms_cut(a, rest, max);
            assert_true(n > 0 && n <= max);
            sms_decode(a, sl_str_n(rest.ptr, n), &joined);
            at += n;
        }
        assert_bytes(joined, text);
        sl_buf_fini(&octets);
        sl_buf_fini(&joined);
    }
}

static void test_cut_never_splits_a_pair(void **state)
{
    (void)state;
    cuts_well(SMS_GSM7, "{}{}{a}b{}{}{}{}}}}}{{{{\xe2\x82\xac\xe2\x82\xac end");
    cuts_well(SMS_UCS2, "a\xf0\x9f\x98\x80\xf0\x9f\x98\x80"
                        "b\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xe4\xba\xba");
    cuts_well(SMS_LATIN1, "\xc3\xa9t\xc3\xa9 en octets");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_data_coding_groups),
        cmocka_unit_test(test_gsm_decodes_what_is_no_character),
        cmocka_unit_test(test_ia5_is_ascii_or_gsm),
        cmocka_unit_test(test_utf16_keeps_pairs_and_marks_halves),
        cmocka_unit_test(test_charsets_by_name),
        cmocka_unit_test(test_alphabet_is_chosen_and_missing_characters_are_refused),
        cmocka_unit_test(test_cut_never_splits_a_pair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
