#include "cli/up_files.h"

#include "base/crypto.h"
#include "base/loop.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_TRIES    50
#define LOCK_PAUSE_US 100000
#define SECRET_BYTES  32

static sl_err failed(struct sl_fail *why, const char *what, const char *path)
{
    return sl_fail_set(why, SL_EINVAL, errno, "cannot %s %s: %s", what, path, strerror(errno));
}

static sl_err make_temporary(struct cli_up_files *f, struct sl_fail *why)
{
    const char *base = getenv("TMPDIR");
    const int n =
        snprintf(f->dir, sizeof f->dir, "%s/sluice-XXXXXX", base != NULL && base[0] == '/' ? base : "/tmp");
    if (n < 0 || (size_t)n >= sizeof f->dir)
        return sl_fail_set(why, SL_ETOOBIG, 0, "TMPDIR is too long for a socket's path; use --dir");
    f->is_temporary = true;
    return mkdtemp(f->dir) != NULL ? SL_OK : failed(why, "make a folder like", f->dir);
}

static sl_err use_wanted(struct cli_up_files *f, const char *wanted, struct sl_fail *why)
{
    if (mkdir(wanted, 0700) != 0 && errno != EEXIST)
        return failed(why, "make the folder", wanted);
    char *path = realpath(wanted, NULL);
    if (path == NULL)
        return failed(why, "find the folder", wanted);
    const bool fits = strlen(path) <= CLI_UP_DIR_MAX_BYTES;
    if (fits)
        (void)snprintf(f->dir, sizeof f->dir, "%.*s", CLI_UP_DIR_MAX_BYTES, path);
    free(path);
    if (!fits || strpbrk(f->dir, "\"\\\n\r") != NULL)
        return sl_fail_set(why, SL_EINVAL, 0,
                           "--dir: at most %d bytes, without quotes and backslashes: a socket lies in it",
                           CLI_UP_DIR_MAX_BYTES);
    return SL_OK;
}

static sl_err take_lock(struct cli_up_files *f, struct sl_fail *why)
{
    char path[256];
    cli_up_files_path(f, "lock", path, sizeof path);
    f->lock = open(path, O_RDWR | O_CREAT, 0600); /* without O_CLOEXEC: children hold it, too */
    if (f->lock < 0)
        return failed(why, "open", path);
    for (int i = 0; i < LOCK_TRIES; i++) {
        if (flock(f->lock, LOCK_EX | LOCK_NB) == 0)
            return SL_OK;
        usleep(LOCK_PAUSE_US);
    }
    return sl_fail_set(why, SL_ECONFLICT, 0, "%s is in use by another `sluice up`", f->dir);
}

sl_err cli_up_files_open(struct cli_up_files *f, const char *wanted, struct sl_fail *why)
{
    *f = (struct cli_up_files){.lock = -1};
    sl_err err = wanted != NULL ? use_wanted(f, wanted, why) : make_temporary(f, why);
    if (err == SL_OK)
        err = take_lock(f, why);
    if (err != SL_OK)
        cli_up_files_close(f, true);
    return err;
}

void cli_up_files_path(const struct cli_up_files *f, const char *name, char *out, size_t size)
{
    const int n = snprintf(out, size, "%s/%s", f->dir, name);
    sl_assert(n > 0 && (size_t)n < size);
}

static sl_err write_file(const struct cli_up_files *f, const char *name, int flags, const void *bytes,
                         size_t len, struct sl_fail *why)
{
    char path[256];
    cli_up_files_path(f, name, path, sizeof path);
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);
    if (fd < 0)
        return errno == EEXIST ? SL_OK : failed(why, "write", path);
    const bool is_whole = write(fd, bytes, len) == (ssize_t)len;
    return close(fd) == 0 && is_whole ? SL_OK : failed(why, "write", path);
}

sl_err cli_up_files_put(const struct cli_up_files *f, const char *name, const void *bytes, size_t len,
                        struct sl_fail *why)
{
    return write_file(f, name, O_EXCL, bytes, len, why);
}

sl_err cli_up_files_replace(const struct cli_up_files *f, const char *name, const void *bytes, size_t len,
                            struct sl_fail *why)
{
    return write_file(f, name, O_TRUNC, bytes, len, why);
}

sl_err cli_up_files_secret(const struct cli_up_files *f, const char *name, char out[64], struct sl_fail *why)
{
    unsigned char random[SECRET_BYTES];
    char path[256];
    struct sl_buf text;
    sl_random_bytes(random, sizeof random);
    sl_buf_init(&text, 0);
    sl_b64url(&text, sl_str_n((const char *)random, sizeof random));
    const sl_err err = cli_up_files_put(f, name, text.ptr, text.len, why);
    sl_buf_fini(&text);
    if (err != SL_OK)
        return err;
    cli_up_files_path(f, name, path, sizeof path);
    FILE *file = fopen(path, "rbe");
    if (file == NULL)
        return failed(why, "read", path);
    const size_t n = fread(out, 1, 63, file);
    out[n] = '\0';
    fclose(file);
    return n >= 16 ? SL_OK : sl_fail_set(why, SL_EINVAL, 0, "%s is too short for a secret: remove it", path);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    (void)remove(path);
    return 0;
}

void cli_up_files_close(struct cli_up_files *f, bool keep)
{
    if (f->is_temporary && !keep)
        (void)nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    if (f->lock >= 0)
        close(f->lock);
    f->lock = -1;
}
