/* tests/contract/smpp_case.c - a message centre as the provider of the nine rules. */
#include "tests/contract/channel_case.h"

#include "tests/contract/smsc_play.h"

#include <stdio.h>

#define IDS_MAX 16
static struct {
    char id[32];
    uint32_t seq;
} given[IDS_MAX];
static unsigned count;

static void smpp_before_open(struct sl_loop *l)
{
    smsc_play_open(l);
    count = 0;
}

static void smpp_deliver(struct chan *ch, const char *id)
{
    struct smpp_pdu p = {.command = SMPP_DELIVER_SM,
                         .source = {1, 1, SL_STR("8613800138000")},
                         .destination = {0, 1, SL_STR("10690")},
                         .text = sl_str_c(id)};
    bool is_first = true;
    for (unsigned i = 0; i < count; i++)
        is_first = is_first && strcmp(given[i].id, id) != 0;
    (void)ch; /* it has connected again by now */
    sl_assert(count < IDS_MAX);
    (void)snprintf(given[count].id, sizeof given[count].id, "%s", id);
    if (strcmp(id, "late") == 0 && smsc.binds > 0 &&
        smsc.answers == 0) { /* drained: it may have unbound already */
        given[count++].seq = 0;
        return;
    }
    given[count].seq = smsc_play_deliver(&p);
    /* the connection breaks as our answer goes out: it never saw it, and comes again on the next one */
    if (strcmp(id, "same") == 0 && is_first)
        smsc.cut_after_answer_of = given[count].seq;
    count++;
}

static int smpp_answered(const char *id)
{
    uint32_t status;
    for (unsigned i = count; i > 0; i--)
        if (strcmp(given[i - 1].id, id) == 0)
            return !smsc_play_answered(given[i - 1].seq, &status) ? 0 : status == SMPP_OK ? 200 : (int)status;
    return 0;
}

const struct channel_case smpp_case = {
    .channel = "smpp",
    .yaml = "host: smsc.example, system_id: sluice, password: secret08, source: Sluice, enquire: 600s",
    .bad_yaml = "host: smsc.example, system_id: sluice, password: muchtoolong",
    .bad_secret = "muchtoolong",
    .address = "+8613800138000",
    .ok_status = 200,
    .busy_status = SMPP_TEMPORARY,
    .deliver = smpp_deliver,
    .answered = smpp_answered,
    .before_open = smpp_before_open,
    .after_close = smsc_play_close};
