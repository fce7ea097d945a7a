/* router/desk_state.c - how the desk's objects are kept and stored.
 *
 * A line of text for each who waits or is held ("conv ticket ... "), because a full queue would be more JSON values than
 * sl_json_parse takes. No field holds a space: ids are key_part_ok, lists rules_list_ok; an empty one is written "-".
 */
#include "router/desk.h"

#include <stdlib.h>

#define DESK_VERSION 1

void desk_set(char **member, struct sl_str value)
{
    if (*member != NULL && sl_str_eq_c(value, *member))
        return;
    char *copy = sl_str_dup(value);
    free(*member);
    *member = copy;
}

/* ---- lists of names ---- */

void desk_names_add(struct desk_names *n, struct sl_str name)
{
    n->at = sl_realloc(n->at, (n->count + 1) * sizeof *n->at);
    n->at[n->count++] = sl_str_dup(name);
}

void desk_names_remove(struct desk_names *n, size_t i)
{
    free(n->at[i]);
    n->count--;
    memmove(n->at + i, n->at + i + 1, (n->count - i) * sizeof *n->at);
}

bool desk_names_find(const struct desk_names *n, struct sl_str name, size_t *at)
{
    for (size_t i = 0; i < n->count; i++) {
        if (sl_str_eq_c(name, n->at[i])) {
            *at = i;
            return true;
        }
    }
    return false;
}

static void names_fini(struct desk_names *n)
{
    while (n->count > 0)
        desk_names_remove(n, n->count - 1);
    free(n->at);
    n->at = NULL;
}

static struct sl_str next_item(struct sl_str *rest)
{
    const char *comma = rest->len > 0 ? memchr(rest->ptr, ',', rest->len) : NULL;
    struct sl_str item = *rest;
    if (comma == NULL) {
        *rest = SL_STR_NONE;
        return item;
    }
    item.len = (size_t)(comma - rest->ptr);
    *rest = sl_str_n(comma + 1, rest->len - item.len - 1);
    return item;
}

static bool has_item(struct sl_str list, struct sl_str wanted)
{
    while (list.len > 0)
        if (sl_str_eq(next_item(&list), wanted))
            return true;
    return false;
}

bool desk_list_has(struct sl_str list, struct sl_str wanted)
{
    while (wanted.len > 0) {
        struct sl_str item = next_item(&wanted);
        if (item.len > 0 && !has_item(list, item))
            return false;
    }
    return true;
}

/* ---- those who wait ---- */

bool desk_before(const struct desk_wait *a, const struct desk_wait *b)
{
    if (a->priority != b->priority)
        return a->priority > b->priority;
    if (a->since_ms != b->since_ms)
        return a->since_ms < b->since_ms;
    return a->seq < b->seq;
}

static void queue_grow(struct desk_queue *q)
{
    if (q->count < q->cap)
        return;
    q->cap = q->cap == 0 ? 8 : q->cap * 2;
    q->at = sl_realloc(q->at, q->cap * sizeof *q->at);
}

size_t desk_queue_insert(struct desk_queue *q, const struct desk_wait *w)
{
    queue_grow(q);
    size_t i = q->count;
    while (i > 0 && desk_before(w, &q->at[i - 1]))
        i--;
    memmove(q->at + i + 1, q->at + i, (q->count - i) * sizeof *q->at);
    q->at[i] = *w;
    q->count++;
    return i;
}

struct desk_wait desk_queue_take(struct desk_queue *q, size_t i)
{
    struct desk_wait w = q->at[i];
    q->count--;
    memmove(q->at + i, q->at + i + 1, (q->count - i) * sizeof *q->at);
    return w;
}

void desk_wait_fini(struct desk_wait *w)
{
    free(w->conv);
    free(w->skills);
    free(w->prefer);
    free(w->avoid);
}

void desk_agent_hold(struct desk_agent *a, const struct desk_held *h)
{
    if (a->count == a->cap) {
        a->cap = a->cap == 0 ? 4 : a->cap * 2;
        a->held = sl_realloc(a->held, a->cap * sizeof *a->held);
    }
    a->held[a->count++] = *h;
}

void desk_agent_drop(struct desk_agent *a, size_t i)
{
    free(a->held[i].conv);
    a->count--;
    memmove(a->held + i, a->held + i + 1, (a->count - i) * sizeof *a->held);
}

/* ---- lines ---- */

static void line_word(struct sl_buf *line, const char *word)
{
    if (line->len > 0)
        sl_buf_char(line, ' ');
    sl_buf_c(line, word == NULL || word[0] == '\0' ? "-" : word);
}

static void line_int(struct sl_buf *line, int64_t v)
{
    sl_buf_char(line, ' ');
    sl_buf_int(line, v);
}

static char *read_word(struct sl_str *line)
{
    const char *space = line->len > 0 ? memchr(line->ptr, ' ', line->len) : NULL;
    struct sl_str word = *line;
    if (space != NULL)
        word.len = (size_t)(space - line->ptr);
    size_t used = space != NULL ? word.len + 1 : word.len;
    *line = sl_str_n(line->ptr + used, line->len - used);
    return sl_str_dup(sl_str_eq_c(word, "-") ? SL_STR_NONE : word);
}

