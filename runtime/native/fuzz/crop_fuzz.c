/* Any image, box, norm and output: an error code that changes nothing, or the values of the definition, the same from every set of instructions; no
 * byte outside. */
#include <math.h>

#include "../tests/crop_reference.h"
#include "bytes.h"
#include "sage.h"

enum { SIDE = 160, OUT = 40, GUARD = 32, CELL_MOST = 100000 };

static const float UNTOUCHED = -12345.0f;

/* Memory that ends with its last byte: a read beyond it is seen. */
static uint8_t *memory_of(bytes *from, int64_t stride, int64_t used, int64_t rows) {
    size_t n = (size_t)(stride * (rows - 1) + used);
    uint8_t *memory = malloc(n), seed[16];
    HOLDS(memory);
    take(from, seed, sizeof seed);
    for (size_t k = 0; k < n; k++) memory[k] = (uint8_t)(seed[k % sizeof seed] + k / sizeof seed * seed[0]);
    return memory;
}

/* Coordinates that make sense mostly, any bits now and then. */
static double take_place(bytes *from, double size) {
    int32_t kind = take_between(from, 0, 3);
    if (kind == 0) return take_double(from);
    double part = take_between(from, 0, 65535) / 32768.0;
    return kind == 1 ? floor(part * size) : kind == 2 ? part * size : -part * size;
}

static double largest(const float *a, int32_t n) {
    double most = 0;
    for (int32_t k = 0; k < n; k++) most = fmax(most, fabs((double)a[k]));
    return most;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    bytes from = {data, size};
    int32_t format = take_between(&from, -1, 4), width = take_between(&from, 0, SIDE), height = take_between(&from, 0, SIDE);
    int32_t out_width = take_between(&from, 0, OUT), out_height = take_between(&from, 0, OUT), gap = take_between(&from, -2, 9);
    int64_t used = format < SAGE_NV12 ? 3 * (int64_t)width : format == SAGE_NV12 ? width : 2 * (int64_t)width;
    if (used < 1) used = 1;
    int64_t stride = used + gap < 1 ? 1 : used + gap, rows = height < 1 ? 1 : height;
    uint8_t *plane = memory_of(&from, stride < used ? used : stride, used, rows);
    uint8_t *chroma = memory_of(&from, stride < used ? used : stride, used, rows / 2 + 1);
    sage_image image = {plane, take_between(&from, 0, 15) ? chroma : NULL, stride, stride, width, height, format};
    sage_box box = {take_place(&from, width), take_place(&from, height), take_place(&from, width), take_place(&from, height)};

    float out[2][3 * OUT * OUT + GUARD];
    uint8_t colours[3 * OUT * OUT + GUARD];
    int32_t n = 3 * out_width * out_height, codes[2] = {0, 0}, found = 0;
    memset(colours, 77, sizeof colours);
    for (int32_t variant = 1; variant <= 4; variant <<= 1) {
        if (!(sage_crop_variants() & variant)) continue;
        for (int32_t k = 0; k < 3 * OUT * OUT + GUARD; k++) out[found][k] = UNTOUCHED;
        codes[found] = sage_crop_with(variant, &image, &box, &IMAGENET, out[found], out_width, out_height);
        HOLDS(codes[found] <= 0 && codes[found] == codes[0]);
        for (int32_t k = 0; k < 3 * OUT * OUT + GUARD; k++) HOLDS(!codes[0] && k < n ? isfinite(out[found][k]) : out[found][k] == UNTOUCHED);
        found++;
    }
    HOLDS(sage_resize(&image, &box, colours, out_width, out_height) == codes[0]);
    for (int32_t k = codes[0] ? 0 : n; k < 3 * OUT * OUT + GUARD; k++) HOLDS(colours[k] == 77);
    if (!codes[0]) {
        double bound = 1e-6 * fmax(largest(out[0], n), 0.1 / 0.229), colour[3], w = box.width / out_width, h = box.height / out_height;
        int32_t i = take_between(&from, 0, out_width - 1), j = take_between(&from, 0, out_height - 1);
        if ((w + 2) * (h + 2) < CELL_MOST) {
            reference_cell(&image, box.x + w * i, box.y + h * j, box.x + w * (i + 1), box.y + h * (j + 1), colour);
            for (int32_t c = 0; c < 3; c++) {
                double value = (colour[c] / 255 - (double)IMAGENET.mean[c]) / (double)IMAGENET.std[c];
                for (int32_t v = 0; v < found; v++) HOLDS(fabs(value - (double)out[v][(c * out_height + j) * out_width + i]) <= bound);
            }
        }
        for (int32_t k = 0; found == 2 && k < n; k++) HOLDS(fabs((double)out[0][k] - (double)out[1][k]) <= 2 * bound);
        for (int32_t k = 0; k < n; k++) { /* the same average twice: normalised, and as a colour */
            int32_t c = k / (out_width * out_height), cell = k % (out_width * out_height);
            double level = 255 * ((double)out[0][k] * (double)IMAGENET.std[c] + (double)IMAGENET.mean[c]);
            HOLDS(fabs(level - colours[3 * cell + c]) <= 0.5 + 1e-2);
        }
        sage_norm norm;
        take(&from, &norm, sizeof norm);
        codes[0] = sage_crop(&image, &box, &norm, out[0], out_width, out_height);
        HOLDS(codes[0] == SAGE_OK || codes[0] == SAGE_E_NORM);
    }
    free(plane);
    free(chroma);
    return 0;
}
