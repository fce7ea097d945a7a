/* gateway/lane_state.c - how a lane's objects are stored. */
#include "gateway/lane.h"

#include "base/crypto.h"

#include <stdio.h>
#include <stdlib.h>

#define LANE_VERSION 1

struct member {
    const char *name;
    size_t offset;
};
#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static int64_t *int_at(const void *object, const struct member *m)
{
    return (int64_t *)(void *)((char *)(uintptr_t)object + m->offset);
}

static char **string_at(const void *object, const struct member *m)
{
    return (char **)(void *)((char *)(uintptr_t)object + m->offset);
}

static void write_ints(struct sl_json *j, const void *object, const struct member *m, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (*int_at(object, &m[i]) != 0)
            sl_json_int(j, m[i].name, *int_at(object, &m[i]));
}

static void write_strings(struct sl_json *j, const void *object, const struct member *m, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const char *value = *string_at(object, &m[i]);
        if (value != NULL && value[0] != '\0')
            sl_json_c(j, m[i].name, value);
    }
}

static void read_ints(const json_t *root, void *object, const struct member *m, size_t count)
{
    for (size_t i = 0; i < count; i++)
        *int_at(object, &m[i]) = sl_json_get_int(root, m[i].name, 0);
}

static void read_strings(const json_t *root, void *object, const struct member *m, size_t count)
{
    for (size_t i = 0; i < count; i++)
        gw_lane_set(string_at(object, &m[i]), sl_json_get_str(root, m[i].name));
}

static void free_strings(void *object, const struct member *m, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(*string_at(object, &m[i]));
}

void gw_lane_set(char **member, struct sl_str value)
{
    char *copy = value.len > 0 ? sl_str_dup(value) : NULL;
    free(*member);
    *member = copy;
}

/* A stored object that this version can read; NULL otherwise. */
static json_t *parse(struct sl_str json)
{
    json_t *root = sl_json_parse(json, NULL); /* owned */
    if (root != NULL && sl_json_get_int(root, "version", 0) == LANE_VERSION)
        return root;
    json_decref(root);
    return NULL;
}

static void begin(struct sl_json *j, struct sl_buf *out)
{
    sl_json_begin(j, out);
    sl_json_open(j, NULL, '{');
    sl_json_int(j, "version", LANE_VERSION);
}

/* ---- lane ---- */

static const struct member lane_ints[] = {
#define X(member) {#member, offsetof(struct gw_lane, member)},
    LANE_INTS(X)
#undef X
};

void gw_lane_fly(struct gw_lane *l, struct sl_str conv, int64_t epoch)
{
    if (l->flying_count == l->flying_cap) {
        l->flying_cap = l->flying_cap == 0 ? 16 : 2 * l->flying_cap;
        l->flying = sl_realloc(l->flying, l->flying_cap * sizeof *l->flying);
    }
    l->flying[l->flying_count++] = (struct gw_flying){sl_str_dup(conv), epoch};
}

void gw_lane_land(struct gw_lane *l, struct sl_str conv)
{
    for (size_t i = 0; i < l->flying_count; i++) {
        if (!sl_str_eq_c(conv, l->flying[i].conv))
            continue;
        free(l->flying[i].conv);
        memmove(&l->flying[i], &l->flying[i + 1], (--l->flying_count - i) * sizeof *l->flying);
        return;
    }
}

static sl_err lane_decode(struct state *s, struct sl_str json)
{
    struct gw_lane *l = (struct gw_lane *)s;
    json_t *root = parse(json);
    if (root == NULL)
        return SL_EINVAL;
    read_ints(root, l, lane_ints, COUNT(lane_ints));
    gw_lane_set(&l->hash, sl_json_get_str(root, "hash"));
    gw_lane_set(&l->error_code, sl_json_get_str(root, "error_code"));
    gw_lane_set(&l->error_words, sl_json_get_str(root, "error_words"));
    const json_t *flying = json_object_get(root, "flying"); /* borrowed */
    for (size_t i = 0; i + 1 < json_array_size(flying); i += 2) {
        const json_t *conv = json_array_get(flying, i), *epoch = json_array_get(flying, i + 1);
        if (json_is_string(conv) && json_is_integer(epoch))
            gw_lane_fly(l, sl_str_c(json_string_value(conv)), json_integer_value(epoch));
    }
    json_decref(root);
    return SL_OK;
}

