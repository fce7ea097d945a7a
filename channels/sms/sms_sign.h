/* channels/sms/sms_sign.h - how SMS providers sign: what they send us, and what we send them.
 *
 * What     pure: bytes in, a signature out; no clock, no random numbers. Parameters are raw (not percent-encoded) unless said.
 * Source   Twilio: twilio.com/docs/usage/security; Aliyun ACS3: help.aliyun.com "V3 request structure and signature"; Aliyun RPC v1:
 *          help.aliyun.com "RPC signature"; Tencent TC3: cloud.tencent.com/document/api/382/52072. Each checked against the vendor's
 *          own package (tests/vectors/signatures.json).
 */
#ifndef CHANNELS_SMS_SMS_SIGN_H
#define CHANNELS_SMS_SMS_SIGN_H

#include "base/str.h"

#define SMS_PARAMS_MAX 256
struct sms_param {
    struct sl_str name, value;
};

/* Read application/x-www-form-urlencoded text. The values stand in *bytes. ETOOBIG: over SMS_PARAMS_MAX; EINVAL: a broken %xx,
 * or bytes that are no UTF-8. */
sl_err sms_form_read(struct sl_str form, struct sl_buf *bytes, struct sms_param *out,
                     size_t *count) SL_MUST_CHECK;
/* name=value&..., space as +. */
void sms_form_add(struct sl_buf *out, const char *name, struct sl_str value);
void sms_percent(struct sl_buf *out, struct sl_str raw); /* RFC 3986 2.3: all but unreserved */

/* Sort by name and value, bytewise; in place. */
void sms_params_sort(struct sms_param *p, size_t count);

/* Base64 of HMAC-SHA1 over url and the sorted parameters; p is sorted in place. */
void sms_sign_twilio(struct sl_str token, struct sl_str url, struct sms_param *p, size_t count,
                     struct sl_buf *out);
/* Is this Twilio's signature of this request, with or without the default port in the URL? form NULL: a JSON body, whose hash
 * stands in the URL as bodySHA256. */
struct sms_twilio_request {
    struct sl_str url, body, signature;
    bool is_form;
};
bool sms_twilio_ok(struct sl_str token, const struct sms_twilio_request *rq);

/* Aliyun's Authorization header. headers: those that are signed, lower case names (host, content-type, x-acs-*). */
struct sms_acs3 {
    struct sl_str key_id, secret, method, path;
    struct sms_param *query, *headers; /* sorted in place */
    size_t query_count, header_count;
    struct sl_str body;
};
void sms_sign_acs3(const struct sms_acs3 *rq, struct sl_buf *out);
/* Aliyun's Signature parameter of the older interface. */
void sms_sign_rpc(struct sl_str secret, struct sl_str method, struct sms_param *p, size_t count,
                  struct sl_buf *out);
/* Tencent's Authorization header of a POST to /. */
struct sms_tc3 {
    struct sl_str id, key, service, host, content_type, body;
    int64_t unix_s;
};
void sms_sign_tc3(const struct sms_tc3 *rq, struct sl_buf *out);

#endif
