/* tests/bench/load.c - one epoll load client for every WebSocket peer, so that all are measured by the same clock.
 *
 * Modes    sluice  speaks sluice.v1: hello, numbered message.send, waits for the bot's entry
 *          raw     sends a text, waits for the next text frame (the Node peer, Nchan)
 * Prints   one JSON line: rates, latencies in ms, and for each -P name=pid its CPU in us a message and PSS in bytes a connection.
 * Usage    load -m MODE -p PORT[,PORT] -u PATH -c CONNECTIONS [-a ACTIVE] [-r RATE] [-d SECONDS] [-w WARM] [-k WINDOW] [-H SECONDS]
 *               [-R RECONNECTS] [-i INBOX] [-t TEXT] [-P name=pid]...
 *          RATE 0: closed loop, each active connection has one message in flight. -R: that many idle ones reconnect at once.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum conn_state { CONN_NEW, CONN_CONNECTING, CONN_HANDSHAKE, CONN_HELLO, CONN_OPEN, CONN_DEAD };

struct conn {
    int fd;
    enum conn_state state;
    int index;
    uint64_t sent_ns; /* of the message in flight; 0: none */
    uint64_t n;       /* frames sent in this session */
    unsigned char *carry;
    size_t carry_len, carry_cap;
    char *token;
    char session[80];
};

struct process {
    const char *name;
    int pid;
    double cpu0;
    long pss0;
};

#define BUCKETS       4000000 /* of 1 us */
#define PROCESSES_MAX 16

static struct {
    bool is_sluice;
    int ports[8], port_count;
    const char *path, *inbox, *text;
    int conns, active, window, seconds, warm, hold, reconnects;
    double rate;
    struct process processes[PROCESSES_MAX];
    int process_count;
} cfg = {.path = "/",
         .inbox = "web",
         .text = "营业时间是几点？",
         .conns = 50,
         .active = -1,
         .window = 64,
         .seconds = 5,
         .warm = 1};

static struct conn *conns;
static int epoll_fd;
static long opened, failed, connecting;
static int next_conn;
static uint64_t sent, answered, answered_measured;
static bool is_running, is_measuring;
static uint32_t *histogram;

static uint64_t now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- other processes, from /proc ---- */

static unsigned long long task_cpu_ns(const char *path)
{
    char line[256];
    FILE *f = fopen(path, "r");
    unsigned long long ns = 0;
    if (f != NULL && fgets(line, sizeof(line), f) != NULL)
        ns = strtoull(line, NULL, 10);
    if (f != NULL)
        (void)fclose(f);
    return ns;
}

/* Time on a processor, all threads, to the nanosecond (schedstat; stat counts in steps of 10 ms). */
static double cpu_ms(int pid)
{
    char path[320];
    (void)snprintf(path, sizeof(path), "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    unsigned long long ns = 0;
    for (struct dirent *e = tasks != NULL ? readdir(tasks) : NULL; e != NULL; e = readdir(tasks)) {
        (void)snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", pid, e->d_name);
        if (e->d_name[0] != '.')
            ns += task_cpu_ns(path);
    }
    if (tasks != NULL)
        (void)closedir(tasks);
    return (double)ns / 1e6;
}

static long pss_kb(int pid)
{
    char path[64], line[256];
    long value = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
    FILE *f = fopen(path, "r");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, "Pss:", 4) == 0)
            value = strtol(line + 4, NULL, 10);
    }
    if (f != NULL)
        (void)fclose(f);
    return value;
}

/* ---- frames out ---- */

static void conn_dead(struct conn *c)
{
    if (c->state == CONN_DEAD)
        return;
    if (c->state == CONN_OPEN)
        opened--;
    else
        connecting--;
    if (failed++ < 3)
        fprintf(stderr, "connection %d ended in state %d: %s\n", c->index, (int)c->state, strerror(errno));
    (void)close(c->fd);
    c->state = CONN_DEAD;
}

static void conn_write(struct conn *c, const void *bytes, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = send(c->fd, (const char *)bytes + at, len - at, MSG_NOSIGNAL);
        if (n > 0)
            at += (size_t)n;
        else if (errno == EAGAIN)
            (void)usleep(50);
        else {
            conn_dead(c);
            return;
        }
    }
}

