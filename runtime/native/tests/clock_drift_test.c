/* An hour of a device whose clock is wrong, behind jitter and bursts: after 10 s no time is off by 5 ms, the line has no step, and the drift is
 * found: from the first time that it is said, it is so. Where the delay is coarse, at one of two values for up to half a minute, times are off by
 * no more than that and some, and the drift may go unsaid for minutes. */
#include <math.h>

#include "check.h"
#include "sage.h"

enum { CHUNK_MS = 20, HOUR = 3600 };

typedef struct {
    int32_t rate_hz;
    double drift_ppm;
    double jitter_ms; /* late by 0 to this, uniformly */
    double coarse_ms; /* another delay: none or this, by turns of 0 to 30 s */
    double burst_s;   /* between two stalls of 400 ms, on average; all that was held back then comes at once; 0: none */
} device;

static const int64_t START_NS = 86400000000000 * 30; /* up for a month */

static double true_ns(const device *d, int64_t sample) { return (double)sample / (d->rate_hz * (1 + d->drift_ppm * 1e-6)) * 1e9; }

static void hour(const device *d) {
    sage_clock *clock;
    uint64_t random = 5;
    CHECK(sage_clock_create(d->rate_hz, &clock) == SAGE_OK);
    int64_t chunk = d->rate_hz * CHUNK_MS / 1000, t_ns, before_ns = 0, previous_ns = INT64_MIN;
    double stalled_until = 0, arrived = 0, worst = 0, worst_step = 0, limit_ns = (5 + d->coarse_ms) * 1e6, coarse_ns = 0, turn_ns = 0;
    double said_s = 0, worst_ppm = 0;
    sage_clock_state state;
    for (int64_t n = chunk; n <= (int64_t)HOUR * d->rate_hz; n += chunk) {
        double due = true_ns(d, n);
        if (d->burst_s > 0 && due > stalled_until && next_fraction(&random) < CHUNK_MS / 1e3 / d->burst_s) stalled_until = due + 4e8;
        if (due > turn_ns) {
            turn_ns = due + next_fraction(&random) * 3e10;
            coarse_ns = next_random(&random) % 2 ? d->coarse_ms * 1e6 : 0;
        }
        double arrival = fmax(due + next_fraction(&random) * d->jitter_ms * 1e6 + coarse_ns, stalled_until);
        arrived = fmax(arrived, arrival);
        if (n > chunk) CHECK(sage_clock_time(clock, n, &before_ns) == SAGE_OK);
        CHECK(sage_clock_add(clock, n, START_NS + llround(arrived)) == SAGE_OK);
        CHECK(sage_clock_time(clock, n, &t_ns) == SAGE_OK && sage_clock_read(clock, &state) == SAGE_OK);
        CHECK(t_ns > previous_ns);
        previous_ns = t_ns;
        CHECK(!state.settled || n >= 10 * (int64_t)d->rate_hz);
        if (state.known) {
            if (said_s == 0) said_s = (double)n / d->rate_hz;
            worst_ppm = fmax(worst_ppm, fabs((double)state.drift_ppb / 1000 - d->drift_ppm));
        }
        if (n < 10 * (int64_t)d->rate_hz) continue;
        worst = fmax(worst, fabs((double)(t_ns - START_NS) - due));
        worst_step = fmax(worst_step, fabs((double)(t_ns - before_ns)));
        if (n >= (d->coarse_ms > 0 ? 1200 : 60) * (int64_t)d->rate_hz) CHECK(state.known);
    }
    CHECK(sage_clock_read(clock, &state) == SAGE_OK);
    printf("%d Hz, %+.0f ppm, 0 to %.0f ms late and %.0f ms by turns, a burst every %.0f s: off by %.2f ms at most, found %+.1f ppm, "
           "off by %.1f at most since %.1f s, step %.0f ns, %lld resets\n",
           d->rate_hz, d->drift_ppm, d->jitter_ms, d->coarse_ms, d->burst_s, worst / 1e6, (double)state.drift_ppb / 1000, worst_ppm, said_s,
           worst_step, (long long)state.resets);
    CHECK(worst < limit_ns);
    CHECK(worst_ppm < 10);
    CHECK(worst_step <= 2);
    CHECK(state.resets == 0 && state.since == 0 && state.settled);
    sage_clock_destroy(clock);
}

int main(void) {
    const device devices[] = {
        {16000, 0, 0, 0, 0},    {16000, 200, 10, 0, 0},  {16000, 200, 10, 0, 10}, {48000, -200, 10, 0, 10}, {44100, 37, 10, 0, 3},
        {8000, -37, 3, 0, 60},  {192000, 200, 10, 0, 2}, {16000, 500, 10, 0, 10}, {16000, 0, 1, 10, 10},    {48000, -60, 1, 10, 10},
        {44100, 60, 5, 20, 5},  {16000, -300, 1, 10, 0}, {16000, 187.5, 10, 0, 0},
    };
    for (size_t k = 0; k < sizeof devices / sizeof *devices; k++) hour(&devices[k]);
    return 0;
}
