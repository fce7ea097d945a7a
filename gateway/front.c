/* gateway/front.c - see front.h. The traps of libwebsockets 4.1.6 that shaped it:
 *
 * - its own validity timer makes each accept cost time in proportion to the open sockets: an all-zero retry policy turns it off,
 *   and the hub's wheel does the heartbeat;
 * - at the descriptor limit its accept spins: fd_limit_per_thread stays below it, and we count;
 * - a message longer than the receive buffer comes in pieces: put together here, with a cap;
 * - a POST that was read together with the request before it (GET and POST in one packet) makes it spin for ever: an HTTP
 *   connection takes one request and is closed with the answer, and what was read behind it goes with it;
 * - asking for WRITEABLE costs two epoll_ctl calls: with nothing waiting and the pipe free we write at once.
 */
#include "gateway/front.h"

#include "gateway/outbox.h"
#include "gateway/session.h"

#include "base/log.h"

#include <arpa/inet.h>
#include <libwebsockets.h>
#include <netdb.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/resource.h>

#define RX_BUFFER_BYTES      1024
#define SERVICE_BUFFER_BYTES 4096
#define HEADER_POOL          64
#define FD_RESERVE           512
#define KILL_AFTER_S         3  /* a closing socket whose peer does not take the close frame */
#define TIMEOUT_S            15 /* to complete a request or an upgrade */
#define KEEPALIVE_S          30
#define ANSWER_PIECE_BYTES   65536
#define CLOSE_BYTES_MAX      125 /* RFC 6455 5.5: control payload <= 125 bytes */
#define FRAME_PATH           "/ws"
#define REQUEST_MAGIC        0x72657173u
#define CONN_MAGIC           0x636f6e6eu

_Static_assert(GW_FRAME_ROOM >= LWS_PRE, "a frame leaves room for the WebSocket header");

/* One WebSocket. */
struct conn {
    struct gw_wire wire; /* first: the session's end of it */
    uint32_t magic;
    bool is_closing, is_close_sent, is_slow, is_held;
    enum frame_close code;
    struct lws *wsi;
    struct gw_front *front;
    struct gw_session *session;
    struct gw_outbox out;
    struct sl_buf *pieces; /* of a message that comes in several */
    struct conn *next, *before;
    struct conn *held_next, *held_before;
    char ip[46]; /* "" : not counted */
};

/* One HTTP request, until it was answered and its connection let go of it. */
struct request {
    struct chan_request rq; /* first */
    uint32_t magic;
    struct gw_front *front;
    struct lws *wsi;    /* NULL: the client left */
    struct sl_buf text; /* method, path, query, then headers' scratch */
    struct sl_buf body, answer;
    struct sl_buf extra; /* headers of the answer: name, value, each with its NUL */
    char content_type[64];
    char header[1024];
    bool is_dispatched, is_answered;
    size_t reserved; /* of the room for uploads */
    size_t sent;     /* of the answer, with its LWS_PRE; 0: not even the head */
    size_t counted;  /* in answer_bytes */
    bool is_broken;  /* where its body ends is in doubt: 400, and nothing more is read from this connection */
    int status;
};

struct gw_front {
    struct gw_front_config cfg;
    struct lws_context *context;
    struct lws_vhost *vhost;
    char *host, *cert, *key;
    int port;
    struct conn *conns;
    size_t conn_count, request_count, upload_bytes, answer_bytes;
    struct conn *held, *held_longer; /* since the last turn of the timer; since the one before */
    struct sl_timer hold;
    struct sl_map *ips; /* address -> how many sockets */
    struct sl_buf message;
    bool is_draining;
    struct sl_metric *conns_gauge, *requests_gauge, *messages_out, *messages_in;
};

static int on_http(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len);
static int on_ws(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len);

static const struct lws_protocols protocols[] = {
    {"http", on_http, sizeof(struct request *), RX_BUFFER_BYTES, 0, NULL, 0},
    {FRAME_PROTOCOL, on_ws, sizeof(struct conn *), RX_BUFFER_BYTES, 0, NULL, 0},
    {NULL, NULL, 0, 0, 0, NULL, 0},
};

static struct gw_front *front_of(struct lws *wsi)
{
    return lws_context_user(lws_get_context(wsi));
}

/* ---- writing to a WebSocket ---- */

static void held_remove(struct conn *c)
{
    if (!c->is_held)
        return;
    if (c->held_next != NULL)
        c->held_next->held_before = c->held_before;
    if (c->held_before != NULL)
        c->held_before->held_next = c->held_next;
    else if (c->front->held == c)
        c->front->held = c->held_next;
    else
        c->front->held_longer = c->held_next;
    c->held_next = c->held_before = NULL;
    c->is_held = false;
}

