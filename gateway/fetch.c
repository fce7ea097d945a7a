/* gateway/fetch.c - see fetch.h. */
#include "gateway/fetch.h"

#include "gateway/fetch_url.h"
#include "gateway/media_type.h"

#include "base/metrics.h"

#include <stdlib.h>
#include <strings.h>

#define WHOLE_DEFAULT_MS 15000
#define CONNECT_MS       5000

struct gw_fetcher {
    struct gw_fetcher_config cfg;
    struct sl_http *http;
    struct download *first; /* under way */
    bool is_closing;
    size_t count;
};

struct download {
    struct gw_fetcher *f;
    struct download *next, *before;
    struct gw_url url, origin;
    char **headers; /* copies, NULL-terminated */
    struct sl_buf body;
    int64_t max_bytes;
    unsigned redirects;
    bool is_trusted, is_post;
    chan_media_fn fn;
    void *arg;
};

/* ---- life ---- */

struct gw_fetcher *gw_fetcher_open(const struct gw_fetcher_config *cfg)
{
    struct gw_fetcher *f = sl_alloc(sizeof *f);
    struct sl_http_options o = {.name = "fetch", .max_calls = GW_FETCH_CALLS_MAX, .ca_file = cfg->ca_file};
    f->cfg = *cfg;
    f->http = sl_http_new(cfg->loop, &o);
    return f;
}

static void free_when_over(struct gw_fetcher *f)
{
    if (f->is_closing && f->count == 0)
        free(f);
}

void gw_fetcher_close(struct gw_fetcher **fp)
{
    struct gw_fetcher *f = *fp;
    *fp = NULL;
    if (f == NULL)
        return;
    f->is_closing = true;
    sl_http_close(&f->http);
    free_when_over(f);
}

static void download_free(struct download *d)
{
    struct gw_fetcher *f = d->f;
    for (size_t i = 0; d->headers != NULL && d->headers[i] != NULL; i++)
        free(d->headers[i]);
    free(d->headers);
    sl_buf_fini(&d->body);
    if (d->next != NULL)
        d->next->before = d->before;
    if (d->before != NULL)
        d->before->next = d->next;
    else
        f->first = d->next;
    free(d);
    f->count--;
    free_when_over(f);
}

static void finish(struct download *d, sl_err err, const struct chan_media *media, const struct sl_fail *why)
{
    d->fn(d->arg, err, media, SL_STR_NONE, why);
    download_free(d);
}

static void fail(struct download *d, sl_err err, int sys, const char *words)
{
    struct sl_fail why;
    (void)sl_fail_set(&why, err, sys, "fetch %s: %s", d->url.host, words);
    if (err == SL_EDENIED)
        SL_COUNT("sluice_fetch_refused_total", "", "Downloads refused because of where they led", 1);
    finish(d, err, NULL, &why);
}

/* ---- one request ---- */

static bool may_connect(void *arg, const struct sockaddr *to)
{
    const struct download *d = arg;
    if (d->is_trusted)
        return true;
    if (d->f->cfg.may_connect != NULL)
        return d->f->cfg.may_connect(d->f->cfg.may_connect_arg, to);
    return gw_address_is_public(to);
}

static void on_answer(void *arg, const struct sl_http_answer *a);

static sl_err ask(struct download *d)
{
    struct sl_http_request rq = {.url = d->url.text,
                                 .method = d->is_post ? "POST" : "GET",
                                 .headers = (const char *const *)d->headers,
                                 .body = d->is_post ? sl_buf_view(&d->body) : SL_STR_NONE,
                                 .is_body_borrowed = true,
                                 .connect_ms = CONNECT_MS,
                                 .whole_ms = d->f->cfg.whole_ms > 0 ? d->f->cfg.whole_ms : WHOLE_DEFAULT_MS,
                                 .max_bytes = (size_t)d->max_bytes,
                                 .may_repeat = !d->is_post,
                                 .may_connect = may_connect,
                                 .may_connect_arg = d,
                                 .resolve = d->f->cfg.resolve};
    return sl_http_request(d->f->http, &rq, on_answer, d, NULL);
}

static void drop_headers(struct download *d)
{
    for (size_t i = 0; d->headers != NULL && d->headers[i] != NULL; i++)
        free(d->headers[i]);
    free(d->headers);
    d->headers = NULL;
}

/* Whoever it leads to is judged like the first one, and gets nothing of ours. */
static void follow(struct download *d, const struct sl_http_answer *a)
{
    struct gw_url next;
    struct sl_fail why = {.text = ""};
    struct gw_url_rule open = {.is_trusted = true}, rule = {.has_alt_ports = d->f->cfg.has_alt_ports};
    struct sl_str location = sl_http_header(a, "location");
    if (d->redirects++ >= GW_FETCH_REDIRECTS) {
        fail(d, SL_EUPSTREAM, a->status, "too many redirects");
        return;
    }
    bool was_trusted = d->is_trusted;
    sl_err err = gw_url_follow(&d->url, location, &open, &next, &why);
    bool is_home = err == SL_OK && gw_url_same_origin(&next, &d->origin);
    d->is_trusted = was_trusted && is_home;
    if (err == SL_OK && !d->is_trusted)
        err = gw_url_follow(&d->url, location, &rule, &next, &why);
    if (err == SL_OK && d->url.is_https && !next.is_https)
        err = sl_fail_set(&why, SL_EDENIED, 0, "a redirect from https to http");
    if (err != SL_OK) {
        fail(d, err, 0, why.text);
        return;
    }
    if (!is_home || (a->status != 307 && a->status != 308))
        d->is_post = false;
    if (!is_home)
        drop_headers(d);
    d->url = next;
    err = d->f->is_closing ? SL_ECLOSED : ask(d);
    if (err != SL_OK)
        fail(d, err, 0, sl_err_text(err));
}

