#include "cli/story_phone.h"

#include "cli/tcp.h"

#include <stdio.h>
#include <stdlib.h>

#define WAIT_MS      2000 /* the simulators hold the question so long when there is nothing new */
#define ANSWER_MS    8000
#define AGAIN_MS     100 /* the simulators do not answer (yet) */
#define FAILURES_MAX 50
#define PATH_BYTES   200

struct cli_phone {
    struct sl_loop *loop;
    struct cli_phone_config cfg;
    const struct cli_phone_ops *ops;
    void *arg;
    struct cli_http *look, *say;
    struct sl_timer again, say_again;
    struct sl_buf body;
    size_t seen;
    unsigned failures, say_failures;
};

static void look(struct cli_phone *p);
static void post(struct cli_phone *p);

static void on_entries(void *arg, int status, struct sl_str body)
{
    struct cli_phone *p = arg;
    p->look = NULL;
    json_t *root = status == 200 ? sl_json_parse(body, NULL) : NULL; /* owned */
    if (root == NULL) {
        if (++p->failures == FAILURES_MAX)
            p->ops->failed(p->arg, "the simulator does not answer");
        else
            sl_timer_start(&p->again, AGAIN_MS);
        return;
    }
    p->failures = 0;
    look(p);
    for (size_t i = 0; i < json_array_size(root); i++) {
        const json_t *entry = json_array_get(root, i); /* borrowed */
        p->seen++;
        if (!sl_str_eq_c(sl_json_get_str(entry, "by"), "customer"))
            p->ops->shown(p->arg, entry);
    }
    json_decref(root);
}

/* The next question goes out with what was seen when it is asked: on_entries counts before the answer to it can come. */
static void on_again(void *arg)
{
    struct cli_phone *p = arg;
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, "/%s/customer/%s?after=%zu&wait=%d", p->cfg.channel, p->cfg.customer,
                   p->seen, WAIT_MS);
    p->look =
        cli_http_open(p->loop, p->cfg.ip, p->cfg.port, "GET", path, SL_STR_NONE, ANSWER_MS, on_entries, p);
}

static void look(struct cli_phone *p)
{
    sl_timer_start(&p->again, 0);
}

static void on_written(void *arg, int status, struct sl_str body)
{
    struct cli_phone *p = arg;
    p->say = NULL;
    if (status == 0 && ++p->say_failures < FAILURES_MAX) {
        sl_timer_start(&p->say_again, AGAIN_MS);
        return;
    }
    json_t *root = status == 200 ? sl_json_parse(body, NULL) : NULL; /* owned */
    const bool ok = root != NULL && sl_str_eq_c(sl_json_get_str(root, "answer"), "accepted");
    json_decref(root);
    p->ops->written(p->arg, ok);
}

static void post(struct cli_phone *p)
{
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, "/%s/customer", p->cfg.channel);
    p->say = cli_http_open(p->loop, p->cfg.ip, p->cfg.port, "POST", path, sl_buf_view(&p->body), ANSWER_MS,
                           on_written, p);
}

static void on_say_again(void *arg)
{
    post(arg);
}

struct cli_phone *cli_phone_open(struct sl_loop *l, const struct cli_phone_config *cfg,
                                 const struct cli_phone_ops *ops, void *arg)
{
    struct cli_phone *p = sl_alloc(sizeof *p);
    p->loop = l;
    p->cfg = *cfg;
    p->ops = ops;
    p->arg = arg;
    sl_buf_init(&p->body, 0);
    sl_timer_init(&p->again, l, on_again, p);
    sl_timer_init(&p->say_again, l, on_say_again, p);
    look(p);
    return p;
}

void cli_phone_say(struct cli_phone *p, struct sl_str text, struct sl_str menu)
{
    struct sl_json j;
    sl_assert(p->say == NULL);
    sl_buf_clear(&p->body);
    sl_json_begin(&j, &p->body);
    sl_json_open(&j, NULL, '{');
    sl_json_c(&j, "from", p->cfg.customer);
    sl_json_str(&j, "text", text);
    if (menu.len > 0)
        sl_json_str(&j, "menu_id", menu);
    sl_json_close(&j, '}');
    p->say_failures = 0;
    post(p);
}

void cli_phone_close(struct cli_phone **pp)
{
    struct cli_phone *p = *pp;
    *pp = NULL;
    if (p == NULL)
        return;
    cli_http_close(&p->look);
    cli_http_close(&p->say);
    sl_timer_stop(&p->again);
    sl_timer_stop(&p->say_again);
    sl_buf_fini(&p->body);
    free(p);
}
