/* tests/unit/test_mail_quote.c - what is folded, and what must not be; HTML to text. */
#include "unit.h"

#include "channels/email/mail_html.h"
#include "channels/email/mail_parse.h"
#include "channels/email/mail_quote.h"

#include <time.h>

static void assert_fold(const char *in, const char *want)
{
    struct sl_buf out;
    sl_buf_init(&out, 0);
    email_quote_fold(sl_str_c(in), &out);
    assert_bytes(sl_buf_view(&out), want);
    sl_buf_fini(&out);
}

static void test_fold_english(void **state)
{
    (void)state;
    assert_fold("ok\n\nOn Mon, Jan 1, 2024 at 8:00, A <a@b.cn> wrote:\n> old\n> older\n", "ok");
    assert_fold("ok\n\nOn Mon, Jan 1, 2024 at 8:00, Somebody With A Long Name\n<a@b.cn> wrote:\n\n> old\n",
                "ok");
    assert_fold("> what colour?\nred\n> what size?\nXL\n", "red\nXL"); /* answers between */
    assert_fold("ok\n-- \nA. Name\nTel 1", "ok");
    assert_fold("ok\r\n\r\nSent from my iPhone\r\n\r\n> old\r\n", "ok");
    assert_fold("ok\n\n-----Original Message-----\nFrom: a\n\nold", "ok");
    assert_fold(
        "ok\n________________________________\nFrom: A <a@b.cn>\nSent: Monday\nTo: c\nSubject: x\n\nold",
        "ok");
}

static void test_fold_chinese(void **state)
{
    (void)state;
    assert_fold("好的\n\n在 2024年1月1日，客服 <s@e.cn> 写道：\n> 旧\n", "好的");
    assert_fold("好的\n\n2024-01-01 08:00:00，\"客服\" <s@e.cn> 写道：\n旧\n", "好的");
    assert_fold("收到\n\n发件人：客服\n发送时间：2024年\n收件人：z\n主题：x\n\n旧", "收到");
    assert_fold("收到\n\n------------------ 原始邮件 ------------------\n旧", "收到");
    assert_fold("收到\n\n---- 回复的原邮件 ----\n旧", "收到");
    assert_fold("收到\n\n发自我的iPhone", "收到");
    assert_fold("收到\n\n*发件人:* 客服\n*日期:* 2024\n*收件人:* z\n\n旧", "收到");
}

static void test_fold_other_languages(void **state)
{
    (void)state;
    assert_fold("danke\n\nAm Mo., 1. Jan. 2024 um 08:00 Uhr schrieb Support <s@x.cn>:\n> alt\n", "danke");
    assert_fold("merci\n\nLe lun. 1 janv. 2024 à 08:00, Support <s@x.cn> a écrit :\n> vieux\n", "merci");
    assert_fold("gracias\n\nEl lun, 1 ene 2024 a las 8:00, Support (<s@x.cn>) escribió:\n\n> viejo\n",
                "gracias");
    assert_fold(
        "grazie\n\nIl giorno lun 1 gen 2024 2024 8:00 S <s@x.cn> ha\nscritto:\n> x\n",
        "grazie\n\nIl giorno lun 1 gen 2024 2024 8:00 S <s@x.cn> ha\nscritto:"); /* broken inside the tail: it stays */
    assert_fold("はい\n\n2024年1月1日(月) 8:00 Support <s@x.cn>:\n\n> 古い\n", "はい");
    assert_fold("да\n\nпн, 1 янв. 2024 г. в 08:00, Support <s@x.cn>:\n> старое\n", "да");
    assert_fold("ok\n\nVon: S <s@x.cn>\nGesendet: Montag\nAn: Z\nBetreff: x\n\nalt", "ok");
    assert_fold("text\n\nBest regards,\nZhang San\n+86 10 1234\n", "text");
    assert_fold("text\n\nRegards\nZhang\n\nOn Mon, Jan 1, 2024, A <a@b.cn> wrote:\n> old\n", "text");
}

