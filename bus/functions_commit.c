/* bus/functions_commit.c - commit_1: everything that a batch caused, written in one step by the partition's owner or not at all. */
#include "bus/functions_priv.h"

#include "base/fault.h"

#include <stdio.h>

#define HEAD_ARGS 8 /* epoch, run, previous offset, new offset, now, lease, tag, history keep */
#define CUT_SLACK 100

#define FIXED_KEYS 7

enum { STATES, HISTORY, OUT, NUMBERS, TIMERS, RELAY, DEAD, PUBLISHES, SECTIONS };

/* Facts that are appended to their destination at once, when their number is the next one there. */
struct delivery {
    struct functions_facts facts;
    int64_t mark; /* 0: not taken, deliver_1 has to */
};

struct commit {
    struct functions_section s[SECTIONS];
    struct store_key *meta, *out, *numbers, *timers, *relay, *dead;
    int64_t now, lease, keep;
    char tag[128];
    size_t tag_len;
    bool is_long; /* a history has to be cut */
    struct delivery *delivery;
    size_t deliveries;
    struct store_key **log, **state; /* of each history entry and of each state, as the checks found them */
};

/* ---- where the sections lie ---- */

/* A dead letter: entry id, reason, count of strings, strings. */
static bool parse_dead(const struct functions_call *c, struct functions_section *dead, size_t at)
{
    int64_t count = 0;
    if (!functions_integer_arg(c, at, &count))
        return false;
    *dead = (struct functions_section){at + 1, (size_t)count, at + 1};
    for (int64_t i = 0; i < count; i++) {
        struct functions_section strings;
        if (!functions_pairs_at(c, dead->after + 2, &strings))
            return false;
        dead->after = strings.after;
    }
    return true;
}

/* A ninth section, which may be missing: first number, trim ms, count of facts, facts; for each two more keys. */
static bool parse_deliveries(const struct functions_call *c, struct commit *k, size_t at)
{
    int64_t count = 0, facts = 0;
    if (!functions_integer_arg(c, at++, &count) || (size_t)count > (c->keys - FIXED_KEYS) / 2)
        return false;
    k->deliveries = (size_t)count;
    k->delivery = store_take(c->store, (k->deliveries + 1) * sizeof *k->delivery);
    for (size_t i = 0; i < k->deliveries; i++) {
        struct functions_facts *f = &k->delivery[i].facts;
        if (!functions_integer_arg(c, at, &f->first) || f->first == 0 ||
            !functions_integer_arg(c, at + 1, &f->trim_ms) || !functions_integer_arg(c, at + 2, &facts))
            return false;
        f->count = (size_t)facts;
        f->at = at + 3;
        if ((at = functions_facts_end(c, f)) == 0)
            return false;
    }
    return at == c->args;
}

static bool parse_sections(const struct functions_call *c, struct commit *k)
{
    static const size_t width[] = {
        [STATES] = 5, [HISTORY] = 4, [OUT] = 1, [NUMBERS] = 2, [TIMERS] = 3, [RELAY] = 2};
    size_t at = HEAD_ARGS;
    for (int i = STATES; i <= RELAY; i++) {
        if (i == OUT ? !functions_pairs_at(c, at, &k->s[i])
                     : !functions_section_at(c, at, width[i], &k->s[i]))
            return false;
        at = k->s[i].after;
    }
    if (!parse_dead(c, &k->s[DEAD], at))
        return false;
    at = k->s[DEAD].after;
    int64_t pushes = 0;
    if (!functions_integer_arg(c, at, &pushes) || at + 1 + 2 * (size_t)pushes > c->args)
        return false;
    k->s[PUBLISHES] = (struct functions_section){at + 1, (size_t)pushes, at + 1 + 2 * (size_t)pushes};
    return k->s[PUBLISHES].after == c->args || parse_deliveries(c, k, k->s[PUBLISHES].after);
}

/* ---- checks: nothing is written before the last of them ---- */

static bool has_tag(const struct commit *k, struct sl_str key)
{
    return memmem(key.ptr, key.len, k->tag, k->tag_len) != NULL;
}

