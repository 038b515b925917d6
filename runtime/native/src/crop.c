/* The crop: cells, strips of columns that fit on the stack, and the last step from averages to an output. */
#include <math.h>
#include <stddef.h>

#include "kernels.h"
#include "sage.h"

enum {
    STRIP = 128, /* output columns done together */
    LINE = 2048  /* source columns done together */
};

/* One plane of samples and the part of the box that falls on it. */
typedef struct {
    const uint8_t *data;
    int64_t stride;
    int32_t width, height, step; /* in samples; bytes per sample */
    double x, y, cell_width, cell_height;
} plane;

typedef struct {
    int32_t format, planes;
    plane plane[2];
    double area[2]; /* of a cell, in samples of the plane */
} source;

/* Where the averages of one line of cells go. */
typedef struct {
    int32_t width, height;
    float *planar; /* or NULL: then colours */
    uint8_t *colours;
    double scale[3], bias[3];
} target;

static area_span span_of(double start, double cell, int32_t k, int32_t limit) {
    double a = start + cell * k, b = start + cell * (k + 1);
    double low = floor(a), high = ceil(b) - 1;
    double edge = limit - 1;
    low = low < 0 ? 0 : low > edge ? edge : low;
    high = high < 0 ? 0 : high > edge ? edge : high;
    if (high <= low) return (area_span){(int32_t)low, 1, (float)(b - a), 0.0f};
    return (area_span){(int32_t)low, (int32_t)(high - low) + 1, (float)(low + 1 - a), (float)(b - high)};
}

static int32_t check_image(const sage_image *image) {
    if (!image->data) return SAGE_E_NULL;
    if (image->width < 1 || image->width > SAGE_SIDE_MAX || image->height < 1 || image->height > SAGE_SIDE_MAX) return SAGE_E_SIZE;
    switch (image->format) {
    case SAGE_RGB:
    case SAGE_BGR: return image->stride < 3 * (int64_t)image->width ? SAGE_E_SIZE : SAGE_OK;
    case SAGE_YUYV: return image->width % 2 || image->stride < 2 * (int64_t)image->width ? SAGE_E_SIZE : SAGE_OK;
    case SAGE_NV12:
        if (!image->chroma) return SAGE_E_NULL;
        return image->width % 2 || image->height % 2 || image->stride < image->width || image->chroma_stride < image->width ? SAGE_E_SIZE
                                                                                                                            : SAGE_OK;
    default: return SAGE_E_FORMAT;
    }
}

static int32_t check_box(const sage_box *box) {
    double size[2] = {box->width, box->height}, corner[2] = {box->x, box->y};
    for (int k = 0; k < 2; k++) {
        if (!(size[k] >= SAGE_BOX_LEAST && size[k] <= SAGE_BOX_LIMIT)) return SAGE_E_BOX;
        if (!(corner[k] >= -SAGE_BOX_LIMIT && corner[k] <= SAGE_BOX_LIMIT)) return SAGE_E_BOX;
    }
    return SAGE_OK;
}

static source source_of(const sage_image *image, const sage_box *box, int32_t out_width, int32_t out_height) {
    double cw = box->width / out_width, ch = box->height / out_height;
    int32_t w = image->width, h = image->height;
    source s = {.format = image->format, .planes = 1, .area = {cw * ch}};
    s.plane[0] = (plane){image->data, image->stride, w, h, 3, box->x, box->y, cw, ch};
    if (image->format == SAGE_NV12) {
        s.planes = 2;
        s.plane[0].step = 1;
        s.plane[1] = (plane){image->chroma, image->chroma_stride, w / 2, h / 2, 2, box->x / 2, box->y / 2, cw / 2, ch / 2};
        s.area[1] = cw * ch / 4;
    } else if (image->format == SAGE_YUYV) {
        s.planes = 2;
        s.plane[0].step = 2;
        s.plane[1] = (plane){image->data, image->stride, w / 2, h, 4, box->x / 2, box->y, cw / 2, ch};
        s.area[1] = cw * ch / 2;
    }
    return s;
}

