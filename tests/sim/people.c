/* tests/sim/people.c - the visitors and agents: small models of what a browser and the gateway's session do together.
 *
 * A visitor numbers her frames and repeats them until acknowledged; she subscribes, reads from her cursor, follows pushes, reads
 * again at a gap and compares at a sweep. An agent follows her log, accepts, answers under the control epoch she saw, closes.
 */
#include "base/fault.h"
#include "base/json.h"
#include "proto/push.h"

#include "sim.h"

#include <stdio.h>
#include <stdlib.h>

#define WINDOW         3   /* frames of a visitor under way */
#define RESEND_MS      400 /* a pause after a refusal or an unknown outcome */
#define AGENT_ALIVE_MS 1500

/* ---- calls: they name process, life and person, never point at a session ---- */

struct call {
    struct process *gateway;
    unsigned pid, person;
    uint64_t number;
};

static struct call *call_new(struct process *gateway, unsigned person, uint64_t number)
{
    struct call *c = sl_alloc(sizeof *c);
    *c = (struct call){.gateway = gateway, .pid = gateway->pid, .person = person, .number = number};
    return c;
}

static bool call_is_current(const struct call *c)
{
    return c->gateway->pid == c->pid && c->gateway->is_alive && !c->gateway->is_doomed;
}

/* NULL: the gateway that asked is gone, or the visitor is with another one by now. */
static struct visitor *visitor_of(struct call *c)
{
    struct visitor *v = &c->gateway->w->visitor[c->person];
    bool is_hers = call_is_current(c) && v->gateway == c->gateway && v->gateway_pid == c->pid;
    return is_hers ? v : NULL;
}

static struct agent *agent_of(struct call *c)
{
    struct agent *a = &c->gateway->w->agent[c->person];
    bool is_hers = call_is_current(c) && a->gateway == c->gateway && a->gateway_pid == c->pid;
    return is_hers ? a : NULL;
}

static void say_words(struct bus_args *a, const char *const *words)
{
    bus_args_clear(a);
    for (; *words != NULL; words++)
        bus_args_c(a, *words);
}

static bool ask(struct process *gateway, struct call *c, bus_reply_fn fn, const char *const *words)
{
    say_words(&gateway->w->args, words);
    if (bus_command(gateway->bus, &gateway->w->args, 3000, fn, c) == SL_OK)
        return true;
    free(c);
    return false;
}
#define ASK(gateway, c, fn, ...) ask((gateway), (c), (fn), (const char *const[]){__VA_ARGS__, NULL})

static struct process *pick_gateway(struct world *w)
{
    struct process *found = NULL;
    uint64_t n = 0;
    for (unsigned i = 0; i < w->processes; i++) {
        struct process *p = &w->process[i];
        if (p->kind == SIM_GATEWAY && process_is_usable(p) && sim_random(w, ++n) == 0)
            found = p;
    }
    return found;
}

/* ---- plans ---- */

static void plan_frame(struct world *w, struct visitor *v, unsigned i, bool has_poison)
{
    static const char *const words[] = {"what is the price?",
                                        "hello, I ordered on Monday.",
                                        "hi",
                                        "I want a human",
                                        "thanks!",
                                        "offer me something.",
                                        "人工",
                                        "where is my parcel?",
                                        "and"};
    struct frame_plan *f = &v->frame[i];
    f->type = EVENT_MESSAGE;
    f->not_before_ms = w->now_ms + sim_random(w, 9000);
    if (i > 0 && f->not_before_ms < v->frame[i - 1].not_before_ms && sim_chance(w, 600))
        f->not_before_ms = v->frame[i - 1].not_before_ms; /* a burst */
    (void)snprintf(f->id, sizeof f->id, "m%u-%u", v->index, i + 1);
    (void)snprintf(f->text, sizeof f->text, "%s", words[sim_random(w, sizeof words / sizeof words[0])]);
    if (i > 1 && sim_chance(w, 80))
        f->type = EVENT_HANGUP;
    else if (i > 1 && sim_chance(w, 50))
        f->type = EVENT_RATING;
    else if (has_poison && i == 1)
        (void)snprintf(f->text, sizeof f->text, "%s", SIM_POISON);
}

