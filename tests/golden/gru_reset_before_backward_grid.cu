#include "persistent.h"

extern "C" __global__ void __launch_bounds__(256, 1) loop(const float *__restrict__ x0,
        const float *__restrict__ x1, const float *__restrict__ x2, const float *__restrict__ x3,
        const float *__restrict__ x4, const float *__restrict__ x5, const float *__restrict__ k2,
        const float *__restrict__ k3, const long long *__restrict__ k4, float *y0, float *a0,
        float *b0, float *a1, float *b1, long long *meeting, float *w17, float *w24,
        long long *done, long long last, long long sums_float32_place, long long p25_place,
        long long w18_place, long long w19_place, long long w21_place, long long w22_place,
        long long x2_early_place, long long x3_early_place, long long n22, long long s1_0,
        long long s1_1, long long s2_0, long long s2_1, long long s3_0, long long s3_1,
        long long s4_0, long long s4_1, long long s5_0, long long s5_1, long long s6_0,
        long long s6_1, long long s11_0, long long s11_1, long long s12_0, long long s12_1,
        long long n25, long long z0) {
    GS_SHARED(shared);
    const long long u0_first = 4 * (64 * blockIdx.x / gridDim.x);
    const long long u0_end = 4 * (64 * (blockIdx.x + 1) / gridDim.x);
    const long long u0_count = u0_end - u0_first;
    const long long u1_first = 4 * (0 / gridDim.x);
    const long long u1_end = 4 * (0 / gridDim.x);
    const long long u1_count = u1_end - u1_first;
    const long long u2_first = 4 * (0 / gridDim.x);
    const long long u2_end = 4 * (0 / gridDim.x);
    const long long u2_count = u2_end - u2_first;
    const long long u3_first = 4 * (128 * blockIdx.x / gridDim.x);
    const long long u3_end = 4 * (128 * (blockIdx.x + 1) / gridDim.x);
    const long long u3_count = u3_end - u3_first;
    const long long u4_first = 4 * (192 * blockIdx.x / gridDim.x);
    const long long u4_end = 4 * (192 * (blockIdx.x + 1) / gridDim.x);
    const long long u4_count = u4_end - u4_first;
    gs_held<float, 512, 4, 256, 1> p23_held;
    p23_held.clear();
    gs_held<float, 256, 4, 256, 1> p20_held;
    p20_held.clear();
    float *const sums_float32 = (float *)(shared + sums_float32_place);
    float *const p25 = (float *)(shared + p25_place);
    float *const w18 = (float *)(shared + w18_place);
    float *const w19 = (float *)(shared + w19_place);
    float *const w21 = (float *)(shared + w21_place);
    float *const w22 = (float *)(shared + w22_place);
    float *const x2_early = (float *)(shared + x2_early_place);
    float *const x3_early = (float *)(shared + x3_early_place);
    const long long q1 = k4[0];
    p20_held.load(0, k2 + u0_first * s11_1, s11_0, s11_1, u0_count, sums_float32);
    __syncthreads();
    p23_held.load(0, k3 + u0_first * s12_1, s12_0, s12_1, u0_count, sums_float32);
    for (long long t = 0; t < last; t++) {
        const float *const c0 = t % 2 ? b0 : a0;
        float *const d0 = t % 2 ? a0 : b0;
        const float *const c1 = t % 2 ? b1 : a1;
        float *const d1 = t % 2 ? a1 : b1;
        for (int all_i3 = threadIdx.x; all_i3 < 16 * u0_count; all_i3 += blockDim.x) {
            const long long i2 = all_i3 / (int)u0_count;
            const long long i3 = u0_first + all_i3 % (int)u0_count;
            const float v4 = c0[i2 * 256 + i3];
            const float v5 = x4[t * s5_0 + i2 * s5_1 + i3];
            const float v6 = v4 + v5;
            const float v7 = x1[t * s2_0 + i2 * s2_1 + i3];
            const float v8 = v6 * v7;
            w18[0 - u0_first + i2 * u0_count + i3] = v8;
            const float v9 = 0x1.0000000000000p+0f - v7;
            const float v10 = v6 * v9;
            const float v11 = x0[t * s1_0 + i2 * s1_1 + i3];
            const float v12 = v11 * v11;
            const float v13 = 0x1.0000000000000p+0f - v12;
            const float v14 = v10 * v13;
            y0[t * z0 + 256 + 256 + i2 * n25 + i3] = v14;
            const float v15 = x3[t * s4_0 + i2 * s4_1 + i3];
            const float v16 = v6 * v15;
            const float v17 = v16 * v7;
            const float v18 = v17 * v9;
            const float v19 = v6 * v11;
            const float v20 = v19 * v7;
            const float v21 = v20 * v9;
            const float v22 = -v21;
            const float v23 = v18 + v22;
            w17[256 + i2 * 512 + i3] = v23;
        }
        const gs_u64 ticket = gs_enter(meeting);
        for (int all_i25 = threadIdx.x; all_i25 < 16 * u0_count; all_i25 += blockDim.x) {
            const long long i24 = all_i25 / (int)u0_count;
            const long long i25 = u0_first + all_i25 % (int)u0_count;
            x2_early[i24 * u0_count + (i25 - u0_first)] = x2[t * s3_0 + i24 * s3_1 + i25];
            x3_early[i24 * u0_count + (i25 - u0_first)] = x3[t * s4_0 + i24 * s4_1 + i25];
        }
        if (gs_leave(meeting, ticket)) return;
        p20_held.multiply(16, y0 + t * z0 + 256 + 256, n25, 1, u0_count, sums_float32, w19);
        __syncthreads();
        for (int all_i25 = threadIdx.x; all_i25 < 16 * u0_count; all_i25 += blockDim.x) {
            const long long i24 = all_i25 / (int)u0_count;
            const long long i25 = u0_first + all_i25 % (int)u0_count;
            const float v26 = w18[0 - u0_first + i24 * u0_count + i25];
            const float v27 = w19[0 - u0_first + i24 * u0_count + i25];
            const float v28 = x2_early[i24 * u0_count + (i25 - u0_first)];
            const float v29 = v27 * v28;
            const float v30 = v26 + v29;
            w21[0 - u0_first + i24 * u0_count + i25] = v30;
            const float v31 = x3_early[i24 * u0_count + (i25 - u0_first)];
            const float v32 = v27 * v31;
            const float v33 = v32 * v28;
            const float v34 = 0x1.0000000000000p+0f - v28;
            const float v35 = v33 * v34;
            w17[i24 * 512 + i25] = v35;
        }
        __syncthreads();
        for (int all_i37 = threadIdx.x; all_i37 < 16 * u1_count; all_i37 += blockDim.x) {
            const long long i36 = all_i37 / (int)u1_count;
            const long long i37 = u1_first + all_i37 % (int)u1_count;
            w17[512 + i36 * 512 + i37] = 0x0.0p+0f;
        }
        __syncthreads();
        for (int all_i39 = threadIdx.x; all_i39 < 16 * u0_count; all_i39 += blockDim.x) {
            const long long i38 = all_i39 / (int)u0_count;
            const long long i39 = u0_first + all_i39 % (int)u0_count;
            const float v40 = w17[i38 * 512 + i39];
            y0[t * z0 + i38 * n25 + i39] = v40;
        }
        __syncthreads();
        for (int all_i42 = threadIdx.x; all_i42 < 16 * u0_count; all_i42 += blockDim.x) {
            const long long i41 = all_i42 / (int)u0_count;
            const long long i42 = u0_first + all_i42 % (int)u0_count;
            const float v43 = w17[256 + i41 * 512 + i42];
            y0[t * z0 + 256 + i41 * n25 + i42] = v43;
        }
        __syncthreads();
        for (int all_i45 = threadIdx.x; all_i45 < 16 * u2_count; all_i45 += blockDim.x) {
            const long long i44 = all_i45 / (int)u2_count;
            const long long i45 = u2_first + all_i45 % (int)u2_count;
            y0[t * z0 + 256 + 256 + 256 + i44 * n25 + i45] = 0x0.0p+0f;
        }
        if (gs_meet(meeting)) return;
        p23_held.multiply(16, w17, 512, 1, u0_count, sums_float32, w22);
        gs_pack_f32(16, u3_count, w17 + u3_first, 512, 1, p25);
        __syncthreads();
        gs_gemm_f32(n22, u3_count, 16, x5 + t * s6_0, s6_1, 1, p25, w24 + u3_first, 512);
        for (int all_i47 = threadIdx.x; all_i47 < 16 * u0_count; all_i47 += blockDim.x) {
            const long long i46 = all_i47 / (int)u0_count;
            const long long i47 = u0_first + all_i47 % (int)u0_count;
            const float v48 = w21[0 - u0_first + i46 * u0_count + i47];
            const float v49 = w22[0 - u0_first + i46 * u0_count + i47];
            const float v50 = v48 + v49;
            d0[i46 * 256 + i47] = v50;
        }
        if (gs_meet(meeting)) return;
        for (int all_i52 = threadIdx.x; all_i52 < n22 * u4_count; all_i52 += blockDim.x) {
            const long long i51 = all_i52 / (int)u4_count;
            const long long i52 = u4_first + all_i52 % (int)u4_count;
            const float v53 = c1[i51 * 768 + i52];
            const float v54 = i52 < 512 ? w24[i51 * 512 + i52] : 0x0.0p+0f;
            const float v55 = i52 < 512 ? (0x0.0p+0f + v54) : 0x0.0p+0f;
            const float v56 = v53 + v55;
            d1[i51 * 768 + i52] = v56;
        }
    }
    gs_finish(done, last);
    return;
}
