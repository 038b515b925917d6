/* The block of the newest rows is contiguous, in order, zero where nothing came yet, and whole while the next row is written. */
#include <pthread.h>
#include <string.h>

#include "check.h"
#include "sage.h"

static float value(int64_t row, int32_t column) { return row < 0 ? 0.0f : (float)(row * 7 + column + 1); }

static void push(sage_window *window, int32_t dim, int64_t index) {
    float *row = sage_window_buffer(window) + (int64_t)sage_window_slot(window) * dim;
    for (int32_t c = 0; c < dim; c++) row[c] = value(index, c);
    CHECK(sage_window_commit(window) == SAGE_OK);
}

/* The block ends at row `newest`; from `zero_from` on its rows are zeros. */
static void block_is(sage_window *window, int32_t rows, int32_t dim, int64_t newest, int64_t zero_from) {
    const float *block = sage_window_buffer(window) + (int64_t)sage_window_start(window) * dim;
    for (int32_t r = 0; r < rows; r++)
        for (int32_t c = 0; c < dim; c++) {
            int64_t row = newest - rows + 1 + r;
            CHECK(block[r * dim + c] == (row >= zero_from ? 0.0f : value(row, c)));
        }
}

typedef struct {
    sage_window *window;
    pthread_mutex_t lock;
    int64_t newest;
} shared;

/* A window may move from thread to thread, one at a time. */
static void *push_some(void *argument) {
    shared *s = argument;
    for (int k = 0; k < 500; k++) {
        pthread_mutex_lock(&s->lock);
        push(s->window, 3, ++s->newest);
        block_is(s->window, 5, 3, s->newest, INT64_MAX);
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

int main(void) {
    for (int32_t rows = 1; rows <= 9; rows += 2)
        for (int32_t dim = 1; dim <= 40; dim += 13) {
            sage_window *window;
            CHECK(sage_window_create(rows, dim, &window) == SAGE_OK);
            CHECK((uintptr_t)sage_window_buffer(window) % 64 == 0);
            block_is(window, rows, dim, -1, INT64_MAX);
            int64_t newest = -1;
            for (int k = 0; k < 4 * rows + 3; k++) {
                float *row = sage_window_buffer(window) + (int64_t)sage_window_slot(window) * dim;
                memset(row, 0x7f, sizeof(float) * (size_t)dim);
                block_is(window, rows, dim, newest, INT64_MAX); /* writing into the slot left the block alone */
                push(window, dim, ++newest);
                block_is(window, rows, dim, newest, INT64_MAX);
            }
            for (int32_t n = 0; n <= rows; n++) {
                for (int32_t r = 0; r < rows; r++) push(window, dim, newest - rows + 1 + r);
                CHECK(sage_window_skip(window, n) == SAGE_OK);
                block_is(window, rows, dim, newest + n, newest + 1);
            }
            for (int32_t n = 0; n <= dim; n++) { /* a row of n floats, then zeros; from elsewhere, and from the slot itself */
                float row[64], *slot = sage_window_buffer(window) + (int64_t)sage_window_slot(window) * dim;
                for (int32_t c = 0; c < dim; c++) row[c] = slot[c] = value(n, c);
                CHECK(sage_window_push(window, n % 2 ? row : slot, n) == SAGE_OK);
                const float *block = sage_window_buffer(window) + (int64_t)sage_window_start(window) * dim;
                for (int32_t c = 0; c < dim; c++) CHECK(block[(rows - 1) * dim + c] == (c < n ? value(n, c) : 0.0f));
            }
            CHECK(sage_window_push(window, NULL, 0) == SAGE_OK);
            CHECK(sage_window_skip(window, INT64_MAX) == SAGE_OK);
            block_is(window, rows, dim, 0, INT64_MIN);
            sage_window_destroy(window);
        }

    shared s = {.newest = -1};
    pthread_t other;
    CHECK(sage_window_create(5, 3, &s.window) == SAGE_OK && !pthread_mutex_init(&s.lock, NULL));
    CHECK(!pthread_create(&other, NULL, push_some, &s));
    push_some(&s);
    CHECK(!pthread_join(other, NULL));
    CHECK(s.newest == 999);
    pthread_mutex_destroy(&s.lock);
    sage_window_destroy(s.window);
    return 0;
}
