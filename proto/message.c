#include "proto/message.h"

#include "proto/keys.h"
#include "proto/proto_priv.h"

#define MSG_DATA_DEPTH_MAX                                                                                   \
    16 /* of sl_json_parse's 32: data stands in a message, in an entry, in an event, in an answer */

static const struct sl_str author_names[] = {
#define X(name, word) {word, sizeof(word) - 1},
    MSG_AUTHORS(X)
#undef X
};
static const struct sl_str kind_names[] = {
#define X(name, word) {word, sizeof(word) - 1},
    MSG_KINDS(X)
#undef X
};
#define AUTHOR_COUNT (sizeof author_names / sizeof author_names[0])
#define KIND_COUNT   (sizeof kind_names / sizeof kind_names[0])

const char *msg_author_name(enum msg_author by)
{
    sl_assert((size_t)by < AUTHOR_COUNT);
    return author_names[by].ptr;
}

const char *msg_kind_name(enum msg_kind kind)
{
    sl_assert((size_t)kind < KIND_COUNT);
    return kind_names[kind].ptr;
}

static bool word_in(const struct sl_str *table, size_t count, struct sl_str word, size_t *at)
{
    for (size_t i = 0; i < count; i++) {
        if (sl_str_eq(table[i], word)) {
            *at = i;
            return true;
        }
    }
    return false;
}

bool msg_author_from(struct sl_str word, enum msg_author *out)
{
    size_t at;
    if (!word_in(author_names, AUTHOR_COUNT, word, &at))
        return false;
    *out = (enum msg_author)at;
    return true;
}

bool msg_kind_from(struct sl_str word, enum msg_kind *out)
{
    size_t at;
    if (!word_in(kind_names, KIND_COUNT, word, &at))
        return false;
    *out = (enum msg_kind)at;
    return true;
}

static void write_string(struct sl_json *j, const char *key, struct sl_str v)
{
    if (v.len > 0)
        sl_json_str(j, key, v);
}

static void write_time(struct sl_json *j, const char *key, int64_t unix_ms)
{
    if (unix_ms != 0)
        sl_json_int(j, key, unix_ms);
}

void msg_write(struct sl_json *j, const char *key, const struct msg *m)
{
    sl_json_open(j, key, '{');
    write_string(j, "id", m->id);
    write_string(j, "tenant", m->tenant);
    write_string(j, "inbox", m->inbox);
    write_string(j, "channel", m->channel);
    write_string(j, "conversation", m->conversation);
    write_string(j, "contact", m->contact);
    sl_json_str(j, "by", author_names[m->by]);
    write_string(j, "who", m->who);
    sl_json_str(j, "kind", kind_names[m->kind]);
    write_string(j, "text", m->text);
    if (m->data.len > 0)
        sl_json_raw(j, "data", m->data);
    write_string(j, "reply_to", m->reply_to);
    write_string(j, "provider_id", m->provider_id);
    write_time(j, "sent_unix_ms", m->sent_unix_ms);
    write_time(j, "received_unix_ms", m->received_unix_ms);
    write_string(j, "traceparent", m->traceparent);
    sl_json_close(j, '}');
}

/* Names that are configured or made by us and stand in keys: empty, or key_part_ok. */
static sl_err check_name(const char *member, struct sl_str v, struct sl_fail *why)
{
    if (v.len == 0 || key_part_ok(v))
        return SL_OK;
    return sl_fail_set(why, v.len > MSG_ID_MAX_BYTES ? SL_ETOOBIG : SL_EINVAL, 0,
                       "message: \"%s\" must be 1 to %d of letters, digits and ._@+-", member,
                       MSG_ID_MAX_BYTES);
}

static sl_err check_word(const char *member, struct sl_str v, struct sl_fail *why)
{
    if (msg_word_ok(v))
        return SL_OK;
    return sl_fail_set(why, v.len > MSG_ID_MAX_BYTES ? SL_ETOOBIG : SL_EINVAL, 0,
                       "message: \"%s\" must be at most %d bytes of UTF-8 without control characters", member,
                       MSG_ID_MAX_BYTES);
}

