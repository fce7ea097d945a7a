/* channels/sms/sms_optout.h - numbers that want no more messages: the words, and the ledger.
 *
 * What     a customer who writes STOP, TD, T or 退订 (and what else the law or a carrier asks for) is entered into the ledger by
 *          number; one who writes START or 恢复 leaves it. The ledger stands in the inbox's shared values, without a time limit.
 * Rule     every SMS adapter asks the ledger before it sends, and refuses with SMS_OPTED_OUT_WORDS.
 * Source   Twilio's default keywords (STOP, STOPALL, UNSUBSCRIBE, CANCEL, END, QUIT; START, YES, UNSTOP), twilio.com/docs/messaging,
 *          from memory; in China T, TD and 退订 stand at the end of a marketing text. YES is not taken: it answers questions, too
 */
#ifndef CHANNELS_SMS_SMS_OPTOUT_H
#define CHANNELS_SMS_SMS_OPTOUT_H

#include "channels/channel.h"

#define SMS_OPTED_OUT_CODE  "opted_out"
#define SMS_OPTED_OUT_WORDS "opted out: this number asked for no more messages (客户已退订)"

enum sms_optout { SMS_OPTOUT_NONE, SMS_OPTOUT_STOP, SMS_OPTOUT_START };
/* The whole text is one such word: case, blanks and punctuation around it do not count. Pure. */
enum sms_optout sms_optout_word(struct sl_str text);

/* +<country><number>: blanks, dots, dashes and brackets are dropped, 00 becomes +, a number without + gets the country (digits;
 * empty: none, the number stays as it is, so that short codes and sender names work). EINVAL: not a number nor a name. Pure. */
#define SMS_NUMBER_MAX 32
sl_err sms_number_canonical(struct sl_str raw, const char *country,
                            char out[SMS_NUMBER_MAX + 1]) SL_MUST_CHECK;

/* Asynchronous, by the rules of host->kv. ask: fn gets SL_OK: in the ledger; SL_ENOTFOUND: not. */
sl_err sms_optout_ask(struct chan *ch, struct sl_str number, chan_kv_fn fn, void *arg) SL_MUST_CHECK;
sl_err sms_optout_put(struct chan *ch, struct sl_str number, bool is_out, chan_kv_fn fn,
                      void *arg) SL_MUST_CHECK;

#endif
