/* libsage: the parts of sage-edge's loop that touch every pixel and every sample.
 *
 * Three things: an audio ring between two threads, a window of feature rows that is always one contiguous block, and a
 * face crop that averages, converts, normalises and lays out in one pass.
 *
 * Rules that hold for every function below
 *   Errors   A function that can fail returns 0 (SAGE_OK) or a negative code; functions that count return the count or a
 *            negative code. sage_strerror() names any code. Nothing is printed, nothing exits, errno is not touched. A
 *            function that fails has changed nothing, its output arguments included.
 *   Memory   Only the _create functions allocate. Everything else works in the caller's buffers and at most 48 KiB of stack.
 *            A handle belongs to its creator, who gives it to the matching _destroy once; _destroy(NULL) does nothing.
 *   Threads  Functions without a handle may be called from any thread at any time. Each handle's section says who may
 *            call what at the same time. There is no global state.
 *   Units    Samples are float32, mono. Pixels are uint8. Strides are in bytes. Sizes and indices never wrap: int64 samples.
 */
#ifndef SAGE_H
#define SAGE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define SAGE_API __declspec(dllexport)
#else
#define SAGE_API __attribute__((visibility("default")))
#endif

/* Raised whenever a prototype, a struct or a meaning below changes; a binding refuses any other. */
#define SAGE_ABI_VERSION 1

enum {
    SAGE_OK = 0,
    SAGE_E_NULL = -1,   /* a pointer that must not be NULL is NULL */
    SAGE_E_SIZE = -2,   /* a size, count or stride is not in its range */
    SAGE_E_FORMAT = -3, /* the pixel format is unknown */
    SAGE_E_BOX = -4,    /* the box is empty, not finite, or beyond SAGE_BOX_LIMIT */
    SAGE_E_NORM = -5,   /* mean or std is not finite, or std is not positive */
    SAGE_E_MEMORY = -6  /* not enough memory */
};

/* The version of this header that the library was built from. */
SAGE_API int32_t sage_abi_version(void);

/* One line for a code, "unknown error" for any other number. The string is static: never free it. */
SAGE_API const char *sage_strerror(int32_t code);

/* ---- Audio ring ---------------------------------------------------------------------------------------------------
 *
 * The last `capacity` samples of a stream, addressed by the absolute index of a sample since _create. One thread pushes
 * (the producer), one thread reads (the consumer); they may run at the same time and neither ever waits. _written may be
 * called by any thread. _create and _destroy must not overlap with anything.
 *
 * A push never fails for want of space: it overwrites the oldest samples. A read that finds its samples gone, or not yet
 * come, says so through its count and fills their place with zeros. To read while a producer runs, leave room: samples are
 * given up when the push that will overwrite them begins, so capacity >= longest read + longest delay + longest push.
 */
typedef struct sage_ring sage_ring;

#define SAGE_RING_MAX ((int64_t)1 << 30)

/* 1 <= capacity <= SAGE_RING_MAX. Errors: NULL, SIZE, MEMORY. */
SAGE_API int32_t sage_ring_create(int64_t capacity, sage_ring **ring);
SAGE_API void sage_ring_destroy(sage_ring *ring);

/* Producer. Append n >= 0 samples; samples == NULL appends n zeros. Returns how many samples this push overwrote that no
 * read had reached (an overrun), of the ring's older samples and of its own first ones. Errors: NULL, SIZE. */
SAGE_API int64_t sage_ring_push(sage_ring *ring, const float *samples, int64_t n);

/* Consumer. Copy samples start .. start + n - 1 to out [n]; start may be negative. Whatever the ring does not hold is
 * zero. Returns how many were held. What was pushed before the read and lies before start + n then counts as read. Errors:
 * NULL, SIZE. */
SAGE_API int64_t sage_ring_read(sage_ring *ring, int64_t start, float *out, int64_t n);

/* Any thread. Samples pushed since _create, which is the index of the next one. Errors: NULL. */
SAGE_API int64_t sage_ring_written(const sage_ring *ring);

/* ---- Feature window -----------------------------------------------------------------------------------------------
 *
 * The newest `rows` rows of `dim` floats, oldest first, in one contiguous block at every moment. Rows are kept twice in a
 * buffer of 2 * rows rows, so that sliding moves a pointer and copies one row. Rows never committed are zeros. A window
 * belongs to one thread at a time.
 */
typedef struct sage_window sage_window;

/* rows >= 1, dim >= 1, rows * dim <= 2^28. Errors: NULL, SIZE, MEMORY. */
SAGE_API int32_t sage_window_create(int32_t rows, int32_t dim, sage_window **window);
SAGE_API void sage_window_destroy(sage_window *window);

