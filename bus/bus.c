/* bus/bus.c - the calls of bus.h that only choose the implementation. */
#include "bus/bus_priv.h"

sl_err bus_command(struct bus *b, const struct bus_args *args, uint64_t deadline_ms, bus_reply_fn fn,
                   void *arg)
{
    sl_assert(args->count > 0);
    return b->impl->command(b, args, deadline_ms, fn, arg);
}

void bus_close(struct bus **bp)
{
    struct bus *b = *bp;
    *bp = NULL;
    if (b != NULL)
        b->impl->close(b);
}

bool bus_is_ready(const struct bus *b)
{
    return b->is_ready;
}

unsigned bus_partitions(const struct bus *b)
{
    return b->partitions;
}

struct sl_loop *bus_loop(const struct bus *b)
{
    return b->loop;
}
