/* gateway/rest.c - the first HTTP calls: login, append a message, read a conversation. Errors are problem+json (RFC 9457).
 *
 * Never anonymous: Authorization: Bearer <token>, and a token belongs to one tenant and has rights. 202 means durable.
 */
#include "gateway/gateway_priv.h"

#include "base/crypto.h"

#include <stdlib.h>

#define JSON_TYPE          "application/json"
#define MESSAGE_HORIZON_MS INT64_C(86400000) /* how long the same id is the same message */
#define PAGE_DEFAULT       100
#define PAGE_MAX           500

static void answer_json(struct chan_request *rq, int status, struct sl_buf *body)
{
    rq->answer(rq, status, JSON_TYPE, sl_buf_view(body));
    sl_buf_fini(body);
}

void gw_rest_problem(struct chan_request *rq, sl_err code, const char *words)
{
    struct sl_buf body;
    struct sl_json j;
    sl_buf_init(&body, 0);
    sl_json_begin(&j, &body);
    sl_json_open(&j, NULL, '{');
    sl_json_c(&j, "title", sl_err_text(code));
    sl_json_int(&j, "status", sl_err_http(code));
    sl_json_c(&j, "code", sl_err_name(code));
    sl_json_c(&j, "detail", words);
    sl_json_close(&j, '}');
    rq->answer(rq, sl_err_http(code), "application/problem+json", sl_buf_view(&body));
    sl_buf_fini(&body);
}

/* ---- who asks ---- */

static bool take_allowance(struct gw_token *t, uint64_t now_mono_ms)
{
    double more = (double)(now_mono_ms - t->filled_mono_ms) * GW_TOKEN_RATE_PER_S / 1000.0;
    t->filled_mono_ms = now_mono_ms;
    t->allowance = t->allowance + more > GW_TOKEN_BURST ? GW_TOKEN_BURST : t->allowance + more;
    if (t->allowance < 1)
        return false;
    t->allowance -= 1;
    return true;
}

/* NULL: the request was answered. */
static struct gw_token *authorised(struct gw *gw, struct chan_request *rq, enum gw_right right)
{
    static const char scheme[] = "Bearer ";
    struct sl_str given = rq->header(rq, "authorization");
    struct gw_token *token = NULL;
    if (sl_str_starts(given, scheme))
        token = gw_people_token(gw->people,
                                sl_str_n(given.ptr + sizeof scheme - 1, given.len - (sizeof scheme - 1)));
    if (token == NULL) {
        gw_rest_problem(rq, SL_EAUTH, "give Authorization: Bearer <token>");
        return NULL;
    }
    if ((token->rights & right) == 0) {
        gw_rest_problem(rq, SL_EDENIED, "this token does not have the right");
        return NULL;
    }
    if (!take_allowance(token, sl_loop_mono_ms(gw->loop))) {
        gw_rest_problem(rq, SL_ERATE, "too many requests with this token");
        return NULL;
    }
    return token;
}

/* The body as a JSON object that the caller json_decrefs; NULL: the request was answered. */
static json_t *json_body(struct chan_request *rq)
{
    struct sl_fail why = {.text = ""};
    if (!sl_str_starts(rq->header(rq, "content-type"), JSON_TYPE)) {
        rq->answer(rq, 415, "application/problem+json",
                   SL_STR("{\"status\":415,\"detail\":\"send application/json\"}"));
        return NULL;
    }
    if (rq->body.len > FRAME_MAX_BYTES) {
        gw_rest_problem(rq, SL_ETOOBIG, "the body may have 64 KiB at most");
        return NULL;
    }
    json_t *root = sl_json_parse(rq->body, &why);
    if (json_is_object(root))
        return root;
    gw_rest_problem(rq, SL_EINVAL, root == NULL ? why.text : "the body must be a JSON object");
    json_decref(root);
    return NULL;
}

/* ---- POST /v1/login ---- */

