/* bus/reader.c - a connection for blocking reads: at most one command in flight, so nothing waits behind a blocked one. */
#include "bus/bus_priv.h"

#include <stdlib.h>

struct bus_reader {
    const struct bus_impl *impl;
    void *reader; /* the implementation's */
};

struct bus_reader *bus_reader_open(struct bus *b)
{
    struct bus_reader *r = sl_alloc(sizeof(*r));
    r->impl = b->impl;
    r->reader = b->impl->reader_open(b);
    return r;
}

void bus_reader_close(struct bus_reader **rp)
{
    struct bus_reader *r = *rp;
    *rp = NULL;
    if (r == NULL)
        return;
    r->impl->reader_close(r->reader);
    free(r);
}

sl_err bus_reader_command(struct bus_reader *r, const struct bus_args *args, uint64_t deadline_ms,
                          bus_reply_fn fn, void *arg)
{
    return r->impl->reader_command(r->reader, args, deadline_ms, fn, arg);
}

void bus_reader_unblock(struct bus_reader *r)
{
    r->impl->reader_unblock(r->reader);
}
