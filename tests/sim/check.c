/* tests/sim/check.c - what must be true: at every instant, when all is drained, and of the whole run (design.md section 5).
 *
 * Evidence  what the people saw and had acknowledged, what the store holds, and the recorded logs. The recorded command logs are
 *           run through step() once more (I12); beside each event the checker keeps its own small account of turns, holders and
 *           the desk's line, so that a defect of step() itself does not hide behind an equal replay.
 */
#include "base/json.h"
#include "proto/push.h"
#include "gateway/lane.h"
#include "router/conversation.h"
#include "router/desk.h"

#include "sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME_BYTES (KEY_MAX_BYTES + 1)

static void name_of(char out[NAME_BYTES], struct key key)
{
    (void)snprintf(out, NAME_BYTES, "%.*s", (int)key.len, key.ptr);
}

static const char *text_of(char out[NAME_BYTES], struct sl_str s)
{
    (void)snprintf(out, NAME_BYTES, "%.*s", (int)s.len, s.ptr);
    return out;
}

/* ---- states as they are stored ---- */

/* Every key that begins with prefix, as owned strings; free_names gives them back. */
static char **names_of(struct world *w, const char *prefix, size_t *count)
{
    char pattern[NAME_BYTES];
    (void)snprintf(pattern, sizeof pattern, "%s*", prefix);
    const struct bus_value *v = SIM_PEEK(w, "KEYS", pattern);
    *count = bus_value_count(v);
    char **names = sl_alloc((*count + 1) * sizeof *names);
    for (size_t i = 0; i < *count; i++)
        names[i] = sl_str_dup(bus_value_str(bus_value_at(v, i)));
    return names;
}

