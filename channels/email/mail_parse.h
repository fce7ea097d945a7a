/* channels/email/mail_parse.h - one mail, read: who, what it says, what hangs on it, what kind of mail it is.
 *
 * What     gmime finds the parts; text, charsets, headers and HTML are read by the files beside this one. A mail over a
 *          limit is refused as a whole, so that it can be put aside with its reason.
 * Owner    the caller frees the mail; every slice in it points into the mail's own memory.
 * Threads  pure: any thread, no I/O, no clock. Made to be run off the loop: a mail of 25 MB takes a while.
 * Source   RFC 5322, RFC 2045 to 2047, RFC 2231; RFC 3676 (flowed); RFC 3464 and 6522 (delivery reports); RFC 8098 (read
 *          reports). Limits: the nesting is what real mails stay far below; gmime's parser goes down by recursion.
 */
#ifndef EMAIL_MAIL_PARSE_H
#define EMAIL_MAIL_PARSE_H

#include "channels/email/mail_header.h"

#define EMAIL_DEPTH_MAX      20
#define EMAIL_PARTS_MAX      200
#define EMAIL_FILES_MAX      20
#define EMAIL_MAILBOXES_MAX  50
#define EMAIL_REFERENCES_MAX 50
#define EMAIL_REPORTS_MAX    20
#define EMAIL_TEXT_MAX_BYTES                                                                                 \
    (1u << 20)                     /* of the full text; what is longer is cut at the end of a character */
#define EMAIL_BYTES_MAX (26214400) /* 25 MiB */

enum email_kind {
    EMAIL_LETTER,
    EMAIL_DELIVERY_REPORT, /* multipart/report; report-type=delivery-status */
    EMAIL_READ_REPORT,     /* ...; report-type=disposition-notification */
};
enum email_file_kind { EMAIL_FILE, EMAIL_INLINE, EMAIL_CALENDAR, EMAIL_FORWARDED };

struct email_file {
    enum email_file_kind kind;
    struct sl_str bytes, type,
        name; /* type in lower case; name without path and control characters, never empty */
};
enum email_action {
    EMAIL_ACTION_OTHER,
    EMAIL_FAILED,
    EMAIL_DELAYED,
    EMAIL_DELIVERED,
    EMAIL_RELAYED,
    EMAIL_EXPANDED
};
struct email_report {                       /* about one recipient */
    struct sl_str recipient, status, words; /* "5.1.1"; the diagnostic code's text */
    enum email_action action;
};

struct email_mail {
    struct email_heap *heap;
    struct sl_str raw; /* all of it */
    struct email_headers headers;
    enum email_kind kind;
    struct email_mailbox from; /* the first of From */
    struct email_mailbox to[EMAIL_MAILBOXES_MAX];
    size_t to_count;        /* To, Cc, Delivered-To, X-Original-To */
    size_t to_header_count; /* of them: from To alone */
    struct sl_str reply_to; /* address of Reply-To, or empty */
    struct sl_str subject, message_id, in_reply_to;
    struct sl_str
        references[EMAIL_REFERENCES_MAX]; /* oldest first; of a longer chain the first and the newest */
    size_t reference_count;
    int64_t date_unix_ms;  /* 0: none, or nonsense */
    struct sl_str text;    /* all words */
    struct sl_str visible; /* without quotes and signature */
    struct sl_str html;    /* the HTML body as UTF-8, or empty */
    bool is_text_cut;
    struct email_file files[EMAIL_FILES_MAX];
    size_t file_count, files_left_out;
    struct email_report reports[EMAIL_REPORTS_MAX];
    size_t report_count;
    struct sl_str reported_id; /* message id of the mail that a report is about */
    unsigned char body_sha256[32];
};

/* raw: the whole mail. EINVAL: no header, no sender; ETOOBIG: over a limit. *why says which. */
sl_err email_parse(struct sl_str raw, struct email_mail **out, struct sl_fail *why) SL_MUST_CHECK;
void email_mail_free(struct email_mail **m);

/* The per-recipient blocks of a message/delivery-status part; pure text. Returns how many. */
size_t email_reports_read(struct email_heap *h, struct sl_str text, struct email_report *out, size_t max);
/* RFC 3676: flowed lines joined, stuffed blanks taken off. */
void email_unflow(struct sl_str text, bool is_delsp, struct sl_buf *out);

#endif
