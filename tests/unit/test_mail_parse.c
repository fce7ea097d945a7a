/* tests/unit/test_mail_parse.c - parts, limits, reports. The mails of others stand in tests/vectors/email. */
#include "unit.h"

#include "channels/email/mail_parse.h"

static struct email_mail *parsed(struct sl_str raw)
{
    struct email_mail *m = NULL;
    struct sl_fail why = {.text = ""};
    if (email_parse(raw, &m, &why) != SL_OK)
        fail_msg("refused: %s", why.text);
    return m;
}

static void assert_refused(struct sl_str raw, sl_err err, const char *words)
{
    struct email_mail *m = NULL;
    struct sl_fail why = {.text = ""};
    assert_int_equal(email_parse(raw, &m, &why), err);
    assert_null(m);
    assert_contains(why.text, words);
}

static void test_parse_takes_plain_over_html(void **state)
{
    (void)state;
    struct email_mail *m =
        parsed(SL_STR("From: a@b.cn\r\nContent-Type: multipart/alternative; boundary=x\r\n\r\n"
                      "--x\r\nContent-Type: text/html\r\n\r\n<p>web</p>\r\n"
                      "--x\r\nContent-Type: text/plain\r\n\r\nplain\r\n--x--\r\n"));
    assert_bytes(m->visible, "plain");
    assert_contains(m->html.ptr, "<p>web</p>");
    email_mail_free(&m);
    m = parsed(SL_STR("From: a@b.cn\r\nContent-Type: multipart/alternative; boundary=x\r\n\r\n"
                      "--x\r\nContent-Type: text/plain\r\n\r\n \r\n"
                      "--x\r\nContent-Type: text/html\r\n\r\n<p>web</p>\r\n--x--\r\n"));
    assert_bytes(m->visible, "web"); /* a plain part that is empty says nothing */
    email_mail_free(&m);
}

static void test_parse_names_have_no_path(void **state)
{
    (void)state;
    struct email_mail *m =
        parsed(SL_STR("From: a@b.cn\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n"
                      "--x\r\nContent-Disposition: attachment; filename=\"../../etc/passwd\"\r\n\r\nx\r\n"
                      "--x\r\nContent-Disposition: attachment; filename=\"c:\\\\x\\\\evil.exe\"\r\n\r\nx\r\n"
                      "--x\r\nContent-Disposition: attachment; filename=\"..\"\r\n\r\nx\r\n--x--\r\n"));
    assert_int_equal(m->file_count, 3);
    assert_bytes(m->files[0].name, "passwd");
    assert_bytes(m->files[1].name, "evil.exe");
    assert_bytes(m->files[2].name, "attachment");
    email_mail_free(&m);
}

static void test_parse_refuses_what_is_no_mail(void **state)
{
    (void)state;
    assert_refused(SL_STR(""), SL_EINVAL, "no header");
    assert_refused(SL_STR("\r\nbody"), SL_EINVAL, "no header");
    assert_refused(SL_STR("Subject: x\r\n\r\nbody"), SL_EINVAL, "no sender");
    assert_refused(SL_STR("From: nobody\r\n\r\nbody"), SL_EINVAL, "no sender");
}

static void nested(struct sl_buf *out, unsigned depth)
{
    sl_buf_c(out, "From: a@b.cn\r\n");
    for (unsigned i = 0; i < depth; i++)
        sl_buf_printf(out, "Content-Type: multipart/mixed; boundary=b%u\r\n\r\n--b%u\r\n", i, i);
    sl_buf_c(out, "Content-Type: text/plain\r\n\r\ndeep\r\n");
}

static void test_parse_keeps_its_limits(void **state)
{
    (void)state;
    struct sl_buf b;
    sl_buf_init(&b, EMAIL_BYTES_MAX + 1000);
    nested(&b, 19);
    struct email_mail *m = parsed(sl_buf_view(&b));
    assert_bytes(m->visible, "deep");
    email_mail_free(&m);
    sl_buf_clear(&b);
    nested(&b, 30);
    assert_refused(sl_buf_view(&b), SL_ETOOBIG, "nested");
    sl_buf_clear(&b);
    nested(&b, 900); /* what gmime itself has to go down */
    assert_refused(sl_buf_view(&b), SL_ETOOBIG, "nested");
    sl_buf_clear(&b);
    nested(&b, 100000);
    assert_refused(sl_buf_view(&b), SL_ETOOBIG, "parts");
    sl_buf_clear(&b);
    sl_buf_c(&b, "From: a@b.cn\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n");
    for (int i = 0; i < 300; i++)
        sl_buf_c(&b, "--x\r\n\r\npart\r\n");
    assert_refused(sl_buf_view(&b), SL_ETOOBIG, "200 parts");
    sl_buf_clear(&b);
    sl_buf_c(&b, "From: a@b.cn\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n");
    for (int i = 0; i < 25; i++)
        sl_buf_c(&b, "--x\r\nContent-Type: image/png\r\n\r\nf\r\n");
    m = parsed(sl_buf_view(&b));
    assert_int_equal(m->file_count, EMAIL_FILES_MAX);
    assert_int_equal(m->files_left_out, 5);
    email_mail_free(&m);
    sl_buf_fini(&b);
}

