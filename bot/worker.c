/* bot/worker.c - a task's way: taken -> (delayed) -> to be added -> adding -> to be acked -> acking -> free.
 *
 * An answer is added again until the store has said yes, or the task is overdue: a second one of a turn is
 * refused by step(). An acknowledgement is repeated likewise. A task lost between the two stays pending at
 * the store, and is taken over.
 */
#include "bot/worker.h"

#include "base/log.h"
#include "base/metrics.h"
#include "proto/message.h"

#include <stdlib.h>

#define BLOCK_MS           1000  /* a blocked read lets go of its connection at least each second */
#define READ_MARGIN_MS     2000  /* the store may be slow beyond BLOCK before the read counts as lost */
#define RETRY_MS           100   /* between attempts while the store is not able; jittered to twice that */
#define CLAIM_EVERY_MS     2000  /* jittered by a half; also how often the store's clock is asked for */
#define ACK_WITHIN_MS      5     /* acknowledgements wait for company: with AOF always a write is a sync */
#define ENTRY_ID_MAX_BYTES 44    /* two 64-bit numbers and a dash */
#define JOB_KEEP_BYTES     16384 /* a free job gives back more memory than this */

struct job {
    struct job *next;
    struct bot_worker *w;
    bool is_used;
    char id[ENTRY_ID_MAX_BYTES];
    size_t id_len;
    struct sl_buf bytes; /* everything that reply_to and answer point to */
    struct sl_str reply_to;
    struct event answer;
    int64_t due_unix_ms;   /* 0: none */
    uint64_t send_mono_ms; /* not before; delay_ms */
};
struct job_list {
    struct job *head, *tail;
};

struct bot_worker {
    struct bus *bus;
    struct sl_loop *loop;
    struct bus_reader *reader;
    const struct bot_worker_ops *ops;
    void *arg;
    struct key stream;
    char *consumer;
    uint64_t claim_idle_ms, delay_ms, drain_ms;
    struct bus_args args;
    struct sl_buf text; /* scratch of one answer */
    struct job *jobs;
    struct job_list free, delayed, to_add, to_ack, acking;
    size_t used;
    char own_after[ENTRY_ID_MAX_BYTES + 1]; /* reading our own pending tasks, after this id */
    char claim_cursor[ENTRY_ID_MAX_BYTES + 1];
    int64_t clock_offset_ms; /* the store's clock minus ours */
    unsigned in_flight;      /* callbacks still to come */
    bool has_group, is_creating, is_reading, is_reading_own, is_claiming, is_acking;
    bool is_draining, is_leaving, has_stopped, is_freed;
    struct sl_timer retry, claim, due, deadline, ack;
    struct sl_post turn;
};

static void run(struct bot_worker *w);
static void on_turn(void *arg);
static void on_retry(void *arg);
static void on_claim_time(void *arg);
static void on_delay_over(void *arg);
static void on_drain_over(void *arg);
static void read_tasks(struct bot_worker *w);
static void add_answers(struct bot_worker *w);
static void acknowledge(struct bot_worker *w);
static void leave(struct bot_worker *w);

/* Lists. */

static void push(struct job_list *l, struct job *j)
{
    j->next = NULL;
    if (l->tail != NULL)
        l->tail->next = j;
    else
        l->head = j;
    l->tail = j;
}

static struct job *pop(struct job_list *l)
{
    struct job *j = l->head;
    if (j == NULL)
        return NULL;
    l->head = j->next;
    if (l->head == NULL)
        l->tail = NULL;
    return j;
}

static void move_all(struct job_list *from, struct job_list *to)
{
    for (struct job *j; (j = pop(from)) != NULL;)
        push(to, j);
}

/* Life. */

