/* tests/contract/smsc_play.c - see smsc_play.h. */
#include "tests/contract/smsc_play.h"

#include "channels/sms/smpp_link.h"

#include <stdio.h>
#include <stdlib.h>

struct smpp_link {
    struct sl_loop *loop;
    const struct smpp_link_events *ev;
    void *arg;
    struct sl_post turn;
    bool is_open, is_cut;
    struct sl_buf from_client, to_client;
};

struct smsc_play smsc;
static struct sl_loop *loop;
static struct smpp_link *latest;

static void on_turn(void *arg);

static struct smpp_link *play_open(struct sl_loop *l, const struct smpp_target *to,
                                   const struct smpp_link_events *ev, void *arg)
{
    struct smpp_link *k = sl_alloc(sizeof *k);
    (void)to;
    *k = (struct smpp_link){.loop = l, .ev = ev, .arg = arg};
    sl_buf_init(&k->from_client, 0);
    sl_buf_init(&k->to_client, 0);
    sl_post_init(&k->turn, l, on_turn, k);
    sl_post_now(&k->turn);
    smsc.connections++;
    latest = k;
    return k;
}

static void play_write(struct smpp_link *k, struct sl_str bytes)
{
    sl_buf_str(&k->from_client, bytes);
    sl_post_now(&k->turn);
}

static size_t play_waiting(const struct smpp_link *k)
{
    return smsc.is_stalled ? k->from_client.len : 0;
}

static void play_close(struct smpp_link **kp)
{
    struct smpp_link *k = *kp;
    *kp = NULL;
    if (k == NULL)
        return;
    if (latest == k)
        latest = NULL;
    sl_post_cancel(&k->turn);
    sl_buf_fini(&k->from_client);
    sl_buf_fini(&k->to_client);
    free(k);
}

static void reply(struct smpp_link *k, const struct smpp_pdu *p)
{
    if (smsc.is_mute)
        return;
    if (p->status != 0)
        smpp_write_bare(&k->to_client, p->command, p->status, p->seq);
    else
        sl_assert(smpp_pdu_write(&k->to_client, p) == SL_OK);
}

static void on_submit(struct smpp_link *k, struct sl_str frame, const struct smpp_pdu *p)
{
    char id[32];
    uint32_t status = smsc.submit_status_once != 0 ? smsc.submit_status_once : smsc.submit_status;
    smsc.submit_status_once = 0;
    sl_assert(smsc.submits < SMSC_PDUS_MAX);
    sl_buf_init(&smsc.submit[smsc.submits], 0);
    sl_buf_str(&smsc.submit[smsc.submits++], frame);
    bool is_odd = smsc.submits == smsc.odd_one;
    if (smsc.is_silent || (is_odd && smsc.odd_status == 0))
        return;
    status = is_odd ? smsc.odd_status : status;
    (void)snprintf(id, sizeof id, "%08X", smsc.submits);
    reply(k,
          &(struct smpp_pdu){
              .command = SMPP_SUBMIT_SM_RESP, .status = status, .seq = p->seq, .message_id = sl_str_c(id)});
}

static void on_answer(struct smpp_link *k, const struct smpp_pdu *p)
{
    sl_assert(smsc.answers < SMSC_PDUS_MAX);
    smsc.answer[smsc.answers].seq = p->seq;
    smsc.answer[smsc.answers].command = p->command;
    smsc.answer[smsc.answers++].status = p->status;
    if (smsc.cut_after_answer_of == 0 || p->seq != smsc.cut_after_answer_of)
        return;
    smsc.cut_after_answer_of = 0;
    k->is_cut = true;
}

