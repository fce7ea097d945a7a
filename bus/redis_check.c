/* bus/redis_check.c - after each connect: is this a server that keeps our promises, and does it have our Functions?
 *
 * Needs    Redis 7.0 (Functions), not a cluster node, not a replica, maxmemory-policy noeviction, an append-only file when asked for.
 * Steps    one command at a time; each answer chooses the next step. Loading and busy servers are tried again later.
 * Library  the code stands in the server as text: equal text is left alone, different text is replaced, with a warning.
 */
#include "bus/redis_priv.h"

#include "base/fault.h"
#include "base/log.h"

#include "bus/functions_lua.h"
#include "bus/operations.h"

#include <stdlib.h>

#define CHECK_DEADLINE_MS    10000 /* the link's connect deadline is the one that counts */
#define CHECK_PARTITIONS_MAX 4096
#define CHECK_LOAD_TRIES     3

enum check_step {
    CHECK_INFO,
    CHECK_CONFIG,
    CHECK_STORE_READ,
    CHECK_STORE_MAKE,
    CHECK_LIBRARY,
    CHECK_LOAD,
    CHECK_REPLACE,
    CHECK_MODULE,
    CHECK_END
};

struct redis_check {
    struct redis_link *link;
    struct redis_check_config cfg;
    bus_check_fn done;
    void *arg;
    enum check_step step;
    struct redis_found found;
    unsigned loads;
};

static void check_ask(struct redis_check *c, enum check_step step);

static void check_finish(struct redis_check *c, enum redis_fit fit, const struct sl_fail *why)
{
    c->done(c->arg, fit, &c->found, why);
    free(c);
}

static enum check_step check_unfit(struct redis_check *c, const char *words)
{
    struct sl_fail why;
    (void)sl_fail_set(&why, SL_EREFUSED, 0, "%s", words);
    check_finish(c, REDIS_UNFIT, &why);
    return CHECK_END;
}

static enum check_step check_retry(struct redis_check *c, const char *words)
{
    struct sl_fail why;
    (void)sl_fail_set(&why, SL_EAGAIN, 0, "%s", words);
    check_finish(c, REDIS_RETRY, &why);
    return CHECK_END;
}

/* What a refused command means for us: busy is tried again, anything else needs somebody's hand. */
static enum check_step check_refused(struct redis_check *c, const char *what, sl_err err,
                                     const struct sl_fail *why)
{
    struct sl_fail full;
    bool is_passing = err == SL_EAGAIN || err == SL_ECLOSED || err == SL_ETIMEOUT;
    (void)sl_fail_set(&full, is_passing ? SL_EAGAIN : SL_EREFUSED, 0, "%s: %s", what, why->text);
    check_finish(c, is_passing ? REDIS_RETRY : REDIS_UNFIT, &full);
    return CHECK_END;
}

/* ---- the library's text ---- */

static bool is_left_out(struct sl_str line)
{
    const struct sl_str mark = SL_STR("-- @mutant ");
    char name[32];
    size_t at = 0;
    if (!sl_str_find(line, mark, &at) || line.len - at - mark.len >= sizeof(name))
        return false;
    memcpy(name, line.ptr + at + mark.len, line.len - at - mark.len);
    name[line.len - at - mark.len] = '\0';
    return sl_mutant(name);
}

char *bus_functions_text(size_t *len)
{
    char *out = sl_alloc(bus_functions_lua_len + 1);
    const char *p = (const char *)bus_functions_lua, *end = p + bus_functions_lua_len;
    size_t n = 0;
    while (p < end) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        const char *next = newline == NULL ? end : newline + 1;
        if (!is_left_out(sl_str_n(p, (size_t)((newline == NULL ? end : newline) - p)))) {
            memcpy(out + n, p, (size_t)(next - p));
            n += (size_t)(next - p);
        }
        p = next;
    }
    *len = n;
    return out;
}

/* ---- INFO ---- */

