/* tests/unit/test_session.c - sluice.v1 without a socket, over the store in memory: acknowledgements, gaps, resuming, the sweep. */
#include "unit.h"

#include "bus/memory_priv.h"
#include "gateway/session.h"

#include <stdarg.h>
#include <stdio.h>

#define HEARTBEAT_MS 25000

struct socket {
    struct gw_wire wire; /* first */
    struct sl_buf text;  /* every frame, a line each */
    int code;            /* of the close; 0: open */
    size_t pings;
};

struct world {
    struct memory_store *store;
    struct sl_loop *loop;
    struct bus *bus;
    struct gw_hub *hub;
    struct gw_inbox inbox;
    struct sl_config *cfg;
    struct bus_args args;
    struct socket socket;
    struct gw_session *session;
    bool is_store_silent;
    char token[512], id[64], addr[200], tag[8];
};

/* ---- a wire that writes down ---- */

static void wire_send(struct gw_wire *w, struct sl_str frame, enum gw_urgency when)
{
    struct socket *s = (struct socket *)w;
    (void)when;
    sl_buf_str(&s->text, frame);
    sl_buf_char(&s->text, '\n');
}

static void wire_ping(struct gw_wire *w)
{
    ((struct socket *)w)->pings++;
}

static size_t wire_room(const struct gw_wire *w)
{
    (void)w;
    return SIZE_MAX;
}

static void wire_close(struct gw_wire *w, enum frame_close code)
{
    ((struct socket *)w)->code = (int)code;
}

static const struct gw_wire_ops wire_ops = {
    .send = wire_send, .ping = wire_ping, .room = wire_room, .close = wire_close};

/* ---- the world ---- */

static void host_state(struct chan *ch, enum chan_state now)
{
    (void)ch;
    (void)now;
}
static void host_closed(struct chan *ch)
{
    (void)ch;
}
static const struct chan_host host = {.state = host_state, .closed = host_closed};

static const struct gw_inbox *find_inbox(void *arg, struct sl_str name)
{
    struct world *w = arg;
    return sl_str_eq_c(name, "web") ? &w->inbox : NULL;
}

static void run_timers(struct world *w)
{
    while (sl_loop_virtual_step(w->loop))
        ;
}

/* Until nothing moves; the store's replies only while it is not silent. */
static void settle(struct world *w)
{
    for (bool moved = true; moved;) {
        moved = sl_loop_virtual_step(w->loop);
        while (!w->is_store_silent && memory_pending_requests(w->store) > 0) {
            memory_execute(w->store, 0);
            moved = true;
        }
        while (!w->is_store_silent && memory_pending_replies(w->store, 1) > 0) {
            memory_reply(w->store, 1, 0);
            moved = true;
        }
    }
}

static void pass_ms(struct world *w, uint64_t ms)
{
    uint64_t until = sl_loop_mono_ms(w->loop) + ms;
    settle(w);
    for (uint64_t due; sl_loop_virtual_next(w->loop, &due) && due <= until;) {
        uint64_t now = sl_loop_mono_ms(w->loop);
        due = due > now ? due : now;
        sl_loop_virtual_set(w->loop, due, sl_loop_unix_ms(w->loop) + (int64_t)(due - now));
        memory_store_clock(w->store, sl_loop_unix_ms(w->loop));
        settle(w);
    }
    uint64_t now = sl_loop_mono_ms(w->loop);
    sl_loop_virtual_set(w->loop, until, sl_loop_unix_ms(w->loop) + (int64_t)(until - now));
    settle(w);
}

static const struct bus_value *peek(struct world *w, size_t count, ...)
{
    va_list ap;
    va_start(ap, count);
    bus_args_clear(&w->args);
    for (size_t i = 0; i < count; i++)
        bus_args_c(&w->args, va_arg(ap, const char *));
    va_end(ap);
    return memory_peek(w->store, &w->args);
}

static void connect_socket(struct world *w)
{
    w->socket = (struct socket){.wire = {.ops = &wire_ops}};
    sl_buf_init(&w->socket.text, 0);
    w->session = gw_session_new(w->hub, &w->socket.wire, SL_STR_NONE);
}

