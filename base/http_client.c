/* base/http_client.c - the calls of one client: begun, answered, late, cancelled; each settles once. See http_client.h. */
#include "base/http_client.h"

#include "base/fault.h"
#include "base/http_client_priv.h"
#include "base/metrics.h"

#include <signal.h>
#include <stdlib.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define CALLS_DEFAULT       64
#define CONNECT_DEFAULT_MS  5000
#define WHOLE_DEFAULT_MS    30000
#define TRANSFER_DEFAULT_MS 60000
#define BODY_DEFAULT_BYTES  (1u << 20)
#define HEAD_MAX_BYTES      65536 /* of an answer's lines together */
#define PLACE_MAX           200   /* of scheme and host, for words */

enum call_state { CALL_RUNNING, CALL_SETTLED };

struct call {
    struct sl_http *h;
    uint64_t id;
    enum call_state state;
    struct call *next, *before; /* in the client's list while running */
    struct sl_timer deadline;
    CURL *easy; /* NULL: faked, or not begun */
    char words[CURL_ERROR_SIZE];
    char place[PLACE_MAX]; /* "https://host", for words */
    bool is_begun;         /* a connection stood and libcurl was about to write the request */
    bool may_repeat, was_repeated, is_too_big, was_refused, was_allowed;
    long redirects_seen;
    bool (*may_connect)(void *arg, const struct sockaddr *to);
    void *may_connect_arg;
    struct curl_slist *headers, *resolve;
    char *body; /* ours when copied */
    size_t body_len, out_body_bytes;
    bool is_head_out;
    struct sl_buf head, answer;
    /* who waits */
    sl_http_fn fn; /* NULL: a transfer, or forgotten */
    void *arg;
    struct sl_http_transfer transfer; /* done NULL: a request, or forgotten */
    /* how it ended */
    sl_err err;
    int status;
    char *url;
    struct sl_fail why;
};

struct sl_http {
    struct sl_loop *loop;
    struct sl_curl *curl; /* NULL on a virtual loop, and when closed */
    size_t max_calls, calls;
    uint64_t next_id;
    char *ca_file;
    struct call *running;
    struct call *settled_first, *settled_last; /* singly by next */
    struct sl_post settle;
    bool is_closing, is_curl_open;
    struct sl_metric *gauge;
};

static struct sl_http_fake the_fake;

/* ---- life ---- */

static void on_curl_done(void *arg, CURL *easy, CURLcode result);
static void on_curl_closed(void *arg);
static void run_settled(void *arg);

struct sl_http *sl_http_new(struct sl_loop *l, const struct sl_http_options *o)
{
    static const struct sl_curl_events events = {.done = on_curl_done, .closed = on_curl_closed};
    static const struct sl_http_options none;
    char labels[128];
    if (o == NULL)
        o = &none;
    struct sl_http *h = sl_alloc(sizeof *h);
    h->loop = l;
    h->max_calls = o->max_calls > 0 ? o->max_calls : CALLS_DEFAULT;
    h->ca_file = sl_strdup(o->ca_file != NULL ? o->ca_file : "");
    sl_post_init(&h->settle, l, run_settled, h);
    struct sl_buf label;
    sl_buf_init(&label, sizeof labels);
    sl_buf_printf(&label, "client=\"%s\"", o->name != NULL ? o->name : "default");
    sl_buf_char(&label, '\0');
    sl_assert(!label.overflow);
    h->gauge = sl_gauge("sluice_http_calls", label.ptr, "Requests to other servers under way");
    sl_buf_fini(&label);
    sl_gauge_max(h->gauge, (int64_t)h->max_calls);
    if (sl_loop_uv(l) != NULL) {
        h->curl = sl_curl_open(l, h->max_calls, &events, h);
        h->is_curl_open = true;
    }
    return h;
}

static void free_when_over(struct sl_http *h)
{
    if (!h->is_closing || h->is_curl_open || h->calls > 0)
        return;
    sl_post_cancel(&h->settle);
    free(h->ca_file);
    free(h);
}

static void on_curl_closed(void *arg)
{
    struct sl_http *h = arg;
    h->is_curl_open = false;
    sl_post_now(&h->settle); /* which frees it: never inside a caller's stack */
}

