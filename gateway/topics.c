#include "gateway/topics.h"

#include "gateway/agent_socket.h"
#include "gateway/hub_priv.h"
#include "gateway/session.h"

#include "base/fault.h"
#include "base/log.h"
#include "proto/push.h"

#include <stdio.h>
#include <stdlib.h>

#define READ_RETRY_MS 300

/* One push channel of the store and everybody here who wants it. */
struct gw_channel {
    struct gw_watch *watches;
    bool is_confirmed;
    size_t name_len;
    char name[];
};

/* One reading of one watch's log: locate (visitors) -> end -> entries. */
struct gw_read {
    struct gw_hub *hub;
    struct gw_watch *watch; /* NULL: closed meanwhile */
    enum gw_haste haste;
    unsigned pending;
    bool has_failed;
    uint64_t gen, end, last_n;    /* end: in the topic's own numbers */
    uint64_t end_n, base, next_n; /* in the log's: last, last one that was cut off, next to be read */
    char *conv;
    struct sl_buf state;
};

static void read_locate(struct gw_read *r);
static void read_end(struct gw_read *r);
static void read_entries(struct gw_read *r, uint64_t from_n);
static void read_finish(struct gw_read *r, bool is_done);
static void watch_push(struct gw_watch *w, const struct push *p, struct sl_str payload);

/* What a client sees of a generation: a visitor's position must also change when a new conversation takes the place of one that
 * was forgotten. */
static uint64_t shown_generation(const struct gw_watch *w, uint64_t gen, const char *conv)
{
    if (w->kind != GW_TOPIC_VISITOR || gen == 0)
        return gen;
    uint64_t mixed = (gen * UINT64_C(0x9e3779b97f4a7c15)) ^ sl_str_hash(sl_str_c(conv), 1);
    return mixed == 0 ? 1 : mixed;
}

/* ---- channels ---- */

static struct key push_channel(const struct gw_watch *w)
{
    switch (w->kind) {
    case GW_TOPIC_VISITOR:
        return key_push_visitor(w->tag, sl_str_c(w->object));
    case GW_TOPIC_CONVERSATION:
        return key_push_conversation(w->tag, sl_str_c(w->object));
    case GW_TOPIC_AGENT:
        return key_push_agent(w->tag, sl_str_c(w->object));
    case GW_TOPIC_QUEUE:
        return key_push_queue(w->tag);
    case GW_TOPIC_REFUSALS:
        break;
    }
    return key_push_session(sl_str_c(w->object));
}

static bool has_log(const struct gw_watch *w)
{
    return w->kind != GW_TOPIC_QUEUE && w->kind != GW_TOPIC_REFUSALS;
}

static void join_channel(struct gw_watch *w)
{
    struct key name = push_channel(w);
    struct gw_channel *c = sl_map_get(w->hub->channels, key_str(&name));
    if (c == NULL) {
        c = sl_alloc(sizeof *c + name.len + 1);
        memcpy(c->name, name.ptr, name.len);
        c->name_len = name.len;
        (void)sl_map_set(w->hub->channels, key_str(&name), c);
        bus_subscribe(w->hub->subscriber, key_str(&name));
    }
    w->channel = c;
    w->channel_next = c->watches;
    w->channel_before = NULL;
    if (c->watches != NULL)
        c->watches->channel_before = w;
    c->watches = w;
}

static void leave_channel(struct gw_watch *w)
{
    struct gw_channel *c = w->channel;
    if (w->channel_next != NULL)
        w->channel_next->channel_before = w->channel_before;
    if (w->channel_before != NULL)
        w->channel_before->channel_next = w->channel_next;
    else
        c->watches = w->channel_next;
    w->channel = NULL;
    if (c->watches != NULL)
        return;
    struct sl_str name = sl_str_n(c->name, c->name_len);
    bus_unsubscribe(w->hub->subscriber, name);
    (void)sl_map_del(w->hub->channels, name);
    free(c);
}

