/* tests/contract/bus_module_cases.c - the module inside Redis: what it wrote comes back from the append-only file to the byte, a
 * replica holds the same, and no arguments bring the server down.
 */
#include "tests/unit/unit.h"

#include "tests/contract/bus_world.h"

#include "bus/bus_priv.h"
#include "bus/pack.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <unistd.h>

#define SOON_MS 8000
#define HEAD    "7 meta:{3} in:{3} out:{3} timers:{3} num:{3} relay:{3} dead:{3}"

/* SplitMix64 (Steele, Lea, Flood 2014): the same arguments at every run. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static size_t below(uint64_t *state, size_t n)
{
    return (size_t)(next_random(state) % n);
}

/* Everything the server holds, expiry times included, in one word. */
static char *digest(struct world *w)
{
    struct sl_buf all;
    sl_buf_init(&all, 0);
    sl_buf_c(&all, world_say(w, "DEBUG DIGEST"));
    assert_int_equal(w->err, SL_OK);
    sl_buf_c(&all, world_say(w, "PEXPIRETIME sess:{3}:s"));
    sl_buf_c(&all, world_say(w, "XINFO STREAM in:{3}"));
    sl_buf_char(&all, '\0');
    return all.ptr;
}

static const char *commit(struct world *w, uint64_t epoch, const char *from, const char *to,
                          const char *sections)
{
    return world_say(w, "FCALL commit_1 " HEAD " %llu A %s %s 2000 5000 3 1 %s", (unsigned long long)epoch,
                     from, to, sections);
}

static void add_history(struct sl_buf *b, unsigned first, unsigned count)
{
    sl_buf_printf(b, "1 conv:{3}:x s {} %u 1 %u", first + count - 1, count);
    for (unsigned i = 0; i < count; i++)
        sl_buf_printf(b, " log:{3}:x conv:{3}:x %u entry%u", first + i, first + i);
    sl_buf_c(b, " 2 b batch 1 bot:faq 1 1 + x|place|1 1 2 bot:faq 1 @ 7-7 0 1 push:{3}:x payload");
    sl_buf_char(b, '\0');
}

/* Every operation once or more, so that every kind of write is repeated. */
static void use_all(struct world *w)
{
    struct sl_buf b;
    const char *text =
        world_say(w, "FCALL acquire_1 5 meta:{3} in:{3} timers:{3} num:{3} relay:{3} A 1000 60000 0");
    assert_int_equal(strncmp(text, "[ok ", 4), 0);
    uint64_t epoch = strtoull(text + 4, NULL, 10);
    for (int i = 1; i <= 20; i++) {
        (void)world_say(w, "FCALL accept_1 2 in:{3} sess:{3}:s n %d 100 5 50 60000 4 t message id m%d", i, i);
        assert_int_equal(w->err, SL_OK);
    }
    (void)world_say(w, "FCALL accept_1 3 in:{3} seen:{3}:h1 seen:{3}:h2 i wx7 100 0 0 60000 2 t message");
    (void)world_say(w, "FCALL answer_1 1 in:{3} 4 t answer x hi");
    sl_buf_init(&b, 0);
    add_history(&b, 1, 120); /* longer than keep + 100: it is cut */
    assert_int_equal(strncmp(commit(w, epoch, "0-0", "1-0", b.ptr), "[ok ", 4), 0);
    sl_buf_fini(&b);
    (void)commit(w, epoch, "1-0", "2-0", "0 0 0 0 1 - x|place|1 0 0 1 5-5 broken 2 t message 0");
    assert_int_equal(w->err, SL_OK);
    (void)commit(w, epoch, "2-0", "3-0", "0 0 0 0 1 + y|bot|0 5 0 0 0");
    (void)world_say(w, "FCALL tick_1 3 meta:{3} in:{3} timers:{3} %llu A 10 10", (unsigned long long)epoch);
    assert_string_equal(w->text.ptr, "[1 ]");
    (void)world_say(w, "FCALL deliver_1 2 bot:faq from:bot:faq 3 %llu 1 600000 2 2 a b 2 c d",
                    (unsigned long long)epoch);
    (void)world_say(w, "FCALL deliver_1 2 bot:faq from:bot:faq 3 %llu 1 0 1 2 e f",
                    (unsigned long long)epoch + 1);
    (void)world_say(w, "FCALL relay_1 2 meta:{3} relay:{3} %llu A 1 bot:faq 2", (unsigned long long)epoch);
    (void)world_say(w, "FCALL renew_1 1 meta:{3} %llu A 9000", (unsigned long long)epoch);
    (void)world_say(w, "FCALL trim_1 5 meta:{3} in:{3} out:{3} tails:{3} relay:{3} %llu A 9-9",
                    (unsigned long long)epoch);
    assert_int_equal(w->err, SL_OK);
    char first[64];
    (void)snprintf(first, sizeof first, "%.60s", world_say(w, "XRANGE dead:{3} - + COUNT 1") + 2);
    first[strcspn(first, " ")] = '\0';
    (void)world_say(w, "FCALL redrive_1 2 dead:{3} in:{3} %s", first);
    assert_int_equal(w->err, SL_OK);
    (void)world_say(w, "FCALL release_1 2 meta:{3} relay:{3} %llu A 0", (unsigned long long)epoch);
    assert_int_equal(w->err, SL_OK);
}

