/* tests/vectors/vec_signatures.c FILE - the schemes of a signatures.json: right ones are taken, each with a bit flipped is refused. */
#include "tests/vectors/vec.h"

#include "channels/sms/sms_sign.h"
#include "channels/webhook/webhook_sign.h"

static size_t read_params(const json_t *object, struct sms_param *out)
{
    size_t count = 0;
    const char *name;
    json_t *value; /* borrowed */
    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        if (count < SMS_PARAMS_MAX && json_is_string(value))
            out[count++] = (struct sms_param){sl_str_c(name),
                                              sl_str_n(json_string_value(value), json_string_length(value))};
    }
    return count;
}

static const char *name_of(const char *group, const json_t *c, size_t i)
{
    static char name[100];
    struct sl_str given = vec_str(c, "name");
    if (given.len > 0)
        (void)snprintf(name, sizeof name, "%s/%.*s", group, (int)given.len, given.ptr);
    else
        (void)snprintf(name, sizeof name, "%s/%zu", group, i);
    return name;
}

static void expect(const char *name, struct sl_str want, struct sl_buf *got)
{
    vec_case(want.len > 0 && sl_str_eq(want, sl_buf_view(got)), name, "the signature is another");
    sl_buf_fini(got);
}

/* ---- what we send ---- */

static void check_rpc(const char *name, const json_t *c)
{
    struct sms_param p[SMS_PARAMS_MAX];
    struct sl_buf got;
    sl_buf_init(&got, 0);
    sms_sign_rpc(vec_str(c, "secret"), vec_str(c, "method"), p, read_params(json_object_get(c, "params"), p),
                 &got);
    expect(name, vec_str(c, "signature"), &got);
}

static void check_acs3(const char *name, const json_t *c)
{
    struct sms_param query[SMS_PARAMS_MAX], headers[SMS_PARAMS_MAX];
    const json_t *rq = json_object_get(c, "request"); /* borrowed */
    struct sl_buf got;
    struct sms_acs3 in = {.key_id = vec_str(c, "access_key_id"),
                          .secret = vec_str(c, "access_key_secret"),
                          .method = vec_str(rq, "method"),
                          .path = vec_str(rq, "pathname"),
                          .query = query,
                          .headers = headers,
                          .body = vec_str(c, "body")};
    in.query_count = read_params(json_object_get(rq, "query"), query);
    in.header_count = read_params(json_object_get(rq, "headers"), headers);
    sl_buf_init(&got, 0);
    sms_sign_acs3(&in, &got);
    expect(name, vec_str(c, "authorization"), &got);
}

static void check_tc3(const char *name, const json_t *c)
{
    struct sl_buf got;
    struct sms_tc3 in = {.id = vec_str(c, "secret_id"),
                         .key = vec_str(c, "secret_key"),
                         .service = vec_str(c, "service"),
                         .host = vec_str(c, "host"),
                         .content_type = vec_str(c, "content_type"),
                         .body = vec_str(c, "payload"),
                         .unix_s = sl_json_get_int(c, "timestamp", 0)};
    sl_buf_init(&got, 0);
    sms_sign_tc3(&in, &got);
    expect(name, vec_str(c, "authorization"), &got);
}

/* ---- what we are sent ---- */

/* Calls is_taken() with each bit of the bytes flipped; counts how often it was taken. */
static unsigned taken_with_a_bit_flipped(struct sl_str *bytes, bool (*is_taken)(void *), void *arg)
{
    unsigned taken = 0;
    struct sl_str kept = *bytes;
    char *copy = sl_str_dup(kept);
    *bytes = sl_str_n(copy, kept.len);
    for (size_t i = 0; i < kept.len * 8; i++) {
        copy[i / 8] = (char)(copy[i / 8] ^ (1 << (i % 8)));
        taken += is_taken(arg);
        copy[i / 8] = (char)(copy[i / 8] ^ (1 << (i % 8)));
    }
    *bytes = kept;
    free(copy);
    return taken;
}

struct twilio {
    struct sl_str token;
    struct sms_twilio_request rq;
};

