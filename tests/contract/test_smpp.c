/* tests/contract/test_smpp.c - the adapter "smpp" against a message centre in memory, on a virtual clock: outcomes, windows, receipts,
 * long messages, repeats, and peers that misbehave. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include <stdio.h>

#include "channels/sms/smpp.h"
#include "channels/sms/smpp_link.h"
#include "channels/sms/smpp_part.h"
#include "tests/contract/channel_case.h"
#include "tests/contract/smsc_play.h"

#define JOBS_MAX 64
#define IN_MAX   64

struct chan_job {
    unsigned settled;
    enum chan_outcome outcome;
    bool may_retry, is_account;
    char ids[512], code[40], words[200], done[CHAN_DONE_MAX + 1];
};
struct in {
    char id[130], who[130], text[4000], data[200], context[200];
    struct chan_ticket *ticket;
};
struct receipt {
    char id[100], code[40];
    enum chan_outcome_word word;
};

static struct {
    struct sl_loop *loop;
    struct sl_config *cfg;
    struct chan *ch;
    struct chan_job job[JOBS_MAX];
    struct in in[IN_MAX];
    struct receipt receipt[IN_MAX];
    unsigned ins, receipts, ups, downs, alarms;
    bool is_store_down, is_closed, is_slow; /* is_slow: accepted() is left to the test */
    struct sl_post turn;
    struct chan_ticket *waiting[IN_MAX];
    unsigned waits;
} w;

/* ---- the host ---- */

static void accept_all(void *arg)
{
    (void)arg;
    unsigned n = w.waits;
    w.waits = 0;
    for (unsigned i = 0; i < n; i++)
        chan_accepted(w.ch, w.waiting[i], SL_OK);
}

static void to_accept(struct chan_ticket *t)
{
    assert_true(w.waits < IN_MAX);
    w.waiting[w.waits++] = t;
    if (!w.is_slow)
        sl_post_now(&w.turn);
}

static void keep(char *out, size_t size, struct sl_str s)
{
    assert_true(s.len < size);
    memcpy(out, s.ptr, s.len);
    out[s.len] = '\0';
}

/* The store's part: the same id again is no second message. */
static sl_err host_inbound(struct chan *ch, const struct msg *m, struct chan_ticket *t)
{
    (void)ch;
    if (w.is_store_down)
        return SL_EAGAIN;
    to_accept(t);
    for (unsigned i = 0; i < w.ins; i++)
        if (sl_str_eq_c(m->id, w.in[i].id))
            return SL_OK;
    struct in *in = &w.in[w.ins++];
    keep(in->id, sizeof in->id, m->id);
    keep(in->who, sizeof in->who, m->who);
    keep(in->text, sizeof in->text, m->text);
    keep(in->data, sizeof in->data, m->data);
    keep(in->context, sizeof in->context, t->context);
    return SL_OK;
}

static sl_err host_receipt(struct chan *ch, const struct chan_receipt *r, struct chan_ticket *t)
{
    (void)ch;
    if (w.is_store_down)
        return SL_EAGAIN;
    struct receipt *out = &w.receipt[w.receipts++];
    keep(out->id, sizeof out->id, r->remote_id);
    keep(out->code, sizeof out->code, r->code);
    out->word = r->word;
    to_accept(t);
    return SL_OK;
}

static void host_settled(struct chan *ch, struct chan_job *job, const struct chan_result *r)
{
    (void)ch;
    assert_int_equal(job->settled++, 0);
    job->outcome = r->outcome;
    job->may_retry = r->may_retry;
    job->is_account = r->is_account;
    keep(job->ids, sizeof job->ids, r->remote_id);
    keep(job->code, sizeof job->code, r->code);
    keep(job->words, sizeof job->words, r->words);
    keep(job->done, sizeof job->done, r->done);
}

static void host_alarm(struct chan *ch, const char *code, bool is_on, const char *words)
{
    (void)ch;
    (void)code;
    (void)words;
    w.alarms += is_on;
}

static void host_state(struct chan *ch, enum chan_state now)
{
    (void)ch;
    w.ups += now == CHAN_UP;
    w.downs += now == CHAN_DOWN;
}

static void host_closed(struct chan *ch)
{
    (void)ch;
    w.is_closed = true;
}

static const struct chan_host host = {.inbound = host_inbound,
                                      .receipt = host_receipt,
                                      .settled = host_settled,
                                      .kv = fake_kv,
                                      .alarm = host_alarm,
                                      .state = host_state,
                                      .closed = host_closed};

/* ---- the world ---- */

