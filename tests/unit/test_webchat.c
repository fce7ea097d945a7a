/* tests/unit/test_webchat.c - visitors' tokens and origins. */
#include "unit.h"

#include "channels/webchat/webchat_wire.h"

#define NOW_MS INT64_C(1700000000000)
#define SECRET SL_STR("sixteen bytes of secret")

static struct sl_buf token_of(const char *address, int64_t issued_s)
{
    struct sl_buf token;
    sl_buf_init(&token, 0);
    webchat_token_write(&token, SECRET, SL_STR("web"), sl_str_c(address), issued_s);
    return token;
}

static void test_token_comes_back_with_its_address(void **state)
{
    (void)state;
    struct sl_str address;
    struct sl_buf token = token_of("a.b@c+d-e", NOW_MS / 1000);
    assert_int_equal(webchat_token_read(sl_buf_view(&token), SECRET, SL_STR("web"), NOW_MS, &address, NULL),
                     SL_OK);
    assert_bytes(address, "a.b@c+d-e");
    sl_buf_fini(&token);
}

/* Whatever single byte is changed, the token is refused. */
static void test_token_refuses_every_changed_byte(void **state)
{
    (void)state;
    struct sl_str address;
    struct sl_buf token = token_of("visitor", NOW_MS / 1000);
    for (size_t i = 0; i < token.len; i++) {
        char kept = token.ptr[i];
        token.ptr[i] = kept == 'A' ? 'B' : 'A';
        assert_int_equal(
            webchat_token_read(sl_buf_view(&token), SECRET, SL_STR("web"), NOW_MS, &address, NULL), SL_EAUTH);
        token.ptr[i] = kept;
    }
    for (size_t n = 0; n < token.len; n++)
        assert_int_equal(
            webchat_token_read(sl_str_n(token.ptr, n), SECRET, SL_STR("web"), NOW_MS, &address, NULL),
            SL_EAUTH);
    sl_buf_fini(&token);
}

static void test_token_is_of_one_inbox_one_secret_and_a_time(void **state)
{
    (void)state;
    struct sl_str address;
    const int64_t day_s = 86400;
    struct sl_buf token = token_of("v", NOW_MS / 1000), old = token_of("v", NOW_MS / 1000 - 401 * day_s);
    struct sl_buf early = token_of("v", NOW_MS / 1000 + 2 * day_s), slash = token_of("a/b", NOW_MS / 1000);
    assert_int_equal(webchat_token_read(sl_buf_view(&token), SECRET, SL_STR("other"), NOW_MS, &address, NULL),
                     SL_EAUTH);
    assert_int_equal(webchat_token_read(sl_buf_view(&token), SL_STR("another secret of 16"), SL_STR("web"),
                                        NOW_MS, &address, NULL),
                     SL_EAUTH);
    assert_int_equal(webchat_token_read(sl_buf_view(&old), SECRET, SL_STR("web"), NOW_MS, &address, NULL),
                     SL_EAUTH);
    assert_int_equal(webchat_token_read(sl_buf_view(&early), SECRET, SL_STR("web"), NOW_MS, &address, NULL),
                     SL_EAUTH);
    assert_int_equal(webchat_token_read(sl_buf_view(&slash), SECRET, SL_STR("web"), NOW_MS, &address, NULL),
                     SL_EAUTH);
    sl_buf_fini(&token);
    sl_buf_fini(&old);
    sl_buf_fini(&early);
    sl_buf_fini(&slash);
}

static void test_origin_is_compared_whole(void **state)
{
    (void)state;
    const char *const list[] = {"https://shop.example", "http://localhost:3000"};
    assert_true(webchat_origin_listed(SL_STR("https://shop.example"), list, 2));
    assert_true(webchat_origin_listed(SL_STR("http://localhost:3000"), list, 2));
    assert_false(webchat_origin_listed(SL_STR("https://shop.example.evil.example"), list, 2));
    assert_false(webchat_origin_listed(SL_STR("https://shop.exampl"), list, 2));
    assert_false(webchat_origin_listed(SL_STR("null"), list, 2));
    assert_false(webchat_origin_listed(SL_STR_NONE, list, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_token_comes_back_with_its_address),
        cmocka_unit_test(test_token_refuses_every_changed_byte),
        cmocka_unit_test(test_token_is_of_one_inbox_one_secret_and_a_time),
        cmocka_unit_test(test_origin_is_compared_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
