/* Any message under any limits: the parts of a text are the text; nothing is over the limit, nothing is broken UTF-8. The first
 * six bytes are the limits, then come text and, behind a NUL, data. */
#include "tests/fuzz/fuzz.h"

#include "tests/unit/fit_check.h"

static void add_some_link(void *arg, struct sl_str id, struct sl_str name, struct sl_buf *out)
{
    (void)arg;
    (void)name;
    if (id.len % 2 == 0)
        sl_buf_c(out, "https://media.example/f?exp=1&sig=abc");
}

static size_t limit_of(const struct fit_limits *l)
{
    return l->text_max == 0 || l->text_max >= FIT_TEXT_MIN ? l->text_max : FIT_TEXT_MIN;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct fit f;
    struct sl_fail why;
    if (size < 6)
        return 0;
    struct fit_limits l = {.text_max = data[0], .is_chars = data[1] & 1, .is_numbered = data[1] & 2};
    l.kinds = (unsigned)(data[2] << 4 | data[1] >> 4);
    l.bare = data[1] & 8 ? l.kinds : 0;
    l.is_tight = data[3] & 0x40;
    l.options_max = data[3] % 8;
    l.media_max_bytes = data[3] & 0x80 ? 1000 : 0;
    l.parts_max = data[4];
    l.link = data[1] & 4 ? add_some_link : NULL;
    struct sl_str rest = fuzz_input(data + 6, size - 6);
    const char *nul = rest.len > 0 ? memchr(rest.ptr, '\0', rest.len) : NULL;
    struct msg m = {.id = SL_STR("m"), .kind = (enum msg_kind)(data[5] % (MSG_NOTE + 1)), .text = rest};
    if (nul != NULL) {
        m.text.len = (size_t)(nul - rest.ptr);
        m.data = sl_str_n(nul + 1, rest.len - m.text.len - 1);
    }
    if (!sl_str_utf8(m.text) || m.text.len > MSG_TEXT_MAX_BYTES)
        return 0;
    fit_init(&f);
    if (fit_message(&f, &m, &l, &why) == SL_OK) {
        if (m.kind == MSG_TEXT && m.data.len == 0 && !l.is_numbered && !f.is_cut)
            fit_check_parts(&f, m.text, limit_of(&l), l.is_chars);
        for (size_t i = 0; i < f.count; i++) {
            sl_assert(sl_str_utf8(f.part[i].text));
            sl_assert(l.text_max == 0 || fit_units(f.part[i].text, l.is_chars) <= limit_of(&l));
            sl_assert(f.part[i].kind == MSG_TEXT || (l.kinds & 1u << f.part[i].kind) != 0);
        }
    }
    fit_fini(&f);
    return 0;
}
