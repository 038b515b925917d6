/* Percentiles are right to 1.6 percent whatever was counted, totals are exact, and a thread that asks while another adds gets durations that were added. */
#include <math.h>
#include <pthread.h>

#include "check.h"
#include "sage.h"

enum { MOST = 400, TOTAL = 100000 };

static int ascending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static sage_histogram_totals totals_of(const sage_histogram *histogram) {
    sage_histogram_totals totals;
    CHECK(sage_histogram_read(histogram, &totals) == SAGE_OK);
    return totals;
}

static double percentile(const sage_histogram *histogram, double share) {
    double ns;
    CHECK(sage_histogram_percentile(histogram, share, &ns) == SAGE_OK);
    return ns;
}

/* Bins of a caller: durations of one in each octave, then the same and one more since. */
static void bins_of_a_caller(void) {
    static int64_t bins[SAGE_HISTOGRAM_BINS], before[SAGE_HISTOGRAM_BINS];
    const double shares[3] = {0, 0.5, 1};
    double ns[4];
    CHECK(sage_percentiles(bins, NULL, 0, shares, 3, ns) == SAGE_OK && !ns[0] && !ns[1] && !ns[2] && !ns[3]);
    bins[0] = bins[63] = bins[64] = 1; /* 0, 63 and 64 ns */
    CHECK(sage_percentiles(bins, NULL, 64, shares, 3, ns) == SAGE_OK && ns[0] == 0 && ns[1] == 63 && ns[2] == 64 && ns[3] == 64);
    for (int i = 0; i < SAGE_HISTOGRAM_BINS; i++) before[i] = bins[i];
    CHECK(sage_percentiles(bins, before, 64, shares, 3, ns) == SAGE_OK && !ns[0] && !ns[1] && !ns[2] && !ns[3]);
    bins[128] += 1; /* 128 or 129 ns */
    CHECK(sage_percentiles(bins, before, 200, shares, 3, ns) == SAGE_OK && ns[0] == 128.5 && ns[1] == 128.5 && ns[3] == 129);
    CHECK(sage_percentiles(bins, before, 128, shares, 3, ns) == SAGE_OK && ns[0] == 128 && ns[3] == 128);
    bins[SAGE_HISTOGRAM_BINS - 1] += 1;
    CHECK(sage_percentiles(bins, before, INT64_MAX, shares, 3, ns) == SAGE_OK && ns[0] == 128.5 && ns[2] >= ldexp(0.98, 42) && ns[3] == (double)INT64_MAX);
    CHECK(sage_percentiles(before, bins, 200, shares, 3, ns) == SAGE_OK && !ns[0] && !ns[3]); /* more before than now */
    before[1] = 9; /* and here and there */
    CHECK(sage_percentiles(bins, before, INT64_MAX, shares, 3, ns) == SAGE_OK);
}

static void *add(void *histogram) {
    for (int64_t k = 0; k < TOTAL; k++) CHECK(sage_histogram_add(histogram, k % 2 ? 1000 : 3000000) == SAGE_OK);
    return NULL;
}

int main(void) {
    sage_histogram *histogram;
    uint64_t random = 1;
    bins_of_a_caller();
    CHECK(sage_histogram_create(&histogram) == SAGE_OK);
    CHECK(percentile(histogram, 0.5) == 0 && totals_of(histogram).count == 0);
    for (int turn = 0; turn < 200; turn++) {
        int64_t values[MOST], n = 1 + next_random(&random) % MOST, total = 0;
        CHECK(sage_histogram_clear(histogram) == SAGE_OK);
        for (int64_t k = 0; k < n; k++) {
            values[k] = (int64_t)(next_fraction(&random) * (double)((int64_t)1 << next_random(&random) % 42));
            CHECK(sage_histogram_add(histogram, values[k]) == SAGE_OK);
            total += values[k];
        }
        qsort(values, (size_t)n, sizeof *values, ascending);
        sage_histogram_totals totals = totals_of(histogram);
        CHECK(totals.count == n && totals.total_ns == total && totals.max_ns == values[n - 1]);
        for (int share = 0; share <= 100; share++) {
            int64_t rank = (int64_t)ceil(share / 100.0 * (double)n);
            double exact = (double)values[rank > 0 ? rank - 1 : 0], ns = percentile(histogram, share / 100.0);
            CHECK(fabs(ns - exact) <= fmax(1, 0.016 * exact) && ns <= (double)values[n - 1]);
        }
    }
    CHECK(sage_histogram_clear(histogram) == SAGE_OK && sage_histogram_add(histogram, INT64_MAX) == SAGE_OK && sage_histogram_add(histogram, -9) == SAGE_OK);
    CHECK(totals_of(histogram).total_ns == INT64_MAX && totals_of(histogram).max_ns == INT64_MAX && percentile(histogram, 0.5) == 0);
    CHECK(percentile(histogram, 1) >= ldexp(0.98, 42) && sage_histogram_add(histogram, INT64_MAX) == SAGE_OK && totals_of(histogram).total_ns == INT64_MAX);

    CHECK(sage_histogram_clear(histogram) == SAGE_OK);
    pthread_t writer;
    CHECK(!pthread_create(&writer, NULL, add, histogram));
    for (int64_t count = 0; count < TOTAL;) {
        sage_histogram_totals totals = totals_of(histogram);
        double high = percentile(histogram, 1), low = percentile(histogram, 0.25);
        CHECK(totals.count >= count && totals.count <= TOTAL);
        CHECK(count == 0 || (fabs(high - 3e6) < 48000 && (fabs(low - 3e6) < 48000 || fabs(low - 1000) < 16)));
        count = totals.count;
    }
    CHECK(!pthread_join(writer, NULL));
    CHECK(totals_of(histogram).total_ns == TOTAL / 2 * (int64_t)3001000);
    sage_histogram_destroy(histogram);
    return 0;
}
