/* router/desk.c - what each event does at the desk. */
#include "router/desk.h"

#include "router/rules.h"

#include "base/fault.h"

/* One event's facts: GONE, ASSIGN and PLACE each have a share of FX_FACTS_MAX; what is left over goes on by a timer of 0 ms. */
#define GONE_AT_ONCE   16
#define ASSIGN_AT_ONCE 16
#define PLACE_AT_ONCE  24

#define WAIT_MAX_MS INT64_C(2592000000) /* 30 days: a longer wait is nonsense */

/* Everything one event needs, gathered before anything changes. */
struct room {
    struct effects *fx;
    const struct event *ev;
    int64_t now_ms;
    const struct rules *rules;
    struct desk *desk;
    size_t agent_count, queue_count;
    struct desk_agent
        *agents[DESK_AGENTS_MAX + 1]; /* as desk->agents; agents[agent_count] may be the event's own */
    struct desk_queue *queues[DESK_QUEUES_MAX + 1];
    struct desk_agent *agent; /* the event's, also when it is new; else NULL */
    struct desk_queue *queue;
};

typedef void (*desk_fn)(struct room *r);
#define DESK_TABLE(X)                                                                                        \
    X(NEED, on_need)                                                                                         \
    X(CANCEL, on_cancel)                                                                                     \
    X(REFUSED, on_freed)                                                                                     \
    X(RELEASED, on_freed)                                                                                    \
    X(OFFERED, on_offered)                                                                                   \
    X(AGENT_ONLINE, on_online)                                                                               \
    X(AGENT_ALIVE, on_alive)                                                                                 \
    X(AGENT_STATE, on_state)                                                                                 \
    X(AGENT_OFFLINE, on_offline)                                                                             \
    X(TIMER, on_timer)
static void on_need(struct room *r);
static void on_cancel(struct room *r);
static void on_freed(struct room *r);
static void on_offered(struct room *r);
static void on_online(struct room *r);
static void on_alive(struct room *r);
static void on_state(struct room *r);
static void on_offline(struct room *r);
static void on_timer(struct room *r);

static const desk_fn table[EVENT_TYPE_COUNT] = {
#define X(event, fn) [EVENT_##event] = fn,
    DESK_TABLE(X)
#undef X
};

/* ---- gathering ---- */

static bool gather_queues(struct room *r)
{
    struct desk *d = r->desk;
    for (size_t i = 0; i < d->queues.count && i < DESK_QUEUES_MAX; i++) {
        r->queues[i] = fx_state(r->fx, &desk_queue_kind, sl_str_c(d->queues.at[i]));
        if (r->queues[i] == NULL)
            return false;
        r->queue_count = i + 1;
        if (sl_str_eq_c(r->ev->queue, d->queues.at[i]))
            r->queue = r->queues[i];
    }
    if (r->ev->type == EVENT_NEED && r->queue == NULL && key_part_ok(r->ev->queue)) {
        r->queue = fx_state(r->fx, &desk_queue_kind, r->ev->queue);
        return r->queue != NULL;
    }
    return true;
}

/* An agent's state, its lists never NULL. */
static struct desk_agent *load_agent(struct room *r, struct sl_str id)
{
    struct desk_agent *a = fx_state(r->fx, &desk_agent_kind, id);
    if (a != NULL && a->session == NULL) {
        desk_set(&a->session, SL_STR_NONE);
        desk_set(&a->skills, SL_STR_NONE);
        desk_set(&a->queues, SL_STR_NONE);
    }
    return a;
}

static bool gather_agents(struct room *r)
{
    struct desk *d = r->desk;
    for (size_t i = 0; i < d->agents.count && i < DESK_AGENTS_MAX; i++) {
        r->agents[i] = load_agent(r, sl_str_c(d->agents.at[i]));
        if (r->agents[i] == NULL)
            return false;
        r->agent_count = i + 1;
        if (sl_str_eq_c(r->ev->agent, d->agents.at[i]))
            r->agent = r->agents[i];
    }
    bool may_be_new = r->ev->type == EVENT_AGENT_ONLINE || r->ev->type == EVENT_AGENT_ALIVE;
    if (may_be_new && r->agent == NULL && key_part_ok(r->ev->agent)) {
        r->agent = load_agent(r, r->ev->agent);
        return r->agent != NULL;
    }
    return true;
}

