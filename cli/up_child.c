#include "cli/up_child.h"

#include "base/log.h"
#include "base/str.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define SETTLED_MS     30000
#define LINE_MAX_BYTES 8192
#define LAST_MAX_BYTES 4096

struct cli_up_child {
    struct sl_loop *loop;
    char *name, **argv;
    bool is_quiet, is_stopping;
    uv_process_t process;
    uv_pipe_t out;         /* its stdout and stderr */
    unsigned open_handles; /* of the present life; 0: not running */
    int code;
    unsigned starts;
    uint64_t backoff_ms, started_mono_ms;
    struct sl_timer again, kill;
    struct sl_post stopped;
    struct sl_buf line, last;
    char chunk[4096];
    cli_up_child_fn fn;
    void *arg;
};

/* Its output. */

static void keep_last(struct cli_up_child *c)
{
    if (c->last.len + c->line.len + 1 > LAST_MAX_BYTES)
        sl_buf_cut(&c->last, c->last.len / 2);
    sl_buf_str(&c->last, sl_buf_view(&c->line));
    sl_buf_char(&c->last, '\n');
}

static void end_line(struct cli_up_child *c)
{
    if (!c->is_quiet)
        fprintf(stderr, "%-7s | %.*s\n", c->name, (int)c->line.len, c->line.ptr == NULL ? "" : c->line.ptr);
    keep_last(c);
    sl_buf_clear(&c->line);
    c->line.overflow = false;
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *out)
{
    struct cli_up_child *c = h->data;
    (void)suggested;
    *out = uv_buf_init(c->chunk, sizeof c->chunk);
}

/* The last handle of a life is closed: start again, or say that it has ended. */
static void life_over(struct cli_up_child *c)
{
    if (c->line.len > 0)
        end_line(c);
    sl_timer_stop(&c->kill);
    if (c->is_stopping) {
        sl_post_now(&c->stopped);
        return;
    }
    const uint64_t lived_ms = sl_loop_mono_ms(c->loop) - c->started_mono_ms;
    c->backoff_ms = lived_ms > SETTLED_MS || c->backoff_ms == 0 ? BACKOFF_MIN_MS : c->backoff_ms * 2;
    if (c->backoff_ms > BACKOFF_MAX_MS)
        c->backoff_ms = BACKOFF_MAX_MS;
    sl_log(SL_WARN, "a child ended and is started again", SL_KV("child", c->name), SL_KV_I("code", c->code),
           SL_KV_I("after_ms", c->backoff_ms));
    sl_timer_start(&c->again, c->backoff_ms);
    c->fn(c->arg, c, CLI_CHILD_DIED, c->code);
}

static void on_handle_closed(uv_handle_t *h)
{
    struct cli_up_child *c = h->data;
    sl_assert(c->open_handles > 0);
    if (--c->open_handles == 0)
        life_over(c);
}

static void on_output(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct cli_up_child *c = stream->data;
    for (ssize_t i = 0; i < n; i++) {
        if (buf->base[i] == '\n')
            end_line(c);
        else
            sl_buf_char(&c->line, buf->base[i]);
    }
    if (n < 0 && !uv_is_closing((uv_handle_t *)stream))
        uv_close((uv_handle_t *)stream, on_handle_closed);
}

static void on_process_exit(uv_process_t *p, int64_t status, int signal_number)
{
    struct cli_up_child *c = p->data;
    c->code = signal_number != 0 ? 128 + signal_number : (int)status;
    uv_close((uv_handle_t *)p, on_handle_closed);
    /* A grandchild may hold the pipe open: what it says is not ours. */
    if (!uv_is_closing((uv_handle_t *)&c->out)) {
        uv_read_stop((uv_stream_t *)&c->out);
        ssize_t n;
        uv_os_fd_t fd;
        if (uv_fileno((uv_handle_t *)&c->out, &fd) == 0) {
            while ((n = read(fd, c->chunk, sizeof c->chunk)) > 0) { /* non-blocking: what is there already */
                const uv_buf_t rest = uv_buf_init(c->chunk, (unsigned)n);
                on_output((uv_stream_t *)&c->out, n, &rest);
            }
        }
        uv_close((uv_handle_t *)&c->out, on_handle_closed);
    }
}

/* Its life. */

static void on_kill(void *arg)
{
    struct cli_up_child *c = arg;
    sl_log(SL_WARN, "a child did not end in time and is killed", SL_KV("child", c->name));
    (void)uv_process_kill(&c->process, SIGKILL);
}

