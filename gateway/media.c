/* gateway/media.c - the media store: jobs, their bounds, and signed links. See media.h. */
#include "gateway/media.h"

#include "gateway/media_priv.h"
#include "gateway/media_type.h"

#include "base/crypto.h"
#include "base/log.h"
#include "base/metrics.h"

#include <stdio.h>
#include <stdlib.h>

#define SWEEP_MS 3600000
#define ROUND_S                                                                                              \
    3600 /* links made within an hour are the same: browsers and providers may keep what they fetched */
#define QUEUE_MAX 256 /* puts and reads that wait for a job */

struct gw_media {
    struct gw_media_config cfg;
    char *dir, *public_url, *secret;
    struct gw_s3 *s3; /* instead of the folder; NULL: none */
    size_t jobs, waiting;
    struct gw_media_job *first, *last; /* waiting */
    int64_t used_bytes;
    bool is_closing;
    struct sl_timer sweep;
    struct sl_metric *jobs_gauge, *bytes_gauge, *count_gauge;
};

static void job_start(struct gw_media *m, struct gw_media_job *j);
static void on_sweep_due(void *arg);

/* ---- life ---- */

struct gw_media *gw_media_open(const struct gw_media_config *cfg, struct sl_fail *why)
{
    char secret[65] = "";
    bool wants_s3 = cfg->s3_endpoint != NULL && cfg->s3_endpoint[0] != '\0';
    if (!wants_s3 && cfg->dir[0] != '\0' && gw_media_files_open(cfg->dir, secret, why) != SL_OK)
        return NULL;
    struct gw_s3 *s3 = NULL;
    if (wants_s3 && (s3 = gw_s3_open(cfg, why)) == NULL)
        return NULL;
    struct gw_media *m = sl_alloc(sizeof *m);
    m->s3 = s3;
    m->cfg = *cfg;
    m->dir = sl_strdup(cfg->dir);
    m->public_url = sl_strdup(cfg->public_url);
    size_t n = strlen(m->public_url);
    if (n > 0 && m->public_url[n - 1] == '/')
        m->public_url[n - 1] = '\0';
    m->secret = sl_strdup(cfg->secret[0] != '\0' ? cfg->secret : secret);
    sl_timer_init(&m->sweep, cfg->loop, on_sweep_due, m);
    m->jobs_gauge = sl_gauge("sluice_media_jobs", "", "Reads and writes of attachments under way or waiting");
    sl_gauge_max(m->jobs_gauge, GW_MEDIA_JOBS_MAX + QUEUE_MAX);
    m->bytes_gauge = sl_gauge("sluice_media_bytes", "", "Attachments in the folder, bytes");
    sl_gauge_max(m->bytes_gauge, cfg->total_bytes);
    m->count_gauge = sl_gauge("sluice_media_files", "", "Attachments in the folder");
    if (m->dir[0] != '\0' && m->s3 == NULL)
        sl_timer_start(&m->sweep, 0);
    return m;
}

void gw_media_close(struct gw_media **mp)
{
    struct gw_media *m = *mp;
    *mp = NULL;
    if (m == NULL)
        return;
    sl_assert(m->jobs == 0 && m->waiting == 0);
    sl_timer_stop(&m->sweep);
    gw_s3_free(&m->s3);
    free(m->dir);
    free(m->public_url);
    free(m->secret);
    free(m);
}

void gw_media_stop(struct gw_media *m)
{
    m->is_closing = true;
    sl_timer_stop(&m->sweep);
    if (m->s3 != NULL)
        gw_s3_stop(m->s3);
}

size_t gw_media_jobs(const struct gw_media *m)
{
    return m->jobs + m->waiting;
}

bool gw_media_has_store(const struct gw_media *m)
{
    return m != NULL && (m->dir[0] != '\0' || m->s3 != NULL);
}

int64_t gw_media_max_bytes(const struct gw_media *m)
{
    return m->cfg.max_bytes;
}

/* ---- jobs ---- */

static void job_free(struct gw_media_job *j)
{
    sl_buf_fini(&j->bytes);
    free(j);
}

static void start_next(struct gw_media *m)
{
    struct gw_media_job *j = m->first;
    if (j == NULL || m->jobs >= GW_MEDIA_JOBS_MAX)
        return;
    m->first = j->next;
    if (m->first == NULL)
        m->last = NULL;
    m->waiting--;
    job_start(m, j);
}

static void tell_sweep(struct gw_media *m, const struct gw_media_job *j)
{
    m->used_bytes = j->kept_bytes;
    sl_gauge_set(m->count_gauge, j->kept);
    if (j->gone > 0)
        sl_log(SL_INFO, "attachments past media.keep removed", SL_KV_I("count", j->gone));
    if (!m->is_closing)
        sl_timer_start(&m->sweep, SWEEP_MS);
}

