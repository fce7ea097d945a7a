#include "gateway/gateway.h"

#include "gateway/gateway_priv.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

#define STEP_MS       20
#define SETTLE_MIN_MS 150  /* clients have this long to read the goodbye and send what was on its way */
#define STOP_MS       60   /* for closed handles and last callbacks to go by */
#define LATE_MS       5000 /* for an adapter that has not closed: a mail that is still read, say */

const struct sl_key gw_keys[] = {
    {"gateway.listen", SL_CFG_STR, "127.0.0.1:8080", 0, 0, false,
     "address and port of HTTP and WebSocket; port 0: any free one"},
    {"gateway.tls_cert", SL_CFG_STR, "", 0, 0, false,
     "file with the certificate chain, PEM; empty: no TLS; read again on HUP"},
    {"gateway.tls_key", SL_CFG_STR, "", 0, 0, false, "file with its key, PEM"},
    {"gateway.drain", SL_CFG_MS, "10s", 100, 600000, true,
     "after TERM everything has ended within this time"},
    {"gateway.max_sockets", SL_CFG_INT, "15000", 1, 1000000, false,
     "open WebSockets; beyond it upgrades get 503"},
    {"gateway.per_ip", SL_CFG_INT, "200", 0, 1000000, false,
     "open WebSockets of one address, 0: no limit; loopback is not limited"},
    {"gateway.heartbeat", SL_CFG_MS, "25s", 250, 60000, false,
     "between pings, and between comparisons of a socket with its log"},
    {"gateway.hello", SL_CFG_MS, "5s", 100, 60000, false, "time from the upgrade to hello"},
    {"gateway.alive", SL_CFG_MS, "8s", 100, 60000, false,
     "how often desks are told which agents are here; under a third of rules.presence_ms"},
    {"gateway.messages_per_s", SL_CFG_INT, "2000", 1, 1000000, false,
     "WebSocket messages of one socket in a second; beyond it the socket is closed with 4429"},
    {"gateway.repeat", SL_CFG_MS, "10s", 100, 60000, false,
     "how long a command is repeated whose outcome the store did not tell"},
    {"gateway.lease", SL_CFG_MS, "3s", 500, 60000, false,
     "how long a delivery lane is kept for a gateway that stopped answering"},
    {"media.dir", SL_CFG_STR, "", 0, 0, false,
     "folder of attachments, shared by all gateways; empty: none are kept"},
    {"media.public_url", SL_CFG_STR, "", 0, 0, false,
     "how the world reaches this gateway, https://chat.example.org; empty: providers are given no links"},
    {"media.secret", SL_CFG_SECRET, "", 0, 0, false, "signs links; empty: one is made and kept in media.dir"},
    {"media.max", SL_CFG_BYTES, "20MiB", 1024, 104857600, false, "one attachment"},
    {"media.total", SL_CFG_BYTES, "10240MiB", 1024, 0x7fffffffffffffff, false,
     "all together; beyond it none is taken"},
    {"media.keep", SL_CFG_MS, "180d", 0, 315360000000, false, "older attachments are removed; 0: never"},
    {"media.link_life", SL_CFG_MS, "7d", 60000, 31536000000, false, "how long a link works"},
    {"media.s3_endpoint", SL_CFG_STR, "", 0, 0, false,
     "S3-compatible server instead of media.dir, https://host:port; needs media.secret"},
    {"media.s3_region", SL_CFG_STR, "us-east-1", 0, 0, false, "its region"},
    {"media.s3_bucket", SL_CFG_STR, "", 0, 0, false, "its bucket; old objects go by the bucket's own rules"},
    {"media.s3_access_key", SL_CFG_STR, "", 0, 0, false, "key id"},
    {"media.s3_secret_key", SL_CFG_SECRET, "", 0, 0, false, "and its secret"},
    {"media.fetch_time", SL_CFG_MS, "15s", 100, 600000, false, "one download"},
    {"media.fetch_alt_ports", SL_CFG_BOOL, "false", 0, 0, false, "download from ports 8080 and 8443, too"},
    {"media.ca_file", SL_CFG_STR, "", 0, 0, false,
     "certificates that downloads and S3 trust, PEM; empty: the system's"},
    {"inboxes.*.channel", SL_CFG_STR, NULL, 0, 0, false,
     "which adapter: webchat, wechat, wecom, wechat_kf, ... (channels/README.md)"},
    {"inboxes.*.tenant", SL_CFG_STR, NULL, 0, 0, false, "whose it is"},
    {"inboxes.*.rate", SL_CFG_INT, "5", 0, 100000, true,
     "messages a second of one visitor's session, 0: no limit"},
    {"inboxes.*.burst", SL_CFG_INT, "10", 1, 100000, true, "messages at once of one visitor's session"},
    DELIVERY_KEYS{"agents.*.tenant", SL_CFG_STR, NULL, 0, 0, true, "whose agent"},
    {"agents.*.name", SL_CFG_STR, "", 0, 0, true, "name as shown; empty: the entry's"},
    {"agents.*.password_hash", SL_CFG_SECRET, "", 0, 0, true,
     "of `sluice config hash-password`; empty: no login by password"},
    {"agents.*.skills", SL_CFG_LIST, "", 0, 0, true, "what she can do"},
    {"agents.*.queues", SL_CFG_LIST, "default", 0, 0, true, "which lines she takes customers from"},
    {"agents.*.capacity", SL_CFG_INT, "3", 1, 1000, true, "conversations at a time"},
    {"tokens.*.tenant", SL_CFG_STR, NULL, 0, 0, true, "whose API token"},
    {"tokens.*.secret", SL_CFG_SECRET, "", 0, 0, true, "the token itself: 16 bytes or more"},
    {"tokens.*.rights", SL_CFG_LIST, "", 0, 0, true, "messages:write, conversations:read"},
    {.key = NULL},
};