static void disconnect(struct world *w)
{
    gw_session_free(&w->session);
    sl_buf_fini(&w->socket.text);
}

static const char *seen(struct world *w)
{
    sl_buf_char(&w->socket.text, '\0');
    w->socket.text.len--;
    return w->socket.text.ptr;
}

static void say(struct world *w, const char *frame)
{
    gw_session_message(w->session, sl_str_c(frame));
    settle(w);
}

static int setup(void **state)
{
    struct world *w = sl_alloc(sizeof *w);
    static const struct bus_events events = {.ready = NULL};
    struct sl_fail why = {.text = ""};
    const struct chan_ops *webchat = chan_find(SL_STR("webchat"));
    w->store = memory_store_new(3);
    w->loop = sl_loop_new_virtual(3);
    memory_store_clock(w->store, sl_loop_unix_ms(w->loop));
    const struct bus_config store = {.partitions = 4};
    w->bus = memory_bus_open(w->store, 1, w->loop, &store, &events, w);
    bus_args_init(&w->args);
    static const char yaml[] = "inboxes: {web: {secret: \"sixteen bytes or more\"}}";
    w->cfg = sl_config_load_text(webchat->keys, sl_str_c(yaml), "test", &why);
    assert_non_null(w->cfg);
    w->inbox = (struct gw_inbox){.name = "web", .tenant = "demo"};
    w->inbox.ch = chan_new(webchat, &host, w, w->loop, "web", "demo", w->cfg, &why);
    assert_non_null(w->inbox.ch);
    struct gw_hub_config hub = {.loop = w->loop,
                                .bus = w->bus,
                                .heartbeat_ms = HEARTBEAT_MS,
                                .hello_ms = GW_HELLO_MS,
                                .alive_ms = GW_ALIVE_MS,
                                .command_ms = GW_COMMAND_MS};
    hub.directory = (struct gw_directory){.inbox = find_inbox, .arg = w};
    w->hub = gw_hub_new(&hub);
    settle(w);
    connect_socket(w);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    disconnect(w);
    w->is_store_silent = false;
    settle(w);
    gw_hub_stop(w->hub);
    bus_close(&w->bus);
    settle(w);
    gw_hub_free(&w->hub);
    chan_close(w->inbox.ch);
    run_timers(w);
    chan_free(&w->inbox.ch);
    sl_config_free(&w->cfg);
    memory_store_free(&w->store);
    sl_loop_close(&w->loop);
    bus_args_fini(&w->args);
    free(w);
    return 0;
}

static void value_after(struct world *w, const char *name, char *out, size_t size)
{
    const char *at = strstr(seen(w), name);
    assert_non_null(at);
    at += strlen(name);
    size_t n = strcspn(at, "\"");
    assert_true(n < size);
    memcpy(out, at, n);
    out[n] = '\0';
}

static void hello(struct world *w)
{
    say(w, "{\"t\":\"hello\",\"role\":\"visitor\",\"inbox\":\"web\"}");
    assert_contains(seen(w), "\"t\":\"welcome\"");
    value_after(w, "\"token\":\"", w->token, sizeof w->token);
    value_after(w, "\"session\":\"", w->id, sizeof w->id);
    char address[130];
    value_after(w, "\"address\":\"", address, sizeof address);
    (void)snprintf(w->addr, sizeof w->addr, "demo/web/%s", address);
    (void)snprintf(w->tag, sizeof w->tag, "%u", key_address_partition(sl_str_c(w->addr), 4));
    sl_buf_clear(&w->socket.text);
}

/* Come back as the same visitor in the same session. */
static void hello_again(struct world *w, const char *topics)
{
    char frame[1200];
    disconnect(w);
    connect_socket(w);
    (void)snprintf(frame, sizeof frame,
                   "{\"t\":\"hello\",\"role\":\"visitor\",\"inbox\":\"web\",\"token\":\"%s\",\"resume\":{"
                   "\"session\":\"%s\",\"topics\":{%s}}}",
                   w->token, w->id, topics);
    say(w, frame);
}

