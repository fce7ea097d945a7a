/* gateway/front_request.c - one HTTP request, wherever it came from: bounds, the way to cfg.request, the text of its answer. */
#include "gateway/front_priv.h"

#include "base/log.h"

#include <stdlib.h>

#define ANSWER_HEAD_MAX_BYTES (2048 + GW_ANSWER_HEADERS_MAX_BYTES)

_Static_assert(GW_FRAME_ROOM >= LWS_PRE, "a frame leaves room for the WebSocket header");

static struct gw_request *request_of(struct chan_request *rq)
{
    struct gw_request *r = (struct gw_request *)rq;
    sl_assert(r->magic == GW_FRONT_REQUEST_MAGIC);
    return r;
}

/* ---- the answer ---- */

void gw_front_header(struct chan_request *rq, const char *name, const char *value)
{
    struct gw_request *r = request_of(rq);
    sl_buf_add(&r->extra, name, strlen(name) + 1);
    sl_buf_add(&r->extra, value, strlen(value) + 1);
    sl_assert(!r->extra.overflow);
}

/* The next pair behind *at. */
static bool next_extra(const struct gw_request *r, size_t *at, const char **name, const char **value)
{
    if (*at >= r->extra.len)
        return false;
    *name = r->extra.ptr + *at;
    *value = *name + strlen(*name) + 1;
    *at = (size_t)(*value + strlen(*value) + 1 - r->extra.ptr);
    return true;
}

static bool has_extra(const struct gw_request *r, const char *wanted)
{
    const char *name, *value;
    for (size_t at = 0; next_extra(r, &at, &name, &value);)
        if (strcmp(name, wanted) == 0)
            return true;
    return false;
}

/* name with its colon */
static void add_field(struct sl_buf *out, const char *name, struct sl_str value)
{
    gw_http_add_field(out, sl_str_n(name, strlen(name) - 1), value);
}

static void add_date(struct gw_front *f, struct sl_buf *out)
{
    int64_t now = sl_loop_unix_ms(f->cfg.hub->loop) / 1000;
    if (now != f->date_unix_s) {
        f->date_unix_s = now;
        sl_buf_clear(&f->date);
        gw_http_add_date(&f->date, now);
    }
    add_field(out, "date:", sl_buf_view(&f->date));
}

static void write_head(struct gw_request *r, int status, const char *content_type, size_t body_len)
{
    static const struct {
        const char *name, *value;
    } always[] = {{"x-content-type-options:", "nosniff"},
                  {"cache-control:", "no-store"},
                  {"referrer-policy:", "no-referrer"}};
    const char *name, *value;
    struct sl_buf *out = &r->answer;
    gw_http_add_status(out, status);
    add_date(r->front, out);
    if (status != 204)
        add_field(out, "content-type:", sl_str_c(content_type));
    for (size_t i = 0; i < sizeof always / sizeof always[0]; i++)
        if (!has_extra(r, always[i].name))
            add_field(out, always[i].name, sl_str_c(always[i].value));
    for (size_t at = 0; next_extra(r, &at, &name, &value);)
        add_field(out, name, sl_str_c(value));
    if (r->rq.core != NULL)
        add_field(out, "content-security-policy:", sl_str_c(r->rq.core));
    if (status != 204) { /* RFC 9110 8.6 */
        sl_buf_str(out, SL_STR("content-length: "));
        sl_buf_uint(out, body_len);
        sl_buf_str(out, SL_STR("\r\n"));
    }
    if (r->is_last)
        sl_buf_str(out, SL_STR("connection: close\r\n"));
    else if (r->is_http_10)
        sl_buf_str(out, SL_STR("connection: keep-alive\r\n"));
    sl_buf_str(out, SL_STR("\r\n"));
}

static void request_answer(struct chan_request *rq, int status, const char *content_type, struct sl_str body)
{
    static const char room[LWS_PRE];
    struct gw_request *r = request_of(rq);
    struct gw_front *f = r->front;
    sl_assert(!r->is_answered);
    r->is_answered = true;
    if (r->peer == NULL) {
        gw_request_free(r);
        return;
    }
    if (body.len > GW_FRONT_PIECE_BYTES && f->answer_bytes + body.len > GW_ANSWERS_MAX_BYTES) {
        /* so many read so slowly; what is small is always answered */
        sl_buf_clear(&r->extra);
        status = 503;
        content_type = "text/plain";
        body = SL_STR("too many downloads at once\n");
    }
    r->is_last |= f->is_draining;
    r->counted = body.len;
    f->answer_bytes += body.len;
    (void)sl_buf_grow(&r->answer, sizeof room + 512 + body.len);
    sl_buf_add(&r->answer, room, sizeof room);
    write_head(r, status, content_type, body.len);
    if (!sl_str_eq_c(r->rq.method, "HEAD") && status != 204)
        sl_buf_str(&r->answer, body);
    sl_assert(!r->answer.overflow);
    r->sent = sizeof room;
    r->carrier->answered(r);
}

