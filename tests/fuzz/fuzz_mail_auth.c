/* Whatever a foreign field says, only a field with our name can make a sender verified. */
#include "tests/fuzz/fuzz.h"

#include "channels/email/mail_auth.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct email_heap *h = email_heap_new();
    struct sl_buf text;
    struct email_headers hs;
    sl_buf_init(&text, 0);
    sl_buf_c(&text, "From: a@example.cn\r\nAuthentication-Results: ");
    sl_buf_add(&text, data, size);
    sl_buf_c(&text, "\r\n\r\n");
    if (email_headers_read(h, sl_buf_view(&text), &hs, NULL) == SL_OK) {
        (void)email_trust_of(&hs, SL_STR("mx.sluice.example"), SL_STR("a@example.cn"));
        sl_assert(email_trust_of(&hs, SL_STR("an.id.that.is.nowhere.in.any.input.example"),
                                 SL_STR("a@example.cn")) == EMAIL_UNVERIFIED);
        sl_assert(email_trust_of(&hs, SL_STR_NONE, SL_STR("a@example.cn")) == EMAIL_UNVERIFIED);
    }
    email_heap_free(&h);
    sl_buf_fini(&text);
    return 0;
}
