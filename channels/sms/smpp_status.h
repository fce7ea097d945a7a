/* channels/sms/smpp_status.h - what an answer's command_status means for a message, in words and in deeds.
 *
 * Source   SMPP 3.4 5.1.3; which ones are worth another try: Kannel's and vendors' practice, docs in README.md.
 */
#ifndef CHANNELS_SMS_SMPP_STATUS_H
#define CHANNELS_SMS_SMPP_STATUS_H

#include <stdint.h>

enum smpp_verdict {
    SMPP_PERMANENT, /* this message never */
    SMPP_RETRY,     /* this message later */
    SMPP_PAUSE,     /* the whole account later: it is too fast, or the message centre is in trouble */
    SMPP_ALARM,     /* the whole account, and a person must look */
};
struct smpp_meaning {
    uint32_t status;
    enum smpp_verdict verdict;
    const char *name;  /* "ESME_RTHROTTLED" */
    const char *words; /* for an agent */
};
/* Never NULL: unknown and vendors' own numbers are permanent. */
const struct smpp_meaning *smpp_status_meaning(uint32_t status);

#endif
