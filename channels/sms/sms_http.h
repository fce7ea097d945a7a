/* channels/sms/sms_http.h - SMS over HTTP: Twilio, Alibaba Cloud, Tencent Cloud, or any by a scheme file.
 *
 * What     the webhook engine (channels/webhook/) with numbers in one form, the opt-out ledger, and the providers' own signatures.
 * Read     channels/sms/README.md says what of each provider is certain; deploy/webhooks/{twilio,aliyun,tencent}.yaml what comes in.
 */
#ifndef CHANNELS_SMS_SMS_HTTP_H
#define CHANNELS_SMS_SMS_HTTP_H

#include "channels/channel.h"

extern const struct chan_ops sms_http_ops;

/* The class of price of a number, as inboxes.*.price_classes says (the longest prefix counts); empty: none. ch: of sms_http_ops. */
const char *sms_http_price_class(struct chan *ch, struct sl_str number);

#endif
