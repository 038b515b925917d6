/* The feature window: every row lies at p and at p + rows, so the newest rows are one block wherever they start. */
#include <stdlib.h>
#include <string.h>

#include "sage.h"

struct sage_window {
    int32_t rows, dim;
    int32_t next; /* 0 .. rows - 1: where the block starts, and, rows further, where the next row goes */
    float *buffer;
};

int32_t sage_window_create(int32_t rows, int32_t dim, sage_window **window) {
    if (!window) return SAGE_E_NULL;
    if (rows < 1 || dim < 1 || (int64_t)rows * dim > (int64_t)1 << 28) return SAGE_E_SIZE;
    size_t bytes = (2 * (size_t)rows * (size_t)dim * sizeof(float) + 63) / 64 * 64;
    sage_window *made = malloc(sizeof *made);
    float *buffer = aligned_alloc(64, bytes);
    if (!made || !buffer) {
        free(made);
        free(buffer);
        return SAGE_E_MEMORY;
    }
    memset(buffer, 0, bytes);
    *made = (sage_window){.rows = rows, .dim = dim, .next = 0, .buffer = buffer};
    *window = made;
    return SAGE_OK;
}

void sage_window_destroy(sage_window *window) {
    if (!window) return;
    free(window->buffer);
    free(window);
}

float *sage_window_buffer(sage_window *window) { return window ? window->buffer : NULL; }

int32_t sage_window_start(const sage_window *window) { return window ? window->next : SAGE_E_NULL; }

int32_t sage_window_slot(const sage_window *window) { return window ? window->next + window->rows : SAGE_E_NULL; }

int32_t sage_window_commit(sage_window *window) {
    if (!window) return SAGE_E_NULL;
    size_t dim = (size_t)window->dim;
    float *row = window->buffer + (size_t)window->next * dim;
    memcpy(row, row + (size_t)window->rows * dim, dim * sizeof *row);
    window->next = window->next + 1 == window->rows ? 0 : window->next + 1;
    return SAGE_OK;
}

int32_t sage_window_push(sage_window *window, const float *row, int32_t n) {
    if (!window || (!row && n)) return SAGE_E_NULL;
    if (n < 0 || n > window->dim) return SAGE_E_SIZE;
    float *slot = window->buffer + ((size_t)window->next + (size_t)window->rows) * (size_t)window->dim;
    if (n) memmove(slot, row, (size_t)n * sizeof *slot);
    memset(slot + n, 0, (size_t)(window->dim - n) * sizeof *slot);
    return sage_window_commit(window);
}

int32_t sage_window_skip(sage_window *window, int64_t n) {
    if (!window) return SAGE_E_NULL;
    if (n < 0) return SAGE_E_SIZE;
    size_t dim = (size_t)window->dim;
    for (int64_t left = n < window->rows ? n : window->rows; left > 0; left--) {
        memset(window->buffer + ((size_t)window->next + (size_t)window->rows) * dim, 0, dim * sizeof(float));
        sage_window_commit(window);
    }
    return SAGE_OK;
}
