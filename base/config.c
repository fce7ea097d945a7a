/* base/config.c - the layers (default, file, environment), the table of keys, and the questions asked of the
 * result. */
#include "base/config.h"

#include "base/config_priv.h"
#include "base/crypto.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Words. */

sl_err sl_config_fail(struct sl_fail *why, struct config_place place, const char *fmt, ...)
{
    char text[sizeof why->text];
    va_list ap;
    va_start(ap, fmt);
    if (vsnprintf(text, sizeof text, fmt, ap) < 0)
        text[0] = '\0';
    va_end(ap);
    if (place.origin == CONFIG_DEFAULT)
        return sl_fail_set(why, SL_EINVAL, 0, "default of %s", text);
    if (place.origin == CONFIG_ENV)
        return sl_fail_set(why, SL_EINVAL, 0, "environment %s: %s", place.name, text);
    if (place.line == 0)
        return sl_fail_set(why, SL_EINVAL, 0, "%s: %s", place.name, text);
    return sl_fail_set(why, SL_EINVAL, 0, "%s:%zu:%zu: %s", place.name, place.line, place.column, text);
}

/* The table of keys. A path is dotted; a part "*" of a key stands for any name. */

static struct sl_str first_part(struct sl_str path)
{
    const char *dot = path.len > 0 ? memchr(path.ptr, '.', path.len) : NULL;
    return sl_str_n(path.ptr, dot != NULL ? (size_t)(dot - path.ptr) : path.len);
}

static struct sl_str after_part(struct sl_str path)
{
    size_t n = first_part(path).len;
    return n < path.len ? sl_str_n(path.ptr + n + 1, path.len - n - 1) : SL_STR_NONE;
}

/* Walk both until one ends. True when all of path was matched; *rest: what the pattern has beyond it; *last:
 * the pattern's part that stood for path's last. */
static bool match(const char *pattern, struct sl_str path, struct sl_str *rest, struct sl_str *last)
{
    struct sl_str p = sl_str_c(pattern);
    *last = SL_STR_NONE;
    while (p.len > 0 && path.len > 0) {
        *last = first_part(p);
        if (!sl_str_eq_c(*last, "*") && !sl_str_eq(*last, first_part(path)))
            return false;
        p = after_part(p);
        path = after_part(path);
    }
    *rest = p;
    return path.len == 0;
}

const struct sl_key *sl_config_key_find(const struct sl_config *cfg, struct sl_str path)
{
    if (sl_config_is_section(cfg, path))
        return NULL;
    const struct sl_key *found = NULL;
    for (const struct sl_key *k = cfg->keys; k->key != NULL; k++) {
        struct sl_str rest, last;
        if (sl_str_eq_c(path, k->key))
            return k;
        if (found == NULL && match(k->key, path, &rest, &last) && rest.len == 0)
            found = k;
    }
    return found;
}

bool sl_config_is_section(const struct sl_config *cfg, struct sl_str path)
{
    struct sl_str rest, last;
    for (const struct sl_key *k = cfg->keys; k->key != NULL; k++)
        if (match(k->key, path, &rest, &last) && rest.len > 0)
            return true;
    return false;
}

bool sl_config_is_name(struct sl_str part)
{
    for (size_t i = 0; i < part.len; i++) {
        char c = part.ptr[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_letter && c != '_' && c != '-')
            return false;
    }
    return part.len > 0 && part.len <= CONFIG_NAME_MAX;
}

/* How many letters must change to make b of a (Levenshtein), or 99 for words too long to have been mistyped.
 */
static unsigned distance(struct sl_str a, struct sl_str b)
{
    unsigned row[CONFIG_NAME_MAX + 1];
    if (a.len > CONFIG_NAME_MAX || b.len > CONFIG_NAME_MAX)
        return 99;
    for (unsigned k = 0; k <= b.len; k++)
        row[k] = k;
    for (size_t i = 0; i < a.len; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i + 1;
        for (size_t k = 0; k < b.len; k++) {
            unsigned change = diagonal + (a.ptr[i] != b.ptr[k] ? 1 : 0);
            diagonal = row[k + 1];
            unsigned insert = (row[k] < diagonal ? row[k] : diagonal) + 1;
            row[k + 1] = change < insert ? change : insert;
        }
    }
    return row[b.len];
}

