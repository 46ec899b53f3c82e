#include "persistent.h"
#include "held.h"

extern "C" __global__ void __launch_bounds__(256, 1) loop(const float *__restrict__ x0,
        const float *__restrict__ x1, const float *__restrict__ x2, const float *__restrict__ x3,
        const float *__restrict__ h0, const float *__restrict__ x5, const float *__restrict__ U_T,
        float *y0, float *y1, float *h0_grad_0, float *h0_grad_1, long long *done, long long last,
        long long rows, long long rows_a_block, long long sums_float32_place, long long w14_place,
        long long w15_place, long long y1_here_place, long long x5_early_place,
        long long x0_early_place, long long x3_early_place, long long x2_early_place,
        long long x1_early_place, long long h0_early_place, long long s1_0, long long s1_1,
        long long s2_0, long long s2_1, long long s3_0, long long s3_1, long long s4_0,
        long long s4_1, long long s5_0, long long s5_1, long long s6_0, long long s6_1,
        long long s10_0, long long s10_1, long long n17, long long z0, long long z1) {
    GS_SHARED(shared);
    const long long row = blockIdx.x * rows_a_block;
    const long long n0 = rows - row < rows_a_block ? rows - row : rows_a_block;
    x0 += row * s1_1;
    x1 += row * s2_1;
    x2 += row * s3_1;
    x3 += row * s4_1;
    h0 += row * s5_1;
    x5 += row * s6_1;
    y0 += row * n17;
    y1 += row * 96;
    h0_grad_0 += row * 32;
    h0_grad_1 += row * 32;
    gs_held<float, 96, 32, 256, 1> p16_held;
    p16_held.clear();
    float *const sums_float32 = (float *)(shared + sums_float32_place);
    float *const w14 = (float *)(shared + w14_place);
    float *const w15 = (float *)(shared + w15_place);
    float *const y1_here = (float *)(shared + y1_here_place);
    float *const x5_early = (float *)(shared + x5_early_place);
    float *const x0_early = (float *)(shared + x0_early_place);
    float *const x3_early = (float *)(shared + x3_early_place);
    float *const x2_early = (float *)(shared + x2_early_place);
    float *const x1_early = (float *)(shared + x1_early_place);
    float *const h0_early = (float *)(shared + h0_early_place);
    p16_held.load(0, U_T, s10_0, s10_1, 32, sums_float32);
    if (last > 0) {
        for (int all_i2 = threadIdx.x; all_i2 < n0 * 32; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / 32;
            const long long i2 = all_i2 % 32;
            gs_copy(x5_early + i1 * 32 + i2, x5 + i1 * s6_1 + i2);
            gs_copy(x0_early + i1 * 32 + i2, x0 + i1 * s1_1 + i2);
            gs_copy(x3_early + i1 * 32 + i2, x3 + i1 * s4_1 + i2);
            gs_copy(x2_early + i1 * 32 + i2, x2 + i1 * s3_1 + i2);
            gs_copy(x1_early + i1 * 32 + i2, x1 + i1 * s2_1 + i2);
            gs_copy(h0_early + i1 * 32 + i2, h0 + i1 * s5_1 + i2);
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
            const float v4 = x5_early[i1 * 32 + i2];
            const float v6 = x0_early[i1 * 32 + i2];
            const float v10 = x3_early[i1 * 32 + i2];
            const float v14 = x2_early[i1 * 32 + i2];
            const float v16 = x1_early[i1 * 32 + i2];
            const float h0_value = h0_early[i1 * 32 + i2];
            const float v5 = h0_grad + v4;
            const float v7 = v5 * v6;
            const float v8 = 1.0f - v6;
            const float v9 = v5 * v8;
            const float v11 = v10 * v10;
            const float v12 = 1.0f - v11;
            const float v13 = v9 * v12;
            const float v15 = v13 * v14;
            const float v17 = v15 * v16;
            const float v18 = 1.0f - v16;
            const float v19 = v17 * v18;
            const float v21 = v5 * h0_value;
            const float v22 = v21 * v6;
            const float v23 = v22 * v8;
            const float v24 = v5 * v10;
            const float v25 = v24 * v6;
            const float v26 = v25 * v8;
            const float v27 = -v26;
            const float v28 = v23 + v27;
            const float v29 = v13 * v16;
            w14[i1 * 32 + i2] = v7;
            y0[t * z0 + 32 + 32 + i1 * n17 + i2] = v13;
            y1[t * z1 + i1 * 96 + i2] = v19;
            y1[t * z1 + 32 + i1 * 96 + i2] = v28;
            y1[t * z1 + 32 + 32 + i1 * 96 + i2] = v29;
            y1_here[i1 * 96 + i2] = v19;
            y1_here[32 + i1 * 96 + i2] = v28;
            y1_here[64 + i1 * 96 + i2] = v29;
            gs_copy(x5_early + i1 * 32 + i2, x5 + next_t * s6_0 + i1 * s6_1 + i2);
            gs_copy(x0_early + i1 * 32 + i2, x0 + next_t * s1_0 + i1 * s1_1 + i2);
            gs_copy(x3_early + i1 * 32 + i2, x3 + next_t * s4_0 + i1 * s4_1 + i2);
            gs_copy(x2_early + i1 * 32 + i2, x2 + next_t * s3_0 + i1 * s3_1 + i2);
            gs_copy(x1_early + i1 * 32 + i2, x1 + next_t * s2_0 + i1 * s2_1 + i2);
            gs_copy(h0_early + i1 * 32 + i2, h0 + next_t * s5_0 + i1 * s5_1 + i2);
        }
        __syncthreads();
        for (int all_i33 = threadIdx.x; all_i33 < n0 * 32; all_i33 += blockDim.x) {
            const long long i32 = all_i33 / 32;
            const long long i33 = all_i33 % 32;
            const float v34 = y1[t * z1 + i32 * 96 + i33];
            y0[t * z0 + i32 * n17 + i33] = v34;
        }
        __syncthreads();
        for (int all_i36 = threadIdx.x; all_i36 < n0 * 32; all_i36 += blockDim.x) {
            const long long i35 = all_i36 / 32;
            const long long i36 = all_i36 % 32;
            const float v37 = y1[t * z1 + 32 + i35 * 96 + i36];
            y0[t * z0 + 32 + i35 * n17 + i36] = v37;
        }
        __syncthreads();
        p16_held.multiply(n0, y1_here, 96, 1, 32, sums_float32, w15);
        __syncthreads();
        for (int all_i41 = threadIdx.x; all_i41 < n0 * 32; all_i41 += blockDim.x) {
            const long long i40 = all_i41 / 32;
            const long long i41 = all_i41 % 32;
            const float v42 = w14[i40 * 32 + i41];
            const float v43 = w15[i40 * 32 + i41];
            const float v44 = v42 + v43;
            h0_grad_next[i40 * 32 + i41] = v44;
        }
    }
    gs_finish(done, last);
}
