/* Pushes and reads in any order: every sample is its own index, so what is read, what was held and what was lost are known. */
#include "bytes.h"
#include "sage.h"

enum { MOST = 300 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    bytes from = {data, size};
    int64_t capacity = take_between(&from, 0, 3) ? take_between(&from, 1, 100) : take_int64(&from) % 1000;
    sage_ring *ring = NULL;
    int32_t code = sage_ring_create(capacity, &ring);
    HOLDS(code == (capacity >= 1 ? SAGE_OK : SAGE_E_SIZE) && !ring == !!code);
    int64_t written = 0, reached = 0;
    uint8_t silent[20000] = {0};
    while (ring && from.size && written + MOST < (int64_t)sizeof silent) {
        float samples[MOST];
        int64_t n = take_between(&from, -1, MOST);
        if (take_between(&from, 0, 1)) {
            for (int64_t i = 0; i < n; i++) samples[i] = (float)(written + i);
            int32_t zeros = take_between(&from, 0, 7) == 0;
            int64_t lost = sage_ring_push(ring, zeros ? NULL : samples, n);
            if (n < 0) {
                HOLDS(lost == SAGE_E_SIZE);
                continue;
            }
            int64_t expected = 0;
            for (int64_t i = written - capacity > 0 ? written - capacity : 0; i < written + n - capacity; i++) expected += i >= reached;
            HOLDS(lost == expected);
            memset(silent + written, zeros, (size_t)n);
            written += n;
        } else {
            int64_t start = take_between(&from, 0, 15) ? written + take_between(&from, -2 * MOST, MOST) : take_int64(&from), held = 0;
            int64_t got = sage_ring_read(ring, start, samples, n);
            if (got < 0) {
                HOLDS(got == SAGE_E_SIZE && (n < 0 || start > INT64_MAX / 2 || start < INT64_MIN / 2));
                continue;
            }
            for (int64_t k = 0; k < n; k++) {
                int64_t i = start + k;
                int here = i >= 0 && i >= written - capacity && i < written;
                held += here;
                HOLDS(samples[k] == (here && !silent[i] ? (float)i : 0.0f));
            }
            HOLDS(got == held);
            int64_t end = start + n < written ? start + n : written;
            if (end > reached) reached = end;
        }
        HOLDS(sage_ring_written(ring) == written);
    }
    sage_ring_destroy(ring);
    return 0;
}
