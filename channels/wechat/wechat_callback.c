/* channels/wechat/wechat_callback.c - the platform's requests: checked, read, handed to the host, answered when they are durable. */
#include "channels/wechat/wechat_priv.h"

#include "base/log.h"
#include "proto/keys.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- the query ---- */

static int hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static void percent_decode(struct sl_str in, struct sl_buf *out)
{
    for (size_t i = 0; i < in.len; i++) {
        int high = in.ptr[i] == '%' && i + 2 < in.len ? hex_value(in.ptr[i + 1]) : -1;
        int low = high >= 0 ? hex_value(in.ptr[i + 2]) : -1;
        if (low >= 0) {
            sl_buf_char(out, (char)(high * 16 + low));
            i += 2;
        } else {
            sl_buf_char(out, in.ptr[i]); /* "+" stays: base64 of an echostr may come unescaped */
        }
    }
}

struct query {
    struct sl_buf timestamp, nonce, signature, msg_signature, echostr;
};

static void query_read(struct query *q, struct sl_str text)
{
    const struct {
        const char *name;
        struct sl_buf *value;
        size_t max;
    } members[] = {{"timestamp", &q->timestamp, 32},
                   {"nonce", &q->nonce, 128},
                   {"signature", &q->signature, 64},
                   {"msg_signature", &q->msg_signature, 64},
                   {"echostr", &q->echostr, 4096}};
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        sl_buf_init(members[i].value, members[i].max);
    for (size_t at = 0; at < text.len;) {
        const char *end = memchr(text.ptr + at, '&', text.len - at);
        struct sl_str part =
            sl_str_n(text.ptr + at, end != NULL ? (size_t)(end - text.ptr) - at : text.len - at);
        for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
            size_t n = strlen(members[i].name);
            if (part.len > n && part.ptr[n] == '=' && memcmp(part.ptr, members[i].name, n) == 0 &&
                members[i].value->len == 0)
                percent_decode(sl_str_n(part.ptr + n + 1, part.len - n - 1), members[i].value);
        }
        at += part.len + 1;
    }
}

static void query_fini(struct query *q)
{
    struct sl_buf *const all[] = {&q->timestamp, &q->nonce, &q->signature, &q->msg_signature, &q->echostr};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        sl_buf_fini(all[i]);
}

static bool is_fresh(const struct wechat *wc, const struct query *q)
{
    int64_t seconds, now = sl_loop_unix_ms(chan_loop(wc->ch));
    if (sl_str_int(sl_buf_view(&q->timestamp), &seconds) != SL_OK || seconds < 0 ||
        seconds > INT64_C(1) << 40)
        return false;
    int64_t away = now - seconds * 1000;
    return away <= wc->freshness_ms && away >= -wc->freshness_ms;
}

static bool is_query_signed(const struct wechat *wc, const struct query *q)
{
    const struct sl_str parts[] = {sl_str_c(wc->token), sl_buf_view(&q->timestamp), sl_buf_view(&q->nonce)};
    return wechat_is_signed(parts, 3, sl_buf_view(&q->signature));
}

/* ---- answers ---- */

static void answer(struct chan_request *rq, int status, const char *text)
{
    rq->answer(rq, status, "text/plain; charset=utf-8", sl_str_c(text));
}

/* One answer for everything that is not from the platform: nobody learns how far he came. */
static void refuse(struct chan_request *rq, const char *why)
{
    wechat_count(why);
    answer(rq, 403, "forbidden");
}

void wechat_success(struct wechat_call *c)
{
    struct chan_request *rq = c->rq;
    c->rq = NULL;
    if (rq != NULL)
        answer(rq, 200, "success");
}

static void answer_result(struct wechat_call *c, sl_err result)
{
    struct chan_request *rq = c->rq;
    c->rq = NULL;
    if (rq == NULL)
        return;
    if (result == SL_OK)
        answer(rq, 200, "success");
    else
        answer(rq, sl_err_retry(result) || result == SL_ECLOSED ? 503 : sl_err_http(result), "again");
}

/* ---- calls ---- */

