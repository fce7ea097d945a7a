#include "gateway/agent_socket.h"

#include "gateway/hub_priv.h"
#include "gateway/login.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

/* What is kept of the configured agent: a reload may take her away while she is connected. */
struct gw_agent_side {
    struct gw_session *session;
    struct gw_agent_side *next, *before; /* in the hub's list */
    char *tenant, *id, *name, *skills, *queues;
    unsigned capacity;
    int64_t ends_unix_ms; /* of the login */
    char desk[KEY_TAG_MAX_BYTES];
    /* Names this socket to the desk: the session, a dot, digits. A session may be resumed while its old socket is
     * still taken for open; the old one's late "offline" must not end the new one. */
    char presence[GW_SESSION_ID_BYTES + 22];
    struct key login;
    unsigned known_at, known_count;
    char known[GW_KNOWN_MAX][40]; /* conversation ids: 5 digits, a dot, a ULID */
};

/* A login being looked up for a hello. */
struct lookup {
    struct gw_session *session;
    struct key login;
    struct gw_position from;
    char resume[GW_SESSION_ID_BYTES + 1];
    char token[GW_TOKEN_BYTES + 1];
};

/* ---- presence ---- */

static void tell_desk(struct gw_agent_side *a, enum event_type type)
{
    struct gw_hub *hub = a->session->hub;
    struct event ev = {.type = type, .agent = sl_str_c(a->id), .session = sl_str_c(a->presence)};
    ev.at_ms = sl_loop_unix_ms(hub->loop);
    if (type != EVENT_AGENT_OFFLINE) {
        ev.capacity = a->capacity;
        ev.skills = sl_str_c(a->skills);
        ev.text = sl_str_c(a->queues);
    }
    struct bus_accept in = {.tag = a->desk, .dedupe = BUS_BY_NOTHING, .event = &ev};
    if (gw_queue_append(&hub->desk, &in) != SL_OK)
        SL_COUNT("sluice_gateway_presence_lost_total", "",
                 "Signs of life of agents that found the store busy", 1);
}

/* A sign of life says all that "online" said: a desk that never heard of her, or gave her up, takes her in. */
void gw_agent_on_alive(void *arg)
{
    struct gw_hub *hub = arg;
    for (struct gw_agent_side *a = hub->agents; a != NULL; a = a->next)
        if (a->session->phase == GW_PHASE_OPEN)
            tell_desk(a, EVENT_AGENT_ALIVE);
    sl_timer_start(&hub->alive, hub->cfg.alive_ms);
}

static void on_login_touched(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct lookup *l = arg;
    (void)why;
    struct gw_session *s = l->session;
    if (s != NULL)
        s->lookup = NULL;
    if (s != NULL && err == SL_OK && bus_value_int(v) == 0)
        gw_session_close(s, FRAME_CLOSE_AUTH); /* logged out elsewhere */
    free(l);
}

/* Keep the login alive while its socket is; end the socket with the login. */
void gw_agent_on_wheel(struct gw_session *s)
{
    struct gw_agent_side *a = s->agent;
    int64_t left_ms = a->ends_unix_ms - sl_loop_unix_ms(s->hub->loop);
    if (left_ms <= 0) {
        gw_session_close(s, FRAME_CLOSE_AUTH);
        return;
    }
    if (s->lookup != NULL)
        return;
    struct lookup *l = sl_alloc(sizeof *l);
    l->session = s;
    struct bus_args *args = &s->hub->args;
    bus_args_clear(args);
    bus_args_c(args, "PEXPIRE");
    bus_args_key(args, &a->login);
    bus_args_int(args, left_ms < GW_LOGIN_IDLE_MS ? left_ms : GW_LOGIN_IDLE_MS);
    if (bus_command(s->hub->bus, args, BUS_DEADLINE_MS, on_login_touched, l) != SL_OK)
        free(l);
    else
        s->lookup = &l->session;
}

/* ---- hello ---- */