static bool info_field(struct sl_str info, const char *name, struct sl_str *value)
{
    size_t name_len = strlen(name);
    const char *p = info.ptr, *end = info.ptr + info.len;
    while (p < end) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        const char *next = newline == NULL ? end : newline + 1;
        size_t len = (size_t)((newline == NULL ? end : newline) - p);
        if (len > 0 && p[len - 1] == '\r')
            len--;
        if (len > name_len && memcmp(p, name, name_len) == 0 && p[name_len] == ':') {
            *value = sl_str_n(p + name_len + 1, len - name_len - 1);
            return true;
        }
        p = next;
    }
    return false;
}

static bool info_is(struct sl_str info, const char *name, const char *wanted)
{
    struct sl_str value;
    return info_field(info, name, &value) && sl_str_eq_c(value, wanted);
}

static uint64_t info_major(struct sl_str info)
{
    struct sl_str version;
    uint64_t major = 0;
    if (!info_field(info, "redis_version", &version))
        return 0;
    const char *dot = memchr(version.ptr, '.', version.len);
    size_t len = dot == NULL ? version.len : (size_t)(dot - version.ptr);
    return sl_str_uint(sl_str_n(version.ptr, len), &major) == SL_OK ? major : 0;
}

static enum check_step judge_info(struct redis_check *c, sl_err err, const struct bus_value *v,
                                  const struct sl_fail *why)
{
    struct sl_str info = bus_value_str(v), policy;
    if (err != SL_OK)
        return check_refused(c, "INFO", err, why);
    if (info_major(info) < 7)
        return check_unfit(
            c, "the server is older than Redis 7.0, which has no Functions: install Redis 7.0 or later");
    if (info_is(info, "loading", "1") || info_is(info, "async_loading", "1"))
        return check_retry(c, "the server is loading its data");
    if (info_is(info, "cluster_enabled", "1"))
        return check_unfit(c, "the server is a node of a Redis Cluster, which this release cannot use: point "
                              "the url at a single Redis");
    if (info_is(info, "role", "slave"))
        return check_unfit(c, "the server is a replica: point the url at the primary");
    if (info_field(info, "maxmemory_policy", &policy) && !sl_str_eq_c(policy, "noeviction"))
        return check_unfit(
            c, "maxmemory-policy would delete messages when memory is full: set it to noeviction");
    if (!info_is(info, "aof_enabled", "1")) {
        if (c->cfg.require_aof)
            return check_unfit(
                c, "the append-only file is off, so a restart loses messages: set appendonly yes");
        sl_log(SL_WARN, "redis: appendonly is off: a restart of the server loses messages");
    }
    return CHECK_CONFIG;
}

static void ask_info(struct redis_check *c, struct bus_args *a)
{
    (void)c;
    bus_args_c(a, "INFO");
}

/* ---- CONFIG: may be forbidden by an ACL ---- */

static void ask_config(struct redis_check *c, struct bus_args *a)
{
    (void)c;
    bus_args_c(a, "CONFIG");
    bus_args_c(a, "GET");
    bus_args_c(a, "appendfsync");
    bus_args_c(a, "no-appendfsync-on-rewrite");
    bus_args_c(a, "appendonly");
}

static struct sl_str flat_get(const struct bus_value *v, const char *name)
{
    for (size_t i = 0; i + 1 < bus_value_count(v); i += 2)
        if (sl_str_eq_c(bus_value_str(bus_value_at(v, i)), name))
            return bus_value_str(bus_value_at(v, i + 1));
    return SL_STR_NONE;
}

static enum check_step judge_config(struct redis_check *c, sl_err err, const struct bus_value *v,
                                    const struct sl_fail *why)
{
    if (err == SL_EREFUSED) {
        sl_log(SL_WARN, "redis: CONFIG GET is refused, so appendfsync is not known", SL_KV_FAIL(why));
        return CHECK_STORE_READ;
    }
    if (err != SL_OK)
        return check_refused(c, "CONFIG GET", err, why);
    if (!sl_str_eq_c(flat_get(v, "appendonly"), "yes"))
        return CHECK_STORE_READ; /* said already */
    if (sl_str_eq_c(flat_get(v, "appendfsync"), "no") && c->cfg.require_aof)
        return check_unfit(
            c,
            "appendfsync no leaves it to the kernel when data reach the disk: set it to always or everysec");
    if (!sl_str_eq_c(flat_get(v, "appendfsync"), "always"))
        sl_log(SL_WARN, "redis: appendfsync is not always: a power failure loses up to a second or more",
               SL_KV_S("appendfsync", flat_get(v, "appendfsync")));
    else if (sl_str_eq_c(flat_get(v, "no-appendfsync-on-rewrite"), "yes"))
        sl_log(SL_WARN,
               "redis: no-appendfsync-on-rewrite is yes: while the file is rewritten nothing is durable");
    return CHECK_STORE_READ;
}