struct wechat_call *wechat_call_new(struct wechat *wc)
{
    if (wc->call_count >= WECHAT_CALLS_MAX)
        return NULL;
    struct wechat_call *c = sl_alloc(sizeof *c);
    *c = (struct wechat_call){.wc = wc,
                              .id = ++wc->last_call,
                              .prev = &wc->calls,
                              .next = wc->calls,
                              .began_mono_ms = sl_loop_mono_ms(chan_loop(wc->ch))};
    if (c->next != NULL)
        c->next->prev = &c->next;
    wc->calls = c;
    sl_gauge_set(wc->calls_gauge, (int64_t)++wc->call_count);
    sl_buf_init(&c->plain, WECHAT_XML_MAX_BYTES);
    c->ticket.owner = c;
    return c;
}

void wechat_call_free(struct wechat_call *c)
{
    *c->prev = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    sl_gauge_set(c->wc->calls_gauge, (int64_t)--c->wc->call_count);
    if (c->timer.loop != NULL)
        sl_timer_stop(&c->timer);
    sl_buf_fini(&c->plain);
    free(c);
}

static struct wechat_call *call_find(struct wechat *wc, uint64_t id)
{
    for (struct wechat_call *c = wc->calls; c != NULL; c = c->next)
        if (c->id == id)
            return c;
    return NULL;
}

/* Closing: whoever waits is told to come again; what the host holds a ticket of stays until it has spoken. */
void wechat_calls_end(struct wechat *wc)
{
    for (struct wechat_call *c = wc->calls, *next; c != NULL; c = next) {
        next = c->next;
        if (c->is_parked || c->is_fetching) {
            answer_result(c, SL_EAGAIN);
            wechat_call_free(c);
        }
    }
}

static void fetch_free(struct wechat_fetch *f)
{
    *f->prev = f->next;
    if (f->next != NULL)
        f->next->prev = f->prev;
    wechat_token_leave(f->wc, &f->waiter);
    free(f);
}

void wechat_calls_free(struct wechat *wc)
{
    while (wc->calls != NULL) {
        answer_result(wc->calls, SL_EAGAIN);
        wechat_call_free(wc->calls);
    }
    if (wc->http_calls == 0) /* a fetch under way by HTTP is told of its end */
        while (wc->fetches != NULL)
            fetch_free(wc->fetches);
}

/* ---- to the host ---- */

static bool is_listed(const struct wechat *wc, struct sl_str event)
{
    for (size_t i = 0; i < wc->event_count; i++)
        if (sl_str_eq_c(event, wc->events[i]))
            return true;
    return false;
}

/* What a reply needs to know of the message it answers. */
static void write_context(const struct wechat_call *c, const struct wechat_in *in, struct sl_buf *out)
{
    struct sl_json j;
    sl_json_begin(&j, out);
    sl_json_open(&j, NULL, '{');
    if (c->wc->product == WECHAT_KF)
        sl_json_str(&j, "kf", in->open_kfid);
    if (c->wc->is_passive) {
        sl_json_str(&j, "id", in->id);
        sl_json_str(&j, "account", in->account);
        sl_json_int(&j, "at", in->sent_unix_ms);
    }
    sl_json_close(&j, '}');
}

/* The platform's own fields, and the attachment once its bytes are here. */
static void write_data(const struct wechat_call *c, const struct wechat_in *in, struct sl_buf *out)
{
    struct sl_json j;
    sl_json_begin(&j, out);
    if (!c->has_media || in->data.len < 2) {
        sl_buf_str(out, in->data);
        return;
    }
    sl_buf_add(out, in->data.ptr, in->data.len - 1); /* without the closing brace */
    j.need_comma = in->data.len > 2;
    sl_json_open(&j, "attachments", '[');
    sl_json_open(&j, NULL, '{');
    sl_json_c(&j, "id", c->media.id);
    sl_json_c(&j, "type", c->media.type);
    sl_json_int(&j, "size", c->media.size);
    sl_json_c(&j, "sha256", c->media.id);
    sl_json_c(&j, "name", c->media.name);
    sl_json_close(&j, '}');
    sl_json_close(&j, ']');
    sl_json_close(&j, '}');
}