static struct gw_agent_side *side_new(struct gw_session *s, const struct gw_agent *agent)
{
    struct gw_agent_side *a = sl_alloc(sizeof *a);
    a->session = s;
    a->tenant = sl_strdup(agent->tenant);
    a->id = sl_strdup(agent->id);
    a->name = sl_strdup(agent->name);
    a->skills = sl_strdup(agent->skills);
    a->queues = sl_strdup(agent->queues);
    a->capacity = agent->capacity;
    key_desk_tag(a->desk, sl_str_c(agent->tenant));
    a->next = s->hub->agents;
    if (a->next != NULL)
        a->next->before = a;
    s->hub->agents = a;
    return a;
}

static void write_me(struct sl_buf *out, const struct gw_agent_side *a)
{
    struct sl_json j;
    sl_json_begin(&j, out);
    sl_json_open(&j, NULL, '{');
    sl_json_c(&j, "agent", a->id);
    sl_json_c(&j, "name", a->name);
    sl_json_c(&j, "tenant", a->tenant);
    sl_json_int(&j, "capacity", a->capacity);
    sl_json_c(&j, "queues", a->queues);
    sl_json_close(&j, '}');
}

static void agent_open(struct gw_session *s, struct gw_position from, uint64_t last_n)
{
    struct gw_agent_side *a = s->agent;
    struct sl_buf me;
    (void)snprintf(a->presence, sizeof a->presence, "%s.%llu", s->id,
                   (unsigned long long)sl_loop_random(s->hub->loop));
    sl_buf_init(&me, 0);
    write_me(&me, a);
    gw_session_welcome(s, sl_buf_view(&me), last_n);
    sl_buf_fini(&me);
    gw_session_add_watch(s, gw_watch_open(s, GW_TOPIC_REFUSALS, "refusals", a->desk, gw_session_id(s),
                                          (struct gw_position){0, 0}, SL_STR_NONE));
    gw_session_add_watch(s,
                         gw_watch_open(s, GW_TOPIC_AGENT, "me", a->desk, sl_str_c(a->id), from, SL_STR_NONE));
    tell_desk(a, EVENT_AGENT_ONLINE);
}

/* The last step of a resumed hello: where does the numbering of her desk commands stand? */
static void on_desk_number(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct lookup *l = arg;
    struct gw_session *s = l->session;
    (void)why;
    if (s != NULL)
        s->lookup = NULL;
    if (s != NULL && s->phase == GW_PHASE_PENDING) {
        if (err == SL_OK)
            agent_open(s, l->from, (uint64_t)bus_value_int(v));
        else
            gw_session_close(s, FRAME_CLOSE_BUSY);
    }
    free(l);
}

static void ask_desk_number(struct lookup *l)
{
    struct gw_session *s = l->session;
    struct key key = key_session(s->agent->desk, gw_session_id(s), SL_STR("desk"));
    struct bus_args *args = &s->hub->args;
    bus_args_clear(args);
    bus_args_c(args, "HGET");
    bus_args_key(args, &key);
    bus_args_c(args, "n");
    if (bus_command(s->hub->bus, args, BUS_DEADLINE_MS, on_desk_number, l) == SL_OK)
        return;
    s->lookup = NULL;
    gw_session_close(s, FRAME_CLOSE_BUSY);
    free(l);
}

/* The looked-up login belongs to a configured agent whose time is not over: let her in. */
static bool take_login(struct lookup *l, struct sl_str stored)
{
    struct gw_session *s = l->session;
    const struct gw_directory *dir = &s->hub->cfg.directory;
    json_t *root = stored.len > 0 ? sl_json_parse(stored, NULL) : NULL; /* owned */
    int64_t ends_unix_ms = root != NULL ? sl_json_get_int(root, "ends", 0) : 0;
    const struct gw_agent *agent = NULL;
    if (ends_unix_ms > sl_loop_unix_ms(s->hub->loop))
        agent = dir->agent(dir->arg, sl_json_get_str(root, "tenant"), sl_json_get_str(root, "agent"));
    json_decref(root);
    if (agent == NULL)
        return false;
    s->agent = side_new(s, agent);
    s->agent->ends_unix_ms = ends_unix_ms;
    s->agent->login = l->login;
    gw_session_name(s, sl_str_c(l->resume), sl_str_c(l->token));
    return true;
}