static void held_add(struct conn *c)
{
    struct gw_front *f = c->front;
    if (c->is_held)
        return;
    c->is_held = true;
    c->held_before = NULL;
    c->held_next = f->held;
    if (f->held != NULL)
        f->held->held_before = c;
    f->held = c;
    if (!sl_timer_is_active(&f->hold))
        sl_timer_start(&f->hold, GW_HOLD_MS / 2);
}

static void conn_close(struct conn *c, enum frame_close code)
{
    if (c->is_closing)
        return;
    c->is_closing = true;
    c->code = code;
    lws_set_timeout(c->wsi, PENDING_TIMEOUT_CLOSE_ACK, KILL_AFTER_S);
    lws_callback_on_writable(c->wsi);
}

static bool write_text(struct conn *c, char *text, size_t len)
{
    sl_count(c->front->messages_out, 1);
    if (lws_write(c->wsi, (unsigned char *)text, len, LWS_WRITE_TEXT) >= (int)len)
        return true;
    c->is_slow = true; /* the connection is broken: nothing more can be written */
    conn_close(c, FRAME_CLOSE_GOING_AWAY);
    return false;
}

/* What the kernel does not take of one message lws keeps (at most one), so the kernel need not be asked before each. */
static bool is_pipe_free(const struct conn *c)
{
    return !c->is_slow && lws_partial_buffered(c->wsi) == 0;
}

/* Write as much of what waits as the pipe takes. */
static void flush(struct conn *c)
{
    struct sl_buf *m = &c->front->message;
    held_remove(c);
    while (!gw_outbox_is_empty(&c->out)) {
        if (!is_pipe_free(c)) {
            lws_callback_on_writable(c->wsi);
            return;
        }
        m->len = GW_FRAME_ROOM;
        (void)gw_outbox_take(&c->out, m);
        if (!write_text(c, m->ptr + GW_FRAME_ROOM, m->len - GW_FRAME_ROOM))
            return;
    }
    if (c->session->wants_room && !c->is_closing)
        held_add(c); /* on_hold_over tells the session, outside of its own calls */
}

static void on_hold_over(void *arg)
{
    struct gw_front *f = arg;
    struct conn *c = f->held_longer;
    f->held_longer = f->held; /* they wait for one more turn, so nobody for less than half of GW_HOLD_MS */
    f->held = NULL;
    if (f->held_longer != NULL)
        sl_timer_start(&f->hold, GW_HOLD_MS / 2);
    while (c != NULL) {
        struct conn *next = c->held_next;
        c->held_next = c->held_before = NULL;
        c->is_held = false;
        flush(c);
        if (gw_outbox_is_empty(&c->out) && !c->is_closing && c->session->wants_room)
            gw_session_room(c->session);
        c = next;
    }
}

static size_t wire_room(const struct gw_wire *w)
{
    const struct conn *c = (const struct conn *)w;
    return gw_outbox_room(&c->out);
}

static void wire_send(struct gw_wire *w, struct sl_str frame, enum gw_urgency when)
{
    struct conn *c = (struct conn *)w;
    if (c->is_closing)
        return;
    if (when == GW_NOW && gw_outbox_is_empty(&c->out) && is_pipe_free(c)) {
        (void)write_text(c, (char *)(uintptr_t)frame.ptr, frame.len); /* the room before it is ours: wire.h */
        return;
    }
    if (!gw_outbox_add(&c->out, frame)) {
        c->is_slow = true;
        gw_session_close(c->session, FRAME_CLOSE_SLOW);
        return;
    }
    if (when == GW_NOW)
        flush(c);
    else
        held_add(c);
}

static void wire_ping(struct gw_wire *w)
{
    struct conn *c = (struct conn *)w;
    unsigned char ping[LWS_PRE + 1] = {0};
    if (c->is_closing)
        return;
    if (gw_outbox_is_empty(&c->out) && is_pipe_free(c))
        (void)lws_write(c->wsi, ping + LWS_PRE, 1,
                        LWS_WRITE_PING); /* the pong of an empty one is not reported */
    /* else: what waits to be written shows the same, that the peer does not read */
}

static void wire_close(struct gw_wire *w, enum frame_close code)
{
    conn_close((struct conn *)w, code);
}

static const struct gw_wire_ops wire_ops = {
    .send = wire_send, .ping = wire_ping, .room = wire_room, .close = wire_close};

/* ---- life of a WebSocket ---- */

static struct conn *conn_of(void *user)
{
    struct conn *c = user != NULL ? *(struct conn **)user : NULL;
    sl_assert(c == NULL || c->magic == CONN_MAGIC);
    return c;
}

