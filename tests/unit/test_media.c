/* Attachments: what bytes are, names, links, and the folder they lie in. */
#include "gateway/media.h"
#include "gateway/media_type.h"

#include "unit.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- types and names ---- */

static const char *type_of(const char *bytes, size_t len, const char *said)
{
    static char type[128];
    gw_media_type(sl_str_n(bytes, len), sl_str_c(said), type);
    return type;
}
#define TYPE(bytes, said) type_of(bytes, sizeof(bytes) - 1, said)

static void test_a_type_is_what_the_bytes_are(void **state)
{
    (void)state;
    assert_string_equal(TYPE("\x89PNG\r\n\x1a\nxxxx", "text/html"), "image/png");
    assert_string_equal(TYPE("\xff\xd8\xff\xe0", ""), "image/jpeg");
    assert_string_equal(TYPE("RIFF\0\0\0\0WEBPVP8 ", "image/png"), "image/webp");
    assert_string_equal(TYPE("#!AMR\nxx", "application/octet-stream"), "audio/amr");
    assert_string_equal(TYPE("\x02#!SILK_V3xx", "audio/amr"), "audio/silk");
    assert_string_equal(TYPE("\0\0\0\x18"
                             "ftypisom",
                             "video/mp4"),
                        "video/mp4");
    assert_string_equal(
        TYPE("PK\x03\x04xx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document");
    assert_string_equal(TYPE("PK\x03\x04xx", "image/png"), "application/zip");
    assert_string_equal(TYPE("%PDF-1.7", "text/plain"), "application/pdf");
}

static void test_what_is_unknown_is_called_what_it_is_said_to_be_if_that_is_harmless(void **state)
{
    (void)state;
    assert_string_equal(TYPE("hello", "Text/Plain; charset=utf-8"), "text/plain");
    assert_string_equal(TYPE("{}", "application/json"), "application/json");
    assert_string_equal(TYPE("<svg>", "image/svg+xml"), GW_MEDIA_ANY_TYPE);
    assert_string_equal(TYPE("<html>", "text/html"), GW_MEDIA_ANY_TYPE);
    assert_string_equal(TYPE("<x>", "application/xhtml+xml"), GW_MEDIA_ANY_TYPE);
    assert_string_equal(TYPE("alert(1)", "text/javascript"), GW_MEDIA_ANY_TYPE);
    assert_string_equal(TYPE("not a picture", "image/png"), GW_MEDIA_ANY_TYPE);
    assert_string_equal(TYPE("x", "nonsense"), GW_MEDIA_ANY_TYPE);
    assert_string_equal(TYPE("x", "a/b\r\nX: 1"), GW_MEDIA_ANY_TYPE);
    assert_string_equal(TYPE("x", ""), GW_MEDIA_ANY_TYPE);
}

static void test_a_name_has_no_folders_and_no_meaning(void **state)
{
    static const char *const cases[][2] = {
        {"a.png", "a.png"},     {"/etc/passwd", "passwd"}, {"..\\..\\x.exe", "x.exe"}, {"..", "_."},
        {".hidden", "_hidden"}, {"a\r\nb\"c", "a__b_c"},   {"收据.png", "收据.png"},   {"", "file"},
        {"/", "file"},          {"a?b#c%d", "a_b_c_d"},    {"bad\xff", "file"},
    };
    char name[256];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        gw_media_name(sl_str_c(cases[i][0]), name);
        assert_string_equal(name, cases[i][1]);
    }
    char longer[601];
    for (size_t i = 0; i < 600; i += 3)
        memcpy(longer + i, "文", 3);
    gw_media_name(sl_str_n(longer, 600), name);
    assert_int_equal(strlen(name), 198); /* whole characters */
}

/* ---- the store ---- */

struct world {
    char dir[64];
    struct sl_loop *loop;
    struct gw_media *media;
    unsigned calls;
    sl_err err;
    struct chan_media item;
    char bytes[256];
};

static struct gw_media *open_media(struct world *w, int64_t total_bytes)
{
    struct sl_fail why;
    struct gw_media_config c = {.loop = w->loop,
                                .dir = w->dir,
                                .public_url = "https://chat.example.org/",
                                .secret = "",
                                .max_bytes = 1000,
                                .total_bytes = total_bytes,
                                .keep_ms = 1000000,
                                .link_ms = 3600000};
    struct gw_media *m = gw_media_open(&c, &why);
    assert_non_null(m);
    return m;
}

