/* channels/email/email_send.c - one job: attachments read, the mail built, submitted through libcurl, settled.
 *
 * Nothing is retried here: the lane decides. What this file knows better: until libcurl has been given the mail's last byte the
 * server cannot have taken it; after that, without an answer, nobody knows. The message id comes from the job's key, so a second
 * try carries the same one.
 */
#include "channels/email/email_priv.h"

#include "channels/email/mail_build.h"

#include "base/fault.h"
#include "base/json.h"
#include "base/log.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define CONNECT_MS 10000
#define WHOLE_MS   120000
#define HOUR_MS    3600000
#define REPLY_MAX  400
#define MAIL_MAX   (40u << 20)

struct email_answered {
    uint64_t since_mono_ms;
    unsigned count;
};

enum job_step { JOB_BEGIN, JOB_READ, JOB_SUBMIT, JOB_DONE };

struct email_job {
    struct email_job *next, **prev;
    struct email *em;
    struct chan_job *job;
    enum job_step step;
    struct sl_post post;
    struct email_heap *heap; /* strings of the send */
    struct sl_str text, address, to, key, conversation, data, context;
    bool is_auto, is_again, is_reading, is_settled; /* is_again: an earlier try was counted */
    enum msg_kind kind;
    struct email_draft_file files[EMAIL_SEND_FILES];
    char ids[EMAIL_SEND_FILES][65];
    size_t file_count, file_next;
    struct sl_buf mail;
    size_t sent_bytes;
    bool is_body_out; /* libcurl has the last byte: it sends the final dot */
    uint64_t transfer;
    char sender[EMAIL_ADDRESS_MAX_BYTES + 4], recipient[EMAIL_ADDRESS_MAX_BYTES + 4];
    struct curl_slist *rcpt;
    char reply[REPLY_MAX]; /* the server's last line */
    const char *refusal;   /* settle on the next turn with these words */
    bool refusal_may_retry;
};

/* ---- life ---- */

static void job_free(struct email_job *j)
{
    *j->prev = j->next;
    if (j->next != NULL)
        j->next->prev = j->prev;
    j->em->job_count--;
    sl_post_cancel(&j->post);
    curl_slist_free_all(j->rcpt);
    sl_buf_fini(&j->mail);
    email_heap_free(&j->heap);
    free(j);
}

static void settle(struct email_job *j, const struct chan_result *r)
{
    struct email *em = j->em;
    struct chan_job *job = j->job;
    if (j->is_settled)
        return;
    j->is_settled = true;
    j->step = JOB_DONE;
    email_count(r->outcome == CHAN_SENT ? "sent" : r->outcome == CHAN_FAILED ? "failed" : "unknown");
    chan_host_of(em->ch)->settled(em->ch, job, r);
    if (!j->is_reading) /* else the media store still holds us */
        job_free(j);
    email_finish(em);
}

static void fail(struct email_job *j, bool may_retry, const char *code, const char *words)
{
    settle(j, &(struct chan_result){.outcome = CHAN_FAILED,
                                    .may_retry = may_retry,
                                    .code = sl_str_c(code),
                                    .words = sl_str_c(words)});
}

/* Best effort: a later mail of theirs is then a new conversation, or one automatic answer too many is sent. */
static void on_noted(void *arg, sl_err err, struct sl_str value)
{
    (void)arg;
    (void)err;
    (void)value;
}

/* ---- automatic answers: RFC 3834 ---- */

/* They are counted by the gateway that holds the inbox's lane. The number is also a shared value, "<count> <unix ms of the first>":
 * whoever holds the lane next goes on from there. */
static void share_count(struct email *em, struct sl_str address, const struct email_answered *a)
{
    char name[64], value[64];
    const int64_t passed = (int64_t)(sl_loop_mono_ms(chan_loop(em->ch)) - a->since_mono_ms);
    const int n =
        snprintf(value, sizeof value, "%u %" PRId64, a->count, sl_loop_unix_ms(chan_loop(em->ch)) - passed);
    email_name_of("auto", address, name);
    (void)email_kv(em, CHAN_KV_SET, name, SL_STR_NONE, sl_str_n(value, (size_t)n),
                   HOUR_MS > passed ? HOUR_MS - passed : 1, on_noted, NULL);
}

