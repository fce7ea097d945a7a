/* bus/functions_priv.h - small helpers that functions.c and functions_commit.c share. */
#ifndef BUS_FUNCTIONS_PRIV_H
#define BUS_FUNCTIONS_PRIV_H

#include "bus/functions.h"

#define FUNCTIONS_STRINGS_MAX 4000 /* of one entry */
#define FUNCTIONS_ID_BYTES    44   /* "ms-seq" */
#define FUNCTIONS_FENCED      "FENCED another owner holds this partition"

/* A counted list of arguments: `at` is where its first item stands. */
struct functions_section {
    size_t at, count, after;
};

void functions_refuse(struct functions_call *c, const char *fmt, ...) SL_PRINTF(2, 3);
/* NULL: the key holds another type, or was opened as another in this call. name must live as long as the call. */
struct store_key *functions_key(struct functions_call *c, const struct sl_str *name, enum store_type type);
/* KEYS[i], or NULL with the refusal given. */
struct store_key *functions_fixed_key(struct functions_call *c, size_t i, enum store_type type);

bool functions_integer(struct sl_str s, int64_t *out); /* decimal, without sign, at most 15 digits */
bool functions_integer_arg(const struct functions_call *c, size_t at, int64_t *out);
bool functions_id(struct sl_str s, struct store_id *out); /* "ms-seq" */
bool functions_id_before(struct store_id a, struct store_id b);
struct sl_str functions_id_text(struct store_id id, char out[FUNCTIONS_ID_BYTES]);
bool functions_section_at(const struct functions_call *c, size_t at, size_t width,
                          struct functions_section *out);
bool functions_pairs_at(const struct functions_call *c, size_t at, struct functions_section *out);
bool functions_relay_ok(const struct functions_call *c, const struct functions_section *s);
void functions_relay_write(const struct functions_call *c, struct store_key *relay,
                           const struct functions_section *s);
/* "<object>|<name>|<gen>", taken apart from the right. */
bool functions_split_timer(struct sl_str member, struct sl_str *object, struct sl_str *name,
                           struct sl_str *gen);
/* Argument 0 and 1 of every fenced operation are the lease epoch and the run id. */
bool functions_is_owner(const struct functions_call *c, struct store_key *meta);
int64_t functions_hash_int(struct store_key *hash, const struct sl_str *field); /* 0 when absent */
void functions_hash_set_int(struct store_key *hash, const struct sl_str *field, int64_t value);

/* Facts of one partition for one destination, numbered first, first + 1, ... */
struct functions_facts {
    int64_t first, trim_ms; /* trim_ms 0: the destination is not trimmed by time */
    size_t at, count;       /* of the first fact: a count of strings, then the strings */
};
struct functions_mark { /* "<number> <epoch>": how far a destination has a partition's facts */
    int64_t number, epoch;
};
/* Where they end; 0: the counts are no good. */
size_t functions_facts_end(const struct functions_call *c, const struct functions_facts *f);
struct functions_mark functions_mark_of(struct store_key *from, const struct sl_str *k);
/* Appends all but the first `skip`, moves the mark, trims. Returns the mark. */
struct functions_mark functions_facts_append(struct functions_call *c, const struct functions_facts *f,
                                             size_t skip, struct store_key *log, struct store_key *from,
                                             const struct sl_str *k, struct functions_mark mark,
                                             int64_t epoch);

void functions_commit(struct functions_call *c); /* functions_commit.c */

#endif
