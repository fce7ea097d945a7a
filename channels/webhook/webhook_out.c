/* channels/webhook/webhook_out.c - calls: built from a template, made once, and judged. */
#include "channels/webhook/webhook_engine.h"

#include "base/crypto.h"
#include "base/fault.h"
#include "channels/webhook/webhook_template.h"

#include <stdio.h>
#include <stdlib.h>

#define CALL_MAX_BYTES  (256u << 10)
#define ANSWER_MAX      (64u << 10)
#define CALL_MS         10000
#define CONNECT_MS      5000
#define HEADERS_MAX     24
#define MEDIA_MAX_BYTES 8192 /* an attachment's name, type and link */

/* ---- values ---- */

/* The key as a UUID (LINE wants one): the same key, the same UUID. RFC 4122 4.1.3 calls it version 5, by its bits. */
static void add_uuid(struct sl_buf *out, struct sl_str key)
{
    unsigned char d[32];
    char hex[33];
    sl_sha256(key, d);
    d[6] = (unsigned char)((d[6] & 0x0f) | 0x50);
    d[8] = (unsigned char)((d[8] & 0x3f) | 0x80);
    sl_hex(hex, d, 16);
    sl_buf_printf(out, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
}

static bool var_lookup(const struct webhook_engine *e, struct sl_str name, struct sl_buf *out)
{
    for (size_t i = 0; i < e->var_count; i++) {
        const char *eq = strchr(e->vars[i], '=');
        if (eq == NULL || !sl_str_eq(name, sl_str_n(e->vars[i], (size_t)(eq - e->vars[i]))))
            continue;
        sl_buf_c(out, eq + 1);
        return true;
    }
    return false;
}

static bool send_lookup(const struct chan_send *s, struct sl_str name, struct sl_buf *out)
{
    if (s == NULL)
        return false;
    if (sl_str_eq_c(name, "text"))
        sl_buf_str(out, s->m->text);
    else if (sl_str_eq_c(name, "to"))
        webhook_address_read(s->address, out);
    else if (sl_str_eq_c(name, "key"))
        sl_buf_str(out, s->key);
    else if (sl_str_eq_c(name, "uuid"))
        add_uuid(out, s->key);
    else if (sl_str_eq_c(name, "kind"))
        sl_buf_c(out, msg_kind_name(s->m->kind));
    else if (sl_str_eq_c(name, "data"))
        sl_buf_str(out, s->m->data.len > 0 ? s->m->data : SL_STR("{}"));
    else
        return false;
    return true;
}

static bool cut_front(struct sl_str *name, const char *prefix)
{
    if (!sl_str_starts(*name, prefix))
        return false;
    *name = sl_str_n(name->ptr + strlen(prefix), name->len - strlen(prefix));
    return true;
}

bool webhook_lookup(void *arg, struct sl_str name, struct sl_buf *out)
{
    const struct webhook_values *v = arg;
    const struct webhook_engine *e = v->engine;
    if (cut_front(&name, "var."))
        return var_lookup(e, name, out);
    if (cut_front(&name, "query.") || cut_front(&name, "context.")) {
        char key[WEBHOOK_NAME_MAX + 1];
        memcpy(key, name.ptr, name.len);
        key[name.len] = '\0';
        sl_buf_str(out,
                   v->query.len > 0 ? webhook_query_get(v->query, key) : sl_json_get_str(v->context, key));
        return true;
    }
    const struct {
        const char *name;
        struct sl_str value;
    } all[] = {{"api", sl_str_c(e->api)},
               {"token", sl_buf_view(&e->token)},
               {"access_token", sl_str_c(e->access_token)},
               {"verify_token", sl_str_c(e->verify_token)},
               {"app_secret", sl_str_c(e->app_secret)},
               {"public_url", sl_str_c(e->public_url)},
               {"basic", sl_str_c(e->basic != NULL ? e->basic : "")},
               {"media.url", v->media_url},
               {"media.name", v->media_name},
               {"media.type", v->media_type},
               {"inbox", sl_str_c(chan_inbox(e->ch))}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (!sl_str_eq_c(name, all[i].name))
            continue;
        sl_buf_str(out, all[i].value);
        return true;
    }
    return send_lookup(v->send, name, out);
}

/* ---- building ---- */

void webhook_job_header(struct webhook_job *j, const char *name, struct sl_str value)
{
    if (j->header_count == HEADERS_MAX)
        return;
    sl_buf_c(&j->headers, name);
    sl_buf_c(&j->headers, ": ");
    sl_buf_str(&j->headers, value);
    sl_buf_char(&j->headers, '\0');
    j->header_count++;
}

static void job_init(struct webhook_job *j)
{
    sl_buf_init(&j->method, 64);
    sl_buf_init(&j->url, 8192);
    sl_buf_init(&j->body, CALL_MAX_BYTES);
    sl_buf_init(&j->headers, 32768);
    sl_buf_init(&j->user, 1024);
    sl_buf_init(&j->password, 4096);
}

static sl_err build_headers(const struct webhook_call *call, struct webhook_values *values,
                            struct webhook_job *out, struct sl_fail *why)
{
    sl_err err = SL_OK;
    for (size_t i = 0; i < call->header_count && err == SL_OK; i++) {
        err = webhook_expand(sl_str_c(call->headers[i]), WEBHOOK_IN_HEADER, webhook_lookup, values,
                             &out->headers, why);
        sl_buf_char(&out->headers, '\0');
        out->header_count++;
    }
    if (call->type[0] != '\0')
        webhook_job_header(out, "Content-Type", sl_str_c(call->type));
    return err;
}

sl_err webhook_job_build(struct webhook_engine *e, const struct webhook_call *call,
                         const struct webhook_values *given, struct webhook_job *out, struct sl_fail *why)
{
    struct webhook_values values = *given;
    bool is_json = sl_str_starts(sl_str_c(call->type), "application/json");
    (void)e;
    job_init(out);
    sl_buf_c(&out->method, call->method);
    /* The API's own address is no value to escape. */
    sl_err err = SL_OK;
    const char *url = call->url;
    if (strncmp(url, "${api}", 6) == 0) {
        sl_buf_c(&out->url, e->api);
        url += 6;
    }
    err = webhook_expand(sl_str_c(url), WEBHOOK_IN_URL, webhook_lookup, &values, &out->url, why);
    if (err == SL_OK)
        err = build_headers(call, &values, out, why);
    if (err == SL_OK)
        err = webhook_expand(sl_str_c(call->body), is_json ? WEBHOOK_IN_JSON : WEBHOOK_IN_URL, webhook_lookup,
                             &values, &out->body, why);
    if (err == SL_OK)
        err = webhook_expand(sl_str_c(call->user), WEBHOOK_RAW, webhook_lookup, &values, &out->user, why);
    if (err == SL_OK)
        err = webhook_expand(sl_str_c(call->password), WEBHOOK_RAW, webhook_lookup, &values, &out->password,
                             why);
    if (err == SL_OK && (out->url.overflow || out->headers.overflow || out->body.overflow))
        err = sl_fail_set(why, SL_ETOOBIG, 0, "the call would be too large");
    return err;
}

/* A URL with a value of the customer's in it leads only where the scheme says. */
static sl_err check_host(const struct webhook_engine *e, const struct webhook_job *j, struct sl_fail *why)
{
    for (size_t i = 0; i < e->scheme->host_count; i++) {
        struct sl_buf want;
        struct webhook_values values = {.engine = e};
        sl_buf_init(&want, 2048);
        bool is_it = webhook_expand(sl_str_c(e->scheme->hosts[i]), WEBHOOK_RAW, webhook_lookup, &values,
                                    &want, NULL) == SL_OK &&
                     want.len > 0 && j->url.len >= want.len && memcmp(j->url.ptr, want.ptr, want.len) == 0;
        sl_buf_fini(&want);
        if (is_it)
            return SL_OK;
    }
    return e->scheme->host_count == 0
               ? SL_OK
               : sl_fail_set(why, SL_EINVAL, 0, "the answer's address is not the provider's");
}

bool webhook_media_find(const struct webhook_engine *e, const struct chan_send *s, struct webhook_values *v,
                        struct sl_buf *store)
{
    size_t at[3] = {0};
    sl_buf_clear(store);
    if (!(WEBHOOK_MEDIA_KINDS & 1u << s->m->kind) || chan_host_of(e->ch)->media_link == NULL)
        return false;
    json_t *data = s->m->data.len > 0 ? sl_json_parse(s->m->data, NULL) : NULL;
    const json_t *one = json_array_get(json_object_get(data, "attachments"), 0); /* borrowed */
    const struct sl_str id = sl_json_get_str(one, "id"), name = sl_json_get_str(one, "name");
    sl_buf_str(store, name);
    at[0] = store->len;
    sl_buf_str(store, sl_json_get_str(one, "type"));
    at[1] = store->len;
    if (id.len > 0)
        chan_host_of(e->ch)->media_link(e->ch, id, name, store);
    at[2] = store->len;
    json_decref(data);
    if (store->overflow || at[2] == at[1])
        return false;
    v->media_name = sl_str_n(store->ptr, at[0]);
    v->media_type = sl_str_n(store->ptr + at[0], at[1] - at[0]);
    v->media_url = sl_str_n(store->ptr + at[1], at[2] - at[1]);
    return true;
}

/* The call for this message. A kind whose attachment has no address goes as its words, or its name. */
static sl_err build_send(struct webhook_engine *e, const struct chan_send *s, json_t *context,
                         struct webhook_job *j, struct sl_fail *why)
{
    const struct webhook_scheme *scheme = e->scheme;
    struct webhook_values values = {.engine = e, .send = s, .context = context};
    struct webhook_call call = scheme->send;
    struct chan_send plain = *s;
    struct msg m = *s->m;
    struct sl_buf media, text;
    sl_buf_init(&media, MEDIA_MAX_BYTES);
    sl_buf_init(&text, MSG_TEXT_MAX_BYTES);
    if (scheme->media_body[m.kind] != NULL && webhook_media_find(e, s, &values, &media)) {
        call.body = scheme->media_body[m.kind];
        call.url = scheme->media_url[m.kind] != NULL ? scheme->media_url[m.kind] : call.url;
    } else if ((WEBHOOK_MEDIA_KINDS & 1u << m.kind) && m.text.len == 0) {
        sl_buf_printf(&text, "[%s]", msg_kind_name(m.kind));
        m.kind = MSG_TEXT;
        m.text = sl_buf_view(&text);
        plain.m = &m;
        values.send = &plain;
    }
    const sl_err err = webhook_job_build(e, &call, &values, j, why);
    sl_buf_fini(&media);
    sl_buf_fini(&text);
    return err;
}

static sl_err build(struct webhook_engine *e, const struct chan_send *s, struct webhook_job *j,
                    struct sl_fail *why)
{
    if (e->hooks->call != NULL && !e->scheme->can_send) {
        job_init(j);
        return e->hooks->call(e->owner, s, j, why);
    }
    json_t *context = s->context.len > 0 ? sl_json_parse(s->context, NULL) : NULL;
    sl_err err = build_send(e, s, context, j, why);
    json_decref(context);
    return err == SL_OK ? check_host(e, j, why) : err;
}

/* ---- a job's life ---- */

static void job_free(struct webhook_job *j)
{
    sl_buf_fini(&j->method);
    sl_buf_fini(&j->url);
    sl_buf_fini(&j->body);
    sl_buf_fini(&j->headers);
    sl_buf_fini(&j->user);
    sl_buf_fini(&j->password);
    free(j->address);
    free(j->key);
    free(j);
}

static void job_unlink(struct webhook_job *j)
{
    struct webhook_job **at = &j->engine->job_list;
    while (*at != j)
        at = &(*at)->next;
    *at = j->next;
    j->engine->jobs--;
}

/* The one settlement, and the job's end. */
static void settle(struct webhook_job *j, const struct chan_result *r)
{
    struct webhook_engine *e = j->engine;
    struct chan_job *job = j->job;
    job_unlink(j);
    chan_host_of(e->ch)->settled(e->ch, job, r);
    job_free(j);
    if (e->is_closing)
        sl_post_now(&e->turn);
}

void webhook_job_refuse(struct webhook_job *j, const char *code, const char *words, bool may_retry)
{
    settle(j, &(struct chan_result){.outcome = CHAN_FAILED,
                                    .code = sl_str_c(code),
                                    .words = sl_str_c(words),
                                    .may_retry = may_retry});
}

static bool is_among(const char *const *list, size_t count, struct sl_str word)
{
    for (size_t i = 0; i < count; i++)
        if (word.len > 0 && sl_str_eq_c(word, list[i]))
            return true;
    return false;
}

/* What the provider says, fit for an agent's eyes: one line, valid, short. */
static void clean_words(struct sl_buf *b)
{
    size_t n = b->len < 160 ? b->len : 160;
    while (n > 0 && !sl_str_utf8(sl_str_n(b->ptr, n)))
        n--;
    b->len = n;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)b->ptr[i] < 0x20 || b->ptr[i] == 0x7f)
            b->ptr[i] = ' ';
}

