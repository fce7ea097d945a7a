/* cli/up.c - `sluice up`: a whole Sluice on one machine, as the same processes that production runs.
 *
 *   redis (own, on a unix socket in the run folder) -> router, bot, gateway -> /readyz says 200 -> addresses, or the story
 *   with --sim: simulated providers beside them, and the story on each of their channels, too
 *   Ctrl-C, TERM or the end of the story: gateway, simulators, bot, router, redis, each after the one before has ended.
 *
 * One loop; every wait has a deadline. Settings reach the children as SLUICE_... variables, the one form for keys from outside.
 */
#include "cli/cli.h"

#include "base/crypto.h"
#include "base/json.h"
#include "base/log.h"
#include "channels/channel.h"
#include "cli/story.h"
#include "cli/tcp.h"
#include "cli/up_child.h"
#include "cli/up_files.h"
#include "cli/up_sim.h"

#include "cli/faq_yaml.h"
#include "cli/sluice_yaml.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define READY_MS                                                                                             \
    30000 /* from start to the first 200 of /readyz; a first start writes an AOF and 64 partitions */
#define READY_LOOK_MS   50
#define READY_ANSWER_MS 2000
#define STORY_MS        55000
#define ONCE_LIFE_MS    600000 /* the login link works for ten minutes */
#define FAILURES_MAX    5      /* deaths of children before the first 200 */
#define ONCE_CHARS      43     /* 256 bits in base64url */
#define PORT_DEFAULT    8080
#define AGENTS_MAX      20
#define PASSWORD_CHARS  12

enum child {
    CHILD_GATEWAY,
    CHILD_SIM,
    CHILD_BOT,
    CHILD_ROUTER,
    CHILD_REDIS,
    CHILD_COUNT
}; /* in the order of stopping */
static const char *const child_names[CHILD_COUNT] = {"gateway", "sim", "bot", "router", "redis"};

struct password {
    const char *agent; /* borrowed from the configuration */
    char words[PASSWORD_CHARS + 1];
};

struct up {
    bool once, keep, has_config;
    struct cli_options options;
    struct cli_up_files files;
    char config_path[256], self[256];
    struct sl_config *cfg;
    char ip[64];
    unsigned port;
    const char *inbox, *agent, *tenant; /* of the story and the login link; borrowed from cfg */
    struct password passwords[AGENTS_MAX];
    size_t password_count;
    char once_token[64], agent_token[CLI_STORY_TOKEN_BYTES];
    struct cli_up_sim sim;
    size_t story_number; /* 0: the web chat */
    uv_loop_t uv;
    struct sl_loop *loop;
    struct sl_signals *signals;
    struct bus *bus;
    struct cli_up_child *children[CHILD_COUNT];
    struct cli_http *look;
    struct cli_story *story;
    struct sl_timer next_look, deadline;
    struct bus_args args;
    unsigned deaths;
    bool has_roles, is_ready, is_stopping;
    int stopping; /* index of the child being stopped */
    int code;
    uint64_t began_ns;
};

/* ---- before the loop: folder, configuration, secrets ---- */

static bool is_free(const char *ip, unsigned port)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    const int on = 1;
    if (fd < 0)
        return false;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    const bool ok =
        inet_pton(AF_INET, ip, &at.sin_addr) == 1 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0;
    close(fd);
    return ok;
}

static sl_err set(struct sl_fail *why, const char *fmt, ...) SL_PRINTF(2, 3);
static sl_err set(struct sl_fail *why, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    const int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof text)
        return sl_fail_set(why, SL_ETOOBIG, 0, "a setting is too long");
    return cli_set(text, why);
}

