/* channels/webhook/webhook_template.h - texts with ${name} in them: what is signed, and the calls we make.
 *
 * What     pure. ${name} is replaced by what lookup appends, escaped for where it stands; ${name:json} is escaped for JSON once more
 *          (a JSON text inside a JSON string), ${name:url} for a URL, ${name:raw} not at all (a header stays checked). A dollar sign without a brace stands for itself.
 * Errors   EINVAL: a name that is not known, a brace that is not closed, a value that cannot stand there (a line break in a header,
 *          bytes that are no UTF-8 in JSON). ETOOBIG: out is full.
 */
#ifndef CHANNELS_WEBHOOK_WEBHOOK_TEMPLATE_H
#define CHANNELS_WEBHOOK_WEBHOOK_TEMPLATE_H

#include "base/str.h"

enum webhook_escape { WEBHOOK_RAW, WEBHOOK_IN_JSON, WEBHOOK_IN_URL, WEBHOOK_IN_HEADER };
/* Append the value of this name to out; false: there is no such name. */
typedef bool (*webhook_lookup_fn)(void *arg, struct sl_str name, struct sl_buf *out);

#define WEBHOOK_NAME_MAX 200 /* bytes between the braces */
sl_err webhook_expand(struct sl_str text, enum webhook_escape where, webhook_lookup_fn lookup, void *arg,
                      struct sl_buf *out, struct sl_fail *why) SL_MUST_CHECK;

#endif
