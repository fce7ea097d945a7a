/* Heads of requests: what is clear is read, at any cut; what two programs could read in two ways is refused. */
#include "gateway/http_wire.h"

#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

#define H "Host: x\r\n"

/* In memory of exactly its size, so that a read behind it is seen. */
static enum gw_http_verdict read_exactly(const char *text, size_t len, struct gw_http_head *h)
{
    char *copy = malloc(len > 0 ? len : 1);
    memcpy(copy, text, len);
    enum gw_http_verdict v = gw_http_read(sl_str_n(copy, len), h);
    free(copy);
    return v;
}

/* Each shorter piece is MORE; with bytes behind it, it is the same. */
static void check_cuts(const char *text, struct gw_http_head *h)
{
    size_t len = strlen(text);
    char more[1024];
    for (size_t i = 0; i < len; i++)
        assert_int_equal(read_exactly(text, i, h), GW_HTTP_MORE);
    int n = snprintf(more, sizeof more, "%sGET /next HTTP/1.1\r\n", text);
    assert_int_equal(read_exactly(more, (size_t)n, h), GW_HTTP_WHOLE);
    assert_int_equal(h->len, len);
    assert_int_equal(gw_http_read(sl_str_c(text), h), GW_HTTP_WHOLE);
    assert_int_equal(h->len, len);
}

static void test_read_takes_what_is_clear(void **state)
{
    static const struct {
        const char *text, *method, *path, *query;
        int body;
        bool is_last, is_10, expects;
        enum gw_http_upgrade upgrade;
    } good[] = {
        {"GET / HTTP/1.1\r\n" H "\r\n", "GET", "/", "", 0, false, false, false, GW_HTTP_STAY},
        {"\r\nGET /a HTTP/1.1\r\n" H "\r\n", "GET", "/a", "", 0, false, false, false, GW_HTTP_STAY},
        {"POST /a/b?c=d&e=%20 HTTP/1.1\r\nhost:x:80\r\ncontent-length: 12\r\n\r\n", "POST", "/a/b",
         "c=d&e=%20", 12, false, false, false, GW_HTTP_STAY},
        {"GET http://e.org/p?q HTTP/1.1\r\n" H "\r\n", "GET", "/p", "q", 0, false, false, false,
         GW_HTTP_STAY},
        {"OPTIONS * HTTP/1.1\r\n" H "\r\n", "OPTIONS", "*", "", 0, false, false, false, GW_HTTP_STAY},
        {"HEAD /?? HTTP/1.1\r\n" H "Connection: x, Close\r\n\r\n", "HEAD", "/", "?", 0, true, false, false,
         GW_HTTP_STAY},
        {"GET / HTTP/1.0\r\n\r\n", "GET", "/", "", 0, true, true, false, GW_HTTP_STAY},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET", "/", "", 0, false, true, false,
         GW_HTTP_STAY},
        {"GET / HTTP/1.7\r\n" H "\r\n", "GET", "/", "", 0, false, false, false, GW_HTTP_STAY},
        {"PUT / HTTP/1.1\r\n" H "Content-Length:\t007 \r\nExpect: 100-Continue\r\n\r\n", "PUT", "/", "", 7,
         false, false, true, GW_HTTP_STAY},
        {"GET / HTTP/1.1\r\nHost:\r\nX:\r\nY: \xe4\xbd\xa0\ta\r\n\r\n", "GET", "/", "", 0, false, false,
         false, GW_HTTP_STAY},
        {"GET /ws HTTP/1.1\r\n" H "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
         "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
         "GET", "/ws", "", 0, false, false, false, GW_HTTP_WEBSOCKET},
        {"GET /ws HTTP/1.1\r\n" H "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "GET", "/ws", "", 0, false,
         false, false, GW_HTTP_OTHER},
        {"POST /ws HTTP/1.1\r\n" H "Content-Length: 2\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
         "POST", "/ws", "", 2, false, false, false, GW_HTTP_OTHER},
        {"GET /ws HTTP/1.1\r\n" H "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
         "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
         "GET", "/ws", "", 0, false, false, false, GW_HTTP_OTHER},
        {"GET /ws HTTP/1.1\r\n" H
         "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
         "GET", "/ws", "", 0, false, false, false, GW_HTTP_OTHER},
    };
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct gw_http_head h;
        check_cuts(good[i].text, &h);
        assert_true(sl_str_eq_c(h.method, good[i].method) && sl_str_eq_c(h.path, good[i].path) &&
                    sl_str_eq_c(h.query, good[i].query));
        assert_int_equal(h.body, good[i].body);
        assert_int_equal(h.is_last, good[i].is_last);
        assert_int_equal(h.is_http_10, good[i].is_10);
        assert_int_equal(h.expects_continue, good[i].expects);
        assert_int_equal(h.upgrade, good[i].upgrade);
    }
}

