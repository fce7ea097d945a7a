/* bus/pack.h - many strings in one: how the arguments of an operation travel to the module, and lie in the append-only file.
 *
 * Form     one item after the other, to the end: a number, then bytes. The number is (length << 1), then the bytes; or
 *          (length of head << 1 | 1), then the number of an earlier item and the length of a tail, then head and tail: the
 *          string is head, that item, tail. The earlier item is one of the first kind. Numbers are LEB128: seven bits a byte,
 *          lowest first, the high bit says that more follow; at most five bytes.
 * Why      Redis reads one string faster than forty, and what stands in three arguments (an entry, its record, its push)
 *          travels and is stored once.
 * Pure     no memory of its own.
 */
#ifndef BUS_PACK_H
#define BUS_PACK_H

#include "base/str.h"

#define BUS_PACK_LEN_MAX (1u << 30) /* of head, tail and plain string */

size_t bus_pack_size(size_t len);
size_t bus_pack_shared_size(size_t source, size_t head, size_t tail);
/* Both return where the next item goes. */
char *bus_pack_put(char *at, struct sl_str s);
char *bus_pack_put_shared(char *at, size_t source, struct sl_str head, struct sl_str tail);

/* How many items; false: it is no pack. */
bool bus_pack_count(struct sl_str pack, size_t *count);
/* The strings of a pack that bus_pack_count has counted: views into it, or put together in memory from take. false: an item names
 * no earlier plain one, or all strings together are longer than bytes_max. */
bool bus_pack_read(struct sl_str pack, size_t bytes_max, struct sl_str *out,
                   void *(*take)(void *arg, size_t n), void *arg);
/* What lies before item `from` and from item `to` on. false: something behind refers to what would be cut or moved. */
bool bus_pack_cut(struct sl_str pack, size_t from, size_t to, struct sl_str *before, struct sl_str *behind);

#endif
