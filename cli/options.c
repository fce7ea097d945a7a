/* cli/options.c - options, the joined table of keys, and what every role takes from the configuration. */
#include "cli/cli.h"

#include "base/log.h"
#include "bot/bot.h"
#ifdef CLI_HAS_GATEWAY
#include "channels/channel.h"
#include "gateway/gateway.h"
#endif
#ifdef CLI_HAS_ROUTER
#include "router/router.h"
#endif

#include <ctype.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#define VARIABLE_MAX_BYTES 256

static const struct sl_key own_keys[] = {
    {"store.url", SL_CFG_STR, "redis://127.0.0.1:6379", 0, 0, false,
     "redis://host:port or unix:/path of the Redis"},
    {"store.user", SL_CFG_STR, "", 0, 0, false, "user name at the Redis; empty: the default user"},
    {"store.password", SL_CFG_SECRET, "", 0, 0, false, "password at the Redis"},
    {"store.partitions", SL_CFG_INT, "64", 1, 4096, false,
     "partitions of conversations; counts when the store is created, then never"},
    {"store.connect_deadline", SL_CFG_MS, "2s", 100, 60000, false, "how long connecting may take"},
    {"store.command_deadline", SL_CFG_MS, "5s", 100, 60000, false,
     "how long a command may take before the connection is given up"},
    {"store.require_aof", SL_CFG_BOOL, "true", 0, 0, false,
     "refuse a Redis without an append-only file: it would lose what was acknowledged"},
    {"metrics.listen", SL_CFG_STR, "", 0, 0, false,
     "address and port of GET /metrics for roles without a web port, one for each process; empty: none"},
    {"log.level", SL_CFG_STR, "info", 0, 0, true, "error, warn, info or debug"},
    {"log.format", SL_CFG_STR, "logfmt", 0, 0, true, "logfmt or json"},
};

/* The keys. */

static size_t count_keys(const struct sl_key *keys)
{
    size_t n = 0;
    while (keys[n].key != NULL)
        n++;
    return n;
}

static void append_keys(struct sl_key **all, size_t *count, const struct sl_key *keys, size_t more)
{
    *all = sl_realloc(*all, (*count + more + 1) * sizeof **all);
    memcpy(*all + *count, keys, more * sizeof **all);
    *count += more;
    (*all)[*count] = (struct sl_key){0};
}

const struct sl_key *cli_keys(void)
{
    static struct sl_key *all;
    size_t count = 0;
    if (all != NULL)
        return all;
    append_keys(&all, &count, own_keys, sizeof own_keys / sizeof *own_keys);
#ifdef CLI_HAS_GATEWAY
    append_keys(&all, &count, gw_keys, count_keys(gw_keys));
    append_keys(&all, &count, chan_keys(), count_keys(chan_keys()));
#endif
#ifdef CLI_HAS_ROUTER
    append_keys(&all, &count, router_keys, count_keys(router_keys));
#endif
    append_keys(&all, &count, bot_keys, count_keys(bot_keys));
    return all;
}

bool cli_has_key(const char *key)
{
    for (const struct sl_key *k = cli_keys(); k->key != NULL; k++) {
        if (strcmp(k->key, key) == 0)
            return true;
    }
    return false;
}

static sl_err check_log_words(const struct sl_config *cfg, struct sl_fail *why)
{
    static const char *const levels[] = {"error", "warn", "info", "debug"};
    const char *level = sl_config_str(cfg, "log.level"), *format = sl_config_str(cfg, "log.format");
    bool is_level = false;
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        is_level = is_level || strcmp(level, levels[i]) == 0;
    if (!is_level)
        return sl_fail_set(why, SL_EINVAL, 0, "log.level: expected error, warn, info or debug");
    if (strcmp(format, "logfmt") != 0 && strcmp(format, "json") != 0)
        return sl_fail_set(why, SL_EINVAL, 0, "log.format: expected logfmt or json");
    return SL_OK;
}

struct sl_config *cli_config_load(const char *path, struct sl_fail *why)
{
    struct sl_config *cfg = sl_config_load(cli_keys(), path, why);
    if (cfg != NULL && check_log_words(cfg, why) != SL_OK)
        sl_config_free(&cfg);
    return cfg;
}

struct bus_config cli_store(const struct sl_config *cfg)
{
    const char *user = sl_config_str(cfg, "store.user"), *password = sl_config_str(cfg, "store.password");
    return (struct bus_config){
        .url = sl_config_str(cfg, "store.url"),
        .user = user[0] != '\0' ? user : NULL,
        .password = password[0] != '\0' ? password : NULL,
        .connect_deadline_ms = (uint64_t)sl_config_int(cfg, "store.connect_deadline"),
        .command_deadline_ms = (uint64_t)sl_config_int(cfg, "store.command_deadline"),
        .partitions = (unsigned)sl_config_int(cfg, "store.partitions"),
        .require_aof = sl_config_bool(cfg, "store.require_aof"),
    };
}