struct bot_worker *bot_worker_start(const struct bot_worker_config *cfg, const struct bot_worker_ops *ops,
                                    void *arg)
{
    struct bot_worker *w = sl_alloc(sizeof *w);
    w->bus = cfg->bus;
    w->loop = bus_loop(cfg->bus);
    w->reader = bus_reader_open(cfg->bus);
    w->ops = ops;
    w->arg = arg;
    w->stream = key_bot(cfg->name);
    w->consumer = sl_str_dup(cfg->consumer);
    w->claim_idle_ms = cfg->claim_idle_ms;
    w->delay_ms = cfg->delay_ms;
    w->drain_ms = cfg->drain_ms;
    bus_args_init(&w->args);
    sl_buf_init(&w->text, MSG_TEXT_MAX_BYTES);
    w->jobs = sl_alloc(BOT_WORKER_JOBS * sizeof *w->jobs);
    for (size_t i = 0; i < BOT_WORKER_JOBS; i++) {
        w->jobs[i].w = w;
        push(&w->free, &w->jobs[i]);
    }
    w->is_reading_own = true;
    w->own_after[0] = '0';
    w->claim_cursor[0] = '0';
    sl_timer_init(&w->retry, w->loop, on_retry, w);
    sl_timer_init(&w->claim, w->loop, on_claim_time, w);
    sl_timer_init(&w->due, w->loop, on_delay_over, w);
    sl_timer_init(&w->deadline, w->loop, on_drain_over, w);
    sl_timer_init(&w->ack, w->loop, on_retry, w);
    sl_post_init(&w->turn, w->loop, on_turn, w);
    sl_gauge_max(sl_gauge("sluice_bot_in_flight", "", "tasks in hand"), BOT_WORKER_JOBS);
    sl_timer_start(&w->claim, sl_loop_jitter(w->loop, CLAIM_EVERY_MS));
    sl_post_now(&w->turn);
    return w;
}

static void worker_release(struct bot_worker *w)
{
    for (size_t i = 0; i < BOT_WORKER_JOBS; i++)
        sl_buf_fini(&w->jobs[i].bytes);
    bus_args_fini(&w->args);
    sl_buf_fini(&w->text);
    free(w->jobs);
    free(w->consumer);
    free(w);
}

/* Every callback begins with this. false: the worker is gone, touch nothing. */
static bool settled(struct bot_worker *w)
{
    sl_assert(w->in_flight > 0);
    w->in_flight--;
    if (!w->is_freed)
        return true;
    if (w->in_flight == 0)
        worker_release(w);
    return false;
}

static void stop_timers(struct bot_worker *w)
{
    sl_timer_stop(&w->retry);
    sl_timer_stop(&w->claim);
    sl_timer_stop(&w->due);
    sl_timer_stop(&w->deadline);
    sl_timer_stop(&w->ack);
    sl_post_cancel(&w->turn);
}

void bot_worker_free(struct bot_worker **wp)
{
    struct bot_worker *w = *wp;
    *wp = NULL;
    if (w == NULL)
        return;
    w->is_freed = true;
    stop_timers(w);
    w->in_flight++; /* a hold of our own while the reader closes */
    bus_reader_close(&w->reader);
    (void)settled(w);
}

void bot_worker_wake(struct bot_worker *w)
{
    sl_post_now(&w->turn);
}

size_t bot_worker_in_hand(const struct bot_worker *w)
{
    return w->used;
}

static bool command(struct bot_worker *w, bus_reply_fn fn, void *arg)
{
    if (bus_command(w->bus, &w->args, BUS_DEADLINE_MS, fn, arg) != SL_OK)
        return false;
    w->in_flight++;
    return true;
}

static void later(struct bot_worker *w)
{
    if (!sl_timer_is_active(&w->retry))
        sl_timer_start(&w->retry, RETRY_MS + sl_loop_jitter(w->loop, RETRY_MS));
}

static int64_t store_unix_ms(const struct bot_worker *w)
{
    return sl_loop_unix_ms(w->loop) + w->clock_offset_ms;
}

/* Does everything that can be done now; harmless at any time. */
static void run(struct bot_worker *w)
{
    if (w->has_stopped)
        return;
    add_answers(w);
    acknowledge(w);
    read_tasks(w);
    leave(w);
}

static void on_turn(void *arg)
{
    run(arg);
}

static void on_retry(void *arg)
{
    run(arg);
}

/* Jobs. */

static void job_free(struct job *j)
{
    struct bot_worker *w = j->w;
    sl_assert(j->is_used && w->used > 0);
    j->is_used = false;
    w->used--;
    if (j->bytes.cap > JOB_KEEP_BYTES)
        sl_buf_fini(&j->bytes);
    push(&w->free, j);
}

static bool is_in_hand(const struct bot_worker *w, struct sl_str id)
{
    for (size_t i = 0; i < BOT_WORKER_JOBS && w->used > 0; i++) {
        const struct job *j = &w->jobs[i];
        if (j->is_used && sl_str_eq(sl_str_n(j->id, j->id_len), id))
            return true;
    }
    return false;
}

