/* channels/email/email.c - configuration and life cycle. */
#include "channels/email/email_priv.h"

#include "base/crypto.h"
#include "base/log.h"
#include "base/metrics.h"
#include "proto/keys.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#define SECRET_MIN_BYTES 16
#define HORIZON_MS       (INT64_C(8) * 86400000) /* a mail server gives up after 5 days: RFC 5321 4.5.4.1 */
#define CLOSE_MS         2000 /* how long close waits for the store's word on what was handed in */

struct email *email_of(struct chan *ch)
{
    return chan_priv(ch);
}

void email_count(const char *what)
{
    char labels[64];
    (void)snprintf(labels, sizeof labels, "what=\"%s\"", what);
    sl_count(sl_counter("sluice_email_total", labels, "What happened with mails, by kind"), 1);
}

sl_err email_kv(struct email *em, enum chan_kv_op op, const char *name, struct sl_str field,
                struct sl_str value, int64_t ttl_ms, chan_kv_fn fn, void *arg)
{
    const struct chan_kv kv = {
        .op = op, .name = sl_str_c(name), .field = field, .value = value, .ttl_ms = ttl_ms};
    return chan_host_of(em->ch)->kv(em->ch, &kv, fn, arg);
}

void email_name_of(const char *prefix, struct sl_str s, char out[64])
{
    unsigned char hash[32];
    char hex[33];
    sl_sha256(s, hash);
    sl_hex(hex, hash, 16);
    (void)snprintf(out, 64, "%.20s-%s", prefix, hex);
}

/* ---- addresses as parts of keys ---- */

#define CODED "b64-" /* never the head of an address that stands for itself: those have an @ */

bool email_who_write(struct sl_str address, char out[MSG_ID_MAX_BYTES + 1])
{
    struct sl_buf b;
    sl_buf_init(&b, MSG_ID_MAX_BYTES);
    if (key_part_ok(address)) {
        sl_buf_str(&b, address);
    } else {
        sl_buf_c(&b, CODED);
        sl_b64url(&b, address);
    }
    const bool is_ok = !b.overflow && b.len > 0;
    if (is_ok)
        memcpy(out, b.ptr, b.len);
    out[is_ok ? b.len : 0] = '\0';
    sl_buf_fini(&b);
    return is_ok;
}

bool email_who_read(struct sl_str who, struct sl_buf *out)
{
    const size_t n = sizeof CODED - 1;
    if (memchr(who.ptr, '@', who.len) != NULL || !sl_str_starts(who, CODED))
        sl_buf_str(out, who);
    else if (sl_b64url_decode(out, sl_str_n(who.ptr + n, who.len - n)) != SL_OK)
        return false;
    return true;
}

/* ---- configuration ---- */

static char *copy_key(struct email *em, const struct sl_config *cfg, const char *name)
{
    char key[CHAN_KEY_MAX];
    chan_key(em->ch, name, key);
    return sl_strdup(sl_config_str(cfg, key));
}

static int64_t number_key(struct email *em, const struct sl_config *cfg, const char *name)
{
    char key[CHAN_KEY_MAX];
    chan_key(em->ch, name, key);
    return sl_config_int(cfg, key);
}

static void lower(char *s)
{
    for (; *s != '\0'; s++)
        *s = (char)tolower((unsigned char)*s);
}

static void email_free(struct email *em)
{
    char *const texts[] = {em->address,      em->domain,       em->from_name,   em->subject,   em->secret,
                           em->old_secret,   em->authserv_id,  em->lmtp_listen, em->lmtp_host, em->imap_url,
                           em->imap_mailbox, em->imap_keyword, em->imap_move,   em->smtp_url,  em->user,
                           em->password,     em->ca_file};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        free(texts[i]);
    if (em->answered != NULL) {
        struct sl_str key;
        void *value;
        for (size_t i = 0; sl_map_next(em->answered, &i, &key, &value);)
            free(value);
        sl_map_free(&em->answered);
    }
}

