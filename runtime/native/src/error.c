/* The names of the error codes. */
#include "sage.h"

int32_t sage_abi_version(void) { return SAGE_ABI_VERSION; }

const char *sage_strerror(int32_t code) {
    switch (code) {
    case SAGE_OK: return "no error";
    case SAGE_E_NULL: return "a pointer is NULL [SAGE_E_NULL]";
    case SAGE_E_SIZE: return "a size is out of range [SAGE_E_SIZE]";
    case SAGE_E_FORMAT: return "unknown format [SAGE_E_FORMAT]";
    case SAGE_E_BOX: return "the box is empty, not finite or too large [SAGE_E_BOX]";
    case SAGE_E_NORM: return "mean or std is not finite, or std is not positive [SAGE_E_NORM]";
    case SAGE_E_MEMORY: return "not enough memory [SAGE_E_MEMORY]";
    case SAGE_E_EMPTY: return "nothing has come yet [SAGE_E_EMPTY]";
    default: return "unknown error";
    }
}
