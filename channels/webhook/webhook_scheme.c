/* channels/webhook/webhook_scheme.c - reading a scheme's file. */
#include "channels/webhook/webhook_scheme.h"

#include "channels/scheme_aliyun.h"
#include "channels/scheme_dingtalk.h"
#include "channels/scheme_feishu.h"
#include "channels/scheme_line.h"
#include "channels/scheme_messenger.h"
#include "channels/scheme_slack.h"
#include "channels/scheme_standard.h"
#include "channels/scheme_telegram.h"
#include "channels/scheme_tencent.h"
#include "channels/scheme_twilio.h"
#include "channels/scheme_whatsapp.h"
#include "channels/webhook/webhook_template.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const struct {
    const char *name;
    const unsigned char *bytes;
    const unsigned long *len;
} shipped[] = {{"line", scheme_line, &scheme_line_len},
               {"whatsapp", scheme_whatsapp, &scheme_whatsapp_len},
               {"messenger", scheme_messenger, &scheme_messenger_len},
               {"feishu", scheme_feishu, &scheme_feishu_len},
               {"dingtalk", scheme_dingtalk, &scheme_dingtalk_len},
               {"slack", scheme_slack, &scheme_slack_len},
               {"telegram", scheme_telegram, &scheme_telegram_len},
               {"standard", scheme_standard, &scheme_standard_len},
               {"twilio", scheme_twilio, &scheme_twilio_len},
               {"aliyun", scheme_aliyun, &scheme_aliyun_len},
               {"tencent", scheme_tencent, &scheme_tencent_len}};

#define STR(key, fallback, help)                                                                             \
    {                                                                                                        \
        key, SL_CFG_STR, fallback, 0, 0, false, help                                                         \
    }
#define LIST(key, help)                                                                                      \
    {                                                                                                        \
        key, SL_CFG_LIST, "", 0, 0, false, help                                                              \
    }
#define BOOL(key, fallback, help)                                                                            \
    {                                                                                                        \
        key, SL_CFG_BOOL, fallback, 0, 0, false, help                                                        \
    }
