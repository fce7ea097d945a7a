/* bus/memory_functions.c - the Functions of functions.lua once more in C, check for check and write for
 * write.
 *
 * Rule     the Lua is the original: whoever changes one changes both; tests/contract runs the same cases
 * against either. Form     each Function validates first and writes last. keys and arg point into the call's
 * arguments.
 */
#include "base/fault.h"

#include "bus/memory_priv.h"

#include <stdio.h>
#include <stdlib.h>

#define STRINGS_MAX        4000
#define IN_LOG             1e15  /* score of a timer whose event stands in the command log */
#define SESSION_ANSWERS    16    /* a session remembers the entries of its last frames */
#define FIELD_BYTES_MAX    65536 /* one value of an answer */
#define ANSWER_BYTES_MAX   131072
#define ANSWER_STRINGS_MAX 64
#define ANSWER_LOG_MAX     100000
#define MAY_HOLD_MAX       50000 /* a log longer than this is not kept for readers of class may */
#define TICK_MAX           1000
#define TRIM_EVERY         64 /* facts delivered to a stream that is trimmed by time */

struct function_call {
    struct memory_data *data;
    struct memory_arena *arena;
    const struct sl_str *key, *arg;
    size_t keys, args;
};
/* Where a counted list of arguments lies. */
struct section {
    size_t first, count, after;
};

/* ---- small helpers ---- */

static redisReply *refuse(struct function_call *f, const char *words)
{
    return memory_error(f->arena, "%s", words);
}

static redisReply *fenced(struct function_call *f)
{
    return refuse(f, "FENCED another owner holds this partition");
}

/* A non-negative integer written in at most 15 digits. */
static bool integer_of(struct sl_str s, int64_t *out)
{
    int64_t v = 0;
    if (s.len == 0 || s.len > 15)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
        v = v * 10 + (s.ptr[i] - '0');
    }
    *out = v;
    return true;
}

static bool integer_arg(const struct function_call *f, size_t at, int64_t *out)
{
    return at < f->args && integer_of(f->arg[at], out);
}

static bool entry_id_of(struct sl_str s, struct memory_id *out)
{
    size_t dash = 0;
    int64_t ms = 0, seq = 0;
    if (!sl_str_find(s, SL_STR("-"), &dash) || !integer_of(sl_str_n(s.ptr, dash), &ms) ||
        !integer_of(sl_str_n(s.ptr + dash + 1, s.len - dash - 1), &seq))
        return false;
    *out = (struct memory_id){(uint64_t)ms, (uint64_t)seq};
    return true;
}

static struct memory_id entry_id_or_zero(struct sl_str s)
{
    struct memory_id id;
    return entry_id_of(s, &id) ? id : (struct memory_id){0, 0};
}

static bool is_before(struct memory_id a, struct memory_id b)
{
    return memory_id_compare(a, b) < 0;
}

static bool is_type(const struct function_call *f, struct sl_str key, enum memory_type type)
{
    bool ok = true;
    (void)memory_find(f->data, key, type, &ok);
    return ok;
}

static bool are_types(const struct function_call *f, const enum memory_type *types, size_t n, size_t *bad)
{
    for (size_t i = 0; i < n; i++) {
        if (is_type(f, f->key[i], types[i]))
            continue;
        *bad = i;
        return false;
    }
    return true;
}

static redisReply *bad_type_of(struct function_call *f, struct sl_str key)
{
    return memory_error(f->arena, "BAD type of %.*s", (int)key.len, key.ptr);
}

static redisReply *text_of(struct function_call *f, struct memory_id id)
{
    char text[MEMORY_ID_BYTES];
    return memory_text(f->arena, memory_id_text(id, text));
}

static redisReply *pair_of(struct function_call *f, const char *word, redisReply *second)
{
    redisReply *r = memory_array(f->arena, 2);
    r->element[0] = memory_text(f->arena, sl_str_c(word));
    r->element[1] = second;
    return r;
}

static struct memory_id last_id(const struct function_call *f, struct sl_str stream)
{
    const struct memory_key *k = memory_find(f->data, stream, MEMORY_STREAM, NULL);
    return k != NULL ? k->stream.last : (struct memory_id){0, 0};
}

static redisReply *next_due(struct function_call *f, struct sl_str timers)
{
    const struct memory_key *k = memory_find(f->data, timers, MEMORY_ZSET, NULL);
    char text[32];
    if (k == NULL || k->zset.count == 0 || k->zset.item[0].score >= IN_LOG)
        return memory_text(f->arena, SL_STR_NONE);
    int n = snprintf(text, sizeof text, "%.0f", k->zset.item[0].score);
    return memory_text(f->arena, sl_str_n(text, (size_t)n));
}

static bool has_value(const struct function_call *f, struct sl_str key, const char *field,
                      struct sl_str wanted)
{
    struct sl_str v = SL_STR_NONE;
    return memory_hash_get(f->data, key, sl_str_c(field), &v) && sl_str_eq(v, wanted);
}

/* The lease epoch and the run id are what makes a writer the owner; argument 0 and 1 of every fenced
 * Function. */
static bool is_owner(const struct function_call *f)
{
    return f->args > 1 && has_value(f, f->key[0], "epoch", f->arg[0]) &&
           has_value(f, f->key[0], "run", f->arg[1]);
}

/* A count at `at`, then count items of `width` arguments. */
static bool section_at(const struct function_call *f, size_t at, size_t width, struct section *out)
{
    int64_t count = 0;
    if (!integer_arg(f, at, &count) || at + (size_t)count * width >= f->args)
        return false;
    *out = (struct section){at + 1, (size_t)count, at + 1 + (size_t)count * width};
    return true;
}

