/* channels/webhook/webhook_engine.h - one inbox that speaks a scheme: requests in, calls out.
 *
 * What     the scheme (webhook_scheme.h) says what is data; hooks add what is not: other signatures, numbers, ledgers. The adapters
 *          "webhook" and "sms_http" are two sets of keys and hooks around it.
 * In       a request is checked, mapped, and its events given to the core in order (an attachment is fetched first); it is answered
 *          when all of them are durable, with 503 when one was not: a provider's repeat then finds the others known.
 * Out      one call a job over base/http_client; what the answer means stands in the scheme.
 * Owner    the adapter's private part of its chan; all on the loop.
 * Bounds   WEBHOOK_REQUESTS_MAX requests, WEBHOOK_EVENTS_MAX events each, WEBHOOK_JOBS_MAX calls; beyond: 503, SL_EAGAIN.
 */
#ifndef CHANNELS_WEBHOOK_WEBHOOK_ENGINE_H
#define CHANNELS_WEBHOOK_WEBHOOK_ENGINE_H

#include "base/http_client.h"
#include "channels/webhook/webhook_scheme.h"

#define WEBHOOK_REQUESTS_MAX 128
#define WEBHOOK_JOBS_MAX     64
#define WEBHOOK_MEDIA_MAX    10 /* attachments of one message */
#define WEBHOOK_MEDIA_MS                                                                                     \
    3000 /* providers wait 3 to 15 s for an answer: what is not here by then is named, not attached */

struct webhook_engine;

struct webhook_item { /* one event on its way to the core; strings are its own */
    struct chan_ticket ticket;
    struct webhook_in *in;
    const struct webhook_map_rule *rule;
    char *id, *who, *text, *data, *context;
    char *media, *media_type, *media_name;
    char *remote_id, *code, *words;
    enum chan_outcome_word word;
    int64_t at_unix_ms;
    struct sl_buf attachments; /* JSON objects with commas between */
    size_t media_done;
    bool is_ready; /* hooks->hold has let it go */
};

struct webhook_job { /* one call */
    struct webhook_engine *engine;
    struct chan_job *job; /* NULL: settled */
    struct webhook_job *next;
    struct sl_buf method, url, body, headers; /* headers: lines with a NUL after each */
    struct sl_buf user, password;
    size_t header_count;
    char *address, *key;
    uint64_t http; /* 0: not begun */
    bool is_aborted;
};

struct webhook_hooks {
    /* Is this request from who it says? NULL: the scheme's rule. */
    sl_err (*verify)(void *owner, const struct chan_request *rq, const struct webhook_parts *parts,
                     struct sl_fail *why);
    /* The customer's address in canonical form, at most MSG_ID_MAX_BYTES, key_part_ok. NULL: webhook_address_write(). */
    sl_err (*address)(void *owner, struct sl_str raw, char out[MSG_ID_MAX_BYTES + 1]);
    /* Before a message is given: true: later, by webhook_item_go() (or _refuse()). */
    bool (*hold)(void *owner, struct webhook_item *it);
    /* Fill the call. NULL: the scheme's send. EINVAL with words: this message cannot be sent at all. */
    sl_err (*call)(void *owner, const struct chan_send *s, struct webhook_job *out, struct sl_fail *why);
    /* Before the call: SL_OK: later, by webhook_job_go() or _refuse(); EAGAIN: not now; ENOTFOUND: go on. */
    sl_err (*ask)(void *owner, struct webhook_job *j);
    /* Nothing is called any more: free what is the owner's. NULL: nothing is. */
    void (*closed)(void *owner);
    /* What the answer means, beside what the scheme says of it; r->code and words are there to read. */
    void (*judge)(void *owner, const struct webhook_job *j, const struct webhook_body *answer,
                  struct chan_result *r);
};

struct webhook_engine {
    struct chan *ch;
    const struct webhook_hooks *hooks;
    void *owner;
    struct webhook_scheme *scheme;
    struct sl_http *http;
    struct sl_post turn;
    struct sl_timer token_timer;
    char *secrets[WEBHOOK_SECRETS_MAX], *encrypt_key, *verify_token, *access_token, *app_secret;
    char *api, *public_url, *ca_file;
    char *basic; /* base64 of user:password, when the owner has one; NULL: none */
    char **vars, **allow;
    size_t var_count, allow_count;
    struct sl_buf token; /* got by a call */
    uint64_t token_until_mono_ms, token_call;
    unsigned token_failures;
    bool is_token_due, is_up_due, is_closing, is_draining, is_http_closed;
    size_t ins, jobs;
    struct webhook_in *in_list;
    struct webhook_fetch *fetches; /* under way */
    struct webhook_job *job_list, *dead_jobs;
    struct sl_metric *refused, *malformed, *ignored, *busy, *in_gauge;
};

