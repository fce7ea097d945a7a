/* bus/box.c - box_1: a value that all gateways share for one inbox: a token, a lock, a cursor. */
#include "bus/bus_priv.h"

#include <stdlib.h>

static const char *const op_names[] = {
    [BUS_BOX_GET] = "get",   [BUS_BOX_SET] = "set",   [BUS_BOX_ADD] = "add",
    [BUS_BOX_SWAP] = "swap", [BUS_BOX_DROP] = "drop", [BUS_BOX_PUT] = "put",
};

struct box_call {
    enum bus_box_op op;
    bus_box_fn fn;
    void *arg;
};

static void add_map(struct sl_buf *out, const struct bus_value *v)
{
    for (size_t i = 1; i < bus_value_count(v); i++) {
        sl_buf_str(out, bus_value_str(bus_value_at(v, i)));
        sl_buf_char(out, '\0');
    }
}

static void on_box_reply(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct box_call call = *(struct box_call *)arg;
    struct sl_buf map;
    (void)why;
    free(arg);
    if (err != SL_OK) {
        call.fn(call.arg, err, SL_STR_NONE);
        return;
    }
    struct sl_str word = bus_value_str(bus_value_at(v, 0));
    if (call.op == BUS_BOX_PUT) {
        sl_buf_init(&map, 0);
        add_map(&map, v);
        call.fn(call.arg, map.overflow ? SL_ETOOBIG : SL_OK, sl_buf_view(&map));
        sl_buf_fini(&map);
        return;
    }
    if (sl_str_eq_c(word, "none"))
        err = SL_ENOTFOUND;
    else if (sl_str_eq_c(word, "conflict"))
        err = SL_ECONFLICT;
    call.fn(call.arg, err, bus_value_str(bus_value_at(v, 1)));
}

static void add_arguments(struct bus_args *a, const struct bus_box *in)
{
    bus_args_c(a, op_names[in->op]);
    bus_args_int(a, in->ttl_ms > 0 ? in->ttl_ms : 0);
    if (in->op == BUS_BOX_PUT)
        bus_args_str(a, in->field);
    if (in->op != BUS_BOX_GET && in->op != BUS_BOX_DROP)
        bus_args_str(a, in->value);
    if (in->op == BUS_BOX_SWAP || in->op == BUS_BOX_DROP)
        bus_args_str(a, in->expected);
}

sl_err bus_box(struct bus *b, const struct bus_box *in, bus_box_fn fn, void *arg)
{
    struct bus_args args;
    bus_args_init(&args);
    bus_args_c(&args, "FCALL");
    bus_args_c(&args, "box_1");
    bus_args_int(&args, 1);
    bus_args_key(&args, &in->key);
    add_arguments(&args, in);
    struct box_call *call = sl_alloc(sizeof *call);
    *call = (struct box_call){in->op, fn, arg};
    sl_err err = bus_command(b, &args, BUS_DEADLINE_MS, on_box_reply, call);
    bus_args_fini(&args);
    if (err != SL_OK)
        free(call);
    return err;
}
