/* router/role.c - `sluice router`: configuration, watchdog, start and stop around router.c. */
#include "router/router.h"

#include "base/log.h"
#include "base/map.h"
#include "base/ulid.h"
#include "router/rules.h"
#include "router/watchdog.h"

#include <stdlib.h>

#define RULE_KEY(member, fallback, least, most, words)                                                       \
    {"rules." #member, SL_CFG_INT, #fallback, least, most, true, words},

const struct sl_key router_keys[] = {
    {"router.lease", SL_CFG_MS, "3s", 500, 60000, false,
     "how long a partition is kept for a router that stopped answering"},
    {"router.survey", SL_CFG_MS, "500ms", 50, 10000, false,
     "how often a router looks for partitions that nobody holds"},
    {"router.history_keep", SL_CFG_INT, "500", 50, 100000, false,
     "entries of a conversation that stay in the store"},
    {"router.cache", SL_CFG_INT, "20000", 64, 10000000, false, "states kept in memory for each partition"},
    RULES_NUMBERS(RULE_KEY){"rules.language", SL_CFG_STR, "zh", 0, 0, true,
                            "zh or en: system messages on channels that show text alone"},
    {"rules.human_words", SL_CFG_LIST, "", 0, 0, true,
     "words that ask for a person; empty: the built-in list"},
    {"rules.queues", SL_CFG_LIST, "", 0, 0, true, "queues to which agents may transfer; empty: any name"},
    {"inboxes.*.bot", SL_CFG_STR, "faq", 0, 0, true, "bot that answers first; empty: straight to the queue"},
    {"inboxes.*.queue", SL_CFG_STR, "default", 0, 0, true, "queue for those who ask for a person"},
    {"inboxes.*.skills", SL_CFG_STR, "", 0, 0, true, "skills an agent needs, comma-separated"},
    {"inboxes.*.priority", SL_CFG_INT, "0", -100, 100, true, "higher is served first"},
    {0},
};

struct router_role {
    struct router *router;
    struct bus *bus;
    struct watchdog *watchdog;
    struct sl_loop *loop;
    struct sl_timer close_later;
    void (*on_stopped)(void *);
    void *arg;
};

/* ---- rules from the configuration ---- */

static void write_list(struct sl_json *j, const char *key, const struct sl_config *cfg, const char *name)
{
    const char *const *items;
    size_t count = sl_config_list(cfg, name, &items);
    if (count == 0)
        return;
    sl_json_open(j, key, '[');
    for (size_t i = 0; i < count; i++)
        sl_json_c(j, NULL, items[i]);
    sl_json_close(j, ']');
}

static const char *inbox_key(char out[200], const char *inbox, const char *key)
{
    (void)snprintf(out, 200, "inboxes.%s.%s", inbox, key);
    return out;
}

static void write_inboxes(struct sl_json *j, const struct sl_config *cfg)
{
    const char *const *names;
    size_t count = sl_config_entries(cfg, "inboxes", &names);
    char key[200];
    struct sl_buf name;
    sl_buf_init(&name, 0);
    sl_json_open(j, "inboxes", '{');
    for (size_t i = 0; i < count; i++) {
        sl_buf_clear(&name);
        sl_buf_printf(&name, "%s/%s", sl_config_str(cfg, inbox_key(key, names[i], "tenant")), names[i]);
        sl_buf_char(&name, '\0');
        sl_json_open(j, name.ptr, '{');
        sl_json_c(j, "bot", sl_config_str(cfg, inbox_key(key, names[i], "bot")));
        sl_json_c(j, "queue", sl_config_str(cfg, inbox_key(key, names[i], "queue")));
        sl_json_c(j, "skills", sl_config_str(cfg, inbox_key(key, names[i], "skills")));
        sl_json_int(j, "priority", sl_config_int(cfg, inbox_key(key, names[i], "priority")));
        sl_json_close(j, '}');
    }
    sl_json_close(j, '}');
    sl_buf_fini(&name);
}

sl_err router_rules_from(const struct sl_config *cfg, struct sl_buf *out, struct sl_fail *why)
{
    struct sl_json j;
    struct rules rules;
    sl_json_begin(&j, out);
    sl_json_open(&j, NULL, '{');
#define X(member, fallback, least, most, words)                                                              \
    sl_json_int(&j, #member, sl_config_int(cfg, "rules." #member));
    RULES_NUMBERS(X)
#undef X
    sl_json_c(&j, "language", sl_config_str(cfg, "rules.language"));
    write_list(&j, "human_words", cfg, "rules.human_words");
    write_list(&j, "queues", cfg, "rules.queues");
    write_inboxes(&j, cfg);
    sl_json_close(&j, '}');
    sl_err err = rules_parse(sl_buf_view(out), &rules, why);
    if (err == SL_OK)
        rules_fini(&rules);
    return err;
}

/* ---- start and stop ---- */

/* Every tenant of an inbox has a desk. Names are borrowed from the configuration. */
static const char **tenants_of(const struct sl_config *cfg, size_t *count)
{
    const char *const *names;
    size_t n = sl_config_entries(cfg, "inboxes", &names);
    const char **tenants = sl_alloc((n + 1) * sizeof(char *));
    char key[200];
    *count = 0;
    for (size_t i = 0; i < n; i++) {
        const char *tenant = sl_config_str(cfg, inbox_key(key, names[i], "tenant"));
        bool is_known = false;
        for (size_t t = 0; t < *count; t++)
            is_known = is_known || strcmp(tenants[t], tenant) == 0;
        if (!is_known)
            tenants[(*count)++] = tenant;
    }
    return tenants;
}

static void on_close_later(void *arg)
{
    struct router_role *r = arg;
    router_free(&r->router);
    bus_close(&r->bus);
    watchdog_stop(&r->watchdog);
    r->on_stopped(r->arg);
}

static void on_released(void *arg)
{
    struct router_role *r = arg;
    sl_timer_start(&r->close_later, 20); /* the farewell commands are on their way */
}

struct router_role *router_start(struct sl_loop *l, const struct sl_config *cfg,
                                 const struct bus_config *store, void (*on_stopped)(void *), void *arg,
                                 struct sl_fail *why)
{
    struct sl_buf rules;
    sl_buf_init(&rules, 0);
    if (router_rules_from(cfg, &rules, why) != SL_OK) {
        sl_buf_fini(&rules);
        return NULL;
    }
    struct router_role *r = sl_alloc(sizeof(*r));
    r->loop = l;
    r->on_stopped = on_stopped;
    r->arg = arg;
    sl_timer_init(&r->close_later, l, on_close_later, r);
    char run[SL_ULID_LEN + 1];
    sl_ulid_new(run, sl_loop_unix_ms(l));
    size_t tenant_count;
    const char **tenants = tenants_of(cfg, &tenant_count);
    struct router_config rc = {.loop = l,
                               .run = sl_str_c(run),
                               .lease_ms = (uint64_t)sl_config_int(cfg, "router.lease"),
                               .survey_ms = (uint64_t)sl_config_int(cfg, "router.survey"),
                               .history_keep = (unsigned)sl_config_int(cfg, "router.history_keep"),
                               .cache_max = (size_t)sl_config_int(cfg, "router.cache"),
                               .rules_json = sl_buf_view(&rules),
                               .tenants = tenants,
                               .tenant_count = tenant_count};
    r->router = router_new(&rc);
    free(tenants);
    sl_buf_fini(&rules);
    r->bus = bus_open(l, store, &router_bus_events, r->router);
    router_attach(r->router, r->bus);
    r->watchdog = watchdog_start();
    sl_log(SL_INFO, "router started", SL_KV("run", run));
    return r;
}

void router_drain(struct router_role *r)
{
    if (r->router != NULL)
        router_release_all(r->router, on_released, r);
}

void router_reload(struct router_role *r, const struct sl_config *cfg)
{
    struct sl_fail why;
    struct sl_buf rules;
    if (r->router == NULL)
        return; /* stopped: a late SIGHUP */
    sl_buf_init(&rules, 0);
    if (router_rules_from(cfg, &rules, &why) == SL_OK)
        router_set_rules(r->router, sl_buf_view(&rules));
    else
        sl_log(SL_ERROR, "rules not taken over: the old ones stay", SL_KV("why", why.text));
    sl_buf_fini(&rules);
}

void router_role_free(struct router_role **pr)
{
    struct router_role *r = *pr;
    *pr = NULL;
    if (r == NULL)
        return;
    sl_timer_stop(&r->close_later);
    router_free(&r->router);
    bus_close(&r->bus);
    watchdog_stop(&r->watchdog);
    free(r);
}