/* ---- which watch is read next ---- */

static void enqueue(struct gw_watch *w, enum gw_haste haste)
{
    struct gw_read_queue *q = &w->hub->to_read[haste];
    struct gw_read_node *node = &w->node[haste];
    if (node->is_queued)
        return;
    *node = (struct gw_read_node){.before = q->last, .is_queued = true};
    if (q->last != NULL)
        q->last->node[haste].next = w;
    else
        q->first = w;
    q->last = w;
    q->count++;
}

static void dequeue(struct gw_watch *w, enum gw_haste haste)
{
    struct gw_read_queue *q = &w->hub->to_read[haste];
    struct gw_read_node *node = &w->node[haste];
    if (!node->is_queued)
        return;
    if (node->next != NULL)
        node->next->node[haste].before = node->before;
    else
        q->last = node->before;
    if (node->before != NULL)
        node->before->node[haste].next = node->next;
    else
        q->first = node->next;
    *node = (struct gw_read_node){.is_queued = false};
    q->count--;
}

static void read_start(struct gw_watch *w, enum gw_haste haste)
{
    struct gw_read *r = sl_alloc(sizeof *r);
    r->hub = w->hub;
    r->watch = w;
    r->haste = haste;
    sl_buf_init(&r->state, 0);
    w->read = r;
    r->hub->reads[haste]++;
    sl_gauge_set(r->hub->reads_gauge, (int64_t)(r->hub->reads[GW_URGENT] + r->hub->reads[GW_SWEEP]));
    if (w->kind == GW_TOPIC_VISITOR)
        read_locate(r);
    else
        read_end(r);
}

/* After a failed read the others wait for the timer too. */
static bool may_read(const struct gw_hub *hub)
{
    return bus_is_ready(hub->bus) && !sl_timer_is_active(&hub->read_retry);
}

void gw_topics_pump(void *arg)
{
    struct gw_hub *hub = arg;
    static const size_t room[] = {[GW_URGENT] = GW_READS_MAX, [GW_SWEEP] = GW_READS_SWEEP_MAX};
    for (int haste = GW_URGENT; haste <= GW_SWEEP; haste++)
        while (hub->to_read[haste].first != NULL && hub->reads[haste] < room[haste] && may_read(hub)) {
            struct gw_watch *w = hub->to_read[haste].first;
            dequeue(w, (enum gw_haste)haste);
            if (w->read != NULL)
                w->must_read_again = true;
            else
                read_start(w, (enum gw_haste)haste);
        }
}

static void ask_read(struct gw_watch *w, enum gw_haste haste)
{
    enqueue(w, haste);
    gw_topics_pump(w->hub);
}

void gw_watch_check(struct gw_watch *w)
{
    if (has_log(w) && w->has_read && !w->waits_for_room)
        ask_read(w, GW_SWEEP);
}

/* ---- the subscriber ---- */

static void on_watch_confirmed(struct gw_watch *w)
{
    if (!has_log(w)) {
        if (w->reply_id != NULL) {
            frame_write_ok(gw_hub_frame(w->hub), sl_str_c(w->reply_id), sl_str_c(w->topic), 0, 0, SL_STR_NONE,
                           0);
            gw_session_send(w->session, GW_NOW);
            free(w->reply_id);
            w->reply_id = NULL;
        }
        w->is_live = true;
        return;
    }
    ask_read(w, w->has_read ? GW_SWEEP : GW_URGENT);
}

void gw_topics_on_confirmed(void *arg, struct sl_str channel)
{
    struct gw_hub *hub = arg;
    struct gw_channel *c = sl_map_get(hub->channels, channel);
    if (c == NULL)
        return; /* left meanwhile */
    c->is_confirmed = true;
    for (struct gw_watch *w = c->watches, *next; w != NULL; w = next) {
        next = w->channel_next;
        on_watch_confirmed(w);
    }
}

