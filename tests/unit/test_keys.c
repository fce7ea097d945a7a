/* proto/keys.c: names in the store are fixed for ever, so they are written out here. */
#include "proto/keys.h"

#include "proto/message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static struct sl_str S(const char *s) {
    return sl_str_c(s);
}
#define CONV "17.01JD8Z6V3K9Q2W4E5R6T7Y8A9B"

static void
is(struct key k, const char *want)
{
    assert_int_equal(k.len, strlen(want));
    assert_string_equal(k.ptr, want);
}

static void test_every_key_is_spelled_as_stored(void **state)
{
    (void)state;
    is(key_in("17"), "in:{17}");
    is(key_out("17"), "out:{17}");
    is(key_meta("desk:demo"), "meta:{desk:demo}");
    is(key_timers("17"), "timers:{17}");
    is(key_numbers("17"), "num:{17}");
    is(key_relay("17"), "relay:{17}");
    is(key_tails("17"), "tails:{17}");
    is(key_dead("17"), "dead:{17}");
    is(key_state("conv", "17", S(CONV)), "conv:{17}:" CONV);
    is(key_log("17", S(CONV)), "log:{17}:" CONV);
    is(key_session("17", S("s-1"), SL_STR_NONE), "sess:{17}:s-1");
    is(key_session("17", S("s-1"), S("me")), "sess:{17}:s-1:me");
    is(key_seen("17", S("1790")), "seen:{17}:1790");
    is(key_bot(S("faq")), "bot:faq");
    is(key_box("wx", S("token")), "box:{send:wx}:token");
    is(key_push_visitor("17", S("demo/web/v-1")), "pv:{17}:demo/web/v-1");
    is(key_push_conversation("17", S(CONV)), "pc:{17}:" CONV);
    is(key_push_agent("desk:demo", S("mei")), "pa:{desk:demo}:mei");
    is(key_push_queue("desk:demo"), "pq:{desk:demo}");
    is(key_push_session(S("s-1")), "ps:s-1");
}

static void test_from_stands_in_the_slot_of_its_destination(void **state)
{
    (void)state;
    is(key_from(S("in:{17}")), "from:{17}");
    is(key_from(S("in:{desk:demo}")), "from:{desk:demo}");
    is(key_from(S("bot:faq")), "from:{bot:faq}");
    is(key_from(S("odd:{}")), "from:{odd:{}}");
    is(key_from(S("odd:{")), "from:{odd:{}");
}

static void test_the_longest_parts_fit(void **state)
{
    (void)state;
    char tenant[KEY_TENANT_MAX_BYTES], addr[3 * MSG_ID_MAX_BYTES + 2], tag[KEY_TAG_MAX_BYTES];
    memset(tenant, 't', sizeof tenant);
    memset(addr, 'a', sizeof addr);
    key_desk_tag(tag, sl_str_n(tenant, sizeof tenant));
    assert_int_equal(strlen(tag), 5 + sizeof tenant);
    struct key k = key_state("conversation", tag, sl_str_n(addr, sizeof addr));
    assert_int_equal(k.len, strlen(k.ptr));
    k = key_session(tag, sl_str_n(addr, MSG_ID_MAX_BYTES), sl_str_n(addr, MSG_ID_MAX_BYTES));
    assert_int_equal(k.len, strlen(k.ptr));
}

static void test_conversation_tag_takes_only_one_spelling(void **state)
{
    (void)state;
    char tag[KEY_TAG_MAX_BYTES] = "untouched";
    static const char *const bad[] = {
        "",
        "17",
        "17.",
        ".01JD8Z6V3K9Q2W4E5R6T7Y8A9B",
        "017.01JD8Z6V3K9Q2W4E5R6T7Y8A9B",
        "-1.01JD8Z6V3K9Q2W4E5R6T7Y8A9B",
        "123456.01JD8Z6V3K9Q2W4E5R6T7Y8A9B",
        "17.01JD8Z6V3K9Q2W4E5R6T7Y8A9",
        "17.01JD8Z6V3K9Q2W4E5R6T7Y8A9B7",
        "17.01JD8Z6V3K9Q2W4E5R6T7Y8A9U",
        "17:01JD8Z6V3K9Q2W4E5R6T7Y8A9B",
        "17.01JD8Z6V3K9Q2W4E5R6T7Y8A}B",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(key_conversation_tag(tag, S(bad[i])), SL_EINVAL);
    assert_string_equal(tag, "untouched");
    assert_int_equal(key_conversation_tag(tag, S(CONV)), SL_OK);
    assert_string_equal(tag, "17");
    assert_int_equal(key_conversation_tag(tag, S("0.01JD8Z6V3K9Q2W4E5R6T7Y8A9B")), SL_OK);
    assert_string_equal(tag, "0");
    key_partition_tag(tag, 63);
    assert_string_equal(tag, "63");
}

/* 64-bit FNV-1a of "" , "a" and "foobar" as its authors publish them, modulo 2^16 and 64. */
static void test_address_partition_is_fnv1a(void **state)
{
    (void)state;
    assert_int_equal(key_address_partition(S(""), 65536), 0xcbf29ce484222325ULL % 65536);
    assert_int_equal(key_address_partition(S("a"), 65536), 0xaf63dc4c8601ec8cULL % 65536);
    assert_int_equal(key_address_partition(S("foobar"), 64), 0x85944171f73967e8ULL % 64);
    assert_int_equal(key_address_partition(S("foobar"), 1), 0);
}

static void test_addresses_spread_over_partitions(void **state)
{
    (void)state;
    unsigned count[64] = {0};
    char addr[64];
    for (int i = 0; i < 6400; i++) {
        snprintf(addr, sizeof addr, "demo/web/v-%d", i);
        count[key_address_partition(S(addr), 64)]++;
    }
    for (int k = 0; k < 64; k++)
        assert_in_range(count[k], 50, 150);
}

static void test_part_ok_takes_names_and_nothing_else(void **state)
{
    (void)state;
    char name[MSG_ID_MAX_BYTES + 1];
    memset(name, 'x', sizeof name);
    assert_true(key_part_ok(sl_str_n(name, MSG_ID_MAX_BYTES)));
    assert_false(key_part_ok(sl_str_n(name, MSG_ID_MAX_BYTES + 1)));
    assert_true(key_part_ok(S("a.B_9@x+y-z")));
    assert_true(key_part_ok(S("--")));
    static const char *const bad[] = {"",    "-",   " ",        "a b", "a/b", "a:b",
                                      "{a}", "a\n", "\xc3\xa9", "a\"", "|"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(key_part_ok(S(bad[i])));
    assert_false(key_part_ok(sl_str_n("a\0", 2)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_key_is_spelled_as_stored),
        cmocka_unit_test(test_from_stands_in_the_slot_of_its_destination),
        cmocka_unit_test(test_the_longest_parts_fit),
        cmocka_unit_test(test_conversation_tag_takes_only_one_spelling),
        cmocka_unit_test(test_address_partition_is_fnv1a),
        cmocka_unit_test(test_addresses_spread_over_partitions),
        cmocka_unit_test(test_part_ok_takes_names_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
