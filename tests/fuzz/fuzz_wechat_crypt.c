/* Whatever comes as an encrypted message is refused or lies within the plaintext; what we encrypt comes back. */
#include "tests/fuzz/fuzz.h"

#include "channels/wechat/wechat_crypt.h"

static const struct wechat_key key = {.aes = "0123456789abcdef0123456789abcde"};

static void check_decrypt(struct sl_str base64)
{
    struct sl_buf plain;
    struct sl_str message;
    sl_buf_init(&plain, 0);
    if (wechat_decrypt(&key, base64, SL_STR_NONE, &plain, &message) == SL_OK)
        sl_assert(message.ptr >= plain.ptr && message.ptr + message.len <= plain.ptr + plain.len);
    sl_buf_fini(&plain);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static const unsigned char random[WECHAT_RANDOM_BYTES];
    struct sl_str input = fuzz_input(data, size), message;
    struct sl_buf cipher, plain;
    struct wechat_key other;
    check_decrypt(input);
    (void)!wechat_key_read(input, &other, NULL);
    sl_buf_init(&cipher, 0);
    sl_buf_init(&plain, 0);
    wechat_encrypt(&key, random, input, SL_STR("id"), &cipher);
    sl_assert(wechat_decrypt(&key, sl_buf_view(&cipher), SL_STR("id"), &plain, &message) == SL_OK);
    sl_assert(sl_str_eq(message, input));
    if (size > 0) { /* a changed byte of the cipher text: anything but out of bounds */
        cipher.ptr[data[0] % cipher.len] = (char)('A' + data[size - 1] % 26);
        check_decrypt(sl_buf_view(&cipher));
    }
    sl_buf_fini(&cipher);
    sl_buf_fini(&plain);
    return 0;
}
