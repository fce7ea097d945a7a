/* cli/replay.c - `sluice replay FILE`: run a recorded command log through step() and print what it decides.
 *
 * FILE     JSON lines, in this order for each partition:
 *            {"partition":"3","kind":"conversation","gen":1700000000000}     kind: conversation, desk or lane; "rules": {...} may stand here
 *            {"in":"<entry id>","e":{event}}                                 what stood in the command log ...
 *            {"in":"<entry id>","f":["t","message","a",...]}                 ... or its stream fields, as XRANGE gives them
 *            {"batch":{"epoch":..,"now":..,"first":"..","last":"..","why":"..","dead":["id"]}}   field b of the fact log
 *          Events stand in log order, and so do batches; a batch may stand before or after its events. Events that no batch names
 *          were not decided yet and are left out.
 * Prints   every record as it stands in field f of the fact log, one a line. Two runs print the same bytes; the same bytes as the
 *          fact log when the recording begins with the partition (invariant I12).
 */
#include "cli/cli.h"

#include "gateway/lane.h"
#include "router/conversation.h"
#include "router/desk.h"
#include "router/rules.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct recorded { /* one event of the command log */
    struct recorded *next;
    char *line;   /* what the event borrows from */
    json_t *hold; /* likewise */
    char *entry;
    struct event event; /* type NONE: it could not be read then, and cannot now */
};

struct batch {
    struct batch *next;
    json_t *root; /* {"batch":{...}} */
};

struct replay {
    FILE *out;
    const char *path;
    size_t line_number;
    const struct part_ops *ops;
    struct state_cache *cache;
    struct effects *fx;
    struct recorded *first, **last;
    struct batch *first_batch, **last_batch;
    struct sl_fail *why;
};

static sl_err fail(struct replay *r, const char *what)
{
    return sl_fail_set(r->why, SL_EINVAL, 0, "%.120s line %zu: %s", r->path, r->line_number, what);
}

/* ---- what waits ---- */

static void drop_event(struct replay *r)
{
    struct recorded *e = r->first;
    r->first = e->next;
    if (r->first == NULL)
        r->last = &r->first;
    json_decref(e->hold);
    free(e->line);
    free(e->entry);
    free(e);
}

static void drop_batch(struct replay *r)
{
    struct batch *b = r->first_batch;
    r->first_batch = b->next;
    if (r->first_batch == NULL)
        r->last_batch = &r->first_batch;
    json_decref(b->root);
    free(b);
}

static void end_partition(struct replay *r)
{
    while (r->first != NULL)
        drop_event(r);
    while (r->first_batch != NULL)
        drop_batch(r);
    effects_free(&r->fx);
    state_cache_free(&r->cache);
    r->ops = NULL;
}

/* ---- running a batch ---- */

static bool is_dead(const json_t *batch, const char *entry)
{
    const json_t *dead = json_object_get(batch, "dead"); /* borrowed */
    for (size_t i = 0; i < json_array_size(dead); i++)
        if (json_is_string(json_array_get(dead, i)) &&
            strcmp(json_string_value(json_array_get(dead, i)), entry) == 0)
            return true;
    return false;
}

static sl_err run_event(struct replay *r, const json_t *batch, struct recorded *e)
{
    const int64_t now_ms = sl_json_get_int(batch, "now", 0);
    enum fx_outcome outcome;
    e->event.entry = sl_str_c(e->entry);
    if (is_dead(batch, e->entry))
        outcome = effects_bury(r->fx, e->event.type == EVENT_NONE ? NULL : r->ops, &e->event,
                               sl_json_get_str(batch, "why"), now_ms);
    else if (e->event.type == EVENT_NONE)
        return fail(r, "an event that cannot be read, and the batch does not name it as dead");
    else
        outcome = effects_run(r->fx, r->ops, &e->event, now_ms);
    return outcome == FX_DONE ? SL_OK : fail(r, "an event of this batch caused more than a batch may hold");
}

static sl_err print_records(struct replay *r)
{
    const struct sl_str *records;
    const size_t count = effects_records(r->fx, &records);
    for (size_t i = 0; i < count; i++)
        if (fwrite(records[i].ptr, 1, records[i].len, r->out) != records[i].len || fputc('\n', r->out) == EOF)
            return sl_fail_set(r->why, SL_EINTERNAL, 0, "cannot write the facts");
    return SL_OK;
}

