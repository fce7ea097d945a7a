/* What a channel cannot carry is cut and turned into text, and nothing is lost. */
#include "proto/fit.h"

#include "unit.h"

#include "fit_check.h"

#define ALL_KINDS (~0u)

/* The parts' texts with '|' between them. */
static const char *fitted(const struct msg *m, const struct fit_limits *l)
{
    static char text[8192];
    struct fit f;
    struct sl_fail why = {.text = ""};
    size_t n = 0;
    fit_init(&f);
    assert_int_equal(fit_message(&f, m, l, &why), SL_OK);
    for (size_t i = 0; i < f.count; i++) {
        assert_true(n + f.part[i].text.len + 2 < sizeof text);
        if (i > 0)
            text[n++] = '|';
        memcpy(text + n, f.part[i].text.ptr, f.part[i].text.len);
        n += f.part[i].text.len;
    }
    text[n] = '\0';
    fit_fini(&f);
    return text;
}

static const char *cut(const char *text, size_t max, bool is_chars)
{
    return fitted(&(struct msg){.kind = MSG_TEXT, .text = sl_str_c(text)},
                  &(struct fit_limits){.text_max = max, .is_chars = is_chars});
}

static const char *as_text(enum msg_kind kind, const char *text, const char *data)
{
    return fitted(&(struct msg){.kind = kind, .text = sl_str_c(text), .data = sl_str_c(data)},
                  &(struct fit_limits){.text_max = 0});
}

/* ---- cutting ---- */

static void test_text_within_the_limit_is_one_part(void **state)
{
    (void)state;
    assert_string_equal(cut("  short, with blanks  ", 22, false), "  short, with blanks  ");
    assert_string_equal(cut("你好", 0, false), "你好");
    assert_string_equal(cut("", 20, false), "");
}

static void test_text_is_cut_behind_sentences_first(void **state)
{
    (void)state;
    assert_string_equal(cut("One is here. Two is there. Three.", 28, false),
                        "One is here. Two is there.|Three.");
    assert_string_equal(cut("订单已发货。明天到，请注意查收！谢谢您的耐心等待", 16, true),
                        "订单已发货。明天到，请注意查收！|谢谢您的耐心等待");
    assert_string_equal(cut("first line\nsecond line goes", 20, false), "first line|second line goes");
    assert_string_equal(cut("他说“好的。”然后他就走了，再也没有回来过", 16, true),
                        "他说“好的。”|然后他就走了，再也没有回来过");
    assert_string_equal(cut("Version 1.2.3 of it. Good", 22, false), "Version 1.2.3 of it.|Good");
}

static void test_else_between_words_or_behind_a_comma(void **state)
{
    (void)state;
    assert_string_equal(cut("alpha beta gamma delta", 17, false), "alpha beta gamma|delta");
    assert_string_equal(cut("一二三四五六七八九十，一二三四五六七八", 16, true),
                        "一二三四五六七八九十，|一二三四五六七八");
    assert_string_equal(cut("a sum of 12,345,678 yuan", 16, false), "a sum of|12,345,678 yuan");
}

static void test_else_between_graphemes_and_never_inside(void **state)
{
    (void)state;
    /* thumbs up with a skin tone (8 bytes), a family (25 bytes), a flag (8 bytes), e with two accents (5 bytes) */
    assert_string_equal(cut("👍🏽👍🏽👍🏽", 20, false), "👍🏽👍🏽|👍🏽");
    assert_string_equal(cut("👨‍👩‍👧‍👦👨‍👩‍👧‍👦", 30, false),
                        "👨‍👩‍👧‍👦|👨‍👩‍👧‍👦");
    assert_string_equal(cut("🇨🇳🇨🇳🇨🇳", 20, false), "🇨🇳🇨🇳|🇨🇳");
    assert_string_equal(cut("aaaaaaaaaaaaae\xcc\x81\xcc\xa3z", 17, false),
                        "aaaaaaaaaaaaa|e\xcc\x81\xcc\xa3z");
    assert_string_equal(cut("aaaaaaaaaaaaaaaaaaaa", 16, false), "aaaaaaaaaaaaaaaa|aaaa");
}

static void test_a_grapheme_over_the_limit_is_cut_between_code_points(void **state)
{
    (void)state;
    assert_string_equal(cut("👨‍👩‍👧‍👦", 16, false), "👨‍👩\xe2\x80\x8d|👧‍👦");
}