static const struct sl_key keys[] = {
    STR("about", "", "whose scheme, from which document"),
    STR("signature.in", "none", "where it stands: header, query, none"),
    STR("signature.name", "", "of the header (lower case) or parameter"),
    STR("signature.prefix", "", "to strip from it"),
    STR("signature.separator", "", "between several signatures"),
    STR("signature.base", "${body}", "what is signed"),
    STR("signature.digest", "hmac-sha256", "equal, sha1, sha256, hmac-sha1, hmac-sha256"),
    STR("signature.output", "hex", "hex, base64"),
    STR("signature.key", "raw", "what the secret is: raw, base64"),
    STR("signature.key_prefix", "", "to strip from the secret"),
    STR("signature.secret", "secret", "which secret of the inbox: secret, encrypt_key, verify_token"),
    BOOL("signature.secret_path", "false", "nothing is signed: the path goes on with /<secret>"),
    STR("timestamp.in", "none", "header, query, none"),
    STR("timestamp.name", "", "of the header or parameter"),
    STR("timestamp.unit", "s", "s, ms"),
    {"timestamp.skew", SL_CFG_MS, "0ms", 0, 86400000, false,
     "how far it may be from our clock; 0: not looked at"},
    STR("nonce.in", "none", "header, query, none"),
    STR("nonce.name", "", "of the header or parameter"),
    STR("id.in", "none", "header, query, none"),
    STR("id.name", "", "of the header or parameter"),
    STR("body.form", "json", "json, form"),
    BOOL("body.encrypted", "false", "Feishu's {\"encrypt\": ...}"),
    LIST("body.check_token", "pointers: the first that is there equals the inbox's verify_token"),
    STR("handshake.kind", "none", "none, get, post"),
    LIST("handshake.when", "of a post: conditions on the body"),
    STR("handshake.token", "", "of a get: the parameter that equals verify_token"),
    BOOL("handshake.signed", "false", "it carries a signature like any request"),
    STR("handshake.answer", "", "template; ${query.NAME} of a get, ${/pointer} of a post"),
    STR("handshake.type", "text/plain; charset=utf-8", "content type of the answer"),
    {"answer.status", SL_CFG_INT, "200", 200, 299, false, "when all is durable"},
    STR("answer.type", "application/json", "content type"),
    STR("answer.body", "{}", "when all is durable"),
    STR("answer.busy", "", "body of the 503 when it is not"),
    {"answer.refused", SL_CFG_INT, "401", 400, 499, false, "status for a wrong signature"},
    {"answer.within", SL_CFG_MS, "0ms", 0, 60000, false,
     "503 when it is not durable by then: the provider repeats; 0: wait"},
    STR("events.*.each", "", "pointer to the items, * for every index"),
    LIST("events.*.when", "conditions: /pointer=value, /pointer!=value"),
    STR("events.*.does", "message", "message, receipt, ignore"),
    STR("events.*.kind", "text", "of the message"),
    STR("events.*.id", "", "of the message or receipt, the same when it is repeated"),
    STR("events.*.from", "", "the customer"),
    STR("events.*.text", "", "her words"),
    STR("events.*.at", "", "time, seconds or milliseconds since 1970"),
    STR("events.*.data", "", "a JSON object"),
    STR("events.*.media", "", "URL of the attachment, fetched with the headers of send"),
    STR("events.*.media_type", "", "its type"),
    STR("events.*.media_name", "", "its name"),
    LIST("events.*.context", "name=template: what the answer needs"),
    STR("events.*.remote_id", "", "receipt: which message"),
    STR("events.*.word", "", "receipt: what became of it"),
    LIST("events.*.word_map", "receipt: theirs=sent, delivered, read, failed; others are ignored"),
    STR("events.*.code", "", "receipt: why it failed, as code"),
    STR("events.*.words", "", "receipt: why it failed, in words"),
    STR("api", "", "where the provider's interface is: ${api} in templates"),
    STR("send.method", "POST", "of the call that sends a text"),
    STR("send.url", "", "empty: this inbox cannot send"),
    LIST("send.headers", "\"Name: value\""),
    STR("send.type", "application/json", "of the body; values are escaped for it"),
    STR("send.body", "", "template"),
    LIST("send.media", "kind=template: the body for an image, audio, video or file: ${media.url}, "
                       "${media.name}, ${media.type}"),
    LIST("send.media_url", "kind=template: where it goes, when not to send.url"),
    STR("send.user", "", "HTTP Basic"),
    STR("send.password", "", "HTTP Basic"),
    LIST("send.hosts", "what the URL may begin with; needed when it holds a :raw value"),
    LIST("send.ok", "conditions on the answer, beside a status of 200 to 299"),
    STR("send.remote_id", "", "of the message, from the answer"),
    STR("send.error_code", "", "from the answer"),
    STR("send.error_text", "", "from the answer"),
    LIST("send.already", "statuses that mean: this key was taken before, so it was sent"),
    STR("send.retry_after", "", "seconds, from the answer, where no header says it"),
    LIST("send.retry", "codes that may go away"),
    LIST("send.auth", "codes that mean: our credentials are wrong"),
    LIST("send.gone", "codes that mean: this customer cannot be reached"),
    LIST("media.hosts",
         "what a media URL begins with that gets media.headers; others get none and must be public"),
    LIST("media.headers", "\"Name: value\""),
    STR("token.method", "POST", "of the call that gets ${token}"),
    STR("token.url", "", "empty: none is needed"),
    LIST("token.headers", "\"Name: value\""),
    STR("token.type", "application/json", "of the body"),
    STR("token.body", "", "template"),
    STR("token.value", "", "from the answer"),
    STR("token.seconds", "", "how long it is good, from the answer"),
    {"limits.text_max", SL_CFG_INT, "4096", 0, 32768, false, "of one message"},
    STR("limits.text_unit", "chars", "chars, bytes"),
    STR("limits.unknown", "at_most_once", "at_most_once, at_least_once, idempotent"),
    {"limits.media_max", SL_CFG_BYTES, "5MiB", 1024, 104857600, false,
     "of an attachment that is sent as one"},
    {"limits.rate", SL_CFG_INT, "10", 1, 10000, false, "calls a second"},
    {"limits.window", SL_CFG_INT, "8", 1, 64, false, "calls at once"},
    {"limits.horizon", SL_CFG_MS, "1d", 60000, 691200000, false, "how long the provider repeats a request"},
    {.key = NULL},
};

