/* gateway/login.h - agents' logins: password or one-time token in, session token out.
 *
 * Store    login:<SHA-256 of the token, hex> (string: {"tenant","agent","ends"}, ends in unix ms); expires when idle.
 *          once:<SHA-256, hex> (string: {"tenant","agent"}): a token that works once, made by `sluice up`.
 * Cost     Argon2id runs in the thread pool: GW_LOGIN_AT_ONCE at a time, GW_LOGIN_WAITING_MAX waiting, then SL_ERATE.
 */
#ifndef GATEWAY_LOGIN_H
#define GATEWAY_LOGIN_H

#include "gateway/hub.h"

#define GW_LOGIN_AT_ONCE     2
#define GW_LOGIN_WAITING_MAX 32
#define GW_LOGIN_LIFE_MS     (12 * 3600 * 1000)
#define GW_LOGIN_IDLE_MS     (30 * 60 * 1000)
#define GW_TOKEN_BYTES       43 /* base64url of 32 random bytes */

struct gw_logins;
/* token: to be kept by the client; NULL when err is not SL_OK. EAUTH, ERATE, EAGAIN. */
typedef void (*gw_login_fn)(void *arg, sl_err err, const char *token, const struct gw_agent *agent);

struct gw_logins *gw_logins_new(struct gw_hub *hub);
void gw_logins_free(struct gw_logins **l); /* whoever waits gets SL_ECLOSED, now */
/* fn follows exactly once, never before return, when SL_OK is returned. */
sl_err gw_login_password(struct gw_logins *l, struct sl_str tenant, struct sl_str name,
                         struct sl_str password, gw_login_fn fn, void *arg) SL_MUST_CHECK;
sl_err gw_login_once(struct gw_logins *l, struct sl_str token, gw_login_fn fn, void *arg) SL_MUST_CHECK;

/* login:<hash> of a token. */
struct key gw_login_key(const char *prefix, struct sl_str token);

#endif
