/* bus/module/module.c - the operations of functions.c inside Redis: the back end of store.h over the module interface.
 *
 * Commands  sluice.<operation> numkeys key ... arg ... : what FCALL <operation> says over Lua. sluice.packed_1.<operation> numkeys
 *           key ... pack : the same with all arguments in one (bus/pack.h). sluice.about_1 says which build it is.
 * Repeats   what an operation wrote is repeated (append-only file, replicas) as one command, which carries the clock and the entry
 *           ids the first run got; so a repeat writes the same bytes. Refusals leave no trace. sluice.apply_2 repeats a packed
 *           call (numkeys, keys, operation, clock, ids, pack), sluice.apply_1 one that came in many arguments.
 * Keys      are opened once a call (functions.c sees to it): two handles of one key would not know of each other.
 * Source    "Modules API reference", Redis 7.0 (src/module.c); third_party/redis/redismodule.h.
 */
#include "bus/functions.h"
#include "bus/pack.h"

#include "bus/operations.h"

/* One file sees the interface, so its table of pointers need not be shared. */
#define REDISMODULE_API  static
#define REDISMODULE_ATTR REDISMODULE_ATTR_UNUSED
#include <redismodule.h>

#include <math.h>

#define ARGS_BYTES_MAX                                                                                       \
    (256u << 20)     /* Redis itself refuses to append larger entries, in the middle of a commit */
#define APPLY_HEAD 3 /* name, clock, count of ids (apply_1) or the ids (apply_2) */
#define NAMES_KEPT 64
#define NAME_BYTES 8

__attribute__((visibility("default"))) int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv,
                                                              int argc);

/* A string of ours, to be freed when the call ends. */
struct kept {
    RedisModuleString *string;
    struct kept *next;
};
struct opened {
    RedisModuleKey *key;
    struct opened *next;
};
struct given_id {
    struct store_id id;
    struct given_id *next;
};

struct store {
    RedisModuleCtx *ctx;
    RedisModuleString **argv; /* the command as it came, and ... */
    const struct sl_str *str; /* ... the bytes of each argument; behind them those of a pack */
    size_t argc, whole;       /* strings in str; how many of them are in argv */
    RedisModuleString **made; /* of the others: NULL until Redis needs one */
    struct kept *kept;
    struct opened *opened;
    bool is_written, is_repeat;
    bool has_clock;
    int64_t clock_ms;
    struct given_id *first_id, *last_id; /* of entries that were appended */
    size_t ids;
    size_t next_id, ids_end; /* of a repeat: arguments that hold the ids still to be given, or ... */
    struct sl_str ids_left;  /* ... what is left of them in one */
    const struct sl_str *left_out, *left_out_to; /* a repeat reads "0" for these arguments */
};

static RedisModuleString *names[STORE_NAME_COUNT]; /* made when the module is loaded */

/* ---- memory of one call: Redis runs one at a time, so all share one block; what does not fit is Redis' own pool's ---- */

#define BLOCK_BYTES 262144
static struct {
    _Alignas(16) char bytes[BLOCK_BYTES];
    size_t used;
} block;

static void *take(struct store *s, size_t n)
{
    size_t rounded = (n + 15) & ~(size_t)15;
    if (rounded < n || rounded > sizeof block.bytes - block.used)
        return RedisModule_PoolAlloc(s->ctx, n);
    void *p = block.bytes + block.used;
    block.used += rounded;
    return p;
}

static void *pool(struct store *s, size_t n)
{
    void *p = take(s, n);
    memset(p, 0, n);
    return p;
}

/* ---- strings ---- */

static RedisModuleString *keep(struct store *s, RedisModuleString *string)
{
    struct kept *k = take(s, sizeof *k);
    *k = (struct kept){.string = string, .next = s->kept};
    s->kept = k;
    return string;
}

/* Names of fields are few and come back in every entry: the first ones stay for good. */
static struct {
    RedisModuleString *string;
    char bytes[NAME_BYTES];
} kept_names[NAMES_KEPT];

