/* channels/email/mail_header.h - header fields, mailboxes and message ids.
 *
 * What     a block of fields as they stand, folded; what a field means is asked of it. Everything borrows from the bytes
 *          or lives in the mail's heap.
 * Threads  pure: any thread, no I/O.
 * Source   RFC 5322 2.2 (fields), 3.4 (mailboxes), 3.6.4 (message ids); RFC 6532 (UTF-8 in them); obsolete forms of 4.4
 *          are read as far as they name a mailbox. Dates: 3.3 and 4.3.
 */
#ifndef EMAIL_MAIL_HEADER_H
#define EMAIL_MAIL_HEADER_H

#include "channels/email/mail_text.h"

#define EMAIL_HEADER_MAX_BYTES  65536
#define EMAIL_HEADER_FIELDS_MAX 1000
#define EMAIL_ADDRESS_MAX_BYTES 254 /* RFC 5321 4.5.3.1.3: a path has 256 with its brackets */
#define EMAIL_LOCAL_MAX_BYTES   64  /* RFC 5321 4.5.3.1.1 */
#define EMAIL_ID_MAX_BYTES      250 /* a message id that is longer is not kept */

struct email_field {
    struct sl_str name, value; /* value: raw, folded, without the last line end */
};
struct email_headers {
    struct email_field *field;
    size_t count, size_bytes; /* of the block, its blank line included */
};

/* Read the block at the head of raw. ETOOBIG over the limits above; a line that is no field is left out. */
sl_err email_headers_read(struct email_heap *h, struct sl_str raw, struct email_headers *out,
                          struct sl_fail *why) SL_MUST_CHECK;
/* The first of this name, or empty. */
struct sl_str email_header(const struct email_headers *hs, const char *name);
size_t email_header_count(const struct email_headers *hs, const char *name);
/* The same, decoded (email_words_decode). */
struct sl_str email_header_text(struct email_heap *h, const struct email_headers *hs, const char *name);

struct email_mailbox {
    struct sl_str address; /* ASCII letters in lower case */
    struct sl_str name;    /* decoded; may be empty */
};
/* Mailboxes of a raw field; groups are opened. Returns how many were written. */
size_t email_mailboxes(struct email_heap *h, struct sl_str raw, struct email_mailbox *out, size_t max);
/* One address with one @, no blanks, no control characters, lengths in their limits. */
bool email_address_ok(struct sl_str address);
void email_address_split(struct sl_str address, struct sl_str *local,
                         struct sl_str *domain); /* at the last @ */

/* "<a@b>" tokens of a raw field, brackets kept. */
size_t email_ids(struct email_heap *h, struct sl_str raw, struct sl_str *out, size_t max);
/* 0: not a date. */
int64_t email_date_unix_ms(struct sl_str raw);

#endif