/* The whole buffer, [2 * rows, dim], 64-byte aligned; it lives as long as the window. NULL for NULL. */
SAGE_API float *sage_window_buffer(sage_window *window);

/* Row of the buffer where the block of the newest rows starts (0 .. rows - 1). The block is valid until the next commit or
 * skip. Errors: NULL. */
SAGE_API int32_t sage_window_start(const sage_window *window);

/* Row of the buffer to write the next row into; it lies outside the block, so the block stays whole until _commit.
 * Its old content is undefined. Errors: NULL. */
SAGE_API int32_t sage_window_slot(const sage_window *window);

/* Take the row in the slot as the newest. Errors: NULL. */
SAGE_API int32_t sage_window_commit(sage_window *window);

/* Append n >= 0 rows of zeros. Errors: NULL, SIZE. */
SAGE_API int32_t sage_window_skip(sage_window *window, int64_t n);

/* ---- Crop ---------------------------------------------------------------------------------------------------------
 *
 * out[c][j][i] = (mean over cell (i, j) of colour c / 255 - mean[c]) / std[c], c = R, G, B.
 *
 * The box is cut into out_width x out_height equal cells. The frame is taken as a function that is constant over each
 * pixel, pixel (i, j) covering [i, i + 1) x [j, j + 1), and continued outside by its nearest edge pixel; the mean of a
 * cell is the integral of that function over the cell divided by its area. So downscaling is an exact area average for
 * any real box, and upscaling (cells smaller than pixels) is exact by the same sentence.
 *
 * YUV formats: Y, U and V are each averaged (a chroma sample covers its 2 x 2 or 2 x 1 pixels), then converted by ITU-R
 * BT.601, limited range, and clamped to 0 .. 255.
 *
 * Computed in float32; within 1e-6 of the float64 definition, relative to the largest value. Which instructions are used
 * depends on the processor (AVX2 + FMA, NEON, plain C); their results agree within the same bound.
 */
enum {
    SAGE_RGB = 0,  /* data: [height, width, 3] */
    SAGE_BGR = 1,  /* data: [height, width, 3] */
    SAGE_NV12 = 2, /* data: Y [height, width]; chroma: UV [height / 2, width / 2, 2]; both sizes even */
    SAGE_YUYV = 3  /* data: [height, width / 2, 4] as Y0 U Y1 V; width even */
};

#define SAGE_SIDE_MAX 32768
#define SAGE_BOX_LIMIT 1048576.0      /* largest |x|, |y|, width, height of a box */
#define SAGE_BOX_LEAST (1.0 / 1024.0) /* smallest width, height of a box */

/* Borrowed for the call, only read. Rows are `stride` bytes apart, stride >= the bytes of a row. */
typedef struct {
    const uint8_t *data;
    const uint8_t *chroma; /* NV12 alone; else NULL */
    int64_t stride;
    int64_t chroma_stride; /* NV12 alone */
    int32_t width;         /* in pixels, 1 .. SAGE_SIDE_MAX */
    int32_t height;
    int32_t format;
} sage_image;

/* Left, top, width, height in pixels; may lie partly or wholly outside the frame. */
typedef struct {
    double x, y, width, height;
} sage_box;

/* Of values in 0 .. 1, in the order R, G, B. */
typedef struct {
    float mean[3];
    float std[3];
} sage_norm;

/* out: float32 [3, out_height, out_width], sides 1 .. SAGE_SIDE_MAX. Errors: NULL, SIZE, FORMAT, BOX, NORM. */
SAGE_API int32_t sage_crop(const sage_image *image, const sage_box *box, const sage_norm *norm, float *out,
                           int32_t out_width, int32_t out_height);

/* The same average as colours: out uint8 [out_height, out_width, 3] RGB, rounded half up. Errors: NULL, SIZE, FORMAT, BOX. */
SAGE_API int32_t sage_resize(const sage_image *image, const sage_box *box, uint8_t *out, int32_t out_width, int32_t out_height);

/* Instructions that crop and resize can use: bit 0 plain C (always), bit 1 AVX2 + FMA, bit 2 NEON. */
SAGE_API int32_t sage_crop_variants(void);

/* sage_crop with one chosen set of instructions, a single bit of the above: for tests and measurements. Errors: SIZE where
 * this processor or build lacks it, else those of sage_crop. */
SAGE_API int32_t sage_crop_with(int32_t variant, const sage_image *image, const sage_box *box, const sage_norm *norm, float *out,
                                int32_t out_width, int32_t out_height);

#ifdef __cplusplus
}
#endif

#endif