void gw_topics_on_push(void *arg, struct sl_str channel, struct sl_str payload)
{
    struct gw_hub *hub = arg;
    struct gw_channel *c = sl_map_get(hub->channels, channel);
    struct push p;
    if (c == NULL)
        return;
    if (push_read(payload, &p) != SL_OK) {
        SL_COUNT("sluice_gateway_pushes_bad_total", "", "Published messages that could not be read", 1);
        return;
    }
    for (struct gw_watch *w = c->watches, *next; w != NULL; w = next) {
        next = w->channel_next;
        watch_push(w, &p, payload);
    }
}

void gw_topics_on_lost(void *arg)
{
    struct gw_hub *hub = arg;
    struct sl_str name;
    void *value;
    for (size_t i = 0; sl_map_next(hub->channels, &i, &name, &value);)
        ((struct gw_channel *)value)->is_confirmed = false; /* each will be confirmed, and read, again */
}

/* ---- pushes ---- */

static void hold(struct gw_watch *w, struct sl_str payload)
{
    if (w->held == NULL) {
        w->held = sl_alloc(sizeof *w->held);
        sl_buf_init(w->held, GW_HELD_BYTES_MAX);
    }
    uint32_t n = (uint32_t)payload.len;
    if (w->held->len + sizeof n + payload.len > GW_HELD_BYTES_MAX) {
        w->must_read_again = true; /* what is dropped here stands in the log */
        return;
    }
    sl_buf_add(w->held, &n, sizeof n);
    sl_buf_str(w->held, payload);
}

static void release_held(struct gw_watch *w)
{
    struct sl_buf *held = w->held;
    w->held = NULL;
    if (held == NULL)
        return;
    for (size_t at = 0; at < held->len;) {
        uint32_t n;
        memcpy(&n, held->ptr + at, sizeof n);
        struct sl_str payload = sl_str_n(held->ptr + at + sizeof n, n);
        struct push p;
        if (push_read(payload, &p) == SL_OK)
            watch_push(w, &p, payload);
        at += sizeof n + n;
    }
    sl_buf_fini(held);
    free(held);
}

/* Is the entry the very message that the command sent, rather than something that it caused? */
static bool is_message_of(struct sl_str entry, struct sl_str id)
{
    char needle[MSG_ID_MAX_BYTES + 16];
    size_t at;
    int n = snprintf(needle, sizeof needle, "\"m\":{\"id\":\"%.*s\"", (int)id.len, id.ptr);
    sl_assert(n > 0 && (size_t)n < sizeof needle); /* push_read has checked the id */
    return sl_str_find(entry, sl_str_n(needle, (size_t)n), &at);
}

/* A message of this socket's own is told by its result alone: the client has the text. What a command caused is shown like to
 * everybody (an agent learns the new control epoch from it), and the result has no position of its own. */
static void forward_entry(struct gw_watch *w, const struct push *p)
{
    struct gw_session *s = w->session;
    struct sl_str topic = sl_str_c(w->topic);
    bool is_result = p->id.len > 0 && sl_str_eq(p->session, gw_session_id(s));
    bool is_own = is_result && is_message_of(p->json, p->id);
    w->number = p->number;
    if (w->kind == GW_TOPIC_AGENT)
        gw_agent_learn(s, p->json);
    if (!is_own) {
        frame_write_event(gw_hub_frame(w->hub), topic, w->shown_gen, p->number, p->json);
        gw_session_send(s, GW_NOW);
    }
    if (is_result) {
        frame_write_result(gw_hub_frame(w->hub), p->id, topic, is_own ? w->shown_gen : 0, p->number);
        gw_session_send(s, GW_HELD);
    }
}

/* "<name>": "<conversation>" in JSON that the router wrote, without a parser: a quote inside a string is escaped there, so the
 * first match is the member. Caller frees; NULL when there is none. */
