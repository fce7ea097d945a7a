/* tests/contract/bus_connection_cases.c - the way to a real server: what breaks, what is refused, what comes back. */
#include "tests/unit/unit.h"

#include "tests/contract/bus_world.h"

#include "bus/bus_priv.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define SOON_MS 5000

struct settled {
    unsigned calls, ok, closed, timed_out, other;
};

static void on_settled(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct settled *s = arg;
    (void)v;
    assert_non_null(why);
    s->calls++;
    if (err == SL_OK)
        s->ok++;
    else if (err == SL_ECLOSED)
        s->closed++;
    else if (err == SL_ETIMEOUT)
        s->timed_out++;
    else
        s->other++;
}

static sl_err issue(struct world *w, struct settled *s, uint64_t deadline_ms, const char *words)
{
    struct bus_args a;
    char line[512];
    bus_args_init(&a);
    (void)snprintf(line, sizeof(line), "%s", words);
    for (char *save = NULL, *word = strtok_r(line, " ", &save); word != NULL;
         word = strtok_r(NULL, " ", &save))
        bus_args_c(&a, word);
    sl_err err = bus_command(w->bus, &a, deadline_ms, on_settled, s);
    bus_args_fini(&a);
    return err;
}

static void open_with(struct world *w, const char *const options[])
{
    size_t n = 0;
    while (options[n] != NULL && n < 22) {
        w->server.options[n] = options[n];
        n++;
    }
    world_open_server(w);
}

static void wait_unfit(struct world *w, const char *words)
{
    world_open_bus(w);
    assert_true(world_wait_count(w, &w->unfits, 1, SOON_MS));
    if (strstr(w->unfit.text, words) == NULL)
        fail_msg("unfit because \"%s\", expected \"%s\"", w->unfit.text, words);
    assert_false(bus_is_ready(w->bus));
}

/* redis-cli, for what our own user may not do. */
static void cli(struct world *w, const char *words)
{
    char command[512];
    (void)snprintf(command, sizeof(command), "redis-cli -s %s %s > /dev/null", w->server.socket, words);
    assert_int_equal(system(command), 0);
}

static void wait_socket(struct world *w)
{
    while (access(w->server.socket, F_OK) != 0)
        world_pass(w, 5);
}

/* ---- no server, or a bad one ---- */

static void a_missing_server_is_tried_again_until_it_is_there(void **state)
{
    struct world *w = *state;
    struct settled s = {.calls = 0};
    world_open_server(w);
    server_kill(&w->server);
    (void)unlink(w->server.socket);
    world_open_bus(w);
    world_pass(w, 300);
    assert_false(bus_is_ready(w->bus));
    assert_int_equal(bus_partitions(w->bus), 0);
    assert_int_equal(issue(w, &s, 1000, "TIME"), SL_EAGAIN);
    server_start(&w->server);
    world_wait_ready(w);
    assert_int_equal(bus_partitions(w->bus), 8);
    world_expect(w, "8", "HGET sluice:store partitions");
    assert_int_equal(s.calls, 0);
    w->is_finished = true;
}

/* A listener on a free port of loopback that does what on_client says. */
struct listener {
    uv_tcp_t tcp;
    int port;
    unsigned clients;
};

static void on_reset(uv_stream_t *server, int status)
{
    struct listener *l = server->data;
    uv_tcp_t *client = sl_alloc(sizeof(*client));
    assert_int_equal(status, 0);
    assert_int_equal(uv_tcp_init(server->loop, client), 0);
    assert_int_equal(uv_accept(server, (uv_stream_t *)client), 0);
    l->clients++;
    assert_int_equal(uv_tcp_close_reset(client, (uv_close_cb)(void *)free), 0);
}

static void on_silence(uv_stream_t *server, int status)
{
    struct listener *l = server->data;
    (void)status;
    l->clients++; /* never accepted: connected by the kernel, and nobody answers */
}

