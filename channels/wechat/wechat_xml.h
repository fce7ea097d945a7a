/* channels/wechat/wechat_xml.h - the XML of WeChat's callbacks, read by expat, and the XML of our answers. Pure.
 *
 * What     a document becomes a list of its leaves, each with its path below the root: "MsgType", "ScanCodeInfo/ScanResult".
 *          What nobody asks for is ignored, as the platform wants.
 * Limits   any DOCTYPE is refused, so there are no entities; depth, leaves and bytes are bounded.
 * Source   developers.weixin.qq.com doc/offiaccount/Message_Management (message and event formats, passive reply)
 */
#ifndef CHANNELS_WECHAT_WECHAT_XML_H
#define CHANNELS_WECHAT_WECHAT_XML_H

#include "base/str.h"

#define WECHAT_XML_MAX_BYTES  (128 * 1024) /* as the gateway's limit of a request */
#define WECHAT_XML_DEPTH_MAX  16
#define WECHAT_XML_LEAVES_MAX 256
#define WECHAT_XML_PATH_MAX   256

struct wechat_xml {
    struct sl_buf text; /* paths and values, one behind the other */
    struct {
        uint32_t path, path_len, value, value_len;
    } leaf[WECHAT_XML_LEAVES_MAX];
    size_t leaves;
};

/* EINVAL (not XML, root is not <xml>, a DOCTYPE), ETOOBIG. Give it back with wechat_xml_fini in any case. */
sl_err wechat_xml_read(struct wechat_xml *x, struct sl_str document, struct sl_fail *why) SL_MUST_CHECK;
/* The same from a JSON object: WeCom may be told to write callbacks so. Members become paths, numbers their digits. */
sl_err wechat_xml_from_json(struct wechat_xml *x, struct sl_str document, struct sl_fail *why) SL_MUST_CHECK;
void wechat_xml_fini(struct wechat_xml *x);
/* The first leaf of this path; empty when there is none. Borrowed from x. */
struct sl_str wechat_xml_get(const struct wechat_xml *x, const char *path);
struct sl_str wechat_xml_nth(const struct wechat_xml *x, const char *path, size_t n);
bool wechat_xml_has(const struct wechat_xml *x, const char *path);

/* <name><![CDATA[value]]></name>: "]]>" is split over two sections, what XML 1.0 cannot carry becomes U+FFFD. */
void wechat_xml_cdata(struct sl_buf *out, const char *name, struct sl_str value);

struct wechat_answer { /* a passive reply; addresses as the customer's message had them */
    struct sl_str to_openid, from_account;
    int64_t now_unix_s;
    enum wechat_answer_type {
        WECHAT_ANSWER_TEXT,
        WECHAT_ANSWER_IMAGE,
        WECHAT_ANSWER_VOICE,
        WECHAT_ANSWER_VIDEO,
        WECHAT_ANSWER_NEWS,
        WECHAT_ANSWER_TRANSFER
    } type;
    struct sl_str text;     /* TEXT */
    struct sl_str media_id; /* IMAGE, VOICE, VIDEO */
    struct sl_str title, description, picture_url,
        url;               /* VIDEO, NEWS: one article, more are refused in an answer */
    struct sl_str account; /* TRANSFER, may be empty */
};
void wechat_xml_answer(struct sl_buf *out, const struct wechat_answer *a);
/* The envelope of an encrypted answer. */
void wechat_xml_envelope(struct sl_buf *out, struct sl_str encrypt, struct sl_str signature,
                         struct sl_str timestamp, struct sl_str nonce);

#endif
