/* Known vectors, one spelling of base64url, and passwords. */
#include "base/crypto.h"

#include "unit.h"

static void test_sha256_and_hmac_known_vectors(void **state)
{
    (void)state;
    unsigned char d[32];
    char hex[65];
    sl_sha256(SL_STR("abc"), d); /* FIPS 180-4 example */
    sl_hex(hex, d, 32);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sl_sha256(sl_str_n(NULL, 0), d);
    sl_hex(hex, d, 32);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sl_hmac_sha256(SL_STR("Jefe"), SL_STR("what do ya want for nothing?"), d); /* RFC 4231 test case 2 */
    sl_hex(hex, d, 32);
    assert_string_equal(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    sl_hmac_sha256(sl_str_n(NULL, 0), SL_STR_NONE, d); /* RFC 2104 with nothing in both: a known value */
    sl_hex(hex, d, 32);
    assert_string_equal(hex, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

static void test_secret_eq_compares_all_bytes(void **state)
{
    (void)state;
    assert_true(sl_secret_eq(SL_STR("token"), SL_STR("token")));
    assert_false(sl_secret_eq(SL_STR("token"), SL_STR("tokeN")));
    assert_false(sl_secret_eq(SL_STR("token"), SL_STR("tok")));
    assert_false(sl_secret_eq(sl_str_n("a\0b", 3), sl_str_n("a\0c", 3)));
    assert_true(sl_secret_eq(SL_STR_NONE, sl_str_n(NULL, 0)));
}

static void test_b64url_round_trips_every_length(void **state)
{
    (void)state;
    unsigned char bytes[64];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 37 + 251);
    for (size_t n = 0; n <= sizeof bytes; n++) {
        struct sl_buf text = {0}, back = {0};
        sl_b64url(&text, sl_str_n((const char *)bytes, n));
        assert_int_equal(text.len, (n * 4 + 2) / 3);
        assert_int_equal(sl_b64url_decode(&back, sl_buf_view(&text)), SL_OK);
        assert_int_equal(back.len, n);
        if (n > 0)
            assert_memory_equal(back.ptr, bytes, n);
        sl_buf_fini(&text);
        sl_buf_fini(&back);
    }
}

static void test_b64url_decode_takes_one_spelling_only(void **state)
{
    (void)state;
    struct sl_buf out;
    sl_buf_init(&out, 8);
    sl_buf_c(&out, "keep");
    static const char *const bad[] = {"A",    "AAAAA", "AA==", "AAA=",   "A+AA",    "A/AA",
                                      "AA A", "AB",    "AAB",  "AAAA\n", "\xff\xff"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(sl_b64url_decode(&out, sl_str_c(bad[i])), SL_EINVAL);
    assert_int_equal(sl_b64url_decode(&out, sl_str_n("AA\0A", 4)), SL_EINVAL);
    assert_bytes(out, "keep");
    assert_int_equal(sl_b64url_decode(&out, SL_STR("-_-_")), SL_OK);
    assert_memory_equal(out.ptr, "keep\xfb\xff\xbf", 7);
    assert_int_equal(sl_b64url_decode(&out, SL_STR("AAAA")), SL_ETOOBIG);
    sl_buf_fini(&out);
}

static void test_password_hash_verifies_and_is_salted(void **state)
{
    (void)state;
    char a[128], b[128];
    assert_int_equal(sl_password_hash(SL_STR("correct horse"), a), SL_OK);
    assert_int_equal(sl_password_hash(SL_STR("correct horse"), b), SL_OK);
    assert_true(strncmp(a, "$argon2id$v=19$m=19456,t=2,p=1$", 31) == 0);
    assert_string_not_equal(a, b);
    assert_true(sl_password_verify(a, SL_STR("correct horse")));
    assert_false(sl_password_verify(a, SL_STR("correct hors")));
    assert_false(sl_password_verify(a, SL_STR_NONE));
}

static void test_password_verify_refuses_what_would_exhaust_us(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "x",
        "$argon2id$",
        "$argon2i$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAA",
        "$argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAA",
        "$argon2id$v=19$m=19456,t=4000000,p=1$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAA",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(sl_password_verify(bad[i], SL_STR("x")));
    char longer[2000], out[128];
    memset(longer, 'p', sizeof longer);
    assert_int_equal(sl_password_hash(sl_str_n(longer, sizeof longer), out), SL_ETOOBIG);
}

static void test_b64_both_ways(void **state)
{
    (void)state;
    /* RFC 4648 10, and the two characters in which it differs from base64url */
    static const struct {
        const char *plain, *coded;
    } row[] = {{"", ""},
               {"f", "Zg=="},
               {"foo", "Zm9v"},
               {"foob", "Zm9vYg=="},
               {"foobar", "Zm9vYmFy"},
               {"\xfb\xff", "+/8="}};
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct sl_buf b;
        sl_buf_init(&b, 0);
        sl_b64(&b, sl_str_c(row[i].plain));
        assert_bytes(b, row[i].coded);
        sl_buf_clear(&b);
        assert_int_equal(sl_b64_decode(&b, sl_str_c(row[i].coded)), SL_OK);
        assert_bytes(b, row[i].plain);
        sl_buf_fini(&b);
    }
    static const char *const bad[] = {"Zg=", "Z===", "Zm9v====", "Zg==Zg==", "-_8=", "Z g=", "Zh=="};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct sl_buf b;
        sl_buf_init(&b, 0);
        assert_int_equal(sl_b64_decode(&b, sl_str_c(bad[i])), SL_EINVAL);
        assert_int_equal(b.len, 0);
        sl_buf_fini(&b);
    }
}

/* RFC 3174 7.3, RFC 2202 3. */
static void test_sha1(void **state)
{
    (void)state;
    unsigned char out[20];
    char hex[41];
    sl_sha1(SL_STR("abc"), out);
    sl_hex(hex, out, sizeof out);
    assert_string_equal(hex, "a9993e364706816aba3e25717850c26c9cd0d89d");
    sl_hmac_sha1(SL_STR("Jefe"), SL_STR("what do ya want for nothing?"), out);
    sl_hex(hex, out, sizeof out);
    assert_string_equal(hex, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_b64_both_ways),
        cmocka_unit_test(test_sha1),
        cmocka_unit_test(test_sha256_and_hmac_known_vectors),
        cmocka_unit_test(test_secret_eq_compares_all_bytes),
        cmocka_unit_test(test_b64url_round_trips_every_length),
        cmocka_unit_test(test_b64url_decode_takes_one_spelling_only),
        cmocka_unit_test(test_password_hash_verifies_and_is_salted),
        cmocka_unit_test(test_password_verify_refuses_what_would_exhaust_us),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
