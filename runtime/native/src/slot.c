/* The newest-frame slot: the middle one of three buffers changes hands in one exchange.
 *
 * `middle` is the number of the buffer that belongs to nobody, with FRESH set when it holds a frame that was not taken.
 * Writer and reader swap their own buffer for it; the exchange orders what was written into one before what is read from it.
 */
#include <stdatomic.h>
#include <stdlib.h>

#include "sage.h"

enum { FRESH = 4 };

typedef struct {
    uint8_t *data;
    int64_t t_ns, tag, number;
} frame;

struct sage_slot {
    frame frames[3];
    _Atomic(int32_t) middle;
    int32_t back;      /* the writer's */
    int64_t committed; /* the writer's: frames so far */
    int32_t front;     /* the reader's */
    int64_t taken;     /* the reader's: number of the frame taken last */
    uint8_t *buffer;
};

int32_t sage_slot_create(int64_t bytes, sage_slot **slot) {
    if (!slot) return SAGE_E_NULL;
    if (bytes < 1 || bytes > SAGE_SLOT_MAX) return SAGE_E_SIZE;
    size_t size = ((size_t)bytes + 63) / 64 * 64;
    sage_slot *made = malloc(sizeof *made);
    uint8_t *buffer = aligned_alloc(64, 3 * size);
    if (!made || !buffer) {
        free(made);
        free(buffer);
        return SAGE_E_MEMORY;
    }
    *made = (sage_slot){.back = 0, .front = 2, .buffer = buffer};
    for (int i = 0; i < 3; i++) made->frames[i].data = buffer + (size_t)i * size;
    atomic_init(&made->middle, 1);
    *slot = made;
    return SAGE_OK;
}

void sage_slot_destroy(sage_slot *slot) {
    if (!slot) return;
    free(slot->buffer);
    free(slot);
}

uint8_t *sage_slot_begin(sage_slot *slot) { return slot ? slot->frames[slot->back].data : NULL; }

int32_t sage_slot_commit(sage_slot *slot, int64_t t_ns, int64_t tag) {
    if (!slot) return SAGE_E_NULL;
    frame *made = &slot->frames[slot->back];
    made->t_ns = t_ns;
    made->tag = tag;
    made->number = ++slot->committed;
    slot->back = atomic_exchange_explicit(&slot->middle, slot->back | FRESH, memory_order_acq_rel) & ~FRESH;
    return SAGE_OK;
}

int32_t sage_slot_take(sage_slot *slot, sage_slot_frame *taken) {
    if (!slot || !taken) return SAGE_E_NULL;
    if (!(atomic_load_explicit(&slot->middle, memory_order_relaxed) & FRESH)) return 0;
    slot->front = atomic_exchange_explicit(&slot->middle, slot->front, memory_order_acq_rel) & ~FRESH;
    const frame *newest = &slot->frames[slot->front];
    *taken = (sage_slot_frame){newest->data, newest->t_ns, newest->tag, newest->number - slot->taken - 1};
    slot->taken = newest->number;
    return 1;
}
