/* bus/redis_url.c - where the server is: unix:/path, or redis://[user[:password]@]host[:port]. */
#include "bus/redis_priv.h"

#include <stdio.h>
#include <stdlib.h>

#define REDIS_PORT 6379

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* RFC 3986 2.1: %XX; a stray % stays as it is. Caller frees. */
static char *unescape(struct sl_str s)
{
    char *out = sl_alloc(s.len + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        int high = -1, low = -1;
        if (s.ptr[i] == '%' && i + 2 < s.len) {
            high = hex_digit(s.ptr[i + 1]);
            low = hex_digit(s.ptr[i + 2]);
        }
        if (high >= 0 && low >= 0) {
            out[n++] = (char)(high * 16 + low);
            i += 2;
        } else {
            out[n++] = s.ptr[i];
        }
    }
    return out;
}

static bool cut_at(struct sl_str s, char c, struct sl_str *before, struct sl_str *after)
{
    const char *p = memchr(s.ptr, c, s.len);
    if (p == NULL)
        return false;
    *before = sl_str_n(s.ptr, (size_t)(p - s.ptr));
    *after = sl_str_n(p + 1, s.len - before->len - 1);
    return true;
}

/* The last '@' ends the credentials: a password may contain one. */
static struct sl_str take_credentials(struct redis_where *w, struct sl_str rest)
{
    size_t at = rest.len;
    while (at > 0 && rest.ptr[at - 1] != '@')
        at--;
    if (at == 0)
        return rest;
    struct sl_str both = sl_str_n(rest.ptr, at - 1), user = both, password = SL_STR_NONE;
    if (cut_at(both, ':', &user, &password))
        w->password = unescape(password);
    if (user.len > 0)
        w->user = unescape(user);
    return sl_str_n(rest.ptr + at, rest.len - at);
}

static sl_err take_port(struct redis_where *w, struct sl_str port)
{
    uint64_t n = 0;
    if (port.len == 0 || sl_str_uint(port, &n) != SL_OK || n == 0 || n > 65535)
        return SL_EINVAL;
    w->port = (int)n;
    return SL_OK;
}

static sl_err take_host(struct redis_where *w, struct sl_str rest)
{
    struct sl_str host = rest, port = SL_STR_NONE, before;
    w->port = REDIS_PORT;
    if (rest.len > 0 && rest.ptr[rest.len - 1] == '/')
        host = rest = sl_str_n(rest.ptr, rest.len - 1);
    if (rest.len > 0 && rest.ptr[0] == '[') { /* RFC 3986 3.2.2: [IPv6] */
        if (!cut_at(sl_str_n(rest.ptr + 1, rest.len - 1), ']', &host, &port))
            return SL_EINVAL;
        if (port.len > 0 && !(cut_at(port, ':', &before, &port) && before.len == 0))
            return SL_EINVAL;
    } else if (cut_at(rest, ':', &host, &port) && port.len == 0) {
        return SL_EINVAL;
    }
    if (host.len == 0 || memchr(host.ptr, '/', host.len) != NULL)
        return SL_EINVAL;
    w->host = sl_str_dup(host);
    return port.len > 0 ? take_port(w, port) : SL_OK;
}

static void replace(char **field, const char *by)
{
    if (by == NULL || by[0] == '\0')
        return;
    free(*field);
    *field = sl_strdup(by);
}

static void set_name(struct redis_where *w)
{
    if (w->path != NULL)
        (void)snprintf(w->name, sizeof(w->name), "unix:%s", w->path);
    else
        (void)snprintf(w->name, sizeof(w->name), "%s:%d", w->host, w->port);
}

sl_err bus_where_parse(struct redis_where *w, const struct bus_config *cfg, struct sl_fail *why)
{
    struct sl_str url = sl_str_c(cfg->url == NULL ? "" : cfg->url);
    sl_err err = SL_EINVAL;
    *w = (struct redis_where){.path = NULL};
    if (sl_str_starts(url, "unix:")) {
        size_t skip = sl_str_starts(url, "unix://") ? 7 : 5;
        w->path = sl_str_dup(sl_str_n(url.ptr + skip, url.len - skip));
        err = w->path[0] == '\0' || strlen(w->path) > 100 ? SL_EINVAL : SL_OK; /* sun_path has 108 bytes */
    } else if (sl_str_starts(url, "redis://")) {
        err = take_host(w, take_credentials(w, sl_str_n(url.ptr + 8, url.len - 8)));
    }
    if (err != SL_OK) {
        bus_where_fini(w);
        return sl_fail_set(
            why, err, 0,
            "the store's url is not unix:/path (up to 100 bytes) or redis://[user[:password]@]host[:port]");
    }
    replace(&w->user, cfg->user);
    replace(&w->password, cfg->password);
    set_name(w);
    return SL_OK;
}

sl_err bus_check(const struct bus_config *cfg, struct sl_fail *why)
{
    struct redis_where w;
    sl_err err = bus_where_parse(&w, cfg, why);
    bus_where_fini(&w);
    return err;
}

void bus_where_fini(struct redis_where *w)
{
    free(w->path);
    free(w->host);
    free(w->user);
    free(w->password);
    *w = (struct redis_where){.path = NULL};
}

/* ---- looking a name up ---- */

struct redis_resolve {
    uv_getaddrinfo_t request;
    bus_resolve_fn fn; /* NULL: nobody waits any more */
    void *arg;
};

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    struct redis_resolve *r = request->data;
    if (r->fn != NULL)
        r->fn(r->arg, status, status == 0 ? found->ai_addr : NULL);
    uv_freeaddrinfo(found);
    free(r);
}

struct redis_resolve *bus_resolve(uv_loop_t *uv, const struct redis_where *w, bus_resolve_fn fn, void *arg)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    char port[8];
    struct redis_resolve *r = sl_alloc(sizeof(*r));
    *r = (struct redis_resolve){.fn = fn, .arg = arg};
    r->request.data = r;
    (void)snprintf(port, sizeof(port), "%d", w->port);
    if (uv_getaddrinfo(uv, &r->request, on_resolved, w->host, port, &hints) == 0)
        return r;
    free(r);
    return NULL;
}

void bus_resolve_cancel(struct redis_resolve **rp)
{
    struct redis_resolve *r = *rp;
    *rp = NULL;
    if (r == NULL)
        return;
    r->fn = NULL;
    (void)uv_cancel((uv_req_t *)&r->request); /* too late is fine: the callback finds nobody */
}