static void settle(struct call *c, sl_err err, const char *words);

void sl_http_close(struct sl_http **hp)
{
    struct sl_http *h = *hp;
    *hp = NULL;
    if (h == NULL)
        return;
    h->is_closing = true;
    while (h->running != NULL)
        settle(h->running, SL_ECLOSED, "the client is closing");
    if (h->curl != NULL)
        sl_curl_close(&h->curl);
    sl_post_now(&h->settle);
}

size_t sl_http_calls(const struct sl_http *h)
{
    return h->calls;
}

/* ---- one call ---- */

/* Scheme and host of a URL: what stands behind them may be a secret. */
static void place_of(const char *url, char out[PLACE_MAX])
{
    const char *host = strstr(url, "://");
    host = host != NULL ? host + 3 : url;
    size_t n = strcspn(host, "/?#");
    const char *at = memrchr(host, '@', n);
    size_t skip = at != NULL ? (size_t)(at + 1 - host) : 0;
    struct sl_buf text;
    sl_buf_init(&text, PLACE_MAX * 4);
    sl_buf_add(&text, url, (size_t)(host - url));
    sl_buf_add(&text, host + skip, n - skip);
    size_t len = text.len < PLACE_MAX - 1 ? text.len : PLACE_MAX - 1;
    for (size_t i = 0; i < len; i++)
        out[i] = (char)(text.ptr[i] > ' ' && text.ptr[i] < 127 ? text.ptr[i] : '?');
    out[len] = '\0';
    sl_buf_fini(&text);
}

static void on_deadline(void *arg)
{
    settle(arg, SL_ETIMEOUT, "no whole answer within the deadline");
}

static struct call *call_new(struct sl_http *h)
{
    struct call *c = sl_alloc(sizeof *c);
    c->h = h;
    c->id = ++h->next_id;
    sl_timer_init(&c->deadline, h->loop, on_deadline, c);
    sl_buf_init(&c->head, HEAD_MAX_BYTES);
    c->next = h->running;
    if (h->running != NULL)
        h->running->before = c;
    h->running = c;
    sl_gauge_set(h->gauge, (int64_t)++h->calls);
    return c;
}

static void call_unlink(struct call *c)
{
    if (c->next != NULL)
        c->next->before = c->before;
    if (c->before != NULL)
        c->before->next = c->next;
    else
        c->h->running = c->next;
    c->next = c->before = NULL;
}

static void call_free(struct call *c)
{
    struct sl_http *h = c->h;
    if (c->easy != NULL)
        curl_easy_cleanup(c->easy);
    curl_slist_free_all(c->headers);
    curl_slist_free_all(c->resolve);
    sl_buf_fini(&c->head);
    sl_buf_fini(&c->answer);
    free(c->body);
    free(c->url);
    free(c);
    sl_gauge_set(h->gauge, (int64_t)--h->calls);
}

static struct call *find_call(const struct sl_http *h, uint64_t id)
{
    struct call *c = h->running;
    while (c != NULL && c->id != id)
        c = c->next;
    return c;
}

/* It is over: kept until its owner is told on the next turn. */
static void settle(struct call *c, sl_err err, const char *words)
{
    struct sl_http *h = c->h;
    sl_assert(c->state == CALL_RUNNING);
    c->state = CALL_SETTLED;
    sl_timer_stop(&c->deadline);
    call_unlink(c);
    if (c->easy != NULL) {
        char *url = NULL;
        sl_curl_remove(h->curl, c->easy);
        if (c->url == NULL && curl_easy_getinfo(c->easy, CURLINFO_EFFECTIVE_URL, &url) == CURLE_OK &&
            url != NULL)
            c->url = sl_strdup(url);
    }
    c->err = err;
    if (err != SL_OK)
        (void)sl_fail_set(&c->why, err, c->why.sys, "%s: %s", c->place, words);
    if (h->settled_last != NULL)
        h->settled_last->next = c;
    else
        h->settled_first = c;
    h->settled_last = c;
    sl_post_now(&h->settle);
}

