/* The audio ring: one producer, one consumer, no lock, no wait.
 *
 * The producer announces in `claimed` how far it is about to write before it touches a sample, and in `written` how far it
 * has written afterwards. The consumer copies first and then looks at `claimed`: whatever that gives up may have been torn
 * and is not handed out. Each sample is an atomic, stored with release and loaded with acquire: that alone orders the
 * samples between the two announcements, with no fence, and costs nothing on x86.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "sage.h"

typedef _Atomic(float) sample;

struct sage_ring {
    int64_t capacity;
    _Atomic(int64_t) claimed; /* written by the producer */
    _Atomic(int64_t) written; /* written by the producer */
    _Atomic(int64_t) read;    /* written by the consumer: everything before it was asked for once */
    sample samples[];
};

int32_t sage_ring_create(int64_t capacity, sage_ring **ring) {
    if (!ring) return SAGE_E_NULL;
    if (capacity < 1 || capacity > SAGE_RING_MAX) return SAGE_E_SIZE;
    sage_ring *made = malloc(sizeof *made + (size_t)capacity * sizeof(sample));
    if (!made) return SAGE_E_MEMORY;
    made->capacity = capacity;
    atomic_init(&made->claimed, 0);
    atomic_init(&made->written, 0);
    atomic_init(&made->read, 0);
    for (int64_t i = 0; i < capacity; i++) atomic_init(&made->samples[i], 0.0f);
    *ring = made;
    return SAGE_OK;
}

void sage_ring_destroy(sage_ring *ring) { free(ring); }

int64_t sage_ring_push(sage_ring *ring, const float *samples, int64_t n) {
    if (!ring) return SAGE_E_NULL;
    int64_t before = atomic_load_explicit(&ring->written, memory_order_relaxed);
    if (n < 0 || n > INT64_MAX / 2 - before) return SAGE_E_SIZE;
    int64_t after = before + n, oldest_before = before - ring->capacity, oldest_after = after - ring->capacity;
    int64_t unread = atomic_load_explicit(&ring->read, memory_order_relaxed);
    int64_t from = oldest_before > unread ? oldest_before : unread;
    int64_t lost = oldest_after > from ? oldest_after - from : 0;

    atomic_store_explicit(&ring->claimed, after, memory_order_relaxed);
    int64_t first = before > oldest_after ? before : oldest_after;
    int64_t at = first % ring->capacity;
    for (int64_t i = first; i < after; i++) {
        atomic_store_explicit(&ring->samples[at], samples ? samples[i - before] : 0.0f, memory_order_release);
        if (++at == ring->capacity) at = 0;
    }
    atomic_store_explicit(&ring->written, after, memory_order_release);
    return lost;
}

int64_t sage_ring_read(sage_ring *ring, int64_t start, float *out, int64_t n) {
    if (!ring || (!out && n)) return SAGE_E_NULL;
    if (n < 0 || start > INT64_MAX / 2 || start < INT64_MIN / 2 || n > INT64_MAX / 2) return SAGE_E_SIZE;
    int64_t written = atomic_load_explicit(&ring->written, memory_order_acquire);
    int64_t oldest = written - ring->capacity, end = start + n;
    int64_t first = start > 0 ? start : 0, last = end < written ? end : written;
    if (first < oldest) first = oldest;

    if (first < last) {
        int64_t at = first % ring->capacity;
        for (int64_t i = first; i < last; i++) {
            out[i - start] = atomic_load_explicit(&ring->samples[at], memory_order_acquire);
            if (++at == ring->capacity) at = 0;
        }
        int64_t given_up = atomic_load_explicit(&ring->claimed, memory_order_relaxed) - ring->capacity;
        if (first < given_up) first = given_up;
    }
    if (first >= last) first = last = start;
    if (n) {
        memset(out, 0, (size_t)(first - start) * sizeof *out);
        memset(out + (last - start), 0, (size_t)(end - last) * sizeof *out);
    }
    int64_t reached = end < written ? end : written;
    if (reached > atomic_load_explicit(&ring->read, memory_order_relaxed)) atomic_store_explicit(&ring->read, reached, memory_order_relaxed);
    return last - first;
}

int64_t sage_ring_written(const sage_ring *ring) {
    return ring ? atomic_load_explicit(&ring->written, memory_order_acquire) : SAGE_E_NULL;
}
