#include "channels/wechat/wechat_xml.h"

#include "base/json.h"

#include <expat.h>

struct reader {
    struct wechat_xml *x;
    XML_Parser parser;
    struct sl_buf path;  /* of the open element below the root: "A/B" */
    struct sl_buf value; /* text of the element that was opened last */
    unsigned depth;      /* open elements, the root included */
    bool is_leaf;        /* the last thing seen was a start */
    sl_err err;
    const char *words;
};

static void stop(struct reader *r, sl_err err, const char *words)
{
    if (r->err != SL_OK)
        return;
    r->err = err;
    r->words = words;
    if (r->parser != NULL) /* NULL: from JSON */
        (void)XML_StopParser(r->parser, XML_FALSE);
}

static void on_start(void *arg, const XML_Char *name, const XML_Char **attributes)
{
    struct reader *r = arg;
    (void)attributes;
    if (r->err != SL_OK)
        return;
    if (++r->depth > WECHAT_XML_DEPTH_MAX) {
        stop(r, SL_ETOOBIG, "nested too deep");
    } else if (r->depth == 1) {
        if (strcmp(name, "xml") != 0)
            stop(r, SL_EINVAL, "its root is not <xml>");
    } else {
        if (r->depth > 2)
            sl_buf_char(&r->path, '/');
        sl_buf_c(&r->path, name);
        if (r->path.overflow)
            stop(r, SL_ETOOBIG, "a name is too long");
    }
    sl_buf_clear(&r->value);
    r->is_leaf = true;
}

static void add_leaf(struct reader *r)
{
    struct wechat_xml *x = r->x;
    if (x->leaves == WECHAT_XML_LEAVES_MAX) {
        stop(r, SL_ETOOBIG, "too many elements");
        return;
    }
    size_t path = x->text.len;
    sl_buf_str(&x->text, sl_buf_view(&r->path));
    size_t value = x->text.len;
    sl_buf_str(&x->text, sl_buf_view(&r->value));
    if (x->text.overflow || r->value.overflow) {
        stop(r, SL_ETOOBIG, "too large");
        return;
    }
    x->leaf[x->leaves].path = (uint32_t)path;
    x->leaf[x->leaves].path_len = (uint32_t)(value - path);
    x->leaf[x->leaves].value = (uint32_t)value;
    x->leaf[x->leaves].value_len = (uint32_t)(x->text.len - value);
    x->leaves++;
}

static void on_end(void *arg, const XML_Char *name)
{
    struct reader *r = arg;
    size_t len = strlen(name) + (r->depth > 2);
    if (r->err != SL_OK)
        return;
    if (r->depth > 1) {
        if (r->is_leaf)
            add_leaf(r);
        sl_assert(r->path.len >= len); /* expat checked that the names match */
        r->path.len -= len;
    }
    r->depth--;
    r->is_leaf = false;
    sl_buf_clear(&r->value);
}

static void on_text(void *arg, const XML_Char *s, int len)
{
    struct reader *r = arg;
    if (r->err == SL_OK && r->is_leaf && len > 0)
        sl_buf_add(&r->value, s, (size_t)len);
}

static void on_doctype(void *arg, const XML_Char *name, const XML_Char *sysid, const XML_Char *pubid,
                       int has_subset)
{
    (void)name;
    (void)sysid;
    (void)pubid;
    (void)has_subset;
    stop(arg, SL_EINVAL, "a DOCTYPE is refused");
}

static sl_err result_of(struct reader *r, enum XML_Status status, struct sl_fail *why)
{
    if (r->err != SL_OK)
        return sl_fail_set(why, r->err, 0, "the XML: %s", r->words);
    if (status != XML_STATUS_OK)
        return sl_fail_set(why, SL_EINVAL, (int)XML_GetErrorCode(r->parser),
                           "not XML: line %lu column %lu: %s",
                           (unsigned long)XML_GetCurrentLineNumber(r->parser),
                           (unsigned long)XML_GetCurrentColumnNumber(r->parser),
                           XML_ErrorString(XML_GetErrorCode(r->parser)));
    return SL_OK;
}

