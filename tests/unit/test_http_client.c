/* The HTTP client against a small server in the same process, and against a fake under the virtual clock. */
#include "base/http_client.h"

#include "unit.h"

#include "base/fault.h"

#include <curl/curl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- a server that does what the path says ---- */

struct server {
    uv_tcp_t listener;
    int port;
    unsigned connections, requests, open;
    char last[8192]; /* the last request, whole */
};
struct peer {
    uv_tcp_t tcp;
    struct server *server;
    unsigned requests;
    char in[8192];
    size_t len;
};
struct reply {
    uv_write_t req;
    bool is_last;
    char text[];
};

struct world {
    uv_loop_t uv;
    struct sl_loop *loop;
    struct sl_http *http;
    struct server server;
    /* what the last call came to */
    unsigned calls;
    sl_err err;
    enum sl_http_sent sent;
    int status;
    bool is_refused, is_begun;
    char body[4096], header[64], words[240], url[128];
    uint64_t id;
};

static void on_peer_closed(uv_handle_t *h)
{
    struct peer *p = h->data;
    p->server->open--;
    free(p);
}

static void peer_close(struct peer *p)
{
    if (!uv_is_closing((uv_handle_t *)&p->tcp))
        uv_close((uv_handle_t *)&p->tcp, on_peer_closed);
}

static void on_written(uv_write_t *req, int status)
{
    struct reply *r = (struct reply *)req;
    (void)status;
    if (r->is_last)
        peer_close(req->handle->data);
    free(r);
}

static void reply(struct peer *p, bool is_last, const char *text)
{
    size_t n = strlen(text);
    struct reply *r = sl_alloc(sizeof *r + n + 1);
    r->is_last = is_last;
    memcpy(r->text, text, n + 1);
    uv_buf_t buf = uv_buf_init(r->text, (unsigned)n);
    assert_int_equal(uv_write(&r->req, (uv_stream_t *)&p->tcp, &buf, 1, on_written), 0);
}

static bool asks(const struct peer *p, const char *path)
{
    const char *at = strchr(p->in, ' ');
    return at != NULL && strncmp(at + 1, path, strlen(path)) == 0;
}

static void serve(struct peer *p)
{
    struct server *s = p->server;
    char text[256];
    s->requests++;
    p->requests++;
    (void)snprintf(s->last, sizeof s->last, "%s", p->in);
    if (asks(p, "/hello"))
        reply(p, false, "HTTP/1.1 200 OK\r\nX-Tag:  seven \r\nContent-Length: 5\r\n\r\nhello");
    else if (asks(p, "/busy"))
        reply(p, false, "HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n");
    else if (asks(p, "/hangup") || (asks(p, "/once") && p->requests > 1))
        peer_close(p);
    else if (asks(p, "/once"))
        reply(p, false, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nonce");
    else if (asks(p, "/cut"))
        reply(p, true, "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf");
    else if (asks(p, "/large"))
        reply(p, false, "HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\nxxxx");
    else if (asks(p, "/chunks"))
        reply(p, false,
              "HTTP/1.1 200 OK\r\nTransfer-Encoding: "
              "chunked\r\n\r\n8\r\nxxxxxxxx\r\n8\r\nyyyyyyyy\r\n0\r\n\r\n");
    else if (asks(p, "/away")) {
        (void)snprintf(
            text, sizeof text,
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/hello\r\nContent-Length: 4\r\n\r\naway",
            s->port);
        reply(p, false, text);
    }
    /* else, "/silent": nothing */
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
        peer_close(p);
        return;
    }
    p->len += (size_t)n;
    p->in[p->len] = '\0';
    const char *end = strstr(p->in, "\r\n\r\n"), *length = strstr(p->in, "Content-Length: ");
    if (end != NULL &&
        p->len >= (size_t)(end + 4 - p->in) + (length != NULL ? strtoul(length + 16, NULL, 10) : 0))
        serve(p);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct server *s = listener->data;
    struct peer *p = sl_alloc(sizeof *p);
    assert_int_equal(status, 0);
    p->server = s;
    s->connections++;
    s->open++;
    assert_int_equal(uv_tcp_init(listener->loop, &p->tcp), 0);
    p->tcp.data = p;
    assert_int_equal(uv_accept(listener, (uv_stream_t *)&p->tcp), 0);
    assert_int_equal(uv_read_start((uv_stream_t *)&p->tcp, on_alloc, on_read), 0);
}

