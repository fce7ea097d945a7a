/* gateway/agent_socket.h - the agents' side of a session: who she is, what she may see, what she may do.
 *
 * What     hello with a login's token, presence for the desk, topics "me", "conv:<id>" and "queue", commands.
 *          Whether a command is allowed now is decided by step() in the router; here is only who speaks for whom.
 * Trust    a conversation is hers to name when its tenant is hers: it was offered in her own log, or she opened its topic.
 */
#ifndef GATEWAY_AGENT_SOCKET_H
#define GATEWAY_AGENT_SOCKET_H

#include "gateway/session.h"

#define GW_AGENT_RATE_PER_S 20
#define GW_AGENT_BURST      60
#define GW_KNOWN_MAX        64 /* conversations of her own log that she may name without opening their topic */

void gw_agent_hello(struct gw_session *s, const struct frame *f);
void gw_agent_subscribe(struct gw_session *s, const struct frame *f);
void gw_agent_command(struct gw_session *s, const struct frame *f);
void gw_agent_on_wheel(struct gw_session *s);
void gw_agent_free(struct gw_session *s); /* nothing when s is not an agent's */
/* An entry of her own log: remember the conversation it names. */
void gw_agent_learn(struct gw_session *s, struct sl_str entry);
/* May she read the conversation whose stored state this is? Tenant, and holder, offered, or waiting in a queue of hers. */
bool gw_agent_may_read(struct gw_session *s, struct sl_str state_json);
void gw_agent_topic_denied(struct gw_session *s, struct gw_watch *w); /* w is gone on return */
void gw_agent_on_alive(void *hub); /* the hub's timer: tell the desks who is here */

#endif
