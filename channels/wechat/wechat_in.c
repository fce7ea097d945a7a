/* channels/wechat/wechat_in.c - callbacks and pages of sync_msg become messages. Pure. */
#include "channels/wechat/wechat_wire.h"

#include "base/crypto.h"
#include "proto/keys.h"

#include <stdio.h>

#define STORE_MAX (MSG_DATA_MAX_BYTES * 2)

/* The data object is the last thing written to the store, so nothing points into it before. */
static void data_begin(struct wechat_in *in, struct sl_json *j)
{
    sl_json_begin(j, &in->store);
    sl_json_open(j, NULL, '{');
}

static void data_end(struct wechat_in *in, struct sl_json *j)
{
    sl_json_close(j, '}');
    in->data = sl_buf_view(&in->store);
}

/* ---- ids ---- */

/* Events carry no id. From and CreateTime, which the platform's page names, are too weak: two clicks in a second are two. */
static struct sl_str event_id(struct wechat_in *in, const struct wechat_xml *x)
{
    static const char *const members[] = {"ToUserName",
                                          "FromUserName",
                                          "CreateTime",
                                          "Event",
                                          "EventKey",
                                          "Ticket",
                                          "AgentID",
                                          "MsgID",
                                          "SubscribeMsgSentEvent/List/MsgID",
                                          "ScanCodeInfo/ScanResult",
                                          "Latitude",
                                          "Longitude"};
    unsigned char digest[32];
    char hex[65];
    struct sl_buf text;
    sl_buf_init(&text, 0);
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        struct sl_str v = wechat_xml_get(x, members[i]);
        sl_buf_uint(&text, v.len);
        sl_buf_char(&text, ':');
        sl_buf_str(&text, v);
    }
    sl_sha256(sl_buf_view(&text), digest);
    sl_buf_fini(&text);
    sl_hex(hex, digest, sizeof digest);
    memcpy(in->id_text, "e-", 2);
    memcpy(in->id_text + 2, hex, sizeof in->id_text - 3);
    in->id_text[sizeof in->id_text - 1] = '\0';
    return sl_str_c(in->id_text);
}

static bool is_number(struct sl_str s)
{
    if (s.len == 0 || s.len > 20)
        return false;
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
    return true;
}

/* ---- kinds of messages ---- */

/* What a message is beside its text, as a JSON object: what the type's own fields say. */
struct fields {
    const char *json, *xml;
};
static void write_fields(struct sl_json *j, const struct wechat_xml *x, const struct fields *f)
{
    for (; f->json != NULL; f++) {
        struct sl_str v = wechat_xml_get(x, f->xml);
        if (v.len > 0)
            sl_json_str(j, f->json, v);
    }
}

/* clang-format off */ /* tables */
static const struct message_type {
    const char *name;
    enum msg_kind kind;
    const char *text;  /* element that is the text; NULL: none */
    const char *media; /* what media/get calls it; NULL: none */
    struct fields field[6];
} message_types[] = {
    {"text", MSG_TEXT, "Content", NULL, {{"menu_id", "bizmsgmenuid"}}},
    {"image", MSG_IMAGE, NULL, "image", {{"picture_url", "PicUrl"}, {"media_id", "MediaId"}}},
    {"voice", MSG_AUDIO, "Recognition", "voice", {{"media_id", "MediaId"}, {"format", "Format"}}},
    {"video", MSG_VIDEO, NULL, "video", {{"media_id", "MediaId"}, {"thumb_media_id", "ThumbMediaId"}}},
    {"shortvideo", MSG_VIDEO, NULL, "video", {{"media_id", "MediaId"}, {"thumb_media_id", "ThumbMediaId"}}},
    {"file", MSG_FILE, "Title", "file", {{"media_id", "MediaId"}, {"name", "Title"}, {"sha", "FileMd5"}}},
    {"location", MSG_LOCATION, "Label", NULL, {{"latitude", "Location_X"}, {"longitude", "Location_Y"}, {"scale", "Scale"}, {"label", "Label"}}},
    {"link", MSG_LINK, "Title", NULL, {{"title", "Title"}, {"description", "Description"}, {"url", "Url"}, {"picture_url", "PicUrl"}}},
};