/* Which port: the one asked for, else 8080 when it is free, else any; the story takes any. */
static sl_err choose_port(struct up *u, const char *wanted, struct sl_fail *why)
{
    int64_t number = 0;
    if (wanted != NULL && (sl_str_int(sl_str_c(wanted), &number) != SL_OK || number < 0 || number > 65535))
        return sl_fail_set(why, SL_EINVAL, 0, "--port: expected a number from 0 (any) to 65535");
    if (wanted == NULL && u->has_config && !u->once && u->sim.file == NULL)
        return SL_OK; /* as the file says */
    u->port = (unsigned)number;
    if (wanted == NULL && !u->once && is_free("127.0.0.1", PORT_DEFAULT))
        u->port = PORT_DEFAULT;
    if (u->port == 0)
        u->port = cli_up_any_port();
    if (u->port == 0 || !is_free("127.0.0.1", u->port))
        return sl_fail_set(why, SL_ECONFLICT, 0, "port %u on 127.0.0.1 is taken; --port 0 takes any free one",
                           u->port);
    return set(why, "gateway.listen=127.0.0.1:%u", u->port);
}

/* The store's operations in C: beside this program, where the build leaves them, or where they are installed. */
static void add_module(const struct up *u, struct sl_buf *conf)
{
    static const char *const places[] = {"", "../bus/module/", "../lib/sluice/"};
    const char *slash = strrchr(u->self, '/');
    char path[sizeof u->self + 64];
    for (size_t i = 0; slash != NULL && i < sizeof places / sizeof places[0]; i++) {
        const int n =
            snprintf(path, sizeof path, "%.*s/%ssluice_redis.so", (int)(slash - u->self), u->self, places[i]);
        if (n < 0 || (size_t)n >= sizeof path || access(path, R_OK) != 0)
            continue;
        sl_buf_printf(conf, "loadmodule \"%s\"\n", path);
        return;
    }
}

static sl_err write_files(struct up *u, struct sl_fail *why)
{
    static const char redis_form[] = "port 0\n"
                                     "unixsocket \"%s/redis.sock\"\n"
                                     "unixsocketperm 700\n"
                                     "dir \"%s\"\n"
                                     "daemonize no\n"
                                     "databases 1\n"
                                     "appendonly yes\n"
                                     "appendfsync always\n"
                                     "maxmemory-policy noeviction\n"
                                     "save \"\"\n"
                                     "loglevel warning\n";
    struct sl_buf redis;
    sl_buf_init(&redis, 0);
    sl_buf_printf(&redis, redis_form, u->files.dir, u->files.dir);
    add_module(u, &redis);
    sl_err err = cli_up_files_replace(&u->files, "redis.conf", redis.ptr, redis.len, why);
    sl_buf_fini(&redis);
    if (err == SL_OK && !u->has_config)
        err = cli_up_files_put(&u->files, "sluice.yaml", cli_sluice_yaml, cli_sluice_yaml_len, why);
    if (err == SL_OK && !u->has_config)
        err = cli_up_files_put(&u->files, "faq.yaml", cli_faq_yaml, cli_faq_yaml_len, why);
    if (err == SL_OK)
        err = set(why, "store.url=unix:%s/redis.sock", u->files.dir);
    if (err == SL_OK && !u->has_config)
        err = set(why, "bot.faq=%s/faq.yaml", u->files.dir);
    if (err == SL_OK)
        err = set(why, "media.dir=%s/media", u->files.dir);
    if (err == SL_OK && u->once && getenv("SLUICE_LOG__LEVEL") == NULL)
        err = set(why, "log.level=warn");
    return err;
}

static const char *entry_str(const struct up *u, const char *section, const char *entry, const char *key)
{
    char path[200];
    (void)snprintf(path, sizeof path, "%s.%s.%s", section, entry, key);
    return sl_config_str(u->cfg, path);
}

/* Does this inbox's adapter have the key? */
static bool takes_secret(const struct up *u, const char *inbox)
{
    const struct chan_ops *ops = chan_find(sl_str_c(entry_str(u, "inboxes", inbox, "channel")));
    for (const struct sl_key *k = ops != NULL ? ops->keys : NULL; k != NULL && k->key != NULL; k++)
        if (strcmp(k->key, "inboxes.*.secret") == 0)
            return true;
    return false;
}

