/* bus/partition.h - the machinery every partition shares: tail -> step -> commit -> relay, under one lease.
 *
 * What     acquire, read the command log from the committed offset, run step() over a batch, write everything
 *          the batch caused with one Function, then relay facts to other logs. Conversations, desks and
 *          (later) delivery lanes use it alike.
 * Batch    ends at 64 events, 128 KiB or 256 facts. One commit in flight; an unknown outcome is found out
 *          before the next.
 * Poison   takeovers at an unchanged offset are counted by the store; see partition.c.
 * Owner    the router (router/router.c) owns struct part and decides which partitions to hold.
 */
#ifndef BUS_PARTITION_H
#define BUS_PARTITION_H

#include "bus/bus.h"
#include "bus/effects.h"

#define PART_BATCH_EVENTS 64
#define PART_BATCH_BYTES  (128 * 1024)
#define PART_BATCH_FACTS  256
#define PART_QUEUE_EVENTS 256  /* read but not yet committed; beyond it the tail pauses this stream */
#define PART_RELAY_MAX    2048 /* committed but not yet relayed facts; beyond it no new batch begins */

struct part;
enum part_state { PART_IDLE, PART_ACQUIRING, PART_LOADING, PART_RUNNING, PART_RELEASING, PART_LOST };

struct part_config {
    struct bus *bus;
    struct bus_tail *tail; /* shared by all partitions of the process; its fn must be part_on_entries */
    struct sl_str run;     /* the process's run id (a ULID) */
    uint64_t lease_ms;
    unsigned history_keep;
    size_t cache_max; /* states */
};
struct part_events {
    /* RUNNING: acquired and reading. LOST: fenced, held by another, or refused: `why`; the owner may acquire
     * again later. */
    void (*changed)(void *arg, struct part *p, enum part_state now, const struct sl_fail *why);
    /* What part_append() sent is in the log (SL_OK), or is not, or perhaps (SL_ETIMEOUT, SL_ECLOSED). Not told when the partition
     * was given up meanwhile. May be NULL. */
    void (*appended)(void *arg, struct part *p, sl_err err);
    /* What step() said by fx_do(), in order, after its batch is in the store. Borrowed until return; p must not be
     * freed nor released in it. May be NULL. */
    void (*deed)(void *arg, struct part *p, const struct event *deed);
};
struct part *part_new(const struct part_config *cfg, const char *tag, const struct part_ops *ops,
                      const struct part_events *ev, void *arg);
void part_free(struct part **p); /* whatever is in flight settles into nothing */
void part_acquire(struct part *p);
void part_release(
    struct part *p); /* finish the commit in flight, save relay positions, free the lease; then IDLE */
enum part_state part_state_now(const struct part *p);
const char *part_tag(const struct part *p);
/* Append an event of the owner's own making (rules) to its command log. Not fenced: it must do no harm when it comes late. */
sl_err part_append(struct part *p, const struct event *ev) SL_MUST_CHECK;
/* A state as memory holds it, perhaps not committed yet: for gauges only. NULL: absent or not at hand. */
const void *part_peek(const struct part *p, const struct state_kind *kind, struct sl_str id);
int64_t part_epoch(const struct part *p); /* lease epoch while it runs */
/* Does the lease last for sure, by our own clock? What is done outside the store asks this first: it narrows the
 * time in which two owners act, and cannot close it. */
bool part_is_leased(const struct part *p);
/* A commit with deeds is under way. A release now would not wait for it: the store may keep what it says, and nobody would do it. */
bool part_has_deeds(const struct part *p);
/* Time since the oldest event that was read but not committed, ms; 0 when there is none. For /readyz and the
 * gauge. */
uint64_t part_lag_ms(const struct part *p);

void part_on_entries(void *arg, void *stream_arg, const struct bus_entry *entries, size_t count);

/* The clock thread's question: since when has step() been running (mono ms), 0 when it is not. */
uint64_t part_stepping_since_mono_ms(void);
uint64_t part_steps_count(
    void); /* steps done by this process: a step that is merely paused with the process shows no progress
              either, so the watchdog judges by its own waking time (router/watchdog.c) */

/* Test builds: an event whose text is "\x07poison" calls this (or aborts) instead of being stepped, when the
 * fault "step.poison" is on. */
void part_set_poison_hook(void (*fn)(void *), void *arg);

#endif
