/* channels/sms/sms_sign.c - signatures of Twilio, Aliyun and Tencent Cloud. */
#include "channels/sms/sms_sign.h"

#include "base/crypto.h"

#include <stdlib.h>
#include <time.h>

/* ---- forms ---- */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One piece of a form, decoded into bytes; its place there is told, for bytes may move. */
static sl_err decode_piece(struct sl_str s, struct sl_buf *bytes, size_t *at, size_t *len)
{
    *at = bytes->len;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (c == '+') {
            c = ' ';
        } else if (c == '%') {
            int high = i + 2 < s.len ? hex_value(s.ptr[i + 1]) : -1;
            int low = high >= 0 ? hex_value(s.ptr[i + 2]) : -1;
            if (low < 0)
                return SL_EINVAL;
            c = (char)(high * 16 + low);
            i += 2;
        }
        sl_buf_char(bytes, c);
    }
    *len = bytes->len - *at;
    if (bytes->overflow)
        return SL_ETOOBIG;
    return sl_str_utf8(sl_str_n(bytes->ptr != NULL ? bytes->ptr + *at : "", *len)) ? SL_OK : SL_EINVAL;
}

sl_err sms_form_read(struct sl_str form, struct sl_buf *bytes, struct sms_param *out, size_t *count)
{
    size_t at[SMS_PARAMS_MAX * 2], len[SMS_PARAMS_MAX * 2], n = 0;
    while (form.len > 0) {
        const char *amp = memchr(form.ptr, '&', form.len);
        struct sl_str piece = sl_str_n(form.ptr, amp != NULL ? (size_t)(amp - form.ptr) : form.len);
        form = amp != NULL ? sl_str_n(amp + 1, form.len - piece.len - 1) : SL_STR_NONE;
        if (piece.len == 0)
            continue;
        if (n == SMS_PARAMS_MAX)
            return SL_ETOOBIG;
        const char *eq = memchr(piece.ptr, '=', piece.len);
        size_t name_len = eq != NULL ? (size_t)(eq - piece.ptr) : piece.len;
        struct sl_str value = eq != NULL ? sl_str_n(eq + 1, piece.len - name_len - 1) : SL_STR_NONE;
        sl_err err = decode_piece(sl_str_n(piece.ptr, name_len), bytes, &at[2 * n], &len[2 * n]);
        if (err == SL_OK)
            err = decode_piece(value, bytes, &at[2 * n + 1], &len[2 * n + 1]);
        if (err != SL_OK)
            return err;
        n++;
    }
    const char *base = bytes->ptr != NULL ? bytes->ptr : "";
    for (size_t i = 0; i < n; i++)
        out[i] = (struct sms_param){.name = sl_str_n(base + at[2 * i], len[2 * i]),
                                    .value = sl_str_n(base + at[2 * i + 1], len[2 * i + 1])};
    *count = n;
    return SL_OK;
}

static bool is_unreserved(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' ||
           c == '_' || c == '.' || c == '~';
}

static void add_escaped(struct sl_buf *out, char c)
{
    static const char digit[] = "0123456789ABCDEF";
    unsigned char v = (unsigned char)c;
    sl_buf_add(out, (const char[]){'%', digit[v >> 4], digit[v & 15]}, 3);
}

void sms_percent(struct sl_buf *out, struct sl_str raw)
{
    for (size_t i = 0; i < raw.len; i++) {
        if (is_unreserved(raw.ptr[i]))
            sl_buf_char(out, raw.ptr[i]);
        else
            add_escaped(out, raw.ptr[i]);
    }
}

void sms_form_add(struct sl_buf *out, const char *name, struct sl_str value)
{
    if (out->len > 0)
        sl_buf_char(out, '&');
    sl_buf_c(out, name);
    sl_buf_char(out, '=');
    for (size_t i = 0; i < value.len; i++) {
        if (value.ptr[i] == ' ')
            sl_buf_char(out, '+');
        else if (is_unreserved(value.ptr[i]) && value.ptr[i] != '~')
            sl_buf_char(out, value.ptr[i]);
        else
            add_escaped(out, value.ptr[i]);
    }
}

/* ---- order ---- */

static int compare_str(struct sl_str a, struct sl_str b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int c = n > 0 ? memcmp(a.ptr, b.ptr, n) : 0;
    return c != 0 ? c : (a.len > b.len) - (a.len < b.len);
}

static int compare_params(const void *pa, const void *pb)
{
    const struct sms_param *a = pa, *b = pb;
    int c = compare_str(a->name, b->name);
    return c != 0 ? c : compare_str(a->value, b->value);
}

void sms_params_sort(struct sms_param *p, size_t count)
{
    if (count > 1)
        qsort(p, count, sizeof *p, compare_params);
}

static void add_hex_sha256(struct sl_buf *out, struct sl_str in)
{
    unsigned char digest[32];
    char hex[65];
    sl_sha256(in, digest);
    sl_hex(hex, digest, sizeof digest);
    sl_buf_c(out, hex);
}

/* ---- Twilio ---- */

