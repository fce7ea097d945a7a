#include "tests/unit/unit.h"

#include "tests/contract/bus_world.h"

int run_calls_cases(void)
{
    return 0;
}