/* ---- inboxes ---- */

const struct gw_box *gw_find_box(const struct gw *gw, struct sl_str inbox)
{
    for (size_t i = 0; i < gw->box_count; i++)
        if (sl_str_eq_c(inbox, gw->boxes[i].inbox.name))
            return &gw->boxes[i];
    return NULL;
}

static const struct gw_inbox *find_inbox(void *arg, struct sl_str name)
{
    const struct gw_box *box = gw_find_box(arg, name);
    return box != NULL ? &box->inbox : NULL;
}

static const struct gw_agent *find_agent(void *arg, struct sl_str tenant, struct sl_str id_or_name)
{
    const struct gw *gw = arg;
    return gw_people_agent(gw->people, tenant, id_or_name);
}

static void read_rates(struct gw_box *box, const struct sl_config *cfg)
{
    char key[MSG_ID_MAX_BYTES + 32];
    (void)snprintf(key, sizeof key, "inboxes.%s.rate", box->inbox.name);
    box->inbox.rate_per_s = (unsigned)sl_config_int(cfg, key);
    (void)snprintf(key, sizeof key, "inboxes.%s.burst", box->inbox.name);
    box->inbox.burst = (unsigned)sl_config_int(cfg, key);
}

static sl_err open_box(struct gw *gw, struct gw_box *box, const struct sl_config *cfg, const char *name,
                       struct sl_fail *why)
{
    char key[MSG_ID_MAX_BYTES + 64];
    if (!key_part_ok(sl_str_c(name)))
        return sl_fail_set(why, SL_EINVAL, 0, "inboxes.%s: an inbox's name is letters, digits and ._@+- only",
                           name);
    (void)snprintf(key, sizeof key, "inboxes.%s.channel", name);
    const char *channel = sl_config_str(cfg, key);
    const struct chan_ops *ops = chan_find(sl_str_c(channel));
    if (ops == NULL)
        return sl_fail_set(why, SL_EINVAL, 0, "%s: there is no adapter \"%s\"", key, channel);
    (void)snprintf(key, sizeof key, "inboxes.%s.tenant", name);
    box->gw = gw;
    box->inbox.ch = chan_new(ops, &gw_host, box, gw->loop, name, sl_config_str(cfg, key), cfg, why);
    if (box->inbox.ch == NULL)
        return SL_EINVAL;
    box->inbox.name = chan_inbox(box->inbox.ch);
    box->inbox.tenant = chan_tenant(box->inbox.ch);
    read_rates(box, cfg);
    sl_err err = gw_delivery_check(box->inbox.ch, cfg, why);
    if (err != SL_OK)
        chan_free(&box->inbox.ch);
    return err;
}

