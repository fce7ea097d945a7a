/* channels/email/email_imap.c - a hosted mailbox, polled through libcurl by the one gateway that holds the inbox's lane.
 *
 * Cursor   (UIDVALIDITY, UID) among the inbox's shared values, saved after the append, and nothing else. libcurl 7.88 fetches
 *          without PEEK and so sets \Seen before the append, and people may read the mailbox, too: \Seen means nothing here.
 *          A kill between fetch and append fetches again; a kill between append and save appends again, which the store
 *          knows as a repeat.
 * Turn     STATUS -> UID SEARCH -> for each: FETCH, store, save the cursor, mark. One transfer at a time.
 * Source   RFC 3501 2.3.1.1 (UID, UIDVALIDITY), 6.3.10 (STATUS), 6.4.8 (UID); RFC 6851 (MOVE). libcurl: custom commands return
 *          only untagged lines, hence the URL for FETCH.
 */
#include "channels/email/email_priv.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/metrics.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>

#define BATCH_MAX    50 /* mails of one turn */
#define LINES_MAX    (256u << 10)
#define CONNECT_MS   10000
#define WHOLE_MS     120000 /* of a mail */
#define COMMAND_MS   15000
#define RETRY_MIN_MS 2000
#define AGAIN_DAYS   7 /* after a change of UIDVALIDITY: younger than the horizon in which a repeat is known */
#define CURSOR       "imap-cursor"

enum imap_step {
    IMAP_IDLE,
    IMAP_CURSOR,
    IMAP_STATUS,
    IMAP_SEARCH,
    IMAP_FETCH,
    IMAP_STORE,
    IMAP_SAVE,
    IMAP_MARK,
    IMAP_LEAVE
};

struct email_imap {
    struct email *em;
    enum imap_step step;
    struct sl_timer pause;
    uint64_t transfer;
    struct sl_buf in; /* what the transfer gave */
    bool is_too_big;
    uint64_t validity, last;     /* the cursor; validity 0: never polled */
    uint64_t now_validity, next; /* of the mailbox */
    uint64_t uid[BATCH_MAX];
    size_t uid_count, uid_at;
    bool is_more; /* the batch was full */
    /* The connection has the mailbox selected: STATUS would tell what was there then (RFC 3501 6.3.10), so it is closed. */
    bool has_selected, is_beginning;
    uint64_t intake;
    char url[1024], command[512];
    unsigned failures;
    bool is_alarmed;
    struct sl_metric *lag;
};

static void imap_go(struct email_imap *p, enum imap_step step);

/* ---- transfers ---- */

static size_t on_bytes(char *bytes, size_t size, size_t count, void *arg)
{
    struct email_imap *p = arg;
    sl_buf_add(&p->in, bytes, size * count);
    p->is_too_big = p->is_too_big || p->in.overflow;
    return size *
           count; /* a mail that is too large is read to its end, so that the connection can be used again */
}

static sl_err on_setup(void *arg, void *easy, struct sl_fail *why)
{
    struct email_imap *p = arg;
    const struct email *em = p->em;
    (void)why;
    curl_easy_setopt(easy, CURLOPT_URL, p->url);
    if (p->command[0] != '\0')
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, p->command);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, p);
    const bool is_loopback =
        strstr(em->imap_url, "://127.") != NULL || strstr(em->imap_url, "://localhost") != NULL;
    curl_easy_setopt(easy, CURLOPT_USE_SSL, (long)(is_loopback ? CURLUSESSL_TRY : CURLUSESSL_ALL));
    if (em->ca_file[0] != '\0')
        curl_easy_setopt(easy, CURLOPT_CAINFO, em->ca_file);
    curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, p->step == IMAP_LEAVE ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_USERNAME, em->user);
    curl_easy_setopt(easy, CURLOPT_PASSWORD, em->password);
    return SL_OK;
}

static void again_later(struct email_imap *p, const char *what, const char *words)
{
    const uint64_t poll = (uint64_t)p->em->imap_poll_ms;
    p->step = IMAP_IDLE;
    p->failures++;
    email_count("imap-failed");
    if (p->failures == 3) {
        char text[400];
        (void)snprintf(text, sizeof text, "the mailbox cannot be polled (%s): %s", what, words);
        chan_host_of(p->em->ch)->alarm(p->em->ch, "imap", true, text);
        p->is_alarmed = true;
    }
    sl_log(SL_WARN, "email: a poll of the mailbox failed", SL_KV("inbox", chan_inbox(p->em->ch)),
           SL_KV("at", what), SL_KV("why", words));
    uint64_t wait = (uint64_t)RETRY_MIN_MS << (p->failures < 8 ? p->failures : 8);
    if (wait > poll)
        wait = poll > RETRY_MIN_MS ? poll : RETRY_MIN_MS;
    sl_timer_start(&p->pause, wait / 2 + sl_loop_jitter(chan_loop(p->em->ch), wait / 2));
}

