/* gateway/directory.h - who is configured: agents and API tokens, rebuilt as a whole at each reload. */
#ifndef GATEWAY_DIRECTORY_H
#define GATEWAY_DIRECTORY_H

#include "gateway/hub.h"

enum gw_right { GW_MAY_WRITE_MESSAGES = 1, GW_MAY_READ_CONVERSATIONS = 2 };

struct gw_token {
    char *name, *tenant;
    unsigned char secret_hash[32];
    unsigned rights;
    double allowance; /* requests left now; refills at GW_TOKEN_RATE_PER_S */
    uint64_t filled_mono_ms;
};
#define GW_TOKEN_RATE_PER_S       200
#define GW_TOKEN_BURST            400
#define GW_TOKEN_SECRET_MIN_BYTES 16

struct gw_people;
/* NULL with *why: a right that does not exist, a secret that is too short, a name that cannot be one. */
struct gw_people *gw_people_new(const struct sl_config *cfg, struct sl_fail *why);
void gw_people_free(struct gw_people **p);
const struct gw_agent *gw_people_agent(const struct gw_people *p, struct sl_str tenant,
                                       struct sl_str id_or_name);
/* The token whose secret this is, or NULL. Takes as long for a wrong one as for a right one. */
struct gw_token *gw_people_token(struct gw_people *p, struct sl_str secret);

#endif