static struct sl_str copy_header(struct lws *wsi, enum lws_token_indexes token, char *out, size_t size)
{
    int n = lws_hdr_copy(wsi, out, (int)size, token);
    return n > 0 ? sl_str_n(out, (size_t)n) : SL_STR_NONE;
}

/* The origin as sessions see it: "self" when it names the host that was asked. */
static struct sl_str origin_of(struct lws *wsi, char *out, size_t size)
{
    char host[256];
    struct sl_str origin = copy_header(wsi, WSI_TOKEN_ORIGIN, out, size);
    struct sl_str asked = copy_header(wsi, WSI_TOKEN_HOST, host, sizeof host);
    if (origin.len == 0)
        return lws_hdr_total_length(wsi, WSI_TOKEN_ORIGIN) > 0 ? SL_STR("null") : SL_STR_NONE;
    size_t at;
    if (!sl_str_find(origin, SL_STR("://"), &at))
        return origin;
    return sl_str_eq(sl_str_n(origin.ptr + at + 3, origin.len - at - 3), asked) ? SL_STR("self") : origin;
}

static void count_ip(struct gw_front *f, const char *ip, int change)
{
    if (ip[0] == '\0')
        return;
    uintptr_t count = (uintptr_t)sl_map_get(f->ips, sl_str_c(ip));
    count = change > 0 ? count + 1 : count - 1;
    if (count == 0)
        (void)sl_map_del(f->ips, sl_str_c(ip));
    else
        (void)sl_map_set(f->ips, sl_str_c(ip), (void *)count);
}

/* "" for loopback: a proxy of our own, or a test. */
static void peer_ip(struct lws *wsi, char *out, size_t size)
{
    out[0] = '\0';
    lws_get_peer_simple(wsi, out, size);
    if (strcmp(out, "127.0.0.1") == 0 || strcmp(out, "::1") == 0 || strncmp(out, "::ffff:127.", 11) == 0)
        out[0] = '\0';
}

/* Before the upgrade is answered. Nonzero refuses. */
static int on_ws_asked(struct lws *wsi)
{
    struct gw_front *f = front_of(wsi);
    char ip[46];
    peer_ip(wsi, ip, sizeof ip);
    if (f->is_draining || f->conn_count >= f->cfg.max_sockets) {
        SL_COUNT("sluice_ws_refused_total", "reason=\"full\"", "Upgrades refused", 1);
        (void)lws_return_http_status(wsi, 503, NULL);
        return -1;
    }
    if (f->cfg.per_ip > 0 && ip[0] != '\0' &&
        (size_t)(uintptr_t)sl_map_get(f->ips, sl_str_c(ip)) >= f->cfg.per_ip) {
        SL_COUNT("sluice_ws_refused_total", "reason=\"per_ip\"", "Upgrades refused", 1);
        (void)lws_return_http_status(wsi, 429, NULL);
        return -1;
    }
    return 0;
}

static int on_ws_open(struct lws *wsi, void *user)
{
    struct gw_front *f = front_of(wsi);
    struct conn *c = sl_alloc(sizeof *c);
    char origin[300];
    *c = (struct conn){.wire = {.ops = &wire_ops}, .magic = CONN_MAGIC, .wsi = wsi, .front = f};
    *(struct conn **)user = c;
    peer_ip(wsi, c->ip, sizeof c->ip);
    count_ip(f, c->ip, 1);
    c->next = f->conns;
    if (f->conns != NULL)
        f->conns->before = c;
    f->conns = c;
    sl_gauge_set(f->conns_gauge, (int64_t)++f->conn_count);
    c->session = gw_session_new(f->cfg.hub, &c->wire, origin_of(wsi, origin, sizeof origin));
    return 0;
}

static void drop_pieces(struct conn *c)
{
    if (c->pieces == NULL)
        return;
    sl_buf_fini(c->pieces);
    free(c->pieces);
    c->pieces = NULL;
}

static void on_ws_closed(struct conn *c)
{
    struct gw_front *f = c->front;
    if (!c->is_closing)
        SL_COUNT("sluice_ws_closed_total", "reason=\"PEER\"", "WebSockets closed by the gateway", 1);
    c->is_closing = true;
    gw_session_free(&c->session);
    held_remove(c);
    gw_outbox_fini(&c->out);
    drop_pieces(c);
    count_ip(f, c->ip, -1);
    if (c->next != NULL)
        c->next->before = c->before;
    if (c->before != NULL)
        c->before->next = c->next;
    else
        f->conns = c->next;
    sl_gauge_set(f->conns_gauge, (int64_t)--f->conn_count);
    c->magic = 0;
    free(c);
}

static void on_ws_whole(struct conn *c, struct sl_str message)
{
    sl_count(c->front->messages_in, 1);
    gw_session_message(c->session, message);
}

