/* channels/email/mail_quote.h - what a customer wrote now, without the mail that is answered and the signature.
 *
 * What     folds lines with '>', what stands above them ("On .. wrote:", "在 .. 写道："), the header block Outlook writes, in
 *          English and in Chinese, "-----Original Message-----" and its sisters, and signatures. The full text is the
 *          caller's to keep: folding is a guess. What would fold everything folds nothing.
 * Threads  pure: any thread, no I/O.
 * Source   RFC 3676 4.3 (signature separator), 4.5 (quoting); the rest is what mail programs write: tests/vectors/email.
 */
#ifndef EMAIL_MAIL_QUOTE_H
#define EMAIL_MAIL_QUOTE_H

#include "base/str.h"

/* Append the visible part of text (UTF-8, LF or CRLF) to out, lines ended by LF, no blank lines at either end. */
void email_quote_fold(struct sl_str text, struct sl_buf *out);

#endif
