/* One line an event whatever its values hold; floods; masking. */
#include "base/log.h"

#include "base/json.h"
#include "base/log_priv.h"

#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define LINE(...) ((const struct sl_kv[]){__VA_ARGS__, {.key = NULL}})

static char *format(enum sl_log_format f, const char *msg, uint64_t repeated, const struct sl_kv *kv)
{
    struct sl_log_line line = {.format = f,
                               .level = SL_WARN,
                               .unix_ms = 1700000000123,
                               .role = "router",
                               .msg = msg,
                               .repeated = repeated,
                               .kv = kv};
    struct sl_buf b = {0};
    sl_log_write_line(&b, &line);
    sl_buf_char(&b, '\0');
    return b.ptr;
}

static void test_log_logfmt_line(void **state)
{
    (void)state;
    char *s = format(
        SL_LOG_LOGFMT, "lease lost", 0,
        LINE(SL_KV("partition", "{12}"), SL_KV_I("epoch", -5), SL_KV("why", "two words"), SL_KV("none", "")));
    assert_string_equal(
        s, "ts=2023-11-14T22:13:20.123Z level=warn role=router msg=\"lease lost\" partition={12} epoch=-5 "
           "why=\"two words\" none=\"\"\n");
    free(s);
}

static void test_log_json_line_is_json(void **state)
{
    (void)state;
    char *s = format(SL_LOG_JSON, "odd", 3,
                     LINE(SL_KV_S("v", sl_str_n("a\"\\\n\x01\x1b\0\xff\xfe", 9)),
                          SL_KV_S("w", SL_STR("\xc2\x85\xe2\x80\xa8\xe2\x80\xaeok"))));
    struct sl_fail why = {SL_OK, 0, ""};
    assert_int_equal(s[strlen(s) - 1], '\n');
    for (char *p = s; *p != '\0'; p++)
        assert_true((unsigned char)*p >= 0x20 || p[1] == '\0');
    char *nul = strstr(
        s, "\\u0000"); /* spelled out; our own parser refuses it, so it is taken away to read the rest */
    assert_non_null(nul);
    memcpy(nul, "\\u0041", 6);
    json_t *v = sl_json_parse(sl_str_c(s), &why);
    assert_non_null(v);
    assert_int_equal(sl_json_get_int(v, "repeated", 0), 3);
    assert_bytes(sl_json_get_str(v, "msg"), "odd");
    assert_contains(s, "\\u0085\\u2028\\u202eok");
    assert_contains(s, "\\u00ff\\u00fe");
    json_decref(v);
    free(s);
}

/* A peer's value that looks like another line, another field, or a terminal's command. */
static void test_log_values_cannot_forge(void **state)
{
    (void)state;
    char *s = format(SL_LOG_LOGFMT, "refused", 0,
                     LINE(SL_KV("peer", "x\nts=2023 level=error msg=forged"), SL_KV("b", "1 level=error"),
                          SL_KV("c", "\x1b[2J\x9b"), SL_KV("d", "a\" level=error e=\""),
                          SL_KV("e", "\r\xc2\x9b"), SL_KV("f", "level=error")));
    assert_ptr_equal(strchr(s, '\n'), s + strlen(s) - 1);
    assert_null(strchr(s, '\r'));
    assert_null(strchr(s, '\x1b'));
    assert_null(strchr(s, '\x9b'));
    assert_contains(s, " peer=\"x\\nts=2023 level=error msg=forged\" ");
    assert_contains(s, " b=\"1 level=error\" ");
    assert_contains(s, " f=\"level=error\"\n");
    assert_contains(s, " d=\"a\\\" level=error e=\\\"\" ");
    free(s);
}

static void test_log_long_values_are_cut_at_a_character(void **state)
{
    (void)state;
    struct sl_buf words = {0};
    sl_buf_char(&words, 'x');
    for (int i = 0; i < 2000; i++)
        sl_buf_c(&words, "\xe4\xbd\xa0");
    char *s = format(SL_LOG_LOGFMT, "long", 0, LINE(SL_KV_S("v", sl_buf_view(&words)), SL_KV_I("after", 1)));
    assert_contains(s, "\" cut=true after=1\n");
    assert_true(strlen(s) < SL_LOG_VALUE_MAX + 200);
    assert_true(sl_str_utf8(sl_str_n(s, strlen(s))));
    assert_lacks(s, "\\u00");
    free(s);
    sl_buf_fini(&words);
}

static void test_flood_holds_after_ten_and_reports_them(void **state)
{
    (void)state;
    struct sl_flood *f = sl_alloc(sizeof *f);
    uint64_t repeated = 99, now = 5000;
    for (int i = 0; i < 10; i++)
        assert_true(sl_flood_pass(f, SL_WARN, "busy", now, &repeated));
    assert_int_equal(repeated, 0);
    for (int i = 0; i < 25; i++)
        assert_false(sl_flood_pass(f, SL_WARN, "busy", now + 999, &repeated));
    assert_true(sl_flood_pass(f, SL_ERROR, "busy", now, &repeated)); /* another level is another line */
    assert_true(sl_flood_pass(f, SL_WARN, "other", now, &repeated));
    assert_null(sl_flood_report(f, now + 999, &repeated));
    assert_true(sl_flood_pass(f, SL_WARN, "busy", now + 1000, &repeated));
    assert_int_equal(repeated, 25);
    assert_null(sl_flood_report(f, UINT64_MAX, &repeated));
    free(f);
}

