#include "proto/frame.h"

#include "proto/keys.h"
#include "proto/message.h"
#include "proto/proto_priv.h"

#include <stdlib.h>

static const char *const type_words[] = {
#define X(name, word) word,
    FRAME_CLIENT_TYPES(X)
#undef X
};
static const char *const command_words[] = {
#define X(name, word) word,
    FRAME_COMMANDS(X)
#undef X
};
#define TYPE_COUNT (sizeof type_words / sizeof type_words[0])

const char *frame_close_text(enum frame_close code)
{
    switch (code) {
#define X(name, number, text)                                                                                \
    case FRAME_CLOSE_##name:                                                                                 \
        return text;
        FRAME_CLOSES(X)
#undef X
    }
    return "closed";
}

bool frame_topic_ok(struct sl_str topic)
{
    static const char prefix[] = "conv:";
    char tag[KEY_TAG_MAX_BYTES];
    if (sl_str_eq_c(topic, "me") || sl_str_eq_c(topic, "queue"))
        return true;
    if (!sl_str_starts(topic, prefix))
        return false;
    size_t skip = sizeof prefix - 1;
    return key_conversation_tag(tag, sl_str_n(topic.ptr + skip, topic.len - skip)) == SL_OK;
}

/* One object being read. The first failure stands; reads after it do nothing. */
struct reader {
    const json_t *object; /* borrowed */
    json_t *arena;        /* owned by frame_parse: strings that are not in the tree */
    struct sl_fail *why;
    sl_err err;
};

enum presence { OPTIONAL, REQUIRED };

static void refuse(struct reader *r, sl_err code, const char *member, const char *expected)
{
    if (r->err == SL_OK)
        r->err = sl_fail_set(r->why, code, 0, "frame: \"%s\" %s", member, expected);
}

/* Borrowed, NULL when absent or when there is nothing more to read. */
static const json_t *member(struct reader *r, const char *name, enum presence presence)
{
    if (r->err != SL_OK)
        return NULL;
    const json_t *value = json_object_get(r->object, name);
    if (value == NULL && presence == REQUIRED)
        refuse(r, SL_EINVAL, name, "is missing");
    return value;
}

static struct sl_str read_string(struct reader *r, const char *name, enum presence presence, size_t max_bytes)
{
    const json_t *value = member(r, name, presence);
    if (value == NULL)
        return SL_STR_NONE;
    if (!json_is_string(value)) {
        refuse(r, SL_EINVAL, name, "must be a string");
        return SL_STR_NONE;
    }
    struct sl_str s = sl_str_n(json_string_value(value), json_string_length(value));
    if (s.len > max_bytes)
        refuse(r, SL_ETOOBIG, name, "is too long");
    else if (s.len == 0 && presence == REQUIRED)
        refuse(r, SL_EINVAL, name, "is empty");
    return s;
}

static struct sl_str read_name(struct reader *r, const char *name, enum presence presence)
{
    struct sl_str s = read_string(r, name, presence, SIZE_MAX);
    if (r->err == SL_OK && json_object_get(r->object, name) != NULL && !key_part_ok(s))
        refuse(r, SL_EINVAL, name, "must be 1 to 128 of letters, digits and ._@+-");
    return s;
}

static struct sl_str read_word(struct reader *r, const char *name)
{
    struct sl_str s = read_string(r, name, OPTIONAL, MSG_ID_MAX_BYTES);
    if (r->err == SL_OK && !msg_word_ok(s))
        refuse(r, SL_EINVAL, name, "must not contain control characters");
    return s;
}

static struct sl_str read_topic(struct reader *r)
{
    struct sl_str topic = read_string(r, "topic", REQUIRED, MSG_ID_MAX_BYTES);
    if (r->err == SL_OK && !frame_topic_ok(topic))
        refuse(r, SL_EINVAL, "topic", "must be me, queue or conv:<conversation id>");
    return topic;
}

static int64_t read_integer(struct reader *r, const char *name, enum presence presence, int64_t min,
                            int64_t max)
{
    const json_t *value = member(r, name, presence);
    if (value == NULL)
        return 0;
    if (!json_is_integer(value)) {
        refuse(r, SL_EINVAL, name, "must be an integer");
        return 0;
    }
    int64_t number = json_integer_value(value);
    if (number < min || number > max)
        refuse(r, SL_EINVAL, name, "is out of range");
    return number;
}