static void run_ms(uint64_t ms)
{
    uint64_t end = sl_loop_mono_ms(w.loop) + ms, due;
    for (;;) {
        while (sl_loop_virtual_step(w.loop)) {
        }
        uint64_t now = sl_loop_mono_ms(w.loop);
        if (!sl_loop_virtual_next(w.loop, &due) || due > end)
            due = end;
        if (due < now)
            due = now;
        sl_loop_virtual_set(w.loop, due, sl_loop_unix_ms(w.loop) + (int64_t)(due - now));
        if (due == end && now == end)
            return;
    }
}

static void world_open_with(const char *more)
{
    struct sl_fail why = {.text = ""};
    char yaml[600];
    memset(&w, 0, sizeof w);
    int n = snprintf(yaml, sizeof yaml,
                     "inboxes: {box: {host: smsc.example, system_id: sluice, password: secret08%s, %s}}",
                     strstr(more, "source") == NULL ? ", source: Sluice, source_ton: 5" : "",
                     more[0] != '\0' ? more : "port: 2775");
    assert_true(n > 0 && (size_t)n < sizeof yaml);
    w.loop = sl_loop_new_virtual(1);
    sl_post_init(&w.turn, w.loop, accept_all, NULL);
    fake_services_open(w.loop);
    smsc_play_open(w.loop);
    w.cfg = sl_config_load_text(smpp_ops.keys, sl_str_c(yaml), "test", &why);
    if (w.cfg == NULL)
        fail_msg("%s", why.text);
    w.ch = chan_new(&smpp_ops, &host, NULL, w.loop, "box", "demo", w.cfg, &why);
    if (w.ch == NULL)
        fail_msg("%s", why.text);
    assert_int_equal(chan_start(w.ch), SL_OK);
    run_ms(100);
}

static void world_open(const char *more)
{
    world_open_with(more);
    assert_int_equal(w.ups, 1);
}

static void world_close(void)
{
    chan_close(w.ch);
    run_ms(100);
    assert_true(w.is_closed);
    chan_free(&w.ch);
    sl_config_free(&w.cfg);
    fake_services_close();
    smsc_play_close();
    sl_loop_close(&w.loop);
}

/* What an earlier try told of the part goes along. */
static sl_err send_again(unsigned job, const char *text, const char *context, const char *done);

static sl_err send_text(unsigned job, const char *text, const char *context)
{
    return send_again(job, text, context, "");
}

static sl_err send_again(unsigned job, const char *text, const char *context, const char *done)
{
    struct msg m = {.id = SL_STR("m"), .text = sl_str_c(text), .kind = MSG_TEXT};
    struct chan_send s = {.m = &m,
                          .address = SL_STR("+8613800138000"),
                          .key = SL_STR("key-1"),
                          .context = sl_str_c(context),
                          .part = 1,
                          .parts = 1,
                          .attempt = done[0] != '\0' ? 2 : 1,
                          .done = sl_str_c(done)};
    return chan_send(w.ch, &s, &w.job[job]);
}

static void repeat(char *out, size_t n, const char *unit)
{
    for (size_t i = 0; i < n; i++)
        memcpy(out + i * strlen(unit), unit, strlen(unit));
    out[n * strlen(unit)] = '\0';
}

/* ---- out ---- */

static void test_short_text_is_one_pdu(void **state)
{
    (void)state;
    struct smpp_pdu p;
    world_open("validity: 2h");
    assert_int_equal(send_text(0, "Hello {you} \xe2\x82\xac", ""), SL_OK);
    assert_int_equal(w.job[0].settled, 0); /* never from within send() */
    run_ms(10);
    assert_int_equal(smsc.submits, 1);
    smsc_play_read_submit(0, &p);
    assert_int_equal(p.data_coding, 0);
    assert_int_equal(p.registered, 1);
    assert_int_equal(p.esm_class, 0);
    assert_int_equal(p.destination.ton, 1);
    assert_true(sl_str_eq_c(p.destination.number, "8613800138000"));
    assert_true(sl_str_eq_c(p.source.number, "Sluice"));
    assert_true(sl_str_eq_c(p.validity, "000000020000000R"));
    assert_true(sl_str_eq_c(p.text, "Hello \x1b(you\x1b) \x1b\x65"));
    assert_int_equal(w.job[0].settled, 1);
    assert_int_equal(w.job[0].outcome, CHAN_SENT);
    assert_string_equal(w.job[0].ids, "1"); /* the message centre wrote 00000001 */
    world_close();
}

