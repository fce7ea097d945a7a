/* proto/frame.c and frame_write.c: what a client may say, and the bytes we say. */
#include "proto/frame.h"

#include "proto/message.h"
#include "proto/proto_priv.h"

#include "tests/unit/golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct sl_str S(const char *s) {
    return sl_str_c(s);
}

#define CONV       "conv:17.01JD8Z6V3K9Q2W4E5R6T7Y8A9B"
#define GENERATION 1790000000123ULL

static bool
is(struct sl_str got, const char *want)
{
    return sl_str_eq_c(got, want);
}

/* What `each` saw: checks run inside it, because the frame lives only that long. */
struct seen {
    size_t count, stop_after;
    void (*check)(const struct frame *f);
    enum frame_type last_type;
};

static bool on_frame(void *arg, const struct frame *f)
{
    struct seen *seen = arg;
    seen->count++;
    seen->last_type = f->type;
    if (seen->check != NULL)
        seen->check(f);
    return seen->count != seen->stop_after;
}

static void parse_str(struct sl_str text, void (*check)(const struct frame *f))
{
    struct seen seen = {.check = check};
    struct sl_fail why;
    if (frame_parse(text, on_frame, &seen, &why) != SL_OK)
        fail_msg("%.*s: %s", (int)text.len, text.ptr, why.text);
    assert_int_equal(seen.count, 1);
}

static void parse(const char *text, void (*check)(const struct frame *f))
{
    parse_str(S(text), check);
}

/* ---- the client's side ---- */

static void check_golden(const struct golden *g)
{
    struct seen seen = {.count = 0};
    struct sl_fail why;
    if (frame_parse(g->text, on_frame, &seen, &why) != SL_OK)
        fail_msg("%s: %s", g->name, why.text);
    assert_true(seen.count >= 1);
}

static void test_every_golden_file_of_a_client_is_taken(void **state)
{
    (void)state;
    assert_true(golden_each("", "frame.client.", check_golden) >= 16);
}

static void check_bad(const struct golden *g)
{
    struct seen seen = {.count = 0};
    struct sl_fail why = {.text = ""};
    sl_err err = frame_parse(g->text, on_frame, &seen, &why);
    if (err != golden_refusal(g))
        fail_msg("%s: %s (%s)", g->name, sl_err_name(err), why.text);
    assert_int_equal(seen.count, 0); /* also when only a later frame of an array is bad */
    assert_int_not_equal(why.text[0], 0);
}

static void test_every_bad_file_is_refused_whole(void **state)
{
    (void)state;
    assert_true(golden_each("bad/", "frame.", check_bad) >= 70);
}

static void check_hello(const struct frame *f)
{
    assert_int_equal(f->type, FRAME_HELLO);
    assert_true(is(f->role, "agent") && is(f->token, "a1.mei.x9") && is(f->client, "console/1.0"));
    assert_true(is(f->session, "s-02"));
    assert_int_equal(f->position_count, 3);
    assert_true(is(f->position[0].topic, "me") && is(f->position[2].topic, CONV));
    assert_int_equal(f->position[2].gen, GENERATION);
    assert_int_equal(f->position[2].number, 40);
}

static void test_hello_is_read_whole(void **state)
{
    (void)state;
    struct golden g;
    golden_read("", "frame.client.hello-agent.json", &g);
    parse_str(g.text, check_hello);
    sl_buf_fini(&g.bytes);
}

static void check_sub(const struct frame *f)
{
    assert_int_equal(f->type, FRAME_SUB);
    assert_true(is(f->id, "1") && is(f->topic, CONV) && f->has_position);
    assert_int_equal(f->gen, GENERATION);
    assert_int_equal(f->from, 40);
}

static void check_sub_new(const struct frame *f)
{
    assert_true(is(f->topic, "queue") && !f->has_position);
}

static void test_sub_is_read_with_and_without_a_position(void **state)
{
    (void)state;
    parse("{\"t\":\"sub\",\"id\":\"1\",\"topic\":\"" CONV "\",\"pos\":[\"1790000000123\",40]}", check_sub);
    parse("{\"t\":\"sub\",\"id\":\"2\",\"topic\":\"queue\"}", check_sub_new);
}

