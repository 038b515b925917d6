/* The two inner loops of a crop, once per set of instructions.
 *
 * A cell's mean is separable: `rows` adds the rows of a cell's height into one line of floats, `columns` adds the columns of
 * each cell's width out of that line. Only a cell's outermost rows and columns have weights other than 1, so the rows between
 * are added as integers, exactly. Levels are taken from LEVEL_MIDDLE: so the rounding of what is added in floats is relative
 * to a picture's contrast, not to its brightness, and a grey face loses nothing when its mean is subtracted.
 */
#ifndef SAGE_KERNELS_H
#define SAGE_KERNELS_H

#include <stdint.h>

/* Samples first .. first + count - 1, weighted head, 1, 1, ..., tail; a single sample is weighted head. */
typedef struct {
    int32_t first, count;
    float head, tail;
} area_span;

/* The columns of one cell in a line: the one at `first`, then `common` of weight 1 and one of weight `more` (0 or 1), and the
 * one at `last`; these are indices of floats. `common` is the same for all cells of a strip, so that no branch of the loop
 * over them depends on a cell. */
typedef struct {
    int32_t first, last;
    float head, more, tail;
} cell_columns;

/* Where the cells of a strip go: cell i of component c to out[c][i], times scale[c], plus bias[c]. */
typedef struct {
    float *out[4];
    float scale[4], bias[4];
} cell_output;

enum {
    LEVEL_MIDDLE = 128,
    KERNEL_PAD = 16,     /* floats beyond the end of a line that `columns` may read, and must be finite */
    CELLS_PAD = 3,       /* cells beyond the last that `columns` may read and work out, and must be cells of the same line */
    KERNEL_STEP_MAX = 4, /* bytes in a sample: 1 Y, 2 UV or Y., 3 RGB, 4 YUYV */
    KERNEL_EXACT = 16    /* floats added one after the other before the sum is put aside, to keep rounding small */
};

typedef struct {
    int32_t variant;
    /* line[b] = sum over `count` rows of weight * (row[b] - LEVEL_MIDDLE), b < n; rows are `stride` bytes apart, n >= 1, count >= 1. Reads
     * no byte outside [row, row + n). Meanwhile the `ahead` rows behind those are fetched, for the next call: a frame that was just captured is
     * in no near cache. */
    void (*rows)(const uint8_t *row, int64_t stride, int32_t count, int32_t ahead, float head, float tail, int32_t n, float *line);
    /* The sums of n >= 1 cells of a line of samples of `step` floats, components 0 .. step - 1. */
    void (*columns)(const float *line, int32_t step, const cell_columns *cells, int32_t n, int32_t common, const cell_output *to);
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