/* Name and value pairs for one XADD: a count of strings, then the strings. */
static bool pairs_at(const struct function_call *f, size_t at, struct section *out)
{
    return section_at(f, at, 1, out) && out->count % 2 == 0 && out->count <= STRINGS_MAX;
}

static bool is_relay_ok(const struct function_call *f, const struct section *s)
{
    for (size_t i = s->first; i < s->first + 2 * s->count; i += 2) {
        struct memory_id id;
        int64_t number = 0;
        if (sl_str_eq_c(f->arg[i], "@") ? !entry_id_of(f->arg[i + 1], &id) : !integer_arg(f, i + 1, &number))
            return false;
    }
    return true;
}

static void write_relay(struct function_call *f, struct sl_str relay, const struct section *s)
{
    for (size_t i = s->first; i < s->first + 2 * s->count; i += 2)
        (void)memory_hash_set(f->data, relay, f->arg[i], f->arg[i + 1]);
}

/* ---- accept: check for repeats, order, room and rate; append ---- */

struct accept {
    int64_t number, cap, rate, burst;
    double tokens;
    bool has_tokens;
    struct section fields;
};

static struct sl_str session_slot(int64_t number, char out[16])
{
    int n = snprintf(out, 16, "e%d", (int)(number % SESSION_ANSWERS));
    return sl_str_n(out, (size_t)n);
}

/* The id of that command, as its sender named it. */
static struct sl_str session_name(int64_t number, char out[16])
{
    int n = snprintf(out, 16, "i%d", (int)(number % SESSION_ANSWERS));
    return sl_str_n(out, (size_t)n);
}

/* What the session's token bucket holds now, and how long until it holds one. */
static double tokens_now(struct function_call *f, const struct accept *in, int64_t burst, int64_t *retry_ms)
{
    struct sl_str stored = SL_STR_NONE, at = SL_STR_NONE;
    char text[64] = "";
    double tokens = (double)burst;
    if (memory_hash_get(f->data, f->key[1], SL_STR("k"), &stored) &&
        memory_hash_get(f->data, f->key[1], SL_STR("t"), &at) && stored.len < sizeof text) {
        int64_t since = f->data->now_unix_ms - memory_hash_int(f->data, f->key[1], SL_STR("t"));
        memcpy(text, stored.ptr, stored.len);
        tokens = strtod(text, NULL) + (double)(since > 0 ? since : 0) * (double)in->rate / 1000;
        tokens = tokens > (double)burst ? (double)burst : tokens;
    }
    double wait = (1 - tokens) * 1000 / (double)(in->rate > 1 ? in->rate : 1);
    *retry_ms = (int64_t)wait + (wait > (double)(int64_t)wait ? 1 : 0);
    return tokens;
}

/* The sender's own id among the event's names and values; empty when it has none. */
static struct sl_str accept_id(struct function_call *f, const struct accept *in)
{
    for (size_t i = in->fields.first; i + 1 < in->fields.after; i += 2) {
        if (sl_str_eq_c(f->arg[i], "id"))
            return f->arg[i + 1];
    }
    return SL_STR_NONE;
}

/* NULL: go on and append. */
static redisReply *accept_by_number(struct function_call *f, struct accept *in)
{
    char slot[16];
    if (f->keys < 2 || !integer_arg(f, 1, &in->number) || in->number == 0)
        return refuse(f, "BAD number");
    int64_t last = memory_hash_int(f->data, f->key[1], SL_STR("n"));
    if (in->number <= last) {
        struct sl_str entry = SL_STR_NONE, id;
        bool is_known = in->number > last - SESSION_ANSWERS;
        if (is_known && memory_hash_get(f->data, f->key[1], session_name(in->number, slot), &id) &&
            !sl_str_eq(id, accept_id(f, in)))
            return memory_error(f->arena, "CONFLICT another command has this number");
        if (is_known)
            (void)memory_hash_get(f->data, f->key[1], session_slot(in->number, slot), &entry);
        return pair_of(f, "dup", memory_text(f->arena, entry));
    }
    if (in->number > last + 1)
        return memory_error(f->arena, "GAP %lld", (long long)last);
    if (in->rate > 0) {
        int64_t retry_ms = 0;
        in->tokens = tokens_now(f, in, in->burst > 1 ? in->burst : 1, &retry_ms);
        in->has_tokens = true;
        if (in->tokens < 1)
            return memory_error(f->arena, "RATE %lld", (long long)retry_ms);
    }
    return NULL;
}

static redisReply *accept_by_id(struct function_call *f)
{
    if (f->keys < 2)
        return refuse(f, "BAD buckets");
    for (size_t i = 1; i < f->keys; i++) {
        struct sl_str entry = SL_STR_NONE;
        if (memory_hash_get(f->data, f->key[i], f->arg[1], &entry))
            return pair_of(f, "dup", memory_text(f->arena, entry));
    }
    return NULL;
}

static void remember_number(struct function_call *f, const struct accept *in, struct sl_str entry)
{
    char slot[16], tokens[32];
    memory_hash_set_int(f->data, f->key[1], SL_STR("n"), in->number);
    (void)memory_hash_set(f->data, f->key[1], session_slot(in->number, slot), entry);
    (void)memory_hash_set(f->data, f->key[1], session_name(in->number, slot), accept_id(f, in));
    if (!in->has_tokens)
        return;
    int n = snprintf(tokens, sizeof tokens, "%.3f", in->tokens - 1);
    (void)memory_hash_set(f->data, f->key[1], SL_STR("k"), sl_str_n(tokens, (size_t)n));
    memory_hash_set_int(f->data, f->key[1], SL_STR("t"), f->data->now_unix_ms);
}

