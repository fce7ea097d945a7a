/* channels/channel.h - the contract between the gateway core and one channel adapter.
 *
 * What     an adapter turns one provider's traffic into struct msg, and struct msg into that traffic. It owns
 *          a protocol, never a listener on the web port, never the store: the core (gateway/) gives it
 *          requests, frames and jobs through this header.
 * Threads  everything here runs on the gateway's one loop.
 * Read     channels/loopback/loopback.c is the smallest complete adapter; docs/write-a-channel.md.
 * Source   docs/adr/0003-channel-contract.md, docs/adr/0007-delivery-lanes.md
 *
 * Sending  a delivery lane (gateway/lane.c) fits each message to the channel's limits, keeps the order inside a
 *          conversation, the rate, the retries and the policy for unknown outcomes. send() is asked for one
 *          part of one message, after the lane has committed that it is being sent; it says once what
 *          became of it. An adapter therefore never retries a send, never queues behind a rate, never splits.
 *
 * The contract, each number a test in tests/contract run on every registered adapter:
 *   1  nothing here blocks
 *   2  no host call that tells or asks the core something before the ops call returns (now, media_link, pick: fine)
 *   3  one settlement (host->settled) per accepted job
 *   4  after drain no inbound
 *   5  after closed nothing
 *   6  unknown configuration keys are refused
 *   7  a provider's retry gives the same msg.id (receipts: the same id)
 *   8  bounded memory under a stalled peer
 *   9  nothing is acknowledged to the provider before ops->accepted said SL_OK
 */
#ifndef CHANNELS_CHANNEL_H
#define CHANNELS_CHANNEL_H

#include "base/config.h"
#include "base/loop.h"
#include "proto/message.h"

#define CHAN_API 3

struct chan;     /* one configured inbox of one adapter; owned by the core */
struct chan_job; /* the core's receipt for one send; valid until settled */

enum chan_cap {
    CHAN_CAP_SEND = 1,    /* send() works: the provider is given replies, through a delivery lane */
    CHAN_CAP_SOCKET = 2,  /* its customers hold a WebSocket of ours: hello() and frames */
    CHAN_CAP_REQUEST = 4, /* its provider calls a webhook of ours: request() */
    CHAN_CAP_STORE =
        8, /* without a media store some of what it is sent cannot be taken: --check-config asks for one */
};
enum chan_state { CHAN_DOWN, CHAN_UP };

/* ---- limits: what a channel can carry, as data. The lane fits messages to it (proto/fit.h). ---- */

enum chan_unit { CHAN_BYTES, CHAN_CHARS }; /* of text_max: bytes of UTF-8, code points */
enum chan_unknown {                        /* what to do when an outcome is unknown */
                    CHAN_AT_MOST_ONCE,     /* never again; a person is told */
                    CHAN_AT_LEAST_ONCE,    /* again after a grace time: twice is better than never */
                    CHAN_IDEMPOTENT,       /* again with the same key: the provider drops a repeat */
                    CHAN_QUERYABLE,        /* ask by query(), then again only if the provider never had it */
};
struct chan_limits {
    size_t text_max; /* in one part; 0: no limit of its own */
    enum chan_unit text_unit;
    unsigned kinds;          /* 1u << MSG_IMAGE | ...: what send() takes beside text; others become text */
    unsigned bare;           /* of these, attachments that carry no words: words become a part of their own */
    size_t options_max;      /* of a choice; more, or 0: the choice becomes numbered text */
    int64_t media_max_bytes; /* of an attachment; larger ones become a text with a link */
    enum chan_unknown unknown;   /* default of inboxes.*.unknown */
    unsigned rate_per_s, window; /* defaults of inboxes.*.send_rate, .send_window (jobs at once) */
};

/* ---- in ---- */

/* What an inbound event is. A rating: number 1..5 in the ticket. */
enum chan_what { CHAN_MESSAGE, CHAN_RATING, CHAN_HANGUP };

/* One inbound message on its way to the store. The adapter makes it, the core hands it back in accepted().
 * All strings are borrowed until inbound() returns. */
struct chan_ticket {
    void *owner;      /* the adapter's */
    uint64_t socket;  /* id of the socket it came on, 0 if none */
    struct sl_str id; /* as the sender named it; borrowed: copied by the core */
    uint64_t number;  /* number in the socket's session, 0: deduplicated by msg.id */
    enum chan_what what;
    int rating;            /* CHAN_RATING: 1..5 */
    struct sl_str context; /* JSON object, at most CHAN_CONTEXT_MAX bytes, or empty: what the adapter needs to
                                   answer (thread, reply number, subject). send() gets the latest one back. */
    struct sl_str conversation; /* proven thread: the id of one of our conversations, or empty */
    int64_t quota_ms; /* this event lets us send quota_count messages within quota_ms; 0: no quota here */
    unsigned quota_count;
};
#define CHAN_CONTEXT_MAX 4096