/* The text comes back from the parts, whichever way they are marked; all of them are one job. */
static void long_text_goes_by(const char *way, enum smpp_joint joint)
{
    char text[3 * 240 + 1], more[40];
    struct smpp_pdu p;
    struct smpp_part part;
    struct sl_buf octets, back;
    repeat(text, 240, "\xe4\xba\xba");
    (void)snprintf(more, sizeof more, "long_messages: %s, window: 3", way);
    world_open(more);
    assert_int_equal(send_text(0, text, ""), SL_OK);
    run_ms(10);
    assert_int_equal(smsc.submits, 4); /* 240 characters of 66 or 67 a part, over a window of 3 */
    sl_buf_init(&octets, 0);
    sl_buf_init(&back, 0);
    for (unsigned i = 0; i < 4; i++) {
        smsc_play_read_submit(i, &p);
        assert_true(p.text.len <= 140);
        assert_int_equal(smpp_part_read(&p, &part), SL_OK);
        assert_int_equal(part.joint, joint);
        assert_int_equal(part.seq, i + 1);
        assert_int_equal(part.total, 4);
        sl_buf_str(&octets, part.octets);
    }
    sms_decode(SMS_UCS2, sl_buf_view(&octets), &back);
    assert_true(sl_str_eq_c(sl_buf_view(&back), text));
    assert_int_equal(w.job[0].settled, 1);
    assert_int_equal(w.job[0].outcome, CHAN_SENT);
    assert_string_equal(w.job[0].ids, "1,2,3,4");
    sl_buf_fini(&octets);
    sl_buf_fini(&back);
    world_close();
}

static void test_long_text_in_parts(void **state)
{
    (void)state;
    long_text_goes_by("udh8", SMPP_UDH8);
    long_text_goes_by("udh16", SMPP_UDH16);
    long_text_goes_by("sar", SMPP_SAR);
}

static void test_long_text_as_payload(void **state)
{
    (void)state;
    char text[3 * 240 + 1];
    struct smpp_pdu p;
    repeat(text, 240, "\xe4\xba\xba");
    world_open("long_messages: payload");
    assert_int_equal(send_text(0, text, ""), SL_OK);
    run_ms(10);
    assert_int_equal(smsc.submits, 1);
    smsc_play_read_submit(0, &p);
    assert_true(p.has_payload);
    assert_int_equal(p.text.len, 480);
    world_close();
}

static void test_no_answer_is_unknown(void **state)
{
    (void)state;
    world_open("response_timeout: 5s");
    smsc.is_silent = true;
    assert_int_equal(send_text(0, "a", ""), SL_OK);
    run_ms(3000);
    assert_int_equal(w.job[0].settled, 0);
    run_ms(4000);
    assert_int_equal(w.job[0].outcome, CHAN_UNKNOWN);
    assert_int_equal(send_text(1, "b", ""), SL_OK);
    run_ms(10);
    smsc_play_cut();
    run_ms(10);
    assert_int_equal(w.job[1].settled, 1);
    assert_int_equal(w.job[1].outcome, CHAN_UNKNOWN);
    assert_int_equal(w.downs, 1);
    run_ms(5000); /* it comes back by itself */
    assert_int_equal(w.ups, 2);
    world_close();
}

/* What was never written has certainly not been sent. */
static void test_never_written_may_be_retried(void **state)
{
    (void)state;
    world_open("");
    smsc.is_stalled = true;
    assert_int_equal(send_text(0, "first", ""), SL_OK);
    run_ms(10); /* handed to the link: uncertain from now on */
    assert_int_equal(send_text(1, "second", ""), SL_OK);
    run_ms(10);
    smsc_play_cut();
    run_ms(10);
    assert_int_equal(w.job[0].outcome, CHAN_UNKNOWN);
    assert_int_equal(w.job[1].outcome, CHAN_FAILED);
    assert_true(w.job[1].may_retry);
    world_close();
}

static void test_refusals_by_the_table(void **state)
{
    (void)state;
    world_open("");
    smsc.submit_status_once = 0x0b;
    assert_int_equal(send_text(0, "a", ""), SL_OK);
    run_ms(10);
    assert_int_equal(w.job[0].outcome, CHAN_FAILED);
    assert_false(w.job[0].may_retry);
    assert_string_equal(w.job[0].code, "ESME_RINVDSTADR");
    smsc.submit_status_once = 0x14;
    assert_int_equal(send_text(1, "a", ""), SL_OK);
    run_ms(10);
    assert_true(w.job[1].may_retry && !w.job[1].is_account);
    smsc.submit_status_once = 0x0a;
    assert_int_equal(send_text(2, "a", ""), SL_OK);
    run_ms(10);
    assert_true(w.job[2].is_account);
    assert_int_equal(w.alarms, 1);
    smsc.submit_status_once = 0x4ff;
    assert_int_equal(send_text(3, "a", ""), SL_OK);
    run_ms(10);
    assert_false(w.job[3].may_retry);
    assert_string_equal(w.job[3].code, "0x4ff");
    world_close();
}

