/* channels/webhook/webhook_map.c - JSON pointers, conditions, and events out of a body. */
#include "channels/webhook/webhook_map.h"

#include "channels/sms/sms_sign.h"
#include "channels/webhook/webhook_template.h"

#include <stdlib.h>

#define STARS_MAX 6
#define TEXT_MAX  (256u << 10) /* bytes of one made value; more than any message may have */

struct webhook_body {
    json_t *root; /* owned */
};

/* An item, and the indices that led to it. */
struct item {
    const json_t *root, *at; /* borrowed */
    size_t star[STARS_MAX];
    size_t stars;
    webhook_header_fn header;
    void *header_arg;
};

/* ---- bodies ---- */

static json_t *form_object(struct sl_str form, struct sl_fail *why)
{
    struct sms_param p[SMS_PARAMS_MAX];
    struct sl_buf bytes;
    size_t count = 0;
    sl_buf_init(&bytes, 0);
    sl_err err = sms_form_read(form, &bytes, p, &count);
    json_t *all = err == SL_OK ? json_object() : NULL;
    for (size_t i = 0; all != NULL && i < count; i++) {
        char *name = sl_str_dup(p[i].name);
        if (json_object_get(all, name) == NULL)
            (void)json_object_set_new(all, name, json_stringn(p[i].value.ptr, p[i].value.len));
        free(name);
    }
    sl_buf_fini(&bytes);
    if (all == NULL)
        (void)sl_fail_set(why, err, 0, "the body is not a form that can be read");
    return all;
}

struct webhook_body *webhook_body_read(struct sl_str bytes, bool is_form, struct sl_fail *why)
{
    json_t *root = is_form ? form_object(bytes, why) : sl_json_parse(bytes, why);
    if (root == NULL)
        return NULL;
    struct webhook_body *b = sl_alloc(sizeof *b);
    b->root = root;
    return b;
}

void webhook_body_free(struct webhook_body **bp)
{
    struct webhook_body *b = *bp;
    *bp = NULL;
    if (b == NULL)
        return;
    json_decref(b->root);
    free(b);
}

/* ---- pointers: RFC 6901 ---- */

/* The next token of a pointer, unescaped into token; false: longer than any name here may be. */
static bool next_token(struct sl_str *pointer, char *token, size_t size)
{
    size_t n = 0, i = 1; /* after the slash */
    for (; i < pointer->len && pointer->ptr[i] != '/'; i++) {
        char c = pointer->ptr[i];
        if (c == '~' && i + 1 < pointer->len && (pointer->ptr[i + 1] == '0' || pointer->ptr[i + 1] == '1'))
            c = pointer->ptr[++i] == '0' ? '~' : '/';
        if (n + 1 >= size)
            return false;
        token[n++] = c;
    }
    token[n] = '\0';
    *pointer = sl_str_n(pointer->ptr + i, pointer->len - i);
    return true;
}

static const json_t *child(const json_t *v, const char *token, const struct item *it, size_t *star)
{
    if (json_is_object(v))
        return json_object_get(v, token);
    if (!json_is_array(v))
        return NULL;
    uint64_t index;
    if (strcmp(token, "*") == 0)
        return it != NULL && *star < it->stars ? json_array_get(v, it->star[(*star)++]) : NULL;
    if (sl_str_uint(sl_str_c(token), &index) != SL_OK)
        return NULL;
    return json_array_get(v, (size_t)index);
}

/* "/a/0/b", from v on. */
static const json_t *pointed(const json_t *v, struct sl_str pointer, const struct item *it)
{
    char token[128];
    size_t star = 0;
    while (v != NULL && pointer.len > 0) {
        if (pointer.ptr[0] != '/' || !next_token(&pointer, token, sizeof token))
            return NULL;
        v = child(v, token, it, &star);
    }
    return v;
}

static void add_text(struct sl_buf *out, const json_t *v)
{
    if (v == NULL || json_is_null(v))
        return;
    if (json_is_string(v))
        sl_buf_add(out, json_string_value(v), json_string_length(v));
    else
        sl_json_dump(out, v);
}