static void listen_on(struct world *w, struct listener *l, uv_connection_cb cb)
{
    struct sockaddr_in any;
    struct sockaddr_storage got;
    int len = sizeof(got);
    assert_int_equal(uv_ip4_addr("127.0.0.1", 0, &any), 0);
    assert_int_equal(uv_tcp_init(w->uv, &l->tcp), 0);
    assert_int_equal(uv_tcp_bind(&l->tcp, (struct sockaddr *)&any, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&l->tcp, 16, cb), 0);
    assert_int_equal(uv_tcp_getsockname(&l->tcp, (struct sockaddr *)&got, &len), 0);
    l->port = ntohs(((struct sockaddr_in *)(void *)&got)->sin_port);
    l->tcp.data = l;
}

static void a_reset_and_a_refused_connection_are_noticed(void **state)
{
    struct world *w = *state;
    struct listener l = {.clients = 0};
    char url[64];
    world_open_server(w);
    listen_on(w, &l, on_reset);
    (void)snprintf(url, sizeof(url), "redis://127.0.0.1:%d", l.port);
    w->cfg.url = url;
    world_open_bus(w);
    assert_true(world_wait_count(w, &l.clients, 4, SOON_MS)); /* each reset is seen, and tried again */
    unsigned before = l.clients;
    world_pass(w, 1000);
    assert_in_range(l.clients - before, 1, 10); /* with a pause that grows */
    assert_int_equal(w->readies + w->losses, 0);
    uv_close((uv_handle_t *)&l.tcp, NULL); /* from now on: refused */
    world_pass(w, 500);
    assert_false(bus_is_ready(w->bus));
    w->is_finished = true;
}

static void a_silent_server_is_given_up_within_the_connect_deadline(void **state)
{
    struct world *w = *state;
    struct listener l = {.clients = 0};
    char url[64];
    world_open_server(w);
    listen_on(w, &l, on_silence);
    (void)snprintf(url, sizeof(url), "redis://localhost:%d", l.port);
    w->cfg.url = url;
    w->cfg.connect_deadline_ms = 100;
    struct bus_subscriber *s = NULL;
    static const struct bus_subscriber_ops NONE = {.confirmed = NULL};
    world_open_bus(w);
    s = bus_subscriber_open(w->bus, &NONE, NULL);
    struct bus_reader *r = bus_reader_open(w->bus);
    world_pass(w, 800);
    assert_false(bus_is_ready(w->bus));
    bus_reader_close(&r);
    bus_subscriber_close(&s);
    uv_close((uv_handle_t *)&l.tcp, NULL);
    world_pass(w, 5);
    w->is_finished = true;
}

static void a_bad_url_is_unfit(void **state)
{
    struct world *w = *state;
    static const char *const BAD[] = {"",
                                      "unix:",
                                      "redis://",
                                      "redis://:6379",
                                      "redis://host:99999",
                                      "redis://host:x",
                                      "http://host",
                                      "redis://host/3"};
    world_open_server(w);
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        w->cfg.url = BAD[i];
        w->unfits = 0;
        world_open_bus(w);
        assert_int_equal(w->unfits, 0);
        assert_true(world_wait_count(w, &w->unfits, 1, 500));
        assert_non_null(strstr(w->unfit.text, "url"));
        bus_close(&w->bus);
        world_pass(w, 5);
    }
    w->is_finished = true;
}

/* ---- unfit servers ---- */

static void eviction_is_unfit_until_it_is_changed(void **state)
{
    struct world *w = *state;
    open_with(w, (const char *const[]){"--maxmemory-policy", "allkeys-lru", NULL});
    wait_unfit(w, "noeviction");
    cli(w, "config set maxmemory-policy noeviction");
    world_wait_ready(w);
    assert_int_equal(w->unfits, 1); /* said once, not at each attempt */
    w->is_finished = true;
}

static void no_append_only_file_is_unfit_when_required(void **state)
{
    struct world *w = *state;
    w->cfg.require_aof = true;
    open_with(w, (const char *const[]){"--appendonly", "no", NULL});
    wait_unfit(w, "appendonly yes");
    cli(w, "config set appendonly yes");
    world_wait_ready(w);
    w->is_finished = true;
}

static void fsync_no_is_unfit_when_required(void **state)
{
    struct world *w = *state;
    w->cfg.require_aof = true;
    open_with(w, (const char *const[]){"--appendfsync", "no", NULL});
    wait_unfit(w, "appendfsync");
    cli(w, "config set appendfsync everysec");
    world_wait_ready(w);
    w->is_finished = true;
}

