/* Layers, strictness with line and column, secrets, entries, diff and hash. */
#include "base/config.h"

#include "unit.h"

#include <stdio.h>
#include <unistd.h>

static const struct sl_key keys[] = {
    {"gateway.listen", SL_CFG_STR, "127.0.0.1:8080", 0, 0, false, "Address and port."},
    {"gateway.idle", SL_CFG_MS, "30s", 1000, 600000, true, "Silence after which a socket is closed."},
    {"gateway.sessions", SL_CFG_INT, "1000", 1, 20000, true, "Sessions at once."},
    {"gateway.frame", SL_CFG_BYTES, "64KiB", 0, 0, false, "Largest frame."},
    {"gateway.is-open", SL_CFG_BOOL, "true", 0, 0, true, "Anybody may come."},
    {"gateway.origins", SL_CFG_LIST, "[]", 0, 0, true, "Allowed origins."},
    {"redis.password", SL_CFG_SECRET, "", 0, 0, false, "Password."},
    {"inboxes.*.channel", SL_CFG_STR, NULL, 0, 0, false, "The adapter's name."},
    {"inboxes.*.token", SL_CFG_SECRET, "", 0, 0, false, "Its token."},
    {"inboxes.*.rate", SL_CFG_INT, "5", 0, 0, true, "Messages a second."},
    {"labels.*", SL_CFG_STR, NULL, 0, 0, true, "Free labels."},
    {NULL}};

static struct sl_config *load(const char *yaml, struct sl_fail *why)
{
    return sl_config_load_text(keys, sl_str_c(yaml), "t.yaml", why);
}

static struct sl_config *good(const char *yaml)
{
    struct sl_fail why = {SL_OK, 0, ""};
    struct sl_config *cfg = load(yaml, &why);
    if (cfg == NULL)
        fail_msg("%s", why.text);
    return cfg;
}

static void refuse(const char *yaml, const char *words)
{
    struct sl_fail why = {SL_OK, 0, ""};
    struct sl_config *cfg = load(yaml, &why);
    assert_null(cfg);
    assert_int_equal(why.code, SL_EINVAL);
    if (strncmp(why.text, words, strlen(words)) != 0)
        fail_msg("expected \"%s\", got \"%s\"", words, why.text);
}

static char *printed(const struct sl_config *cfg)
{
    struct sl_buf b = {0};
    sl_config_print(cfg, &b);
    sl_buf_char(&b, '\0');
    return b.ptr;
}

static void test_config_defaults_without_a_file(void **state)
{
    (void)state;
    struct sl_fail why;
    struct sl_config *cfg = sl_config_load(keys, NULL, &why);
    assert_non_null(cfg);
    const char *const *items;
    assert_string_equal(sl_config_str(cfg, "gateway.listen"), "127.0.0.1:8080");
    assert_int_equal(sl_config_int(cfg, "gateway.idle"), 30000);
    assert_int_equal(sl_config_int(cfg, "gateway.frame"), 65536);
    assert_true(sl_config_bool(cfg, "gateway.is-open"));
    assert_int_equal(sl_config_list(cfg, "gateway.origins", &items), 0);
    assert_int_equal(sl_config_entries(cfg, "inboxes", &items), 0);
    sl_config_free(&cfg);
    assert_null(cfg);
    static const char *const empty[] = {"",    "# nothing\n", "---\n", "---\n...\n", "inboxes:\ngateway: ~\n",
                                        "{}\n"};
    for (size_t i = 0; i < sizeof empty / sizeof empty[0]; i++) {
        cfg = good(empty[i]);
        sl_config_free(&cfg);
    }
}

