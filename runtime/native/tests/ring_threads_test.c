/* One thread pushes as fast as it can while another reads: a sample that was handed out is the right one, never a torn one. */
#include <pthread.h>
#include <stdatomic.h>

#include "check.h"
#include "sage.h"

enum { CAPACITY = 4096, TOTAL = 2000000, LONGEST = 700, READ = 1500 };

static float value(int64_t index) { return (float)(index % 1000003 + 1); }

static void *produce(void *ring) {
    float x[LONGEST];
    uint64_t random = 2;
    for (int64_t at = 0; at < TOTAL;) {
        int64_t n = next_random(&random) % LONGEST;
        for (int64_t i = 0; i < n; i++) x[i] = value(at + i);
        CHECK(sage_ring_push(ring, x, n) >= 0);
        at += n;
    }
    return NULL;
}

int main(void) {
    sage_ring *ring;
    pthread_t producer;
    CHECK(sage_ring_create(CAPACITY, &ring) == SAGE_OK);
    CHECK(!pthread_create(&producer, NULL, produce, ring));
    float out[READ];
    uint64_t random = 3;
    int64_t valid = 0, whole = 0;
    while (sage_ring_written(ring) < TOTAL) {
        int64_t written = sage_ring_written(ring);
        int64_t start = written - (int64_t)(next_random(&random) % (CAPACITY + READ));
        int64_t count = sage_ring_read(ring, start, out, READ), seen = 0;
        CHECK(count >= 0 && count <= READ);
        for (int64_t i = 0; i < READ; i++) {
            CHECK(out[i] == 0.0f || out[i] == value(start + i));
            seen += out[i] != 0.0f;
        }
        CHECK(seen == count);
        valid += count;
        whole += count == READ;
    }
    CHECK(!pthread_join(producer, NULL));
    int64_t written = sage_ring_written(ring);
    CHECK(sage_ring_read(ring, written - READ, out, READ) == READ);
    for (int64_t i = 0; i < READ; i++) CHECK(out[i] == value(written - READ + i));
    sage_ring_destroy(ring);
    printf("%lld samples read beside the producer, %lld whole reads\n", (long long)valid, (long long)whole);
    return 0;
}
