/* gateway/media_priv.h - one job of the media store, and the two places where bytes can lie. */
#ifndef GATEWAY_MEDIA_PRIV_H
#define GATEWAY_MEDIA_PRIV_H

#include "gateway/media.h"

enum gw_media_what { GW_MEDIA_PUT, GW_MEDIA_READ, GW_MEDIA_SWEEP };
struct gw_media_job {
    uv_work_t work;
    struct sl_post post; /* on a virtual loop */
    struct gw_media_job *next;
    struct gw_media *m;
    enum gw_media_what what;
    struct chan_media item;
    struct sl_buf bytes;
    chan_media_fn fn;
    void *arg;
    sl_err err;
    struct sl_fail why;
    int64_t added_bytes;            /* PUT: new in the folder */
    int64_t kept_bytes, kept, gone; /* SWEEP */
    int64_t older_than_unix_s;
    const char *dir;
};

/* media_files.c; all in the thread pool. */
void gw_media_files_put(struct gw_media_job *j);
void gw_media_files_read(struct gw_media_job *j, int64_t max_bytes);
void gw_media_files_sweep(struct gw_media_job *j);
/* Makes the folders, and the secret when there is none yet. Blocking: at start alone. */
sl_err gw_media_files_open(const char *dir, char secret[65], struct sl_fail *why) SL_MUST_CHECK;

void gw_media_job_done(struct gw_media_job *j);

/* media_s3.c */
struct gw_s3;
struct gw_s3 *gw_s3_open(const struct gw_media_config *cfg, struct sl_fail *why);
void gw_s3_stop(struct gw_s3 *s); /* what is under way settles with SL_ECLOSED on a later turn */
void gw_s3_free(struct gw_s3 **s);
/* Both end in gw_media_job_done. read: only when SL_OK is returned. */
void gw_s3_put(struct gw_s3 *s, struct gw_media_job *j);
sl_err gw_s3_read(struct gw_s3 *s, struct gw_media_job *j, int64_t max_bytes) SL_MUST_CHECK;

#endif
