/* base/str.c - borrowed slices and bounded buffers. */
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>

bool sl_str_eq(struct sl_str a, struct sl_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

bool sl_str_eq_c(struct sl_str a, const char *b)
{
    return sl_str_eq(a, sl_str_c(b));
}

bool sl_str_starts(struct sl_str s, const char *prefix)
{
    size_t n = strlen(prefix);
    return s.len >= n && (n == 0 || memcmp(s.ptr, prefix, n) == 0);
}

bool sl_str_find(struct sl_str s, struct sl_str needle, size_t *at)
{
    if (needle.len == 0) {
        *at = 0;
        return true;
    }
    if (s.len < needle.len)
        return false;
    const char *hit = memmem(s.ptr, s.len, needle.ptr, needle.len);
    if (hit == NULL)
        return false;
    *at = (size_t)(hit - s.ptr);
    return true;
}

static uint64_t load_le64(const unsigned char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    return v;
}

/* True when each of the eight bytes is 1..127. */
static bool is_plain_ascii_8(uint64_t v)
{
    const uint64_t ones = 0x0101010101010101ULL, highs = 0x8080808080808080ULL;
    return (v & highs) == 0 && ((v - ones) & highs) == 0;
}

/* Length of the UTF-8 sequence at p (n > 0 bytes there), 0 when it is malformed. RFC 3629 section 4. */
static size_t utf8_sequence(const unsigned char *p, size_t n)
{
    unsigned char c = p[0];
    if (c < 0x80)
        return c != 0 ? 1 : 0;
    size_t len = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;
    if (c < 0xC2 || c > 0xF4 || n < len)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    bool is_overlong = (c == 0xE0 && p[1] < 0xA0) || (c == 0xF0 && p[1] < 0x90);
    bool is_surrogate = c == 0xED && p[1] > 0x9F;
    bool is_too_high = c == 0xF4 && p[1] > 0x8F;
    return is_overlong || is_surrogate || is_too_high ? 0 : len;
}

bool sl_str_utf8(struct sl_str s)
{
    const unsigned char *p = (const unsigned char *)s.ptr;
    size_t i = 0;
    while (i < s.len) {
        if (s.len - i >= 8 && is_plain_ascii_8(load_le64(p + i))) {
            i += 8;
            continue;
        }
        size_t n = utf8_sequence(p + i, s.len - i);
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

sl_err sl_str_uint(struct sl_str s, uint64_t *out)
{
    uint64_t v = 0;
    if (s.len == 0)
        return SL_EINVAL;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (c < '0' || c > '9')
            return SL_EINVAL;
        if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(c - '0'), &v))
            return SL_EINVAL;
    }
    *out = v;
    return SL_OK;
}

sl_err sl_str_int(struct sl_str s, int64_t *out)
{
    bool is_negative = s.len > 0 && s.ptr[0] == '-';
    if (is_negative)
        s = sl_str_n(s.ptr + 1, s.len - 1);
    uint64_t v;
    sl_err err = sl_str_uint(s, &v);
    if (err != SL_OK)
        return err;
    if (v > (uint64_t)INT64_MAX + (is_negative ? 1 : 0))
        return SL_EINVAL;
    *out = is_negative ? (int64_t)(0 - v) : (int64_t)v;
    return SL_OK;
}

char *sl_str_dup(struct sl_str s)
{
    char *copy = sl_alloc(s.len + 1);
    if (s.len > 0)
        memcpy(copy, s.ptr, s.len);
    return copy;
}

/* SipHash-1-3 (Aumasson, Bernstein 2012), key = (seed, constant). Its values are stored (they name
 * partitions), so they must never change: tests/unit/test_str.c pins them. */
struct sip {
    uint64_t a, b, c, d;
};

static uint64_t rotl(uint64_t v, unsigned n)
{
    return (v << n) | (v >> (64 - n));
}

static void sip_round(struct sip *s)
{
    s->a += s->b, s->c += s->d;
    s->b = rotl(s->b, 13) ^ s->a, s->d = rotl(s->d, 16) ^ s->c;
    s->a = rotl(s->a, 32);
    s->c += s->b, s->a += s->d;
    s->b = rotl(s->b, 17) ^ s->c, s->d = rotl(s->d, 21) ^ s->a;
    s->c = rotl(s->c, 32);
}

