/* Commits and takes in any order: what is taken is the newest frame, whole, and every frame is either taken or counted as replaced. */
#include "bytes.h"
#include "sage.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    bytes from = {data, size};
    int64_t n = take_between(&from, 0, 7) ? take_between(&from, 1, 200) : take_int64(&from);
    if (n > 4096) n = SAGE_SLOT_MAX + 1;
    sage_slot *slot = NULL;
    int32_t code = sage_slot_create(n, &slot);
    HOLDS(code == (n < 1 || n > SAGE_SLOT_MAX ? SAGE_E_SIZE : SAGE_OK) && !slot == !!code);
    int64_t committed = 0, accounted = 0, newest_ns = 0, tag = 0;
    sage_slot_frame frame = {0};
    uint8_t kept = 0;
    while (slot && from.size) {
        switch (take_between(&from, 0, 2)) {
        case 0: memset(sage_slot_begin(slot), (uint8_t)~committed, (size_t)n); break; /* begun and begun again */
        case 1:
            newest_ns = take_int64(&from);
            tag = take_int64(&from);
            memset(sage_slot_begin(slot), (uint8_t)++committed, (size_t)n);
            HOLDS(sage_slot_commit(slot, newest_ns, tag) == SAGE_OK);
            break;
        default:
            code = sage_slot_take(slot, &frame);
            HOLDS(code == (committed > accounted));
            if (!code) break;
            accounted += 1 + frame.replaced;
            HOLDS(accounted == committed && frame.t_ns == newest_ns && frame.tag == tag);
            kept = (uint8_t)committed;
        }
        for (int64_t k = 0; frame.data && k < n; k++) HOLDS(frame.data[k] == kept);
    }
    sage_slot_destroy(slot);
    return 0;
}