static void server_start(struct server *s, uv_loop_t *uv)
{
    struct sockaddr_in at;
    int n = sizeof at;
    assert_int_equal(uv_tcp_init(uv, &s->listener), 0);
    s->listener.data = s;
    assert_int_equal(uv_ip4_addr("127.0.0.1", 0, &at), 0);
    assert_int_equal(uv_tcp_bind(&s->listener, (struct sockaddr *)&at, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&s->listener, 16, on_connection), 0);
    assert_int_equal(uv_tcp_getsockname(&s->listener, (struct sockaddr *)&at, &n), 0);
    s->port = ntohs(at.sin_port);
}

/* ---- the world around a test ---- */

static int setup(void **state)
{
    static const struct sl_http_options options = {.name = "test", .max_calls = 3};
    struct world *w = sl_alloc(sizeof *w);
    (void)signal(SIGPIPE, SIG_IGN);
    assert_int_equal(uv_loop_init(&w->uv), 0);
    w->loop = sl_loop_new(&w->uv);
    w->http = sl_http_new(w->loop, &options);
    server_start(&w->server, &w->uv);
    *state = w;
    return 0;
}

/* Everything closes, and nothing of it keeps the loop. */
static int teardown(void **state)
{
    struct world *w = *state;
    sl_http_close(&w->http);
    uv_close((uv_handle_t *)&w->server.listener, NULL);
    for (int i = 0; i < 50 && (w->server.open > 0 || i < 5); i++)
        (void)uv_run(&w->uv, UV_RUN_NOWAIT);
    sl_loop_close(&w->loop);
    (void)uv_run(&w->uv, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w->uv), 0);
    free(w);
    return 0;
}

static void on_answer(void *arg, const struct sl_http_answer *a)
{
    struct world *w = arg;
    struct sl_str tag = sl_http_header(a, "x-tag");
    w->calls++;
    w->err = a->err;
    w->sent = a->sent;
    w->status = a->status;
    w->is_refused = a->is_refused;
    (void)snprintf(w->body, sizeof w->body, "%.*s", (int)a->body.len, a->body.ptr);
    (void)snprintf(w->header, sizeof w->header, "%.*s", (int)tag.len, tag.ptr);
    (void)snprintf(w->words, sizeof w->words, "%s", a->err == SL_OK ? "" : a->why.text);
    (void)snprintf(w->url, sizeof w->url, "%s", a->url);
}

static const char *url_of(const struct world *w, const char *path)
{
    static char url[256];
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d%s", w->server.port, path);
    return url;
}

static void await(struct world *w, unsigned calls)
{
    while (w->calls < calls)
        assert_true(uv_run(&w->uv, UV_RUN_ONCE) != 0);
}

static void ask(struct world *w, const struct sl_http_request *rq)
{
    unsigned before = w->calls;
    assert_int_equal(sl_http_request(w->http, rq, on_answer, w, &w->id), SL_OK);
    assert_int_equal(w->calls, before); /* never before return */
    await(w, before + 1);
    assert_int_equal(w->calls, before + 1);
}

static void get(struct world *w, const char *path)
{
    ask(w, &(struct sl_http_request){.url = url_of(w, path)});
}

/* ---- answers ---- */

