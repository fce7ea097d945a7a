/* channels/wechat/wechat_priv.h - what the files of this folder share. */
#ifndef CHANNELS_WECHAT_WECHAT_PRIV_H
#define CHANNELS_WECHAT_WECHAT_PRIV_H

#include "channels/wechat/wechat.h"
#include "channels/wechat/wechat_crypt.h"
#include "channels/wechat/wechat_wire.h"

#include "base/http_client.h"
#include "base/metrics.h"

#define WECHAT_JOBS_MAX 256 /* sends that are not settled; beyond it SL_EAGAIN */
#define WECHAT_CALLS_MAX                                                                                     \
    256                     /* callbacks that wait for the store or for their passive answer; beyond it 503 */
#define WECHAT_KF_MAX    64 /* service accounts of one inbox */
#define WECHAT_MEDIA_MAX (20 << 20) /* bytes of one file: the largest that any of the products takes */

/* Doc/offiaccount: the platform waits 5 s for an answer and asks 3 times in all. */
#define WECHAT_ANSWER_MS      4500  /* when we stop waiting for a passive answer */
#define WECHAT_PASSIVE_ALL_MS 14500 /* from the customer's message to the end of the third try */
#define WECHAT_FETCH_MS       3000  /* a message waits this long for its picture */

enum wechat_mode { WECHAT_SAFE, WECHAT_COMPATIBLE, WECHAT_PLAIN };

struct wechat;

/* ---- access tokens ---- */

struct wechat_waiter {
    struct wechat_waiter *next;
    void (*fn)(void *arg, const struct wechat_error *why); /* NULL: a token is there */
    void *arg;
    bool is_waiting;
};
enum wechat_token_step { TOKEN_IDLE, TOKEN_READ, TOKEN_LOCK, TOKEN_FORCE, TOKEN_FETCH };
struct wechat_token {
    char token[1024], stored[1100], bad[1024]; /* stored: as the shared value stands, to drop it by */
    int64_t until_unix_ms;
    enum wechat_token_step step;
    bool is_bad, is_forced, has_lock;
    unsigned tries;
    char lock[40];
    struct sl_timer pause;
    struct wechat_waiter *first, **last;
    int64_t alarm_code; /* 0: none raised */
};

/* ---- sending ---- */

enum wechat_step { SEND_TOKEN, SEND_READ, SEND_UPLOAD, SEND_POST, SEND_STATE, SEND_PASSIVE, SEND_DONE };
struct wechat_job {
    struct wechat_job *next, **prev;
    struct wechat *wc;
    struct chan_job *job;
    enum wechat_step step;
    struct sl_buf bytes; /* the strings of m and s */
    struct msg m;
    struct sl_str address, key;
    char open_kfid[MSG_ID_MAX_BYTES + 1];
    char media_id[257], answer_id[48], account[MSG_ID_MAX_BYTES + 1];
    char used_token[1024];
    int64_t asked_unix_ms;      /* of the message that a passive answer belongs to */
    unsigned calls;             /* callbacks under way that name this job; its memory goes at 0 */
    bool has_asked_state;       /* kf: after 95018 */
    bool is_settled, is_posted; /* posted: the send itself may have left */
    unsigned polls;
    struct sl_buf answer; /* passive: as it stands in the shared value */
    struct wechat_waiter waiter;
    struct sl_timer timer;
};

/* ---- callbacks ---- */

struct wechat_call {
    struct wechat_call *next, **prev;
    struct wechat *wc;
    uint64_t id;
    struct chan_ticket ticket;
    struct chan_request *rq; /* NULL: answered, or an item of kf */
    struct sl_buf plain;     /* the message as it came, while its media are fetched */
    bool is_kf_item, is_parked, is_receipt;
    size_t kf_item; /* index in the page */
    char who[MSG_ID_MAX_BYTES + 1], answer_id[48];
    int64_t sent_unix_ms;
    uint64_t began_mono_ms;
    struct sl_timer timer;
    struct chan_media media;
    bool has_media, is_fetching;
};
struct wechat_fetch { /* one media file on its way; its call may be gone before it comes */
    struct wechat_fetch *next, **prev;
    struct wechat *wc;
    uint64_t call;
    char media_id[257], token[1024];
    struct wechat_waiter waiter;
};

/* ---- kf ---- */

struct wechat_kf_account {
    char open_kfid[MSG_ID_MAX_BYTES + 1], token[260];
    uint64_t token_until_mono_ms;
    bool is_due;
    unsigned tries;
    uint64_t not_before_mono_ms;
};
enum wechat_kf_step {
    KF_IDLE,
    KF_LOCK,
    KF_CURSOR,
    KF_TOKEN,
    KF_SYNC,
    KF_ITEMS,
    KF_SAVE,
    KF_RENEW,
    KF_UNLOCK
};
struct wechat_kf {
    struct wechat_kf_account account[WECHAT_KF_MAX];
    size_t accounts, at; /* at: the one that is drained */
    enum wechat_kf_step step;
    char lock[40], cursor[260];
    char used_token[1024];
    struct wechat_page page;
    bool has_page, has_lock;
    size_t item;
    struct wechat_waiter waiter;
    struct sl_timer timer;
};

/* ---- the inbox ---- */

