/* gateway/fetch.h - the one road by which the gateway downloads what others name: guarded, bounded, then into the media store.
 *
 * Guards   http and https, ports 80 and 443 (8080 and 8443 when configured); the name is resolved once and the connection goes
 *          to an address that was judged (fetch_url.h); at most GW_FETCH_REDIRECTS redirects, each judged again, never from https
 *          to http; size and time; headers and body of ours go to the first origin alone; the type is what the bytes are.
 * Trusted  is_trusted_host (a provider's API named in the configuration) leaves out the judgement of the address, for the first
 *          origin alone; everything else holds.
 * Source   reference: OWASP Server Side Request Forgery Prevention Cheat Sheet, case 2
 */
#ifndef GATEWAY_FETCH_H
#define GATEWAY_FETCH_H

#include "base/http_client.h"
#include "gateway/media.h"

#define GW_FETCH_REDIRECTS 3
#define GW_FETCH_CALLS_MAX 16

struct gw_fetcher;
struct gw_fetcher_config {
    struct sl_loop *loop;
    struct gw_media *media; /* borrowed */
    uint64_t whole_ms;      /* of one request; 0: 15 s */
    bool has_alt_ports;
    const char *ca_file;
    /* For tests: who may be connected to, instead of gw_address_is_public. */
    bool (*may_connect)(void *arg, const struct sockaddr *to);
    void *may_connect_arg;
    const char *resolve; /* "host:port:address": what a name server would say */
};
struct gw_fetcher *gw_fetcher_open(const struct gw_fetcher_config *cfg);
void gw_fetcher_close(struct gw_fetcher **f); /* what is under way settles with SL_ECLOSED on a later turn */
/* SL_OK: fn follows once, never before return. EINVAL, EDENIED: the URL; EAGAIN: too many; EREFUSED: no media store. In fn also ENOTFOUND (404, 410),
 * ETOOBIG, ETIMEOUT, EUPSTREAM. */
sl_err gw_fetch(struct gw_fetcher *f, const struct chan_fetch *what, chan_media_fn fn,
                void *arg) SL_MUST_CHECK;

#endif
