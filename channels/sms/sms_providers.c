/* channels/sms/sms_providers.c - the calls of Twilio, Aliyun and Tencent Cloud, and what their answers mean. */
#include "channels/sms/sms_http_priv.h"

#include "base/crypto.h"
#include "channels/sms/sms_optout.h"
#include "channels/sms/sms_sign.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* ---- what is sent through a template ---- */

struct templated {      /* borrowed from hold, or from the message */
    struct sl_str code; /* of the template */
    json_t *params;     /* object (Aliyun) or list (Tencent); owned */
    json_t *hold;
};

/* data.template of the message: {"code": "SMS_1", "params": {...} or [...]}; else the free text becomes the one parameter of the
 * configured template: these providers carry no other text (section 3.7 and 3.8 of their documents). */
static sl_err read_template(struct sms_http *s, const struct chan_send *send, struct templated *out,
                            struct sl_fail *why)
{
    out->hold = send->m->data.len > 0 ? sl_json_parse(send->m->data, NULL) : NULL;
    const json_t *t = json_object_get(out->hold, "template"); /* borrowed */
    if (json_is_object(t)) {
        out->code = sl_json_get_str(t, "code");
        out->params = json_incref(json_object_get(t, "params"));
    } else {
        out->code = sl_str_c(s->template_code);
        out->params = s->provider == SMS_TENCENT ? json_array() : json_object();
        json_t *text = json_stringn(send->m->text.ptr, send->m->text.len);
        if (s->provider == SMS_TENCENT)
            (void)json_array_append_new(out->params, text);
        else
            (void)json_object_set_new(out->params, s->template_param, text);
    }
    if (out->code.len > 0)
        return SL_OK;
    return sl_fail_set(why, SL_EINVAL, 0,
                       "this provider sends templates only: configure template_code, or send a template");
}

static void templated_fini(struct templated *t)
{
    json_decref(t->params);
    json_decref(t->hold);
}

/* ---- Twilio ---- */

static sl_err twilio_call(struct sms_http *s, const struct chan_send *send, struct webhook_job *out,
                          struct sl_fail *why)
{
    struct webhook_engine *e = &s->engine;
    sl_buf_printf(&out->url, "%s/2010-04-01/Accounts/%s/Messages.json", e->api, s->account);
    sl_buf_c(&out->method, "POST");
    sl_buf_c(&out->user, s->account);
    sl_buf_c(&out->password, e->access_token[0] != '\0' ? e->access_token : e->secrets[0]);
    bool is_service = strncmp(s->number, "MG", 2) == 0;
    sms_form_add(&out->body, is_service ? "MessagingServiceSid" : "From", sl_str_c(s->number));
    sms_form_add(&out->body, "To", send->address);
    struct webhook_values media = {.engine = e};
    struct sl_buf store;
    sl_buf_init(&store, 8192);
    if (s->has_mms && webhook_media_find(e, send, &media, &store))
        sms_form_add(&out->body, "MediaUrl", media.media_url);
    else
        sms_form_add(&out->body, "Body", send->m->text.len > 0 ? send->m->text : SL_STR("[image]"));
    sl_buf_fini(&store);
    if (e->public_url[0] != '\0') {
        struct sl_buf callback;
        sl_buf_init(&callback, 2048);
        sl_buf_printf(&callback, "%s/status", e->public_url);
        sms_form_add(&out->body, "StatusCallback", sl_buf_view(&callback));
        sl_buf_fini(&callback);
    }
    webhook_job_header(out, "Content-Type", SL_STR("application/x-www-form-urlencoded"));
    return out->body.overflow ? sl_fail_set(why, SL_ETOOBIG, 0, "the text is too long") : SL_OK;
}

/* ---- Aliyun: SendSms 2017-05-25, signature ACS3 ---- */

static struct sl_str host_of(const char *api)
{
    const char *at = strstr(api, "://");
    at = at != NULL ? at + 3 : api;
    return sl_str_n(at, strcspn(at, "/"));
}

static void hex_of_random(char out[33])
{
    unsigned char bytes[16];
    sl_random_bytes(bytes, sizeof bytes);
    sl_hex(out, bytes, sizeof bytes);
}

