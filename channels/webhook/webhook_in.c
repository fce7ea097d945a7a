/* channels/webhook/webhook_in.c - requests: checked, mapped, given to the core, answered when durable. */
#include "channels/webhook/webhook_engine.h"

#include "base/crypto.h"
#include "base/log.h"
#include "base/metrics.h"
#include "channels/webhook/webhook_template.h"
#include "proto/keys.h"

#include <stdio.h>
#include <stdlib.h>

struct webhook_in { /* one request */
    struct webhook_engine *engine;
    struct chan_request *rq; /* NULL: answered */
    struct webhook_in *next, *before;
    struct webhook_item *item[WEBHOOK_EVENTS_MAX];
    size_t count, given, waiting;
    struct sl_timer late, media;
    bool is_bad, is_busy, is_in_run, is_fetching;
};

static void in_run(struct webhook_in *in);

/* ---- answers ---- */

static void answer_busy(struct webhook_engine *e, struct chan_request *rq)
{
    sl_count(e->busy, 1);
    rq->answer(rq, 503, e->scheme->ok_type, sl_str_c(e->scheme->busy_body));
}

/* Why stands in the log and the count, never in the answer: a stranger learns nothing. */
static void refuse(struct webhook_engine *e, struct chan_request *rq, sl_err err, const struct sl_fail *why)
{
    bool is_credentials = err == SL_EAUTH || err == SL_EDENIED;
    int status = is_credentials ? e->scheme->refused_status : sl_err_http(err);
    sl_count(is_credentials ? e->refused : e->malformed, 1);
    sl_log(SL_WARN, "a webhook request was refused", SL_KV("inbox", chan_inbox(e->ch)),
           SL_KV("why", why->text), SL_KV_I("status", status));
    rq->answer(rq, status, "text/plain", sl_str_c(is_credentials ? "refused\n" : "malformed\n"));
}

/* ---- items ---- */

static void item_free(struct webhook_item *it)
{
    char *all[] = {it->id,         it->who,        it->text,      it->data, it->context, it->media,
                   it->media_type, it->media_name, it->remote_id, it->code, it->words};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    sl_buf_fini(&it->attachments);
    free(it);
}

/* Ids go into keys and logs: one that is long, or holds more than plain characters, is hashed. */
static char *plain_id(struct sl_str id)
{
    unsigned char digest[32];
    char hex[67] = "h-";
    if (key_part_ok(id) && id.len <= 100)
        return sl_str_dup(id);
    sl_sha256(id, digest);
    sl_hex(hex + 2, digest, 24);
    return sl_strdup(hex);
}

static sl_err address_of(struct webhook_engine *e, struct sl_str raw, char **out)
{
    char address[MSG_ID_MAX_BYTES + 1];
    sl_err err = e->hooks->address != NULL ? e->hooks->address(e->owner, raw, address)
                                           : webhook_address_write(raw, address);
    if (err == SL_OK)
        *out = sl_strdup(address);
    return err;
}

static char *receipt_id(const struct webhook_event *ev)
{
    struct sl_buf b;
    static const char *const words[] = {"sent", "delivered", "read", "failed"};
    sl_buf_init(&b, 0);
    sl_buf_str(&b, ev->id.len > 0 ? ev->id : ev->remote_id);
    sl_buf_char(&b, '.');
    sl_buf_c(&b, words[ev->word]);
    char *id = plain_id(sl_buf_view(&b));
    sl_buf_fini(&b);
    return id;
}

static struct sl_str cut_text(struct sl_str s, size_t max)
{
    if (!sl_str_utf8(s))
        return SL_STR_NONE;
    while (s.len > max || (s.len > 0 && s.len == max && !sl_str_utf8(s)))
        s.len--;
    while (s.len > 0 && !sl_str_utf8(s))
        s.len--;
    return s;
}