/* NULL: not one of those. */
static RedisModuleString *kept_name(struct sl_str name)
{
    char bytes[NAME_BYTES] = {0};
    uint64_t word = 0;
    if (name.len == 0 || name.len >= NAME_BYTES || name.ptr[name.len - 1] == '\0')
        return NULL;
    memcpy(bytes, name.ptr, name.len);
    memcpy(&word, bytes, sizeof word);
    size_t at = (size_t)((word * 0x9e3779b97f4a7c15ULL) >> 58);
    if (kept_names[at].string == NULL) {
        kept_names[at].string = RedisModule_CreateString(NULL, name.ptr, name.len);
        memcpy(kept_names[at].bytes, bytes, sizeof bytes);
    }
    return memcmp(kept_names[at].bytes, bytes, sizeof bytes) == 0 ? kept_names[at].string : NULL;
}

/* Of an argument that came in a pack. */
static RedisModuleString *made_of(struct store *s, size_t at, bool is_name)
{
    RedisModuleString **made = &s->made[at - s->whole];
    if (*made == NULL && is_name)
        *made = kept_name(s->str[at]);
    if (*made == NULL)
        *made = keep(s, RedisModule_CreateString(NULL, s->str[at].ptr, s->str[at].len));
    return *made;
}

/* Arguments and names are there already, or are made once; of anything else a copy is made. */
static RedisModuleString *string_of(struct store *s, const struct sl_str *p)
{
    if (p >= s->str && p < s->str + s->argc) {
        size_t at = (size_t)(p - s->str);
        return at < s->whole ? s->argv[at] : made_of(s, at, false);
    }
    if (p >= store_names && p < store_names + STORE_NAME_COUNT)
        return names[p - store_names];
    return keep(s, RedisModule_CreateString(NULL, p->ptr, p->len));
}

static struct sl_str view(const RedisModuleString *string)
{
    size_t len = 0;
    const char *p = RedisModule_StringPtrLen(string, &len);
    return sl_str_n(p, len);
}

/* ---- keys ---- */

int64_t store_now_ms(struct store *s)
{
    if (!s->has_clock && !s->is_repeat)
        s->clock_ms = RedisModule_Milliseconds();
    s->has_clock = true;
    return s->clock_ms;
}

void *store_take(struct store *s, size_t n)
{
    return pool(s, n);
}

static int type_in_redis(enum store_type type)
{
    switch (type) {
    case STORE_HASH:
        return REDISMODULE_KEYTYPE_HASH;
    case STORE_LIST:
        return REDISMODULE_KEYTYPE_LIST;
    case STORE_STREAM:
        return REDISMODULE_KEYTYPE_STREAM;
    case STORE_ZSET:
        return REDISMODULE_KEYTYPE_ZSET;
    }
    return REDISMODULE_KEYTYPE_EMPTY;
}

bool store_open(struct store_key *key, const struct sl_str *name)
{
    struct store *s = key->store;
    RedisModuleKey *handle =
        RedisModule_OpenKey(s->ctx, string_of(s, name), REDISMODULE_READ | REDISMODULE_WRITE);
    struct opened *o = take(s, sizeof *o);
    *o = (struct opened){.key = handle, .next = s->opened};
    s->opened = o;
    key->handle = handle;
    int type = RedisModule_KeyType(handle);
    return type == REDISMODULE_KEYTYPE_EMPTY || type == type_in_redis(key->type);
}

static RedisModuleKey *handle_of(const struct store_key *key)
{
    return key->handle;
}

static RedisModuleKey *to_write(const struct store_key *key)
{
    key->store->is_written = true;
    return key->handle;
}

void store_delete(struct store_key *key)
{
    (void)RedisModule_UnlinkKey(to_write(key));
}

void store_expire(struct store_key *key, int64_t ttl_ms, bool only_if_none)
{
    if (only_if_none && RedisModule_GetAbsExpire(handle_of(key)) != REDISMODULE_NO_EXPIRE)
        return;
    (void)RedisModule_SetAbsExpire(to_write(key), store_now_ms(key->store) + ttl_ms);
}

/* ---- hashes ---- */

bool store_hash_get(struct store_key *hash, const struct sl_str *field, struct sl_str *out)
{
    RedisModuleString *value = NULL;
    if (RedisModule_HashGet(handle_of(hash), REDISMODULE_HASH_NONE, string_of(hash->store, field), &value,
                            NULL) != REDISMODULE_OK ||
        value == NULL)
        return false;
    *out = view(keep(hash->store, value));
    return true;
}

void store_hash_set(struct store_key *hash, const struct sl_str *field, const struct sl_str *value)
{
    (void)RedisModule_HashSet(to_write(hash), REDISMODULE_HASH_NONE, string_of(hash->store, field),
                              string_of(hash->store, value), NULL);
}

