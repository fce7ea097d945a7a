/* gateway/http_wire.c - see http_wire.h. */
#include "gateway/http_wire.h"

#include <stdio.h>
#include <time.h>

#define CONTENT_LENGTH_DIGITS_MAX 15

/* What the fields of a head said so far. */
struct reading {
    struct gw_http_head *head;
    unsigned fields, hosts, lengths, keys, versions;
    bool has_coding, wants_upgrade, is_connection_upgrade, is_websocket, is_version_13, wants_to_stay;
};

static enum gw_http_verdict bad(struct gw_http_head *h, int status, const char *why)
{
    h->status = status;
    h->why = why;
    return GW_HTTP_BAD;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

static bool is_same(struct sl_str s, const char *lower_case)
{
    size_t n = strlen(lower_case);
    if (s.len != n)
        return false;
    for (size_t i = 0; i < n; i++)
        if (lower(s.ptr[i]) != lower_case[i])
            return false;
    return true;
}

/* RFC 9110 5.6.2 tchar */
static bool is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_token(struct sl_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!is_token_char(s.ptr[i]))
            return false;
    return s.len > 0;
}

/* RFC 9110 5.5: visible, space, tab and what is not ASCII */
static bool is_value(struct sl_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (((unsigned char)s.ptr[i] < 0x20 && s.ptr[i] != '\t') || s.ptr[i] == 0x7f)
            return false;
    return true;
}

