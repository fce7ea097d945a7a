/* bus/memory.c - the bus over a store in memory: connections whose every step is the simulation's choice.
 *
 * A command lies in its connection's request queue until memory_execute, its reply in the reply queue until
 * memory_reply. A connection that broke lives on without a client until its requests are used up: those are
 * the commands that run late.
 * A killed process keeps its objects, but all its calls are refused and nothing is called back until
 * bus_close, which settles with SL_ECLOSED so that objects waiting for an answer can go: free the objects
 * first.
 */
#include "base/loop.h"

#include "bus/memory_priv.h"

#include <limits.h>
#include <stdlib.h>

#define RECONNECT_MAX_MS 50 /* the first try comes at once; jittered */

struct request {
    struct request *next;
    uint64_t unblocks; /* not a command: CLIENT UNBLOCK of this connection */
    size_t count;
    struct sl_str *arg; /* in the same block as the request and its bytes */
};
struct reply {
    struct reply *next;
    bool is_push, is_confirm;
    struct memory_arena arena;
    const redisReply *value;
    struct sl_str channel, payload; /* of a push, in the arena */
};
struct waiter { /* what a client expects: one for each reply, in order */
    struct waiter *next;
    bus_reply_fn fn; /* NULL: nobody wants to know */
    void *arg;
    uint64_t due_mono_ms;
};
struct queue {
    void *head, *tail;
};

struct client;
struct connection {
    uint64_t number;
    unsigned process;      /* UINT_MAX once it broke */
    struct client *client; /* NULL once it broke */
    struct queue requests, replies;
    struct sl_map *channels; /* NULL: not subscribing */
    bool is_blocked, is_woken, is_unblocked;
    int64_t blocked_until_ms;
};

enum client_kind { COMMANDS, READER, SUBSCRIBER };
struct memory_bus;
struct client {
    struct client *next;
    enum client_kind kind;
    struct memory_bus *bus;
    struct connection *connection; /* NULL: not connected */
    struct queue waiters, settling;
    size_t in_flight;
    sl_err settle_with;
    bool is_closing;
    struct sl_timer deadline, reconnect;
    struct sl_post settle;
    void (*on_message)(void *arg, bool is_confirm, struct sl_str channel, struct sl_str payload);
    void (*on_change)(void *arg, bool is_up);
    void *arg;
};

struct memory_bus {
    struct bus bus;
    struct memory_bus *next;
    struct memory_store *store;
    unsigned process, wanted_partitions;
    struct client *clients; /* the command client is the last of the list */
    struct client *commands;
    bool is_dead, is_closing;
    struct sl_post gone;
};

struct memory_store {
    struct memory_data *data;
    struct memory_bus *buses;
    struct connection **connection; /* in order of creation */
    size_t connections, cap;
    uint64_t next_number, random_state;
    unsigned lose_per_thousand;
    struct memory_arena peek;
};

/* ---- queues: every item begins with its next pointer ---- */

static void queue_push(struct queue *q, void *item)
{
    if (q->tail != NULL)
        *(void **)q->tail = item;
    else
        q->head = item;
    q->tail = item;
}

static void *queue_pop(struct queue *q)
{
    void *item = q->head;
    if (item == NULL)
        return NULL;
    q->head = *(void **)item;
    if (q->head == NULL)
        q->tail = NULL;
    *(void **)item = NULL;
    return item;
}

static void queue_clear(struct queue *q)
{
    for (void *item; (item = queue_pop(q)) != NULL;)
        free(item);
}

static void reply_free(struct reply *r)
{
    memory_arena_free(&r->arena);
    free(r);
}

static void replies_clear(struct queue *q)
{
    for (struct reply *r; (r = queue_pop(q)) != NULL;)
        reply_free(r);
}

