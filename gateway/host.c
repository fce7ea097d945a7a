/* gateway/host.c - what the gateway gives its adapters: the table of channels/channel.h's struct chan_host.
 *
 * Services live in files of their own (host_*.c); here are the table, the ways in, and what is too small for a file.
 * In       a message goes to the log of its address's partition, a receipt to the log of the inbox's delivery lane; both
 *          through accept_1, which knows repeats by their id. The adapter hears of it when it is durable.
 * Out      settlements go to gateway/delivery.c.
 */
#include "gateway/gateway_priv.h"

#include "base/fault.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

#define QUOTA_MAX_BYTES 48

/* Something that an adapter or the API wants appended. */
struct append {
    struct gw *gw;
    bus_accept_fn fn;
    void *arg;
};

static void on_appended(void *arg, sl_err err, const struct bus_accept_result *res, const struct sl_fail *why)
{
    struct append *a = arg;
    a->gw->appends--;
    a->fn(a->arg, err, res, why);
    free(a);
}

/* The same id may be given by two providers to two things: what is repeated is (inbox, id). */
static sl_err append(struct gw *gw, const struct gw_inbox *inbox, const char *tag, struct sl_str id,
                     int64_t horizon_ms, const struct event *ev, bus_accept_fn fn, void *arg)
{
    char known_as[2 * MSG_ID_MAX_BYTES + 8];
    int n = snprintf(known_as, sizeof known_as, "%s/%.*s", inbox->name, (int)id.len, id.ptr);
    if (gw->life != GW_RUNNING || n < 0 || (size_t)n >= sizeof known_as)
        return gw->life != GW_RUNNING ? SL_EAGAIN : SL_EINVAL;
    struct bus_accept in = {.tag = tag,
                            .dedupe = BUS_BY_ID,
                            .id = sl_str_n(known_as, (size_t)n),
                            .horizon_ms = horizon_ms,
                            .event = ev};
    struct append *a = sl_alloc(sizeof *a);
    *a = (struct append){gw, fn, arg};
    sl_err err = bus_accept(gw->bus, &in, on_appended, a);
    if (err != SL_OK)
        free(a);
    else
        gw->appends++;
    return err;
}

static void write_quota(struct gw *gw, const struct gw_inbox *inbox, const struct chan_ticket *t,
                        char out[QUOTA_MAX_BYTES], struct event *ev)
{
    const struct gw_box *box = gw_find_box(gw, sl_str_c(inbox->name));
    if (t == NULL || t->quota_ms <= 0)
        return;
    int n = snprintf(out, QUOTA_MAX_BYTES, "%u/%lld", t->quota_count, (long long)t->quota_ms);
    ev->quota = sl_str_n(out, (size_t)n);
    if (box != NULL && box->sender != NULL)
        ev->limits = gw_delivery_fit_word(box->sender);
}

static void write_ticket(const struct chan_ticket *t, struct event *ev)
{
    static const enum event_type types[] = {
        [CHAN_MESSAGE] = EVENT_MESSAGE, [CHAN_RATING] = EVENT_RATING, [CHAN_HANGUP] = EVENT_HANGUP};
    ev->type = types[t->what];
    ev->number = t->what == CHAN_RATING ? t->rating : 0;
    ev->context = t->context.len <= CHAN_CONTEXT_MAX ? t->context : SL_STR_NONE;
    ev->conv = t->conversation;
}

static sl_err append_inbound(struct gw *gw, const struct gw_inbox *inbox, const struct msg *m,
                             const struct chan_ticket *t, int64_t horizon_ms, bus_accept_fn fn, void *arg)
{
    char addr[KEY_MAX_BYTES], tag[KEY_TAG_MAX_BYTES], lane_tag[KEY_TAG_MAX_BYTES], quota[QUOTA_MAX_BYTES];
    unsigned partitions = bus_partitions(gw->bus);
    struct key lane;
    if (partitions == 0)
        return SL_EAGAIN;
    int n =
        snprintf(addr, sizeof addr, "%s/%s/%.*s", inbox->tenant, inbox->name, (int)m->who.len, m->who.ptr);
    sl_assert(n > 0 && (size_t)n < sizeof addr);
    struct event ev = {.type = EVENT_MESSAGE,
                       .addr = sl_str_n(addr, (size_t)n),
                       .id = m->id,
                       .text = m->text,
                       .data = m->data};
    ev.kind = sl_str_c(msg_kind_name(m->kind));
    ev.channel = sl_str_c(chan_ops_of(inbox->ch)->name);
    ev.at_ms = sl_loop_unix_ms(gw->loop);
    ev.trace = m->traceparent;
    if (t != NULL)
        write_ticket(t, &ev);
    write_quota(gw, inbox, t, quota, &ev);
    if (chan_ops_of(inbox->ch)->caps & CHAN_CAP_SEND) {
        key_lane_tag(lane_tag, sl_str_c(inbox->name));
        lane = key_in(lane_tag);
        ev.lane = key_str(&lane);
    }
    key_partition_tag(tag, key_address_partition(ev.addr, partitions));
    return append(gw, inbox, tag, m->id, horizon_ms, &ev, fn, arg);
}