static void send_text(struct world *w, unsigned n)
{
    char frame[200];
    (void)snprintf(frame, sizeof frame,
                   "{\"t\":\"cmd\",\"id\":\"c-%u\",\"n\":%u,\"topic\":\"me\",\"k\":\"message.send\",\"d\":{"
                   "\"text\":\"hi\"}}",
                   n, n);
    gw_session_message(w->session, sl_str_c(frame));
}

/* What the router would do: one entry, with or without telling anybody. */
static void write_entry(struct world *w, unsigned n, bool is_told)
{
    char conv[64], key[128], log[128], entry[300], number[16], meta[32], addr[300], json[100], channel[300],
        push[400];
    (void)snprintf(conv, sizeof conv, "%s.01ARZ3NDEKTSV4RRFFQ69G5FAV", w->tag);
    (void)snprintf(key, sizeof key, "conv:{%s}:%s", w->tag, conv);
    (void)snprintf(log, sizeof log, "log:{%s}:%s", w->tag, conv);
    (void)snprintf(meta, sizeof meta, "meta:{%s}", w->tag);
    (void)snprintf(addr, sizeof addr, "addr:{%s}:%s", w->tag, w->addr);
    (void)snprintf(json, sizeof json, "{\"version\":1,\"c\":\"%s\"}", conv);
    (void)snprintf(entry, sizeof entry, "{\"n\":%u,\"v\":%u,\"m\":{\"id\":\"e-%u\",\"conversation\":\"%s\"}}",
                   n, n, n, conv);
    (void)snprintf(number, sizeof number, "%u", n);
    (void)snprintf(channel, sizeof channel, "pv:{%s}:%s", w->tag, w->addr);
    (void)snprintf(push, sizeof push, "e 77 %u - -\n%s", n, entry);
    (void)peek(w, 4, "HSET", meta, "gen", "77");
    (void)peek(w, 4, "HSET", addr, "s", json);
    (void)peek(w, 6, "HSET", key, "n", number, "v", number);
    (void)peek(w, 3, "RPUSH", log, entry);
    if (is_told)
        (void)peek(w, 3, "PUBLISH", channel, push);
    settle(w);
}

static size_t count_of(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at += strlen(what))
        n++;
    return n;
}

/* e-<from> .. e-<to>, once each and in order, and nothing besides. */
static void assert_shown(struct world *w, unsigned from, unsigned to)
{
    const char *at = seen(w);
    char id[32];
    assert_int_equal(count_of(at, "\"t\":\"ev\""), to - from + 1);
    for (unsigned i = from; i <= to; i++) {
        (void)snprintf(id, sizeof id, "\"id\":\"e-%u\"", i);
        at = strstr(at, id);
        assert_non_null(at);
    }
}

static long long in_log(struct world *w)
{
    char in[32];
    (void)snprintf(in, sizeof in, "in:{%s}", w->tag);
    return bus_value_int(peek(w, 2, "XLEN", in));
}

/* ---- cases ---- */

static void test_ack_comes_after_the_store_has_it(void **state)
{
    struct world *w = *state;
    hello(w);
    w->is_store_silent = true;
    send_text(w, 1);
    settle(w);
    assert_int_equal(w->socket.text.len, 0);
    w->is_store_silent = false;
    settle(w);
    assert_string_equal(seen(w), "{\"t\":\"ack\",\"id\":\"c-1\",\"n\":1}\n");
    assert_int_equal(in_log(w), 1);
}

static void test_number_twice_is_one_entry_and_a_gap_names_the_expected_one(void **state)
{
    struct world *w = *state;
    hello(w);
    send_text(w, 1);
    send_text(w, 1);
    send_text(w, 3);
    settle(w);
    assert_int_equal(count_of(seen(w), "\"t\":\"ack\""), 2);
    assert_contains(seen(w), "\"code\":\"EGAP\"");
    assert_contains(seen(w), "\"expect\":2");
    assert_int_equal(in_log(w), 1);
}