static char *conversation_in(struct sl_str json, struct sl_str name)
{
    char tag[KEY_TAG_MAX_BYTES];
    size_t at;
    if (!sl_str_find(json, name, &at))
        return NULL;
    struct sl_str rest = sl_str_n(json.ptr + at + name.len, json.len - at - name.len);
    const char *end = memchr(rest.ptr, '"', rest.len);
    struct sl_str conv = sl_str_n(rest.ptr, end != NULL ? (size_t)(end - rest.ptr) : 0);
    return key_conversation_tag(tag, conv) == SL_OK ? sl_str_dup(conv) : NULL;
}

/* The first entry of a conversation says by itself where a visitor's log begins. False: the log must be read. */
static bool begin_with(struct gw_watch *w, const struct push *p)
{
    char *conv = w->kind == GW_TOPIC_VISITOR && p->number == 1
                     ? conversation_in(p->json, SL_STR("\"conversation\":\""))
                     : NULL;
    bool is_new = conv != NULL && (w->conv == NULL || strcmp(conv, w->conv) != 0);
    if (!is_new) {
        free(conv);
        return false;
    }
    free(w->conv);
    w->conv = conv;
    w->gen = p->gen;
    w->number = 0;
    w->shown_gen = shown_generation(w, w->gen, w->conv);
    return true;
}

static void on_entry_push(struct gw_watch *w, const struct push *p, struct sl_str payload)
{
    if (!w->is_live) {
        hold(w, payload);
        return;
    }
    bool is_mutant = sl_mutant("no-gap-check") && w->gen == p->gen;
    bool is_next = w->gen == p->gen && p->number == w->number + 1;
    bool is_visitor_new = w->kind == GW_TOPIC_VISITOR && w->conv == NULL;
    if (((is_next || is_mutant) && !is_visitor_new) || begin_with(w, p)) {
        forward_entry(w, p);
        return;
    }
    if (w->gen == p->gen && p->number <= w->number)
        return;
    w->is_live = false;
    hold(w, payload);
    ask_read(w, GW_URGENT);
}

static void watch_push(struct gw_watch *w, const struct push *p, struct sl_str payload)
{
    switch (p->what) {
    case PUSH_ENTRY:
        if (has_log(w))
            on_entry_push(w, p, payload);
        return;
    case PUSH_HINT:
        frame_write_hint(gw_hub_frame(w->hub), sl_str_c(w->topic), p->json);
        break;
    case PUSH_REFUSAL:
        if (!sl_str_eq(p->session, gw_session_id(w->session)))
            return; /* of another socket of this visitor */
        frame_write_refusal(gw_hub_frame(w->hub), p->id, p->json);
        break;
    }
    gw_session_send(w->session, GW_NOW);
}

/* ---- reading ---- */

static struct bus_args *args_begin(struct gw_hub *hub, const char *command)
{
    bus_args_clear(&hub->args);
    bus_args_c(&hub->args, command);
    return &hub->args;
}

/* Issue what stands in the hub's args; the callback gets r and comes exactly once, or the read fails. */
static void read_ask(struct gw_read *r, bus_reply_fn fn)
{
    if (bus_command(r->hub->bus, &r->hub->args, BUS_DEADLINE_MS, fn, r) == SL_OK)
        r->pending++;
    else
        r->has_failed = true;
}

/* Every reply comes through here. False: not the last one of its stage, or there is nothing more to do. */
static bool read_replied(struct gw_read *r, sl_err err)
{
    r->pending--;
    if (err != SL_OK)
        r->has_failed = true;
    if (r->pending > 0)
        return false;
    if (r->watch == NULL || r->has_failed) {
        read_finish(r, false);
        return false;
    }
    return true;
}

static void read_issued(struct gw_read *r)
{
    if (r->pending == 0)
        read_finish(r, false);
}

