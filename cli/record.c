/* cli/record.c - `sluice record`: what `sluice replay` reads, from the logs as they stand in the store.
 *
 * Only a partition whose logs begin at their beginning can be replayed, since what was decided earlier is not in them: one that was
 * trimmed is refused. The recording holds the customers' words.
 */
#include "cli/cli.h"

#include "base/json.h"
#include "proto/keys.h"

#include <stdio.h>
#include <stdlib.h>

#define PAGE 100

struct record {
    struct cli_session *session;
    struct bus_args args;
    struct sl_fail why;
    struct sl_buf line;
    long long gen, length, added;
    size_t page;
    char next[48]; /* XRANGE goes on after this entry */
};
typedef void (*value_fn)(void *arg, const struct bus_value *v);

static void print_line(struct record *r)
{
    (void)fwrite(r->line.ptr, 1, r->line.len, stdout);
    (void)putchar('\n');
    sl_buf_clear(&r->line);
}

static void print_event(struct record *r, struct sl_str entry, const struct bus_value *items)
{
    struct sl_json j;
    sl_json_begin(&j, &r->line);
    sl_json_open(&j, NULL, '{');
    sl_json_str(&j, "in", entry);
    sl_json_open(&j, "f", '[');
    for (size_t i = 0; i < bus_value_count(items); i++)
        sl_json_str(&j, NULL, bus_value_str(bus_value_at(items, i)));
    sl_json_close(&j, ']');
    sl_json_close(&j, '}');
    print_line(r);
}

static void print_batch(struct record *r, const struct bus_value *items)
{
    for (size_t i = 0; i + 1 < bus_value_count(items); i += 2) {
        if (!sl_str_eq_c(bus_value_str(bus_value_at(items, i)), "b"))
            continue;
        sl_buf_c(&r->line, "{\"batch\":");
        sl_buf_str(&r->line, bus_value_str(bus_value_at(items, i + 1)));
        sl_buf_char(&r->line, '}');
        print_line(r);
    }
}

static void turn_page(struct record *r, const struct bus_value *v)
{
    r->page = bus_value_count(v);
    if (r->page == 0)
        return;
    const struct sl_str last = bus_value_str(bus_value_at(bus_value_at(v, r->page - 1), 0));
    (void)snprintf(r->next, sizeof r->next, "(%.*s", (int)last.len, last.ptr);
}

static void on_events(void *arg, const struct bus_value *v)
{
    for (size_t i = 0; i < bus_value_count(v); i++)
        print_event(arg, bus_value_str(bus_value_at(bus_value_at(v, i), 0)),
                    bus_value_at(bus_value_at(v, i), 1));
    turn_page(arg, v);
}

static void on_batches(void *arg, const struct bus_value *v)
{
    for (size_t i = 0; i < bus_value_count(v); i++)
        print_batch(arg, bus_value_at(bus_value_at(v, i), 1));
    turn_page(arg, v);
}

static void on_gen(void *arg, const struct bus_value *v)
{
    ((struct record *)arg)->gen = (long long)bus_value_int(v);
}

static void on_info(void *arg, const struct bus_value *v)
{
    struct record *r = arg;
    for (size_t i = 0; i + 1 < bus_value_count(v); i += 2) {
        const struct sl_str name = bus_value_str(bus_value_at(v, i));
        if (sl_str_eq_c(name, "length"))
            r->length = (long long)bus_value_int(bus_value_at(v, i + 1));
        else if (sl_str_eq_c(name, "entries-added")) /* Redis 7.0 and later */
            r->added = (long long)bus_value_int(bus_value_at(v, i + 1));
    }
}

static sl_err ask(struct record *r, value_fn fn, const char *command, const char *sub, const struct key *key,
                  const char *field)
{
    bus_args_clear(&r->args);
    bus_args_c(&r->args, command);
    if (sub != NULL)
        bus_args_c(&r->args, sub);
    bus_args_key(&r->args, key);
    if (field != NULL)
        bus_args_c(&r->args, field);
    return cli_session_call(r->session, &r->args, fn, r, &r->why);
}

static sl_err print_log(struct record *r, const struct key *log, value_fn fn)
{
    sl_err err;
    (void)snprintf(r->next, sizeof r->next, "-");
    do {
        bus_args_clear(&r->args);
        bus_args_c(&r->args, "XRANGE");
        bus_args_key(&r->args, log);
        bus_args_c(&r->args, r->next);
        bus_args_c(&r->args, "+");
        bus_args_c(&r->args, "COUNT");
        bus_args_int(&r->args, PAGE);
        err = cli_session_call(r->session, &r->args, fn, r, &r->why);
    } while (err == SL_OK && r->page == PAGE);
    return err;
}

