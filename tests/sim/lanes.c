/* tests/sim/lanes.c - gateways that own the delivery lane, and a provider that loses, doubts and repeats; what it may never be asked.
 *
 * What     the lane's own step() over the real machinery: leases, commits, deeds. gateway/delivery.c is played here in a few lines, for
 *          the rest of a gateway is not simulated.
 * Parts    a message has one to three, some of two pieces, of which the provider may take one and refuse the other (a throttled
 *          segment of a short message).
 * Judged   by the provider, at the moment it takes a piece: never twice under at_most_once and queryable, one key for one part, each
 *          conversation in its order. A sender that lost its lease while its call was under way is excused: nobody can fence that.
 */
#include "gateway/lane.h"

#include "base/fault.h"
#include "bus/partition.h"
#include "base/ulid.h"

#include "sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define LEASE_MS  1500
#define SURVEY_MS 300
#define WORD_MS   150
#define CALL_MS   400

struct sim_job { /* one call to the provider; its memory goes with the world */
    struct sim_job *next;
    struct process *process;
    unsigned pid;
    char send[100], key[40];
    int64_t number, attempt, epoch;
    bool is_told, is_query, had_first; /* had_first: an earlier try brought the first piece there */
    const char *reason, *hints, *done;
    char ids[48];
    struct sl_timer timer;
};

static bool is_mine(const struct sim_job *j)
{
    return j->process->is_alive && !j->process->is_doomed && j->process->pid == j->pid;
}

/* ---- the provider ---- */

static struct sim_taken *taken_by_key(struct world *w, const char *key)
{
    for (struct sim_taken *t = w->taken; t != NULL; t = t->next)
        if (strcmp(t->key, key) == 0)
            return t;
    return NULL;
}

static int64_t number_of(const char *send)
{
    const char *slash = strchr(send, '/');
    return slash != NULL ? strtoll(slash + 1, NULL, 10) : 0;
}

static bool is_of(const char *a, const char *b) /* the same conversation */
{
    size_t n = strcspn(a, "/");
    return strncmp(a, b, n) == 0 && b[n] == '/';
}

static void judge_order(struct world *w, const struct sim_job *j)
{
    for (const struct sim_taken *t = w->taken; t != NULL; t = t->next)
        if (is_of(t->send, j->send) && number_of(t->send) > number_of(j->send))
            sim_fail(w, "I3 the provider was given %s after %s", j->send, t->send);
}

/* How a message is cut; the same for whoever asks. */
static int64_t parts_of(const char *send)
{
    uint64_t hash = sl_str_hash(sl_str_c(send), 1);
    return hash % 4 == 0 ? 2 + (int64_t)(hash / 4 % 2) : 1;
}

static int pieces_of(const char *send)
{
    return sl_str_hash(sl_str_c(send), 2) % 4 == 0 ? 2 : 1;
}

static void name_piece(const struct sim_job *j, int piece, char out[SIM_PIECE_BYTES])
{
    (void)snprintf(out, SIM_PIECE_BYTES, "%s.%d", j->key, piece);
}

static void take(struct world *w, struct sim_job *j, int piece)
{
    char name[SIM_PIECE_BYTES];
    name_piece(j, piece, name);
    char meta[KEY_MAX_BYTES + 1];
    const struct key key = key_meta(w->tag[SIM_LANE]);
    (void)snprintf(meta, sizeof meta, "%.*s", (int)key.len, key.ptr);
    const bool is_owner = bus_value_int(SIM_PEEK(w, "HGET", meta, "epoch")) == j->epoch;
    struct sim_taken *t = taken_by_key(w, name);
    if (t != NULL) {
        t->times++;
        if (w->policy == LANE_AT_MOST_ONCE || (w->policy == LANE_QUERYABLE && is_owner))
            sim_fail(w, "the provider was given %s part %" PRId64 " piece %d twice", j->send, j->number,
                     piece);
        return;
    }
    if (is_owner)
        judge_order(w, j);
    t = sl_alloc(sizeof *t);
    *t = (struct sim_taken){.next = w->taken, .times = 1, .number = ++w->taken_count};
    (void)snprintf(t->key, sizeof t->key, "%s", name);
    (void)snprintf(t->send, sizeof t->send, "%s", j->send);
    w->taken = t;
    sim_trace(w, "provider takes %s part %" PRId64 " piece %d", j->send, j->number, piece);
}

/* What the provider has of this part: how many pieces, and their ids. */
static int count_taken(struct world *w, const struct sim_job *j, char ids[48])
{
    int count = 0;
    size_t n = 0;
    ids[0] = '\0';
    for (int piece = 0; piece < pieces_of(j->send); piece++) {
        char name[SIM_PIECE_BYTES];
        name_piece(j, piece, name);
        const struct sim_taken *t = taken_by_key(w, name);
        if (t == NULL)
            continue;
        n += (size_t)snprintf(ids + n, 48 - n, "%sp%" PRIu64, count > 0 ? "," : "", t->number);
        count++;
    }
    return count;
}