/* All events up to the batch's last, which is there. */
static sl_err run_batch(struct replay *r)
{
    const json_t *batch = json_object_get(r->first_batch->root, "batch"); /* borrowed */
    const struct sl_str last = sl_json_get_str(batch, "last");
    if (!sl_str_eq_c(sl_json_get_str(batch, "first"), r->first->entry))
        return fail(r, "the next batch does not begin with the next event");
    effects_clear(r->fx);
    effects_set_epoch(r->fx, sl_json_get_int(batch, "epoch", 0));
    for (bool is_last = false; !is_last;) {
        is_last = sl_str_eq_c(last, r->first->entry);
        sl_err err = run_event(r, batch, r->first);
        if (err != SL_OK)
            return err;
        drop_event(r);
    }
    sl_err err = print_records(r);
    effects_written(r->fx);
    effects_clear(r->fx);
    drop_batch(r);
    return err;
}

static bool has_last(const struct replay *r)
{
    if (r->first_batch == NULL)
        return false;
    const struct sl_str last = sl_json_get_str(json_object_get(r->first_batch->root, "batch"), "last");
    for (const struct recorded *e = r->first; e != NULL; e = e->next)
        if (sl_str_eq_c(last, e->entry))
            return true;
    return false;
}

static sl_err run_ready(struct replay *r)
{
    sl_err err = SL_OK;
    while (err == SL_OK && has_last(r))
        err = run_batch(r);
    return err;
}

/* ---- reading lines ---- */

static sl_err begin_partition(struct replay *r, json_t *root)
{
    const struct sl_str tag = sl_json_get_str(root, "partition"), kind = sl_json_get_str(root, "kind");
    char name[KEY_TAG_MAX_BYTES];
    end_partition(r);
    if (tag.len == 0 || tag.len >= sizeof name)
        return fail(r, "\"partition\" must be a partition's tag");
    memcpy(name, tag.ptr, tag.len);
    name[tag.len] = '\0';
    static const struct part_ops *const kinds[] = {&conversation_ops, &desk_ops, &gw_lane_ops};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (sl_str_eq_c(kind, kinds[i]->name))
            r->ops = kinds[i];
    if (r->ops == NULL)
        return fail(r, "\"kind\" must be conversation, desk or lane");
    r->cache = state_cache_new(SIZE_MAX); /* nothing but memory holds the states here */
    r->fx = effects_new(name, r->cache, true);
    effects_set_gen(r->fx, (uint64_t)sl_json_get_int(root, "gen", 0));
    return SL_OK;
}

/* Rules that were in force when the recording began; what that decides is not printed. */
static sl_err begin_rules(struct replay *r, json_t *root)
{
    const json_t *rules = json_object_get(root, "rules"); /* borrowed */
    if (rules == NULL)
        return SL_OK;
    struct sl_buf data;
    struct sl_fail why;
    struct rules checked;
    sl_buf_init(&data, 0);
    sl_json_dump(&data, rules);
    sl_err err = rules_parse(sl_buf_view(&data), &checked, &why);
    if (err == SL_OK) {
        rules_fini(&checked);
        const struct event ev = {.type = EVENT_RULES, .entry = SL_STR("0-1"), .data = sl_buf_view(&data)};
        (void)effects_run(r->fx, r->ops, &ev, 0);
        effects_written(r->fx);
        effects_clear(r->fx);
    } else {
        err = fail(r, why.text);
    }
    sl_buf_fini(&data);
    return err;
}

/* The event's own bytes: data is handed on as it stood, so it must not be parsed and written again. */
static void read_object(struct recorded *e)
{
    const char *at = strstr(e->line, "\"e\":"), *end = strrchr(e->line, '}');
    struct sl_str json = at == NULL || end <= at ? SL_STR_NONE : sl_str_n(at + 4, (size_t)(end - at - 4));
    if (event_from_json(json, &e->event, &e->hold, NULL) == SL_OK)
        return;
    e->event = (struct event){.type = EVENT_NONE}; /* it was dead-lettered for that */
    e->hold = NULL;
}

