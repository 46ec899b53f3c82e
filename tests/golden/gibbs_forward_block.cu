#include "persistent.h"
#include "scalars.h"
#include "block_draws.h"
#include "held.h"

extern "C" __global__ void __launch_bounds__(256, 1) loop(const float *__restrict__ W,
        const float *__restrict__ bh, const float *__restrict__ W_T, const float *__restrict__ bv,
        float *y0, float *a0, unsigned long long *rng_1_0, unsigned long long *rng_1_1,
        unsigned long long *rng_0_0, unsigned long long *rng_0_1,
        const unsigned long long *__restrict__ l14, long long *done, long long last, long long rows,
        long long rows_a_block, long long sums_float32_place, long long w15_place,
        long long w16_place, long long w17_place, long long w19_place, long long w20_place,
        long long y0_here_place, long long s4_0, long long s4_1, long long s9_0, long long s9_1,
        long long z0) {
    GS_SHARED(shared);
    const long long row = blockIdx.x * rows_a_block;
    const long long n7 = rows - row < rows_a_block ? rows - row : rows_a_block;
    y0 += row * 48;
    a0 += row * 48;
    rng_1_0 += blockIdx.x * 3;
    rng_1_1 += blockIdx.x * 3;
    rng_0_0 += blockIdx.x * 3;
    rng_0_1 += blockIdx.x * 3;
    gs_held<float, 48, 32, 256, 1> p18_held;
    p18_held.clear();
    gs_held<float, 32, 48, 256, 1> p21_held;
    p21_held.clear();
    float *const sums_float32 = (float *)(shared + sums_float32_place);
    float *const w15 = (float *)(shared + w15_place);
    float *const w16 = (float *)(shared + w16_place);
    float *const w17 = (float *)(shared + w17_place);
    float *const w19 = (float *)(shared + w19_place);
    float *const w20 = (float *)(shared + w20_place);
    float *const y0_here = (float *)(shared + y0_here_place);
    p18_held.load(0, W, s4_0, s4_1, 32, sums_float32);
    __syncthreads();
    p21_held.load(0, W_T, s9_0, s9_1, 48, sums_float32);
    for (int all_i20 = threadIdx.x; all_i20 < n7 * 48; all_i20 += blockDim.x) {
        const long long i19 = all_i20 / 48;
        const long long i20 = all_i20 % 48;
        const float first_value = a0[i19 * 48 + i20];
        y0_here[i19 * 48 + i20] = first_value;
    }
    for (long long t = 0; t < last; t++) {
        const float *const c0 = t ? y0 + (t - 1) * z0 : a0;
        const unsigned long long *const rng_1_now = t % 2 ? rng_1_1 : rng_1_0;
        unsigned long long *const rng_1_next = t % 2 ? rng_1_0 : rng_1_1;
        const unsigned long long *const rng_0_now = t % 2 ? rng_0_1 : rng_0_0;
        unsigned long long *const rng_0_next = t % 2 ? rng_0_0 : rng_0_1;
        for (long long i4 = threadIdx.x; i4 < 3; i4 += blockDim.x) {
            const unsigned long long rng_1 = rng_1_now[i4];
            const unsigned long long v6 = l14[i4];
            const unsigned long long rng_0 = rng_0_now[i4];
            const unsigned long long v7 = rng_1 + v6;
            const unsigned long long v9 = rng_0 + v6;
            rng_1_next[i4] = v7;
            rng_0_next[i4] = v9;
        }
        __syncthreads();
        gs_uniform_rows_f32(rng_1_now, 48, row * 48, n7, 48, 48, w15, 48);
        gs_uniform_rows_f32(rng_0_now, 32, row * 32, n7, 32, 32, w16, 32);
        __syncthreads();
        p18_held.multiply(n7, y0_here, 48, 1, 32, sums_float32, w17);
        __syncthreads();
        for (int all_i11 = threadIdx.x; all_i11 < n7 * 32; all_i11 += blockDim.x) {
            const long long i10 = all_i11 / 32;
            const long long i11 = all_i11 % 32;
            const float v12 = w16[i10 * 32 + i11];
            const float v13 = w17[i10 * 32 + i11];
            const float bh_value = bh[i11];
            const float v15 = v13 + bh_value;
            const float v16 = gs_sigmoid_f32(v15);
            const unsigned char v17 = v12 < v16;
            const float v18 = v17 ? 1.0f : 0.0f;
            w19[i10 * 32 + i11] = v18;
        }
        __syncthreads();
        p21_held.multiply(n7, w19, 32, 1, 48, sums_float32, w20);
        __syncthreads();
        for (int all_i20 = threadIdx.x; all_i20 < n7 * 48; all_i20 += blockDim.x) {
            const long long i19 = all_i20 / 48;
            const long long i20 = all_i20 % 48;
            const float v21 = w15[i19 * 48 + i20];
            const float v22 = w20[i19 * 48 + i20];
            const float bv_value = bv[i20];
            const float v24 = v22 + bv_value;
            const float v25 = gs_sigmoid_f32(v24);
            const unsigned char v26 = v21 < v25;
            const float v27 = v26 ? 1.0f : 0.0f;
            y0[t * z0 + i19 * 48 + i20] = v27;
            y0_here[i19 * 48 + i20] = v27;
        }
    }
    gs_finish(done, last);
}
