/* bot/faq_file.c - reads the YAML file of questions and answers and builds the index once. */
#include "bot/faq.h"

#include "bot/faq_priv.h"

#include <yaml.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define WORDS_MAX             200
#define THRESHOLD_DEFAULT_PCT 50

/* One load under way. */
struct load {
    struct bot_faq *f;
    yaml_document_t doc;
    const char *name;
    struct sl_fail *why;
    uint64_t *pairs; /* of all questions, one after the other */
    size_t pair_count, pair_cap;
    size_t *first_pair; /* of each question, and one more */
};

static sl_err wrong(struct load *l, const yaml_node_t *at, const char *what)
{
    return sl_fail_set(l->why, SL_EINVAL, 0, "%s:%zu:%zu: %s", l->name, at->start_mark.line + 1,
                       at->start_mark.column + 1, what);
}

static struct sl_str scalar(const yaml_node_t *n)
{
    return sl_str_n((const char *)n->data.scalar.value, n->data.scalar.length);
}

static sl_err text_of(struct load *l, const yaml_node_t *n, size_t max, const char **out)
{
    if (n->type != YAML_SCALAR_NODE)
        return wrong(l, n, "expected a text here");
    const struct sl_str s = scalar(n);
    if (s.len == 0 || s.len > max || !sl_str_utf8(s))
        return wrong(l, n, "the text is empty, too long, or not UTF-8");
    free((char *)(uintptr_t)*out);
    *out = sl_str_dup(s);
    return SL_OK;
}

/* A text for every language, or {zh: ..., en: ...}. */
static sl_err read_languages(struct load *l, const yaml_node_t *n, const char *out[FAQ_LANGUAGES])
{
    if (n->type == YAML_SCALAR_NODE)
        return text_of(l, n, BOT_FAQ_ANSWER_MAX_BYTES, &out[FAQ_EN]);
    if (n->type != YAML_MAPPING_NODE)
        return wrong(l, n, "expected a text, or zh and en with a text each");
    for (yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
        const yaml_node_t *key = yaml_document_get_node(&l->doc, p->key);
        const struct sl_str word = key->type == YAML_SCALAR_NODE ? scalar(key) : SL_STR_NONE;
        const bool is_zh = sl_str_eq_c(word, "zh");
        if (!is_zh && !sl_str_eq_c(word, "en"))
            return wrong(l, key, "expected zh or en");
        const sl_err err = text_of(l, yaml_document_get_node(&l->doc, p->value), BOT_FAQ_ANSWER_MAX_BYTES,
                                   &out[is_zh ? FAQ_ZH : FAQ_EN]);
        if (err != SL_OK)
            return err;
    }
    return SL_OK;
}

/* Calls each for the scalar n, or for every scalar of the list n. */
static sl_err each_text(struct load *l, const yaml_node_t *n,
                        sl_err (*each)(struct load *, const yaml_node_t *))
{
    if (n->type == YAML_SCALAR_NODE)
        return each(l, n);
    if (n->type != YAML_SEQUENCE_NODE)
        return wrong(l, n, "expected a list of texts");
    for (yaml_node_item_t *i = n->data.sequence.items.start; i < n->data.sequence.items.top; i++) {
        const yaml_node_t *item = yaml_document_get_node(&l->doc, *i);
        if (item->type != YAML_SCALAR_NODE)
            return wrong(l, item, "expected a text here");
        const sl_err err = each(l, item);
        if (err != SL_OK)
            return err;
    }
    return SL_OK;
}

static struct sl_str own_key(const struct bot_faq_chars *chars)
{
    uint32_t *space = sl_alloc((chars->count + 1) * sizeof *space);
    return bot_faq_key(chars, space);
}

static sl_err add_word(struct load *l, const yaml_node_t *n)
{
    struct bot_faq_chars chars;
    bot_faq_normalise(scalar(n), &chars);
    if (chars.count == 0)
        return wrong(l, n, "a word needs letters or characters");
    if (l->f->word_count == WORDS_MAX)
        return wrong(l, n, "more than 200 words");
    l->f->word[l->f->word_count++] = own_key(&chars);
    return SL_OK;
}