static void on_login_found(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct lookup *l = arg;
    struct gw_session *s = l->session;
    (void)why;
    if (s == NULL || s->phase != GW_PHASE_PENDING) {
        if (s != NULL)
            s->lookup = NULL;
        free(l);
        return;
    }
    bool is_in = err == SL_OK && take_login(l, bus_value_str(v));
    if (is_in && s->is_resumed) {
        ask_desk_number(l);
        return;
    }
    s->lookup = NULL;
    if (is_in)
        agent_open(s, l->from, 0);
    else
        gw_session_close(s, err == SL_OK ? FRAME_CLOSE_AUTH : FRAME_CLOSE_BUSY);
    free(l);
}

static void copy_word(char *out, size_t size, struct sl_str word)
{
    size_t n = word.len < size ? word.len : 0; /* one that does not fit is not ours */
    if (n > 0)
        memcpy(out, word.ptr, n);
    out[n] = '\0';
}

/* Cookies are not used, so a foreign page cannot speak for an agent; her token is all that counts. */
void gw_agent_hello(struct gw_session *s, const struct frame *f)
{
    if (f->token.len != GW_TOKEN_BYTES) {
        gw_session_error(s, SL_STR_NONE, SL_EAUTH,
                         "hello: token is missing or malformed; POST /v1/login gives one", 0);
        gw_session_close(s, FRAME_CLOSE_AUTH);
        return;
    }
    struct lookup *l = sl_alloc(sizeof *l);
    l->session = s;
    l->login = gw_login_key("login", f->token);
    l->from = gw_session_resume_position(f, "me");
    copy_word(l->resume, sizeof l->resume, f->session);
    copy_word(l->token, sizeof l->token, f->token);
    struct bus_args *args = &s->hub->args;
    bus_args_clear(args);
    bus_args_c(args, "GET");
    bus_args_key(args, &l->login);
    s->phase = GW_PHASE_PENDING;
    if (bus_command(s->hub->bus, args, BUS_DEADLINE_MS, on_login_found, l) != SL_OK) {
        free(l);
        gw_session_close(s, FRAME_CLOSE_BUSY);
        return;
    }
    s->lookup = &l->session;
}

void gw_agent_free(struct gw_session *s)
{
    struct gw_agent_side *a = s->agent;
    if (a == NULL)
        return;
    if (a->presence[0] != '\0')
        tell_desk(a, EVENT_AGENT_OFFLINE);
    if (a->next != NULL)
        a->next->before = a->before;
    if (a->before != NULL)
        a->before->next = a->next;
    else
        s->hub->agents = a->next;
    free(a->tenant);
    free(a->id);
    free(a->name);
    free(a->skills);
    free(a->queues);
    free(a);
    s->agent = NULL;
}

/* ---- who may see what ---- */

static bool is_known(const struct gw_agent_side *a, struct sl_str conv)
{
    for (unsigned i = 0; i < a->known_count; i++)
        if (sl_str_eq_c(conv, a->known[i]))
            return true;
    return false;
}

