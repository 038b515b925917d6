/* A pretend CUDA driver for tests on machines without a GPU: libcuda.so.1 with the calls that a few buffers, streams and graphs need.
 *
 *     cc -shared -fPIC -pthread -Wl,-soname,libcuda.so.1 fakecuda.c -o libcuda.so.1
 *
 * It is lazy where the real one is asynchronous: what is put on a stream runs when somebody waits for it, so a forgotten synchronisation shows.
 * Device addresses fault when the host touches them. Copies are checked against the allocations when they run; one outside of them is the sticky
 * error that it is on a GPU. Time is simulated: 0.01 ms per operation and 1 ms per MB. Everything made is counted until it is freed, wrong use
 * (a double free, a handle of nobody, no current context) is counted too, and any call can be made to fail (fakecuda_fail).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct context *CUcontext;
typedef struct stream *CUstream;
typedef struct event *CUevent;
typedef struct graph *CUgraph;
typedef struct graph *CUgraphExec;
typedef void (*CUhostFn)(void *);

enum {
    OK = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    ILLEGAL_STATE = 401,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    CONTEXT_IS_DESTROYED = 709,
    NOT_PERMITTED = 800,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
};

/* ---- what is alive ---- */

enum kind { DEVICE, PINNED, STREAM, EVENT, GRAPH, EXEC, CONTEXT, KINDS };
enum what { COPY_IN, COPY_OUT, CALL, RECORD };

struct operation {
    enum what what;
    char *host;
    CUdeviceptr device;
    size_t size;
    void *staged; /* pageable memory is read when the copy is asked for */
    CUhostFn call;
    void *data;
    struct event *event;
};

struct graph {
    struct operation *operations;
    size_t count;
};

struct stream {
    struct graph waiting, captured;
    int capturing, invalid, mode;
    pthread_t thread;
};

struct event {
    int recorded, done;
    double ms;
};

struct context {
    int unused;
};

struct object {
    enum kind kind;
    void *at;
    size_t size;
    int refused; /* its free was made to fail: it stays, and is no leak of the caller */
    struct object *next;
};

static const CUdeviceptr DEVICE_BIT = 1ull << 50;
static pthread_mutex_t mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static struct object *objects;
static struct context primary;
static __thread CUcontext stack[16];
static __thread int depth;
static int initialized, retained, retained_refused, sticky, calling;
static long made[KINDS], misuse, pageable;
static size_t used;
static double now_ms;
static char said[256];

static int wrong(CUresult code, const char *what) {
    misuse++;
    snprintf(said, sizeof said, "%s", what);
    return code;
}

static struct object *add(enum kind kind, void *at, size_t size) {
    struct object *object = malloc(sizeof *object);
    *object = (struct object){kind, at, size, 0, objects};
    objects = object;
    made[kind]++;
    return object;
}

static struct object *find(enum kind kind, const void *at) {
    for (struct object *o = objects; o; o = o->next)
        if (o->kind == kind && o->at == at) return o;
    return NULL;
}

/* The allocation of this kind that holds all of [at, at + size). */
static struct object *around(enum kind kind, const char *at, size_t size) {
    for (struct object *o = objects; o; o = o->next)
        if (o->kind == kind && at >= (char *)o->at && at + size <= (char *)o->at + o->size) return o;
    return NULL;
}

static void forget(struct object *object) {
    for (struct object **o = &objects; *o; o = &(*o)->next)
        if (*o == object) {
            *o = object->next;
            free(object);
            return;
        }
}

static const char *host_of(CUdeviceptr device) { return (const char *)(uintptr_t)(device & ~DEVICE_BIT); }

/* ---- calls: counted, and made to fail on demand ---- */

static struct {
    const char *name;
    long count;
} counts[128];
static char fail_name[64];
static long fail_nth = -1, fail_seen;
static CUresult fail_code;