static redisReply *run_accept(struct function_call *f)
{
    struct accept in = {0};
    int64_t ttl = 0;
    if (f->keys < 1 || !integer_arg(f, 2, &in.cap) || !integer_arg(f, 3, &in.rate) ||
        !integer_arg(f, 4, &in.burst) || !integer_arg(f, 5, &ttl) || !pairs_at(f, 6, &in.fields) ||
        in.fields.count == 0 || in.fields.after != f->args)
        return refuse(f, "BAD counts");
    bool by_number = sl_str_eq_c(f->arg[0], "n"), by_id = sl_str_eq_c(f->arg[0], "i");
    if (!by_number && !by_id && !sl_str_eq_c(f->arg[0], "-"))
        return refuse(f, "BAD mode");
    redisReply *early = by_number ? accept_by_number(f, &in) : by_id ? accept_by_id(f) : NULL;
    if (early != NULL)
        return early;
    size_t length = memory_stream_len(f->data, f->key[0]);
    if ((int64_t)length >= in.cap)
        return memory_error(f->arena, "FULL %zu", length);
    char text[MEMORY_ID_BYTES];
    struct memory_id id = memory_stream_add(f->data, f->key[0], &f->arg[in.fields.first], in.fields.count);
    struct sl_str entry = memory_id_text(id, text);
    if (by_number)
        remember_number(f, &in, entry);
    else if (by_id)
        (void)memory_hash_set(f->data, f->key[1], f->arg[1], entry);
    return pair_of(f, "ok", memory_text(f->arena, entry));
}

/* ---- the lease ---- */

/* How often was the partition taken over at this very offset with entries pending? */
static int64_t count_try(struct function_call *f, struct sl_str run, struct sl_str offset, bool has_pending)
{
    if (!has_pending)
        return 0;
    int64_t tries = memory_hash_int(f->data, f->key[0], SL_STR("tries"));
    if (!has_value(f, f->key[0], "tried", offset))
        return 1;
    if (has_value(f, f->key[0], "run", run))
        return tries > 1 ? tries : 1;
    return tries + 1;
}