static bool gather(struct room *r)
{
    r->desk = fx_state(r->fx, &desk_kind, SL_STR(DESK_ID));
    return r->desk != NULL && gather_queues(r) && gather_agents(r);
}

/* ---- small words ---- */

static void refuse(struct room *r, const char *code)
{
    const struct event *ev = r->ev;
    fx_fact(r->fx, SL_STR_NONE,
            &(struct event){.type = EVENT_REFUSAL,
                            .conv = ev->conv,
                            .session = ev->session,
                            .agent = ev->agent,
                            .ticket = ev->ticket,
                            .queue = ev->queue,
                            .name = sl_str_c(event_type_name(ev->type)),
                            .reason = sl_str_c(code)});
}

static void to_conversation(struct room *r, const char *conv, struct event *fact)
{
    char tag[KEY_TAG_MAX_BYTES];
    if (key_conversation_tag(tag, sl_str_c(conv)) != SL_OK)
        return; /* was checked when its need came in */
    struct key in = key_in(tag), reply = key_in(fx_tag(r->fx));
    fact->conv = sl_str_c(conv);
    fact->reply_to = key_str(&reply);
    fx_fact(r->fx, key_str(&in), fact);
}

/* An entry of the agent's own log, pushed to her sockets. */
static void note(struct room *r, struct desk_agent *a, const char *what, const struct desk_held *h)
{
    struct sl_buf members;
    struct sl_json j;
    uint64_t n, v;
    sl_buf_init(&members, 0);
    sl_json_begin(&j, &members);
    sl_json_int(&j, "at", r->now_ms);
    sl_json_c(&j, "t", what);
    sl_json_c(&j, "c", h->conv);
    sl_json_int(&j, "tk", h->ticket);
    struct sl_str entry = fx_append(r->fx, a, false, sl_buf_view(&members), &n, &v);
    struct key channel = key_push_agent(fx_tag(r->fx), sl_str_c(a->s.id));
    fx_publish(r->fx, &channel,
               &(struct push){.what = PUSH_ENTRY, .gen = fx_gen(r->fx), .number = n, .json = entry});
    sl_buf_fini(&members);
}

static void arm(struct room *r, const char *name, int64_t *gen, int64_t after_ms)
{
    if (*gen != 0)
        return;
    *gen = ++r->desk->gen;
    fx_timer_set(r->fx, SL_STR(DESK_ID), name, *gen, r->now_ms + after_ms);
    fx_changed(r->fx, r->desk);
}

static bool is_due(struct room *r, const char *name, int64_t *gen)
{
    if (!sl_str_eq_c(r->ev->name, name) || (r->ev->gen != *gen && !sl_mutant("timer-no-gen")))
        return false;
    *gen = 0; /* it has left with this event */
    fx_changed(r->fx, r->desk);
    return true;
}

static bool is_same(const char *conv, int64_t ticket, const struct event *ev)
{
    return sl_str_eq_c(ev->conv, conv) && (ticket == ev->ticket || sl_mutant("no-ticket"));
}

static struct desk_wait *find_waiting(struct room *r, struct desk_queue **queue, size_t *at)
{
    for (size_t i = 0; i < r->queue_count; i++) {
        for (size_t k = 0; k < r->queues[i]->count; k++) {
            if (sl_str_eq_c(r->ev->conv, r->queues[i]->at[k].conv)) {
                *queue = r->queues[i];
                *at = k;
                return &r->queues[i]->at[k];
            }
        }
    }
    return NULL;
}

/* The held slot of the event's conversation with the highest ticket. */
static struct desk_held *find_held(struct room *r, struct desk_agent **agent)
{
    struct desk_held *found = NULL;
    for (size_t i = 0; i < r->agent_count; i++) {
        struct desk_agent *a = r->agents[i];
        for (size_t k = 0; k < a->count; k++) {
            if (!sl_str_eq_c(r->ev->conv, a->held[k].conv) ||
                (found != NULL && found->ticket > a->held[k].ticket))
                continue;
            found = &a->held[k];
            *agent = a;
        }
    }
    return found;
}

