/* The latency histogram: every power of two is cut into 2^FINE bins. One writer, so a count goes up by a load and a store; the longest goes
 * before its bin, so that who finds it in the bin knows it. */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "sage.h"

enum { FINE = 6, TOP = 42, BINS = (TOP - FINE + 1) << FINE };

struct sage_histogram {
    _Atomic(int64_t) count, total_ns, max_ns;
    _Atomic(int64_t) bins[BINS];
};

static int64_t get(const _Atomic(int64_t) *x) { return atomic_load_explicit(x, memory_order_relaxed); }

static void set(_Atomic(int64_t) *x, int64_t value) { atomic_store_explicit(x, value, memory_order_relaxed); }

/* How far a duration is shifted right to give its bin. */
static int64_t shift_of(int64_t ns) { return ns >> FINE ? 63 - FINE - __builtin_clzll((unsigned long long)ns) : 0; }

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
    int64_t total = get(&histogram->total_ns), shift = shift_of(ns);
    int64_t bin = shift > TOP - FINE - 1 ? BINS - 1 : (shift << FINE) + (ns >> shift);
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

int32_t sage_histogram_percentile(const sage_histogram *histogram, double share, double *ns) {
    if (!histogram || !ns) return SAGE_E_NULL;
    if (!(share >= 0 && share <= 1)) return SAGE_E_SIZE;
    int64_t bins[BINS], count = 0, seen = 0; /* a copy: beside a writer the bins would grow between sum and search */
    for (int i = 0; i < BINS; i++) count += bins[i] = atomic_load_explicit(&histogram->bins[i], memory_order_acquire);
    int64_t rank = (int64_t)ceil(share * (double)count);
    *ns = 0;
    for (int64_t i = 0; i < BINS; i++) {
        seen += bins[i];
        if (!bins[i] || seen < rank) continue;
        int64_t shift = i >> FINE > 1 ? (i >> FINE) - 1 : 0, low = i - (shift << FINE);
        *ns = fmin((double)((low << shift) + (((low + 1) << shift) - 1)) / 2, (double)get(&histogram->max_ns));
        break;
    }
    return SAGE_OK;
}