static void read_cursor(struct email_imap *p);
static void poll_over(struct email_imap *p);
static void on_status(struct email_imap *p);
static void on_search(struct email_imap *p);
static void on_fetched(struct email_imap *p);
static void next_mail(struct email_imap *p);

static const char *const step_names[] = {"idle",  "cursor", "status", "search", "fetch",
                                         "store", "save",   "mark",   "leave"};

static void on_done(void *arg, void *easy, sl_err err, bool is_begun, const struct sl_fail *why)
{
    struct email_imap *p = arg;
    const enum imap_step step = p->step;
    (void)easy;
    (void)is_begun;
    p->transfer = 0;
    if (p->em->is_closing || p->em->is_draining || !p->em->is_holder) {
        p->step = IMAP_IDLE;
        return;
    }
    if (step == IMAP_LEAVE) {
        p->has_selected = false;
        (p->is_beginning ? read_cursor : poll_over)(p);
        return;
    }
    if (err != SL_OK && step != IMAP_MARK) {
        again_later(p, step_names[step], why->text);
        return;
    }
    if (step == IMAP_STATUS)
        on_status(p);
    else if (step == IMAP_SEARCH)
        on_search(p);
    else if (step == IMAP_FETCH)
        on_fetched(p);
    else if (step == IMAP_MARK) {
        if (err != SL_OK) /* the mail is in the store: a missing mark loses nothing */
            email_count("imap-unmarked");
        next_mail(p);
    }
}

static void transfer(struct email_imap *p, enum imap_step step, size_t max)
{
    struct sl_fail why = {.text = ""};
    const struct sl_http_transfer t = {.setup = on_setup,
                                       .done = on_done,
                                       .arg = p,
                                       .connect_ms = CONNECT_MS,
                                       .whole_ms = step == IMAP_FETCH ? WHOLE_MS : COMMAND_MS};
    p->step = step;
    sl_buf_fini(&p->in);
    sl_buf_init(&p->in, max);
    p->is_too_big = false;
    if (sl_http_transfer(p->em->http, &t, &p->transfer, &why) != SL_OK)
        again_later(p, step_names[step], why.text);
}

/* ---- what servers say ---- */

/* The number behind this word in an untagged line, 0: none. */
static uint64_t number_after(struct sl_str text, const char *word)
{
    size_t at;
    uint64_t v = 0;
    if (!sl_str_find(text, sl_str_c(word), &at))
        return 0;
    for (size_t i = at + strlen(word); i < text.len && v < UINT32_MAX; i++) {
        const char c = text.ptr[i];
        if (c == ' ' && v == 0)
            continue;
        if (c < '0' || c > '9')
            break;
        v = v * 10 + (uint64_t)(c - '0');
    }
    return v;
}

/* "* SEARCH 3 5 9": those above the cursor, in order, the lowest first. "n:*" always finds the last one, too. */
static void read_uids(struct email_imap *p)
{
    struct sl_str rest = sl_buf_view(&p->in), line;
    p->uid_count = p->uid_at = 0;
    p->is_more = false;
    while (email_next_line(&rest, &line)) {
        if (!email_starts_nocase(line, "* SEARCH"))
            continue;
        uint64_t v = 0;
        for (size_t i = 8; i <= line.len; i++) {
            const char c = i < line.len ? line.ptr[i] : ' ';
            if (c >= '0' && c <= '9' && v < UINT32_MAX) {
                v = v * 10 + (uint64_t)(c - '0');
                continue;
            }
            if (v > p->last && p->uid_count < BATCH_MAX)
                p->uid[p->uid_count++] = v;
            else if (v > p->last)
                p->is_more = true;
            v = 0;
        }
    }
    for (size_t i = 1; i < p->uid_count; i++) /* a server may give them in any order */
        for (size_t k = i; k > 0 && p->uid[k] < p->uid[k - 1]; k--) {
            const uint64_t swap = p->uid[k];
            p->uid[k] = p->uid[k - 1];
            p->uid[k - 1] = swap;
        }
}

/* ---- one turn ---- */

static void poll_over(struct email_imap *p)
{
    if (p->has_selected) {
        p->is_beginning = false;
        imap_go(p, IMAP_LEAVE);
        return;
    }
    p->failures = 0;
    if (p->is_alarmed)
        chan_host_of(p->em->ch)->alarm(p->em->ch, "imap", false, "");
    p->is_alarmed = false;
    p->step = IMAP_IDLE;
    email_count("imap-polled");
    sl_timer_start(&p->pause, p->is_more ? 0 : (uint64_t)p->em->imap_poll_ms);
}