/* From now on the nth call of `name` ("" for any call) returns `code`; nth 0 means every one, -1 none. */
void fakecuda_fail(const char *name, long nth, int code) {
    snprintf(fail_name, sizeof fail_name, "%s", name ? name : "");
    fail_nth = nth;
    fail_code = code;
    fail_seen = 0;
}

static void read_environment(void) {
    const char *text = getenv("FAKECUDA_FAIL"); /* NAME:NTH:CODE */
    char name[64] = "";
    long nth;
    int code;
    if (text && (sscanf(text, "%63[^:]:%ld:%d", name, &nth, &code) == 3 || sscanf(text, ":%ld:%d", &nth, &code) == 2)) fakecuda_fail(name, nth, code);
}

static void unlock(int *locked) {
    (void)locked;
    pthread_mutex_unlock(&mutex);
}

enum needs { NOTHING, DRIVER, CURRENT };

static CUresult enter(const char *name, enum needs needs) {
    static int read;
    if (!read++) read_environment();
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        if (!counts[i].name) counts[i].name = name;
        if (!strcmp(counts[i].name, name)) {
            counts[i].count++;
            break;
        }
    }
    if (calling) return wrong(NOT_PERMITTED, "a driver call from a host function");
    if (fail_nth >= 0 && (!*fail_name || !strcmp(fail_name, name))) {
        fail_seen++;
        if (fail_nth == 0 || fail_seen == fail_nth) return fail_code;
    }
    if (needs >= DRIVER && !initialized) return wrong(NOT_INITIALIZED, "cuInit was not called");
    if (needs >= CURRENT && !depth) return wrong(INVALID_CONTEXT, name);
    if (needs >= CURRENT && !retained) return wrong(CONTEXT_IS_DESTROYED, name);
    return needs >= CURRENT ? sticky : OK;
}

#define ENTER(needs)                                            \
    __attribute__((cleanup(unlock))) int locked = pthread_mutex_lock(&mutex); \
    CUresult entered = enter(__func__, needs);                  \
    (void)locked;                                               \
    if (entered) return entered

/* As ENTER, for a call that frees `object`: where it is made to fail, the object stays. */
#define ENTER_FREE(kind, at)                                    \
    __attribute__((cleanup(unlock))) int locked = pthread_mutex_lock(&mutex); \
    struct object *object = find(kind, at);                     \
    CUresult entered = enter(__func__, CURRENT);                \
    (void)locked;                                               \
    if (entered) {                                              \
        if (object) object->refused = 1;                        \
        return entered;                                         \
    }                                                           \
    if (!object) return wrong(INVALID_HANDLE, __func__)

/* ---- streams of operations ---- */

static void append(struct graph *to, struct operation operation) {
    to->operations = realloc(to->operations, (to->count + 1) * sizeof operation);
    to->operations[to->count++] = operation;
}

static void empty(struct graph *graph) {
    free(graph->operations);
    *graph = (struct graph){0};
}

static CUresult perform(const struct operation *o) {
    now_ms += 0.01 + (double)o->size * 1e-6;
    if (o->what == COPY_IN || o->what == COPY_OUT) {
        char *device = (char *)host_of(o->device), *host = o->staged ? o->staged : o->host;
        if (!around(DEVICE, device, o->size) || (!o->staged && o->what == COPY_IN && !around(PINNED, host, o->size))) return ILLEGAL_ADDRESS;
        if (o->what == COPY_IN)
            memcpy(device, host, o->size);
        else
            memcpy(host, device, o->size);
        free(o->staged);
    } else if (o->what == CALL) {
        calling = 1;
        o->call(o->data);
        calling = 0;
    } else if (find(EVENT, o->event)) {
        o->event->done = 1;
        o->event->ms = now_ms;
    }
    return OK;
}

static CUresult run(CUstream stream) {
    for (size_t i = 0; i < stream->waiting.count && !sticky; i++) sticky = perform(&stream->waiting.operations[i]);
    empty(&stream->waiting);
    return sticky;
}

static void run_all(void) {
    for (struct object *o = objects; o; o = o->next)
        if (o->kind == STREAM) run(o->at);
}

