/* tests/unit/test_mail_thread.c - tokens, the order of threading, automatic mails, who vouches. */
#include "unit.h"

#include "channels/email/mail_auth.h"
#include "channels/email/mail_loop.h"
#include "channels/email/mail_thread.h"

#include <ctype.h>

#define CONV "17.01JD3Q5Y8Z7X6W5V4T3S2R1P0N"

static const struct email_keys keys = {.secret = {"a secret of 16 bytes", 20},
                                       .inbox = {"mail", 4},
                                       .address = {"support@sluice.example", 22},
                                       .domain = {"sluice.example", 14}};

static struct sl_str made(struct sl_buf *b, bool is_ok)
{
    assert_true(is_ok);
    return sl_buf_view(b);
}

static void test_tokens_are_read_back(void **state)
{
    (void)state;
    struct sl_buf b;
    char what[EMAIL_CONV_MAX], key[EMAIL_CONV_MAX];
    sl_buf_init(&b, 0);
    struct sl_str a = made(&b, email_conversation_address(&keys, SL_STR(CONV), &b));
    assert_true(email_address_ok(a));
    assert_int_equal(email_address_read(&keys, a, what), EMAIL_TO_CONVERSATION);
    assert_string_equal(what, CONV);
    for (size_t i = 0; i < b.len; i++)
        b.ptr[i] = (char)toupper((unsigned char)b.ptr[i]); /* some servers do */
    assert_int_equal(email_address_read(&keys, sl_buf_view(&b), what), EMAIL_TO_CONVERSATION);
    sl_buf_clear(&b);
    a = made(&b, email_bounce_address(&keys, SL_STR("01jd-2_a"), &b));
    assert_int_equal(email_address_read(&keys, a, what), EMAIL_TO_BOUNCE);
    assert_string_equal(what, "01jd-2_a");
    sl_buf_clear(&b);
    email_message_id(&keys, SL_STR(CONV), SL_STR("k-1"), &b);
    assert_true(email_message_id_read(&keys, sl_buf_view(&b), what, key));
    assert_string_equal(what, CONV);
    assert_string_equal(key, "k-1");
    sl_buf_clear(&b);
    email_message_id(&keys, SL_STR_NONE, SL_STR("k-1"), &b);
    assert_true(email_message_id_read(&keys, sl_buf_view(&b), what, key));
    assert_string_equal(what, "");
    sl_buf_fini(&b);
}

static void test_forged_tokens_prove_nothing(void **state)
{
    (void)state;
    struct sl_buf b, c;
    struct email_keys other = keys;
    char what[EMAIL_CONV_MAX], key[EMAIL_CONV_MAX];
    sl_buf_init(&b, 0);
    sl_buf_init(&c, 0);
    (void)made(&b, email_conversation_address(&keys, SL_STR(CONV), &b));
    other.inbox = SL_STR("other");
    assert_int_equal(email_address_read(&other, sl_buf_view(&b), what), EMAIL_TO_US);
    assert_string_equal(what, "");
    other = keys;
    other.secret = SL_STR("a new secret, 16 bytes");
    assert_int_equal(email_address_read(&other, sl_buf_view(&b), what), EMAIL_TO_US);
    other.old_secret = keys.secret; /* the secret was changed: what we wrote before still counts */
    assert_int_equal(email_address_read(&other, sl_buf_view(&b), what), EMAIL_TO_CONVERSATION);
    for (size_t i = 8; i < b.len && b.ptr[i] != '@'; i++) { /* every byte of the tag */
        const char before = b.ptr[i];
        b.ptr[i] = before == 'x' ? 'y' : 'x';
        assert_int_not_equal(email_address_read(&keys, sl_buf_view(&b), what), EMAIL_TO_CONVERSATION);
        b.ptr[i] = before;
    }
    /* the hash of a bounce token is none for a conversation */
    (void)made(&c, email_bounce_address(&keys, SL_STR("17-01jd3q5y8z7x6w5v4t3s2r1p0n"), &c));
    c.ptr[8] = 'c';
    assert_int_equal(email_address_read(&keys, sl_buf_view(&c), what), EMAIL_TO_US);
    assert_false(email_message_id_read(&keys, SL_STR("<sluice.c123.s45.abcd@sluice.example>"), what, key));
    assert_int_equal(email_address_read(&keys, SL_STR("support@sluice.example"), what), EMAIL_TO_US);
    assert_int_equal(email_address_read(&keys, SL_STR("supports@sluice.example"), what), EMAIL_TO_OTHERS);
    assert_int_equal(email_address_read(&keys, SL_STR("support@sluice.example.cn"), what), EMAIL_TO_OTHERS);
    sl_buf_fini(&b);
    sl_buf_fini(&c);
}

