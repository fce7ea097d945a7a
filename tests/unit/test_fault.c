/* Names of faults and mutants; in a release build they are all false. */
#include "base/fault.h"

#include "unit.h"

static void test_fault_matches_whole_names(void **state)
{
    (void)state;
#ifdef SL_TEST_BUILD
    assert_int_equal(setenv("SLUICE_FAULTS", "bus.append,lane.send", 1), 0);
    assert_true(sl_fault("bus.append"));
    assert_true(sl_fault("lane.send"));
    assert_false(sl_fault("bus.app"));
    assert_false(sl_fault("bus.append,lane.send"));
    assert_false(sl_fault("lane.send2"));
    assert_int_equal(unsetenv("SLUICE_FAULTS"), 0);
#else
    assert_int_equal(setenv("SLUICE_FAULTS", "bus.append", 1), 0);
#endif
    assert_false(sl_fault("bus.append"));
}

static void test_mutant_is_exactly_one(void **state)
{
    (void)state;
    assert_int_equal(setenv("SLUICE_MUTANT", "skip-epoch", 1), 0);
#ifdef SL_TEST_BUILD
    assert_true(sl_mutant("skip-epoch"));
    assert_false(sl_mutant("skip"));
    sl_mutant_set("commit-twice");
    assert_true(sl_mutant("commit-twice"));
    sl_mutant_set(NULL);
    assert_false(sl_mutant("commit-twice"));
#endif
    assert_false(sl_mutant("skip-epoch")); /* release: never; test build: set to none above */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fault_matches_whole_names),
        cmocka_unit_test(test_mutant_is_exactly_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
