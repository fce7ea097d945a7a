/* base/fault.c - faults and mutants by name; empty unless this is a test build. */
#include "base/fault.h"

#ifdef SL_TEST_BUILD

#include "base/str.h"

#include <signal.h>
#include <stdlib.h>

/* What sl_mutant_set said last; it then stands above the environment. */
static struct {
    bool is_set;
    char name[64];
} mutant;

bool sl_fault(const char *name)
{
    const char *list = getenv("SLUICE_FAULTS");
    size_t len = strlen(name);
    while (list != NULL && *list != '\0') {
        size_t n = strcspn(list, ",");
        if (n == len && memcmp(list, name, n) == 0)
            return true;
        list += n + (list[n] == ',' ? 1 : 0);
    }
    return false;
}

bool sl_mutant(const char *name)
{
    if (mutant.is_set)
        return strcmp(mutant.name, name) == 0;
    const char *chosen = getenv("SLUICE_MUTANT");
    return chosen != NULL && strcmp(chosen, name) == 0;
}

void sl_kill_point(const char *name)
{
    static unsigned long passed;
    const char *chosen = getenv("SLUICE_KILL");
    size_t len = strlen(name);
    bool is_chosen =
        chosen != NULL && strncmp(chosen, name, len) == 0 && (chosen[len] == '\0' || chosen[len] == ':');
    unsigned long wanted = is_chosen && chosen[len] == ':' ? strtoul(chosen + len + 1, NULL, 10) : 1;
    if (sl_fault(name) || (is_chosen && ++passed >= wanted))
        (void)raise(SIGKILL);
}

void sl_mutant_set(const char *name)
{
    size_t n = name != NULL ? strlen(name) : 0;
    sl_assert(n < sizeof mutant.name);
    if (n > 0)
        memcpy(mutant.name, name, n);
    mutant.name[n] = '\0';
    mutant.is_set = true;
}

#endif