static unsigned send_many(unsigned from)
{
    unsigned taken = 0;
    for (unsigned i = from; i < JOBS_MAX && send_text(i, "a", "") == SL_OK; i++)
        taken++;
    return taken;
}

static void test_throttling_halves_and_recovers(void **state)
{
    (void)state;
    world_open("window: 16");
    run_ms(2000);
    smsc.submit_status = 0x58;
    assert_int_equal(send_many(0), 16);
    run_ms(10);
    assert_int_equal(w.job[0].outcome, CHAN_FAILED);
    assert_true(w.job[0].may_retry && w.job[0].is_account);
    smsc.submit_status = 0;
    assert_int_equal(send_many(16), 8); /* once, not for each of the 16 answers */
    run_ms(10);
    assert_int_equal(send_many(24), 9);
    run_ms(10);
    world_close();
}

/* The one part that is submitted next, and its bytes besides the sequence number are those of the first try. */
static void assert_same_part(unsigned first, unsigned again, unsigned seq)
{
    struct smpp_pdu p, q;
    struct smpp_part part;
    smsc_play_read_submit(first, &p);
    smsc_play_read_submit(again, &q);
    assert_int_equal(smpp_part_read(&q, &part), SL_OK);
    assert_int_equal(part.seq, seq);
    assert_true(sl_str_eq(p.text, q.text)); /* the reference number, too */
}

static void test_a_throttled_part_is_what_is_sent_next(void **state)
{
    static const unsigned windows[] = {16, 1}; /* 1: what follows the throttled part was not submitted yet */
    (void)state;
    char text[3 * 180 + 1], cfg[32];
    repeat(text, 180, "\xe4\xba\xba");
    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(cfg, sizeof cfg, "window: %u", windows[i]);
        world_open(cfg);
        smsc.odd_one = 2;
        smsc.odd_status = 0x58;
        assert_int_equal(send_text(0, text, ""), SL_OK);
        run_ms(10);
        unsigned taken = windows[i] > 1 ? 2 : 1;
        assert_int_equal(smsc.submits, taken + 1);
        assert_int_equal(w.job[0].outcome, CHAN_FAILED);
        assert_true(w.job[0].may_retry && w.job[0].is_account);
        assert_string_equal(w.job[0].code, "ESME_RTHROTTLED");
        assert_string_equal(w.job[0].ids, taken == 2 ? "1,3" : "1");
        assert_non_null(strstr(w.job[0].words, taken == 2 ? "2 of 3" : "1 of 3"));
        run_ms(2000);
        assert_int_equal(send_again(1, text, "", w.job[0].done), SL_OK);
        run_ms(10);
        assert_int_equal(w.job[1].outcome, CHAN_SENT);
        assert_int_equal(smsc.submits, 4);
        assert_same_part(1, windows[i] > 1 ? 3 : 2, 2);
        assert_string_equal(w.job[1].ids, taken == 2 ? "4" : "3,4");
        assert_string_equal(w.job[1].done, "");
        world_close();
    }
}

/* Twice in a row: what both tries brought there is known in the third. A refusal for good ends it, and says how far it came. */
static void test_pieces_are_remembered_over_many_tries(void **state)
{
    (void)state;
    char text[3 * 180 + 1];
    repeat(text, 180, "\xe4\xba\xba");
    world_open("");
    smsc.submit_status = 0x14;
    assert_int_equal(send_text(0, text, ""), SL_OK);
    run_ms(10);
    assert_string_equal(w.job[0].done, ""); /* nothing was taken */
    smsc.submit_status = 0;
    smsc.odd_one = 4, smsc.odd_status = 0x14;
    assert_int_equal(send_text(1, text, ""), SL_OK);
    run_ms(10);
    assert_int_equal(smsc.submits, 6);
    smsc.odd_one = 7, smsc.odd_status = 0x0b;
    assert_int_equal(send_again(2, text, "", w.job[1].done), SL_OK);
    run_ms(10);
    assert_int_equal(smsc.submits, 7);
    assert_int_equal(w.job[2].outcome, CHAN_FAILED);
    assert_false(w.job[2].may_retry);
    assert_string_equal(w.job[2].done, w.job[1].done);
    assert_non_null(strstr(w.job[2].words, "2 of 3"));
    world_close();
}