static struct job *job_new(struct bot_worker *w, struct sl_str id)
{
    struct job *j = pop(&w->free);
    sl_assert(j != NULL);
    j->is_used = true;
    j->id_len = id.len;
    memcpy(j->id, id.ptr, id.len);
    sl_buf_clear(&j->bytes);
    j->answer = (struct event){.type = EVENT_ANSWER};
    j->due_unix_ms = 0;
    w->used++;
    return j;
}

/* The strings of an answer, and where they come from. They are copied into the job in one piece. */
struct copy {
    struct sl_str *to;
    struct sl_str from;
};

static void job_keep(struct job *j, const struct copy *copies, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sl_buf_str(&j->bytes, copies[i].from);
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        *copies[i].to =
            copies[i].from.len == 0 ? SL_STR_NONE : sl_str_n(j->bytes.ptr + at, copies[i].from.len);
        at += copies[i].from.len;
    }
}

static void job_answer(struct job *j, const struct event *task)
{
    struct bot_worker *w = j->w;
    struct bot_reply reply = {.text = &w->text, .data = SL_STR_NONE, .reason = SL_STR_NONE};
    sl_buf_clear(&w->text);
    w->ops->answer(w->arg, task, &reply);
    sl_assert(!w->text.overflow);
    const struct copy copies[] = {
        {&j->reply_to, task->reply_to},           {&j->answer.conv, task->conv},
        {&j->answer.text, sl_buf_view(&w->text)}, {&j->answer.data, reply.data},
        {&j->answer.reason, reply.reason},        {&j->answer.trace, task->trace},
    };
    job_keep(j, copies, sizeof copies / sizeof *copies);
    j->answer.control = task->control;
    j->answer.turn = task->turn;
    j->answer.at_ms = sl_loop_unix_ms(w->loop);
    j->due_unix_ms = task->due_ms;
    j->send_mono_ms = sl_loop_mono_ms(w->loop) + w->delay_ms;
}

static bool is_late(const struct bot_worker *w, int64_t due_unix_ms)
{
    return due_unix_ms > 0 && store_unix_ms(w) >= due_unix_ms;
}

static bool is_answerable(const struct event *task)
{
    return task->type == EVENT_TASK && sl_str_starts(task->reply_to, "in:{") &&
           task->reply_to.len < KEY_MAX_BYTES && task->conv.len > 0;
}

static void take(struct bot_worker *w, struct sl_str id, const struct event *task)
{
    struct job *j = job_new(w, id);
    if (is_late(w, task->due_ms)) {
        SL_COUNT("sluice_bot_tasks_total", "outcome=\"late\"", "tasks by what became of them", 1);
        push(&w->to_ack, j);
        return;
    }
    job_answer(j, task);
    push(w->delay_ms > 0 ? &w->delayed : &w->to_add, j);
    if (w->delay_ms > 0 && !sl_timer_is_active(&w->due))
        sl_timer_start(&w->due, w->delay_ms);
}

/* A task that nobody can answer is acknowledged: its deadline gives the turn to the next try. */
static void take_bad(struct bot_worker *w, struct sl_str id, const struct sl_fail *why)
{
    SL_COUNT("sluice_bot_tasks_total", "outcome=\"bad\"", "tasks by what became of them", 1);
    sl_log(SL_WARN, "task cannot be read", SL_KV_S("task", id), SL_KV("why", why->text));
    push(&w->to_ack, job_new(w, id));
}

static void take_entry(struct bot_worker *w, struct sl_str id, const struct bus_value *fields)
{
    struct sl_str item[EVENT_FIELD_COUNT * 2 + 16];
    const size_t count = bus_value_count(fields);
    struct event task = {0};
    struct sl_fail why = {.text = "not a task"};
    if (count > sizeof item / sizeof *item) {
        (void)sl_fail_set(&why, SL_EINVAL, 0, "more than %zu fields", sizeof item / sizeof *item / 2);
        take_bad(w, id, &why);
        return;
    }
    for (size_t i = 0; i < count; i++)
        item[i] = bus_value_str(bus_value_at(fields, i));
    if (event_from_fields(item, count, &task, &why) == SL_OK && is_answerable(&task))
        take(w, id, &task);
    else
        take_bad(w, id, &why);
}