void store_hash_del(struct store_key *hash, const struct sl_str *field)
{
    if (RedisModule_KeyType(handle_of(hash)) == REDISMODULE_KEYTYPE_EMPTY)
        return; /* HashSet would make the hash only to find it empty */
    (void)RedisModule_HashSet(to_write(hash), REDISMODULE_HASH_NONE, string_of(hash->store, field),
                              REDISMODULE_HASH_DELETE, NULL);
}

struct walk {
    void (*fn)(void *arg, const struct sl_str *field, const struct sl_str *value);
    void *arg;
};

static void on_pair(RedisModuleKey *key, RedisModuleString *field, RedisModuleString *value, void *arg)
{
    const struct walk *w = arg;
    struct sl_str f = view(field), v = value != NULL ? view(value) : SL_STR_NONE;
    (void)key;
    w->fn(w->arg, &f, &v);
}

void store_hash_walk(struct store_key *hash,
                     void (*fn)(void *arg, const struct sl_str *field, const struct sl_str *value), void *arg)
{
    struct walk w = {.fn = fn, .arg = arg};
    if (RedisModule_KeyType(handle_of(hash)) != REDISMODULE_KEYTYPE_HASH)
        return;
    RedisModuleScanCursor *cursor = RedisModule_ScanCursorCreate();
    while (RedisModule_ScanKey(handle_of(hash), cursor, on_pair, &w) != 0)
        continue;
    RedisModule_ScanCursorDestroy(cursor);
}

/* ---- lists ---- */

size_t store_list_len(struct store_key *list)
{
    return RedisModule_ValueLength(handle_of(list));
}

void store_list_push(struct store_key *list, const struct sl_str *value)
{
    (void)RedisModule_ListPush(to_write(list), REDISMODULE_LIST_TAIL, string_of(list->store, value));
}

void store_list_cut(struct store_key *list, size_t n)
{
    for (; n > 0; n--) {
        RedisModuleString *gone = RedisModule_ListPop(to_write(list), REDISMODULE_LIST_HEAD);
        if (gone == NULL)
            return;
        RedisModule_FreeString(NULL, gone);
    }
}

/* ---- streams ---- */

size_t store_stream_len(struct store_key *stream)
{
    return RedisModule_ValueLength(handle_of(stream));
}

static bool parse_id(struct sl_str text, struct store_id *out)
{
    const char *dash = memchr(text.ptr, '-', text.len);
    return dash != NULL && sl_str_uint(sl_str_n(text.ptr, (size_t)(dash - text.ptr)), &out->ms) == SL_OK &&
           sl_str_uint(sl_str_n(dash + 1, text.len - (size_t)(dash - text.ptr) - 1), &out->seq) == SL_OK;
}

static struct sl_str reply_text_at(RedisModuleCallReply *array, size_t i)
{
    RedisModuleCallReply *r = RedisModule_CallReplyArrayElement(array, i);
    size_t len = 0;
    const char *p = r != NULL && RedisModule_CallReplyType(r) == REDISMODULE_REPLY_STRING
                        ? RedisModule_CallReplyStringPtr(r, &len)
                        : NULL;
    return p != NULL ? sl_str_n(p, len) : SL_STR_NONE;
}

/* The interface does not tell the last id of a stream whose entries are gone; XINFO does. Only acquire asks. */
struct store_id store_stream_last(struct store_key *stream)
{
    struct store_id id = {0, 0};
    struct store *s = stream->store;
    if (RedisModule_KeyType(handle_of(stream)) != REDISMODULE_KEYTYPE_STREAM)
        return id;
    RedisModuleCallReply *info =
        RedisModule_Call(s->ctx, "XINFO", "cs", "STREAM", string_of(s, &stream->name));
    if (info == NULL || RedisModule_CallReplyType(info) != REDISMODULE_REPLY_ARRAY)
        return id;
    for (size_t i = 0; i + 1 < RedisModule_CallReplyLength(info); i += 2)
        if (sl_str_eq_c(reply_text_at(info, i), "last-generated-id") &&
            !parse_id(reply_text_at(info, i + 1), &id))
            id = (struct store_id){0, 0};
    RedisModule_FreeCallReply(info);
    return id;
}

