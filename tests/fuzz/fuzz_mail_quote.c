/* Folding takes lines away and adds none; what has words keeps some. */
#include "tests/fuzz/fuzz.h"

#include "channels/email/mail_parse.h"
#include "channels/email/mail_quote.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    const struct sl_str in = fuzz_input(data, size);
    struct sl_buf folded, again, flowed;
    sl_buf_init(&folded, 0);
    sl_buf_init(&again, 0);
    sl_buf_init(&flowed, 0);
    email_quote_fold(in, &folded);
    sl_assert(folded.len <= in.len);
    struct sl_str rest = sl_buf_view(&folded), line;
    bool has_words = false;
    while (email_next_line(&rest, &line)) {
        size_t at;
        has_words = has_words || email_trim(line).len > 0;
        sl_assert(line.len == 0 || sl_str_find(in, line, &at));
    }
    sl_assert(has_words == (email_trim(in).len > 0));
    email_quote_fold(sl_buf_view(&folded), &again);
    sl_assert(again.len <= folded.len);
    email_unflow(in, size % 2 == 0, &flowed);
    sl_assert(flowed.len <= in.len * 2 + 2);
    sl_buf_fini(&folded);
    sl_buf_fini(&again);
    sl_buf_fini(&flowed);
    return 0;
}
