#include "gateway/outbox.h"

#include <stdlib.h>

#define LENGTH_BYTES ((uint32_t)sizeof(uint32_t))

static void make_room(struct gw_outbox *o, uint32_t wanted)
{
    if (o->start > 0 && o->cap - o->start - o->len < wanted) {
        memmove(o->ptr, o->ptr + o->start, o->len);
        o->start = 0;
    }
    if (o->cap - o->start - o->len >= wanted)
        return;
    uint32_t cap = o->cap == 0 ? 512 : o->cap;
    while (cap < o->len + wanted)
        cap *= 2;
    o->ptr = sl_realloc(o->ptr, cap);
    o->cap = cap;
}

bool gw_outbox_add(struct gw_outbox *o, struct sl_str frame)
{
    if (o->count >= GW_OUTBOX_FRAMES_MAX || frame.len > GW_OUTBOX_BYTES_MAX ||
        o->len + frame.len > GW_OUTBOX_BYTES_MAX)
        return false;
    uint32_t n = (uint32_t)frame.len;
    make_room(o, n + LENGTH_BYTES);
    char *at = o->ptr + o->start + o->len;
    memcpy(at, &n, LENGTH_BYTES);
    memcpy(at + LENGTH_BYTES, frame.ptr, n);
    o->len += n + LENGTH_BYTES;
    o->count++;
    return true;
}

static uint32_t length_at(const struct gw_outbox *o, uint32_t at)
{
    uint32_t n;
    memcpy(&n, o->ptr + o->start + at, LENGTH_BYTES);
    return n;
}

/* How many of the waiting frames go into the next message. */
static uint32_t next_batch(const struct gw_outbox *o)
{
    uint32_t count = 0, at = 0, bytes = 0;
    while (count < o->count && count < GW_MESSAGE_FRAMES_MAX) {
        uint32_t n = length_at(o, at);
        if (count > 0 && bytes + n > GW_MESSAGE_BYTES_MAX)
            break;
        bytes += n;
        at += n + LENGTH_BYTES;
        count++;
    }
    return count;
}

static void take_frame(struct gw_outbox *o, struct sl_buf *out)
{
    uint32_t n = length_at(o, 0);
    sl_buf_add(out, o->ptr + o->start + LENGTH_BYTES, n);
    o->start += n + LENGTH_BYTES;
    o->len -= n + LENGTH_BYTES;
    o->count--;
}

bool gw_outbox_take(struct gw_outbox *o, struct sl_buf *out)
{
    uint32_t batch = next_batch(o);
    if (batch == 0)
        return false;
    if (batch > 1)
        sl_buf_char(out, '[');
    for (uint32_t i = 0; i < batch; i++) {
        if (i > 0)
            sl_buf_char(out, ',');
        take_frame(o, out);
    }
    if (batch > 1)
        sl_buf_char(out, ']');
    if (o->count == 0)
        gw_outbox_fini(o);
    return true;
}

size_t gw_outbox_room(const struct gw_outbox *o)
{
    bool has_frames_left = o->count < GW_OUTBOX_FRAMES_MAX / 2;
    return has_frames_left && o->len < GW_OUTBOX_BYTES_MAX ? GW_OUTBOX_BYTES_MAX - o->len : 0;
}

void gw_outbox_fini(struct gw_outbox *o)
{
    free(o->ptr);
    *o = (struct gw_outbox){.ptr = NULL};
}
