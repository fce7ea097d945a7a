/* channels/sms/smpp_out.c - a message on its way out: encode, cut, submit its parts, settle them as one job.
 *
 *   accepted  -> the ledger of opt-outs is asked -> parts are submitted while the session's window has room -> each is answered, or lost
 *             -> none in flight and none left (or one went wrong): settled, once
 *
 * A part is never submitted twice here, and none that an earlier try brought to the message centre: which ones those are goes
 * back to the lane with the word on a try (chan_result.done) and comes again with the next. So a throttled second part of three
 * is the next thing that is sent. The reference number of the parts is the same in every try: the handset joins them. When a part
 * was written and never answered, the outcome is unknown.
 */
#include "channels/sms/smpp_priv.h"

#include "channels/sms/smpp_status.h"
#include "channels/sms/sms_optout.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

#define PARTS_MAX        255
#define THROTTLE_WAIT_MS 1000
#define REMOTE_IDS_MAX   8192

struct bit { /* one PDU of a job; the session's ticket */
    struct smpp_job *job;
    char *id;      /* canonical, when it was taken in this try */
    bool is_taken; /* now or in an earlier try */
};

struct smpp_job {
    struct smpp_job *next, **at; /* in smpp.jobs */
    struct smpp *sm;
    struct chan_job *job;
    struct smpp_session *session;
    bool is_query, is_asking, is_opted_out, is_recut;
    bool is_broken; /* no further part is submitted */
    unsigned total, submitted, open, taken,
        lost_written;    /* submitted: those before it are out, or were taken before */
    uint32_t refused;    /* first bad status, 0: none */
    char why[120];       /* of what was lost */
    struct smpp_pdu pdu; /* what all parts have in common; its strings lie in this job */
    struct sl_buf octets;
    size_t at_octet;
    enum sms_alphabet alphabet;
    enum smpp_joint joint;
    uint16_t ref;
    char address[MSG_ID_MAX_BYTES + 1], destination[24], source[24];
    enum smpp_state state; /* query */
    struct bit bit[];
};

/* ---- settle ---- */

static void job_free(struct smpp_job *j)
{
    *j->at = j->next;
    if (j->next != NULL)
        j->next->at = j->at;
    j->sm->job_count--;
    sl_gauge_set(j->sm->gauge_jobs, (int64_t)j->sm->job_count);
    for (unsigned i = 0; i < j->total; i++)
        free(j->bit[i].id);
    sl_buf_fini(&j->octets);
    free(j);
}

static void write_ids(const struct smpp_job *j, struct sl_buf *ids)
{
    for (unsigned i = 0; i < j->total; i++) {
        if (j->bit[i].id == NULL || j->bit[i].id[0] == '\0')
            continue;
        if (ids->len > 0)
            sl_buf_char(ids, ',');
        sl_buf_c(ids, j->bit[i].id);
    }
}

/* "3.8.2.05": parts, alphabet, how they are joined, and a bit for each part that was taken, in hex, the first part lowest. */
static void write_done(const struct smpp_job *j, char out[CHAN_DONE_MAX])
{
    int n = snprintf(out, CHAN_DONE_MAX, "%u.%d.%d.", j->total, (int)j->alphabet, (int)j->joint);
    for (unsigned i = 0; i < j->total; i += 4) {
        unsigned four = 0;
        for (unsigned k = 0; k < 4 && i + k < j->total; k++)
            four |= j->bit[i + k].is_taken ? 1u << k : 0;
        out[n++] = "0123456789abcdef"[four];
    }
    out[n] = '\0';
}

/* False: an earlier try cut the message differently, so the configuration has changed. Nothing can be sent behind that. */
static bool read_done(struct smpp_job *j, struct sl_str done)
{
    static const char digits[] = "0123456789abcdef";
    char head[CHAN_DONE_MAX];
    if (done.len == 0)
        return true;
    int n = snprintf(head, sizeof head, "%u.%d.%d.", j->total, (int)j->alphabet, (int)j->joint);
    if (!sl_str_starts(done, head) || done.len != (size_t)n + (j->total + 3) / 4)
        return false;
    for (unsigned i = 0; i < j->total; i++) {
        const char *digit = strchr(digits, done.ptr[(size_t)n + i / 4]);
        j->bit[i].is_taken =
            digit != NULL && *digit != '\0' && ((unsigned)(digit - digits) >> i % 4 & 1) != 0;
        j->taken += j->bit[i].is_taken;
    }
    return true;
}