static bool bad(struct functions_call *c, const char *what, struct sl_str key)
{
    functions_refuse(c, "BAD %s %.*s", what, (int)(key.len < 180 ? key.len : 180), key.ptr);
    return false;
}

static struct store_key *own_key(struct functions_call *c, const struct commit *k, const struct sl_str *name,
                                 enum store_type type)
{
    return has_tag(k, *name) ? functions_key(c, name, type) : NULL;
}

static bool check_states(struct functions_call *c, struct commit *k)
{
    k->state = store_take(c->store, k->s[STATES].count * sizeof(struct store_key *));
    for (size_t i = 0; i < k->s[STATES].count; i++) {
        const struct sl_str *a = &c->arg[k->s[STATES].at + 5 * i];
        int64_t n = 0;
        if ((k->state[i] = own_key(c, k, &a[0], STORE_HASH)) == NULL)
            return bad(c, "state", a[0]);
        if (sl_str_eq_c(a[1], "d")) {
            if (a[2].len > 0 && own_key(c, k, &a[2], STORE_LIST) == NULL)
                return bad(c, "log of state", a[0]);
        } else if (!sl_str_eq_c(a[1], "s") || !functions_integer(a[3], &n) || !functions_integer(a[4], &n)) {
            return bad(c, "operation on state", a[0]);
        }
    }
    return true;
}

static bool check_history(struct functions_call *c, struct commit *k)
{
    k->log = store_take(c->store, k->s[HISTORY].count * sizeof(struct store_key *));
    for (size_t i = 0; i < k->s[HISTORY].count; i++) {
        const struct sl_str *a = &c->arg[k->s[HISTORY].at + 4 * i];
        struct store_key *log = own_key(c, k, &a[0], STORE_LIST), *state = own_key(c, k, &a[1], STORE_HASH);
        int64_t number = 0;
        k->log[i] = log;
        if (log == NULL)
            return bad(c, "log", a[0]);
        if (state == NULL)
            return bad(c, "state of log", a[0]);
        if (log->state == NULL) {
            log->state = state;
            log->number = functions_hash_int(state, STORE_NAME(N));
        }
        if (log->state != state)
            return bad(c, "two states of log", a[0]);
        log->number++;
        if (!functions_integer(a[2], &number) || number != log->number) {
            functions_refuse(c, "BAD number in %.*s: %lld is next", (int)(a[0].len < 150 ? a[0].len : 150),
                             a[0].ptr, (long long)log->number);
            return false;
        }
    }
    return true;
}

static bool check_numbers(struct functions_call *c, const struct commit *k)
{
    for (size_t i = 0; i < k->s[NUMBERS].count; i++) {
        const struct sl_str *a = &c->arg[k->s[NUMBERS].at + 2 * i];
        int64_t number = 0;
        if (!functions_integer(a[1], &number) || number < functions_hash_int(k->numbers, &a[0]))
            return bad(c, "fact number for", a[0]);
    }
    return true;
}

static bool check_timers(struct functions_call *c, const struct commit *k)
{
    for (size_t i = 0; i < k->s[TIMERS].count; i++) {
        const struct sl_str *a = &c->arg[k->s[TIMERS].at + 3 * i];
        struct sl_str object, name, gen;
        int64_t due = 0;
        if (sl_str_eq_c(a[0], "-"))
            continue;
        if (!sl_str_eq_c(a[0], "+"))
            return bad(c, "timer operation on", a[1]);
        if (!functions_integer(a[2], &due) || !functions_split_timer(a[1], &object, &name, &gen))
            return bad(c, "timer", a[1]);
    }
    return true;
}

/* Opened only when it is written: most commits leave some of them alone. */
static bool open_section(struct functions_call *c, struct commit *k, int section, size_t key,
                         enum store_type type, struct store_key **out)
{
    *out = NULL;
    return k->s[section].count == 0 || (*out = functions_fixed_key(c, key, type)) != NULL;
}

