/* base/config_value.c - one value: from its spelling to its meaning and back. Pure. */
#include "base/config_priv.h"

#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>

struct unit {
    const char *suffix;
    int64_t factor;
};
static const struct unit duration_units[] = {
    {"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 3600 * 1000}, {"d", 24 * 3600 * 1000}, {NULL, 0}};
static const struct unit size_units[] = {
    {"", 1}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {NULL, 0}};

const char *sl_config_type_words(enum sl_cfg_type type)
{
    switch (type) {
    case SL_CFG_STR:
        return "text";
    case SL_CFG_INT:
        return "a whole number";
    case SL_CFG_BOOL:
        return "true or false";
    case SL_CFG_MS:
        return "a duration such as 250ms, 5s, 10m, 2h or 1d";
    case SL_CFG_BYTES:
        return "a size such as 512, 64KiB or 10MiB";
    case SL_CFG_LIST:
        return "a list";
    case SL_CFG_SECRET:
        return "a secret";
    }
    return "a value";
}

/* Digits, then one of the units; a 0 needs no unit. */
static bool parse_with_unit(struct sl_str text, const struct unit *units, int64_t *out)
{
    size_t n = 0;
    while (n < text.len && text.ptr[n] >= '0' && text.ptr[n] <= '9')
        n++;
    int64_t count;
    if (sl_str_int(sl_str_n(text.ptr, n), &count) != SL_OK)
        return false;
    struct sl_str suffix = sl_str_n(text.ptr + n, text.len - n);
    if (count == 0 && suffix.len == 0) {
        *out = 0;
        return true;
    }
    for (const struct unit *u = units; u->suffix != NULL; u++)
        if (sl_str_eq_c(suffix, u->suffix))
            return !__builtin_mul_overflow(count, u->factor, out);
    return false;
}

static bool parse_bool(struct sl_str text, int64_t *out)
{
    *out = sl_str_eq_c(text, "true") ? 1 : 0;
    return *out == 1 || sl_str_eq_c(text, "false");
}

static bool parse_number(enum sl_cfg_type type, struct sl_str text, int64_t *out)
{
    if (type == SL_CFG_INT)
        return sl_str_int(text, out) == SL_OK;
    if (type == SL_CFG_BOOL)
        return parse_bool(text, out);
    return parse_with_unit(text, type == SL_CFG_MS ? duration_units : size_units, out);
}

/* The largest unit that divides v. */
static void print_number(enum sl_cfg_type type, int64_t v, char *out, size_t size)
{
    struct unit best = {"", 1};
    const struct unit *units = type == SL_CFG_MS ? duration_units : type == SL_CFG_BYTES ? size_units : NULL;
    for (const struct unit *u = units; u != NULL && u->suffix != NULL; u++)
        if (v != 0 && v % u->factor == 0)
            best = *u;
    (void)snprintf(out, size, "%lld%s", (long long)(v / best.factor), best.suffix);
}

static sl_err check_range(const struct config_value *v, struct config_place place, struct sl_fail *why)
{
    const struct sl_key *k = v->key;
    if ((k->min == 0 && k->max == 0) || k->type == SL_CFG_BOOL ||
        (v->number >= k->min && v->number <= k->max))
        return SL_OK;
    char low[32], high[32], found[32];
    print_number(k->type, k->min, low, sizeof low);
    print_number(k->type, k->max, high, sizeof high);
    print_number(k->type, v->number, found, sizeof found);
    return sl_config_fail(why, place, "%s: expected %s to %s, found %s", v->name, low, high, found);
}

static bool is_plain_text(struct sl_str s)
{
    return sl_str_utf8(s); /* which refuses NUL as well: texts are handed out as C strings */
}

/* "", "[]", "a, b" or "[a, b]": how defaults and the environment spell a list. */
static sl_err parse_list(struct config_value *v, struct sl_str text, struct config_place place,
                         struct sl_fail *why)
{
    if (text.len >= 2 && text.ptr[0] == '[' && text.ptr[text.len - 1] == ']')
        text = sl_str_n(text.ptr + 1, text.len - 2);
    for (size_t i = 0; i < text.len;) {
        size_t end = i;
        while (end < text.len && text.ptr[end] != ',')
            end++;
        size_t start = i, stop = end;
        while (start < stop && text.ptr[start] == ' ')
            start++;
        while (stop > start && text.ptr[stop - 1] == ' ')
            stop--;
        sl_err err = SL_OK;
        if (stop > start)
            err = sl_config_value_add_item(v, sl_str_n(text.ptr + start, stop - start), place, why);
        if (err != SL_OK)
            return err;
        i = end + 1;
    }
    return SL_OK;
}

sl_err sl_config_value_parse(struct config_value *v, struct sl_str text, struct config_place place,
                             struct sl_fail *why)
{
    enum sl_cfg_type type = v->key->type;
    if (!is_plain_text(text))
        return sl_config_fail(why, place, "%s: expected %s, found bytes that are not text", v->name,
                              sl_config_type_words(type));
    if (type == SL_CFG_LIST)
        return parse_list(v, text, place, why);
    v->text = sl_str_dup(text);
    if (type == SL_CFG_STR || type == SL_CFG_SECRET)
        return SL_OK;
    if (!parse_number(type, text, &v->number))
        return sl_config_fail(why, place, "%s: expected %s, found \"%.40s\"", v->name,
                              sl_config_type_words(type), v->text);
    return check_range(v, place, why);
}

sl_err sl_config_value_add_item(struct config_value *v, struct sl_str text, struct config_place place,
                                struct sl_fail *why)
{
    if (v->items_count == CONFIG_LIST_MAX)
        return sl_config_fail(why, place, "%s: more than %d items", v->name, CONFIG_LIST_MAX);
    if (!is_plain_text(text))
        return sl_config_fail(why, place, "%s: expected text, found bytes that are not text", v->name);
    v->items = sl_realloc(v->items, (v->items_count + 1) * sizeof(char *));
    v->items[v->items_count++] = sl_str_dup(text);
    return SL_OK;
}

void sl_config_value_fini(struct config_value *v)
{
    if (v->text != NULL && v->key->type == SL_CFG_SECRET)
        explicit_bzero(v->text, strlen(v->text));
    for (size_t i = 0; i < v->items_count; i++)
        free(v->items[i]);
    free(v->items);
    free(v->text);
    free(v->origin_name);
    free(v->name);
}

bool sl_config_value_eq(const struct config_value *a, const struct config_value *b)
{
    struct sl_buf x = {0}, y = {0};
    sl_config_value_digest(a, &x);
    sl_config_value_digest(b, &y);
    bool is_equal = sl_str_eq(sl_buf_view(&x), sl_buf_view(&y));
    sl_buf_fini(&x);
    sl_buf_fini(&y);
    return is_equal;
}

static void print_text(const char *text, struct sl_buf *out)
{
    static const char bare[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-";
    if (text[0] != '\0' && text[0] != '-' && text[strspn(text, bare)] == '\0')
        sl_buf_c(out, text);
    else
        sl_json_escape(out, sl_str_c(text)); /* a JSON string is a YAML string */
}

void sl_config_value_print(const struct config_value *v, struct sl_buf *out)
{
    if (v->key->type == SL_CFG_SECRET) {
        sl_buf_c(out, v->text[0] != '\0' ? "(set)" : "(empty)");
        return;
    }
    if (v->key->type != SL_CFG_LIST) {
        print_text(v->text, out);
        return;
    }
    sl_buf_char(out, '[');
    for (size_t i = 0; i < v->items_count; i++) {
        sl_buf_c(out, i > 0 ? ", " : "");
        print_text(v->items[i], out);
    }
    sl_buf_char(out, ']');
}

/* Every part with its length, so that no two different values run into the same bytes. */
static void digest_part(struct sl_buf *out, const char *s)
{
    size_t n = strlen(s);
    sl_buf_uint(out, n);
    sl_buf_char(out, ':');
    sl_buf_add(out, s, n);
}

void sl_config_value_digest(const struct config_value *v, struct sl_buf *out)
{
    digest_part(out, v->name);
    switch (v->key->type) {
    case SL_CFG_STR:
    case SL_CFG_SECRET:
        digest_part(out, v->text);
        break;
    case SL_CFG_INT:
    case SL_CFG_BOOL:
    case SL_CFG_MS:
    case SL_CFG_BYTES:
        sl_buf_int(out, v->number);
        break;
    case SL_CFG_LIST:
        sl_buf_uint(out, v->items_count);
        for (size_t i = 0; i < v->items_count; i++)
            digest_part(out, v->items[i]);
        break;
    }
    sl_buf_char(out, ';');
}
