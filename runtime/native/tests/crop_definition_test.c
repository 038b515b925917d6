/* Any format, frame, box and output size: within 1e-6 of the definition, with every set of instructions, and nothing else is written. */
#include "crop_reference.h"

enum { GUARD = 64 };

static void compare(const sage_image *image, const sage_box *box, int32_t width, int32_t height) {
    int64_t size = 3 * (int64_t)width * height;
    float *memory = malloc((size_t)(size + 2 * GUARD) * sizeof *memory), *out = memory + GUARD;
    CHECK(memory);
    for (int32_t variant = 1; variant <= 4; variant <<= 1) {
        if (!(sage_crop_variants() & variant)) continue;
        for (int64_t k = 0; k < size + 2 * GUARD; k++) memory[k] = -12345.0f;
        CHECK(sage_crop_with(variant, image, box, &IMAGENET, out, width, height) == SAGE_OK);
        double error = reference_error(image, box, &IMAGENET, out, width, height);
        if (!(error <= 1e-6)) {
            fprintf(stderr, "variant %d format %d %dx%d box %.17g %.17g %.17g %.17g -> %dx%d: %g\n", variant, image->format, image->width,
                    image->height, box->x, box->y, box->width, box->height, width, height, error);
            exit(1);
        }
        for (int64_t k = 0; k < GUARD; k++) CHECK(memory[k] == -12345.0f && out[size + k] == -12345.0f);
    }
    free(memory);
}

int main(void) {
    uint64_t random = 5;
    CHECK(sage_crop_variants() & 1);
    for (int k = 0; k < 240; k++) {
        int32_t format = k % 4, width = 2 + 2 * (int32_t)(next_random(&random) % 60), height = 2 + 2 * (int32_t)(next_random(&random) % 40);
        noise_frame frame = noise_frame_of(&random, format, width, height, next_random(&random) % 9);
        int whole = next_random(&random) % 4 == 0; /* boxes on whole pixels too */
        double reach = k % 3 ? 1.2 : 0.05;
        sage_box box = {(next_fraction(&random) * 1.6 - 0.5) * width, (next_fraction(&random) * 1.6 - 0.5) * height,
                        0.01 + next_fraction(&random) * reach * width, 0.01 + next_fraction(&random) * reach * height};
        if (whole) box = (sage_box){floor(box.x), floor(box.y), ceil(box.width), ceil(box.height)};
        compare(&frame.image, &box, 1 + (int32_t)(next_random(&random) % 60), 1 + (int32_t)(next_random(&random) % 30));
        noise_frame_free(&frame);
    }

    /* Cells of which most lies beside the frame: one column weighs as much as all others together. */
    for (int k = 0; k < 200; k++) {
        int32_t side = 50 + (int32_t)(next_random(&random) % 16);
        noise_frame frame = noise_frame_of(&random, k % 2, side, 8, 0);
        double size = side * (2 + 4 * next_fraction(&random)), x = next_fraction(&random) * 4;
        compare(&frame.image, &(sage_box){k % 4 < 2 ? x : side - size - x, next_fraction(&random) * 8, size, 4}, 1, 1);
        noise_frame_free(&frame);
    }

    /* Cells of many columns, nearly all of one colour: what every sum is rounded by has one direction then. */
    for (int k = 0; k < 400; k++) {
        noise_frame frame = noise_frame_of(&random, k % 4, 160, 60, 0);
        int32_t components = k % 4 < SAGE_NV12 ? 3 : k % 4 == SAGE_NV12 ? 1 : 4;
        uint8_t level[6];
        for (int c = 0; c < 6; c++) level[c] = (uint8_t)(next_random(&random) % 250);
        for (int64_t i = 0; i < frame.image.stride * 60; i++) frame.memory[0][i] = (uint8_t)(level[i % components] + frame.memory[0][i] / 224);
        for (int64_t i = 0; i < frame.image.chroma_stride * 30; i++) frame.memory[1][i] = (uint8_t)(level[4 + i % 2] + frame.memory[1][i] / 224);
        sage_box box = {next_fraction(&random) * 9, next_fraction(&random) * 9, 140 - next_fraction(&random), 40 - next_fraction(&random)};
        compare(&frame.image, &box, 1, 1);
        noise_frame_free(&frame);
    }

    /* Cells wider than a line of scratch, outputs wider than a strip, and more rows than 16 bits can add. */
    noise_frame wide = noise_frame_of(&random, SAGE_RGB, 4099, 3, 1);
    compare(&wide.image, &(sage_box){0.25, 0.5, 4098.5, 2.25}, 1, 1);
    compare(&wide.image, &(sage_box){1.25, 0.5, 4096.0, 2.25}, 3, 1);
    compare(&wide.image, &(sage_box){-2.5, 0, 4102.75, 3}, 300, 2);
    compare(&wide.image, &(sage_box){0.5, 0, 2048.5, 3}, 1, 1);
    noise_frame_free(&wide);
    noise_frame tall = noise_frame_of(&random, SAGE_BGR, 40, 1200, 0);
    compare(&tall.image, &(sage_box){0.25, 0.5, 39.5, 1199}, 2, 1);
    for (int64_t k = 0; k < 40 * 3 * 1200; k++) tall.memory[0][k] = 255;
    compare(&tall.image, &(sage_box){0.25, 0.5, 39.5, 1199}, 2, 1);
    compare(&tall.image, &(sage_box){0, 0, 40, 1028}, 4, 2);
    noise_frame_free(&tall);
    noise_frame yuyv = noise_frame_of(&random, SAGE_YUYV, 4200, 2, 0);
    compare(&yuyv.image, &(sage_box){3.5, 0.5, 4190, 1.5}, 1, 1);
    noise_frame_free(&yuyv);
    return 0;
}