/* Index of a word among words; EINVAL with the choices. */
static sl_err choose(const struct sl_config *cfg, const char *key, const char *const *words, size_t count,
                     int *out, struct sl_fail *why)
{
    const char *given = sl_config_str(cfg, key);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(words[i], given) != 0)
            continue;
        *out = (int)i;
        return SL_OK;
    }
    struct sl_buf list;
    sl_buf_init(&list, 200);
    for (size_t i = 0; i < count; i++)
        sl_buf_printf(&list, "%s%s", i > 0 ? ", " : "", words[i]);
    sl_buf_char(&list, '\0');
    (void)sl_fail_set(why, SL_EINVAL, 0, "%s: \"%.40s\" is not one of %s", key, given,
                      list.overflow ? "" : list.ptr);
    sl_buf_fini(&list);
    return SL_EINVAL;
}

#define CHOOSE(s, key, out, why, ...)                                                                        \
    choose((s)->cfg, key, (const char *const[]){__VA_ARGS__},                                                \
           sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *), out, why)

static sl_err read_where(struct webhook_scheme *s, const char *section, struct webhook_where *out,
                         struct sl_fail *why)
{
    char key[40];
    int place = 0;
    (void)snprintf(key, sizeof key, "%s.in", section);
    sl_err err = CHOOSE(s, key, &place, why, "none", "header", "query");
    out->place = (enum webhook_place)place;
    (void)snprintf(key, sizeof key, "%s.name", section);
    out->name = sl_config_str(s->cfg, key);
    if (err == SL_OK && place != 0 && out->name[0] == '\0')
        return sl_fail_set(why, SL_EINVAL, 0, "%s.name must be given", section);
    return err;
}

static sl_err read_rule(struct webhook_scheme *s, struct sl_fail *why)
{
    struct webhook_where at = {.place = WEBHOOK_NOWHERE};
    int digest = 0, output = 0, key = 0, unit = 0, secret = 0;
    sl_err err = read_where(s, "signature", &at, why);
    if (err == SL_OK)
        err = CHOOSE(s, "signature.digest", &digest, why, "equal", "sha1", "sha256", "hmac-sha1",
                     "hmac-sha256");
    if (err == SL_OK)
        err = CHOOSE(s, "signature.output", &output, why, "hex", "base64");
    if (err == SL_OK)
        err = CHOOSE(s, "signature.key", &key, why, "raw", "base64");
    if (err == SL_OK)
        err = CHOOSE(s, "timestamp.unit", &unit, why, "s", "ms");
    if (err == SL_OK)
        err = CHOOSE(s, "signature.secret", &secret, why, "secret", "encrypt_key", "verify_token");
    if (err != SL_OK)
        return err;
    s->rule = (struct webhook_rule){.place = at.place,
                                    .name = at.name,
                                    .prefix = sl_config_str(s->cfg, "signature.prefix"),
                                    .separator = sl_config_str(s->cfg, "signature.separator"),
                                    .base = sl_config_str(s->cfg, "signature.base"),
                                    .digest = (enum webhook_digest)digest,
                                    .output = (enum webhook_output)output,
                                    .is_key_base64 = key == 1,
                                    .key_prefix = sl_config_str(s->cfg, "signature.key_prefix"),
                                    .is_ts_ms = unit == 1,
                                    .skew_ms = sl_config_int(s->cfg, "timestamp.skew")};
    s->secret_key = sl_config_str(s->cfg, "signature.secret");
    s->is_secret_path = sl_config_bool(s->cfg, "signature.secret_path");
    if (s->rule.place == WEBHOOK_NOWHERE && !s->is_secret_path)
        return sl_fail_set(why, SL_EINVAL, 0, "signature.in: none needs signature.secret_path: true");
    struct sl_buf trial; /* does the base name only what there is? */
    sl_buf_init(&trial, 0);
    struct webhook_parts none = {.body = SL_STR_NONE};
    err = webhook_signature(&s->rule, &none, SL_STR_NONE, &trial);
    sl_buf_fini(&trial);
    return err == SL_OK
               ? SL_OK
               : sl_fail_set(why, SL_EINVAL, 0, "signature.base: it names something that is not known");
}

static size_t list_of(const struct webhook_scheme *s, const char *key, const char *const **out)
{
    return sl_config_list(s->cfg, key, out);
}

