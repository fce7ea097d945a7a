/* gateway/s3_sign.h - AWS Signature Version 4 for S3, in one header. Pure: no clock, no I/O.
 *
 * Source   "Signature Calculations for the Authorization Header: Transferring Payload in a Single Chunk (AWS Signature
 *          Version 4)", Amazon S3 API Reference; its worked examples are the unit test's vectors.
 */
#ifndef GATEWAY_S3_SIGN_H
#define GATEWAY_S3_SIGN_H

#include "base/str.h"

#define GW_S3_HEADERS_MAX 16
#define GW_S3_DATE_BYTES  17 /* "20130524T000000Z" */

struct gw_s3_header {
    const char *name, *value; /* name in lower case; value without blanks around it */
};
struct gw_s3_request {
    const char *method;
    const char *path;  /* as sent: each byte but [A-Za-z0-9-._~/] as %XX */
    const char *query; /* canonical: names sorted, "name=value&..."; "" for none */
    struct gw_s3_header
        header[GW_S3_HEADERS_MAX]; /* sorted by name; host, x-amz-content-sha256 and x-amz-date among them */
    size_t headers;
    const char *payload_sha256; /* hex */
    const char *date;           /* as in x-amz-date */
    const char *region, *access_key, *secret_key;
};
/* The value of Authorization. */
void gw_s3_sign(const struct gw_s3_request *rq, struct sl_buf *out);
void gw_s3_date(int64_t unix_ms, char out[GW_S3_DATE_BYTES]);

#endif
