/* Where all blocks of a cooperative launch wait for each other: what each of them wrote before is
 * seen by all of them behind it. And copies that a thread starts and does not wait for.
 *
 * A meeting is GS_GRID_MEETING integers, zeros at first, on lines of their own:
 *     0                   how many have arrived (low half) and how often all have met (high half)
 *     GS_MEETING_FAILED   1 where a block was waited for in vain
 *     GS_MEETING_POLLS    how often a block looks before it gives up; 0: GS_MEETING_PATIENCE times
 * Groups of blocks that meet apart have one each, one behind the other.
 * The low half is 0 again behind every meeting and the high half only grows, so where a kernel asks
 * how often all have met, its next launch finds the meeting as it must be, whatever the size of its
 * grid. After a failure every meeting fails at once, until the host writes zeros. */
#ifndef GS_GRID_H
#define GS_GRID_H

#include "device.h"

#define GS_GRID_MEETING 48
#define GS_MEETING_FAILED 16
#define GS_MEETING_POLLS 32
#define GS_MEETING_PATIENCE (1ll << 25) /* some twenty seconds */

/* Arrives, looks whether the others have, and goes on: a release, acquires, and nothing more; or
 * with GS_MEETING_PLAIN fences and plain atomics, which other tools read. Who arrives is not told
 * how often all have met: to be told takes as long as to look. */
#ifdef GS_MEETING_PLAIN
GS_FN void gs_arrive(gs_u64 *counter, gs_u64 n) {
    __threadfence();
    atomicAdd(counter, n);
}
GS_FN gs_u64 gs_look(gs_u64 *counter) {
#if GS_DEVICE
    return *(volatile gs_u64 *)counter;
#else
    const gs_u64 now = atomicAdd(counter, 0ull);
    emulated::yield();
    return now;
#endif
}
GS_FN void gs_met() { __threadfence(); }
#else
GS_FN void gs_arrive(gs_u64 *counter, gs_u64 n) {
#if GS_DEVICE
    asm volatile("red.release.gpu.global.add.u64 [%0], %1;" : : "l"(counter), "l"(n) : "memory");
#else
    __atomic_fetch_add(counter, n, __ATOMIC_RELEASE);
    emulated::progress();
#endif
}
GS_FN gs_u64 gs_look(gs_u64 *counter) {
    gs_u64 now;
#if GS_DEVICE
    asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(now) : "l"(counter) : "memory");
#else
    now = __atomic_load_n(counter, __ATOMIC_ACQUIRE);
    emulated::yield(); /* else a block that spins would keep the others from running */
#endif
    return now;
}
GS_FN void gs_met() {}
#endif

#if GS_DEVICE
GS_FN long long gs_failed(const long long *meeting) {
    return *(const volatile long long *)(meeting + GS_MEETING_FAILED);
}
GS_FN void gs_fail(long long *meeting) {
    *(volatile long long *)(meeting + GS_MEETING_FAILED) = 1;
}
#else
GS_FN long long gs_failed(const long long *meeting) {
    return __atomic_load_n(meeting + GS_MEETING_FAILED, __ATOMIC_RELAXED);
}
GS_FN void gs_fail(long long *meeting) {
    __atomic_store_n(meeting + GS_MEETING_FAILED, 1, __ATOMIC_RELAXED);
    emulated::progress();
}
#endif

/* How often all have met; a block may ask until it arrives. */
GS_FN gs_u32 gs_times_met(const long long *meeting) {
    return (gs_u32)(gs_look((gs_u64 *)meeting) >> 32);
}

/* For meetings whose integers were zeros at the launch: how often all have met, which thread 0
 * counts, in the block's shared memory, where it takes no register. */
GS_FN gs_u32 *gs_not_met(void *place) {
    gs_u32 *const met = (gs_u32 *)place;
    if (threadIdx.x == 0) *met = 0;
    return met;
}

/* A block's part of a meeting, in two halves: between them it may do what nobody waits for. They are
 * called by all threads of all blocks, the second with how often all had met before, which thread 0
 * counts. Those who meet are all blocks, or so many members, each with a number among them. */
