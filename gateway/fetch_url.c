/* gateway/fetch_url.c - see fetch_url.h. */
#include "gateway/fetch_url.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <strings.h>

/* ---- addresses ---- */

static const struct range4 {
    uint32_t net;
    unsigned bits;
} refused4[] = {
    {0x00000000, 8},  /* this network, RFC 791 */
    {0x0a000000, 8},  /* private, RFC 1918 */
    {0x64400000, 10}, /* shared by carriers, RFC 6598; also 100.100.100.200, a metadata service */
    {0x7f000000, 8},  /* loopback, RFC 1122 */
    {0xa9fe0000, 16}, /* link-local, RFC 3927; also 169.254.169.254, metadata services */
    {0xac100000, 12}, /* private */
    {0xc0000000, 24}, /* protocol assignments, RFC 6890; also 192.0.0.192, a metadata service */
    {0xc0000200, 24}, /* documentation, RFC 5737 */
    {0xc01fc400, 24}, /* AS112, RFC 7535 */
    {0xc034c100, 24}, /* AMT relays, RFC 7450 */
    {0xc0586300, 24}, /* 6to4 relays, RFC 7526 */
    {0xc0a80000, 16}, /* private */
    {0xc0af3000, 24}, /* AS112, RFC 7534 */
    {0xc6120000, 15}, /* benchmarks, RFC 2544 */
    {0xc6336400, 24}, /* documentation */
    {0xcb007100, 24}, /* documentation */
    {0xa83f8110, 32}, /* 168.63.129.16: a cloud's host, public by its number alone */
    {0xe0000000, 4},  /* multicast, RFC 5771 */
    {0xf0000000, 4},  /* reserved, RFC 1112, and broadcast */
};

static bool is_public4(uint32_t address)
{
    for (size_t i = 0; i < sizeof refused4 / sizeof refused4[0]; i++) {
        uint32_t mask = UINT32_MAX << (32 - refused4[i].bits);
        if ((address & mask) == refused4[i].net)
            return false;
    }
    return true;
}

/* Of IPv6 only global unicast is public, and of that not: */
static const struct range6 {
    unsigned char net[8];
    unsigned bits;
} refused6[] = {
    {{0x20, 0x01, 0x00}, 23},       /* protocol assignments with Teredo and ORCHID, RFC 2928, 4380, 7343 */
    {{0x20, 0x01, 0x0d, 0xb8}, 32}, /* documentation, RFC 3849 */
    {{0x20, 0x02}, 16},             /* 6to4: an IPv4 address inside, RFC 3056 */
    {{0x26, 0x20, 0x00, 0x4f, 0x80, 0x00}, 48}, /* AS112, RFC 7534 */
    {{0x3f, 0xff}, 20},                         /* documentation, RFC 9637 */
};

static bool is_within(const unsigned char *address, const struct range6 *r)
{
    for (unsigned bit = 0; bit < r->bits; bit++) {
        unsigned char mask = (unsigned char)(0x80u >> (bit % 8));
        if ((address[bit / 8] & mask) != (r->net[bit / 8] & mask))
            return false;
    }
    return true;
}

static bool is_public6(const unsigned char address[16])
{
    if ((address[0] & 0xe0) !=
        0x20) /* 2000::/3, RFC 4291 2.4; so also mapped, NAT64, local, multicast are refused */
        return false;
    for (size_t i = 0; i < sizeof refused6 / sizeof refused6[0]; i++)
        if (is_within(address, &refused6[i]))
            return false;
    return true;
}

bool gw_address_is_public(const struct sockaddr *to)
{
    if (to->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, to, sizeof in);
        return is_public4(ntohl(in.sin_addr.s_addr));
    }
    if (to->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, to, sizeof in6);
        return is_public6(in6.sin6_addr.s6_addr);
    }
    return false;
}

/* ---- names ---- */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

/* Names that never mean a host of the Internet: RFC 6761, 6762, 8375, and what clouds call their metadata services. */
static bool is_private_name(const char *host)
{
    static const char *const names[] = {"localhost", "local",     "localdomain", "internal", "intranet",
                                        "lan",       "home.arpa", "corp",        "home",     "test",
                                        "invalid",   "example",   "onion"};
    char dotted[64];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct sl_buf b;
        sl_buf_init(&b, sizeof dotted);
        sl_buf_printf(&b, ".%s", names[i]);
        bool is_it = strcmp(host, names[i]) == 0 || ends_with(host, b.ptr);
        sl_buf_fini(&b);
        if (is_it)
            return true;
    }
    return strchr(host, '.') == NULL &&
           strchr(host, ':') == NULL; /* a name without a dot is searched for in our own domain */
}

/* A host that is a number: 1 public, 0 refused, -1 a name. Odd spellings of IPv4 (octal, hexadecimal, one number) are refused
 * whatever they mean; libcurl has written most of them as usual before we look. */
static int judge_number(const char *host)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, host, &in.sin_addr) == 1)
        return gw_address_is_public((const struct sockaddr *)&in);
    if (inet_pton(AF_INET6, host, &in6.sin6_addr) == 1)
        return gw_address_is_public((const struct sockaddr *)&in6);
    if (strchr(host, ':') != NULL)
        return 0;
    const char *last = strrchr(host, '.');
    last = last != NULL ? last + 1 : host;
    return *last >= '0' && *last <= '9' ? 0
                                        : -1; /* no top-level domain begins with a digit (WHATWG URL 3.5) */
}

static bool is_name(const char *host)
{
    return host[0] != '\0' && host[0] != '.' && strstr(host, "..") == NULL &&
           host[strspn(host, "abcdefghijklmnopqrstuvwxyz0123456789.-_")] == '\0';
}