static void test_long_addresses_carry_no_token(void **state)
{
    (void)state;
    struct email_keys k = keys;
    struct sl_buf b;
    sl_buf_init(&b, 0);
    k.address = SL_STR("a-local-part-of-forty-characters-or-more@sluice.example");
    assert_false(email_conversation_address(&k, SL_STR(CONV), &b));
    assert_false(email_conversation_address(&keys, SL_STR("no id"), &b));
    assert_int_equal(b.len, 0);
    sl_buf_fini(&b);
}

static struct email_mail *parsed(const char *text)
{
    struct email_mail *m = NULL;
    struct sl_fail why;
    assert_int_equal(email_parse(sl_str_c(text), &m, &why), SL_OK);
    return m;
}

static void test_thread_order(void **state)
{
    (void)state;
    struct sl_buf address, id, text;
    char conv[EMAIL_CONV_MAX];
    sl_buf_init(&address, 0);
    sl_buf_init(&id, 0);
    sl_buf_init(&text, 0);
    (void)made(&address, email_conversation_address(&keys, SL_STR(CONV), &address));
    email_message_id(&keys, SL_STR("3.01ARZ3NDEKTSV4RRFFQ69G5FAV"), SL_STR("k"), &id);
    sl_buf_printf(&text,
                  "From: a@b.cn\r\nSubject: Re: [" CONV
                  "]\r\nIn-Reply-To: <x@y>\r\nReferences: %.*s <x@y>\r\n\r\nhi",
                  (int)id.len, id.ptr);
    sl_buf_char(&text, '\0');
    struct email_mail *m = parsed(text.ptr);
    assert_int_equal(email_thread_of(&keys, m, NULL, 0, conv), EMAIL_BY_REFERENCES);
    assert_string_equal(conv, "3.01ARZ3NDEKTSV4RRFFQ69G5FAV");
    const struct sl_str envelope = sl_buf_view(&address);
    assert_int_equal(email_thread_of(&keys, m, &envelope, 1, conv), EMAIL_BY_ADDRESS);
    assert_string_equal(conv, CONV);
    email_mail_free(&m);
    m = parsed("From: a@b.cn\r\nSubject: Re: [" CONV "]\r\n\r\nhi"); /* a subject proves nothing */
    assert_int_equal(email_thread_of(&keys, m, NULL, 0, conv), EMAIL_NO_THREAD);
    assert_string_equal(conv, "");
    email_mail_free(&m);
    sl_buf_fini(&address);
    sl_buf_fini(&id);
    sl_buf_fini(&text);
}

static enum email_auto auto_of(const char *header, const char *from)
{
    struct email_heap *h = email_heap_new();
    struct email_headers hs;
    assert_int_equal(email_headers_read(h, sl_str_c(header), &hs, NULL), SL_OK);
    const enum email_auto a = email_auto_of(&hs, sl_str_c(from), NULL, keys.address, keys.domain);
    email_heap_free(&h);
    return a;
}