static void settle_unknown(const struct smpp_job *j, struct chan_result *r, char words[200])
{
    r->outcome = CHAN_UNKNOWN;
    if (j->total > 1)
        (void)snprintf(words, 200, "%u of %u parts were taken, then the session broke: %s", j->taken,
                       j->total, j->why);
    else
        (void)snprintf(words, 200, "no answer from the message centre: %s", j->why);
}

static void settle_failed(const struct smpp_job *j, struct chan_result *r, char words[200], char code[16])
{
    const struct smpp_meaning *m = smpp_status_meaning(j->refused);
    r->outcome = CHAN_FAILED;
    if (j->is_opted_out) {
        r->code = SL_STR(SMS_OPTED_OUT_CODE);
        (void)snprintf(words, 200, "%s", SMS_OPTED_OUT_WORDS);
        return;
    }
    if (j->is_recut) {
        r->code = SL_STR("limits_changed");
        (void)snprintf(words, 200, "long_by or the alphabet was changed while the message was being sent");
        return;
    }
    char taken[64] = "";
    if (j->taken > 0)
        (void)snprintf(taken, sizeof taken, "%u of %u parts were taken, then: ", j->taken, j->total);
    if (j->refused == 0) { /* not a byte of the others was written */
        r->may_retry = true;
        r->code = SL_STR("link");
        (void)snprintf(words, 200, "%snot sent: %s", taken, j->why);
        return;
    }
    (void)snprintf(code, 16, "0x%02x", j->refused);
    r->code = sl_str_c(m->name[0] != '\0' ? m->name : code);
    r->may_retry = m->verdict != SMPP_PERMANENT;
    r->is_account = m->verdict == SMPP_PAUSE || m->verdict == SMPP_ALARM;
    r->retry_after_ms = j->refused == SMPP_THROTTLED ? THROTTLE_WAIT_MS : 0;
    (void)snprintf(words, 200, "%s%s", taken, m->words);
}

static void settle_query(const struct smpp_job *j, struct chan_result *r, char words[200])
{
    bool is_none = j->refused == 0x0c; /* ESME_RINVMSGID */
    r->outcome = j->taken == j->total && j->total > 0 ? CHAN_SENT
                 : is_none && j->taken == 0           ? CHAN_NEVER
                                                      : CHAN_UNKNOWN;
    (void)snprintf(words, 200, "%s",
                   j->total == 0       ? "there is no id to ask for"
                   : is_none           ? "the message centre does not know it"
                   : j->refused != 0   ? smpp_status_meaning(j->refused)->words
                   : j->why[0] != '\0' ? j->why
                                       : "the message centre has it");
}

/* The job is gone afterwards. */
static void job_settle(struct smpp_job *j)
{
    struct smpp *sm = j->sm;
    struct chan_job *job = j->job;
    struct chan_result r = {
        .outcome = CHAN_SENT, .remote_id = SL_STR_NONE, .code = SL_STR_NONE, .words = SL_STR_NONE};
    char words[200] = "", code[16], done[CHAN_DONE_MAX] = "";
    struct sl_buf ids;
    sl_buf_init(&ids, REMOTE_IDS_MAX);
    if (j->is_query)
        settle_query(j, &r, words);
    else if (j->taken == j->total)
        r.outcome = CHAN_SENT;
    else if (j->lost_written > 0)
        settle_unknown(j, &r, words);
    else
        settle_failed(j, &r, words, code);
    if (!j->is_query && j->taken > 0 && j->taken < j->total)
        write_done(j, done);
    r.done = sl_str_c(done);
    write_ids(j, &ids);
    r.remote_id = sl_buf_view(&ids);
    r.words = sl_str_c(words);
    chan_host_of(sm->ch)->settled(sm->ch, job, &r);
    sl_buf_fini(&ids);
    job_free(j);
    if (sm->is_draining)
        smpp_turn_soon(sm);
}

static bool job_is_over(const struct smpp_job *j)
{
    return j->open == 0 && !j->is_asking && (j->is_broken || j->submitted == j->total);
}

