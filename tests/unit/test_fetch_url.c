/* What may be fetched for a customer: a long list of what may not. */
#include "gateway/fetch_url.h"

#include "unit.h"

#include <arpa/inet.h>
#include <stdio.h>

static sl_err read_url(const char *text, struct gw_url *out)
{
    struct sl_fail why;
    return gw_url_read(sl_str_c(text), &(struct gw_url_rule){.is_trusted = false}, out, &why);
}

static void test_public_urls_are_read(void **state)
{
    static const struct {
        const char *text, *host, *whole;
        int port;
    } good[] = {
        {"http://e.org", "e.org", "http://e.org/", 80},
        {"https://E.ORG:443/a?b#c", "e.org", "https://E.ORG:443/a?b", 443},
        {"HTTPS://e.org./x", "e.org", "https://e.org./x", 443},
        {"http://8.8.8.8/", "8.8.8.8", "http://8.8.8.8/", 80},
        {"http://[2606:4700::1111]/", "2606:4700::1111", "http://[2606:4700::1111]/", 80},
        {"http://xn--fiq228c.xn--55qx5d/", "xn--fiq228c.xn--55qx5d", "http://xn--fiq228c.xn--55qx5d/", 80},
        {"https://e.org/@a:b@c", "e.org", "https://e.org/@a:b@c", 443},
        {"https://127.0.0.1.e.org/", "127.0.0.1.e.org", "https://127.0.0.1.e.org/", 443},
    };
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct gw_url u = {.port = 0};
        assert_int_equal(read_url(good[i].text, &u), SL_OK);
        assert_string_equal(u.host, good[i].host);
        assert_string_equal(u.text, good[i].whole);
        assert_int_equal(u.port, good[i].port);
    }
}

static void test_everything_else_is_refused(void **state)
{
    static const char *const bad[] = {
        /* schemes and forms */
        "",
        "e.org",
        "//e.org/",
        "ftp://e.org/",
        "file:///etc/passwd",
        "gopher://e.org/",
        "dict://e.org:11211/stat",
        "javascript:alert(1)",
        "data:text/html,x",
        "http:/e.org",
        "http:///",
        "http://",
        "http:// e.org/",
        "http://e.org/a b",
        "http://e.org\\@127.0.0.1/",
        "http://e.org/\r\nX: 1",
        "http://e.org\t/",
        "jar:http://e.org/!/",
        "ldap://e.org",
        "smb://e.org/",
        /* loopback, private and shared numbers */
        "http://127.0.0.1/",
        "http://127.1.2.3/",
        "http://10.0.0.1/",
        "http://10.255.255.255/",
        "http://172.16.0.1/",
        "http://172.31.255.254/",
        "http://192.168.1.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.64.0.1/",
        "http://100.100.100.200/",
        "http://0.0.0.0/",
        "http://0.1.2.3/",
        "http://192.0.0.192/",
        "http://198.18.0.1/",
        "http://198.19.255.255/",
        "http://192.0.2.1/",
        "http://198.51.100.7/",
        "http://203.0.113.9/",
        "http://224.0.0.1/",
        "http://239.255.255.250/",
        "http://240.0.0.1/",
        "http://255.255.255.255/",
        "http://168.63.129.16/",
        /* the same in odd spellings */
        "http://2130706433/",
        "http://017700000001/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://127.0.1/",
        "http://0x7f.0x0.0x0.0x1/",
        "http://00000177.0.0.01/",
        "http://3232235777/",
        "http://0xA9FEA9FE/",
        "http://127.0.0.1./",
        "http://127.0.0.01/",
        "http://0/",
        "http://1/",
        "http://e.org.1/",
        "http://256.256.256.256/",
        "http://1.2.3.4.5/",
        "http://0x/",
        "http://127.0.0.0x1/",
        /* IPv6 */
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[::ffff:8.8.8.8]/",
        "http://[0:0:0:0:0:ffff:169.254.169.254]/",
        "http://[fe80::1]/",
        "http://[fe80::1%25eth0]/",
        "http://[fc00::1]/",
        "http://[fd00:ec2::254]/",
        "http://[ff02::1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2001::1]/",
        "http://[2001:db8::1]/",
        "http://[2002:7f00:1::]/",
        "http://[2002:a00:1::1]/",
        "http://[::127.0.0.1]/",
        "http://[100::1]/",
        "http://[3fff::1]/",
        "http://[::1",
        "http://::1/",
        "http://[v1.x]/",
        /* names */
        "http://localhost/",
        "http://LOCALHOST/",
        "http://localhost./",
        "http://a.localhost/",
        "http://printer.local/",
        "http://metadata.google.internal/",
        "http://metadata/",
        "http://redis/",
        "http://router.lan/",
        "http://x.home.arpa/",
        "http://a..e.org/",
        "http://.e.org/",
        "http://e_x.org:x/",
        "http://a%00.e.org/",
        "http://%31%32%37.0.0.1/",
        /* users, ports */
        "http://user@e.org/",
        "http://user:word@e.org/",
        "http://e.org@127.0.0.1/",
        "http://127.0.0.1@e.org/",
        "http://@e.org/",
        "http://e.org:22/",
        "http://e.org:6379/",
        "http://e.org:0/",
        "http://e.org:65536/",
        "http://e.org:8080/",
        "http://e.org:443:80/",
        "http://e.org:-1/",
        /* beyond ASCII: what a full-width digit or dot, or a soft hyphen, becomes is nobody's guess */
        "http://１２７.0.0.1/",
        "http://127。0。0。1/",
        "http://①②⑦.0.0.1/",
        "http://loc\xc2\xadhost/",
        "http://例子.测试/",
        "http://e.org/ä",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct gw_url u = {.port = -7};
        sl_err err = read_url(bad[i], &u);
        if (err != SL_EINVAL && err != SL_EDENIED)
            fail_msg("%s was read as %s", bad[i], u.text);
        assert_int_equal(u.port, -7);
    }
}