static void canonical_id(struct sl_buf *b)
{
    for (size_t i = 0; i < b->len; i++)
        b->ptr[i] = (char)(b->ptr[i] == ','                       ? '_'
                           : b->ptr[i] >= 'A' && b->ptr[i] <= 'Z' ? b->ptr[i] + 32
                                                                  : b->ptr[i]);
}

struct said { /* what stands in an answer */
    struct sl_buf remote_id, code, text, words, after;
    struct webhook_body *body; /* NULL: no JSON */
};

static void read_answer(struct webhook_engine *e, const struct sl_http_answer *a, struct said *out)
{
    const struct webhook_scheme *s = e->scheme;
    sl_buf_init(&out->remote_id, 500);
    sl_buf_init(&out->code, 100);
    sl_buf_init(&out->text, 4096);
    sl_buf_init(&out->words, 600);
    sl_buf_init(&out->after, 100);
    out->body = a->body.len > 0 ? webhook_body_read(a->body, false, NULL) : NULL;
    const struct {
        const char *text;
        struct sl_buf *into;
    } all[] = {{s->remote_id, &out->remote_id},
               {s->error_code, &out->code},
               {s->error_text, &out->text},
               {s->retry_after, &out->after}};
    for (size_t i = 0; out->body != NULL && i < sizeof all / sizeof all[0]; i++)
        if (webhook_body_expand(out->body, sl_str_c(all[i].text), false, all[i].into, NULL) != SL_OK)
            sl_buf_clear(all[i].into);
    if (!sl_str_utf8(sl_buf_view(&out->remote_id)))
        sl_buf_clear(&out->remote_id);
    canonical_id(&out->remote_id);
    clean_words(&out->text);
    clean_words(&out->code);
    if (out->code.len == 0)
        sl_buf_int(&out->code, a->status);
    sl_buf_printf(&out->words, "the provider answered %.*s (HTTP %d)", (int)out->code.len, out->code.ptr,
                  a->status);
    if (out->text.len > 0)
        sl_buf_printf(&out->words, ": %.*s", (int)out->text.len, out->text.ptr);
}

