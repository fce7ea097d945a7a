/* Any text as a URL: what is read is http or https, has a host of plain characters that is no private number, and is read again
 * to the same. Behind a NUL, a redirect seen from it. */
#include "tests/fuzz/fuzz.h"

#include "gateway/fetch_url.h"

#include <arpa/inet.h>
#include <netinet/in.h>

static void check_url(const struct gw_url *u)
{
    struct gw_url again;
    struct sl_fail why;
    struct gw_url_rule rule = {.is_trusted = false};
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    sl_assert(u->port == 80 || u->port == 443);
    if (inet_pton(AF_INET, u->host, &in.sin_addr) == 1)
        sl_assert(gw_address_is_public((const struct sockaddr *)&in));
    else if (inet_pton(AF_INET6, u->host, &in6.sin6_addr) == 1)
        sl_assert(gw_address_is_public((const struct sockaddr *)&in6));
    else
        sl_assert(inet_aton(u->host, &in.sin_addr) ==
                  0); /* glibc's reading of odd numbers, which getaddrinfo shares */
    sl_assert(gw_url_read(sl_str_c(u->text), &rule, &again, &why) == SL_OK);
    sl_assert(strcmp(again.text, u->text) == 0 && gw_url_same_origin(u, &again));
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct gw_url u, next;
    struct sl_fail why;
    struct gw_url_rule rule = {.is_trusted = false};
    struct sl_str first = fuzz_input(data, size), second = SL_STR_NONE;
    const char *nul = first.len > 0 ? memchr(first.ptr, '\0', first.len) : NULL;
    if (nul != NULL) {
        second = sl_str_n(nul + 1, first.len - (size_t)(nul + 1 - first.ptr));
        first.len = (size_t)(nul - first.ptr);
    }
    if (gw_url_read(first, &rule, &u, &why) != SL_OK)
        return 0;
    check_url(&u);
    if (second.len > 0 && gw_url_follow(&u, second, &rule, &next, &why) == SL_OK)
        check_url(&next);
    return 0;
}
