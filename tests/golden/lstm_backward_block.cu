#include "persistent.h"
#include "held.h"

extern "C" __global__ void __launch_bounds__(256, 1) loop(const float *__restrict__ x0,
        const float *__restrict__ x1, const float *__restrict__ x2, const float *__restrict__ x3,
        const float *__restrict__ x4, const float *__restrict__ x5, const float *__restrict__ x6,
        const float *__restrict__ U_T, float *y0, float *h0_grad_0, float *h0_grad_1, float *a1,
        float *b1, long long *done, long long last, long long rows, long long rows_a_block,
        long long sums_float32_place, long long y0_here_place, long long x5_early_place,
        long long x0_early_place, long long x6_early_place, long long x2_early_place,
        long long x1_early_place, long long x4_early_place, long long x3_early_place,
        long long s1_0, long long s1_1, long long s2_0, long long s2_1, long long s3_0,
        long long s3_1, long long s4_0, long long s4_1, long long s5_0, long long s5_1,
        long long s6_0, long long s6_1, long long s7_0, long long s7_1, long long s11_0,
        long long s11_1, long long z0) {
    GS_SHARED(shared);
    const long long row = blockIdx.x * rows_a_block;
    const long long n8 = rows - row < rows_a_block ? rows - row : rows_a_block;
    x0 += row * s1_1;
    x1 += row * s2_1;
    x2 += row * s3_1;
    x3 += row * s4_1;
    x4 += row * s5_1;
    x5 += row * s6_1;
    x6 += row * s7_1;
    y0 += row * 128;
    h0_grad_0 += row * 32;
    h0_grad_1 += row * 32;
    a1 += row * 32;
    b1 += row * 32;
    gs_held<float, 128, 32, 256, 1> p15_held;
    p15_held.clear();
    float *const sums_float32 = (float *)(shared + sums_float32_place);
    float *const y0_here = (float *)(shared + y0_here_place);
    float *const x5_early = (float *)(shared + x5_early_place);
    float *const x0_early = (float *)(shared + x0_early_place);
    float *const x6_early = (float *)(shared + x6_early_place);
    float *const x2_early = (float *)(shared + x2_early_place);
    float *const x1_early = (float *)(shared + x1_early_place);
    float *const x4_early = (float *)(shared + x4_early_place);
    float *const x3_early = (float *)(shared + x3_early_place);
    p15_held.load(0, U_T, s11_0, s11_1, 32, sums_float32);
    if (last > 0) {
        for (int all_i2 = threadIdx.x; all_i2 < n8 * 32; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / 32;
            const long long i2 = all_i2 % 32;
            gs_copy(x5_early + i1 * 32 + i2, x5 + i1 * s6_1 + i2);
            gs_copy(x0_early + i1 * 32 + i2, x0 + i1 * s1_1 + i2);
            gs_copy(x6_early + i1 * 32 + i2, x6 + i1 * s7_1 + i2);
            gs_copy(x2_early + i1 * 32 + i2, x2 + i1 * s3_1 + i2);
            gs_copy(x1_early + i1 * 32 + i2, x1 + i1 * s2_1 + i2);
            gs_copy(x4_early + i1 * 32 + i2, x4 + i1 * s5_1 + i2);
            gs_copy(x3_early + i1 * 32 + i2, x3 + i1 * s4_1 + i2);
        }
    }
    for (long long t = 0; t < last; t++) {
        const long long next_t = t + 1 < last ? t + 1 : t;
        const float *const h0_grad_now = t % 2 ? h0_grad_1 : h0_grad_0;
        float *const h0_grad_next = t % 2 ? h0_grad_0 : h0_grad_1;
        const float *const c1 = t % 2 ? b1 : a1;
        float *const d1 = t % 2 ? a1 : b1;
        __syncthreads();
        gs_copied();
        for (int all_i2 = threadIdx.x; all_i2 < n8 * 32; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / 32;
            const long long i2 = all_i2 % 32;
            const float v3 = c1[i1 * 32 + i2];
            const float h0_grad = h0_grad_now[i1 * 32 + i2];
            const float v5 = x5_early[i1 * 32 + i2];
            const float v7 = x0_early[i1 * 32 + i2];
            const float v9 = x6_early[i1 * 32 + i2];
            const float v14 = x2_early[i1 * 32 + i2];
            const float v16 = x1_early[i1 * 32 + i2];
            const float v20 = x4_early[i1 * 32 + i2];
            const float v22 = x3_early[i1 * 32 + i2];
            const float v6 = h0_grad + v5;
            const float v8 = v6 * v7;
            const float v10 = v9 * v9;
            const float v11 = 1.0f - v10;
            const float v12 = v8 * v11;
            const float v13 = v3 + v12;
            const float v15 = v13 * v14;
            const float v17 = v15 * v16;
            const float v18 = 1.0f - v16;
            const float v19 = v17 * v18;
            const float v21 = v13 * v20;
            const float v23 = v21 * v22;
            const float v24 = 1.0f - v22;
            const float v25 = v23 * v24;
            const float v26 = v6 * v9;
            const float v27 = v26 * v7;
            const float v28 = 1.0f - v7;
            const float v29 = v27 * v28;
            const float v30 = v13 * v16;
            const float v31 = v14 * v14;
            const float v32 = 1.0f - v31;
            const float v33 = v30 * v32;
            const float v34 = v13 * v22;
            y0[t * z0 + i1 * 128 + i2] = v19;
            y0[t * z0 + 32 + i1 * 128 + i2] = v25;
            y0[t * z0 + 32 + 32 + i1 * 128 + i2] = v29;
            y0[t * z0 + 32 + 32 + 32 + i1 * 128 + i2] = v33;
            d1[i1 * 32 + i2] = v34;
            y0_here[i1 * 128 + i2] = v19;
            y0_here[32 + i1 * 128 + i2] = v25;
            y0_here[64 + i1 * 128 + i2] = v29;
            y0_here[96 + i1 * 128 + i2] = v33;
            gs_copy(x5_early + i1 * 32 + i2, x5 + next_t * s6_0 + i1 * s6_1 + i2);
            gs_copy(x0_early + i1 * 32 + i2, x0 + next_t * s1_0 + i1 * s1_1 + i2);
            gs_copy(x6_early + i1 * 32 + i2, x6 + next_t * s7_0 + i1 * s7_1 + i2);
            gs_copy(x2_early + i1 * 32 + i2, x2 + next_t * s3_0 + i1 * s3_1 + i2);
            gs_copy(x1_early + i1 * 32 + i2, x1 + next_t * s2_0 + i1 * s2_1 + i2);
            gs_copy(x4_early + i1 * 32 + i2, x4 + next_t * s5_0 + i1 * s5_1 + i2);
            gs_copy(x3_early + i1 * 32 + i2, x3 + next_t * s4_0 + i1 * s4_1 + i2);
        }
        __syncthreads();
        p15_held.multiply(n8, y0_here, 128, 1, 32, sums_float32, h0_grad_next);
    }
    gs_finish(done, last);
}