enum opens { OPENS_NOTHING, OPENS_CLICK };
static const struct event_type {
    const char *name;
    enum wechat_what what;
    enum opens opens;
    struct fields field[5];
} event_types[] = {
    {"subscribe", WECHAT_IN_EVENT, OPENS_CLICK, {{"key", "EventKey"}, {"ticket", "Ticket"}}},
    {"unsubscribe", WECHAT_IN_HANGUP, OPENS_NOTHING, {{NULL, NULL}}},
    {"SCAN", WECHAT_IN_EVENT, OPENS_CLICK, {{"key", "EventKey"}, {"ticket", "Ticket"}}},
    {"LOCATION", WECHAT_IN_EVENT, OPENS_NOTHING, {{"latitude", "Latitude"}, {"longitude", "Longitude"}, {"precision", "Precision"}}},
    {"CLICK", WECHAT_IN_EVENT, OPENS_CLICK, {{"key", "EventKey"}}},
    {"click", WECHAT_IN_EVENT, OPENS_CLICK, {{"key", "EventKey"}}}, /* WeCom's spelling */
    {"VIEW", WECHAT_IN_EVENT, OPENS_NOTHING, {{"key", "EventKey"}, {"menu_id", "MenuId"}}},
    {"view", WECHAT_IN_EVENT, OPENS_NOTHING, {{"key", "EventKey"}}},
    {"view_miniprogram", WECHAT_IN_EVENT, OPENS_NOTHING, {{"key", "EventKey"}, {"menu_id", "MenuId"}}},
    {"scancode_push", WECHAT_IN_EVENT, OPENS_CLICK, {{"key", "EventKey"}, {"scan_type", "ScanCodeInfo/ScanType"}, {"scan_result", "ScanCodeInfo/ScanResult"}}},
    {"scancode_waitmsg", WECHAT_IN_EVENT, OPENS_CLICK, {{"key", "EventKey"}, {"scan_type", "ScanCodeInfo/ScanType"}, {"scan_result", "ScanCodeInfo/ScanResult"}}},
    {"pic_sysphoto", WECHAT_IN_EVENT, OPENS_CLICK, {{"key", "EventKey"}, {"count", "SendPicsInfo/Count"}}},
    {"pic_photo_or_album", WECHAT_IN_EVENT, OPENS_CLICK, {{"key", "EventKey"}, {"count", "SendPicsInfo/Count"}}},
    {"pic_weixin", WECHAT_IN_EVENT, OPENS_CLICK, {{"key", "EventKey"}, {"count", "SendPicsInfo/Count"}}},
    {"location_select", WECHAT_IN_EVENT, OPENS_CLICK, {{"key", "EventKey"}, {"latitude", "SendLocationInfo/Location_X"}, {"longitude", "SendLocationInfo/Location_Y"}, {"label", "SendLocationInfo/Label"}}},
    {"user_enter_tempsession", WECHAT_IN_EVENT, OPENS_NOTHING, {{"session_from", "SessionFrom"}}},
    {"kf_create_session", WECHAT_IN_NOTHING, OPENS_NOTHING, {{"kf_account", "KfAccount"}}},
    {"kf_close_session", WECHAT_IN_NOTHING, OPENS_NOTHING, {{"kf_account", "KfAccount"}}},
    {"kf_switch_session", WECHAT_IN_NOTHING, OPENS_NOTHING, {{"from", "FromKfAccount"}, {"to", "ToKfAccount"}}},
    {"TEMPLATESENDJOBFINISH", WECHAT_IN_RECEIPT, OPENS_NOTHING, {{NULL, NULL}}},
    {"subscribe_msg_popup_event", WECHAT_IN_NOTHING, OPENS_NOTHING, {{NULL, NULL}}},
    {"subscribe_msg_change_event", WECHAT_IN_NOTHING, OPENS_NOTHING, {{NULL, NULL}}},
    {"subscribe_msg_sent_event", WECHAT_IN_RECEIPT, OPENS_NOTHING, {{NULL, NULL}}},
    {"user_info_modified", WECHAT_IN_NOTHING, OPENS_NOTHING, {{"openid", "OpenID"}}},
    {"user_authorization_revoke", WECHAT_IN_HANGUP, OPENS_NOTHING, {{"openid", "OpenID"}, {"revoked", "RevokeInfo"}}},
    {"enter_agent", WECHAT_IN_EVENT, OPENS_NOTHING, {{NULL, NULL}}}, /* WeCom: the member opened the application */
    {"kf_msg_or_event", WECHAT_IN_HINT, OPENS_NOTHING, {{NULL, NULL}}},
};
/* clang-format on */