/* ---- assigning ---- */

static bool is_ready(const struct desk_agent *a)
{
    return a->is_online && !a->is_away && a->leaving_ms == 0 && (int64_t)a->count < a->capacity;
}

static bool serves(const struct desk_agent *a, const struct desk_queue *q)
{
    return a->queues[0] == '\0' || desk_list_has(sl_str_c(a->queues), sl_str_c(q->s.id));
}

/* Is a the better choice than b for w? */
static bool is_better(const struct desk_wait *w, const struct desk_agent *a, const struct desk_agent *b)
{
    bool a_avoided = strcmp(w->avoid, a->s.id) == 0, b_avoided = strcmp(w->avoid, b->s.id) == 0;
    if (a_avoided != b_avoided)
        return b_avoided;
    bool a_preferred = strcmp(w->prefer, a->s.id) == 0, b_preferred = strcmp(w->prefer, b->s.id) == 0;
    if (a_preferred != b_preferred)
        return a_preferred;
    int64_t a_load = (int64_t)a->count * b->capacity, b_load = (int64_t)b->count * a->capacity;
    if (a_load != b_load)
        return a_load < b_load;
    return a->idle_ms < b->idle_ms;
}

/* The agents who could take something now. */
struct free_agents {
    size_t count;
    struct desk_agent *at[DESK_AGENTS_MAX];
};

static void find_free(struct room *r, struct free_agents *f)
{
    f->count = 0;
    for (size_t i = 0; i < r->agent_count; i++)
        if (is_ready(r->agents[i]))
            f->at[f->count++] = r->agents[i];
}

static struct desk_agent *choose(const struct free_agents *f, const struct desk_queue *q,
                                 const struct desk_wait *w)
{
    struct desk_agent *best = NULL;
    for (size_t i = 0; i < f->count; i++) {
        struct desk_agent *a = f->at[i];
        bool is_fit = is_ready(a) && serves(a, q) && desk_list_has(sl_str_c(a->skills), sl_str_c(w->skills));
        if (is_fit && (best == NULL || is_better(w, a, best)))
            best = a;
    }
    return best;
}

static bool is_served(const struct free_agents *f, const struct desk_queue *q)
{
    for (size_t i = 0; i < f->count; i++)
        if (is_ready(f->at[i]) && serves(f->at[i], q))
            return true;
    return false;
}

static void tell_assign(struct room *r, const struct desk_agent *a, const struct desk_held *h)
{
    to_conversation(r, h->conv,
                    &(struct event){.type = EVENT_ASSIGN, .ticket = h->ticket, .agent = sl_str_c(a->s.id)});
}

#define PACE_WEIGHT 8 /* the newest gap between two departures counts one eighth */

static void count_departure(struct desk_queue *q, int64_t now_ms)
{
    if (q->left_ms != 0) {
        int64_t gap_ms = now_ms - q->left_ms;
        q->pace_ms = q->pace_ms == 0 ? gap_ms : q->pace_ms + (gap_ms - q->pace_ms) / PACE_WEIGHT;
    }
    q->left_ms = now_ms;
}

static void give(struct room *r, struct desk_queue *q, size_t at, struct desk_agent *a)
{
    struct desk_wait w = desk_queue_take(q, at);
    struct desk_held h = {.conv = w.conv, .ticket = w.ticket, .since_ms = w.since_ms, .seq = w.seq};
    w.conv = NULL;
    desk_wait_fini(&w);
    desk_agent_hold(a, &h);
    count_departure(q, r->now_ms);
    fx_changed(r->fx, q);
    fx_changed(r->fx, a);
    tell_assign(r, a, &h);
}

/* The queue whose next candidate comes first of all; queues without a free agent are passed over. */
static size_t first_queue(struct room *r, const struct free_agents *f, const size_t *at)
{
    size_t best = r->queue_count;
    for (size_t i = 0; i < r->queue_count; i++) {
        struct desk_queue *q = r->queues[i];
        if (at[i] >= q->count || !is_served(f, q))
            continue;
        if (best == r->queue_count || desk_before(&q->at[at[i]], &r->queues[best]->at[at[best]]))
            best = i;
    }
    return best;
}

