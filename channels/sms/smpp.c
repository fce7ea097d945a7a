/* channels/sms/smpp.c - life of an account: configuration, sessions, up and down, drain and close. */
#include "channels/sms/smpp_priv.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

#define PORT_PLAIN 2775 /* IANA: smpp */
#define PORT_TLS   3550 /* IANA: ssmpp */

static void on_turn(void *arg);
static void on_drain_deadline(void *arg);
static const struct smpp_session_events session_events;

/* ---- configuration ---- */

static const char *text_of(struct smpp *sm, const struct sl_config *cfg, const char *name)
{
    char key[CHAN_KEY_MAX];
    chan_key(sm->ch, name, key);
    return sl_config_str(cfg, key);
}

static int64_t number_of(struct smpp *sm, const struct sl_config *cfg, const char *name)
{
    char key[CHAN_KEY_MAX];
    chan_key(sm->ch, name, key);
    return sl_config_int(cfg, key);
}

static bool flag_of(struct smpp *sm, const struct sl_config *cfg, const char *name)
{
    char key[CHAN_KEY_MAX];
    chan_key(sm->ch, name, key);
    return sl_config_bool(cfg, key);
}

/* A text kept for the account's life, at most max bytes. */
static sl_err keep(struct smpp *sm, const struct sl_config *cfg, const char *name, size_t max,
                   struct sl_str *out, struct sl_fail *why)
{
    const char *text = text_of(sm, cfg, name);
    if (strlen(text) > max)
        return sl_fail_set(why, SL_EINVAL, 0, "inboxes.%s.%s: at most %zu bytes", sm->inbox, name, max);
    sl_assert(sm->text_count < sizeof sm->texts / sizeof sm->texts[0]);
    char *copy = sm->texts[sm->text_count++] = sl_strdup(text);
    *out = sl_str_c(copy);
    return SL_OK;
}

/* Which of the words is it? */
static sl_err choose(struct smpp *sm, const struct sl_config *cfg, const char *name, const char *const *words,
                     unsigned *out, struct sl_fail *why)
{
    const char *given = text_of(sm, cfg, name);
    char all[80] = "";
    size_t len = 0;
    for (unsigned i = 0; words[i] != NULL; i++) {
        if (strcmp(given, words[i]) == 0) {
            *out = i;
            return SL_OK;
        }
        len += (size_t)snprintf(all + len, sizeof all - len, "%s%s", i > 0 ? ", " : "", words[i]);
    }
    return sl_fail_set(why, SL_EINVAL, 0, "inboxes.%s.%s: \"%.40s\" is none of %s", sm->inbox, name, given,
                       all);
}

static sl_err read_account(struct smpp *sm, const struct sl_config *cfg, struct sl_fail *why)
{
    struct smpp_account *a = &sm->account;
    struct sl_str host, ca;
    sl_err err = keep(sm, cfg, "host", 255, &host, why);
    err = err != SL_OK ? err : keep(sm, cfg, "system_id", 15, &a->system_id, why);
    err = err != SL_OK ? err : keep(sm, cfg, "password", 8, &a->password, why);
    err = err != SL_OK ? err : keep(sm, cfg, "system_type", 12, &a->system_type, why);
    err = err != SL_OK ? err : keep(sm, cfg, "address_range", 40, &a->address_range, why);
    err = err != SL_OK ? err : keep(sm, cfg, "tls_ca_file", 4096, &ca, why);
    if (err != SL_OK)
        return err;
    if (host.len == 0 || a->system_id.len == 0)
        return sl_fail_set(why, SL_EINVAL, 0, "inboxes.%s: an smpp inbox needs host and system_id",
                           sm->inbox);
    a->target = (struct smpp_target){.host = host.ptr,
                                     .port = (unsigned)number_of(sm, cfg, "port"),
                                     .is_tls = flag_of(sm, cfg, "tls"),
                                     .is_verified = flag_of(sm, cfg, "tls_verify"),
                                     .ca_file = ca.ptr};
    if (a->target.port == 0)
        a->target.port = a->target.is_tls ? PORT_TLS : PORT_PLAIN;
    a->window = (unsigned)number_of(sm, cfg, "window");
    a->enquire_ms = (uint64_t)number_of(sm, cfg, "enquire");
    a->response_ms = (uint64_t)number_of(sm, cfg, "response_timeout");
    a->connect_ms = (uint64_t)number_of(sm, cfg, "connect_timeout");
    a->reconnect_max_ms = (uint64_t)number_of(sm, cfg, "reconnect_max");
    return SL_OK;
}

