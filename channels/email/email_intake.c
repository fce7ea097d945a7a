/* channels/email/email_intake.c - one mail on its way from bytes to the store.
 *
 * Parsing runs in the thread pool: a mail of 25 MB takes longer than the loop may wait. Then, in this order: what cannot be
 * parsed is put aside; a report becomes a receipt; attachments go to the media store; the thread is looked up; the message is
 * handed in. Only after the core's word the one who brought the mail hears "taken".
 */
#include "channels/email/email_priv.h"

#include "channels/email/mail_auth.h"

#include "base/crypto.h"
#include "base/fault.h"
#include "base/json.h"
#include "base/log.h"
#include "proto/keys.h"

#include <stdio.h>
#include <stdlib.h>

#define HEAD_BYTES         (256u << 10) /* of a mail that is too large for the media store */
#define RECIPIENTS_KEPT    8
#define CONTEXT_REFS_BYTES 2600 /* of CHAN_CONTEXT_MAX */
#define EXTRA_FILES        2    /* the full text, and the HTML body */
#define FILES_ALL          (EMAIL_FILES_MAX + EXTRA_FILES)

enum intake_step {
    INTAKE_PARSE,
    INTAKE_QUARANTINE,
    INTAKE_FILES,
    INTAKE_THREAD,
    INTAKE_HANDED_IN,
    INTAKE_DONE
};

struct stored_file {
    char id[65];
    struct sl_str type, name;
    int64_t size;
    const char *role; /* NULL: an attachment; "full", "html" */
};

struct email_intake {
    struct email_intake *next, **prev;
    struct email *em;
    uint64_t id;
    enum intake_step step;
    email_intake_fn fn;
    void *arg;
    struct sl_buf raw;
    struct email_heap *heap;
    bool is_envelope_known;
    struct sl_str sender, recipients[RECIPIENTS_KEPT];
    size_t recipient_count;
    uv_work_t work;
    struct sl_post post; /* a virtual loop has no pool */
    sl_err parse_err;
    struct sl_fail parse_why;
    struct email_mail *m;
    struct stored_file files[FILES_ALL];
    size_t file_count, put_next;
    char conversation[EMAIL_CONV_MAX];
    enum email_proof proof;
    bool is_stranger;
    enum email_auto auto_kind;
    enum email_trust trust;
    struct chan_ticket ticket;
    char ticket_id[80];
    bool is_handed_in, is_working;
    bool is_cut;    /* its head alone is put aside */
    bool is_asking; /* the core will call us back: our memory must stay */
    bool is_told;   /* and who brought the mail knows its end already */
    bool is_orphan; /* closed while the pool reads it */
    sl_err result;  /* for the post that tells it */
};

/* ---- life ---- */

static void intake_free(struct email_intake *in)
{
    if (!in->is_orphan) {
        *in->prev = in->next;
        if (in->next != NULL)
            in->next->prev = in->prev;
        in->em->intake_count--;
    }
    sl_post_cancel(&in->post);
    email_mail_free(&in->m);
    email_heap_free(&in->heap);
    sl_buf_fini(&in->raw);
    free(in);
}

static void on_told(void *arg)
{
    struct email_intake *in = arg;
    struct email *em = in->em;
    email_intake_fn fn = in->fn;
    void *fn_arg = in->arg;
    const uint64_t id = in->id;
    const sl_err result = in->result;
    in->is_told = true;
    if (!in->is_asking)
        intake_free(in);
    if (fn != NULL)
        fn(fn_arg, id, result);
    email_finish(em);
}

/* The end: told on a later turn. */
static void intake_end(struct email_intake *in, sl_err result)
{
    if (in->step == INTAKE_DONE)
        return;
    in->step = INTAKE_DONE;
    in->result = result;
    email_count(result == SL_OK ? "taken" : "deferred");
    sl_post_init(&in->post, chan_loop(in->em->ch), on_told, in);
    sl_post_now(&in->post);
}

/* First in every callback of the core: true when nothing is left to do. */
static bool is_over(struct email_intake *in)
{
    in->is_asking = false;
    if (in->step != INTAKE_DONE)
        return false;
    if (in->is_told)
        intake_free(in);
    return true;
}

static struct email_intake *intake_find(struct email *em, uint64_t id)
{
    for (struct email_intake *in = em->intakes; in != NULL; in = in->next)
        if (in->id == id)
            return in;
    return NULL;
}