static void test_config_reads_every_type(void **state)
{
    (void)state;
    struct sl_config *cfg = good("gateway:\n"
                                 "  listen: \"0.0.0.0:1\" # comment\n"
                                 "  idle: 10m\n"
                                 "  sessions: 20000\n"
                                 "  frame: 10MiB\n"
                                 "  is-open: false\n"
                                 "  origins: [\"https://a\", b]\n"
                                 "redis: {password: 'p w'}\n");
    const char *const *items;
    assert_string_equal(sl_config_str(cfg, "gateway.listen"), "0.0.0.0:1");
    assert_int_equal(sl_config_int(cfg, "gateway.idle"), 600000);
    assert_int_equal(sl_config_int(cfg, "gateway.sessions"), 20000);
    assert_int_equal(sl_config_int(cfg, "gateway.frame"), 10 << 20);
    assert_false(sl_config_bool(cfg, "gateway.is-open"));
    assert_int_equal(sl_config_list(cfg, "gateway.origins", &items), 2);
    assert_string_equal(items[0], "https://a");
    assert_string_equal(items[1], "b");
    assert_string_equal(sl_config_str(cfg, "redis.password"), "p w");
    sl_config_free(&cfg);
}

static void test_config_errors_name_line_and_column(void **state)
{
    (void)state;
    refuse("gateway:\n  idle: 5 sec\n", "t.yaml:2:9: gateway.idle: expected a duration such as");
    refuse("gateway:\n  idle: 5\n", "t.yaml:2:9: gateway.idle: expected a duration");
    refuse("gateway:\n  idle: 999ms\n", "t.yaml:2:9: gateway.idle: expected 1s to 10m, found 999ms");
    refuse("gateway:\n  idle: 11m\n", "t.yaml:2:9: gateway.idle: expected 1s to 10m, found 11m");
    refuse("gateway:\n  idle: 99999999999999999d\n", "t.yaml:2:9: gateway.idle: expected a duration");
    refuse("gateway:\n  sessions: 0\n", "t.yaml:2:13: gateway.sessions: expected 1 to 20000, found 0");
    refuse("gateway:\n  sessions: 1e3\n",
           "t.yaml:2:13: gateway.sessions: expected a whole number, found \"1e3\"");
    refuse("gateway:\n  frame: 64KB\n", "t.yaml:2:10: gateway.frame: expected a size such as");
    refuse("gateway:\n  is-open: yes\n",
           "t.yaml:2:12: gateway.is-open: expected true or false, found \"yes\"");
    refuse("gateway:\n  origins: a\n", "t.yaml:2:12: gateway.origins: expected a list, found a single value");
    refuse("gateway:\n  origins: [[a]]\n", "t.yaml:2:13: gateway.origins: expected text as an item");
    refuse("gateway:\n  listen: [a]\n", "t.yaml:2:11: gateway.listen: expected text, found a list");
    refuse("gateway:\n  listen: {a: b}\n", "t.yaml:2:11: gateway.listen: expected text, found keys below it");
    refuse("gateway:\n  listen:\n", "t.yaml:2:10: gateway.listen: expected text, found nothing");
    refuse("gateway: 5\n", "t.yaml:1:10: gateway: expected keys below it, found a single value");
    refuse("gateway: [5]\n", "t.yaml:1:10: gateway: expected keys below it, found a list");
    refuse("gateway:\n  listen: \"a\\0b\"\n",
           "t.yaml:2:11: gateway.listen: expected text, found bytes that are not text");
    refuse("- a\n", "t.yaml:1:1: expected keys at the top");
    refuse("just words\n", "t.yaml:1:1: expected keys at the top");
}

static void test_config_unknown_keys_are_refused_with_a_guess(void **state)
{
    (void)state;
    refuse("gateway:\n  lisen: a\n", "t.yaml:2:3: gateway.lisen: no such key; did you mean listen?");
    refuse("gatewey: {}\n", "t.yaml:1:1: gatewey: no such key; did you mean gateway?");
    refuse("gateway:\n  entirely_else: a\n", "t.yaml:2:3: gateway.entirely_else: no such key");
    refuse("inboxes:\n  web:\n    chamnel: a\n",
           "t.yaml:3:5: inboxes.web.chamnel: no such key; did you mean channel?");
    refuse("gateway:\n  listen_file: a\n",
           "t.yaml:2:3: gateway.listen_file: no such key"); /* only secrets have files */
    refuse("gateway.listen: a\n", "t.yaml:1:1: expected a key of letters");
    refuse("? [a]\n: b\n", "t.yaml:1:3: expected a key");
    refuse("<<: {}\n", "t.yaml:1:1: expected a key of letters");
    refuse("inboxes:\n  '*':\n    channel: x\n", "t.yaml:2:3: expected a key of letters");
}

