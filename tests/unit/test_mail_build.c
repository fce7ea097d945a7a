/* tests/unit/test_mail_build.c - outgoing mails: read back by our own parser here, by mailparser in e2e. */
#include "unit.h"

#include "channels/email/mail_build.h"
#include "channels/email/mail_parse.h"

static struct email_draft draft(void)
{
    return (struct email_draft){.from = SL_STR("support@sluice.example"),
                                .from_name = SL_STR("客服, 一号"),
                                .to = SL_STR("zhang@example.cn"),
                                .subject = SL_STR("Re: 订单问题：如何退款？"),
                                .text = SL_STR("您好，\n已受理 https://x.cn/?a=1&b=2。\n"),
                                .message_id = SL_STR("<sluice.0.k.m@sluice.example>"),
                                .date_unix_ms = INT64_C(1704067200000)};
}

static void assert_wire(struct sl_str s) /* CRLF only, ASCII, lines of at most 998 */
{
    size_t column = 0;
    for (size_t i = 0; i < s.len; i++) {
        assert_true((unsigned char)s.ptr[i] < 0x80 && s.ptr[i] != '\0');
        if (s.ptr[i] == '\n')
            assert_true(i > 0 && s.ptr[i - 1] == '\r');
        if (s.ptr[i] == '\r')
            assert_true(i + 1 < s.len && s.ptr[i + 1] == '\n');
        column = s.ptr[i] == '\n' ? 0 : column + 1;
        assert_in_range(column, 0, 998);
    }
}

static void test_build_reads_back(void **state)
{
    (void)state;
    struct email_draft d = draft();
    const struct email_draft_file file = {SL_STR("发票 \"1\".pdf"), SL_STR("application/pdf"),
                                          SL_STR("%PDF")};
    const struct sl_str refs[] = {SL_STR("<1@x>"), SL_STR("<2@x>")};
    struct sl_buf out;
    struct sl_fail why;
    struct email_mail *m = NULL;
    sl_buf_init(&out, 0);
    d.files = &file;
    d.file_count = 1;
    d.references = refs;
    d.reference_count = 2;
    d.in_reply_to = refs[1];
    d.is_auto = true;
    d.reply_to = SL_STR("support+c1@sluice.example");
    assert_int_equal(email_build(&d, &out, &why), SL_OK);
    assert_wire(sl_buf_view(&out));
    assert_int_equal(email_parse(sl_buf_view(&out), &m, &why), SL_OK);
    assert_bytes(m->subject, "Re: 订单问题：如何退款？");
    assert_bytes(m->from.name, "客服, 一号");
    assert_bytes(m->reply_to, "support+c1@sluice.example");
    assert_bytes(m->in_reply_to, "<2@x>");
    assert_int_equal(m->reference_count, 2);
    assert_bytes(m->visible, "您好，\n已受理 https://x.cn/?a=1&b=2。");
    assert_contains(m->html.ptr, "<a href=\"https://x.cn/?a=1&amp;b=2\">");
    assert_int_equal(m->file_count, 1);
    assert_bytes(m->files[0].name, "发票 \"1\".pdf");
    assert_bytes(m->files[0].bytes, "%PDF");
    assert_bytes(email_header(&m->headers, "auto-submitted"), "auto-replied");
    assert_int_equal(m->date_unix_ms, d.date_unix_ms);
    email_mail_free(&m);
    sl_buf_fini(&out);
}

static void test_build_keeps_every_text(void **state)
{
    (void)state;
    static const char *const texts[] = {"plain\nlines\n",
                                        "trailing \nblanks\t\n",
                                        "From here\n.dot\n..two\n",
                                        ("caf\xC3\xA9 au lait, mostly ASCII with one accent, and a line that "
                                         "is longer than seventy-eight characters"),
                                        "全部中文",
                                        "a=b=c\n",
                                        "\n\nblank first\n"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct email_draft d = draft();
        struct sl_buf out, want;
        struct sl_fail why;
        struct email_mail *m = NULL;
        sl_buf_init(&out, 0);
        sl_buf_init(&want, 0);
        d.text = sl_str_c(texts[i]);
        assert_int_equal(email_build(&d, &out, &why), SL_OK);
        assert_wire(sl_buf_view(&out));
        assert_int_equal(email_parse(sl_buf_view(&out), &m, &why), SL_OK);
        sl_buf_str(&want, email_trim(d.text));
        const struct sl_str got = email_trim(m->text);
        assert_int_equal(got.len, want.len);
        assert_memory_equal(got.ptr, want.ptr, want.len);
        email_mail_free(&m);
        sl_buf_fini(&out);
        sl_buf_fini(&want);
    }
}