/* SplitMix64, as base/loop.c's virtual clock. */
static uint64_t store_random(struct memory_store *s)
{
    uint64_t z = s->random_state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

/* ---- the server's side of a connection ---- */

static struct connection *connection_new(struct memory_store *s, struct client *client)
{
    if (s->connections == s->cap) {
        s->cap = s->cap == 0 ? 16 : s->cap * 2;
        s->connection = sl_realloc(s->connection, s->cap * sizeof(struct connection *));
    }
    struct connection *c = sl_alloc(sizeof *c);
    c->number = ++s->next_number;
    c->client = client;
    c->process = client->bus->process;
    s->connection[s->connections++] = c;
    return c;
}

static void connection_free(struct connection *c)
{
    queue_clear(&c->requests);
    replies_clear(&c->replies);
    sl_map_free(&c->channels);
    free(c);
}

/* Connections without client and without requests are over. */
static void sweep_connections(struct memory_store *s)
{
    size_t kept = 0;
    for (size_t i = 0; i < s->connections; i++) {
        struct connection *c = s->connection[i];
        if (c->client == NULL && c->requests.head == NULL)
            connection_free(c);
        else
            s->connection[kept++] = c;
    }
    s->connections = kept;
}

/* The client is gone. Of the requests on the way, some first ones arrive; a blocked read notices that nobody
 * is there. */
static void connection_break(struct memory_store *s, struct connection *c, bool is_server_gone)
{
    size_t keep = SIZE_MAX, n = 0;
    c->client = NULL;
    c->process = UINT_MAX;
    replies_clear(&c->replies);
    sl_map_free(&c->channels);
    for (const struct request *r = c->requests.head; r != NULL; r = r->next)
        n++;
    if (n > 0 && store_random(s) % 2 == 0)
        keep = (size_t)(store_random(s) % (n + 1));
    if (is_server_gone || c->is_blocked)
        keep = 0;
    struct queue kept = {NULL, NULL};
    for (size_t i = 0; i < n; i++) {
        struct request *r = queue_pop(&c->requests);
        if (i < keep)
            queue_push(&kept, r);
        else
            free(r);
    }
    c->requests = kept;
    c->is_blocked = false;
}

static bool is_executable(const struct memory_store *s, const struct connection *c)
{
    if (c->requests.head == NULL)
        return false;
    return !c->is_blocked || c->is_woken || c->is_unblocked || s->data->now_unix_ms >= c->blocked_until_ms;
}

static void on_appended(void *owner, struct sl_str key)
{
    const struct memory_store *s = owner;
    for (size_t i = 0; i < s->connections; i++) {
        struct connection *c = s->connection[i];
        const struct request *r = c->requests.head;
        if (!c->is_blocked || c->is_woken)
            continue;
        for (size_t j = 1; j < r->count && !c->is_woken; j++)
            c->is_woken = sl_str_eq(r->arg[j], key);
    }
}

static struct sl_str arena_str(struct memory_arena *a, struct sl_str s)
{
    char *p = memory_arena_take(a, s.len + 1);
    memcpy(p, s.ptr, s.len);
    return sl_str_n(p, s.len);
}

static void push_to(struct connection *c, bool is_confirm, struct sl_str channel, struct sl_str payload)
{
    struct reply *r = sl_alloc(sizeof *r);
    r->is_push = true;
    r->is_confirm = is_confirm;
    r->channel = arena_str(&r->arena, channel);
    r->payload = arena_str(&r->arena, payload);
    queue_push(&c->replies, r);
}

static size_t on_published(void *owner, struct sl_str channel, struct sl_str payload)
{
    struct memory_store *s = owner;
    size_t receivers = 0;
    for (size_t i = 0; i < s->connections; i++) {
        struct connection *c = s->connection[i];
        if (c->channels == NULL || sl_map_get(c->channels, channel) == NULL)
            continue;
        receivers++;
        if (store_random(s) % 1000 >= s->lose_per_thousand)
            push_to(c, false, channel, payload);
    }
    return receivers;
}

static void run_subscription(struct connection *c, const struct request *r, bool is_on)
{
    for (size_t i = 1; i < r->count; i++) {
        if (is_on && c->channels == NULL)
            c->channels = sl_map_new();
        if (is_on)
            (void)sl_map_set(c->channels, r->arg[i], c);
        else if (c->channels != NULL)
            (void)sl_map_del(c->channels, r->arg[i]);
        if (is_on && c->client != NULL)
            push_to(c, true, r->arg[i], SL_STR_NONE);
    }
}

static void unblock_number(struct memory_store *s, uint64_t number)
{
    for (size_t i = 0; i < s->connections; i++)
        if (s->connection[i]->number == number && s->connection[i]->is_blocked)
            s->connection[i]->is_unblocked = true;
}

/* NULL: it blocks, or it is of a kind that has no reply of its own. */
static struct reply *run_request(struct memory_store *s, struct connection *c, const struct request *r)
{
    struct reply *reply = sl_alloc(sizeof *reply);
    if (r->unblocks != 0) {
        unblock_number(s, r->unblocks);
        reply->value = memory_int(&reply->arena, 1);
        return reply;
    }
    if (c->is_blocked && c->is_unblocked) {
        reply->value = memory_nil(&reply->arena);
        return reply;
    }
    bool may_block = !c->is_blocked || s->data->now_unix_ms < c->blocked_until_ms;
    struct memory_call call = {.data = s->data,
                               .arena = &reply->arena,
                               .arg = r->arg,
                               .count = r->count,
                               .may_block = may_block && c->client != NULL};
    reply->value = memory_run(&call);
    if (reply->value != NULL)
        return reply;
    if (!c->is_blocked)
        c->blocked_until_ms = call.block_ms > 0 ? s->data->now_unix_ms + call.block_ms : INT64_MAX;
    c->is_blocked = true;
    c->is_woken = false;
    reply_free(reply);
    return NULL;
}

static void execute(struct memory_store *s, struct connection *c)
{
    const struct request *first = c->requests.head;
    bool is_sub = first->count > 0 &&
                  (sl_str_eq_c(first->arg[0], "SUBSCRIBE") || sl_str_eq_c(first->arg[0], "UNSUBSCRIBE"));
    if (is_sub) {
        run_subscription(c, first, sl_str_eq_c(first->arg[0], "SUBSCRIBE"));
        free(queue_pop(&c->requests));
        return;
    }
    struct reply *reply = run_request(s, c, first);
    if (reply == NULL)
        return;
    c->is_blocked = c->is_woken = c->is_unblocked = false;
    free(queue_pop(&c->requests));
    if (c->client != NULL)
        queue_push(&c->replies, reply);
    else
        reply_free(reply);
}

/* ---- the client's side ---- */

static void client_cut(struct client *k, sl_err err, bool is_server_gone);

static void client_arm_deadline(struct client *k)
{
    const struct waiter *w = k->waiters.head;
    if (w == NULL) {
        sl_timer_stop(&k->deadline);
        return;
    }
    uint64_t now = sl_loop_mono_ms(k->bus->bus.loop);
    sl_timer_start(&k->deadline, w->due_mono_ms > now ? w->due_mono_ms - now : 0);
}

static void on_deadline(void *arg)
{
    struct client *k = arg;
    const struct waiter *w = k->waiters.head;
    if (w != NULL && w->due_mono_ms <= sl_loop_mono_ms(k->bus->bus.loop))
        client_cut(k, SL_ETIMEOUT, false);
    else
        client_arm_deadline(k);
}

static void client_free(struct client *k)
{
    if (!k->bus->is_dead) { /* a dead one's are stopped, and its loop may be gone */
        sl_timer_stop(&k->deadline);
        sl_timer_stop(&k->reconnect);
        sl_post_cancel(&k->settle);
    }
    queue_clear(&k->waiters);
    queue_clear(&k->settling);
    free(k);
}

static void bus_forget_client(struct client *k)
{
    struct client **at = &k->bus->clients;
    while (*at != NULL && *at != k)
        at = &(*at)->next;
    if (*at == k)
        *at = k->next;
}

/* Everything that was in flight when the connection broke, in order; then the news; then another try. */
static void on_settle(void *arg)
{
    struct client *k = arg;
    struct memory_bus *b = k->bus;
    struct sl_fail why;
    (void)sl_fail_set(&why, k->settle_with, 0, "the connection to the store is gone; the outcome is unknown");
    for (struct waiter *w; (w = queue_pop(&k->settling)) != NULL;) {
        struct waiter copy = *w;
        free(w);
        if (copy.fn != NULL)
            copy.fn(copy.arg, k->settle_with, NULL, &why);
        if (b->is_dead)
            return;
    }
    if (k->is_closing) {
        if (k->kind != COMMANDS) {
            bus_forget_client(k);
            client_free(k);
        }
        return;
    }
    sl_timer_start(&k->reconnect, sl_loop_jitter(b->bus.loop, RECONNECT_MAX_MS));
    if (k->kind == COMMANDS && b->bus.events.ready != NULL)
        b->bus.events.ready(b->bus.events_arg, false);
    else if (k->kind == SUBSCRIBER)
        k->on_change(k->arg, false);
}

static void client_cut(struct client *k, sl_err err, bool is_server_gone)
{
    if (k->connection == NULL)
        return;
    connection_break(k->bus->store, k->connection, is_server_gone);
    k->connection = NULL;
    if (k->kind == COMMANDS)
        k->bus->bus.is_ready = false;
    for (void *w; (w = queue_pop(&k->waiters)) != NULL;)
        queue_push(&k->settling, w);
    k->in_flight = 0;
    k->settle_with = err;
    sl_timer_stop(&k->deadline);
    sl_post_now(&k->settle);
}

static void create_store(struct memory_bus *b)
{
    struct memory_data *d = b->store->data;
    struct sl_str key = sl_str_c(KEY_STORE);
    if (memory_hash_int(d, key, SL_STR("partitions")) == 0)
        memory_hash_set_int(d, key, SL_STR("partitions"), b->wanted_partitions);
    b->bus.partitions = (unsigned)memory_hash_int(d, key, SL_STR("partitions"));
}

static void on_connect(void *arg)
{
    struct client *k = arg;
    struct memory_bus *b = k->bus;
    if (k->connection != NULL || k->is_closing)
        return;
    k->connection = connection_new(b->store, k);
    if (k->kind == SUBSCRIBER)
        k->on_change(k->arg, true);
    if (k->kind != COMMANDS)
        return;
    create_store(b);
    b->bus.is_ready = true;
    if (b->bus.events.ready != NULL)
        b->bus.events.ready(b->bus.events_arg, true);
}

static struct client *client_new(struct memory_bus *b, enum client_kind kind)
{
    struct client *k = sl_alloc(sizeof *k);
    k->kind = kind;
    k->bus = b;
    sl_timer_init(&k->deadline, b->bus.loop, on_deadline, k);
    sl_timer_init(&k->reconnect, b->bus.loop, on_connect, k);
    sl_post_init(&k->settle, b->bus.loop, on_settle, k);
    k->next = b->clients;
    b->clients = k;
    if (!b->is_dead)
        sl_timer_start(&k->reconnect, 0);
    return k;
}

/* Settles what is in flight on a later turn; the memory of readers and subscribers goes then, too. */
static void client_close(struct client *k)
{
    k->is_closing = true;
    if (k->bus->is_dead)
        return; /* bus_close settles, memory_store_free frees */
    sl_timer_stop(&k->reconnect);
    client_cut(k, SL_ECLOSED, false);
    sl_post_now(&k->settle);
}

static struct request *request_of(const struct sl_str *arg, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += arg[i].len;
    struct request *r = sl_alloc(sizeof *r + count * sizeof *r->arg + bytes);
    r->count = count;
    r->arg = (struct sl_str *)(r + 1);
    char *at = (char *)(r->arg + count);
    for (size_t i = 0; i < count; i++) {
        if (arg[i].len > 0)
            memcpy(at, arg[i].ptr, arg[i].len);
        r->arg[i] = sl_str_n(at, arg[i].len);
        at += arg[i].len;
    }
    return r;
}

static struct request *request_from(const struct bus_args *args)
{
    struct sl_str *arg = sl_alloc((args->count + 1) * sizeof *arg);
    for (size_t i = 0; i < args->count; i++)
        arg[i] = sl_str_n(args->ptr[i], args->len[i]);
    struct request *r = request_of(arg, args->count);
    free(arg);
    return r;
}

static sl_err client_send(struct client *k, struct request *r, uint64_t deadline_ms, bus_reply_fn fn,
                          void *arg)
{
    if (k->bus->is_dead || k->connection == NULL || k->in_flight >= BUS_IN_FLIGHT_MAX) {
        free(r);
        return SL_EAGAIN;
    }
    struct waiter *w = sl_alloc(sizeof *w);
    *w =
        (struct waiter){.fn = fn, .arg = arg, .due_mono_ms = sl_loop_mono_ms(k->bus->bus.loop) + deadline_ms};
    queue_push(&k->connection->requests, r);
    queue_push(&k->waiters, w);
    if (k->in_flight++ == 0)
        client_arm_deadline(k);
    return SL_OK;
}

static void client_take_reply(struct client *k, const struct reply *r)
{
    struct waiter *w = queue_pop(&k->waiters), copy;
    sl_assert(w != NULL);
    copy = *w;
    free(w);
    k->in_flight--;
    client_arm_deadline(k);
    if (copy.fn == NULL)
        return;
    struct sl_fail why = {.code = SL_OK};
    sl_err err = bus_reply_error(r->value, &why);
    copy.fn(copy.arg, err, err == SL_OK ? (const struct bus_value *)r->value : NULL,
            err == SL_OK ? NULL : &why);
}

/* ---- struct bus_impl ---- */

static struct memory_bus *memory_bus_of(struct bus *b)
{
    return (struct memory_bus *)b;
}

static sl_err on_bus_command(struct bus *b, const struct bus_args *args, uint64_t deadline_ms,
                             bus_reply_fn fn, void *arg)
{
    struct client *k = memory_bus_of(b)->commands;
    return k != NULL ? client_send(k, request_from(args), deadline_ms, fn, arg) : SL_EAGAIN;
}

static void *on_reader_open(struct bus *b)
{
    return client_new(memory_bus_of(b), READER);
}

static void on_client_close(void *client)
{
    client_close(client);
}

static sl_err on_reader_command(void *reader, const struct bus_args *args, uint64_t deadline_ms,
                                bus_reply_fn fn, void *arg)
{
    return client_send(reader, request_from(args), deadline_ms, fn, arg);
}

/* As CLIENT UNBLOCK over the command connection: in order with the commands, without effect when nothing is
 * blocked then. */
static void on_reader_unblock(void *reader)
{
    const struct client *k = reader;
    if (k->connection == NULL || k->bus->commands == NULL)
        return;
    struct request *r = request_of(NULL, 0);
    r->unblocks = k->connection->number;
    (void)client_send(k->bus->commands, r, BUS_DEADLINE_MS, NULL, NULL);
}

static void *on_sub_open(struct bus *b,
                         void (*on_message)(void *arg, bool is_confirm, struct sl_str channel,
                                            struct sl_str payload),
                         void (*on_change)(void *arg, bool is_up), void *arg)
{
    struct client *k = client_new(memory_bus_of(b), SUBSCRIBER);
    k->on_message = on_message;
    k->on_change = on_change;
    k->arg = arg;
    return k;
}

static void on_sub_send(void *sub, bool subscribe, const struct sl_str *channels, size_t count)
{
    const struct client *k = sub;
    if (k->connection == NULL || k->bus->is_dead || count == 0)
        return;
    struct sl_str *arg = sl_alloc((count + 1) * sizeof *arg);
    arg[0] = subscribe ? SL_STR("SUBSCRIBE") : SL_STR("UNSUBSCRIBE");
    memcpy(arg + 1, channels, count * sizeof *arg);
    queue_push(&k->connection->requests, request_of(arg, count + 1));
    free(arg);
}

static void bus_forget(struct memory_bus *b)
{
    struct memory_bus **at = &b->store->buses;
    while (*at != b)
        at = &(*at)->next;
    *at = b->next;
    for (struct client *k = b->clients, *next; k != NULL; k = next) {
        next = k->next;
        if (k->connection != NULL)
            connection_break(b->store, k->connection, false);
        client_free(k);
    }
    if (!b->is_dead)
        sl_post_cancel(&b->gone);
    free(b);
}

static void on_bus_gone(void *arg)
{
    bus_forget(arg);
}

/* Of a killed process: its objects were freed, and whatever they still wait for may now give back its memory.
 */
static void settle_dead(struct memory_bus *b)
{
    struct sl_fail why;
    (void)sl_fail_set(&why, SL_ECLOSED, 0, "the process was killed");
    for (struct client *k = b->clients; k != NULL; k = k->next) {
        for (struct waiter *w;
             (w = queue_pop(&k->settling)) != NULL || (w = queue_pop(&k->waiters)) != NULL;) {
            struct waiter copy = *w;
            free(w);
            if (copy.fn != NULL)
                copy.fn(copy.arg, SL_ECLOSED, NULL, &why);
        }
    }
}

static void on_bus_close(struct bus *bus)
{
    struct memory_bus *b = memory_bus_of(bus);
    b->bus.events = (struct bus_events){NULL, NULL};
    if (b->is_dead) {
        settle_dead(b);
        return;
    }
    for (struct client *k = b->clients; k != NULL; k = k->next)
        client_close(k);
    sl_post_now(&b->gone);
}

static const struct bus_impl memory_impl = {
    .command = on_bus_command,
    .reader_open = on_reader_open,
    .reader_close = on_client_close,
    .reader_command = on_reader_command,
    .reader_unblock = on_reader_unblock,
    .sub_open = on_sub_open,
    .sub_close = on_client_close,
    .sub_send = on_sub_send,
    .close = on_bus_close,
};

struct bus *memory_bus_open(struct memory_store *s, unsigned process, struct sl_loop *l,
                            const struct bus_config *cfg, const struct bus_events *ev, void *arg)
{
    struct memory_bus *b = sl_alloc(sizeof *b);
    b->bus = (struct bus){.impl = &memory_impl, .loop = l, .events_arg = arg};
    if (ev != NULL)
        b->bus.events = *ev;
    b->store = s;
    b->process = process;
    b->wanted_partitions = cfg->partitions > 0 ? cfg->partitions : 1;
    sl_post_init(&b->gone, l, on_bus_gone, b);
    b->commands = client_new(b, COMMANDS);
    b->next = s->buses;
    s->buses = b;
    return &b->bus;
}

/* ---- the simulation's side ---- */

struct memory_store *memory_store_new(uint64_t seed)
{
    struct memory_store *s = sl_alloc(sizeof *s);
    s->data = memory_data_new();
    s->data->now_unix_ms = 1700000000000; /* as a virtual loop's clock at its start */
    s->data->owner = s;
    s->data->appended = on_appended;
    s->data->published = on_published;
    s->random_state = seed;
    return s;
}

void memory_store_free(struct memory_store **sp)
{
    struct memory_store *s = *sp;
    *sp = NULL;
    if (s == NULL)
        return;
    while (s->buses != NULL)
        bus_forget(s->buses);
    for (size_t i = 0; i < s->connections; i++)
        connection_free(s->connection[i]);
    free(s->connection);
    memory_arena_free(&s->peek);
    memory_data_free(&s->data);
    free(s);
}

void memory_store_clock(struct memory_store *s, int64_t unix_ms)
{
    s->data->now_unix_ms = unix_ms;
}

size_t memory_pending_requests(const struct memory_store *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->connections; i++)
        n += is_executable(s, s->connection[i]) ? 1 : 0;
    return n;
}

