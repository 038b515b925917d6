/* Arrivals of any kind: an error changes nothing; in one line later samples are later, and its rate is a crystal's. */
#include "bytes.h"
#include "sage.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    bytes from = {data, size};
    int32_t rate = take_between(&from, 0, 7) ? 16000 : (int32_t)take_int64(&from);
    sage_clock *clock = NULL;
    int32_t code = sage_clock_create(rate, &clock);
    HOLDS(code == (rate < SAGE_RATE_MIN || rate > SAGE_RATE_MAX ? SAGE_E_SIZE : SAGE_OK) && !clock == !!code);
    int64_t samples = 0, now_ns = 0, times[2];
    sage_clock_state state, after;
    if (clock) HOLDS(sage_clock_time(clock, 0, times) == SAGE_E_EMPTY);
    while (clock && from.size) {
        HOLDS(sage_clock_read(clock, &state) == SAGE_OK);
        int64_t n, t_ns;
        if (take_between(&from, 0, 15)) { /* as a device does: a chunk, a little late */
            n = samples + take_between(&from, 0, 2000);
            t_ns = now_ns + take_between(&from, 0, 2000) * (int64_t)100000 - (take_between(&from, 0, 15) ? 0 : (int64_t)400000000);
        } else {
            n = take_int64(&from);
            t_ns = take_int64(&from);
        }
        code = sage_clock_add(clock, n, t_ns);
        HOLDS(code == SAGE_OK || code == SAGE_E_SIZE);
        HOLDS(sage_clock_read(clock, &after) == SAGE_OK);
        if (code) {
            HOLDS(!memcmp(&state, &after, sizeof state));
            continue;
        }
        HOLDS(n >= samples && after.resets >= state.resets && after.known >= state.known && after.since <= n);
        HOLDS(after.drift_ppb > -2000000 && after.drift_ppb < 2000000);
        now_ns = n > samples ? t_ns : now_ns;
        samples = n;
        if (!samples) continue;
        for (int32_t k = 0; k < 3; k++) {
            int64_t sample = k == 0 ? samples : k == 1 ? after.since : take_int64(&from);
            if (sample == INT64_MAX || sample + 1 == after.since) continue;
            code = sage_clock_time(clock, sample, &times[0]);
            HOLDS(code == SAGE_OK || code == SAGE_E_SIZE);
            if (!code && !sage_clock_time(clock, sample + 1, &times[1])) HOLDS(times[1] > times[0]);
        }
    }
    sage_clock_destroy(clock);
    return 0;
}
