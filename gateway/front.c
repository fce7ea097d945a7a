/* gateway/front.c - see front.h. The traps of libwebsockets 4.1.6 that shaped it:
 *
 * - its own validity timer makes each accept cost time in proportion to the open sockets: an all-zero retry policy turns it off,
 *   and the hub's wheel does the heartbeat;
 * - at the descriptor limit its accept spins: fd_limit_per_thread stays below it, and we count;
 * - a POST that was read together with the request before it makes it spin for ever: without TLS we read requests ourselves
 *   (front_plain.c), with TLS a connection takes one request (front_tls.c).
 */
#include "gateway/front_priv.h"

#include "base/log.h"

#include <stdlib.h>
#include <sys/resource.h>

#define RX_BUFFER_BYTES      1024
#define SERVICE_BUFFER_BYTES 4096
#define HEADER_POOL          64
#define FD_RESERVE           512
#define FAILED_OPEN_MS       50

static const struct lws_protocols protocols[] = {
    {"http", gw_front_on_http, sizeof(struct gw_request *), RX_BUFFER_BYTES, 0, NULL, 0},
    {FRAME_PROTOCOL, gw_front_on_ws, sizeof(struct gw_front_ws *), RX_BUFFER_BYTES, 0, NULL, 0},
    {NULL, NULL, 0, 0, 0, NULL, 0},
};

/* libwebsockets' own words, through our log and its throttle. */
static void on_lws_log(int level, const char *line)
{
    size_t n = strcspn(line, "\r\n");
    if (strstr(line, "adopt_socket_readbuf: ") != NULL)
        return; /* it calls each connection that front_plain.c hands over an error */
    sl_log(level == LLL_ERR ? SL_WARN : SL_DEBUG, "libwebsockets", SL_KV_S("line", sl_str_n(line, n)));
}

static unsigned descriptor_room(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 512;
    if (limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
        (void)getrlimit(RLIMIT_NOFILE, &limit);
    }
    rlim_t most = limit.rlim_cur > 1000000 ? 1000000 : limit.rlim_cur;
    return (unsigned)(most > 2 * FD_RESERVE ? most - FD_RESERVE : most / 2);
}

static void fill_info(struct gw_front *f, struct lws_context_creation_info *info, void **loops)
{
    static const lws_retry_bo_t no_retry = {0};
    loops[0] = sl_loop_uv(f->cfg.hub->loop);
    *info = (struct lws_context_creation_info){.port = f->cfg.port};
    info->iface = f->host[0] != '\0' ? f->host : NULL;
    info->protocols = protocols;
    info->gid = -1;
    info->uid = -1;
    info->user = f;
    info->foreign_loops = loops;
    info->options = LWS_SERVER_OPTION_LIBUV | LWS_SERVER_OPTION_VALIDATE_UTF8;
    if (strchr(f->host, ':') == NULL)
        info->options |= LWS_SERVER_OPTION_DISABLE_IPV6;
    info->retry_and_idle_policy = &no_retry;
    info->pt_serv_buf_size = SERVICE_BUFFER_BYTES;
    info->max_http_header_pool = HEADER_POOL;
    info->max_http_header_data = GW_HEADERS_MAX_BYTES;
    info->fd_limit_per_thread = descriptor_room();
    info->timeout_secs = GW_FRONT_TIMEOUT_S;
    info->keepalive_timeout = GW_FRONT_KEEPALIVE_S;
    info->server_string = "sluice";
    if (f->cert[0] == '\0') {
        info->port = CONTEXT_PORT_NO_LISTEN_SERVER;
        return;
    }
    info->options |= LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
    info->ssl_cert_filepath = f->cert;
    info->ssl_private_key_filepath = f->key;
    info->alpn = "http/1.1";
}

static bool is_readable(const char *path)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    (void)fclose(file);
    return true;
}

static bool open_port(struct gw_front *f, struct sl_fail *why)
{
    size_t room = descriptor_room() / 4;
    if (f->vhost != NULL && f->cert[0] == '\0') {
        f->plain = gw_plain_open(f, room < GW_FRONT_PLAIN_MAX ? room : GW_FRONT_PLAIN_MAX, why);
        f->port = f->plain != NULL ? gw_plain_port(f->plain) : 0;
        return f->plain != NULL;
    }
    f->port = f->vhost != NULL ? lws_get_vhost_listen_port(f->vhost) : 0;
    if (f->port <= 0)
        (void)sl_fail_set(
            why, SL_EINTERNAL, errno,
            "gateway.listen %s:%d: cannot listen (in use? package libwebsockets-evlib-uv missing?)",
            f->cfg.host, f->cfg.port);
    return f->port > 0;
}