/* ---- the store's own facts ---- */

static void ask_store_read(struct redis_check *c, struct bus_args *a)
{
    (void)c;
    bus_args_c(a, "HGET");
    bus_args_c(a, KEY_STORE);
    bus_args_c(a, "partitions");
}

static enum check_step judge_store_read(struct redis_check *c, sl_err err, const struct bus_value *v,
                                        const struct sl_fail *why)
{
    if (err != SL_OK)
        return check_refused(c, "HGET " KEY_STORE, err, why);
    if (bus_value_type(v) == BUS_NIL)
        return CHECK_STORE_MAKE;
    int64_t partitions = bus_value_int(v);
    if (partitions < 1 || partitions > CHECK_PARTITIONS_MAX)
        return check_unfit(c, "field partitions of " KEY_STORE
                              " is not a number from 1 to 4096: is this our store?");
    c->found.partitions = (unsigned)partitions;
    return CHECK_LIBRARY;
}

/* Whoever is first decides the number of partitions; the others read it. */
static void ask_store_make(struct redis_check *c, struct bus_args *a)
{
    bus_args_c(a, "HSETNX");
    bus_args_c(a, KEY_STORE);
    bus_args_c(a, "partitions");
    bus_args_int(a, c->cfg.partitions);
}

static enum check_step judge_store_make(struct redis_check *c, sl_err err, const struct bus_value *v,
                                        const struct sl_fail *why)
{
    (void)v;
    if (err != SL_OK && strncmp(why->text, "OOM", 3) == 0)
        return check_unfit(
            c, "memory is at maxmemory, so the store cannot be created: raise maxmemory or make room");
    return err == SL_OK ? CHECK_STORE_READ : check_refused(c, "HSETNX " KEY_STORE, err, why);
}

/* ---- the Functions ---- */

static void ask_library(struct redis_check *c, struct bus_args *a)
{
    (void)c;
    bus_args_c(a, "FUNCTION");
    bus_args_c(a, "LIST");
    bus_args_c(a, "LIBRARYNAME");
    bus_args_c(a, BUS_FUNCTION_LIBRARY);
    bus_args_c(a, "WITHCODE");
}

static enum check_step judge_library(struct redis_check *c, sl_err err, const struct bus_value *v,
                                     const struct sl_fail *why)
{
    size_t len = 0;
    if (err != SL_OK)
        return check_refused(c, "FUNCTION LIST", err, why);
    if (bus_value_count(v) == 0)
        return CHECK_LOAD;
    char *text = bus_functions_text(&len);
    bool is_same = sl_str_eq(flat_get(bus_value_at(v, 0), "library_code"), sl_str_n(text, len));
    free(text);
    if (!is_same) {
        sl_log(SL_WARN, "redis: the server holds other Functions under our name: replacing them",
               SL_KV("library", BUS_FUNCTION_LIBRARY));
        return CHECK_REPLACE;
    }
    return CHECK_MODULE;
}

static void add_library(struct bus_args *a)
{
    size_t len = 0;
    char *text = bus_functions_text(&len);
    bus_args_copy(a, sl_str_n(text, len));
    free(text);
}

static void ask_load(struct redis_check *c, struct bus_args *a)
{
    (void)c;
    bus_args_c(a, "FUNCTION");
    bus_args_c(a, "LOAD");
    add_library(a);
}

static void ask_replace(struct redis_check *c, struct bus_args *a)
{
    (void)c;
    bus_args_c(a, "FUNCTION");
    bus_args_c(a, "LOAD");
    bus_args_c(a, "REPLACE");
    add_library(a);
}

