/* base/fault.h - faults and deliberate defects, by name, in test builds only.
 *
 * What     sl_fault("bus.append") is true when the environment variable SLUICE_FAULTS names it (comma-separated).
 *          sl_mutant("ack-before-append") is true when SLUICE_MUTANT is exactly that name: a defect that the
 *          history checker must find. In a release build both are the constant false.
 */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

#include <stdbool.h>

#ifdef SL_TEST_BUILD
bool sl_fault(const char *name);
bool sl_mutant(const char *name);
void sl_mutant_set(const char *name); /* simulation: switch one on in this process; NULL: none */
#else
#define sl_fault(name)  (false)
#define sl_mutant(name) (false)
#endif

#endif