/* A provider's word about a message that was sent. Appended to the lane's log; then ops->accepted(). */
struct chan_receipt {
    struct sl_str
        remote_id; /* as send() would have told it: canonical, the adapter normalises case, zeros, base */
    enum chan_outcome_word { CHAN_WORD_SENT, CHAN_WORD_DELIVERED, CHAN_WORD_READ, CHAN_WORD_FAILED } word;
    struct sl_str code, words; /* the provider's code, and the reason in plain words; may be empty */
    int64_t at_unix_ms;        /* 0 unknown */
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
    struct sl_str rest;   /* of the path after /<channel>/<inbox>: "" or "/status" */
    struct sl_str remote; /* the peer's address, text */
    struct sl_str (*header)(const struct chan_request *rq,
                            const char *lower_case_name); /* empty when absent */
    void (*answer)(struct chan_request *rq, int status, const char *content_type,
                   struct sl_str body); /* once, now or later */
    void *core;
};

/* ---- out ---- */

struct chan_send {         /* one part of one message; all borrowed until send() returns */
    const struct msg *m;   /* already fitted: text within text_max, kind among kinds */
    struct sl_str address; /* to whom: as inbound() named it in msg.who */
    struct sl_str
        key; /* idempotency key, [0-9a-z_-] at most 32 bytes: the same in every attempt of this part */
    struct sl_str context;   /* JSON of the latest inbound's ticket, or empty */
    unsigned part, parts;    /* 1..parts */
    unsigned attempt;        /* 1.. */
    struct sl_str done;      /* as an earlier try of this part told it (chan_result.done), or empty */
    struct sl_str remote_id; /* query(): what is known of it, may be empty */
};
enum chan_outcome {
    CHAN_SENT,    /* the provider has it: remote_id */
    CHAN_FAILED,  /* it certainly has not, or not all of it (done); may_retry: trying again makes sense */
    CHAN_UNKNOWN, /* it may have been sent: the inbox's policy decides */
    CHAN_NEVER,   /* query() only: the provider never had it */
};
struct chan_result {
    enum chan_outcome outcome;
    struct sl_str
        remote_id; /* the provider's ids in canonical form, separated by commas when it made several. Those
                      of this try; also of what was taken of a part that failed or is unknown */
    /* An adapter that sends a part in pieces (segments of a short message): which the provider has, in the
     * adapter's own words, at most CHAN_DONE_MAX bytes. The next try gets them back and sends the others. */
    struct sl_str done;
    struct sl_str code;  /* the provider's own code */
    struct sl_str words; /* why, in plain words for an agent; not empty unless CHAN_SENT */
    bool may_retry;
    bool is_account;        /* the whole account is to pause (rate, token, circuit), not this message alone */
    int64_t retry_after_ms; /* as the provider asked; 0: back-off */
};

#define CHAN_DONE_MAX 160

/* Small values that all gateways share, of this inbox: cursors, access tokens, joined parts. */
enum chan_kv_op {
    CHAN_KV_GET, /* value, or SL_ENOTFOUND */
    CHAN_KV_SET,
    CHAN_KV_ADD,  /* only when absent, else SL_ECONFLICT with the present value: a lock with a time limit */
    CHAN_KV_SWAP, /* only when the value equals `expected`, else SL_ECONFLICT with the present value */
    CHAN_KV_DROP, /* delete, only when the value equals `expected` (empty: in any case) */
    CHAN_KV_PUT,  /* set one field of a map; answers the whole map: name\0value\0 ... in no order */
};
struct chan_kv {
    enum chan_kv_op op;
    struct sl_str name;            /* key_part_ok */
    struct sl_str field;           /* CHAN_KV_PUT */
    struct sl_str value, expected; /* at most CHAN_KV_MAX bytes */
    int64_t ttl_ms;                /* > 0 for everything that writes, but a cursor: 0 keeps it */
};
#define CHAN_KV_MAX 65536
typedef void (*chan_kv_fn)(void *arg, sl_err err, struct sl_str value);

/* An attachment's bytes live in the media store, never in a log. */
struct chan_media {
    char id[65];               /* names it: sha256 in hex */
    char type[128], name[256]; /* checked: no control characters, no path */
    int64_t size;
};
typedef void (*chan_media_fn)(void *arg, sl_err err, const struct chan_media *media, struct sl_str bytes,
                              const struct sl_fail *why); /* bytes: media_read only */
struct chan_fetch { /* a guarded download (no private addresses, size, time, redirects) */
    const char *url;
    const char *const
        *headers;       /* "Name: value" ..., NULL-terminated; NULL: none. Never sent to another host */
    struct sl_str body; /* not empty: POST */
    int64_t max_bytes;
    bool is_trusted_host; /* the address comes from configuration (a provider's API): may be private */
};

