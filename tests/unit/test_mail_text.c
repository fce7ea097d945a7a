/* tests/unit/test_mail_text.c - charsets, encoded words, mailboxes, dates. */
#include "unit.h"

#include "channels/email/mail_header.h"

static void assert_decoded(const char *in, size_t n, const char *charset, const char *want)
{
    struct sl_buf out;
    sl_buf_init(&out, 0);
    email_charset_decode(&out, sl_str_n(in, n), sl_str_c(charset));
    assert_bytes(sl_buf_view(&out), want);
    sl_buf_fini(&out);
}
#define DECODED(in, charset, want) assert_decoded(in, sizeof(in) - 1, charset, want)

static void test_charset_reads_what_the_label_does_not_say(void **state)
{
    (void)state;
    DECODED("\xE9\x46", "gb2312", "镕"); /* not in GB 2312, but in GBK */
    DECODED("\xC4\xE3", "HZ-GB-2312", "你");
    DECODED("~{Dc:C~}!", "hz-gb-2312", "你好!"); /* RFC 1843's own shape */
    DECODED("\xB4\xFA\xB8\xD5", "Big5", "測試");
    DECODED("\x93x\x94", "iso-8859-1", "“x”");
    DECODED("\xB0\xA1", "ks_c_5601-1987", "가");
    DECODED("caf\xC3\xA9", "no-such-charset", "café");
    DECODED("\xC4\xE3\xBA\xC3", "", "你好");
    DECODED("caf\xE9", "", "café"); /* no GB18030: a lead byte at the end */
    DECODED("x", "../../etc/passwd", "x");
    DECODED("\xF9\xEC\xE5\xED", "windows-1255", "שלום"); /* the converter keeps the last letter back */
    DECODED("\x88\x62", "big5-hkscs", "\xC3\x8A\xCC\x84");
    DECODED("+T2BZfQ-", "utf-7", "你好");
}

static void test_charset_marks_what_cannot_be_read(void **state)
{
    (void)state;
    DECODED("a\xFF\xFE\0\xE4\xBDz", "utf-8", "a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDz");
    DECODED("\xED\xA0\x80", "utf-8", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"); /* a surrogate */
    DECODED("\xE4\xBD", "utf-8", "\xEF\xBF\xBD");
    DECODED("\xC4", "gbk", "\xEF\xBF\xBD");
}

static void assert_words(const char *raw, const char *want)
{
    struct sl_buf out;
    sl_buf_init(&out, 0);
    email_words_decode(&out, sl_str_c(raw));
    assert_bytes(sl_buf_view(&out), want);
    sl_buf_fini(&out);
}

static void test_words_decode(void **state)
{
    (void)state;
    assert_words("=?UTF-8?B?5L2g5aU=?= =?UTF-8?B?veS4lg==?=",
                 "你好世"); /* a character split across two words */
    assert_words("=?utf-8?q?a_b=3Dc?= plain =?GB2312?B?1uzpRrv5?=", "a b=c plain 朱镕基");
    assert_words("=?UTF-8?B?5L2g?=\r\n =?UTF-8?B?5aW9?=", "你好");
    assert_words("folded\r\n line", "folded line");
    assert_words("=?UTF-8?Q?x=0D=0ABcc:_a=40b?=", "x Bcc: a@b"); /* no line end gets in */
    assert_words("=?UTF-8*en?Q?x?=", "x");
    assert_words("=?broken?B?", "=?broken?B?");
    assert_words("\xC4\xE3\xBA\xC3", "你好");
}

static void test_words_encode_come_back(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "plain",
        "你好，世界",
        "Re: 订单问题：如何退款？一个很长很长很长很长很长很长很长很长的主题",
        "=?trap",
        " leading",
        "a very long subject that is plain ASCII and has to be folded somewhere, being over the limit"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct sl_buf coded, back;
        sl_buf_init(&coded, 0);
        sl_buf_init(&back, 0);
        email_words_encode(&coded, sl_str_c(texts[i]), 9);
        size_t column = 9;
        for (size_t k = 0; k < coded.len; k++) {
            column = coded.ptr[k] == '\n' ? 0 : column + 1;
            assert_in_range(column, 0, 78);
            assert_true((unsigned char)coded.ptr[k] < 0x80);
        }
        email_words_decode(&back, sl_buf_view(&coded));
        if (i != 4) /* outer blanks of a value mean nothing */
            assert_bytes(sl_buf_view(&back), texts[i]);
        sl_buf_fini(&coded);
        sl_buf_fini(&back);
    }
}