static void said_fini(struct said *s)
{
    sl_buf_fini(&s->remote_id);
    sl_buf_fini(&s->code);
    sl_buf_fini(&s->text);
    sl_buf_fini(&s->words);
    sl_buf_fini(&s->after);
    webhook_body_free(&s->body);
}

/* A status that says what became of it; 502, 504 and their like do not: something behind may have taken it. */
static void judge_status(struct webhook_engine *e, int status, struct chan_result *r)
{
    const struct webhook_scheme *s = e->scheme;
    char word[16];
    (void)snprintf(word, sizeof word, "%d", status);
    if (is_among(s->already, s->already_count, sl_str_c(word)))
        r->outcome = CHAN_SENT;
    else if (status == 429)
        r->may_retry = r->is_account = true;
    else if (status == 401 || status == 403)
        r->may_retry = r->is_account = status == 401 || s->gone_code_count == 0;
    else if (status == 503 || status == 408)
        r->may_retry = true;
    else if (status >= 500 || (status >= 300 && status < 400))
        r->outcome = status >= 500 ? CHAN_UNKNOWN : CHAN_FAILED;
}

static void alarm_auth(struct webhook_engine *e, bool is_on)
{
    chan_host_of(e->ch)->alarm(
        e->ch, "credentials", is_on,
        "the provider refuses our credentials: check access_token, secret and vars of this inbox");
}

