#include "channels/wechat/wechat_crypt.h"

#include "base/crypto.h"

#include <openssl/evp.h>

#include <limits.h>

#define BLOCK      32 /* PKCS#7 pads to this, not to the 16 of AES: OpenSSL's own check would refuse 17..32 */
#define AES_BLOCK  16
#define HEAD       (WECHAT_RANDOM_BYTES + 4)
#define SIGN_PARTS 4
#define CIPHER_MAX (1u << 20)

/* ---- base64 with + and / (RFC 4648 4) ---- */

static int b64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Whole groups of four, "=" only at the end. Bits left over are ignored: an EncodingAESKey has them set. */
static bool b64_decode(struct sl_buf *out, struct sl_str in)
{
    size_t padding = 0;
    if (in.len == 0 || in.len % 4 != 0)
        return false;
    while (padding < 2 && in.ptr[in.len - 1 - padding] == '=')
        padding++;
    for (size_t i = 0; i < in.len; i += 4) {
        bool is_last = i + 4 == in.len;
        uint32_t bits = 0;
        for (size_t k = 0; k < 4; k++) {
            int v = is_last && k >= 4 - padding ? 0 : b64_value(in.ptr[i + k]);
            if (v < 0)
                return false;
            bits = bits << 6 | (uint32_t)v;
        }
        const char three[3] = {(char)(bits >> 16 & 255), (char)(bits >> 8 & 255), (char)(bits & 255)};
        sl_buf_add(out, three, is_last ? 3 - padding : 3);
    }
    return !out->overflow;
}

static void b64_encode(struct sl_buf *out, const unsigned char *in, size_t len)
{
    sl_assert(len <= INT_MAX / 2);
    size_t size = (len + 2) / 3 * 4;
    char *room = sl_buf_room(out, size + 1);
    if (room == NULL)
        return;
    sl_assert(EVP_EncodeBlock((unsigned char *)room, in, (int)len) == (int)size);
    out->len += size;
}

/* ---- keys and signatures ---- */

sl_err wechat_key_read(struct sl_str chars, struct wechat_key *out, struct sl_fail *why)
{
    struct sl_buf text, key;
    sl_buf_init(&text, 64);
    sl_buf_init(&key, 64);
    sl_buf_str(&text, chars);
    sl_buf_char(&text, '=');
    bool is_key = chars.len == WECHAT_AES_KEY_CHARS && b64_decode(&key, sl_buf_view(&text)) && key.len == 32;
    if (is_key)
        memcpy(out->aes, key.ptr, 32);
    sl_buf_fini(&key);
    sl_buf_fini(&text);
    return is_key ? SL_OK
                  : sl_fail_set(why, SL_EINVAL, 0, "an EncodingAESKey is %d letters and digits",
                                WECHAT_AES_KEY_CHARS);
}

