/* channels/sms/smpp_part.h - long messages in parts: user data headers and SAR parameters, read and written.
 *
 * What     pure. Reads of which long message a PDU is a part; makes the user data header of a part to be sent.
 * Source   3GPP TS 23.040 9.2.3.24 (user data header; .1 concatenation 8 bit, .8 16 bit; .3, .4 ports);
 *          SMPP 3.4 5.3.2.22 to 24 (sar_*). Sizes: TS 23.040 9.2.3.16: 140 octets of user data with the header.
 */
#ifndef CHANNELS_SMS_SMPP_PART_H
#define CHANNELS_SMS_SMPP_PART_H

#include "channels/sms/sms_text.h"
#include "channels/sms/smpp_pdu.h"

enum smpp_joint { SMPP_WHOLE, SMPP_UDH8, SMPP_UDH16, SMPP_SAR };

struct smpp_part {
    enum smpp_joint joint; /* WHOLE: not a part of something longer */
    uint16_t ref;
    uint8_t total, seq;   /* 1..total */
    bool is_port;         /* to an application, not to a person */
    struct sl_str octets; /* the text without header; borrowed from the PDU */
};

/* SL_EINVAL: the header runs past the text. A joint that makes no sense (0 parts, part 4 of 3) is not one. */
sl_err smpp_part_read(const struct smpp_pdu *p, struct smpp_part *out) SL_MUST_CHECK;
/* The user data header (UDH8: 6 octets, UDH16: 7) in front of a part's octets. */
void smpp_part_header(struct sl_buf *out, enum smpp_joint joint, uint16_t ref, uint8_t total, uint8_t seq);
/* Octets of text that fit into one part. */
size_t smpp_part_max(enum sms_alphabet a, enum smpp_joint joint);

#endif