static void read_texts(struct email *em, const struct sl_config *cfg)
{
    char key[CHAN_KEY_MAX];
    em->address = copy_key(em, cfg, "address");
    em->domain = copy_key(em, cfg, "domain");
    em->from_name = copy_key(em, cfg, "from_name");
    em->subject = copy_key(em, cfg, "subject");
    em->secret = copy_key(em, cfg, "secret");
    em->old_secret = copy_key(em, cfg, "old_secret");
    em->authserv_id = copy_key(em, cfg, "authserv_id");
    em->lmtp_listen = copy_key(em, cfg, "lmtp_listen");
    em->lmtp_host = copy_key(em, cfg, "lmtp_host");
    em->imap_url = copy_key(em, cfg, "imap_url");
    em->imap_mailbox = copy_key(em, cfg, "imap_mailbox");
    em->imap_keyword = copy_key(em, cfg, "imap_keyword");
    em->imap_move = copy_key(em, cfg, "imap_move_to");
    em->smtp_url = copy_key(em, cfg, "smtp_url");
    em->user = copy_key(em, cfg, "user");
    em->password = copy_key(em, cfg, "password");
    em->ca_file = copy_key(em, cfg, "ca_file");
    chan_key(em->ch, "smtp_plain", key);
    em->smtp_plain = sl_config_bool(cfg, key);
    em->size_max = (size_t)number_key(em, cfg, "size_max");
    em->imap_poll_ms = number_key(em, cfg, "imap_poll");
    em->auto_answers = number_key(em, cfg, "auto_answers");
    lower(em->address);
    lower(em->domain);
}

static sl_err wrong(struct email *em, const char *name, const char *words, struct sl_fail *why)
{
    char key[CHAN_KEY_MAX];
    chan_key(em->ch, name, key);
    return sl_fail_set(why, SL_EINVAL, 0, "%s: %s", key, words);
}

