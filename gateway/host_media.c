/* gateway/host_media.c - attachments for adapters: put, read, fetch, link; and how a browser gets them: GET /media/... */
#include "gateway/gateway_priv.h"

#include "gateway/media_type.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- configuration ---- */

struct gw_media_config gw_media_config_of(struct sl_loop *loop, const struct sl_config *cfg)
{
    return (struct gw_media_config){.loop = loop,
                                    .dir = sl_config_str(cfg, "media.dir"),
                                    .public_url = sl_config_str(cfg, "media.public_url"),
                                    .secret = sl_config_str(cfg, "media.secret"),
                                    .max_bytes = sl_config_int(cfg, "media.max"),
                                    .total_bytes = sl_config_int(cfg, "media.total"),
                                    .keep_ms = sl_config_int(cfg, "media.keep"),
                                    .link_ms = sl_config_int(cfg, "media.link_life"),
                                    .s3_endpoint = sl_config_str(cfg, "media.s3_endpoint"),
                                    .s3_region = sl_config_str(cfg, "media.s3_region"),
                                    .s3_bucket = sl_config_str(cfg, "media.s3_bucket"),
                                    .s3_access_key = sl_config_str(cfg, "media.s3_access_key"),
                                    .s3_secret_key = sl_config_str(cfg, "media.s3_secret_key"),
                                    .s3_ca_file = sl_config_str(cfg, "media.ca_file")};
}

sl_err gw_host_media_open(struct gw *gw, const struct sl_config *cfg, struct sl_fail *why)
{
    const struct gw_media_config media = gw_media_config_of(gw->loop, cfg);
    gw->media = gw_media_open(&media, why);
    if (gw->media == NULL)
        return SL_EINVAL;
    struct gw_fetcher_config fetch = {.loop = gw->loop,
                                      .media = gw->media,
                                      .whole_ms = (uint64_t)sl_config_int(cfg, "media.fetch_time"),
                                      .has_alt_ports = sl_config_bool(cfg, "media.fetch_alt_ports"),
                                      .ca_file = sl_config_str(cfg, "media.ca_file")};
    gw->fetcher = gw_fetcher_open(&fetch);
    return SL_OK;
}

/* ---- for adapters ---- */

struct media_call {
    struct gw_box *box;
    chan_media_fn fn;
    void *arg;
};

static struct media_call *call_new(struct chan *ch, chan_media_fn fn, void *arg)
{
    struct media_call *call = sl_alloc(sizeof *call);
    *call = (struct media_call){chan_core(ch), fn, arg};
    return call;
}

static void on_media(void *arg, sl_err err, const struct chan_media *media, struct sl_str bytes,
                     const struct sl_fail *why)
{
    struct media_call call = *(struct media_call *)arg;
    free(arg);
    if (!call.box->is_closing)
        call.fn(call.arg, err, media, bytes, why);
}

static sl_err begun(sl_err err, struct media_call *call)
{
    if (err != SL_OK)
        free(call);
    return err;
}

sl_err gw_host_media_put(struct chan *ch, struct sl_str bytes, struct sl_str type, struct sl_str name,
                         chan_media_fn fn, void *arg)
{
    struct media_call *call = call_new(ch, fn, arg);
    return begun(gw_media_put(call->box->gw->media, bytes, type, name, on_media, call), call);
}

sl_err gw_host_media_fetch(struct chan *ch, const struct chan_fetch *f, chan_media_fn fn, void *arg)
{
    struct media_call *call = call_new(ch, fn, arg);
    if (call->box->gw->fetcher == NULL)
        return begun(SL_EAGAIN, call);
    return begun(gw_fetch(call->box->gw->fetcher, f, on_media, call), call);
}

sl_err gw_host_media_read(struct chan *ch, struct sl_str id, chan_media_fn fn, void *arg)
{
    struct media_call *call = call_new(ch, fn, arg);
    return begun(gw_media_read(call->box->gw->media, id, on_media, call), call);
}

void gw_host_media_link(struct chan *ch, struct sl_str id, struct sl_str name, struct sl_buf *out)
{
    struct gw_box *box = chan_core(ch);
    gw_media_link(box->gw->media, id, name, true, out);
}

/* ---- GET /media/<id>/<name>?exp=&sig= ---- */

struct showing {
    struct gw *gw;
    struct chan_request *rq;
    char name[256], range[64];
    int64_t left_s; /* until the link expires */
};

/* "bytes=a-b", "bytes=a-", "bytes=-n" (RFC 9110 14.1.2), one range alone; false: answer the whole. */
static bool read_range(struct sl_str header, size_t size, size_t *from, size_t *to)
{
    uint64_t a = 0, b = 0;
    if (!sl_str_starts(header, "bytes=") || memchr(header.ptr, ',', header.len) != NULL)
        return false;
    struct sl_str spec = sl_str_n(header.ptr + 6, header.len - 6);
    const char *dash = memchr(spec.ptr, '-', spec.len);
    if (dash == NULL)
        return false;
    struct sl_str first = sl_str_n(spec.ptr, (size_t)(dash - spec.ptr));
    struct sl_str last = sl_str_n(dash + 1, spec.len - first.len - 1);
    if ((first.len > 0 && sl_str_uint(first, &a) != SL_OK) ||
        (last.len > 0 && sl_str_uint(last, &b) != SL_OK) || (first.len == 0 && (last.len == 0 || b == 0)))
        return false;
    if (first.len == 0)
        a = b < size ? size - b : 0;
    bool is_backwards = first.len > 0 && last.len > 0 && b < a;
    if (first.len == 0 || last.len == 0 || b >= size)
        b = size - 1;
    *from = (size_t)a;
    *to = (size_t)b;
    return !is_backwards;
}