GS_FN void gs_enter(long long *meeting, gs_u32 members, gs_u32 member) {
    __syncthreads(); /* the block's writes are there */
    if (members == 1 || threadIdx.x) return;
    /* all of a meeting add up to one in the high half */
    gs_arrive((gs_u64 *)meeting, member ? 1 : (1ull << 32) - (members - 1));
}
GS_FN void gs_enter(long long *meeting) { gs_enter(meeting, gridDim.x, blockIdx.x); }

/* Waits for the others; whether it was in vain. */
GS_FN int gs_wait_for_others(long long *meeting, gs_u32 times) {
    if (gs_failed(meeting)) return 1;
    long long polls = 0;
    while (gs_times_met(meeting) == times) {
        if (++polls % 64) continue;
        const long long given = meeting[GS_MEETING_POLLS];
        if (gs_failed(meeting)) return 1;
        if (polls >= (given ? given : GS_MEETING_PATIENCE)) {
            gs_fail(meeting);
            return 1;
        }
    }
    gs_met();
    return 0;
}

/* Not 0 where blocks were waited for in vain: then every block must leave the kernel, and what it
 * computed is worth nothing. */
GS_FN int gs_leave(long long *meeting, gs_u32 *met, gs_u32 members) {
    if (members == 1) {
        __syncthreads();
        return 0;
    }
    int failed = 0;
    if (threadIdx.x == 0) failed = gs_wait_for_others(meeting, (*met)++);
    return __syncthreads_or(failed);
}
GS_FN int gs_leave(long long *meeting, gs_u32 *met) { return gs_leave(meeting, met, gridDim.x); }

/* Starts to copy an element from the device's memory to the block's: it is there for this thread
 * behind gs_copied(), while others need a barrier too. What has fewer bytes than four, and whatever
 * is older than sm_80, waits for it at once. */
template <class T> GS_FN void gs_copy(T *to, const T *from) {
#if GS_DEVICE && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    if constexpr (sizeof(T) == 4 || sizeof(T) == 8) {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;"
                     :
                     : "r"((gs_u32)__cvta_generic_to_shared(to)), "l"(from), "n"(sizeof(T))
                     : "memory");
        return;
    }
#elif !GS_DEVICE
    if constexpr (sizeof(T) == 4 || sizeof(T) == 8) return emulated::copy(to, from, sizeof(T));
#endif
    *to = *from;
}
GS_FN void gs_copied() {
#if GS_DEVICE && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" : : : "memory");
#elif !GS_DEVICE
    emulated::copied();
#endif
}

/* Sixteen bytes, at multiples of sixteen, past the first cache, and so what other blocks wrote. */
template <class T> GS_FN void gs_copy_vector(T *to, const T *from) {
#if GS_DEVICE && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
                 :
                 : "r"((gs_u32)__cvta_generic_to_shared(to)), "l"(from)
                 : "memory");
#elif GS_DEVICE
    *(gs_vector<T> *)to = gs_vector_at(from);
#else
    emulated::copy(to, from, 16);
#endif
}

/* The thread's copies since the last call are a group; and it waits for all groups but the last
 * BUT, and for no copy that is in none yet. */
GS_FN void gs_close_copies() {
#if GS_DEVICE && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" : : : "memory");
#elif !GS_DEVICE
    emulated::close_copies();
#endif
}
template <int BUT> GS_FN void gs_copied_but() {
#if GS_DEVICE && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" : : "n"(BUT) : "memory");
#elif !GS_DEVICE
    emulated::copied_but(BUT);
#endif
}

/* Both halves. */
GS_FN int gs_meet(long long *meeting, gs_u32 *met, gs_u32 members, gs_u32 member) {
    gs_enter(meeting, members, member);
    return gs_leave(meeting, met, members);
}
GS_FN int gs_meet(long long *meeting, gs_u32 *met) {
    return gs_meet(meeting, met, gridDim.x, blockIdx.x);
}
GS_FN int gs_meet(long long *meeting) {
    gs_u32 met = gs_times_met(meeting);
    return gs_meet(meeting, &met);
}

#endif
