#include "proto/frame.h"

#include "proto/message.h"

/* Frames are short and of fixed shape: they are put together from constant pieces. Whatever came from a peer,
 * however well checked, goes through the escaper. */

static void add_member(struct sl_buf *out, const char *piece, struct sl_str value)
{
    if (value.len == 0)
        return;
    sl_buf_c(out, piece);
    sl_json_escape(out, value);
}

static void add_json(struct sl_buf *out, const char *piece, struct sl_str json)
{
    if (json.len == 0)
        return;
    sl_buf_c(out, piece);
    sl_buf_str(out, json);
}

static void add_number(struct sl_buf *out, const char *piece, uint64_t number)
{
    sl_buf_c(out, piece);
    sl_buf_uint(out, number);
}

/* A generation is at least 1 (a time in ms): 0 says that there is no position. */
static void add_position(struct sl_buf *out, uint64_t gen, uint64_t number)
{
    if (gen == 0)
        return;
    add_number(out, ",\"pos\":[\"", gen);
    add_number(out, "\",", number);
    sl_buf_char(out, ']');
}

void frame_write_welcome(struct sl_buf *out, const struct frame_welcome *w)
{
    sl_buf_c(out, "{\"t\":\"welcome\",\"session\":");
    sl_json_escape(out, w->session);
    sl_buf_c(out, ",\"now\":");
    sl_buf_int(out, w->now_unix_ms);
    add_number(out, ",\"heartbeat_s\":", w->heartbeat_s);
    add_number(out, ",\"n\":", w->last_n);
    add_number(out, ",\"limits\":{\"frame\":", FRAME_MAX_BYTES);
    add_number(out, ",\"text\":", MSG_TEXT_MAX_BYTES);
    if (w->attachment_max_bytes > 0)
        add_number(out, ",\"attachment\":", w->attachment_max_bytes);
    sl_buf_char(out, '}');
    add_json(out, ",\"me\":", w->me_json);
    sl_buf_char(out, '}');
}

void frame_write_ok(struct sl_buf *out, struct sl_str id, struct sl_str topic, uint64_t gen, uint64_t number,
                    struct sl_str snap_json, uint64_t last_n)
{
    sl_buf_c(out, "{\"t\":\"ok\"");
    add_member(out, ",\"id\":", id);
    add_member(out, ",\"topic\":", topic);
    add_position(out, gen, number);
    add_number(out, ",\"n\":", last_n);
    add_json(out, ",\"snap\":", snap_json);
    sl_buf_char(out, '}');
}

void frame_write_event(struct sl_buf *out, struct sl_str topic, uint64_t gen, uint64_t number,
                       struct sl_str entry_json)
{
    sl_buf_c(out, "{\"t\":\"ev\"");
    add_member(out, ",\"topic\":", topic);
    add_position(out, gen, number);
    add_json(out, ",\"d\":", entry_json);
    sl_buf_char(out, '}');
}

void frame_write_hint(struct sl_buf *out, struct sl_str topic, struct sl_str json)
{
    sl_buf_c(out, "{\"t\":\"hint\"");
    add_member(out, ",\"topic\":", topic);
    add_json(out, ",\"d\":", json);
    sl_buf_char(out, '}');
}

void frame_write_ack(struct sl_buf *out, struct sl_str id, uint64_t n)
{
    sl_buf_c(out, "{\"t\":\"ack\"");
    add_member(out, ",\"id\":", id);
    add_number(out, ",\"n\":", n);
    sl_buf_char(out, '}');
}

void frame_write_result(struct sl_buf *out, struct sl_str id, struct sl_str topic, uint64_t gen,
                        uint64_t number)
{
    sl_buf_c(out, "{\"t\":\"res\"");
    add_member(out, ",\"id\":", id);
    sl_buf_c(out, ",\"ok\":true");
    add_member(out, ",\"topic\":", topic);
    add_position(out, gen, number);
    sl_buf_char(out, '}');
}

void frame_write_refusal(struct sl_buf *out, struct sl_str id, struct sl_str refusal_json)
{
    bool is_object =
        refusal_json.len > 2 && refusal_json.ptr[0] == '{' && refusal_json.ptr[refusal_json.len - 1] == '}';
    struct sl_str inside = is_object ? sl_str_n(refusal_json.ptr + 1, refusal_json.len - 2)
                                     : SL_STR("\"code\":\"refused\",\"text\":\"refused\"");
    sl_buf_c(out, "{\"t\":\"res\"");
    add_member(out, ",\"id\":", id);
    sl_buf_c(out, ",\"ok\":false,");
    sl_buf_str(out, inside);
    sl_buf_char(out, '}');
}

void frame_write_error(struct sl_buf *out, struct sl_str id, sl_err code, const char *text,
                       uint64_t expected_n)
{
    sl_buf_c(out, "{\"t\":\"err\"");
    add_member(out, ",\"id\":", id);
    add_member(out, ",\"code\":", sl_str_c(sl_err_name(code)));
    sl_buf_c(out, sl_err_retry(code) ? ",\"retry\":true" : ",\"retry\":false");
    add_member(out, ",\"text\":", sl_str_c(text != NULL ? text : sl_err_text(code)));
    if (expected_n > 0)
        add_number(out, ",\"expect\":", expected_n);
    sl_buf_char(out, '}');
}

void frame_write_gap(struct sl_buf *out, struct sl_str topic, uint64_t gen, uint64_t number)
{
    sl_buf_c(out, "{\"t\":\"gap\"");
    add_member(out, ",\"topic\":", topic);
    add_position(out, gen, number);
    sl_buf_char(out, '}');
}

void frame_write_pong(struct sl_buf *out)
{
    sl_buf_c(out, "{\"t\":\"pong\"}");
}

void frame_write_bye(struct sl_buf *out, int code, uint64_t after_min_ms, uint64_t after_max_ms)
{
    sl_buf_c(out, "{\"t\":\"bye\",\"code\":");
    sl_buf_int(out, code);
    add_number(out, ",\"after\":[", after_min_ms);
    add_number(out, ",", after_max_ms);
    sl_buf_c(out, "]}");
}
