/* channels/sms/smpp_link.h - one byte stream to a message centre: TCP, with TLS when asked for.
 *
 * What     an interface of four calls, so that sessions also run over a scripted peer on a virtual clock.
 * Owns     who opens a link closes it; its memory follows on a later turn. After close nothing is called back.
 * Threads  the loop's. Events never come before the call that causes them returns.
 */
#ifndef CHANNELS_SMS_SMPP_LINK_H
#define CHANNELS_SMS_SMPP_LINK_H

#include "base/loop.h"
#include "base/str.h"

struct smpp_link;

struct smpp_target { /* all borrowed until the link is closed */
    const char *host;
    unsigned port;
    bool is_tls, is_verified; /* is_verified: the peer's certificate must be good for host */
    const char *ca_file;      /* empty: the system's authorities */
};
struct smpp_link_events {
    void (*opened)(void *arg);
    void (*bytes)(void *arg, struct sl_str bytes);
    void (*drained)(void *arg);                 /* waiting() is 0 again */
    void (*closed)(void *arg, const char *why); /* by the peer or by an error; close it then */
};
struct smpp_link_ops {
    struct smpp_link *(*open)(struct sl_loop *l, const struct smpp_target *to,
                              const struct smpp_link_events *ev, void *arg);
    void (*write)(struct smpp_link *k, struct sl_str bytes); /* copied; only while waiting() is 0 */
    size_t (*waiting)(const struct smpp_link *k);            /* bytes that the kernel has not taken */
    void (*close)(struct smpp_link **k);                     /* may be called from within an event */
};
/* TCP on a real loop; on a virtual one what smpp_link_play gave. */
const struct smpp_link_ops *smpp_link_ops_for(struct sl_loop *l);
void smpp_link_play(const struct smpp_link_ops *ops); /* the peer of tests; a real loop never sees it */

#endif
