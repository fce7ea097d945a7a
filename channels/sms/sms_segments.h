/* channels/sms/sms_segments.h - how many short messages a text becomes, and in which alphabet.
 *
 * What     pure: bytes in, numbers out. A text that GSM 03.38 (with its extension table) can write costs seven bits a septet; any
 *          other is UCS-2. 1120 bits fit in one short message; in a joined one 48 of them are the header.
 * Rule     a septet pair of the extension table, a surrogate pair and a grapheme are never cut; CR LF are two.
 * Source   3GPP TS 23.038 6.2.1 (alphabet, extension), 3GPP TS 23.040 9.2.3.24.1 (8-bit reference header: 6 octets), checked
 *          against sms-segments-calculator 1.3.0 (tests/vectors/sms_segments.json)
 */
#ifndef CHANNELS_SMS_SMS_SEGMENTS_H
#define CHANNELS_SMS_SMS_SEGMENTS_H

#include "base/str.h"

struct sms_segments {
    bool is_gsm7;
    size_t segments;
    size_t units;                    /* septets in GSM-7, graphemes in UCS-2: what a person counts */
    size_t message_bits, total_bits; /* without and with the headers */
};

/* Septets of one code point: 1, 2 (extension table), 0: not in the alphabet. */
unsigned sms_gsm7_septets(uint32_t code_point);
/* text: UTF-8; a byte that is none counts as one U+FFFD. An empty text is one segment of nothing. */
void sms_segments_count(struct sl_str text, struct sms_segments *out);

#endif