static void keep_pairs(struct load *l, const struct bot_faq_chars *chars)
{
    uint64_t pairs[BOT_FAQ_PAIRS_MAX];
    const size_t n = bot_faq_pairs(chars, pairs);
    if (l->pair_count + n > l->pair_cap) {
        l->pair_cap = (l->pair_count + n) * 2;
        l->pairs = sl_realloc(l->pairs, l->pair_cap * sizeof *l->pairs);
    }
    for (size_t i = 0; i < n; i++)
        l->pairs[l->pair_count++] = pairs[i];
}

static sl_err add_question(struct load *l, const yaml_node_t *n)
{
    struct bot_faq *f = l->f;
    struct bot_faq_chars chars;
    uint32_t space[BOT_FAQ_QUESTION_MAX_CHARS];
    bot_faq_normalise(scalar(n), &chars);
    if (chars.count == 0)
        return wrong(l, n, "a question needs letters or characters");
    if (f->question_count == BOT_FAQ_QUESTIONS_MAX)
        return wrong(l, n, "more than 20000 questions");
    struct faq_entry *entry = &f->entry[f->entry_count - 1];
    const struct sl_str key = bot_faq_key(&chars, space);
    if (sl_map_get(f->exact, key) != NULL)
        return wrong(l, n, "this question stands in the file already");
    sl_map_set(f->exact, key, entry);
    f->question[f->question_count++] = (struct faq_question){.entry = entry};
    keep_pairs(l, &chars);
    l->first_pair[f->question_count] = l->pair_count;
    return SL_OK;
}

static sl_err read_entry_field(struct load *l, const yaml_node_t *key, const yaml_node_t *value)
{
    struct faq_entry *e = &l->f->entry[l->f->entry_count - 1];
    const struct sl_str word = key->type == YAML_SCALAR_NODE ? scalar(key) : SL_STR_NONE;
    if (sl_str_eq_c(word, "id"))
        return text_of(l, value, 64, &e->id);
    if (sl_str_eq_c(word, "ask"))
        return each_text(l, value, add_question);
    if (sl_str_eq_c(word, "answer"))
        return read_languages(l, value, e->answer);
    return wrong(l, key, "expected id, ask or answer");
}

static sl_err read_entry(struct load *l, const yaml_node_t *n)
{
    struct bot_faq *f = l->f;
    if (n->type != YAML_MAPPING_NODE)
        return wrong(l, n, "expected an entry with ask and answer");
    const size_t questions_before = f->question_count;
    struct faq_entry *e = &f->entry[f->entry_count++];
    for (yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
        const sl_err err = read_entry_field(l, yaml_document_get_node(&l->doc, p->key),
                                            yaml_document_get_node(&l->doc, p->value));
        if (err != SL_OK)
            return err;
    }
    if (f->question_count == questions_before || (e->answer[FAQ_ZH] == NULL && e->answer[FAQ_EN] == NULL))
        return wrong(l, n, "an entry needs ask (one or several questions) and answer");
    if (e->id == NULL) {
        char id[32];
        snprintf(id, sizeof id, "entry-%zu", f->entry_count);
        e->id = sl_strdup(id);
    }
    return SL_OK;
}

static sl_err read_entries(struct load *l, const yaml_node_t *n)
{
    if (n->type != YAML_SEQUENCE_NODE)
        return wrong(l, n, "expected a list of entries");
    const size_t count = (size_t)(n->data.sequence.items.top - n->data.sequence.items.start);
    if (count > BOT_FAQ_ENTRIES_MAX)
        return wrong(l, n, "more than 5000 entries");
    if (l->f->entry != NULL)
        return wrong(l, n, "faq stands here twice");
    l->f->entry = sl_alloc((count + 1) * sizeof *l->f->entry);
    for (yaml_node_item_t *i = n->data.sequence.items.start; i < n->data.sequence.items.top; i++) {
        const sl_err err = read_entry(l, yaml_document_get_node(&l->doc, *i));
        if (err != SL_OK)
            return err;
    }
    return SL_OK;
}