static void on_pdu(struct smpp_link *k, struct sl_str frame)
{
    struct smpp_pdu p;
    sl_assert(smpp_pdu_read(frame, &p) == SMPP_OK);
    switch (p.command) {
    case SMPP_BIND_TRANSCEIVER:
    case SMPP_BIND_RECEIVER:
    case SMPP_BIND_TRANSMITTER:
        smsc.binds++;
        reply(k, &(struct smpp_pdu){.command = p.command | SMPP_RESP,
                                    .status = smsc.bind_status,
                                    .seq = p.seq,
                                    .system_id = SL_STR("smsc")});
        return;
    case SMPP_ENQUIRE_LINK:
        smsc.enquires++;
        reply(k, &(struct smpp_pdu){.command = SMPP_ENQUIRE_LINK_RESP, .seq = p.seq});
        return;
    case SMPP_UNBIND:
        reply(k, &(struct smpp_pdu){.command = SMPP_UNBIND_RESP, .seq = p.seq});
        return;
    case SMPP_SUBMIT_SM:
        on_submit(k, frame, &p);
        return;
    case SMPP_QUERY_SM:
        reply(k, &(struct smpp_pdu){.command = SMPP_QUERY_SM_RESP,
                                    .status = smsc.submit_status,
                                    .seq = p.seq,
                                    .message_id = p.message_id,
                                    .state = 2});
        return;
    default:
        on_answer(k, &p);
    }
}

static void read_client(struct smpp_link *k)
{
    size_t len, done = 0;
    while (!smsc.is_stalled) {
        struct sl_str rest = sl_str_n(sl_buf_view(&k->from_client).ptr + done, k->from_client.len - done);
        if (smpp_frame(rest, &len) != SMPP_FRAME_WHOLE)
            break;
        on_pdu(k, sl_str_n(rest.ptr, len));
        done += len;
    }
    if (done > 0)
        sl_buf_cut(&k->from_client, done);
}

static void on_turn(void *arg)
{
    struct smpp_link *k = arg;
    if (!k->is_open && smsc.refuses_connections) {
        k->ev->closed(k->arg, "refused by the script");
        return;
    }
    if (!k->is_open) {
        k->is_open = true;
        sl_post_now(&k->turn);
        k->ev->opened(k->arg);
        return;
    }
    read_client(k);
    if (k->to_client.len > 0) {
        struct sl_buf bytes = k->to_client;
        sl_buf_init(&k->to_client, 0);
        sl_post_now(&k->turn);
        k->ev->bytes(k->arg, sl_buf_view(&bytes)); /* k may be gone now */
        sl_buf_fini(&bytes);
        return;
    }
    if (k->is_cut)
        k->ev->closed(k->arg, "cut by the script");
}

static const struct smpp_link_ops ops = {play_open, play_write, play_waiting, play_close};

void smsc_play_open(struct sl_loop *l)
{
    smsc_play_close();
    loop = l;
    latest = NULL;
    smpp_link_play(&ops);
}

void smsc_play_close(void)
{
    for (unsigned i = 0; i < smsc.submits; i++)
        sl_buf_fini(&smsc.submit[i]);
    memset(&smsc, 0, sizeof smsc);
}

void smsc_play_send(struct sl_str bytes)
{
    sl_assert(latest != NULL);
    sl_buf_str(&latest->to_client, bytes);
    sl_post_now(&latest->turn);
}

uint32_t smsc_play_deliver(struct smpp_pdu *p)
{
    struct sl_buf b;
    sl_buf_init(&b, 0);
    p->seq = ++smsc.last_seq;
    sl_assert(smpp_pdu_write(&b, p) == SL_OK);
    smsc_play_send(sl_buf_view(&b));
    sl_buf_fini(&b);
    return p->seq;
}

void smsc_play_cut(void)
{
    sl_assert(latest != NULL);
    latest->is_cut = true;
    sl_post_now(&latest->turn);
}

bool smsc_play_answered(uint32_t seq, uint32_t *status)
{
    for (unsigned i = 0; i < smsc.answers; i++) {
        if (smsc.answer[i].seq != seq)
            continue;
        *status = smsc.answer[i].status;
        return true;
    }
    return false;
}

void smsc_play_read_submit(unsigned i, struct smpp_pdu *p)
{
    sl_assert(i < smsc.submits);
    sl_assert(smpp_pdu_read(sl_buf_view(&smsc.submit[i]), p) == SMPP_OK);
}