static int on_ws_receive(struct conn *c, const char *in, size_t len)
{
    bool is_first = lws_is_first_fragment(c->wsi) != 0;
    bool is_last = lws_is_final_fragment(c->wsi) != 0 && lws_remaining_packet_payload(c->wsi) == 0;
    if (c->is_closing)
        return 0;
    if (lws_frame_is_binary(c->wsi)) {
        gw_session_close(c->session, FRAME_CLOSE_BAD_FRAME);
        return 0;
    }
    if (is_first && is_last && c->pieces == NULL) {
        on_ws_whole(c, sl_str_n(in, len));
        return 0;
    }
    if (c->pieces == NULL) {
        c->pieces = sl_alloc(sizeof *c->pieces);
        sl_buf_init(c->pieces, FRAME_MAX_BYTES);
    }
    sl_buf_add(c->pieces, in, len);
    if (c->pieces->overflow) {
        gw_session_too_big(c->session);
    } else if (is_last) {
        struct sl_buf whole = *c->pieces;
        sl_buf_init(c->pieces, FRAME_MAX_BYTES);
        on_ws_whole(c, sl_buf_view(&whole));
        sl_buf_fini(&whole);
        drop_pieces(c);
    }
    return 0;
}

/* The close frame, written here because lws_close_reason() and -1 out of WRITEABLE drop the connection without it. Then the peer
 * has KILL_AFTER_S to answer with its own. RFC 6455 5.5.1 and 7.1.2 */
static int write_close(struct conn *c)
{
    static const enum lws_write_protocol write_close_frame =
        (enum lws_write_protocol)4; /* LWS_WRITE_CLOSE, not in 4.1's header */
    unsigned char frame[LWS_PRE + CLOSE_BYTES_MAX], *payload = frame + LWS_PRE;
    struct sl_str text = sl_str_c(frame_close_text(c->code));
    size_t n = text.len < CLOSE_BYTES_MAX - 2 ? text.len : CLOSE_BYTES_MAX - 2;
    if (c->is_close_sent)
        return 0;
    c->is_close_sent = true;
    payload[0] = (unsigned char)((unsigned)c->code >> 8);
    payload[1] = (unsigned char)((unsigned)c->code & 0xff);
    memcpy(payload + 2, text.ptr, n);
    return lws_write(c->wsi, payload, n + 2, write_close_frame) < 0 ? -1 : 0;
}

static int on_ws_writeable(struct conn *c)
{
    if (!c->is_slow)
        flush(c);
    if (!c->is_closing || (!c->is_slow && !gw_outbox_is_empty(&c->out)))
        return 0;
    if (c->is_slow)
        return -1; /* a close frame would never get through */
    return write_close(c);
}

static int on_ws(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len)
{
    struct conn *c;
    switch ((int)reason) {
    case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION:
        return on_ws_asked(wsi);
    case LWS_CALLBACK_ESTABLISHED:
        return on_ws_open(wsi, user);
    case LWS_CALLBACK_RECEIVE:
        c = conn_of(user);
        return c != NULL ? on_ws_receive(c, in, len) : -1;
    case LWS_CALLBACK_RECEIVE_PONG:
        c = conn_of(user);
        if (c != NULL && !c->is_closing)
            gw_session_alive(c->session);
        return 0;
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        c = conn_of(user);
        return c != NULL && c->is_close_sent ? -1 : 0; /* the answer to ours: over; else lws answers theirs */
    case LWS_CALLBACK_SERVER_WRITEABLE:
        c = conn_of(user);
        return c != NULL ? on_ws_writeable(c) : -1;
    case LWS_CALLBACK_CLOSED:
        c = conn_of(user);
        if (c != NULL)
            on_ws_closed(c);
        if (user != NULL)
            *(struct conn **)user = NULL;
        return 0;
    default:
        return 0;
    }
}

/* ---- HTTP ---- */

static struct request *request_of(struct chan_request *rq)
{
    struct request *r = (struct request *)rq;
    sl_assert(r->magic == REQUEST_MAGIC);
    return r;
}

static void request_free(struct request *r)
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

/* libwebsockets keeps these apart from the headers it does not know. */
static const struct {
    const char *name;
    enum lws_token_indexes token;
} known_headers[] = {{"authorization", WSI_TOKEN_HTTP_AUTHORIZATION},
                     {"content-type", WSI_TOKEN_HTTP_CONTENT_TYPE},
                     {"host", WSI_TOKEN_HOST},
                     {"range", WSI_TOKEN_HTTP_RANGE}};