static void test_a_web_address_stays_whole(void **state)
{
    (void)state;
    assert_string_equal(cut("see https://e.org/a?b=c&d=e.f for it", 27, false),
                        "see|https://e.org/a?b=c&d=e.f|for it");
    assert_string_equal(cut("详情请看https://e.org/abc/def。谢谢", 26, false),
                        "详情请看|https://e.org/abc/def。|谢谢");
    /* too long for any part: cut like a word */
    assert_string_equal(cut("https://e.org/0123456789", 16, false), "https://e.org/01|23456789");
}

static void test_white_space_at_a_cut_is_dropped(void **state)
{
    (void)state;
    assert_string_equal(cut("one two three.  \n\n  four five", 18, false), "one two three.|four five");
    assert_string_equal(cut("aaaaaaaaaaaaaaaa                 ", 16, false), "aaaaaaaaaaaaaaaa");
    assert_string_equal(cut("一二三四五六七八　　九十一二三四五六", 10, true),
                        "一二三四五六七八|九十一二三四五六");
}

static void test_parts_are_numbered_when_asked(void **state)
{
    (void)state;
    struct msg m = {.kind = MSG_TEXT, .text = SL_STR("One is here. Two is there. Three is not.")};
    struct fit_limits l = {.text_max = 30, .is_numbered = true};
    assert_string_equal(fitted(&m, &l), "(1/3) One is here.|(2/3) Two is there.|(3/3) Three is not.");
    l.text_max = 40;
    assert_string_equal(fitted(&m, &l), "One is here. Two is there. Three is not.");
}

static void test_the_last_part_says_that_there_was_more(void **state)
{
    (void)state;
    struct msg m = {.kind = MSG_TEXT, .text = SL_STR("aaaa bbbb cccc dddd eeee ffff gggg hhhh iiii")};
    struct fit_limits l = {.text_max = 20, .parts_max = 2};
    assert_string_equal(fitted(&m, &l), "aaaa bbbb cccc dddd|eeee ffff gggg…");
    l.rest = SL_STR(" (x)");
    assert_string_equal(fitted(&m, &l), "aaaa bbbb cccc dddd|eeee ffff gggg (x)");
    l.parts_max = 1;
    assert_string_equal(fitted(&m, &l), "aaaa bbbb cccc (x)");
}

/* ---- kinds ---- */

static void test_a_choice_becomes_numbered_lines(void **state)
{
    (void)state;
    assert_string_equal(as_text(MSG_CHOICE, "What is it?",
                                "{\"choices\":[{\"id\":\"1\",\"title\":\"An order\"},\"A person\"]}"),
                        "What is it?\n1. An order\n2. A person");
    assert_string_equal(
        as_text(MSG_CHOICE, "Rate from 1 to 2", "{\"options\":[{\"value\":1},{\"value\":2}]}"),
        "Rate from 1 to 2");
    assert_string_equal(as_text(MSG_CHOICE, "", "{\"options\":[{\"value\":1},{\"value\":2}]}"), "1. 1\n2. 2");
}

static void test_a_choice_that_is_taken_keeps_its_data_on_the_last_part(void **state)
{
    (void)state;
    static const char data[] = "{\"options\":[\"a\",\"b\"]}";
    struct msg m = {
        .kind = MSG_CHOICE, .text = SL_STR("Long words come first. Which one?"), .data = sl_str_c(data)};
    struct fit_limits l = {.text_max = 25, .kinds = ALL_KINDS, .options_max = 2};
    struct fit f;
    struct sl_fail why;
    fit_init(&f);
    assert_int_equal(fit_message(&f, &m, &l, &why), SL_OK);
    assert_int_equal(f.count, 2);
    assert_int_equal(f.part[0].kind, MSG_TEXT);
    assert_int_equal(f.part[0].data.len, 0);
    assert_int_equal(f.part[1].kind, MSG_CHOICE);
    assert_bytes(f.part[1].text, "Which one?");
    assert_bytes(f.part[1].data, data);
    l.options_max = 1; /* one option too many */
    assert_int_equal(fit_message(&f, &m, &l, &why), SL_OK);
    assert_int_equal(f.part[f.count - 1].kind, MSG_TEXT);
    assert_bytes(f.part[f.count - 1].text, "Which one?\n1. a\n2. b");
    fit_fini(&f);
}

static void test_a_card_becomes_its_title_text_and_links(void **state)
{
    (void)state;
    assert_string_equal(
        as_text(MSG_CARD, "", "{\"title\":\"Order 42\",\"lines\":[\"shipped\",\"arrives Monday\"]}"),
        "Order 42\nshipped\narrives Monday");
    assert_string_equal(
        as_text(MSG_CARD, "Look",
                "{\"title\":\"T\",\"description\":\"Text\",\"url\":\"https://e.org/\",\"buttons\":"
                "[{\"title\":\"More\",\"url\":\"https://e.org/m\"},{\"title\":\"Yes\"}]}"),
        "Look\nT\nText\nhttps://e.org/\nMore: https://e.org/m\n1. Yes");
}

