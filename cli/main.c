/* cli/main.c - `sluice COMMAND`: finds the command and calls it. */
#include "cli/cli.h"

#include <stdio.h>

struct command {
    const char *name;
    int (*fn)(int argc, char **argv);
    const char *help; /* NULL: not shown */
};

static int help(int argc, char **argv);
static int version(int argc, char **argv);

static const struct command commands[] = {
    {"up", cli_up, "start a whole Sluice on this machine, its Redis included; --once plays a scripted story"},
#ifdef CLI_HAS_GATEWAY
    {"gateway", cli_gateway, "role: WebSocket, HTTP and channels on one side, the store on the other"},
#endif
#ifdef CLI_HAS_ROUTER
    {"router", cli_router, "role: owns partitions and decides what happens to each conversation"},
#endif
    {"bot", cli_bot, "role: answers from a file of questions and answers"},
    {"dead", cli_dead, "list, show, retry or drop messages that could not be processed"},
#ifdef CLI_HAS_GATEWAY
    {"lane", cli_lane, "list or show how delivery stands on each inbox"},
    {"quarantine", cli_quarantine, "list, show or drop mails that could not be read"},
#endif
#ifdef CLI_HAS_REPLAY
    {"record", cli_record, "print a partition's logs as `replay` reads them"},
    {"replay", cli_replay, "run a recorded command log again and print what it decides"},
#endif
    {"config", cli_config, "hash-password: make a password hash for the configuration"},
    {"version", version, "print the version"},
    {"help", help, "print this"},
    {"--version", version, NULL},
    {"--help", help, NULL},
    {"-h", help, NULL},
    {"child", cli_child, NULL},
};

static void print_help(FILE *out)
{
    fputs("usage: sluice COMMAND [options]     (sluice COMMAND --help tells more)\n\n", out);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (commands[i].help != NULL)
            fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
    }
}

static int help(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    print_help(stdout);
    return EX_OK;
}

static int version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    puts("sluice " SLUICE_VERSION);
    return EX_OK;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return EX_USAGE;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (sl_str_eq_c(sl_str_c(argv[1]), commands[i].name))
            return commands[i].fn(argc - 1, argv + 1);
    }
    fprintf(stderr, "sluice: there is no command \"%s\"\n\n", argv[1]);
    print_help(stderr);
    return EX_USAGE;
}