struct chan_ops {
    unsigned api;              /* CHAN_API at compile time; a mismatch is refused at start */
    const char *name;          /* "webchat": config value, metric label, envelope field */
    unsigned caps;             /* CHAN_CAP_*: the core never asks for what is not here */
    size_t priv_size;          /* the core allocates this, zeroed; chan_priv(ch) */
    struct chan_limits limits; /* CHAN_CAP_SEND */
    int64_t horizon_ms;        /* how long its provider repeats a message; 0: sessions number their frames */
    const struct sl_key *keys; /* adapter's keys below inboxes.*. ; the core has checked them */
    sl_err (*open)(struct chan *ch, const struct sl_config *cfg,
                   struct sl_fail *why); /* what a table cannot check; no I/O */
    sl_err (*start)(struct chan *ch);    /* begin; report CHAN_UP later */
    /* This configured inbox's limits, when they depend on its configuration (an SMS account, a webhook scheme);
     * NULL: ops->limits. */
    void (*limits_of)(const struct chan *ch, struct chan_limits *out);
    /* This process now holds the inbox's lane (true), or no longer (false): what one process alone must do
     * (polling a mailbox, draining a hint) is done while it is held. May be NULL. */
    void (*hold)(struct chan *ch, bool is_holder);
    /* s is borrowed until return. SL_OK: accepted, exactly one host->settled follows, never before return.
     * SL_EAGAIN: not connected or too much at once; nothing was sent. */
    sl_err (*send)(struct chan *ch, const struct chan_send *s, struct chan_job *job);
    /* What became of an earlier attempt? The same rules as send(): CHAN_SENT, CHAN_NEVER or CHAN_UNKNOWN.
     * NULL: cannot ask. */
    sl_err (*query)(struct chan *ch, const struct chan_send *s, struct chan_job *job);
    /* The agent or bot is typing; best effort. May be NULL. */
    void (*typing)(struct chan *ch, struct sl_str address, bool is_typing);
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
    /* Takes m by copy (m->who: the sender's canonical address). SL_OK: exactly one ops->accepted(ch, t, ..)
     * follows, never before return; SL_EAGAIN: stop reading, answer busy. */
    sl_err (*inbound)(struct chan *ch, const struct msg *m, struct chan_ticket *t);
    /* The same for a receipt; only t->owner and t->id (the receipt's own identity, the same when it is
     * repeated) are used. */
    sl_err (*receipt)(struct chan *ch, const struct chan_receipt *r, struct chan_ticket *t);
    void (*settled)(struct chan *ch, struct chan_job *job, const struct chan_result *r);
    /* Asynchronous: SL_OK, then one fn, never before return. After close() nothing is called back. SL_EAGAIN:
     * the store is not there. In fn SL_ETIMEOUT, SL_ECLOSED: it may have been written. */
    sl_err (*kv)(struct chan *ch, const struct chan_kv *op, chan_kv_fn fn, void *arg);
    sl_err (*media_put)(struct chan *ch, struct sl_str bytes, struct sl_str type, struct sl_str name,
                        chan_media_fn fn, void *arg);
    sl_err (*media_fetch)(struct chan *ch, const struct chan_fetch *f, chan_media_fn fn, void *arg);
    sl_err (*media_read)(struct chan *ch, struct sl_str id, chan_media_fn fn, void *arg);
    /* A signed public URL that expires; empty out when the gateway has no public address. */
    void (*media_link)(struct chan *ch, struct sl_str id, struct sl_str name, struct sl_buf *out);
    /* A person must look (secret wrong, account banned, address not allowed): logged, gauge
     * sluice_channel_alarm{inbox,code} = 1 until the same code is cleared (is_on false). */
    void (*alarm)(struct chan *ch, const char *code, bool is_on, const char *words);
    void (*state)(struct chan *ch, enum chan_state now);
    void (*closed)(struct chan *ch); /* the last call ever made for ch */
};

/* registry.c: every adapter, and the checked door to it. Nobody else calls ops. */
const struct chan_ops *chan_find(struct sl_str name);
const struct chan_ops *const *chan_all(size_t *count);
/* The keys of all adapters, each once, for whoever puts the whole table together; ends with a NULL key. Adapters may
 * share a key of the same type ("secret"). */
const struct sl_key *chan_keys(void);
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
void chan_limits(const struct chan *ch, struct chan_limits *out);
/* A key below this inbox: "inboxes.<inbox>.<name>". */
#define CHAN_KEY_MAX (MSG_ID_MAX_BYTES + 64)
void chan_key(const struct chan *ch, const char *name, char out[CHAN_KEY_MAX]);
sl_err chan_start(struct chan *ch) SL_MUST_CHECK;
void chan_hold(struct chan *ch, bool is_holder);
sl_err chan_send(struct chan *ch, const struct chan_send *s, struct chan_job *job) SL_MUST_CHECK;
sl_err chan_query(struct chan *ch, const struct chan_send *s, struct chan_job *job) SL_MUST_CHECK;
void chan_typing(struct chan *ch, struct sl_str address, bool is_typing);
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