static struct sl_str parted(struct sl_buf *b, const char *parameter, const char *line, int count)
{
    sl_buf_clear(b);
    sl_buf_printf(b, "From: a@b.cn\r\nContent-Type: multipart/mixed;\r\n %s\r\n\r\n", parameter);
    for (int i = 0; i < count; i++)
        sl_buf_c(b, line);
    return sl_buf_view(b);
}

/* gmime makes them all before visit() can count them: by then a thread of the pool is busy for a quarter of a minute. */
static void test_parse_counts_parts_before_they_are_made(void **state)
{
    static const char *const parameters[] = {"boundary=x",        "Boundary = \"x\"", "boundary=x; a=b",
                                             "(c) boundary=x",    "boundary (c) =x",  "boundary*=us-ascii''x",
                                             "boundary*0=\"\"x",  "boundary=\"\\x\"", "boundary=x (c)",
                                             "boundary=\"x\" ; a"};
    struct sl_buf b;
    (void)state;
    sl_buf_init(&b, 64u << 20);
    for (size_t i = 0; i < sizeof parameters / sizeof parameters[0]; i++)
        assert_refused(parted(&b, parameters[i], "--x\r\n\r\na\r\n", 1001), SL_ETOOBIG, "1000 parts");
    struct email_mail *m =
        parsed(parted(&b, "boundary=xyz", "-- a comment\r\n--y\r\n", 5000)); /* words of a text */
    email_mail_free(&m);
    sl_buf_fini(&b);
}

static void test_parse_reports(void **state)
{
    (void)state;
    struct email_mail *m =
        parsed(SL_STR("From: mailer-daemon@x.cn\r\nContent-Type: multipart/report; "
                      "report-type=delivery-status; boundary=b\r\n\r\n"
                      "--b\r\n\r\nnot yet\r\n--b\r\nContent-Type: "
                      "message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\n"
                      "Final-Recipient: rfc822; A@b.cn\r\nAction: delayed\r\nStatus: 4.4.1\r\n\r\n"
                      "Final-Recipient: rfc822; c@d.cn\r\nAction: FAILED (really)\r\nStatus: "
                      "5.1.1\r\nDiagnostic-Code: smtp; 550\r\n"
                      " no such user\r\n\r\n"
                      "--b\r\nContent-Type: text/rfc822-headers\r\n\r\nMessage-ID: <sluice.1@x>\r\nSubject: "
                      "y\r\n\r\n--b--\r\n"));
    assert_int_equal(m->kind, EMAIL_DELIVERY_REPORT);
    assert_int_equal(m->report_count, 2);
    assert_int_equal(m->reports[0].action, EMAIL_DELAYED);
    assert_bytes(m->reports[0].recipient, "a@b.cn");
    assert_int_equal(m->reports[1].action, EMAIL_FAILED);
    assert_bytes(m->reports[1].status, "5.1.1");
    assert_bytes(m->reports[1].words, "550 no such user");
    assert_bytes(m->reported_id, "<sluice.1@x>");
    email_mail_free(&m);
    m = parsed(SL_STR("From: a@x.cn\r\nContent-Type: multipart/report; report-type=disposition-notification; "
                      "boundary=b\r\n\r\n"
                      "--b\r\n\r\nread\r\n--b\r\nContent-Type: message/disposition-notification\r\n\r\n"
                      "Original-Message-ID: <sluice.2@x>\r\nDisposition: manual-action/MDN-sent-manually; "
                      "displayed\r\n\r\n--b--\r\n"));
    assert_int_equal(m->kind, EMAIL_READ_REPORT);
    assert_bytes(m->reported_id, "<sluice.2@x>");
    email_mail_free(&m);
}

static void test_parse_keeps_a_long_chain_short(void **state)
{
    (void)state;
    struct sl_buf b;
    sl_buf_init(&b, 0);
    sl_buf_c(&b, "From: a@b.cn\r\nReferences:");
    for (int i = 0; i < 100; i++)
        sl_buf_printf(&b, "\r\n <%d@x>", i);
    sl_buf_c(&b, "\r\n\r\nhi");
    struct email_mail *m = parsed(sl_buf_view(&b));
    assert_int_equal(m->reference_count, EMAIL_REFERENCES_MAX);
    assert_bytes(m->references[0], "<0@x>");
    assert_bytes(m->references[EMAIL_REFERENCES_MAX - 1], "<99@x>");
    email_mail_free(&m);
    sl_buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_takes_plain_over_html),
        cmocka_unit_test(test_parse_names_have_no_path),
        cmocka_unit_test(test_parse_refuses_what_is_no_mail),
        cmocka_unit_test(test_parse_keeps_its_limits),
        cmocka_unit_test(test_parse_counts_parts_before_they_are_made),
        cmocka_unit_test(test_parse_reports),
        cmocka_unit_test(test_parse_keeps_a_long_chain_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
