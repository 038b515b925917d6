/* The sample clock: a line under the arrivals.
 *
 * Its slope comes from points far apart: the least late arrival of each block, blocks of half a second at first and of eight
 * in the end, 128 of them. The line below them all with the least sum of distances is the edge of their lower convex hull
 * over their mean. Real delays are not only jitter but also steps (a sound server that passes on 10 ms at a time sits at one
 * of two delays for half a minute), and over a short span a step looks like drift; so that slope counts by how far the points
 * lie above it, against what is known of crystals, or of this one. Its height comes from the last half minute alone. What is
 * said of the drift is the slope of the points alone, once they count for nearly all of it.
 *
 * Readers get the line through a latch: the writer fills the copy that nobody was sent to and then turns them over, so a
 * reader begins again only when the writer came round during its few loads. Each field is an atomic, stored with release and
 * loaded with acquire: a reader that got a field of a later turn also sees the turn before it.
 */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "sage.h"

#define SECOND_NS 1000000000
#define EARLY_NS 50000000
#define LATE_NS 40000000      /* more than the steps of coarse delays: pieces of 10 ms in callbacks of 20 */
#define LOST_NS SECOND_NS     /* that everything is later than LATE_NS before samples count as lost */
#define STEEPEST 1e6          /* ns per second: no crystal is off by more than 1000 ppm, */
#define CRYSTALS 6e4          /* most by less than 60, */
#define SAME_CRYSTAL 2e4      /* and one that was measured changes by less than 20 */
#define LEAST_SPREAD_NS 5e4
#define SAID_WEIGHT 0.9       /* from which on the points' own slope is said: it is off by less than a third of the spread */
#define SLEW_S 2.0            /* in which what is left of a correction falls by e, but at most at */
#define SLEW_STEEPEST 3e6     /* ns per second */
#define LATEST ((int64_t)1 << 61)
#define MOST_SECONDS ((int64_t)1 << 31)

enum { POINTS = 128, RECENT = 64, HALVES_MOST = 16, SLOPE_S = 5, SETTLED_S = 10 };

/* t = t_ns + (n - sample) * period_ns */
typedef struct {
    int64_t sample, t_ns;
    double period_ns;
} line;

typedef struct {
    _Atomic(int64_t) sample, t_ns;
    _Atomic(double) period_ns;
} shown_line;

typedef struct {
    shown_line line, before;
    _Atomic(int64_t) since, resets, settled, known, drift_ppb;
} shown;

/* An arrival: offset_ns is its time less that of its sample at the nominal rate. */
typedef struct {
    int64_t sample, offset_ns;
} point;

struct sage_clock {
    int32_t rate_hz;

    /* The writer's alone. */
    int64_t samples;            /* of the newest arrival */
    line line, before;          /* the present line, and that of the samples before `since` */
    int64_t since, begun;       /* where the line holds from; where its arrivals begin */
    double slope;               /* ns per second that the samples come later than at the nominal rate */
    double prior, spread;       /* what the slope is without arrivals, and how far off that may be */
    double said;                /* the slope that the points said last */
    int64_t resets, known, drift_ppb;
    int64_t half, least_ns;     /* where this half second begins, how late its least late arrival was */
    point least;
    point recent[RECENT];       /* least of each half second, in a circle */
    int64_t halves;             /* since the line began */
    point points[POINTS], wide; /* least of each block, oldest first; that of the block that is going on */
    int32_t count, wide_halves, block_halves;
    int64_t late_since, late_sample, late_least_ns; /* of the arrivals that are all late; late_sample < 0: the newest was not */
    point late_least;

    _Atomic(int64_t) turn; /* shown[turn & 1] is the newest; 0: nothing has come */
    shown shown[2];
};

static int64_t nominal_ns(const sage_clock *clock, int64_t sample) {
    int64_t rate = clock->rate_hz;
    return sample / rate * SECOND_NS + sample % rate * SECOND_NS / rate;
}

static int64_t line_ns(const line *l, int64_t sample) { return l->t_ns + llround((double)(sample - l->sample) * l->period_ns); }

