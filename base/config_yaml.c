/* base/config_yaml.c - the file: libyaml's events, walked with our rules. */
#include "base/config_priv.h"

#include <yaml.h>

struct reader {
    struct sl_config *cfg;
    yaml_parser_t parser;
    yaml_event_t event; /* the current one; deleted by the next */
    bool has_event;
    struct sl_buf path;
    struct sl_map *seen; /* path -> line where it stood first, as a pointer's number */
    unsigned depth;
    struct sl_fail *why;
};

static struct config_place place_of(const struct reader *r, const yaml_mark_t *mark)
{
    return (struct config_place){CONFIG_FILE, r->cfg->file, mark->line + 1, mark->column + 1};
}

static struct config_place place_here(const struct reader *r)
{
    return place_of(r, &r->event.start_mark);
}

static const char *name_of_feature(const yaml_event_t *e)
{
    if (e->type == YAML_ALIAS_EVENT)
        return "an alias (*)";
    if (e->type == YAML_SCALAR_EVENT)
        return e->data.scalar.anchor != NULL ? "an anchor (&)"
               : e->data.scalar.tag != NULL  ? "a tag (!)"
                                             : NULL;
    if (e->type == YAML_SEQUENCE_START_EVENT)
        return e->data.sequence_start.anchor != NULL ? "an anchor (&)"
               : e->data.sequence_start.tag != NULL  ? "a tag (!)"
                                                     : NULL;
    if (e->type == YAML_MAPPING_START_EVENT)
        return e->data.mapping_start.anchor != NULL ? "an anchor (&)"
               : e->data.mapping_start.tag != NULL  ? "a tag (!)"
                                                    : NULL;
    if (e->type == YAML_DOCUMENT_START_EVENT &&
        e->data.document_start.tag_directives.start != e->data.document_start.tag_directives.end)
        return "a %TAG line";
    return NULL;
}

/* Go on to the next event; what we do not allow anywhere is refused here. */
static sl_err next(struct reader *r)
{
    if (r->has_event)
        yaml_event_delete(&r->event);
    r->has_event = yaml_parser_parse(&r->parser, &r->event) != 0;
    if (!r->has_event) {
        const char *problem = r->parser.problem != NULL ? r->parser.problem : "unreadable";
        return sl_config_fail(r->why, place_of(r, &r->parser.problem_mark), "not YAML: %s", problem);
    }
    const char *feature = name_of_feature(&r->event);
    if (feature != NULL)
        return sl_config_fail(r->why, place_here(r),
                              "found %s, which is not allowed here: write the value itself", feature);
    return SL_OK;
}

static struct sl_str scalar_of(const struct reader *r)
{
    return sl_str_n((const char *)r->event.data.scalar.value, r->event.data.scalar.length);
}

/* `key:` with nothing after it, or what YAML takes for nothing. */
static bool is_null(const struct reader *r)
{
    struct sl_str s = scalar_of(r);
    return r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (s.len == 0 || sl_str_eq_c(s, "~") || sl_str_eq_c(s, "null"));
}

static sl_err read_scalar(struct reader *r)
{
    struct sl_str path = sl_buf_view(&r->path);
    struct config_place here = place_here(r);
    if (sl_config_is_section(r->cfg, path) && is_null(r))
        return SL_OK; /* a section with nothing in it */
    if (sl_config_is_section(r->cfg, path))
        return sl_config_fail(r->why, here, "%.*s: expected keys below it, found a single value",
                              (int)path.len, path.ptr);
    const struct sl_key *key = sl_config_key_find(r->cfg, path);
    if (is_null(r) && key != NULL)
        return sl_config_fail(r->why, here, "%.*s: expected %s, found nothing%s", (int)path.len, path.ptr,
                              sl_config_type_words(key->type),
                              key->type == SL_CFG_STR ? " (write \"\" for an empty text)" : "");
    if (key != NULL && key->type == SL_CFG_LIST)
        return sl_config_fail(r->why, here, "%.*s: expected a list, found a single value", (int)path.len,
                              path.ptr);
    return sl_config_set_scalar(r->cfg, path, scalar_of(r), here, r->why);
}

static sl_err read_list(struct reader *r)
{
    struct sl_str path = sl_buf_view(&r->path);
    const struct sl_key *key = sl_config_key_find(r->cfg, path);
    if (key == NULL || key->type != SL_CFG_LIST)
        return sl_config_fail(
            r->why, place_here(r), "%.*s: expected %s, found a list", (int)path.len, path.ptr,
            sl_config_is_section(r->cfg, path) ? "keys below it"
                                               : sl_config_type_words(key != NULL ? key->type : SL_CFG_STR));
    struct config_value *v = sl_config_value_new(r->cfg, key, path, place_here(r), r->why);
    if (v == NULL)
        return SL_EINVAL;
    for (;;) {
        sl_err err = next(r);
        if (err != SL_OK || r->event.type == YAML_SEQUENCE_END_EVENT)
            return err;
        if (r->event.type != YAML_SCALAR_EVENT || is_null(r))
            return sl_config_fail(r->why, place_here(r), "%s: expected text as an item, found something else",
                                  v->name);
        err = sl_config_value_add_item(v, scalar_of(r), place_here(r), r->why);
        if (err != SL_OK)
            return err;
    }
}