/* ---- life ---- */

bool gw_request_has_room(struct gw_front *f)
{
    if (f->request_count < GW_REQUESTS_MAX)
        return true;
    SL_COUNT("sluice_http_refused_total", "", "Requests refused because too many were open", 1);
    return false;
}

static struct sl_str request_header(const struct chan_request *rq, const char *lower_case_name)
{
    struct gw_request *r = request_of((struct chan_request *)(uintptr_t)rq);
    return r->carrier->header(r, lower_case_name);
}

struct gw_request *gw_request_new(struct gw_front *f, const struct gw_carrier *carrier, void *peer)
{
    struct gw_request *r = sl_alloc(sizeof *r);
    r->magic = GW_FRONT_REQUEST_MAGIC;
    r->front = f;
    r->carrier = carrier;
    r->peer = peer;
    r->rq.header = request_header;
    r->rq.method = r->rq.path = r->rq.query = r->rq.body = r->rq.rest = r->rq.remote = SL_STR_NONE;
    r->rq.answer = request_answer;
    sl_buf_init(&r->text, GW_HEADERS_MAX_BYTES * 3);
    sl_buf_init(&r->body, GW_BODY_MAX_BYTES);
    sl_buf_init(&r->answer, GW_ANSWER_MAX_BYTES + LWS_PRE + ANSWER_HEAD_MAX_BYTES);
    sl_buf_init(&r->extra, GW_ANSWER_HEADERS_MAX_BYTES);
    sl_gauge_set(f->requests_gauge, (int64_t)++f->request_count);
    return r;
}

void gw_request_name(struct gw_request *r, struct sl_str method, size_t path_len, size_t query_len)
{
    struct sl_str text = sl_buf_view(&r->text);
    r->rq.method = method;
    r->rq.path = sl_str_n(text.ptr, path_len);
    r->rq.query = sl_str_n(text.ptr + path_len, query_len);
    r->rq.remote = sl_str_c(r->remote);
}

void gw_request_free(struct gw_request *r)
{
    struct gw_front *f = r->front;
    sl_buf_fini(&r->text);
    sl_buf_fini(&r->body);
    sl_buf_fini(&r->answer);
    sl_buf_fini(&r->extra);
    f->upload_bytes -= r->reserved;
    f->answer_bytes -= r->counted;
    r->magic = 0;
    free(r);
    sl_gauge_set(f->requests_gauge, (int64_t)--f->request_count);
}

void gw_request_leave(struct gw_request **rp)
{
    struct gw_request *r = *rp;
    *rp = NULL;
    if (r == NULL)
        return;
    r->peer = NULL;
    if (r->is_answered || !r->is_dispatched)
        gw_request_free(r); /* else its answer will */
}

/* ---- the way in ---- */

void gw_request_refuse(struct gw_request *r, int status, const char *words)
{
    r->is_dispatched = true;
    r->is_last = true;
    r->rq.answer(&r->rq, status, "text/plain", sl_str_c(words));
}

bool gw_request_expect_body(struct gw_request *r, int64_t body_bytes)
{
    struct gw_front *f = r->front;
    if (body_bytes <= GW_BODY_MAX_BYTES)
        return true;
    if (body_bytes > (int64_t)f->cfg.upload_max || !sl_str_eq_c(r->rq.path, GW_UPLOAD_PATH) ||
        !sl_str_eq_c(r->rq.method, "POST")) {
        gw_request_refuse(r, 413, "body too large\n");
        return false;
    }
    if (f->upload_bytes + (size_t)body_bytes > GW_UPLOADS_MAX_BYTES) {
        gw_request_refuse(r, 503, "too many uploads at once\n");
        return false;
    }
    r->reserved = (size_t)body_bytes;
    f->upload_bytes += r->reserved;
    sl_buf_init(&r->body, r->reserved);
    return true;
}

void gw_request_dispatch(struct gw_request *r)
{
    if (r->is_dispatched)
        return;
    r->is_dispatched = true;
    r->rq.body = sl_buf_view(&r->body);
    r->front->cfg.request(r->front->cfg.arg, &r->rq);
}