/* Sums of a strip of one line of cells, of levels less LEVEL_MIDDLE: sums [n, 4]. Usually one line of floats holds the strip; the columns of a very wide
 * cell are done piece by piece. */
static void sum_strip(const sage_kernels *kernels, const plane *p, const area_span *row, const area_span *spans, int32_t n, float *line,
                      float *sums) {
    const uint8_t *data = p->data + row->first * p->stride;
    int32_t base = spans[0].first, columns = spans[n - 1].first + spans[n - 1].count - base;
    if (columns <= LINE) {
        kernels->rows(data + (int64_t)base * p->step, p->stride, row->count, row->head, row->tail, columns * p->step, line);
        kernels->columns(line, base, p->step, spans, n, sums);
        return;
    }
    double total[KERNEL_STEP_MAX] = {0};
    for (int32_t done = 0; done < columns; done += LINE) {
        int32_t some = columns - done < LINE ? columns - done : LINE, last = done + some == columns;
        area_span piece = {base + done, some, done ? 1.0f : spans->head, last ? spans->tail : 1.0f};
        if (done && last && some == 1) piece.head = piece.tail;
        kernels->rows(data + (int64_t)piece.first * p->step, p->stride, row->count, row->head, row->tail, some * p->step, line);
        kernels->columns(line, piece.first, p->step, &piece, 1, sums);
        for (int32_t c = 0; c < p->step; c++) total[c] += (double)sums[c];
    }
    for (int32_t c = 0; c < p->step; c++) sums[c] = (float)total[c];
}

static float clamp_level(float level) {
    const float least = -LEVEL_MIDDLE, most = 255 - LEVEL_MIDDLE;
    return level < least ? least : level > most ? most : level;
}

/* To the sums of R, G, B, in that order. */
static void colours_of(const source *s, int32_t n, float (*sums)[STRIP * 4]) {
    if (s->format == SAGE_RGB) return;
    float *first = sums[0];
    if (s->format == SAGE_BGR) {
        for (int32_t i = 0; i < n; i++, first += 4) {
            float blue = first[0];
            first[0] = first[2];
            first[2] = blue;
        }
        return;
    }
    const float *second = sums[1];
    int32_t u = s->format == SAGE_NV12 ? 0 : 1, v = s->format == SAGE_NV12 ? 1 : 3;
    float area = (float)s->area[0], per_luma = (float)(1 / s->area[0]), per_chroma = (float)(1 / s->area[1]);
    for (int32_t i = 0; i < n; i++, first += 4, second += 4) {
        float luma = 255.0f / 219.0f * (first[0] * per_luma + (LEVEL_MIDDLE - 16)) - LEVEL_MIDDLE;
        float blue = second[u] * per_chroma, red = second[v] * per_chroma;
        first[0] = area * clamp_level(luma + (float)(1.402 * 255 / 224) * red);
        first[1] = area * clamp_level(luma - (float)(0.344136286201022 * 255 / 224) * blue - (float)(0.714136286201022 * 255 / 224) * red);
        first[2] = area * clamp_level(luma + (float)(1.772 * 255 / 224) * blue);
    }
}

static void put(const target *t, int32_t row, int32_t column, int32_t n, const float *sums) {
    if (t->planar) {
        ptrdiff_t size = (ptrdiff_t)t->width * t->height;
        for (int c = 0; c < 3; c++) {
            float *out = t->planar + c * size + (ptrdiff_t)row * t->width + column;
            float scale = (float)t->scale[c], bias = (float)t->bias[c];
            for (int32_t i = 0; i < n; i++) out[i] = sums[4 * i + c] * scale + bias;
        }
        return;
    }
    uint8_t *out = t->colours + 3 * ((ptrdiff_t)row * t->width + column);
    for (int32_t i = 0; i < n; i++, out += 3, sums += 4)
        for (int c = 0; c < 3; c++) {
            double level = (double)sums[c] * t->scale[c] + (LEVEL_MIDDLE + 0.5);
            out[c] = (uint8_t)(level > 255.0 ? 255.0 : level);
        }
}

