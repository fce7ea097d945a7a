/* base/http_client_priv.h - libcurl's multi handle on the loop (http_curl.c), for http_client.c alone. */
#ifndef BASE_HTTP_CLIENT_PRIV_H
#define BASE_HTTP_CLIENT_PRIV_H

#include "base/loop.h"

#include <curl/curl.h>

struct sl_curl;
struct sl_curl_events {
    void (*done)(void *arg, CURL *easy,
                 CURLcode result); /* easy was taken out; never while sl_curl_add is on the stack */
    void (*closed)(void *arg);     /* memory is gone */
};
struct sl_curl *sl_curl_open(struct sl_loop *l, size_t max_connections, const struct sl_curl_events *ev,
                             void *arg);
void sl_curl_add(struct sl_curl *c, CURL *easy);
void sl_curl_remove(struct sl_curl *c, CURL *easy); /* before done: no done comes */
void sl_curl_close(struct sl_curl **c);             /* every easy was removed before */

#endif
