/* tests/unit/test_smpp_pdu.c - the codec of PDUs and parts: what the vectors do not show. */
#include "unit.h"

#include "channels/sms/smpp_part.h"
#include "channels/sms/smpp_pdu.h"

static struct smpp_pdu message(void)
{
    return (struct smpp_pdu){.command = SMPP_DELIVER_SM,
                             .seq = 7,
                             .source = {1, 1, SL_STR("8613800138000")},
                             .destination = {0, 1, SL_STR("10690")},
                             .data_coding = 8,
                             .text = SL_STR("\x4e\xba")};
}

static struct sl_buf written(const struct smpp_pdu *p)
{
    struct sl_buf b;
    sl_buf_init(&b, 0);
    assert_int_equal(smpp_pdu_write(&b, p), SL_OK);
    return b;
}

/* Whatever a PDU is cut to, and whatever its length then says, it is refused and nothing behind its end is read
 * (the sanitizers watch: the copy is exactly as long). */
static void test_every_cut_is_refused(void **state)
{
    (void)state;
    struct smpp_pdu p = message(), got;
    struct sl_buf tlvs;
    sl_buf_init(&tlvs, 0);
    smpp_tlv_add_uint(&tlvs, SMPP_TAG_SAR_MSG_REF_NUM, 2, 258);
    p.tlvs = sl_buf_view(&tlvs);
    struct sl_buf b = written(&p);
    size_t whole_without_tlv = b.len - tlvs.len;
    for (size_t n = 0; n < b.len; n++) {
        char *cut = sl_alloc(n + 1);
        memcpy(cut, b.ptr, n);
        if (n >= 4)
            cut[3] = (char)n;
        uint32_t status = smpp_pdu_read(sl_str_n(cut, n), &got);
        if (n == whole_without_tlv)
            assert_int_equal(status, SMPP_OK);
        else
            assert_int_not_equal(status, SMPP_OK);
        if (n > whole_without_tlv)
            assert_int_equal(status, SMPP_INVTLVSTREAM);
        free(cut);
    }
    sl_buf_fini(&b);
    sl_buf_fini(&tlvs);
}

static void test_frame_needs_16_bytes_to_64_kib(void **state)
{
    (void)state;
    size_t len = 0;
    assert_int_equal(smpp_frame(sl_str_n("\0\0\0", 3), &len), SMPP_FRAME_MORE);
    assert_int_equal(smpp_frame(sl_str_n("\0\0\0\x0f", 4), &len), SMPP_FRAME_BAD);
    assert_int_equal(smpp_frame(sl_str_n("\0\0\0\x10", 4), &len), SMPP_FRAME_MORE);
    assert_int_equal(smpp_frame(sl_str_n("\0\1\0\1", 4), &len), SMPP_FRAME_BAD);
    assert_int_equal(smpp_frame(sl_str_n("\0\1\0\0", 4), &len), SMPP_FRAME_MORE);
    assert_int_equal(smpp_frame(sl_str_n("\xff\xff\xff\xff", 4), &len), SMPP_FRAME_BAD);
    assert_int_equal(smpp_frame(sl_str_n("\0\0\0\x10\0\0\0\x15\0\0\0\0\0\0\0\1rest", 20), &len),
                     SMPP_FRAME_WHOLE);
    assert_int_equal(len, 16);
}

static void test_responses_may_lack_their_body_requests_not(void **state)
{
    (void)state;
    struct sl_buf b;
    struct smpp_pdu got;
    sl_buf_init(&b, 0);
    smpp_write_bare(&b, SMPP_BIND_TRANSCEIVER_RESP, SMPP_INVPASWD, 1);
    assert_int_equal(smpp_pdu_read(sl_buf_view(&b), &got), SMPP_OK);
    assert_int_equal(got.status, SMPP_INVPASWD);
    sl_buf_clear(&b);
    smpp_write_bare(&b, SMPP_DELIVER_SM, 0, 9);
    assert_int_equal(smpp_pdu_read(sl_buf_view(&b), &got), SMPP_INVCMDLEN);
    assert_int_equal(got.seq, 9); /* the answer needs it */
    sl_buf_clear(&b);
    smpp_write_bare(&b, 0x77, 0, 9);
    assert_int_equal(smpp_pdu_read(sl_buf_view(&b), &got), SMPP_INVCMDID);
    sl_buf_clear(&b);
    smpp_write_bare(&b, 0x80000077u, 0, 9);
    assert_int_equal(smpp_pdu_read(sl_buf_view(&b), &got), SMPP_INVCMDID);
    sl_buf_fini(&b);
}

static void test_fields_over_their_size_are_neither_written_nor_read(void **state)
{
    (void)state;
    static const char digits[] = "123456789012345678901"; /* 21, and the NUL */
    struct smpp_pdu p = message(), got;
    struct sl_buf b;
    sl_buf_init(&b, 0);
    p.source.number = SL_STR("12345678901234567890");
    struct sl_buf good = written(&p);
    assert_int_equal(smpp_pdu_read(sl_buf_view(&good), &got), SMPP_OK);
    p.source.number = sl_str_c(digits);
    assert_int_equal(smpp_pdu_write(&b, &p), SL_ETOOBIG);
    assert_int_equal(b.len, 0);
    p.source.number = sl_str_n("a\0b", 3); /* a NUL would end it early */
    assert_int_equal(smpp_pdu_write(&b, &p), SL_ETOOBIG);
    p = message();
    p.text = sl_str_n("", 0);
    char long_text[255] = "";
    p.text = sl_str_n(long_text, sizeof long_text);
    assert_int_equal(smpp_pdu_write(&b, &p), SL_ETOOBIG);
    p.has_payload = true;
    assert_int_equal(smpp_pdu_write(&b, &p), SL_OK);
    assert_int_equal(smpp_pdu_read(sl_buf_view(&b), &got), SMPP_OK);
    assert_true(got.has_payload);
    assert_int_equal(got.text.len, sizeof long_text);
    sl_buf_fini(&good);
    sl_buf_fini(&b);
}

