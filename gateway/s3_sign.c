/* gateway/s3_sign.c - see s3_sign.h: canonical request, string to sign, derived key, signature. */
#include "gateway/s3_sign.h"

#include "base/crypto.h"

#include <time.h>

static void add_names(struct sl_buf *out, const struct gw_s3_request *rq)
{
    for (size_t i = 0; i < rq->headers; i++) {
        if (i > 0)
            sl_buf_char(out, ';');
        sl_buf_c(out, rq->header[i].name);
    }
}

static void hash_hex(struct sl_str s, char out[65])
{
    unsigned char hash[32];
    sl_sha256(s, hash);
    sl_hex(out, hash, sizeof hash);
}

static void hash_request(const struct gw_s3_request *rq, char out[65])
{
    struct sl_buf b;
    sl_buf_init(&b, 0);
    sl_buf_printf(&b, "%s\n%s\n%s\n", rq->method, rq->path, rq->query);
    for (size_t i = 0; i < rq->headers; i++) {
        sl_assert(i == 0 || strcmp(rq->header[i - 1].name, rq->header[i].name) < 0);
        sl_buf_printf(&b, "%s:%s\n", rq->header[i].name, rq->header[i].value);
    }
    sl_buf_char(&b, '\n');
    add_names(&b, rq);
    sl_buf_printf(&b, "\n%s", rq->payload_sha256);
    hash_hex(sl_buf_view(&b), out);
    sl_buf_fini(&b);
}

static void derive(unsigned char key[32], const char *text)
{
    unsigned char next[32];
    sl_hmac_sha256(sl_str_n((const char *)key, 32), sl_str_c(text), next);
    memcpy(key, next, 32);
}

static void signing_key(const struct gw_s3_request *rq, const char *day, unsigned char key[32])
{
    struct sl_buf first;
    sl_buf_init(&first, 0);
    sl_buf_printf(&first, "AWS4%s", rq->secret_key);
    sl_hmac_sha256(sl_buf_view(&first), sl_str_c(day), key);
    sl_buf_fini(&first);
    derive(key, rq->region);
    derive(key, "s3");
    derive(key, "aws4_request");
}

void gw_s3_sign(const struct gw_s3_request *rq, struct sl_buf *out)
{
    char hash[65], signature[65], day[9];
    unsigned char key[32], mac[32];
    struct sl_buf text;
    sl_assert(strlen(rq->date) == GW_S3_DATE_BYTES - 1);
    memcpy(day, rq->date, 8);
    day[8] = '\0';
    hash_request(rq, hash);
    sl_buf_init(&text, 0);
    sl_buf_printf(&text, "AWS4-HMAC-SHA256\n%s\n%s/%s/s3/aws4_request\n%s", rq->date, day, rq->region, hash);
    signing_key(rq, day, key);
    sl_hmac_sha256(sl_str_n((const char *)key, sizeof key), sl_buf_view(&text), mac);
    sl_hex(signature, mac, sizeof mac);
    sl_buf_fini(&text);
    sl_buf_printf(out, "AWS4-HMAC-SHA256 Credential=%s/%s/%s/s3/aws4_request,SignedHeaders=", rq->access_key,
                  day, rq->region);
    add_names(out, rq);
    sl_buf_printf(out, ",Signature=%s", signature);
}

void gw_s3_date(int64_t unix_ms, char out[GW_S3_DATE_BYTES])
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm tm;
    sl_assert(gmtime_r(&seconds, &tm) != NULL);
    sl_assert(strftime(out, GW_S3_DATE_BYTES, "%Y%m%dT%H%M%SZ", &tm) == GW_S3_DATE_BYTES - 1);
}