void sms_sign_twilio(struct sl_str token, struct sl_str url, struct sms_param *p, size_t count,
                     struct sl_buf *out)
{
    struct sl_buf base;
    unsigned char digest[20];
    sl_buf_init(&base, 0);
    sl_buf_str(&base, url);
    sms_params_sort(p, count);
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && compare_params(&p[i - 1], &p[i]) == 0)
            continue; /* a repeated name: each value once */
        sl_buf_str(&base, p[i].name);
        sl_buf_str(&base, p[i].value);
    }
    sl_hmac_sha1(token, sl_buf_view(&base), digest);
    sl_b64(out, sl_str_n((const char *)digest, sizeof digest));
    sl_buf_fini(&base);
}

/* Where the authority of a URL ends, and whether it holds a port. */
static size_t authority_end(struct sl_str url, bool *has_port)
{
    size_t at = 0;
    if (!sl_str_find(url, SL_STR("://"), &at))
        return url.len;
    *has_port = false;
    for (at += 3; at < url.len && strchr("/?#", url.ptr[at]) == NULL; at++)
        *has_port = url.ptr[at] == ':' || (*has_port && url.ptr[at] != ']'); /* [::1] ends with a bracket */
    return at;
}

/* The same URL with the default port put in, or the port left out. */
static void add_other_port(struct sl_buf *out, struct sl_str url)
{
    bool has_port = false;
    size_t end = authority_end(url, &has_port);
    if (has_port) {
        size_t colon = end;
        while (url.ptr[--colon] != ':') {
        }
        sl_buf_add(out, url.ptr, colon);
    } else {
        sl_buf_add(out, url.ptr, end);
        sl_buf_c(out, sl_str_starts(url, "https") ? ":443" : ":80");
    }
    sl_buf_add(out, url.ptr + end, url.len - end);
}

static bool is_twilio_url(struct sl_str token, struct sl_str url, struct sms_param *p, size_t count,
                          struct sl_str signature)
{
    struct sl_buf want;
    sl_buf_init(&want, 0);
    sms_sign_twilio(token, url, p, count, &want);
    bool is_ok = sl_secret_eq(sl_buf_view(&want), signature);
    sl_buf_fini(&want);
    return is_ok;
}

/* The URL of a JSON body names the body's hash. */
static bool is_twilio_body_hash(struct sl_str url, struct sl_str body)
{
    static const char name[] = "bodySHA256=";
    size_t at;
    if (!sl_str_find(url, sl_str_c(name), &at) || at == 0 ||
        (url.ptr[at - 1] != '?' && url.ptr[at - 1] != '&'))
        return false;
    struct sl_str given = sl_str_n(url.ptr + at + sizeof name - 1, url.len - at - (sizeof name - 1));
    const char *amp = memchr(given.ptr, '&', given.len);
    if (amp != NULL)
        given.len = (size_t)(amp - given.ptr);
    struct sl_buf want;
    sl_buf_init(&want, 0);
    add_hex_sha256(&want, body);
    bool is_ok = sl_secret_eq(sl_buf_view(&want), given);
    sl_buf_fini(&want);
    return is_ok;
}

bool sms_twilio_ok(struct sl_str token, const struct sms_twilio_request *rq)
{
    struct sms_param p[SMS_PARAMS_MAX];
    size_t count = 0;
    struct sl_buf bytes, other;
    sl_buf_init(&bytes, 0);
    sl_buf_init(&other, 0);
    bool is_ok = rq->is_form ? sms_form_read(rq->body, &bytes, p, &count) == SL_OK
                             : is_twilio_body_hash(rq->url, rq->body);
    add_other_port(&other, rq->url);
    if (is_ok)
        is_ok = is_twilio_url(token, rq->url, p, count, rq->signature) ||
                is_twilio_url(token, sl_buf_view(&other), p, count, rq->signature);
    sl_buf_fini(&bytes);
    sl_buf_fini(&other);
    return is_ok;
}

/* ---- Aliyun ---- */

static void add_query(struct sl_buf *out, const struct sms_param *p, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            sl_buf_char(out, '&');
        sms_percent(out, p[i].name);
        sl_buf_char(out, '=');
        sms_percent(out, p[i].value);
    }
}

static void add_names(struct sl_buf *out, const struct sms_param *p, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            sl_buf_char(out, ';');
        sl_buf_str(out, p[i].name);
    }
}

static void add_canonical(struct sl_buf *out, const struct sms_acs3 *rq)
{
    sl_buf_str(out, rq->method);
    sl_buf_char(out, '\n');
    sl_buf_str(out, rq->path);
    sl_buf_char(out, '\n');
    add_query(out, rq->query, rq->query_count);
    sl_buf_char(out, '\n');
    for (size_t i = 0; i < rq->header_count; i++) {
        sl_buf_str(out, rq->headers[i].name);
        sl_buf_char(out, ':');
        sl_buf_str(out, rq->headers[i].value);
        sl_buf_char(out, '\n');
    }
    sl_buf_char(out, '\n');
    add_names(out, rq->headers, rq->header_count);
    sl_buf_char(out, '\n');
    add_hex_sha256(out, rq->body);
}