static struct connection *executable_at(const struct memory_store *s, size_t which)
{
    for (size_t i = 0; i < s->connections; i++)
        if (is_executable(s, s->connection[i]) && which-- == 0)
            return s->connection[i];
    return NULL;
}

void memory_execute(struct memory_store *s, size_t which)
{
    struct connection *c = executable_at(s, which);
    sl_assert(c != NULL);
    execute(s, c);
    if (c->client == NULL)
        sweep_connections(s);
}

unsigned memory_request_process(const struct memory_store *s, size_t which)
{
    const struct connection *c = executable_at(s, which);
    return c != NULL ? c->process : UINT_MAX;
}

struct sl_str memory_request_name(const struct memory_store *s, size_t which)
{
    const struct connection *c = executable_at(s, which);
    const struct request *r = c != NULL ? c->requests.head : NULL;
    if (r == NULL || r->count == 0)
        return SL_STR("CLIENT");
    return r->count > 1 && sl_str_eq_c(r->arg[0], "FCALL") ? r->arg[1] : r->arg[0];
}

struct sl_str memory_request_key(const struct memory_store *s, size_t which)
{
    const struct connection *c = executable_at(s, which);
    const struct request *r = c != NULL ? c->requests.head : NULL;
    if (r == NULL || r->count < 2)
        return SL_STR_NONE;
    return sl_str_eq_c(r->arg[0], "FCALL") && r->count > 3 ? r->arg[3] : r->arg[1];
}