static void test_a_location_becomes_its_name_and_a_map_link(void **state)
{
    (void)state;
    assert_string_equal(
        as_text(MSG_LOCATION, "", "{\"latitude\":31.2304,\"longitude\":121.4737,\"label\":\"上海\"}"),
        "上海\nhttps://www.openstreetmap.org/?mlat=31.230400&mlon=121.473700");
    assert_string_equal(as_text(MSG_LOCATION, "here", "{\"latitude\":1e300,\"longitude\":0}"), "here");
    assert_string_equal(
        as_text(MSG_LINK, "see https://e.org/", "{\"url\":\"https://e.org/\",\"title\":\"Returns\"}"),
        "see https://e.org/\nReturns");
}

static void add_link(void *arg, struct sl_str id, struct sl_str name, struct sl_buf *out)
{
    (void)arg;
    sl_buf_printf(out, "https://m/%.*s/%.*s", (int)id.len, id.ptr, (int)name.len, name.ptr);
}

static void test_an_attachment_that_is_not_taken_becomes_a_link(void **state)
{
    (void)state;
    static const char data[] =
        "{\"attachments\":[{\"id\":\"a1\",\"type\":\"image/png\",\"size\":500,\"name\":\"r.png\"},"
        "{\"id\":\"a2\",\"type\":\"application/pdf\",\"size\":5000,\"name\":\"b.pdf\"}]}";
    struct msg m = {.kind = MSG_IMAGE, .text = SL_STR("both"), .data = sl_str_c(data)};
    struct fit_limits l = {.text_max = 0, .link = add_link};
    assert_string_equal(fitted(&m, &l), "both\nr.png: https://m/a1/r.png\nb.pdf: https://m/a2/b.pdf");
    l.link = NULL;
    assert_string_equal(fitted(&m, &l), "both\n[r.png]\n[b.pdf]");
    l.link = add_link;
    l.kinds = 1u << MSG_IMAGE;
    assert_string_equal(fitted(&m, &l),
                        "both\nb.pdf: https://m/a2/b.pdf"); /* caption and image are one part */
    l.kinds = 1u << MSG_IMAGE | 1u << MSG_FILE;
    assert_string_equal(fitted(&m, &l), "both||");
    l.media_max_bytes = 1000;
    assert_string_equal(fitted(&m, &l), "both\nb.pdf: https://m/a2/b.pdf");
    l.kinds = 1u << MSG_FILE;
    l.media_max_bytes = 0;
    assert_string_equal(fitted(&m, &l), "both||"); /* an image goes as a file */
}

static void test_each_attachment_is_a_part_of_its_kind(void **state)
{
    (void)state;
    static const char data[] =
        "{\"attachments\":[{\"id\":\"a1\",\"type\":\"audio/amr\"},{\"id\":\"a2\",\"type\":\"image/png\"}]}";
    struct msg m = {.id = SL_STR("m7"), .kind = MSG_FILE, .data = sl_str_c(data)};
    struct fit f;
    struct sl_fail why;
    fit_init(&f);
    assert_int_equal(fit_message(&f, &m, &(struct fit_limits){.kinds = ALL_KINDS}, &why), SL_OK);
    assert_int_equal(f.count, 2);
    assert_int_equal(f.part[0].kind, MSG_AUDIO);
    assert_bytes(f.part[0].data, "{\"attachments\":[{\"id\":\"a1\",\"type\":\"audio/amr\"}]}");
    assert_bytes(f.part[0].id, "m7");
    assert_int_equal(f.part[1].kind, MSG_IMAGE);
    fit_fini(&f);
}

static void test_events_and_notes_are_never_sent(void **state)
{
    (void)state;
    const enum msg_kind kinds[] = {MSG_EVENT, MSG_NOTE};
    for (size_t i = 0; i < 2; i++) {
        struct fit f;
        struct sl_fail why;
        struct msg m = {.kind = kinds[i], .text = SL_STR("for agents alone")};
        fit_init(&f);
        assert_int_equal(fit_message(&f, &m, &(struct fit_limits){.kinds = ALL_KINDS}, &why), SL_OK);
        assert_int_equal(f.count, 0);
        fit_fini(&f);
    }
}