static struct sl_str request_header(const struct chan_request *rq, const char *lower_case_name)
{
    struct request *r = request_of((struct chan_request *)(uintptr_t)rq);
    char name[64];
    size_t n = strlen(lower_case_name);
    if (r->wsi == NULL || n + 2 > sizeof name)
        return SL_STR_NONE;
    for (size_t i = 0; i < sizeof known_headers / sizeof known_headers[0]; i++)
        if (strcmp(lower_case_name, known_headers[i].name) == 0)
            return copy_header(r->wsi, known_headers[i].token, r->header, sizeof r->header);
    memcpy(name, lower_case_name, n);
    name[n] = ':';
    name[n + 1] = '\0';
    int len = lws_hdr_custom_copy(r->wsi, r->header, sizeof r->header, name, (int)n + 1);
    return len > 0 ? sl_str_n(r->header, (size_t)len) : SL_STR_NONE;
}

static void request_answer(struct chan_request *rq, int status, const char *content_type, struct sl_str body)
{
    struct request *r = request_of(rq);
    sl_assert(!r->is_answered);
    r->is_answered = true;
    if (r->wsi == NULL) {
        request_free(r);
        return;
    }
    if (body.len > ANSWER_PIECE_BYTES && r->front->answer_bytes + body.len > GW_ANSWERS_MAX_BYTES) {
        /* so many read so slowly; what is small is always answered */
        sl_buf_clear(&r->extra);
        status = 503;
        content_type = "text/plain";
        body = SL_STR("too many downloads at once\n");
    }
    r->counted = body.len;
    r->front->answer_bytes += body.len;
    r->status = status;
    size_t n = strlen(content_type);
    sl_assert(n < sizeof r->content_type);
    memcpy(r->content_type, content_type, n + 1);
    static const char room[LWS_PRE];
    sl_buf_add(&r->answer, room, sizeof room);
    sl_buf_str(&r->answer, body);
    sl_assert(!r->answer.overflow);
    lws_callback_on_writable(r->wsi);
}

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

static struct request *request_new(struct gw_front *f, struct lws *wsi, struct sl_str path)
{
    struct request *r = sl_alloc(sizeof *r);
    const char *method = method_of(wsi);
    r->magic = REQUEST_MAGIC;
    r->front = f;
    r->wsi = wsi;
    r->rq.header = request_header;
    r->rq.answer = request_answer;
    sl_buf_init(&r->text, GW_HEADERS_MAX_BYTES * 2);
    sl_buf_init(&r->body, GW_BODY_MAX_BYTES);
    sl_buf_init(&r->answer, GW_ANSWER_MAX_BYTES);
    sl_buf_init(&r->extra, GW_ANSWER_HEADERS_MAX_BYTES);
    sl_buf_str(&r->text, path);
    size_t path_len = r->text.len;
    add_query(wsi, &r->text);
    struct sl_str text = sl_buf_view(&r->text);
    r->rq.method = sl_str_c(method);
    r->rq.path = sl_str_n(text.ptr, path_len);
    r->rq.query = sl_str_n(text.ptr + path_len, text.len - path_len);
    sl_gauge_set(f->requests_gauge, (int64_t)++f->request_count);
    return r;
}

static void dispatch(struct request *r)
{
    if (r->is_dispatched)
        return;
    r->is_dispatched = true;
    r->rq.body = sl_buf_view(&r->body);
    if (r->body.overflow)
        r->rq.answer(&r->rq, 413, "text/plain", SL_STR("body too large\n"));
    else if (r->is_broken)
        r->rq.answer(&r->rq, 400, "text/plain", SL_STR("give one Content-Length and no Transfer-Encoding\n"));
    else
        r->front->cfg.request(r->front->cfg.arg, &r->rq);
}

static void dispatch_busy(struct request *r)
{
    r->is_dispatched = true;
    r->rq.answer(&r->rq, 503, "text/plain", SL_STR("too many uploads at once\n"));
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
    struct sl_str value = copy_header(wsi, WSI_TOKEN_HTTP_CONTENT_LENGTH, text, sizeof text);
    for (size_t i = 0; i < value.len; i++)
        if (value.ptr[i] < '0' || value.ptr[i] > '9')
            return -1;
    return value.len > 0 && sl_str_int(value, &n) == SL_OK ? n : -1;
}

/* Room for a body that is larger than usual; false: 503. */
static bool reserve_upload(struct gw_front *f, struct request *r, int64_t body)
{
    if (body <= GW_BODY_MAX_BYTES || body > (int64_t)f->cfg.upload_max ||
        !sl_str_eq_c(r->rq.path, GW_UPLOAD_PATH) || !sl_str_eq_c(r->rq.method, "POST"))
        return true;
    if (f->upload_bytes + (size_t)body > GW_UPLOADS_MAX_BYTES)
        return false;
    r->reserved = (size_t)body;
    f->upload_bytes += r->reserved;
    sl_buf_init(&r->body, r->reserved);
    return true;
}

