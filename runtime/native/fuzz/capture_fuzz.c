/* Calls of any length, format and time: counters add up, and what is read is the mean of what was fed. */
#include <math.h>

#include "bytes.h"
#include "sage.h"

#define LATEST ((int64_t)1 << 61)

enum { MOST = 200, CHANNELS = 6 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    bytes from = {data, size};
    int32_t format = take_between(&from, -1, 2), channels = take_between(&from, 0, CHANNELS), rate = take_between(&from, 900, 50000);
    int64_t capacity = take_between(&from, 0, 500);
    sage_capture *capture = NULL;
    int32_t code = sage_capture_create(format, channels, rate, capacity, &capture);
    HOLDS(code <= 0 && !capture == !!code);
    int64_t written = 0, calls = 0, overruns = 0, t_ns = 0;
    while (capture && from.size) {
        int16_t whole[MOST * CHANNELS];
        float real[MOST * CHANNELS], out[MOST];
        int64_t frames = take_between(&from, -1, MOST);
        int32_t silent = take_between(&from, 0, 15) == 0, first, step;
        take(&from, &first, sizeof first);
        take(&from, &step, sizeof step);
        for (int32_t k = 0; k < MOST * CHANNELS; k++) {
            uint32_t bits = (uint32_t)first + (uint32_t)k * (uint32_t)step;
            whole[k] = (int16_t)bits;
            memcpy(&real[k], &bits, sizeof bits);
        }
        t_ns = take_between(&from, 0, 15) ? (int64_t)((uint64_t)t_ns + (uint64_t)take_between(&from, 0, 65535) * 1000) : take_int64(&from);
        const void *input = silent ? NULL : format == SAGE_INT16 ? (const void *)whole : (const void *)real;
        int64_t lost;
        if (take_between(&from, 0, 3)) {
            lost = sage_capture_feed(capture, input, frames, (uint64_t)take_between(&from, 0, 31), t_ns);
            if (t_ns < -LATEST || t_ns > LATEST) frames = -1;
            HOLDS(frames < 0 ? lost == SAGE_E_SIZE : lost >= 0 && lost <= written + frames);
        } else {
            HOLDS(sage_capture_callback(input, NULL, (unsigned long)(frames < 0 ? 0 : frames), NULL, 0, capture) == 0);
            lost = -1;
            frames = frames < 0 ? 0 : frames;
        }
        sage_capture_statistics stats;
        HOLDS(sage_capture_stats(capture, &stats) == SAGE_OK);
        if (frames >= 0) {
            calls++;
            written += frames;
        }
        if (lost >= 0) overruns += lost;
        else overruns = stats.overruns;
        HOLDS(stats.calls == calls && stats.samples == written && sage_capture_written(capture) == written && stats.overruns == overruns);
        HOLDS(stats.lateness_p50_ns <= stats.lateness_p99_ns && stats.lateness_p50_ns >= 0);

        int64_t held = sage_capture_read(capture, written - MOST, out, MOST);
        HOLDS(held == (written < capacity ? written < MOST ? written : MOST : capacity < MOST ? capacity : MOST));
        for (int64_t i = frames < held ? MOST - frames : MOST - held; frames > 0 && i < MOST; i++) {
            double sum = 0;
            int64_t frame = i - (MOST - frames);
            for (int32_t c = 0; c < channels; c++) {
                int64_t k = frame * channels + c;
                sum += silent ? 0 : format == SAGE_INT16 ? whole[k] / 32768.0 : (double)real[k];
            }
            double mean = sum / channels, scale = 0;
            for (int32_t c = 0; c < channels && !silent && format == SAGE_FLOAT32; c++) scale = fmax(scale, fabs((double)real[frame * channels + c]));
            if (isfinite(sum) && scale < 1e37) HOLDS(fabs((double)out[i] - mean) <= 1e-5 * fmax(scale, 1));
        }
        int64_t at_ns;
        sage_clock_state state;
        code = sage_capture_time(capture, written, &at_ns);
        HOLDS(code == SAGE_OK || code == SAGE_E_EMPTY || code == SAGE_E_SIZE);
        HOLDS(sage_capture_clock(capture, &state) == SAGE_OK);
    }
    sage_capture_destroy(capture);
    return 0;
}
