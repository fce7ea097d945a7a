/* proto/fit.c - what becomes of a message that a channel cannot carry as it is. See fit.h. */
#include "proto/fit.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>

#define BYTES_MAX (1u << 20)

/* Texts are written one behind the other and pointed at when nothing moves any more. */
struct span {
    size_t from, len;
};
struct work {
    struct fit *f;
    const struct msg *m;
    const struct fit_limits *l;
    size_t max, parts_max;
    struct span text[FIT_PARTS_MAX], data[FIT_PARTS_MAX];
    bool is_own_text[FIT_PARTS_MAX], is_own_data[FIT_PARTS_MAX];
    struct sl_buf line; /* the whole text, before it is cut */
};

void fit_init(struct fit *f)
{
    f->count = 0;
    f->is_cut = false;
    sl_buf_init(&f->bytes, BYTES_MAX);
}

void fit_fini(struct fit *f)
{
    sl_buf_fini(&f->bytes);
    f->count = 0;
}

/* ---- parts ---- */

/* NULL: no more parts may be made. */
static struct msg *add_part(struct work *w, enum msg_kind kind)
{
    struct fit *f = w->f;
    if (f->count == w->parts_max) {
        f->is_cut = true;
        return NULL;
    }
    struct msg *part = &f->part[f->count];
    *part = *w->m;
    part->kind = kind;
    part->text = part->data = SL_STR_NONE;
    w->is_own_text[f->count] = w->is_own_data[f->count] = false;
    f->count++;
    return part;
}

static void set_text(struct work *w, const char *prefix, struct sl_str text, struct sl_str suffix)
{
    size_t i = w->f->count - 1, from = w->f->bytes.len;
    sl_buf_c(&w->f->bytes, prefix);
    sl_buf_str(&w->f->bytes, text);
    sl_buf_str(&w->f->bytes, suffix);
    w->text[i] = (struct span){from, w->f->bytes.len - from};
    w->is_own_text[i] = true;
}

static void resolve(struct work *w)
{
    for (size_t i = 0; i < w->f->count; i++) {
        const char *bytes = sl_buf_view(&w->f->bytes).ptr;
        if (w->is_own_text[i])
            w->f->part[i].text = sl_str_n(bytes + w->text[i].from, w->text[i].len);
        if (w->is_own_data[i])
            w->f->part[i].data = sl_str_n(bytes + w->data[i].from, w->data[i].len);
    }
}

/* ---- text ---- */

/* The text so far is shortened so that rest fits behind it. */
static struct sl_str room_for_rest(const struct work *w, struct sl_str text, size_t max, struct sl_str rest)
{
    size_t next, units = fit_units(rest, w->l->is_chars);
    if (w->max == 0 || fit_units(text, w->l->is_chars) + units <= max)
        return text;
    if (units + FIT_TEXT_MIN > max)
        return text; /* words that leave no room for the text: left out */
    return sl_str_n(text.ptr, fit_cut(text, max - units, w->l->is_chars, w->l->is_tight, &next));
}

static size_t count_texts(const struct work *w, struct sl_str text, size_t max, size_t most)
{
    size_t count = 0;
    while (text.len > 0 && count <= most) {
        size_t next = text.len;
        count += fit_cut(text, max, w->l->is_chars, w->l->is_tight, &next) > 0;
        text = sl_str_n(text.ptr + next, text.len - next);
    }
    return count;
}

static void add_last_text(struct work *w, const char *prefix, struct sl_str text, size_t max)
{
    struct sl_str rest = w->l->rest.len > 0 ? w->l->rest : SL_STR(FIT_REST_DEFAULT);
    struct sl_str cut = room_for_rest(w, text, max, rest);
    bool has_room = fit_units(cut, w->l->is_chars) + fit_units(rest, w->l->is_chars) <= max;
    set_text(w, prefix, cut, has_room ? rest : SL_STR_NONE);
    w->f->is_cut = true;
}

