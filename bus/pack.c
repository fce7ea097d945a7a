/* bus/pack.c - many strings in one. */
#include "bus/pack.h"

#define NUMBER_BYTES_MAX 5

struct item {
    struct sl_str head, tail; /* not shared: all of it is head */
    uint64_t source;
    bool is_shared;
};

/* ---- writing ---- */

static size_t number_size(uint64_t v)
{
    size_t n = 1;
    for (; v >= 0x80; v >>= 7)
        n++;
    return n;
}

static char *put_number(char *at, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        *at++ = (char)(unsigned char)(v | 0x80);
    *at++ = (char)(unsigned char)v;
    return at;
}

static char *put_bytes(char *at, struct sl_str s)
{
    if (s.len > 0)
        memcpy(at, s.ptr, s.len);
    return at + s.len;
}

size_t bus_pack_size(size_t len)
{
    return number_size((uint64_t)len << 1) + len;
}

size_t bus_pack_shared_size(size_t source, size_t head, size_t tail)
{
    return number_size((uint64_t)head << 1 | 1) + number_size(source) + number_size(tail) + head + tail;
}

char *bus_pack_put(char *at, struct sl_str s)
{
    return put_bytes(put_number(at, (uint64_t)s.len << 1), s);
}

char *bus_pack_put_shared(char *at, size_t source, struct sl_str head, struct sl_str tail)
{
    at = put_number(at, (uint64_t)head.len << 1 | 1);
    at = put_number(at, source);
    at = put_number(at, tail.len);
    return put_bytes(put_bytes(at, head), tail);
}

/* ---- reading ---- */

static bool take_number(struct sl_str *rest, uint64_t *out)
{
    uint64_t v = 0;
    for (size_t i = 0; i < NUMBER_BYTES_MAX && i < rest->len; i++) {
        unsigned char byte = (unsigned char)rest->ptr[i];
        v |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *out = v;
            *rest = sl_str_n(rest->ptr + i + 1, rest->len - i - 1);
            return true;
        }
    }
    return false;
}

static bool take_bytes(struct sl_str *rest, uint64_t len, struct sl_str *out)
{
    if (len > rest->len || len > BUS_PACK_LEN_MAX)
        return false;
    *out = sl_str_n(rest->ptr, (size_t)len);
    *rest = sl_str_n(rest->ptr + len, rest->len - (size_t)len);
    return true;
}

static bool take_item(struct sl_str *rest, struct item *out)
{
    uint64_t first, tail = 0;
    if (!take_number(rest, &first))
        return false;
    out->is_shared = (first & 1) != 0;
    out->source = 0;
    if (out->is_shared && (!take_number(rest, &out->source) || !take_number(rest, &tail)))
        return false;
    return take_bytes(rest, first >> 1, &out->head) && take_bytes(rest, tail, &out->tail);
}

bool bus_pack_count(struct sl_str pack, size_t *count)
{
    struct item item;
    size_t n = 0;
    for (; pack.len > 0; n++)
        if (!take_item(&pack, &item))
            return false;
    *count = n;
    return true;
}

static bool lies_in(struct sl_str pack, struct sl_str s)
{
    return (uintptr_t)s.ptr >= (uintptr_t)pack.ptr && (uintptr_t)s.ptr <= (uintptr_t)pack.ptr + pack.len;
}

bool bus_pack_read(struct sl_str pack, size_t bytes_max, struct sl_str *out,
                   void *(*take)(void *arg, size_t n), void *arg)
{
    struct sl_str rest = pack;
    struct item item;
    size_t bytes = 0;
    for (size_t n = 0; rest.len > 0; n++) {
        if (!take_item(&rest, &item))
            return false;
        struct sl_str source = SL_STR_NONE;
        if (item.is_shared) {
            if (item.source >= n || !lies_in(pack, out[item.source]))
                return false;
            source = out[item.source];
        }
        size_t len = item.head.len + source.len + item.tail.len; /* each at most 2^30 */
        if (len > bytes_max - bytes)
            return false;
        bytes += len;
        out[n] = item.head;
        if (item.is_shared) {
            char *p = take(arg, len + 1); /* never empty, so that it lies nowhere else */
            out[n] = sl_str_n(p, len);
            (void)put_bytes(put_bytes(put_bytes(p, item.head), source), item.tail);
        }
    }
    return true;
}

bool bus_pack_cut(struct sl_str pack, size_t from, size_t to, struct sl_str *before, struct sl_str *behind)
{
    struct sl_str rest = pack;
    struct item item;
    *before = *behind = sl_str_n(pack.ptr + pack.len, 0);
    for (size_t n = 0; rest.len > 0; n++) {
        if (n == from)
            *before = sl_str_n(pack.ptr, pack.len - rest.len);
        if (n == to)
            *behind = rest;
        if (!take_item(&rest, &item) || (n >= to && item.is_shared && item.source >= from))
            return false;
    }
    return before->ptr == pack.ptr;
}
