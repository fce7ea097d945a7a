/* tests/vectors/vec.h - what the programs that read files of vectors share.
 *
 * Each prints one line a case, "ok NAME" or "not ok NAME: why", and exits 1 when one failed or none was there.
 */
#ifndef TESTS_VECTORS_VEC_H
#define TESTS_VECTORS_VEC_H

#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>

static unsigned vec_passed, vec_failed;

static inline void vec_case(bool is_ok, const char *name, const char *why)
{
    if (is_ok)
        printf("ok %s\n", name);
    else
        printf("not ok %s: %s\n", name, why);
    *(is_ok ? &vec_passed : &vec_failed) += 1;
}

/* The file's JSON; ends the program when there is none. Files of vectors are ours to trust: no limits of peers. */
static inline json_t *vec_load(int argc, char **argv)
{
    json_error_t error;
    if (argc != 2) {
        fprintf(stderr, "usage: %s FILE\n", argv[0]);
        exit(2);
    }
    json_t *all = json_load_file(argv[1], JSON_ALLOW_NUL, &error);
    if (all == NULL) {
        printf("not ok %s: line %d: %s\n", argv[1], error.line, error.text);
        exit(1);
    }
    return all;
}

static inline struct sl_str vec_str(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key); /* borrowed */
    return json_is_string(v) ? sl_str_n(json_string_value(v), json_string_length(v)) : SL_STR_NONE;
}

static inline int vec_end(json_t *all)
{
    json_decref(all);
    if (vec_passed + vec_failed == 0)
        printf("not ok cases: there are none\n");
    return vec_failed > 0 || vec_passed == 0 ? 1 : 0;
}

#endif
