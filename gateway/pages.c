/* gateway/pages.c - the two built-in pages, one html file each, with a strict content security policy made from their bytes. */
#include "gateway/gateway_priv.h"

#include "base/crypto.h"
#include "gateway/page_agent.h"
#include "gateway/page_visitor.h"

#include <stdio.h>

/* 'sha256-<base64>' of what stands between two tags (CSP level 2, 4.2.5). */
static void hash_between(struct sl_str page, struct sl_str open, struct sl_str close, char out[80])
{
    unsigned char hash[32];
    size_t from = 0, to = 0;
    struct sl_buf text;
    out[0] = '\0';
    if (!sl_str_find(page, open, &from) || !sl_str_find(page, close, &to) || to < from + open.len)
        return;
    sl_sha256(sl_str_n(page.ptr + from + open.len, to - from - open.len), hash);
    sl_buf_init(&text, 0);
    sl_b64url(&text, sl_str_n((const char *)hash, sizeof hash));
    for (size_t i = 0; i < text.len; i++)
        text.ptr[i] = (char)(text.ptr[i] == '-' ? '+' : text.ptr[i] == '_' ? '/' : text.ptr[i]);
    (void)snprintf(out, 80, "'sha256-%.*s='", (int)text.len, text.ptr);
    sl_buf_fini(&text);
}

static void answer_page(struct chan_request *rq, struct sl_str page, char *policy, size_t size)
{
    if (policy[0] == '\0') {
        char script[80], style[80];
        hash_between(page, SL_STR("<script>"), SL_STR("</script>"), script);
        hash_between(page, SL_STR("<style>"), SL_STR("</style>"), style);
        (void)snprintf(policy, size,
                       "default-src 'none'; script-src %s; style-src %s; connect-src 'self'; img-src 'self' "
                       "data:; base-uri 'none'; "
                       "form-action 'none'; frame-ancestors 'self'",
                       script, style);
    }
    rq->core = policy;
    rq->answer(rq, 200, "text/html; charset=utf-8", page);
}

void gw_pages_visitor(struct gw *gw, struct chan_request *rq)
{
    static char policy[512];
    (void)gw;
    answer_page(rq, sl_str_n((const char *)page_visitor, page_visitor_len), policy, sizeof policy);
}

void gw_pages_agent(struct gw *gw, struct chan_request *rq)
{
    static char policy[512];
    (void)gw;
    answer_page(rq, sl_str_n((const char *)page_agent, page_agent_len), policy, sizeof policy);
}