/* Parts of kind text; data goes with the first. The last one is of last_kind, so that a choice keeps its question. */
static void add_texts(struct work *w, struct sl_str text, enum msg_kind last_kind)
{
    bool is_chars = w->l->is_chars;
    size_t max = w->max, total = 1, number = 0, left = w->parts_max - w->f->count;
    char prefix[48] = "";
    if (max > 0 && fit_units(text, is_chars) > max) {
        max -= w->l->is_numbered && max >= FIT_TEXT_MIN + FIT_NUMBER_UNITS ? FIT_NUMBER_UNITS : 0;
        total = count_texts(w, text, max, left);
        total = total > left ? left : total;
    }
    do {
        size_t next = text.len,
               len = max > 0 ? fit_cut(text, max, is_chars, w->l->is_tight, &next) : text.len;
        struct sl_str first = sl_str_n(text.ptr, len);
        text = sl_str_n(text.ptr + next, text.len - next);
        if (len == 0 && (text.len > 0 || number > 0))
            continue; /* nothing but white space */
        if (add_part(w, text.len == 0 ? last_kind : MSG_TEXT) == NULL)
            return;
        number++;
        if (total > 1 && max < w->max)
            (void)snprintf(prefix, sizeof prefix, "(%zu/%zu) ", number, total);
        if (text.len > 0 && number == left)
            add_last_text(w, prefix, first, max);
        else
            set_text(w, prefix, first, SL_STR_NONE);
    } while (text.len > 0 && number < left);
}

/* ---- data as text ---- */

static void add_line(struct work *w, struct sl_str s)
{
    if (s.len == 0)
        return;
    if (w->line.len > 0)
        sl_buf_char(&w->line, '\n');
    sl_buf_str(&w->line, s);
}

static bool has_text(const struct work *w, struct sl_str s)
{
    size_t at;
    return s.len == 0 || sl_str_find(sl_buf_view(&w->line), s, &at);
}

static void add_line_once(struct work *w, struct sl_str s)
{
    if (!has_text(w, s))
        add_line(w, s);
}

static struct sl_str first_of(const json_t *o, const char *const *names)
{
    struct sl_str s = SL_STR_NONE;
    for (size_t i = 0; s.len == 0 && names[i] != NULL; i++)
        s = sl_json_get_str(o, names[i]);
    return s;
}

/* What an option is called; scratch holds it when it is a number. */
static struct sl_str label_of(const json_t *option, char scratch[SL_DIGITS_MAX + 1])
{
    static const char *const names[] = {"label", "text", "title", "value", "id", NULL};
    if (json_is_string(option))
        return sl_str_n(json_string_value(option), json_string_length(option));
    const json_t *value = json_is_integer(option) ? option : json_object_get(option, "value");
    struct sl_str label = first_of(option, names);
    if (label.len > 0 || !json_is_integer(value))
        return label;
    int n = snprintf(scratch, SL_DIGITS_MAX + 1, "%lld", (long long)json_integer_value(value));
    return sl_str_n(scratch, (size_t)n);
}

