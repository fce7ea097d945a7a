/* tests/contract/loopback_case.c - the callers of the loopback adapter. */
#include "tests/contract/channel_case.h"

#include <stdio.h>

static void loopback_build(struct channel_post *out, const char *id, int64_t now_unix_ms)
{
    (void)now_unix_ms;
    out->header[0][0] = "authorization";
    out->header[0][1] = "Bearer sixteen bytes or more of it";
    out->header[1][0] = "content-type";
    out->header[1][1] = "application/json";
    (void)snprintf(out->body, sizeof out->body,
                   "{\"address\":\"a\",\"id\":\"%s\",\"kind\":\"text\",\"text\":\"hi\"}", id);
}

const struct channel_case loopback_case = {.channel = "loopback",
                                           .yaml = "secret: sixteen bytes or more of it",
                                           .bad_yaml = "secret: abbreviated",
                                           .bad_secret = "abbreviated",
                                           .ok_status = 202,
                                           .busy_status = 503,
                                           .build = loopback_build};
