/* base/metrics.c - the registry, grouped by family as the exposition format wants it. */
#include "base/metrics.h"

#include "base/map.h"

#include <stdio.h>
#include <stdlib.h>

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };
static const char *const type_name[] = {
    [METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge", [METRIC_HISTOGRAM] = "histogram"};

/* Upper bounds; in ms for comparing, in seconds as written. The last bucket is +Inf. */
static const struct {
    double ms;
    const char *le;
} buckets[] = {{0.5, "0.0005"}, {1, "0.001"},  {2.5, "0.0025"}, {5, "0.005"},  {10, "0.01"},
               {25, "0.025"},   {50, "0.05"},  {100, "0.1"},    {250, "0.25"}, {500, "0.5"},
               {1000, "1"},     {2500, "2.5"}, {5000, "5"},     {10000, "10"}};
#define BUCKET_COUNT (sizeof buckets / sizeof buckets[0])

/* Labels come from configuration at most, so this many of one name is a fault; further ones share one metric.
 */
#define SERIES_PER_FAMILY_MAX 2000

struct sl_metric {
    struct sl_metric *next;
    enum metric_type type;
    char *labels;
    int64_t value; /* counter, gauge; observations of a histogram */
    int64_t max;
    bool has_max;
    double sum_ms;
    uint64_t bucket[BUCKET_COUNT]; /* each observation in one, summed up when written */
};

struct metric_family {
    char *name, *help;
    enum metric_type type;
    struct sl_metric *first, *last;
    struct sl_map *by_labels;
};

/* The one registry of the process. */
static struct {
    struct sl_map *families; /* name -> struct metric_family */
    unsigned generation;
} registry = {.generation = 1};

static bool is_metric_name(const char *name)
{
    for (const char *p = name; *p != '\0'; p++) {
        bool is_letter = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || *p == '_' || *p == ':';
        if (!is_letter && !(p > name && *p >= '0' && *p <= '9'))
            return false;
    }
    return name[0] != '\0';
}

static struct metric_family *family_of(const char *name, const char *help, enum metric_type type)
{
    if (registry.families == NULL)
        registry.families = sl_map_new();
    struct metric_family *f = sl_map_get(registry.families, sl_str_c(name));
    if (f == NULL) {
        sl_assert(is_metric_name(name));
        f = sl_alloc(sizeof *f);
        f->name = sl_strdup(name);
        f->help = sl_strdup(help);
        f->type = type;
        f->by_labels = sl_map_new();
        (void)sl_map_set(registry.families, sl_str_c(name), f);
    }
    sl_assert(f->type == type);
    return f;
}

static struct sl_metric *metric_of(const char *name, const char *labels, const char *help,
                                   enum metric_type type)
{
    struct metric_family *f = family_of(name, help, type);
    struct sl_metric *m = sl_map_get(f->by_labels, sl_str_c(labels));
    if (m == NULL && sl_map_count(f->by_labels) >= SERIES_PER_FAMILY_MAX) {
        labels = "overflow=\"true\"";
        m = sl_map_get(f->by_labels, sl_str_c(labels));
    }
    if (m != NULL)
        return m;
    m = sl_alloc(sizeof *m);
    m->type = type;
    m->labels = sl_strdup(labels);
    (void)sl_map_set(f->by_labels, sl_str_c(labels), m);
    if (f->last != NULL)
        f->last->next = m;
    else
        f->first = m;
    f->last = m;
    return m;
}

struct sl_metric *sl_counter(const char *name, const char *labels, const char *help)
{
    return metric_of(name, labels, help, METRIC_COUNTER);
}

struct sl_metric *sl_gauge(const char *name, const char *labels, const char *help)
{
    return metric_of(name, labels, help, METRIC_GAUGE);
}

struct sl_metric *sl_histogram(const char *name, const char *labels, const char *help)
{
    return metric_of(name, labels, help, METRIC_HISTOGRAM);
}

void sl_count(struct sl_metric *m, uint64_t n)
{
    sl_assert(m->type == METRIC_COUNTER);
    m->value = (int64_t)((uint64_t)m->value + n);
}

void sl_gauge_set(struct sl_metric *m, int64_t v)
{
    sl_assert(m->type == METRIC_GAUGE);
    m->value = v;
}

void sl_gauge_max(struct sl_metric *m, int64_t v)
{
    sl_assert(m->type == METRIC_GAUGE);
    m->max = v;
    m->has_max = true;
}

void sl_observe_ms(struct sl_metric *m, double ms)
{
    sl_assert(m->type == METRIC_HISTOGRAM);
    m->value++;
    m->sum_ms += ms;
    for (size_t i = 0; i < BUCKET_COUNT; i++)
        if (ms <= buckets[i].ms) {
            m->bucket[i]++;
            return;
        }
}

int64_t sl_metric_value(const struct sl_metric *m)
{
    return m->value;
}

unsigned sl_metrics_generation(void)
{
    return registry.generation;
}

/* name{labels,extra} and a space; extra may be "". */
static void write_name(struct sl_buf *out, const char *name, const char *suffix, const char *labels,
                       const char *extra)
{
    sl_buf_c(out, name);
    sl_buf_c(out, suffix);
    if (labels[0] != '\0' || extra[0] != '\0') {
        sl_buf_char(out, '{');
        sl_buf_c(out, labels);
        sl_buf_c(out, labels[0] != '\0' && extra[0] != '\0' ? "," : "");
        sl_buf_c(out, extra);
        sl_buf_char(out, '}');
    }
    sl_buf_char(out, ' ');
}

static void write_head(struct sl_buf *out, const struct metric_family *f, const char *suffix,
                       const char *type)
{
    sl_buf_printf(out, "# HELP %s%s ", f->name, suffix);
    for (const char *p = f->help; *p != '\0'; p++) {
        if (*p == '\\' || *p == '\n')
            sl_buf_c(out, *p == '\n' ? "\\n" : "\\\\");
        else
            sl_buf_char(out, *p);
    }
    sl_buf_printf(out, "%s\n# TYPE %s%s %s\n", suffix[0] != '\0' ? " (its bound)" : "", f->name, suffix,
                  type);
}

static void write_histogram(struct sl_buf *out, const char *name, const struct sl_metric *m)
{
    uint64_t below = 0;
    for (size_t i = 0; i < BUCKET_COUNT; i++) {
        char le[24];
        (void)snprintf(le, sizeof le, "le=\"%s\"", buckets[i].le);
        below += m->bucket[i];
        write_name(out, name, "_bucket", m->labels, le);
        sl_buf_printf(out, "%llu\n", (unsigned long long)below);
    }
    write_name(out, name, "_bucket", m->labels, "le=\"+Inf\"");
    sl_buf_printf(out, "%lld\n", (long long)m->value);
    write_name(out, name, "_sum", m->labels, "");
    sl_buf_printf(out, "%.9g\n", m->sum_ms / 1000);
    write_name(out, name, "_count", m->labels, "");
    sl_buf_printf(out, "%lld\n", (long long)m->value);
}

static void write_value(struct sl_buf *out, const char *name, const char *suffix, const struct sl_metric *m,
                        int64_t v)
{
    write_name(out, name, suffix, m->labels, "");
    if (m->type == METRIC_COUNTER)
        sl_buf_uint(out, (uint64_t)v);
    else
        sl_buf_int(out, v);
    sl_buf_char(out, '\n');
}

static void write_bounds(struct sl_buf *out, const struct metric_family *f)
{
    bool has_head = false;
    for (const struct sl_metric *m = f->first; m != NULL; m = m->next) {
        if (!m->has_max)
            continue;
        if (!has_head)
            write_head(out, f, "_max", "gauge");
        has_head = true;
        write_value(out, f->name, "_max", m, m->max);
    }
}

static void write_family(struct sl_buf *out, const struct metric_family *f)
{
    write_head(out, f, "", type_name[f->type]);
    for (const struct sl_metric *m = f->first; m != NULL; m = m->next) {
        if (f->type == METRIC_HISTOGRAM)
            write_histogram(out, f->name, m);
        else
            write_value(out, f->name, "", m, m->value);
    }
    write_bounds(out, f);
}

void sl_metrics_write(struct sl_buf *out)
{
    struct sl_str name;
    void *f;
    for (size_t i = 0; registry.families != NULL && sl_map_next(registry.families, &i, &name, &f);)
        write_family(out, f);
}

static void family_free(struct metric_family *f)
{
    for (struct sl_metric *m = f->first, *next; m != NULL; m = next) {
        next = m->next;
        free(m->labels);
        free(m);
    }
    sl_map_free(&f->by_labels);
    free(f->name);
    free(f->help);
    free(f);
}

void sl_metrics_reset(void)
{
    struct sl_str name;
    void *f;
    for (size_t i = 0; registry.families != NULL && sl_map_next(registry.families, &i, &name, &f);)
        family_free(f);
    sl_map_free(&registry.families);
    registry.generation++;
}
