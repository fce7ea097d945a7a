/* channels/webchat/webchat_wire.h - visitors' tokens and the list of origins: pure. */
#ifndef CHANNELS_WEBCHAT_WEBCHAT_WIRE_H
#define CHANNELS_WEBCHAT_WEBCHAT_WIRE_H

#include "base/str.h"
#include "proto/message.h"

#define WEBCHAT_TOKEN_MAX_BYTES 400
#define WEBCHAT_TOKEN_AGE_MAX_MS                                                                             \
    (INT64_C(400) * 86400000) /* the longest life browsers give a cookie, RFC 6265bis 5.5 */

/* "v1.<address>.<issued, unix s>.<HMAC-SHA256 of what stands before, base64url>" */
void webchat_token_write(struct sl_buf *out, struct sl_str secret, struct sl_str inbox, struct sl_str address,
                         int64_t issued_unix_s);
/* EAUTH: malformed, forged, from the future by more than a day, or too old. address borrows from token. */
sl_err webchat_token_read(struct sl_str token, struct sl_str secret, struct sl_str inbox, int64_t now_unix_ms,
                          struct sl_str *address, struct sl_fail *why) SL_MUST_CHECK;

/* Is it one of the list, compared byte by byte? */
bool webchat_origin_listed(struct sl_str origin, const char *const *list, size_t count);

#endif
