/* base/config.h - one YAML file, read through libyaml's events against our own table of keys.
 *
 * What     strict: no anchors, aliases, tags, duplicate or unknown keys, depth <= 8; every error says file, line, column,
 *          what was found and what was expected.
 * Order    default < file < environment (SLUICE_GATEWAY__LISTEN overrides gateway.listen) < command line.
 * Secrets  a key of type SL_CFG_SECRET may be given as <key>_file: path; it is never printed nor logged.
 * Lists    a key of type SL_CFG_LIST holds scalars. A table of entries (inboxes, agents, tokens) is declared by a section key
 *          ending in ".*": every child mapping `inboxes.<name>.<key>` is checked against the keys below `inboxes.*.`.
 */
#ifndef BASE_CONFIG_H
#define BASE_CONFIG_H

#include "base/str.h"

enum sl_cfg_type { SL_CFG_STR, SL_CFG_INT, SL_CFG_BOOL, SL_CFG_MS, SL_CFG_BYTES, SL_CFG_LIST, SL_CFG_SECRET };

struct sl_key {
    const char *key; /* "gateway.listen", "inboxes.*.channel" */
    enum sl_cfg_type type;
    /* The default, in the file's spelling; NULL: must be given (for ".*." keys: in every entry). */
    const char *fallback;
    int64_t min, max;   /* for numbers, durations (ms) and sizes (bytes); 0,0: no range */
    bool is_reloadable; /* HUP takes it over; otherwise a change is reported as "needs a restart" */
    const char *help;   /* one line, English; docs and --print-config show it */
};
/* Durations: 250ms, 5s, 10m, 2h, 1d. Sizes: 64KiB, 10MiB, or plain bytes. */

struct sl_config;
/* keys: a NULL-key-terminated table, borrowed for the life of the config. path NULL: defaults and environment only.
 * A file of no bytes is refused, since that is what one looks like while it is written again. */
struct sl_config *sl_config_load(const struct sl_key *keys, const char *path, struct sl_fail *why);
struct sl_config *sl_config_load_text(const struct sl_key *keys, struct sl_str yaml, const char *name,
                                      struct sl_fail *why);
/* The same without the environment: for a file that is data of one module, not the configuration of a process. */
struct sl_config *sl_config_load_data(const struct sl_key *keys, struct sl_str yaml, const char *name,
                                      struct sl_fail *why);
void sl_config_free(struct sl_config **cfg);

/* asserts that the key is in the table */
const char *sl_config_str(const struct sl_config *cfg, const char *key);
int64_t sl_config_int(const struct sl_config *cfg, const char *key); /* INT, MS, BYTES */
bool sl_config_bool(const struct sl_config *cfg, const char *key);
size_t sl_config_list(const struct sl_config *cfg, const char *key, const char *const **items);
/* Does the file, the environment or the command line say anything of it? A key that is in no table: no. */
bool sl_config_is_given(const struct sl_config *cfg, const char *key);
/* "inboxes" -> names in file order */
size_t sl_config_entries(const struct sl_config *cfg, const char *section, const char *const **names);
/* Write every key with value, origin (default, file:line, env) and help; secrets as "(set)" or "(empty)". */
void sl_config_print(const struct sl_config *cfg, struct sl_buf *out);
/* Keys that differ and are not reloadable, one a line, into out. */
void sl_config_diff(const struct sl_config *old, const struct sl_config *now, struct sl_buf *needs_restart);
/* Content hash over all values (secrets included), 16 hex digits: rules travel under such a hash. */
void sl_config_hash(const struct sl_config *cfg, const char *prefix, char out[17]);

#endif
