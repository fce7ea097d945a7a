/* channels/email/mail_loop.h - did a program write this mail? Such a mail is shown to people and never answered by one.
 *
 * Threads  pure: any thread, no I/O.
 * Source   RFC 3834 2 and 5 (Auto-Submitted, whom not to answer), RFC 2919 and 2369 (List-*), RFC 3464 (multipart/report). Precedence
 *          and X-Autoreply are custom. X-Auto-Response-Suppress asks for no answer but is no proof that a mail is automatic.
 */
#ifndef EMAIL_MAIL_LOOP_H
#define EMAIL_MAIL_LOOP_H

#include "channels/email/mail_header.h"

enum email_auto {
    EMAIL_BY_PERSON,      /* as far as can be told */
    EMAIL_ASKS_NO_ANSWER, /* X-Auto-Response-Suppress: by a person perhaps, no automatic answer in any case */
    EMAIL_AUTO_NULL_PATH, /* Return-Path: <> */
    EMAIL_AUTO_SUBMITTED,
    EMAIL_AUTO_PRECEDENCE,
    EMAIL_AUTO_LIST,
    EMAIL_AUTO_REPORT, /* multipart/report, X-Failed-Recipients */
    EMAIL_AUTO_MARKED, /* X-Autoreply, X-Autorespond */
    EMAIL_AUTO_SENDER, /* mailer-daemon, postmaster, no-reply */
    EMAIL_AUTO_OURS,   /* from our own address, or with a message id of ours */
};
/* from: the sender's address, lower case. return_path: as the envelope says ("" is the null path), or NULL when not
 * known. ours: our own address; our_domain: of our message ids. */
enum email_auto email_auto_of(const struct email_headers *hs, struct sl_str from,
                              const struct sl_str *return_path, struct sl_str ours, struct sl_str our_domain);
const char *email_auto_name(enum email_auto a); /* "list" */

#endif
