/* tests/unit/test_wechat_crypt.c - what the vectors cannot say: every wrong byte is refused, and in the same words. */
#include "unit.h"

#include "base/loop.h"
#include "channels/wechat/wechat_crypt.h"

#define KEY "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
#define ID  SL_STR("wx5823bf96d3bd56c7")

static struct wechat_key key_of(const char *chars)
{
    struct wechat_key key;
    assert_int_equal(wechat_key_read(sl_str_c(chars), &key, NULL), SL_OK);
    return key;
}

static void test_key_refuses_what_is_no_key(void **state)
{
    (void)state;
    struct wechat_key key;
    struct sl_fail why = {.text = ""};
    assert_int_equal(wechat_key_read(SL_STR("short"), &key, &why), SL_EINVAL);
    assert_lacks(why.text, "short");
    assert_int_equal(wechat_key_read(SL_STR("abcdefghijklmnopqrstuvwxyz0123456789ABCDEF!"), &key, &why),
                     SL_EINVAL);
    assert_int_equal(wechat_key_read(SL_STR("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGH"), &key, &why),
                     SL_EINVAL);
}

static void test_every_length_comes_back(void **state)
{
    (void)state;
    struct wechat_key key = key_of(KEY);
    unsigned char random[WECHAT_RANDOM_BYTES];
    char text[100];
    memset(text, 'x', sizeof text);
    for (size_t len = 0; len < sizeof text; len++) {
        struct sl_buf cipher, plain;
        struct sl_str message;
        sl_random_bytes(random, sizeof random);
        sl_buf_init(&cipher, 0);
        sl_buf_init(&plain, 0);
        wechat_encrypt(&key, random, sl_str_n(text, len), ID, &cipher);
        assert_int_equal(wechat_decrypt(&key, sl_buf_view(&cipher), ID, &plain, &message), SL_OK);
        assert_int_equal(message.len, len);
        assert_int_equal(
            wechat_decrypt(&key, sl_buf_view(&cipher), SL_STR("wx0000000000000000"), &plain, &message),
            SL_EAUTH);
        sl_buf_fini(&cipher);
        sl_buf_fini(&plain);
    }
}

/* Changed bytes that still decrypt change the first block or the message only: the signature is what finds them. */
static void test_envelope_refuses_every_changed_byte(void **state)
{
    (void)state;
    struct wechat_key key = key_of(KEY);
    const unsigned char random[WECHAT_RANDOM_BYTES] = "aaaabbbbccccddd";
    char signature[WECHAT_SIGNATURE_LEN + 1];
    struct sl_buf cipher, plain;
    struct sl_str message;
    struct sl_fail why = {.text = ""}, first = {.text = ""};
    sl_buf_init(&cipher, 0);
    sl_buf_init(&plain, 0);
    wechat_encrypt(&key, random, SL_STR("<xml></xml>"), ID, &cipher);
    struct sl_str parts[] = {SL_STR("token"), SL_STR("1"), SL_STR("2"), sl_buf_view(&cipher)};
    wechat_sign(parts, 4, signature);
    struct wechat_envelope e = {.token = parts[0],
                                .timestamp = parts[1],
                                .nonce = parts[2],
                                .signature = sl_str_c(signature),
                                .encrypt = parts[3]};
    assert_int_equal(wechat_open_envelope(&key, &e, ID, &plain, &message, &why), SL_OK);
    for (size_t i = 0; i < cipher.len; i++) {
        char kept = cipher.ptr[i];
        cipher.ptr[i] = kept == 'A' ? 'B' : 'A';
        assert_int_equal(wechat_open_envelope(&key, &e, ID, &plain, &message, &why), SL_EAUTH);
        if (i == 0)
            first = why;
        assert_string_equal(first.text, why.text);
        cipher.ptr[i] = kept;
    }
    assert_int_equal(wechat_open_envelope(&key, &e, SL_STR("other"), &plain, &message, &why), SL_EAUTH);
    assert_string_equal(first.text, why.text);
    e.signature = SL_STR("0000000000000000000000000000000000000000");
    assert_int_equal(wechat_open_envelope(&key, &e, ID, &plain, &message, &why), SL_EAUTH);
    assert_string_equal(first.text, why.text);
    sl_buf_fini(&cipher);
    sl_buf_fini(&plain);
}

static void test_decrypt_refuses_bad_base64(void **state)
{
    (void)state;
    struct wechat_key key = key_of(KEY);
    static const char *const bad[] = {
        "",     "A", "====", "AAAA=AAA", "AA==AAAA", "AQEBAQEBAQEBAQEBAQEBAQ=", "AQEBAQEBAQEBAQEBAQEB-_==",
        " AAAA"};
    struct sl_buf plain;
    struct sl_str message;
    sl_buf_init(&plain, 0);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(wechat_decrypt(&key, sl_str_c(bad[i]), ID, &plain, &message), SL_EAUTH);
    sl_buf_fini(&plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_key_refuses_what_is_no_key),
        cmocka_unit_test(test_every_length_comes_back),
        cmocka_unit_test(test_envelope_refuses_every_changed_byte),
        cmocka_unit_test(test_decrypt_refuses_bad_base64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
