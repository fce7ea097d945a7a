/* channels/sms/smpp_in.c - what the message centre delivers: messages, parts of messages, receipts.
 *
 *   a message  -> KV ADD seen-<hash> -> inbound -> accepted -> answer
 *   a part     -> KV PUT part-<hash> -> all there: inbound, as above; else: noted in parts-<minute>-<shard> -> answer
 *   a receipt  -> receipt -> accepted -> answer
 *
 * A deliver_sm has no id, so what the message centre repeats (because our answer was lost) looks like a customer who
 * writes the same again. seen-<hash> tells them apart: it holds the id that the text was given, from before the append until the
 * answer has been out for SEEN_MS on a session that still stands. Who comes while it is there and was not answered on such a session
 * is a repeat and gets the same id.
 *
 * A long message whose parts do not all come is handed on after PART_WAIT_MS, marked as partial, by whoever holds the
 * inbox's lane: it looks through the notes of the minutes gone by.
 */
#include "channels/sms/smpp_priv.h"

#include "base/crypto.h"
#include "base/json.h"
#include "base/log.h"
#include "base/ulid.h"
#include "channels/sms/smpp_join.h"
#include "channels/sms/sms_optout.h"
#include "proto/keys.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#define HASH_HEX       32
#define SEEN_MS        10000 /* an answer is known to have arrived when its session lives so much longer */
#define SEEN_MAX       4096 /* remembered here; the oldest goes first, its key in the store by its time limit */
#define SEEN_TTL_MS    600000  /* how long a message centre that lost our answer may take to come again */
#define PART_TTL_MS    3600000 /* how long repeats of parts are recognised */
#define PART_WAIT_MS   300000  /* for the missing parts; TS 23.040 leaves it to the receiver */
#define MINUTE_MS      60000
#define SHARDS         8 /* of a minute's notes: each append answers its whole map */
#define SWEEP_EVERY_MS 5000
#define SWEEP_BACK     (PART_TTL_MS / MINUTE_MS)

struct smpp_in {
    struct chan_ticket ticket;
    struct smpp_in *next, **at;
    struct smpp *sm;
    struct smpp_session *session; /* NULL: nobody waits for an answer (sweeping) */
    uint64_t connection;
    uint32_t command, seq;
    bool is_waiting; /* the core has the ticket */
    char hash[HASH_HEX + 1];
    char id[MSG_ID_MAX_BYTES + 1];
    char address[MSG_ID_MAX_BYTES + 1], number[68]; /* who, and the number written to */
    char field[SMPP_FIELD_MAX];
    unsigned total; /* parts */
    int64_t minute; /* of its note */
    char mark[SMPP_FIELD_MAX];
    struct sl_buf marked; /* fields that were handed on */
    struct sl_buf text, data, context;
};

struct smpp_seen { /* an answered message */
    struct smpp_seen *next;
    char hash[HASH_HEX + 1];
    char id[SL_ULID_LEN + 1];
    struct smpp_session *session;
    uint64_t connection, due_mono_ms;
};

static void on_seen_timer(void *arg);
static void on_sweep_timer(void *arg);
static void on_nothing(void *arg, sl_err err, struct sl_str value)
{
    (void)arg;
    (void)err;
    (void)value;
}

/* ---- life of one ---- */

static struct smpp_in *in_new(struct smpp *sm)
{
    struct smpp_in *in = sl_alloc(sizeof *in);
    in->sm = sm;
    in->ticket.owner = in;
    sl_buf_init(&in->marked, 0);
    sl_buf_init(&in->text, MSG_TEXT_MAX_BYTES * 4);
    sl_buf_init(&in->data, 4096);
    sl_buf_init(&in->context, CHAN_CONTEXT_MAX);
    in->next = sm->ins;
    in->at = &sm->ins;
    if (in->next != NULL)
        in->next->at = &in->next;
    sm->ins = in;
    sl_gauge_set(sm->gauge_in, (int64_t)++sm->in_count);
    return in;
}

