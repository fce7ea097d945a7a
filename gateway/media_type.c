/* gateway/media_type.c - see media_type.h. */
#include "gateway/media_type.h"

static const struct signature {
    size_t at;
    const char *bytes;
    size_t len;
    const char *type;
} signatures[] = {
#define SIGNATURE(at, bytes, type)                                                                           \
    {                                                                                                        \
        at, bytes, sizeof(bytes) - 1, type                                                                   \
    }
    SIGNATURE(0, "\x89PNG\r\n\x1a\n", "image/png"),
    SIGNATURE(0, "\xff\xd8\xff", "image/jpeg"),
    SIGNATURE(0, "GIF87a", "image/gif"),
    SIGNATURE(0, "GIF89a", "image/gif"),
    SIGNATURE(8, "WEBPVP", "image/webp"), /* after RIFF and a length */
    SIGNATURE(0, "BM", "image/bmp"),
    SIGNATURE(0, "#!AMR-WB\n", "audio/amr-wb"),
    SIGNATURE(0, "#!AMR\n", "audio/amr"),
    SIGNATURE(0, "#!SILK_V3", "audio/silk"),
    SIGNATURE(1, "#!SILK_V3", "audio/silk"),
    SIGNATURE(0, "ID3", "audio/mpeg"),
    SIGNATURE(0, "\xff\xfb", "audio/mpeg"),
    SIGNATURE(0, "\xff\xf3", "audio/mpeg"),
    SIGNATURE(0, "OggS", "audio/ogg"),
    SIGNATURE(0, "fLaC", "audio/flac"),
    SIGNATURE(8, "WAVE", "audio/wav"),
    SIGNATURE(4, "ftypM4A", "audio/mp4"),
    SIGNATURE(4, "ftypheic", "image/heic"),
    SIGNATURE(4, "ftypavif", "image/avif"),
    SIGNATURE(4, "ftypqt", "video/quicktime"),
    SIGNATURE(4, "ftyp", "video/mp4"),
    SIGNATURE(0, "\x1a\x45\xdf\xa3", "video/webm"),
    SIGNATURE(0, "%PDF-", "application/pdf"),
    SIGNATURE(0, "PK\x03\x04", "application/zip"),
    SIGNATURE(0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    SIGNATURE(0, "\x1f\x8b", "application/gzip"),
    SIGNATURE(0, "Rar!\x1a\x07", "application/vnd.rar"),
    SIGNATURE(0, "7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
#undef SIGNATURE
};

static bool has_signature(struct sl_str bytes, const struct signature *s)
{
    return bytes.len >= s->at + s->len && memcmp(bytes.ptr + s->at, s->bytes, s->len) == 0;
}

const char *gw_media_sniff(struct sl_str bytes)
{
    for (size_t i = 0; i < sizeof signatures / sizeof signatures[0]; i++)
        if (has_signature(bytes, &signatures[i]))
            return signatures[i].type;
    return NULL;
}

/* token/token (RFC 9110 8.3.1), lower case; parameters are dropped. */
static bool read_type(struct sl_str said, char out[128])
{
    size_t n = 0, slashes = 0;
    while (n < said.len && said.ptr[n] != ';' && said.ptr[n] != ' ' && n < 127) {
        char c = said.ptr[n];
        c = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
        bool is_ok =
            (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (n > 0 && strchr("/.+-_", c) != NULL);
        if (!is_ok)
            return false;
        slashes += c == '/';
        out[n++] = c;
    }
    out[n] = '\0';
    return slashes == 1 && n < 127 && out[n - 1] != '/';
}

/* What a browser would run or draw as a page, whatever we say about it. */
static bool is_active(const char *type)
{
    static const char *const words[] = {
        "html", "svg", "+xml", "/xml", "javascript", "ecmascript", "x-shockwave-flash"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strstr(type, words[i]) != NULL)
            return true;
    return false;
}

/* Formats inside of others, where the sniffed one is only the box around it. */
static bool is_refined_by(const char *sniffed, const char *said)
{
    static const struct {
        const char *box, *inside;
    } rows[] = {{"application/zip", "application/vnd.openxmlformats"},
                {"application/zip", "application/vnd.oasis."},
                {"application/x-ole-storage", "application/msword"},
                {"application/x-ole-storage", "application/vnd.ms-"},
                {"audio/ogg", "video/ogg"},
                {"video/webm", "audio/webm"},
                {"video/mp4", "audio/mp4"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strcmp(sniffed, rows[i].box) == 0 && strncmp(said, rows[i].inside, strlen(rows[i].inside)) == 0)
            return true;
    return false;
}

void gw_media_type(struct sl_str bytes, struct sl_str said, char out[128])
{
    char form[128];
    const char *sniffed = gw_media_sniff(bytes);
    bool has_form = read_type(said, form) && !is_active(form);
    const char *type = sniffed != NULL ? sniffed : GW_MEDIA_ANY_TYPE;
    bool claims_media = has_form && gw_media_is_inline(sl_str_c(form));
    if (has_form && (sniffed != NULL ? is_refined_by(sniffed, form) : !claims_media))
        type = form;
    memmove(out, type, strlen(type) + 1);
}

bool gw_media_is_inline(struct sl_str type)
{
    static const char *const types[] = {
        "image/png",  "image/jpeg", "image/gif",  "image/webp", "image/bmp",      "image/avif",
        "audio/amr",  "audio/mpeg", "audio/ogg",  "audio/flac", "audio/wav",      "audio/mp4",
        "audio/webm", "video/mp4",  "video/webm", "video/ogg",  "video/quicktime"};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (sl_str_eq_c(type, types[i]))
            return true;
    return false;
}

void gw_media_name(struct sl_str said, char out[256])
{
    size_t n = 0;
    if (!sl_str_utf8(said))
        said = SL_STR_NONE;
    for (size_t i = said.len; i-- > 0;)
        if (said.ptr[i] == '/' || said.ptr[i] == '\\') {
            said = sl_str_n(said.ptr + i + 1, said.len - i - 1);
            break;
        }
    for (size_t i = 0; i < said.len && n < 200; i++) {
        unsigned char c = (unsigned char)said.ptr[i];
        bool is_bad = c < ' ' || c == 127 || strchr("?#%\"<>|:*;'&\\", c) != NULL || (n == 0 && c == '.');
        out[n++] = (char)(is_bad ? '_' : c);
    }
    if (n == 200) /* perhaps inside a character */
        while (n > 0 && !sl_str_utf8(sl_str_n(out, n)))
            n--;
    out[n] = '\0';
    if (n == 0)
        memcpy(out, "file", 5);
}