static void test_unknown_parameters_are_passed_over(void **state)
{
    (void)state;
    struct smpp_pdu p = message(), got;
    struct sl_buf tlvs;
    uint32_t v = 0;
    sl_buf_init(&tlvs, 0);
    smpp_tlv_add(&tlvs, 0x1401, SL_STR("vendor"));
    smpp_tlv_add(&tlvs, 0x1402, SL_STR_NONE);
    smpp_tlv_add_uint(&tlvs, SMPP_TAG_MESSAGE_STATE, 1, 2);
    p.tlvs = sl_buf_view(&tlvs);
    struct sl_buf b = written(&p);
    assert_int_equal(smpp_pdu_read(sl_buf_view(&b), &got), SMPP_OK);
    assert_true(smpp_tlv_uint(got.tlvs, SMPP_TAG_MESSAGE_STATE, 1, &v));
    assert_int_equal(v, 2);
    assert_false(smpp_tlv_uint(got.tlvs, SMPP_TAG_MESSAGE_STATE, 2, &v)); /* not of the size it must have */
    sl_buf_fini(&b);
    sl_buf_fini(&tlvs);
}

/* ---- parts ---- */

static struct smpp_part part_of(const char *octets, size_t len, sl_err want)
{
    struct smpp_pdu p = message();
    struct smpp_part part = {.joint = SMPP_WHOLE};
    p.esm_class = SMPP_ESM_UDHI;
    p.text = sl_str_n(octets, len);
    assert_int_equal(smpp_part_read(&p, &part), want);
    return part;
}

static void test_headers_are_read_among_other_elements(void **state)
{
    (void)state;
    struct smpp_part part = part_of("\x0b\x24\1\1\x08\4\x12\x34\3\2\x25\0ab", 14, SL_OK);
    assert_int_equal(part.joint, SMPP_UDH16);
    assert_int_equal(part.ref, 0x1234);
    assert_int_equal(part.total, 3);
    assert_int_equal(part.seq, 2);
    assert_bytes(part.octets, "ab");
    part = part_of("\6\5\4\x15\x8a\0\0b", 8, SL_OK);
    assert_true(part.is_port);
    assert_int_equal(part.joint, SMPP_WHOLE);
}

static void test_headers_that_run_over_are_refused(void **state)
{
    (void)state;
    (void)part_of("\5\0\3\x7a\3", 5, SL_EINVAL);    /* longer than the text */
    (void)part_of("\5\0\4\x7a\3\1x", 7, SL_EINVAL); /* an element longer than the header */
    (void)part_of("\1\0x", 3, SL_EINVAL);
    (void)part_of("", 0, SL_EINVAL);
}

static void test_joints_without_sense_are_ignored(void **state)
{
    (void)state;
    assert_int_equal(part_of("\5\0\3\x7a\3\0x", 7, SL_OK).joint, SMPP_WHOLE);
    assert_int_equal(part_of("\5\0\3\x7a\3\4x", 7, SL_OK).joint, SMPP_WHOLE);
    assert_int_equal(part_of("\5\0\3\x7a\0\0x", 7, SL_OK).joint, SMPP_WHOLE);
    assert_int_equal(part_of("\5\0\3\x7a\1\1x", 7, SL_OK).joint, SMPP_WHOLE);
    assert_bytes(part_of("\5\0\3\x7a\1\1x", 7, SL_OK).octets, "x");
}

static void test_header_written_is_header_read(void **state)
{
    (void)state;
    for (int joint = SMPP_UDH8; joint <= SMPP_UDH16; joint++) {
        struct sl_buf b;
        sl_buf_init(&b, 0);
        smpp_part_header(&b, (enum smpp_joint)joint, 0xf2, 200, 199);
        sl_buf_c(&b, "xyz");
        struct smpp_part part = part_of(b.ptr, b.len, SL_OK);
        assert_int_equal(part.joint, joint);
        assert_int_equal(part.ref, 0xf2);
        assert_int_equal(part.total, 200);
        assert_int_equal(part.seq, 199);
        assert_bytes(part.octets, "xyz");
        sl_buf_fini(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut_is_refused),
        cmocka_unit_test(test_frame_needs_16_bytes_to_64_kib),
        cmocka_unit_test(test_responses_may_lack_their_body_requests_not),
        cmocka_unit_test(test_fields_over_their_size_are_neither_written_nor_read),
        cmocka_unit_test(test_unknown_parameters_are_passed_over),
        cmocka_unit_test(test_headers_are_read_among_other_elements),
        cmocka_unit_test(test_headers_that_run_over_are_refused),
        cmocka_unit_test(test_joints_without_sense_are_ignored),
        cmocka_unit_test(test_header_written_is_header_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
