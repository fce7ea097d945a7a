/* channels/email/lmtp_dialogue.h - the words of an LMTP server, without a socket: bytes in, replies out, a mail to judge.
 *
 * What     feed() eats what came until a mail is whole; then the owner says what became of it, once, and every accepted recipient
 *          gets its reply. Nothing is replied to the final dot before that.
 * Strict   lines end in CRLF; a bare CR or LF ends nothing and makes command or mail refused: what another server takes for
 *          the end of a mail must not begin a command here (CVE-2023-51764 and its sisters).
 * Bounded  one mail in memory, of size_max bytes; a longer one is read to its end and refused. Bad commands are counted.
 * Threads  pure: no I/O, no clock.
 * Source   RFC 2033 (LMTP), RFC 5321 4.1, 4.2, 4.5.3.1; RFC 1870 (SIZE), 2920 (PIPELINING), 2034 and 3463 (codes), 6152
 *          (8BITMIME), 6531 (SMTPUTF8)
 */
#ifndef EMAIL_LMTP_DIALOGUE_H
#define EMAIL_LMTP_DIALOGUE_H

#include "channels/email/mail_header.h"

#define EMAIL_LMTP_RECIPIENTS_MAX 100 /* RFC 5321 4.5.3.1.8 */
#define EMAIL_LMTP_LINE_MAX       2048 /* of a command: 4.5.3.1.4 asks for 512 and the extensions' parameters */
#define EMAIL_LMTP_TEXT_LINE_MAX  65536 /* of a mail; 4.5.3.1.6 says 1,000, senders say otherwise */
#define EMAIL_LMTP_BAD_MAX        20    /* bad commands, then the connection is closed */

struct email_lmtp_options {
    const char *host; /* our name in the greeting */
    size_t size_max;
    /* Is this recipient (lower case) ours? */
    bool (*is_ours)(void *arg, struct sl_str address);
    /* May a mail begin now? false: 451, the sender comes again. */
    bool (*has_room)(void *arg);
    void *arg;
};

enum email_lmtp_want {
    EMAIL_LMTP_MORE,  /* feed on */
    EMAIL_LMTP_MAIL,  /* a mail waits for settle(); nothing is eaten until then */
    EMAIL_LMTP_CLOSE, /* write what is in out, then close */
};

struct email_lmtp_mail {        /* borrowed until settle() */
    struct sl_str data, sender; /* sender: empty for <> */
    const struct sl_str *recipients;
    size_t recipient_count;
};

struct email_lmtp; /* one connection's dialogue */
/* Writes the greeting. o is copied. */
struct email_lmtp *email_lmtp_new(const struct email_lmtp_options *o);
void email_lmtp_free(struct email_lmtp **l);
struct sl_buf *email_lmtp_out(struct email_lmtp *l); /* replies; the owner takes them off */
enum email_lmtp_want email_lmtp_feed(struct email_lmtp *l, struct sl_str in, size_t *used);
void email_lmtp_mail(const struct email_lmtp *l, struct email_lmtp_mail *out);
/* The mail's bytes become the caller's; what mail() told of them no longer holds. */
void email_lmtp_take(struct email_lmtp *l, struct sl_buf *data);
/* SL_OK: 250. Errors that may pass (sl_err_retry): 451. Others: 554, with these words (may be NULL). */
void email_lmtp_settle(struct email_lmtp *l, sl_err result, const char *words);
/* 421: we close. */
void email_lmtp_bye(struct email_lmtp *l, const char *words);
bool email_lmtp_is_in_data(const struct email_lmtp *l);

#endif
