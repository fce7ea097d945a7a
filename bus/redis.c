/* bus/redis.c - the bus over Redis: one connection for commands, one for each blocking reader and each subscriber.
 *
 * Lifetime  struct redis is counted: the bus itself, its link, readers and subscribers hold a reference each. Close readers, tails
 *           and subscribers before the bus; one that is still open keeps working until its owner closes it.
 */
#include "bus/redis_priv.h"

#include "base/log.h"

#include <stdlib.h>

#define CONNECT_DEADLINE_MS 5000
#define UNBLOCK_AGAIN_MS    5
#define UNBLOCK_TRIES       40

struct redis {
    struct bus bus; /* first: see bus_priv.h */
    struct redis_where where;
    struct redis_flusher *flusher;
    struct redis_link *link; /* NULL when the url is no good, or closing */
    uint64_t connect_deadline_ms, command_deadline_ms;
    unsigned partitions_wanted;
    bool require_aof;
    struct sl_post bad_url_post;
    struct sl_fail unfit; /* the last one told; empty text: none */
    unsigned references;
};

struct redis_reader {
    struct redis *redis;
    struct redis_link *link;
    int64_t client_id; /* 0: not known, so it cannot be unblocked */
    bus_reply_fn fn;   /* of the command in flight; NULL: none */
    void *arg;
    uint64_t read;       /* counts commands */
    uint64_t unblocking; /* the read to be freed; 0: none */
    unsigned tries;
    struct sl_timer unblock_again;
    unsigned references; /* its link, and an UNBLOCK in flight */
};

static void redis_unref(struct redis *r)
{
    if (--r->references > 0)
        return;
    sl_post_cancel(&r->bad_url_post);
    bus_flusher_unref(&r->flusher);
    bus_where_fini(&r->where);
    free(r);
}

/* ---- the connection for commands ---- */

static void tell_unfit(struct redis *r, const struct sl_fail *why)
{
    if (strcmp(r->unfit.text, why->text) == 0)
        return;
    r->unfit = *why;
    if (r->bus.events.unfit != NULL)
        r->bus.events.unfit(r->bus.events_arg, why);
    else
        sl_log(SL_ERROR, "redis: the server is not fit for use", SL_KV_FAIL(why));
}

static void on_checked(void *arg, enum redis_fit fit, const struct redis_found *found,
                       const struct sl_fail *why)
{
    struct redis *r = arg;
    if (r->link == NULL)
        return; /* closing */
    switch (fit) {
    case REDIS_FIT:
        bus_link_use_module(r->link, found->has_module);
        bus_link_ready(r->link);
        r->bus.partitions = found->partitions;
        r->bus.is_ready = true;
        r->unfit.text[0] = '\0';
        if (r->bus.events.ready != NULL)
            r->bus.events.ready(r->bus.events_arg, true);
        break;
    case REDIS_RETRY:
        bus_link_cut(r->link, SL_EAGAIN, why->text);
        break;
    case REDIS_UNFIT:
        bus_link_cut(r->link, SL_EREFUSED, why->text);
        break;
    }
}

static void on_command_connected(void *arg, struct redis_link *l)
{
    struct redis *r = arg;
    const struct redis_check_config cfg = {.partitions = r->partitions_wanted, .require_aof = r->require_aof};
    bus_check_start(l, &cfg, on_checked, r);
}

static void on_command_lost(void *arg, struct redis_link *l, bool was_ready, const struct sl_fail *why)
{
    struct redis *r = arg;
    (void)l;
    r->bus.is_ready = false;
    if (was_ready && r->bus.events.ready != NULL)
        r->bus.events.ready(r->bus.events_arg, false);
    if (!was_ready && why->code == SL_EREFUSED)
        tell_unfit(r, why);
}

static void on_command_freed(void *arg)
{
    redis_unref(arg);
}

static sl_err on_redis_command(struct bus *b, const struct bus_args *args, uint64_t deadline_ms,
                               bus_reply_fn fn, void *arg)
{
    struct redis *r = (struct redis *)b;
    if (r->link == NULL)
        return SL_ECLOSED;
    return bus_link_command(r->link, args, deadline_ms != 0 ? deadline_ms : r->command_deadline_ms, false, fn,
                            arg);
}

