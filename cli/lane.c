/* cli/lane.c - `sluice lane`: how delivery stands on each inbox, read from the store; nothing is changed.
 *
 * A lane is known by its inbox. What is shown is the state that its owner last committed: no gateway is asked, so it also tells of a lane
 * that nobody owns. Customers' words are not in it.
 */
#include "cli/cli.h"

#include "gateway/lane.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BACKLOG_MAX 1000 /* entries of the log that are counted */

struct lanes {
    struct cli_session *session;
    struct bus_args args;
    struct key key; /* in args */
    struct sl_fail why;
    int64_t now_unix_ms; /* the store's */
    size_t count, cap;
    char (*tag)[KEY_TAG_MAX_BYTES];
};
struct view { /* one lane */
    struct gw_lane l;
    bool is_there;
    char run[40], offset[48];
    int64_t until_ms, epoch;
    size_t backlog; /* read by nobody yet */
};

static int failed(const struct lanes *q, const char *what)
{
    fprintf(stderr, "sluice lane: %s: %s\n", what, q->why.text);
    return EX_UNAVAILABLE;
}

static void copy(char *out, size_t size, struct sl_str s)
{
    (void)snprintf(out, size, "%.*s", (int)s.len, s.len > 0 ? s.ptr : "");
}

static sl_err call(struct lanes *q, void (*fn)(void *, const struct bus_value *), void *arg)
{
    return cli_session_call(q->session, &q->args, fn, arg, &q->why);
}

/* ---- reading ---- */

