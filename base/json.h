/* base/json.h - JSON: one writer for the hot path, one guarded door to jansson for what peers send.
 *
 * What     the writer emits compact JSON into an sl_buf, keys in call order (so equal input gives equal bytes).
 *          sl_json_parse refuses what RFC 8259 allows but we do not: depth > 32, duplicate keys, NUL in strings,
 *          more than 10,000 values, trailing bytes.
 * Rule     json_t never leaves the codec file that parsed it.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "base/str.h"

#include <jansson.h>

struct sl_json {
    struct sl_buf *out;
    bool need_comma;
};
/* Inside an object pass a key; inside an array pass NULL. */
void sl_json_begin(struct sl_json *j, struct sl_buf *out);
void sl_json_open(struct sl_json *j, const char *key, char bracket);   /* '{' or '[' */
void sl_json_close(struct sl_json *j, char bracket);                   /* '}' or ']' */
void sl_json_str(struct sl_json *j, const char *key, struct sl_str v); /* v must be valid UTF-8 */
void sl_json_c(struct sl_json *j, const char *key, const char *v);
void sl_json_int(struct sl_json *j, const char *key, int64_t v);
void sl_json_bool(struct sl_json *j, const char *key, bool v);
/* Already JSON; empty is written as null. */
void sl_json_raw(struct sl_json *j, const char *key, struct sl_str json);
void sl_json_escape(struct sl_buf *out, struct sl_str v); /* with the quotes */

#define SL_JSON_DEPTH_MAX  32
#define SL_JSON_VALUES_MAX 10000
/* Returns an owned reference (json_decref it) or NULL with *why filled (EINVAL, "line 1 column 7: ..."; never the text itself). */
json_t *sl_json_parse(struct sl_str text, struct sl_fail *why);
/* Borrowed reads; the default when the key is absent or of another type. */
struct sl_str sl_json_get_str(const json_t *obj, const char *key); /* empty when absent; borrowed from obj */
int64_t sl_json_get_int(const json_t *obj, const char *key, int64_t fallback);
bool sl_json_get_bool(const json_t *obj, const char *key, bool fallback);
/* Dump a value compactly into out (object keys in their own order). */
void sl_json_dump(struct sl_buf *out, const json_t *v);

#endif
