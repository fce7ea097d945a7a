/* base/loop.h - time, timers and "next turn" for code that must run on libuv and under simulation alike.
 *
 * What     struct sl_loop wraps one uv_loop_t, or a virtual clock that a simulation moves by hand.
 *          Timers are embedded in their owner and live in one heap behind one uv_timer_t: stopping one is immediate
 *          and its memory may be freed at once (no close callback).
 * Threads  one loop, one thread. Nothing here may be called from another thread.
 * Clocks   *_mono_ms is for deadlines, *_unix_ms for people and storage. Never mix them.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include "base/error.h"

#include <uv.h>

struct sl_loop;

struct sl_timer {
    struct sl_loop *loop;
    void (*fn)(void *arg);
    void *arg;
    uint64_t due_mono_ms;
    uint64_t order; /* equal due times fire in start order: a simulation must repeat itself */
    size_t index;   /* place in the heap + 1; 0 when stopped */
};

struct sl_post { /* embedded: "call fn on the next turn of the loop" */
    struct sl_loop *loop;
    struct sl_post *next;
    void (*fn)(void *arg);
    void *arg;
    bool is_queued;
};

struct sl_loop *sl_loop_new(uv_loop_t *uv); /* borrows uv */
/* Mono 1000, unix 1 700 000 000 000, both moved by hand. */
struct sl_loop *sl_loop_new_virtual(uint64_t seed);
/* Closes its uv handles (memory goes in a close callback); posts that have not run are dropped, timers stopped. */
void sl_loop_close(struct sl_loop **l);
uv_loop_t *sl_loop_uv(struct sl_loop *l); /* NULL when virtual */
uint64_t sl_loop_mono_ms(struct sl_loop *l);
int64_t sl_loop_unix_ms(struct sl_loop *l);
uint64_t sl_loop_random(struct sl_loop *l); /* virtual: repeatable from the seed; else from the system */
uint64_t sl_loop_jitter(struct sl_loop *l, uint64_t max); /* uniform in 0..max */

void sl_timer_init(struct sl_timer *t, struct sl_loop *l, void (*fn)(void *), void *arg);
void sl_timer_start(struct sl_timer *t, uint64_t after_ms); /* restarts a running one; fires once */
void sl_timer_stop(struct sl_timer *t);                     /* idempotent */
bool sl_timer_is_active(const struct sl_timer *t);

void sl_post_init(struct sl_post *p, struct sl_loop *l, void (*fn)(void *), void *arg);
void sl_post_now(struct sl_post *p); /* idempotent while queued */
void sl_post_cancel(struct sl_post *p);

/* For simulations only. */
void sl_loop_virtual_set(struct sl_loop *l, uint64_t mono_ms, int64_t unix_ms); /* never backwards in mono */
/* false: nothing armed; posts count as due now */
bool sl_loop_virtual_next(const struct sl_loop *l, uint64_t *due_mono_ms);
bool sl_loop_virtual_step(struct sl_loop *l); /* run one due post or timer; false when none is due */

/* The process's own signals: first TERM or INT calls on_term once; a second one exits 75 at once; HUP calls on_hup.
 * SIGPIPE is ignored. Libraries never see them. */
struct sl_signals;
struct sl_signals *sl_signals_start(struct sl_loop *l, void (*on_term)(void *), void (*on_hup)(void *),
                                    void *arg);
void sl_signals_stop(struct sl_signals **s);

/* Random bytes from the system; aborts if there are none. */
void sl_random_bytes(void *out, size_t n);

#endif