/* What the holder before us counted; anything else counts as nothing. */
static void take_count(struct email *em, struct sl_str address, struct sl_str value)
{
    const char *space = value.len > 0 ? memchr(value.ptr, ' ', value.len) : NULL;
    const size_t n = space != NULL ? (size_t)(space - value.ptr) : 0;
    const uint64_t now = sl_loop_mono_ms(chan_loop(em->ch));
    uint64_t count = 0;
    int64_t since = 0;
    if (space == NULL || sl_str_uint(sl_str_n(value.ptr, n), &count) != SL_OK ||
        sl_str_int(sl_str_n(space + 1, value.len - n - 1), &since) != SL_OK)
        return;
    const int64_t passed = sl_loop_unix_ms(chan_loop(em->ch)) - since;
    if (passed < 0 || passed >= HOUR_MS || (uint64_t)passed > now ||
        sl_map_get(em->answered, address) != NULL || sl_map_count(em->answered) >= EMAIL_ANSWERED_MAX)
        return;
    struct email_answered *a = sl_alloc(sizeof *a);
    *a = (struct email_answered){.since_mono_ms = now > (uint64_t)passed ? now - (uint64_t)passed : 0,
                                 .count = count < 1000000 ? (unsigned)count : 1000000};
    (void)sl_map_set(em->answered, address, a);
}

void email_answers_forget(struct email *em)
{
    struct sl_str key;
    void *value;
    for (size_t i = 0; sl_map_next(em->answered, &i, &key, &value);)
        free(value);
    sl_map_free(&em->answered);
    em->answered = sl_map_new();
}

/* One more automatic answer to this address within the hour? */
static bool may_answer(struct email *em, struct sl_str address)
{
    const uint64_t now = sl_loop_mono_ms(chan_loop(em->ch));
    struct email_answered *a = sl_map_get(em->answered, address);
    if (a == NULL) {
        if (sl_map_count(em->answered) >= EMAIL_ANSWERED_MAX) { /* forget the older half of what is over */
            struct sl_str key;
            void *value;
            for (size_t i = 0; sl_map_next(em->answered, &i, &key, &value);) {
                const struct email_answered *old = value;
                if (now - old->since_mono_ms >= HOUR_MS)
                    free(sl_map_del(em->answered, key));
            }
        }
        if (sl_map_count(em->answered) >= EMAIL_ANSWERED_MAX)
            return false; /* so many in one hour: a flood */
        a = sl_alloc(sizeof *a);
        a->since_mono_ms = now;
        (void)sl_map_set(em->answered, address, a);
    }
    if (now - a->since_mono_ms >= HOUR_MS)
        *a = (struct email_answered){.since_mono_ms = now};
    if (a->count >= (uint64_t)em->auto_answers)
        return false;
    a->count++;
    share_count(em, address, a);
    return true;
}

/* ---- the mail ---- */

static sl_err build(struct email_job *j, struct sl_fail *why)
{
    struct email *em = j->em;
    struct sl_buf subject, id, reply_to;
    struct sl_str refs[EMAIL_REFERENCES_MAX + 1];
    size_t ref_count = 0;
    json_t *context = j->context.len > 0 ? sl_json_parse(j->context, NULL) : NULL;
    const json_t *chain = json_object_get(context, "references"); /* borrowed */
    struct sl_str parent = sl_json_get_str(context, "message_id"),
                  old_subject = sl_json_get_str(context, "subject");
    sl_buf_init(&subject, 4096);
    sl_buf_init(&id, 512);
    sl_buf_init(&reply_to, 512);
    for (size_t i = 0; i < json_array_size(chain) && ref_count < EMAIL_REFERENCES_MAX; i++)
        if (json_is_string(json_array_get(chain, i)))
            refs[ref_count++] = sl_str_c(json_string_value(json_array_get(chain, i)));
    if (parent.len > 0)
        refs[ref_count++] = parent;
    email_reply_subject(old_subject.len > 0 ? old_subject : sl_str_c(em->subject), &subject);
    email_message_id(&em->keys, j->conversation, j->key, &id);
    (void)email_conversation_address(&em->keys, j->conversation, &reply_to);
    const struct email_draft d = {.from = em->keys.address,
                                  .from_name = sl_str_c(em->from_name),
                                  .to = j->to,
                                  .reply_to = sl_buf_view(&reply_to),
                                  .subject = sl_buf_view(&subject),
                                  .text = j->text,
                                  .message_id = sl_buf_view(&id),
                                  .in_reply_to = parent,
                                  .references = refs,
                                  .reference_count = ref_count,
                                  .date_unix_ms = sl_loop_unix_ms(chan_loop(em->ch)),
                                  .is_auto = j->is_auto,
                                  .files = j->files,
                                  .file_count = j->file_count};
    const sl_err err = email_build(&d, &j->mail, why);
    json_decref(context);
    sl_buf_fini(&subject);
    sl_buf_fini(&id);
    sl_buf_fini(&reply_to);
    return err;
}