static void in_free(struct smpp_in *in)
{
    struct smpp *sm = in->sm;
    *in->at = in->next;
    if (in->next != NULL)
        in->next->at = in->at;
    sl_gauge_set(sm->gauge_in, (int64_t)--sm->in_count);
    sl_buf_fini(&in->marked);
    sl_buf_fini(&in->text);
    sl_buf_fini(&in->data);
    sl_buf_fini(&in->context);
    free(in);
    if (sm->is_draining)
        smpp_turn_soon(sm);
}

static bool is_session(const struct smpp *sm, const struct smpp_session *s)
{
    for (size_t i = 0; i < sm->sessions; i++)
        if (sm->session[i] == s && s != NULL)
            return true;
    return false;
}

/* Trouble of ours is temporary to the peer; only what can never be taken is refused for good. */
static uint32_t status_of(sl_err err)
{
    if (err == SL_OK)
        return SMPP_OK;
    return err == SL_EINVAL || err == SL_ETOOBIG ? SMPP_REJECTED : SMPP_TEMPORARY;
}

/* Answers and forgets. */
static void in_end(struct smpp_in *in, sl_err result)
{
    if (is_session(in->sm, in->session))
        smpp_session_answer(in->session, in->connection, in->command, in->seq, status_of(result));
    in_free(in);
}

static void answer(struct smpp_session *s, const struct smpp_pdu *p, uint32_t status)
{
    smpp_session_answer(s, smpp_session_connection(s), p->command, p->seq, status);
}

/* ---- names ---- */

/* Not the text: it lies in keys of the store. */
static void hash_of(char out[HASH_HEX + 1], struct sl_str bytes)
{
    unsigned char sum[32];
    sl_sha256(bytes, sum);
    sl_hex(out, sum, HASH_HEX / 2);
}

/* A customer's address: +number when it is international, else as it is; what a key cannot hold is written _xx. */
static void write_address(char out[MSG_ID_MAX_BYTES + 1], const struct smpp_address *a)
{
    size_t len = 0;
    bool is_number = a->number.len > 0;
    for (size_t i = 0; i < a->number.len; i++)
        is_number = is_number && isdigit((unsigned char)a->number.ptr[i]);
    if (a->ton == 1 && is_number)
        out[len++] = '+';
    for (size_t i = 0; i < a->number.len && len + 4 < MSG_ID_MAX_BYTES; i++) {
        char c = a->number.ptr[i];
        if (key_part_ok(sl_str_n(&c, 1)))
            out[len++] = c;
        else
            len += (size_t)snprintf(out + len, 4, "_%02x", (unsigned char)c);
    }
    out[len] = '\0';
    if (len == 0)
        (void)snprintf(out, MSG_ID_MAX_BYTES, "unknown");
}

static void write_context(struct smpp_in *in)
{
    struct sl_json j;
    sl_json_begin(&j, &in->context);
    sl_json_open(&j, NULL, '{');
    sl_json_c(&j, "to", in->number);
    sl_json_close(&j, '}');
}

/* ---- into the store ---- */

static sl_err in_submit(struct smpp_in *in)
{
    struct smpp *sm = in->sm;
    struct sl_fail why;
    if (in->text.len == 0)
        sl_buf_c(&in->text, "[\xe7\xa9\xba\xe7\x9f\xad\xe4\xbf\xa1 / empty message]");
    struct msg m = {.id = sl_str_c(in->id),
                    .tenant = sl_str_c(chan_tenant(sm->ch)),
                    .inbox = sl_str_c(sm->inbox),
                    .channel = SL_STR("smpp"),
                    .by = MSG_BY_VISITOR,
                    .who = sl_str_c(in->address),
                    .kind = MSG_TEXT,
                    .text = sl_buf_view(&in->text),
                    .data = sl_buf_view(&in->data)};
    sl_err err = in->text.overflow ? SL_ETOOBIG : msg_check(&m, &why);
    if (err != SL_OK)
        return err;
    write_context(in);
    in->ticket.id = m.id;
    in->ticket.context = sl_buf_view(&in->context);
    err = chan_host_of(sm->ch)->inbound(sm->ch, &m, &in->ticket);
    if (err != SL_OK)
        return err;
    in->is_waiting = true;
    sm->in_waiting++;
    return SL_OK;
}

