/* base/crypto.c - hashes and secrets through OpenSSL 3, passwords through libargon2. */
#include "base/crypto.h"

#include "base/loop.h"

#include <argon2.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <stdio.h>

void sl_sha256(struct sl_str in, unsigned char out[32])
{
    unsigned int n = 0;
    sl_assert(EVP_Digest(in.ptr, in.len, out, &n, EVP_sha256(), NULL) == 1 && n == 32);
}

void sl_hmac_sha256(struct sl_str key, struct sl_str in, unsigned char out[32])
{
    unsigned int n = 0;
    sl_assert(key.len <= INT_MAX);
    const void *key_bytes = key.len > 0 ? key.ptr : ""; /* NULL would mean: the key of the last call */
    sl_assert(HMAC(EVP_sha256(), key_bytes, (int)key.len, (const unsigned char *)in.ptr, in.len, out, &n) !=
                  NULL &&
              n == 32);
}

void sl_sha1(struct sl_str in, unsigned char out[20])
{
    unsigned int n = 0;
    sl_assert(EVP_Digest(in.ptr, in.len, out, &n, EVP_sha1(), NULL) == 1 && n == 20);
}

void sl_hmac_sha1(struct sl_str key, struct sl_str in, unsigned char out[20])
{
    unsigned int n = 0;
    sl_assert(key.len <= INT_MAX);
    const void *key_bytes = key.len > 0 ? key.ptr : "";
    sl_assert(HMAC(EVP_sha1(), key_bytes, (int)key.len, (const unsigned char *)in.ptr, in.len, out, &n) !=
                  NULL &&
              n == 20);
}

bool sl_secret_eq(struct sl_str a, struct sl_str b)
{
    return a.len == b.len && (a.len == 0 || CRYPTO_memcmp(a.ptr, b.ptr, a.len) == 0);
}

static const char b64url_alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void sl_b64url(struct sl_buf *out, struct sl_str in)
{
    const unsigned char *p = (const unsigned char *)in.ptr;
    for (size_t i = 0; i < in.len; i += 3) {
        size_t n = in.len - i < 3 ? in.len - i : 3;
        uint32_t bits = (uint32_t)p[i] << 16 | (n > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (n > 2 ? p[i + 2] : 0);
        char four[4];
        for (int k = 3; k >= 0; k--, bits >>= 6)
            four[k] = b64url_alphabet[bits & 63];
        sl_buf_add(out, four, n + 1);
    }
}

static int b64url_value(char c)
{
    const char *at = c != '\0' ? strchr(b64url_alphabet, c) : NULL;
    return at != NULL ? (int)(at - b64url_alphabet) : -1;
}

/* One group of 2 to 4 characters. Bits left over must be 0, so that each value has one spelling (RFC
 * 4648 3.5). */
static bool decode_group(struct sl_buf *out, const char *p, size_t n)
{
    uint32_t bits = 0;
    for (size_t i = 0; i < 4; i++) {
        int v = i < n ? b64url_value(p[i]) : 0;
        if (v < 0)
            return false;
        bits = bits << 6 | (uint32_t)v;
    }
    const char three[3] = {(char)(bits >> 16 & 255), (char)(bits >> 8 & 255), (char)(bits & 255)};
    if ((n == 2 && (bits & 0xffff) != 0) || (n == 3 && (bits & 0xff) != 0))
        return false;
    sl_buf_add(out, three, n - 1);
    return true;
}

sl_err sl_b64url_decode(struct sl_buf *out, struct sl_str in)
{
    size_t before = out->len;
    if (in.len % 4 == 1)
        return SL_EINVAL;
    bool is_valid = true;
    for (size_t i = 0; i < in.len && is_valid; i += 4)
        is_valid = decode_group(out, in.ptr + i, in.len - i < 4 ? in.len - i : 4);
    if (is_valid && !out->overflow)
        return SL_OK;
    out->len = before;
    return is_valid ? SL_ETOOBIG : SL_EINVAL;
}

static void swap_alphabet(char *p, size_t n, const char from[3], const char to[3])
{
    for (size_t i = 0; i < n; i++)
        p[i] = p[i] == from[0] ? to[0] : p[i] == from[1] ? to[1] : p[i];
}

void sl_b64(struct sl_buf *out, struct sl_str in)
{
    size_t before = out->len;
    sl_b64url(out, in);
    if (!out->overflow && out->len > before)
        swap_alphabet(out->ptr + before, out->len - before, "-_", "+/");
    for (size_t n = in.len; n % 3 != 0; n++)
        sl_buf_char(out, '=');
}

sl_err sl_b64_decode(struct sl_buf *out, struct sl_str in)
{
    size_t len = in.len;
    if (len % 4 == 0)
        while (len > 0 && len + 2 > in.len && in.ptr[len - 1] == '=')
            len--;
    if (memchr(in.ptr, '-', len) != NULL || memchr(in.ptr, '_', len) != NULL)
        return SL_EINVAL;
    struct sl_buf url;
    sl_buf_init(&url, 0);
    sl_buf_add(&url, in.ptr, len);
    if (url.len > 0)
        swap_alphabet(url.ptr, url.len, "+/", "-_");
    sl_err err = url.overflow ? SL_ETOOBIG : sl_b64url_decode(out, sl_buf_view(&url));
    sl_buf_fini(&url);
    return err;
}

void sl_hex(char *out, const unsigned char *in, size_t n)
{
    static const char digit[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digit[in[i] >> 4];
        out[2 * i + 1] = digit[in[i] & 15];
    }
    out[2 * n] = '\0';
}

/* OWASP Password Storage Cheat Sheet: Argon2id with 19 MiB, two passes, one lane. */
#define ARGON_KIB       (19u * 1024)
#define ARGON_PASSES    2u
#define ARGON_LANES     1u
#define PASSWORD_MAX    1024         /* bytes; a longer one is an attack on our time */
#define ARGON_KIB_LIMIT (256 * 1024) /* of a stored hash: more would be a hash made to exhaust us */

sl_err sl_password_hash(struct sl_str password, char out[128])
{
    if (password.len > PASSWORD_MAX)
        return SL_ETOOBIG;
    unsigned char salt[16];
    sl_random_bytes(salt, sizeof salt);
    int rc = argon2id_hash_encoded(ARGON_PASSES, ARGON_KIB, ARGON_LANES, password.ptr, password.len, salt,
                                   sizeof salt, 32, out, 128);
    if (rc == ARGON2_MEMORY_ALLOCATION_ERROR)
        return SL_EAGAIN;
    return rc == ARGON2_OK ? SL_OK : SL_EINTERNAL;
}

bool sl_password_verify(const char *phc, struct sl_str password)
{
    unsigned version, kib, passes, lanes;
    if (password.len > PASSWORD_MAX || strlen(phc) > 256)
        return false;
    if (sscanf(phc, "$argon2id$v=%9u$m=%9u,t=%9u,p=%9u$", &version, &kib, &passes, &lanes) != 4)
        return false;
    if (kib > ARGON_KIB_LIMIT || passes > 16 || lanes > 8)
        return false;
    return argon2id_verify(phc, password.ptr, password.len) == ARGON2_OK;
}
