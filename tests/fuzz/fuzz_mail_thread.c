/* No address and no message id that the fuzzer makes up proves a conversation: the secret is not in its reach. What we
 * write ourselves is read back. Input: an address or an id; its text is a key as well. */
#include "tests/fuzz/fuzz.h"

#include "channels/email/mail_thread.h"

static const struct email_keys keys = {.secret = {"a secret of 16 bytes", 20},
                                       .old_secret = {"an older one, 16 bytes", 22},
                                       .inbox = {"mail", 4},
                                       .address = {"support@sluice.example", 22},
                                       .domain = {"sluice.example", 14}};

static void check_own(struct sl_str key)
{
    char what[EMAIL_CONV_MAX], conv[EMAIL_CONV_MAX];
    struct sl_buf out;
    sl_buf_init(&out, 0);
    if (email_bounce_address(&keys, key, &out)) {
        sl_assert(email_address_ok(sl_buf_view(&out)));
        sl_assert(email_address_read(&keys, sl_buf_view(&out), what) == EMAIL_TO_BOUNCE &&
                  sl_str_eq_c(key, what));
        sl_buf_clear(&out);
        email_message_id(&keys, SL_STR("17.01JD3Q5Y8Z7X6W5V4T3S2R1P0N"), key, &out);
        sl_assert(email_message_id_read(&keys, sl_buf_view(&out), conv, what) && sl_str_eq_c(key, what));
        sl_assert(strcmp(conv, "17.01JD3Q5Y8Z7X6W5V4T3S2R1P0N") == 0);
    }
    sl_buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    const struct sl_str in = fuzz_input(data, size);
    char what[EMAIL_CONV_MAX], key[EMAIL_CONV_MAX];
    const enum email_to to = email_address_read(&keys, in, what);
    sl_assert(to == EMAIL_TO_OTHERS || to == EMAIL_TO_US);
    sl_assert(what[0] == '\0');
    sl_assert(!email_message_id_read(&keys, in, what, key));
    check_own(in);
    return 0;
}