static void on_cursor(void *arg, sl_err err, struct sl_str value)
{
    struct email_imap *p = arg;
    if (p->step != IMAP_CURSOR)
        return;
    if (err != SL_OK && err != SL_ENOTFOUND) {
        again_later(p, "cursor", sl_err_text(err));
        return;
    }
    const char *blank = err == SL_OK && value.len > 0 ? memchr(value.ptr, ' ', value.len) : NULL;
    p->validity = p->last = 0;
    if (blank != NULL) {
        const size_t n = (size_t)(blank - value.ptr);
        if (sl_str_uint(sl_str_n(value.ptr, n), &p->validity) != SL_OK ||
            sl_str_uint(sl_str_n(blank + 1, value.len - n - 1), &p->last) != SL_OK)
            p->validity = p->last = 0;
    }
    imap_go(p, IMAP_STATUS);
}

static void save_cursor(struct email_imap *p);

static void on_status(struct email_imap *p)
{
    p->now_validity = number_after(sl_buf_view(&p->in), "UIDVALIDITY");
    p->next = number_after(sl_buf_view(&p->in), "UIDNEXT");
    if (p->now_validity == 0 || p->next == 0) {
        again_later(p, "status", "the server's answer to STATUS cannot be read");
        return;
    }
    p->uid_count = p->uid_at = 0;
    p->is_more = false;
    if (p->validity == 0) { /* the first poll ever: what is there already is not ours to answer */
        p->last = p->next - 1;
        save_cursor(p);
        return;
    }
    if (p->validity == p->now_validity && p->next <= p->last + 1) {
        poll_over(p);
        return;
    }
    imap_go(p, IMAP_SEARCH);
}

static void on_search(struct email_imap *p)
{
    if (p->validity != p->now_validity) { /* the mailbox was made anew: its numbers mean other mails */
        sl_log(SL_WARN, "email: the mailbox has a new UIDVALIDITY; mails of the last days are read again",
               SL_KV("inbox", chan_inbox(p->em->ch)));
        p->last = 0;
    }
    read_uids(p);
    sl_gauge_set(p->lag, (int64_t)p->uid_count);
    if (p->uid_count == 0) {
        if (p->validity != p->now_validity) {
            p->last = p->next - 1;
            save_cursor(p);
        } else {
            poll_over(p);
        }
        return;
    }
    imap_go(p, IMAP_FETCH);
}

static void on_stored(void *arg, uint64_t id, sl_err result)
{
    struct email_imap *p = arg;
    if (p->intake != id)
        return;
    p->intake = 0;
    if (result != SL_OK) {
        again_later(p, "store", "the store is busy");
        return;
    }
    p->last = p->uid[p->uid_at];
    sl_kill_point("mail.imap_before_cursor");
    save_cursor(p);
}

static void on_fetched(struct email_imap *p)
{
    const struct email_envelope env = {.is_known = false};
    sl_kill_point("mail.imap_fetched");
    if (p->in.len == 0 && !p->is_too_big) { /* deleted meanwhile */
        p->last = p->uid[p->uid_at];
        save_cursor(p);
        return;
    }
    p->step = IMAP_STORE;
    if (!email_intake_has_room(p->em)) {
        again_later(p, "store", "too many mails at once");
        return;
    }
    p->intake =
        email_intake(p->em, &p->in, &env, on_stored, p); /* one that is too large goes to quarantine, cut */
}

static void on_saved(void *arg, sl_err err, struct sl_str value)
{
    struct email_imap *p = arg;
    (void)value;
    if (p->step != IMAP_SAVE)
        return;
    if (err != SL_OK) {
        again_later(p, "save", sl_err_text(err));
        return;
    }
    p->validity = p->now_validity;
    if (p->uid_at < p->uid_count && (p->em->imap_keyword[0] != '\0' || p->em->imap_move[0] != '\0'))
        imap_go(p, IMAP_MARK);
    else
        next_mail(p);
}

static void save_cursor(struct email_imap *p)
{
    char value[64];
    const int n = snprintf(value, sizeof value, "%llu %llu", (unsigned long long)p->now_validity,
                           (unsigned long long)p->last);
    p->step = IMAP_SAVE;
    if (email_kv(p->em, CHAN_KV_SET, CURSOR, SL_STR_NONE, sl_str_n(value, (size_t)n), 0, on_saved, p) !=
        SL_OK)
        again_later(p, "save", "the store is not there");
}

