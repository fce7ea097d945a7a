/* gateway/front_tls.c - requests on connections with TLS, by libwebsockets 4.1.6. One request a connection: a POST that was read
 * together with the request before it makes it spin for ever. It is closed with the answer, and what was read behind goes with
 * it. A reverse proxy that keeps connections open talks to us without TLS (front_plain.c). */
#include "gateway/front_priv.h"

#include "base/log.h"

#include <strings.h>

/* libwebsockets keeps these apart from the headers it does not know. */
static const struct {
    const char *name;
    enum lws_token_indexes token;
} known_headers[] = {{"authorization", WSI_TOKEN_HTTP_AUTHORIZATION},
                     {"content-type", WSI_TOKEN_HTTP_CONTENT_TYPE},
                     {"host", WSI_TOKEN_HOST},
                     {"range", WSI_TOKEN_HTTP_RANGE}};

static int copy_header(struct lws *wsi, const char *lower_case_name, char *out, size_t size)
{
    char name[64];
    size_t n = strlen(lower_case_name);
    for (size_t i = 0; i < sizeof known_headers / sizeof known_headers[0]; i++)
        if (strcmp(lower_case_name, known_headers[i].name) == 0)
            return lws_hdr_copy(wsi, out, (int)size, known_headers[i].token);
    if (n + 2 > sizeof name)
        return -1;
    memcpy(name, lower_case_name, n);
    name[n] = ':';
    name[n + 1] = '\0';
    return lws_hdr_custom_copy(wsi, out, (int)size, name, (int)n + 1);
}

/* Its bytes stand in r->text: what was asked for before stays valid, because the room was taken at the beginning. */
static struct sl_str tls_header(struct gw_request *r, const char *lower_case_name)
{
    char value[1024];
    int n = r->peer != NULL ? copy_header(r->peer, lower_case_name, value, sizeof value) : -1;
    if (n <= 0 || (size_t)n >= r->text.cap - r->text.len)
        return SL_STR_NONE;
    struct sl_str out = sl_str_n(r->text.ptr + r->text.len, (size_t)n);
    sl_buf_add(&r->text, value, (size_t)n);
    return out;
}

static void tls_answered(struct gw_request *r)
{
    lws_callback_on_writable(r->peer);
}

static const struct gw_carrier tls_carrier = {.header = tls_header, .answered = tls_answered};

static const struct {
    enum lws_token_indexes token;
    const char *name;
} methods[] = {{WSI_TOKEN_GET_URI, "GET"},        {WSI_TOKEN_POST_URI, "POST"},
               {WSI_TOKEN_HEAD_URI, "HEAD"},      {WSI_TOKEN_PUT_URI, "PUT"},
               {WSI_TOKEN_PATCH_URI, "PATCH"},    {WSI_TOKEN_DELETE_URI, "DELETE"},
               {WSI_TOKEN_OPTIONS_URI, "OPTIONS"}};

static const char *method_of(struct lws *wsi)
{
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
        if (lws_hdr_total_length(wsi, methods[i].token) > 0)
            return methods[i].name;
    return "OTHER";
}

static void add_query(struct lws *wsi, struct sl_buf *out)
{
    char part[512];
    for (int i = 0; i < 32; i++) {
        int n = lws_hdr_copy_fragment(wsi, part, sizeof part, WSI_TOKEN_HTTP_URI_ARGS, i);
        if (n <= 0)
            return;
        if (i > 0)
            sl_buf_char(out, '&');
        sl_buf_add(out, part, (size_t)n);
    }
}

/* -1: not one number. libwebsockets hands over a repeated header as "5,5" and would itself read the 5: a proxy in front that
 * reads it otherwise would take the body's end for the next request. RFC 9112 6.3 */
static int64_t content_length(struct lws *wsi)
{
    char text[24];
    int64_t n = 0;
    if (lws_hdr_total_length(wsi, WSI_TOKEN_HTTP_TRANSFER_ENCODING) > 0)
        return -1;
    if (lws_hdr_total_length(wsi, WSI_TOKEN_HTTP_CONTENT_LENGTH) <= 0)
        return 0;
    struct sl_str value = gw_front_copy_header(wsi, WSI_TOKEN_HTTP_CONTENT_LENGTH, text, sizeof text);
    for (size_t i = 0; i < value.len; i++)
        if (value.ptr[i] < '0' || value.ptr[i] > '9')
            return -1;
    return value.len > 0 && sl_str_int(value, &n) == SL_OK ? n : -1;
}

