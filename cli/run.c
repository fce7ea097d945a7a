/* cli/run.c - one runner for every role: configuration, loop, signals, drain, reload, and a clean end.
 *
 * TERM or INT drains; the second one ends the process at once with 75. HUP reads the configuration again: what may change while
 * running is taken over, what may not is named in the log. At the end every handle must be closed, or the exit code is 70.
 */
#include "cli/cli.h"

#include "base/log.h"
#include "bot/bot.h"
#ifdef CLI_HAS_GATEWAY
#include "gateway/gateway.h"
#endif
#ifdef CLI_HAS_ROUTER
#include "router/router.h"
#endif

#include <stdio.h>
#include <stdlib.h>

#define FINISH_MS      3000
#define FINISH_LOOK_MS 20

struct role {
    const char *name, *help;
    sl_err (*check)(const struct sl_config *cfg,
                    struct sl_fail *why); /* what the table of keys cannot; may be NULL */
    void *(*start)(struct sl_loop *l, const struct sl_config *cfg, const struct bus_config *store,
                   void (*on_stopped)(void *), void *arg, struct sl_fail *why);
    void (*drain)(void *role);
    void (*reload)(void *role, const struct sl_config *cfg);
    void (*free)(void *role);
};

struct runner {
    const struct role *role;
    void *object; /* the role's own */
    uv_loop_t uv;
    struct sl_loop *loop;
    struct sl_signals *signals;
    struct sl_post stop;
    struct cli_metrics_port *metrics;
    const char *config_path;
    struct sl_config *started_with; /* stays: roles borrow from it */
    struct sl_config *now;          /* the last one read on HUP, or NULL */
};

/* The end of a loop. */

static void on_look(uv_timer_t *t)
{
    (void)t;
}

static void name_handle(uv_handle_t *h, void *arg)
{
    (void)arg;
    if (uv_is_closing(h) || (uv_is_active(h) && uv_has_ref(h)))
        sl_log(SL_ERROR, "handle left open at the end", SL_KV("type", uv_handle_type_name(h->type)),
               SL_KV_I("closing", uv_is_closing(h)));
}

bool cli_loop_finish(uv_loop_t *uv)
{
    uv_timer_t look; /* without it a forgotten handle would block us for ever */
    sl_assert(uv_timer_init(uv, &look) == 0);
    sl_assert(uv_timer_start(&look, on_look, FINISH_LOOK_MS, FINISH_LOOK_MS) == 0);
    uv_unref((uv_handle_t *)&look);
    const uint64_t until = uv_hrtime() + FINISH_MS * 1000000ULL;
    while (uv_loop_alive(uv) && uv_hrtime() < until)
        uv_run(uv, UV_RUN_ONCE);
    const bool is_clean = !uv_loop_alive(uv);
    if (!is_clean)
        uv_walk(uv, name_handle, NULL);
    uv_close((uv_handle_t *)&look, NULL);
    uv_run(uv, UV_RUN_NOWAIT);
    return is_clean;
}

/* Events of the process. */

static void on_stop_turn(void *arg)
{
    struct runner *r = arg;
    uv_stop(&r->uv);
}

/* Called from inside the role: it is freed on a later turn. */
static void on_role_stopped(void *arg)
{
    struct runner *r = arg;
    sl_post_now(&r->stop);
}

static void on_term(void *arg)
{
    struct runner *r = arg;
    sl_log(SL_INFO, "draining; a second signal ends at once");
    r->role->drain(r->object);
}

/* What the table of keys cannot check: of every role where the store is, then the role's own. */
static sl_err check_all(const struct role *role, const struct sl_config *cfg, struct sl_fail *why)
{
    struct bus_config store = cli_store(cfg);
    sl_err err = bus_check(&store, why);
    return err == SL_OK && role->check != NULL ? role->check(cfg, why) : err;
}

static void report_restart_keys(const struct sl_config *before, const struct sl_config *now)
{
    struct sl_buf keys;
    sl_buf_init(&keys, 65536);
    sl_config_diff(before, now, &keys);
    for (size_t i = 0; i < keys.len; i++) {
        if (keys.ptr[i] == '\n')
            keys.ptr[i] = ' ';
    }
    if (keys.len > 0)
        sl_log(SL_WARN, "reload: these keys need a restart", SL_KV_S("keys", sl_buf_view(&keys)));
    sl_buf_fini(&keys);
}

static void on_hup(void *arg)
{
    struct runner *r = arg;
    struct sl_fail why = {0};
    struct sl_config *now = cli_config_load(r->config_path, &why);
    if (now != NULL && check_all(r->role, now, &why) != SL_OK)
        sl_config_free(&now);
    if (now == NULL) {
        sl_log(SL_ERROR, "reload: the configuration is wrong, nothing was changed", SL_KV_FAIL(&why));
        return;
    }
    report_restart_keys(r->started_with, now);
    cli_log_setup(r->role->name, now);
    r->role->reload(r->object, now);
    sl_config_free(&r->now);
    r->now = now;
    sl_log(SL_INFO, "reload: done");
}

/* Start and end. */

static sl_err start(struct runner *r, struct sl_fail *why)
{
    const struct bus_config store = cli_store(r->started_with);
    const char *listen = sl_config_str(r->started_with, "metrics.listen");
    if (listen[0] != '\0') {
        const sl_err err = cli_metrics_open(r->loop, listen, &r->metrics, why);
        if (err != SL_OK)
            return err;
    }
    r->object = r->role->start(r->loop, r->started_with, &store, on_role_stopped, r, why);
    return r->object != NULL ? SL_OK : why->code;
}