/* The object under `name`, or a reader of nothing. */
static struct reader enter(struct reader *r, const char *name, enum presence presence, bool *is_there)
{
    const json_t *value = member(r, name, presence);
    *is_there = value != NULL;
    if (value != NULL && !json_is_object(value)) {
        refuse(r, SL_EINVAL, name, "must be an object");
        *is_there = false;
    }
    return (struct reader){.object = value, .arena = r->arena, .why = r->why, .err = r->err};
}

/* ["<generation>", number]: the generation is a decimal string because it is opaque to clients. */
static bool parse_position(const json_t *value, uint64_t *gen, uint64_t *number)
{
    const json_t *first = json_array_get(value, 0), *second = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_string(first) || !json_is_integer(second))
        return false;
    if (sl_str_uint(sl_str_n(json_string_value(first), json_string_length(first)), gen) != SL_OK)
        return false;
    if (json_integer_value(second) < 0)
        return false;
    *number = (uint64_t)json_integer_value(second);
    return true;
}

static const char position_form[] = "must be [\"<generation>\", number]";

static void read_resume_topics(struct reader *r, struct frame *f)
{
    bool is_there;
    struct reader topics = enter(r, "topics", OPTIONAL, &is_there);
    if (!is_there)
        return;
    if (json_object_size(topics.object) > FRAME_TOPICS_MAX) {
        refuse(r, SL_ETOOBIG, "topics", "has too many members");
        return;
    }
    const char *name;
    json_t *value; /* borrowed */
    json_object_foreach((json_t *)(uintptr_t)topics.object, name, value)
    {
        struct frame_position *p = &f->position[f->position_count++];
        p->topic = sl_str_c(name);
        if (!frame_topic_ok(p->topic))
            refuse(r, SL_EINVAL, "topics", "must name me, queue or conv:<conversation id>");
        else if (!parse_position(value, &p->gen, &p->number))
            refuse(r, SL_EINVAL, "topics", position_form);
    }
}

static void read_resume(struct reader *r, struct frame *f)
{
    bool is_there;
    struct reader resume = enter(r, "resume", OPTIONAL, &is_there);
    if (!is_there)
        return;
    f->session = read_name(&resume, "session", REQUIRED);
    read_resume_topics(&resume, f);
    r->err = resume.err;
}

static void read_hello(struct reader *r, struct frame *f)
{
    f->role = read_string(r, "role", REQUIRED, MSG_ID_MAX_BYTES);
    if (r->err == SL_OK && !sl_str_eq_c(f->role, "visitor") && !sl_str_eq_c(f->role, "agent"))
        refuse(r, SL_EINVAL, "role", "must be visitor or agent");
    f->token = read_string(r, "token", OPTIONAL, FRAME_TOKEN_MAX_BYTES);
    f->inbox = read_name(r, "inbox", OPTIONAL);
    f->client = read_word(r, "client");
    read_resume(r, f);
}

static void read_sub(struct reader *r, struct frame *f)
{
    f->id = read_name(r, "id", REQUIRED);
    f->topic = read_topic(r);
    const json_t *position = member(r, "pos", OPTIONAL);
    if (position == NULL)
        return;
    f->has_position = parse_position(position, &f->gen, &f->from);
    if (!f->has_position)
        refuse(r, SL_EINVAL, "pos", position_form);
}

static void read_unsub(struct reader *r, struct frame *f)
{
    f->id = read_name(r, "id", OPTIONAL);
    f->topic = read_topic(r);
}

/* A kind that a client may send; notes have a command of their own, events are the system's. */
static void read_kind(struct reader *d, struct frame *f)
{
    enum msg_kind kind = MSG_TEXT;
    f->kind = read_string(d, "kind", OPTIONAL, MSG_ID_MAX_BYTES);
    if (d->err != SL_OK)
        return;
    if (json_object_get(d->object, "kind") == NULL)
        f->kind = sl_str_c(msg_kind_name(MSG_TEXT));
    else if (!msg_kind_from(f->kind, &kind) || kind == MSG_EVENT || kind == MSG_NOTE)
        refuse(d, SL_EINVAL, "kind", "is not a kind of message that can be sent");
    if (kind == MSG_TEXT && f->text.len == 0)
        refuse(d, SL_EINVAL, "text", "is missing or empty");
    else if (f->text.len == 0 && f->data_json.len == 0)
        refuse(d, SL_EINVAL, "data", "is missing: this kind needs text or data");
}

