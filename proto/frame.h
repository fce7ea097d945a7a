/* proto/frame.h - sluice.v1, the one WebSocket protocol of visitors and agents; its manual: docs/protocol.md
 *
 * What     parse a client's frame, write a server's. Text JSON, one frame a WebSocket message, or an array.
 * Names    topic = what one subscribes to ("me", "conv:<id>", "queue"); position = [generation, number].
 */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

/* clang-format off */ /* tables with a note on each line */

#include "base/json.h"
#include "base/str.h"

#define FRAME_PROTOCOL "sluice.v1"
#define FRAME_MAX_BYTES 65536            /* one WebSocket message, whole */
#define FRAME_BATCH_MAX 64               /* frames in one array */
#define FRAME_TOPICS_MAX 64              /* resume positions in one hello */
#define FRAME_TOKEN_MAX_BYTES 4096       /* of hello: an opaque token of ours or a signed one of the site's */
#define FRAME_REASON_MAX_BYTES 1024      /* of conv.transfer */

/* Close codes: 4400 + the sense of HTTP's 4xx; 1012 and 1013 from the IANA registry of RFC 6455 11.7. */
#define FRAME_CLOSES(X)                                                        \
    X(GOING_AWAY, 1001, "going away")                                          \
    X(RESTART, 1012, "service restart: reconnect within the time given by bye")\
    X(BUSY, 1013, "try again later")                                           \
    X(BAD_FRAME, 4400, "bad frame")                                            \
    X(AUTH, 4401, "bad or missing token")                                      \
    X(FORBIDDEN, 4403, "origin or topic not allowed")                          \
    X(AUTH_TIMEOUT, 4408, "no hello in time")                                  \
    X(REPLACED, 4409, "the session is open elsewhere")                         \
    X(TOO_BIG, 4413, "frame too big")                                          \
    X(SLOW, 4418, "too slow a reader: reconnect and resume")                   \
    X(RATE, 4429, "too many frames")                                           \
    X(SILENT, 4440, "no sign of life")
enum frame_close {
#define X(name, code, text) FRAME_CLOSE_##name = code,
    FRAME_CLOSES(X)
#undef X
};
const char *frame_close_text(enum frame_close code);

#define FRAME_CLIENT_TYPES(X) X(HELLO, "hello") X(SUB, "sub") X(UNSUB, "unsub") X(CMD, "cmd") X(PING, "ping")
enum frame_type {
#define X(name, word) FRAME_##name,
    FRAME_CLIENT_TYPES(X)
#undef X
};

#define FRAME_COMMANDS(X)                                                                       \
    X(MESSAGE_SEND, "message.send")      /* d: kind, text, data, reply_to; agents: control */   \
    X(MESSAGE_RATE, "message.rate")      /* visitor. d: score 1..5, text */                     \
    X(CONV_END, "conv.end")              /* visitor */                                          \
    X(CONV_ACCEPT, "conv.accept")        /* agent. d: ticket */                                 \
    X(CONV_NOTE, "conv.note")            /* agent. d: text */                                   \
    X(CONV_TRANSFER, "conv.transfer")    /* agent. d: control, queue, reason */                 \
    X(CONV_CLOSE, "conv.close")          /* agent. d: control */                                \
    X(PRESENCE_SET, "presence.set")      /* agent. d: state ready | away */
enum frame_command {
#define X(name, word) FRAME_CMD_##name,
    FRAME_COMMANDS(X)
#undef X
    FRAME_CMD_COUNT
};

struct frame_position {
    struct sl_str topic;
    uint64_t gen, number;
};
struct frame {
    enum frame_type type;
    struct sl_str id;                    /* client's id of the command or subscription; key_part_ok */
    /* hello */
    struct sl_str role, token, inbox, session, client;
    size_t position_count;
    struct frame_position position[FRAME_TOPICS_MAX];
    /* sub, unsub, cmd */
    struct sl_str topic;
    bool has_position;
    uint64_t gen, from;
    /* cmd */
    enum frame_command command;
    uint64_t n;                          /* number in (session, topic): 1, 2, 3 ... */
    struct sl_str kind, text, data_json, reply_to, queue, reason, state, trace;
    int64_t control, ticket, score;      /* 0 when absent */
};
/* Parses one WebSocket message. `each` is called for every frame in it, in order; a false return stops.
 * Nothing is called when any frame of the message is malformed. All strings live until return; data_json is
 * re-serialised. Returns SL_OK also when `each` stopped; SL_ETOOBIG (close 4413) or SL_EINVAL (close 4400)
 * with *why, which names the member and never quotes the peer. */
sl_err frame_parse(struct sl_str text, bool (*each)(void *arg, const struct frame *f), void *arg,
                   struct sl_fail *why) SL_MUST_CHECK;
/* "me", "queue" or "conv:<conversation id>". */
bool frame_topic_ok(struct sl_str topic);

struct frame_welcome {
    struct sl_str session, me_json;
    int64_t now_unix_ms;
    unsigned heartbeat_s;
    uint64_t last_n;                     /* last number accepted in (session, "me") */
    uint64_t attachment_max_bytes;       /* 0: none are taken, and the member is left out */
};
void frame_write_welcome(struct sl_buf *out, const struct frame_welcome *w);
/* Every writer adds one frame, whole. A position of generation 0 and an empty id, topic or snapshot are left
 * out. */
void frame_write_ok(struct sl_buf *out, struct sl_str id, struct sl_str topic, uint64_t gen, uint64_t number,
                    struct sl_str snap_json, uint64_t last_n);
void frame_write_event(struct sl_buf *out, struct sl_str topic, uint64_t gen, uint64_t number,
                       struct sl_str entry_json);
void frame_write_hint(struct sl_buf *out, struct sl_str topic, struct sl_str json);
void frame_write_ack(struct sl_buf *out, struct sl_str id, uint64_t n);
void frame_write_result(struct sl_buf *out, struct sl_str id, struct sl_str topic, uint64_t gen,
                        uint64_t number);
/* res with ok:false; the members of refusal_json, {"code","text"}, stand in it. */
void frame_write_refusal(struct sl_buf *out, struct sl_str id, struct sl_str refusal_json);
/* text NULL: the words of the code. expected_n 0: left out. */
void frame_write_error(struct sl_buf *out, struct sl_str id, sl_err code, const char *text,
                       uint64_t expected_n);
void frame_write_gap(struct sl_buf *out, struct sl_str topic, uint64_t gen, uint64_t number);
void frame_write_pong(struct sl_buf *out);
void frame_write_bye(struct sl_buf *out, int code, uint64_t after_min_ms, uint64_t after_max_ms);

#endif