static RedisModuleString **strings_of(struct store *s, const struct sl_str *item, size_t count)
{
    if (item >= s->str && item < s->str + s->argc) {
        size_t at = (size_t)(item - s->str);
        for (size_t i = 0; i < count && at >= s->whole; i++)
            (void)made_of(s, at + i, i % 2 == 0);
        return at < s->whole ? &s->argv[at] : &s->made[at - s->whole];
    }
    RedisModuleString **strings = pool(s, count * sizeof(RedisModuleString *));
    for (size_t i = 0; i < count; i++)
        strings[i] = keep(s, RedisModule_CreateString(NULL, item[i].ptr, item[i].len));
    return strings;
}

static void note_id(struct store *s, struct store_id id)
{
    struct given_id *g = take(s, sizeof *g);
    *g = (struct given_id){.id = id};
    if (s->last_id != NULL)
        s->last_id->next = g;
    else
        s->first_id = g;
    s->last_id = g;
    s->ids++;
}

/* Of a repeat: the id that the entry got the first time. */
static bool next_given(struct store *s, struct store_id *out)
{
    if (s->next_id < s->ids_end)
        return parse_id(s->str[s->next_id++], out);
    struct sl_str id = s->ids_left;
    const char *blank = memchr(id.ptr, ' ', id.len);
    if (blank != NULL)
        id.len = (size_t)(blank - id.ptr);
    size_t used = blank != NULL ? id.len + 1 : id.len;
    s->ids_left = sl_str_n(s->ids_left.ptr + used, s->ids_left.len - used);
    return parse_id(id, out);
}

struct store_id store_stream_add(struct store_key *stream, const struct sl_str *item, size_t count)
{
    struct store *s = stream->store;
    struct store_id given = {0, 0};
    RedisModuleStreamID id = {0, 0};
    int flags = REDISMODULE_STREAM_ADD_AUTOID;
    if (s->is_repeat && next_given(s, &given)) {
        id = (RedisModuleStreamID){given.ms, given.seq};
        flags = 0;
    }
    if (RedisModule_StreamAdd(to_write(stream), flags, &id, strings_of(s, item, count), (long)(count / 2)) !=
        REDISMODULE_OK) {
        RedisModule_Log(s->ctx, "warning", "sluice: an entry could not be appended to %.*s",
                        (int)(stream->name.len < 200 ? stream->name.len : 200), stream->name.ptr);
        return given;
    }
    given = (struct store_id){id.ms, id.seq};
    note_id(s, given);
    return given;
}

void store_stream_trim(struct store_key *stream, struct store_id min)
{
    RedisModuleStreamID id = {min.ms, min.seq};
    if (RedisModule_KeyType(handle_of(stream)) != REDISMODULE_KEYTYPE_STREAM)
        return;
    if (RedisModule_StreamTrimByID(handle_of(stream), 0, &id) > 0)
        stream->store->is_written = true;
}

bool store_stream_get(struct store_key *stream, struct store_id wanted, const struct sl_str **item,
                      size_t *count)
{
    struct store *s = stream->store;
    RedisModuleStreamID id = {wanted.ms, wanted.seq}, found;
    long fields = 0;
    struct sl_str *out = NULL;
    size_t n = 0;
    if (RedisModule_KeyType(handle_of(stream)) != REDISMODULE_KEYTYPE_STREAM ||
        RedisModule_StreamIteratorStart(handle_of(stream), 0, &id, &id) != REDISMODULE_OK)
        return false;
    if (RedisModule_StreamIteratorNextID(handle_of(stream), &found, &fields) == REDISMODULE_OK) {
        RedisModuleString *field, *value;
        out = pool(s, ((size_t)fields * 2 + 1) * sizeof *out);
        while (n < (size_t)fields * 2 &&
               RedisModule_StreamIteratorNextField(handle_of(stream), &field, &value) == REDISMODULE_OK) {
            out[n++] = view(keep(s, field));
            out[n++] = view(keep(s, value));
        }
    }
    (void)RedisModule_StreamIteratorStop(handle_of(stream));
    *item = out;
    *count = n;
    return out != NULL;
}

void store_stream_del(struct store_key *stream, struct store_id id)
{
    RedisModuleStreamID which = {id.ms, id.seq};
    (void)RedisModule_StreamDelete(to_write(stream), &which);
}

/* ---- sorted sets ---- */

void store_zset_set(struct store_key *zset, const struct sl_str *member, double score)
{
    (void)RedisModule_ZsetAdd(to_write(zset), score, string_of(zset->store, member), NULL);
}