/* SMPP 3.4 7.1.1: relative time YYMMDDhhmmss000R */
static void write_validity(struct smpp *sm, int64_t ms)
{
    int64_t s = ms / 1000;
    if (s > 0)
        (void)snprintf(sm->validity, sizeof sm->validity, "0000%02d%02d%02d%02d000R", (int)(s / 86400 % 100),
                       (int)(s / 3600 % 24), (int)(s / 60 % 60), (int)(s % 60));
}

static sl_err read_sending(struct smpp *sm, const struct sl_config *cfg, struct sl_fail *why)
{
    static const char *const alphabets[] = {"auto", "gsm", "ucs2", "latin1", NULL};
    static const char *const zeros[] = {"gsm", "latin1", NULL};
    static const char *const longs[] = {"udh8", "udh16", "sar", "payload", NULL};
    static const char *const receipts[] = {"final", "failures", "none", NULL};
    static const char *const ids[] = {"same", "hex-dec", "dec-hex", NULL};
    static const enum sms_alphabet alphabet_of[] = {SMS_GSM7, SMS_GSM7, SMS_UCS2, SMS_LATIN1};
    static const enum smpp_joint joint_of[] = {SMPP_UDH8, SMPP_UDH16, SMPP_SAR, SMPP_WHOLE};
    static const uint8_t registered_of[] = {1, 2, 0}; /* 5.2.17 */
    unsigned alphabet = 0, zero = 0, joint = 0, receipt = 0, id = 0;
    sl_err err = keep(sm, cfg, "source", 20, &sm->source.number, why);
    err = err != SL_OK ? err : keep(sm, cfg, "service_type", 5, &sm->service_type, why);
    err = err != SL_OK ? err : choose(sm, cfg, "alphabet", alphabets, &alphabet, why);
    err = err != SL_OK ? err : choose(sm, cfg, "default_alphabet", zeros, &zero, why);
    err = err != SL_OK ? err : choose(sm, cfg, "long_messages", longs, &joint, why);
    err = err != SL_OK ? err : choose(sm, cfg, "receipts", receipts, &receipt, why);
    err = err != SL_OK ? err : choose(sm, cfg, "message_ids", ids, &id, why);
    if (err != SL_OK)
        return err;
    sm->is_alphabet_fixed = alphabet > 0;
    sm->alphabet = alphabet_of[alphabet];
    sm->zero = zero == 0 ? SMS_GSM7 : SMS_LATIN1;
    sm->long_by = joint_of[joint];
    sm->is_payload = joint == 3;
    sm->registered = registered_of[receipt];
    sm->ids = (enum smpp_ids)id;
    sm->source.ton = (uint8_t)number_of(sm, cfg, "source_ton");
    sm->source.npi = (uint8_t)number_of(sm, cfg, "source_npi");
    sm->destination.ton = (uint8_t)number_of(sm, cfg, "dest_ton");
    sm->destination.npi = (uint8_t)number_of(sm, cfg, "dest_npi");
    sm->text_max = (size_t)number_of(sm, cfg, "text_max");
    write_validity(sm, number_of(sm, cfg, "validity"));
    return SL_OK;
}

static struct sl_metric *gauge_of(const struct smpp *sm, const char *name, const char *help)
{
    char labels[MSG_ID_MAX_BYTES + 16];
    (void)snprintf(labels, sizeof labels, "inbox=\"%s\"", sm->inbox);
    return sl_gauge(name, labels, help);
}

static void free_texts(struct smpp *sm)
{
    for (size_t i = 0; i < sm->text_count; i++)
        free(sm->texts[i]);
    sm->text_count = 0;
}

static void make_sessions(struct smpp *sm, bool is_pair, size_t count)
{
    struct sl_loop *l = chan_loop(sm->ch);
    for (size_t i = 0; i < count; i++) {
        enum smpp_bind first = is_pair ? SMPP_TRANSMITTER : SMPP_TRANSCEIVER;
        sm->session[sm->sessions++] = smpp_session_new(l, &sm->account, first, &session_events, sm);
        if (is_pair)
            sm->session[sm->sessions++] =
                smpp_session_new(l, &sm->account, SMPP_RECEIVER, &session_events, sm);
    }
    sm->allowed = sm->allowed_max = count * sm->account.window;
}

