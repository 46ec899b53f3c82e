#include "persistent.h"

extern "C" __global__ void __launch_bounds__(128, 1) loop(const float *__restrict__ x0,
        const float *__restrict__ A, float *a0, float *A_grad_0, long long *done, long long last,
        long long rows, long long s1_0, long long s1_1, long long s4_0) {
    const long long row = gs_thread();
    if (row >= rows) {
        return;
    }
    x0 += row * s1_1;
    A += row * s4_0;
    a0 += row;
    float c0[1];
    float d0[1];
    A_grad_0 += row;
    float A_grad_now[1];
    float A_grad_next[1];
    c0[0] = a0[0];
    A_grad_now[0] = A_grad_0[0];
    for (long long t = 0; t < last; t++) {
        const float v4 = c0[0];
        const float A_value = A[0];
        const float v6 = v4 * A_value;
        d0[0] = v6;
        const float A_grad = A_grad_now[0];
        const float v8 = x0[t * s1_0];
        const float v9 = v4 * v8;
        const float v10 = A_grad + v9;
        A_grad_next[0] = v10;
        c0[0] = d0[0];
        A_grad_now[0] = A_grad_next[0];
    }
    a0[0] = c0[0];
    A_grad_0[0] = A_grad_now[0];
    gs_finish(done, last);
}
