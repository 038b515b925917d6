/* The loop in C: faces and sound come in, valence and arousal go out, through libsage and ONNX Runtime's C API.
 *
 *   live NAME.sage faces.rgb sound.f32
 *
 * faces.rgb: uint8 RGB pictures of face.crop_size x face.crop_size, one a tick; sound.f32: float32 mono at sample_rate_hz. */
#define _POSIX_C_SOURCE 200809L
#include <onnxruntime_c_api.h>
#include <sage.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define FAIL(...) (fprintf(stderr, __VA_ARGS__), exit(1))
#define TRY(call) do { OrtStatus *s_ = (call); if (s_) FAIL("error: %s\n", ort->GetErrorMessage(s_)); } while (0)
#define SAGE(call) do { int64_t code_ = (call); if (code_ < 0) FAIL("error: %s\n", sage_strerror((int32_t)code_)); } while (0)
#define INT(section, key) (int64_t)number(section, "\"" key "\"", 0)
#define FLOATS(n) calloc((size_t)(n), sizeof(float))

static const OrtApi *ort;
static char json[1 << 20];

static double number(const char *section, const char *key, int item) { /* of the manifest, whose keys are sorted and unlike */
    char *at = strstr(json, section);
    if (!at || !(at = strstr(at, key)) || !(at = strchr(at, ':'))) FAIL("error: the manifest has no %s\n", key);
    for (at += strspn(at, ": [\n"); item--;) at = strchr(at, ',') + 1;
    return strtod(at, NULL);
}

/* One graph on memory of ours, nothing is copied: n inputs, then the output, each with its name and its sizes. */
static void run(OrtSession *graph, size_t n, const char *const *name, float *const *data, int64_t (*size)[4]) {
    OrtMemoryInfo *memory;
    OrtValue *value[5] = {NULL};
    TRY(ort->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory));
    for (size_t k = 0, rank, bytes; k <= n; k++) {
        for (rank = 0, bytes = sizeof(float); rank < 4 && size[k][rank]; rank++) bytes *= (size_t)size[k][rank];
        TRY(ort->CreateTensorWithDataAsOrtValue(memory, data[k], bytes, size[k], rank, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value[k]));
    }
    TRY(ort->Run(graph, NULL, name, (const OrtValue *const *)value, n, &name[n], 1, &value[n]));
    for (size_t k = 0; k <= n; k++) ort->ReleaseValue(value[k]);
    ort->ReleaseMemoryInfo(memory);
}

int main(int argc, char **argv) {
    if (argc != 4) FAIL("usage: live NAME.sage faces.rgb sound.f32\n");
    char path[4096];
    snprintf(path, sizeof path, "%s/manifest.json", argv[1]);
    FILE *manifest = fopen(path, "rb"), *faces = fopen(argv[2], "rb"), *sound = fopen(argv[3], "rb");
    if (!manifest || !faces || !sound) FAIL("error: cannot open %s\n", !manifest ? path : !faces ? argv[2] : argv[3]);
    json[fread(json, 1, sizeof json - 1, manifest)] = 0;
    const int64_t rate = INT("", "rate_hz"), sample_rate = INT("", "sample_rate_hz"), w = INT("", "window"), hop = INT("", "hop");
    const int64_t samples = INT("", "samples"), dim = INT("\"dims\"", "visual"), audio_dim = INT("\"dims\"", "audio");
    const int64_t side = INT("\"face\"", "input_size"), whole = INT("\"face\"", "crop_size");
    sage_norm norm;
    for (int c = 0; c < 3; c++) {
        norm.mean[c] = (float)number("\"face\"", "\"mean\"", c);
        norm.std[c] = (float)number("\"face\"", "\"std\"", c);
    }

    setenv("ORT_DISABLE_TELEMETRY", "1", 0); /* its builds report to their maker unless told not to */
    if (!(ort = OrtGetApiBase()->GetApi(ORT_API_VERSION))) FAIL("error: this ONNX Runtime is older than its header\n");
    OrtEnv *env;
    OrtSessionOptions *options;
    OrtSession *graph[3];
    TRY(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "live", &env));
    TRY(ort->CreateSessionOptions(&options));
    for (int k = 0; k < 3; k++) {
        snprintf(path, sizeof path, "%s/onnx/%s.int8-cpu.onnx", argv[1], (const char *[]){"visual", "audio", "fusion"}[k]);
        TRY(ort->CreateSession(env, path, options, &graph[k]));
    }

    sage_ring *ring;
    sage_window *rows, *heard; /* of the last w ticks, always in one block: features, and whether there was sound */
    SAGE(sage_ring_create(samples + sample_rate, &ring));
    SAGE(sage_window_create((int32_t)w, (int32_t)dim, &rows));
    SAGE(sage_window_create((int32_t)w, 1, &heard));
    uint8_t *face = malloc((size_t)(3 * whole * whole));
    float *pixels = FLOATS(3 * side * side), *chunk = FLOATS(sample_rate), *last = FLOATS(samples), *audio = FLOATS(w * audio_dim);
    float *seen = FLOATS(w), *out = FLOATS(2 * w);
    const sage_image image = {face, NULL, 3 * whole, 0, (int32_t)whole, (int32_t)whole, SAGE_RGB};
    const sage_box inner = {(double)(whole - side) / 2, (double)(whole - side) / 2, (double)side, (double)side};

    for (int64_t tick = 0, had = 0, n; fread(face, (size_t)(3 * whole * whole), 1, faces) == 1; had += n) {
        n = (2 * ++tick * sample_rate + rate) / (2 * rate) - had; /* samples of this tick */
        float *slot = sage_window_buffer(heard) + sage_window_slot(heard);
        *slot = fread(chunk, sizeof(float), (size_t)n, sound) == (size_t)n;
        SAGE(sage_ring_push(ring, *slot ? chunk : NULL, n));
        SAGE(sage_window_commit(heard));
        SAGE(sage_crop(&image, &inner, &norm, pixels, (int32_t)side, (int32_t)side));
        slot = sage_window_buffer(rows) + sage_window_slot(rows) * dim;
        run(graph[0], 1, (const char *[]){"faces", "visual"}, (float *[]){pixels, slot}, (int64_t[][4]){{1, 3, side, side}, {1, dim}});
        SAGE(sage_window_commit(rows));
        if (tick % hop) continue;
        SAGE(sage_ring_read(ring, had + n - samples, last, samples));
        for (int64_t k = 0; k < w; k++) seen[k] = k >= w - tick; /* every picture is a face here */
        run(graph[1], 1, (const char *[]){"samples", "audio"}, (float *[]){last, audio}, (int64_t[][4]){{1, samples}, {1, w, audio_dim}});
        run(graph[2], 4, (const char *[]){"visual", "audio", "visual_mask", "audio_mask", "estimates"},
            (float *[]){sage_window_buffer(rows) + sage_window_start(rows) * dim, audio, seen, sage_window_buffer(heard) + sage_window_start(heard),
                        out},
            (int64_t[][4]){{1, w, dim}, {1, w, audio_dim}, {1, w}, {1, w}, {1, w, 2}});
        printf("%.3f %+.6f %+.6f\n", (double)(tick - 1) / (double)rate, (double)out[2 * w - 2], (double)out[2 * w - 1]);
    }
    return 0;
}
