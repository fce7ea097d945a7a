/* bus/accept.c - accept_1: a message from the edge is checked for repeats, order, rate and room, and appended, in one step.
 *
 * Buckets  BY_ID: ids stand in a hash for each span of time (an hour for horizons up to 6 h, else a day), named by the writer's clock.
 *          The message goes into the present one; all of the horizon are searched, and the next one too, for another gateway's
 *          clock may be ahead by up to a span.
 */
#include "bus/bus_priv.h"

#include "base/fault.h"

#include <stdio.h>
#include <stdlib.h>

#define HOUR_MS        3600000
#define DAY_MS         (24 * (int64_t)HOUR_MS)
#define HORIZON_MAX_MS (31 * DAY_MS)

struct accept_call {
    bus_accept_fn fn;
    void *arg;
};

static int64_t bucket_span_ms(int64_t horizon_ms)
{
    return horizon_ms <= 6 * (int64_t)HOUR_MS ? HOUR_MS : DAY_MS;
}

static int64_t horizon_of(const struct bus_accept *in)
{
    if (in->horizon_ms <= 0)
        return HOUR_MS;
    return in->horizon_ms < HORIZON_MAX_MS ? in->horizon_ms : HORIZON_MAX_MS;
}

static void add_bucket(struct bus_args *a, const char *tag, int64_t span_ms, int64_t index)
{
    char name[32];
    int n = snprintf(name, sizeof(name), "%c%lld", span_ms == HOUR_MS ? 'h' : 'd', (long long)index);
    struct key k = key_seen(tag, sl_str_n(name, (size_t)n));
    bus_args_copy(a, key_str(&k));
}

/* Returns the number of keys added. */
static int64_t add_buckets(struct bus_args *a, const struct bus_accept *in, int64_t unix_ms)
{
    int64_t horizon = horizon_of(in), span = bucket_span_ms(horizon);
    int64_t present = unix_ms / span, count = (horizon + span - 1) / span;
    add_bucket(a, in->tag, span, present); /* first: the one written to */
    add_bucket(a, in->tag, span, present + 1);
    for (int64_t i = 1; i <= count; i++)
        add_bucket(a, in->tag, span, present - i);
    return count + 2;
}

static enum bus_dedupe dedupe_of(const struct bus_accept *in)
{
    if (sl_mutant("no-dedupe") && in->dedupe == BUS_BY_NUMBER)
        return BUS_BY_NOTHING;
    return in->dedupe;
}

static void add_keys(struct bus_args *a, const struct bus_accept *in, int64_t unix_ms)
{
    size_t at = bus_args_mark(a);
    int64_t keys = 1;
    struct key log = key_in(in->tag);
    bus_args_copy(a, key_str(&log));
    switch (dedupe_of(in)) {
    case BUS_BY_NUMBER: {
        struct key session = key_session(in->tag, in->session, in->target);
        bus_args_copy(a, key_str(&session));
        keys = 2;
        break;
    }
    case BUS_BY_ID:
        keys += add_buckets(a, in, unix_ms);
        break;
    case BUS_BY_NOTHING:
        break;
    }
    bus_args_set_int(a, at, keys);
}

static void add_mode(struct bus_args *a, const struct bus_accept *in)
{
    int64_t horizon = horizon_of(in), ttl = 0;
    switch (dedupe_of(in)) {
    case BUS_BY_NUMBER:
        bus_args_c(a, "n");
        bus_args_int(a, (int64_t)in->number);
        ttl = BUS_SESSION_TTL_MS;
        break;
    case BUS_BY_ID:
        bus_args_c(a, "i");
        bus_args_str(a, in->id);
        ttl = horizon + 2 * bucket_span_ms(horizon);
        break;
    case BUS_BY_NOTHING:
        bus_args_c(a, "-");
        bus_args_c(a, "-");
        break;
    }
    bus_args_int(a, BUS_LOG_MAX);
    bus_args_int(a, in->rate_per_s);
    bus_args_int(a, in->burst);
    bus_args_int(a, ttl);
}

/* "GAP 17": the number after the word. */
static uint64_t number_after(const char *words, const char *word)
{
    size_t len = strlen(word);
    if (strncmp(words, word, len) != 0)
        return 0;
    return strtoull(words + len, NULL, 10);
}

static void on_accept_reply(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct accept_call call = *(struct accept_call *)arg;
    struct bus_accept_result res = {.how = BUS_APPENDED, .entry = SL_STR_NONE};
    struct sl_fail strange;
    free(arg);
    if (err == SL_EGAP) {
        res.last_number = number_after(why->text, "GAP ");
    } else if (err == SL_OK) {
        struct sl_str how = bus_value_str(bus_value_at(v, 0));
        res.how = sl_str_eq_c(how, "dup") ? BUS_REPEAT : BUS_APPENDED;
        res.entry = bus_value_str(bus_value_at(v, 1));
        if (bus_value_count(v) < 2 || (res.how == BUS_APPENDED && !sl_str_eq_c(how, "ok"))) {
            err = sl_fail_set(&strange, SL_EINTERNAL, 0, "accept_1 answered something else than ok or dup");
            why = &strange;
        }
    }
    call.fn(call.arg, err, &res, why);
}

sl_err bus_accept(struct bus *b, const struct bus_accept *in, bus_accept_fn fn, void *arg)
{
    struct event_fields fields;
    struct bus_args args;
    event_to_fields(in->event, &fields);
    bus_args_init(&args);
    bus_args_c(&args, "FCALL");
    bus_args_c(&args, "accept_1");
    add_keys(&args, in, sl_loop_unix_ms(b->loop));
    add_mode(&args, in);
    bus_args_int(&args, (int64_t)fields.count);
    for (size_t i = 0; i < fields.count; i++)
        bus_args_str(&args, fields.item[i]);
    struct accept_call *call = sl_alloc(sizeof(*call));
    *call = (struct accept_call){.fn = fn, .arg = arg};
    sl_err err = bus_command(b, &args, BUS_DEADLINE_MS, on_accept_reply, call);
    bus_args_fini(&args);
    if (err != SL_OK)
        free(call);
    return err;
}
