#include "tests/unit/unit.h"

#include "tests/contract/bus_world.h"

int run_connection_cases(void)
{
    return 0;
}