bool email_intake_has_room(const struct email *em)
{
    return !em->is_draining && em->intake_count < EMAIL_INTAKES_MAX;
}

/* ---- parse, off the loop ---- */

static void run_parse(struct email_intake *in)
{
    in->parse_err = email_parse(sl_buf_view(&in->raw), &in->m, &in->parse_why);
}

static void on_parsed(struct email_intake *in);

static void on_work(uv_work_t *req)
{
    run_parse(req->data);
}

static void on_work_done(uv_work_t *req, int status)
{
    struct email_intake *in = req->data;
    (void)status;
    struct email *em = in->em;
    in->is_working = false;
    em->works--;
    if (in->is_orphan) {
        intake_free(in);
        email_finish(em);
    } else {
        on_parsed(in);
    }
}

static void on_virtual_work(void *arg)
{
    run_parse(arg);
    on_parsed(arg);
}

static void keep_envelope(struct email_intake *in, const struct email_envelope *env)
{
    in->is_envelope_known = env->is_known;
    in->sender = email_heap_copy(in->heap, env->sender);
    for (size_t i = 0; i < env->recipient_count; i++) { /* those with tokens first, when there are many */
        char what[EMAIL_CONV_MAX];
        const enum email_to to = email_address_read(&in->em->keys, env->recipients[i], what);
        const bool has_token = to == EMAIL_TO_CONVERSATION || to == EMAIL_TO_BOUNCE;
        if (in->recipient_count < RECIPIENTS_KEPT)
            in->recipients[in->recipient_count++] = email_heap_copy(in->heap, env->recipients[i]);
        else if (has_token)
            in->recipients[0] = email_heap_copy(in->heap, env->recipients[i]);
    }
}

uint64_t email_intake(struct email *em, struct sl_buf *raw, const struct email_envelope *env,
                      email_intake_fn fn, void *arg)
{
    struct email_intake *in = sl_alloc(sizeof *in);
    uv_loop_t *uv = sl_loop_uv(chan_loop(em->ch));
    in->em = em;
    in->id = ++em->next_id;
    in->fn = fn;
    in->arg = arg;
    in->raw = *raw;
    sl_buf_init(raw, raw->max);
    in->heap = email_heap_new();
    in->next = em->intakes;
    in->prev = &em->intakes;
    if (em->intakes != NULL)
        em->intakes->prev = &in->next;
    em->intakes = in;
    em->intake_count++;
    keep_envelope(in, env);
    in->work.data = in;
    sl_post_init(&in->post, chan_loop(em->ch), on_virtual_work, in);
    in->is_working = uv != NULL && uv_queue_work(uv, &in->work, on_work, on_work_done) == 0;
    if (in->is_working)
        em->works++;
    else
        sl_post_now(&in->post);
    return in->id;
}

void email_intake_forget(struct email *em, uint64_t id)
{
    struct email_intake *in = intake_find(em, id);
    if (in != NULL)
        in->fn = NULL;
}

/* A shared value is asked for; fn comes, or SL_EAGAIN. */
static sl_err ask_kv(struct email_intake *in, enum chan_kv_op op, const char *name, struct sl_str field,
                     struct sl_str value, int64_t ttl_ms, chan_kv_fn fn)
{
    in->is_asking = email_kv(in->em, op, name, field, value, ttl_ms, fn, in) == SL_OK;
    return in->is_asking ? SL_OK : SL_EAGAIN;
}

/* ---- quarantine: what cannot be read is kept, with its reason ---- */

static void on_quarantine_noted(void *arg, sl_err err, struct sl_str value)
{
    struct email_intake *in = arg;
    (void)value;
    if (is_over(in))
        return;
    if (err != SL_OK) {
        intake_end(in, SL_EAGAIN);
        return;
    }
    email_count("quarantined");
    sl_log(SL_WARN, "email: a mail was put aside; see `sluice quarantine list`",
           SL_KV("inbox", chan_inbox(in->em->ch)), SL_KV("media", in->files[0].id),
           SL_KV("reason", in->parse_why.text));
    intake_end(in, SL_OK);
}

