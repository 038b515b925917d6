/* Values out of the bytes that libFuzzer gives, zeros when they have run out. HOLDS(condition): what must be so, or the input is kept. */
#ifndef SAGE_FUZZ_BYTES_H
#define SAGE_FUZZ_BYTES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOLDS(condition)                                                    \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                        \
        }                                                                   \
    } while (0)

typedef struct {
    const uint8_t *data;
    size_t size;
} bytes;

static inline void take(bytes *from, void *to, size_t n) {
    size_t some = n < from->size ? n : from->size;
    memset(to, 0, n);
    if (some) memcpy(to, from->data, some);
    from->data += some;
    from->size -= some;
}

static inline int64_t take_int64(bytes *from) {
    int64_t value;
    take(from, &value, sizeof value);
    return value;
}

static inline double take_double(bytes *from) {
    double value;
    take(from, &value, sizeof value);
    return value;
}

/* low .. high */
static inline int32_t take_between(bytes *from, int32_t low, int32_t high) {
    uint16_t value;
    take(from, &value, sizeof value);
    return low + value % (high - low + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