static void a_cluster_node_is_unfit(void **state)
{
    struct world *w = *state;
    open_with(w, (const char *const[]){"--cluster-enabled", "yes", NULL});
    wait_unfit(w, "Redis Cluster");
    w->is_finished = true;
}

static void a_replica_is_unfit(void **state)
{
    struct world *w = *state;
    open_with(w, (const char *const[]){"--replicaof", "127.0.0.1 1", NULL});
    wait_unfit(w, "replica");
    cli(w, "replicaof no one");
    world_wait_ready(w);
    w->is_finished = true;
}

static void wrong_credentials_are_unfit(void **state)
{
    struct world *w = *state;
    open_with(w, (const char *const[]){"--requirepass", "right", NULL});
    w->cfg.password = "wrong";
    wait_unfit(w, "WRONGPASS");
    assert_null(strstr(w->unfit.text, "wrong ")); /* never the password */
    bus_close(&w->bus);
    w->cfg.password = NULL;
    w->unfits = 0;
    wait_unfit(w, "NOAUTH");
    bus_close(&w->bus);
    w->cfg.password = "right";
    world_open_bus(w);
    world_wait_ready(w);
    w->is_finished = true;
}

struct pushes {
    unsigned confirms, messages;
};

static void on_confirmed(void *arg, struct sl_str channel)
{
    (void)channel;
    ((struct pushes *)arg)->confirms++;
}

static void on_pushed(void *arg, struct sl_str channel, struct sl_str payload)
{
    (void)channel;
    (void)payload;
    ((struct pushes *)arg)->messages++;
}

static void on_lost(void *arg)
{
    (void)arg;
}

static void on_count(void *arg, void *stream_arg, const struct bus_entry *entries, size_t count)
{
    (void)stream_arg;
    (void)entries;
    *(unsigned *)arg += (unsigned)count;
}

/* User and password on all three kinds of connection, over TCP, with a user who may not see CONFIG. */
static void a_narrow_user_can_do_all_we_need(void **state)
{
    struct world *w = *state;
    struct pushes p = {.confirms = 0};
    unsigned entries = 0;
    char url[64];
    static const struct bus_subscriber_ops OPS = {
        .confirmed = on_confirmed, .message = on_pushed, .lost = on_lost};
    w->server.port = 20000 + getpid() % 20000;
    world_open_server(w);
    wait_socket(w);
    cli(w, "acl setuser sluice on '>p%40ss' '~*' '&*' +@all -@dangerous +info");
    (void)snprintf(url, sizeof(url), "redis://sluice:p%%2540ss@127.0.0.1:%d", w->server.port);
    w->cfg.url = url;
    world_open_bus(w);
    world_wait_ready(w);
    world_expect(w, "sluice", "ACL WHOAMI");
    struct bus_subscriber *s = bus_subscriber_open(w->bus, &OPS, &p);
    struct bus_tail *t = bus_tail_open(w->bus, 8, on_count, &entries);
    bus_subscribe(s, SL_STR("channel"));
    bus_tail_add(t, SL_STR("in:{3}"), SL_STR("0-0"), NULL);
    assert_true(world_wait_count(w, &p.confirms, 1, SOON_MS));
    world_expect(w, "1", "PUBLISH channel x");
    (void)world_say(w, "FCALL answer_1 1 in:{3} 2 t answer");
    assert_int_equal(w->err, SL_OK);
    assert_true(world_wait_count(w, &p.messages, 1, SOON_MS));
    assert_true(world_wait_count(w, &entries, 1, SOON_MS));
    bus_tail_close(&t);
    bus_subscriber_close(&s);
    w->is_finished = true;
}

/* ---- breaking in the middle ---- */