sl_err sl_config_fail_unknown(const struct sl_config *cfg, struct sl_str path, struct config_place place,
                              struct sl_fail *why)
{
    size_t n = path.len;
    while (n > 0 && path.ptr[n - 1] != '.')
        n--;
    struct sl_str parent = sl_str_n(path.ptr, n > 0 ? n - 1 : 0), name = sl_str_n(path.ptr + n, path.len - n);
    struct sl_str best = SL_STR_NONE;
    unsigned best_distance = 3; /* further away is no slip of the finger */
    for (const struct sl_key *k = cfg->keys; k->key != NULL; k++) {
        struct sl_str rest, last;
        if (!match(k->key, parent, &rest, &last))
            continue;
        unsigned d = distance(name, first_part(rest));
        if (d < best_distance && rest.len > 0 && !sl_str_eq_c(first_part(rest), "*")) {
            best = first_part(rest);
            best_distance = d;
        }
    }
    if (best.len == 0)
        return sl_config_fail(why, place, "%.*s: no such key", (int)path.len, path.ptr);
    return sl_config_fail(why, place, "%.*s: no such key; did you mean %.*s?", (int)path.len, path.ptr,
                          (int)best.len, best.ptr);
}

/* Values and entries. */

static void value_free(struct config_value *v)
{
    sl_config_value_fini(v);
    free(v);
}

struct config_value *sl_config_value_new(struct sl_config *cfg, const struct sl_key *key, struct sl_str path,
                                         struct config_place place, struct sl_fail *why)
{
    struct config_value *before = sl_map_get(cfg->values, path);
    if (before != NULL && before->origin == place.origin) {
        (void)sl_config_fail(why, place, "%s is given twice: as itself and as %s_file", before->name,
                             before->name);
        return NULL;
    }
    struct config_value *v = sl_alloc(sizeof *v);
    v->key = key;
    v->name = sl_str_dup(path);
    v->origin = place.origin;
    v->origin_name = place.name != NULL ? sl_strdup(place.name) : NULL;
    v->line = place.line;
    (void)sl_map_set(cfg->values, path, v);
    if (before != NULL)
        value_free(before);
    return v;
}

/* At most max bytes of a file. */
static sl_err read_file(const char *path, size_t max, struct sl_buf *out, int *sys)
{
    sl_buf_init(out, max);
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        *sys = errno;
        return SL_ENOTFOUND;
    }
    char chunk[4096];
    size_t n;
    while (!out->overflow && (n = fread(chunk, 1, sizeof chunk, f)) > 0)
        sl_buf_add(out, chunk, n);
    explicit_bzero(chunk, sizeof chunk);
    *sys = ferror(f) ? EIO : 0;
    (void)fclose(f);
    return *sys != 0 ? SL_ENOTFOUND : out->overflow ? SL_ETOOBIG : SL_OK;
}

/* The path of a secret's file may be shown, what stands in it may not. */
static sl_err set_secret_from_file(struct config_value *v, struct sl_str path, struct config_place place,
                                   struct sl_fail *why)
{
    if (!sl_str_utf8(path) || path.len == 0)
        return sl_config_fail(why, place, "%s_file: expected the path of a file", v->name);
    char *file = sl_str_dup(path);
    struct sl_buf secret;
    int sys = 0;
    sl_err err = read_file(file, CONFIG_SECRET_MAX, &secret, &sys);
    if (err == SL_ETOOBIG)
        err = sl_config_fail(why, place, "%s_file: %s is larger than 64KiB", v->name, file);
    else if (err != SL_OK)
        err = sl_config_fail(why, place, "%s_file: cannot read %s: %s", v->name, file, strerror(sys));
    struct sl_str s = sl_buf_view(&secret);
    if (s.len > 0 && s.ptr[s.len - 1] == '\n')
        s.len--;
    if (err == SL_OK)
        err = sl_config_value_parse(v, s, place, why);
    if (secret.ptr != NULL)
        explicit_bzero(secret.ptr, secret.len);
    sl_buf_fini(&secret);
    free(file);
    return err;
}

