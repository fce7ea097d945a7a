/* proto/fit.h - cut a message to what a channel can carry: kinds it lacks become text, long text becomes several parts.
 *
 * What     pure: a message and limits in, a bounded list of messages out. Delivery lanes send the parts one after another.
 * Kinds    choice -> numbered lines; card -> title, text, links; location -> its name and a map link; link -> title and
 *          address; an attachment whose kind or size the channel does not take -> its name and a signed link, or its name in
 *          brackets when there is no link; event and note -> nothing.
 * Text     is cut behind the end of a sentence or a line, else between words or behind a comma, else between graphemes (Unicode
 *          UAX #29, by utf8proc). A grapheme is cut only when it alone is over the limit. A web address that fits in one part
 *          is never cut. White space at a cut is dropped; nothing else is.
 * Owner    struct fit owns the parts' bytes; a part also borrows from the message it was made of.
 * Source   Unicode Standard Annex #29; map link: wiki.openstreetmap.org/wiki/Browsing#Sharing_a_link_to_the_maps (mlat, mlon)
 */
#ifndef PROTO_FIT_H
#define PROTO_FIT_H

#include "proto/message.h"

#define FIT_PARTS_MAX      32
#define FIT_TEXT_MIN       16 /* a smaller text_max counts as this: a code point may have 4 bytes */
#define FIT_OPTIONS_MAX    64 /* of a choice or card that are shown */
#define FIT_NUMBER_UNITS   8  /* "(12/32) " */
#define FIT_REST_DEFAULT   "…"
#define FIT_LIMITS_BYTES   96 /* fit_limits_write() */
#define FIT_LINK_MAX_BYTES 4096

struct fit_limits {
    size_t text_max;         /* of one part; 0: none */
    bool is_chars;           /* text_max counts code points; else bytes of UTF-8 */
    unsigned kinds;          /* 1u << MSG_IMAGE | ...: what is taken beside text */
    unsigned bare;           /* of these, attachments that go without words: words are a part of their own */
    size_t options_max;      /* of a choice that is taken as one; 0: none is */
    int64_t media_max_bytes; /* of an attachment; 0: any */
    size_t parts_max;        /* 0: FIT_PARTS_MAX, which is also the most */
    bool is_numbered;        /* "(1/3) " before each of several texts */
    bool is_tight;           /* parts are scarce: fill each, rather than end it with a sentence */
    struct sl_str
        rest; /* ends the last part when not all could be sent; empty: FIT_REST_DEFAULT. At most text_max / 2 */
    /* Append a public link to an attachment; nothing when there is none. May be NULL. */
    void (*link)(void *arg, struct sl_str id, struct sl_str name, struct sl_buf *out);
    void *link_arg;
};
struct fit {
    size_t count;
    struct msg part[FIT_PARTS_MAX]; /* copies of the message with kind, text and data of the part */
    bool is_cut;                    /* the last part says that there was more */
    struct sl_buf bytes;
};
void fit_init(struct fit *f);
void fit_fini(struct fit *f);
/* count 0: there is nothing to send. EINVAL: data is no JSON object (a message from msg_check's other side). */
sl_err fit_message(struct fit *f, const struct msg *m, const struct fit_limits *l,
                   struct sl_fail *why) SL_MUST_CHECK;

/* The same for a channel that grants so many sends and no more: parts are filled when there would be too many, and SL_ETOOBIG
 * when there still are (f->count: how many it needs, at most FIT_PARTS_MAX). Nothing is left out. sends 0: any number. Whoever
 * counts what a message will cost and whoever sends it ask with the same numbers and get the same parts. */
sl_err fit_within(struct fit *f, const struct msg *m, const struct fit_limits *l, size_t sends,
                  struct sl_fail *why) SL_MUST_CHECK;

/* What decides how many parts a message has, as a word for a log: "2048b/62/0/10/10485760/180". link_bytes: of a link to an
 * attachment without its name; 0: there are no links. Read: EINVAL for anything else, *out untouched. */
void fit_limits_write(const struct fit_limits *l, size_t link_bytes, char out[FIT_LIMITS_BYTES]);
sl_err fit_limits_read(struct sl_str word, struct fit_limits *out, size_t *link_bytes) SL_MUST_CHECK;
/* fit_limits.link for who cannot make links: one as long as the longest that could stand there. arg: size_t link_bytes. */
void fit_link_of(void *link_bytes, struct sl_str id, struct sl_str name, struct sl_buf *out);

/* The first cut of a text: returns how many bytes the first part has (0 only for a text of white space), *next is where the
 * rest begins. max >= FIT_TEXT_MIN. */
size_t fit_cut(struct sl_str text, size_t max, bool is_chars, bool is_tight, size_t *next);
size_t fit_units(struct sl_str text, bool is_chars);

#endif