static void plan_visitor(struct world *w, unsigned index, bool has_poison)
{
    struct visitor *v = &w->visitor[index];
    v->w = w;
    v->index = index;
    (void)snprintf(v->address, sizeof v->address, SIM_TENANT "/web/v%u-%u", index,
                   (unsigned)sim_random(w, 1000));
    (void)snprintf(v->session, sizeof v->session, "s%u", index);
    key_partition_tag(v->tag, key_address_partition(sl_str_c(v->address), SIM_PARTITIONS));
    v->frames = 2 + (unsigned)sim_random(w, SIM_FRAMES_MAX - 3);
    for (unsigned i = 0; i < v->frames; i++)
        plan_frame(w, v, i, has_poison);
    v->connect_at_ms = w->now_ms + sim_random(w, 500);
}

void people_new(struct world *w)
{
    w->visitors = 3 + (unsigned)sim_random(w, SIM_VISITORS_MAX - 2);
    bool has_poison = sim_random(w, 5) == 0;
    for (unsigned i = 0; i < w->visitors; i++)
        plan_visitor(w, i, has_poison && i == 0);
    for (unsigned i = 0; i < SIM_AGENTS; i++) {
        struct agent *a = &w->agent[i];
        a->w = w;
        a->index = i;
        a->numbers = sl_map_new();
        (void)snprintf(a->name, sizeof a->name, "a%u", i);
        a->connect_at_ms = w->now_ms + sim_random(w, 3000);
    }
}

static void agent_drop_first(struct agent *a)
{
    struct agent_command *c = a->first;
    a->first = c->next;
    if (a->first == NULL)
        a->last = NULL;
    free(c);
}

void people_free(struct world *w)
{
    for (unsigned i = 0; i < w->visitors; i++)
        for (size_t j = 0; j < sizeof w->visitor[i].shown / sizeof w->visitor[i].shown[0]; j++)
            sl_buf_fini(&w->visitor[i].shown[j]);
    for (unsigned i = 0; i < SIM_AGENTS; i++) {
        struct sl_str key;
        void *value;
        while (w->agent[i].first != NULL)
            agent_drop_first(&w->agent[i]);
        for (size_t j = 0; w->agent[i].numbers != NULL && sl_map_next(w->agent[i].numbers, &j, &key, &value);)
            free(value);
        sl_map_free(&w->agent[i].numbers);
    }
}

void people_heal(struct world *w)
{
    for (unsigned i = 0; i < w->visitors; i++) {
        struct visitor *v = &w->visitor[i];
        for (unsigned j = 0; j < v->frames; j++)
            v->frame[j].not_before_ms = 0;
        v->connect_at_ms = v->connect_at_ms > w->now_ms + 500 ? w->now_ms + 500 : v->connect_at_ms;
    }
    for (unsigned i = 0; i < SIM_AGENTS; i++)
        w->agent[i].connect_at_ms = w->now_ms + 100;
}

bool people_are_done(const struct world *w)
{
    for (unsigned i = 0; i < w->visitors; i++) {
        const struct visitor *v = &w->visitor[i];
        for (unsigned j = 0; j < v->frames; j++)
            if (v->frame[j].state != SIM_ACKED)
                return false;
    }
    for (unsigned i = 0; i < SIM_AGENTS; i++)
        if (w->agent[i].first != NULL || !w->agent[i].is_online)
            return false;
    return true;
}

/* ---- a visitor shows entries ---- */

static void show(struct visitor *v, struct sl_str entry)
{
    struct world *w = v->w;
    size_t max = sizeof v->shown / sizeof v->shown[0];
    if (v->cursor >= max) {
        sim_fail(w, "I10 visitor %u was shown more than %zu entries", v->index, max);
        return;
    }
    sl_buf_clear(&v->shown[v->cursor]);
    sl_buf_str(&v->shown[v->cursor], entry);
    v->cursor++;
    sim_digest(w, entry.ptr, entry.len);
}

