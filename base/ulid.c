/* base/ulid.c - 128 bits, most significant first, five bits a character. */
#include "base/ulid.h"

#include "base/loop.h"

static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"; /* Crockford: no I, L, O, U */

void sl_ulid_make(char out[SL_ULID_LEN + 1], int64_t unix_ms, const unsigned char random[10])
{
    uint64_t ms = unix_ms > 0 ? (uint64_t)unix_ms & 0xFFFFFFFFFFFFULL : 0;
    for (int i = 9; i >= 0; i--, ms >>= 5)
        out[i] = alphabet[ms & 31];
    for (int half = 0; half < 2; half++) { /* 5 bytes are exactly 8 characters */
        uint64_t bits = 0;
        for (int i = 0; i < 5; i++)
            bits = bits << 8 | random[half * 5 + i];
        for (int i = 7; i >= 0; i--, bits >>= 5)
            out[10 + half * 8 + i] = alphabet[bits & 31];
    }
    out[SL_ULID_LEN] = '\0';
}

void sl_ulid_new(char out[SL_ULID_LEN + 1], int64_t unix_ms)
{
    unsigned char random[10];
    sl_random_bytes(random, sizeof random);
    sl_ulid_make(out, unix_ms, random);
}

static void put_be64(unsigned char *p, uint64_t v)
{
    for (int i = 7; i >= 0; i--, v >>= 8)
        p[i] = (unsigned char)(v & 0xff);
}

void sl_ulid_derive(char out[SL_ULID_LEN + 1], int64_t unix_ms, uint64_t seq, uint32_t ordinal, uint64_t salt)
{
    unsigned char in[24], bits[16];
    put_be64(in, (uint64_t)unix_ms);
    put_be64(in + 8, seq);
    put_be64(in + 16, ordinal);
    struct sl_str s = sl_str_n((const char *)in, sizeof in);
    put_be64(bits, sl_str_hash(s, salt));
    put_be64(bits + 8, sl_str_hash(s, ~salt));
    sl_ulid_make(out, unix_ms, bits);
}

bool sl_ulid_valid(struct sl_str s)
{
    if (s.len != SL_ULID_LEN || s.ptr[0] < '0' || s.ptr[0] > '7') /* more than 7 passes 128 bits */
        return false;
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] == '\0' || strchr(alphabet, s.ptr[i]) == NULL)
            return false;
    return true;
}