struct wechat {
    struct chan *ch;
    enum wechat_product product;
    enum wechat_mode mode;
    bool is_passive, is_json;
    char *appid, *secret, *token, *receive_id, *agent_id, *open_kfid, *api_url, *kf_account, *welcome;
    char **events;
    size_t event_count;
    struct wechat_key key;
    int64_t freshness_ms, duplicate_check_s;
    bool kf_take_back;
    struct sl_http *http;
    unsigned http_calls;
    bool is_up_due, is_draining, is_closing, is_holder;
    struct sl_post turn;
    struct sl_timer drain;
    struct wechat_token tok;
    struct wechat_job *jobs;
    size_t job_count;
    struct wechat_call *calls;
    size_t call_count, ticket_count; /* tickets: callbacks whose accepted() has not come */
    uint64_t last_call;
    struct wechat_fetch *fetches;
    struct wechat_kf *kf;
    struct sl_metric *jobs_gauge, *calls_gauge;
};

struct wechat *wechat_of(struct chan *ch);

/* wechat.c */
sl_err wechat_kv(struct wechat *wc, enum chan_kv_op op, const char *name, struct sl_str value,
                 struct sl_str expected, int64_t ttl_ms, chan_kv_fn fn, void *arg) SL_MUST_CHECK;
/* Host's alarm for a code of the platform, raised once and cleared by wechat_alarm_clear. */
void wechat_alarm(struct wechat *wc, const struct wechat_error *why);
void wechat_alarm_clear(struct wechat *wc);
void wechat_finish(struct wechat *wc); /* report closed, when nothing is left */
void wechat_count(const char *what);
const char *wechat_random_name(char out[40]);

/* wechat_token.c */
void wechat_token_init(struct wechat *wc);
/* The token, or NULL: then wait. */
const char *wechat_token_now(struct wechat *wc);
void wechat_token_wait(struct wechat *wc, struct wechat_waiter *w);
void wechat_token_leave(struct wechat *wc, struct wechat_waiter *w);
/* A call with this one was refused: get another, at most one forced refresh in 30 s over all gateways. */
void wechat_token_refused(struct wechat *wc, const char *token);
void wechat_token_close(struct wechat *wc);
/* POST body (JSON unless content_type says otherwise) to path of the API with the token; path may have a query.
 * GET when body is empty. fn: exactly once. */
sl_err wechat_api(struct wechat *wc, const char *path, const char *token, const char *content_type,
                  struct sl_str body, size_t max_bytes, sl_http_fn fn, void *arg) SL_MUST_CHECK;
void wechat_url_part(struct sl_buf *out, struct sl_str text); /* percent-encoded */

/* wechat_state.c: after 95018. false: it was asked before, or cannot be; then the refusal stands. */
bool wechat_state_ask(struct wechat_job *j);

/* wechat_send.c */
void wechat_job_post(struct wechat_job *j); /* the call itself, again */
sl_err wechat_send(struct chan *ch, const struct chan_send *s, struct chan_job *job);
void wechat_typing(struct chan *ch, struct sl_str address, bool is_typing);
void wechat_job_settle(struct wechat_job *j, const struct chan_result *r);
void wechat_job_fail(struct wechat_job *j, enum chan_outcome outcome, bool may_retry, const char *code,
                     const char *words);
void wechat_jobs_end(struct wechat *wc); /* settle what is left: drain's deadline, or close */
void wechat_job_unref(struct wechat_job *j);
void wechat_jobs_free(struct wechat *wc);
sl_err wechat_tell(struct wechat *wc, const char *welcome_code, const char *open_kfid,
                   struct sl_str text) SL_MUST_CHECK;

/* wechat_callback.c */
sl_err wechat_request(struct chan *ch, struct chan_request *rq);
void wechat_accepted(struct chan *ch, struct chan_ticket *t, sl_err result);
struct wechat_call *wechat_call_new(struct wechat *wc);
void wechat_call_free(struct wechat_call *c);
/* Give what was read to the host. For kf's items, too: the result comes to wechat_kf_stored. */
sl_err wechat_ingest(struct wechat_call *c, const struct wechat_in *in) SL_MUST_CHECK;
/* Fetch in->media_id, then (or after WECHAT_FETCH_MS without it) ingest. */
sl_err wechat_ingest_with_media(struct wechat_call *c, const struct wechat_in *in) SL_MUST_CHECK;
void wechat_calls_end(struct wechat *wc);
void wechat_calls_free(struct wechat *wc);
void wechat_success(struct wechat_call *c);

/* wechat_passive.c */
void wechat_passive_park(struct wechat_call *c);
void wechat_passive_begin(struct wechat_job *j); /* the answer is written in j->answer */

/* wechat_kf.c */
void wechat_kf_hint(struct wechat *wc, struct sl_str open_kfid, struct sl_str token);
void wechat_kf_hold(struct wechat *wc);
void wechat_kf_stored(struct wechat *wc, struct wechat_call *c, sl_err result);
/* The media of the item under way are there, or will not come: ingest it. */
void wechat_kf_media_done(struct wechat *wc, struct wechat_call *c);
void wechat_kf_open(struct wechat *wc);
void wechat_kf_close(struct wechat *wc);

#endif