/* In order over all queues; who finds nobody fit stays, and others of other needs may go. False: there is more to do. */
static bool assign(struct room *r)
{
    struct free_agents f;
    size_t at[DESK_QUEUES_MAX] = {0}, given = 0;
    find_free(r, &f);
    if (f.count == 0)
        return true;
    for (size_t i = first_queue(r, &f, at); i < r->queue_count; i = first_queue(r, &f, at)) {
        struct desk_agent *a = choose(&f, r->queues[i], &r->queues[i]->at[at[i]]);
        if (a == NULL) {
            at[i]++;
            continue;
        }
        if (given++ == ASSIGN_AT_ONCE)
            return false;
        give(r, r->queues[i], at[i], a);
    }
    return true;
}

/* ---- places in line ---- */

static void tell_place(struct room *r, struct desk_queue *q, size_t i)
{
    int64_t place = (int64_t)i + 1;
    q->at[i].told = place;
    fx_changed(r->fx, q);
    to_conversation(
        r, q->at[i].conv,
        &(struct event){
            .type = EVENT_PLACE, .ticket = q->at[i].ticket, .number = place, .wait_ms = q->pace_ms * place});
}

/* Goes on at the cursor. False: there is more to do. */
static bool tell_places(struct room *r)
{
    struct desk *d = r->desk;
    size_t told = 0;
    if (!d->is_placing)
        return true;
    fx_changed(r->fx, d);
    for (; (size_t)d->place_queue < r->queue_count; d->place_queue++, d->place_at = 0) {
        struct desk_queue *q = r->queues[d->place_queue];
        for (; (size_t)d->place_at < q->count && d->place_at < DESK_PLACES_MAX; d->place_at++) {
            if (q->at[d->place_at].told == d->place_at + 1)
                continue;
            if (told++ == PLACE_AT_ONCE)
                return false;
            tell_place(r, q, (size_t)d->place_at);
        }
    }
    d->is_placing = 0;
    return true;
}

/* ---- agents who are gone ---- */

/* Conversations of agents who are not there are told so; their slots stay until they answer. False: there is more to do. */
static bool tell_gone(struct room *r)
{
    size_t told = 0;
    for (size_t i = 0; i < r->agent_count; i++) {
        struct desk_agent *a = r->agents[i];
        for (size_t k = 0; k < a->count && !a->is_online; k++) {
            struct desk_held *h = &a->held[k];
            if (h->is_gone)
                continue;
            if (told++ == GONE_AT_ONCE)
                return false;
            h->is_gone = 1;
            fx_changed(r->fx, a);
            to_conversation(
                r, h->conv,
                &(struct event){.type = EVENT_GONE, .ticket = h->ticket, .agent = sl_str_c(a->s.id)});
            note(r, a, "gone", h);
            if (sl_mutant("desk-frees-itself"))
                desk_agent_drop(a, k--);
        }
    }
    return true;
}

static void forget_absent(struct room *r)
{
    size_t kept = 0;
    for (size_t i = 0; i < r->agent_count; i++) {
        struct desk_agent *a = r->agents[i];
        if (a->is_online || a->count > 0 || a->session[0] != '\0') {
            r->agents[kept++] = a;
            continue;
        }
        desk_names_remove(&r->desk->agents, kept);
        fx_changed(r->fx, r->desk);
    }
    r->agent_count = kept;
}

/* ---- the board ---- */

static void write_board(struct room *r, struct sl_buf *out)
{
    int64_t ready = 0, busy = 0, away = 0;
    for (size_t i = 0; i < r->agent_count; i++) {
        const struct desk_agent *a = r->agents[i];
        if (a->is_online && (a->is_away || a->leaving_ms != 0))
            away++;
        else if (is_ready(a))
            ready++;
        else if (a->is_online)
            busy++;
    }
    struct sl_json j;
    sl_json_begin(&j, out);
    sl_json_open(&j, NULL, '{');
    sl_json_open(&j, "waiting", '{');
    for (size_t i = 0; i < r->queue_count; i++)
        sl_json_int(&j, r->queues[i]->s.id, (int64_t)r->queues[i]->count);
    sl_json_close(&j, '}');
    sl_json_open(&j, "agents", '{');
    sl_json_int(&j, "ready", ready);
    sl_json_int(&j, "busy", busy);
    sl_json_int(&j, "away", away);
    sl_json_close(&j, '}');
    sl_json_close(&j, '}');
}