static void read_fields(struct recorded *e, json_t *root)
{
    struct sl_str items[EVENT_FIELD_COUNT * 2];
    const json_t *list = json_object_get(root, "f"); /* borrowed */
    const size_t count = json_array_size(list);
    for (size_t i = 0; i < count && i < EVENT_FIELD_COUNT * 2; i++)
        items[i] = json_is_string(json_array_get(list, i))
                       ? sl_str_n(json_string_value(json_array_get(list, i)),
                                  json_string_length(json_array_get(list, i)))
                       : SL_STR_NONE;
    if (count > EVENT_FIELD_COUNT * 2 || event_from_fields(items, count, &e->event, NULL) != SL_OK)
        e->event = (struct event){.type = EVENT_NONE};
    e->hold = json_incref(root); /* the event borrows its strings */
}

static sl_err read_event(struct replay *r, json_t *root, const char *line)
{
    if (r->ops == NULL)
        return fail(r, "an event before the line that names the partition");
    struct recorded *e = sl_alloc(sizeof *e);
    e->line = sl_strdup(line);
    e->entry = sl_str_dup(sl_json_get_str(root, "in"));
    *r->last = e;
    r->last = &e->next;
    if (json_object_get(root, "f") != NULL)
        read_fields(e, root);
    else
        read_object(e);
    return SL_OK;
}

static sl_err read_batch(struct replay *r, json_t *root)
{
    const json_t *batch = json_object_get(root, "batch"); /* borrowed */
    if (r->ops == NULL || sl_json_get_str(batch, "last").len == 0)
        return fail(r, "a batch needs a partition before it, and \"now\", \"first\" and \"last\"");
    struct batch *b = sl_alloc(sizeof *b);
    b->root = json_incref(root);
    *r->last_batch = b;
    r->last_batch = &b->next;
    return SL_OK;
}

static sl_err read_line(struct replay *r, const char *line)
{
    struct sl_fail why;
    json_t *root = sl_json_parse(sl_str_c(line), &why); /* owned */
    sl_err err;
    if (root == NULL || !json_is_object(root))
        err = fail(r, root == NULL ? why.text : "not a JSON object");
    else if (json_object_get(root, "partition") != NULL)
        err = begin_partition(r, root) == SL_OK ? begin_rules(r, root) : SL_EINVAL;
    else if (json_object_get(root, "in") != NULL)
        err = read_event(r, root, line);
    else if (json_object_get(root, "batch") != NULL)
        err = read_batch(r, root);
    else
        err = fail(r, "expected \"partition\", \"in\" or \"batch\"");
    json_decref(root);
    return err == SL_OK ? run_ready(r) : err;
}

/* Declared here alone: the command below and its test are its only callers. */
sl_err cli_replay_file(const char *path, FILE *out, struct sl_fail *why) SL_MUST_CHECK;
sl_err cli_replay_file(const char *path, FILE *out, struct sl_fail *why)
{
    struct replay r = {.out = out, .path = path, .why = why};
    FILE *in = strcmp(path, "-") == 0 ? stdin : fopen(path, "r");
    char *line = NULL;
    size_t size = 0;
    ssize_t n;
    sl_err err = SL_OK;
    if (in == NULL)
        return sl_fail_set(why, SL_ENOTFOUND, errno, "cannot open %.120s: %s", path, strerror(errno));
    r.last = &r.first;
    r.last_batch = &r.first_batch;
    while (err == SL_OK && (n = getline(&line, &size, in)) > 0) {
        r.line_number++;
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            line[--n] = '\0';
        if (n > 0)
            err = read_line(&r, line);
    }
    if (err == SL_OK && r.first_batch != NULL)
        err = fail(&r, "the file ends before the last event of a batch");
    end_partition(&r);
    free(line);
    if (in != stdin)
        (void)fclose(in);
    return err;
}

static void usage(FILE *out)
{
    fputs(
        "usage: sluice replay FILE      (- is standard input)\n\n"
        "Runs a recorded command log through the same step() as the router and prints the facts it decides,\n"
        "one a line. cli/replay.c says what stands in FILE.\n",
        out);
}

int cli_replay(int argc, char **argv)
{
    struct sl_fail why = {.code = SL_OK};
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        usage(stdout);
        return EX_OK;
    }
    if (argc != 2) {
        usage(stderr);
        return EX_USAGE;
    }
    if (cli_replay_file(argv[1], stdout, &why) == SL_OK && fflush(stdout) == 0)
        return EX_OK;
    fprintf(stderr, "sluice replay: %s\n", why.text);
    return why.code == SL_ENOTFOUND ? EX_NOINPUT : EX_DATAERR;
}
