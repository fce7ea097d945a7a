/* channels/email/mail_report.c - delivery reports (RFC 3464) and flowed text (RFC 3676). */
#include "channels/email/mail_parse.h"

#define WORDS_MAX_BYTES 400

/* "rfc822; someone@example.org": what stands behind the type. */
static struct sl_str behind_type(struct sl_str v)
{
    const char *mark = v.len > 0 ? memchr(v.ptr, ';', v.len) : NULL;
    return email_trim(mark != NULL ? sl_str_n(mark + 1, v.len - (size_t)(mark - v.ptr) - 1) : v);
}

static enum email_action action_of(struct sl_str word)
{
    static const struct {
        const char *word;
        enum email_action action;
    } actions[] = {{"failed", EMAIL_FAILED},
                   {"delayed", EMAIL_DELAYED},
                   {"delivered", EMAIL_DELIVERED},
                   {"relayed", EMAIL_RELAYED},
                   {"expanded", EMAIL_EXPANDED}};
    size_t n = 0;
    while (n < word.len && strchr(" \t\r\n(", word.ptr[n]) == NULL)
        n++;
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++)
        if (email_eq_nocase(sl_str_n(word.ptr, n), actions[i].word))
            return actions[i].action;
    return EMAIL_ACTION_OTHER;
}

static struct sl_str cleaned(struct email_heap *h, struct sl_str raw, size_t max)
{
    struct sl_buf b;
    sl_buf_init(&b, EMAIL_HEADER_MAX_BYTES * 4);
    email_words_decode(&b, raw);
    const struct sl_str s = email_heap_copy(h, email_utf8_head(email_trim(sl_buf_view(&b)), max));
    sl_buf_fini(&b);
    return s;
}

static bool read_block(struct email_heap *h, const struct email_headers *hs, struct email_report *out)
{
    struct email_mailbox box;
    struct sl_str who = email_header(hs, "original-recipient");
    if (who.len == 0)
        who = email_header(hs, "final-recipient");
    const struct sl_str action = email_header(hs, "action");
    if (who.len == 0 || action.len == 0)
        return false;
    *out = (struct email_report){.action = action_of(action)};
    if (email_mailboxes(h, behind_type(who), &box, 1) == 1)
        out->recipient = box.address;
    out->status = cleaned(h, email_header(hs, "status"), 16);
    out->words = cleaned(h, behind_type(email_header(hs, "diagnostic-code")), WORDS_MAX_BYTES);
    return true;
}

size_t email_reports_read(struct email_heap *h, struct sl_str text, struct email_report *out, size_t max)
{
    size_t n = 0;
    while (text.len > 0 && n < max) {
        struct email_headers hs;
        if (email_headers_read(h, text, &hs, NULL) != SL_OK || hs.size_bytes == 0)
            break;
        if (read_block(h, &hs, &out[n])) /* the first block is about the message as a whole */
            n++;
        text = sl_str_n(text.ptr + hs.size_bytes, text.len - hs.size_bytes);
    }
    return n;
}

static size_t quote_depth(struct sl_str *line)
{
    size_t depth = 0;
    while (depth < line->len && line->ptr[depth] == '>')
        depth++;
    *line = sl_str_n(line->ptr + depth, line->len - depth);
    return depth;
}

void email_unflow(struct sl_str text, bool is_delsp, struct sl_buf *out)
{
    struct sl_str line;
    size_t depth_before = 0;
    bool is_open = false; /* the line before flows into this one */
    bool is_first = true;
    while (email_next_line(&text, &line)) {
        const size_t depth = quote_depth(&line);
        if (line.len > 0 && line.ptr[0] == ' ')
            line = sl_str_n(line.ptr + 1, line.len - 1); /* stuffed */
        const bool is_signature = sl_str_eq_c(line, "-- ");
        if (!is_first && (!is_open || depth != depth_before || is_signature)) {
            sl_buf_char(out, '\n');
            is_open = false;
        }
        for (size_t i = 0; !is_open && i < depth; i++)
            sl_buf_char(out, '>');
        if (!is_open && depth > 0)
            sl_buf_char(out, ' ');
        is_open = line.len > 0 && line.ptr[line.len - 1] == ' ' && !is_signature;
        sl_buf_str(out, is_open && is_delsp ? sl_str_n(line.ptr, line.len - 1) : line);
        depth_before = depth;
        is_first = false;
    }
}
