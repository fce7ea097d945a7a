/* cli/metrics_port.c - GET /metrics and /livez for roles that have no web port of their own: router and bot.
 *
 * One answer a connection, plain HTTP. At most CLIENTS_MAX at a time, each CLIENT_MS long; a further one is closed at once.
 */
#include "cli/cli.h"

#include "base/metrics.h"

#include <stdlib.h>

#define CLIENTS_MAX       8
#define CLIENT_MS         5000
#define REQUEST_MAX_BYTES 4096

struct cli_metrics_port {
    struct sl_loop *loop;
    uv_tcp_t listener;
    struct client *first;
    unsigned clients;
    unsigned open_handles; /* listener and clients; memory goes at 0 */
};
struct client {
    struct cli_metrics_port *port;
    struct client *next, *before;
    uv_tcp_t tcp;
    uv_write_t write;
    struct sl_timer deadline;
    struct sl_buf request, answer;
    char chunk[1024];
};

static void handle_gone(struct cli_metrics_port *p)
{
    sl_assert(p->open_handles > 0);
    if (--p->open_handles == 0)
        free(p);
}

static void on_client_closed(uv_handle_t *h)
{
    struct client *c = h->data;
    sl_buf_fini(&c->request);
    sl_buf_fini(&c->answer);
    handle_gone(c->port);
    free(c);
}

static void client_close(struct client *c)
{
    if (uv_is_closing((uv_handle_t *)&c->tcp))
        return;
    if (c->before != NULL)
        c->before->next = c->next;
    else
        c->port->first = c->next;
    if (c->next != NULL)
        c->next->before = c->before;
    c->port->clients--;
    sl_timer_stop(&c->deadline);
    uv_close((uv_handle_t *)&c->tcp, on_client_closed);
}

static void on_deadline(void *arg)
{
    client_close(arg);
}

static void on_written(uv_write_t *write, int status)
{
    (void)status;
    client_close(write->data);
}

static void answer(struct client *c)
{
    const struct sl_str request = sl_buf_view(&c->request);
    struct sl_buf body;
    const char *status = "200 OK";
    sl_buf_init(&body, 0);
    if (sl_str_starts(request, "GET /metrics "))
        sl_metrics_write(&body);
    else if (sl_str_starts(request, "GET /livez "))
        sl_buf_c(&body, "ok\n");
    else
        status = "404 Not Found";
    sl_buf_printf(
        &c->answer,
        "HTTP/1.1 %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: %zu\r\n"
        "Connection: close\r\n\r\n",
        status, body.len);
    sl_buf_str(&c->answer, sl_buf_view(&body));
    sl_buf_fini(&body);
    const uv_buf_t buf = uv_buf_init(c->answer.ptr, (unsigned)c->answer.len);
    c->write.data = c;
    if (uv_write(&c->write, (uv_stream_t *)&c->tcp, &buf, 1, on_written) != 0)
        client_close(c);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *out)
{
    struct client *c = h->data;
    (void)suggested;
    *out = uv_buf_init(c->chunk, sizeof c->chunk);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct client *c = stream->data;
    size_t end;
    if (n < 0) {
        client_close(c);
        return;
    }
    sl_buf_add(&c->request, buf->base, (size_t)n);
    if (c->request.overflow) {
        client_close(c);
    } else if (sl_str_find(sl_buf_view(&c->request), SL_STR("\r\n\r\n"), &end)) {
        uv_read_stop(stream);
        answer(c);
    }
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct cli_metrics_port *p = listener->data;
    if (status != 0)
        return;
    struct client *c = sl_alloc(sizeof *c);
    c->port = p;
    sl_assert(uv_tcp_init(sl_loop_uv(p->loop), &c->tcp) == 0);
    c->tcp.data = c;
    sl_buf_init(&c->request, REQUEST_MAX_BYTES);
    sl_buf_init(&c->answer, 0);
    sl_timer_init(&c->deadline, p->loop, on_deadline, c);
    sl_timer_start(&c->deadline, CLIENT_MS);
    c->next = p->first;
    if (p->first != NULL)
        p->first->before = c;
    p->first = c;
    p->open_handles++;
    p->clients++;
    const bool is_taken = uv_accept(listener, (uv_stream_t *)&c->tcp) == 0 && p->clients <= CLIENTS_MAX &&
                          uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read) == 0;
    if (!is_taken)
        client_close(c);
}

static void on_listener_closed(uv_handle_t *h)
{
    handle_gone(h->data);
}

void cli_metrics_close(struct cli_metrics_port **pp)
{
    struct cli_metrics_port *p = *pp;
    *pp = NULL;
    if (p == NULL)
        return;
    while (p->first != NULL)
        client_close(p->first);
    uv_close((uv_handle_t *)&p->listener, on_listener_closed);
}

/* "127.0.0.1:9100" */
static sl_err parse_address(const char *listen, struct sockaddr_in *out, struct sl_fail *why)
{
    const char *colon = strrchr(listen, ':');
    int64_t port = -1;
    char *ip = colon != NULL ? sl_str_dup(sl_str_n(listen, (size_t)(colon - listen))) : NULL;
    const bool ok = ip != NULL && sl_str_int(sl_str_c(colon + 1), &port) == SL_OK && port >= 0 &&
                    port <= 65535 && uv_ip4_addr(ip, (int)port, out) == 0;
    free(ip);
    return ok ? SL_OK
              : sl_fail_set(why, SL_EINVAL, 0,
                            "metrics.listen: expected an IPv4 address and a port, such as 127.0.0.1:9100");
}

sl_err cli_metrics_open(struct sl_loop *l, const char *listen, struct cli_metrics_port **out,
                        struct sl_fail *why)
{
    struct sockaddr_in at;
    const sl_err err = parse_address(listen, &at, why);
    if (err != SL_OK)
        return err;
    struct cli_metrics_port *p = sl_alloc(sizeof *p);
    p->loop = l;
    p->open_handles = 1;
    sl_assert(uv_tcp_init(sl_loop_uv(l), &p->listener) == 0);
    p->listener.data = p;
    int error = uv_tcp_bind(&p->listener, (const struct sockaddr *)&at, 0);
    if (error == 0)
        error = uv_listen((uv_stream_t *)&p->listener, CLIENTS_MAX, on_connection);
    if (error != 0) {
        cli_metrics_close(&p);
        return sl_fail_set(why, SL_ECONFLICT, error, "metrics.listen: cannot listen on %s: %s", listen,
                           uv_strerror(error));
    }
    *out = p;
    return SL_OK;
}
