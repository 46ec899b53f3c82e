#include "persistent.h"

extern "C" __global__ void __launch_bounds__(128, 1) loop(const float *__restrict__ A, float *y0,
        float *a0, long long *done, long long last, long long rows, long long s2_0, long long z0) {
    const long long row = gs_thread();
    if (row >= rows) {
        return;
    }
    A += row * s2_0;
    y0 += row;
    a0 += row;
    float c0[1];
    float d0[1];
    c0[0] = a0[0];
    for (long long t = 0; t < last; t++) {
        const float v3 = c0[0];
        const float A_value = A[0];
        const float v5 = v3 * A_value;
        d0[0] = v5;
        const float v7 = d0[0];
        y0[t * z0] = v7;
        c0[0] = d0[0];
    }
    a0[0] = c0[0];
    gs_finish(done, last);
}
