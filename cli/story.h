/* cli/story.h - the scripted conversation of `sluice up --once`: a customer, the bot, an agent. The agent has a real WebSocket; so has
 * the visitor of the web chat, and customers of other channels write through a simulated provider.
 *
 * What     asks the bot in Chinese and in English, asks for a person, the agent logs in, accepts, answers, closes; the visitor rates.
 *          Each step must happen within its deadline; the transcript with measured times goes to stdout.
 * Owner    up.c. fn is called once, never before start returns; then (or before, to give up) call cli_story_free.
 */
#ifndef CLI_STORY_H
#define CLI_STORY_H

#include "base/loop.h"

#define CLI_STORY_TOKEN_BYTES 128

struct cli_story;
struct cli_story_config {
    const char *ip;
    unsigned port;
    const char *inbox;      /* of the web chat */
    const char *channel;    /* of the simulators ("wechat", "sms", "email"); NULL: the web chat */
    const char *customer;   /* her id there */
    unsigned sim_port;      /* where the simulators are */
    const char *once_token; /* logs the agent in; NULL: `token` does */
    char *
        token; /* CLI_STORY_TOKEN_BYTES: the agent's token, filled by the login, used by the stories after it */
    const char *agent; /* her id, for the transcript */
};
struct cli_story *cli_story_start(struct sl_loop *l, const struct cli_story_config *cfg,
                                  void (*fn)(void *arg, bool is_complete), void *arg);
void cli_story_free(struct cli_story **s);

#endif
