/* cli/store.c - commands that talk to the store and end: the loop runs until each answer is there. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>

#define READY_MS 5000

struct cli_session {
    uv_loop_t uv;
    struct sl_loop *loop;
    struct bus *bus;
    struct sl_timer deadline;
    struct sl_fail unfit;
    bool is_ready, is_late;
};

/* One question under way. */
struct question {
    struct cli_session *session;
    void (*on_value)(void *arg, const struct bus_value *v);
    void *arg;
    struct sl_fail *why;
    sl_err err;
    bool is_done;
};

static void on_ready(void *arg, bool is_ready)
{
    struct cli_session *s = arg;
    s->is_ready = is_ready;
}

static void on_unfit(void *arg, const struct sl_fail *why)
{
    struct cli_session *s = arg;
    s->unfit = *why;
}

static void on_late(void *arg)
{
    struct cli_session *s = arg;
    s->is_late = true;
}

static void wait_until_ready(struct cli_session *s)
{
    s->is_late = false;
    sl_timer_start(&s->deadline, READY_MS);
    while (!s->is_ready && !s->is_late && s->unfit.code == SL_OK)
        uv_run(&s->uv, UV_RUN_ONCE);
    sl_timer_stop(&s->deadline);
}

struct cli_session *cli_session_open(const struct bus_config *store, struct sl_fail *why)
{
    static const struct bus_events events = {.ready = on_ready, .unfit = on_unfit};
    struct cli_session *s = sl_alloc(sizeof *s);
    sl_assert(uv_loop_init(&s->uv) == 0);
    s->loop = sl_loop_new(&s->uv);
    sl_timer_init(&s->deadline, s->loop, on_late, s);
    s->bus = bus_open(s->loop, store, &events, s);
    wait_until_ready(s);
    if (s->is_ready)
        return s;
    if (s->unfit.code != SL_OK)
        *why = s->unfit;
    else
        (void)sl_fail_set(why, SL_ETIMEOUT, 0,
                          "the store does not answer: is the Redis of store.url running?");
    cli_session_close(&s);
    return NULL;
}

void cli_session_close(struct cli_session **sp)
{
    struct cli_session *s = *sp;
    *sp = NULL;
    if (s == NULL)
        return;
    bus_close(&s->bus);
    (void)cli_loop_finish(&s->uv);
    sl_loop_close(&s->loop);
    (void)cli_loop_finish(&s->uv);
    (void)uv_loop_close(&s->uv);
    free(s);
}

unsigned cli_session_partitions(const struct cli_session *s)
{
    return bus_partitions(s->bus);
}

static void on_answer(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct question *q = arg;
    q->is_done = true;
    q->err = err;
    if (err != SL_OK)
        *q->why = *why;
    else if (q->on_value != NULL)
        q->on_value(q->arg, v);
}

sl_err cli_session_call(struct cli_session *s, const struct bus_args *args,
                        void (*on_value)(void *arg, const struct bus_value *v), void *arg,
                        struct sl_fail *why)
{
    struct question q = {.session = s, .on_value = on_value, .arg = arg, .why = why};
    const sl_err err = bus_command(s->bus, args, BUS_DEADLINE_MS, on_answer, &q);
    if (err != SL_OK)
        return sl_fail_set(why, err, 0, "the connection to the store was lost");
    while (!q.is_done)
        uv_run(&s->uv, UV_RUN_ONCE);
    return q.err;
}

void cli_print_safely(struct sl_str s)
{
    for (size_t i = 0; i < s.len; i++) {
        const unsigned char c = (unsigned char)s.ptr[i];
        if (c < 0x20 || c == 0x7f)
            printf("\\x%02x", c);
        else
            putchar(c);
    }
}