static sl_err kv(struct smpp *sm, const struct chan_kv *op, chan_kv_fn fn, void *arg)
{
    return chan_host_of(sm->ch)->kv(sm->ch, op, fn, arg);
}

/* ---- STOP and START: into the ledger first, so that a repeat after a failure comes by here again ---- */

static void on_ledger(void *arg, sl_err err, struct sl_str value)
{
    struct smpp_in *in = arg;
    (void)value;
    smpp_out_opted(in->sm, sl_str_c(in->address));
    err = err == SL_OK || err == SL_ENOTFOUND ? in_submit(in) : SL_EAGAIN;
    if (err != SL_OK)
        in_end(in, err);
}

static sl_err in_judged(struct smpp_in *in)
{
    enum sms_optout word = sms_optout_word(sl_buf_view(&in->text));
    if (word == SMS_OPTOUT_NONE)
        return in_submit(in);
    return sms_optout_put(in->sm->ch, sl_str_c(in->address), word == SMS_OPTOUT_STOP, on_ledger, in);
}

/* ---- a whole message: is it a repeat? ---- */

static void seen_name(char out[48], const char *hash)
{
    (void)snprintf(out, 48, "seen-%s", hash);
}

/* The one that has this id was answered on a session that still stands: the message centre has our answer. */
static bool was_answered(struct smpp *sm, const char *hash, struct sl_str id)
{
    const struct smpp_seen *seen = sl_map_get(sm->seen, sl_str_c(hash));
    return seen != NULL && sl_str_eq_c(id, seen->id) && is_session(sm, seen->session) &&
           smpp_session_is_bound(seen->session) && smpp_session_connection(seen->session) == seen->connection;
}

static void on_seen_set(void *arg, sl_err err, struct sl_str value)
{
    struct smpp_in *in = arg;
    (void)value;
    err = err == SL_OK ? in_judged(in) : SL_EAGAIN;
    if (err != SL_OK)
        in_end(in, err);
}

static void on_seen(void *arg, sl_err err, struct sl_str value)
{
    struct smpp_in *in = arg;
    if (err == SL_ECONFLICT && was_answered(in->sm, in->hash, value)) {
        char name[48]; /* the customer wrote the same again */
        seen_name(name, in->hash);
        struct chan_kv op = {
            .op = CHAN_KV_SET, .name = sl_str_c(name), .value = sl_str_c(in->id), .ttl_ms = SEEN_TTL_MS};
        err = kv(in->sm, &op, on_seen_set, in);
        if (err != SL_OK)
            in_end(in, SL_EAGAIN);
        return;
    }
    if (err == SL_ECONFLICT && value.len < sizeof in->id) {
        (void)snprintf(in->id, sizeof in->id, "%.*s", (int)value.len, value.ptr);
        SL_COUNT("sluice_smpp_repeats_total", "", "Messages that a message centre gave a second time", 1);
        err = SL_OK;
    }
    err = err == SL_OK ? in_judged(in) : SL_EAGAIN;
    if (err != SL_OK)
        in_end(in, err);
}

static void add_field(struct sl_buf *out, struct sl_str s)
{
    sl_buf_uint(out, s.len); /* so that no two lists of fields give the same bytes */
    sl_buf_char(out, ':');
    sl_buf_str(out, s);
}

static void in_whole(struct smpp_in *in, const struct smpp_pdu *p, struct sl_str octets)
{
    struct sl_buf b;
    char name[48], ulid[SL_ULID_LEN + 1];
    struct sl_str reference = SL_STR_NONE;
    (void)smpp_tlv_find(p->tlvs, SMPP_TAG_USER_MESSAGE_REFERENCE, &reference);
    sl_buf_init(&b, 0);
    add_field(&b, p->source.number);
    add_field(&b, p->destination.number);
    add_field(&b, reference);
    sl_buf_uint(&b, p->data_coding);
    add_field(&b, octets);
    hash_of(in->hash, sl_buf_view(&b));
    sl_buf_fini(&b);
    sl_ulid_new(ulid, sl_loop_unix_ms(chan_loop(in->sm->ch)));
    (void)snprintf(in->id, sizeof in->id, "%s", ulid);
    sms_decode(sms_alphabet_of(p->data_coding, in->sm->zero), octets, &in->text);
    seen_name(name, in->hash);
    struct chan_kv op = {
        .op = CHAN_KV_ADD, .name = sl_str_c(name), .value = sl_str_c(in->id), .ttl_ms = SEEN_TTL_MS};
    if (kv(in->sm, &op, on_seen, in) != SL_OK)
        in_end(in, SL_EAGAIN);
}

