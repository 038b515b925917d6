/* The audio capture: what a callback has to do, and nothing else. Ring and clock are the public ones. */
#ifndef __APPLE__
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#endif

#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "sage.h"

#ifdef __APPLE__
#define MONOTONIC CLOCK_UPTIME_RAW /* what Python's time.monotonic_ns() reads there */
#else
#define MONOTONIC CLOCK_MONOTONIC
#endif

enum { PIECE = 1024, CONTINUE = 0, ABORT = 2, INPUT_UNDERFLOW = 1, INPUT_OVERFLOW = 2 }; /* PortAudio's, but for the first */

struct sage_capture {
    int32_t format, channels;
    sage_ring *ring;
    sage_clock *clock;
    sage_histogram *lateness;
    _Atomic(int64_t) calls, overruns, input_overflows, input_underflows, last_call_ns, longest_gap_ns; /* written by the audio thread */
};

static int64_t get(const _Atomic(int64_t) *x) { return atomic_load_explicit(x, memory_order_relaxed); }

static void set(_Atomic(int64_t) *x, int64_t value) { atomic_store_explicit(x, value, memory_order_relaxed); }

int32_t sage_capture_create(int32_t format, int32_t channels, int32_t rate_hz, int64_t capacity, sage_capture **capture) {
    if (!capture) return SAGE_E_NULL;
    if (format != SAGE_INT16 && format != SAGE_FLOAT32) return SAGE_E_FORMAT;
    if (channels < 1 || channels > SAGE_CHANNELS_MAX) return SAGE_E_SIZE;
    sage_capture *made = calloc(1, sizeof *made);
    if (!made) return SAGE_E_MEMORY;
    made->format = format;
    made->channels = channels;
    int32_t code = sage_ring_create(capacity, &made->ring);
    if (!code) code = sage_clock_create(rate_hz, &made->clock);
    if (!code) code = sage_histogram_create(&made->lateness);
    if (code) sage_capture_destroy(made);
    else *capture = made;
    return code;
}

void sage_capture_destroy(sage_capture *capture) {
    if (!capture) return;
    sage_ring_destroy(capture->ring);
    sage_clock_destroy(capture->clock);
    sage_histogram_destroy(capture->lateness);
    free(capture);
}

static void mean_int16(const int16_t *x, int32_t channels, int64_t frames, float *out) {
    float scale = 1.0f / (32768.0f * (float)channels);
    for (int64_t i = 0; i < frames; i++) {
        int32_t sum = 0;
        for (int32_t c = 0; c < channels; c++) sum += *x++;
        out[i] = (float)sum * scale;
    }
}

static void mean_float(const float *x, int32_t channels, int64_t frames, float *out) {
    for (int64_t i = 0; i < frames; i++) {
        float sum = 0;
        for (int32_t c = 0; c < channels; c++) sum += *x++;
        out[i] = sum / (float)channels;
    }
}

/* Mono float32 into the ring, a piece of the stack at a time. */
static int64_t push(sage_capture *capture, const void *input, int64_t frames) {
    if (!input) return sage_ring_push(capture->ring, NULL, frames);
    int32_t channels = capture->channels;
    if (capture->format == SAGE_FLOAT32 && channels == 1) return sage_ring_push(capture->ring, input, frames);
    float mono[PIECE];
    int64_t lost = 0;
    for (int64_t at = 0; at < frames; at += PIECE) {
        int64_t n = frames - at < PIECE ? frames - at : PIECE;
        if (capture->format == SAGE_INT16) mean_int16((const int16_t *)input + at * channels, channels, n, mono);
        else mean_float((const float *)input + at * channels, channels, n, mono);
        lost += sage_ring_push(capture->ring, mono, n);
    }
    return lost;
}

int64_t sage_capture_feed(sage_capture *capture, const void *input, int64_t frames, uint64_t flags, int64_t t_ns) {
    if (!capture) return SAGE_E_NULL;
    if (frames < 0 || frames > SAGE_RING_MAX) return SAGE_E_SIZE;
    int64_t samples = sage_ring_written(capture->ring) + frames, due_ns, calls = get(&capture->calls);
    /* The clock first: who finds samples in the ring finds their time, too. */
    int32_t known = sage_clock_time(capture->clock, samples, &due_ns), code = sage_clock_add(capture->clock, samples, t_ns);
    if (code) return code;
    int64_t lost = push(capture, input, frames);

    sage_histogram_add(capture->lateness, known == SAGE_OK ? t_ns - due_ns : 0);
    if (calls && t_ns - get(&capture->last_call_ns) > get(&capture->longest_gap_ns)) set(&capture->longest_gap_ns, t_ns - get(&capture->last_call_ns));
    set(&capture->last_call_ns, t_ns);
    set(&capture->overruns, get(&capture->overruns) + lost);
    if (flags & INPUT_OVERFLOW) set(&capture->input_overflows, get(&capture->input_overflows) + 1);
    if (flags & INPUT_UNDERFLOW) set(&capture->input_underflows, get(&capture->input_underflows) + 1);
    set(&capture->calls, calls + 1);
    return lost;
}

int sage_capture_callback(const void *input, void *output, unsigned long frames, const void *time_info, unsigned long flags,
                          void *capture) {
    (void)output;
    (void)time_info;
    if (!capture) return ABORT;
    struct timespec now;
    clock_gettime(MONOTONIC, &now);
    if (frames <= (unsigned long)SAGE_RING_MAX)
        sage_capture_feed(capture, input, (int64_t)frames, flags, (int64_t)now.tv_sec * 1000000000 + now.tv_nsec);
    return CONTINUE;
}

int64_t sage_capture_read(sage_capture *capture, int64_t start, float *out, int64_t n) {
    return capture ? sage_ring_read(capture->ring, start, out, n) : SAGE_E_NULL;
}

int64_t sage_capture_written(const sage_capture *capture) { return capture ? sage_ring_written(capture->ring) : SAGE_E_NULL; }

int32_t sage_capture_time(const sage_capture *capture, int64_t sample, int64_t *t_ns) {
    return capture ? sage_clock_time(capture->clock, sample, t_ns) : SAGE_E_NULL;
}

int32_t sage_capture_clock(const sage_capture *capture, sage_clock_state *state) {
    return capture ? sage_clock_read(capture->clock, state) : SAGE_E_NULL;
}

int32_t sage_capture_stats(const sage_capture *capture, sage_capture_statistics *statistics) {
    if (!capture || !statistics) return SAGE_E_NULL;
    double p50_ns, p99_ns;
    sage_histogram_percentile(capture->lateness, 0.5, &p50_ns);
    sage_histogram_percentile(capture->lateness, 0.99, &p99_ns);
    *statistics = (sage_capture_statistics){
        .calls = get(&capture->calls),
        .samples = sage_ring_written(capture->ring),
        .overruns = get(&capture->overruns),
        .input_overflows = get(&capture->input_overflows),
        .input_underflows = get(&capture->input_underflows),
        .last_call_ns = get(&capture->last_call_ns),
        .longest_gap_ns = get(&capture->longest_gap_ns),
        .lateness_p50_ns = (int64_t)p50_ns,
        .lateness_p99_ns = (int64_t)p99_ns,
    };
    return SAGE_OK;
}
