/* bus/value.c - replies read without copying, and what an error reply means to us. */
#include "bus/bus_priv.h"

static const redisReply *reply_of(const struct bus_value *v)
{
    return (const redisReply *)v;
}

enum bus_type bus_value_type(const struct bus_value *v)
{
    const redisReply *r = reply_of(v);
    if (r == NULL)
        return BUS_NIL;
    switch (r->type) {
    case REDIS_REPLY_INTEGER:
        return BUS_INT;
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
    case REDIS_REPLY_ERROR:
        return BUS_STR;
    case REDIS_REPLY_ARRAY:
        return BUS_ARRAY;
    default:
        return BUS_NIL;
    }
}

struct sl_str bus_value_str(const struct bus_value *v)
{
    if (bus_value_type(v) != BUS_STR)
        return SL_STR_NONE;
    return sl_str_n(reply_of(v)->str, reply_of(v)->len);
}

int64_t bus_value_int(const struct bus_value *v)
{
    int64_t n = 0;
    if (bus_value_type(v) == BUS_INT)
        return reply_of(v)->integer;
    if (bus_value_type(v) == BUS_STR && sl_str_int(bus_value_str(v), &n) == SL_OK)
        return n;
    return 0;
}

size_t bus_value_count(const struct bus_value *v)
{
    return bus_value_type(v) == BUS_ARRAY ? reply_of(v)->elements : 0;
}

const struct bus_value *bus_value_at(const struct bus_value *v, size_t i)
{
    return i < bus_value_count(v) ? (const struct bus_value *)reply_of(v)->element[i] : NULL;
}

/* First word of an error reply -> error. Words of Redis: redis/src/server.c createSharedObjects (7.0); ours: functions.md.
 * SL_EAGAIN only where nothing was executed. */
static const struct {
    const char *word;
    sl_err err;
} ERROR_WORDS[] = {
    {"FENCED", SL_EFENCED},  {"MOVED_OFFSET", SL_EMOVED}, {"GAP", SL_EGAP},        {"FULL", SL_EAGAIN},
    {"RATE", SL_ERATE},      {"TOOBIG", SL_ETOOBIG},      {"NONE", SL_ENOTFOUND},  {"CONFLICT", SL_ECONFLICT},
    {"BAD", SL_EREFUSED},    {"LOADING", SL_EAGAIN},      {"BUSY", SL_EAGAIN},     {"OOM", SL_EAGAIN},
    {"MISCONF", SL_EAGAIN},  {"NOREPLICAS", SL_EAGAIN},   {"READONLY", SL_EAGAIN}, {"MASTERDOWN", SL_EAGAIN},
    {"TRYAGAIN", SL_EAGAIN}, {"CLUSTERDOWN", SL_EAGAIN},  {"MOVED", SL_EREFUSED},  {"ASK", SL_EREFUSED},
};

static struct sl_str first_word(struct sl_str s)
{
    const char *blank = memchr(s.ptr, ' ', s.len);
    return blank == NULL ? s : sl_str_n(s.ptr, (size_t)(blank - s.ptr));
}

static sl_err error_of(struct sl_str words)
{
    struct sl_str word = first_word(words);
    for (size_t i = 0; i < sizeof(ERROR_WORDS) / sizeof(ERROR_WORDS[0]); i++)
        if (sl_str_eq_c(word, ERROR_WORDS[i].word))
            return ERROR_WORDS[i].err;
    if (sl_str_starts(words, "ERR Function not found") || sl_str_starts(words, BUS_MODULE_GONE))
        return SL_EAGAIN; /* somebody flushed the Functions, or the module is gone: redis.c finds out again */
    return SL_EREFUSED;
}

sl_err bus_reply_error(const redisReply *r, struct sl_fail *why)
{
    if (r == NULL || r->type != REDIS_REPLY_ERROR)
        return SL_OK;
    struct sl_str words = sl_str_n(r->str, r->len);
    sl_err err = error_of(words);
    if (err == SL_EREFUSED && (sl_str_starts(words, "MOVED ") || sl_str_starts(words, "ASK ")))
        return sl_fail_set(why, err, 0,
                           "%.*s: this server is part of a Redis Cluster; point the url at a single Redis",
                           (int)(words.len < 100 ? words.len : 100), words.ptr);
    return sl_fail_set(why, err, 0, "%.*s", (int)(words.len < 200 ? words.len : 200), words.ptr);
}
