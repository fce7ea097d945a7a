/* tests/unit/test_lmtp_dialogue.c - an LMTP server's side of the talk. */
#include "unit.h"

#include "channels/email/lmtp_dialogue.h"

#include <malloc.h>
#include <stdio.h>

#define SIZE_MAX_BYTES 1000

struct talk {
    struct email_lmtp *l;
    bool has_room;
    struct email_lmtp_mail mail;
    enum email_lmtp_want want;
};

static bool is_ours(void *arg, struct sl_str address)
{
    (void)arg;
    return sl_str_starts(address, "support");
}

static bool has_room(void *arg)
{
    return ((struct talk *)arg)->has_room;
}

static void talk_open(struct talk *t)
{
    *t = (struct talk){.has_room = true};
    t->l = email_lmtp_new(&(struct email_lmtp_options){.host = "mx.example",
                                                       .size_max = SIZE_MAX_BYTES,
                                                       .is_ours = is_ours,
                                                       .has_room = has_room,
                                                       .arg = t});
}

/* Say it; these are the codes of the replies. The text up to the end, or up to a mail. */
static size_t say(struct talk *t, const char *text, const char *codes)
{
    char got[400] = "";
    size_t used;
    sl_buf_clear(email_lmtp_out(t->l));
    t->want = email_lmtp_feed(t->l, sl_str_c(text), &used);
    struct sl_str out = sl_buf_view(email_lmtp_out(t->l)), line;
    while (email_next_line(&out, &line)) {
        strncat(got, line.ptr, 3);
        strncat(got, " ", 2);
    }
    assert_string_equal(got, codes);
    if (t->want == EMAIL_LMTP_MAIL)
        email_lmtp_mail(t->l, &t->mail);
    return used;
}

static void settled(struct talk *t, sl_err err, const char *replies)
{
    sl_buf_clear(email_lmtp_out(t->l));
    email_lmtp_settle(t->l, err, NULL);
    assert_bytes(sl_buf_view(email_lmtp_out(t->l)), replies);
}

#define HELLO "LHLO client\r\n"
#define BEGIN "MAIL FROM:<a@b.cn>\r\nRCPT TO:<Support@sluice.example>\r\nDATA\r\n"

static void test_one_reply_for_each_accepted_recipient(void **state)
{
    (void)state;
    struct talk t;
    talk_open(&t);
    assert_bytes(sl_buf_view(email_lmtp_out(t.l)), "220 mx.example LMTP Sluice\r\n");
    say(&t, HELLO, "250 250 250 250 250 250 ");
    say(&t,
        "MAIL FROM:<a@b.cn> SIZE=100 BODY=8BITMIME SMTPUTF8\r\nRCPT TO:<support@sluice.example>\r\n"
        "RCPT TO:<other@sluice.example>\r\nRCPT TO:<support+c1@sluice.example>\r\nDATA\r\n",
        "250 250 550 250 354 ");
    say(&t, "Subject: x\r\n\r\n..dot\r\n.more\r\n.\r\n", "");
    assert_int_equal(t.want, EMAIL_LMTP_MAIL);
    assert_bytes(t.mail.data, "Subject: x\r\n\r\n.dot\r\nmore\r\n");
    assert_bytes(t.mail.sender, "a@b.cn");
    assert_int_equal(t.mail.recipient_count, 2);
    settled(&t, SL_OK, "250 2.0.0 taken\r\n250 2.0.0 taken\r\n");
    say(&t, BEGIN, "250 250 354 ");
    say(&t, ".\r\n", "");
    assert_int_equal(t.mail.data.len, 0);
    settled(&t, SL_EAGAIN, "451 4.3.0 not now, come again\r\n");
    say(&t, BEGIN, "250 250 354 ");
    say(&t, "x\r\n.\r\n", "");
    settled(&t, SL_EINVAL, "554 5.6.0 not taken\r\n");
    say(&t, "QUIT\r\n", "221 ");
    assert_int_equal(t.want, EMAIL_LMTP_CLOSE);
    email_lmtp_free(&t.l);
}

static void test_order_of_commands(void **state)
{
    (void)state;
    struct talk t;
    talk_open(&t);
    say(&t, "MAIL FROM:<a@b.cn>\r\n", "503 ");
    say(&t, "HELO x\r\nEHLO x\r\n", "500 500 ");
    say(&t, HELLO "RCPT TO:<support@x.cn>\r\nDATA\r\n", "250 250 250 250 250 250 503 503 ");
    say(&t, "MAIL FROM:<>\r\nMAIL FROM:<>\r\nDATA\r\n", "250 503 503 "); /* RFC 2033 4.2 */
    say(&t, "RSET\r\nMAIL FROM:<a@b.cn> SIZE=1001\r\nMAIL FROM:<a@b.cn> AUTH=x\r\nMAIL FROM:a@b.cn\r\n",
        "250 552 555 501 ");
    say(&t, "VRFY x\r\nNOOP\r\nBDAT 1 LAST\r\nRCPT TO:<no address>\r\n", "252 250 500 503 ");
    email_lmtp_free(&t.l);
}

static void test_busy_store_takes_no_mail(void **state)
{
    (void)state;
    struct talk t;
    talk_open(&t);
    t.has_room = false;
    say(&t, HELLO BEGIN, "250 250 250 250 250 250 250 250 451 ");
    t.has_room = true;
    say(&t, BEGIN, "250 250 354 ");
    email_lmtp_free(&t.l);
}

