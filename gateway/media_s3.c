/* gateway/media_s3.c - attachments in a bucket of an S3-compatible server: <endpoint>/<bucket>/<id>, requests signed by us.
 *
 * The id is the SHA-256 that the signature covers: what arrives in the bucket is what was hashed. Old objects go by the bucket's
 * own life-cycle rules; nothing is counted here.
 */
#include "gateway/media_priv.h"
#include "gateway/media_type.h"
#include "gateway/s3_sign.h"

#include "base/crypto.h"
#include "base/http_client.h"

#include <stdio.h>
#include <stdlib.h>

#define WHOLE_MS 60000

struct gw_s3 {
    struct sl_loop *loop;
    struct sl_http *http; /* NULL: closing */
    char *endpoint, *host, *region, *bucket, *access_key, *secret_key;
};

struct gw_s3 *gw_s3_open(const struct gw_media_config *cfg, struct sl_fail *why)
{
    const char *host = strstr(cfg->s3_endpoint, "://");
    struct sl_http_options o = {.name = "s3", .max_calls = 2 * GW_MEDIA_JOBS_MAX, .ca_file = cfg->s3_ca_file};
    if (host == NULL || strchr(host + 3, '/') != NULL || cfg->s3_bucket[0] == '\0' ||
        cfg->s3_access_key[0] == '\0' || cfg->s3_secret_key[0] == '\0' || cfg->secret[0] == '\0') {
        (void)sl_fail_set(
            why, SL_EINVAL, 0,
            "media.s3_endpoint: give scheme://host[:port] without a path, and s3_bucket, s3_access_key, "
            "s3_secret_key and media.secret");
        return NULL;
    }
    struct gw_s3 *s = sl_alloc(sizeof *s);
    s->loop = cfg->loop;
    s->http = sl_http_new(cfg->loop, &o);
    s->endpoint = sl_strdup(cfg->s3_endpoint);
    s->host = sl_strdup(host + 3);
    s->region = sl_strdup(cfg->s3_region);
    s->bucket = sl_strdup(cfg->s3_bucket);
    s->access_key = sl_strdup(cfg->s3_access_key);
    s->secret_key = sl_strdup(cfg->s3_secret_key);
    return s;
}

void gw_s3_stop(struct gw_s3 *s)
{
    sl_http_close(&s->http);
}

void gw_s3_free(struct gw_s3 **sp)
{
    struct gw_s3 *s = *sp;
    *sp = NULL;
    if (s == NULL)
        return;
    sl_http_close(&s->http);
    free(s->endpoint);
    free(s->host);
    free(s->region);
    free(s->bucket);
    free(s->access_key);
    free(s->secret_key);
    free(s);
}

static void finish(struct gw_media_job *j, sl_err err, int sys, const char *words)
{
    if (err != SL_OK)
        j->err = sl_fail_set(&j->why, err, sys, "media store %s", words);
    gw_media_job_done(j);
}

static void on_put(void *arg, const struct sl_http_answer *a)
{
    if (a->err != SL_OK)
        finish(arg, a->err, a->why.sys, a->why.text);
    else if (a->status != 200)
        finish(arg, SL_EUPSTREAM, a->status, "refused an attachment: check media.s3_*");
    else
        finish(arg, SL_OK, 0, "");
}

static void on_read(void *arg, const struct sl_http_answer *a)
{
    struct gw_media_job *j = arg;
    if (a->err != SL_OK) {
        finish(j, a->err, a->why.sys, a->why.text);
        return;
    }
    if (a->status != 200) {
        finish(j, a->status == 404 ? SL_ENOTFOUND : SL_EUPSTREAM, a->status,
               a->status == 404 ? "has no such attachment (any more)"
                                : "refused to give an attachment: check media.s3_*");
        return;
    }
    sl_buf_init(&j->bytes, a->body.len + 1);
    sl_buf_str(&j->bytes, a->body);
    j->item.size = (int64_t)a->body.len;
    gw_media_type(a->body, SL_STR_NONE, j->item.type);
    finish(j, SL_OK, 0, "");
}

struct lines { /* "Name: value" of one request */
    struct sl_buf line[4];
    const char *list[5];
};

static void add_line(struct lines *l, size_t i, const char *name, const char *value)
{
    sl_buf_init(&l->line[i], 2048);
    sl_buf_printf(&l->line[i], "%s: %s", name, value);
    sl_buf_char(&l->line[i], '\0');
    l->list[i] = l->line[i].ptr;
}

static sl_err ask(struct gw_s3 *s, struct gw_media_job *j, bool is_put, int64_t max_bytes)
{
    static const char empty_sha256[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    char date[GW_S3_DATE_BYTES], path[512], url[1024];
    const char *hash = is_put ? j->item.id : empty_sha256;
    struct lines l = {.list = {NULL}};
    struct sl_buf signature;
    gw_s3_date(sl_loop_unix_ms(s->loop), date);
    (void)snprintf(path, sizeof path, "/%s/%s", s->bucket, j->item.id);
    (void)snprintf(url, sizeof url, "%s%s", s->endpoint, path);
    struct gw_s3_request rq = {
        .method = is_put ? "PUT" : "GET",
        .path = path,
        .query = "",
        .header = {{"host", s->host}, {"x-amz-content-sha256", hash}, {"x-amz-date", date}},
        .headers = 3,
        .payload_sha256 = hash,
        .date = date,
        .region = s->region,
        .access_key = s->access_key,
        .secret_key = s->secret_key};
    sl_buf_init(&signature, 1024);
    gw_s3_sign(&rq, &signature);
    sl_buf_char(&signature, '\0');
    add_line(&l, 0, "Authorization", signature.ptr);
    add_line(&l, 1, "x-amz-content-sha256", hash);
    add_line(&l, 2, "x-amz-date", date);
    add_line(&l, 3, "Content-Type", is_put ? j->item.type : GW_MEDIA_ANY_TYPE);
    struct sl_http_request http = {.method = rq.method,
                                   .url = url,
                                   .headers = l.list,
                                   .body = is_put ? sl_buf_view(&j->bytes) : SL_STR_NONE,
                                   .is_body_borrowed = true,
                                   .whole_ms = WHOLE_MS,
                                   .max_bytes = is_put ? 65536 : (size_t)max_bytes,
                                   .may_repeat = true};
    sl_err err =
        s->http != NULL ? sl_http_request(s->http, &http, is_put ? on_put : on_read, j, NULL) : SL_ECLOSED;
    for (size_t i = 0; i < 4; i++)
        sl_buf_fini(&l.line[i]);
    sl_buf_fini(&signature);
    return err;
}

void gw_s3_put(struct gw_s3 *s, struct gw_media_job *j)
{
    sl_err err = ask(s, j, true, 0);
    if (err != SL_OK)
        finish(j, err, 0, sl_err_text(err));
}

sl_err gw_s3_read(struct gw_s3 *s, struct gw_media_job *j, int64_t max_bytes)
{
    return ask(s, j, false, max_bytes);
}