/* ---- answered: remember for a while ---- */

static void seen_forget_first(struct smpp *sm)
{
    struct smpp_seen *first = sm->seen_head;
    sm->seen_head = first->next;
    if (sm->seen_head == NULL)
        sm->seen_tail = NULL;
    if (sl_map_get(sm->seen, sl_str_c(first->hash)) == first)
        (void)sl_map_del(sm->seen, sl_str_c(first->hash));
    free(first);
}

static void seen_remember(struct smpp_in *in)
{
    struct smpp *sm = in->sm;
    if (in->hash[0] == '\0' || in->total > 0 || strlen(in->id) != SL_ULID_LEN)
        return;
    struct smpp_seen *seen = sl_alloc(sizeof *seen);
    memcpy(seen->hash, in->hash, sizeof seen->hash);
    memcpy(seen->id, in->id, sizeof seen->id);
    seen->session = in->session;
    seen->connection = in->connection;
    seen->due_mono_ms = sl_loop_mono_ms(chan_loop(sm->ch)) + SEEN_MS;
    (void)sl_map_set(sm->seen, sl_str_c(seen->hash), seen);
    if (sm->seen_tail != NULL)
        sm->seen_tail->next = seen;
    else
        sm->seen_head = seen;
    sm->seen_tail = seen;
    if (sl_map_count(sm->seen) > SEEN_MAX)
        seen_forget_first(sm);
    if (!sl_timer_is_active(&sm->seen_timer))
        sl_timer_start(&sm->seen_timer, SEEN_MS);
}

/* The session outlived the answer: nobody will repeat it, and the same words are a new message from now on. */
static void on_seen_timer(void *arg)
{
    struct smpp *sm = arg;
    uint64_t now = sl_loop_mono_ms(chan_loop(sm->ch));
    while (sm->seen_head != NULL && sm->seen_head->due_mono_ms <= now) {
        const struct smpp_seen *first = sm->seen_head;
        if (was_answered(sm, first->hash, sl_str_c(first->id))) {
            char name[48];
            seen_name(name, first->hash);
            struct chan_kv op = {.op = CHAN_KV_DROP, .name = sl_str_c(name), .expected = sl_str_c(first->id)};
            (void)(kv(sm, &op, on_nothing, NULL) == SL_OK); /* else it goes by its time limit */
        }
        seen_forget_first(sm);
    }
    if (sm->seen_head != NULL && !sm->is_closing)
        sl_timer_start(&sm->seen_timer, sm->seen_head->due_mono_ms - now);
}

/* ---- parts ---- */

static void part_name(char out[48], const char *hash)
{
    (void)snprintf(out, 48, "part-%s", hash);
}

static void note_name(char out[48], int64_t minute, unsigned shard)
{
    (void)snprintf(out, 48, "parts-%lld-%u", (long long)minute, shard);
}

static void minute_name(char out[48], int64_t minute)
{
    (void)snprintf(out, 48, "parts-%lld", (long long)minute);
}

/* The part lies in its map, and the note says that it waits: durable. */
static void on_noted(void *arg, sl_err err, struct sl_str value)
{
    (void)value;
    in_end(arg, err == SL_OK ? SL_OK : SL_EAGAIN);
}