/* [[id, [name, value ...]], ...]. Returns the id of the last, empty when there was none. */
static struct sl_str take_entries(struct bot_worker *w, const struct bus_value *entries, bool may_be_in_hand)
{
    struct sl_str id = SL_STR_NONE;
    for (size_t i = 0; i < bus_value_count(entries) && w->free.head != NULL; i++) {
        const struct bus_value *entry = bus_value_at(entries, i);
        id = bus_value_str(bus_value_at(entry, 0));
        if (id.len == 0 || id.len >= ENTRY_ID_MAX_BYTES || (may_be_in_hand && is_in_hand(w, id)))
            continue;
        take_entry(w, id, bus_value_at(entry, 1));
    }
    sl_gauge_set(sl_gauge("sluice_bot_in_flight", "", "tasks in hand"), (int64_t)w->used);
    return id;
}

/* Group: made by whoever comes first, from the stream's beginning, so that no task is passed over. */

static void on_group(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct bot_worker *w = arg;
    (void)v;
    if (!settled(w))
        return;
    w->is_creating = false;
    w->has_group = err == SL_OK || strstr(why->text, "BUSYGROUP") != NULL;
    if (w->has_group)
        run(w);
    else
        later(w);
}

static void create_group(struct bot_worker *w)
{
    if (w->is_creating)
        return;
    bus_args_clear(&w->args);
    bus_args_c(&w->args, "XGROUP");
    bus_args_c(&w->args, "CREATE");
    bus_args_key(&w->args, &w->stream);
    bus_args_c(&w->args, BOT_WORKER_GROUP);
    bus_args_c(&w->args, "0");
    bus_args_c(&w->args, "MKSTREAM");
    w->is_creating = command(w, on_group, w);
    if (!w->is_creating)
        later(w);
}

/* Reading: first what is pending under our own name (an earlier life, a lost reply), then what is new. */

static size_t room(const struct bot_worker *w)
{
    const size_t left = BOT_WORKER_JOBS - w->used;
    return left < BOT_WORKER_BATCH ? left : BOT_WORKER_BATCH;
}

static void read_own_again(struct bot_worker *w)
{
    w->is_reading_own = true;
    w->own_after[0] = '0';
    w->own_after[1] = '\0';
}

static void on_read_failed(struct bot_worker *w, const struct sl_fail *why)
{
    if (strstr(why->text, "NOGROUP") != NULL)
        w->has_group = false;
    read_own_again(w); /* tasks may have been given to us in the reply that was lost */
    later(w);
}

static void keep_id(char to[ENTRY_ID_MAX_BYTES + 1], struct sl_str id)
{
    if (id.len > ENTRY_ID_MAX_BYTES)
        return;
    memcpy(to, id.ptr, id.len);
    to[id.len] = '\0';
}

static void on_tasks(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct bot_worker *w = arg;
    if (!settled(w))
        return;
    w->is_reading = false;
    if (err != SL_OK) {
        on_read_failed(w, why);
        leave(w);
        return;
    }
    const struct bus_value *entries = bus_value_at(bus_value_at(v, 0), 1); /* [[stream, [entry, ...]]] */
    const bool was_own = w->is_reading_own;
    const struct sl_str last = take_entries(w, entries, was_own);
    if (was_own && last.len == 0)
        w->is_reading_own = false;
    else if (was_own)
        keep_id(w->own_after, last);
    run(w);
}

static void read_tasks(struct bot_worker *w)
{
    if (w->is_reading || w->is_draining || room(w) == 0)
        return; /* at the bound: the next task that ends comes back here */
    if (!w->has_group) {
        create_group(w);
        return;
    }
    bus_args_clear(&w->args);
    bus_args_c(&w->args, "XREADGROUP");
    bus_args_c(&w->args, "GROUP");
    bus_args_c(&w->args, BOT_WORKER_GROUP);
    bus_args_c(&w->args, w->consumer);
    bus_args_c(&w->args, "COUNT");
    bus_args_int(&w->args, (int64_t)room(w));
    if (!w->is_reading_own) {
        bus_args_c(&w->args, "BLOCK");
        bus_args_int(&w->args, BLOCK_MS);
    }
    bus_args_c(&w->args, "STREAMS");
    bus_args_key(&w->args, &w->stream);
    bus_args_c(&w->args, w->is_reading_own ? w->own_after : ">");
    if (bus_reader_command(w->reader, &w->args, BLOCK_MS + READ_MARGIN_MS, on_tasks, w) != SL_OK) {
        later(w);
        return;
    }
    w->is_reading = true;
    w->in_flight++;
}