static void test_a_part_without_an_answer_leaves_it_unknown(void **state)
{
    (void)state;
    char text[3 * 240 + 1];
    repeat(text, 240, "\xe4\xba\xba");
    world_open("");
    smsc.odd_one = 3;
    assert_int_equal(send_text(0, text, ""), SL_OK);
    run_ms(10);
    smsc_play_cut();
    run_ms(5000);
    assert_int_equal(w.job[0].settled, 1);
    assert_int_equal(w.job[0].outcome, CHAN_UNKNOWN);
    assert_string_equal(w.job[0].ids, "1,2,4");
    assert_non_null(strstr(w.job[0].words, "3 of 4"));
    assert_int_equal(send_again(1, text, "", w.job[0].done),
                     SL_OK); /* the policy is at_least_once: that part alone */
    run_ms(10);
    assert_int_equal(smsc.submits, 5);
    assert_same_part(2, 4, 3);
    assert_int_equal(w.job[1].outcome, CHAN_SENT);
    world_close();
}

static void test_pieces_cut_otherwise_are_not_mixed(void **state)
{
    (void)state;
    static const char *const wrong[] = {"2.1.2.1", "3.2.2.01", "3.2.2.", "x", "3.2.1.1", "4294967299.2.2.1"};
    char text[3 * 180 + 1];
    repeat(text, 180, "\xe4\xba\xba");
    world_open("");
    smsc.odd_one = 1, smsc.odd_status = 0x58;
    assert_int_equal(send_text(0, text, ""), SL_OK);
    run_ms(10);
    unsigned before = smsc.submits;
    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_string_not_equal(w.job[0].done, wrong[i]);
        assert_int_equal(send_again(1 + i, text, "", wrong[i]), SL_OK);
        run_ms(10);
        assert_int_equal(w.job[1 + i].outcome, CHAN_FAILED);
        assert_false(w.job[1 + i].may_retry);
        assert_string_equal(w.job[1 + i].code, "limits_changed");
    }
    assert_int_equal(smsc.submits, before);
    world_close();
}

static void test_answers_from_the_number_written_to(void **state)
{
    (void)state;
    struct smpp_pdu p;
    world_open("source: ''");
    assert_int_equal(send_text(0, "a", "{\"to\":\"1069012345\"}"), SL_OK);
    run_ms(10);
    smsc_play_read_submit(0, &p);
    assert_true(sl_str_eq_c(p.source.number, "1069012345"));
    world_close();
}

static struct smpp_pdu from_customer(const char *text);

static void test_opted_out_numbers_are_not_written_to(void **state)
{
    (void)state;
    world_open("");
    assert_int_equal(send_text(0, "a", ""), SL_OK); /* clear, and known to be so */
    run_ms(10);
    struct smpp_pdu p = from_customer("Stop.");
    (void)smsc_play_deliver(&p);
    run_ms(10);
    assert_int_equal(w.ins, 1); /* the agent sees it, too */
    assert_int_equal(send_text(1, "b", ""), SL_OK);
    run_ms(10);
    assert_int_equal(smsc.submits, 1);
    assert_int_equal(w.job[1].outcome, CHAN_FAILED);
    assert_false(w.job[1].may_retry);
    assert_string_equal(w.job[1].code, "opted_out");
    p = from_customer("START");
    (void)smsc_play_deliver(&p);
    run_ms(10);
    assert_int_equal(send_text(2, "c", ""), SL_OK);
    run_ms(10);
    assert_int_equal(w.job[2].outcome, CHAN_SENT);
    world_close();
}

static void test_query(void **state)
{
    (void)state;
    struct msg m = {.id = SL_STR("m"), .text = SL_STR("a")};
    struct chan_send s = {
        .m = &m, .address = SL_STR("+86138"), .key = SL_STR("k"), .remote_id = SL_STR("1,2")};
    world_open("");
    assert_int_equal(chan_query(w.ch, &s, &w.job[0]), SL_OK);
    run_ms(10);
    assert_int_equal(w.job[0].outcome, CHAN_SENT);
    assert_string_equal(w.job[0].ids, "1,2");
    smsc.submit_status = 0x0c;
    assert_int_equal(chan_query(w.ch, &s, &w.job[1]), SL_OK);
    run_ms(10);
    assert_int_equal(w.job[1].outcome, CHAN_NEVER);
    s.remote_id = SL_STR_NONE;
    assert_int_equal(chan_query(w.ch, &s, &w.job[2]), SL_OK);
    run_ms(10);
    assert_int_equal(w.job[2].outcome, CHAN_UNKNOWN);
    world_close();
}