static void publish_board(struct room *r)
{
    struct sl_buf board;
    sl_buf_init(&board, 0);
    write_board(r, &board);
    if (!sl_str_eq(sl_buf_view(&board), sl_buf_view(&r->desk->board))) {
        struct key channel = key_push_queue(fx_tag(r->fx));
        fx_publish(r->fx, &channel,
                   &(struct push){.what = PUSH_HINT, .gen = fx_gen(r->fx), .json = sl_buf_view(&board)});
        sl_buf_clear(&r->desk->board);
        sl_buf_str(&r->desk->board, sl_buf_view(&board));
    }
    sl_buf_fini(&board);
}

/* ---- after every event ---- */

static bool is_anyone_online(const struct room *r)
{
    for (size_t i = 0; i < r->agent_count; i++)
        if (r->agents[i]->is_online)
            return true;
    return false;
}

static bool is_anyone_waiting(const struct room *r)
{
    for (size_t i = 0; i < r->queue_count; i++)
        if (r->queues[i]->count > 0)
            return true;
    return false;
}

static void settle(struct room *r)
{
    bool is_done = tell_gone(r);
    is_done = assign(r) && is_done;
    is_done = tell_places(r) && is_done;
    forget_absent(r);
    if (!is_done)
        arm(r, "more", &r->desk->more_gen, 0);
    if (is_anyone_online(r))
        arm(r, "presence", &r->desk->presence_gen, r->rules->presence_ms / 2);
    if (is_anyone_waiting(r) && !r->desk->is_placing)
        arm(r, "place", &r->desk->place_gen, r->rules->place_ms);
    publish_board(r);
}

/* ---- needs ---- */

static bool open_queue(struct room *r)
{
    struct desk *d = r->desk;
    size_t at;
    if (desk_names_find(&d->queues, r->ev->queue, &at))
        return true;
    if (d->queues.count >= DESK_QUEUES_MAX)
        return false;
    desk_names_add(&d->queues, r->ev->queue);
    r->queues[r->queue_count++] = r->queue;
    fx_changed(r->fx, d);
    fx_changed(r->fx, r->queue);
    return true;
}

static struct sl_str list_or_none(struct sl_str list)
{
    return rules_list_ok(list) ? list : SL_STR_NONE;
}

static struct sl_str name_or_none(struct sl_str name)
{
    return key_part_ok(name) ? name : SL_STR_NONE;
}

/* Its place: that of the need it follows when it says that it waited before; else at the end, by the time it waited. */
static void take_place(struct room *r, const struct desk_held *held, struct desk_wait *w)
{
    int64_t waited_ms = r->ev->wait_ms < 0 ? 0 : r->ev->wait_ms > WAIT_MAX_MS ? WAIT_MAX_MS : r->ev->wait_ms;
    if (held != NULL && waited_ms > 0) {
        w->since_ms = held->since_ms;
        w->seq = held->seq;
        return;
    }
    w->since_ms = r->now_ms - waited_ms;
    w->seq = ++r->desk->seq;
    fx_changed(r->fx, r->desk);
}

static void enqueue(struct room *r, const struct desk_held *held)
{
    const struct event *ev = r->ev;
    struct desk_wait w = {.conv = sl_str_dup(ev->conv),
                          .ticket = ev->ticket,
                          .priority = ev->priority,
                          .skills = sl_str_dup(list_or_none(ev->skills)),
                          .prefer = sl_str_dup(name_or_none(ev->agent)),
                          .avoid = sl_str_dup(name_or_none(ev->name))};
    take_place(r, held, &w);
    (void)desk_queue_insert(r->queue, &w);
    fx_changed(r->fx, r->queue);
}