void store_zset_del(struct store_key *zset, const struct sl_str *member)
{
    if (RedisModule_KeyType(handle_of(zset)) == REDISMODULE_KEYTYPE_ZSET)
        (void)RedisModule_ZsetRem(to_write(zset), string_of(zset->store, member), NULL);
}

bool store_zset_first(struct store_key *zset, struct sl_str *member, double *score)
{
    RedisModuleKey *z = handle_of(zset);
    if (RedisModule_KeyType(z) != REDISMODULE_KEYTYPE_ZSET ||
        RedisModule_ZsetFirstInScoreRange(z, -INFINITY, INFINITY, 0, 0) != REDISMODULE_OK)
        return false;
    RedisModuleString *first =
        RedisModule_ZsetRangeEndReached(z) ? NULL : RedisModule_ZsetRangeCurrentElement(z, score);
    RedisModule_ZsetRangeStop(z);
    if (first != NULL)
        *member = view(keep(zset->store, first));
    return first != NULL;
}

/* ---- listeners: those of a replica or of a file hear nothing ---- */

void store_publish(struct store *s, const struct sl_str *channel, const struct sl_str *payload)
{
    if (!s->is_repeat)
        (void)RedisModule_PublishMessage(s->ctx, string_of(s, channel), string_of(s, payload));
}

void store_leave_out(struct store *s, const struct sl_str *from, const struct sl_str *to)
{
    s->left_out = from;
    s->left_out_to = to;
}

/* ---- replies ---- */

void store_reply_error(struct store *s, const char *words)
{
    (void)RedisModule_ReplyWithError(s->ctx, words);
}

void store_reply_ok(struct store *s)
{
    (void)RedisModule_ReplyWithSimpleString(s->ctx, "OK");
}

void store_reply_text(struct store *s, struct sl_str text)
{
    (void)RedisModule_ReplyWithStringBuffer(s->ctx, text.ptr, text.len);
}

void store_reply_int(struct store *s, int64_t v)
{
    (void)RedisModule_ReplyWithLongLong(s->ctx, v);
}

void store_reply_array(struct store *s, size_t n)
{
    (void)RedisModule_ReplyWithArray(s->ctx, (long)n);
}

struct reply {
    struct store *store;
    long members;
};

static void on_reply_pair(void *arg, const struct sl_str *field, const struct sl_str *value)
{
    struct reply *r = arg;
    store_reply_text(r->store, *field);
    store_reply_text(r->store, *value);
    r->members += 2;
}

void store_reply_hash(struct store *s, struct store_key *hash)
{
    struct reply r = {.store = s};
    (void)RedisModule_ReplyWithArray(s->ctx, REDISMODULE_POSTPONED_LEN);
    store_hash_walk(hash, on_reply_pair, &r);
    RedisModule_ReplySetArrayLength(s->ctx, r.members);
}

/* ---- one call ---- */

static void *on_take(void *arg, size_t n)
{
    return take(arg, n);
}

/* The strings of the command as it came. is_packed: the last one is a pack, and what is in it follows. NULL, or what is wrong. */
static const char *store_begin(struct store *s, RedisModuleCtx *ctx, RedisModuleString **argv, int argc,
                               bool is_packed)
{
    size_t whole = (size_t)argc, packed = 0, bytes = 0;
    struct sl_str pack = view(argv[argc - 1]);
    block.used = 0; /* of the call before */
    *s = (struct store){.ctx = ctx, .argv = argv, .whole = whole, .ids_left = SL_STR_NONE};
    if (is_packed && !bus_pack_count(pack, &packed))
        return "BAD pack";
    s->argc = whole + packed;
    struct sl_str *str = take(s, s->argc * sizeof *str);
    for (size_t i = 0; i < whole; i++) {
        str[i] = view(argv[i]);
        bytes += str[i].len;
    }
    s->str = str;
    if (bytes > ARGS_BYTES_MAX)
        return "BAD size: more than 256 MiB of arguments";
    s->made = pool(s, packed * sizeof(RedisModuleString *));
    if (packed > 0 && !bus_pack_read(pack, ARGS_BYTES_MAX, str + whole, on_take, s))
        return "BAD pack";
    return NULL;
}

static void store_end(struct store *s)
{
    for (struct opened *o = s->opened; o != NULL; o = o->next)
        RedisModule_CloseKey(o->key);
    for (struct kept *k = s->kept; k != NULL; k = k->next)
        RedisModule_FreeString(NULL, k->string);
}

