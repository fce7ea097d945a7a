/* bus/functions.h - the operations of functions.md in C, written once for every store that can run them.
 *
 * What     functions*.c run over bus/store.h: linked with memory_functions.c they are what simulations run, linked with
 *          module/module.c they are the module inside Redis. functions.lua is the same for a server that takes no modules;
 *          tests/contract runs the same cases over all three.
 * Rule     validate first, write last: nothing is rolled back. Whoever changes an operation changes the Lua too.
 */
#ifndef BUS_FUNCTIONS_H
#define BUS_FUNCTIONS_H

#include "bus/store.h"

struct functions_call {
    struct store *store;
    const struct sl_str *key, *arg; /* as they came; the operation bounds what it reads */
    size_t keys, args;
    struct store_key **open; /* hash table of the keys opened so far */
    size_t slots, opened;
};
struct functions_entry {
    const char *name;          /* "commit_1" */
    bool is_refused_when_full; /* at maxmemory: it lets new work in */
    void (*run)(struct functions_call *c);
};
#define FUNCTIONS_COUNT 11
extern const struct functions_entry functions_table[FUNCTIONS_COUNT];

/* Runs it: exactly one reply is given. */
void functions_run(const struct functions_entry *f, struct store *store, const struct sl_str *key,
                   size_t keys, const struct sl_str *arg, size_t args);

#endif
