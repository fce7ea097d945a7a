/* bus/pack.c: what was packed comes out again, what is shared stands there once, and nothing else is taken. */
#include "tests/unit/unit.h"

#include "bus/pack.h"

#include <stdlib.h>

struct room {
    char bytes[4096];
    size_t used;
};

static void *on_take(void *arg, size_t n)
{
    struct room *r = arg;
    assert_true(n <= sizeof(r->bytes) - r->used);
    r->used += n;
    return r->bytes + r->used - n;
}

static bool read_all(struct sl_str pack, struct sl_str *out, size_t max, size_t *count)
{
    static struct room room;
    room.used = 0;
    return bus_pack_count(pack, count) && *count <= max && bus_pack_read(pack, 2048, out, on_take, &room);
}

static void expect(struct sl_str got, const char *wanted)
{
    assert_int_equal(got.len, strlen(wanted));
    assert_memory_equal(got.ptr, wanted, got.len);
}

/* plain "ab", empty, "xab}" of item 0, "0" */
static struct sl_str sample(char *bytes)
{
    char *at = bus_pack_put(bytes, SL_STR("ab"));
    at = bus_pack_put(at, SL_STR_NONE);
    at = bus_pack_put_shared(at, 0, SL_STR("x"), SL_STR("}"));
    at = bus_pack_put(at, SL_STR("0"));
    return sl_str_n(bytes, (size_t)(at - bytes));
}

static void test_pack_comes_out_as_it_went_in(void **state)
{
    char bytes[64];
    struct sl_str pack = sample(bytes), out[8];
    size_t count = 0;
    (void)state;
    assert_int_equal(pack.len,
                     bus_pack_size(2) + bus_pack_size(0) + bus_pack_shared_size(0, 1, 1) + bus_pack_size(1));
    assert_true(read_all(pack, out, 8, &count));
    assert_int_equal(count, 4);
    expect(out[0], "ab");
    expect(out[1], "");
    expect(out[2], "xab}");
    expect(out[3], "0");
    assert_ptr_equal(out[0].ptr, bytes + 1); /* a view, no copy */
    assert_true(read_all(SL_STR_NONE, out, 8, &count));
    assert_int_equal(count, 0);
}

static void test_pack_takes_long_strings(void **state)
{
    size_t len = 300000, count = 0;
    char *long_one = malloc(len), *bytes = malloc(len + 64);
    struct sl_str out[2];
    (void)state;
    memset(long_one, 'a', len);
    char *at = bus_pack_put(bytes, sl_str_n(long_one, len));
    assert_int_equal(at - bytes, bus_pack_size(len));
    assert_true(bus_pack_count(sl_str_n(bytes, (size_t)(at - bytes)), &count));
    assert_int_equal(count, 1);
    assert_true(bus_pack_read(sl_str_n(bytes, (size_t)(at - bytes)), len, out, on_take, NULL));
    assert_int_equal(out[0].len, len);
    assert_false(bus_pack_read(sl_str_n(bytes, (size_t)(at - bytes)), len - 1, out, on_take, NULL));
    free(long_one);
    free(bytes);
}

static void test_pack_refuses_what_is_cut_short(void **state)
{
    char bytes[64];
    struct sl_str pack = sample(bytes), out[8];
    size_t count = 0, whole = 0;
    (void)state;
    for (size_t len = 0; len < pack.len; len++)
        whole += read_all(sl_str_n(bytes, len), out, 8, &count) ? 1 : 0;
    assert_int_equal(whole, 4);                                               /* only at the end of an item */
    assert_false(bus_pack_count(SL_STR("\x80\x80\x80\x80\x80\x01"), &count)); /* a number of six bytes */
    assert_false(bus_pack_count(SL_STR("\xff\xff\xff\xff\x7f"), &count));     /* 2^34 bytes */
}

static void test_pack_shares_only_earlier_plain_items(void **state)
{
    char bytes[64], *at;
    struct sl_str out[8];
    size_t count = 0;
    (void)state;
    at = bus_pack_put_shared(bytes, 0, SL_STR("x"), SL_STR_NONE); /* itself */
    assert_false(read_all(sl_str_n(bytes, (size_t)(at - bytes)), out, 8, &count));
    at = bus_pack_put_shared(bus_pack_put(bytes, SL_STR("a")), 2, SL_STR("x"), SL_STR_NONE); /* a later one */
    at = bus_pack_put(at, SL_STR("b"));
    assert_false(read_all(sl_str_n(bytes, (size_t)(at - bytes)), out, 8, &count));
    at = bus_pack_put_shared(bus_pack_put(bytes, SL_STR("a")), 0, SL_STR("x"), SL_STR_NONE);
    at = bus_pack_put_shared(at, 1, SL_STR("y"),
                             SL_STR_NONE); /* a shared one: lengths could double at every step */
    assert_false(read_all(sl_str_n(bytes, (size_t)(at - bytes)), out, 8, &count));
}

static void test_pack_cut_keeps_the_rest_as_it_was(void **state)
{
    char bytes[64];
    struct sl_str pack = sample(bytes), before, behind;
    (void)state;
    assert_true(bus_pack_cut(pack, 1, 2, &before, &behind));
    assert_int_equal(before.len, bus_pack_size(2));
    assert_ptr_equal(behind.ptr, bytes + before.len + bus_pack_size(0));
    assert_int_equal(before.len + bus_pack_size(0) + behind.len, pack.len);
    assert_true(bus_pack_cut(pack, 3, 4, &before, &behind));
    assert_int_equal(behind.len, 0);
    assert_false(bus_pack_cut(pack, 0, 1, &before, &behind)); /* item 2 needs item 0 */
    assert_false(bus_pack_cut(pack, 9, 9, &before, &behind));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pack_comes_out_as_it_went_in),
        cmocka_unit_test(test_pack_takes_long_strings),
        cmocka_unit_test(test_pack_refuses_what_is_cut_short),
        cmocka_unit_test(test_pack_shares_only_earlier_plain_items),
        cmocka_unit_test(test_pack_cut_keeps_the_rest_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