void webhook_body_get(const struct webhook_body *b, struct sl_str pointer, struct sl_buf *out)
{
    add_text(out, pointed(b->root, pointer, NULL));
}

/* ---- values of an item ---- */

/* A string that is JSON text itself, and a pointer into that. */
static void add_from_inside(struct sl_buf *out, const json_t *v, struct sl_str pointer)
{
    if (!json_is_string(v))
        return;
    json_t *inner = sl_json_parse(sl_str_n(json_string_value(v), json_string_length(v)), NULL);
    add_text(out, inner != NULL ? pointed(inner, pointer, NULL) : NULL);
    json_decref(inner);
}

static bool item_lookup(void *arg, struct sl_str name, struct sl_buf *out)
{
    const struct item *it = arg;
    static const char header[] = "$header.";
    if (sl_str_starts(name, header) && it->header != NULL) {
        char lower[64];
        size_t n = name.len - (sizeof header - 1);
        if (n >= sizeof lower)
            return false;
        memcpy(lower, name.ptr + sizeof header - 1, n);
        lower[n] = '\0';
        sl_buf_str(out, it->header(it->header_arg, lower));
        return true;
    }
    bool is_root = name.ptr[0] == '$';
    struct sl_str pointer = is_root ? sl_str_n(name.ptr + 1, name.len - 1) : name;
    if (sl_str_eq_c(name, "."))
        pointer = SL_STR_NONE; /* the item itself */
    else if (pointer.len > 0 && pointer.ptr[0] != '/')
        return false;
    const char *hash = pointer.len > 0 ? memchr(pointer.ptr, '#', pointer.len) : NULL;
    size_t inside = hash != NULL ? (size_t)(hash - pointer.ptr) : pointer.len;
    const json_t *v = pointed(is_root ? it->root : it->at, sl_str_n(pointer.ptr, inside), it);
    if (hash != NULL)
        add_from_inside(out, v, sl_str_n(hash + 1, pointer.len - inside - 1));
    else
        add_text(out, v);
    return true;
}

static sl_err expand(const struct item *it, const char *text, enum webhook_escape where, struct sl_buf *out)
{
    if (text[0] == '\0')
        return SL_OK;
    return webhook_expand(sl_str_c(text), where, item_lookup, (void *)(uintptr_t)it, out, NULL);
}

sl_err webhook_body_expand(const struct webhook_body *b, struct sl_str text, bool is_json, struct sl_buf *out,
                           struct sl_fail *why)
{
    struct item it = {.root = b->root, .at = b->root};
    return webhook_expand(text, is_json ? WEBHOOK_IN_JSON : WEBHOOK_RAW, item_lookup, &it, out, why);
}

/* ---- conditions: "pointer=value", "pointer!=value" ---- */

static bool split_condition(struct sl_str c, struct sl_str *name, struct sl_str *value, bool *is_not)
{
    const char *eq = memchr(c.ptr, '=', c.len);
    if (eq == NULL || eq == c.ptr)
        return false;
    *is_not = eq[-1] == '!';
    size_t n = (size_t)(eq - c.ptr);
    *value = sl_str_n(eq + 1, c.len - n - 1);
    *name = sl_str_n(c.ptr, n - (*is_not ? 1 : 0));
    return name->len > 0 && (name->ptr[0] == '/' || name->ptr[0] == '$');
}

static bool meets_one(const struct item *it, const char *condition)
{
    struct sl_str name, value;
    bool is_not;
    struct sl_buf got;
    if (!split_condition(sl_str_c(condition), &name, &value, &is_not))
        return false;
    sl_buf_init(&got, TEXT_MAX);
    bool is_met =
        item_lookup((void *)(uintptr_t)it, name, &got) && sl_str_eq(sl_buf_view(&got), value) != is_not;
    sl_buf_fini(&got);
    return is_met;
}

static bool meets_all(const struct item *it, const char *const *when, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!meets_one(it, when[i]))
            return false;
    return true;
}

bool webhook_body_meets(const struct webhook_body *b, const char *const *when, size_t count)
{
    struct item it = {.root = b->root, .at = b->root};
    return meets_all(&it, when, count);
}

/* ---- one event ---- */

