#include "channels/webchat/webchat_wire.h"

#include "base/crypto.h"
#include "proto/keys.h"

#define TOKEN_VERSION "v1."
#define CLOCK_SKEW_S  86400

/* The inbox is signed too, so that a token of one inbox is worth nothing at another with the same secret. */
static void sign(struct sl_buf *out, struct sl_str secret, struct sl_str inbox, struct sl_str signed_part)
{
    unsigned char mac[32];
    struct sl_buf text;
    sl_buf_init(&text, 0);
    sl_buf_str(&text, inbox);
    sl_buf_char(&text, '\n');
    sl_buf_str(&text, signed_part);
    sl_hmac_sha256(secret, sl_buf_view(&text), mac);
    sl_b64url(out, sl_str_n((const char *)mac, sizeof mac));
    sl_buf_fini(&text);
}

void webchat_token_write(struct sl_buf *out, struct sl_str secret, struct sl_str inbox, struct sl_str address,
                         int64_t issued_unix_s)
{
    size_t start = out->len;
    sl_buf_c(out, TOKEN_VERSION);
    sl_buf_str(out, address);
    sl_buf_char(out, '.');
    sl_buf_int(out, issued_unix_s);
    struct sl_buf mac;
    sl_buf_init(&mac, 64);
    sign(&mac, secret, inbox, sl_str_n(out->ptr + start, out->len - start));
    sl_buf_char(out, '.');
    sl_buf_str(out, sl_buf_view(&mac));
    sl_buf_fini(&mac);
}

/* Cut the part behind the last dot off *rest. */
static bool cut_last(struct sl_str *rest, struct sl_str *last)
{
    const char *dot = rest->len > 0 ? memrchr(rest->ptr, '.', rest->len) : NULL;
    if (dot == NULL)
        return false;
    size_t at = (size_t)(dot - rest->ptr);
    *last = sl_str_n(dot + 1, rest->len - at - 1);
    *rest = sl_str_n(rest->ptr, at);
    return true;
}

static bool is_signed(struct sl_str secret, struct sl_str inbox, struct sl_str signed_part, struct sl_str mac)
{
    struct sl_buf expected;
    sl_buf_init(&expected, 64);
    sign(&expected, secret, inbox, signed_part);
    bool is_equal = sl_secret_eq(mac, sl_buf_view(&expected));
    sl_buf_fini(&expected);
    return is_equal;
}

sl_err webchat_token_read(struct sl_str token, struct sl_str secret, struct sl_str inbox, int64_t now_unix_ms,
                          struct sl_str *address, struct sl_fail *why)
{
    struct sl_str rest = token, mac, issued;
    int64_t issued_unix_s;
    if (token.len > WEBCHAT_TOKEN_MAX_BYTES || !cut_last(&rest, &mac))
        return sl_fail_set(why, SL_EAUTH, 0, "token is malformed");
    if (!is_signed(secret, inbox, rest, mac))
        return sl_fail_set(why, SL_EAUTH, 0, "token is not one of this inbox");
    if (!cut_last(&rest, &issued) || sl_str_int(issued, &issued_unix_s) != SL_OK ||
        !sl_str_starts(rest, TOKEN_VERSION))
        return sl_fail_set(why, SL_EAUTH, 0, "token is malformed");
    int64_t now_unix_s = now_unix_ms / 1000;
    if (issued_unix_s > now_unix_s + CLOCK_SKEW_S ||
        issued_unix_s < now_unix_s - WEBCHAT_TOKEN_AGE_MAX_MS / 1000)
        return sl_fail_set(why, SL_EAUTH, 0, "token is too old");
    struct sl_str found = sl_str_n(rest.ptr + strlen(TOKEN_VERSION), rest.len - strlen(TOKEN_VERSION));
    if (!key_part_ok(found))
        return sl_fail_set(why, SL_EAUTH, 0, "token is malformed");
    *address = found;
    return SL_OK;
}

bool webchat_origin_listed(struct sl_str origin, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (sl_str_eq_c(origin, list[i]))
            return true;
    return false;
}
