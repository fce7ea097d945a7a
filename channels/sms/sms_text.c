/* channels/sms/sms_text.c - tables first, then one function a direction and alphabet. */
#include "channels/sms/sms_text.h"

#include <iconv.h>

#define ESCAPE       0x1b
#define REPLACEMENT  0xfffdu
#define BMP_END      0x10000u
#define UNKNOWN_CHAR UINT32_MAX

/* TS 23.038 6.2.1: the code points of septets 0..127; 0x1b is the escape. */
static const uint16_t gsm_basic[128] = {
    '@',    0xa3, '$',  0xa5,   0xe8, 0xe9,   0xf9,   0xec,   0xf2,   0xc7,   '\n',   0xd8,   0xf8,
    '\r',   0xc5, 0xe5, 0x0394, '_',  0x03a6, 0x0393, 0x039b, 0x03a9, 0x03a0, 0x03a8, 0x03a3, 0x0398,
    0x039e, 0,    0xc6, 0xe6,   0xdf, 0xc9,   ' ',    '!',    '"',    '#',    0xa4,   '%',    '&',
    '\'',   '(',  ')',  '*',    '+',  ',',    '-',    '.',    '/',    '0',    '1',    '2',    '3',
    '4',    '5',  '6',  '7',    '8',  '9',    ':',    ';',    '<',    '=',    '>',    '?',    0xa1,
    'A',    'B',  'C',  'D',    'E',  'F',    'G',    'H',    'I',    'J',    'K',    'L',    'M',
    'N',    'O',  'P',  'Q',    'R',  'S',    'T',    'U',    'V',    'W',    'X',    'Y',    'Z',
    0xc4,   0xd6, 0xd1, 0xdc,   0xa7, 0xbf,   'a',    'b',    'c',    'd',    'e',    'f',    'g',
    'h',    'i',  'j',  'k',    'l',  'm',    'n',    'o',    'p',    'q',    'r',    's',    't',
    'u',    'v',  'w',  'x',    'y',  'z',    0xe4,   0xf6,   0xf1,   0xfc,   0xe0,
};
/* 6.2.1.1: what stands behind the escape. */
static const struct {
    uint8_t septet;
    uint16_t code;
} gsm_extension[] = {{0x0a, '\f'}, {0x14, '^'}, {0x28, '{'}, {0x29, '}'}, {0x2f, '\\'},
                     {0x3c, '['},  {0x3d, '~'}, {0x3e, ']'}, {0x40, '|'}, {0x65, 0x20ac}};

static const char *const charsets[] = {
    [SMS_CYRILLIC] = "ISO-8859-5", [SMS_HEBREW] = "ISO-8859-8", [SMS_JIS] = "SHIFT_JIS",
    [SMS_JIS2022] = "ISO-2022-JP", [SMS_JIS_X0212] = "EUC-JP",  [SMS_KOREAN] = "EUC-KR",
    [SMS_GBK] = "GB18030",
};

/* TS 23.038 4: 0x10..0x1b are class messages of group 00x1, bits 2..3 the alphabet; 0xf0..0xff bit 2. */
enum sms_alphabet sms_alphabet_of(uint8_t data_coding, enum sms_alphabet zero)
{
    static const enum sms_alphabet simple[16] = {
        [1] = SMS_IA5,      [2] = SMS_BINARY,  [3] = SMS_LATIN1,     [4] = SMS_BINARY,  [5] = SMS_JIS,
        [6] = SMS_CYRILLIC, [7] = SMS_HEBREW,  [8] = SMS_UCS2,       [9] = SMS_BINARY,  [10] = SMS_JIS2022,
        [11] = SMS_BINARY,  [12] = SMS_BINARY, [13] = SMS_JIS_X0212, [14] = SMS_KOREAN, [15] = SMS_GBK};
    if (data_coding == 0)
        return zero;
    if (data_coding < 16)
        return simple[data_coding];
    if (data_coding >= 0xf0)
        return data_coding & 4 ? SMS_BINARY : SMS_GSM7;
    if (data_coding < 0x20) { /* uncompressed, with a class */
        static const enum sms_alphabet by_bits[4] = {SMS_GSM7, SMS_BINARY, SMS_UCS2, SMS_BINARY};
        return by_bits[data_coding >> 2 & 3];
    }
    if (data_coding >= 0xe0) /* message waiting, text in UCS2 */
        return SMS_UCS2;
    return data_coding >= 0xc0 ? SMS_GSM7 : SMS_BINARY;
}

