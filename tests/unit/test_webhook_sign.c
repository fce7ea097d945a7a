/* tests/unit/test_webhook_sign.c - templates, freshness and rotation; tests/vectors/signatures.json holds the schemes. */
#include "unit.h"

#include "channels/webhook/webhook_sign.h"
#include "channels/webhook/webhook_template.h"

static bool lookup(void *arg, struct sl_str name, struct sl_buf *out)
{
    (void)arg;
    if (!sl_str_eq_c(name, "text"))
        return false;
    sl_buf_c(out, "a\"b\\\n你 &=/");
    return true;
}

static void expect_expanded(const char *text, enum webhook_escape where, const char *want)
{
    struct sl_buf out;
    sl_buf_init(&out, 200);
    sl_err err = webhook_expand(sl_str_c(text), where, lookup, NULL, &out, NULL);
    assert_int_equal(err, want != NULL ? SL_OK : SL_EINVAL);
    if (want != NULL)
        assert_bytes(out, want);
    sl_buf_fini(&out);
}

static void test_expand_escapes_for_its_place(void **state)
{
    (void)state;
    expect_expanded("<${text}>", WEBHOOK_RAW, "<a\"b\\\n你 &=/>");
    expect_expanded("{\"t\":\"${text}\"}", WEBHOOK_IN_JSON, "{\"t\":\"a\\\"b\\\\\\n你 &=/\"}");
    expect_expanded("{\\\"t\\\":\\\"${text:json}\\\"}", WEBHOOK_IN_JSON,
                    "{\\\"t\\\":\\\"a\\\\\\\"b\\\\\\\\\\\\n你 &=/\\\"}");
    expect_expanded("/x?t=${text}", WEBHOOK_IN_URL, "/x?t=a%22b%5C%0A%E4%BD%A0%20%26%3D%2F");
    expect_expanded("/x?t=${text:url}", WEBHOOK_IN_URL, "/x?t=a%22b%5C%0A%E4%BD%A0%20%26%3D%2F");
    expect_expanded("X: ${text}", WEBHOOK_IN_HEADER, NULL); /* a line break in a header */
    expect_expanded("$ and $x stay", WEBHOOK_RAW, "$ and $x stay");
    expect_expanded("${other}", WEBHOOK_RAW, NULL);
    expect_expanded("${text", WEBHOOK_RAW, NULL);
    expect_expanded("${}", WEBHOOK_RAW, NULL);
}

static const struct webhook_rule rule = {.place = WEBHOOK_HEADER,
                                         .name = "x-sign",
                                         .prefix = "v0=",
                                         .separator = ",",
                                         .base = "${ts}|${sorted(token,nonce,id)}|${body}",
                                         .key_prefix = "",
                                         .digest = WEBHOOK_HMAC_SHA256,
                                         .skew_ms = 300000};

static struct webhook_parts signed_parts(struct sl_buf *signature, const char *secret)
{
    struct webhook_parts p = {.ts = SL_STR("1700000000"),
                              .token = SL_STR("zz"),
                              .nonce = SL_STR("a"),
                              .id = SL_STR("m"),
                              .body = SL_STR("{}")};
    sl_buf_init(signature, 0);
    assert_int_equal(webhook_signature(&rule, &p, sl_str_c(secret), signature), SL_OK);
    p.signature = sl_buf_view(signature);
    return p;
}

static void test_verify_rotates_secrets(void **state)
{
    (void)state;
    struct sl_buf signature;
    struct webhook_parts p = signed_parts(&signature, "old");
    const struct sl_str both[] = {SL_STR("new"), SL_STR("old")}, one[] = {SL_STR("new"), SL_STR("")};
    assert_int_equal(webhook_verify(&rule, &p, both, 2, 1700000000000, NULL), SL_OK);
    assert_int_equal(webhook_verify(&rule, &p, one, 2, 1700000000000, NULL), SL_EAUTH);
    assert_int_equal(webhook_verify(&rule, &p, NULL, 0, 1700000000000, NULL), SL_EAUTH);
    sl_buf_fini(&signature);
}

static void test_verify_judges_freshness(void **state)
{
    (void)state;
    struct sl_buf signature;
    struct webhook_parts p = signed_parts(&signature, "k");
    const struct sl_str secret = SL_STR("k");
    static const struct {
        int64_t now_ms;
        sl_err want;
    } row[] = {{1700000000000, SL_OK},
               {1700000300000, SL_OK},
               {1699999700000, SL_OK},
               {1700000301000, SL_EDENIED},
               {1699999699000, SL_EDENIED}};
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++)
        assert_int_equal(webhook_verify(&rule, &p, &secret, 1, row[i].now_ms, NULL), row[i].want);
    sl_buf_fini(&signature);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_expand_escapes_for_its_place),
                                       cmocka_unit_test(test_verify_rotates_secrets),
                                       cmocka_unit_test(test_verify_judges_freshness)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
