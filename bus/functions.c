/* bus/functions.c - the operations but commit, and what all of them share. functions.md says what each checks and writes. */
#include "bus/functions_priv.h"

#include "base/fault.h"

#include <stdio.h>
#include <stdlib.h>

#define IN_LOG             1e15  /* score of a timer whose event stands in the command log */
#define SESSION_ANSWERS    16    /* a session remembers the entries of its last frames */
#define FIELD_BYTES_MAX    65536 /* one value of an answer */
#define ANSWER_BYTES_MAX   131072
#define ANSWER_STRINGS_MAX 64
#define ANSWER_LOG_MAX     100000
#define MAY_HOLD_MAX       50000 /* a log longer than this is not kept for readers of class may */
#define TICK_MAX           1000
#define TRIM_EVERY         64 /* facts delivered to a stream that is trimmed by time */
#define SLOTS_FIRST        16

const struct sl_str store_names[STORE_NAME_COUNT] = {
#define X(name, text) [STORE_NAME_##name] = {.ptr = (text), .len = sizeof(text) - 1},
    STORE_NAMES(X)
#undef X
};

/* ---- what all share ---- */

void functions_refuse(struct functions_call *c, const char *fmt, ...)
{
    char words[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    for (char *p = words; *p != '\0'; p++) /* names of keys are a peer's bytes: a reply is one line */
        if ((unsigned char)*p < ' ')
            *p = '?';
    store_reply_error(c->store, words);
}

/* Keys of one call differ in their middle or end; who may write here can do worse than make them collide. */
static size_t hash_of(struct sl_str name)
{
    uint64_t h = name.len * 0x9e3779b97f4a7c15ULL, word = 0;
    for (size_t i = 0; i < name.len; i += sizeof word) {
        size_t n = name.len - i < sizeof word ? name.len - i : sizeof word;
        word = 0;
        memcpy(&word, name.ptr + i, n);
        h = (h ^ word) * 0x9e3779b97f4a7c15ULL;
        h ^= h >> 29;
    }
    return (size_t)(h ^ (h >> 32));
}

static void grow(struct functions_call *c)
{
    size_t slots = c->slots == 0 ? SLOTS_FIRST : c->slots * 4;
    struct store_key **open = store_take(c->store, slots * sizeof(struct store_key *));
    for (size_t i = 0; i < c->slots; i++)
        for (struct store_key *k = c->open[i], *next; k != NULL; k = next) {
            next = k->next;
            size_t at = hash_of(k->name) & (slots - 1);
            k->next = open[at];
            open[at] = k;
        }
    c->open = open;
    c->slots = slots;
}

struct store_key *functions_key(struct functions_call *c, const struct sl_str *name, enum store_type type)
{
    if (c->opened >= c->slots)
        grow(c);
    struct store_key **slot = &c->open[hash_of(*name) & (c->slots - 1)];
    for (struct store_key *k = *slot; k != NULL; k = k->next)
        if (sl_str_eq(k->name, *name))
            return k->type == type ? k : NULL;
    struct store_key *k = store_take(c->store, sizeof *k);
    *k = (struct store_key){.store = c->store, .name = *name, .type = type, .next = *slot};
    if (!store_open(k, name))
        return NULL;
    *slot = k;
    c->opened++;
    return k;
}

static void refuse_type(struct functions_call *c, struct sl_str name)
{
    functions_refuse(c, "BAD type of %.*s", (int)(name.len < 180 ? name.len : 180), name.ptr);
}

struct store_key *functions_fixed_key(struct functions_call *c, size_t i, enum store_type type)
{
    if (i >= c->keys) {
        functions_refuse(c, "BAD number of keys");
        return NULL;
    }
    struct store_key *k = functions_key(c, &c->key[i], type);
    if (k == NULL)
        refuse_type(c, c->key[i]);
    return k;
}

/* All of KEYS at once; false with the refusal given. */
static bool open_all(struct functions_call *c, const enum store_type *types, struct store_key **out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((out[i] = functions_fixed_key(c, i, types[i])) == NULL)
            return false;
    return true;
}

bool functions_integer(struct sl_str s, int64_t *out)
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

bool functions_integer_arg(const struct functions_call *c, size_t at, int64_t *out)
{
    return at < c->args && functions_integer(c->arg[at], out);
}

bool functions_id(struct sl_str s, struct store_id *out)
{
    const char *dash = memchr(s.ptr, '-', s.len);
    int64_t ms = 0, seq = 0;
    if (dash == NULL || !functions_integer(sl_str_n(s.ptr, (size_t)(dash - s.ptr)), &ms) ||
        !functions_integer(sl_str_n(dash + 1, s.len - (size_t)(dash - s.ptr) - 1), &seq))
        return false;
    *out = (struct store_id){(uint64_t)ms, (uint64_t)seq};
    return true;
}

static struct store_id id_or_zero(struct sl_str s)
{
    struct store_id id;
    return functions_id(s, &id) ? id : (struct store_id){0, 0};
}

bool functions_id_before(struct store_id a, struct store_id b)
{
    return a.ms != b.ms ? a.ms < b.ms : a.seq < b.seq;
}

struct sl_str functions_id_text(struct store_id id, char out[FUNCTIONS_ID_BYTES])
{
    char *end = out + FUNCTIONS_ID_BYTES, *at = sl_digits_before(end, id.seq);
    *--at = '-';
    at = sl_digits_before(at, id.ms);
    return sl_str_n(at, (size_t)(end - at));
}

bool functions_section_at(const struct functions_call *c, size_t at, size_t width,
                          struct functions_section *out)
{
    int64_t count = 0;
    if (!functions_integer_arg(c, at, &count) || at + (size_t)count * width >= c->args)
        return false;
    *out = (struct functions_section){at + 1, (size_t)count, at + 1 + (size_t)count * width};
    return true;
}

/* Name and value pairs for one entry: a count of strings, then the strings. */
bool functions_pairs_at(const struct functions_call *c, size_t at, struct functions_section *out)
{
    return functions_section_at(c, at, 1, out) && out->count % 2 == 0 && out->count <= FUNCTIONS_STRINGS_MAX;
}

/* (destination, position) pairs. "@" is an entry id, others are numbers. */
bool functions_relay_ok(const struct functions_call *c, const struct functions_section *s)
{
    for (size_t i = s->at; i < s->at + 2 * s->count; i += 2) {
        struct store_id id;
        int64_t number = 0;
        if (sl_str_eq_c(c->arg[i], "@") ? !functions_id(c->arg[i + 1], &id)
                                        : !functions_integer_arg(c, i + 1, &number))
            return false;
    }
    return true;
}

void functions_relay_write(const struct functions_call *c, struct store_key *relay,
                           const struct functions_section *s)
{
    for (size_t i = s->at; i < s->at + 2 * s->count; i += 2)
        store_hash_set(relay, &c->arg[i], &c->arg[i + 1]);
}

bool functions_split_timer(struct sl_str member, struct sl_str *object, struct sl_str *name,
                           struct sl_str *gen)
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

int64_t functions_hash_int(struct store_key *hash, const struct sl_str *field)
{
    struct sl_str s = SL_STR_NONE;
    int64_t v = 0;
    return store_hash_get(hash, field, &s) && functions_integer(s, &v) ? v : 0;
}

void functions_hash_set_int(struct store_key *hash, const struct sl_str *field, int64_t value)
{
    char text[SL_DIGITS_MAX], *end = text + sizeof text;
    char *at = sl_digits_before(end, value > 0 ? (uint64_t)value : 0);
    struct sl_str digits = sl_str_n(at, (size_t)(end - at));
    store_hash_set(hash, field, &digits);
}

static bool has_value(struct store_key *hash, const struct sl_str *field, struct sl_str wanted)
{
    struct sl_str v = SL_STR_NONE;
    return store_hash_get(hash, field, &v) && sl_str_eq(v, wanted);
}

bool functions_is_owner(const struct functions_call *c, struct store_key *meta)
{
    return c->args > 1 && has_value(meta, STORE_NAME(EPOCH), c->arg[0]) &&
           has_value(meta, STORE_NAME(RUN), c->arg[1]);
}

/* The first key, which must be the owner's; NULL with the refusal given. */
static struct store_key *own_meta(struct functions_call *c)
{
    struct store_key *meta = functions_fixed_key(c, 0, STORE_HASH);
    if (meta != NULL && !functions_is_owner(c, meta)) {
        functions_refuse(c, FUNCTIONS_FENCED);
        return NULL;
    }
    return meta;
}

static void reply_id(struct functions_call *c, struct store_id id)
{
    char text[FUNCTIONS_ID_BYTES];
    store_reply_text(c->store, functions_id_text(id, text));
}

static void reply_pair(struct functions_call *c, const char *word, struct sl_str second)
{
    store_reply_array(c->store, 2);
    store_reply_text(c->store, sl_str_c(word));
    store_reply_text(c->store, second);
}

static void reply_next_due(struct functions_call *c, struct store_key *timers)
{
    struct sl_str member;
    double score = 0;
    char text[32];
    if (!store_zset_first(timers, &member, &score) || score >= IN_LOG) {
        store_reply_text(c->store, SL_STR_NONE);
        return;
    }
    /* commit writes none below 0; a score of somebody else's could have 300 digits */
    int n = snprintf(text, sizeof text, "%.0f", score > -IN_LOG ? score : -IN_LOG);
    store_reply_text(c->store, sl_str_n(text, (size_t)n));
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* ---- accept: check for repeats, order, room and rate; append ---- */

struct accept {
    int64_t number, cap, rate, burst, ttl;
    double tokens;
    struct functions_section fields;
    struct store_key *log, *session; /* session: or the bucket that ids are written to; NULL: mode "-" */
};

static const struct sl_str *session_slot(int64_t number)
{
    return &store_names[STORE_NAME_E0 + number % SESSION_ANSWERS];
}

/* What the session's token bucket holds now, and how long until it holds one. */
static double tokens_now(struct functions_call *c, const struct accept *in, int64_t *retry_ms)
{
    struct sl_str stored = SL_STR_NONE, at = SL_STR_NONE;
    char text[64] = "";
    double burst = (double)larger(in->burst, 1), tokens = burst;
    if (store_hash_get(in->session, STORE_NAME(K), &stored) &&
        store_hash_get(in->session, STORE_NAME(T), &at) && stored.len < sizeof text) {
        int64_t since = store_now_ms(c->store) - functions_hash_int(in->session, STORE_NAME(T));
        memcpy(text, stored.ptr, stored.len);
        tokens = strtod(text, NULL) + (double)larger(since, 0) * (double)in->rate / 1000;
        tokens = tokens > burst ? burst : tokens;
    }
    double wait = (1 - tokens) * 1000 / (double)larger(in->rate, 1);
    *retry_ms = (int64_t)wait + (wait > (double)(int64_t)wait ? 1 : 0);
    return tokens;
}

/* The sender's own id among the event's names and values; empty when it has none. */
static const struct sl_str *accept_id(const struct functions_call *c, const struct accept *in)
{
    static const struct sl_str none = {.ptr = "", .len = 0};
    for (size_t i = in->fields.at; i + 1 < in->fields.after; i += 2)
        if (sl_str_eq_c(c->arg[i], "id"))
            return &c->arg[i + 1];
    return &none;
}

/* A slot holds "<entry> <the id of that command, as its sender named it>". */
static void refuse_known(struct functions_call *c, const struct accept *in, int64_t last)
{
    struct sl_str slot = SL_STR_NONE;
    const char *blank = NULL;
    if (in->number > last - SESSION_ANSWERS && store_hash_get(in->session, session_slot(in->number), &slot))
        blank = memchr(slot.ptr, ' ', slot.len);
    if (blank == NULL) {
        reply_pair(c, "dup", SL_STR_NONE);
        return;
    }
    size_t entry = (size_t)(blank - slot.ptr);
    if (sl_str_eq(sl_str_n(blank + 1, slot.len - entry - 1), *accept_id(c, in)))
        reply_pair(c, "dup", sl_str_n(slot.ptr, entry));
    else
        functions_refuse(c, "CONFLICT another command has this number");
}

static void remember_slot(struct functions_call *c, const struct accept *in, struct sl_str entry)
{
    const struct sl_str *id = accept_id(c, in);
    char *text = store_take(c->store, entry.len + 1 + id->len);
    memcpy(text, entry.ptr, entry.len);
    text[entry.len] = ' ';
    memcpy(text + entry.len + 1, id->ptr, id->len);
    struct sl_str value = sl_str_n(text, entry.len + 1 + id->len);
    store_hash_set(in->session, session_slot(in->number), &value);
}

/* true: go on and append; otherwise the reply is given. */
static bool accept_by_number(struct functions_call *c, struct accept *in)
{
    if (c->keys < 2 || !functions_integer_arg(c, 1, &in->number) || in->number == 0) {
        functions_refuse(c, "BAD number");
        return false;
    }
    if ((in->session = functions_fixed_key(c, 1, STORE_HASH)) == NULL)
        return false;
    int64_t last = functions_hash_int(in->session, STORE_NAME(N)), retry_ms = 0;
    if (in->number <= last) {
        refuse_known(c, in, last);
        return false;
    }
    if (in->number > last + 1) {
        functions_refuse(c, "GAP %lld", (long long)last);
        return false;
    }
    in->tokens = in->rate > 0 ? tokens_now(c, in, &retry_ms) : 1;
    if (in->tokens < 1)
        functions_refuse(c, "RATE %lld", (long long)retry_ms);
    return in->tokens >= 1;
}

static bool accept_by_id(struct functions_call *c, struct accept *in)
{
    if (c->keys < 2) {
        functions_refuse(c, "BAD buckets");
        return false;
    }
    for (size_t i = 1; i < c->keys; i++) {
        struct sl_str entry = SL_STR_NONE;
        struct store_key *bucket = functions_fixed_key(c, i, STORE_HASH);
        if (bucket == NULL)
            return false;
        if (store_hash_get(bucket, &c->arg[1], &entry)) {
            reply_pair(c, "dup", entry);
            return false;
        }
        in->session = i == 1 ? bucket : in->session;
    }
    return true;
}

static void remember_number(struct functions_call *c, const struct accept *in, struct sl_str entry)
{
    char text[32];
    store_hash_set(in->session, STORE_NAME(N), &c->arg[1]);
    remember_slot(c, in, entry);
    if (in->rate > 0) {
        int n = snprintf(text, sizeof text, "%.3f", in->tokens - 1);
        struct sl_str tokens = sl_str_n(text, (size_t)n);
        store_hash_set(in->session, STORE_NAME(K), &tokens);
        functions_hash_set_int(in->session, STORE_NAME(T), store_now_ms(c->store));
    }
    store_expire(in->session, in->ttl, false);
}

static bool parse_accept(const struct functions_call *c, struct accept *in)
{
    return functions_integer_arg(c, 2, &in->cap) && functions_integer_arg(c, 3, &in->rate) &&
           functions_integer_arg(c, 4, &in->burst) && functions_integer_arg(c, 5, &in->ttl) &&
           functions_pairs_at(c, 6, &in->fields) && in->fields.count > 0 && in->fields.after == c->args;
}

static void run_accept(struct functions_call *c)
{
    struct accept in = {0};
    char text[FUNCTIONS_ID_BYTES];
    if (!parse_accept(c, &in)) {
        functions_refuse(c, "BAD counts");
        return;
    }
    bool by_number = sl_str_eq_c(c->arg[0], "n"), by_id = sl_str_eq_c(c->arg[0], "i");
    if (!by_number && !by_id && !sl_str_eq_c(c->arg[0], "-")) {
        functions_refuse(c, "BAD mode");
        return;
    }
    if ((by_number && !accept_by_number(c, &in)) || (by_id && !accept_by_id(c, &in)) ||
        (in.log = functions_fixed_key(c, 0, STORE_STREAM)) == NULL)
        return;
    size_t length = store_stream_len(in.log);
    if ((int64_t)length >= in.cap) {
        functions_refuse(c, "FULL %zu", length);
        return;
    }
    struct sl_str entry =
        functions_id_text(store_stream_add(in.log, &c->arg[in.fields.at], in.fields.count), text);
    if (by_number) {
        remember_number(c, &in, entry);
    } else if (by_id) {
        store_hash_set(in.session, &c->arg[1], &entry);
        store_expire(in.session, in.ttl, true);
    }
    reply_pair(c, "ok", entry);
}

/* ---- the lease ---- */

/* How often was the partition taken over at this very offset with entries pending? */
static int64_t count_try(struct store_key *meta, struct sl_str run, struct sl_str offset, bool has_pending)
{
    if (!has_pending)
        return 0;
    int64_t tries = functions_hash_int(meta, STORE_NAME(TRIES));
    if (!has_value(meta, STORE_NAME(TRIED), offset))
        return 1;
    return has_value(meta, STORE_NAME(RUN), run) ? larger(tries, 1) : tries + 1;
}

/* true: another run holds the partition, and the reply says so. */
static bool is_held(struct functions_call *c, struct store_key *meta)
{
    struct sl_str holder = SL_STR_NONE;
    int64_t left = functions_hash_int(meta, STORE_NAME(UNTIL)) - store_now_ms(c->store);
    if (!store_hash_get(meta, STORE_NAME(RUN), &holder) || sl_str_eq(holder, c->arg[0]) || left <= 0)
        return false;
    store_reply_array(c->store, 3);
    store_reply_text(c->store, SL_STR("held"));
    store_reply_text(c->store, holder);
    store_reply_int(c->store, left);
    return true;
}

static void run_acquire(struct functions_call *c)
{
    static const enum store_type types[] = {STORE_HASH, STORE_STREAM, STORE_ZSET, STORE_HASH, STORE_HASH};
    struct store_key *key[5];
    struct sl_str offset = SL_STR_NONE, gen_text;
    char text[FUNCTIONS_ID_BYTES];
    int64_t clock = 0, lease = 0;
    if (c->args < 4 || c->arg[0].len == 0 || !functions_integer_arg(c, 1, &clock) ||
        !functions_integer_arg(c, 2, &lease)) {
        functions_refuse(c, "BAD arguments");
        return;
    }
    if (!open_all(c, types, key, 5) || is_held(c, key[0]))
        return;
    struct store_key *meta = key[0];
    int64_t time = store_now_ms(c->store);
    (void)store_hash_get(meta, STORE_NAME(OFFSET), &offset);
    struct store_id last = store_stream_last(key[1]), at = id_or_zero(offset);
    bool is_lost = sl_str_eq_c(c->arg[3], "1");
    if (functions_id_before(
            last, at)) { /* entries of a slower clock would lie before the offset, never to be read */
        is_lost = true;
        at = last;
    }
    offset = functions_id_text(at, text);
    bool has_gen = store_hash_get(meta, STORE_NAME(GEN), &gen_text);
    int64_t epoch = larger(functions_hash_int(meta, STORE_NAME(EPOCH)) + 1, time),
            gen = is_lost || !has_gen ? epoch : functions_hash_int(meta, STORE_NAME(GEN)),
            tries = count_try(meta, c->arg[0], offset, functions_id_before(at, last)),
            now = larger(functions_hash_int(meta, STORE_NAME(NOW)), clock < time ? clock : time);
    store_reply_array(c->store, 10);
    store_reply_text(c->store, SL_STR("ok"));
    store_reply_int(c->store, epoch);
    store_reply_text(c->store, offset);
    store_reply_int(c->store, now);
    store_reply_int(c->store, gen);
    store_reply_int(c->store, tries);
    reply_id(c, last);
    reply_next_due(c, key[2]);
    store_reply_hash(c->store, key[3]);
    store_reply_hash(c->store, key[4]);
    functions_hash_set_int(meta, STORE_NAME(EPOCH), epoch);
    store_hash_set(meta, STORE_NAME(RUN), &c->arg[0]);
    functions_hash_set_int(meta, STORE_NAME(UNTIL), time + lease);
    store_hash_set(meta, STORE_NAME(OFFSET), &offset);
    functions_hash_set_int(meta, STORE_NAME(GEN), gen);
    functions_hash_set_int(meta, STORE_NAME(TRIES), tries);
    store_hash_set(meta, STORE_NAME(TRIED), &offset);
}

static void run_renew(struct functions_call *c)
{
    int64_t lease = 0;
    struct store_key *meta = functions_fixed_key(c, 0, STORE_HASH);
    if (meta == NULL)
        return;
    if (!functions_integer_arg(c, 2, &lease)) {
        functions_refuse(c, "BAD arguments");
        return;
    }
    if (!sl_mutant("no-epoch") && !functions_is_owner(c, meta)) {
        functions_refuse(c, FUNCTIONS_FENCED);
        return;
    }
    functions_hash_set_int(meta, STORE_NAME(UNTIL), store_now_ms(c->store) + lease);
    store_reply_ok(c->store);
}

/* false with the refusal given. */
static bool save_positions(struct functions_call *c, struct store_key **meta)
{
    struct functions_section s;
    if (!functions_section_at(c, 2, 2, &s) || s.after != c->args || !functions_relay_ok(c, &s)) {
        functions_refuse(c, "BAD relay positions");
        return false;
    }
    struct store_key *relay = functions_fixed_key(c, 1, STORE_HASH);
    if (relay == NULL || (*meta = own_meta(c)) == NULL)
        return false;
    functions_relay_write(c, relay, &s);
    return true;
}

static void run_relay(struct functions_call *c)
{
    struct store_key *meta = NULL;
    if (save_positions(c, &meta))
        store_reply_ok(c->store);
}

static void run_release(struct functions_call *c)
{
    struct store_key *meta = NULL;
    if (!save_positions(c, &meta))
        return;
    store_hash_del(meta, STORE_NAME(RUN));
    store_hash_del(meta, STORE_NAME(UNTIL));
    store_hash_del(meta, STORE_NAME(TRIES));
    store_hash_del(meta, STORE_NAME(TRIED));
    store_reply_ok(c->store);
}

/* ---- deliver: the next number is appended, an earlier one dropped, a gap refused, a fork taken and counted ---- */

size_t functions_facts_end(const struct functions_call *c, const struct functions_facts *f)
{
    size_t at = f->at;
    for (size_t i = 0; i < f->count; i++) {
        struct functions_section fact;
        if (!functions_pairs_at(c, at, &fact) || fact.count == 0)
            return 0;
        at = fact.after;
    }
    return at;
}

struct functions_mark functions_mark_of(struct store_key *from, const struct sl_str *k)
{
    struct functions_mark m = {0, 0};
    struct sl_str s = SL_STR_NONE;
    const char *blank = store_hash_get(from, k, &s) ? memchr(s.ptr, ' ', s.len) : NULL;
    if (blank == NULL || !functions_integer(sl_str_n(s.ptr, (size_t)(blank - s.ptr)), &m.number) ||
        !functions_integer(sl_str_n(blank + 1, s.len - (size_t)(blank - s.ptr) - 1), &m.epoch))
        return (struct functions_mark){0, 0};
    return m;
}

static void write_mark(struct store_key *from, const struct sl_str *k, struct functions_mark m)
{
    char text[2 * SL_DIGITS_MAX + 1], *end = text + sizeof text;
    char *at = sl_digits_before(end, (uint64_t)m.epoch);
    *--at = ' ';
    at = sl_digits_before(at, (uint64_t)m.number);
    struct sl_str value = sl_str_n(at, (size_t)(end - at));
    store_hash_set(from, k, &value);
}

struct functions_mark functions_facts_append(struct functions_call *c, const struct functions_facts *f,
                                             size_t skip, struct store_key *log, struct store_key *from,
                                             const struct sl_str *k, struct functions_mark mark,
                                             int64_t epoch)
{
    size_t at = f->at;
    for (size_t i = 0; i < f->count; i++) {
        struct functions_section fact;
        if (!functions_pairs_at(c, at, &fact))
            break; /* not after functions_facts_end */
        if (i >= skip)
            (void)store_stream_add(log, &c->arg[fact.at], fact.count);
        at = fact.after;
    }
    if (skip < f->count) {
        mark = (struct functions_mark){f->first + (int64_t)f->count - 1, epoch};
        write_mark(from, k, mark);
    }
    if (f->trim_ms > 0 && mark.number % TRIM_EVERY < (int64_t)f->count)
        store_stream_trim(log,
                          (struct store_id){(uint64_t)larger(0, store_now_ms(c->store) - f->trim_ms), 0});
    return mark;
}

static void run_deliver(struct functions_call *c)
{
    static const enum store_type types[] = {STORE_STREAM, STORE_HASH};
    struct functions_facts f = {.at = 5};
    struct store_key *key[2];
    int64_t epoch = 0, count = 0;
    size_t skip = 0;
    if (!functions_integer_arg(c, 1, &epoch) || !functions_integer_arg(c, 2, &f.first) || f.first == 0 ||
        !functions_integer_arg(c, 3, &f.trim_ms) || !functions_integer_arg(c, 4, &count) ||
        (f.count = (size_t)count, functions_facts_end(c, &f) != c->args)) {
        functions_refuse(c, "BAD counts");
        return;
    }
    if (!open_all(c, types, key, 2))
        return;
    struct functions_mark mark = functions_mark_of(key[1], &c->arg[0]);
    bool is_fork = f.first <= mark.number && epoch > mark.epoch && f.count > 0;
    if (f.first > mark.number + 1 && !sl_mutant("deliver-no-gap")) {
        functions_refuse(c, "GAP %lld", (long long)mark.number);
        return;
    }
    if (!is_fork && mark.number >= f.first && !sl_mutant("deliver-no-mark"))
        skip = (size_t)(mark.number + 1 - f.first) < f.count ? (size_t)(mark.number + 1 - f.first) : f.count;
    mark = functions_facts_append(c, &f, skip, key[0], key[1], &c->arg[0], mark, epoch);
    if (is_fork)
        functions_hash_set_int(key[1], STORE_NAME(FORKS), functions_hash_int(key[1], STORE_NAME(FORKS)) + 1);
    store_reply_int(c->store, mark.number);
}

/* ---- tick: due timers become events; they leave timers:{k} only in the commit that processes them ---- */

static void append_timer(struct store_key *log, struct sl_str object, struct sl_str name, struct sl_str gen)
{
    const struct sl_str item[] = {store_names[STORE_NAME_T],   store_names[STORE_NAME_TIMER],
                                  store_names[STORE_NAME_C],   object,
                                  store_names[STORE_NAME_NM],  name,
                                  store_names[STORE_NAME_GEN], gen};
    bool is_zero = true;
    for (size_t i = 0; i < gen.len; i++)
        is_zero = is_zero && gen.ptr[i] == '0';
    (void)store_stream_add(log, item, is_zero ? 6 : 8);
}

static void run_tick(struct functions_call *c)
{
    int64_t now = 0, limit = 0, appended = 0;
    if (!functions_integer_arg(c, 2, &now) || !functions_integer_arg(c, 3, &limit)) {
        functions_refuse(c, "BAD arguments");
        return;
    }
    struct store_key *log, *timers;
    if (own_meta(c) == NULL || (log = functions_fixed_key(c, 1, STORE_STREAM)) == NULL ||
        (timers = functions_fixed_key(c, 2, STORE_ZSET)) == NULL)
        return;
    limit = limit < TICK_MAX ? limit : TICK_MAX;
    for (int64_t i = 0; i < limit; i++) {
        struct sl_str member, object, name, gen;
        double score = 0;
        if (!store_zset_first(timers, &member, &score) || score > (double)now)
            break;
        if (!functions_split_timer(member, &object, &name, &gen)) {
            store_zset_del(timers, &member); /* commit lets no such member in */
            continue;
        }
        append_timer(log, object, name, gen);
        store_zset_set(timers, &member, IN_LOG);
        appended++;
    }
    store_reply_array(c->store, 2);
    store_reply_int(c->store, appended);
    reply_next_due(c, timers);
}

/* ---- trim: entries that nobody waits for any more ---- */

struct reader {
    struct sl_str name; /* "in:archive" */
    struct store_id at;
    struct reader *next;
};
struct readers {
    struct store *store;
    const char *prefix;
    struct store_id done;
    struct reader *may;
};

/* "<class> <entry id>". A malformed id holds everything, an unknown class holds like must, lapsed holds nothing. */
static void on_reader(void *arg, const struct sl_str *name, const struct sl_str *value)
{
    struct readers *all = arg;
    struct store_id at = {0, 0};
    const char *blank = memchr(value->ptr, ' ', value->len);
    struct sl_str class = SL_STR_NONE;
    if (!sl_str_starts(*name, all->prefix))
        return;
    if (blank != NULL &&
        functions_id(sl_str_n(blank + 1, value->len - (size_t)(blank - value->ptr) - 1), &at))
        class = sl_str_n(value->ptr, (size_t)(blank - value->ptr));
    if (sl_str_eq_c(class, "lapsed"))
        return;
    if (!sl_str_eq_c(class, "may")) {
        all->done = functions_id_before(at, all->done) ? at : all->done;
        return;
    }
    struct reader *r = store_take(all->store, sizeof *r + name->len);
    char *copy = (char *)(r + 1);
    memcpy(copy, name->ptr, name->len);
    *r = (struct reader){.name = sl_str_n(copy, name->len), .at = at, .next = all->may};
    all->may = r;
}

static void lapse(struct store_key *tails, const struct reader *r)
{
    char id[FUNCTIONS_ID_BYTES], text[FUNCTIONS_ID_BYTES + 16];
    struct sl_str at = functions_id_text(r->at, id);
    int n = snprintf(text, sizeof text, "lapsed %.*s", (int)at.len, at.ptr);
    struct sl_str value = sl_str_n(text, (size_t)n);
    store_hash_set(tails, &r->name, &value);
}

/* The position up to which every reader of that log is done, not beyond `done`. */
static struct store_id done_by_all(struct functions_call *c, struct store_key *tails, const char *prefix,
                                   struct store_key *log, struct store_id done)
{
    struct readers all = {.store = c->store, .prefix = prefix, .done = done};
    store_hash_walk(tails, on_reader, &all);
    struct store_id held = all.done;
    bool is_long = store_stream_len(log) > MAY_HOLD_MAX;
    for (const struct reader *r = all.may; r != NULL; r = r->next) {
        if (!functions_id_before(r->at, all.done))
            continue;
        if (is_long)
            lapse(tails, r);
        else if (functions_id_before(r->at, held))
            held = r->at;
    }
    return held;
}

static void run_trim(struct functions_call *c)
{
    static const enum store_type types[] = {STORE_HASH, STORE_STREAM, STORE_STREAM, STORE_HASH, STORE_HASH};
    struct store_key *key[5];
    struct store_id relayed, stored;
    struct sl_str offset = SL_STR_NONE, position = SL_STR_NONE;
    if (c->args < 3 || !functions_id(c->arg[2], &relayed)) {
        functions_refuse(c, "BAD entry id");
        return;
    }
    if (own_meta(c) == NULL || !open_all(c, types, key, 5))
        return;
    (void)store_hash_get(key[0], STORE_NAME(OFFSET), &offset);
    (void)store_hash_get(key[4], STORE_NAME(POSITION), &position);
    stored = id_or_zero(position);
    relayed = functions_id_before(relayed, stored) ? relayed : stored;
    struct store_id in = done_by_all(c, key[3], "in:", key[1], id_or_zero(offset));
    struct store_id out = done_by_all(c, key[3], "out:", key[2], relayed);
    store_stream_trim(key[1], (struct store_id){in.ms, in.seq + 1});
    store_stream_trim(key[2], (struct store_id){out.ms, out.seq + 1});
    store_reply_array(c->store, 2);
    store_reply_int(c->store, (int64_t)store_stream_len(key[1]));
    store_reply_int(c->store, (int64_t)store_stream_len(key[2]));
}

/* ---- for workers and operators ---- */

static void run_answer(struct functions_call *c)
{
    struct functions_section s;
    size_t bytes = 0, largest = 0;
    if (!functions_pairs_at(c, 0, &s) || s.count == 0 || s.after != c->args) {
        functions_refuse(c, "BAD counts");
        return;
    }
    for (size_t i = s.at; i < s.after; i++) {
        bytes += c->arg[i].len;
        largest = c->arg[i].len > largest ? c->arg[i].len : largest;
    }
    if (largest > FIELD_BYTES_MAX || bytes > ANSWER_BYTES_MAX || s.count > ANSWER_STRINGS_MAX) {
        functions_refuse(c, largest > FIELD_BYTES_MAX ? "TOOBIG one value" : "TOOBIG all values");
        return;
    }
    struct store_key *log = functions_fixed_key(c, 0, STORE_STREAM);
    if (log == NULL)
        return;
    size_t length = store_stream_len(log);
    if (length >= ANSWER_LOG_MAX)
        functions_refuse(c, "FULL %zu", length);
    else
        reply_id(c, store_stream_add(log, &c->arg[s.at], s.count));
}

/* A dead letter is e = entry id, r = reason, then the event: the event goes back to the end of the command log. */
static void run_redrive(struct functions_call *c)
{
    static const enum store_type types[] = {STORE_STREAM, STORE_STREAM};
    struct store_key *key[2];
    struct store_id id;
    const struct sl_str *item = NULL;
    size_t count = 0;
    if (c->args < 1 || !functions_id(c->arg[0], &id)) {
        functions_refuse(c, "BAD entry id");
        return;
    }
    if (!open_all(c, types, key, 2))
        return;
    if (!store_stream_get(key[0], id, &item, &count) || count < 6) {
        functions_refuse(c, "NONE no such dead letter");
        return;
    }
    reply_id(c, store_stream_add(key[1], item + 4, count - 4));
    store_stream_del(key[0], id);
}

/* ---- the table ---- */

const struct functions_entry functions_table[FUNCTIONS_COUNT] = {
    {"commit_1", false, functions_commit}, {"accept_1", true, run_accept},
    {"deliver_1", false, run_deliver},     {"tick_1", false, run_tick},
    {"renew_1", false, run_renew},         {"acquire_1", false, run_acquire},
    {"relay_1", false, run_relay},         {"release_1", false, run_release},
    {"trim_1", false, run_trim},           {"answer_1", true, run_answer},
    {"redrive_1", true, run_redrive},
};

void functions_run(const struct functions_entry *f, struct store *store, const struct sl_str *key,
                   size_t keys, const struct sl_str *arg, size_t args)
{
    struct functions_call c = {.store = store, .key = key, .keys = keys, .arg = arg, .args = args};
    f->run(&c);
}