static sl_err read_handoff(struct load *l, const yaml_node_t *n)
{
    if (n->type != YAML_MAPPING_NODE)
        return wrong(l, n, "expected words and text");
    for (yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
        const yaml_node_t *key = yaml_document_get_node(&l->doc, p->key);
        const yaml_node_t *value = yaml_document_get_node(&l->doc, p->value);
        const struct sl_str word = key->type == YAML_SCALAR_NODE ? scalar(key) : SL_STR_NONE;
        sl_err err = SL_OK;
        if (sl_str_eq_c(word, "words"))
            err = each_text(l, value, add_word);
        else if (sl_str_eq_c(word, "text"))
            err = read_languages(l, value, l->f->handoff);
        else
            err = wrong(l, key, "expected words or text");
        if (err != SL_OK)
            return err;
    }
    return SL_OK;
}

static sl_err read_threshold(struct load *l, const yaml_node_t *n)
{
    int64_t pct = 0;
    if (n->type != YAML_SCALAR_NODE || sl_str_int(scalar(n), &pct) != SL_OK || pct < 1 || pct > 100)
        return wrong(l, n, "expected a whole number from 1 to 100");
    if (l->f->threshold_pct == 0)
        l->f->threshold_pct = (unsigned)pct;
    return SL_OK;
}

static sl_err read_top(struct load *l, const yaml_node_t *key, const yaml_node_t *value)
{
    const struct sl_str word = key->type == YAML_SCALAR_NODE ? scalar(key) : SL_STR_NONE;
    if (sl_str_eq_c(word, "threshold"))
        return read_threshold(l, value);
    if (sl_str_eq_c(word, "not_found"))
        return read_languages(l, value, l->f->not_found);
    if (sl_str_eq_c(word, "handoff"))
        return read_handoff(l, value);
    if (sl_str_eq_c(word, "faq"))
        return read_entries(l, value);
    return wrong(l, key, "expected threshold, not_found, handoff or faq");
}

static sl_err read_document(struct load *l)
{
    const yaml_node_t *root = yaml_document_get_root_node(&l->doc);
    if (root == NULL || root->type != YAML_MAPPING_NODE)
        return sl_fail_set(l->why, SL_EINVAL, 0, "%s: expected a mapping with the key faq", l->name);
    for (yaml_node_pair_t *p = root->data.mapping.pairs.start; p < root->data.mapping.pairs.top; p++) {
        const sl_err err =
            read_top(l, yaml_document_get_node(&l->doc, p->key), yaml_document_get_node(&l->doc, p->value));
        if (err != SL_OK)
            return err;
    }
    if (l->f->entry_count == 0)
        return sl_fail_set(l->why, SL_EINVAL, 0, "%s: there is no entry under faq", l->name);
    return SL_OK;
}

static void set_fallback(const char *text[FAQ_LANGUAGES], const char *zh, const char *en)
{
    if (text[FAQ_ZH] != NULL || text[FAQ_EN] != NULL)
        return;
    text[FAQ_ZH] = sl_strdup(zh);
    text[FAQ_EN] = sl_strdup(en);
}

static void finish(struct load *l)
{
    struct bot_faq *f = l->f;
    if (f->threshold_pct == 0)
        f->threshold_pct = THRESHOLD_DEFAULT_PCT;
    set_fallback(
        f->not_found, "抱歉，我没有找到答案。请换个说法再问一次，或输入“人工”转接人工客服。",
        "Sorry, I have no answer to that. Please ask in other words, or type \"human\" to talk to a person.");
    set_fallback(f->handoff, "好的，我来为您转接人工客服。", "Of course. I am handing you over to a person.");
    f->shared = sl_alloc((f->question_count + 1) * sizeof *f->shared);
    f->touched = sl_alloc((f->question_count + 1) * sizeof *f->touched);
    bot_faq_index(f, l->pairs, l->first_pair);
}