bool memory_next_due(const struct memory_store *s, int64_t *unix_ms)
{
    bool any = false;
    for (size_t i = 0; i < s->connections; i++) {
        const struct connection *c = s->connection[i];
        if (!c->is_blocked || c->blocked_until_ms == INT64_MAX || (any && c->blocked_until_ms >= *unix_ms))
            continue;
        *unix_ms = c->blocked_until_ms;
        any = true;
    }
    return any;
}

size_t memory_pending_replies(const struct memory_store *s, unsigned process)
{
    size_t n = 0;
    for (size_t i = 0; i < s->connections; i++)
        n += s->connection[i]->process == process && s->connection[i]->replies.head != NULL ? 1 : 0;
    return n;
}

void memory_reply(struct memory_store *s, unsigned process, size_t which)
{
    struct connection *c = NULL;
    for (size_t i = 0; i < s->connections && c == NULL; i++)
        if (s->connection[i]->process == process && s->connection[i]->replies.head != NULL && which-- == 0)
            c = s->connection[i];
    sl_assert(c != NULL && c->client != NULL);
    struct reply *r = queue_pop(&c->replies);
    struct client *k = c->client;
    if (!r->is_push)
        client_take_reply(k, r);
    else if (!k->is_closing)
        k->on_message(k->arg, r->is_confirm, r->channel, r->payload);
    reply_free(r); /* neither c nor k may be touched any more: the callback can have closed them */
}

