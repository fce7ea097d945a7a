/* base/str.h - strings at every edge: a borrowed slice, and a growing buffer with a maximum.
 *
 * What     struct sl_str borrows bytes (not NUL-terminated); struct sl_buf owns them.
 * Errors   a buffer that would pass its maximum sets `overflow` and ignores further writes: check once at the end.
 */
#ifndef BASE_STR_H
#define BASE_STR_H

#include "base/error.h"

#include <stdarg.h>
#include <string.h>

struct sl_str {
    const char *ptr;
    size_t len;
};
#define SL_STR(lit) ((struct sl_str){.ptr = ("" lit), .len = sizeof(lit) - 1})
#define SL_STR_NONE ((struct sl_str){.ptr = "", .len = 0})

static inline struct sl_str sl_str_c(const char *s)
{
    return (struct sl_str){.ptr = s, .len = strlen(s)};
}
static inline struct sl_str sl_str_n(const char *p, size_t n)
{
    return (struct sl_str){.ptr = p, .len = n};
}
bool sl_str_eq(struct sl_str a, struct sl_str b);
bool sl_str_eq_c(struct sl_str a, const char *b);
bool sl_str_starts(struct sl_str s, const char *prefix);
bool sl_str_find(struct sl_str s, struct sl_str needle, size_t *at); /* at: untouched when absent */
bool sl_str_utf8(struct sl_str s);                                   /* valid UTF-8, no NUL (RFC 3629) */
sl_err sl_str_int(struct sl_str s, int64_t *out) SL_MUST_CHECK;      /* decimal, optional '-', whole string */
sl_err sl_str_uint(struct sl_str s, uint64_t *out) SL_MUST_CHECK;    /* decimal, whole string */
char *sl_str_dup(struct sl_str s);                                   /* NUL-terminated copy, caller frees */
uint64_t sl_str_hash(struct sl_str s, uint64_t seed); /* not for adversaries unless seed is secret */

#define SL_DIGITS_MAX 21 /* -9223372036854775808 */
/* v's decimal digits, written so that they end before `end`; returns where they begin. */
char *sl_digits_before(char *end, uint64_t v);

struct sl_buf {
    char *ptr; /* NULL until the first write */
    size_t len, cap;
    size_t max; /* 0: SL_BUF_MAX */
    bool overflow;
};
#define SL_BUF_MAX (16u << 20)

void sl_buf_init(struct sl_buf *b, size_t max);
void sl_buf_fini(struct sl_buf *b);           /* frees; the struct may be used again */
void sl_buf_clear(struct sl_buf *b);          /* keeps the memory */
bool sl_buf_grow(struct sl_buf *b, size_t n); /* room for n more bytes; false, and overflow set: none */
/* Where n bytes may be written (then add what was written to len); NULL, and overflow set: nowhere. */
static inline char *sl_buf_room(struct sl_buf *b, size_t n)
{
    bool has_room = (n < b->cap - b->len && !b->overflow) || sl_buf_grow(b, n);
    return has_room ? b->ptr + b->len : NULL;
}
void sl_buf_add(struct sl_buf *b, const void *p, size_t n);
void sl_buf_str(struct sl_buf *b, struct sl_str s);
void sl_buf_c(struct sl_buf *b, const char *s);
static inline void sl_buf_char(struct sl_buf *b, char c)
{
    char *at = sl_buf_room(b, 1);
    if (at == NULL)
        return;
    *at = c;
    b->len++;
}
void sl_buf_int(struct sl_buf *b, int64_t v);
void sl_buf_uint(struct sl_buf *b, uint64_t v);
void sl_buf_printf(struct sl_buf *b, const char *fmt, ...) SL_PRINTF(2, 3);
void sl_buf_cut(struct sl_buf *b, size_t n); /* drop the first n bytes */
static inline struct sl_str sl_buf_view(const struct sl_buf *b)
{
    return (struct sl_str){.ptr = b->ptr ? b->ptr : "", .len = b->len};
}

#endif