static void add_acs3_headers(struct sms_http *s, struct webhook_job *out)
{
    char date[32], nonce[33], hash[65];
    unsigned char digest[32];
    time_t now = (time_t)(sl_loop_unix_ms(chan_loop(s->engine.ch)) / 1000);
    struct tm utc;
    sl_assert(gmtime_r(&now, &utc) != NULL && strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc) > 0);
    hex_of_random(nonce);
    sl_sha256(sl_buf_view(&out->body), digest);
    sl_hex(hash, digest, sizeof digest);
    struct sms_param headers[] = {{SL_STR("host"), host_of(s->engine.api)},
                                  {SL_STR("content-type"), SL_STR("application/x-www-form-urlencoded")},
                                  {SL_STR("x-acs-action"), SL_STR("SendSms")},
                                  {SL_STR("x-acs-version"), SL_STR("2017-05-25")},
                                  {SL_STR("x-acs-date"), sl_str_c(date)},
                                  {SL_STR("x-acs-signature-nonce"), sl_str_c(nonce)},
                                  {SL_STR("x-acs-content-sha256"), sl_str_c(hash)}};
    const size_t count = sizeof headers / sizeof headers[0];
    struct sms_acs3 rq = {.key_id = sl_str_c(s->account),
                          .secret = sl_str_c(s->engine.access_token),
                          .method = SL_STR("POST"),
                          .path = SL_STR("/"),
                          .headers = headers,
                          .header_count = count,
                          .body = sl_buf_view(&out->body)};
    struct sl_buf authorization;
    sl_buf_init(&authorization, 4096);
    sms_sign_acs3(&rq, &authorization);
    for (size_t i = 0; i < count; i++) {
        char name[40];
        (void)snprintf(name, sizeof name, "%.*s", (int)headers[i].name.len, headers[i].name.ptr);
        webhook_job_header(out, name, headers[i].value);
    }
    webhook_job_header(out, "Authorization", sl_buf_view(&authorization));
    sl_buf_fini(&authorization);
}

/* Numbers of the mainland without +86, others with their country and no plus. */
static struct sl_str aliyun_number(struct sl_str address)
{
    if (sl_str_starts(address, "+86") && address.len == 14)
        return sl_str_n(address.ptr + 3, address.len - 3);
    return sl_str_starts(address, "+") ? sl_str_n(address.ptr + 1, address.len - 1) : address;
}

static sl_err aliyun_call(struct sms_http *s, const struct chan_send *send, struct webhook_job *out,
                          struct sl_fail *why)
{
    struct templated t = {.hold = NULL};
    struct sl_buf params;
    sl_err err = read_template(s, send, &t, why);
    sl_buf_init(&params, 65536);
    if (err == SL_OK && json_is_object(t.params))
        sl_json_dump(&params, t.params);
    sl_buf_c(&out->method, "POST");
    sl_buf_printf(&out->url, "%s/", s->engine.api);
    sms_form_add(&out->body, "PhoneNumbers", aliyun_number(send->address));
    sms_form_add(&out->body, "SignName", sl_str_c(s->sign_name));
    sms_form_add(&out->body, "TemplateCode", t.code);
    if (params.len > 0)
        sms_form_add(&out->body, "TemplateParam", sl_buf_view(&params));
    sms_form_add(&out->body, "OutId", send->key);
    sl_buf_fini(&params);
    templated_fini(&t);
    if (err == SL_OK)
        add_acs3_headers(s, out);
    return err;
}

/* ---- Tencent Cloud: SendSms 2021-01-11, signature TC3 ---- */

static void add_tencent_params(struct sl_json *j, const json_t *params)
{
    size_t i;
    const json_t *v; /* borrowed */
    sl_json_open(j, "TemplateParamSet", '[');
    json_array_foreach(params, i, v)
    {
        if (json_is_string(v))
            sl_json_str(j, NULL, sl_str_n(json_string_value(v), json_string_length(v)));
    }
    sl_json_close(j, ']');
}

