/* bot/worker.h - one worker of a bot: reads tasks of `bot:<name>`, hands back answers (docs/write-a-bot.md).
 *
 * What     XREADGROUP in batches, one answer a task, XADD to the task's reply_to, XACK once the store has the
 *          answer. Tasks of dead workers are taken over. The answering itself is the caller's function.
 * Safe     an answer may reach the command log twice (a repeat after an unknown outcome, a takeover): step()
 *          takes the first of a turn and refuses the other. So a worker never has to remember anything.
 * Bounded  BOT_WORKER_JOBS tasks in hand; at the bound it stops reading (gauge sluice_bot_in_flight).
 * Threads  everything on the bus's loop; knows nothing of libuv, so a simulation can run it.
 */
#ifndef BOT_WORKER_H
#define BOT_WORKER_H

#include "bus/bus.h"

#define BOT_WORKER_JOBS  512
#define BOT_WORKER_BATCH 64
#define BOT_WORKER_GROUP "workers"

struct bot_reply {
    struct sl_buf *text; /* append the answer here; at most MSG_TEXT_MAX_BYTES */
    struct sl_str data;  /* JSON object or empty */
    struct sl_str
        reason; /* "handoff": give it to a person; "unsure": twice in a row does the same; else empty */
};
struct bot_worker_ops {
    /* Fill *reply for *task. Both are borrowed until return; what reply points to must live as long. Never
     * blocks. */
    void (*answer)(void *arg, const struct event *task, struct bot_reply *reply);
    /* Drained: nothing in hand, nothing in flight (or the drain time is over). Free the worker now or later.
     */
    void (*stopped)(void *arg);
};
struct bot_worker_config {
    struct bus *bus;        /* borrowed; outlives the worker */
    struct sl_str name;     /* of the bot; key_part_ok */
    struct sl_str consumer; /* stable for a process slot: a restarted one goes on with its own tasks at once;
                               key_part_ok */
    uint64_t claim_idle_ms; /* a task that another worker holds longer than this is taken over */
    uint64_t delay_ms;      /* answer later by this: a slow bot, for tests */
    uint64_t drain_ms;      /* at most this long between drain and stopped */
};
struct bot_worker;
struct bot_worker *bot_worker_start(const struct bot_worker_config *cfg, const struct bot_worker_ops *ops,
                                    void *arg);
void bot_worker_drain(
    struct bot_worker *w); /* takes no more tasks, finishes those in hand, then ops->stopped */
void bot_worker_free(
    struct bot_worker **w); /* whatever is in flight settles into nothing; memory follows then */
/* The store has become ready: do at once what would be tried again within 0.2 s. */
void bot_worker_wake(struct bot_worker *w);

size_t bot_worker_in_hand(const struct bot_worker *w);

#endif