sl_err wechat_xml_read(struct wechat_xml *x, struct sl_str document, struct sl_fail *why)
{
    x->leaves = 0;
    sl_buf_init(&x->text, WECHAT_XML_MAX_BYTES * 2);
    if (document.len > WECHAT_XML_MAX_BYTES)
        return sl_fail_set(why, SL_ETOOBIG, 0, "the XML: over %d bytes", WECHAT_XML_MAX_BYTES);
    struct reader r = {.x = x, .parser = XML_ParserCreate(NULL), .err = SL_OK};
    sl_assert(r.parser != NULL);
    sl_buf_init(&r.path, WECHAT_XML_PATH_MAX);
    sl_buf_init(&r.value, WECHAT_XML_MAX_BYTES);
    XML_SetUserData(r.parser, &r);
    XML_SetElementHandler(r.parser, on_start, on_end);
    XML_SetCharacterDataHandler(r.parser, on_text);
    XML_SetStartDoctypeDeclHandler(r.parser, on_doctype);
    enum XML_Status status = XML_Parse(r.parser, document.ptr, (int)document.len, XML_TRUE);
    sl_err err = result_of(&r, status, why);
    XML_ParserFree(r.parser);
    sl_buf_fini(&r.path);
    sl_buf_fini(&r.value);
    return err;
}

/* ---- the same from JSON ---- */

static void add_json(struct reader *r, const json_t *v, unsigned depth)
{
    size_t before = r->path.len, i;
    const char *name;
    const json_t *child;
    if (r->err != SL_OK || depth > WECHAT_XML_DEPTH_MAX || r->path.overflow) {
        r->err = r->err != SL_OK ? r->err : SL_ETOOBIG;
        return;
    }
    sl_buf_clear(&r->value);
    if (json_is_object(v)) {
        json_object_foreach((json_t *)(uintptr_t)v, name, child)
        {
            if (before > 0)
                sl_buf_char(&r->path, '/');
            sl_buf_c(&r->path, name);
            add_json(r, child, depth + 1);
            r->path.len = before;
        }
        return;
    }
    if (json_is_array(v)) {
        json_array_foreach(v, i, child) add_json(r, child, depth + 1);
        return;
    }
    if (json_is_string(v))
        sl_buf_add(&r->value, json_string_value(v), json_string_length(v));
    else if (json_is_integer(v))
        sl_buf_int(&r->value, json_integer_value(v));
    else if (json_is_real(v))
        sl_buf_printf(&r->value, "%.17g", json_real_value(v));
    if (r->x->leaves == WECHAT_XML_LEAVES_MAX)
        r->err = SL_ETOOBIG;
    else
        add_leaf(r);
}

sl_err wechat_xml_from_json(struct wechat_xml *x, struct sl_str document, struct sl_fail *why)
{
    x->leaves = 0;
    sl_buf_init(&x->text, WECHAT_XML_MAX_BYTES * 2);
    json_t *root = document.len <= WECHAT_XML_MAX_BYTES ? sl_json_parse(document, why) : NULL;
    if (!json_is_object(root)) {
        json_decref(root);
        return sl_fail_set(why, SL_EINVAL, 0, "not a JSON object");
    }
    struct reader r = {.x = x, .err = SL_OK};
    sl_buf_init(&r.path, WECHAT_XML_PATH_MAX);
    sl_buf_init(&r.value, WECHAT_XML_MAX_BYTES);
    add_json(&r, root, 1);
    sl_buf_fini(&r.path);
    sl_buf_fini(&r.value);
    json_decref(root);
    return r.err == SL_OK ? SL_OK : sl_fail_set(why, r.err, 0, "the JSON has too many members");
}

void wechat_xml_fini(struct wechat_xml *x)
{
    sl_buf_fini(&x->text);
    x->leaves = 0;
}

static bool find(const struct wechat_xml *x, const char *path, size_t n, struct sl_str *out)
{
    const char *text = x->text.ptr != NULL ? x->text.ptr : ""; /* {"":""} leaves nothing in it */
    for (size_t i = 0; i < x->leaves; i++) {
        struct sl_str found = sl_str_n(text + x->leaf[i].path, x->leaf[i].path_len);
        if (!sl_str_eq_c(found, path) || n-- > 0)
            continue;
        *out = sl_str_n(text + x->leaf[i].value, x->leaf[i].value_len);
        return true;
    }
    return false;
}

struct sl_str wechat_xml_nth(const struct wechat_xml *x, const char *path, size_t n)
{
    struct sl_str value = SL_STR_NONE;
    (void)find(x, path, n, &value);
    return value;
}