static void next_mail(struct email_imap *p)
{
    if (p->uid_count == 0 || ++p->uid_at >= p->uid_count)
        poll_over(p);
    else
        imap_go(p, IMAP_FETCH);
}

static void write_search(struct email_imap *p)
{
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    const time_t since = (time_t)(sl_loop_unix_ms(chan_loop(p->em->ch)) / 1000) - (time_t)AGAIN_DAYS * 86400;
    struct tm tm = {.tm_mday = 1};
    (void)gmtime_r(&since, &tm);
    if (p->validity == p->now_validity)
        (void)snprintf(p->command, sizeof p->command, "UID SEARCH UID %llu:*",
                       (unsigned long long)(p->last + 1));
    else
        (void)snprintf(p->command, sizeof p->command, "UID SEARCH SINCE %d-%s-%d", tm.tm_mday,
                       months[tm.tm_mon % 12], tm.tm_year + 1900);
}

/* imap_url and imap_mailbox were checked: no character in them needs escaping. */
static void imap_go(struct email_imap *p, enum imap_step step)
{
    const struct email *em = p->em;
    const unsigned long long uid = p->uid_at < p->uid_count ? p->uid[p->uid_at] : 0;
    p->command[0] = '\0';
    (void)snprintf(p->url, sizeof p->url, "%s/%s", em->imap_url, step == IMAP_STATUS ? "" : em->imap_mailbox);
    if (step == IMAP_STATUS) {
        (void)snprintf(p->command, sizeof p->command, "STATUS %s (UIDVALIDITY UIDNEXT)", em->imap_mailbox);
        transfer(p, step, LINES_MAX);
    } else if (step == IMAP_LEAVE) {
        (void)snprintf(p->command, sizeof p->command, "NOOP");
        transfer(p, step, LINES_MAX);
    } else if (step == IMAP_SEARCH) {
        p->has_selected = true;
        write_search(p);
        transfer(p, step, LINES_MAX);
    } else if (step == IMAP_FETCH) {
        (void)snprintf(p->url, sizeof p->url, "%s/%s;UIDVALIDITY=%llu/;UID=%llu", em->imap_url,
                       em->imap_mailbox, (unsigned long long)p->now_validity, uid);
        transfer(p, step, em->size_max + 1);
    } else if (step == IMAP_MARK) {
        if (em->imap_move[0] != '\0')
            (void)snprintf(p->command, sizeof p->command, "UID MOVE %llu %s", uid, em->imap_move);
        else
            (void)snprintf(p->command, sizeof p->command, "UID STORE %llu +FLAGS.SILENT (%s)", uid,
                           em->imap_keyword);
        transfer(p, step, LINES_MAX);
    }
}

static void on_pause(void *arg)
{
    struct email_imap *p = arg;
    if (!p->em->is_holder || p->em->is_draining || p->step != IMAP_IDLE)
        return;
    p->is_beginning = p->has_selected;
    if (p->has_selected) /* the last look ended early */
        imap_go(p, IMAP_LEAVE);
    else
        read_cursor(p);
}

static void read_cursor(struct email_imap *p)
{
    p->step = IMAP_CURSOR;
    if (email_kv(p->em, CHAN_KV_GET, CURSOR, SL_STR_NONE, SL_STR_NONE, 0, on_cursor, p) != SL_OK)
        again_later(p, "cursor", "the store is not there");
}

/* ---- life ---- */

void email_imap_open(struct email *em)
{
    char labels[MSG_ID_MAX_BYTES + 16];
    struct email_imap *p = sl_alloc(sizeof *p);
    p->em = em;
    em->imap = p;
    sl_timer_init(&p->pause, chan_loop(em->ch), on_pause, p);
    sl_buf_init(&p->in, LINES_MAX);
    (void)snprintf(labels, sizeof labels, "inbox=\"%s\"", chan_inbox(em->ch));
    p->lag = sl_gauge("sluice_email_imap_waiting", labels, "Mails found in the mailbox and not stored yet");
    sl_gauge_max(p->lag, BATCH_MAX);
}

void email_imap_hold(struct email *em)
{
    if (em->is_holder && em->imap->step == IMAP_IDLE)
        sl_timer_start(&em->imap->pause, 0);
}

/* After sl_http_close: no transfer of ours is under way when its done() came. */
void email_imap_close(struct email *em)
{
    struct email_imap *p = em->imap;
    em->imap = NULL;
    if (p == NULL)
        return;
    sl_timer_stop(&p->pause);
    if (p->intake != 0)
        email_intake_forget(em, p->intake);
    if (p->transfer != 0 && em->http != NULL)
        sl_http_forget(em->http, p->transfer);
    sl_buf_fini(&p->in);
    free(p);
}
