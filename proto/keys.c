#include "proto/keys.h"

#include "proto/message.h"

#include "base/ulid.h"

#include <stdio.h>

static void add(struct key *k, const char *p, size_t n)
{
    sl_assert(n < KEY_MAX_BYTES -
                      k->len); /* parts were checked at the edge (key_part_ok); one byte stays for the NUL */
    if (n > 0)
        memcpy(k->ptr + k->len, p, n);
    k->len += n;
    k->ptr[k->len] = '\0';
}

static void add_c(struct key *k, const char *s)
{
    add(k, s, strlen(s));
}

/* <kind>:{tag} and, when there is one, :<id> */
static struct key tagged(const char *kind, const char *tag)
{
    struct key k;
    size_t kind_len = strlen(kind), tag_len = strlen(tag);
    k.len = kind_len + tag_len + 3;
    sl_assert(k.len < KEY_MAX_BYTES);
    memcpy(k.ptr, kind, kind_len);
    memcpy(k.ptr + kind_len, ":{", 2);
    memcpy(k.ptr + kind_len + 2, tag, tag_len);
    memcpy(k.ptr + k.len - 1, "}", 2);
    return k;
}

static void add_part(struct key *k, struct sl_str part)
{
    add(k, ":", 1);
    add(k, part.ptr, part.len);
}

static struct key tagged_id(const char *kind, const char *tag, struct sl_str id)
{
    struct key k = tagged(kind, tag);
    add_part(&k, id);
    return k;
}

static struct key plain(const char *prefix, struct sl_str name)
{
    struct key k;
    k.len = 0;
    add_c(&k, prefix);
    add_part(&k, name);
    return k;
}

struct key key_in(const char *tag)
{
    return tagged("in", tag);
}
struct key key_out(const char *tag)
{
    return tagged("out", tag);
}
struct key key_meta(const char *tag)
{
    return tagged("meta", tag);
}
struct key key_timers(const char *tag)
{
    return tagged("timers", tag);
}
struct key key_numbers(const char *tag)
{
    return tagged("num", tag);
}
struct key key_relay(const char *tag)
{
    return tagged("relay", tag);
}
struct key key_tails(const char *tag)
{
    return tagged("tails", tag);
}
struct key key_dead(const char *tag)
{
    return tagged("dead", tag);
}

struct key key_state(const char *kind, const char *tag, struct sl_str id)
{
    return tagged_id(kind, tag, id);
}
struct key key_log(const char *tag, struct sl_str id)
{
    return tagged_id("log", tag, id);
}
struct key key_seen(const char *tag, struct sl_str bucket)
{
    return tagged_id("seen", tag, bucket);
}

struct key key_session(const char *tag, struct sl_str session, struct sl_str target)
{
    struct key k = tagged_id("sess", tag, session);
    if (target.len > 0)
        add_part(&k, target);
    return k;
}

struct key key_box(const char *inbox, struct sl_str name)
{
    struct key k;
    k.len = 0;
    add_c(&k, "box:{send:");
    add_c(&k, inbox);
    add_c(&k, "}");
    add_part(&k, name);
    return k;
}

/* What Redis hashes of a key: the bytes between the first '{' and the next '}', or the whole key when there
 * is no such pair or nothing in it (redis.io/docs/reference/cluster-spec, "Hash tags"). */
static struct sl_str hash_tag(struct sl_str key)
{
    const char *open = memchr(key.ptr, '{', key.len);
    if (open == NULL)
        return key;
    size_t left = key.len - (size_t)(open + 1 - key.ptr);
    const char *close = memchr(open + 1, '}', left);
    if (close == NULL || close == open + 1)
        return key;
    return sl_str_n(open + 1, (size_t)(close - open - 1));
}

struct key key_from(struct sl_str destination)
{
    struct sl_str tag = hash_tag(destination);
    struct key k;
    k.len = 0;
    add_c(&k, "from:{");
    add(&k, tag.ptr, tag.len);
    add_c(&k, "}");
    return k;
}

struct key key_bot(struct sl_str name)
{
    return plain("bot", name);
}

struct key key_push_visitor(const char *tag, struct sl_str addr)
{
    return tagged_id("pv", tag, addr);
}
struct key key_push_conversation(const char *tag, struct sl_str conv)
{
    return tagged_id("pc", tag, conv);
}
struct key key_push_agent(const char *tag, struct sl_str agent)
{
    return tagged_id("pa", tag, agent);
}
struct key key_push_queue(const char *tag)
{
    return tagged("pq", tag);
}
struct key key_push_session(struct sl_str session)
{
    return plain("ps", session);
}

void key_desk_tag(char out[KEY_TAG_MAX_BYTES], struct sl_str tenant)
{
    int n = snprintf(out, KEY_TAG_MAX_BYTES, "desk:%.*s", (int)tenant.len, tenant.ptr);
    sl_assert(n > 5 && n < KEY_TAG_MAX_BYTES); /* tenants are configured, at most KEY_TENANT_MAX_BYTES */
}

