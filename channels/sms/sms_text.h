/* channels/sms/sms_text.h - the alphabets of short messages: octets to UTF-8 and back.
 *
 * What     pure. Decoding never fails on a peer's bytes: what is no character becomes U+FFFD. Encoding says
 *          SL_EINVAL when a character is not in the alphabet.
 * Source   3GPP TS 23.038 6.2.1 (GSM 7 bit default alphabet and its extension table; here one septet an octet, as
 *          SMPP carries it) and 4 (data coding groups); SMPP 3.4 5.2.19 (data_coding); tests/vectors/smpp.json.
 */
#ifndef CHANNELS_SMS_SMS_TEXT_H
#define CHANNELS_SMS_SMS_TEXT_H

#include "base/str.h"

enum sms_alphabet {
    SMS_GSM7,   /* unpacked: one septet an octet */
    SMS_IA5,    /* ASCII, or GSM septets when it holds what ASCII text does not: peers send both as 1 */
    SMS_LATIN1, /* ISO 8859-1 */
    SMS_UCS2,   /* UTF-16, big endian */
    SMS_BINARY,
    SMS_CYRILLIC, /* ISO 8859-5; from here on by iconv, for reading only */
    SMS_HEBREW,   /* ISO 8859-8 */
    SMS_JIS,      /* Shift_JIS */
    SMS_JIS2022,  /* ISO-2022-JP */
    SMS_JIS_X0212,
    SMS_KOREAN, /* KS C 5601 */
    SMS_GBK,    /* data_coding 15 of Chinese gateways, read as GB18030 */
};

/* What data_coding means; zero is what the account says of 0. */
enum sms_alphabet sms_alphabet_of(uint8_t data_coding, enum sms_alphabet zero);
/* GSM7 when every character is in it, else UCS2. */
enum sms_alphabet sms_alphabet_for(struct sl_str utf8);
/* GSM7, LATIN1, UCS2. SL_EINVAL: a character is missing (out may hold a beginning). */
sl_err sms_encode(enum sms_alphabet a, struct sl_str utf8, struct sl_buf *out) SL_MUST_CHECK;
/* Everything but BINARY. Appends valid UTF-8 without NUL. */
void sms_decode(enum sms_alphabet a, struct sl_str octets, struct sl_buf *out);
/* How many octets of a message of this alphabet, from its front, make a part of at most max octets: never inside
 * a GSM escape pair or a surrogate pair. At least 1 unless octets is empty; max >= 4. */
size_t sms_cut(enum sms_alphabet a, struct sl_str octets, size_t max);

#endif
