/* base/log.c - one line an event on stderr. */
#include "base/log.h"

#include "base/log_priv.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static const char *const level_name[] = {
    [SL_ERROR] = "error", [SL_WARN] = "warn", [SL_INFO] = "info", [SL_DEBUG] = "debug"};

/* The one log of the process. Guarded by lock: the thread pool may log too. */
static struct {
    pthread_mutex_t lock;
    char role[32];
    enum sl_level level;
    enum sl_log_format format;
    struct sl_flood flood;
    bool has_exit_hook;
} the_log = {.lock = PTHREAD_MUTEX_INITIALIZER, .level = SL_INFO};

/* Floods. */

static uint64_t flood_hash(enum sl_level level, const char *msg)
{
    uint64_t h = sl_str_hash(sl_str_c(msg), (uint64_t)level);
    return h != 0 ? h : 1;
}

/* The slot of this message, or the one to give up for it: a free one, else the oldest with nothing held, else
 * the oldest. */
static struct sl_flood_slot *flood_slot(struct sl_flood *f, uint64_t hash)
{
    struct sl_flood_slot *best = &f->slot[0];
    for (size_t i = 0; i < SL_LOG_FLOOD_SLOTS; i++) {
        struct sl_flood_slot *s = &f->slot[i];
        if (s->hash == hash)
            return s;
        if ((s->held > 0) != (best->held > 0) ? s->held == 0 : s->since_mono_ms < best->since_mono_ms)
            best = s;
    }
    return best;
}

static void flood_slot_take(struct sl_flood *f, struct sl_flood_slot *s, uint64_t hash, enum sl_level level,
                            const char *msg)
{
    f->held -= s->held;
    *s = (struct sl_flood_slot){.hash = hash, .level = level};
    size_t n = strnlen(msg, sizeof s->msg - 1);
    memcpy(s->msg, msg, n);
}

bool sl_flood_pass(struct sl_flood *f, enum sl_level level, const char *msg, uint64_t now_mono_ms,
                   uint64_t *repeated)
{
    uint64_t hash = flood_hash(level, msg);
    struct sl_flood_slot *s = flood_slot(f, hash);
    if (s->hash != hash) {
        flood_slot_take(f, s, hash, level, msg);
        s->since_mono_ms = now_mono_ms;
    }
    *repeated = 0;
    if (now_mono_ms - s->since_mono_ms >= 1000) {
        *repeated = s->held;
        f->held -= s->held;
        s->held = 0;
        s->since_mono_ms = now_mono_ms;
        s->passed = 0;
    }
    if (s->passed < SL_LOG_BURST) {
        s->passed++;
        return true;
    }
    s->held++;
    f->held++;
    return false;
}

const struct sl_flood_slot *sl_flood_report(struct sl_flood *f, uint64_t now_mono_ms, uint64_t *repeated)
{
    for (size_t i = 0; f->held > 0 && i < SL_LOG_FLOOD_SLOTS; i++) {
        struct sl_flood_slot *s = &f->slot[i];
        bool is_over = now_mono_ms == UINT64_MAX || now_mono_ms - s->since_mono_ms >= 1000;
        if (s->held == 0 || !is_over)
            continue;
        *repeated = s->held;
        f->held -= s->held;
        s->held = 0;
        return s;
    }
    return NULL;
}

/* One line. */

/* Could this character end a line, steer a terminal or turn the reading direction? (C0, DEL, C1, U+2028/9,
 * bidi controls) */