/* An inbox without a secret gets one of the folder's own. */
static sl_err set_secrets(struct up *u, struct sl_fail *why)
{
    const char *const *names;
    char key[200], secret[64];
    if (!cli_has_key("inboxes.*.secret"))
        return SL_OK;
    sl_err err = cli_up_files_secret(&u->files, "inboxes.secret", secret, why);
    for (size_t i = 0, n = sl_config_entries(u->cfg, "inboxes", &names); err == SL_OK && i < n; i++) {
        (void)snprintf(key, sizeof key, "inboxes.%s.secret", names[i]);
        if (takes_secret(u, names[i]) && sl_config_str(u->cfg, key)[0] == '\0')
            err = set(why, "%s=%s", key, secret);
    }
    return err;
}

static void random_words(char *out, size_t chars)
{
    unsigned char random[64];
    struct sl_buf text;
    sl_random_bytes(random, sizeof random);
    sl_buf_init(&text, 0);
    sl_b64url(&text, sl_str_n((const char *)random, sizeof random));
    memcpy(out, text.ptr, chars);
    out[chars] = '\0';
    sl_buf_fini(&text);
}

/* An agent without a password gets one for this run. */
static sl_err set_password(struct up *u, const char *agent, struct sl_fail *why)
{
    char key[200], phc[128];
    (void)snprintf(key, sizeof key, "agents.%s.password_hash", agent);
    if (u->password_count == AGENTS_MAX || sl_config_str(u->cfg, key)[0] != '\0')
        return SL_OK;
    struct password *p = &u->passwords[u->password_count++];
    p->agent = agent;
    random_words(p->words, PASSWORD_CHARS);
    const sl_err err = sl_password_hash(sl_str_c(p->words), phc);
    return err == SL_OK ? set(why, "%s=%s", key, phc)
                        : sl_fail_set(why, err, 0, "cannot make a password hash");
}

static sl_err set_agents(struct up *u, struct sl_fail *why)
{
    const char *const *names;
    sl_err err = SL_OK;
    if (!cli_has_key("agents.*.password_hash"))
        return SL_OK;
    const size_t n = sl_config_entries(u->cfg, "agents", &names);
    for (size_t i = 0; err == SL_OK && i < n && !u->once; i++)
        err = set_password(u, names[i], why);
    if (n > 0) {
        u->agent = names[0];
        u->tenant = entry_str(u, "agents", names[0], "tenant");
    }
    return err;
}

/* Where to look for the gateway: gateway.listen, as it is in the end. */
static sl_err read_address(struct up *u, struct sl_fail *why)
{
    if (!cli_has_key("gateway.listen"))
        return sl_fail_set(why, SL_EINVAL, 0, "this build has no gateway");
    const char *listen = sl_config_str(u->cfg, "gateway.listen"), *colon = strrchr(listen, ':');
    int64_t port = 0;
    if (colon == NULL || (size_t)(colon - listen) >= sizeof u->ip ||
        sl_str_int(sl_str_c(colon + 1), &port) != SL_OK || port <= 0 || port > 65535)
        return sl_fail_set(why, SL_EINVAL, 0,
                           "gateway.listen: `up` needs an IPv4 address and a port, such as 127.0.0.1:8080");
    (void)snprintf(u->ip, sizeof u->ip, "%.*s", (int)(colon - listen), listen);
    struct in_addr any;
    if (inet_pton(AF_INET, u->ip, &any) != 1 || any.s_addr == htonl(INADDR_ANY))
        (void)snprintf(u->ip, sizeof u->ip, "127.0.0.1");
    u->port = (unsigned)port;
    return SL_OK;
}