static void restart_killed(struct world *w)
{
    unsigned readies = w->readies;
    server_kill(&w->server);
    server_start(&w->server);
    assert_true(world_wait_count(w, &w->readies, readies + 1, SOON_MS));
}

/* From here on the file holds no command of the module. */
static void rewrite_file(struct world *w)
{
    (void)world_say(w, "BGREWRITEAOF");
    for (unsigned i = 0; i < SOON_MS / 20; i++) {
        const char *info = world_say(w, "INFO persistence");
        if (strstr(info, "aof_rewrite_in_progress:0") != NULL &&
            strstr(info, "aof_rewrite_scheduled:0") != NULL)
            return;
        world_pass(w, 20);
    }
    fail_msg("the append-only file was not rewritten in time");
}

/* Of loopback, and nobody's at this moment: Redis does not tell which one it was given for port 0. */
static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    (void)close(fd);
    return ntohs(a.sin_port);
}

static void the_append_only_file_rebuilds_the_same_bytes(void **state)
{
    struct world *w = *state;
    use_all(w);
    char *before = digest(w);
    restart_killed(w);
    char *after = digest(w);
    assert_string_equal(after, before);
    free(after);
    rewrite_file(w);
    restart_killed(w);
    after = digest(w);
    assert_string_equal(after, before);
    free(after);
    free(before);
    w->is_finished = true;
}

static void a_replica_holds_the_same(void **state)
{
    struct world *w = *state;
    struct world other = {.kind = WORLD_REDIS};
    char port[8], *ours, *theirs = NULL;
    w->server.port = free_port();
    (void)snprintf(port, sizeof port, "%d", w->server.port);
    w->server.has_module = other.server.has_module = true;
    w->server.options[0] = "--repl-diskless-sync-delay"; /* nobody else will come */
    w->server.options[1] = "0";
    world_open_server(w);
    world_open_bus(w);
    world_wait_ready(w);
    other.server.options[0] = "--replicaof";
    other.server.options[1] = "127.0.0.1";
    other.server.options[2] = port;
    server_start(&other.server);
    (void)world_say(w, "FCALL answer_1 1 in:{3} 4 t answer x before");
    for (int i = 0; i < 400 && strstr(world_say(w, "INFO replication"), "state=online") == NULL; i++)
        world_pass(w, 50);
    use_all(w);
    world_expect(w, "1", "WAIT 1 5000");
    ours = digest(w);
    char command[200], line[128] = "";
    (void)snprintf(command, sizeof command, "redis-cli -s %s debug digest", other.server.socket);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    theirs = fgets(line, sizeof line, f);
    assert_int_equal(pclose(f), 0);
    assert_non_null(theirs);
    line[strcspn(line, "\n")] = '\0';
    ours[strlen(line)] = 0;
    assert_string_equal(ours, line);
    server_remove(&other.server);
    free(ours);
    w->is_finished = true;
}