static sl_err smpp_open(struct chan *ch, const struct sl_config *cfg, struct sl_fail *why)
{
    static const char *const binds[] = {"transceiver", "pair", NULL};
    struct smpp *sm = chan_priv(ch);
    unsigned bind = 0;
    sm->ch = ch;
    sm->inbox = chan_inbox(ch);
    sl_err err = read_account(sm, cfg, why);
    err = err != SL_OK ? err : read_sending(sm, cfg, why);
    err = err != SL_OK ? err : choose(sm, cfg, "bind", binds, &bind, why);
    if (err != SL_OK) {
        free_texts(sm);
        return err;
    }
    sl_post_init(&sm->turn, chan_loop(ch), on_turn, sm);
    sl_timer_init(&sm->deadline, chan_loop(ch), on_drain_deadline, sm);
    sm->gauge_bound = gauge_of(sm, "sluice_smpp_bound", "Sessions that are bound");
    sm->gauge_jobs =
        gauge_of(sm, "sluice_smpp_sending", "Messages given to the message centre, not answered");
    sm->gauge_in = gauge_of(sm, "sluice_smpp_inbound", "Messages and receipts on their way to the store");
    sm->clear_seed = sl_loop_random(chan_loop(ch));
    smpp_in_open(sm);
    make_sessions(sm, bind == 1, (size_t)number_of(sm, cfg, "binds"));
    sl_gauge_max(sm->gauge_bound, (int64_t)sm->sessions);
    sl_gauge_max(sm->gauge_jobs, (int64_t)sm->allowed_max);
    sl_gauge_max(sm->gauge_in, SMPP_INBOUND_MAX);
    return SL_OK;
}

static void smpp_limits(const struct chan *ch, struct chan_limits *out)
{
    const struct smpp *sm = chan_priv((struct chan *)(uintptr_t)ch);
    *out = smpp_ops.limits;
    out->text_max = sm->text_max;
    out->window = (unsigned)sm->allowed_max;
}

/* ---- up and down ---- */

static sl_err smpp_start(struct chan *ch)
{
    struct smpp *sm = chan_priv(ch);
    for (size_t i = 0; i < sm->sessions; i++)
        smpp_session_start(sm->session[i]);
    return SL_OK;
}

static void tell_state(struct smpp *sm)
{
    bool is_up = false;
    for (size_t i = 0; i < sm->sessions; i++)
        is_up = is_up || (sm->session[i] != NULL && smpp_session_can_submit(sm->session[i]));
    if (is_up == sm->is_up || sm->is_closing)
        return;
    sm->is_up = is_up;
    chan_host_of(sm->ch)->state(sm->ch, is_up ? CHAN_UP : CHAN_DOWN);
}

static void on_bound(void *arg, struct smpp_session *s)
{
    struct smpp *sm = arg;
    (void)s;
    sl_gauge_set(sm->gauge_bound, (int64_t)++sm->bound);
    sl_log(SL_INFO, "smpp: bound", SL_KV("inbox", sm->inbox), SL_KV("host", sm->account.target.host),
           SL_KV_I("sessions", sm->bound));
    chan_host_of(sm->ch)->alarm(sm->ch, "bind", false, "");
    tell_state(sm);
}

static void on_unbound(void *arg, struct smpp_session *s, const char *why)
{
    struct smpp *sm = arg;
    size_t bound = 0;
    for (size_t i = 0; i < sm->sessions; i++)
        bound += sm->session[i] != NULL && smpp_session_is_bound(sm->session[i]); /* NULL: closed just now */
    sm->bound = bound;
    sl_gauge_set(sm->gauge_bound, (int64_t)bound);
    if (!sm->is_closing)
        sl_log(SL_WARN, "smpp: no session", SL_KV("inbox", sm->inbox), SL_KV("host", sm->account.target.host),
               SL_KV("why", why), SL_KV_I("sessions", bound));
    smpp_out_unbound(sm, s, why);
    tell_state(sm);
}

static void on_bind_refused(void *arg, uint32_t status)
{
    struct smpp *sm = arg;
    char words[200];
    (void)snprintf(
        words, sizeof words,
        "inboxes.%s: %s:%u refused the bind with status 0x%02x; check system_id, password, system_type "
        "and how many sessions the account may have",
        sm->inbox, sm->account.target.host, sm->account.target.port, status);
    chan_host_of(sm->ch)->alarm(sm->ch, "bind", true, words);
}

static void on_answered(void *arg, void *ticket, const struct smpp_pdu *response)
{
    smpp_out_answered(arg, ticket, response);
}

