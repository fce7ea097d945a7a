/* channels/sms/smpp_pdu.h - one SMPP 3.4 protocol data unit: bytes in, struct out, and back.
 *
 * What     pure: no I/O, no clock, no allocation when reading. Every length is checked before it is used.
 * Owns     nothing: what is read borrows from the frame.
 * Errors   the command_status with which the peer is answered; SMPP_OK is 0.
 * Source   "Short Message Peer to Peer Protocol Specification v3.4", issue 1.2: 3.2 (PDU layout), 4 (PDUs),
 *          5.1.3 (status), 5.2 (fields and their sizes), 5.3 (optional parameters); checked against the node
 *          package smpp 0.5.1 (tests/vectors/smpp.json) and Perl's Net::SMPP 1.19. docs/adr/0009: why not libsmpp34.
 */
#ifndef CHANNELS_SMS_SMPP_PDU_H
#define CHANNELS_SMS_SMPP_PDU_H

#include "base/str.h"

#define SMPP_HEADER_BYTES 16
#define SMPP_PDU_MAX_BYTES                                                                                   \
    65536 /* ours: message_payload may be 64 KiB by its length field; a larger PDU ends the session */
#define SMPP_TEXT_MAX 254 /* short_message, 5.2.22 */
#define SMPP_SEQ_MAX  0x7fffffffu

/* clang-format off */
/* command_id, 5.1.2.1; a response has bit 31 */
#define SMPP_COMMANDS(X)                       \
    X(GENERIC_NACK,          "generic_nack")                           \
    X(BIND_RECEIVER,         "bind_receiver")                          \
    X(BIND_RECEIVER_RESP,    "bind_receiver_resp")                     \
    X(BIND_TRANSMITTER,      "bind_transmitter")                       \
    X(BIND_TRANSMITTER_RESP, "bind_transmitter_resp")                  \
    X(QUERY_SM,              "query_sm")                               \
    X(QUERY_SM_RESP,         "query_sm_resp")                          \
    X(SUBMIT_SM,             "submit_sm")                              \
    X(SUBMIT_SM_RESP,        "submit_sm_resp")                         \
    X(DELIVER_SM,            "deliver_sm")                             \
    X(DELIVER_SM_RESP,       "deliver_sm_resp")                        \
    X(UNBIND,                "unbind")                                 \
    X(UNBIND_RESP,           "unbind_resp")                            \
    X(BIND_TRANSCEIVER,      "bind_transceiver")                       \
    X(BIND_TRANSCEIVER_RESP, "bind_transceiver_resp")                  \
    X(OUTBIND,               "outbind")                                \
    X(ENQUIRE_LINK,          "enquire_link")                           \
    X(ENQUIRE_LINK_RESP,     "enquire_link_resp")                      \
    X(ALERT_NOTIFICATION,    "alert_notification")                     \
    X(DATA_SM,               "data_sm")                                \
    X(DATA_SM_RESP,          "data_sm_resp")
#define SMPP_GENERIC_NACK           0x80000000u
#define SMPP_BIND_RECEIVER          0x00000001u
#define SMPP_BIND_RECEIVER_RESP     0x80000001u
#define SMPP_BIND_TRANSMITTER       0x00000002u
#define SMPP_BIND_TRANSMITTER_RESP  0x80000002u
#define SMPP_QUERY_SM               0x00000003u
#define SMPP_QUERY_SM_RESP          0x80000003u
#define SMPP_SUBMIT_SM              0x00000004u
#define SMPP_SUBMIT_SM_RESP         0x80000004u
#define SMPP_DELIVER_SM             0x00000005u
#define SMPP_DELIVER_SM_RESP        0x80000005u
#define SMPP_UNBIND                 0x00000006u
#define SMPP_UNBIND_RESP            0x80000006u
#define SMPP_BIND_TRANSCEIVER       0x00000009u
#define SMPP_BIND_TRANSCEIVER_RESP  0x80000009u
#define SMPP_OUTBIND                0x0000000bu
#define SMPP_ENQUIRE_LINK           0x00000015u
#define SMPP_ENQUIRE_LINK_RESP      0x80000015u
#define SMPP_ALERT_NOTIFICATION     0x00000102u
#define SMPP_DATA_SM                0x00000103u
#define SMPP_DATA_SM_RESP           0x80000103u
/* clang-format on */
#define SMPP_RESP 0x80000000u