static void test_fold_leaves_words_alone(void **state)
{
    (void)state;
    assert_fold("El pedido 12 lo escribió:\nmi madre", "El pedido 12 lo escribió:\nmi madre");
    assert_fold("write to Zhang1 <z@x.cn>:\nhe knows", "write to Zhang1 <z@x.cn>:\nhe knows");
    assert_fold("Best regards,\nZhang", "Best regards,\nZhang");
    assert_fold("Hello,\nregards\nWhen does it come?", "Hello,\nregards\nWhen does it come?");
    assert_fold("give her my best regards and tell her", "give her my best regards and tell her");
    assert_fold("On Monday I wrote: where is it?", "On Monday I wrote: where is it?");
    assert_fold("From: Beijing\nTo: Shanghai? No: from Beijing.",
                "From: Beijing\nTo: Shanghai? No: from Beijing.");
    assert_fold("发件人: 谁?\n\n我不知道", "发件人: 谁?\n\n我不知道");
    assert_fold("a --\nb", "a --\nb");
    assert_fold("> only a quote\n", "> only a quote"); /* folding everything folds nothing */
    assert_fold("-----Original Message-----\nFrom: a\n\nforwarded",
                "-----Original Message-----\nFrom: a\n\nforwarded");
    assert_fold("", "");
}

static void assert_html(const char *html, const char *full, const char *visible)
{
    struct sl_buf a, b;
    sl_buf_init(&a, 0);
    sl_buf_init(&b, 0);
    email_html_text(sl_str_c(html), &a, &b);
    assert_bytes(sl_buf_view(&a), full);
    assert_bytes(sl_buf_view(&b), visible);
    sl_buf_fini(&a);
    sl_buf_fini(&b);
}

static void test_html(void **state)
{
    (void)state;
    assert_html(
        "<head><title>t</title><style>p{}</style></head><p>a&nbsp;&amp; b<br>c<script>x()</script></p>",
        "a & b\nc", "a & b\nc");
    assert_html("<div>one</div><div>two <a href='https://x.cn/'>here</a></div>",
                "one\ntwo here (https://x.cn/)", "one\ntwo here (https://x.cn/)");
    assert_html("<a href='https://x.cn/'>https://x.cn/</a>", "https://x.cn/", "https://x.cn/");
    assert_html("<p>new</p><div class=\"gmail_quote\">On x wrote:<blockquote>old</blockquote></div>",
                "new\n\nOn x wrote:\n\nold", "new");
    assert_html("<p>new</p><div id=divRplyFwdMsg>From: a</div><div>old</div>", "new\n\nFrom: a\nold", "new");
    assert_html("<p>new<blockquote type=cite>old</blockquote>after", "new\n\nold\n\nafter", "new\n\nafter");
    assert_html("<blockquote>a poem</blockquote>", "a poem", "a poem"); /* a quotation is no quote */
    assert_html("<span style='display:none'>preheader</span>x", "x", "x");
    assert_html("<pre>a\n  b</pre>", "a\nb", "a\nb");
}

/* Of all lengths, because gumbo asks memory for a copy of each, and our memory looks at what it asks for. */
static void test_html_strings_of_all_lengths(void **state)
{
    (void)state;
    for (int n = 1; n <= 300; n++) {
        struct sl_buf html, full, visible;
        sl_buf_init(&html, 0);
        sl_buf_init(&full, 0);
        sl_buf_init(&visible, 0);
        for (int i = 0; i < 3; i++)
            sl_buf_printf(&html, "<p title=\"%0*d\" %0*d=x>%0*d<i class=\"%0*d\">word</i></p>", n, 1, n, 2, n,
                          3, n, 4);
        email_html_text(sl_buf_view(&html), &full, &visible);
        assert_int_equal(visible.len, 3 * (n + 4) + 2 * 2);
        sl_buf_fini(&html);
        sl_buf_fini(&full);
        sl_buf_fini(&visible);
    }
}

