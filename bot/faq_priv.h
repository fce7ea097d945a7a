/* bot/faq_priv.h - the inside of a knowledge base: faq_file.c fills it, faq.c reads it. */
#ifndef BOT_FAQ_PRIV_H
#define BOT_FAQ_PRIV_H

#include "base/map.h"
#include "bot/faq.h"

#define BOT_FAQ_PAIRS_MAX (2 * BOT_FAQ_QUESTION_MAX_CHARS)

enum faq_language { FAQ_ZH, FAQ_EN, FAQ_LANGUAGES };

struct faq_entry {
    const char *id;                    /* owned */
    const char *answer[FAQ_LANGUAGES]; /* owned; NULL: not given */
};
struct faq_question {
    const struct faq_entry *entry;
    float weight; /* of all its pairs */
};
struct faq_pair {
    uint64_t code;
    uint32_t first, question_count, filled; /* in posting; question_count 0: free slot */
    float weight;                           /* the rarer the heavier */
};

struct bot_faq {
    unsigned threshold_pct;
    const char *not_found[FAQ_LANGUAGES], *handoff[FAQ_LANGUAGES]; /* owned */
    struct sl_str *word;                                           /* keys as bot_faq_key makes them, owned */
    size_t word_count;
    struct faq_entry *entry;
    size_t entry_count;
    struct faq_question *question;
    size_t question_count;
    struct sl_map *exact; /* bot_faq_key -> struct faq_entry */
    struct faq_pair *pair;
    size_t pair_mask;
    uint32_t *posting;
    float unknown_weight; /* of a pair that no question holds */
    float *shared;        /* scratch of one search: one per question, all 0 between searches */
    uint32_t *touched;    /* scratch of one search */
};

/* Folded letters and ideographs; one space between words, none at the ends. */
struct bot_faq_chars {
    size_t count;
    uint32_t at[BOT_FAQ_QUESTION_MAX_CHARS];
};
void bot_faq_normalise(struct sl_str text, struct bot_faq_chars *out);
bool bot_faq_has_ideographs(const struct bot_faq_chars *chars);
struct sl_str bot_faq_key(const struct bot_faq_chars *chars, uint32_t *space);
size_t bot_faq_pairs(const struct bot_faq_chars *chars, uint64_t pairs[BOT_FAQ_PAIRS_MAX]);
void bot_faq_index(struct bot_faq *f, const uint64_t *pairs, const size_t *first_pair);

#endif
