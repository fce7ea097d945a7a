/* tests/contract/bus_world.c - see bus_world.h. */
#include "tests/unit/unit.h"

#include "tests/contract/bus_world.h"

#include "bus/bus_priv.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAIT_MS 10000

/* ---- the server ---- */

static void server_exec(const struct redis_server *s)
{
    char port[8], pidfile[96];
    const char *argv[64] = {
        "redis-server", "--port",       port,    "--unixsocket",  s->socket,   "--dir",
        s->dir,         "--save",       "",      "--daemonize",   "no",        "--logfile",
        "log",          "--pidfile",    pidfile, "--bind",        "127.0.0.1", "--maxmemory-policy",
        "noeviction",   "--appendonly", "yes",   "--appendfsync", "always"};
    size_t n = 0;
    while (argv[n] != NULL)
        n++;
    for (size_t i = 0; s->options[i] != NULL; i++)
        argv[n++] = s->options[i];
    if (s->has_module) {
        argv[n++] = "--loadmodule";
        argv[n++] = REDIS_MODULE;
        argv[n++] = "--enable-debug-command"; /* DEBUG DIGEST */
        argv[n++] = "yes";
    }
    (void)snprintf(port, sizeof(port), "%d", s->port);
    (void)snprintf(pidfile, sizeof(pidfile), "%s/pid", s->dir);
    (void)!freopen("/dev/null", "w", stdout);
    execvp("redis-server", (char *const *)argv);
    _exit(127);
}

void server_start(struct redis_server *s)
{
    if (s->dir[0] == '\0') {
        (void)snprintf(s->dir, sizeof(s->dir), "/tmp/sluice-contract-XXXXXX");
        assert_non_null(mkdtemp(s->dir));
        (void)snprintf(s->socket, sizeof(s->socket), "%s/s", s->dir);
    }
    (void)unlink(s->socket);
    s->pid = fork();
    assert_true(s->pid >= 0);
    if (s->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* never outlive the test */
        server_exec(s);
    }
}

void server_signal(struct redis_server *s, int signum)
{
    assert_true(s->pid > 0);
    (void)kill(s->pid, signum);
}

void server_kill(struct redis_server *s)
{
    if (s->pid <= 0)
        return;
    (void)kill(s->pid, SIGKILL);
    (void)waitpid(s->pid, NULL, 0);
    s->pid = 0;
}

void server_remove(struct redis_server *s)
{
    char command[128];
    server_kill(s);
    if (s->dir[0] == '\0')
        return;
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", s->dir);
    assert_int_equal(system(command), 0);
    s->dir[0] = '\0';
}

/* ---- the world ---- */

static void on_ready(void *arg, bool is_ready)
{
    struct world *w = arg;
    if (is_ready)
        w->readies++;
    else
        w->losses++;
}

static void on_unfit(void *arg, const struct sl_fail *why)
{
    struct world *w = arg;
    w->unfits++;
    w->unfit = *why;
}

void world_open_server(struct world *w)
{
    static char url[120];
    w->kind = WORLD_REDIS;
    w->uv = sl_alloc(sizeof(*w->uv));
    assert_int_equal(uv_loop_init(w->uv), 0);
    w->loop = sl_loop_new(w->uv);
    server_start(&w->server);
    (void)snprintf(url, sizeof(url), "unix:%s", w->server.socket);
    w->cfg.url = url;
    w->cfg.partitions = 8;
    sl_buf_init(&w->text, 0);
}

void world_open_bus(struct world *w)
{
    const struct bus_events events = {.ready = on_ready, .unfit = on_unfit};
    if (w->kind != WORLD_MEMORY)
        w->bus = bus_open(w->loop, &w->cfg, &events, w);
    else
        w->bus = memory_bus_open(w->store, 1, w->loop, &w->cfg, &events, w);
}

void world_wait_ready(struct world *w)
{
    assert_true(world_wait(w, &w->bus->is_ready, WAIT_MS));
}

void world_open(struct world *w, enum world_kind kind)
{
    if (kind != WORLD_MEMORY) {
        w->server.has_module = kind == WORLD_MODULE;
        world_open_server(w);
    } else {
        w->kind = kind;
        w->loop = sl_loop_new_virtual(1);
        w->store = memory_store_new(1);
        memory_store_clock(w->store, sl_loop_unix_ms(w->loop));
        w->cfg.partitions = 8;
        sl_buf_init(&w->text, 0);
    }
    world_open_bus(w);
    world_wait_ready(w);
}

static void on_wake(uv_timer_t *t)
{
    (void)t;
}

static void turn_redis(struct world *w, uint64_t ms)
{
    uv_timer_t t;
    assert_int_equal(uv_timer_init(w->uv, &t), 0);
    assert_int_equal(uv_timer_start(&t, on_wake, ms, 0), 0);
    (void)uv_run(w->uv, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&t, NULL);
    (void)uv_run(w->uv, UV_RUN_NOWAIT);
}

/* Requests first, then replies, then what is due; only then does time go on. Returns the ms that went by. */
static uint64_t turn_memory(struct world *w, uint64_t ms)
{
    uint64_t due = 0, now = sl_loop_mono_ms(w->loop);
    if (memory_pending_requests(w->store) > 0) {
        memory_execute(w->store, 0);
        return 0;
    }
    if (memory_pending_replies(w->store, 1) > 0) {
        memory_reply(w->store, 1, 0);
        return 0;
    }
    if (sl_loop_virtual_step(w->loop))
        return 0;
    uint64_t step = sl_loop_virtual_next(w->loop, &due) && due - now < ms ? due - now : ms;
    if (step > 100)
        step = 100; /* a blocked read ends by the store's clock, which no timer shows */
    sl_loop_virtual_set(w->loop, now + step, sl_loop_unix_ms(w->loop) + (int64_t)step);
    memory_store_clock(w->store, sl_loop_unix_ms(w->loop));
    return step;
}