static void test_unknown_outcome_is_repeated_in_order_until_it_is_known(void **state)
{
    struct world *w = *state;
    hello(w);
    w->is_store_silent = true;
    send_text(w, 1);
    send_text(w, 2);
    memory_execute(w->store, 0); /* the first is executed, its answer is lost */
    memory_cut(w->store, 1);
    w->is_store_silent = false;
    settle(w);
    send_text(w, 3); /* must not overtake the two */
    pass_ms(w, 2000);
    assert_string_equal(seen(w),
                        "{\"t\":\"ack\",\"id\":\"c-1\",\"n\":1}\n{\"t\":\"ack\",\"id\":\"c-2\",\"n\":2}\n"
                        "{\"t\":\"ack\",\"id\":\"c-3\",\"n\":3}\n");
    assert_int_equal(in_log(w), 3);
}

static void test_push_is_shown_at_once_and_once(void **state)
{
    struct world *w = *state;
    hello(w);
    write_entry(w, 1, true);
    write_entry(w, 2, true);
    assert_shown(w, 1, 2);
}

static void test_gap_in_pushes_is_filled_from_the_log(void **state)
{
    struct world *w = *state;
    hello(w);
    write_entry(w, 1, true);
    write_entry(w, 2, false);
    write_entry(w, 3, false);
    assert_shown(w, 1, 1);
    write_entry(w, 4, true);
    assert_shown(w, 1, 4);
    assert_null(strstr(seen(w), "\"t\":\"gap\""));
}

static void test_lost_last_push_is_found_within_a_heartbeat(void **state)
{
    struct world *w = *state;
    hello(w);
    write_entry(w, 1, true);
    write_entry(w, 2, false);
    assert_shown(w, 1, 1);
    gw_session_alive(w->session);
    pass_ms(w, HEARTBEAT_MS);
    assert_shown(w, 1, 2);
}

static void test_resume_replays_exactly_what_was_missed(void **state)
{
    struct world *w = *state;
    char gen[32], topics[64];
    hello(w);
    send_text(w, 1);
    for (unsigned n = 1; n <= 3; n++)
        write_entry(w, n, true);
    value_after(w, "\"pos\":[\"", gen, sizeof gen);
    for (unsigned n = 4; n <= 200; n++)
        write_entry(w, n, false);
    (void)snprintf(topics, sizeof topics, "\"me\":[\"%s\",3]", gen);
    hello_again(w, topics);
    assert_contains(seen(w), "\"n\":1,\"limits\"");
    assert_contains(seen(w), w->id);
    assert_shown(w, 4, 200);
    assert_null(strstr(seen(w), "\"t\":\"gap\""));
    hello_again(w, "\"me\":[\"12345\",3]"); /* of another generation: all of it */
    assert_shown(w, 1, 200);
    hello_again(w, ""); /* none: the last ones, and it says that there is more */
    assert_shown(w, 101, 200);
    assert_contains(seen(w), "\"t\":\"gap\"");
}

/* The store answers one question at a time until so many events were shown. */
static void answer_until_shown(struct world *w, size_t events)
{
    while (count_of(seen(w), "\"t\":\"ev\"") < events) {
        assert_true(memory_pending_requests(w->store) + memory_pending_replies(w->store, 1) > 0);
        if (memory_pending_replies(w->store, 1) > 0)
            memory_reply(w->store, 1, 0);
        else
            memory_execute(w->store, 0);
        run_timers(w);
    }
}

static void test_store_lost_in_the_middle_of_a_replay_repeats_nothing(void **state)
{
    struct world *w = *state;
    char gen[32], topics[64];
    hello(w);
    send_text(w, 1);
    for (unsigned n = 1; n <= 3; n++)
        write_entry(w, n, true);
    value_after(w, "\"pos\":[\"", gen, sizeof gen);
    for (unsigned n = 4; n <= 200; n++)
        write_entry(w, n, false);
    (void)snprintf(topics, sizeof topics, "\"me\":[\"%s\",3]", gen);
    w->is_store_silent = true;
    hello_again(w, topics);
    answer_until_shown(w, GW_CHUNK_ENTRIES);
    memory_cut(w->store, 1);
    w->is_store_silent = false;
    pass_ms(w, 5000);
    assert_shown(w, 4, 200);
}