static void test_config_duplicates_are_refused(void **state)
{
    (void)state;
    refuse("gateway:\n  listen: a\n  idle: 5s\n  listen: a\n",
           "t.yaml:4:3: gateway.listen is given twice (first in line 2)");
    refuse("gateway: {}\nredis: {}\ngateway: {}\n", "t.yaml:3:1: gateway is given twice (first in line 1)");
    refuse("inboxes:\n  a: {channel: x}\n  a: {channel: y}\n", "t.yaml:3:3: inboxes.a is given twice");
    refuse("redis:\n  password: SECRET\n  password_file: /etc/hostname\n",
           "t.yaml:3:18: redis.password is given twice");
}

static void test_config_yaml_tricks_are_refused(void **state)
{
    (void)state;
    refuse("gateway: &g\n  listen: a\n", "t.yaml:1:10: found an anchor");
    refuse("gateway:\n  listen: &a b\n", "t.yaml:2:11: found an anchor");
    refuse("gateway:\n  origins: &a [b]\n", "t.yaml:2:12: found an anchor");
    refuse("gateway:\n  listen: *a\n", "t.yaml:2:11: found an alias");
    refuse("gateway:\n  listen: !!str a\n", "t.yaml:2:11: found a tag");
    refuse("gateway: !x {}\n", "t.yaml:1:10: found a tag");
    refuse("&k gateway: {}\n", "t.yaml:1:1: found an anchor");
    refuse("%TAG ! tag:x,2000:\n---\ngateway: {}\n", "t.yaml:1:1: found a %TAG line");
    refuse("gateway: {}\n---\nredis: {}\n", "t.yaml:2:1: a second document");
    refuse("gateway:\n\tlisten: a\n", "t.yaml:2:1: not YAML");
    refuse("gateway: {listen: \"a\n", "t.yaml:");
    refuse("gateway: \xff\xfe\n", "t.yaml:");
}

static void test_config_depth_is_bounded(void **state)
{
    (void)state;
    static const struct sl_key deep[] = {{"a.*.*.*.*.*.*.*", SL_CFG_STR, "x", 0, 0, false, "At the bound."},
                                         {"b.*.*.*.*.*.*.*.*", SL_CFG_STR, "x", 0, 0, false, "Beyond it."},
                                         {NULL}};
    struct sl_fail why = {SL_OK, 0, ""};
    struct sl_config *cfg =
        sl_config_load_text(deep, SL_STR("a: {b: {c: {d: {e: {f: {g: {h: deepest}}}}}}}"), "t.yaml", &why);
    assert_non_null(cfg);
    assert_string_equal(sl_config_str(cfg, "a.b.c.d.e.f.g.h"), "deepest");
    sl_config_free(&cfg);
    assert_null(
        sl_config_load_text(deep, SL_STR("b: {b: {c: {d: {e: {f: {g: {h: {i: x}}}}}}}}"), "t.yaml", &why));
    assert_contains(why.text, "nested deeper than 8");
    struct sl_buf b;
    sl_buf_init(&b, 0);
    for (int i = 0; i < 200000; i++)
        sl_buf_c(&b, "{a: ");
    assert_null(sl_config_load_text(deep, sl_buf_view(&b), "t.yaml", &why));
    sl_buf_clear(&b);
    for (int i = 0; i < 1000000; i++)
        sl_buf_char(&b, '[');
    assert_null(sl_config_load_text(deep, sl_buf_view(&b), "t.yaml", &why));
    sl_buf_c(&b, "012345678901234567890123456789012345678901234567890123456789");
    for (int i = 0; i < 60000; i++)
        sl_buf_char(&b, '[');
    assert_null(sl_config_load_text(deep, sl_buf_view(&b), "t.yaml", &why));
    assert_int_equal(why.code, SL_ETOOBIG);
    sl_buf_fini(&b);
}

