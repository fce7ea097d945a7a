/* router/conversation_state.c - how a conversation and an address entry are stored. */
#include "router/conversation.h"

#include <stdlib.h>

#define CONVERSATION_VERSION 1
#define ADDR_VERSION         1

static const char *const control_names[CONVERSATION_CONTROL_COUNT] = {
#define X(name, word) word,
    CONVERSATION_CONTROLS(X)
#undef X
};

static const struct {
    const char *name;
    size_t offset;
} ints[] =
    {
#define X(member) {#member, offsetof(struct conversation, member)},
        CONVERSATION_INTS(X)
#undef X
},
  strings[] = {
#define X(member) {#member, offsetof(struct conversation, member)},
      CONVERSATION_STRINGS(X)
#undef X
};
#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

const char *conversation_control_name(enum conversation_control control)
{
    sl_assert(control < CONVERSATION_CONTROL_COUNT);
    return control_names[control];
}

static int64_t *int_at(const struct conversation *c, size_t i)
{
    return (int64_t *)(void *)((char *)(uintptr_t)c + ints[i].offset);
}

static char **string_at(const struct conversation *c, size_t i)
{
    return (char **)(void *)((char *)(uintptr_t)c + strings[i].offset);
}

void conversation_set(char **member, struct sl_str value)
{
    if (*member != NULL && sl_str_eq_c(value, *member))
        return;
    char *copy = sl_str_dup(value);
    free(*member);
    *member = copy;
}

/* Whole fragments leave from the front; a single text is never over the maximum (MSG_TEXT_MAX_BYTES). */
static void forget_oldest(struct conversation *c, size_t excess)
{
    size_t cut = excess;
    while (cut < c->pending.len && c->pending.ptr[cut - 1] != '\n')
        cut++;
    sl_buf_cut(&c->pending, cut);
    c->asked_len = c->asked_len > (int64_t)cut ? c->asked_len - (int64_t)cut : 0;
}

void conversation_remember(struct conversation *c, struct sl_str text)
{
    if (text.len == 0 || text.len > CONVERSATION_PENDING_MAX)
        return;
    size_t together = c->pending.len + 1 + text.len;
    if (c->pending.len > 0 && together > CONVERSATION_PENDING_MAX)
        forget_oldest(c, together - CONVERSATION_PENDING_MAX);
    if (c->pending.len > 0)
        sl_buf_char(&c->pending, '\n');
    sl_buf_str(&c->pending, text);
}

static bool control_from(struct sl_str word, enum conversation_control *out)
{
    for (int i = CONVERSATION_BOT; i < CONVERSATION_CONTROL_COUNT; i++) {
        if (sl_str_eq_c(word, control_names[i])) {
            *out = (enum conversation_control)i;
            return true;
        }
    }
    return false;
}

static sl_err conversation_decode(struct state *s, struct sl_str json)
{
    struct conversation *c = (struct conversation *)s;
    json_t *root = sl_json_parse(json, NULL); /* owned */
    bool is_known = root != NULL && sl_json_get_int(root, "version", 0) == CONVERSATION_VERSION &&
                    control_from(sl_json_get_str(root, "control"), &c->control);
    if (is_known) {
        for (size_t i = 0; i < COUNT(ints); i++)
            *int_at(c, i) = sl_json_get_int(root, ints[i].name, 0);
        for (size_t i = 0; i < COUNT(strings); i++)
            conversation_set(string_at(c, i), sl_json_get_str(root, strings[i].name));
        sl_buf_str(&c->pending, sl_json_get_str(root, "pending"));
    }
    json_decref(root);
    return is_known ? SL_OK : SL_EINVAL;
}

static void conversation_encode(const struct state *s, struct sl_buf *out)
{
    const struct conversation *c = (const struct conversation *)s;
    struct sl_json j;
    sl_json_begin(&j, out);
    sl_json_open(&j, NULL, '{');
    sl_json_int(&j, "version", CONVERSATION_VERSION);
    sl_json_c(&j, "control", conversation_control_name(c->control));
    for (size_t i = 0; i < COUNT(ints); i++)
        if (*int_at(c, i) != 0)
            sl_json_int(&j, ints[i].name, *int_at(c, i));
    for (size_t i = 0; i < COUNT(strings); i++) {
        const char *value = *string_at(c, i);
        if (value != NULL && value[0] != '\0')
            sl_json_c(&j, strings[i].name, value);
    }
    if (c->pending.len > 0)
        sl_json_str(&j, "pending", sl_buf_view(&c->pending));
    sl_json_close(&j, '}');
}

static void conversation_fini(struct state *s)
{
    struct conversation *c = (struct conversation *)s;
    for (size_t i = 0; i < COUNT(strings); i++)
        free(*string_at(c, i));
    sl_buf_fini(&c->pending);
}

const struct state_kind conversation_kind = {.prefix = "conv",
                                             .size = sizeof(struct conversation),
                                             .has_history = true,
                                             .decode = conversation_decode,
                                             .encode = conversation_encode,
                                             .fini = conversation_fini};

static sl_err addr_decode(struct state *s, struct sl_str json)
{
    struct conversation_addr *a = (struct conversation_addr *)s;
    json_t *root = sl_json_parse(json, NULL); /* owned */
    bool is_known = root != NULL && sl_json_get_int(root, "version", 0) == ADDR_VERSION;
    if (is_known)
        conversation_set(&a->conv, sl_json_get_str(root, "c"));
    json_decref(root);
    return is_known ? SL_OK : SL_EINVAL;
}

static void addr_encode(const struct state *s, struct sl_buf *out)
{
    struct sl_json j;
    sl_json_begin(&j, out);
    sl_json_open(&j, NULL, '{');
    sl_json_int(&j, "version", ADDR_VERSION);
    sl_json_c(&j, "c", ((const struct conversation_addr *)s)->conv);
    sl_json_close(&j, '}');
}

static void addr_fini(struct state *s)
{
    free(((struct conversation_addr *)s)->conv);
}

const struct state_kind conversation_addr_kind = {.prefix = "addr",
                                                  .size = sizeof(struct conversation_addr),
                                                  .decode = addr_decode,
                                                  .encode = addr_encode,
                                                  .fini = addr_fini};
