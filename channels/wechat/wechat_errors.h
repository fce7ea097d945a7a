/* channels/wechat/wechat_errors.h - what the platform's error codes mean for us, as data. Pure.
 *
 * Source   developers.weixin.qq.com doc/offiaccount Global_Return_Code; developer.work.weixin.qq.com path 90313 (WeCom) and 94677
 *          (customer service); the names of binarywang/WxJava's WxMpErrorMsgEnum and WxCpErrorMsgEnum where a page is silent.
 *          channels/wechat/README.md says which are not certain.
 */
#ifndef CHANNELS_WECHAT_WECHAT_ERRORS_H
#define CHANNELS_WECHAT_WECHAT_ERRORS_H

#include "base/str.h"

enum wechat_product { WECHAT_OA, WECHAT_WECOM, WECHAT_KF };

enum wechat_class {
    WECHAT_FINE,    /* 0 */
    WECHAT_BUSY,    /* try again later, this message */
    WECHAT_RATE,    /* the account is too fast: all of it pauses */
    WECHAT_TOKEN,   /* the access token is not valid: get another, once, then again */
    WECHAT_WINDOW,  /* the customer must write first */
    WECHAT_QUOTA,   /* the account's calls of today are used up; a person may raise it */
    WECHAT_GONE,    /* the customer cannot be reached here any more */
    WECHAT_CONTENT, /* this message is not possible */
    WECHAT_STATE,   /* the session is in a state that forbids it */
    WECHAT_ALARM,   /* nothing works until a person mends the account or its configuration */
};
struct wechat_error {
    int code;
    enum wechat_class what;
    const char *zh, *en; /* in plain words, for an agent */
};
/* Never NULL: a code that is in no table is WECHAT_CONTENT with words that say so (-1: WECHAT_BUSY everywhere). */
const struct wechat_error *wechat_error_find(enum wechat_product product, int64_t code);
/* A kf message that failed after it was taken: msg_send_fail's fail_type. */
const struct wechat_error *wechat_kf_fail_find(int64_t fail_type);
/* "中文 (English)" */
void wechat_error_words(const struct wechat_error *e, struct sl_buf *out);
bool wechat_class_may_retry(enum wechat_class what);
bool wechat_class_is_account(enum wechat_class what); /* pause the account, not this message alone */
/* For tests: the rows of a table. */
const struct wechat_error *wechat_error_table(enum wechat_product product, size_t *count);

#endif