static void frame_send(struct conn *c, unsigned opcode, const char *payload, size_t len)
{
    static const unsigned char mask[4] = {0x12, 0x34, 0x56, 0x78};
    unsigned char out[4096];
    size_t at = 0;
    if (len > sizeof(out) - 8)
        return;
    out[at++] = (unsigned char)(0x80 | opcode);
    if (len < 126) {
        out[at++] = (unsigned char)(0x80 | len);
    } else {
        out[at++] = 0x80 | 126;
        out[at++] = (unsigned char)(len >> 8);
        out[at++] = (unsigned char)len;
    }
    memcpy(out + at, mask, 4);
    at += 4;
    for (size_t i = 0; i < len; i++)
        out[at + i] = (unsigned char)payload[i] ^ mask[i & 3];
    conn_write(c, out, at + len);
}

static void message_send(struct conn *c)
{
    char text[2048];
    c->sent_ns = now_ns();
    c->n++;
    int len =
        cfg.is_sluice
            ? snprintf(text, sizeof(text),
                       "{\"t\":\"cmd\",\"id\":\"m%llu\",\"n\":%llu,\"topic\":\"me\",\"k\":\"message.send\","
                       "\"d\":{\"kind\":\"text\",\"text\":\"%s\"}}",
                       (unsigned long long)c->n, (unsigned long long)c->n, cfg.text)
            : snprintf(text, sizeof(text), "%s", cfg.text);
    frame_send(c, 1, text, (size_t)len);
    sent++;
}

static void hello_send(struct conn *c)
{
    char text[2048];
    int len =
        snprintf(text, sizeof(text),
                 "{\"t\":\"hello\",\"role\":\"visitor\",\"inbox\":\"%s\",\"client\":\"load/1\"", cfg.inbox);
    if (c->token != NULL)
        len += snprintf(text + len, sizeof(text) - (size_t)len, ",\"token\":\"%s\"", c->token);
    if (c->session[0] != '\0')
        len +=
            snprintf(text + len, sizeof(text) - (size_t)len, ",\"resume\":{\"session\":\"%s\"}", c->session);
    len += snprintf(text + len, sizeof(text) - (size_t)len, "}");
    frame_send(c, 1, text, (size_t)len);
    c->state = CONN_HELLO;
}

/* ---- frames in ---- */

static bool json_string(const unsigned char *text, size_t len, const char *key, char *out, size_t size)
{
    const unsigned char *p = memmem(text, len, key, strlen(key));
    if (p == NULL)
        return false;
    p += strlen(key);
    size_t n = 0;
    while (p + n < text + len && p[n] != '"' && n + 1 < size) {
        out[n] = (char)p[n];
        n++;
    }
    out[n] = '\0';
    return true;
}

static void conn_opened(struct conn *c)
{
    c->state = CONN_OPEN;
    connecting--;
    opened++;
}

static void on_welcome(struct conn *c, const unsigned char *text, size_t len)
{
    char token[1024];
    (void)json_string(text, len, "\"session\":\"", c->session, sizeof(c->session));
    if (json_string(text, len, "\"token\":\"", token, sizeof(token))) {
        free(c->token);
        c->token = strdup(token);
    }
    conn_opened(c);
}

static void on_answer(struct conn *c)
{
    uint64_t now = now_ns(), us = (now - c->sent_ns) / 1000;
    if (c->sent_ns == 0)
        return;
    c->sent_ns = 0;
    answered++;
    if (is_measuring) {
        answered_measured++;
        histogram[us < BUCKETS ? us : BUCKETS - 1]++;
    }
    if (is_running && cfg.rate == 0)
        message_send(c);
}

