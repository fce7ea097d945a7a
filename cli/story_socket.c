/* cli/story_socket.c - a WebSocket client of the smallest kind (RFC 6455): text messages whole, pings answered, one close. */
#include "cli/tcp.h"

#include "base/crypto.h"
#include "proto/frame.h"

#include <stdlib.h>
#include <strings.h>

#define HEAD_MAX_BYTES   8192
#define BUFFER_MAX_BYTES (2 * FRAME_MAX_BYTES)

enum opcode {
    OP_CONTINUATION = 0,
    OP_TEXT = 1,
    OP_BINARY = 2,
    OP_CLOSE = 8,
    OP_PING = 9,
    OP_PONG = 10
}; /* RFC 6455 5.2 */

struct cli_socket {
    struct cli_tcp *tcp;
    char *head;                     /* of the upgrade request */
    bool is_open, is_busy, is_gone; /* busy: in on_data, which frees it at its end */
    struct sl_buf in, message;
    const struct cli_socket_ops *ops;
    void *arg;
};

static void socket_free(struct cli_socket *s)
{
    cli_tcp_close(&s->tcp);
    sl_buf_fini(&s->in);
    sl_buf_fini(&s->message);
    free(s->head);
    free(s);
}

static void leave(struct cli_socket *s)
{
    s->is_gone = true;
    cli_tcp_close(&s->tcp);
    if (!s->is_busy)
        socket_free(s);
}

static void ended(struct cli_socket *s, int code, const char *why)
{
    const struct cli_socket_ops *ops = s->ops;
    void *arg = s->arg;
    leave(s);
    ops->closed(arg, code, why);
}

/* A client's frame: masked with a fresh random key (5.3), always final. */
static void send_frame(struct cli_socket *s, enum opcode op, struct sl_str payload)
{
    unsigned char mask[4];
    struct sl_buf out;
    sl_assert(payload.len <= FRAME_MAX_BYTES);
    sl_random_bytes(mask, sizeof mask);
    sl_buf_init(&out, 0);
    sl_buf_char(&out, (char)(0x80 | op));
    if (payload.len < 126) {
        sl_buf_char(&out, (char)(0x80 | payload.len));
    } else if (payload.len < 65536) {
        sl_buf_char(&out, (char)(0x80 | 126));
        sl_buf_char(&out, (char)(payload.len >> 8));
        sl_buf_char(&out, (char)payload.len);
    } else {
        sl_buf_char(&out, (char)(0x80 | 127));
        for (int shift = 56; shift >= 0; shift -= 8)
            sl_buf_char(&out, (char)((uint64_t)payload.len >> shift));
    }
    sl_buf_add(&out, mask, sizeof mask);
    for (size_t i = 0; i < payload.len; i++)
        sl_buf_char(&out, (char)(payload.ptr[i] ^ mask[i % 4]));
    cli_tcp_send(s->tcp, sl_buf_view(&out));
    sl_buf_fini(&out);
}

static void on_connected(void *arg)
{
    struct cli_socket *s = arg;
    cli_tcp_send(s->tcp, sl_str_c(s->head));
}

/* What is read of the answer: 101. (Our own gateway on loopback: the accept key proves nothing more.) */
static void take_head(struct cli_socket *s)
{
    size_t end = 0;
    const struct sl_str in = sl_buf_view(&s->in);
    if (!sl_str_find(in, SL_STR("\r\n\r\n"), &end)) {
        if (in.len > HEAD_MAX_BYTES)
            ended(s, 0, "the answer to the upgrade is too long");
        return;
    }
    if (!sl_str_starts(in, "HTTP/1.1 101")) {
        ended(s, 0, "the gateway refused the WebSocket");
        return;
    }
    sl_buf_cut(&s->in, end + 4);
    s->is_open = true;
    s->ops->opened(s->arg);
}

struct frame_head {
    bool is_final;
    unsigned op;
    size_t payload_at, len;
};

/* false: not whole yet. A length over the maximum comes out as such. */
static bool read_head(struct sl_str in, struct frame_head *f)
{
    const unsigned char *p = (const unsigned char *)in.ptr;
    if (in.len < 2)
        return false;
    f->is_final = (p[0] & 0x80) != 0;
    f->op = p[0] & 0x0f;
    f->len = p[1] & 0x7f;
    f->payload_at = 2;
    const size_t more = f->len == 126 ? 2 : f->len == 127 ? 8 : 0;
    if (in.len < 2 + more)
        return false;
    if (more > 0)
        f->len = 0;
    for (size_t i = 0; i < more; i++)
        f->len = f->len << 8 | p[2 + i];
    f->payload_at += more;
    return f->len > BUFFER_MAX_BYTES || in.len - f->payload_at >= f->len;
}