/* A call that would wait or allocate, while the calling thread captures. */
static CUresult unsafe(void) {
    for (struct object *o = objects; o; o = o->next) {
        CUstream stream = o->at;
        if (o->kind == STREAM && stream->capturing && (stream->mode == 0 || (stream->mode == 1 && pthread_equal(stream->thread, pthread_self())))) {
            stream->invalid = 1;
            return CAPTURE_UNSUPPORTED;
        }
    }
    return OK;
}

static CUresult put(CUstream stream, struct operation operation) {
    if (!find(STREAM, stream)) return wrong(INVALID_HANDLE, "an operation on a stream of nobody");
    append(stream->capturing ? &stream->captured : &stream->waiting, operation);
    return OK;
}

/* ---- the driver's calls ---- */

CUresult cuInit(unsigned flags) {
    ENTER(NOTHING);
    if (flags) return wrong(INVALID_VALUE, __func__);
    initialized = 1;
    return OK;
}

CUresult cuDriverGetVersion(int *version) {
    ENTER(NOTHING);
    *version = 13000;
    return OK;
}

CUresult cuDeviceGetCount(int *count) {
    ENTER(DRIVER);
    *count = getenv("FAKECUDA_NO_DEVICE") ? 0 : 1;
    return OK;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    ENTER(DRIVER);
    *device = 0;
    return ordinal || getenv("FAKECUDA_NO_DEVICE") ? INVALID_DEVICE : OK;
}

CUresult cuDeviceGetName(char *name, int size, CUdevice device) {
    ENTER(DRIVER);
    const char *given = getenv("FAKECUDA_NAME");
    snprintf(name, (size_t)size, "%s", given ? given : "Pretend GPU");
    return device ? INVALID_DEVICE : OK;
}

static void capability(int *major, int *minor) {
    const char *given = getenv("FAKECUDA_SM");
    if (!given || sscanf(given, "%d.%d", major, minor) != 2) *major = 8, *minor = 7;
}

CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    ENTER(DRIVER);
    int major, minor;
    capability(&major, &minor);
    *value = attribute == 75 ? major : attribute == 76 ? minor : 0;
    return device ? INVALID_DEVICE : OK;
}

CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device) {
    ENTER(DRIVER);
    capability(major, minor);
    return device ? INVALID_DEVICE : OK;
}

static size_t total(void) {
    const char *given = getenv("FAKECUDA_MEMORY_MB");
    return (size_t)(given ? atol(given) : 1024) << 20;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    ENTER(DRIVER);
    *bytes = total();
    return device ? INVALID_DEVICE : OK;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    ENTER(DRIVER);
    if (device) return INVALID_DEVICE;
    retained++;
    made[CONTEXT]++;
    *context = &primary;
    return OK;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    __attribute__((cleanup(unlock))) int locked = pthread_mutex_lock(&mutex);
    CUresult entered = enter(__func__, DRIVER);
    (void)locked;
    if (entered) {
        retained_refused++;
        return entered;
    }
    if (device || !retained) return wrong(INVALID_CONTEXT, "a context was released that nobody holds");
    retained--;
    if (!retained)
        for (struct object *o = objects; o; o = o->next)
            if (!o->refused) return wrong(OK, "the context went before what is in it");
    return OK;
}

CUresult cuCtxPushCurrent_v2(CUcontext context) {
    ENTER(DRIVER);
    if (context != &primary || depth == 16) return wrong(INVALID_CONTEXT, __func__);
    stack[depth++] = context;
    return OK;
}

CUresult cuCtxPopCurrent_v2(CUcontext *context) {
    ENTER(DRIVER);
    if (!depth) return wrong(INVALID_CONTEXT, __func__);
    CUcontext popped = stack[--depth];
    if (context) *context = popped;
    return OK;
}

CUresult cuCtxGetCurrent(CUcontext *context) {
    ENTER(DRIVER);
    *context = depth ? stack[depth - 1] : NULL;
    return OK;
}