static const json_t *options_of(const json_t *data)
{
    static const char *const names[] = {"options", "choices", "buttons"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (json_is_array(json_object_get(data, names[i])))
            return json_object_get(data, names[i]);
    return NULL;
}

/* "1. An order". A scale whose labels are its numbers needs no lines below its question. */
static void add_options(struct work *w, const json_t *data)
{
    const json_t *options = options_of(data), *option;
    size_t i, number = 0;
    bool is_scale = w->line.len > 0;
    char scratch[SL_DIGITS_MAX + 1], digits[SL_DIGITS_MAX + 1];
    json_array_foreach(options, i, option)
    {
        (void)snprintf(digits, sizeof digits, "%zu", i + 1);
        is_scale = is_scale && sl_str_eq_c(label_of(option, scratch), digits);
    }
    json_array_foreach(options, i, option)
    {
        struct sl_str label = label_of(option, scratch), url = sl_json_get_str(option, "url");
        if (is_scale || label.len == 0 || number >= FIT_OPTIONS_MAX)
            continue;
        if (w->line.len > 0)
            sl_buf_char(&w->line, '\n');
        if (url.len == 0)
            sl_buf_printf(&w->line, "%zu. ", ++number);
        sl_buf_str(&w->line, label);
        if (url.len > 0)
            sl_buf_printf(&w->line, ": %.*s", (int)url.len, url.ptr);
    }
}

static void add_card(struct work *w, const json_t *data)
{
    static const char *const texts[] = {"text", "description", NULL}, *const links[] = {"url", "link", NULL};
    const json_t *line;
    size_t i;
    add_line_once(w, sl_json_get_str(data, "title"));
    add_line_once(w, first_of(data, texts));
    json_array_foreach(json_object_get(data, "lines"), i, line)
    {
        if (json_is_string(line) && i < FIT_OPTIONS_MAX)
            add_line(w, sl_str_n(json_string_value(line), json_string_length(line)));
    }
    add_line_once(w, first_of(data, links));
    add_options(w, data);
}

static void add_location(struct work *w, const json_t *data)
{
    static const char *const names[] = {"label", "name", NULL};
    const json_t *latitude = json_object_get(data, "latitude"),
                 *longitude = json_object_get(data, "longitude");
    add_line_once(w, first_of(data, names));
    add_line_once(w, sl_json_get_str(data, "address"));
    if (!json_is_number(latitude) || !json_is_number(longitude))
        return;
    double lat = json_number_value(latitude), lon = json_number_value(longitude);
    if (!(lat >= -90 && lat <= 90 && lon >= -180 && lon <= 180))
        return;
    char link[96];
    (void)snprintf(link, sizeof link, "https://www.openstreetmap.org/?mlat=%.6f&mlon=%.6f", lat, lon);
    add_line(w, sl_str_c(link));
}

static void add_link(struct work *w, const json_t *data)
{
    add_line_once(w, sl_json_get_str(data, "title"));
    add_line_once(w, sl_json_get_str(data, "description"));
    add_line_once(w, sl_json_get_str(data, "url"));
}

/* ---- attachments ---- */

static bool takes(const struct work *w, enum msg_kind kind)
{
    return (w->l->kinds & (1u << kind)) != 0;
}

/* What an attachment is sent as; MSG_TEXT: as a link. */
static enum msg_kind kind_of(const struct work *w, const json_t *attachment)
{
    struct sl_str type = sl_json_get_str(attachment, "type");
    int64_t size = sl_json_get_int(attachment, "size", 0);
    enum msg_kind kind = w->m->kind;
    if (w->l->media_max_bytes > 0 && size > w->l->media_max_bytes)
        return MSG_TEXT;
    if (sl_str_starts(type, "image/"))
        kind = MSG_IMAGE;
    else if (sl_str_starts(type, "audio/"))
        kind = MSG_AUDIO;
    else if (sl_str_starts(type, "video/"))
        kind = MSG_VIDEO;
    else if (type.len > 0 || kind == MSG_TEXT)
        kind = MSG_FILE;
    if (takes(w, kind))
        return kind;
    return takes(w, MSG_FILE) ? MSG_FILE : MSG_TEXT;
}

static void add_attachment_line(struct work *w, const json_t *attachment)
{
    struct sl_str id = sl_json_get_str(attachment, "id"), name = sl_json_get_str(attachment, "name");
    struct sl_buf link;
    sl_buf_init(&link, 4096);
    if (name.len == 0)
        name = sl_str_c(msg_kind_name(w->m->kind));
    if (w->l->link != NULL && id.len > 0)
        w->l->link(w->l->link_arg, id, name, &link);
    if (w->line.len > 0)
        sl_buf_char(&w->line, '\n');
    if (link.len > 0 && !link.overflow)
        sl_buf_printf(&w->line, "%.*s: %.*s", (int)name.len, name.ptr, (int)link.len, link.ptr);
    else
        sl_buf_printf(&w->line, "[%.*s]", (int)name.len, name.ptr);
    sl_buf_fini(&link);
}

static void add_media(struct work *w, const json_t *attachment, enum msg_kind kind)
{
    struct sl_buf *b = &w->f->bytes;
    if (add_part(w, kind) == NULL)
        return;
    size_t i = w->f->count - 1, from = b->len;
    sl_buf_c(b, "{\"attachments\":[");
    sl_json_dump(b, attachment);
    sl_buf_c(b, "]}");
    w->data[i] = (struct span){from, b->len - from};
    w->is_own_data[i] = true;
}

/* The text and those that became links first, as far as they are not the caption of the only one. */
static void add_attachments(struct work *w, const json_t *list)
{
    const json_t *a;
    size_t i, native = 0;
    bool is_bare = false;
    json_array_foreach(list, i, a)
    {
        enum msg_kind kind = kind_of(w, a);
        if (kind == MSG_TEXT)
            add_attachment_line(w, a);
        else
            native++;
        is_bare = is_bare || (w->l->bare & (1u << kind)) != 0;
    }
    bool is_caption = native == 1 && !is_bare &&
                      (w->max == 0 || fit_units(sl_buf_view(&w->line), w->l->is_chars) <= w->max);
    if (!is_caption && w->line.len > 0)
        add_texts(w, sl_buf_view(&w->line), MSG_TEXT);
    json_array_foreach(list, i, a)
    {
        enum msg_kind kind = kind_of(w, a);
        if (kind == MSG_TEXT)
            continue;
        add_media(w, a, kind);
        if (is_caption && w->f->count > 0 && w->line.len > 0)
            set_text(w, "", sl_buf_view(&w->line), SL_STR_NONE);
    }
}

/* ---- the message ---- */

static bool is_native(const struct work *w, const json_t *data)
{
    if (w->m->kind == MSG_TEXT)
        return true;
    if (!takes(w, w->m->kind))
        return false;
    return w->m->kind != MSG_CHOICE ||
           (w->l->options_max > 0 && json_array_size(options_of(data)) <= w->l->options_max);
}

/* As it is, but for a text that is too long: its data goes with the part that has its kind. */
static void add_native(struct work *w)
{
    add_texts(w, sl_buf_view(&w->line), w->m->kind);
    for (size_t i = w->f->count; i-- > 0;)
        if (w->f->part[i].kind == w->m->kind && (w->m->kind != MSG_TEXT || i == 0))
            w->f->part[i].data = w->m->data;
}

static void add_downgraded(struct work *w, const json_t *data)
{
    if (w->m->kind == MSG_CHOICE)
        add_options(w, data);
    else if (w->m->kind == MSG_CARD)
        add_card(w, data);
    else if (w->m->kind == MSG_LOCATION)
        add_location(w, data);
    else if (w->m->kind == MSG_LINK)
        add_link(w, data);
    if (w->line.len == 0)
        sl_buf_printf(&w->line, "[%s]", msg_kind_name(w->m->kind));
    add_texts(w, sl_buf_view(&w->line), MSG_TEXT);
}

static void fit_with(struct work *w, const json_t *data)
{
    const json_t *attachments = json_object_get(data, "attachments"); /* borrowed */
    sl_buf_str(&w->line, w->m->text);
    if (json_array_size(attachments) > 0)
        add_attachments(w, attachments);
    else if (is_native(w, data))
        add_native(w);
    else
        add_downgraded(w, data);
}

sl_err fit_message(struct fit *f, const struct msg *m, const struct fit_limits *l, struct sl_fail *why)
{
    struct work w = {.f = f, .m = m, .l = l, .max = l->text_max, .parts_max = l->parts_max};
    json_t *data = NULL; /* owned */
    f->count = 0;
    f->is_cut = false;
    sl_buf_clear(&f->bytes);
    if (m->kind == MSG_EVENT || m->kind == MSG_NOTE)
        return SL_OK;
    if (m->data.len > 0) {
        data = sl_json_parse(m->data, why);
        if (data == NULL || !json_is_object(data)) {
            json_decref(data);
            return sl_fail_set(why, SL_EINVAL, 0, "the message's data is no JSON object");
        }
    }
    if (w.max > 0 && w.max < FIT_TEXT_MIN)
        w.max = FIT_TEXT_MIN;
    if (w.parts_max == 0 || w.parts_max > FIT_PARTS_MAX)
        w.parts_max = FIT_PARTS_MAX;
    sl_buf_init(&w.line, BYTES_MAX / 4);
    fit_with(&w, data);
    resolve(&w);
    sl_buf_fini(&w.line);
    json_decref(data);
    return SL_OK;
}

sl_err fit_within(struct fit *f, const struct msg *m, const struct fit_limits *l, size_t sends,
                  struct sl_fail *why)
{
    struct fit_limits tight = *l;
    sl_err err = fit_message(f, m, l, why);
    if (err != SL_OK || sends == 0 || (f->count <= sends && !f->is_cut))
        return err;
    tight.is_tight = true;
    err = fit_message(f, m, &tight, why);
    if (err != SL_OK || (f->count <= sends && !f->is_cut))
        return err;
    return sl_fail_set(why, SL_ETOOBIG, 0, "the message needs %zu%s sends, and %zu are left", f->count,
                       f->is_cut ? " or more" : "", sends);
}

/* ---- limits as a word ---- */

void fit_limits_write(const struct fit_limits *l, size_t link_bytes, char out[FIT_LIMITS_BYTES])
{
    (void)snprintf(out, FIT_LIMITS_BYTES, "%zu%c/%u/%u/%zu/%lld/%zu", l->text_max, l->is_chars ? 'c' : 'b',
                   l->kinds, l->bare, l->options_max, (long long)l->media_max_bytes, link_bytes);
}

static bool cut_number(struct sl_str *rest, char end, uint64_t most, uint64_t *out)
{
    const char *at = rest->len > 0 ? memchr(rest->ptr, end, rest->len) : NULL;
    size_t len = at != NULL ? (size_t)(at - rest->ptr) : rest->len;
    if ((at == NULL) != (end == '\0') || sl_str_uint(sl_str_n(rest->ptr, len), out) != SL_OK || *out > most)
        return false;
    size_t used = len + (at != NULL ? 1 : 0);
    *rest = sl_str_n(rest->ptr + used, rest->len - used);
    return true;
}

sl_err fit_limits_read(struct sl_str word, struct fit_limits *out, size_t *link_bytes)
{
    uint64_t text_max, kinds, bare, options, media, link;
    bool is_chars = sl_str_find(word, SL_STR("c/"), &(size_t){0});
    if (word.len >= FIT_LIMITS_BYTES ||
        !cut_number(&word, is_chars ? 'c' : 'b', MSG_TEXT_MAX_BYTES, &text_max) || word.len == 0 ||
        word.ptr[0] != '/')
        return SL_EINVAL;
    word = sl_str_n(word.ptr + 1, word.len - 1);
    if (!cut_number(&word, '/', UINT_MAX, &kinds) || !cut_number(&word, '/', UINT_MAX, &bare) ||
        !cut_number(&word, '/', FIT_OPTIONS_MAX, &options) || !cut_number(&word, '/', INT64_MAX, &media) ||
        !cut_number(&word, '\0', FIT_LINK_MAX_BYTES, &link))
        return SL_EINVAL;
    *out = (struct fit_limits){.text_max = (size_t)text_max,
                               .is_chars = is_chars,
                               .kinds = (unsigned)kinds,
                               .bare = (unsigned)bare,
                               .options_max = (size_t)options,
                               .media_max_bytes = (int64_t)media};
    *link_bytes = (size_t)link;
    return SL_OK;
}

void fit_link_of(void *link_bytes, struct sl_str id, struct sl_str name, struct sl_buf *out)
{
    size_t bytes = *(const size_t *)link_bytes;
    if (bytes == 0 || id.len == 0)
        return;
    sl_buf_c(out, "https://");
    for (size_t i = sizeof "https://" - 1; i < bytes; i++)
        sl_buf_char(out, 'x');
    for (size_t i = 0; i < name.len; i++)
        sl_buf_c(out, isalnum((unsigned char)name.ptr[i]) ? "x" : "%xx");
}