static void visitor_read(struct visitor *v);

static void on_log_read(void *arg, sl_err err, const struct bus_value *value, const struct sl_fail *why)
{
    struct call *c = arg;
    struct visitor *v = visitor_of(c);
    free(c);
    (void)why;
    if (v == NULL)
        return;
    v->is_reading = false;
    for (size_t i = 0; err == SL_OK && i < bus_value_count(value); i++) {
        struct sl_str entry = bus_value_str(bus_value_at(value, i));
        uint64_t n = 0, number = 0;
        if (push_entry_numbers(entry, &n, &number) != SL_OK)
            sim_fail(v->w, "I3 visitor %u read an entry without numbers", v->index);
        else if (number == v->cursor + 1)
            show(v, entry);
        else if (number > v->cursor + 1)
            sim_fail(v->w, "I3 visitor %u: the log goes from %llu to %llu", v->index,
                     (unsigned long long)v->cursor, (unsigned long long)number);
    }
    if (err != SL_OK || v->wants_read)
        visitor_read(v);
}

static void read_log(struct visitor *v)
{
    struct key log = key_log(v->tag, sl_str_c(v->conv));
    char name[KEY_MAX_BYTES + 1];
    (void)snprintf(name, sizeof name, "%.*s", (int)log.len, log.ptr);
    v->wants_read = false;
    v->is_reading =
        ASK(v->gateway, call_new(v->gateway, v->index, 0), on_log_read, "LRANGE", name, "0", "-1");
    v->wants_read = !v->is_reading;
}

static void on_address_read(void *arg, sl_err err, const struct bus_value *value, const struct sl_fail *why)
{
    struct call *c = arg;
    struct visitor *v = visitor_of(c);
    free(c);
    (void)why;
    if (v == NULL)
        return;
    v->is_reading = false;
    json_t *root =
        err == SL_OK && bus_value_type(value) == BUS_STR ? sl_json_parse(bus_value_str(value), NULL) : NULL;
    struct sl_str conv = root != NULL ? sl_json_get_str(root, "c") : SL_STR_NONE;
    if (conv.len > 0 && conv.len < sizeof v->conv) {
        if (!sl_str_eq_c(conv, v->conv))
            v->cursor = 0; /* another conversation: the one before has left the store */
        memcpy(v->conv, conv.ptr, conv.len);
        v->conv[conv.len] = '\0';
        read_log(v);
    }
    json_decref(root);
}

/* From the cursor to the log's end, by the address entry: it says which conversation's log. While one read is under way another
 * is remembered. */
static void visitor_read(struct visitor *v)
{
    v->wants_read = true;
    if (v->is_reading || v->gateway == NULL)
        return;
    struct key addr = key_state("addr", v->tag, sl_str_c(v->address));
    char name[KEY_MAX_BYTES + 1];
    (void)snprintf(name, sizeof name, "%.*s", (int)addr.len, addr.ptr);
    v->wants_read = false;
    v->is_reading = ASK(v->gateway, call_new(v->gateway, v->index, 0), on_address_read, "HGET", name, "s");
    v->wants_read = !v->is_reading;
}

static struct visitor *visitor_on(struct process *gateway, struct sl_str channel)
{
    struct world *w = gateway->w;
    for (unsigned i = 0; i < w->visitors; i++) {
        struct visitor *v = &w->visitor[i];
        if (v->gateway != gateway || v->gateway_pid != gateway->pid)
            continue;
        struct key key = key_push_visitor(v->tag, sl_str_c(v->address));
        if (sl_str_eq(key_str(&key), channel))
            return v;
    }
    return NULL;
}

