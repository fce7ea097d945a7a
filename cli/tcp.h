/* cli/tcp.h - the little network that `sluice up` needs to look at its own gateway: a TCP connection, one HTTP request, one WebSocket.
 *
 * What     plain clients to 127.0.0.1, enough for readiness, login and the scripted story; no TLS, no redirects.
 * Calls    never call back before they return. After close nothing is called; memory follows on a later turn.
 * Bounded  1 MiB of an HTTP answer, FRAME_MAX_BYTES of a WebSocket message; every wait is the caller's, with the caller's deadline.
 */
#ifndef CLI_TCP_H
#define CLI_TCP_H

#include "base/loop.h"
#include "base/str.h"

/* tcp.c */
struct cli_tcp;
struct cli_tcp_ops {
    void (*opened)(void *arg);
    void (*data)(void *arg, struct sl_str bytes);
    void (*closed)(void *arg, const char *why); /* refused, reset, or ended by the other side; last call */
};
struct cli_tcp *cli_tcp_open(uv_loop_t *uv, const char *ip, unsigned port, const struct cli_tcp_ops *ops,
                             void *arg);
void cli_tcp_send(struct cli_tcp *t, struct sl_str bytes); /* copied */
void cli_tcp_close(struct cli_tcp **t);                    /* idempotent, also inside a callback */

/* http.c: one request, one answer. status 0: no answer (refused, ended early, too large).
 * When fn is called the request is over: forget the handle, do not close it. */
struct cli_http;
typedef void (*cli_http_fn)(void *arg, int status, struct sl_str body);
struct cli_http *cli_http_open(struct sl_loop *l, const char *ip, unsigned port, const char *method,
                               const char *path, struct sl_str json_body, uint64_t deadline_ms,
                               cli_http_fn fn, void *arg);
void cli_http_close(struct cli_http **h); /* before the answer: it will not come */

/* story_socket.c: the client's side of RFC 6455, text messages only. */
struct cli_socket;
struct cli_socket_ops {
    void (*opened)(void *arg); /* the server speaks sluice.v1 */
    void (*message)(void *arg, struct sl_str text);
    void (*closed)(void *arg, int code, const char *why); /* code 0: no close frame came */
};
struct cli_socket *cli_socket_open(struct sl_loop *l, const char *ip, unsigned port, const char *path,
                                   const struct cli_socket_ops *ops, void *arg);
void cli_socket_send(struct cli_socket *s, struct sl_str text);
void cli_socket_close(struct cli_socket **s); /* says 1000 and ends */

#endif
