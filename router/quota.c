/* router/quota.c - what a channel grants, what a message costs. See quota.h. */
#include "router/quota.h"

#include "proto/fit.h"

static bool read_quota(struct sl_str quota, int64_t *count, int64_t *ms)
{
    const char *slash = quota.len > 0 ? memchr(quota.ptr, '/', quota.len) : NULL;
    if (slash == NULL)
        return false;
    size_t n = (size_t)(slash - quota.ptr);
    return sl_str_int(sl_str_n(quota.ptr, n), count) == SL_OK &&
           sl_str_int(sl_str_n(slash + 1, quota.len - n - 1), ms) == SL_OK && *ms > 0;
}

void conversation_quota_grant(struct conversation *c, int64_t now_ms, struct sl_str quota,
                              struct sl_str limits)
{
    int64_t count = 0, ms = 0;
    if (!read_quota(quota, &count, &ms))
        return;
    bool is_known = fit_limits_read(limits, &(struct fit_limits){.text_max = 0}, &(size_t){0}) == SL_OK;
    conversation_set(&c->limits, is_known ? limits : SL_STR_NONE);
    if (c->quota_ms != ms) { /* the other length of time, or a new one */
        int64_t was[3] = {c->quota_ms, c->quota_left, c->quota_until};
        bool is_other = c->other_ms == ms;
        c->quota_ms = ms;
        c->quota_left = is_other ? c->other_left : 0;
        c->quota_until = is_other ? c->other_until : 0;
        c->other_ms = was[0], c->other_left = was[1], c->other_until = was[2];
    }
    c->is_metered = 1;
    if (c->quota_until <= now_ms || c->quota_left < count)
        c->quota_left = count;
    c->quota_until = now_ms + ms;
}

int64_t conversation_quota_left(const struct conversation *c, int64_t now_ms)
{
    int64_t left = c->quota_until > now_ms ? c->quota_left : 0;
    int64_t other = c->other_until > now_ms ? c->other_left : 0;
    return left > other ? left : other;
}

void conversation_quota_spend(struct conversation *c, int64_t sends)
{
    c->quota_left -= c->quota_left < sends ? c->quota_left : sends;
    c->other_left -= c->other_left < sends ? c->other_left : sends;
}

int64_t conversation_quota_cost(const struct conversation *c, const struct msg *m, int64_t left)
{
    struct fit_limits l;
    size_t link_bytes;
    struct fit f;
    struct sl_fail why;
    if (fit_limits_read(sl_str_c(c->limits), &l, &link_bytes) != SL_OK)
        return 1; /* who granted this did not say how it cuts */
    l.link = fit_link_of;
    l.link_arg = &link_bytes;
    fit_init(&f);
    sl_err err = fit_within(&f, m, &l, (size_t)left, &why);
    int64_t sends = (err == SL_OK || err == SL_ETOOBIG) && f.count > 0 ? (int64_t)f.count : 1;
    if (err == SL_ETOOBIG && sends <= left)
        sends = left + 1; /* more than a message can have parts */
    fit_fini(&f);
    return sends;
}
