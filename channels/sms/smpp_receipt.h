/* channels/sms/smpp_receipt.h - delivery receipts in their many spellings, and ids in one form.
 *
 * What     pure. Optional parameters are preferred to the text; both may be missing in part.
 * Source   SMPP 3.4 5.2.12 (esm_class), 5.2.28 (message_state), 5.3.2.12, .31, .35 and appendix B (text form);
 *          spellings of vendors: tests/vectors/smpp.json, tests/unit/test_smpp_receipt.c.
 */
#ifndef CHANNELS_SMS_SMPP_RECEIPT_H
#define CHANNELS_SMS_SMPP_RECEIPT_H

#include "channels/sms/smpp_pdu.h"

enum smpp_state { /* 5.2.28 */
                  SMPP_STATE_NONE,
                  SMPP_STATE_ENROUTE = 1,
                  SMPP_STATE_DELIVERED,
                  SMPP_STATE_EXPIRED,
                  SMPP_STATE_DELETED,
                  SMPP_STATE_UNDELIVERABLE,
                  SMPP_STATE_ACCEPTED,
                  SMPP_STATE_UNKNOWN,
                  SMPP_STATE_REJECTED,
};

#define SMPP_RECEIPT_PLAIN_BYTES 256
/* Not to be copied: its fields may point into itself. */
struct smpp_receipt {
    struct sl_str id; /* as the peer wrote it; borrowed from the PDU */
    enum smpp_state state;
    struct sl_str error;    /* of the text form: err:012; borrowed; may be empty */
    uint32_t network_error; /* type << 16 | code of network_error_code; 0: none */
    struct sl_str done;     /* "done date" digits of the text form, YYMMDDhhmm[ss]; may be empty */
    char plain[SMPP_RECEIPT_PLAIN_BYTES]; /* a text that came as UCS-2: then the fields borrow from here */
};

/* Is this deliver_sm or data_sm a receipt (final or intermediate) rather than a message? */
bool smpp_is_receipt(const struct smpp_pdu *p);
/* SL_EINVAL: neither id nor state can be found. */
sl_err smpp_receipt_read(const struct smpp_pdu *p, struct smpp_receipt *out) SL_MUST_CHECK;
/* The text form alone. */
void smpp_receipt_text(struct sl_str text, struct smpp_receipt *out);
const char *smpp_state_word(enum smpp_state s); /* "delivered" */

/* How an account writes ids: alike everywhere, or with one base in the answer and another in the receipt. */
enum smpp_ids { SMPP_IDS_SAME, SMPP_IDS_HEX_DEC, SMPP_IDS_DEC_HEX };
/* One form for all spellings: lower case, no leading zeros, or the number in decimal digits when the account
 * changes bases; bytes but letters, digits, . _ : - are written %xx (a comma separates ids). */
void smpp_id_form(struct sl_buf *out, struct sl_str id, enum smpp_ids ids, bool is_receipt);

#endif