static void on_located(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct gw_read *r = arg;
    (void)why;
    if (err == SL_OK)
        r->conv = conversation_in(bus_value_str(v), SL_STR("\"c\":\""));
    if (!read_replied(r, err))
        return;
    if (r->conv == NULL)
        read_finish(r, true); /* nothing was ever said here */
    else
        read_end(r);
}

static void read_locate(struct gw_read *r)
{
    struct key key = key_state("addr", r->watch->tag, sl_str_c(r->watch->object));
    struct bus_args *a = args_begin(r->hub, "HGET");
    bus_args_key(a, &key);
    bus_args_c(a, "s");
    read_ask(r, on_located);
    read_issued(r);
}

static struct sl_str read_object(const struct gw_read *r)
{
    return sl_str_c(r->conv != NULL ? r->conv : r->watch->object);
}

static bool is_same_log(const struct gw_read *r)
{
    const struct gw_watch *w = r->watch;
    return w->has_read && w->gen == r->gen &&
           (w->kind != GW_TOPIC_VISITOR || (w->conv != NULL && strcmp(w->conv, r->conv) == 0));
}

static void adopt_log(struct gw_read *r, uint64_t number)
{
    struct gw_watch *w = r->watch;
    w->gen = r->gen;
    w->number = number;
    if (w->kind == GW_TOPIC_VISITOR && (w->conv == NULL || strcmp(w->conv, r->conv) != 0)) {
        free(w->conv);
        w->conv = sl_strdup(r->conv);
    }
    w->shown_gen = shown_generation(w, r->gen, w->conv);
}

static void send_gap(struct gw_watch *w, uint64_t number)
{
    SL_COUNT("sluice_ws_gaps_total", "", "Gaps told to clients: entries that the log no longer has", 1);
    w->number = number;
    frame_write_gap(gw_hub_frame(w->hub), sl_str_c(w->topic), w->shown_gen, number);
    gw_session_send(w->session, GW_HELD);
}

/* Where does a first reading begin? */
static void begin_cursor(struct gw_read *r)
{
    struct gw_watch *w = r->watch;
    bool is_known = w->asked.gen != 0 && w->asked.gen == shown_generation(w, r->gen, r->conv) &&
                    w->asked.number <= r->end;
    if (is_known && sl_mutant("resume-from-end")) {
        adopt_log(r, r->end);
    } else if (is_known) {
        adopt_log(r, w->asked.number);
    } else if (w->asked.gen != 0 || r->end <= GW_FRESH_ENTRIES) {
        adopt_log(r, 0);
    } else {
        adopt_log(r, r->end - GW_FRESH_ENTRIES);
        send_gap(w, w->number);
    }
    w->has_read =
        true; /* if this reading breaks off, the next one goes on where it was, not where the client asked */
}

/* A conversation is opened with its state and last entries, not with a replay. */
static bool wants_snapshot(const struct gw_read *r)
{
    return r->watch->kind == GW_TOPIC_CONVERSATION && !r->watch->has_read && r->watch->asked.gen == 0;
}

static void send_ok(struct gw_watch *w, struct sl_str snap_json, uint64_t last_n)
{
    if (w->reply_id == NULL)
        return;
    frame_write_ok(gw_hub_frame(w->hub), sl_str_c(w->reply_id), sl_str_c(w->topic), w->shown_gen, w->number,
                   snap_json, last_n);
    gw_session_send(w->session, GW_NOW);
    free(w->reply_id);
    w->reply_id = NULL;
}

/* The log number at which reading begins. Visitors' numbers say only that it is not below: notes stand between. */
static uint64_t first_missing(const struct gw_read *r)
{
    uint64_t missing = r->end - r->watch->number;
    if (r->watch->kind != GW_TOPIC_VISITOR)
        return r->watch->number + 1;
    missing = missing * 2 + 16;
    return r->end_n > missing ? r->end_n - missing + 1 : 1;
}