static bool is_word(const char *s) /* stands in IMAP commands and URLs as it is */
{
    return s[strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")] == '\0';
}

static bool is_url(const char *url, const char *plain, const char *tls)
{
    const struct sl_str s = sl_str_c(url);
    return (sl_str_starts(s, plain) || sl_str_starts(s, tls)) && strpbrk(url, " \"<>?#@") == NULL;
}

static sl_err check(struct email *em, struct sl_fail *why)
{
    struct sl_str local, domain;
    email_address_split(sl_str_c(em->address), &local, &domain);
    if (strlen(em->secret) < SECRET_MIN_BYTES)
        return wrong(em, "secret",
                     "give 16 bytes or more, or secret_file: it signs addresses and message ids", why);
    if (!email_address_ok(sl_str_c(em->address)) || memchr(local.ptr, '+', local.len) != NULL)
        return wrong(em, "address", "give the address of this inbox, without a + in it: support@example.org",
                     why);
    if (em->lmtp_listen[0] == '\0' && em->imap_url[0] == '\0' && em->smtp_url[0] == '\0')
        return wrong(em, "lmtp_listen", "give this, or imap_url, or at least smtp_url", why);
    if (em->imap_url[0] != '\0' && !is_url(em->imap_url, "imap://", "imaps://"))
        return wrong(em, "imap_url", "imaps://host[:port], without user and path", why);
    if (em->smtp_url[0] != '\0' && !is_url(em->smtp_url, "smtp://", "smtps://"))
        return wrong(em, "smtp_url", "smtp://host:587 (STARTTLS) or smtps://host:465, without user and path",
                     why);
    if (!is_word(em->imap_mailbox) || !is_word(em->imap_keyword) || !is_word(em->imap_move) ||
        em->imap_mailbox[0] == '\0')
        return wrong(em, "imap_mailbox", "mailboxes and keywords here are letters, digits and ._- only", why);
    if (em->imap_url[0] != '\0' && em->user[0] == '\0')
        return wrong(em, "user", "a mailbox needs user and password", why);
    return SL_OK;
}

static void on_turn(void *arg);
static void on_end(void *arg);

static sl_err email_open(struct chan *ch, const struct sl_config *cfg, struct sl_fail *why)
{
    struct email *em = email_of(ch);
    struct sl_str local, domain;
    *em = (struct email){.ch = ch};
    read_texts(em, cfg);
    const sl_err err = check(em, why);
    if (err != SL_OK) {
        email_free(em);
        return err;
    }
    email_address_split(sl_str_c(em->address), &local, &domain);
    if (em->domain[0] == '\0') {
        free(em->domain);
        em->domain = sl_str_dup(domain);
    }
    if (em->lmtp_host[0] == '\0') {
        free(em->lmtp_host);
        em->lmtp_host = sl_str_dup(domain);
    }
    em->keys = (struct email_keys){.secret = sl_str_c(em->secret),
                                   .old_secret = sl_str_c(em->old_secret),
                                   .inbox = sl_str_c(chan_inbox(ch)),
                                   .address = sl_str_c(em->address),
                                   .domain = sl_str_c(em->domain)};
    em->answered = sl_map_new();
    sl_post_init(&em->turn, chan_loop(ch), on_turn, em);
    sl_timer_init(&em->end, chan_loop(ch), on_end, em);
    return SL_OK;
}

/* ---- life ---- */

static sl_err email_start(struct chan *ch)
{
    struct email *em = email_of(ch);
    struct sl_fail why = {.text = ""};
    em->http = sl_http_new(
        chan_loop(ch),
        &(struct sl_http_options){.name = "email", .max_calls = EMAIL_JOBS_MAX + 4, .ca_file = em->ca_file});
    if (em->imap_url[0] != '\0')
        email_imap_open(em);
    em->is_up_due = true;
    sl_post_now(&em->turn);
    if (em->lmtp_listen[0] != '\0' && email_lmtp_start(em, &why) != SL_OK) {
        sl_log(SL_ERROR, "email: no LMTP", SL_KV("inbox", chan_inbox(ch)), SL_KV_FAIL(&why));
        return why.code;
    }
    return SL_OK;
}

static void on_turn(void *arg)
{
    struct email *em = arg;
    if (em->is_up_due && !em->is_closing) {
        em->is_up_due = false;
        chan_host_of(em->ch)->state(em->ch, CHAN_UP);
    }
    if (em->is_closing) {
        email_jobs_end(em);
        email_finish(em);
    }
}

static void email_hold(struct chan *ch, bool is_holder)
{
    struct email *em = email_of(ch);
    if (is_holder && !em->is_holder)
        email_answers_forget(em);
    em->is_holder = is_holder;
    if (em->imap != NULL)
        email_imap_hold(em);
}

static void email_accepted(struct chan *ch, struct chan_ticket *t, sl_err result)
{
    (void)ch;
    email_intake_accepted(t, result);
}

static void email_drain(struct chan *ch, uint64_t deadline_mono_ms)
{
    struct email *em = email_of(ch);
    const uint64_t now = sl_loop_mono_ms(chan_loop(ch)),
                   left = deadline_mono_ms > now ? deadline_mono_ms - now : 0;
    em->is_draining = true;
    if (em->lmtp != NULL)
        email_lmtp_drain(em->lmtp);
    email_intake_drain(em);
    sl_timer_start(&em->end, left > 200 ? left - 200 : 0);
}

/* Drain: jobs that take too long are cut off. Close: the core's word on what was handed in does not come. */
static void on_end(void *arg)
{
    struct email *em = arg;
    if (!em->is_closing) {
        email_jobs_end(em);
        return;
    }
    email_intake_close(em);
    email_finish(em);
}

static void email_close(struct chan *ch)
{
    struct email *em = email_of(ch);
    em->is_closing = em->is_draining = true;
    sl_post_now(&em->turn); /* first: what ends below must not call closed() from here */
    email_imap_close(em);
    if (em->http != NULL)
        sl_http_close(&em->http);
    email_lmtp_close(&em->lmtp);
    if (email_intake_tickets(em) == 0)
        email_intake_close(em);
    else
        sl_timer_start(&em->end, CLOSE_MS);
}

void email_finish(struct email *em)
{
    struct chan *ch = em->ch;
    if (!em->is_closing || em->works > 0 || em->is_lmtp_open)
        return;
    if (!email_jobs_are_settled(em) || email_intake_tickets(em) > 0 || em->is_finished)
        return;
    if (em->turn.is_queued) /* not inside close(): on_turn comes */
        return;
    em->is_finished = true;
    email_intake_close(em);
    email_jobs_free(em);
    sl_timer_stop(&em->end);
    email_free(em);
    chan_host_of(ch)->closed(ch); /* em may be gone now */
}

/* clang-format off */ /* tables */
static const struct sl_key email_keys_table[] = {
    {"inboxes.*.secret", SL_CFG_SECRET, "", 0, 0, false, "signs the tokens in addresses and message ids; 16 bytes or more"},
    {"inboxes.*.old_secret", SL_CFG_SECRET, "", 0, 0, false, "the secret before: its tokens still count"},
    {"inboxes.*.address", SL_CFG_STR, "", 0, 0, false, "mail address of this inbox: support@example.org"},
    {"inboxes.*.from_name", SL_CFG_STR, "", 0, 0, false, "name beside the address in what is sent"},
    {"inboxes.*.domain", SL_CFG_STR, "", 0, 0, false, "of our message ids; empty: that of the address"},
    {"inboxes.*.subject", SL_CFG_STR, "Your message / 您的咨询", 0, 0, false, "of a mail that answers none"},
    {"inboxes.*.authserv_id", SL_CFG_STR, "", 0, 0, false, "name of our mail server in Authentication-Results; empty: nobody is verified"},
    {"inboxes.*.size_max", SL_CFG_BYTES, "25MiB", 1024, EMAIL_BYTES_MAX, false, "of one mail; keep your mail server's limit at or below it"},
    {"inboxes.*.lmtp_listen", SL_CFG_STR, "", 0, 0, false, "where your mail server delivers: 127.0.0.1:2400 or unix:/path"},
    {"inboxes.*.lmtp_host", SL_CFG_STR, "", 0, 0, false, "our name in the LMTP greeting; empty: the domain"},
    {"inboxes.*.imap_url", SL_CFG_STR, "", 0, 0, false, "a hosted mailbox to poll: imaps://imap.example.org"},
    {"inboxes.*.imap_mailbox", SL_CFG_STR, "INBOX", 0, 0, false, "its folder"},
    {"inboxes.*.imap_poll", SL_CFG_MS, "30s", 1000, 3600000, false, "pause between two looks"},
    {"inboxes.*.imap_keyword", SL_CFG_STR, "", 0, 0, false, "keyword set on a mail that is stored; empty: none"},
    {"inboxes.*.imap_move_to", SL_CFG_STR, "", 0, 0, false, "folder that stored mails are moved to; empty: they stay"},
    {"inboxes.*.smtp_url", SL_CFG_STR, "", 0, 0, false, "where mail is submitted: smtp://mail.example.org:587 (STARTTLS) or smtps://...:465"},
    {"inboxes.*.smtp_plain", SL_CFG_BOOL, "false", 0, 0, false, "allow submission without TLS to another machine"},
    {"inboxes.*.user", SL_CFG_STR, "", 0, 0, false, "login for imap_url and smtp_url; empty: none"},
    {"inboxes.*.password", SL_CFG_SECRET, "", 0, 0, false, "its password"},
    {"inboxes.*.ca_file", SL_CFG_STR, "", 0, 0, false, "PEM file of who signed those servers' certificates; empty: the system's"},
    {"inboxes.*.auto_answers", SL_CFG_INT, "10", 0, 1000, false, "automatic answers to one address within an hour; 0: no limit"},
    {.key = NULL}};
/* clang-format on */

#define KIND(name) (1u << MSG_##name)

const struct chan_ops email_ops = {
    .api = CHAN_API,
    .name = "email",
    .caps = CHAN_CAP_SEND | CHAN_CAP_STORE,
    .priv_size = sizeof(struct email),
    .limits = {.text_max = 0,
               .text_unit = CHAN_BYTES,
               .kinds = KIND(IMAGE) | KIND(AUDIO) | KIND(VIDEO) | KIND(FILE),
               .options_max = 0,
               .media_max_bytes = EMAIL_FILE_BYTES,
               .unknown = CHAN_AT_LEAST_ONCE, /* with the same message id: mail programs show one */
               .rate_per_s = 10,
               .window = 20},
    .horizon_ms = HORIZON_MS,
    .keys = email_keys_table,
    .open = email_open,
    .start = email_start,
    .hold = email_hold,
    .send = email_send,
    .accepted = email_accepted,
    .drain = email_drain,
    .close = email_close,
};
