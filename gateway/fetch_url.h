/* gateway/fetch_url.h - may this address be fetched for a customer? Pure: text and addresses in, an answer out.
 *
 * What     server-side request forgery ends here: a customer's link must not reach our own network. The name is judged when a
 *          URL is read, the address when it is connected to; the second alone decides, the first saves a look-up.
 * Parser   libcurl's own URL parser, so that what is judged is what is asked.
 * Source   IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890 and the RFCs named in fetch_url.c)
 */
#ifndef GATEWAY_FETCH_URL_H
#define GATEWAY_FETCH_URL_H

#include "base/str.h"

struct sockaddr;

#define GW_URL_MAX_BYTES 4096

struct gw_url {
    bool is_https;
    int port;
    char host[256];              /* lower case, without brackets and trailing dot */
    char text[GW_URL_MAX_BYTES]; /* normalised, without fragment */
};
struct gw_url_rule {
    bool is_trusted;    /* any host and port */
    bool has_alt_ports; /* 8080 and 8443 too */
};
/* EINVAL: no URL; EDENIED: scheme, port, user name, or a host that is private by its name or number. */
sl_err gw_url_read(struct sl_str text, const struct gw_url_rule *rule, struct gw_url *out,
                   struct sl_fail *why) SL_MUST_CHECK;
/* A Location seen from base. */
sl_err gw_url_follow(const struct gw_url *base, struct sl_str location, const struct gw_url_rule *rule,
                     struct gw_url *out, struct sl_fail *why) SL_MUST_CHECK;
bool gw_url_same_origin(const struct gw_url *a, const struct gw_url *b);
/* An address of the public Internet: not private, local, shared, reserved, multicast, translated nor a cloud's metadata. */
bool gw_address_is_public(const struct sockaddr *to);

#endif
