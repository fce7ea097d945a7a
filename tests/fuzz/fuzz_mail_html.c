/* Any bytes as HTML: text comes out, and what is visible is part of it, in order. */
#include "tests/fuzz/fuzz.h"

#include "channels/email/mail_html.h"
#include "channels/email/mail_text.h"

static bool is_blank(char c)
{
    return c == ' ' || c == '\n';
}

/* Every byte of part but blanks stands in whole, in this order. */
static bool is_part(struct sl_str part, struct sl_str whole)
{
    size_t k = 0;
    for (size_t i = 0; i < part.len; i++) {
        if (is_blank(part.ptr[i]))
            continue;
        while (k < whole.len && whole.ptr[k] != part.ptr[i])
            k++;
        if (k++ >= whole.len)
            return false;
    }
    return true;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct sl_buf clean, full, visible;
    sl_buf_init(&clean, 0);
    sl_buf_init(&full, 0);
    sl_buf_init(&visible, 0);
    email_utf8_clean(&clean, fuzz_input(data, size));
    email_html_text(sl_buf_view(&clean), &full, &visible);
    sl_assert(sl_str_utf8(sl_buf_view(&full)) && sl_str_utf8(sl_buf_view(&visible)));
    sl_assert(is_part(sl_buf_view(&visible), sl_buf_view(&full)));
    sl_buf_fini(&clean);
    sl_buf_fini(&full);
    sl_buf_fini(&visible);
    return 0;
}
