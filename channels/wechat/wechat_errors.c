#include "channels/wechat/wechat_errors.h"

/* clang-format off */ /* tables: a row a code */
static const struct wechat_error unknown_error = {0, WECHAT_CONTENT, "平台拒绝了这条消息", "the platform refused this message"};
static const struct wechat_error fine = {0, WECHAT_FINE, "成功", "ok"};

static const struct wechat_error oa_errors[] = {
    {-1,    WECHAT_BUSY,    "微信系统繁忙", "WeChat is busy"},
    {45011, WECHAT_RATE,    "调用太频繁", "too many calls a minute"},
    {40001, WECHAT_TOKEN,   "调用凭证无效", "the access token is not valid"},
    {40014, WECHAT_TOKEN,   "调用凭证不合法", "the access token is malformed"},
    {42001, WECHAT_TOKEN,   "调用凭证已过期", "the access token has expired"},
    {41001, WECHAT_TOKEN,   "缺少调用凭证", "the access token is missing"},
    {40013, WECHAT_ALARM,   "AppID 不正确", "the appid is not right"},
    {40125, WECHAT_ALARM,   "AppSecret 不正确", "the app secret is not right"},
    {41002, WECHAT_ALARM,   "缺少 AppID", "the appid is missing"},
    {41004, WECHAT_ALARM,   "缺少 AppSecret", "the app secret is missing"},
    {40164, WECHAT_ALARM,   "本机 IP 不在公众号的 IP 白名单中", "this machine's address is not on the account's IP list"},
    {61004, WECHAT_ALARM,   "本机 IP 不在白名单中", "this machine's address is not on the IP list"},
    {48001, WECHAT_ALARM,   "公众号没有此接口的权限", "the account has no permission for this interface"},
    {48004, WECHAT_ALARM,   "接口已被封禁", "the interface was banned for this account"},
    {50002, WECHAT_ALARM,   "公众号功能受限", "the account is restricted"},
    {48006, WECHAT_ALARM,   "清零次数已用完", "no clearing of the quota is left this month"},
    {40003, WECHAT_GONE,    "收件人 OpenID 不正确", "the customer's OpenID is not one of this account"},
    {43004, WECHAT_GONE,    "客户没有关注公众号", "the customer does not follow the account"},
    {43019, WECHAT_GONE,    "客户在公众号黑名单中", "the customer is on the account's block list"},
    {43101, WECHAT_GONE,    "客户拒绝接收此类消息", "the customer refuses messages of this kind"},
    {48002, WECHAT_GONE,    "客户拒收消息", "the customer refuses messages"},
    {50005, WECHAT_GONE,    "客户没有关注公众号", "the customer does not follow the account"},
    {46004, WECHAT_GONE,    "没有这个用户", "there is no such user"},
    {45015, WECHAT_WINDOW,  "超过回复时限（客户 48 小时内没有发言）或已取消关注", "too late to answer (the customer was silent for 48 hours), or no longer a follower"},
    {45047, WECHAT_WINDOW,  "客户发言之前不能再发：已达下发条数上限", "no more until the customer writes: the number of messages is used up"},
    {45009, WECHAT_QUOTA,   "今天的接口调用次数已用完", "the account's calls of today are used up"},
    {40004, WECHAT_CONTENT, "不支持的媒体类型", "this type of media is not supported"},
    {40005, WECHAT_CONTENT, "不支持的文件类型", "this type of file is not supported"},
    {40006, WECHAT_CONTENT, "文件大小不合法", "the file's size is not allowed"},
    {40007, WECHAT_CONTENT, "媒体文件无效或已过期", "the media file is unknown or has expired"},
    {40008, WECHAT_CONTENT, "不支持的消息类型", "this type of message is not supported"},
    {40009, WECHAT_CONTENT, "图片太大", "the picture is too large"},
    {40033, WECHAT_CONTENT, "内容含有不允许的字符", "the text has characters that are not allowed"},
    {40035, WECHAT_CONTENT, "参数不合法", "a parameter is not right"},
    {40037, WECHAT_CONTENT, "模板不存在", "there is no such template"},
    {44002, WECHAT_CONTENT, "消息为空", "the message is empty"},
    {44003, WECHAT_CONTENT, "图文内容为空", "the article is empty"},
    {44004, WECHAT_CONTENT, "文字内容为空", "the text is empty"},
    {45001, WECHAT_CONTENT, "媒体文件太大", "the media file is too large"},
    {45002, WECHAT_CONTENT, "文字太长", "the text is too long"},
    {45008, WECHAT_CONTENT, "图文超过条数限制", "too many articles"},
    {47001, WECHAT_CONTENT, "消息格式错误", "the message's form is not right"},
    {47003, WECHAT_CONTENT, "模板参数不正确", "the template's parameters are not right"},
    {61451, WECHAT_CONTENT, "客服参数错误", "a parameter of customer service is not right"},
    {61452, WECHAT_CONTENT, "客服帐号无效", "the service account is not valid"},
    {61453, WECHAT_CONTENT, "客服帐号已存在", "the service account exists already"},
    {61454, WECHAT_CONTENT, "客服帐号名太长", "the service account's name is too long"},
    {61455, WECHAT_CONTENT, "客服帐号名含非法字符", "the service account's name has characters that are not allowed"},
    {61456, WECHAT_CONTENT, "客服帐号太多", "too many service accounts"},
    {61458, WECHAT_STATE,   "客户正由其他客服接待", "another agent of the platform is serving this customer"},
    {61459, WECHAT_STATE,   "客服不在线", "the agent of the platform is not online"},
    {45072, WECHAT_CONTENT, "输入状态命令不正确", "a command of the typing state is not right"},
    {45080, WECHAT_CONTENT, "30 秒内没有交互，不能显示正在输入", "no exchange within 30 seconds, so typing cannot be shown"},
    {45081, WECHAT_CONTENT, "已在输入状态", "typing is shown already"},
};

