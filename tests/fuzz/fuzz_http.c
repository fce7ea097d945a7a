/* Any bytes as the head of a request: shorter pieces say MORE until one says WHOLE or BAD, and whatever comes behind does not change
 * that; a whole head has the parts that its reader relies on. */
#include "tests/fuzz/fuzz.h"

#include "gateway/http_wire.h"

static void check_whole(const struct gw_http_head *h)
{
    struct sl_buf b;
    sl_assert(h->method.len > 0 && h->method.len <= GW_HTTP_METHOD_MAX);
    sl_assert(h->path.len > 0 && (h->path.ptr[0] == '/' || sl_str_eq_c(h->path, "*")));
    sl_assert(h->len <= GW_HTTP_HEAD_MAX_BYTES && h->body >= 0);
    sl_assert(gw_http_field(h->fields, "transfer-encoding").len == 0);
    sl_assert((gw_http_field(h->fields, "content-length").len > 0) >= (h->body > 0));
    sl_assert(h->upgrade != GW_HTTP_WEBSOCKET ||
              (h->body == 0 && gw_http_field(h->fields, "sec-websocket-key").len == 24));
    sl_buf_init(&b, GW_HTTP_HEAD_MAX_BYTES);
    if (gw_http_decode(h->path, false, &b))
        sl_assert(memchr(b.ptr, '\0', b.len) == NULL && memchr(b.ptr, '\n', b.len) == NULL);
    sl_buf_clear(&b);
    if (gw_http_decode(h->query, true, &b) && b.len > 0)
        sl_assert(memchr(b.ptr, '\0', b.len) == NULL);
    sl_buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct gw_http_head whole, h;
    struct sl_str in = fuzz_input(data, size);
    enum gw_http_verdict last = GW_HTTP_MORE, v = gw_http_read(in, &whole);
    if (v == GW_HTTP_WHOLE)
        check_whole(&whole);
    size_t step = in.len / 256 + 1;
    for (size_t n = 0; n <= in.len; n += step) {
        enum gw_http_verdict now = gw_http_read(sl_str_n(in.ptr, n), &h);
        sl_assert(last == GW_HTTP_MORE || now == last);
        sl_assert(now == GW_HTTP_MORE || (now == v && h.status == whole.status && h.len == whole.len));
        last = now;
    }
    return 0;
}
