/* base/http_curl.c - libcurl's multi handle driven by libuv: one uv_poll_t a socket, one timer. */
#include "base/http_client_priv.h"

#include <stdlib.h>

#define IDLE_MAX_S                                                                                           \
    4L /* kept connections; servers close theirs after 5 s (Node) to 75 s (nginx): stay below */

struct watch {
    uv_poll_t poll;
    struct sl_curl *owner;
    curl_socket_t fd;
    struct watch *next, *before;
};

struct sl_curl {
    struct sl_loop *loop;
    struct sl_curl_events ev;
    void *arg;
    CURLM *multi; /* NULL: closed */
    struct sl_timer timer;
    struct watch *watches;
    unsigned open_handles;
};

static void check_done(struct sl_curl *c)
{
    int left;
    CURLMsg *m;
    while (c->multi != NULL && (m = curl_multi_info_read(c->multi, &left)) != NULL) {
        if (m->msg != CURLMSG_DONE)
            continue;
        CURL *easy = m->easy_handle;
        CURLcode result = m->data.result; /* m goes with the next call */
        curl_multi_remove_handle(c->multi, easy);
        c->ev.done(c->arg, easy, result);
    }
}

static void act(struct sl_curl *c, curl_socket_t fd, int bits)
{
    int running;
    (void)curl_multi_socket_action(c->multi, fd, bits, &running);
    check_done(c);
}

static void on_timeout(void *arg)
{
    act(arg, CURL_SOCKET_TIMEOUT, 0);
}

/* libcurl wants to be called after ms; it may ask from within our own calls, so never act here. */
static int on_timer_wanted(CURLM *multi, long ms, void *arg)
{
    struct sl_curl *c = arg;
    (void)multi;
    if (ms < 0)
        sl_timer_stop(&c->timer);
    else
        sl_timer_start(&c->timer, (uint64_t)ms);
    return 0;
}

static void free_when_over(struct sl_curl *c)
{
    if (c->multi != NULL || c->open_handles > 0)
        return;
    struct sl_curl_events ev = c->ev;
    void *arg = c->arg;
    free(c);
    ev.closed(arg);
}

static void on_watch_closed(uv_handle_t *h)
{
    struct watch *w = h->data;
    struct sl_curl *c = w->owner;
    free(w);
    c->open_handles--;
    free_when_over(c);
}

static void on_socket_ready(uv_poll_t *poll, int status, int events)
{
    struct watch *w = poll->data;
    int bits = (events & UV_READABLE ? CURL_CSELECT_IN : 0) | (events & UV_WRITABLE ? CURL_CSELECT_OUT : 0);
    act(w->owner, w->fd, status < 0 ? CURL_CSELECT_ERR : bits); /* w may be gone now */
}

static struct watch *watch_new(struct sl_curl *c, curl_socket_t fd)
{
    struct watch *w = sl_alloc(sizeof *w);
    if (uv_poll_init_socket(sl_loop_uv(c->loop), &w->poll, fd) != 0) {
        free(w);
        return NULL;
    }
    w->poll.data = w;
    w->owner = c;
    w->fd = fd;
    w->next = c->watches;
    if (c->watches != NULL)
        c->watches->before = w;
    c->watches = w;
    c->open_handles++;
    return w;
}

static void watch_close(struct watch *w)
{
    if (w->next != NULL)
        w->next->before = w->before;
    if (w->before != NULL)
        w->before->next = w->next;
    else
        w->owner->watches = w->next;
    (void)uv_poll_stop(&w->poll); /* before libcurl closes the descriptor: its number may come back at once */
    uv_close((uv_handle_t *)&w->poll, on_watch_closed);
}

static int on_socket_wanted(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
    struct sl_curl *c = arg;
    struct watch *w = socket_arg;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (w != NULL)
            watch_close(w);
        if (c->multi != NULL)
            (void)curl_multi_assign(c->multi, fd, NULL);
        return 0;
    }
    if (w == NULL) {
        w = watch_new(c, fd);
        if (w == NULL)
            return -1; /* libcurl gives the transfer up */
        (void)curl_multi_assign(c->multi, fd, w);
    }
    int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    return uv_poll_start(&w->poll, events, on_socket_ready) == 0 ? 0 : -1;
}

struct sl_curl *sl_curl_open(struct sl_loop *l, size_t max_connections, const struct sl_curl_events *ev,
                             void *arg)
{
    static bool is_ready;
    if (!is_ready)
        sl_assert(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
    is_ready = true;
    struct sl_curl *c = sl_alloc(sizeof *c);
    c->loop = l;
    c->ev = *ev;
    c->arg = arg;
    sl_timer_init(&c->timer, l, on_timeout, c);
    c->multi = curl_multi_init();
    sl_assert(c->multi != NULL);
    (void)curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, on_socket_wanted);
    (void)curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
    (void)curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, on_timer_wanted);
    (void)curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
    (void)curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, (long)max_connections);
    return c;
}

void sl_curl_add(struct sl_curl *c, CURL *easy)
{
    (void)curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, IDLE_MAX_S);
    sl_assert(curl_multi_add_handle(c->multi, easy) == CURLM_OK);
}

void sl_curl_remove(struct sl_curl *c, CURL *easy)
{
    (void)curl_multi_remove_handle(c->multi, easy);
}

void sl_curl_close(struct sl_curl **cp)
{
    struct sl_curl *c = *cp;
    *cp = NULL;
    if (c == NULL)
        return;
    CURLM *multi = c->multi;
    c->open_handles++;               /* it stays until the end of this function */
    (void)curl_multi_cleanup(multi); /* reports its sockets as removed */
    c->multi = NULL;
    sl_timer_stop(&c->timer);
    while (c->watches != NULL)
        watch_close(c->watches);
    c->open_handles--;
    free_when_over(c);
}
