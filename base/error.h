/* base/error.h - the one table of errors, and a failure with words.
 *
 * What     every function that can fail returns sl_err; the table also gives log words, metric labels and HTTP status.
 * Threads  pure, any thread.
 * Read     sl_fail_set() is how a failure gets its words: once, where most is known.
 * Rule     return it or log it, never both. Peer bytes never reach sl_assert.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* clang-format off */
/*    name        text                                         retry http */
#define SL_ERR_TABLE(X)                                                      \
    X(OK,         "ok",                                         0,   200)    \
    X(EAGAIN,     "busy: try again after a pause",              1,   503)    \
    X(EINVAL,     "rejected: malformed input",                  0,   400)    \
    X(ETOOBIG,    "rejected: too large",                        0,   413)    \
    X(EAUTH,      "who are you: missing or wrong credentials",  0,   401)    \
    X(EDENIED,    "not allowed",                                0,   403)    \
    X(ENOTFOUND,  "no such thing",                              0,   404)    \
    X(ECONFLICT,  "refused: it has changed meanwhile",          0,   409)    \
    X(EGAP,       "refused: an earlier frame is missing",       1,   409)    \
    X(ERATE,      "too many: slow down",                        1,   429)    \
    X(EFENCED,    "another owner holds this partition",         0,   409)    \
    X(EMOVED,     "the stored offset is not the expected one",  0,   409)    \
    X(EREFUSED,   "the store refuses this for good",            0,   500)    \
    X(ETIMEOUT,   "no answer within the deadline",              1,   504)    \
    X(EUPSTREAM,  "the other side answered with an error",      1,   502)    \
    X(ECLOSED,    "object is closing or closed",                0,   409)    \
    X(EINTERNAL,  "a fault of ours",                            0,   500)
/* clang-format on */

enum sl_err {
#define X(name, text, retry, http) SL_##name,
    SL_ERR_TABLE(X)
#undef X
};
typedef enum sl_err sl_err;

#define SL_MUST_CHECK   __attribute__((warn_unused_result))
#define SL_PRINTF(a, b) __attribute__((format(printf, a, b)))

/* A failure with its words: what was tried, on what, and what to do. Never a secret, never message text. */
struct sl_fail {
    sl_err code;
    int sys; /* errno, UV_E*, or a provider's number; 0 if none */
    char text[240];
};

const char *sl_err_name(sl_err e); /* "EAGAIN" */
const char *sl_err_text(sl_err e); /* "busy: try again after a pause" */
bool sl_err_retry(sl_err e);       /* may the same call succeed later? */
int sl_err_http(sl_err e);

/* Fill *why (may be NULL) and return code, so that a caller can write `return sl_fail_set(why, SL_EINVAL, 0, "...")`. */
sl_err sl_fail_set(struct sl_fail *why, sl_err code, int sys, const char *fmt, ...) SL_PRINTF(4, 5);

/* A programming fault: on in every build. Prints expression and place to stderr and aborts. */
#define sl_assert(expr) ((expr) ? (void)0 : sl_assert_failed(#expr, __FILE__, __LINE__, __func__))
_Noreturn void sl_assert_failed(const char *expr, const char *file, int line, const char *func);

/* Memory that never comes back NULL (out of memory ends the process with a message: the supervisor restarts it).
 * Sizes that a peer chooses are bounded before they come here. */
void *sl_alloc(size_t size); /* zeroed */
void *sl_realloc(void *p, size_t size);
char *sl_strdup(const char *s);

#endif