sl_err gw_append_message(struct gw *gw, const struct gw_inbox *inbox, const struct msg *m, int64_t horizon_ms,
                         bus_accept_fn fn, void *arg)
{
    return append_inbound(gw, inbox, m, NULL, horizon_ms, fn, arg);
}

/* ---- the adapter's side ---- */

struct inbound {
    struct chan *ch;
    struct chan_ticket *ticket;
    bool is_receipt;
};

static void on_inbound_appended(void *arg, sl_err err, const struct bus_accept_result *res,
                                const struct sl_fail *why)
{
    struct inbound *in = arg;
    (void)res;
    (void)why;
    bool is_unknown =
        err == SL_ETIMEOUT || err == SL_ECLOSED; /* the provider repeats it, and the store knows its id */
    if (in->is_receipt)
        sl_kill_point("lane.receipt_after_append");
    const struct gw_box *box = chan_core(in->ch);
    if (!box->is_closed) /* else its ticket went with it, unacknowledged */
        chan_accepted(in->ch, in->ticket, is_unknown ? SL_EAGAIN : err);
    free(in);
}

static struct inbound *inbound_new(struct chan *ch, struct chan_ticket *t, bool is_receipt)
{
    struct inbound *in = sl_alloc(sizeof *in);
    *in = (struct inbound){ch, t, is_receipt};
    return in;
}

static sl_err host_inbound(struct chan *ch, const struct msg *m, struct chan_ticket *t)
{
    struct gw_box *box = chan_core(ch);
    if (box->is_closing)
        return SL_EAGAIN; /* the store may have gone */
    struct inbound *in = inbound_new(ch, t, false);
    sl_err err =
        append_inbound(box->gw, &box->inbox, m, t, chan_ops_of(ch)->horizon_ms, on_inbound_appended, in);
    if (err != SL_OK)
        free(in);
    return err;
}

static sl_err host_receipt(struct chan *ch, const struct chan_receipt *r, struct chan_ticket *t)
{
    static const char *const words[] = {[CHAN_WORD_SENT] = "sent",
                                        [CHAN_WORD_DELIVERED] = "delivered",
                                        [CHAN_WORD_READ] = "read",
                                        [CHAN_WORD_FAILED] = "failed"};
    struct gw_box *box = chan_core(ch);
    if (box->is_closing)
        return SL_EAGAIN;
    char tag[KEY_TAG_MAX_BYTES];
    struct event ev = {.type = EVENT_RECEIPT,
                       .id = t->id,
                       .remote = r->remote_id,
                       .reason = sl_str_c(words[r->word]),
                       .code = r->code,
                       .text = r->words,
                       .at_ms = r->at_unix_ms};
    key_lane_tag(tag, sl_str_c(box->inbox.name));
    sl_kill_point("lane.receipt_before_append");
    struct inbound *in = inbound_new(ch, t, true);
    sl_err err =
        append(box->gw, &box->inbox, tag, t->id, chan_ops_of(ch)->horizon_ms, &ev, on_inbound_appended, in);
    if (err != SL_OK)
        free(in);
    return err;
}

static void host_settled(struct chan *ch, struct chan_job *job, const struct chan_result *r)
{
    (void)ch;
    gw_delivery_settled(job, r);
}

static void host_state(struct chan *ch, enum chan_state now)
{
    struct gw_box *box = chan_core(ch);
    box->is_up = now == CHAN_UP;
    sl_log(SL_INFO, "inbox state", SL_KV("inbox", chan_inbox(ch)),
           SL_KV("state", box->is_up ? "up" : "down"));
    if (box->sender != NULL && box->is_up)
        gw_delivery_wake(box->sender);
}

static void host_closed(struct chan *ch)
{
    struct gw_box *box = chan_core(ch);
    box->is_closed = true;
}

const struct chan_host gw_host = {.inbound = host_inbound,
                                  .receipt = host_receipt,
                                  .settled = host_settled,
                                  .kv = gw_host_kv,
                                  .media_put = gw_host_media_put,
                                  .media_fetch = gw_host_media_fetch,
                                  .media_read = gw_host_media_read,
                                  .media_link = gw_host_media_link,
                                  .alarm = gw_host_alarm,
                                  .state = host_state,
                                  .closed = host_closed};