static int run_until_stopped(struct runner *r)
{
    struct sl_fail why = {0};
    if (start(r, &why) != SL_OK) {
        cli_metrics_close(&r->metrics);
        sl_log(SL_ERROR, "cannot start", SL_KV_FAIL(&why));
        return why.code == SL_EINVAL || why.code == SL_ENOTFOUND || why.code == SL_ETOOBIG ? EX_CONFIG
                                                                                           : EX_UNAVAILABLE;
    }
    r->signals = sl_signals_start(r->loop, on_term, on_hup, r);
    uv_run(&r->uv, UV_RUN_DEFAULT);
    cli_metrics_close(&r->metrics);
    r->role->free(r->object);
    r->object = NULL;
    return EX_OK;
}

static int run(struct runner *r)
{
    sl_assert(uv_loop_init(&r->uv) == 0);
    r->loop = sl_loop_new(&r->uv);
    sl_post_init(&r->stop, r->loop, on_stop_turn, r);
    int code = run_until_stopped(r);
    bool is_clean = cli_loop_finish(&r->uv);
    sl_signals_stop(&r->signals);
    sl_loop_close(&r->loop);
    is_clean = cli_loop_finish(&r->uv) && is_clean;
    if (uv_loop_close(&r->uv) != 0 || !is_clean) {
        sl_log(SL_ERROR, "the loop could not be closed: something was left open");
        code = EX_SOFTWARE;
    }
    if (code == EX_OK)
        sl_log(SL_INFO, "ended cleanly");
    return code;
}

static int print_config(const struct sl_config *cfg)
{
    struct sl_buf out;
    sl_buf_init(&out, 0);
    sl_config_print(cfg, &out);
    fwrite(out.ptr, 1, out.len, stdout);
    sl_buf_fini(&out);
    return EX_OK;
}

static void print_role_help(const struct role *role)
{
    printf(
        "usage: sluice %s [options]\n\n%s\n\n%s\nTERM drains and ends; HUP reads the configuration again.\n",
        role->name, role->help, CLI_OPTIONS_HELP);
}

static int run_role(const struct role *role, int argc, char **argv)
{
    struct cli_options options;
    struct sl_fail why = {0};
    const int code = cli_options_parse(argc, argv, &options);
    if (code != EX_OK)
        return code;
    if (options.wants_help || options.first_rest < argc) {
        print_role_help(role);
        return options.wants_help ? EX_OK : EX_USAGE;
    }
    struct runner r = {.role = role, .config_path = options.config_path};
    r.started_with = cli_config_load(options.config_path, &why);
    const bool is_right =
        r.started_with != NULL && (options.only_print || check_all(role, r.started_with, &why) == SL_OK);
    if (!is_right) {
        fprintf(stderr, "sluice %s: %s\n", role->name, why.text);
        sl_config_free(&r.started_with);
        return EX_CONFIG;
    }
    int result = EX_OK;
    cli_log_setup(role->name, r.started_with);
    if (options.only_print)
        result = print_config(r.started_with);
    else if (options.only_check)
        puts("the configuration is right");
    else
        result = run(&r);
    sl_config_free(&r.now);
    sl_config_free(&r.started_with);
    return result;
}

/* The roles. Each has the same four calls; the wrappers only give them one type. */

#define ROLE(prefix, type, free_fn)                                                                          \
    static void *prefix##_role_start(struct sl_loop *l, const struct sl_config *cfg,                         \
                                     const struct bus_config *store, void (*on_stopped)(void *), void *arg,  \
                                     struct sl_fail *why)                                                    \
    {                                                                                                        \
        return prefix##_start(l, cfg, store, on_stopped, arg, why);                                          \
    }                                                                                                        \
    static void prefix##_role_drain(void *object)                                                            \
    {                                                                                                        \
        prefix##_drain(object);                                                                              \
    }                                                                                                        \
    static void prefix##_role_reload(void *object, const struct sl_config *cfg)                              \
    {                                                                                                        \
        prefix##_reload(object, cfg);                                                                        \
    }                                                                                                        \
    static void prefix##_role_end(void *object)                                                              \
    {                                                                                                        \
        type *typed = object;                                                                                \
        free_fn(&typed);                                                                                     \
    }
#define ROLE_CALLS(prefix)                                                                                   \
    .start = prefix##_role_start, .drain = prefix##_role_drain, .reload = prefix##_role_reload,              \
    .free = prefix##_role_end

ROLE(bot, struct bot, bot_free)

int cli_bot(int argc, char **argv)
{
    static const struct role role = {.name = "bot",
                                     .help = "Answers from a file of questions and answers.",
                                     .check = bot_check,
                                     ROLE_CALLS(bot)};
    return run_role(&role, argc, argv);
}

#ifdef CLI_HAS_ROUTER
ROLE(router, struct router_role, router_role_free)

static sl_err check_rules(const struct sl_config *cfg, struct sl_fail *why)
{
    struct sl_buf rules;
    sl_buf_init(&rules, 0);
    const sl_err err = router_rules_from(cfg, &rules, why);
    sl_buf_fini(&rules);
    return err;
}

int cli_router(int argc, char **argv)
{
    static const struct role role = {.name = "router",
                                     .help = "Owns partitions and decides what happens to each conversation.",
                                     .check = check_rules,
                                     ROLE_CALLS(router)};
    return run_role(&role, argc, argv);
}
#endif

#ifdef CLI_HAS_GATEWAY
ROLE(gw, struct gw, gw_free)

int cli_gateway(int argc, char **argv)
{
    static const struct role role = {
        .name = "gateway",
        .check = gw_check,
        .help = "Customers, agents and providers on one side, the store on the other.",
        ROLE_CALLS(gw)};
    return run_role(&role, argc, argv);
}
#endif
