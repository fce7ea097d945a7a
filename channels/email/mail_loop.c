/* channels/email/mail_loop.c - automatic mails. */
#include "channels/email/mail_loop.h"

const char *email_auto_name(enum email_auto a)
{
    switch (a) {
    case EMAIL_BY_PERSON:
        return "";
    case EMAIL_ASKS_NO_ANSWER:
        return "asks-no-answer";
    case EMAIL_AUTO_NULL_PATH:
        return "null-path";
    case EMAIL_AUTO_SUBMITTED:
        return "auto-submitted";
    case EMAIL_AUTO_PRECEDENCE:
        return "precedence";
    case EMAIL_AUTO_LIST:
        return "list";
    case EMAIL_AUTO_REPORT:
        return "report";
    case EMAIL_AUTO_MARKED:
        return "autoreply";
    case EMAIL_AUTO_SENDER:
        return "sender";
    case EMAIL_AUTO_OURS:
        return "ours";
    }
    return "";
}

/* The first word of a value: what stands before a blank, a comment or a parameter. */
static struct sl_str first_word(struct sl_str s)
{
    s = email_trim(s);
    size_t n = 0;
    while (n < s.len && strchr(" \t\r\n;(", s.ptr[n]) == NULL)
        n++;
    return sl_str_n(s.ptr, n);
}

static bool has_any(const struct email_headers *hs, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (email_header_count(hs, names[i]) > 0)
            return true;
    return false;
}
#define HAS_ANY(hs, ...)                                                                                     \
    has_any((hs), (const char *const[]){__VA_ARGS__},                                                        \
            sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

static bool is_robot(struct sl_str from)
{
    static const char *const names[] = {"mailer-daemon", "postmaster",   "no-reply",    "noreply", "no_reply",
                                        "donotreply",    "do-not-reply", "mail-daemon", "bounce",  "bounces"};
    struct sl_str local, domain;
    email_address_split(from, &local, &domain);
    const char *plus = local.len > 0 ? memchr(local.ptr, '+', local.len) : NULL;
    if (plus != NULL)
        local.len = (size_t)(plus - local.ptr);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (email_eq_nocase(local, names[i]))
            return true;
    return false;
}

static bool is_ours(const struct email_headers *hs, struct sl_str from, struct sl_str ours,
                    struct sl_str our_domain)
{
    const struct sl_str id = email_header(hs, "message-id");
    if (ours.len > 0 && sl_str_eq(from, ours))
        return true;
    return sl_str_starts(id, "<sluice.") && our_domain.len > 0 && id.len > our_domain.len + 2 &&
           id.ptr[id.len - our_domain.len - 2] == '@' &&
           sl_str_eq(sl_str_n(id.ptr + id.len - our_domain.len - 1, our_domain.len), our_domain);
}

static bool has_bulk_precedence(const struct email_headers *hs)
{
    const struct sl_str p = first_word(email_header(hs, "precedence"));
    return email_eq_nocase(p, "bulk") || email_eq_nocase(p, "list") || email_eq_nocase(p, "junk") ||
           email_eq_nocase(p, "auto_reply");
}

enum email_auto email_auto_of(const struct email_headers *hs, struct sl_str from,
                              const struct sl_str *return_path, struct sl_str ours, struct sl_str our_domain)
{
    const struct sl_str submitted = first_word(email_header(hs, "auto-submitted"));
    const struct sl_str path = email_header(hs, "return-path");
    if (is_ours(hs, from, ours, our_domain))
        return EMAIL_AUTO_OURS;
    if (email_has_nocase(email_header(hs, "content-type"), "multipart/report") ||
        HAS_ANY(hs, "x-failed-recipients"))
        return EMAIL_AUTO_REPORT;
    if ((return_path != NULL && return_path->len == 0) || sl_str_eq_c(path, "<>"))
        return EMAIL_AUTO_NULL_PATH;
    if (submitted.len > 0 && !email_eq_nocase(submitted, "no"))
        return EMAIL_AUTO_SUBMITTED;
    if (HAS_ANY(hs, "list-id", "list-unsubscribe", "list-post", "list-help", "list-owner", "list-archive",
                "list-subscribe"))
        return EMAIL_AUTO_LIST;
    if (has_bulk_precedence(hs))
        return EMAIL_AUTO_PRECEDENCE;
    if (HAS_ANY(hs, "x-autoreply", "x-autorespond", "x-autoresponder"))
        return EMAIL_AUTO_MARKED;
    if (is_robot(from))
        return EMAIL_AUTO_SENDER;
    return HAS_ANY(hs, "x-auto-response-suppress") ? EMAIL_ASKS_NO_ANSWER : EMAIL_BY_PERSON;
}