static sl_err open_boxes(struct gw *gw, const struct sl_config *cfg, struct sl_fail *why)
{
    const char *const *names;
    size_t count = sl_config_entries(cfg, "inboxes", &names);
    gw->boxes = sl_alloc((count + 1) * sizeof gw->boxes[0]);
    for (size_t i = 0; i < count; i++) {
        sl_err err = open_box(gw, &gw->boxes[i], cfg, names[i], why);
        if (err != SL_OK)
            return err;
        gw->box_count++;
    }
    return SL_OK;
}

static sl_err start_boxes(struct gw *gw, struct sl_fail *why)
{
    for (size_t i = 0; i < gw->box_count; i++) {
        sl_err err = chan_start(gw->boxes[i].inbox.ch);
        if (err != SL_OK)
            return sl_fail_set(why, err, 0, "inboxes.%s: the adapter could not start",
                               gw->boxes[i].inbox.name);
    }
    return SL_OK;
}

/* ---- requests ---- */

static const struct {
    const char *method, *path;
    bool is_prefix;
    void (*answer)(struct gw *gw, struct chan_request *rq);
} routes[] = {
    {"GET", "/livez", false, gw_health_live},
    {"GET", "/readyz", false, gw_health_ready},
    {"GET", "/metrics", false, gw_health_metrics},
    {"GET", "/", false, gw_pages_visitor},
    {"GET", "/agent", false, gw_pages_agent},
    {"POST", "/v1/login", false, gw_rest_login},
    {"POST", "/v1/messages", false, gw_rest_messages},
    {"POST", "/v1/segments", false, gw_segments},
    {"GET", "/v1/conversations/", true, gw_rest_conversation},
    {"GET", "/media/", true, gw_media_get},
    {"POST", GW_UPLOAD_PATH, false, gw_media_post},
    {"GET", "/v1/media-link", false, gw_media_give_link},
};

static bool is_path(struct sl_str path, const char *route, bool is_prefix)
{
    return is_prefix ? sl_str_starts(path, route) && path.len > strlen(route) : sl_str_eq_c(path, route);
}

/* /<channel>/<inbox>[/...]: a provider calls its adapter. False: there is no such thing. */
static bool give_to_adapter(struct gw *gw, struct chan_request *rq)
{
    for (size_t i = 0; i < gw->box_count; i++) {
        struct chan *ch = gw->boxes[i].inbox.ch;
        char path[MSG_ID_MAX_BYTES + 64];
        (void)snprintf(path, sizeof path, "/%s/%s", chan_ops_of(ch)->name, chan_inbox(ch));
        size_t len = strlen(path);
        if (!(chan_ops_of(ch)->caps & CHAN_CAP_REQUEST) || !sl_str_starts(rq->path, path) ||
            (rq->path.len > len && rq->path.ptr[len] != '/'))
            continue;
        rq->rest = sl_str_n(rq->path.ptr + len, rq->path.len - len);
        sl_err err = chan_request(ch, rq);
        if (err != SL_OK)
            gw_rest_problem(rq, err, sl_err_text(err));
        return true;
    }
    return false;
}

static void on_request(void *arg, struct chan_request *rq)
{
    struct gw *gw = arg;
    bool is_path_known = false;
    bool is_get = sl_str_eq_c(rq->method, "GET") || sl_str_eq_c(rq->method, "HEAD");
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (!is_path(rq->path, routes[i].path, routes[i].is_prefix))
            continue;
        is_path_known = true;
        if (!sl_str_eq_c(rq->method, routes[i].method) && !(is_get && strcmp(routes[i].method, "GET") == 0))
            continue;
        routes[i].answer(gw, rq);
        return;
    }
    if (is_path_known)
        rq->answer(rq, 405, "text/plain", SL_STR("method not allowed\n"));
    else if (!give_to_adapter(gw, rq))
        gw_rest_problem(rq, SL_ENOTFOUND, "there is nothing at this path");
}

/* ---- start ---- */

