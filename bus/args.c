/* bus/args.c - the arguments of a command: borrowed strings, and a growing block for integers and copies. */
#include "bus/bus.h"

#include <stdio.h>
#include <stdlib.h>

#define CHUNK_BYTES   1024
#define INT_MAX_BYTES SL_DIGITS_MAX

struct bus_chunk {
    struct bus_chunk *next;
    size_t used, cap;
    char bytes[];
};

void bus_args_init(struct bus_args *a)
{
    *a = (struct bus_args){.count = 0};
}

static void chunks_free(struct bus_chunk *c)
{
    while (c != NULL) {
        struct bus_chunk *next = c->next;
        free(c);
        c = next;
    }
}

void bus_args_fini(struct bus_args *a)
{
    chunks_free(a->chunks);
    free(a->ptr);
    free(a->len);
    free(a->same);
    bus_args_init(a);
}

/* One ordinary chunk is kept for the next command. */
void bus_args_clear(struct bus_args *a)
{
    a->count = a->same_count = 0;
    a->bytes = 0;
    if (a->chunks == NULL)
        return;
    chunks_free(a->chunks->next);
    a->chunks->next = NULL;
    a->chunks->used = 0;
    if (a->chunks->cap > CHUNK_BYTES) {
        free(a->chunks);
        a->chunks = NULL;
    }
}

static char *take(struct bus_args *a, size_t n)
{
    struct bus_chunk *c = a->chunks;
    if (c == NULL || c->cap - c->used < n) {
        size_t cap = n > CHUNK_BYTES ? n : CHUNK_BYTES;
        c = sl_realloc(NULL, sizeof(*c) + cap);
        *c = (struct bus_chunk){.next = a->chunks, .cap = cap};
        a->chunks = c;
    }
    char *p = c->bytes + c->used;
    c->used += n;
    return p;
}

static void grow(struct bus_args *a)
{
    size_t cap = a->cap == 0 ? 32 : a->cap * 2;
    a->ptr = sl_realloc(a->ptr, cap * sizeof(*a->ptr));
    a->len = sl_realloc(a->len, cap * sizeof(*a->len));
    a->cap = cap;
}

void bus_args_str(struct bus_args *a, struct sl_str s)
{
    if (a->count == a->cap)
        grow(a);
    a->ptr[a->count] = s.ptr == NULL ? "" : s.ptr;
    a->len[a->count] = s.len;
    a->count++;
    a->bytes += s.len;
}

void bus_args_key(struct bus_args *a, const struct key *k)
{
    bus_args_str(a, key_str(k));
}

/* Written to the end of the INT_MAX_BYTES at out. */
static struct sl_str format_int(char *out, int64_t v)
{
    char *end = out + INT_MAX_BYTES;
    char *start = sl_digits_before(end, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
    if (v < 0)
        *--start = '-';
    return sl_str_n(start, (size_t)(end - start));
}

void bus_args_int(struct bus_args *a, int64_t v)
{
    bus_args_str(a, format_int(take(a, INT_MAX_BYTES), v));
}

void bus_args_copy(struct bus_args *a, struct sl_str s)
{
    char *p = take(a, s.len);
    if (s.len > 0)
        memcpy(p, s.ptr, s.len);
    bus_args_str(a, sl_str_n(p, s.len));
}

size_t bus_args_mark(struct bus_args *a)
{
    bus_args_str(a, SL_STR_NONE);
    return a->count - 1;
}

void bus_args_set_int(struct bus_args *a, size_t at, int64_t v)
{
    sl_assert(at < a->count);
    struct sl_str digits = format_int(take(a, INT_MAX_BYTES), v);
    a->bytes += digits.len - a->len[at];
    a->ptr[at] = digits.ptr;
    a->len[at] = digits.len;
}

void bus_args_note_same(struct bus_args *a, size_t source, size_t from)
{
    size_t at = a->count - 1;
    sl_assert(source < at && from + a->len[source] <= a->len[at]);
    if (a->same_count == a->same_cap) {
        a->same_cap = a->same_cap == 0 ? 32 : a->same_cap * 2;
        a->same = sl_realloc(a->same, a->same_cap * sizeof(*a->same));
    }
    a->same[a->same_count++] = (struct bus_args_same){.at = at, .source = source, .from = from};
}