static const struct message_type *message_type_find(struct sl_str name)
{
    for (size_t i = 0; i < sizeof message_types / sizeof message_types[0]; i++)
        if (sl_str_eq_c(name, message_types[i].name))
            return &message_types[i];
    return NULL;
}

static const struct event_type *event_type_find(struct sl_str name)
{
    for (size_t i = 0; i < sizeof event_types / sizeof event_types[0]; i++)
        if (sl_str_eq_c(name, event_types[i].name))
            return &event_types[i];
    return NULL;
}

static void grant(struct wechat_in *in, enum wechat_product product, bool is_click)
{
    if (product == WECHAT_WECOM)
        return; /* members may be written to at any time */
    in->quota_count = is_click ? WECHAT_CLICK_QUOTA : WECHAT_MESSAGE_QUOTA;
    in->quota_ms = is_click ? WECHAT_CLICK_QUOTA_MS : WECHAT_MESSAGE_QUOTA_MS;
}

/* "sluice-rate-4" */
static int rating_of(struct sl_str menu_id)
{
    size_t n = strlen(WECHAT_RATING_PREFIX);
    if (!sl_str_starts(menu_id, WECHAT_RATING_PREFIX) || menu_id.len != n + 1)
        return 0;
    char digit = menu_id.ptr[n];
    return digit >= '1' && digit <= '5' ? digit - '0' : 0;
}

/* Longer than a message may be: what fits is a message, and says so. Refused, it would come again and be lost all the same. */
static void cut_text(struct wechat_in *in, struct sl_json *j)
{
    if (in->text.len <= MSG_TEXT_MAX_BYTES)
        return;
    in->text.len = MSG_TEXT_MAX_BYTES;
    while (in->text.len > 0 && ((unsigned char)in->text.ptr[in->text.len] & 0xC0) == 0x80)
        in->text.len--;
    sl_json_bool(j, "cut", true);
}

static void read_message(struct wechat_in *in, enum wechat_product product, const struct wechat_xml *x)
{
    struct sl_str name = wechat_xml_get(x, "MsgType");
    struct sl_str menu_id = wechat_xml_get(x, "bizmsgmenuid");
    const struct message_type *type = message_type_find(name);
    static const struct fields no_fields[] = {{NULL, NULL}};
    struct sl_json j;
    in->what = WECHAT_IN_MESSAGE;
    in->kind = type != NULL ? type->kind : MSG_FILE;
    in->text = type != NULL && type->text != NULL ? wechat_xml_get(x, type->text) : SL_STR_NONE;
    if (type != NULL && type->media != NULL) {
        in->media_id = wechat_xml_get(x, "MediaId");
        in->media_type = sl_str_c(type->media);
        in->picture_url = wechat_xml_get(x, "PicUrl");
    }
    data_begin(in, &j);
    if (type == NULL)
        sl_json_str(&j, "type", name); /* a type of tomorrow: say that it came */
    write_fields(&j, x, type != NULL ? type->field : no_fields);
    cut_text(in, &j);
    data_end(in, &j);
    in->rating = rating_of(menu_id);
    if (in->rating > 0)
        in->what = WECHAT_IN_RATING;
    grant(in, product, menu_id.len > 0); /* an answer to a menu counts as a click */
    if (in->kind == MSG_TEXT && in->text.len == 0)
        in->text = SL_STR(" "); /* an empty text is a message all the same */
}

