/* channels/email/mail_auth.c - Authentication-Results. */
#include "channels/email/mail_auth.h"

#include <strings.h>

/* Comments go, quotes are opened; then "method=result prop=value ..." stand between semicolons. */
static void strip_comments(struct sl_str raw, struct sl_buf *out)
{
    unsigned depth = 0;
    bool is_quoted = false;
    for (size_t i = 0; i < raw.len; i++) {
        const char c = raw.ptr[i];
        if (c == '\\' && i + 1 < raw.len) {
            i++;
        } else if (is_quoted) {
            is_quoted = c != '"';
            if (is_quoted)
                sl_buf_char(out, c == ';' ? ' ' : c); /* a quoted semicolon separates nothing */
        } else if (depth > 0) {
            depth = c == '(' ? depth + 1 : c == ')' ? depth - 1 : depth;
        } else if (c == '(') {
            depth = 1;
        } else if (c == '"') {
            is_quoted = true;
        } else {
            sl_buf_char(out, c == '\r' || c == '\n' || c == '\t' ? ' ' : c);
        }
    }
}

static struct sl_str cut_at(struct sl_str *rest, char mark)
{
    const char *end = rest->len > 0 ? memchr(rest->ptr, mark, rest->len) : NULL;
    const size_t n = end != NULL ? (size_t)(end - rest->ptr) : rest->len;
    const struct sl_str piece = email_trim(sl_str_n(rest->ptr, n));
    const size_t used = end != NULL ? n + 1 : n;
    *rest = sl_str_n(rest->ptr + used, rest->len - used);
    return piece;
}

/* The value of "name=value" among blank-separated words, or empty. */
static struct sl_str property(struct sl_str words, const char *name)
{
    const size_t n = strlen(name);
    while (words.len > 0) {
        const struct sl_str w = cut_at(&words, ' ');
        if (w.len > n && w.ptr[n] == '=' && email_starts_nocase(w, name))
            return sl_str_n(w.ptr + n + 1, w.len - n - 1);
    }
    return SL_STR_NONE;
}

static bool is_below(struct sl_str domain, struct sl_str parent)
{
    return domain.len > parent.len && domain.ptr[domain.len - parent.len - 1] == '.' &&
           strncasecmp(domain.ptr + domain.len - parent.len, parent.ptr, parent.len) == 0;
}

static bool is_aligned(struct sl_str signer, struct sl_str domain)
{
    if (signer.len > 0 && signer.ptr[0] == '@')
        signer = sl_str_n(signer.ptr + 1, signer.len - 1);
    if (signer.len == 0 || domain.len == 0 || memchr(signer.ptr, '.', signer.len) == NULL ||
        memchr(domain.ptr, '.', domain.len) == NULL)
        return false;
    const bool is_same = signer.len == domain.len && strncasecmp(signer.ptr, domain.ptr, domain.len) == 0;
    return is_same || is_below(signer, domain) || is_below(domain, signer);
}

static bool vouches(struct sl_str result, struct sl_str domain)
{
    const struct sl_str dmarc = property(result, "dmarc"), dkim = property(result, "dkim");
    if (email_starts_nocase(result, "dmarc=")) {
        const struct sl_str of = property(result, "header.from");
        return email_eq_nocase(dmarc, "pass") && (of.len == 0 || is_aligned(of, domain));
    }
    return email_starts_nocase(result, "dkim=") && email_eq_nocase(dkim, "pass") &&
           is_aligned(property(result, "header.d"), domain);
}

/* RFC 8601 2.2: authserv-id [version] (";" results | "none"). */
static bool read_field(struct sl_str text, struct sl_str ours, struct sl_str domain, enum email_trust *out)
{
    struct sl_str id = cut_at(&text, ';'), first = id;
    first = cut_at(&id, ' ');
    if (first.len != ours.len || strncasecmp(first.ptr, ours.ptr, ours.len) != 0)
        return false;
    bool is_failed = false;
    while (text.len > 0) {
        const struct sl_str result = cut_at(&text, ';');
        is_failed = is_failed || email_eq_nocase(property(result, "dmarc"), "fail");
        if (vouches(result, domain))
            *out = EMAIL_VERIFIED;
    }
    if (is_failed) /* whatever else passed */
        *out = EMAIL_UNVERIFIED;
    return true;
}

enum email_trust email_trust_of(const struct email_headers *hs, struct sl_str ours, struct sl_str from)
{
    struct sl_str local, domain;
    enum email_trust trust = EMAIL_UNVERIFIED;
    email_address_split(from, &local, &domain);
    if (ours.len == 0 || domain.len == 0 || email_header_count(hs, "from") != 1)
        return trust;
    for (size_t i = 0; i < hs->count; i++) {
        struct sl_buf text;
        if (!email_eq_nocase(hs->field[i].name, "authentication-results"))
            continue;
        sl_buf_init(&text, EMAIL_HEADER_MAX_BYTES);
        strip_comments(hs->field[i].value, &text);
        const bool is_ours = read_field(sl_buf_view(&text), ours, domain, &trust);
        sl_buf_fini(&text);
        if (is_ours)
            return trust; /* the topmost of ours counts, whatever it says */
    }
    return trust;
}