bool world_turn(struct world *w, uint64_t *left_ms)
{
    if (*left_ms == 0)
        return false;
    if (w->kind == WORLD_MEMORY) {
        *left_ms -= turn_memory(w, *left_ms);
        return true;
    }
    uint64_t before = uv_hrtime() / 1000000;
    turn_redis(w, *left_ms);
    uint64_t gone = uv_hrtime() / 1000000 - before;
    *left_ms -= gone < *left_ms ? gone : *left_ms;
    return true;
}

bool world_wait(struct world *w, const bool *flag, uint64_t ms)
{
    while (!*flag)
        if (!world_turn(w, &ms))
            return false;
    return true;
}

bool world_wait_count(struct world *w, const unsigned *n, unsigned wanted, uint64_t ms)
{
    while (*n < wanted)
        if (!world_turn(w, &ms))
            return false;
    return true;
}

void world_pass(struct world *w, uint64_t ms)
{
    while (world_turn(w, &ms))
        continue;
}

void world_close(struct world *w)
{
    bus_close(&w->bus);
    if (w->kind != WORLD_MEMORY) {
        for (int i = 0; i < 5; i++) /* what was closed goes on the next turns */
            (void)uv_run(w->uv, UV_RUN_NOWAIT);
        sl_loop_close(&w->loop);
        (void)uv_run(w->uv, UV_RUN_DEFAULT);
        assert_int_equal(uv_loop_close(w->uv), 0);
        free(w->uv);
        server_remove(&w->server);
    } else {
        while (sl_loop_virtual_step(w->loop))
            continue;
        memory_store_free(&w->store);
        sl_loop_close(&w->loop);
    }
    sl_buf_fini(&w->text);
    *w = (struct world){.kind = WORLD_REDIS};
}

/* ---- saying commands ---- */

void world_value_text(struct sl_buf *out, const struct bus_value *v)
{
    switch (bus_value_type(v)) {
    case BUS_NIL:
        sl_buf_char(out, '~');
        break;
    case BUS_INT:
        sl_buf_int(out, bus_value_int(v));
        break;
    case BUS_STR:
        sl_buf_str(out, bus_value_str(v));
        break;
    case BUS_ARRAY:
        sl_buf_char(out, '[');
        for (size_t i = 0; i < bus_value_count(v); i++) {
            if (i > 0)
                sl_buf_char(out, ' ');
            world_value_text(out, bus_value_at(v, i));
        }
        sl_buf_char(out, ']');
        break;
    }
}

static void on_said(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct world *w = arg;
    assert_false(w->is_answered);
    w->is_answered = true;
    w->err = err;
    sl_buf_clear(&w->text);
    if (err == SL_OK)
        world_value_text(&w->text, v);
    else
        sl_buf_printf(&w->text, "!%s %s", sl_err_name(err), why->text);
    sl_buf_char(&w->text, '\0');
}

const char *world_send(struct world *w, const struct bus_args *args)
{
    w->is_answered = false;
    assert_int_equal(bus_command(w->bus, args, BUS_DEADLINE_MS, on_said, w), SL_OK);
    assert_false(w->is_answered); /* never before it returns */
    assert_true(world_wait(w, &w->is_answered, WAIT_MS));
    return w->text.ptr;
}

const char *world_say(struct world *w, const char *fmt, ...)
{
    struct bus_args args;
    char line[8192];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    assert_true(n > 0 && (size_t)n < sizeof(line));
    bus_args_init(&args);
    for (char *save = NULL, *word = strtok_r(line, " ", &save); word != NULL;
         word = strtok_r(NULL, " ", &save))
        bus_args_c(&args, strcmp(word, "\"\"") == 0 ? "" : word);
    const char *text = world_send(w, &args);
    bus_args_fini(&args);
    return text;
}

/* ---- for cmocka ---- */

int world_setup_none(void **state)
{
    *state = sl_alloc(sizeof(struct world));
    return 0;
}

int world_setup_redis(void **state)
{
    (void)world_setup_none(state);
    world_open(*state, WORLD_REDIS);
    return 0;
}

/* And the module is what runs: it was called, the Lua was not. */
int world_setup_module(void **state)
{
    struct world *w;
    (void)world_setup_none(state);
    world_open(*state, WORLD_MODULE);
    w = *state;
    assert_int_equal(strncmp(world_say(w, "FCALL renew_1 1 meta:{0} 1 A 1"), "!EFENCED", 8), 0);
    assert_non_null(strstr(world_say(w, "INFO commandstats"), "cmdstat_sluice.packed_1.renew_1:calls=1"));
    return 0;
}

int world_setup_memory(void **state)
{
    (void)world_setup_none(state);
    world_open(*state, WORLD_MEMORY);
    return 0;
}

/* A case that failed has left everything open: then only the server must go. */
int world_teardown(void **state)
{
    struct world *w = *state;
    if (w->loop != NULL && w->is_finished)
        world_close(w);
    server_remove(&w->server);
    free(w);
    return 0;
}
