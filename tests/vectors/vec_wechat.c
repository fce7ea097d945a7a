/* tests/vectors/vec_wechat.c - runs channels/wechat's cipher, signatures and XML over a file of the form of wechat.json.
 *
 * usage: vec_wechat FILE      one line "ok <case>" or "not ok <case>: why" each; exit 1 when one failed
 */
#include "channels/wechat/wechat_crypt.h"
#include "channels/wechat/wechat_wire.h"
#include "channels/wechat/wechat_xml.h"

#include "base/crypto.h"

#include <stdio.h>
#include <stdlib.h>

static struct {
    const json_t *root;
    struct wechat_key key;
    struct sl_str token, appid;
    unsigned failed, passed;
} v;

static void report(const char *group, struct sl_str name, const char *wrong)
{
    if (wrong == NULL)
        printf("ok %s %.*s\n", group, (int)name.len, name.ptr);
    else
        printf("not ok %s %.*s: %s\n", group, (int)name.len, name.ptr, wrong);
    if (wrong == NULL)
        v.passed++;
    else
        v.failed++;
}

static struct sl_str query_member(struct sl_str query, const char *name)
{
    size_t len = strlen(name);
    for (size_t at = 0; at < query.len;) {
        const char *end = memchr(query.ptr + at, '&', query.len - at);
        size_t n = end != NULL ? (size_t)(end - query.ptr) - at : query.len - at;
        struct sl_str part = sl_str_n(query.ptr + at, n);
        if (part.len > len && part.ptr[len] == '=' && strncmp(part.ptr, name, len) == 0)
            return sl_str_n(part.ptr + len + 1, part.len - len - 1);
        at += n + 1;
    }
    return SL_STR_NONE;
}

/* What a POST body carries in <Encrypt> is what the case says. */
static const char *check_body(const json_t *c)
{
    struct wechat_xml x;
    const char *wrong = NULL;
    if (wechat_xml_read(&x, sl_json_get_str(c, "post_body"), NULL) != SL_OK)
        wrong = "post_body is not read";
    else if (!sl_str_eq(wechat_xml_get(&x, "Encrypt"), sl_json_get_str(c, "encrypt_b64")))
        wrong = "post_body's Encrypt is not encrypt_b64";
    wechat_xml_fini(&x);
    return wrong;
}

static const char *check_query(const json_t *c)
{
    struct sl_str query = sl_json_get_str(c, "query");
    const struct sl_str plain[] = {v.token, query_member(query, "timestamp"), query_member(query, "nonce")};
    if (!wechat_is_signed(plain, 3, query_member(query, "signature")))
        return "the query's signature is not found right";
    const struct sl_str all[] = {v.token, plain[1], plain[2], sl_json_get_str(c, "encrypt_b64")};
    return wechat_is_signed(all, 4, query_member(query, "msg_signature"))
               ? NULL
               : "the query's msg_signature is not found right";
}

/* Our envelope around the same cipher text reads like theirs. */
static const char *check_reply(const json_t *c)
{
    static const char *const members[] = {"Encrypt", "MsgSignature", "TimeStamp", "Nonce"};
    char signature[WECHAT_SIGNATURE_LEN + 1];
    struct sl_str encrypt = sl_json_get_str(c, "encrypt_b64"), timestamp = sl_json_get_str(c, "timestamp"),
                  nonce = sl_json_get_str(c, "nonce");
    const struct sl_str parts[] = {v.token, timestamp, nonce, encrypt};
    struct sl_buf out;
    struct wechat_xml ours, theirs;
    const char *wrong = NULL;
    sl_buf_init(&out, 0);
    wechat_sign(parts, 4, signature);
    wechat_xml_envelope(&out, encrypt, sl_str_c(signature), timestamp, nonce);
    if (wechat_xml_read(&ours, sl_buf_view(&out), NULL) != SL_OK)
        wrong = "our envelope is not read";
    if (wechat_xml_read(&theirs, sl_json_get_str(c, "reply_body"), NULL) != SL_OK)
        wrong = "reply_body is not read";
    for (size_t i = 0; i < 4 && wrong == NULL; i++)
        if (!sl_str_eq(wechat_xml_get(&ours, members[i]), wechat_xml_get(&theirs, members[i])))
            wrong = "our envelope says something else than reply_body";
    wechat_xml_fini(&ours);
    wechat_xml_fini(&theirs);
    sl_buf_fini(&out);
    return wrong;
}

static const char *check_encrypt(const json_t *c, struct sl_str id)
{
    struct sl_str random = sl_json_get_str(c, "random_ascii");
    struct sl_buf out;
    if (random.len != WECHAT_RANDOM_BYTES)
        return NULL; /* the peer drew its own */
    sl_buf_init(&out, 0);
    wechat_encrypt(&v.key, (const unsigned char *)random.ptr, sl_json_get_str(c, "plaintext_xml"), id, &out);
    bool is_same = sl_str_eq(sl_buf_view(&out), sl_json_get_str(c, "encrypt_b64"));
    sl_buf_fini(&out);
    return is_same ? NULL : "we encrypt it to something else";
}

/* A whole message becomes one of ours. */
static const char *check_message(struct sl_str text)
{
    struct wechat_xml x;
    struct wechat_in in;
    struct sl_fail why = {.text = ""};
    if (!sl_str_starts(text, "<xml"))
        return NULL;
    if (wechat_xml_read(&x, text, &why) != SL_OK) {
        wechat_xml_fini(&x);
        return "its XML is not read";
    }
    sl_err err = wechat_in_read(&in, WECHAT_OA, &x, &why);
    bool is_typed =
        in.what != WECHAT_IN_NOTHING || in.event.len > 0; /* some events are of no use to a conversation */
    wechat_in_fini(&in);
    wechat_xml_fini(&x);
    return err != SL_OK ? "its message is not read" : is_typed ? NULL : "its message is of no known type";
}