/* --check-config opens every inbox on a clock that nobody moves, and closes it again. */
static void test_opening_alone_connects_nowhere(void **state)
{
    (void)state;
    struct sl_fail why;
    memset(&w, 0, sizeof w);
    w.loop = sl_loop_new_virtual(1);
    smpp_link_play(NULL);
    w.cfg = sl_config_load_text(
        smpp_ops.keys, SL_STR("inboxes: {box: {host: smsc.example, system_id: a, binds: 2}}"), "test", &why);
    w.ch = chan_new(&smpp_ops, &host, NULL, w.loop, "box", "demo", w.cfg, &why);
    assert_non_null(w.ch);
    chan_close(w.ch);
    run_ms(10);
    assert_true(w.is_closed);
    chan_free(&w.ch);
    sl_config_free(&w.cfg);
    sl_loop_close(&w.loop);
}

/* ---- in ---- */

static struct smpp_pdu from_customer(const char *text)
{
    return (struct smpp_pdu){.command = SMPP_DELIVER_SM,
                             .source = {1, 1, SL_STR("8613800138000")},
                             .destination = {0, 1, SL_STR("1069012345")},
                             .text = sl_str_c(text)};
}

static uint32_t status_of(uint32_t seq)
{
    uint32_t status = 0;
    assert_true(smsc_play_answered(seq, &status));
    return status;
}

static void test_message_comes_in(void **state)
{
    (void)state;
    world_open("");
    struct smpp_pdu p = from_customer("Hello\x1b\x65");
    uint32_t seq = smsc_play_deliver(&p), ignored;
    w.is_slow = true;
    run_ms(10);
    assert_int_equal(w.ins, 1);
    assert_string_equal(w.in[0].who, "+8613800138000");
    assert_string_equal(w.in[0].text, "Hello\xe2\x82\xac");
    assert_string_equal(w.in[0].context, "{\"to\":\"1069012345\"}");
    assert_false(smsc_play_answered(seq, &ignored)); /* not before it is durable */
    accept_all(NULL);
    run_ms(10);
    assert_int_equal(status_of(seq), SMPP_OK);
    world_close();
}

static void test_same_words_again_are_a_new_message(void **state)
{
    (void)state;
    world_open("");
    for (unsigned i = 0; i < 3; i++) {
        struct smpp_pdu p = from_customer("1");
        uint32_t seq = smsc_play_deliver(&p);
        run_ms(i == 0 ? 500 : 20000); /* soon, and late */
        assert_int_equal(status_of(seq), SMPP_OK);
    }
    assert_int_equal(w.ins, 3);
    world_close();
}

static void test_store_down_is_temporary_and_the_repeat_is_one(void **state)
{
    (void)state;
    world_open("");
    struct smpp_pdu p = from_customer("x");
    w.is_store_down = true;
    uint32_t seq = smsc_play_deliver(&p);
    run_ms(10);
    assert_int_equal(status_of(seq), SMPP_TEMPORARY);
    w.is_store_down = false;
    for (int i = 0; i < 2; i++) { /* the second time our answer is lost with the connection */
        p = from_customer("x");
        smsc.cut_after_answer_of = i == 0 ? smsc.last_seq + 1 : 0;
        seq = smsc_play_deliver(&p);
        run_ms(3000);
    }
    assert_int_equal(w.ins, 1);
    assert_int_equal(status_of(seq), SMPP_OK);
    world_close();
}

/* ---- long messages ---- */

static uint32_t deliver_part(unsigned ref, unsigned total, unsigned seq, const char *text)
{
    struct sl_buf b;
    sl_buf_init(&b, 0);
    smpp_part_header(&b, SMPP_UDH16, (uint16_t)ref, (uint8_t)total, (uint8_t)seq);
    sl_buf_c(&b, text);
    struct smpp_pdu p = from_customer("");
    p.text = sl_buf_view(&b);
    p.esm_class = SMPP_ESM_UDHI;
    uint32_t sent = smsc_play_deliver(&p);
    sl_buf_fini(&b);
    run_ms(10);
    return sent;
}

static void test_parts_are_joined_in_any_order_and_over_connections(void **state)
{
    (void)state;
    world_open("");
    uint32_t first = deliver_part(7, 3, 3, "three");
    assert_int_equal(status_of(first), SMPP_OK); /* it lies in the store */
    smsc_play_cut();
    run_ms(5000);
    (void)deliver_part(7, 3, 1, "one ");
    (void)deliver_part(7, 3, 1, "one "); /* a repeat */
    assert_int_equal(w.ins, 0);
    uint32_t last = deliver_part(7, 3, 2, "two ");
    assert_int_equal(w.ins, 1);
    assert_string_equal(w.in[0].text, "one two three");
    assert_string_equal(w.in[0].data, "");
    assert_int_equal(status_of(last), SMPP_OK);
    (void)deliver_part(7, 3, 2, "two "); /* the answer was lost: the same message again */
    assert_int_equal(w.ins, 1);
    /* the handset uses its reference again: another message */
    (void)deliver_part(7, 3, 1, "ein ");
    (void)deliver_part(7, 3, 2, "zwei ");
    (void)deliver_part(7, 3, 3, "drei");
    assert_int_equal(w.ins, 2);
    assert_string_equal(w.in[1].text, "ein zwei drei");
    world_close();
}