static sl_err load(struct load *l, struct sl_str yaml)
{
    yaml_parser_t parser;
    sl_assert(yaml_parser_initialize(&parser) == 1);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)yaml.ptr, yaml.len);
    if (yaml_parser_load(&parser, &l->doc) == 0) {
        const sl_err err =
            sl_fail_set(l->why, SL_EINVAL, 0, "%s:%zu: not well-formed YAML: %s", l->name,
                        parser.problem_mark.line + 1, parser.problem != NULL ? parser.problem : "?");
        yaml_parser_delete(&parser);
        return err;
    }
    const sl_err err = read_document(l);
    yaml_document_delete(&l->doc);
    yaml_parser_delete(&parser);
    return err;
}

struct bot_faq *bot_faq_load_text(struct sl_str yaml, const char *name, unsigned threshold_pct,
                                  struct sl_fail *why)
{
    struct load l = {.name = name, .why = why};
    l.f = sl_alloc(sizeof *l.f);
    l.f->threshold_pct = threshold_pct;
    l.f->word = sl_alloc(WORDS_MAX * sizeof *l.f->word);
    l.f->question = sl_alloc((BOT_FAQ_QUESTIONS_MAX + 1) * sizeof *l.f->question);
    l.first_pair = sl_alloc((BOT_FAQ_QUESTIONS_MAX + 2) * sizeof *l.first_pair);
    l.f->exact = sl_map_new();
    if (load(&l, yaml) == SL_OK)
        finish(&l);
    else
        bot_faq_free(&l.f);
    free(l.pairs);
    free(l.first_pair);
    return l.f;
}

struct bot_faq *bot_faq_load(const char *path, unsigned threshold_pct, struct sl_fail *why)
{
    FILE *file = fopen(path, "rbe");
    if (file == NULL) {
        (void)sl_fail_set(why, SL_ENOTFOUND, errno, "%s: cannot open it (errno %d); see bot.faq", path,
                          errno);
        return NULL;
    }
    char *text = sl_alloc(BOT_FAQ_FILE_MAX_BYTES + 1);
    const size_t len = fread(text, 1, BOT_FAQ_FILE_MAX_BYTES + 1, file);
    struct bot_faq *f = NULL;
    if (ferror(file) != 0)
        (void)sl_fail_set(why, SL_EINVAL, errno, "%s: cannot read it", path);
    else if (len > BOT_FAQ_FILE_MAX_BYTES)
        (void)sl_fail_set(why, SL_ETOOBIG, 0, "%s: larger than 4 MiB", path);
    else
        f = bot_faq_load_text(sl_str_n(text, len), path, threshold_pct, why);
    free(text);
    fclose(file);
    return f;
}

static void free_texts(const char *text[FAQ_LANGUAGES])
{
    for (int i = 0; i < FAQ_LANGUAGES; i++)
        free((char *)(uintptr_t)text[i]);
}

void bot_faq_free(struct bot_faq **fp)
{
    struct bot_faq *f = *fp;
    *fp = NULL;
    if (f == NULL)
        return;
    for (size_t i = 0; i < f->entry_count; i++) {
        free((char *)(uintptr_t)f->entry[i].id);
        free_texts(f->entry[i].answer);
    }
    for (size_t i = 0; i < f->word_count; i++)
        free((char *)(uintptr_t)f->word[i].ptr);
    free_texts(f->not_found);
    free_texts(f->handoff);
    sl_map_free(&f->exact);
    free(f->word);
    free(f->entry);
    free(f->question);
    free(f->pair);
    free(f->posting);
    free(f->shared);
    free(f->touched);
    free(f);
}