/* "<parts>|<address>|<number>": what the sweep needs besides the map */
static sl_err write_note(struct smpp_in *in)
{
    char name[48], value[300];
    note_name(name, in->minute, (unsigned)(sl_str_hash(sl_str_c(in->hash), 0) % SHARDS));
    (void)snprintf(value, sizeof value, "%u|%s|%s", in->total, in->address, in->number);
    struct chan_kv op = {.op = CHAN_KV_PUT,
                         .name = sl_str_c(name),
                         .field = sl_str_c(in->hash),
                         .value = sl_str_c(value),
                         .ttl_ms = PART_TTL_MS};
    return kv(in->sm, &op, on_noted, in);
}

static void on_flagged(void *arg, sl_err err, struct sl_str value)
{
    struct smpp_in *in = arg;
    (void)value;
    if (err == SL_OK && in->minute > in->sm->flagged_minute)
        in->sm->flagged_minute = in->minute;
    if (err != SL_OK || write_note(in) != SL_OK)
        in_end(in, SL_EAGAIN);
}

/* The first note of a minute here says that this minute has notes: the sweep looks at no others. */
static sl_err note_part(struct smpp_in *in)
{
    char name[48];
    in->minute = sl_loop_unix_ms(chan_loop(in->sm->ch)) / MINUTE_MS;
    if (in->minute == in->sm->flagged_minute)
        return write_note(in);
    minute_name(name, in->minute);
    struct chan_kv op = {
        .op = CHAN_KV_SET, .name = sl_str_c(name), .value = SL_STR("1"), .ttl_ms = PART_TTL_MS};
    return kv(in->sm, &op, on_flagged, in);
}

/* The message that these parts are; its id follows from the parts alone. */
static sl_err submit_joined(struct smpp_in *in, const struct smpp_joined *j)
{
    struct sl_buf b;
    char hash[HASH_HEX + 1];
    sl_buf_init(&b, 0);
    sl_buf_c(&b, in->hash);
    sl_buf_str(&b, sl_buf_view(j->fields));
    hash_of(hash, sl_buf_view(&b));
    sl_buf_fini(&b);
    (void)snprintf(in->id, sizeof in->id, "long-%s", hash);
    smpp_join_mark(j, in->mark);
    sl_buf_str(&in->marked, sl_buf_view(j->fields));
    smpp_join_text(j, in->total, in->sm->zero, &in->text);
    if (j->parts < in->total) {
        sl_buf_printf(&in->data, "{\"partial\":{\"parts\":%u,\"received\":%u}}", in->total, j->parts);
        SL_COUNT("sluice_smpp_partial_total", "", "Long messages whose parts did not all come", 1);
    }
    return in_submit(in);
}

static void on_part(void *arg, sl_err err, struct sl_str map)
{
    struct smpp_in *in = arg;
    struct smpp_joined j;
    if (err != SL_OK) {
        in_end(in, SL_EAGAIN);
        return;
    }
    smpp_join_init(&j);
    enum smpp_join_result what = smpp_join(map, in->total, sl_str_c(in->field), &j);
    if (what == SMPP_JOIN_WAITS)
        err = note_part(in);
    else
        err = submit_joined(in, &j);
    smpp_join_fini(&j);
    if (err != SL_OK)
        in_end(in, err);
}

static void in_part(struct smpp_in *in, const struct smpp_pdu *p, const struct smpp_part *part)
{
    struct sl_buf b;
    char name[48];
    sl_buf_init(&b, 0);
    add_field(&b, p->source.number);
    add_field(&b, p->destination.number);
    sl_buf_printf(&b, "%d.%u.%u", (int)part->joint, part->ref, part->total);
    hash_of(in->hash, sl_buf_view(&b));
    sl_buf_clear(&b);
    in->total = part->total;
    smpp_join_field(in->field, part);
    smpp_join_value(&b, part, p->data_coding, sl_loop_unix_ms(chan_loop(in->sm->ch)));
    part_name(name, in->hash);
    struct chan_kv op = {.op = CHAN_KV_PUT,
                         .name = sl_str_c(name),
                         .field = sl_str_c(in->field),
                         .value = sl_buf_view(&b),
                         .ttl_ms = PART_TTL_MS};
    sl_err err = kv(in->sm, &op, on_part, in);
    sl_buf_fini(&b);
    if (err != SL_OK)
        in_end(in, SL_EAGAIN);
}

