/* channels/email/mail_auth.h - who vouches for the sender: our own mail server's Authentication-Results, nothing else.
 *
 * What     the topmost field whose authserv-id is ours; every other one is somebody's claim. dmarc=pass, or dkim=pass by a
 *          domain that is aligned with From, makes the sender verified. Nothing is verified here again.
 * Threads  pure: any thread, no I/O.
 * Source   RFC 8601 2.2 (syntax), 5 (removing foreign fields is the edge's work); RFC 7489 3.1 (relaxed alignment; without the
 *          list of public suffixes: one domain must end with the other).
 */
#ifndef EMAIL_MAIL_AUTH_H
#define EMAIL_MAIL_AUTH_H

#include "channels/email/mail_header.h"

enum email_trust { EMAIL_UNVERIFIED, EMAIL_VERIFIED };

/* ours: our authserv-id (empty: nothing is ever verified). from: the one address of From. */
enum email_trust email_trust_of(const struct email_headers *hs, struct sl_str ours, struct sl_str from);

#endif
