/* gateway/media_type.h - what bytes are, by their first ones, and what a browser may be shown of it. Pure.
 *
 * Source   the signatures of WHATWG "MIME Sniffing" 6 and 7 where it has them; ISO 14496-12 4.3 (ftyp); RFC 4867 5 (#!AMR); the
 *          formats' own documents for PDF, ZIP, OLE2 (MS-CFB 2.2), SILK (a 0x02 byte before "#!SILK_V3" as WeChat writes it).
 */
#ifndef GATEWAY_MEDIA_TYPE_H
#define GATEWAY_MEDIA_TYPE_H

#include "base/str.h"

#define GW_MEDIA_ANY_TYPE "application/octet-stream"

const char *gw_media_sniff(struct sl_str bytes); /* NULL: unknown */
/* What to call it: what it is; else what it is said to be, when that is a type's form and nothing a browser runs. */
void gw_media_type(struct sl_str bytes, struct sl_str said, char out[128]);
/* May stand in a page (image, audio, video that cannot carry a script); else it is a download. */
bool gw_media_is_inline(struct sl_str type);
/* A file's name without folders, control characters and what means something in a URL or header; never empty. */
void gw_media_name(struct sl_str said, char out[256]);

#endif