static void read_compare(struct gw_read *r)
{
    struct gw_watch *w = r->watch;
    if (wants_snapshot(r)) {
        read_entries(r, r->end_n > GW_SNAP_ENTRIES ? r->end_n - GW_SNAP_ENTRIES + 1 : 1);
        return;
    }
    if (!w->has_read)
        begin_cursor(r);
    else if (!is_same_log(r))
        adopt_log(r, 0);
    /* A number beyond the end: a push came while this answer, older than it, was on its way. Lost data has another generation. */
    if (w->kind == GW_TOPIC_CONVERSATION)
        send_ok(w, SL_STR_NONE, r->last_n);
    if (w->number >= r->end)
        read_finish(r, true);
    else
        read_entries(r, first_missing(r));
}

static void on_end(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct gw_read *r = arg;
    (void)why;
    if (err == SL_OK && r->watch != NULL) {
        size_t number_at = r->watch->kind == GW_TOPIC_VISITOR ? 1 : 0;
        r->end = (uint64_t)bus_value_int(bus_value_at(v, number_at));
        r->end_n = (uint64_t)bus_value_int(bus_value_at(v, 0));
        r->base = (uint64_t)bus_value_int(bus_value_at(v, 2));
        sl_buf_str(&r->state, bus_value_str(bus_value_at(v, 3)));
    }
    if (!read_replied(r, err))
        return;
    struct gw_session *s = r->watch->session;
    if (r->watch->kind == GW_TOPIC_CONVERSATION && !gw_agent_may_read(s, sl_buf_view(&r->state))) {
        struct gw_watch *w = r->watch;
        gw_agent_topic_denied(s, w);
        read_finish(r, true);
        return;
    }
    r->watch->is_allowed = true;
    read_compare(r);
}

static void on_generation(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct gw_read *r = arg;
    (void)why;
    if (err == SL_OK)
        r->gen = (uint64_t)bus_value_int(v);
    (void)read_replied(r, err); /* asked first, so never the last */
}

/* Who left a conversation, or comes back to it, goes on counting her commands where she was. */
static void on_last_number(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct gw_read *r = arg;
    (void)why;
    if (err == SL_OK)
        r->last_n = (uint64_t)bus_value_int(v);
    (void)read_replied(r, err); /* asked before the end, so never the last */
}

static void ask_last_number(struct gw_read *r)
{
    struct gw_watch *w = r->watch;
    struct key key = key_session(w->tag, gw_session_id(w->session), sl_str_c(w->object));
    struct bus_args *a = args_begin(r->hub, "HGET");
    bus_args_key(a, &key);
    bus_args_c(a, "n");
    read_ask(r, on_last_number);
}

static const char *state_prefix(const struct gw_watch *w)
{
    return w->kind == GW_TOPIC_AGENT ? "agent" : "conv";
}

static void read_end(struct gw_read *r)
{
    struct gw_watch *w = r->watch;
    struct key meta = key_meta(w->tag), state = key_state(state_prefix(w), w->tag, read_object(r));
    struct bus_args *a = args_begin(r->hub, "HGET");
    bus_args_key(a, &meta);
    bus_args_c(a, "gen");
    read_ask(r, on_generation);
    if (w->kind == GW_TOPIC_CONVERSATION && !w->has_read)
        ask_last_number(r);
    a = args_begin(r->hub, "HMGET");
    bus_args_key(a, &state);
    bus_args_c(a, "n");
    bus_args_c(a, "v");
    bus_args_c(a, "b");
    if (w->kind == GW_TOPIC_CONVERSATION)
        bus_args_c(a, "s");
    read_ask(r, on_end);
    read_issued(r);
}

/* The number of an entry on this topic; 0: not shown there, or unreadable. */
static uint64_t entry_number(const struct gw_watch *w, struct sl_str entry)
{
    uint64_t n, v;
    if (push_entry_numbers(entry, &n, &v) != SL_OK)
        return 0;
    return w->kind == GW_TOPIC_VISITOR ? v : n;
}