static const struct sl_key *secret_of_file_key(const struct sl_config *cfg, struct sl_str path,
                                               struct sl_str *secret_path)
{
    const size_t suffix = sizeof "_file" - 1;
    if (path.len <= suffix || memcmp(path.ptr + path.len - suffix, "_file", suffix) != 0)
        return NULL;
    *secret_path = sl_str_n(path.ptr, path.len - suffix);
    const struct sl_key *key = sl_config_key_find(cfg, *secret_path);
    return key != NULL && key->type == SL_CFG_SECRET ? key : NULL;
}

bool sl_config_is_known(const struct sl_config *cfg, struct sl_str path)
{
    struct sl_str secret_path;
    return sl_config_is_section(cfg, path) || sl_config_key_find(cfg, path) != NULL ||
           secret_of_file_key(cfg, path, &secret_path) != NULL;
}

sl_err sl_config_set_scalar(struct sl_config *cfg, struct sl_str path, struct sl_str text,
                            struct config_place place, struct sl_fail *why)
{
    struct sl_str secret_path = SL_STR_NONE;
    const struct sl_key *key = sl_config_key_find(cfg, path);
    const struct sl_key *file_key = key == NULL ? secret_of_file_key(cfg, path, &secret_path) : NULL;
    if (key == NULL && file_key == NULL)
        return sl_config_fail_unknown(cfg, path, place, why);
    if (file_key != NULL) {
        struct config_value *v = sl_config_value_new(cfg, file_key, secret_path, place, why);
        return v != NULL ? set_secret_from_file(v, text, place, why) : SL_EINVAL;
    }
    struct config_value *v = sl_config_value_new(cfg, key, path, place, why);
    return v != NULL ? sl_config_value_parse(v, text, place, why) : SL_EINVAL;
}

static bool is_entry(const struct sl_config *cfg, struct sl_str path)
{
    struct sl_str rest, last;
    for (const struct sl_key *k = cfg->keys; k->key != NULL; k++)
        if (match(k->key, path, &rest, &last) && sl_str_eq_c(last, "*"))
            return true;
    return false;
}

void sl_config_entry_note(struct sl_config *cfg, struct sl_str path, struct config_place place)
{
    size_t n = path.len;
    while (n > 0 && path.ptr[n - 1] != '.')
        n--;
    if (n == 0 || !is_entry(cfg, path))
        return;
    struct sl_str section = sl_str_n(path.ptr, n - 1), name = sl_str_n(path.ptr + n, path.len - n);
    struct config_section *s = sl_map_get(cfg->sections, section);
    if (s == NULL) {
        s = sl_alloc(sizeof *s);
        (void)sl_map_set(cfg->sections, section, s);
    }
    for (size_t i = 0; i < s->count; i++)
        if (sl_str_eq_c(name, s->names[i]))
            return;
    s->names = sl_realloc(s->names, (s->count + 1) * sizeof(char *));
    s->places = sl_realloc(s->places, (s->count + 1) * sizeof(struct config_place));
    s->names[s->count] = sl_str_dup(name);
    place.name =
        cfg->file; /* which lives as long; a variable's name does not, and its place is not asked for */
    s->places[s->count++] = place;
}

/* The environment. SLUICE_GATEWAY__LISTEN: "__" for the dot, capitals, "_" also for "-". */

static bool is_env_spelling(struct sl_str env, struct sl_str name)
{
    if (env.len != name.len)
        return false;
    for (size_t i = 0; i < env.len; i++) {
        char c = name.ptr[i];
        char upper = c == '-' ? '_' : c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
        if (env.ptr[i] != upper)
            return false;
    }
    return true;
}