static void on_event(void *arg, const struct webhook_event *ev)
{
    struct webhook_in *in = arg;
    struct webhook_item *it = sl_alloc(sizeof *it);
    sl_buf_init(&it->attachments, MSG_DATA_MAX_BYTES);
    it->in = in;
    it->rule = ev->rule;
    it->word = ev->word;
    it->at_unix_ms = ev->at_unix_ms;
    it->text = sl_str_dup(ev->text);
    it->data = sl_str_dup(ev->data);
    it->context = sl_str_dup(ev->context);
    it->media = sl_str_dup(ev->media);
    it->media_type = sl_str_dup(ev->media_type);
    it->media_name = sl_str_dup(ev->media_name);
    it->code = sl_str_dup(cut_text(ev->code, 60));
    it->words = sl_str_dup(cut_text(ev->words, 200));
    it->remote_id = sl_str_dup(ev->remote_id);
    for (char *c = it->remote_id; *c != '\0';
         c++) /* one form: a comma parts ids, and case is not to be trusted */
        *c = (char)(*c == ',' ? '_' : *c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
    it->id = ev->rule->does == WEBHOOK_RECEIPT ? receipt_id(ev) : plain_id(ev->id);
    if (ev->rule->does == WEBHOOK_MESSAGE && address_of(in->engine, ev->from, &it->who) != SL_OK)
        in->is_bad = true;
    in->item[in->count++] = it;
}

/* ---- attachments ---- */

/* The n-th line of the media template that is not empty. */
static bool media_url(const struct webhook_item *it, size_t n, struct sl_buf *out)
{
    const char *at = it->media;
    while (*at != '\0') {
        size_t len = strcspn(at, "\n");
        if (len > 0 && n-- == 0) {
            sl_buf_add(out, at, len);
            sl_buf_char(out, '\0');
            return true;
        }
        at += len + (at[len] == '\n');
    }
    return false;
}

static void add_attachment(struct webhook_item *it, const struct chan_media *media)
{
    struct sl_json j;
    if (it->attachments.len > 0)
        sl_buf_char(&it->attachments, ',');
    sl_json_begin(&j, &it->attachments);
    sl_json_open(&j, NULL, '{');
    sl_json_c(&j, "id", media->id);
    sl_json_c(&j, "type", media->type);
    sl_json_int(&j, "size", media->size);
    sl_json_c(&j, "sha256", media->id);
    sl_json_c(&j, "name", media->name[0] != '\0' || it->media_name[0] == '\0' ? media->name : it->media_name);
    sl_json_close(&j, '}');
}

/* What could not be fetched is named, so that an agent knows of it. */
static void add_missing(struct webhook_item *it)
{
    struct sl_json j;
    if (it->attachments.len > 0)
        sl_buf_char(&it->attachments, ',');
    sl_json_begin(&j, &it->attachments);
    sl_json_open(&j, NULL, '{');
    sl_json_c(&j, "name", it->media_name[0] != '\0' ? it->media_name : "attachment");
    sl_json_bool(&j, "missing", true);
    sl_json_close(&j, '}');
}

static void fetch_done(struct webhook_in *in, struct webhook_item *it, const struct chan_media *media)
{
    sl_timer_stop(&in->media);
    in->is_fetching = false;
    if (media != NULL)
        add_attachment(it, media);
    else
        add_missing(it);
    it->media_done++;
    in_run(in);
}

/* The fetch in hand is the one of in->item[in->given]; a late answer finds another number there and is dropped. */
struct webhook_fetch {
    struct webhook_engine *engine;
    struct webhook_fetch *next;
    struct webhook_in *in;
    size_t given, done;
};

static bool is_alive(const struct webhook_engine *e, const struct webhook_in *in)
{
    for (const struct webhook_in *at = e->in_list; at != NULL; at = at->next)
        if (at == in)
            return true;
    return false;
}

static void on_media(void *arg, sl_err err, const struct chan_media *media, struct sl_str bytes,
                     const struct sl_fail *why)
{
    struct webhook_fetch *c = arg, **at = &c->engine->fetches;
    struct webhook_in *in = c->in;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    (void)bytes;
    if (err != SL_OK)
        sl_log(SL_WARN, "an attachment could not be fetched", SL_KV("inbox", chan_inbox(c->engine->ch)),
               SL_KV("why", why != NULL ? why->text : sl_err_text(err)));
    if (is_alive(c->engine, in) && in->is_fetching && in->given == c->given && in->item[in->given] != NULL &&
        in->item[in->given]->media_done == c->done)
        fetch_done(in, in->item[in->given], err == SL_OK ? media : NULL);
    free(c);
}

static void on_media_late(void *arg)
{
    struct webhook_in *in = arg;
    if (in->is_fetching)
        fetch_done(in, in->item[in->given], NULL);
}

static bool begins_with_any(const struct webhook_engine *e, const char *url, const char *const *hosts,
                            size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct sl_buf want;
        struct webhook_values values = {.engine = e};
        sl_buf_init(&want, 2048);
        bool is_it =
            webhook_expand(sl_str_c(hosts[i]), WEBHOOK_RAW, webhook_lookup, &values, &want, NULL) == SL_OK &&
            want.len > 0 && strncmp(url, want.ptr, want.len) == 0;
        sl_buf_fini(&want);
        if (is_it)
            return true;
    }
    return false;
}