static void note_quarantine(struct email_intake *in, const char *media_id)
{
    struct sl_buf b;
    struct sl_json j;
    sl_buf_init(&b, 4096);
    sl_json_begin(&j, &b);
    sl_json_open(&j, NULL, '{');
    sl_json_int(&j, "at", sl_loop_unix_ms(chan_loop(in->em->ch)));
    sl_json_c(&j, "reason", in->parse_why.text);
    sl_json_int(&j, "size", (int64_t)(in->m != NULL ? in->m->raw.len : in->raw.len));
    sl_json_close(&j, '}');
    const sl_err err = ask_kv(in, CHAN_KV_PUT, "quarantine", sl_str_c(media_id), sl_buf_view(&b),
                              EMAIL_QUARANTINE_MS, on_quarantine_noted);
    sl_buf_fini(&b);
    if (err != SL_OK)
        intake_end(in, SL_EAGAIN);
}

static void quarantine_head(struct email_intake *in);

static void on_quarantine_stored(void *arg, sl_err err, const struct chan_media *media, struct sl_str bytes,
                                 const struct sl_fail *why)
{
    struct email_intake *in = arg;
    (void)bytes;
    (void)why;
    if (is_over(in))
        return;
    if (err == SL_ETOOBIG && !in->is_cut) {
        quarantine_head(in);
        return;
    }
    if (err != SL_OK) {
        intake_end(in, SL_EAGAIN);
        return;
    }
    (void)snprintf(in->files[0].id, sizeof in->files[0].id, "%s", media->id);
    note_quarantine(in, in->files[0].id);
}

static void media_alarm(struct email *em, bool is_on)
{
    if (em->has_media_alarm == is_on)
        return;
    em->has_media_alarm = is_on;
    chan_host_of(em->ch)->alarm(
        em->ch, "media", is_on,
        is_on ? "attachments of mails cannot be stored: look at media.dir; mails wait at their server" : "");
}

static sl_err put_media(struct email_intake *in, struct sl_str bytes, struct sl_str type, struct sl_str name,
                        chan_media_fn fn)
{
    const struct chan_host *host = chan_host_of(in->em->ch);
    if (host->media_put == NULL)
        return SL_EAGAIN;
    const sl_err err = host->media_put(in->em->ch, bytes, type, name, fn, in);
    in->is_asking = err == SL_OK;
    if (err != SL_OK)
        media_alarm(in->em, true);
    return err;
}

static void quarantine_bytes(struct email_intake *in, struct sl_str bytes, struct sl_str name)
{
    if (bytes.len == 0) /* the media store keeps no nothing, and the mail would come back for ever */
        bytes = SL_STR("\r\n");
    const sl_err err = put_media(in, bytes, SL_STR("message/rfc822"), name, on_quarantine_stored);
    if (err == SL_ETOOBIG && !in->is_cut)
        quarantine_head(in);
    else if (err != SL_OK)
        intake_end(in, SL_EAGAIN);
}

static struct sl_str raw_of(const struct email_intake *in)
{
    return in->m != NULL ? in->m->raw : sl_buf_view(&in->raw);
}

/* Larger than the media store takes: its head says who wrote and what. */
static void quarantine_head(struct email_intake *in)
{
    in->is_cut = true;
    const struct sl_str raw = raw_of(in);
    quarantine_bytes(in, sl_str_n(raw.ptr, raw.len < HEAD_BYTES ? raw.len : HEAD_BYTES),
                     SL_STR("quarantine-head.eml"));
}

static void quarantine(struct email_intake *in)
{
    in->step = INTAKE_QUARANTINE;
    quarantine_bytes(in, raw_of(in), SL_STR("quarantine.eml"));
}

/* ---- reports become receipts ---- */

static bool find_key(struct email_intake *in, char key[EMAIL_CONV_MAX])
{
    const struct email_keys *keys = &in->em->keys;
    char conv[EMAIL_CONV_MAX];
    for (size_t i = 0; i < in->recipient_count; i++)
        if (email_address_read(keys, in->recipients[i], key) == EMAIL_TO_BOUNCE)
            return true;
    for (size_t i = 0; i < in->m->to_count; i++)
        if (email_address_read(keys, in->m->to[i].address, key) == EMAIL_TO_BOUNCE)
            return true;
    return email_message_id_read(keys, in->m->reported_id, conv, key);
}

/* The report that counts: a failure before a success, a success before anything else. */
static const struct email_report *main_report(const struct email_mail *m)
{
    const struct email_report *best = NULL;
    for (size_t i = 0; i < m->report_count; i++) {
        const struct email_report *r = &m->reports[i];
        if (r->action == EMAIL_FAILED)
            return r;
        if (best == NULL || r->action == EMAIL_DELIVERED)
            best = r;
    }
    return best;
}