static void mark_parts(struct smpp_in *in)
{
    char name[48];
    part_name(name, in->hash);
    struct chan_kv op = {.op = CHAN_KV_PUT,
                         .name = sl_str_c(name),
                         .field = sl_str_c(in->mark),
                         .value = sl_buf_view(&in->marked),
                         .ttl_ms = PART_TTL_MS};
    (void)(kv(in->sm, &op, on_nothing, NULL) == SL_OK); /* lost: the id alone tells a repeat from a new one */
}

/* ---- receipts ---- */

static enum chan_outcome_word word_of(enum smpp_state s)
{
    switch (s) {
    case SMPP_STATE_DELIVERED:
        return CHAN_WORD_DELIVERED;
    case SMPP_STATE_EXPIRED:
    case SMPP_STATE_DELETED:
    case SMPP_STATE_UNDELIVERABLE:
    case SMPP_STATE_REJECTED:
        return CHAN_WORD_FAILED;
    case SMPP_STATE_NONE:
    case SMPP_STATE_ENROUTE:
    case SMPP_STATE_ACCEPTED: /* by somebody on behalf of the customer: no proof of delivery */
    case SMPP_STATE_UNKNOWN:
        return CHAN_WORD_SENT;
    }
    return CHAN_WORD_SENT;
}

static sl_err submit_receipt(struct smpp_in *in, const struct smpp_receipt *r)
{
    struct smpp *sm = in->sm;
    char code[32] = "", words[120];
    if (r->network_error != 0)
        (void)snprintf(code, sizeof code, "%u/%u", r->network_error >> 16, r->network_error & 0xffff);
    else
        (void)snprintf(code, sizeof code, "%.*s", (int)(r->error.len < 16 ? r->error.len : 16), r->error.ptr);
    if (!sl_str_utf8(sl_str_c(code)))
        code[0] = '\0';
    (void)snprintf(words, sizeof words, "%s%s%s", smpp_state_word(r->state),
                   code[0] != '\0' ? ", error " : "", code);
    smpp_id_form(&in->text, r->id, sm->ids, true);
    struct chan_receipt receipt = {.remote_id = sl_buf_view(&in->text),
                                   .word = word_of(r->state),
                                   .code = sl_str_c(code),
                                   .words = sl_str_c(words)};
    sl_buf_printf(&in->data, "%.*s|%d|%s", (int)in->text.len, in->text.ptr, (int)r->state, code);
    char hash[HASH_HEX + 1];
    hash_of(hash, sl_buf_view(&in->data));
    (void)snprintf(in->id, sizeof in->id, "dlr-%s", hash);
    in->ticket.id = sl_str_c(in->id);
    sl_err err = chan_host_of(sm->ch)->receipt(sm->ch, &receipt, &in->ticket);
    if (err != SL_OK)
        return err;
    in->is_waiting = true;
    sm->in_waiting++;
    return SL_OK;
}

/* ---- the door ---- */

static struct smpp_in *in_of(struct smpp *sm, struct smpp_session *s, const struct smpp_pdu *p)
{
    struct smpp_in *in = in_new(sm);
    in->session = s;
    in->connection = smpp_session_connection(s);
    in->command = p->command;
    in->seq = p->seq;
    write_address(in->address, &p->source);
    struct sl_str to = p->destination.number;
    for (size_t i = 0; i < to.len && i < sizeof in->number - 1; i++)
        in->number[i] = to.ptr[i] >= ' ' && to.ptr[i] < 127 && to.ptr[i] != '|' ? to.ptr[i] : '_';
    return in;
}

static void on_receipt(struct smpp *sm, struct smpp_session *s, const struct smpp_pdu *p)
{
    struct smpp_receipt r;
    if (smpp_receipt_read(p, &r) != SL_OK) {
        /* It names no message: nothing can be done with it, now or later. Refused, it would come back for ever. */
        SL_COUNT("sluice_smpp_unreadable_receipts_total", "", "Receipts without an id or a state", 1);
        answer(s, p, SMPP_OK);
        return;
    }
    struct smpp_in *in = in_of(sm, s, p);
    sl_err err = submit_receipt(in, &r);
    if (err != SL_OK)
        in_end(in, err);
}

