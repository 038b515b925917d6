/* Every refusal returns its code, names it, and changes nothing. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "sage.h"

static void ring(void) {
    sage_ring *none = NULL, *made = NULL;
    float x[4] = {1, 2, 3, 4};
    CHECK(sage_ring_create(8, NULL) == SAGE_E_NULL);
    CHECK(sage_ring_create(0, &none) == SAGE_E_SIZE && sage_ring_create(SAGE_RING_MAX + 1, &none) == SAGE_E_SIZE && !none);
    CHECK(sage_ring_push(NULL, x, 4) == SAGE_E_NULL && sage_ring_read(NULL, 0, x, 4) == SAGE_E_NULL && sage_ring_written(NULL) == SAGE_E_NULL);
    CHECK(sage_ring_create(8, &made) == SAGE_OK);
    CHECK(sage_ring_push(made, x, -1) == SAGE_E_SIZE && sage_ring_push(made, x, INT64_MAX) == SAGE_E_SIZE);
    CHECK(sage_ring_read(made, 0, x, -1) == SAGE_E_SIZE && sage_ring_read(made, 0, NULL, 1) == SAGE_E_NULL);
    CHECK(sage_ring_read(made, INT64_MAX, x, 4) == SAGE_E_SIZE && sage_ring_read(made, INT64_MIN, x, 4) == SAGE_E_SIZE);
    CHECK(sage_ring_written(made) == 0 && x[0] == 1 && x[3] == 4);
    CHECK(sage_ring_push(made, NULL, 0) == 0 && sage_ring_read(made, 0, NULL, 0) == 0);
    sage_ring_destroy(made);
    sage_ring_destroy(NULL);
}

static void clock_of_samples(void) {
    sage_clock *none = NULL, *made = NULL;
    int64_t t_ns = 7;
    sage_clock_state state;
    CHECK(sage_clock_create(16000, NULL) == SAGE_E_NULL);
    CHECK(sage_clock_create(SAGE_RATE_MIN - 1, &none) == SAGE_E_SIZE && sage_clock_create(SAGE_RATE_MAX + 1, &none) == SAGE_E_SIZE && !none);
    CHECK(sage_clock_add(NULL, 1, 1) == SAGE_E_NULL && sage_clock_time(NULL, 1, &t_ns) == SAGE_E_NULL && sage_clock_read(NULL, &state) == SAGE_E_NULL);
    CHECK(sage_clock_create(16000, &made) == SAGE_OK && sage_clock_time(made, 0, NULL) == SAGE_E_NULL && sage_clock_read(made, NULL) == SAGE_E_NULL);
    CHECK(sage_clock_add(made, 0, 5) == SAGE_OK && sage_clock_time(made, 0, &t_ns) == SAGE_E_EMPTY && t_ns == 7);
    CHECK(sage_clock_read(made, &state) == SAGE_OK && !state.since && !state.resets && !state.settled && !state.known);
    CHECK(sage_clock_add(made, 160, 10000000) == SAGE_OK && sage_clock_time(made, 0, &t_ns) == SAGE_OK && t_ns == 0);
    CHECK(sage_clock_add(made, 159, 11000000) == SAGE_E_SIZE && sage_clock_add(made, -1, 0) == SAGE_E_SIZE && sage_clock_add(made, INT64_MAX, 0) == SAGE_E_SIZE);
    CHECK(sage_clock_add(made, 320, INT64_MAX) == SAGE_E_SIZE && sage_clock_add(made, 320, INT64_MIN) == SAGE_E_SIZE && sage_clock_add(made, 160, 0) == SAGE_OK);
    CHECK(sage_clock_time(made, INT64_MAX, &t_ns) == SAGE_E_SIZE && sage_clock_time(made, INT64_MIN, &t_ns) == SAGE_E_SIZE && t_ns == 0);
    CHECK(sage_clock_time(made, 160, &t_ns) == SAGE_OK && t_ns == 10000000);
    sage_clock_destroy(made);
    sage_clock_destroy(NULL);
}

static void histogram(void) {
    sage_histogram *made = NULL;
    sage_histogram_totals totals = {7, 7, 7};
    double ns = 7;
    CHECK(sage_histogram_create(NULL) == SAGE_E_NULL && sage_histogram_add(NULL, 1) == SAGE_E_NULL && sage_histogram_clear(NULL) == SAGE_E_NULL);
    CHECK(sage_histogram_read(NULL, &totals) == SAGE_E_NULL && sage_histogram_percentile(NULL, 0.5, &ns) == SAGE_E_NULL);
    CHECK(sage_histogram_create(&made) == SAGE_OK && sage_histogram_read(made, NULL) == SAGE_E_NULL && sage_histogram_percentile(made, 0.5, NULL) == SAGE_E_NULL);
    CHECK(sage_histogram_percentile(made, -0.1, &ns) == SAGE_E_SIZE && sage_histogram_percentile(made, 1.1, &ns) == SAGE_E_SIZE);
    CHECK(sage_histogram_percentile(made, (double)NAN, &ns) == SAGE_E_SIZE && ns == 7 && totals.count == 7);
    sage_histogram_destroy(made);
    sage_histogram_destroy(NULL);

    static const int64_t bins[SAGE_HISTOGRAM_BINS];
    const double share = 0.5, wrong[2] = {0.5, 1.1}, none[2] = {0.5, (double)NAN};
    CHECK(sage_percentiles(NULL, NULL, 9, &share, 1, &ns) == SAGE_E_NULL && sage_percentiles(bins, NULL, 9, NULL, 1, &ns) == SAGE_E_NULL);
    CHECK(sage_percentiles(bins, NULL, 9, &share, 1, NULL) == SAGE_E_NULL && sage_percentiles(bins, NULL, 9, &share, -1, &ns) == SAGE_E_SIZE);
    CHECK(sage_percentiles(bins, NULL, 9, wrong, 2, &ns) == SAGE_E_SIZE && sage_percentiles(bins, NULL, 9, none, 2, &ns) == SAGE_E_SIZE && ns == 7);
}

static void capture(void) {
    sage_capture *none = NULL, *made = NULL;
    sage_capture_statistics statistics;
    sage_clock_state state;
    const int16_t x[2] = {1, 2};
    float out[2] = {7, 7};
    int64_t t_ns = 7;
    CHECK(sage_capture_create(SAGE_INT16, 1, 16000, 8, NULL) == SAGE_E_NULL && sage_capture_create(2, 1, 16000, 8, &none) == SAGE_E_FORMAT);
    CHECK(sage_capture_create(SAGE_INT16, 0, 16000, 8, &none) == SAGE_E_SIZE && sage_capture_create(SAGE_INT16, SAGE_CHANNELS_MAX + 1, 16000, 8, &none) == SAGE_E_SIZE);
    CHECK(sage_capture_create(SAGE_INT16, 1, 0, 8, &none) == SAGE_E_SIZE && sage_capture_create(SAGE_INT16, 1, 16000, 0, &none) == SAGE_E_SIZE && !none);
    CHECK(sage_capture_feed(NULL, x, 2, 0, 0) == SAGE_E_NULL && sage_capture_read(NULL, 0, out, 2) == SAGE_E_NULL && sage_capture_written(NULL) == SAGE_E_NULL);
    CHECK(sage_capture_time(NULL, 0, &t_ns) == SAGE_E_NULL && sage_capture_clock(NULL, &state) == SAGE_E_NULL && sage_capture_stats(NULL, &statistics) == SAGE_E_NULL);
    CHECK(sage_capture_create(SAGE_INT16, 1, 16000, 8, &made) == SAGE_OK && sage_capture_stats(made, NULL) == SAGE_E_NULL);
    CHECK(sage_capture_feed(made, x, -1, 0, 0) == SAGE_E_SIZE && sage_capture_feed(made, x, SAGE_RING_MAX + 1, 0, 0) == SAGE_E_SIZE);
    CHECK(sage_capture_feed(made, x, 2, 0, INT64_MAX) == SAGE_E_SIZE && sage_capture_written(made) == 0);
    CHECK(sage_capture_stats(made, &statistics) == SAGE_OK && statistics.calls == 0 && sage_capture_time(made, 0, &t_ns) == SAGE_E_EMPTY);
    CHECK(sage_capture_read(made, 0, out, -1) == SAGE_E_SIZE && sage_capture_read(made, 0, NULL, 1) == SAGE_E_NULL && out[0] == 7 && t_ns == 7);
    sage_capture_destroy(made);
    sage_capture_destroy(NULL);
}

static void slot(void) {
    sage_slot *none = NULL, *made = NULL;
    sage_slot_frame frame = {NULL, 7, 7, 7};
    CHECK(sage_slot_create(8, NULL) == SAGE_E_NULL && sage_slot_create(0, &none) == SAGE_E_SIZE && sage_slot_create(SAGE_SLOT_MAX + 1, &none) == SAGE_E_SIZE && !none);
    CHECK(!sage_slot_begin(NULL) && sage_slot_commit(NULL, 0, 0) == SAGE_E_NULL && sage_slot_take(NULL, &frame) == SAGE_E_NULL);
    CHECK(sage_slot_create(8, &made) == SAGE_OK && sage_slot_take(made, NULL) == SAGE_E_NULL && sage_slot_take(made, &frame) == 0 && frame.t_ns == 7);
    sage_slot_destroy(made);
    sage_slot_destroy(NULL);
}

static void window(void) {
    sage_window *none = NULL, *made = NULL;
    CHECK(sage_window_create(3, 2, NULL) == SAGE_E_NULL);
    CHECK(sage_window_create(0, 2, &none) == SAGE_E_SIZE && sage_window_create(2, -1, &none) == SAGE_E_SIZE);
    CHECK(sage_window_create(1 << 20, 1 << 20, &none) == SAGE_E_SIZE && !none);
    CHECK(!sage_window_buffer(NULL) && sage_window_start(NULL) == SAGE_E_NULL && sage_window_slot(NULL) == SAGE_E_NULL);
    CHECK(sage_window_commit(NULL) == SAGE_E_NULL && sage_window_skip(NULL, 1) == SAGE_E_NULL && sage_window_push(NULL, NULL, 0) == SAGE_E_NULL);
    CHECK(sage_window_create(3, 2, &made) == SAGE_OK && sage_window_skip(made, -1) == SAGE_E_SIZE && sage_window_start(made) == 0);
    float row[3] = {1, 2, 3};
    CHECK(sage_window_push(made, row, 3) == SAGE_E_SIZE && sage_window_push(made, row, -1) == SAGE_E_SIZE);
    CHECK(sage_window_push(made, NULL, 2) == SAGE_E_NULL && sage_window_start(made) == 0);
    sage_window_destroy(made);
    sage_window_destroy(NULL);
}

static void crop(void) {
    uint8_t pixels[4 * 4 * 3] = {0}, colours[3] = {9, 9, 9};
    float out[3] = {7, 7, 7};
    const sage_image good = {pixels, NULL, 12, 0, 4, 4, SAGE_RGB};
    const sage_box box = {0, 0, 4, 4};
    const sage_norm norm = {{0, 0, 0}, {1, 1, 1}};
    CHECK(sage_crop(NULL, &box, &norm, out, 1, 1) == SAGE_E_NULL && sage_crop(&good, NULL, &norm, out, 1, 1) == SAGE_E_NULL);
    CHECK(sage_crop(&good, &box, NULL, out, 1, 1) == SAGE_E_NULL && sage_crop(&good, &box, &norm, NULL, 1, 1) == SAGE_E_NULL);
    CHECK(sage_crop(&good, &box, &norm, out, 0, 1) == SAGE_E_SIZE && sage_crop(&good, &box, &norm, out, 1, SAGE_SIDE_MAX + 1) == SAGE_E_SIZE);
    CHECK(sage_crop_with(0, &good, &box, &norm, out, 1, 1) == SAGE_E_SIZE);
    CHECK(sage_resize(&good, &box, NULL, 1, 1) == SAGE_E_NULL);

    struct {
        sage_image image;
        int32_t code;
    } images[] = {
        {{NULL, NULL, 12, 0, 4, 4, SAGE_RGB}, SAGE_E_NULL},        {{pixels, NULL, 11, 0, 4, 4, SAGE_RGB}, SAGE_E_SIZE},
        {{pixels, NULL, 12, 0, 0, 4, SAGE_RGB}, SAGE_E_SIZE},      {{pixels, NULL, 12, 0, 4, -1, SAGE_BGR}, SAGE_E_SIZE},
        {{pixels, NULL, 12, 0, 4, 4, 9}, SAGE_E_FORMAT},           {{pixels, NULL, 4, 4, 4, 4, SAGE_NV12}, SAGE_E_NULL},
        {{pixels, pixels, 4, 3, 4, 4, SAGE_NV12}, SAGE_E_SIZE},    {{pixels, pixels, 3, 4, 4, 4, SAGE_NV12}, SAGE_E_SIZE},
        {{pixels, pixels, 4, 4, 3, 4, SAGE_NV12}, SAGE_E_SIZE},    {{pixels, pixels, 4, 4, 4, 3, SAGE_NV12}, SAGE_E_SIZE},
        {{pixels, NULL, 12, 0, 3, 4, SAGE_YUYV}, SAGE_E_SIZE},     {{pixels, NULL, 7, 0, 4, 4, SAGE_YUYV}, SAGE_E_SIZE},
    };
    for (size_t k = 0; k < sizeof images / sizeof *images; k++) {
        CHECK(sage_crop(&images[k].image, &box, &norm, out, 1, 1) == images[k].code);
        CHECK(sage_resize(&images[k].image, &box, colours, 1, 1) == images[k].code);
    }
    const sage_box boxes[] = {{0, 0, 0, 4},   {0, 0, 4, -4},       {(double)NAN, 0, 4, 4}, {0, (double)INFINITY, 4, 4}, {0, 0, (double)NAN, 4},
                              {0, 0, 1e7, 4}, {-1.1e6, 0, 4, 4},   {0, 0, 4, 1e-9}};
    for (size_t k = 0; k < sizeof boxes / sizeof *boxes; k++) {
        CHECK(sage_crop(&good, &boxes[k], &norm, out, 1, 1) == SAGE_E_BOX);
        CHECK(sage_resize(&good, &boxes[k], colours, 1, 1) == SAGE_E_BOX);
    }
    const sage_norm norms[] = {{{NAN, 0, 0}, {1, 1, 1}}, {{0, INFINITY, 0}, {1, 1, 1}}, {{0, 0, 0}, {1, 0, 1}}, {{0, 0, 0}, {1, 1, -1}}, {{0, 0, 0}, {NAN, 1, 1}}};
    for (size_t k = 0; k < sizeof norms / sizeof *norms; k++) CHECK(sage_crop(&good, &box, &norms[k], out, 1, 1) == SAGE_E_NORM);
    CHECK(out[0] == 7 && out[1] == 7 && out[2] == 7 && colours[0] == 9 && colours[2] == 9);
}

int main(void) {
    CHECK(sage_abi_version() == SAGE_ABI_VERSION);
    for (int32_t code = SAGE_E_NULL; code >= SAGE_E_EMPTY; code--) {
        CHECK(strstr(sage_strerror(code), "[SAGE_E_"));
        for (int32_t other = code - 1; other >= SAGE_E_EMPTY; other--) CHECK(strcmp(sage_strerror(code), sage_strerror(other)));
    }
    CHECK(!strcmp(sage_strerror(-99), "unknown error") && !strcmp(sage_strerror(1), "unknown error"));
    ring();
    clock_of_samples();
    histogram();
    capture();
    slot();
    window();
    crop();
    return 0;
}
