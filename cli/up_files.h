/* cli/up_files.h - the run folder of `sluice up`: made, locked, filled, and removed when it was temporary. */
#ifndef CLI_UP_FILES_H
#define CLI_UP_FILES_H

#include "base/error.h"

#define CLI_UP_DIR_MAX_BYTES 88 /* unix(7): a socket's path has at most 107 bytes */

struct cli_up_files {
    char dir[CLI_UP_DIR_MAX_BYTES + 1]; /* absolute */
    bool is_temporary;
    int lock; /* open file; children inherit it, so the folder stays locked until all are gone */
};

/* wanted NULL: a temporary folder. Waits up to 5 s for an earlier `up` on the same folder to end. */
sl_err cli_up_files_open(struct cli_up_files *f, const char *wanted, struct sl_fail *why) SL_MUST_CHECK;
/* Write name into the folder unless it is there already. */
sl_err cli_up_files_put(const struct cli_up_files *f, const char *name, const void *bytes, size_t len,
                        struct sl_fail *why) SL_MUST_CHECK;
sl_err cli_up_files_replace(const struct cli_up_files *f, const char *name, const void *bytes, size_t len,
                            struct sl_fail *why) SL_MUST_CHECK;
void cli_up_files_path(const struct cli_up_files *f, const char *name, char *out, size_t size);
/* A random secret, kept in the folder under name: the same at the next start. out: 44 bytes. */
sl_err cli_up_files_secret(const struct cli_up_files *f, const char *name, char out[64],
                           struct sl_fail *why) SL_MUST_CHECK;
void cli_up_files_close(struct cli_up_files *f, bool keep);

#endif
