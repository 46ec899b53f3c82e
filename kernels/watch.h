/* How a loop within a loop ends early: the host, which asks Python whether somebody has interrupted
 * it, comes between two steps of the outermost loop only.
 *
 * A watch is GS_WATCH integers that all workers of a call have: whether it is to be left, and the
 * address of a function that asks the host, given the time. A pace is GS_PACE integers of one loop:
 * the steps until it looks at the watch again, how many these were, and the time when it did. */
#ifndef GS_WATCH_H
#define GS_WATCH_H

#include <time.h>

enum { GS_IS_LEFT, GS_ASK, GS_WATCH };
enum { GS_STEPS_LEFT, GS_STEPS, GS_LOOKED_AT, GS_PACE };

#define GS_OFTEN 5000000  /* nanoseconds: who looks after a shorter time takes more steps, */
#define GS_SELDOM 50000000 /* and after a longer one fewer */
#define GS_MOST_STEPS 4096 /* to look takes as long as about ten short ones */

static inline __attribute__((unused)) long long gs_now(void) {
#ifdef CLOCK_MONOTONIC_COARSE
    const clockid_t clock = CLOCK_MONOTONIC_COARSE;
#else
    const clockid_t clock = CLOCK_MONOTONIC;
#endif
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static inline __attribute__((unused)) void gs_start(long long *pace) {
    pace[GS_STEPS] = 1;
    pace[GS_LOOKED_AT] = 0;
}

/* Leaves in pace[GS_STEPS_LEFT] how many steps the loop takes now, or -1 where it is to be left. */
static __attribute__((noinline, cold, unused)) void gs_look(const long long *watch,
                                                            long long *pace) {
    const long long now = gs_now(), spent = now - pace[GS_LOOKED_AT];
    long long steps = pace[GS_STEPS];
    if (spent < GS_OFTEN) steps = 2 * steps < GS_MOST_STEPS ? 2 * steps : GS_MOST_STEPS;
    else if (spent > GS_SELDOM) steps = steps < 4 ? 1 : steps / 4;
    ((void (*)(long long))watch[GS_ASK])(now);
    const long long is_left = __atomic_load_n(watch + GS_IS_LEFT, __ATOMIC_RELAXED);
    pace[GS_STEPS_LEFT] = is_left ? -1 : steps;
    pace[GS_STEPS] = steps;
    pace[GS_LOOKED_AT] = now;
}

#endif
