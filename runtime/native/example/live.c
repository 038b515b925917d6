/* The loop in C: a face and its sound come in with every tick, valence and arousal go out with every hop, by libsage and ONNX Runtime's C API.
 *
 *   live NAME.sage faces.rgb sound.f32
 *
 * faces.rgb: uint8 RGB pictures of CROP x CROP, one a tick; sound.f32: float32 mono at SAMPLE_RATE. The sizes are the bundle's (model.h). */
#include "model.h"
#include <onnxruntime_c_api.h>
#include <sage.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct { const char *name; float *data; int64_t size[4]; } tensor; /* sizes end with 0 */
static const OrtApi *ort;
static OrtMemoryInfo *memory;
static uint8_t face[3 * CROP * CROP];
static float pixels[3 * SIDE * SIDE], chunk[SAMPLE_RATE], last[SAMPLES], feature[VISUAL_DIM], audio[WINDOW * AUDIO_DIM], mask[WINDOW], out[WINDOW][2];

static void must(const char *error) { if (error) { fprintf(stderr, "error: %s\n", error); exit(1); } }
static void of_ort(OrtStatus *status) { must(status ? ort->GetErrorMessage(status) : NULL); }
static void of_sage(int64_t code) { must(code < 0 ? sage_strerror((int32_t)code) : NULL); }

static void run(OrtSession *graph, size_t n, const tensor *t) { /* n - 1 inputs and the output, in memory of ours: nothing is copied */
    OrtValue *value[5] = {NULL};
    const char *name[5];
    for (size_t k = 0, rank, bytes; k < n; k++) {
        for (rank = 0, bytes = sizeof(float); rank < 4 && t[k].size[rank]; rank++) bytes *= (size_t)t[k].size[rank];
        of_ort(ort->CreateTensorWithDataAsOrtValue(memory, t[k].data, bytes, t[k].size, rank, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value[k]));
        name[k] = t[k].name;
    }
    of_ort(ort->Run(graph, NULL, name, (const OrtValue *const *)value, n - 1, &name[n - 1], 1, &value[n - 1]));
    for (size_t k = 0; k < n; k++) ort->ReleaseValue(value[k]);
}

int main(int argc, char **argv) {
    must(argc == 4 ? NULL : "usage: live NAME.sage faces.rgb sound.f32");
    FILE *faces = fopen(argv[2], "rb"), *sound = fopen(argv[3], "rb");
    must(!faces ? argv[2] : !sound ? argv[3] : chdir(argv[1]) ? argv[1] : NULL);
    setenv("ORT_DISABLE_TELEMETRY", "1", 0); /* its builds report to their maker unless told not to */
    must((ort = OrtGetApiBase()->GetApi(ORT_API_VERSION)) ? NULL : "this ONNX Runtime is older than its header");
    OrtEnv *env; OrtSessionOptions *options; OrtSession *graph[3];
    of_ort(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "live", &env));
    of_ort(ort->CreateSessionOptions(&options));
    of_ort(ort->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory));
    static const char *const file[] = {"onnx/visual.int8-cpu.onnx", "onnx/audio.int8-cpu.onnx", "onnx/fusion.int8-cpu.onnx"};
    for (int k = 0; k < 3; k++) of_ort(ort->CreateSession(env, file[k], options, &graph[k]));

    sage_ring *ring; sage_window *rows; /* features of the last WINDOW ticks, always in one block */
    of_sage(sage_ring_create(SAMPLES + SAMPLE_RATE, &ring));
    of_sage(sage_window_create(WINDOW, VISUAL_DIM, &rows));
    const sage_image image = {face, NULL, 3 * CROP, 0, CROP, CROP, SAGE_RGB};
    const sage_box inner = {(CROP - SIDE) / 2.0, (CROP - SIDE) / 2.0, SIDE, SIDE};
    const sage_norm norm = {MEAN, STD};
    for (int64_t tick = 1, had = 0, n; fread(face, sizeof face, 1, faces) == 1; had += n, tick++) {
        n = (2 * tick * SAMPLE_RATE + RATE) / (2 * RATE) - had; /* samples of this tick */
        if (fread(chunk, sizeof(float), (size_t)n, sound) != (size_t)n) break;
        of_sage(sage_ring_push(ring, chunk, n));
        of_sage(sage_crop(&image, &inner, &norm, pixels, SIDE, SIDE));
        run(graph[0], 2, (tensor[]){{"faces", pixels, {1, 3, SIDE, SIDE}}, {"visual", feature, {1, VISUAL_DIM}}});
        of_sage(sage_window_push(rows, feature, VISUAL_DIM));
        if (tick <= WINDOW) mask[WINDOW - tick] = 1; /* so many of the newest ticks have a face and sound */
        if (tick % HOP) continue;
        of_sage(sage_ring_read(ring, had + n - SAMPLES, last, SAMPLES));
        float *row = sage_window_buffer(rows) + sage_window_start(rows) * VISUAL_DIM;
        run(graph[1], 2, (tensor[]){{"samples", last, {1, SAMPLES}}, {"audio", audio, {1, WINDOW, AUDIO_DIM}}});
        run(graph[2], 5, (tensor[]){{"visual", row, {1, WINDOW, VISUAL_DIM}}, {"audio", audio, {1, WINDOW, AUDIO_DIM}},
            {"visual_mask", mask, {1, WINDOW}}, {"audio_mask", mask, {1, WINDOW}}, {"estimates", out[0], {1, WINDOW, 2}}});
        printf("%.3f %+.6f %+.6f\n", (double)(tick - 1) / RATE, (double)out[WINDOW - 1][0], (double)out[WINDOW - 1][1]);
    }
}
