/* cli/config.c - `sluice config hash-password`: from a password on standard input to what the configuration takes. */
#include "cli/cli.h"

#include "base/crypto.h"

#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define PASSWORD_MAX_BYTES 1024
#define PASSWORD_MIN_BYTES 8

/* Reads one line; at a terminal without showing it. false: nothing was read. */
static bool read_password(char line[PASSWORD_MAX_BYTES + 2])
{
    struct termios before, hidden;
    const bool is_terminal = isatty(STDIN_FILENO) == 1 && tcgetattr(STDIN_FILENO, &before) == 0;
    if (is_terminal) {
        fputs("password: ", stderr);
        hidden = before;
        hidden.c_lflag &= ~(tcflag_t)ECHO;
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden);
    }
    const bool is_read = fgets(line, PASSWORD_MAX_BYTES + 2, stdin) != NULL;
    if (is_terminal) {
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
        fputc('\n', stderr);
    }
    return is_read;
}

static int hash_password(void)
{
    char line[PASSWORD_MAX_BYTES + 2], phc[128];
    if (!read_password(line)) {
        fputs("sluice config: no password on standard input\n", stderr);
        return EX_NOINPUT;
    }
    const struct sl_str password = sl_str_n(line, strcspn(line, "\r\n"));
    if (password.len < PASSWORD_MIN_BYTES || password.len > PASSWORD_MAX_BYTES) {
        fprintf(stderr, "sluice config: a password has %d to %d bytes\n", PASSWORD_MIN_BYTES,
                PASSWORD_MAX_BYTES);
        return EX_DATAERR;
    }
    const sl_err err = sl_password_hash(password, phc);
    explicit_bzero(line, sizeof line);
    if (err != SL_OK) {
        fprintf(stderr, "sluice config: cannot make a hash: %s\n", sl_err_text(err));
        return EX_SOFTWARE;
    }
    puts(phc);
    return EX_OK;
}

int cli_config(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "hash-password") == 0)
        return hash_password();
    const bool wants_help = argc == 2 && strcmp(argv[1], "--help") == 0;
    fputs("usage: sluice config hash-password\n\n"
          "Reads a password from standard input and prints what agents.<id>.password_hash takes.\n",
          wants_help ? stdout : stderr);
    return wants_help ? EX_OK : EX_USAGE;
}