static void test_read_refuses_what_is_in_doubt(void **state)
{
    static const struct {
        const char *text;
        int status;
    } bad[] = {
        {"\x16\x03\x01", 400}, /* TLS */
        {" GET / HTTP/1.1\r\n", 400},
        {"\r\n\r\nGET / HTTP/1.1\r\n", 400},
        {"GET / HTTP/1.1\n", 400},
        {"GET / HTTP/1.1\r\r\n", 400},
        {"GET / HTTP/1.1\r\n" H "\n", 400},
        {"GET / HTTP/1.1\r\nHost: x\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" H "A: b\rC: d\r\n\r\n", 400},
        {"GET /\r\n", 400},
        {"GET / \r\n", 400},
        {"GET  / HTTP/1.1\r\n", 400},
        {"GET /  HTTP/1.1\r\n", 400},
        {"GET / HTTP/1.1 \r\n", 400},
        {"GET / http/1.1\r\n", 400},
        {"GET / HTTP/1.11\r\n", 400},
        {"GET / HTTP/2.0\r\n", 505},
        {"PRI * HTTP/2.0\r\n", 505},
        {"GET / HTTP/7.9\r\n", 505},
        {"GETGETGETGETGETGE / HTTP/1.1\r\n", 501},
        {"G\"T / HTTP/1.1\r\n", 400},
        {"GET a HTTP/1.1\r\n", 400},
        {"GET ftp://x/ HTTP/1.1\r\n", 400},
        {"GET http:///x HTTP/1.1\r\n", 400},
        {"GET http://x HTTP/1.1\r\n", 400},
        {"CONNECT x:80 HTTP/1.1\r\n", 400},
        {"GET /a b HTTP/1.1\r\n", 400},
        {"GET /a\tb HTTP/1.1\r\n", 400},
        {"GET /\xe4\xbd\xa0 HTTP/1.1\r\n", 400},
        {"GET /a#b HTTP/1.1\r\n", 400},
        {"GET / HTTP/1.1\r\n\r\n", 400}, /* no Host */
        {"GET / HTTP/1.1\r\n" H H "\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: x, y\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: x/y\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: u@x\r\n", 400},
        {"GET / HTTP/1.1\r\nHost : x\r\n", 400},
        {"GET / HTTP/1.1\r\n Host: x\r\n", 400},
        {"GET / HTTP/1.1\r\n" H "A: b\r\n c\r\n", 400},
        {"GET / HTTP/1.1\r\n" H "A b\r\n", 400},
        {"GET / HTTP/1.1\r\n" H ": b\r\n", 400},
        {"GET / HTTP/1.1\r\n" H "A: \x01\r\n", 400},
        {"GET / HTTP/1.1\r\n" H "A: \x7f\r\n", 400},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Length: 5\r\n", 400},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 5, 5\r\n", 400},
        {"POST / HTTP/1.1\r\n" H "Content-Length: +5\r\n", 400},
        {"POST / HTTP/1.1\r\n" H "Content-Length: -5\r\n", 400},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 0x5\r\n", 400},
        {"POST / HTTP/1.1\r\n" H "Content-Length:\r\n", 400},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 1000000000000000\r\n", 400},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 99999999999999999999\r\n", 400},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n", 400},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400},
        {"POST / HTTP/1.1\r\n" H "transfer-encoding: identity\r\n", 400},
        {"POST / HTTP/1.1\r\n" H "Expect: 200-ok\r\n", 417},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct gw_http_head h;
        assert_int_equal(read_exactly(bad[i].text, strlen(bad[i].text), &h), GW_HTTP_BAD);
        assert_int_equal(h.status, bad[i].status);
        assert_true(h.why != NULL && h.why[0] != '\0');
    }
}

static void test_read_is_bounded(void **state)
{
    struct gw_http_head h;
    struct sl_buf b;
    (void)state;
    sl_buf_init(&b, 0);
    sl_buf_c(&b, "GET /");
    while (b.len < GW_HTTP_HEAD_MAX_BYTES)
        sl_buf_char(&b, 'a');
    assert_int_equal(read_exactly(b.ptr, b.len - 1, &h), GW_HTTP_MORE);
    assert_int_equal(read_exactly(b.ptr, b.len, &h), GW_HTTP_BAD);
    assert_int_equal(h.status, 414);
    sl_buf_clear(&b);
    sl_buf_c(&b, "GET / HTTP/1.1\r\n" H "A: ");
    while (b.len < GW_HTTP_HEAD_MAX_BYTES - 4)
        sl_buf_char(&b, 'a');
    sl_buf_c(&b, "\r\n\r\n");
    assert_int_equal(read_exactly(b.ptr, b.len, &h), GW_HTTP_WHOLE);
    assert_int_equal(h.len, GW_HTTP_HEAD_MAX_BYTES);
    b.ptr[b.len - 4] = 'a';
    assert_int_equal(read_exactly(b.ptr, b.len, &h), GW_HTTP_BAD);
    sl_buf_clear(&b);
    sl_buf_c(&b, "GET / HTTP/1.1\r\n" H);
    for (int i = 1; i < GW_HTTP_FIELDS_MAX; i++)
        sl_buf_c(&b, "A: b\r\n");
    sl_buf_c(&b, "\r\n");
    assert_int_equal(read_exactly(b.ptr, b.len, &h), GW_HTTP_WHOLE);
    b.len -= 2;
    sl_buf_c(&b, "A: b\r\n\r\n");
    assert_int_equal(read_exactly(b.ptr, b.len, &h), GW_HTTP_BAD);
    assert_int_equal(h.status, 431);
    sl_buf_fini(&b);
}

