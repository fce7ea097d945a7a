#include "proto/push.h"

#include "proto/keys.h"

static void add_word(struct sl_buf *out, struct sl_str word)
{
    sl_buf_char(out, ' ');
    if (key_part_ok(word))
        sl_buf_str(out, word);
    else
        sl_buf_char(out, '-');
}

void push_write(struct sl_buf *out, const struct push *p)
{
    sl_buf_char(out, (char)p->what);
    sl_buf_char(out, ' ');
    sl_buf_uint(out, p->gen);
    sl_buf_char(out, ' ');
    sl_buf_uint(out, p->number);
    add_word(out, p->session);
    add_word(out, p->id);
    sl_buf_char(out, '\n');
    sl_buf_str(out, p->json);
}

/* Cut the next word off *rest, which must be followed by `end`. */
static bool next_word(struct sl_str *rest, char end, struct sl_str *word)
{
    const char *stop = rest->len > 0 ? memchr(rest->ptr, end, rest->len) : NULL;
    if (stop == NULL || stop == rest->ptr)
        return false;
    *word = sl_str_n(rest->ptr, (size_t)(stop - rest->ptr));
    *rest = sl_str_n(stop + 1, rest->len - word->len - 1);
    return true;
}

static bool next_number(struct sl_str *rest, char end, uint64_t *number)
{
    struct sl_str word;
    return next_word(rest, end, &word) && sl_str_uint(word, number) == SL_OK;
}

static bool next_name(struct sl_str *rest, char end, struct sl_str *name)
{
    if (!next_word(rest, end, name))
        return false;
    if (name->len == 1 && name->ptr[0] == '-') {
        *name = SL_STR_NONE;
        return true;
    }
    return key_part_ok(*name);
}

static bool what_from(struct sl_str word, enum push_what *what)
{
    if (word.len != 1)
        return false;
    switch (word.ptr[0]) {
    case PUSH_ENTRY:
    case PUSH_HINT:
    case PUSH_REFUSAL:
        *what = (enum push_what)word.ptr[0];
        return true;
    default:
        return false;
    }
}

sl_err push_read(struct sl_str payload, struct push *out)
{
    struct push p = {.number = 0};
    struct sl_str rest = payload, what;
    if (!next_word(&rest, ' ', &what) || !what_from(what, &p.what))
        return SL_EINVAL;
    if (!next_number(&rest, ' ', &p.gen) || !next_number(&rest, ' ', &p.number))
        return SL_EINVAL;
    if (!next_name(&rest, ' ', &p.session) || !next_name(&rest, '\n', &p.id))
        return SL_EINVAL;
    p.json = rest;
    *out = p;
    return SL_OK;
}

sl_err push_entry_numbers(struct sl_str entry, uint64_t *n, uint64_t *v)
{
    static const char first[] = "{\"n\":", second[] = "\"v\":";
    struct sl_str rest = entry;
    uint64_t number, seen_number;
    if (!sl_str_starts(rest, first))
        return SL_EINVAL;
    rest = sl_str_n(rest.ptr + sizeof first - 1, rest.len - (sizeof first - 1));
    if (!next_number(&rest, ',', &number) || !sl_str_starts(rest, second))
        return SL_EINVAL;
    rest = sl_str_n(rest.ptr + sizeof second - 1, rest.len - (sizeof second - 1));
    struct sl_str tail = rest;
    if (!next_number(&rest, ',', &seen_number) && !next_number(&tail, '}', &seen_number))
        return SL_EINVAL;
    *n = number;
    *v = seen_number;
    return SL_OK;
}
