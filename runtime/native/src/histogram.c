/* The latency histogram: every power of two is cut into 2^FINE bins. One writer, so a count goes up by a load and a store; the longest goes
 * before its bin, so that who finds it in the bin knows it. */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "sage.h"

enum { FINE = 6, TOP = 42, BINS = SAGE_HISTOGRAM_BINS };
_Static_assert(BINS == (TOP - FINE + 1) << FINE, "bins of all octaves");

struct sage_histogram {
    _Atomic(int64_t) count, total_ns, max_ns;
    _Atomic(int64_t) bins[BINS];
};

static int64_t get(const _Atomic(int64_t) *x) { return atomic_load_explicit(x, memory_order_relaxed); }

static void set(_Atomic(int64_t) *x, int64_t value) { atomic_store_explicit(x, value, memory_order_relaxed); }

/* The bin of a duration that is not negative: it is shifted right until it has FINE + 1 bits. */
static int64_t bin_of(int64_t ns) {
    int64_t shift = ns >> FINE ? 63 - FINE - __builtin_clzll((unsigned long long)ns) : 0;
    return shift > TOP - FINE - 1 ? BINS - 1 : (shift << FINE) + (ns >> shift);
}

int32_t sage_histogram_create(sage_histogram **histogram) {
    if (!histogram) return SAGE_E_NULL;
    sage_histogram *made = malloc(sizeof *made);
    if (!made) return SAGE_E_MEMORY;
    sage_histogram_clear(made);
    *histogram = made;
    return SAGE_OK;
}

void sage_histogram_destroy(sage_histogram *histogram) { free(histogram); }

int32_t sage_histogram_add(sage_histogram *histogram, int64_t ns) {
    if (!histogram) return SAGE_E_NULL;
    if (ns < 0) ns = 0;
    int64_t total = get(&histogram->total_ns), bin = bin_of(ns);
    if (ns > get(&histogram->max_ns)) atomic_store_explicit(&histogram->max_ns, ns, memory_order_release);
    atomic_store_explicit(&histogram->bins[bin], get(&histogram->bins[bin]) + 1, memory_order_release);
    set(&histogram->total_ns, ns > INT64_MAX - total ? INT64_MAX : total + ns);
    set(&histogram->count, get(&histogram->count) + 1);
    return SAGE_OK;
}

int32_t sage_histogram_clear(sage_histogram *histogram) {
    if (!histogram) return SAGE_E_NULL;
    for (int i = 0; i < BINS; i++) set(&histogram->bins[i], 0);
    set(&histogram->count, 0);
    set(&histogram->total_ns, 0);
    set(&histogram->max_ns, 0);
    return SAGE_OK;
}

int32_t sage_histogram_read(const sage_histogram *histogram, sage_histogram_totals *totals) {
    if (!histogram || !totals) return SAGE_E_NULL;
    *totals = (sage_histogram_totals){get(&histogram->count), get(&histogram->total_ns), get(&histogram->max_ns)};
    return SAGE_OK;
}

/* The least duration of a bin, and the greatest. */
static void edges_of(int64_t bin, int64_t edge[2]) {
    int64_t shift = bin >> FINE > 1 ? (bin >> FINE) - 1 : 0, low = bin - (shift << FINE);
    edge[0] = low << shift;
    edge[1] = ((low + 1) << shift) - 1;
}

/* The middle of the first bin, of `low` up to `top`, where something is and with all before it `share` of `count` is reached. */
static double middle_of(const int64_t *bins, int64_t low, int64_t top, int64_t count, double share, int64_t max_ns) {
    int64_t rank = (int64_t)ceil(share * (double)count), i = low, edge[2];
    for (int64_t seen = bins[i]; i < top && (!bins[i] || seen < rank);) seen += bins[++i];
    edges_of(i, edge);
    return fmin((double)(edge[0] + edge[1]) / 2, (double)max_ns);
}

int32_t sage_histogram_percentile(const sage_histogram *histogram, double share, double *ns) {
    if (!histogram || !ns) return SAGE_E_NULL;
    if (!(share >= 0 && share <= 1)) return SAGE_E_SIZE;
    int64_t bins[BINS], count = 0; /* a copy: beside a writer the bins would grow between sum and search */
    for (int i = 0; i < BINS; i++) count += bins[i] = atomic_load_explicit(&histogram->bins[i], memory_order_acquire);
    *ns = count ? middle_of(bins, 0, BINS - 1, count, share, get(&histogram->max_ns)) : 0;
    return SAGE_OK;
}

int32_t sage_percentiles(const int64_t *bins, const int64_t *before, int64_t max_ns, const double *shares, int32_t n, double *ns) {
    if (!bins || !shares || !ns) return SAGE_E_NULL;
    if (n < 0) return SAGE_E_SIZE;
    for (int32_t k = 0; k < n; k++)
        if (!(shares[k] >= 0 && shares[k] <= 1)) return SAGE_E_SIZE;
    int64_t since[BINS], count = 0, top = bin_of(max_ns < 0 ? 0 : max_ns), low = 0, last = top, edge[2];
    for (int64_t i = 0; i <= top; i++) count += since[i] = __atomic_load_n(&bins[i], __ATOMIC_RELAXED) - (before ? before[i] : 0);
    while (low < top && !since[low]) low++;
    for (int32_t k = 0; k < n; k++) ns[k] = count > 0 ? middle_of(since, low, top, count, shares[k], max_ns) : 0;
    while (last > 0 && !since[last]) last--;
    edges_of(last, edge);
    ns[n] = count <= 0 ? 0 : last == BINS - 1 || edge[1] > max_ns ? (double)max_ns : (double)edge[1];
    return SAGE_OK;
}
