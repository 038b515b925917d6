/* Outside the frame its nearest edge pixel continues: a box of a frame equals the same box of that frame with its border written out. */
#include <string.h>

#include "crop_reference.h"

enum { SIDE = 24, BORDER = 40, ROOM = SIDE + 2 * BORDER, OUT = 11 };

int main(void) {
    uint64_t random = 7;
    noise_frame frame = noise_frame_of(&random, SAGE_RGB, SIDE, SIDE, 0);
    uint8_t *larger = malloc(ROOM * ROOM * 3);
    CHECK(larger);
    for (int64_t j = 0; j < ROOM; j++)
        for (int64_t i = 0; i < ROOM; i++)
            memcpy(larger + 3 * (j * ROOM + i), frame.image.data + clamp_index(j - BORDER, SIDE) * frame.image.stride + 3 * clamp_index(i - BORDER, SIDE), 3);
    const sage_image room = {larger, NULL, ROOM * 3, 0, ROOM, ROOM, SAGE_RGB};
    for (int k = 0; k < 300; k++) {
        sage_box box = {next_fraction(&random) * 44 - 39, next_fraction(&random) * 44 - 39, 0.5 + next_fraction(&random) * 38, 0.5 + next_fraction(&random) * 38};
        sage_box shifted = {box.x + BORDER, box.y + BORDER, box.width, box.height};
        float a[3 * OUT * OUT], b[3 * OUT * OUT];
        CHECK(sage_crop(&frame.image, &box, &IMAGENET, a, OUT, OUT) == SAGE_OK && sage_crop(&room, &shifted, &IMAGENET, b, OUT, OUT) == SAGE_OK);
        for (int i = 0; i < 3 * OUT * OUT; i++) CHECK(fabsf(a[i] - b[i]) <= 2.5e-6f);
    }
    /* Far outside only one pixel is left. */
    float out[3 * OUT * OUT];
    CHECK(sage_crop(&frame.image, &(sage_box){1e6, -1e6, 1e3, 1e3}, &IMAGENET, out, OUT, OUT) == SAGE_OK);
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < OUT * OUT; i++)
            CHECK(fabs((double)out[c * OUT * OUT + i] - ((double)frame.image.data[3 * (SIDE - 1) + c] / 255 - (double)IMAGENET.mean[c]) / (double)IMAGENET.std[c]) <= 2.5e-6);
    free(larger);
    noise_frame_free(&frame);
    return 0;
}
