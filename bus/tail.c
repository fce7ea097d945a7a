/* bus/tail.c - all command logs a process owns, read by one blocking XREAD.
 *
 * One read is in flight at a time; its answer moves each stream's position before the entries are handed over, and the next read
 * begins at once. After a lost connection reading goes on from the same positions: nothing is skipped, nothing comes twice.
 * A stream added while a read is in flight frees that read (CLIENT UNBLOCK). A stream that was removed, or removed and added again, meanwhile
 * does not get that read's entries: its position is another one now.
 */
#include "bus/bus_priv.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/map.h"
#include "base/metrics.h"

#include <stdlib.h>

#define TAIL_BLOCK_MS    1000
#define TAIL_MARGIN_MS   BUS_DEADLINE_MS
#define TAIL_RETRY_MS    50
#define TAIL_REFUSED_MS  1000
#define TAIL_REPLY_BYTES (4u << 20) /* a reply beyond it halves what the next read asks for of each stream */
#define TAIL_ID_MAX      48

struct tail_stream {
    char *name;
    size_t name_len;
    void *arg;
    char id[TAIL_ID_MAX]; /* of the last entry handed over */
    uint64_t read;        /* the last read that asked for it */
    bool is_paused;
    bool skip_one; /* mutant tail-skip */
};

struct bus_tail {
    struct bus_reader *reader;
    struct sl_loop *loop;
    size_t count_max, count_now; /* entries of one stream in one read */
    size_t reply_bytes;
    bus_tail_fn fn;
    void *arg;
    struct sl_map *by_name;
    struct tail_stream **streams; /* in order of adding */
    size_t count, cap;
    uint64_t read; /* counts reads */
    bool is_reading, is_closing, is_calling;
    struct sl_timer retry;
    struct sl_post run_post;
    struct bus_args args;
    struct bus_entry *entries; /* of the reply being handed over */
    size_t entry_cap;
    struct sl_str *items;
    size_t item_cap;
};

static void tail_run(struct bus_tail *t);

static void tail_free(struct bus_tail *t)
{
    for (size_t i = 0; i < t->count; i++) {
        free(t->streams[i]->name);
        free(t->streams[i]);
    }
    sl_map_free(&t->by_name);
    free(t->streams);
    bus_args_fini(&t->args);
    free(t->entries);
    free(t->items);
    free(t);
}

static void on_run(void *arg)
{
    struct bus_tail *t = arg;
    if (t->is_reading)
        bus_reader_unblock(t->reader);
    else
        tail_run(t);
}

static void on_retry(void *arg)
{
    tail_run(arg);
}

/* ---- handing over ---- */

static void reserve(void **p, size_t *cap, size_t wanted, size_t size)
{
    if (wanted <= *cap)
        return;
    *cap = wanted * 2;
    *p = sl_realloc(*p, *cap * size);
}

/* The entries of one stream: [[id, [name, value, ...]], ...]. Entries without fields (deleted ones) have count 0. */
static size_t decode_entries(struct bus_tail *t, const struct bus_value *list)
{
    size_t n = bus_value_count(list), items = 0, used = 0;
    for (size_t i = 0; i < n; i++)
        items += bus_value_count(bus_value_at(bus_value_at(list, i), 1));
    reserve((void **)&t->entries, &t->entry_cap, n, sizeof(*t->entries));
    reserve((void **)&t->items, &t->item_cap, items, sizeof(*t->items));
    for (size_t i = 0; i < n; i++) {
        const struct bus_value *entry = bus_value_at(list, i), *fields = bus_value_at(entry, 1);
        t->entries[i] = (struct bus_entry){.id = bus_value_str(bus_value_at(entry, 0)),
                                           .count = bus_value_count(fields),
                                           .item = t->items + used};
        for (size_t j = 0; j < t->entries[i].count; j++)
            t->items[used++] = bus_value_str(bus_value_at(fields, j));
    }
    for (size_t i = 0; i < used; i++)
        t->reply_bytes += t->items[i].len;
    return n;
}

static void set_id(struct tail_stream *s, struct sl_str id)
{
    sl_assert(id.len < sizeof(s->id)); /* two 64-bit numbers and a dash: 41 bytes */
    memcpy(s->id, id.ptr, id.len);
    s->id[id.len] = '\0';
}

static void take_stream(struct bus_tail *t, const struct bus_value *name_and_list)
{
    struct tail_stream *s = sl_map_get(t->by_name, bus_value_str(bus_value_at(name_and_list, 0)));
    size_t first = 0;
    if (s == NULL || s->read != t->read)
        return;
    size_t n = decode_entries(t, bus_value_at(name_and_list, 1));
    if (n == 0)
        return;
    set_id(s, t->entries[n - 1].id);
    if (s->skip_one)
        first = 1;
    s->skip_one = false;
    if (n > first)
        t->fn(t->arg, s->arg, t->entries + first, n - first);
}

static void after_loss(struct bus_tail *t)
{
    for (size_t i = 0; i < t->count && sl_mutant("tail-skip"); i++)
        t->streams[i]->skip_one = true;
}

/* A key of the wrong type, say: one stream spoils the read for all, so somebody has to look. */
static uint64_t after_error(struct bus_tail *t, sl_err err, const struct sl_fail *why)
{
    if (err == SL_ECLOSED || err == SL_ETIMEOUT)
        after_loss(t);
    if (err != SL_EREFUSED)
        return TAIL_RETRY_MS;
    sl_log(SL_ERROR, "tail: reading command logs is refused", SL_KV_FAIL(why));
    return TAIL_REFUSED_MS;
}