/* As an older process asks: every argument by itself. */
static void calls_that_are_not_packed_are_repeated_too(void **state)
{
    struct world *w = *state;
    for (int i = 1; i <= 3; i++) {
        (void)world_say(w, "sluice.accept_1 2 in:{3} sess:{3}:s n %d 100 5 50 60000 4 t message id m%d", i,
                        i);
        assert_int_equal(w->err, SL_OK);
    }
    const char *text =
        world_say(w, "sluice.acquire_1 5 meta:{3} in:{3} timers:{3} num:{3} relay:{3} A 1000 60000 0");
    assert_int_equal(strncmp(text, "[ok ", 4), 0);
    unsigned long long epoch = strtoull(text + 4, NULL, 10);
    (void)world_say(w,
                    "sluice.commit_1 " HEAD " %llu A 0-0 1-0 2000 0 3 500 1 conv:{3}:x s {} 1 1 1 log:{3}:x "
                    "conv:{3}:x 1 entry 2 b batch 0 0 0 0 1 push:{3}:x payload",
                    epoch);
    assert_int_equal(w->err, SL_OK);
    assert_non_null(strstr(world_say(w, "INFO commandstats"), "cmdstat_sluice.commit_1:calls=1"));
    char *before = digest(w);
    restart_killed(w);
    char *after = digest(w);
    assert_string_equal(after, before);
    free(after);
    free(before);
    w->is_finished = true;
}

static void nobody_else_may_repeat(void **state)
{
    struct world *w = *state;
    (void)world_say(w, "sluice.apply_1 1 in:{3} answer_1 0 1 9-9 2 t answer");
    assert_int_equal(w->err, SL_EREFUSED);
    (void)world_say(w, "sluice.apply_2 1 in:{3} answer_1 0 9-9 pack");
    assert_int_equal(w->err, SL_EREFUSED);
    world_expect(w, "0", "EXISTS in:{3}");
    w->is_finished = true;
}

static void a_server_restarted_without_the_module_is_used_all_the_same(void **state)
{
    struct world *w = *state;
    (void)world_say(w, "FCALL answer_1 1 in:{3} 4 t answer x hi");
    rewrite_file(w);
    unsigned readies = w->readies;
    w->server.has_module = false;
    server_kill(&w->server);
    server_start(&w->server);
    assert_true(world_wait_count(w, &w->readies, readies + 1, SOON_MS));
    (void)world_say(w, "FCALL answer_1 1 in:{3} 4 t answer x hi");
    assert_int_equal(w->err, SL_OK);
    world_expect(w, "2", "XLEN in:{3}");
    w->is_finished = true;
}

/* One build's arguments are not another's: a module that was left running is not asked. */
static void a_module_of_another_build_is_left_alone(void **state)
{
    struct world *w = *state;
    w->server.options[0] = "--loadmodule";
    w->server.options[1] = OTHER_MODULE;
    world_open_server(w);
    world_open_bus(w);
    world_wait_ready(w);
    (void)world_say(w, "FCALL answer_1 1 in:{3} 4 t answer x hi");
    assert_int_equal(w->err, SL_OK);
    world_expect(w, "1", "XLEN in:{3}");
    world_expect(w, SLUICE_VERSION, "sluice.about_1");
    w->is_finished = true;
}