static bool is_of_conversation(const struct visitor *v, struct sl_str entry)
{
    char member[100];
    size_t at = 0;
    int n = snprintf(member, sizeof member, "\"conversation\":\"%s\"", v->conv);
    return sl_str_find(entry, sl_str_n(member, (size_t)n), &at);
}

void people_on_push(struct process *gateway, struct sl_str channel, struct sl_str payload)
{
    struct visitor *v = visitor_on(gateway, channel);
    struct push p;
    if (v == NULL)
        return;
    if (push_read(payload, &p) != SL_OK) {
        sim_fail(gateway->w, "I3 visitor %u got a push that cannot be read", v->index);
        return;
    }
    if (p.what == PUSH_REFUSAL)
        v->refusals++;
    if (p.what != PUSH_ENTRY)
        return;
    if (!is_of_conversation(v, p.json)) {
        visitor_read(v);
        return;
    }
    if (p.number == v->cursor + 1 || (sl_mutant("no-gap") && p.number > v->cursor))
        show(v, p.json);
    else if (p.number > v->cursor + 1)
        visitor_read(v);
}

void people_on_confirmed(struct process *gateway, struct sl_str channel)
{
    struct visitor *v = visitor_on(gateway, channel);
    if (v != NULL)
        visitor_read(v);
}

/* Every reader compares its cursor, soon. */
void people_on_lost(struct process *gateway)
{
    struct world *w = gateway->w;
    for (unsigned i = 0; i < w->visitors; i++)
        if (w->visitor[i].gateway == gateway)
            w->visitor[i].sweep_at_ms = w->now_ms + sim_random(w, 300);
}

/* ---- a visitor sends ---- */

static void on_accepted(void *arg, sl_err err, const struct bus_accept_result *res, const struct sl_fail *why)
{
    struct call *c = arg;
    struct visitor *v = visitor_of(c);
    uint64_t number = c->number;
    free(c);
    (void)why;
    if (v == NULL)
        return;
    struct frame_plan *f = &v->frame[number - 1];
    f->is_in_flight = false;
    sim_trace(v->w, "visitor %u frame %llu: %s", v->index, (unsigned long long)number, sl_err_name(err));
    if (err == SL_OK) {
        f->state = SIM_ACKED;
        return;
    }
    if (err == SL_EGAP && res != NULL && res->last_number + 1 < number)
        for (uint64_t n = res->last_number + 1; n < number; n++)
            if (v->frame[n - 1].state == SIM_ACKED)
                sim_fail(v->w, "I1 frame %llu of visitor %u was acknowledged, the store has %llu",
                         (unsigned long long)n, v->index, (unsigned long long)res->last_number);
    v->send_at_ms = v->w->now_ms + 20 + sim_random(v->w, RESEND_MS);
}

static void visitor_send(struct visitor *v, unsigned i)
{
    struct frame_plan *f = &v->frame[i];
    const struct event ev = {.type = f->type,
                             .addr = sl_str_c(v->address),
                             .session = sl_str_c(v->session),
                             .id = sl_str_c(f->id),
                             .kind = f->type == EVENT_MESSAGE ? SL_STR("text") : SL_STR_NONE,
                             .text = f->type == EVENT_MESSAGE ? sl_str_c(f->text) : SL_STR_NONE,
                             .number = f->type == EVENT_RATING ? 4 : 0,
                             .channel = SL_STR("webchat"),
                             .lane = v->index % 2 == 0 ? SL_STR("in:{send:sms}")
                                                       : SL_STR_NONE, /* answers leave twice */
                             .at_ms = sl_loop_unix_ms(v->gateway->loop)};
    const struct bus_accept in = {.tag = v->tag,
                                  .dedupe = BUS_BY_NUMBER,
                                  .session = sl_str_c(v->session),
                                  .number = i + 1,
                                  .event = &ev};
    struct call *c = call_new(v->gateway, v->index, i + 1);
    if (bus_accept(v->gateway->bus, &in, on_accepted, c) != SL_OK) {
        free(c);
        v->send_at_ms = v->w->now_ms + 20 + sim_random(v->w, RESEND_MS);
        return;
    }
    f->is_in_flight = true;
    if (f->state == SIM_UNSENT)
        f->state = SIM_SENT;
}

