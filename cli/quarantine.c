/* cli/quarantine.c - `sluice quarantine`: the mails that could not be read, a map of each inbox with the bytes in the media store.
 *
 * A mail is named <inbox>/<media id>, as `list` prints it. What it says is shown only when asked for, and never on a terminal. There is
 * no `retry`: the same bytes would be refused for the same reason. Who writes the map: channels/email/email_intake.c.
 */
#include "cli/cli.h"

#include "base/json.h"
#include "gateway/media.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define MAP_NAME     SL_STR("quarantine")
#define FIELD_BYTES  66 /* "f", 64 hex digits, NUL */
#define NAME_HELP    "a mail is named INBOX/ID, as `sluice quarantine list` prints it"
#define RUN_HERE     "run this where the gateway's media.dir or bucket can be read, with its --config"
#define LOOP_WAIT_MS 30000
#define SCAN_COUNT   1000

struct quarantine {
    struct cli_session *session;
    const struct sl_config *cfg;
    struct bus_args args;
    struct key key; /* in args */
    struct sl_fail why;
    bool wants_raw;
    const char *inbox; /* at hand */
    size_t found;
};
struct mail { /* what a name says */
    char inbox[KEY_LANE_INBOX_MAX_BYTES + 1], field[FIELD_BYTES];
};
typedef int (*one_fn)(struct quarantine *q, const char *name, const struct mail *mail);

static int failed(const struct quarantine *q, const char *what)
{
    fprintf(stderr, "sluice quarantine: %s: %s\n", what, q->why.text);
    return EX_UNAVAILABLE;
}