/* The keys below inboxes.*. that the engine reads. */
#define WEBHOOK_KEYS                                                                                         \
    {"inboxes.*.secret", SL_CFG_SECRET, "", 0, 0, false, "what the provider signs with"},                    \
        {"inboxes.*.secret_previous",                                                                        \
         SL_CFG_SECRET,                                                                                      \
         "",                                                                                                 \
         0,                                                                                                  \
         0,                                                                                                  \
         false,                                                                                              \
         "the one before, while it still counts"},                                                           \
        {"inboxes.*.encrypt_key", SL_CFG_SECRET, "", 0, 0, false, "of encrypted events"},                    \
        {"inboxes.*.verify_token",                                                                           \
         SL_CFG_SECRET,                                                                                      \
         "",                                                                                                 \
         0,                                                                                                  \
         0,                                                                                                  \
         false,                                                                                              \
         "word that the provider shows at a handshake"},                                                     \
        {"inboxes.*.access_token", SL_CFG_SECRET, "", 0, 0, false, "what we show the provider"},             \
        {"inboxes.*.app_secret", SL_CFG_SECRET, "", 0, 0, false, "for a token that must be fetched"},        \
        {"inboxes.*.api_url",                                                                                \
         SL_CFG_STR,                                                                                         \
         "",                                                                                                 \
         0,                                                                                                  \
         0,                                                                                                  \
         false,                                                                                              \
         "the provider's interface, where it is not the usual one"},                                         \
        {"inboxes.*.public_url",                                                                             \
         SL_CFG_STR,                                                                                         \
         "",                                                                                                 \
         0,                                                                                                  \
         0,                                                                                                  \
         false,                                                                                              \
         "this inbox's address as the provider was told it"},                                                \
        {"inboxes.*.ca_file",                                                                                \
         SL_CFG_STR,                                                                                         \
         "",                                                                                                 \
         0,                                                                                                  \
         0,                                                                                                  \
         false,                                                                                              \
         "certificates to trust in calls; empty: the system's"},                                             \
        {"inboxes.*.allow_ips",                                                                              \
         SL_CFG_LIST,                                                                                        \
         "",                                                                                                 \
         0,                                                                                                  \
         0,                                                                                                  \
         false,                                                                                              \
         "addresses (or nets, a.b.c.d/n) that may call; empty: any"},                                        \
    {                                                                                                        \
        "inboxes.*.vars", SL_CFG_LIST, "", 0, 0, false, "name=value: ${var.name} in the scheme"              \
    }

/* scheme: owned from here on, even on failure. */
sl_err webhook_engine_open(struct webhook_engine *e, struct chan *ch, const struct webhook_hooks *hooks,
                           void *owner, struct webhook_scheme *scheme, const struct sl_config *cfg,
                           struct sl_fail *why) SL_MUST_CHECK;
void webhook_engine_fini(struct webhook_engine *e); /* after a failed open; else closed does it */
sl_err webhook_engine_start(struct webhook_engine *e);
sl_err webhook_engine_send(struct webhook_engine *e, const struct chan_send *s,
                           struct chan_job *job) SL_MUST_CHECK;
sl_err webhook_engine_request(struct webhook_engine *e, struct chan_request *rq) SL_MUST_CHECK;
void webhook_engine_accepted(struct webhook_engine *e, struct chan_ticket *t, sl_err result);
void webhook_engine_drain(struct webhook_engine *e);
void webhook_engine_close(struct webhook_engine *e);

/* For hooks. */
void webhook_item_go(struct webhook_item *it);
void webhook_item_refuse(struct webhook_item *it); /* busy: the provider will repeat */
void webhook_job_go(struct webhook_job *j);
void webhook_job_refuse(struct webhook_job *j, const char *code, const char *words, bool may_retry);
void webhook_job_header(struct webhook_job *j, const char *name, struct sl_str value);

/* A provider's id as an address: letters, digits and . _ + - stay, any other byte becomes @hh; a longer one is hashed ("h-...", and the
 * raw one must then stand in the context). And back. Pure. */
sl_err webhook_address_write(struct sl_str raw, char out[MSG_ID_MAX_BYTES + 1]) SL_MUST_CHECK;
void webhook_address_read(struct sl_str address, struct sl_buf *raw);
/* Is the address in one of the nets? Pure. */
bool webhook_net_has(const char *net, struct sl_str address);
bool webhook_net_ok(const char *net);

/* Between webhook_in.c and webhook_out.c. */
struct webhook_values { /* what a template of ours may name */
    const struct webhook_engine *engine;
    const struct chan_send *send; /* NULL: no message */
    json_t *context;              /* borrowed */
    struct sl_str query;
    struct sl_str media_url, media_name,
        media_type; /* of the message's attachment, for a kind that goes by its address */
};
/* The attachment of s by a link that anybody can open for a while; false: there is none, or no public address. The strings
 * of *v borrow from *store. */
bool webhook_media_find(const struct webhook_engine *e, const struct chan_send *s, struct webhook_values *v,
                        struct sl_buf *store);
bool webhook_lookup(void *values, struct sl_str name, struct sl_buf *out);
void webhook_out_turn(struct webhook_engine *e);
void webhook_in_close(struct webhook_engine *e);
void webhook_out_close(struct webhook_engine *e);
sl_err webhook_job_build(struct webhook_engine *e, const struct webhook_call *call,
                         const struct webhook_values *values, struct webhook_job *out, struct sl_fail *why);

#endif