static sl_err prepare(struct up *u, const char *dir, const char *port, struct sl_fail *why)
{
    const char *const *inboxes;
    sl_err err = cli_up_files_open(&u->files, dir, why);
    if (err == SL_OK)
        err = write_files(u, why);
    if (err == SL_OK)
        err = choose_port(u, port, why);
    if (err == SL_OK && u->sim.file != NULL)
        err = cli_up_sim_prepare(&u->sim, u->port, why);
    if (err != SL_OK)
        return err;
    if (u->has_config)
        (void)snprintf(u->config_path, sizeof u->config_path, "%s", u->options.config_path);
    else
        cli_up_files_path(&u->files, "sluice.yaml", u->config_path, sizeof u->config_path);
    u->cfg = cli_config_load(u->config_path, why);
    if (u->cfg == NULL)
        return why->code;
    if (sl_config_entries(u->cfg, "inboxes", &inboxes) > 0)
        u->inbox = inboxes[0];
    err = set_secrets(u, why);
    if (err == SL_OK)
        err = set_agents(u, why);
    if (err == SL_OK && u->once && (u->inbox == NULL || u->agent == NULL))
        err = sl_fail_set(why, SL_EINVAL, 0,
                          "the story of --once needs an inbox and an agent in the configuration");
    return err == SL_OK ? read_address(u, why) : err;
}

/* ---- children ---- */

static void on_child(void *arg, struct cli_up_child *c, enum cli_up_child_event what, int code);

static void start_child(struct up *u, enum child which, const char *const *program)
{
    const char *argv[8 + CLI_UP_SIM_ARGS] = {u->self, "child"};
    char parent[24];
    size_t n = 3;
    (void)snprintf(parent, sizeof parent, "%ld", (long)getpid());
    argv[2] = parent;
    for (; *program != NULL; program++)
        argv[n++] = *program;
    const struct cli_up_child_spec spec = {
        .name = child_names[which], .argv = argv, .is_quiet = u->once && getenv("SLUICE_UP_VERBOSE") == NULL};
    u->children[which] = cli_up_child_start(u->loop, &spec, on_child, u);
}

static void start_redis(struct up *u)
{
    char conf[256], socket_path[256];
    cli_up_files_path(&u->files, "redis.conf", conf, sizeof conf);
    cli_up_files_path(&u->files, "redis.sock", socket_path, sizeof socket_path);
    (void)unlink(socket_path); /* of a run that was killed; the folder's lock is ours */
    start_child(u, CHILD_REDIS, (const char *const[]){"redis-server", conf, NULL});
}

static void start_simulators(struct up *u)
{
    const char *program[3 + CLI_UP_SIM_ARGS] = {"node", u->sim.file};
    for (size_t i = 0; i < u->sim.word_count; i++)
        program[2 + i] = u->sim.words[i];
    start_child(u, CHILD_SIM, program);
}

static void start_roles(struct up *u)
{
    static const enum child order[] = {CHILD_ROUTER, CHILD_BOT, CHILD_GATEWAY};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        start_child(u, order[i],
                    (const char *const[]){u->self, child_names[order[i]], "--config", u->config_path, NULL});
    if (u->sim.file != NULL)
        start_simulators(u);
}

static void stop_next(struct up *u)
{
    while (u->stopping < CHILD_COUNT && u->children[u->stopping] == NULL)
        u->stopping++;
    if (u->stopping == CHILD_REDIS)
        bus_close(&u->bus);
    if (u->stopping == CHILD_COUNT)
        uv_stop(&u->uv);
    else
        cli_up_child_stop(u->children[u->stopping]);
}

static void print_last_lines(const struct up *u)
{
    for (int i = 0; i < CHILD_COUNT; i++) {
        if (u->children[i] != NULL)
            cli_up_child_print_last(u->children[i]);
    }
}

static void stop(struct up *u, int code)
{
    if (u->is_stopping)
        return;
    u->is_stopping = true;
    u->code = code;
    sl_timer_stop(&u->deadline);
    sl_timer_stop(&u->next_look);
    cli_http_close(&u->look);
    cli_story_free(&u->story);
    if (code != EX_OK && u->once)
        print_last_lines(u);
    stop_next(u);
}