static bool is_unprintable(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0x2028 || c == 0x2029 ||
           (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0x200e || c == 0x200f ||
           c == 0xfeff;
}

/* The character at p in valid UTF-8. */
static size_t decode(const unsigned char *p, uint32_t *c)
{
    if (p[0] < 0x80)
        return *c = p[0], 1;
    size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    *c = p[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++)
        *c = *c << 6 | (p[i] & 0x3fu);
    return n;
}

/* In quotes, with JSON's escapes (logfmt readers know the same). Bytes that are not UTF-8 become \u00XX. */
static void write_quoted(struct sl_buf *out, struct sl_str v)
{
    bool is_utf8 = sl_str_utf8(v);
    const unsigned char *p = (const unsigned char *)v.ptr;
    sl_buf_char(out, '"');
    for (size_t i = 0; i < v.len;) {
        uint32_t c = p[i];
        size_t n = is_utf8 ? decode(p + i, &c) : 1;
        if (c == '"' || c == '\\') {
            sl_buf_add(out, (const char[]){'\\', (char)c}, 2);
        } else if (c == '\n') {
            sl_buf_c(out, "\\n");
        } else if (is_unprintable(c) || (!is_utf8 && c >= 0x80)) {
            sl_buf_printf(out, "\\u%04x", c);
        } else {
            sl_buf_add(out, p + i, n);
        }
        i += n;
    }
    sl_buf_char(out, '"');
}

static bool is_bare(struct sl_str v)
{
    for (size_t i = 0; i < v.len; i++) {
        char c = v.ptr[i];
        if (c <= ' ' || c > '~' || c == '"' || c == '=' || c == '\\')
            return false;
    }
    return v.len > 0;
}

/* Cut at a character's start. */
static struct sl_str cut(struct sl_str v, bool *is_cut)
{
    if (v.len <= SL_LOG_VALUE_MAX)
        return v;
    *is_cut = true;
    size_t n = SL_LOG_VALUE_MAX;
    while (n > SL_LOG_VALUE_MAX - 4 && ((unsigned char)v.ptr[n] & 0xC0) == 0x80)
        n--;
    return sl_str_n(v.ptr, n);
}

static void write_key(struct sl_buf *out, enum sl_log_format format, const char *key)
{
    if (out->len > 0)
        sl_buf_char(out, format == SL_LOG_JSON ? ',' : ' ');
    if (format == SL_LOG_JSON)
        sl_buf_printf(out, "\"%s\":", key);
    else
        sl_buf_printf(out, "%s=", key);
}

static void write_field(struct sl_buf *out, enum sl_log_format format, const char *key, struct sl_str v)
{
    bool is_cut = false;
    v = cut(v, &is_cut);
    write_key(out, format, key);
    if (format == SL_LOG_LOGFMT && is_bare(v))
        sl_buf_str(out, v);
    else
        write_quoted(out, v);
    if (is_cut) {
        write_key(out, format, "cut");
        sl_buf_c(out, "true");
    }
}

static void write_time(struct sl_buf *out, enum sl_log_format format, int64_t unix_ms)
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm tm;
    char day[32];
    if (gmtime_r(&seconds, &tm) == NULL || strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm) == 0)
        day[0] = '\0';
    write_key(out, format, "ts");
    sl_buf_printf(out, format == SL_LOG_JSON ? "\"%s.%03dZ\"" : "%s.%03dZ", day, (int)(unix_ms % 1000));
}

static void write_kv(struct sl_buf *out, enum sl_log_format format, const struct sl_kv *kv)
{
    if (kv->type == SL_KV_T_STR) {
        write_field(out, format, kv->key, kv->s);
        return;
    }
    write_key(out, format, kv->key);
    sl_buf_int(out, kv->i);
}

void sl_log_write_line(struct sl_buf *out, const struct sl_log_line *line)
{
    struct sl_buf fields;
    sl_buf_init(&fields, 64 * 1024); /* 20 values of the largest size; a longer line ends there */
    write_time(&fields, line->format, line->unix_ms);
    write_field(&fields, line->format, "level", sl_str_c(level_name[line->level]));
    if (line->role[0] != '\0')
        write_field(&fields, line->format, "role", sl_str_c(line->role));
    write_field(&fields, line->format, "msg", sl_str_c(line->msg));
    if (line->repeated > 0)
        write_kv(&fields, line->format, &SL_KV_I("repeated", line->repeated));
    for (const struct sl_kv *kv = line->kv; kv != NULL && kv->key != NULL; kv++) {
        size_t before = fields.len;
        write_kv(&fields, line->format, kv);
        if (fields.overflow) {
            fields.len = before;
            break;
        }
    }
    sl_buf_c(out, line->format == SL_LOG_JSON ? "{" : "");
    sl_buf_str(out, sl_buf_view(&fields));
    sl_buf_c(out, line->format == SL_LOG_JSON ? "}\n" : "\n");
    sl_buf_fini(&fields);
}

/* Masking. */