/* ---- readers ---- */

static void reader_unref(struct redis_reader *rd)
{
    if (--rd->references > 0)
        return;
    sl_timer_stop(&rd->unblock_again);
    redis_unref(rd->redis);
    free(rd);
}

static void on_reader_freed(void *arg)
{
    reader_unref(arg);
}

static void on_client_id(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct redis_reader *rd = arg;
    if (rd->link == NULL || err == SL_ECLOSED || err == SL_ETIMEOUT)
        return;
    if (err == SL_EAGAIN) {
        bus_link_cut(rd->link, err, why->text);
        return;
    }
    rd->client_id = err == SL_OK ? bus_value_int(v) : 0; /* refused by an ACL: reads then end by themselves */
    bus_link_ready(rd->link);
}

static void on_reader_connected(void *arg, struct redis_link *l)
{
    struct redis_reader *rd = arg;
    struct bus_args args;
    bus_args_init(&args);
    bus_args_c(&args, "CLIENT");
    bus_args_c(&args, "ID");
    if (rd->link != NULL && bus_link_command(l, &args, CONNECT_DEADLINE_MS, true, on_client_id, rd) != SL_OK)
        bus_link_cut(l, SL_EAGAIN, "CLIENT ID could not be sent");
    bus_args_fini(&args);
}

static void on_reader_lost(void *arg, struct redis_link *l, bool was_ready, const struct sl_fail *why)
{
    struct redis_reader *rd = arg;
    (void)l;
    (void)was_ready;
    (void)why;
    rd->client_id = 0;
}

static void unblock(struct redis_reader *rd);

static void on_unblock_again(void *arg)
{
    unblock(arg);
}

static void on_redis_unblocked(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct redis_reader *rd = arg;
    bool was_too_early =
        err == SL_OK && bus_value_int(v) == 0 && rd->fn != NULL && rd->unblocking == rd->read;
    (void)why;
    if (was_too_early && rd->link != NULL && rd->tries++ < UNBLOCK_TRIES)
        sl_timer_start(&rd->unblock_again, UNBLOCK_AGAIN_MS); /* the read has not arrived at the server yet */
    else
        rd->unblocking = 0;
    reader_unref(rd);
}

static void unblock(struct redis_reader *rd)
{
    struct bus_args args;
    if (rd->fn == NULL || rd->unblocking != rd->read || rd->client_id == 0 || rd->redis->link == NULL) {
        rd->unblocking = 0;
        return;
    }
    bus_args_init(&args);
    bus_args_c(&args, "CLIENT");
    bus_args_c(&args, "UNBLOCK");
    bus_args_int(&args, rd->client_id);
    if (bus_link_command(rd->redis->link, &args, BUS_DEADLINE_MS, false, on_redis_unblocked, rd) == SL_OK)
        rd->references++;
    else
        rd->unblocking = 0; /* the read ends within its second */
    bus_args_fini(&args);
}

static void on_redis_reader_unblock(void *reader)
{
    struct redis_reader *rd = reader;
    if (rd->fn == NULL || rd->unblocking == rd->read)
        return;
    rd->unblocking = rd->read;
    rd->tries = 0;
    sl_timer_stop(&rd->unblock_again);
    unblock(rd);
}

static void *on_redis_reader_open(struct bus *b)
{
    struct redis *r = (struct redis *)b;
    struct redis_reader *rd = sl_alloc(sizeof(*rd));
    const struct redis_link_config cfg = {.loop = r->bus.loop,
                                          .flusher = r->flusher,
                                          .where = &r->where,
                                          .connect_deadline_ms = r->connect_deadline_ms,
                                          .connected = on_reader_connected,
                                          .lost = on_reader_lost,
                                          .freed = on_reader_freed,
                                          .arg = rd};
    rd->redis = r;
    rd->references = 1;
    r->references++;
    sl_timer_init(&rd->unblock_again, r->bus.loop, on_unblock_again, rd);
    rd->link = bus_link_open(&cfg);
    return rd;
}

static void on_redis_reader_close(void *reader)
{
    struct redis_reader *rd = reader;
    sl_timer_stop(&rd->unblock_again);
    bus_link_close(&rd->link); /* settles what is in flight, then on_reader_freed */
}

