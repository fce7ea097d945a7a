/* channels/sms/smpp_session.c - the session's states, in the order they happen:
 *
 *   DOWN -> CONNECTING -> BINDING -> BOUND -> (UNBINDING) -> DOWN, waiting for the next attempt
 *
 * Whatever breaks a connection goes through session_drop(), and only there do tickets get lost. What was asked for
 * in one turn of the loop is written at its end, in one piece.
 */
#include "channels/sms/smpp_session.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/metrics.h"

#include <stdlib.h>

#define BEAT_MS          1000
#define ENQUIRE_WAIT_MS  10000 /* for any sign of life after an enquire_link */
#define RECONNECT_MIN_MS 1000
#define REFUSED_WAIT_MS                                                                                      \
    60000 /* after a bind with wrong credentials: a person must look, a lock-out must not follow */
#define ALREADY_WAIT_MS 15000 /* ESME_RALYBND: the message centre still holds the old session */
#define WHY_MAX         200

enum state { DOWN, CONNECTING, BINDING, BOUND, UNBINDING };

struct flight {
    void *ticket; /* NULL: free */
    uint32_t seq;
    bool is_written;
    uint64_t due_mono_ms;
};

struct smpp_session {
    struct sl_loop *loop;
    const struct smpp_account *account;
    enum smpp_bind bind;
    const struct smpp_session_events *ev;
    void *arg;
    const struct smpp_link_ops *ops;
    struct smpp_link *link;
    enum state state;
    bool is_stopping, is_dropping;
    uint64_t connection;
    struct sl_timer deadline; /* of the state, or until the next attempt */
    struct sl_timer beat;
    struct sl_post flush;
    struct sl_buf in, out;
    uint64_t heard_mono_ms; /* when anything came last */
    uint64_t asked_mono_ms; /* enquire_link sent, 0: none open */
    unsigned attempts;
    uint64_t extra_wait_ms;
    /* flights: slot = seq & (slots - 1) */
    struct flight *flight;
    size_t slots, in_flight, unwritten;
    uint32_t next_seq, bind_seq;
};

static void on_deadline(void *arg);
static void on_beat(void *arg);
static void on_flush(void *arg);
static void session_drop(struct smpp_session *s, const char *why);
static const struct smpp_link_events link_events;

/* ---- life ---- */

struct smpp_session *smpp_session_new(struct sl_loop *l, const struct smpp_account *account,
                                      enum smpp_bind bind, const struct smpp_session_events *ev, void *arg)
{
    struct smpp_session *s = sl_alloc(sizeof *s);
    *s = (struct smpp_session){.loop = l, .account = account, .bind = bind, .ev = ev, .arg = arg};
    for (s->slots = 16; s->slots < account->window * (size_t)2; s->slots *= 2)
        continue;
    s->flight = sl_alloc(s->slots * sizeof *s->flight);
    s->next_seq = 1;
    sl_timer_init(&s->deadline, l, on_deadline, s);
    sl_timer_init(&s->beat, l, on_beat, s);
    sl_post_init(&s->flush, l, on_flush, s);
    sl_buf_init(&s->in, SMPP_PDU_MAX_BYTES * 4);
    sl_buf_init(&s->out, SMPP_OUT_MAX + SMPP_PDU_MAX_BYTES);
    return s;
}

void smpp_session_start(struct smpp_session *s)
{
    sl_timer_start(&s->deadline, 0);
}

static void session_connect(struct smpp_session *s)
{
    s->state = CONNECTING;
    s->connection++;
    s->ops = smpp_link_ops_for(s->loop);
    s->link = s->ops->open(s->loop, &s->account->target, &link_events, s);
    sl_timer_start(&s->deadline, s->account->connect_ms);
}

void smpp_session_close(struct smpp_session **sp)
{
    struct smpp_session *s = *sp;
    *sp = NULL;
    if (s == NULL)
        return;
    s->is_stopping = true;
    session_drop(s, "closed by us");
    sl_timer_stop(&s->deadline);
    sl_timer_stop(&s->beat);
    sl_post_cancel(&s->flush);
    sl_buf_fini(&s->in);
    sl_buf_fini(&s->out);
    free(s->flight);
    free(s);
}

