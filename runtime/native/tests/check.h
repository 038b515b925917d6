/* CHECK(condition): say where and what, and fail the program. RANDOM: a small generator, the same everywhere. */
#ifndef SAGE_CHECK_H
#define SAGE_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);     \
            exit(1);                                                            \
        }                                                                       \
    } while (0)

static inline uint32_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* 0 <= result < 1 */
static inline double next_fraction(uint64_t *state) { return next_random(state) / 2147483648.0; }

#endif
