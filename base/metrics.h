/* base/metrics.h - counters, gauges and fixed-bucket histograms in Prometheus text exposition format 0.0.4
 * (prometheus.io/docs/instrumenting/exposition_formats, read through the stored docs).
 *
 * What     a metric is a static struct with a name, labels are a preformatted string: `kind="task"`. Registered on first use.
 * Names    prefix sluice_, base units (seconds, bytes), _total for counters. Never user or conversation ids as labels.
 * Threads  one loop thread.
 */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include "base/str.h"

struct sl_metric;
/* same name+labels: same object */
struct sl_metric *sl_counter(const char *name, const char *labels, const char *help);
struct sl_metric *sl_gauge(const char *name, const char *labels, const char *help);
/* seconds: 0.5 ms .. 10 s, fixed buckets */
struct sl_metric *sl_histogram(const char *name, const char *labels, const char *help);
void sl_count(struct sl_metric *m, uint64_t n);
void sl_gauge_set(struct sl_metric *m, int64_t v);
/* declare the bound that goes with a level: written as NAME_max */
void sl_gauge_max(struct sl_metric *m, int64_t v);
void sl_observe_ms(struct sl_metric *m, double ms);
int64_t sl_metric_value(const struct sl_metric *m);
void sl_metrics_write(struct sl_buf *out);
void sl_metrics_reset(void); /* tests and leak-free exit */

/* The common one-liner: static pointer, registered once. SL_COUNT("sluice_x_total", "", "help", 1); labels are constant there. */
#define SL_COUNT(name, labels, help, n)                                                                      \
    do {                                                                                                     \
        static struct sl_metric *sl_m_;                                                                      \
        static unsigned sl_gen_;                                                                             \
        if (sl_m_ == NULL || sl_gen_ != sl_metrics_generation())                                             \
            sl_m_ = sl_counter((name), (labels), (help)), sl_gen_ = sl_metrics_generation();                 \
        sl_count(sl_m_, (n));                                                                                \
    } while (0)
unsigned sl_metrics_generation(void);

#endif