/* The name of an entry that the variable means: one of the file's, or a new one in small letters. */
static void entry_from_env(const struct sl_config *cfg, struct sl_str section, struct sl_str env,
                           struct sl_buf *path)
{
    const struct config_section *s = sl_map_get(cfg->sections, section);
    for (size_t i = 0; s != NULL && i < s->count; i++)
        if (is_env_spelling(env, sl_str_c(s->names[i]))) {
            sl_buf_c(path, s->names[i]);
            return;
        }
    for (size_t i = 0; i < env.len; i++)
        sl_buf_char(path,
                    env.ptr[i] >= 'A' && env.ptr[i] <= 'Z' ? (char)(env.ptr[i] - 'A' + 'a') : env.ptr[i]);
}

/* Does env (without SLUICE_) spell this key? Its path then stands in path. */
static bool path_from_env(const struct sl_config *cfg, const char *pattern, struct sl_str env,
                          struct sl_buf *path)
{
    sl_buf_clear(path);
    struct sl_str p = sl_str_c(pattern);
    while (p.len > 0) {
        size_t n = env.len;
        (void)sl_str_find(env, SL_STR("__"), &n);
        struct sl_str part = first_part(p), env_part = sl_str_n(env.ptr, n);
        bool is_any = sl_str_eq_c(part, "*");
        if (is_any ? !sl_config_is_name(env_part) : !is_env_spelling(env_part, part))
            return false;
        char section[CONFIG_PATH_MAX];
        size_t section_len = path->len < sizeof section ? path->len : 0;
        if (section_len > 0)
            memcpy(section, path->ptr, section_len);
        sl_buf_c(path, path->len > 0 ? "." : "");
        if (is_any)
            entry_from_env(cfg, sl_str_n(section, section_len), env_part, path);
        else
            sl_buf_str(path, part);
        p = after_part(p);
        bool is_last = n == env.len;
        if (is_last != (p.len == 0))
            return false;
        env = is_last ? SL_STR_NONE : sl_str_n(env.ptr + n + 2, env.len - n - 2);
    }
    return !path->overflow;
}

static bool find_env_path(const struct sl_config *cfg, struct sl_str env, struct sl_buf *path)
{
    const size_t suffix = sizeof "_FILE" - 1;
    for (const struct sl_key *k = cfg->keys; k->key != NULL; k++)
        if (!sl_config_is_section(cfg, sl_str_c(k->key)) && path_from_env(cfg, k->key, env, path))
            return true;
    if (env.len <= suffix || memcmp(env.ptr + env.len - suffix, "_FILE", suffix) != 0)
        return false;
    env.len -= suffix;
    for (const struct sl_key *k = cfg->keys; k->key != NULL; k++)
        if (k->type == SL_CFG_SECRET && path_from_env(cfg, k->key, env, path)) {
            sl_buf_c(path, "_file");
            return !path->overflow;
        }
    return false;
}

static void note_entries(struct sl_config *cfg, struct sl_str path)
{
    for (size_t i = 0; i <= path.len; i++)
        if (i == path.len || path.ptr[i] == '.')
            sl_config_entry_note(cfg, sl_str_n(path.ptr, i), (struct config_place){CONFIG_FILE, NULL, 0, 0});
}

