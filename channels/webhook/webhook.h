/* channels/webhook/webhook.h - any provider with a signed webhook, driven by configuration alone.
 *
 * What     inboxes.*.scheme names a shipped scheme (line, whatsapp, messenger, feishu, dingtalk, slack, telegram, standard) or a file
 *          of the same form; secrets stand in the inbox.
 * Read     docs/webhooks.md
 */
#ifndef CHANNELS_WEBHOOK_WEBHOOK_H
#define CHANNELS_WEBHOOK_WEBHOOK_H

#include "channels/channel.h"

extern const struct chan_ops webhook_ops;

#endif