static enum sl_http_sent was_sent(const struct call *c)
{
    long bytes = 0;
    if (!c->is_begun)
        return SL_HTTP_NOT_SENT;
    if (c->easy != NULL && !c->was_repeated &&
        curl_easy_getinfo(c->easy, CURLINFO_REQUEST_SIZE, &bytes) == CURLE_OK && bytes == 0)
        return SL_HTTP_NOT_SENT;
    return SL_HTTP_MAY_BE_SENT;
}

static void tell(struct call *c)
{
    if (c->transfer.done != NULL) {
        c->transfer.done(c->transfer.arg, c->easy, c->err, c->is_begun, &c->why);
        return;
    }
    if (c->fn == NULL)
        return;
    struct sl_http_answer a = {.err = c->err,
                               .sent = was_sent(c),
                               .status = c->status,
                               .head = sl_buf_view(&c->head),
                               .body = sl_buf_view(&c->answer),
                               .url = c->url != NULL ? c->url : "",
                               .is_refused = c->was_refused && !c->was_allowed,
                               .why = c->why};
    c->fn(c->arg, &a);
}

/* Those that were there at the beginning; what settles meanwhile waits for the next turn. */
static void run_settled(void *arg)
{
    struct sl_http *h = arg;
    const struct call *last = h->settled_last;
    bool is_last = last == NULL;
    while (!is_last) {
        struct call *c = h->settled_first;
        is_last = c == last;
        h->settled_first = c->next;
        if (h->settled_first == NULL)
            h->settled_last = NULL;
        tell(c);
        call_free(c);
    }
    free_when_over(h);
}

void sl_http_cancel(struct sl_http *h, uint64_t id)
{
    struct call *c = find_call(h, id);
    if (c != NULL)
        settle(c, SL_ECLOSED, "cancelled");
}

static void forget(struct call *c)
{
    c->fn = NULL;
    c->transfer.done = NULL;
}

void sl_http_forget(struct sl_http *h, uint64_t id)
{
    struct call *c = find_call(h, id);
    if (c != NULL) {
        forget(c);
        settle(c, SL_ECLOSED, "forgotten");
        return;
    }
    for (c = h->settled_first; c != NULL; c = c->next)
        if (c->id == id)
            forget(c);
}

/* ---- what libcurl reports ---- */

static sl_err error_of(const struct call *c, CURLcode result)
{
    if (c->is_too_big || result == CURLE_FILESIZE_EXCEEDED)
        return SL_ETOOBIG;
    if (c->was_refused && !c->was_allowed && !c->is_begun)
        return SL_EDENIED;
    switch ((int)result) {
    case CURLE_OK:
        return SL_OK;
    case CURLE_OPERATION_TIMEDOUT:
        return SL_ETIMEOUT;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return SL_EINVAL;
    case CURLE_LOGIN_DENIED:
        return SL_EAUTH;
    default:
        return SL_EUPSTREAM;
    }
}

static void on_curl_done(void *arg, CURL *easy, CURLcode result)
{
    struct call *c = NULL;
    long status = 0;
    (void)arg;
    (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&c);
    (void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    c->status = (int)status;
    c->why.sys = (int)result;
    sl_err err = error_of(c, result);
    const char *words = c->words[0] != '\0' ? c->words : curl_easy_strerror(result);
    if (err == SL_ETOOBIG)
        words = "the answer is larger than allowed";
    else if (err == SL_EDENIED)
        words = "it has no address that may be connected to";
    else if (c->was_repeated)
        words = "the kept connection ended before an answer came";
    settle(c, err, words);
}

/* The connection stands (with TLS) and the request is about to be written. Called again for a redirect, and when libcurl
 * wants to send once more because a kept connection gave no answer. */
static int on_begin(void *arg, char *remote, char *local, int remote_port, int local_port)
{
    struct call *c = arg;
    long redirects = 0;
    (void)remote;
    (void)local;
    (void)remote_port;
    (void)local_port;
    (void)curl_easy_getinfo(c->easy, CURLINFO_REDIRECT_COUNT, &redirects);
    if (c->is_begun && redirects == c->redirects_seen && !c->may_repeat) {
        c->was_repeated = true;
        return CURL_PREREQFUNC_ABORT;
    }
    c->is_begun = true;
    c->redirects_seen = redirects;
    return CURL_PREREQFUNC_OK;
}

static size_t on_head(char *line, size_t size, size_t count, void *arg)
{
    struct call *c = arg;
    size_t n = size * count;
    if (n >= 5 && memcmp(line, "HTTP/", 5) == 0) { /* after 1xx or a redirect comes another head */
        sl_buf_clear(&c->head);
        sl_buf_clear(&c->answer);
    }
    sl_buf_add(&c->head, line, n);
    c->is_too_big = c->is_too_big || c->head.overflow;
    return c->head.overflow ? 0 : n;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *arg)
{
    struct call *c = arg;
    size_t n = size * count;
    sl_buf_add(&c->answer, bytes, n);
    c->is_too_big = c->is_too_big || c->answer.overflow;
    return c->answer.overflow ? 0 : n;
}

static curl_socket_t on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *to)
{
    struct call *c = arg;
    (void)purpose;
    if (!c->may_connect(c->may_connect_arg, &to->addr)) {
        c->was_refused = true;
        return CURL_SOCKET_BAD;
    }
    c->was_allowed = true;
    return socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
}