static void test_get_gives_status_headers_and_body(void **state)
{
    struct world *w = *state;
    get(w, "/hello?secret=1");
    assert_int_equal(w->err, SL_OK);
    assert_int_equal(w->status, 200);
    assert_string_equal(w->body, "hello");
    assert_string_equal(w->header, "seven");
    assert_non_null(strstr(w->server.last, "GET /hello?secret=1 HTTP/1.1\r\n"));
    assert_null(strstr(w->server.last, "Expect"));
}

static void test_a_connection_is_kept_for_the_next_request(void **state)
{
    struct world *w = *state;
    get(w, "/hello");
    get(w, "/hello");
    get(w, "/busy");
    assert_int_equal(w->status, 429);
    assert_int_equal(w->server.connections, 1);
    assert_int_equal(w->server.requests, 3);
}

static void test_post_sends_method_headers_body_and_basic_auth(void **state)
{
    struct world *w = *state;
    const char *const headers[] = {"Content-Type: application/json", "X-Id: 9", NULL};
    char body[] = "{\"a\":1}";
    struct sl_http_request rq = {.url = url_of(w, "/hello"),
                                 .headers = headers,
                                 .body = sl_str_c(body),
                                 .user = "me",
                                 .password = "pw"};
    assert_int_equal(sl_http_request(w->http, &rq, on_answer, w, NULL), SL_OK);
    memset(body, 'x', sizeof body - 1); /* it was copied */
    await(w, 1);
    assert_non_null(strstr(w->server.last, "POST /hello HTTP/1.1\r\n"));
    assert_non_null(strstr(w->server.last, "X-Id: 9\r\n"));
    assert_non_null(strstr(w->server.last, "Authorization: Basic bWU6cHc=\r\n"));
    assert_non_null(strstr(w->server.last, "\r\n\r\n{\"a\":1}"));
    rq = (struct sl_http_request){.method = "PUT", .url = url_of(w, "/hello"), .body = SL_STR("new")};
    ask(w, &rq);
    assert_non_null(strstr(w->server.last, "PUT /hello HTTP/1.1\r\n"));
    assert_non_null(strstr(w->server.last, "\r\n\r\nnew"));
    ask(w, &(struct sl_http_request){.method = "DELETE", .url = url_of(w, "/hello")});
    assert_non_null(strstr(w->server.last, "DELETE /hello HTTP/1.1\r\n"));
}

static void test_the_environments_proxy_is_not_used(void **state)
{
    assert_int_equal(setenv("http_proxy", "http://127.0.0.1:1/", 1), 0);
    get(*state, "/hello");
    assert_int_equal(unsetenv("http_proxy"), 0);
    assert_int_equal(((struct world *)*state)->status, 200);
}

/* ---- what was certainly not sent ---- */

static void test_no_connection_is_certainly_not_sent(void **state)
{
    struct world *w = *state;
    ask(w, &(struct sl_http_request){.url = "http://127.0.0.1:1/token=secret", .body = SL_STR("x")});
    assert_int_equal(w->err, SL_EUPSTREAM);
    assert_int_equal(w->sent, SL_HTTP_NOT_SENT);
    assert_non_null(strstr(w->words, "http://127.0.0.1:1: "));
    assert_null(strstr(w->words, "secret"));
}

static void test_no_such_name_is_certainly_not_sent(void **state)
{
    struct world *w = *state;
    ask(w, &(struct sl_http_request){.url = "http://user:word@nowhere.invalid/", .body = SL_STR("x")});
    assert_true(w->err == SL_EUPSTREAM || w->err == SL_ETIMEOUT);
    assert_int_equal(w->sent, SL_HTTP_NOT_SENT);
    assert_null(strstr(w->words, "word"));
}

static void test_no_tls_is_certainly_not_sent(void **state)
{
    struct world *w = *state;
    char url[64];
    (void)snprintf(url, sizeof url, "https://127.0.0.1:%d/hello", w->server.port);
    ask(w, &(struct sl_http_request){.url = url, .body = SL_STR("x"), .connect_ms = 300});
    assert_true(w->err == SL_EUPSTREAM || w->err == SL_ETIMEOUT);
    assert_int_equal(w->sent, SL_HTTP_NOT_SENT);
    assert_int_equal(w->server.requests, 0);
}