static void test_field_is_found_by_name(void **state)
{
    struct gw_http_head h;
    static const char text[] =
        "GET / HTTP/1.1\r\n" H "AA: 1\r\nA: \t2 \r\nEmpty:\r\na: 3\r\nX-Last:4\r\n\r\n";
    (void)state;
    assert_int_equal(gw_http_read(sl_str_c(text), &h), GW_HTTP_WHOLE);
    assert_true(sl_str_eq_c(gw_http_field(h.fields, "a"), "2")); /* the first */
    assert_true(sl_str_eq_c(gw_http_field(h.fields, "aa"), "1"));
    assert_true(sl_str_eq_c(gw_http_field(h.fields, "empty"), ""));
    assert_true(sl_str_eq_c(gw_http_field(h.fields, "x-last"), "4"));
    assert_true(sl_str_eq_c(gw_http_field(h.fields, "host"), "x"));
    assert_int_equal(gw_http_field(h.fields, "x").len, 0);
    assert_int_equal(gw_http_field(h.fields, "").len, 0);
}

static void test_decode_resolves_percent_signs(void **state)
{
    static const struct {
        const char *text, *path, *query; /* NULL: refused */
    } cases[] = {{"", "", ""},          {"/a%2fb%2F", "/a/b/", "/a/b/"},
                 {"a+b", "a+b", "a b"}, {"%e4%BD%a0", "\xe4\xbd\xa0", "\xe4\xbd\xa0"},
                 {"%", NULL, NULL},     {"%4", NULL, NULL},
                 {"%4g", NULL, NULL},   {"%%41", NULL, NULL},
                 {"%00", NULL, NULL},   {"%0a", NULL, "\n"},
                 {"%7f", NULL, "\x7f"}, {"%25%34%31", "%41", "%41"}};
    struct sl_buf b;
    (void)state;
    sl_buf_init(&b, 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int is_query = 0; is_query < 2; is_query++) {
            const char *wanted = is_query ? cases[i].query : cases[i].path;
            sl_buf_clear(&b);
            assert_int_equal(gw_http_decode(sl_str_c(cases[i].text), is_query, &b), wanted != NULL);
            assert_true(wanted == NULL || sl_str_eq_c(sl_buf_view(&b), wanted));
        }
    sl_buf_fini(&b);
}

static void test_dots_are_seen(void **state)
{
    static const char *const with[] = {"/.", "/..", "/./a", "/a/../b", "/a/..", "..", "/a/."};
    static const char *const without[] = {"/", "", "*", "/a.b/..c/d..", "/...", "/a/b", "/.well-known/x",
                                          "//"};
    (void)state;
    for (size_t i = 0; i < sizeof with / sizeof with[0]; i++)
        assert_true(gw_http_has_dots(sl_str_c(with[i])));
    for (size_t i = 0; i < sizeof without / sizeof without[0]; i++)
        assert_false(gw_http_has_dots(sl_str_c(without[i])));
}

static void test_answer_is_written(void **state)
{
    struct sl_buf b;
    (void)state;
    sl_buf_init(&b, 0);
    gw_http_add_status(&b, 404);
    gw_http_add_status(&b, 299);
    gw_http_add_field(&b, SL_STR("a"), SL_STR("b c"));
    gw_http_add_field(&b, SL_STR("split"), SL_STR("b\r\nset-cookie: c"));
    gw_http_add_date(&b, 784111777); /* the example of RFC 9110 5.6.7 */
    assert_true(
        sl_str_eq_c(sl_buf_view(&b),
                    "HTTP/1.1 404 Not Found\r\nHTTP/1.1 299 \r\na: b c\r\nSun, 06 Nov 1994 08:49:37 GMT"));
    sl_buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_takes_what_is_clear),
        cmocka_unit_test(test_read_refuses_what_is_in_doubt),
        cmocka_unit_test(test_read_is_bounded),
        cmocka_unit_test(test_field_is_found_by_name),
        cmocka_unit_test(test_decode_resolves_percent_signs),
        cmocka_unit_test(test_dots_are_seen),
        cmocka_unit_test(test_answer_is_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