static void run(struct cli_up_child *c)
{
    uv_stdio_container_t stdio[3] = {{.flags = UV_IGNORE}};
    const uv_process_options_t options = {
        .file = c->argv[0],
        .args = c->argv,
        .exit_cb = on_process_exit,
        .stdio = stdio,
        .stdio_count = 3,
        .flags = UV_PROCESS_DETACHED, /* a session of its own */
    };
    sl_assert(uv_pipe_init(sl_loop_uv(c->loop), &c->out, 0) == 0);
    c->out.data = c->process.data = c;
    int ends[2];
    sl_assert(uv_pipe(ends, UV_NONBLOCK_PIPE, 0) == 0);
    sl_assert(uv_pipe_open(&c->out, ends[0]) == 0);
    stdio[1] = stdio[2] = (uv_stdio_container_t){.flags = UV_INHERIT_FD, .data.fd = ends[1]};
    const int error = uv_spawn(sl_loop_uv(c->loop), &c->process, &options);
    close(ends[1]);
    c->starts++;
    c->started_mono_ms = sl_loop_mono_ms(c->loop);
    c->open_handles = 2;
    (void)uv_read_start((uv_stream_t *)&c->out, on_alloc, on_output);
    if (error == 0)
        return;
    c->code = EXIT_FAILURE;
    sl_log(SL_ERROR, "a child cannot be started", SL_KV("child", c->name), SL_KV("why", uv_strerror(error)));
    uv_close((uv_handle_t *)&c->process, on_handle_closed);
    uv_close((uv_handle_t *)&c->out, on_handle_closed);
}

static void on_again(void *arg)
{
    run(arg);
}

static void on_stopped_turn(void *arg)
{
    struct cli_up_child *c = arg;
    c->fn(c->arg, c, CLI_CHILD_STOPPED, c->code);
}

static char **copy_arguments(const char *const *argv)
{
    size_t n = 0;
    while (argv[n] != NULL)
        n++;
    char **copy = sl_alloc((n + 1) * sizeof *copy);
    for (size_t i = 0; i < n; i++)
        copy[i] = sl_strdup(argv[i]);
    return copy;
}

struct cli_up_child *cli_up_child_start(struct sl_loop *l, const struct cli_up_child_spec *spec,
                                        cli_up_child_fn fn, void *arg)
{
    struct cli_up_child *c = sl_alloc(sizeof *c);
    c->loop = l;
    c->name = sl_strdup(spec->name);
    c->argv = copy_arguments(spec->argv);
    c->is_quiet = spec->is_quiet;
    c->fn = fn;
    c->arg = arg;
    sl_buf_init(&c->line, LINE_MAX_BYTES);
    sl_buf_init(&c->last, LAST_MAX_BYTES * 2 + LINE_MAX_BYTES);
    sl_timer_init(&c->again, l, on_again, c);
    sl_timer_init(&c->kill, l, on_kill, c);
    sl_post_init(&c->stopped, l, on_stopped_turn, c);
    run(c);
    return c;
}

void cli_up_child_stop(struct cli_up_child *c)
{
    if (c->is_stopping)
        return;
    c->is_stopping = true;
    sl_timer_stop(&c->again);
    if (c->open_handles == 0) {
        sl_post_now(&c->stopped);
        return;
    }
    if (uv_is_active((uv_handle_t *)&c->process))
        (void)uv_process_kill(&c->process, SIGTERM);
    sl_timer_start(&c->kill, CLI_CHILD_STOP_MS);
}

void cli_up_child_free(struct cli_up_child **cp)
{
    struct cli_up_child *c = *cp;
    *cp = NULL;
    if (c == NULL)
        return;
    sl_assert(c->open_handles == 0);
    sl_timer_stop(&c->again);
    sl_timer_stop(&c->kill);
    sl_post_cancel(&c->stopped);
    for (char **a = c->argv; *a != NULL; a++)
        free(*a);
    free(c->argv);
    free(c->name);
    sl_buf_fini(&c->line);
    sl_buf_fini(&c->last);
    free(c);
}

const char *cli_up_child_name(const struct cli_up_child *c)
{
    return c->name;
}

unsigned cli_up_child_starts(const struct cli_up_child *c)
{
    return c->starts;
}

void cli_up_child_print_last(const struct cli_up_child *c)
{
    if (c->last.len > 0)
        fprintf(stderr, "last lines of %s:\n%.*s", c->name, (int)c->last.len, c->last.ptr);
}