static bool refuse(void *arg, const struct sockaddr *to)
{
    (*(unsigned *)arg)++;
    assert_int_equal(to->sa_family, AF_INET);
    return false;
}

static bool allow(void *arg, const struct sockaddr *to)
{
    (void)to;
    (*(unsigned *)arg)++;
    return true;
}

static void test_an_address_that_is_refused_is_not_connected_to(void **state)
{
    struct world *w = *state;
    unsigned asked = 0;
    struct sl_http_request rq = {.url = url_of(w, "/hello"), .may_connect = allow, .may_connect_arg = &asked};
    ask(w, &rq);
    assert_int_equal(w->status, 200);
    rq.may_connect = refuse;
    ask(w, &rq);
    assert_int_equal(asked, 2);
    assert_int_equal(w->err, SL_EDENIED);
    assert_true(w->is_refused);
    assert_int_equal(w->sent, SL_HTTP_NOT_SENT);
    assert_int_equal(w->server.connections, 1);
}

/* ---- what may have been sent ---- */

static void test_a_connection_closed_without_an_answer_may_have_been_sent(void **state)
{
    struct world *w = *state;
    ask(w, &(struct sl_http_request){.url = url_of(w, "/hangup"), .body = SL_STR("x")});
    assert_int_equal(w->err, SL_EUPSTREAM);
    assert_int_equal(w->sent, SL_HTTP_MAY_BE_SENT);
    assert_int_equal(w->status, 0);
}

static void test_silence_ends_at_the_deadline_and_may_have_been_sent(void **state)
{
    struct world *w = *state;
    ask(w, &(struct sl_http_request){.url = url_of(w, "/silent"), .body = SL_STR("x"), .whole_ms = 60});
    assert_int_equal(w->err, SL_ETIMEOUT);
    assert_int_equal(w->sent, SL_HTTP_MAY_BE_SENT);
}

static void test_half_an_answer_is_no_answer(void **state)
{
    struct world *w = *state;
    get(w, "/cut");
    assert_int_equal(w->err, SL_EUPSTREAM);
    assert_int_equal(w->status, 200);
    assert_int_equal(w->sent, SL_HTTP_MAY_BE_SENT);
}

/* libcurl alone would send it again on a fresh connection. */
static void test_a_dead_kept_connection_does_not_send_twice(void **state)
{
    struct world *w = *state;
    struct sl_http_request rq = {.url = url_of(w, "/once"), .body = SL_STR("order")};
    ask(w, &rq);
    assert_int_equal(w->status, 200);
    ask(w, &rq);
    assert_int_equal(w->err, SL_EUPSTREAM);
    assert_int_equal(w->sent, SL_HTTP_MAY_BE_SENT);
    assert_int_equal(w->server.requests, 2);
}

static void test_a_dead_kept_connection_is_repeated_when_allowed(void **state)
{
    struct world *w = *state;
    struct sl_http_request rq = {.url = url_of(w, "/once"), .body = SL_STR("order"), .may_repeat = true};
    ask(w, &rq);
    ask(w, &rq);
    assert_int_equal(w->err, SL_OK);
    assert_string_equal(w->body, "once");
    assert_int_equal(w->server.requests, 3);
}

/* ---- bounds ---- */

static void test_too_large_an_answer_is_refused(void **state)
{
    struct world *w = *state;
    get(w, "/large"); /* by its Content-Length, at once */
    assert_int_equal(w->err, SL_ETOOBIG);
    ask(w, &(struct sl_http_request){.url = url_of(w, "/chunks"), .max_bytes = 15});
    assert_int_equal(w->err, SL_ETOOBIG);
    ask(w, &(struct sl_http_request){.url = url_of(w, "/chunks"), .max_bytes = 16});
    assert_int_equal(w->err, SL_OK);
    assert_string_equal(w->body, "xxxxxxxxyyyyyyyy");
}