static void judge(struct webhook_engine *e, const struct webhook_job *j, const struct sl_http_answer *a,
                  struct said *said, struct chan_result *r)
{
    const struct webhook_scheme *s = e->scheme;
    struct sl_str code = sl_buf_view(&said->code);
    bool is_2xx = a->status >= 200 && a->status < 300;
    bool is_ok =
        is_2xx && (s->ok_when_count == 0 ||
                   (said->body != NULL && webhook_body_meets(said->body, s->ok_when, s->ok_when_count)));
    r->outcome = is_ok ? CHAN_SENT : CHAN_FAILED;
    r->remote_id = sl_buf_view(&said->remote_id);
    r->code = code;
    r->words = sl_buf_view(&said->words);
    r->retry_after_ms = sl_http_retry_after_ms(a, sl_loop_unix_ms(chan_loop(e->ch)));
    int64_t seconds;
    if (r->retry_after_ms <= 0)
        r->retry_after_ms =
            sl_str_int(sl_buf_view(&said->after), &seconds) == SL_OK && seconds > 0 && seconds < 86400
                ? seconds * 1000
                : 0;
    if (!is_2xx)
        judge_status(e, a->status, r);
    if (r->outcome == CHAN_FAILED && is_among(s->retry_codes, s->retry_code_count, code))
        r->may_retry = true;
    if (r->outcome == CHAN_FAILED && is_among(s->gone_codes, s->gone_code_count, code))
        r->may_retry = r->is_account = false;
    if (r->outcome == CHAN_FAILED && is_among(s->auth_codes, s->auth_code_count, code))
        r->may_retry = r->is_account = true;
    if (e->hooks->judge != NULL)
        e->hooks->judge(e->owner, j, said->body, r);
}