#define MEDIA_HEADERS_MAX 4
/* True: it is being fetched. */
static bool fetch_begin(struct webhook_in *in, struct webhook_item *it)
{
    struct webhook_engine *e = in->engine;
    struct webhook_job built = {.engine = e};
    struct webhook_call call = {.method = "", .url = "", .body = "", .type = "", .user = "", .password = ""};
    struct webhook_values values = {.engine = e};
    const char *headers[MEDIA_HEADERS_MAX + 1] = {NULL};
    struct sl_buf url;
    sl_buf_init(&url, 4096);
    if (it->media_done >= WEBHOOK_MEDIA_MAX || !media_url(it, it->media_done, &url) || url.overflow) {
        sl_buf_fini(&url);
        return false;
    }
    bool is_ours = begins_with_any(e, url.ptr, e->scheme->media_hosts, e->scheme->media_host_count);
    call.headers = e->scheme->media_headers;
    call.header_count =
        is_ours && e->scheme->media_header_count <= MEDIA_HEADERS_MAX ? e->scheme->media_header_count : 0;
    struct sl_fail why;
    sl_err err = webhook_job_build(e, &call, &values, &built, &why);
    const char *at = built.headers.ptr;
    for (size_t i = 0; err == SL_OK && i < built.header_count && i < MEDIA_HEADERS_MAX;
         i++, at += strlen(at) + 1)
        headers[i] = at;
    struct chan_fetch f = {
        .url = url.ptr, .headers = headers, .max_bytes = 20 << 20, .is_trusted_host = is_ours};
    struct webhook_fetch *c = sl_alloc(sizeof *c);
    *c = (struct webhook_fetch){e, NULL, in, in->given, it->media_done};
    in->is_fetching = true;
    if (err == SL_OK)
        err = chan_host_of(e->ch)->media_fetch(e->ch, &f, on_media, c);
    if (err == SL_OK) {
        c->next = e->fetches;
        e->fetches = c;
        sl_timer_start(&in->media, WEBHOOK_MEDIA_MS);
    } else {
        free(c);
        in->is_fetching = false;
        add_missing(it);
        it->media_done++;
    }
    sl_buf_fini(&url);
    sl_buf_fini(&built.method);
    sl_buf_fini(&built.url);
    sl_buf_fini(&built.body);
    sl_buf_fini(&built.headers);
    sl_buf_fini(&built.user);
    sl_buf_fini(&built.password);
    return true;
}

/* ---- giving ---- */

/* data with the attachments in it. */
static void merged_data(const struct webhook_item *it, struct sl_buf *out)
{
    size_t n = strlen(it->data);
    if (it->attachments.len == 0) {
        sl_buf_c(out, it->data);
        return;
    }
    sl_buf_c(out, "{\"attachments\":[");
    sl_buf_str(out, sl_buf_view(&it->attachments));
    sl_buf_char(out, ']');
    if (n > 2) {
        sl_buf_char(out, ',');
        sl_buf_add(out, it->data + 1, n - 1);
    } else {
        sl_buf_char(out, '}');
    }
}

static enum msg_kind kind_of(const struct webhook_item *it)
{
    if (it->rule->kind != MSG_TEXT || it->attachments.len == 0)
        return it->rule->kind;
    static const struct {
        const char *type;
        enum msg_kind kind;
    } row[] = {
        {"\"type\":\"image/", MSG_IMAGE}, {"\"type\":\"audio/", MSG_AUDIO}, {"\"type\":\"video/", MSG_VIDEO}};
    size_t at;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++)
        if (sl_str_find(sl_buf_view(&it->attachments), sl_str_c(row[i].type), &at))
            return row[i].kind;
    return MSG_FILE;
}

