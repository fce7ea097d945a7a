/* tests/contract/email_case.c - a mail server that delivers over LMTP, and one that takes every submission. */
#include "tests/contract/channel_case.h"

#include "channels/email/email_priv.h"

#include <stdio.h>
#include <stdlib.h>

#define TALKS_MAX 64

static struct talk {
    char id[32];
    char said[2048]; /* what the adapter's server wrote */
    struct email_conn *conn;
} talks[TALKS_MAX];
static unsigned count;

static void on_write(void *arg, struct sl_str bytes)
{
    struct talk *t = arg;
    const size_t n = strlen(t->said);
    (void)snprintf(t->said + n, sizeof t->said - n, "%.*s", (int)bytes.len, bytes.ptr);
}

static void on_close(void *arg)
{
    ((struct talk *)arg)->conn = NULL;
}

static void on_transfer(void *arg, struct sl_http *h, uint64_t id, const struct sl_http_transfer *t)
{
    (void)arg;
    (void)t;
    sl_assert(sl_http_fake_done(h, id, SL_OK, true, NULL));
}

static void email_before_open(struct sl_loop *loop)
{
    (void)loop;
    count = 0;
    sl_http_fake_set(&(struct sl_http_fake){.transfer = on_transfer});
}

static void email_deliver(struct chan *ch, const char *id)
{
    char text[1024];
    sl_assert(count < TALKS_MAX);
    struct talk *t = &talks[count++];
    *t = (struct talk){.said = ""};
    (void)snprintf(t->id, sizeof t->id, "%s", id);
    t->conn = email_lmtp_accept(email_of(ch)->lmtp, &(struct email_transport){on_write, on_close, t});
    if (t->conn == NULL)
        return;
    (void)snprintf(
        text, sizeof text,
        "LHLO mx\r\nMAIL FROM:<zhang@example.cn>\r\nRCPT TO:<support@sluice.example>\r\nDATA\r\n"
        "From: zhang@example.cn\r\nMessage-ID: <%s@example.cn>\r\nSubject: hi\r\n\r\nhello\r\n.\r\n",
        id);
    email_conn_bytes(t->conn, sl_str_c(text));
}

/* The code of the reply after 354. */
static int email_answered(const char *id)
{
    for (unsigned i = count; i > 0; i--) {
        if (strcmp(talks[i - 1].id, id) != 0)
            continue;
        const char *go = strstr(talks[i - 1].said, "354 ");
        const char *end = go != NULL ? strstr(go, "\r\n") : NULL;
        if (go == NULL)
            return strstr(talks[i - 1].said, "\r\n451 ") != NULL ? 451 : 0;
        return end[2] != '\0' ? (int)strtol(end + 2, NULL, 10) : 0;
    }
    return 0;
}

const struct channel_case email_case = {
    .channel = "email",
    .yaml =
        "secret: sixteen bytes or more, address: support@sluice.example, lmtp_listen: \"127.0.0.1:2400\", "
        "smtp_url: \"smtps://mail.example:465\"",
    .bad_yaml = "secret: abbreviated, address: support@sluice.example, lmtp_listen: \"127.0.0.1:2400\"",
    .bad_secret = "abbreviated",
    .address = "zhang@example.cn",
    .context = "{\"message_id\":\"<m1@example.cn>\",\"subject\":\"hi\",\"from\":\"zhang@example.cn\","
               "\"to\":\"zhang@example.cn\",\"references\":[]}",
    .ok_status = 250,
    .busy_status = 451,
    .deliver = email_deliver,
    .answered = email_answered,
    .before_open = email_before_open};
