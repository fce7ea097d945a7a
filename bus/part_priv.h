/* bus/part_priv.h - a partition's insides, shared by partition.c (acquire, step, commit) and relay.c
 * (deliver). */
#ifndef BUS_PART_PRIV_H
#define BUS_PART_PRIV_H

#include "bus/partition.h"

/* ---- relay.c: committed facts on their way to other logs ---- */

struct relay;
struct relay_host {
    struct bus *bus;
    struct sl_loop *loop;
    const char *tag;
    /* A mark moved or a gap was found; is_gap: facts must be read again from the fact log. */
    void (*moved)(void *arg, bool is_gap);
    void *arg;
};
struct relay *relay_new(const struct relay_host *host);
void relay_free(struct relay **r); /* callbacks in flight settle into nothing */
void relay_reset(struct relay *r); /* forget everything: before an acquire */
void relay_set_mark(struct relay *r, struct sl_str destination, uint64_t number); /* delivered up to here */
/* One committed batch: out_id is its entry in the fact log. Facts without destination are ignored, those at
 * or below the mark too. */
void relay_add(struct relay *r, struct sl_str out_id, uint64_t epoch, const struct fx_fact_item *facts,
               size_t count);
void relay_pump(struct relay *r);
size_t relay_backlog(const struct relay *r);
bool relay_is_idle(const struct relay *r); /* nothing queued, nothing in flight */
/* Positions that changed since the last relay_saved: (destination, number) pairs and ("@", out id) into args;
 * returns how many. */
size_t relay_positions(struct relay *r, struct bus_args *args);
void relay_saved(struct relay *r,
                 bool is_saved); /* the positions of the last call are in the store, or are not */
bool relay_is_dirty(const struct relay *r);
struct sl_str
relay_out_position(const struct relay *r); /* everything up to this out entry was relayed; empty: unknown */

#endif
