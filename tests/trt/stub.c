/* Link stand-in for TensorRT's three libraries: lets its Python bindings be imported, never run, on a machine without TensorRT or a GPU.
   Every factory fails the way TensorRT's do: it returns NULL. Built once per library, with the library's soname. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT void *createInferBuilder_INTERNAL(void *logger, int32_t version) { (void)logger; (void)version; return NULL; }
EXPORT void *createInferRefitter_INTERNAL(void *engine, void *logger, int32_t version) { (void)engine; (void)logger; (void)version; return NULL; }
EXPORT void *createInferRuntime_INTERNAL(void *logger, int32_t version) { (void)logger; (void)version; return NULL; }
EXPORT void *getPluginRegistry(void) { return NULL; }
EXPORT void *getBuilderPluginRegistry(int32_t capability) { (void)capability; return NULL; }
EXPORT void *createNvOnnxParser_INTERNAL(void *network, void *logger, int version) { (void)network; (void)logger; (void)version; return NULL; }
EXPORT void *createNvOnnxParserRefitter_INTERNAL(void *refitter, void *logger, int version) {
    (void)refitter; (void)logger; (void)version; return NULL;
}
EXPORT int getNvOnnxParserVersion(void) { return 0; }
EXPORT bool initLibNvInferPlugins(void *logger, const char *name_space) { (void)logger; (void)name_space; return false; }
