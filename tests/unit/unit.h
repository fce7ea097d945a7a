/* tests/unit/unit.h - what every unit test includes: cmocka with the headers it wants before it, and a few
 * shorthands. */
#ifndef TESTS_UNIT_UNIT_H
#define TESTS_UNIT_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The bytes of a slice or a buffer (ptr, len) are exactly this text. */
#define assert_bytes(view, text)                                                                             \
    do {                                                                                                     \
        assert_int_equal((view).len, strlen(text));                                                          \
        assert_memory_equal((view).ptr, text, strlen(text));                                                 \
    } while (0)
#define assert_contains(haystack, needle) assert_non_null(strstr((haystack), (needle)))
#define assert_lacks(haystack, needle)    assert_null(strstr((haystack), (needle)))

#endif