static void on_login(void *arg, sl_err err, const char *token, const struct gw_agent *agent)
{
    struct chan_request *rq = arg;
    struct sl_buf body;
    struct sl_json j;
    if (err != SL_OK) {
        gw_rest_problem(rq, err == SL_ECLOSED ? SL_EAGAIN : err,
                        err == SL_EAUTH ? "tenant, name or password is wrong" : sl_err_text(err));
        return;
    }
    sl_buf_init(&body, 0);
    sl_json_begin(&j, &body);
    sl_json_open(&j, NULL, '{');
    sl_json_c(&j, "token", token);
    sl_json_c(&j, "tenant", agent->tenant);
    sl_json_c(&j, "agent", agent->id);
    sl_json_c(&j, "name", agent->name);
    sl_json_int(&j, "expires_in_s", GW_LOGIN_LIFE_MS / 1000);
    sl_json_int(&j, "idle_s", GW_LOGIN_IDLE_MS / 1000);
    sl_json_close(&j, '}');
    answer_json(rq, 200, &body);
}

static bool is_short(struct sl_str s)
{
    return s.len > 0 && s.len <= 256;
}

void gw_rest_login(struct gw *gw, struct chan_request *rq)
{
    json_t *root = json_body(rq);
    if (root == NULL)
        return;
    struct sl_str once = sl_json_get_str(root, "once"), tenant = sl_json_get_str(root, "tenant");
    struct sl_str name = sl_json_get_str(root, "name"), password = sl_json_get_str(root, "password");
    sl_err err = SL_EINVAL;
    if (gw->life != GW_RUNNING)
        err = SL_EAGAIN;
    else if (is_short(once))
        err = gw_login_once(gw->logins, once, on_login, rq);
    else if (is_short(tenant) && is_short(name) && is_short(password))
        err = gw_login_password(gw->logins, tenant, name, password, on_login, rq);
    json_decref(root);
    if (err != SL_OK)
        gw_rest_problem(rq, err,
                        err == SL_EINVAL ? "give tenant, name and password, or once" : sl_err_text(err));
}

/* ---- POST /v1/messages ---- */

static void on_message_appended(void *arg, sl_err err, const struct bus_accept_result *res,
                                const struct sl_fail *why)
{
    struct chan_request *rq = arg;
    struct sl_buf body;
    struct sl_json j;
    (void)why;
    if (err != SL_OK) {
        bool is_unknown = err == SL_ETIMEOUT || err == SL_ECLOSED;
        gw_rest_problem(rq, is_unknown ? SL_EAGAIN : err,
                        "not known to be stored: send it again with the same id");
        return;
    }
    sl_buf_init(&body, 0);
    sl_json_begin(&j, &body);
    sl_json_open(&j, NULL, '{');
    sl_json_str(&j, "entry", res->entry);
    if (res->how == BUS_REPEAT)
        sl_json_bool(&j, "repeat", true);
    sl_json_close(&j, '}');
    answer_json(rq, 202, &body);
}

static sl_err read_message(const json_t *root, const struct gw_inbox *inbox, struct msg *m,
                           struct sl_buf *data, struct sl_fail *why)
{
    struct sl_str kind = sl_json_get_str(root, "kind");
    const json_t *object = json_object_get(root, "data"); /* borrowed */
    *m = (struct msg){.id = sl_json_get_str(root, "id"), .by = MSG_BY_VISITOR, .kind = MSG_TEXT};
    m->who = sl_json_get_str(root, "address");
    m->text = sl_json_get_str(root, "text");
    m->tenant = sl_str_c(inbox->tenant);
    m->inbox = sl_str_c(inbox->name);
    if (object != NULL && !json_is_object(object))
        return sl_fail_set(why, SL_EINVAL, 0, "data must be an object");
    if (object != NULL) {
        sl_json_dump(data, object);
        m->data = sl_buf_view(data);
    }
    if (kind.len > 0 && (!msg_kind_from(kind, &m->kind) || m->kind == MSG_NOTE || m->kind == MSG_EVENT))
        return sl_fail_set(why, SL_EINVAL, 0, "kind is not one that a customer may send");
    if (!key_part_ok(m->who) || !key_part_ok(m->id))
        return sl_fail_set(why, SL_EINVAL, 0, "address and id are 1 to 128 of letters, digits and ._@+-");
    return data->overflow ? sl_fail_set(why, SL_ETOOBIG, 0, "data is too long") : msg_check(m, why);
}

