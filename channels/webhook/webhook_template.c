/* channels/webhook/webhook_template.c - replacing ${name}. */
#include "channels/webhook/webhook_template.h"

#include "base/json.h"
#include "channels/sms/sms_sign.h"

static sl_err add_json(struct sl_buf *out, struct sl_str v)
{
    struct sl_buf quoted;
    if (!sl_str_utf8(v))
        return SL_EINVAL;
    sl_buf_init(&quoted, 0);
    sl_json_escape(&quoted, v);
    sl_err err = quoted.overflow ? SL_ETOOBIG : SL_OK;
    if (err == SL_OK)
        sl_buf_add(out, quoted.ptr + 1, quoted.len - 2); /* the quotes stand in the template */
    sl_buf_fini(&quoted);
    return err;
}

static sl_err add_header(struct sl_buf *out, struct sl_str v)
{
    for (size_t i = 0; i < v.len; i++)
        if ((unsigned char)v.ptr[i] < 0x20 || v.ptr[i] == 0x7f)
            return SL_EINVAL;
    sl_buf_str(out, v);
    return SL_OK;
}

static sl_err add_escaped(struct sl_buf *out, struct sl_str v, enum webhook_escape where)
{
    switch (where) {
    case WEBHOOK_RAW:
        sl_buf_str(out, v);
        return SL_OK;
    case WEBHOOK_IN_JSON:
        return add_json(out, v);
    case WEBHOOK_IN_URL:
        sms_percent(out, v);
        return SL_OK;
    case WEBHOOK_IN_HEADER:
        return add_header(out, v);
    }
    return SL_EINTERNAL;
}

static bool cut_suffix(struct sl_str *name, const char *suffix)
{
    size_t n = strlen(suffix);
    if (name->len <= n || memcmp(name->ptr + name->len - n, suffix, n) != 0)
        return false;
    name->len -= n;
    return true;
}

static sl_err add_value(struct sl_str name, enum webhook_escape where, webhook_lookup_fn lookup, void *arg,
                        struct sl_buf *out)
{
    struct sl_buf value, inner;
    bool is_json = cut_suffix(&name, ":json"), is_url = !is_json && cut_suffix(&name, ":url");
    if (cut_suffix(&name, ":raw") && where != WEBHOOK_IN_HEADER)
        where = WEBHOOK_RAW;
    sl_buf_init(&value, out->max);
    sl_buf_init(&inner, out->max);
    sl_err err = lookup(arg, name, &value) ? SL_OK : SL_EINVAL;
    if (err == SL_OK && value.overflow)
        err = SL_ETOOBIG;
    if (err == SL_OK && (is_json || is_url)) {
        err = add_escaped(&inner, sl_buf_view(&value), is_json ? WEBHOOK_IN_JSON : WEBHOOK_IN_URL);
        if (err == SL_OK)
            err = add_escaped(out, sl_buf_view(&inner),
                              is_url && where == WEBHOOK_IN_URL ? WEBHOOK_RAW : where);
    } else if (err == SL_OK) {
        err = add_escaped(out, sl_buf_view(&value), where);
    }
    sl_buf_fini(&value);
    sl_buf_fini(&inner);
    return err;
}

sl_err webhook_expand(struct sl_str text, enum webhook_escape where, webhook_lookup_fn lookup, void *arg,
                      struct sl_buf *out, struct sl_fail *why)
{
    while (text.len > 0) {
        size_t at;
        if (!sl_str_find(text, SL_STR("${"), &at)) {
            sl_buf_str(out, text);
            break;
        }
        sl_buf_add(out, text.ptr, at);
        text = sl_str_n(text.ptr + at + 2, text.len - at - 2);
        const char *end = memchr(text.ptr, '}', text.len);
        struct sl_str name = sl_str_n(text.ptr, end != NULL ? (size_t)(end - text.ptr) : text.len);
        if (end == NULL || name.len == 0 || name.len > WEBHOOK_NAME_MAX)
            return sl_fail_set(why, SL_EINVAL, 0, "a ${ is not closed, or holds no name");
        sl_err err = add_value(name, where, lookup, arg, out);
        if (err != SL_OK)
            return sl_fail_set(why, err, 0, "${%.*s}: there is no such name, or its value cannot stand here",
                               (int)name.len, name.ptr);
        text = sl_str_n(end + 1, text.len - name.len - 1);
    }
    return out->overflow ? sl_fail_set(why, SL_ETOOBIG, 0, "the text would be over %zu bytes", out->max)
                         : SL_OK;
}