static void test_flood_is_reported_even_if_the_line_never_comes_back(void **state)
{
    (void)state;
    struct sl_flood *f = sl_alloc(sizeof *f);
    uint64_t repeated;
    for (int i = 0; i < 17; i++)
        (void)sl_flood_pass(f, SL_ERROR, "cut off", 0, &repeated);
    const struct sl_flood_slot *s = sl_flood_report(f, 1000, &repeated);
    assert_non_null(s);
    assert_string_equal(s->msg, "cut off");
    assert_int_equal(s->level, SL_ERROR);
    assert_int_equal(repeated, 7);
    assert_null(sl_flood_report(f, 2000, &repeated));
    free(f);
}

static void test_flood_keeps_its_table_under_many_messages(void **state)
{
    (void)state;
    struct sl_flood *f = sl_alloc(sizeof *f);
    uint64_t repeated;
    char msg[32];
    for (int i = 0; i < 12; i++)
        (void)sl_flood_pass(f, SL_WARN, "held", 0, &repeated);
    for (int i = 0; i < 1000; i++) {
        (void)snprintf(msg, sizeof msg, "message %d", i);
        assert_true(sl_flood_pass(f, SL_WARN, msg, (uint64_t)i, &repeated));
    }
    assert_non_null(
        sl_flood_report(f, UINT64_MAX, &repeated)); /* newcomers did not drive out the one with lines held */
    assert_int_equal(repeated, 2);
    free(f);
}

static void test_flood_counts_what_it_holds_when_its_table_is_full(void **state)
{
    (void)state;
    struct sl_flood *f = sl_alloc(sizeof *f);
    uint64_t repeated;
    char msg[32];
    for (int i = 0; i < SL_LOG_FLOOD_SLOTS + 6; i++) {
        (void)snprintf(msg, sizeof msg, "message %d", i);
        for (int k = 0; k < SL_LOG_BURST + 2; k++)
            (void)sl_flood_pass(f, SL_WARN, msg, (uint64_t)i, &repeated);
    }
    assert_int_equal(f->held, 2 * SL_LOG_FLOOD_SLOTS);
    int reports = 0;
    for (; sl_flood_report(f, UINT64_MAX, &repeated) != NULL; reports++)
        assert_int_equal(repeated, 2);
    assert_int_equal(reports, SL_LOG_FLOOD_SLOTS);
    assert_int_equal(f->held, 0);
    free(f);
}

static void test_mask_hides_numbers_addresses_and_tokens(void **state)
{
    (void)state;
    struct sl_buf b = {0};
    sl_log_mask(&b, SL_STR("call +49 151 123, mail ada@example.org key sk-abcdefghij0123456789 please"));
    assert_bytes(b, "call +## ### ###, mail *** key *** please");
    sl_buf_fini(&b);
}

/* The whole way, into a file in stderr's place. */
static void test_log_line_reaches_stderr_by_level(void **state)
{
    (void)state;
    FILE *file = tmpfile();
    int saved = dup(STDERR_FILENO);
    assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
    sl_log_setup("gateway", SL_INFO, SL_LOG_LOGFMT);
    sl_log(SL_DEBUG, "too fine");
    sl_log_text("customer wrote", "text", SL_STR("my words"));
    sl_log(SL_INFO, "started");
    sl_log_setup("gateway", SL_DEBUG, SL_LOG_LOGFMT);
    sl_log_text("customer wrote", "text", SL_STR("PIN 1234"));
    for (int i = 0; i < 30; i++)
        sl_log(SL_ERROR, "flood", SL_KV_I("i", i));
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    sl_log_setup("test", SL_ERROR, SL_LOG_LOGFMT);
    char text[8192] = "";
    rewind(file);
    size_t n = fread(text, 1, sizeof text - 1, file);
    text[n] = '\0';
    (void)fclose(file);
    (void)close(saved);
    assert_lacks(text, "too fine");
    assert_lacks(text, "my words");
    assert_contains(text, "level=info role=gateway msg=started\n");
    assert_contains(text, "msg=\"customer wrote\" text=\"PIN ####\"\n");
    assert_contains(text, "i=9\n");
    assert_lacks(text, "i=29\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log_logfmt_line),
        cmocka_unit_test(test_log_json_line_is_json),
        cmocka_unit_test(test_log_values_cannot_forge),
        cmocka_unit_test(test_log_long_values_are_cut_at_a_character),
        cmocka_unit_test(test_flood_holds_after_ten_and_reports_them),
        cmocka_unit_test(test_flood_is_reported_even_if_the_line_never_comes_back),
        cmocka_unit_test(test_flood_keeps_its_table_under_many_messages),
        cmocka_unit_test(test_flood_counts_what_it_holds_when_its_table_is_full),
        cmocka_unit_test(test_mask_hides_numbers_addresses_and_tokens),
        cmocka_unit_test(test_log_line_reaches_stderr_by_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