static int setup(void **state)
{
    struct world *w = sl_alloc(sizeof *w);
    (void)snprintf(w->dir, sizeof w->dir, "/tmp/sluice-media-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    w->loop = sl_loop_new_virtual(3);
    w->media = open_media(w, 10000);
    *state = w;
    return 0;
}

static int remove_one(const char *path, const struct stat *s, int type, struct FTW *f)
{
    (void)s;
    (void)type;
    (void)f;
    return remove(path);
}

static void turn(struct world *w)
{
    while (sl_loop_virtual_step(w->loop)) {
    }
}

static int teardown(void **state)
{
    struct world *w = *state;
    gw_media_stop(w->media);
    turn(w);
    gw_media_close(&w->media);
    sl_loop_close(&w->loop);
    (void)nftw(w->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(w);
    return 0;
}

static void on_media(void *arg, sl_err err, const struct chan_media *item, struct sl_str bytes,
                     const struct sl_fail *why)
{
    struct world *w = arg;
    assert_non_null(why);
    w->calls++;
    w->err = err;
    if (item != NULL)
        w->item = *item;
    assert_true(bytes.len < sizeof w->bytes);
    memcpy(w->bytes, bytes.ptr, bytes.len);
    w->bytes[bytes.len] = '\0';
}

static void put(struct world *w, const char *bytes, const char *name)
{
    unsigned before = w->calls;
    assert_int_equal(
        gw_media_put(w->media, sl_str_c(bytes), SL_STR("text/plain"), sl_str_c(name), on_media, w), SL_OK);
    assert_int_equal(w->calls, before);
    turn(w);
    assert_int_equal(w->calls, before + 1);
}

#define HELLO_ID "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" /* SHA-256 of "hello" */

static void test_what_is_put_is_read_again(void **state)
{
    struct world *w = *state;
    char path[256];
    put(w, "hello", "../greeting.txt");
    assert_int_equal(w->err, SL_OK);
    assert_string_equal(w->item.id, HELLO_ID);
    assert_string_equal(w->item.type, "text/plain");
    assert_string_equal(w->item.name, "greeting.txt");
    assert_int_equal(w->item.size, 5);
    (void)snprintf(path, sizeof path, "%s/2c/f2/" HELLO_ID, w->dir);
    assert_int_equal(access(path, R_OK), 0);
    assert_int_equal(gw_media_read(w->media, SL_STR(HELLO_ID), on_media, w), SL_OK);
    turn(w);
    assert_int_equal(w->err, SL_OK);
    assert_string_equal(w->bytes, "hello");
    put(w, "hello", "again");
    assert_int_equal(w->err, SL_OK);
}

static void test_what_is_not_there_is_not_found(void **state)
{
    struct world *w = *state;
    const struct sl_str id = SL_STR("0000000000000000000000000000000000000000000000000000000000000000");
    assert_int_equal(gw_media_read(w->media, id, on_media, w), SL_OK);
    turn(w);
    assert_int_equal(w->err, SL_ENOTFOUND);
    static const char *const bad[] = {"", "../../etc/passwd", "ABCDEF", HELLO_ID "0"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(gw_media_read(w->media, sl_str_c(bad[i]), on_media, w), SL_EINVAL);
}

static void test_limits(void **state)
{
    struct world *w = *state;
    char large[1001];
    memset(large, 'x', sizeof large);
    assert_int_equal(gw_media_put(w->media, sl_str_n(large, 1001), SL_STR_NONE, SL_STR_NONE, on_media, w),
                     SL_ETOOBIG);
    assert_int_equal(gw_media_put(w->media, SL_STR_NONE, SL_STR_NONE, SL_STR_NONE, on_media, w), SL_EINVAL);
    for (int i = 0; i < 10; i++) {
        large[0] = (char)('a' + i);
        assert_int_equal(gw_media_put(w->media, sl_str_n(large, 1000), SL_STR_NONE, SL_STR_NONE, on_media, w),
                         SL_OK);
        turn(w);
    }
    assert_int_equal(gw_media_put(w->media, SL_STR("x"), SL_STR_NONE, SL_STR_NONE, on_media, w),
                     SL_ETOOBIG); /* full */
    assert_int_equal(gw_media_put(NULL, SL_STR("x"), SL_STR_NONE, SL_STR_NONE, on_media, w), SL_EREFUSED);
}

static void test_too_many_puts_at_once_are_busy(void **state)
{
    struct world *w = *state;
    turn(w); /* the first count of the folder is over */
    for (int i = 0; i < GW_MEDIA_JOBS_MAX; i++)
        assert_int_equal(gw_media_put(w->media, SL_STR("x"), SL_STR_NONE, SL_STR_NONE, on_media, w), SL_OK);
    assert_int_equal(gw_media_put(w->media, SL_STR("x"), SL_STR_NONE, SL_STR_NONE, on_media, w), SL_EAGAIN);
    for (int i = 0; i < 256; i++)
        assert_int_equal(gw_media_read(w->media, SL_STR(HELLO_ID), on_media, w), SL_OK); /* these wait */
    assert_int_equal(gw_media_read(w->media, SL_STR(HELLO_ID), on_media, w), SL_EAGAIN);
    turn(w);
    assert_int_equal(w->calls, GW_MEDIA_JOBS_MAX + 256);
    assert_int_equal(gw_media_jobs(w->media), 0);
}

static void test_old_ones_go_and_the_rest_is_counted_anew(void **state)
{
    struct world *w = *state;
    char path[256];
    put(w, "hello", "a");
    put(w, "young", "b");
    (void)snprintf(path, sizeof path, "%s/2c/f2/" HELLO_ID, w->dir);
    struct timespec old[2] = {{.tv_sec = 1000000}, {.tv_sec = 1000000}};
    assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
    sl_loop_virtual_set(w->loop, sl_loop_mono_ms(w->loop) + 3600000, 1700000000000);
    turn(w);
    assert_int_not_equal(access(path, R_OK), 0);
    (void)snprintf(path, sizeof path, "%s/link.secret", w->dir);
    assert_int_equal(access(path, R_OK), 0); /* is no attachment */
}

/* ---- links ---- */

static sl_err check(struct world *w, const char *link, int64_t now_ms)
{
    int64_t expires = 0;
    const char *path = strstr(link, "/media/") + 7, *name = strchr(path, '/') + 1, *query = strchr(name, '?');
    return gw_media_check_link(w->media, sl_str_n(path, 64), sl_str_n(name, (size_t)(query - name)),
                               sl_str_c(query + 1), now_ms, &expires);
}

static void test_a_link_works_until_it_expires(void **state)
{
    struct world *w = *state;
    struct sl_buf link;
    int64_t now = sl_loop_unix_ms(w->loop);
    sl_buf_init(&link, 0);
    gw_media_link(w->media, SL_STR(HELLO_ID), SL_STR("a.png"), true, &link);
    sl_buf_char(&link, '\0');
    assert_int_equal(strncmp(link.ptr, "https://chat.example.org/media/" HELLO_ID "/a.png?exp=", 95), 0);
    assert_int_equal(check(w, link.ptr, now), SL_OK);
    assert_int_equal(check(w, link.ptr, now + 3599999), SL_OK);
    assert_int_equal(check(w, link.ptr, now + 2 * 3600000 + 1000), SL_ECLOSED);
    for (char *p = strstr(link.ptr, "/media/") + 7; *p != '\0'; p++) { /* no byte of it may be changed */
        if (*p == '/' || *p == '?' || *p == '&' || *p == '=')
            continue;
        char was = *p;
        *p = was == 'a' ? 'b' : 'a';
        assert_int_equal(check(w, link.ptr, now), SL_EDENIED);
        *p = was;
    }
    sl_buf_fini(&link);
}

static void test_two_gateways_on_a_folder_know_each_others_links(void **state)
{
    struct world *w = *state;
    struct sl_buf link;
    struct gw_media *other = open_media(w, 10000);
    sl_buf_init(&link, 0);
    gw_media_link(other, SL_STR(HELLO_ID), SL_STR("a"), false, &link);
    sl_buf_char(&link, '\0');
    assert_int_equal(check(w, link.ptr, sl_loop_unix_ms(w->loop)), SL_OK);
    sl_buf_fini(&link);
    gw_media_stop(other);
    turn(w);
    gw_media_close(&other);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_type_is_what_the_bytes_are),
        cmocka_unit_test(test_what_is_unknown_is_called_what_it_is_said_to_be_if_that_is_harmless),
        cmocka_unit_test(test_a_name_has_no_folders_and_no_meaning),
        CASE(test_what_is_put_is_read_again),
        CASE(test_what_is_not_there_is_not_found),
        CASE(test_limits),
        CASE(test_too_many_puts_at_once_are_busy),
        CASE(test_old_ones_go_and_the_rest_is_counted_anew),
        CASE(test_a_link_works_until_it_expires),
        CASE(test_two_gateways_on_a_folder_know_each_others_links),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
