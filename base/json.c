/* base/json.c - the compact writer, and the guarded parse. */
#include "base/json.h"

#include <stdlib.h>

/* 0: plain; 'u': \u00XX; otherwise the letter after the backslash. RFC 8259 section 7. */
static const char escape_letter[256] = {
    [0] = 'u',  [1] = 'u',    [2] = 'u',    [3] = 'u',    [4] = 'u',   [5] = 'u',     [6] = 'u',
    [7] = 'u',  ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', [11] = 'u',  ['\f'] = 'f',  ['\r'] = 'r',
    [14] = 'u', [15] = 'u',   [16] = 'u',   [17] = 'u',   [18] = 'u',  [19] = 'u',    [20] = 'u',
    [21] = 'u', [22] = 'u',   [23] = 'u',   [24] = 'u',   [25] = 'u',  [26] = 'u',    [27] = 'u',
    [28] = 'u', [29] = 'u',   [30] = 'u',   [31] = 'u',   ['"'] = '"', ['\\'] = '\\',
};

/* True when none of the eight bytes needs escaping (a byte over 0x7f never does). */
static bool is_plain_8(const char *p)
{
    const uint64_t ones = 0x0101010101010101ULL, highs = 0x8080808080808080ULL;
    uint64_t v;
    memcpy(&v, p, sizeof v);
    uint64_t quote = v ^ (ones * '"'), slash = v ^ (ones * '\\');
    uint64_t control = (v - ones * 0x20) & ~v;
    uint64_t hit = control | ((quote - ones) & ~quote) | ((slash - ones) & ~slash);
    return (hit & highs) == 0;
}

/* How many bytes from p on need no escaping. */
static size_t plain_run(const char *p, size_t n)
{
    size_t i = 0;
    while (n - i >= 8 && is_plain_8(p + i))
        i += 8;
    if (i > 0 && n - i < 8 && is_plain_8(p + n - 8))
        return n;
    while (i < n && escape_letter[(unsigned char)p[i]] == 0)
        i++;
    return i;
}

static void escape_byte(struct sl_buf *out, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    char letter = escape_letter[c];
    if (letter != 'u') {
        sl_buf_add(out, (const char[]){'\\', letter}, 2);
        return;
    }
    sl_buf_add(out, (const char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
}

/* The usual case: nothing to escape, so one look at the room is enough. */
static bool quote_plain(struct sl_buf *out, struct sl_str v)
{
    if (plain_run(v.ptr, v.len) < v.len)
        return false;
    char *at = sl_buf_room(out, v.len + 2);
    if (at == NULL)
        return true; /* overflow: everything is ignored from here on */
    at[0] = '"';
    if (v.len > 0)
        memcpy(at + 1, v.ptr, v.len);
    at[v.len + 1] = '"';
    out->len += v.len + 2;
    return true;
}

void sl_json_escape(struct sl_buf *out, struct sl_str v)
{
    if (quote_plain(out, v))
        return;
    sl_buf_char(out, '"');
    for (size_t i = 0; i < v.len;) {
        size_t n = plain_run(v.ptr + i, v.len - i);
        sl_buf_add(out, v.ptr + i, n);
        i += n;
        if (i < v.len)
            escape_byte(out, (unsigned char)v.ptr[i++]);
    }
    sl_buf_char(out, '"');
}

void sl_json_begin(struct sl_json *j, struct sl_buf *out)
{
    *j = (struct sl_json){.out = out};
}

/* ,"key": in one go; false when the key needs escaping, and nothing was written. */
static bool put_plain_key(struct sl_json *j, const char *key)
{
    size_t n = strlen(key), comma = j->need_comma ? 1 : 0;
    char *at = sl_buf_room(j->out, n + 4);
    if (at == NULL)
        return true; /* overflow: everything is ignored from here on */
    unsigned char escapes = 0;
    at[0] = ',';
    at[comma] = '"';
    at += comma + 1;
    for (size_t i = 0; i < n; i++) {
        at[i] = key[i];
        escapes |= (unsigned char)escape_letter[(unsigned char)key[i]];
    }
    at[n] = '"';
    at[n + 1] = ':';
    if (escapes != 0)
        return false;
    j->out->len += comma + n + 3;
    return true;
}

/* The comma and the key, if any, that go before a value. */
static void before_value(struct sl_json *j, const char *key)
{
    if (key == NULL || !put_plain_key(j, key)) {
        if (j->need_comma)
            sl_buf_char(j->out, ',');
        if (key != NULL) {
            sl_json_escape(j->out, sl_str_c(key));
            sl_buf_char(j->out, ':');
        }
    }
    j->need_comma = true;
}

void sl_json_open(struct sl_json *j, const char *key, char bracket)
{
    before_value(j, key);
    sl_buf_char(j->out, bracket);
    j->need_comma = false;
}

void sl_json_close(struct sl_json *j, char bracket)
{
    sl_buf_char(j->out, bracket);
    j->need_comma = true;
}

void sl_json_str(struct sl_json *j, const char *key, struct sl_str v)
{
    before_value(j, key);
    sl_json_escape(j->out, v);
}

void sl_json_c(struct sl_json *j, const char *key, const char *v)
{
    sl_json_str(j, key, sl_str_c(v));
}

void sl_json_int(struct sl_json *j, const char *key, int64_t v)
{
    before_value(j, key);
    sl_buf_int(j->out, v);
}

void sl_json_bool(struct sl_json *j, const char *key, bool v)
{
    before_value(j, key);
    sl_buf_str(j->out, v ? SL_STR("true") : SL_STR("false"));
}

void sl_json_raw(struct sl_json *j, const char *key, struct sl_str json)
{
    before_value(j, key);
    sl_buf_str(j->out, json.len > 0 ? json : SL_STR("null"));
}

/* Reading. jansson recurses and allocates for each value, so depth and count are checked on the bytes before
 * it runs. */

static void fail_at(struct sl_fail *why, struct sl_str text, size_t at, const char *words)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < at && i < text.len; i++) {
        bool is_newline = text.ptr[i] == '\n';
        line += is_newline ? 1 : 0;
        column = is_newline ? 1 : column + 1;
    }
    (void)sl_fail_set(why, SL_EINVAL, 0, "line %zu column %zu: %s", line, column, words);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Index of the quote that ends the string opened at i, or text.len. */
static size_t string_end(struct sl_str text, size_t i)
{
    for (i++; i < text.len && text.ptr[i] != '"'; i++)
        if (text.ptr[i] == '\\')
            i++;
    return i;
}

static bool opens_empty(struct sl_str text, size_t i)
{
    for (i++; i < text.len && is_space(text.ptr[i]);)
        i++;
    return i < text.len && (text.ptr[i] == '}' || text.ptr[i] == ']');
}

/* A value stands at the root, before each comma's right side, and first in each container that is not empty.
 */
static bool is_within_limits(struct sl_str text, struct sl_fail *why)
{
    size_t depth = 0, values = 1;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '"') {
            i = string_end(text, i);
        } else if (c == '{' || c == '[') {
            values += opens_empty(text, i) ? 0 : 1;
            if (++depth > SL_JSON_DEPTH_MAX) {
                fail_at(why, text, i, "nested deeper than 32");
                return false;
            }
        } else if (c == '}' || c == ']') {
            depth -= depth > 0 ? 1 : 0;
        } else if (c == ',') {
            values++;
        } else {
            continue;
        }
        if (values > SL_JSON_VALUES_MAX) {
            fail_at(why, text, i, "more than 10000 values");
            return false;
        }
    }
    return true;
}

