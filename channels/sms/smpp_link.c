/* channels/sms/smpp_link.c - libuv's TCP; TLS by OpenSSL between two memory BIOs (docs/adr/0009).
 *
 *   bytes out:  write() -> [SSL_write -> BIO] -> uv_try_write -> what is left: one uv_write at a time
 *   bytes in:   uv_read -> [BIO -> SSL_read] -> events.bytes
 */
#include "channels/sms/smpp_link.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#define CHUNK_BYTES 65536

struct smpp_link {
    uv_tcp_t tcp;
    uv_getaddrinfo_t resolve;
    uv_connect_t connect;
    uv_write_t write;
    const struct smpp_target *to;
    const struct smpp_link_events *ev;
    void *arg;
    struct sl_buf out; /* taken by uv_write while is_writing, its first `taken` bytes */
    size_t taken;
    bool is_writing, is_closed;
    unsigned pending; /* the handle and the requests that still hold this memory */
    SSL_CTX *tls;
    SSL *ssl;
    bool is_shaken; /* the TLS handshake is over */
    char why[160];
    char chunk[CHUNK_BYTES];
};

static void release(struct smpp_link *k)
{
    sl_assert(k->pending > 0);
    if (--k->pending > 0)
        return;
    SSL_free(k->ssl);
    SSL_CTX_free(k->tls);
    sl_buf_fini(&k->out);
    free(k);
}

static void fail(struct smpp_link *k, const char *what, const char *detail)
{
    if (k->is_closed)
        return;
    (void)snprintf(k->why, sizeof k->why, "%s: %s", what, detail);
    k->ev->closed(k->arg, k->why);
}

static void fail_tls(struct smpp_link *k)
{
    char text[120] = "the peer does not speak TLS as we do";
    unsigned long code = ERR_get_error();
    long verdict = SSL_get_verify_result(k->ssl);
    if (verdict != X509_V_OK)
        (void)snprintf(text, sizeof text, "certificate: %s", X509_verify_cert_error_string(verdict));
    else if (code != 0)
        ERR_error_string_n(code, text, sizeof text);
    fail(k, "TLS", text);
}

/* ---- out ---- */

static void write_raw(struct smpp_link *k);

static void on_written(uv_write_t *w, int status)
{
    struct smpp_link *k = w->data;
    k->is_writing = false;
    if (!k->is_closed && status < 0)
        fail(k, "write", uv_strerror(status));
    if (!k->is_closed) {
        sl_buf_cut(&k->out, k->taken);
        write_raw(k);
        if (!k->is_closed && k->out.len == 0 && (k->ssl == NULL || k->is_shaken))
            k->ev->drained(k->arg);
    }
    release(k);
}

static void write_raw(struct smpp_link *k)
{
    if (k->is_writing || k->out.len == 0)
        return;
    uv_buf_t b = uv_buf_init(k->out.ptr, (unsigned)k->out.len);
    int n = uv_try_write((uv_stream_t *)&k->tcp, &b, 1);
    if (n > 0)
        sl_buf_cut(&k->out, (size_t)n);
    if (k->out.len == 0 || k->is_closed)
        return;
    b = uv_buf_init(k->out.ptr, (unsigned)k->out.len);
    k->taken = k->out.len;
    k->write.data = k;
    if (uv_write(&k->write, (uv_stream_t *)&k->tcp, &b, 1, on_written) != 0)
        return; /* the read side reports that the connection is gone */
    k->is_writing = true;
    k->pending++;
}

/* While uv_write holds out's memory nothing may be appended: TLS records wait in their BIO. */
static void pump_tls(struct smpp_link *k)
{
    BIO *bio = SSL_get_wbio(k->ssl);
    while (!k->is_writing && BIO_ctrl_pending(bio) > 0) {
        char records[16384];
        int n = BIO_read(bio, records, (int)sizeof records);
        if (n <= 0)
            return;
        sl_buf_add(&k->out, records, (size_t)n);
        if (BIO_ctrl_pending(bio) == 0)
            write_raw(k);
    }
}

static size_t link_waiting(const struct smpp_link *k)
{
    if (k->ssl != NULL && !k->is_shaken)
        return 1;
    return k->out.len + (k->ssl != NULL ? BIO_ctrl_pending(SSL_get_wbio(k->ssl)) : 0);
}

static void link_write(struct smpp_link *k, struct sl_str bytes)
{
    sl_assert(!k->is_closed && !k->is_writing);
    if (k->ssl == NULL) {
        sl_buf_str(&k->out, bytes);
        write_raw(k);
        return;
    }
    while (bytes.len > 0) { /* a memory BIO takes all of it */
        int n = SSL_write(k->ssl, bytes.ptr, (int)(bytes.len < 16384 ? bytes.len : 16384));
        if (n <= 0)
            return; /* the session is broken: reading tells */
        bytes = sl_str_n(bytes.ptr + n, bytes.len - (size_t)n);
    }
    pump_tls(k);
}

/* ---- in ---- */

static void read_tls(struct smpp_link *k)
{
    char plain[16384];
    if (!k->is_shaken) {
        ERR_clear_error();
        int r = SSL_do_handshake(k->ssl);
        int e = r == 1 ? SSL_ERROR_NONE : SSL_get_error(k->ssl, r);
        pump_tls(k); /* also an alert */
        if (r != 1 && e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE) {
            fail_tls(k);
            return;
        }
        if (r != 1)
            return;
        k->is_shaken = true;
        k->ev->opened(k->arg);
    }
    while (!k->is_closed) {
        ERR_clear_error();
        int n = SSL_read(k->ssl, plain, (int)sizeof plain);
        if (n > 0) {
            k->ev->bytes(k->arg, sl_str_n(plain, (size_t)n));
            continue;
        }
        int e = SSL_get_error(k->ssl, n);
        pump_tls(k);
        if (e == SSL_ERROR_ZERO_RETURN)
            fail(k, "read", "the peer closed the connection");
        else if (e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE)
            fail_tls(k);
        return;
    }
}

