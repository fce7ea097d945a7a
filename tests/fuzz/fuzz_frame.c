/* A frame that is taken keeps every promise of frame.h, and written out again it is taken as the same frame. What the quick scan
 * takes is the same frame to the parser that takes everything.
 */
#include "tests/fuzz/fuzz.h"

#include "proto/frame.h"
#include "proto/keys.h"
#include "proto/message.h"
#include "proto/proto_priv.h"

#include <stdio.h>

static const char *const type_words[] = {
#define X(name, word) word,
    FRAME_CLIENT_TYPES(X)
#undef X
};
static const char *const command_words[] = {
#define X(name, word) word,
    FRAME_COMMANDS(X)
#undef X
};

static void add(struct sl_json *j, const char *key, struct sl_str v)
{
    if (v.len > 0)
        sl_json_str(j, key, v);
}

static void add_position(struct sl_json *j, const char *key, uint64_t gen, uint64_t number)
{
    char text[21];
    int n = snprintf(text, sizeof text, "%llu", (unsigned long long)gen);
    sl_json_open(j, key, '[');
    sl_json_str(j, NULL, sl_str_n(text, (size_t)n));
    sl_json_int(j, NULL, (int64_t)number);
    sl_json_close(j, ']');
}

static void add_resume(struct sl_json *j, const struct frame *f)
{
    if (f->session.len == 0)
        return;
    sl_json_open(j, "resume", '{');
    add(j, "session", f->session);
    sl_json_open(j, "topics", '{');
    for (size_t i = 0; i < f->position_count; i++) {
        char topic[MSG_ID_MAX_BYTES + 1];
        snprintf(topic, sizeof topic, "%.*s", (int)f->position[i].topic.len, f->position[i].topic.ptr);
        add_position(j, topic, f->position[i].gen, f->position[i].number);
    }
    sl_json_close(j, '}');
    sl_json_close(j, '}');
}

static void add_command(struct sl_json *j, const struct frame *f)
{
    sl_json_int(j, "n", (int64_t)f->n);
    sl_json_c(j, "k", command_words[f->command]);
    add(j, "tp", f->trace);
    sl_json_open(j, "d", '{');
    add(j, "kind", f->kind);
    add(j, "text", f->text);
    if (f->data_json.len > 0)
        sl_json_raw(j, "data", f->data_json);
    add(j, "reply_to", f->reply_to);
    add(j, "queue", f->queue);
    add(j, "reason", f->reason);
    add(j, "state", f->state);
    sl_json_int(j, "control", f->control);
    sl_json_int(j, "ticket", f->ticket);
    if (f->score != 0)
        sl_json_int(j, "score", f->score);
    sl_json_close(j, '}');
}

static void write_frame(const struct frame *f, struct sl_buf *out)
{
    struct sl_json j;
    sl_buf_init(out, 0);
    sl_json_begin(&j, out);
    sl_json_open(&j, NULL, '{');
    sl_json_c(&j, "t", type_words[f->type]);
    add(&j, "id", f->id);
    add(&j, "role", f->role);
    add(&j, "token", f->token);
    add(&j, "inbox", f->inbox);
    add(&j, "client", f->client);
    add(&j, "topic", f->topic);
    if (f->has_position)
        add_position(&j, "pos", f->gen, f->from);
    add_resume(&j, f);
    if (f->type == FRAME_CMD)
        add_command(&j, f);
    sl_json_close(&j, '}');
}

static void check_promises(const struct frame *f)
{
    sl_assert(f->id.len == 0 || key_part_ok(f->id));
    sl_assert(f->topic.len == 0 || frame_topic_ok(f->topic));
    sl_assert(f->session.len == 0 || key_part_ok(f->session));
    sl_assert(f->queue.len == 0 || key_part_ok(f->queue));
    sl_assert(f->text.len <= MSG_TEXT_MAX_BYTES && sl_str_utf8(f->text));
    sl_assert(f->position_count <= FRAME_TOPICS_MAX && f->control >= 0 && f->ticket >= 0);
    if (f->type != FRAME_CMD)
        return;
    sl_assert(f->id.len > 0 && f->topic.len > 0 && f->n > 0 && f->command < FRAME_CMD_COUNT);
    struct msg m = {
        .id = f->id, .kind = MSG_TEXT, .text = f->text, .data = f->data_json, .reply_to = f->reply_to};
    if (f->command == FRAME_CMD_MESSAGE_SEND) {
        sl_assert(msg_kind_from(f->kind, &m.kind));
        sl_assert(msg_check(&m, NULL) == SL_OK);
    }
}

static bool on_same_frame(void *arg, const struct frame *f)
{
    struct sl_buf out;
    write_frame(f, &out);
    sl_assert(sl_str_eq(sl_buf_view(&out), sl_buf_view(arg)));
    sl_buf_fini(&out);
    return true;
}

static bool on_frame(void *arg, const struct frame *f)
{
    struct sl_buf out;
    struct sl_fail why;
    (void)arg;
    check_promises(f);
    write_frame(f, &out);
    sl_err err = frame_parse(sl_buf_view(&out), on_same_frame, &out, &why);
    /* escapes may have grown it past the limit of one message */
    sl_assert(err == SL_OK || (err == SL_ETOOBIG && out.len > FRAME_MAX_BYTES));
    sl_buf_fini(&out);
    return true;
}

static void check_scan(struct sl_str input)
{
    struct frame f;
    struct sl_buf out;
    struct sl_fail why;
    if (!frame_scan(input, &f))
        return;
    write_frame(&f, &out);
    sl_assert(frame_parse_json(input, on_same_frame, &out, &why) == SL_OK);
    sl_buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct sl_fail why;
    check_scan(fuzz_input(data, size));
    (void)frame_parse(fuzz_input(data, size), on_frame, NULL, &why);
    return 0;
}
