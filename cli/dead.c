/* cli/dead.c - `sluice dead`: the messages that could not be processed, one stream dead:{k} a partition.
 *
 * A dead letter is named <partition>/<entry id>, as `list` prints it. `retry` puts its event back at the end of the command log with
 * the Function redrive_1; `drop` deletes it. The customer's words are shown only when asked for.
 */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>

#define LIST_PAGE 100
#define NAME_HELP "a dead letter is named PARTITION/ENTRY, as `sluice dead list` prints it"

struct dead {
    struct cli_session *session;
    struct bus_args args;
    struct sl_fail why;
    bool shows_text;
    const char *tag; /* of the partition at hand */
    size_t found, page;
    char next[48]; /* XRANGE goes on after this entry */
};

typedef int (*verb_fn)(struct dead *d, int argc, char **argv);
static int list(struct dead *d, int argc, char **argv);
static int show(struct dead *d, int argc, char **argv);
static int retry(struct dead *d, int argc, char **argv);
static int drop(struct dead *d, int argc, char **argv);

static const struct verb {
    const char *name;
    verb_fn fn;
    bool needs_names;
} verbs[] = {{"list", list, false}, {"show", show, true}, {"retry", retry, true}, {"drop", drop, true}};

static int failed(struct dead *d, const char *what)
{
    fprintf(stderr, "sluice dead: %s: %s\n", what, d->why.text);
    return EX_UNAVAILABLE;
}

static struct sl_str field(const struct bus_value *fields, const char *name)
{
    for (size_t i = 0; i + 1 < bus_value_count(fields); i += 2) {
        if (sl_str_eq_c(bus_value_str(bus_value_at(fields, i)), name))
            return bus_value_str(bus_value_at(fields, i + 1));
    }
    return SL_STR_NONE;
}

/* list */

static void on_page(void *arg, const struct bus_value *v)
{
    struct dead *d = arg;
    d->page = bus_value_count(v);
    for (size_t i = 0; i < d->page; i++) {
        const struct bus_value *entry = bus_value_at(v, i), *fields = bus_value_at(entry, 1);
        const struct sl_str id = bus_value_str(bus_value_at(entry, 0)), type = field(fields, "t");
        const struct sl_str conv = field(fields, "c"), reason = field(fields, "r");
        printf("%s/%.*s  %-14.*s %-32.*s ", d->tag, (int)id.len, id.ptr, (int)type.len, type.ptr,
               (int)conv.len, conv.ptr);
        cli_print_safely(reason);
        putchar('\n');
        (void)snprintf(d->next, sizeof d->next, "(%.*s", (int)id.len, id.ptr);
        d->found++;
    }
}

static sl_err list_partition(struct dead *d, const char *tag)
{
    const struct key key = key_dead(tag);
    sl_err err = SL_OK;
    d->tag = tag;
    (void)snprintf(d->next, sizeof d->next, "-");
    do {
        bus_args_clear(&d->args);
        bus_args_c(&d->args, "XRANGE");
        bus_args_key(&d->args, &key);
        bus_args_c(&d->args, d->next);
        bus_args_c(&d->args, "+");
        bus_args_c(&d->args, "COUNT");
        bus_args_int(&d->args, LIST_PAGE);
        err = cli_session_call(d->session, &d->args, on_page, d, &d->why);
    } while (err == SL_OK && d->page == LIST_PAGE);
    return err;
}

static void keep_tags(void *arg, const struct bus_value *v)
{
    struct sl_buf *tags = arg;
    for (size_t i = 0; i < bus_value_count(v); i++) {
        sl_buf_str(tags, bus_value_str(bus_value_at(v, i)));
        sl_buf_char(tags, '\0');
    }
}

/* Partitions beside the numbered ones: the desks. */
static sl_err list_desks(struct dead *d)
{
    struct sl_buf tags;
    sl_buf_init(&tags, 0);
    bus_args_clear(&d->args);
    bus_args_c(&d->args, "SMEMBERS");
    bus_args_c(&d->args, KEY_EXTRA);
    sl_err err = cli_session_call(d->session, &d->args, keep_tags, &tags, &d->why);
    for (size_t at = 0; err == SL_OK && at < tags.len; at += strlen(tags.ptr + at) + 1)
        err = list_partition(d, tags.ptr + at);
    sl_buf_fini(&tags);
    return err;
}