static struct sl_str trim(struct sl_str s)
{
    while (s.len > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t'))
        s = sl_str_n(s.ptr + 1, s.len - 1);
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s.len--;
    return s;
}

/* The next member of a list with commas; false at its end. RFC 9110 5.6.1 */
static bool next_member(struct sl_str *list, struct sl_str *member)
{
    while (list->len > 0) {
        const char *comma = memchr(list->ptr, ',', list->len);
        size_t n = comma != NULL ? (size_t)(comma - list->ptr) : list->len;
        *member = trim(sl_str_n(list->ptr, n));
        *list = comma != NULL ? sl_str_n(comma + 1, list->len - n - 1) : SL_STR_NONE;
        if (member->len > 0)
            return true;
    }
    return false;
}

/* ---- the request line ---- */

/* RFC 9112 3.2: origin-form, or absolute-form of which the path counts; "*" for OPTIONS */
static bool read_target(struct sl_str target, struct gw_http_head *h)
{
    for (size_t i = 0; i < target.len; i++)
        if (target.ptr[i] <= 0x20 || target.ptr[i] == 0x7f || target.ptr[i] == '#')
            return false; /* what is not ASCII is negative, or above 0x7f where char is not signed */
    if (target.len > 7 && is_same(sl_str_n(target.ptr, 7), "http://")) {
        const char *slash = memchr(target.ptr + 7, '/', target.len - 7);
        if (slash == NULL || slash == target.ptr + 7)
            return false;
        target = sl_str_n(slash, target.len - (size_t)(slash - target.ptr));
    }
    if (target.len == 0 || (target.ptr[0] != '/' && !sl_str_eq_c(target, "*")))
        return false;
    const char *mark = memchr(target.ptr, '?', target.len);
    h->path = mark != NULL ? sl_str_n(target.ptr, (size_t)(mark - target.ptr)) : target;
    h->query = mark != NULL ? sl_str_n(mark + 1, target.len - h->path.len - 1) : SL_STR_NONE;
    return true;
}

static enum gw_http_verdict read_request_line(struct sl_str line, struct gw_http_head *h)
{
    const char *first = memchr(line.ptr, ' ', line.len);
    const char *last = memrchr(line.ptr, ' ', line.len);
    if (first == NULL || first == last)
        return bad(h, 400, "the request line is not: method, target, HTTP/1.1\n");
    h->method = sl_str_n(line.ptr, (size_t)(first - line.ptr));
    struct sl_str version = sl_str_n(last + 1, line.len - (size_t)(last + 1 - line.ptr));
    if (!is_token(h->method) || version.len != 8 || memcmp(version.ptr, "HTTP/", 5) != 0 ||
        version.ptr[6] != '.' || version.ptr[7] < '0' || version.ptr[7] > '9')
        return bad(h, 400, "the request line is not: method, target, HTTP/1.1\n");
    if (version.ptr[5] != '1')
        return bad(h, 505, "HTTP/1.1 is spoken here\n");
    h->is_http_10 = h->is_last = version.ptr[7] == '0';
    if (h->method.len > GW_HTTP_METHOD_MAX)
        return bad(h, 501, "no such method\n");
    if (!read_target(sl_str_n(first + 1, (size_t)(last - first) - 1), h))
        return bad(h, 400, "the target of the request is not a path\n");
    return GW_HTTP_MORE;
}

/* ---- fields ---- */

static enum gw_http_verdict read_length(struct reading *r, struct sl_str value)
{
    int64_t n = 0;
    for (size_t i = 0; i < value.len; i++)
        if (value.ptr[i] < '0' || value.ptr[i] > '9')
            value.len = 0; /* "+5", "5, 5", "5x" */
    if (++r->lengths > 1 || value.len == 0 || value.len > CONTENT_LENGTH_DIGITS_MAX ||
        sl_str_int(value, &n) != SL_OK)
        return bad(r->head, 400, "give one Content-Length and no Transfer-Encoding\n");
    r->head->body = n;
    return GW_HTTP_MORE;
}

static enum gw_http_verdict read_host(struct reading *r, struct sl_str value)
{
    for (size_t i = 0; i < value.len; i++)
        if (value.ptr[i] <= 0x20 || strchr(",/@?#", value.ptr[i]) != NULL)
            return bad(r->head, 400, "Host is not a name\n");
    return ++r->hosts > 1 ? bad(r->head, 400, "give one Host\n") : GW_HTTP_MORE;
}

static enum gw_http_verdict read_connection(struct reading *r, struct sl_str value)
{
    struct sl_str member;
    while (next_member(&value, &member)) {
        r->head->is_last |= is_same(member, "close");
        r->wants_to_stay |= is_same(member, "keep-alive");
        r->is_connection_upgrade |= is_same(member, "upgrade");
    }
    return GW_HTTP_MORE;
}

static enum gw_http_verdict read_expect(struct reading *r, struct sl_str value)
{
    if (!is_same(value, "100-continue"))
        return bad(r->head, 417, "nothing but 100-continue can be expected\n");
    r->head->expects_continue = !r->head->is_http_10; /* RFC 9110 10.1.1 */
    return GW_HTTP_MORE;
}

static enum gw_http_verdict read_coding(struct reading *r, struct sl_str value)
{
    (void)value;
    return bad(r->head, 400, "give one Content-Length and no Transfer-Encoding\n");
}

static enum gw_http_verdict read_upgrade(struct reading *r, struct sl_str value)
{
    r->wants_upgrade = true;
    r->is_websocket = is_same(value, "websocket");
    return GW_HTTP_MORE;
}

static enum gw_http_verdict read_ws_version(struct reading *r, struct sl_str value)
{
    r->versions++;
    r->is_version_13 = is_same(value, "13");
    return GW_HTTP_MORE;
}

static enum gw_http_verdict read_ws_key(struct reading *r, struct sl_str value)
{
    r->keys += value.len == 24 ? 1 : 2; /* 16 bytes in base64 */
    return GW_HTTP_MORE;
}

static const struct {
    const char *name;
    enum gw_http_verdict (*read)(struct reading *r, struct sl_str value);
} readers[] = {
    {"host", read_host},
    {"connection", read_connection},
    {"content-length", read_length},
    {"transfer-encoding", read_coding},
    {"expect", read_expect},
    {"upgrade", read_upgrade},
    {"sec-websocket-version", read_ws_version},
    {"sec-websocket-key", read_ws_key},
};

static enum gw_http_verdict read_field(struct reading *r, struct sl_str line)
{
    const char *colon = memchr(line.ptr, ':', line.len);
    if (++r->fields > GW_HTTP_FIELDS_MAX)
        return bad(r->head, 431, "too many fields\n");
    if (colon == NULL || !is_token(sl_str_n(line.ptr, (size_t)(colon - line.ptr))))
        return bad(r->head, 400, "a field is not: name, colon, value\n"); /* folded lines, too */
    struct sl_str name = sl_str_n(line.ptr, (size_t)(colon - line.ptr));
    struct sl_str value = trim(sl_str_n(colon + 1, line.len - name.len - 1));
    if (!is_value(value))
        return bad(r->head, 400, "the value of a field has a control character\n");
    for (size_t i = 0; i < sizeof readers / sizeof readers[0]; i++)
        if (is_same(name, readers[i].name))
            return readers[i].read(r, value);
    return GW_HTTP_MORE;
}

static enum gw_http_verdict end_of_fields(struct reading *r)
{
    struct gw_http_head *h = r->head;
    if (r->hosts == 0 && !h->is_http_10)
        return bad(h, 400, "give one Host\n"); /* RFC 9112 3.2 */
    if (h->is_http_10 && r->wants_to_stay)
        h->is_last = false;
    if (r->wants_upgrade)
        h->upgrade = r->is_websocket && r->is_version_13 && r->versions == 1 && r->keys == 1 &&
                             r->is_connection_upgrade && h->body == 0 && !h->is_http_10 &&
                             sl_str_eq_c(h->method, "GET")
                         ? GW_HTTP_WEBSOCKET
                         : GW_HTTP_OTHER;
    return GW_HTTP_WHOLE;
}

/* ---- the head ---- */

/* The line at *at, without its CRLF. MORE: it is not whole; WHOLE: it is. */
static enum gw_http_verdict next_line(struct sl_str in, size_t *at, struct sl_str *line,
                                      struct gw_http_head *h)
{
    const char *start = in.ptr + *at, *lf = memchr(start, '\n', in.len - *at);
    if (lf == NULL)
        return GW_HTTP_MORE;
    if (lf == start || lf[-1] != '\r')
        return bad(h, 400, "lines end with CR LF\n");
    *line = sl_str_n(start, (size_t)(lf - start) - 1);
    *at += line->len + 2;
    return memchr(line->ptr, '\r', line->len) != NULL ? bad(h, 400, "lines end with CR LF\n") : GW_HTTP_WHOLE;
}

enum gw_http_verdict gw_http_read(struct sl_str in, struct gw_http_head *out)
{
    struct reading r = {.head = out};
    struct sl_str line, whole = in;
    *out = (struct gw_http_head){.method = SL_STR_NONE};
    if (in.len > GW_HTTP_HEAD_MAX_BYTES)
        in.len = GW_HTTP_HEAD_MAX_BYTES;
    size_t at = in.len >= 2 && in.ptr[0] == '\r' && in.ptr[1] == '\n' ? 2 : 0; /* RFC 9112 2.2 */
    if (at < in.len && in.ptr[at] != '\r' && !is_token_char(in.ptr[at]))
        return bad(out, 400, "this is not HTTP\n"); /* TLS, for one: no need to wait for a line */
    enum gw_http_verdict v = next_line(in, &at, &line, out);
    if (v == GW_HTTP_WHOLE && (v = read_request_line(line, out)) == GW_HTTP_MORE) {
        size_t fields = at;
        while (v == GW_HTTP_MORE && (v = next_line(in, &at, &line, out)) == GW_HTTP_WHOLE && line.len > 0)
            v = read_field(&r, line);
        if (v == GW_HTTP_WHOLE) {
            out->fields = sl_str_n(in.ptr + fields, at - 2 - fields);
            out->len = at;
            return end_of_fields(&r);
        }
    }
    if (v == GW_HTTP_MORE && whole.len >= GW_HTTP_HEAD_MAX_BYTES)
        return out->method.len > 0 ? bad(out, 431, "the fields are too long\n")
                                   : bad(out, 414, "the target is too long\n");
    return v;
}

struct sl_str gw_http_field(struct sl_str fields, const char *lower_case_name)
{
    size_t n = strlen(lower_case_name);
    while (fields.len > 0) {
        const char *lf = memchr(fields.ptr, '\n', fields.len);
        size_t line = lf != NULL ? (size_t)(lf - fields.ptr) + 1 : fields.len;
        if (line > n + 2 && fields.ptr[n] == ':' && is_same(sl_str_n(fields.ptr, n), lower_case_name))
            return trim(sl_str_n(fields.ptr + n + 1, line - n - 3));
        fields = sl_str_n(fields.ptr + line, fields.len - line);
    }
    return SL_STR_NONE;
}

static int hex(char c)
{
    char l = lower(c);
    return c >= '0' && c <= '9' ? c - '0' : l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

bool gw_http_decode(struct sl_str text, bool is_query, struct sl_buf *out)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '%') {
            int high = i + 2 < text.len ? hex(text.ptr[i + 1]) : -1;
            int low = i + 2 < text.len ? hex(text.ptr[i + 2]) : -1;
            if (high < 0 || low < 0)
                return false;
            c = (char)(high * 16 + low);
            i += 2;
        } else if (c == '+' && is_query) {
            c = ' ';
        }
        if (c == '\0' || (!is_query && ((unsigned char)c < 0x20 || c == 0x7f)))
            return false;
        sl_buf_char(out, c);
    }
    return !out->overflow;
}