static void on_child(void *arg, struct cli_up_child *c, enum cli_up_child_event what, int code)
{
    struct up *u = arg;
    if (what == CLI_CHILD_STOPPED) {
        u->stopping++;
        stop_next(u);
        return;
    }
    if (u->is_stopping || (u->is_ready && !u->once))
        return; /* supervised: it is started again */
    if (code == EX_CONFIG || code == EX_UNAVAILABLE || ++u->deaths >= FAILURES_MAX || u->once) {
        fprintf(stderr, "sluice up: %s ended with code %d%s\n", cli_up_child_name(c), code,
                code == EX_CONFIG ? ": its configuration is wrong" : "");
        stop(u, code == EX_CONFIG ? EX_CONFIG : EX_UNAVAILABLE);
    }
}

/* ---- ready ---- */

static const struct {
    const char *channel, *customer;
} sims[] = {
#define X(channel, customer) {channel, customer},
    CLI_UP_SIM_CHANNELS(X)
#undef X
};
#define SIM_COUNT (sizeof sims / sizeof *sims)

static void start_story(struct up *u);

static void on_story(void *arg, bool is_complete)
{
    struct up *u = arg;
    const size_t stories = u->sim.file != NULL ? 1 + SIM_COUNT : 1;
    cli_story_free(&u->story);
    if (is_complete && ++u->story_number < stories) {
        start_story(u);
        return;
    }
    if (is_complete && stories == 1)
        printf("\nThe story is complete: every step happened. Ending everything that was started.\n");
    else if (is_complete)
        printf("\nThe story is complete on %zu channels: every step happened. Ending everything that was "
               "started.\n",
               stories);
    stop(u, is_complete ? EX_OK : EX_SOFTWARE);
}

static void start_story(struct up *u)
{
    struct cli_story_config story = {
        .ip = u->ip, .port = u->port, .inbox = u->inbox, .token = u->agent_token, .agent = u->agent};
    if (u->story_number == 0) {
        story.once_token = u->once_token;
        sl_timer_start(&u->deadline, STORY_MS);
    } else {
        story.channel = sims[u->story_number - 1].channel;
        story.customer = sims[u->story_number - 1].customer;
        story.sim_port = u->sim.page_port;
    }
    if (u->sim.file != NULL)
        printf("\n== %s\n", story.channel != NULL ? story.channel : "web chat");
    u->story = cli_story_start(u->loop, &story, on_story, u);
}

static void print_addresses(const struct up *u)
{
    printf("\nSluice is running.\n\n"
           "  visitor's page   http://%s:%u/\n"
           "  agent's page     http://%s:%u/agent\n",
           u->ip, u->port, u->ip, u->port);
    if (u->sim.file != NULL)
        printf("  play a customer  http://127.0.0.1:%u/   (web chat, WeChat, SMS and email, simulated)\n",
               u->sim.page_port);
    if (u->agent != NULL)
        printf("  one-time login   http://%s:%u/agent#once=%s   (as %s, for ten minutes)\n", u->ip, u->port,
               u->once_token, u->agent);
    for (size_t i = 0; i < u->password_count; i++)
        printf("  agent            %s / %s (password %s)\n",
               entry_str(u, "agents", u->passwords[i].agent, "tenant"), u->passwords[i].agent,
               u->passwords[i].words);
    printf("  configuration    %s\n  data             %s%s\n\nCtrl-C ends it.\n", u->config_path,
           u->files.dir, u->files.is_temporary && !u->keep ? " (removed at the end; --dir keeps it)" : "");
    fflush(stdout);
}

static void on_once_token(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct up *u = arg;
    (void)v;
    if (u->is_stopping)
        return;
    if (err != SL_OK) {
        fprintf(stderr, "sluice up: the login link could not be made: %s\n", why->text);
        stop(u, EX_UNAVAILABLE);
        return;
    }
    if (u->once)
        start_story(u);
    else
        print_addresses(u);
}