void gw_rest_messages(struct gw *gw, struct chan_request *rq)
{
    struct sl_fail why = {.text = ""};
    struct msg m;
    struct sl_buf data;
    const struct gw_token *token = authorised(gw, rq, GW_MAY_WRITE_MESSAGES);
    json_t *root = token != NULL ? json_body(rq) : NULL;
    if (root == NULL)
        return;
    sl_buf_init(&data, MSG_DATA_MAX_BYTES);
    const struct gw_box *box = gw_find_box(gw, sl_json_get_str(root, "inbox"));
    sl_err err = SL_OK;
    if (box == NULL || strcmp(box->inbox.tenant, token->tenant) != 0)
        err = sl_fail_set(&why, SL_EDENIED, 0, "this token's tenant has no such inbox");
    if (err == SL_OK)
        err = read_message(root, &box->inbox, &m, &data, &why);
    if (err == SL_OK) {
        err = gw_append_message(gw, &box->inbox, &m, MESSAGE_HORIZON_MS, on_message_appended, rq);
        (void)sl_fail_set(&why, err, 0, "%s", sl_err_text(err));
    }
    json_decref(root);
    sl_buf_fini(&data);
    if (err != SL_OK)
        gw_rest_problem(rq, err, why.text);
}

/* ---- GET /v1/conversations/<id>?from=n&limit=n ---- */

struct reading {
    struct gw *gw;
    struct chan_request *rq;
    struct sl_str conv; /* of rq->path: lives until the answer */
    char *tenant;
    uint64_t from, limit, base, end;
    struct sl_buf state;
};

static void reading_fail(struct reading *r, sl_err err, const char *words)
{
    gw_rest_problem(r->rq, err, words);
    sl_buf_fini(&r->state);
    free(r->tenant);
    free(r);
}

static void on_reading_entries(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct reading *r = arg;
    struct sl_buf body;
    struct sl_json j;
    (void)why;
    if (err != SL_OK) {
        reading_fail(r, SL_EAGAIN, sl_err_text(SL_EAGAIN));
        return;
    }
    size_t count = bus_value_count(v);
    sl_buf_init(&body, 0);
    sl_json_begin(&j, &body);
    sl_json_open(&j, NULL, '{');
    sl_json_str(&j, "id", r->conv);
    sl_json_int(&j, "first", (int64_t)(r->base + 1));
    sl_json_int(&j, "last", (int64_t)r->end);
    sl_json_raw(&j, "state", sl_buf_view(&r->state));
    sl_json_open(&j, "entries", '[');
    for (size_t i = 0; i < count; i++)
        sl_json_raw(&j, NULL, bus_value_str(bus_value_at(v, i)));
    sl_json_close(&j, ']');
    if (r->from + count <= r->end)
        sl_json_int(&j, "next", (int64_t)(r->from + count));
    sl_json_close(&j, '}');
    answer_json(r->rq, 200, &body);
    sl_buf_fini(&r->state);
    free(r->tenant);
    free(r);
}

static bool is_of_tenant(struct sl_str state_json, const char *tenant)
{
    json_t *root = state_json.len > 0 ? sl_json_parse(state_json, NULL) : NULL; /* owned */
    if (root == NULL)
        return false;
    struct sl_str addr = sl_json_get_str(root, "addr");
    size_t n = strlen(tenant);
    bool is = addr.len > n && memcmp(addr.ptr, tenant, n) == 0 && addr.ptr[n] == '/';
    json_decref(root);
    return is;
}

