/* channels/email/email.h - the adapter "email": LMTP or IMAP in, SMTP submission out. */
#ifndef EMAIL_EMAIL_H
#define EMAIL_EMAIL_H

#include "channels/channel.h"

extern const struct chan_ops email_ops;

#endif
