#include "gateway/login.h"

#include "base/crypto.h"
#include "base/log.h"

#include <stdlib.h>

/* One login: verify (thread pool) -> store the token -> answer. */
struct login {
    struct gw_logins *owner; /* NULL: the gateway is going, nobody waits */
    struct login *next;      /* waiting for a thread */
    struct login *all_next, *all_before;
    uv_work_t work;
    gw_login_fn fn;
    void *arg;
    char *password, *hash; /* hash: of the configured agent, or one that fits nothing */
    char *tenant, *agent;
    bool is_right;
    char token[GW_TOKEN_BYTES + 1];
};

struct gw_logins {
    struct gw_hub *hub;
    struct login *first_waiting, *last_waiting, *all;
    size_t waiting, running;
    struct sl_metric *waiting_gauge;
};

/* Of a password nobody knows, so that an unknown name takes as long as a wrong password. */
static const char no_ones_hash[] =
    "$argon2id$v=19$m=19456,t=2,p=1$c2x1aWNlLW5vLW9uZQ$Vd0vC3K7mQ1pXyZr5sT8uW2bN4cM6dF9gH1jK3lP5qE";

struct key gw_login_key(const char *prefix, struct sl_str token)
{
    unsigned char hash[32];
    char hex[65];
    struct key k;
    sl_sha256(token, hash);
    sl_hex(hex, hash, sizeof hash);
    struct sl_buf b;
    sl_buf_init(&b, KEY_MAX_BYTES - 1);
    sl_buf_c(&b, prefix);
    sl_buf_char(&b, ':');
    sl_buf_c(&b, hex);
    k.len = b.len;
    memcpy(k.ptr, b.ptr, b.len);
    k.ptr[k.len] = '\0';
    sl_buf_fini(&b);
    return k;
}

struct gw_logins *gw_logins_new(struct gw_hub *hub)
{
    struct gw_logins *l = sl_alloc(sizeof *l);
    l->hub = hub;
    l->waiting_gauge = sl_gauge("sluice_gateway_logins_waiting", "", "Logins that wait for a thread");
    sl_gauge_max(l->waiting_gauge, GW_LOGIN_WAITING_MAX);
    return l;
}

static void wipe(char **secret)
{
    if (*secret == NULL)
        return;
    explicit_bzero(*secret, strlen(*secret));
    free(*secret);
    *secret = NULL;
}

static void login_free(struct login *g)
{
    if (g->owner != NULL) {
        if (g->all_next != NULL)
            g->all_next->all_before = g->all_before;
        if (g->all_before != NULL)
            g->all_before->all_next = g->all_next;
        else
            g->owner->all = g->all_next;
    }
    wipe(&g->password);
    free(g->hash);
    free(g->tenant);
    free(g->agent);
    explicit_bzero(g->token, sizeof g->token);
    free(g);
}

static struct login *login_new(struct gw_logins *l, gw_login_fn fn, void *arg)
{
    struct login *g = sl_alloc(sizeof *g);
    g->owner = l;
    g->fn = fn;
    g->arg = arg;
    g->work.data = g;
    g->all_next = l->all;
    if (l->all != NULL)
        l->all->all_before = g;
    l->all = g;
    return g;
}

static void login_settle(struct login *g, sl_err err)
{
    if (g->owner != NULL) {
        const struct gw_directory *dir = &g->owner->hub->cfg.directory;
        const struct gw_agent *agent =
            g->agent != NULL ? dir->agent(dir->arg, sl_str_c(g->tenant), sl_str_c(g->agent)) : NULL;
        if (err == SL_OK && agent == NULL)
            err = SL_EAUTH; /* taken out of the configuration meanwhile */
        if (err == SL_EAUTH)
            SL_COUNT("sluice_gateway_logins_total", "result=\"refused\"", "Logins of agents", 1);
        if (err == SL_OK)
            SL_COUNT("sluice_gateway_logins_total", "result=\"ok\"", "Logins of agents", 1);
        g->fn(g->arg, err, err == SL_OK ? g->token : NULL, agent);
    }
    login_free(g);
}

/* ---- the token ---- */

static void make_token(struct login *g)
{
    unsigned char raw[32];
    struct sl_buf b;
    sl_random_bytes(raw, sizeof raw);
    sl_buf_init(&b, GW_TOKEN_BYTES);
    sl_b64url(&b, sl_str_n((const char *)raw, sizeof raw));
    sl_assert(!b.overflow && b.len == GW_TOKEN_BYTES);
    memcpy(g->token, b.ptr, b.len);
    g->token[b.len] = '\0';
    explicit_bzero(b.ptr, b.len);
    sl_buf_fini(&b);
    explicit_bzero(raw, sizeof raw);
}

static void on_token_stored(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    (void)v;
    (void)why;
    login_settle(arg, err == SL_OK ? SL_OK : SL_EAGAIN);
}