static sl_err give_message(struct webhook_engine *e, struct webhook_item *it)
{
    struct sl_buf data;
    struct sl_fail why = {.text = ""};
    sl_buf_init(&data, MSG_DATA_MAX_BYTES * 2);
    merged_data(it, &data);
    struct msg m = {.id = sl_str_c(it->id),
                    .tenant = sl_str_c(chan_tenant(e->ch)),
                    .inbox = sl_str_c(chan_inbox(e->ch)),
                    .channel = sl_str_c(chan_ops_of(e->ch)->name),
                    .by = MSG_BY_VISITOR,
                    .who = sl_str_c(it->who),
                    .kind = kind_of(it),
                    .text = sl_str_c(it->text),
                    .data = sl_buf_view(&data),
                    .sent_unix_ms = it->at_unix_ms};
    if (m.text.len == 0 && m.data.len == 0)
        m.text = SL_STR("[empty]");
    sl_err err = msg_check(&m, &why);
    if (err == SL_OK)
        err = chan_host_of(e->ch)->inbound(e->ch, &m, &it->ticket);
    else
        sl_log(SL_WARN, "a webhook's message cannot be taken", SL_KV("inbox", chan_inbox(e->ch)),
               SL_KV("id", it->id), SL_KV("why", why.text));
    sl_buf_fini(&data);
    return err;
}

static sl_err give_receipt(struct webhook_engine *e, struct webhook_item *it)
{
    struct chan_receipt r = {.remote_id = sl_str_c(it->remote_id),
                             .word = it->word,
                             .code = sl_str_c(it->code),
                             .words = sl_str_c(it->words),
                             .at_unix_ms = it->at_unix_ms};
    return chan_host_of(e->ch)->receipt(e->ch, &r, &it->ticket);
}

static void in_free(struct webhook_in *in)
{
    struct webhook_engine *e = in->engine;
    sl_timer_stop(&in->late);
    sl_timer_stop(&in->media);
    for (size_t i = 0; i < in->count; i++)
        if (in->item[i] != NULL)
            item_free(in->item[i]);
    *(in->before != NULL ? &in->before->next : &e->in_list) = in->next;
    if (in->next != NULL)
        in->next->before = in->before;
    free(in);
    sl_gauge_set(e->in_gauge, (int64_t)--e->ins);
}

static void in_end(struct webhook_in *in)
{
    struct webhook_engine *e = in->engine;
    struct chan_request *rq = in->rq;
    bool is_busy = in->is_busy, is_bad = in->is_bad;
    in_free(in);
    if (rq == NULL)
        return;
    if (is_busy) {
        answer_busy(e, rq);
    } else if (is_bad) {
        struct sl_fail why;
        (void)sl_fail_set(&why, SL_EINVAL, 0, "an event could not be read; the others were taken");
        refuse(e, rq, SL_EINVAL, &why);
    } else {
        rq->answer(rq, e->scheme->ok_status, e->scheme->ok_type, sl_str_c(e->scheme->ok_body));
    }
}

static void give(struct webhook_in *in, struct webhook_item *it)
{
    struct webhook_engine *e = in->engine;
    if (it->rule->does == WEBHOOK_MESSAGE && it->who == NULL) { /* no address: counted as bad already */
        item_free(it);
        in->item[in->given++] = NULL;
        return;
    }
    it->ticket = (struct chan_ticket){.owner = it, .id = sl_str_c(it->id), .context = sl_str_c(it->context)};
    sl_err err = e->is_closing || e->is_draining     ? SL_EAGAIN
                 : it->rule->does == WEBHOOK_MESSAGE ? give_message(e, it)
                                                     : give_receipt(e, it);
    in->given++;
    if (err == SL_OK) {
        in->waiting++;
        return;
    }
    in->is_bad |= err != SL_EAGAIN;
    in->is_busy |= err == SL_EAGAIN;
}

/* Items go to the core in their order; one that must wait (ledger, attachment) holds those behind it. */
static void in_run(struct webhook_in *in)
{
    if (in->is_in_run)
        return;
    in->is_in_run = true;
    while (in->given < in->count && !in->is_busy) {
        struct webhook_item *it = in->item[in->given];
        struct webhook_engine *e = in->engine;
        bool is_message = it->rule->does == WEBHOOK_MESSAGE && it->who != NULL;
        if (is_message && !it->is_ready && e->hooks->hold != NULL && e->hooks->hold(e->owner, it))
            break;
        it->is_ready = true;
        if (is_message && (in->is_fetching || fetch_begin(in, it))) {
            if (in->is_fetching)
                break;
            continue;
        }
        give(in, it);
    }
    in->is_in_run = false;
    bool is_held = in->given < in->count && !in->is_busy;
    if (!is_held && in->waiting == 0)
        in_end(in);
}