/* Taking over: whatever a worker has held too long without an acknowledgement. */

static void on_claimed(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct bot_worker *w = arg;
    (void)why;
    if (!settled(w))
        return;
    w->is_claiming = false;
    if (err == SL_OK) {
        keep_id(w->claim_cursor, bus_value_str(bus_value_at(v, 0)));
        const size_t before = w->used;
        take_entries(w, bus_value_at(v, 1), true);
        if (w->used > before) {
            SL_COUNT("sluice_bot_claimed_total", "", "tasks taken over from another worker",
                     w->used - before);
            sl_log(SL_INFO, "tasks taken over", SL_KV_I("count", w->used - before));
        }
    }
    run(w);
}

static void claim(struct bot_worker *w)
{
    if (w->is_claiming || !w->has_group || room(w) == 0)
        return;
    bus_args_clear(&w->args);
    bus_args_c(&w->args, "XAUTOCLAIM");
    bus_args_key(&w->args, &w->stream);
    bus_args_c(&w->args, BOT_WORKER_GROUP);
    bus_args_c(&w->args, w->consumer);
    bus_args_int(&w->args, (int64_t)w->claim_idle_ms);
    bus_args_c(&w->args, w->claim_cursor);
    bus_args_c(&w->args, "COUNT");
    bus_args_int(&w->args, (int64_t)room(w));
    w->is_claiming = command(w, on_claimed, w);
}

static void on_store_time(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct bot_worker *w = arg;
    (void)why;
    if (!settled(w) || err != SL_OK || bus_value_count(v) != 2)
        return;
    const int64_t store_ms =
        bus_value_int(bus_value_at(v, 0)) * 1000 + bus_value_int(bus_value_at(v, 1)) / 1000;
    w->clock_offset_ms = store_ms - sl_loop_unix_ms(w->loop);
}

/* Deadlines of tasks are the store's time: a worker whose clock is wrong must not think that every task is
 * late. */
static void ask_store_time(struct bot_worker *w)
{
    bus_args_clear(&w->args);
    bus_args_c(&w->args, "TIME");
    (void)command(w, on_store_time, w);
}

static void on_claim_time(void *arg)
{
    struct bot_worker *w = arg;
    if (w->is_draining)
        return;
    ask_store_time(w);
    claim(w);
    sl_timer_start(&w->claim, CLAIM_EVERY_MS / 2 + sl_loop_jitter(w->loop, CLAIM_EVERY_MS));
}

/* Answering. */

static void on_delay_over(void *arg)
{
    struct bot_worker *w = arg;
    const uint64_t now = sl_loop_mono_ms(w->loop);
    while (w->delayed.head != NULL && w->delayed.head->send_mono_ms <= now)
        push(&w->to_add, pop(&w->delayed));
    if (w->delayed.head != NULL)
        sl_timer_start(&w->due, w->delayed.head->send_mono_ms - now);
    run(w);
}

/* The next read, or a few ms, take along what is to be acknowledged; without room for more tasks, or on the way out, nothing waits. */
static void acknowledge_soon(struct bot_worker *w)
{
    if (room(w) < BOT_WORKER_BATCH || w->is_draining)
        sl_post_now(&w->turn);
    else if (!sl_timer_is_active(&w->ack))
        sl_timer_start(&w->ack, ACK_WITHIN_MS);
}

static void on_added(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct job *j = arg;
    struct bot_worker *w = j->w;
    (void)v;
    if (!settled(w))
        return;
    if (sl_err_retry(err) || err == SL_ECLOSED) {
        push(&w->to_add, j); /* perhaps it is there already: the second one is refused by its turn */
        later(w);
        return;
    }
    if (err == SL_OK) {
        SL_COUNT("sluice_bot_tasks_total", "outcome=\"answered\"", "tasks by what became of them", 1);
    } else {
        SL_COUNT("sluice_bot_tasks_total", "outcome=\"refused\"", "tasks by what became of them", 1);
        sl_log(SL_ERROR, "the store refuses an answer", SL_KV_S("log", j->reply_to), SL_KV("why", why->text));
    }
    push(&w->to_ack, j);
    acknowledge_soon(w);
}

static bool add_answer(struct bot_worker *w, struct job *j)
{
    struct event_fields fields;
    event_to_fields(&j->answer, &fields);
    bus_args_clear(&w->args);
    bus_args_c(&w->args, "XADD");
    bus_args_str(&w->args, j->reply_to);
    bus_args_c(&w->args, "*");
    for (size_t i = 0; i < fields.count; i++)
        bus_args_str(&w->args, fields.item[i]);
    return command(w, on_added, j);
}

