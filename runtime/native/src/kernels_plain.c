/* The inner loops in plain C: the twin that the others are held to, and what runs where there is no other. */
#include "kernels.h"

enum { BLOCK = 64, ROWS_EXACT = 256 }; /* 256 rows of 255 fit in 16 bits */

static void rows_block(const uint8_t *row, int64_t stride, int32_t count, int32_t ahead, float head, float tail, int32_t n, float *line) {
    for (int32_t next = count; next < count + ahead; next++) __builtin_prefetch(row + next * stride);
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

static void rows_plain(const uint8_t *row, int64_t stride, int32_t count, int32_t ahead, float head, float tail, int32_t n, float *line) {
    int32_t b = 0;
    for (; b + BLOCK <= n; b += BLOCK) rows_block(row + b, stride, count, ahead, head, tail, BLOCK, line + b);
    if (b < n) rows_block(row + b, stride, count, ahead, head, tail, n - b, line + b);
}

static void columns_plain(const float *line, int32_t step, const cell_columns *cells, int32_t n, int32_t common, const cell_output *to) {
    for (int32_t i = 0; i < n; i++) {
        const cell_columns *cell = &cells[i];
        const float *first = line + cell->first, *after = first + (int64_t)(common + 1) * step, *last = line + cell->last;
        float sum[KERNEL_STEP_MAX];
        for (int32_t c = 0; c < step; c++) sum[c] = cell->more * after[c];
        for (const float *x = first + step; x < after;) {
            float some[KERNEL_STEP_MAX] = {0};
            const float *stop = after - x > KERNEL_EXACT * step ? x + KERNEL_EXACT * step : after;
            for (; x < stop; x += step)
                for (int32_t c = 0; c < step; c++) some[c] += x[c];
            for (int32_t c = 0; c < step; c++) sum[c] += some[c];
        }
        /* last: beside the frame, the weight of an edge is as large as what lies there */
        for (int32_t c = 0; c < step; c++) sum[c] = sum[c] + cell->head * first[c] + cell->tail * last[c];
        for (int32_t c = 0; c < step; c++) to->out[c][i] = sum[c] * to->scale[c] + to->bias[c];
    }
}

const sage_kernels sage_kernels_plain = {1, rows_plain, columns_plain};