/* numkeys, keys, operation and clock: the beginning of both repeats. Returns how many strings. */
static size_t repeat_head(struct store *s, RedisModuleString **v, const char *operation, size_t keys)
{
    size_t n = 0;
    for (size_t i = 1; i < 2 + keys; i++)
        v[n++] = s->argv[i];
    v[n++] = keep(s, RedisModule_CreateString(NULL, operation, strlen(operation)));
    v[n++] = keep(s, RedisModule_CreateStringFromLongLong(NULL, s->clock_ms));
    return n;
}

/* ... count of ids, ids, arguments (those that only listeners want left out). */
static void repeat_elsewhere(struct store *s, const char *operation, size_t keys)
{
    size_t from = s->left_out != NULL ? (size_t)(s->left_out - s->str) : s->argc,
           to = s->left_out != NULL ? (size_t)(s->left_out_to - s->str) : s->argc;
    RedisModuleString **v = pool(s, (s->argc + s->ids + APPLY_HEAD + 1) * sizeof(RedisModuleString *));
    size_t n = repeat_head(s, v, operation, keys);
    v[n++] = keep(s, RedisModule_CreateStringFromLongLong(NULL, (long long)s->ids));
    for (const struct given_id *g = s->first_id; g != NULL; g = g->next)
        v[n++] = keep(s, RedisModule_CreateStringPrintf(NULL, "%llu-%llu", (unsigned long long)g->id.ms,
                                                        (unsigned long long)g->id.seq));
    for (size_t i = 2 + keys; i < from; i++)
        v[n++] = s->argv[i];
    if (from < to)
        v[n++] = keep(s, RedisModule_CreateStringFromLongLong(NULL, 0));
    for (size_t i = to; i < s->argc; i++)
        v[n++] = s->argv[i];
    (void)RedisModule_Replicate(s->ctx, "sluice.apply_1", "v", v, n);
}

/* "ms-seq ms-seq ...", as next_given reads them. */
static struct sl_str ids_text(struct store *s)
{
    size_t most = s->ids * (2 * SL_DIGITS_MAX + 2);
    char *text = take(s, most + 1), *at = text;
    for (const struct given_id *g = s->first_id; g != NULL; g = g->next) {
        char digits[2 * SL_DIGITS_MAX + 1], *end = digits + sizeof digits;
        char *start = sl_digits_before(end, g->id.seq);
        *--start = '-';
        start = sl_digits_before(start, g->id.ms);
        if (at > text)
            *at++ = ' ';
        memcpy(at, start, (size_t)(end - start));
        at += end - start;
    }
    return sl_str_n(text, (size_t)(at - text));
}

/* The pack as it came; for a file without what only listeners want. */
static RedisModuleString *pack_to_repeat(struct store *s)
{
    RedisModuleString *whole = s->argv[s->whole - 1];
    const struct sl_str zero = SL_STR("0");
    struct sl_str before, behind;
    if (s->left_out == NULL || s->left_out + 1 == s->left_out_to ||
        (RedisModule_GetContextFlags(s->ctx) & REDISMODULE_CTX_FLAGS_AOF) == 0)
        return whole;
    size_t from = (size_t)(s->left_out - s->str) - s->whole,
           to = (size_t)(s->left_out_to - s->str) - s->whole;
    if (!bus_pack_cut(view(whole), from, to, &before, &behind))
        return whole; /* longer than need be: listeners of a repeat hear nothing anyway */
    char *bytes = take(s, before.len + bus_pack_size(zero.len) + behind.len), *at = bytes;
    memcpy(at, before.ptr, before.len);
    at = bus_pack_put(at + before.len, zero);
    memcpy(at, behind.ptr, behind.len);
    return keep(s, RedisModule_CreateString(NULL, bytes, (size_t)(at - bytes) + behind.len));
}

static void repeat_packed_elsewhere(struct store *s, const char *operation, size_t keys)
{
    RedisModuleString **v = pool(s, (keys + 1 + APPLY_HEAD + 1) * sizeof(RedisModuleString *));
    size_t n = repeat_head(s, v, operation, keys);
    struct sl_str ids = ids_text(s);
    v[n++] = keep(s, RedisModule_CreateString(NULL, ids.ptr, ids.len));
    v[n++] = pack_to_repeat(s);
    (void)RedisModule_Replicate(s->ctx, "sluice.apply_2", "v", v, n);
}