void webhook_item_go(struct webhook_item *it)
{
    it->is_ready = true;
    in_run(it->in);
}

void webhook_item_refuse(struct webhook_item *it)
{
    it->in->is_busy = true;
    in_run(it->in);
}

void webhook_engine_accepted(struct webhook_engine *e, struct chan_ticket *t, sl_err result)
{
    struct webhook_item *it = t->owner;
    struct webhook_in *in = it->in;
    (void)e;
    in->waiting--;
    in->is_busy |= result != SL_OK;
    in_run(in);
}

/* The provider has no more patience. What was given goes on; the repeat finds it known. */
static void on_late(void *arg)
{
    struct webhook_in *in = arg;
    struct chan_request *rq = in->rq;
    in->rq = NULL;
    if (rq != NULL)
        answer_busy(in->engine, rq);
}

/* ---- a request ---- */

static struct sl_str find_where(const struct chan_request *rq, const struct webhook_where *at,
                                struct sl_buf *keep)
{
    struct sl_str v = SL_STR_NONE;
    if (at->place == WEBHOOK_HEADER)
        v = rq->header(rq, at->name);
    if (at->place == WEBHOOK_QUERY)
        v = webhook_query_get(rq->query, at->name);
    sl_buf_str(keep, v); /* the next header may stand where this one did */
    return sl_buf_view(keep);
}

struct checked { /* parts, and the bytes they stand in */
    struct webhook_parts parts;
    struct sl_buf signature, ts, nonce, id, url;
};

static void read_parts(struct webhook_engine *e, const struct chan_request *rq, struct checked *c)
{
    const struct webhook_scheme *s = e->scheme;
    const struct webhook_where signature = {s->rule.place, s->rule.name};
    sl_buf_init(&c->signature, 0);
    sl_buf_init(&c->ts, 0);
    sl_buf_init(&c->nonce, 0);
    sl_buf_init(&c->id, 0);
    sl_buf_init(&c->url, 0);
    sl_buf_c(&c->url, e->public_url);
    sl_buf_str(&c->url, rq->rest);
    if (rq->query.len > 0)
        sl_buf_char(&c->url, '?');
    sl_buf_str(&c->url, rq->query);
    c->parts = (struct webhook_parts){.method = rq->method,
                                      .url = sl_buf_view(&c->url),
                                      .path = rq->path,
                                      .query = rq->query,
                                      .body = rq->body,
                                      .token = sl_str_c(e->verify_token),
                                      .signature = find_where(rq, &signature, &c->signature),
                                      .ts = find_where(rq, &s->ts, &c->ts),
                                      .nonce = find_where(rq, &s->nonce, &c->nonce),
                                      .id = find_where(rq, &s->id, &c->id)};
}

static void checked_fini(struct checked *c)
{
    sl_buf_fini(&c->signature);
    sl_buf_fini(&c->ts);
    sl_buf_fini(&c->nonce);
    sl_buf_fini(&c->id);
    sl_buf_fini(&c->url);
}

static size_t secrets_of(const struct webhook_engine *e, struct sl_str out[WEBHOOK_SECRETS_MAX])
{
    size_t count = 0;
    if (strcmp(e->scheme->secret_key, "encrypt_key") == 0)
        out[count++] = sl_str_c(e->encrypt_key);
    else if (strcmp(e->scheme->secret_key, "verify_token") == 0)
        out[count++] = sl_str_c(e->verify_token);
    else
        for (size_t i = 0; i < WEBHOOK_SECRETS_MAX && e->secrets[i] != NULL; i++)
            out[count++] = sl_str_c(e->secrets[i]);
    return count;
}

/* "/<secret>" or "/<secret>/more" */
static bool is_secret_path(const struct webhook_engine *e, struct sl_str rest)
{
    struct sl_str secrets[WEBHOOK_SECRETS_MAX];
    size_t count = secrets_of(e, secrets);
    bool is_right = false;
    if (rest.len < 2 || rest.ptr[0] != '/')
        return false;
    struct sl_str given = sl_str_n(rest.ptr + 1, rest.len - 1);
    const char *slash = memchr(given.ptr, '/', given.len);
    if (slash != NULL)
        given.len = (size_t)(slash - given.ptr);
    for (size_t i = 0; i < count; i++)
        is_right |= secrets[i].len > 0 && sl_secret_eq(given, secrets[i]);
    return is_right;
}

