/* A webhook request of any scheme: signature header, body, form, template and Feishu's cipher. Nothing but a refusal may come of it.
 *
 * Input    one byte that says what, then that: 0 a signature header, 1 a JSON body through a batch, 2 a form through Twilio's check,
 *          3 a template, 4 a cipher, 5 a text to count as short messages.
 */
#include "tests/fuzz/fuzz.h"

#include "channels/sms/sms_segments.h"
#include "channels/sms/sms_sign.h"
#include "channels/webhook/webhook_map.h"
#include "channels/webhook/webhook_sign.h"
#include "channels/webhook/webhook_template.h"

static const struct webhook_rule rule = {.place = WEBHOOK_HEADER,
                                         .name = "x",
                                         .prefix = "v1,",
                                         .separator = " ",
                                         .base = "${id}.${sorted(ts,nonce)}.${body}",
                                         .digest = WEBHOOK_HMAC_SHA256,
                                         .output = WEBHOOK_BASE64,
                                         .key_prefix = "",
                                         .skew_ms = 300000};

/* Split at the first line break. */
static struct sl_str first_line(struct sl_str *rest)
{
    const char *end = rest->len > 0 ? memchr(rest->ptr, '\n', rest->len) : NULL;
    size_t n = end != NULL ? (size_t)(end - rest->ptr) : rest->len;
    struct sl_str line = sl_str_n(rest->ptr, n);
    *rest = end != NULL ? sl_str_n(end + 1, rest->len - n - 1) : SL_STR_NONE;
    return line;
}

static void check_header(struct sl_str in)
{
    const struct sl_str secret = SL_STR("a secret nobody here knows");
    struct webhook_parts parts = {
        .signature = first_line(&in), .ts = first_line(&in), .id = first_line(&in), .body = in};
    sl_assert(webhook_verify(&rule, &parts, &secret, 1, 1700000000000, NULL) != SL_OK);
    struct sl_buf good;
    sl_buf_init(&good, 0);
    sl_assert(webhook_signature(&rule, &parts, secret, &good) == SL_OK);
    parts.signature = sl_buf_view(&good);
    sl_err err = webhook_verify(&rule, &parts, &secret, 1, 1700000000000, NULL);
    sl_assert(err == SL_OK || err == SL_EDENIED);
    sl_buf_fini(&good);
    (void)webhook_query_get(parts.body, "a");
}

static const char *const when[] = {"/type=text", "/a!=b", "$/object="};
static const char *const context[] = {"c=${$/entry/*/id}", "d=${/x#/y/0}"};
static const char *const words[] = {"delivered=delivered", "x=failed"};
static struct webhook_map_rule rules[] = {{.name = "m",
                                           .each = "/entry/*/messages/*",
                                           .when = when,
                                           .when_count = 3,
                                           .kind = MSG_TEXT,
                                           .id = "${/id}",
                                           .from = "${/from}",
                                           .text = "${/text/body} ${/n}",
                                           .at = "${/timestamp}",
                                           .data = "{\"x\":\"${/q}\",\"n\":${/n}}",
                                           .media = "",
                                           .media_type = "",
                                           .media_name = "",
                                           .context = context,
                                           .context_count = 2,
                                           .remote_id = "",
                                           .word = "",
                                           .code = "",
                                           .words = ""},
                                          {.name = "r",
                                           .each = "/entry/*/messages/*",
                                           .does = WEBHOOK_RECEIPT,
                                           .id = "",
                                           .from = "",
                                           .text = "",
                                           .at = "",
                                           .data = "",
                                           .media = "",
                                           .media_type = "",
                                           .media_name = "",
                                           .remote_id = "${/id}",
                                           .word = "${/status}",
                                           .code = "${.}",
                                           .words = "",
                                           .word_map = words,
                                           .word_map_count = 2}};