/* once:<SHA-256 of the token, hex> = {"tenant","agent"}, for ten minutes: see gateway/login.h. */
static void make_once_token(struct up *u)
{
    unsigned char digest[32];
    char key[80] = "once:";
    struct sl_buf value;
    struct sl_json j;
    random_words(u->once_token, ONCE_CHARS);
    sl_sha256(sl_str_c(u->once_token), digest);
    sl_hex(key + strlen(key), digest, sizeof digest);
    sl_buf_init(&value, 0);
    sl_json_begin(&j, &value);
    sl_json_open(&j, NULL, '{');
    sl_json_c(&j, "tenant", u->tenant);
    sl_json_c(&j, "agent", u->agent);
    sl_json_close(&j, '}');
    bus_args_clear(&u->args);
    bus_args_c(&u->args, "SET");
    bus_args_c(&u->args, key);
    bus_args_str(&u->args, sl_buf_view(&value));
    bus_args_c(&u->args, "PX");
    bus_args_int(&u->args, ONCE_LIFE_MS);
    if (bus_command(u->bus, &u->args, BUS_DEADLINE_MS, on_once_token, u) != SL_OK)
        stop(u, EX_UNAVAILABLE);
    sl_buf_fini(&value);
}

static void look_again(struct up *u)
{
    if (!u->is_stopping)
        sl_timer_start(&u->next_look, READY_LOOK_MS);
}

static void on_readyz(void *arg, int status, struct sl_str body)
{
    struct up *u = arg;
    (void)body;
    u->look = NULL;
    if (status != 200) {
        look_again(u);
        return;
    }
    u->is_ready = true;
    sl_timer_stop(&u->deadline);
    printf("ready after %.0f ms: redis, router, bot and gateway are running\n",
           (double)(uv_hrtime() - u->began_ns) / 1e6);
    if (u->agent != NULL)
        make_once_token(u);
    else
        print_addresses(u);
}

static void on_store_ready(void *arg, bool is_ready)
{
    struct up *u = arg;
    if (!is_ready || u->has_roles || u->is_stopping)
        return;
    u->has_roles = true;
    start_roles(u);
    look_again(u);
}

static void on_store_unfit(void *arg, const struct sl_fail *why)
{
    struct up *u = arg;
    fprintf(stderr, "sluice up: its Redis cannot be used: %s\n", why->text);
    stop(u, EX_UNAVAILABLE);
}

/* Its socket tells that Redis listens; connecting earlier would only fill the log. */
static bool has_redis_socket(const struct up *u)
{
    char path[256];
    cli_up_files_path(&u->files, "redis.sock", path, sizeof path);
    return access(path, F_OK) == 0;
}

static void on_look_time(void *arg)
{
    static const struct bus_events events = {.ready = on_store_ready, .unfit = on_store_unfit};
    struct up *u = arg;
    if (u->has_roles) {
        u->look = cli_http_open(u->loop, u->ip, u->port, "GET", "/readyz", SL_STR_NONE, READY_ANSWER_MS,
                                on_readyz, u);
    } else if (u->bus == NULL && has_redis_socket(u)) {
        const struct bus_config store = cli_store(u->cfg);
        u->bus = bus_open(u->loop, &store, &events, u);
    } else if (u->bus == NULL) {
        look_again(u);
    }
}

/* ---- the rest of the process's events ---- */

static void on_late(void *arg)
{
    struct up *u = arg;
    fprintf(stderr, u->is_ready ? "sluice up: the story took too long\n"
                                : "sluice up: not ready in time: the gateway's /readyz did not answer 200\n");
    stop(u, EX_UNAVAILABLE);
}

static void on_term(void *arg)
{
    struct up *u = arg;
    fprintf(stderr, "\nsluice up: ending gateway, bot, router and redis\n");
    stop(u, u->once ? EX_TEMPFAIL : EX_OK);
}

static void on_hup(void *arg)
{
    (void)arg;
    sl_log(SL_INFO,
           "`up` has nothing to reload: send HUP to the role that should read its configuration again");
}