static void a_stopped_server_times_out_within_the_deadline(void **state)
{
    struct world *w = *state;
    struct settled s = {.calls = 0};
    server_signal(&w->server, SIGSTOP);
    for (int i = 0; i < 50; i++)
        assert_int_equal(issue(w, &s, i == 49 ? 300 : 4000, "INCR n"), SL_OK);
    uint64_t before = uv_hrtime();
    assert_true(world_wait_count(w, &s.calls, 50, SOON_MS));
    assert_in_range((uv_hrtime() - before) / 1000000, 290,
                    700); /* the one that is due first decides for all */
    assert_int_equal(s.timed_out, 50);
    assert_int_equal(w->losses, 1);
    assert_int_equal(issue(w, &s, 1000, "TIME"), SL_EAGAIN);
    server_signal(&w->server, SIGCONT);
    world_wait_ready(w);
    assert_int_equal(s.calls, 50);
    assert_non_null(world_say(w, "GET n")); /* some may have been executed: that is what unknown means */
    w->is_finished = true;
}

static void kill_nine_with_commands_in_flight_settles_each_once(void **state)
{
    struct world *w = *state;
    struct settled s = {.calls = 0};
    for (int round = 1; round <= 3; round++) {
        for (int i = 0; i < 500; i++)
            assert_int_equal(issue(w, &s, SOON_MS, "RPUSH l x"), SL_OK);
        if (round != 2) /* some on their way, or none sent yet */
            (void)uv_run(w->uv, UV_RUN_NOWAIT);
        server_kill(&w->server);
        assert_true(world_wait_count(w, &s.calls, 500 * (unsigned)round, SOON_MS));
        server_start(&w->server);
        assert_true(world_wait_count(w, &w->readies, (unsigned)round + 1, SOON_MS));
    }
    world_pass(w, 50);
    assert_int_equal(s.calls, 1500);
    assert_int_equal(s.ok + s.closed, 1500);
    assert_true(s.closed > 0);
    /* what was answered is there: appendfsync always */
    assert_in_range(strtoull(world_say(w, "LLEN l"), NULL, 10), s.ok, 1500);
    w->is_finished = true;
}

static void flushed_functions_are_loaded_again(void **state)
{
    struct world *w = *state;
    cli(w, "function flush");
    (void)world_say(w, "FCALL answer_1 1 in:{3} 2 t answer");
    assert_int_equal(w->err, SL_EAGAIN);
    assert_true(world_wait_count(w, &w->readies, 2, SOON_MS));
    (void)world_say(w, "FCALL answer_1 1 in:{3} 2 t answer");
    assert_int_equal(w->err, SL_OK);
    world_expect(w, "1", "XLEN in:{3}");
    w->is_finished = true;
}

static void other_functions_under_our_name_are_replaced(void **state)
{
    struct world *w = *state;
    world_open_server(w);
    wait_socket(w);
    cli(w, "function load \"'#!lua name=sluice_1\nredis.register_function(\\\"answer_1\\\", function() "
           "return 1 end)'\"");
    world_open_bus(w);
    world_wait_ready(w);
    (void)world_say(w, "FCALL answer_1 1 in:{3} 2 t answer");
    assert_non_null(strchr(w->text.ptr, '-')); /* an entry id, not 1 */
    w->is_finished = true;
}

static void at_maxmemory_accept_refuses_and_what_drains_goes_on(void **state)
{
    struct world *w = *state;
    char m[64];
    cli(w, "config set maxmemory 1");
    assert_non_null(strstr(world_say(w, "FCALL accept_1 1 in:{3} - - 100 0 0 0 2 t message"), "OOM"));
    assert_int_equal(w->err, SL_EAGAIN);
    (void)world_say(w, "FCALL answer_1 1 in:{3} 2 t answer");
    assert_int_equal(w->err, SL_EAGAIN);
    const char *text =
        world_say(w, "FCALL acquire_1 5 meta:{3} in:{3} timers:{3} num:{3} relay:{3} A 1000 5000 0");
    assert_int_equal(w->err, SL_OK);
    (void)snprintf(m, sizeof(m), "%.*s", (int)strcspn(text + 4, " "), text + 4);
    (void)world_say(
        w,
        "FCALL commit_1 7 meta:{3} in:{3} out:{3} timers:{3} num:{3} relay:{3} dead:{3} %s A 0-0 1-0 2000 "
        "5000 3 500 "
        "1 conv:{3}:x s {} 1 1 1 log:{3}:x conv:{3}:x 1 one 2 b batch 1 in:{5} 1 1 + x|idle|1 1500 0 0 0",
        m);
    assert_int_equal(w->err, SL_OK);
    world_expect(w, "[1 ]", "FCALL tick_1 3 meta:{3} in:{3} timers:{3} %s A 2000 9", m);
    world_expect(w, "1", "FCALL deliver_1 2 in:{5} from:{5} 3 5 1 0 1 2 t need");
    world_expect(w, "OK", "FCALL relay_1 2 meta:{3} relay:{3} %s A 1 in:{5} 1", m);
    world_expect(w, "[1 1]", "FCALL trim_1 5 meta:{3} in:{3} out:{3} tails:{3} relay:{3} %s A 0-0", m);
    world_expect(w, "OK", "FCALL renew_1 1 meta:{3} %s A 5000", m);
    world_expect(w, "OK", "FCALL release_1 2 meta:{3} relay:{3} %s A 0", m);
    w->is_finished = true;
}