static void on_alloc(uv_handle_t *h, size_t wanted, uv_buf_t *b)
{
    struct smpp_link *k = h->data;
    (void)wanted;
    *b = uv_buf_init(k->chunk, sizeof k->chunk);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *b)
{
    struct smpp_link *k = stream->data;
    if (n == 0 || k->is_closed)
        return;
    k->pending++; /* an event may close the link */
    if (n < 0) {
        fail(k, "read", n == UV_EOF ? "the peer closed the connection" : uv_strerror((int)n));
    } else if (k->ssl == NULL) {
        k->ev->bytes(k->arg, sl_str_n(b->base, (size_t)n));
    } else if (BIO_write(SSL_get_rbio(k->ssl), b->base, (int)n) == n) {
        read_tls(k);
    }
    release(k);
}

/* ---- life ---- */

static bool tls_begin(struct smpp_link *k)
{
    k->tls = SSL_CTX_new(TLS_client_method());
    if (k->tls == NULL || SSL_CTX_set_min_proto_version(k->tls, TLS1_2_VERSION) != 1)
        return false;
    int ok = k->to->ca_file[0] != '\0' ? SSL_CTX_load_verify_locations(k->tls, k->to->ca_file, NULL)
                                       : SSL_CTX_set_default_verify_paths(k->tls);
    SSL_CTX_set_verify(k->tls, k->to->is_verified ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    k->ssl = ok == 1 ? SSL_new(k->tls) : NULL;
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    if (k->ssl == NULL || in == NULL || out == NULL) {
        BIO_free(in);
        BIO_free(out);
        return false;
    }
    SSL_set_bio(k->ssl, in, out); /* the BIOs are its now */
    SSL_set_connect_state(k->ssl);
    struct in6_addr address;
    if (inet_pton(AF_INET, k->to->host, &address) != 1 && inet_pton(AF_INET6, k->to->host, &address) != 1)
        (void)SSL_set_tlsext_host_name(k->ssl, k->to->host); /* names only: RFC 6066 3 */
    return SSL_set1_host(k->ssl, k->to->host) == 1;
}

static void on_connected(uv_connect_t *c, int status)
{
    struct smpp_link *k = c->data;
    if (!k->is_closed && status < 0) {
        fail(k, "connect", uv_strerror(status));
    } else if (!k->is_closed) {
        (void)uv_tcp_nodelay(&k->tcp, 1);
        (void)uv_read_start((uv_stream_t *)&k->tcp, on_alloc, on_read);
        if (!k->to->is_tls)
            k->ev->opened(k->arg);
        else if (tls_begin(k))
            read_tls(k);
        else
            fail(k, "TLS", "cannot be set up; check tls_ca_file");
    }
    release(k);
}

static void on_resolved(uv_getaddrinfo_t *r, int status, struct addrinfo *list)
{
    struct smpp_link *k = r->data;
    if (!k->is_closed && status < 0) {
        fail(k, "resolve", uv_strerror(status));
    } else if (!k->is_closed) {
        k->connect.data = k;
        int err = uv_tcp_connect(&k->connect, &k->tcp, list->ai_addr, on_connected);
        if (err == 0)
            k->pending++;
        else
            fail(k, "connect", uv_strerror(err));
    }
    uv_freeaddrinfo(list);
    release(k);
}

static struct smpp_link *link_open(struct sl_loop *l, const struct smpp_target *to,
                                   const struct smpp_link_events *ev, void *arg)
{
    struct smpp_link *k = sl_alloc(sizeof *k);
    char port[8];
    k->to = to;
    k->ev = ev;
    k->arg = arg;
    sl_buf_init(&k->out, 0);
    sl_assert(uv_tcp_init(sl_loop_uv(l), &k->tcp) == 0);
    k->tcp.data = k;
    k->resolve.data = k;
    k->pending = 2;
    (void)snprintf(port, sizeof port, "%u", to->port);
    static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
    int err = uv_getaddrinfo(sl_loop_uv(l), &k->resolve, on_resolved, to->host, port, &hints);
    sl_assert(err == 0); /* fails for want of memory and for names over 255 bytes, which open() refuses */
    return k;
}

static void on_tcp_closed(uv_handle_t *h)
{
    release(h->data);
}

static void link_close(struct smpp_link **kp)
{
    struct smpp_link *k = *kp;
    *kp = NULL;
    if (k == NULL || k->is_closed)
        return;
    k->is_closed = true;
    (void)uv_cancel((uv_req_t *)&k->resolve);
    uv_close((uv_handle_t *)&k->tcp, on_tcp_closed);
}

static const struct smpp_link_ops tcp_ops = {link_open, link_write, link_waiting, link_close};

static const struct smpp_link_ops *played;
void smpp_link_play(const struct smpp_link_ops *ops)
{
    played = ops;
}

const struct smpp_link_ops *smpp_link_ops_for(struct sl_loop *l)
{
    /* A configuration is checked on a virtual loop, too: a session may be made there, but not connected. */
    return sl_loop_uv(l) == NULL && played != NULL ? played : &tcp_ops;
}
