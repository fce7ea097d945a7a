/* tests/contract/fake_services.c - shared values and media for adapters under test: in memory, answered on a later turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include <stdio.h>

#include "base/crypto.h"
#include "tests/contract/channel_case.h"

#define VALUES_MAX 256
#define CALLS_MAX  4096

struct value {
    char *name, *field; /* field NULL: a plain value */
    char *bytes;
    size_t len;
    uint64_t until_mono_ms; /* 0: for ever */
};
struct answer {
    chan_kv_fn kv;
    chan_media_fn media;
    void *arg;
    sl_err err;
    struct sl_buf bytes;
    struct chan_media what;
};

static struct {
    struct sl_loop *loop;
    struct sl_post turn;
    struct value value[VALUES_MAX];
    size_t values;
    struct answer *answer[CALLS_MAX];
    size_t answers;
} fake;

static void answer_all(void *arg)
{
    (void)arg;
    size_t count = fake.answers;
    for (size_t i = 0; i < count; i++) {
        struct answer *a = fake.answer[i];
        if (a->kv != NULL)
            a->kv(a->arg, a->err, sl_buf_view(&a->bytes));
        else
            a->media(a->arg, a->err, a->err == SL_OK ? &a->what : NULL, sl_buf_view(&a->bytes),
                     &(struct sl_fail){.code = a->err, .text = "fake"});
        sl_buf_fini(&a->bytes);
        free(a);
    }
    fake.answers -= count;
    memmove(fake.answer, fake.answer + count, fake.answers * sizeof fake.answer[0]);
    if (fake.answers > 0)
        sl_post_now(&fake.turn);
}

static struct answer *answer_later(void)
{
    assert_true(fake.answers < CALLS_MAX);
    struct answer *a = sl_alloc(sizeof *a);
    *a = (struct answer){.err = SL_OK};
    sl_buf_init(&a->bytes, 0);
    fake.answer[fake.answers++] = a;
    sl_post_now(&fake.turn);
    return a;
}

static void value_free(struct value *v)
{
    free(v->name);
    free(v->field);
    free(v->bytes);
}

void fake_services_open(struct sl_loop *loop)
{
    fake.loop = loop;
    fake.values = fake.answers = 0;
    sl_post_init(&fake.turn, loop, answer_all, NULL);
}

void fake_services_close(void)
{
    for (size_t i = 0; i < fake.answers; i++) {
        sl_buf_fini(&fake.answer[i]->bytes);
        free(fake.answer[i]);
    }
    for (size_t i = 0; i < fake.values; i++)
        value_free(&fake.value[i]);
    fake.values = fake.answers = 0;
}

static struct value *value_find(struct sl_str name, struct sl_str field)
{
    uint64_t now = sl_loop_mono_ms(fake.loop);
    for (size_t i = 0; i < fake.values; i++) {
        struct value *v = &fake.value[i];
        if (v->until_mono_ms != 0 && v->until_mono_ms <= now)
            continue;
        if (sl_str_eq_c(name, v->name) && sl_str_eq_c(field, v->field != NULL ? v->field : ""))
            return v;
    }
    return NULL;
}

static void value_set(struct sl_str name, struct sl_str field, struct sl_str bytes, int64_t ttl_ms)
{
    struct value *v = value_find(name, field);
    if (v == NULL) {
        assert_true(fake.values < VALUES_MAX);
        v = &fake.value[fake.values++];
        *v = (struct value){.name = sl_str_dup(name), .field = field.len > 0 ? sl_str_dup(field) : NULL};
    }
    free(v->bytes);
    v->bytes = sl_str_dup(bytes);
    v->len = bytes.len;
    v->until_mono_ms = ttl_ms > 0 ? sl_loop_mono_ms(fake.loop) + (uint64_t)ttl_ms : 0;
}

static void write_map(struct sl_str name, struct sl_buf *out)
{
    for (size_t i = 0; i < fake.values; i++) {
        const struct value *v = &fake.value[i];
        if (v->field == NULL || !sl_str_eq_c(name, v->name))
            continue;
        sl_buf_str(out, sl_str_n(v->field, strlen(v->field) + 1));
        sl_buf_str(out, sl_str_n(v->bytes, v->len + 1)); /* sl_str_dup ends with a NUL */
    }
}

sl_err fake_kv(struct chan *ch, const struct chan_kv *op, chan_kv_fn fn, void *arg)
{
    (void)ch;
    struct answer *a = answer_later();
    struct value *v = value_find(op->name, SL_STR_NONE);
    struct sl_str present = v != NULL ? sl_str_n(v->bytes, v->len) : SL_STR_NONE;
    a->kv = fn;
    a->arg = arg;
    bool is_set = op->op == CHAN_KV_SET || (op->op == CHAN_KV_ADD && v == NULL) ||
                  (op->op == CHAN_KV_SWAP && sl_str_eq(present, op->expected));
    bool is_drop =
        op->op == CHAN_KV_DROP && v != NULL && (op->expected.len == 0 || sl_str_eq(present, op->expected));
    if (op->op == CHAN_KV_PUT) {
        value_set(op->name, op->field, op->value, op->ttl_ms);
        write_map(op->name, &a->bytes);
        return SL_OK;
    }
    if (!is_set && !is_drop) {
        sl_buf_str(&a->bytes, present);
        a->err = op->op == CHAN_KV_GET    ? (v != NULL ? SL_OK : SL_ENOTFOUND)
                 : op->op == CHAN_KV_DROP ? SL_OK
                                          : SL_ECONFLICT;
    }
    if (is_set)
        value_set(op->name, SL_STR_NONE, op->value, op->ttl_ms);
    if (is_drop) {
        value_free(v);
        *v = fake.value[--fake.values];
    }
    return SL_OK;
}

static struct answer *media_answer(chan_media_fn fn, void *arg, struct sl_str type, struct sl_str name,
                                   int64_t size)
{
    struct answer *a = answer_later();
    a->media = fn;
    a->arg = arg;
    memset(a->what.id, 'a', 64);
    (void)snprintf(a->what.type, sizeof a->what.type, "%.*s", (int)type.len, type.ptr);
    (void)snprintf(a->what.name, sizeof a->what.name, "%.*s", (int)name.len, name.ptr);
    a->what.size = size;
    return a;
}

sl_err fake_media_put(struct chan *ch, struct sl_str bytes, struct sl_str type, struct sl_str name,
                      chan_media_fn fn, void *arg)
{
    (void)ch;
    (void)media_answer(fn, arg, type, name, (int64_t)bytes.len);
    return SL_OK;
}

sl_err fake_media_fetch(struct chan *ch, const struct chan_fetch *f, chan_media_fn fn, void *arg)
{
    (void)ch;
    assert_non_null(f->url);
    (void)media_answer(fn, arg, SL_STR("image/png"), SL_STR("fetched.png"), 4);
    return SL_OK;
}

sl_err fake_media_read(struct chan *ch, struct sl_str id, chan_media_fn fn, void *arg)
{
    (void)ch;
    assert_true(id.len > 0);
    sl_buf_c(&media_answer(fn, arg, SL_STR("image/png"), SL_STR("read.png"), 4)->bytes, "\x89PNG");
    return SL_OK;
}