/* The envelope's sender names this send, so that a report about it finds it. */
static void write_envelope(struct email_job *j)
{
    struct sl_buf b;
    sl_buf_init(&b, EMAIL_ADDRESS_MAX_BYTES);
    if (!email_bounce_address(&j->em->keys, j->key, &b))
        sl_buf_str(&b, j->em->keys.address);
    (void)snprintf(j->sender, sizeof j->sender, "<%.*s>", (int)b.len, b.ptr);
    (void)snprintf(j->recipient, sizeof j->recipient, "<%.*s>", (int)j->to.len, j->to.ptr);
    sl_buf_fini(&b);
}

/* ---- submission ---- */

static size_t on_body(char *to, size_t size, size_t count, void *arg)
{
    struct email_job *j = arg;
    const size_t left = j->mail.len - j->sent_bytes, room = size * count, n = left < room ? left : room;
    memcpy(to, j->mail.ptr + j->sent_bytes, n);
    j->sent_bytes += n;
    if (j->sent_bytes == j->mail.len)
        j->is_body_out = true; /* the dot may go with this very piece */
    return n;
}

/* Lines of the server; the last one counts. */
static size_t on_reply(char *line, size_t size, size_t count, void *arg)
{
    struct email_job *j = arg;
    struct sl_str s = email_trim(sl_str_n(line, size * count));
    struct sl_buf clean;
    sl_buf_init(&clean, REPLY_MAX * 4);
    email_words_decode(&clean, s);
    s = email_utf8_head(sl_buf_view(&clean), REPLY_MAX - 1);
    (void)snprintf(j->reply, sizeof j->reply, "%.*s", (int)s.len, s.ptr);
    if (j->is_body_out)
        sl_kill_point("mail.answered");
    sl_buf_fini(&clean);
    return size * count;
}

static bool is_loopback_url(const char *url)
{
    const char *host = strstr(url, "://");
    host = host != NULL ? host + 3 : url;
    return strncmp(host, "127.", 4) == 0 || strncmp(host, "localhost", 9) == 0 ||
           strncmp(host, "[::1]", 5) == 0;
}

static sl_err on_setup(void *arg, void *easy, struct sl_fail *why)
{
    struct email_job *j = arg;
    const struct email *em = j->em;
    const bool may_be_plain = em->smtp_plain || is_loopback_url(em->smtp_url);
    j->rcpt = curl_slist_append(NULL, j->recipient);
    curl_easy_setopt(easy, CURLOPT_URL, em->smtp_url);
    curl_easy_setopt(easy, CURLOPT_MAIL_FROM, j->sender);
    curl_easy_setopt(easy, CURLOPT_MAIL_RCPT, j->rcpt);
    curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_READDATA, j);
    curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)j->mail.len);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_reply);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, j);
    curl_easy_setopt(easy, CURLOPT_USE_SSL, (long)(may_be_plain ? CURLUSESSL_TRY : CURLUSESSL_ALL));
    if (em->ca_file[0] != '\0')
        curl_easy_setopt(easy, CURLOPT_CAINFO, em->ca_file);
    if (em->user[0] != '\0') {
        curl_easy_setopt(easy, CURLOPT_USERNAME, em->user);
        curl_easy_setopt(easy, CURLOPT_PASSWORD, em->password);
    }
    return j->rcpt != NULL ? SL_OK : sl_fail_set(why, SL_EINTERNAL, 0, "no memory");
}

