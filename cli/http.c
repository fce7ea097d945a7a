#include "cli/tcp.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define ANSWER_MAX_BYTES (1u << 20)

struct cli_http {
    struct cli_tcp *tcp;
    struct sl_timer deadline;
    struct sl_buf request, answer;
    cli_http_fn fn;
    void *arg;
};

static void http_free(struct cli_http *h)
{
    sl_timer_stop(&h->deadline);
    cli_tcp_close(&h->tcp);
    sl_buf_fini(&h->request);
    sl_buf_fini(&h->answer);
    free(h);
}

/* The digits at `at`, after blanks. The answer is a slice: nothing ends it but its length. */
static size_t number_at(struct sl_str a, size_t at)
{
    size_t n = 0;
    while (at < a.len && a.ptr[at] == ' ')
        at++;
    for (; at < a.len && a.ptr[at] >= '0' && a.ptr[at] <= '9' && n < SL_BUF_MAX; at++)
        n = n * 10 + (size_t)(a.ptr[at] - '0');
    return n;
}

/* Where the body begins, and what the head says of it; false: the head is not whole yet. */
static bool read_head(struct sl_str a, int *status, size_t *body, size_t *length)
{
    if (!sl_str_find(a, SL_STR("\r\n\r\n"), body))
        return false;
    *body += 4;
    *length = SIZE_MAX; /* until the connection ends */
    *status = 0;
    if (a.len > 12 && sl_str_starts(a, "HTTP/1."))
        *status = (int)number_at(a, 9);
    static const char name[] = "\r\ncontent-length:";
    for (size_t i = 0; i + sizeof name < *body; i++) {
        if (strncasecmp(a.ptr + i, name, sizeof name - 1) == 0)
            *length = number_at(a, i + sizeof name - 1);
    }
    return true;
}

static void finish(struct cli_http *h, int status, struct sl_str body)
{
    h->fn(h->arg, status, body);
    http_free(h);
}

static void on_opened(void *arg)
{
    struct cli_http *h = arg;
    cli_tcp_send(h->tcp, sl_buf_view(&h->request));
}

static void on_data(void *arg, struct sl_str bytes)
{
    struct cli_http *h = arg;
    int status = 0;
    size_t body = 0, length = 0;
    sl_buf_str(&h->answer, bytes);
    const struct sl_str a = sl_buf_view(&h->answer);
    if (h->answer.overflow)
        finish(h, 0, SL_STR_NONE);
    else if (read_head(a, &status, &body, &length) && length <= a.len - body)
        finish(h, status, sl_str_n(a.ptr + body, length));
}

static void on_closed(void *arg, const char *why)
{
    struct cli_http *h = arg;
    int status = 0;
    size_t body = 0, length = 0;
    const struct sl_str a = sl_buf_view(&h->answer);
    (void)why;
    h->tcp = NULL;
    if (read_head(a, &status, &body, &length) && length == SIZE_MAX)
        finish(h, status, sl_str_n(a.ptr + body, a.len - body));
    else
        finish(h, 0, SL_STR_NONE);
}

static void on_deadline(void *arg)
{
    finish(arg, 0, SL_STR_NONE);
}

struct cli_http *cli_http_open(struct sl_loop *l, const char *ip, unsigned port, const char *method,
                               const char *path, struct sl_str json_body, uint64_t deadline_ms,
                               cli_http_fn fn, void *arg)
{
    static const struct cli_tcp_ops ops = {.opened = on_opened, .data = on_data, .closed = on_closed};
    struct cli_http *h = sl_alloc(sizeof *h);
    h->fn = fn;
    h->arg = arg;
    sl_buf_init(&h->request, 0);
    sl_buf_init(&h->answer, ANSWER_MAX_BYTES);
    sl_buf_printf(&h->request, "%s %s HTTP/1.1\r\nHost: %s:%u\r\nConnection: close\r\n", method, path, ip,
                  port);
    if (json_body.len > 0)
        sl_buf_printf(&h->request, "Content-Type: application/json\r\nContent-Length: %zu\r\n",
                      json_body.len);
    sl_buf_c(&h->request, "\r\n");
    sl_buf_str(&h->request, json_body);
    sl_timer_init(&h->deadline, l, on_deadline, h);
    sl_timer_start(&h->deadline, deadline_ms);
    h->tcp = cli_tcp_open(sl_loop_uv(l), ip, port, &ops, h);
    return h;
}

void cli_http_close(struct cli_http **hp)
{
    struct cli_http *h = *hp;
    *hp = NULL;
    if (h != NULL)
        http_free(h);
}