/* Two processes may load at once: the second is told "already exists" and looks again. */
static enum check_step judge_load(struct redis_check *c, sl_err err, const struct bus_value *v,
                                  const struct sl_fail *why)
{
    (void)v;
    if (err == SL_OK)
        return CHECK_LIBRARY;
    if (strncmp(why->text, "OOM", 3) == 0)
        return check_unfit(
            c, "memory is at maxmemory, so the Functions cannot be loaded: raise maxmemory or make room");
    if (err == SL_EREFUSED && strstr(why->text, "already exists") != NULL && c->loads++ < CHECK_LOAD_TRIES)
        return CHECK_LIBRARY;
    return check_refused(c, "FUNCTION LOAD", err, why);
}

/* ---- the module, when the server has it ---- */

/* The version alone does not tell two builds of one version apart; the arguments of an operation may differ between them. */
#define OUR_MODULE SLUICE_VERSION " " BUS_OPERATIONS

static void ask_module(struct redis_check *c, struct bus_args *a)
{
    (void)c;
    bus_args_c(a, BUS_MODULE_PREFIX "about_1");
}

/* A mutant of the store is a change of the Lua. */
static bool is_store_mutated(void)
{
    size_t len = 0;
    free(bus_functions_text(&len));
    return len != bus_functions_lua_len;
}

static enum check_step judge_module(struct redis_check *c, sl_err err, const struct bus_value *v,
                                    const struct sl_fail *why)
{
    struct sl_fail none = {.code = SL_OK};
    bool is_unknown = strncmp(why->text, BUS_MODULE_GONE, strlen(BUS_MODULE_GONE)) == 0;
    if (err != SL_OK && err != SL_EREFUSED && !is_unknown)
        return check_refused(c, "sluice.about_1", err, why);
    if (err == SL_OK && !sl_str_eq_c(bus_value_str(v), OUR_MODULE))
        sl_log(SL_WARN,
               "redis: the server's module is of another build, so the Functions are used: restart it",
               SL_KV_S("module", bus_value_str(v)), SL_KV("ours", OUR_MODULE));
    else if (err == SL_EREFUSED && !is_unknown)
        sl_log(SL_WARN, "redis: the module refuses us, so the Functions are used", SL_KV_FAIL(why));
    else
        c->found.has_module = err == SL_OK && !is_store_mutated();
    sl_log(SL_INFO, c->found.has_module ? "redis: the store's operations run in the module"
                                        : "redis: the store's operations run as Functions");
    check_finish(c, REDIS_FIT, &none);
    return CHECK_END;
}

/* ---- stepping ---- */

static const struct {
    void (*ask)(struct redis_check *c, struct bus_args *a);
    enum check_step (*judge)(struct redis_check *c, sl_err err, const struct bus_value *v,
                             const struct sl_fail *why);
} STEPS[CHECK_END] = {
    [CHECK_INFO] = {ask_info, judge_info},
    [CHECK_CONFIG] = {ask_config, judge_config},
    [CHECK_STORE_READ] = {ask_store_read, judge_store_read},
    [CHECK_STORE_MAKE] = {ask_store_make, judge_store_make},
    [CHECK_LIBRARY] = {ask_library, judge_library},
    [CHECK_LOAD] = {ask_load, judge_load},
    [CHECK_REPLACE] = {ask_replace, judge_load},
    [CHECK_MODULE] = {ask_module, judge_module},
};

/* judge returns CHECK_END after it has freed the check. */
static void on_check_reply(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct redis_check *c = arg;
    enum check_step next = STEPS[c->step].judge(c, err, v, why);
    if (next != CHECK_END)
        check_ask(c, next);
}

static void check_ask(struct redis_check *c, enum check_step step)
{
    struct bus_args args;
    bus_args_init(&args);
    c->step = step;
    STEPS[step].ask(c, &args);
    sl_err err = bus_link_command(c->link, &args, CHECK_DEADLINE_MS, true, on_check_reply, c);
    bus_args_fini(&args);
    if (err != SL_OK)
        (void)check_retry(c, "the connection is going away");
}

void bus_check_start(struct redis_link *l, const struct redis_check_config *cfg, bus_check_fn done, void *arg)
{
    struct redis_check *c = sl_alloc(sizeof(*c));
    *c = (struct redis_check){.link = l, .cfg = *cfg, .done = done, .arg = arg};
    check_ask(c, CHECK_INFO);
}
