#include "router/watchdog.h"

#include "base/log.h"
#include "bus/partition.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#define WAKE_MS 500
#define LATE_MS 1000
#define WAKES   5 /* the first comes up to WAKE_MS after the step began: 2 to 2.5 s */

struct watchdog {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool is_stopping;
};

static uint64_t mono_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static bool sleep_or_stop(struct watchdog *w)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += WAKE_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&w->lock);
    while (!w->is_stopping && pthread_cond_timedwait(&w->wake, &w->lock, &until) != ETIMEDOUT) {
    }
    bool is_stopping = w->is_stopping;
    pthread_mutex_unlock(&w->lock);
    return is_stopping;
}

static void *watch(void *arg)
{
    uint64_t last_step = 0, last_wake = mono_ms();
    unsigned wakes = 0;
    while (!sleep_or_stop(arg)) {
        uint64_t now = mono_ms(), step = part_steps_count();
        bool is_same = part_stepping_since_mono_ms() != 0 && step == last_step && now - last_wake < LATE_MS;
        wakes = is_same ? wakes + 1 : 0;
        last_step = step;
        last_wake = now;
        if (wakes < WAKES)
            continue;
        sl_log(SL_ERROR,
               "step() did not come back within 2 s: ending this process, the event is counted as poison");
        abort();
    }
    return NULL;
}

struct watchdog *watchdog_start(void)
{
    struct watchdog *w = sl_alloc(sizeof(*w));
    pthread_condattr_t attr;
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->wake, &attr);
    pthread_condattr_destroy(&attr);
    sl_assert(pthread_create(&w->thread, NULL, watch, w) == 0);
    return w;
}

void watchdog_stop(struct watchdog **pw)
{
    struct watchdog *w = *pw;
    *pw = NULL;
    if (w == NULL)
        return;
    pthread_mutex_lock(&w->lock);
    w->is_stopping = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w);
}