static void on_stored(void *arg, sl_err err, const struct chan_media *media, struct sl_str bytes,
                      const struct sl_fail *why)
{
    (void)bytes;
    finish(arg, err, media, why);
}

/* filename="x" of Content-Disposition (RFC 6266), else the last step of the path. */
static struct sl_str name_of(const struct download *d, const struct sl_http_answer *a)
{
    struct sl_str v = sl_http_header(a, "content-disposition");
    size_t at;
    if (sl_str_find(v, SL_STR("filename=\""), &at)) {
        v = sl_str_n(v.ptr + at + 10, v.len - at - 10);
        const char *end = memchr(v.ptr, '"', v.len);
        if (end != NULL && end > v.ptr)
            return sl_str_n(v.ptr, (size_t)(end - v.ptr));
    }
    const char *path = strstr(d->url.text, "://"), *last;
    path = path != NULL ? strchr(path + 3, '/') : NULL;
    if (path == NULL)
        return SL_STR_NONE;
    size_t n = strcspn(path, "?");
    last = memrchr(path, '/', n);
    return sl_str_n(last + 1, n - (size_t)(last + 1 - path));
}

static void store(struct download *d, const struct sl_http_answer *a)
{
    if (a->body.len == 0) {
        fail(d, SL_EUPSTREAM, a->status, "the answer is empty");
        return;
    }
    sl_err err = gw_media_put(d->f->cfg.media, a->body, sl_http_header(a, "content-type"), name_of(d, a),
                              on_stored, d);
    if (err != SL_OK)
        fail(d, err, 0, err == SL_EREFUSED ? "there is no media store" : sl_err_text(err));
}

static void on_answer(void *arg, const struct sl_http_answer *a)
{
    struct download *d = arg;
    bool is_redirect =
        a->status == 301 || a->status == 302 || a->status == 303 || a->status == 307 || a->status == 308;
    if (a->err != SL_OK)
        fail(d, a->err, a->why.sys, a->why.text);
    else if (d->f->is_closing)
        fail(d, SL_ECLOSED, 0, "the gateway is closing");
    else if (is_redirect)
        follow(d, a);
    else if (a->status == 404 || a->status == 410)
        fail(d, SL_ENOTFOUND, a->status, "it is not there (any more)");
    else if (a->status != 200)
        fail(d, SL_EUPSTREAM, a->status, "the other side answered with an error");
    else
        store(d, a);
}

/* ---- begin ---- */

static char **copy_headers(const char *const *headers)
{
    size_t count = 0;
    while (headers != NULL && headers[count] != NULL)
        count++;
    char **copy = sl_alloc((count + 1) * sizeof copy[0]);
    for (size_t i = 0; i < count; i++)
        copy[i] = sl_strdup(headers[i]);
    return copy;
}

static struct download *download_new(struct gw_fetcher *f, const struct chan_fetch *what,
                                     const struct gw_url *url)
{
    int64_t most = gw_media_max_bytes(f->cfg.media);
    struct download *d = sl_alloc(sizeof *d);
    d->f = f;
    d->url = d->origin = *url;
    d->headers = copy_headers(what->headers);
    d->is_trusted = what->is_trusted_host;
    d->is_post = what->body.len > 0;
    d->max_bytes = what->max_bytes > 0 && what->max_bytes < most ? what->max_bytes : most;
    sl_buf_init(&d->body, 0);
    sl_buf_str(&d->body, what->body);
    d->next = f->first;
    if (f->first != NULL)
        f->first->before = d;
    f->first = d;
    f->count++;
    return d;
}

sl_err gw_fetch(struct gw_fetcher *f, const struct chan_fetch *what, chan_media_fn fn, void *arg)
{
    struct gw_url url;
    struct sl_fail why;
    struct gw_url_rule rule = {.is_trusted = what->is_trusted_host, .has_alt_ports = f->cfg.has_alt_ports};
    sl_err err = gw_url_read(sl_str_c(what->url), &rule, &url, &why);
    if (err == SL_EDENIED)
        SL_COUNT("sluice_fetch_refused_total", "", "Downloads refused because of where they led", 1);
    if (err == SL_OK && !gw_media_has_store(f->cfg.media))
        err = SL_EREFUSED; /* before anything is downloaded for nothing */
    if (err == SL_OK && (f->is_closing || f->count >= GW_FETCH_CALLS_MAX))
        err = SL_EAGAIN;
    if (err != SL_OK)
        return err;
    struct download *d = download_new(f, what, &url);
    d->fn = fn;
    d->arg = arg;
    err = ask(d);
    if (err == SL_OK)
        return SL_OK;
    download_free(d);
    return err;
}
