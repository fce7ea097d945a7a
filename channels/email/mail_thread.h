/* channels/email/mail_thread.h - which conversation a mail belongs to, proven by what only we could have written.
 *
 * What     tokens in addresses and message ids of ours, each with a keyed hash:
 *            conversation  support+c<k>-<ulid>.<mac>@domain     Reply-To of what we send
 *            bounce        support+b<key>.<mac>@domain          envelope sender (VERP): names one send
 *            message id    <sluice.<k>-<ulid>.<key>.<mac>@domain>
 *          All are lower case, and read without regard to case: mail servers change it. Never by subject.
 * Limits   a token that would make the local part longer than 64 bytes is not used.
 * Threads  pure: any thread, no I/O.
 * Source   RFC 5321 4.5.3.1.1 (local part), RFC 5322 3.6.4 (ids), RFC 5233 (the part behind +). The hash is HMAC-SHA-256,
 *          cut to 60 bits: it can only be tried against us, one mail a try.
 */
#ifndef EMAIL_MAIL_THREAD_H
#define EMAIL_MAIL_THREAD_H

#include "channels/email/mail_parse.h"

#define EMAIL_CONV_MAX 64 /* of a conversation id, and of a key, with the NUL */

struct email_keys {                   /* borrowed */
    struct sl_str secret, old_secret; /* old_secret: still read, never written; may be empty */
    struct sl_str inbox;              /* a token of one inbox is worth nothing in another */
    struct sl_str address;            /* support@example.org, lower case */
    struct sl_str domain;             /* of our message ids, lower case */
};

/* false: the conversation's id is not of the form <k>.<ulid>, or the address gets too long; nothing is written. */
bool email_conversation_address(const struct email_keys *k, struct sl_str conversation, struct sl_buf *out);
bool email_bounce_address(const struct email_keys *k, struct sl_str key, struct sl_buf *out);
/* conversation may be empty. With the brackets. */
void email_message_id(const struct email_keys *k, struct sl_str conversation, struct sl_str key,
                      struct sl_buf *out);

enum email_to {
    EMAIL_TO_OTHERS,       /* not an address of this inbox */
    EMAIL_TO_US,           /* ours; without a token, or with one that proves nothing */
    EMAIL_TO_CONVERSATION, /* ours, with the token of a conversation */
    EMAIL_TO_BOUNCE,       /* ours, with the token of a send */
};
/* what: the conversation or the key, NUL-terminated; empty for the first two. */
enum email_to email_address_read(const struct email_keys *k, struct sl_str address,
                                 char what[EMAIL_CONV_MAX]);
/* Is it a message id of ours? conversation may come back empty. */
bool email_message_id_read(const struct email_keys *k, struct sl_str id, char conversation[EMAIL_CONV_MAX],
                           char key[EMAIL_CONV_MAX]);

enum email_proof { EMAIL_NO_THREAD, EMAIL_BY_ADDRESS, EMAIL_BY_IN_REPLY_TO, EMAIL_BY_REFERENCES };
const char *email_proof_name(enum email_proof p);
/* The order: recipients' tokens, In-Reply-To, References from the newest. envelope: recipients of the transaction, may be
 * none; the mail's own To, Cc and Delivered-To are looked at as well. */
enum email_proof email_thread_of(const struct email_keys *k, const struct email_mail *m,
                                 const struct sl_str *envelope, size_t envelope_count,
                                 char conversation[EMAIL_CONV_MAX]);

#endif