/* The newest ones go into a snapshot, as far as there is room. */
static size_t first_that_fits(const struct bus_value *entries)
{
    size_t first = bus_value_count(entries), bytes = 0;
    while (first > 0) {
        bytes += bus_value_str(bus_value_at(entries, first - 1)).len;
        if (bytes > GW_SNAP_BYTES_MAX)
            break;
        first--;
    }
    return first;
}

static void send_snapshot(struct gw_read *r, const struct bus_value *entries)
{
    struct gw_watch *w = r->watch;
    struct sl_buf snap;
    struct sl_json j;
    sl_buf_init(&snap, 0);
    adopt_log(r, 0);
    sl_json_begin(&j, &snap);
    sl_json_open(&j, NULL, '{');
    sl_json_raw(&j, "state", sl_buf_view(&r->state));
    sl_json_open(&j, "entries", '[');
    for (size_t i = first_that_fits(entries); i < bus_value_count(entries); i++) {
        struct sl_str entry = bus_value_str(bus_value_at(entries, i));
        uint64_t number = entry_number(w, entry);
        if (number == 0)
            continue;
        sl_json_raw(&j, NULL, entry);
        w->number = number;
    }
    sl_json_close(&j, ']');
    sl_json_close(&j, '}');
    send_ok(w, sl_buf_view(&snap), r->last_n);
    sl_buf_fini(&snap);
}

static bool has_room(const struct gw_watch *w, struct sl_str entry)
{
    struct gw_wire *wire = w->session->wire;
    return wire->ops->room(wire) >= entry.len + GW_ROOM_RESERVE_BYTES;
}

/* False: the socket takes no more now; the rest is read when it does. */
static bool send_entries(struct gw_watch *w, const struct bus_value *entries)
{
    size_t count = bus_value_count(entries);
    while (count > 0 && entry_number(w, bus_value_str(bus_value_at(entries, count - 1))) == 0)
        count--; /* so that the last one shown is known, and sends what is held */
    for (size_t i = 0; i < count; i++) {
        struct sl_str entry = bus_value_str(bus_value_at(entries, i));
        uint64_t number = entry_number(w, entry);
        if (number <= w->number)
            continue;
        if (!has_room(w, entry)) {
            w->waits_for_room = true;
            w->session->wants_room = true;
            return false;
        }
        if (number > w->number + 1)
            send_gap(w, number - 1);
        w->number = number;
        if (w->kind == GW_TOPIC_AGENT)
            gw_agent_learn(w->session, entry);
        frame_write_event(gw_hub_frame(w->hub), sl_str_c(w->topic), w->shown_gen, number, entry);
        gw_session_send(w->session, i + 1 == count ? GW_NOW : GW_HELD);
    }
    return true;
}

/* Does it begin after what is needed, though the log has more before it? Then everything is read, from the log's start. */
static bool is_too_late(const struct gw_read *r, const struct bus_value *entries)
{
    if (r->watch->kind != GW_TOPIC_VISITOR || r->next_n <= r->base + 1)
        return false;
    for (size_t i = 0; i < bus_value_count(entries); i++) {
        uint64_t number = entry_number(r->watch, bus_value_str(bus_value_at(entries, i)));
        if (number > 0)
            return number > r->watch->number + 1;
    }
    return false;
}

/* A log that was cut between our two questions has other indices than we thought. */
static bool is_expected(const struct gw_read *r, const struct bus_value *entries)
{
    uint64_t n, v;
    return push_entry_numbers(bus_value_str(bus_value_at(entries, 0)), &n, &v) == SL_OK && n == r->next_n;
}