/* Only while the fault is named: libcurl shows what it wrote, and the process ends when the last byte of a request has left. */
static int on_debug(CURL *easy, curl_infotype type, char *bytes, size_t n, void *arg)
{
    struct call *c = arg;
    (void)easy;
    (void)bytes;
    if (type == CURLINFO_HEADER_OUT)
        c->is_head_out = true;
    else if (type == CURLINFO_DATA_OUT)
        c->out_body_bytes += n;
    else
        return 0;
    if (c->is_head_out && c->out_body_bytes >= c->body_len && sl_fault("http.request_sent"))
        (void)kill(getpid(), SIGKILL);
    return 0;
}

/* ---- starting ---- */

static bool has_line_break(const char *s)
{
    return s[strcspn(s, "\r\n")] != '\0';
}

static sl_err check_request(const struct sl_http_request *rq)
{
    bool is_plain = rq->method == NULL || strcmp(rq->method, "GET") == 0 || strcmp(rq->method, "HEAD") == 0;
    if (rq->url == NULL || has_line_break(rq->url) ||
        (strncasecmp(rq->url, "http://", 7) != 0 && strncasecmp(rq->url, "https://", 8) != 0))
        return SL_EINVAL;
    if (rq->method != NULL && rq->method[strspn(rq->method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")] != '\0')
        return SL_EINVAL;
    for (size_t i = 0; rq->headers != NULL && rq->headers[i] != NULL; i++)
        if (has_line_break(rq->headers[i]) || strchr(rq->headers[i], ':') == NULL)
            return SL_EINVAL;
    sl_assert(rq->redirects == 0 || (is_plain && rq->body.len == 0));
    return SL_OK;
}

static void set_common(struct call *c, uint64_t connect_ms)
{
    CURL *e = c->easy;
    (void)curl_easy_setopt(e, CURLOPT_PRIVATE, c);
    (void)curl_easy_setopt(e, CURLOPT_ERRORBUFFER, c->words);
    (void)curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L); /* never wait for the resolver's thread */
    (void)curl_easy_setopt(e, CURLOPT_PROXY, "");      /* not the environment's */
    (void)curl_easy_setopt(e, CURLOPT_PREREQFUNCTION, on_begin);
    (void)curl_easy_setopt(e, CURLOPT_PREREQDATA, c);
    (void)curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS,
                           (long)(connect_ms > 0 ? connect_ms : CONNECT_DEFAULT_MS));
    if (c->h->ca_file[0] != '\0')
        (void)curl_easy_setopt(e, CURLOPT_CAINFO, c->h->ca_file);
}

static void set_method(struct call *c, const struct sl_http_request *rq, const char *body)
{
    CURL *e = c->easy;
    if (rq->body.len > 0 || (rq->method != NULL && strcmp(rq->method, "POST") == 0)) {
        (void)curl_easy_setopt(e, CURLOPT_POST, 1L);
        (void)curl_easy_setopt(e, CURLOPT_POSTFIELDS, rq->body.len > 0 ? body : "");
        (void)curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)rq->body.len);
    } else if (rq->method != NULL && strcmp(rq->method, "HEAD") == 0) {
        (void)curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
        return;
    }
    if (rq->method != NULL && strcmp(rq->method, "POST") != 0)
        (void)curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, rq->method);
}

