/* base/ulid.h - ULIDs (github.com/ulid/spec): 48-bit time in ms, 80 bits, Crockford base32, 26 characters. */
#ifndef BASE_ULID_H
#define BASE_ULID_H

#include "base/str.h"

#define SL_ULID_LEN 26
void sl_ulid_make(char out[SL_ULID_LEN + 1], int64_t unix_ms, const unsigned char random[10]);
void sl_ulid_new(char out[SL_ULID_LEN + 1], int64_t unix_ms); /* system randomness */
/* The same (ms, seq, ordinal, salt) always gives the same ULID: ids made by step() come from partition, entry and ordinal. */
void sl_ulid_derive(char out[SL_ULID_LEN + 1], int64_t unix_ms, uint64_t seq, uint32_t ordinal,
                    uint64_t salt);
bool sl_ulid_valid(struct sl_str s);

#endif