static void test_missing_parts_are_waited_for_and_told(void **state)
{
    (void)state;
    world_open("");
    chan_hold(w.ch, true);
    (void)deliver_part(9, 3, 1, "one ");
    (void)deliver_part(9, 3, 3, "three");
    run_ms(4 * 60000);
    assert_int_equal(w.ins, 0);
    run_ms(5 * 60000);
    assert_int_equal(w.ins, 1);
    assert_string_equal(w.in[0].text, "one [...]three");
    assert_string_equal(w.in[0].data, "{\"partial\":{\"parts\":3,\"received\":2}}");
    run_ms(5 * 60000);
    assert_int_equal(w.ins, 1);
    world_close();
}

/* ---- receipts ---- */

static void test_receipts(void **state)
{
    (void)state;
    world_open("message_ids: hex-dec");
    struct smpp_pdu p =
        from_customer("id:0169552957 sub:001 dlvrd:001 submit date:2401011200 done date:2401011201 "
                      "stat:DELIVRD err:000 text:Hello");
    p.esm_class = SMPP_ESM_RECEIPT;
    uint32_t seq = smsc_play_deliver(&p);
    run_ms(10);
    assert_int_equal(w.receipts, 1);
    assert_string_equal(w.receipt[0].id, "169552957");
    assert_int_equal(w.receipt[0].word, CHAN_WORD_DELIVERED);
    assert_int_equal(status_of(seq), SMPP_OK);
    assert_int_equal(w.ins, 0);
    p = from_customer("id:9 stat:UNDELIV err:1F");
    p.esm_class = SMPP_ESM_RECEIPT;
    w.is_store_down = true;
    seq = smsc_play_deliver(&p);
    run_ms(10);
    assert_int_equal(status_of(seq), SMPP_TEMPORARY);
    w.is_store_down = false;
    p = from_customer("id:9 stat:UNDELIV err:1F");
    p.esm_class = SMPP_ESM_RECEIPT;
    (void)smsc_play_deliver(&p);
    run_ms(10);
    assert_int_equal(w.receipt[1].word, CHAN_WORD_FAILED);
    assert_string_equal(w.receipt[1].code, "1F");
    world_close();
}

/* ---- peers that misbehave ---- */

static void test_malformed_pdus_are_answered_and_the_session_stays(void **state)
{
    (void)state;
    static const char overrun[] = "\0\0\0\x3c\0\0\0\5\0\0\0\0\0\0\x01\x01\0\1\1"
                                  "8613800138000\0\0\1"
                                  "1069012345\0\0\0\0\0\0\0\0\x08\0\xc8\x4e\xba\x5d\xe5";
    static const char strange[] = "\0\0\0\x10\0\0\0\x77\0\0\0\0\0\0\x01\x02";
    static const char outbind[] = "\0\0\0\x12\0\0\0\x0b\0\0\0\0\0\0\x01\x03\0";
    uint32_t status;
    world_open("");
    smsc_play_send(sl_str_n(overrun, 60));
    smsc_play_send(sl_str_n(strange, 16));
    smsc_play_send(sl_str_n(outbind, 18));
    run_ms(10);
    assert_int_equal(status_of(0x101), SMPP_INVCMDLEN);
    assert_int_equal(smsc.answer[0].command, SMPP_DELIVER_SM_RESP);
    assert_int_equal(status_of(0x102), SMPP_INVCMDID);
    assert_int_equal(smsc.answer[1].command, SMPP_GENERIC_NACK);
    assert_int_equal(status_of(0x103), SMPP_INVCMDID); /* outbind is refused */
    assert_int_equal(smsc.connections, 1);
    struct smpp_pdu p = from_customer("still here");
    uint32_t seq = smsc_play_deliver(&p);
    run_ms(10);
    assert_true(smsc_play_answered(seq, &status) && status == SMPP_OK);
    world_close();
}