static void on_store_ready(void *arg, bool is_ready)
{
    struct gw *gw = arg;
    sl_log(is_ready ? SL_INFO : SL_WARN,
           is_ready ? "store ready" : "store lost: frames are answered with EAGAIN");
    if (gw->hub != NULL)
        gw_hub_store_ready(gw->hub, is_ready);
}

static void on_store_unfit(void *arg, const struct sl_fail *why)
{
    (void)arg;
    sl_log(SL_ERROR, "the store cannot be used as it is", SL_KV_FAIL(why));
}

/* "host:port", ":port", "[v6]:port". */
sl_err gw_parse_listen(const char *text, char *host, size_t size, int *port, struct sl_fail *why)
{
    struct sl_str s = sl_str_c(text);
    const char *colon = memrchr(s.ptr, ':', s.len);
    uint64_t number = 0;
    if (colon == NULL || sl_str_uint(sl_str_c(colon + 1), &number) != SL_OK || number > 65535)
        return sl_fail_set(why, SL_EINVAL, 0,
                           "gateway.listen: expected address:port, such as 127.0.0.1:8080");
    struct sl_str name = sl_str_n(text, (size_t)(colon - text));
    if (name.len >= 2 && name.ptr[0] == '[')
        name = sl_str_n(name.ptr + 1, name.len - 2);
    if (name.len >= size)
        return sl_fail_set(why, SL_EINVAL, 0, "gateway.listen: the address is too long");
    memcpy(host, name.ptr, name.len);
    host[name.len] = '\0';
    if (strcmp(host, "0.0.0.0") == 0)
        host[0] = '\0';
    *port = (int)number;
    return SL_OK;
}

static sl_err open_front(struct gw *gw, const struct sl_config *cfg, struct sl_fail *why)
{
    char address[256];
    int port;
    sl_err err = gw_parse_listen(sl_config_str(cfg, "gateway.listen"), address, sizeof address, &port, why);
    if (err != SL_OK)
        return err;
    struct gw_front_config front = {.hub = gw->hub,
                                    .host = address,
                                    .port = port,
                                    .tls_cert = sl_config_str(cfg, "gateway.tls_cert"),
                                    .tls_key = sl_config_str(cfg, "gateway.tls_key"),
                                    .max_sockets = (size_t)sl_config_int(cfg, "gateway.max_sockets"),
                                    .per_ip = (size_t)sl_config_int(cfg, "gateway.per_ip"),
                                    .upload_max = (size_t)sl_config_int(cfg, "media.max"),
                                    .request = on_request,
                                    .arg = gw};
    gw->front = gw_front_open(&front, why);
    return gw->front != NULL ? SL_OK : why->code;
}

static void open_hub(struct gw *gw, const struct sl_config *cfg)
{
    struct gw_hub_config hub = {.loop = gw->loop,
                                .bus = gw->bus,
                                .directory = {.inbox = find_inbox, .agent = find_agent, .arg = gw},
                                .heartbeat_ms = (uint64_t)sl_config_int(cfg, "gateway.heartbeat"),
                                .hello_ms = (uint64_t)sl_config_int(cfg, "gateway.hello"),
                                .alive_ms = (uint64_t)sl_config_int(cfg, "gateway.alive"),
                                .command_ms = (uint64_t)sl_config_int(cfg, "gateway.repeat"),
                                .messages_per_s = (unsigned)sl_config_int(cfg, "gateway.messages_per_s")};
    if (gw_media_has_store(gw->media))
        hub.attachment_max_bytes = (uint64_t)gw_media_max_bytes(gw->media);
    gw->hub = gw_hub_new(&hub);
}

static void drain_step(void *arg);
static void end_failed_start(struct gw *gw);

static void free_boxes(struct gw *gw)
{
    for (size_t i = 0; i < gw->box_count; i++)
        chan_free(&gw->boxes[i].inbox.ch);
    free(gw->boxes);
    gw->boxes = NULL;
    gw->box_count = 0;
}

static void stop_media(struct gw *gw)
{
    gw_fetcher_close(&gw->fetcher);
    if (gw->media != NULL)
        gw_media_stop(gw->media);
}

