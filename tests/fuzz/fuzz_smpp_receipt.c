/* The text form of a receipt: what is found lies inside the text, and an id in its one form is in that form already. */
#include "tests/fuzz/fuzz.h"

#include "channels/sms/smpp_receipt.h"

static void check_id(struct sl_str id)
{
    struct sl_buf form, again;
    sl_buf_init(&form, 0);
    sl_buf_init(&again, 0);
    smpp_id_form(&form, id, SMPP_IDS_SAME, true);
    sl_assert(form.len == 0 || memchr(form.ptr, ',', form.len) == NULL);
    smpp_id_form(&again, id, SMPP_IDS_HEX_DEC, false);
    sl_buf_clear(&again);
    if (memchr(sl_buf_view(&form).ptr, '%', form.len) == NULL) {
        smpp_id_form(&again, sl_buf_view(&form), SMPP_IDS_SAME, false);
        sl_assert(sl_str_eq(sl_buf_view(&form), sl_buf_view(&again)));
    }
    sl_buf_fini(&form);
    sl_buf_fini(&again);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct sl_str input = fuzz_input(data, size);
    struct smpp_receipt r = {.id = SL_STR_NONE, .error = SL_STR_NONE, .done = SL_STR_NONE};
    smpp_receipt_text(input, &r);
    sl_assert(r.id.len == 0 || (r.id.ptr >= input.ptr && r.id.ptr + r.id.len <= input.ptr + input.len));
    sl_assert(r.error.len == 0 ||
              (r.error.ptr >= input.ptr && r.error.ptr + r.error.len <= input.ptr + input.len));
    check_id(r.id);
    return 0;
}
