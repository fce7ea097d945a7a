/* tests/unit/golden.h - the golden files of tests/vectors/proto, for the tests of proto/. */
#ifndef TESTS_UNIT_GOLDEN_H
#define TESTS_UNIT_GOLDEN_H

#include "base/str.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#define GOLDEN_FOLDER SL_SOURCE_ROOT "/tests/vectors/proto/"
#define GOLDEN_MAX    400

struct golden {
    char name[256]; /* without folder */
    struct sl_buf bytes;
    struct sl_str text; /* of .json files without the newline at the end */
};

static inline void golden_read(const char *folder, const char *name, struct golden *g)
{
    char path[1024], chunk[4096];
    size_t n;
    snprintf(g->name, sizeof g->name, "%s", name);
    snprintf(path, sizeof path, GOLDEN_FOLDER "%s%s", folder, name);
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        fprintf(stderr, "cannot read %s\n", path);
    sl_assert(f != NULL);
    sl_buf_init(&g->bytes, 0);
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0)
        sl_buf_add(&g->bytes, chunk, n);
    fclose(f);
    g->text = sl_buf_view(&g->bytes);
    if (g->text.len > 0 && g->text.ptr[g->text.len - 1] == '\n')
        g->text.len--;
}

static inline int golden_order(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Call `each` for every file of the folder whose name begins with prefix, in the order of names; the number
 * of them. */
static inline size_t golden_each(const char *folder, const char *prefix, void (*each)(const struct golden *g))
{
    char path[1024], *names[GOLDEN_MAX];
    size_t count = 0;
    snprintf(path, sizeof path, GOLDEN_FOLDER "%s", folder);
    DIR *d = opendir(path);
    sl_assert(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strncmp(e->d_name, prefix, strlen(prefix)) != 0)
            continue;
        sl_assert(count < GOLDEN_MAX);
        names[count++] = sl_strdup(e->d_name);
    }
    closedir(d);
    qsort(names, count, sizeof names[0], golden_order);
    for (size_t i = 0; i < count; i++) {
        struct golden g;
        golden_read(folder, names[i], &g);
        each(&g);
        sl_buf_fini(&g.bytes);
        free(names[i]);
    }
    return count;
}

/* A bad file whose name says so is refused as too big, every other one as malformed. */
static inline sl_err golden_refusal(const struct golden *g)
{
    return strstr(g->name, ".toobig.") != NULL ? SL_ETOOBIG : SL_EINVAL;
}

#endif
