/* router/orphans.h - a slow look over all conversations in the store: has each its holder's deadline (invariant I7)?
 *
 * What     sluice_orphans counts conversations whose state names a deadline that timers:{k} does not have, or names none; a closed one
 *          has one, too: leaving the store. 0 is expected. sluice_orphan_looks_total counts what was looked at, so that a 0 means something.
 * Cost     one SCAN of 200 keys a second, and two small reads for each conversation found; the oldest router alone does it.
 * Not      a conversation that waits for a desk which forgot it is no orphan here: it repeats its need at its deadline.
 */
#ifndef ROUTER_ORPHANS_H
#define ROUTER_ORPHANS_H

#include "bus/bus.h"

#define ROUTER_ORPHANS_PAGE_MS 1000

struct router_orphans;
struct router_orphans *router_orphans_new(struct sl_loop *loop, struct bus *bus, bool (*is_mine)(void *arg),
                                          void *arg);
void router_orphans_free(struct router_orphans **o); /* what is in flight settles into nothing */

#endif
