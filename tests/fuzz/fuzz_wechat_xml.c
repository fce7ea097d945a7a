/* A callback that can be read becomes a message within its limits; what is written of its text is read back. */
#include "tests/fuzz/fuzz.h"

#include "channels/wechat/wechat_wire.h"
#include "proto/keys.h"

static void check_in(const struct wechat_xml *x, enum wechat_product product)
{
    struct wechat_in in;
    if (wechat_in_read(&in, product, x, NULL) == SL_OK) {
        bool is_someones = in.what == WECHAT_IN_MESSAGE || in.what == WECHAT_IN_RATING;
        sl_assert(!is_someones || (key_part_ok(in.who) && in.id.len > 0 && in.id.len <= MSG_ID_MAX_BYTES));
        sl_assert(in.text.len <= MSG_TEXT_MAX_BYTES && in.data.len <= MSG_DATA_MAX_BYTES);
        sl_assert((in.what == WECHAT_IN_RATING) == (in.rating >= 1 && in.rating <= 5));
        struct msg m = {.id = in.id,
                        .by = MSG_BY_VISITOR,
                        .who = in.who,
                        .kind = in.kind,
                        .text = in.text,
                        .data = in.data,
                        .sent_unix_ms = in.sent_unix_ms};
        sl_assert(!is_someones || msg_check(&m, NULL) == SL_OK);
    }
    wechat_in_fini(&in);
}

static void check_cdata(struct sl_str text)
{
    struct sl_buf out;
    struct wechat_xml x;
    sl_buf_init(&out, 0);
    sl_buf_c(&out, "<xml>");
    wechat_xml_cdata(&out, "A", text);
    sl_buf_c(&out, "</xml>");
    if (wechat_xml_read(&x, sl_buf_view(&out), NULL) == SL_OK)
        sl_assert(x.leaves == 1); /* nothing of the text became markup */
    wechat_xml_fini(&x);
    sl_buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct wechat_xml x;
    struct sl_str input = fuzz_input(data, size);
    if (wechat_xml_read(&x, input, NULL) == SL_OK) {
        check_in(&x, WECHAT_OA);
        check_in(&x, WECHAT_WECOM);
        check_in(&x, WECHAT_KF);
    }
    wechat_xml_fini(&x);
    if (wechat_xml_from_json(&x, input, NULL) == SL_OK)
        check_in(&x, WECHAT_WECOM);
    wechat_xml_fini(&x);
    check_cdata(input);
    return 0;
}