static void check_send(const struct frame *f)
{
    assert_int_equal(f->type, FRAME_CMD);
    assert_int_equal(f->command, FRAME_CMD_MESSAGE_SEND);
    assert_int_equal(f->n, 7);
    assert_int_equal(f->control, 3);
    assert_true(is(f->id, "c-1") && is(f->topic, CONV) && is(f->kind, "card") && is(f->text, "x"));
    assert_true(is(f->data_json, "{\"b\":[1,2.5],\"a\":null}"));
    assert_true(is(f->reply_to, "<m 1@example.org>"));
    assert_true(is(f->trace, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
}

static void test_send_is_read_whole(void **state)
{
    (void)state;
    parse("{\"t\":\"cmd\",\"id\":\"c-1\",\"n\":7,\"topic\":\"" CONV
          "\",\"k\":\"message.send\",\"d\":{\"kind\":\"card\","
          "\"text\":\"x\",\"data\":{ \"b\" : [1, 2.5], \"a\":null },\"reply_to\":\"<m "
          "1@example.org>\",\"control\":3,"
          "\"later\":true},\"tp\":\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\",\"later\":{}}",
          check_send);
}

static void check_plain_send(const struct frame *f)
{
    assert_true(is(f->kind, "text") && is(f->text, "hi"));
    assert_true(f->data_json.len == 0 && f->trace.len == 0 && f->control == 0);
}

static void test_send_has_defaults_and_ignores_a_bad_trace(void **state)
{
    (void)state;
    parse("{\"t\":\"cmd\",\"id\":\"1\",\"n\":1,\"topic\":\"me\",\"k\":\"message.send\",\"d\":{\"text\":"
          "\"hi\"},\"tp\":\"x\"}",
          check_plain_send);
}

static void check_rate(const struct frame *f)
{
    assert_true(f->command == FRAME_CMD_MESSAGE_RATE && f->score == 5);
}
static void check_end(const struct frame *f)
{
    assert_int_equal(f->command, FRAME_CMD_CONV_END);
}
static void check_accept(const struct frame *f)
{
    assert_true(f->command == FRAME_CMD_CONV_ACCEPT && f->ticket == 4);
}
static void check_note(const struct frame *f)
{
    assert_true(f->command == FRAME_CMD_CONV_NOTE && is(f->text, "x"));
}
static void check_close(const struct frame *f)
{
    assert_true(f->command == FRAME_CMD_CONV_CLOSE && f->control == 3);
}

static void check_transfer(const struct frame *f)
{
    assert_true(f->command == FRAME_CMD_CONV_TRANSFER && f->control == 3);
    assert_true(is(f->queue, "billing") && is(f->reason, "invoice"));
}

static void check_presence(const struct frame *f)
{
    assert_true(f->command == FRAME_CMD_PRESENCE_SET && is(f->state, "away"));
}

static void test_every_other_command_is_read(void **state)
{
    (void)state;
#define CMD(k, d) "{\"t\":\"cmd\",\"id\":\"1\",\"n\":1,\"topic\":\"me\",\"k\":\"" k "\",\"d\":" d "}"
    parse(CMD("message.rate", "{\"score\":5}"), check_rate);
    parse(CMD("conv.end", "{}"), check_end);
    parse(CMD("conv.accept", "{\"ticket\":4}"), check_accept);
    parse(CMD("conv.note", "{\"text\":\"x\"}"), check_note);
    parse(CMD("conv.transfer", "{\"control\":3,\"queue\":\"billing\",\"reason\":\"invoice\"}"),
          check_transfer);
    parse(CMD("conv.close", "{\"control\":3}"), check_close);
    parse(CMD("presence.set", "{\"state\":\"away\"}"), check_presence);
#undef CMD
}

static void test_an_array_is_given_in_order_until_told_to_stop(void **state)
{
    (void)state;
    struct sl_str text = S("[{\"t\":\"ping\"},{\"t\":\"unsub\",\"topic\":\"me\"},{\"t\":\"ping\"}]");
    struct seen seen = {.count = 0};
    assert_int_equal(frame_parse(text, on_frame, &seen, NULL), SL_OK);
    assert_int_equal(seen.count, 3);
    seen = (struct seen){.stop_after = 2};
    assert_int_equal(frame_parse(text, on_frame, &seen, NULL), SL_OK);
    assert_int_equal(seen.count, 2);
    assert_int_equal(seen.last_type, FRAME_UNSUB);
}

static void test_a_refusal_names_the_member_and_not_the_text(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"{\"t\":\"s3cret\"}", "\"t\""},
        {"{\"t\":\"sub\",\"id\":\"s3cret/\",\"topic\":\"me\"}", "\"id\""},
        {"{\"t\":\"sub\",\"id\":\"1\",\"topic\":\"s3cret\"}", "\"topic\""},
        {"{\"t\":\"cmd\",\"id\":\"1\",\"n\":1,\"topic\":\"me\",\"k\":\"s3cret\"}", "\"k\""},
        {"{\"t\":\"hello\",\"role\":\"s3cret\"}", "\"role\""},
        {"s3cret", "line 1"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct sl_fail why;
        struct seen seen = {.count = 0};
        assert_int_equal(frame_parse(S(bad[i][0]), on_frame, &seen, &why), SL_EINVAL);
        assert_non_null(strstr(why.text, bad[i][1]));
        assert_null(strstr(why.text, "s3cret"));
    }
}

static void test_the_size_limit_is_to_the_byte(void **state)
{
    (void)state;
    static char text[FRAME_MAX_BYTES + 1];
    static const char head[] = "{\"t\":\"ping\"";
    struct seen seen = {.count = 0};
    memset(text, ' ', sizeof text);
    memcpy(text, head, sizeof head - 1);
    text[FRAME_MAX_BYTES - 1] = '}';
    assert_int_equal(frame_parse(sl_str_n(text, FRAME_MAX_BYTES), on_frame, &seen, NULL), SL_OK);
    assert_int_equal(frame_parse(sl_str_n(text, FRAME_MAX_BYTES + 1), on_frame, &seen, NULL), SL_ETOOBIG);
    assert_int_equal(seen.count, 1);
}

static void test_topics(void **state)
{
    (void)state;
    assert_true(frame_topic_ok(S("me")) && frame_topic_ok(S("queue")) && frame_topic_ok(S(CONV)));
    assert_false(frame_topic_ok(S("")) || frame_topic_ok(S("ME")) || frame_topic_ok(S("conv:")) ||
                 frame_topic_ok(S("conv:me")) || frame_topic_ok(S("log:17")) || frame_topic_ok(S(CONV "7")));
}

static void test_close_codes_have_words(void **state)
{
    (void)state;
    assert_string_equal(frame_close_text(FRAME_CLOSE_BAD_FRAME), "bad frame");
    assert_string_equal(frame_close_text(FRAME_CLOSE_SILENT), "no sign of life");
    assert_string_equal(frame_close_text((enum frame_close)4999), "closed");
}

/* ---- the server's side: exactly the bytes of the golden files ---- */

static struct sl_buf out;
static size_t written_count;

static void written(const char *name)
{
    struct golden g;
    golden_read("", name, &g);
    if (!sl_str_eq(sl_buf_view(&out), g.text))
        fail_msg("%s: wrote %.*s", name, (int)out.len, out.ptr);
    sl_buf_fini(&g.bytes);
    sl_buf_clear(&out);
    written_count++;
}

static void ignore(const struct golden *g)
{
    (void)g;
}

static void test_writers_write_the_golden_files(void **state)
{
    (void)state;
    sl_buf_init(&out, 0);
    struct frame_welcome w = {.session = S("s-01"),
                              .me_json = S("{\"addr\":\"v-7f3a\"}"),
                              .now_unix_ms = 1790000000123,
                              .heartbeat_s = 25,
                              .last_n = 4};
    frame_write_welcome(&out, &w);
    written("frame.server.welcome.json");
    w.attachment_max_bytes = 20971520;
    frame_write_welcome(&out, &w);
    written("frame.server.welcome-attachments.json");
    frame_write_ok(&out, S("1"), S(CONV), GENERATION, 40, S("{\"state\":\"assigned\"}"), 2);
    written("frame.server.ok.json");
    frame_write_ok(&out, S("3"), S("queue"), 0, 0, SL_STR_NONE, 0);
    written("frame.server.ok-plain.json");
    frame_write_event(
        &out, S("me"), GENERATION, 9,
        S("{\"n\":12,\"v\":9,\"at\":1790000000000,\"ce\":3,\"m\":{\"id\":\"c-1\",\"by\":\"visitor\","
          "\"who\":\"v-7f3a\",\"kind\":\"text\",\"text\":\"你好\",\"received_unix_ms\":1790000000000}}"));
    written("frame.server.ev.json");
    frame_write_hint(&out, S("me"), S("{\"place\":3,\"wait_ms\":90000}"));
    written("frame.server.hint.json");
    frame_write_ack(&out, S("c-1"), 5);
    written("frame.server.ack.json");
    frame_write_result(&out, S("c-1"), S("me"), GENERATION, 9);
    written("frame.server.res.json");
    frame_write_refusal(&out, S("c-1"),
                        S("{\"code\":\"control\",\"text\":\"somebody else has the conversation now\"}"));
    written("frame.server.res-refused.json");
    frame_write_error(&out, S("c-1"), SL_EAGAIN, NULL, 0);
    written("frame.server.err.json");
    frame_write_error(&out, S("c-3"), SL_EGAP, NULL, 2);
    written("frame.server.err-expect.json");
    frame_write_gap(&out, S("me"), GENERATION, 95);
    written("frame.server.gap.json");
    frame_write_pong(&out);
    written("frame.server.pong.json");
    frame_write_bye(&out, FRAME_CLOSE_RESTART, 2000, 15000);
    written("frame.server.bye.json");
    sl_buf_fini(&out);
    assert_int_equal(golden_each("", "frame.server.", ignore), written_count);
}

static void test_writers_stay_json_whatever_they_are_given(void **state)
{
    (void)state;
    json_t *parsed;
    sl_buf_init(&out, 0);
    frame_write_refusal(&out, S("a\"b"), S("oops"));
    parsed = sl_json_parse(sl_buf_view(&out), NULL);
    assert_non_null(parsed);
    assert_true(is(sl_json_get_str(parsed, "id"), "a\"b") && is(sl_json_get_str(parsed, "code"), "refused"));
    json_decref(parsed);
    sl_buf_clear(&out);
    frame_write_error(&out, SL_STR_NONE, SL_EINVAL, "frame: \"t\" is missing", 0);
    parsed = sl_json_parse(sl_buf_view(&out), NULL);
    assert_non_null(parsed);
    assert_true(is(sl_json_get_str(parsed, "text"), "frame: \"t\" is missing"));
    assert_null(json_object_get(parsed, "id"));
    json_decref(parsed);
    sl_buf_fini(&out);
}

/* ---- the quick scan ---- */

#define SEND_HEAD "{\"t\":\"cmd\",\"id\":\"m1\",\"n\":7,\"topic\":\"me\",\"k\":\"message.send\",\"d\":"

static void test_frame_scan_takes_a_plain_message(void **state)
{
    static const char *const taken[] = {
        SEND_HEAD "{\"kind\":\"text\",\"text\":\"hi\"}}",
        SEND_HEAD "{\"text\":\"hi\"}}",
        " { \"d\" : { \"text\" : \"hi\" , \"kind\":\"text\" } ,\n\"k\":\"message.send\", "
        "\"topic\":\"me\",\"n\":7 ,"
        "\"id\":\"m1\",\"t\":\"cmd\"}\r\n",
    };
    struct frame f;
    (void)state;
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) {
        assert_true(frame_scan(S(taken[i]), &f));
        assert_true(f.type == FRAME_CMD && f.command == FRAME_CMD_MESSAGE_SEND && f.n == 7);
        assert_true(is(f.id, "m1") && is(f.topic, "me") && is(f.kind, "text") && is(f.text, "hi"));
        assert_true(f.reply_to.len == 0 && f.data_json.len == 0 && f.trace.len == 0 && f.control == 0);
    }
}

