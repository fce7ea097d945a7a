/* A dialogue cut into pieces at any place says the same and hands over the same mails; none has a bare CR or LF in it. The
 * first byte says how large the pieces are. */
#include "tests/fuzz/fuzz.h"

#include "channels/email/lmtp_dialogue.h"

static bool is_ours(void *arg, struct sl_str address)
{
    (void)arg;
    return address.ptr[0] != 'x';
}

static bool has_room(void *arg)
{
    return *(const bool *)arg;
}

static void check_mail(struct sl_str s)
{
    for (size_t i = 0; i < s.len; i++) {
        sl_assert(s.ptr[i] != '\n' || (i > 0 && s.ptr[i - 1] == '\r'));
        sl_assert(s.ptr[i] != '\r' || (i + 1 < s.len && s.ptr[i + 1] == '\n'));
    }
}

static void play(struct sl_str in, size_t piece, struct sl_buf *out)
{
    bool room = true;
    const struct email_lmtp_options o = {
        .host = "mx", .size_max = 2000, .is_ours = is_ours, .has_room = has_room, .arg = &room};
    struct email_lmtp *l = email_lmtp_new(&o);
    while (in.len > 0) {
        size_t used;
        const enum email_lmtp_want want =
            email_lmtp_feed(l, sl_str_n(in.ptr, in.len < piece ? in.len : piece), &used);
        in = sl_str_n(in.ptr + used, in.len - used);
        if (want == EMAIL_LMTP_CLOSE)
            break;
        sl_buf_str(out, sl_buf_view(email_lmtp_out(l)));
        sl_buf_clear(email_lmtp_out(l));
        if (want == EMAIL_LMTP_MAIL) {
            struct email_lmtp_mail m;
            email_lmtp_mail(l, &m);
            sl_assert(m.recipient_count > 0 && m.data.len <= 2000);
            check_mail(m.data);
            sl_buf_str(out, m.data);
            email_lmtp_settle(l,
                              m.data.len % 3 == 0   ? SL_OK
                              : m.data.len % 3 == 1 ? SL_EAGAIN
                                                    : SL_EINVAL,
                              NULL);
        }
        sl_buf_str(out, sl_buf_view(email_lmtp_out(l)));
        sl_buf_clear(email_lmtp_out(l));
    }
    sl_buf_str(out, sl_buf_view(email_lmtp_out(l)));
    email_lmtp_free(&l);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct sl_buf whole, pieces;
    if (size < 2)
        return 0;
    const struct sl_str in = sl_str_n((const char *)data + 1, size - 1);
    sl_buf_init(&whole, 0);
    sl_buf_init(&pieces, 0);
    play(in, in.len, &whole);
    play(in, (size_t)data[0] % 7 + 1, &pieces);
    sl_assert(sl_str_eq(sl_buf_view(&whole), sl_buf_view(&pieces)));
    sl_buf_fini(&whole);
    sl_buf_fini(&pieces);
    return 0;
}
