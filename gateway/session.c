#include "gateway/session.h"

#include "gateway/agent_socket.h"
#include "gateway/hub_priv.h"

#include "base/crypto.h"
#include "base/fault.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

#define SESSION_MAGIC 0x73657373u
#define RANDOM_BYTES  16
#define BINDING_BYTES 8

/* ---- sending ---- */

void gw_session_send(struct gw_session *s, enum gw_urgency when)
{
    if (s->phase == GW_PHASE_CLOSING)
        return;
    sl_count(s->hub->frames_out, 1);
    gw_hub_send(s->hub, s->wire, when);
}

void gw_session_error(struct gw_session *s, struct sl_str id, sl_err code, const char *words,
                      uint64_t expected_n)
{
    SL_COUNT("sluice_ws_errors_total", "", "Frames answered with err", 1);
    frame_write_error(gw_hub_frame(s->hub), id, code, words, expected_n);
    gw_session_send(s, GW_NOW);
}

struct sl_str gw_session_id(const struct gw_session *s)
{
    return sl_str_n(s->id, strlen(s->id));
}

/* ---- lists ---- */

static void hello_list_add(struct gw_session *s)
{
    struct gw_hub *hub = s->hub;
    s->hello_due_mono_ms = sl_loop_mono_ms(hub->loop) + hub->cfg.hello_ms;
    s->hello_before = hub->hello_last;
    if (hub->hello_last != NULL)
        hub->hello_last->hello_next = s;
    else
        hub->hello_first = s;
    hub->hello_last = s;
}

static void hello_list_remove(struct gw_session *s)
{
    struct gw_hub *hub = s->hub;
    if (s->hello_due_mono_ms == 0)
        return;
    if (s->hello_next != NULL)
        s->hello_next->hello_before = s->hello_before;
    else
        hub->hello_last = s->hello_before;
    if (s->hello_before != NULL)
        s->hello_before->hello_next = s->hello_next;
    else
        hub->hello_first = s->hello_next;
    s->hello_next = s->hello_before = NULL;
    s->hello_due_mono_ms = 0;
}

static void wheel_add(struct gw_session *s)
{
    struct gw_hub *hub = s->hub;
    s->slot = (unsigned char)(hub->wheel_next_slot++ % GW_WHEEL_SLOTS);
    s->wheel_next = hub->wheel[s->slot];
    if (s->wheel_next != NULL)
        s->wheel_next->wheel_before = s;
    hub->wheel[s->slot] = s;
}

static void wheel_remove(struct gw_session *s)
{
    if (s->wheel_next != NULL)
        s->wheel_next->wheel_before = s->wheel_before;
    if (s->wheel_before != NULL)
        s->wheel_before->wheel_next = s->wheel_next;
    else
        s->hub->wheel[s->slot] = s->wheel_next;
}

/* ---- commands ---- */

static void on_command_settled(void *owner, const struct gw_command *c, sl_err err, uint64_t last_number,
                               const char *words)
{
    struct gw_session *s = owner;
    if (err == SL_EGAP)
        words = "an earlier number is missing: go on from the one in expect";
    else if (err == SL_ECONFLICT)
        words = "another command was sent under this number: say hello without a session";
    if (err != SL_OK) {
        gw_session_error(s, gw_command_id(c), err, words, err == SL_EGAP ? last_number + 1 : 0);
        if (err == SL_ECONFLICT) /* another socket counts in this session: this one needs its own */
            gw_session_close(s, FRAME_CLOSE_REPLACED);
        return;
    }
    if (sl_mutant("ack-before-append"))
        return; /* it was sent long ago */
    frame_write_ack(gw_hub_frame(s->hub), gw_command_id(c), gw_command_number(c));
    gw_session_send(s, GW_HELD);
}

static void command_issue(struct gw_session *s, const struct frame *f, const struct bus_accept *in)
{
    sl_err err = s->hub->is_draining ? SL_EAGAIN : gw_queue_append(&s->queue, in);
    if (err != SL_OK) {
        gw_session_error(s, f->id, err, NULL, 0);
        return;
    }
    if (sl_mutant("ack-before-append")) {
        frame_write_ack(gw_hub_frame(s->hub), f->id, f->n);
        gw_session_send(s, GW_NOW);
    }
}

