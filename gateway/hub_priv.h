/* gateway/hub_priv.h - what hub.c, commands.c, topics.c and the sessions know of each other. */
#ifndef GATEWAY_HUB_PRIV_H
#define GATEWAY_HUB_PRIV_H

#include "gateway/hub.h"

void gw_commands_on_retry(void *hub);

/* topics.c: the subscriber's callbacks and the reads. */
void gw_topics_on_confirmed(void *hub, struct sl_str channel);
void gw_topics_on_push(void *hub, struct sl_str channel, struct sl_str payload);
void gw_topics_on_lost(void *hub);
void gw_topics_pump(void *hub); /* start reads that wait, as far as there is room */

/* session.c: from the wheel, once per heartbeat, and at the hello deadline. */
void gw_session_on_wheel(struct gw_session *s);
void gw_session_on_hello_late(struct gw_session *s);
void gw_session_count_frames(struct gw_hub *hub); /* register the counters */

#endif
