/* The slot gives the newest frame once, whole, and says how many nobody saw; also while another thread writes as fast as it can. */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "check.h"
#include "sage.h"

enum { BYTES = 3000, TURNS = 20000, SEEN = 500 };

static atomic_int done;

static void write_frame(sage_slot *slot, int64_t number, size_t bytes) {
    uint8_t *data = sage_slot_begin(slot);
    CHECK((uintptr_t)data % 64 == 0 && data == sage_slot_begin(slot));
    memset(data, (int)(number % 251), bytes);
    CHECK(sage_slot_commit(slot, number * 1000, -number) == SAGE_OK);
}

static void frame_is(const sage_slot_frame *frame, int64_t number, size_t bytes) {
    CHECK(frame->t_ns == number * 1000 && frame->tag == -number);
    for (size_t k = 0; k < bytes; k++) CHECK(frame->data[k] == number % 251);
}

static void by_turns(size_t bytes) {
    sage_slot *slot;
    sage_slot_frame held = {NULL, 0, 0, 0};
    uint64_t random = 1;
    int64_t written = 0, taken = 0;
    CHECK(sage_slot_create((int64_t)bytes, &slot) == SAGE_OK);
    CHECK(sage_slot_take(slot, &held) == 0 && !held.data);
    for (int turn = 0; turn < TURNS; turn++) {
        if (next_random(&random) % 2) {
            write_frame(slot, ++written, bytes);
        } else if (written == taken) {
            CHECK(sage_slot_take(slot, &held) == 0);
        } else {
            CHECK(sage_slot_take(slot, &held) == 1 && held.replaced == written - taken - 1);
            taken = written;
        }
        if (taken) frame_is(&held, taken, bytes); /* also while newer ones are written */
    }
    sage_slot_destroy(slot);
}

static void *write_on(void *slot) {
    static int64_t number;
    while (!atomic_load(&done)) write_frame(slot, ++number, BYTES);
    return &number;
}

int main(void) {
    by_turns(1);
    by_turns(64);
    by_turns(100);

    sage_slot *slot;
    pthread_t writer;
    sage_slot_frame frame;
    int64_t newest = 0, seen = 0, replaced = 0;
    CHECK(sage_slot_create(BYTES, &slot) == SAGE_OK);
    CHECK(!pthread_create(&writer, NULL, write_on, slot));
    void *written;
    int32_t fresh;
    while (seen < SEEN) {
        fresh = sage_slot_take(slot, &frame);
        CHECK(fresh == 0 || fresh == 1);
        if (!fresh) continue;
        CHECK(-frame.tag > newest);
        newest = -frame.tag;
        frame_is(&frame, newest, BYTES);
        replaced += frame.replaced;
        seen++;
    }
    atomic_store(&done, 1);
    CHECK(!pthread_join(writer, &written));
    if (sage_slot_take(slot, &frame)) seen += 1 + frame.replaced;
    CHECK(seen + replaced == *(int64_t *)written);
    sage_slot_destroy(slot);
    printf("%lld frames taken beside the writer, %lld replaced\n", (long long)seen, (long long)replaced);
    return 0;
}
