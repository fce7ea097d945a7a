/* gateway/upload.c - attachments of web visitors, agents and programs: POST /media takes one, GET /v1/media-link shows one.
 *
 * Who      Authorization: Bearer with an agent's session token, a visitor's token (then ?inbox= names her inbox), or an API token
 *          with messages:write. Nobody else's bytes come to the disk.
 * Answer   what goes into a message's data.attachments; a link for the page.
 */
#include "gateway/gateway_priv.h"

#include "base/json.h"
#include "base/log.h"

#include <stdlib.h>

struct upload {
    struct gw *gw;
    struct chan_request *rq;
    void (*go_on)(struct upload *u);
    char id[65], name[256];
};

static void refuse(struct upload *u, sl_err err, const char *words)
{
    gw_rest_problem(u->rq, err, words);
    free(u);
}

/* ---- who ---- */

static bool is_visitor(struct gw *gw, struct sl_str token, struct sl_str inbox)
{
    struct sl_fail why;
    struct chan_visitor who = {.address = ""};
    const struct gw_box *box = gw_find_box(gw, inbox);
    if (box == NULL || token.len == 0 || !(chan_ops_of(box->inbox.ch)->caps & CHAN_CAP_SOCKET))
        return false;
    struct chan_hello hello = {
        .origin = SL_STR("self"), .token = token, .inbox = inbox, .now_unix_ms = sl_loop_unix_ms(gw->loop)};
    return chan_hello(box->inbox.ch, &hello, &who, &why) == SL_OK;
}

static void on_login(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct upload *u = arg;
    struct sl_str stored = bus_value_str(v);
    (void)why;
    if (err != SL_OK) {
        refuse(u, SL_EAGAIN, sl_err_text(SL_EAGAIN));
        return;
    }
    json_t *root = stored.len > 0 ? sl_json_parse(stored, NULL) : NULL; /* owned */
    bool is_agent = root != NULL && sl_json_get_int(root, "ends", 0) > sl_loop_unix_ms(u->gw->loop) &&
                    gw_people_agent(u->gw->people, sl_json_get_str(root, "tenant"),
                                    sl_json_get_str(root, "agent")) != NULL;
    json_decref(root);
    if (is_agent)
        u->go_on(u);
    else
        refuse(u, SL_EAUTH,
               "give Authorization: Bearer with the token of an agent, a visitor (and inbox=) or a program");
}

static void ask_agent(struct upload *u, struct sl_str token)
{
    struct key login = gw_login_key("login", token);
    struct bus_args *a = &u->gw->hub->args;
    bus_args_clear(a);
    bus_args_c(a, "GET");
    bus_args_key(a, &login);
    if (bus_command(u->gw->bus, a, BUS_DEADLINE_MS, on_login, u) != SL_OK)
        refuse(u, SL_EAGAIN, sl_err_text(SL_EAGAIN));
}

/* Goes on, or answers. */
static void authorise(struct upload *u)
{
    static const char scheme[] = "Bearer ";
    struct sl_str given = u->rq->header(u->rq, "authorization");
    if (!sl_str_starts(given, scheme)) {
        refuse(u, SL_EAUTH, "give Authorization: Bearer <token>");
        return;
    }
    struct sl_str token = sl_str_n(given.ptr + sizeof scheme - 1, given.len - (sizeof scheme - 1));
    struct sl_str inbox = gw_query_value(u->rq->query, "inbox");
    const struct gw_token *program = gw_people_token(u->gw->people, token);
    if (u->gw->life != GW_RUNNING)
        refuse(u, SL_EAGAIN, sl_err_text(SL_EAGAIN));
    else if ((program != NULL && (program->rights & GW_MAY_WRITE_MESSAGES)) ||
             is_visitor(u->gw, token, inbox))
        u->go_on(u);
    else if (token.len == GW_TOKEN_BYTES)
        ask_agent(u, token);
    else
        refuse(u, SL_EAUTH,
               "give Authorization: Bearer with the token of an agent, a visitor (and inbox=) or a program");
}

static struct upload *upload_new(struct gw *gw, struct chan_request *rq, void (*go_on)(struct upload *))
{
    struct upload *u = sl_alloc(sizeof *u);
    *u = (struct upload){.gw = gw, .rq = rq, .go_on = go_on};
    struct sl_str name = gw_query_value(rq->query, "name");
    size_t n = name.len < sizeof u->name ? name.len : 0;
    memcpy(u->name, name.ptr, n);
    return u;
}

/* ---- POST /media?name=&inbox= ---- */

static void on_stored(void *arg, sl_err err, const struct chan_media *m, struct sl_str bytes,
                      const struct sl_fail *why)
{
    struct upload *u = arg;
    struct sl_buf body, link;
    struct sl_json j;
    (void)bytes;
    if (err != SL_OK) {
        sl_log(SL_WARN, "an upload could not be stored", SL_KV_FAIL(why));
        refuse(u, SL_EAGAIN, "the media store failed; its words are in the log");
        return;
    }
    sl_buf_init(&body, 0);
    sl_buf_init(&link, 0);
    gw_media_link(u->gw->media, sl_str_c(m->id), sl_str_c(m->name), false, &link);
    sl_json_begin(&j, &body);
    sl_json_open(&j, NULL, '{');
    sl_json_c(&j, "id", m->id);
    sl_json_c(&j, "type", m->type);
    sl_json_int(&j, "size", m->size);
    sl_json_c(&j, "sha256", m->id);
    sl_json_c(&j, "name", m->name);
    sl_json_str(&j, "url", sl_buf_view(&link));
    sl_json_close(&j, '}');
    u->rq->answer(u->rq, 201, "application/json", sl_buf_view(&body));
    sl_buf_fini(&body);
    sl_buf_fini(&link);
    free(u);
}

static void store(struct upload *u)
{
    sl_err err = gw_media_put(u->gw->media, u->rq->body, u->rq->header(u->rq, "content-type"),
                              sl_str_c(u->name), on_stored, u);
    if (err == SL_EREFUSED)
        refuse(u, SL_ENOTFOUND, "this gateway keeps no attachments (media.dir)");
    else if (err != SL_OK)
        refuse(u, err, err == SL_EINVAL ? "the body is empty" : sl_err_text(err));
}

void gw_media_post(struct gw *gw, struct chan_request *rq)
{
    authorise(upload_new(gw, rq, store));
}

/* ---- GET /v1/media-link?id=&name=&inbox= ---- */

static void give_link(struct upload *u)
{
    struct sl_buf body, link;
    struct sl_json j;
    sl_buf_init(&link, 0);
    gw_media_link(u->gw->media, sl_str_c(u->id), sl_str_c(u->name), false, &link);
    if (link.len == 0) {
        sl_buf_fini(&link);
        refuse(u, SL_ENOTFOUND, "there is no such attachment");
        return;
    }
    sl_buf_init(&body, 0);
    sl_json_begin(&j, &body);
    sl_json_open(&j, NULL, '{');
    sl_json_str(&j, "url", sl_buf_view(&link));
    sl_json_close(&j, '}');
    u->rq->answer(u->rq, 200, "application/json", sl_buf_view(&body));
    sl_buf_fini(&body);
    sl_buf_fini(&link);
    free(u);
}

void gw_media_give_link(struct gw *gw, struct chan_request *rq)
{
    struct upload *u = upload_new(gw, rq, give_link);
    struct sl_str id = gw_query_value(rq->query, "id");
    if (id.len == 64)
        memcpy(u->id, id.ptr, 64);
    authorise(u);
}
