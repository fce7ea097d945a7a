/* gateway/front_socket.c - WebSockets, by libwebsockets 4.1.6. Its traps that shaped it:
 *
 * - a message longer than the receive buffer comes in pieces: put together here, with a cap;
 * - asking for WRITEABLE costs two epoll_ctl calls: with nothing waiting and the pipe free we write at once;
 * - a close frame is written by ourselves, because lws_close_reason() drops it.
 */
#include "gateway/front_priv.h"

#include "gateway/outbox.h"
#include "gateway/session.h"

#include "base/log.h"

#include <stdlib.h>

#define KILL_AFTER_S    3   /* a closing socket whose peer does not take the close frame */
#define CLOSE_BYTES_MAX 125 /* RFC 6455 5.5: control payload <= 125 bytes */
#define CONN_MAGIC      0x636f6e6eu

/* One WebSocket. */
struct gw_front_ws {
    struct gw_wire wire; /* first: the session's end of it */
    uint32_t magic;
    bool is_closing, is_close_sent, is_slow, is_held;
    enum frame_close code;
    struct lws *wsi;
    struct gw_front *front;
    struct gw_session *session;
    struct gw_outbox out;
    struct sl_buf *pieces; /* of a message that comes in several */
    struct gw_front_ws *next, *before;
    struct gw_front_ws *held_next, *held_before;
    char ip[46]; /* "" : not counted */
};

/* ---- writing to a WebSocket ---- */

static void held_remove(struct gw_front_ws *c)
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

static void held_add(struct gw_front_ws *c)
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

static void conn_close(struct gw_front_ws *c, enum frame_close code)
{
    if (c->is_closing)
        return;
    c->is_closing = true;
    c->code = code;
    lws_set_timeout(c->wsi, PENDING_TIMEOUT_CLOSE_ACK, KILL_AFTER_S);
    lws_callback_on_writable(c->wsi);
}

static bool write_text(struct gw_front_ws *c, char *text, size_t len)
{
    sl_count(c->front->messages_out, 1);
    if (lws_write(c->wsi, (unsigned char *)text, len, LWS_WRITE_TEXT) >= (int)len)
        return true;
    c->is_slow = true; /* the connection is broken: nothing more can be written */
    conn_close(c, FRAME_CLOSE_GOING_AWAY);
    return false;
}

/* What the kernel does not take of one message lws keeps (at most one), so the kernel need not be asked before each. */
static bool is_pipe_free(const struct gw_front_ws *c)
{
    return !c->is_slow && lws_partial_buffered(c->wsi) == 0;
}

/* Write as much of what waits as the pipe takes. */
static void flush(struct gw_front_ws *c)
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

void gw_front_on_hold_over(void *arg)
{
    struct gw_front *f = arg;
    struct gw_front_ws *c = f->held_longer;
    f->held_longer = f->held; /* they wait for one more turn, so nobody for less than half of GW_HOLD_MS */
    f->held = NULL;
    if (f->held_longer != NULL)
        sl_timer_start(&f->hold, GW_HOLD_MS / 2);
    while (c != NULL) {
        struct gw_front_ws *next = c->held_next;
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
    const struct gw_front_ws *c = (const struct gw_front_ws *)w;
    return gw_outbox_room(&c->out);
}

static void wire_send(struct gw_wire *w, struct sl_str frame, enum gw_urgency when)
{
    struct gw_front_ws *c = (struct gw_front_ws *)w;
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
    struct gw_front_ws *c = (struct gw_front_ws *)w;
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
    conn_close((struct gw_front_ws *)w, code);
}

static const struct gw_wire_ops wire_ops = {
    .send = wire_send, .ping = wire_ping, .room = wire_room, .close = wire_close};

/* ---- life of a WebSocket ---- */

static struct gw_front_ws *conn_of(void *user)
{
    struct gw_front_ws *c = user != NULL ? *(struct gw_front_ws **)user : NULL;
    sl_assert(c == NULL || c->magic == CONN_MAGIC);
    return c;
}

struct sl_str gw_front_copy_header(struct lws *wsi, enum lws_token_indexes token, char *out, size_t size)
{
    int n = lws_hdr_copy(wsi, out, (int)size, token);
    return n > 0 ? sl_str_n(out, (size_t)n) : SL_STR_NONE;
}

/* The origin as sessions see it: "self" when it names the host that was asked. */
static struct sl_str origin_of(struct lws *wsi, char *out, size_t size)
{
    char host[256];
    struct sl_str origin = gw_front_copy_header(wsi, WSI_TOKEN_ORIGIN, out, size);
    struct sl_str asked = gw_front_copy_header(wsi, WSI_TOKEN_HOST, host, sizeof host);
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
    struct gw_front *f = gw_front_of(wsi);
    char ip[46];
    peer_ip(wsi, ip, sizeof ip);
    if (f->is_draining || f->socket_count >= f->cfg.max_sockets) {
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
    struct gw_front *f = gw_front_of(wsi);
    struct gw_front_ws *c = sl_alloc(sizeof *c);
    char origin[300];
    *c = (struct gw_front_ws){.wire = {.ops = &wire_ops}, .magic = CONN_MAGIC, .wsi = wsi, .front = f};
    *(struct gw_front_ws **)user = c;
    peer_ip(wsi, c->ip, sizeof c->ip);
    count_ip(f, c->ip, 1);
    c->next = f->sockets;
    if (f->sockets != NULL)
        f->sockets->before = c;
    f->sockets = c;
    sl_gauge_set(f->sockets_gauge, (int64_t)++f->socket_count);
    c->session = gw_session_new(f->cfg.hub, &c->wire, origin_of(wsi, origin, sizeof origin));
    return 0;
}

static void drop_pieces(struct gw_front_ws *c)
{
    if (c->pieces == NULL)
        return;
    sl_buf_fini(c->pieces);
    free(c->pieces);
    c->pieces = NULL;
}

static void on_ws_closed(struct gw_front_ws *c)
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
        f->sockets = c->next;
    sl_gauge_set(f->sockets_gauge, (int64_t)--f->socket_count);
    c->magic = 0;
    free(c);
}

static void on_ws_whole(struct gw_front_ws *c, struct sl_str message)
{
    sl_count(c->front->messages_in, 1);
    gw_session_message(c->session, message);
}

static int on_ws_receive(struct gw_front_ws *c, const char *in, size_t len)
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
static int write_close(struct gw_front_ws *c)
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

static int on_ws_writeable(struct gw_front_ws *c)
{
    if (!c->is_slow)
        flush(c);
    if (!c->is_closing || (!c->is_slow && !gw_outbox_is_empty(&c->out)))
        return 0;
    if (c->is_slow)
        return -1; /* a close frame would never get through */
    return write_close(c);
}

int gw_front_on_ws(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len)
{
    struct gw_front_ws *c;
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
            *(struct gw_front_ws **)user = NULL;
        return 0;
    default:
        return 0;
    }
}

/* ---- all of them ---- */

void gw_front_drain(struct gw_front *f, uint64_t after_min_ms, uint64_t after_max_ms)
{
    f->is_draining = true;
    for (struct gw_front_ws *c = f->sockets; c != NULL; c = c->next)
        if (!c->is_closing)
            gw_session_bye(c->session, after_min_ms, after_max_ms);
}

void gw_front_close_sockets(struct gw_front *f, enum frame_close code)
{
    for (struct gw_front_ws *c = f->sockets; c != NULL; c = c->next)
        if (!c->is_closing)
            gw_session_close(c->session, code);
}
