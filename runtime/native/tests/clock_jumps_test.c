/* Arrivals that jump: lost samples are found within a second and change the times before them by next to nothing; a backlog that comes late, or that a stream
 * begins with, is no loss; whatever is fed, nothing overflows. */
#include <math.h>

#include "check.h"
#include "sage.h"

enum { RATE = 16000, CHUNK = 320 };

static const int64_t CHUNK_NS = 20000000, MS = 1000000;

typedef struct {
    sage_clock *clock;
    int64_t samples, t_ns; /* fed so far; when the next chunk is complete */
    uint64_t random;
} stream;

static stream begin(void) {
    stream s = {.t_ns = 5000 * MS, .random = 7};
    CHECK(sage_clock_create(RATE, &s.clock) == SAGE_OK);
    return s;
}

static void arrive(stream *s, int64_t late_ns) {
    CHECK(sage_clock_add(s->clock, s->samples += CHUNK, s->t_ns + late_ns) == SAGE_OK);
    s->t_ns += CHUNK_NS;
}

/* `chunks` chunks that come late_ns and 0 to 5 ms late. */
static void feed(stream *s, int chunks, int64_t late_ns) {
    for (int k = 0; k < chunks; k++) arrive(s, late_ns + (int64_t)(next_fraction(&s->random) * 5e6));
}

static int64_t time_of(const stream *s, int64_t sample) {
    int64_t t_ns;
    CHECK(sage_clock_time(s->clock, sample, &t_ns) == SAGE_OK);
    return t_ns;
}

static sage_clock_state state_of(const stream *s) {
    sage_clock_state state;
    CHECK(sage_clock_read(s->clock, &state) == SAGE_OK);
    return state;
}

/* How far the newest time is from the true one. */
static int64_t off_ns(const stream *s) { return llabs(time_of(s, s->samples) - (s->t_ns - CHUNK_NS)); }

static void lost_samples(void) {
    stream s = begin();
    feed(&s, 1000, 0);
    int64_t lost_at = s.samples, old_ns = time_of(&s, lost_at - 1), older_ns = time_of(&s, 100);
    CHECK(state_of(&s).settled);
    s.t_ns += 100 * MS;
    feed(&s, 49, 0);
    CHECK(state_of(&s).resets == 0);
    feed(&s, 3, 0);
    sage_clock_state state = state_of(&s);
    CHECK(state.resets == 1 && state.since == lost_at && !state.settled && off_ns(&s) < 5 * MS);
    CHECK(llabs(time_of(&s, lost_at - 1) - old_ns) < MS / 2 && llabs(time_of(&s, 100) - older_ns) < MS / 2);
    CHECK(llabs(time_of(&s, lost_at) - old_ns - 100 * MS) < 5 * MS);
    feed(&s, 600, 0);
    CHECK(state_of(&s).settled && state_of(&s).resets == 1 && off_ns(&s) < 1 * MS);

    /* The device put in 300 ms that it had given before: now everything comes early, at once. */
    int64_t again_at = s.samples;
    old_ns = time_of(&s, again_at - 1);
    s.t_ns -= 300 * MS;
    feed(&s, 1, 0);
    state = state_of(&s);
    CHECK(state.resets == 2 && state.since == again_at && time_of(&s, again_at - 1) == old_ns && off_ns(&s) <= 5 * MS);
    sage_clock_destroy(s.clock);
}

static void stalls_with_backlog(void) {
    stream s = begin();
    feed(&s, 1000, 0);
    for (int stall = 0; stall < 20; stall++) {
        for (int64_t late_ns = 3000 * MS; late_ns > 0; late_ns -= CHUNK_NS) {
            arrive(&s, late_ns);
            CHECK(off_ns(&s) < 5 * MS);
        }
        feed(&s, 50, 0);
        CHECK(off_ns(&s) < 1 * MS);
    }
    CHECK(state_of(&s).resets == 0 && state_of(&s).since == 0);
    sage_clock_destroy(s.clock);
}

static void begins_with_backlog(void) {
    stream s = begin();
    for (int64_t late_ns = 1200 * MS; late_ns > 0; late_ns -= CHUNK_NS) arrive(&s, late_ns);
    feed(&s, 25, 0);
    CHECK(off_ns(&s) <= 5 * MS && state_of(&s).since == 0);
    CHECK(llabs(time_of(&s, 0) - 4980 * MS) <= 5 * MS);
    sage_clock_destroy(s.clock);

    /* Everything was late for longer than a second, then no more: the line before was no loss, and its samples get the right times. */
    s = begin();
    feed(&s, 200, 150 * MS);
    feed(&s, 25, 0);
    CHECK(off_ns(&s) <= 5 * MS && state_of(&s).since == 0 && state_of(&s).resets == 1);
    CHECK(llabs(time_of(&s, 0) - 4980 * MS) <= 5 * MS);
    sage_clock_destroy(s.clock);
}