static int on_http_asked(struct lws *wsi, struct request **slot, const char *in, size_t len)
{
    struct gw_front *f = front_of(wsi);
    if (*slot != NULL) { /* a request behind another on one connection: the first is over */
        (*slot)->wsi = NULL;
        if ((*slot)->is_answered)
            request_free(*slot);
        *slot = NULL;
    }
    if (f->request_count >= GW_REQUESTS_MAX) {
        SL_COUNT("sluice_http_refused_total", "", "Requests refused because too many were open", 1);
        (void)lws_return_http_status(wsi, 503, NULL);
        return -1;
    }
    struct request *r = request_new(f, wsi, sl_str_n(in, len));
    *slot = r;
    int64_t body = content_length(wsi);
    if (!reserve_upload(f, r, body)) {
        dispatch_busy(r);
        return 0;
    }
    r->body.overflow = body > GW_BODY_MAX_BYTES && r->reserved == 0;
    r->is_broken = body < 0;
    if (r->body.overflow || body <= 0)
        dispatch(r);
    return 0;
}

void gw_front_header(struct chan_request *rq, const char *name, const char *value)
{
    struct request *r = request_of(rq);
    sl_buf_add(&r->extra, name, strlen(name) + 1);
    sl_buf_add(&r->extra, value, strlen(value) + 1);
    sl_assert(!r->extra.overflow);
}

/* The next pair behind *at. */
static bool next_extra(const struct request *r, size_t *at, const char **name, const char **value)
{
    if (*at >= r->extra.len)
        return false;
    *name = r->extra.ptr + *at;
    *value = *name + strlen(*name) + 1;
    *at = (size_t)(*value + strlen(*value) + 1 - r->extra.ptr);
    return true;
}

static bool has_extra(const struct request *r, const char *wanted)
{
    const char *name, *value;
    for (size_t at = 0; next_extra(r, &at, &name, &value);)
        if (strcmp(name, wanted) == 0)
            return true;
    return false;
}

static bool add_header(struct lws *w, const char *name, const char *value, unsigned char **p,
                       unsigned char *end)
{
    return lws_add_http_header_by_name(w, (const unsigned char *)name, (const unsigned char *)value,
                                       (int)strlen(value), p, end) == 0;
}

static bool write_head(struct request *r, size_t body_len)
{
    const char *name, *value;
    unsigned char head[LWS_PRE + 2048 + GW_ANSWER_HEADERS_MAX_BYTES], *p = head + LWS_PRE,
                                                                      *end = head + sizeof head - 1;
    struct lws *w = r->wsi;
    static const struct {
        const char *name, *value;
    } always[] = {{"x-content-type-options:", "nosniff"},
                  {"cache-control:", "no-store"},
                  {"connection:", "close"},
                  {"referrer-policy:", "no-referrer"}};
    if (lws_add_http_header_status(w, (unsigned)r->status, &p, end))
        return false;
    if (lws_add_http_header_by_token(w, WSI_TOKEN_HTTP_CONTENT_TYPE, (const unsigned char *)r->content_type,
                                     (int)strlen(r->content_type), &p, end))
        return false;
    for (size_t i = 0; i < sizeof always / sizeof always[0]; i++)
        if (!has_extra(r, always[i].name) && !add_header(w, always[i].name, always[i].value, &p, end))
            return false;
    for (size_t at = 0; next_extra(r, &at, &name, &value);)
        if (!add_header(w, name, value, &p, end))
            return false;
    if (r->rq.core != NULL &&
        lws_add_http_header_by_name(w, (const unsigned char *)"content-security-policy:", r->rq.core,
                                    (int)strlen(r->rq.core), &p, end))
        return false;
    if (lws_add_http_header_content_length(w, body_len, &p, end) || lws_finalize_http_header(w, &p, end))
        return false;
    size_t n = (size_t)(p - (head + LWS_PRE));
    return lws_write(w, head + LWS_PRE, n, LWS_WRITE_HTTP_HEADERS) >= (int)n;
}

/* The next piece; false: all is written, or nothing more can be. libwebsockets keeps what the kernel does not take, and ends a
 * connection 5 s after it was told to close: a large answer given in one piece never reached who reads slowly. */
static bool write_piece(struct request *r)
{
    bool is_head = sl_str_eq_c(r->rq.method, "HEAD");
    if (r->sent == 0) {
        if (!write_head(r, r->answer.len - LWS_PRE))
            return false;
        r->sent = is_head ? r->answer.len : LWS_PRE;
    }
    size_t left = r->answer.len - r->sent, n = left < ANSWER_PIECE_BYTES ? left : ANSWER_PIECE_BYTES;
    if (n == 0)
        return false;
    unsigned char *at = (unsigned char *)r->answer.ptr + r->sent;
    r->sent += n;
    return lws_write(r->wsi, at, n, n == left ? LWS_WRITE_HTTP_FINAL : LWS_WRITE_HTTP) >= (int)n;
}

