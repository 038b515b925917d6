/* libsage: the parts of sage-edge's loop that touch every pixel and every sample.
 *
 * An audio ring between two threads; a clock that fits times to samples; a capture that joins both behind PortAudio's
 * callback; a slot that holds the newest frame; a histogram of durations; a window of feature rows that is always one
 * contiguous block; a face crop that averages, converts, normalises and lays out in one pass.
 *
 * Rules that hold for every function below
 *   Errors   A function that can fail returns 0 (SAGE_OK) or a negative code; functions that count return the count or a
 *            negative code. sage_strerror() names any code. Nothing is printed, nothing exits, errno is not touched. A
 *            function that fails has changed nothing, its output arguments included.
 *   Memory   Only the _create functions allocate. Everything else works in the caller's buffers and at most 48 KiB of stack.
 *            A handle belongs to its creator, who gives it to the matching _destroy once; _destroy(NULL) does nothing.
 *   Threads  Functions without a handle may be called from any thread at any time. Each handle's section says who may
 *            call what at the same time. There is no global state.
 *   Units    Samples are float32, mono. Pixels are uint8. Strides are in bytes. Times are int64 nanoseconds of CLOCK_MONOTONIC,
 *            or of any clock that the caller feeds instead. Sizes and indices never wrap: int64 samples.
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
#define SAGE_ABI_VERSION 4

enum {
    SAGE_OK = 0,
    SAGE_E_NULL = -1,   /* a pointer that must not be NULL is NULL */
    SAGE_E_SIZE = -2,   /* a size, count or stride is not in its range */
    SAGE_E_FORMAT = -3, /* the format of pixels or samples is unknown */
    SAGE_E_BOX = -4,    /* the box is empty, not finite, or beyond SAGE_BOX_LIMIT */
    SAGE_E_NORM = -5,   /* mean or std is not finite, or std is not positive */
    SAGE_E_MEMORY = -6, /* not enough memory */
    SAGE_E_EMPTY = -7   /* nothing has come yet */
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

/* ---- Sample clock -------------------------------------------------------------------------------------------------
 *
 * When was sample k recorded? A device counts samples by a clock of its own, and what it recorded arrives late: by nothing
 * now and then, by some milliseconds mostly, by half a second in bursts; never early. So a straight line is fitted under the
 * arrivals: below all of them and as near to them as it can be (Moon, Skelly and Towsley, "Estimation and removal of clock
 * skew from network delay measurements", 1999). Its height comes from the last half minute, its slope from up to 17 minutes,
 * and as long as the delays are too coarse to tell, from what is known of crystals. Its time is the true one plus the least
 * delay of the device, which nothing here can know; a delay that changes for good is followed within a minute.
 *
 * The line bends twice a second, and has no step after its first half second. It begins anew, a reset, when arrivals jump:
 * when one comes more than 50 ms before its time, or when all that came for a second were more than 40 ms late (samples were
 * lost). Samples before the jump keep their times, unless a line that was not settled was found to be too late: that one was
 * wrong from its beginning. The drift that was found survives a reset.
 *
 * One thread calls _add (the writer); _time and _read may be called by any thread at any time and never wait for the
 * writer. _create and _destroy must not overlap with anything.
 */
typedef struct sage_clock sage_clock;

#define SAGE_RATE_MIN 1000
#define SAGE_RATE_MAX 1000000

typedef struct {
    int64_t since;     /* the first sample that the present line holds for; those before it keep the line before it */
    int64_t resets;    /* times that the line began anew */
    int64_t settled;   /* 1 when the line rests on 10 s of arrivals without a reset */
    int64_t known;     /* 1 since arrivals told the drift to some ppm: within a minute of plain jitter, or minutes of coarse delays */
    int64_t drift_ppb; /* how much faster than rate_hz the samples come, of 10^9, as they last told it; 0 before */
} sage_clock_state;

/* SAGE_RATE_MIN <= rate_hz <= SAGE_RATE_MAX: what the device says of itself. Errors: NULL, SIZE, MEMORY. */
SAGE_API int32_t sage_clock_create(int32_t rate_hz, sage_clock **clock);
SAGE_API void sage_clock_destroy(sage_clock *clock);

/* Writer. `samples` samples had come, counted from _create, when the newest of them arrived at t_ns. A call with no more
 * samples than before says nothing and is left out. Errors: NULL; SIZE when samples is negative, less than before, or worth more
 * than 68 years, and when t_ns is beyond +-2^61. */
SAGE_API int32_t sage_clock_add(sage_clock *clock, int64_t samples, int64_t t_ns);

/* Any thread. The time at which sample `sample` begins, past or yet to come. Errors: NULL; SIZE when that is more than 73 years
 * away; EMPTY before the first _add. */
SAGE_API int32_t sage_clock_time(const sage_clock *clock, int64_t sample, int64_t *t_ns);

