/* Whatever the chunks, a ring holds the newest samples under their absolute index, gives zeros elsewhere, and counts overruns. */
#include "check.h"
#include "sage.h"

enum { LONGEST = 64 };

int main(void) {
    uint64_t random = 1;
    for (int64_t capacity = 1; capacity <= 40; capacity += 3) {
        sage_ring *ring;
        CHECK(sage_ring_create(capacity, &ring) == SAGE_OK);
        int64_t written = 0, reached = 0;
        for (int turn = 0; turn < 400; turn++) {
            float x[LONGEST], out[LONGEST];
            int64_t n = next_random(&random) % LONGEST, skip = next_random(&random) % 8 == 0;
            for (int64_t i = 0; i < n; i++) x[i] = skip ? 0.0f : (float)(written + i + 1);
            int64_t lost = 0; /* samples that were not read and are held no more, beyond those lost before */
            for (int64_t i = reached; i < written + n; i++) lost += i < written + n - capacity && i >= written - capacity;
            CHECK(sage_ring_push(ring, skip ? NULL : x, n) == lost);
            int64_t zeros = skip ? n : 0, before = written;
            written += n;
            CHECK(sage_ring_written(ring) == written);

            int64_t start = written - capacity - 8 + next_random(&random) % (uint32_t)(capacity + 16), held = 0;
            n = next_random(&random) % LONGEST;
            for (int64_t i = 0; i < n; i++) out[i] = -1;
            int64_t count = sage_ring_read(ring, start, out, n);
            for (int64_t i = start; i < start + n; i++) {
                int here = i >= 0 && i < written && i >= written - capacity;
                held += here;
                if (!here || (zeros && i >= before)) CHECK(out[i - start] == 0.0f);
                else CHECK(out[i - start] == (float)(i + 1) || out[i - start] == 0.0f);
            }
            CHECK(count == held);
            int64_t end = start + n < written ? start + n : written;
            if (end > reached) reached = end;
        }
        sage_ring_destroy(ring);
    }
    return 0;
}