static sl_err take_variable(struct sl_config *cfg, const char *variable, struct sl_fail *why)
{
    const char *equals = strchr(variable, '=');
    const size_t prefix = sizeof "SLUICE_" - 1;
    struct sl_str env = sl_str_n(variable + prefix, (size_t)(equals - variable) - prefix);
    char *name = sl_str_dup(sl_str_n(variable, (size_t)(equals - variable)));
    struct config_place place = {CONFIG_ENV, name, 0, 0};
    struct sl_buf path;
    size_t at;
    sl_err err = SL_OK;
    sl_buf_init(&path, CONFIG_PATH_MAX);
    if (find_env_path(cfg, env, &path)) {
        err = sl_config_set_scalar(cfg, sl_buf_view(&path), sl_str_c(equals + 1), place, why);
        struct sl_str secret_path = sl_buf_view(&path);
        if (err == SL_OK && sl_config_key_find(cfg, secret_path) == NULL)
            (void)secret_of_file_key(cfg, sl_buf_view(&path), &secret_path);
        note_entries(cfg, secret_path);
    } else if (sl_str_find(env, SL_STR("__"), &at)) {
        err = sl_config_fail(why, place, "no such key (a dot in a key is __ here)");
    } /* else: a variable of another kind, such as SLUICE_FAULTS */
    sl_buf_fini(&path);
    free(name);
    return err;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* In the order of their names, so that the entries they add stand in an order of their own. */
static sl_err read_environment(struct sl_config *cfg, struct sl_fail *why)
{
    const char **ours = NULL;
    size_t count = 0;
    for (char **e = environ; e != NULL && *e != NULL; e++) {
        if (strncmp(*e, "SLUICE_", 7) != 0 || strchr(*e, '=') == NULL)
            continue;
        ours = sl_realloc(ours, (count + 1) * sizeof(char *));
        ours[count++] = *e;
    }
    if (count > 1)
        qsort(ours, count, sizeof(char *), by_text);
    sl_err err = SL_OK;
    for (size_t i = 0; i < count && err == SL_OK; i++)
        err = take_variable(cfg, ours[i], why);
    free(ours);
    return err;
}

/* Defaults, and the order in which everything is printed and hashed: the table's. */

static sl_err take_default(struct sl_config *cfg, const struct sl_key *key, struct sl_str path,
                           struct config_place section, struct sl_fail *why)
{
    struct config_value *v = sl_map_get(cfg->values, path);
    struct config_place place = {CONFIG_DEFAULT, NULL, 0, 0};
    if (v == NULL && key->fallback == NULL) {
        return sl_config_fail(why, section, "%.*s must be given: %s", (int)path.len, path.ptr,
                              key->help != NULL ? key->help : "");
    }
    if (v == NULL) {
        v = sl_config_value_new(cfg, key, path, place, why);
        sl_err err = sl_config_value_parse(v, sl_str_c(key->fallback), place, why);
        if (err != SL_OK)
            return err;
    }
    cfg->ordered = sl_realloc(cfg->ordered, (cfg->ordered_count + 1) * sizeof(struct config_value *));
    cfg->ordered[cfg->ordered_count++] = v;
    return SL_OK;
}

/* Put each entry's name for each "*" of the key. done: the path so far; section: where the entry it is in
 * began. */
static sl_err expand(struct sl_config *cfg, const struct sl_key *key, struct sl_str done, struct sl_str rest,
                     struct config_place section, struct sl_fail *why)
{
    struct sl_buf path;
    sl_buf_init(&path, 0);
    sl_buf_str(&path, done);
    while (rest.len > 0 && !sl_str_eq_c(first_part(rest), "*")) {
        sl_buf_c(&path, path.len > 0 ? "." : "");
        sl_buf_str(&path, first_part(rest));
        rest = after_part(rest);
    }
    sl_err err = SL_OK;
    if (rest.len == 0) {
        err = take_default(cfg, key, sl_buf_view(&path), section, why);
    } else {
        const struct config_section *s = sl_map_get(cfg->sections, sl_buf_view(&path));
        size_t section_len = path.len;
        for (size_t i = 0; s != NULL && i < s->count && err == SL_OK; i++) {
            path.len = section_len;
            sl_buf_char(&path, '.');
            sl_buf_c(&path, s->names[i]);
            if (sl_config_key_find(cfg, sl_buf_view(&path)) == key || after_part(rest).len > 0)
                err = expand(cfg, key, sl_buf_view(&path), after_part(rest), s->places[i], why);
        }
    }
    sl_buf_fini(&path);
    return err;
}

static sl_err fill_defaults(struct sl_config *cfg, struct sl_fail *why)
{
    const struct config_place file = {CONFIG_FILE, cfg->file, 0, 0};
    sl_err err = SL_OK;
    for (const struct sl_key *k = cfg->keys; k->key != NULL && err == SL_OK; k++)
        if (!sl_config_is_section(cfg, sl_str_c(k->key))) /* a row such as "inboxes.*" only names a section */
            err = expand(cfg, k, SL_STR_NONE, sl_str_c(k->key), file, why);
    return err;
}

/* Life. */

static struct sl_config *load(const struct sl_key *keys, struct sl_str yaml, const char *name,
                              bool has_environment, struct sl_fail *why)
{
    struct sl_config *cfg = sl_alloc(sizeof *cfg);
    cfg->keys = keys;
    cfg->file = sl_strdup(name);
    cfg->values = sl_map_new();
    cfg->sections = sl_map_new();
    sl_err err = SL_OK;
    if (yaml.len > CONFIG_FILE_MAX)
        err = sl_fail_set(why, SL_ETOOBIG, 0, "%s: larger than 1MiB", name);
    if (err == SL_OK)
        err = sl_config_yaml_read(cfg, yaml, why);
    if (err == SL_OK && has_environment)
        err = read_environment(cfg, why);
    if (err == SL_OK)
        err = fill_defaults(cfg, why);
    if (err != SL_OK)
        sl_config_free(&cfg);
    return cfg;
}

struct sl_config *sl_config_load_text(const struct sl_key *keys, struct sl_str yaml, const char *name,
                                      struct sl_fail *why)
{
    return load(keys, yaml, name, true, why);
}

struct sl_config *sl_config_load_data(const struct sl_key *keys, struct sl_str yaml, const char *name,
                                      struct sl_fail *why)
{
    return load(keys, yaml, name, false, why);
}

struct sl_config *sl_config_load(const struct sl_key *keys, const char *path, struct sl_fail *why)
{
    if (path == NULL)
        return sl_config_load_text(keys, SL_STR_NONE, "configuration", why);
    struct sl_buf text;
    struct sl_config *cfg = NULL;
    int sys = 0;
    sl_err err = read_file(path, CONFIG_FILE_MAX, &text, &sys);
    if (err == SL_ETOOBIG)
        (void)sl_fail_set(why, err, 0, "%s: larger than 1MiB", path);
    else if (err != SL_OK)
        (void)sl_fail_set(why, err, sys, "cannot read %s: %s", path, strerror(sys));
    else if (
        text.len ==
        0) /* a file that is being written again: its writer has another store in mind than the default */
        (void)sl_fail_set(why, SL_EINVAL, 0, "%s has not one byte; is it being written?", path);
    else
        cfg = sl_config_load_text(keys, sl_buf_view(&text), path, why);
    if (text.ptr != NULL)
        explicit_bzero(text.ptr, text.len);
    sl_buf_fini(&text);
    return cfg;
}

static void section_free(struct config_section *s)
{
    for (size_t i = 0; i < s->count; i++)
        free(s->names[i]);
    free(s->names);
    free(s->places);
    free(s);
}

void sl_config_free(struct sl_config **cp)
{
    struct sl_config *cfg = *cp;
    *cp = NULL;
    if (cfg == NULL)
        return;
    struct sl_str name;
    void *v;
    for (size_t i = 0; sl_map_next(cfg->values, &i, &name, &v);)
        value_free(v);
    for (size_t i = 0; sl_map_next(cfg->sections, &i, &name, &v);)
        section_free(v);
    sl_map_free(&cfg->values);
    sl_map_free(&cfg->sections);
    free(cfg->ordered);
    free(cfg->file);
    free(cfg);
}

/* Questions. */

static const struct config_value *value_of(const struct sl_config *cfg, const char *key)
{
    const struct config_value *v = sl_map_get(cfg->values, sl_str_c(key));
    sl_assert(v != NULL);
    return v;
}

const char *sl_config_str(const struct sl_config *cfg, const char *key)
{
    const struct config_value *v = value_of(cfg, key);
    sl_assert(v->key->type == SL_CFG_STR || v->key->type == SL_CFG_SECRET);
    return v->text;
}

int64_t sl_config_int(const struct sl_config *cfg, const char *key)
{
    const struct config_value *v = value_of(cfg, key);
    sl_assert(v->key->type == SL_CFG_INT || v->key->type == SL_CFG_MS || v->key->type == SL_CFG_BYTES);
    return v->number;
}

bool sl_config_bool(const struct sl_config *cfg, const char *key)
{
    const struct config_value *v = value_of(cfg, key);
    sl_assert(v->key->type == SL_CFG_BOOL);
    return v->number != 0;
}

size_t sl_config_list(const struct sl_config *cfg, const char *key, const char *const **items)
{
    const struct config_value *v = value_of(cfg, key);
    sl_assert(v->key->type == SL_CFG_LIST);
    *items = (const char *const *)v->items;
    return v->items_count;
}

bool sl_config_is_given(const struct sl_config *cfg, const char *key)
{
    const struct config_value *v = sl_map_get(cfg->values, sl_str_c(key));
    return v != NULL && v->origin != CONFIG_DEFAULT;
}

size_t sl_config_entries(const struct sl_config *cfg, const char *section, const char *const **names)
{
    sl_assert(sl_config_is_section(cfg, sl_str_c(section)));
    const struct config_section *s = sl_map_get(cfg->sections, sl_str_c(section));
    *names = s != NULL ? (const char *const *)s->names : NULL;
    return s != NULL ? s->count : 0;
}

void sl_config_print(const struct sl_config *cfg, struct sl_buf *out)
{
    for (size_t i = 0; i < cfg->ordered_count; i++) {
        const struct config_value *v = cfg->ordered[i];
        sl_buf_printf(out, "%s: ", v->name);
        sl_config_value_print(v, out);
        if (v->origin == CONFIG_DEFAULT)
            sl_buf_c(out, "  # default");
        else if (v->origin == CONFIG_FILE)
            sl_buf_printf(out, "  # %s:%zu", v->origin_name, v->line);
        else
            sl_buf_printf(out, "  # env %s", v->origin_name);
        sl_buf_printf(out, "; %s\n", v->key->help != NULL ? v->key->help : "");
    }
}

static void diff_line(const struct config_value *v, struct sl_buf *out)
{
    if (v->key->is_reloadable)
        return;
    sl_buf_c(out, v->name);
    sl_buf_char(out, '\n');
}

void sl_config_diff(const struct sl_config *old, const struct sl_config *now, struct sl_buf *needs_restart)
{
    for (size_t i = 0; i < now->ordered_count; i++) {
        const struct config_value *v = now->ordered[i];
        const struct config_value *before = sl_map_get(old->values, sl_str_c(v->name));
        if (before == NULL || !sl_config_value_eq(before, v))
            diff_line(v, needs_restart);
    }
    for (size_t i = 0; i < old->ordered_count; i++)
        if (sl_map_get(now->values, sl_str_c(old->ordered[i]->name)) == NULL)
            diff_line(old->ordered[i], needs_restart);
}

/* "rules" is a prefix of "rules.words", not of "rulesets.words". */
static bool is_below(const char *name, const char *prefix)
{
    size_t n = strlen(prefix);
    if (n == 0)
        return true;
    return strncmp(name, prefix, n) == 0 && (prefix[n - 1] == '.' || name[n] == '.' || name[n] == '\0');
}

void sl_config_hash(const struct sl_config *cfg, const char *prefix, char out[17])
{
    struct sl_buf all;
    unsigned char digest[32];
    sl_buf_init(&all, 0);
    for (size_t i = 0; i < cfg->ordered_count; i++)
        if (is_below(cfg->ordered[i]->name, prefix))
            sl_config_value_digest(cfg->ordered[i], &all);
    sl_assert(!all.overflow);
    sl_sha256(sl_buf_view(&all), digest);
    sl_hex(out, digest, 8);
    if (all.ptr != NULL)
        explicit_bzero(all.ptr, all.len);
    sl_buf_fini(&all);
}