static void crop(const sage_kernels *kernels, const source *s, const target *t) {
    float line[LINE * KERNEL_STEP_MAX + KERNEL_PAD], sums[2][STRIP * 4];
    area_span spans[2][STRIP];
    for (int32_t i = 0; i < KERNEL_PAD; i++) line[LINE * KERNEL_STEP_MAX + i] = 0.0f;
    for (int32_t column = 0, n; column < t->width; column += n) {
        for (n = 0; n < STRIP && column + n < t->width; n++) {
            for (int k = 0; k < s->planes; k++) spans[k][n] = span_of(s->plane[k].x, s->plane[k].cell_width, column + n, s->plane[k].width);
            if (n && spans[0][n].first + spans[0][n].count - spans[0][0].first > LINE) break;
        }
        for (int32_t row = 0; row < t->height; row++) {
            for (int k = 0; k < s->planes; k++) {
                const plane *p = &s->plane[k];
                area_span rows = span_of(p->y, p->cell_height, row, p->height);
                sum_strip(kernels, p, &rows, spans[k], n, line, sums[k]);
            }
            colours_of(s, n, sums);
            put(t, row, column, n, sums[0]);
        }
    }
}

static const sage_kernels *kernels_of(int32_t variant) {
#if defined(SAGE_HAVE_AVX2)
    if ((variant & 2) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &sage_kernels_avx2;
#endif
#if defined(SAGE_HAVE_NEON)
    if (variant & 4) return &sage_kernels_neon;
#endif
    return variant & 1 ? &sage_kernels_plain : NULL;
}

int32_t sage_crop_variants(void) {
    int32_t found = 0;
    for (int32_t bit = 1; bit <= 4; bit <<= 1) found |= kernels_of(bit) ? bit : 0;
    return found;
}

static int32_t check(const sage_image *image, const sage_box *box, const void *out, int32_t out_width, int32_t out_height) {
    if (!image || !box || !out) return SAGE_E_NULL;
    if (out_width < 1 || out_width > SAGE_SIDE_MAX || out_height < 1 || out_height > SAGE_SIDE_MAX) return SAGE_E_SIZE;
    int32_t code = check_image(image);
    return code ? code : check_box(box);
}

int32_t sage_crop_with(int32_t variant, const sage_image *image, const sage_box *box, const sage_norm *norm, float *out, int32_t out_width,
                       int32_t out_height) {
    if (!norm) return SAGE_E_NULL;
    int32_t code = check(image, box, out, out_width, out_height);
    if (code) return code;
    const sage_kernels *kernels = kernels_of(variant);
    if (!kernels) return SAGE_E_SIZE;
    source s = source_of(image, box, out_width, out_height);
    target t = {.width = out_width, .height = out_height, .planar = out};
    for (int c = 0; c < 3; c++) {
        if (!isfinite(norm->mean[c]) || !isfinite(norm->std[c]) || !(norm->std[c] > 0)) return SAGE_E_NORM;
        t.scale[c] = 1 / (s.area[0] * 255 * (double)norm->std[c]);
        t.bias[c] = (LEVEL_MIDDLE / 255.0 - (double)norm->mean[c]) / (double)norm->std[c];
    }
    crop(kernels, &s, &t);
    return SAGE_OK;
}

int32_t sage_crop(const sage_image *image, const sage_box *box, const sage_norm *norm, float *out, int32_t out_width, int32_t out_height) {
    return sage_crop_with(7, image, box, norm, out, out_width, out_height);
}

int32_t sage_resize(const sage_image *image, const sage_box *box, uint8_t *out, int32_t out_width, int32_t out_height) {
    int32_t code = check(image, box, out, out_width, out_height);
    if (code) return code;
    source s = source_of(image, box, out_width, out_height);
    target t = {.width = out_width, .height = out_height, .colours = out, .scale = {1 / s.area[0], 1 / s.area[0], 1 / s.area[0]}};
    crop(kernels_of(7), &s, &t);
    return SAGE_OK;
}
