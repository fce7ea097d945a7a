/* channels/webhook/webhook_sign.c - signatures by rule. */
#include "channels/webhook/webhook_sign.h"

#include "base/crypto.h"
#include "channels/sms/sms_sign.h"
#include "channels/webhook/webhook_template.h"

#include <openssl/evp.h>

struct base {
    const struct webhook_parts *parts;
    struct sl_str key;
};

static bool find_part(const struct base *b, struct sl_str name, struct sl_str *out)
{
    const struct {
        const char *name;
        struct sl_str value;
    } all[] = {{"method", b->parts->method}, {"url", b->parts->url},
               {"path", b->parts->path},     {"query", b->parts->query},
               {"body", b->parts->body},     {"ts", b->parts->ts},
               {"nonce", b->parts->nonce},   {"id", b->parts->id},
               {"token", b->parts->token},   {"key", b->key}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (!sl_str_eq_c(name, all[i].name))
            continue;
        *out = all[i].value;
        return true;
    }
    return false;
}

#define SORTED_MAX 8
static void put_sorted(struct sl_str *all, size_t count, struct sl_str v)
{
    size_t at = count;
    for (; at > 0; at--) {
        size_t n = all[at - 1].len < v.len ? all[at - 1].len : v.len;
        int c = n > 0 ? memcmp(all[at - 1].ptr, v.ptr, n) : 0;
        if (c < 0 || (c == 0 && all[at - 1].len <= v.len))
            break;
        all[at] = all[at - 1];
    }
    all[at] = v;
}

/* names: "token,ts,nonce" */
static bool add_sorted(const struct base *b, struct sl_str names, struct sl_buf *out)
{
    struct sl_str all[SORTED_MAX + 1];
    size_t count = 0;
    while (names.len > 0) {
        const char *comma = memchr(names.ptr, ',', names.len);
        struct sl_str name = sl_str_n(names.ptr, comma != NULL ? (size_t)(comma - names.ptr) : names.len),
                      value;
        names = comma != NULL ? sl_str_n(comma + 1, names.len - name.len - 1) : SL_STR_NONE;
        if (count == SORTED_MAX || !find_part(b, name, &value))
            return false;
        put_sorted(all, count++, value);
    }
    for (size_t i = 0; i < count; i++)
        sl_buf_str(out, all[i]);
    return count > 0;
}

static bool add_form(const struct base *b, struct sl_buf *out)
{
    struct sms_param p[SMS_PARAMS_MAX];
    struct sl_buf bytes;
    size_t count = 0;
    sl_buf_init(&bytes, 0);
    bool is_ok = sms_form_read(b->parts->body, &bytes, p, &count) == SL_OK;
    sms_params_sort(p, is_ok ? count : 0);
    for (size_t i = 0; is_ok && i < count; i++) {
        sl_buf_str(out, p[i].name);
        sl_buf_str(out, p[i].value);
    }
    sl_buf_fini(&bytes);
    return is_ok;
}

static bool base_lookup(void *arg, struct sl_str name, struct sl_buf *out)
{
    const struct base *b = arg;
    struct sl_str value;
    static const char sorted[] = "sorted(";
    if (sl_str_starts(name, sorted) && name.ptr[name.len - 1] == ')')
        return add_sorted(b, sl_str_n(name.ptr + sizeof sorted - 1, name.len - sizeof sorted), out);
    if (sl_str_eq_c(name, "form"))
        return add_form(b, out);
    if (!find_part(b, name, &value))
        return false;
    sl_buf_str(out, value);
    return true;
}

/* The bytes the secret stands for. */
static sl_err read_key(const struct webhook_rule *rule, struct sl_str secret, struct sl_buf *out)
{
    size_t n = strlen(rule->key_prefix);
    if (n > 0 && sl_str_starts(secret, rule->key_prefix))
        secret = sl_str_n(secret.ptr + n, secret.len - n);
    if (rule->is_key_base64)
        return sl_b64_decode(out, secret);
    sl_buf_str(out, secret);
    return SL_OK;
}

