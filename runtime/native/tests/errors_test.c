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

static void window(void) {
    sage_window *none = NULL, *made = NULL;
    CHECK(sage_window_create(3, 2, NULL) == SAGE_E_NULL);
    CHECK(sage_window_create(0, 2, &none) == SAGE_E_SIZE && sage_window_create(2, -1, &none) == SAGE_E_SIZE);
    CHECK(sage_window_create(1 << 20, 1 << 20, &none) == SAGE_E_SIZE && !none);
    CHECK(!sage_window_buffer(NULL) && sage_window_start(NULL) == SAGE_E_NULL && sage_window_slot(NULL) == SAGE_E_NULL);
    CHECK(sage_window_commit(NULL) == SAGE_E_NULL && sage_window_skip(NULL, 1) == SAGE_E_NULL);
    CHECK(sage_window_create(3, 2, &made) == SAGE_OK && sage_window_skip(made, -1) == SAGE_E_SIZE && sage_window_start(made) == 0);
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
    window();
    crop();
    return 0;
}