static int64_t read_int(struct sl_str *line, bool *is_ok)
{
    int64_t v = 0;
    char *word = read_word(line);
    if (sl_str_int(sl_str_c(word), &v) != SL_OK)
        *is_ok = false;
    free(word);
    return v;
}

static void write_wait(const struct desk_wait *w, struct sl_buf *line)
{
    line_word(line, w->conv);
    line_int(line, w->ticket);
    line_int(line, w->priority);
    line_int(line, w->since_ms);
    line_int(line, w->seq);
    line_int(line, w->told);
    line_word(line, w->skills);
    line_word(line, w->prefer);
    line_word(line, w->avoid);
}

static bool read_wait(struct sl_str line, struct desk_wait *w)
{
    bool is_ok = true;
    w->conv = read_word(&line);
    w->ticket = read_int(&line, &is_ok);
    w->priority = read_int(&line, &is_ok);
    w->since_ms = read_int(&line, &is_ok);
    w->seq = read_int(&line, &is_ok);
    w->told = read_int(&line, &is_ok);
    w->skills = read_word(&line);
    w->prefer = read_word(&line);
    w->avoid = read_word(&line);
    return is_ok && w->conv[0] != '\0';
}

static void write_held(const struct desk_held *h, struct sl_buf *line)
{
    line_word(line, h->conv);
    line_int(line, h->ticket);
    line_int(line, h->since_ms);
    line_int(line, h->seq);
    line_int(line, h->is_gone);
}

static bool read_held(struct sl_str line, struct desk_held *h)
{
    bool is_ok = true;
    h->conv = read_word(&line);
    h->ticket = read_int(&line, &is_ok);
    h->since_ms = read_int(&line, &is_ok);
    h->seq = read_int(&line, &is_ok);
    h->is_gone = read_int(&line, &is_ok);
    return is_ok && h->conv[0] != '\0';
}

static struct sl_str item_at(const json_t *list, size_t i)
{
    const json_t *v = json_array_get(list, i);
    return json_is_string(v) ? sl_str_n(json_string_value(v), json_string_length(v)) : SL_STR_NONE;
}

static json_t *parse(struct sl_str json)
{
    json_t *root = sl_json_parse(json, NULL); /* owned by the caller */
    if (root != NULL && sl_json_get_int(root, "version", 0) == DESK_VERSION)
        return root;
    json_decref(root);
    return NULL;
}

static void open_object(struct sl_json *j, struct sl_buf *out)
{
    sl_json_begin(j, out);
    sl_json_open(j, NULL, '{');
    sl_json_int(j, "version", DESK_VERSION);
}

static void write_int(struct sl_json *j, const char *key, int64_t v)
{
    if (v != 0)
        sl_json_int(j, key, v);
}

/* ---- queue ---- */

static sl_err queue_decode(struct state *s, struct sl_str json)
{
    struct desk_queue *q = (struct desk_queue *)s;
    json_t *root = parse(json);
    if (root == NULL)
        return SL_EINVAL;
    const json_t *list = json_object_get(root, "waiting"); /* borrowed */
    sl_err err = SL_OK;
    for (size_t i = 0; i < json_array_size(list) && err == SL_OK; i++) {
        struct desk_wait w = {.conv = NULL};
        bool is_ok = read_wait(item_at(list, i), &w);
        (void)desk_queue_insert(q, &w);
        err = is_ok ? SL_OK : SL_EINVAL;
    }
    q->pace_ms = sl_json_get_int(root, "pace_ms", 0);
    q->left_ms = sl_json_get_int(root, "left_ms", 0);
    json_decref(root);
    return err;
}

static void queue_encode(const struct state *s, struct sl_buf *out)
{
    const struct desk_queue *q = (const struct desk_queue *)s;
    struct sl_json j;
    struct sl_buf line;
    open_object(&j, out);
    write_int(&j, "pace_ms", q->pace_ms);
    write_int(&j, "left_ms", q->left_ms);
    sl_json_open(&j, "waiting", '[');
    sl_buf_init(&line, 0);
    for (size_t i = 0; i < q->count; i++) {
        sl_buf_clear(&line);
        write_wait(&q->at[i], &line);
        sl_json_str(&j, NULL, sl_buf_view(&line));
    }
    sl_buf_fini(&line);
    sl_json_close(&j, ']');
    sl_json_close(&j, '}');
}

static void queue_fini(struct state *s)
{
    struct desk_queue *q = (struct desk_queue *)s;
    for (size_t i = 0; i < q->count; i++)
        desk_wait_fini(&q->at[i]);
    free(q->at);
}

const struct state_kind desk_queue_kind = {.prefix = "queue",
                                           .size = sizeof(struct desk_queue),
                                           .decode = queue_decode,
                                           .encode = queue_encode,
                                           .fini = queue_fini};

/* ---- agent ---- */

