/* The guarded road against a server of our own on loopback: refusals, redirects, names that lie, sizes, and what is stored. */
#include "gateway/fetch.h"
#include "gateway/fetch_url.h"

#include "unit.h"

#include <arpa/inet.h>
#include <ftw.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define PNG "\x89PNG\r\n\x1a\n0123"

struct world {
    uv_loop_t uv;
    struct sl_loop *loop;
    uv_tcp_t listener;
    int port;
    unsigned requests, open;
    char last[4096];
    char dir[64];
    struct gw_media *media;
    struct gw_fetcher *fetcher;
    bool allows_loopback;
    unsigned judged;
    /* the last call */
    unsigned calls;
    sl_err err;
    struct chan_media item;
    char words[240];
};
struct peer {
    uv_tcp_t tcp;
    struct world *w;
    char in[4096];
    size_t len;
};
struct reply {
    uv_write_t req;
    char text[8192];
};

/* ---- the server ---- */

static void on_peer_closed(uv_handle_t *h)
{
    struct peer *p = h->data;
    p->w->open--;
    free(p);
}

static void on_written(uv_write_t *req, int status)
{
    (void)status;
    if (!uv_is_closing((uv_handle_t *)req->handle))
        uv_close((uv_handle_t *)req->handle, on_peer_closed);
    free(req);
}

static void answer(struct peer *p, const char *head, const char *body, size_t body_len)
{
    struct reply *r = sl_alloc(sizeof *r);
    int n = snprintf(r->text, sizeof r->text,
                     "HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n", head, body_len);
    assert_true(n > 0 && (size_t)n + body_len < sizeof r->text);
    memcpy(r->text + n, body, body_len);
    uv_buf_t buf = uv_buf_init(r->text, (unsigned)((size_t)n + body_len));
    assert_int_equal(uv_write(&r->req, (uv_stream_t *)&p->tcp, &buf, 1, on_written), 0);
}

static void serve(struct peer *p)
{
    struct world *w = p->w;
    char path[256] = "", head[512];
    static const char large[4000];
    w->requests++;
    (void)snprintf(w->last, sizeof w->last, "%s", p->in);
    assert_int_equal(sscanf(p->in, "%*s %255s", path), 1);
    if (strcmp(path, "/png") == 0)
        answer(p, "200 OK\r\nContent-Type: text/html", PNG, sizeof PNG - 1);
    else if (strcmp(path, "/named?x=1") == 0)
        answer(
            p,
            "200 OK\r\nContent-Type: text/plain\r\nContent-Disposition: attachment; filename=\"../../b.txt\"",
            "hi", 2);
    else if (strcmp(path, "/large") == 0)
        answer(p, "200 OK", large, sizeof large);
    else if (strcmp(path, "/gone") == 0)
        answer(p, "410 Gone", "", 0);
    else if (strcmp(path, "/empty") == 0)
        answer(p, "200 OK", "", 0);
    else if (strcmp(path, "/error") == 0)
        answer(p, "500 Oh", "x", 1);
    else if (strcmp(path, "/loop") == 0)
        answer(p, "302 Found\r\nLocation: /loop", "", 0);
    else if (strcmp(path, "/home") == 0)
        answer(p, "302 Found\r\nLocation: /png", "", 0);
    else if (strncmp(path, "/to=", 4) == 0) {
        (void)snprintf(head, sizeof head, "302 Found\r\nLocation: %s", path + 4);
        answer(p, head, "", 0);
    }
    p->len = 0;
}

static void on_alloc(uv_handle_t *h, size_t size, uv_buf_t *buf)
{
    struct peer *p = h->data;
    (void)size;
    *buf = uv_buf_init(p->in + p->len, (unsigned)(sizeof p->in - 1 - p->len));
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    struct peer *p = s->data;
    (void)buf;
    if (n < 0) {
        if (!uv_is_closing((uv_handle_t *)s))
            uv_close((uv_handle_t *)s, on_peer_closed);
        return;
    }
    p->len += (size_t)n;
    p->in[p->len] = '\0';
    if (strstr(p->in, "\r\n\r\n") != NULL)
        serve(p);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct peer *p = sl_alloc(sizeof *p);
    assert_int_equal(status, 0);
    p->w = listener->data;
    p->w->open++;
    assert_int_equal(uv_tcp_init(listener->loop, &p->tcp), 0);
    p->tcp.data = p;
    assert_int_equal(uv_accept(listener, (uv_stream_t *)&p->tcp), 0);
    assert_int_equal(uv_read_start((uv_stream_t *)&p->tcp, on_alloc, on_read), 0);
}

/* ---- the world ---- */

/* As the real judge, but for our own server when a case says so. */
static bool judge(void *arg, const struct sockaddr *to)
{
    struct world *w = arg;
    w->judged++;
    return w->allows_loopback || gw_address_is_public(to);
}