static sl_err give_message(struct wechat_call *c, const struct wechat_in *in)
{
    struct wechat *wc = c->wc;
    struct sl_buf context, data;
    struct sl_fail why;
    sl_buf_init(&context, CHAN_CONTEXT_MAX);
    sl_buf_init(&data, MSG_DATA_MAX_BYTES * 2);
    write_context(c, in, &context);
    write_data(c, in, &data);
    struct msg m = {.id = in->id,
                    .tenant = sl_str_c(chan_tenant(wc->ch)),
                    .inbox = sl_str_c(chan_inbox(wc->ch)),
                    .channel = sl_str_c(chan_ops_of(wc->ch)->name),
                    .by = MSG_BY_VISITOR,
                    .who = in->who,
                    .kind = in->kind,
                    .text = in->text,
                    .data = data.len > 2 ? sl_buf_view(&data) : SL_STR_NONE,
                    .sent_unix_ms = in->sent_unix_ms};
    c->ticket.id = in->id;
    c->ticket.what = in->what == WECHAT_IN_RATING   ? CHAN_RATING
                     : in->what == WECHAT_IN_HANGUP ? CHAN_HANGUP
                                                    : CHAN_MESSAGE;
    c->ticket.rating = in->rating;
    c->ticket.context = sl_buf_view(&context);
    c->ticket.quota_count = wc->is_passive ? 1 : in->quota_count;
    c->ticket.quota_ms = wc->is_passive ? WECHAT_PASSIVE_ALL_MS : in->quota_ms;
    if (c->ticket.what == CHAN_HANGUP)
        m.kind = MSG_EVENT;
    if (m.text.len == 0 && m.data.len == 0 && m.kind != MSG_EVENT)
        m.text = SL_STR(" ");
    sl_err err = msg_check(&m, &why);
    if (err == SL_OK)
        err = chan_host_of(wc->ch)->inbound(wc->ch, &m, &c->ticket);
    c->ticket.context = c->ticket.id = SL_STR_NONE; /* borrowed for this call only */
    sl_buf_fini(&context);
    sl_buf_fini(&data);
    return err;
}

static sl_err give_receipt(struct wechat_call *c, const struct wechat_in *in)
{
    struct sl_buf words;
    sl_buf_init(&words, 1024);
    if (in->why != NULL)
        wechat_error_words(in->why, &words);
    const struct chan_receipt r = {.remote_id = in->remote_id,
                                   .word = in->is_delivered ? CHAN_WORD_DELIVERED : CHAN_WORD_FAILED,
                                   .code = in->code,
                                   .words = sl_buf_view(&words),
                                   .at_unix_ms = in->sent_unix_ms};
    c->ticket.id = in->id;
    c->is_receipt = true;
    sl_err err = chan_host_of(c->wc->ch)->receipt(c->wc->ch, &r, &c->ticket);
    c->ticket.id = SL_STR_NONE;
    sl_buf_fini(&words);
    return err;
}

static bool is_for_host(const struct wechat *wc, const struct wechat_in *in)
{
    return in->what != WECHAT_IN_NOTHING && in->what != WECHAT_IN_HINT &&
           (in->what != WECHAT_IN_EVENT || is_listed(wc, in->event));
}

/* SL_OK: accepted() follows. SL_ENOTFOUND: nothing to store. */
sl_err wechat_ingest(struct wechat_call *c, const struct wechat_in *in)
{
    struct wechat *wc = c->wc;
    if (!is_for_host(wc, in))
        return SL_ENOTFOUND;
    if (wc->is_draining)
        return SL_EAGAIN;
    size_t n = in->who.len < sizeof c->who ? in->who.len : 0;
    if (n > 0)
        memcpy(c->who, in->who.ptr, n);
    n = in->id.len < sizeof c->answer_id ? in->id.len : 0;
    if (n > 0)
        memcpy(c->answer_id, in->id.ptr, n);
    c->sent_unix_ms = in->sent_unix_ms;
    sl_err err = in->what == WECHAT_IN_RECEIPT ? give_receipt(c, in) : give_message(c, in);
    wc->ticket_count += err == SL_OK;
    return err;
}

void wechat_accepted(struct chan *ch, struct chan_ticket *t, sl_err result)
{
    struct wechat *wc = wechat_of(ch);
    struct wechat_call *c = t->owner;
    if (wc->ticket_count > 0)
        wc->ticket_count--;
    if (c->is_kf_item) {
        wechat_kf_stored(wc, c, result);
    } else if (result == SL_OK && wc->is_passive && !c->is_receipt && !wc->is_draining) {
        wechat_passive_park(c);
    } else {
        answer_result(c, result);
        wechat_call_free(c);
    }
    if (wc->is_closing)
        sl_post_now(&wc->turn); /* closed is reported on a turn of its own */
}

/* ---- media ---- */

