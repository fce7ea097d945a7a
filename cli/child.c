/* cli/child.c - the hidden command `sluice child PARENT PROGRAM ARGS...`: run PROGRAM, and end it when `sluice up` dies.
 *
 * libuv starts programs without a hook in between, so this is the hook: the kernel keeps the parent-death signal across exec
 * (prctl(2), PR_SET_PDEATHSIG). Whoever kills `up` with -9 leaves nothing running.
 */
#include "cli/cli.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

int cli_child(int argc, char **argv)
{
    if (argc < 3)
        return EX_USAGE;
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0)
        return EX_OSERR;
    if (getppid() != (pid_t)strtol(argv[1], NULL, 10))
        return EX_TEMPFAIL; /* it died before we asked */
    execvp(argv[2], argv + 2);
    fprintf(stderr, "sluice: cannot run %s: is it installed?\n", argv[2]);
    return EX_UNAVAILABLE;
}
