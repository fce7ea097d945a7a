/* base/crypto.h - what we need of OpenSSL 3 and libargon2, in a few calls. */
#ifndef BASE_CRYPTO_H
#define BASE_CRYPTO_H

#include "base/str.h"

void sl_sha256(struct sl_str in, unsigned char out[32]);
void sl_hmac_sha256(struct sl_str key, struct sl_str in, unsigned char out[32]);
/* SHA-1 is broken as a digest of documents; providers' signatures still use it as HMAC or over a shared token. */
void sl_sha1(struct sl_str in, unsigned char out[20]);
void sl_hmac_sha1(struct sl_str key, struct sl_str in, unsigned char out[20]);
bool sl_secret_eq(struct sl_str a, struct sl_str b);  /* constant time in the bytes */
void sl_b64url(struct sl_buf *out, struct sl_str in); /* RFC 4648 5, no padding */
sl_err sl_b64url_decode(struct sl_buf *out, struct sl_str in) SL_MUST_CHECK;
void sl_b64(struct sl_buf *out, struct sl_str in); /* RFC 4648 4, padded */
sl_err sl_b64_decode(struct sl_buf *out,
                     struct sl_str in) SL_MUST_CHECK;      /* padding may be missing, not wrong */
void sl_hex(char *out, const unsigned char *in, size_t n); /* 2n + 1 bytes */
/* Argon2id, 19 MiB, t=2, p=1 (OWASP Password Storage Cheat Sheet), PHC string. Slow by design: thread pool only. */
sl_err sl_password_hash(struct sl_str password, char out[128]) SL_MUST_CHECK;
bool sl_password_verify(const char *phc, struct sl_str password);

#endif