static void on_failed_open_freed(void *arg)
{
    struct gw_front *f = arg;
    gw_front_free(&f);
}

static void on_failed_open_stopped(void *arg)
{
    struct gw_front *f = arg;
    gw_front_stop(f);
    sl_timer_init(&f->hold, f->cfg.hub->loop, on_failed_open_freed, f);
    sl_timer_start(&f->hold, FAILED_OPEN_MS);
}

/* A context must have been turned before it is destroyed, and between the two times that takes: libwebsockets unloads its libuv
 * plugin, whose callbacks would still come. One with TLS that could not be made takes itself apart (warmcat/libwebsockets issue
 * 2129, still so in 4.1.6): it is left alone. */
static void end_failed_open(struct gw_front *f)
{
    if (f->cert[0] != '\0')
        f->context = NULL;
    sl_timer_init(&f->hold, f->cfg.hub->loop, on_failed_open_stopped, f);
    sl_timer_start(&f->hold, FAILED_OPEN_MS);
}

struct gw_front *gw_front_open(const struct gw_front_config *cfg, struct sl_fail *why)
{
    struct lws_context_creation_info info;
    void *loops[1];
    static const char room[GW_FRAME_ROOM];
    if (cfg->tls_cert[0] != '\0' && (!is_readable(cfg->tls_cert) || !is_readable(cfg->tls_key))) {
        (void)sl_fail_set(why, SL_EINVAL, errno, "gateway.tls_cert and tls_key: both files must be readable");
        return NULL;
    }
    struct gw_front *f = sl_alloc(sizeof *f);
    f->cfg = *cfg;
    f->host = sl_strdup(cfg->host);
    f->cert = sl_strdup(cfg->tls_cert);
    f->key = sl_strdup(cfg->tls_key);
    f->ips = sl_map_new();
    sl_buf_init(&f->message, 0);
    sl_buf_add(&f->message, room, sizeof room);
    sl_buf_init(&f->date, 64);
    sl_timer_init(&f->hold, cfg->hub->loop, gw_front_on_hold_over, f);
    f->sockets_gauge = sl_gauge("sluice_ws_connections", "", "Open WebSockets");
    sl_gauge_max(f->sockets_gauge, (int64_t)cfg->max_sockets);
    f->requests_gauge = sl_gauge("sluice_http_requests", "", "HTTP requests that were not answered yet");
    sl_gauge_max(f->requests_gauge, GW_REQUESTS_MAX);
    f->messages_in = sl_counter("sluice_ws_messages_total", "dir=\"in\"", "WebSocket messages");
    f->messages_out = sl_counter("sluice_ws_messages_total", "dir=\"out\"", "WebSocket messages");
    lws_set_log_level(LLL_ERR | LLL_WARN, on_lws_log);
    fill_info(f, &info, loops);
    f->context = lws_create_context(&info);
    f->vhost = f->context != NULL ? lws_get_vhost_by_name(f->context, "default") : NULL;
    if (open_port(f, why))
        return f;
    end_failed_open(f);
    return NULL;
}

int gw_front_port(const struct gw_front *f)
{
    return f->port;
}

size_t gw_front_sockets(const struct gw_front *f)
{
    return f->socket_count;
}

sl_err gw_front_reload_tls(struct gw_front *f, struct sl_fail *why)
{
    if (f->cert[0] == '\0')
        return SL_OK;
    if (lws_tls_cert_updated(f->context, f->cert, f->key, NULL, 0, NULL, 0) != 0)
        return sl_fail_set(why, SL_EINVAL, 0,
                           "gateway.tls_cert %s could not be read again; the old one stays", f->cert);
    return SL_OK;
}

void gw_front_stop(struct gw_front *f)
{
    sl_timer_stop(&f->hold);
    gw_plain_close(&f->plain);
    if (f->context != NULL)
        lws_context_destroy(f->context);
}

void gw_front_free(struct gw_front **fp)
{
    struct gw_front *f = *fp;
    *fp = NULL;
    if (f == NULL)
        return;
    if (f->context != NULL)
        lws_context_destroy(f->context);
    sl_buf_fini(&f->message);
    sl_buf_fini(&f->date);
    sl_map_free(&f->ips);
    free(f->host);
    free(f->cert);
    free(f->key);
    free(f);
}
