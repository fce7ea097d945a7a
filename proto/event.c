#include "proto/event.h"

#include "proto/proto_priv.h"

#include <stddef.h>

/* The table of fields, made from the one in the header. */
enum field {
#define X(member, name, form) F_##member,
    EVENT_FIELDS(X)
#undef X
        FIELD_COUNT
};
_Static_assert(EVENT_FIELD_COUNT == FIELD_COUNT + 1,
               "EVENT_FIELD_COUNT: the fields of EVENT_FIELDS and the type");
_Static_assert(FIELD_COUNT <= 64, "the set of fields already seen is one 64-bit word");

enum form { FORM_S, FORM_I };
struct field_info {
    struct sl_str name;
    enum form form;
    size_t offset;
};
static const struct field_info fields[FIELD_COUNT] = {
#define X(member, word, form_) {{word, sizeof(word) - 1}, FORM_##form_, offsetof(struct event, member)},
    EVENT_FIELDS(X)
#undef X
};

static const struct sl_str type_names[EVENT_TYPE_COUNT] = {{"", 0},
#define X(name, word) {word, sizeof(word) - 1},
                                                           EVENT_TYPES(X)
#undef X
};

static const char name_of_type[] = "t";

const char *event_type_name(enum event_type t)
{
    sl_assert(t >= EVENT_NONE && t < EVENT_TYPE_COUNT);
    return type_names[t].ptr;
}

bool event_type_from(struct sl_str word, enum event_type *out)
{
    if (word.len == 0)
        return false;
    for (int t = EVENT_NONE + 1; t < EVENT_TYPE_COUNT; t++) {
        if (sl_str_eq(word, type_names[t])) {
            *out = (enum event_type)t;
            return true;
        }
    }
    return false;
}

static struct sl_str get_string(const struct event *ev, const struct field_info *f)
{
    return *(const struct sl_str *)(const void *)((const char *)ev + f->offset);
}

static int64_t get_integer(const struct event *ev, const struct field_info *f)
{
    return *(const int64_t *)(const void *)((const char *)ev + f->offset);
}

static struct sl_str *string_at(struct event *ev, const struct field_info *f)
{
    return (struct sl_str *)(void *)((char *)ev + f->offset);
}

static int64_t *integer_at(struct event *ev, const struct field_info *f)
{
    return (int64_t *)(void *)((char *)ev + f->offset);
}

/* Decimal into the end of scratch (20 characters at most: -9223372036854775808). */
static struct sl_str integer_text(char scratch[21], int64_t value)
{
    char *p = sl_digits_before(scratch + 21, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
    if (value < 0)
        *--p = '-';
    return sl_str_n(p, (size_t)(scratch + 21 - p));
}

void event_to_fields(const struct event *ev, struct event_fields *out)
{
    size_t n = 0;
    out->item[n++] = sl_str_n(name_of_type, 1);
    sl_assert(ev->type > EVENT_NONE && ev->type < EVENT_TYPE_COUNT);
    out->item[n++] = type_names[ev->type];
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        const struct field_info *f = &fields[i];
        struct sl_str value;
        if (f->form == FORM_S)
            value = get_string(ev, f);
        else
            value = get_integer(ev, f) == 0 ? SL_STR_NONE : integer_text(out->scratch[i], get_integer(ev, f));
        if (value.len == 0)
            continue;
        out->item[n++] = f->name;
        out->item[n++] = value;
    }
    out->count = n;
}

static int field_of_1(char c)
{
    switch (c) {
    case 'c':
        return F_conv;
    case 'a':
        return F_addr;
    case 's':
        return F_session;
    case 'n':
        return F_number;
    case 'g':
        return F_agent;
    case 'x':
        return F_text;
    case 'd':
        return F_data;
    case 'r':
        return F_reason;
    case 'q':
        return F_queue;
    case 'w':
        return F_wait_ms;
    case 'h':
        return F_hash;
    default:
        return -1;
    }
}

