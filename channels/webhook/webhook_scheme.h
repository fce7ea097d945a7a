/* channels/webhook/webhook_scheme.h - one provider's webhook as data: what stands in deploy/webhooks/<scheme>.yaml.
 *
 * What     how its requests are signed, which events they hold and where, what it wants as answer, and the call that sends a text.
 *          Read strictly: an unknown key is refused with line and column, a template or condition that makes no sense at start.
 * Owner    whoever loaded it; all strings live as long.
 * Read     docs/webhooks.md says what each key means; deploy/webhooks/line.yaml is a short example.
 */
#ifndef CHANNELS_WEBHOOK_WEBHOOK_SCHEME_H
#define CHANNELS_WEBHOOK_WEBHOOK_SCHEME_H

#include "base/config.h"
#include "channels/channel.h"
#include "channels/webhook/webhook_map.h"
#include "channels/webhook/webhook_sign.h"

struct webhook_where { /* a value of a request */
    enum webhook_place place;
    const char *name;
};
enum webhook_handshake { WEBHOOK_NO_HANDSHAKE, WEBHOOK_GET, WEBHOOK_POST };

struct webhook_call {                       /* templates of one call of ours */
    const char *method, *url, *body, *type; /* type: of the body; its escapes follow from it */
    const char *const *headers;
    size_t header_count;
    const char *user, *password; /* Basic; empty: none */
};

#define WEBHOOK_KIND_COUNT  (MSG_NOTE + 1)
#define WEBHOOK_MEDIA_KINDS (1u << MSG_IMAGE | 1u << MSG_AUDIO | 1u << MSG_VIDEO | 1u << MSG_FILE)
struct webhook_scheme {
    struct sl_config *cfg; /* every string below is its own or the rules' */
    struct webhook_rule rule;
    struct webhook_where ts, nonce, id;
    const char *secret_key;         /* which secret of the inbox signs: "secret" or "encrypt_key" */
    bool is_secret_path;            /* unsigned: the path after the inbox begins with /<secret> */
    bool is_form;                   /* the body is a form, read as an object of strings */
    bool is_encrypted;              /* Feishu: {"encrypt": ...} */
    const char *const *check_token; /* pointers; the first that is there equals verify_token */
    size_t check_token_count;
    enum webhook_handshake handshake;
    const char *const *handshake_when;
    size_t handshake_when_count;
    const char *handshake_token, *handshake_answer, *handshake_type;
    bool is_handshake_signed;
    struct webhook_map map;
    int ok_status, refused_status;
    const char *ok_type, *ok_body, *busy_body;
    uint64_t answer_within_ms; /* 0: when it is durable, however long that takes */
    const char *api;           /* where the provider's interface is; an inbox may name another */
    bool can_send;
    struct webhook_call send, token;
    const char *media_body[WEBHOOK_KIND_COUNT],
        *media_url[WEBHOOK_KIND_COUNT]; /* of each kind; NULL: goes as text with a link, to send.url */
    const char *const *hosts;           /* templates: what a URL of ours may begin with */
    size_t host_count;
    const char *const *media_hosts, *const *media_headers;
    size_t media_host_count, media_header_count;
    const char *const *ok_when;
    size_t ok_when_count;
    const char *remote_id, *error_code, *error_text, *retry_after; /* templates over the answer */
    const char *const *already, *const *retry_codes, *const *auth_codes, *const *gone_codes;
    size_t already_count, retry_code_count, auth_code_count, gone_code_count;
    const char *token_value, *token_seconds; /* templates over the token's answer */
    struct chan_limits limits;
    int64_t horizon_ms;
};

/* name: of a shipped scheme ("line"), or a path (with a slash or .yaml). Reads a file: before the loop runs. */
struct webhook_scheme *webhook_scheme_load(const char *name, struct sl_fail *why);
struct webhook_scheme *webhook_scheme_read(struct sl_str yaml, const char *name, struct sl_fail *why);
void webhook_scheme_free(struct webhook_scheme **s);

#endif