static void test_config_entries_keep_file_order_and_need_their_keys(void **state)
{
    (void)state;
    struct sl_config *cfg = good("inboxes:\n  web: {channel: webchat}\n  cn-1: {channel: wechat, rate: "
                                 "9}\nlabels:\n  zone: x\n  area: y\n");
    const char *const *names;
    assert_int_equal(sl_config_entries(cfg, "inboxes", &names), 2);
    assert_string_equal(names[0], "web");
    assert_string_equal(names[1], "cn-1");
    assert_string_equal(sl_config_str(cfg, "inboxes.web.channel"), "webchat");
    assert_int_equal(sl_config_int(cfg, "inboxes.web.rate"), 5);
    assert_int_equal(sl_config_int(cfg, "inboxes.cn-1.rate"), 9);
    assert_int_equal(sl_config_entries(cfg, "labels", &names), 2);
    assert_string_equal(names[0], "zone");
    assert_string_equal(sl_config_str(cfg, "labels.area"), "y");
    sl_config_free(&cfg);
    refuse("inboxes:\n  a: {channel: x}\n  b:\n    rate: 3\n",
           "t.yaml:3:3: inboxes.b.channel must be given: The adapter's name.");
    refuse("inboxes:\n  b:\n", "t.yaml:2:3: inboxes.b.channel must be given");
}

static void test_config_missing_required_key(void **state)
{
    (void)state;
    static const struct sl_key required[] = {{"tenant", SL_CFG_STR, NULL, 0, 0, false, "Who."}, {NULL}};
    struct sl_fail why = {SL_OK, 0, ""};
    assert_null(sl_config_load_text(required, SL_STR(""), "t.yaml", &why));
    assert_string_equal(why.text, "t.yaml: tenant must be given: Who.");
    static const struct sl_key wrong[] = {{"n", SL_CFG_INT, "x", 0, 0, false, ""}, {NULL}};
    assert_null(sl_config_load_text(wrong, SL_STR(""), "t.yaml", &why));
    assert_contains(why.text, "default of n: expected a whole number");
}

static void test_config_environment_stands_above_the_file(void **state)
{
    (void)state;
    setenv("SLUICE_GATEWAY__LISTEN", "from-env", 1);
    setenv("SLUICE_GATEWAY__IS_OPEN", "false", 1);
    setenv("SLUICE_GATEWAY__ORIGINS", "a, b", 1);
    setenv("SLUICE_INBOXES__CN_1__RATE", "7", 1);
    setenv("SLUICE_INBOXES__NEW__CHANNEL", "sms", 1);
    setenv("SLUICE_FAULTS", "not configuration", 1);
    struct sl_config *cfg = good("gateway: {listen: from-file}\ninboxes:\n  cn-1: {channel: wechat}\n");
    const char *const *names;
    assert_string_equal(sl_config_str(cfg, "gateway.listen"), "from-env");
    assert_false(sl_config_bool(cfg, "gateway.is-open"));
    assert_int_equal(sl_config_list(cfg, "gateway.origins", &names), 2);
    assert_int_equal(sl_config_int(cfg, "inboxes.cn-1.rate"), 7);
    assert_int_equal(sl_config_entries(cfg, "inboxes", &names), 2);
    assert_string_equal(names[1], "new");
    char *text = printed(cfg);
    assert_contains(text, "gateway.listen: from-env  # env SLUICE_GATEWAY__LISTEN; Address and port.\n");
    free(text);
    sl_config_free(&cfg);
    setenv("SLUICE_GATEWAY__IDLE", "soon", 1);
    refuse("", "environment SLUICE_GATEWAY__IDLE: gateway.idle: expected a duration");
    unsetenv("SLUICE_GATEWAY__IDLE");
    setenv("SLUICE_GATEWAY__LISEN", "x", 1);
    refuse("", "environment SLUICE_GATEWAY__LISEN: no such key");
    static const char *const ours[] = {"SLUICE_GATEWAY__LISEN",
                                       "SLUICE_GATEWAY__LISTEN",
                                       "SLUICE_GATEWAY__IS_OPEN",
                                       "SLUICE_GATEWAY__ORIGINS",
                                       "SLUICE_INBOXES__CN_1__RATE",
                                       "SLUICE_INBOXES__NEW__CHANNEL",
                                       "SLUICE_FAULTS"};
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        unsetenv(ours[i]);
}