static bool is_allowed_address(const struct webhook_engine *e, struct sl_str remote)
{
    for (size_t i = 0; i < e->allow_count; i++)
        if (webhook_net_has(e->allow[i], remote))
            return true;
    return e->allow_count == 0;
}

static sl_err check_sender(struct webhook_engine *e, const struct chan_request *rq, struct sl_fail *why)
{
    struct checked c;
    struct sl_str secrets[WEBHOOK_SECRETS_MAX];
    if (e->scheme->is_secret_path && !is_secret_path(e, rq->rest))
        return sl_fail_set(why, SL_EAUTH, 0, "the path does not hold the secret");
    read_parts(e, rq, &c);
    sl_err err = e->hooks->verify != NULL
                     ? e->hooks->verify(e->owner, rq, &c.parts, why)
                     : webhook_verify(&e->scheme->rule, &c.parts, secrets, secrets_of(e, secrets),
                                      sl_loop_unix_ms(chan_loop(e->ch)), why);
    checked_fini(&c);
    return err;
}

/* The body of this request, decrypted where the scheme says so. */
static struct webhook_body *read_body(struct webhook_engine *e, const struct chan_request *rq, sl_err *err,
                                      struct sl_fail *why)
{
    static const struct sl_str at = {"/encrypt", 8};
    struct sl_buf cipher, plain;
    *err = SL_EINVAL;
    struct webhook_body *b = webhook_body_read(rq->body, e->scheme->is_form, why);
    if (b == NULL || !e->scheme->is_encrypted)
        return b;
    sl_buf_init(&cipher, 0);
    sl_buf_init(&plain, 0);
    webhook_body_get(b, at, &cipher);
    webhook_body_free(&b);
    *err = cipher.len > 0 ? webhook_feishu_decrypt(sl_str_c(e->encrypt_key), sl_buf_view(&cipher), &plain)
                          : SL_EAUTH;
    if (*err == SL_OK)
        b = webhook_body_read(sl_buf_view(&plain), false, why);
    else
        (void)sl_fail_set(why, *err, 0, "the body is not encrypted with our key");
    *err = *err == SL_OK ? SL_EINVAL : *err;
    sl_buf_fini(&cipher);
    sl_buf_fini(&plain);
    return b;
}

static sl_err check_token(const struct webhook_engine *e, const struct webhook_body *b, struct sl_fail *why)
{
    sl_err err = e->scheme->check_token_count == 0 ? SL_OK : SL_EAUTH;
    for (size_t i = 0; err != SL_OK && i < e->scheme->check_token_count; i++) {
        struct sl_buf got;
        sl_buf_init(&got, 1024);
        webhook_body_get(b, sl_str_c(e->scheme->check_token[i]), &got);
        bool is_there = got.len > 0;
        if (is_there && sl_secret_eq(sl_buf_view(&got), sl_str_c(e->verify_token)))
            err = SL_OK;
        sl_buf_fini(&got);
        if (is_there)
            break;
    }
    return err == SL_OK ? SL_OK : sl_fail_set(why, err, 0, "the body does not hold our verify_token");
}

static void answer_get(struct webhook_engine *e, struct chan_request *rq)
{
    struct sl_fail why = {.text = ""};
    const struct webhook_scheme *s = e->scheme;
    struct sl_buf out;
    sl_err err = s->is_handshake_signed ? check_sender(e, rq, &why) : SL_OK;
    struct sl_str given = webhook_query_get(rq->query, s->handshake_token);
    if (s->handshake_token[0] != '\0' &&
        (e->verify_token[0] == '\0' || !sl_secret_eq(given, sl_str_c(e->verify_token))))
        err = sl_fail_set(&why, SL_EDENIED, 0, "the handshake does not show our verify_token");
    sl_buf_init(&out, 4096);
    struct webhook_values values = {.engine = e, .query = rq->query};
    if (err == SL_OK)
        err = webhook_expand(sl_str_c(s->handshake_answer), WEBHOOK_RAW, webhook_lookup, &values, &out, &why);
    if (err == SL_OK)
        rq->answer(rq, 200, s->handshake_type, sl_buf_view(&out));
    else
        refuse(e, rq, err, &why);
    sl_buf_fini(&out);
}

