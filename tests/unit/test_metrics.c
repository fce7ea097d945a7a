/* The exposition text, grouping by family, and static counters across a reset. */
#include "base/metrics.h"

#include "unit.h"

#include <stdio.h>

static char *written(void)
{
    struct sl_buf b = {0};
    sl_metrics_write(&b);
    sl_buf_char(&b, '\0');
    return b.ptr;
}

static size_t occurrences(const char *text, const char *needle)
{
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, needle)) != NULL; p += strlen(needle))
        n++;
    return n;
}

static int reset(void **state)
{
    (void)state;
    sl_metrics_reset();
    return 0;
}

static void test_metrics_group_labels_of_one_family(void **state)
{
    (void)state;
    sl_count(sl_counter("sluice_facts_total", "kind=\"task\"", "Facts."), 2);
    sl_gauge_set(sl_gauge("sluice_open", "", "Open \\ now.\nSecond line."), -4);
    sl_count(sl_counter("sluice_facts_total", "kind=\"reply\"", "Facts."), 3);
    sl_count(sl_counter("sluice_facts_total", "kind=\"task\"", "Facts."), 1);
    char *text = written();
    assert_string_equal(text, "# HELP sluice_facts_total Facts.\n"
                              "# TYPE sluice_facts_total counter\n"
                              "sluice_facts_total{kind=\"task\"} 3\n"
                              "sluice_facts_total{kind=\"reply\"} 3\n"
                              "# HELP sluice_open Open \\\\ now.\\nSecond line.\n"
                              "# TYPE sluice_open gauge\n"
                              "sluice_open -4\n");
    free(text);
}

static void test_metrics_bound_of_a_gauge_is_a_family_of_its_own(void **state)
{
    (void)state;
    struct sl_metric *a = sl_gauge("sluice_queue", "q=\"a\"", "Level.");
    struct sl_metric *b = sl_gauge("sluice_queue", "q=\"b\"", "Level.");
    sl_gauge_set(a, 5);
    sl_gauge_max(a, 10);
    sl_gauge_max(b, 20);
    char *text = written();
    assert_contains(text, "sluice_queue{q=\"a\"} 5\nsluice_queue{q=\"b\"} 0\n# HELP sluice_queue_max ");
    assert_contains(
        text, "# TYPE sluice_queue_max gauge\nsluice_queue_max{q=\"a\"} 10\nsluice_queue_max{q=\"b\"} 20\n");
    assert_int_equal(occurrences(text, "# TYPE sluice_queue_max "), 1);
    assert_int_equal(occurrences(text, "# TYPE sluice_queue "), 1);
    free(text);
}

static void test_metrics_histogram_is_cumulative(void **state)
{
    (void)state;
    struct sl_metric *h = sl_histogram("sluice_commit_seconds", "k=\"1\"", "Commit.");
    sl_observe_ms(h, 0.5); /* the bound itself belongs to its bucket */
    sl_observe_ms(h, 0.6);
    sl_observe_ms(h, 99);
    sl_observe_ms(h, 60000);
    assert_int_equal(sl_metric_value(h), 4);
    char *text = written();
    assert_contains(text, "# TYPE sluice_commit_seconds histogram\n");
    assert_contains(text, "sluice_commit_seconds_bucket{k=\"1\",le=\"0.0005\"} 1\n");
    assert_contains(text, "sluice_commit_seconds_bucket{k=\"1\",le=\"0.001\"} 2\n");
    assert_contains(text, "sluice_commit_seconds_bucket{k=\"1\",le=\"0.05\"} 2\n");
    assert_contains(text, "sluice_commit_seconds_bucket{k=\"1\",le=\"0.1\"} 3\n");
    assert_contains(text, "sluice_commit_seconds_bucket{k=\"1\",le=\"10\"} 3\n");
    assert_contains(text, "sluice_commit_seconds_bucket{k=\"1\",le=\"+Inf\"} 4\n");
    assert_contains(text, "sluice_commit_seconds_sum{k=\"1\"} 60.1001\n");
    assert_contains(text, "sluice_commit_seconds_count{k=\"1\"} 4\n");
    free(text);
}

static void count_once(void)
{
    SL_COUNT("sluice_static_total", "", "Counted through a static pointer.", 1);
}

static void test_metrics_static_counter_survives_a_reset(void **state)
{
    (void)state;
    count_once();
    count_once();
    assert_int_equal(sl_metric_value(sl_counter("sluice_static_total", "", "")), 2);
    sl_metrics_reset();
    char *text = written();
    assert_string_equal(text, "");
    free(text);
    count_once(); /* the old object is gone: this must make a new one */
    assert_int_equal(sl_metric_value(sl_counter("sluice_static_total", "", "")), 1);
}

static void test_metrics_number_of_series_is_bounded(void **state)
{
    (void)state;
    char labels[32];
    for (int i = 0; i < 5000; i++) {
        (void)snprintf(labels, sizeof labels, "inbox=\"%d\"", i);
        sl_count(sl_counter("sluice_many_total", labels, "Many."), 1);
    }
    char *text = written();
    assert_int_equal(occurrences(text, "\nsluice_many_total{"), 2001);
    assert_contains(text, "sluice_many_total{overflow=\"true\"} 3000\n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_metrics_group_labels_of_one_family, reset),
        cmocka_unit_test_teardown(test_metrics_bound_of_a_gauge_is_a_family_of_its_own, reset),
        cmocka_unit_test_teardown(test_metrics_histogram_is_cumulative, reset),
        cmocka_unit_test_teardown(test_metrics_static_counter_survives_a_reset, reset),
        cmocka_unit_test_teardown(test_metrics_number_of_series_is_bounded, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