/* ---- UTF-8, one code point at a time ---- */

/* Next code point of valid UTF-8; bytes that are none give REPLACEMENT and advance by one. */
static uint32_t utf8_next(struct sl_str s, size_t *at)
{
    const unsigned char *p = (const unsigned char *)s.ptr + *at;
    size_t left = s.len - *at;
    size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (n == 1 || n > left || p[0] < 0xc2) {
        *at += 1;
        return p[0] < 0x80 ? p[0] : REPLACEMENT;
    }
    uint32_t code = p[0] & (0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++)
        code = code << 6 | (p[i] & 0x3f);
    *at += n;
    return code;
}

static void utf8_add(struct sl_buf *out, uint32_t code)
{
    char b[4];
    size_t n = 0;
    if (code == 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
        code = REPLACEMENT;
    if (code < 0x80) {
        sl_buf_char(out, (char)code);
        return;
    }
    if (code < 0x800)
        b[n++] = (char)(0xc0 | code >> 6);
    else if (code < BMP_END) {
        b[n++] = (char)(0xe0 | code >> 12);
        b[n++] = (char)(0x80 | (code >> 6 & 0x3f));
    } else {
        b[n++] = (char)(0xf0 | code >> 18);
        b[n++] = (char)(0x80 | (code >> 12 & 0x3f));
        b[n++] = (char)(0x80 | (code >> 6 & 0x3f));
    }
    b[n++] = (char)(0x80 | (code & 0x3f));
    sl_buf_add(out, b, n);
}

/* ---- GSM ---- */

/* 0..127: one septet; 0x1b00 | septet: behind an escape; -1: not in the alphabet */
static int gsm_of(uint32_t code)
{
    if (code >= 'a' && code <= 'z')
        return (int)code;
    for (int i = 0; i < 128; i++)
        if (gsm_basic[i] == code && i != ESCAPE)
            return i;
    for (size_t i = 0; i < sizeof gsm_extension / sizeof gsm_extension[0]; i++)
        if (gsm_extension[i].code == code)
            return ESCAPE << 8 | gsm_extension[i].septet;
    return -1;
}

static uint32_t gsm_extended(uint8_t septet)
{
    for (size_t i = 0; i < sizeof gsm_extension / sizeof gsm_extension[0]; i++)
        if (gsm_extension[i].septet == septet)
            return gsm_extension[i].code;
    return ' '; /* 6.2.1.1: who does not know the pair shows a space */
}

static void gsm_decode(struct sl_str in, struct sl_buf *out)
{
    for (size_t i = 0; i < in.len; i++) {
        uint8_t septet = (uint8_t)in.ptr[i];
        if (septet >= 128)
            utf8_add(out, REPLACEMENT);
        else if (septet != ESCAPE)
            utf8_add(out, gsm_basic[septet]);
        else if (++i < in.len)
            utf8_add(out, gsm_extended((uint8_t)in.ptr[i]));
    }
}

static sl_err gsm_encode(struct sl_str in, struct sl_buf *out)
{
    for (size_t at = 0; at < in.len;) {
        int septet = gsm_of(utf8_next(in, &at));
        if (septet < 0)
            return SL_EINVAL;
        if (septet >= 128)
            sl_buf_char(out, ESCAPE);
        sl_buf_char(out, (char)(septet & 0x7f));
    }
    return SL_OK;
}

enum sms_alphabet sms_alphabet_for(struct sl_str utf8)
{
    for (size_t at = 0; at < utf8.len;)
        if (gsm_of(utf8_next(utf8, &at)) < 0)
            return SMS_UCS2;
    return SMS_GSM7;
}

/* ---- UTF-16, Latin-1, the rest ---- */

static uint16_t unit_at(struct sl_str in, size_t i)
{
    return (uint16_t)((unsigned char)in.ptr[i] << 8 | (unsigned char)in.ptr[i + 1]);
}

static bool is_high(uint16_t unit)
{
    return (unit & 0xfc00) == 0xd800;
}

static void ucs2_decode(struct sl_str in, struct sl_buf *out)
{
    size_t i = in.len >= 2 && unit_at(in, 0) == 0xfeff ? 2 : 0; /* a byte order mark is no text */
    for (; i + 2 <= in.len; i += 2) {
        uint32_t code = unit_at(in, i);
        if (is_high((uint16_t)code) && i + 4 <= in.len && (unit_at(in, i + 2) & 0xfc00) == 0xdc00) {
            code = BMP_END + ((code & 0x3ff) << 10 | (unit_at(in, i + 2) & 0x3ffu));
            i += 2;
        }
        utf8_add(out, code);
    }
    if (i < in.len)
        utf8_add(out, REPLACEMENT);
}

static void unit_add(struct sl_buf *out, uint32_t unit)
{
    char b[2] = {(char)(unit >> 8), (char)unit};
    sl_buf_add(out, b, sizeof b);
}

static void ucs2_encode(struct sl_str in, struct sl_buf *out)
{
    for (size_t at = 0; at < in.len;) {
        uint32_t code = utf8_next(in, &at);
        if (code >= BMP_END) {
            unit_add(out, 0xd800 | (code - BMP_END) >> 10);
            code = 0xdc00 | (code & 0x3ff);
        }
        unit_add(out, code);
    }
}

static sl_err latin1_encode(struct sl_str in, struct sl_buf *out)
{
    for (size_t at = 0; at < in.len;) {
        uint32_t code = utf8_next(in, &at);
        if (code > 0xff)
            return SL_EINVAL;
        sl_buf_char(out, (char)code);
    }
    return SL_OK;
}

static void latin1_decode(struct sl_str in, struct sl_buf *out)
{
    for (size_t i = 0; i < in.len; i++)
        utf8_add(out, (unsigned char)in.ptr[i]);
}

/* ASCII text has no control characters but these; the septets of a GSM text nearly always have (measured: the
 * node package smpp 0.5.1 says data_coding 1 and writes GSM septets). */
static bool looks_like_gsm(struct sl_str in)
{
    for (size_t i = 0; i < in.len; i++) {
        unsigned char c = (unsigned char)in.ptr[i];
        if ((c < 0x20 && c != '\n' && c != '\r' && c != '\t') || c == 0x7f)
            return true;
    }
    return false;
}

static void charset_decode(const char *charset, struct sl_str in, struct sl_buf *out)
{
    iconv_t cd = iconv_open("UTF-16BE", charset);
    if (cd == (iconv_t)-1) {
        latin1_decode(in, out);
        return;
    }
    char *from = (char *)(uintptr_t)in.ptr; /* iconv does not write there */
    size_t left = in.len;
    while (left > 0) {
        char units[256], *to = units;
        size_t room = sizeof units;
        size_t result = iconv(cd, &from, &left, &to, &room);
        ucs2_decode(sl_str_n(units, sizeof units - room), out);
        if (result != (size_t)-1 || room < 8)
            continue; /* done, or the small buffer was full */
        utf8_add(out, REPLACEMENT);
        from++;
        left--;
    }
    iconv_close(cd);
}

/* ---- both ways ---- */

sl_err sms_encode(enum sms_alphabet a, struct sl_str utf8, struct sl_buf *out)
{
    if (a == SMS_GSM7)
        return gsm_encode(utf8, out);
    if (a == SMS_LATIN1)
        return latin1_encode(utf8, out);
    sl_assert(a == SMS_UCS2); /* our own choice */
    ucs2_encode(utf8, out);
    return SL_OK;
}

void sms_decode(enum sms_alphabet a, struct sl_str octets, struct sl_buf *out)
{
    switch (a) {
    case SMS_GSM7:
        gsm_decode(octets, out);
        return;
    case SMS_IA5:
        if (looks_like_gsm(octets))
            gsm_decode(octets, out);
        else
            latin1_decode(octets, out);
        return;
    case SMS_LATIN1:
    case SMS_BINARY:
        latin1_decode(octets, out);
        return;
    case SMS_UCS2:
        ucs2_decode(octets, out);
        return;
    case SMS_CYRILLIC:
    case SMS_HEBREW:
    case SMS_JIS:
    case SMS_JIS2022:
    case SMS_JIS_X0212:
    case SMS_KOREAN:
    case SMS_GBK:
        charset_decode(charsets[a], octets, out);
        return;
    }
}

size_t sms_cut(enum sms_alphabet a, struct sl_str octets, size_t max)
{
    if (octets.len <= max)
        return octets.len;
    if (a == SMS_UCS2) {
        size_t n = max & ~(size_t)1;
        return is_high(unit_at(octets, n - 2)) ? n - 2 : n;
    }
    if (a != SMS_GSM7)
        return max;
    /* an escape at the end, unless it is itself the second of a pair */
    size_t escapes = 0;
    while (escapes < max && octets.ptr[max - 1 - escapes] == ESCAPE)
        escapes++;
    return escapes % 2 == 1 ? max - 1 : max;
}
