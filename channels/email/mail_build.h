/* channels/email/mail_build.h - a mail as it goes out: RFC 5322 and MIME, CRLF, ASCII on the wire.
 *
 * What     header with encoded words, text and HTML as alternatives, attachments. A value with CR, LF or NUL in it is
 *          refused, never cleaned: it is somebody trying to write a header of his own.
 * Threads  pure: any thread, no I/O, no clock, no random numbers: the same draft gives the same bytes.
 * Source   RFC 5322 2.1.1 (lines), 3.6 (fields); RFC 2045 6 (encodings); RFC 2046 5.1; RFC 2047; RFC 2231 (file names); RFC
 *          3834 5 (Auto-Submitted).
 */
#ifndef EMAIL_MAIL_BUILD_H
#define EMAIL_MAIL_BUILD_H

#include "channels/email/mail_header.h"

#define EMAIL_CHAIN_MAX 20 /* references in a mail of ours: the first, and the newest */

struct email_draft_file {
    struct sl_str name, type, bytes;
};
struct email_draft {               /* all borrowed */
    struct sl_str from, from_name; /* address; name may be empty */
    struct sl_str to;
    struct sl_str reply_to; /* may be empty */
    struct sl_str subject, text;
    struct sl_str message_id, in_reply_to; /* with brackets; in_reply_to may be empty */
    const struct sl_str *references;       /* oldest first */
    size_t reference_count;
    int64_t date_unix_ms;
    bool is_auto; /* a program wrote it: Auto-Submitted, and a request not to answer by program */
    const struct email_draft_file *files;
    size_t file_count;
};

/* EINVAL: an address, an id or a value that cannot stand in a header; ETOOBIG: out is full. */
sl_err email_build(const struct email_draft *d, struct sl_buf *out, struct sl_fail *why) SL_MUST_CHECK;
/* "Re: " once, whatever stood there ("Re: RE: 回复: x" gives "Re: x"). */
void email_reply_subject(struct sl_str subject, struct sl_buf *out);

#endif