static void test_data_that_is_no_object_is_refused(void **state)
{
    (void)state;
    struct fit f;
    struct sl_fail why;
    struct msg m = {.kind = MSG_CARD, .text = SL_STR("x"), .data = SL_STR("[1]")};
    fit_init(&f);
    assert_int_equal(fit_message(&f, &m, &(struct fit_limits){.text_max = 0}, &why), SL_EINVAL);
    fit_fini(&f);
}

/* ---- any text ---- */

static uint64_t random_state = 12345;

static size_t any(size_t below)
{
    random_state = random_state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (size_t)(random_state >> 33) % below;
}

static void test_the_parts_of_any_text_are_the_text(void **state)
{
    static const char *const pieces[] = {"a",
                                         "word",
                                         " ",
                                         "\n",
                                         "。",
                                         "，",
                                         "你好",
                                         "！",
                                         ". ",
                                         "👍🏽",
                                         "👨‍👩‍👧‍👦",
                                         "e\xcc\x81",
                                         "🇨🇳",
                                         "https://e.org/x?y=1",
                                         "　",
                                         "”",
                                         "(",
                                         ")",
                                         "12,5",
                                         "\r\n",
                                         "é",
                                         "ก็"};
    (void)state;
    for (int round = 0; round < 3000; round++) {
        struct sl_buf text;
        struct fit f;
        struct sl_fail why;
        size_t count = any(60), max = FIT_TEXT_MIN + any(60);
        bool is_chars = any(2);
        sl_buf_init(&text, 0);
        for (size_t i = 0; i < count; i++)
            sl_buf_c(&text, pieces[any(sizeof pieces / sizeof pieces[0])]);
        struct msg m = {.kind = MSG_TEXT, .text = sl_buf_view(&text)};
        fit_init(&f);
        assert_int_equal(
            fit_message(&f, &m, &(struct fit_limits){.text_max = max, .is_chars = is_chars}, &why), SL_OK);
        fit_check_parts(&f, m.text, max, is_chars);
        fit_fini(&f);
        sl_buf_fini(&text);
    }
}

/* ---- a channel that counts ---- */

static size_t parts_within(const char *text, size_t sends, sl_err want)
{
    struct fit f;
    struct sl_fail why = {.text = ""};
    struct msg m = {.kind = MSG_TEXT, .text = sl_str_c(text)};
    struct fit_limits l = {.text_max = 20};
    fit_init(&f);
    assert_int_equal(fit_within(&f, &m, &l, sends, &why), want);
    size_t count = f.count;
    if (want == SL_OK)
        fit_check_parts(&f, m.text, 20, false);
    fit_fini(&f);
    return count;
}

static void test_parts_are_filled_when_sends_are_few(void **state)
{
    (void)state;
    static const char text[] = "It is short. It is short. It is short. It is. It is.";
    assert_int_equal(parts_within(text, 0, SL_OK), 4); /* as it reads best */
    assert_int_equal(parts_within(text, 4, SL_OK), 4);
    assert_int_equal(parts_within(text, 3, SL_OK), 3);
    assert_int_equal(parts_within(text, 2, SL_ETOOBIG), 3); /* what it needs */
    assert_int_equal(parts_within("short", 1, SL_OK), 1);
}

static void test_nothing_is_left_out_for_want_of_sends(void **state)
{
    (void)state;
    struct fit f;
    struct sl_fail why;
    struct sl_buf text;
    sl_buf_init(&text, 0);
    for (int i = 0; i < 33; i++)
        sl_buf_c(&text, "0123456789abcdefghi ");
    struct msg m = {.kind = MSG_TEXT, .text = sl_buf_view(&text)};
    fit_init(&f);
    assert_int_equal(fit_within(&f, &m, &(struct fit_limits){.text_max = 20}, 50, &why), SL_ETOOBIG);
    assert_true(f.is_cut);
    fit_fini(&f);
    sl_buf_fini(&text);
}

static void test_words_beside_a_bare_attachment_are_a_part_of_their_own(void **state)
{
    (void)state;
    struct fit f;
    struct sl_fail why;
    struct msg m = {.kind = MSG_IMAGE,
                    .text = SL_STR("your invoice"),
                    .data = SL_STR("{\"attachments\":[{\"id\":\"i\",\"type\":\"image/png\"}]}")};
    struct fit_limits l = {.kinds = 1u << MSG_IMAGE};
    fit_init(&f);
    assert_int_equal(fit_message(&f, &m, &l, &why), SL_OK);
    assert_int_equal(f.count, 1);
    assert_true(sl_str_eq_c(f.part[0].text, "your invoice"));
    l.bare = l.kinds;
    assert_int_equal(fit_message(&f, &m, &l, &why), SL_OK);
    assert_int_equal(f.count, 2);
    assert_int_equal(f.part[0].kind, MSG_TEXT);
    assert_true(sl_str_eq_c(f.part[0].text, "your invoice"));
    assert_int_equal(f.part[1].kind, MSG_IMAGE);
    assert_int_equal(f.part[1].text.len, 0);
    assert_true(f.part[1].data.len > 0);
    fit_fini(&f);
}

