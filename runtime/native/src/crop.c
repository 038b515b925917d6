/* The crop: cells, strips of columns that fit on the stack, and the last step from averages to an output. */
#include <math.h>
#include <stddef.h>
#include <string.h>

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

/* What becomes of the averages: normalised planes, or else colours. */
typedef struct {
    int32_t width, height;
    float *planar; /* or NULL: then colours */
    uint8_t *colours;
    double scale[3], bias[3];
} target;

/* Output columns that are done together, as cells of one plane. */
typedef struct {
    int32_t base, columns; /* the first one, and how many */
    int32_t fewest, most;  /* that a cell has */
    area_span spans[STRIP];
    cell_columns cells[STRIP + CELLS_PAD];
} strip;

/* floor() without a call; levels of a box are far below 2^31. */
static double below(double x) {
    double whole = (double)(int32_t)x;
    return whole > x ? whole - 1 : whole;
}

static area_span span_of(double start, double cell, int32_t k, int32_t limit) {
    double a = start + cell * k, b = start + cell * (k + 1);
    double low = below(a), high = -below(-b) - 1;
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

static int32_t common_of(int32_t fewest) { return fewest > 2 ? fewest - 2 : 0; }

/* Whether a cell may follow the n cells of a strip: one line holds them all, and beside the columns that all have, no cell has more than one more. */
static int fits(const strip *p, const area_span *span, int32_t n) {
    if (!n) return 1;
    int32_t fewest = span->count < p->fewest ? span->count : p->fewest, most = span->count > p->most ? span->count : p->most;
    return span->first + span->count - p->base <= LINE && most <= common_of(fewest) + 3;
}

static void add(strip *p, const area_span *span, int32_t n) {
    if (!n) p->base = span->first;
    if (!n || span->count < p->fewest) p->fewest = span->count;
    if (!n || span->count > p->most) p->most = span->count;
    p->columns = span->first + span->count - p->base;
    p->spans[n] = *span;
}

static cell_columns columns_of(const area_span *span, int32_t base, int32_t common, int32_t step) {
    int32_t first = (span->first - base) * step;
    return (cell_columns){first, first + (span->count - 1) * step, span->head, span->count - 2 > common, span->count > 1 ? span->tail : 0};
}

/* One line of floats: `columns` samples of the rows of a line of cells, and zeros behind it. */
static void line_of(const sage_kernels *kernels, const plane *p, int32_t first, int32_t columns, const area_span *row, float *line) {
    const uint8_t *data = p->data + row->first * p->stride + (int64_t)first * p->step;
    int32_t left = p->height - row->first - row->count, ahead = left < row->count ? left : row->count;
    kernels->rows(data, p->stride, row->count, ahead, row->head, row->tail, columns * p->step, line);
    memset(line + columns * p->step, 0, KERNEL_PAD * sizeof *line);
}

/* The cells of a strip in one line of cells. Usually one line of floats holds the strip; a wider cell is done piece by piece. */
static void sum_strip(const sage_kernels *kernels, const plane *p, const strip *cells, int32_t n, const area_span *row, float *line,
                      const cell_output *to) {
    if (cells->columns <= LINE) {
        line_of(kernels, p, cells->base, cells->columns, row, line);
        kernels->columns(line, p->step, cells->cells, n, common_of(cells->fewest), to);
        return;
    }
    float sums[KERNEL_STEP_MAX];
    cell_output piecewise = {.out = {sums, sums + 1, sums + 2, sums + 3}, .scale = {1, 1, 1, 1}};
    double total[KERNEL_STEP_MAX] = {0};
    for (int32_t done = 0; done < cells->columns; done += LINE) {
        int32_t some = cells->columns - done < LINE ? cells->columns - done : LINE, last = done + some == cells->columns;
        area_span piece = {cells->base + done, some, done ? 1.0f : cells->spans->head, last ? cells->spans->tail : 1.0f};
        if (done && last && some == 1) piece.head = piece.tail;
        cell_columns cell[1 + CELLS_PAD];
        for (int i = 0; i < 1 + CELLS_PAD; i++) cell[i] = columns_of(&piece, piece.first, common_of(some), p->step);
        line_of(kernels, p, piece.first, some, row, line);
        kernels->columns(line, p->step, cell, 1, common_of(some), &piecewise);
        for (int32_t c = 0; c < p->step; c++) total[c] += (double)sums[c];
    }
    for (int32_t c = 0; c < p->step; c++) to->out[c][0] = (float)total[c] * to->scale[c] + to->bias[c];
}

static float clamp_level(float level) {
    const float least = -LEVEL_MIDDLE, most = 255 - LEVEL_MIDDLE;
    return level < least ? least : level > most ? most : level;
}

/* Luma and chroma to R, G, B in place, levels less LEVEL_MIDDLE. */
static void colours_of(int32_t n, float (*level)[STRIP]) {
    for (int32_t i = 0; i < n; i++) {
        float luma = level[0][i], blue = level[1][i], red = level[2][i];
        level[0][i] = clamp_level(luma + (float)(1.402 * 255 / 224) * red);
        level[1][i] = clamp_level(luma - (float)(0.344136286201022 * 255 / 224) * blue - (float)(0.714136286201022 * 255 / 224) * red);
        level[2][i] = clamp_level(luma + (float)(1.772 * 255 / 224) * blue);
    }
}

/* Where the components of plane k go: sums of R, G, B, or levels of luma and chroma, to `level`, whose last line takes what is not used. */
static cell_output output_of(const source *s, int k, float (*level)[STRIP]) {
    if (s->format == SAGE_RGB) return (cell_output){{level[0], level[1], level[2]}, {1, 1, 1}, {0}};
    if (s->format == SAGE_BGR) return (cell_output){{level[2], level[1], level[0]}, {1, 1, 1}, {0}};
    float scale = (float)(1 / s->area[k]), *unused = level[3];
    if (k == 0) return (cell_output){{level[0], unused}, {255.0f / 219.0f * scale}, {255.0f / 219.0f * (LEVEL_MIDDLE - 16) - LEVEL_MIDDLE}};
    if (s->format == SAGE_NV12) return (cell_output){{level[1], level[2]}, {scale, scale}, {0}};
    return (cell_output){{unused, level[1], unused, level[2]}, {0, scale, 0, scale}, {0}};
}

/* Sums of R, G, B straight into the planes of the target. */
static cell_output direct_to(const source *s, const target *t, int32_t row, int32_t column) {
    cell_output to = {.out = {NULL}};
    for (int c = 0; c < 3; c++) {
        int component = s->format == SAGE_RGB ? c : 2 - c;
        to.out[component] = t->planar + ((ptrdiff_t)c * t->height + row) * t->width + column;
        to.scale[component] = (float)t->scale[c];
        to.bias[component] = (float)t->bias[c];
    }
    return to;
}

static void put(const target *t, int32_t row, int32_t column, int32_t n, float (*level)[STRIP]) {
    if (t->planar) {
        for (int c = 0; c < 3; c++) {
            float *out = t->planar + ((ptrdiff_t)c * t->height + row) * t->width + column;
            float scale = (float)t->scale[c], bias = (float)t->bias[c];
            for (int32_t i = 0; i < n; i++) out[i] = level[c][i] * scale + bias;
        }
        return;
    }
    uint8_t *out = t->colours + 3 * ((ptrdiff_t)row * t->width + column);
    for (int32_t i = 0; i < n; i++, out += 3)
        for (int c = 0; c < 3; c++) {
            double value = (double)level[c][i] * t->scale[c] + (LEVEL_MIDDLE + 0.5);
            out[c] = (uint8_t)(value > 255.0 ? 255.0 : value);
        }
}

/* As many cells from `column` on as fit into one strip of each plane. */
static int32_t strips_of(const source *s, int32_t column, int32_t width, strip *strips) {
    int32_t n = 0;
    for (; n < STRIP && column + n < width; n++) {
        area_span span[2];
        int all = 1;
        for (int k = 0; k < s->planes; k++) {
            span[k] = span_of(s->plane[k].x, s->plane[k].cell_width, column + n, s->plane[k].width);
            all = all && fits(&strips[k], &span[k], n);
        }
        if (!all) break;
        for (int k = 0; k < s->planes; k++) add(&strips[k], &span[k], n);
    }
    for (int k = 0; k < s->planes; k++)
        for (int32_t i = 0; i < n + CELLS_PAD; i++) {
            const area_span *span = &strips[k].spans[i < n ? i : n - 1];
            strips[k].cells[i] = columns_of(span, strips[k].base, common_of(strips[k].fewest), s->plane[k].step);
        }
    return n;
}

static void crop(const sage_kernels *kernels, const source *s, const target *t) {
    float line[LINE * KERNEL_STEP_MAX + KERNEL_PAD], level[4][STRIP];
    strip strips[2];
    int direct = s->planes == 1 && t->planar;
    cell_output to[2];
    for (int k = 0; k < s->planes; k++) to[k] = output_of(s, k, level);
    for (int32_t column = 0, n; column < t->width; column += n) {
        n = strips_of(s, column, t->width, strips);
        for (int32_t row = 0; row < t->height; row++) {
            if (direct) to[0] = direct_to(s, t, row, column);
            for (int k = 0; k < s->planes; k++) {
                const plane *p = &s->plane[k];
                area_span rows = span_of(p->y, p->cell_height, row, p->height);
                sum_strip(kernels, p, &strips[k], n, &rows, line, &to[k]);
            }
            if (direct) continue;
            if (s->planes == 2) colours_of(n, level);
            put(t, row, column, n, level);
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

/* What a level of 1 comes as: RGB as the sum over a cell, YUV, which is clamped on the way, as a level. */
static double unit_of(const source *s) { return s->planes == 1 ? s->area[0] : 1; }

int32_t sage_crop_with(int32_t variant, const sage_image *image, const sage_box *box, const sage_norm *norm, float *out, int32_t out_width,
                       int32_t out_height) {
    if (!norm) return SAGE_E_NULL;
    int32_t code = check(image, box, out, out_width, out_height);
    if (code) return code;
    const sage_kernels *kernels = kernels_of(variant);
    if (!kernels) return SAGE_E_SIZE;
    source s = source_of(image, box, out_width, out_height);
    double unit = unit_of(&s);
    target t = {.width = out_width, .height = out_height, .planar = out};
    for (int c = 0; c < 3; c++) {
        if (!isfinite(norm->mean[c]) || !isfinite(norm->std[c]) || !(norm->std[c] > 0)) return SAGE_E_NORM;
        t.scale[c] = 1 / (unit * 255 * (double)norm->std[c]);
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
    double unit = unit_of(&s);
    target t = {.width = out_width, .height = out_height, .colours = out, .scale = {1 / unit, 1 / unit, 1 / unit}};
    crop(kernels_of(7), &s, &t);
    return SAGE_OK;
}