/* ---- URLs ---- */

static bool take_part(CURLU *u, CURLUPart part, unsigned flags, char *out, size_t size)
{
    char *text = NULL;
    bool is_ok = curl_url_get(u, part, &text, flags) == CURLUE_OK && strlen(text) < size;
    if (is_ok)
        memcpy(out, text, strlen(text) + 1);
    curl_free(text);
    return is_ok;
}

static bool has_part(CURLU *u, CURLUPart part)
{
    char *text = NULL;
    bool has = curl_url_get(u, part, &text, 0) == CURLUE_OK;
    curl_free(text);
    return has;
}

static void clean_host(char *host)
{
    size_t n = strlen(host);
    for (size_t i = 0; i < n; i++)
        host[i] = (char)(host[i] >= 'A' && host[i] <= 'Z' ? host[i] + 32 : host[i]);
    if (n >= 2 && host[0] == '[' && host[n - 1] == ']') {
        memmove(host, host + 1, n - 2);
        host[n -= 2] = '\0';
    }
    if (n > 1 && host[n - 1] == '.')
        host[n - 1] = '\0';
}

static sl_err judge_host(const struct gw_url *u, const struct gw_url_rule *rule, struct sl_fail *why)
{
    int number = judge_number(u->host);
    if (rule->is_trusted)
        return SL_OK;
    if (number == 0 || (number < 0 && (!is_name(u->host) || is_private_name(u->host))))
        return sl_fail_set(why, SL_EDENIED, 0, "fetch: the host is not one of the public Internet");
    bool is_usual =
        u->port == 80 || u->port == 443 || (rule->has_alt_ports && (u->port == 8080 || u->port == 8443));
    return is_usual ? SL_OK : sl_fail_set(why, SL_EDENIED, 0, "fetch: port %d is not fetched from", u->port);
}

static sl_err take_url(CURLU *u, const struct gw_url_rule *rule, struct gw_url *out, struct sl_fail *why)
{
    char scheme[16], port[8];
    uint64_t number;
    if (!take_part(u, CURLUPART_SCHEME, 0, scheme, sizeof scheme) ||
        (strcasecmp(scheme, "http") != 0 && strcasecmp(scheme, "https") != 0))
        return sl_fail_set(why, SL_EDENIED, 0, "fetch: only http and https are fetched");
    if (has_part(u, CURLUPART_USER) || has_part(u, CURLUPART_PASSWORD) || has_part(u, CURLUPART_ZONEID))
        return sl_fail_set(why, SL_EDENIED, 0, "fetch: a URL with a user name or zone is not fetched");
    (void)curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0);
    if (!take_part(u, CURLUPART_HOST, 0, out->host, sizeof out->host) ||
        !take_part(u, CURLUPART_PORT, CURLU_DEFAULT_PORT, port, sizeof port) ||
        sl_str_uint(sl_str_c(port), &number) != SL_OK ||
        !take_part(u, CURLUPART_URL, 0, out->text, sizeof out->text))
        return sl_fail_set(why, SL_EINVAL, 0, "fetch: no usable host in the URL");
    out->is_https = strcasecmp(scheme, "https") == 0;
    out->port = (int)number;
    clean_host(out->host);
    return judge_host(out, rule, why);
}

static bool has_odd_bytes(struct sl_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] <= ' ' || (unsigned char)s.ptr[i] >= 127 || s.ptr[i] == '\\')
            return true;
    return s.len == 0 || s.len >= GW_URL_MAX_BYTES;
}

static sl_err read_from(const char *base, struct sl_str text, const struct gw_url_rule *rule,
                        struct gw_url *out, struct sl_fail *why)
{
    struct gw_url url;
    if (has_odd_bytes(text))
        return sl_fail_set(why, SL_EINVAL, 0,
                           "fetch: the URL is too long or has blanks or characters beyond ASCII");
    CURLU *u = curl_url();
    sl_assert(u != NULL);
    char *copy = sl_str_dup(text);
    CURLUcode rc = base != NULL ? curl_url_set(u, CURLUPART_URL, base, 0) : CURLUE_OK;
    if (rc == CURLUE_OK)
        rc = curl_url_set(u, CURLUPART_URL, copy, 0);
    sl_err err = rc == CURLUE_OK
                     ? take_url(u, rule, &url, why)
                     : sl_fail_set(why, rc == CURLUE_UNSUPPORTED_SCHEME ? SL_EDENIED : SL_EINVAL, (int)rc,
                                   "fetch: not a URL that can be fetched: %s", curl_url_strerror(rc));
    free(copy);
    curl_url_cleanup(u);
    if (err == SL_OK)
        *out = url;
    return err;
}

sl_err gw_url_read(struct sl_str text, const struct gw_url_rule *rule, struct gw_url *out,
                   struct sl_fail *why)
{
    bool is_usual = (text.len > 7 && strncasecmp(text.ptr, "http://", 7) == 0) ||
                    (text.len > 8 && strncasecmp(text.ptr, "https://", 8) == 0);
    if (!is_usual) /* libcurl would guess */
        return sl_fail_set(why, SL_EDENIED, 0, "fetch: only http:// and https:// are fetched");
    return read_from(NULL, text, rule, out, why);
}

sl_err gw_url_follow(const struct gw_url *base, struct sl_str location, const struct gw_url_rule *rule,
                     struct gw_url *out, struct sl_fail *why)
{
    return read_from(base->text, location, rule, out, why);
}

bool gw_url_same_origin(const struct gw_url *a, const struct gw_url *b)
{
    return a->is_https == b->is_https && a->port == b->port && strcmp(a->host, b->host) == 0;
}
