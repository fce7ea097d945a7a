/* proto/push.h - what is published inside a commit: a header that is read without parsing JSON, then JSON.
 *
 * Form     "<what> <gen> <n> <session|-> <id|->\n<json>"
 *          what  e entry (json is the history entry; n its number on that topic: the visitor's own number, or
 *                  the history's)
 *                h hint (json is ephemeral: place in line, typing, board; n is 0)
 *                r refusal of a command (json is {"code","text"}; session and id say whose)
 */
#ifndef PROTO_PUSH_H
#define PROTO_PUSH_H

/* clang-format off */ /* tables with a note on each line */

#include "base/str.h"

enum push_what { PUSH_ENTRY = 'e', PUSH_HINT = 'h', PUSH_REFUSAL = 'r' };
struct push {
    enum push_what what;
    uint64_t gen, number;
    struct sl_str session, id, json;
};
/* A session or id that is not key_part_ok (a provider's id) is written as "-": no socket waits for it. */
void push_write(struct sl_buf *out, const struct push *p);
sl_err push_read(struct sl_str payload, struct push *out) SL_MUST_CHECK;    /* borrows from payload */

/* A stored history entry begins {"n":<n>,"v":<v>, ... : both numbers without a JSON parser. v is 0 where
 * visitors do not see it. */
sl_err push_entry_numbers(struct sl_str entry, uint64_t *n, uint64_t *v) SL_MUST_CHECK;

#endif