static bool check_sections(struct functions_call *c, struct commit *k)
{
    if (!open_section(c, k, OUT, 2, STORE_STREAM, &k->out) ||
        !open_section(c, k, TIMERS, 3, STORE_ZSET, &k->timers) ||
        !open_section(c, k, NUMBERS, 4, STORE_HASH, &k->numbers) ||
        !open_section(c, k, RELAY, 5, STORE_HASH, &k->relay) ||
        !open_section(c, k, DEAD, 6, STORE_STREAM, &k->dead))
        return false;
    if (!check_history(c, k) || !check_states(c, k) || !check_numbers(c, k) || !check_timers(c, k))
        return false;
    if (!functions_relay_ok(c, &k->s[RELAY])) {
        functions_refuse(c, "BAD relay positions");
        return false;
    }
    return true;
}

static bool check_head(struct functions_call *c, struct commit *k)
{
    struct sl_str offset = SL_STR("0-0");
    struct store_id from, to;
    if (!sl_mutant("no-epoch") && !functions_is_owner(c, k->meta)) {
        functions_refuse(c, FUNCTIONS_FENCED);
        return false;
    }
    (void)store_hash_get(k->meta, STORE_NAME(OFFSET), &offset);
    if (!sl_mutant("no-offset") && !sl_str_eq(offset, c->arg[2])) {
        functions_refuse(c, "MOVED_OFFSET %.*s", (int)(offset.len < 100 ? offset.len : 100), offset.ptr);
        return false;
    }
    if (!functions_integer_arg(c, 4, &k->now) || !functions_integer_arg(c, 5, &k->lease) ||
        !functions_integer_arg(c, 7, &k->keep) || !functions_id(c->arg[2], &from) ||
        !functions_id(c->arg[3], &to) || functions_id_before(to, from) || c->arg[6].len > sizeof k->tag - 3) {
        functions_refuse(c, "BAD arguments");
        return false;
    }
    if (k->now < functions_hash_int(k->meta, STORE_NAME(NOW))) {
        functions_refuse(c, "BAD now: it would run back");
        return false;
    }
    int n = snprintf(k->tag, sizeof k->tag, "{%.*s}", (int)c->arg[6].len, c->arg[6].ptr);
    k->tag_len = (size_t)n;
    return true;
}

/* ---- writes, in the order of functions.md ---- */

static void cut_histories(const struct commit *k)
{
    for (size_t i = 0; i < k->s[HISTORY].count; i++) {
        struct store_key *log = k->log[i];
        size_t len = store_list_len(log), keep = (size_t)k->keep;
        if (len <= keep + CUT_SLACK)
            continue;
        store_list_cut(log, len - keep);
        functions_hash_set_int(log->state, STORE_NAME(B), log->number - k->keep);
    }
}

static void write_history(struct functions_call *c, struct commit *k)
{
    for (size_t i = 0; i < k->s[HISTORY].count; i++) {
        store_list_push(k->log[i], &c->arg[k->s[HISTORY].at + 4 * i + 3]);
        k->is_long = k->is_long || (k->keep > 0 && store_list_len(k->log[i]) > (size_t)k->keep + CUT_SLACK);
    }
    if (k->is_long)
        cut_histories(k);
}

static void write_states(struct functions_call *c, const struct commit *k)
{
    for (size_t i = 0; i < k->s[STATES].count; i++) {
        const struct sl_str *a = &c->arg[k->s[STATES].at + 5 * i];
        struct store_key *state = k->state[i];
        if (sl_str_eq_c(a[1], "s")) {
            store_hash_set(state, STORE_NAME(S), &a[2]);
            store_hash_set(state, STORE_NAME(N), &a[3]);
            store_hash_set(state, STORE_NAME(V), &a[4]);
            continue;
        }
        store_delete(state);
        if (a[2].len > 0)
            store_delete(functions_key(c, &a[2], STORE_LIST));
    }
}

static void write_timers(const struct functions_call *c, const struct commit *k)
{
    for (size_t i = 0; i < k->s[TIMERS].count; i++) {
        const struct sl_str *a = &c->arg[k->s[TIMERS].at + 3 * i];
        int64_t due = 0;
        if (sl_str_eq_c(a[0], "-"))
            store_zset_del(k->timers, &a[1]);
        else if (functions_integer(a[2], &due))
            store_zset_set(k->timers, &a[1], (double)due);
    }
}