static void add_tc3_headers(struct sms_http *s, struct webhook_job *out)
{
    static const char type[] = "application/json; charset=utf-8";
    char timestamp[24];
    int64_t now = sl_loop_unix_ms(chan_loop(s->engine.ch)) / 1000;
    struct sms_tc3 rq = {.id = sl_str_c(s->account),
                         .key = sl_str_c(s->engine.access_token),
                         .service = SL_STR("sms"),
                         .host = host_of(s->engine.api),
                         .content_type = sl_str_c(type),
                         .body = sl_buf_view(&out->body),
                         .unix_s = now};
    struct sl_buf authorization;
    sl_buf_init(&authorization, 4096);
    sms_sign_tc3(&rq, &authorization);
    (void)snprintf(timestamp, sizeof timestamp, "%lld", (long long)now);
    webhook_job_header(out, "Content-Type", sl_str_c(type));
    webhook_job_header(out, "Host", rq.host);
    webhook_job_header(out, "X-TC-Action", SL_STR("SendSms"));
    webhook_job_header(out, "X-TC-Version", SL_STR("2021-01-11"));
    webhook_job_header(out, "X-TC-Timestamp", sl_str_c(timestamp));
    webhook_job_header(out, "X-TC-Region", sl_str_c(s->region));
    webhook_job_header(out, "Authorization", sl_buf_view(&authorization));
    sl_buf_fini(&authorization);
}

static sl_err tencent_call(struct sms_http *s, const struct chan_send *send, struct webhook_job *out,
                           struct sl_fail *why)
{
    struct templated t = {.hold = NULL};
    struct sl_json j;
    sl_err err = read_template(s, send, &t, why);
    sl_buf_c(&out->method, "POST");
    sl_buf_printf(&out->url, "%s/", s->engine.api);
    sl_json_begin(&j, &out->body);
    sl_json_open(&j, NULL, '{');
    sl_json_open(&j, "PhoneNumberSet", '[');
    sl_json_str(&j, NULL, send->address);
    sl_json_close(&j, ']');
    sl_json_c(&j, "SmsSdkAppId", s->app_id);
    sl_json_c(&j, "SignName", s->sign_name);
    sl_json_str(&j, "TemplateId", t.code);
    add_tencent_params(&j, t.params);
    sl_json_str(&j, "SessionContext", send->key);
    sl_json_close(&j, '}');
    templated_fini(&t);
    if (err == SL_OK)
        add_tc3_headers(s, out);
    return err;
}

sl_err sms_provider_call(struct sms_http *s, const struct chan_send *send, struct webhook_job *out,
                         struct sl_fail *why)
{
    switch (s->provider) {
    case SMS_TWILIO:
        return twilio_call(s, send, out, why);
    case SMS_ALIYUN:
        return aliyun_call(s, send, out, why);
    case SMS_TENCENT:
        return tencent_call(s, send, out, why);
    case SMS_GENERIC:
        break;
    }
    return SL_EINTERNAL;
}

/* ---- answers ---- */

enum meaning { FINAL, RETRY, ACCOUNT, OPTED_OUT };
struct code_row {
    const char *code;
    enum meaning meaning;
    const char *words;
};