static void assert_refused(const struct email_draft *d)
{
    struct sl_buf out;
    struct sl_fail why = {.text = ""};
    sl_buf_init(&out, 0);
    assert_int_equal(email_build(d, &out, &why), SL_EINVAL);
    assert_int_equal(out.len, 0);
    assert_true(why.text[0] != '\0');
    sl_buf_fini(&out);
}

static void test_build_refuses_headers_in_values(void **state)
{
    (void)state;
    const struct email_draft_file bad_name = {SL_STR("a\r\nBcc: x"), SL_STR("text/plain"), SL_STR("x")};
    const struct email_draft_file bad_type = {SL_STR("a"), SL_STR("text/plain\r\nBcc: x"), SL_STR("x")};
    struct email_draft d = draft();
    d.subject = SL_STR("x\r\nBcc: evil@x.cn");
    assert_refused(&d);
    d = draft();
    d.from_name = SL_STR("x\nBcc: evil@x.cn");
    assert_refused(&d);
    d = draft();
    d.to = SL_STR("a@b.cn\r\nBcc: evil@x.cn");
    assert_refused(&d);
    d = draft();
    d.to = SL_STR("a@b.cn, evil@x.cn");
    assert_refused(&d);
    d = draft();
    d.in_reply_to = SL_STR("<a\r\nBcc: evil@x.cn>");
    assert_refused(&d);
    d = draft();
    d.references = &d.subject;
    d.reference_count = 1;
    assert_refused(&d);
    d = draft();
    d.file_count = 1;
    d.files = &bad_name;
    assert_refused(&d);
    d.files = &bad_type;
    assert_refused(&d);
}

static void test_reply_subject(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"x", "Re: x"},
                                           {"Re: x", "Re: x"},
                                           {"RE: re: 回复: 答复：x", "Re: x"},
                                           {"Regarding", "Re: Regarding"},
                                           {"", "Re: "},
                                           {"回复：订单", "Re: 订单"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sl_buf out;
        sl_buf_init(&out, 0);
        email_reply_subject(sl_str_c(cases[i][0]), &out);
        assert_bytes(sl_buf_view(&out), cases[i][1]);
        sl_buf_fini(&out);
    }
}

static void test_build_caps_the_chain(void **state)
{
    (void)state;
    struct email_draft d = draft();
    struct sl_str refs[60];
    struct sl_buf out;
    struct sl_fail why;
    struct email_mail *m = NULL;
    for (size_t i = 0; i < 60; i++)
        refs[i] = i == 0 ? SL_STR("<first@x>") : i == 59 ? SL_STR("<last@x>") : SL_STR("<mid@x>");
    d.references = refs;
    d.reference_count = 60;
    sl_buf_init(&out, 0);
    assert_int_equal(email_build(&d, &out, &why), SL_OK);
    assert_int_equal(email_parse(sl_buf_view(&out), &m, &why), SL_OK);
    assert_int_equal(m->reference_count, EMAIL_CHAIN_MAX);
    assert_bytes(m->references[0], "<first@x>");
    assert_bytes(m->references[EMAIL_CHAIN_MAX - 1], "<last@x>");
    email_mail_free(&m);
    sl_buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_build_reads_back),
        cmocka_unit_test(test_build_keeps_every_text),
        cmocka_unit_test(test_build_refuses_headers_in_values),
        cmocka_unit_test(test_reply_subject),
        cmocka_unit_test(test_build_caps_the_chain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