static void on_answered(void *arg, const struct sl_http_answer *a)
{
    struct webhook_job *j = arg;
    struct webhook_engine *e = j->engine;
    struct chan_result r = {.outcome = CHAN_FAILED};
    struct said said;
    if (a->err != SL_OK) {
        char words[300];
        bool is_unsent = a->sent == SL_HTTP_NOT_SENT;
        (void)snprintf(words, sizeof words, "%s: %s",
                       is_unsent ? "the provider could not be reached" : "no answer; it may have been sent",
                       a->why.text);
        r = (struct chan_result){.outcome = is_unsent ? CHAN_FAILED : CHAN_UNKNOWN,
                                 .code = sl_str_c(sl_err_name(a->err)),
                                 .words = sl_str_c(words),
                                 .may_retry = true,
                                 .is_account = is_unsent};
        settle(j, &r);
        return;
    }
    read_answer(e, a, &said);
    judge(e, j, a, &said, &r);
    struct sl_buf fallback;
    sl_buf_init(&fallback, 0);
    if (r.outcome == CHAN_SENT &&
        r.remote_id.len == 0) { /* no id: nothing can be said of it later, but a name it must have */
        sl_buf_c(&fallback, "key.");
        sl_buf_c(&fallback, j->key);
        r.remote_id = sl_buf_view(&fallback);
    }
    bool is_auth = r.outcome == CHAN_FAILED && r.is_account && a->status != 429 && r.retry_after_ms == 0;
    if (is_auth && e->scheme->token.url[0] != '\0') {
        sl_buf_clear(&e->token); /* it may have been revoked: get another */
        e->is_token_due = true;
        sl_post_now(&e->turn);
    }
    if (is_auth || r.outcome == CHAN_SENT)
        alarm_auth(e, is_auth);
    settle(j, &r);
    sl_buf_fini(&fallback);
    said_fini(&said);
}

