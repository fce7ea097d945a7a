/* gateway/host.c - what the gateway gives its adapters: the table of channels/channel.h's struct chan_host.
 *
 * Each service lives in a file of its own (host_*.c); here are the table, the way in, and what is too small for a file.
 */
#include "gateway/gateway_priv.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

/* A message that an adapter or the API wants appended. */
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

sl_err gw_append_message(struct gw *gw, const struct gw_inbox *inbox, const struct msg *m, int64_t horizon_ms,
                         bus_accept_fn fn, void *arg)
{
    char addr[KEY_MAX_BYTES], tag[KEY_TAG_MAX_BYTES];
    unsigned partitions = bus_partitions(gw->bus);
    if (partitions == 0 || gw->life != GW_RUNNING)
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
    key_partition_tag(tag, key_address_partition(ev.addr, partitions));
    struct bus_accept in = {
        .tag = tag, .dedupe = BUS_BY_ID, .id = m->id, .horizon_ms = horizon_ms, .event = &ev};
    struct append *a = sl_alloc(sizeof *a);
    *a = (struct append){gw, fn, arg};
    sl_err err = bus_accept(gw->bus, &in, on_appended, a);
    if (err != SL_OK)
        free(a);
    else
        gw->appends++;
    return err;
}

struct inbound {
    struct chan *ch;
    struct chan_ticket *ticket;
};

static void on_inbound_appended(void *arg, sl_err err, const struct bus_accept_result *res,
                                const struct sl_fail *why)
{
    struct inbound *in = arg;
    (void)res;
    (void)why;
    bool is_unknown =
        err == SL_ETIMEOUT || err == SL_ECLOSED; /* the provider repeats it, and the store knows its id */
    chan_accepted(in->ch, in->ticket, is_unknown ? SL_EAGAIN : err);
    free(in);
}

static sl_err host_inbound(struct chan *ch, const struct msg *m, struct chan_ticket *t)
{
    struct gw_box *box = chan_core(ch);
    struct inbound *in = sl_alloc(sizeof *in);
    *in = (struct inbound){ch, t};
    sl_err err =
        gw_append_message(box->gw, &box->inbox, m, chan_ops_of(ch)->horizon_ms, on_inbound_appended, in);
    if (err != SL_OK)
        free(in);
    return err;
}

/* No delivery lane gives jobs to adapters yet, so none can be settled. */
static void host_settled(struct chan *ch, struct chan_job *job, const struct chan_result *r)
{
    (void)ch;
    (void)job;
    (void)r;
}

static void host_state(struct chan *ch, enum chan_state now)
{
    struct gw_box *box = chan_core(ch);
    box->is_up = now == CHAN_UP;
    sl_log(SL_INFO, "inbox state", SL_KV("inbox", chan_inbox(ch)),
           SL_KV("state", box->is_up ? "up" : "down"));
}

static void host_closed(struct chan *ch)
{
    struct gw_box *box = chan_core(ch);
    box->is_closed = true;
}

const struct chan_host gw_host = {.inbound = host_inbound,
                                  .settled = host_settled,
                                  .kv = gw_host_kv,
                                  .alarm = gw_host_alarm,
                                  .state = host_state,
                                  .closed = host_closed};