static size_t word_len(struct sl_str s)
{
    size_t n = 0;
    while (n < s.len && s.ptr[n] != ' ' && s.ptr[n] != '\n' && s.ptr[n] != '\t')
        n++;
    return n;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_secret_word(struct sl_str w)
{
    size_t run = 0; /* letters and digits in a row: a token or a key, hardly a word */
    for (size_t i = 0; i < w.len; i++) {
        char c = w.ptr[i];
        bool is_token =
            is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-';
        run = is_token ? run + 1 : 0;
        if (c == '@' || run >= 20)
            return true;
    }
    return false;
}

void sl_log_mask(struct sl_buf *out, struct sl_str words)
{
    for (size_t i = 0; i < words.len;) {
        struct sl_str w = sl_str_n(words.ptr + i, word_len(sl_str_n(words.ptr + i, words.len - i)));
        i += w.len;
        if (is_secret_word(w))
            sl_buf_c(out, "***");
        else
            for (size_t k = 0; k < w.len; k++)
                sl_buf_char(out, is_digit(w.ptr[k]) ? '#' : w.ptr[k]);
        if (i < words.len)
            sl_buf_char(out, words.ptr[i++]);
    }
}

/* The process's log. */

static uint64_t clock_ms(clockid_t id)
{
    struct timespec now;
    sl_assert(clock_gettime(id, &now) == 0);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* A log that cannot be written must not stop the process: what does not go out is lost. */
static void write_out(struct sl_str line)
{
    while (line.len > 0) {
        ssize_t n = write(STDERR_FILENO, line.ptr, line.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        line = sl_str_n(line.ptr + n, line.len - (size_t)n);
    }
}

static void emit(enum sl_level level, const char *msg, uint64_t repeated, const struct sl_kv *kv)
{
    struct sl_log_line line = {.format = the_log.format,
                               .level = level,
                               .unix_ms = (int64_t)clock_ms(CLOCK_REALTIME),
                               .role = the_log.role,
                               .msg = msg,
                               .repeated = repeated,
                               .kv = kv};
    struct sl_buf out = {0};
    sl_log_write_line(&out, &line);
    write_out(sl_buf_view(&out));
    sl_buf_fini(&out);
}

static void report_held(uint64_t now_mono_ms)
{
    uint64_t repeated;
    const struct sl_flood_slot *s;
    while ((s = sl_flood_report(&the_log.flood, now_mono_ms, &repeated)) != NULL)
        emit(s->level, s->msg, repeated, NULL);
}

static void on_exit_report(void)
{
    if (pthread_mutex_trylock(&the_log.lock) != 0)
        return;
    report_held(UINT64_MAX);
    pthread_mutex_unlock(&the_log.lock);
}

void sl_log_setup(const char *role, enum sl_level level, enum sl_log_format format)
{
    pthread_mutex_lock(&the_log.lock);
    size_t n = strnlen(role, sizeof the_log.role - 1);
    memcpy(the_log.role, role, n);
    the_log.role[n] = '\0';
    the_log.level = level;
    the_log.format = format;
    if (!the_log.has_exit_hook)
        the_log.has_exit_hook = atexit(on_exit_report) == 0;
    pthread_mutex_unlock(&the_log.lock);
}

bool sl_log_enabled(enum sl_level level)
{
    return level <= the_log.level;
}

void sl_log_line(enum sl_level level, const char *msg, const struct sl_kv *kv)
{
    if (!sl_log_enabled(level))
        return;
    pthread_mutex_lock(&the_log.lock);
    uint64_t now_mono_ms = clock_ms(CLOCK_MONOTONIC), repeated;
    bool may_pass = sl_flood_pass(&the_log.flood, level, msg, now_mono_ms, &repeated);
    report_held(now_mono_ms);
    if (may_pass)
        emit(level, msg, repeated, kv);
    pthread_mutex_unlock(&the_log.lock);
}

void sl_log_text(const char *msg, const char *key, struct sl_str customer_words)
{
    if (!sl_log_enabled(SL_DEBUG))
        return;
    struct sl_buf masked = {0};
    sl_log_mask(&masked, customer_words);
    sl_log(SL_DEBUG, msg, SL_KV_S(key, sl_buf_view(&masked)));
    sl_buf_fini(&masked);
}
