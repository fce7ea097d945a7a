/* tests/unit/test_sms_optout.c - the words that end messages, and numbers in one form. */
#include "unit.h"

#include "channels/sms/sms_optout.h"

static void test_words(void **state)
{
    (void)state;
    static const char *const stop[] = {"STOP", " stop. ",      "退订",     "退订。", "TD",      "td",
                                       "T",    "Unsubscribe!", "ＳＴＯＰ", "ｔｄ",   "回T退订", "“退订”"};
    static const char *const start[] = {"START", "恢复", " unstop"};
    static const char *const none[] = {"",
                                       "stop it please",
                                       "T恤有货吗",
                                       "please stop",
                                       "no",
                                       "我要退订会员",
                                       "yes",
                                       "stopwatch",
                                       "N",
                                       "1",
                                       "stop stop stop stop stop stop stop stop"};
    for (size_t i = 0; i < sizeof stop / sizeof stop[0]; i++)
        assert_int_equal(sms_optout_word(sl_str_c(stop[i])), SMS_OPTOUT_STOP);
    for (size_t i = 0; i < sizeof start / sizeof start[0]; i++)
        assert_int_equal(sms_optout_word(sl_str_c(start[i])), SMS_OPTOUT_START);
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        assert_int_equal(sms_optout_word(sl_str_c(none[i])), SMS_OPTOUT_NONE);
}

static void test_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *raw, *country, *want; /* want NULL: refused */
    } row[] = {{"+8613800138000", "86", "+8613800138000"},
               {"13800138000", "86", "+8613800138000"},
               {"8613800138000", "86", "+8613800138000"},
               {"0086 138-0013-8000", "86", "+8613800138000"},
               {"(555) 867-5309", "1", "+15558675309"},
               {"15558675309", "1", "+15558675309"},
               {"10690001", "", "10690001"},
               {"95588", "86", "95588"},
               {"Bank", "86", "Bank"},
               {"+1555abc", "1", NULL},
               {"", "86", NULL},
               {"+", "86", NULL},
               {"1380013\n8000", "86", NULL},
               {"138{0}", "86", NULL},
               {"1111111111111111111111111111111111111", "86", NULL}};
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        char out[SMS_NUMBER_MAX + 1] = "";
        sl_err err = sms_number_canonical(sl_str_c(row[i].raw), row[i].country, out);
        assert_int_equal(err, row[i].want != NULL ? SL_OK : SL_EINVAL);
        if (row[i].want != NULL)
            assert_string_equal(out, row[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_words), cmocka_unit_test(test_numbers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
