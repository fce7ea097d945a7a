/* First octet: the alphabet. Whatever octets come, the text is valid UTF-8 without NUL; what it was decoded to can be encoded and
 * cut, and the parts joined decode to it again. */
#include "tests/fuzz/fuzz.h"

#include "channels/sms/sms_text.h"

static void check_cut(enum sms_alphabet a, struct sl_str text, size_t max)
{
    struct sl_buf octets, joined;
    sl_buf_init(&octets, 0);
    sl_buf_init(&joined, 0);
    sl_err err = sms_encode(a, text, &octets);
    for (size_t at = 0; err == SL_OK && at < octets.len;) {
        struct sl_str rest = sl_str_n(octets.ptr + at, octets.len - at);
        size_t n = sms_cut(a, rest, max);
        sl_assert(n > 0 && n <= max);
        sms_decode(a, sl_str_n(rest.ptr, n), &joined);
        at += n;
    }
    /* a mark at the front of a part is no text: no comparison when there is one */
    if (err == SL_OK && octets.len > 0 && memmem(octets.ptr, octets.len, "\xfe\xff", 2) == NULL)
        sl_assert(sl_str_eq(sl_buf_view(&joined), text));
    sl_buf_fini(&octets);
    sl_buf_fini(&joined);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    if (size == 0)
        return 0;
    struct sl_buf text;
    enum sms_alphabet a = sms_alphabet_of(data[0], SMS_GSM7);
    sl_buf_init(&text, 0);
    sms_decode(a, sl_str_n((const char *)data + 1, size - 1), &text);
    sl_assert(sl_str_utf8(sl_buf_view(&text)));
    check_cut(sms_alphabet_for(sl_buf_view(&text)), sl_buf_view(&text), 4 + data[0] % 150);
    sl_buf_fini(&text);
    return 0;
}