static redisReply *flat_of(struct function_call *f, struct sl_str hash)
{
    const struct sl_str arg[2] = {SL_STR("HGETALL"), hash};
    struct memory_call c = {.data = f->data, .arena = f->arena, .arg = arg, .count = 2};
    return memory_run(&c);
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static redisReply *run_acquire(struct function_call *f)
{
    int64_t clock = 0, lease = 0, time = f->data->now_unix_ms;
    if (f->keys < 5 || f->args < 4 || f->arg[0].len == 0 || !integer_arg(f, 1, &clock) ||
        !integer_arg(f, 2, &lease))
        return refuse(f, "BAD arguments");
    struct sl_str meta = f->key[0], run = f->arg[0], holder = SL_STR_NONE, offset = SL_STR("0-0"),
                  gen_text = SL_STR_NONE;
    int64_t left = memory_hash_int(f->data, meta, SL_STR("until")) - time;
    if (memory_hash_get(f->data, meta, SL_STR("run"), &holder) && !sl_str_eq(holder, run) && left > 0) {
        redisReply *held = memory_array(f->arena, 3);
        held->element[0] = memory_text(f->arena, SL_STR("held"));
        held->element[1] = memory_text(f->arena, holder);
        held->element[2] = memory_int(f->arena, left);
        return held;
    }
    (void)memory_hash_get(f->data, meta, SL_STR("offset"), &offset);
    struct memory_id last = last_id(f, f->key[1]), at = entry_id_or_zero(offset);
    bool is_lost = sl_str_eq_c(f->arg[3], "1"),
         has_gen = memory_hash_get(f->data, meta, SL_STR("gen"), &gen_text);
    int64_t epoch = larger(memory_hash_int(f->data, meta, SL_STR("epoch")) + 1, time);
    if (is_before(last, at)) { /* entries of a slower clock would lie before the offset, never to be read */
        is_lost = true;
        at = last;
    }
    char at_text[MEMORY_ID_BYTES];
    offset = memory_id_text(at, at_text);
    int64_t gen = is_lost || !has_gen ? epoch : memory_hash_int(f->data, meta, SL_STR("gen"));
    int64_t tries = count_try(f, run, offset, is_before(at, last));
    int64_t now = larger(memory_hash_int(f->data, meta, SL_STR("now")), clock < time ? clock : time);
    redisReply *r = memory_array(f->arena, 10);
    r->element[0] = memory_text(f->arena, SL_STR("ok"));
    r->element[1] = memory_int(f->arena, epoch);
    r->element[2] = memory_text(f->arena, offset);
    r->element[3] = memory_int(f->arena, now);
    r->element[4] = memory_int(f->arena, gen);
    r->element[5] = memory_int(f->arena, tries);
    r->element[6] = text_of(f, last);
    r->element[7] = next_due(f, f->key[2]);
    r->element[8] = flat_of(f, f->key[3]);
    r->element[9] = flat_of(f, f->key[4]);
    memory_hash_set_int(f->data, meta, SL_STR("epoch"), epoch);
    (void)memory_hash_set(f->data, meta, SL_STR("run"), run);
    memory_hash_set_int(f->data, meta, SL_STR("until"), time + lease);
    (void)memory_hash_set(f->data, meta, SL_STR("offset"), offset);
    memory_hash_set_int(f->data, meta, SL_STR("gen"), gen);
    memory_hash_set_int(f->data, meta, SL_STR("tries"), tries);
    (void)memory_hash_set(f->data, meta, SL_STR("tried"), offset);
    return r;
}

static redisReply *run_renew(struct function_call *f)
{
    int64_t lease = 0;
    if (f->keys < 1 || !integer_arg(f, 2, &lease))
        return refuse(f, "BAD arguments");
    if (!sl_mutant("no-epoch") && !is_owner(f))
        return fenced(f);
    memory_hash_set_int(f->data, f->key[0], SL_STR("until"), f->data->now_unix_ms + lease);
    return memory_status(f->arena, "OK");
}

static bool relay_section(const struct function_call *f, struct section *s)
{
    return f->keys >= 2 && section_at(f, 2, 2, s) && s->after == f->args && is_relay_ok(f, s) &&
           is_type(f, f->key[1], MEMORY_HASH);
}

static redisReply *run_relay(struct function_call *f)
{
    struct section s;
    if (!relay_section(f, &s))
        return refuse(f, "BAD relay positions");
    if (!is_owner(f))
        return fenced(f);
    write_relay(f, f->key[1], &s);
    return memory_status(f->arena, "OK");
}

static redisReply *run_release(struct function_call *f)
{
    redisReply *r = run_relay(f);
    if (r->type == REDIS_REPLY_ERROR)
        return r;
    static const char *const names[] = {"run", "until", "tries", "tried"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        (void)memory_hash_del(f->data, f->key[0], sl_str_c(names[i]));
    return r;
}

/* ---- commit ---- */

enum { STATES, HISTORY, OUT, NUMBERS, TIMERS, RELAY, DEAD, PUBLISHES, SECTIONS };

struct commit_log { /* one history that this commit appends to */
    struct sl_str log, state;
    int64_t number; /* of its last entry: the state's n, then after this commit */
};
struct commit {
    struct section s[SECTIONS];
    struct section *dead; /* each dead letter's strings; entry id and reason stand before the count */
    struct commit_log *log;
    size_t logs;
    int64_t now, lease, keep;
    char tag[128];
};

static bool parse_dead(struct function_call *f, struct commit *c, size_t at)
{
    int64_t count = 0;
    if (!integer_arg(f, at, &count) || (size_t)count > f->args)
        return false;
    c->s[DEAD] = (struct section){at + 1, (size_t)count, at + 1};
    c->dead = memory_arena_take(f->arena, ((size_t)count + 1) * sizeof *c->dead);
    for (size_t i = 0; i < (size_t)count; i++) {
        if (!pairs_at(f, c->s[DEAD].after + 2, &c->dead[i]))
            return false;
        c->s[DEAD].after = c->dead[i].after;
    }
    return true;
}

static bool parse_sections(struct function_call *f, struct commit *c)
{
    static const size_t width[] = {
        [STATES] = 5, [HISTORY] = 4, [OUT] = 1, [NUMBERS] = 2, [TIMERS] = 3, [RELAY] = 2};
    size_t at = 8;
    for (int i = STATES; i <= RELAY; i++) {
        if (i == OUT ? !pairs_at(f, at, &c->s[i]) : !section_at(f, at, width[i], &c->s[i]))
            return false;
        at = c->s[i].after;
    }
    if (!parse_dead(f, c, at))
        return false;
    return section_at(f, c->s[DEAD].after, 2, &c->s[PUBLISHES]) && c->s[PUBLISHES].after == f->args;
}

static bool has_tag(const struct commit *c, struct sl_str key)
{
    size_t at = 0;
    return sl_str_find(key, sl_str_c(c->tag), &at);
}

static redisReply *bad(struct function_call *f, const char *what, struct sl_str key)
{
    return memory_error(f->arena, "BAD %s %.*s", what, (int)(key.len < 180 ? key.len : 180), key.ptr);
}

static redisReply *check_states(struct function_call *f, const struct commit *c)
{
    for (size_t i = 0; i < c->s[STATES].count; i++) {
        const struct sl_str *a = &f->arg[c->s[STATES].first + 5 * i];
        int64_t n = 0;
        if (!has_tag(c, a[0]) || !is_type(f, a[0], MEMORY_HASH))
            return bad(f, "state", a[0]);
        if (sl_str_eq_c(a[1], "d")) {
            if (a[2].len > 0 && (!has_tag(c, a[2]) || !is_type(f, a[2], MEMORY_LIST)))
                return bad(f, "log of state", a[0]);
        } else if (!sl_str_eq_c(a[1], "s") || !integer_of(a[3], &n) || !integer_of(a[4], &n)) {
            return bad(f, "operation on state", a[0]);
        }
    }
    return NULL;
}

static struct commit_log *commit_log_of(struct commit *c, struct sl_str log)
{
    for (size_t i = 0; i < c->logs; i++)
        if (sl_str_eq(c->log[i].log, log))
            return &c->log[i];
    return NULL;
}

static redisReply *check_history(struct function_call *f, struct commit *c)
{
    c->log = memory_arena_take(f->arena, (c->s[HISTORY].count + 1) * sizeof *c->log);
    for (size_t i = 0; i < c->s[HISTORY].count; i++) {
        const struct sl_str *a = &f->arg[c->s[HISTORY].first + 4 * i];
        struct commit_log *h = commit_log_of(c, a[0]);
        int64_t number = 0;
        if (h == NULL) {
            if (!has_tag(c, a[0]) || !is_type(f, a[0], MEMORY_LIST))
                return bad(f, "log", a[0]);
            if (!has_tag(c, a[1]) || !is_type(f, a[1], MEMORY_HASH))
                return bad(f, "state of log", a[0]);
            h = &c->log[c->logs++];
            *h = (struct commit_log){a[0], a[1], memory_hash_int(f->data, a[1], SL_STR("n"))};
        }
        if (!sl_str_eq(a[1], h->state))
            return bad(f, "two states of log", a[0]);
        h->number++;
        if (!integer_of(a[2], &number) || number != h->number)
            return memory_error(f->arena, "BAD number in %.*s: %lld is next",
                                (int)(a[0].len < 150 ? a[0].len : 150), a[0].ptr, (long long)h->number);
    }
    return NULL;
}

static redisReply *check_numbers(struct function_call *f, const struct commit *c)
{
    for (size_t i = 0; i < c->s[NUMBERS].count; i++) {
        const struct sl_str *a = &f->arg[c->s[NUMBERS].first + 2 * i];
        int64_t number = 0;
        if (!integer_of(a[1], &number) || number < memory_hash_int(f->data, f->key[4], a[0]))
            return bad(f, "fact number for", a[0]);
    }
    return NULL;
}

/* "<object>|<name>|<gen>", taken apart from the right. */
static bool split_timer(struct sl_str member, struct sl_str *object, struct sl_str *name, struct sl_str *gen)
{
    size_t second = member.len, first = 0;
    while (second > 0 && member.ptr[second - 1] != '|')
        second--;
    first = second > 0 ? second - 1 : 0;
    while (first > 0 && member.ptr[first - 1] != '|')
        first--;
    if (first < 2 || second < first + 2 || second == member.len)
        return false;
    *object = sl_str_n(member.ptr, first - 1);
    *name = sl_str_n(member.ptr + first, second - 1 - first);
    *gen = sl_str_n(member.ptr + second, member.len - second);
    for (size_t i = 0; i < gen->len; i++)
        if (gen->ptr[i] < '0' || gen->ptr[i] > '9')
            return false;
    return true;
}

static redisReply *check_timers(struct function_call *f, const struct commit *c)
{
    for (size_t i = 0; i < c->s[TIMERS].count; i++) {
        const struct sl_str *a = &f->arg[c->s[TIMERS].first + 3 * i];
        struct sl_str object, name, gen;
        int64_t due = 0;
        if (sl_str_eq_c(a[0], "-"))
            continue;
        if (!sl_str_eq_c(a[0], "+"))
            return refuse(f, "BAD timer operation");
        if (!integer_of(a[2], &due) || !split_timer(a[1], &object, &name, &gen))
            return bad(f, "timer", a[1]);
    }
    return NULL;
}

/* NULL: all is well. */
static redisReply *check_commit(struct function_call *f, struct commit *c)
{
    static const enum memory_type types[] = {MEMORY_HASH, MEMORY_STREAM, MEMORY_STREAM, MEMORY_ZSET,
                                             MEMORY_HASH, MEMORY_HASH,   MEMORY_STREAM};
    size_t wrong = 0;
    if (!are_types(f, types, 7, &wrong))
        return bad_type_of(f, f->key[wrong]);
    redisReply *why = check_states(f, c);
    why = why != NULL ? why : check_history(f, c);
    why = why != NULL ? why : check_numbers(f, c);
    why = why != NULL ? why : check_timers(f, c);
    if (why == NULL && !is_relay_ok(f, &c->s[RELAY]))
        return refuse(f, "BAD relay positions");
    return why;
}

static void write_history(struct function_call *f, const struct commit *c)
{
    for (size_t i = 0; i < c->s[HISTORY].count; i++) {
        const struct sl_str *a = &f->arg[c->s[HISTORY].first + 4 * i];
        memory_list_push(f->data, a[0], a[3]);
    }
    for (size_t i = 0; i < c->logs; i++) {
        const struct commit_log *h = &c->log[i];
        int64_t length = (int64_t)memory_list_len(f->data, h->log);
        if (c->keep == 0 || length <= c->keep + 100)
            continue;
        memory_list_cut(f->data, h->log, (size_t)(length - c->keep));
        memory_hash_set_int(f->data, h->state, SL_STR("b"), h->number - c->keep);
    }
}

static void write_states(struct function_call *f, const struct commit *c)
{
    for (size_t i = 0; i < c->s[STATES].count; i++) {
        const struct sl_str *a = &f->arg[c->s[STATES].first + 5 * i];
        if (sl_str_eq_c(a[1], "s")) {
            (void)memory_hash_set(f->data, a[0], SL_STR("s"), a[2]);
            (void)memory_hash_set(f->data, a[0], SL_STR("n"), a[3]);
            (void)memory_hash_set(f->data, a[0], SL_STR("v"), a[4]);
            continue;
        }
        memory_drop(f->data, a[0]);
        if (a[2].len > 0)
            memory_drop(f->data, a[2]);
    }
}

static void write_timers(struct function_call *f, const struct commit *c)
{
    for (size_t i = 0; i < c->s[TIMERS].count; i++) {
        const struct sl_str *a = &f->arg[c->s[TIMERS].first + 3 * i];
        int64_t due = 0;
        if (sl_str_eq_c(a[0], "-"))
            (void)memory_zset_del(f->data, f->key[3], a[1]);
        else if (integer_of(a[2], &due))
            memory_zset_set(f->data, f->key[3], a[1], (double)due);
    }
}

static void write_dead(struct function_call *f, const struct commit *c)
{
    for (size_t i = 0; i < c->s[DEAD].count; i++) {
        const struct section *d = &c->dead[i];
        struct sl_str *item = memory_arena_take(f->arena, (d->count + 4) * sizeof *item);
        item[0] = SL_STR("e");
        item[1] = f->arg[d->first - 3];
        item[2] = SL_STR("r");
        item[3] = f->arg[d->first - 2];
        for (size_t j = 0; j < d->count; j++)
            item[4 + j] = f->arg[d->first + j];
        (void)memory_stream_add(f->data, f->key[6], item, d->count + 4);
    }
}

static redisReply *write_commit(struct function_call *f, const struct commit *c)
{
    char text[MEMORY_ID_BYTES];
    struct sl_str out_id = SL_STR_NONE;
    write_history(f, c);
    write_states(f, c);
    if (c->s[OUT].count > 0)
        out_id = memory_id_text(
            memory_stream_add(f->data, f->key[2], &f->arg[c->s[OUT].first], c->s[OUT].count), text);
    for (size_t i = 0; i < c->s[NUMBERS].count; i++) {
        const struct sl_str *a = &f->arg[c->s[NUMBERS].first + 2 * i];
        (void)memory_hash_set(f->data, f->key[4], a[0], a[1]);
    }
    write_timers(f, c);
    write_relay(f, f->key[5], &c->s[RELAY]);
    write_dead(f, c);
    (void)memory_hash_set(f->data, f->key[0], SL_STR("offset"), f->arg[3]);
    (void)memory_hash_set(f->data, f->key[0], SL_STR("now"), f->arg[4]);
    if (c->lease > 0)
        memory_hash_set_int(f->data, f->key[0], SL_STR("until"), f->data->now_unix_ms + c->lease);
    for (size_t i = 0; i < c->s[PUBLISHES].count && f->data->published != NULL; i++) {
        const struct sl_str *a = &f->arg[c->s[PUBLISHES].first + 2 * i];
        (void)f->data->published(f->data->owner, a[0], a[1]);
    }
    return pair_of(f, "ok", memory_text(f->arena, out_id));
}

static redisReply *run_commit(struct function_call *f)
{
    struct commit c = {.keep = 0};
    struct sl_str offset = SL_STR("0-0");
    struct memory_id from, to;
    if (f->keys < 7 || f->args < 9)
        return refuse(f, "BAD counts");
    if (!sl_mutant("no-epoch") && !is_owner(f))
        return fenced(f);
    (void)memory_hash_get(f->data, f->key[0], SL_STR("offset"), &offset);
    if (!sl_mutant("no-offset") && !sl_str_eq(offset, f->arg[2]))
        return memory_error(f->arena, "MOVED_OFFSET %.*s", (int)offset.len, offset.ptr);
    if (!integer_arg(f, 4, &c.now) || !integer_arg(f, 5, &c.lease) || !integer_arg(f, 7, &c.keep) ||
        !entry_id_of(f->arg[2], &from) || !entry_id_of(f->arg[3], &to) || is_before(to, from))
        return refuse(f, "BAD arguments");
    if (c.now < memory_hash_int(f->data, f->key[0], SL_STR("now")))
        return refuse(f, "BAD now: it would run back");
    if (!parse_sections(f, &c))
        return refuse(f, "BAD counts");
    (void)snprintf(c.tag, sizeof c.tag, "{%.*s}", (int)(f->arg[6].len < 100 ? f->arg[6].len : 100),
                   f->arg[6].ptr);
    redisReply *why = check_commit(f, &c);
    return why != NULL ? why : write_commit(f, &c);
}

/* ---- deliver: the next number is appended, an earlier one dropped, a gap refused, a fork taken and counted
 * ---- */

static bool parse_facts(struct function_call *f, struct section **facts, size_t *count)
{
    int64_t n = 0;
    size_t at = 5;
    if (!integer_arg(f, 4, &n) || (size_t)n > f->args)
        return false;
    *facts = memory_arena_take(f->arena, ((size_t)n + 1) * sizeof **facts);
    for (size_t i = 0; i < (size_t)n; i++) {
        if (!pairs_at(f, at, &(*facts)[i]) || (*facts)[i].count == 0)
            return false;
        at = (*facts)[i].after;
    }
    *count = (size_t)n;
    return at == f->args;
}

struct mark {
    int64_t number, epoch;
};

static struct mark mark_of(const struct function_call *f, struct sl_str from, struct sl_str k)
{
    struct mark m = {0, 0};
    struct sl_str s = SL_STR_NONE;
    size_t blank = 0;
    if (!memory_hash_get(f->data, from, k, &s) || !sl_str_find(s, SL_STR(" "), &blank) ||
        !integer_of(sl_str_n(s.ptr, blank), &m.number) ||
        !integer_of(sl_str_n(s.ptr + blank + 1, s.len - blank - 1), &m.epoch))
        return (struct mark){0, 0};
    return m;
}

static redisReply *run_deliver(struct function_call *f)
{
    int64_t epoch = 0, first = 0, trim_ms = 0;
    struct section *facts = NULL;
    size_t count = 0, skip = 0;
    if (f->keys < 2 || !integer_arg(f, 1, &epoch) || !integer_arg(f, 2, &first) || first == 0 ||
        !integer_arg(f, 3, &trim_ms) || !parse_facts(f, &facts, &count))
        return refuse(f, "BAD counts");
    if (!is_type(f, f->key[0], MEMORY_STREAM) || !is_type(f, f->key[1], MEMORY_HASH))
        return bad_type_of(f, f->key[0]);
    struct mark mark = mark_of(f, f->key[1], f->arg[0]);
    bool is_fork = first <= mark.number && epoch > mark.epoch && count > 0;
    if (first > mark.number + 1 && !sl_mutant("deliver-no-gap"))
        return memory_error(f->arena, "GAP %lld", (long long)mark.number);
    if (!is_fork && mark.number >= first && !sl_mutant("deliver-no-mark"))
        skip = (size_t)(mark.number + 1 - first) < count ? (size_t)(mark.number + 1 - first) : count;
    for (size_t i = skip; i < count; i++) {
        (void)memory_stream_add(f->data, f->key[0], &f->arg[facts[i].first], facts[i].count);
        mark.number = first + (int64_t)i;
    }
    if (skip < count) {
        char text[48];
        int n = snprintf(text, sizeof text, "%lld %lld", (long long)mark.number, (long long)epoch);
        (void)memory_hash_set(f->data, f->key[1], f->arg[0], sl_str_n(text, (size_t)n));
    }
    if (is_fork)
        memory_hash_set_int(f->data, f->key[1], SL_STR("forks"),
                            memory_hash_int(f->data, f->key[1], SL_STR("forks")) + 1);
    if (trim_ms > 0 && mark.number % TRIM_EVERY < (int64_t)count)
        (void)memory_stream_trim(f->data, f->key[0],
                                 (struct memory_id){(uint64_t)larger(0, f->data->now_unix_ms - trim_ms), 0});
    return memory_int(f->arena, mark.number);
}

/* ---- tick: due timers become events; they leave timers:{k} only in the commit that processes them ---- */

static void append_timer(struct function_call *f, struct sl_str object, struct sl_str name, struct sl_str gen)
{
    const struct sl_str item[] = {SL_STR("t"), SL_STR("timer"), SL_STR("c"), object, SL_STR("nm"),
                                  name,        SL_STR("gen"),   gen};
    bool is_zero = true;
    for (size_t i = 0; i < gen.len; i++)
        is_zero = is_zero && gen.ptr[i] == '0';
    (void)memory_stream_add(f->data, f->key[1], item, is_zero ? 6 : 8);
}

static redisReply *run_tick(struct function_call *f)
{
    int64_t now = 0, limit = 0, appended = 0;
    if (f->keys < 3 || !integer_arg(f, 2, &now) || !integer_arg(f, 3, &limit))
        return refuse(f, "BAD arguments");
    if (!is_owner(f))
        return fenced(f);
    if (!is_type(f, f->key[1], MEMORY_STREAM) || !is_type(f, f->key[2], MEMORY_ZSET))
        return bad_type_of(f, f->key[1]);
    limit = limit < TICK_MAX ? limit : TICK_MAX;
    for (int64_t i = 0; i < limit; i++) {
        const struct memory_key *k = memory_find(f->data, f->key[2], MEMORY_ZSET, NULL);
        if (k == NULL || k->zset.count == 0 || k->zset.item[0].score > (double)now)
            break;
        struct sl_str object, name, gen;
        char member[1024]; /* the set moves its members about while we write */
        size_t len = k->zset.item[0].member->len;
        sl_assert(len < sizeof member);
        memcpy(member, k->zset.item[0].member->ptr, len);
        if (!split_timer(sl_str_n(member, len), &object, &name, &gen)) {
            (void)memory_zset_del(f->data, f->key[2], sl_str_n(member, len));
            continue;
        }
        append_timer(f, object, name, gen);
        memory_zset_set(f->data, f->key[2], sl_str_n(member, len), IN_LOG);
        appended++;
    }
    redisReply *r = memory_array(f->arena, 2);
    r->element[0] = memory_int(f->arena, appended);
    r->element[1] = next_due(f, f->key[2]);
    return r;
}

/* ---- trim: entries that nobody waits for any more ---- */

struct reader {
    struct sl_str name; /* "in:archive" */
    struct memory_id at;
};

/* "<class> <entry id>": false when it holds nothing. A malformed id holds everything, an unknown class holds
 * like must. */
static bool reader_of(struct sl_str value, bool *is_may, struct memory_id *at)
{
    size_t blank = 0;
    *is_may = false;
    *at = (struct memory_id){0, 0};
    struct memory_id id;
    if (!sl_str_find(value, SL_STR(" "), &blank) ||
        !entry_id_of(sl_str_n(value.ptr + blank + 1, value.len - blank - 1), &id))
        return true;
    *at = id;
    *is_may = sl_str_eq_c(sl_str_n(value.ptr, blank), "may");
    return !sl_str_eq_c(sl_str_n(value.ptr, blank), "lapsed");
}

static void lapse(struct function_call *f, const struct reader *r)
{
    char id[MEMORY_ID_BYTES], text[MEMORY_ID_BYTES + 16];
    struct sl_str at = memory_id_text(r->at, id);
    int n = snprintf(text, sizeof text, "lapsed %.*s", (int)at.len, at.ptr);
    (void)memory_hash_set(f->data, f->key[3], r->name, sl_str_n(text, (size_t)n));
}

/* The position up to which every reader of `log_name` is done, not beyond `done`. */
static struct memory_id done_by_all(struct function_call *f, const char *prefix, struct sl_str log,
                                    struct memory_id done)
{
    const struct memory_key *k = memory_find(f->data, f->key[3], MEMORY_HASH, NULL);
    if (k == NULL)
        return done;
    struct reader *may = memory_arena_take(f->arena, (sl_map_count(k->map) + 1) * sizeof *may), r;
    size_t mays = 0;
    void *value;
    for (size_t i = 0; sl_map_next(k->map, &i, &r.name, &value);) {
        bool is_may = false;
        if (!sl_str_starts(r.name, prefix) || !reader_of(memory_bytes_str(value), &is_may, &r.at))
            continue;
        if (is_may)
            may[mays++] = r;
        else if (is_before(r.at, done))
            done = r.at;
    }
    struct memory_id held = done;
    bool is_long = memory_stream_len(f->data, log) > MAY_HOLD_MAX;
    for (size_t i = 0; i < mays; i++) {
        if (!is_before(may[i].at, done))
            continue;
        if (is_long)
            lapse(f, &may[i]);
        else if (is_before(may[i].at, held))
            held = may[i].at;
    }
    return held;
}

static redisReply *run_trim(struct function_call *f)
{
    static const enum memory_type types[] = {MEMORY_HASH, MEMORY_STREAM, MEMORY_STREAM, MEMORY_HASH,
                                             MEMORY_HASH};
    struct memory_id relayed, stored;
    struct sl_str offset = SL_STR("0-0"), position = SL_STR("0-0");
    size_t wrong = 0;
    if (f->keys < 5 || f->args < 3 || !entry_id_of(f->arg[2], &relayed))
        return refuse(f, "BAD entry id");
    if (!is_owner(f))
        return fenced(f);
    if (!are_types(f, types, 5, &wrong))
        return bad_type_of(f, f->key[wrong]);
    (void)memory_hash_get(f->data, f->key[0], SL_STR("offset"), &offset);
    (void)memory_hash_get(f->data, f->key[4], SL_STR("@"), &position);
    stored = entry_id_or_zero(position);
    relayed = is_before(relayed, stored) ? relayed : stored;
    struct memory_id in = done_by_all(f, "in:", f->key[1], entry_id_or_zero(offset));
    struct memory_id out = done_by_all(f, "out:", f->key[2], relayed);
    (void)memory_stream_trim(f->data, f->key[1], (struct memory_id){in.ms, in.seq + 1});
    (void)memory_stream_trim(f->data, f->key[2], (struct memory_id){out.ms, out.seq + 1});
    redisReply *r = memory_array(f->arena, 2);
    r->element[0] = memory_int(f->arena, (int64_t)memory_stream_len(f->data, f->key[1]));
    r->element[1] = memory_int(f->arena, (int64_t)memory_stream_len(f->data, f->key[2]));
    return r;
}

/* ---- for workers and operators ---- */

static redisReply *run_answer(struct function_call *f)
{
    struct section s;
    size_t bytes = 0;
    if (f->keys < 1 || !pairs_at(f, 0, &s) || s.count == 0 || s.after != f->args)
        return refuse(f, "BAD counts");
    for (size_t i = s.first; i < s.after; i++) {
        bytes += f->arg[i].len;
        if (f->arg[i].len > FIELD_BYTES_MAX)
            return refuse(f, "TOOBIG one value");
    }
    if (bytes > ANSWER_BYTES_MAX || s.count > ANSWER_STRINGS_MAX)
        return refuse(f, "TOOBIG all values");
    size_t length = memory_stream_len(f->data, f->key[0]);
    if (length >= ANSWER_LOG_MAX)
        return memory_error(f->arena, "FULL %zu", length);
    return text_of(f, memory_stream_add(f->data, f->key[0], &f->arg[s.first], s.count));
}

static redisReply *run_redrive(struct function_call *f)
{
    struct memory_id id;
    if (f->keys < 2 || f->args < 1 || !entry_id_of(f->arg[0], &id))
        return refuse(f, "BAD entry id");
    const struct memory_key *k = memory_find(f->data, f->key[0], MEMORY_STREAM, NULL);
    const struct memory_entry *e = NULL;
    for (size_t i = 0; k != NULL && e == NULL && i < k->stream.count; i++)
        if (memory_id_compare(k->stream.entry[k->stream.first + i].id, id) == 0)
            e = &k->stream.entry[k->stream.first + i];
    if (e == NULL || e->count < 6 || !is_type(f, f->key[1], MEMORY_STREAM))
        return refuse(f, "NONE no such dead letter");
    redisReply *r = text_of(f, memory_stream_add(f->data, f->key[1], e->item + 4, e->count - 4));
    const struct sl_str arg[3] = {SL_STR("XDEL"), f->key[0], f->arg[0]};
    struct memory_call del = {.data = f->data, .arena = f->arena, .arg = arg, .count = 3};
    (void)memory_run(&del);
    return r;
}

static const struct function {
    const char *name;
    redisReply *(*run)(struct function_call *f);
} functions[] = {
    {"commit_1", run_commit}, {"accept_1", run_accept},   {"deliver_1", run_deliver},
    {"tick_1", run_tick},     {"renew_1", run_renew},     {"acquire_1", run_acquire},
    {"relay_1", run_relay},   {"release_1", run_release}, {"trim_1", run_trim},
    {"answer_1", run_answer}, {"redrive_1", run_redrive},
};

/* FCALL name numkeys key ... arg ... */
redisReply *memory_fcall(struct memory_call *c)
{
    int64_t keys = 0;
    if (!integer_of(c->arg[2], &keys) || (size_t)keys + 3 > c->count)
        return memory_error(c->arena, "ERR Number of keys can't be greater than number of args");
    struct function_call f = {.data = c->data,
                              .arena = c->arena,
                              .key = &c->arg[3],
                              .keys = (size_t)keys,
                              .arg = &c->arg[3 + (size_t)keys],
                              .args = c->count - 3 - (size_t)keys};
    if (sl_str_eq_c(c->arg[1], "box_1"))
        return memory_box(f.data, f.arena, f.key, f.keys, f.arg, f.args);
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++)
        if (sl_str_eq_c(c->arg[1], functions[i].name))
            return functions[i].run(&f);
    return memory_error(c->arena, "ERR Function not found");
}
