/* channels/sms/smpp_session.h - one bind: connect, bind, keep alive, match answers to requests, reconnect.
 *
 * What     an SMPP 3.4 session as ESME over one link. It knows PDUs and sequence numbers, nothing of messages.
 * Owns     its link. Tickets are the caller's; each submitted one comes back once, by answered or lost.
 * Bounds   requests in flight: account.window; bytes waiting to be written: SMPP_OUT_MAX, then the peer is given up.
 * Source   SMPP 3.4 2.2 (states), 2.7 (timers), 4.1 (bind), 4.11 (enquire_link).
 */
#ifndef CHANNELS_SMS_SMPP_SESSION_H
#define CHANNELS_SMS_SMPP_SESSION_H

#include "channels/sms/smpp_link.h"
#include "channels/sms/smpp_pdu.h"

#define SMPP_OUT_MAX (512u << 10)

enum smpp_bind { SMPP_TRANSCEIVER, SMPP_TRANSMITTER, SMPP_RECEIVER };

struct smpp_account { /* one configured account; borrowed by its sessions */
    struct smpp_target target;
    struct sl_str system_id, password, system_type, address_range;
    uint8_t addr_ton, addr_npi;
    unsigned window; /* requests without answer, a bind */
    uint64_t enquire_ms, response_ms, connect_ms, reconnect_max_ms;
};

struct smpp_session;
struct smpp_session_events {
    void (*bound)(void *arg, struct smpp_session *s);
    void (*unbound)(void *arg, struct smpp_session *s, const char *why); /* after its tickets were lost */
    void (*bind_refused)(void *arg, uint32_t status);                    /* it goes on trying */
    /* The response to a request, or a generic_nack for it. */
    void (*answered)(void *arg, void *ticket, const struct smpp_pdu *response);
    /* No answer will come. was_written: the peer may have got the request. */
    void (*lost)(void *arg, void *ticket, bool was_written, const char *why);
    /* deliver_sm or data_sm: answer it, now or later, with smpp_session_answer. */
    void (*request)(void *arg, struct smpp_session *s, const struct smpp_pdu *p);
    void (*room)(void *arg, struct smpp_session *s);    /* after answers: the window has room again */
    void (*stopped)(void *arg, struct smpp_session *s); /* after smpp_session_stop */
};

struct smpp_session *smpp_session_new(struct sl_loop *l, const struct smpp_account *account,
                                      enum smpp_bind bind, const struct smpp_session_events *ev, void *arg);
void smpp_session_start(struct smpp_session *s);
/* Send a request (its seq is set here). SL_EAGAIN: not bound, or no room in the window; SL_ETOOBIG. */
sl_err smpp_session_request(struct smpp_session *s, struct smpp_pdu *p, void *ticket) SL_MUST_CHECK;
size_t smpp_session_room(const struct smpp_session *s); /* requests that would be taken now */
bool smpp_session_is_bound(const struct smpp_session *s);
bool smpp_session_can_submit(const struct smpp_session *s);
/* Number of the connection: an answer belongs to the one its request came on. */
uint64_t smpp_session_connection(const struct smpp_session *s);
void smpp_session_answer(struct smpp_session *s, uint64_t connection, uint32_t command, uint32_t seq,
                         uint32_t status);
/* Unbind politely and stay down; stopped() follows, at the latest after account.response_ms. */
void smpp_session_stop(struct smpp_session *s);
/* At once; its tickets come back as lost before this returns. Memory goes now. */
void smpp_session_close(struct smpp_session **s);

#endif
