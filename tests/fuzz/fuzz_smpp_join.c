/* First octet: how many parts. The rest is a map as the store answers it (name\0value\0...). What is joined lies in order, its text is valid, and
 * once its mark stands in the map the same parts are a repeat of the same message. */
#include "tests/fuzz/fuzz.h"

#include "channels/sms/smpp_join.h"

static void check_mark(struct sl_str map, unsigned total, const struct smpp_joined *j)
{
    char mark[SMPP_FIELD_MAX], field[SMPP_FIELD_MAX];
    struct smpp_joined again;
    struct sl_buf marked;
    struct sl_str fields = sl_buf_view(j->fields);
    const char *comma = memchr(fields.ptr, ',', fields.len);
    size_t len = comma != NULL ? (size_t)(comma - fields.ptr) : fields.len;
    sl_assert(len < sizeof field);
    memcpy(field, fields.ptr, len);
    smpp_join_mark(j, mark);
    sl_buf_init(&marked, 0);
    sl_buf_str(&marked, map);
    sl_buf_add(&marked, mark, strlen(mark) + 1);
    sl_buf_str(&marked, fields);
    sl_buf_char(&marked, '\0');
    smpp_join_init(&again);
    enum smpp_join_result what = smpp_join(sl_buf_view(&marked), total, sl_str_n(field, len), &again);
    sl_assert(what == SMPP_JOIN_REPEAT);
    sl_assert(again.parts > 0);
    smpp_join_fini(&again);
    sl_buf_fini(&marked);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    size_t nuls = 0;
    for (size_t i = 1; i < size; i++)
        nuls += data[i] == 0;
    if (size < 2 || data[size - 1] != 0 || data[0] == 0 || nuls % 2 != 0) /* the store answers in pairs */
        return 0;
    struct sl_str map = sl_str_n((const char *)data + 1, size - 1);
    unsigned total = data[0];
    struct smpp_joined j;
    struct sl_buf text;
    smpp_join_init(&j);
    sl_buf_init(&text, 0);
    enum smpp_join_result what = smpp_join(map, total, SL_STR_NONE, &j);
    sl_assert(what == (j.parts == total ? SMPP_JOIN_WHOLE : SMPP_JOIN_WAITS));
    for (unsigned seq = 1; seq <= total; seq++)
        sl_assert(j.end[seq] >= (seq > 1 ? j.end[seq - 1] : 0) && j.end[seq] <= j.octets->len);
    smpp_join_text(&j, total, SMS_GSM7, &text);
    sl_assert(sl_str_utf8(sl_buf_view(&text)));
    if (j.parts > 0)
        check_mark(map, total, &j);
    sl_buf_fini(&text);
    smpp_join_fini(&j);
    return 0;
}