static int not_there(const char *name)
{
    fprintf(stderr, "sluice quarantine: there is no mail %s (list shows what there is)\n", name);
    return EX_DATAERR;
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

static void ask_map(struct quarantine *q, const char *command, const char *inbox, const char *field)
{
    q->key = key_box(inbox, MAP_NAME);
    bus_args_clear(&q->args);
    bus_args_c(&q->args, command);
    bus_args_key(&q->args, &q->key);
    if (field != NULL)
        bus_args_c(&q->args, field);
}

/* list */

static void print_line(struct quarantine *q, struct sl_str id, struct sl_str note)
{
    json_t *root = sl_json_parse(note, NULL); /* owned */
    printf("%s/%.*s  ", q->inbox, (int)id.len, id.ptr);
    print_time(sl_json_get_int(root, "at", 0));
    printf("  %10lld  ", (long long)sl_json_get_int(root, "size", 0));
    cli_print_safely(root != NULL ? sl_json_get_str(root, "reason") : note);
    (void)putchar('\n');
    json_decref(root);
    q->found++;
}

static void on_map(void *arg, const struct bus_value *v)
{
    struct quarantine *q = arg;
    for (size_t i = 0; i + 1 < bus_value_count(v); i += 2) {
        const struct sl_str field = bus_value_str(bus_value_at(v, i));
        if (field.len > 1 && field.ptr[0] == 'f') /* the other fields are the map's own */
            print_line(q, sl_str_n(field.ptr + 1, field.len - 1), bus_value_str(bus_value_at(v, i + 1)));
    }
}

/* Every inbox that has such a map: keys box:{send:<inbox>}:quarantine. SCAN may name one twice. */
#define KEY_BEGIN "box:{" KEY_LANE_PREFIX
#define KEY_END   "}:quarantine"

struct scan {
    struct sl_buf inboxes; /* each with its NUL */
    char cursor[24];
};

static bool is_kept(const struct sl_buf *inboxes, struct sl_str inbox)
{
    for (size_t at = 0; at < inboxes->len; at += strlen(inboxes->ptr + at) + 1)
        if (sl_str_eq_c(inbox, inboxes->ptr + at))
            return true;
    return false;
}

static void on_keys(void *arg, const struct bus_value *v)
{
    struct scan *scan = arg;
    const struct bus_value *keys = bus_value_at(v, 1);
    const struct sl_str cursor = bus_value_str(bus_value_at(v, 0));
    const size_t begin = strlen(KEY_BEGIN), around = begin + strlen(KEY_END);
    (void)snprintf(scan->cursor, sizeof scan->cursor, "%.*s", (int)cursor.len, cursor.ptr);
    for (size_t i = 0; i < bus_value_count(keys); i++) {
        const struct sl_str key = bus_value_str(bus_value_at(keys, i));
        if (key.len <= around || key.len - around > KEY_LANE_INBOX_MAX_BYTES)
            continue;
        const struct sl_str inbox = sl_str_n(key.ptr + begin, key.len - around);
        if (key_part_ok(inbox) && !is_kept(&scan->inboxes, inbox)) {
            sl_buf_str(&scan->inboxes, inbox);
            sl_buf_char(&scan->inboxes, '\0');
        }
    }
}

static sl_err scan_keys(struct quarantine *q, struct scan *scan)
{
    sl_err err = SL_OK;
    (void)snprintf(scan->cursor, sizeof scan->cursor, "0");
    do {
        bus_args_clear(&q->args);
        bus_args_c(&q->args, "SCAN");
        bus_args_c(&q->args, scan->cursor);
        bus_args_c(&q->args, "MATCH");
        bus_args_c(&q->args, KEY_BEGIN "*" KEY_END);
        bus_args_c(&q->args, "COUNT");
        bus_args_int(&q->args, SCAN_COUNT);
        err = cli_session_call(q->session, &q->args, on_keys, scan, &q->why);
    } while (err == SL_OK && strcmp(scan->cursor, "0") != 0);
    return err;
}

static int list(struct quarantine *q)
{
    struct scan scan = {.cursor = ""};
    sl_buf_init(&scan.inboxes, 0);
    sl_err err = scan_keys(q, &scan);
    for (size_t at = 0; err == SL_OK && at < scan.inboxes.len; at += strlen(scan.inboxes.ptr + at) + 1) {
        q->inbox = scan.inboxes.ptr + at;
        ask_map(q, "HGETALL", q->inbox, NULL);
        err = cli_session_call(q->session, &q->args, on_map, q, &q->why);
    }
    sl_buf_fini(&scan.inboxes);
    if (err != SL_OK)
        return failed(q, "list");
    if (q->found == 0)
        puts("no mail is in quarantine");
    else
        printf("%zu mail%s in quarantine\n", q->found, q->found == 1 ? "" : "s");
    return EX_OK;
}

/* show */

static void on_note(void *arg, const struct bus_value *v)
{
    struct quarantine *q = arg;
    const struct sl_str note = bus_value_str(v);
    json_t *root = note.len > 0 ? sl_json_parse(note, NULL) : NULL; /* owned */
    q->found = note.len > 0;
    if (!q->found || q->wants_raw) {
        json_decref(root);
        return;
    }
    printf("  inbox   %s\n  reason  ", q->inbox);
    cli_print_safely(root != NULL ? sl_json_get_str(root, "reason") : note);
    printf("\n  size    %lld bytes\n  since   ", (long long)sl_json_get_int(root, "size", 0));
    print_time(sl_json_get_int(root, "at", 0));
    (void)putchar('\n');
    json_decref(root);
}

struct reading { /* of the media store */
    struct quarantine *q;
    bool is_done;
};

static void on_bytes(void *arg, sl_err err, const struct chan_media *media, struct sl_str bytes,
                     const struct sl_fail *why)
{
    struct reading *r = arg;
    (void)media;
    r->is_done = true;
    if (err != SL_OK)
        r->q->why = *why;
    else if (fwrite(bytes.ptr, 1, bytes.len, stdout) != bytes.len || fflush(stdout) != 0)
        (void)sl_fail_set(&r->q->why, SL_EINTERNAL, errno, "cannot write the mail: %s", strerror(errno));
}

static void on_late(void *arg)
{
    *(bool *)arg = true;
}

/* One read. The folder is not swept: that is the gateways' work, so the store is stopped as soon as the read is under way. */
static void read_bytes(struct quarantine *q, uv_loop_t *uv, struct gw_media *m, struct sl_timer *deadline,
                       const bool *is_late, struct sl_str id, bool is_bucket)
{
    struct reading r = {.q = q};
    const sl_err err = gw_media_read(m, id, on_bytes, &r);
    if (err != SL_OK)
        (void)sl_fail_set(&q->why, err, 0, "media store: %s; " RUN_HERE, sl_err_text(err));
    if (err != SL_OK || !is_bucket)
        gw_media_stop(m);
    sl_timer_start(deadline, LOOP_WAIT_MS);
    while (err == SL_OK && !r.is_done && !*is_late)
        uv_run(uv, UV_RUN_ONCE);
    if (err == SL_OK && is_bucket)
        gw_media_stop(m); /* what is late settles now */
    while (gw_media_jobs(m) > 0)
        uv_run(uv, UV_RUN_ONCE);
    sl_timer_stop(deadline);
}

static int show_raw(struct quarantine *q, const struct mail *mail)
{
    uv_loop_t uv;
    struct sl_timer deadline;
    bool is_late = false;
    sl_assert(uv_loop_init(&uv) == 0);
    struct sl_loop *loop = sl_loop_new(&uv);
    sl_timer_init(&deadline, loop, on_late, &is_late);
    struct gw_media_config media = gw_media_config_of(loop, q->cfg);
    const bool is_bucket = media.s3_endpoint[0] != '\0';
    q->why = (struct sl_fail){.code = SL_OK};
    if (!is_bucket && (media.dir[0] == '\0' || access(media.dir, R_OK) != 0)) {
        (void)sl_fail_set(&q->why, SL_ENOTFOUND, errno, "media.dir \"%s\" cannot be read; " RUN_HERE,
                          media.dir);
    } else {
        struct gw_media *m = gw_media_open(&media, &q->why);
        if (m != NULL)
            read_bytes(q, &uv, m, &deadline, &is_late, sl_str_c(mail->field + 1), is_bucket);
        gw_media_close(&m);
    }
    (void)cli_loop_finish(&uv);
    sl_loop_close(&loop);
    (void)cli_loop_finish(&uv);
    (void)uv_loop_close(&uv);
    return q->why.code == SL_OK ? EX_OK : failed(q, "show --raw");
}

static int show_one(struct quarantine *q, const char *name, const struct mail *mail)
{
    if (!q->wants_raw)
        puts(name);
    q->inbox = mail->inbox;
    ask_map(q, "HGET", mail->inbox, mail->field);
    if (cli_session_call(q->session, &q->args, on_note, q, &q->why) != SL_OK)
        return failed(q, "show");
    if (q->found == 0)
        return not_there(name);
    return q->wants_raw ? show_raw(q, mail) : EX_OK;
}

/* drop */

static void on_dropped(void *arg, const struct bus_value *v)
{
    struct quarantine *q = arg;
    q->found = (size_t)bus_value_int(v);
}

static int drop_one(struct quarantine *q, const char *name, const struct mail *mail)
{
    ask_map(q, "HDEL", mail->inbox, mail->field);
    if (cli_session_call(q->session, &q->args, on_dropped, q, &q->why) != SL_OK)
        return failed(q, "drop");
    if (q->found == 0)
        return not_there(name);
    printf("%s dropped\n", name);
    return EX_OK;
}

/* The command. */

static bool split_name(const char *name, struct mail *out)
{
    const char *slash = strrchr(name, '/');
    const size_t n = slash != NULL ? (size_t)(slash - name) : 0;
    if (n == 0 || n >= sizeof out->inbox || !key_part_ok(sl_str_n(name, n)) ||
        !gw_media_id_ok(sl_str_c(slash + 1)))
        return false;
    memcpy(out->inbox, name, n);
    out->inbox[n] = '\0';
    return snprintf(out->field, sizeof out->field, "f%s", slash + 1) == FIELD_BYTES - 1;
}

/* Once for every name; stops at the first that fails. */
static int each_name(struct quarantine *q, int argc, char **argv, one_fn one)
{
    for (int i = 0; i < argc; i++) {
        struct mail mail;
        if (!split_name(argv[i], &mail)) {
            fprintf(stderr, "sluice quarantine: \"%s\": %s\n", argv[i], NAME_HELP);
            return EX_USAGE;
        }
        const int code = one(q, argv[i], &mail);
        if (code != EX_OK)
            return code;
    }
    return EX_OK;
}

static int usage(int code)
{
    fputs("usage: sluice quarantine list [options]\n"
          "       sluice quarantine show [options] NAME...\n"
          "       sluice quarantine show --raw [options] NAME > mail.eml\n"
          "       sluice quarantine drop [options] NAME...\n\n" NAME_HELP ".\n"
          "show prints inbox, reason, size and time; --raw the mail itself, to a file or a pipe.\n"
          "drop forgets a mail; its bytes stay in the media store until media.keep is "
          "over.\n\n" CLI_OPTIONS_HELP,
          code == EX_OK ? stdout : stderr);
    return code;
}

static int with_store(struct quarantine *q, one_fn one, int argc, char **argv)
{
    const struct bus_config store = cli_store(q->cfg);
    cli_log_setup("quarantine", q->cfg);
    q->session = cli_session_open(&store, &q->why);
    if (q->session == NULL)
        return failed(q, "store");
    bus_args_init(&q->args);
    const int code = one == NULL ? list(q) : each_name(q, argc, argv, one);
    bus_args_fini(&q->args);
    cli_session_close(&q->session);
    return code;
}

/* NULL with *is_verb: list, which takes no names. */
static one_fn verb_of(const char *word, bool *is_verb)
{
    const bool is_show = strcmp(word, "show") == 0, is_drop = strcmp(word, "drop") == 0;
    *is_verb = is_show || is_drop || strcmp(word, "list") == 0;
    return is_show ? show_one : is_drop ? drop_one : NULL;
}

int cli_quarantine(int argc, char **argv)
{
    bool is_verb = false;
    const one_fn one = argc >= 2 ? verb_of(argv[1], &is_verb) : NULL;
    if (!is_verb)
        return usage(argc >= 2 && strcmp(argv[1], "--help") == 0 ? EX_OK : EX_USAGE);
    struct quarantine q = {.wants_raw = cli_take_flag(&argc, argv, "--raw")};
    struct cli_options options;
    if (cli_options_parse(argc - 1, argv + 1, &options) != EX_OK)
        return EX_USAGE;
    const int names = argc - 1 - options.first_rest;
    const bool is_raw_wrong = q.wants_raw && (one != show_one || names != 1);
    if (options.wants_help || (one != NULL) != (names > 0) || is_raw_wrong)
        return usage(options.wants_help ? EX_OK : EX_USAGE);
    if (q.wants_raw && isatty(STDOUT_FILENO)) { /* a stranger's bytes could command a terminal */
        fputs("sluice quarantine: --raw writes to a file or a pipe: add `> mail.eml`\n", stderr);
        return EX_USAGE;
    }
    struct sl_config *cfg = cli_config_load(options.config_path, &q.why);
    if (cfg == NULL) {
        fprintf(stderr, "sluice quarantine: %s\n", q.why.text);
        return EX_CONFIG;
    }
    q.cfg = cfg;
    const int code = with_store(&q, one, names, argv + 1 + options.first_rest);
    sl_config_free(&cfg);
    return code;
}
