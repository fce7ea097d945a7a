/* tests/contract/bus_world.h - one store, one loop and one bus for a case, over a real redis-server or over the store in memory.
 *
 * What     a case says a command and gets its reply as text, so expectations are plain strings:
 *          integers 5, strings a, nil ~, arrays [a b], failures !EFENCED words.
 * Time     every wait has a limit; over Redis the loop sleeps in epoll, in memory a scheduler moves requests, replies and the clock.
 */
#ifndef TESTS_CONTRACT_BUS_WORLD_H
#define TESTS_CONTRACT_BUS_WORLD_H

#include "bus/bus.h"

#include <sys/types.h>

enum world_kind { WORLD_REDIS, WORLD_MODULE, WORLD_MEMORY }; /* module: Redis with our module */

struct redis_server {
    pid_t pid; /* 0: not running */
    char dir[64];
    char socket[96];
    int port; /* 0: UNIX socket only */
    bool has_module;
    const char *options[24]; /* pairs, beyond those every server gets */
};
void server_start(
    struct redis_server *s); /* makes the directory once; a second start finds the data of the first */
void server_kill(struct redis_server *s); /* kill -9 */
void server_signal(struct redis_server *s, int signum);
void server_remove(struct redis_server *s); /* kills it and removes its directory */

struct world {
    enum world_kind kind;
    struct redis_server server;
    struct memory_store *store;
    struct uv_loop_s *uv;
    struct sl_loop *loop;
    struct bus_config cfg;
    struct bus *bus;
    unsigned readies, losses, unfits;
    struct sl_fail unfit;
    struct sl_buf text; /* the last reply */
    sl_err err;
    bool is_answered;
    bool is_finished; /* the case has said all: the teardown closes and checks the loop */
};
void world_open(struct world *w, enum world_kind kind); /* a fresh store and a ready bus */
void world_open_server(struct world *w);                /* the server with w->server.options; no bus yet */
void world_open_bus(struct world *w);                   /* another bus on it, not waited for */
void world_close(struct world *w);                      /* checks that the loop closes clean */
bool world_turn(struct world *w, uint64_t *left_ms); /* let something happen; false when the time is over */
/* Wait until *flag, at most ms. */
bool world_wait(struct world *w, const bool *flag, uint64_t ms);
bool world_wait_count(struct world *w, const unsigned *n, unsigned wanted, uint64_t ms);
void world_pass(struct world *w, uint64_t ms); /* let time go by */
void world_wait_ready(struct world *w);

/* Say a command, words parted by blanks ("" for an empty word); the reply's text is valid until the next. */
const char *world_say(struct world *w, const char *fmt, ...) SL_PRINTF(2, 3);
const char *world_send(struct world *w, const struct bus_args *args);
void world_value_text(struct sl_buf *out, const struct bus_value *v);
#define world_expect(w, wanted, ...) assert_string_equal(world_say((w), __VA_ARGS__), (wanted))

/* For cmocka: *state is a ready world of that kind; the teardown leaves no server behind, whatever happened. */
int world_setup_redis(void **state);
int world_setup_module(void **state);
int world_setup_memory(void **state);
int world_setup_none(void **state); /* an empty one: the case opens what it needs */
int world_teardown(void **state);
#define WORLD_BOTH(f)                                                                                        \
    {"redis: " #f, f, world_setup_redis, world_teardown, NULL},                                              \
        {"module: " #f, f, world_setup_module, world_teardown, NULL},                                        \
    {                                                                                                        \
        "memory: " #f, f, world_setup_memory, world_teardown, NULL                                           \
    }
#define WORLD_OWN(f)                                                                                         \
    {                                                                                                        \
        "redis: " #f, f, world_setup_none, world_teardown, NULL                                              \
    }

/* ---- the suites, one file each ---- */
int run_functions_cases(void);
int run_calls_cases(void);
int run_connection_cases(void);
int run_module_cases(void);
int run_mutant_cases(void);

#endif