static void add_output(struct sl_buf *out, const unsigned char *digest, size_t n, enum webhook_output output)
{
    char hex[65];
    if (output == WEBHOOK_BASE64) {
        sl_b64(out, sl_str_n((const char *)digest, n));
        return;
    }
    sl_hex(hex, digest, n);
    sl_buf_c(out, hex);
}

static void add_digest(const struct webhook_rule *rule, struct sl_str key, struct sl_str base,
                       struct sl_buf *out)
{
    unsigned char digest[32];
    switch (rule->digest) {
    case WEBHOOK_EQUAL:
        sl_buf_str(out, base);
        return;
    case WEBHOOK_SHA1:
        sl_sha1(base, digest);
        add_output(out, digest, 20, rule->output);
        return;
    case WEBHOOK_SHA256:
        sl_sha256(base, digest);
        add_output(out, digest, 32, rule->output);
        return;
    case WEBHOOK_HMAC_SHA1:
        sl_hmac_sha1(key, base, digest);
        add_output(out, digest, 20, rule->output);
        return;
    case WEBHOOK_HMAC_SHA256:
        sl_hmac_sha256(key, base, digest);
        add_output(out, digest, 32, rule->output);
        return;
    }
}

sl_err webhook_signature(const struct webhook_rule *rule, const struct webhook_parts *parts,
                         struct sl_str secret, struct sl_buf *out)
{
    struct sl_buf key, text;
    sl_buf_init(&key, 0);
    sl_buf_init(&text, 0);
    sl_err err = read_key(rule, secret, &key);
    if (err == SL_OK) {
        struct base b = {.parts = parts, .key = sl_buf_view(&key)};
        err = webhook_expand(sl_str_c(rule->base), WEBHOOK_RAW, base_lookup, &b, &text, NULL);
    }
    if (err == SL_OK) {
        sl_buf_c(out, rule->prefix);
        add_digest(rule, sl_buf_view(&key), sl_buf_view(&text), out);
    }
    sl_buf_fini(&key);
    sl_buf_fini(&text);
    return err;
}

#define PIECES_MAX 16 /* signatures in one header */
static bool is_among(const struct webhook_rule *rule, struct sl_str given, struct sl_str want)
{
    bool is_found = false;
    size_t step = strlen(rule->separator);
    for (size_t i = 0; i < PIECES_MAX && given.len > 0; i++) {
        size_t at = given.len;
        if (step > 0)
            (void)sl_str_find(given, sl_str_c(rule->separator), &at);
        is_found |= sl_secret_eq(sl_str_n(given.ptr, at), want);
        size_t used = at + step < given.len ? at + step : given.len;
        given = sl_str_n(given.ptr + used, given.len - used);
    }
    return is_found;
}

static sl_err check_fresh(const struct webhook_rule *rule, struct sl_str ts, int64_t now_unix_ms,
                          struct sl_fail *why)
{
    int64_t at;
    if (rule->skew_ms == 0)
        return SL_OK;
    if (sl_str_int(ts, &at) != SL_OK || at < 0 || at > INT64_MAX / 1000)
        return sl_fail_set(why, SL_EDENIED, 0, "the timestamp is missing or is no number");
    if (!rule->is_ts_ms)
        at *= 1000;
    int64_t distance = at > now_unix_ms ? at - now_unix_ms : now_unix_ms - at;
    if (distance > rule->skew_ms)
        return sl_fail_set(why, SL_EDENIED, 0, "the timestamp is %lld s away from our clock",
                           (long long)(distance / 1000));
    return SL_OK;
}

