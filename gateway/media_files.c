/* gateway/media_files.c - attachments in a folder: <dir>/ab/cd/<id>, written whole or not at all. */
#include "gateway/media_priv.h"

#include "base/crypto.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES      1024
#define TEMPORARY_MAX_S 3600 /* what a killed process left behind */

static sl_err failed(struct gw_media_job *j, const char *what, const char *path)
{
    j->err = sl_fail_set(&j->why, errno == ENOENT ? SL_ENOTFOUND : SL_EINTERNAL, errno,
                         "media.dir: cannot %s %s: %s", what, path, strerror(errno));
    return j->err;
}

static void path_of(const struct gw_media_job *j, unsigned levels, char out[PATH_BYTES])
{
    int n;
    if (levels == 1)
        n = snprintf(out, PATH_BYTES, "%s/%.2s", j->dir, j->item.id);
    else if (levels == 2)
        n = snprintf(out, PATH_BYTES, "%s/%.2s/%.2s", j->dir, j->item.id, j->item.id + 2);
    else
        n = snprintf(out, PATH_BYTES, "%s/%.2s/%.2s/%s", j->dir, j->item.id, j->item.id + 2, j->item.id);
    sl_assert(n > 0 && n < PATH_BYTES);
}

static bool write_all(int fd, struct sl_str bytes)
{
    while (bytes.len > 0) {
        ssize_t n = write(fd, bytes.ptr, bytes.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        bytes = sl_str_n(bytes.ptr + n, bytes.len - (size_t)n);
    }
    return true;
}

static bool sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool is_ok = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0)
        (void)close(fd);
    return is_ok;
}

static bool make_folder(const char *path, const char *above)
{
    if (mkdir(path, 0700) == 0)
        return sync_folder(above);
    return errno == EEXIST;
}

static bool write_file(const char *path, struct sl_str bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    bool is_ok = write_all(fd, bytes) && fsync(fd) == 0;
    int saved = errno;
    is_ok = close(fd) == 0 && is_ok;
    if (!is_ok)
        (void)unlink(path);
    errno = is_ok ? 0 : saved;
    return is_ok;
}

void gw_media_files_put(struct gw_media_job *j)
{
    char first[PATH_BYTES], second[PATH_BYTES], path[PATH_BYTES], temporary[PATH_BYTES];
    unsigned char salt[8];
    char hex[17];
    struct stat there;
    path_of(j, 1, first);
    path_of(j, 2, second);
    path_of(j, 3, path);
    if (stat(path, &there) == 0 && there.st_size == j->item.size) {
        (void)utimensat(AT_FDCWD, path, NULL, 0); /* its time begins anew */
        return;
    }
    sl_random_bytes(salt, sizeof salt);
    sl_hex(hex, salt, sizeof salt);
    int n = snprintf(temporary, sizeof temporary, "%s/tmp/%s", j->dir, hex);
    sl_assert(n > 0 && n < PATH_BYTES);
    if (!make_folder(first, j->dir) || !make_folder(second, first))
        (void)failed(j, "make", second);
    else if (!write_file(temporary, sl_buf_view(&j->bytes)))
        (void)failed(j, "write", temporary);
    else if (rename(temporary, path) != 0 || !sync_folder(second))
        (void)failed(j, "rename to", path);
    else
        j->added_bytes = j->item.size;
    if (j->err == SL_ENOTFOUND)
        j->err = j->why.code = SL_EINTERNAL; /* a folder is missing, not the attachment */
}