#define PAIR(a, b) ((unsigned)(a) << 8 | (unsigned)(b))
static int field_of_2(const char *p)
{
    switch (PAIR((unsigned char)p[0], (unsigned char)p[1])) {
    case PAIR('i', 'd'):
        return F_id;
    case PAIR('c', 'e'):
        return F_control;
    case PAIR('t', 'n'):
        return F_turn;
    case PAIR('t', 'k'):
        return F_ticket;
    case PAIR('n', 'm'):
        return F_name;
    case PAIR('k', 'd'):
        return F_kind;
    case PAIR('s', 'k'):
        return F_skills;
    case PAIR('p', 'r'):
        return F_priority;
    case PAIR('r', 't'):
        return F_reply_to;
    case PAIR('c', 'h'):
        return F_channel;
    case PAIR('a', 't'):
        return F_at_ms;
    case PAIR('t', 'p'):
        return F_trace;
    case PAIR('f', 'n'):
        return F_fact;
    case PAIR('l', 'n'):
        return F_lane;
    case PAIR('c', 'x'):
        return F_context;
    case PAIR('q', 't'):
        return F_quota;
    case PAIR('r', 'i'):
        return F_remote;
    case PAIR('c', 'd'):
        return F_code;
    case PAIR('l', 'm'):
        return F_limits;
    case PAIR('d', 'n'):
        return F_done;
    default:
        return -1;
    }
}

static int field_of_3(const char *p)
{
    static const int candidates[] = {F_gen, F_capacity, F_due_ms, F_source};
    for (size_t i = 0; i < sizeof candidates / sizeof candidates[0]; i++)
        if (memcmp(p, fields[candidates[i]].name.ptr, 3) == 0)
            return candidates[i];
    return -1;
}

/* Index of the field, or -1. The unit test walks the whole table through here. */
static int field_of(struct sl_str name)
{
    if (name.len == 1)
        return field_of_1(name.ptr[0]);
    if (name.len == 2)
        return field_of_2(name.ptr);
    return name.len == 3 ? field_of_3(name.ptr) : -1;
}

static sl_err check_string(const struct field_info *f, struct sl_str value, struct sl_fail *why)
{
    bool is_data = f == &fields[F_data];
    if (value.len > (is_data ? EVENT_DATA_MAX_BYTES : EVENT_TEXT_MAX_BYTES))
        return sl_fail_set(why, SL_EINVAL, 0, "event: field \"%s\" is too long", f->name.ptr);
    if (!sl_str_utf8(value))
        return sl_fail_set(why, SL_EINVAL, 0, "event: field \"%s\" is not UTF-8", f->name.ptr);
    if (is_data && value.len > 0 && !msg_json_ok(value, EVENT_DATA_DEPTH_MAX))
        return sl_fail_set(why, SL_EINVAL, 0, "event: field \"%s\" is not JSON", f->name.ptr);
    return SL_OK;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* JSON without blanks around it: they would not survive inside an object. */
static struct sl_str trim(struct sl_str s)
{
    while (s.len > 0 && is_blank(s.ptr[s.len - 1]))
        s.len--;
    while (s.len > 0 && is_blank(s.ptr[0]))
        s = sl_str_n(s.ptr + 1, s.len - 1);
    return s;
}

static sl_err read_field(int i, struct sl_str value, struct event *ev, struct sl_fail *why)
{
    const struct field_info *f = &fields[i];
    if (f->form == FORM_I) {
        if (sl_str_int(value, integer_at(ev, f)) != SL_OK)
            return sl_fail_set(why, SL_EINVAL, 0, "event: field \"%s\" is not an integer", f->name.ptr);
        return SL_OK;
    }
    *string_at(ev, f) = i == F_data ? trim(value) : value;
    return check_string(f, value, why);
}

static sl_err read_type(struct sl_str word, struct event *ev, struct sl_fail *why)
{
    if (ev->type != EVENT_NONE)
        return sl_fail_set(why, SL_EINVAL, 0, "event: the type stands there twice");
    if (!event_type_from(word, &ev->type))
        return sl_fail_set(why, SL_EINVAL, 0, "event: unknown type");
    return SL_OK;
}

sl_err event_from_fields(const struct sl_str *items, size_t count, struct event *out, struct sl_fail *why)
{
    struct event ev = {.type = EVENT_NONE};
    uint64_t seen = 0;
    if (count % 2 != 0)
        return sl_fail_set(why, SL_EINVAL, 0, "event: a field without a value");
    for (size_t at = 0; at < count; at += 2) {
        sl_err err = SL_OK;
        int i = field_of(items[at]);
        if (i < 0) {
            if (sl_str_eq_c(items[at], name_of_type))
                err = read_type(items[at + 1], &ev, why);
        } else if ((seen >> i & 1) != 0) {
            err =
                sl_fail_set(why, SL_EINVAL, 0, "event: field \"%s\" stands there twice", fields[i].name.ptr);
        } else {
            seen |= (uint64_t)1 << i;
            err = read_field(i, items[at + 1], &ev, why);
        }
        if (err != SL_OK)
            return err;
    }
    if (ev.type == EVENT_NONE)
        return sl_fail_set(why, SL_EINVAL, 0, "event: no type");
    *out = ev;
    return SL_OK;
}

void event_to_json(const struct event *ev, struct sl_json *j, const char *key)
{
    sl_assert(ev->type > EVENT_NONE && ev->type < EVENT_TYPE_COUNT);
    sl_json_open(j, key, '{');
    sl_json_str(j, name_of_type, type_names[ev->type]);
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        const struct field_info *f = &fields[i];
        if (f->form == FORM_I) {
            if (get_integer(ev, f) != 0)
                sl_json_int(j, f->name.ptr, get_integer(ev, f));
        } else if (get_string(ev, f).len > 0) {
            if (i == F_data)
                sl_json_raw(j, f->name.ptr, get_string(ev, f));
            else
                sl_json_str(j, f->name.ptr, get_string(ev, f));
        }
    }
    sl_json_close(j, '}');
}