static double period_ns(const sage_clock *clock, double slope) { return (SECOND_NS + slope) / clock->rate_hz; }

static double clamp(double x, double limit) { return x < -limit ? -limit : x > limit ? limit : x; }

/* ---- Shown to readers */

static void show_line(shown_line *to, const line *from) {
    atomic_store_explicit(&to->sample, from->sample, memory_order_release);
    atomic_store_explicit(&to->t_ns, from->t_ns, memory_order_release);
    atomic_store_explicit(&to->period_ns, from->period_ns, memory_order_release);
}

static line seen_line(const shown_line *from) {
    return (line){atomic_load_explicit(&from->sample, memory_order_acquire), atomic_load_explicit(&from->t_ns, memory_order_acquire),
                  atomic_load_explicit(&from->period_ns, memory_order_acquire)};
}

static int settled(const sage_clock *clock) { return clock->samples - clock->begun >= (int64_t)SETTLED_S * clock->rate_hz; }

static void show(sage_clock *clock) {
    int64_t turn = atomic_load_explicit(&clock->turn, memory_order_relaxed) + 1;
    shown *to = &clock->shown[turn & 1];
    show_line(&to->line, &clock->line);
    show_line(&to->before, &clock->before);
    atomic_store_explicit(&to->since, clock->since, memory_order_release);
    atomic_store_explicit(&to->resets, clock->resets, memory_order_release);
    atomic_store_explicit(&to->settled, settled(clock), memory_order_release);
    atomic_store_explicit(&to->known, clock->known, memory_order_release);
    atomic_store_explicit(&to->drift_ppb, clock->drift_ppb, memory_order_release);
    atomic_store_explicit(&clock->turn, turn, memory_order_release);
}

/* ---- The writer */

/* A new line through an arrival, at the rate that is known. */
static void begin(sage_clock *clock, point through, int64_t sample) {
    clock->prior = clock->slope = clock->known ? clock->said : 0;
    clock->line = (line){through.sample, through.offset_ns + nominal_ns(clock, through.sample), period_ns(clock, clock->slope)};
    clock->begun = clock->half = sample;
    clock->spread = clock->known ? SAME_CRYSTAL : CRYSTALS;
    clock->halves = 0;
    clock->count = clock->wide_halves = 0;
    clock->block_halves = 1;
    clock->least = through;
    clock->least_ns = 0;
    clock->late_sample = -1;
}

/* How far a point lies over a line of the known slope through the other. */
static double over_ns(const sage_clock *clock, point p, point other) {
    return (double)(p.offset_ns - other.offset_ns) - clock->slope * (double)(p.sample - other.sample) / clock->rate_hz;
}

static point lower(const sage_clock *clock, point a, point b) { return over_ns(clock, a, b) < 0 ? a : b; }

/* The edge of the lower hull of the points over their mean: its slope in ns per second. x_s and y_ns are of the newest. */
static double hull_slope(const double *x_s, const double *y_ns, int32_t n) {
    int32_t hull[POINTS] = {0}, size = 0;
    double mean = 0;
    for (int32_t i = 0; i < n; i++) {
        mean += x_s[i] / n;
        while (size >= 2) {
            int32_t a = hull[size - 2], b = hull[size - 1];
            if ((y_ns[b] - y_ns[a]) * (x_s[i] - x_s[a]) < (y_ns[i] - y_ns[a]) * (x_s[b] - x_s[a])) break;
            size--;
        }
        hull[size++] = i;
    }
    int32_t k = 1;
    while (k < size - 1 && x_s[hull[k]] < mean) k++;
    int32_t a = hull[k - 1], b = hull[k];
    return (y_ns[b] - y_ns[a]) / (x_s[b] - x_s[a]);
}