static void test_mailboxes(void **state)
{
    (void)state;
    struct email_heap *h = email_heap_new();
    struct email_mailbox box[8];
    const size_t n = email_mailboxes(h,
                                     SL_STR("\"Zhang, San\" <Zhang@Example.CN>, plain@b.cn (Name), group: "
                                            "e@f.cn, g@h.cn; <@a,@b:r@s.cn>, not one"),
                                     box, 8);
    assert_int_equal(n, 5);
    assert_bytes(box[0].address, "zhang@example.cn");
    assert_bytes(box[0].name, "Zhang, San");
    assert_bytes(box[1].address, "plain@b.cn");
    assert_bytes(box[1].name, "Name");
    assert_bytes(box[2].address, "e@f.cn");
    assert_bytes(box[4].address, "r@s.cn");
    assert_int_equal(email_mailboxes(h, SL_STR("a@b@c.cn, @x.cn, a@, <>, \"a b\"@c.cn, a b@c.cn"), box, 8),
                     0);
    email_heap_free(&h);
}

static void test_dates(void **state)
{
    (void)state;
    assert_int_equal(email_date_unix_ms(SL_STR("Mon, 01 Jan 2024 08:00:00 +0800")), INT64_C(1704067200000));
    assert_int_equal(email_date_unix_ms(SL_STR("1 Jan 2024 00:00:00 GMT")), INT64_C(1704067200000));
    assert_int_equal(email_date_unix_ms(SL_STR("Mon, 01 Jan 2024 00:00 -0100 (x)")), INT64_C(1704070800000));
    assert_int_equal(email_date_unix_ms(SL_STR("yesterday")), 0);
}

static void test_ids_with_and_without_brackets(void **state)
{
    (void)state;
    struct email_heap *h = email_heap_new();
    struct sl_str ids[4];
    assert_int_equal(email_ids(h, SL_STR("<a@x> (why) <b@x>\r\n <c d@x>"), ids, 4), 2);
    assert_bytes(ids[1], "<b@x>");
    assert_int_equal(email_ids(h, SL_STR("a@x,\r\n\tb@x Monday"), ids, 4), 2);
    assert_bytes(ids[0], "<a@x>");
    assert_bytes(ids[1], "<b@x>");
    assert_int_equal(email_ids(h, SL_STR("a@x b@x c@x"), ids, 2), 2);
    assert_int_equal(email_ids(h, SL_STR("your mail of Monday"), ids, 4), 0);
    assert_int_equal(email_ids(h, SL_STR(""), ids, 4), 0);
    email_heap_free(&h);
}

static void test_headers_keep_their_limits(void **state)
{
    (void)state;
    struct email_heap *h = email_heap_new();
    struct email_headers hs;
    struct sl_fail why;
    struct sl_buf big;
    sl_buf_init(&big, 0);
    for (int i = 0; i < 1001; i++)
        sl_buf_c(&big, "A: b\r\n");
    assert_int_equal(email_headers_read(h, sl_buf_view(&big), &hs, &why), SL_ETOOBIG);
    sl_buf_clear(&big);
    sl_buf_c(&big, "A: ");
    for (int i = 0; i < 70000; i++)
        sl_buf_char(&big, 'x');
    sl_buf_c(&big, "\r\n\r\n");
    assert_int_equal(email_headers_read(h, sl_buf_view(&big), &hs, &why), SL_ETOOBIG);
    assert_int_equal(
        email_headers_read(h, SL_STR("A: b\r\n c\r\nnonsense\r\n x\r\nZ:e\r\n\r\nbody"), &hs, &why), SL_OK);
    assert_int_equal(hs.count, 2);
    assert_bytes(email_header(&hs, "a"), "b\r\n c");
    assert_bytes(email_header(&hs, "z"), "e");
    email_heap_free(&h);
    sl_buf_fini(&big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_charset_reads_what_the_label_does_not_say),
        cmocka_unit_test(test_charset_marks_what_cannot_be_read),
        cmocka_unit_test(test_words_decode),
        cmocka_unit_test(test_words_encode_come_back),
        cmocka_unit_test(test_mailboxes),
        cmocka_unit_test(test_dates),
        cmocka_unit_test(test_ids_with_and_without_brackets),
        cmocka_unit_test(test_headers_keep_their_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
