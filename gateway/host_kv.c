/* gateway/host_kv.c - values that the adapters of one inbox share in all gateways (bus/box.c), and alarms. */
#include "gateway/gateway_priv.h"

#include "base/log.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

struct kv_call {
    struct gw_box *box;
    chan_kv_fn fn;
    void *arg;
};

static const enum bus_box_op ops[] = {
    [CHAN_KV_GET] = BUS_BOX_GET,   [CHAN_KV_SET] = BUS_BOX_SET,   [CHAN_KV_ADD] = BUS_BOX_ADD,
    [CHAN_KV_SWAP] = BUS_BOX_SWAP, [CHAN_KV_DROP] = BUS_BOX_DROP, [CHAN_KV_PUT] = BUS_BOX_PUT,
};

static void on_kv(void *arg, sl_err err, struct sl_str value)
{
    struct kv_call call = *(struct kv_call *)arg;
    free(arg);
    if (!call.box->is_closing)
        call.fn(call.arg, err, value);
}

sl_err gw_host_kv(struct chan *ch, const struct chan_kv *op, chan_kv_fn fn, void *arg)
{
    struct gw_box *box = chan_core(ch);
    if (box->is_closing)
        return SL_EAGAIN; /* the store may have gone, and nothing would be called back */
    if (!key_part_ok(op->name) || op->value.len > CHAN_KV_MAX || op->expected.len > CHAN_KV_MAX)
        return SL_EINVAL;
    struct bus_box in = {.op = ops[op->op],
                         .key = key_box(box->inbox.name, op->name),
                         .field = op->field,
                         .value = op->value,
                         .expected = op->expected,
                         .ttl_ms = op->ttl_ms};
    struct kv_call *call = sl_alloc(sizeof *call);
    *call = (struct kv_call){box, fn, arg};
    sl_err err = bus_box(box->gw->bus, &in, on_kv, call);
    if (err != SL_OK)
        free(call);
    return err;
}

#define ALARM_CODE_MAX 40

void gw_host_alarm(struct chan *ch, const char *code, bool is_on, const char *words)
{
    char safe[ALARM_CODE_MAX + 1], labels[ALARM_CODE_MAX + MSG_ID_MAX_BYTES + 32];
    size_t n = 0;
    for (; code[n] != '\0' && n < ALARM_CODE_MAX; n++)
        safe[n] = (char)(isalnum((unsigned char)code[n]) || code[n] == '.' || code[n] == '-' ? code[n] : '_');
    safe[n] = '\0';
    (void)snprintf(labels, sizeof labels, "inbox=\"%s\",code=\"%s\"", chan_inbox(ch), safe);
    struct sl_metric *gauge =
        sl_gauge("sluice_channel_alarm", labels, "1: a person must look at this inbox; the log says why");
    if ((sl_metric_value(gauge) != 0) == is_on)
        return;
    sl_gauge_set(gauge, is_on ? 1 : 0);
    sl_log(is_on ? SL_ERROR : SL_INFO, is_on ? "inbox needs a person" : "inbox alarm is over",
           SL_KV("inbox", chan_inbox(ch)), SL_KV("code", safe), SL_KV("why", words != NULL ? words : ""));
}
