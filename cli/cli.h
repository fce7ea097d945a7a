/* cli/cli.h - what the files of the command line share: the table of commands, options, the configuration of every role.
 *
 * What     main.c finds the command; each command is one function in one file. Roles (gateway, router, bot) share run.c.
 * Exits    by sysexits.h: 0 done, 64 wrong usage, 69 store not there, 70 fault of ours, 73/74 files, 78 wrong configuration.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "base/config.h"
#include "bus/bus.h"

#include <sysexits.h>

int cli_gateway(int argc, char **argv);
int cli_router(int argc, char **argv);
int cli_bot(int argc, char **argv);
int cli_up(int argc, char **argv);
int cli_replay(int argc, char **argv);
int cli_record(int argc, char **argv);
int cli_dead(int argc, char **argv);
int cli_lane(int argc, char **argv);
int cli_quarantine(int argc, char **argv);
int cli_config(int argc, char **argv);
int cli_child(int argc, char **argv); /* hidden: how `up` starts what must end with it */

/* Options that every command with a configuration takes. */
struct cli_options {
    const char *config_path; /* NULL: defaults and environment */
    bool only_check, only_print, wants_help;
    int first_rest; /* index in argv of the first argument that is no option */
};
#define CLI_OPTIONS_HELP                                                                                     \
    "  --config FILE       read FILE (YAML); without it: defaults and SLUICE_... variables\n"                \
    "  --set KEY=VALUE     set one key, over file and environment; several are allowed\n"                    \
    "  --log-level LEVEL   error, warn, info or debug\n"                                                     \
    "  --log-format FORM   logfmt or json\n"                                                                 \
    "  --check-config      check the configuration and end\n"                                                \
    "  --print-config      print every key with its value, origin and meaning, and end\n"

/* EX_OK, or EX_USAGE after a line on stderr. --set and --log-... become environment variables, so they also reach a reload. */
int cli_options_parse(int argc, char **argv, struct cli_options *out);
sl_err cli_set(const char *key_equals_value, struct sl_fail *why) SL_MUST_CHECK;

/* Take a flag, or an option with its value, out of argv: what is a command's own. */
bool cli_take_flag(int *argc, char **argv, const char *flag);
const char *cli_take_value(int *argc, char **argv,
                           const char *option); /* NULL: not there; "" : its value is missing */

/* Every key of every role: one file serves them all. NULL with *why. Free with sl_config_free. */
struct sl_config *cli_config_load(const char *path, struct sl_fail *why);
const struct sl_key *cli_keys(void); /* made once, lives as long as the process */
bool cli_has_key(const char *key);
struct bus_config cli_store(const struct sl_config *cfg); /* borrows from cfg */
void cli_log_setup(const char *role, const struct sl_config *cfg);

/* metrics_port.c: GET /metrics and /livez on listen ("127.0.0.1:9100"). SL_EINVAL, or SL_ECONFLICT when it is taken. */
struct cli_metrics_port;
sl_err cli_metrics_open(struct sl_loop *l, const char *listen, struct cli_metrics_port **out,
                        struct sl_fail *why) SL_MUST_CHECK;
void cli_metrics_close(struct cli_metrics_port **p);

/* ---- store.c: a command line's way to the store: ask, wait, answer ---- */
struct cli_session;
/* Connects; waits at most 5 s for it. NULL with *why. */
struct cli_session *cli_session_open(const struct bus_config *store, struct sl_fail *why);
void cli_session_close(struct cli_session **s);
unsigned cli_session_partitions(const struct cli_session *s);
/* Runs one command and waits for its answer, which on_value may look at. */
sl_err cli_session_call(struct cli_session *s, const struct bus_args *args,
                        void (*on_value)(void *arg, const struct bus_value *v), void *arg,
                        struct sl_fail *why) SL_MUST_CHECK;

/* Words of others go to a terminal: control characters are written as \xNN. */
void cli_print_safely(struct sl_str s);

/* Run the loop until nothing is left in it, at most 3 s; then name what is left. false: something is. */
bool cli_loop_finish(uv_loop_t *uv);

#endif