static void on_text(struct conn *c, const unsigned char *text, size_t len)
{
    if (!cfg.is_sluice) {
        on_answer(c);
        return;
    }
    if (c->state == CONN_HELLO && memmem(text, len, "\"t\":\"welcome\"", 13) != NULL)
        on_welcome(c, text, len);
    if (memmem(text, len, "\"by\":\"bot\"", 10) != NULL)
        on_answer(c);
    else if (memmem(text, len, "\"t\":\"err\"", 9) != NULL)
        fprintf(stderr, "refused: %.*s\n", (int)(len < 200 ? len : 200), (const char *)text);
}

static void on_frame(struct conn *c, unsigned opcode, unsigned char *payload, size_t len)
{
    if (opcode == 9)
        frame_send(c, 10, (char *)payload, len);
    else if (opcode == 8)
        conn_dead(c);
    else
        on_text(c, payload, len);
}

/* Bytes taken by one frame at p, 0 when it is not whole. */
static size_t frame_take(struct conn *c, unsigned char *p, size_t len)
{
    if (len < 2)
        return 0;
    size_t head = 2, body = p[1] & 127u;
    if (body == 126) {
        if (len < 4)
            return 0;
        body = (size_t)p[2] << 8 | p[3];
        head = 4;
    } else if (body == 127) {
        if (len < 10)
            return 0;
        body = (size_t)p[6] << 24 | (size_t)p[7] << 16 | (size_t)p[8] << 8 | p[9];
        head = 10;
    }
    if (len < head + body)
        return 0;
    on_frame(c, p[0] & 15u, p + head, body);
    return head + body;
}

static size_t handshake_take(struct conn *c, unsigned char *p, size_t len)
{
    unsigned char *end = memmem(p, len, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    if (memmem(p, len, " 101", 4) == NULL) {
        errno = EPROTO;
        conn_dead(c);
        return len;
    }
    if (cfg.is_sluice)
        hello_send(c);
    else
        conn_opened(c);
    return (size_t)(end + 4 - p);
}

static void conn_feed(struct conn *c, unsigned char *bytes, size_t len)
{
    if (c->carry_len > 0) {
        if (c->carry_len + len > c->carry_cap) {
            c->carry_cap = c->carry_len + len;
            c->carry = realloc(c->carry, c->carry_cap);
        }
        memcpy(c->carry + c->carry_len, bytes, len);
        len += c->carry_len;
        bytes = c->carry;
    }
    size_t at = 0;
    while (c->state != CONN_DEAD) {
        size_t n = c->state == CONN_HANDSHAKE ? handshake_take(c, bytes + at, len - at)
                                              : frame_take(c, bytes + at, len - at);
        if (n == 0)
            break;
        at += n;
    }
    size_t rest = len - at;
    if (rest > c->carry_cap) {
        unsigned char *fresh = malloc(rest);
        memcpy(fresh, bytes + at, rest);
        free(c->carry);
        c->carry = fresh;
        c->carry_cap = rest;
    } else if (rest > 0) {
        memmove(c->carry, bytes + at, rest);
    } else {
        free(c->carry);
        c->carry = NULL;
        c->carry_cap = 0;
    }
    c->carry_len = rest;
}

/* ---- connections ---- */

static void conn_start(struct conn *c)
{
    int one = 1, port = cfg.ports[c->index % cfg.port_count];
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        perror("socket");
        exit(1);
    }
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    a.sin_addr.s_addr = htonl(0x7f000001u);
    connecting++;
    c->state = CONN_CONNECTING;
    c->sent_ns = 0;
    if (connect(c->fd, (struct sockaddr *)&a, sizeof(a)) < 0 && errno != EINPROGRESS) {
        conn_dead(c);
        return;
    }
    struct epoll_event e = {.events = EPOLLOUT, .data.ptr = c};
    (void)epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e);
}

static void on_connected(struct conn *c)
{
    int error = 0, port = cfg.ports[c->index % cfg.port_count];
    socklen_t size = sizeof(error);
    char request[1024], path[256];
    (void)getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
        errno = error;
        conn_dead(c);
        return;
    }
    if (strstr(cfg.path, "%d") != NULL) {
        const char *at = strstr(cfg.path, "%d");
        (void)snprintf(path, sizeof(path), "%.*s%d%s", (int)(at - cfg.path), cfg.path, c->index, at + 2);
    } else {
        (void)snprintf(path, sizeof(path), "%s", cfg.path);
    }
    int len =
        snprintf(request, sizeof(request),
                 "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
                 path, port, cfg.is_sluice ? "Sec-WebSocket-Protocol: sluice.v1\r\n" : "");
    c->state = CONN_HANDSHAKE;
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    (void)epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
    conn_write(c, request, (size_t)len);
}

