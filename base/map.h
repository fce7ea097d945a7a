/* base/map.h - hash map from byte strings to pointers; open addressing; keys are copied.
 * Iteration order is insertion order, so everything that walks a map repeats itself under simulation. */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include "base/str.h"

struct sl_map;
struct sl_map *sl_map_new(void);
void sl_map_free(struct sl_map **m);                         /* values are the caller's */
void *sl_map_get(const struct sl_map *m, struct sl_str key); /* NULL when absent */
/* returns the value that stood there, or NULL; value != NULL */
void *sl_map_set(struct sl_map *m, struct sl_str key, void *value);
void *sl_map_del(struct sl_map *m, struct sl_str key); /* returns the value that stood there, or NULL */
size_t sl_map_count(const struct sl_map *m);
/* for (size_t i = 0; sl_map_next(m, &i, &key, &value);) ; deleting the current key inside the walk is allowed, adding is not. */
bool sl_map_next(const struct sl_map *m, size_t *i, struct sl_str *key, void **value);

#endif
