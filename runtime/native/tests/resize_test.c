/* resize rounds the same average half up: exactly where cells are whole pixels, and elsewhere unless the average is next to a half. */
#include "crop_reference.h"

int main(void) {
    uint64_t random = 11;
    for (int k = 0; k < 200; k++) {
        int32_t format = k % 4, side = 2 + 2 * (int32_t)(next_random(&random) % 40), out_side = 1 + (int32_t)(next_random(&random) % 20);
        noise_frame frame = noise_frame_of(&random, format, side, side, k % 5);
        sage_box box = {next_fraction(&random) * side - 3, next_fraction(&random) * side - 3, 1 + next_fraction(&random) * side, 1 + next_fraction(&random) * side};
        int whole = k % 8 < 2 && format < SAGE_NV12;
        if (whole) box = (sage_box){floor(box.x), floor(box.y), out_side * (1.0 + next_random(&random) % 4), out_side * (1.0 + next_random(&random) % 6)};
        uint8_t *out = malloc(3 * (size_t)out_side * (size_t)out_side);
        CHECK(out && sage_resize(&frame.image, &box, out, out_side, out_side) == SAGE_OK);
        for (int32_t j = 0; j < out_side; j++)
            for (int32_t i = 0; i < out_side; i++) {
                double colour[3], w = box.width / out_side, h = box.height / out_side;
                reference_cell(&frame.image, box.x + w * i, box.y + h * j, box.x + w * (i + 1), box.y + h * (j + 1), colour);
                for (int c = 0; c < 3; c++) {
                    double half = fabs(colour[c] - floor(colour[c]) - 0.5);
                    int level = out[3 * (j * out_side + i) + c], expected = (int)floor(colour[c] + 0.5);
                    CHECK(level == expected || (!whole && half < 1e-3 && abs(level - expected) == 1));
                }
            }
        free(out);
        noise_frame_free(&frame);
    }
    /* 127.5 becomes 128, and a cell of 6 x 6 with half its pixels on is a half exactly. */
    uint8_t pixels[6 * 6 * 3], out[3];
    for (int i = 0; i < 6 * 6 * 3; i++) pixels[i] = (uint8_t)(i / 3 % 2);
    CHECK(sage_resize(&(sage_image){pixels, NULL, 18, 0, 6, 6, SAGE_RGB}, &(sage_box){0, 0, 6, 6}, out, 1, 1) == SAGE_OK);
    CHECK(out[0] == 1 && out[1] == 1 && out[2] == 1);
    return 0;
}
