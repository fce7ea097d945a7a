/* gateway/gateway_priv.h - the one object of the process, for the files that answer HTTP requests. */
#ifndef GATEWAY_GATEWAY_PRIV_H
#define GATEWAY_GATEWAY_PRIV_H

#include "gateway/delivery.h"
#include "gateway/directory.h"
#include "gateway/fetch.h"
#include "gateway/front.h"
#include "gateway/gateway.h"
#include "gateway/hub.h"
#include "gateway/login.h"

struct gw_health;

/* One configured inbox with its adapter. */
struct gw_box {
    struct gw_inbox inbox; /* first; strings owned by ch */
    struct gw *gw;
    struct gw_sender *sender; /* its delivery lane; NULL: none */
    bool is_up, is_closed;
    bool is_closing; /* nothing is called back any more */
};

enum gw_life { GW_RUNNING, GW_SETTLING, GW_CLOSING_SOCKETS, GW_FLUSHING, GW_STOPPING, GW_ENDING, GW_STOPPED };

struct gw {
    struct sl_loop *loop;
    struct bus *bus;
    struct gw_hub *hub;
    struct gw_front *front;
    struct gw_people *people;
    struct gw_logins *logins;
    struct gw_health *health;
    struct gw_delivery *delivery;
    struct gw_media *media;
    struct gw_fetcher *fetcher;
    struct gw_box *boxes;
    size_t box_count;
    size_t appends; /* of adapters and REST, without an answer */
    enum gw_life life;
    uint64_t drain_ms, drain_started_mono_ms, stop_at_mono_ms;
    struct sl_timer step;
    void (*on_stopped)(void *arg);
    void *on_stopped_arg;
};

/* "host:port", ":port", "[v6]:port". */
sl_err gw_parse_listen(const char *text, char *host, size_t size, int *port,
                       struct sl_fail *why) SL_MUST_CHECK;
const struct gw_box *gw_find_box(const struct gw *gw, struct sl_str inbox);

/* Append one message that its sender names by an id. fn as bus_accept's. horizon_ms: how long it may be repeated. */
sl_err gw_append_message(struct gw *gw, const struct gw_inbox *inbox, const struct msg *m, int64_t horizon_ms,
                         bus_accept_fn fn, void *arg) SL_MUST_CHECK;

/* host.c: what adapters get; chan_core(ch) is their struct gw_box */
extern const struct chan_host gw_host;
/* host_kv.c */
sl_err gw_host_kv(struct chan *ch, const struct chan_kv *op, chan_kv_fn fn, void *arg);
void gw_host_alarm(struct chan *ch, const char *code, bool is_on, const char *words);
/* host_media.c */
sl_err gw_host_media_open(struct gw *gw, const struct sl_config *cfg, struct sl_fail *why) SL_MUST_CHECK;
sl_err gw_host_media_put(struct chan *ch, struct sl_str bytes, struct sl_str type, struct sl_str name,
                         chan_media_fn fn, void *arg);
sl_err gw_host_media_fetch(struct chan *ch, const struct chan_fetch *f, chan_media_fn fn, void *arg);
sl_err gw_host_media_read(struct chan *ch, struct sl_str id, chan_media_fn fn, void *arg);
void gw_host_media_link(struct chan *ch, struct sl_str id, struct sl_str name, struct sl_buf *out);
void gw_media_get(struct gw *gw, struct chan_request *rq);

/* upload.c */
void gw_media_post(struct gw *gw, struct chan_request *rq);
void gw_media_give_link(struct gw *gw, struct chan_request *rq);

/* rest.c */
void gw_rest_login(struct gw *gw, struct chan_request *rq);
void gw_rest_messages(struct gw *gw, struct chan_request *rq);
void gw_segments(struct gw *gw, struct chan_request *rq); /* segments.c */
void gw_rest_conversation(struct gw *gw, struct chan_request *rq);
void gw_rest_problem(struct chan_request *rq, sl_err code, const char *words);

/* health.c */
struct gw_health *gw_health_new(struct gw *gw);
void gw_health_free(struct gw_health **h);
void gw_health_live(struct gw *gw, struct chan_request *rq);
void gw_health_ready(struct gw *gw, struct chan_request *rq);
void gw_health_metrics(struct gw *gw, struct chan_request *rq);

/* pages.c */
void gw_pages_visitor(struct gw *gw, struct chan_request *rq);
void gw_pages_agent(struct gw *gw, struct chan_request *rq);

#endif
