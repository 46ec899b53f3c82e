#include "persistent.h"
#include "held.h"

extern "C" __global__ void __launch_bounds__(256, 1) loop(const float *__restrict__ x0,
        const float *__restrict__ x1, const float *__restrict__ U_T, float *y0, float *h0_grad_0,
        float *h0_grad_1, long long *done, long long last, long long rows, long long rows_a_block,
        long long sums_float32_place, long long y0_here_place, long long x1_early_place,
        long long x0_early_place, long long s1_0, long long s1_1, long long s2_0, long long s2_1,
        long long s4_0, long long s4_1, long long z0) {
    GS_SHARED(shared);
    const long long row = blockIdx.x * rows_a_block;
    const long long n0 = rows - row < rows_a_block ? rows - row : rows_a_block;
    x0 += row * s1_1;
    x1 += row * s2_1;
    y0 += row * 32;
    h0_grad_0 += row * 32;
    h0_grad_1 += row * 32;
    gs_held<float, 32, 32, 256, 1> p7_held;
    p7_held.clear();
    float *const sums_float32 = (float *)(shared + sums_float32_place);
    float *const y0_here = (float *)(shared + y0_here_place);
    float *const x1_early = (float *)(shared + x1_early_place);
    float *const x0_early = (float *)(shared + x0_early_place);
    p7_held.load(0, U_T, s4_0, s4_1, 32, sums_float32);
    if (last > 0) {
        for (int all_i2 = threadIdx.x; all_i2 < n0 * 32; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / 32;
            const long long i2 = all_i2 % 32;
            gs_copy(x1_early + i1 * 32 + i2, x1 + i1 * s2_1 + i2);
            gs_copy(x0_early + i1 * 32 + i2, x0 + i1 * s1_1 + i2);
        }
    }
    for (long long t = 0; t < last; t++) {
        const long long next_t = t + 1 < last ? t + 1 : t;
        const float *const h0_grad_now = t % 2 ? h0_grad_1 : h0_grad_0;
        float *const h0_grad_next = t % 2 ? h0_grad_0 : h0_grad_1;
        __syncthreads();
        gs_copied();
        for (int all_i2 = threadIdx.x; all_i2 < n0 * 32; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / 32;
            const long long i2 = all_i2 % 32;
            const float h0_grad = h0_grad_now[i1 * 32 + i2];
            const float v4 = x1_early[i1 * 32 + i2];
            const float v6 = x0_early[i1 * 32 + i2];
            const float v5 = h0_grad + v4;
            const float v7 = v6 * v6;
            const float v8 = 1.0f - v7;
            const float v9 = v5 * v8;
            y0[t * z0 + i1 * 32 + i2] = v9;
            y0_here[i1 * 32 + i2] = v9;
            gs_copy(x1_early + i1 * 32 + i2, x1 + next_t * s2_0 + i1 * s2_1 + i2);
            gs_copy(x0_early + i1 * 32 + i2, x0 + next_t * s1_0 + i1 * s1_1 + i2);
        }
        __syncthreads();
        p7_held.multiply(n0, y0_here, 32, 1, 32, sums_float32, h0_grad_next);
    }
    gs_finish(done, last);
}
