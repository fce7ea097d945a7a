/* proto/message.h - the envelope: what one message is, whatever channel it came from or goes to.
 *
 * What     struct msg borrows all its bytes; whoever keeps one longer than a call keeps the bytes too.
 *          The JSON form stands in histories, REST answers and pushes.
 * Limits   as data below; a peer's message over a limit is SL_ETOOBIG, never cut silently.
 * Source   proto/schema/message.json, golden files in tests/vectors/proto
 */
#ifndef PROTO_MESSAGE_H
#define PROTO_MESSAGE_H

/* clang-format off */ /* tables with a note on each line */

#include "base/json.h"
#include "base/str.h"

#define MSG_AUTHORS(X) X(VISITOR, "visitor") X(BOT, "bot") X(AGENT, "agent") X(SYSTEM, "system")
enum msg_author {
#define X(name, word) MSG_BY_##name,
    MSG_AUTHORS(X)
#undef X
};

#define MSG_KINDS(X)                                                                                      \
    X(TEXT, "text") X(IMAGE, "image") X(AUDIO, "audio") X(VIDEO, "video") X(FILE, "file")                 \
    X(LOCATION, "location") X(LINK, "link") X(CHOICE, "choice") X(CARD, "card") X(EVENT, "event")         \
    X(NOTE, "note")
enum msg_kind {
#define X(name, word) MSG_##name,
    MSG_KINDS(X)
#undef X
};

#define MSG_TEXT_MAX_BYTES 32768      /* one text; a frame is at most 64 KiB and JSON may double a text */
#define MSG_DATA_MAX_BYTES 16384      /* attachments by reference, choices, cards */
#define MSG_DATA_DEPTH_MAX 16         /* of sl_json_parse's 32: it stands in a message, an entry, an event */
#define MSG_ID_MAX_BYTES 128          /* ids from outside: client ids, provider ids, addresses */

struct msg {
    struct sl_str id;                 /* ours or the sender's; unique in the conversation */
    struct sl_str tenant, inbox, channel, conversation, contact;
    enum msg_author by;
    struct sl_str who;                /* visitor's address, bot's name, agent's id; empty for system */
    enum msg_kind kind;
    struct sl_str text;               /* UTF-8; may be empty for kinds that carry data */
    struct sl_str data;     /* JSON object or empty: {"attachments":[{"id","type","size","sha256","name"}]} */
    struct sl_str reply_to;           /* id of the message this one answers */
    struct sl_str provider_id;
    int64_t sent_unix_ms;             /* by the sender's clock as the channel reports it; 0 unknown */
    int64_t received_unix_ms;         /* when a gateway took it */
    struct sl_str traceparent;        /* W3C Trace Context, or empty */
};

const char *msg_author_name(enum msg_author by);
const char *msg_kind_name(enum msg_kind kind);
bool msg_author_from(struct sl_str word, enum msg_author *out);
bool msg_kind_from(struct sl_str word, enum msg_kind *out);

/* Write m as a JSON object; empty strings and zero times are left out. Keys in the order of the struct. */
void msg_write(struct sl_json *j, const char *key, const struct msg *m);
/* Decode and check (EINVAL, ETOOBIG). data comes back byte for byte. The result borrows from *hold, which the
 * caller json_decrefs. */
sl_err msg_read(struct sl_str json, struct msg *out, json_t **hold, struct sl_fail *why) SL_MUST_CHECK;
/* Limits, UTF-8, data is a JSON object: the check every edge makes before accept. Needed: id; text for kinds
 * text and note, text or data for the others but event. tenant to conversation are empty or key_part_ok. */
sl_err msg_check(const struct msg *m, struct sl_fail *why) SL_MUST_CHECK;

#endif