static void on_lost(void *arg, void *ticket, bool was_written, const char *why)
{
    smpp_out_lost(arg, ticket, was_written, why);
}

static void on_request(void *arg, struct smpp_session *s, const struct smpp_pdu *p)
{
    smpp_in_request(arg, s, p);
}

static void on_room(void *arg, struct smpp_session *s)
{
    smpp_out_room(arg, s);
}

static void on_stopped(void *arg, struct smpp_session *s)
{
    struct smpp *sm = arg;
    (void)s;
    sm->stopped++;
    smpp_turn_soon(sm);
}

static const struct smpp_session_events session_events = {
    .bound = on_bound,
    .unbound = on_unbound,
    .bind_refused = on_bind_refused,
    .answered = on_answered,
    .lost = on_lost,
    .request = on_request,
    .room = on_room,
    .stopped = on_stopped,
};

/* ---- the end ---- */

void smpp_turn_soon(struct smpp *sm)
{
    sl_post_now(&sm->turn);
}

static void close_sessions(struct smpp *sm)
{
    for (size_t i = 0; i < sm->sessions; i++)
        smpp_session_close(&sm->session[i]); /* what they had in flight is settled as unknown here */
    sm->sessions = 0;
}

/* Draining: when all is settled, unbind. Closing: the core's tickets must have come back. */
static void on_turn(void *arg)
{
    struct smpp *sm = arg;
    if (sm->is_closing)
        close_sessions(sm);
    smpp_out_settle(sm);
    if (sm->is_draining && sm->job_count == 0 && sm->in_count == 0)
        for (size_t i = 0; i < sm->sessions; i++)
            smpp_session_stop(sm->session[i]);
    if (!sm->is_closing)
        return;
    smpp_in_close(sm);
    if (sm->in_waiting > 0)
        return;
    sl_timer_stop(&sm->deadline);
    sl_post_cancel(&sm->turn); /* settling asked for one more */
    free_texts(sm);
    sl_gauge_set(sm->gauge_bound, 0);
    chan_host_of(sm->ch)->closed(sm->ch); /* sm may be gone now */
}

static void on_drain_deadline(void *arg)
{
    struct smpp *sm = arg;
    close_sessions(sm);
    smpp_turn_soon(sm);
}

static void smpp_drain(struct chan *ch, uint64_t deadline_mono_ms)
{
    struct smpp *sm = chan_priv(ch);
    uint64_t now = sl_loop_mono_ms(chan_loop(ch));
    sm->is_draining = true;
    sl_timer_start(&sm->deadline, deadline_mono_ms > now ? deadline_mono_ms - now : 0);
    smpp_turn_soon(sm);
}

static void smpp_close(struct chan *ch)
{
    struct smpp *sm = chan_priv(ch);
    sm->is_closing = sm->is_draining = true;
    smpp_turn_soon(sm);
}

/* ---- the table ---- */

static sl_err smpp_send(struct chan *ch, const struct chan_send *s, struct chan_job *job)
{
    return smpp_out_send(chan_priv(ch), s, job);
}

static sl_err smpp_query(struct chan *ch, const struct chan_send *s, struct chan_job *job)
{
    return smpp_out_query(chan_priv(ch), s, job);
}

static void smpp_accepted(struct chan *ch, struct chan_ticket *t, sl_err result)
{
    smpp_in_accepted(chan_priv(ch), t, result);
}

static void smpp_hold(struct chan *ch, bool is_holder)
{
    smpp_in_hold(chan_priv(ch), is_holder);
}

static const struct sl_key smpp_keys[] = {SMPP_KEYS, {.key = NULL}};

const struct chan_ops smpp_ops = {
    .api = CHAN_API,
    .name = "smpp",
    .caps = CHAN_CAP_SEND,
    .priv_size = sizeof(struct smpp),
    .limits = {.text_max = 1000,
               .text_unit = CHAN_CHARS,
               .unknown = CHAN_AT_MOST_ONCE, /* nothing in SMPP drops a repeat */
               .rate_per_s = 10,             /* the smallest that vendors grant; README.md */
               .window = 10},
    .horizon_ms = 86400000, /* message centres try for a day */
    .keys = smpp_keys,
    .open = smpp_open,
    .start = smpp_start,
    .limits_of = smpp_limits,
    .hold = smpp_hold,
    .send = smpp_send,
    .query = smpp_query,
    .accepted = smpp_accepted,
    .drain = smpp_drain,
    .close = smpp_close,
};