/* ---- submit ---- */

/* The octets of the next part. */
static struct sl_str part_text(const struct smpp_job *j)
{
    struct sl_str rest = sl_str_n(sl_buf_view(&j->octets).ptr + j->at_octet, j->octets.len - j->at_octet);
    if (j->total > 1)
        rest.len = sms_cut(j->alphabet, rest, smpp_part_max(j->alphabet, j->joint));
    return rest;
}

/* Out, or taken by an earlier try: on to the next one. */
static void pass_part(struct smpp_job *j)
{
    if (!j->is_query)
        j->at_octet += part_text(j).len;
    j->submitted++;
}

static void pass_taken(struct smpp_job *j)
{
    while (!j->is_query && j->submitted < j->total && j->bit[j->submitted].is_taken)
        pass_part(j);
}

/* The next part's PDU; text stays valid until the call returns. */
static sl_err submit_part(struct smpp_job *j, struct sl_buf *part, struct sl_buf *tlvs)
{
    struct smpp_pdu p = j->pdu;
    unsigned seq = j->submitted + 1;
    p.text = part_text(j);
    if (j->total > 1 && j->joint == SMPP_SAR) {
        smpp_tlv_add_uint(tlvs, SMPP_TAG_SAR_MSG_REF_NUM, 2, j->ref);
        smpp_tlv_add_uint(tlvs, SMPP_TAG_SAR_TOTAL_SEGMENTS, 1, j->total);
        smpp_tlv_add_uint(tlvs, SMPP_TAG_SAR_SEGMENT_SEQNUM, 1, seq);
        p.tlvs = sl_buf_view(tlvs);
    } else if (j->total > 1) {
        smpp_part_header(part, j->joint, j->ref, (uint8_t)j->total, (uint8_t)seq);
        sl_buf_str(part, p.text);
        p.text = sl_buf_view(part);
        p.esm_class |= SMPP_ESM_UDHI;
    }
    return smpp_session_request(j->session, &p, &j->bit[j->submitted]);
}

static sl_err submit_query(struct smpp_job *j)
{
    struct smpp_pdu p = j->pdu;
    p.message_id = sl_str_c(j->bit[j->submitted].id);
    return smpp_session_request(j->session, &p, &j->bit[j->submitted]);
}

static void job_submit(struct smpp_job *j)
{
    struct sl_buf part, tlvs;
    sl_buf_init(&part, SMPP_TEXT_MAX);
    sl_buf_init(&tlvs, 64);
    for (pass_taken(j); !j->is_broken && j->submitted < j->total; pass_taken(j)) {
        sl_buf_clear(&part);
        sl_buf_clear(&tlvs);
        sl_err err = j->is_query ? submit_query(j) : submit_part(j, &part, &tlvs);
        if (err == SL_EAGAIN)
            break; /* room() comes back to it */
        if (err != SL_OK) {
            j->is_broken = true;
            j->refused = SMPP_INVMSGLEN;
            break;
        }
        pass_part(j);
        j->open++;
    }
    sl_buf_fini(&part);
    sl_buf_fini(&tlvs);
}

static struct smpp_session *best_session(const struct smpp *sm)
{
    struct smpp_session *best = NULL;
    size_t most = 0;
    for (size_t i = 0; i < sm->sessions; i++) {
        struct smpp_session *s = sm->session[i];
        size_t room = s != NULL && smpp_session_can_submit(s) ? smpp_session_room(s) : 0;
        if (room > most) {
            most = room;
            best = s;
        }
    }
    return best;
}

/* ---- accept ---- */

/* How many parts? 0: over what the protocol can number. */
static unsigned count_parts(enum sms_alphabet a, enum smpp_joint joint, struct sl_str octets)
{
    unsigned parts = 0;
    if (octets.len <= smpp_part_max(a, SMPP_WHOLE))
        return 1;
    for (size_t at = 0; at < octets.len; parts++)
        at += sms_cut(a, sl_str_n(octets.ptr + at, octets.len - at), smpp_part_max(a, joint));
    return parts <= PARTS_MAX ? parts : 0;
}

