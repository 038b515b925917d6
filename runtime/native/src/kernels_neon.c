/* The inner loops in NEON. */
#include <arm_neon.h>

#include "kernels.h"

enum { ROWS_EXACT = 256 }; /* 256 rows of -128 .. 127 fit in 16 bits */

static inline void weigh(uint8x16_t levels, float weight, float32x4_t sum[4]) {
    int8x16_t centred = vreinterpretq_s8_u8(veorq_u8(levels, vdupq_n_u8(LEVEL_MIDDLE))); /* the top bit turned over: level - 128, signed */
    int16x8_t low = vmovl_s8(vget_low_s8(centred)), high = vmovl_s8(vget_high_s8(centred));
    sum[0] = vmlaq_n_f32(sum[0], vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), weight);
    sum[1] = vmlaq_n_f32(sum[1], vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))), weight);
    sum[2] = vmlaq_n_f32(sum[2], vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), weight);
    sum[3] = vmlaq_n_f32(sum[3], vcvtq_f32_s32(vmovl_s16(vget_high_s16(high))), weight);
}

/* 16 bytes of a line: the outermost rows in floats, those between in 16-bit integers, which are put aside every 256 rows. */
static inline void rows_16(const uint8_t *row, int64_t stride, int32_t count, int32_t ahead, float head, float tail, float *line) {
    for (int32_t next = count; next < count + ahead; next++) __builtin_prefetch(row + next * stride);
    float32x4_t sum[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    weigh(vld1q_u8(row), head, sum);
    if (count > 1) weigh(vld1q_u8(row + (count - 1) * stride), tail, sum);
    row += stride;
    for (int32_t left = count - 2; left > 0; left -= ROWS_EXACT) {
        int16x8_t low = vdupq_n_s16(0), high = low;
        for (int32_t some = left < ROWS_EXACT ? left : ROWS_EXACT; some > 0; some--, row += stride) {
            int8x16_t centred = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(row), vdupq_n_u8(LEVEL_MIDDLE)));
            low = vaddw_s8(low, vget_low_s8(centred));
            high = vaddw_s8(high, vget_high_s8(centred));
        }
        sum[0] = vaddq_f32(sum[0], vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))));
        sum[1] = vaddq_f32(sum[1], vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))));
        sum[2] = vaddq_f32(sum[2], vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))));
        sum[3] = vaddq_f32(sum[3], vcvtq_f32_s32(vmovl_s16(vget_high_s16(high))));
    }
    for (int k = 0; k < 4; k++) vst1q_f32(line + 4 * k, sum[k]);
}

static void rows_neon(const uint8_t *row, int64_t stride, int32_t count, int32_t ahead, float head, float tail, int32_t n, float *line) {
    if (n < 16) {
        sage_kernels_plain.rows(row, stride, count, ahead, head, tail, n, line);
        return;
    }
    int32_t b = 0;
    for (; b + 16 <= n; b += 16) rows_16(row + b, stride, count, ahead, head, tail, line + b);
    if (b < n) rows_16(row + n - 16, stride, count, ahead, head, tail, line + n - 16);
}

#define ALWAYS static inline __attribute__((always_inline))

/* The sums of four cells, each with its components in the lanes of a register. Four at once, so that the loop's own work is shared. */
ALWAYS void sum_four(const float *line, int32_t step, const cell_columns *cells, int32_t common, float32x4_t sum[4]) {
    const float *x[4];
    for (int k = 0; k < 4; k++) {
        x[k] = line + cells[k].first;
        sum[k] = vmulq_n_f32(vld1q_f32(x[k] + (int64_t)(common + 1) * step), cells[k].more);
    }
    for (int32_t some = common % KERNEL_EXACT; some > 0; some--)
        for (int k = 0; k < 4; k++) sum[k] = vaddq_f32(sum[k], vld1q_f32(x[k] += step));
    for (common -= common % KERNEL_EXACT; common > 0; common -= KERNEL_EXACT) {
        float32x4_t part[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
        for (int32_t some = KERNEL_EXACT; some > 0; some--)
            for (int k = 0; k < 4; k++) part[k] = vaddq_f32(part[k], vld1q_f32(x[k] += step));
        for (int k = 0; k < 4; k++) sum[k] = vaddq_f32(sum[k], part[k]);
    }
    for (int k = 0; k < 4; k++) { /* last: beside the frame, the weight of an edge is as large as what lies there */
        sum[k] = vfmaq_n_f32(sum[k], vld1q_f32(line + cells[k].first), cells[k].head);
        sum[k] = vfmaq_n_f32(sum[k], vld1q_f32(line + cells[k].last), cells[k].tail);
    }
}

ALWAYS void columns_of(const float *line, int32_t step, const cell_columns *cells, int32_t n, int32_t common, const cell_output *output) {
    const cell_output to = *output; /* a copy, which what is written cannot change */
    for (int32_t i = 0; i < n; i += 4) {
        float32x4_t sum[4];
        sum_four(line, step, cells + i, common, sum);
        float32x4_t even[2] = {vzip1q_f32(sum[0], sum[2]), vzip2q_f32(sum[0], sum[2])};
        float32x4_t odd[2] = {vzip1q_f32(sum[1], sum[3]), vzip2q_f32(sum[1], sum[3])};
        for (int32_t c = 0; c < step; c++) {
            float32x4_t value = c % 2 ? vzip2q_f32(even[c / 2], odd[c / 2]) : vzip1q_f32(even[c / 2], odd[c / 2]);
            value = vfmaq_n_f32(vdupq_n_f32(to.bias[c]), value, to.scale[c]);
            if (n - i >= 4) {
                vst1q_f32(to.out[c] + i, value);
                continue;
            }
            float last[4];
            vst1q_f32(last, value);
            for (int32_t k = 0; k < n - i; k++) to.out[c][i + k] = last[k];
        }
    }
}

static void columns_neon(const float *line, int32_t step, const cell_columns *cells, int32_t n, int32_t common, const cell_output *to) {
    switch (step) {
    case 1: columns_of(line, 1, cells, n, common, to); break;
    case 2: columns_of(line, 2, cells, n, common, to); break;
    case 3: columns_of(line, 3, cells, n, common, to); break;
    default: columns_of(line, 4, cells, n, common, to); break;
    }
}

const sage_kernels sage_kernels_neon = {4, rows_neon, columns_neon};
