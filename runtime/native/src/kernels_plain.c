/* The inner loops in plain C: the twin that the others are held to, and what runs where there is no other. */
#include "kernels.h"

enum { BLOCK = 64, ROWS_EXACT = 256 }; /* 256 rows of 255 fit in 16 bits */

static void rows_block(const uint8_t *row, int64_t stride, int32_t count, float head, float tail, int32_t n, float *line) {
    for (int32_t b = 0; b < n; b++) line[b] = head * (float)(row[b] - LEVEL_MIDDLE);
    if (count == 1) return;
    const uint8_t *last = row + (count - 1) * stride;
    for (int32_t b = 0; b < n; b++) line[b] += tail * (float)(last[b] - LEVEL_MIDDLE);

    int32_t total[BLOCK] = {0};
    int32_t left = count - 2;
    for (const uint8_t *r = row + stride; left > 0;) {
        uint16_t sum[BLOCK] = {0};
        int32_t some = left < ROWS_EXACT ? left : ROWS_EXACT;
        for (int32_t k = 0; k < some; k++, r += stride)
            for (int32_t b = 0; b < n; b++) sum[b] = (uint16_t)(sum[b] + r[b]);
        for (int32_t b = 0; b < n; b++) total[b] += sum[b] - some * LEVEL_MIDDLE;
        left -= some;
    }
    for (int32_t b = 0; b < n; b++) line[b] += (float)total[b];
}

static void rows_plain(const uint8_t *row, int64_t stride, int32_t count, float head, float tail, int32_t n, float *line) {
    int32_t b = 0;
    for (; b + BLOCK <= n; b += BLOCK) rows_block(row + b, stride, count, head, tail, BLOCK, line + b);
    if (b < n) rows_block(row + b, stride, count, head, tail, n - b, line + b);
}

static void columns_plain(const float *line, int32_t base, int32_t step, const area_span *spans, int32_t n, float *sums) {
    for (int32_t i = 0; i < n; i++, sums += 4) {
        const area_span *s = &spans[i];
        const float *x = line + (int64_t)(s->first - base) * step, *end = x + (int64_t)(s->count - 1) * step;
        for (int32_t c = 0; c < step; c++) sums[c] = s->head * x[c];
        if (s->count == 1) continue;
        for (int32_t c = 0; c < step; c++) sums[c] += s->tail * end[c];
        x += step;
        while (x < end) {
            float some[KERNEL_STEP_MAX] = {0};
            const float *stop = end - x > KERNEL_EXACT * step ? x + KERNEL_EXACT * step : end;
            for (; x < stop; x += step)
                for (int32_t c = 0; c < step; c++) some[c] += x[c];
            for (int32_t c = 0; c < step; c++) sums[c] += some[c];
        }
    }
}

const sage_kernels sage_kernels_plain = {1, rows_plain, columns_plain};
