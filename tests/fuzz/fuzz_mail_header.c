/* Fields, mailboxes, ids, dates and encoded words: what comes out is well-formed; a decoded text goes into a header and comes
 * back as it was. */
#include "tests/fuzz/fuzz.h"

#include "channels/email/mail_header.h"

static void check_words(struct sl_str in)
{
    struct sl_buf once, coded, twice;
    sl_buf_init(&once, 0);
    sl_buf_init(&coded, 0);
    sl_buf_init(&twice, 0);
    email_words_decode(&once, in);
    sl_assert(sl_str_utf8(sl_buf_view(&once)));
    const struct sl_str text = email_trim(sl_buf_view(&once));
    email_words_encode(&coded, text, 9);
    for (size_t i = 0; i < coded.len; i++) {
        const bool is_fold =
            coded.ptr[i] == '\r' && i + 2 < coded.len && coded.ptr[i + 1] == '\n' && coded.ptr[i + 2] == ' ';
        sl_assert(coded.ptr[i] != '\0' && ((coded.ptr[i] != '\r' && coded.ptr[i] != '\n') || is_fold));
        i += is_fold;
    }
    email_words_decode(&twice, sl_buf_view(&coded));
    sl_assert(sl_str_eq(sl_buf_view(&twice), text));
    sl_buf_fini(&once);
    sl_buf_fini(&coded);
    sl_buf_fini(&twice);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    const struct sl_str in = fuzz_input(data, size);
    struct email_heap *h = email_heap_new();
    struct email_headers hs;
    struct email_mailbox box[8];
    struct sl_str id[8];
    if (email_headers_read(h, in, &hs, NULL) == SL_OK)
        for (size_t i = 0; i < hs.count; i++)
            sl_assert(hs.field[i].name.len > 0);
    const size_t boxes = email_mailboxes(h, in, box, 8);
    for (size_t i = 0; i < boxes; i++)
        sl_assert(email_address_ok(box[i].address) && sl_str_utf8(box[i].name));
    const size_t ids = email_ids(h, in, id, 8);
    for (size_t i = 0; i < ids; i++)
        sl_assert(id[i].len > 2 && id[i].len <= EMAIL_ID_MAX_BYTES);
    sl_assert(email_date_unix_ms(in) >= 0);
    check_words(in);
    email_heap_free(&h);
    return 0;
}