/* ---- words on their way to the lane's log ---- */

static void append_word(struct sim_job *j);

static void on_appended(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct sim_job *j = arg;
    (void)v;
    (void)why;
    if (err != SL_OK && is_mine(j))
        sl_timer_start(&j->timer, WORD_MS);
}

static void append_event(struct process *p, const struct event *ev, bus_reply_fn fn, void *arg,
                         struct sl_timer *again)
{
    struct bus_args a;
    struct event_fields fields;
    struct key in = key_in(p->w->tag[SIM_LANE]);
    bus_args_init(&a);
    event_to_fields(ev, &fields);
    bus_args_c(&a, "XADD");
    bus_args_key(&a, &in);
    bus_args_c(&a, "*");
    for (size_t i = 0; i < fields.count; i++)
        bus_args_str(&a, fields.item[i]);
    if (bus_command(p->bus, &a, BUS_DEADLINE_MS, fn, arg) != SL_OK && again != NULL)
        sl_timer_start(again, WORD_MS);
    bus_args_fini(&a);
}

static void append_word(struct sim_job *j)
{
    const struct event ev = {.type = EVENT_SETTLED,
                             .id = sl_str_c(j->send),
                             .number = j->number,
                             .gen = j->attempt,
                             .control = j->epoch,
                             .capacity = parts_of(j->send),
                             .reason = sl_str_c(j->reason),
                             .name = sl_str_c(j->hints),
                             .remote = sl_str_c(j->ids),
                             .done = sl_str_c(j->done),
                             .text = SL_STR("the provider's words")};
    append_event(j->process, &ev, on_appended, j, &j->timer);
    if (sim_chance(j->process->w, 100)) /* an append whose answer was lost is made again */
        append_event(j->process, &ev, on_appended, j, NULL);
}

static void on_receipt_appended(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    (void)arg;
    (void)err;
    (void)v;
    (void)why;
}

/* Early, late, twice and in any order. */
static void some_receipts(struct process *p)
{
    static const char *const words[] = {"delivered", "read", "failed", "sent"};
    struct world *w = p->w;
    for (uint64_t n = sim_random(w, 3); n > 0 && w->taken_count > 0; n--) {
        char id[24];
        (void)snprintf(id, sizeof id, "p%" PRIu64, 1 + sim_random(w, w->taken_count));
        const struct event ev = {
            .type = EVENT_RECEIPT, .remote = sl_str_c(id), .reason = sl_str_c(words[sim_random(w, 4)])};
        append_event(p, &ev, on_receipt_appended, NULL, NULL);
    }
}

/* ---- jobs ---- */

/* Every piece that is not there already, as far as the adapter knows. */
static void take_all(struct world *w, struct sim_job *j)
{
    for (int piece = j->had_first ? 1 : 0; piece < pieces_of(j->send); piece++)
        take(w, j, piece);
}

/* One piece is taken and the next is throttled. */
static void take_first(struct world *w, struct sim_job *j)
{
    take(w, j, 0);
    (void)count_taken(w, j, j->ids);
    j->done = "first";
}

/* The provider is asked what it has. Of a part that is there in pieces nobody can say that it was sent. */
static void look_up(struct sim_job *j, uint64_t dice)
{
    int count = count_taken(j->process->w, j, j->ids);
    if (dice >= 70)
        j->reason = dice < 85 ? "unknown" : "not_begun";
    else
        j->reason = count == 0 ? "never" : count == pieces_of(j->send) ? "sent" : "unknown";
    if (strcmp(j->reason, "sent") != 0)
        j->ids[0] = '\0';
}

static void decide(struct sim_job *j)
{
    struct world *w = j->process->w;
    uint64_t dice = w->is_healed ? 0 : sim_random(w, 100);
    j->is_told = true;
    if (j->is_query) {
        look_up(j, dice);
    } else if (dice < 70) {
        take_all(w, j);
        if (dice < 60)
            (void)count_taken(w, j, j->ids);
        j->reason = dice < 60 ? "sent" : "unknown";
    } else if (dice < 78) {
        j->reason = "unknown";
    } else if (dice < 86) {
        j->reason = "not_begun";
    } else {
        if (pieces_of(j->send) > 1 && !j->had_first)
            take_first(w, j);
        j->reason = "failed";
        j->hints = dice < 93 ? "retry" : dice < 97 ? "retry,account" : "";
    }
}

static void on_job(void *arg)
{
    struct sim_job *j = arg;
    if (!j->is_told) {
        bool is_too_late = !part_is_leased(j->process->lane) || part_epoch(j->process->lane) != j->epoch;
        if (is_too_late && !sl_mutant("lane-forget-epoch")) {
            j->is_told = true;
            j->reason = "not_begun";
        } else {
            decide(j);
        }
        some_receipts(j->process);
    }
    append_word(j);
}