/* The data of an event is somebody else's JSON: it is cut out and handed on byte for byte, never parsed here.
 * So an event reads back whatever event_to_json wrote, however deep or large its data. *cut gets the text
 * with "d":null. */
static bool cut_data(struct sl_str json, struct sl_buf *cut, struct sl_str *data)
{
    if (!msg_json_member(json, fields[F_data].name.ptr, data))
        return false;
    size_t before = (size_t)(data->ptr - json.ptr);
    sl_buf_add(cut, json.ptr, before);
    sl_buf_c(cut, "null");
    sl_buf_add(cut, data->ptr + data->len, json.len - before - data->len);
    return true;
}

static sl_err read_member(int i, const json_t *value, struct event *ev, struct sl_fail *why)
{
    const struct field_info *f = &fields[i];
    if (f->form == FORM_I ? !json_is_integer(value) : !json_is_string(value))
        return sl_fail_set(why, SL_EINVAL, 0, "event: member \"%s\" has the wrong type", f->name.ptr);
    if (f->form == FORM_I) {
        *integer_at(ev, f) = json_integer_value(value);
        return SL_OK;
    }
    *string_at(ev, f) = sl_str_n(json_string_value(value), json_string_length(value));
    return check_string(f, *string_at(ev, f), why);
}

static sl_err read_members(json_t *root, struct event *ev, struct sl_fail *why)
{
    const char *name;
    json_t *value; /* borrowed */
    if (!json_is_object(root))
        return sl_fail_set(why, SL_EINVAL, 0, "event: not a JSON object");
    json_object_foreach(root, name, value)
    {
        sl_err err = SL_OK;
        int i = field_of(sl_str_c(name));
        if (i >= 0)
            err = read_member(i, value, ev, why);
        else if (strcmp(name, name_of_type) == 0)
            err =
                read_type(json_is_string(value) ? sl_str_c(json_string_value(value)) : SL_STR_NONE, ev, why);
        if (err != SL_OK)
            return err;
    }
    if (ev->type == EVENT_NONE)
        return sl_fail_set(why, SL_EINVAL, 0, "event: no type");
    return SL_OK;
}

/* Owned root, its member "d" turned into a string of the bytes that stood there; NULL with *why. */
static json_t *parse_with_data(struct sl_str json, struct sl_fail *why)
{
    struct sl_buf cut;
    struct sl_str data;
    sl_buf_init(&cut, 0);
    bool has_data = cut_data(json, &cut, &data);
    json_t *root = sl_json_parse(has_data ? sl_buf_view(&cut) : json, why);
    sl_buf_fini(&cut);
    if (root == NULL || (!has_data && json_object_get(root, fields[F_data].name.ptr) == NULL))
        return root;
    /* A name spelled with escapes is not found by cut_data: refused. json_stringn gives NULL unless UTF-8. */
    json_t *text = has_data ? json_stringn(data.ptr, data.len) : NULL;
    if (text != NULL && json_object_set_new(root, fields[F_data].name.ptr, text) == 0)
        return root;
    (void)sl_fail_set(why, SL_EINVAL, 0, "event: member \"%s\" is not UTF-8", fields[F_data].name.ptr);
    json_decref(root);
    return NULL;
}

sl_err event_from_json(struct sl_str json, struct event *out, json_t **hold, struct sl_fail *why)
{
    struct event ev = {.type = EVENT_NONE};
    json_t *root = parse_with_data(json, why);
    if (root == NULL)
        return SL_EINVAL;
    sl_err err = read_members(root, &ev, why);
    if (err != SL_OK) {
        json_decref(root);
        return err;
    }
    *out = ev;
    *hold = root;
    return SL_OK;
}