static int setup(void **state)
{
    struct world *w = sl_alloc(sizeof *w);
    struct sockaddr_in at;
    struct sl_fail why;
    int n = sizeof at;
    (void)signal(SIGPIPE, SIG_IGN);
    (void)snprintf(w->dir, sizeof w->dir, "/tmp/sluice-fetch-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    assert_int_equal(uv_loop_init(&w->uv), 0);
    w->loop = sl_loop_new(&w->uv);
    assert_int_equal(uv_tcp_init(&w->uv, &w->listener), 0);
    w->listener.data = w;
    assert_int_equal(uv_ip4_addr("127.0.0.1", 0, &at), 0);
    assert_int_equal(uv_tcp_bind(&w->listener, (struct sockaddr *)&at, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&w->listener, 16, on_connection), 0);
    assert_int_equal(uv_tcp_getsockname(&w->listener, (struct sockaddr *)&at, &n), 0);
    w->port = ntohs(at.sin_port);
    struct gw_media_config media = {.loop = w->loop,
                                    .dir = w->dir,
                                    .public_url = "",
                                    .secret = "",
                                    .max_bytes = 3000,
                                    .total_bytes = 100000,
                                    .link_ms = 1000};
    w->media = gw_media_open(&media, &why);
    assert_non_null(w->media);
    struct gw_fetcher_config fetch = {.loop = w->loop,
                                      .media = w->media,
                                      .whole_ms = 3000,
                                      .may_connect = judge,
                                      .may_connect_arg = w,
                                      .resolve = "rebound.example.org:80:127.0.0.1"};
    w->fetcher = gw_fetcher_open(&fetch);
    *state = w;
    return 0;
}

static int remove_one(const char *path, const struct stat *s, int type, struct FTW *f)
{
    (void)s;
    (void)type;
    (void)f;
    return remove(path);
}

static int teardown(void **state)
{
    struct world *w = *state;
    gw_fetcher_close(&w->fetcher);
    gw_media_stop(w->media);
    uv_close((uv_handle_t *)&w->listener, NULL);
    for (int i = 0; i < 20 || w->open > 0 || gw_media_jobs(w->media) > 0; i++)
        (void)uv_run(&w->uv, UV_RUN_NOWAIT);
    gw_media_close(&w->media);
    sl_loop_close(&w->loop);
    (void)uv_run(&w->uv, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w->uv), 0);
    (void)nftw(w->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(w);
    return 0;
}

static void on_fetched(void *arg, sl_err err, const struct chan_media *item, struct sl_str bytes,
                       const struct sl_fail *why)
{
    struct world *w = arg;
    (void)bytes;
    w->calls++;
    w->err = err;
    assert_true((err == SL_OK) == (item != NULL));
    if (item != NULL)
        w->item = *item;
    (void)snprintf(w->words, sizeof w->words, "%s", why->text);
}

static const char *url(const struct world *w, const char *host, const char *path)
{
    static char text[512];
    (void)snprintf(text, sizeof text, "http://%s:%d%s", host, w->port, path);
    return text;
}

/* What the call came to, at once or later. */
static sl_err fetch(struct world *w, const struct chan_fetch *what)
{
    unsigned before = w->calls;
    sl_err err = gw_fetch(w->fetcher, what, on_fetched, w);
    assert_int_equal(w->calls, before);
    if (err != SL_OK)
        return err;
    while (w->calls == before)
        assert_true(uv_run(&w->uv, UV_RUN_ONCE) != 0);
    return w->err;
}

static sl_err fetch_trusted(struct world *w, const char *path)
{
    return fetch(w, &(struct chan_fetch){.url = url(w, "127.0.0.1", path), .is_trusted_host = true});
}

/* ---- cases ---- */

static void test_what_is_fetched_is_stored_as_what_it_is(void **state)
{
    struct world *w = *state;
    assert_int_equal(fetch_trusted(w, "/png"), SL_OK);
    assert_string_equal(w->item.type, "image/png"); /* whatever the server says */
    assert_string_equal(w->item.name, "png");
    assert_int_equal(w->item.size, sizeof PNG - 1);
    assert_int_equal(fetch_trusted(w, "/named?x=1"), SL_OK);
    assert_string_equal(w->item.type, "text/plain");
    assert_string_equal(w->item.name, "b.txt");
}

static void test_errors_are_told_apart(void **state)
{
    struct world *w = *state;
    assert_int_equal(fetch_trusted(w, "/gone"), SL_ENOTFOUND);
    assert_int_equal(fetch_trusted(w, "/error"), SL_EUPSTREAM);
    assert_int_equal(fetch_trusted(w, "/empty"), SL_EUPSTREAM);
    assert_int_equal(fetch_trusted(w, "/large"), SL_ETOOBIG);
    assert_int_equal(fetch(w, &(struct chan_fetch){.url = url(w, "127.0.0.1", "/png"),
                                                   .is_trusted_host = true,
                                                   .max_bytes = 5}),
                     SL_ETOOBIG);
}

static void test_a_private_address_is_refused_before_anything_leaves(void **state)
{
    struct world *w = *state;
    assert_int_equal(fetch(w, &(struct chan_fetch){.url = url(w, "127.0.0.1", "/png")}), SL_EDENIED);
    assert_int_equal(fetch(w, &(struct chan_fetch){.url = "http://169.254.169.254/latest/"}), SL_EDENIED);
    assert_int_equal(fetch(w, &(struct chan_fetch){.url = "ftp://e.org/"}), SL_EDENIED);
    assert_int_equal(w->judged, 0);
    assert_int_equal(w->requests, 0);
}

/* A name with nothing wrong about it that leads to us: what a rebinding name server gives. */
static void test_a_name_that_leads_to_us_is_refused_at_the_connection(void **state)
{
    struct world *w = *state;
    const struct chan_fetch what = {.url = "http://rebound.example.org/png"};
    assert_int_equal(fetch(w, &what), SL_EDENIED);
    assert_int_equal(w->judged, 1);
    assert_int_equal(fetch_trusted(w, "/to=http://rebound.example.org/png"), SL_EDENIED);
    assert_int_equal(w->judged, 2);
    assert_int_equal(w->requests, 1);
    w->allows_loopback =
        true; /* the judge alone stood in the way: now it is tried, and nobody listens at port 80 */
    assert_int_equal(fetch(w, &what), SL_EUPSTREAM);
    assert_int_equal(w->judged, 3);
}

static void test_redirects_are_followed_and_judged_each_time(void **state)
{
    struct world *w = *state;
    const char *const headers[] = {"Authorization: Bearer secret", NULL};
    struct chan_fetch home = {
        .url = url(w, "127.0.0.1", "/home"), .is_trusted_host = true, .headers = headers};
    assert_int_equal(fetch(w, &home), SL_OK);
    assert_int_equal(w->requests, 2);
    assert_non_null(strstr(w->last, "Bearer secret")); /* the same origin */
    assert_int_equal(fetch_trusted(w, "/loop"), SL_EUPSTREAM);
    assert_int_equal(w->requests, 2 + 1 + GW_FETCH_REDIRECTS);
    static const char *const away[] = {"/to=http://127.0.0.1/x", "/to=http://169.254.169.254/",
                                       "/to=file:///etc/passwd", "/to=//[::1]/",
                                       "/to=http://2130706433/", "/to=gopher://127.0.0.1:6379/"};
    unsigned before = w->requests;
    for (size_t i = 0; i < sizeof away / sizeof away[0]; i++)
        assert_int_equal(fetch_trusted(w, away[i]), SL_EDENIED); /* trust does not go along */
    assert_int_equal(w->requests, before + sizeof away / sizeof away[0]);
}

static void test_without_a_store_nothing_is_downloaded(void **state)
{
    struct world *w = *state;
    struct sl_fail why;
    struct gw_media_config none = {
        .loop = w->loop, .dir = "", .public_url = "", .secret = "", .max_bytes = 1};
    struct gw_fetcher_config fetch_none = {.loop = w->loop, .media = gw_media_open(&none, &why)};
    struct gw_media *media = fetch_none.media;
    struct gw_fetcher *f = gw_fetcher_open(&fetch_none);
    struct chan_fetch what = {.url = url(w, "127.0.0.1", "/png"), .is_trusted_host = true};
    assert_int_equal(gw_fetch(f, &what, on_fetched, w), SL_EREFUSED);
    assert_int_equal(w->requests, 0);
    gw_fetcher_close(&f);
    gw_media_close(&media);
}

static void test_closing_settles_what_is_under_way(void **state)
{
    struct world *w = *state;
    struct chan_fetch what = {.url = url(w, "127.0.0.1", "/silent"), .is_trusted_host = true};
    assert_int_equal(gw_fetch(w->fetcher, &what, on_fetched, w), SL_OK);
    while (w->requests == 0)
        (void)uv_run(&w->uv, UV_RUN_ONCE);
    gw_fetcher_close(&w->fetcher);
    while (w->calls == 0)
        (void)uv_run(&w->uv, UV_RUN_ONCE);
    assert_int_equal(w->err, SL_ECLOSED);
}

static void test_too_many_at_once_are_busy(void **state)
{
    struct world *w = *state;
    struct chan_fetch what = {.url = url(w, "127.0.0.1", "/png"), .is_trusted_host = true};
    for (int i = 0; i < GW_FETCH_CALLS_MAX; i++)
        assert_int_equal(gw_fetch(w->fetcher, &what, on_fetched, w), SL_OK);
    assert_int_equal(gw_fetch(w->fetcher, &what, on_fetched, w), SL_EAGAIN);
    while (w->calls < GW_FETCH_CALLS_MAX)
        (void)uv_run(&w->uv, UV_RUN_ONCE);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_what_is_fetched_is_stored_as_what_it_is),
        CASE(test_errors_are_told_apart),
        CASE(test_a_private_address_is_refused_before_anything_leaves),
        CASE(test_a_name_that_leads_to_us_is_refused_at_the_connection),
        CASE(test_redirects_are_followed_and_judged_each_time),
        CASE(test_without_a_store_nothing_is_downloaded),
        CASE(test_closing_settles_what_is_under_way),
        CASE(test_too_many_at_once_are_busy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