struct gw *gw_start(struct sl_loop *l, const struct sl_config *cfg, const struct bus_config *store,
                    void (*on_stopped)(void *), void *arg, struct sl_fail *why)
{
    static const struct bus_events events = {.ready = on_store_ready, .unfit = on_store_unfit};
    struct gw *gw = sl_alloc(sizeof *gw);
    gw->loop = l;
    gw->on_stopped = on_stopped;
    gw->on_stopped_arg = arg;
    gw->drain_ms = (uint64_t)sl_config_int(cfg, "gateway.drain");
    sl_timer_init(&gw->step, l, drain_step, gw);
    gw->people = gw_people_new(cfg, why);
    if (gw->people == NULL || gw_host_media_open(gw, cfg, why) != SL_OK ||
        open_boxes(gw, cfg, why) != SL_OK) {
        gw_people_free(&gw->people);
        free_boxes(gw);
        free(gw);
        return NULL;
    }
    gw->bus = bus_open(l, store, &events, gw);
    gw->delivery = gw_delivery_new(gw);
    for (size_t i = 0; i < gw->box_count; i++)
        gw_delivery_add(gw->delivery, &gw->boxes[i], cfg);
    open_hub(gw, cfg);
    gw->logins = gw_logins_new(gw->hub);
    gw->health = gw_health_new(gw);
    if (open_front(gw, cfg, why) == SL_OK && start_boxes(gw, why) == SL_OK) {
        sl_log(SL_INFO, "listening", SL_KV("address", sl_config_str(cfg, "gateway.listen")),
               SL_KV_I("port", gw_port(gw)));
        return gw;
    }
    end_failed_start(gw);
    return NULL;
}

int gw_port(const struct gw *gw)
{
    return gw_front_port(gw->front);
}

/* ---- reload ---- */

void gw_reload(struct gw *gw, const struct sl_config *cfg)
{
    struct sl_fail why = {.text = ""};
    struct gw_people *people = gw_people_new(cfg, &why);
    if (people == NULL) {
        sl_log(SL_ERROR, "reload: agents and tokens stay as they were", SL_KV_FAIL(&why));
    } else {
        gw_people_free(&gw->people);
        gw->people = people;
    }
    gw->drain_ms = (uint64_t)sl_config_int(cfg, "gateway.drain");
    const char *const *names;
    size_t count = sl_config_entries(cfg, "inboxes", &names);
    for (size_t i = 0; i < count; i++) {
        struct gw_box *box = (struct gw_box *)(uintptr_t)gw_find_box(gw, sl_str_c(names[i]));
        if (box == NULL)
            continue; /* a new inbox needs a restart: sl_config_diff says so */
        read_rates(box, cfg);
        chan_reload(box->inbox.ch, cfg);
        gw_delivery_add(gw->delivery, box, cfg);
    }
    if (gw_front_reload_tls(gw->front, &why) != SL_OK)
        sl_log(SL_ERROR, "reload: TLS", SL_KV_FAIL(&why));
}

/* ---- the end ---- */

static void gw_go(struct gw *gw, enum gw_life next)
{
    static const char *const names[] = {"running",  "settling", "closing sockets", "flushing",
                                        "stopping", "ending",   "stopped"};
    sl_log(SL_INFO, "gateway", SL_KV("from", names[gw->life]), SL_KV("to", names[next]));
    gw->life = next;
}

static bool is_idle(const struct gw *gw)
{
    return gw->hub->commands == 0 && gw->hub->stalled == NULL && gw->appends == 0 &&
           gw_delivery_is_idle(gw->delivery);
}

static bool are_boxes_closed(const struct gw *gw)
{
    for (size_t i = 0; i < gw->box_count; i++)
        if (!gw->boxes[i].is_closed)
            return false;
    return true;
}

static void stop_edge(struct gw *gw)
{
    gw_logins_free(&gw->logins);
    for (size_t i = 0; i < gw->box_count; i++) {
        gw->boxes[i].is_closing = true;
        chan_close(gw->boxes[i].inbox.ch);
    }
    stop_media(gw);
    if (gw->front != NULL)
        gw_front_stop(gw->front); /* sockets that are still open are dropped here */
}

static size_t open_sockets(const struct gw *gw)
{
    return gw->front != NULL ? gw_front_sockets(gw->front) : 0;
}

static void stop_store(struct gw *gw)
{
    gw_hub_stop(gw->hub);
    gw_delivery_free(&gw->delivery);
    bus_close(&gw->bus);
    gw->stop_at_mono_ms = sl_loop_mono_ms(gw->loop) + STOP_MS;
}