/* jansson's own words quote the text, which may be a customer's: ours do not. */
static const char *words_for(const json_error_t *e)
{
    enum json_error_code code = json_error_code(e);
    if (code == json_error_duplicate_key)
        return "the same key twice in one object";
    if (code == json_error_null_character || code == json_error_null_byte_in_key)
        return "a NUL character in a string";
    if (code == json_error_invalid_utf8)
        return "not valid UTF-8";
    if (code == json_error_premature_end_of_input)
        return "ends too early";
    if (code == json_error_end_of_input_expected)
        return "something follows the value";
    if (code == json_error_numeric_overflow)
        return "a number too large";
    return "not JSON";
}

json_t *sl_json_parse(struct sl_str text, struct sl_fail *why)
{
    if (!is_within_limits(text, why))
        return NULL;
    json_error_t e;
    json_t *v =
        json_loadb(text.len > 0 ? text.ptr : "", text.len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
    if (v == NULL)
        (void)sl_fail_set(why, SL_EINVAL, 0, "line %d column %d: %s", e.line, e.column, words_for(&e));
    return v;
}

struct sl_str sl_json_get_str(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    if (!json_is_string(v))
        return SL_STR_NONE;
    return sl_str_n(json_string_value(v), json_string_length(v));
}

int64_t sl_json_get_int(const json_t *obj, const char *key, int64_t fallback)
{
    const json_t *v = json_object_get(obj, key);
    return json_is_integer(v) ? (int64_t)json_integer_value(v) : fallback;
}

bool sl_json_get_bool(const json_t *obj, const char *key, bool fallback)
{
    const json_t *v = json_object_get(obj, key);
    return json_is_boolean(v) ? json_is_true(v) : fallback;
}

static void dump_value(struct sl_json *j, const char *key, const json_t *v);

static void dump_object(struct sl_json *j, const char *key, const json_t *v)
{
    sl_json_open(j, key, '{');
    json_t *obj = (json_t *)(uintptr_t)v; /* jansson's iterators want no const and change nothing */
    for (void *at = json_object_iter(obj); at != NULL; at = json_object_iter_next(obj, at))
        dump_value(j, json_object_iter_key(at), json_object_iter_value(at));
    sl_json_close(j, '}');
}

static void dump_array(struct sl_json *j, const char *key, const json_t *v)
{
    sl_json_open(j, key, '[');
    for (size_t i = 0; i < json_array_size(v); i++)
        dump_value(j, NULL, json_array_get(v, i));
    sl_json_close(j, ']');
}

static void dump_real(struct sl_json *j, const char *key, const json_t *v)
{
    char digits[64]; /* jansson prints at most 17 digits and an exponent, and is not misled by the locale */
    size_t n = json_dumpb(v, digits, sizeof digits, JSON_ENCODE_ANY);
    sl_json_raw(j, key, sl_str_n(digits, n <= sizeof digits ? n : 0));
}

static void dump_value(struct sl_json *j, const char *key, const json_t *v)
{
    if (v == NULL) {
        sl_json_raw(j, key, SL_STR("null"));
        return;
    }
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        dump_object(j, key, v);
        break;
    case JSON_ARRAY:
        dump_array(j, key, v);
        break;
    case JSON_STRING:
        sl_json_str(j, key, sl_str_n(json_string_value(v), json_string_length(v)));
        break;
    case JSON_INTEGER:
        sl_json_int(j, key, (int64_t)json_integer_value(v));
        break;
    case JSON_REAL:
        dump_real(j, key, v);
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        sl_json_bool(j, key, json_is_true(v));
        break;
    case JSON_NULL:
        sl_json_raw(j, key, SL_STR("null"));
        break;
    }
}

void sl_json_dump(struct sl_buf *out, const json_t *v)
{
    struct sl_json j;
    sl_json_begin(&j, out);
    dump_value(&j, NULL, v);
}