void gw_agent_learn(struct gw_session *s, struct sl_str entry)
{
    struct gw_agent_side *a = s->agent;
    char tag[KEY_TAG_MAX_BYTES];
    size_t at;
    if (a == NULL || !sl_str_find(entry, SL_STR("\"c\":\""), &at))
        return;
    struct sl_str rest = sl_str_n(entry.ptr + at + 5, entry.len - at - 5);
    const char *end = memchr(rest.ptr, '"', rest.len);
    struct sl_str conv = sl_str_n(rest.ptr, end != NULL ? (size_t)(end - rest.ptr) : 0);
    if (conv.len >= sizeof a->known[0] || key_conversation_tag(tag, conv) != SL_OK || is_known(a, conv))
        return;
    copy_word(a->known[a->known_at], sizeof a->known[0], conv);
    a->known_at = (a->known_at + 1) % GW_KNOWN_MAX;
    if (a->known_count < GW_KNOWN_MAX)
        a->known_count++;
}

static bool list_has(const char *list, struct sl_str word)
{
    struct sl_str rest = sl_str_c(list);
    while (rest.len > 0) {
        const char *comma = memchr(rest.ptr, ',', rest.len);
        size_t n = comma != NULL ? (size_t)(comma - rest.ptr) : rest.len;
        if (sl_str_eq(sl_str_n(rest.ptr, n), word))
            return true;
        rest = comma != NULL ? sl_str_n(comma + 1, rest.len - n - 1) : SL_STR_NONE;
    }
    return false;
}

static bool is_tenants(const struct gw_agent_side *a, struct sl_str addr)
{
    size_t n = strlen(a->tenant);
    return addr.len > n && memcmp(addr.ptr, a->tenant, n) == 0 && addr.ptr[n] == '/';
}

bool gw_agent_may_read(struct gw_session *s, struct sl_str state_json)
{
    const struct gw_agent_side *a = s->agent;
    json_t *root = state_json.len > 0 ? sl_json_parse(state_json, NULL) : NULL; /* owned */
    if (root == NULL || a == NULL)
        return false;
    bool is_queued = sl_str_eq_c(sl_json_get_str(root, "control"), "queued");
    bool is_hers = sl_str_eq_c(sl_json_get_str(root, "agent"), a->id) ||
                   sl_str_eq_c(sl_json_get_str(root, "last_agent"), a->id);
    bool may = is_tenants(a, sl_json_get_str(root, "addr")) &&
               (is_hers || (is_queued && list_has(a->queues, sl_json_get_str(root, "queue"))));
    json_decref(root);
    return may;
}

void gw_agent_topic_denied(struct gw_session *s, struct gw_watch *w)
{
    gw_session_error(s, sl_str_c(w->reply_id != NULL ? w->reply_id : ""), SL_EDENIED,
                     "this conversation is not yours to read", 0);
    gw_session_drop_watch(s, w);
}

void gw_agent_subscribe(struct gw_session *s, const struct frame *f)
{
    struct gw_agent_side *a = s->agent;
    struct gw_position from = {f->has_position ? f->gen : 0, f->has_position ? f->from : 0};
    char topic[64], tag[KEY_TAG_MAX_BYTES];
    if (gw_session_find_watch(s, f->topic) != NULL || s->watch_count >= GW_TOPICS_MAX) {
        gw_session_error(s, f->id, SL_ECONFLICT, "this topic is open already, or too many are", 0);
        return;
    }
    if (sl_str_eq_c(f->topic, "queue")) {
        gw_session_add_watch(s, gw_watch_open(s, GW_TOPIC_QUEUE, "queue", a->desk, SL_STR_NONE, from, f->id));
        return;
    }
    struct sl_str conv = f->topic.len > 5 ? sl_str_n(f->topic.ptr + 5, f->topic.len - 5) : SL_STR_NONE;
    if (f->topic.len >= sizeof topic || key_conversation_tag(tag, conv) != SL_OK) {
        gw_session_error(s, f->id, SL_ENOTFOUND, "no such topic", 0);
        return;
    }
    copy_word(topic, sizeof topic, f->topic);
    gw_session_add_watch(s, gw_watch_open(s, GW_TOPIC_CONVERSATION, topic, tag, conv, from, f->id));
}

/* ---- commands ---- */