/* Status of a template message: "success", "failed:user block", "failed: system failed". */
static void read_template_result(struct wechat_in *in, const struct wechat_xml *x)
{
    static const struct wechat_error blocked = {43101, WECHAT_GONE, "客户屏蔽了模板消息",
                                                "the customer blocks template messages"};
    static const struct wechat_error failed = {0, WECHAT_CONTENT, "模板消息发送失败",
                                               "the template message was not delivered"};
    in->remote_id = wechat_xml_get(x, "MsgID");
    in->code = wechat_xml_get(x, "Status");
    in->is_delivered = sl_str_eq_c(in->code, "success");
    in->why = in->is_delivered ? NULL : sl_str_eq_c(in->code, "failed:user block") ? &blocked : &failed;
}

static void read_subscribe_result(struct wechat_in *in, const struct wechat_xml *x)
{
    in->remote_id = wechat_xml_get(x, "SubscribeMsgSentEvent/List/MsgID");
    in->code = wechat_xml_get(x, "SubscribeMsgSentEvent/List/ErrorCode");
    int64_t code = 0;
    bool has_code = in->code.len > 0 && sl_str_int(in->code, &code) == SL_OK;
    in->is_delivered = has_code && code == 0;
    in->why = in->is_delivered ? NULL : wechat_error_find(WECHAT_OA, has_code && code != 0 ? code : 1);
}

static void read_event(struct wechat_in *in, enum wechat_product product, const struct wechat_xml *x)
{
    in->event = wechat_xml_get(x, "Event");
    const struct event_type *type = event_type_find(in->event);
    struct sl_json j;
    in->what = type != NULL ? type->what : WECHAT_IN_NOTHING;
    in->kind = MSG_CHOICE;
    if (type == NULL)
        return;
    data_begin(in, &j);
    sl_json_str(&j, "event", in->event);
    write_fields(&j, x, type->field);
    data_end(in, &j);
    in->text = wechat_xml_get(x, "EventKey");
    if (type->opens == OPENS_CLICK)
        grant(in, product, true);
    in->kf_token = wechat_xml_get(x, "Token");
    in->open_kfid = wechat_xml_get(x, "OpenKfId");
    if (sl_str_eq_c(in->event, "TEMPLATESENDJOBFINISH"))
        read_template_result(in, x);
    else if (sl_str_eq_c(in->event, "subscribe_msg_sent_event"))
        read_subscribe_result(in, x);
    if (in->what == WECHAT_IN_RECEIPT && (in->remote_id.len == 0 || in->remote_id.len > MSG_ID_MAX_BYTES))
        in->what = WECHAT_IN_NOTHING;
}

static sl_err check(const struct wechat_in *in, struct sl_fail *why)
{
    bool is_someones = in->what == WECHAT_IN_MESSAGE || in->what == WECHAT_IN_RATING ||
                       in->what == WECHAT_IN_HANGUP || in->what == WECHAT_IN_EVENT;
    if (is_someones && !key_part_ok(in->who))
        return sl_fail_set(why, SL_EINVAL, 0, "FromUserName is missing, or no id");
    if (in->what == WECHAT_IN_HINT && (!key_part_ok(in->open_kfid) || in->kf_token.len > 256))
        return sl_fail_set(why, SL_EINVAL, 0, "OpenKfId is missing, or no id");
    if (in->store.overflow || in->text.len > MSG_TEXT_MAX_BYTES || in->data.len > MSG_DATA_MAX_BYTES)
        return sl_fail_set(why, SL_ETOOBIG, 0, "a message longer than %d bytes", MSG_TEXT_MAX_BYTES);
    return SL_OK;
}