static void on_readable(struct conn *c)
{
    static unsigned char bytes[262144];
    for (;;) {
        ssize_t n = recv(c->fd, bytes, sizeof(bytes), 0);
        if (n > 0) {
            conn_feed(c, bytes, (size_t)n);
            if ((size_t)n < sizeof(bytes) || c->state == CONN_DEAD)
                return;
        } else if (n == 0 || errno != EAGAIN) {
            conn_dead(c);
            return;
        } else {
            return;
        }
    }
}

static void turn(int wait_ms)
{
    struct epoll_event events[512];
    int n = epoll_wait(epoll_fd, events, 512, wait_ms);
    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;
        if (c->state == CONN_CONNECTING)
            on_connected(c);
        else if (c->state != CONN_DEAD && c->state != CONN_NEW)
            on_readable(c);
    }
}

static void turns_until(uint64_t end_ns)
{
    while (now_ns() < end_ns)
        turn(20);
}

static double open_all(void)
{
    uint64_t start = now_ns();
    while (opened + failed < cfg.conns && now_ns() - start < 120000000000u) {
        while (connecting < cfg.window && next_conn < cfg.conns) {
            conns[next_conn].index = next_conn;
            conn_start(&conns[next_conn++]);
        }
        turn(100);
    }
    return (double)(now_ns() - start) / 1e9;
}

/* ---- measuring ---- */

static double percentile(double p)
{
    double target = (double)answered_measured * p, seen = 0;
    for (int i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (seen > target)
            return i / 1000.0;
    }
    return -1;
}

static void start_measuring(void)
{
    is_measuring = true;
    for (int i = 0; i < cfg.process_count; i++)
        cfg.processes[i].cpu0 = cpu_ms(cfg.processes[i].pid);
}

static void reconnect_some(void)
{
    int done = 0;
    for (int i = cfg.conns - 1; i >= cfg.active && done < cfg.reconnects; i--) {
        struct conn *c = &conns[i];
        if (c->state != CONN_OPEN)
            continue;
        (void)close(c->fd);
        c->carry_len = 0;
        opened--;
        conn_start(c);
        done++;
    }
}

static void run_load(double *seconds)
{
    uint64_t start = now_ns(), measure_at = start + (uint64_t)cfg.warm * 1000000000u,
             end = measure_at + (uint64_t)cfg.seconds * 1000000000u;
    uint64_t gap = cfg.rate > 0 ? (uint64_t)(1e9 / cfg.rate) : 0, next = start,
             storm_at = measure_at + (end - measure_at) / 4;
    int turn_of = 0;
    bool has_stormed = cfg.reconnects == 0;
    is_running = true;
    for (int i = 0; i < cfg.active && cfg.rate == 0; i++) {
        if (conns[i].state == CONN_OPEN)
            message_send(&conns[i]);
    }
    for (uint64_t now = start; now < end; now = now_ns()) {
        if (!is_measuring && now >= measure_at)
            start_measuring();
        if (!has_stormed && now >= storm_at) {
            has_stormed = true;
            reconnect_some();
        }
        for (; gap > 0 && next <= now; next += gap) {
            struct conn *c = &conns[turn_of++ % cfg.active];
            if (c->state == CONN_OPEN && c->sent_ns == 0)
                message_send(c);
        }
        turn(gap > 0 ? 1 : 10);
    }
    *seconds = (double)(now_ns() - measure_at) / 1e9;
    is_measuring = is_running = false;
}

