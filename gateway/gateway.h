/* gateway/gateway.h - the edge process: `sluice gateway`.
 *
 * What     customers and agents on one side, the store on the other. Any number run side by side; nothing is bound to one.
 * Read     front.h (sockets) -> session.h (protocol) -> hub.h and commands.c (appending) -> topics.h (what comes back).
 * Life     gw_start; TERM: gw_drain, then on_stopped once; gw_free after uv_run has returned.
 */
#ifndef GATEWAY_GATEWAY_H
#define GATEWAY_GATEWAY_H

#include "base/config.h"
#include "base/loop.h"
#include "bus/bus.h"

extern const struct sl_key gw_keys[]; /* ends with a NULL key */

struct gw;
struct gw *gw_start(struct sl_loop *l, const struct sl_config *cfg, const struct bus_config *store,
                    void (*on_stopped)(void *), void *arg, struct sl_fail *why);
/* What the table of keys cannot check. */
sl_err gw_check(const struct sl_config *cfg, struct sl_fail *why) SL_MUST_CHECK;
void gw_drain(struct gw *gw);
void gw_reload(struct gw *gw, const struct sl_config *cfg);
void gw_free(struct gw **gw);
int gw_port(const struct gw *gw);

#endif