static void a_store_without_room_for_itself_is_unfit(void **state)
{
    struct world *w = *state;
    open_with(w, (const char *const[]){"--maxmemory", "1", NULL});
    wait_unfit(w, "the store cannot be created");
    cli(w, "config set maxmemory 0");
    world_wait_ready(w);
    w->is_finished = true;
}

static void functions_that_cannot_be_loaded_for_want_of_memory_are_unfit(void **state)
{
    struct world *w = *state;
    world_open_server(w);
    wait_socket(w);
    cli(w, "hset sluice:store partitions 8");
    cli(w, "config set maxmemory 1");
    wait_unfit(w, "the Functions cannot be loaded");
    cli(w, "config set maxmemory 0");
    world_wait_ready(w);
    w->is_finished = true;
}

static void a_server_that_becomes_a_replica_is_noticed(void **state)
{
    struct world *w = *state;
    cli(w, "replicaof 127.0.0.1 1");
    (void)world_say(w, "HSET h f v");
    assert_int_equal(w->err, SL_EAGAIN);
    assert_true(world_wait_count(w, &w->unfits, 1, SOON_MS));
    assert_non_null(strstr(w->unfit.text, "replica"));
    cli(w, "replicaof no one");
    assert_true(world_wait_count(w, &w->readies, 2, SOON_MS));
    world_expect(w, "1", "HSET h f v");
    w->is_finished = true;
}

/* Each command of the append-only file takes 0.5 ms to load, and every 1,024 of them the server answers that it is loading. */
static void a_loading_server_is_waited_for(void **state)
{
    struct world *w = *state;
    struct settled s = {.calls = 0};
    for (int i = 0; i < 3000; i++)
        assert_int_equal(issue(w, &s, SOON_MS, "RPUSH l x"), SL_OK);
    assert_true(world_wait_count(w, &s.calls, 3000, SOON_MS));
    server_kill(&w->server);
    w->server.options[0] = "--key-load-delay";
    w->server.options[1] = "500";
    server_start(&w->server);
    uint64_t before = uv_hrtime();
    assert_true(world_wait_count(w, &w->readies, 2, 2 * SOON_MS));
    assert_in_range((uv_hrtime() - before) / 1000000, 1000, 2 * SOON_MS); /* it was loading all the time */
    world_expect(w, "3000", "LLEN l");
    assert_int_equal(w->unfits, 0);
    w->is_finished = true;
}

static void a_busy_server_says_try_again(void **state)
{
    struct world *w = *state;
    struct settled slow = {.calls = 0};
    cli(w, "config set busy-reply-threshold 20");
    char command[256];
    (void)snprintf(command, sizeof(command), "redis-cli -s %s eval 'while true do end' 0 > /dev/null 2>&1 &",
                   w->server.socket);
    assert_int_equal(system(command), 0);
    world_pass(w, 200);
    assert_non_null(strstr(world_say(w, "FCALL answer_1 1 in:{3} 2 t answer"), "BUSY"));
    assert_int_equal(w->err, SL_EAGAIN);
    assert_int_equal(issue(w, &slow, SOON_MS, "SCRIPT KILL"), SL_OK);
    assert_true(world_wait_count(w, &slow.calls, 1, SOON_MS));
    for (int i = 0; i < 100 && w->err == SL_EAGAIN; i++) { /* it ends soon after */
        (void)world_say(w, "FCALL answer_1 1 in:{3} 2 t answer");
        world_pass(w, 5);
    }
    assert_int_equal(w->err, SL_OK);
    world_expect(w, "1", "XLEN in:{3}"); /* busy meant: not executed */
    w->is_finished = true;
}