static int list(struct dead *d, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    sl_err err = SL_OK;
    for (unsigned k = 0; err == SL_OK && k < cli_session_partitions(d->session); k++) {
        char tag[KEY_TAG_MAX_BYTES];
        key_partition_tag(tag, k);
        err = list_partition(d, tag);
    }
    if (err == SL_OK)
        err = list_desks(d);
    if (err != SL_OK)
        return failed(d, "list");
    if (d->found == 0)
        puts("there are no dead letters");
    else
        printf("%zu dead letter%s\n", d->found, d->found == 1 ? "" : "s");
    return EX_OK;
}

/* One by its name. */

/* "17/1700000000000-0" -> tag and entry. */
static bool split_name(const char *name, char tag[KEY_TAG_MAX_BYTES], struct sl_str *entry)
{
    const char *slash = strrchr(name, '/');
    if (slash == NULL || slash == name || slash[1] == '\0' || (size_t)(slash - name) >= KEY_TAG_MAX_BYTES)
        return false;
    memcpy(tag, name, (size_t)(slash - name));
    tag[slash - name] = '\0';
    *entry = sl_str_c(slash + 1);
    return strchr(tag, '{') == NULL && strchr(tag, '}') == NULL &&
           strspn(slash + 1, "0123456789-") == entry->len;
}

/* Calls once for every name; stops at the first that fails. */
static int each_name(struct dead *d, int argc, char **argv,
                     int (*one)(struct dead *, const char *name, const char *tag, struct sl_str entry))
{
    for (int i = 0; i < argc; i++) {
        char tag[KEY_TAG_MAX_BYTES];
        struct sl_str entry;
        if (!split_name(argv[i], tag, &entry)) {
            fprintf(stderr, "sluice dead: \"%s\": %s\n", argv[i], NAME_HELP);
            return EX_USAGE;
        }
        const int code = one(d, argv[i], tag, entry);
        if (code != EX_OK)
            return code;
    }
    return EX_OK;
}

static int not_there(const char *name)
{
    fprintf(stderr, "sluice dead: there is no dead letter %s (list shows what there is)\n", name);
    return EX_DATAERR;
}

static void on_shown(void *arg, const struct bus_value *v)
{
    struct dead *d = arg;
    const struct bus_value *fields = bus_value_at(bus_value_at(v, 0), 1);
    d->page = bus_value_count(v);
    for (size_t i = 0; i + 1 < bus_value_count(fields); i += 2) {
        const struct sl_str name = bus_value_str(bus_value_at(fields, i)),
                            value = bus_value_str(bus_value_at(fields, i + 1));
        const bool is_words = sl_str_eq_c(name, "x") || sl_str_eq_c(name, "d");
        printf("  %-4.*s ", (int)name.len, name.ptr);
        if (is_words && !d->shows_text)
            printf("(%zu bytes; --text shows them)", value.len);
        else
            cli_print_safely(value);
        putchar('\n');
    }
}

static int show_one(struct dead *d, const char *name, const char *tag, struct sl_str entry)
{
    const struct key key = key_dead(tag);
    bus_args_clear(&d->args);
    bus_args_c(&d->args, "XRANGE");
    bus_args_key(&d->args, &key);
    bus_args_str(&d->args, entry);
    bus_args_str(&d->args, entry);
    puts(name);
    if (cli_session_call(d->session, &d->args, on_shown, d, &d->why) != SL_OK)
        return failed(d, "show");
    return d->page == 0 ? not_there(name) : EX_OK;
}

static int show(struct dead *d, int argc, char **argv)
{
    return each_name(d, argc, argv, show_one);
}

static void on_retried(void *arg, const struct bus_value *v)
{
    struct dead *d = arg;
    const struct sl_str entry = bus_value_str(v);
    d->page = sl_str_eq_c(entry, "NONE") ? 0 : 1;
    if (d->page == 1)
        printf("again in the command log as %.*s\n", (int)entry.len, entry.ptr);
}