static sl_err read_handshake(struct webhook_scheme *s, struct sl_fail *why)
{
    int kind = 0, form = 0;
    sl_err err = CHOOSE(s, "handshake.kind", &kind, why, "none", "get", "post");
    if (err == SL_OK)
        err = CHOOSE(s, "body.form", &form, why, "json", "form");
    s->handshake = (enum webhook_handshake)kind;
    s->is_form = form == 1;
    s->is_encrypted = sl_config_bool(s->cfg, "body.encrypted");
    s->check_token_count = list_of(s, "body.check_token", &s->check_token);
    s->handshake_when_count = list_of(s, "handshake.when", &s->handshake_when);
    s->handshake_token = sl_config_str(s->cfg, "handshake.token");
    s->handshake_answer = sl_config_str(s->cfg, "handshake.answer");
    s->handshake_type = sl_config_str(s->cfg, "handshake.type");
    s->is_handshake_signed = sl_config_bool(s->cfg, "handshake.signed");
    if (err == SL_OK && s->handshake == WEBHOOK_POST && s->handshake_when_count == 0)
        return sl_fail_set(why, SL_EINVAL, 0, "handshake.when must say which post is one");
    if (err == SL_OK && s->handshake == WEBHOOK_GET && s->handshake_token[0] == '\0' &&
        !s->is_handshake_signed)
        return sl_fail_set(why, SL_EINVAL, 0,
                           "handshake: a get proves itself by handshake.token or handshake.signed");
    return err;
}

static void read_answer(struct webhook_scheme *s)
{
    s->ok_status = (int)sl_config_int(s->cfg, "answer.status");
    s->refused_status = (int)sl_config_int(s->cfg, "answer.refused");
    s->ok_type = sl_config_str(s->cfg, "answer.type");
    s->ok_body = sl_config_str(s->cfg, "answer.body");
    s->busy_body = sl_config_str(s->cfg, "answer.busy");
    s->answer_within_ms = (uint64_t)sl_config_int(s->cfg, "answer.within");
}

/* ---- events ---- */

static const char *event_str(const struct webhook_scheme *s, const char *event, const char *name)
{
    char key[160];
    (void)snprintf(key, sizeof key, "events.%s.%s", event, name);
    return sl_config_str(s->cfg, key);
}

static size_t event_list(const struct webhook_scheme *s, const char *event, const char *name,
                         const char *const **out)
{
    char key[160];
    (void)snprintf(key, sizeof key, "events.%s.%s", event, name);
    return sl_config_list(s->cfg, key, out);
}

static sl_err read_event(struct webhook_scheme *s, const char *event, struct webhook_map_rule *r,
                         struct sl_fail *why)
{
    char key[160];
    int does = 0;
    (void)snprintf(key, sizeof key, "events.%s.does", event);
    sl_err err = CHOOSE(s, key, &does, why, "message", "receipt", "ignore");
    if (err != SL_OK)
        return err;
    *r = (struct webhook_map_rule){.name = event,
                                   .each = event_str(s, event, "each"),
                                   .does = (enum webhook_does)does,
                                   .id = event_str(s, event, "id"),
                                   .from = event_str(s, event, "from"),
                                   .text = event_str(s, event, "text"),
                                   .at = event_str(s, event, "at"),
                                   .data = event_str(s, event, "data"),
                                   .media = event_str(s, event, "media"),
                                   .media_type = event_str(s, event, "media_type"),
                                   .media_name = event_str(s, event, "media_name"),
                                   .remote_id = event_str(s, event, "remote_id"),
                                   .word = event_str(s, event, "word"),
                                   .code = event_str(s, event, "code"),
                                   .words = event_str(s, event, "words")};
    r->when_count = event_list(s, event, "when", &r->when);
    r->context_count = event_list(s, event, "context", &r->context);
    r->word_map_count = event_list(s, event, "word_map", &r->word_map);
    if (!msg_kind_from(sl_str_c(event_str(s, event, "kind")), &r->kind))
        return sl_fail_set(why, SL_EINVAL, 0, "events.%s.kind is not one that is known", event);
    if (r->does == WEBHOOK_MESSAGE && r->kind != MSG_TEXT && r->data[0] == '\0' && r->text[0] == '\0' &&
        r->media[0] == '\0')
        return sl_fail_set(why, SL_EINVAL, 0, "events.%s: give text, data or media", event);
    return webhook_map_check(r, why);
}

