/* tests/fuzz/fuzz.h - what the fuzz targets share. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include "base/str.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static inline struct sl_str fuzz_input(const unsigned char *data, size_t size)
{
    return size > 0 ? sl_str_n((const char *)data, size) : SL_STR_NONE;
}

#endif