static void visitor_send_due(struct visitor *v)
{
    struct world *w = v->w;
    unsigned open = 0;
    if (v->send_at_ms > w->now_ms)
        return;
    for (unsigned i = 0; i < v->frames && open < WINDOW; i++) {
        const struct frame_plan *f = &v->frame[i];
        if (f->not_before_ms > w->now_ms)
            break;
        if (f->state == SIM_ACKED) {
            if (!w->is_healed && !f->is_in_flight && sim_chance(w, 4))
                visitor_send(v, i); /* a repeat that nobody needs */
            continue;
        }
        open++;
        if (!f->is_in_flight)
            visitor_send(v, i);
        if (v->send_at_ms > w->now_ms)
            break;
    }
}

static void visitor_disconnect(struct visitor *v)
{
    if (v->gateway != NULL && v->gateway->pid == v->gateway_pid && v->gateway->is_alive &&
        v->gateway->subscriber != NULL) {
        struct key key = key_push_visitor(v->tag, sl_str_c(v->address));
        bus_unsubscribe(v->gateway->subscriber, key_str(&key));
    }
    v->gateway = NULL;
    v->is_reading = v->wants_read = false;
    for (unsigned i = 0; i < v->frames; i++)
        v->frame[i].is_in_flight = false;
    v->connect_at_ms = v->w->now_ms + sim_random(v->w, 600);
}

static void visitor_connect(struct visitor *v)
{
    struct process *gateway = pick_gateway(v->w);
    if (gateway == NULL) {
        v->connect_at_ms = v->w->now_ms + 100;
        return;
    }
    v->gateway = gateway;
    v->gateway_pid = gateway->pid;
    v->sweep_at_ms = v->w->now_ms + sim_random(v->w, SIM_SWEEP_MS);
    struct key key = key_push_visitor(v->tag, sl_str_c(v->address));
    bus_subscribe(gateway->subscriber, key_str(&key));
}

static void visitor_tick(struct visitor *v)
{
    struct world *w = v->w;
    visitor_send_due(v);
    if (v->wants_read)
        visitor_read(v);
    if (v->sweep_at_ms <= w->now_ms) {
        v->sweep_at_ms = w->now_ms + SIM_SWEEP_MS / 2 + sim_random(w, SIM_SWEEP_MS / 2);
        if (!sl_mutant("no-sweep"))
            visitor_read(v);
    }
    if (!w->is_healed && sim_chance(w, 3))
        visitor_disconnect(v);
}

/* ---- an agent's commands: numbered in (session, tag, target), one under way, repeated until its outcome is known ---- */

static uint64_t next_number(struct agent *a, const struct agent_command *c)
{
    char key[200];
    int n = snprintf(key, sizeof key, "%s %s %s", c->session, c->tag, c->target);
    uint64_t *number = sl_map_get(a->numbers, sl_str_n(key, (size_t)n));
    if (number == NULL) {
        number = sl_alloc(sizeof *number);
        (void)sl_map_set(a->numbers, sl_str_n(key, (size_t)n), number);
    }
    return ++*number;
}

static struct agent_command *command_new(struct agent *a, enum event_type type, const char *conv)
{
    struct agent_command *c = sl_alloc(sizeof *c);
    c->type = type;
    (void)snprintf(c->session, sizeof c->session, "%s", a->session);
    (void)snprintf(c->agent, sizeof c->agent, "%s", a->name);
    (void)snprintf(c->tag, sizeof c->tag, "%s", a->w->tag[SIM_DESK]);
    if (conv != NULL) {
        (void)snprintf(c->conv, sizeof c->conv, "%s", conv);
        (void)snprintf(c->target, sizeof c->target, "%s", conv);
        if (key_conversation_tag(c->tag, sl_str_c(conv)) != SL_OK)
            sim_fail(a->w, "I7 agent %s was given a conversation named %s", a->name, conv);
    }
    c->number = next_number(a, c);
    (void)snprintf(c->id, sizeof c->id, "%s-%u", a->session, ++a->said);
    if (a->last != NULL)
        a->last->next = c;
    else
        a->first = c;
    a->last = c;
    return c;
}