static int close_code(struct sl_str payload)
{
    const unsigned char *p = (const unsigned char *)payload.ptr;
    return payload.len >= 2 ? p[0] << 8 | p[1] : 1005; /* 7.1.5: no status */
}

static void take_text(struct cli_socket *s, const struct frame_head *f, struct sl_str payload)
{
    sl_buf_str(&s->message, payload);
    if (s->message.overflow) {
        ended(s, 0, "a message is too long");
        return;
    }
    if (!f->is_final)
        return;
    s->ops->message(s->arg, sl_buf_view(&s->message));
    sl_buf_clear(&s->message);
}

static void take_frame(struct cli_socket *s, const struct frame_head *f, struct sl_str payload)
{
    switch (f->op) {
    case OP_TEXT:
    case OP_CONTINUATION:
        take_text(s, f, payload);
        return;
    case OP_PING:
        send_frame(s, OP_PONG, payload);
        return;
    case OP_PONG:
        return;
    case OP_CLOSE:
        ended(s, close_code(payload), "closed by the gateway");
        return;
    default:
        ended(s, 0, "an unknown kind of frame");
        return;
    }
}

static void take_all(struct cli_socket *s)
{
    struct frame_head f;
    if (!s->is_open)
        take_head(s);
    while (s->is_open && !s->is_gone && read_head(sl_buf_view(&s->in), &f)) {
        if (f.len > BUFFER_MAX_BYTES || s->in.overflow) {
            ended(s, 0, "a frame is too long");
            return;
        }
        take_frame(s, &f, sl_str_n(s->in.ptr + f.payload_at, f.len));
        if (!s->is_gone)
            sl_buf_cut(&s->in, f.payload_at + f.len);
    }
}

static void on_data(void *arg, struct sl_str bytes)
{
    struct cli_socket *s = arg;
    sl_buf_str(&s->in, bytes);
    s->is_busy = true;
    take_all(s);
    s->is_busy = false;
    if (s->is_gone)
        socket_free(s);
}

static void on_closed(void *arg, const char *why)
{
    struct cli_socket *s = arg;
    s->tcp = NULL;
    ended(s, 0, why);
}

struct cli_socket *cli_socket_open(struct sl_loop *l, const char *ip, unsigned port, const char *path,
                                   const struct cli_socket_ops *ops, void *arg)
{
    static const struct cli_tcp_ops tcp_ops = {.opened = on_connected, .data = on_data, .closed = on_closed};
    struct cli_socket *s = sl_alloc(sizeof *s);
    struct sl_buf head, key;
    unsigned char random[16];
    s->ops = ops;
    s->arg = arg;
    sl_buf_init(&s->in, 2 * BUFFER_MAX_BYTES);
    sl_buf_init(&s->message, BUFFER_MAX_BYTES);
    sl_random_bytes(random, sizeof random);
    sl_buf_init(&key, 0);
    sl_b64url(&key, sl_str_n((const char *)random, sizeof random));
    for (size_t i = 0; i < key.len; i++) { /* RFC 6455 4.1 wants the other alphabet of base64, and padding */
        if (key.ptr[i] == '-' || key.ptr[i] == '_')
            key.ptr[i] = 'A';
    }
    sl_buf_init(&head, 0);
    sl_buf_printf(
        &head,
        "GET %s HTTP/1.1\r\nHost: %s:%u\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: %.*s==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: " FRAME_PROTOCOL
        "\r\n\r\n",
        path, ip, port, (int)key.len, key.ptr);
    s->head = sl_str_dup(sl_buf_view(&head));
    sl_buf_fini(&head);
    sl_buf_fini(&key);
    s->tcp = cli_tcp_open(sl_loop_uv(l), ip, port, &tcp_ops, s);
    return s;
}

void cli_socket_send(struct cli_socket *s, struct sl_str text)
{
    sl_assert(s->is_open);
    send_frame(s, OP_TEXT, text);
}

void cli_socket_close(struct cli_socket **sp)
{
    struct cli_socket *s = *sp;
    *sp = NULL;
    if (s == NULL)
        return;
    if (s->is_open && s->tcp != NULL)
        send_frame(s, OP_CLOSE, sl_str_n("\x03\xe8", 2)); /* 1000, normal */
    leave(s);
}
