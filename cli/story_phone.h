/* cli/story_phone.h - a customer of a simulated provider (tests/fakes/play.mjs): she writes, and her phone shows what came.
 *
 * What     talks HTTP to the simulators' port: POST /<channel>/customer, and GET /<channel>/customer/<id> that waits for more.
 * Calls    never call back before they return. `written` follows each say: the gateway has it (or not, with words). `shown` for each
 *          entry that is not her own; json is borrowed. `failed` is the last call.
 * Owner    story.c.
 */
#ifndef CLI_STORY_PHONE_H
#define CLI_STORY_PHONE_H

#include "base/json.h"
#include "base/loop.h"

struct cli_phone;
struct cli_phone_config {
    const char *ip;
    unsigned port;
    const char *channel, *customer;
};
struct cli_phone_ops {
    void (*written)(void *arg, bool ok);
    void (*shown)(void *arg, const json_t *entry);
    void (*failed)(void *arg, const char *why);
};
struct cli_phone *cli_phone_open(struct sl_loop *l, const struct cli_phone_config *cfg,
                                 const struct cli_phone_ops *ops, void *arg);
/* menu: the id of a menu's item that she chose; empty: none. One at a time: after `written` of the one before. */
void cli_phone_say(struct cli_phone *p, struct sl_str text, struct sl_str menu);
void cli_phone_close(struct cli_phone **p);

#endif