static bool read_all(int fd, struct sl_buf *out, size_t size)
{
    while (out->len < size) {
        char *room = sl_buf_room(out, size - out->len);
        if (room == NULL)
            return false;
        ssize_t n = read(fd, room, size - out->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        out->len += (size_t)n;
    }
    return true;
}

void gw_media_files_read(struct gw_media_job *j, int64_t max_bytes)
{
    char path[PATH_BYTES];
    struct stat there;
    path_of(j, 3, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        if (errno == ENOENT)
            j->err = sl_fail_set(&j->why, SL_ENOTFOUND, 0, "there is no such attachment (any more)");
        else
            (void)failed(j, "open", path);
        return;
    }
    if (fstat(fd, &there) != 0 || there.st_size > max_bytes) {
        j->err = sl_fail_set(&j->why, SL_ETOOBIG, 0, "the attachment is larger than media.max");
    } else {
        sl_buf_init(&j->bytes, (size_t)there.st_size + 1);
        if (!read_all(fd, &j->bytes, (size_t)there.st_size))
            (void)failed(j, "read", path);
        j->item.size = (int64_t)j->bytes.len;
    }
    (void)close(fd);
}

/* ---- counting, and what is too old ---- */

static void sweep_file(struct gw_media_job *j, const char *folder, const char *name,
                       int64_t older_than_unix_s)
{
    char path[PATH_BYTES];
    struct stat there;
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (n < 0 || n >= PATH_BYTES || lstat(path, &there) != 0 || !S_ISREG(there.st_mode))
        return;
    if (there.st_mtime < older_than_unix_s && unlink(path) == 0) {
        j->gone++;
        return;
    }
    j->kept++;
    j->kept_bytes += there.st_size;
}

static void sweep_folder(struct gw_media_job *j, const char *path, unsigned depth, int64_t older_than_unix_s)
{
    char below[PATH_BYTES];
    DIR *d = opendir(path);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.' || (depth > 0 && strlen(e->d_name) != 2))
            continue;
        if (depth == 0) {
            sweep_file(j, path, e->d_name, older_than_unix_s);
            continue;
        }
        int n = snprintf(below, sizeof below, "%s/%s", path, e->d_name);
        if (n > 0 && n < PATH_BYTES)
            sweep_folder(j, below, depth - 1, older_than_unix_s);
    }
    if (d != NULL)
        (void)closedir(d);
}

void gw_media_files_sweep(struct gw_media_job *j)
{
    char temporary[PATH_BYTES];
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    int n = snprintf(temporary, sizeof temporary, "%s/tmp", j->dir);
    if (n > 0 && n < PATH_BYTES)
        sweep_folder(j, temporary, 0, now.tv_sec - TEMPORARY_MAX_S);
    j->kept = j->kept_bytes = 0;
    sweep_folder(j, j->dir, 2, j->older_than_unix_s);
}

/* ---- start ---- */

static bool read_secret(const char *path, char secret[65])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, secret, 64) : -1;
    if (fd >= 0)
        (void)close(fd);
    secret[64] = '\0';
    return n == 64;
}

/* Two gateways may start at once: whoever links first has made it. */
static bool make_secret(const char *dir, const char *path, char secret[65])
{
    unsigned char random[32], salt[8];
    char hex[17], temporary[PATH_BYTES];
    sl_random_bytes(random, sizeof random);
    sl_random_bytes(salt, sizeof salt);
    sl_hex(secret, random, sizeof random);
    sl_hex(hex, salt, sizeof salt);
    int n = snprintf(temporary, sizeof temporary, "%s/tmp/%s", dir, hex);
    if (n < 0 || n >= PATH_BYTES || !write_file(temporary, sl_str_n(secret, 64)))
        return false;
    bool is_made = link(temporary, path) == 0 || errno == EEXIST;
    (void)unlink(temporary);
    return is_made && read_secret(path, secret);
}

static bool is_folder(const char *path)
{
    return mkdir(path, 0700) == 0 || errno == EEXIST;
}

sl_err gw_media_files_open(const char *dir, char secret[65], struct sl_fail *why)
{
    char temporary[PATH_BYTES], path[PATH_BYTES];
    int n = snprintf(temporary, sizeof temporary, "%s/tmp", dir);
    int m = snprintf(path, sizeof path, "%s/link.secret", dir);
    if (n < 0 || m < 0 || m + 80 > PATH_BYTES)
        return sl_fail_set(why, SL_EINVAL, 0, "media.dir: the path is too long");
    if (!is_folder(dir) || !is_folder(temporary))
        return sl_fail_set(why, SL_EINVAL, errno, "media.dir %s: cannot make it: %s", dir, strerror(errno));
    if (read_secret(path, secret) || make_secret(dir, path, secret))
        return SL_OK;
    return sl_fail_set(why, SL_EINVAL, errno, "%s: cannot read or make it: %s", path, strerror(errno));
}
