/* channels/wechat/wechat_wire.h - what a callback says, and what we say back: XML and JSON on one side, messages on the other. Pure.
 *
 * Source   developers.weixin.qq.com doc/offiaccount/Message_Management (types, events, Service_Center_messages: quotas since
 *          2023-06: 5 sends in 48 h after a message, 3 in a minute after a click, a scan or a follow);
 *          developer.work.weixin.qq.com path 90240 (WeCom), 90236 (message/send), 94670 (sync_msg), 94677 (send_msg)
 */
#ifndef CHANNELS_WECHAT_WECHAT_WIRE_H
#define CHANNELS_WECHAT_WECHAT_WIRE_H

#include "channels/wechat/wechat_errors.h"
#include "channels/wechat/wechat_xml.h"

#include "proto/message.h"

#define WECHAT_MESSAGE_QUOTA    5
#define WECHAT_MESSAGE_QUOTA_MS (INT64_C(48) * 3600 * 1000)
#define WECHAT_CLICK_QUOTA      3
#define WECHAT_CLICK_QUOTA_MS   (INT64_C(60) * 1000)
#define WECHAT_RATING_PREFIX    "sluice-rate-" /* ids of a rating's menu items: + 1..5 */
#define WECHAT_OPTIONS_MAX      20             /* items of a menu that we write; 10 is what kf takes */

enum wechat_what {
    WECHAT_IN_MESSAGE, /* append it as the customer's */
    WECHAT_IN_RATING,  /* the answer to our rating menu: rating */
    WECHAT_IN_HANGUP,  /* the customer left for good: unsubscribe */
    WECHAT_IN_EVENT,   /* an event that opens sends and says something only if the inbox lists it */
    WECHAT_IN_RECEIPT, /* the platform's word about a send of ours */
    WECHAT_IN_HINT,    /* kf: there is something to fetch */
    WECHAT_IN_NOTHING, /* acknowledged, of no use to a conversation */
};
struct wechat_in {
    enum wechat_what what;
    struct sl_buf store; /* data is written there; the rest is borrowed from the XML or JSON */
    char id_text[44], code_text[24];
    struct sl_str id, who, text, data; /* id may borrow from this struct: it must not be copied */
    struct sl_str account;             /* whom it was sent to: gh_..., corp id, open_kfid */
    struct sl_str event;               /* name of the event; empty for messages */
    enum msg_kind kind;
    int64_t sent_unix_ms;
    int rating;
    unsigned quota_count;
    int64_t quota_ms;
    struct sl_str media_id, media_type; /* to fetch: "image", "voice", "video", "file"; empty: none */
    struct sl_str picture_url;          /* the same picture by a public address, while the media id lives */
    /* RECEIPT */
    struct sl_str remote_id, code;
    bool is_delivered;
    const struct wechat_error *why; /* when not delivered; NULL: only the code is known */
    /* HINT */
    struct sl_str kf_token, open_kfid;
    struct sl_str welcome_code; /* kf enter_session */
};

/* EINVAL: what must be there is missing. in must be given back with wechat_in_fini in any case. */
sl_err wechat_in_read(struct wechat_in *in, enum wechat_product product, const struct wechat_xml *x,
                      struct sl_fail *why) SL_MUST_CHECK;
void wechat_in_fini(struct wechat_in *in);

/* ---- kf/sync_msg ---- */

struct wechat_page {
    struct sl_str next_cursor;
    bool has_more;
    size_t items;
    json_t *root;       /* owned */
    const json_t *list; /* borrowed from root */
};
/* The whole answer: err 0 or the platform's code in *code. */
sl_err wechat_page_read(struct wechat_page *p, struct sl_str body, int64_t *code,
                        struct sl_fail *why) SL_MUST_CHECK;
void wechat_page_fini(struct wechat_page *p);
/* Item i; WECHAT_IN_NOTHING for what colleagues and the system wrote. in borrows from the page. */
void wechat_page_item(struct wechat_in *in, const struct wechat_page *p, size_t i);

/* ---- out ---- */

struct wechat_out {
    enum wechat_product product;
    const struct msg *m;
    struct sl_str to;
    struct sl_str media_id;     /* of the attachment, once uploaded; kinds image, audio, video, file */
    struct sl_str thumb_id;     /* of a video, when there is one */
    struct sl_str agent_id;     /* WECHAT_WECOM: a number */
    struct sl_str open_kfid;    /* WECHAT_KF */
    struct sl_str key;          /* WECHAT_KF: msgid */
    struct sl_str kf_account;   /* WECHAT_OA: shown as this service account; may be empty */
    int64_t duplicate_check_s;  /* WECHAT_WECOM */
    struct sl_str welcome_code; /* WECHAT_KF: send_msg_on_event instead */
};
/* Which call: the path below the API's address. */
const char *wechat_out_path(const struct wechat_out *o);
/* The JSON body, raw UTF-8 (error 40033 is for \\u escapes). false: this kind cannot be sent as it is. */
bool wechat_out_write(const struct wechat_out *o, struct sl_buf *out);
/* Is it one of the kinds whose bytes must be uploaded first, and as what? NULL: no. */
const char *wechat_out_media_type(enum wechat_product product, const struct msg *m);

struct wechat_result {
    int64_t code;
    const struct wechat_error *error;
    char number[24];
    struct sl_str remote_id; /* borrowed from *hold or from this struct: it must not be copied */
    struct sl_str message;   /* errmsg, borrowed; never shown to customers */
};
/* An API answer's errcode and ids. EUPSTREAM: not one that the platform gives. */
sl_err wechat_result_read(struct wechat_result *r, enum wechat_product product, struct sl_str body,
                          json_t **hold) SL_MUST_CHECK;

#endif
