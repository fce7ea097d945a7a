/* base/log_priv.h - the pure parts of the log, for log.c and its test: time comes in as an argument. */
#ifndef BASE_LOG_PRIV_H
#define BASE_LOG_PRIV_H

#include "base/log.h"

#define SL_LOG_BURST 10 /* equal lines a second that pass */
#define SL_LOG_FLOOD_SLOTS                                                                                   \
    64 /* messages watched at once; a newcomer takes the place of the one seen longest ago */
#define SL_LOG_VALUE_MAX 2048 /* bytes of one value; the rest is cut and the line says so */

struct sl_flood_slot {
    uint64_t hash; /* of level and message; 0: free */
    enum sl_level level;
    char msg[80];
    uint64_t since_mono_ms; /* start of its second */
    unsigned passed;        /* in this second */
    uint64_t held;          /* not written, not yet reported */
};
struct sl_flood {
    struct sl_flood_slot slot[SL_LOG_FLOOD_SLOTS];
    uint64_t held; /* over all slots */
};

/* May this line be written? *repeated: earlier equal lines that were held and are now to be reported with it.
 */
bool sl_flood_pass(struct sl_flood *f, enum sl_level level, const char *msg, uint64_t now_mono_ms,
                   uint64_t *repeated);
/* The next message whose second is over and which still has held lines (forgets them), or NULL. UINT64_MAX:
 * all. */
const struct sl_flood_slot *sl_flood_report(struct sl_flood *f, uint64_t now_mono_ms, uint64_t *repeated);

struct sl_log_line {
    enum sl_log_format format;
    enum sl_level level;
    int64_t unix_ms;
    const char *role; /* "" : none */
    const char *msg;
    uint64_t repeated; /* 0: not written */
    const struct sl_kv *kv;
};
/* One line with its newline. Whatever stands in a value, the line stays one line and its fields stay its
 * fields. */
void sl_log_write_line(struct sl_buf *out, const struct sl_log_line *line);
/* Customer's words for DEBUG: digits become #, words with an @ or a long run of letters and digits become
 * ***. */
void sl_log_mask(struct sl_buf *out, struct sl_str words);

#endif