static void test_frame_scan_leaves_the_rest_to_the_parser(void **state)
{
    static const char *const left[] = {
        "",
        "{}",
        "[]",
        SEND_HEAD "{\"text\":\"hi\"}",
        SEND_HEAD "{\"text\":\"hi\"}} x",
        SEND_HEAD "{\"text\":\"hi\"},}",
        SEND_HEAD "{\"text\":\"h\\u0069\"}}",
        SEND_HEAD "{\"text\":\"h\ti\"}}",
        SEND_HEAD "{\"text\":\"\xff\"}}",
        SEND_HEAD "{\"text\":\"\"}}",
        SEND_HEAD "{\"text\":\"hi\",\"text\":\"hi\"}}",
        SEND_HEAD "{\"text\":\"hi\",\"kind\":\"image\"}}",
        SEND_HEAD "{\"text\":\"hi\",\"reply_to\":\"m0\"}}",
        SEND_HEAD "{\"kind\":\"text\"}}",
        SEND_HEAD "{\"text\":\"hi\"},\"n\":7}",
        SEND_HEAD "{\"text\":\"hi\"},\"tp\":\"\"}",
        "{\"t\":\"cmd\",\"id\":\"m1\",\"n\":0,\"topic\":\"me\",\"k\":\"message.send\",\"d\":{\"text\":\"hi\"}"
        "}",
        "{\"t\":\"cmd\",\"id\":\"m1\",\"n\":07,\"topic\":\"me\",\"k\":\"message.send\",\"d\":{\"text\":"
        "\"hi\"}}",
        "{\"t\":\"cmd\",\"id\":\"m1\",\"n\":7.0,\"topic\":\"me\",\"k\":\"message.send\",\"d\":{\"text\":"
        "\"hi\"}}",
        "{\"t\":\"cmd\",\"id\":\"m1\",\"n\":7e1,\"topic\":\"me\",\"k\":\"message.send\",\"d\":{\"text\":"
        "\"hi\"}}",
        "{\"t\":\"cmd\",\"id\":\"m1\",\"n\":1234567890123456,\"topic\":\"me\",\"k\":\"message.send\","
        "\"d\":{\"text\":\"hi\"}}",
        "{\"t\":\"cmd\",\"id\":\"m "
        "1\",\"n\":7,\"topic\":\"me\",\"k\":\"message.send\",\"d\":{\"text\":\"hi\"}}",
        "{\"t\":\"cmd\",\"id\":\"m1\",\"n\":7,\"topic\":\"you\",\"k\":\"message.send\",\"d\":{\"text\":"
        "\"hi\"}}",
        "{\"t\":\"cmd\",\"id\":\"m1\",\"n\":7,\"topic\":\"me\",\"k\":\"conv.end\",\"d\":{\"text\":\"hi\"}}",
    };
    struct frame f;
    (void)state;
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++)
        assert_false(frame_scan(S(left[i]), &f));
    const char *whole = SEND_HEAD "{\"text\":\"hi\"}}";
    for (size_t len = 0; len < strlen(whole); len++)
        assert_false(frame_scan(sl_str_n(whole, len), &f));
    char *text = sl_alloc(MSG_TEXT_MAX_BYTES + 256);
    for (size_t more = 0; more < 2; more++) { /* the longest text, and one byte more */
        size_t at = strlen(SEND_HEAD "{\"text\":\"");
        memcpy(text, SEND_HEAD "{\"text\":\"", at);
        memset(text + at, 'a', MSG_TEXT_MAX_BYTES + more);
        at += MSG_TEXT_MAX_BYTES + more;
        memcpy(text + at, "\"}}", 3);
        assert_int_equal(frame_scan(sl_str_n(text, at + 3), &f), more == 0);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frame_scan_takes_a_plain_message),
        cmocka_unit_test(test_frame_scan_leaves_the_rest_to_the_parser),
        cmocka_unit_test(test_every_golden_file_of_a_client_is_taken),
        cmocka_unit_test(test_every_bad_file_is_refused_whole),
        cmocka_unit_test(test_hello_is_read_whole),
        cmocka_unit_test(test_sub_is_read_with_and_without_a_position),
        cmocka_unit_test(test_send_is_read_whole),
        cmocka_unit_test(test_send_has_defaults_and_ignores_a_bad_trace),
        cmocka_unit_test(test_every_other_command_is_read),
        cmocka_unit_test(test_an_array_is_given_in_order_until_told_to_stop),
        cmocka_unit_test(test_a_refusal_names_the_member_and_not_the_text),
        cmocka_unit_test(test_the_size_limit_is_to_the_byte),
        cmocka_unit_test(test_topics),
        cmocka_unit_test(test_close_codes_have_words),
        cmocka_unit_test(test_writers_write_the_golden_files),
        cmocka_unit_test(test_writers_stay_json_whatever_they_are_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