/* Fill ev from f. EDENIED: a visitor's command. */
static sl_err command_event(const struct frame *f, struct event *ev, struct sl_fail *why)
{
    ev->control = f->control;
    switch (f->command) {
    case FRAME_CMD_MESSAGE_SEND:
        ev->type = EVENT_AGENT_MESSAGE;
        ev->kind = f->kind;
        ev->text = f->text;
        ev->data = f->data_json;
        return SL_OK;
    case FRAME_CMD_CONV_ACCEPT:
        ev->type = EVENT_AGENT_ACCEPT;
        ev->ticket = f->ticket;
        return SL_OK;
    case FRAME_CMD_CONV_NOTE:
        ev->type = EVENT_AGENT_NOTE;
        ev->text = f->text;
        return SL_OK;
    case FRAME_CMD_CONV_TRANSFER:
        ev->type = EVENT_AGENT_TRANSFER;
        ev->queue = f->queue;
        ev->reason = f->reason;
        return SL_OK;
    case FRAME_CMD_CONV_CLOSE:
        ev->type = EVENT_AGENT_CLOSE;
        return SL_OK;
    case FRAME_CMD_PRESENCE_SET:
        ev->type = EVENT_AGENT_STATE;
        ev->reason = f->state;
        return SL_OK;
    case FRAME_CMD_MESSAGE_RATE:
    case FRAME_CMD_CONV_END:
    case FRAME_CMD_COUNT:
        break;
    }
    return sl_fail_set(why, SL_EDENIED, 0, "this command is for visitors");
}

/* Where does the command go? target: what its numbers count in. */
static sl_err command_target(struct gw_session *s, const struct frame *f, struct event *ev,
                             char tag[KEY_TAG_MAX_BYTES], struct sl_str *target, struct sl_fail *why)
{
    struct gw_agent_side *a = s->agent;
    if (ev->type == EVENT_AGENT_STATE) {
        memcpy(tag, a->desk, sizeof a->desk);
        *target = SL_STR("desk");
        ev->session = sl_str_c(a->presence);
        return sl_str_eq_c(f->topic, "me")
                   ? SL_OK
                   : sl_fail_set(why, SL_EINVAL, 0, "presence.set goes to topic \"me\"");
    }
    struct sl_str conv = f->topic.len > 5 ? sl_str_n(f->topic.ptr + 5, f->topic.len - 5) : SL_STR_NONE;
    if (key_conversation_tag(tag, conv) != SL_OK)
        return sl_fail_set(why, SL_EINVAL, 0, "this command goes to topic \"conv:<id>\"");
    const struct gw_watch *w = gw_session_find_watch(s, f->topic);
    if (!(w != NULL && w->is_allowed) && !is_known(a, conv))
        return sl_fail_set(why, SL_EDENIED, 0,
                           "this conversation was not offered to you: open its topic first");
    ev->conv = conv;
    *target = conv;
    return SL_OK;
}

void gw_agent_command(struct gw_session *s, const struct frame *f)
{
    struct gw_agent_side *a = s->agent;
    struct sl_fail why = {.text = ""};
    struct event ev = {.id = f->id, .agent = sl_str_c(a->id), .session = gw_session_id(s), .trace = f->trace};
    char tag[KEY_TAG_MAX_BYTES];
    struct sl_str target = SL_STR_NONE;
    ev.at_ms = sl_loop_unix_ms(s->hub->loop);
    sl_err err = command_event(f, &ev, &why);
    if (err == SL_OK)
        err = command_target(s, f, &ev, tag, &target, &why);
    if (err != SL_OK) {
        gw_session_error(s, f->id, err, why.text, 0);
        return;
    }
    struct bus_accept in = {.tag = tag,
                            .dedupe = BUS_BY_NUMBER,
                            .session = gw_session_id(s),
                            .target = target,
                            .number = f->n,
                            .rate_per_s = GW_AGENT_RATE_PER_S,
                            .burst = GW_AGENT_BURST,
                            .event = &ev};
    gw_session_command(s, f, &in);
}
