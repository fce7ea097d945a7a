#include "bot/bot.h"

#include "bot/faq.h"
#include "bot/worker.h"

#include "base/log.h"
#include "base/metrics.h"
#include "proto/message.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

const struct sl_key bot_keys[] = {
    {"bot.name", SL_CFG_STR, "faq", 0, 0, false,
     "name of the bot: it takes the tasks of the stream bot:<name>"},
    {"bot.faq", SL_CFG_STR, "", 0, 0, true, "file of questions and answers, YAML; see deploy/faq.yaml"},
    {"bot.threshold", SL_CFG_INT, "0", 0, 100, true,
     "per cent of likeness from which an entry is the answer; 0: as the file says"},
    {"bot.consumer", SL_CFG_STR, "", 0, 0, false,
     "name of this worker, the same after a restart; empty: made of host and process id"},
    {"bot.claim_after", SL_CFG_MS, "5s", 1000, 600000, false,
     "take over a task that another worker holds longer"},
    {"bot.delay", SL_CFG_MS, "0ms", 0, 600000, false, "answer later by this (for tests of slow bots)"},
    {"bot.drain", SL_CFG_MS, "10s", 100, 600000, false, "at TERM, finish the tasks in hand within this time"},
    {NULL, SL_CFG_STR, NULL, 0, 0, false, NULL},
};

struct bot {
    struct sl_loop *loop;
    struct bus *bus;
    struct bot_worker *worker;
    struct bot_faq *faq;
    void (*on_stopped)(void *);
    void *arg;
};

static void on_ready(void *arg, bool is_ready)
{
    struct bot *b = arg;
    sl_log(SL_INFO, is_ready ? "store: ready" : "store: connection lost, trying again");
    if (is_ready && b->worker != NULL)
        bot_worker_wake(b->worker);
}

static void on_unfit(void *arg, const struct sl_fail *why)
{
    (void)arg;
    sl_log(SL_ERROR, "store: cannot be used", SL_KV_FAIL(why));
}

/* The worker's two questions to us. */

static void on_task(void *arg, const struct event *task, struct bot_reply *reply)
{
    struct bot *b = arg;
    struct bot_faq_result result;
    bot_faq_answer(b->faq, task->text, reply->text, &result);
    switch (result.outcome) {
    case BOT_FAQ_ANSWERED:
        SL_COUNT("sluice_bot_answers_total", "outcome=\"answered\"", "answers by how sure the bot was", 1);
        break;
    case BOT_FAQ_UNSURE:
        reply->reason = SL_STR("unsure");
        SL_COUNT("sluice_bot_answers_total", "outcome=\"unsure\"", "answers by how sure the bot was", 1);
        break;
    case BOT_FAQ_HANDOFF:
        reply->reason = SL_STR("handoff");
        SL_COUNT("sluice_bot_answers_total", "outcome=\"handoff\"", "answers by how sure the bot was", 1);
        break;
    }
}

static void on_worker_stopped(void *arg)
{
    struct bot *b = arg;
    sl_log(SL_INFO, "bot: drained");
    b->on_stopped(b->arg);
}

static const struct bot_worker_ops worker_ops = {.answer = on_task, .stopped = on_worker_stopped};

/* Start. */

static struct bot_faq *load_faq(const struct sl_config *cfg, struct sl_fail *why)
{
    const char *path = sl_config_str(cfg, "bot.faq");
    if (path[0] == '\0') {
        (void)sl_fail_set(
            why, SL_EINVAL, 0,
            "bot.faq is not set: name a file of questions and answers (deploy/faq.yaml is one)");
        return NULL;
    }
    return bot_faq_load(path, (unsigned)sl_config_int(cfg, "bot.threshold"), why);
}

/* Host and process id, with what may not stand in a name replaced. */
static void default_consumer(char out[MSG_ID_MAX_BYTES])
{
    char host[65] = "";
    if (gethostname(host, sizeof host - 1) != 0 || host[0] == '\0')
        (void)snprintf(host, sizeof host, "bot");
    for (char *c = host; *c != '\0'; c++) {
        if (!key_part_ok(sl_str_n(c, 1)))
            *c = '_';
    }
    (void)snprintf(out, MSG_ID_MAX_BYTES, "%s-%ld", host, (long)getpid());
}