static void add_answers(struct bot_worker *w)
{
    while (w->to_add.head != NULL) {
        struct job *j = pop(&w->to_add);
        if (is_late(w, j->due_unix_ms)) {
            SL_COUNT("sluice_bot_tasks_total", "outcome=\"late\"", "tasks by what became of them", 1);
            push(&w->to_ack, j);
        } else if (!add_answer(w, j)) {
            push(&w->to_add, j);
            later(w);
            return;
        }
    }
}

/* Acknowledging: one XACK in flight, with all that came together meanwhile. */

static void on_acked(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct bot_worker *w = arg;
    (void)v;
    (void)why;
    if (!settled(w))
        return;
    w->is_acking = false;
    if (sl_err_retry(err) || err == SL_ECLOSED) {
        move_all(&w->acking, &w->to_ack);
        later(w);
        return;
    }
    for (struct job *j; (j = pop(&w->acking)) != NULL;)
        job_free(j);
    sl_gauge_set(sl_gauge("sluice_bot_in_flight", "", "tasks in hand"), (int64_t)w->used);
    run(w);
}

static void acknowledge(struct bot_worker *w)
{
    if (w->is_acking || w->to_ack.head == NULL)
        return;
    bus_args_clear(&w->args);
    bus_args_c(&w->args, "XACK");
    bus_args_key(&w->args, &w->stream);
    bus_args_c(&w->args, BOT_WORKER_GROUP);
    move_all(&w->to_ack, &w->acking);
    for (const struct job *j = w->acking.head; j != NULL; j = j->next)
        bus_args_str(&w->args, sl_str_n(j->id, j->id_len));
    w->is_acking = command(w, on_acked, w);
    if (!w->is_acking) {
        move_all(&w->acking, &w->to_ack);
        later(w);
    }
}

/* Leaving: the consumer's name goes when nothing is pending under it; otherwise its tasks would go with it.
 */

static void stopped(struct bot_worker *w)
{
    if (w->has_stopped)
        return;
    w->has_stopped = true;
    stop_timers(w);
    w->ops->stopped(w->arg);
}

static void on_consumer_deleted(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct bot_worker *w = arg;
    (void)err;
    (void)v;
    (void)why;
    if (settled(w))
        stopped(w);
}

static void on_pending(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct bot_worker *w = arg;
    (void)why;
    if (!settled(w) || w->has_stopped)
        return;
    bus_args_clear(&w->args);
    bus_args_c(&w->args, "XGROUP");
    bus_args_c(&w->args, "DELCONSUMER");
    bus_args_key(&w->args, &w->stream);
    bus_args_c(&w->args, BOT_WORKER_GROUP);
    bus_args_c(&w->args, w->consumer);
    const bool is_clean = err == SL_OK && bus_value_count(v) == 0;
    if (!is_clean || !command(w, on_consumer_deleted, w))
        stopped(w);
}

static void leave(struct bot_worker *w)
{
    if (!w->is_draining || w->is_leaving || w->has_stopped || w->is_reading || w->is_claiming || w->used > 0)
        return;
    w->is_leaving = true;
    bus_args_clear(&w->args);
    bus_args_c(&w->args, "XPENDING");
    bus_args_key(&w->args, &w->stream);
    bus_args_c(&w->args, BOT_WORKER_GROUP);
    bus_args_c(&w->args, "-");
    bus_args_c(&w->args, "+");
    bus_args_c(&w->args, "1");
    bus_args_c(&w->args, w->consumer);
    if (!w->has_group || !command(w, on_pending, w))
        sl_timer_start(&w->deadline, 0); /* never call back before drain has returned */
}

static void on_drain_over(void *arg)
{
    struct bot_worker *w = arg;
    if (w->used > 0)
        sl_log(SL_WARN, "drain time is over with tasks in hand: others will take them over",
               SL_KV_I("count", w->used));
    stopped(w);
}

void bot_worker_drain(struct bot_worker *w)
{
    if (w->is_draining)
        return;
    w->is_draining = true;
    sl_timer_stop(&w->claim);
    sl_timer_start(&w->deadline, w->drain_ms);
    bus_reader_unblock(w->reader);
    sl_post_now(&w->turn);
}