static void read_data(struct reader *d, struct frame *f)
{
    bool is_there;
    struct reader data = enter(d, "data", OPTIONAL, &is_there);
    if (!is_there)
        return;
    struct sl_buf text;
    sl_buf_init(&text, MSG_DATA_MAX_BYTES);
    sl_json_dump(&text, data.object);
    json_t *kept = text.overflow ? NULL : json_stringn(text.ptr, text.len);
    if (kept == NULL)
        refuse(d, SL_ETOOBIG, "data", "is too long");
    else if (!msg_json_ok(sl_buf_view(&text), MSG_DATA_DEPTH_MAX))
        refuse(d, SL_EINVAL, "data", "is nested too deep or has a number out of range");
    sl_buf_fini(&text);
    if (kept == NULL || json_array_append_new(d->arena, kept) != 0)
        return;
    f->data_json = sl_str_n(json_string_value(kept), json_string_length(kept));
}

static void read_send(struct reader *d, struct frame *f)
{
    f->text = read_string(d, "text", OPTIONAL, MSG_TEXT_MAX_BYTES);
    read_data(d, f);
    read_kind(d, f);
    f->reply_to = read_word(d, "reply_to");
    f->control = read_integer(d, "control", OPTIONAL, 0, INT64_MAX);
}

static void read_rate(struct reader *d, struct frame *f)
{
    f->score = read_integer(d, "score", REQUIRED, 1, 5);
    f->text = read_string(d, "text", OPTIONAL, MSG_TEXT_MAX_BYTES);
}

static void read_nothing(struct reader *d, struct frame *f)
{
    (void)d, (void)f;
}

static void read_accept(struct reader *d, struct frame *f)
{
    f->ticket = read_integer(d, "ticket", REQUIRED, 0, INT64_MAX);
}

static void read_note(struct reader *d, struct frame *f)
{
    f->text = read_string(d, "text", REQUIRED, MSG_TEXT_MAX_BYTES);
}

static void read_transfer(struct reader *d, struct frame *f)
{
    f->control = read_integer(d, "control", REQUIRED, 0, INT64_MAX);
    f->queue = read_name(d, "queue", REQUIRED);
    f->reason = read_string(d, "reason", OPTIONAL, FRAME_REASON_MAX_BYTES);
}

static void read_close(struct reader *d, struct frame *f)
{
    f->control = read_integer(d, "control", REQUIRED, 0, INT64_MAX);
}

static void read_presence(struct reader *d, struct frame *f)
{
    f->state = read_string(d, "state", REQUIRED, MSG_ID_MAX_BYTES);
    if (d->err == SL_OK && !sl_str_eq_c(f->state, "ready") && !sl_str_eq_c(f->state, "away"))
        refuse(d, SL_EINVAL, "state", "must be ready or away");
}

/* What stands in `d` of each command; those that may stand without one get an empty object. */
static const struct {
    void (*read)(struct reader *d, struct frame *f);
    enum presence data;
} commands[] = {
    [FRAME_CMD_MESSAGE_SEND] = {read_send, REQUIRED}, [FRAME_CMD_MESSAGE_RATE] = {read_rate, REQUIRED},
    [FRAME_CMD_CONV_END] = {read_nothing, OPTIONAL},  [FRAME_CMD_CONV_ACCEPT] = {read_accept, REQUIRED},
    [FRAME_CMD_CONV_NOTE] = {read_note, REQUIRED},    [FRAME_CMD_CONV_TRANSFER] = {read_transfer, REQUIRED},
    [FRAME_CMD_CONV_CLOSE] = {read_close, REQUIRED},  [FRAME_CMD_PRESENCE_SET] = {read_presence, REQUIRED},
};
_Static_assert(sizeof commands / sizeof commands[0] == FRAME_CMD_COUNT, "one row a command");

static void read_command_name(struct reader *r, struct frame *f)
{
    struct sl_str word = read_string(r, "k", REQUIRED, SIZE_MAX);
    if (r->err != SL_OK)
        return;
    for (size_t i = 0; i < FRAME_CMD_COUNT; i++) {
        if (sl_str_eq_c(word, command_words[i])) {
            f->command = (enum frame_command)i;
            return;
        }
    }
    refuse(r, SL_EINVAL, "k", "is not a command");
}