static struct wechat_envelope envelope_of(const json_t *c, const char *member)
{
    return (struct wechat_envelope){.token = v.token,
                                    .timestamp = sl_json_get_str(c, "timestamp"),
                                    .nonce = sl_json_get_str(c, "nonce"),
                                    .signature = sl_json_get_str(c, "msg_signature"),
                                    .encrypt = sl_json_get_str(c, member)};
}

static const char *check_open(const json_t *c, const char *member, struct sl_str id, struct sl_str expected)
{
    struct wechat_envelope e = envelope_of(c, member);
    struct sl_buf plain;
    struct sl_str message;
    struct sl_fail why = {.text = ""};
    sl_buf_init(&plain, 0);
    sl_err err = wechat_open_envelope(&v.key, &e, id, &plain, &message, &why);
    bool is_same = err == SL_OK && sl_str_eq(message, expected);
    sl_buf_fini(&plain);
    return err != SL_OK ? "it is refused" : is_same ? NULL : "it decrypts to something else";
}

static void run_safe_mode(const json_t *c)
{
    struct sl_str id = sl_json_get_str(c, "id"), text = sl_json_get_str(c, "plaintext_xml");
    const char *wrong = check_open(c, "encrypt_b64", id, text);
    if (wrong == NULL)
        wrong = check_encrypt(c, id);
    if (wrong == NULL && json_object_get(c, "post_body") != NULL)
        wrong = check_body(c);
    if (wrong == NULL && json_object_get(c, "query") != NULL)
        wrong = check_query(c);
    if (wrong == NULL && json_object_get(c, "reply_body") != NULL)
        wrong = check_reply(c);
    if (wrong == NULL)
        wrong = check_message(text);
    report("safe_mode", sl_json_get_str(c, "name"), wrong);
}

static void run_negative(const json_t *c)
{
    const char *refused = check_open(c, "encrypt_b64", v.appid, SL_STR_NONE);
    bool is_refused = refused != NULL && strcmp(refused, "it is refused") == 0;
    report("negative", sl_json_get_str(c, "name"), is_refused ? NULL : "it is not refused");
}

static void run_url_verify(const json_t *c)
{
    const struct sl_str parts[] = {v.token, sl_json_get_str(c, "timestamp"), sl_json_get_str(c, "nonce")};
    bool is_right = wechat_is_signed(parts, 3, sl_json_get_str(c, "signature"));
    const struct sl_str swapped[] = {parts[2], parts[0], parts[1]}; /* the order of arguments says nothing */
    is_right = is_right && wechat_is_signed(swapped, 3, sl_json_get_str(c, "signature"));
    report("url_verify", parts[1], is_right ? NULL : "the signature is not found right");
}

static void run_wecom(const json_t *c)
{
    if (!json_is_object(c))
        return;
    report("wecom_url_verify", SL_STR("echostr"),
           check_open(c, "echostr", sl_json_get_str(c, "corp"), sl_json_get_str(c, "answer_plain")));
}

static void run_dangling(const json_t *c)
{
    struct wechat_key a, b;
    if (!json_is_object(c))
        return;
    bool is_read = wechat_key_read(sl_json_get_str(c, "key_a"), &a, NULL) == SL_OK &&
                   wechat_key_read(sl_json_get_str(c, "key_b"), &b, NULL) == SL_OK;
    bool is_same = is_read && memcmp(a.aes, b.aes, sizeof a.aes) == 0;
    report("dangling_bits", SL_STR("keys"),
           is_same == json_is_true(json_object_get(c, "same_aes_key")) ? NULL
                                                                       : "the keys do not compare as said");
}

static void each(const char *member, void (*run)(const json_t *c))
{
    size_t i;
    const json_t *c;
    json_array_foreach(json_object_get(v.root, member), i, c) run(c);
}

static void run_all(void)
{
    char hex[65];
    bool is_key = wechat_key_read(sl_json_get_str(v.root, "encoding_aes_key"), &v.key, NULL) == SL_OK;
    if (is_key)
        sl_hex(hex, v.key.aes, sizeof v.key.aes);
    report("key", SL_STR("encoding_aes_key"),
           is_key && sl_str_eq_c(sl_json_get_str(v.root, "aes_key_hex"), hex)
               ? NULL
               : "it is read to something else");
    v.token = sl_json_get_str(v.root, "token");
    v.appid = sl_json_get_str(v.root, "appid");
    each("url_verify", run_url_verify);
    each("safe_mode", run_safe_mode);
    each("negative", run_negative);
    run_wecom(json_object_get(v.root, "wecom_url_verify"));
    run_dangling(json_object_get(v.root, "dangling_bits"));
}

int main(int argc, char **argv)
{
    json_error_t error;
    if (argc != 2) {
        fputs("usage: vec_wechat FILE\n", stderr);
        return 64;
    }
    json_t *root = json_load_file(argv[1], JSON_ALLOW_NUL, &error);
    if (root == NULL) {
        fprintf(stderr, "vec_wechat: %s: %s\n", argv[1], error.text);
        return 66;
    }
    v.root = root;
    run_all();
    json_decref(root);
    return v.failed == 0 && v.passed > 0 ? 0 : 1;
}