static const struct wechat_error wecom_errors[] = {
    {-1,    WECHAT_BUSY,    "企业微信系统繁忙", "WeCom is busy"},
    {45033, WECHAT_RATE,    "并发调用太多", "too many calls at once"},
    {45009, WECHAT_RATE,    "调用太频繁", "too many calls"},
    {40014, WECHAT_TOKEN,   "调用凭证不合法", "the access token is not valid"},
    {42001, WECHAT_TOKEN,   "调用凭证已过期", "the access token has expired"},
    {41001, WECHAT_TOKEN,   "缺少调用凭证", "the access token is missing"},
    {40001, WECHAT_TOKEN,   "调用凭证无效", "the access token is not valid"}, /* of gettoken: the secret */
    {40013, WECHAT_ALARM,   "企业 ID 不正确", "the corp id is not right"},
    {40056, WECHAT_ALARM,   "应用 ID 不正确", "the agent id is not right"},
    {48002, WECHAT_ALARM,   "应用没有此接口的权限", "the application has no permission for this interface"},
    {60011, WECHAT_ALARM,   "应用没有权限", "the application lacks a privilege"},
    {60020, WECHAT_ALARM,   "本机 IP 不在应用的可信 IP 中", "this machine's address is not one of the application's trusted ones"},
    {301002, WECHAT_ALARM,  "应用 ID 无权限", "the agent id may not do this"},
    {50002, WECHAT_GONE,    "成员不在应用的可见范围内", "the member is out of the application's sight"},
    {40003, WECHAT_GONE,    "没有这个成员", "there is no such member"},
    {60111, WECHAT_GONE,    "没有这个成员", "there is no such member"},
    {81013, WECHAT_GONE,    "收件人不存在或不在可见范围内", "the recipient does not exist or is out of the application's sight"},
    {40007, WECHAT_CONTENT, "媒体文件无效或已过期", "the media file is unknown or has expired"},
    {40008, WECHAT_CONTENT, "不支持的消息类型", "this type of message is not supported"},
    {40033, WECHAT_CONTENT, "内容含有不允许的字符", "the text has characters that are not allowed"},
    {40035, WECHAT_CONTENT, "参数不合法", "a parameter is not right"},
    {40058, WECHAT_CONTENT, "参数不合法", "a parameter is not right"},
    {44004, WECHAT_CONTENT, "文字内容为空", "the text is empty"},
    {45001, WECHAT_CONTENT, "媒体文件太大", "the media file is too large"},
    {45002, WECHAT_CONTENT, "文字太长", "the text is too long"},
    {45008, WECHAT_CONTENT, "图文超过条数限制", "too many articles"},
    {47001, WECHAT_CONTENT, "消息格式错误", "the message's form is not right"},
};

