/* bus/redis_reply.c - replies in one block: hiredis makes two allocations for each string of a reply, and an XREAD has many.
 *
 * Lifetime  a reply and all it holds lie in a list of chunks that begins right before the reply itself; freeing the reply frees
 *           them all. hiredis frees only whole replies.
 * Sizes     the first chunk is one that malloc keeps at hand (glibc's tcache: up to 1,032 bytes); the next ones double.
 */
#include "bus/redis_priv.h"

#include <stdlib.h>

#define FIRST_CHUNK_BYTES 960
#define NEXT_CHUNK_BYTES  8192
#define CHUNK_BYTES_MAX   (1u << 20) /* a larger string gets a chunk of its own size */

struct chunk {
    struct chunk *next, *last; /* last: of the first chunk only */
    size_t used, size;
    _Alignas(16) char bytes[];
};

static struct chunk *chunk_new(size_t size)
{
    struct chunk *c = malloc(sizeof(*c) + size);
    if (c != NULL)
        *c = (struct chunk){.last = c, .size = size};
    return c;
}

/* The chunk that a reply is the beginning of. */
static struct chunk *chunk_of(void *root)
{
    return (struct chunk *)(void *)((char *)root - offsetof(struct chunk, bytes));
}

static struct chunk *first_chunk(const redisReadTask *task)
{
    while (task->parent != NULL && task->parent->parent != NULL)
        task = task->parent;
    return task->parent == NULL ? NULL : chunk_of(task->parent->obj);
}

static size_t next_size(const struct chunk *last, size_t n)
{
    size_t size = last->size < NEXT_CHUNK_BYTES ? NEXT_CHUNK_BYTES : last->size * 2;
    if (size > CHUNK_BYTES_MAX)
        size = CHUNK_BYTES_MAX;
    return n > size ? n : size;
}

/* n bytes for the reply that the task belongs to; NULL when there is no memory. */
static void *take(const redisReadTask *task, size_t n)
{
    struct chunk *first = first_chunk(task);
    n = (n + 15) & ~(size_t)15;
    if (first == NULL) {
        first = chunk_new(n > FIRST_CHUNK_BYTES ? n : FIRST_CHUNK_BYTES);
        if (first == NULL)
            return NULL;
    }
    struct chunk *c = first->last;
    if (c->size - c->used < n) {
        c->next = chunk_new(next_size(c, n));
        if (c->next == NULL)
            return NULL;
        c = first->last = c->next;
    }
    c->used += n;
    return c->bytes + c->used - n;
}

static redisReply *reply_new(const redisReadTask *task, size_t more_bytes)
{
    redisReply *r = take(task, sizeof(*r) + more_bytes);
    if (r == NULL)
        return NULL;
    *r = (redisReply){.type = task->type};
    if (task->parent != NULL)
        ((redisReply *)task->parent->obj)->element[task->idx] = r;
    return r;
}

static void *create_string(const redisReadTask *task, char *text, size_t len)
{
    redisReply *r = reply_new(task, len + 1);
    if (r == NULL)
        return NULL;
    r->str = (char *)(r + 1);
    r->len = len;
    if (len > 0)
        memcpy(r->str, text, len);
    r->str[len] = '\0';
    return r;
}

static void *create_array(const redisReadTask *task, int elements)
{
    size_t count = elements > 0 ? (size_t)elements : 0;
    redisReply *r = reply_new(task, count * sizeof(redisReply *));
    if (r == NULL)
        return NULL;
    r->elements = count;
    if (count > 0)
        r->element = memset(r + 1, 0, count * sizeof(redisReply *));
    return r;
}

static void *create_integer(const redisReadTask *task, long long value)
{
    redisReply *r = reply_new(task, 0);
    if (r != NULL)
        r->integer = value;
    return r;
}

static void *create_nil(const redisReadTask *task)
{
    redisReply *r = reply_new(task, 0);
    if (r != NULL)
        r->type = REDIS_REPLY_NIL; /* the task's type is what it would have been */
    return r;
}

static void free_reply(void *root)
{
    struct chunk *c = root == NULL ? NULL : chunk_of(root);
    while (c != NULL) {
        struct chunk *next = c->next;
        free(c);
        c = next;
    }
}

redisReplyObjectFunctions *bus_reply_functions(void)
{
    static redisReplyObjectFunctions functions = {.createString = create_string,
                                                  .createArray = create_array,
                                                  .createInteger = create_integer,
                                                  .createNil = create_nil,
                                                  .freeObject = free_reply};
    return &functions; /* hiredis wants no const, and changes nothing */
}