static void message_hash(const struct email_intake *in, const char *prefix, char out[80])
{
    const struct email_mail *m = in->m;
    struct sl_buf b;
    unsigned char hash[32];
    char hex[41];
    sl_buf_init(&b, 0);
    sl_buf_str(&b, in->em->keys.address); /* one mail to two addresses of one inbox is one mail */
    sl_buf_char(&b, '\n');
    sl_buf_str(&b, m->message_id);
    sl_buf_char(&b, '\n');
    if (m->message_id.len == 0) {
        sl_buf_str(&b, m->from.address);
        sl_buf_char(&b, '\n');
        sl_buf_str(&b, email_header(&m->headers, "date"));
        sl_buf_str(&b, m->subject);
    }
    sl_buf_add(&b, m->body_sha256, sizeof m->body_sha256);
    sl_sha256(sl_buf_view(&b), hash);
    sl_hex(hex, hash, 20);
    (void)snprintf(out, 80, "%.20s-%s", prefix, hex);
    sl_buf_fini(&b);
}

/* false: it says nothing about a mail of ours; it is shown like any other mail. */
static bool hand_in_report(struct email_intake *in)
{
    const struct email_mail *m = in->m;
    const struct email_report *r = main_report(m);
    const struct chan_host *host = chan_host_of(in->em->ch);
    char key[EMAIL_CONV_MAX];
    if (m->kind == EMAIL_LETTER || !find_key(in, key) || (m->kind == EMAIL_DELIVERY_REPORT && r == NULL))
        return false;
    struct chan_receipt receipt = {
        .remote_id = sl_str_c(key), .word = CHAN_WORD_READ, .at_unix_ms = m->date_unix_ms};
    if (m->kind == EMAIL_DELIVERY_REPORT) {
        if (r->action != EMAIL_FAILED &&
            r->action != EMAIL_DELIVERED) { /* delayed, relayed: nothing has been decided */
            email_count("report-undecided");
            intake_end(in, SL_OK);
            return true;
        }
        receipt.word = r->action == EMAIL_FAILED ? CHAN_WORD_FAILED : CHAN_WORD_DELIVERED;
        receipt.code = r->status;
        receipt.words = r->words;
    }
    email_count("report");
    message_hash(in, "report", in->ticket_id);
    in->ticket = (struct chan_ticket){.owner = in, .id = sl_str_c(in->ticket_id)};
    in->step = INTAKE_HANDED_IN;
    in->is_handed_in = true;
    if (host->receipt(in->em->ch, &receipt, &in->ticket) != SL_OK) {
        in->is_handed_in = false;
        intake_end(in, SL_EAGAIN);
    }
    return true;
}

/* ---- the message ---- */

static void write_files(const struct email_intake *in, struct sl_json *j)
{
    sl_json_open(j, "attachments", '[');
    for (size_t i = 0; i < in->file_count; i++) {
        const struct stored_file *f = &in->files[i];
        if (f->role != NULL)
            continue;
        sl_json_open(j, NULL, '{');
        sl_json_c(j, "id", f->id);
        sl_json_str(j, "type", f->type);
        sl_json_int(j, "size", f->size);
        sl_json_c(j, "sha256", f->id);
        sl_json_str(j, "name", f->name);
        sl_json_close(j, '}');
    }
    sl_json_close(j, ']');
}

static size_t attachments_of(const struct email_intake *in)
{
    size_t n = 0;
    for (size_t i = 0; i < in->file_count; i++)
        n += in->files[i].role == NULL;
    return n;
}

static bool is_auto(const struct email_intake *in)
{
    return in->auto_kind != EMAIL_BY_PERSON;
}