static void lane_encode(const struct state *s, struct sl_buf *out)
{
    const struct gw_lane *l = (const struct gw_lane *)s;
    struct sl_json j;
    begin(&j, out);
    write_ints(&j, l, lane_ints, COUNT(lane_ints));
    if (l->hash != NULL)
        sl_json_c(&j, "hash", l->hash);
    if (l->error_code != NULL)
        sl_json_c(&j, "error_code", l->error_code);
    if (l->error_words != NULL)
        sl_json_c(&j, "error_words", l->error_words);
    if (l->flying_count > 0) {
        sl_json_open(&j, "flying", '[');
        for (size_t i = 0; i < l->flying_count; i++) {
            sl_json_c(&j, NULL, l->flying[i].conv);
            sl_json_int(&j, NULL, l->flying[i].epoch);
        }
        sl_json_close(&j, ']');
    }
    sl_json_close(&j, '}');
}

static void lane_fini(struct state *s)
{
    struct gw_lane *l = (struct gw_lane *)s;
    for (size_t i = 0; i < l->flying_count; i++)
        free(l->flying[i].conv);
    free(l->flying);
    free(l->hash);
    free(l->error_code);
    free(l->error_words);
}

const struct state_kind gw_lane_kind = {.prefix = "lane",
                                        .size = sizeof(struct gw_lane),
                                        .decode = lane_decode,
                                        .encode = lane_encode,
                                        .fini = lane_fini};

/* ---- line ---- */

static const struct member line_ints[] = {
#define X(member) {#member, offsetof(struct gw_line, member)},
    X(ready) X(is_flying) X(wait_gen)
#undef X
};

void gw_line_push(struct gw_line *l, int64_t number)
{
    if (l->count == l->cap) {
        l->cap = l->cap == 0 ? 4 : 2 * l->cap;
        l->number = sl_realloc(l->number, l->cap * sizeof *l->number);
    }
    l->number[l->count++] = number;
}

void gw_line_pop(struct gw_line *l)
{
    sl_assert(l->count > 0);
    memmove(l->number, l->number + 1, --l->count * sizeof *l->number);
}

static sl_err line_decode(struct state *s, struct sl_str json)
{
    struct gw_line *l = (struct gw_line *)s;
    json_t *root = parse(json);
    if (root == NULL)
        return SL_EINVAL;
    read_ints(root, l, line_ints, COUNT(line_ints));
    const json_t *list = json_object_get(root, "q"); /* borrowed */
    for (size_t i = 0; i < json_array_size(list); i++)
        gw_line_push(l, json_integer_value(json_array_get(list, i)));
    json_decref(root);
    return SL_OK;
}

static void line_encode(const struct state *s, struct sl_buf *out)
{
    const struct gw_line *l = (const struct gw_line *)s;
    struct sl_json j;
    begin(&j, out);
    write_ints(&j, l, line_ints, COUNT(line_ints));
    sl_json_open(&j, "q", '[');
    for (size_t i = 0; i < l->count; i++)
        sl_json_int(&j, NULL, l->number[i]);
    sl_json_close(&j, ']');
    sl_json_close(&j, '}');
}

static void line_fini(struct state *s)
{
    free(((struct gw_line *)s)->number);
}

const struct state_kind gw_line_kind = {.prefix = "line",
                                        .size = sizeof(struct gw_line),
                                        .decode = line_decode,
                                        .encode = line_encode,
                                        .fini = line_fini};

/* ---- send ---- */

static const struct member send_ints[] =
    {
#define X(member) {#member, offsetof(struct gw_send, member)},
        LANE_SEND_INTS(X)
#undef X
},
                           send_strings[] = {
#define X(member) {#member, offsetof(struct gw_send, member)},
                               LANE_SEND_STRINGS(X)
#undef X
};

static const char *const send_states[SEND_STATE_COUNT] = {
#define X(name, word) word,
    LANE_SEND_STATES(X)
#undef X
};

const char *gw_send_state_name(enum gw_send_state state)
{
    sl_assert(state < SEND_STATE_COUNT);
    return send_states[state];
}

static bool state_from(struct sl_str word, enum gw_send_state *out)
{
    for (int i = 0; i < SEND_STATE_COUNT; i++)
        if (sl_str_eq_c(word, send_states[i])) {
            *out = (enum gw_send_state)i;
            return true;
        }
    return false;
}

static sl_err send_decode(struct state *s, struct sl_str json)
{
    struct gw_send *x = (struct gw_send *)s;
    json_t *root = parse(json);
    bool is_known = root != NULL && state_from(sl_json_get_str(root, "state"), &x->state);
    if (is_known) {
        read_ints(root, x, send_ints, COUNT(send_ints));
        read_strings(root, x, send_strings, COUNT(send_strings));
    }
    json_decref(root);
    return is_known ? SL_OK : SL_EINVAL;
}