/* 5.1.3. What to do about each when it answers a submit_sm is data in smpp_status.c. */
enum smpp_status {
    SMPP_OK = 0,
    SMPP_INVMSGLEN = 0x01,
    SMPP_INVCMDLEN = 0x02,
    SMPP_INVCMDID = 0x03,
    SMPP_INVBNDSTS = 0x04,
    SMPP_ALYBND = 0x05,
    SMPP_SYSERR = 0x08,
    SMPP_INVSRCADR = 0x0a,
    SMPP_INVDSTADR = 0x0b,
    SMPP_BINDFAIL = 0x0d,
    SMPP_INVPASWD = 0x0e,
    SMPP_INVSYSID = 0x0f,
    SMPP_MSGQFUL = 0x14,
    SMPP_THROTTLED = 0x58,
    SMPP_TEMPORARY = 0x64,    /* ESME_RX_T_APPN: receiver's temporary error, the SMSC sends it again */
    SMPP_REJECTED = 0x66,     /* ESME_RX_R_APPN */
    SMPP_INVTLVSTREAM = 0xc0, /* ESME_RINVOPTPARSTREAM */
    SMPP_INVTLVLEN = 0xc2,    /* ESME_RINVPARLEN */
};

enum smpp_tag { /* 5.3.2 */
                SMPP_TAG_RECEIPTED_MESSAGE_ID = 0x001e,
                SMPP_TAG_USER_MESSAGE_REFERENCE = 0x0204,
                SMPP_TAG_SAR_MSG_REF_NUM = 0x020c,
                SMPP_TAG_SAR_TOTAL_SEGMENTS = 0x020e,
                SMPP_TAG_SAR_SEGMENT_SEQNUM = 0x020f,
                SMPP_TAG_SC_INTERFACE_VERSION = 0x0210,
                SMPP_TAG_NETWORK_ERROR_CODE = 0x0423,
                SMPP_TAG_MESSAGE_PAYLOAD = 0x0424,
                SMPP_TAG_MESSAGE_STATE = 0x0427,
};

#define SMPP_ESM_UDHI         0x40 /* 5.2.12 */
#define SMPP_ESM_TYPE         0x3c
#define SMPP_ESM_RECEIPT      0x04
#define SMPP_ESM_INTERMEDIATE 0x20
#define SMPP_INTERFACE_34     0x34

struct smpp_address {
    uint8_t ton, npi;
    struct sl_str number; /* at most 20 bytes; alert_notification: 64 */
};

/* The union of what the PDUs carry; absent parts are empty or 0. */
struct smpp_pdu {
    uint32_t command, status, seq;
    /* bind_*, outbind */
    struct sl_str system_id, password, system_type, address_range;
    uint8_t interface_version, addr_ton, addr_npi;
    /* submit_sm, deliver_sm, data_sm; the addresses of query_sm and alert_notification */
    struct sl_str service_type, schedule, validity;
    struct smpp_address source, destination;
    uint8_t esm_class, protocol_id, priority, registered, replace, data_coding, default_message;
    struct sl_str text; /* short_message, or message_payload when has_payload */
    bool has_payload;
    /* *_resp, query_sm */
    struct sl_str message_id, final_date;
    uint8_t state, error_code;
    /* Optional parameters, whole and checked: walk them with smpp_tlv_next. */
    struct sl_str tlvs;
};

/* ---- reading ---- */

enum smpp_framing { SMPP_FRAME_MORE, SMPP_FRAME_WHOLE, SMPP_FRAME_BAD };
/* How long is the PDU at the front of `in`? BAD: its length is below 16 or above the cap: the stream cannot be
 * followed any more. *len is set for WHOLE. */
enum smpp_framing smpp_frame(struct sl_str in, size_t *len);
/* Header fields of a frame of 16 bytes or more. */
void smpp_header(struct sl_str frame, uint32_t *command, uint32_t *status, uint32_t *seq);
/* Read a whole frame. command, status and seq are set in any case. A response may lack its body. */
uint32_t smpp_pdu_read(struct sl_str frame, struct smpp_pdu *out);
/* Next optional parameter at *at (0 at first); false at the end. tlvs must come from smpp_pdu_read. */
bool smpp_tlv_next(struct sl_str tlvs, size_t *at, uint16_t *tag, struct sl_str *value);
bool smpp_tlv_find(struct sl_str tlvs, uint16_t tag, struct sl_str *value);
/* A big-endian number of exactly `bytes` (1, 2 or 4). */
bool smpp_tlv_uint(struct sl_str tlvs, uint16_t tag, size_t bytes, uint32_t *out);
const char *smpp_command_name(uint32_t command); /* "submit_sm"; "unknown" */

/* ---- writing ---- */

/* Append the PDU. Fields over their maximum are refused: SL_ETOOBIG, nothing appended. has_payload writes text as
 * message_payload behind the other optional parameters. */
sl_err smpp_pdu_write(struct sl_buf *out, const struct smpp_pdu *p) SL_MUST_CHECK;
void smpp_tlv_add(struct sl_buf *tlvs, uint16_t tag, struct sl_str value);
void smpp_tlv_add_uint(struct sl_buf *tlvs, uint16_t tag, size_t bytes, uint32_t value);
/* A PDU without body: enquire_link, unbind, generic_nack, an error response. */
void smpp_write_bare(struct sl_buf *out, uint32_t command, uint32_t status, uint32_t seq);

#endif
