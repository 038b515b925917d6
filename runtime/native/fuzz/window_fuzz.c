/* Commits, pushes and skips in any order: the block always holds the newest rows, oldest first, and the slot lies outside it. */
#include "bytes.h"
#include "sage.h"

enum { MOST = 4000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    bytes from = {data, size};
    int32_t rows = take_between(&from, -1, 40), dim = take_between(&from, -1, 9);
    sage_window *window = NULL;
    int32_t code = sage_window_create(rows, dim, &window);
    HOLDS(code == (rows < 1 || dim < 1 ? SAGE_E_SIZE : SAGE_OK) && !window == !!code);
    float history[MOST] = {0}; /* of each row its number, or 0 */
    int32_t count = 0;
    while (window && from.size && count < MOST - 200) {
        float *buffer = sage_window_buffer(window);
        if (take_between(&from, 0, 3)) {
            int32_t slot = sage_window_slot(window), start = sage_window_start(window);
            HOLDS(slot >= 0 && slot < 2 * rows && (slot < start || slot >= start + rows));
            for (int32_t k = 0; k < dim; k++) buffer[(int64_t)slot * dim + k] = (float)(count + 1 + k);
            float *row = buffer + (int64_t)slot * dim;
            int32_t n = take_between(&from, -1, dim + 1);
            code = sage_window_push(window, row, n < 0 || n > dim ? n : dim);
            HOLDS(code == (n < 0 || n > dim ? SAGE_E_SIZE : SAGE_OK));
            if (code) HOLDS(sage_window_commit(window) == SAGE_OK);
            history[count] = (float)(count + 1);
            count++;
        } else {
            int64_t n = take_between(&from, 0, 7) ? take_between(&from, 0, 100) : take_int64(&from);
            if (n > 100) n = n % 100;
            code = sage_window_skip(window, n);
            HOLDS(code == (n < 0 ? SAGE_E_SIZE : SAGE_OK));
            if (n > 0) count += (int32_t)n;
        }
        const float *block = buffer + (int64_t)sage_window_start(window) * dim;
        for (int32_t i = 0; i < rows; i++) {
            int32_t number = count - rows + i;
            for (int32_t k = 0; k < dim; k++) HOLDS(block[i * dim + k] == (number >= 0 && history[number] > 0 ? history[number] + (float)k : 0.0f));
        }
    }
    sage_window_destroy(window);
    return 0;
}