static void on_event(void *arg, const struct webhook_event *e)
{
    size_t *events = arg;
    (*events)++;
    sl_assert(*events <= WEBHOOK_EVENTS_MAX);
    sl_assert(e->rule->does == WEBHOOK_RECEIPT ? e->remote_id.len > 0 : e->id.len > 0 && e->from.len > 0);
    sl_assert(e->context.len <= CHAN_CONTEXT_MAX);
    json_t *v = e->data.len > 0 ? sl_json_parse(e->data, NULL) : NULL;
    sl_assert(e->data.len == 0 || json_is_object(v));
    json_decref(v);
}

static void check_body(struct sl_str in, bool is_form)
{
    const struct webhook_map map = {rules, sizeof rules / sizeof rules[0]};
    size_t events = 0, ignored = 0;
    struct webhook_body *b = webhook_body_read(in, is_form, NULL);
    if (b == NULL)
        return;
    (void)!webhook_map_run(&map, b, NULL, NULL, on_event, &events, &ignored, NULL);
    webhook_body_free(&b);
}

static void check_form(struct sl_str in)
{
    struct sms_twilio_request rq = {.signature = first_line(&in), .url = first_line(&in)};
    rq.body = in;
    rq.is_form = true;
    sl_assert(!sms_twilio_ok(SL_STR("a token nobody here knows"), &rq));
    rq.is_form = false;
    sl_assert(!sms_twilio_ok(SL_STR("a token nobody here knows"), &rq));
    check_body(in, true);
}

static bool lookup(void *arg, struct sl_str name, struct sl_buf *out)
{
    const struct sl_str *value = arg;
    sl_buf_str(out, *value);
    return name.ptr[0] != 'x';
}

/* Whatever the value is, JSON stays JSON. */
static void check_template(struct sl_str in)
{
    struct sl_str text = first_line(&in);
    struct sl_buf out;
    sl_buf_init(&out, 1u << 16);
    for (int where = WEBHOOK_RAW; where <= WEBHOOK_IN_HEADER; where++, sl_buf_clear(&out))
        (void)!webhook_expand(text, (enum webhook_escape)where, lookup, &in, &out, NULL);
    out.overflow = false;
    if (webhook_expand(SL_STR("{\"t\":\"${a}\",\"u\":\"{\\\"v\\\":\\\"${b:json}\\\"}\"}"), WEBHOOK_IN_JSON,
                       lookup, &in, &out, NULL) == SL_OK) {
        json_t *v = json_loadb(out.ptr, out.len, JSON_ALLOW_NUL, NULL);
        json_t *inner = json_loads(json_string_value(json_object_get(v, "u")), JSON_ALLOW_NUL, NULL);
        sl_assert(v != NULL && json_string_length(json_object_get(v, "t")) == in.len && inner != NULL);
        json_decref(inner);
        json_decref(v);
    }
    sl_buf_fini(&out);
}

static void check_cipher(struct sl_str in)
{
    struct sl_buf plain;
    sl_buf_init(&plain, 0);
    sl_err err = webhook_feishu_decrypt(SL_STR("key"), in, &plain);
    sl_assert(err == SL_OK || (err == SL_EAUTH && plain.len == 0));
    sl_buf_fini(&plain);
}

static void check_segments(struct sl_str in)
{
    struct sms_segments s;
    sms_segments_count(in, &s);
    sl_assert(s.segments >= 1 && s.total_bits <= s.segments * 1120 && s.message_bits <= s.total_bits);
    sl_assert(s.units <= in.len * 2);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    if (size == 0)
        return 0;
    struct sl_str in = fuzz_input(data + 1, size - 1);
    switch (data[0] % 6) {
    case 0:
        check_header(in);
        break;
    case 1:
        check_body(in, false);
        break;
    case 2:
        check_form(in);
        break;
    case 3:
        check_template(in);
        break;
    case 4:
        check_cipher(in);
        break;
    default:
        check_segments(in);
        break;
    }
    return 0;
}