#define MADE(X)                                                                                              \
    X(id) X(from) X(text) X(at) X(media) X(media_type) X(media_name) X(remote_id) X(word) X(code) X(words)
struct made { /* the values of one event, as bytes */
#define X(name) struct sl_buf name;
    MADE(X)
#undef X
    struct sl_buf data, context;
};

static sl_err make(struct made *m, const struct item *it, const struct webhook_map_rule *r)
{
    sl_err err = SL_OK;
#define X(name)                                                                                              \
    sl_buf_init(&m->name, TEXT_MAX);                                                                         \
    if (err == SL_OK)                                                                                        \
        err = expand(it, r->name, WEBHOOK_RAW, &m->name);
    MADE(X)
#undef X
    sl_buf_init(&m->data, TEXT_MAX);
    sl_buf_init(&m->context, CHAN_CONTEXT_MAX);
    return err == SL_OK ? expand(it, r->data, WEBHOOK_IN_JSON, &m->data) : err;
}

static void made_free(struct made *m)
{
#define X(name) sl_buf_fini(&m->name);
    MADE(X)
#undef X
    sl_buf_fini(&m->data);
    sl_buf_fini(&m->context);
}

/* "name=template" ... to a JSON object. What has no value is left out. */
static void add_context(struct made *m, const struct item *it, const struct webhook_map_rule *r)
{
    struct sl_json j;
    if (r->context_count == 0)
        return;
    sl_json_begin(&j, &m->context);
    sl_json_open(&j, NULL, '{');
    for (size_t i = 0; i < r->context_count; i++) {
        const char *eq = strchr(r->context[i], '=');
        struct sl_buf value;
        char name[64];
        size_t n = eq != NULL ? (size_t)(eq - r->context[i]) : 0;
        if (n == 0 || n >= sizeof name)
            continue;
        memcpy(name, r->context[i], n);
        name[n] = '\0';
        sl_buf_init(&value, CHAN_CONTEXT_MAX);
        if (expand(it, eq + 1, WEBHOOK_RAW, &value) == SL_OK && value.len > 0 &&
            sl_str_utf8(sl_buf_view(&value)))
            sl_json_str(&j, name, sl_buf_view(&value));
        sl_buf_fini(&value);
    }
    sl_json_close(&j, '}');
    if (m->context.overflow)
        sl_buf_clear(&m->context);
}

/* Seconds or milliseconds since 1970; what stands after a point is dropped (Slack). 0: none of these. */
static int64_t read_time(struct sl_str s)
{
    int64_t at;
    const char *point = s.len > 0 ? memchr(s.ptr, '.', s.len) : NULL;
    if (point != NULL)
        s.len = (size_t)(point - s.ptr);
    if (sl_str_int(s, &at) != SL_OK || at < 0 || at > INT64_C(100000000000000))
        return 0;
    return at < INT64_C(100000000000) ? at * 1000 : at; /* 10^11 s is the year 5138 */
}

static bool word_from(struct sl_str word, enum chan_outcome_word *out)
{
    static const char *const names[] = {"sent", "delivered", "read", "failed"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!sl_str_eq_c(word, names[i]))
            continue;
        *out = (enum chan_outcome_word)i;
        return true;
    }
    return false;
}

/* The provider's word in ours; false: one that says nothing of a delivery. */
static bool translate(const struct webhook_map_rule *r, struct sl_str theirs, enum chan_outcome_word *out)
{
    if (r->word_map_count == 0)
        return word_from(theirs, out);
    for (size_t i = 0; i < r->word_map_count; i++) {
        const char *eq = strchr(r->word_map[i], '=');
        if (eq != NULL && sl_str_eq(theirs, sl_str_n(r->word_map[i], (size_t)(eq - r->word_map[i]))))
            return word_from(sl_str_c(eq + 1), out);
    }
    return false;
}

static bool is_json_object(struct sl_str text)
{
    json_t *v = text.len > 0 ? sl_json_parse(text, NULL) : NULL;
    bool is_object = json_is_object(v);
    json_decref(v);
    return is_object;
}