static struct gw_inbox const *session_inbox(const struct gw_session *s)
{
    return s->hub->cfg.directory.inbox(s->hub->cfg.directory.arg, sl_str_c(s->inbox));
}

/* What a visitor's command says; the rest of the event is the same for all. EINVAL, ETOOBIG, EDENIED with words. */
static sl_err visitor_event(struct gw_session *s, const struct gw_inbox *inbox, const struct frame *f,
                            struct event *ev, struct sl_fail *why)
{
    struct msg m = {.id = f->id};
    switch (f->command) {
    case FRAME_CMD_MESSAGE_SEND: {
        sl_err err = chan_frame(inbox->ch, f->kind, f->text, f->data_json, &m, why);
        ev->type = EVENT_MESSAGE;
        ev->kind = sl_str_c(msg_kind_name(m.kind));
        ev->text = m.text;
        ev->data = m.data;
        return err;
    }
    case FRAME_CMD_MESSAGE_RATE:
        ev->type = EVENT_RATING;
        ev->number = f->score;
        ev->text = f->text;
        return SL_OK;
    case FRAME_CMD_CONV_END:
        ev->type = EVENT_HANGUP;
        return SL_OK;
    case FRAME_CMD_CONV_ACCEPT:
    case FRAME_CMD_CONV_NOTE:
    case FRAME_CMD_CONV_TRANSFER:
    case FRAME_CMD_CONV_CLOSE:
    case FRAME_CMD_PRESENCE_SET:
    case FRAME_CMD_COUNT:
        break;
    }
    (void)s;
    return sl_fail_set(why, SL_EDENIED, 0, "this command is for agents");
}

static void on_visitor_command(struct gw_session *s, const struct frame *f)
{
    struct sl_fail why = {.text = ""};
    const struct gw_inbox *inbox = session_inbox(s);
    struct event ev = {
        .id = f->id, .addr = sl_str_c(s->addr), .session = gw_session_id(s), .trace = f->trace};
    ev.at_ms = sl_loop_unix_ms(s->hub->loop);
    if (inbox == NULL) {
        gw_session_close(s, FRAME_CLOSE_FORBIDDEN); /* taken out of the configuration */
        return;
    }
    if (!sl_str_eq_c(f->topic, "me")) {
        gw_session_error(s, f->id, SL_EDENIED, "a visitor's commands go to topic \"me\"", 0);
        return;
    }
    ev.channel = sl_str_c(chan_ops_of(inbox->ch)->name);
    sl_err err = visitor_event(s, inbox, f, &ev, &why);
    if (err != SL_OK) {
        gw_session_error(s, f->id, err, why.text, 0);
        return;
    }
    struct bus_accept in = {.tag = s->tag,
                            .dedupe = BUS_BY_NUMBER,
                            .session = gw_session_id(s),
                            .number = f->n,
                            .rate_per_s = inbox->rate_per_s,
                            .burst = inbox->burst,
                            .event = &ev};
    command_issue(s, f, &in);
}

void gw_session_command(struct gw_session *s, const struct frame *f, const struct bus_accept *in)
{
    command_issue(s, f, in);
}

/* ---- hello ---- */

static void base64_id(struct sl_str raw, char out[GW_SESSION_ID_BYTES + 1])
{
    struct sl_buf b;
    sl_buf_init(&b, GW_SESSION_ID_BYTES);
    sl_b64url(&b, raw);
    sl_assert(!b.overflow && b.len == GW_SESSION_ID_BYTES);
    memcpy(out, b.ptr, b.len);
    out[b.len] = '\0';
    sl_buf_fini(&b);
}

/* The id of random bytes and their owner: another owner's token does not resume it. */
static void bind_id(const unsigned char random[RANDOM_BYTES], struct sl_str owner,
                    char out[GW_SESSION_ID_BYTES + 1])
{
    unsigned char hash[32], raw[RANDOM_BYTES + BINDING_BYTES];
    struct sl_buf text;
    sl_buf_init(&text, 0);
    sl_buf_add(&text, random, RANDOM_BYTES);
    sl_buf_str(&text, owner);
    sl_sha256(sl_buf_view(&text), hash);
    sl_buf_fini(&text);
    memcpy(raw, random, RANDOM_BYTES);
    memcpy(raw + RANDOM_BYTES, hash, BINDING_BYTES);
    base64_id(sl_str_n((const char *)raw, sizeof raw), out);
}