static void test_session_of_somebody_else_is_not_resumed(void **state)
{
    struct world *w = *state;
    char id[64];
    hello(w);
    memcpy(id, w->id, sizeof id);
    disconnect(w);
    connect_socket(w);
    hello(w); /* another visitor */
    memcpy(w->id, id, sizeof id);
    hello_again(w, "");
    assert_contains(seen(w), "\"t\":\"welcome\"");
    assert_null(strstr(seen(w), id));
}

static void test_close_codes(void **state)
{
    static const struct {
        const char *frame;
        int code;
    } cases[] = {
        {"{", FRAME_CLOSE_BAD_FRAME},
        {"{\"t\":\"ping\"}", FRAME_CLOSE_AUTH},
        {"{\"t\":\"hello\",\"role\":\"visitor\",\"inbox\":\"none\"}", FRAME_CLOSE_FORBIDDEN},
        {"{\"t\":\"hello\",\"role\":\"visitor\",\"inbox\":\"web\",\"token\":\"v1.a.b.c\"}", FRAME_CLOSE_AUTH},
        {"{\"t\":\"hello\",\"role\":\"agent\",\"token\":\"short\"}", FRAME_CLOSE_AUTH},
    };
    struct world *w = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        say(w, cases[i].frame);
        assert_int_equal(w->socket.code, cases[i].code);
        disconnect(w);
        connect_socket(w);
    }
}

static void test_hello_is_waited_for_five_seconds(void **state)
{
    struct world *w = *state;
    pass_ms(w, GW_HELLO_MS - 1);
    assert_int_equal(w->socket.code, 0);
    pass_ms(w, 1500);
    assert_int_equal(w->socket.code, FRAME_CLOSE_AUTH_TIMEOUT);
}

static void test_silent_socket_is_closed_after_two_unanswered_pings(void **state)
{
    struct world *w = *state;
    hello(w);
    for (unsigned i = 0; i < 4; i++) { /* one that answers stays */
        pass_ms(w, HEARTBEAT_MS);
        gw_session_alive(w->session);
    }
    assert_int_equal(w->socket.code, 0);
    assert_true(w->socket.pings >= 4);
    pass_ms(w, HEARTBEAT_MS * 3 + 1000);
    assert_int_equal(w->socket.code, FRAME_CLOSE_SILENT);
}

static void test_busy_store_is_told_and_never_acknowledged(void **state)
{
    struct world *w = *state;
    hello(w);
    memory_cut(w->store, 1);
    assert_false(bus_is_ready(w->bus));
    send_text(w, 1);
    assert_contains(seen(w), "\"code\":\"EAGAIN\",\"retry\":true");
    pass_ms(w, 3000);
    assert_null(strstr(seen(w), "\"t\":\"ack\""));
    assert_int_equal(in_log(w), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        CASE(test_ack_comes_after_the_store_has_it),
        CASE(test_number_twice_is_one_entry_and_a_gap_names_the_expected_one),
        CASE(test_unknown_outcome_is_repeated_in_order_until_it_is_known),
        CASE(test_push_is_shown_at_once_and_once),
        CASE(test_gap_in_pushes_is_filled_from_the_log),
        CASE(test_lost_last_push_is_found_within_a_heartbeat),
        CASE(test_resume_replays_exactly_what_was_missed),
        CASE(test_store_lost_in_the_middle_of_a_replay_repeats_nothing),
        CASE(test_session_of_somebody_else_is_not_resumed),
        CASE(test_close_codes),
        CASE(test_hello_is_waited_for_five_seconds),
        CASE(test_silent_socket_is_closed_after_two_unanswered_pings),
        CASE(test_busy_store_is_told_and_never_acknowledged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
