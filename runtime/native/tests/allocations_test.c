/* Only _create functions allocate: minutes of calls to everything else asks for no memory and gives none back. Linked with --wrap, so that the
 * library's own calls come by here. */
#include <string.h>

#include "check.h"
#include "sage.h"

static int64_t asked, given;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void __real_free(void *memory);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
void __wrap_free(void *memory);

void *__wrap_malloc(size_t bytes) { return asked++, __real_malloc(bytes); }
void *__wrap_calloc(size_t n, size_t bytes) { return asked++, __real_calloc(n, bytes); }
void *__wrap_realloc(void *old, size_t bytes) { return asked++, __real_realloc(old, bytes); }
void *__wrap_aligned_alloc(size_t alignment, size_t bytes) { return asked++, __real_aligned_alloc(alignment, bytes); }
void __wrap_free(void *memory) { given++, __real_free(memory); }

enum { RATE = 16000, CHUNK = 320, SIDE = 16, ROWS = 30, DIM = 64, FRAME = 64 * 48 * 3 };

int main(void) {
    static int16_t x[2 * CHUNK];
    static float out[3 * SIDE * SIDE];
    static uint8_t colours[3 * SIDE * SIDE];
    static int64_t bins[SAGE_HISTOGRAM_BINS] = {[99] = 7};
    sage_ring *ring;
    sage_clock *clock;
    sage_histogram *histogram;
    sage_capture *capture;
    sage_slot *slot;
    sage_window *window;
    CHECK(!sage_ring_create(RATE, &ring) && !sage_clock_create(RATE, &clock) && !sage_histogram_create(&histogram));
    CHECK(!sage_capture_create(SAGE_INT16, 2, RATE, RATE, &capture) && !sage_slot_create(FRAME, &slot) && !sage_window_create(ROWS, DIM, &window));
    int64_t created = asked;
    CHECK(created >= 9);

    for (int64_t tick = 1; tick <= 200 * (RATE / CHUNK); tick++) {
        int64_t t_ns = tick * 20000000 + (tick % 1000 < 60 ? 100000000 : 0), at_ns;
        double ns;
        sage_clock_state state;
        sage_histogram_totals totals;
        sage_capture_statistics statistics;
        CHECK(sage_capture_callback(x, NULL, tick % 4 * 100, NULL, 0, capture) == 0 && sage_capture_feed(capture, NULL, CHUNK, 2, t_ns) >= 0);
        CHECK(sage_capture_read(capture, sage_capture_written(capture) - CHUNK, out, CHUNK) == CHUNK && !sage_capture_time(capture, 0, &at_ns));
        CHECK(sage_ring_push(ring, out, CHUNK) >= 0 && sage_ring_read(ring, 0, out, CHUNK) >= 0 && sage_ring_written(ring) > 0);
        CHECK(!sage_clock_add(clock, tick * CHUNK, t_ns) && !sage_clock_time(clock, tick, &at_ns) && !sage_clock_read(clock, &state));
        CHECK(!sage_histogram_add(histogram, t_ns) && !sage_histogram_read(histogram, &totals) && sage_window_slot(window) >= 0);
        CHECK(!sage_window_commit(window) && !sage_window_push(window, out, DIM) && sage_window_start(window) >= 0 && sage_window_buffer(window));
        if (tick % 50) continue;
        sage_slot_frame frame;
        CHECK(sage_slot_begin(slot) && !sage_slot_commit(slot, t_ns, tick) && sage_slot_take(slot, &frame) == 1);
        const sage_image image = {frame.data, NULL, 64 * 3, 0, 64, 48, tick % 100 ? SAGE_RGB : SAGE_BGR};
        const sage_box box = {3.5, 2.5, 40.25, 41.75};
        const sage_norm norm = {{0.5f, 0.5f, 0.5f}, {0.5f, 0.5f, 0.5f}};
        CHECK(!sage_crop(&image, &box, &norm, out, SIDE, SIDE) && !sage_resize(&image, &box, colours, SIDE, SIDE));
        CHECK(!sage_histogram_percentile(histogram, 0.99, &ns) && !sage_capture_stats(capture, &statistics) && !sage_window_skip(window, 3));
        CHECK(!sage_percentiles(bins, NULL, t_ns, (double[]){0.5, 0.99}, 2, (double[3]){0}));
        if (tick % 5000 == 0) CHECK(!sage_histogram_clear(histogram));
    }
    CHECK(asked == created && given == 0);
    sage_clock_state state;
    CHECK(!sage_clock_read(clock, &state) && state.resets > 0);

    sage_ring_destroy(ring);
    sage_clock_destroy(clock);
    sage_histogram_destroy(histogram);
    sage_capture_destroy(capture);
    sage_slot_destroy(slot);
    sage_window_destroy(window);
    CHECK(given == created);
    printf("%lld allocations, all by _create\n", (long long)created);
    return 0;
}
