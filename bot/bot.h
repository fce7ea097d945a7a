/* bot/bot.h - the role `sluice bot`: a worker that answers from a file of questions and answers.
 *
 * What     puts together bus, worker and knowledge base; the command line starts, drains, reloads and frees
 *          it.
 * Threads  everything on the one loop.
 * Read     docs/write-a-bot.md for the contract between a bot and the router.
 */
#ifndef BOT_BOT_H
#define BOT_BOT_H

#include "base/config.h"
#include "bus/bus.h"

struct bot;
/* What the table of keys cannot check: names, and that the file of questions can be read. */
sl_err bot_check(const struct sl_config *cfg, struct sl_fail *why) SL_MUST_CHECK;
extern const struct sl_key bot_keys[]; /* ends with a NULL key */

/* NULL with *why filled when the configuration or the file of questions is wrong. on_stopped follows
 * bot_drain. */
struct bot *bot_start(struct sl_loop *l, const struct sl_config *cfg, const struct bus_config *store,
                      void (*on_stopped)(void *), void *arg, struct sl_fail *why);
void bot_drain(struct bot *b);
void bot_reload(
    struct bot *b,
    const struct sl_config *cfg); /* reads the file of questions again; a wrong one changes nothing */
void bot_free(struct bot **b);

#endif
