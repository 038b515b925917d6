/* Any thread may ask while one adds: a time is always that of one whole line, and what is known only grows. */
#include <pthread.h>
#include <stdatomic.h>

#include "check.h"
#include "sage.h"

enum { RATE = 16000, TURNS = 200000, READERS = 2 };

static const int64_t PERIOD_NS = 62500, JUMP_NS = 3600000000000;

typedef struct {
    sage_clock *clock;
    atomic_int done;
} shared;

/* Each arrival comes hours before its time, so each makes a new line; at sample 0 all lines are whole hours, at any other mix of two they are not. */
static void *add(void *argument) {
    shared *s = argument;
    uint64_t random = 3;
    int64_t samples = 0;
    for (int64_t k = 0; k < TURNS; k++) {
        samples += 1 + next_random(&random) % 1000;
        CHECK(sage_clock_add(s->clock, samples, samples * PERIOD_NS - k * JUMP_NS) == SAGE_OK);
    }
    atomic_store(&s->done, 1);
    return NULL;
}

static void *ask(void *argument) {
    shared *s = argument;
    int64_t newest_ns = INT64_MAX, looks = 0, resets = 0;
    while (!atomic_load(&s->done)) {
        int64_t t_ns;
        sage_clock_state state;
        int32_t code = sage_clock_time(s->clock, 0, &t_ns);
        CHECK(code == SAGE_E_EMPTY || code == SAGE_OK);
        if (code) continue;
        CHECK(t_ns % JUMP_NS == 0 && t_ns <= newest_ns);
        newest_ns = t_ns;
        CHECK(sage_clock_read(s->clock, &state) == SAGE_OK);
        CHECK(state.resets >= resets && state.resets >= -newest_ns / JUMP_NS && state.since == 0);
        resets = state.resets;
        looks++;
    }
    printf("%lld looks beside the writer\n", (long long)looks);
    return NULL;
}

int main(void) {
    shared s = {.done = 0};
    pthread_t writer, readers[READERS];
    CHECK(sage_clock_create(RATE, &s.clock) == SAGE_OK);
    for (int k = 0; k < READERS; k++) CHECK(!pthread_create(&readers[k], NULL, ask, &s));
    CHECK(!pthread_create(&writer, NULL, add, &s));
    CHECK(!pthread_join(writer, NULL));
    for (int k = 0; k < READERS; k++) CHECK(!pthread_join(readers[k], NULL));
    int64_t t_ns;
    CHECK(sage_clock_time(s.clock, 0, &t_ns) == SAGE_OK && t_ns == -(TURNS - 1) * JUMP_NS);
    sage_clock_destroy(s.clock);
    return 0;
}
