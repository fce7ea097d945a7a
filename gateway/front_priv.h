/* gateway/front_priv.h - the one object of the front, for the files that share it.
 *
 * front.c          its life, and libwebsockets' context
 * front_socket.c   WebSockets, by libwebsockets
 * front_plain.c    the listening socket without TLS: connections, their requests; upgrades go to libwebsockets
 * front_tls.c      requests on connections with TLS, by libwebsockets
 * front_request.c  one request, wherever it came from
 */
#ifndef GATEWAY_FRONT_PRIV_H
#define GATEWAY_FRONT_PRIV_H

#include "gateway/front.h"
#include "gateway/http_wire.h"

#include <libwebsockets.h>

#define GW_FRONT_TIMEOUT_S     15 /* to complete the head of a request, or an upgrade */
#define GW_FRONT_KEEPALIVE_S   30 /* between two requests; for each piece of an answer */
#define GW_FRONT_WS_PATH       "/ws"
#define GW_FRONT_REQUEST_MAGIC 0x72657173u
#define GW_FRONT_PIECE_BYTES   65536
#define GW_FRONT_PLAIN_MAX     8192 /* connections without TLS that are no WebSockets */

struct gw_front_ws;
struct gw_plain;
struct gw_request;

/* What a request asks of the connection that it came on. */
struct gw_carrier {
    struct sl_str (*header)(struct gw_request *r, const char *lower_case_name);
    void (*answered)(struct gw_request *r); /* head and body stand in r->answer from r->start on */
};

/* One HTTP request, until it was answered and its connection let go of it. */
struct gw_request {
    struct chan_request rq; /* first */
    uint32_t magic;
    struct gw_front *front;
    const struct gw_carrier *carrier;
    void *peer;           /* its connection; NULL: the client left */
    struct sl_buf text;   /* path, query; behind them what the carrier keeps */
    struct sl_str fields; /* front_plain.c */
    struct sl_buf body;
    struct sl_buf answer; /* room for LWS_PRE, head, body */
    struct sl_buf extra;  /* headers of the answer: name, value, each with its NUL */
    char remote[46];
    bool is_dispatched, is_answered, is_http_10;
    bool is_last;    /* the connection is closed with the answer */
    size_t reserved; /* of the room for uploads */
    size_t counted;  /* in answer_bytes */
    size_t sent;     /* of answer */
};

struct gw_front {
    struct gw_front_config cfg;
    struct lws_context *context;
    struct lws_vhost *vhost;
    char *host, *cert, *key;
    int port;
    struct gw_front_ws *sockets;
    size_t socket_count, request_count, upload_bytes, answer_bytes;
    struct gw_front_ws *held, *held_longer; /* since the last turn of the timer; since the one before */
    struct sl_timer hold;
    struct sl_map *ips; /* address -> how many sockets */
    struct sl_buf message;
    struct gw_plain *plain; /* NULL: with TLS */
    int64_t date_unix_s;    /* the second that `date` says */
    struct sl_buf date;
    bool is_draining;
    struct sl_metric *sockets_gauge, *requests_gauge, *messages_out, *messages_in;
};

static inline struct gw_front *gw_front_of(struct lws *wsi)
{
    return (struct gw_front *)lws_context_user(lws_get_context(wsi));
}

/* front_socket.c */
int gw_front_on_ws(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len);
void gw_front_on_hold_over(void *front);
struct sl_str gw_front_copy_header(struct lws *wsi, enum lws_token_indexes token, char *out, size_t size);

/* front_tls.c */
int gw_front_on_http(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len);

/* front_plain.c */
struct gw_plain *gw_plain_open(struct gw_front *f, size_t connections_max, struct sl_fail *why);
int gw_plain_port(const struct gw_plain *p);
/* At once for its peers; memory follows on a later turn. Idempotent. */
void gw_plain_close(struct gw_plain **p);

/* front_request.c */
bool gw_request_has_room(struct gw_front *f); /* false: counted, answer 503 */
/* r->text begins with path and query, path_len bytes the first. method: borrowed until the request is freed. */
struct gw_request *gw_request_new(struct gw_front *f, const struct gw_carrier *carrier, void *peer);
void gw_request_name(struct gw_request *r, struct sl_str method, size_t path_len, size_t query_len);
/* Room for a body of so many bytes; false: it was answered (413, 503). */
bool gw_request_expect_body(struct gw_request *r, int64_t body_bytes);
void gw_request_dispatch(struct gw_request *r);
void gw_request_refuse(struct gw_request *r, int status, const char *words); /* instead of dispatch */
/* The client left. The request is freed now, or by its answer. */
void gw_request_leave(struct gw_request **r);
void gw_request_free(struct gw_request *r);

#endif