/* Twilio's error dictionary, from memory but for those its fake and its documents name. */
static const struct code_row twilio_codes[] = {
    {"20429", ACCOUNT, "too many requests: the account is at its rate (发送过快)"},
    {"20003", ACCOUNT, "the account or its token is wrong (账号或密钥错误)"},
    {"20500", RETRY, "the provider has a fault (服务商故障)"},
    {"21211", FINAL, "this is no number that can be reached (号码无效)"},
    {"21214", FINAL, "this number cannot be reached (号码无法送达)"},
    {"21408", FINAL, "this country is not switched on for the account (未开通该国家)"},
    {"21610", OPTED_OUT, SMS_OPTED_OUT_WORDS},
    {"21611", ACCOUNT, "the sender's queue is full (发送队列已满)"},
    {"21612", FINAL, "this number cannot be reached from ours (号码无法送达)"},
    {"21614", FINAL, "this is no mobile number (不是手机号)"},
    {"21617", FINAL, "the text is too long (内容过长)"},
    {"30001", RETRY, "the queue overflowed (队列溢出)"},
    {"30002", ACCOUNT, "the account is suspended (账号已停用)"},
    {"30007", FINAL, "the carrier filtered it as unwanted (被运营商过滤)"},
};
/* help.aliyun.com "SendSms error codes", from memory. */
static const struct code_row aliyun_codes[] = {
    {"isv.BUSINESS_LIMIT_CONTROL", RETRY, "too many messages to this number for now (号码触发流控)"},
    {"isv.DAY_LIMIT_CONTROL", FINAL, "the day's limit is reached (达到日限额)"},
    {"isv.AMOUNT_NOT_ENOUGH", ACCOUNT, "the account has no money left (账户余额不足)"},
    {"isv.OUT_OF_SERVICE", ACCOUNT, "the account is suspended (业务停机)"},
    {"isv.MOBILE_NUMBER_ILLEGAL", FINAL, "this is no number that can be reached (号码无效)"},
    {"isv.SMS_TEMPLATE_ILLEGAL", FINAL, "the template is not approved (模板不合法)"},
    {"isv.SMS_SIGNATURE_ILLEGAL", FINAL, "the signature is not approved (签名不合法)"},
    {"isv.BLACK_KEY_CONTROL_LIMIT", FINAL, "a word of the text is forbidden (含黑名单关键字)"},
    {"isv.PARAM_LENGTH_LIMIT", FINAL, "a parameter is too long for the template (参数过长)"},
    {"isp.SYSTEM_ERROR", RETRY, "the provider has a fault (服务商故障)"},
    {"Throttling.User", ACCOUNT, "the account is at its rate (发送过快)"},
    {"SignatureDoesNotMatch", ACCOUNT, "the access key is wrong (密钥错误)"},
    {"InvalidAccessKeyId.NotFound", ACCOUNT, "the access key is wrong (密钥错误)"},
};
/* cloud.tencent.com/document/product/382/55981, from memory. */
static const struct code_row tencent_codes[] = {
    {"RequestLimitExceeded", ACCOUNT, "the account is at its rate (发送过快)"},
    {"LimitExceeded.PhoneNumberThirtySecondLimit", RETRY,
     "too many messages to this number for now (号码触发流控)"},
    {"LimitExceeded.PhoneNumberOneHourLimit", RETRY,
     "too many messages to this number for now (号码触发流控)"},
    {"LimitExceeded.PhoneNumberDailyLimit", FINAL, "the day's limit of this number is reached (达到日限额)"},
    {"FailedOperation.InsufficientBalanceInSmsPackage", ACCOUNT, "the package is used up (套餐包余量不足)"},
    {"FailedOperation.PhoneNumberInBlacklist", OPTED_OUT, SMS_OPTED_OUT_WORDS},
    {"InvalidParameterValue.IncorrectPhoneNumber", FINAL, "this is no number that can be reached (号码无效)"},
    {"FailedOperation.TemplateIncorrectOrUnapproved", FINAL, "the template is not approved (模板不合法)"},
    {"InternalError", RETRY, "the provider has a fault (服务商故障)"},
};

static const struct code_row *find_code(const struct code_row *table, size_t count, struct sl_str code)
{
    for (size_t i = 0; i < count; i++)
        if (sl_str_eq_c(code, table[i].code))
            return &table[i];
    return NULL;
}

static void on_entered(void *arg, sl_err err, struct sl_str value)
{
    (void)arg;
    (void)err; /* the next send hears the same from the provider */
    (void)value;
}

static void apply(struct sms_http *s, const struct webhook_job *j, const struct code_row *row,
                  struct chan_result *r)
{
    if (row == NULL || r->outcome == CHAN_SENT)
        return;
    r->outcome = CHAN_FAILED;
    r->words = sl_str_c(row->words);
    r->may_retry = row->meaning == RETRY || row->meaning == ACCOUNT;
    r->is_account = row->meaning == ACCOUNT;
    if (row->meaning == OPTED_OUT)
        (void)!sms_optout_put(s->engine.ch, sl_str_c(j->address), true, on_entered, NULL);
}

#define ROWS(table) table, sizeof table / sizeof table[0]
void sms_provider_judge(struct sms_http *s, const struct webhook_job *j, const struct webhook_body *answer,
                        struct chan_result *r)
{
    (void)answer;
    switch (s->provider) {
    case SMS_TWILIO:
        apply(s, j, find_code(ROWS(twilio_codes), r->code), r);
        return;
    case SMS_ALIYUN:
        apply(s, j, find_code(ROWS(aliyun_codes), r->code), r);
        return;
    case SMS_TENCENT:
        apply(s, j, find_code(ROWS(tencent_codes), r->code), r);
        return;
    case SMS_GENERIC:
        return;
    }
}
