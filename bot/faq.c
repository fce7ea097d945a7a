/* bot/faq.c - loading lives in faq_file.c; here: normalising, the index of character pairs, matching. */
#include "bot/faq.h"

#include "bot/faq_priv.h"

#include <math.h>
#include <stdlib.h>

/* Characters. */

struct reader {
    const char *at, *end;
};

/* The next code point; invalid bytes come out one by one as U+FFFD. 0 at the end (text holds no NUL). */
static uint32_t next_char(struct reader *r)
{
    if (r->at >= r->end)
        return 0;
    const unsigned char c = (unsigned char)*r->at++;
    if (c < 0x80)
        return c;
    const unsigned more = c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : c >= 0xC0 ? 1 : 0;
    if (more == 0 || (size_t)(r->end - r->at) < more)
        return 0xFFFD;
    uint32_t code = c & (0x3Fu >> more);
    for (unsigned i = 0; i < more; i++)
        code = code << 6 | ((unsigned char)*r->at++ & 0x3Fu);
    return code;
}

static bool is_ideograph(uint32_t c)
{
    return (c >= 0x3040 && c <= 0x30FF) || (c >= 0x3400 && c <= 0x9FFF) || (c >= 0xAC00 && c <= 0xD7AF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x20000 && c <= 0x3FFFF);
}

/* Letters and digits of every script but the ideographs; what is left are signs, spaces and pictures. */
static bool is_letter(uint32_t c)
{
    if (c < 0x80)
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z');
    return c >= 0xC0 && c != 0xD7 && c != 0xF7 && !(c >= 0x2000 && c <= 0x303F) &&
           !(c >= 0xFE00 && c <= 0xFFFF) && c < 0x10000 && !is_ideograph(c);
}

/* One spelling for full-width and half-width, upper and lower case. */
static uint32_t fold(uint32_t c)
{
    if (c >= 0xFF01 && c <= 0xFF5E)
        c -= 0xFEE0;
    if (c >= 'A' && c <= 'Z')
        c += 'a' - 'A';
    return c;
}

static bool is_apostrophe(uint32_t c)
{
    return c == '\'' || c == 0x2019;
}

void bot_faq_normalise(struct sl_str text, struct bot_faq_chars *out)
{
    struct reader r = {text.ptr, text.ptr + text.len};
    out->count = 0;
    for (uint32_t c; (c = next_char(&r)) != 0 && out->count + 1 < BOT_FAQ_QUESTION_MAX_CHARS;) {
        c = fold(c);
        if (is_ideograph(c) || is_letter(c))
            out->at[out->count++] = c;
        else if (!is_apostrophe(c) && out->count > 0 && out->at[out->count - 1] != ' ')
            out->at[out->count++] = ' ';
    }
    if (out->count > 0 && out->at[out->count - 1] == ' ')
        out->count--;
}

bool bot_faq_has_ideographs(const struct bot_faq_chars *chars)
{
    for (size_t i = 0; i < chars->count; i++) {
        if (is_ideograph(chars->at[i]))
            return true;
    }
    return false;
}

/* The text without spaces, as bytes of its code points: the key of the exact match, and what words are looked
 * for in. */
struct sl_str bot_faq_key(const struct bot_faq_chars *chars, uint32_t *space)
{
    size_t n = 0;
    for (size_t i = 0; i < chars->count; i++) {
        if (chars->at[i] != ' ')
            space[n++] = chars->at[i];
    }
    return sl_str_n((const char *)space, n * sizeof *space);
}

/* Pairs. A word of letters has marks at both ends, so that "hi" is not found inside "shipping". */

static uint64_t pair(uint32_t a, uint32_t b)
{
    return (uint64_t)a << 32 | b;
}

