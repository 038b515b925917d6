/* The inner loops in AVX2 and FMA; this file alone is compiled with them, and called only where the processor has them. */
#include <immintrin.h>

#include "kernels.h"

enum { ROWS_EXACT = 256 }; /* 256 rows of -128 .. 127 fit in 16 bits */

static const float TOP = 1.0f / (1 << 24); /* of a byte at the top of 32 bits */

/* Levels are widened by shuffles within lanes that hold the same 16 bytes twice: a shuffle across lanes can use one port of the processor only.
 * Bytes `from` .. `from` + 7, each to the top of 32 bits; */
static inline __m256i to_top(char from) {
    const __m256i first = _mm256_setr_epi32(0x00C0C0C0, 0x01C0C0C0, 0x02C0C0C0, 0x03C0C0C0, 0x04C0C0C0, 0x05C0C0C0, 0x06C0C0C0, 0x07C0C0C0);
    return _mm256_add_epi8(first, _mm256_set1_epi8(from));
}

/* and to 16 bits, bytes 0 .. 3 and 8 .. 11 in the lower lane, the others in the upper: unpacked, they are in order again. */
static inline __m256i to_words(void) {
    return _mm256_setr_epi8(0, -1, 1, -1, 2, -1, 3, -1, 8, -1, 9, -1, 10, -1, 11, -1, 4, -1, 5, -1, 6, -1, 7, -1, 12, -1, 13, -1, 14, -1, 15, -1);
}

static inline __m256i twice(const uint8_t *levels) { return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)levels)); }

/* Adds weight * (level - LEVEL_MIDDLE) of 16 levels: turning the top bit of a byte over makes it a signed one. `weight` comes times TOP. */
static inline void weigh_16(const uint8_t *row, __m256 weight, __m256 sum[2]) {
    __m256i turned = _mm256_xor_si256(twice(row), _mm256_set1_epi8((char)LEVEL_MIDDLE));
    sum[0] = _mm256_fmadd_ps(weight, _mm256_cvtepi32_ps(_mm256_shuffle_epi8(turned, to_top(0))), sum[0]);
    sum[1] = _mm256_fmadd_ps(weight, _mm256_cvtepi32_ps(_mm256_shuffle_epi8(turned, to_top(8))), sum[1]);
}