sl_err webhook_verify(const struct webhook_rule *rule, const struct webhook_parts *parts,
                      const struct sl_str *secrets, size_t secret_count, int64_t now_unix_ms,
                      struct sl_fail *why)
{
    bool is_right = false;
    if (rule->place == WEBHOOK_NOWHERE)
        return SL_OK;
    if (parts->signature.len == 0)
        return sl_fail_set(why, SL_EAUTH, 0, "the signature is missing");
    for (size_t i = 0; i < secret_count; i++) {
        struct sl_buf want;
        sl_buf_init(&want, 0);
        if (secrets[i].len > 0 && webhook_signature(rule, parts, secrets[i], &want) == SL_OK)
            is_right |= is_among(rule, parts->signature, sl_buf_view(&want));
        sl_buf_fini(&want);
    }
    if (!is_right)
        return sl_fail_set(why, SL_EAUTH, 0, "the signature is wrong");
    return check_fresh(rule, parts->ts, now_unix_ms, why);
}

struct sl_str webhook_query_get(struct sl_str query, const char *name)
{
    size_t n = strlen(name);
    while (query.len > 0) {
        const char *amp = memchr(query.ptr, '&', query.len);
        struct sl_str piece = sl_str_n(query.ptr, amp != NULL ? (size_t)(amp - query.ptr) : query.len);
        query = amp != NULL ? sl_str_n(amp + 1, query.len - piece.len - 1) : SL_STR_NONE;
        if (piece.len > n && piece.ptr[n] == '=' && memcmp(piece.ptr, name, n) == 0)
            return sl_str_n(piece.ptr + n + 1, piece.len - n - 1);
    }
    return SL_STR_NONE;
}

/* ---- Feishu's encrypted body ---- */

/* PKCS7 to 16, looked at by ourselves: one answer for every fault. */
static bool unpad(struct sl_str plain, size_t *len)
{
    unsigned pad = plain.len > 0 ? (unsigned char)plain.ptr[plain.len - 1] : 0;
    if (pad < 1 || pad > 16 || pad > plain.len)
        return false;
    unsigned wrong = 0;
    for (size_t i = plain.len - pad; i < plain.len; i++)
        wrong |= (unsigned char)plain.ptr[i] ^ pad;
    *len = plain.len - pad;
    return wrong == 0;
}

static bool decrypt_into(struct sl_str key, struct sl_str iv_and_cipher, struct sl_buf *plain)
{
    unsigned char key_bytes[32];
    int n = 0, more = 0;
    size_t cipher_len = iv_and_cipher.len - 16;
    sl_sha256(key, key_bytes);
    char *room = sl_buf_room(plain, cipher_len + 16);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    sl_assert(ctx != NULL);
    bool is_ok = room != NULL &&
                 EVP_DecryptInit_ex(ctx, EVP_aes_256_cbc(), NULL, key_bytes,
                                    (const unsigned char *)iv_and_cipher.ptr) == 1 &&
                 EVP_CIPHER_CTX_set_padding(ctx, 0) == 1 &&
                 EVP_DecryptUpdate(ctx, (unsigned char *)room, &n,
                                   (const unsigned char *)iv_and_cipher.ptr + 16, (int)cipher_len) == 1 &&
                 EVP_DecryptFinal_ex(ctx, (unsigned char *)room + n, &more) == 1;
    EVP_CIPHER_CTX_free(ctx);
    size_t len = 0;
    is_ok = is_ok && unpad(sl_str_n(room, (size_t)(n + more)), &len);
    plain->len += is_ok ? len : 0;
    return is_ok;
}

#define CIPHER_MAX (1u << 20)
sl_err webhook_feishu_decrypt(struct sl_str encrypt_key, struct sl_str base64, struct sl_buf *plain)
{
    struct sl_buf raw;
    sl_buf_init(&raw, CIPHER_MAX);
    sl_err err = sl_b64_decode(&raw, base64);
    if (err != SL_OK || raw.len < 32 || raw.len % 16 != 0 ||
        !decrypt_into(encrypt_key, sl_buf_view(&raw), plain))
        err = SL_EAUTH;
    sl_buf_fini(&raw);
    return err;
}