static void test_impossible_length_ends_the_connection(void **state)
{
    (void)state;
    world_open("");
    smsc.is_silent = true;
    assert_int_equal(send_text(0, "a", ""), SL_OK);
    run_ms(10);
    smsc_play_send(sl_str_n("\x7f\xff\xff\xff\0\0\0\x15\0\0\0\0\0\0\0\1", 16));
    run_ms(10);
    assert_int_equal(w.job[0].outcome, CHAN_UNKNOWN); /* settled, not lost */
    run_ms(5000);
    assert_int_equal(smsc.connections, 2);
    assert_int_equal(w.ups, 2);
    world_close();
}

static void test_refused_bind_alarms_and_is_tried_slowly(void **state)
{
    (void)state;
    world_open_with("");
    smsc_play_cut();
    smsc.bind_status = 0x0e;
    run_ms(10000);
    assert_int_equal(w.alarms, 1);
    unsigned binds = smsc.binds;
    run_ms(40000);
    assert_int_equal(smsc.binds, binds); /* a minute at least: no lock-out */
    smsc.bind_status = 0;
    run_ms(70000);
    assert_int_equal(w.ups, 2);
    world_close();
}

static void test_a_silent_peer_is_left(void **state)
{
    (void)state;
    world_open("enquire: 20s");
    run_ms(60000);
    assert_true(smsc.enquires >= 2);
    assert_int_equal(smsc.connections, 1);
    smsc.is_mute = true;
    run_ms(32000);
    assert_int_equal(w.downs, 1);
    smsc.is_mute = false;
    run_ms(60000);
    assert_int_equal(w.ups, 2);
    world_close();
}

/* A peer that asks and never reads: what we write for it has an end. */
static void test_a_stalled_peer_is_bounded(void **state)
{
    (void)state;
    struct sl_buf b;
    world_open("");
    smsc.is_stalled = true;
    sl_buf_init(&b, 0);
    for (uint32_t i = 1; i <= 60000; i++)
        smpp_write_bare(&b, SMPP_ENQUIRE_LINK, 0, i);
    smsc_play_send(sl_buf_view(&b));
    run_ms(10);
    assert_int_equal(w.downs, 1);
    sl_buf_fini(&b);
    smsc.is_stalled = false;
    run_ms(5000);
    assert_int_equal(w.ups, 2);
    world_close();
}

static void test_pair_of_binds_and_drain(void **state)
{
    (void)state;
    world_open("bind: pair, binds: 2");
    assert_int_equal(smsc.binds, 4);
    assert_int_equal(send_text(0, "a", ""), SL_OK);
    chan_drain(w.ch, sl_loop_mono_ms(w.loop) + 5000);
    run_ms(1000);
    assert_int_equal(w.job[0].outcome, CHAN_SENT);
    assert_int_equal(smsc.connections, 4); /* unbound, and not connected again */
    world_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_text_is_one_pdu),
        cmocka_unit_test(test_long_text_in_parts),
        cmocka_unit_test(test_long_text_as_payload),
        cmocka_unit_test(test_no_answer_is_unknown),
        cmocka_unit_test(test_never_written_may_be_retried),
        cmocka_unit_test(test_refusals_by_the_table),
        cmocka_unit_test(test_throttling_halves_and_recovers),
        cmocka_unit_test(test_a_throttled_part_is_what_is_sent_next),
        cmocka_unit_test(test_pieces_are_remembered_over_many_tries),
        cmocka_unit_test(test_a_part_without_an_answer_leaves_it_unknown),
        cmocka_unit_test(test_pieces_cut_otherwise_are_not_mixed),
        cmocka_unit_test(test_answers_from_the_number_written_to),
        cmocka_unit_test(test_opted_out_numbers_are_not_written_to),
        cmocka_unit_test(test_query),
        cmocka_unit_test(test_opening_alone_connects_nowhere),
        cmocka_unit_test(test_message_comes_in),
        cmocka_unit_test(test_same_words_again_are_a_new_message),
        cmocka_unit_test(test_store_down_is_temporary_and_the_repeat_is_one),
        cmocka_unit_test(test_parts_are_joined_in_any_order_and_over_connections),
        cmocka_unit_test(test_missing_parts_are_waited_for_and_told),
        cmocka_unit_test(test_receipts),
        cmocka_unit_test(test_malformed_pdus_are_answered_and_the_session_stays),
        cmocka_unit_test(test_impossible_length_ends_the_connection),
        cmocka_unit_test(test_refused_bind_alarms_and_is_tried_slowly),
        cmocka_unit_test(test_a_silent_peer_is_left),
        cmocka_unit_test(test_a_stalled_peer_is_bounded),
        cmocka_unit_test(test_pair_of_binds_and_drain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
