/* A mail that is taken is text without NUL, within its limits; what is visible of it is not more than there is. */
#include "tests/fuzz/fuzz.h"

#include "channels/email/mail_loop.h"
#include "channels/email/mail_parse.h"

static void check_file(const struct email_file *f)
{
    sl_assert(f->name.len > 0 && sl_str_utf8(f->name) && f->type.len > 0);
    sl_assert(memchr(f->name.ptr, '/', f->name.len) == NULL &&
              memchr(f->name.ptr, '\\', f->name.len) == NULL);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct email_mail *m = NULL;
    if (email_parse(fuzz_input(data, size), &m, NULL) != SL_OK) {
        sl_assert(m == NULL);
        return 0;
    }
    sl_assert(email_address_ok(m->from.address) && sl_str_utf8(m->from.name) && sl_str_utf8(m->subject));
    sl_assert(sl_str_utf8(m->text) && sl_str_utf8(m->visible) && sl_str_utf8(m->html));
    sl_assert(m->text.len <= EMAIL_TEXT_MAX_BYTES && m->visible.len <= m->text.len + 1);
    for (size_t i = 0; i < m->file_count; i++)
        check_file(&m->files[i]);
    for (size_t i = 0; i < m->report_count; i++)
        sl_assert(sl_str_utf8(m->reports[i].words) && sl_str_utf8(m->reports[i].status));
    (void)email_auto_of(&m->headers, m->from.address, NULL, SL_STR("support@sluice.example"),
                        SL_STR("sluice.example"));
    email_mail_free(&m);
    return 0;
}
