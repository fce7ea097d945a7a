/* base/error.c - the table's words, failures with text, and memory that is never NULL. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct err_row {
    const char *name, *text;
    bool may_retry;
    int http;
};

static const struct err_row rows[] = {
#define X(name, text, retry, http) [SL_##name] = {#name, text, retry, http},
    SL_ERR_TABLE(X)
#undef X
};

static const struct err_row *row_of(sl_err e)
{
    size_t i = (size_t)e;
    return &rows[i < sizeof rows / sizeof rows[0] ? i : (size_t)SL_EINTERNAL];
}

const char *sl_err_name(sl_err e)
{
    return row_of(e)->name;
}

const char *sl_err_text(sl_err e)
{
    return row_of(e)->text;
}

bool sl_err_retry(sl_err e)
{
    return row_of(e)->may_retry;
}

int sl_err_http(sl_err e)
{
    return row_of(e)->http;
}

sl_err sl_fail_set(struct sl_fail *why, sl_err code, int sys, const char *fmt, ...)
{
    if (why == NULL)
        return code;
    why->code = code;
    why->sys = sys;
    /* Formatted aside first: a caller may pass why->text itself as an argument. A text that is too long is
     * cut. */
    char text[sizeof why->text];
    va_list ap;
    va_start(ap, fmt);
    if (vsnprintf(text, sizeof text, fmt, ap) < 0)
        text[0] = '\0';
    va_end(ap);
    memcpy(why->text, text, sizeof text);
    return code;
}

void sl_assert_failed(const char *expr, const char *file, int line, const char *func)
{
    fprintf(stderr, "sluice: programming fault: %s at %s:%d in %s\n", expr, file, line, func);
    abort();
}

static _Noreturn void out_of_memory(size_t size)
{
    fprintf(stderr, "sluice: out of memory (asked for %zu bytes)\n", size);
    abort();
}

void *sl_alloc(size_t size)
{
    void *p = calloc(1, size != 0 ? size : 1);
    if (p == NULL)
        out_of_memory(size);
    return p;
}

void *sl_realloc(void *p, size_t size)
{
    void *q = realloc(p, size != 0 ? size : 1);
    if (q == NULL)
        out_of_memory(size);
    return q;
}

char *sl_strdup(const char *s)
{
    size_t size = strlen(s) + 1;
    char *copy = sl_alloc(size);
    memcpy(copy, s, size);
    return copy;
}
