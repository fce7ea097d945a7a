/* tests/contract/pager_case.c - the service for pagers, for the nine rules. */
#include "tests/contract/channel_case.h"

#include "base/http_client.h"

#include <stdio.h>

static void pager_build(struct channel_post *out, const char *id, int64_t now_unix_ms)
{
    (void)now_unix_ms;
    out->header[0][0] = "authorization";
    out->header[0][1] = "Bearer sixteen bytes or more of it";
    (void)snprintf(out->body, sizeof out->body, "{\"from\":\"a\",\"id\":\"%s\",\"text\":\"hi\"}", id);
}

/* The service takes everything. */
static void pager_service(void *arg, struct sl_http *h, uint64_t id, const struct sl_http_request *rq)
{
    (void)arg;
    (void)rq;
    (void)sl_http_fake_answer(h, id, &(struct sl_http_answer){.err = SL_OK, .status = 202});
}

static void pager_before_open(struct sl_loop *loop)
{
    (void)loop;
    sl_http_fake_set(&(struct sl_http_fake){.request = pager_service});
}

static void pager_after_close(void)
{
    sl_http_fake_set(NULL);
}

const struct channel_case pager_case = {
    .channel = "pager",
    .yaml = "secret: sixteen bytes or more of it, url: \"http://pager.example/send\"",
    .bad_yaml = "secret: abbreviated",
    .bad_secret = "abbreviated",
    .ok_status = 204,
    .busy_status = 503,
    .build = pager_build,
    .before_open = pager_before_open,
    .after_close = pager_after_close};