static int retry_one(struct dead *d, const char *name, const char *tag, struct sl_str entry)
{
    const struct key dead = key_dead(tag), in = key_in(tag);
    bus_args_clear(&d->args);
    bus_args_c(&d->args, "FCALL");
    bus_args_c(&d->args, "redrive_1");
    bus_args_c(&d->args, "2");
    bus_args_key(&d->args, &dead);
    bus_args_key(&d->args, &in);
    bus_args_str(&d->args, entry);
    const sl_err err = cli_session_call(d->session, &d->args, on_retried, d, &d->why);
    if (err != SL_OK && strstr(d->why.text, "NONE") != NULL)
        return not_there(name);
    if (err != SL_OK)
        return failed(d, "retry (its outcome is unknown when the connection was lost: list tells)");
    return d->page == 0 ? not_there(name) : EX_OK;
}

static int retry(struct dead *d, int argc, char **argv)
{
    return each_name(d, argc, argv, retry_one);
}

static void on_dropped(void *arg, const struct bus_value *v)
{
    struct dead *d = arg;
    d->page = (size_t)bus_value_int(v);
}

static int drop_one(struct dead *d, const char *name, const char *tag, struct sl_str entry)
{
    const struct key key = key_dead(tag);
    bus_args_clear(&d->args);
    bus_args_c(&d->args, "XDEL");
    bus_args_key(&d->args, &key);
    bus_args_str(&d->args, entry);
    if (cli_session_call(d->session, &d->args, on_dropped, d, &d->why) != SL_OK)
        return failed(d, "drop");
    if (d->page == 0)
        return not_there(name);
    printf("%s dropped\n", name);
    return EX_OK;
}

static int drop(struct dead *d, int argc, char **argv)
{
    return each_name(d, argc, argv, drop_one);
}

/* The command. */

static int usage(int code)
{
    FILE *out = code == EX_OK ? stdout : stderr;
    fputs("usage: sluice dead list [options]\n"
          "       sluice dead show [--text] [options] NAME...\n"
          "       sluice dead retry [options] NAME...\n"
          "       sluice dead drop [options] NAME...\n\n" NAME_HELP ".\n"
          "show leaves out the customer's words unless --text is given.\n\n" CLI_OPTIONS_HELP,
          out);
    return code;
}

static const struct verb *find_verb(const char *name)
{
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
    }
    return NULL;
}

static int with_store(struct dead *d, const struct verb *verb, const struct sl_config *cfg, int argc,
                      char **argv)
{
    const struct bus_config store = cli_store(cfg);
    cli_log_setup("dead", cfg);
    d->session = cli_session_open(&store, &d->why);
    if (d->session == NULL)
        return failed(d, "store");
    bus_args_init(&d->args);
    const int code = verb->fn(d, argc, argv);
    bus_args_fini(&d->args);
    cli_session_close(&d->session);
    return code;
}

int cli_dead(int argc, char **argv)
{
    const struct verb *verb = argc >= 2 ? find_verb(argv[1]) : NULL;
    if (verb == NULL)
        return usage(argc >= 2 && strcmp(argv[1], "--help") == 0 ? EX_OK : EX_USAGE);
    struct dead d = {.shows_text = cli_take_flag(&argc, argv, "--text")};
    struct cli_options options;
    if (cli_options_parse(argc - 1, argv + 1, &options) != EX_OK)
        return EX_USAGE;
    const int names = argc - 1 - options.first_rest;
    if (options.wants_help || verb->needs_names != (names > 0))
        return usage(options.wants_help ? EX_OK : EX_USAGE);
    struct sl_config *cfg = cli_config_load(options.config_path, &d.why);
    if (cfg == NULL) {
        fprintf(stderr, "sluice dead: %s\n", d.why.text);
        return EX_CONFIG;
    }
    const int code = with_store(&d, verb, cfg, names, argv + 1 + options.first_rest);
    sl_config_free(&cfg);
    return code;
}
