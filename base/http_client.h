/* base/http_client.h - HTTP requests and other libcurl transfers on our loop, each settled exactly once.
 *
 * What     one client is a bounded set of calls over one libcurl multi handle with a pool of kept connections. On a virtual
 *          loop no socket is opened: a fake that a test has set answers.
 * Calls    SL_OK: fn follows exactly once, never before return, on a stack of its own, so fn may start, cancel or close
 *          anything. Any other result: fn never comes.
 * Sent?    a failed request says whether anything of it may have left: SL_HTTP_NOT_SENT is certain (no name, no connection, no
 *          TLS, not begun); everything else is SL_HTTP_MAY_BE_SENT. libcurl by itself sends a request a second time when a kept
 *          connection turns out to be dead (lib/transfer.c, Curl_retry_request); here only when may_repeat says so.
 * Secrets  URLs beyond the host, headers and bodies are never logged nor put into words. No proxy of the environment is used.
 * Source   libcurl's manual pages CURLOPT_PREREQFUNCTION(3), CURLMOPT_SOCKETFUNCTION(3), CURLINFO_REQUEST_SIZE(3),
 *          CURLOPT_QUICK_EXIT(3), 7.88.1
 */
#ifndef BASE_HTTP_CLIENT_H
#define BASE_HTTP_CLIENT_H

#include "base/loop.h"
#include "base/str.h"

struct sockaddr;
struct sl_http;

struct sl_http_options {
    const char *name;    /* label of the gauge sluice_http_calls; NULL: "default" */
    size_t max_calls;    /* under way at once, beyond it SL_EAGAIN; 0: 64 */
    const char *ca_file; /* PEM; NULL or "": the system's */
};

struct sl_http *sl_http_new(struct sl_loop *l,
                            const struct sl_http_options *o); /* o NULL: defaults; copied */
/* Every call under way settles with SL_ECLOSED on a later turn, then memory goes: let the loop turn. */
void sl_http_close(struct sl_http **h);
size_t sl_http_calls(const struct sl_http *h); /* under way or about to settle */

struct sl_http_request {
    const char *method;         /* NULL: GET, or POST with a body */
    const char *url;            /* http or https */
    const char *const *headers; /* "Name: value", NULL-terminated; NULL: none. No CR, LF in them: SL_EINVAL */
    struct sl_str body;
    bool is_body_borrowed;       /* it stays until fn; else it is copied */
    const char *user, *password; /* Basic; NULL: none */
    uint64_t connect_ms;         /* name, connection and TLS; 0: 5 s */
    uint64_t whole_ms;           /* 0: 30 s */
    size_t max_bytes;            /* of the answer's body; 0: 1 MiB */
    unsigned
        redirects;   /* followed at most; GET and HEAD only. Headers of ours go along: see gateway/fetch.h */
    bool may_repeat; /* sending it twice does no harm */
    /* Asked for each address before it is connected to; false: not this one. NULL: any. */
    bool (*may_connect)(void *arg, const struct sockaddr *to);
    void *may_connect_arg;
    const char *resolve; /* for tests: "host:port:address" instead of asking the name server; NULL: ask */
};

enum sl_http_sent { SL_HTTP_NOT_SENT, SL_HTTP_MAY_BE_SENT };
struct sl_http_answer {     /* all borrowed until fn returns */
    sl_err err;             /* SL_OK: a whole answer came, whatever its status */
    enum sl_http_sent sent; /* for err != SL_OK */
    int status;             /* 0: no head was read */
    struct sl_str head;     /* lines of the last head, each with CRLF */
    struct sl_str body;
    const char *url;    /* the last one, after redirects */
    bool is_refused;    /* may_connect refused the only addresses there were */
    struct sl_fail why; /* err != SL_OK */
};
/* Value of the first header of this name; empty when absent. */
struct sl_str sl_http_header(const struct sl_http_answer *a, const char *lower_case_name);
/* Retry-After in ms: seconds, or a date seen from now (RFC 9110 10.2.3); 0: none, -1: nonsense. */
int64_t sl_http_retry_after_ms(const struct sl_http_answer *a, int64_t now_unix_ms);

typedef void (*sl_http_fn)(void *arg, const struct sl_http_answer *a);
/* SL_EAGAIN: too many under way. SL_EINVAL. id (may be NULL) names the call for sl_http_cancel; never 0. */
sl_err sl_http_request(struct sl_http *h, const struct sl_http_request *rq, sl_http_fn fn, void *arg,
                       uint64_t *id) SL_MUST_CHECK;
/* Settles with SL_ECLOSED on a later turn. A call that is gone: nothing happens. */
void sl_http_cancel(struct sl_http *h, uint64_t id);
/* The same, but fn never comes: for an owner that goes first. */
void sl_http_forget(struct sl_http *h, uint64_t id);

/* Any other transfer of libcurl: SMTP, IMAP. setup fills the CURL handle (protocols other than smtp, smtps, imap, imaps are
 * refused unless it sets CURLOPT_PROTOCOLS_STR itself); it must leave CURLOPT_PRIVATE, PREREQ and ERRORBUFFER alone, and what
 * it points at must live until done. done is called once; easy is then still there for curl_easy_getinfo, but NULL when the
 * transfer never began. */
struct sl_http_transfer {
    sl_err (*setup)(void *arg, void *easy, struct sl_fail *why);
    /* is_begun: the connection stood (with TLS, if any) and the protocol's own commands may have been sent. */
    void (*done)(void *arg, void *easy, sl_err err, bool is_begun, const struct sl_fail *why);
    void *arg;
    uint64_t connect_ms, whole_ms; /* 0: 5 s, 60 s */
};
sl_err sl_http_transfer(struct sl_http *h, const struct sl_http_transfer *t, uint64_t *id,
                        struct sl_fail *why) SL_MUST_CHECK;

/* ---- for tests: what answers on a virtual loop ---- */

struct sl_http_fake {
    /* rq is borrowed until return. Answer now or later by sl_http_fake_answer(h, id, ..). */
    void (*request)(void *arg, struct sl_http *h, uint64_t id, const struct sl_http_request *rq);
    void (*transfer)(void *arg, struct sl_http *h, uint64_t id, const struct sl_http_transfer *t);
    void *arg;
};
void sl_http_fake_set(
    const struct sl_http_fake *fake); /* of the process; copied; NULL: none, every call fails as not sent */
/* Copied; fn comes on a later turn. false: the call is over already. */
bool sl_http_fake_answer(struct sl_http *h, uint64_t id, const struct sl_http_answer *a);
bool sl_http_fake_done(struct sl_http *h, uint64_t id, sl_err err, bool is_begun, const char *words);

#endif