CUresult cuCtxGetDevice(CUdevice *device) {
    ENTER(CURRENT);
    *device = 0;
    return OK;
}

CUresult cuCtxGetApiVersion(CUcontext context, unsigned *version) {
    ENTER(DRIVER);
    (void)context;
    *version = 13000;
    return OK;
}

CUresult cuCtxSynchronize(void) {
    ENTER(CURRENT);
    if (unsafe()) return CAPTURE_UNSUPPORTED;
    run_all();
    return sticky;
}

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes) {
    ENTER(CURRENT);
    *total_bytes = total();
    *free_bytes = total() - used;
    return OK;
}

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t size) {
    ENTER(CURRENT);
    if (!size) return wrong(INVALID_VALUE, "0 bytes of device memory");
    if (unsafe()) return CAPTURE_UNSUPPORTED;
    void *at;
    if (size > total() - used || posix_memalign(&at, 512, size)) return OUT_OF_MEMORY;
    memset(at, 0xCD, size);
    used += size;
    add(DEVICE, at, size);
    *address = (CUdeviceptr)(uintptr_t)at | DEVICE_BIT;
    return OK;
}

CUresult cuMemFree_v2(CUdeviceptr address) {
    ENTER_FREE(DEVICE, host_of(address));
    if (unsafe()) return CAPTURE_UNSUPPORTED;
    run_all();
    used -= object->size;
    free(object->at);
    forget(object);
    return sticky;
}

CUresult cuMemHostAlloc(void **address, size_t size, unsigned flags) {
    ENTER(CURRENT);
    (void)flags;
    if (!size) return wrong(INVALID_VALUE, "0 bytes of pinned memory");
    if (unsafe()) return CAPTURE_UNSUPPORTED;
    if (posix_memalign(address, 4096, size)) return OUT_OF_MEMORY;
    memset(*address, 0xA5, size);
    add(PINNED, *address, size);
    return OK;
}

CUresult cuMemFreeHost(void *address) {
    ENTER_FREE(PINNED, address);
    if (unsafe()) return CAPTURE_UNSUPPORTED;
    run_all();
    free(object->at);
    forget(object);
    return sticky;
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr device, const void *host, size_t size, CUstream stream) {
    ENTER(CURRENT);
    struct operation operation = {.what = COPY_IN, .host = (char *)host, .device = device, .size = size};
    if (!around(DEVICE, host_of(device), size)) return wrong(INVALID_VALUE, "a copy to memory of nobody");
    if (!around(PINNED, host, size)) {
        if (find(STREAM, stream) && stream->capturing) return stream->invalid = 1, CAPTURE_UNSUPPORTED;
        pageable++;
        operation.staged = malloc(size);
        memcpy(operation.staged, host, size);
    }
    return put(stream, operation);
}

CUresult cuMemcpyDtoHAsync_v2(void *host, CUdeviceptr device, size_t size, CUstream stream) {
    ENTER(CURRENT);
    struct operation operation = {.what = COPY_OUT, .host = host, .device = device, .size = size};
    if (!around(DEVICE, host_of(device), size)) return wrong(INVALID_VALUE, "a copy from memory of nobody");
    if (around(PINNED, host, size)) return put(stream, operation);
    if (find(STREAM, stream) && stream->capturing) return stream->invalid = 1, CAPTURE_UNSUPPORTED;
    pageable++;
    CUresult result = put(stream, operation);
    return result ? result : run(stream);
}

CUresult cuLaunchHostFunc(CUstream stream, CUhostFn call, void *data) {
    ENTER(CURRENT);
    return put(stream, (struct operation){.what = CALL, .call = call, .data = data});
}

CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
    ENTER(CURRENT);
    if (flags > 1) return wrong(INVALID_VALUE, __func__);
    *stream = calloc(1, sizeof **stream);
    add(STREAM, *stream, 0);
    return OK;
}

CUresult cuStreamDestroy_v2(CUstream stream) {
    ENTER_FREE(STREAM, stream);
    run(stream);
    empty(&stream->captured);
    free(stream);
    forget(object);
    return OK;
}