static void add_header(struct call *c, const char *line)
{
    struct curl_slist *list = curl_slist_append(c->headers, line);
    sl_assert(list != NULL);
    c->headers = list;
}

static void set_limits(struct call *c, const struct sl_http_request *rq)
{
    CURL *e = c->easy;
    (void)curl_easy_setopt(e, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)c->answer.max);
    (void)curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_head);
    (void)curl_easy_setopt(e, CURLOPT_HEADERDATA, c);
    (void)curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(e, CURLOPT_WRITEDATA, c);
    if (rq->may_connect != NULL) {
        (void)curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
        (void)curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, c);
        (void)curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, 1L); /* each one is checked */
        (void)curl_easy_setopt(e, CURLOPT_FORBID_REUSE, 1L);
    }
    if (rq->resolve != NULL) {
        c->resolve = curl_slist_append(NULL, rq->resolve);
        (void)curl_easy_setopt(e, CURLOPT_RESOLVE, c->resolve);
    }
    if (rq->redirects > 0) {
        (void)curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 1L);
        (void)curl_easy_setopt(e, CURLOPT_MAXREDIRS, (long)rq->redirects);
    }
}

static void start_easy(struct call *c, const struct sl_http_request *rq)
{
    CURL *e = c->easy = curl_easy_init();
    sl_assert(e != NULL);
    set_common(c, rq->connect_ms);
    (void)curl_easy_setopt(e, CURLOPT_URL, rq->url);
    (void)curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(e, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    set_method(c, rq, c->body != NULL ? c->body : rq->body.ptr);
    for (size_t i = 0; rq->headers != NULL && rq->headers[i] != NULL; i++)
        add_header(c, rq->headers[i]);
    add_header(c, "Expect:"); /* no waiting for 100 Continue */
    (void)curl_easy_setopt(e, CURLOPT_HTTPHEADER, c->headers);
    if (rq->user != NULL) {
        (void)curl_easy_setopt(e, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
        (void)curl_easy_setopt(e, CURLOPT_USERNAME, rq->user);
        (void)curl_easy_setopt(e, CURLOPT_PASSWORD, rq->password != NULL ? rq->password : "");
    }
    set_limits(c, rq);
    if (sl_fault("http.request_sent")) {
        (void)curl_easy_setopt(e, CURLOPT_VERBOSE, 1L);
        (void)curl_easy_setopt(e, CURLOPT_DEBUGFUNCTION, on_debug);
        (void)curl_easy_setopt(e, CURLOPT_DEBUGDATA, c);
    }
    sl_curl_add(c->h->curl, e);
}

sl_err sl_http_request(struct sl_http *h, const struct sl_http_request *rq, sl_http_fn fn, void *arg,
                       uint64_t *id)
{
    if (check_request(rq) != SL_OK)
        return SL_EINVAL;
    if (h->is_closing || h->calls >= h->max_calls)
        return SL_EAGAIN;
    struct call *c = call_new(h);
    c->fn = fn;
    c->arg = arg;
    c->may_repeat = rq->may_repeat;
    c->may_connect = rq->may_connect;
    c->may_connect_arg = rq->may_connect_arg;
    c->body_len = rq->body.len;
    if (!rq->is_body_borrowed && rq->body.len > 0)
        c->body = sl_str_dup(rq->body);
    sl_buf_init(&c->answer, rq->max_bytes > 0 ? rq->max_bytes : BODY_DEFAULT_BYTES);
    place_of(rq->url, c->place);
    sl_timer_start(&c->deadline, rq->whole_ms > 0 ? rq->whole_ms : WHOLE_DEFAULT_MS);
    if (id != NULL)
        *id = c->id;
    if (h->curl != NULL)
        start_easy(c, rq);
    else if (the_fake.request != NULL)
        the_fake.request(the_fake.arg, h, c->id, rq);
    else
        settle(c, SL_EUPSTREAM, "there is no network on a virtual loop");
    return SL_OK;
}

sl_err sl_http_transfer(struct sl_http *h, const struct sl_http_transfer *t, uint64_t *id,
                        struct sl_fail *why)
{
    if (h->is_closing || h->calls >= h->max_calls)
        return sl_fail_set(why, SL_EAGAIN, 0, "too many transfers are under way");
    struct call *c = call_new(h);
    place_of("transfer", c->place);
    if (h->curl != NULL) {
        c->easy = curl_easy_init();
        sl_assert(c->easy != NULL);
        (void)curl_easy_setopt(c->easy, CURLOPT_PROTOCOLS_STR, "smtp,smtps,imap,imaps");
        set_common(c, t->connect_ms);
        sl_err err = t->setup(t->arg, c->easy, why);
        if (err != SL_OK) {
            call_unlink(c);
            call_free(c);
            return err;
        }
    }
    c->transfer = *t;
    sl_timer_start(&c->deadline, t->whole_ms > 0 ? t->whole_ms : TRANSFER_DEFAULT_MS);
    if (id != NULL)
        *id = c->id;
    if (h->curl != NULL)
        sl_curl_add(h->curl, c->easy);
    else if (the_fake.transfer != NULL)
        the_fake.transfer(the_fake.arg, h, c->id, t);
    else
        settle(c, SL_EUPSTREAM, "there is no network on a virtual loop");
    return SL_OK;
}

/* ---- reading an answer ---- */

static struct sl_str trimmed(struct sl_str s)
{
    while (s.len > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t'))
        s = sl_str_n(s.ptr + 1, s.len - 1);
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t' || s.ptr[s.len - 1] == '\r'))
        s.len--;
    return s;
}

struct sl_str sl_http_header(const struct sl_http_answer *a, const char *lower_case_name)
{
    struct sl_str rest = a->head;
    size_t n = strlen(lower_case_name);
    while (rest.len > 0) {
        const char *end = memchr(rest.ptr, '\n', rest.len);
        size_t len = end != NULL ? (size_t)(end - rest.ptr) : rest.len;
        if (len > n && rest.ptr[n] == ':' && strncasecmp(rest.ptr, lower_case_name, n) == 0)
            return trimmed(sl_str_n(rest.ptr + n + 1, len - n - 1));
        size_t step = end != NULL ? len + 1 : len;
        rest = sl_str_n(rest.ptr + step, rest.len - step);
    }
    return SL_STR_NONE;
}

int64_t sl_http_retry_after_ms(const struct sl_http_answer *a, int64_t now_unix_ms)
{
    struct sl_str v = sl_http_header(a, "retry-after");
    uint64_t seconds;
    char text[64];
    if (v.len == 0)
        return 0;
    if (sl_str_uint(v, &seconds) == SL_OK)
        return seconds > 86400u * 365 ? -1 : (int64_t)seconds * 1000;
    if (v.len >= sizeof text)
        return -1;
    memcpy(text, v.ptr, v.len);
    text[v.len] = '\0';
    time_t at = curl_getdate(text, NULL);
    if (at < 0)
        return -1;
    int64_t left = (int64_t)at * 1000 - now_unix_ms;
    return left > 0 ? left : 1;
}

/* ---- for tests ---- */

void sl_http_fake_set(const struct sl_http_fake *fake)
{
    static const struct sl_http_fake none;
    the_fake = fake != NULL ? *fake : none;
}

bool sl_http_fake_answer(struct sl_http *h, uint64_t id, const struct sl_http_answer *a)
{
    struct call *c = find_call(h, id);
    if (c == NULL)
        return false;
    c->status = a->status;
    c->is_begun = a->err == SL_OK || a->sent == SL_HTTP_MAY_BE_SENT;
    c->url = a->url != NULL ? sl_strdup(a->url) : NULL;
    sl_buf_str(&c->head, a->head);
    sl_buf_str(&c->answer, a->body);
    sl_err err = c->answer.overflow ? SL_ETOOBIG : a->err;
    settle(c, err, a->why.text[0] != '\0' ? a->why.text : sl_err_text(err));
    return true;
}

bool sl_http_fake_done(struct sl_http *h, uint64_t id, sl_err err, bool is_begun, const char *words)
{
    struct call *c = find_call(h, id);
    if (c == NULL)
        return false;
    c->is_begun = is_begun;
    settle(c, err, words);
    return true;
}
