#include "persistent.h"
#include "scalars.h"
#include "held.h"

extern "C" __global__ void __launch_bounds__(256, 1) loop(const float *__restrict__ x0,
        const float *__restrict__ x1, const float *__restrict__ x2, const float *__restrict__ bh,
        const float *__restrict__ U, const float *__restrict__ U_2, const float *__restrict__ U_3,
        float *y0, float *y1, float *y2, float *y3, float *y4, float *h0_0, long long *done,
        long long last, long long rows, long long rows_a_block, long long sums_float32_place,
        long long w14_place, long long w16_place, long long w18_place, long long y0_here_place,
        long long x0_early_place, long long x2_early_place, long long x1_early_place,
        long long s1_0, long long s1_1, long long s2_0, long long s2_1, long long s3_0,
        long long s3_1, long long s6_0, long long s6_1, long long s7_0, long long s7_1,
        long long s8_0, long long s8_1, long long z0, long long z1, long long z2, long long z3,
        long long z4) {
    GS_SHARED(shared);
    const long long row = blockIdx.x * rows_a_block;
    const long long n13 = rows - row < rows_a_block ? rows - row : rows_a_block;
    x0 += row * s1_1;
    x1 += row * s2_1;
    x2 += row * s3_1;
    y0 += row * 32;
    y1 += row * 32;
    y2 += row * 32;
    y3 += row * 32;
    y4 += row * 32;
    h0_0 += row * 32;
    gs_held<float, 32, 32, 256, 3> p15_held;
    p15_held.clear();
    float *const sums_float32 = (float *)(shared + sums_float32_place);
    float *const w14 = (float *)(shared + w14_place);
    float *const w16 = (float *)(shared + w16_place);
    float *const w18 = (float *)(shared + w18_place);
    float *const y0_here = (float *)(shared + y0_here_place);
    float *const x0_early = (float *)(shared + x0_early_place);
    float *const x2_early = (float *)(shared + x2_early_place);
    float *const x1_early = (float *)(shared + x1_early_place);
    p15_held.load(0, U, s6_0, s6_1, 32, sums_float32);
    __syncthreads();
    p15_held.load(1, U_2, s7_0, s7_1, 32, sums_float32);
    __syncthreads();
    p15_held.load(2, U_3, s8_0, s8_1, 32, sums_float32);
    for (int all_i2 = threadIdx.x; all_i2 < n13 * 32; all_i2 += blockDim.x) {
        const long long i1 = all_i2 / 32;
        const long long i2 = all_i2 % 32;
        const float first_value = h0_0[i1 * 32 + i2];
        y0_here[i1 * 32 + i2] = first_value;
    }
    if (last > 0) {
        for (int all_i2 = threadIdx.x; all_i2 < n13 * 32; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / 32;
            const long long i2 = all_i2 % 32;
            gs_copy(x0_early + i1 * 32 + i2, x0 + i1 * s1_1 + i2);
            gs_copy(x2_early + i1 * 32 + i2, x2 + i1 * s3_1 + i2);
            gs_copy(x1_early + i1 * 32 + i2, x1 + i1 * s2_1 + i2);
        }
    }
    for (long long t = 0; t < last; t++) {
        const long long next_t = t + 1 < last ? t + 1 : t;
        const float *const h0_now = t ? y0 + (t - 1) * z0 : h0_0;
        __syncthreads();
        p15_held.multiply(n13, y0_here, 32, 1, 32, sums_float32, w14, w16, w18);
        __syncthreads();
        gs_copied();
        for (int all_i2 = threadIdx.x; all_i2 < n13 * 32; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / 32;
            const long long i2 = all_i2 % 32;
            const float v3 = x0_early[i1 * 32 + i2];
            const float v4 = w14[i1 * 32 + i2];
            const float v7 = x2_early[i1 * 32 + i2];
            const float v8 = w16[i1 * 32 + i2];
            const float v11 = w18[i1 * 32 + i2];
            const float bh_value = bh[i2];
            const float v14 = x1_early[i1 * 32 + i2];
            const float h0 = h0_now[i1 * 32 + i2];
            const float v5 = v3 + v4;
            const float v6 = gs_sigmoid_f32(v5);
            const float v9 = v7 + v8;
            const float v10 = gs_sigmoid_f32(v9);
            const float v13 = v11 + bh_value;
            const float v15 = v10 * v13;
            const float v16 = v14 + v15;
            const float v17 = gs_tanh_f32(v16);
            const float v18 = 1.0f - v6;
            const float v19 = v18 * v17;
            const float v21 = v6 * h0;
            const float v22 = v19 + v21;
            y1[t * z1 + i1 * 32 + i2] = v6;
            y2[t * z2 + i1 * 32 + i2] = v10;
            y3[t * z3 + i1 * 32 + i2] = v13;
            y4[t * z4 + i1 * 32 + i2] = v17;
            y0[t * z0 + i1 * 32 + i2] = v22;
            y0_here[i1 * 32 + i2] = v22;
            gs_copy(x0_early + i1 * 32 + i2, x0 + next_t * s1_0 + i1 * s1_1 + i2);
            gs_copy(x2_early + i1 * 32 + i2, x2 + next_t * s3_0 + i1 * s3_1 + i2);
            gs_copy(x1_early + i1 * 32 + i2, x1 + next_t * s2_0 + i1 * s2_1 + i2);
        }
    }
    gs_finish(done, last);
}