static sl_err check_ids(const struct msg *m, struct sl_fail *why)
{
    const struct {
        const char *member;
        struct sl_str value;
        sl_err (*check)(const char *member, struct sl_str v, struct sl_fail *why);
    } table[] = {
        {"id", m->id, check_word},
        {"tenant", m->tenant, check_name},
        {"inbox", m->inbox, check_name},
        {"channel", m->channel, check_name},
        {"conversation", m->conversation, check_name},
        {"contact", m->contact, check_word},
        {"who", m->who, check_word},
        {"reply_to", m->reply_to, check_word},
        {"provider_id", m->provider_id, check_word},
    };
    if (m->id.len == 0)
        return sl_fail_set(why, SL_EINVAL, 0, "message: \"id\" is missing");
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        sl_err err = table[i].check(table[i].member, table[i].value, why);
        if (err != SL_OK)
            return err;
    }
    return SL_OK;
}

static sl_err check_text(const struct msg *m, struct sl_fail *why)
{
    if (m->text.len > MSG_TEXT_MAX_BYTES)
        return sl_fail_set(why, SL_ETOOBIG, 0, "message: \"text\" is longer than %d bytes",
                           MSG_TEXT_MAX_BYTES);
    if (!sl_str_utf8(m->text))
        return sl_fail_set(why, SL_EINVAL, 0, "message: \"text\" is not UTF-8");
    return SL_OK;
}

static sl_err check_data(struct sl_str data, struct sl_fail *why)
{
    if (data.len == 0)
        return SL_OK;
    if (data.len > MSG_DATA_MAX_BYTES)
        return sl_fail_set(why, SL_ETOOBIG, 0, "message: \"data\" is longer than %d bytes",
                           MSG_DATA_MAX_BYTES);
    if (data.ptr[0] != '{' || !sl_str_utf8(data) || !msg_json_ok(data, MSG_DATA_DEPTH_MAX))
        return sl_fail_set(why, SL_EINVAL, 0,
                           "message: \"data\" is not a JSON object, or nested deeper than %d",
                           MSG_DATA_DEPTH_MAX);
    json_t *parsed = sl_json_parse(data, why); /* what is left to find: repeated keys, too many values */
    if (parsed == NULL)
        return sl_fail_set(why, SL_EINVAL, 0, "message: \"data\" repeats a member or has too many values");
    json_decref(parsed);
    return SL_OK;
}

/* What a kind cannot be without. An event may say everything by its author and time. */
static sl_err check_content(const struct msg *m, struct sl_fail *why)
{
    bool needs_text = m->kind == MSG_TEXT || m->kind == MSG_NOTE;
    if (needs_text && m->text.len == 0)
        return sl_fail_set(why, SL_EINVAL, 0, "message: \"text\" is missing");
    if (m->kind != MSG_EVENT && m->text.len == 0 && m->data.len == 0)
        return sl_fail_set(why, SL_EINVAL, 0, "message: this kind needs \"text\" or \"data\"");
    return SL_OK;
}

static sl_err check_rest(const struct msg *m, struct sl_fail *why)
{
    if ((size_t)m->by >= AUTHOR_COUNT)
        return sl_fail_set(why, SL_EINVAL, 0, "message: \"by\" is unknown");
    if ((size_t)m->kind >= KIND_COUNT)
        return sl_fail_set(why, SL_EINVAL, 0, "message: \"kind\" is unknown");
    if (m->sent_unix_ms < 0 || m->received_unix_ms < 0)
        return sl_fail_set(why, SL_EINVAL, 0, "message: a time before 1970");
    if (m->traceparent.len > 0 && !msg_trace_ok(m->traceparent))
        return sl_fail_set(why, SL_EINVAL, 0, "message: \"traceparent\" is not one of W3C Trace Context");
    return SL_OK;
}

sl_err msg_check(const struct msg *m, struct sl_fail *why)
{
    sl_err err = check_rest(m, why);
    if (err == SL_OK)
        err = check_ids(m, why);
    if (err == SL_OK)
        err = check_text(m, why);
    if (err == SL_OK)
        err = check_data(m->data, why);
    return err == SL_OK ? check_content(m, why) : err;
}

