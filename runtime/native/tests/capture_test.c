/* What the device gives is what is read, to the bit; channels are averaged; times, gaps, flags and lateness are those of the calls. */
#include <math.h>

#include "check.h"
#include "sage.h"

enum { LONGEST = 5000, MOST_CHANNELS = 6 };

static void same_samples(int32_t format, int32_t channels) {
    static int16_t whole[LONGEST * MOST_CHANNELS];
    static float real[LONGEST * MOST_CHANNELS], expected[LONGEST], out[LONGEST];
    sage_capture *capture;
    uint64_t random = 1;
    int64_t at = 0;
    CHECK(sage_capture_create(format, channels, 48000, LONGEST, &capture) == SAGE_OK);
    for (int turn = 0; turn < 60; turn++) {
        int64_t n = next_random(&random) % (turn % 3 ? 1100 : LONGEST);
        for (int64_t i = 0; i < n; i++) {
            double sum = 0;
            for (int32_t c = 0; c < channels; c++) {
                int64_t k = i * channels + c;
                whole[k] = (int16_t)(next_random(&random) % 65536 - 32768);
                real[k] = (float)(next_fraction(&random) * 4 - 2);
                sum += format == SAGE_INT16 ? whole[k] / 32768.0 : (double)real[k];
            }
            expected[i] = (float)(sum / channels);
        }
        const void *input = turn % 10 == 9 ? NULL : format == SAGE_INT16 ? (const void *)whole : (const void *)real;
        CHECK(sage_capture_feed(capture, input, n, 0, at * 20833 + 1000000) == 0);
        CHECK(sage_capture_written(capture) == at + n && sage_capture_read(capture, at, out, n) == n);
        for (int64_t i = 0; i < n; i++) CHECK(input ? fabsf(out[i] - expected[i]) <= (channels > 2 ? 1e-6f : 0.0f) : out[i] == 0);
        at += n;
    }
    sage_capture_destroy(capture);
}

static void counts(void) {
    sage_capture *capture;
    sage_capture_statistics s;
    const int16_t x[64] = {0};
    float out[64];
    int64_t t_ns;
    CHECK(sage_capture_create(SAGE_INT16, 1, 1000, 128, &capture) == SAGE_OK);
    CHECK(sage_capture_time(capture, 0, &t_ns) == SAGE_E_EMPTY);
    CHECK(sage_capture_stats(capture, &s) == SAGE_OK && s.calls == 0 && s.samples == 0 && s.last_call_ns == 0 && s.lateness_p99_ns == 0);
    for (int64_t k = 1; k <= 100; k++) {
        int64_t late_ns = k % 10 == 0 ? 7000000 : 0;
        CHECK(sage_capture_feed(capture, x, 64, k % 5 == 0 ? 2 : k % 5 == 1 ? 1 : 16, k * 64000000 + late_ns) == (k < 3 ? 0 : 64));
    }
    CHECK(sage_capture_stats(capture, &s) == SAGE_OK);
    CHECK(s.calls == 100 && s.samples == 6400 && s.overruns == 6400 - 128 && s.input_overflows == 20 && s.input_underflows == 20);
    CHECK(s.last_call_ns == 6407000000 && s.longest_gap_ns == 71000000);
    CHECK(s.lateness_p50_ns < 1000 && llabs(s.lateness_p99_ns - 7000000) < 120000);
    CHECK(sage_capture_time(capture, 0, &t_ns) == SAGE_OK && llabs(t_ns) < 1000);
    CHECK(sage_capture_time(capture, 6400, &t_ns) == SAGE_OK && llabs(t_ns - 6400000000) < 1000);
    sage_clock_state clock;
    CHECK(sage_capture_clock(capture, &clock) == SAGE_OK && clock.resets == 0 && !clock.settled);
    CHECK(sage_capture_read(capture, 6400 - 64, out, 64) == 64 && sage_capture_feed(capture, x, 64, 0, 6464000000) == 0);
    sage_capture_destroy(capture);
}

/* The callback is _feed at the time of the call (which clock that is, the Python tests say). */
static void callback(void) {
    sage_capture *capture;
    sage_capture_statistics s;
    const float x[4] = {0.25f, NAN, -3.0f, 1.0f};
    float out[2];
    CHECK(sage_capture_create(SAGE_FLOAT32, 2, 16000, 16, &capture) == SAGE_OK);
    CHECK(sage_capture_callback(x, NULL, 2, NULL, 2, capture) == 0);
    CHECK(sage_capture_stats(capture, &s) == SAGE_OK && s.calls == 1 && s.samples == 2 && s.input_overflows == 1);
    int64_t first_ns = s.last_call_ns, t_ns;
    CHECK(first_ns > 0 && sage_capture_time(capture, 2, &t_ns) == SAGE_OK && t_ns == first_ns);
    CHECK(sage_capture_read(capture, 0, out, 2) == 2 && isnan(out[0]) && out[1] == -1.0f);
    CHECK(sage_capture_callback(x, NULL, 0, NULL, 0, capture) == 0 && sage_capture_stats(capture, &s) == SAGE_OK && s.last_call_ns >= first_ns);
    CHECK(sage_capture_callback(x, NULL, 2, NULL, 0, NULL) == 2);
    CHECK(sage_capture_callback(x, NULL, (unsigned long)-1, NULL, 0, capture) == 0 && sage_capture_written(capture) == 2);
    sage_capture_destroy(capture);
}

int main(void) {
    for (int32_t channels = 1; channels <= MOST_CHANNELS; channels++) {
        same_samples(SAGE_INT16, channels);
        same_samples(SAGE_FLOAT32, channels);
    }
    counts();
    callback();
    return 0;
}