sl_err wechat_in_read(struct wechat_in *in, enum wechat_product product, const struct wechat_xml *x,
                      struct sl_fail *why)
{
    int64_t seconds = 0;
    struct sl_str type = wechat_xml_get(x, "MsgType"), id = wechat_xml_get(x, "MsgId");
    *in = (struct wechat_in){.what = WECHAT_IN_NOTHING};
    sl_buf_init(&in->store, STORE_MAX);
    in->account = wechat_xml_get(x, "ToUserName");
    in->who = wechat_xml_get(x, "FromUserName");
    if (type.len == 0 && wechat_xml_has(x, "InfoType"))
        return SL_OK; /* WeCom: news of a suite, not of a customer */
    if (type.len == 0)
        return sl_fail_set(why, SL_EINVAL, 0, "MsgType is missing");
    if (sl_str_int(wechat_xml_get(x, "CreateTime"), &seconds) == SL_OK && seconds > 0 &&
        seconds < INT64_C(1) << 40)
        in->sent_unix_ms = seconds * 1000;
    bool is_event = sl_str_eq_c(type, "event");
    if (!is_event && !is_number(id))
        return sl_fail_set(why, SL_EINVAL, 0, "MsgId is missing, or no number");
    in->id = is_event ? event_id(in, x) : id;
    if (is_event)
        read_event(in, product, x);
    else
        read_message(in, product, x);
    return check(in, why);
}

void wechat_in_fini(struct wechat_in *in)
{
    sl_buf_fini(&in->store);
}

/* ---- kf/sync_msg ---- */

sl_err wechat_page_read(struct wechat_page *p, struct sl_str body, int64_t *code, struct sl_fail *why)
{
    *p = (struct wechat_page){.root = sl_json_parse(body, why)};
    if (p->root == NULL)
        return SL_EINVAL;
    *code = sl_json_get_int(p->root, "errcode", 0);
    if (*code != 0)
        return SL_OK;
    p->next_cursor = sl_json_get_str(p->root, "next_cursor");
    p->has_more = sl_json_get_int(p->root, "has_more", 0) != 0;
    p->list = json_object_get(p->root, "msg_list");
    p->items = json_is_array(p->list) ? json_array_size(p->list) : 0;
    if (p->next_cursor.len > 256 || (p->items > 0 && p->next_cursor.len == 0))
        return sl_fail_set(why, SL_EUPSTREAM, 0, "kf/sync_msg answered without a cursor that can be stored");
    return SL_OK;
}

void wechat_page_fini(struct wechat_page *p)
{
    json_decref(p->root);
    p->root = NULL;
}

/* clang-format off */
static const struct kf_type {
    const char *name;
    enum msg_kind kind;
    const char *media, *text; /* text: member of the type's object */
} kf_types[] = {
    {"text", MSG_TEXT, NULL, "content"},        {"image", MSG_IMAGE, "image", NULL},
    {"voice", MSG_AUDIO, "voice", NULL},        {"video", MSG_VIDEO, "video", NULL},
    {"file", MSG_FILE, "file", NULL},           {"location", MSG_LOCATION, NULL, "name"},
    {"link", MSG_LINK, NULL, "title"},          {"miniprogram", MSG_CARD, NULL, "title"},
    {"business_card", MSG_CARD, NULL, NULL},    {"msgmenu", MSG_CHOICE, NULL, "head_content"},
    {"channels_shop_product", MSG_CARD, NULL, "title"}, {"channels_shop_order", MSG_CARD, NULL, "product_titles"},
    {"merged_msg", MSG_CARD, NULL, "title"},    {"channels", MSG_CARD, NULL, "title"},
    {"note", MSG_CARD, NULL, NULL},             {"meeting", MSG_CARD, NULL, NULL},
    {"schedule", MSG_CARD, NULL, NULL},
};
/* clang-format on */