bool gw_http_has_dots(struct sl_str decoded_path)
{
    size_t dots = 0, others = 0;
    for (size_t i = 0; i <= decoded_path.len; i++) {
        char c = i < decoded_path.len ? decoded_path.ptr[i] : '/';
        if (c == '/' && others == 0 && (dots == 1 || dots == 2))
            return true;
        dots = c == '/' ? 0 : dots + (c == '.');
        others = c == '/' ? 0 : others + (c != '.');
    }
    return false;
}

/* ---- the answer ---- */

/* RFC 9110 15; an empty reason is allowed (RFC 9112 4) */
static const struct {
    int status;
    const char *reason;
} reasons[] = {{200, "OK"},
               {201, "Created"},
               {202, "Accepted"},
               {204, "No Content"},
               {206, "Partial Content"},
               {400, "Bad Request"},
               {401, "Unauthorized"},
               {403, "Forbidden"},
               {404, "Not Found"},
               {405, "Method Not Allowed"},
               {408, "Request Timeout"},
               {409, "Conflict"},
               {410, "Gone"},
               {413, "Content Too Large"},
               {414, "URI Too Long"},
               {415, "Unsupported Media Type"},
               {416, "Range Not Satisfiable"},
               {417, "Expectation Failed"},
               {422, "Unprocessable Content"},
               {429, "Too Many Requests"},
               {431, "Request Header Fields Too Large"},
               {500, "Internal Server Error"},
               {501, "Not Implemented"},
               {502, "Bad Gateway"},
               {503, "Service Unavailable"},
               {504, "Gateway Timeout"},
               {505, "HTTP Version Not Supported"}};

void gw_http_add_status(struct sl_buf *out, int status)
{
    const char *reason = "";
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
        if (reasons[i].status == status)
            reason = reasons[i].reason;
    sl_buf_str(out, SL_STR("HTTP/1.1 "));
    sl_buf_int(out, status);
    sl_buf_char(out, ' ');
    sl_buf_c(out, reason);
    sl_buf_str(out, SL_STR("\r\n"));
}

void gw_http_add_field(struct sl_buf *out, struct sl_str name, struct sl_str value)
{
    if (!is_value(value))
        return;
    sl_buf_str(out, name);
    sl_buf_str(out, SL_STR(": "));
    sl_buf_str(out, value);
    sl_buf_str(out, SL_STR("\r\n"));
}

void gw_http_add_date(struct sl_buf *out, int64_t unix_s)
{
    static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t t = (time_t)unix_s;
    struct tm tm;
    if (gmtime_r(&t, &tm) == NULL)
        return;
    sl_buf_printf(out, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT", days + 3 * tm.tm_wday, tm.tm_mday,
                  months + 3 * tm.tm_mon, tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}