/* A copied element whose attribute is as long as a node must not hide how deep it lies. */
static void test_html_depth_behind_long_strings(void **state)
{
    (void)state;
    struct sl_buf html, full, visible;
    sl_buf_init(&html, 0);
    sl_buf_init(&full, 0);
    sl_buf_init(&visible, 0);
    for (int i = 0; i < EMAIL_HTML_DEPTH_MAX + 100; i++)
        sl_buf_printf(&html, "<b title=\"%0127d\">", i);
    sl_buf_c(&html, "<p>one&amp;two");
    email_html_text(sl_buf_view(&html), &full, &visible);
    assert_bytes(sl_buf_view(&visible), "one&amp;two"); /* the plain loop leaves references */
    sl_buf_fini(&html);
    sl_buf_fini(&full);
    sl_buf_fini(&visible);
}

static void test_html_in_bounded_memory(void **state)
{
    (void)state;
    struct sl_buf html, full, visible;
    sl_buf_init(&html, 0);
    sl_buf_init(&full, 0);
    sl_buf_init(&visible, 0);
    for (int i = 0; i < 40000; i++)
        sl_buf_printf(&html, "<b id=%d>", i);
    for (int i = 0; i < 40000; i++)
        sl_buf_c(&html, "<p>word"); /* each would reopen all the b: 1.6 thousand million nodes */
    email_html_text(sl_buf_view(&html), &full, &visible);
    assert_contains(full.ptr, "word");
    sl_buf_clear(&html);
    sl_buf_clear(&full);
    for (int i = 0; i < 200000; i++)
        sl_buf_c(&html, "<div>");
    sl_buf_c(&html, "deep");
    email_html_text(sl_buf_view(&html), &full, &visible);
    assert_bytes(sl_buf_view(&full), "deep");
    sl_buf_fini(&html);
    sl_buf_fini(&full);
    sl_buf_fini(&visible);
}

static void test_flowed(void **state)
{
    (void)state;
    struct sl_buf out;
    sl_buf_init(&out, 0);
    email_unflow(SL_STR("a \nb\n> q \n> r\n stuffed\n-- \nsig"), false, &out);
    assert_bytes(sl_buf_view(&out), "a b\n> q r\nstuffed\n-- \nsig");
    sl_buf_clear(&out);
    email_unflow(SL_STR("ab \ncd"), true, &out);
    assert_bytes(sl_buf_view(&out), "abcd");
    sl_buf_fini(&out);
}

/* One megabyte of open tags, or of attributes in one tag: gumbo would take minutes. */
static void test_html_costs_no_more_than_its_length(void **state)
{
    (void)state;
    struct sl_buf html, full, visible;
    sl_buf_init(&html, 0);
    sl_buf_init(&full, 0);
    sl_buf_init(&visible, 0);
    for (int i = 0; i < 180000; i++)
        sl_buf_c(&html, "<div>");
    sl_buf_c(&html, "deep");
    clock_t began = clock();
    email_html_text(sl_buf_view(&html), &full, &visible);
    assert_bytes(sl_buf_view(&full), "deep");
    sl_buf_clear(&html);
    sl_buf_clear(&full);
    sl_buf_c(&html, "<a");
    for (int i = 0; i < 120000; i++)
        sl_buf_printf(&html, " a%d", i);
    sl_buf_c(&html, ">wide</a>");
    email_html_text(sl_buf_view(&html), &full, &visible);
    assert_bytes(sl_buf_view(&full), "wide");
    assert_true(clock() - began < 10 * CLOCKS_PER_SEC);
    sl_buf_clear(&html);
    sl_buf_clear(&full);
    for (int i = 0; i < 400; i++)
        sl_buf_c(&html, "<div>");
    sl_buf_c(&html, "as &amp; usual");
    email_html_text(sl_buf_view(&html), &full, &visible);
    assert_bytes(sl_buf_view(&full), "as & usual");
    sl_buf_fini(&html);
    sl_buf_fini(&full);
    sl_buf_fini(&visible);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fold_english),
        cmocka_unit_test(test_fold_chinese),
        cmocka_unit_test(test_fold_other_languages),
        cmocka_unit_test(test_fold_leaves_words_alone),
        cmocka_unit_test(test_html),
        cmocka_unit_test(test_html_strings_of_all_lengths),
        cmocka_unit_test(test_html_depth_behind_long_strings),
        cmocka_unit_test(test_html_in_bounded_memory),
        cmocka_unit_test(test_flowed),
        cmocka_unit_test(test_html_costs_no_more_than_its_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
