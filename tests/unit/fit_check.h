/* tests/unit/fit_check.h - what must hold for the parts of any text: for test_fit.c and fuzz_fit.c. */
#ifndef TESTS_UNIT_FIT_CHECK_H
#define TESTS_UNIT_FIT_CHECK_H

#include "proto/fit.h"

static inline bool fit_check_is_space(struct sl_str s, size_t at, size_t *n)
{
    *n = 1;
    if (s.len - at >= 3 && memcmp(s.ptr + at, "\xe3\x80\x80", 3) == 0) {
        *n = 3;
        return true;
    }
    return s.ptr[at] == ' ' || (s.ptr[at] >= '\t' && s.ptr[at] <= '\r');
}

/* Each part is where the one before ended, but for white space, is valid UTF-8 and within the limit; behind the last one is
 * nothing but white space. max 0: no limit. */
static inline void fit_check_parts(const struct fit *f, struct sl_str text, size_t max, bool is_chars)
{
    size_t at = 0, n;
    for (size_t i = 0; i < f->count; i++) {
        struct sl_str part = f->part[i].text;
        sl_assert(sl_str_utf8(part));
        sl_assert(max == 0 || fit_units(part, is_chars) <= max);
        sl_assert(part.len > 0 || f->count == 1);
        bool is_here = part.len <= text.len - at && memcmp(text.ptr + at, part.ptr, part.len) == 0;
        while (!is_here && at < text.len && fit_check_is_space(text, at, &n)) {
            at += n;
            is_here = part.len <= text.len - at && memcmp(text.ptr + at, part.ptr, part.len) == 0;
        }
        sl_assert(is_here);
        at += part.len;
    }
    while (!f->is_cut && at < text.len) {
        sl_assert(fit_check_is_space(text, at, &n));
        at += n;
    }
}

#endif
