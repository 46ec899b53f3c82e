#include "persistent.h"

extern "C" __global__ void __launch_bounds__(128, 1) loop(const float *__restrict__ x0,
        const float *__restrict__ x1, const float *__restrict__ U_T, float *y0, float *h0_grad_0,
        long long *done, long long last, long long rows, long long s1_0, long long s1_1,
        long long s2_0, long long s2_1, long long s4_0, long long s4_1, long long z0) {
    const long long row = gs_thread();
    if (row >= rows) {
        return;
    }
    x0 += row * s1_1;
    x1 += row * s2_1;
    y0 += row * 2;
    h0_grad_0 += row * 2;
    float h0_grad_now[2];
    float h0_grad_next[2];
    GS_UNROLL for (long long i2 = 0; i2 < 2; i2++) {
        h0_grad_now[i2] = h0_grad_0[i2];
    }
    for (long long t = 0; t < last; t++) {
        GS_UNROLL for (long long i4 = 0; i4 < 2; i4++) {
            const float h0_grad = h0_grad_now[i4];
            const float v6 = x1[t * s2_0 + i4];
            const float v7 = h0_grad + v6;
            const float v8 = x0[t * s1_0 + i4];
            const float v9 = v8 * v8;
            const float v10 = 1.0f - v9;
            const float v11 = v7 * v10;
            y0[t * z0 + i4] = v11;
        }
        GS_UNROLL for (long long i13 = 0; i13 < 2; i13++) {
            float s14 = 0.0f;
            GS_UNROLL for (long long i15 = 0; i15 < 2; i15++) {
                const float v16 = y0[t * z0 + i15];
                const float U_T_value = U_T[i15 * s4_0 + i13 * s4_1];
                s14 = s14 + (v16 * U_T_value);
            }
            h0_grad_next[i13] = s14;
        }
        GS_UNROLL for (long long i19 = 0; i19 < 2; i19++) {
            h0_grad_now[i19] = h0_grad_next[i19];
        }
    }
    GS_UNROLL for (long long i21 = 0; i21 < 2; i21++) {
        h0_grad_0[i21] = h0_grad_now[i21];
    }
    gs_finish(done, last);
}