/* What is held already is answered again: the conversation ignores what it has. */
static void repeat_assign(struct room *r, const struct desk_agent *a, const struct desk_held *h)
{
    tell_assign(r, a, h);
    if (h->is_gone)
        to_conversation(r, h->conv,
                        &(struct event){.type = EVENT_GONE, .ticket = h->ticket, .agent = sl_str_c(a->s.id)});
}

/* At the bound: the customer is asked to leave a message, the conversation repeats its need. */
static void refuse_need(struct room *r)
{
    char conv[KEY_TAG_MAX_BYTES + 32];
    memcpy(conv, r->ev->conv.ptr, r->ev->conv.len);
    conv[r->ev->conv.len] = '\0';
    refuse(r, "full");
    to_conversation(r, conv,
                    &(struct event){.type = EVENT_PLACE, .ticket = r->ev->ticket, .reason = SL_STR("full")});
}

static bool is_need_ok(const struct event *ev)
{
    char tag[KEY_TAG_MAX_BYTES];
    return key_conversation_tag(tag, ev->conv) == SL_OK && ev->ticket > 0 && key_part_ok(ev->queue);
}

static void on_need(struct room *r)
{
    const struct event *ev = r->ev;
    struct desk_agent *holder = NULL;
    struct desk_queue *queue = NULL;
    size_t at = 0;
    if (!is_need_ok(ev)) {
        refuse(r, "malformed");
        return;
    }
    struct desk_held *held = find_held(r, &holder);
    if (held != NULL && (held->ticket >= ev->ticket || sl_mutant("no-ticket"))) {
        if (held->ticket == ev->ticket)
            repeat_assign(r, holder, held);
        return;
    }
    struct desk_wait *waiting = find_waiting(r, &queue, &at);
    if (waiting != NULL && waiting->ticket >= ev->ticket)
        return; /* a repeat */
    if (waiting != NULL) {
        struct desk_wait old = desk_queue_take(queue, at);
        fx_changed(r->fx, queue);
        desk_wait_fini(&old);
    }
    if (!open_queue(r) || (int64_t)r->queue->count >= r->rules->queue_max) {
        refuse_need(r);
        return;
    }
    enqueue(r, held);
}

/* Those who were not given to anybody hear their place at once; later changes come with the timer. */
static void tell_own_place(struct room *r)
{
    struct desk_queue *queue = NULL;
    size_t at = 0;
    if (r->ev->type != EVENT_NEED || find_waiting(r, &queue, &at) == NULL || queue->at[at].told != 0 ||
        at >= DESK_PLACES_MAX)
        return;
    tell_place(r, queue, at);
}

/* It left the line without having taken anything: an assignment under this ticket that it never saw (it was buried, or is on its
 * way and will be refused) holds no slot. */
static void on_cancel(struct room *r)
{
    struct desk_queue *queue = NULL;
    size_t at = 0;
    struct desk_wait *w = find_waiting(r, &queue, &at);
    if (w == NULL || !is_same(w->conv, w->ticket, r->ev)) {
        on_freed(r);
        return;
    }
    struct desk_wait gone = desk_queue_take(queue, at);
    fx_changed(r->fx, queue);
    desk_wait_fini(&gone);
}

/* The conversation let go of a slot: the only way that one becomes free. */
static void on_freed(struct room *r)
{
    for (size_t i = 0; i < r->agent_count; i++) {
        struct desk_agent *a = r->agents[i];
        for (size_t k = 0; k < a->count; k++) {
            if (!is_same(a->held[k].conv, a->held[k].ticket, r->ev))
                continue;
            note(r, a, "released", &a->held[k]);
            desk_agent_drop(a, k);
            a->idle_ms = r->now_ms;
            fx_changed(r->fx, a);
            return;
        }
    }
}

/* The conversation has taken the assignment. The agent hears of it only now: had she heard earlier, her "accept" could have
 * overtaken the assignment and been refused. */
static void on_offered(struct room *r)
{
    struct desk_agent *a = NULL;
    struct desk_held *h = find_held(r, &a);
    if (h != NULL && h->ticket == r->ev->ticket && !h->is_gone)
        note(r, a, "offered", h);
}

/* ---- agents ---- */

