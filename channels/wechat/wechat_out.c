/* channels/wechat/wechat_out.c - messages become bodies of the customer-service calls. Pure. */
#include "channels/wechat/wechat_wire.h"

#include <stdio.h>

struct writer {
    const struct wechat_out *o;
    const json_t *data; /* of the message; borrowed; NULL: none */
    struct sl_json j;
};

static struct sl_str first_of(const json_t *object, const char *const *names)
{
    struct sl_str found = SL_STR_NONE;
    for (; *names != NULL && found.len == 0; names++)
        found = sl_json_get_str(object, *names);
    return found;
}

/* What an option shows, as the web chat's page does it. A value may be a number. */
static struct sl_str option_label(const json_t *option, char number[24])
{
    static const char *const names[] = {"label", "text", "title", "value", NULL};
    struct sl_str label = json_is_string(option)
                              ? sl_str_n(json_string_value(option), json_string_length(option))
                              : first_of(option, names);
    const json_t *value = json_object_get(option, "value");
    if (label.len > 0 || !json_is_integer(value))
        return label;
    int n = snprintf(number, 24, "%lld", (long long)json_integer_value(value));
    return sl_str_n(number, n > 0 ? (size_t)n : 0);
}

static bool is_rating(const struct writer *w)
{
    return sl_str_eq_c(sl_json_get_str(w->data, "ask"), "rating");
}

/* The menu of a rating: five to one stars, with ids that come back. */
static void write_rating_items(struct writer *w)
{
    static const char *const stars[] = {"", "★☆☆☆☆ 1", "★★☆☆☆ 2", "★★★☆☆ 3", "★★★★☆ 4", "★★★★★ 5"};
    for (int i = 5; i >= 1; i--) {
        char id[32];
        (void)snprintf(id, sizeof id, WECHAT_RATING_PREFIX "%d", i);
        sl_json_open(&w->j, NULL, '{');
        if (w->o->product == WECHAT_KF) {
            sl_json_c(&w->j, "type", "click");
            sl_json_open(&w->j, "click", '{');
        }
        sl_json_c(&w->j, "id", id);
        sl_json_c(&w->j, "content", stars[i]);
        if (w->o->product == WECHAT_KF)
            sl_json_close(&w->j, '}');
        sl_json_close(&w->j, '}');
    }
}

static void write_option_items(struct writer *w)
{
    size_t i, shown = 0;
    const json_t *option;
    json_array_foreach(json_object_get(w->data, "options"), i, option)
    {
        char id[32], number[24];
        struct sl_str label = option_label(option, number);
        if (label.len == 0 || shown == WECHAT_OPTIONS_MAX)
            continue;
        (void)snprintf(id, sizeof id, "%zu", ++shown);
        sl_json_open(&w->j, NULL, '{');
        if (w->o->product == WECHAT_KF) {
            sl_json_c(&w->j, "type", "click");
            sl_json_open(&w->j, "click", '{');
        }
        sl_json_c(&w->j, "id", id);
        sl_json_str(&w->j, "content", label);
        if (w->o->product == WECHAT_KF)
            sl_json_close(&w->j, '}');
        sl_json_close(&w->j, '}');
    }
}

static bool write_menu(struct writer *w)
{
    if (w->o->product == WECHAT_WECOM || !json_is_array(json_object_get(w->data, "options")))
        return false;
    sl_json_c(&w->j, "msgtype", "msgmenu");
    sl_json_open(&w->j, "msgmenu", '{');
    sl_json_str(&w->j, "head_content", w->o->m->text);
    sl_json_open(&w->j, "list", '[');
    if (is_rating(w))
        write_rating_items(w);
    else
        write_option_items(w);
    sl_json_close(&w->j, ']');
    if (w->o->product == WECHAT_OA)
        sl_json_c(&w->j, "tail_content", "");
    sl_json_close(&w->j, '}');
    return true;
}

static bool write_text(struct writer *w)
{
    if (w->o->m->text.len == 0)
        return false;
    sl_json_c(&w->j, "msgtype", "text");
    sl_json_open(&w->j, "text", '{');
    sl_json_str(&w->j, "content", w->o->m->text);
    sl_json_close(&w->j, '}');
    return true;
}

static bool write_media(struct writer *w)
{
    const char *type = wechat_out_media_type(w->o->product, w->o->m);
    if (type == NULL || w->o->media_id.len == 0)
        return false;
    sl_json_c(&w->j, "msgtype", type);
    sl_json_open(&w->j, type, '{');
    sl_json_str(&w->j, "media_id", w->o->media_id);
    if (w->o->m->kind == MSG_VIDEO && w->o->product != WECHAT_KF) {
        if (w->o->product == WECHAT_OA)
            sl_json_str(&w->j, "thumb_media_id", w->o->thumb_id);
        sl_json_str(&w->j, "title", sl_json_get_str(w->data, "title"));
        sl_json_str(&w->j, "description", w->o->m->text);
    }
    sl_json_close(&w->j, '}');
    return true;
}

