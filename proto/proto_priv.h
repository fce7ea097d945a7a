/* proto/proto_priv.h - JSON helpers shared by the codecs of this folder; they parse nothing into memory. */
#ifndef PROTO_PROTO_PRIV_H
#define PROTO_PROTO_PRIV_H

#include "base/str.h"

/* Is it exactly one well-formed JSON value (RFC 8259), nested at most depth_max deep? Stricter than the RFC
 * where a later reader would stumble: no \u0000, no half surrogates, numbers of at most 32 characters that
 * fit their machine type. Repeated keys are not looked for. Does not check UTF-8. */
bool msg_json_ok(struct sl_str json, unsigned depth_max);

/* The bytes of the value of member `key` of the object in `json`, without blanks around it. False when there
 * is none, or when the text is too broken to tell; a true answer does not mean that the rest is well-formed.
 * Any bytes are safe. */
bool msg_json_member(struct sl_str json, const char *key, struct sl_str *value);

/* An id or name that is stored and shown but never becomes part of a key: at most MSG_ID_MAX_BYTES of UTF-8
 * without control characters; may be empty. */
bool msg_word_ok(struct sl_str s);

/* W3C Trace Context 3.2: version 00 has exactly 55 characters, 00-<32 hex>-<16 hex>-<2 hex>. */
bool msg_trace_ok(struct sl_str s);

/* The two halves of frame_parse: a single plain message.send (false: not for it, and nothing is said), and everything. */
struct frame;
bool frame_scan(struct sl_str text, struct frame *f);
sl_err frame_parse_json(struct sl_str text, bool (*each)(void *arg, const struct frame *f), void *arg,
                        struct sl_fail *why) SL_MUST_CHECK;

#endif