static sl_err read_any(struct wechat_xml *x, struct sl_str text, struct sl_fail *why)
{
    return text.len > 0 && text.ptr[0] == '{' ? wechat_xml_from_json(x, text, why)
                                              : wechat_xml_read(x, text, why);
}

/* The message again, from the bytes that were kept, now with what was fetched or without. */
static void ingest_kept(struct wechat_call *c)
{
    struct wechat_xml x;
    struct wechat_in in = {.what = WECHAT_IN_NOTHING};
    struct sl_fail why;
    sl_err err = read_any(&x, sl_buf_view(&c->plain), &why);
    if (err == SL_OK)
        err = wechat_in_read(&in, c->wc->product, &x, &why);
    if (err == SL_OK)
        err = wechat_ingest(c, &in);
    wechat_in_fini(&in);
    wechat_xml_fini(&x);
    if (err == SL_OK)
        return;
    answer_result(c, err);
    wechat_call_free(c);
}

static void media_done(struct wechat_call *c)
{
    if (!c->is_fetching)
        return; /* it was late: the message went without */
    c->is_fetching = false;
    sl_timer_stop(&c->timer);
    wechat_count(c->has_media ? "media_fetched" : "media_missing");
    if (c->is_kf_item)
        wechat_kf_media_done(c->wc, c);
    else
        ingest_kept(c);
}

static void on_media_late(void *arg)
{
    media_done(arg);
}

static void fetch_end(struct wechat_fetch *f)
{
    struct wechat_call *c = call_find(f->wc, f->call);
    fetch_free(f);
    if (c != NULL)
        media_done(c);
}

static void on_stored(void *arg, sl_err err, const struct chan_media *media, struct sl_str bytes,
                      const struct sl_fail *why)
{
    struct wechat_fetch *f = arg;
    struct wechat_call *c = call_find(f->wc, f->call);
    (void)bytes;
    (void)why;
    if (err == SL_OK && c != NULL && c->is_fetching) {
        c->media = *media;
        c->has_media = true;
    }
    fetch_end(f);
}

/* filename="x" or filename=x of Content-Disposition; the host checks it. */
static struct sl_str file_name(const struct sl_http_answer *a)
{
    struct sl_str h = sl_http_header(a, "content-disposition");
    size_t at;
    if (!sl_str_find(h, SL_STR("filename="), &at))
        return SL_STR_NONE;
    struct sl_str v = sl_str_n(h.ptr + at + 9, h.len - at - 9);
    if (v.len > 0 && v.ptr[0] == '"')
        v = sl_str_n(v.ptr + 1, v.len - 1);
    for (size_t i = 0; i < v.len; i++)
        if (v.ptr[i] == '"' || v.ptr[i] == ';')
            return sl_str_n(v.ptr, i);
    return v;
}

/* media/get answers a file with its bytes, an error with JSON, a video of an Official Account with JSON, too: {"video_url"}. */
static bool take_json(struct wechat_fetch *f, const struct sl_http_answer *a)
{
    struct sl_fail why;
    json_t *root = sl_json_parse(a->body, &why);
    struct sl_str url = sl_json_get_str(root, "video_url");
    int64_t code = sl_json_get_int(root, "errcode", 0);
    bool is_taken = false;
    if (code != 0 && wechat_error_find(f->wc->product, code)->what == WECHAT_TOKEN)
        wechat_token_refused(f->wc, f->token);
    if (url.len > 0 && url.len < 2048) {
        char *text = sl_str_dup(url);
        is_taken = chan_host_of(f->wc->ch)->media_fetch(
                       f->wc->ch, &(struct chan_fetch){.url = text, .max_bytes = WECHAT_MEDIA_MAX}, on_stored,
                       f) == SL_OK;
        free(text);
    }
    json_decref(root);
    return is_taken;
}

static void on_media(void *arg, const struct sl_http_answer *a)
{
    struct wechat_fetch *f = arg;
    struct wechat *wc = f->wc;
    bool is_going_on = false;
    wc->http_calls--;
    if (!wc->is_closing && a->err == SL_OK && a->status == 200) {
        struct sl_str type = sl_http_header(a, "content-type");
        bool is_text =
            type.len == 0 || sl_str_starts(type, "application/json") || sl_str_starts(type, "text/");
        is_going_on = is_text ? take_json(f, a)
                              : chan_host_of(wc->ch)->media_put(wc->ch, a->body, type, file_name(a),
                                                                on_stored, f) == SL_OK;
    }
    if (is_going_on)
        return;
    if (wc->is_closing)
        fetch_free(f);
    else
        fetch_end(f);
    wechat_finish(wc);
}