static void kf_message(struct wechat_in *in, const json_t *item, struct sl_str name)
{
    const struct kf_type *type = NULL;
    for (size_t i = 0; i < sizeof kf_types / sizeof kf_types[0]; i++)
        if (sl_str_eq_c(name, kf_types[i].name))
            type = &kf_types[i];
    const json_t *body = type != NULL ? json_object_get(item, type->name) : NULL; /* borrowed */
    struct sl_str menu_id = sl_json_get_str(body, "menu_id");
    struct sl_json j;
    in->what = WECHAT_IN_MESSAGE;
    in->kind = type != NULL ? type->kind : MSG_CARD;
    in->text = type != NULL && type->text != NULL ? sl_json_get_str(body, type->text) : SL_STR_NONE;
    if (type != NULL && type->media != NULL) {
        in->media_id = sl_json_get_str(body, "media_id");
        in->media_type = sl_str_c(type->media);
    }
    if (type != NULL && in->kind != MSG_TEXT && json_is_object(body)) {
        sl_json_dump(&in->store, body);
        in->data = sl_buf_view(&in->store);
    } else {
        data_begin(in, &j);
        if (type == NULL)
            sl_json_str(&j, "type", name);
        if (menu_id.len > 0)
            sl_json_str(&j, "menu_id", menu_id);
        cut_text(in, &j);
        data_end(in, &j);
    }
    in->rating = rating_of(menu_id);
    if (in->rating > 0)
        in->what = WECHAT_IN_RATING;
    if (in->kind == MSG_TEXT && in->text.len == 0)
        in->text = SL_STR(" ");
    grant(in, WECHAT_KF, false);
}

static void kf_event(struct wechat_in *in, const json_t *event)
{
    in->event = sl_json_get_str(event, "event_type");
    in->kind = MSG_CHOICE;
    if (in->who.len == 0)
        in->who = sl_json_get_str(event, "external_userid");
    if (in->open_kfid.len == 0)
        in->open_kfid = sl_json_get_str(event, "open_kfid");
    if (sl_str_eq_c(in->event, "enter_session")) {
        in->what = WECHAT_IN_EVENT;
        in->welcome_code = sl_json_get_str(event, "welcome_code");
        in->text = sl_json_get_str(event, "scene_param");
    } else if (sl_str_eq_c(in->event, "msg_send_fail")) {
        in->what = WECHAT_IN_RECEIPT;
        in->remote_id = sl_json_get_str(event, "fail_msgid");
        in->why = wechat_kf_fail_find(sl_json_get_int(event, "fail_type", 0));
        int n = snprintf(in->code_text, sizeof in->code_text, "%lld",
                         (long long)sl_json_get_int(event, "fail_type", 0));
        in->code = sl_str_n(in->code_text, n > 0 ? (size_t)n : 0);
    }
    if (json_is_object(event))
        sl_json_dump(&in->store, event);
    in->data = sl_buf_view(&in->store);
}

/* An item that cannot be appended must not stop the page: it is passed over, and the caller counts it. */
static bool kf_is_usable(const struct wechat_in *in)
{
    if (in->id.len == 0 || in->id.len > MSG_ID_MAX_BYTES || in->store.overflow ||
        in->text.len > MSG_TEXT_MAX_BYTES || in->data.len > MSG_DATA_MAX_BYTES)
        return false;
    if (in->what == WECHAT_IN_RECEIPT)
        return in->remote_id.len > 0 && in->remote_id.len <= MSG_ID_MAX_BYTES;
    return key_part_ok(in->who);
}

void wechat_page_item(struct wechat_in *in, const struct wechat_page *p, size_t i)
{
    const json_t *item = json_array_get(p->list, i); /* borrowed, as all below */
    struct sl_str type = sl_json_get_str(item, "msgtype");
    int64_t origin = sl_json_get_int(item, "origin", 0), seconds = sl_json_get_int(item, "send_time", 0);
    *in = (struct wechat_in){.what = WECHAT_IN_NOTHING};
    sl_buf_init(&in->store, STORE_MAX);
    in->id = sl_json_get_str(item, "msgid");
    in->who = sl_json_get_str(item, "external_userid");
    in->account = in->open_kfid = sl_json_get_str(item, "open_kfid");
    if (seconds > 0 && seconds < INT64_C(1) << 40)
        in->sent_unix_ms = seconds * 1000;
    if (sl_str_eq_c(type, "event"))
        kf_event(in, json_object_get(item, "event"));
    else if (origin == 3) /* 3: the customer; 4: the system; 5: a colleague in WeCom's own client */
        kf_message(in, item, type);
    if (in->what != WECHAT_IN_NOTHING && !kf_is_usable(in)) {
        in->what = WECHAT_IN_NOTHING;
        in->event = SL_STR("unusable");
    }
}
