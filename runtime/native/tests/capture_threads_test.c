/* Callbacks on one thread, reads on another, questions on a third: no sample is lost or torn, and who has a sample has its time. */
#include <pthread.h>
#include <stdatomic.h>

#include "check.h"
#include "sage.h"

enum { RATE = 16000, CHUNK = 160, CHUNKS = 4000, CAPACITY = CHUNK * CHUNKS };

static const int64_t PERIOD_NS = 62500;

static int16_t value(int64_t index) { return (int16_t)(index % 65521 - 32760); }

typedef struct {
    sage_capture *capture;
    atomic_int done;
} shared;

static void *record(void *argument) {
    shared *s = argument;
    int16_t x[2 * CHUNK];
    for (int64_t at = 0; at < CAPACITY; at += CHUNK) {
        for (int64_t i = 0; i < CHUNK; i++) x[2 * i] = x[2 * i + 1] = value(at + i);
        CHECK(sage_capture_feed(s->capture, x, CHUNK, at % 3 == 0 ? 2 : 0, (at + CHUNK) * PERIOD_NS) == 0);
    }
    return NULL;
}

static void *ask(void *argument) {
    shared *s = argument;
    sage_capture_statistics last = {0}, now;
    while (!atomic_load(&s->done)) {
        sage_clock_state clock;
        CHECK(sage_capture_stats(s->capture, &now) == SAGE_OK && sage_capture_clock(s->capture, &clock) == SAGE_OK);
        CHECK(now.calls >= last.calls && now.samples >= last.samples && now.last_call_ns >= last.last_call_ns && now.overruns == 0 && clock.resets == 0);
        last = now;
    }
    return NULL;
}

int main(void) {
    shared s = {.done = 0};
    pthread_t recorder, asker;
    static float out[CAPACITY];
    CHECK(sage_capture_create(SAGE_INT16, 2, RATE, CAPACITY, &s.capture) == SAGE_OK);
    CHECK(!pthread_create(&asker, NULL, ask, &s) && !pthread_create(&recorder, NULL, record, &s));
    for (int64_t at = 0; at < CAPACITY;) {
        int64_t n = sage_capture_written(s.capture) - at, t_ns;
        if (!n) continue;
        CHECK(sage_capture_read(s.capture, at, out, n) == n);
        for (int64_t i = 0; i < n; i++) CHECK(out[i] == (float)value(at + i) / 32768.0f);
        CHECK(sage_capture_time(s.capture, at, &t_ns) == SAGE_OK && llabs(t_ns - at * PERIOD_NS) <= 1);
        at += n;
    }
    CHECK(!pthread_join(recorder, NULL));
    atomic_store(&s.done, 1);
    CHECK(!pthread_join(asker, NULL));
    sage_capture_statistics statistics;
    CHECK(sage_capture_stats(s.capture, &statistics) == SAGE_OK && statistics.calls == CHUNKS && statistics.samples == CAPACITY);
    sage_capture_destroy(s.capture);
    return 0;
}