/* The slope by the points, as far as they can be trusted; what is said of the drift when they can. */
static double fit_slope(sage_clock *clock) {
    double x_s[POINTS] = {0}, y_ns[POINTS] = {0}, over[POINTS] = {0}, least = INFINITY;
    point newest = clock->points[clock->count - 1];
    for (int32_t i = 0; i < clock->count; i++) {
        x_s[i] = (double)(clock->points[i].sample - newest.sample) / clock->rate_hz;
        y_ns[i] = (double)(clock->points[i].offset_ns - newest.offset_ns);
    }
    if (-x_s[0] < SLOPE_S) return clock->prior;
    double slope = clamp(hull_slope(x_s, y_ns, clock->count), STEEPEST);
    for (int32_t i = 0; i < clock->count; i++) least = fmin(least, y_ns[i] - slope * x_s[i]);
    for (int32_t i = 0; i < clock->count; i++) { /* sorted */
        int32_t at = i;
        for (double y = y_ns[i] - slope * x_s[i] - least; at > 0 && over[at - 1] > y; at--) over[at] = over[at - 1];
        over[at] = y_ns[i] - slope * x_s[i] - least;
    }
    double noise = fmax(over[clock->count * 3 / 4], LEAST_SPREAD_NS) / -x_s[0];
    double times = 1 + noise * noise / (clock->spread * clock->spread); /* the inverse of their weight */
    if (settled(clock) && times * SAID_WEIGHT < 1) {
        clock->known = 1;
        clock->said = slope;
        clock->drift_ppb = llround(-slope / (1 + slope / SECOND_NS));
    }
    return clock->prior + (slope - clock->prior) / times;
}

/* Take the block that has ended; when there are too many, every two become one. */
static void keep(sage_clock *clock) {
    if (clock->count == POINTS && clock->block_halves < HALVES_MOST) {
        for (int32_t i = 0; i < POINTS / 2; i++) clock->points[i] = lower(clock, clock->points[2 * i], clock->points[2 * i + 1]);
        clock->count = POINTS / 2;
        clock->block_halves *= 2;
    } else if (clock->count == POINTS) {
        clock->count--;
        for (int32_t i = 0; i < clock->count; i++) clock->points[i] = clock->points[i + 1];
    }
    clock->points[clock->count++] = clock->wide;
    clock->wide_halves = 0;
}

/* At the end of half a second: fit, and bend the line so that it meets the fit in a while. */
static void bend(sage_clock *clock, int64_t samples) {
    point lowest = clock->least;
    clock->recent[clock->halves++ % RECENT] = clock->least;
    clock->wide = clock->wide_halves++ ? lower(clock, clock->wide, clock->least) : clock->least;
    if (clock->wide_halves >= clock->block_halves) {
        keep(clock);
        clock->slope = fit_slope(clock);
    }
    for (int64_t i = 0; i < clock->halves && i < RECENT; i++) lowest = lower(clock, clock->recent[i], lowest);
    clock->half = samples;
    clock->least_ns = INT64_MAX;
    int64_t now_ns = line_ns(&clock->line, samples);
    double left_ns = over_ns(clock, lowest, (point){samples, now_ns - nominal_ns(clock, samples)});
    clock->line = (line){samples, now_ns, period_ns(clock, clock->slope + clamp(left_ns / SLEW_S, SLEW_STEEPEST))};
}

/* What an arrival that is late_ns behind its line means for the arrivals that are all late. Nonzero: samples were lost. */
static int lost(sage_clock *clock, point arrival, int64_t t_ns, int64_t late_ns) {
    if (late_ns <= LATE_NS) {
        clock->late_sample = -1;
        return 0;
    }
    if (clock->late_sample < 0) {
        clock->late_sample = clock->samples;
        clock->late_since = t_ns;
        clock->late_least_ns = INT64_MAX;
    }
    if (late_ns < clock->late_least_ns) {
        clock->late_least_ns = late_ns;
        clock->late_least = arrival;
    }
    return t_ns - clock->late_since >= LOST_NS;
}

