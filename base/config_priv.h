/* base/config_priv.h - what config.c (layers, questions), config_yaml.c (the file) and config_value.c (one
 * value) share. */
#ifndef BASE_CONFIG_PRIV_H
#define BASE_CONFIG_PRIV_H

#include "base/config.h"
#include "base/map.h"

#define CONFIG_DEPTH_MAX  8
#define CONFIG_NAME_MAX   64         /* bytes of one part of a key */
#define CONFIG_PATH_MAX   512        /* bytes of a whole key */
#define CONFIG_LIST_MAX   1000       /* items of one list */
#define CONFIG_FILE_MAX   (1u << 20) /* bytes of the file */
#define CONFIG_SECRET_MAX (64u << 10)

enum config_origin { CONFIG_DEFAULT, CONFIG_FILE, CONFIG_ENV };

/* Where something was said, for messages: "sluice.yaml:3:5" or "environment SLUICE_A__B". */
struct config_place {
    enum config_origin origin;
    const char *name;    /* file or variable; borrowed */
    size_t line, column; /* 1-based; 0: none */
};

struct config_value {
    const struct sl_key *key;
    char *name; /* in full: "inboxes.web.channel" */
    enum config_origin origin;
    char *origin_name; /* file or variable; NULL for a default */
    size_t line;
    char *text; /* as spelled; a secret's bytes; NULL for a list */
    int64_t number;
    char **items;
    size_t items_count;
};

struct config_section { /* "inboxes" and the names of its entries */
    char **names;
    struct config_place *places; /* where each stood first */
    size_t count;
};

struct sl_config {
    const struct sl_key *keys;
    char *file;
    struct sl_map *values;   /* name in full -> struct config_value */
    struct sl_map *sections; /* path -> struct config_section */
    struct config_value **ordered;
    size_t ordered_count;
};

/* config.c */
/* NULL: no such key. */
const struct sl_key *sl_config_key_find(const struct sl_config *cfg, struct sl_str path);
bool sl_config_is_section(const struct sl_config *cfg, struct sl_str path); /* keys stand below it */
/* a section, a key, or a secret's <key>_file */
bool sl_config_is_known(const struct sl_config *cfg, struct sl_str path);
/* Remember the entry, when path names one ("inboxes.web"). */
void sl_config_entry_note(struct sl_config *cfg, struct sl_str path, struct config_place place);
bool sl_config_is_name(struct sl_str part);
/* Take a scalar for path, which may be a secret's <key>_file. */
sl_err sl_config_set_scalar(struct sl_config *cfg, struct sl_str path, struct sl_str text,
                            struct config_place place, struct sl_fail *why);
/* A new, empty value for path in this place; NULL when this layer has given it already. Stays cfg's. */
struct config_value *sl_config_value_new(struct sl_config *cfg, const struct sl_key *key, struct sl_str path,
                                         struct config_place place, struct sl_fail *why);
sl_err sl_config_fail(struct sl_fail *why, struct config_place place, const char *fmt, ...) SL_PRINTF(3, 4);
sl_err sl_config_fail_unknown(const struct sl_config *cfg, struct sl_str path, struct config_place place,
                              struct sl_fail *why);

/* config_yaml.c */
sl_err sl_config_yaml_read(struct sl_config *cfg, struct sl_str yaml, struct sl_fail *why) SL_MUST_CHECK;

/* config_value.c: pure */
const char *sl_config_type_words(enum sl_cfg_type type); /* "a duration such as 5s" */
sl_err sl_config_value_parse(struct config_value *v, struct sl_str text, struct config_place place,
                             struct sl_fail *why);
sl_err sl_config_value_add_item(struct config_value *v, struct sl_str text, struct config_place place,
                                struct sl_fail *why);
void sl_config_value_fini(struct config_value *v);
bool sl_config_value_eq(const struct config_value *a, const struct config_value *b);
void sl_config_value_print(const struct config_value *v, struct sl_buf *out);
void sl_config_value_digest(const struct config_value *v, struct sl_buf *out); /* equal values, equal bytes */

#endif
