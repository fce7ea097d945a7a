/* base/fault.h - faults and deliberate defects, by name, in test builds only.
 *
 * What     sl_fault("bus.append") is true when the environment variable SLUICE_FAULTS names it (comma-separated).
 *          sl_mutant("ack-before-append") is true when SLUICE_MUTANT is exactly that name: a defect that the
 *          history checker must find. In a release build both are the constant false.
 * Points   sl_kill_point("lane.answer") ends this process as kill -9 does when SLUICE_FAULTS names it, or
 *          SLUICE_KILL is "lane.answer:7" at the 7th passing. tests/fault/README.md lists the points.
 */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

#include <stdbool.h>

#ifdef SL_TEST_BUILD
bool sl_fault(const char *name);
bool sl_mutant(const char *name);
void sl_mutant_set(const char *name); /* simulation: switch one on in this process; NULL: none */
void sl_kill_point(const char *name);
#else
#define sl_kill_point(name) ((void)0)
#define sl_fault(name)      (false)
#define sl_mutant(name)     (false)
#endif

#endif