static sl_err read_events(struct webhook_scheme *s, struct sl_fail *why)
{
    const char *const *names;
    size_t count = sl_config_entries(s->cfg, "events", &names);
    s->map.rules = sl_alloc((count + 1) * sizeof *s->map.rules);
    s->map.count = count;
    if (count == 0)
        return sl_fail_set(why, SL_EINVAL, 0, "events: there are none");
    for (size_t i = 0; i < count; i++) {
        sl_err err = read_event(s, names[i], &s->map.rules[i], why);
        if (err != SL_OK)
            return err;
    }
    return SL_OK;
}

/* ---- calls ---- */

/* "image={...}" for each kind that goes by its address; the message's own words go before it, as a text. */
static sl_err read_media(struct webhook_scheme *s, const char *key, const char *of[WEBHOOK_KIND_COUNT],
                         struct sl_fail *why)
{
    const char *const *rows;
    const size_t count = sl_config_list(s->cfg, key, &rows);
    for (size_t i = 0; i < count; i++) {
        const char *eq = strchr(rows[i], '=');
        enum msg_kind kind = MSG_TEXT;
        if (eq == NULL || !msg_kind_from(sl_str_n(rows[i], (size_t)(eq - rows[i])), &kind) ||
            !(WEBHOOK_MEDIA_KINDS & 1u << kind))
            return sl_fail_set(why, SL_EINVAL, 0,
                               "%s: each begins with image=, audio=, video= or file=", key);
        of[kind] = eq + 1;
    }
    return SL_OK;
}

static sl_err read_calls(struct webhook_scheme *s, struct sl_fail *why)
{
    const struct sl_config *cfg = s->cfg;
    s->api = sl_config_str(cfg, "api");
    s->send = (struct webhook_call){.method = sl_config_str(cfg, "send.method"),
                                    .url = sl_config_str(cfg, "send.url"),
                                    .body = sl_config_str(cfg, "send.body"),
                                    .type = sl_config_str(cfg, "send.type"),
                                    .user = sl_config_str(cfg, "send.user"),
                                    .password = sl_config_str(cfg, "send.password")};
    s->send.header_count = list_of(s, "send.headers", &s->send.headers);
    s->token = (struct webhook_call){.method = sl_config_str(cfg, "token.method"),
                                     .url = sl_config_str(cfg, "token.url"),
                                     .body = sl_config_str(cfg, "token.body"),
                                     .type = sl_config_str(cfg, "token.type"),
                                     .user = "",
                                     .password = ""};
    s->token.header_count = list_of(s, "token.headers", &s->token.headers);
    s->token_value = sl_config_str(cfg, "token.value");
    s->token_seconds = sl_config_str(cfg, "token.seconds");
    s->can_send = s->send.url[0] != '\0';
    s->host_count = list_of(s, "send.hosts", &s->hosts);
    s->ok_when_count = list_of(s, "send.ok", &s->ok_when);
    s->remote_id = sl_config_str(cfg, "send.remote_id");
    s->error_code = sl_config_str(cfg, "send.error_code");
    s->error_text = sl_config_str(cfg, "send.error_text");
    s->media_host_count = list_of(s, "media.hosts", &s->media_hosts);
    s->media_header_count = list_of(s, "media.headers", &s->media_headers);
    s->retry_after = sl_config_str(cfg, "send.retry_after");
    s->already_count = list_of(s, "send.already", &s->already);
    s->retry_code_count = list_of(s, "send.retry", &s->retry_codes);
    s->auth_code_count = list_of(s, "send.auth", &s->auth_codes);
    s->gone_code_count = list_of(s, "send.gone", &s->gone_codes);
    sl_err err = read_media(s, "send.media", s->media_body, why);
    if (err == SL_OK)
        err = read_media(s, "send.media_url", s->media_url, why);
    bool is_raw = strstr(s->send.url, ":raw}") != NULL;
    for (size_t k = 0; k < WEBHOOK_KIND_COUNT; k++)
        is_raw = is_raw || (s->media_url[k] != NULL && strstr(s->media_url[k], ":raw}") != NULL);
    if (err == SL_OK && is_raw && s->host_count == 0)
        return sl_fail_set(why, SL_EINVAL, 0, "send.hosts must say where a URL with a :raw value may lead");
    return err;
}

