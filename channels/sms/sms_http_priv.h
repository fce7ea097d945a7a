/* channels/sms/sms_http_priv.h - what sms_http.c (life, numbers, ledger) and sms_providers.c (their calls and answers) share. */
#ifndef CHANNELS_SMS_SMS_HTTP_PRIV_H
#define CHANNELS_SMS_SMS_HTTP_PRIV_H

#include "channels/webhook/webhook_engine.h"

enum sms_provider { SMS_TWILIO, SMS_ALIYUN, SMS_TENCENT, SMS_GENERIC };

struct sms_wait { /* a question to the ledger under way */
    struct sms_http *s;
    struct sms_wait *next;
    struct webhook_item *item; /* one of the two */
    struct webhook_job *job;
};

struct sms_http {
    struct webhook_engine engine; /* first */
    enum sms_provider provider;
    char *account, *number, *country, *region, *sign_name, *template_code, *template_param, *app_id;
    char **prices; /* "+86=domestic" */
    size_t price_count;
    bool has_mms;
    struct sms_wait *waits;
};

/* Fill the call of one message; EINVAL with words when it can never be sent. */
sl_err sms_provider_call(struct sms_http *s, const struct chan_send *send, struct webhook_job *out,
                         struct sl_fail *why);
/* What the provider's answer means. */
void sms_provider_judge(struct sms_http *s, const struct webhook_job *j, const struct webhook_body *answer,
                        struct chan_result *r);

#endif