static int on_http_writeable(struct lws *wsi, struct request **slot)
{
    struct request *r = *slot;
    if (r == NULL || !r->is_answered)
        return 0;
    if (write_piece(r) && r->sent < r->answer.len) {
        lws_set_timeout(wsi, PENDING_TIMEOUT_HTTP_CONTENT, KEEPALIVE_S); /* for this piece */
        lws_callback_on_writable(wsi);
        return 0;
    }
    *slot = NULL;
    request_free(r);
    return -1; /* one request a connection; what is not written yet goes out first */
}

static void on_http_closed(struct request **slot)
{
    struct request *r = *slot;
    *slot = NULL;
    if (r == NULL)
        return;
    r->wsi = NULL;
    if (r->is_answered || !r->is_dispatched)
        request_free(r); /* else its answer will */
}

/* Only a WebSocket of version 13 at /ws: left alone, libwebsockets takes every path and version, and speaks HTTP/2 (h2c) too. */
static int on_upgrade_asked(struct lws *wsi, const char *to)
{
    char path[8], version[8];
    bool is_ours = strcasecmp(to, "websocket") == 0 &&
                   sl_str_eq_c(copy_header(wsi, WSI_TOKEN_GET_URI, path, sizeof path), FRAME_PATH) &&
                   sl_str_eq_c(copy_header(wsi, WSI_TOKEN_VERSION, version, sizeof version), "13");
    if (is_ours)
        return 0;
    SL_COUNT("sluice_ws_refused_total", "reason=\"upgrade\"", "Upgrades refused", 1);
    (void)lws_return_http_status(wsi, 400, NULL);
    return -1;
}

static int on_http(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len)
{
    struct request **slot = user;
    switch ((int)reason) {
    case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE:
        return on_upgrade_asked(wsi, in);
    case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION:
        SL_COUNT("sluice_ws_refused_total", "reason=\"protocol\"", "Upgrades refused", 1);
        return -1; /* a WebSocket that does not name sluice.v1 */
    case LWS_CALLBACK_HTTP:
        return slot != NULL ? on_http_asked(wsi, slot, in, len) : -1;
    case LWS_CALLBACK_HTTP_BODY:
        if (slot != NULL && *slot != NULL && !(*slot)->is_dispatched)
            sl_buf_add(&(*slot)->body, in, len);
        return 0;
    case LWS_CALLBACK_HTTP_BODY_COMPLETION:
        if (slot != NULL && *slot != NULL)
            dispatch(*slot);
        return 0;
    case LWS_CALLBACK_HTTP_WRITEABLE:
        return slot != NULL ? on_http_writeable(wsi, slot) : 0;
    case LWS_CALLBACK_CLOSED_HTTP:
    case LWS_CALLBACK_HTTP_DROP_PROTOCOL:
        if (slot != NULL)
            on_http_closed(slot);
        return 0;
    default:
        return 0;
    }
}

/* ---- life ---- */

/* libwebsockets' own words, through our log and its throttle. */
static void on_lws_log(int level, const char *line)
{
    size_t n = strcspn(line, "\r\n");
    sl_log(level == LLL_ERR ? SL_WARN : SL_DEBUG, "libwebsockets", SL_KV_S("line", sl_str_n(line, n)));
}

static unsigned descriptor_room(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 512;
    if (limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
        (void)getrlimit(RLIMIT_NOFILE, &limit);
    }
    rlim_t most = limit.rlim_cur > 1000000 ? 1000000 : limit.rlim_cur;
    return (unsigned)(most > 2 * FD_RESERVE ? most - FD_RESERVE : most / 2);
}

static void fill_info(struct gw_front *f, struct lws_context_creation_info *info, void **loops)
{
    static const lws_retry_bo_t no_retry = {0};
    loops[0] = sl_loop_uv(f->cfg.hub->loop);
    *info = (struct lws_context_creation_info){.port = f->cfg.port};
    info->iface = f->host[0] != '\0' ? f->host : NULL;
    info->protocols = protocols;
    info->gid = -1;
    info->uid = -1;
    info->user = f;
    info->foreign_loops = loops;
    info->options = LWS_SERVER_OPTION_LIBUV | LWS_SERVER_OPTION_VALIDATE_UTF8;
    if (strchr(f->host, ':') == NULL)
        info->options |= LWS_SERVER_OPTION_DISABLE_IPV6;
    info->retry_and_idle_policy = &no_retry;
    info->pt_serv_buf_size = SERVICE_BUFFER_BYTES;
    info->max_http_header_pool = HEADER_POOL;
    info->max_http_header_data = GW_HEADERS_MAX_BYTES;
    info->fd_limit_per_thread = descriptor_room();
    info->timeout_secs = TIMEOUT_S;
    info->keepalive_timeout = KEEPALIVE_S;
    info->server_string = "sluice";
    if (f->cert[0] == '\0')
        return;
    info->options |= LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
    info->ssl_cert_filepath = f->cert;
    info->ssl_private_key_filepath = f->key;
    info->alpn = "http/1.1";
}