static sl_err read_limits(struct webhook_scheme *s, struct sl_fail *why)
{
    int unit = 0, unknown = 0;
    sl_err err = CHOOSE(s, "limits.text_unit", &unit, why, "bytes", "chars");
    if (err == SL_OK)
        err = CHOOSE(s, "limits.unknown", &unknown, why, "at_most_once", "at_least_once", "idempotent");
    s->limits = (struct chan_limits){.text_max = (size_t)sl_config_int(s->cfg, "limits.text_max"),
                                     .text_unit = (enum chan_unit)unit,
                                     .unknown = (enum chan_unknown)unknown,
                                     .media_max_bytes = sl_config_int(s->cfg, "limits.media_max"),
                                     .rate_per_s = (unsigned)sl_config_int(s->cfg, "limits.rate"),
                                     .window = (unsigned)sl_config_int(s->cfg, "limits.window")};
    for (size_t k = 0; k < WEBHOOK_KIND_COUNT; k++)
        s->limits.kinds |= s->media_body[k] != NULL ? 1u << k : 0;
    s->limits.bare = s->limits.kinds;
    s->horizon_ms = sl_config_int(s->cfg, "limits.horizon");
    return err;
}

struct webhook_scheme *webhook_scheme_read(struct sl_str yaml, const char *name, struct sl_fail *why)
{
    struct sl_fail detail = {.text = ""};
    struct sl_config *cfg = sl_config_load_data(keys, yaml, name, why);
    if (cfg == NULL)
        return NULL;
    struct webhook_scheme *s = sl_alloc(sizeof *s);
    s->cfg = cfg;
    sl_err err = read_rule(s, &detail);
    if (err == SL_OK)
        err = read_where(s, "timestamp", &s->ts, &detail);
    if (err == SL_OK)
        err = read_where(s, "nonce", &s->nonce, &detail);
    if (err == SL_OK)
        err = read_where(s, "id", &s->id, &detail);
    if (err == SL_OK)
        err = read_handshake(s, &detail);
    read_answer(s);
    if (err == SL_OK)
        err = read_events(s, &detail);
    if (err == SL_OK)
        err = read_calls(s, &detail);
    if (err == SL_OK)
        err = read_limits(s, &detail);
    if (err == SL_OK)
        return s;
    (void)sl_fail_set(why, err, 0, "%s: %s", name, detail.text);
    webhook_scheme_free(&s);
    return NULL;
}

#define FILE_MAX (256u << 10)
static struct webhook_scheme *read_file(const char *path, struct sl_fail *why)
{
    struct sl_buf text;
    struct webhook_scheme *s = NULL;
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        (void)sl_fail_set(why, SL_EINVAL, errno, "cannot read the scheme %s: %s", path, strerror(errno));
        return NULL;
    }
    sl_buf_init(&text, FILE_MAX);
    char *room = sl_buf_room(&text, FILE_MAX - 1);
    text.len = fread(room, 1, FILE_MAX - 1, f);
    (void)fclose(f);
    if (text.len == FILE_MAX - 1)
        (void)sl_fail_set(why, SL_ETOOBIG, 0, "the scheme %s is larger than 256KiB", path);
    else
        s = webhook_scheme_read(sl_buf_view(&text), path, why);
    sl_buf_fini(&text);
    return s;
}

struct webhook_scheme *webhook_scheme_load(const char *name, struct sl_fail *why)
{
    for (size_t i = 0; i < sizeof shipped / sizeof shipped[0]; i++)
        if (strcmp(shipped[i].name, name) == 0)
            return webhook_scheme_read(sl_str_n((const char *)shipped[i].bytes, *shipped[i].len), name, why);
    if (strchr(name, '/') != NULL || strstr(name, ".yaml") != NULL)
        return read_file(name, why);
    (void)sl_fail_set(why, SL_EINVAL, 0,
                      "there is no scheme \"%.60s\": line, whatsapp, messenger, feishu, dingtalk, slack, "
                      "telegram, standard, or a path",
                      name);
    return NULL;
}

void webhook_scheme_free(struct webhook_scheme **sp)
{
    struct webhook_scheme *s = *sp;
    *sp = NULL;
    if (s == NULL)
        return;
    free(s->map.rules);
    sl_config_free(&s->cfg);
    free(s);
}
