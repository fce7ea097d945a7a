/* proto/frame_scan.c - the frame that nearly all of a busy gateway's are, read in one pass and without memory.
 *
 * Takes    {"t":"cmd","id":..,"n":..,"topic":..,"k":"message.send","d":{"kind":"text","text":..}}, members in any order, kind or not,
 *          with blanks or without. Whatever else stands in a frame, an escape in a string or a value that is not allowed:
 *          it is not for here, and frame_parse_json says what it is.
 * Proof    tests/fuzz/fuzz_frame.c: what is taken here is the same frame there.
 */
#include "proto/frame.h"

#include "proto/keys.h"
#include "proto/message.h"
#include "proto/proto_priv.h"

#define NUMBER_DIGITS_MAX 15

struct scan {
    const char *at, *end;
};

static void skip_blanks(struct scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
        s->at++;
}

/* The character, with blanks before it and behind it. */
static bool take_char(struct scan *s, char c)
{
    skip_blanks(s);
    if (s->at == s->end || *s->at != c)
        return false;
    s->at++;
    skip_blanks(s);
    return true;
}

/* A string without escapes; its bytes are looked at once more as UTF-8 when all is read. */
static bool take_string(struct scan *s, struct sl_str *out)
{
    if (s->at == s->end || *s->at != '"')
        return false;
    const char *from = ++s->at;
    while (s->at < s->end && *s->at != '"') {
        if (*s->at == '\\' || (unsigned char)*s->at < ' ')
            return false;
        s->at++;
    }
    if (s->at == s->end)
        return false;
    *out = sl_str_n(from, (size_t)(s->at - from));
    s->at++;
    return true;
}

/* Digits alone: no sign, fraction, exponent or zero before others. */
static bool take_number(struct scan *s, uint64_t *out)
{
    const char *from = s->at;
    uint64_t v = 0;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9' && s->at - from < NUMBER_DIGITS_MAX)
        v = v * 10 + (uint64_t)(*s->at++ - '0');
    if (s->at == from || *from == '0')
        return false;
    *out = v;
    return s->at == s->end ||
           ((*s->at < '0' || *s->at > '9') && *s->at != '.' && *s->at != 'e' && *s->at != 'E');
}

static bool take_word(struct scan *s, const char *word)
{
    struct sl_str got;
    return take_string(s, &got) && sl_str_eq_c(got, word);
}

enum { HAS_TYPE = 1, HAS_ID = 2, HAS_N = 4, HAS_TOPIC = 8, HAS_COMMAND = 16, HAS_DATA = 32, HAS_ALL = 63 };
enum { HAS_KIND = 1, HAS_TEXT = 2 };

/* Members up to the brace that closes them. `take` reads one; a name that it does not know, or knows already, ends the matter. */
static bool take_object(struct scan *s, struct frame *f, unsigned *seen,
                        bool (*take)(struct scan *s, struct frame *f, struct sl_str name, unsigned *seen))
{
    struct sl_str name;
    if (!take_char(s, '{'))
        return false;
    for (;;) {
        if (!take_string(s, &name) || !take_char(s, ':') || !take(s, f, name, seen))
            return false;
        skip_blanks(s);
        if (s->at == s->end)
            return false;
        if (*s->at == '}') {
            s->at++;
            return true;
        }
        if (!take_char(s, ','))
            return false;
    }
}

static bool is_first(unsigned *seen, unsigned bit)
{
    bool is = (*seen & bit) == 0;
    *seen |= bit;
    return is;
}

static bool take_data_member(struct scan *s, struct frame *f, struct sl_str name, unsigned *seen)
{
    if (sl_str_eq_c(name, "text"))
        return is_first(seen, HAS_TEXT) && take_string(s, &f->text);
    return sl_str_eq_c(name, "kind") && is_first(seen, HAS_KIND) && take_word(s, "text");
}

static bool take_data(struct scan *s, struct frame *f)
{
    unsigned seen = 0;
    return take_object(s, f, &seen, take_data_member) && f->text.len > 0 && f->text.len <= MSG_TEXT_MAX_BYTES;
}

static bool take_member(struct scan *s, struct frame *f, struct sl_str name, unsigned *seen)
{
    if (sl_str_eq_c(name, "t"))
        return is_first(seen, HAS_TYPE) && take_word(s, "cmd");
    if (sl_str_eq_c(name, "id"))
        return is_first(seen, HAS_ID) && take_string(s, &f->id) && key_part_ok(f->id);
    if (sl_str_eq_c(name, "n"))
        return is_first(seen, HAS_N) && take_number(s, &f->n);
    if (sl_str_eq_c(name, "topic"))
        return is_first(seen, HAS_TOPIC) && take_string(s, &f->topic) && frame_topic_ok(f->topic);
    if (sl_str_eq_c(name, "k"))
        return is_first(seen, HAS_COMMAND) && take_word(s, "message.send");
    return sl_str_eq_c(name, "d") && is_first(seen, HAS_DATA) && take_data(s, f);
}

bool frame_scan(struct sl_str text, struct frame *f)
{
    struct scan s = {.at = text.ptr, .end = text.ptr + text.len};
    unsigned seen = 0;
    *f = (struct frame){.type = FRAME_CMD,
                        .command = FRAME_CMD_MESSAGE_SEND,
                        .kind = sl_str_c(msg_kind_name(MSG_TEXT)),
                        .reply_to = SL_STR_NONE};
    if (!take_object(&s, f, &seen, take_member) || seen != HAS_ALL)
        return false;
    skip_blanks(&s);
    return s.at == s.end && sl_str_utf8(text);
}