/* Full jitter (1 s .. the configured maximum): many gateways lose a message centre at the same moment. */
static uint64_t wait_of(struct smpp_session *s)
{
    uint64_t top = RECONNECT_MIN_MS;
    for (unsigned i = 0; i < s->attempts && top < s->account->reconnect_max_ms; i++)
        top *= 2;
    if (top > s->account->reconnect_max_ms)
        top = s->account->reconnect_max_ms;
    return s->extra_wait_ms + RECONNECT_MIN_MS / 4 + sl_loop_jitter(s->loop, top);
}

static void lose_all(struct smpp_session *s, const char *why)
{
    for (size_t i = 0; i < s->slots && s->in_flight > 0; i++) {
        struct flight f = s->flight[i];
        if (f.ticket == NULL)
            continue;
        s->flight[i].ticket = NULL;
        s->in_flight--;
        s->ev->lost(s->arg, f.ticket, f.is_written, why);
    }
    s->unwritten = 0;
}

/* The one way down. Events may come back here: the second time does nothing. */
static void session_drop(struct smpp_session *s, const char *why)
{
    char words[WHY_MAX];
    if (s->is_dropping || (s->state == DOWN && !s->is_stopping))
        return;
    bool was_bound = s->state == BOUND || s->state == UNBINDING;
    (void)snprintf(words, sizeof words, "%s", why); /* why may lie in what is freed */
    s->is_dropping = true;
    s->state = DOWN;
    if (s->link != NULL)
        s->ops->close(&s->link);
    sl_timer_stop(&s->beat);
    sl_post_cancel(&s->flush);
    sl_buf_clear(&s->in);
    sl_buf_clear(&s->out);
    s->asked_mono_ms = 0;
    lose_all(s, words);
    if (was_bound || !s->is_stopping)
        s->ev->unbound(s->arg, s, words);
    if (!s->is_stopping) {
        sl_timer_start(&s->deadline, wait_of(s));
        s->attempts++;
    }
    s->extra_wait_ms = 0;
    s->is_dropping = false;
}

static void on_deadline(void *arg)
{
    struct smpp_session *s = arg;
    if (s->is_stopping) {
        session_drop(s, "unbound");
        s->ev->stopped(s->arg, s);
        return;
    }
    switch (s->state) {
    case DOWN:
        session_connect(s);
        return;
    case CONNECTING:
        session_drop(s, "no connection within the time limit");
        return;
    case BINDING:
        session_drop(s, "no answer to the bind within the time limit");
        return;
    case BOUND:
    case UNBINDING:
        return;
    }
}

/* ---- out ---- */

static void flush_soon(struct smpp_session *s)
{
    if (s->link != NULL && s->ops->waiting(s->link) == 0)
        sl_post_now(&s->flush);
}

static void mark_written(struct smpp_session *s)
{
    for (size_t i = 0; i < s->slots && s->unwritten > 0; i++) {
        if (s->flight[i].ticket == NULL || s->flight[i].is_written)
            continue;
        s->flight[i].is_written = true;
        s->unwritten--;
    }
}

static void on_flush(void *arg)
{
    struct smpp_session *s = arg;
    if (s->link == NULL || s->out.len == 0 || s->ops->waiting(s->link) > 0)
        return;
    bool has_requests = s->unwritten > 0;
    mark_written(s); /* before the first byte: what is uncertain counts as written */
    s->ops->write(s->link, sl_buf_view(&s->out));
    sl_buf_clear(&s->out);
    if (has_requests)
        sl_kill_point("smpp.pdu_written");
    if (has_requests && sl_fault("smpp.pdu_written"))
        session_drop(s, "fault smpp.pdu_written");
}

static void write_bare(struct smpp_session *s, uint32_t command, uint32_t status, uint32_t seq)
{
    if (s->link == NULL)
        return;
    smpp_write_bare(&s->out, command, status, seq);
    if (s->out.len > SMPP_OUT_MAX) { /* it asks and asks and never reads */
        session_drop(s, "the peer does not read what we write");
        return;
    }
    flush_soon(s);
}

