/* tests/unit/test_outbox.c - what waits for one socket: order, arrays, bounds, no memory while empty. */
#include "unit.h"

#include "base/json.h"
#include "gateway/outbox.h"

#include <stdio.h>

static void add(struct gw_outbox *o, const char *frame)
{
    assert_true(gw_outbox_add(o, sl_str_c(frame)));
}

static void take(struct gw_outbox *o, const char *expected)
{
    struct sl_buf out;
    sl_buf_init(&out, 0);
    assert_true(gw_outbox_take(o, &out));
    assert_bytes(out, expected);
    sl_buf_fini(&out);
}

static void test_take_gives_one_frame_as_it_is_and_several_as_an_array(void **state)
{
    (void)state;
    struct gw_outbox o = {.ptr = NULL};
    struct sl_buf none = {.ptr = NULL};
    assert_false(gw_outbox_take(&o, &none));
    add(&o, "{1}");
    take(&o, "{1}");
    assert_null(o.ptr);
    add(&o, "{1}");
    add(&o, "{2}");
    add(&o, "{3}");
    take(&o, "[{1},{2},{3}]");
    assert_true(gw_outbox_is_empty(&o));
    assert_null(o.ptr);
}

static void test_take_keeps_the_order_across_messages(void **state)
{
    (void)state;
    struct gw_outbox o = {.ptr = NULL};
    struct sl_buf out;
    char frame[8];
    unsigned next = 0;
    sl_buf_init(&out, 0);
    for (unsigned i = 0; i < GW_OUTBOX_FRAMES_MAX; i++) {
        (void)snprintf(frame, sizeof frame, "%u", i);
        add(&o, frame);
    }
    assert_false(gw_outbox_add(&o, SL_STR("x")));
    assert_int_equal(gw_outbox_room(&o), 0);
    while (gw_outbox_take(&o, &out)) {
        json_t *root = sl_json_parse(sl_buf_view(&out), NULL);
        assert_non_null(root);
        assert_true(json_array_size(root) <= GW_MESSAGE_FRAMES_MAX);
        for (size_t i = 0; i < json_array_size(root); i++)
            assert_int_equal(json_integer_value(json_array_get(root, i)), next++);
        json_decref(root);
        sl_buf_clear(&out);
    }
    assert_int_equal(next, GW_OUTBOX_FRAMES_MAX);
    sl_buf_fini(&out);
}

static void test_add_refuses_beyond_the_bytes_and_takes_again_afterwards(void **state)
{
    (void)state;
    struct gw_outbox o = {.ptr = NULL};
    struct sl_buf out;
    static char big[100 * 1024];
    memset(big, 'x', sizeof big);
    sl_buf_init(&out, 0);
    assert_true(gw_outbox_add(&o, sl_str_n(big, sizeof big)));
    assert_true(gw_outbox_add(&o, sl_str_n(big, sizeof big)));
    assert_false(gw_outbox_add(&o, sl_str_n(big, sizeof big)));
    assert_true(gw_outbox_room(&o) < sizeof big);
    assert_true(gw_outbox_take(&o, &out));
    assert_int_equal(out.len, sizeof big); /* two would pass the size of a message */
    assert_true(gw_outbox_add(&o, sl_str_n(big, sizeof big)));
    gw_outbox_fini(&o);
    assert_null(o.ptr);
    sl_buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_take_gives_one_frame_as_it_is_and_several_as_an_array),
        cmocka_unit_test(test_take_keeps_the_order_across_messages),
        cmocka_unit_test(test_add_refuses_beyond_the_bytes_and_takes_again_afterwards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