/* Any thread. Errors: NULL. */
SAGE_API int32_t sage_clock_read(const sage_clock *clock, sage_clock_state *state);

/* ---- Latency histogram --------------------------------------------------------------------------------------------
 *
 * Counts of durations, of one size however many there are: every power of two is cut into 64 bins, so a percentile is right
 * to 1.6 percent. Longer than 2^42 ns (73 minutes) counts as that, but for the maximum and the sum.
 *
 * One thread calls _add and _clear (the writer); _read and _percentile may be called by any thread at any time. Beside a
 * writer, what is added meanwhile may be in some of their numbers and not yet in others.
 */
typedef struct sage_histogram sage_histogram;

typedef struct {
    int64_t count;
    int64_t total_ns;
    int64_t max_ns;
} sage_histogram_totals;

/* Errors: NULL, MEMORY. */
SAGE_API int32_t sage_histogram_create(sage_histogram **histogram);
SAGE_API void sage_histogram_destroy(sage_histogram *histogram);

/* Writer. Count one duration; a negative one counts as 0. Errors: NULL. */
SAGE_API int32_t sage_histogram_add(sage_histogram *histogram, int64_t ns);

/* Writer. Forget everything. Errors: NULL. */
SAGE_API int32_t sage_histogram_clear(sage_histogram *histogram);

/* Any thread. Errors: NULL. */
SAGE_API int32_t sage_histogram_read(const sage_histogram *histogram, sage_histogram_totals *totals);

/* Any thread. The duration that `share` of all counted ones do not exceed: the middle of its bin; 0 when nothing was counted.
 * Errors: NULL; SIZE when share is not in 0 .. 1. */
SAGE_API int32_t sage_histogram_percentile(const sage_histogram *histogram, double share, double *ns);

/* The same of bins that the caller counts in, as _add does: a duration of less than 64 ns in the bin of that number, others in bin
 * 64 * shift + (ns >> shift), where ns >> shift is 64 .. 127, and what is too long in the last. Where `before` is not NULL, of what came since the
 * bins were like that. `max_ns` is the longest of all. Writes n percentiles, then the longest, right to a bin; 0 where nothing was counted.
 * Any thread. Errors: NULL; SIZE when a share is not in 0 .. 1, or n is below 0. */
#define SAGE_HISTOGRAM_BINS 2368
SAGE_API int32_t sage_percentiles(const int64_t *bins, const int64_t *before, int64_t max_ns, const double *shares, int32_t n, double *ns);

/* ---- Audio capture ------------------------------------------------------------------------------------------------
 *
 * A ring, a sample clock and counters behind a callback of PortAudio's signature: give sage_capture_callback to
 * Pa_OpenStream as its streamCallback, and the capture as its userData. What the device gives (interleaved int16 or
 * float32) goes into the ring as float32 mono: the mean of the channels, int16 divided by 32768. Nothing is clipped, NaN
 * stays NaN.
 *
 * One thread calls _callback or _feed (the audio thread), one thread calls _read (the consumer); they never wait for each
 * other. _written, _time, _clock and _stats may be called by any thread at any time. _create and _destroy must not overlap with
 * anything: stop the stream before _destroy.
 *
 *     sage_capture *capture;
 *     sage_capture_create(SAGE_INT16, 1, 48000, 10 * 48000, &capture);
 *     Pa_OpenStream(&stream, &device, NULL, 48000, 0, paNoFlag, (PaStreamCallback *)sage_capture_callback, capture);
 *     Pa_StartStream(stream);
 *     for (int64_t at = 0, n, t_ns;; at += n) {
 *         n = sage_capture_written(capture) - at;
 *         if (n > 4800) n = 4800;
 *         if (!n) wait a little;
 *         else if (sage_capture_read(capture, at, samples, n) == n && !sage_capture_time(capture, at, &t_ns)) use them;
 *     }
 *     Pa_CloseStream(stream);
 *     sage_capture_destroy(capture);
 */
typedef struct sage_capture sage_capture;

enum {
    SAGE_INT16 = 0,
    SAGE_FLOAT32 = 1
};

#define SAGE_CHANNELS_MAX 64

typedef struct {
    int64_t calls;            /* of the callback */
    int64_t samples;          /* that it was given, per channel; the index of the next one */
    int64_t overruns;         /* samples that no read had reached when newer ones took their place */
    int64_t input_overflows;  /* calls with paInputOverflow: the device lost samples before this one */
    int64_t input_underflows; /* calls with paInputUnderflow: the device put in silence */
    int64_t last_call_ns;     /* when the newest call came; 0 before the first */
    int64_t longest_gap_ns;   /* between two calls */
    int64_t lateness_p50_ns;  /* how long after the fitted time of its last sample a call came; 0 before the first */
    int64_t lateness_p99_ns;
} sage_capture_statistics;

