/* What every generated CUDA text needs, and how it ends. */
#ifndef GS_PERSISTENT_H
#define GS_PERSISTENT_H

#include "device.h"
#include "grid.h"

/* The number of a thread in the whole grid, and how many there are. */
GS_FN long long gs_thread() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }
GS_FN long long gs_threads() { return (long long)gridDim.x * blockDim.x; }

/* done[0]: how many steps were run; done[1]: 1 where a check failed, 2 where blocks did not meet. */
GS_FN void gs_finish(long long *done, long long steps) {
    if (gs_thread() == 0) done[0] = steps;
}
GS_FN void gs_unmet(long long *done) { /* the block gives up, as it waited for others in vain */
    atomicExch((unsigned long long *)(done + 1), 2ull);
}
GS_FN void gs_break(long long *done) { atomicExch((unsigned long long *)(done + 1), 1ull); }

/* For all threads of the last block that calls: 1; it sees what the others wrote before. The counter
 * is 0 when the kernel starts. */
GS_FN int gs_is_last(long long *counter) {
    __syncthreads();
    int last = 0;
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicAdd((unsigned long long *)counter, 1ull) == gridDim.x - 1;
        __threadfence();
    }
    return __syncthreads_or(last);
}

#endif