static sl_err call_begin(struct webhook_engine *e, struct webhook_job *j, sl_http_fn fn, void *arg,
                         uint64_t *id)
{
    const char *headers[HEADERS_MAX + 1] = {NULL};
    const char *at = j->headers.ptr;
    for (size_t i = 0; i < j->header_count; i++, at += strlen(at) + 1)
        headers[i] = at;
    sl_buf_char(&j->url, '\0');
    sl_buf_char(&j->method, '\0');
    sl_buf_char(&j->user, '\0');
    sl_buf_char(&j->password, '\0');
    struct sl_http_request rq = {.method = j->method.ptr,
                                 .url = j->url.ptr,
                                 .headers = headers,
                                 .body = sl_buf_view(&j->body),
                                 .user = j->user.len > 1 ? j->user.ptr : NULL,
                                 .password = j->user.len > 1 ? j->password.ptr : NULL,
                                 .connect_ms = CONNECT_MS,
                                 .whole_ms = CALL_MS,
                                 .max_bytes = ANSWER_MAX};
    return sl_http_request(e->http, &rq, fn, arg, id);
}

void webhook_job_go(struct webhook_job *j)
{
    struct webhook_engine *e = j->engine;
    if (e->is_closing) {
        webhook_job_refuse(j, "closing", "the gateway is stopping; nothing was sent", true);
        return;
    }
    sl_err err = call_begin(e, j, on_answered, j, &j->http);
    if (err != SL_OK)
        webhook_job_refuse(j, sl_err_name(err), "the call could not begin; nothing was sent", true);
}

static struct webhook_job *job_new(struct webhook_engine *e, const struct chan_send *s, struct chan_job *job)
{
    struct webhook_job *j = sl_alloc(sizeof *j);
    j->engine = e;
    j->job = job;
    j->address = sl_str_dup(s->address);
    j->key = sl_str_dup(s->key);
    j->next = e->job_list;
    e->job_list = j;
    e->jobs++;
    return j;
}

sl_err webhook_engine_send(struct webhook_engine *e, const struct chan_send *s, struct chan_job *job)
{
    struct sl_fail why = {.text = ""};
    const struct webhook_scheme *scheme = e->scheme;
    bool needs_token = scheme->token.url[0] != '\0';
    if (e->is_closing || e->jobs >= WEBHOOK_JOBS_MAX)
        return SL_EAGAIN;
    if (needs_token && (e->token.len == 0 || sl_loop_mono_ms(chan_loop(e->ch)) >= e->token_until_mono_ms)) {
        e->is_token_due = true;
        sl_post_now(&e->turn);
        return SL_EAGAIN;
    }
    struct webhook_job *j = job_new(e, s, job);
    sl_err err = build(e, s, j, &why);
    if (err == SL_OK && e->hooks->ask != NULL)
        err = e->hooks->ask(e->owner, j);
    else if (err == SL_OK)
        err = SL_ENOTFOUND;
    if (err == SL_OK)
        return SL_OK;
    if (err == SL_ENOTFOUND)
        err = call_begin(e, j, on_answered, j, &j->http);
    if (err == SL_OK)
        return SL_OK;
    if (err != SL_EAGAIN) { /* it can never be sent: told on the next turn */
        sl_buf_clear(&j->body);
        sl_buf_c(&j->body, why.text[0] != '\0' ? why.text : sl_err_text(err));
        j->is_aborted = true;
        sl_post_now(&e->turn);
        return SL_OK;
    }
    job_unlink(j);
    job_free(j);
    return SL_EAGAIN;
}

/* ---- a token that is fetched ---- */

