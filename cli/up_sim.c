#include "cli/up_sim.h"

#include "cli/cli.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* The ports of a run. A key of the configuration learns each port that the gateway has to know. */
static const struct {
    const char *option, *before, *key, *key_before;
} ports[] = {
    {"--port", "", NULL, NULL},
    {"--wechat-port", "", "inboxes.wechat.api_url", "http://127.0.0.1:"},
    {"--smpp-port", "", "inboxes.sms.port", ""},
    {"--smtp-port", "", "inboxes.email.smtp_url", "smtp://127.0.0.1:"},
    {"--lmtp", "127.0.0.1:", "inboxes.email.lmtp_listen", "127.0.0.1:"},
};
#define PORT_COUNT (sizeof ports / sizeof *ports)

static int bind_any(unsigned *port)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    const bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0 &&
                    getsockname(fd, (struct sockaddr *)&at, &len) == 0;
    *port = ok ? ntohs(at.sin_port) : 0;
    return fd;
}

unsigned cli_up_any_port(void)
{
    unsigned port = 0;
    const int fd = bind_any(&port);
    if (fd >= 0)
        close(fd);
    return port;
}

static void SL_PRINTF(2, 3) add(struct cli_up_sim *s, const char *fmt, ...)
{
    va_list args;
    sl_assert(s->word_count < CLI_UP_SIM_ARGS);
    va_start(args, fmt);
    const int n = vsnprintf(s->words[s->word_count++], sizeof s->words[0], fmt, args);
    va_end(args);
    sl_assert(n > 0 && (size_t)n < sizeof s->words[0]);
}

sl_err cli_up_sim_prepare(struct cli_up_sim *s, unsigned gateway, struct sl_fail *why)
{
    unsigned number[PORT_COUNT];
    int held[PORT_COUNT];
    sl_err err = SL_OK;
    for (size_t i = 0; i < PORT_COUNT; i++) /* all at once, so that no port is chosen twice */
        held[i] = bind_any(&number[i]);
    s->page_port = number[0];
    add(s, "--gateway");
    add(s, "http://127.0.0.1:%u", gateway);
    for (size_t i = 0; i < PORT_COUNT; i++) {
        char setting[160];
        if (held[i] >= 0)
            close(held[i]);
        if (number[i] == 0)
            err = sl_fail_set(why, SL_ECONFLICT, 0, "there is no free port on 127.0.0.1");
        add(s, "%s", ports[i].option);
        add(s, "%s%u", ports[i].before, number[i]);
        if (err != SL_OK || ports[i].key == NULL)
            continue;
        (void)snprintf(setting, sizeof setting, "%s=%s%u", ports[i].key, ports[i].key_before, number[i]);
        err = cli_set(setting, why);
    }
    if (err == SL_OK &&
        getenv("SLUICE_MEDIA_PUBLIC_URL") == NULL) { /* what a phone cannot show is a link that opens */
        char setting[64];
        (void)snprintf(setting, sizeof setting, "media.public_url=http://127.0.0.1:%u", gateway);
        err = cli_set(setting, why);
    }
    return err;
}