static sl_err check_name(const char *key, const char *name, struct sl_fail *why)
{
    if (key_part_ok(sl_str_c(name)))
        return SL_OK;
    return sl_fail_set(why, SL_EINVAL, 0, "%s: use letters, digits and . _ - @ +, at most %d", key,
                       MSG_ID_MAX_BYTES);
}

sl_err bot_check(const struct sl_config *cfg, struct sl_fail *why)
{
    const char *consumer = sl_config_str(cfg, "bot.consumer");
    sl_err err = check_name("bot.name", sl_config_str(cfg, "bot.name"), why);
    if (err == SL_OK && consumer[0] != '\0')
        err = check_name("bot.consumer", consumer, why);
    struct bot_faq *faq = err == SL_OK ? load_faq(cfg, why) : NULL;
    if (faq == NULL)
        return why->code;
    bot_faq_free(&faq);
    return SL_OK;
}

static void start_worker(struct bot *b, const struct sl_config *cfg, const char *consumer)
{
    const struct bot_worker_config worker = {
        .bus = b->bus,
        .name = sl_str_c(sl_config_str(cfg, "bot.name")),
        .consumer = sl_str_c(consumer),
        .claim_idle_ms = (uint64_t)sl_config_int(cfg, "bot.claim_after"),
        .delay_ms = (uint64_t)sl_config_int(cfg, "bot.delay"),
        .drain_ms = (uint64_t)sl_config_int(cfg, "bot.drain"),
    };
    b->worker = bot_worker_start(&worker, &worker_ops, b);
}

struct bot *bot_start(struct sl_loop *l, const struct sl_config *cfg, const struct bus_config *store,
                      void (*on_stopped)(void *), void *arg, struct sl_fail *why)
{
    static const struct bus_events events = {.ready = on_ready, .unfit = on_unfit};
    char consumer[MSG_ID_MAX_BYTES];
    default_consumer(consumer);
    const char *configured = sl_config_str(cfg, "bot.consumer");
    const char *name = configured[0] != '\0' ? configured : consumer;
    if (bot_check(cfg, why) != SL_OK)
        return NULL;
    struct bot_faq *faq = load_faq(cfg, why);
    if (faq == NULL)
        return NULL;
    struct bot *b = sl_alloc(sizeof *b);
    b->loop = l;
    b->faq = faq;
    b->on_stopped = on_stopped;
    b->arg = arg;
    b->bus = bus_open(l, store, &events, b);
    start_worker(b, cfg, name);
    sl_log(SL_INFO, "bot: started", SL_KV("name", sl_config_str(cfg, "bot.name")), SL_KV("consumer", name),
           SL_KV_I("entries", bot_faq_count(faq)));
    return b;
}

void bot_drain(struct bot *b)
{
    sl_log(SL_INFO, "bot: draining", SL_KV_I("in_hand", bot_worker_in_hand(b->worker)));
    bot_worker_drain(b->worker);
}

void bot_reload(struct bot *b, const struct sl_config *cfg)
{
    struct sl_fail why = {0};
    struct bot_faq *now = load_faq(cfg, &why);
    if (now == NULL) {
        sl_log(SL_ERROR, "bot: the new file of questions is wrong, the old one stays", SL_KV_FAIL(&why));
        return;
    }
    bot_faq_free(&b->faq);
    b->faq = now;
    sl_log(SL_INFO, "bot: questions read again", SL_KV_I("entries", bot_faq_count(now)));
}

void bot_free(struct bot **bp)
{
    struct bot *b = *bp;
    *bp = NULL;
    if (b == NULL)
        return;
    bot_worker_free(&b->worker);
    bus_close(&b->bus);
    bot_faq_free(&b->faq);
    free(b);
}