/* {"attachments":[..],"auto":true,"email":{..}}: proto/message.h leaves room for what a channel knows beside the text. */
static void write_data(const struct email_intake *in, struct sl_buf *out)
{
    const struct email_mail *m = in->m;
    struct sl_json j;
    sl_json_begin(&j, out);
    sl_json_open(&j, NULL, '{');
    if (attachments_of(in) > 0)
        write_files(in, &j);
    if (is_auto(in))
        sl_json_bool(&j, "auto", true);
    sl_json_open(&j, "email", '{');
    sl_json_str(&j, "subject", email_utf8_head(m->subject, 500));
    sl_json_str(&j, "from", m->from.address);
    sl_json_str(&j, "name", email_utf8_head(m->from.name, 200));
    sl_json_bool(&j, "verified", in->trust == EMAIL_VERIFIED);
    if (is_auto(in))
        sl_json_c(&j, "auto", email_auto_name(in->auto_kind));
    if (in->proof != EMAIL_NO_THREAD)
        sl_json_c(&j, "thread", email_proof_name(in->proof));
    if (in->is_stranger)
        sl_json_bool(&j, "stranger", true);
    for (size_t i = 0; i < in->file_count; i++)
        if (in->files[i].role != NULL)
            sl_json_c(&j, in->files[i].role, in->files[i].id);
    if (m->files_left_out > 0)
        sl_json_int(&j, "left_out", (int64_t)m->files_left_out);
    sl_json_close(&j, '}');
    sl_json_close(&j, '}');
}

/* What the answer needs. The chain's first and newest ids, as many as there is room for. */
static void write_context(const struct email_intake *in, struct sl_buf *out)
{
    const struct email_mail *m = in->m;
    struct sl_json j;
    size_t bytes = 0, from = m->reference_count;
    while (from > 1 && bytes + m->references[from - 1].len < CONTEXT_REFS_BYTES)
        bytes += m->references[--from].len + 4;
    sl_json_begin(&j, out);
    sl_json_open(&j, NULL, '{');
    sl_json_str(&j, "message_id", m->message_id);
    sl_json_str(&j, "subject", email_utf8_head(m->subject, 400));
    /* an unverified Reply-To would send the answer to whoever wrote it */
    sl_json_str(&j, "to", m->reply_to.len > 0 && in->trust == EMAIL_VERIFIED ? m->reply_to : m->from.address);
    sl_json_str(&j, "from", m->from.address);
    if (is_auto(in))
        sl_json_bool(&j, "auto", true);
    sl_json_open(&j, "references", '[');
    for (size_t i = 0; i < m->reference_count; i++)
        if (i == 0 || i >= from)
            sl_json_str(&j, NULL, m->references[i]);
    sl_json_close(&j, ']');
    sl_json_close(&j, '}');
}

static struct sl_str text_of(const struct email_intake *in, enum msg_kind *kind)
{
    const struct email_mail *m = in->m;
    *kind = MSG_TEXT;
    if (m->visible.len > 0)
        return email_utf8_head(m->visible, MSG_TEXT_MAX_BYTES);
    if (attachments_of(in) > 0) {
        *kind = MSG_FILE;
        return m->subject;
    }
    return m->subject.len > 0 ? m->subject : SL_STR("（空邮件 / empty mail）");
}

static void hand_in(struct email_intake *in)
{
    struct email *em = in->em;
    struct sl_fail why = {.text = ""};
    struct sl_buf data, context;
    char who[MSG_ID_MAX_BYTES + 1];
    struct msg msg = {.by = MSG_BY_VISITOR,
                      .inbox = sl_str_c(chan_inbox(em->ch)),
                      .tenant = sl_str_c(chan_tenant(em->ch)),
                      .channel = SL_STR("email"),
                      .provider_id =
                          in->m->message_id.len <= MSG_ID_MAX_BYTES ? in->m->message_id : SL_STR_NONE,
                      .sent_unix_ms = in->m->date_unix_ms};
    message_hash(in, "mail", in->ticket_id);
    msg.id = sl_str_c(in->ticket_id);
    msg.text = text_of(in, &msg.kind);
    sl_buf_init(&data, MSG_DATA_MAX_BYTES);
    sl_buf_init(&context, CHAN_CONTEXT_MAX);
    write_data(in, &data);
    write_context(in, &context);
    msg.data = sl_buf_view(&data);
    in->ticket = (struct chan_ticket){.owner = in,
                                      .id = msg.id,
                                      .context = context.overflow ? SL_STR_NONE : sl_buf_view(&context),
                                      .conversation = sl_str_c(in->conversation)};
    sl_err err = SL_EINVAL;
    if (data.overflow || !email_who_write(in->m->from.address, who)) {
        (void)sl_fail_set(&why, SL_EINVAL, 0, "the sender's address or the list of attachments is too long");
    } else {
        msg.who = sl_str_c(who);
        err = msg_check(&msg, &why);
    }
    if (err == SL_OK) {
        sl_kill_point("mail.before_append");
        in->step = INTAKE_HANDED_IN;
        in->is_handed_in = true;
        err = chan_host_of(em->ch)->inbound(em->ch, &msg, &in->ticket);
        if (err != SL_OK) {
            in->is_handed_in = false;
            intake_end(in, SL_EAGAIN);
        }
    } else {
        in->parse_why = why;
        quarantine(in);
    }
    sl_buf_fini(&data);
    sl_buf_fini(&context);
}

