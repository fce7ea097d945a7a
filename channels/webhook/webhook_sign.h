/* channels/webhook/webhook_sign.h - is this request from who it says, and fresh? For any scheme, by a rule that is data.
 *
 * What     pure: no clock, no I/O. The signature is computed over the raw bytes that came, never over JSON written again.
 * Rule     base is a template (webhook_template.h) of method, url, path, query, body, ts, nonce, id, token, key, form (names and
 *          values of a form, sorted, nothing between them), and sorted(a,b,..): those values in bytewise order, nothing between.
 * Secrets  several may be active at once (rotation). Comparing takes the same time whatever differs.
 * Source   the schemes' own documents are named in deploy/webhooks/<scheme>.yaml; tests/vectors/signatures.json
 */
#ifndef CHANNELS_WEBHOOK_WEBHOOK_SIGN_H
#define CHANNELS_WEBHOOK_WEBHOOK_SIGN_H

#include "base/str.h"

enum webhook_place { WEBHOOK_NOWHERE, WEBHOOK_HEADER, WEBHOOK_QUERY };
enum webhook_digest { WEBHOOK_EQUAL, WEBHOOK_SHA1, WEBHOOK_SHA256, WEBHOOK_HMAC_SHA1, WEBHOOK_HMAC_SHA256 };
enum webhook_output { WEBHOOK_HEX, WEBHOOK_BASE64 };

struct webhook_rule {
    enum webhook_place place; /* of the signature; NOWHERE: the scheme has none */
    const char *name;         /* header in lower case, or parameter */
    const char *prefix;       /* to strip: "v0=", "sha256="; pieces without it do not count */
    const char *separator;    /* between several signatures; empty: there is one */
    const char *base;
    enum webhook_digest digest; /* EQUAL: the base itself is the signature */
    enum webhook_output output;
    bool is_key_base64;
    const char *key_prefix; /* stripped from the secret before it is decoded: "whsec_" */
    bool is_ts_ms;          /* unit of ts: ms, or s */
    int64_t skew_ms;        /* ts may differ from our clock by this; 0: not looked at */
};

struct webhook_parts { /* of one request; empty when absent */
    struct sl_str method, url, path, query, body;
    struct sl_str signature, ts, nonce, id; /* as found at their places */
    struct sl_str token;                    /* the inbox's verify_token */
};

#define WEBHOOK_SECRETS_MAX 4
/* SL_OK; EAUTH: no or a wrong signature; EDENIED: right, but stale (or ts is no time). */
sl_err webhook_verify(const struct webhook_rule *rule, const struct webhook_parts *parts,
                      const struct sl_str *secrets, size_t secret_count, int64_t now_unix_ms,
                      struct sl_fail *why) SL_MUST_CHECK;
/* The signature as this rule wants it, with prefix. EINVAL: the secret cannot be decoded, the base names something unknown. */
sl_err webhook_signature(const struct webhook_rule *rule, const struct webhook_parts *parts,
                         struct sl_str secret, struct sl_buf *out) SL_MUST_CHECK;

/* Feishu's encrypted body: base64 of IV and AES-256-CBC (PKCS7, 16), key = SHA-256 of encrypt_key. Appends the plain text.
 * EAUTH: whatever is wrong, one answer. Source: open.feishu.cn "event encryption", and the vendor's Node SDK 1.74.0. */
sl_err webhook_feishu_decrypt(struct sl_str encrypt_key, struct sl_str base64,
                              struct sl_buf *plain) SL_MUST_CHECK;

/* One parameter of a query string; empty when absent. The gateway's front has decoded %xx before. */
struct sl_str webhook_query_get(struct sl_str query, const char *name);

#endif