static bool twilio_is_taken(void *arg)
{
    const struct twilio *t = arg;
    return sms_twilio_ok(t->token, &t->rq);
}

static void check_twilio_request(const char *name, struct twilio *t)
{
    char negative[120];
    vec_case(twilio_is_taken(t), name, "refused");
    (void)snprintf(negative, sizeof negative, "%s: bits flipped", name);
    vec_case(taken_with_a_bit_flipped(&t->rq.signature, twilio_is_taken, t) +
                     taken_with_a_bit_flipped(&t->rq.url, twilio_is_taken, t) +
                     taken_with_a_bit_flipped(&t->token, twilio_is_taken, t) ==
                 0,
             negative, "taken");
    t->rq.signature = SL_STR_NONE;
    (void)snprintf(negative, sizeof negative, "%s: no signature", name);
    vec_case(!twilio_is_taken(t), negative, "taken");
}

static void add_params_as_form(struct sl_buf *form, const json_t *params)
{
    const char *name;
    json_t *value; /* borrowed */
    json_object_foreach((json_t *)(uintptr_t)params, name, value)
    {
        struct sl_buf escaped;
        sl_buf_init(&escaped, 0);
        sms_percent(&escaped, sl_str_c(name));
        sl_buf_char(&escaped, '\0');
        sms_form_add(form, escaped.ptr, sl_str_n(json_string_value(value), json_string_length(value)));
        sl_buf_fini(&escaped);
    }
}

static void check_twilio(const char *name, const json_t *c)
{
    struct sl_buf form;
    char negative[120];
    sl_buf_init(&form, 0);
    add_params_as_form(&form, json_object_get(c, "params"));
    struct twilio t = {vec_str(c, "auth_token"),
                       {vec_str(c, "url"), sl_buf_view(&form), vec_str(c, "signature"), true}};
    struct sl_str signature = t.rq.signature;
    check_twilio_request(name, &t);
    t.rq.signature = signature;
    sms_form_add(&form, "Extra", SL_STR("1")); /* every parameter is covered */
    t.rq.body = sl_buf_view(&form);
    (void)snprintf(negative, sizeof negative, "%s: one parameter more", name);
    vec_case(!twilio_is_taken(&t), negative, "taken");
    sl_buf_fini(&form);
}

static void check_twilio_json(const char *name, const json_t *c)
{
    char negative[120];
    struct twilio t = {vec_str(c, "auth_token"),
                       {vec_str(c, "url"), vec_str(c, "body"), vec_str(c, "signature"), false}};
    struct sl_str signature = t.rq.signature;
    check_twilio_request(name, &t);
    t.rq.signature = signature;
    (void)snprintf(negative, sizeof negative, "%s: bits of the body flipped", name);
    vec_case(taken_with_a_bit_flipped(&t.rq.body, twilio_is_taken, &t) == 0, negative, "taken");
}

struct hook {
    const struct webhook_rule *rule;
    struct webhook_parts parts;
    struct sl_str secret;
};

static bool hook_is_taken(void *arg)
{
    const struct hook *h = arg;
    return webhook_verify(h->rule, &h->parts, &h->secret, 1, 0, NULL) == SL_OK;
}

static void check_hook(const char *name, const struct webhook_rule *rule, struct webhook_parts parts,
                       struct sl_str secret)
{
    struct hook h = {rule, parts, secret};
    char negative[120];
    vec_case(hook_is_taken(&h), name, "refused");
    struct {
        struct sl_str *bytes;
        const char *what;
    } flips[] = {{&h.parts.body, "body"}, {&h.parts.signature, "signature"},
                 {&h.parts.ts, "ts"},     {&h.parts.nonce, "nonce"},
                 {&h.parts.id, "id"},     {&h.secret, "secret"}};
    for (size_t i = 0; i < sizeof flips / sizeof flips[0]; i++) {
        if (flips[i].bytes->len == 0)
            continue;
        bool is_list = rule->separator[0] != '\0';
        unsigned taken = taken_with_a_bit_flipped(flips[i].bytes, hook_is_taken, &h);
        (void)snprintf(negative, sizeof negative, "%s: bits of the %s flipped", name, flips[i].what);
        /* The last base64 digit of a secret may hold bits that count for nothing; the decoder refuses those, so none is taken. */
        vec_case(taken == 0, negative, is_list ? "taken (list)" : "taken");
    }
}

