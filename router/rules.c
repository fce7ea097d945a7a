#include "router/rules.h"

#include <stdlib.h>

#define RULES_WORDS_MAX   200
#define RULES_INBOXES_MAX 2000
#define RULES_TEXTS_MAX   2000

static const struct {
    const char *name;
    size_t offset;
    int64_t fallback, least, most;
} numbers[] = {
#define X(member, fallback, least, most, words)                                                              \
    {#member, offsetof(struct rules, member), fallback, least, most},
    RULES_NUMBERS(X)
#undef X
};
#define NUMBER_COUNT (sizeof numbers / sizeof numbers[0])

static const struct {
    const char *name, *zh, *en;
} texts[RULES_TEXT_COUNT] = {
#define X(code, zh, en) {#code, zh, en},
    RULES_TEXTS(X)
#undef X
};

static const char *const default_human[] = {"人工",     "真人",        "转接客服",       "human", "agent",
                                            "a person", "real person", "representative", NULL};
static const char *const default_not_human[] = {"人工智能", "人工费", "user agent", "travel agent", NULL};
static const char *const no_words[] = {NULL};

/* ---- parsing ---- */

static sl_err parse_numbers(const json_t *root, struct rules *r, struct sl_fail *why)
{
    for (size_t i = 0; i < NUMBER_COUNT; i++) {
        const json_t *v = json_object_get(root, numbers[i].name); /* borrowed */
        int64_t value = v == NULL ? numbers[i].fallback : json_integer_value(v);
        if (v != NULL && !json_is_integer(v))
            return sl_fail_set(why, SL_EINVAL, 0, "rules: \"%s\" must be an integer", numbers[i].name);
        if (value < numbers[i].least || value > numbers[i].most)
            return sl_fail_set(why, SL_EINVAL, 0, "rules: \"%s\" must be from %lld to %lld", numbers[i].name,
                               (long long)numbers[i].least, (long long)numbers[i].most);
        memcpy((char *)r + numbers[i].offset, &value, sizeof value);
    }
    return SL_OK;
}

static void words_default(struct rules_words *out, const char *const *words)
{
    while (words[out->count] != NULL)
        out->count++;
    out->at = sl_alloc((out->count + 1) * sizeof *out->at);
    for (size_t i = 0; i < out->count; i++)
        out->at[i] = sl_strdup(words[i]);
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static void words_index(struct rules_words *w)
{
    for (size_t i = 0; i < w->count; i++)
        w->begins[(unsigned char)lower(w->at[i][0])] = true;
}

static sl_err parse_words(const json_t *root, const char *key, const char *const *fallback,
                          struct rules_words *out, struct sl_fail *why)
{
    const json_t *list = json_object_get(root, key); /* borrowed */
    if (list == NULL) {
        words_default(out, fallback);
        return SL_OK;
    }
    if (!json_is_array(list) || json_array_size(list) > RULES_WORDS_MAX)
        return sl_fail_set(why, SL_EINVAL, 0, "rules: \"%s\" must be a list of at most %d words", key,
                           RULES_WORDS_MAX);
    out->at = sl_alloc((json_array_size(list) + 1) * sizeof *out->at);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *word = json_string_value(json_array_get(list, i));
        if (word == NULL || word[0] == '\0')
            return sl_fail_set(why, SL_EINVAL, 0, "rules: \"%s\" must hold non-empty strings", key);
        out->at[out->count++] = sl_strdup(word);
    }
    return SL_OK;
}

/* A string member, copied; the fallback when absent. NULL: of another type. */
static char *string_of(const json_t *obj, const char *key, const char *fallback)
{
    const json_t *v = json_object_get(obj, key); /* borrowed */
    if (v == NULL)
        return sl_strdup(fallback);
    return json_is_string(v) ? sl_strdup(json_string_value(v)) : NULL;
}

static bool is_name_or_empty(const char *s)
{
    return s != NULL && (s[0] == '\0' || key_part_ok(sl_str_c(s)));
}

static sl_err parse_inbox(const char *name, const json_t *v, struct rules_inbox *in, struct sl_fail *why)
{
    *in = (struct rules_inbox){.name = sl_strdup(name),
                               .bot = string_of(v, "bot", "faq"),
                               .queue = string_of(v, "queue", "default"),
                               .skills = string_of(v, "skills", ""),
                               .priority = sl_json_get_int(v, "priority", 0)};
    if (!json_is_object(v) || !is_name_or_empty(in->bot) || in->queue == NULL ||
        !key_part_ok(sl_str_c(in->queue)) || in->skills == NULL || !rules_list_ok(sl_str_c(in->skills)))
        return sl_fail_set(
            why, SL_EINVAL, 0,
            "rules: inboxes.%.60s: bot, queue and skills must be names of letters, digits and ._@+-", name);
    if (in->priority < -100 || in->priority > 100)
        return sl_fail_set(why, SL_EINVAL, 0, "rules: inboxes.%.60s.priority must be from -100 to 100", name);
    return SL_OK;
}

/* The catch-all is always there and always last, so that a lookup ends. */
static sl_err parse_inboxes(json_t *root, struct rules *r, struct sl_fail *why)
{
    json_t *all = json_object_get(root, "inboxes"), *v; /* borrowed */
    const char *name;
    if (all != NULL && (!json_is_object(all) || json_object_size(all) > RULES_INBOXES_MAX))
        return sl_fail_set(why, SL_EINVAL, 0, "rules: \"inboxes\" must be an object of at most %d members",
                           RULES_INBOXES_MAX);
    r->inboxes = sl_alloc((json_object_size(all) + 1) * sizeof *r->inboxes);
    json_object_foreach(all, name, v)
    {
        sl_err err =
            strcmp(name, "*") == 0 ? SL_OK : parse_inbox(name, v, &r->inboxes[r->inbox_count++], why);
        if (err != SL_OK)
            return err;
    }
    v = json_object_get(all, "*");
    json_t *empty = v == NULL ? json_object() : json_incref(v); /* owned */
    sl_err err = parse_inbox("*", empty, &r->inboxes[r->inbox_count++], why);
    json_decref(empty);
    return err;
}

static bool code_from(const char *name, enum rules_code *out)
{
    for (int i = 0; i < RULES_TEXT_COUNT; i++) {
        if (strcmp(texts[i].name, name) == 0) {
            *out = (enum rules_code)i;
            return true;
        }
    }
    return false;
}

static sl_err parse_text(const char *tenant, const char *code, const json_t *v, struct rules *r,
                         struct sl_fail *why)
{
    struct rules_text t = {.tenant = NULL};
    if (!code_from(code, &t.code))
        return SL_OK; /* of a newer release */
    if (r->text_count == RULES_TEXTS_MAX)
        return sl_fail_set(why, SL_EINVAL, 0, "rules: more than %d texts", RULES_TEXTS_MAX);
    t.tenant = sl_strdup(tenant);
    t.zh = string_of(v, "zh", texts[t.code].zh);
    t.en = string_of(v, "en", texts[t.code].en);
    r->texts = sl_realloc(r->texts, (r->text_count + 1) * sizeof *r->texts);
    r->texts[r->text_count++] = t;
    if (t.zh == NULL || t.en == NULL)
        return sl_fail_set(why, SL_EINVAL, 0, "rules: texts.%.60s.%s: zh and en must be strings", tenant,
                           texts[t.code].name);
    return SL_OK;
}

static sl_err parse_texts(json_t *root, struct rules *r, struct sl_fail *why)
{
    json_t *all = json_object_get(root, "texts"), *of_tenant, *v; /* borrowed */
    const char *tenant, *code;
    json_object_foreach(all, tenant, of_tenant)
    {
        json_object_foreach(of_tenant, code, v)
        {
            sl_err err = parse_text(tenant, code, v, r, why);
            if (err != SL_OK)
                return err;
        }
    }
    return SL_OK;
}

static sl_err parse_object(json_t *root, struct rules *r, struct sl_fail *why)
{
    sl_err err = json_is_object(root) ? SL_OK : sl_fail_set(why, SL_EINVAL, 0, "rules: not a JSON object");
    if (err == SL_OK)
        err = parse_numbers(root, r, why);
    if (err == SL_OK)
        err = parse_words(root, "human_words", default_human, &r->human, why);
    if (err == SL_OK)
        err = parse_words(root, "not_human_words", default_not_human, &r->not_human, why);
    if (err == SL_OK)
        err = parse_words(root, "queues", no_words, &r->queues, why);
    if (err == SL_OK)
        err = parse_inboxes(root, r, why);
    if (err == SL_OK)
        err = parse_texts(root, r, why);
    words_index(&r->human);
    words_index(&r->not_human);
    r->language = string_of(root, "language", "zh");
    if (err == SL_OK &&
        (r->language == NULL || (strcmp(r->language, "zh") != 0 && strcmp(r->language, "en") != 0)))
        err = sl_fail_set(why, SL_EINVAL, 0, "rules: \"language\" must be zh or en");
    return err;
}

sl_err rules_parse(struct sl_str json, struct rules *out, struct sl_fail *why)
{
    struct rules r = {.inbox_count = 0};
    json_t *root = sl_json_parse(json, why); /* owned */
    if (root == NULL)
        return SL_EINVAL;
    sl_err err = parse_object(root, &r, why);
    json_decref(root);
    if (err == SL_OK)
        *out = r;
    else
        rules_fini(&r);
    return err;
}

static void words_fini(struct rules_words *w)
{
    for (size_t i = 0; i < w->count; i++)
        free(w->at[i]);
    free(w->at);
}

void rules_fini(struct rules *r)
{
    words_fini(&r->human);
    words_fini(&r->not_human);
    words_fini(&r->queues);
    for (size_t i = 0; i < r->inbox_count; i++) {
        free(r->inboxes[i].name);
        free(r->inboxes[i].bot);
        free(r->inboxes[i].queue);
        free(r->inboxes[i].skills);
    }
    for (size_t i = 0; i < r->text_count; i++) {
        free(r->texts[i].tenant);
        free(r->texts[i].zh);
        free(r->texts[i].en);
    }
    free(r->inboxes);
    free(r->texts);
    free(r->language);
    *r = (struct rules){.inbox_count = 0};
}

/* The numbers come from the table, so the two cannot differ; the unit test parses it and compares the rest.
 */
const char *rules_default_json(void)
{
#define X(member, fallback, least, most, words) "\"" #member "\":" #fallback ","
    return "{" RULES_NUMBERS(
        X) "\"language\":\"zh\","
           "\"human_words\":[\"人工\",\"真人\",\"转接客服\",\"human\",\"agent\",\"a person\",\"real "
           "person\",\"representative\"],"
           "\"not_human_words\":[\"人工智能\",\"人工费\",\"user agent\",\"travel agent\"],"
           "\"queues\":[],\"inboxes\":{\"*\":{\"bot\":\"faq\",\"queue\":\"default\",\"skills\":\"\","
           "\"priority\":0}},"
           "\"texts\":{}}";
#undef X
}

/* ---- asking ---- */

static bool name_is(const char *name, struct sl_str tenant, struct sl_str inbox)
{
    size_t n = strlen(name);
    return n == tenant.len + 1 + inbox.len && memcmp(name, tenant.ptr, tenant.len) == 0 &&
           name[tenant.len] == '/' && memcmp(name + tenant.len + 1, inbox.ptr, inbox.len) == 0;
}

const struct rules_inbox *rules_inbox(const struct rules *r, struct sl_str tenant, struct sl_str inbox)
{
    const struct rules_inbox *of_tenant = NULL;
    for (size_t i = 0; i < r->inbox_count; i++) {
        if (name_is(r->inboxes[i].name, tenant, inbox))
            return &r->inboxes[i];
        if (sl_str_eq_c(tenant, r->inboxes[i].name))
            of_tenant = &r->inboxes[i];
    }
    return of_tenant != NULL ? of_tenant : &r->inboxes[r->inbox_count - 1];
}

static bool is_word_char(char c)
{
    c = lower(c);
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

static bool is_ascii(const char *s)
{
    while (*s != '\0' && (unsigned char)*s < 0x80)
        s++;
    return *s == '\0';
}

/* Does `word` stand at text[at]? A word of ASCII letters is bounded by anything that is not one. */
static bool word_at(struct sl_str text, size_t at, const char *word)
{
    size_t n = strlen(word);
    if (text.len - at < n)
        return false;
    for (size_t i = 0; i < n; i++)
        if (lower(text.ptr[at + i]) != lower(word[i]))
            return false;
    if (!is_ascii(word))
        return true;
    bool is_begin = at == 0 || !is_word_char(text.ptr[at - 1]);
    bool is_end = at + n == text.len || !is_word_char(text.ptr[at + n]);
    return is_begin && is_end;
}

/* Bytes of the longest of the words that stands at text[at], or 0. */
static size_t words_at(const struct rules_words *words, struct sl_str text, size_t at)
{
    size_t longest = 0;
    if (!words->begins[(unsigned char)lower(text.ptr[at])])
        return 0;
    for (size_t i = 0; i < words->count; i++)
        if (strlen(words->at[i]) > longest && word_at(text, at, words->at[i]))
            longest = strlen(words->at[i]);
    return longest;
}

bool rules_wants_human(const struct rules *r, struct sl_str text)
{
    for (size_t at = 0; at < text.len; at++) {
        size_t skip = words_at(&r->not_human, text, at);
        if (skip > 0)
            at += skip - 1;
        else if (words_at(&r->human, text, at) > 0)
            return true;
    }
    return false;
}

static bool ends_with(struct sl_str text, const char *end)
{
    size_t n = strlen(end);
    return text.len >= n && memcmp(text.ptr + text.len - n, end, n) == 0;
}

bool rules_is_fragment(const struct rules *r, struct sl_str text)
{
    static const char *const closing[] = {"。", "？", "！", "?", "!", ".", "…", NULL};
    int64_t characters = 0;
    for (size_t i = 0; i < text.len; i++)
        characters += ((unsigned char)text.ptr[i] & 0xc0) != 0x80;
    if (r->merge_ms == 0 || characters == 0 || characters >= r->merge_below_chars)
        return false;
    for (size_t i = 0; closing[i] != NULL; i++)
        if (ends_with(text, closing[i]))
            return false;
    return true;
}

bool rules_list_ok(struct sl_str list)
{
    if (list.len > RULES_LIST_MAX)
        return false;
    for (size_t from = 0; from < list.len;) {
        const char *comma = memchr(list.ptr + from, ',', list.len - from);
        size_t to = comma == NULL ? list.len : (size_t)(comma - list.ptr);
        if (!key_part_ok(sl_str_n(list.ptr + from, to - from)))
            return false;
        from = to + 1;
    }
    return true;
}

bool rules_has_queue(const struct rules *r, struct sl_str name)
{
    for (size_t i = 0; i < r->queues.count; i++)
        if (sl_str_eq_c(name, r->queues.at[i]))
            return true;
    for (size_t i = 0; i < r->inbox_count; i++)
        if (sl_str_eq_c(name, r->inboxes[i].queue))
            return true;
    return r->queues.count == 0;
}

const char *rules_code_name(enum rules_code code)
{
    sl_assert(code < RULES_TEXT_COUNT);
    return texts[code].name;
}

void rules_words_for(const struct rules *r, struct sl_str tenant, enum rules_code code, const char **zh,
                     const char **en)
{
    *zh = texts[code].zh;
    *en = texts[code].en;
    for (size_t i = 0; i < r->text_count; i++) {
        if (r->texts[i].code == code && sl_str_eq_c(tenant, r->texts[i].tenant)) {
            *zh = r->texts[i].zh;
            *en = r->texts[i].en;
        }
    }
}

/* ---- as a state ---- */

#define RULES_VERSION 1
struct rules_state {
    struct state s;
    struct sl_buf json, hash; /* as the event brought them */
    bool is_parsed;
    struct rules rules;
};

static sl_err rules_decode(struct state *s, struct sl_str json)
{
    struct rules_state *st = (struct rules_state *)s;
    json_t *root = sl_json_parse(json, NULL); /* owned */
    sl_err err = root != NULL && sl_json_get_int(root, "version", 0) == RULES_VERSION ? SL_OK : SL_EINVAL;
    if (err == SL_OK) {
        sl_buf_str(&st->hash, sl_json_get_str(root, "hash"));
        sl_buf_str(&st->json, sl_json_get_str(root, "rules"));
        err = rules_parse(sl_buf_view(&st->json), &st->rules, NULL);
        st->is_parsed = err == SL_OK;
    }
    json_decref(root);
    return err;
}

static void rules_encode(const struct state *s, struct sl_buf *out)
{
    const struct rules_state *st = (const struct rules_state *)s;
    struct sl_json j;
    sl_json_begin(&j, out);
    sl_json_open(&j, NULL, '{');
    sl_json_int(&j, "version", RULES_VERSION);
    sl_json_str(&j, "hash", sl_buf_view(&st->hash));
    sl_json_str(&j, "rules", sl_buf_view(&st->json));
    sl_json_close(&j, '}');
}

static void rules_state_fini(struct state *s)
{
    struct rules_state *st = (struct rules_state *)s;
    if (st->is_parsed)
        rules_fini(&st->rules);
    sl_buf_fini(&st->json);
    sl_buf_fini(&st->hash);
}

const struct state_kind rules_kind = {.prefix = "rules",
                                      .size = sizeof(struct rules_state),
                                      .decode = rules_decode,
                                      .encode = rules_encode,
                                      .fini = rules_state_fini};

const struct rules *rules_of(struct effects *fx)
{
    struct rules_state *st = fx_state(fx, &rules_kind, RULES_ID);
    if (st == NULL)
        return NULL;
    if (!st->is_parsed) {
        sl_assert(rules_parse(sl_str_c(rules_default_json()), &st->rules, NULL) == SL_OK);
        st->is_parsed = true;
    }
    return &st->rules;
}

sl_err rules_take(struct effects *fx, const struct event *ev, struct sl_fail *why)
{
    struct rules_state *st = fx_state(fx, &rules_kind, RULES_ID);
    struct rules taken;
    sl_err err = rules_parse(ev->data, &taken, why);
    if (err != SL_OK)
        return err;
    rules_fini(&st->rules);
    st->rules = taken;
    sl_buf_clear(&st->json);
    sl_buf_str(&st->json, ev->data);
    sl_buf_clear(&st->hash);
    sl_buf_str(&st->hash, ev->hash);
    fx_changed(fx, st);
    return SL_OK;
}
