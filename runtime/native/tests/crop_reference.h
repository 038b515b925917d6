/* The crop straight from its definition, in float64, one cell at a time. */
#ifndef SAGE_CROP_REFERENCE_H
#define SAGE_CROP_REFERENCE_H

#include <math.h>

#include "check.h"
#include "sage.h"

static inline int64_t clamp_index(int64_t i, int64_t n) { return i < 0 ? 0 : i >= n ? n - 1 : i; }

/* Levels of one pixel: R, G, B, or Y, U, V. */
static inline void pixel_of(const sage_image *image, int64_t i, int64_t j, double level[3]) {
    i = clamp_index(i, image->width);
    j = clamp_index(j, image->height);
    const uint8_t *row = image->data + j * image->stride;
    for (int c = 0; c < 3; c++) {
        switch (image->format) {
        case SAGE_RGB: level[c] = row[3 * i + c]; break;
        case SAGE_BGR: level[c] = row[3 * i + 2 - c]; break;
        case SAGE_NV12: level[c] = c ? image->chroma[j / 2 * image->chroma_stride + i / 2 * 2 + c - 1] : row[i]; break;
        default: level[c] = c ? row[i / 2 * 4 + 2 * c - 1] : row[2 * i]; break;
        }
    }
}

static inline double overlap(double a, double b, double pixel) { return fmax(0.0, fmin(b, pixel + 1) - fmax(a, pixel)); }

/* Mean colour of the cell [x0, x1) x [y0, y1), R, G, B in 0 .. 255. */
static inline void reference_cell(const sage_image *image, double x0, double y0, double x1, double y1, double colour[3]) {
    double sum[3] = {0, 0, 0}, area = 0, level[3];
    for (double j = floor(y0); j < y1; j++)
        for (double i = floor(x0); i < x1; i++) {
            double weight = overlap(x0, x1, i) * overlap(y0, y1, j);
            pixel_of(image, (int64_t)i, (int64_t)j, level);
            for (int c = 0; c < 3; c++) sum[c] += weight * level[c];
            area += weight;
        }
    for (int c = 0; c < 3; c++) colour[c] = sum[c] / area;
    if (image->format < SAGE_NV12) return;
    double luma = (colour[0] - 16) * 255 / 219, blue = (colour[1] - 128) * 255 / 224, red = (colour[2] - 128) * 255 / 224;
    colour[0] = fmin(255, fmax(0, luma + 1.402 * red));
    colour[1] = fmin(255, fmax(0, luma - 0.114 * 1.772 / 0.587 * blue - 0.299 * 1.402 / 0.587 * red));
    colour[2] = fmin(255, fmax(0, luma + 1.772 * blue));
}

/* Largest difference of `out` from the definition, relative to the definition's largest value. */
static inline double reference_error(const sage_image *image, const sage_box *box, const sage_norm *norm, const float *out, int32_t width,
                                     int32_t height) {
    double worst = 0, largest = 0, colour[3];
    for (int32_t j = 0; j < height; j++)
        for (int32_t i = 0; i < width; i++) {
            reference_cell(image, box->x + box->width * i / width, box->y + box->height * j / height, box->x + box->width * (i + 1) / width,
                           box->y + box->height * (j + 1) / height, colour);
            for (int c = 0; c < 3; c++) {
                double value = (colour[c] / 255 - (double)norm->mean[c]) / (double)norm->std[c];
                worst = fmax(worst, fabs(value - (double)out[((int64_t)c * height + j) * width + i]));
                largest = fmax(largest, fabs(value));
            }
        }
    return worst / largest;
}

static const sage_norm IMAGENET = {{0.485f, 0.456f, 0.406f}, {0.229f, 0.224f, 0.225f}};

/* A frame of noise. Its last byte is the last of its allocation, so that ASan sees a read beyond it. */
typedef struct {
    sage_image image;
    uint8_t *memory[2];
} noise_frame;

static inline uint8_t *noise(uint64_t *random, int64_t stride, int64_t used, int64_t rows) {
    size_t bytes = (size_t)(stride * (rows - 1) + used);
    uint8_t *memory = malloc(bytes);
    CHECK(memory);
    for (size_t k = 0; k < bytes; k++) memory[k] = (uint8_t)next_random(random);
    return memory;
}

static inline noise_frame noise_frame_of(uint64_t *random, int32_t format, int32_t width, int32_t height, int64_t gap) {
    int64_t used = format < SAGE_NV12 ? 3 * (int64_t)width : format == SAGE_NV12 ? width : 2 * (int64_t)width;
    noise_frame frame = {{NULL, NULL, used + gap, 0, width, height, format}, {NULL, NULL}};
    frame.image.data = frame.memory[0] = noise(random, used + gap, used, height);
    if (format == SAGE_NV12) {
        frame.image.chroma_stride = width + 2 * gap;
        frame.image.chroma = frame.memory[1] = noise(random, frame.image.chroma_stride, width, height / 2);
    }
    return frame;
}

static inline void noise_frame_free(noise_frame *frame) {
    free(frame->memory[0]);
    free(frame->memory[1]);
}

#endif
