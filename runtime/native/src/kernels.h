/* The two inner loops of a crop, once per set of instructions.
 *
 * A cell's mean is separable: `rows` adds the rows of a cell's height into one line of floats, `columns` adds the columns of
 * each cell's width out of that line. Only a cell's outermost rows and columns have weights other than 1 (area_span), so the
 * rows between are added as integers, exactly. Levels are taken from LEVEL_MIDDLE: so the rounding of what is added in floats
 * is relative to a picture's contrast, not to its brightness, and a grey face loses nothing when its mean is subtracted.
 */
#ifndef SAGE_KERNELS_H
#define SAGE_KERNELS_H

#include <stdint.h>

/* Samples first .. first + count - 1, weighted head, 1, 1, ..., tail; a single sample is weighted head. */
typedef struct {
    int32_t first, count;
    float head, tail;
} area_span;

enum {
    LEVEL_MIDDLE = 128,
    KERNEL_PAD = 16,     /* floats that `columns` may read beyond the end of a line */
    KERNEL_STEP_MAX = 4, /* bytes in a sample: 1 Y, 2 UV or Y., 3 RGB, 4 YUYV */
    KERNEL_EXACT = 64    /* floats added one after the other before the sum is put aside, to keep rounding small */
};

typedef struct {
    int32_t variant;
    /* line[b] = sum over `count` rows of weight * (row[b] - LEVEL_MIDDLE), b < n; rows are `stride` bytes apart, n >= 1, count >= 1. Reads
     * no byte outside [row, row + n). */
    void (*rows)(const uint8_t *row, int64_t stride, int32_t count, float head, float tail, int32_t n, float *line);
    /* sums[4 i + c] = sum over the columns x of spans[i] of weight * line[(x - base) * step + c], c < step; the other of the
     * 4 are undefined. */
    void (*columns)(const float *line, int32_t base, int32_t step, const area_span *spans, int32_t n, float *sums);
} sage_kernels;

extern const sage_kernels sage_kernels_plain;
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define SAGE_HAVE_AVX2 1
extern const sage_kernels sage_kernels_avx2;
#endif
#if defined(__aarch64__)
#define SAGE_HAVE_NEON 1
extern const sage_kernels sage_kernels_neon;
#endif

#endif