static void test_rules_open_ports_or_everything(void **state)
{
    struct gw_url u;
    struct sl_fail why;
    struct gw_url_rule alt = {.has_alt_ports = true}, trusted = {.is_trusted = true};
    (void)state;
    assert_int_equal(gw_url_read(SL_STR("http://e.org:8080/"), &alt, &u, &why), SL_OK);
    assert_int_equal(gw_url_read(SL_STR("https://e.org:8443/"), &alt, &u, &why), SL_OK);
    assert_int_equal(gw_url_read(SL_STR("https://e.org:8444/"), &alt, &u, &why), SL_EDENIED);
    assert_int_equal(gw_url_read(SL_STR("http://127.0.0.1:3999/x"), &trusted, &u, &why), SL_OK);
    assert_int_equal(gw_url_read(SL_STR("ftp://127.0.0.1/x"), &trusted, &u, &why), SL_EDENIED);
    assert_int_equal(gw_url_read(SL_STR("http://a:b@127.0.0.1/x"), &trusted, &u, &why), SL_EDENIED);
}

static void test_a_redirect_is_judged_from_where_it_stands(void **state)
{
    struct gw_url base, next;
    struct sl_fail why;
    struct gw_url_rule rule = {.is_trusted = false};
    (void)state;
    assert_int_equal(read_url("https://e.org/a/b?c", &base), SL_OK);
    assert_int_equal(gw_url_follow(&base, SL_STR("../x"), &rule, &next, &why), SL_OK);
    assert_string_equal(next.text, "https://e.org/x");
    assert_true(gw_url_same_origin(&base, &next));
    assert_int_equal(gw_url_follow(&base, SL_STR("//f.org/y"), &rule, &next, &why), SL_OK);
    assert_string_equal(next.text, "https://f.org/y");
    assert_false(gw_url_same_origin(&base, &next));
    assert_int_equal(gw_url_follow(&base, SL_STR("http://127.0.0.1/"), &rule, &next, &why), SL_EDENIED);
    assert_int_equal(gw_url_follow(&base, SL_STR("//127.1/"), &rule, &next, &why), SL_EDENIED);
    assert_int_equal(gw_url_follow(&base, SL_STR("file:///etc/passwd"), &rule, &next, &why), SL_EDENIED);
    assert_int_equal(gw_url_follow(&base, SL_STR(""), &rule, &next, &why), SL_EINVAL);
}

/* Both ends of each range, and their neighbours outside. */
static void test_addresses_at_the_edges_of_the_ranges(void **state)
{
    static const struct {
        const char *address;
        bool is_public;
    } cases[] = {
        {"0.255.255.255", false},   {"1.0.0.0", true},          {"9.255.255.255", true},
        {"10.0.0.0", false},        {"11.0.0.0", true},         {"100.63.255.255", true},
        {"100.64.0.0", false},      {"100.127.255.255", false}, {"100.128.0.0", true},
        {"126.255.255.255", true},  {"127.255.255.255", false}, {"128.0.0.0", true},
        {"169.253.255.255", true},  {"169.254.0.0", false},     {"169.255.0.0", true},
        {"172.15.255.255", true},   {"172.16.0.0", false},      {"172.31.255.255", false},
        {"172.32.0.0", true},       {"192.0.1.0", true},        {"192.167.255.255", true},
        {"192.168.255.255", false}, {"192.169.0.0", true},      {"198.17.255.255", true},
        {"198.20.0.0", true},       {"223.255.255.255", true},  {"224.0.0.0", false},
        {"168.63.129.15", true},    {"168.63.129.16", false},   {"2000::1", true},
        {"2001:1ff::1", false},     {"2001:200::1", true},      {"2003::1", true},
        {"3ffe::1", true},          {"3fff:fff::1", false},     {"3fff:1000::1", true},
        {"4000::1", false},         {"1fff::1", false},         {"::ffff:1.1.1.1", false},
        {"2002:808:808::1", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sockaddr_in in = {.sin_family = AF_INET};
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
        bool is4 = inet_pton(AF_INET, cases[i].address, &in.sin_addr) == 1;
        assert_true(is4 || inet_pton(AF_INET6, cases[i].address, &in6.sin6_addr) == 1);
        bool is = gw_address_is_public(is4 ? (const struct sockaddr *)&in : (const struct sockaddr *)&in6);
        if (is != cases[i].is_public)
            fail_msg("%s", cases[i].address);
    }
    assert_false(gw_address_is_public(&(struct sockaddr){.sa_family = AF_UNIX}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_public_urls_are_read),
        cmocka_unit_test(test_everything_else_is_refused),
        cmocka_unit_test(test_rules_open_ports_or_everything),
        cmocka_unit_test(test_a_redirect_is_judged_from_where_it_stands),
        cmocka_unit_test(test_addresses_at_the_edges_of_the_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