static void add_hex_hmac(struct sl_buf *out, struct sl_str key, struct sl_str text)
{
    unsigned char digest[32];
    char hex[65];
    sl_hmac_sha256(key, text, digest);
    sl_hex(hex, digest, sizeof digest);
    sl_buf_c(out, hex);
}

void sms_sign_acs3(const struct sms_acs3 *rq, struct sl_buf *out)
{
    struct sl_buf canonical, text;
    sl_buf_init(&canonical, 0);
    sl_buf_init(&text, 0);
    sms_params_sort(rq->query, rq->query_count);
    sms_params_sort(rq->headers, rq->header_count);
    add_canonical(&canonical, rq);
    sl_buf_c(&text, "ACS3-HMAC-SHA256\n");
    add_hex_sha256(&text, sl_buf_view(&canonical));
    sl_buf_c(out, "ACS3-HMAC-SHA256 Credential=");
    sl_buf_str(out, rq->key_id);
    sl_buf_c(out, ",SignedHeaders=");
    add_names(out, rq->headers, rq->header_count);
    sl_buf_c(out, ",Signature=");
    add_hex_hmac(out, rq->secret, sl_buf_view(&text));
    sl_buf_fini(&canonical);
    sl_buf_fini(&text);
}

void sms_sign_rpc(struct sl_str secret, struct sl_str method, struct sms_param *p, size_t count,
                  struct sl_buf *out)
{
    struct sl_buf query, text, key;
    unsigned char digest[20];
    sl_buf_init(&query, 0);
    sl_buf_init(&text, 0);
    sl_buf_init(&key, 0);
    sms_params_sort(p, count);
    add_query(&query, p, count);
    sl_buf_str(&text, method);
    sl_buf_c(&text, "&%2F&");
    sms_percent(&text, sl_buf_view(&query));
    sl_buf_str(&key, secret);
    sl_buf_char(&key, '&');
    sl_hmac_sha1(sl_buf_view(&key), sl_buf_view(&text), digest);
    sl_b64(out, sl_str_n((const char *)digest, sizeof digest));
    sl_buf_fini(&query);
    sl_buf_fini(&text);
    sl_buf_fini(&key);
}

/* ---- Tencent Cloud ---- */

static void tc3_canonical_hash(const struct sms_tc3 *rq, struct sl_buf *out)
{
    struct sl_buf canonical;
    sl_buf_init(&canonical, 0);
    sl_buf_c(&canonical, "POST\n/\n\ncontent-type:");
    sl_buf_str(&canonical, rq->content_type);
    sl_buf_c(&canonical, "\nhost:");
    sl_buf_str(&canonical, rq->host);
    sl_buf_c(&canonical, "\n\ncontent-type;host\n");
    add_hex_sha256(&canonical, rq->body);
    add_hex_sha256(out, sl_buf_view(&canonical));
    sl_buf_fini(&canonical);
}

/* The day's key: TC3 with the secret, then date, service and a constant. */
static void tc3_key(const struct sms_tc3 *rq, const char *date, unsigned char out[32])
{
    struct sl_buf first;
    unsigned char a[32], b[32];
    sl_buf_init(&first, 0);
    sl_buf_c(&first, "TC3");
    sl_buf_str(&first, rq->key);
    sl_hmac_sha256(sl_buf_view(&first), sl_str_c(date), a);
    sl_hmac_sha256(sl_str_n((const char *)a, sizeof a), rq->service, b);
    sl_hmac_sha256(sl_str_n((const char *)b, sizeof b), SL_STR("tc3_request"), out);
    sl_buf_fini(&first);
}

void sms_sign_tc3(const struct sms_tc3 *rq, struct sl_buf *out)
{
    char date[32];
    time_t t = (time_t)rq->unix_s;
    struct tm utc;
    sl_assert(gmtime_r(&t, &utc) != NULL && strftime(date, sizeof date, "%Y-%m-%d", &utc) > 0);
    struct sl_buf text, scope;
    unsigned char key[32];
    sl_buf_init(&text, 0);
    sl_buf_init(&scope, 0);
    sl_buf_printf(&scope, "%s/%.*s/tc3_request", date, (int)rq->service.len, rq->service.ptr);
    sl_buf_printf(&text, "TC3-HMAC-SHA256\n%lld\n", (long long)rq->unix_s);
    sl_buf_str(&text, sl_buf_view(&scope));
    sl_buf_char(&text, '\n');
    tc3_canonical_hash(rq, &text);
    tc3_key(rq, date, key);
    sl_buf_c(out, "TC3-HMAC-SHA256 Credential=");
    sl_buf_str(out, rq->id);
    sl_buf_char(out, '/');
    sl_buf_str(out, sl_buf_view(&scope));
    sl_buf_c(out, ", SignedHeaders=content-type;host, Signature=");
    add_hex_hmac(out, sl_str_n((const char *)key, sizeof key), sl_buf_view(&text));
    sl_buf_fini(&text);
    sl_buf_fini(&scope);
}