static void fetch_go(struct wechat_fetch *f)
{
    struct sl_buf path;
    sl_buf_init(&path, 2048);
    sl_buf_c(&path, "/cgi-bin/media/get?media_id=");
    wechat_url_part(&path, sl_str_c(f->media_id));
    sl_buf_char(&path, '\0');
    (void)snprintf(f->token, sizeof f->token, "%s", wechat_token_now(f->wc));
    sl_err err = wechat_api(f->wc, path.ptr, f->token, NULL, SL_STR_NONE, WECHAT_MEDIA_MAX, on_media, f);
    sl_buf_fini(&path);
    if (err != SL_OK)
        fetch_end(f);
}

static void on_fetch_token(void *arg, const struct wechat_error *why)
{
    struct wechat_fetch *f = arg;
    if (why == NULL && wechat_token_now(f->wc) != NULL)
        fetch_go(f);
    else
        fetch_end(f);
}

/* Always through the token's waiters: nothing calls back before this returns. */
static bool fetch_begin(struct wechat_call *c, struct sl_str media_id)
{
    struct wechat *wc = c->wc;
    if (chan_host_of(wc->ch)->media_put == NULL || media_id.len == 0 || media_id.len > 256 ||
        wc->secret[0] == '\0' || wc->http == NULL)
        return false;
    struct wechat_fetch *f = sl_alloc(sizeof *f);
    *f = (struct wechat_fetch){.wc = wc, .call = c->id, .prev = &wc->fetches, .next = wc->fetches};
    if (f->next != NULL)
        f->next->prev = &f->next;
    wc->fetches = f;
    memcpy(f->media_id, media_id.ptr, media_id.len);
    f->waiter = (struct wechat_waiter){.fn = on_fetch_token, .arg = f};
    c->is_fetching = true;
    sl_timer_init(&c->timer, chan_loop(wc->ch), on_media_late, c);
    sl_timer_start(&c->timer, WECHAT_FETCH_MS);
    wechat_token_wait(wc, &f->waiter);
    return true;
}

sl_err wechat_ingest_with_media(struct wechat_call *c, const struct wechat_in *in)
{
    return fetch_begin(c, in->media_id) ? SL_OK : wechat_ingest(c, in);
}

/* ---- requests ---- */

static struct wechat_envelope envelope_of(const struct wechat *wc, const struct query *q,
                                          struct sl_str encrypt)
{
    return (struct wechat_envelope){.token = sl_str_c(wc->token),
                                    .timestamp = sl_buf_view(&q->timestamp),
                                    .nonce = sl_buf_view(&q->nonce),
                                    .signature = sl_buf_view(&q->msg_signature),
                                    .encrypt = encrypt};
}

/* The platform asks whether this address is ours: the word comes back as it is, without quotes or newline. */
static void on_get(struct wechat *wc, struct chan_request *rq, const struct query *q)
{
    struct sl_buf plain;
    struct sl_str word = sl_buf_view(&q->echostr);
    struct sl_fail why;
    sl_buf_init(&plain, 8192);
    bool is_ours = is_fresh(wc, q) && word.len > 0;
    if (is_ours && wc->product == WECHAT_OA) {
        is_ours = is_query_signed(wc, q);
    } else if (is_ours) {
        struct wechat_envelope e = envelope_of(wc, q, word);
        is_ours = wechat_open_envelope(&wc->key, &e, sl_str_c(wc->receive_id), &plain, &word, &why) == SL_OK;
    }
    if (is_ours)
        rq->answer(rq, 200, "text/plain; charset=utf-8", word);
    else
        refuse(rq, "refused_url_check");
    sl_buf_fini(&plain);
}

/* What stands in <Encrypt>, or in a JSON envelope. */
static sl_err find_encrypt(const struct wechat *wc, struct sl_str body, struct sl_buf *out)
{
    struct sl_fail why;
    if (wc->is_json) {
        json_t *root = sl_json_parse(body, &why);
        sl_buf_str(out, sl_json_get_str(root, "encrypt"));
        json_decref(root);
    } else {
        struct wechat_xml x;
        if (wechat_xml_read(&x, body, &why) == SL_OK)
            sl_buf_str(out, wechat_xml_get(&x, "Encrypt"));
        wechat_xml_fini(&x);
    }
    return out->len > 0 && !out->overflow ? SL_OK : SL_EINVAL;
}