void email_intake_accepted(struct chan_ticket *t, sl_err result)
{
    struct email_intake *in = t->owner;
    in->is_handed_in = false;
    sl_kill_point("mail.after_append");
    if (result == SL_OK || sl_err_retry(result)) {
        intake_end(in, result == SL_OK ? SL_OK : SL_EAGAIN);
        return;
    }
    (void)sl_fail_set(&in->parse_why, result, 0, "the store refuses it: %s", sl_err_text(result));
    quarantine(in); /* asking again would not help */
}

/* ---- whose thread? ---- */

/* A map of name\0value\0: is there a name like this? */
static bool map_has(struct sl_str map, struct sl_str name, bool *is_empty)
{
    bool found = false;
    *is_empty = true;
    while (map.len > 0) {
        const struct sl_str key = sl_str_n(map.ptr, strnlen(map.ptr, map.len));
        const size_t used = key.len < map.len ? key.len + 1 : key.len;
        map = sl_str_n(map.ptr + used, map.len - used);
        const size_t value = strnlen(map.ptr, map.len);
        map = sl_str_n(map.ptr + (value < map.len ? value + 1 : value),
                       map.len - (value < map.len ? value + 1 : value));
        if (sl_str_eq_c(key, "-"))
            continue;
        *is_empty = false;
        found = found || sl_str_eq(key, name);
    }
    return found;
}

static void on_participants(void *arg, sl_err err, struct sl_str value)
{
    struct email_intake *in = arg;
    char who[MSG_ID_MAX_BYTES + 1];
    bool is_empty;
    if (is_over(in))
        return;
    if (err != SL_OK) {
        intake_end(in, SL_EAGAIN);
        return;
    }
    if (email_who_write(in->m->from.address, who))
        in->is_stranger = !map_has(value, sl_str_c(who), &is_empty) && !is_empty;
    hand_in(in);
}

/* "conversation who": a message id of the customer's own, noted when it was answered. It counts for that customer only. */
static void on_foreign_id(void *arg, sl_err err, struct sl_str value)
{
    struct email_intake *in = arg;
    char who[MSG_ID_MAX_BYTES + 1];
    if (is_over(in))
        return;
    if (err != SL_OK && err != SL_ENOTFOUND) {
        intake_end(in, SL_EAGAIN);
        return;
    }
    const char *blank = err == SL_OK && value.len > 0 ? memchr(value.ptr, ' ', value.len) : NULL;
    const size_t n = blank != NULL ? (size_t)(blank - value.ptr) : 0;
    if (n > 0 && n < EMAIL_CONV_MAX && email_who_write(in->m->from.address, who) &&
        sl_str_eq_c(sl_str_n(blank + 1, value.len - n - 1), who)) {
        memcpy(in->conversation, value.ptr, n);
        in->conversation[n] = '\0';
    }
    hand_in(in);
}

static void find_thread(struct email_intake *in)
{
    const struct email_mail *m = in->m;
    char name[64];
    sl_err err = SL_OK;
    in->step = INTAKE_THREAD;
    in->proof = email_thread_of(&in->em->keys, m, in->recipients, in->recipient_count, in->conversation);
    const struct sl_str parent = m->in_reply_to.len > 0   ? m->in_reply_to
                                 : m->reference_count > 0 ? m->references[m->reference_count - 1]
                                                          : SL_STR_NONE;
    if (in->proof != EMAIL_NO_THREAD) {
        email_name_of("who", sl_str_c(in->conversation), name);
        err = ask_kv(in, CHAN_KV_PUT, name, SL_STR("-"), SL_STR("1"), EMAIL_MEMORY_MS, on_participants);
    } else if (parent.len > 0) {
        email_name_of("mid", parent, name);
        err = ask_kv(in, CHAN_KV_GET, name, SL_STR_NONE, SL_STR_NONE, 0, on_foreign_id);
    } else {
        hand_in(in);
    }
    if (err != SL_OK)
        intake_end(in, SL_EAGAIN);
}

/* ---- attachments ---- */

static void put_next_file(struct email_intake *in);