static void on_command_accepted(void *arg, sl_err err, const struct bus_accept_result *res,
                                const struct sl_fail *why)
{
    struct call *c = arg;
    struct agent *a = agent_of(c);
    free(c);
    (void)res, (void)why;
    if (a == NULL)
        return;
    a->is_sending = false;
    if (err == SL_EGAP)
        sim_fail(a->w, "I2 agent %s: a gap in front of her command", a->name);
    if (err == SL_OK)
        agent_drop_first(a);
}

static void agent_send(struct agent *a)
{
    const struct agent_command *c = a->first;
    if (c == NULL || a->is_sending || a->gateway == NULL)
        return;
    const struct event ev = {.type = c->type,
                             .conv = sl_str_c(c->conv),
                             .session = sl_str_c(c->session),
                             .id = sl_str_c(c->id),
                             .agent = sl_str_c(c->agent),
                             .control = c->control,
                             .ticket = c->ticket,
                             .capacity = c->capacity,
                             .kind = c->type == EVENT_AGENT_MESSAGE ? SL_STR("text") : SL_STR_NONE,
                             .text = sl_str_c(c->text),
                             .queue = sl_str_c(c->queue),
                             .at_ms = sl_loop_unix_ms(a->gateway->loop)};
    const struct bus_accept in = {.tag = c->tag,
                                  .dedupe = BUS_BY_NUMBER,
                                  .session = sl_str_c(c->session),
                                  .target = sl_str_c(c->target),
                                  .number = c->number,
                                  .event = &ev};
    struct call *call = call_new(a->gateway, a->index, c->number);
    a->is_sending = bus_accept(a->gateway->bus, &in, on_command_accepted, call) == SL_OK;
    if (!a->is_sending)
        free(call);
}

/* ---- an agent's conversations ---- */

static struct held *held_find(struct agent *a, struct sl_str conv)
{
    for (size_t i = 0; i < a->held_count; i++)
        if (sl_str_eq_c(conv, a->held[i].conv))
            return &a->held[i];
    return NULL;
}

static void held_drop(struct agent *a, struct held *h)
{
    size_t at = (size_t)(h - a->held);
    memmove(h, h + 1, (a->held_count - at - 1) * sizeof *h);
    a->held_count--;
}

/* What the state says about a conversation that she was offered. */
static void look_at(struct agent *a, struct held *h, const json_t *state)
{
    struct sl_str control = sl_json_get_str(state, "control");
    bool is_hers = sl_str_eq_c(sl_json_get_str(state, "agent"), a->name);
    h->is_offered = is_hers && sl_str_eq_c(control, "offered");
    h->is_mine = is_hers && sl_str_eq_c(control, "assigned");
    h->ticket = sl_json_get_int(state, "ticket", 0);
    h->control = sl_json_get_int(state, "epoch", 0);
}

static void on_conversation_read(void *arg, sl_err err, const struct bus_value *value,
                                 const struct sl_fail *why)
{
    struct call *c = arg;
    struct agent *a = agent_of(c);
    uint64_t hash = c->number;
    struct held *h = NULL;
    free(c);
    (void)why;
    for (size_t i = 0; a != NULL && i < a->held_count; i++)
        if (sl_str_hash(sl_str_c(a->held[i].conv), 0) == hash)
            h = &a->held[i];
    if (h == NULL)
        return;
    h->is_asking = false;
    json_t *root =
        err == SL_OK && bus_value_type(value) == BUS_STR ? sl_json_parse(bus_value_str(value), NULL) : NULL;
    struct sl_str addr = root != NULL ? sl_json_get_str(root, "addr") : SL_STR_NONE;
    if (addr.len > 0)
        look_at(a, h, root);
    json_decref(root);
}

