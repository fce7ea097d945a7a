/* channels/wechat/wechat_crypt.h - signatures and the encrypted envelope of WeChat, WeCom and WeChat customer service. Pure.
 *
 * Source   developer.work.weixin.qq.com path 90968 (message encryption), developers.weixin.qq.com doc/offiaccount (safe mode);
 *          checked against the outputs of two packages nobody here wrote: tests/vectors/wechat.json
 * Cipher   key = base64(EncodingAESKey + "=")[0..32), IV = key[0..16), AES-256-CBC over
 *          16 random bytes | length of the message, 4 bytes big-endian | message | receive id | PKCS#7 to a multiple of 32.
 * Note     SHA-1 over strings joined without a separator is no MAC: it is used for nothing else.
 */
#ifndef CHANNELS_WECHAT_WECHAT_CRYPT_H
#define CHANNELS_WECHAT_WECHAT_CRYPT_H

#include "base/str.h"

#define WECHAT_AES_KEY_CHARS 43 /* 258 bits: the last two are not used, and real keys have them set */
#define WECHAT_SIGNATURE_LEN 40
#define WECHAT_RANDOM_BYTES  16

struct wechat_key {
    unsigned char aes[32];
};
/* From the 43 characters that the platform's page shows. EINVAL; the words do not hold the key. */
sl_err wechat_key_read(struct sl_str chars, struct wechat_key *out, struct sl_fail *why) SL_MUST_CHECK;

/* SHA-1 over the strings sorted by their bytes and joined, in lower hex. count <= 4. */
void wechat_sign(const struct sl_str *parts, size_t count, char out[WECHAT_SIGNATURE_LEN + 1]);
bool wechat_is_signed(const struct sl_str *parts, size_t count, struct sl_str signature); /* constant time */

struct wechat_envelope { /* what a request carries around an encrypted message; all borrowed */
    struct sl_str token, timestamp, nonce, signature, encrypt;
};
/* Verify, then decrypt: plain gets the whole plaintext, *message the part of it that is the message. EAUTH with the same words
 * whatever was wrong, so that nobody learns from the answer how far he came. */
sl_err wechat_open_envelope(const struct wechat_key *key, const struct wechat_envelope *e,
                            struct sl_str receive_id, struct sl_buf *plain, struct sl_str *message,
                            struct sl_fail *why) SL_MUST_CHECK;
/* The second half alone: for what was verified before. */
sl_err wechat_decrypt(const struct wechat_key *key, struct sl_str base64, struct sl_str receive_id,
                      struct sl_buf *plain, struct sl_str *message) SL_MUST_CHECK;
/* random: 16 bytes, of sl_random_bytes in all but tests. Appends base64. */
void wechat_encrypt(const struct wechat_key *key, const unsigned char random[WECHAT_RANDOM_BYTES],
                    struct sl_str message, struct sl_str receive_id, struct sl_buf *base64);

#endif