/* How many keys follow argument 1; false: they do not fit. */
static bool keys_of(const struct store *s, uint64_t *keys)
{
    return s->whole > 2 && sl_str_uint(s->str[1], keys) == SL_OK && *keys <= s->whole - 2;
}

static int run(RedisModuleCtx *ctx, const struct functions_entry *f, RedisModuleString **argv, int argc,
               bool is_packed)
{
    struct store s;
    uint64_t keys = 0;
    const char *wrong = store_begin(&s, ctx, argv, argc, is_packed);
    if (wrong != NULL)
        return RedisModule_ReplyWithError(ctx, wrong);
    if (!keys_of(&s, &keys) || (is_packed && s.whole != 3 + keys))
        return RedisModule_ReplyWithError(ctx, "ERR Number of keys can't be greater than number of args");
    size_t at = is_packed ? s.whole : 2 + (size_t)keys;
    functions_run(f, &s, &s.str[2], (size_t)keys, &s.str[at], s.argc - at);
    if (s.is_written && is_packed)
        repeat_packed_elsewhere(&s, f->name, (size_t)keys);
    else if (s.is_written)
        repeat_elsewhere(&s, f->name, (size_t)keys);
    store_end(&s);
    return REDISMODULE_OK;
}

static const struct functions_entry *entry_named(struct sl_str name)
{
    for (size_t i = 0; i < FUNCTIONS_COUNT; i++)
        if (sl_str_eq_c(name, functions_table[i].name))
            return &functions_table[i];
    return NULL;
}

static int64_t clock_of(struct sl_str text)
{
    int64_t ms = 0;
    return sl_str_int(text, &ms) == SL_OK ? ms : 0;
}

/* Only from an append-only file or a primary: nobody else may choose ids and clocks. */
static bool may_repeat(RedisModuleCtx *ctx)
{
    return (RedisModule_GetContextFlags(ctx) &
            (REDISMODULE_CTX_FLAGS_LOADING | REDISMODULE_CTX_FLAGS_REPLICATED)) != 0;
}

static int refuse_repeat(RedisModuleCtx *ctx, const char *words)
{
    RedisModule_Log(ctx, "warning",
                    "sluice: a repeat that cannot be read: was it written by a newer version?");
    return RedisModule_ReplyWithError(ctx, words);
}

/* The arguments begin at `at`. */
static int repeat(struct store *s, const struct functions_entry *f, size_t keys, size_t at)
{
    s->is_repeat = true;
    s->clock_ms = clock_of(s->str[2 + keys + 1]);
    functions_run(f, s, &s->str[2], keys, &s->str[at], s->argc - at);
    if (!s->is_written || s->next_id != s->ids_end || s->ids_left.len > 0)
        RedisModule_Log(s->ctx, "warning", "sluice: a repeat of %s did not do what it did the first time",
                        f->name);
    store_end(s);
    return RedisModule_ReplicateVerbatim(s->ctx); /* on to the replicas of a replica, and to its own file */
}

static int on_apply_1(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
    struct store s;
    uint64_t keys = 0, ids = 0;
    const struct functions_entry *f = NULL;
    if (!may_repeat(ctx))
        return RedisModule_ReplyWithError(ctx, "ERR sluice.apply_1 is for append-only files and replicas");
    if (store_begin(&s, ctx, argv, argc, false) == NULL && keys_of(&s, &keys) &&
        s.argc > 2 + keys + APPLY_HEAD - 1 && sl_str_uint(s.str[2 + keys + 2], &ids) == SL_OK &&
        ids <= s.argc - 2 - keys - APPLY_HEAD)
        f = entry_named(s.str[2 + keys]);
    if (f == NULL)
        return refuse_repeat(ctx, "ERR sluice.apply_1 cannot be read");
    s.next_id = 2 + (size_t)keys + APPLY_HEAD;
    s.ids_end = s.next_id + (size_t)ids;
    return repeat(&s, f, (size_t)keys, s.ids_end);
}

static int on_apply_2(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
    struct store s;
    uint64_t keys = 0;
    const struct functions_entry *f = NULL;
    if (!may_repeat(ctx))
        return RedisModule_ReplyWithError(ctx, "ERR sluice.apply_2 is for append-only files and replicas");
    if (store_begin(&s, ctx, argv, argc, true) == NULL && keys_of(&s, &keys) &&
        s.whole == 2 + keys + APPLY_HEAD + 1)
        f = entry_named(s.str[2 + keys]);
    if (f == NULL)
        return refuse_repeat(ctx, "ERR sluice.apply_2 cannot be read");
    s.ids_left = s.str[2 + keys + 2];
    return repeat(&s, f, (size_t)keys, s.whole);
}