static const char *random_word(uint64_t *r, char out[64])
{
    static const char *const WORDS[] = {"0",
                                        "1",
                                        "2",
                                        "3",
                                        "5",
                                        "7",
                                        "A",
                                        "B",
                                        "s",
                                        "d",
                                        "n",
                                        "i",
                                        "-",
                                        "+",
                                        "@",
                                        "0-0",
                                        "1-0",
                                        "7-7",
                                        "2000",
                                        "\"\"",
                                        "meta:{3}",
                                        "in:{3}",
                                        "out:{3}",
                                        "timers:{3}",
                                        "num:{3}",
                                        "relay:{3}",
                                        "dead:{3}",
                                        "conv:{3}:x",
                                        "log:{3}:x",
                                        "sess:{3}:s",
                                        "tails:{3}",
                                        "bot:faq",
                                        "x|place|1",
                                        "|||",
                                        "x|y|",
                                        "{}",
                                        "999999999999999",
                                        "1000000000000000",
                                        "18446744073709551615",
                                        "-1",
                                        "4000",
                                        "1.5",
                                        "in:archive",
                                        "a\nb"};
    size_t at = below(r, sizeof WORDS / sizeof WORDS[0] + 4);
    if (at < sizeof WORDS / sizeof WORDS[0])
        return WORDS[at];
    (void)snprintf(out, 64, "%zu", below(r, 40));
    return out;
}

/* Mostly well formed at its head, so that the checks behind are reached. */
static void random_call(uint64_t *r, struct bus_args *a, uint64_t epoch)
{
    static const struct {
        const char *name, *head;
    } CALLS[] = {{"commit_1", HEAD},
                 {"accept_1", "2 in:{3} sess:{3}:s"},
                 {"deliver_1", "2 bot:faq from:bot:faq"},
                 {"tick_1", "3 meta:{3} in:{3} timers:{3}"},
                 {"renew_1", "1 meta:{3}"},
                 {"acquire_1", "5 meta:{3} in:{3} timers:{3} num:{3} relay:{3}"},
                 {"relay_1", "2 meta:{3} relay:{3}"},
                 {"release_1", "2 meta:{3} relay:{3}"},
                 {"trim_1", "5 meta:{3} in:{3} out:{3} tails:{3} relay:{3}"},
                 {"answer_1", "1 in:{3}"},
                 {"redrive_1", "2 dead:{3} in:{3}"}};
    size_t which = below(r, sizeof CALLS / sizeof CALLS[0]), words = below(r, 40);
    char line[256], word[64], number[32];
    bus_args_clear(a);
    bus_args_c(a, "FCALL");
    bus_args_c(a, CALLS[which].name);
    if (below(r, 8) != 0) {
        (void)snprintf(line, sizeof line, "%s", CALLS[which].head);
        for (char *save = NULL, *p = strtok_r(line, " ", &save); p != NULL; p = strtok_r(NULL, " ", &save))
            bus_args_copy(a, sl_str_c(below(r, 24) == 0 ? random_word(r, word) : p));
    }
    if (below(r, 4) != 0) {
        (void)snprintf(number, sizeof number, "%llu", (unsigned long long)epoch);
        bus_args_copy(a, sl_str_c(number));
        bus_args_c(a, "A");
    }
    if (which == 0 && below(r, 2) != 0)
        for (size_t i = 0; i < 6; i++)
            bus_args_c(a, (const char *const[]){"0-0", "0-0", "2000", "0", "3", "1"}[i]);
    for (size_t i = 0; i < words; i++) {
        const char *p = random_word(r, word);
        bus_args_copy(a, sl_str_c(strcmp(p, "\"\"") == 0 ? "" : p));
    }
}

static void random_arguments_leave_the_server_standing(void **state)
{
    struct world *w = *state;
    struct bus_args a;
    uint64_t r = 1, epoch = 0, answered = 0, accepted = 0;
    size_t rounds = getenv("SLUICE_LONG") != NULL ? 200000 : 6000;
    bus_args_init(&a);
    for (size_t i = 0; i < rounds; i++) {
        if (i % 50 == 0) { /* an owner again, whatever the last ones did */
            (void)world_say(w, "DEL meta:{3}");
            const char *text =
                world_say(w, "FCALL acquire_1 5 meta:{3} in:{3} timers:{3} num:{3} relay:{3} A 1000 60000 0");
            epoch = w->err == SL_OK ? strtoull(text + 4, NULL, 10) : epoch;
        }
        if (i % 500 == 0)
            (void)world_say(w,
                            "DEL in:{3} out:{3} timers:{3} num:{3} relay:{3} dead:{3} conv:{3}:x log:{3}:x");
        random_call(&r, &a, epoch);
        (void)world_send(w, &a);
        answered++;
        accepted += w->err == SL_OK ? 1 : 0;
    }
    bus_args_fini(&a);
    assert_int_equal(w->losses, 0); /* the server never went away */
    assert_true(accepted > answered / 50);
    char *before = digest(w);
    restart_killed(w);
    char *after = digest(w);
    assert_string_equal(after, before);
    free(before);
    free(after);
    w->is_finished = true;
}

