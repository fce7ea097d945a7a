/* gateway/segments.c - POST /v1/segments: what a text will cost as short messages, before it is sent.
 *
 * Asked     {"inbox", "to", "text"}; {"encoding", "units", "segments", "price_class"}; 404 when the inbox is not SMS. It tells nothing
 *           that is stored, and costs less than a refused login: no token is asked for.
 */
#include "gateway/gateway_priv.h"

#include "channels/sms/sms_http.h"
#include "channels/sms/sms_segments.h"

void gw_segments(struct gw *gw, struct chan_request *rq)
{
    struct sl_fail why = {.text = ""};
    struct sl_buf out;
    struct sl_json j;
    struct sms_segments s;
    json_t *body = rq->body.len <= MSG_TEXT_MAX_BYTES ? sl_json_parse(rq->body, &why) : NULL;
    if (body == NULL) {
        gw_rest_problem(rq, SL_EINVAL, "send {\"inbox\", \"to\", \"text\"}, at most 32 KiB");
        return;
    }
    const struct gw_box *box = gw_find_box(gw, sl_json_get_str(body, "inbox"));
    const char *channel = box != NULL ? chan_ops_of(box->inbox.ch)->name : "";
    bool is_http = strcmp(channel, "sms_http") == 0;
    if (!is_http && strcmp(channel, "smpp") != 0) {
        json_decref(body);
        gw_rest_problem(rq, SL_ENOTFOUND, "this inbox sends no short messages");
        return;
    }
    sms_segments_count(sl_json_get_str(body, "text"), &s);
    sl_buf_init(&out, 0);
    sl_json_begin(&j, &out);
    sl_json_open(&j, NULL, '{');
    sl_json_c(&j, "encoding", s.is_gsm7 ? "GSM-7" : "UCS-2");
    sl_json_int(&j, "units", (int64_t)s.units);
    sl_json_int(&j, "segments", (int64_t)s.segments);
    sl_json_c(&j, "price_class",
              is_http ? sms_http_price_class(box->inbox.ch, sl_json_get_str(body, "to")) : "");
    sl_json_close(&j, '}');
    rq->answer(rq, 200, "application/json", sl_buf_view(&out));
    sl_buf_fini(&out);
    json_decref(body);
}
