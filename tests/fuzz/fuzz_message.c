/* A message that can be read is valid, and comes back to the same bytes once it was written. */
#include "tests/fuzz/fuzz.h"

#include "proto/message.h"

static void write_message(const struct msg *m, struct sl_buf *out)
{
    struct sl_json j;
    sl_buf_init(out, 0);
    sl_json_begin(&j, out);
    msg_write(&j, NULL, m);
    sl_assert(!out->overflow);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct msg m, again;
    struct sl_buf first, second;
    struct sl_fail why;
    json_t *hold, *hold_again;
    if (msg_read(fuzz_input(data, size), &m, &hold, &why) != SL_OK)
        return 0;
    sl_assert(msg_check(&m, NULL) == SL_OK);
    write_message(&m, &first);
    sl_assert(msg_read(sl_buf_view(&first), &again, &hold_again, NULL) == SL_OK);
    sl_assert(sl_str_eq(m.data, again.data) && sl_str_eq(m.text, again.text));
    write_message(&again, &second);
    sl_assert(sl_str_eq(sl_buf_view(&first), sl_buf_view(&second)));
    sl_buf_fini(&first);
    sl_buf_fini(&second);
    json_decref(hold);
    json_decref(hold_again);
    return 0;
}