/* 32 bytes of a line: the rows between the outermost in 16-bit integers, which are put aside every 256 rows, and the outermost in floats. */
static inline void rows_32(const uint8_t *row, int64_t stride, int32_t count, int32_t ahead, __m256 head, __m256 tail, float *line) {
    for (int32_t next = count; next < count + ahead; next++) __builtin_prefetch(row + next * stride);
    __m256 sum[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    const uint8_t *inner = row + stride;
    for (int32_t left = count - 2; left > 0; left -= ROWS_EXACT) {
        int32_t some = left < ROWS_EXACT ? left : ROWS_EXACT;
        __m256i part[2]; /* -32768 at least; sums wrap on their way, not in the end */
        part[0] = part[1] = _mm256_set1_epi16((short)(-LEVEL_MIDDLE * some));
        for (; some > 0; some--, inner += stride)
            for (int k = 0; k < 2; k++) part[k] = _mm256_add_epi16(part[k], _mm256_shuffle_epi8(twice(inner + 16 * k), to_words()));
        const __m256i zero = _mm256_setzero_si256();
        const __m256 unit = _mm256_set1_ps(1.0f / 65536);
        for (int k = 0; k < 2; k++) {
            sum[2 * k] = _mm256_fmadd_ps(unit, _mm256_cvtepi32_ps(_mm256_unpacklo_epi16(zero, part[k])), sum[2 * k]);
            sum[2 * k + 1] = _mm256_fmadd_ps(unit, _mm256_cvtepi32_ps(_mm256_unpackhi_epi16(zero, part[k])), sum[2 * k + 1]);
        }
    }
    weigh_16(row, head, sum);
    weigh_16(row + 16, head, sum + 2);
    if (count > 1) {
        const uint8_t *last = row + (count - 1) * stride;
        weigh_16(last, tail, sum);
        weigh_16(last + 16, tail, sum + 2);
    }
    for (int k = 0; k < 4; k++) _mm256_storeu_ps(line + 8 * k, sum[k]);
}

static void rows_avx2(const uint8_t *row, int64_t stride, int32_t count, int32_t ahead, float head, float tail, int32_t n, float *line) {
    if (n < 32) {
        sage_kernels_plain.rows(row, stride, count, ahead, head, tail, n, line);
        return;
    }
    __m256 h = _mm256_set1_ps(head * TOP), t = _mm256_set1_ps(tail * TOP);
    int32_t b = 0;
    for (; b + 32 <= n; b += 32) rows_32(row + b, stride, count, ahead, h, t, line + b);
    if (b < n) rows_32(row + n - 32, stride, count, ahead, h, t, line + n - 32);
}

#define ALWAYS static inline __attribute__((always_inline))

/* The sums of four cells, each with its components in the lanes of a register. Four at once, so that the loop's own work is shared. */
ALWAYS void sum_four(const float *line, int32_t step, const cell_columns *cells, int32_t common, __m128 sum[4]) {
    const float *x[4];
    for (int k = 0; k < 4; k++) {
        x[k] = line + cells[k].first;
        sum[k] = _mm_mul_ps(_mm_broadcast_ss(&cells[k].more), _mm_loadu_ps(x[k] + (int64_t)(common + 1) * step));
    }
    for (int32_t some = common % KERNEL_EXACT; some > 0; some--)
        for (int k = 0; k < 4; k++) sum[k] = _mm_add_ps(sum[k], _mm_loadu_ps(x[k] += step));
    for (common -= common % KERNEL_EXACT; common > 0; common -= KERNEL_EXACT) {
        __m128 part[4] = {_mm_setzero_ps(), _mm_setzero_ps(), _mm_setzero_ps(), _mm_setzero_ps()};
        for (int32_t some = KERNEL_EXACT; some > 0; some--)
            for (int k = 0; k < 4; k++) part[k] = _mm_add_ps(part[k], _mm_loadu_ps(x[k] += step));
        for (int k = 0; k < 4; k++) sum[k] = _mm_add_ps(sum[k], part[k]);
    }
    for (int k = 0; k < 4; k++) { /* last: beside the frame, the weight of an edge is as large as what lies there */
        sum[k] = _mm_fmadd_ps(_mm_broadcast_ss(&cells[k].head), _mm_loadu_ps(line + cells[k].first), sum[k]);
        sum[k] = _mm_fmadd_ps(_mm_broadcast_ss(&cells[k].tail), _mm_loadu_ps(line + cells[k].last), sum[k]);
    }
}

ALWAYS void columns_of(const float *line, int32_t step, const cell_columns *cells, int32_t n, int32_t common, const cell_output *output) {
    const cell_output to = *output; /* a copy, which what is written cannot change */
    for (int32_t i = 0; i < n; i += 4) {
        __m128 sum[4];
        sum_four(line, step, cells + i, common, sum);
        _MM_TRANSPOSE4_PS(sum[0], sum[1], sum[2], sum[3]);
        for (int32_t c = 0; c < step; c++) {
            __m128 value = _mm_fmadd_ps(sum[c], _mm_set1_ps(to.scale[c]), _mm_set1_ps(to.bias[c]));
            if (n - i >= 4) {
                _mm_storeu_ps(to.out[c] + i, value);
                continue;
            }
            float last[4];
            _mm_storeu_ps(last, value);
            for (int32_t k = 0; k < n - i; k++) to.out[c][i + k] = last[k];
        }
    }
}

static void columns_avx2(const float *line, int32_t step, const cell_columns *cells, int32_t n, int32_t common, const cell_output *to) {
    switch (step) {
    case 1: columns_of(line, 1, cells, n, common, to); break;
    case 2: columns_of(line, 2, cells, n, common, to); break;
    case 3: columns_of(line, 3, cells, n, common, to); break;
    default: columns_of(line, 4, cells, n, common, to); break;
    }
}

const sage_kernels sage_kernels_avx2 = {2, rows_avx2, columns_avx2};