static int on_asked(struct lws *wsi, struct gw_request **slot, const char *path, size_t path_len)
{
    struct gw_front *f = gw_front_of(wsi);
    gw_request_leave(slot); /* a request behind another on one connection: the first is over */
    if (!gw_request_has_room(f)) {
        (void)lws_return_http_status(wsi, 503, NULL);
        return -1;
    }
    struct gw_request *r = gw_request_new(f, &tls_carrier, wsi);
    *slot = r;
    r->is_last = true;
    lws_get_peer_simple(wsi, r->remote, sizeof r->remote);
    (void)sl_buf_grow(&r->text, GW_HEADERS_MAX_BYTES * 2); /* it stays where it is: tls_header */
    sl_buf_add(&r->text, path, path_len);
    add_query(wsi, &r->text);
    gw_request_name(r, sl_str_c(method_of(wsi)), path_len, r->text.len - path_len);
    int64_t body = content_length(wsi);
    if (body < 0)
        gw_request_refuse(r, 400, "give one Content-Length and no Transfer-Encoding\n");
    else if (gw_request_expect_body(r, body) && body == 0)
        gw_request_dispatch(r);
    return 0;
}

/* The next piece; false: all is written, or nothing more can be. libwebsockets keeps what the kernel does not take, and ends a
 * connection 5 s after it was told to close: a large answer given in one piece never reached who reads slowly. */
static bool write_piece(struct gw_request *r)
{
    size_t left = r->answer.len - r->sent, n = left < GW_FRONT_PIECE_BYTES ? left : GW_FRONT_PIECE_BYTES;
    unsigned char *at = (unsigned char *)r->answer.ptr + r->sent;
    r->sent += n;
    return lws_write(r->peer, at, n, n == left ? LWS_WRITE_HTTP_FINAL : LWS_WRITE_HTTP) >= (int)n && n < left;
}

static int on_writeable(struct lws *wsi, struct gw_request **slot)
{
    struct gw_request *r = *slot;
    if (r == NULL || !r->is_answered)
        return 0;
    if (write_piece(r)) {
        lws_set_timeout(wsi, PENDING_TIMEOUT_HTTP_CONTENT, GW_FRONT_KEEPALIVE_S); /* for this piece */
        lws_callback_on_writable(wsi);
        return 0;
    }
    gw_request_leave(slot);
    return -1; /* what is not written yet goes out first */
}

/* Only a WebSocket of version 13 at /ws: left alone, libwebsockets takes every path and version, and speaks HTTP/2 (h2c) too. */
static int on_upgrade_asked(struct lws *wsi, const char *to)
{
    char path[8], version[8];
    bool is_ours =
        strcasecmp(to, "websocket") == 0 &&
        sl_str_eq_c(gw_front_copy_header(wsi, WSI_TOKEN_GET_URI, path, sizeof path), GW_FRONT_WS_PATH) &&
        sl_str_eq_c(gw_front_copy_header(wsi, WSI_TOKEN_VERSION, version, sizeof version), "13");
    if (is_ours)
        return 0;
    SL_COUNT("sluice_ws_refused_total", "reason=\"upgrade\"", "Upgrades refused", 1);
    (void)lws_return_http_status(wsi, 400, NULL);
    return -1;
}

int gw_front_on_http(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len)
{
    struct gw_request **slot = user;
    switch ((int)reason) {
    case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE:
        return on_upgrade_asked(wsi, in);
    case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION:
        SL_COUNT("sluice_ws_refused_total", "reason=\"protocol\"", "Upgrades refused", 1);
        return -1; /* a WebSocket that does not name sluice.v1 */
    case LWS_CALLBACK_HTTP:
        return slot != NULL ? on_asked(wsi, slot, in, len) : -1;
    case LWS_CALLBACK_HTTP_BODY:
        if (slot != NULL && *slot != NULL && !(*slot)->is_dispatched)
            sl_buf_add(&(*slot)->body, in, len);
        return 0;
    case LWS_CALLBACK_HTTP_BODY_COMPLETION:
        if (slot != NULL && *slot != NULL)
            gw_request_dispatch(*slot);
        return 0;
    case LWS_CALLBACK_HTTP_WRITEABLE:
        return slot != NULL ? on_writeable(wsi, slot) : 0;
    case LWS_CALLBACK_CLOSED_HTTP:
    case LWS_CALLBACK_HTTP_DROP_PROTOCOL:
        if (slot != NULL)
            gw_request_leave(slot);
        return 0;
    default:
        return 0;
    }
}