#define RULE .prefix = "", .separator = "", .key_prefix = ""
static const struct webhook_rule line_rule = {RULE,
                                              .place = WEBHOOK_HEADER,
                                              .name = "x",
                                              .base = "${body}",
                                              .digest = WEBHOOK_HMAC_SHA256,
                                              .output = WEBHOOK_BASE64};
static const struct webhook_rule standard_rule = {.place = WEBHOOK_HEADER,
                                                  .name = "x",
                                                  .base = "${id}.${ts}.${body}",
                                                  .digest = WEBHOOK_HMAC_SHA256,
                                                  .output = WEBHOOK_BASE64,
                                                  .prefix = "v1,",
                                                  .separator = " ",
                                                  .is_key_base64 = true,
                                                  .key_prefix = "whsec_"};
static const struct webhook_rule meta_rule = {.place = WEBHOOK_HEADER,
                                              .name = "x",
                                              .base = "${body}",
                                              .prefix = "sha256=",
                                              .separator = "",
                                              .key_prefix = "",
                                              .digest = WEBHOOK_HMAC_SHA256};
static const struct webhook_rule slack_rule = {.place = WEBHOOK_HEADER,
                                               .name = "x",
                                               .base = "v0:${ts}:${body}",
                                               .prefix = "v0=",
                                               .separator = "",
                                               .key_prefix = "",
                                               .digest = WEBHOOK_HMAC_SHA256};
static const struct webhook_rule feishu_rule = {RULE, .place = WEBHOOK_HEADER, .name = "x",
                                                .base = "${ts}${nonce}${key}${body}",
                                                .digest = WEBHOOK_SHA256};
static const struct webhook_rule dingtalk_rule = {RULE,
                                                  .place = WEBHOOK_HEADER,
                                                  .name = "x",
                                                  .base = "${ts}\n${key}",
                                                  .digest = WEBHOOK_HMAC_SHA256,
                                                  .output = WEBHOOK_BASE64};

static void check_line(const char *name, const json_t *c)
{
    check_hook(name, &line_rule,
               (struct webhook_parts){.body = vec_str(c, "body"), .signature = vec_str(c, "signature")},
               vec_str(c, "secret"));
}

static void check_standard(const char *name, const json_t *c)
{
    char ts[24];
    (void)snprintf(ts, sizeof ts, "%lld", (long long)sl_json_get_int(c, "timestamp", 0));
    struct webhook_parts parts = {.body = vec_str(c, "body"),
                                  .signature = vec_str(c, "signature"),
                                  .id = vec_str(c, "id"),
                                  .ts = sl_str_c(ts)};
    check_hook(name, &standard_rule, parts, vec_str(c, "secret"));
    char list[400];
    (void)snprintf(list, sizeof list, "v1,AAAA v2,%s %.*s", "bm90IG91cnM=", (int)parts.signature.len,
                   parts.signature.ptr);
    struct hook h = {&standard_rule, parts, vec_str(c, "secret")};
    h.parts.signature = sl_str_c(list);
    vec_case(hook_is_taken(&h), "standardwebhooks: one of a list", "refused");
}

static void check_meta(const char *name, const json_t *c)
{
    check_hook(name, &meta_rule,
               (struct webhook_parts){.body = vec_str(c, "body"), .signature = vec_str(c, "header")},
               vec_str(c, "app_secret"));
}

static void check_slack(const char *name, const json_t *c)
{
    check_hook(name, &slack_rule,
               (struct webhook_parts){
                   .body = vec_str(c, "body"), .signature = vec_str(c, "header"), .ts = vec_str(c, "ts")},
               vec_str(c, "secret"));
}

