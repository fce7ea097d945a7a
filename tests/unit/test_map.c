/* The map against a plain list that does the same slowly, and deletion inside a walk. */
#include "base/map.h"

#include "unit.h"

#include <stdio.h>

static int values[5000];

static struct sl_str key_of(char *text, size_t size, int i)
{
    int n = snprintf(text, size, "key-%d", i);
    return sl_str_n(text, (size_t)n);
}

static void test_map_set_get_del_return_what_stood_there(void **state)
{
    (void)state;
    struct sl_map *m = sl_map_new();
    assert_null(sl_map_get(m, SL_STR("a")));
    assert_null(sl_map_del(m, SL_STR("a")));
    assert_null(sl_map_set(m, SL_STR("a"), &values[0]));
    assert_ptr_equal(sl_map_set(m, SL_STR("a"), &values[1]), &values[0]);
    assert_int_equal(sl_map_count(m), 1);
    assert_ptr_equal(sl_map_get(m, SL_STR("a")), &values[1]);
    assert_null(sl_map_get(m, sl_str_n("a\0", 2)));
    assert_null(sl_map_set(m, SL_STR_NONE, &values[2])); /* the empty key is a key */
    assert_ptr_equal(sl_map_get(m, sl_str_n(NULL, 0)), &values[2]);
    assert_ptr_equal(sl_map_del(m, SL_STR("a")), &values[1]);
    assert_null(sl_map_get(m, SL_STR("a")));
    assert_int_equal(sl_map_count(m), 1);
    sl_map_free(&m);
    assert_null(m);
    sl_map_free(&m);
}

static void test_map_copies_its_keys(void **state)
{
    (void)state;
    struct sl_map *m = sl_map_new();
    char text[] = "before";
    (void)sl_map_set(m, sl_str_c(text), &values[0]);
    memcpy(text, "after!", 6);
    assert_ptr_equal(sl_map_get(m, SL_STR("before")), &values[0]);
    sl_map_free(&m);
}

static void assert_walk(const struct sl_map *m, const int *order, size_t count)
{
    struct sl_str key;
    void *value;
    size_t at = 0;
    for (size_t i = 0; sl_map_next(m, &i, &key, &value); at++) {
        assert_true(at < count);
        assert_ptr_equal(value, &values[order[at]]);
    }
    assert_int_equal(at, count);
    assert_int_equal(sl_map_count(m), count);
}

/* 20,000 steps of sets and deletes; the model is a list in insertion order. */
static void test_map_agrees_with_a_list(void **state)
{
    (void)state;
    struct sl_map *m = sl_map_new();
    static int order[5000];
    size_t count = 0;
    uint64_t random = 12345;
    char text[32];
    for (int step = 0; step < 20000; step++) {
        random = random * 6364136223846793005ULL + 1442695040888963407ULL;
        int i = (int)(random >> 33) % 500;
        size_t at = 0;
        while (at < count && order[at] != i)
            at++;
        bool is_there = at < count;
        if ((random >> 20) % 5 < (step % 2000 < 1000 ? 3u : 1u)) {
            assert_ptr_equal(sl_map_set(m, key_of(text, sizeof text, i), &values[i]),
                             is_there ? &values[i] : NULL);
            if (!is_there)
                order[count++] = i;
        } else {
            assert_ptr_equal(sl_map_del(m, key_of(text, sizeof text, i)), is_there ? &values[i] : NULL);
            if (is_there)
                memmove(&order[at], &order[at + 1], (--count - at) * sizeof order[0]);
        }
        if (step % 100 == 0)
            assert_walk(m, order, count);
    }
    assert_walk(m, order, count);
    sl_map_free(&m);
}

static void test_map_deletes_the_current_key_inside_a_walk(void **state)
{
    (void)state;
    struct sl_map *m = sl_map_new();
    char text[32];
    for (int i = 0; i < 1000; i++)
        (void)sl_map_set(m, key_of(text, sizeof text, i), &values[i]);
    struct sl_str key;
    void *value;
    int seen = 0;
    for (size_t i = 0; sl_map_next(m, &i, &key, &value); seen++) {
        assert_ptr_equal(value, &values[seen]);
        if (seen % 3 != 0)
            assert_ptr_equal(sl_map_del(m, key), value);
    }
    assert_int_equal(seen, 1000);
    assert_int_equal(sl_map_count(m), 334);
    for (int i = 0; i < 1000; i++)
        assert_ptr_equal(sl_map_get(m, key_of(text, sizeof text, i)), i % 3 == 0 ? &values[i] : NULL);
    for (size_t i = 0; sl_map_next(m, &i, &key, &value);)
        (void)sl_map_del(m, key);
    assert_int_equal(sl_map_count(m), 0);
    sl_map_free(&m);
}

/* A map used as a queue: the first is found at once although thousands before it were deleted. */
static void test_map_serves_as_a_queue(void **state)
{
    (void)state;
    struct sl_map *m = sl_map_new();
    char text[32];
    for (int i = 0; i < 200000; i++) {
        (void)sl_map_set(m, key_of(text, sizeof text, i), &values[i % 5000]);
        if (i < 100)
            continue;
        struct sl_str key;
        void *value;
        size_t at = 0;
        assert_true(sl_map_next(m, &at, &key, &value));
        assert_ptr_equal(value, &values[(i - 100) % 5000]);
        assert_ptr_equal(sl_map_del(m, key), value);
    }
    assert_int_equal(sl_map_count(m), 100);
    sl_map_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map_set_get_del_return_what_stood_there),
        cmocka_unit_test(test_map_copies_its_keys),
        cmocka_unit_test(test_map_agrees_with_a_list),
        cmocka_unit_test(test_map_deletes_the_current_key_inside_a_walk),
        cmocka_unit_test(test_map_serves_as_a_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