/* A session's name up to its first dot: what follows tells its sockets apart. */
static struct sl_str session_root(struct sl_str session)
{
    const char *dot = session.len > 0 ? memchr(session.ptr, '.', session.len) : NULL;
    return dot != NULL ? sl_str_n(session.ptr, (size_t)(dot - session.ptr)) : session;
}

static bool is_same_root(struct sl_str a, struct sl_str b)
{
    struct sl_str root = session_root(a);
    return root.len > 0 && sl_str_eq(root, session_root(b));
}

static bool is_session(const struct room *r)
{
    return r->agent != NULL && r->ev->session.len > 0 && sl_str_eq_c(r->ev->session, r->agent->session);
}

static bool join(struct room *r)
{
    struct desk *d = r->desk;
    size_t at;
    if (desk_names_find(&d->agents, r->ev->agent, &at))
        return true;
    if ((int64_t)d->agents.count >= r->rules->agents_max)
        return false;
    desk_names_add(&d->agents, r->ev->agent);
    r->agents[r->agent_count++] = r->agent;
    fx_changed(r->fx, d);
    return true;
}

static void come_in(struct room *r, bool is_away)
{
    const struct event *ev = r->ev;
    struct desk_agent *a = r->agent;
    if (a == NULL || !key_part_ok(ev->session) || !rules_list_ok(ev->skills) || !rules_list_ok(ev->text)) {
        refuse(r, "malformed");
        return;
    }
    if (!join(r)) {
        refuse(r, "full");
        return;
    }
    fx_changed(r->fx, a);
    if (!a->is_online)
        a->idle_ms = r->now_ms;
    a->is_online = 1;
    a->is_away = is_away;
    a->leaving_ms = 0;
    a->alive_ms = r->now_ms;
    a->capacity = ev->capacity <= 0                  ? DESK_CAPACITY
                  : ev->capacity > DESK_CAPACITY_MAX ? DESK_CAPACITY_MAX
                                                     : ev->capacity;
    desk_set(&a->session, ev->session);
    desk_set(&a->skills, ev->skills);
    desk_set(&a->queues, ev->text);
}

/* A session that comes back within the grace is as it was left: else a page that is loaded again would be offered a customer before it
 * can say once more that its agent is away. */
static void on_online(struct room *r)
{
    bool is_back = r->agent != NULL && is_same_root(r->ev->session, sl_str_c(r->agent->session));
    come_in(r, sl_str_eq_c(r->ev->reason, "away") || (is_back && r->agent->is_away));
}

/* Her "online" may have been lost, or she was silent for too long and is back, or one of her two windows was closed: who is not
 * online, or leaving, comes in. While she is there, another session's sign of life changes nothing. */
static void on_alive(struct room *r)
{
    struct desk_agent *a = r->agent;
    if (is_session(r)) {
        fx_changed(r->fx, a);
        a->alive_ms = r->now_ms;
        a->is_online = 1;
    } else if (a != NULL && (!a->is_online || a->leaving_ms != 0)) {
        come_in(r, a->is_away);
    }
}

/* Numbered in the session, so it counts from each of its sockets: one that was acknowledged is never without effect. */
static void on_state(struct room *r)
{
    if (r->agent == NULL || !is_same_root(r->ev->session, sl_str_c(r->agent->session)))
        return;
    fx_changed(r->fx, r->agent);
    r->agent->is_away = sl_str_eq_c(r->ev->reason, "away");
}

static void take_away(struct room *r, struct desk_agent *a)
{
    fx_changed(r->fx, a);
    a->is_online = 0;
    a->leaving_ms = 0;
    desk_set(&a->session, SL_STR_NONE);
}

/* A late "offline" of an earlier session ends nothing. A page that is loaded again, or a network that changed, is back within
 * seconds: until then nobody else gets her conversations, and she is offered no more. */
static void on_offline(struct room *r)
{
    if (!is_session(r))
        return;
    if (r->rules->offline_ms == 0) {
        take_away(r, r->agent);
        return;
    }
    fx_changed(r->fx, r->agent);
    r->agent->leaving_ms = r->now_ms > 0 ? r->now_ms : 1;
    if (r->desk->leave_gen == 0)
        arm(r, "leave", &r->desk->leave_gen, r->rules->offline_ms);
}