void memory_cut(struct memory_store *s, unsigned process)
{
    for (struct memory_bus *b = s->buses; b != NULL; b = b->next)
        for (struct client *k = b->clients; b->process == process && k != NULL; k = k->next)
            client_cut(k, SL_ECLOSED, false);
    sweep_connections(s);
}

static void client_kill(struct client *k)
{
    if (k->connection != NULL)
        connection_break(k->bus->store, k->connection, false);
    k->connection = NULL;
    k->in_flight = 0;
    sl_timer_stop(&k->deadline);
    sl_timer_stop(&k->reconnect);
    sl_post_cancel(&k->settle);
}

void memory_kill(struct memory_store *s, unsigned process)
{
    for (struct memory_bus *b = s->buses; b != NULL; b = b->next) {
        if (b->process != process)
            continue;
        b->is_dead = true;
        b->bus.is_ready = false;
        sl_post_cancel(&b->gone);
        for (struct client *k = b->clients; k != NULL; k = k->next)
            client_kill(k);
    }
    sweep_connections(s);
}

void memory_restart(struct memory_store *s)
{
    for (struct memory_bus *b = s->buses; b != NULL; b = b->next)
        for (struct client *k = b->clients; k != NULL; k = k->next)
            client_cut(k, SL_ECLOSED, true);
    for (size_t i = 0; i < s->connections; i++)
        queue_clear(&s->connection[i]->requests);
    sweep_connections(s);
}

void memory_lose_pushes(struct memory_store *s, unsigned per_thousand)
{
    s->lose_per_thousand = per_thousand;
}

const struct bus_value *memory_peek(struct memory_store *s, const struct bus_args *args)
{
    struct request *r = request_from(args);
    memory_arena_free(&s->peek);
    struct memory_call call = {.data = s->data, .arena = &s->peek, .arg = r->arg, .count = r->count};
    const redisReply *reply = memory_run(&call);
    free(r);
    return (const struct bus_value *)reply;
}