static uint32_t take_seq(struct smpp_session *s)
{
    uint32_t seq = s->next_seq;
    s->next_seq = seq == SMPP_SEQ_MAX ? 1 : seq + 1;
    return seq;
}

static uint32_t free_seq(struct smpp_session *s)
{
    uint32_t seq = take_seq(s);
    while (s->flight[seq & (s->slots - 1)].ticket != NULL) /* there is one: slots >= 2 windows */
        seq = take_seq(s);
    return seq;
}

size_t smpp_session_room(const struct smpp_session *s)
{
    if (s->state != BOUND || s->is_stopping || s->out.len > SMPP_OUT_MAX / 2)
        return 0;
    return s->in_flight < s->account->window ? s->account->window - s->in_flight : 0;
}

sl_err smpp_session_request(struct smpp_session *s, struct smpp_pdu *p, void *ticket)
{
    if (smpp_session_room(s) == 0)
        return SL_EAGAIN;
    p->seq = free_seq(s);
    sl_err err = smpp_pdu_write(&s->out, p);
    if (err != SL_OK)
        return err;
    s->flight[p->seq & (s->slots - 1)] = (struct flight){
        .ticket = ticket, .seq = p->seq, .due_mono_ms = sl_loop_mono_ms(s->loop) + s->account->response_ms};
    s->in_flight++;
    s->unwritten++;
    flush_soon(s);
    return SL_OK;
}

void smpp_session_answer(struct smpp_session *s, uint64_t connection, uint32_t command, uint32_t seq,
                         uint32_t status)
{
    if (connection != s->connection || s->link == NULL)
        return; /* the peer repeats it on the next connection */
    struct smpp_pdu p = {.command = command | SMPP_RESP, .status = status, .seq = seq};
    if (status != SMPP_OK) {
        write_bare(s, p.command, status, seq);
        return;
    }
    sl_err err = smpp_pdu_write(&s->out, &p); /* with its empty message_id */
    sl_assert(err == SL_OK);
    if (s->out.len > SMPP_OUT_MAX)
        session_drop(s, "the peer does not read what we write");
    else
        flush_soon(s);
}

/* ---- in ---- */

static void bind_now(struct smpp_session *s)
{
    static const uint32_t command[] = {[SMPP_TRANSCEIVER] = SMPP_BIND_TRANSCEIVER,
                                       [SMPP_TRANSMITTER] = SMPP_BIND_TRANSMITTER,
                                       [SMPP_RECEIVER] = SMPP_BIND_RECEIVER};
    const struct smpp_account *a = s->account;
    s->state = BINDING;
    s->bind_seq = take_seq(s);
    struct smpp_pdu p = {.command = command[s->bind],
                         .seq = s->bind_seq,
                         .system_id = a->system_id,
                         .password = a->password,
                         .system_type = a->system_type,
                         .interface_version = SMPP_INTERFACE_34,
                         .addr_ton = a->addr_ton,
                         .addr_npi = a->addr_npi,
                         .address_range = a->address_range};
    sl_err err = smpp_pdu_write(&s->out, &p);
    sl_assert(err == SL_OK); /* sizes were checked when the inbox was opened */
    flush_soon(s);
    sl_timer_start(&s->deadline, s->account->response_ms);
}

static void on_opened(void *arg)
{
    struct smpp_session *s = arg;
    if (s->state == CONNECTING)
        bind_now(s);
}

static void on_bind_answer(struct smpp_session *s, const struct smpp_pdu *p)
{
    if (p->status == SMPP_OK) {
        s->state = BOUND;
        s->attempts = 0;
        s->heard_mono_ms = sl_loop_mono_ms(s->loop);
        sl_timer_stop(&s->deadline);
        sl_timer_start(&s->beat, BEAT_MS);
        s->ev->bound(s->arg, s);
        return;
    }
    char why[WHY_MAX];
    (void)snprintf(why, sizeof why, "the bind was refused with status 0x%02x", p->status);
    bool is_ours = p->status == SMPP_INVPASWD || p->status == SMPP_INVSYSID || p->status == SMPP_BINDFAIL;
    s->extra_wait_ms = is_ours ? REFUSED_WAIT_MS : p->status == SMPP_ALYBND ? ALREADY_WAIT_MS : 0;
    s->ev->bind_refused(s->arg, p->status);
    session_drop(s, why);
}

