#include "proto/proto_priv.h"

#include "proto/message.h"

/* A reader over text; pos never passes end. */
struct scan {
    const char *pos, *end;
};

static void skip_blanks(struct scan *s)
{
    while (s->pos < s->end && (*s->pos == ' ' || *s->pos == '\t' || *s->pos == '\n' || *s->pos == '\r'))
        s->pos++;
}

static bool take(struct scan *s, char c)
{
    if (s->pos == s->end || *s->pos != c)
        return false;
    s->pos++;
    return true;
}

static bool take_word(struct scan *s, const char *word)
{
    size_t len = strlen(word);
    if ((size_t)(s->end - s->pos) < len || memcmp(s->pos, word, len) != 0)
        return false;
    s->pos += len;
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static bool take_hex4(struct scan *s, unsigned *unit)
{
    unsigned value = 0;
    if (s->end - s->pos < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(*s->pos++);
        if (digit < 0)
            return false;
        value = value << 4 | (unsigned)digit;
    }
    *unit = value;
    return true;
}

/* After "\u". RFC 8259 7: a code point beyond 16 bits is a pair of escapes; half a pair names nothing. */
static bool take_code_point(struct scan *s)
{
    unsigned high, low;
    if (!take_hex4(s, &high) || high == 0)
        return false;
    if (high < 0xd800 || high > 0xdfff)
        return true;
    return high <= 0xdbff && take_word(s, "\\u") && take_hex4(s, &low) && low >= 0xdc00 && low <= 0xdfff;
}

static bool take_escape(struct scan *s)
{
    if (s->pos == s->end)
        return false;
    char c = *s->pos++;
    return c == 'u' ? take_code_point(s) : (c != '\0' && strchr("\"\\/bfnrt", c) != NULL);
}

static bool take_string(struct scan *s)
{
    if (!take(s, '"'))
        return false;
    while (s->pos < s->end) {
        unsigned char c = (unsigned char)*s->pos++;
        if (c == '"')
            return true;
        if (c < 0x20 || (c == '\\' && !take_escape(s)))
            return false;
    }
    return false;
}

static size_t take_digits(struct scan *s)
{
    const char *start = s->pos;
    while (s->pos < s->end && *s->pos >= '0' && *s->pos <= '9')
        s->pos++;
    return (size_t)(s->pos - start);
}

/* After "e": at most two digits, so that 32 characters of number stay under the 1e308 of a double. */
static bool take_exponent(struct scan *s)
{
    if (!take(s, '+'))
        (void)take(s, '-');
    size_t digits = take_digits(s);
    return digits >= 1 && digits <= 2;
}

static bool take_number(struct scan *s)
{
    const char *start = s->pos;
    bool is_integer = true;
    (void)take(s, '-');
    const char *first = s->pos;
    size_t digits = take_digits(s);
    if (digits == 0 || (digits > 1 && *first == '0'))
        return false;
    if (take(s, '.')) {
        is_integer = false;
        if (take_digits(s) == 0)
            return false;
    }
    if (take(s, 'e') || take(s, 'E')) {
        is_integer = false;
        if (!take_exponent(s))
            return false;
    }
    return s->pos - start <= 32 && (!is_integer || digits <= 18);
}

static bool take_scalar(struct scan *s)
{
    if (s->pos == s->end)
        return false;
    switch (*s->pos) {
    case '"':
        return take_string(s);
    case 't':
        return take_word(s, "true");
    case 'f':
        return take_word(s, "false");
    case 'n':
        return take_word(s, "null");
    default:
        return take_number(s);
    }
}

#define NESTING_MAX 32

/* The open brackets, as bits: 1 an object, 0 an array. */
struct nesting {
    uint32_t is_object;
    unsigned depth, depth_max;
};

static bool in_object(const struct nesting *n)
{
    return n->depth > 0 && (n->is_object >> (n->depth - 1) & 1) != 0;
}

static bool take_member_key(struct scan *s)
{
    skip_blanks(s);
    if (!take_string(s))
        return false;
    skip_blanks(s);
    return take(s, ':');
}

/* At an opening bracket: go in, and for an object that is not empty past its first key. *is_empty: closed
 * again at once. */
static bool enter(struct scan *s, struct nesting *n, bool *is_empty)
{
    bool is_object = *s->pos++ == '{';
    if (n->depth == n->depth_max)
        return false;
    skip_blanks(s);
    *is_empty = take(s, is_object ? '}' : ']');
    if (*is_empty)
        return true;
    uint32_t bit = (uint32_t)1 << n->depth++;
    n->is_object = is_object ? n->is_object | bit : n->is_object & ~bit;
    return !is_object || take_member_key(s);
}

/* After a value: close what ends here. *is_done when the outermost value is complete, else the next value
 * follows. */
static bool leave(struct scan *s, struct nesting *n, bool *is_done)
{
    while (n->depth > 0) {
        skip_blanks(s);
        if (take(s, ','))
            return !in_object(n) || take_member_key(s);
        if (!take(s, in_object(n) ? '}' : ']'))
            return false;
        n->depth--;
    }
    *is_done = true;
    return true;
}

static bool take_value(struct scan *s, unsigned depth_max)
{
    struct nesting n = {.depth_max = depth_max < NESTING_MAX ? depth_max : NESTING_MAX};
    for (bool is_done = false; !is_done;) {
        bool is_complete = true;
        skip_blanks(s);
        bool is_nested = s->pos < s->end && (*s->pos == '{' || *s->pos == '[');
        if (!(is_nested ? enter(s, &n, &is_complete) : take_scalar(s)))
            return false;
        if (is_complete && !leave(s, &n, &is_done))
            return false;
    }
    return true;
}

bool msg_json_ok(struct sl_str json, unsigned depth_max)
{
    struct scan s = {.pos = json.ptr, .end = json.ptr + json.len};
    if (!take_value(&s, depth_max))
        return false;
    skip_blanks(&s);
    return s.pos == s.end;
}

bool msg_json_member(struct sl_str json, const char *key, struct sl_str *value)
{
    struct scan s = {.pos = json.ptr, .end = json.ptr + json.len};
    skip_blanks(&s);
    if (!take(&s, '{'))
        return false;
    do {
        skip_blanks(&s);
        struct sl_str name = {.ptr = s.pos + 1};
        if (!take_string(&s))
            return false;
        name.len = (size_t)(s.pos - name.ptr) - 1;
        skip_blanks(&s);
        if (!take(&s, ':'))
            return false;
        skip_blanks(&s);
        const char *start = s.pos;
        if (!take_value(&s, NESTING_MAX))
            return false;
        if (sl_str_eq_c(name, key)) {
            *value = sl_str_n(start, (size_t)(s.pos - start));
            return true;
        }
        skip_blanks(&s);
    } while (take(&s, ','));
    return false;
}

bool msg_word_ok(struct sl_str s)
{
    if (s.len > MSG_ID_MAX_BYTES || !sl_str_utf8(s))
        return false;
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] < 0x20 || s.ptr[i] == 0x7f)
            return false;
    return true;
}

bool msg_trace_ok(struct sl_str s)
{
    if (s.len != 55)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        bool is_dash = i == 2 || i == 35 || i == 52;
        bool is_hex = (s.ptr[i] >= '0' && s.ptr[i] <= '9') || (s.ptr[i] >= 'a' && s.ptr[i] <= 'f');
        if (is_dash ? s.ptr[i] != '-' : !is_hex)
            return false;
    }
    return s.ptr[0] == '0' && s.ptr[1] == '0';
}