/* A card or a link: one article. */
static bool write_article(struct writer *w)
{
    static const char *const titles[] = {"title", "name", NULL},
                             *const texts[] = {"description", "text", NULL},
                             *const pictures[] = {"image", "picture_url", "picurl", NULL};
    struct sl_str title = first_of(w->data, titles), url = sl_json_get_str(w->data, "url");
    struct sl_str text = first_of(w->data, texts);
    if (title.len == 0)
        title = w->o->m->text;
    if (title.len == 0 || url.len == 0 || w->o->product == WECHAT_KF)
        return false; /* kf's link needs an uploaded thumbnail: the lane sends a text */
    if (text.len == 0 && title.ptr != w->o->m->text.ptr)
        text = w->o->m->text;
    sl_json_c(&w->j, "msgtype", "news");
    sl_json_open(&w->j, "news", '{');
    sl_json_open(&w->j, "articles", '[');
    sl_json_open(&w->j, NULL, '{');
    sl_json_str(&w->j, "title", title);
    sl_json_str(&w->j, "description", text);
    sl_json_str(&w->j, "url", url);
    sl_json_str(&w->j, "picurl", first_of(w->data, pictures));
    sl_json_close(&w->j, '}');
    sl_json_close(&w->j, ']');
    sl_json_close(&w->j, '}');
    return true;
}

static bool write_location(struct writer *w)
{
    const json_t *lat = json_object_get(w->data, "latitude"), *lng = json_object_get(w->data, "longitude");
    if (w->o->product != WECHAT_KF || !json_is_number(lat) || !json_is_number(lng))
        return false;
    sl_json_c(&w->j, "msgtype", "location");
    sl_json_open(&w->j, "location", '{');
    sl_json_str(&w->j, "name", w->o->m->text);
    sl_json_str(&w->j, "address", sl_json_get_str(w->data, "address"));
    struct sl_buf number;
    sl_buf_init(&number, 64);
    sl_buf_printf(&number, "%.6f", json_number_value(lat));
    sl_json_raw(&w->j, "latitude", sl_buf_view(&number));
    sl_buf_clear(&number);
    sl_buf_printf(&number, "%.6f", json_number_value(lng));
    sl_json_raw(&w->j, "longitude", sl_buf_view(&number));
    sl_buf_fini(&number);
    sl_json_close(&w->j, '}');
    return true;
}

/* Members that a body takes over as the sender gave them: what the platform's own template calls for. */
static const json_t *template_of(const json_t *data)
{
    const json_t *t = json_object_get(data, "template"), *s = json_object_get(data, "subscribe");
    return json_is_object(t) ? t : json_is_object(s) ? s : NULL;
}

static bool write_template(struct writer *w)
{
    static const char *const members[] = {"url", "page", "miniprogram", "data", NULL};
    const json_t *t = template_of(w->data);
    bool is_template = json_is_object(json_object_get(w->data, "template"));
    struct sl_str id = sl_json_get_str(t, "template_id");
    if (w->o->product != WECHAT_OA || id.len == 0)
        return false;
    sl_json_str(&w->j, "template_id", id);
    for (size_t i = 0; members[i] != NULL; i++) {
        const json_t *v = json_object_get(t, members[i]);
        struct sl_buf dumped;
        if (v == NULL)
            continue;
        sl_buf_init(&dumped, MSG_DATA_MAX_BYTES * 2);
        sl_json_dump(&dumped, v);
        sl_json_raw(&w->j, members[i], sl_buf_view(&dumped));
        sl_buf_fini(&dumped);
    }
    if (is_template)
        sl_json_str(&w->j, "client_msg_id", w->o->key); /* the platform drops a repeat of it */
    return true;
}

static bool write_kind(struct writer *w)
{
    if (template_of(w->data) != NULL)
        return write_template(w);
    switch (w->o->m->kind) {
    case MSG_TEXT:
        return write_text(w);
    case MSG_IMAGE:
    case MSG_AUDIO:
    case MSG_VIDEO:
    case MSG_FILE:
        return write_media(w);
    case MSG_CHOICE:
        return write_menu(w) || write_text(w);
    case MSG_CARD:
    case MSG_LINK:
        return write_article(w) || write_text(w);
    case MSG_LOCATION:
        return write_location(w) || write_text(w);
    case MSG_EVENT:
    case MSG_NOTE:
        return false;
    }
    return false;
}