int32_t sage_clock_add(sage_clock *clock, int64_t samples, int64_t t_ns) {
    if (!clock) return SAGE_E_NULL;
    if (samples < 0 || samples < clock->samples || samples > MOST_SECONDS * clock->rate_hz) return SAGE_E_SIZE;
    if (t_ns < -LATEST || t_ns > LATEST) return SAGE_E_SIZE;
    if (samples == clock->samples) return SAGE_OK;
    point arrival = {samples, t_ns - nominal_ns(clock, samples)};
    if (!atomic_load_explicit(&clock->turn, memory_order_relaxed)) {
        begin(clock, arrival, samples);
        clock->before = clock->line;
        clock->samples = samples;
        show(clock);
        return SAGE_OK;
    }

    int64_t late_ns = t_ns - line_ns(&clock->line, samples);
    int changed = 0;
    if (late_ns < -EARLY_NS) {
        if (settled(clock)) {
            clock->before = clock->line;
            clock->since = clock->samples;
        }
        begin(clock, arrival, samples);
        clock->resets++;
        changed = 1;
    } else if (lost(clock, arrival, t_ns, late_ns)) {
        clock->before = clock->line;
        clock->since = clock->late_sample;
        begin(clock, clock->late_least, samples);
        clock->resets++;
        changed = 1;
    } else if (late_ns < 0 && !clock->halves) {
        clock->line.sample = samples;
        clock->line.t_ns = t_ns;
        clock->least = arrival;
        clock->least_ns = 0;
        changed = 1;
    } else if (late_ns < clock->least_ns) {
        clock->least = arrival;
        clock->least_ns = late_ns;
    }
    clock->samples = samples;
    if ((samples - clock->half) * 2 >= clock->rate_hz) {
        bend(clock, samples);
        changed = 1;
    }
    if (changed) show(clock);
    return SAGE_OK;
}

/* ---- Any thread */

/* A whole copy of what is shown; 0 when nothing is. */
static int look(const sage_clock *clock, line *l, line *before, sage_clock_state *state) {
    int64_t turn = atomic_load_explicit(&clock->turn, memory_order_acquire);
    for (;;) {
        if (!turn) return 0;
        const shown *from = &clock->shown[turn & 1];
        *l = seen_line(&from->line);
        *before = seen_line(&from->before);
        state->since = atomic_load_explicit(&from->since, memory_order_acquire);
        state->resets = atomic_load_explicit(&from->resets, memory_order_acquire);
        state->settled = atomic_load_explicit(&from->settled, memory_order_acquire);
        state->known = atomic_load_explicit(&from->known, memory_order_acquire);
        state->drift_ppb = atomic_load_explicit(&from->drift_ppb, memory_order_acquire);
        int64_t again = atomic_load_explicit(&clock->turn, memory_order_acquire);
        if (again == turn) return 1;
        turn = again;
    }
}

int32_t sage_clock_time(const sage_clock *clock, int64_t sample, int64_t *t_ns) {
    if (!clock || !t_ns) return SAGE_E_NULL;
    line present, before;
    sage_clock_state state;
    if (!look(clock, &present, &before, &state)) return SAGE_E_EMPTY;
    const line *l = sample < state.since ? &before : &present;
    double away_ns = ((double)sample - (double)l->sample) * l->period_ns;
    if (fabs(away_ns) > (double)LATEST) return SAGE_E_SIZE;
    *t_ns = l->t_ns + llround(away_ns);
    return SAGE_OK;
}

int32_t sage_clock_read(const sage_clock *clock, sage_clock_state *state) {
    if (!clock || !state) return SAGE_E_NULL;
    line present, before;
    if (!look(clock, &present, &before, state)) *state = (sage_clock_state){0, 0, 0, 0, 0};
    return SAGE_OK;
}

int32_t sage_clock_create(int32_t rate_hz, sage_clock **clock) {
    if (!clock) return SAGE_E_NULL;
    if (rate_hz < SAGE_RATE_MIN || rate_hz > SAGE_RATE_MAX) return SAGE_E_SIZE;
    sage_clock *made = calloc(1, sizeof *made);
    if (!made) return SAGE_E_MEMORY;
    made->rate_hz = rate_hz;
    made->late_sample = -1;
    *clock = made;
    return SAGE_OK;
}

void sage_clock_destroy(sage_clock *clock) { free(clock); }
