/* tests/contract/test_bus.c - the store's contract: the same cases over a real Redis and over the store in memory. */
#include "tests/contract/bus_world.h"

#include <signal.h>

int main(void)
{
    (void)signal(SIGPIPE, SIG_IGN);
    return run_functions_cases() + run_calls_cases() + run_connection_cases() + run_module_cases() +
           run_mutant_cases();
}