/* The message that was meant for us: decrypted, or, in plain mode, as it is. In compatible mode what stands beside the
 * encrypted part is not looked at: nobody vouches for it. */
static sl_err open_body(struct wechat *wc, const struct query *q, struct sl_str body, struct sl_buf *hold,
                        struct sl_str *message)
{
    struct sl_buf encrypt;
    struct sl_fail why;
    if (!is_fresh(wc, q))
        return SL_EAUTH;
    if (wc->mode == WECHAT_PLAIN) {
        *message = body;
        return is_query_signed(wc, q) ? SL_OK : SL_EAUTH;
    }
    sl_buf_init(&encrypt, WECHAT_XML_MAX_BYTES);
    sl_err err = find_encrypt(wc, body, &encrypt);
    if (err == SL_OK) {
        struct wechat_envelope e = envelope_of(wc, q, sl_buf_view(&encrypt));
        err = wechat_open_envelope(&wc->key, &e, sl_str_c(wc->receive_id), hold, message, &why);
    }
    sl_buf_fini(&encrypt);
    return err == SL_OK ? SL_OK : SL_EAUTH;
}

static void take_message(struct wechat *wc, struct chan_request *rq, const struct wechat_in *in,
                         struct sl_str text)
{
    struct wechat_call *c = wechat_call_new(wc);
    if (c == NULL) {
        answer(rq, 503, "again");
        return;
    }
    c->rq = rq;
    sl_err err = SL_OK;
    if (in->media_id.len > 0 && is_for_host(wc, in)) {
        sl_buf_str(&c->plain, text);
        err = wechat_ingest_with_media(c, in);
    } else {
        err = wechat_ingest(c, in);
    }
    if (err == SL_OK)
        return;
    answer_result(c, err == SL_ENOTFOUND ? SL_OK : err); /* nothing to store is taken, too */
    wechat_call_free(c);
}

/* From the platform, and signed: only now is it read closely. */
static void on_message(struct wechat *wc, struct chan_request *rq, struct sl_str text)
{
    struct wechat_xml x;
    struct wechat_in in = {.what = WECHAT_IN_NOTHING};
    struct sl_fail why = {.text = ""};
    sl_err err = read_any(&x, text, &why);
    if (err == SL_OK)
        err = wechat_in_read(&in, wc->product, &x, &why);
    if (err != SL_OK) {
        wechat_count("refused_message");
        sl_log(SL_WARN, "wechat: a signed callback could not be read", SL_KV("inbox", chan_inbox(wc->ch)),
               SL_KV_FAIL(&why));
        answer(rq, sl_err_http(err), "rejected");
    } else if (in.what == WECHAT_IN_HINT) {
        wechat_kf_hint(wc, in.open_kfid, in.kf_token);
        answer(rq, 200, "success");
    } else {
        take_message(wc, rq, &in, text);
    }
    wechat_in_fini(&in);
    wechat_xml_fini(&x);
}

static void on_post(struct wechat *wc, struct chan_request *rq, const struct query *q)
{
    struct sl_buf hold;
    struct sl_str text;
    sl_buf_init(&hold, WECHAT_XML_MAX_BYTES);
    if (rq->body.len > WECHAT_XML_MAX_BYTES)
        answer(rq, 413, "too large");
    else if (open_body(wc, q, rq->body, &hold, &text) != SL_OK)
        refuse(rq, "refused_signature");
    else
        on_message(wc, rq, text);
    sl_buf_fini(&hold);
}

sl_err wechat_request(struct chan *ch, struct chan_request *rq)
{
    struct wechat *wc = wechat_of(ch);
    struct query q;
    if (rq->rest.len > 0 && !sl_str_eq_c(rq->rest, "/")) {
        answer(rq, 404, "not found");
        return SL_OK;
    }
    query_read(&q, rq->query);
    if (sl_str_eq_c(rq->method, "GET"))
        on_get(wc, rq, &q);
    else if (sl_str_eq_c(rq->method, "POST"))
        on_post(wc, rq, &q);
    else
        answer(rq, 405, "GET or POST");
    query_fini(&q);
    return SL_OK;
}