/* filename* in UTF-8 (RFC 8187); the plain one for who cannot read it. */
static void add_disposition(struct chan_request *rq, bool is_inline, const char *name)
{
    struct sl_buf b;
    sl_buf_init(&b, 2048);
    sl_buf_printf(&b, "%s; filename*=UTF-8''", is_inline ? "inline" : "attachment");
    for (const char *s = name; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;
        bool is_plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                        strchr("-._~", c) != NULL;
        if (is_plain)
            sl_buf_char(&b, (char)c);
        else
            sl_buf_printf(&b, "%%%02X", c);
    }
    sl_buf_char(&b, '\0');
    gw_front_header(rq, "content-disposition:", b.ptr);
    sl_buf_fini(&b);
}

static void add_headers(const struct showing *s, bool is_inline)
{
    char text[64];
    add_disposition(s->rq, is_inline, s->name);
    gw_front_header(s->rq, "content-security-policy:", "sandbox; default-src 'none'");
    gw_front_header(s->rq, "cross-origin-resource-policy:", "cross-origin");
    (void)snprintf(text, sizeof text, "private, max-age=%lld",
                   (long long)(s->left_s > 3600 ? 3600 : s->left_s));
    gw_front_header(s->rq, "cache-control:", text);
    gw_front_header(s->rq, "accept-ranges:", "bytes");
}

static void on_shown(void *arg, sl_err err, const struct chan_media *media, struct sl_str bytes,
                     const struct sl_fail *why)
{
    struct showing s = *(struct showing *)arg;
    size_t from, to;
    char text[96];
    free(arg);
    if (err != SL_OK) {
        gw_rest_problem(s.rq, err == SL_ENOTFOUND ? err : SL_EAGAIN,
                        err == SL_ENOTFOUND ? why->text : "the media store failed");
        return;
    }
    bool is_inline = gw_media_is_inline(sl_str_c(media->type));
    struct sl_str range = sl_str_c(s.range);
    add_headers(&s, is_inline);
    if (range.len == 0 || !read_range(range, bytes.len, &from, &to)) {
        s.rq->answer(s.rq, 200, media->type, bytes);
    } else if (from >= bytes.len) {
        (void)snprintf(text, sizeof text, "bytes */%zu", bytes.len);
        gw_front_header(s.rq, "content-range:", text);
        s.rq->answer(s.rq, 416, "text/plain", SL_STR("no such range\n"));
    } else {
        (void)snprintf(text, sizeof text, "bytes %zu-%zu/%zu", from, to, bytes.len);
        gw_front_header(s.rq, "content-range:", text);
        s.rq->answer(s.rq, 206, media->type, sl_str_n(bytes.ptr + from, to - from + 1));
    }
}

void gw_media_get(struct gw *gw, struct chan_request *rq)
{
    static const char prefix[] = "/media/";
    struct sl_str rest = sl_str_n(rq->path.ptr + sizeof prefix - 1, rq->path.len - (sizeof prefix - 1));
    const char *slash = memchr(rest.ptr, '/', rest.len);
    struct sl_str id = slash != NULL ? sl_str_n(rest.ptr, (size_t)(slash - rest.ptr)) : rest;
    struct sl_str name = slash != NULL ? sl_str_n(slash + 1, rest.len - id.len - 1) : SL_STR_NONE;
    int64_t expires = 0;
    sl_err err = gw_media_check_link(gw->media, id, name, rq->query, sl_loop_unix_ms(gw->loop), &expires);
    if (err == SL_ECLOSED) {
        rq->answer(rq, 410, "text/plain", SL_STR("this link has expired\n"));
        return;
    }
    if (err != SL_OK) {
        gw_rest_problem(rq, SL_EDENIED, "this is not a link of ours");
        return;
    }
    struct showing *s = sl_alloc(sizeof *s);
    *s = (struct showing){.gw = gw, .rq = rq, .left_s = expires - sl_loop_unix_ms(gw->loop) / 1000};
    memcpy(s->name, name.ptr, name.len); /* at most 255: its signature was ours */
    struct sl_str range = rq->header(rq, "range");
    if (range.len < sizeof s->range)
        memcpy(s->range, range.ptr, range.len);
    err = gw_media_read(gw->media, id, on_shown, s);
    if (err == SL_OK)
        return;
    free(s);
    gw_rest_problem(rq, err == SL_EREFUSED ? SL_ENOTFOUND : SL_EAGAIN,
                    "the media store is not there or busy");
}
