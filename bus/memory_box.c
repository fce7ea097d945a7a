/* bus/memory_box.c - box_1 of functions.lua once more in C, check for check and write for write. */
#include "bus/memory_priv.h"

#define BOX_BYTES_MAX  65536
#define BOX_FIELDS_MAX 1000

static const struct {
    const char *name;
    size_t args;
} ops[] = {{"get", 2}, {"set", 3}, {"add", 3}, {"swap", 4}, {"drop", 3}, {"put", 4}};

static bool has_arguments(const struct sl_str *arg, size_t args)
{
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        if (sl_str_eq_c(arg[0], ops[i].name))
            return args == ops[i].args;
    return false;
}

static void keep_until(struct memory_data *d, struct sl_str key, int64_t ttl_ms)
{
    if (ttl_ms == 0)
        (void)memory_hash_del(d, key, SL_STR("u"));
    else
        memory_hash_set_int(d, key, SL_STR("u"), d->now_unix_ms + ttl_ms);
}

static redisReply *two(struct memory_arena *arena, const char *word, struct sl_str value)
{
    redisReply *r = memory_array(arena, 2);
    r->element[0] = memory_text(arena, sl_str_c(word));
    r->element[1] = memory_text(arena, value);
    return r;
}

static redisReply *map_of(const struct memory_data *d, struct memory_arena *arena, struct sl_str key)
{
    const struct memory_key *k = memory_find(d, key, MEMORY_HASH, NULL);
    struct sl_str name;
    void *value;
    size_t n = 1;
    redisReply *r = memory_array(arena, 1 + 2 * sl_map_count(k->map));
    r->element[0] = memory_text(arena, SL_STR("ok"));
    for (size_t i = 0; sl_map_next(k->map, &i, &name, &value);) {
        if (name.ptr[0] != 'f')
            continue;
        r->element[n++] = memory_text(arena, sl_str_n(name.ptr + 1, name.len - 1));
        r->element[n++] = memory_text(arena, memory_bytes_str(value));
    }
    r->elements = n;
    return r;
}

struct box {
    struct memory_data *d;
    struct memory_arena *arena;
    struct sl_str key, op, present;
    const struct sl_str *arg;
    bool is_over, has_value;
    int64_t ttl_ms;
};

static bool is_map_full(const struct box *b, struct sl_str field)
{
    const struct memory_key *k = memory_find(b->d, b->key, MEMORY_HASH, NULL);
    struct sl_str there;
    return !b->is_over && k != NULL && sl_map_count(k->map) >= BOX_FIELDS_MAX &&
           !memory_hash_get(b->d, b->key, field, &there);
}

static redisReply *put(struct box *b)
{
    struct sl_buf field;
    sl_buf_init(&field, 0);
    sl_buf_char(&field, 'f');
    sl_buf_str(&field, b->arg[2]);
    bool is_full = is_map_full(b, sl_buf_view(&field));
    if (!is_full) {
        if (b->is_over)
            memory_drop(b->d, b->key);
        (void)memory_hash_set(b->d, b->key, sl_buf_view(&field), b->arg[3]);
        keep_until(b->d, b->key, b->ttl_ms);
    }
    sl_buf_fini(&field);
    return is_full ? memory_error(b->arena, "TOOBIG a map of a box") : map_of(b->d, b->arena, b->key);
}

static redisReply *run(struct box *b)
{
    if (sl_str_eq_c(b->op, "get")) {
        redisReply *r = two(b->arena, b->has_value ? "ok" : "none", b->present);
        r->elements = b->has_value ? 2 : 1;
        return r;
    }
    if (sl_str_eq_c(b->op, "put"))
        return put(b);
    if ((sl_str_eq_c(b->op, "add") && b->has_value) ||
        (sl_str_eq_c(b->op, "swap") && !sl_str_eq(b->present, b->arg[3])))
        return two(b->arena, "conflict", b->present);
    bool is_drop = sl_str_eq_c(b->op, "drop");
    if (is_drop && b->has_value && b->arg[2].len > 0 && !sl_str_eq(b->present, b->arg[2]))
        return two(b->arena, "ok", b->present);
    if (b->is_over || is_drop)
        memory_drop(b->d, b->key);
    if (!is_drop) {
        (void)memory_hash_set(b->d, b->key, SL_STR("v"), b->arg[2]);
        keep_until(b->d, b->key, b->ttl_ms);
    }
    return two(b->arena, "ok", SL_STR_NONE);
}

redisReply *memory_box(struct memory_data *d, struct memory_arena *arena, const struct sl_str *key,
                       size_t keys, const struct sl_str *arg, size_t args)
{
    struct box b = {.d = d, .arena = arena, .arg = arg, .present = SL_STR_NONE};
    struct sl_str end;
    uint64_t ttl = 0;
    bool is_hash = true;
    if (keys != 1 || args < 2 || arg[1].len > 15 || sl_str_uint(arg[1], &ttl) != SL_OK ||
        !has_arguments(arg, args))
        return memory_error(arena, "BAD arguments of box_1");
    for (size_t i = 2; i < args; i++)
        if (arg[i].len > BOX_BYTES_MAX)
            return memory_error(arena, "TOOBIG a value of a box");
    b.key = key[0];
    b.op = arg[0];
    b.ttl_ms = (int64_t)ttl;
    (void)memory_find(d, b.key, MEMORY_HASH, &is_hash);
    if (!is_hash)
        return memory_error(arena, "BAD type of %.*s", (int)b.key.len, b.key.ptr);
    b.is_over = memory_hash_get(d, b.key, SL_STR("u"), &end) &&
                memory_hash_int(d, b.key, SL_STR("u")) <= d->now_unix_ms;
    b.has_value = !b.is_over && memory_hash_get(d, b.key, SL_STR("v"), &b.present);
    if (!b.has_value)
        b.present = SL_STR_NONE;
    return run(&b);
}
