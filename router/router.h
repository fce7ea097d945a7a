/* router/router.h - which partitions this process holds, and what they run on.
 *
 * What     a router announces itself, counts the others, and holds its even share of the partitions:
 *          conversations 0..P-1 and the desks. It acquires what nobody holds, releases what is beyond its
 *          share, and on a clean stop releases everything at once. bus/partition.h does the work inside each.
 * Safety   is not decided here: two routers that both believe they own a partition are told apart by its
 *          lease epoch.
 * Rules    are built from the configuration and told to each partition as an event when its own have
 *          another hash.
 * Errors   a partition that cannot be held is tried again at the next survey and counted.
 */
#ifndef ROUTER_ROUTER_H
#define ROUTER_ROUTER_H

#include "base/config.h"
#include "bus/partition.h"

#define ROUTER_LEASE_MS  3000 /* after kill -9 another router holds the partition within lease + survey */
#define ROUTER_SURVEY_MS 500

struct router;
struct router_config {
    struct sl_loop *loop;
    struct sl_str run; /* a ULID, new for each process start */
    uint64_t lease_ms, survey_ms;
    unsigned history_keep;      /* entries of a conversation's log that stay in the store */
    size_t cache_max;           /* states kept in memory for each partition */
    struct sl_str rules_json;   /* empty: none are told, partitions keep what they have */
    const char *const *tenants; /* each has a desk */
    size_t tenant_count;
};

/* In two steps, because a bus needs someone to tell about its connection: events.arg of the bus is the
 * router. */
struct router *router_new(const struct router_config *cfg);
extern const struct bus_events router_bus_events;
void router_attach(struct router *r,
                   struct bus *bus); /* bus: owned by the caller, closed after router_free */
/* Release everything; stopped is called once, when nothing is held any more or after 5 s, never before
 * return. */
void router_release_all(struct router *r, void (*stopped)(void *arg), void *arg);
void router_free(struct router **r);
size_t router_held(const struct router *r);
void router_set_rules(struct router *r, struct sl_str rules_json);
/* The oldest event that was read but not committed, over all partitions. */
uint64_t router_lag_ms(const struct router *r);

/* ---- as a process: `sluice router` ---- */
extern const struct sl_key router_keys[];
struct router_role;
struct router_role *router_start(struct sl_loop *l, const struct sl_config *cfg,
                                 const struct bus_config *store, void (*on_stopped)(void *), void *arg,
                                 struct sl_fail *why);
void router_drain(struct router_role *r);
void router_reload(struct router_role *r, const struct sl_config *cfg);
void router_role_free(struct router_role **r);
/* The rules object that a configuration means; SL_EINVAL with words when it is not a possible one. out:
 * caller's, initialised. */
sl_err router_rules_from(const struct sl_config *cfg, struct sl_buf *out, struct sl_fail *why) SL_MUST_CHECK;

#endif
