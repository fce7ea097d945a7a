/* An event that can be read, as stream fields or as JSON, comes back the same through both forms.
 *
 * Input    '{' or a blank first: JSON. Anything else: one byte of length and a name, two bytes of length
 * (big-endian) and a value, and so on; a last string that is cut short is taken as it is.
 */
#include "tests/fuzz/fuzz.h"

#include "proto/event.h"

#define ITEM_MAX 96

static void same_fields(const struct event_fields *a, const struct event *event)
{
    struct event_fields b;
    event_to_fields(event, &b);
    sl_assert(a->count == b.count);
    for (size_t i = 0; i < b.count; i++)
        sl_assert(sl_str_eq(a->item[i], b.item[i]));
}

static void check_both_forms(const struct event *ev)
{
    struct event again;
    struct event_fields fields;
    struct sl_buf out;
    struct sl_json j;
    json_t *hold;
    event_to_fields(ev, &fields);
    sl_assert(event_from_fields(fields.item, fields.count, &again, NULL) == SL_OK);
    same_fields(&fields, &again);
    sl_buf_init(&out, 0);
    sl_json_begin(&j, &out);
    event_to_json(ev, &j, NULL);
    sl_assert(!out.overflow);
    sl_assert(event_from_json(sl_buf_view(&out), &again, &hold, NULL) == SL_OK);
    same_fields(&fields, &again);
    json_decref(hold);
    sl_buf_fini(&out);
}

static void check_json(struct sl_str input)
{
    struct event ev;
    json_t *hold;
    if (event_from_json(input, &ev, &hold, NULL) != SL_OK)
        return;
    check_both_forms(&ev);
    json_decref(hold);
}

static struct sl_str cut_string(struct sl_str *rest, size_t length_bytes)
{
    size_t len = 0;
    for (; length_bytes > 0 && rest->len > 0; length_bytes--, rest->ptr++, rest->len--)
        len = len << 8 | (unsigned char)*rest->ptr;
    if (len > rest->len)
        len = rest->len;
    struct sl_str s = sl_str_n(rest->ptr, len);
    *rest = sl_str_n(rest->ptr + len, rest->len - len);
    return s;
}

static void check_fields(struct sl_str input)
{
    struct sl_str items[ITEM_MAX];
    size_t count = 0;
    struct event ev;
    while (input.len > 0 && count < ITEM_MAX) {
        items[count] = cut_string(&input, count % 2 == 0 ? 1 : 2);
        count++;
    }
    if (event_from_fields(items, count, &ev, NULL) == SL_OK)
        check_both_forms(&ev);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct sl_str input = fuzz_input(data, size);
    if (size > 0 && (data[0] == '{' || data[0] == ' '))
        check_json(input);
    else
        check_fields(input);
    return 0;
}