/* format: SAGE_INT16 or SAGE_FLOAT32; 1 <= channels <= SAGE_CHANNELS_MAX; rate_hz as of sage_clock_create, capacity as of
 * sage_ring_create. Errors: NULL, FORMAT, SIZE, MEMORY. */
SAGE_API int32_t sage_capture_create(int32_t format, int32_t channels, int32_t rate_hz, int64_t capacity, sage_capture **capture);
SAGE_API void sage_capture_destroy(sage_capture *capture);

/* Audio thread. A PaStreamCallback; cast it to one, for this header does not know PortAudio's types. `output` and `time_info` are
 * not looked at (PortAudio's times are of another clock on some hosts): the time of the call is read from CLOCK_MONOTONIC.
 * input == NULL is silence. Returns paContinue (0); paAbort (2) when capture is NULL. A call with more than SAGE_RING_MAX frames
 * is left out. */
SAGE_API int sage_capture_callback(const void *input, void *output, unsigned long frames, const void *time_info,
                                   unsigned long flags, void *capture);

/* Audio thread. The same with the time of the call given: for sources that are no PortAudio, and for simulated time. `flags` are
 * PaStreamCallbackFlags. Returns how many samples were overrun by it. Errors: NULL; SIZE when frames is not in 0 .. SAGE_RING_MAX, and
 * as of sage_clock_add. */
SAGE_API int64_t sage_capture_feed(sage_capture *capture, const void *input, int64_t frames, uint64_t flags, int64_t t_ns);

/* Consumer. As sage_ring_read. Errors: NULL, SIZE. */
SAGE_API int64_t sage_capture_read(sage_capture *capture, int64_t start, float *out, int64_t n);

/* Any thread. As sage_ring_written. Errors: NULL. */
SAGE_API int64_t sage_capture_written(const sage_capture *capture);

/* Any thread. As sage_clock_time. Errors: NULL, SIZE, EMPTY. */
SAGE_API int32_t sage_capture_time(const sage_capture *capture, int64_t sample, int64_t *t_ns);

/* Any thread. As sage_clock_read. Errors: NULL. */
SAGE_API int32_t sage_capture_clock(const sage_capture *capture, sage_clock_state *state);

/* Any thread. Every number is right by itself; beside the audio thread they may be of two calls. Errors: NULL. */
SAGE_API int32_t sage_capture_stats(const sage_capture *capture, sage_capture_statistics *statistics);

/* ---- Newest-frame slot --------------------------------------------------------------------------------------------
 *
 * Three buffers between a thread that writes frames and one that wants the newest: the writer fills one, the reader looks at
 * another, the third holds the newest whole frame. Neither ever waits, and no frame is seen half-written. A frame that nobody
 * took is replaced by the next.
 *
 * One thread calls _begin and _commit (the writer), one thread calls _take (the reader). _create and _destroy must not
 * overlap with anything.
 */
typedef struct sage_slot sage_slot;

#define SAGE_SLOT_MAX ((int64_t)1 << 30)

typedef struct {
    const uint8_t *data; /* the slot's; it stays as it is until the reader's next successful _take */
    int64_t t_ns;
    int64_t tag;
    int64_t replaced; /* frames since the one taken before that nobody will see */
} sage_slot_frame;

/* Three buffers of `bytes` bytes each, 1 .. SAGE_SLOT_MAX. Errors: NULL, SIZE, MEMORY. */
SAGE_API int32_t sage_slot_create(int64_t bytes, sage_slot **slot);
SAGE_API void sage_slot_destroy(sage_slot *slot);

/* Writer. Where to write the next frame: `bytes` bytes, 64-byte aligned; the same until _commit. Its old content is undefined.
 * NULL for NULL. */
SAGE_API uint8_t *sage_slot_begin(sage_slot *slot);

/* Writer. Make what was written the newest frame; t_ns and tag go with it. Errors: NULL. */
SAGE_API int32_t sage_slot_commit(sage_slot *slot, int64_t t_ns, int64_t tag);

/* Reader. Take the newest frame: 1, or 0 when there is none that was not taken before (`frame` is not touched then). Errors:
 * NULL. */
SAGE_API int32_t sage_slot_take(sage_slot *slot, sage_slot_frame *frame);

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

/* Append one row: n floats, 0 <= n <= dim, then zeros. `row` may lie in the slot, and may be NULL when n is 0. Errors: NULL, SIZE. */
SAGE_API int32_t sage_window_push(sage_window *window, const float *row, int32_t n);

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
 * Computed in float32; within 1e-6 of the float64 definition, relative to the largest value, or to 0.1 / std where that is
 * larger: where every cell is near `mean`, what is left is small and the levels it is left of are not. Which instructions
 * are used depends on the processor (AVX2 + FMA, NEON, plain C); the bound holds for each.
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
