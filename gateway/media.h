/* gateway/media.h - attachments' bytes: kept outside of the logs under the SHA-256 of their content, and shown by signed links.
 *
 * What     a folder (two levels, written to a temporary file, synced, renamed: whole or absent), or a bucket of an S3-compatible
 *          server. Hashing and files are the thread pool's work, never the loop's.
 * Calls    SL_OK: fn follows exactly once, never before return. SL_EAGAIN: too much at once. SL_EREFUSED: no store configured.
 * Bounds   one attachment: max_bytes; all together: total_bytes (counted at start and each hour; beyond it SL_ETOOBIG); what is
 *          older than keep_ms goes. Jobs at once: GW_MEDIA_JOBS_MAX, gauge sluice_media_jobs.
 * Links    /media/<id>/<name>?exp=<unix s>&sig=<HMAC-SHA256>: whoever has one may read until it expires.
 * Source   docs/attachments.md
 */
#ifndef GATEWAY_MEDIA_H
#define GATEWAY_MEDIA_H

#include "base/loop.h"
#include "channels/channel.h"

#define GW_MEDIA_JOBS_MAX 16

struct gw_media;
struct gw_media_config {
    struct sl_loop *loop;
    const char *dir;        /* "": no folder */
    const char *public_url; /* "https://chat.example.org"; "": links are not given to providers */
    const char *secret;     /* of the links; "": one is made and kept in the folder */
    int64_t max_bytes, total_bytes, keep_ms, link_ms;
    /* S3: used instead of the folder when endpoint is not "" */
    const char *s3_endpoint, *s3_region, *s3_bucket, *s3_access_key, *s3_secret_key, *s3_ca_file;
};
struct sl_config;
struct gw_media_config gw_media_config_of(struct sl_loop *loop, const struct sl_config *cfg); /* borrows */
struct gw_media *gw_media_open(const struct gw_media_config *cfg, struct sl_fail *why);       /* copies */
void gw_media_stop(struct gw_media *m);   /* nothing begins any more; what is under way settles */
void gw_media_close(struct gw_media **m); /* only when gw_media_jobs() is 0 */
size_t gw_media_jobs(const struct gw_media *m);
bool gw_media_has_store(const struct gw_media *m); /* else everything is SL_EREFUSED */
int64_t gw_media_max_bytes(const struct gw_media *m);

sl_err gw_media_put(struct gw_media *m, struct sl_str bytes, struct sl_str type, struct sl_str name,
                    chan_media_fn fn, void *arg) SL_MUST_CHECK;
/* ENOTFOUND in fn; media->type is what the bytes are, media->name is empty. */
sl_err gw_media_read(struct gw_media *m, struct sl_str id, chan_media_fn fn, void *arg) SL_MUST_CHECK;

/* The value of a name in a query, as libwebsockets gives it: decoded. */
struct sl_str gw_query_value(struct sl_str query, const char *name);

bool gw_media_id_ok(struct sl_str id); /* 64 hex digits, lower case */
/* Append "/media/...": is_public puts public_url before it, and appends nothing when there is none. */
void gw_media_link(const struct gw_media *m, struct sl_str id, struct sl_str name, bool is_public,
                   struct sl_buf *out);
/* SL_OK; SL_EDENIED: not signed by us; SL_ECLOSED: it has expired. */
sl_err gw_media_check_link(const struct gw_media *m, struct sl_str id, struct sl_str name,
                           struct sl_str query, int64_t now_unix_ms, int64_t *expires_unix_s) SL_MUST_CHECK;

#endif