/* "550 5.1.1 words": the words for an agent; the code apart. */
static void settle_by_reply(struct email_job *j, int status)
{
    char code[16];
    const bool is_login = status == 530 || status == 534 || status == 535 || status == 538;
    const char *words = j->reply[0] != '\0' ? j->reply : "the mail server refused it without a word";
    (void)snprintf(code, sizeof code, "%d", status);
    if (is_login)
        chan_host_of(j->em->ch)->alarm(
            j->em->ch, "smtp-login", true,
            "the mail server refuses our login: check user and password of this inbox");
    settle(j, &(struct chan_result){.outcome = CHAN_FAILED,
                                    .may_retry = status < 500 || is_login,
                                    .is_account = is_login || status == 421,
                                    .code = sl_str_c(code),
                                    .words = sl_str_c(words)});
}

/* A certificate does not mend itself by waiting: a person is told, with libcurl's words. */
static void alarm_tls(struct email *em, const char *words)
{
    char text[400];
    if (strstr(words, "SSL") == NULL && strstr(words, "TLS") == NULL && strstr(words, "certificate") == NULL)
        return;
    (void)snprintf(text, sizeof text,
                   "no TLS with the mail server; check smtp_url, its certificate and ca_file: %s", words);
    chan_host_of(em->ch)->alarm(em->ch, "smtp-tls", true, text);
}