static void send_encode(const struct state *s, struct sl_buf *out)
{
    const struct gw_send *x = (const struct gw_send *)s;
    struct sl_json j;
    begin(&j, out);
    sl_json_c(&j, "state", gw_send_state_name(x->state));
    write_ints(&j, x, send_ints, COUNT(send_ints));
    write_strings(&j, x, send_strings, COUNT(send_strings));
    sl_json_close(&j, '}');
}

static void send_fini(struct state *s)
{
    free_strings(s, send_strings, COUNT(send_strings));
}

const struct state_kind gw_send_kind = {.prefix = "send",
                                        .size = sizeof(struct gw_send),
                                        .decode = send_decode,
                                        .encode = send_encode,
                                        .fini = send_fini};

/* ---- pid ---- */

static const struct member pid_ints[] = {{"rank", offsetof(struct gw_pid, rank)},
                                         {"gen", offsetof(struct gw_pid, gen)}},
                           pid_strings[] = {{"send", offsetof(struct gw_pid, send)},
                                            {"code", offsetof(struct gw_pid, code)},
                                            {"words", offsetof(struct gw_pid, words)}};

static sl_err pid_decode(struct state *s, struct sl_str json)
{
    json_t *root = parse(json);
    if (root == NULL)
        return SL_EINVAL;
    read_ints(root, s, pid_ints, COUNT(pid_ints));
    read_strings(root, s, pid_strings, COUNT(pid_strings));
    json_decref(root);
    return SL_OK;
}

static void pid_encode(const struct state *s, struct sl_buf *out)
{
    struct sl_json j;
    begin(&j, out);
    write_ints(&j, s, pid_ints, COUNT(pid_ints));
    write_strings(&j, s, pid_strings, COUNT(pid_strings));
    sl_json_close(&j, '}');
}

static void pid_fini(struct state *s)
{
    free_strings(s, pid_strings, COUNT(pid_strings));
}

const struct state_kind gw_pid_kind = {.prefix = "pid",
                                       .size = sizeof(struct gw_pid),
                                       .decode = pid_decode,
                                       .encode = pid_encode,
                                       .fini = pid_fini};

/* ---- shelf ---- */

void gw_shelf_push(struct gw_shelf *s, struct sl_str item)
{
    if (s->count == s->cap) {
        s->cap = s->cap == 0 ? 8 : 2 * s->cap;
        s->item = sl_realloc(s->item, s->cap * sizeof *s->item);
    }
    s->item[s->count++] = sl_str_dup(item);
}

void gw_shelf_pop(struct gw_shelf *s)
{
    sl_assert(s->count > 0);
    free(s->item[0]);
    memmove(s->item, s->item + 1, --s->count * sizeof *s->item);
}

static sl_err shelf_decode(struct state *s, struct sl_str json)
{
    json_t *root = parse(json);
    if (root == NULL)
        return SL_EINVAL;
    const json_t *list = json_object_get(root, "i"); /* borrowed */
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_is_string(json_array_get(list, i)))
            gw_shelf_push((struct gw_shelf *)s, sl_str_c(json_string_value(json_array_get(list, i))));
    json_decref(root);
    return SL_OK;
}

static void shelf_encode(const struct state *s, struct sl_buf *out)
{
    const struct gw_shelf *shelf = (const struct gw_shelf *)s;
    struct sl_json j;
    begin(&j, out);
    sl_json_open(&j, "i", '[');
    for (size_t i = 0; i < shelf->count; i++)
        sl_json_c(&j, NULL, shelf->item[i]);
    sl_json_close(&j, ']');
    sl_json_close(&j, '}');
}

static void shelf_fini(struct state *s)
{
    struct gw_shelf *shelf = (struct gw_shelf *)s;
    for (size_t i = 0; i < shelf->count; i++)
        free(shelf->item[i]);
    free(shelf->item);
}

const struct state_kind gw_shelf_kind = {.prefix = "shelf",
                                         .size = sizeof(struct gw_shelf),
                                         .decode = shelf_decode,
                                         .encode = shelf_encode,
                                         .fini = shelf_fini};

/* ---- keys for providers ---- */

void gw_lane_key(const char *tag, struct sl_str send, int64_t part, char out[LANE_KEY_BYTES])
{
    unsigned char hash[32];
    struct sl_buf b;
    sl_buf_init(&b, 0);
    sl_buf_c(&b, tag);
    sl_buf_char(&b, '|');
    sl_buf_str(&b, send);
    sl_buf_char(&b, '|');
    sl_buf_int(&b, part);
    sl_sha256(sl_buf_view(&b), hash);
    sl_hex(out, hash, 16);
    sl_buf_fini(&b);
}
