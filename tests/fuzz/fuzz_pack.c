/* A pack that is taken gives the same strings when it is packed again; what is cut out of it leaves the rest readable. */
#include "tests/fuzz/fuzz.h"

#include "bus/pack.h"

#include <stdlib.h>

#define BYTES_MAX (1u << 20)
#define TAKES_MAX 4096

static void *takes[TAKES_MAX];
static size_t taken;

static void *on_take(void *arg, size_t n)
{
    (void)arg;
    sl_assert(taken < TAKES_MAX);
    return takes[taken++] = sl_alloc(n);
}

static void forget(void)
{
    while (taken > 0)
        free(takes[--taken]);
}

static void check_again(const struct sl_str *out, size_t count)
{
    size_t size = 0, again = 0;
    for (size_t i = 0; i < count; i++)
        size += bus_pack_size(out[i].len);
    char *bytes = sl_alloc(size + 1), *at = bytes;
    for (size_t i = 0; i < count; i++)
        at = bus_pack_put(at, out[i]);
    sl_assert((size_t)(at - bytes) == size);
    struct sl_str *second = sl_alloc((count + 1) * sizeof *second);
    sl_assert(bus_pack_count(sl_str_n(bytes, size), &again) && again == count);
    sl_assert(bus_pack_read(sl_str_n(bytes, size), BYTES_MAX, second, on_take, NULL));
    for (size_t i = 0; i < count; i++)
        sl_assert(sl_str_eq(out[i], second[i]));
    free(second);
    free(bytes);
}

static void check_cut(struct sl_str pack, size_t count)
{
    struct sl_str before, behind;
    size_t from = count / 3, to = count - count / 3, left = 0;
    if (count == 0 || !bus_pack_cut(pack, from, to, &before, &behind))
        return;
    sl_assert(bus_pack_count(before, &left) && left == from);
    sl_assert(bus_pack_count(behind, &left) && left == count - to);
    sl_assert(before.ptr == pack.ptr && behind.ptr + behind.len == pack.ptr + pack.len);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct sl_str pack = fuzz_input(data, size);
    size_t count = 0;
    if (!bus_pack_count(pack, &count) || count > TAKES_MAX)
        return 0;
    struct sl_str *out = sl_alloc((count + 1) * sizeof *out);
    if (bus_pack_read(pack, BYTES_MAX, out, on_take, NULL)) {
        check_again(out, count);
        check_cut(pack, count);
    }
    forget();
    free(out);
    return 0;
}
