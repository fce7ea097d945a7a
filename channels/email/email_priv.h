/* channels/email/email_priv.h - what the files of this folder with I/O share. */
#ifndef EMAIL_EMAIL_PRIV_H
#define EMAIL_EMAIL_PRIV_H

#include "channels/email/email.h"
#include "channels/email/lmtp_dialogue.h"
#include "channels/email/mail_loop.h"
#include "channels/email/mail_thread.h"

#include "base/http_client.h"
#include "base/map.h"

#define EMAIL_INTAKES_MAX  8    /* mails being read or on their way to the store; each may have 25 MB */
#define EMAIL_JOBS_MAX     64   /* sends that are not settled; beyond it SL_EAGAIN */
#define EMAIL_CONNS_MAX    50   /* LMTP connections at once */
#define EMAIL_ANSWERED_MAX 4096 /* addresses whose automatic answers are counted */
#define EMAIL_SEND_FILES   5    /* attachments of one outgoing mail */
#define EMAIL_FILE_BYTES   (10 << 20)
#define EMAIL_MEMORY_MS                                                                                      \
    (INT64_C(90) * 86400000) /* how long foreign message ids and participants are remembered */
#define EMAIL_QUARANTINE_MS (INT64_C(30) * 86400000)

struct email_lmtp_server;
struct email_imap;
struct email_job;
struct email_intake;

struct email {
    struct chan *ch;
    struct email_keys keys; /* borrows from the strings below */
    char *address, *domain, *from_name, *subject, *secret, *old_secret, *authserv_id;
    char *lmtp_listen, *lmtp_host;
    char *imap_url, *imap_mailbox, *imap_keyword, *imap_move;
    char *smtp_url, *user, *password, *ca_file;
    bool smtp_plain;
    size_t size_max;
    int64_t imap_poll_ms, auto_answers;
    struct sl_http *http;
    struct email_lmtp_server *lmtp;
    struct email_imap *imap;
    struct email_intake *intakes;
    size_t intake_count, works; /* works: of the thread pool; close waits for them */
    uint64_t next_id;
    struct email_job *jobs;
    size_t job_count;
    struct sl_map *answered; /* address -> struct email_answered */
    struct sl_post turn;
    struct sl_timer end;
    bool is_up_due, is_draining, is_closing, is_holder, is_lmtp_open, is_finished, has_media_alarm;
};

struct email *email_of(struct chan *ch);
void email_count(const char *what);
sl_err email_kv(struct email *em, enum chan_kv_op op, const char *name, struct sl_str field,
                struct sl_str value, int64_t ttl_ms, chan_kv_fn fn, void *arg);
/* Call it when something that close waits for has ended. */
void email_finish(struct email *em);

/* The address of a person as a part of keys: itself when its characters allow it, else "b64-" and its base64url. false: too
 * long. And back. */
bool email_who_write(struct sl_str address, char out[MSG_ID_MAX_BYTES + 1]);
bool email_who_read(struct sl_str who, struct sl_buf *out);
/* "<prefix>-<32 hex digits of SHA-256>": a name for a shared value. */
void email_name_of(const char *prefix, struct sl_str s, char out[64]);

/* ---- intake: one mail from its bytes to the store ---- */

/* result: SL_OK it is durable (or put aside, durably); SL_EAGAIN: come again. */
typedef void (*email_intake_fn)(void *arg, uint64_t id, sl_err result);
struct email_envelope {
    bool is_known; /* LMTP told sender and recipients */
    struct sl_str sender;
    const struct sl_str *recipients;
    size_t recipient_count;
};
bool email_intake_has_room(const struct email *em);
/* Takes raw's memory. fn comes once, never before return, unless email_intake_forget(id) or the end comes first. */
uint64_t email_intake(struct email *em, struct sl_buf *raw, const struct email_envelope *env,
                      email_intake_fn fn, void *arg);
void email_intake_forget(struct email *em, uint64_t id);
void email_intake_accepted(struct chan_ticket *t, sl_err result);
void email_intake_drain(struct email *em); /* what was not handed in yet ends with SL_EAGAIN */
void email_intake_close(struct email *em); /* nobody is told; memory goes when the thread pool let go */
size_t email_intake_tickets(const struct email *em);

/* ---- LMTP server ---- */

struct email_conn;
struct email_transport { /* what a connection stands on: a socket, or a test */
    void (*write)(void *arg, struct sl_str bytes);
    void (*close)(void *arg);
    void *arg;
};
/* No listener on a virtual loop: tests open connections by hand. */
sl_err email_lmtp_start(struct email *em, struct sl_fail *why);
void email_lmtp_drain(struct email_lmtp_server *s);
void email_lmtp_close(struct email_lmtp_server **s);
/* NULL: no room. The peer's bytes by _bytes, its end by _gone (after which nothing is called). */
struct email_conn *email_lmtp_accept(struct email_lmtp_server *s, const struct email_transport *t);
void email_conn_bytes(struct email_conn *c, struct sl_str bytes);
void email_conn_gone(struct email_conn *c);
bool email_conn_wants_bytes(const struct email_conn *c); /* false: a mail of it waits for the store */

/* ---- IMAP ---- */

void email_imap_open(struct email *em);
void email_imap_hold(struct email *em);
void email_imap_close(struct email *em);

/* ---- sending ---- */

void email_answers_forget(struct email *em); /* we hold the lane anew: another has counted meanwhile */

sl_err email_send(struct chan *ch, const struct chan_send *s, struct chan_job *job);
void email_jobs_end(struct email *em); /* settles what has not begun, cancels what has */
bool email_jobs_are_settled(const struct email *em);
void email_jobs_free(struct email *em);

#endif
