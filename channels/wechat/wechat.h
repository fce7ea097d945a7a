/* channels/wechat/wechat.h - WeChat in three products: Official Account, WeCom application, customer service (kf).
 *
 * What     one life cycle (wechat.c), one callback road (wechat_callback.c), one sending road (wechat_send.c), shared access
 *          tokens (wechat_token.c); passive answers (wechat_passive.c) for accounts without the customer-service interface, and
 *          the drain of kf/sync_msg (wechat_kf.c).
 * Read     README.md of this folder: what is certain of the platform, and what is not.
 */
#ifndef CHANNELS_WECHAT_WECHAT_H
#define CHANNELS_WECHAT_WECHAT_H

#include "channels/channel.h"

extern const struct chan_ops wechat_ops, wechat_wecom_ops, wechat_kf_ops;

#endif
