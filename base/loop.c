/* base/loop.c - one heap of timers, one list of posts, driven by libuv or by hand.
 *
 * On libuv two handles do it all: a uv_timer_t armed for the earliest timer, and a uv_idle_t that runs only
 * while something is due at once (a post, or a timer started with 0 from inside a timer: a uv_timer_t of 0
 * would run again and again within one turn of libuv 1.44 and starve the sockets).
 */
#include "base/loop.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

struct post_list {
    struct sl_post *head, *tail;
};

struct sl_loop {
    uv_loop_t *uv; /* NULL: virtual */
    uv_timer_t wake;
    uv_idle_t turn;
    unsigned open_handles; /* freed when it comes to 0 */
    bool is_closing;
    bool is_firing;         /* inside run_due: arms once, at its end */
    uint64_t armed_mono_ms; /* what wake stands at; UINT64_MAX: not armed */
    struct sl_timer **heap; /* least (due, order) at 0 */
    size_t timers, heap_cap;
    uint64_t next_order;
    struct post_list queued, running;
    uint64_t virtual_mono_ms;
    int64_t virtual_unix_ms;
    uint64_t random_state;
};

static void on_wake(uv_timer_t *h);
static void on_turn(uv_idle_t *h);
static void arm(struct sl_loop *l);

/* Life. */

struct sl_loop *sl_loop_new(uv_loop_t *uv)
{
    struct sl_loop *l = sl_alloc(sizeof *l);
    l->uv = uv;
    l->armed_mono_ms = UINT64_MAX;
    sl_assert(uv_timer_init(uv, &l->wake) == 0);
    sl_assert(uv_idle_init(uv, &l->turn) == 0);
    l->wake.data = l;
    l->turn.data = l;
    l->open_handles = 2;
    return l;
}

struct sl_loop *sl_loop_new_virtual(uint64_t seed)
{
    struct sl_loop *l = sl_alloc(sizeof *l);
    l->armed_mono_ms = UINT64_MAX;
    l->virtual_mono_ms = 1000;
    l->virtual_unix_ms = 1700000000000;
    l->random_state = seed;
    return l;
}

static void loop_free(struct sl_loop *l)
{
    free(l->heap);
    free(l);
}

static void on_loop_handle_closed(uv_handle_t *h)
{
    struct sl_loop *l = h->data;
    sl_assert(l->open_handles > 0);
    if (--l->open_handles == 0)
        loop_free(l);
}

static void drop_posts(struct post_list *list)
{
    for (struct sl_post *p = list->head, *next; p != NULL; p = next) {
        next = p->next;
        p->is_queued = false;
        p->next = NULL;
    }
    *list = (struct post_list){NULL, NULL};
}

void sl_loop_close(struct sl_loop **lp)
{
    struct sl_loop *l = *lp;
    *lp = NULL;
    if (l == NULL)
        return;
    l->is_closing = true;
    for (size_t i = 0; i < l->timers; i++)
        l->heap[i]->index = 0;
    l->timers = 0;
    drop_posts(&l->queued);
    drop_posts(&l->running);
    if (l->uv == NULL) {
        loop_free(l);
        return;
    }
    uv_close((uv_handle_t *)&l->wake, on_loop_handle_closed);
    uv_close((uv_handle_t *)&l->turn, on_loop_handle_closed);
}

uv_loop_t *sl_loop_uv(struct sl_loop *l)
{
    return l->uv;
}

/* Clocks and chance. */

uint64_t sl_loop_mono_ms(struct sl_loop *l)
{
    return l->uv != NULL ? uv_now(l->uv) : l->virtual_mono_ms;
}

