/* channels/email/mail_html.h - the words of an HTML body, and the same without what it quotes.
 *
 * What     paragraphs, lists, links and tables become lines of text; scripts, styles and hidden elements are left out.
 *          What mail programs mark as quoted goes to the full text only.
 * Limits   gumbo works inside EMAIL_HTML_ARENA_BYTES and EMAIL_HTML_NODES_MAX nodes: a body that would need more (some thousand bytes can make an HTML5
 *          parser copy millions of nodes) is stripped of its tags by a plain loop instead. So is one that is nested deeper than
 *          EMAIL_HTML_DEPTH_MAX or has more than EMAIL_HTML_ATTRIBUTES_MAX attributes in one tag: gumbo's time grows with their
 *          square.
 * Threads  pure: any thread, no I/O.
 * Source   HTML Living Standard 13.2 through gumbo-parser 0.10. The marks of quotes: what Gmail (.gmail_quote), Thunderbird
 *          (.moz-cite-prefix, blockquote type=cite), Outlook (#divRplyFwdMsg), Foxmail and QQ Mail write; from memory,
 *          but for blockquote type=cite.
 */
#ifndef EMAIL_MAIL_HTML_H
#define EMAIL_MAIL_HTML_H

#include "base/str.h"

#define EMAIL_HTML_MAX_BYTES      (1u << 20) /* of one body; what is longer is cut there */
#define EMAIL_HTML_ARENA_BYTES    (32u << 20)
#define EMAIL_HTML_NODES_MAX      100000
#define EMAIL_HTML_DEPTH_MAX      512  /* elements in elements */
#define EMAIL_HTML_ATTRIBUTES_MAX 1000 /* of one element */

/* html is UTF-8. Appends to both; the marks of a quote cut `visible` only. */
void email_html_text(struct sl_str html, struct sl_buf *full, struct sl_buf *visible);

#endif