static void check_feishu(const char *name, const json_t *c)
{
    struct webhook_parts parts = {.body = vec_str(c, "body"),
                                  .signature = vec_str(c, "signature"),
                                  .ts = vec_str(c, "timestamp"),
                                  .nonce = vec_str(c, "nonce")};
    check_hook(name, &feishu_rule, parts, vec_str(c, "encrypt_key"));
}

static void check_dingtalk(const char *name, const json_t *c)
{
    check_hook(name, &dingtalk_rule,
               (struct webhook_parts){.signature = vec_str(c, "sign_b64"), .ts = vec_str(c, "timestamp")},
               vec_str(c, "secret"));
}

static void check_feishu_aes(const char *name, const json_t *c)
{
    struct sl_buf plain;
    char negative[120];
    sl_buf_init(&plain, 0);
    sl_err err = webhook_feishu_decrypt(vec_str(c, "encrypt_key"), vec_str(c, "encrypt_b64"), &plain);
    vec_case(err == SL_OK && sl_str_eq(sl_buf_view(&plain), vec_str(c, "plaintext")), name, "not decrypted");
    sl_buf_clear(&plain);
    (void)snprintf(negative, sizeof negative, "%s: cut short", name);
    struct sl_str whole = vec_str(c, "encrypt_b64");
    err = webhook_feishu_decrypt(vec_str(c, "encrypt_key"), sl_str_n(whole.ptr, whole.len - 4), &plain);
    vec_case(err == SL_EAUTH, negative, "taken");
    sl_buf_fini(&plain);
}

static void check_port_rule(const char *name, const json_t *c)
{
    /* what it says is tried on the cases themselves: signed for one URL, asked for the other */
    static const struct twilio with = {
        SL_STR("12345"), {SL_STR("https://gw.example.com:443/x?a=1"), SL_STR(""), SL_STR(""), true}};
    struct twilio t = with;
    struct sl_buf signature;
    sl_buf_init(&signature, 0);
    sms_sign_twilio(t.token, SL_STR("https://gw.example.com/x?a=1"), NULL, 0, &signature);
    t.rq.signature = sl_buf_view(&signature);
    bool is_without = twilio_is_taken(&t);
    sl_buf_clear(&signature);
    sms_sign_twilio(t.token, with.rq.url, NULL, 0, &signature);
    t.rq.url = SL_STR("https://gw.example.com/x?a=1");
    t.rq.signature = sl_buf_view(&signature);
    bool is_with = twilio_is_taken(&t);
    sl_buf_fini(&signature);
    vec_case(is_without == sl_json_get_bool(c, "sig_without_port_validates_url_with_port", true) &&
                 is_with == sl_json_get_bool(c, "sig_with_port_validates_url_without", true),
             name, "another rule");
}

static const struct {
    const char *key;
    void (*check)(const char *name, const json_t *c);
} schemes[] = {{"twilio", check_twilio},
               {"twilio_json", check_twilio_json},
               {"twilio_port_rule", check_port_rule},
               {"aliyun_rpc", check_rpc},
               {"aliyun_acs3", check_acs3},
               {"aliyun_acs3_doc", check_acs3},
               {"tc3", check_tc3},
               {"line", check_line},
               {"standardwebhooks", check_standard},
               {"meta", check_meta},
               {"slack", check_slack},
               {"feishu", check_feishu},
               {"feishu_aes", check_feishu_aes},
               {"dingtalk", check_dingtalk}};

/* A scheme is one case or a list of them. */
static void check_scheme(const char *key, const json_t *v)
{
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        if (strcmp(schemes[i].key, key) != 0)
            continue;
        for (size_t k = 0; k < json_array_size(v); k++)
            schemes[i].check(name_of(key, json_array_get(v, k), k), json_array_get(v, k));
        if (json_is_object(v))
            schemes[i].check(key, v);
        return;
    }
    if (strcmp(key, "generated_by") != 0)
        vec_case(false, key, "nobody here knows this scheme");
}

int main(int argc, char **argv)
{
    json_t *all = vec_load(argc, argv);
    const char *key;
    json_t *v; /* borrowed */
    json_object_foreach(all, key, v) check_scheme(key, v);
    return vec_end(all);
}
