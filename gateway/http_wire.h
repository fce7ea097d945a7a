/* gateway/http_wire.h - the head of an HTTP/1.1 request read, the head of an answer written. Pure.
 *
 * What     strict: what two programs could read in two ways is refused, because one of them may be a proxy in front of us.
 *          No bare CR or LF, no folded lines, no space before a colon, one Host, one Content-Length, no Transfer-Encoding.
 * Memory   everything in gw_http_head borrows from the bytes that were read.
 * Source   RFC 9112 (2.2, 3, 5, 6.1, 6.3, 9.3), RFC 9110 (5.5, 5.6.2, 7.2, 10.1.1), RFC 6455 4.2.1
 */
#ifndef GATEWAY_HTTP_WIRE_H
#define GATEWAY_HTTP_WIRE_H

#include "base/str.h"

#define GW_HTTP_HEAD_MAX_BYTES 8192
#define GW_HTTP_FIELDS_MAX     100
#define GW_HTTP_METHOD_MAX     16

enum gw_http_verdict {
    GW_HTTP_MORE,  /* not whole yet, and nothing wrong so far */
    GW_HTTP_WHOLE, /* len bytes are the head */
    GW_HTTP_BAD    /* answer with status and why, then close: where the next request begins is not known */
};
enum gw_http_upgrade {
    GW_HTTP_STAY,      /* none is asked for */
    GW_HTTP_WEBSOCKET, /* of version 13, as RFC 6455 wants it; path and protocol are for the caller to judge */
    GW_HTTP_OTHER      /* h2c, an old WebSocket, a POST: nothing that we speak */
};
struct gw_http_head {
    size_t len; /* with its empty line, and the one that may come before it */
    struct sl_str method;
    struct sl_str path, query; /* as sent, percent signs and all; query without its '?' */
    struct sl_str fields;      /* the lines of all fields: gw_http_field */
    int64_t body;              /* bytes that follow */
    bool is_http_10;
    bool is_last; /* the client wants the connection closed with the answer */
    bool expects_continue;
    enum gw_http_upgrade upgrade;
    int status; /* GW_HTTP_BAD */
    const char *why;
};

enum gw_http_verdict gw_http_read(struct sl_str in, struct gw_http_head *out);
/* The value of a field, the first of its name; empty when absent. fields: of a head that was WHOLE. */
struct sl_str gw_http_field(struct sl_str fields, const char *lower_case_name);
/* Append text with its percent signs resolved; is_query: '+' is a space. False: not two hex digits, or a NUL; in a path any
 * control character. */
bool gw_http_decode(struct sl_str text, bool is_query, struct sl_buf *out) SL_MUST_CHECK;

/* A segment of the path is "." or "..": no client sends it, and what stands behind it is not what it seems. RFC 3986 5.2.4 */
bool gw_http_has_dots(struct sl_str decoded_path);

/* The first line of an answer, with its CRLF. */
void gw_http_add_status(struct sl_buf *out, int status);
/* A line; nothing when the value has a control character in it. name without its colon. */
void gw_http_add_field(struct sl_buf *out, struct sl_str name, struct sl_str value);
/* "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110 5.6.7) */
void gw_http_add_date(struct sl_buf *out, int64_t unix_s);

#endif
