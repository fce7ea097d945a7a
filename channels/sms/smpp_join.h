/* channels/sms/smpp_join.h - parts of a long message as they lie in the shared store, and what can be made of them.
 *
 * What     pure. A map (channel.h, CHAN_KV_PUT) holds one field a part, named by its number and its octets' hash, so
 *          that a part that comes twice is one field and a later message with the same reference is another. What
 *          was handed on is named in a field of its own: the map is kept as long as repeats may come.
 */
#ifndef CHANNELS_SMS_SMPP_JOIN_H
#define CHANNELS_SMS_SMPP_JOIN_H

#include "base/str.h"
#include "channels/sms/smpp_part.h"

#define SMPP_FIELD_MAX 16 /* "255-0123456789" */
#define SMPP_PARTS_MAX 255

enum smpp_join_result {
    SMPP_JOIN_WAITS,  /* parts are missing */
    SMPP_JOIN_WHOLE,  /* all are there */
    SMPP_JOIN_REPEAT, /* the part belongs to what was handed on before: the same again */
};
struct smpp_joined {
    struct sl_buf octets[1];          /* of the parts that are there, in order */
    struct sl_buf fields[1];          /* their names, separated by commas: the identity of the message */
    uint8_t have[SMPP_PARTS_MAX + 1]; /* 1 when the part of this number is there */
    size_t end[SMPP_PARTS_MAX + 1];   /* where its octets end */
    uint8_t data_coding;
    unsigned parts; /* how many are there */
};
void smpp_join_init(struct smpp_joined *j);
void smpp_join_fini(struct smpp_joined *j);

void smpp_join_field(char out[SMPP_FIELD_MAX], const struct smpp_part *part);
/* "<unix ms>.<data coding>.<octets in base64url>" */
void smpp_join_value(struct sl_buf *out, const struct smpp_part *part, uint8_t data_coding, int64_t unix_ms);
/* map: name\0value\0...; field: of the part that came (empty: take what is there, for one that waited too long). */
enum smpp_join_result smpp_join(struct sl_str map, unsigned total, struct sl_str field,
                                struct smpp_joined *out);
/* The text; a gap is "[...]". */
void smpp_join_text(const struct smpp_joined *j, unsigned total, enum sms_alphabet zero, struct sl_buf *text);
/* Name of the field that marks these as handed on; its value is j->fields. */
void smpp_join_mark(const struct smpp_joined *j, char out[SMPP_FIELD_MAX]);

#endif