static bool is_owners(struct sl_str id, struct sl_str owner)
{
    char expected[GW_SESSION_ID_BYTES + 1];
    struct sl_buf raw;
    if (id.len != GW_SESSION_ID_BYTES)
        return false;
    sl_buf_init(&raw, 0);
    bool is_same = false;
    if (sl_b64url_decode(&raw, id) == SL_OK && raw.len == RANDOM_BYTES + BINDING_BYTES) {
        bind_id((const unsigned char *)raw.ptr, owner, expected);
        is_same = sl_secret_eq(id, sl_str_n(expected, GW_SESSION_ID_BYTES));
    }
    sl_buf_fini(&raw);
    return is_same;
}

static void random_bytes(struct sl_loop *l, unsigned char *out, size_t n)
{
    if (sl_loop_uv(l) != NULL) {
        sl_random_bytes(out, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)sl_loop_random(l); /* a simulation repeats itself */
}

void gw_session_name(struct gw_session *s, struct sl_str resume, struct sl_str owner)
{
    unsigned char random[RANDOM_BYTES];
    s->is_resumed = is_owners(resume, owner);
    if (s->is_resumed) {
        memcpy(s->id, resume.ptr, resume.len);
        s->id[resume.len] = '\0';
        return;
    }
    random_bytes(s->hub->loop, random, sizeof random);
    bind_id(random, owner, s->id);
}

void gw_session_welcome(struct gw_session *s, struct sl_str me_json, uint64_t last_n)
{
    struct gw_hub *hub = s->hub;
    struct frame_welcome w = {.session = gw_session_id(s), .me_json = me_json, .last_n = last_n};
    w.now_unix_ms = sl_loop_unix_ms(hub->loop);
    w.heartbeat_s = (unsigned)((hub->cfg.heartbeat_ms + 999) / 1000);
    w.attachment_max_bytes = hub->cfg.attachment_max_bytes;
    hello_list_remove(s);
    s->phase = GW_PHASE_OPEN;
    frame_write_welcome(gw_hub_frame(hub), &w);
    gw_session_send(s, GW_NOW);
    struct gw_session *other = sl_map_set(hub->sessions, gw_session_id(s), s);
    if (other != NULL && other != s)
        gw_session_close(other, FRAME_CLOSE_REPLACED);
}

struct gw_position gw_session_resume_position(const struct frame *f, const char *topic)
{
    for (size_t i = 0; i < f->position_count; i++)
        if (sl_str_eq_c(f->position[i].topic, topic))
            return (struct gw_position){f->position[i].gen, f->position[i].number};
    return (struct gw_position){0, 0};
}

static void visitor_open(struct gw_session *s, const struct chan_visitor *visitor, struct gw_position from,
                         uint64_t last_n)
{
    struct sl_buf me;
    struct sl_json j;
    sl_buf_init(&me, 0);
    sl_json_begin(&j, &me);
    sl_json_open(&j, NULL, '{');
    sl_json_c(&j, "address", visitor->address);
    if (visitor->token[0] != '\0')
        sl_json_c(&j, "token", visitor->token);
    sl_json_close(&j, '}');
    gw_session_welcome(s, sl_buf_view(&me), last_n);
    sl_buf_fini(&me);
    gw_session_add_watch(
        s, gw_watch_open(s, GW_TOPIC_VISITOR, "me", s->tag, sl_str_c(s->addr), from, SL_STR_NONE));
}

/* A resumed session asks where its numbering stands; what it needs afterwards waits here. */
struct resume {
    struct gw_session *session;
    struct chan_visitor visitor;
    struct gw_position from;
};

static void on_resumed(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct resume *r = arg;
    struct gw_session *s = r->session;
    (void)why;
    if (s != NULL)
        s->lookup = NULL;
    if (s != NULL && s->phase == GW_PHASE_PENDING && err == SL_OK)
        visitor_open(s, &r->visitor, r->from, (uint64_t)bus_value_int(v));
    else if (s != NULL && s->phase == GW_PHASE_PENDING)
        gw_session_close(s, FRAME_CLOSE_BUSY);
    free(r);
}

static void visitor_resume(struct gw_session *s, const struct chan_visitor *visitor, struct gw_position from)
{
    struct resume *r = sl_alloc(sizeof *r);
    *r = (struct resume){.session = s, .visitor = *visitor, .from = from};
    struct key key = key_session(s->tag, gw_session_id(s), SL_STR_NONE);
    struct bus_args *a = &s->hub->args;
    bus_args_clear(a);
    bus_args_c(a, "HGET");
    bus_args_key(a, &key);
    bus_args_c(a, "n");
    if (bus_command(s->hub->bus, a, BUS_DEADLINE_MS, on_resumed, r) != SL_OK) {
        free(r);
        gw_session_close(s, FRAME_CLOSE_BUSY);
        return;
    }
    s->lookup = &r->session;
}

static char *full_address(const struct gw_inbox *inbox, const char *address)
{
    struct sl_buf b;
    sl_buf_init(&b, 0);
    sl_buf_printf(&b, "%s/%s/%s", inbox->tenant, inbox->name, address);
    char *addr = sl_str_dup(sl_buf_view(&b));
    sl_buf_fini(&b);
    return addr;
}

static enum frame_close close_of(sl_err err)
{
    return err == SL_EAUTH ? FRAME_CLOSE_AUTH : err == SL_EAGAIN ? FRAME_CLOSE_BUSY : FRAME_CLOSE_FORBIDDEN;
}

static void on_visitor_hello(struct gw_session *s, const struct frame *f)
{
    struct gw_hub *hub = s->hub;
    struct sl_fail why = {.text = ""};
    struct chan_visitor visitor;
    const struct gw_inbox *inbox = hub->cfg.directory.inbox(hub->cfg.directory.arg, f->inbox);
    if (inbox == NULL) {
        gw_session_error(s, SL_STR_NONE, SL_EDENIED, "hello: no such inbox", 0);
        gw_session_close(s, FRAME_CLOSE_FORBIDDEN);
        return;
    }
    struct chan_hello in = {
        .origin = sl_str_c(s->origin), .token = f->token, .inbox = f->inbox, .client = f->client};
    in.now_unix_ms = sl_loop_unix_ms(hub->loop);
    sl_err err = chan_hello(inbox->ch, &in, &visitor, &why);
    if (err != SL_OK) {
        gw_session_error(s, SL_STR_NONE, err, why.text, 0);
        gw_session_close(s, close_of(err));
        return;
    }
    s->inbox = sl_strdup(inbox->name);
    s->addr = full_address(inbox, visitor.address);
    (void)snprintf(s->tag, sizeof s->tag, "%u",
                   key_address_partition(sl_str_c(s->addr), bus_partitions(hub->bus)));
    gw_session_name(s, f->session, sl_str_c(s->addr));
    s->phase = GW_PHASE_PENDING;
    if (s->is_resumed)
        visitor_resume(s, &visitor, gw_session_resume_position(f, "me"));
    else
        visitor_open(s, &visitor, gw_session_resume_position(f, "me"), 0);
}

static void on_hello(struct gw_session *s, const struct frame *f)
{
    if (bus_partitions(s->hub->bus) == 0 || s->hub->is_draining) {
        gw_session_close(s, FRAME_CLOSE_BUSY); /* the store was never there: nobody's partition is known */
        return;
    }
    if (sl_str_eq_c(f->role, "agent"))
        gw_agent_hello(s, f);
    else
        on_visitor_hello(s, f);
    free(s->origin);
    s->origin = NULL;
}

/* ---- topics ---- */

struct gw_watch *gw_session_find_watch(const struct gw_session *s, struct sl_str topic)
{
    for (struct gw_watch *w = s->watches; w != NULL; w = w->next)
        if (sl_str_eq_c(topic, w->topic))
            return w;
    return NULL;
}

void gw_session_add_watch(struct gw_session *s, struct gw_watch *w)
{
    w->next = s->watches;
    s->watches = w;
    s->watch_count++;
}

void gw_session_drop_watch(struct gw_session *s, struct gw_watch *w)
{
    struct gw_watch **at = &s->watches;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    s->watch_count--;
    gw_watch_close(&w);
}

static void on_sub(struct gw_session *s, const struct frame *f)
{
    if (s->agent != NULL)
        gw_agent_subscribe(s, f);
    else
        gw_session_error(s, f->id, SL_EDENIED, "a visitor has one topic, \"me\", open from the start", 0);
}

static void on_unsub(struct gw_session *s, const struct frame *f)
{
    struct gw_watch *w = gw_session_find_watch(s, f->topic);
    if (w == NULL || w->kind == GW_TOPIC_VISITOR || w->kind == GW_TOPIC_AGENT ||
        w->kind == GW_TOPIC_REFUSALS) {
        gw_session_error(s, f->id, SL_ENOTFOUND, "no such topic to leave", 0);
        return;
    }
    gw_session_drop_watch(s, w);
    if (f->id.len == 0)
        return;
    frame_write_ok(gw_hub_frame(s->hub), f->id, f->topic, 0, 0, SL_STR_NONE, 0);
    gw_session_send(s, GW_NOW);
}

/* ---- frames ---- */

void gw_session_count_frames(struct gw_hub *hub)
{
    static const char *const labels[] = {
#define X(name, word) "dir=\"in\",type=\"" word "\"",
        FRAME_CLIENT_TYPES(X)
#undef X
    };
    for (size_t i = 0; i < sizeof labels / sizeof labels[0]; i++)
        hub->frames_in[i] = sl_counter("sluice_ws_frames_total", labels[i], "Frames of sluice.v1");
    hub->frames_out = sl_counter("sluice_ws_frames_total", "dir=\"out\",type=\"any\"", "Frames of sluice.v1");
}

static void dispatch(struct gw_session *s, const struct frame *f)
{
    switch (f->type) {
    case FRAME_HELLO:
        gw_session_error(s, SL_STR_NONE, SL_EINVAL, "hello comes once", 0);
        gw_session_close(s, FRAME_CLOSE_BAD_FRAME);
        return;
    case FRAME_SUB:
        on_sub(s, f);
        return;
    case FRAME_UNSUB:
        on_unsub(s, f);
        return;
    case FRAME_CMD:
        if (s->agent != NULL)
            gw_agent_command(s, f);
        else
            on_visitor_command(s, f);
        return;
    case FRAME_PING:
        frame_write_pong(gw_hub_frame(s->hub));
        gw_session_send(s, GW_NOW);
        return;
    }
}

static bool on_frame(void *arg, const struct frame *f)
{
    struct gw_session *s = arg;
    sl_count(s->hub->frames_in[f->type], 1);
    switch (s->phase) {
    case GW_PHASE_HELLO:
        if (f->type == FRAME_HELLO) {
            on_hello(s, f);
        } else {
            gw_session_error(s, f->id, SL_EAUTH, "the first frame must be hello", 0);
            gw_session_close(s, FRAME_CLOSE_AUTH);
        }
        break;
    case GW_PHASE_PENDING:
        gw_session_error(s, f->id, SL_EINVAL, "wait for welcome before sending more", 0);
        gw_session_close(s, FRAME_CLOSE_BAD_FRAME);
        break;
    case GW_PHASE_OPEN:
        dispatch(s, f);
        break;
    case GW_PHASE_CLOSING:
        break;
    }
    return s->phase != GW_PHASE_CLOSING;
}

/* More than a busy person's client ever sends; a flood is cut before it costs the others anything. */
static bool is_flood(struct gw_session *s)
{
    uint64_t now = sl_loop_mono_ms(s->hub->loop);
    if (now - s->flood_since_mono_ms >= 1000) {
        s->flood_since_mono_ms = now;
        s->flood_count = 0;
    }
    return ++s->flood_count >
           (s->hub->cfg.messages_per_s > 0 ? s->hub->cfg.messages_per_s : GW_MESSAGES_PER_S);
}

void gw_session_message(struct gw_session *s, struct sl_str text)
{
    struct sl_fail why = {.text = ""};
    sl_assert(s->magic == SESSION_MAGIC);
    if (s->phase == GW_PHASE_CLOSING)
        return;
    s->missed = 0;
    if (is_flood(s)) {
        gw_session_close(s, FRAME_CLOSE_RATE);
        return;
    }
    sl_err err = frame_parse(text, on_frame, s, &why);
    if (err == SL_OK)
        return;
    gw_session_error(s, SL_STR_NONE, err, why.text, 0);
    gw_session_close(s, err == SL_ETOOBIG ? FRAME_CLOSE_TOO_BIG : FRAME_CLOSE_BAD_FRAME);
}

void gw_session_too_big(struct gw_session *s)
{
    if (s->phase == GW_PHASE_CLOSING)
        return;
    gw_session_error(s, SL_STR_NONE, SL_ETOOBIG, "a message may have 64 KiB at most", 0);
    gw_session_close(s, FRAME_CLOSE_TOO_BIG);
}

void gw_session_room(struct gw_session *s)
{
    s->wants_room = false;
    for (struct gw_watch *w = s->watches; w != NULL; w = w->next)
        gw_watch_room(w);
}

void gw_session_alive(struct gw_session *s)
{
    s->missed = 0;
}

/* ---- the wheel ---- */

void gw_session_on_wheel(struct gw_session *s)
{
    if (s->phase == GW_PHASE_CLOSING)
        return;
    if (s->missed >= GW_MISSED_MAX) {
        gw_session_close(s, FRAME_CLOSE_SILENT);
        return;
    }
    s->missed++;
    s->wire->ops->ping(s->wire);
    if (!sl_mutant("no-sweep"))
        for (struct gw_watch *w = s->watches, *next; w != NULL; w = next) {
            next = w->next;
            gw_watch_check(w);
        }
    if (s->agent != NULL)
        gw_agent_on_wheel(s);
}

void gw_session_on_hello_late(struct gw_session *s)
{
    gw_session_close(s, FRAME_CLOSE_AUTH_TIMEOUT);
}

/* ---- life ---- */

struct gw_session *gw_session_new(struct gw_hub *hub, struct gw_wire *wire, struct sl_str origin)
{
    struct gw_session *s = sl_alloc(sizeof *s);
    s->magic = SESSION_MAGIC;
    s->hub = hub;
    s->wire = wire;
    s->origin = sl_str_dup(origin);
    gw_queue_init(&s->queue, hub, s, on_command_settled);
    wheel_add(s);
    hello_list_add(s);
    hub->session_count++;
    sl_gauge_set(hub->sessions_gauge, (int64_t)hub->session_count);
    return s;
}

void gw_session_bye(struct gw_session *s, uint64_t after_min_ms, uint64_t after_max_ms)
{
    frame_write_bye(gw_hub_frame(s->hub), FRAME_CLOSE_RESTART, after_min_ms, after_max_ms);
    gw_session_send(s, GW_NOW);
}

static const char *close_label(enum frame_close code)
{
    switch (code) {
#define X(name, number, text)                                                                                \
    case FRAME_CLOSE_##name:                                                                                 \
        return "reason=\"" #name "\"";
        FRAME_CLOSES(X)
#undef X
    }
    return "reason=\"OTHER\"";
}

void gw_session_close(struct gw_session *s, enum frame_close code)
{
    if (s->phase == GW_PHASE_CLOSING)
        return;
    hello_list_remove(s);
    s->phase = GW_PHASE_CLOSING;
    sl_count(sl_counter("sluice_ws_closed_total", close_label(code), "WebSockets closed by the gateway"), 1);
    s->wire->ops->close(s->wire, code);
}

void gw_session_free(struct gw_session **sp)
{
    struct gw_session *s = *sp;
    *sp = NULL;
    if (s == NULL)
        return;
    sl_assert(s->magic == SESSION_MAGIC);
    hello_list_remove(s);
    wheel_remove(s);
    if (s->lookup != NULL)
        *s->lookup = NULL;
    gw_agent_free(s);
    while (s->watches != NULL)
        gw_session_drop_watch(s, s->watches);
    gw_queue_fini(&s->queue);
    if (s->id[0] != '\0' && sl_map_get(s->hub->sessions, gw_session_id(s)) == s)
        (void)sl_map_del(s->hub->sessions, gw_session_id(s));
    s->hub->session_count--;
    sl_gauge_set(s->hub->sessions_gauge, (int64_t)s->hub->session_count);
    free(s->origin);
    free(s->addr);
    free(s->inbox);
    s->magic = 0;
    free(s);
}