/* A delay that falls or grows by less than a jump is followed without a step and without a reset, and is not taken for drift. */
static void delay_changes(void) {
    const int64_t delays_ns[] = {0, 15 * MS, 2 * MS, 17 * MS, 0, 4 * MS};
    stream s = begin();
    feed(&s, 3000, 0);
    for (size_t k = 1; k < sizeof delays_ns / sizeof *delays_ns; k++) {
        for (int chunk = 0; chunk < 2500; chunk++) {
            int64_t before_ns = time_of(&s, s.samples + CHUNK);
            feed(&s, 1, delays_ns[k]);
            CHECK(llabs(time_of(&s, s.samples) - before_ns) <= 2 && llabs(state_of(&s).drift_ppb) < 200000);
        }
        CHECK(llabs(time_of(&s, s.samples) - (s.t_ns - CHUNK_NS) - delays_ns[k]) < 1 * MS);
    }
    CHECK(state_of(&s).resets == 0);
    sage_clock_destroy(s.clock);
}

static void drift_survives(void) {
    stream s = begin();
    for (int k = 0; k < 3000; k++, s.t_ns -= 3000) arrive(&s, 0);
    int64_t drift = state_of(&s).drift_ppb;
    CHECK(llabs(drift - 150023) < 100);
    s.t_ns += 500 * MS;
    for (int k = 0; k < 60; k++, s.t_ns -= 3000) arrive(&s, 0);
    CHECK(state_of(&s).resets == 1 && llabs(state_of(&s).drift_ppb - drift) < 1000);
    CHECK(llabs(time_of(&s, s.samples + 10 * RATE) - time_of(&s, s.samples) - 10 * (1000 * MS - 150000)) < MS / 10);
    sage_clock_destroy(s.clock);
}

/* Sound is lost while the delay is coarse, at one of two values for 17 s each, which over so short a time looks like any drift: what was found
 * before the first step goes on. */
static void drift_survives_coarse_delays(void) {
    stream s = begin();
    for (int k = 0; k < 30000; k++) {
        if (k == 3000) s.t_ns += 3000 * MS;
        arrive(&s, k / 850 % 2 ? 10 * MS : 0);
        if (k > 4000) CHECK(off_ns(&s) < 1 * MS);
        s.t_ns -= 6000;
    }
    CHECK(state_of(&s).resets == 1 && llabs(state_of(&s).drift_ppb - 300090) < 100);
    sage_clock_destroy(s.clock);
}

static void anything(void) {
    uint64_t random = 11;
    for (int turn = 0; turn < 300; turn++) {
        sage_clock *clock;
        int32_t rate = turn % 3 == 0 ? SAGE_RATE_MIN : turn % 3 == 1 ? SAGE_RATE_MAX : 44100;
        CHECK(sage_clock_create(rate, &clock) == SAGE_OK);
        int64_t samples = 0, t_ns = 0, most = ((int64_t)1 << 31) * rate, latest = (int64_t)1 << 61;
        for (int k = 0; k < 300; k++) {
            int64_t step = (int64_t)1 << next_random(&random) % (turn % 2 ? 51 : 16);
            samples = samples > most - step ? most : samples + step;
            int64_t away = (int64_t)((next_fraction(&random) * 2 - 1) * (double)((int64_t)1 << next_random(&random) % 61));
            t_ns = next_random(&random) % 8 ? t_ns + away / 2 : away * 2;
            t_ns = t_ns > latest ? latest : t_ns < -latest ? -latest : t_ns;
            CHECK(sage_clock_add(clock, samples, t_ns) == SAGE_OK);
            int64_t at_ns;
            CHECK(sage_clock_time(clock, samples, &at_ns) == SAGE_OK);
            int32_t code = sage_clock_time(clock, next_random(&random) % 2 ? INT64_MAX : INT64_MIN, &at_ns);
            CHECK(code == SAGE_E_SIZE);
        }
        sage_clock_destroy(clock);
    }
}

int main(void) {
    lost_samples();
    stalls_with_backlog();
    begins_with_backlog();
    delay_changes();
    drift_survives();
    drift_survives_coarse_delays();
    anything();
    return 0;
}