struct run {
    const struct webhook_map *map;
    webhook_event_fn fn;
    void *arg;
    size_t events, ignored;
    struct sl_fail *why;
};

static sl_err give(struct run *run, const struct item *it, const struct webhook_map_rule *r, struct made *m)
{
    struct webhook_event e = {.rule = r, .at_unix_ms = read_time(sl_buf_view(&m->at))};
    if (r->does == WEBHOOK_RECEIPT && !translate(r, sl_buf_view(&m->word), &e.word)) {
        run->ignored++; /* a state between: queued, sending */
        return SL_OK;
    }
    if (r->does == WEBHOOK_MESSAGE && (m->id.len == 0 || m->from.len == 0))
        return sl_fail_set(run->why, SL_EINVAL, 0, "an item that is events.%s has no id or no sender",
                           r->name);
    if (r->does == WEBHOOK_RECEIPT && m->remote_id.len == 0)
        return sl_fail_set(run->why, SL_EINVAL, 0, "an item that is events.%s names no message", r->name);
    add_context(m, it, r);
    e.id = sl_buf_view(&m->id);
    e.from = sl_buf_view(&m->from);
    e.text = sl_buf_view(&m->text);
    e.data = is_json_object(sl_buf_view(&m->data)) ? sl_buf_view(&m->data) : SL_STR_NONE;
    e.context = sl_buf_view(&m->context);
    e.media = sl_buf_view(&m->media);
    e.media_type = sl_buf_view(&m->media_type);
    e.media_name = sl_buf_view(&m->media_name);
    e.remote_id = sl_buf_view(&m->remote_id);
    e.code = sl_buf_view(&m->code);
    e.words = sl_buf_view(&m->words);
    if (run->events++ == WEBHOOK_EVENTS_MAX)
        return sl_fail_set(run->why, SL_ETOOBIG, 0, "more than %d events in one request", WEBHOOK_EVENTS_MAX);
    run->fn(run->arg, &e);
    return SL_OK;
}

/* The first rule of this batch that fits counts. */
static sl_err judge_item(struct run *run, const struct item *it, const char *each)
{
    for (size_t i = 0; i < run->map->count; i++) {
        const struct webhook_map_rule *r = &run->map->rules[i];
        struct made m;
        if (strcmp(r->each, each) != 0 || !meets_all(it, r->when, r->when_count))
            continue;
        if (r->does == WEBHOOK_IGNORE) {
            run->ignored++;
            return SL_OK;
        }
        sl_err err = make(&m, it, r);
        err = err == SL_OK ? give(run, it, r, &m)
                           : sl_fail_set(run->why, SL_EINVAL, 0, "events.%s: an item's values cannot be read",
                                         r->name);
        made_free(&m);
        return err;
    }
    run->ignored++;
    return SL_OK;
}

static sl_err walk(struct run *run, struct item *it, struct sl_str path, const char *each)
{
    char token[128];
    const json_t *here = it->at;
    sl_err err = SL_OK;
    if (path.len == 0)
        return here != NULL ? judge_item(run, it, each) : SL_OK;
    if (path.ptr[0] != '/' || !next_token(&path, token, sizeof token))
        return SL_OK;
    if (strcmp(token, "*") != 0) {
        it->at = child(here, token, NULL, &(size_t){0});
        err = it->at != NULL ? walk(run, it, path, each) : SL_OK;
        it->at = here;
        return err;
    }
    if (it->stars == STARS_MAX)
        return SL_OK;
    size_t depth = it->stars++;
    for (size_t i = 0; err == SL_OK && i < json_array_size(here); i++) {
        it->star[depth] = i;
        it->at = json_array_get(here, i);
        err = walk(run, it, path, each);
    }
    it->stars = depth;
    it->at = here;
    return err;
}

static bool is_first_with(const struct webhook_map *map, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (strcmp(map->rules[k].each, map->rules[i].each) == 0)
            return false;
    return true;
}