static void on_reading_state(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct reading *r = arg;
    char tag[KEY_TAG_MAX_BYTES];
    (void)why;
    struct sl_str state = bus_value_str(bus_value_at(v, 0));
    if (err != SL_OK) {
        reading_fail(r, SL_EAGAIN, sl_err_text(SL_EAGAIN));
        return;
    }
    if (!is_of_tenant(state, r->tenant) || key_conversation_tag(tag, r->conv) != SL_OK) {
        reading_fail(r, SL_ENOTFOUND, "no such conversation"); /* another tenant's looks the same */
        return;
    }
    r->end = (uint64_t)bus_value_int(bus_value_at(v, 1));
    r->base = (uint64_t)bus_value_int(bus_value_at(v, 2));
    if (r->from <= r->base)
        r->from = r->base + 1;
    sl_buf_str(&r->state, state);
    struct key log = key_log(tag, r->conv);
    struct bus_args *a = &r->gw->hub->args;
    bus_args_clear(a);
    bus_args_c(a, "LRANGE");
    bus_args_key(a, &log);
    bus_args_int(a, (int64_t)(r->from - 1 - r->base));
    bus_args_int(a, (int64_t)(r->from - 1 - r->base + r->limit - 1));
    if (bus_command(r->gw->bus, a, BUS_DEADLINE_MS, on_reading_entries, r) != SL_OK)
        reading_fail(r, SL_EAGAIN, sl_err_text(SL_EAGAIN));
}

/* The value of name in a query, as a number; fallback when absent or not one. */
static uint64_t query_number(struct sl_str query, const char *name, uint64_t fallback)
{
    size_t n = strlen(name);
    while (query.len > 0) {
        const char *amp = memchr(query.ptr, '&', query.len);
        size_t len = amp != NULL ? (size_t)(amp - query.ptr) : query.len;
        uint64_t value;
        if (len > n && memcmp(query.ptr, name, n) == 0 && query.ptr[n] == '=' &&
            sl_str_uint(sl_str_n(query.ptr + n + 1, len - n - 1), &value) == SL_OK)
            return value;
        query = amp != NULL ? sl_str_n(amp + 1, query.len - len - 1) : SL_STR_NONE;
    }
    return fallback;
}

void gw_rest_conversation(struct gw *gw, struct chan_request *rq)
{
    static const char prefix[] = "/v1/conversations/";
    char tag[KEY_TAG_MAX_BYTES];
    const struct gw_token *token = authorised(gw, rq, GW_MAY_READ_CONVERSATIONS);
    if (token == NULL)
        return;
    struct sl_str conv = sl_str_n(rq->path.ptr + sizeof prefix - 1, rq->path.len - (sizeof prefix - 1));
    if (key_conversation_tag(tag, conv) != SL_OK) {
        gw_rest_problem(rq, SL_ENOTFOUND, "no such conversation");
        return;
    }
    struct reading *r = sl_alloc(sizeof *r);
    *r = (struct reading){.gw = gw, .rq = rq, .conv = conv, .tenant = sl_strdup(token->tenant)};
    r->from = query_number(rq->query, "from", 1);
    r->limit = query_number(rq->query, "limit", PAGE_DEFAULT);
    r->from = r->from < 1 || r->from > INT64_MAX / 2 ? 1 : r->from;
    r->limit = r->limit < 1 || r->limit > PAGE_MAX ? PAGE_MAX : r->limit;
    sl_buf_init(&r->state, 0);
    struct key state = key_state("conv", tag, conv);
    struct bus_args *a = &gw->hub->args;
    bus_args_clear(a);
    bus_args_c(a, "HMGET");
    bus_args_key(a, &state);
    bus_args_c(a, "s");
    bus_args_c(a, "n");
    bus_args_c(a, "b");
    if (bus_command(gw->bus, a, BUS_DEADLINE_MS, on_reading_state, r) != SL_OK)
        reading_fail(r, SL_EAGAIN, sl_err_text(SL_EAGAIN));
}
