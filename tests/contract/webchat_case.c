/* tests/contract/webchat_case.c - visitors have sockets: hello and frames are played by the rules themselves. */
#include "tests/contract/channel_case.h"

const struct channel_case webchat_case = {.channel = "webchat",
                                          .yaml = "secret: sixteen bytes or more of it",
                                          .bad_yaml = "secret: abbreviated",
                                          .bad_secret = "abbreviated"};