static enum sms_alphabet encode(const struct smpp *sm, struct sl_str text, struct sl_buf *octets)
{
    enum sms_alphabet a = sm->is_alphabet_fixed ? sm->alphabet : sms_alphabet_for(text);
    if (sms_encode(a, text, octets) == SL_OK)
        return a;
    sl_buf_clear(octets); /* the account's alphabet lacks a character: never a question mark instead */
    sl_err err = sms_encode(SMS_UCS2, text, octets);
    sl_assert(err == SL_OK);
    return SMS_UCS2;
}

static uint8_t coding_of(const struct smpp *sm, enum sms_alphabet a)
{
    if (a == SMS_UCS2)
        return 8;
    return a == sm->zero ? 0 : a == SMS_LATIN1 ? 3 : 1;
}

/* The number the customer wrote to, from the ticket's context: {"to":"..."} */
static struct sl_str reply_number(struct sl_str context, json_t **hold)
{
    *hold = context.len > 0 ? sl_json_parse(context, NULL) : NULL;
    return *hold != NULL ? sl_json_get_str(*hold, "to") : SL_STR_NONE;
}

static void fill_addresses(struct smpp_job *j, const struct chan_send *s)
{
    struct smpp *sm = j->sm;
    struct smpp_pdu *p = &j->pdu;
    json_t *hold = NULL;
    struct sl_str to = s->address, from = sm->source.number;
    (void)snprintf(j->address, sizeof j->address, "%.*s", (int)to.len, to.ptr);
    p->destination = sm->destination;
    if (to.len > 0 && to.ptr[0] == '+') {
        to = sl_str_n(to.ptr + 1, to.len - 1);
        p->destination.ton = p->destination.npi = 1;
    }
    if (from.len == 0)
        from = reply_number(s->context, &hold);
    p->source = sm->source;
    (void)snprintf(j->destination, sizeof j->destination, "%.*s", (int)to.len, to.ptr);
    (void)snprintf(j->source, sizeof j->source, "%.*s", (int)from.len, from.ptr);
    p->destination.number = sl_str_c(j->destination); /* over 20 bytes: the codec refuses it */
    p->source.number = sl_str_c(j->source);
    json_decref(hold);
}

static struct smpp_job *job_new(struct smpp *sm, struct chan_job *job, struct smpp_session *session,
                                unsigned total)
{
    struct smpp_job *j = sl_alloc(sizeof *j + total * sizeof j->bit[0]);
    j->sm = sm;
    j->job = job;
    j->session = session;
    j->total = total;
    sl_buf_init(&j->octets, 0);
    for (unsigned i = 0; i < total; i++)
        j->bit[i].job = j;
    j->next = sm->jobs;
    j->at = &sm->jobs;
    if (j->next != NULL)
        j->next->at = &j->next;
    sm->jobs = j;
    sl_gauge_set(sm->gauge_jobs, (int64_t)++sm->job_count);
    return j;
}

/* ---- opt-outs ---- */

static size_t clear_slot(const struct smpp *sm, struct sl_str number, uint64_t *hash)
{
    *hash = sl_str_hash(number, sm->clear_seed);
    return *hash % SMPP_CLEAR_MAX;
}

static bool is_clear(const struct smpp *sm, struct sl_str number)
{
    uint64_t hash;
    size_t i = clear_slot(sm, number, &hash);
    return sm->clear[i].hash == hash && sm->clear[i].until_mono_ms > sl_loop_mono_ms(chan_loop(sm->ch));
}

void smpp_out_opted(struct smpp *sm, struct sl_str number)
{
    uint64_t hash;
    sm->clear[clear_slot(sm, number, &hash)].until_mono_ms = 0;
}

static void on_ledger(void *arg, sl_err err, struct sl_str value)
{
    struct smpp_job *j = arg;
    struct smpp *sm = j->sm;
    (void)value;
    j->is_asking = false;
    if (err == SL_OK) {
        j->is_opted_out = j->is_broken = true;
    } else if (err == SL_ENOTFOUND) {
        uint64_t hash;
        size_t i = clear_slot(sm, sl_str_c(j->address), &hash);
        sm->clear[i].hash = hash;
        sm->clear[i].until_mono_ms = sl_loop_mono_ms(chan_loop(sm->ch)) + SMPP_CLEAR_MS;
        job_submit(j);
    } else {
        j->is_broken = true;
        (void)snprintf(j->why, sizeof j->why, "the ledger of opt-outs cannot be read now");
    }
    if (job_is_over(j))
        job_settle(j);
}

