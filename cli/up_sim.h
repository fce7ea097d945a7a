/* cli/up_sim.h - the simulated providers of `sluice up --sim FILE`: their ports, and what the configuration must know of them.
 *
 * What     FILE is tests/fakes/play.mjs, run by Node. Every port is a free one of this run; the inboxes of deploy/demo.yaml are pointed
 *          at them by environment variables, as everything that `up` sets.
 */
#ifndef CLI_UP_SIM_H
#define CLI_UP_SIM_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

#define CLI_UP_SIM_ARGS 16

/* Whom the story and the page play, on each simulated channel. */
#define CLI_UP_SIM_CHANNELS(X)                                                                               \
    X("wechat", "oDemoCustomer0000000000000001") X("sms", "13800138000") X("email", "customer@example.test")

struct cli_up_sim {
    const char *file; /* NULL: no simulators */
    unsigned page_port;
    char words[CLI_UP_SIM_ARGS][96]; /* of the command line */
    size_t word_count;
};

/* Chooses ports, sets the keys. `gateway` is its port. */
sl_err cli_up_sim_prepare(struct cli_up_sim *s, unsigned gateway, struct sl_fail *why) SL_MUST_CHECK;
unsigned cli_up_any_port(void); /* free now, on loopback; 0: none */

#endif