void gw_media_job_done(struct gw_media_job *j)
{
    struct gw_media *m = j->m;
    m->jobs--;
    m->used_bytes += j->added_bytes;
    if (j->what == GW_MEDIA_SWEEP)
        tell_sweep(m, j);
    else
        j->fn(j->arg, j->err, j->err == SL_OK ? &j->item : NULL,
              j->what == GW_MEDIA_READ && j->err == SL_OK ? sl_buf_view(&j->bytes) : SL_STR_NONE, &j->why);
    sl_gauge_set(m->bytes_gauge, m->used_bytes);
    job_free(j);
    start_next(m);
    sl_gauge_set(m->jobs_gauge, (int64_t)gw_media_jobs(m));
}

static void do_put(struct gw_media_job *j)
{
    unsigned char hash[32];
    struct sl_str said = sl_str_c(j->item.type);
    char type[128];
    sl_sha256(sl_buf_view(&j->bytes), hash);
    sl_hex(j->item.id, hash, sizeof hash);
    gw_media_type(sl_buf_view(&j->bytes), said, type);
    memcpy(j->item.type, type, sizeof type);
    if (j->m->s3 == NULL)
        gw_media_files_put(j);
}

static void do_read(struct gw_media_job *j)
{
    gw_media_files_read(j, j->m->cfg.max_bytes);
    if (j->err == SL_OK)
        gw_media_type(sl_buf_view(&j->bytes), SL_STR_NONE, j->item.type);
}

/* In the thread pool: touches the job alone, and what never changes of the store. */
static void on_work(uv_work_t *work)
{
    struct gw_media_job *j = work->data;
    switch (j->what) {
    case GW_MEDIA_PUT:
        do_put(j);
        return;
    case GW_MEDIA_READ:
        do_read(j);
        return;
    case GW_MEDIA_SWEEP:
        gw_media_files_sweep(j);
        return;
    }
}

/* On the loop again: hashed, and stored, unless it is for the bucket. */
static void worked(struct gw_media_job *j)
{
    if (j->what == GW_MEDIA_PUT && j->m->s3 != NULL && j->err == SL_OK)
        gw_s3_put(j->m->s3, j);
    else
        gw_media_job_done(j);
}

static void on_worked(uv_work_t *work, int status)
{
    (void)status; /* never cancelled */
    worked(work->data);
}

static void on_posted(void *arg)
{
    struct gw_media_job *j = arg;
    on_work(&j->work);
    worked(j);
}

static void on_refused(void *arg)
{
    gw_media_job_done(arg);
}

static void job_start(struct gw_media *m, struct gw_media_job *j)
{
    uv_loop_t *uv = sl_loop_uv(m->cfg.loop);
    m->jobs++;
    if (j->what == GW_MEDIA_READ && m->s3 != NULL) {
        j->err = gw_s3_read(m->s3, j, m->cfg.max_bytes);
        if (j->err == SL_OK)
            return; /* else it is told like any other, on a later turn */
        (void)sl_fail_set(&j->why, j->err, 0, "media store: %s", sl_err_text(j->err));
        sl_post_init(&j->post, m->cfg.loop, on_refused, j);
        sl_post_now(&j->post);
        return;
    }
    if (uv == NULL) {
        sl_post_init(&j->post, m->cfg.loop, on_posted, j);
        sl_post_now(&j->post);
        return;
    }
    sl_assert(uv_queue_work(uv, &j->work, on_work, on_worked) == 0);
}

static struct gw_media_job *job_new(struct gw_media *m, enum gw_media_what what, chan_media_fn fn, void *arg)
{
    struct gw_media_job *j = sl_alloc(sizeof *j);
    j->m = m;
    j->what = what;
    j->fn = fn;
    j->arg = arg;
    j->dir = m->dir;
    j->work.data = j;
    return j;
}

static void job_add(struct gw_media *m, struct gw_media_job *j)
{
    if (m->jobs < GW_MEDIA_JOBS_MAX) {
        job_start(m, j);
    } else {
        if (m->last != NULL)
            m->last->next = j;
        else
            m->first = j;
        m->last = j;
        m->waiting++;
    }
    sl_gauge_set(m->jobs_gauge, (int64_t)gw_media_jobs(m));
}

static void on_sweep_due(void *arg)
{
    struct gw_media *m = arg;
    struct gw_media_job *j = job_new(m, GW_MEDIA_SWEEP, NULL, NULL);
    j->older_than_unix_s = m->cfg.keep_ms > 0 ? (sl_loop_unix_ms(m->cfg.loop) - m->cfg.keep_ms) / 1000 : 0;
    job_add(m, j);
}

static sl_err may_begin(const struct gw_media *m)
{
    if (!gw_media_has_store(m))
        return SL_EREFUSED;
    return m->is_closing || m->waiting >= QUEUE_MAX ? SL_EAGAIN : SL_OK;
}

/* What waits holds its bytes: as few as the threads can be given soon. */
static sl_err may_put(const struct gw_media *m, size_t len)
{
    sl_err err = may_begin(m);
    if (err != SL_OK)
        return err;
    if (len == 0)
        return SL_EINVAL;
    if ((int64_t)len > m->cfg.max_bytes || m->used_bytes + (int64_t)len > m->cfg.total_bytes)
        return SL_ETOOBIG;
    return m->jobs >= GW_MEDIA_JOBS_MAX ? SL_EAGAIN : SL_OK;
}