/* Nothing of this log was ever cut off. */
static sl_err check_whole(struct record *r, const struct key *log)
{
    r->length = r->added = 0;
    sl_err err = ask(r, on_info, "XINFO", "STREAM", log, NULL);
    if (err == SL_OK && r->added != r->length)
        err = sl_fail_set(&r->why, SL_EINVAL, 0,
                          "%.*s was trimmed: of %lld entries %lld are left, and a replay needs all",
                          (int)log->len, log->ptr, r->added, r->length);
    return err;
}

/* The fact log first: every event of a batch that is read then stands in the command log. Batches are printed before their events. */
static const char *kind_of(const char *tag)
{
    if (strncmp(tag, "desk:", 5) == 0)
        return "desk";
    return strncmp(tag, KEY_LANE_PREFIX, sizeof KEY_LANE_PREFIX - 1) == 0 ? "lane" : "conversation";
}

static sl_err record_partition(struct record *r, const char *tag)
{
    const struct key in = key_in(tag), out = key_out(tag), meta = key_meta(tag);
    sl_err err = check_whole(r, &in);
    if (err == SL_OK)
        err = check_whole(r, &out);
    if (err == SL_OK)
        err = ask(r, on_gen, "HGET", NULL, &meta, "gen");
    if (err != SL_OK)
        return err;
    printf("{\"partition\":\"%s\",\"kind\":\"%s\",\"gen\":%lld}\n", tag, kind_of(tag), r->gen);
    err = print_log(r, &out, on_batches);
    return err == SL_OK ? print_log(r, &in, on_events) : err;
}

static int usage(int code)
{
    fputs("usage: sluice record [options] PARTITION...      (3, desk:TENANT or send:INBOX)\n\n"
          "Prints what `sluice replay` reads. The recording holds the customers' words.\n\n" CLI_OPTIONS_HELP,
          code == EX_OK ? stdout : stderr);
    return code;
}

static bool is_tag(const char *tag)
{
    const bool is_short = strlen(tag) < KEY_TAG_MAX_BYTES;
    const bool has_prefix = strcmp(kind_of(tag), "conversation") != 0; /* both have five bytes */
    return is_short && key_part_ok(sl_str_c(has_prefix ? tag + 5 : tag));
}

static sl_err record_all(struct record *r, int count, char **tags)
{
    sl_err err = SL_OK;
    for (int i = 0; i < count && err == SL_OK; i++)
        err = is_tag(tags[i]) ? record_partition(r, tags[i])
                              : sl_fail_set(&r->why, SL_EINVAL, 0, "no such partition");
    if (err == SL_OK && fflush(stdout) != 0)
        err = sl_fail_set(&r->why, SL_EINTERNAL, 0, "cannot write the recording");
    return err;
}

static int with_store(const struct sl_config *cfg, int count, char **tags)
{
    struct record r = {.session = NULL};
    const struct bus_config store = cli_store(cfg);
    cli_log_setup("record", cfg);
    r.session = cli_session_open(&store, &r.why);
    if (r.session == NULL) {
        fprintf(stderr, "sluice record: store: %s\n", r.why.text);
        return EX_UNAVAILABLE;
    }
    bus_args_init(&r.args);
    sl_buf_init(&r.line, 0);
    const sl_err err = record_all(&r, count, tags);
    sl_buf_fini(&r.line);
    bus_args_fini(&r.args);
    cli_session_close(&r.session);
    if (err != SL_OK)
        fprintf(stderr, "sluice record: %s\n", r.why.text);
    return err == SL_OK ? EX_OK : err == SL_EINVAL ? EX_DATAERR : EX_UNAVAILABLE;
}

int cli_record(int argc, char **argv)
{
    struct cli_options options;
    struct sl_fail why;
    if (cli_options_parse(argc, argv, &options) != EX_OK)
        return EX_USAGE;
    const int count = argc - options.first_rest;
    if (options.wants_help || count == 0)
        return usage(options.wants_help ? EX_OK : EX_USAGE);
    struct sl_config *cfg = cli_config_load(options.config_path, &why);
    if (cfg == NULL) {
        fprintf(stderr, "sluice record: %s\n", why.text);
        return EX_CONFIG;
    }
    const int code = with_store(cfg, count, argv + options.first_rest);
    sl_config_free(&cfg);
    return code;
}
