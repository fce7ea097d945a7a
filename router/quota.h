/* router/quota.h - the ledger of a conversation: how many sends its channel still grants, and what a message will cost.
 *
 * What     pure, over struct conversation. A channel grants so many sends for a time with a customer's message (WeChat: 5 in 48 h,
 *          3 in a minute after a click; channels/wechat/wechat_in.c has the table). Grants of two lengths of time stand side by
 *          side; each send is taken from both, and what counts is the larger rest.
 * Cost     the number of parts that the channel's limits make of a message (proto/fit.h). The limits come with each customer's
 *          message, so step() counts the very parts that the lane will send.
 */
#ifndef ROUTER_QUOTA_H
#define ROUTER_QUOTA_H

#include "router/conversation.h"

#include "proto/message.h"

#define CONVERSATION_COMFORT_MIN 2 /* the last sends of a grant are for answers */

/* As the customer's latest message says: quota "<count>/<ms>", limits as fit_limits_write() made them. */
void conversation_quota_grant(struct conversation *c, int64_t now_ms, struct sl_str quota,
                              struct sl_str limits);
int64_t conversation_quota_left(const struct conversation *c, int64_t now_ms);
void conversation_quota_spend(struct conversation *c, int64_t sends);
/* How many sends m takes when `left` (> 0) are left: more than `left` when it cannot be made to fit. At least 1: what cannot be
 * shown at all is for the lane to say. */
int64_t conversation_quota_cost(const struct conversation *c, const struct msg *m, int64_t left);

#endif