static void on_submitted(void *arg, void *easy, sl_err err, bool is_begun, const struct sl_fail *why)
{
    struct email_job *j = arg;
    long status = 0;
    if (easy != NULL)
        (void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    j->transfer = 0;
    if (err == SL_OK) {
        chan_host_of(j->em->ch)->alarm(j->em->ch, "smtp-login", false, "");
        chan_host_of(j->em->ch)->alarm(j->em->ch, "smtp-tls", false, "");
        settle(j, &(struct chan_result){.outcome = CHAN_SENT, .remote_id = j->key, .code = SL_STR("250")});
    } else if (status >= 400 && status < 600) {
        settle_by_reply(j, (int)status);
    } else if (is_begun && j->is_body_out) {
        settle(j, &(struct chan_result){.outcome = CHAN_UNKNOWN,
                                        .code = SL_STR("dropped"),
                                        .words =
                                            SL_STR("the mail server did not say whether it took the mail")});
    } else {
        alarm_tls(j->em, why->text);
        settle(j,
               &(struct chan_result){.outcome = CHAN_FAILED,
                                     .may_retry = true,
                                     .is_account = !is_begun,
                                     .code = SL_STR("connection"),
                                     .words = sl_str_c(why->text[0] != '\0' ? why->text : "no connection")});
    }
}

static void submit(struct email_job *j)
{
    struct sl_fail why = {.text = ""};
    const struct sl_http_transfer t = {
        .setup = on_setup, .done = on_submitted, .arg = j, .connect_ms = CONNECT_MS, .whole_ms = WHOLE_MS};
    sl_err err =
        j->em->http != NULL ? build(j, &why) : sl_fail_set(&why, SL_ECLOSED, 0, "the gateway is closing");
    if (err != SL_OK) {
        fail(j, err == SL_ECLOSED, "unfit", why.text);
        return;
    }
    write_envelope(j);
    j->step = JOB_SUBMIT;
    err = sl_http_transfer(j->em->http, &t, &j->transfer, &why);
    if (err != SL_OK)
        fail(j, true, "busy", "too many mails are being sent at once");
}

/* ---- attachments ---- */

static void read_next_file(struct email_job *j);

static void on_file(void *arg, sl_err err, const struct chan_media *media, struct sl_str bytes,
                    const struct sl_fail *why)
{
    struct email_job *j = arg;
    (void)why;
    j->is_reading = false;
    if (j->is_settled) {
        struct email *em = j->em;
        job_free(j);
        email_finish(em);
        return;
    }
    if (err != SL_OK) {
        fail(j, sl_err_retry(err) || err == SL_ECLOSED, "media",
             "an attachment cannot be read from the media store");
        return;
    }
    struct email_draft_file *f = &j->files[j->file_next++];
    f->bytes = email_heap_copy(j->heap, bytes);
    if (f->type.len == 0)
        f->type = email_heap_copy(j->heap, sl_str_c(media->type));
    if (f->name.len == 0)
        f->name = email_heap_copy(j->heap, sl_str_c(media->name));
    read_next_file(j);
}

static void read_next_file(struct email_job *j)
{
    const struct chan_host *host = chan_host_of(j->em->ch);
    if (j->file_next == j->file_count) {
        submit(j);
        return;
    }
    j->step = JOB_READ;
    j->is_reading = host->media_read != NULL &&
                    host->media_read(j->em->ch, sl_str_c(j->ids[j->file_next]), on_file, j) == SL_OK;
    if (!j->is_reading)
        fail(j, true, "media", "the media store is not there");
}

static void list_files(struct email_job *j)
{
    json_t *data = j->data.len > 0 ? sl_json_parse(j->data, NULL) : NULL;
    const json_t *all = json_object_get(data, "attachments"); /* borrowed */
    for (size_t i = 0; i < json_array_size(all) && j->file_count < EMAIL_SEND_FILES; i++) {
        const json_t *one = json_array_get(all, i); /* borrowed */
        const struct sl_str id = sl_json_get_str(one, "id");
        if (id.len == 0 || id.len > 64)
            continue;
        struct email_draft_file *f = &j->files[j->file_count];
        (void)snprintf(j->ids[j->file_count++], sizeof j->ids[0], "%.*s", (int)id.len, id.ptr);
        f->type = email_heap_copy(j->heap, sl_json_get_str(one, "type"));
        f->name = email_heap_copy(j->heap, sl_json_get_str(one, "name"));
    }
    json_decref(data);
}

/* ---- the job ---- */

static void note_thread(struct email *em, struct sl_str conversation, struct sl_str who,
                        struct sl_str context);

static void begin(struct email_job *j)
{
    const bool is_counted = j->is_auto && !j->is_again && j->em->auto_answers > 0;
    if (is_counted && !may_answer(j->em, j->address)) {
        fail(j, false, "refused",
             "not sent: too many automatic answers to this address within an hour (a person may)");
        return;
    }
    list_files(j);
    note_thread(j->em, j->conversation, j->address, j->context);
    read_next_file(j);
}

static void on_count(void *arg, sl_err err, struct sl_str value)
{
    struct email_job *j = arg;
    j->is_reading = false;
    if (j->is_settled) {
        struct email *em = j->em;
        job_free(j);
        email_finish(em);
        return;
    }
    if (err == SL_OK)
        take_count(j->em, j->address, value);
    begin(j);
}

/* The first automatic answer to an address since we hold the lane: what was counted before? */
static bool ask_count(struct email_job *j)
{
    char name[64];
    if (!j->is_auto || j->is_again || j->em->auto_answers == 0 ||
        sl_map_get(j->em->answered, j->address) != NULL)
        return false;
    email_name_of("auto", j->address, name);
    j->step = JOB_READ;
    j->is_reading = email_kv(j->em, CHAN_KV_GET, name, SL_STR_NONE, SL_STR_NONE, 0, on_count, j) == SL_OK;
    return j->is_reading;
}

static void on_begin(void *arg)
{
    struct email_job *j = arg;
    if (j->em->is_closing) {
        fail(j, true, "closing", "the gateway is closing; it will be tried again");
        return;
    }
    if (j->refusal != NULL) {
        fail(j, j->refusal_may_retry, "refused", j->refusal);
        return;
    }
    if (!ask_count(j))
        begin(j);
}

/* What an answer tells about its conversation: who takes part, and which mail of theirs belongs to it. */
static void note_thread(struct email *em, struct sl_str conversation, struct sl_str who,
                        struct sl_str context)
{
    char name[64];
    struct sl_buf value;
    json_t *c = context.len > 0 ? sl_json_parse(context, NULL) : NULL;
    const struct sl_str parent = sl_json_get_str(c, "message_id");
    if (conversation.len > 0 && conversation.len < EMAIL_CONV_MAX) {
        email_name_of("who", conversation, name);
        (void)email_kv(em, CHAN_KV_PUT, name, who, SL_STR("1"), EMAIL_MEMORY_MS, on_noted, NULL);
    }
    if (parent.len > 0 && conversation.len > 0) {
        sl_buf_init(&value, 512);
        sl_buf_str(&value, conversation);
        sl_buf_char(&value, ' ');
        sl_buf_str(&value, who);
        email_name_of("mid", parent, name);
        (void)email_kv(em, CHAN_KV_SET, name, SL_STR_NONE, sl_buf_view(&value), EMAIL_MEMORY_MS, on_noted,
                       NULL);
        sl_buf_fini(&value);
    }
    json_decref(c);
}

/* To whom: the address as the customer wrote it when the context is theirs, else as it is known. */
static void find_recipient(struct email_job *j, json_t *context)
{
    char who[MSG_ID_MAX_BYTES + 1];
    struct sl_buf b;
    const struct sl_str from = sl_json_get_str(context, "from"), to = sl_json_get_str(context, "to");
    if (from.len > 0 && email_who_write(from, who) && sl_str_eq_c(j->address, who) && email_address_ok(to)) {
        j->to = email_heap_copy(j->heap, to);
        return;
    }
    sl_buf_init(&b, 512);
    if (email_who_read(j->address, &b))
        j->to = email_heap_copy(j->heap, sl_buf_view(&b));
    sl_buf_fini(&b);
}

static void check(struct email_job *j, const struct chan_send *s)
{
    json_t *context = s->context.len > 0 ? sl_json_parse(s->context, NULL) : NULL;
    find_recipient(j, context);
    if (!email_address_ok(j->to))
        j->refusal = "the customer's address is no mail address";
    else if (j->em->smtp_url[0] == '\0')
        j->refusal = "this inbox has no smtp_url: it takes mail and sends none";
    else if (j->is_auto && sl_json_get_bool(context, "auto", false))
        j->refusal = "not sent: a program wrote the customer's mail, and programs do not answer programs (a "
                     "person may)";
    json_decref(context);
}

sl_err email_send(struct chan *ch, const struct chan_send *s, struct chan_job *job)
{
    struct email *em = email_of(ch);
    if (em->job_count == EMAIL_JOBS_MAX || em->is_draining)
        return SL_EAGAIN;
    struct email_job *j = sl_alloc(sizeof *j);
    j->em = em;
    j->job = job;
    j->heap = email_heap_new();
    j->text = email_heap_copy(j->heap, s->m->text);
    j->address = email_heap_copy(j->heap, s->address);
    j->key = email_heap_copy(j->heap, s->key);
    j->conversation = email_heap_copy(j->heap, s->m->conversation);
    j->data = email_heap_copy(j->heap, s->m->data);
    j->context = email_heap_copy(j->heap, s->context);
    j->kind = s->m->kind;
    j->is_again = s->attempt > 1;
    j->is_auto = s->m->by == MSG_BY_BOT || s->m->by == MSG_BY_SYSTEM;
    sl_buf_init(&j->mail, MAIL_MAX);
    j->next = em->jobs;
    j->prev = &em->jobs;
    if (em->jobs != NULL)
        em->jobs->prev = &j->next;
    em->jobs = j;
    em->job_count++;
    check(j, s);
    sl_post_init(&j->post, chan_loop(ch), on_begin, j);
    sl_post_now(&j->post);
    return SL_OK;
}

void email_jobs_end(struct email *em)
{
    for (struct email_job *j = em->jobs, *next; j != NULL; j = next) {
        next = j->next;
        if (j->step == JOB_SUBMIT && em->http != NULL)
            sl_http_cancel(em->http, j->transfer); /* on_submitted settles it */
        else if (j->step == JOB_SUBMIT)
            continue; /* the client is closing: it settles what is under way */
        else if (j->step != JOB_DONE)
            fail(j, true, "closing", "the gateway is closing; it will be tried again");
    }
}

bool email_jobs_are_settled(const struct email *em)
{
    for (const struct email_job *j = em->jobs; j != NULL; j = j->next)
        if (!j->is_settled)
            return false;
    return true;
}

void email_jobs_free(struct email *em)
{
    while (em->jobs != NULL)
        job_free(em->jobs);
}