static void test_smuggling_is_refused(void **state)
{
    (void)state;
    static const char *const ends[] = {"\n.\n", "\n.\r\n", "\r.\r", "\r.\r\n", "\r\n.\n", "\r\n.\r"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        struct talk t;
        char text[200];
        talk_open(&t);
        say(&t, HELLO BEGIN, "250 250 250 250 250 250 250 250 354 ");
        (void)snprintf(text, sizeof text,
                       "x%sMAIL FROM:<evil@x.cn>\r\nRCPT TO:<support@x.cn>\r\nDATA\r\ny\r\n.\r\n", ends[i]);
        say(&t, text, "550 "); /* one mail, refused: none of it was a command */
        say(&t, "NOOP\r\n", "250 ");
        email_lmtp_free(&t.l);
    }
    struct talk t;
    talk_open(&t);
    say(&t, "LHLO x\nMAIL FROM:<a@b.cn>\n", "500 500 ");
    say(&t, "NO\rOP\r\n", "500 ");
    email_lmtp_free(&t.l);
}

static void test_limits(void **state)
{
    (void)state;
    struct talk t;
    struct sl_buf b;
    talk_open(&t);
    sl_buf_init(&b, 0);
    say(&t, HELLO BEGIN, "250 250 250 250 250 250 250 250 354 ");
    for (int i = 0; i < 300; i++)
        sl_buf_c(&b, "line\r\n");
    sl_buf_c(&b, ".\r\n");
    sl_buf_char(&b, '\0');
    say(&t, b.ptr, "552 ");
    sl_buf_clear(&b);
    for (int i = 0; i < 3000; i++)
        sl_buf_char(&b, 'x');
    sl_buf_c(&b, "\r\nNOOP\r\n");
    sl_buf_char(&b, '\0');
    say(&t, b.ptr, "500 250 ");
    sl_buf_clear(&b);
    sl_buf_c(&b, "MAIL FROM:<a@b.cn>\r\n");
    for (int i = 0; i < 101; i++)
        sl_buf_c(&b, "RCPT TO:<support@x.cn>\r\n");
    sl_buf_char(&b, '\0');
    sl_buf_clear(email_lmtp_out(t.l));
    size_t used;
    (void)email_lmtp_feed(t.l, sl_str_c(b.ptr), &used);
    struct sl_str out = sl_buf_view(email_lmtp_out(t.l)), tail = SL_STR("452 4.5.3 too many recipients\r\n");
    assert_memory_equal(out.ptr + out.len - tail.len, tail.ptr, tail.len);
    for (int i = 0; i < EMAIL_LMTP_BAD_MAX && t.want != EMAIL_LMTP_CLOSE; i++)
        t.want = email_lmtp_feed(t.l, SL_STR("nonsense\r\n"), &used);
    assert_int_equal(t.want, EMAIL_LMTP_CLOSE);
    sl_buf_fini(&b);
    email_lmtp_free(&t.l);
}

#ifdef __SANITIZE_ADDRESS__
size_t __sanitizer_get_current_allocated_bytes(void); /* gcc 12 ships no header for it */
static size_t allocated(void)
{
    return __sanitizer_get_current_allocated_bytes();
}
#else
static size_t allocated(void)
{
    return mallinfo2().uordblks;
}
#endif

/* What is asked for and refused costs nothing that stays. */
static void test_refused_recipients_keep_no_memory(void **state)
{
    (void)state;
    struct talk t;
    struct sl_buf b;
    size_t used;
    talk_open(&t);
    sl_buf_init(&b, 0);
    (void)email_lmtp_feed(t.l, SL_STR(HELLO "MAIL FROM:<a@b.cn>\r\n"), &used);
    for (int i = 0; i < 100; i++)
        sl_buf_printf(&b, "RCPT TO:<nobody@x%0200d.cn>\r\n", i);
    size_t before = allocated();
    for (int i = 0; i < 100; i++) {
        sl_buf_clear(email_lmtp_out(t.l));
        assert_int_equal(email_lmtp_feed(t.l, sl_buf_view(&b), &used), EMAIL_LMTP_MORE);
    }
    assert_true(allocated() < before + 100000); /* their addresses: 2 MB */
    sl_buf_fini(&b);
    email_lmtp_free(&t.l);
}

static void test_nothing_is_eaten_while_a_mail_waits(void **state)
{
    (void)state;
    struct talk t;
    talk_open(&t);
    say(&t, HELLO BEGIN, "250 250 250 250 250 250 250 250 354 ");
    static const char text[] = "x\r\n.\r\nNOOP\r\n";
    const size_t used = say(&t, text, "");
    assert_int_equal(used, 6);
    size_t more;
    assert_int_equal(email_lmtp_feed(t.l, sl_str_c(text + used), &more), EMAIL_LMTP_MAIL);
    assert_int_equal(more, 0);
    settled(&t, SL_OK, "250 2.0.0 taken\r\n");
    say(&t, text + used, "250 ");
    email_lmtp_free(&t.l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_reply_for_each_accepted_recipient),
        cmocka_unit_test(test_order_of_commands),
        cmocka_unit_test(test_busy_store_takes_no_mail),
        cmocka_unit_test(test_smuggling_is_refused),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_refused_recipients_keep_no_memory),
        cmocka_unit_test(test_nothing_is_eaten_while_a_mail_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
