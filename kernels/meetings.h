/* Where the workers of one kernel wait for each other: what each of them wrote before is seen by
 * all of them behind it.
 *
 * A meeting is GS_MEETING integers: at 0 how many workers there are, and on lines of their own how
 * many have arrived, and how often all have met. */
#ifndef GS_MEETINGS_H
#define GS_MEETINGS_H

#include <sched.h>

#define GS_MEETING 24
#define GS_MEETING_SPINS 1000 /* before the core is left to others */

static inline void gs_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static inline __attribute__((unused)) void gs_meet(long long *meeting) {
    const long long count = meeting[0];
    if (count < 2) return;
    long long *const arrived = meeting + 8, *const met = meeting + 16;
    const long long now = __atomic_load_n(met, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(arrived, 1, __ATOMIC_ACQ_REL) == count) {
        __atomic_store_n(arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(met, now + 1, __ATOMIC_RELEASE);
        return;
    }
    for (int i = 0; __atomic_load_n(met, __ATOMIC_ACQUIRE) == now; i++)
        if (i < GS_MEETING_SPINS) gs_pause();
        else sched_yield();
}

#endif