static void test_redirects_are_followed_only_when_asked(void **state)
{
    struct world *w = *state;
    get(w, "/away");
    assert_int_equal(w->status, 302);
    ask(w, &(struct sl_http_request){.url = url_of(w, "/away"), .redirects = 1});
    assert_int_equal(w->status, 200);
    assert_string_equal(w->body, "hello");
    assert_non_null(strstr(w->url, "/hello"));
}

static void test_more_than_max_calls_is_busy(void **state)
{
    struct world *w = *state;
    struct sl_http_request rq = {.url = url_of(w, "/silent"), .whole_ms = 50};
    for (int i = 0; i < 3; i++)
        assert_int_equal(sl_http_request(w->http, &rq, on_answer, w, NULL), SL_OK);
    assert_int_equal(sl_http_request(w->http, &rq, on_answer, w, NULL), SL_EAGAIN);
    await(w, 3);
    assert_int_equal(sl_http_calls(w->http), 0);
}

static void test_line_breaks_and_other_schemes_are_refused(void **state)
{
    struct world *w = *state;
    const char *const headers[] = {"X: 1\r\nY: 2", NULL}, *const nameless[] = {"what", NULL};
    const struct sl_http_request bad[] = {{.url = "file:///etc/passwd"},
                                          {.url = "gopher://127.0.0.1/"},
                                          {.url = "http://a/\r\nX: y"},
                                          {.url = url_of(w, "/hello"), .headers = headers},
                                          {.url = url_of(w, "/hello"), .headers = nameless},
                                          {.url = url_of(w, "/hello"), .method = "GET /x HTTP/1.1\r\n"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(sl_http_request(w->http, &bad[i], on_answer, w, NULL), SL_EINVAL);
    assert_int_equal(w->calls, 0);
}

/* ---- ends ---- */

static void test_cancel_settles_once_and_forget_never(void **state)
{
    struct world *w = *state;
    struct sl_http_request rq = {.url = url_of(w, "/silent")};
    uint64_t first, second;
    assert_int_equal(sl_http_request(w->http, &rq, on_answer, w, &first), SL_OK);
    assert_int_equal(sl_http_request(w->http, &rq, on_answer, w, &second), SL_OK);
    while (w->server.requests < 2)
        (void)uv_run(&w->uv, UV_RUN_ONCE);
    sl_http_forget(w->http, second);
    sl_http_cancel(w->http, first);
    sl_http_cancel(w->http, first);
    assert_int_equal(w->calls, 0);
    await(w, 1);
    assert_int_equal(w->err, SL_ECLOSED);
    assert_int_equal(w->sent, SL_HTTP_MAY_BE_SENT);
    assert_int_equal(sl_http_calls(w->http), 0);
}

static void on_answer_close(void *arg, const struct sl_http_answer *a)
{
    struct world *w = arg;
    on_answer(arg, a);
    sl_http_close(&w->http);
}

static void test_closing_inside_a_callback_settles_the_rest(void **state)
{
    struct world *w = *state;
    struct sl_http_request silent = {.url = url_of(w, "/silent")};
    assert_int_equal(sl_http_request(w->http, &silent, on_answer, w, NULL), SL_OK);
    struct sl_http_request hello = {.url = url_of(w, "/hello")};
    assert_int_equal(sl_http_request(w->http, &hello, on_answer_close, w, NULL), SL_OK);
    await(w, 2);
    assert_int_equal(w->err, SL_ECLOSED);
    assert_null(w->http);
}

/* ---- other transfers ---- */

static void on_done(void *arg, void *easy, sl_err err, bool is_begun, const struct sl_fail *why)
{
    struct world *w = arg;
    assert_non_null(easy);
    w->calls++;
    w->err = err;
    w->is_begun = is_begun;
    (void)snprintf(w->words, sizeof w->words, "%s", why->text);
}

static sl_err setup_nowhere(void *arg, void *easy, struct sl_fail *why)
{
    (void)arg;
    (void)why;
    return curl_easy_setopt((CURL *)easy, CURLOPT_URL, "smtp://127.0.0.1:1/") == CURLE_OK ? SL_OK
                                                                                          : SL_EINTERNAL;
}

static sl_err setup_refused(void *arg, void *easy, struct sl_fail *why)
{
    (void)arg;
    (void)easy;
    return sl_fail_set(why, SL_EINVAL, 0, "not like this");
}

/* http is not among the protocols of a transfer. */
static sl_err setup_http(void *arg, void *easy, struct sl_fail *why)
{
    const struct world *w = arg;
    char url[64];
    (void)why;
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d/hello", w->server.port);
    return curl_easy_setopt((CURL *)easy, CURLOPT_URL, url) == CURLE_OK ? SL_OK : SL_EINTERNAL;
}

static void test_a_transfer_tells_whether_it_began(void **state)
{
    struct world *w = *state;
    struct sl_fail why;
    struct sl_http_transfer t = {.setup = setup_nowhere, .done = on_done, .arg = w};
    assert_int_equal(sl_http_transfer(w->http, &t, NULL, &why), SL_OK);
    await(w, 1);
    assert_int_equal(w->err, SL_EUPSTREAM);
    assert_false(w->is_begun);
    t.setup = setup_refused;
    assert_int_equal(sl_http_transfer(w->http, &t, NULL, &why), SL_EINVAL);
    assert_string_equal(why.text, "not like this");
    t.setup = setup_http;
    assert_int_equal(sl_http_transfer(w->http, &t, NULL, &why), SL_OK);
    await(w, 2);
    assert_int_equal(w->err, SL_EINVAL);
    assert_int_equal(w->server.connections, 0);
}

/* ---- the fault ---- */

static void test_the_fault_kills_when_the_last_byte_has_left(void **state)
{
#ifdef SL_TEST_BUILD
    struct world *w = *state;
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        (void)setenv("SLUICE_FAULTS", "http.request_sent", 1);
        (void)uv_loop_fork(&w->uv);
        struct sl_http_request rq = {.url = url_of(w, "/hello"), .body = SL_STR("x")};
        if (sl_http_request(w->http, &rq, on_answer, w, NULL) == SL_OK)
            (void)alarm(20);
        while (w->calls == 0)
            (void)uv_run(&w->uv, UV_RUN_ONCE);
        _exit(3);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
#else
    (void)state;
    print_message("not a test build: there are no faults\n");
#endif
}

/* ---- under the virtual clock ---- */

struct fake {
    struct sl_http *http;
    uint64_t id;
    unsigned asked;
    bool is_quick;
};

static void on_fake_request(void *arg, struct sl_http *h, uint64_t id, const struct sl_http_request *rq)
{
    struct fake *f = arg;
    f->asked++;
    f->http = h;
    f->id = id;
    assert_string_equal(rq->url, "http://provider/");
    if (f->is_quick)
        assert_true(sl_http_fake_answer(
            h, id,
            &(struct sl_http_answer){.status = 201, .head = SL_STR("x-tag: 1\r\n"), .body = SL_STR("ok")}));
}

static void run_virtual(struct sl_loop *l, uint64_t until_mono_ms)
{
    uint64_t due;
    while (sl_loop_virtual_next(l, &due) && due <= until_mono_ms) {
        sl_loop_virtual_set(l, due, sl_loop_unix_ms(l));
        (void)sl_loop_virtual_step(l);
    }
}

static void test_a_fake_answers_on_a_virtual_loop(void **state)
{
    struct world w = {.calls = 0};
    struct fake f = {.is_quick = true};
    struct sl_loop *l = sl_loop_new_virtual(1);
    struct sl_http *h = sl_http_new(l, NULL);
    struct sl_http_request rq = {.url = "http://provider/", .whole_ms = 500};
    (void)state;
    assert_int_equal(sl_http_request(h, &rq, on_answer, &w, NULL), SL_OK); /* no fake: no network */
    run_virtual(l, 1000);
    assert_int_equal(w.calls, 1);
    assert_int_equal(w.err, SL_EUPSTREAM);
    assert_int_equal(w.sent, SL_HTTP_NOT_SENT);
    sl_http_fake_set(&(struct sl_http_fake){.request = on_fake_request, .arg = &f});
    assert_int_equal(sl_http_request(h, &rq, on_answer, &w, NULL), SL_OK);
    assert_int_equal(w.calls, 1);
    run_virtual(l, 1000);
    assert_int_equal(w.calls, 2);
    assert_int_equal(w.status, 201);
    assert_string_equal(w.header, "1");
    f.is_quick = false;
    assert_int_equal(sl_http_request(h, &rq, on_answer, &w, NULL), SL_OK);
    run_virtual(l, 1499);
    assert_int_equal(w.calls, 2);
    run_virtual(l, 1500);
    assert_int_equal(w.calls, 3);
    assert_int_equal(w.err, SL_ETIMEOUT);
    assert_false(sl_http_fake_answer(h, f.id, &(struct sl_http_answer){.status = 200})); /* too late */
    sl_http_fake_set(NULL);
    sl_http_close(&h);
    run_virtual(l, 2000);
    sl_loop_close(&l);
}

static void test_retry_after_is_seconds_or_a_date(void **state)
{
    static const struct {
        const char *head;
        int64_t ms;
    } cases[] = {{"Retry-After: 7\r\n", 7000},
                 {"X: 1\r\nretry-AFTER:120\r\n", 120000},
                 {"Retry-After: Thu, 01 Jan 1970 00:00:10 GMT\r\n", 9000},
                 {"Retry-After: Thu, 01 Jan 1970 00:00:00 GMT\r\n", 1},
                 {"Retry-After: soon\r\n", -1},
                 {"Retry-After: 99999999999\r\n", -1},
                 {"Other: 3\r\n", 0}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sl_http_answer a = {.head = sl_str_c(cases[i].head)};
        assert_int_equal(sl_http_retry_after_ms(&a, 1000), cases[i].ms);
    }
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_get_gives_status_headers_and_body),
        CASE(test_a_connection_is_kept_for_the_next_request),
        CASE(test_post_sends_method_headers_body_and_basic_auth),
        CASE(test_the_environments_proxy_is_not_used),
        CASE(test_no_connection_is_certainly_not_sent),
        CASE(test_no_such_name_is_certainly_not_sent),
        CASE(test_no_tls_is_certainly_not_sent),
        CASE(test_an_address_that_is_refused_is_not_connected_to),
        CASE(test_a_connection_closed_without_an_answer_may_have_been_sent),
        CASE(test_silence_ends_at_the_deadline_and_may_have_been_sent),
        CASE(test_half_an_answer_is_no_answer),
        CASE(test_a_dead_kept_connection_does_not_send_twice),
        CASE(test_a_dead_kept_connection_is_repeated_when_allowed),
        CASE(test_too_large_an_answer_is_refused),
        CASE(test_redirects_are_followed_only_when_asked),
        CASE(test_more_than_max_calls_is_busy),
        CASE(test_line_breaks_and_other_schemes_are_refused),
        CASE(test_cancel_settles_once_and_forget_never),
        CASE(test_closing_inside_a_callback_settles_the_rest),
        CASE(test_a_transfer_tells_whether_it_began),
        CASE(test_the_fault_kills_when_the_last_byte_has_left),
        cmocka_unit_test(test_a_fake_answers_on_a_virtual_loop),
        cmocka_unit_test(test_retry_after_is_seconds_or_a_date),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