static void on_read_reply(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct redis_reader *rd = arg;
    bus_reply_fn fn = rd->fn;
    rd->fn = NULL;
    fn(rd->arg, err, v, why);
}

static sl_err on_redis_reader_command(void *reader, const struct bus_args *args, uint64_t deadline_ms,
                                      bus_reply_fn fn, void *arg)
{
    struct redis_reader *rd = reader;
    if (rd->link == NULL)
        return SL_ECLOSED;
    if (rd->fn != NULL)
        return SL_EAGAIN;
    sl_err err = bus_link_command(rd->link, args, deadline_ms, false, on_read_reply, rd);
    if (err != SL_OK)
        return err;
    rd->fn = fn;
    rd->arg = arg;
    rd->read++;
    return SL_OK;
}

/* ---- subscribers ---- */

static void on_sub_freed(void *owner)
{
    redis_unref(owner);
}

static void *on_redis_sub_open(struct bus *b, void (*on_message)(void *, bool, struct sl_str, struct sl_str),
                               void (*on_change)(void *, bool), void *arg)
{
    struct redis *r = (struct redis *)b;
    r->references++;
    return bus_sub_open(r->bus.loop, &r->where, r->connect_deadline_ms, on_message, on_change, on_sub_freed,
                        r, arg);
}

static void on_redis_sub_close(void *sub)
{
    bus_sub_close(sub);
}

static void on_redis_sub_send(void *sub, bool subscribe, const struct sl_str *channels, size_t count)
{
    bus_sub_send(sub, subscribe, channels, count);
}

/* ---- open and close ---- */

static void on_redis_close(struct bus *b)
{
    struct redis *r = (struct redis *)b;
    r->bus.is_ready = false;
    r->bus.events = (struct bus_events){.ready = NULL};
    bus_link_close(&r->link);
    redis_unref(r);
}

static const struct bus_impl REDIS_IMPL = {
    .command = on_redis_command,
    .reader_open = on_redis_reader_open,
    .reader_close = on_redis_reader_close,
    .reader_command = on_redis_reader_command,
    .reader_unblock = on_redis_reader_unblock,
    .sub_open = on_redis_sub_open,
    .sub_close = on_redis_sub_close,
    .sub_send = on_redis_sub_send,
    .close = on_redis_close,
};

static void on_bad_url(void *arg)
{
    struct redis *r = arg;
    struct sl_fail why = r->unfit;
    r->unfit.text[0] = '\0';
    tell_unfit(r, &why);
}

static void open_link(struct redis *r)
{
    const struct redis_link_config cfg = {.loop = r->bus.loop,
                                          .flusher = r->flusher,
                                          .where = &r->where,
                                          .connect_deadline_ms = r->connect_deadline_ms,
                                          .pings = true,
                                          .connected = on_command_connected,
                                          .lost = on_command_lost,
                                          .freed = on_command_freed,
                                          .arg = r};
    r->references++;
    r->link = bus_link_open(&cfg);
}

struct bus *bus_open(struct sl_loop *l, const struct bus_config *cfg, const struct bus_events *ev, void *arg)
{
    struct redis *r = sl_alloc(sizeof(*r));
    r->bus.impl = &REDIS_IMPL;
    r->bus.loop = l;
    r->bus.events = ev != NULL ? *ev : (struct bus_events){.ready = NULL};
    r->bus.events_arg = arg;
    r->connect_deadline_ms = cfg->connect_deadline_ms != 0 ? cfg->connect_deadline_ms : CONNECT_DEADLINE_MS;
    r->command_deadline_ms = cfg->command_deadline_ms != 0 ? cfg->command_deadline_ms : BUS_DEADLINE_MS;
    r->partitions_wanted = cfg->partitions != 0 ? cfg->partitions : 64;
    r->require_aof = cfg->require_aof;
    r->references = 1;
    r->flusher = bus_flusher_new(sl_loop_uv(l));
    sl_post_init(&r->bad_url_post, l, on_bad_url, r);
    if (bus_where_parse(&r->where, cfg, &r->unfit) == SL_OK)
        open_link(r);
    else
        sl_post_now(&r->bad_url_post);
    return &r->bus;
}