struct sl_str wechat_xml_get(const struct wechat_xml *x, const char *path)
{
    return wechat_xml_nth(x, path, 0);
}

bool wechat_xml_has(const struct wechat_xml *x, const char *path)
{
    struct sl_str value;
    return find(x, path, 0, &value);
}

/* ---- writing ---- */

static bool is_control(char c)
{
    return (unsigned char)c < 0x20 && c != '\t' && c != '\n' && c != '\r'; /* XML 1.0 2.2 */
}

void wechat_xml_cdata(struct sl_buf *out, const char *name, struct sl_str value)
{
    sl_buf_printf(out, "<%s><![CDATA[", name);
    for (size_t i = 0; i < value.len; i++) {
        if (is_control(value.ptr[i]))
            sl_buf_c(out, "\xef\xbf\xbd");
        else if (value.ptr[i] == '>' && i >= 2 && value.ptr[i - 1] == ']' && value.ptr[i - 2] == ']')
            sl_buf_c(out, "]]><![CDATA[>");
        else
            sl_buf_char(out, value.ptr[i]);
    }
    sl_buf_printf(out, "]]></%s>", name);
}

static void answer_media(struct sl_buf *out, const char *name, const struct wechat_answer *a, bool is_titled)
{
    sl_buf_printf(out, "<%s>", name);
    wechat_xml_cdata(out, "MediaId", a->media_id);
    if (is_titled) {
        wechat_xml_cdata(out, "Title", a->title);
        wechat_xml_cdata(out, "Description", a->description);
    }
    sl_buf_printf(out, "</%s>", name);
}

static void answer_news(struct sl_buf *out, const struct wechat_answer *a)
{
    sl_buf_c(out, "<ArticleCount>1</ArticleCount><Articles><item>");
    wechat_xml_cdata(out, "Title", a->title);
    wechat_xml_cdata(out, "Description", a->description);
    wechat_xml_cdata(out, "PicUrl", a->picture_url);
    wechat_xml_cdata(out, "Url", a->url);
    sl_buf_c(out, "</item></Articles>");
}

static void answer_transfer(struct sl_buf *out, const struct wechat_answer *a)
{
    if (a->account.len == 0)
        return;
    sl_buf_c(out, "<TransInfo>");
    wechat_xml_cdata(out, "KfAccount", a->account);
    sl_buf_c(out, "</TransInfo>");
}

void wechat_xml_answer(struct sl_buf *out, const struct wechat_answer *a)
{
    static const char *const types[] = {"text",  "image", "voice",
                                        "video", "news",  "transfer_customer_service"};
    sl_buf_c(out, "<xml>");
    wechat_xml_cdata(out, "ToUserName", a->to_openid);
    wechat_xml_cdata(out, "FromUserName", a->from_account);
    sl_buf_c(out, "<CreateTime>");
    sl_buf_int(out, a->now_unix_s);
    sl_buf_c(out, "</CreateTime>");
    wechat_xml_cdata(out, "MsgType", sl_str_c(types[a->type]));
    switch (a->type) {
    case WECHAT_ANSWER_TEXT:
        wechat_xml_cdata(out, "Content", a->text);
        break;
    case WECHAT_ANSWER_IMAGE:
        answer_media(out, "Image", a, false);
        break;
    case WECHAT_ANSWER_VOICE:
        answer_media(out, "Voice", a, false);
        break;
    case WECHAT_ANSWER_VIDEO:
        answer_media(out, "Video", a, true);
        break;
    case WECHAT_ANSWER_NEWS:
        answer_news(out, a);
        break;
    case WECHAT_ANSWER_TRANSFER:
        answer_transfer(out, a);
        break;
    }
    sl_buf_c(out, "</xml>");
}

void wechat_xml_envelope(struct sl_buf *out, struct sl_str encrypt, struct sl_str signature,
                         struct sl_str timestamp, struct sl_str nonce)
{
    sl_buf_c(out, "<xml>");
    wechat_xml_cdata(out, "Encrypt", encrypt);
    wechat_xml_cdata(out, "MsgSignature", signature);
    sl_buf_c(out, "<TimeStamp>");
    sl_buf_str(out, timestamp); /* digits: ours, or checked */
    sl_buf_c(out, "</TimeStamp>");
    wechat_xml_cdata(out, "Nonce", nonce);
    sl_buf_c(out, "</xml>");
}