static void on_entries(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct gw_read *r = arg;
    (void)why;
    if (!read_replied(r, err))
        return;
    size_t count = bus_value_count(v);
    if (wants_snapshot(r)) {
        send_snapshot(r, v);
        read_finish(r, true);
    } else if (count == 0) {
        read_finish(r, true);
    } else if (!is_expected(r, v)) {
        read_finish(r, false);
    } else if (is_too_late(r, v)) {
        read_entries(r, r->base + 1);
    } else if (!send_entries(r->watch, v) || count < GW_CHUNK_ENTRIES) {
        read_finish(r, true);
    } else {
        read_entries(r, r->next_n + count);
    }
}

static void read_entries(struct gw_read *r, uint64_t from_n)
{
    struct key log = key_log(r->watch->tag, read_object(r));
    struct bus_args *a = args_begin(r->hub, "LRANGE");
    r->next_n = from_n > r->base ? from_n : r->base + 1;
    bus_args_key(a, &log);
    bus_args_int(a, (int64_t)(r->next_n - 1 - r->base));
    bus_args_int(a, (int64_t)(r->next_n - 1 - r->base + GW_CHUNK_ENTRIES - 1));
    read_ask(r, on_entries);
    read_issued(r);
}

void gw_watch_room(struct gw_watch *w)
{
    if (!w->waits_for_room)
        return;
    w->waits_for_room = false;
    ask_read(w, GW_URGENT);
}

static void watch_settle(struct gw_watch *w, bool is_done)
{
    if (!is_done) {
        enqueue(w, w->has_read ? GW_SWEEP : GW_URGENT);
        if (!w->is_live)
            enqueue(w, GW_URGENT);
        if (!sl_timer_is_active(&w->hub->read_retry))
            sl_timer_start(&w->hub->read_retry, READ_RETRY_MS + sl_loop_jitter(w->hub->loop, READ_RETRY_MS));
        return;
    }
    w->has_read = true;
    if (w->waits_for_room) {
        w->is_live = false; /* pushes are held until the replay has come to its end */
        return;
    }
    send_ok(w, SL_STR_NONE, 0);
    w->is_live = true;
    bool must_read_again = w->must_read_again;
    w->must_read_again = false;
    release_held(w);
    if (must_read_again)
        enqueue(w, GW_URGENT);
}

static void read_finish(struct gw_read *r, bool is_done)
{
    struct gw_hub *hub = r->hub;
    struct gw_watch *w = r->watch;
    hub->reads[r->haste]--;
    sl_buf_fini(&r->state);
    free(r->conv);
    free(r);
    if (w != NULL) {
        w->read = NULL;
        watch_settle(w, is_done);
    }
    if (is_done)
        gw_topics_pump(hub);
}

/* ---- life of a watch ---- */

struct gw_watch *gw_watch_open(struct gw_session *s, enum gw_topic kind, const char *topic, const char *tag,
                               struct sl_str object, struct gw_position from, struct sl_str reply_id)
{
    size_t topic_len = strlen(topic) + 1, tag_len = strlen(tag) + 1;
    struct gw_watch *w = sl_alloc(sizeof *w + topic_len + tag_len + object.len + 1);
    w->session = s;
    w->hub = s->hub;
    w->kind = kind;
    w->asked = from;
    memcpy(w->topic, topic, topic_len);
    w->tag = w->topic + topic_len;
    memcpy(w->tag, tag, tag_len);
    w->object = w->tag + tag_len;
    memcpy(w->object, object.ptr, object.len);
    w->reply_id = reply_id.len > 0 ? sl_str_dup(reply_id) : NULL;
    join_channel(w);
    if (w->channel->is_confirmed)
        on_watch_confirmed(w);
    return w;
}

void gw_watch_close(struct gw_watch **wp)
{
    struct gw_watch *w = *wp;
    *wp = NULL;
    if (w == NULL)
        return;
    dequeue(w, GW_URGENT);
    dequeue(w, GW_SWEEP);
    leave_channel(w);
    if (w->read != NULL)
        w->read->watch = NULL;
    if (w->held != NULL) {
        sl_buf_fini(w->held);
        free(w->held);
    }
    free(w->reply_id);
    free(w->conv);
    free(w);
}