static int compare_pairs(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static size_t sort_and_unify(uint64_t *pairs, size_t count)
{
    size_t n = 0;
    qsort(pairs, count, sizeof *pairs, compare_pairs);
    for (size_t i = 0; i < count; i++) {
        if (n == 0 || pairs[n - 1] != pairs[i])
            pairs[n++] = pairs[i];
    }
    return n;
}

enum run { RUN_NONE, RUN_LETTERS, RUN_IDEOGRAPHS };

static enum run run_of(const struct bot_faq_chars *chars, size_t i)
{
    if (i >= chars->count || chars->at[i] == ' ')
        return RUN_NONE;
    return is_ideograph(chars->at[i]) ? RUN_IDEOGRAPHS : RUN_LETTERS;
}

size_t bot_faq_pairs(const struct bot_faq_chars *chars, uint64_t pairs[BOT_FAQ_PAIRS_MAX])
{
    size_t n = 0;
    for (size_t i = 0; i < chars->count; i++) {
        const enum run here = run_of(chars, i);
        const bool begins = i == 0 || run_of(chars, i - 1) != here, ends = run_of(chars, i + 1) != here;
        if (here == RUN_NONE)
            continue;
        if ((here == RUN_LETTERS && begins) || (here == RUN_IDEOGRAPHS && begins && ends))
            pairs[n++] = pair(0, chars->at[i]);
        if (!ends)
            pairs[n++] = pair(chars->at[i], chars->at[i + 1]);
        else if (here == RUN_LETTERS)
            pairs[n++] = pair(chars->at[i], 0);
    }
    return sort_and_unify(pairs, n);
}

/* The index. */

static struct faq_pair *pair_slot(const struct bot_faq *f, uint64_t code)
{
    size_t i = (size_t)((code * 0x9E3779B97F4A7C15ULL) >> 32) & f->pair_mask;
    while (f->pair[i].question_count != 0 && f->pair[i].code != code)
        i = (i + 1) & f->pair_mask;
    return &f->pair[i];
}

static size_t table_size(size_t items)
{
    size_t size = 64;
    while (size < items * 2)
        size *= 2;
    return size;
}

static double rarity(const struct bot_faq *f, size_t questions_with_it)
{
    return log(1.0 + (double)f->question_count / (double)questions_with_it);
}

/* pairs_of: all questions' pairs one after the other, question q's from first_pair[q] to first_pair[q + 1].
 */
void bot_faq_index(struct bot_faq *f, const uint64_t *pairs, const size_t *first_pair)
{
    const size_t all = first_pair[f->question_count];
    const size_t size = table_size(all);
    f->pair = sl_alloc(size * sizeof *f->pair);
    f->pair_mask = size - 1;
    f->posting = sl_alloc((all + 1) * sizeof *f->posting);
    for (size_t i = 0; i < all; i++) {
        struct faq_pair *p = pair_slot(f, pairs[i]);
        p->code = pairs[i];
        p->question_count++;
    }
    uint32_t next = 0;
    for (size_t i = 0; i < size; i++) {
        if (f->pair[i].question_count == 0)
            continue;
        f->pair[i].first = next;
        f->pair[i].weight = (float)rarity(f, f->pair[i].question_count);
        next += f->pair[i].question_count;
    }
    for (size_t q = 0; q < f->question_count; q++) {
        for (size_t i = first_pair[q]; i < first_pair[q + 1]; i++) {
            struct faq_pair *p = pair_slot(f, pairs[i]);
            f->posting[p->first + p->filled++] = (uint32_t)q;
            f->question[q].weight += p->weight;
        }
    }
    f->unknown_weight = (float)(rarity(f, 1) / 2);
}

/* Matching. */

struct match {
    const struct faq_entry *entry;
    unsigned score_pct;
};

/* Half is what both share of both (Dice), half is how well the shorter one is covered: a long polite sentence
 * around a short question must still find it. */
static unsigned score(double shared, double asked, double stored)
{
    if (shared <= 0)
        return 0;
    const double dice = 2 * shared / (asked + stored);
    const double cover = shared / (asked < stored ? asked : stored);
    return (unsigned)(50 * dice + 50 * cover);
}

static void find_by_pairs(const struct bot_faq *f, const struct bot_faq_chars *chars, struct match *best)
{
    uint64_t pairs[BOT_FAQ_PAIRS_MAX];
    const size_t count = bot_faq_pairs(chars, pairs);
    float *shared = f->shared;
    uint32_t *touched = f->touched;
    size_t touched_count = 0;
    double asked = 0;
    for (size_t i = 0; i < count; i++) {
        const struct faq_pair *p = pair_slot(f, pairs[i]);
        asked += p->question_count != 0 ? p->weight : f->unknown_weight;
        for (uint32_t k = 0; k < p->question_count; k++) {
            const uint32_t q = f->posting[p->first + k];
            if (shared[q] <= 0)
                touched[touched_count++] = q;
            shared[q] += p->weight;
        }
    }
    for (size_t i = 0; i < touched_count; i++) {
        const struct faq_question *q = &f->question[touched[i]];
        const unsigned pct = score(shared[touched[i]], asked, q->weight);
        shared[touched[i]] = 0;
        if (pct > best->score_pct)
            *best = (struct match){q->entry, pct};
    }
}

static struct match find(const struct bot_faq *f, const struct bot_faq_chars *chars)
{
    uint32_t space[BOT_FAQ_QUESTION_MAX_CHARS];
    const struct faq_entry *exact = sl_map_get(f->exact, bot_faq_key(chars, space));
    struct match best = {exact, exact != NULL ? 100 : 0};
    if (exact == NULL)
        find_by_pairs(f, chars, &best);
    return best;
}

static bool holds_word(const struct bot_faq *f, const struct bot_faq_chars *chars)
{
    uint32_t space[BOT_FAQ_QUESTION_MAX_CHARS];
    const struct sl_str key = bot_faq_key(chars, space);
    for (size_t i = 0; i < f->word_count; i++) {
        size_t at = 0;
        if (sl_str_find(key, f->word[i], &at) && at % sizeof *space == 0)
            return true;
    }
    return false;
}

static const char *in_language(const char *const text[FAQ_LANGUAGES], bool is_chinese)
{
    const char *wanted = text[is_chinese ? FAQ_ZH : FAQ_EN], *other = text[is_chinese ? FAQ_EN : FAQ_ZH];
    return wanted != NULL ? wanted : other != NULL ? other : "";
}

/* Everything that one call gathers over the lines of a task. */
struct gather {
    const struct bot_faq *f;
    struct match hit[BOT_FAQ_ANSWERS_MAX];
    bool is_chinese[BOT_FAQ_ANSWERS_MAX];
    size_t count, lines;
    struct match best;
    bool has_word, any_chinese;
};

static void look(struct gather *g, struct sl_str text)
{
    struct bot_faq_chars chars;
    bot_faq_normalise(text, &chars);
    if (chars.count == 0)
        return;
    g->lines++;
    g->has_word = g->has_word || holds_word(g->f, &chars);
    const bool is_chinese = bot_faq_has_ideographs(&chars);
    g->any_chinese = g->any_chinese || is_chinese;
    const struct match m = find(g->f, &chars);
    if (m.score_pct > g->best.score_pct)
        g->best = m;
    if (m.score_pct < g->f->threshold_pct || g->count == BOT_FAQ_ANSWERS_MAX)
        return;
    for (size_t i = 0; i < g->count; i++) {
        if (g->hit[i].entry == m.entry)
            return;
    }
    g->is_chinese[g->count] = is_chinese;
    g->hit[g->count++] = m;
}

static void look_at_lines(struct gather *g, struct sl_str text)
{
    for (size_t from = 0; from < text.len;) {
        size_t to = from;
        while (to < text.len && text.ptr[to] != '\n')
            to++;
        look(g, sl_str_n(text.ptr + from, to - from));
        from = to + 1;
    }
    if (g->lines > 1 && g->count == 0)
        look(g, text); /* one question in several pieces */
}

static void fill(const struct gather *g, enum bot_faq_outcome outcome, struct bot_faq_result *result)
{
    result->outcome = outcome;
    result->score_pct = g->best.score_pct;
    result->entry = g->best.entry != NULL ? sl_str_c(g->best.entry->id) : SL_STR_NONE;
}

void bot_faq_answer(const struct bot_faq *f, struct sl_str text, struct sl_buf *out,
                    struct bot_faq_result *result)
{
    struct gather g = {.f = f};
    look_at_lines(&g, text);
    if (g.has_word) {
        sl_buf_c(out, in_language(f->handoff, g.any_chinese));
        fill(&g, BOT_FAQ_HANDOFF, result);
        return;
    }
    if (g.count == 0) {
        sl_buf_c(out, in_language(f->not_found, g.any_chinese));
        fill(&g, BOT_FAQ_UNSURE, result);
        return;
    }
    for (size_t i = 0; i < g.count; i++) {
        if (i > 0)
            sl_buf_c(out, "\n\n");
        sl_buf_c(out, in_language(g.hit[i].entry->answer, g.is_chinese[i]));
    }
    fill(&g, BOT_FAQ_ANSWERED, result);
}

size_t bot_faq_count(const struct bot_faq *f)
{
    return f->entry_count;
}