static int on_about(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
    (void)argv;
    if (argc != 1)
        return RedisModule_WrongArity(ctx);
    return RedisModule_ReplyWithSimpleString(ctx, SLUICE_VERSION " " BUS_OPERATIONS);
}

/* ---- the table of commands ---- */

#define OPERATIONS(X)                                                                                        \
    X(commit_1)                                                                                              \
    X(accept_1)                                                                                              \
    X(deliver_1) X(tick_1) X(renew_1) X(acquire_1) X(relay_1) X(release_1) X(trim_1) X(answer_1) X(redrive_1)
#define X(name)                                                                                              \
    static int on_##name(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)                            \
    {                                                                                                        \
        static const struct functions_entry *entry;                                                          \
        if (entry == NULL)                                                                                   \
            entry = entry_named(SL_STR(#name));                                                              \
        return run(ctx, entry, argv, argc, false);                                                           \
    }                                                                                                        \
    static int on_packed_##name(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)                     \
    {                                                                                                        \
        static const struct functions_entry *entry;                                                          \
        if (entry == NULL)                                                                                   \
            entry = entry_named(SL_STR(#name));                                                              \
        return run(ctx, entry, argv, argc, true);                                                            \
    }
OPERATIONS(X)
#undef X

static const struct {
    const char *name, *command;
    RedisModuleCmdFunc run;
} commands[] = {
#define X(name) {#name, "sluice." #name, on_##name}, {#name, "sluice.packed_1." #name, on_packed_##name},
    OPERATIONS(X)
#undef X
};

/* Keys follow their count, so a cluster can tell where a command belongs. */
static bool tell_keys(RedisModuleCtx *ctx, const char *name)
{
    RedisModuleCommandKeySpec specs[] = {
        {.flags = REDISMODULE_CMD_KEY_RW | REDISMODULE_CMD_KEY_ACCESS | REDISMODULE_CMD_KEY_UPDATE,
         .begin_search_type = REDISMODULE_KSPEC_BS_INDEX,
         .bs.index = {.pos = 1},
         .find_keys_type = REDISMODULE_KSPEC_FK_KEYNUM,
         .fk.keynum = {.keynumidx = 0, .firstkey = 1, .keystep = 1}},
        {.begin_search_type = REDISMODULE_KSPEC_BS_INVALID}};
    const RedisModuleCommandInfo info = {
        .version = REDISMODULE_COMMAND_INFO_VERSION, .arity = -2, .key_specs = specs};
    RedisModuleCommand *command = RedisModule_GetCommand(ctx, name);
    return command != NULL && RedisModule_SetCommandInfo(command, &info) == REDISMODULE_OK;
}

static bool make_command(RedisModuleCtx *ctx, const char *name, RedisModuleCmdFunc fn, const char *flags)
{
    return RedisModule_CreateCommand(ctx, name, fn, flags, 0, 0, 0) == REDISMODULE_OK && tell_keys(ctx, name);
}

int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
    (void)argv;
    if (argc != 0 || RedisModule_Init(ctx, "sluice", 1, REDISMODULE_APIVER_1) != REDISMODULE_OK)
        return REDISMODULE_ERR;
    if (RedisModule_SetCommandInfo == NULL) {
        RedisModule_Log(ctx, "warning", "sluice: needs Redis 7.0 or later");
        return REDISMODULE_ERR;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        const struct functions_entry *f = entry_named(sl_str_c(commands[i].name));
        if (f == NULL || !make_command(ctx, commands[i].command, commands[i].run,
                                       f->is_refused_when_full ? "write deny-oom" : "write"))
            return REDISMODULE_ERR;
    }
    if (!make_command(ctx, "sluice.apply_1", on_apply_1, "write") ||
        !make_command(ctx, "sluice.apply_2", on_apply_2, "write") ||
        RedisModule_CreateCommand(ctx, "sluice.about_1", on_about, "readonly fast", 0, 0, 0) !=
            REDISMODULE_OK)
        return REDISMODULE_ERR;
    for (size_t i = 0; i < STORE_NAME_COUNT; i++)
        names[i] = RedisModule_CreateString(NULL, store_names[i].ptr, store_names[i].len);
    return REDISMODULE_OK;
}