#define TOKEN_MARGIN_MS 120000 /* a new one is got this long before the old one ends */

static void token_failed(struct webhook_engine *e, const char *words)
{
    uint64_t pause = 1000u << (e->token_failures < 6 ? e->token_failures : 6);
    e->token_failures++;
    chan_host_of(e->ch)->alarm(e->ch, "token", true, words);
    sl_timer_start(&e->token_timer, pause + sl_loop_jitter(chan_loop(e->ch), pause / 2));
}

static void on_token(void *arg, const struct sl_http_answer *a)
{
    struct webhook_engine *e = arg;
    struct sl_buf value, seconds;
    int64_t s = 0;
    e->token_call = 0;
    if (e->is_closing) {
        sl_post_now(&e->turn);
        return;
    }
    struct webhook_body *b =
        a->err == SL_OK && a->status == 200 ? webhook_body_read(a->body, false, NULL) : NULL;
    sl_buf_init(&value, 4096);
    sl_buf_init(&seconds, 64);
    bool is_ok = b != NULL &&
                 webhook_body_expand(b, sl_str_c(e->scheme->token_value), false, &value, NULL) == SL_OK &&
                 webhook_body_expand(b, sl_str_c(e->scheme->token_seconds), false, &seconds, NULL) == SL_OK &&
                 value.len > 0 && sl_str_int(sl_buf_view(&seconds), &s) == SL_OK && s > 0 && s < 100 * 86400;
    if (is_ok) {
        uint64_t ms = (uint64_t)s * 1000, now = sl_loop_mono_ms(chan_loop(e->ch));
        sl_buf_clear(&e->token);
        sl_buf_str(&e->token, sl_buf_view(&value));
        e->token_until_mono_ms = now + (ms > 2 * TOKEN_MARGIN_MS ? ms - TOKEN_MARGIN_MS : ms / 2);
        e->token_failures = 0;
        chan_host_of(e->ch)->alarm(e->ch, "token", false, "");
        chan_host_of(e->ch)->state(e->ch, CHAN_UP);
    } else {
        token_failed(e,
                     "no access token from the provider: check app_secret, vars and api_url of this inbox");
    }
    sl_buf_fini(&value);
    sl_buf_fini(&seconds);
    webhook_body_free(&b);
}

static void token_begin(struct webhook_engine *e)
{
    struct sl_fail why = {.text = ""};
    struct webhook_values values = {.engine = e};
    struct webhook_job *j = sl_alloc(sizeof *j);
    e->is_token_due = false;
    sl_err err = webhook_job_build(e, &e->scheme->token, &values, j, &why);
    if (err == SL_OK)
        err = call_begin(e, j, on_token, e, &e->token_call);
    if (err != SL_OK)
        token_failed(e, "the call for an access token cannot be built: check vars of this inbox");
    job_free(j);
}

/* ---- turns ---- */

static void settle_aborted(struct webhook_engine *e)
{
    for (struct webhook_job *j = e->job_list, *next; j != NULL; j = next) {
        next = j->next;
        if (!j->is_aborted)
            continue;
        char words[300];
        (void)snprintf(words, sizeof words, "it cannot be sent: %.*s", (int)j->body.len, j->body.ptr);
        webhook_job_refuse(j, "EINVAL", words, false);
        next =
            e->job_list; /* the host may have given new ones: begin again, each is looked at once more at most */
    }
}

void webhook_out_turn(struct webhook_engine *e)
{
    settle_aborted(e);
    if (e->is_token_due && e->token_call == 0 && !e->is_closing && !sl_timer_is_active(&e->token_timer))
        token_begin(e);
}

/* Jobs that wait for a hook are told; calls under way settle by themselves. */
void webhook_out_close(struct webhook_engine *e)
{
    for (struct webhook_job *j = e->job_list, *next; j != NULL; j = next) {
        next = j->next;
        if (j->http == 0 && !j->is_aborted) {
            webhook_job_refuse(j, "closing", "the gateway is stopping; nothing was sent", true);
            next = e->job_list;
        }
    }
}
