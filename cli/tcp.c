#include "cli/tcp.h"

#include <stdlib.h>
#include <string.h>

struct cli_tcp {
    uv_tcp_t tcp;
    uv_connect_t connect;
    const struct cli_tcp_ops *ops;
    void *arg;
    bool is_closing;
    char chunk[16384];
};
struct piece {
    uv_write_t write;
    char bytes[];
};

static void on_handle_closed(uv_handle_t *h)
{
    free(h->data);
}

/* The other side ended it, or never was there: told once, then nothing more. */
static void ended(struct cli_tcp *t, const char *why)
{
    const struct cli_tcp_ops *ops = t->ops;
    void *arg = t->arg;
    if (t->is_closing)
        return;
    t->is_closing = true;
    uv_close((uv_handle_t *)&t->tcp, on_handle_closed);
    ops->closed(arg, why);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *out)
{
    struct cli_tcp *t = h->data;
    (void)suggested;
    *out = uv_buf_init(t->chunk, sizeof t->chunk);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct cli_tcp *t = stream->data;
    if (n < 0)
        ended(t, n == UV_EOF ? "the other side closed the connection" : uv_strerror((int)n));
    else if (n > 0 && !t->is_closing)
        t->ops->data(t->arg, sl_str_n(buf->base, (size_t)n));
}

static void on_connected(uv_connect_t *connect, int status)
{
    struct cli_tcp *t = connect->data;
    if (t->is_closing)
        return;
    if (status == 0)
        status = uv_read_start((uv_stream_t *)&t->tcp, on_alloc, on_read);
    if (status != 0)
        ended(t, uv_strerror(status));
    else
        t->ops->opened(t->arg);
}

struct cli_tcp *cli_tcp_open(uv_loop_t *uv, const char *ip, unsigned port, const struct cli_tcp_ops *ops,
                             void *arg)
{
    struct cli_tcp *t = sl_alloc(sizeof *t);
    struct sockaddr_in to;
    t->ops = ops;
    t->arg = arg;
    sl_assert(uv_tcp_init(uv, &t->tcp) == 0);
    t->tcp.data = t;
    t->connect.data = t;
    sl_assert(uv_ip4_addr(ip, (int)port, &to) == 0);
    /* libuv reports even an instant refusal from the loop, not from here. */
    sl_assert(uv_tcp_connect(&t->connect, &t->tcp, (const struct sockaddr *)&to, on_connected) == 0);
    (void)uv_tcp_nodelay(&t->tcp, 1);
    return t;
}

static void on_written(uv_write_t *write, int status)
{
    (void)status; /* a failure is seen by the reading side, too */
    free(write->data);
}

void cli_tcp_send(struct cli_tcp *t, struct sl_str bytes)
{
    if (t->is_closing)
        return;
    struct piece *p = sl_alloc(sizeof *p + bytes.len);
    memcpy(p->bytes, bytes.ptr, bytes.len);
    p->write.data = p;
    const uv_buf_t buf = uv_buf_init(p->bytes, (unsigned)bytes.len);
    if (uv_write(&p->write, (uv_stream_t *)&t->tcp, &buf, 1, on_written) != 0)
        free(p);
}

void cli_tcp_close(struct cli_tcp **tp)
{
    struct cli_tcp *t = *tp;
    *tp = NULL;
    if (t == NULL || t->is_closing)
        return;
    t->is_closing = true;
    uv_close((uv_handle_t *)&t->tcp, on_handle_closed);
}