static void print_processes(const char *what, double per)
{
    printf(",\"%s\":{", what);
    for (int i = 0; i < cfg.process_count; i++) {
        struct process *p = &cfg.processes[i];
        double value = what[0] == 'c' ? (cpu_ms(p->pid) - p->cpu0) * 1000 / per
                                      : (double)(pss_kb(p->pid) - p->pss0) * 1024 / per;
        printf("%s\"%s\":%.1f", i == 0 ? "" : ",", p->name, value);
    }
    printf("}");
}

static void parse_ports(char *list)
{
    for (char *save = NULL, *p = strtok_r(list, ",", &save); p != NULL && cfg.port_count < 8;
         p = strtok_r(NULL, ",", &save))
        cfg.ports[cfg.port_count++] = (int)strtol(p, NULL, 10);
}

static void parse_process(char *text)
{
    char *equals = strchr(text, '=');
    if (equals == NULL || cfg.process_count == PROCESSES_MAX)
        return;
    *equals = '\0';
    cfg.processes[cfg.process_count++] =
        (struct process){.name = text, .pid = (int)strtol(equals + 1, NULL, 10)};
}

static void parse_options(int argc, char **argv)
{
    for (int o; (o = getopt(argc, argv, "m:p:u:c:a:r:d:w:k:H:R:i:t:P:")) > 0;) {
        switch (o) {
        case 'm':
            cfg.is_sluice = strcmp(optarg, "sluice") == 0;
            break;
        case 'p':
            parse_ports(optarg);
            break;
        case 'u':
            cfg.path = optarg;
            break;
        case 'c':
            cfg.conns = (int)strtol(optarg, NULL, 10);
            break;
        case 'a':
            cfg.active = (int)strtol(optarg, NULL, 10);
            break;
        case 'r':
            cfg.rate = strtod(optarg, NULL);
            break;
        case 'd':
            cfg.seconds = (int)strtol(optarg, NULL, 10);
            break;
        case 'w':
            cfg.warm = (int)strtol(optarg, NULL, 10);
            break;
        case 'k':
            cfg.window = (int)strtol(optarg, NULL, 10);
            break;
        case 'H':
            cfg.hold = (int)strtol(optarg, NULL, 10);
            break;
        case 'R':
            cfg.reconnects = (int)strtol(optarg, NULL, 10);
            break;
        case 'i':
            cfg.inbox = optarg;
            break;
        case 't':
            cfg.text = optarg;
            break;
        case 'P':
            parse_process(optarg);
            break;
        default:
            exit(64);
        }
    }
    if (cfg.active < 0 || cfg.active > cfg.conns)
        cfg.active = cfg.conns;
}

int main(int argc, char **argv)
{
    struct rlimit files = {.rlim_cur = 20000, .rlim_max = 20000};
    parse_options(argc, argv);
    (void)getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
    conns = calloc((size_t)cfg.conns, sizeof(*conns));
    histogram = calloc(BUCKETS, sizeof(*histogram));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < cfg.process_count; i++)
        cfg.processes[i].pss0 = pss_kb(cfg.processes[i].pid),
        cfg.processes[i].cpu0 = cpu_ms(cfg.processes[i].pid);
    double connect_s = open_all(), seconds = 0;
    turns_until(now_ns() + 1000000000u);
    printf("{\"open\":%ld,\"failed\":%ld,\"connect_s\":%.2f", opened, failed, connect_s);
    print_processes("pss_bytes_a_connection", (double)(opened > 0 ? opened : 1));
    turns_until(now_ns() + (uint64_t)cfg.hold * 1000000000u);
    if (cfg.seconds > 0) {
        run_load(&seconds);
        double per = (double)(answered_measured > 0 ? answered_measured : 1);
        print_processes("cpu_us_a_message", per);
        uint64_t end = now_ns() + 10000000000u;
        while (answered < sent && now_ns() < end)
            turn(20);
        printf(",\"rate\":%.0f,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"messages\":%llu,\"sent\":%llu,"
               "\"lost\":%lld",
               (double)answered_measured / seconds, percentile(.5), percentile(.9), percentile(.99),
               (unsigned long long)answered_measured, (unsigned long long)sent, (long long)(sent - answered));
    }
    printf(",\"open_at_end\":%ld,\"ended\":%ld}\n", opened, failed);
    return 0;
}
