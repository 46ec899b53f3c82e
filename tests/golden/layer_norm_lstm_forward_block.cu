#include "persistent.h"

extern "C" __global__ void __launch_bounds__(256, 1) loop(const float *__restrict__ x0,
        const float *__restrict__ x1, const float *__restrict__ U, const long long *__restrict__ k1,
        const long long *__restrict__ k2, const float *__restrict__ k3,
        const float *__restrict__ k4, const float *__restrict__ k5, const float *__restrict__ k6,
        float *y0, float *y1, float *y2, float *y3, float *y4, float *y5, float *y6, float *y7,
        float *y8, float *y9, float *y10, float *a0, float *a1, unsigned long long *rng_0_0,
        unsigned long long *rng_0_1, const unsigned long long *__restrict__ l26, long long *done,
        long long last, long long rows, long long rows_a_block, long long sums_float32_place,
        long long w25_place, long long w27_place, long long w28_place, long long w30_place,
        long long w31_place, long long w32_place, long long w33_place, long long w34_place,
        long long w35_place, long long w36_place, long long w37_place, long long w38_place,
        long long w39_place, long long w40_place, long long w41_place, long long w42_place,
        long long s1_0, long long s1_1, long long s2_0, long long s2_1, long long s6_0,
        long long s6_1, long long z0, long long z1, long long z2, long long z3, long long z4,
        long long z5, long long z6, long long z7, long long z8, long long z9, long long z10) {
    GS_SHARED(shared);
    const long long row = blockIdx.x * rows_a_block;
    const long long n7 = rows - row < rows_a_block ? rows - row : rows_a_block;
    x0 += row * s1_1;
    x1 += row * s2_1;
    y0 += row * 32;
    y1 += row * 32;
    y2 += row * 32;
    y3 += row;
    y4 += row;
    y5 += row;
    y6 += row * 128;
    y7 += row * 32;
    y8 += row * 32;
    y9 += row * 32;
    y10 += row * 32;
    a0 += row * 32;
    a1 += row * 32;
    rng_0_0 += blockIdx.x * 2;
    rng_0_1 += blockIdx.x * 2;
    gs_held<float, 32, 128, 256, 1> p29_held;
    p29_held.clear();
    float *const sums_float32 = (float *)(shared + sums_float32_place);
    float *const w25 = (float *)(shared + w25_place);
    float *const w27 = (float *)(shared + w27_place);
    float *const w28 = (float *)(shared + w28_place);
    float *const w30 = (float *)(shared + w30_place);
    float *const w31 = (float *)(shared + w31_place);
    float *const w32 = (float *)(shared + w32_place);
    float *const w33 = (float *)(shared + w33_place);
    float *const w34 = (float *)(shared + w34_place);
    float *const w35 = (float *)(shared + w35_place);
    float *const w36 = (float *)(shared + w36_place);
    float *const w37 = (float *)(shared + w37_place);
    float *const w38 = (float *)(shared + w38_place);
    float *const w39 = (float *)(shared + w39_place);
    float *const w40 = (float *)(shared + w40_place);
    float *const w41 = (float *)(shared + w41_place);
    float *const w42 = (float *)(shared + w42_place);
    const long long q1 = k1[0];
    const long long q2 = k2[0];
    p29_held.load(0, U, s6_0, s6_1, 128, sums_float32);
    for (long long t = 0; t < last; t++) {
        const float *const c0 = t ? y0 + (t - 1) * z0 : a0;
        const float *const c1 = t ? y2 + (t - 1) * z2 : a1;
        const unsigned long long *const rng_0_now = t % 2 ? rng_0_1 : rng_0_0;
        unsigned long long *const rng_0_next = t % 2 ? rng_0_0 : rng_0_1;
        __syncthreads();
        for (int all_i4 = threadIdx.x; all_i4 < n7 * 32; all_i4 += blockDim.x) {
            const long long i3 = all_i4 / 32;
            const long long i4 = all_i4 % 32;
            const float v5 = x0[t * s1_0 + i3 * s1_1];
            const float v6 = c0[i3 * 32 + i4];
            const float v7 = v5 * v6;
            w25[i3 * 32 + i4] = v7;
        }
        for (long long i8 = threadIdx.x; i8 < 2; i8 += blockDim.x) {
            const unsigned long long v9 = rng_0_now[i8];
            const unsigned long long v10 = l26[i8];
            const unsigned long long v11 = v9 + v10;
            rng_0_next[i8] = v11;
        }
        __syncthreads();
        gs_uniform_rows_f32(rng_0_now, row * 32, n7, 32, 32, w27, 32);
        __syncthreads();
        p29_held.multiply(n7, w25, 32, 1, 128, sums_float32, w28);
        for (int all_i13 = threadIdx.x; all_i13 < n7 * 32; all_i13 += blockDim.x) {
            const long long i12 = all_i13 / 32;
            const long long i13 = all_i13 % 32;
            const float v14 = w27[i12 * 32 + i13];
            const unsigned char v15 = v14 < 0x1.99999a0000000p-3f;
            const float v16 = v15 ? 0x1.0000000000000p+0f : 0x0.0p+0f;
            y1[t * z1 + i12 * 32 + i13] = v16;
            const float v17 = w25[i12 * 32 + i13];
            const float v18 = v16 * v17;
            w30[i12 * 32 + i13] = v18;
            const float v19 = 0x1.0000000000000p+0f - v16;
            w31[i12 * 32 + i13] = v19;
            const float v20 = x0[t * s1_0 + i12 * s1_1];
            const float v21 = c1[i12 * 32 + i13];
            const float v22 = v20 * v21;
            const float v23 = v16 * v22;
            w32[i12 * 32 + i13] = v23;
        }
        __syncthreads();
        for (long long i24 = threadIdx.x / GS_WARP; i24 < n7; i24 += blockDim.x / GS_WARP) {
            float s25 = 0x0.0p+0f;
            for (long long i26 = threadIdx.x % GS_WARP; i26 < 128; i26 += GS_WARP) {
                const float v27 = w28[i24 * 128 + i26];
                s25 = s25 + v27;
            }
            s25 = gs_warp_sum_f32(s25);
            if (threadIdx.x % GS_WARP == 0) {
                w33[i24] = s25;
            }
        }
        __syncthreads();
        for (long long i28 = threadIdx.x; i28 < n7; i28 += blockDim.x) {
            const float v29 = w33[i28];
            const float v30 = k4[0];
            const float v31 = v29 / v30;
            w34[i28] = v31;
        }
        __syncthreads();
        for (int all_i33 = threadIdx.x; all_i33 < n7 * 128; all_i33 += blockDim.x) {
            const long long i32 = all_i33 / 128;
            const long long i33 = all_i33 % 128;
            const float v34 = w28[i32 * 128 + i33];
            const float v35 = w34[i32];
            const float v36 = v34 - v35;
            y6[t * z6 + i32 * 128 + i33] = v36;
            const float v37 = gs_sqr_f32(v36);
            w35[i32 * 128 + i33] = v37;
        }
        __syncthreads();
        for (long long i38 = threadIdx.x / GS_WARP; i38 < n7; i38 += blockDim.x / GS_WARP) {
            float s39 = 0x0.0p+0f;
            for (long long i40 = threadIdx.x % GS_WARP; i40 < 128; i40 += GS_WARP) {
                const float v41 = w35[i38 * 128 + i40];
                s39 = s39 + v41;
            }
            s39 = gs_warp_sum_f32(s39);
            if (threadIdx.x % GS_WARP == 0) {
                w36[i38] = s39;
            }
        }
        __syncthreads();
        for (long long i42 = threadIdx.x; i42 < n7; i42 += blockDim.x) {
            const float v43 = w36[i42];
            const float v44 = k4[0];
            const float v45 = v43 / v44;
            const float v46 = v45 + 0x1.4f8b580000000p-17f;
            const float v47 = gs_sqrt_f32(v46);
            y5[t * z5 + i42] = v47;
        }
        __syncthreads();
        for (int all_i49 = threadIdx.x; all_i49 < n7 * 128; all_i49 += blockDim.x) {
            const long long i48 = all_i49 / 128;
            const long long i49 = all_i49 % 128;
            const float v50 = x1[t * s2_0 + i48 * s2_1 + i49];
            const float v51 = k3[i49];
            const float v52 = y6[t * z6 + i48 * 128 + i49];
            const float v53 = y5[t * z5 + i48];
            const float v54 = v52 / v53;
            const float v55 = v51 * v54;
            const float v56 = v50 + v55;
            const float v57 = k5[i49];
            const float v58 = v56 + v57;
            w37[i48 * 128 + i49] = v58;
        }
        __syncthreads();
        for (int all_i60 = threadIdx.x; all_i60 < n7 * 32; all_i60 += blockDim.x) {
            const long long i59 = all_i60 / 32;
            const long long i60 = all_i60 % 32;
            const float v61 = w37[i59 * 128 + (i60 + 64)];
            const float v62 = gs_sigmoid_f32(v61);
            y7[t * z7 + i59 * 32 + i60] = v62;
            const float v63 = w37[i59 * 128 + (i60 + 32)];
            const float v64 = gs_sigmoid_f32(v63);
            y8[t * z8 + i59 * 32 + i60] = v64;
            const float v65 = w37[i59 * 128 + i60];
            const float v66 = gs_sigmoid_f32(v65);
            y9[t * z9 + i59 * 32 + i60] = v66;
            const float v67 = w37[i59 * 128 + (i60 + 96)];
            const float v68 = gs_tanh_f32(v67);
            y10[t * z10 + i59 * 32 + i60] = v68;
            const float v69 = x0[t * s1_0 + i59 * s1_1];
            const float v70 = c1[i59 * 32 + i60];
            const float v71 = v69 * v70;
            const float v72 = v64 * v71;
            const float v73 = v66 * v68;
            const float v74 = v72 + v73;
            w38[i59 * 32 + i60] = v74;
            const float v75 = w32[i59 * 32 + i60];
            const float v76 = w31[i59 * 32 + i60];
            const float v77 = v76 * v74;
            const float v78 = v75 + v77;
            y2[t * z2 + i59 * 32 + i60] = v78;
        }
        __syncthreads();
        for (long long i79 = threadIdx.x / GS_WARP; i79 < n7; i79 += blockDim.x / GS_WARP) {
            float s80 = 0x0.0p+0f;
            for (long long i81 = threadIdx.x % GS_WARP; i81 < 32; i81 += GS_WARP) {
                const float v82 = w38[i79 * 32 + i81];
                s80 = s80 + v82;
            }
            s80 = gs_warp_sum_f32(s80);
            if (threadIdx.x % GS_WARP == 0) {
                w39[i79] = s80;
            }
        }
        __syncthreads();
        for (long long i83 = threadIdx.x; i83 < n7; i83 += blockDim.x) {
            const float v84 = w39[i83];
            const float v85 = k6[0];
            const float v86 = v84 / v85;
            y4[t * z4 + i83] = v86;
        }
        __syncthreads();
        for (int all_i88 = threadIdx.x; all_i88 < n7 * 32; all_i88 += blockDim.x) {
            const long long i87 = all_i88 / 32;
            const long long i88 = all_i88 % 32;
            const float v89 = w38[i87 * 32 + i88];
            const float v90 = y4[t * z4 + i87];
            const float v91 = v89 - v90;
            w40[i87 * 32 + i88] = v91;
            const float v92 = gs_sqr_f32(v91);
            w41[i87 * 32 + i88] = v92;
        }
        __syncthreads();
        for (long long i93 = threadIdx.x / GS_WARP; i93 < n7; i93 += blockDim.x / GS_WARP) {
            float s94 = 0x0.0p+0f;
            for (long long i95 = threadIdx.x % GS_WARP; i95 < 32; i95 += GS_WARP) {
                const float v96 = w41[i93 * 32 + i95];
                s94 = s94 + v96;
            }
            s94 = gs_warp_sum_f32(s94);
            if (threadIdx.x % GS_WARP == 0) {
                w42[i93] = s94;
            }
        }
        __syncthreads();
        for (long long i97 = threadIdx.x; i97 < n7; i97 += blockDim.x) {
            const float v98 = w42[i97];
            const float v99 = k6[0];
            const float v100 = v98 / v99;
            const float v101 = v100 + 0x1.4f8b580000000p-17f;
            const float v102 = gs_sqrt_f32(v101);
            y3[t * z3 + i97] = v102;
        }
        __syncthreads();
        for (int all_i104 = threadIdx.x; all_i104 < n7 * 32; all_i104 += blockDim.x) {
            const long long i103 = all_i104 / 32;
            const long long i104 = all_i104 % 32;
            const float v105 = w30[i103 * 32 + i104];
            const float v106 = w31[i103 * 32 + i104];
            const float v107 = y7[t * z7 + i103 * 32 + i104];
            const float v108 = w40[i103 * 32 + i104];
            const float v109 = y3[t * z3 + i103];
            const float v110 = v108 / v109;
            const float v111 = gs_tanh_f32(v110);
            const float v112 = v107 * v111;
            const float v113 = v106 * v112;
            const float v114 = v105 + v113;
            y0[t * z0 + i103 * 32 + i104] = v114;
        }
    }
    gs_finish(done, last);
    return;
}
