#include "router/router.h"

#include "base/log.h"
#include "base/map.h"
#include "base/metrics.h"
#include "base/crypto.h"
#include "router/conversation.h"
#include "router/desk.h"
#include "router/orphans.h"
#include "router/rules.h"

#include <stdlib.h>

#define ROUTERS_CHANNEL  "sluice:routers:changed" /* a hint: look now instead of at the next survey */
#define STOP_DEADLINE_MS 5000
#define TAIL_COUNT       64

struct slot { /* one partition that this process may hold */
    struct router *router;
    struct part *part;
    char tag[KEY_TAG_MAX_BYTES];
    bool is_free; /* by the last survey: nobody holds a live lease */
    bool rules_told, is_asking_rules;
};

struct router {
    struct router_config cfg;
    char run[27];
    char rules_hash[17];
    char *rules_json;
    char **tenants;
    struct bus *bus;
    struct bus_tail *tail;
    struct bus_subscriber *subscriber;
    struct router_orphans *orphans;
    struct slot **slots;
    size_t slot_count;
    int64_t store_now_ms; /* the store's clock at the last survey */
    size_t routers_alive,
        rank; /* by the last survey: how many there are, and how many began before this one */
    struct sl_timer survey, stop_deadline;
    struct sl_post stopped_post;
    bool is_surveying, is_stopping;
    void (*stopped)(void *);
    void *stopped_arg;
    struct bus_args args;
    unsigned in_flight;
    bool is_freed;
};

static void survey_start(struct router *r);

/* ---- calls ---- */

struct router_call {
    struct router *r;
    struct slot *slot;
    void (*fn)(struct router *r, struct slot *slot, sl_err err, const struct bus_value *v);
};

static void router_finish(struct router *r)
{
    for (size_t i = 0; i < r->slot_count; i++)
        free(r->slots[i]);
    for (size_t i = 0; i < r->cfg.tenant_count; i++)
        free(r->tenants[i]);
    free(r->tenants);
    free(r->slots);
    free(r->rules_json);
    bus_args_fini(&r->args);
    free(r);
}

static void on_reply(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    (void)why;
    struct router_call call = *(struct router_call *)arg;
    free(arg);
    call.r->in_flight--;
    if (call.r->is_freed) {
        if (call.r->in_flight == 0)
            router_finish(call.r);
        return;
    }
    if (call.fn != NULL)
        call.fn(call.r, call.slot, err, v);
}

static bool ask(struct router *r, struct slot *slot,
                void (*fn)(struct router *, struct slot *, sl_err, const struct bus_value *))
{
    struct router_call *call = sl_alloc(sizeof(*call));
    *call = (struct router_call){.r = r, .slot = slot, .fn = fn};
    if (bus_command(r->bus, &r->args, BUS_DEADLINE_MS, on_reply, call) != SL_OK) {
        free(call);
        return false;
    }
    r->in_flight++;
    return true;
}

