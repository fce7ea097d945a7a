/* channels/sms/smpp.h - the adapter "smpp": an account at a message centre as an inbox.
 *
 * What     ops table and configuration. README.md says what each file does.
 * Owns     its sessions (binds); jobs and tickets belong to the core until they are settled and accepted.
 */
#ifndef CHANNELS_SMS_SMPP_H
#define CHANNELS_SMS_SMPP_H

#include "channels/channel.h"

extern const struct chan_ops smpp_ops;

#define SMPP_BINDS_MAX   16
#define SMPP_WINDOW_MAX  1024
#define SMPP_INBOUND_MAX 256 /* messages and receipts on their way to the store; beyond it ESME_RX_T_APPN */

/* clang-format off */
#define SMPP_KEYS                                                                                                      \
    {"inboxes.*.host", SL_CFG_STR, "", 0, 0, false, "the provider's host"},                                            \
    {"inboxes.*.port", SL_CFG_INT, "0", 0, 65535, false, "its port; 0: what is usual (SMPP: 2775, with TLS 3550)"},    \
    {"inboxes.*.tls", SL_CFG_BOOL, "false", 0, 0, false, "SMPP: TLS from the first byte"},                             \
    {"inboxes.*.tls_verify", SL_CFG_BOOL, "true", 0, 0, false, "refuse a certificate that is not good for the host"},  \
    {"inboxes.*.tls_ca_file", SL_CFG_STR, "", 0, 0, false, "authorities to trust; empty: the system's"},               \
    {"inboxes.*.system_id", SL_CFG_STR, "", 0, 0, false, "SMPP: the account's name, at most 15 bytes"},                \
    {"inboxes.*.password", SL_CFG_SECRET, "", 0, 0, false, "the account's password (SMPP: at most 8 bytes)"},          \
    {"inboxes.*.system_type", SL_CFG_STR, "", 0, 0, false, "SMPP: as the provider says, at most 12 bytes"},            \
    {"inboxes.*.bind", SL_CFG_STR, "transceiver", 0, 0, false, "SMPP: transceiver, or pair: transmitter and receiver"},\
    {"inboxes.*.binds", SL_CFG_INT, "1", 1, 8, false, "SMPP: sessions (or pairs) of this process"},                    \
    {"inboxes.*.window", SL_CFG_INT, "10", 1, 1024, false, "SMPP: requests without an answer, a session"},             \
    {"inboxes.*.source", SL_CFG_STR, "", 0, 0, false, "sender's number or name; empty: the number the customer wrote to"},\
    {"inboxes.*.source_ton", SL_CFG_INT, "0", 0, 255, false, "SMPP: type of source: 1 international, 5 a name"},       \
    {"inboxes.*.source_npi", SL_CFG_INT, "0", 0, 255, false, "SMPP: plan of source: 1 for numbers"},                   \
    {"inboxes.*.dest_ton", SL_CFG_INT, "0", 0, 255, false, "SMPP: type of numbers that do not begin with +"},          \
    {"inboxes.*.dest_npi", SL_CFG_INT, "1", 0, 255, false, "SMPP: plan of numbers that do not begin with +"},          \
    {"inboxes.*.service_type", SL_CFG_STR, "", 0, 0, false, "SMPP: at most 5 bytes"},                                  \
    {"inboxes.*.address_range", SL_CFG_STR, "", 0, 0, false, "SMPP: numbers to receive for, as the provider says"},    \
    {"inboxes.*.alphabet", SL_CFG_STR, "auto", 0, 0, false, "of sent texts: auto (gsm, or ucs2 where needed), gsm, ucs2, latin1"},\
    {"inboxes.*.default_alphabet", SL_CFG_STR, "gsm", 0, 0, false, "what data_coding 0 means there: gsm or latin1"},   \
    {"inboxes.*.long_messages", SL_CFG_STR, "udh8", 0, 0, false, "udh8, udh16, sar or payload"},                       \
    {"inboxes.*.receipts", SL_CFG_STR, "final", 0, 0, false, "ask for receipts: final, failures or none"},             \
    {"inboxes.*.message_ids", SL_CFG_STR, "same", 0, 0, false, "same; hex-dec: hex in answers, decimal in receipts; dec-hex"},\
    {"inboxes.*.validity", SL_CFG_MS, "0s", 0, 2592000000, false, "how long the message centre tries; 0s: its default"},\
    {"inboxes.*.text_max", SL_CFG_INT, "1000", 70, 8000, false, "characters of one message; longer answers become several"},\
    {"inboxes.*.enquire", SL_CFG_MS, "30s", 1000, 600000, false, "SMPP: enquire_link after so much silence"},          \
    {"inboxes.*.response_timeout", SL_CFG_MS, "30s", 1000, 300000, false, "wait so long for an answer; then it is unknown"},\
    {"inboxes.*.connect_timeout", SL_CFG_MS, "10s", 100, 60000, false, "for a connection"},                            \
    {"inboxes.*.reconnect_max", SL_CFG_MS, "60s", 1000, 600000, false, "longest pause between two attempts to connect"}
/* clang-format on */

#endif
