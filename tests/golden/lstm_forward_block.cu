#include "persistent.h"
#include "scalars.h"
#include "held.h"

extern "C" __global__ void __launch_bounds__(256, 1) loop(const float *__restrict__ x0,
        const float *__restrict__ x1, const float *__restrict__ x2, const float *__restrict__ x3,
        const float *__restrict__ U, const float *__restrict__ b, const float *__restrict__ U_2,
        const float *__restrict__ b_3, const float *__restrict__ U_4, const float *__restrict__ b_5,
        const float *__restrict__ U_6, const float *__restrict__ b_7, float *y0, float *y1,
        float *y2, float *y3, float *y4, float *y5, float *h0_0, float *a1, long long *done,
        long long last, long long rows, long long rows_a_block, long long sums_float32_place,
        long long w21_place, long long w23_place, long long w25_place, long long w27_place,
        long long y0_here_place, long long x0_early_place, long long x1_early_place,
        long long x2_early_place, long long x3_early_place, long long s1_0, long long s1_1,
        long long s2_0, long long s2_1, long long s3_0, long long s3_1, long long s4_0,
        long long s4_1, long long s7_0, long long s7_1, long long s9_0, long long s9_1,
        long long s11_0, long long s11_1, long long s13_0, long long s13_1, long long z0,
        long long z1, long long z2, long long z3, long long z4, long long z5) {
    GS_SHARED(shared);
    const long long row = blockIdx.x * rows_a_block;
    const long long n20 = rows - row < rows_a_block ? rows - row : rows_a_block;
    x0 += row * s1_1;
    x1 += row * s2_1;
    x2 += row * s3_1;
    x3 += row * s4_1;
    y0 += row * 32;
    y1 += row * 32;
    y2 += row * 32;
    y3 += row * 32;
    y4 += row * 32;
    y5 += row * 32;
    h0_0 += row * 32;
    a1 += row * 32;
    gs_held<float, 32, 32, 256, 4> p22_held;
    p22_held.clear();
    float *const sums_float32 = (float *)(shared + sums_float32_place);
    float *const w21 = (float *)(shared + w21_place);
    float *const w23 = (float *)(shared + w23_place);
    float *const w25 = (float *)(shared + w25_place);
    float *const w27 = (float *)(shared + w27_place);
    float *const y0_here = (float *)(shared + y0_here_place);
    float *const x0_early = (float *)(shared + x0_early_place);
    float *const x1_early = (float *)(shared + x1_early_place);
    float *const x2_early = (float *)(shared + x2_early_place);
    float *const x3_early = (float *)(shared + x3_early_place);
    p22_held.load(0, U, s7_0, s7_1, 32, sums_float32);
    __syncthreads();
    p22_held.load(1, U_2, s9_0, s9_1, 32, sums_float32);
    __syncthreads();
    p22_held.load(2, U_4, s11_0, s11_1, 32, sums_float32);
    __syncthreads();
    p22_held.load(3, U_6, s13_0, s13_1, 32, sums_float32);
    for (int all_i2 = threadIdx.x; all_i2 < n20 * 32; all_i2 += blockDim.x) {
        const long long i1 = all_i2 / 32;
        const long long i2 = all_i2 % 32;
        const float first_value = h0_0[i1 * 32 + i2];
        y0_here[i1 * 32 + i2] = first_value;
    }
    if (last > 0) {
        for (int all_i2 = threadIdx.x; all_i2 < n20 * 32; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / 32;
            const long long i2 = all_i2 % 32;
            gs_copy(x0_early + i1 * 32 + i2, x0 + i1 * s1_1 + i2);
            gs_copy(x1_early + i1 * 32 + i2, x1 + i1 * s2_1 + i2);
            gs_copy(x2_early + i1 * 32 + i2, x2 + i1 * s3_1 + i2);
            gs_copy(x3_early + i1 * 32 + i2, x3 + i1 * s4_1 + i2);
        }
    }
    for (long long t = 0; t < last; t++) {
        const long long next_t = t + 1 < last ? t + 1 : t;
        const float *const h0_now = t ? y0 + (t - 1) * z0 : h0_0;
        const float *const c1 = t ? y1 + (t - 1) * z1 : a1;
        __syncthreads();
        p22_held.multiply(n20, y0_here, 32, 1, 32, sums_float32, w21, w23, w25, w27);
        __syncthreads();
        gs_copied();
        for (int all_i2 = threadIdx.x; all_i2 < n20 * 32; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / 32;
            const long long i2 = all_i2 % 32;
            const float v3 = x0_early[i1 * 32 + i2];
            const float v4 = w21[i1 * 32 + i2];
            const float b_value = b[i2];
            const float v9 = x1_early[i1 * 32 + i2];
            const float v10 = w23[i1 * 32 + i2];
            const float b_12 = b_3[i2];
            const float v15 = x2_early[i1 * 32 + i2];
            const float v16 = w25[i1 * 32 + i2];
            const float b_18 = b_5[i2];
            const float v21 = x3_early[i1 * 32 + i2];
            const float v22 = w27[i1 * 32 + i2];
            const float b_24 = b_7[i2];
            const float v27 = c1[i1 * 32 + i2];
            const float v5 = v3 + v4;
            const float v7 = v5 + b_value;
            const float v8 = gs_sigmoid_f32(v7);
            const float v11 = v9 + v10;
            const float v13 = v11 + b_12;
            const float v14 = gs_sigmoid_f32(v13);
            const float v17 = v15 + v16;
            const float v19 = v17 + b_18;
            const float v20 = gs_sigmoid_f32(v19);
            const float v23 = v21 + v22;
            const float v25 = v23 + b_24;
            const float v26 = gs_tanh_f32(v25);
            const float v28 = v14 * v27;
            const float v29 = v20 * v26;
            const float v30 = v28 + v29;
            const float v31 = gs_tanh_f32(v30);
            const float v32 = v8 * v31;
            y2[t * z2 + i1 * 32 + i2] = v8;
            y5[t * z5 + i1 * 32 + i2] = v14;
            y3[t * z3 + i1 * 32 + i2] = v20;
            y4[t * z4 + i1 * 32 + i2] = v26;
            y1[t * z1 + i1 * 32 + i2] = v30;
            y0[t * z0 + i1 * 32 + i2] = v32;
            y0_here[i1 * 32 + i2] = v32;
            gs_copy(x0_early + i1 * 32 + i2, x0 + next_t * s1_0 + i1 * s1_1 + i2);
            gs_copy(x1_early + i1 * 32 + i2, x1 + next_t * s2_0 + i1 * s2_1 + i2);
            gs_copy(x2_early + i1 * 32 + i2, x2 + next_t * s3_0 + i1 * s3_1 + i2);
            gs_copy(x3_early + i1 * 32 + i2, x3 + next_t * s4_0 + i1 * s4_1 + i2);
        }
    }
    gs_finish(done, last);
}