static void command(struct router *r, const char *const *words, size_t count)
{
    bus_args_clear(&r->args);
    for (size_t i = 0; i < count; i++)
        bus_args_c(&r->args, words[i]);
}
#define COMMAND(r, ...)                                                                                      \
    command((r), (const char *const[]){__VA_ARGS__},                                                         \
            sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

/* ---- rules ---- */

static void on_rules_read(struct router *r, struct slot *slot, sl_err err, const struct bus_value *v)
{
    slot->is_asking_rules = false;
    if (err != SL_OK || slot->part == NULL || part_state_now(slot->part) != PART_RUNNING)
        return;
    slot->rules_told = true;
    if (sl_str_find(bus_value_str(v), sl_str_c(r->rules_hash), &(size_t){0}))
        return;
    struct event ev = {.type = EVENT_RULES, .hash = sl_str_c(r->rules_hash), .data = sl_str_c(r->rules_json)};
    if (part_append(slot->part, &ev) != SL_OK)
        slot->rules_told = false;
}

static void tell_rules(struct slot *slot)
{
    struct router *r = slot->router;
    if (slot->rules_told || slot->is_asking_rules || r->rules_json == NULL || slot->part == NULL ||
        part_state_now(slot->part) != PART_RUNNING)
        return;
    struct key key = key_state("rules", slot->tag, RULES_ID);
    COMMAND(r, "HGET");
    bus_args_key(&r->args, &key);
    bus_args_c(&r->args, "s");
    slot->is_asking_rules = ask(r, slot, on_rules_read);
}

void router_set_rules(struct router *r, struct sl_str rules_json)
{
    unsigned char digest[32];
    char hex[65];
    if (r->rules_json != NULL && sl_str_eq_c(rules_json, r->rules_json))
        return; /* told, or about to be */
    free(r->rules_json);
    r->rules_json = NULL;
    if (rules_json.len == 0)
        return;
    r->rules_json = sl_str_dup(rules_json);
    sl_sha256(rules_json, digest);
    sl_hex(hex, digest, sizeof(digest));
    memcpy(r->rules_hash, hex, 16);
    for (size_t i = 0; i < r->slot_count; i++) {
        r->slots[i]->rules_told = false;
        tell_rules(r->slots[i]);
    }
}

/* Not in the log, or perhaps: the next survey asks what the partition knows. */
static void on_part_appended(void *arg, struct part *p, sl_err err)
{
    struct slot *slot = arg;
    (void)p;
    if (err != SL_OK)
        slot->rules_told = false;
}

/* ---- slots ---- */

static void stop_if_done(struct router *r)
{
    if (r->is_stopping && router_held(r) == 0)
        sl_post_now(&r->stopped_post);
}

static void on_part_changed(void *arg, struct part *p, enum part_state now, const struct sl_fail *why)
{
    struct slot *slot = arg;
    struct router *r = slot->router;
    if (now == PART_RUNNING) {
        sl_log(SL_INFO, "partition acquired", SL_KV("partition", slot->tag));
        tell_rules(slot);
    } else if (now == PART_LOST) {
        sl_log(SL_WARN, "partition not held", SL_KV("partition", part_tag(p)),
               SL_KV("why", why != NULL ? why->text : ""));
    } else if (now == PART_IDLE && !r->is_stopping) {
        COMMAND(r, "PUBLISH", ROUTERS_CHANNEL, r->run);
        (void)ask(r, NULL, NULL);
    }
    stop_if_done(r);
}

static struct slot *slot_find(struct router *r, const char *tag)
{
    for (size_t i = 0; i < r->slot_count; i++) {
        if (strcmp(r->slots[i]->tag, tag) == 0)
            return r->slots[i];
    }
    return NULL;
}

static void slot_add(struct router *r, const char *tag)
{
    if (slot_find(r, tag) != NULL || strlen(tag) >= KEY_TAG_MAX_BYTES)
        return;
    if (strncmp(tag, KEY_LANE_PREFIX, sizeof KEY_LANE_PREFIX - 1) == 0)
        return; /* gateways own delivery lanes */
    struct slot *slot = sl_alloc(sizeof(*slot));
    slot->router = r;
    memcpy(slot->tag, tag, strlen(tag) + 1);
    r->slots = sl_realloc(r->slots, (r->slot_count + 1) * sizeof(struct slot *));
    r->slots[r->slot_count++] = slot;
}

static bool slot_is_held(const struct slot *slot)
{
    if (slot->part == NULL)
        return false;
    enum part_state s = part_state_now(slot->part);
    return s != PART_IDLE && s != PART_LOST;
}

static void slot_acquire(struct router *r, struct slot *slot)
{
    if (slot->part == NULL) {
        struct part_config cfg = {.bus = r->bus,
                                  .tail = r->tail,
                                  .run = sl_str_c(r->run),
                                  .lease_ms = r->cfg.lease_ms,
                                  .history_keep = r->cfg.history_keep,
                                  .cache_max = r->cfg.cache_max};
        struct part_events events = {.changed = on_part_changed, .appended = on_part_appended};
        bool is_desk = strncmp(slot->tag, "desk:", 5) == 0;
        slot->part = part_new(&cfg, slot->tag, is_desk ? &desk_ops : &conversation_ops, &events, slot);
    }
    slot->rules_told = false;
    slot->is_free = false;
    part_acquire(slot->part);
}

size_t router_held(const struct router *r)
{
    size_t held = 0;
    for (size_t i = 0; i < r->slot_count; i++)
        held += slot_is_held(r->slots[i]) ? 1u : 0u;
    return held;
}

uint64_t router_lag_ms(const struct router *r)
{
    uint64_t worst = 0;
    for (size_t i = 0; i < r->slot_count; i++) {
        uint64_t lag = r->slots[i]->part == NULL ? 0 : part_lag_ms(r->slots[i]->part);
        worst = lag > worst ? lag : worst;
    }
    return worst;
}

/* ---- the survey: who is alive, what is free, what is my share ---- */

/* The oldest routers take one more each where the division leaves a rest, so a newcomer does not change who they are. */
static size_t share_of(const struct router *r)
{
    size_t alive = r->routers_alive == 0 ? 1 : r->routers_alive;
    return r->slot_count / alive + (r->rank < r->slot_count % alive ? 1 : 0);
}

/* Held, and not about to be let go. */
static size_t keeping(const struct router *r)
{
    size_t n = 0;
    for (size_t i = 0; i < r->slot_count; i++)
        n += slot_is_held(r->slots[i]) && part_state_now(r->slots[i]->part) != PART_RELEASING ? 1u : 0u;
    return n;
}

/* An even share, and minimal movement: whoever holds too many lets go, whoever holds too few takes what is
 * free. The order in which a router looks begins at a place of its own, so that two do not reach for the same
 * partition. */
static void take_share(struct router *r)
{
    size_t share = share_of(r), held = keeping(r);
    size_t start = (size_t)sl_str_hash(sl_str_c(r->run), 0) % (r->slot_count == 0 ? 1 : r->slot_count);
    for (size_t i = 0; i < r->slot_count && held < share; i++) {
        struct slot *slot = r->slots[(start + i) % r->slot_count];
        if (slot->is_free && !slot_is_held(slot)) {
            slot_acquire(r, slot);
            held++;
        }
    }
    for (size_t i = r->slot_count; i-- > 0 && held > share;) {
        struct slot *slot = r->slots[(start + i) % r->slot_count];
        if (slot->part != NULL && part_state_now(slot->part) == PART_RUNNING) {
            part_release(slot->part);
            held--;
        }
    }
    for (size_t i = 0; i < r->slot_count; i++)
        tell_rules(r->slots[i]);
    sl_gauge_set(sl_gauge("sluice_partitions_held", "", "partitions that this router holds"),
                 (int64_t)router_held(r));
    sl_gauge_set(sl_gauge("sluice_router_lag_ms", "", "age of the oldest event read but not committed"),
                 (int64_t)router_lag_ms(r));
}

static void survey_end(struct router *r)
{
    r->is_surveying = false;
    if (!r->is_stopping)
        sl_timer_start(&r->survey, r->cfg.survey_ms);
}

static void on_survey_done(struct router *r, struct slot *slot, sl_err err, const struct bus_value *v)
{
    (void)slot, (void)v;
    if (err == SL_OK && !r->is_stopping)
        take_share(r);
    survey_end(r);
}

static void on_lease_read(struct router *r, struct slot *slot, sl_err err, const struct bus_value *v)
{
    int64_t until = bus_value_int(bus_value_at(v, 1));
    slot->is_free =
        err == SL_OK && (bus_value_type(bus_value_at(v, 0)) != BUS_STR || until <= r->store_now_ms);
    if (err == SL_OK && sl_str_eq_c(bus_value_str(bus_value_at(v, 0)), r->run))
        slot->is_free = true; /* our own lease of a moment ago, lost or never answered */
}

static void read_leases(struct router *r)
{
    for (size_t i = 0; i < r->slot_count; i++) {
        struct slot *slot = r->slots[i];
        slot->is_free = false;
        if (slot_is_held(slot))
            continue;
        struct key key = key_meta(slot->tag);
        COMMAND(r, "HMGET");
        bus_args_key(&r->args, &key);
        bus_args_c(&r->args, "run");
        bus_args_c(&r->args, "until");
        (void)ask(r, slot, on_lease_read);
    }
    COMMAND(r, "PING");
    if (!ask(r, NULL, on_survey_done))
        survey_end(r);
}

static void on_extra(struct router *r, struct slot *slot, sl_err err, const struct bus_value *v)
{
    (void)slot;
    if (err != SL_OK) {
        survey_end(r);
        return;
    }
    char tag[KEY_TAG_MAX_BYTES];
    for (unsigned k = 0; k < bus_partitions(r->bus); k++) {
        key_partition_tag(tag, k);
        slot_add(r, tag);
    }
    for (size_t i = 0; i < bus_value_count(v); i++) {
        struct sl_str s = bus_value_str(bus_value_at(v, i));
        if (s.len >= sizeof(tag))
            continue;
        memcpy(tag, s.ptr, s.len);
        tag[s.len] = '\0';
        slot_add(r, tag);
    }
    read_leases(r);
}

/* Run ids are ULIDs: an earlier one began earlier. */
static void on_alive(struct router *r, struct slot *slot, sl_err err, const struct bus_value *v)
{
    (void)slot;
    if (err != SL_OK)
        return;
    r->routers_alive = bus_value_count(v);
    r->rank = 0;
    for (size_t i = 0; i < r->routers_alive; i++) {
        struct sl_str run = bus_value_str(bus_value_at(v, i));
        size_t n = run.len < sizeof(r->run) ? run.len : sizeof(r->run);
        r->rank += memcmp(run.ptr, r->run, n) < 0 ? 1u : 0u;
    }
}

/* A router silent for as long as its leases last, or for three surveys, is not counted. */
static int64_t alive_ms(const struct router *r)
{
    uint64_t surveys = 3 * r->cfg.survey_ms;
    return (int64_t)(surveys > r->cfg.lease_ms ? surveys : r->cfg.lease_ms);
}

static void ask_number(struct router *r, int64_t n)
{
    bus_args_int(&r->args, n);
}

static void on_time(struct router *r, struct slot *slot, sl_err err, const struct bus_value *v)
{
    (void)slot;
    if (err != SL_OK) {
        survey_end(r);
        return;
    }
    r->store_now_ms = bus_value_int(bus_value_at(v, 0)) * 1000 + bus_value_int(bus_value_at(v, 1)) / 1000;
    COMMAND(r, "ZADD", KEY_ROUTERS);
    ask_number(r, r->store_now_ms);
    bus_args_c(&r->args, r->run);
    (void)ask(r, NULL, NULL);
    COMMAND(r, "ZREMRANGEBYSCORE", KEY_ROUTERS, "-inf");
    ask_number(r, r->store_now_ms - 10 * alive_ms(r));
    (void)ask(r, NULL, NULL);
    COMMAND(r, "ZRANGEBYSCORE", KEY_ROUTERS);
    ask_number(r, r->store_now_ms - alive_ms(r));
    bus_args_c(&r->args, "+inf");
    (void)ask(r, NULL, on_alive);
    for (size_t i = 0; i < r->cfg.tenant_count; i++) {
        char tag[KEY_TAG_MAX_BYTES];
        key_desk_tag(tag, sl_str_c(r->tenants[i]));
        COMMAND(r, "SADD", KEY_EXTRA, tag);
        (void)ask(r, NULL, NULL);
    }
    COMMAND(r, "SMEMBERS", KEY_EXTRA);
    if (!ask(r, NULL, on_extra))
        survey_end(r);
}

static void survey_start(struct router *r)
{
    if (r->is_surveying || r->is_stopping || r->bus == NULL || !bus_is_ready(r->bus))
        return;
    sl_timer_stop(&r->survey);
    r->is_surveying = true;
    COMMAND(r, "TIME");
    if (!ask(r, NULL, on_time))
        survey_end(r);
}

static void on_survey_timer(void *arg)
{
    struct router *r = arg;
    if (bus_is_ready(r->bus))
        survey_start(r);
    else
        sl_timer_start(&r->survey, r->cfg.survey_ms);
}

static void on_hint(void *arg, struct sl_str channel, struct sl_str payload)
{
    (void)channel, (void)payload;
    survey_start(arg);
}

static void on_hint_confirmed(void *arg, struct sl_str channel)
{
    (void)arg, (void)channel;
}

static void on_hint_lost(void *arg)
{
    (void)arg; /* the next survey comes by itself */
}

/* ---- the store comes and goes ---- */

static void on_ready(void *arg, bool is_ready)
{
    if (is_ready)
        survey_start(arg);
}

static void on_unfit(void *arg, const struct sl_fail *why)
{
    (void)arg;
    sl_log(SL_ERROR, "the store cannot be used", SL_KV_FAIL(why));
}

const struct bus_events router_bus_events = {.ready = on_ready, .unfit = on_unfit};

/* ---- life ---- */

static void on_stopped(void *arg)
{
    struct router *r = arg;
    void (*stopped)(void *) = r->stopped;
    r->stopped = NULL;
    sl_timer_stop(&r->stop_deadline);
    if (stopped == NULL)
        return;
    COMMAND(r, "ZREM", KEY_ROUTERS, r->run);
    (void)ask(r, NULL, NULL);
    COMMAND(r, "PUBLISH", ROUTERS_CHANNEL, r->run);
    (void)ask(r, NULL, NULL);
    stopped(r->stopped_arg);
}

struct router *router_new(const struct router_config *cfg)
{
    struct router *r = sl_alloc(sizeof(*r));
    r->cfg = *cfg;
    sl_assert(cfg->run.len < sizeof(r->run));
    memcpy(r->run, cfg->run.ptr, cfg->run.len);
    r->tenants = sl_alloc((cfg->tenant_count + 1) * sizeof(char *));
    for (size_t i = 0; i < cfg->tenant_count; i++)
        r->tenants[i] = sl_strdup(cfg->tenants[i]);
    bus_args_init(&r->args);
    sl_timer_init(&r->survey, cfg->loop, on_survey_timer, r);
    sl_timer_init(&r->stop_deadline, cfg->loop, on_stopped, r);
    sl_post_init(&r->stopped_post, cfg->loop, on_stopped, r);
    router_set_rules(r, cfg->rules_json);
    return r;
}

static bool is_oldest(void *arg)
{
    const struct router *r = arg;
    return r->routers_alive > 0 && r->rank == 0 && !r->is_stopping && bus_is_ready(r->bus);
}

void router_attach(struct router *r, struct bus *bus)
{
    static const struct bus_subscriber_ops ops = {
        .confirmed = on_hint_confirmed, .message = on_hint, .lost = on_hint_lost};
    r->bus = bus;
    r->tail = bus_tail_open(bus, TAIL_COUNT, part_on_entries, NULL);
    r->subscriber = bus_subscriber_open(bus, &ops, r);
    bus_subscribe(r->subscriber, SL_STR(ROUTERS_CHANNEL));
    r->orphans = router_orphans_new(r->cfg.loop, bus, is_oldest, r);
    sl_timer_start(&r->survey, r->cfg.survey_ms);
}

void router_release_all(struct router *r, void (*stopped)(void *arg), void *arg)
{
    r->is_stopping = true;
    r->stopped = stopped;
    r->stopped_arg = arg;
    sl_timer_stop(&r->survey);
    sl_timer_start(&r->stop_deadline, STOP_DEADLINE_MS);
    for (size_t i = 0; i < r->slot_count; i++) {
        if (r->slots[i]->part != NULL)
            part_release(r->slots[i]->part);
    }
    stop_if_done(r);
}

void router_free(struct router **pr)
{
    struct router *r = *pr;
    *pr = NULL;
    if (r == NULL)
        return;
    sl_timer_stop(&r->survey);
    sl_timer_stop(&r->stop_deadline);
    sl_post_cancel(&r->stopped_post);
    for (size_t i = 0; i < r->slot_count; i++)
        part_free(&r->slots[i]->part);
    router_orphans_free(&r->orphans);
    bus_subscriber_close(&r->subscriber);
    bus_tail_close(&r->tail);
    r->is_freed = true;
    if (r->in_flight == 0)
        router_finish(r);
}
