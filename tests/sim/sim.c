/* tests/sim/sim.c - the command: so many seeds, one seed again, or every mutant until it is caught. */
#include "base/fault.h"
#include "base/log.h"

#include "sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define SEEDS_DEFAULT 2000
#define MUTANT_SEEDS  6000 /* a mutant that survives so many was not found */

static const char usage[] =
    "sim [--seeds N] [--first S] [--seed S] [--mutant NAME] [--mutants] [--twice] [--calm] [--verbose] "
    "[--trace]\n"
    "  --seed S     one seed    --twice   each seed twice, compared to the byte    --calm   no faults\n"
    "  --mutants    every defect below is switched on until a seed finds it; the same seeds pass without it\n"
    "  --trace      every step of every seed; --verbose: a line a seed, and the product's own log\n";

/* Deliberate defects in the code base (base/fault.h) that a simulation can find. Not deliver-no-gap: a gap needs a
 * destination that lost data, which one Redis with AOF always does not; tests/contract has it. */
static const char *const mutants[] = {"no-epoch",
                                      "no-offset",
                                      "no-dedupe",
                                      "deliver-no-mark",
                                      "relay-before-commit",
                                      "lose-relay-position",
                                      "commit-twice",
                                      "no-turn",
                                      "no-control",
                                      "timer-no-gen",
                                      "warm-cache",
                                      "trim-too-far",
                                      "no-sweep",
                                      "no-gap",
                                      "tail-skip",
                                      "no-ticket",
                                      "desk-frees-itself",
                                      "deed-before-commit",
                                      "lane-retry-unknown",
                                      "lane-receipt-backwards",
                                      "lane-forget-epoch",
                                      "lane-forget-pieces",
                                      "lane-forget-parts",
                                      "lane-forget-doubts",
                                      "lane-send-unasked"};

static double cpu_s(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

/* A failed seed once more, with its last steps on the screen. */
static void explain(const struct options *o, uint64_t seed, const char *verdict)
{
    (void)printf("seed %" PRIu64 ": %s\n  again: sim --seed %" PRIu64 " --trace%s%s\n", seed, verdict, seed,
                 o->mutant != NULL ? " --mutant " : "", o->mutant != NULL ? o->mutant : "");
    (void)fflush(stdout);
}

static uint64_t digest_of(const struct options *o, uint64_t seed)
{
    struct world *w = world_run(o, seed, false);
    uint64_t digest = w->digest;
    world_free(&w);
    return digest;
}

/* True when the seed passed. */
static bool run_seed(const struct options *o, uint64_t seed, bool is_quiet)
{
    struct world *w = world_run(o, seed, o->is_traced);
    bool is_good = w->verdict[0] == '\0';
    if (!is_good && !is_quiet)
        explain(o, seed, w->verdict);
    if (o->is_verbose && !is_quiet)
        (void)printf("seed %" PRIu64 ": %016" PRIx64 " %s, %" PRIu64 " steps, %" PRIu64 " faults, %" PRIu64
                     " ms\n",
                     seed, w->digest, is_good ? "passed" : "FAILED", w->steps, w->faults, w->now_ms);
    uint64_t digest = w->digest;
    world_free(&w);
    if (o->is_twice && digest_of(o, seed) != digest) {
        (void)printf("seed %" PRIu64 ": the second run was another one\n", seed);
        is_good = false;
    }
    return is_good;
}

static int run_seeds(const struct options *o)
{
    uint64_t passed = 0, failed = 0, all = 0;
    double started = cpu_s();
    for (uint64_t i = 0; i < o->seeds; i++) {
        if (run_seed(o, o->first + i, false))
            passed++;
        else
            failed++;
        if (!o->is_verbose && (i + 1) % 500 == 0) {
            (void)printf("%" PRIu64 " seeds, %.1f s\n", i + 1, cpu_s() - started);
            (void)fflush(stdout);
        }
        if (failed >= 10)
            break;
        all++;
    }
    (void)printf("%" PRIu64 " seeds from %" PRIu64 ", %.1f ms CPU a seed\n", all, o->first,
                 (cpu_s() - started) * 1000 / (double)(all > 0 ? all : 1));
    (void)printf("%" PRIu64 " passed, %" PRIu64 " failed\n", passed, failed);
    return failed == 0 && passed > 0 ? 0 : 1;
}

/* The seed that finds it, or 0. */
static uint64_t find_mutant(struct options *o, const char *name, char verdict[400])
{
    o->mutant = name;
    sl_mutant_set(name);
    uint64_t found = 0;
    for (uint64_t i = 0; i < MUTANT_SEEDS && found == 0; i++) {
        struct world *w = world_run(o, o->first + i, false);
        if (w->verdict[0] != '\0') {
            found = o->first + i;
            (void)snprintf(verdict, 400, "%s", w->verdict);
        }
        world_free(&w);
    }
    sl_mutant_set(NULL);
    o->mutant = NULL;
    return found;
}

static int run_mutants(struct options *o)
{
    unsigned passed = 0, failed = 0;
    (void)printf("%-20s %6s %8s  %s\n", "mutant", "seed", "CPU s", "found as");
    for (size_t i = 0; i < sizeof mutants / sizeof mutants[0]; i++) {
        char verdict[400] = "not found";
        double started = cpu_s();
        uint64_t seed = find_mutant(o, mutants[i], verdict);
        bool is_clean = seed != 0 && run_seed(o, seed, false);
        (void)printf("%-20s %6" PRIu64 " %8.1f  %.90s%s\n", mutants[i], seed, cpu_s() - started, verdict,
                     seed == 0 || is_clean ? "" : " (and so is the code without it)");
        (void)fflush(stdout);
        if (is_clean)
            passed++;
        else
            failed++;
    }
    (void)printf("%u passed, %u failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}

static bool number_after(int argc, char **argv, int *i, uint64_t *out)
{
    return *i + 1 < argc && sl_str_uint(sl_str_c(argv[++*i]), out) == SL_OK;
}

static bool parse(int argc, char **argv, struct options *o, bool *all_mutants)
{
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        bool ok = true;
        if (strcmp(a, "--seeds") == 0)
            ok = number_after(argc, argv, &i, &o->seeds);
        else if (strcmp(a, "--first") == 0)
            ok = number_after(argc, argv, &i, &o->first);
        else if (strcmp(a, "--seed") == 0)
            ok = number_after(argc, argv, &i, &o->first) && (o->seeds = 1) == 1;
        else if (strcmp(a, "--mutant") == 0 && i + 1 < argc)
            o->mutant = argv[++i];
        else if (strcmp(a, "--mutants") == 0)
            *all_mutants = true;
        else if (strcmp(a, "--twice") == 0)
            o->is_twice = true;
        else if (strcmp(a, "--calm") == 0)
            o->is_calm = true;
        else if (strcmp(a, "--verbose") == 0)
            o->is_verbose = true;
        else if (strcmp(a, "--trace") == 0)
            o->is_traced = true;
        else
            ok = false;
        if (!ok)
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct options o = {.first = 1, .seeds = SEEDS_DEFAULT};
    bool all_mutants = false;
    if (!parse(argc, argv, &o, &all_mutants)) {
        (void)fputs(usage, stderr);
        return 2;
    }
    (void)setenv("SLUICE_FAULTS", "step.poison", 1);
    sl_log_setup("sim", o.is_verbose ? SL_INFO : SL_ERROR, SL_LOG_LOGFMT);
    sl_mutant_set(o.mutant);
    return all_mutants ? run_mutants(&o) : run_seeds(&o);
}