static void answer_post_handshake(struct webhook_engine *e, struct chan_request *rq,
                                  const struct webhook_body *b)
{
    struct sl_fail why = {.text = ""};
    struct sl_buf out;
    bool is_json = sl_str_starts(sl_str_c(e->scheme->handshake_type), "application/json");
    sl_buf_init(&out, 8192);
    sl_err err = webhook_body_expand(b, sl_str_c(e->scheme->handshake_answer), is_json, &out, &why);
    if (err == SL_OK)
        rq->answer(rq, 200, e->scheme->handshake_type, sl_buf_view(&out));
    else
        refuse(e, rq, err, &why);
    sl_buf_fini(&out);
}

static struct sl_str header_of(void *arg, const char *name)
{
    const struct chan_request *rq = arg;
    return rq->header(rq, name);
}

static void take_events(struct webhook_engine *e, struct chan_request *rq, const struct webhook_body *b)
{
    struct sl_fail why = {.text = ""};
    size_t ignored = 0;
    struct webhook_in *in = sl_alloc(sizeof *in);
    in->engine = e;
    in->rq = rq;
    in->next = e->in_list;
    if (in->next != NULL)
        in->next->before = in;
    e->in_list = in;
    sl_gauge_set(e->in_gauge, (int64_t)++e->ins);
    sl_timer_init(&in->late, chan_loop(e->ch), on_late, in);
    sl_timer_init(&in->media, chan_loop(e->ch), on_media_late, in);
    sl_err err = webhook_map_run(&e->scheme->map, b, header_of, rq, on_event, in, &ignored, &why);
    sl_count(e->ignored, ignored);
    if (err == SL_ETOOBIG || (err != SL_OK && in->count == 0)) {
        in_free(in);
        refuse(e, rq, err, &why);
        return;
    }
    in->is_bad |= err != SL_OK;
    if (e->scheme->answer_within_ms > 0)
        sl_timer_start(&in->late, e->scheme->answer_within_ms);
    in_run(in);
}

/* Always answers, now or later. */
sl_err webhook_engine_request(struct webhook_engine *e, struct chan_request *rq)
{
    struct sl_fail why = {.text = ""};
    const struct webhook_scheme *s = e->scheme;
    if (e->ins >= WEBHOOK_REQUESTS_MAX) {
        answer_busy(e, rq);
        return SL_OK;
    }
    sl_err err = is_allowed_address(e, rq->remote)
                     ? SL_OK
                     : sl_fail_set(&why, SL_EDENIED, 0, "this address may not call");
    bool is_get = sl_str_eq_c(rq->method, "GET");
    if (err == SL_OK && is_get && s->handshake == WEBHOOK_GET) {
        answer_get(e, rq);
        return SL_OK;
    }
    if (err == SL_OK && !sl_str_eq_c(rq->method, "POST")) {
        rq->answer(rq, 405, "text/plain", SL_STR("method not allowed\n"));
        return SL_OK;
    }
    struct webhook_body *b = NULL;
    bool may_be_unsigned = s->handshake == WEBHOOK_POST && !s->is_handshake_signed;
    if (err == SL_OK && !may_be_unsigned)
        err = check_sender(e, rq, &why);
    if (err == SL_OK) {
        sl_err body_err;
        b = read_body(e, rq, &body_err, &why);
        err = b != NULL ? check_token(e, b, &why) : body_err;
    }
    bool is_handshake = err == SL_OK && s->handshake == WEBHOOK_POST &&
                        webhook_body_meets(b, s->handshake_when, s->handshake_when_count);
    if (err == SL_OK && may_be_unsigned && !is_handshake)
        err = check_sender(e, rq, &why);
    if (err != SL_OK)
        refuse(e, rq, err, &why);
    else if (is_handshake)
        answer_post_handshake(e, rq, b);
    else
        take_events(e, rq, b);
    webhook_body_free(&b);
    return SL_OK;
}

/* Nothing is called back any more: who still waits is told to come again. */
void webhook_in_close(struct webhook_engine *e)
{
    while (e->fetches != NULL) {
        struct webhook_fetch *c = e->fetches;
        e->fetches = c->next;
        free(c);
    }
    while (e->in_list != NULL) {
        struct webhook_in *in = e->in_list;
        struct chan_request *rq = in->rq;
        in_free(in);
        if (rq != NULL)
            answer_busy(e, rq);
    }
}
