/* A reader that keeps up loses nothing: every sample arrives once, in order, through two threads. */
#include <pthread.h>
#include <stdatomic.h>

#include "check.h"
#include "sage.h"

enum { CAPACITY = 2048, TOTAL = 300000, CHUNK = 160 };

static sage_ring *ring;
static _Atomic(int64_t) consumed;

static void *produce(void *lost) {
    float x[CHUNK];
    for (int64_t at = 0; at < TOTAL; at += CHUNK) {
        while (at + CHUNK - atomic_load(&consumed) > CAPACITY) continue;
        for (int64_t i = 0; i < CHUNK; i++) x[i] = (float)(at + i);
        *(int64_t *)lost += sage_ring_push(ring, x, CHUNK);
    }
    return NULL;
}

int main(void) {
    pthread_t producer;
    int64_t lost = 0;
    float out[333];
    CHECK(sage_ring_create(CAPACITY, &ring) == SAGE_OK);
    CHECK(!pthread_create(&producer, NULL, produce, &lost));
    for (int64_t at = 0; at < TOTAL;) {
        int64_t n = sage_ring_written(ring) - at;
        if (n > 333) n = 333;
        CHECK(sage_ring_read(ring, at, out, n) == n);
        for (int64_t i = 0; i < n; i++) CHECK(out[i] == (float)(at + i));
        at += n;
        atomic_store(&consumed, at);
    }
    CHECK(!pthread_join(producer, NULL));
    CHECK(lost == 0 && sage_ring_written(ring) == TOTAL);
    sage_ring_destroy(ring);
    return 0;
}
