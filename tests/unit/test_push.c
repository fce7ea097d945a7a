/* proto/push.c: the header of a push, and the numbers at the head of a history entry. */
#include "proto/push.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct sl_str S(const char *s) {
    return sl_str_c(s);
}

static void
written(const struct push *p, const char *want)
{
    struct sl_buf out;
    sl_buf_init(&out, 0);
    push_write(&out, p);
    assert_int_equal(out.len, strlen(want));
    assert_memory_equal(out.ptr, want, out.len);
    struct push back;
    assert_int_equal(push_read(sl_buf_view(&out), &back), SL_OK);
    assert_int_equal(back.what, p->what);
    assert_int_equal(back.gen, p->gen);
    assert_int_equal(back.number, p->number);
    assert_true(sl_str_eq(back.json, p->json));
    sl_buf_fini(&out);
}

static void test_every_form_is_written_and_read_back(void **state)
{
    (void)state;
    struct push p = {.what = PUSH_ENTRY,
                     .gen = 1790000000123,
                     .number = 9,
                     .session = S("s-1"),
                     .id = S("c-1"),
                     .json = S("{\"n\":12}")};
    written(&p, "e 1790000000123 9 s-1 c-1\n{\"n\":12}");
    p.session = p.id = SL_STR_NONE;
    written(&p, "e 1790000000123 9 - -\n{\"n\":12}");
    p = (struct push){.what = PUSH_HINT, .json = S("{\"place\":3}")};
    written(&p, "h 0 0 - -\n{\"place\":3}");
    p = (struct push){.what = PUSH_REFUSAL, .session = S("s"), .id = S("i"), .json = S("{\"a\":\"\\n\"}")};
    written(&p, "r 0 0 s i\n{\"a\":\"\\n\"}");
    p = (struct push){.what = PUSH_ENTRY, .gen = UINT64_MAX, .number = UINT64_MAX, .json = S("")};
    written(&p, "e 18446744073709551615 18446744073709551615 - -\n");
}

static void test_an_id_that_could_break_the_header_is_left_out(void **state)
{
    (void)state;
    struct push p = {.what = PUSH_ENTRY, .gen = 1, .number = 2, .session = S("s"), .json = S("{}")};
    p.id = S("a b");
    written(&p, "e 1 2 s -\n{}");
    p.id = S("a\nr 0 0 - -");
    written(&p, "e 1 2 s -\n{}");
    p.id = S("<m@example.org>");
    written(&p, "e 1 2 s -\n{}");
}

static void test_read_gives_names_back(void **state)
{
    (void)state;
    struct push p;
    assert_int_equal(push_read(S("e 1 2 s-1 c-1\n{}"), &p), SL_OK);
    assert_true(sl_str_eq_c(p.session, "s-1") && sl_str_eq_c(p.id, "c-1"));
    assert_int_equal(push_read(S("e 1 2 - -\n{}"), &p), SL_OK);
    assert_true(p.session.len == 0 && p.id.len == 0);
}

static void test_read_refuses_what_is_malformed(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "e",
        "e 1",
        "e 1 2",
        "e 1 2 s",
        "e 1 2 s i",
        "x 1 2 - -\n",
        "ee 1 2 - -\n",
        " e 1 2 - -\n",
        "e  1 2 - -\n",
        "e x 2 - -\n",
        "e 1 -2 - -\n",
        "e 1 2  -\n",
        "e 1 2 - \n",
        "e 1 2 - - -\n",
        "e 1 2 a/b -\n",
        "e 1 18446744073709551616 - -\n",
    };
    struct push p = {.number = 7};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (push_read(S(bad[i]), &p) != SL_EINVAL)
            fail_msg("taken: %s", bad[i]);
    assert_int_equal(p.number, 7);
}

static void test_entry_numbers_are_read_without_a_parser(void **state)
{
    (void)state;
    uint64_t n = 0, v = 0;
    assert_int_equal(push_entry_numbers(S("{\"n\":12,\"v\":9,\"at\":1}"), &n, &v), SL_OK);
    assert_true(n == 12 && v == 9);
    assert_int_equal(push_entry_numbers(S("{\"n\":13,\"v\":0}"), &n, &v), SL_OK);
    assert_true(n == 13 && v == 0);
    static const char *const bad[] = {
        "",
        "{",
        "{\"n\":",
        "{\"n\":1",
        "{\"n\":1,",
        "{\"n\":1,\"v\":",
        "{\"n\":1,\"v\":2",
        "{\"n\":1,\"at\":2}",
        "{\"v\":1,\"n\":2}",
        "{\"n\":-1,\"v\":2}",
        "{\"n\":1.5,\"v\":2}",
        "{\"n\":\"1\",\"v\":2}",
        "{\"n\":1,\"v\":x}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (push_entry_numbers(S(bad[i]), &n, &v) != SL_EINVAL)
            fail_msg("taken: %s", bad[i]);
    assert_true(n == 13 && v == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_form_is_written_and_read_back),
        cmocka_unit_test(test_an_id_that_could_break_the_header_is_left_out),
        cmocka_unit_test(test_read_gives_names_back),
        cmocka_unit_test(test_read_refuses_what_is_malformed),
        cmocka_unit_test(test_entry_numbers_are_read_without_a_parser),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
