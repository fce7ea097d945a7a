/* channels/channel.h - the contract between the gateway core and one channel adapter.
 *
 * What     an adapter turns one provider's traffic into struct msg, and struct msg into that traffic. It owns
 *          a protocol, never a listener on the web port, never the store: the core (gateway/) gives it
 *          requests, frames and jobs through this header.
 * Threads  everything here runs on the gateway's one loop.
 * Read     channels/loopback/loopback.c is the smallest complete adapter.
 * Source   docs/adr/0003-channel-contract.md
 *
 * The contract, each number a test in tests/contract run on every registered adapter:
 *   1  nothing here blocks
 *   2  no host call before the ops call returns
 *   3  one settlement (sent, failed or unknown) per accepted job
 *   4  after drain no inbound
 *   5  after closed nothing
 *   6  unknown configuration keys are refused
 *   7  a provider's retry gives the same msg.id
 *   8  bounded memory under a stalled peer
 *   9  nothing is acknowledged to the provider before ops->accepted said SL_OK
 */
#ifndef CHANNELS_CHANNEL_H
#define CHANNELS_CHANNEL_H

#include "base/config.h"
#include "base/loop.h"
#include "proto/message.h"

#define CHAN_API 1

struct chan;     /* one configured inbox of one adapter; owned by the core */
struct chan_job; /* the core's receipt for one send; valid until settled */

enum chan_cap {
    CHAN_CAP_SEND = 1,    /* send() works: the provider is given replies */
    CHAN_CAP_SOCKET = 2,  /* its customers hold a WebSocket of ours: hello() and frames */
    CHAN_CAP_REQUEST = 4, /* its provider calls a webhook of ours: request() */
};
enum chan_state { CHAN_DOWN, CHAN_UP };

/* One inbound message on its way to the store. The adapter makes it, the core hands it back in accepted(). */
struct chan_ticket {
    void *owner;      /* the adapter's */
    uint64_t socket;  /* id of the socket it came on, 0 if none */
    struct sl_str id; /* as the sender named it; borrowed: copied by the core */
    uint64_t number;  /* number in the socket's session, 0: deduplicated by msg.id */
};

/* A socket's first frame, judged by the adapter. */
struct chan_hello {
    struct sl_str origin, token, inbox, client;
    int64_t now_unix_ms;
};
struct chan_visitor {                   /* who it is */
    char address[MSG_ID_MAX_BYTES + 1]; /* canonical, key_part_ok */
    char token[512]; /* what the client should keep and show next time (a fresh one when it had none); empty:
                        keep the old */
};

struct chan_request { /* a webhook request on the gateway's port, whole */
    struct sl_str method, path, query, body;
    struct sl_str (*header)(const struct chan_request *rq,
                            const char *lower_case_name); /* empty when absent */
    void (*answer)(struct chan_request *rq, int status, const char *content_type,
                   struct sl_str body); /* once, now or later */
    void *core;
};

struct chan_ops {
    unsigned api;              /* CHAN_API at compile time; a mismatch is refused at start */
    const char *name;          /* "webchat": config value, metric label, envelope field */
    unsigned caps;             /* CHAN_CAP_*: the core never asks for what is not here */
    size_t priv_size;          /* the core allocates this, zeroed; chan_priv(ch) */
    size_t text_max;           /* bytes of UTF-8 in one outgoing text; 0 = no limit of its own */
    int64_t horizon_ms;        /* how long its provider repeats a message; 0: sessions number their frames */
    const struct sl_key *keys; /* adapter's keys below inboxes.*. ; the core has checked them */
    sl_err (*open)(struct chan *ch, const struct sl_config *cfg,
                   struct sl_fail *why); /* what a table cannot check; no I/O */
    sl_err (*start)(struct chan *ch);    /* begin; report CHAN_UP later */
    /* m is borrowed until return. SL_OK: accepted, exactly one of host->sent, failed, unknown follows, never
     * before return. */
    sl_err (*send)(struct chan *ch, const struct msg *m, struct chan_job *job);
    /* durable (SL_OK), a repeat of something durable (SL_OK), or refused: only now 200, 250, ESME_ROK, ack */
    void (*accepted)(struct chan *ch, struct chan_ticket *t, sl_err result);
    sl_err (*request)(struct chan *ch, struct chan_request *rq);
    sl_err (*hello)(struct chan *ch, const struct chan_hello *in, struct chan_visitor *out,
                    struct sl_fail *why); /* EAUTH, EDENIED */
    /* A command frame of a visitor: check and fill m (borrowing from the arguments). EINVAL, ETOOBIG with
     * words. */
    sl_err (*frame)(struct chan *ch, struct sl_str kind, struct sl_str text, struct sl_str data_json,
                    struct msg *m, struct sl_fail *why);
    void (*reload)(struct chan *ch, const struct sl_config *cfg); /* take over reloadable keys; may be NULL */
    void (*drain)(struct chan *ch, uint64_t deadline_mono_ms);    /* settle every job, then idle */
    void (*close)(struct chan *ch);                               /* free; ends with host->closed */
};

struct chan_host { /* what the core gives; a fake one drives the contract tests */
    /* Takes m by copy. SL_OK: exactly one ops->accepted(ch, t, ..) follows, never before return; SL_EAGAIN:
     * stop reading, answer busy. */
    sl_err (*inbound)(struct chan *ch, const struct msg *m, struct chan_ticket *t);
    void (*sent)(struct chan *ch, struct chan_job *job, struct sl_str remote_id);
    void (*failed)(struct chan *ch, struct chan_job *job, const struct sl_fail *why);
    void (*unknown)(struct chan *ch, struct chan_job *job,
                    const struct sl_fail *why); /* it may have been sent */
    void (*state)(struct chan *ch, enum chan_state now);
    void (*closed)(struct chan *ch); /* the last call ever made for ch */
};

/* registry.c: every adapter, and the checked door to it. Nobody else calls ops. */
const struct chan_ops *chan_find(struct sl_str name);
const struct chan_ops *const *chan_all(size_t *count);
struct chan *chan_new(const struct chan_ops *ops, const struct chan_host *host, void *core, struct sl_loop *l,
                      const char *inbox, const char *tenant, const struct sl_config *cfg,
                      struct sl_fail *why);
void chan_free(struct chan **ch); /* only after host->closed */
void *chan_priv(struct chan *ch);
void *chan_core(struct chan *ch);
struct sl_loop *chan_loop(struct chan *ch);
const struct chan_host *chan_host_of(struct chan *ch);
const char *chan_inbox(const struct chan *ch);
const char *chan_tenant(const struct chan *ch);
const struct chan_ops *chan_ops_of(const struct chan *ch);
sl_err chan_start(struct chan *ch) SL_MUST_CHECK;
sl_err chan_send(struct chan *ch, const struct msg *m, struct chan_job *job) SL_MUST_CHECK;
void chan_accepted(struct chan *ch, struct chan_ticket *t, sl_err result);
sl_err chan_hello(struct chan *ch, const struct chan_hello *in, struct chan_visitor *out,
                  struct sl_fail *why) SL_MUST_CHECK;
sl_err chan_frame(struct chan *ch, struct sl_str kind, struct sl_str text, struct sl_str data_json,
                  struct msg *m, struct sl_fail *why) SL_MUST_CHECK;
sl_err chan_request(struct chan *ch, struct chan_request *rq) SL_MUST_CHECK;
void chan_reload(struct chan *ch, const struct sl_config *cfg);
void chan_drain(struct chan *ch, uint64_t deadline_mono_ms);
void chan_close(struct chan *ch);

#endif
