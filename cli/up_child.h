/* cli/up_child.h - one supervised child of `sluice up`: started, its log lines prefixed, started again when it dies, ended when told.
 *
 * What     a child runs in a session of its own (a Ctrl-C at the terminal reaches only `up`, which ends its children in order), and
 *          gets TERM from the kernel when `up` itself is killed (cli/child.c).
 * Restart  after 0.1 s, doubling up to 5 s, from the start again after 30 s of life.
 * Owner    up.c; cli_child_free only when it is not running.
 */
#ifndef CLI_UP_CHILD_H
#define CLI_UP_CHILD_H

#include "base/loop.h"

#define CLI_CHILD_STOP_MS 15000 /* from TERM to KILL; roles drain in 10 s */

struct cli_up_child;
struct cli_up_child_spec {
    const char *name;        /* prefix of its log lines */
    const char *const *argv; /* NULL-terminated; copied */
    bool is_quiet;           /* do not print its lines (they are kept: see cli_up_child_last_lines) */
};
enum cli_up_child_event { CLI_CHILD_DIED, CLI_CHILD_STOPPED };
/* DIED: it ended unasked with this code (128 + signal when killed) and will be started again. STOPPED: it ended, or could
 * not be started, after cli_up_child_stop. Never called before start or stop return. */
typedef void (*cli_up_child_fn)(void *arg, struct cli_up_child *c, enum cli_up_child_event what, int code);

struct cli_up_child *cli_up_child_start(struct sl_loop *l, const struct cli_up_child_spec *spec,
                                        cli_up_child_fn fn, void *arg);
void cli_up_child_stop(struct cli_up_child *c);
void cli_up_child_free(struct cli_up_child **c);
const char *cli_up_child_name(const struct cli_up_child *c);
unsigned cli_up_child_starts(const struct cli_up_child *c);
void cli_up_child_print_last(const struct cli_up_child *c); /* its last lines, to stderr */

#endif
