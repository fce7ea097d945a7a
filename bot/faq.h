/* bot/faq.h - the knowledge base of the first bot: a YAML file of questions and answers, and the best match.
 *
 * What     pure: text in, answer out; no clock, no I/O after loading. One file is a struct bot_faq, never
 *          changed after loading.
 * How      exact match of the normalised text; else overlap of character pairs, weighted by how rare a pair
 *          is in the file. Pairs work for Chinese, which has no spaces, and forgive spelling in English.
 * Threads  one thread at a time: a search uses scratch memory of the faq.
 * Read     deploy/faq.yaml is a complete example.
 */
#ifndef BOT_FAQ_H
#define BOT_FAQ_H

#include "base/str.h"

#define BOT_FAQ_FILE_MAX_BYTES     (4u << 20)
#define BOT_FAQ_ENTRIES_MAX        5000
#define BOT_FAQ_QUESTIONS_MAX      20000
#define BOT_FAQ_ANSWER_MAX_BYTES   8192 /* one answer; three of them fit a message */
#define BOT_FAQ_ANSWERS_MAX        3    /* a task of several lines may ask several things */
#define BOT_FAQ_QUESTION_MAX_CHARS 1024 /* the rest of a longer line is not looked at */

enum bot_faq_outcome {
    BOT_FAQ_ANSWERED, /* an entry reached the threshold */
    BOT_FAQ_UNSURE,   /* none did; the text says so */
    BOT_FAQ_HANDOFF,  /* a word of the list that a person must see */
};
struct bot_faq_result {
    enum bot_faq_outcome outcome;
    unsigned score_pct;  /* of the best entry, 0..100 */
    struct sl_str entry; /* its id in the file, borrowed from the faq; empty when there is none */
};

struct bot_faq;
/* NULL with *why filled (file, line and what was expected) when it cannot be read. threshold_pct 0: the
 * file's own, or 50. */
struct bot_faq *bot_faq_load(const char *path, unsigned threshold_pct, struct sl_fail *why);
struct bot_faq *bot_faq_load_text(struct sl_str yaml, const char *name, unsigned threshold_pct,
                                  struct sl_fail *why);
void bot_faq_free(struct bot_faq **f);
size_t bot_faq_count(const struct bot_faq *f); /* entries */

/* Answer what the customer wrote; lines are looked at one by one. The answer's text is appended to out (may
 * stay empty at BOT_FAQ_HANDOFF), in Chinese when the question holds Chinese characters, else in English, as
 * far as the file has both. */
void bot_faq_answer(const struct bot_faq *f, struct sl_str text, struct sl_buf *out,
                    struct bot_faq_result *result);

#endif