uint64_t sl_str_hash(struct sl_str s, uint64_t seed)
{
    const uint64_t key2 = 0x736c756963652e31ULL;
    struct sip h = {seed ^ 0x736f6d6570736575ULL, key2 ^ 0x646f72616e646f6dULL, seed ^ 0x6c7967656e657261ULL,
                    key2 ^ 0x7465646279746573ULL};
    const unsigned char *p = (const unsigned char *)s.ptr;
    size_t whole = s.len & ~(size_t)7;
    for (size_t i = 0; i < whole; i += 8) {
        uint64_t m = load_le64(p + i);
        h.d ^= m;
        sip_round(&h);
        h.a ^= m;
    }
    uint64_t tail = (uint64_t)s.len << 56;
    for (size_t i = whole; i < s.len; i++)
        tail |= (uint64_t)p[i] << (8 * (i - whole));
    h.d ^= tail;
    sip_round(&h);
    h.a ^= tail;
    h.c ^= 0xff;
    sip_round(&h), sip_round(&h), sip_round(&h);
    return h.a ^ h.b ^ h.c ^ h.d;
}

void sl_buf_init(struct sl_buf *b, size_t max)
{
    *b = (struct sl_buf){.max = max};
}

void sl_buf_fini(struct sl_buf *b)
{
    free(b->ptr);
    *b = (struct sl_buf){.max = b->max};
}

void sl_buf_clear(struct sl_buf *b)
{
    b->len = 0;
    b->overflow = false;
}

/* Make room for n more bytes and one over (vsnprintf ends with a NUL); false, and overflow set, when that
 * passes the maximum. */
bool sl_buf_grow(struct sl_buf *b, size_t n)
{
    if (n < b->cap - b->len && !b->overflow)
        return true;
    size_t max = b->max != 0 ? b->max : SL_BUF_MAX;
    if (b->overflow || b->len > max || n > max - b->len) {
        b->overflow = true;
        return false;
    }
    size_t need = b->len + n + 1;
    size_t cap = b->cap < 64 ? 64 : b->cap;
    while (cap < need)
        cap = cap > max / 2 ? max + 1 : cap * 2; /* not to `need`: each byte beyond would copy all of them */
    cap = cap > max ? max + 1 : cap;             /* so the quick way above never passes the maximum */
    b->ptr = sl_realloc(b->ptr, cap);
    b->cap = cap;
    return true;
}

void sl_buf_add(struct sl_buf *b, const void *p, size_t n)
{
    char *at = n == 0 ? NULL : sl_buf_room(b, n);
    if (at == NULL)
        return;
    memcpy(at, p, n);
    b->len += n;
}

void sl_buf_str(struct sl_buf *b, struct sl_str s)
{
    sl_buf_add(b, s.ptr, s.len);
}

void sl_buf_c(struct sl_buf *b, const char *s)
{
    sl_buf_add(b, s, strlen(s));
}

/* Two digits at a time: half the divisions. */
char *sl_digits_before(char *end, uint64_t v)
{
    static const char pairs[] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
        "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
        "8081828384858687888990919293949596979899";
    while (v >= 100) {
        end -= 2;
        memcpy(end, pairs + v % 100 * 2, 2);
        v /= 100;
    }
    if (v < 10) {
        *--end = (char)('0' + v);
        return end;
    }
    memcpy(end - 2, pairs + v * 2, 2);
    return end - 2;
}

void sl_buf_uint(struct sl_buf *b, uint64_t v)
{
    char digits[SL_DIGITS_MAX], *end = digits + sizeof digits;
    char *start = sl_digits_before(end, v);
    sl_buf_add(b, start, (size_t)(end - start));
}

void sl_buf_int(struct sl_buf *b, int64_t v)
{
    char digits[SL_DIGITS_MAX], *end = digits + sizeof digits;
    char *start = sl_digits_before(end, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
    if (v < 0)
        *--start = '-';
    sl_buf_add(b, start, (size_t)(end - start));
}

void sl_buf_printf(struct sl_buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n > 0 && sl_buf_room(b, (size_t)n) != NULL) {
        (void)vsnprintf(b->ptr + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

void sl_buf_cut(struct sl_buf *b, size_t n)
{
    if (n >= b->len) {
        b->len = 0;
        return;
    }
    if (n == 0)
        return;
    memmove(b->ptr, b->ptr + n, b->len - n);
    b->len -= n;
}