sl_err gw_media_put(struct gw_media *m, struct sl_str bytes, struct sl_str type, struct sl_str name,
                    chan_media_fn fn, void *arg)
{
    sl_err err = may_put(m, bytes.len);
    if (err != SL_OK)
        return err;
    struct gw_media_job *j = job_new(m, GW_MEDIA_PUT, fn, arg);
    if (type.len >= sizeof j->item.type)
        type = SL_STR_NONE;
    memcpy(j->item.type, type.ptr, type.len);
    gw_media_name(name, j->item.name);
    j->item.size = (int64_t)bytes.len;
    sl_buf_init(&j->bytes, bytes.len + 1);
    sl_buf_str(&j->bytes, bytes);
    job_add(m, j);
    return SL_OK;
}

bool gw_media_id_ok(struct sl_str id)
{
    for (size_t i = 0; i < id.len; i++)
        if (!((id.ptr[i] >= '0' && id.ptr[i] <= '9') || (id.ptr[i] >= 'a' && id.ptr[i] <= 'f')))
            return false;
    return id.len == 64;
}

sl_err gw_media_read(struct gw_media *m, struct sl_str id, chan_media_fn fn, void *arg)
{
    sl_err err = may_begin(m);
    if (err != SL_OK)
        return err;
    if (!gw_media_id_ok(id))
        return SL_EINVAL;
    struct gw_media_job *j = job_new(m, GW_MEDIA_READ, fn, arg);
    memcpy(j->item.id, id.ptr, 64);
    job_add(m, j);
    return SL_OK;
}

/* ---- links ---- */

static void sign(const struct gw_media *m, struct sl_str id, struct sl_str name, int64_t expires_unix_s,
                 struct sl_buf *out)
{
    struct sl_buf text;
    unsigned char mac[32];
    sl_buf_init(&text, 1024);
    sl_buf_printf(&text, "media\n%.*s\n%.*s\n%lld", (int)id.len, id.ptr, (int)name.len, name.ptr,
                  (long long)expires_unix_s);
    sl_hmac_sha256(sl_str_c(m->secret), sl_buf_view(&text), mac);
    sl_b64url(out, sl_str_n((const char *)mac, sizeof mac));
    sl_buf_fini(&text);
}

static void add_escaped(struct sl_buf *out, const char *s)
{
    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;
        bool is_plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                        strchr("-._~", c) != NULL; /* RFC 3986 2.3 */
        if (is_plain)
            sl_buf_char(out, (char)c);
        else
            sl_buf_printf(out, "%%%02X", c);
    }
}

void gw_media_link(const struct gw_media *m, struct sl_str id, struct sl_str name, bool is_public,
                   struct sl_buf *out)
{
    char safe[256];
    if (m == NULL || m->secret[0] == '\0' || !gw_media_id_ok(id) || (is_public && m->public_url[0] == '\0'))
        return;
    int64_t now_s = sl_loop_unix_ms(m->cfg.loop) / 1000;
    int64_t expires = (now_s / ROUND_S + 1) * ROUND_S + m->cfg.link_ms / 1000;
    gw_media_name(name, safe);
    if (is_public)
        sl_buf_c(out, m->public_url);
    sl_buf_printf(out, "/media/%.*s/", (int)id.len, id.ptr);
    add_escaped(out, safe);
    sl_buf_printf(out, "?exp=%lld&sig=", (long long)expires);
    sign(m, id, sl_str_c(safe), expires, out);
}

struct sl_str gw_query_value(struct sl_str query, const char *name)
{
    size_t n = strlen(name);
    while (query.len > 0) {
        const char *amp = memchr(query.ptr, '&', query.len);
        size_t len = amp != NULL ? (size_t)(amp - query.ptr) : query.len;
        if (len > n && memcmp(query.ptr, name, n) == 0 && query.ptr[n] == '=')
            return sl_str_n(query.ptr + n + 1, len - n - 1);
        query = amp != NULL ? sl_str_n(amp + 1, query.len - len - 1) : SL_STR_NONE;
    }
    return SL_STR_NONE;
}

sl_err gw_media_check_link(const struct gw_media *m, struct sl_str id, struct sl_str name,
                           struct sl_str query, int64_t now_unix_ms, int64_t *expires_unix_s)
{
    int64_t expires = 0;
    struct sl_buf wanted;
    if (m == NULL || m->secret[0] == '\0' || !gw_media_id_ok(id) || name.len == 0 || name.len > 255 ||
        sl_str_int(gw_query_value(query, "exp"), &expires) != SL_OK)
        return SL_EDENIED;
    sl_buf_init(&wanted, 64);
    sign(m, id, name, expires, &wanted);
    bool is_ours = sl_secret_eq(sl_buf_view(&wanted), gw_query_value(query, "sig"));
    sl_buf_fini(&wanted);
    if (!is_ours)
        return SL_EDENIED;
    *expires_unix_s = expires;
    return expires > now_unix_ms / 1000 ? SL_OK : SL_ECLOSED;
}