static int by_bytes(struct sl_str a, struct sl_str b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int order = n > 0 ? memcmp(a.ptr, b.ptr, n) : 0;
    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

void wechat_sign(const struct sl_str *parts, size_t count, char out[WECHAT_SIGNATURE_LEN + 1])
{
    struct sl_str sorted[SIGN_PARTS];
    sl_assert(count <= SIGN_PARTS);
    for (size_t i = 0; i < count; i++) {
        size_t at = i;
        for (; at > 0 && by_bytes(sorted[at - 1], parts[i]) > 0; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = parts[i];
    }
    unsigned char digest[20];
    unsigned int n = 0;
    struct sl_buf joined;
    sl_buf_init(&joined, 0);
    for (size_t i = 0; i < count; i++)
        sl_buf_str(&joined, sorted[i]);
    struct sl_str text = sl_buf_view(&joined);
    sl_assert(EVP_Digest(text.ptr, text.len, digest, &n, EVP_sha1(), NULL) == 1 && n == sizeof digest);
    sl_buf_fini(&joined);
    sl_hex(out, digest, sizeof digest);
}

bool wechat_is_signed(const struct sl_str *parts, size_t count, struct sl_str signature)
{
    char expected[WECHAT_SIGNATURE_LEN + 1];
    wechat_sign(parts, count, expected);
    return sl_secret_eq(signature, sl_str_n(expected, WECHAT_SIGNATURE_LEN));
}

/* ---- the cipher ---- */

/* Whole blocks, no padding of OpenSSL's. in and out may be the same. */
static bool aes_cbc(const struct wechat_key *key, bool is_encrypting, const unsigned char *in, size_t len,
                    unsigned char *out)
{
    int n = 0, rest = 0;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    sl_assert(ctx != NULL && len <= INT_MAX);
    bool is_done = EVP_CipherInit_ex(ctx, EVP_aes_256_cbc(), NULL, key->aes, key->aes, is_encrypting) == 1 &&
                   EVP_CIPHER_CTX_set_padding(ctx, 0) == 1 &&
                   EVP_CipherUpdate(ctx, out, &n, in, (int)len) == 1 &&
                   EVP_CipherFinal_ex(ctx, out + n, &rest) == 1 && (size_t)n + (size_t)rest == len;
    EVP_CIPHER_CTX_free(ctx);
    return is_done;
}

/* All padding bytes must say the same number: senders pad rightly, so being strict costs nothing. */
static bool unpad(const unsigned char *p, size_t *len)
{
    size_t pad = p[*len - 1];
    if (pad < 1 || pad > BLOCK || pad > *len)
        return false;
    for (size_t i = *len - pad; i < *len; i++)
        if (p[i] != pad)
            return false;
    *len -= pad;
    return true;
}

static bool split(const struct sl_buf *plain, size_t len, struct sl_str receive_id, struct sl_str *message)
{
    const unsigned char *p = (const unsigned char *)plain->ptr + WECHAT_RANDOM_BYTES;
    if (len < HEAD)
        return false;
    size_t size = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
    if (size > len - HEAD)
        return false;
    *message = sl_str_n(plain->ptr + HEAD, size);
    return sl_secret_eq(sl_str_n(plain->ptr + HEAD + size, len - HEAD - size), receive_id);
}

static bool decrypt(const struct wechat_key *key, struct sl_str base64, struct sl_str receive_id,
                    struct sl_buf *plain, struct sl_str *message)
{
    sl_buf_clear(plain);
    if (base64.len > CIPHER_MAX || !b64_decode(plain, base64) || plain->len == 0 ||
        plain->len % AES_BLOCK != 0)
        return false;
    unsigned char *bytes = (unsigned char *)plain->ptr;
    size_t len = plain->len;
    return aes_cbc(key, false, bytes, len, bytes) && unpad(bytes, &len) &&
           split(plain, len, receive_id, message);
}

sl_err wechat_decrypt(const struct wechat_key *key, struct sl_str base64, struct sl_str receive_id,
                      struct sl_buf *plain, struct sl_str *message)
{
    struct sl_str found = SL_STR_NONE;
    if (!decrypt(key, base64, receive_id, plain, &found))
        return SL_EAUTH;
    *message = found;
    return SL_OK;
}

sl_err wechat_open_envelope(const struct wechat_key *key, const struct wechat_envelope *e,
                            struct sl_str receive_id, struct sl_buf *plain, struct sl_str *message,
                            struct sl_fail *why)
{
    const struct sl_str parts[] = {e->token, e->timestamp, e->nonce, e->encrypt};
    if (wechat_is_signed(parts, 4, e->signature) &&
        wechat_decrypt(key, e->encrypt, receive_id, plain, message) == SL_OK)
        return SL_OK;
    return sl_fail_set(why, SL_EAUTH, 0, "not signed and encrypted for this account");
}

void wechat_encrypt(const struct wechat_key *key, const unsigned char random[WECHAT_RANDOM_BYTES],
                    struct sl_str message, struct sl_str receive_id, struct sl_buf *base64)
{
    struct sl_buf plain;
    sl_assert(message.len <= UINT32_MAX);
    const char size[4] = {(char)(message.len >> 24 & 255), (char)(message.len >> 16 & 255),
                          (char)(message.len >> 8 & 255), (char)(message.len & 255)};
    sl_buf_init(&plain, 0);
    sl_buf_add(&plain, random, WECHAT_RANDOM_BYTES);
    sl_buf_add(&plain, size, sizeof size);
    sl_buf_str(&plain, message);
    sl_buf_str(&plain, receive_id);
    size_t pad = BLOCK - plain.len % BLOCK;
    for (size_t i = 0; i < pad; i++)
        sl_buf_char(&plain, (char)pad);
    sl_assert(!plain.overflow); /* what we send is short */
    unsigned char *bytes = (unsigned char *)plain.ptr;
    sl_assert(aes_cbc(key, true, bytes, plain.len, bytes));
    b64_encode(base64, bytes, plain.len);
    sl_buf_fini(&plain);
}