sl_err webhook_map_run(const struct webhook_map *map, const struct webhook_body *b, webhook_header_fn header,
                       void *header_arg, webhook_event_fn fn, void *arg, size_t *ignored, struct sl_fail *why)
{
    struct run run = {.map = map, .fn = fn, .arg = arg, .why = why};
    sl_err err = SL_OK;
    for (size_t i = 0; err == SL_OK && i < map->count; i++) {
        struct item it = {.root = b->root, .at = b->root, .header = header, .header_arg = header_arg};
        if (is_first_with(map, i))
            err = walk(&run, &it, sl_str_c(map->rules[i].each), map->rules[i].each);
    }
    *ignored = run.ignored;
    return err;
}

/* ---- does a rule make sense? ---- */

static bool any_lookup(void *arg, struct sl_str name, struct sl_buf *out)
{
    (void)arg;
    (void)out;
    return name.ptr[0] == '/' || name.ptr[0] == '$' || sl_str_eq_c(name, ".");
}

static sl_err check_template(const char *rule, const char *what, const char *text, struct sl_fail *why)
{
    struct sl_buf out;
    sl_buf_init(&out, 0);
    sl_err err = webhook_expand(sl_str_c(text), WEBHOOK_RAW, any_lookup, NULL, &out, NULL);
    sl_buf_fini(&out);
    return err == SL_OK ? SL_OK
                        : sl_fail_set(why, SL_EINVAL, 0,
                                      "events.%s.%s: names are ${/pointer}, ${$/pointer}, ${$header.name}",
                                      rule, what);
}

static sl_err check_lists(const struct webhook_map_rule *r, struct sl_fail *why)
{
    for (size_t i = 0; i < r->when_count; i++) {
        struct sl_str name, value;
        bool is_not;
        if (!split_condition(sl_str_c(r->when[i]), &name, &value, &is_not))
            return sl_fail_set(why, SL_EINVAL, 0, "events.%s.when: \"%.60s\" is not /pointer=value", r->name,
                               r->when[i]);
    }
    for (size_t i = 0; i < r->word_map_count; i++) {
        const char *eq = strchr(r->word_map[i], '=');
        enum chan_outcome_word word;
        if (eq == NULL || !word_from(sl_str_c(eq + 1), &word))
            return sl_fail_set(why, SL_EINVAL, 0,
                               "events.%s.word_map: \"%.60s\" is not theirs=sent|delivered|read|failed",
                               r->name, r->word_map[i]);
    }
    for (size_t i = 0; i < r->context_count; i++) {
        const char *eq = strchr(r->context[i], '=');
        if (eq == NULL || eq == r->context[i] || eq - r->context[i] >= 64)
            return sl_fail_set(why, SL_EINVAL, 0, "events.%s.context: \"%.60s\" is not name=template",
                               r->name, r->context[i]);
        sl_err err = check_template(r->name, "context", eq + 1, why);
        if (err != SL_OK)
            return err;
    }
    return SL_OK;
}

sl_err webhook_map_check(const struct webhook_map_rule *r, struct sl_fail *why)
{
    sl_err err = check_lists(r, why);
    const struct {
        const char *what, *text;
    } all[] = {{"id", r->id},
               {"from", r->from},
               {"text", r->text},
               {"at", r->at},
               {"data", r->data},
               {"media", r->media},
               {"media_type", r->media_type},
               {"media_name", r->media_name},
               {"remote_id", r->remote_id},
               {"word", r->word},
               {"code", r->code},
               {"words", r->words}};
    for (size_t i = 0; err == SL_OK && i < sizeof all / sizeof all[0]; i++)
        err = check_template(r->name, all[i].what, all[i].text, why);
    if (err != SL_OK)
        return err;
    if (r->each[0] != '\0' && r->each[0] != '/')
        return sl_fail_set(why, SL_EINVAL, 0, "events.%s.each: a pointer begins with a slash", r->name);
    if (r->does == WEBHOOK_MESSAGE && (r->id[0] == '\0' || r->from[0] == '\0'))
        return sl_fail_set(why, SL_EINVAL, 0, "events.%s: a message needs id and from", r->name);
    if (r->does == WEBHOOK_RECEIPT && (r->remote_id[0] == '\0' || r->word[0] == '\0'))
        return sl_fail_set(why, SL_EINVAL, 0, "events.%s: a receipt needs remote_id and word", r->name);
    return SL_OK;
}