CUresult cuStreamSynchronize(CUstream stream) {
    ENTER(CURRENT);
    if (!find(STREAM, stream)) return wrong(INVALID_HANDLE, __func__);
    if (unsafe()) return CAPTURE_UNSUPPORTED;
    return run(stream);
}

CUresult cuStreamQuery(CUstream stream) {
    ENTER(CURRENT);
    if (!find(STREAM, stream)) return wrong(INVALID_HANDLE, __func__);
    return stream->waiting.count ? NOT_READY : OK;
}

CUresult cuEventCreate(CUevent *event, unsigned flags) {
    ENTER(CURRENT);
    (void)flags;
    *event = calloc(1, sizeof **event);
    add(EVENT, *event, 0);
    return OK;
}

CUresult cuEventDestroy_v2(CUevent event) {
    ENTER_FREE(EVENT, event);
    free(event);
    forget(object);
    return OK;
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
    ENTER(CURRENT);
    if (!find(EVENT, event)) return wrong(INVALID_HANDLE, __func__);
    event->recorded = 1;
    event->done = 0;
    return put(stream, (struct operation){.what = RECORD, .event = event});
}

CUresult cuEventQuery(CUevent event) {
    ENTER(CURRENT);
    if (!find(EVENT, event)) return wrong(INVALID_HANDLE, __func__);
    return event->recorded && !event->done ? NOT_READY : OK;
}

CUresult cuEventSynchronize(CUevent event) {
    ENTER(CURRENT);
    if (!find(EVENT, event)) return wrong(INVALID_HANDLE, __func__);
    if (unsafe()) return CAPTURE_UNSUPPORTED;
    if (event->recorded && !event->done) run_all();
    return sticky;
}

CUresult cuEventElapsedTime_v2(float *ms, CUevent from, CUevent to) {
    ENTER(CURRENT);
    if (!find(EVENT, from) || !find(EVENT, to) || !from->recorded || !to->recorded) return wrong(INVALID_HANDLE, __func__);
    if (!from->done || !to->done) return NOT_READY;
    *ms = (float)(to->ms - from->ms);
    return OK;
}

CUresult cuEventElapsedTime(float *ms, CUevent from, CUevent to) { return cuEventElapsedTime_v2(ms, from, to); }

CUresult cuStreamBeginCapture_v2(CUstream stream, int mode) {
    ENTER(CURRENT);
    if (!find(STREAM, stream)) return CAPTURE_UNSUPPORTED; /* the legacy stream cannot be captured */
    if (stream->capturing) return wrong(ILLEGAL_STATE, __func__);
    stream->capturing = 1;
    stream->invalid = 0;
    stream->mode = mode;
    stream->thread = pthread_self();
    return OK;
}

CUresult cuStreamIsCapturing(CUstream stream, int *status) {
    ENTER(CURRENT);
    if (!find(STREAM, stream)) return wrong(INVALID_HANDLE, __func__);
    *status = stream->capturing ? 1 + stream->invalid : 0;
    return OK;
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
    ENTER(CURRENT);
    *graph = NULL;
    if (!find(STREAM, stream)) return wrong(INVALID_HANDLE, __func__);
    if (!stream->capturing) return wrong(ILLEGAL_STATE, __func__);
    int invalid = stream->invalid;
    stream->capturing = stream->invalid = 0;
    if (invalid) {
        empty(&stream->captured);
        return CAPTURE_INVALIDATED;
    }
    *graph = malloc(sizeof **graph);
    **graph = stream->captured;
    stream->captured = (struct graph){0};
    add(GRAPH, *graph, 0);
    return OK;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
    ENTER(CURRENT);
    (void)flags;
    if (!find(GRAPH, graph)) return wrong(INVALID_HANDLE, __func__);
    *exec = calloc(1, sizeof **exec);
    for (size_t i = 0; i < graph->count; i++) append(*exec, graph->operations[i]);
    add(EXEC, *exec, 0);
    return OK;
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream) {
    ENTER(CURRENT);
    if (!find(EXEC, exec) || !find(STREAM, stream)) return wrong(INVALID_HANDLE, __func__);
    if (stream->capturing) return stream->invalid = 1, CAPTURE_UNSUPPORTED;
    for (size_t i = 0; i < exec->count; i++) append(&stream->waiting, exec->operations[i]);
    return OK;
}