void smpp_in_request(struct smpp *sm, struct smpp_session *s, const struct smpp_pdu *p)
{
    struct smpp_part part;
    if (sm->is_draining || sm->in_count >= SMPP_INBOUND_MAX) {
        answer(s, p, SMPP_TEMPORARY);
        return;
    }
    if (smpp_is_receipt(p)) {
        on_receipt(sm, s, p);
        return;
    }
    if (smpp_part_read(p, &part) != SL_OK) {
        SL_COUNT("sluice_smpp_malformed_total", "", "PDUs of message centres that cannot be read", 1);
        answer(s, p, SMPP_INVMSGLEN);
        return;
    }
    struct smpp_in *in = in_of(sm, s, p);
    if (part.joint != SMPP_WHOLE) {
        in_part(in, p, &part);
        return;
    }
    if (part.is_port || sms_alphabet_of(p->data_coding, sm->zero) == SMS_BINARY) {
        sl_buf_printf(&in->data, "{\"binary\":{\"bytes\":%zu}}", part.octets.len);
        struct smpp_pdu note = *p;
        note.data_coding = 3;
        in_whole(in, &note, SL_STR("[binary message]"));
        return;
    }
    in_whole(in, p, part.octets);
}

void smpp_in_accepted(struct smpp *sm, struct chan_ticket *t, sl_err result)
{
    struct smpp_in *in = t->owner;
    sm->in_waiting--;
    in->is_waiting = false;
    if (result == SL_OK && !sm->is_closing) {
        if (in->total > 0)
            mark_parts(in);
        else
            seen_remember(in);
    }
    in_end(in, result);
    if (sm->is_closing)
        smpp_turn_soon(sm);
}

/* ---- the sweep: parts that waited too long ---- */

static void sweep_next(struct smpp *sm);

static void sweep_next_minute(struct smpp *sm)
{
    sm->sweep_shard = 0;
    sm->swept_minute++;
}

static void on_old_parts(void *arg, sl_err err, struct sl_str map)
{
    struct smpp_in *in = arg;
    struct smpp_joined j;
    smpp_join_init(&j);
    if (err == SL_OK)
        (void)smpp_join(map, in->total, SL_STR_NONE, &j);
    err = j.parts > 0 ? submit_joined(in, &j) : SL_EAGAIN;
    smpp_join_fini(&j);
    if (err != SL_OK)
        in_free(in);
}

/* false: no room or no store; to be looked at again */
static bool sweep_one(struct smpp *sm, struct sl_str hash, struct sl_str note)
{
    char name[48];
    unsigned total = 0;
    char line[300], address[MSG_ID_MAX_BYTES + 1] = "", number[68] = "";
    if (hash.len != HASH_HEX || note.len >= sizeof line)
        return true; /* not a note of ours */
    if (sm->in_count >= SMPP_INBOUND_MAX)
        return false;
    (void)snprintf(line, sizeof line, "%.*s", (int)note.len, note.ptr);
    if (sscanf(line, "%u|%128[^|]|%67[^|]", &total, address, number) < 2 || total < 2 ||
        total > SMPP_PARTS_MAX || !key_part_ok(sl_str_c(address)))
        return true;
    struct smpp_in *in = in_new(sm);
    (void)snprintf(in->hash, sizeof in->hash, "%.*s", (int)hash.len, hash.ptr);
    (void)snprintf(in->address, sizeof in->address, "%s", address);
    (void)snprintf(in->number, sizeof in->number, "%s", number);
    in->total = total;
    part_name(name, in->hash);
    struct chan_kv op = {.op = CHAN_KV_PUT,
                         .name = sl_str_c(name),
                         .field = SL_STR("swept"),
                         .value = SL_STR("1"),
                         .ttl_ms = PART_TTL_MS};
    if (kv(sm, &op, on_old_parts, in) == SL_OK)
        return true;
    in_free(in);
    return false;
}

