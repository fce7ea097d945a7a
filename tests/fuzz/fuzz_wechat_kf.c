/* A page of sync_msg: each item is a message within the limits or passed over; an API answer has a meaning. */
#include "tests/fuzz/fuzz.h"

#include "channels/wechat/wechat_wire.h"
#include "proto/keys.h"

static void check_item(const struct wechat_page *p, size_t i)
{
    struct wechat_in in;
    wechat_page_item(&in, p, i);
    if (in.what == WECHAT_IN_MESSAGE || in.what == WECHAT_IN_RATING) {
        struct msg m = {.id = in.id,
                        .by = MSG_BY_VISITOR,
                        .who = in.who,
                        .kind = in.kind,
                        .text = in.text,
                        .data = in.data,
                        .sent_unix_ms = in.sent_unix_ms};
        sl_assert(key_part_ok(in.who));
        (void)!msg_check(&m, NULL); /* depth and repeated members are the host's to refuse */
    }
    if (in.what == WECHAT_IN_RECEIPT)
        sl_assert(in.remote_id.len > 0 && in.why != NULL);
    wechat_in_fini(&in);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct sl_str input = fuzz_input(data, size);
    struct wechat_page p;
    struct wechat_result r;
    json_t *hold;
    int64_t code = 0;
    if (wechat_page_read(&p, input, &code, NULL) == SL_OK && code == 0)
        for (size_t i = 0; i < p.items; i++)
            check_item(&p, i);
    wechat_page_fini(&p);
    if (wechat_result_read(&r, WECHAT_WECOM, input, &hold) == SL_OK) {
        sl_assert(r.error != NULL && r.remote_id.len <= MSG_ID_MAX_BYTES);
        json_decref(hold);
    }
    return 0;
}