/* One command, so that no token is ever left without an end. */
static void store_token(struct login *g)
{
    struct gw_hub *hub = g->owner->hub;
    struct bus_args *a = &hub->args;
    struct sl_buf value;
    struct sl_json j;
    make_token(g);
    struct key key = gw_login_key("login", sl_str_c(g->token));
    sl_buf_init(&value, 0);
    sl_json_begin(&j, &value);
    sl_json_open(&j, NULL, '{');
    sl_json_c(&j, "tenant", g->tenant);
    sl_json_c(&j, "agent", g->agent);
    sl_json_int(&j, "ends", sl_loop_unix_ms(hub->loop) + GW_LOGIN_LIFE_MS);
    sl_json_close(&j, '}');
    bus_args_clear(a);
    bus_args_c(a, "SET");
    bus_args_key(a, &key);
    bus_args_str(a, sl_buf_view(&value));
    bus_args_c(a, "PX");
    bus_args_int(a, GW_LOGIN_IDLE_MS);
    if (bus_command(hub->bus, a, BUS_DEADLINE_MS, on_token_stored, g) != SL_OK)
        login_settle(
            g,
            SL_EAGAIN); /* we are in a callback of the thread pool or the store, never in the asker's call */
    sl_buf_fini(&value);
}

/* ---- passwords ---- */

static void start_next(struct gw_logins *l);

static void in_thread(uv_work_t *work)
{
    struct login *g = work->data;
    g->is_right = sl_password_verify(g->hash, sl_str_c(g->password));
}

static void on_thread_done(uv_work_t *work, int status)
{
    struct login *g = work->data;
    struct gw_logins *l = g->owner;
    wipe(&g->password);
    if (l == NULL) {
        login_free(g);
        return;
    }
    l->running--;
    if (status == 0 && g->is_right && g->agent != NULL)
        store_token(g);
    else
        login_settle(g, SL_EAUTH);
    start_next(l);
}

static void start_next(struct gw_logins *l)
{
    while (l->running < GW_LOGIN_AT_ONCE && l->first_waiting != NULL) {
        struct login *g = l->first_waiting;
        l->first_waiting = g->next;
        if (l->first_waiting == NULL)
            l->last_waiting = NULL;
        l->waiting--;
        l->running++;
        sl_assert(uv_queue_work(sl_loop_uv(l->hub->loop), &g->work, in_thread, on_thread_done) == 0);
    }
    sl_gauge_set(l->waiting_gauge, (int64_t)l->waiting);
}

sl_err gw_login_password(struct gw_logins *l, struct sl_str tenant, struct sl_str name,
                         struct sl_str password, gw_login_fn fn, void *arg)
{
    const struct gw_directory *dir = &l->hub->cfg.directory;
    if (l->waiting >= GW_LOGIN_WAITING_MAX)
        return SL_ERATE;
    const struct gw_agent *agent = dir->agent(dir->arg, tenant, name);
    struct login *g = login_new(l, fn, arg);
    g->password = sl_str_dup(password);
    g->hash = sl_strdup(agent != NULL ? agent->password_hash : no_ones_hash);
    g->tenant = sl_str_dup(tenant);
    g->agent = agent != NULL ? sl_strdup(agent->id) : NULL;
    if (l->last_waiting != NULL)
        l->last_waiting->next = g;
    else
        l->first_waiting = g;
    l->last_waiting = g;
    l->waiting++;
    start_next(l);
    return SL_OK;
}

/* ---- once ---- */

static void on_once_taken(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct login *g = arg;
    (void)why;
    json_t *root =
        err == SL_OK && bus_value_str(v).len > 0 ? sl_json_parse(bus_value_str(v), NULL) : NULL; /* owned */
    if (g->owner == NULL) {
        login_free(g);
    } else if (root == NULL) {
        login_settle(g, err == SL_OK ? SL_EAUTH : SL_EAGAIN); /* unknown, or another was faster */
    } else {
        g->tenant = sl_str_dup(sl_json_get_str(root, "tenant"));
        g->agent = sl_str_dup(sl_json_get_str(root, "agent"));
        store_token(g);
    }
    json_decref(root);
}

sl_err gw_login_once(struct gw_logins *l, struct sl_str token, gw_login_fn fn, void *arg)
{
    struct bus_args *a = &l->hub->args;
    struct key key = gw_login_key("once", token);
    struct login *g = login_new(l, fn, arg);
    bus_args_clear(a);
    bus_args_c(a, "GETDEL");
    bus_args_key(a, &key);
    sl_err err = bus_command(l->hub->bus, a, BUS_DEADLINE_MS, on_once_taken, g);
    if (err != SL_OK)
        login_free(g);
    return err;
}

/* Whoever waits is told; what is in a thread or in the store's hands frees itself. */
void gw_logins_free(struct gw_logins **lp)
{
    struct gw_logins *l = *lp;
    *lp = NULL;
    if (l == NULL)
        return;
    for (struct login *g = l->all, *next; g != NULL; g = next) {
        next = g->all_next;
        g->owner = NULL;
        g->fn(g->arg, SL_ECLOSED, NULL, NULL);
    }
    for (struct login *g = l->first_waiting, *next; g != NULL; g = next) {
        next = g->next;
        login_free(g);
    }
    free(l);
}