static void look(struct agent *a, size_t which)
{
    struct held *h = &a->held[which];
    char tag[KEY_TAG_MAX_BYTES], name[KEY_MAX_BYTES + 1];
    if (key_conversation_tag(tag, sl_str_c(h->conv)) != SL_OK)
        return;
    struct key key = key_state("conv", tag, sl_str_c(h->conv));
    (void)snprintf(name, sizeof name, "%.*s", (int)key.len, key.ptr);
    struct call *c = call_new(a->gateway, a->index, sl_str_hash(sl_str_c(h->conv), 0));
    h->is_asking = ASK(a->gateway, c, on_conversation_read, "HGET", name, "s");
}

static void say_something(struct agent *a, struct held *h, int64_t control)
{
    struct world *w = a->w;
    enum event_type type = EVENT_AGENT_MESSAGE;
    if (h->said >= h->wanted)
        type = !w->is_healed && sim_chance(w, 200) ? EVENT_AGENT_TRANSFER : EVENT_AGENT_CLOSE;
    else if (!w->is_healed && sim_chance(w, 150))
        type = EVENT_AGENT_NOTE;
    struct agent_command *c = command_new(a, type, h->conv);
    c->control = control;
    if (type == EVENT_AGENT_MESSAGE || type == EVENT_AGENT_NOTE)
        (void)snprintf(c->text, sizeof c->text, "agent says %u", a->said);
    h->said++;
}

static void attend(struct agent *a, size_t which)
{
    struct world *w = a->w;
    struct held *h = &a->held[which];
    if (!h->is_asking && sim_chance(w, 600))
        look(a, which);
    if (a->first != NULL) /* one thing at a time */
        return;
    if (h->is_offered && sim_chance(w, w->is_healed ? 800 : 400)) {
        struct agent_command *c = command_new(a, EVENT_AGENT_ACCEPT, h->conv);
        c->ticket = h->ticket;
        h->is_offered = false;
    } else if (h->is_mine && sim_chance(w, w->is_healed ? 800 : 350)) {
        say_something(a, h, h->control);
    } else if (!w->is_healed && h->control > 1 && sim_chance(w, 15)) {
        say_something(a, h, h->control - 1); /* under an old control epoch */
    }
}

static void take_offer(struct agent *a, struct sl_str conv)
{
    struct held *h = held_find(a, conv);
    if (h == NULL && conv.len > 0 && conv.len < sizeof h->conv) {
        if (a->held_count == sizeof a->held / sizeof a->held[0])
            held_drop(a, &a->held[0]);
        h = &a->held[a->held_count++];
        *h = (struct held){.control = 0};
        memcpy(h->conv, conv.ptr, conv.len);
    }
    if (h != NULL) {
        h->said = 0;
        h->wanted = 1 + (unsigned)sim_random(a->w, 3);
    }
}

static void on_own_log(void *arg, sl_err err, const struct bus_value *value, const struct sl_fail *why)
{
    struct call *c = arg;
    struct agent *a = agent_of(c);
    free(c);
    (void)why;
    if (a == NULL)
        return;
    a->is_reading = false;
    for (size_t i = 0; err == SL_OK && i < bus_value_count(value); i++) {
        json_t *root = sl_json_parse(bus_value_str(bus_value_at(value, i)), NULL);
        take_offer(a, sl_json_get_str(root, "c"));
        json_decref(root);
        a->log_position++;
    }
}

static void read_own_log(struct agent *a)
{
    struct key log = key_log(a->w->tag[SIM_DESK], sl_str_c(a->name));
    char name[KEY_MAX_BYTES + 1], from[24];
    if (a->is_reading)
        return;
    (void)snprintf(name, sizeof name, "%.*s", (int)log.len, log.ptr);
    (void)snprintf(from, sizeof from, "%llu", (unsigned long long)a->log_position);
    a->is_reading =
        ASK(a->gateway, call_new(a->gateway, a->index, 0), on_own_log, "LRANGE", name, from, "-1");
}

