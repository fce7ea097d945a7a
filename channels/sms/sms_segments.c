/* channels/sms/sms_segments.c - counting short messages. */
#include "channels/sms/sms_segments.h"

#include <utf8proc.h>

#define SEGMENT_BITS 1120 /* 140 octets: 3GPP TS 23.040 9.2.3.24 */
#define HEADER_BITS  48   /* 6 octets: 3GPP TS 23.040 9.2.3.24.1 */

/* What of the basic table lies outside ASCII: 3GPP TS 23.038 6.2.1. */
static const uint16_t basic_beyond_ascii[] = {
    0xa1, 0xa3, 0xa4, 0xa5,  0xa7,  0xbf,  0xc4,  0xc5,  0xc6,  0xc7,  0xc9,  0xd1,  0xd6,
    0xd8, 0xdc, 0xdf, 0xe0,  0xe4,  0xe5,  0xe6,  0xe8,  0xe9,  0xec,  0xf1,  0xf2,  0xf6,
    0xf8, 0xf9, 0xfc, 0x393, 0x394, 0x398, 0x39b, 0x39e, 0x3a0, 0x3a3, 0x3a6, 0x3a8, 0x3a9};

static unsigned ascii_septets(uint32_t c)
{
    if (strchr("\f^{}\\[~]|", (int)c) != NULL && c != 0)
        return 2;
    if (c == '\n' || c == '\r')
        return 1;
    return c >= 0x20 && c < 0x7f && c != '`' ? 1 : 0;
}

unsigned sms_gsm7_septets(uint32_t code_point)
{
    if (code_point < 0x80)
        return ascii_septets(code_point);
    if (code_point == 0x20ac) /* the euro sign */
        return 2;
    for (size_t i = 0; i < sizeof basic_beyond_ascii / sizeof basic_beyond_ascii[0]; i++)
        if (basic_beyond_ascii[i] == code_point)
            return 1;
    return 0;
}

/* The next code point; what is no UTF-8 is U+FFFD, one byte at a time. */
static uint32_t next_code_point(struct sl_str text, size_t *at)
{
    utf8proc_int32_t c = -1;
    utf8proc_ssize_t n =
        utf8proc_iterate((const utf8proc_uint8_t *)text.ptr + *at, (utf8proc_ssize_t)(text.len - *at), &c);
    *at += n > 0 ? (size_t)n : 1;
    return n > 0 && c >= 0 ? (uint32_t)c : 0xfffd;
}

static bool is_all_gsm7(struct sl_str text)
{
    for (size_t at = 0; at < text.len;)
        if (sms_gsm7_septets(next_code_point(text, &at)) == 0)
            return false;
    return true;
}

/* Bits of what must not be cut, from *at on; *at moves past it. */
static size_t next_bits(struct sl_str text, size_t *at, bool is_gsm7)
{
    uint32_t c = next_code_point(text, at);
    if (is_gsm7)
        return sms_gsm7_septets(c) * 7u;
    size_t bits = c > 0xffff ? 32 : 16;
    utf8proc_int32_t state = 0;
    while (*at < text.len) {
        size_t after = *at;
        uint32_t next = next_code_point(text, &after);
        if ((c == '\r' && next == '\n') ||
            utf8proc_grapheme_break_stateful((utf8proc_int32_t)c, (utf8proc_int32_t)next, &state))
            break;
        size_t more = next > 0xffff ? 32 : 16;
        if (bits + more > SEGMENT_BITS - HEADER_BITS) /* a grapheme no segment can hold is cut after all */
            break;
        bits += more;
        *at = after;
        c = next;
    }
    return bits;
}

static size_t segments_of(struct sl_str text, bool is_gsm7)
{
    size_t segments = 1, room = SEGMENT_BITS - HEADER_BITS;
    for (size_t at = 0; at < text.len;) {
        size_t bits = next_bits(text, &at, is_gsm7);
        if (bits > room) {
            segments++;
            room = SEGMENT_BITS - HEADER_BITS;
        }
        room -= bits;
    }
    return segments;
}

void sms_segments_count(struct sl_str text, struct sms_segments *out)
{
    bool is_gsm7 = is_all_gsm7(text);
    size_t bits = 0, units = 0;
    for (size_t at = 0; at < text.len;) {
        size_t more = next_bits(text, &at, is_gsm7);
        bits += more;
        units += is_gsm7 ? more / 7 : 1;
    }
    size_t segments = bits <= SEGMENT_BITS ? 1 : segments_of(text, is_gsm7);
    *out = (struct sms_segments){.is_gsm7 = is_gsm7,
                                 .segments = segments,
                                 .units = units,
                                 .message_bits = bits,
                                 .total_bits = segments > 1 ? bits + segments * HEADER_BITS : bits};
}