static bool is_file_too_big(sl_err err)
{
    return err == SL_ETOOBIG || err == SL_EINVAL;
}

static void on_file_stored(void *arg, sl_err err, const struct chan_media *media, struct sl_str bytes,
                           const struct sl_fail *why)
{
    struct email_intake *in = arg;
    (void)bytes;
    (void)why;
    if (is_over(in))
        return;
    if (err == SL_OK) {
        struct stored_file *f = &in->files[in->file_count];
        (void)snprintf(f->id, sizeof f->id, "%s", media->id);
        in->file_count++;
        media_alarm(in->em, false);
    } else if (is_file_too_big(err)) {
        in->m->files_left_out++; /* asking again would not make it smaller */
    } else {
        intake_end(in, SL_EAGAIN);
        return;
    }
    in->put_next++;
    put_next_file(in);
}

/* The i-th thing to store: the attachments, then the full text if folding or a limit took something away, then the HTML body. */
static bool file_at(const struct email_intake *in, size_t i, struct stored_file *f, struct sl_str *bytes)
{
    const struct email_mail *m = in->m;
    if (i < m->file_count) {
        *bytes = m->files[i].bytes;
        *f = (struct stored_file){.type = m->files[i].type, .name = m->files[i].name};
    } else if (i == m->file_count) {
        const bool is_same =
            sl_str_eq(email_trim(m->text), m->visible) && m->visible.len <= MSG_TEXT_MAX_BYTES;
        *bytes = is_same ? SL_STR_NONE : m->text;
        *f = (struct stored_file){.type = SL_STR("text/plain"), .name = SL_STR("full.txt"), .role = "full"};
    } else if (i == m->file_count + 1) {
        *bytes = m->html;
        *f = (struct stored_file){.type = SL_STR("text/html"), .name = SL_STR("mail.html"), .role = "html"};
    } else {
        return false;
    }
    f->size = (int64_t)bytes->len;
    return true;
}

static void put_next_file(struct email_intake *in)
{
    struct stored_file f;
    struct sl_str bytes;
    in->step = INTAKE_FILES;
    while (file_at(in, in->put_next, &f, &bytes) && bytes.len == 0)
        in->put_next++;
    if (!file_at(in, in->put_next, &f, &bytes)) {
        find_thread(in);
        return;
    }
    in->files[in->file_count] = f;
    const sl_err err = put_media(in, bytes, f.type, f.name, on_file_stored);
    if (is_file_too_big(err)) {
        in->m->files_left_out++;
        in->put_next++;
        put_next_file(in); /* at most EMAIL_FILES_MAX deep */
    } else if (err != SL_OK) {
        intake_end(in, SL_EAGAIN);
    }
}

static void on_parsed(struct email_intake *in)
{
    struct email *em = in->em;
    if (em->is_draining || in->step == INTAKE_DONE) {
        intake_end(in, SL_EAGAIN);
        return;
    }
    if (in->parse_err != SL_OK) {
        quarantine(in);
        return;
    }
    const struct sl_str *path = in->is_envelope_known ? &in->sender : NULL;
    in->auto_kind =
        email_auto_of(&in->m->headers, in->m->from.address, path, em->keys.address, em->keys.domain);
    in->trust = email_trust_of(&in->m->headers, sl_str_c(em->authserv_id), in->m->from.address);
    sl_buf_fini(&in->raw); /* the mail has a copy of its own */
    sl_buf_init(&in->raw, 0);
    if (!hand_in_report(in))
        put_next_file(in);
}

/* ---- the end ---- */

void email_intake_drain(struct email *em)
{
    for (struct email_intake *in = em->intakes; in != NULL; in = in->next)
        if (!in->is_handed_in && !in->is_working)
            intake_end(in, SL_EAGAIN);
}

size_t email_intake_tickets(const struct email *em)
{
    size_t n = 0;
    for (const struct email_intake *in = em->intakes; in != NULL; in = in->next)
        n += in->is_handed_in;
    return n;
}

void email_intake_close(struct email *em)
{
    while (em->intakes != NULL) {
        struct email_intake *in = em->intakes;
        if (!in->is_working) {
            intake_free(in);
            continue;
        }
        em->intakes = in->next; /* the pool still reads it: on_work_done frees it */
        if (in->next != NULL)
            in->next->prev = &em->intakes;
        em->intake_count--;
        sl_post_cancel(&in->post);
        in->is_orphan = true;
    }
}