/* A job that was over before it began is settled on the next turn: never from within send(). */
static sl_err begin(struct smpp_job *j)
{
    bool must_ask = !j->is_query && !j->is_broken && !is_clear(j->sm, sl_str_c(j->address));
    if (must_ask && sms_optout_ask(j->sm->ch, sl_str_c(j->address), on_ledger, j) == SL_OK) {
        j->is_asking = true;
        return SL_OK;
    }
    if (must_ask) { /* no store: nothing is sent that may have been forbidden */
        j->is_broken = true;
        (void)snprintf(j->why, sizeof j->why, "the ledger of opt-outs cannot be read now");
    }
    job_submit(j);
    if (job_is_over(j))
        smpp_turn_soon(j->sm);
    return SL_OK;
}

sl_err smpp_out_send(struct smpp *sm, const struct chan_send *s, struct chan_job *job)
{
    struct smpp_session *session = sm->job_count < sm->allowed ? best_session(sm) : NULL;
    if (session == NULL)
        return SL_EAGAIN;
    struct sl_buf octets;
    sl_buf_init(&octets, MSG_TEXT_MAX_BYTES * 2);
    enum sms_alphabet a = encode(sm, s->m->text, &octets);
    bool is_payload = sm->is_payload && octets.len > smpp_part_max(a, SMPP_WHOLE);
    unsigned total = is_payload ? 1 : count_parts(a, sm->long_by, sl_buf_view(&octets));
    struct smpp_job *j = job_new(sm, job, session, total);
    j->octets = octets; /* its owner now */
    j->alphabet = a;
    j->joint = sm->long_by;
    /* the same in every attempt: a handset then drops what it has */
    j->ref = (uint16_t)(sl_str_hash(s->key, 0) & (sm->long_by == SMPP_UDH8 ? 0xffu : 0xffffu));
    j->pdu = (struct smpp_pdu){.command = SMPP_SUBMIT_SM,
                               .service_type = sm->service_type,
                               .validity = sl_str_c(sm->validity),
                               .registered = sm->registered,
                               .data_coding = coding_of(sm, a),
                               .has_payload = is_payload};
    fill_addresses(j, s);
    if (total == 0) {
        j->is_broken = true;
        j->refused = SMPP_INVMSGLEN;
    } else if (!read_done(j, s->done)) {
        j->is_broken = j->is_recut = true;
    }
    return begin(j);
}

/* A message of which some parts were never answered cannot be asked for: they have no ids. Ids as the message centre wrote them, as far as their one form tells. */
sl_err smpp_out_query(struct smpp *sm, const struct chan_send *s, struct chan_job *job)
{
    struct smpp_session *session = best_session(sm);
    if (session == NULL)
        return SL_EAGAIN;
    unsigned total = s->remote_id.len > 0 ? 1 : 0;
    for (size_t i = 0; i < s->remote_id.len; i++)
        total += s->remote_id.ptr[i] == ',';
    if (total > PARTS_MAX || s->done.len > 0)
        total = 0;
    struct smpp_job *j = job_new(sm, job, session, total);
    j->is_query = true;
    j->pdu = (struct smpp_pdu){.command = SMPP_QUERY_SM};
    fill_addresses(j, s);
    struct sl_str rest = s->remote_id;
    for (unsigned i = 0; i < total; i++) {
        const char *comma = memchr(rest.ptr, ',', rest.len);
        size_t len = comma != NULL ? (size_t)(comma - rest.ptr) : rest.len;
        uint64_t number;
        char hex[24];
        struct sl_str id = sl_str_n(rest.ptr, len);
        if (sm->ids == SMPP_IDS_HEX_DEC && sl_str_uint(id, &number) == SL_OK) {
            (void)snprintf(hex, sizeof hex, "%llx", (unsigned long long)number);
            id = sl_str_c(hex);
        }
        j->bit[i].id = sl_str_dup(id);
        rest = sl_str_n(rest.ptr + len + (comma != NULL), rest.len - len - (comma != NULL));
    }
    return begin(j);
}