/* Items of a pack with a bit changed here and there, and bytes that are none. */
static size_t random_pack(uint64_t *r, char out[256])
{
    static const char *const WORDS[] = {"0", "1", "2", "4", "t", "x", "answer", "n", "100", "60000"};
    char *at = out;
    for (size_t i = 0, n = below(r, 12); i < n; i++) {
        const char *word = WORDS[below(r, sizeof WORDS / sizeof WORDS[0])];
        if (below(r, 4) == 0)
            at = bus_pack_put_shared(at, below(r, 4), sl_str_c(word), sl_str_c("y"));
        else
            at = bus_pack_put(at, sl_str_c(word));
    }
    for (size_t n = below(r, 3); n > 0 && at > out; n--)
        out[below(r, (size_t)(at - out))] = (char)below(r, 256);
    for (size_t n = below(r, 8) == 0 ? below(r, 6) : 0; n > 0; n--)
        *at++ = (char)below(r, 256);
    return (size_t)(at - out);
}

static void random_packs_leave_the_server_standing(void **state)
{
    static const char *const CALLS[][2] = {{"sluice.packed_1.answer_1", "1 in:{3}"},
                                           {"sluice.packed_1.accept_1", "2 in:{3} sess:{3}:s"},
                                           {"sluice.packed_1.commit_1", HEAD},
                                           {"sluice.packed_1.answer_1", "9 in:{3}"}};
    struct world *w = *state;
    struct bus_args a;
    uint64_t r = 7, taken = 0;
    char line[256], pack[256];
    bus_args_init(&a);
    for (size_t i = 0; i < 4000; i++) {
        size_t which = below(&r, sizeof CALLS / sizeof CALLS[0]);
        bus_args_clear(&a);
        bus_args_c(&a, CALLS[which][0]);
        (void)snprintf(line, sizeof line, "%s", CALLS[which][1]);
        for (char *save = NULL, *p = strtok_r(line, " ", &save); p != NULL; p = strtok_r(NULL, " ", &save))
            bus_args_copy(&a, sl_str_c(p));
        if (below(&r, 16) != 0)
            bus_args_str(&a, sl_str_n(pack, random_pack(&r, pack)));
        (void)world_send(w, &a);
        taken += w->err == SL_OK ? 1 : 0;
    }
    for (int i = 0; i < 3; i++) /* and one that is certain to be taken */
        taken += strchr(world_say(w, "FCALL answer_1 1 in:{3} 4 t answer x hi"), '-') != NULL ? 1 : 0;
    bus_args_fini(&a);
    assert_int_equal(w->losses, 0);
    assert_true(taken >= 3);
    char *before = digest(w);
    restart_killed(w);
    char *after = digest(w);
    assert_string_equal(after, before);
    free(before);
    free(after);
    w->is_finished = true;
}

#define MODULE(f)                                                                                            \
    {                                                                                                        \
        "module: " #f, f, world_setup_module, world_teardown, NULL                                           \
    }

int run_module_cases(void)
{
    const struct CMUnitTest cases[] = {
        MODULE(the_append_only_file_rebuilds_the_same_bytes),
        WORLD_OWN(a_replica_holds_the_same),
        MODULE(calls_that_are_not_packed_are_repeated_too),
        MODULE(nobody_else_may_repeat),
        MODULE(a_server_restarted_without_the_module_is_used_all_the_same),
        WORLD_OWN(a_module_of_another_build_is_left_alone),
        MODULE(random_arguments_leave_the_server_standing),
        MODULE(random_packs_leave_the_server_standing),
    };
    return cmocka_run_group_tests_name("module", cases, NULL, NULL);
}