static bool is_readable(const char *path)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    (void)fclose(file);
    return true;
}

struct gw_front *gw_front_open(const struct gw_front_config *cfg, struct sl_fail *why)
{
    struct lws_context_creation_info info;
    void *loops[1];
    static const char room[GW_FRAME_ROOM];
    if (cfg->tls_cert[0] != '\0' && (!is_readable(cfg->tls_cert) || !is_readable(cfg->tls_key))) {
        (void)sl_fail_set(why, SL_EINVAL, errno, "gateway.tls_cert and tls_key: both files must be readable");
        return NULL;
    }
    struct gw_front *f = sl_alloc(sizeof *f);
    f->cfg = *cfg;
    f->host = sl_strdup(cfg->host);
    f->cert = sl_strdup(cfg->tls_cert);
    f->key = sl_strdup(cfg->tls_key);
    f->ips = sl_map_new();
    sl_buf_init(&f->message, 0);
    sl_buf_add(&f->message, room, sizeof room);
    sl_timer_init(&f->hold, cfg->hub->loop, on_hold_over, f);
    f->conns_gauge = sl_gauge("sluice_ws_connections", "", "Open WebSockets");
    sl_gauge_max(f->conns_gauge, (int64_t)cfg->max_sockets);
    f->requests_gauge = sl_gauge("sluice_http_requests", "", "HTTP requests that were not answered yet");
    sl_gauge_max(f->requests_gauge, GW_REQUESTS_MAX);
    f->messages_in = sl_counter("sluice_ws_messages_total", "dir=\"in\"", "WebSocket messages");
    f->messages_out = sl_counter("sluice_ws_messages_total", "dir=\"out\"", "WebSocket messages");
    lws_set_log_level(LLL_ERR | LLL_WARN, on_lws_log);
    fill_info(f, &info, loops);
    f->context = lws_create_context(&info);
    f->vhost = f->context != NULL ? lws_get_vhost_by_name(f->context, "default") : NULL;
    f->port = f->vhost != NULL ? lws_get_vhost_listen_port(f->vhost) : 0;
    if (f->port > 0)
        return f;
    (void)sl_fail_set(why, SL_EINTERNAL, errno,
                      "gateway.listen %s:%d: cannot listen (in use? package libwebsockets-evlib-uv missing?)",
                      cfg->host, cfg->port);
    gw_front_stop(f);
    gw_front_free(&f);
    return NULL;
}

int gw_front_port(const struct gw_front *f)
{
    return f->port;
}

size_t gw_front_sockets(const struct gw_front *f)
{
    return f->conn_count;
}

void gw_front_drain(struct gw_front *f, uint64_t after_min_ms, uint64_t after_max_ms)
{
    f->is_draining = true;
    for (struct conn *c = f->conns; c != NULL; c = c->next)
        if (!c->is_closing)
            gw_session_bye(c->session, after_min_ms, after_max_ms);
}

void gw_front_close_sockets(struct gw_front *f, enum frame_close code)
{
    for (struct conn *c = f->conns; c != NULL; c = c->next)
        if (!c->is_closing)
            gw_session_close(c->session, code);
}

sl_err gw_front_reload_tls(struct gw_front *f, struct sl_fail *why)
{
    if (f->cert[0] == '\0')
        return SL_OK;
    if (lws_tls_cert_updated(f->context, f->cert, f->key, NULL, 0, NULL, 0) != 0)
        return sl_fail_set(why, SL_EINVAL, 0,
                           "gateway.tls_cert %s could not be read again; the old one stays", f->cert);
    return SL_OK;
}

void gw_front_stop(struct gw_front *f)
{
    sl_timer_stop(&f->hold);
    if (f->context != NULL)
        lws_context_destroy(f->context);
}

void gw_front_free(struct gw_front **fp)
{
    struct gw_front *f = *fp;
    *fp = NULL;
    if (f == NULL)
        return;
    if (f->context != NULL)
        lws_context_destroy(f->context);
    sl_buf_fini(&f->message);
    sl_map_free(&f->ips);
    free(f->host);
    free(f->cert);
    free(f->key);
    free(f);
}