/* COUNT is for each stream, and an entry may be large: keep a reply of many streams within reason. */
static void adapt_count(struct bus_tail *t)
{
    if (t->reply_bytes > TAIL_REPLY_BYTES)
        t->count_now = t->count_now > 1 ? t->count_now / 2 : 1;
    else if (t->reply_bytes < TAIL_REPLY_BYTES / 4)
        t->count_now = t->count_now * 2 < t->count_max ? t->count_now * 2 : t->count_max;
}

static void on_tail_reply(void *arg, sl_err err, const struct bus_value *v, const struct sl_fail *why)
{
    struct bus_tail *t = arg;
    t->is_reading = false;
    if (t->is_closing) {
        tail_free(t);
        return;
    }
    if (err != SL_OK) {
        sl_timer_start(&t->retry, after_error(t, err, why));
        return;
    }
    t->is_calling = true;
    t->reply_bytes = 0;
    for (size_t i = 0; i < bus_value_count(v) && !t->is_closing; i++)
        take_stream(t, bus_value_at(v, i));
    t->is_calling = false;
    adapt_count(t);
    if (t->is_closing)
        tail_free(t);
    else
        tail_run(t);
}

/* ---- reading ---- */

static size_t build_read(struct bus_tail *t)
{
    struct bus_args *a = &t->args;
    size_t n = 0;
    bus_args_clear(a);
    bus_args_c(a, "XREAD");
    bus_args_c(a, "COUNT");
    bus_args_int(a, (int64_t)t->count_now);
    bus_args_c(a, "BLOCK");
    bus_args_int(a, TAIL_BLOCK_MS);
    bus_args_c(a, "STREAMS");
    for (size_t i = 0; i < t->count; i++) {
        struct tail_stream *s = t->streams[i];
        s->read = 0;
        if (s->is_paused)
            continue;
        s->read = t->read;
        bus_args_str(a, sl_str_n(s->name, s->name_len));
        n++;
    }
    for (size_t i = 0; i < t->count; i++)
        if (t->streams[i]->read == t->read)
            bus_args_c(a, t->streams[i]->id);
    return n;
}

static void tail_run(struct bus_tail *t)
{
    if (t->is_reading || t->is_closing || t->is_calling)
        return;
    t->read++;
    if (build_read(t) == 0)
        return; /* until add or pause(false) */
    sl_timer_stop(&t->retry);
    if (bus_reader_command(t->reader, &t->args, TAIL_BLOCK_MS + TAIL_MARGIN_MS, on_tail_reply, t) == SL_OK)
        t->is_reading = true;
    else
        sl_timer_start(&t->retry, TAIL_RETRY_MS);
}

/* ---- the set of streams ---- */

static void changed(struct bus_tail *t)
{
    sl_post_now(&t->run_post);
}

static void show_count(const struct bus_tail *t)
{
    sl_gauge_set(sl_gauge("sluice_tail_streams", "", "Command logs this process reads"), (int64_t)t->count);
}

void bus_tail_add(struct bus_tail *t, struct sl_str stream, struct sl_str after_id, void *stream_arg)
{
    sl_assert(sl_map_get(t->by_name, stream) == NULL);
    struct tail_stream *s = sl_alloc(sizeof(*s));
    s->name = sl_str_dup(stream);
    s->name_len = stream.len;
    s->arg = stream_arg;
    set_id(s, after_id);
    if (t->count == t->cap) {
        t->cap = t->cap == 0 ? 16 : t->cap * 2;
        t->streams = sl_realloc(t->streams, t->cap * sizeof(struct tail_stream *));
    }
    t->streams[t->count++] = s;
    (void)sl_map_set(t->by_name, stream, s);
    show_count(t);
    changed(t);
}

void bus_tail_remove(struct bus_tail *t, struct sl_str stream)
{
    struct tail_stream *s = sl_map_del(t->by_name, stream);
    size_t i = 0;
    if (s == NULL)
        return;
    while (t->streams[i] != s)
        i++;
    memmove(t->streams + i, t->streams + i + 1, (t->count - i - 1) * sizeof(struct tail_stream *));
    t->count--;
    free(s->name);
    free(s);
    show_count(t);
}

void bus_tail_pause(struct bus_tail *t, struct sl_str stream, bool is_paused)
{
    struct tail_stream *s = sl_map_get(t->by_name, stream);
    if (s == NULL || s->is_paused == is_paused)
        return;
    s->is_paused = is_paused;
    if (!is_paused)
        changed(t);
}

/* ---- open and close ---- */

struct bus_tail *bus_tail_open(struct bus *b, size_t count_max, bus_tail_fn fn, void *arg)
{
    struct bus_tail *t = sl_alloc(sizeof(*t));
    t->loop = b->loop;
    t->count_max = t->count_now = count_max;
    t->fn = fn;
    t->arg = arg;
    t->by_name = sl_map_new();
    bus_args_init(&t->args);
    sl_timer_init(&t->retry, b->loop, on_retry, t);
    sl_post_init(&t->run_post, b->loop, on_run, t);
    t->reader = bus_reader_open(b);
    return t;
}

void bus_tail_close(struct bus_tail **tp)
{
    struct bus_tail *t = *tp;
    *tp = NULL;
    if (t == NULL)
        return;
    t->is_closing = true;
    sl_timer_stop(&t->retry);
    sl_post_cancel(&t->run_post);
    bus_reader_close(&t->reader); /* a read in flight comes back with SL_ECLOSED */
    if (!t->is_reading && !t->is_calling)
        tail_free(t);
}
