/* A push that can be read is written again and read again to the same; the head of an entry likewise. */
#include "tests/fuzz/fuzz.h"

#include "proto/push.h"

static void check_push(struct sl_str input)
{
    struct push p, again;
    struct sl_buf out;
    if (push_read(input, &p) != SL_OK)
        return;
    sl_buf_init(&out, 0);
    push_write(&out, &p);
    sl_assert(push_read(sl_buf_view(&out), &again) == SL_OK);
    sl_assert(again.what == p.what && again.gen == p.gen && again.number == p.number);
    sl_assert(sl_str_eq(again.session, p.session) && sl_str_eq(again.id, p.id) &&
              sl_str_eq(again.json, p.json));
    sl_buf_fini(&out);
}

static void check_entry(struct sl_str input)
{
    uint64_t n, v, n_again, v_again;
    struct sl_buf out;
    if (push_entry_numbers(input, &n, &v) != SL_OK)
        return;
    sl_buf_init(&out, 0);
    sl_buf_printf(&out, "{\"n\":%llu,\"v\":%llu}", (unsigned long long)n, (unsigned long long)v);
    sl_assert(push_entry_numbers(sl_buf_view(&out), &n_again, &v_again) == SL_OK);
    sl_assert(n == n_again && v == v_again);
    sl_buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    check_push(fuzz_input(data, size));
    check_entry(fuzz_input(data, size));
    return 0;
}