static void test_limits_come_back_from_their_word(void **state)
{
    (void)state;
    char word[FIT_LIMITS_BYTES];
    struct fit_limits l = {.text_max = 2048,
                           .is_chars = true,
                           .kinds = ~0u,
                           .bare = 5,
                           .options_max = 10,
                           .media_max_bytes = INT64_MAX},
                      back = {.text_max = 0};
    size_t link = 0;
    fit_limits_write(&l, 180, word);
    assert_string_equal(word, "2048c/4294967295/5/10/9223372036854775807/180");
    assert_int_equal(fit_limits_read(sl_str_c(word), &back, &link), SL_OK);
    assert_memory_equal(&back, &l, sizeof l);
    assert_int_equal(link, 180);
    static const char *const wrong[] = {"",
                                        "2048",
                                        "2048b",
                                        "2048b/1/1/1/1",
                                        "2048b/1/1/1/1/1/1",
                                        "b/1/1/1/1/1",
                                        "-1b/1/1/1/1/1",
                                        "1b/1/1/1/1/9999",
                                        "1b/4294967296/1/1/1/1",
                                        "9999999b/1/1/1/1/1",
                                        "1x/1/1/1/1/1",
                                        "1b1/1/1/1/1/1",
                                        "1b/1//1/1/1"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(fit_limits_read(sl_str_c(wrong[i]), &back, &link), SL_EINVAL);
}

/* Who counts without being able to make links comes to the parts that who sends makes. */
static void test_a_link_of_the_same_length_makes_the_same_parts(void **state)
{
    (void)state;
    size_t link = 40;
    struct fit f;
    struct sl_fail why;
    struct msg m = {.kind = MSG_FILE,
                    .text = SL_STR("Here is the paper that you asked for."),
                    .data = SL_STR("{\"attachments\":[{\"id\":\"i\",\"name\":\"a b.pdf\"}]}")};
    struct fit_limits l = {.text_max = 70, .link = fit_link_of, .link_arg = &link};
    fit_init(&f);
    assert_int_equal(fit_message(&f, &m, &l, &why), SL_OK);
    assert_int_equal(f.count, 2);
    assert_int_equal(f.part[1].text.len, sizeof "a b.pdf: " - 1 + 40 + sizeof "a%20b%2Epdf" - 1);
    link = 0;
    assert_int_equal(fit_message(&f, &m, &l, &why), SL_OK);
    assert_int_equal(f.count, 1); /* [a b.pdf] */
    fit_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_are_filled_when_sends_are_few),
        cmocka_unit_test(test_nothing_is_left_out_for_want_of_sends),
        cmocka_unit_test(test_words_beside_a_bare_attachment_are_a_part_of_their_own),
        cmocka_unit_test(test_limits_come_back_from_their_word),
        cmocka_unit_test(test_a_link_of_the_same_length_makes_the_same_parts),
        cmocka_unit_test(test_text_within_the_limit_is_one_part),
        cmocka_unit_test(test_text_is_cut_behind_sentences_first),
        cmocka_unit_test(test_else_between_words_or_behind_a_comma),
        cmocka_unit_test(test_else_between_graphemes_and_never_inside),
        cmocka_unit_test(test_a_grapheme_over_the_limit_is_cut_between_code_points),
        cmocka_unit_test(test_a_web_address_stays_whole),
        cmocka_unit_test(test_white_space_at_a_cut_is_dropped),
        cmocka_unit_test(test_parts_are_numbered_when_asked),
        cmocka_unit_test(test_the_last_part_says_that_there_was_more),
        cmocka_unit_test(test_a_choice_becomes_numbered_lines),
        cmocka_unit_test(test_a_choice_that_is_taken_keeps_its_data_on_the_last_part),
        cmocka_unit_test(test_a_card_becomes_its_title_text_and_links),
        cmocka_unit_test(test_a_location_becomes_its_name_and_a_map_link),
        cmocka_unit_test(test_an_attachment_that_is_not_taken_becomes_a_link),
        cmocka_unit_test(test_each_attachment_is_a_part_of_its_kind),
        cmocka_unit_test(test_events_and_notes_are_never_sent),
        cmocka_unit_test(test_data_that_is_no_object_is_refused),
        cmocka_unit_test(test_the_parts_of_any_text_are_the_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