void cli_log_setup(const char *role, const struct sl_config *cfg)
{
    const char *word = sl_config_str(cfg, "log.level");
    const enum sl_level level = word[0] == 'e'   ? SL_ERROR
                                : word[0] == 'w' ? SL_WARN
                                : word[0] == 'd' ? SL_DEBUG
                                                 : SL_INFO;
    const bool is_json = strcmp(sl_config_str(cfg, "log.format"), "json") == 0;
    sl_log_setup(role, level, is_json ? SL_LOG_JSON : SL_LOG_LOGFMT);
}

/* The options. */

/* gateway.listen=... becomes SLUICE_GATEWAY__LISTEN=..., the one form in which keys come from outside the file. */
sl_err cli_set(const char *text, struct sl_fail *why)
{
    char name[VARIABLE_MAX_BYTES] = "SLUICE_";
    size_t n = strlen(name);
    const char *c = text;
    for (; *c != '\0' && *c != '='; c++) {
        if (n + 3 > sizeof name)
            return sl_fail_set(why, SL_EINVAL, 0, "--set: the key is too long");
        if (*c == '.')
            name[n++] = '_';
        name[n++] = *c == '.' || *c == '-' ? '_' : (char)toupper((unsigned char)*c);
    }
    name[n] = '\0';
    if (*c != '=' || memchr(text, '.', (size_t)(c - text)) == NULL) /* every key has a dot */
        return sl_fail_set(why, SL_EINVAL, 0,
                           "--set: expected KEY=VALUE, such as gateway.listen=127.0.0.1:8080");
    if (setenv(name, c + 1, 1) != 0)
        return sl_fail_set(why, SL_EINVAL, 0, "--set: this key cannot be set");
    return SL_OK;
}

static sl_err set_log_word(const char *key, const char *value, struct sl_fail *why)
{
    char text[64];
    const int n = snprintf(text, sizeof text, "%s=%s", key, value);
    if (n < 0 || (size_t)n >= sizeof text)
        return sl_fail_set(why, SL_EINVAL, 0, "%s: too long", key);
    return cli_set(text, why);
}

static void take_out(int *argc, char **argv, int at, int count)
{
    for (int i = at; i + count <= *argc; i++)
        argv[i] = argv[i + count];
    *argc -= count;
}

bool cli_take_flag(int *argc, char **argv, const char *flag)
{
    bool is_there = false;
    for (int i = *argc - 1; i > 0; i--) {
        if (strcmp(argv[i], flag) != 0)
            continue;
        is_there = true;
        take_out(argc, argv, i, 1);
    }
    return is_there;
}

const char *cli_take_value(int *argc, char **argv, const char *option)
{
    const size_t n = strlen(option);
    for (int i = 1; i < *argc; i++) {
        const bool is_whole = strcmp(argv[i], option) == 0;
        if (!is_whole && !(strncmp(argv[i], option, n) == 0 && argv[i][n] == '='))
            continue;
        const char *value = is_whole ? (i + 1 < *argc ? argv[i + 1] : "") : argv[i] + n + 1;
        take_out(argc, argv, i, is_whole && i + 1 < *argc ? 2 : 1);
        return value;
    }
    return NULL;
}

int cli_options_parse(int argc, char **argv, struct cli_options *out)
{
    static const struct option table[] = {
        {"config", required_argument, NULL, 'c'},
        {"set", required_argument, NULL, 's'},
        {"log-level", required_argument, NULL, 'l'},
        {"log-format", required_argument, NULL, 'f'},
        {"check-config", no_argument, NULL, 'k'},
        {"print-config", no_argument, NULL, 'p'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct sl_fail why = {0};
    sl_err err = SL_OK;
    *out = (struct cli_options){0};
    optind = 1;
    for (int c; err == SL_OK && (c = getopt_long(argc, argv, "h", table, NULL)) != -1;) {
        switch (c) {
        case 'c':
            out->config_path = optarg;
            break;
        case 's':
            err = cli_set(optarg, &why);
            break;
        case 'l':
            err = set_log_word("log.level", optarg, &why);
            break;
        case 'f':
            err = set_log_word("log.format", optarg, &why);
            break;
        case 'k':
            out->only_check = true;
            break;
        case 'p':
            out->only_print = true;
            break;
        case 'h':
            out->wants_help = true;
            break;
        default:
            return EX_USAGE; /* getopt_long has said what is wrong */
        }
    }
    if (err != SL_OK)
        fprintf(stderr, "sluice: %s\n", why.text);
    out->first_rest = optind;
    return err == SL_OK ? EX_OK : EX_USAGE;
}