/* W3C Trace Context 3.2: a traceparent that cannot be read is ignored, the request goes on without. */
static void read_trace(struct reader *r, struct frame *f)
{
    struct sl_str trace = read_string(r, "tp", OPTIONAL, MSG_ID_MAX_BYTES);
    if (msg_trace_ok(trace))
        f->trace = trace;
}

static void read_cmd(struct reader *r, struct frame *f)
{
    f->id = read_name(r, "id", REQUIRED);
    f->n = (uint64_t)read_integer(r, "n", REQUIRED, 1, INT64_MAX);
    f->topic = read_topic(r);
    read_command_name(r, f);
    read_trace(r, f);
    bool is_there;
    struct reader d = enter(r, "d", r->err == SL_OK ? commands[f->command].data : OPTIONAL, &is_there);
    if (!is_there)
        return;
    commands[f->command].read(&d, f);
    r->err = d.err;
}

static void read_frame(struct reader *r, struct frame *f)
{
    static void (*const readers[])(struct reader * r, struct frame * f) = {
        [FRAME_HELLO] = read_hello, [FRAME_SUB] = read_sub,      [FRAME_UNSUB] = read_unsub,
        [FRAME_CMD] = read_cmd,     [FRAME_PING] = read_nothing,
    };
    _Static_assert(sizeof readers / sizeof readers[0] == TYPE_COUNT, "one reader a type");
    if (!json_is_object(r->object)) {
        r->err = sl_fail_set(r->why, SL_EINVAL, 0, "frame: not a JSON object");
        return;
    }
    struct sl_str word = read_string(r, "t", REQUIRED, SIZE_MAX);
    if (r->err != SL_OK)
        return;
    for (size_t i = 0; i < TYPE_COUNT; i++) {
        if (sl_str_eq_c(word, type_words[i])) {
            f->type = (enum frame_type)i;
            readers[i](r, f);
            return;
        }
    }
    refuse(r, SL_EINVAL, "t", "is not a type of frame");
}

static sl_err parse_one(const json_t *object, json_t *arena, struct frame *f, struct sl_fail *why)
{
    struct reader r = {.object = object, .arena = arena, .why = why, .err = SL_OK};
    read_frame(&r, f);
    return r.err;
}

typedef bool each_fn(void *arg, const struct frame *f);

static sl_err parse_batch(const json_t *root, json_t *arena, each_fn *each, void *arg, struct sl_fail *why)
{
    sl_err err = SL_OK;
    size_t count = json_array_size(root);
    if (count == 0)
        return sl_fail_set(why, SL_EINVAL, 0, "frame: an empty array");
    if (count > FRAME_BATCH_MAX)
        return sl_fail_set(why, SL_ETOOBIG, 0, "frame: more than %d frames in one array", FRAME_BATCH_MAX);
    struct frame *frames = sl_alloc(count * sizeof *frames);
    for (size_t i = 0; i < count && err == SL_OK; i++)
        err = parse_one(json_array_get(root, i), arena, &frames[i], why);
    for (size_t i = 0; i < count && err == SL_OK; i++)
        if (!each(arg, &frames[i]))
            break;
    free(frames);
    return err;
}

static sl_err parse_root(const json_t *root, json_t *arena, each_fn *each, void *arg, struct sl_fail *why)
{
    if (json_is_array(root))
        return parse_batch(root, arena, each, arg, why);
    struct frame f = {.type = FRAME_PING};
    sl_err err = parse_one(root, arena, &f, why);
    if (err == SL_OK)
        (void)each(arg, &f);
    return err;
}

sl_err frame_parse_json(struct sl_str text, each_fn *each, void *arg, struct sl_fail *why)
{
    json_t *root = sl_json_parse(text, why);
    if (root == NULL)
        return SL_EINVAL;
    json_t *arena = json_array();
    sl_assert(arena != NULL);
    sl_err err = parse_root(root, arena, each, arg, why);
    json_decref(arena);
    json_decref(root);
    return err;
}

sl_err frame_parse(struct sl_str text, each_fn *each, void *arg, struct sl_fail *why)
{
    struct frame f;
    if (text.len > FRAME_MAX_BYTES)
        return sl_fail_set(why, SL_ETOOBIG, 0, "frame: more than %d bytes", FRAME_MAX_BYTES);
    if (!frame_scan(text, &f))
        return frame_parse_json(text, each, arg, why);
    (void)each(arg, &f);
    return SL_OK;
}
