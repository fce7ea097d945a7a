/* channels/webhook/webhook_engine.c - an engine's life; addresses and nets. */
#include "channels/webhook/webhook_engine.h"

#include "base/crypto.h"
#include "base/metrics.h"
#include "proto/keys.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- addresses ---- */

static bool is_plain(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c != '\0' && strchr("._+-", c) != NULL);
}

static void hash_address(struct sl_str raw, char *out)
{
    unsigned char digest[32];
    sl_sha256(raw, digest);
    memcpy(out, "h-", 2);
    sl_hex(out + 2, digest, 24);
}

sl_err webhook_address_write(struct sl_str raw, char out[MSG_ID_MAX_BYTES + 1])
{
    static const char digit[] = "0123456789abcdef";
    size_t n = 0;
    if (raw.len == 0 || raw.len > 4096)
        return SL_EINVAL;
    for (size_t i = 0; i < raw.len; i++) {
        unsigned char c = (unsigned char)raw.ptr[i];
        if (n + 3 > MSG_ID_MAX_BYTES) {
            hash_address(raw, out);
            return SL_OK;
        }
        if (is_plain((char)c)) {
            out[n++] = (char)c;
        } else {
            out[n++] = '@';
            out[n++] = digit[c >> 4];
            out[n++] = digit[c & 15];
        }
    }
    out[n] = '\0';
    return key_part_ok(sl_str_n(out, n)) ? SL_OK : SL_EINVAL; /* "-" alone is no key */
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void webhook_address_read(struct sl_str a, struct sl_buf *raw)
{
    for (size_t i = 0; i < a.len; i++) {
        int high = a.ptr[i] == '@' && i + 2 < a.len ? hex_value(a.ptr[i + 1]) : -1;
        int low = high >= 0 ? hex_value(a.ptr[i + 2]) : -1;
        sl_buf_char(raw, low >= 0 ? (char)(high * 16 + low) : a.ptr[i]);
        i += low >= 0 ? 2 : 0;
    }
}

/* ---- nets ---- */

struct net {
    unsigned char byte[16];
    size_t bytes;
    unsigned bits;
};

static bool read_address(const char *text, struct net *out)
{
    struct in6_addr six;
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (inet_pton(AF_INET, text, out->byte) == 1) {
        out->bytes = 4;
        return true;
    }
    if (inet_pton(AF_INET6, text, &six) != 1)
        return false;
    bool is_mapped = memcmp(&six, mapped, sizeof mapped) == 0; /* an IPv4 caller on a socket for both */
    out->bytes = is_mapped ? 4 : 16;
    memcpy(out->byte, (const unsigned char *)&six + (is_mapped ? 12 : 0), out->bytes);
    return true;
}

static bool read_net(const char *text, struct net *out)
{
    char address[64];
    const char *slash = strchr(text, '/');
    size_t n = slash != NULL ? (size_t)(slash - text) : strlen(text);
    uint64_t bits = 0;
    if (n >= sizeof address)
        return false;
    memcpy(address, text, n);
    address[n] = '\0';
    if (!read_address(address, out))
        return false;
    if (slash != NULL && (sl_str_uint(sl_str_c(slash + 1), &bits) != SL_OK || bits > out->bytes * 8))
        return false;
    out->bits = slash != NULL ? (unsigned)bits : (unsigned)out->bytes * 8;
    return true;
}

bool webhook_net_ok(const char *net)
{
    struct net ignored;
    return read_net(net, &ignored);
}

bool webhook_net_has(const char *net, struct sl_str address)
{
    struct net in, at;
    char text[64];
    if (address.len >= sizeof text || !read_net(net, &in))
        return false;
    memcpy(text, address.ptr, address.len);
    text[address.len] = '\0';
    if (!read_address(text, &at) || at.bytes != in.bytes)
        return false;
    for (unsigned i = 0; i < in.bits; i++)
        if (((in.byte[i / 8] ^ at.byte[i / 8]) >> (7 - i % 8)) & 1)
            return false;
    return true;
}

/* ---- life ---- */

static char *copy_key(struct webhook_engine *e, const struct sl_config *cfg, const char *name)
{
    char key[MSG_ID_MAX_BYTES + 64];
    chan_key(e->ch, name, key);
    return sl_strdup(sl_config_str(cfg, key));
}

static size_t copy_list(struct webhook_engine *e, const struct sl_config *cfg, const char *name, char ***out)
{
    char key[MSG_ID_MAX_BYTES + 64];
    const char *const *items;
    chan_key(e->ch, name, key);
    size_t count = sl_config_list(cfg, key, &items);
    *out = sl_alloc((count + 1) * sizeof(char *));
    for (size_t i = 0; i < count; i++)
        (*out)[i] = sl_strdup(items[i]);
    return count;
}

static void read_config(struct webhook_engine *e, const struct sl_config *cfg)
{
    char *previous = copy_key(e, cfg, "secret_previous");
    e->secrets[0] = copy_key(e, cfg, "secret");
    if (previous[0] != '\0')
        e->secrets[1] = previous;
    else
        free(previous);
    e->encrypt_key = copy_key(e, cfg, "encrypt_key");
    e->verify_token = copy_key(e, cfg, "verify_token");
    e->access_token = copy_key(e, cfg, "access_token");
    e->app_secret = copy_key(e, cfg, "app_secret");
    e->api = copy_key(e, cfg, "api_url");
    e->public_url = copy_key(e, cfg, "public_url");
    e->ca_file = copy_key(e, cfg, "ca_file");
    e->var_count = copy_list(e, cfg, "vars", &e->vars);
    e->allow_count = copy_list(e, cfg, "allow_ips", &e->allow);
    if (e->api[0] == '\0') {
        free(e->api);
        e->api = sl_strdup(e->scheme->api);
    }
    size_t n = strlen(e->api);
    if (n > 0 && e->api[n - 1] == '/')
        e->api[n - 1] = '\0';
}

#define SECRET_MIN_BYTES 8 /* vendors choose most of them; shorter ones can be guessed */

static sl_err check_secret(const struct webhook_engine *e, struct sl_fail *why)
{
    const char *key = e->scheme->secret_key;
    const char *value = strcmp(key, "encrypt_key") == 0    ? e->encrypt_key
                        : strcmp(key, "verify_token") == 0 ? e->verify_token
                                                           : e->secrets[0];
    size_t min = e->scheme->is_secret_path ? 16 : SECRET_MIN_BYTES;
    if (strlen(value) < min)
        return sl_fail_set(why, SL_EINVAL, 0, "inboxes.%s.%s: give %zu bytes or more, or %s_file",
                           chan_inbox(e->ch), key, min, key);
    if (e->scheme->check_token_count > 0 && e->verify_token[0] == '\0')
        return sl_fail_set(why, SL_EINVAL, 0, "inboxes.%s.verify_token must be given", chan_inbox(e->ch));
    struct sl_buf trial;
    struct webhook_parts none = {.body = SL_STR_NONE};
    sl_buf_init(&trial, 0);
    sl_err err = e->scheme->rule.place == WEBHOOK_NOWHERE
                     ? SL_OK
                     : webhook_signature(&e->scheme->rule, &none, sl_str_c(value), &trial);
    sl_buf_fini(&trial);
    return err == SL_OK
               ? SL_OK
               : sl_fail_set(why, SL_EINVAL, 0, "inboxes.%s.%s is not base64", chan_inbox(e->ch), key);
}

static sl_err check_config(const struct webhook_engine *e, struct sl_fail *why)
{
    for (size_t i = 0; i < e->allow_count; i++)
        if (!webhook_net_ok(e->allow[i]))
            return sl_fail_set(why, SL_EINVAL, 0, "inboxes.%s.allow_ips: \"%.60s\" is no address nor net",
                               chan_inbox(e->ch), e->allow[i]);
    for (size_t i = 0; i < e->var_count; i++)
        if (strchr(e->vars[i], '=') == NULL)
            return sl_fail_set(why, SL_EINVAL, 0, "inboxes.%s.vars: an entry is not name=value",
                               chan_inbox(e->ch));
    return check_secret(e, why);
}

static void on_turn(void *arg);

static void on_token_timer(void *arg)
{
    struct webhook_engine *e = arg;
    e->is_token_due = true;
    webhook_out_turn(e);
}

static void make_metrics(struct webhook_engine *e)
{
    char labels[MSG_ID_MAX_BYTES + 32];
    (void)snprintf(labels, sizeof labels, "inbox=\"%s\"", chan_inbox(e->ch));
    e->refused = sl_counter("sluice_webhook_refused_total", labels,
                            "Requests with a wrong or stale signature, or from elsewhere");
    e->malformed = sl_counter("sluice_webhook_malformed_total", labels, "Requests that could not be read");
    e->ignored =
        sl_counter("sluice_webhook_ignored_total", labels, "Items of requests that meant nothing to us");
    e->busy = sl_counter("sluice_webhook_busy_total", labels, "Requests answered with 503");
    e->in_gauge = sl_gauge("sluice_webhook_requests", labels, "Requests that wait for the store");
    sl_gauge_max(e->in_gauge, WEBHOOK_REQUESTS_MAX);
}

sl_err webhook_engine_open(struct webhook_engine *e, struct chan *ch, const struct webhook_hooks *hooks,
                           void *owner, struct webhook_scheme *scheme, const struct sl_config *cfg,
                           struct sl_fail *why)
{
    e->ch = ch;
    e->hooks = hooks;
    e->owner = owner;
    e->scheme = scheme;
    sl_buf_init(&e->token, 4096);
    read_config(e, cfg);
    sl_err err = check_config(e, why);
    if (err != SL_OK) {
        webhook_engine_fini(e);
        return err;
    }
    make_metrics(e);
    sl_post_init(&e->turn, chan_loop(ch), on_turn, e);
    sl_timer_init(&e->token_timer, chan_loop(ch), on_token_timer, e);
    return SL_OK;
}

sl_err webhook_engine_start(struct webhook_engine *e)
{
    struct sl_http_options options = {
        .name = "webhook", .max_calls = WEBHOOK_JOBS_MAX + 1, .ca_file = e->ca_file};
    e->http = sl_http_new(chan_loop(e->ch), &options);
    e->is_up_due = true;
    e->is_token_due = e->scheme->token.url[0] != '\0';
    sl_post_now(&e->turn);
    return SL_OK;
}

void webhook_engine_fini(struct webhook_engine *e)
{
    char *all[] = {e->secrets[0],   e->secrets[1],   e->encrypt_key,
                   e->verify_token, e->access_token, e->app_secret};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (all[i] != NULL)
            explicit_bzero(all[i], strlen(all[i]));
        free(all[i]);
    }
    free(e->basic);
    free(e->api);
    free(e->public_url);
    free(e->ca_file);
    for (size_t i = 0; i < e->var_count; i++)
        free(e->vars[i]);
    for (size_t i = 0; i < e->allow_count; i++)
        free(e->allow[i]);
    free(e->vars);
    free(e->allow);
    sl_buf_fini(&e->token);
    webhook_scheme_free(&e->scheme);
    sl_timer_stop(&e->token_timer);
}

/* Closing: what waits is told, calls under way settle (sl_http_close), then the last call of all. */
static void on_turn(void *arg)
{
    struct webhook_engine *e = arg;
    if (e->is_up_due) {
        e->is_up_due = false;
        chan_host_of(e->ch)->state(e->ch, CHAN_UP);
    }
    webhook_out_turn(e);
    if (!e->is_closing)
        return;
    webhook_in_close(e);
    webhook_out_close(e);
    if (e->http != NULL)
        sl_http_close(&e->http);
    if (e->jobs > 0 || e->token_call != 0)
        return; /* each settlement posts the next turn */
    if (e->hooks->closed != NULL)
        e->hooks->closed(e->owner);
    webhook_engine_fini(e);
    chan_host_of(e->ch)->closed(e->ch); /* e may be gone now */
}

void webhook_engine_drain(struct webhook_engine *e)
{
    e->is_draining = true;
}

void webhook_engine_close(struct webhook_engine *e)
{
    e->is_draining = e->is_closing = true;
    sl_timer_stop(&e->token_timer);
    sl_post_now(&e->turn);
}