/* ---- life ---- */

static int run(struct up *u)
{
    sl_assert(uv_loop_init(&u->uv) == 0);
    u->loop = sl_loop_new(&u->uv);
    sl_timer_init(&u->deadline, u->loop, on_late, u);
    sl_timer_init(&u->next_look, u->loop, on_look_time, u);
    bus_args_init(&u->args);
    u->signals = sl_signals_start(u->loop, on_term, on_hup, u);
    u->began_ns = uv_hrtime();
    sl_timer_start(&u->deadline, READY_MS);
    start_redis(u);
    sl_timer_start(&u->next_look, READY_LOOK_MS);
    uv_run(&u->uv, UV_RUN_DEFAULT);
    bus_close(&u->bus);
    for (int i = 0; i < CHILD_COUNT; i++)
        cli_up_child_free(&u->children[i]);
    bool is_clean = cli_loop_finish(&u->uv);
    sl_signals_stop(&u->signals);
    sl_loop_close(&u->loop);
    is_clean = cli_loop_finish(&u->uv) && is_clean;
    bus_args_fini(&u->args);
    if (uv_loop_close(&u->uv) != 0 || !is_clean) {
        fprintf(stderr, "sluice up: something was left open in its loop\n");
        return u->code == EX_OK ? EX_SOFTWARE : u->code;
    }
    return u->code;
}

static int usage(int code)
{
    fputs(
        "usage: sluice up [options]\n\n"
        "Starts its own Redis (on a unix socket, appendfsync always), a router, a bot and a gateway on "
        "127.0.0.1, and prints where\n"
        "they are. Ctrl-C ends everything.\n\n"
        "  --sim FILE          also start simulated providers (tests/fakes/play.mjs, with Node) for the "
        "inboxes of "
        "deploy/demo.yaml\n"
        "  --once              play one scripted conversation through the running system, print it, and end\n"
        "  --dir DIR           keep data and configuration in DIR; without it they lie in a temporary "
        "folder\n"
        "  --keep              do not remove the temporary folder at the end\n"
        "  --port N            port of the gateway; 0: any; without it 8080, or any when that is "
        "taken\n\n" CLI_OPTIONS_HELP,
        code == EX_OK ? stdout : stderr);
    return code;
}

static bool find_self(struct up *u)
{
    const ssize_t n = readlink("/proc/self/exe", u->self, sizeof u->self - 1);
    return n > 0 && (size_t)n < sizeof u->self - 1;
}

int cli_up(int argc, char **argv)
{
    struct up u = {.code = EX_OK, .files.lock = -1};
    struct sl_fail why = {0};
    u.once = cli_take_flag(&argc, argv, "--once");
    u.keep = cli_take_flag(&argc, argv, "--keep");
    u.sim.file = cli_take_value(&argc, argv, "--sim");
    const char *dir = cli_take_value(&argc, argv, "--dir"), *port = cli_take_value(&argc, argv, "--port");
    if (cli_options_parse(argc, argv, &u.options) != EX_OK)
        return EX_USAGE;
    if (u.options.wants_help || u.options.first_rest < argc || (dir != NULL && dir[0] == '\0') ||
        (port != NULL && port[0] == '\0') || (u.sim.file != NULL && u.sim.file[0] == '\0'))
        return usage(u.options.wants_help ? EX_OK : EX_USAGE);
    u.has_config = u.options.config_path != NULL;
    if (!find_self(&u) || prepare(&u, dir, port, &why) != SL_OK) {
        fprintf(stderr, "sluice up: %s\n", why.text);
        cli_up_files_close(&u.files, u.keep);
        sl_config_free(&u.cfg);
        return why.code == SL_ECONFLICT ? EX_UNAVAILABLE : EX_CONFIG;
    }
    cli_log_setup("up", u.cfg);
    const int code = run(&u);
    sl_config_free(&u.cfg);
    cli_up_files_close(&u.files, u.keep);
    return code;
}