/* Settling: what was sent is being appended and acknowledged. Then the sockets, then what their end caused, then the rest. */
static void drain_step(void *arg)
{
    struct gw *gw = arg;
    uint64_t now = sl_loop_mono_ms(gw->loop), passed = now - gw->drain_started_mono_ms;
    sl_timer_start(&gw->step, STEP_MS);
    switch (gw->life) {
    case GW_SETTLING:
        if (passed < SETTLE_MIN_MS || (!is_idle(gw) && passed < gw->drain_ms / 2))
            return;
        gw_go(gw, GW_CLOSING_SOCKETS);
        gw_delivery_release(gw->delivery);
        gw_front_close_sockets(gw->front, FRAME_CLOSE_RESTART);
        return;
    case GW_CLOSING_SOCKETS:
        if (open_sockets(gw) > 0 && passed < gw->drain_ms * 8 / 10)
            return;
        gw_go(gw, GW_FLUSHING);
        return;
    case GW_FLUSHING:
        if (!(is_idle(gw) && gw_delivery_is_released(gw->delivery)) && passed < gw->drain_ms * 9 / 10)
            return;
        gw_go(gw, GW_STOPPING);
        stop_edge(gw);
        return;
    case GW_STOPPING:
        if (open_sockets(gw) > 0 || (!are_boxes_closed(gw) && passed < gw->drain_ms))
            return; /* their last callbacks come on this turn or the next */
        gw_go(gw, GW_ENDING);
        stop_store(gw);
        return;
    case GW_ENDING:
        if (now < gw->stop_at_mono_ms || gw_media_jobs(gw->media) > 0)
            return; /* the disk answers in the end */
        if (!are_boxes_closed(gw) && now < gw->stop_at_mono_ms + LATE_MS)
            return;
        gw_go(gw, GW_STOPPED);
        sl_timer_stop(&gw->step);
        gw->on_stopped(gw->on_stopped_arg);
        return;
    case GW_RUNNING:
    case GW_STOPPED:
        sl_timer_stop(&gw->step);
        return;
    }
}

static void on_failed_end(void *arg)
{
    struct gw *gw = arg;
    gw_free(&gw);
}

/* Adapters that were started have timers, sockets and turns of their own: they are closed like at any other end, while whoever
 * called gw_start turns the loop until nothing is left. */
static void end_failed_start(struct gw *gw)
{
    gw->on_stopped = on_failed_end;
    gw->on_stopped_arg = gw;
    gw->life = GW_STOPPING;
    gw->drain_started_mono_ms = sl_loop_mono_ms(gw->loop);
    stop_edge(gw);
    sl_timer_start(&gw->step, STEP_MS);
}

void gw_drain(struct gw *gw)
{
    if (gw->life != GW_RUNNING)
        return;
    gw_go(gw, GW_SETTLING);
    gw->drain_started_mono_ms = sl_loop_mono_ms(gw->loop);
    gw->hub->is_draining = true;
    gw_delivery_stop(gw->delivery);
    for (size_t i = 0; i < gw->box_count; i++)
        chan_drain(gw->boxes[i].inbox.ch, gw->drain_started_mono_ms + gw->drain_ms);
    gw_front_drain(gw->front, 0, gw->drain_ms < 10000 ? gw->drain_ms : 10000);
    sl_timer_start(&gw->step, STEP_MS);
}

/* After gw_drain's on_stopped. */
void gw_free(struct gw **gwp)
{
    struct gw *gw = *gwp;
    *gwp = NULL;
    if (gw == NULL)
        return;
    sl_assert(gw->life == GW_STOPPED);
    sl_timer_stop(&gw->step);
    if (!are_boxes_closed(gw)) { /* its memory is still in use, and the process ends anyway */
        sl_log(SL_ERROR, "an adapter did not close in time");
        return;
    }
    gw_front_free(&gw->front);
    gw_logins_free(&gw->logins);
    gw_health_free(&gw->health);
    gw_hub_free(&gw->hub);
    gw_people_free(&gw->people);
    gw_media_close(&gw->media);
    free_boxes(gw);
    free(gw);
}