static struct sl_str cut_at_nul(struct sl_str *rest)
{
    size_t len = strnlen(rest->ptr, rest->len);
    struct sl_str head = sl_str_n(rest->ptr, len);
    size_t used = len < rest->len ? len + 1 : len;
    *rest = sl_str_n(rest->ptr + used, rest->len - used);
    return head;
}

static void on_notes(void *arg, sl_err err, struct sl_str map)
{
    struct smpp *sm = arg;
    sm->sweeps--;
    while (err == SL_OK && map.len > 0) {
        struct sl_str hash = cut_at_nul(&map), note = cut_at_nul(&map);
        if (!sweep_one(sm, hash, note))
            err = SL_EAGAIN;
    }
    if (err != SL_OK)
        return; /* the same shard again at the next tick: what is done twice has the same id */
    if (++sm->sweep_shard > SHARDS)
        sweep_next_minute(sm);
    sweep_next(sm);
}

static void on_flag(void *arg, sl_err err, struct sl_str value)
{
    struct smpp *sm = arg;
    (void)value;
    sm->sweeps--;
    if (err == SL_OK)
        sm->sweep_shard = 1;
    else if (err == SL_ENOTFOUND)
        sweep_next_minute(sm);
    else
        return; /* again at the next tick */
    sweep_next(sm);
}

/* One call at a time: shard 0 asks whether the minute has notes, 1..SHARDS read them. */
static void sweep_next(struct smpp *sm)
{
    char name[48];
    int64_t now_minute = sl_loop_unix_ms(chan_loop(sm->ch)) / MINUTE_MS;
    if (!sm->is_holder || sm->is_draining || sm->sweeps > 0 || sm->in_count >= SMPP_INBOUND_MAX / 2 ||
        sm->swept_minute + 1 + PART_WAIT_MS / MINUTE_MS >= now_minute)
        return;
    struct chan_kv op = {.op = CHAN_KV_GET};
    if (sm->sweep_shard == 0)
        minute_name(name, sm->swept_minute + 1);
    else
        note_name(name, sm->swept_minute + 1, sm->sweep_shard - 1);
    op.name = sl_str_c(name);
    if (sm->sweep_shard > 0) { /* reads a map by the one way there is: a field of no meaning */
        op.op = CHAN_KV_PUT;
        op.field = SL_STR("swept");
        op.value = SL_STR("1");
        op.ttl_ms = PART_TTL_MS;
    }
    if (kv(sm, &op, sm->sweep_shard == 0 ? on_flag : on_notes, sm) == SL_OK)
        sm->sweeps++;
}

static void on_sweep_timer(void *arg)
{
    struct smpp *sm = arg;
    sweep_next(sm);
    if (sm->is_holder && !sm->is_closing)
        sl_timer_start(&sm->sweep_timer, SWEEP_EVERY_MS);
}

void smpp_in_hold(struct smpp *sm, bool is_holder)
{
    sm->is_holder = is_holder;
    if (!is_holder) {
        sl_timer_stop(&sm->sweep_timer);
        return;
    }
    /* what an earlier holder may not have looked through: all that repeats are recognised for */
    sm->swept_minute = sl_loop_unix_ms(chan_loop(sm->ch)) / MINUTE_MS - SWEEP_BACK;
    sm->sweep_shard = 0;
    sl_timer_start(&sm->sweep_timer, SWEEP_EVERY_MS);
}

/* ---- open and close ---- */

void smpp_in_open(struct smpp *sm)
{
    sm->seen = sl_map_new();
    sl_timer_init(&sm->seen_timer, chan_loop(sm->ch), on_seen_timer, sm);
    sl_timer_init(&sm->sweep_timer, chan_loop(sm->ch), on_sweep_timer, sm);
}

/* After close the store calls nothing back: what waited for it is forgotten, unanswered. */
void smpp_in_close(struct smpp *sm)
{
    for (struct smpp_in *in = sm->ins, *next; in != NULL; in = next) {
        next = in->next;
        if (!in->is_waiting)
            in_free(in);
    }
    sl_timer_stop(&sm->sweep_timer);
    sl_timer_stop(&sm->seen_timer);
    while (sm->seen_head != NULL)
        seen_forget_first(sm);
    sl_map_free(&sm->seen);
}