static void on_deed(void *arg, struct part *p, const struct event *deed)
{
    struct process *process = arg;
    struct world *w = process->w;
    struct sim_job *j = sl_alloc(sizeof *j);
    (void)p;
    *j = (struct sim_job){.next = w->jobs,
                          .process = process,
                          .pid = process->pid,
                          .number = deed->number,
                          .attempt = deed->gen,
                          .epoch = deed->control,
                          .is_query = deed->type == EVENT_QUERY,
                          .had_first = deed->done.len > 0,
                          .hints = "",
                          .done = ""};
    (void)snprintf(j->send, sizeof j->send, "%.*s", (int)deed->conv.len, deed->conv.ptr);
    (void)snprintf(j->key, sizeof j->key, "%.*s", (int)deed->hash.len, deed->hash.ptr);
    w->jobs = j;
    sl_timer_init(&j->timer, process->loop, on_job, j);
    sl_timer_start(&j->timer, sim_random(w, sim_chance(w, 200) ? CALL_MS : 20));
    sim_trace(w, "deed %s %s part %" PRId64 " try %" PRId64, j->is_query ? "query" : "send", j->send,
              j->number, j->attempt);
}

/* ---- the lane's owner ---- */

static void on_changed(void *arg, struct part *p, enum part_state now, const struct sl_fail *why)
{
    struct process *process = arg;
    (void)p;
    (void)why;
    process->is_lane_told = false;
    if (now == PART_RUNNING)
        sl_timer_start(&process->lane_timer, 0);
}

static void on_part_appended(void *arg, struct part *p, sl_err err)
{
    (void)p;
    if (err != SL_OK)
        ((struct process *)arg)->is_lane_told = false;
}

static void on_survey(void *arg)
{
    struct process *process = arg;
    char limits[160];
    enum part_state now = part_state_now(process->lane);
    sl_timer_start(&process->lane_timer, SURVEY_MS / 2 + sim_random(process->w, SURVEY_MS));
    if (now == PART_IDLE || now == PART_LOST) {
        part_acquire(process->lane);
        return;
    }
    if (now != PART_RUNNING || process->is_lane_told)
        return;
    int n = snprintf(limits, sizeof limits,
                     "{\"policy\":%d,\"window\":4,\"tries\":4,\"grace_ms\":500,\"deadline_ms\":600000,"
                     "\"rate\":200,\"burst\":20}",
                     process->w->policy);
    const struct event ev = {.type = EVENT_LANE, .hash = SL_STR("h"), .data = sl_str_n(limits, (size_t)n)};
    process->is_lane_told = part_append(process->lane, &ev) == SL_OK;
}

void lanes_start(struct process *p, const struct bus_config *cfg)
{
    char run[SL_ULID_LEN + 1];
    sl_ulid_derive(run, p->w->unix_ms, p->pid, 0, p->w->seed);
    p->bus = memory_bus_open(p->w->store, p->pid, p->loop, cfg, NULL, NULL);
    p->lane_tail = bus_tail_open(p->bus, 16, part_on_entries, NULL);
    const struct part_config pc = {.bus = p->bus,
                                   .tail = p->lane_tail,
                                   .run = sl_str_c(run),
                                   .lease_ms = LEASE_MS,
                                   .history_keep = 1,
                                   .cache_max = 64};
    const struct part_events events = {.changed = on_changed, .appended = on_part_appended, .deed = on_deed};
    p->lane = part_new(&pc, p->w->tag[SIM_LANE], &gw_lane_ops, &events, p);
    p->is_lane_told = false;
    sl_timer_init(&p->lane_timer, p->loop, on_survey, p);
    sl_timer_start(&p->lane_timer, sim_random(p->w, SURVEY_MS));
}

/* What the process had under way is lost with it; the provider may have taken it or not. */
void lanes_take_apart(struct process *p)
{
    for (struct sim_job *j = p->w->jobs; j != NULL; j = j->next)
        if (j->process == p && j->pid == p->pid)
            sl_timer_stop(&j->timer);
    if (p->lane == NULL)
        return;
    sl_timer_stop(&p->lane_timer);
    part_free(&p->lane);
    bus_tail_close(&p->lane_tail);
}

void lanes_free(struct world *w)
{
    for (struct sim_job *j = w->jobs, *next; j != NULL; j = next) {
        next = j->next;
        free(j);
    }
    for (struct sim_taken *t = w->taken, *next; t != NULL; t = next) {
        next = t->next;
        free(t);
    }
    w->jobs = NULL;
    w->taken = NULL;
}

/* ---- judging what is stored ---- */

bool lanes_has_all(const struct world *w, const char *send)
{
    int64_t count = 0;
    for (const struct sim_taken *t = w->taken; t != NULL; t = t->next)
        count += strcmp(t->send, send) == 0;
    return count == parts_of(send) * pieces_of(send);
}