static void free_names(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

static struct state *state_load(struct world *w, const char *name, const struct state_kind *kind)
{
    const struct bus_value *v = SIM_PEEK(w, "HMGET", name, "s", "n", "v");
    struct state *s = sl_alloc(kind->size);
    s->kind = kind;
    s->n = (uint64_t)bus_value_int(bus_value_at(v, 1));
    s->v = (uint64_t)bus_value_int(bus_value_at(v, 2));
    s->id = sl_strdup(strchr(name, '}') + 2);
    if (kind->decode(s, bus_value_str(bus_value_at(v, 0))) != SL_OK)
        sim_fail(w, "the state %s cannot be read", name);
    return s;
}

static void state_unload(struct state *s)
{
    if (s->kind->fini != NULL)
        s->kind->fini(s);
    free(s->id);
    free(s);
}

/* fn for every stored state of a kind. */
static void each_state(struct world *w, const struct state_kind *kind,
                       void (*fn)(struct world *w, struct state *s, void *arg), void *arg)
{
    char prefix[40];
    size_t count = 0;
    (void)snprintf(prefix, sizeof prefix, "%s:{", kind->prefix);
    char **names = names_of(w, prefix, &count);
    for (size_t i = 0; i < count; i++) {
        struct state *s = state_load(w, names[i], kind);
        fn(w, s, arg);
        state_unload(s);
    }
    free_names(names, count);
}

/* ---- at every instant ---- */

struct loads {
    unsigned of[SIM_AGENTS];
};

static int agent_index(const struct world *w, const char *name)
{
    for (int i = 0; i < SIM_AGENTS; i++)
        if (name != NULL && strcmp(w->agent[i].name, name) == 0)
            return i;
    return -1;
}

/* I7: whoever holds a conversation has a deadline, and it is the armed one. */
static void check_deadline(struct world *w, const struct conversation *c)
{
    char member[NAME_BYTES], timers[NAME_BYTES], tag[KEY_TAG_MAX_BYTES];
    if (key_conversation_tag(tag, sl_str_c(c->s.id)) != SL_OK) {
        sim_fail(w, "I7 a conversation is named %s", c->s.id);
        return;
    }
    name_of(timers, key_timers(tag));
    (void)snprintf(member, sizeof member, "%.100s|hold|%" PRId64, c->s.id, c->hold_gen);
    if (c->hold_gen == 0 || bus_value_type(SIM_PEEK(w, "ZSCORE", timers, member)) == BUS_NIL)
        sim_fail(w, "I7 conversation %s (%s) has no deadline: %s is not armed", c->s.id,
                 conversation_control_name(c->control), member);
}

static void check_conversation_now(struct world *w, struct state *s, void *arg)
{
    const struct conversation *c = (const struct conversation *)s;
    struct loads *loads = arg;
    check_deadline(w, c);
    if (c->control != CONVERSATION_OFFERED && c->control != CONVERSATION_ASSIGNED)
        return;
    int i = agent_index(w, c->agent);
    if (i < 0)
        sim_fail(w, "I7 conversation %s is held by nobody", c->s.id);
    else if (++loads->of[i] > SIM_AGENT_CAPACITY)
        sim_fail(w, "I8 agent %s holds %u conversations, she can hold %d", w->agent[i].name, loads->of[i],
                 SIM_AGENT_CAPACITY);
}

void check_often(struct world *w)
{
    struct loads loads = {{0}};
    each_state(w, &conversation_kind, check_conversation_now, &loads);
}

/* I5, right after a commit: what was written last was written under the lease epoch that is in force. */
int64_t check_last_batch(struct world *w, struct sl_str meta, char last[48])
{
    char out[NAME_BYTES], tag[NAME_BYTES], name[NAME_BYTES];
    (void)text_of(tag, sl_str_n(meta.ptr + 6, meta.len - 7)); /* meta:{tag} */
    name_of(out, key_out(tag));
    const struct bus_value *entry = bus_value_at(SIM_PEEK(w, "XREVRANGE", out, "+", "-", "COUNT", "1"), 0);
    (void)snprintf(last, 48, "%.40s", text_of(name, bus_value_str(bus_value_at(entry, 0))));
    struct sl_str batch = bus_value_str(bus_value_at(bus_value_at(entry, 1), 1));
    return batch.len > 9
               ? strtoll(text_of(name, sl_str_n(batch.ptr + 9, batch.len < 40 ? batch.len - 9 : 31)), NULL,
                         10)
               : 0;
}

/* ---- drained: nothing is between two places ---- */

static bool is_log_done(struct world *w, unsigned k)
{
    char meta[NAME_BYTES];
    struct sl_str offset = SL_STR("0-0");
    name_of(meta, key_meta(w->tag[k]));
    const struct bus_value *v = SIM_PEEK(w, "HGET", meta, "offset");
    if (bus_value_type(v) == BUS_STR)
        offset = bus_value_str(v);
    return sl_str_eq_c(offset, w->in[k].last[0] != '\0' ? w->in[k].last : "0-0");
}

static bool is_relayed(struct world *w, unsigned k)
{
    char numbers[NAME_BYTES], from[NAME_BYTES], text[NAME_BYTES];
    struct {
        char destination[NAME_BYTES];
        int64_t number;
    } wanted[16];
    size_t count = 0;
    name_of(numbers, key_numbers(w->tag[k]));
    const struct bus_value *v = SIM_PEEK(w, "HGETALL", numbers);
    for (size_t i = 0; i + 1 < bus_value_count(v) && count < 16; i += 2, count++) {
        (void)text_of(wanted[count].destination, bus_value_str(bus_value_at(v, i)));
        wanted[count].number = bus_value_int(bus_value_at(v, i + 1));
    }
    for (size_t i = 0; i < count; i++) {
        name_of(from, key_from(sl_str_c(wanted[i].destination)));
        struct sl_str mark = bus_value_str(SIM_PEEK(w, "HGET", from, w->tag[k]));
        if (strtoll(text_of(text, mark), NULL, 10) != wanted[i].number)
            return false;
    }
    return true;
}

static void count_busy(struct world *w, struct state *s, void *arg)
{
    const struct conversation *c = (const struct conversation *)s;
    bool is_asking =
        c->control == CONVERSATION_BOT && (!c->is_answered || c->pending.len > 0 || c->merge_gen != 0);
    (void)w;
    if (is_asking || c->control == CONVERSATION_QUEUED || c->control == CONVERSATION_OFFERED)
        ++*(size_t *)arg;
}

static void count_unsent(struct world *w, struct state *s, void *arg)
{
    (void)w;
    *(size_t *)arg += (size_t)((const struct gw_lane *)s)->queued;
}

bool check_is_drained(struct world *w, const char **why)
{
    size_t busy = 0;
    *why = "the people are not done";
    if (!people_are_done(w))
        return false;
    for (unsigned k = 0; k < SIM_TAGS; k++) {
        *why = "a command log is not at its end";
        if (!is_log_done(w, k))
            return false;
        *why = "a fact is not relayed";
        if (!is_relayed(w, k))
            return false;
    }
    *why = "a message to a customer has not ended";
    each_state(w, &gw_lane_kind, count_unsent, &busy);
    if (busy > 0)
        return false;
    *why = "a conversation waits for a bot or an agent";
    each_state(w, &conversation_kind, count_busy, &busy);
    return busy == 0;
}

/* ---- with nothing under way every message has ended, as the provider would say ---- */

static void check_send(struct world *w, struct state *s, void *arg)
{
    const struct gw_send *x = (const struct gw_send *)s;
    (void)arg;
    if (x->state < SEND_SENT)
        sim_fail(w, "message %s has not ended: it is %s", s->id, gw_send_state_name(x->state));
    else if (x->state <= SEND_READ && !lanes_has_all(w, s->id))
        sim_fail(w, "message %s is shown as %s, and the provider never had all of it", s->id,
                 gw_send_state_name(x->state));
    else if (x->state == SEND_FAILED && !x->is_lost && lanes_has_all(w, s->id))
        sim_fail(w, "message %s is shown as failed, and the provider has all of it", s->id);
}

static void check_lane(struct world *w, struct state *s, void *arg)
{
    const struct gw_lane *l = (const struct gw_lane *)s;
    (void)arg;
    if (l->flying_count != 0 || l->replies + l->bulk != 0)
        sim_fail(w, "the lane holds %zu in flight and %" PRId64 " ready, and nothing waits", l->flying_count,
                 l->replies + l->bulk);
}

/* ---- I7 and I8 with nothing under way: conversations and desk agree ---- */

struct place {
    char conv[100];
    int64_t ticket;
    int agent; /* -1: in the queue */
    bool is_met;
};
struct places {
    struct place at[64];
    size_t count;
};

static void add_place(struct world *w, struct places *p, const char *conv, int64_t ticket, int agent)
{
    if (p->count == sizeof p->at / sizeof p->at[0]) {
        sim_fail(w, "I8 the desk holds more than there can be");
        return;
    }
    struct place *at = &p->at[p->count++];
    *at = (struct place){.ticket = ticket, .agent = agent};
    (void)snprintf(at->conv, sizeof at->conv, "%s", conv);
}

static void note_queue(struct world *w, struct state *s, void *arg)
{
    const struct desk_queue *q = (const struct desk_queue *)s;
    for (size_t i = 0; i < q->count; i++)
        add_place(w, arg, q->at[i].conv, q->at[i].ticket, -1);
}

static void note_agent(struct world *w, struct state *s, void *arg)
{
    const struct desk_agent *a = (const struct desk_agent *)s;
    if ((int64_t)a->count > a->capacity)
        sim_fail(w, "I8 agent %s is counted with %zu, her capacity is %" PRId64, s->id, a->count,
                 a->capacity);
    for (size_t i = 0; i < a->count; i++)
        add_place(w, arg, a->held[i].conv, a->held[i].ticket, agent_index(w, s->id));
}

static void meet_place(struct world *w, struct state *s, void *arg)
{
    const struct conversation *c = (const struct conversation *)s;
    struct places *p = arg;
    bool in_queue = c->control == CONVERSATION_QUEUED,
         with_agent = c->control == CONVERSATION_OFFERED || c->control == CONVERSATION_ASSIGNED;
    if (!in_queue && !with_agent)
        return;
    for (size_t i = 0; i < p->count; i++) {
        struct place *at = &p->at[i];
        if (strcmp(at->conv, c->s.id) != 0 || at->ticket != c->ticket ||
            at->agent != (in_queue ? -1 : agent_index(w, c->agent)))
            continue;
        at->is_met = true;
        return;
    }
    sim_fail(w, "I7 conversation %s is %s under ticket %" PRId64 ", the desk does not know it so", c->s.id,
             conversation_control_name(c->control), c->ticket);
}

void check_places(struct world *w)
{
    each_state(w, &gw_send_kind, check_send, NULL);
    each_state(w, &gw_lane_kind, check_lane, NULL);
    struct places p = {.count = 0};
    each_state(w, &desk_queue_kind, note_queue, &p);
    each_state(w, &desk_agent_kind, note_agent, &p);
    each_state(w, &conversation_kind, meet_place, &p);
    for (size_t i = 0; i < p.count; i++)
        if (!p.at[i].is_met)
            sim_fail(w, "I8 the desk still counts conversation %s, ticket %" PRId64 ", %s", p.at[i].conv,
                     p.at[i].ticket, p.at[i].agent < 0 ? "in a queue" : "with an agent");
}

/* ---- I3, I11: what each socket shows is the visible history, to its end ---- */

/* The conversation that the visitor's address has now; empty when there is none. */
static void current_conversation(struct world *w, const struct visitor *v, char out[80])
{
    char name[NAME_BYTES];
    name_of(name, key_state("addr", v->tag, sl_str_c(v->address)));
    const struct bus_value *value = SIM_PEEK(w, "HGET", name, "s");
    json_t *root = bus_value_type(value) == BUS_STR ? sl_json_parse(bus_value_str(value), NULL) : NULL;
    struct sl_str conv = root != NULL ? sl_json_get_str(root, "c") : SL_STR_NONE;
    (void)snprintf(out, 80, "%.*s", (int)conv.len, conv.ptr);
    json_decref(root);
}

bool check_is_behind(struct world *w, const struct visitor *v)
{
    char name[NAME_BYTES], conv[80];
    current_conversation(w, v, conv);
    if (conv[0] == '\0')
        return false;
    name_of(name, key_state("conv", v->tag, sl_str_c(conv)));
    uint64_t end = (uint64_t)bus_value_int(SIM_PEEK(w, "HGET", name, "v"));
    return strcmp(conv, v->conv) != 0 ? end > 0 : v->cursor < end;
}

void check_shown(struct world *w)
{
    char name[NAME_BYTES];
    for (unsigned i = 0; i < w->visitors; i++) {
        const struct visitor *v = &w->visitor[i];
        uint64_t at = 0;
        name_of(name, key_log(v->tag, sl_str_c(v->conv)));
        if (bus_value_int(SIM_PEEK(w, "EXISTS", name)) == 0)
            continue; /* it has left the store */
        const struct bus_value *log = SIM_PEEK(w, "LRANGE", name, "0", "-1");
        for (size_t j = 0; j < bus_value_count(log) && at < v->cursor; j++) {
            uint64_t n = 0, number = 0;
            struct sl_str entry = bus_value_str(bus_value_at(log, j));
            if (push_entry_numbers(entry, &n, &number) != SL_OK || number == 0)
                continue;
            if (number != at + 1 || !sl_str_eq(entry, sl_buf_view(&v->shown[at])))
                sim_fail(w, "I3 visitor %u shows something else at %" PRIu64 " than her history", i, at + 1);
            at++;
        }
        if (at < v->cursor)
            sim_fail(w, "I3 visitor %u shows %" PRIu64 " entries, her history has %" PRIu64, i, v->cursor,
                     at);
    }
}

/* ---- the replay, and the checker's own account beside it ---- */

struct talk { /* one conversation, by the checker's account */
    int64_t turn, turn_control;
    bool is_answered;
    char holder[8];   /* agent who was offered it */
    int64_t hold_gen; /* of the armed deadline */
    struct memory_id source;
    uint64_t entries;
    unsigned visitor_seen; /* frames of its visitor, by number */
    bool is_deleted;       /* it has left the store, its history with it */
    int64_t closed_ms;     /* when last */
};
struct wait { /* one in the desk's line */
    struct wait *next;
    char conv[100];
    int64_t ticket, since_ms, seq;
};
struct slot { /* what the desk gave away */
    struct slot *next;
    char conv[100];
    int64_t ticket, since_ms, seq;
};
struct fact {
    struct fact *next;
    uint64_t number;
    struct sl_buf json;
};
struct expected { /* facts of one partition for one destination */
    struct fact *first, *last;
    uint64_t count;
};
struct replay {
    struct world *w;
    unsigned k;
    const struct part_ops *ops;
    struct state_cache *cache;
    struct effects *fx;
    struct sl_map *talks; /* conversation -> struct talk */
    struct slot *slots;
    struct sl_map *expected[SIM_TAGS]; /* destination -> struct expected */
    struct sl_map *histories;          /* log key -> struct sl_buf of all entries, each with a newline */
    struct wait *line;
    int64_t seq, epoch, now_ms;
};

static void *get_or_make(struct sl_map *m, struct sl_str key, size_t size)
{
    void *v = sl_map_get(m, key);
    if (v == NULL) {
        v = sl_alloc(size);
        (void)sl_map_set(m, key, v);
    }
    return v;
}

static struct memory_id id_of(struct sl_str s)
{
    struct memory_id id = {0, 0};
    (void)memory_id_parse(s, &id);
    return id;
}

static void bad_entry(struct replay *r, const char *what, const struct event *ev, struct sl_str conv)
{
    sim_fail(r->w, "%s: conversation %.*s, %s of entry %.*s in partition %s", what, (int)conv.len, conv.ptr,
             event_type_name(ev->type), (int)ev->entry.len, ev->entry.ptr, r->w->tag[r->k]);
}

/* I4 and I6 for one entry of a history, with the event that caused it. */
static void account_entry(struct replay *r, const struct event *ev, struct sl_str conv, struct sl_str entry)
{
    struct talk *t = get_or_make(r->talks, conv, sizeof *t);
    json_t *root = sl_json_parse(entry, NULL);
    const json_t *m = json_object_get(root, "m");
    struct sl_str by = sl_json_get_str(m, "by");
    int64_t control = sl_json_get_int(root, "ce", 0);
    struct memory_id source = id_of(sl_json_get_str(root, "src"));
    if ((uint64_t)sl_json_get_int(root, "n", 0) != ++t->entries)
        bad_entry(r, "I3 numbers of the history have a gap", ev, conv);
    if (memory_id_compare(source, t->source) < 0)
        bad_entry(r, "I3 history order is not the order of the command log", ev, conv);
    t->source = source;
    if (sl_str_eq_c(by, "bot")) {
        if (ev->control != control || ev->turn != t->turn || t->turn_control != control)
            bad_entry(r, "I6 an answer made under an old control epoch or turn", ev, conv);
        else if (t->is_answered)
            bad_entry(r, "I4 a second answer to one turn", ev, conv);
        t->is_answered = true;
    } else if (sl_str_eq_c(by, "agent")) {
        if (!sl_str_eq_c(ev->agent, t->holder) || (ev->control != 0 && ev->control != control))
            bad_entry(r, "I6 words of an agent who does not hold the conversation", ev, conv);
    } else if (sl_str_eq_c(by, "visitor")) {
        unsigned visitor = 0, number = 0;
        char id[NAME_BYTES];
        if (sscanf(text_of(id, sl_json_get_str(m, "id")), "m%u-%u", &visitor, &number) == 2) {
            if (number <= t->visitor_seen)
                bad_entry(r, "I3 a sender's messages stand in another order", ev, conv);
            t->visitor_seen = number;
        }
    }
    json_decref(root);
}

static void account_record(struct replay *r, const struct event *fact, const struct event *ev)
{
    struct talk *t = fact->conv.len > 0 ? get_or_make(r->talks, fact->conv, sizeof *t) : NULL;
    (void)ev;
    if (t == NULL)
        return;
    if (fact->type == EVENT_TURN) {
        t->turn = fact->turn;
        t->turn_control = fact->control;
        t->is_answered = false;
    } else if (fact->type == EVENT_QUEUED || fact->type == EVENT_CLOSED) {
        t->holder[0] = '\0';
        if (fact->type == EVENT_CLOSED)
            t->closed_ms = r->now_ms;
    }
}

/* ---- the desk's line (I8) ---- */

static bool is_ahead(const struct wait *a, const struct wait *b)
{
    return a->since_ms != b->since_ms ? a->since_ms < b->since_ms : a->seq < b->seq;
}

static void line_remove(struct replay *r, struct sl_str conv, int64_t ticket)
{
    for (struct wait **at = &r->line; *at != NULL; at = &(*at)->next) {
        struct wait *x = *at;
        if (!sl_str_eq_c(conv, x->conv) || (ticket != 0 && x->ticket != ticket))
            continue;
        *at = x->next;
        free(x);
        return;
    }
}

static struct wait *line_find(struct replay *r, struct sl_str conv)
{
    struct wait *x = r->line;
    while (x != NULL && !sl_str_eq_c(conv, x->conv))
        x = x->next;
    return x;
}

/* Of several slots that a conversation holds, the one with the highest ticket. */
static const struct slot *slot_find(const struct replay *r, struct sl_str conv)
{
    const struct slot *found = NULL;
    for (const struct slot *s = r->slots; s != NULL; s = s->next)
        if (sl_str_eq_c(conv, s->conv) && (found == NULL || s->ticket > found->ticket))
            found = s;
    return found;
}

static void slot_remove(struct replay *r, struct sl_str conv, int64_t ticket)
{
    for (struct slot **at = &r->slots; *at != NULL; at = &(*at)->next) {
        struct slot *s = *at;
        if (!sl_str_eq_c(conv, s->conv) || s->ticket != ticket)
            continue;
        *at = s->next;
        free(s);
        return;
    }
}

/* A need joins the line: at the place it had when it says that it waited, else by the time it waited. */
static void line_join(struct replay *r, const struct event *ev)
{
    const struct slot *held = slot_find(r, ev->conv);
    const struct wait *old = line_find(r, ev->conv);
    if ((held != NULL && held->ticket >= ev->ticket) || (old != NULL && old->ticket >= ev->ticket))
        return;
    line_remove(r, ev->conv, 0);
    struct wait *x = sl_alloc(sizeof *x);
    (void)snprintf(x->conv, sizeof x->conv, "%.*s", (int)ev->conv.len, ev->conv.ptr);
    x->ticket = ev->ticket;
    bool keeps = held != NULL && ev->wait_ms > 0;
    x->since_ms = keeps ? held->since_ms : r->now_ms - (ev->wait_ms > 0 ? ev->wait_ms : 0);
    x->seq = keeps ? held->seq : ++r->seq;
    x->next = r->line;
    r->line = x;
}

static void line_leave(struct replay *r, const struct event *fact)
{
    struct wait *x = line_find(r, fact->conv);
    if (x == NULL || x->ticket != fact->ticket)
        return; /* a repeat of what was given before */
    for (const struct wait *y = r->line; y != NULL; y = y->next)
        if (y != x && is_ahead(y, x))
            sim_fail(r->w, "I8 conversation %s was passed in the line by %s (event %.*s of the desk)",
                     y->conv, x->conv, (int)fact->entry.len, fact->entry.ptr);
    struct slot *s = sl_alloc(sizeof *s);
    *s = (struct slot){.next = r->slots, .ticket = x->ticket, .since_ms = x->since_ms, .seq = x->seq};
    memcpy(s->conv, x->conv, sizeof s->conv);
    r->slots = s;
    line_remove(r, fact->conv, fact->ticket);
}

static void account_desk_event(struct replay *r, const struct event *ev)
{
    if (ev->type == EVENT_NEED)
        line_join(r, ev);
    else if (ev->type == EVENT_CANCEL)
        line_remove(r, ev->conv, ev->ticket);
    else if (ev->type == EVENT_RELEASED || ev->type == EVENT_REFUSED)
        slot_remove(r, ev->conv, ev->ticket);
}

/* ---- stepping an event and looking at what it caused ---- */

struct before {
    size_t histories, facts, timers, states, deleted;
};

static struct before count_effects(const struct effects *fx)
{
    const struct fx_history *h;
    const struct fx_fact_item *f;
    const struct fx_timer *t;
    struct state *const *s;
    struct before b = {effects_histories(fx, &h), effects_facts(fx, &f), effects_timers(fx, &t),
                       effects_states(fx, &s), 0};
    for (size_t i = 0; i < b.states; i++)
        b.deleted += s[i]->is_deleted;
    return b;
}

static void expect_fact(struct replay *r, const struct fx_fact_item *item)
{
    struct expected *e = get_or_make(r->expected[r->k], item->destination, sizeof *e);
    struct fact *f = sl_alloc(sizeof *f);
    struct sl_json j;
    f->number = item->number;
    sl_buf_init(&f->json, 0);
    sl_json_begin(&j, &f->json);
    event_to_json(&item->event, &j, NULL);
    if (e->last != NULL)
        e->last->next = f;
    else
        e->first = f;
    e->last = f;
    e->count++;
}

/* A deadline that was replaced or cleared changes nothing, even when its event stands in the log already (I7). */
static bool is_stale_deadline(struct replay *r, const struct event *ev)
{
    if (ev->type != EVENT_TIMER || !sl_str_eq_c(ev->name, "hold") || r->k == SIM_DESK)
        return false;
    const struct talk *t = get_or_make(r->talks, ev->conv, sizeof *t);
    return t->hold_gen != ev->gen;
}

static void account_timers(struct replay *r, size_t from)
{
    const struct fx_timer *timers;
    size_t count = effects_timers(r->fx, &timers);
    for (size_t i = from; i < count; i++) {
        struct sl_str object, name;
        int64_t gen = 0;
        if (effects_timer_parse(timers[i].member, &object, &name, &gen) != SL_OK ||
            !sl_str_eq_c(name, "hold"))
            continue;
        struct talk *t = get_or_make(r->talks, object, sizeof *t);
        if (timers[i].is_set)
            t->hold_gen = gen;
        else if (t->hold_gen == gen)
            t->hold_gen = 0;
    }
}

/* All of the batch: an earlier event of it may have changed what this one deletes. */
static void account_deleted(struct replay *r)
{
    struct state *const *states;
    size_t count = effects_states(r->fx, &states);
    const int64_t retain_ms = strtoll(strstr(r->w->rules, "\"retain_ms\":") + 12, NULL, 10);
    for (size_t i = 0; i < count; i++) {
        if (!states[i]->is_deleted || states[i]->kind != &conversation_kind)
            continue;
        struct talk *t = get_or_make(r->talks, sl_str_c(states[i]->id), sizeof *t);
        if (!t->is_deleted && r->now_ms < t->closed_ms + retain_ms)
            sim_fail(r->w, "I7 conversation %s left the store before its time", states[i]->id);
        t->is_deleted = true;
    }
}

static void account_facts(struct replay *r, const struct event *ev, size_t from)
{
    const struct fx_fact_item *facts;
    size_t count = effects_facts(r->fx, &facts);
    for (size_t i = from; i < count; i++) {
        struct event fact = facts[i].event;
        fact.entry = ev->entry;
        if (facts[i].destination.len == 0)
            account_record(r, &fact, ev);
        else
            expect_fact(r, &facts[i]);
        if (r->k == SIM_DESK && fact.type == EVENT_ASSIGN)
            line_leave(r, &fact);
    }
}

static void keep_history(struct replay *r, const struct fx_history *h)
{
    char name[NAME_BYTES];
    name_of(name, key_log(r->w->tag[r->k], h->object));
    struct sl_buf *b = get_or_make(r->histories, sl_str_c(name), sizeof *b);
    sl_buf_str(b, h->entry);
    sl_buf_char(b, '\n');
}

static void trace_event(struct replay *r, const struct event *ev, struct before was)
{
    const struct fx_fact_item *facts;
    size_t count = effects_facts(r->fx, &facts);
    struct sl_buf text;
    struct sl_json j;
    if (!r->w->is_traced)
        return;
    sl_buf_init(&text, 0);
    sl_json_begin(&j, &text);
    event_to_json(ev, &j, NULL);
    sim_trace(r->w, "replay %s %.*s now %" PRId64 " %.*s", r->w->tag[r->k], (int)ev->entry.len, ev->entry.ptr,
              r->now_ms, (int)text.len, text.ptr);
    for (size_t i = was.facts; i < count; i++)
        sim_trace(r->w, "    -> %.*s", (int)facts[i].json.len, facts[i].json.ptr);
    sl_buf_fini(&text);
}

/* Facts and entries of one event come in their own order; a turn is opened by a customer's words and answered by an
 * event of its own, so entries first is right for both accounts. */
static void account(struct replay *r, const struct event *ev, bool is_buried, bool was_stale,
                    struct before was)
{
    const struct fx_history *h;
    struct before is = count_effects(r->fx);
    if (was_stale && !is_buried &&
        (is.histories != was.histories || is.facts != was.facts || is.deleted != was.deleted))
        bad_entry(r, "I7 a deadline acted that was no longer armed", ev, ev->conv);
    if (ev->type == EVENT_ASSIGN && is.histories > was.histories) {
        struct talk *t = get_or_make(r->talks, ev->conv, sizeof *t);
        (void)snprintf(t->holder, sizeof t->holder, "%.*s", (int)ev->agent.len, ev->agent.ptr);
    }
    (void)effects_histories(r->fx, &h);
    for (size_t i = was.histories; i < is.histories; i++) {
        keep_history(r, &h[i]);
        if (r->k != SIM_DESK) /* a lane has no history */
            account_entry(r, ev, h[i].object, h[i].entry);
    }
    if (r->k == SIM_DESK && !is_buried)
        account_desk_event(r, ev);
    account_facts(r, ev, was.facts);
    account_timers(r, was.timers);
    account_deleted(r);
}

static void replay_event(struct replay *r, const struct recorded *in, const json_t *batch)
{
    struct event ev = in->event;
    const json_t *dead = json_object_get(batch, "dead");
    bool was_stale = is_stale_deadline(r, &ev);
    struct before was = count_effects(r->fx);
    enum fx_outcome outcome;
    if (!in->is_event)
        ev = (struct event){.type = EVENT_NONE, .entry = in->entry.id};
    if (json_array_size(dead) > 0)
        outcome = effects_bury(r->fx, sl_json_get_bool(batch, "bare", false) ? NULL : r->ops, &ev,
                               sl_json_get_str(batch, "why"), r->now_ms);
    else
        outcome = effects_run(r->fx, r->ops, &ev, r->now_ms);
    trace_event(r, &ev, was);
    if (outcome != FX_DONE)
        bad_entry(r, "I12 the event cannot be replayed", &ev, ev.conv);
    account(r, &ev, json_array_size(dead) > 0, was_stale, was);
}

static void compare_facts(struct replay *r, const struct recorded *out)
{
    const struct sl_str *records;
    size_t count = effects_records(r->fx, &records), stored = out->entry.count / 2 - 1;
    char id[NAME_BYTES];
    if (count != stored) {
        sim_fail(r->w, "I12 the batch %s of partition %s holds %zu facts, its replay %zu",
                 text_of(id, out->entry.id), r->w->tag[r->k], stored, count);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        struct sl_str there = out->entry.item[2 * i + 3];
        if (sl_str_eq(there, records[i]))
            continue;
        sim_fail(r->w, "I12 fact %zu of batch %s of partition %s is %.*s, replayed %.*s", i,
                 text_of(id, out->entry.id), r->w->tag[r->k], (int)(there.len < 90 ? there.len : 90),
                 there.ptr, (int)(records[i].len < 90 ? records[i].len : 90), records[i].ptr);
        return;
    }
}

/* One entry of the fact log. *next: the first event of the command log that no batch has had. */
static void replay_batch(struct replay *r, const struct recorded *out, size_t *next)
{
    const struct recorded_log *in = &r->w->in[r->k];
    char id[NAME_BYTES];
    json_t *batch = out->entry.count >= 2 ? sl_json_parse(out->entry.item[1], NULL) : NULL;
    int64_t epoch = sl_json_get_int(batch, "epoch", 0), now = sl_json_get_int(batch, "now", 0);
    size_t count = (size_t)sl_json_get_int(batch, "count", 0);
    (void)text_of(id, out->entry.id);
    if (epoch < r->epoch)
        sim_fail(r->w, "I5 batch %s of partition %s was written under an old lease epoch", id,
                 r->w->tag[r->k]);
    else if (now < r->now_ms)
        sim_fail(r->w, "I12 the clock of partition %s runs back at batch %s", r->w->tag[r->k], id);
    else if (*next + count > in->count || count == 0 ||
             !sl_str_eq(sl_json_get_str(batch, "first"), in->at[*next].entry.id) ||
             !sl_str_eq(sl_json_get_str(batch, "last"), in->at[*next + count - 1].entry.id))
        sim_fail(r->w, "I3 batch %s of partition %s does not go on where the one before ended", id,
                 r->w->tag[r->k]);
    r->epoch = epoch;
    r->now_ms = now;
    effects_set_epoch(r->fx, epoch);
    effects_clear(r->fx);
    for (size_t i = 0; i < count && r->w->verdict[0] == '\0'; i++)
        replay_event(r, &in->at[(*next)++], batch);
    if (r->w->verdict[0] == '\0')
        compare_facts(r, out);
    effects_written(r->fx);
    json_decref(batch);
}

static void replay_partition(struct replay *r, unsigned k)
{
    char meta[NAME_BYTES];
    struct world *w = r->w;
    size_t next = 0;
    r->k = k;
    r->ops = k == SIM_DESK ? &desk_ops : k == SIM_LANE ? &gw_lane_ops : &conversation_ops;
    r->epoch = r->now_ms = 0;
    r->cache = state_cache_new(100000);
    r->fx = effects_new(w->tag[k], r->cache, true);
    name_of(meta, key_meta(w->tag[k]));
    effects_set_gen(r->fx, (uint64_t)bus_value_int(SIM_PEEK(w, "HGET", meta, "gen")));
    for (size_t i = 0; i < w->out[k].count && w->verdict[0] == '\0'; i++)
        replay_batch(r, &w->out[k].at[i], &next);
    effects_free(&r->fx);
    state_cache_free(&r->cache);
}

/* ---- I4: every fact is in its destination's log exactly once, in order ---- */

static const struct recorded_log *log_named(const struct world *w, struct sl_str destination)
{
    for (unsigned k = 0; k < SIM_TAGS; k++) {
        struct key key = key_in(w->tag[k]);
        if (sl_str_eq(key_str(&key), destination))
            return &w->in[k];
    }
    return sl_str_eq_c(destination, "bot:" SIM_BOT_NAME) ? &w->bot : NULL;
}

static void check_destination(struct world *w, const char *source, struct sl_str destination,
                              const struct expected *e)
{
    const struct recorded_log *log = log_named(w, destination);
    const struct fact *f = e->first;
    struct sl_buf json;
    sl_buf_init(&json, 0);
    for (size_t i = 0; log != NULL && i < log->count; i++) {
        const struct event *ev = &log->at[i].event;
        if (!log->at[i].is_event || !sl_str_eq_c(ev->source, source))
            continue;
        struct sl_json j;
        sl_buf_clear(&json);
        sl_json_begin(&j, &json);
        event_to_json(ev, &j, NULL);
        if (f == NULL || (uint64_t)ev->fact != f->number ||
            !sl_str_eq(sl_buf_view(&json), sl_buf_view(&f->json))) {
            sim_fail(w, "I4 %.*s has fact %" PRId64 " of partition %s where fact %" PRIu64 " should stand",
                     (int)destination.len, destination.ptr, ev->fact, source, f != NULL ? f->number : 0);
            break;
        }
        f = f->next;
    }
    sl_buf_fini(&json);
}

/* A fact that stands in a log, though its partition never decided it. */
static void check_foreign(struct world *w, const struct recorded_log *log, struct replay *r,
                          struct sl_str destination)
{
    for (size_t i = 0; i < log->count; i++) {
        const struct event *ev = &log->at[i].event;
        for (unsigned k = 0; log->at[i].is_event && ev->source.len > 0 && k < SIM_TAGS; k++)
            if (sl_str_eq_c(ev->source, w->tag[k]) && sl_map_get(r->expected[k], destination) == NULL)
                sim_fail(w, "I4 %.*s has a fact of partition %s that was never decided", (int)destination.len,
                         destination.ptr, w->tag[k]);
    }
}

static void check_relay(struct replay *r)
{
    struct world *w = r->w;
    struct sl_str destination;
    void *value;
    for (unsigned k = 0; k < SIM_TAGS; k++) {
        for (size_t i = 0; sl_map_next(r->expected[k], &i, &destination, &value);)
            check_destination(w, w->tag[k], destination, value);
        struct key key = key_in(w->tag[k]);
        check_foreign(w, &w->in[k], r, key_str(&key));
    }
    check_foreign(w, &w->bot, r, SL_STR("bot:" SIM_BOT_NAME));
}

/* ---- histories as stored are histories as replayed ---- */

/* log:{k}:<id> of a conversation that left the store, by the replay. */
static bool is_deleted(struct world *w, const struct replay *r, struct sl_str log)
{
    char name[NAME_BYTES];
    const char *id = strchr(text_of(name, log), '}') + 2;
    const struct talk *t = sl_map_get(r->talks, sl_str_c(id));
    (void)w;
    return t != NULL && t->is_deleted;
}

static void check_histories(struct replay *r)
{
    struct world *w = r->w;
    struct sl_str name;
    void *value;
    char text[NAME_BYTES];
    for (size_t i = 0; sl_map_next(r->histories, &i, &name, &value);) {
        const struct sl_buf *all = value;
        size_t at = 0;
        if (is_deleted(w, r, name))
            continue;
        const struct bus_value *v = SIM_PEEK(w, "LRANGE", text_of(text, name), "0", "-1");
        for (size_t j = 0; j < bus_value_count(v); j++) {
            struct sl_str entry = bus_value_str(bus_value_at(v, j));
            if (at + entry.len >= all->len || memcmp(all->ptr + at, entry.ptr, entry.len) != 0 ||
                all->ptr[at + entry.len] != '\n') {
                sim_fail(w, "I3 entry %zu of %s is not what was decided", j + 1, text);
                return;
            }
            at += entry.len + 1;
        }
        if (at != all->len)
            sim_fail(w, "I1 %s has %zu entries, more were decided", text, bus_value_count(v));
    }
}

/* ---- I1, I2, I9: every acknowledged frame exactly once ---- */

static size_t count_in(const char *haystack, const char *needle)
{
    size_t n = 0;
    for (const char *at = strstr(haystack, needle); at != NULL; at = strstr(at + 1, needle))
        n++;
    return n;
}

/* All histories that ever were as one text, all dead letters as another. */
static void gather_texts(struct replay *r, struct sl_buf *history, struct sl_buf *dead)
{
    struct world *w = r->w;
    char name[NAME_BYTES];
    struct sl_str key;
    void *value;
    for (size_t i = 0; sl_map_next(r->histories, &i, &key, &value);)
        sl_buf_str(history, sl_buf_view(value));
    for (unsigned k = 0; k < SIM_TAGS; k++) {
        name_of(name, key_dead(w->tag[k]));
        const struct bus_value *v = SIM_PEEK(w, "XRANGE", name, "-", "+");
        for (size_t i = 0; i < bus_value_count(v); i++) {
            const struct bus_value *items = bus_value_at(bus_value_at(v, i), 1);
            for (size_t j = 0; j < bus_value_count(items); j++) {
                sl_buf_char(dead, '[');
                sl_buf_str(dead, bus_value_str(bus_value_at(items, j)));
                sl_buf_char(dead, ']');
            }
            sl_buf_char(dead, '\n');
        }
    }
    sl_buf_char(history, '\0');
    sl_buf_char(dead, '\0');
}

static size_t count_in_logs(const struct world *w, struct sl_str session, struct sl_str id)
{
    size_t n = 0;
    for (unsigned k = 0; k < SIM_TAGS; k++)
        for (size_t i = 0; i < w->in[k].count; i++)
            if (sl_str_eq(w->in[k].at[i].event.id, id) && sl_str_eq(w->in[k].at[i].event.session, session))
                n++;
    return n;
}

static void check_frame(struct world *w, const struct visitor *v, const struct frame_plan *f,
                        const char *history, const char *dead)
{
    char as_history[64], as_dead[40];
    (void)snprintf(as_history, sizeof as_history, "\"m\":{\"id\":\"%s\",", f->id);
    (void)snprintf(as_dead, sizeof as_dead, "[id][%s]", f->id);
    size_t logged = count_in_logs(w, sl_str_c(v->session), sl_str_c(f->id));
    size_t shown = count_in(history, as_history), buried = count_in(dead, as_dead);
    if (logged != 1)
        sim_fail(w, "%s frame %s of visitor %u stands %zu times in the command log",
                 logged == 0 ? "I1" : "I2", f->id, v->index, logged);
    else if (f->type == EVENT_MESSAGE && shown + buried != 1)
        sim_fail(w,
                 "I1 message %s of visitor %u (%s) is %zu times in the histories and %zu times in the dead "
                 "letters",
                 f->id, v->index, v->conv, shown, buried);
    else if (f->type == EVENT_MESSAGE && buried == 1) {
        char as_notice[64];
        (void)snprintf(as_notice, sizeof as_notice, "\"code\":\"dead\"");
        const char *at = strstr(history, as_notice);
        (void)snprintf(as_notice, sizeof as_notice, "\"id\":\"%s\"", f->id);
        if (at == NULL || strstr(history, as_notice) == NULL)
            sim_fail(w, "I9 message %s of visitor %u went to the dead letters and left no placeholder", f->id,
                     v->index);
    } else if (strcmp(f->text, SIM_POISON) == 0 && f->type == EVENT_MESSAGE && shown > 0)
        sim_fail(w, "I9 the poisoned message %s was processed", f->id);
}

/* Only an event that took its process with it again and again may be buried; here nothing else can be wrong with one. */
static void check_dead(struct world *w)
{
    char name[NAME_BYTES], reason[NAME_BYTES];
    for (unsigned k = 0; k < SIM_TAGS; k++) {
        name_of(name, key_dead(w->tag[k]));
        const struct bus_value *v = SIM_PEEK(w, "XRANGE", name, "-", "+");
        for (size_t i = 0; i < bus_value_count(v); i++) {
            const struct bus_value *items = bus_value_at(bus_value_at(v, i), 1);
            (void)text_of(reason, bus_value_str(bus_value_at(items, 3)));
            if (strcmp(reason, "it ended the process that stepped it") != 0)
                sim_fail(w, "I9 entry %.*s of partition %s was buried: %s",
                         (int)bus_value_str(bus_value_at(items, 1)).len,
                         bus_value_str(bus_value_at(items, 1)).ptr, w->tag[k], reason);
        }
    }
}

/* ---- delivery ---- */

/* Outcomes in a history go forward only. */
static void check_outcomes(struct replay *r)
{
    static const char *const words[] = {"unknown", "sent", "delivered", "read", "failed"};
    struct sl_str name;
    void *value;
    for (size_t i = 0; sl_map_next(r->histories, &i, &name, &value);) {
        int last[4096] = {0};
        const struct sl_buf *all = value;
        struct sl_str rest = sl_buf_view(all);
        size_t at;
        while (sl_str_find(rest, SL_STR("\"code\":\"delivery\",\"of\":"), &at)) {
            const size_t used = at + sizeof "\"code\":\"delivery\",\"of\":" - 1;
            rest = sl_str_n(rest.ptr + used, rest.len - used);
            size_t of = strtoul(rest.ptr, NULL, 10);
            const char *state = memmem(rest.ptr, rest.len, "\"state\":\"", 9);
            int rank = 0;
            for (int k = 0; k < 5; k++)
                if (state != NULL && strncmp(state + 9, words[k], strlen(words[k])) == 0)
                    rank = k + 1;
            if (of >= 4096 || rank == 0)
                continue;
            bool is_forward = rank == 5 ? last[of] <= 2 : rank > last[of];
            if (!is_forward)
                sim_fail(r->w, "entry %zu of %.*s went from outcome %d to %d", of, (int)name.len, name.ptr,
                         last[of], rank);
            last[of] = rank;
        }
    }
}

static void check_frames(struct replay *r)
{
    struct world *w = r->w;
    struct sl_buf history, dead;
    sl_buf_init(&history, 0);
    sl_buf_init(&dead, 0);
    gather_texts(r, &history, &dead);
    for (unsigned i = 0; i < w->visitors; i++)
        for (unsigned j = 0; j < w->visitor[i].frames; j++)
            check_frame(w, &w->visitor[i], &w->visitor[i].frame[j], history.ptr, dead.ptr);
    sl_buf_fini(&history);
    sl_buf_fini(&dead);
}

/* ---- all together ---- */

static void free_values(struct sl_map **m)
{
    struct sl_str key;
    void *value;
    for (size_t i = 0; sl_map_next(*m, &i, &key, &value);)
        free(value);
    sl_map_free(m);
}

static void free_expected(struct sl_map **m)
{
    struct sl_str key;
    void *value;
    for (size_t i = 0; sl_map_next(*m, &i, &key, &value);) {
        const struct expected *e = value;
        for (struct fact *f = e->first, *next; f != NULL; f = next) {
            next = f->next;
            sl_buf_fini(&f->json);
            free(f);
        }
    }
    free_values(m);
}

static void free_histories(struct sl_map **m)
{
    struct sl_str key;
    void *value;
    for (size_t i = 0; sl_map_next(*m, &i, &key, &value);)
        sl_buf_fini(value);
    free_values(m);
}

static void replay_free(struct replay *r)
{
    while (r->line != NULL) {
        struct wait *x = r->line;
        r->line = x->next;
        free(x);
    }
    while (r->slots != NULL) {
        struct slot *s = r->slots;
        r->slots = s->next;
        free(s);
    }
    free_values(&r->talks);
    free_histories(&r->histories);
    for (unsigned k = 0; k < SIM_TAGS; k++)
        free_expected(&r->expected[k]);
}

static void digest_logs(struct world *w)
{
    for (unsigned k = 0; k < SIM_TAGS; k++)
        for (size_t i = 0; i < w->out[k].count; i++)
            for (size_t j = 0; j < w->out[k].at[i].entry.count; j++)
                sim_digest(w, w->out[k].at[i].entry.item[j].ptr, w->out[k].at[i].entry.item[j].len);
}

void check_all(struct world *w)
{
    struct replay r = {.w = w, .talks = sl_map_new(), .histories = sl_map_new()};
    for (unsigned k = 0; k < SIM_TAGS; k++)
        r.expected[k] = sl_map_new();
    for (unsigned k = 0; k < SIM_TAGS && w->verdict[0] == '\0'; k++)
        replay_partition(&r, k);
    if (w->verdict[0] == '\0')
        check_relay(&r);
    if (w->verdict[0] == '\0')
        check_histories(&r);
    if (w->verdict[0] == '\0')
        check_frames(&r);
    if (w->verdict[0] == '\0')
        check_dead(w);
    if (w->verdict[0] == '\0')
        check_outcomes(&r);
    digest_logs(w);
    replay_free(&r);
}
