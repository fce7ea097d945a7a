/* channels/sms/smpp_part.c - see smpp_part.h. */
#include "channels/sms/smpp_part.h"

#define IE_CONCAT_8  0x00
#define IE_CONCAT_16 0x08
#define IE_PORTS_8   0x04
#define IE_PORTS_16  0x05

static void element(struct smpp_part *out, uint8_t kind, const unsigned char *v, size_t len)
{
    if (kind == IE_CONCAT_8 && len == 3) {
        out->joint = SMPP_UDH8;
        out->ref = v[0];
        out->total = v[1];
        out->seq = v[2];
    } else if (kind == IE_CONCAT_16 && len == 4) {
        out->joint = SMPP_UDH16;
        out->ref = (uint16_t)(v[0] << 8 | v[1]);
        out->total = v[2];
        out->seq = v[3];
    } else if (kind == IE_PORTS_8 || kind == IE_PORTS_16) {
        out->is_port = true;
    }
}

static sl_err read_header(struct sl_str text, struct smpp_part *out)
{
    const unsigned char *p = (const unsigned char *)text.ptr;
    if (text.len == 0 || p[0] > text.len - 1)
        return SL_EINVAL;
    size_t end = 1 + (size_t)p[0];
    for (size_t at = 1; at < end;) {
        if (end - at < 2 || p[at + 1] > end - at - 2)
            return SL_EINVAL;
        element(out, p[at], p + at + 2, p[at + 1]);
        at += 2 + (size_t)p[at + 1];
    }
    out->octets = sl_str_n(text.ptr + end, text.len - end);
    return SL_OK;
}

static void read_sar(const struct smpp_pdu *p, struct smpp_part *out)
{
    uint32_t ref, total, seq;
    if (!smpp_tlv_uint(p->tlvs, SMPP_TAG_SAR_MSG_REF_NUM, 2, &ref) ||
        !smpp_tlv_uint(p->tlvs, SMPP_TAG_SAR_TOTAL_SEGMENTS, 1, &total) ||
        !smpp_tlv_uint(p->tlvs, SMPP_TAG_SAR_SEGMENT_SEQNUM, 1, &seq))
        return;
    out->joint = SMPP_SAR;
    out->ref = (uint16_t)ref;
    out->total = (uint8_t)total;
    out->seq = (uint8_t)seq;
}

sl_err smpp_part_read(const struct smpp_pdu *p, struct smpp_part *out)
{
    struct smpp_part part = {.octets = p->text};
    if ((p->esm_class & SMPP_ESM_UDHI) && read_header(p->text, &part) != SL_OK)
        return SL_EINVAL;
    if (part.joint == SMPP_WHOLE)
        read_sar(p, &part);
    /* TS 23.040 9.2.3.24.1: an element with such values is ignored */
    if (part.total <= 1 || part.seq == 0 || part.seq > part.total)
        part.joint = SMPP_WHOLE;
    *out = part;
    return SL_OK;
}

void smpp_part_header(struct sl_buf *out, enum smpp_joint joint, uint16_t ref, uint8_t total, uint8_t seq)
{
    if (joint == SMPP_UDH8) {
        char udh[6] = {5, IE_CONCAT_8, 3, (char)ref, (char)total, (char)seq};
        sl_buf_add(out, udh, sizeof udh);
    } else if (joint == SMPP_UDH16) {
        char udh[7] = {6, IE_CONCAT_16, 4, (char)(ref >> 8), (char)ref, (char)total, (char)seq};
        sl_buf_add(out, udh, sizeof udh);
    }
}

/* 140 octets hold 160 septets; a header takes 7 (8 bit reference) or 8 septets (16 bit) of them. SAR parts are
 * given a header of 7 octets by the message centre at most: the same room is left. */
size_t smpp_part_max(enum sms_alphabet a, enum smpp_joint joint)
{
    static const size_t gsm[] = {[SMPP_WHOLE] = 160, [SMPP_UDH8] = 153, [SMPP_UDH16] = 152, [SMPP_SAR] = 152};
    static const size_t octets[] = {
        [SMPP_WHOLE] = 140, [SMPP_UDH8] = 134, [SMPP_UDH16] = 133, [SMPP_SAR] = 133};
    if (a == SMS_GSM7)
        return gsm[joint];
    return a == SMS_UCS2 ? octets[joint] & ~(size_t)1 : octets[joint];
}