CUresult cuGraphDestroy(CUgraph graph) {
    ENTER_FREE(GRAPH, graph);
    empty(graph);
    free(graph);
    forget(object);
    return OK;
}

CUresult cuGraphExecDestroy(CUgraphExec exec) {
    ENTER_FREE(EXEC, exec);
    empty(exec);
    free(exec);
    forget(object);
    return OK;
}

CUresult cuGetErrorName(CUresult code, const char **name) {
    *name = code == OK ? "CUDA_SUCCESS" : "CUDA_ERROR_OF_THE_PRETEND_DRIVER";
    return OK;
}

CUresult cuGetErrorString(CUresult code, const char **text) {
    static __thread char line[64];
    snprintf(line, sizeof line, "error %d of the pretend driver", code);
    *text = line;
    return OK;
}

CUresult cuGetProcAddress_v2(const char *name, void **address, int version, uint64_t flags, int *status) {
    (void)version, (void)flags;
    static const char *const suffixes[] = {"_v3", "_v2", "", "WithFlags"};
    void *self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    *address = NULL;
    for (int i = 0; i < 4 && self && !*address; i++) {
        char full[128];
        snprintf(full, sizeof full, "%s%s", name, suffixes[i]);
        *address = dlsym(self, full);
    }
    if (status) *status = *address ? 0 : 1;
    return *address ? OK : NOT_FOUND;
}

CUresult cuGetProcAddress(const char *name, void **address, int version, uint64_t flags) {
    return cuGetProcAddress_v2(name, address, version, flags, NULL);
}

/* ---- for the tests ---- */

/* What is alive of a kind (see `enum kind`), but for what could not be freed because its free was made to fail. */
long fakecuda_live(int kind) {
    long count = kind == CONTEXT ? retained - retained_refused : 0;
    for (struct object *o = objects; o; o = o->next) count += (int)o->kind == kind && !o->refused;
    return count;
}

long fakecuda_made(int kind) { return made[kind]; }

long fakecuda_misuse(void) { return misuse; }

const char *fakecuda_said(void) { return said; }

/* Copies from or to memory that is not pinned. */
long fakecuda_pageable(void) { return pageable; }

long fakecuda_calls(const char *name) {
    long all = 0;
    for (size_t i = 0; i < sizeof counts / sizeof *counts && counts[i].name; i++) {
        if (!strcmp(counts[i].name, name)) return counts[i].count;
        all += counts[i].count;
    }
    return *name ? 0 : all;
}

/* Host address of device memory, for what pretends to be a kernel; NULL outside of any allocation. */
void *fakecuda_view(CUdeviceptr device, size_t size) {
    const char *at = host_of(device);
    return device & DEVICE_BIT && around(DEVICE, at, size) ? (void *)at : NULL;
}

/* Take down what a failed call left behind, for the next round of a sweep. Returns how many objects that were. */
long fakecuda_reset(void) {
    long count = 0;
    fakecuda_fail("", -1, 0);
    sticky = 0;
    while (objects) {
        struct object *o = objects;
        if (o->kind == STREAM) empty(&((CUstream)o->at)->waiting), empty(&((CUstream)o->at)->captured);
        if (o->kind == GRAPH || o->kind == EXEC) empty(o->at);
        if (o->kind == DEVICE) used -= o->size;
        free(o->at);
        forget(o);
        count++;
    }
    retained = retained_refused = 0;
    misuse = pageable = 0;
    depth = 0;
    memset(made, 0, sizeof made);
    memset(counts, 0, sizeof counts);
    return count;
}
