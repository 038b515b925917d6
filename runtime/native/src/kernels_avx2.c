/* The inner loops in AVX2 and FMA; this file alone is compiled with them, and called only where the processor has them. */
#include <immintrin.h>

#include "kernels.h"

enum { ROWS_EXACT = 256 }; /* 256 rows of -128 .. 127 fit in 16 bits */

/* 8 levels less LEVEL_MIDDLE: turning the top bit of a byte over makes it a signed one. */
static inline __m256 floats(const uint8_t *levels) {
    __m128i centred = _mm_xor_si128(_mm_loadl_epi64((const __m128i *)levels), _mm_set1_epi8((char)LEVEL_MIDDLE));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(centred));
}

/* 32 bytes of a line: the outermost rows in floats, those between in 16-bit integers, which are put aside every 256 rows. */
static inline void rows_32(const uint8_t *row, int64_t stride, int32_t count, __m256 head, __m256 tail, float *line) {
    __m256 sum[4];
    for (int k = 0; k < 4; k++) sum[k] = _mm256_mul_ps(head, floats(row + 8 * k));
    if (count > 1) {
        const uint8_t *last = row + (count - 1) * stride;
        for (int k = 0; k < 4; k++) sum[k] = _mm256_fmadd_ps(tail, floats(last + 8 * k), sum[k]);
    }
    row += stride;
    for (int32_t left = count - 2; left > 0; left -= ROWS_EXACT) {
        int32_t some = left < ROWS_EXACT ? left : ROWS_EXACT;
        __m256i low = _mm256_set1_epi16((short)(-LEVEL_MIDDLE * some)), high = low; /* -32768 at least; sums wrap on their way, not in the end */
        for (; some > 0; some--, row += stride) {
            low = _mm256_add_epi16(low, _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)row)));
            high = _mm256_add_epi16(high, _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(row + 16))));
        }
        __m128i part[4] = {_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1), _mm256_castsi256_si128(high),
                           _mm256_extracti128_si256(high, 1)};
        for (int k = 0; k < 4; k++) sum[k] = _mm256_add_ps(sum[k], _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(part[k])));
    }
    for (int k = 0; k < 4; k++) _mm256_storeu_ps(line + 8 * k, sum[k]);
}

static void rows_avx2(const uint8_t *row, int64_t stride, int32_t count, float head, float tail, int32_t n, float *line) {
    if (n < 32) {
        sage_kernels_plain.rows(row, stride, count, head, tail, n, line);
        return;
    }
    __m256 h = _mm256_set1_ps(head), t = _mm256_set1_ps(tail);
    int32_t b = 0;
    for (; b + 32 <= n; b += 32) rows_32(row + b, stride, count, h, t, line + b);
    if (b < n) rows_32(row + n - 32, stride, count, h, t, line + n - 32);
}

static void columns_3(const float *line, int32_t base, const area_span *spans, int32_t n, float *sums) {
    for (int32_t i = 0; i < n; i++, sums += 4) {
        const area_span *s = &spans[i];
        const float *x = line + 3 * (int64_t)(s->first - base);
        __m128 sum = _mm_mul_ps(_mm_set1_ps(s->head), _mm_loadu_ps(x));
        int32_t left = s->count - 2;
        if (left >= 0) sum = _mm_fmadd_ps(_mm_set1_ps(s->tail), _mm_loadu_ps(x + 3 * (left + 1)), sum);
        for (x += 3; left > 0;) {
            int32_t some = left < KERNEL_EXACT ? left : KERNEL_EXACT;
            left -= some;
            __m256 two = _mm256_setzero_ps(); /* lanes 0 .. 2 one column, 3 .. 5 the next */
            for (; some > 1; some -= 2, x += 6) two = _mm256_add_ps(two, _mm256_loadu_ps(x));
            __m128 low = _mm256_castps256_ps128(two), high = _mm256_extractf128_ps(two, 1);
            __m128 next = _mm_shuffle_ps(_mm_shuffle_ps(low, high, _MM_SHUFFLE(0, 0, 3, 3)), high, _MM_SHUFFLE(1, 1, 2, 0));
            sum = _mm_add_ps(sum, _mm_add_ps(low, next));
            if (some) {
                sum = _mm_add_ps(sum, _mm_loadu_ps(x));
                x += 3;
            }
        }
        _mm_storeu_ps(sums, sum);
    }
}

static void columns_avx2(const float *line, int32_t base, int32_t step, const area_span *spans, int32_t n, float *sums) {
    if (step == 3) {
        columns_3(line, base, spans, n, sums);
        return;
    }
    for (int32_t i = 0; i < n; i++, sums += 4) {
        const area_span *s = &spans[i];
        const float *x = line + (int64_t)(s->first - base) * step;
        __m128 sum = _mm_mul_ps(_mm_set1_ps(s->head), _mm_loadu_ps(x));
        int32_t left = s->count - 2;
        if (left >= 0) sum = _mm_fmadd_ps(_mm_set1_ps(s->tail), _mm_loadu_ps(x + (left + 1) * step), sum);
        for (x += step; left > 0;) {
            int32_t some = left < KERNEL_EXACT ? left : KERNEL_EXACT;
            left -= some;
            __m128 part = _mm_setzero_ps();
            for (; some > 0; some--, x += step) part = _mm_add_ps(part, _mm_loadu_ps(x));
            sum = _mm_add_ps(sum, part);
        }
        _mm_storeu_ps(sums, sum);
    }
}

const sage_kernels sage_kernels_avx2 = {2, rows_avx2, columns_avx2};
