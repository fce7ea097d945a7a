/* tests/vectors/vec_sms_segments.c - texts with their encoding, units, segments and bits. */
#include "tests/vectors/vec.h"

#include "channels/sms/sms_segments.h"

static bool is_equal(const json_t *c, const char *key, size_t ours, char *why, size_t size)
{
    const json_t *v = json_object_get(c, key); /* borrowed; a case may leave one out */
    if (v == NULL || (json_is_integer(v) && json_integer_value(v) == (json_int_t)ours))
        return true;
    (void)snprintf(why, size, "%s: ours %zu, theirs %lld", key, ours, (long long)json_integer_value(v));
    return false;
}

static void check(size_t i, const json_t *c)
{
    char name[32], why[100] = "encoding";
    struct sms_segments s;
    (void)snprintf(name, sizeof name, "segments %zu", i);
    sms_segments_count(vec_str(c, "text"), &s);
    bool is_ok = sl_str_eq_c(vec_str(c, "encoding"), s.is_gsm7 ? "GSM-7" : "UCS-2") &&
                 is_equal(c, "segments", s.segments, why, sizeof why) &&
                 is_equal(c, "units", s.units, why, sizeof why) &&
                 is_equal(c, "message_bits", s.message_bits, why, sizeof why) &&
                 is_equal(c, "total_bits", s.total_bits, why, sizeof why);
    vec_case(is_ok, name, why);
}

int main(int argc, char **argv)
{
    json_t *all = vec_load(argc, argv);
    const json_t *cases = json_object_get(all, "cases"), *c; /* borrowed */
    size_t i;
    json_array_foreach(cases, i, c) check(i, c);
    return vec_end(all);
}
