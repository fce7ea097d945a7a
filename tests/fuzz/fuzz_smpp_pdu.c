/* A PDU that can be read is written again to something that reads the same; its part and its receipt stay inside it. */
#include "tests/fuzz/fuzz.h"

#include "channels/sms/smpp_part.h"
#include "channels/sms/smpp_pdu.h"
#include "channels/sms/smpp_receipt.h"

static void is_inside(struct sl_str part, struct sl_str whole)
{
    sl_assert(part.len == 0 || (part.ptr >= whole.ptr && part.ptr + part.len <= whole.ptr + whole.len));
}

static void check_again(const struct smpp_pdu *p)
{
    struct smpp_pdu copy = *p, again;
    struct sl_buf out;
    if (copy.has_payload) /* it stands among the parameters */
        copy.text = SL_STR_NONE;
    copy.has_payload = false;
    sl_buf_init(&out, 0);
    if (copy.text.len > SMPP_TEXT_MAX) { /* 255 is read, as version 5.0 allows; we do not write it */
        sl_assert(smpp_pdu_write(&out, &copy) == SL_ETOOBIG && out.len == 0);
        sl_buf_fini(&out);
        return;
    }
    sl_assert(smpp_pdu_write(&out, &copy) == SL_OK);
    sl_assert(smpp_pdu_read(sl_buf_view(&out), &again) == SMPP_OK);
    sl_assert(again.command == p->command && again.seq == p->seq && sl_str_eq(again.text, p->text));
    sl_assert(sl_str_eq(again.source.number, p->source.number) && sl_str_eq(again.tlvs, p->tlvs));
    sl_buf_fini(&out);
}

static void check_inner(const struct smpp_pdu *p, struct sl_str frame)
{
    struct smpp_part part;
    struct smpp_receipt receipt;
    if (smpp_part_read(p, &part) == SL_OK) {
        is_inside(part.octets, frame);
        sl_assert(part.joint == SMPP_WHOLE || (part.seq >= 1 && part.seq <= part.total));
    }
    if (smpp_receipt_read(p, &receipt) == SL_OK)
        is_inside(receipt.id,
                  receipt.id.ptr >= receipt.plain && receipt.id.ptr < receipt.plain + sizeof receipt.plain
                      ? sl_str_n(receipt.plain, sizeof receipt.plain)
                      : frame);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct sl_str input = fuzz_input(data, size);
    struct smpp_pdu p;
    for (size_t len; smpp_frame(input, &len) == SMPP_FRAME_WHOLE;) {
        struct sl_str frame = sl_str_n(input.ptr, len);
        if (smpp_pdu_read(frame, &p) == SMPP_OK) {
            check_again(&p);
            check_inner(&p, frame);
        }
        input = sl_str_n(input.ptr + len, input.len - len);
    }
    return 0;
}