static void agent_disconnect(struct agent *a)
{
    a->gateway = NULL;
    a->is_sending = a->is_reading = a->is_online = false;
    for (size_t i = 0; i < a->held_count; i++)
        a->held[i].is_asking = false;
    a->connect_at_ms = a->w->now_ms + sim_random(a->w, 4000);
}

static void agent_connect(struct agent *a)
{
    struct process *gateway = pick_gateway(a->w);
    if (gateway == NULL) {
        a->connect_at_ms = a->w->now_ms + 200;
        return;
    }
    a->gateway = gateway;
    a->gateway_pid = gateway->pid;
    a->is_online = true;
    (void)snprintf(a->session, sizeof a->session, "as%u-%u", a->index, ++a->sessions);
    struct agent_command *c = command_new(a, EVENT_AGENT_ONLINE, NULL);
    c->capacity = SIM_AGENT_CAPACITY;
    (void)snprintf(c->text, sizeof c->text, "default");
    if (a->first->type == EVENT_AGENT_OFFLINE &&
        sim_chance(a->w, 500)) { /* the old session's notice comes late */
        struct agent_command *late = a->first;
        a->first = late->next;
        late->next = NULL;
        a->last->next = late;
        a->last = late;
    }
    a->alive_at_ms = a->w->now_ms + AGENT_ALIVE_MS;
}

static void agent_think(struct agent *a)
{
    struct world *w = a->w;
    a->think_at_ms = w->now_ms + 50 + sim_random(w, w->is_healed ? 150 : 500);
    read_own_log(a);
    for (size_t i = 0; i < a->held_count; i++)
        attend(a, i);
    if (w->is_healed || !sim_chance(w, 25))
        return;
    if (sim_chance(w, 500))
        (void)command_new(a, EVENT_AGENT_OFFLINE, NULL); /* with good manners, or her session falls silent */
    agent_disconnect(a);
}

static void agent_tick(struct agent *a)
{
    struct world *w = a->w;
    if (a->alive_at_ms <= w->now_ms) {
        struct agent_command *alive = command_new(a, EVENT_AGENT_ALIVE, NULL);
        alive->capacity = SIM_AGENT_CAPACITY;
        (void)snprintf(alive->text, sizeof alive->text, "default");
        a->alive_at_ms = w->now_ms + AGENT_ALIVE_MS;
    }
    if (a->think_at_ms <= w->now_ms)
        agent_think(a);
    agent_send(a);
}

/* ---- one beat of a gateway ---- */

static bool is_gateway_gone(const struct process *gateway, unsigned pid)
{
    return gateway != NULL && (gateway->pid != pid || !gateway->is_alive);
}

static void notice_dead_gateways(struct world *w)
{
    for (unsigned i = 0; i < w->visitors; i++)
        if (is_gateway_gone(w->visitor[i].gateway, w->visitor[i].gateway_pid))
            visitor_disconnect(&w->visitor[i]);
    for (unsigned i = 0; i < SIM_AGENTS; i++)
        if (is_gateway_gone(w->agent[i].gateway, w->agent[i].gateway_pid))
            agent_disconnect(&w->agent[i]);
}

void people_tick(struct process *gateway)
{
    struct world *w = gateway->w;
    notice_dead_gateways(w);
    for (unsigned i = 0; i < w->visitors; i++) {
        struct visitor *v = &w->visitor[i];
        if (v->gateway == NULL && v->connect_at_ms <= w->now_ms)
            visitor_connect(v);
        else if (v->gateway == gateway)
            visitor_tick(v);
    }
    for (unsigned i = 0; i < SIM_AGENTS; i++) {
        struct agent *a = &w->agent[i];
        if (a->gateway == NULL && a->connect_at_ms <= w->now_ms)
            agent_connect(a);
        else if (a->gateway == gateway)
            agent_tick(a);
    }
}
