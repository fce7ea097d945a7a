/* channels/sms/smpp_priv.h - what the files of the adapter share. */
#ifndef CHANNELS_SMS_SMPP_PRIV_H
#define CHANNELS_SMS_SMPP_PRIV_H

#include "base/map.h"
#include "base/metrics.h"
#include "channels/sms/smpp.h"
#include "channels/sms/smpp_part.h"
#include "channels/sms/smpp_receipt.h"
#include "channels/sms/smpp_session.h"

#define SMPP_CLEAR_MAX 2048
#define SMPP_CLEAR_MS  10000 /* a STOP that came to another process is honoured after so long at the latest */

struct smpp_job;
struct smpp_in;
struct smpp_seen;

struct smpp {
    struct chan *ch;
    const char *inbox;
    struct smpp_account account;
    char *texts[8]; /* what the account's strings borrow from */
    size_t text_count;
    struct smpp_session *session[SMPP_BINDS_MAX];
    size_t sessions, bound, stopped;
    struct sl_post turn;
    struct sl_timer deadline; /* of draining */
    bool is_up, is_draining, is_closing, is_starting;
    /* sending */
    struct smpp_address source;
    struct smpp_address destination; /* its ton and npi */
    struct sl_str service_type;
    char validity[17];
    enum smpp_joint long_by;
    bool is_payload, is_alphabet_fixed;
    enum sms_alphabet alphabet, zero;
    uint8_t registered;
    enum smpp_ids ids;
    size_t text_max;
    struct smpp_job *jobs; /* list: accepted and not settled */
    size_t job_count, allowed, allowed_max, good_answers;
    uint64_t throttled_mono_ms;
    /* numbers that were not in the ledger of opt-outs a moment ago: hash, until when */
    struct {
        uint64_t hash, until_mono_ms;
    } clear[SMPP_CLEAR_MAX];
    uint64_t clear_seed;
    /* receiving */
    struct smpp_in *ins;         /* list */
    size_t in_count, in_waiting; /* in_waiting: the core has their tickets */
    struct sl_map *seen;         /* answered lately: hash -> smpp_seen */
    struct smpp_seen *seen_head, *seen_tail;
    struct sl_timer seen_timer, sweep_timer;
    bool is_holder;
    int64_t swept_minute;   /* up to which minute's notes of waiting parts were looked through */
    int64_t flagged_minute; /* known to be marked as having notes */
    unsigned sweep_shard;
    size_t sweeps; /* calls under way */
    struct sl_metric *gauge_bound, *gauge_jobs, *gauge_in;
};

void smpp_turn_soon(struct smpp *sm);

/* smpp_out.c */
sl_err smpp_out_send(struct smpp *sm, const struct chan_send *s, struct chan_job *job) SL_MUST_CHECK;
sl_err smpp_out_query(struct smpp *sm, const struct chan_send *s, struct chan_job *job) SL_MUST_CHECK;
void smpp_out_answered(struct smpp *sm, void *ticket, const struct smpp_pdu *response);
void smpp_out_lost(struct smpp *sm, void *ticket, bool was_written, const char *why);
void smpp_out_room(struct smpp *sm, struct smpp_session *s);
void smpp_out_unbound(struct smpp *sm, struct smpp_session *s, const char *why);
void smpp_out_settle(struct smpp *sm); /* on a turn: jobs that were over before they began */
void smpp_out_opted(struct smpp *sm,
                    struct sl_str number); /* the ledger of opt-outs changed for this number */

/* smpp_in.c */
void smpp_in_request(struct smpp *sm, struct smpp_session *s, const struct smpp_pdu *p);
void smpp_in_accepted(struct smpp *sm, struct chan_ticket *t, sl_err result);
void smpp_in_open(struct smpp *sm);
void smpp_in_hold(struct smpp *sm, bool is_holder);
void smpp_in_close(struct smpp *sm); /* forget what the core has no ticket of */

#endif