/* How the members of the JSON form are read; `data` is read apart. */
struct reader {
    const json_t *root; /* borrowed */
    struct sl_fail *why;
    sl_err err; /* the first failure; later reads do nothing */
};

static void fail(struct reader *r, const char *member, const char *expected)
{
    r->err = sl_fail_set(r->why, SL_EINVAL, 0, "message: \"%s\" must be %s", member, expected);
}

static void read_string(struct reader *r, const char *member, struct sl_str *out)
{
    const json_t *v = json_object_get(r->root, member);
    if (r->err != SL_OK || v == NULL)
        return;
    if (!json_is_string(v))
        fail(r, member, "a string");
    else
        *out = sl_str_n(json_string_value(v), json_string_length(v));
}

static void read_time(struct reader *r, const char *member, int64_t *out)
{
    const json_t *v = json_object_get(r->root, member);
    if (r->err != SL_OK || v == NULL)
        return;
    if (!json_is_integer(v))
        fail(r, member, "an integer");
    else
        *out = json_integer_value(v);
}

static void read_words(struct reader *r, struct msg *m)
{
    struct sl_str by = SL_STR_NONE, kind = SL_STR_NONE;
    read_string(r, "by", &by);
    read_string(r, "kind", &kind);
    if (r->err == SL_OK && !msg_author_from(by, &m->by))
        fail(r, "by", "visitor, bot, agent or system");
    if (r->err == SL_OK && !msg_kind_from(kind, &m->kind))
        fail(r, "kind", "one of the kinds of messages");
}

static sl_err read_members(const json_t *root, struct msg *m, struct sl_fail *why)
{
    struct reader r = {.root = root, .why = why, .err = SL_OK};
    read_string(&r, "id", &m->id);
    read_string(&r, "tenant", &m->tenant);
    read_string(&r, "inbox", &m->inbox);
    read_string(&r, "channel", &m->channel);
    read_string(&r, "conversation", &m->conversation);
    read_string(&r, "contact", &m->contact);
    read_words(&r, m);
    read_string(&r, "who", &m->who);
    read_string(&r, "text", &m->text);
    read_string(&r, "reply_to", &m->reply_to);
    read_string(&r, "provider_id", &m->provider_id);
    read_time(&r, "sent_unix_ms", &m->sent_unix_ms);
    read_time(&r, "received_unix_ms", &m->received_unix_ms);
    read_string(&r, "traceparent", &m->traceparent);
    return r.err;
}

/* The bytes of data as they stood there, kept in the tree in place of what was parsed of them. */
static sl_err read_data(struct sl_str json, json_t *root, struct msg *m, struct sl_fail *why)
{
    struct sl_str data;
    const json_t *parsed = json_object_get(root, "data"); /* borrowed */
    if (parsed == NULL)
        return SL_OK;
    if (!json_is_object(parsed) || !msg_json_member(json, "data", &data))
        return sl_fail_set(why, SL_EINVAL, 0, "message: \"data\" must be an object");
    json_t *text = json_stringn(data.ptr, data.len);
    if (text == NULL || json_object_set_new(root, "data", text) != 0)
        return sl_fail_set(why, SL_EINVAL, 0, "message: \"data\" is not UTF-8");
    m->data = sl_str_n(json_string_value(text), json_string_length(text));
    return SL_OK;
}

static sl_err read_root(struct sl_str json, json_t *root, struct msg *m, struct sl_fail *why)
{
    if (!json_is_object(root))
        return sl_fail_set(why, SL_EINVAL, 0, "message: not a JSON object");
    sl_err err = read_members(root, m, why);
    if (err == SL_OK)
        err = read_data(json, root, m, why);
    return err == SL_OK ? msg_check(m, why) : err;
}

sl_err msg_read(struct sl_str json, struct msg *out, json_t **hold, struct sl_fail *why)
{
    struct msg m = {.by = MSG_BY_VISITOR};
    json_t *root = sl_json_parse(json, why);
    if (root == NULL)
        return SL_EINVAL;
    sl_err err = read_root(json, root, &m, why);
    if (err != SL_OK) {
        json_decref(root);
        return err;
    }
    *out = m;
    *hold = root;
    return SL_OK;
}