/* ---- timers ---- */

static void end_silent(struct room *r)
{
    for (size_t i = 0; i < r->agent_count; i++) {
        struct desk_agent *a = r->agents[i];
        int64_t silent_ms = r->now_ms - a->alive_ms;
        if (a->is_online && silent_ms > r->rules->presence_ms) {
            a->is_online = 0;
            a->leaving_ms = 0;
            fx_changed(r->fx, a);
        }
        if (!a->is_online && a->session[0] != '\0' && silent_ms > 10 * r->rules->presence_ms) {
            desk_set(&a->session, SL_STR_NONE); /* its gateway is not coming back with it */
            fx_changed(r->fx, a);
        }
    }
}

/* Those whose time is up go; the timer runs on for the next one. */
static void end_leaving(struct room *r)
{
    int64_t next_ms = -1;
    for (size_t i = 0; i < r->agent_count; i++) {
        struct desk_agent *a = r->agents[i];
        if (a->leaving_ms == 0)
            continue;
        int64_t left_ms = a->leaving_ms + r->rules->offline_ms - r->now_ms;
        if (left_ms <= 0)
            take_away(r, a);
        else if (next_ms < 0 || left_ms < next_ms)
            next_ms = left_ms;
    }
    if (next_ms >= 0)
        arm(r, "leave", &r->desk->leave_gen, next_ms);
}

static bool has_silent(const struct room *r)
{
    for (size_t i = 0; i < r->agent_count; i++)
        if (r->agents[i]->session[0] != '\0')
            return true;
    return false;
}

static void on_timer(struct room *r)
{
    struct desk *d = r->desk;
    if (is_due(r, "presence", &d->presence_gen)) {
        end_silent(r);
        if (has_silent(r))
            arm(r, "presence", &d->presence_gen, r->rules->presence_ms / 2);
    } else if (is_due(r, "leave", &d->leave_gen)) {
        end_leaving(r);
    } else if (is_due(r, "place", &d->place_gen)) {
        d->is_placing = 1;
        d->place_queue = d->place_at = 0;
    } else {
        (void)is_due(r, "more", &d->more_gen);
    }
}

/* ---- the machinery's side ---- */

static void take_rules(struct room *r)
{
    struct sl_fail why = {.code = SL_OK};
    if (rules_take(r->fx, r->ev, &why) != SL_OK)
        refuse(r, why.text);
}

static void desk_step(struct effects *fx, const struct event *ev, int64_t now_ms)
{
    struct room r = {.fx = fx, .ev = ev, .now_ms = now_ms, .rules = rules_of(fx)};
    if (r.rules == NULL)
        return;
    if (ev->type == EVENT_RULES) {
        take_rules(&r);
        return;
    }
    if (ev->type <= EVENT_NONE || ev->type >= EVENT_TYPE_COUNT || table[ev->type] == NULL) {
        refuse(&r, "not_for_desks");
        return;
    }
    if (!gather(&r))
        return;
    table[ev->type](&r);
    settle(&r);
    tell_own_place(&r);
}

/* A slot that its conversation let go is free whatever happens, and a timer that died is armed again by the next event. */
static void desk_bury(struct effects *fx, const struct event *ev, struct sl_str reason, int64_t now_ms)
{
    struct room r = {.fx = fx, .ev = ev, .now_ms = now_ms, .rules = rules_of(fx)};
    (void)reason; /* it stands in the record that the machinery writes */
    if (r.rules == NULL || !gather(&r))
        return;
    if (ev->type == EVENT_REFUSED || ev->type == EVENT_RELEASED)
        on_freed(&r);
    if (ev->type != EVENT_TIMER)
        return;
    bool is_ours = is_due(&r, "presence", &r.desk->presence_gen) || is_due(&r, "leave", &r.desk->leave_gen) ||
                   is_due(&r, "place", &r.desk->place_gen) || is_due(&r, "more", &r.desk->more_gen);
    if (is_ours)
        arm(&r, "more", &r.desk->more_gen, 1000);
}

const struct part_ops desk_ops = {.name = "desk", .step = desk_step, .bury = desk_bury};
