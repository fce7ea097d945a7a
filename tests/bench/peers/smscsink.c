/* tests/bench/peers/smscsink.c - the message centre of the SMPP bench: takes everything, answers at once, counts.
 *
 * smscsink PORT: answers bind_*, submit_sm, enquire_link and unbind; each connection a thread, one send a read. Every 100 ms it writes
 * a line of JSON: {"submits":N,"first_ms":A,"last_ms":B} (monotonic milliseconds of the first and the latest submit_sm).
 * It is the same for both sides of the bench, and its own processor time belongs to neither.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEADER     16
#define IN_BYTES   65536
#define OUT_BYTES  131072
#define ANSWER_MAX 64

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned long submits;
static uint64_t first_ms, last_ms;

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint32_t get32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put32(unsigned char *p, uint32_t v)
{
    p[0] = (unsigned char)(v >> 24);
    p[1] = (unsigned char)(v >> 16);
    p[2] = (unsigned char)(v >> 8);
    p[3] = (unsigned char)v;
}

static unsigned long count_submit(void)
{
    pthread_mutex_lock(&lock);
    unsigned long n = ++submits;
    last_ms = now_ms();
    if (first_ms == 0)
        first_ms = last_ms;
    pthread_mutex_unlock(&lock);
    return n;
}

/* The answer to one request; 0 bytes for a response of the other side. */
static size_t answer(unsigned char *out, uint32_t command, uint32_t seq)
{
    char body[32] = "";
    size_t len = 0;
    if (command & 0x80000000u)
        return 0;
    if (command == 1 || command == 2 || command == 9)
        len = (size_t)snprintf(body, sizeof body, "sink") + 1;
    else if (command == 4)
        len = (size_t)snprintf(body, sizeof body, "%lx", count_submit()) + 1;
    put32(out, (uint32_t)(HEADER + len));
    put32(out + 4, command | 0x80000000u);
    put32(out + 8, 0);
    put32(out + 12, seq);
    memcpy(out + HEADER, body, len);
    return HEADER + len;
}

static void send_all(int fd, const unsigned char *p, size_t n)
{
    while (n > 0) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k <= 0)
            return;
        p += k;
        n -= (size_t)k;
    }
}

static void *serve(void *arg)
{
    int fd = (int)(intptr_t)arg;
    unsigned char *in = malloc(IN_BYTES), *out = malloc(OUT_BYTES);
    size_t have = 0;
    while (in != NULL && out != NULL) {
        ssize_t k = recv(fd, in + have, IN_BYTES - have, 0);
        size_t at = 0, o = 0;
        if (k <= 0)
            break;
        have += (size_t)k;
        while (have - at >= HEADER) {
            uint32_t len = get32(in + at);
            if (len < HEADER || len > IN_BYTES) {
                have = at = 0;
                shutdown(fd, SHUT_RDWR);
                break;
            }
            if (have - at < len)
                break;
            o += answer(out + o, get32(in + at + 4), get32(in + at + 12));
            at += len;
            if (o > OUT_BYTES - ANSWER_MAX) {
                send_all(fd, out, o);
                o = 0;
            }
        }
        memmove(in, in + at, have - at);
        have -= at;
        send_all(fd, out, o);
    }
    free(in);
    free(out);
    close(fd);
    return NULL;
}

static void *report(void *arg)
{
    (void)arg;
    for (;;) {
        usleep(100000);
        pthread_mutex_lock(&lock);
        printf("{\"submits\":%lu,\"first_ms\":%llu,\"last_ms\":%llu}\n", submits,
               (unsigned long long)first_ms, (unsigned long long)last_ms);
        pthread_mutex_unlock(&lock);
        fflush(stdout);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    pthread_t t;
    if (argc != 2)
        return 64;
    a.sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, 8) != 0) {
        perror("smscsink");
        return 1;
    }
    pthread_create(&t, NULL, report, NULL);
    for (;;) {
        int c = accept(fd, NULL, NULL);
        setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        pthread_create(&t, NULL, serve, (void *)(intptr_t)c);
        pthread_detach(t);
    }
}