static void write_head(struct writer *w)
{
    const struct wechat_out *o = w->o;
    int64_t agent_id;
    if (o->welcome_code.len > 0)
        sl_json_str(&w->j, "code", o->welcome_code);
    else
        sl_json_str(&w->j, "touser", o->to);
    switch (o->product) {
    case WECHAT_OA:
        if (o->kf_account.len > 0 && template_of(w->data) == NULL) {
            sl_json_open(&w->j, "customservice", '{');
            sl_json_str(&w->j, "kf_account", o->kf_account);
            sl_json_close(&w->j, '}');
        }
        break;
    case WECHAT_WECOM:
        if (sl_str_int(o->agent_id, &agent_id) == SL_OK)
            sl_json_int(&w->j, "agentid", agent_id);
        sl_json_int(&w->j, "safe", 0);
        sl_json_int(&w->j, "enable_duplicate_check", o->duplicate_check_s > 0);
        sl_json_int(&w->j, "duplicate_check_interval", o->duplicate_check_s);
        break;
    case WECHAT_KF:
        if (o->welcome_code.len == 0)
            sl_json_str(&w->j, "open_kfid", o->open_kfid);
        sl_json_str(&w->j, "msgid", o->key);
        break;
    }
}

const char *wechat_out_media_type(enum wechat_product product, const struct msg *m)
{
    switch (m->kind) {
    case MSG_IMAGE:
        return "image";
    case MSG_AUDIO:
        return "voice";
    case MSG_VIDEO:
        return "video";
    case MSG_FILE:
        return product == WECHAT_OA ? NULL : "file";
    case MSG_TEXT:
    case MSG_LOCATION:
    case MSG_LINK:
    case MSG_CHOICE:
    case MSG_CARD:
    case MSG_EVENT:
    case MSG_NOTE:
        return NULL;
    }
    return NULL;
}

static json_t *data_of(const struct msg *m)
{
    struct sl_fail why;
    return m->data.len > 0 ? sl_json_parse(m->data, &why) : NULL;
}

const char *wechat_out_path(const struct wechat_out *o)
{
    const char *path = "/cgi-bin/message/custom/send";
    json_t *data = data_of(o->m);
    if (o->product == WECHAT_WECOM)
        path = "/cgi-bin/message/send";
    else if (o->product == WECHAT_KF)
        path = o->welcome_code.len > 0 ? "/cgi-bin/kf/send_msg_on_event" : "/cgi-bin/kf/send_msg";
    else if (json_is_object(json_object_get(data, "template")))
        path = "/cgi-bin/message/template/send";
    else if (json_is_object(json_object_get(data, "subscribe")))
        path = "/cgi-bin/message/subscribe/bizsend";
    json_decref(data);
    return path;
}

bool wechat_out_write(const struct wechat_out *o, struct sl_buf *out)
{
    json_t *data = data_of(o->m);
    struct writer w = {.o = o, .data = data};
    sl_json_begin(&w.j, out);
    sl_json_open(&w.j, NULL, '{');
    write_head(&w);
    bool is_written = write_kind(&w);
    sl_json_close(&w.j, '}');
    json_decref(data);
    return is_written && !out->overflow;
}

/* ---- answers ---- */

static struct sl_str id_of(const json_t *root, char number[24])
{
    static const char *const names[] = {"msgid", "msg_id", NULL};
    for (size_t i = 0; names[i] != NULL; i++) {
        const json_t *v = json_object_get(root, names[i]);
        if (json_is_string(v))
            return sl_str_n(json_string_value(v), json_string_length(v));
        if (!json_is_integer(v))
            continue;
        int n = snprintf(number, 24, "%lld", (long long)json_integer_value(v));
        return sl_str_n(number, n > 0 ? (size_t)n : 0);
    }
    return SL_STR_NONE;
}

sl_err wechat_result_read(struct wechat_result *r, enum wechat_product product, struct sl_str body,
                          json_t **hold)
{
    static const struct wechat_error not_there = {
        81013, WECHAT_GONE, "收件人不存在或不在应用的可见范围内",
        "the recipient does not exist or is out of the application's sight"};
    struct sl_fail why;
    json_t *root = sl_json_parse(body, &why);
    if (!json_is_object(root) || !json_is_integer(json_object_get(root, "errcode"))) {
        json_decref(root);
        return SL_EUPSTREAM;
    }
    r->code = sl_json_get_int(root, "errcode", 0);
    r->error = wechat_error_find(product, r->code);
    r->message = sl_json_get_str(root, "errmsg");
    r->remote_id = id_of(root, r->number);
    if (r->remote_id.len > MSG_ID_MAX_BYTES)
        r->remote_id = SL_STR_NONE;
    if (product == WECHAT_WECOM && r->code == 0 && sl_json_get_str(root, "invaliduser").len > 0)
        r->error = &not_there;
    *hold = root;
    return SL_OK;
}