static struct flight *flight_of(struct smpp_session *s, uint32_t seq)
{
    struct flight *f = &s->flight[seq & (s->slots - 1)];
    return f->ticket != NULL && f->seq == seq ? f : NULL;
}

static void *land(struct smpp_session *s, struct flight *f)
{
    void *ticket = f->ticket;
    if (!f->is_written) /* an answer before the question: a peer's guess at our numbers */
        s->unwritten--;
    f->ticket = NULL;
    s->in_flight--;
    return ticket;
}

static void on_response(struct smpp_session *s, const struct smpp_pdu *p, uint32_t trouble)
{
    if (s->state == BINDING && p->seq == s->bind_seq) {
        if (trouble == SMPP_OK || p->status != SMPP_OK)
            on_bind_answer(s, p);
        else
            session_drop(s, "the answer to the bind cannot be read");
        return;
    }
    if (p->command == SMPP_UNBIND_RESP && s->state == UNBINDING) {
        sl_timer_start(&s->deadline, 0);
        return;
    }
    struct flight *f = flight_of(s, p->seq);
    if (f == NULL || p->command == SMPP_ENQUIRE_LINK_RESP) {
        if (p->command != SMPP_ENQUIRE_LINK_RESP)
            SL_COUNT("sluice_smpp_late_answers_total", "",
                     "Responses to requests that nobody waits for any more", 1);
        return;
    }
    void *ticket = land(s, f);
    if (trouble != SMPP_OK && p->status == SMPP_OK)
        s->ev->lost(s->arg, ticket, true, "the answer cannot be read");
    else
        s->ev->answered(s->arg, ticket, p);
}

static void on_request(struct smpp_session *s, const struct smpp_pdu *p)
{
    switch (p->command) {
    case SMPP_ENQUIRE_LINK:
        write_bare(s, SMPP_ENQUIRE_LINK_RESP, SMPP_OK, p->seq);
        return;
    case SMPP_DELIVER_SM:
    case SMPP_DATA_SM:
        if (s->state != BOUND || s->bind == SMPP_TRANSMITTER)
            write_bare(s, p->command | SMPP_RESP, SMPP_INVBNDSTS, p->seq);
        else
            s->ev->request(s->arg, s, p);
        return;
    case SMPP_UNBIND:
        write_bare(s, SMPP_UNBIND_RESP, SMPP_OK, p->seq);
        on_flush(s);
        session_drop(s, "the peer unbound");
        return;
    case SMPP_ALERT_NOTIFICATION: /* 4.12: has no response */
        return;
    default: /* outbind, and what only we may ask */
        write_bare(s, SMPP_GENERIC_NACK, SMPP_INVCMDID, p->seq);
    }
}

static void malformed(struct smpp_session *s, const struct smpp_pdu *p, uint32_t status)
{
    if (status == SMPP_INVCMDID)
        write_bare(s, SMPP_GENERIC_NACK, SMPP_INVCMDID, p->seq);
    else
        write_bare(s, p->command | SMPP_RESP, status, p->seq);
}

static void on_frame(struct smpp_session *s, struct sl_str frame)
{
    struct smpp_pdu p;
    uint32_t trouble = smpp_pdu_read(frame, &p);
    if (trouble != SMPP_OK)
        SL_COUNT("sluice_smpp_malformed_total", "", "PDUs of message centres that cannot be read", 1);
    if (p.command & SMPP_RESP)
        on_response(s, &p, trouble);
    else if (trouble != SMPP_OK)
        malformed(s, &p, trouble);
    else
        on_request(s, &p);
}

