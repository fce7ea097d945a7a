/* tests/contract/smsc_play.h - a message centre in memory, for the adapter "smpp" on a virtual clock.
 *
 * What     stands where the TCP link stands (smpp_link_play). It answers binds, enquire_link and submit_sm unless the script says
 *          otherwise, keeps what it was given, and sends what the test wants, byte for byte.
 */
#ifndef TESTS_CONTRACT_SMSC_PLAY_H
#define TESTS_CONTRACT_SMSC_PLAY_H

#include "base/loop.h"
#include "channels/sms/smpp_pdu.h"

#define SMSC_PDUS_MAX 4096

struct smsc_play {
    /* the script */
    bool is_silent;  /* submit_sm is not answered */
    bool is_mute;    /* nothing is answered */
    bool is_stalled; /* it does not read: what is written waits */
    bool refuses_connections;
    uint32_t bind_status, submit_status, submit_status_once; /* once: for the next submit_sm only */
    unsigned odd_one;             /* this submit_sm, counted from 1, is answered with odd_status; ... */
    uint32_t odd_status;          /* 0: not at all */
    uint32_t cut_after_answer_of; /* closes when it gets the answer to this deliver_sm, as if that was lost */
    const char *id_format;        /* of message ids, "%lx" */
    /* what happened */
    unsigned connections, binds, submits, enquires;
    struct sl_buf submit[SMSC_PDUS_MAX]; /* frames, in order */
    uint32_t last_seq;                   /* of what it sent */
    struct {
        uint32_t seq, command, status;
    } answer[SMSC_PDUS_MAX];
    unsigned answers;
};

extern struct smsc_play smsc;

void smsc_play_open(struct sl_loop *l); /* a fresh one, and installs it */
void smsc_play_close(void);
void smsc_play_send(struct sl_str bytes);                /* on the latest connection, on the next turn */
uint32_t smsc_play_deliver(struct smpp_pdu *p);          /* sets seq; returns it */
void smsc_play_cut(void);                                /* closes the latest connection, on the next turn */
bool smsc_play_answered(uint32_t seq, uint32_t *status); /* our answer to its request */
void smsc_play_read_submit(unsigned i, struct smpp_pdu *p); /* borrows */

#endif
