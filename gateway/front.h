/* gateway/front.h - the one HTTP and WebSocket front, on our own loop: HTTP read by ourselves, WebSockets and TLS by
 * libwebsockets.
 *
 * What     accepts connections, counts them, gives WebSockets of protocol sluice.v1 to sessions, and whole HTTP requests to
 *          `request`. It knows no routes.
 * Bounds   sockets: max_sockets, per_ip; what waits for a socket: gateway/outbox.h; a request: GW_BODY_MAX_BYTES and
 *          GW_HEADERS_MAX_BYTES. Path and query are given with their percent signs resolved, '+' in the query as a space.
 * Source   docs/adr/0010-own-http-front.md
 * Closing  stop() destroys the context once inside the loop; free() a second time, after uv_run has returned.
 */
#ifndef GATEWAY_FRONT_H
#define GATEWAY_FRONT_H

#include "gateway/hub.h"

#define GW_BODY_MAX_BYTES           (128 * 1024)
#define GW_HEADERS_MAX_BYTES        8192
#define GW_UPLOAD_PATH              "/media"
#define GW_UPLOADS_MAX_BYTES        (256u << 20) /* of uploads that are coming in, together */
#define GW_ANSWERS_MAX_BYTES        (256u << 20) /* of answers that are going out, together */
#define GW_REQUESTS_MAX             512
#define GW_ANSWER_MAX_BYTES         (128u << 20) /* the largest attachment, and more than any page or list */
#define GW_ANSWER_HEADERS_MAX_BYTES 3072

struct gw_front;
struct gw_front_config {
    struct gw_hub *hub;
    const char *host;               /* "127.0.0.1", "" : every address */
    int port;                       /* 0: one that is free */
    const char *tls_cert, *tls_key; /* files; "" : plain */
    size_t max_sockets, per_ip;     /* per_ip 0: no limit; loopback is never limited */
    size_t upload_max;              /* bytes of a body to GW_UPLOAD_PATH */
    /* One whole request; rq->answer is called exactly once, now or later. */
    void (*request)(void *arg, struct chan_request *rq);
    void *arg;
};

struct gw_front *gw_front_open(const struct gw_front_config *cfg, struct sl_fail *why);
int gw_front_port(const struct gw_front *f);
size_t gw_front_sockets(const struct gw_front *f);
/* A header of the answer that will be given; name with its colon, lower case. Instead of the usual one of that name. At most
 * GW_ANSWER_HEADERS_MAX_BYTES together. */
void gw_front_header(struct chan_request *rq, const char *name, const char *value);
/* New connections are refused; open sockets are told to come back after a time in the range. */
void gw_front_drain(struct gw_front *f, uint64_t after_min_ms, uint64_t after_max_ms);
void gw_front_close_sockets(struct gw_front *f, enum frame_close code);
sl_err gw_front_reload_tls(struct gw_front *f, struct sl_fail *why) SL_MUST_CHECK;
void gw_front_stop(struct gw_front *f);
void gw_front_free(struct gw_front **f);

#endif