/* ---- what came of it ---- */

/* ESME_RTHROTTLED: half of what is in flight now, then one more for each round of good answers. */
static void slow_down(struct smpp *sm)
{
    uint64_t now = sl_loop_mono_ms(chan_loop(sm->ch));
    SL_COUNT("sluice_smpp_throttled_total", "", "Answers that said: too fast", 1);
    if (now - sm->throttled_mono_ms < THROTTLE_WAIT_MS)
        return; /* answers to what was sent before it was slowed down */
    sm->throttled_mono_ms = now;
    size_t half = (sm->job_count < sm->allowed ? sm->job_count : sm->allowed) / 2;
    sm->allowed = half > 0 ? half : 1;
    sm->good_answers = 0;
}

static void speed_up(struct smpp *sm)
{
    if (sm->allowed == sm->allowed_max || ++sm->good_answers < sm->allowed)
        return;
    sm->allowed++;
    sm->good_answers = 0;
}

static void part_taken(struct bit *b, const struct smpp_pdu *response)
{
    struct smpp_job *j = b->job;
    b->is_taken = true;
    j->taken++;
    if (j->is_query) {
        j->state = (enum smpp_state)response->state;
        return;
    }
    struct sl_buf id;
    sl_buf_init(&id, 512);
    smpp_id_form(&id, response->message_id, j->sm->ids, false);
    b->id = sl_str_dup(sl_buf_view(&id));
    sl_buf_fini(&id);
    speed_up(j->sm);
}

static void alarm_of(struct smpp *sm, const struct smpp_meaning *m)
{
    char words[240];
    (void)snprintf(words, sizeof words, "inboxes.%s: %s (%s); check the account's configuration", sm->inbox,
                   m->words, m->name);
    chan_host_of(sm->ch)->alarm(sm->ch, m->name, true, words);
}

void smpp_out_answered(struct smpp *sm, void *ticket, const struct smpp_pdu *response)
{
    struct bit *b = ticket;
    struct smpp_job *j = b->job;
    j->open--;
    if (response->status == SMPP_OK && response->command != SMPP_GENERIC_NACK) {
        part_taken(b, response);
    } else {
        uint32_t status = response->status != SMPP_OK ? response->status : SMPP_INVCMDID;
        const struct smpp_meaning *m = smpp_status_meaning(status);
        j->is_broken = true;
        j->refused = j->refused != 0 ? j->refused : status;
        if (status == SMPP_THROTTLED)
            slow_down(sm);
        if (m->verdict == SMPP_ALARM)
            alarm_of(sm, m);
    }
    if (job_is_over(j))
        job_settle(j);
}

void smpp_out_lost(struct smpp *sm, void *ticket, bool was_written, const char *why)
{
    struct bit *b = ticket;
    struct smpp_job *j = b->job;
    (void)sm;
    j->open--;
    j->is_broken = true;
    j->lost_written += was_written;
    (void)snprintf(j->why, sizeof j->why, "%s", why);
    if (job_is_over(j))
        job_settle(j);
}

void smpp_out_room(struct smpp *sm, struct smpp_session *s)
{
    for (struct smpp_job *j = sm->jobs, *next; j != NULL && smpp_session_room(s) > 0; j = next) {
        next = j->next;
        if (j->session == s && j->submitted < j->total && !j->is_broken && !j->is_asking)
            job_submit(j);
    }
}

/* What waited for room on this session, with nothing in flight, has nobody else to tell it. */
void smpp_out_unbound(struct smpp *sm, struct smpp_session *s, const char *why)
{
    for (struct smpp_job *j = sm->jobs; j != NULL; j = j->next) {
        if (j->session != s || j->open > 0 || j->is_broken || j->submitted == j->total)
            continue;
        j->is_broken = true;
        (void)snprintf(j->why, sizeof j->why, "%s", why);
        smpp_turn_soon(sm);
    }
}

void smpp_out_settle(struct smpp *sm)
{
    for (struct smpp_job *j = sm->jobs, *next; j != NULL; j = next) {
        next = j->next;
        if (sm->is_closing && j->is_asking) { /* the store calls nothing back any more */
            j->is_asking = false;
            j->is_broken = true;
        }
        if (job_is_over(j))
            job_settle(j);
    }
}