static sl_err agent_decode(struct state *s, struct sl_str json)
{
    struct desk_agent *a = (struct desk_agent *)s;
    json_t *root = parse(json);
    if (root == NULL)
        return SL_EINVAL;
    desk_set(&a->session, sl_json_get_str(root, "session"));
    desk_set(&a->skills, sl_json_get_str(root, "skills"));
    desk_set(&a->queues, sl_json_get_str(root, "queues"));
    a->capacity = sl_json_get_int(root, "capacity", 0);
    a->is_online = sl_json_get_int(root, "online", 0);
    a->is_away = sl_json_get_int(root, "away", 0);
    a->leaving_ms = sl_json_get_int(root, "leaving", 0);
    a->alive_ms = sl_json_get_int(root, "alive_ms", 0);
    a->idle_ms = sl_json_get_int(root, "idle_ms", 0);
    const json_t *list = json_object_get(root, "held"); /* borrowed */
    sl_err err = SL_OK;
    for (size_t i = 0; i < json_array_size(list) && err == SL_OK; i++) {
        struct desk_held h = {.conv = NULL};
        err = read_held(item_at(list, i), &h) ? SL_OK : SL_EINVAL;
        desk_agent_hold(a, &h);
    }
    json_decref(root);
    return err;
}

static void agent_encode(const struct state *s, struct sl_buf *out)
{
    const struct desk_agent *a = (const struct desk_agent *)s;
    struct sl_json j;
    struct sl_buf line;
    open_object(&j, out);
    sl_json_c(&j, "session", a->session);
    sl_json_c(&j, "skills", a->skills);
    sl_json_c(&j, "queues", a->queues);
    write_int(&j, "capacity", a->capacity);
    write_int(&j, "online", a->is_online);
    write_int(&j, "away", a->is_away);
    write_int(&j, "leaving", a->leaving_ms);
    write_int(&j, "alive_ms", a->alive_ms);
    write_int(&j, "idle_ms", a->idle_ms);
    sl_json_open(&j, "held", '[');
    sl_buf_init(&line, 0);
    for (size_t i = 0; i < a->count; i++) {
        sl_buf_clear(&line);
        write_held(&a->held[i], &line);
        sl_json_str(&j, NULL, sl_buf_view(&line));
    }
    sl_buf_fini(&line);
    sl_json_close(&j, ']');
    sl_json_close(&j, '}');
}

static void agent_fini(struct state *s)
{
    struct desk_agent *a = (struct desk_agent *)s;
    for (size_t i = 0; i < a->count; i++)
        free(a->held[i].conv);
    free(a->held);
    free(a->session);
    free(a->skills);
    free(a->queues);
}

const struct state_kind desk_agent_kind = {.prefix = "agent",
                                           .size = sizeof(struct desk_agent),
                                           .has_history = true,
                                           .decode = agent_decode,
                                           .encode = agent_encode,
                                           .fini = agent_fini};

/* ---- desk ---- */

static const struct {
    const char *name;
    size_t offset;
} desk_ints[] = {
#define X(member)                                                                                            \
    {                                                                                                        \
#member, offsetof(struct desk, member)                                                               \
    }
    X(seq),      X(gen),        X(presence_gen), X(leave_gen), X(place_gen),
    X(more_gen), X(is_placing), X(place_queue),  X(place_at),
#undef X
};
#define DESK_INTS (sizeof desk_ints / sizeof desk_ints[0])

static int64_t *int_at(const struct desk *d, size_t i)
{
    return (int64_t *)(void *)((char *)(uintptr_t)d + desk_ints[i].offset);
}

static void read_names(const json_t *list, struct desk_names *out)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        desk_names_add(out, item_at(list, i));
}

static void write_names(struct sl_json *j, const char *key, const struct desk_names *names)
{
    sl_json_open(j, key, '[');
    for (size_t i = 0; i < names->count; i++)
        sl_json_c(j, NULL, names->at[i]);
    sl_json_close(j, ']');
}

static sl_err desk_decode(struct state *s, struct sl_str json)
{
    struct desk *d = (struct desk *)s;
    json_t *root = parse(json);
    if (root == NULL)
        return SL_EINVAL;
    for (size_t i = 0; i < DESK_INTS; i++)
        *int_at(d, i) = sl_json_get_int(root, desk_ints[i].name, 0);
    read_names(json_object_get(root, "agents"), &d->agents);
    read_names(json_object_get(root, "queues"), &d->queues);
    json_decref(root);
    return SL_OK;
}

static void desk_encode(const struct state *s, struct sl_buf *out)
{
    const struct desk *d = (const struct desk *)s;
    struct sl_json j;
    open_object(&j, out);
    for (size_t i = 0; i < DESK_INTS; i++)
        write_int(&j, desk_ints[i].name, *int_at(d, i));
    write_names(&j, "agents", &d->agents);
    write_names(&j, "queues", &d->queues);
    sl_json_close(&j, '}');
}

static void desk_fini(struct state *s)
{
    struct desk *d = (struct desk *)s;
    names_fini(&d->agents);
    names_fini(&d->queues);
    sl_buf_fini(&d->board);
}

const struct state_kind desk_kind = {.prefix = "desk",
                                     .size = sizeof(struct desk),
                                     .decode = desk_decode,
                                     .encode = desk_encode,
                                     .fini = desk_fini};