static void write_secret(char path[32], const char *bytes, size_t n)
{
    memcpy(path, "/tmp/sluice-unit-XXXXXX", sizeof "/tmp/sluice-unit-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), (ssize_t)n);
    assert_int_equal(close(fd), 0);
}

static void test_config_secret_from_a_file(void **state)
{
    (void)state;
    char path[32], yaml[128];
    write_secret(path, "s3cret\n\n", 8);
    (void)snprintf(yaml, sizeof yaml, "redis:\n  password_file: %s\n", path);
    struct sl_config *cfg = good(yaml);
    assert_string_equal(sl_config_str(cfg, "redis.password"), "s3cret\n"); /* one newline goes, not two */
    char *text = printed(cfg);
    assert_contains(text, "redis.password: (set)  # t.yaml:2; Password.\n");
    assert_lacks(text, "s3cret");
    free(text);
    sl_config_free(&cfg);
    setenv("SLUICE_REDIS__PASSWORD", "other", 1);
    cfg = good(yaml);
    assert_string_equal(sl_config_str(cfg, "redis.password"), "other");
    sl_config_free(&cfg);
    unsetenv("SLUICE_REDIS__PASSWORD");
    setenv("SLUICE_INBOXES__WEB__TOKEN_FILE", path, 1);
    cfg = good("inboxes: {web: {channel: x}}\n");
    assert_string_equal(sl_config_str(cfg, "inboxes.web.token"), "s3cret\n");
    sl_config_free(&cfg);
    unsetenv("SLUICE_INBOXES__WEB__TOKEN_FILE");
    assert_int_equal(unlink(path), 0);
    refuse(yaml, "t.yaml:2:18: redis.password_file: cannot read /tmp/sluice-unit-");
    write_secret(path, "s3\0ret", 6);
    (void)snprintf(yaml, sizeof yaml, "redis:\n  password_file: %s\n", path);
    refuse(yaml, "t.yaml:2:18: redis.password: expected a secret, found bytes that are not text");
    assert_int_equal(unlink(path), 0);
    refuse("redis:\n  password_file: [a]\n", "t.yaml:2:18: redis.password_file: expected text, found a list");
}

static void test_config_empty_secret_prints_as_empty(void **state)
{
    (void)state;
    struct sl_config *cfg = good("gateway: {listen: 'a b'}\n");
    char *text = printed(cfg);
    assert_contains(text, "redis.password: (empty)  # default; Password.\n");
    assert_contains(text, "gateway.listen: \"a b\"  # t.yaml:1; Address and port.\n");
    assert_contains(text, "gateway.origins: []  # default;");
    free(text);
    sl_config_free(&cfg);
}

static void test_config_file_that_is_not_there(void **state)
{
    (void)state;
    struct sl_fail why = {SL_OK, 0, ""};
    assert_null(sl_config_load(keys, "/nonexistent/sluice.yaml", &why));
    assert_int_equal(why.code, SL_ENOTFOUND);
    assert_contains(why.text, "cannot read /nonexistent/sluice.yaml: No such file");
}

/* What stands there while somebody writes it again. */
static void test_config_file_without_a_byte_is_refused(void **state)
{
    (void)state;
    char path[] = "/tmp/sluice-config-XXXXXX";
    int fd = mkstemp(path);
    struct sl_fail why = {SL_OK, 0, ""};
    assert_true(fd >= 0);
    assert_null(sl_config_load(keys, path, &why));
    assert_int_equal(why.code, SL_EINVAL);
    assert_contains(why.text, path);
    assert_int_equal(write(fd, "# all defaults\n", 15), 15);
    struct sl_config *cfg = sl_config_load(keys, path, &why);
    assert_non_null(cfg);
    sl_config_free(&cfg);
    (void)close(fd);
    (void)unlink(path);
}

static void test_config_diff_names_what_needs_a_restart(void **state)
{
    (void)state;
    struct sl_config *old =
        good("gateway: {listen: a, idle: 5s, frame: 1024}\ninboxes: {x: {channel: c}, gone: {channel: c}}\n");
    struct sl_config *now = good("gateway: {listen: b, idle: 6s, frame: 1KiB}\ninboxes: {x: {channel: c, "
                                 "token: t}, new: {channel: c}}\n");
    struct sl_buf out = {0};
    sl_config_diff(old, now, &out);
    assert_bytes(out, "gateway.listen\ninboxes.new.channel\ninboxes.x.token\ninboxes.new.token\ninboxes.gone."
                      "channel\ninboxes.gone.token\n");
    sl_buf_clear(&out);
    sl_config_diff(now, now, &out);
    assert_int_equal(out.len, 0);
    sl_buf_fini(&out);
    sl_config_free(&old);
    sl_config_free(&now);
}

static void hash_of(const char *yaml, const char *prefix, char out[17])
{
    struct sl_config *cfg = good(yaml);
    sl_config_hash(cfg, prefix, out);
    sl_config_free(&cfg);
}

static void test_config_hash_follows_meaning(void **state)
{
    (void)state;
    char a[17], b[17];
    hash_of("gateway: {idle: 60s, listen: x}\n", "", a);
    assert_int_equal(strlen(a), 16);
    hash_of("gateway:\n  listen: \"x\"\n  idle: 1m # the same\n", "", b);
    assert_string_equal(a, b);
    hash_of("gateway: {idle: 61s, listen: x}\n", "", b);
    assert_string_not_equal(a, b);
    hash_of("gateway: {idle: 60s, listen: x}\nredis: {password: p}\n", "", b);
    assert_string_not_equal(a, b);
    hash_of("redis: {password: p}\n", "gateway", a);
    hash_of("redis: {password: q}\n", "gateway", b);
    assert_string_equal(a, b);
    hash_of("gateway: {origins: [ab, c]}\n", "gateway", a);
    hash_of("gateway: {origins: [a, bc]}\n", "gateway", b);
    assert_string_not_equal(a, b);
    hash_of("labels: {gateway: x}\n", "gate", a); /* no key stands below "gate" */
    hash_of("gateway: {listen: y}\n", "gate", b);
    assert_string_equal(a, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_defaults_without_a_file),
        cmocka_unit_test(test_config_reads_every_type),
        cmocka_unit_test(test_config_errors_name_line_and_column),
        cmocka_unit_test(test_config_unknown_keys_are_refused_with_a_guess),
        cmocka_unit_test(test_config_duplicates_are_refused),
        cmocka_unit_test(test_config_yaml_tricks_are_refused),
        cmocka_unit_test(test_config_depth_is_bounded),
        cmocka_unit_test(test_config_entries_keep_file_order_and_need_their_keys),
        cmocka_unit_test(test_config_missing_required_key),
        cmocka_unit_test(test_config_environment_stands_above_the_file),
        cmocka_unit_test(test_config_secret_from_a_file),
        cmocka_unit_test(test_config_empty_secret_prints_as_empty),
        cmocka_unit_test(test_config_file_that_is_not_there),
        cmocka_unit_test(test_config_file_without_a_byte_is_refused),
        cmocka_unit_test(test_config_diff_names_what_needs_a_restart),
        cmocka_unit_test(test_config_hash_follows_meaning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