static void test_automatic_mails(void **state)
{
    (void)state;
    assert_int_equal(auto_of("Auto-Submitted: no\r\n\r\n", "a@b.cn"), EMAIL_BY_PERSON);
    assert_int_equal(auto_of("Auto-Submitted: auto-replied (vacation)\r\n\r\n", "a@b.cn"),
                     EMAIL_AUTO_SUBMITTED);
    assert_int_equal(auto_of("X-Auto-Response-Suppress: All\r\n\r\n", "a@b.cn"), EMAIL_ASKS_NO_ANSWER);
    assert_int_equal(auto_of("Precedence: Bulk\r\n\r\n", "a@b.cn"), EMAIL_AUTO_PRECEDENCE);
    assert_int_equal(auto_of("Precedence: first-class\r\n\r\n", "a@b.cn"), EMAIL_BY_PERSON);
    assert_int_equal(auto_of("List-Id: <x>\r\n\r\n", "a@b.cn"), EMAIL_AUTO_LIST);
    assert_int_equal(auto_of("Return-Path: <>\r\n\r\n", "a@b.cn"), EMAIL_AUTO_NULL_PATH);
    assert_int_equal(auto_of("X-Autoreply: yes\r\n\r\n", "a@b.cn"), EMAIL_AUTO_MARKED);
    assert_int_equal(auto_of("Content-Type: multipart/report; x=y\r\n\r\n", "a@b.cn"), EMAIL_AUTO_REPORT);
    assert_int_equal(auto_of("A: b\r\n\r\n", "mailer-daemon@b.cn"), EMAIL_AUTO_SENDER);
    assert_int_equal(auto_of("A: b\r\n\r\n", "support@sluice.example"), EMAIL_AUTO_OURS);
    assert_int_equal(auto_of("Message-ID: <sluice.0.k.x@sluice.example>\r\n\r\n", "a@b.cn"), EMAIL_AUTO_OURS);
    assert_int_equal(auto_of("Message-ID: <sluice.0.k.x@elsewhere.example>\r\n\r\n", "a@b.cn"),
                     EMAIL_BY_PERSON);
}

static enum email_trust trust_of(const char *fields)
{
    struct email_heap *h = email_heap_new();
    struct email_headers hs;
    assert_int_equal(email_headers_read(h, sl_str_c(fields), &hs, NULL), SL_OK);
    const enum email_trust t = email_trust_of(&hs, SL_STR("mx.sluice.example"), SL_STR("a@mail.example.cn"));
    email_heap_free(&h);
    return t;
}
#define FROM "From: a@mail.example.cn\r\n"
#define AR   "Authentication-Results: "

static void test_trust(void **state)
{
    (void)state;
    assert_int_equal(trust_of(FROM AR "mx.sluice.example; dmarc=pass header.from=mail.example.cn\r\n"),
                     EMAIL_VERIFIED);
    assert_int_equal(trust_of(FROM AR "mx.sluice.example (x; y) 1;\r\n dkim=pass header.d=example.cn\r\n"),
                     EMAIL_VERIFIED);
    assert_int_equal(trust_of(FROM AR "mx.sluice.example; dkim=pass header.d=evil.cn\r\n"), EMAIL_UNVERIFIED);
    assert_int_equal(trust_of(FROM AR "mx.sluice.example; dkim=pass header.d=cn\r\n"), EMAIL_UNVERIFIED);
    assert_int_equal(trust_of(FROM AR "mx.sluice.example; dkim=pass header.d=le.cn\r\n"), EMAIL_UNVERIFIED);
    assert_int_equal(trust_of(FROM AR "mx.sluice.example; spf=pass smtp.mailfrom=a@mail.example.cn\r\n"),
                     EMAIL_UNVERIFIED);
    assert_int_equal(trust_of(FROM AR "evil.example; dmarc=pass\r\n"), EMAIL_UNVERIFIED);
    assert_int_equal(trust_of(FROM AR "mx.sluice.example; none\r\n" AR "mx.sluice.example; dmarc=pass\r\n"),
                     EMAIL_UNVERIFIED); /* the topmost of ours counts */
    assert_int_equal(trust_of(FROM AR "mx.sluice.example; spf=none (dmarc=pass)\r\n"), EMAIL_UNVERIFIED);
    assert_int_equal(trust_of(FROM AR "mx.sluice.example; x-y=\"; dmarc=pass\"\r\n"), EMAIL_UNVERIFIED);
    assert_int_equal(trust_of(FROM AR "mx.sluice.example; dmarc=fail; dkim=pass header.d=example.cn\r\n"),
                     EMAIL_UNVERIFIED);
    assert_int_equal(trust_of(FROM "From: b@x.cn\r\n" AR "mx.sluice.example; dmarc=pass\r\n"),
                     EMAIL_UNVERIFIED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens_are_read_back),
        cmocka_unit_test(test_forged_tokens_prove_nothing),
        cmocka_unit_test(test_long_addresses_carry_no_token),
        cmocka_unit_test(test_thread_order),
        cmocka_unit_test(test_automatic_mails),
        cmocka_unit_test(test_trust),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
