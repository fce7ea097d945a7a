/* channels/webhook/webhook_map.h - from a provider's body to events, by rules that are data.
 *
 * What     pure. A rule names the items of a batch ("/entry/ * /changes/ * /value/messages/ *", without the blanks), the conditions
 *          an item must meet, and templates that make id, sender, text and so on from it. Inside them /a/b is a JSON pointer (RFC 6901)
 *          from the item, $/a/b one from the root, where * stands for the index that led to the item; $header.x is a header,
 *          . the item itself, /a#/b the pointer /b into the JSON text that /a is.
 * Order    events come in the order of the items, whatever rules they meet; the first rule that fits counts.
 * Limits   base/json.h's for the body; WEBHOOK_EVENTS_MAX events. A peer's body never does more than be refused.
 */
#ifndef CHANNELS_WEBHOOK_WEBHOOK_MAP_H
#define CHANNELS_WEBHOOK_WEBHOOK_MAP_H

#include "channels/channel.h"

#define WEBHOOK_EVENTS_MAX 100 /* in one request */

enum webhook_does { WEBHOOK_MESSAGE, WEBHOOK_RECEIPT, WEBHOOK_IGNORE };

struct webhook_map_rule {
    const char *name; /* of the entry, for words */
    const char *each; /* empty: the root is the one item */
    const char *const *when;
    size_t when_count;
    enum webhook_does does;
    enum msg_kind kind;
    /* templates; empty: none */
    const char *id, *from, *text, *at, *data, *media, *media_type, *media_name;
    const char *const *context; /* "name=template" */
    size_t context_count;
    const char *remote_id, *word, *code, *words;
    const char *const *word_map; /* "READ=read" */
    size_t word_map_count;
};
struct webhook_map {
    struct webhook_map_rule *rules;
    size_t count;
};

struct webhook_event { /* borrowed until the callback returns */
    const struct webhook_map_rule *rule;
    struct sl_str id, from, text, data, context; /* data, context: JSON objects or empty */
    struct sl_str media, media_type, media_name;
    struct sl_str remote_id, code, words;
    enum chan_outcome_word word;
    int64_t at_unix_ms;
};

struct webhook_body; /* parsed */
/* form: names and values as an object of strings, a repeated name keeps its first value. NULL: why says (EINVAL, ETOOBIG). */
struct webhook_body *webhook_body_read(struct sl_str bytes, bool is_form, struct sl_fail *why);
void webhook_body_free(struct webhook_body **b);
/* The value at a pointer from the root as text; empty when absent. */
void webhook_body_get(const struct webhook_body *b, struct sl_str pointer, struct sl_buf *out);
bool webhook_body_meets(const struct webhook_body *b, const char *const *when, size_t count);
/* Expand a template whose names are pointers (and what more knows). */
sl_err webhook_body_expand(const struct webhook_body *b, struct sl_str text, bool is_json, struct sl_buf *out,
                           struct sl_fail *why) SL_MUST_CHECK;

typedef struct sl_str (*webhook_header_fn)(void *arg, const char *lower_case_name);
typedef void (*webhook_event_fn)(void *arg, const struct webhook_event *e);
/* SL_OK; EINVAL: an item met a rule but misses its id or sender; ETOOBIG. Events before the bad one have been given. ignored: items
 * that met no rule. */
sl_err webhook_map_run(const struct webhook_map *map, const struct webhook_body *b, webhook_header_fn header,
                       void *header_arg, webhook_event_fn fn, void *arg, size_t *ignored,
                       struct sl_fail *why) SL_MUST_CHECK;
/* Does a rule make sense: pointers begin with a slash, templates are closed, words are known. */
sl_err webhook_map_check(const struct webhook_map_rule *r, struct sl_fail *why) SL_MUST_CHECK;

#endif