static void write_dead(struct functions_call *c, const struct commit *k)
{
    size_t at = k->s[DEAD].at;
    for (size_t i = 0; i < k->s[DEAD].count; i++) {
        struct functions_section strings;
        if (!functions_pairs_at(c, at + 2, &strings))
            return; /* not after parse_dead */
        struct sl_str *item = store_take(c->store, (strings.count + 4) * sizeof *item);
        item[0] = *STORE_NAME(E);
        item[1] = c->arg[at];
        item[2] = *STORE_NAME(R);
        item[3] = c->arg[at + 1];
        for (size_t j = 0; j < strings.count; j++)
            item[4 + j] = c->arg[strings.at + j];
        (void)store_stream_add(k->dead, item, strings.count + 4);
        at = strings.after;
    }
}

static void write_meta(struct functions_call *c, const struct commit *k)
{
    store_hash_set(k->meta, STORE_NAME(OFFSET), &c->arg[3]);
    store_hash_set(k->meta, STORE_NAME(NOW), &c->arg[4]);
    if (k->lease > 0)
        functions_hash_set_int(k->meta, STORE_NAME(UNTIL), store_now_ms(c->store) + k->lease);
}

/* Anything but the next number is left to deliver_1, which knows what to do about it. */
static void write_deliveries(struct functions_call *c, const struct commit *k)
{
    int64_t epoch = 0;
    for (size_t i = 0; i < k->deliveries && functions_integer(c->arg[0], &epoch); i++) {
        struct delivery *d = &k->delivery[i];
        const struct sl_str *key = &c->key[FIXED_KEYS + 2 * i];
        struct store_key *log = functions_key(c, &key[0], STORE_STREAM),
                         *from = functions_key(c, &key[1], STORE_HASH);
        if (log == NULL || from == NULL || d->facts.count == 0)
            continue;
        struct functions_mark mark = functions_mark_of(from, &c->arg[6]);
        if (mark.number + 1 == d->facts.first)
            d->mark = functions_facts_append(c, &d->facts, 0, log, from, &c->arg[6], mark, epoch).number;
    }
}

static void write_all(struct functions_call *c, struct commit *k)
{
    char text[FUNCTIONS_ID_BYTES];
    struct sl_str out_id = SL_STR_NONE;
    write_history(c, k);
    write_states(c, k);
    if (k->s[OUT].count > 0)
        out_id = functions_id_text(store_stream_add(k->out, &c->arg[k->s[OUT].at], k->s[OUT].count), text);
    for (size_t i = 0; i < k->s[NUMBERS].count; i++) {
        const struct sl_str *a = &c->arg[k->s[NUMBERS].at + 2 * i];
        store_hash_set(k->numbers, &a[0], &a[1]);
    }
    write_timers(c, k);
    functions_relay_write(c, k->relay, &k->s[RELAY]);
    write_dead(c, k);
    write_meta(c, k);
    write_deliveries(c, k);
    for (size_t i = 0; i < k->s[PUBLISHES].count; i++) {
        const struct sl_str *a = &c->arg[k->s[PUBLISHES].at + 2 * i];
        store_publish(c->store, &a[0], &a[1]);
    }
    if (k->s[PUBLISHES].count > 0)
        store_leave_out(c->store, &c->arg[k->s[PUBLISHES].at - 1], &c->arg[k->s[PUBLISHES].after]);
    store_reply_array(c->store, 2 + k->deliveries);
    store_reply_text(c->store, SL_STR("ok"));
    store_reply_text(c->store, out_id);
    for (size_t i = 0; i < k->deliveries; i++)
        store_reply_int(c->store, k->delivery[i].mark);
}

void functions_commit(struct functions_call *c)
{
    struct commit k = {.keep = 0};
    if (c->keys < FIXED_KEYS || c->args < HEAD_ARGS + 1) {
        functions_refuse(c, "BAD counts");
        return;
    }
    if ((k.meta = functions_fixed_key(c, 0, STORE_HASH)) == NULL || !check_head(c, &k))
        return;
    if (!parse_sections(c, &k)) {
        functions_refuse(c, "BAD counts");
        return;
    }
    if (check_sections(c, &k))
        write_all(c, &k);
}
