/* tests/unit/test_smpp_receipt.c - receipts as vendors spell them. */
#include "unit.h"

#include "channels/sms/smpp_receipt.h"

static const struct {
    const char *text, *id, *error;
    enum smpp_state state;
} spellings[] = {
    {"id:0a1b sub:001 dlvrd:001 submit date:2401011200 done date:2401011201 stat:DELIVRD err:000 text:Hello",
     "0a1b", "000", SMPP_STATE_DELIVERED},
    {"id:0a1b sub:001 dlvrd:000 submit date:240101120000 done date:240101120100 stat:UNDELIV err:11 "
     "Text:id:9 stat:EXPIRED",
     "0a1b", "11", SMPP_STATE_UNDELIVERABLE},
    {"ID:123 SUB:001 DLVRD:001 SUBMITDATE:2401011200 DONEDATE:2401011201 STAT:delivered ERR:0", "123", "0",
     SMPP_STATE_DELIVERED},
    {"id:6f1f3a52-7c1e-4f0e-9a53-2d0c5c0f1b11 stat:REJECTD", "6f1f3a52-7c1e-4f0e-9a53-2d0c5c0f1b11", "",
     SMPP_STATE_REJECTED},
    {"id: 77 stat: EXPIRED err: 5", "77", "5", SMPP_STATE_EXPIRED},
    {"msg_id:77;status:UNDELIVERABLE;error:5", "77", "5", SMPP_STATE_UNDELIVERABLE},
    {"stat:DELIVRD id:42", "42", "", SMPP_STATE_DELIVERED},
    {"id: stat:DELIVRD", "", "", SMPP_STATE_DELIVERED},
    {"id:1 stat:PERHAPS err:7", "1", "7", SMPP_STATE_NONE},
    {"my id:5", "5", "", SMPP_STATE_NONE},
    {"paid:5 restat:DELIVRD", "", "", SMPP_STATE_NONE}, /* the end of a word is no key */
    {"text:id:5 stat:DELIVRD", "", "", SMPP_STATE_NONE},
    {"", "", "", SMPP_STATE_NONE},
};

static void test_text_spellings(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof spellings / sizeof spellings[0]; i++) {
        struct smpp_receipt r = {.id = SL_STR_NONE, .error = SL_STR_NONE, .done = SL_STR_NONE};
        smpp_receipt_text(sl_str_c(spellings[i].text), &r);
        assert_bytes(r.id, spellings[i].id);
        assert_bytes(r.error, spellings[i].error);
        assert_int_equal(r.state, spellings[i].state);
    }
}

static void test_parameters_win_over_the_text(void **state)
{
    (void)state;
    struct smpp_receipt r;
    struct smpp_pdu p = {
        .command = SMPP_DELIVER_SM, .esm_class = SMPP_ESM_RECEIPT, .text = SL_STR("id:1 stat:ENROUTE err:9")};
    struct sl_buf tlvs;
    sl_buf_init(&tlvs, 0);
    smpp_tlv_add(&tlvs, SMPP_TAG_RECEIPTED_MESSAGE_ID, sl_str_n("0A", 3));
    smpp_tlv_add_uint(&tlvs, SMPP_TAG_MESSAGE_STATE, 1, SMPP_STATE_EXPIRED);
    smpp_tlv_add(&tlvs, SMPP_TAG_NETWORK_ERROR_CODE, sl_str_n("\3\1\2", 3));
    p.tlvs = sl_buf_view(&tlvs);
    assert_int_equal(smpp_receipt_read(&p, &r), SL_OK);
    assert_bytes(r.id, "0A");
    assert_int_equal(r.state, SMPP_STATE_EXPIRED);
    assert_int_equal(r.network_error, 3 << 16 | 0x102);
    assert_bytes(r.error, "9");
    sl_buf_fini(&tlvs);
    p = (struct smpp_pdu){.command = SMPP_DELIVER_SM, .esm_class = SMPP_ESM_RECEIPT, .text = SL_STR("hello")};
    assert_int_equal(smpp_receipt_read(&p, &r), SL_EINVAL);
}

static void test_a_receipt_in_ucs2(void **state)
{
    (void)state;
    static const char text[] = "id:0A1b stat:UNDELIV err:012 text:x";
    char wide[2 * sizeof text];
    struct smpp_receipt r;
    for (size_t i = 0; i < sizeof text - 1; i++) {
        wide[2 * i] = '\0';
        wide[2 * i + 1] = text[i];
    }
    struct smpp_pdu p = {.command = SMPP_DELIVER_SM,
                         .esm_class = SMPP_ESM_RECEIPT,
                         .data_coding = 8,
                         .text = sl_str_n(wide, 2 * (sizeof text - 1))};
    assert_int_equal(smpp_receipt_read(&p, &r), SL_OK);
    assert_bytes(r.id, "0A1b");
    assert_int_equal(r.state, SMPP_STATE_UNDELIVERABLE);
    assert_bytes(r.error, "012");
    p.data_coding = 0x18; /* the same alphabet in the other style */
    assert_int_equal(smpp_receipt_read(&p, &r), SL_OK);
    assert_bytes(r.id, "0A1b");
}

static void test_a_message_is_no_receipt(void **state)
{
    (void)state;
    struct smpp_pdu p = {.command = SMPP_DELIVER_SM, .text = SL_STR("id:1 stat:DELIVRD")};
    assert_false(smpp_is_receipt(&p)); /* a customer may write that */
    p.esm_class = SMPP_ESM_UDHI;
    assert_false(smpp_is_receipt(&p));
    p.esm_class = SMPP_ESM_INTERMEDIATE;
    assert_true(smpp_is_receipt(&p));
}

static void form_is(const char *id, enum smpp_ids ids, bool is_receipt, const char *want)
{
    struct sl_buf b;
    sl_buf_init(&b, 0);
    smpp_id_form(&b, sl_str_c(id), ids, is_receipt);
    assert_bytes(b, want);
    sl_buf_fini(&b);
}

static void test_ids_have_one_form(void **state)
{
    (void)state;
    form_is("000A1B2C3D", SMPP_IDS_SAME, false, "a1b2c3d");
    form_is("0", SMPP_IDS_SAME, true, "0");
    form_is("0a1b2c3d", SMPP_IDS_HEX_DEC, false, "169552957");
    form_is("00169552957", SMPP_IDS_HEX_DEC, true, "169552957");
    form_is("169552957", SMPP_IDS_DEC_HEX, false, "169552957");
    form_is("A1B2C3D", SMPP_IDS_DEC_HEX, true, "169552957");
    form_is("not-a-number", SMPP_IDS_HEX_DEC, false, "not-a-number");
    form_is("ffffffffffffffffff", SMPP_IDS_HEX_DEC, false, "ffffffffffffffffff"); /* over 64 bits: as it is */
    form_is("a,b c", SMPP_IDS_SAME, false, "a%2cb%20c");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_spellings),    cmocka_unit_test(test_parameters_win_over_the_text),
        cmocka_unit_test(test_a_receipt_in_ucs2), cmocka_unit_test(test_a_message_is_no_receipt),
        cmocka_unit_test(test_ids_have_one_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
