/* channels/email/mail_text.h - the text of mails: one mail's memory, charsets to UTF-8, words of a header.
 *
 * What     everything that is read from a mail lives in one heap that goes at once. All text that leaves this file
 *          is valid UTF-8 without NUL: what cannot be read becomes U+FFFD, as the WHATWG Encoding Standard does it.
 * Threads  pure: any thread, no I/O.
 * Source   RFC 2047 (encoded words), RFC 5322 2.2.3 (folding), RFC 1843 (HZ). gb2312 and its names are read as GB18030:
 *          senders label GBK bytes gb2312 (tests/vectors/email, gb2312_label_gbk_bytes).
 */
#ifndef EMAIL_MAIL_TEXT_H
#define EMAIL_MAIL_TEXT_H

#include "base/str.h"

/* ---- one mail's memory ---- */

struct email_heap; /* opaque blocks; the bytes taken from it stay until it is freed */
struct email_heap *email_heap_new(void);
void email_heap_free(struct email_heap **h);
void *email_heap_get(struct email_heap *h, size_t n);                 /* zeroed, aligned for anything */
struct sl_str email_heap_copy(struct email_heap *h, struct sl_str s); /* NUL-terminated behind its length */

/* ---- charsets ---- */

/* Append in as UTF-8 without NUL; each malformed sequence becomes one U+FFFD. */
void email_utf8_clean(struct sl_buf *out, struct sl_str in);
/* Append in, whose charset is named so (empty or unknown: UTF-8, else GB18030, else windows-1252, whichever fits). */
void email_charset_decode(struct sl_buf *out, struct sl_str in, struct sl_str charset);

/* ---- headers ---- */

/* A raw header value: unfolded, encoded words decoded (a character may be split across two), 8-bit bytes guessed,
 * control characters to blanks, outer blanks removed. */
void email_words_decode(struct sl_buf *out, struct sl_str raw);
/* Append text as a header value that may be folded: printable ASCII as it is, anything else as encoded words of at
 * most 75 characters. column: what already stands on the line. Never writes CR or LF but in a fold. */
void email_words_encode(struct sl_buf *out, struct sl_str text, size_t column);

/* ---- small things ---- */

struct sl_str email_trim(struct sl_str s);
bool email_eq_nocase(struct sl_str a, const char *b); /* ASCII */
bool email_starts_nocase(struct sl_str s, const char *prefix);
bool email_has_nocase(struct sl_str s, const char *part);
/* Cut the next line off *rest, without its LF or CRLF; false at the end. */
bool email_next_line(struct sl_str *rest, struct sl_str *line);
/* The longest head of s with at most max bytes that does not end inside a character. */
struct sl_str email_utf8_head(struct sl_str s, size_t max);
void email_base64_decode(struct sl_buf *out, struct sl_str in); /* lenient: skips what is no base64 */
void email_base64_encode(struct sl_buf *out, struct sl_str in); /* without line ends */

#endif