int64_t sl_loop_unix_ms(struct sl_loop *l)
{
    if (l->uv == NULL)
        return l->virtual_unix_ms;
    struct timespec now;
    sl_assert(clock_gettime(CLOCK_REALTIME, &now) == 0);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* SplitMix64 (Steele, Lea, Flood 2014): any seed will do, and it never gets stuck. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

uint64_t sl_loop_random(struct sl_loop *l)
{
    if (l->uv == NULL)
        return next_random(&l->random_state);
    uint64_t v;
    sl_random_bytes(&v, sizeof v);
    return v;
}

uint64_t sl_loop_jitter(struct sl_loop *l, uint64_t max)
{
    uint64_t r = sl_loop_random(l);
    if (max == UINT64_MAX)
        return r;
    return (uint64_t)((unsigned __int128)r * (max + 1) >> 64);
}

void sl_random_bytes(void *out, size_t n)
{
    unsigned char *p = out;
    while (n > 0) {
        ssize_t got = getrandom(p, n < 256 ? n : 256, 0);
        if (got < 0 && errno == EINTR)
            continue;
        sl_assert(got > 0);
        p += got;
        n -= (size_t)got;
    }
}

/* The heap. A timer's index is its place + 1. */

static bool is_before(const struct sl_timer *a, const struct sl_timer *b)
{
    return a->due_mono_ms != b->due_mono_ms ? a->due_mono_ms < b->due_mono_ms : a->order < b->order;
}

static void place(struct sl_loop *l, size_t at, struct sl_timer *t)
{
    l->heap[at] = t;
    t->index = at + 1;
}

static void sift_up(struct sl_loop *l, size_t at, struct sl_timer *t)
{
    while (at > 0 && is_before(t, l->heap[(at - 1) / 2])) {
        place(l, at, l->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    place(l, at, t);
}

static void sift_down(struct sl_loop *l, size_t at, struct sl_timer *t)
{
    for (;;) {
        size_t child = at * 2 + 1;
        if (child >= l->timers)
            break;
        if (child + 1 < l->timers && is_before(l->heap[child + 1], l->heap[child]))
            child++;
        if (!is_before(l->heap[child], t))
            break;
        place(l, at, l->heap[child]);
        at = child;
    }
    place(l, at, t);
}

static void heap_add(struct sl_loop *l, struct sl_timer *t)
{
    if (l->timers == l->heap_cap) {
        l->heap_cap = l->heap_cap == 0 ? 64 : l->heap_cap * 2;
        l->heap = sl_realloc(l->heap, l->heap_cap * sizeof(struct sl_timer *));
    }
    l->timers++;
    sift_up(l, l->timers - 1, t);
}

static void heap_remove(struct sl_loop *l, struct sl_timer *t)
{
    size_t at = t->index - 1;
    sl_assert(at < l->timers && l->heap[at] == t);
    t->index = 0;
    struct sl_timer *last = l->heap[--l->timers];
    if (last == t)
        return;
    if (at > 0 && is_before(last, l->heap[(at - 1) / 2]))
        sift_up(l, at, last);
    else
        sift_down(l, at, last);
}

/* Timers. */

void sl_timer_init(struct sl_timer *t, struct sl_loop *l, void (*fn)(void *), void *arg)
{
    *t = (struct sl_timer){.loop = l, .fn = fn, .arg = arg};
}

void sl_timer_start(struct sl_timer *t, uint64_t after_ms)
{
    struct sl_loop *l = t->loop;
    if (l->is_closing)
        return;
    if (t->index != 0)
        heap_remove(l, t);
    uint64_t now = sl_loop_mono_ms(l);
    t->due_mono_ms = after_ms > UINT64_MAX - 1 - now ? UINT64_MAX - 1 : now + after_ms;
    t->order = l->next_order++;
    heap_add(l, t);
    arm(l);
}

/* Leaves the wake-up standing: a needless one is cheaper than arming anew for each deadline that was met. It
 * touches the loop only for a running timer, so an owner may stop its timers after the loop was closed. */
void sl_timer_stop(struct sl_timer *t)
{
    if (t->index == 0)
        return;
    heap_remove(t->loop, t);
    if (t->loop->timers == 0)
        arm(t->loop);
}

bool sl_timer_is_active(const struct sl_timer *t)
{
    return t->index != 0;
}

/* Posts. */

static struct sl_post *list_pop(struct post_list *list)
{
    struct sl_post *p = list->head;
    list->head = p->next;
    if (list->head == NULL)
        list->tail = NULL;
    p->next = NULL;
    p->is_queued = false;
    return p;
}

static bool list_remove(struct post_list *list, struct sl_post *p)
{
    struct sl_post *before = NULL;
    struct sl_post *at = list->head;
    while (at != NULL && at != p) {
        before = at;
        at = at->next;
    }
    if (at == NULL)
        return false;
    if (before == NULL)
        list->head = p->next;
    else
        before->next = p->next;
    if (list->tail == p)
        list->tail = before;
    return true;
}

void sl_post_init(struct sl_post *p, struct sl_loop *l, void (*fn)(void *), void *arg)
{
    *p = (struct sl_post){.loop = l, .fn = fn, .arg = arg};
}

void sl_post_now(struct sl_post *p)
{
    struct sl_loop *l = p->loop;
    if (p->is_queued || l->is_closing)
        return;
    p->is_queued = true;
    p->next = NULL;
    if (l->queued.tail != NULL)
        l->queued.tail->next = p;
    else
        l->queued.head = p;
    l->queued.tail = p;
    arm(l);
}

void sl_post_cancel(struct sl_post *p)
{
    if (!p->is_queued)
        return;
    sl_assert(list_remove(&p->loop->running, p) || list_remove(&p->loop->queued, p));
    p->is_queued = false;
    p->next = NULL;
}

/* Under libuv. */

static bool has_work_now(const struct sl_loop *l)
{
    return l->queued.head != NULL || (l->timers > 0 && l->heap[0]->due_mono_ms <= uv_now(l->uv));
}

/* Make libuv come back when the earliest thing is due. */
static void arm(struct sl_loop *l)
{
    if (l->uv == NULL || l->is_closing || l->is_firing)
        return;
    if (has_work_now(l)) {
        (void)uv_idle_start(&l->turn, on_turn);
        return;
    }
    (void)uv_idle_stop(&l->turn);
    if (l->timers == 0) {
        (void)uv_timer_stop(&l->wake);
        l->armed_mono_ms = UINT64_MAX;
        return;
    }
    uint64_t due = l->heap[0]->due_mono_ms;
    if (due >= l->armed_mono_ms)
        return;
    (void)uv_timer_start(&l->wake, on_wake, due - uv_now(l->uv), 0);
    l->armed_mono_ms = due;
}

/* Posts made while these run wait for the next turn. */
static void run_posts(struct sl_loop *l)
{
    l->running = l->queued;
    l->queued = (struct post_list){NULL, NULL};
    while (l->running.head != NULL) {
        struct sl_post *p = list_pop(&l->running);
        p->fn(p->arg);
    }
}

/* Timers started while these run wait for the next turn. */
static void run_timers(struct sl_loop *l)
{
    uint64_t now = uv_now(l->uv), limit = l->next_order;
    while (l->timers > 0 && l->heap[0]->due_mono_ms <= now && l->heap[0]->order < limit) {
        struct sl_timer *t = l->heap[0];
        heap_remove(l, t);
        t->fn(t->arg);
    }
}

static void on_wake(uv_timer_t *h)
{
    struct sl_loop *l = h->data;
    l->armed_mono_ms = UINT64_MAX;
    l->is_firing = true;
    run_timers(l);
    l->is_firing = false;
    arm(l);
}

static void on_turn(uv_idle_t *h)
{
    struct sl_loop *l = h->data;
    l->is_firing = true;
    run_posts(l);
    run_timers(l);
    l->is_firing = false;
    arm(l);
}

/* Under a virtual clock. */

void sl_loop_virtual_set(struct sl_loop *l, uint64_t mono_ms, int64_t unix_ms)
{
    sl_assert(l->uv == NULL && mono_ms >= l->virtual_mono_ms);
    l->virtual_mono_ms = mono_ms;
    l->virtual_unix_ms = unix_ms;
}

bool sl_loop_virtual_next(const struct sl_loop *l, uint64_t *due_mono_ms)
{
    sl_assert(l->uv == NULL);
    if (l->queued.head != NULL) {
        *due_mono_ms = l->virtual_mono_ms;
        return true;
    }
    if (l->timers == 0)
        return false;
    *due_mono_ms = l->heap[0]->due_mono_ms;
    return true;
}

bool sl_loop_virtual_step(struct sl_loop *l)
{
    sl_assert(l->uv == NULL);
    if (l->queued.head != NULL) {
        struct sl_post *p = list_pop(&l->queued);
        p->fn(p->arg);
        return true;
    }
    if (l->timers == 0 || l->heap[0]->due_mono_ms > l->virtual_mono_ms)
        return false;
    struct sl_timer *t = l->heap[0];
    heap_remove(l, t);
    t->fn(t->arg);
    return true;
}

/* Signals. */

#define EXIT_TEMPFAIL 75 /* sysexits.h EX_TEMPFAIL: ended before it had drained */

struct sl_signals {
    uv_signal_t term, interrupt, hup;
    unsigned open_handles;
    bool has_term;
    void (*on_term)(void *);
    void (*on_hup)(void *);
    void *arg;
};

static void on_term_signal(uv_signal_t *h, int signum)
{
    (void)signum;
    struct sl_signals *s = h->data;
    if (s->has_term)
        _exit(EXIT_TEMPFAIL);
    s->has_term = true;
    s->on_term(s->arg);
}

static void on_hup_signal(uv_signal_t *h, int signum)
{
    (void)signum;
    struct sl_signals *s = h->data;
    if (s->on_hup != NULL)
        s->on_hup(s->arg);
}

/* Unreferenced: waiting for a signal alone does not keep a loop running. */
static void signal_open(struct sl_signals *s, uv_loop_t *uv, uv_signal_t *h, uv_signal_cb cb, int signum)
{
    sl_assert(uv_signal_init(uv, h) == 0);
    h->data = s;
    s->open_handles++;
    sl_assert(uv_signal_start(h, cb, signum) == 0);
    uv_unref((uv_handle_t *)h);
}

struct sl_signals *sl_signals_start(struct sl_loop *l, void (*on_term)(void *), void (*on_hup)(void *),
                                    void *arg)
{
    sl_assert(l->uv != NULL);
    struct sl_signals *s = sl_alloc(sizeof *s);
    s->on_term = on_term;
    s->on_hup = on_hup;
    s->arg = arg;
    signal_open(s, l->uv, &s->term, on_term_signal, SIGTERM);
    signal_open(s, l->uv, &s->interrupt, on_term_signal, SIGINT);
    signal_open(s, l->uv, &s->hup, on_hup_signal, SIGHUP);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sl_assert(sigaction(SIGPIPE, &ignore, NULL) == 0);
    return s;
}

static void on_signal_handle_closed(uv_handle_t *h)
{
    struct sl_signals *s = h->data;
    sl_assert(s->open_handles > 0);
    if (--s->open_handles == 0)
        free(s);
}

void sl_signals_stop(struct sl_signals **sp)
{
    struct sl_signals *s = *sp;
    *sp = NULL;
    if (s == NULL)
        return;
    uv_close((uv_handle_t *)&s->term, on_signal_handle_closed);
    uv_close((uv_handle_t *)&s->interrupt, on_signal_handle_closed);
    uv_close((uv_handle_t *)&s->hup, on_signal_handle_closed);
}