void key_lane_tag(char out[KEY_TAG_MAX_BYTES], struct sl_str inbox)
{
    int n = snprintf(out, KEY_TAG_MAX_BYTES, KEY_LANE_PREFIX "%.*s", (int)inbox.len, inbox.ptr);
    sl_assert(n > 5 && n < KEY_TAG_MAX_BYTES); /* such an inbox has at most KEY_LANE_INBOX_MAX_BYTES */
}

bool key_is_lane_log(struct sl_str stream)
{
    static const char head[] = "in:{" KEY_LANE_PREFIX;
    const size_t n = sizeof head - 1;
    if (!sl_str_starts(stream, head) || stream.len <= n + 1 || stream.ptr[stream.len - 1] != '}')
        return false;
    const struct sl_str inbox = sl_str_n(stream.ptr + n, stream.len - n - 1);
    return inbox.len <= KEY_LANE_INBOX_MAX_BYTES && key_part_ok(inbox);
}

void key_partition_tag(char out[KEY_TAG_MAX_BYTES], unsigned k)
{
    int n = snprintf(out, KEY_TAG_MAX_BYTES, "%u", k);
    sl_assert(n > 0 && n < KEY_TAG_MAX_BYTES);
}

/* Digits before the dot: 1 to 5 without a leading zero, so that one partition has one spelling; 0 when
 * malformed. */
static size_t partition_digits(struct sl_str conv)
{
    size_t n = 0;
    while (n < conv.len && conv.ptr[n] >= '0' && conv.ptr[n] <= '9')
        n++;
    if (n < 1 || n > 5 || (n > 1 && conv.ptr[0] == '0'))
        return 0;
    return n;
}

sl_err key_conversation_tag(char out[KEY_TAG_MAX_BYTES], struct sl_str conv)
{
    size_t n = partition_digits(conv);
    if (n == 0 || n == conv.len || conv.ptr[n] != '.')
        return SL_EINVAL;
    if (!sl_ulid_valid(sl_str_n(conv.ptr + n + 1, conv.len - n - 1)))
        return SL_EINVAL;
    memcpy(out, conv.ptr, n);
    out[n] = '\0';
    return SL_OK;
}

/* FNV-1a, 64 bits: draft-eastlake-fnv, offset basis and prime. */
static uint64_t fnv1a(struct sl_str s)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < s.len; i++)
        hash = (hash ^ (unsigned char)s.ptr[i]) * UINT64_C(1099511628211);
    return hash;
}

unsigned key_address_partition(struct sl_str addr, unsigned partitions)
{
    sl_assert(partitions > 0);
    return (unsigned)(fnv1a(addr) % partitions);
}

static const bool is_part_char[256] = {
    ['0'] = 1, ['1'] = 1, ['2'] = 1, ['3'] = 1, ['4'] = 1, ['5'] = 1, ['6'] = 1, ['7'] = 1, ['8'] = 1,
    ['9'] = 1, ['a'] = 1, ['b'] = 1, ['c'] = 1, ['d'] = 1, ['e'] = 1, ['f'] = 1, ['g'] = 1, ['h'] = 1,
    ['i'] = 1, ['j'] = 1, ['k'] = 1, ['l'] = 1, ['m'] = 1, ['n'] = 1, ['o'] = 1, ['p'] = 1, ['q'] = 1,
    ['r'] = 1, ['s'] = 1, ['t'] = 1, ['u'] = 1, ['v'] = 1, ['w'] = 1, ['x'] = 1, ['y'] = 1, ['z'] = 1,
    ['A'] = 1, ['B'] = 1, ['C'] = 1, ['D'] = 1, ['E'] = 1, ['F'] = 1, ['G'] = 1, ['H'] = 1, ['I'] = 1,
    ['J'] = 1, ['K'] = 1, ['L'] = 1, ['M'] = 1, ['N'] = 1, ['O'] = 1, ['P'] = 1, ['Q'] = 1, ['R'] = 1,
    ['S'] = 1, ['T'] = 1, ['U'] = 1, ['V'] = 1, ['W'] = 1, ['X'] = 1, ['Y'] = 1, ['Z'] = 1, ['.'] = 1,
    ['_'] = 1, ['@'] = 1, ['+'] = 1, ['-'] = 1,
};

bool key_part_ok(struct sl_str s)
{
    if (s.len < 1 || s.len > MSG_ID_MAX_BYTES || (s.len == 1 && s.ptr[0] == '-'))
        return false;
    for (size_t i = 0; i < s.len; i++)
        if (!is_part_char[(unsigned char)s.ptr[i]])
            return false;
    return true;
}