static const struct wechat_error kf_errors[] = {
    {95001, WECHAT_WINDOW,  "客户发言之前不能再发：48 小时内最多 5 条", "no more until the customer writes: 5 messages in 48 hours"},
    {95018, WECHAT_STATE,   "会话状态不允许发送（已转人工或已结束）", "the session's state forbids it (handed to a person in WeCom, or ended)"},
    {95000, WECHAT_ALARM,   "客服帐号不正确", "the customer service account is not right"},
};

static const struct wechat_error kf_fails[] = {
    {0,  WECHAT_CONTENT, "发送失败，原因未知", "it failed; the platform does not say why"},
    {1,  WECHAT_ALARM,   "客服帐号已删除", "the customer service account was deleted"},
    {2,  WECHAT_ALARM,   "应用已关闭", "the application is switched off"},
    {4,  WECHAT_WINDOW,  "会话已过期：客户 48 小时内没有发言", "too late: the customer was silent for 48 hours"},
    {5,  WECHAT_STATE,   "会话已关闭", "the session is closed"},
    {6,  WECHAT_WINDOW,  "超过 5 条限制：等客户发言", "more than 5 messages: the customer must write first"},
    {7,  WECHAT_ALARM,   "没有绑定视频号", "no channel is bound to the account"},
    {8,  WECHAT_ALARM,   "企业主体未验证", "the company is not verified"},
    {9,  WECHAT_ALARM,   "没有绑定视频号，企业主体未验证", "no channel is bound and the company is not verified"},
    {10, WECHAT_GONE,    "客户拒收", "the customer refuses messages"},
    {11, WECHAT_ALARM,   "企业还没有成员登录企业微信", "nobody of the company has logged in to WeCom yet"},
    {12, WECHAT_CONTENT, "这种消息禁止在客服组件中发送", "this type of message is not allowed in customer service"},
    {13, WECHAT_ALARM,   "安全限制", "blocked for security reasons"},
};
/* clang-format on */

#define COUNT(table) (sizeof(table) / sizeof(table)[0])

static const struct wechat_error *find(const struct wechat_error *table, size_t count, int64_t code)
{
    for (size_t i = 0; i < count; i++)
        if (table[i].code == code)
            return &table[i];
    return NULL;
}

const struct wechat_error *wechat_error_table(enum wechat_product product, size_t *count)
{
    switch (product) {
    case WECHAT_OA:
        *count = COUNT(oa_errors);
        return oa_errors;
    case WECHAT_WECOM:
        *count = COUNT(wecom_errors);
        return wecom_errors;
    case WECHAT_KF:
        *count = COUNT(kf_errors);
        return kf_errors;
    }
    sl_assert(false);
}

const struct wechat_error *wechat_error_find(enum wechat_product product, int64_t code)
{
    size_t count;
    const struct wechat_error *table = wechat_error_table(product, &count);
    const struct wechat_error *found = code == 0 ? &fine : find(table, count, code);
    if (found == NULL && product == WECHAT_KF)
        found = find(wecom_errors, COUNT(wecom_errors), code); /* the same server and tokens */
    return found != NULL ? found : &unknown_error;
}

const struct wechat_error *wechat_kf_fail_find(int64_t fail_type)
{
    const struct wechat_error *found = find(kf_fails, COUNT(kf_fails), fail_type);
    return found != NULL ? found : &kf_fails[0];
}

void wechat_error_words(const struct wechat_error *e, struct sl_buf *out)
{
    sl_buf_c(out, e->zh);
    sl_buf_c(out, " (");
    sl_buf_c(out, e->en);
    sl_buf_char(out, ')');
}

bool wechat_class_may_retry(enum wechat_class what)
{
    return what == WECHAT_BUSY || what == WECHAT_RATE || what == WECHAT_TOKEN || what == WECHAT_ALARM ||
           what == WECHAT_QUOTA;
}

bool wechat_class_is_account(enum wechat_class what)
{
    return what == WECHAT_RATE || what == WECHAT_QUOTA || what == WECHAT_ALARM;
}