/* Handles whole frames; returns how many bytes are done with. Stops when the connection goes. */
static size_t on_frames(struct smpp_session *s, struct sl_str in)
{
    uint64_t connection = s->connection;
    size_t done = 0, len = 0;
    while (s->link != NULL && s->connection == connection) {
        struct sl_str rest = sl_str_n(in.ptr + done, in.len - done);
        enum smpp_framing framing = smpp_frame(rest, &len);
        if (framing == SMPP_FRAME_MORE)
            return done;
        if (framing == SMPP_FRAME_BAD) {
            SL_COUNT("sluice_smpp_malformed_total", "", "PDUs of message centres that cannot be read", 1);
            write_bare(s, SMPP_GENERIC_NACK, SMPP_INVCMDLEN, 0);
            on_flush(s);
            session_drop(s, "a PDU with an impossible length: the stream cannot be followed");
            return in.len;
        }
        on_frame(s, sl_str_n(rest.ptr, len));
        done += len;
    }
    return in.len;
}

static void on_bytes(void *arg, struct sl_str bytes)
{
    struct smpp_session *s = arg;
    size_t before = s->in_flight;
    s->heard_mono_ms = sl_loop_mono_ms(s->loop);
    s->asked_mono_ms = 0;
    if (s->in.len == 0) { /* as a rule: whole PDUs, nothing is copied */
        size_t done = on_frames(s, bytes);
        if (s->link != NULL)
            sl_buf_add(&s->in, bytes.ptr + done, bytes.len - done);
    } else {
        sl_buf_str(&s->in, bytes);
        size_t done = on_frames(s, sl_buf_view(&s->in));
        if (s->link != NULL && done > 0)
            sl_buf_cut(&s->in, done);
    }
    if (s->link != NULL && s->state == BOUND && before > s->in_flight)
        s->ev->room(s->arg, s);
}

static void on_drained(void *arg)
{
    struct smpp_session *s = arg;
    if (s->out.len > 0)
        sl_post_now(&s->flush);
}

static void on_closed(void *arg, const char *why)
{
    session_drop(arg, why);
}

static const struct smpp_link_events link_events = {on_opened, on_bytes, on_drained, on_closed};

/* ---- time ---- */

static void lose_late(struct smpp_session *s, uint64_t now)
{
    for (size_t i = 0; i < s->slots && s->state == BOUND; i++) {
        struct flight *f = &s->flight[i];
        if (f->ticket == NULL || f->due_mono_ms > now)
            continue;
        bool was_written = f->is_written;
        s->ev->lost(s->arg, land(s, f), was_written, "no answer within the time limit");
    }
}

static void on_beat(void *arg)
{
    struct smpp_session *s = arg;
    uint64_t now = sl_loop_mono_ms(s->loop);
    if (s->asked_mono_ms != 0 && now - s->asked_mono_ms >= ENQUIRE_WAIT_MS) {
        session_drop(s, "the peer does not answer enquire_link");
        return;
    }
    if (s->asked_mono_ms == 0 && now - s->heard_mono_ms >= s->account->enquire_ms) {
        s->asked_mono_ms = now;
        write_bare(s, SMPP_ENQUIRE_LINK, SMPP_OK, take_seq(s));
    }
    if (s->in_flight > 0)
        lose_late(s, now);
    if (s->state == BOUND || s->state == UNBINDING)
        sl_timer_start(&s->beat, BEAT_MS);
}

/* ---- for the owner ---- */

bool smpp_session_is_bound(const struct smpp_session *s)
{
    return s->state == BOUND;
}

bool smpp_session_can_submit(const struct smpp_session *s)
{
    return s->state == BOUND && s->bind != SMPP_RECEIVER;
}

uint64_t smpp_session_connection(const struct smpp_session *s)
{
    return s->connection;
}

void smpp_session_stop(struct smpp_session *s)
{
    if (s->is_stopping)
        return;
    s->is_stopping = true;
    if (s->state != BOUND) {
        sl_timer_start(&s->deadline, 0);
        return;
    }
    s->state = UNBINDING;
    write_bare(s, SMPP_UNBIND, SMPP_OK, take_seq(s));
    sl_timer_start(&s->deadline, s->account->response_ms < 5000 ? s->account->response_ms : 5000);
}
