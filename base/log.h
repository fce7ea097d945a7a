/* base/log.h - structured log on stderr: logfmt or JSON, one line an event, constant message plus fields.
 *
 * Levels   ERROR wakes an operator, WARN is for tomorrow, INFO is one line per life-cycle step, DEBUG is per message and off.
 * Rule     user text, phone numbers and tokens never above DEBUG. sl_log_text() is the only way to log a customer's words,
 *          and it writes nothing unless DEBUG is on.
 * Floods   equal (level, message) lines beyond 10 in a second are counted and reported as repeated=N.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/str.h"

enum sl_level { SL_ERROR, SL_WARN, SL_INFO, SL_DEBUG };
enum sl_log_format { SL_LOG_LOGFMT, SL_LOG_JSON };

struct sl_kv {
    const char *key;
    enum { SL_KV_T_STR, SL_KV_T_INT } type;
    struct sl_str s;
    int64_t i;
};
#define SL_KV(k, cstr)  ((struct sl_kv){.key = (k), .type = SL_KV_T_STR, .s = sl_str_c(cstr)})
#define SL_KV_S(k, str) ((struct sl_kv){.key = (k), .type = SL_KV_T_STR, .s = (str)})
#define SL_KV_I(k, n)   ((struct sl_kv){.key = (k), .type = SL_KV_T_INT, .i = (int64_t)(n)})
#define SL_KV_FAIL(f)   SL_KV("why", (f)->text)

/* sl_log(SL_INFO, "partition acquired", SL_KV("partition", tag), SL_KV_I("epoch", e)); */
#define sl_log(level, msg, ...)                                                                              \
    sl_log_line((level), (msg), (const struct sl_kv[]){__VA_ARGS__ __VA_OPT__(, ){.key = NULL}})
void sl_log_line(enum sl_level level, const char *msg, const struct sl_kv *kv);
void sl_log_text(const char *msg, const char *key, struct sl_str customer_words);
/* role: a field of every line */
void sl_log_setup(const char *role, enum sl_level level, enum sl_log_format format);
bool sl_log_enabled(enum sl_level level);

#endif