static void on_tags(void *arg, const struct bus_value *v)
{
    struct lanes *q = arg;
    for (size_t i = 0; i < bus_value_count(v); i++) {
        struct sl_str tag = bus_value_str(bus_value_at(v, i));
        if (!sl_str_starts(tag, KEY_LANE_PREFIX) || tag.len >= KEY_TAG_MAX_BYTES)
            continue;
        if (q->count == q->cap) {
            q->cap = q->cap == 0 ? 16 : 2 * q->cap;
            q->tag = sl_realloc(q->tag, q->cap * sizeof *q->tag);
        }
        copy(q->tag[q->count++], KEY_TAG_MAX_BYTES, tag);
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void on_time(void *arg, const struct bus_value *v)
{
    *(int64_t *)arg = bus_value_int(bus_value_at(v, 0)) * 1000 + bus_value_int(bus_value_at(v, 1)) / 1000;
}

static sl_err find_lanes(struct lanes *q)
{
    bus_args_clear(&q->args);
    bus_args_c(&q->args, "SMEMBERS");
    bus_args_c(&q->args, KEY_EXTRA);
    sl_err err = call(q, on_tags, q);
    bus_args_clear(&q->args);
    bus_args_c(&q->args, "TIME");
    if (err == SL_OK)
        err = call(q, on_time, &q->now_unix_ms);
    if (err == SL_OK && q->count > 1)
        qsort(q->tag, q->count, sizeof *q->tag, by_name);
    return err;
}

static void on_meta(void *arg, const struct bus_value *v)
{
    struct view *w = arg;
    copy(w->run, sizeof w->run, bus_value_str(bus_value_at(v, 0)));
    w->until_ms = bus_value_int(bus_value_at(v, 1));
    w->epoch = bus_value_int(bus_value_at(v, 2));
    copy(w->offset, sizeof w->offset, bus_value_str(bus_value_at(v, 3)));
}

static void on_state(void *arg, const struct bus_value *v)
{
    struct view *w = arg;
    struct sl_str json = bus_value_str(v);
    w->is_there = json.len > 0 && gw_lane_kind.decode(&w->l.s, json) == SL_OK;
}

static void on_backlog(void *arg, const struct bus_value *v)
{
    ((struct view *)arg)->backlog = bus_value_count(v);
}

/* view_fini() it in any case. */
static sl_err read_lane(struct lanes *q, const char *tag, struct view *w)
{
    static const char *const fields[] = {"run", "until", "epoch", "offset"};
    char after[64];
    *w = (struct view){.is_there = false};
    q->key = key_meta(tag);
    bus_args_clear(&q->args);
    bus_args_c(&q->args, "HMGET");
    bus_args_key(&q->args, &q->key);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        bus_args_c(&q->args, fields[i]);
    sl_err err = call(q, on_meta, w);
    if (err != SL_OK)
        return err;
    q->key = key_state(gw_lane_kind.prefix, tag, LANE_ID);
    bus_args_clear(&q->args);
    bus_args_c(&q->args, "HGET");
    bus_args_key(&q->args, &q->key);
    bus_args_c(&q->args, "s");
    err = call(q, on_state, w);
    if (err != SL_OK)
        return err;
    (void)snprintf(after, sizeof after, "(%s", w->offset);
    q->key = key_in(tag);
    bus_args_clear(&q->args);
    bus_args_c(&q->args, "XRANGE");
    bus_args_key(&q->args, &q->key);
    bus_args_c(&q->args, w->offset[0] != '\0' ? after : "-");
    bus_args_c(&q->args, "+");
    bus_args_c(&q->args, "COUNT");
    bus_args_int(&q->args, BACKLOG_MAX);
    return call(q, on_backlog, w);
}

static void view_fini(struct view *w)
{
    gw_lane_kind.fini(&w->l.s);
}

/* ---- printing ---- */

static const char *owner_of(const struct lanes *q, const struct view *w)
{
    return w->run[0] == '\0' || w->until_ms <= q->now_unix_ms ? "-" : w->run;
}

static const char *breaker_of(const struct gw_lane *l)
{
    return l->breaker == LANE_CLOSED ? "closed" : l->breaker == LANE_OPEN ? "open" : "probing";
}

static void print_time(int64_t unix_ms)
{
    const time_t at = (time_t)(unix_ms / 1000);
    char text[32];
    struct tm utc;
    if (gmtime_r(&at, &utc) == NULL || strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
        (void)snprintf(text, sizeof text, "?");
    fputs(text, stdout);
}

static void print_error(const struct gw_lane *l)
{
    if (l->error_ms == 0) {
        putchar('-');
        return;
    }
    print_time(l->error_ms);
    putchar(' ');
    cli_print_safely(gw_lane_str(l->error_code));
    putchar(' ');
    cli_print_safely(gw_lane_str(l->error_words));
}

static void print_row(const struct lanes *q, const char *tag, const struct view *w)
{
    const struct gw_lane *l = &w->l;
    printf("%-20s %-26s %14" PRId64 " %8" PRId64 " %6" PRId64 " %9zu %7zu  %-7s  ",
           tag + sizeof KEY_LANE_PREFIX - 1, owner_of(q, w), w->epoch, l->replies, l->bulk, l->flying_count,
           w->backlog, w->is_there ? breaker_of(l) : "-");
    print_error(l);
    putchar('\n');
}

static int list(struct lanes *q)
{
    if (find_lanes(q) != SL_OK)
        return failed(q, "list");
    if (q->count == 0) {
        puts("there are no lanes: no gateway with an inbox that sends has run on this store");
        return EX_OK;
    }
    printf("%-20s %-26s %14s %8s %6s %9s %7s  %-7s  %s\n", "INBOX", "OWNER", "EPOCH", "REPLIES", "BULK",
           "IN-FLIGHT", "UNREAD", "BREAKER", "LAST ERROR");
    for (size_t i = 0; i < q->count; i++) {
        struct view w;
        sl_err err = read_lane(q, q->tag[i], &w);
        if (err == SL_OK)
            print_row(q, q->tag[i], &w);
        view_fini(&w);
        if (err != SL_OK)
            return failed(q, "list");
    }
    return EX_OK;
}

/* What a person can do about it, the most urgent first. */
static const char *advice_of(const struct lanes *q, const struct view *w)
{
    const struct gw_lane *l = &w->l;
    if (strcmp(owner_of(q, w), "-") == 0)
        return "no gateway owns it: start one whose configuration has this inbox";
    if (l->breaker != LANE_CLOSED)
        return "many sends in a row failed: mend what the last error names; one message tries again by "
               "itself";
    if (l->idle_ms >= LANE_IDLE_MAX_MS)
        return "its adapter takes nothing: is the provider reachable, is the login right? The gateway's log "
               "says";
    if (l->pause_ms > q->now_unix_ms)
        return "the account pauses, as the last error says; it goes on by itself";
    if (w->backlog >= BACKLOG_MAX)
        return "its owner does not keep up with its log: look at that gateway's CPU and at the store's "
               "latency";
    return NULL;
}

static void print_number(const char *name, int64_t n)
{
    printf("  %-12s %" PRId64 "\n", name, n);
}

static void print_lane(const struct lanes *q, const char *tag, const struct view *w)
{
    static const char *const policies[] = {"at_most_once", "at_least_once", "idempotent", "queryable"};
    const struct gw_lane *l = &w->l;
    const char *advice = advice_of(q, w);
    printf("%s\n  %-12s %s\n", tag + sizeof KEY_LANE_PREFIX - 1, "owner", owner_of(q, w));
    print_number("epoch", w->epoch);
    printf("  %-12s %zu%s\n", "unread", w->backlog, w->backlog >= BACKLOG_MAX ? " or more" : "");
    print_number("unsent", l->queued);
    print_number("replies", l->replies);
    print_number("bulk", l->bulk);
    print_number("in flight", (int64_t)l->flying_count);
    printf("  %-12s %s\n", "breaker", breaker_of(l));
    if (l->pause_ms > q->now_unix_ms)
        print_number("pause ms", l->pause_ms - q->now_unix_ms);
    if (l->policy >= LANE_AT_MOST_ONCE && l->policy <= LANE_QUERYABLE)
        printf("  %-12s %s\n", "if unknown", policies[l->policy]);
    print_number("rate/s", l->rate_per_s);
    print_number("window", l->window);
    print_number("sent", l->sent);
    print_number("delivered", l->delivered);
    print_number("read", l->read);
    print_number("failed", l->failed);
    print_number("unknown", l->unknown);
    print_number("retried", l->retried);
    printf("  %-12s ", "last error");
    print_error(l);
    putchar('\n');
    if (advice != NULL)
        printf("  %-12s %s\n", "to do", advice);
}

static int show_one(struct lanes *q, const char *inbox)
{
    char tag[KEY_TAG_MAX_BYTES];
    struct view w;
    bool is_known = false;
    key_lane_tag(tag, sl_str_c(inbox));
    for (size_t i = 0; i < q->count; i++)
        is_known = is_known || strcmp(q->tag[i], tag) == 0;
    if (!is_known) {
        fprintf(stderr, "sluice lane: there is no lane of an inbox %s (list shows what there is)\n", inbox);
        return EX_DATAERR;
    }
    sl_err err = read_lane(q, tag, &w);
    if (err == SL_OK)
        print_lane(q, tag, &w);
    view_fini(&w);
    return err == SL_OK ? EX_OK : failed(q, "show");
}

static int show(struct lanes *q, int argc, char **argv)
{
    int code = find_lanes(q) == SL_OK ? EX_OK : failed(q, "show");
    for (int i = 0; i < argc && code == EX_OK; i++) {
        bool is_name = strlen(argv[i]) <= KEY_LANE_INBOX_MAX_BYTES && key_part_ok(sl_str_c(argv[i]));
        if (!is_name)
            fprintf(stderr, "sluice lane: \"%s\" is no name of an inbox\n", argv[i]);
        code = is_name ? show_one(q, argv[i]) : EX_USAGE;
    }
    return code;
}

/* ---- the command ---- */

static int usage(int code)
{
    fputs("usage: sluice lane list [options]\n"
          "       sluice lane show [options] INBOX...\n\n"
          "How delivery stands on each inbox: who owns it (a gateway's run, as its log says), what waits, "
          "what is in flight, the\n"
          "breaker, the last error of the account or the way to its provider, and what to do. Nothing is "
          "changed.\n\n" CLI_OPTIONS_HELP,
          code == EX_OK ? stdout : stderr);
    return code;
}

static int with_store(struct lanes *q, const struct sl_config *cfg, int argc, char **argv)
{
    const struct bus_config store = cli_store(cfg);
    cli_log_setup("lane", cfg);
    q->session = cli_session_open(&store, &q->why);
    if (q->session == NULL)
        return failed(q, "store");
    bus_args_init(&q->args);
    const int code = argc > 0 ? show(q, argc, argv) : list(q);
    bus_args_fini(&q->args);
    cli_session_close(&q->session);
    free(q->tag);
    return code;
}

int cli_lane(int argc, char **argv)
{
    const bool is_show = argc >= 2 && strcmp(argv[1], "show") == 0;
    struct lanes q = {.count = 0};
    struct cli_options options;
    if (!is_show && (argc < 2 || strcmp(argv[1], "list") != 0))
        return usage(argc >= 2 && strcmp(argv[1], "--help") == 0 ? EX_OK : EX_USAGE);
    if (cli_options_parse(argc - 1, argv + 1, &options) != EX_OK)
        return EX_USAGE;
    const int names = argc - 1 - options.first_rest;
    if (options.wants_help || is_show != (names > 0))
        return usage(options.wants_help ? EX_OK : EX_USAGE);
    struct sl_config *cfg = cli_config_load(options.config_path, &q.why);
    if (cfg == NULL) {
        fprintf(stderr, "sluice lane: %s\n", q.why.text);
        return EX_CONFIG;
    }
    const int code = with_store(&q, cfg, names, argv + 1 + options.first_rest);
    sl_config_free(&cfg);
    return code;
}