static void server_errors_are_mapped(void **state)
{
    struct world *w = *state;
    world_expect(w, "1", "RPUSH list a");
    (void)world_say(w, "HGET list a");
    assert_int_equal(w->err, SL_EREFUSED);
    assert_non_null(strstr(w->text.ptr, "WRONGTYPE"));
    (void)world_say(w, "NOSUCHCOMMAND");
    assert_int_equal(w->err, SL_EREFUSED);
    w->is_finished = true;
}

/* A half-open connection: nothing arrives and nothing fails. Takes 10 s, so only in the long form. */
static void a_silent_subscription_is_cut(void **state)
{
    struct world *w = *state;
    struct pushes p = {.confirms = 0};
    static const struct bus_subscriber_ops OPS = {
        .confirmed = on_confirmed, .message = on_pushed, .lost = on_lost};
    if (getenv("SLUICE_LONG") == NULL) {
        w->is_finished = true;
        return;
    }
    struct bus_subscriber *s = bus_subscriber_open(w->bus, &OPS, &p);
    bus_subscribe(s, SL_STR("channel"));
    assert_true(world_wait_count(w, &p.confirms, 1, SOON_MS));
    server_signal(&w->server, SIGSTOP);
    world_pass(w, 16000);
    server_signal(&w->server, SIGCONT);
    assert_true(world_wait_count(w, &p.confirms, 2, SOON_MS));
    bus_subscriber_close(&s);
    w->is_finished = true;
}

#define WORLD_REDIS_ONLY(f)                                                                                  \
    {                                                                                                        \
        "redis: " #f, f, world_setup_redis, world_teardown, NULL                                             \
    }

int run_connection_cases(void)
{
    const struct CMUnitTest cases[] = {
        WORLD_OWN(a_missing_server_is_tried_again_until_it_is_there),
        WORLD_OWN(a_reset_and_a_refused_connection_are_noticed),
        WORLD_OWN(a_silent_server_is_given_up_within_the_connect_deadline),
        WORLD_OWN(a_bad_url_is_unfit),
        WORLD_OWN(eviction_is_unfit_until_it_is_changed),
        WORLD_OWN(no_append_only_file_is_unfit_when_required),
        WORLD_OWN(fsync_no_is_unfit_when_required),
        WORLD_OWN(a_cluster_node_is_unfit),
        WORLD_OWN(a_replica_is_unfit),
        WORLD_OWN(wrong_credentials_are_unfit),
        WORLD_OWN(a_narrow_user_can_do_all_we_need),
        WORLD_REDIS_ONLY(a_stopped_server_times_out_within_the_deadline),
        WORLD_REDIS_ONLY(kill_nine_with_commands_in_flight_settles_each_once),
        WORLD_REDIS_ONLY(flushed_functions_are_loaded_again),
        WORLD_OWN(other_functions_under_our_name_are_replaced),
        WORLD_REDIS_ONLY(at_maxmemory_accept_refuses_and_what_drains_goes_on),
        WORLD_OWN(functions_that_cannot_be_loaded_for_want_of_memory_are_unfit),
        WORLD_OWN(a_store_without_room_for_itself_is_unfit),
        WORLD_REDIS_ONLY(a_server_that_becomes_a_replica_is_noticed),
        WORLD_REDIS_ONLY(a_loading_server_is_waited_for),
        WORLD_REDIS_ONLY(a_busy_server_says_try_again),
        WORLD_REDIS_ONLY(server_errors_are_mapped),
        WORLD_REDIS_ONLY(a_silent_subscription_is_cut),
    };
    return cmocka_run_group_tests_name("connection", cases, NULL, NULL);
}