static sl_err read_mapping(struct reader *r);

static sl_err read_section(struct reader *r)
{
    struct sl_str path = sl_buf_view(&r->path);
    const struct sl_key *key = sl_config_key_find(r->cfg, path);
    if (sl_config_is_section(r->cfg, path))
        return read_mapping(r);
    return sl_config_fail(
        r->why, place_here(r), "%.*s: expected %s, found keys below it", (int)path.len, path.ptr,
        sl_config_type_words(key != NULL ? key->type : SL_CFG_STR)); /* no key: a secret's path */
}

static sl_err read_value(struct reader *r)
{
    sl_err err = next(r);
    if (err != SL_OK)
        return err;
    if (r->event.type == YAML_SCALAR_EVENT)
        return read_scalar(r);
    return r->event.type == YAML_SEQUENCE_START_EVENT ? read_list(r) : read_section(r);
}

/* The current event is a key: add it to the path. */
static sl_err enter_key(struct reader *r)
{
    struct config_place here = place_here(r);
    if (r->event.type != YAML_SCALAR_EVENT)
        return sl_config_fail(r->why, here, "expected a key, found something else");
    struct sl_str part = scalar_of(r);
    if (!sl_config_is_name(part))
        return sl_config_fail(r->why, here,
                              "expected a key of letters, digits, _ and - (at most %d), found something else",
                              CONFIG_NAME_MAX);
    if (r->path.len > 0)
        sl_buf_char(&r->path, '.');
    sl_buf_str(&r->path, part);
    if (r->path.overflow)
        return sl_config_fail(r->why, here, "key longer than %d bytes in full", CONFIG_PATH_MAX);
    struct sl_str path = sl_buf_view(&r->path);
    uintptr_t first_line =
        (uintptr_t)sl_map_set(r->seen, path, (void *)(uintptr_t)here.line); /* NOLINT: a number */
    if (first_line != 0)
        return sl_config_fail(r->why, here, "%.*s is given twice (first in line %zu)", (int)path.len,
                              path.ptr, (size_t)first_line);
    if (!sl_config_is_known(r->cfg, path))
        return sl_config_fail_unknown(r->cfg, path, here, r->why);
    sl_config_entry_note(r->cfg, path, here);
    return SL_OK;
}

/* The current event opened the mapping. */
static sl_err read_mapping(struct reader *r)
{
    if (++r->depth > CONFIG_DEPTH_MAX)
        return sl_config_fail(r->why, place_here(r), "nested deeper than %d", CONFIG_DEPTH_MAX);
    size_t path_len = r->path.len;
    for (;;) {
        sl_err err = next(r);
        if (err == SL_OK && r->event.type == YAML_MAPPING_END_EVENT)
            break;
        if (err == SL_OK)
            err = enter_key(r);
        if (err == SL_OK)
            err = read_value(r);
        if (err != SL_OK)
            return err;
        r->path.len = path_len;
    }
    r->depth--;
    return SL_OK;
}

static sl_err read_document(struct reader *r)
{
    sl_err err = next(r); /* its root */
    if (err != SL_OK)
        return err;
    if (r->event.type == YAML_MAPPING_START_EVENT)
        err = read_mapping(r);
    else if (r->event.type != YAML_SCALAR_EVENT || !is_null(r))
        err = sl_config_fail(r->why, place_here(r),
                             "expected keys at the top of the file, found something else");
    return err == SL_OK ? next(r) : err; /* the document's end */
}

static sl_err read_stream(struct reader *r)
{
    sl_err err = next(r); /* the stream's start */
    if (err == SL_OK)
        err = next(r);
    if (err != SL_OK || r->event.type == YAML_STREAM_END_EVENT)
        return err; /* an empty file: all defaults */
    err = read_document(r);
    if (err == SL_OK)
        err = next(r);
    if (err == SL_OK && r->event.type != YAML_STREAM_END_EVENT)
        err = sl_config_fail(r->why, place_here(r), "a second document in the file: put everything into one");
    return err;
}

sl_err sl_config_yaml_read(struct sl_config *cfg, struct sl_str yaml, struct sl_fail *why)
{
    struct reader r = {.cfg = cfg, .why = why};
    sl_assert(yaml_parser_initialize(&r.parser) != 0);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)yaml.ptr, yaml.len);
    sl_buf_init(&r.path, CONFIG_PATH_MAX);
    r.seen = sl_map_new();
    sl_err err = read_stream(&r);
    if (r.has_event)
        yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    sl_map_free(&r.seen);
    sl_buf_fini(&r.path);
    return err;
}
