#include "persistent.h"
#include "scalars.h"
#include "block_draws.h"
#include "folds.h"
#include "held.h"

extern "C" __global__ void __launch_bounds__(256, 1) loop(const float *__restrict__ mask,
        const float *__restrict__ x1, const float *__restrict__ x2, const float *__restrict__ x3,
        const float *__restrict__ x4, const float *__restrict__ U, const float *__restrict__ k3,
        const float *__restrict__ k4, const float *__restrict__ gain, const float *__restrict__ b,
        const float *__restrict__ gain_7, const float *__restrict__ b_8,
        const float *__restrict__ gain_9, const float *__restrict__ b_10,
        const float *__restrict__ gain_11, const float *__restrict__ b_12, float *y0, float *y1,
        float *y2, float *y3, float *y4, float *y5, float *y6, float *y7, float *y8, float *y9,
        float *y10, float *h0_0, float *a1, unsigned long long *rng_0_0,
        unsigned long long *rng_0_1, const unsigned long long *__restrict__ l35, long long *done,
        long long last, long long rows, long long rows_a_block, long long sums_float32_place,
        long long w34_place, long long w36_place, long long w37_place, long long w39_place,
        long long w40_place, long long w41_place, long long w42_place, long long w43_place,
        long long w44_place, long long w45_place, long long w46_place, long long w47_place,
        long long w48_place, long long mask_early_place, long long x1_early_place,
        long long x2_early_place, long long x3_early_place, long long x4_early_place,
        long long s1_0, long long s1_1, long long s2_0, long long s2_1, long long s3_0,
        long long s3_1, long long s4_0, long long s4_1, long long s5_0, long long s5_1,
        long long s9_0, long long s9_1, long long z0, long long z1, long long z2, long long z3,
        long long z4, long long z5, long long z6, long long z7, long long z8, long long z9,
        long long z10) {
    GS_SHARED(shared);
    const long long row = blockIdx.x * rows_a_block;
    const long long n24 = rows - row < rows_a_block ? rows - row : rows_a_block;
    mask += row * s1_1;
    x1 += row * s2_1;
    x2 += row * s3_1;
    x3 += row * s4_1;
    x4 += row * s5_1;
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
    h0_0 += row * 32;
    a1 += row * 32;
    rng_0_0 += blockIdx.x * 3;
    rng_0_1 += blockIdx.x * 3;
    gs_held<float, 32, 128, 256, 1> p38_held;
    p38_held.clear();
    float *const sums_float32 = (float *)(shared + sums_float32_place);
    float *const w34 = (float *)(shared + w34_place);
    float *const w36 = (float *)(shared + w36_place);
    float *const w37 = (float *)(shared + w37_place);
    float *const w39 = (float *)(shared + w39_place);
    float *const w40 = (float *)(shared + w40_place);
    float *const w41 = (float *)(shared + w41_place);
    float *const w42 = (float *)(shared + w42_place);
    float *const w43 = (float *)(shared + w43_place);
    float *const w44 = (float *)(shared + w44_place);
    float *const w45 = (float *)(shared + w45_place);
    float *const w46 = (float *)(shared + w46_place);
    float *const w47 = (float *)(shared + w47_place);
    float *const w48 = (float *)(shared + w48_place);
    float *const mask_early = (float *)(shared + mask_early_place);
    float *const x1_early = (float *)(shared + x1_early_place);
    float *const x2_early = (float *)(shared + x2_early_place);
    float *const x3_early = (float *)(shared + x3_early_place);
    float *const x4_early = (float *)(shared + x4_early_place);
    p38_held.load(0, U, s9_0, s9_1, 128, sums_float32);
    if (last > 0) {
        for (int all_i4 = threadIdx.x; all_i4 < n24 * 32; all_i4 += blockDim.x) {
            const long long i3 = all_i4 / 32;
            const long long i4 = all_i4 % 32;
            gs_copy(mask_early + i3 * 32 + i4, mask + i3 * s1_1);
        }
    }
    if (last > 0) {
        for (int all_i49 = threadIdx.x; all_i49 < n24 * 32; all_i49 += blockDim.x) {
            const long long i48 = all_i49 / 32;
            const long long i49 = all_i49 % 32;
            gs_copy(x1_early + i48 * 32 + i49, x1 + i48 * s2_1 + i49);
            gs_copy(x2_early + i48 * 32 + i49, x2 + i48 * s3_1 + i49);
            gs_copy(x3_early + i48 * 32 + i49, x3 + i48 * s4_1 + i49);
            gs_copy(x4_early + i48 * 32 + i49, x4 + i48 * s5_1 + i49);
        }
    }
    for (long long t = 0; t < last; t++) {
        const long long next_t = t + 1 < last ? t + 1 : t;
        const float *const h0_now = t ? y0 + (t - 1) * z0 : h0_0;
        const float *const c1 = t ? y2 + (t - 1) * z2 : a1;
        const unsigned long long *const rng_0_now = t % 2 ? rng_0_1 : rng_0_0;
        unsigned long long *const rng_0_next = t % 2 ? rng_0_0 : rng_0_1;
        __syncthreads();
        gs_copied();
        for (int all_i4 = threadIdx.x; all_i4 < n24 * 32; all_i4 += blockDim.x) {
            const long long i3 = all_i4 / 32;
            const long long i4 = all_i4 % 32;
            const float mask_value = mask_early[i3 * 32 + i4];
            const float h0 = h0_now[i3 * 32 + i4];
            const float v7 = mask_value * h0;
            w34[i3 * 32 + i4] = v7;
            gs_copy(mask_early + i3 * 32 + i4, mask + next_t * s1_0 + i3 * s1_1);
        }
        for (long long i8 = threadIdx.x; i8 < 3; i8 += blockDim.x) {
            const unsigned long long rng_0 = rng_0_now[i8];
            const unsigned long long v10 = l35[i8];
            const unsigned long long v11 = rng_0 + v10;
            rng_0_next[i8] = v11;
        }
        __syncthreads();
        gs_uniform_rows_f32(rng_0_now, 32, row * 32, n24, 32, 32, w36, 32);
        __syncthreads();
        p38_held.multiply(n24, w34, 32, 1, 128, sums_float32, w37);
        for (int all_i13 = threadIdx.x; all_i13 < n24 * 32; all_i13 += blockDim.x) {
            const long long i12 = all_i13 / 32;
            const long long i13 = all_i13 % 32;
            const float v14 = w36[i12 * 32 + i13];
            const float v17 = w34[i12 * 32 + i13];
            const float mask_20 = mask[t * s1_0 + i12 * s1_1];
            const float v21 = c1[i12 * 32 + i13];
            const unsigned char v15 = v14 < 0.20000000298023224f;
            const float v16 = v15 ? 1.0f : 0.0f;
            const float v18 = v16 * v17;
            const float v19 = 1.0f - v16;
            const float v22 = mask_20 * v21;
            const float v23 = v16 * v22;
            y1[t * z1 + i12 * 32 + i13] = v16;
            w39[i12 * 32 + i13] = v18;
            w40[i12 * 32 + i13] = v19;
            w41[i12 * 32 + i13] = v23;
        }
        __syncthreads();
        for (long long i24 = threadIdx.x / GS_WARP; i24 < n24; i24 += blockDim.x / GS_WARP) {
            float s25 = 0.0f;
            for (long long i26 = threadIdx.x % GS_WARP; i26 < 128; i26 += GS_WARP) {
                const float v27 = w37[i24 * 128 + i26];
                s25 = s25 + v27;
            }
            s25 = gs_warp_sum_f32(s25);
            if (threadIdx.x % GS_WARP == 0) {
                w42[i24] = s25;
            }
        }
        __syncthreads();
        for (long long i28 = threadIdx.x; i28 < n24; i28 += blockDim.x) {
            const float v29 = w42[i28];
            const float v30 = k3[0];
            const float v31 = v29 / v30;
            w43[i28] = v31;
        }
        __syncthreads();
        for (int all_i33 = threadIdx.x; all_i33 < n24 * 128; all_i33 += blockDim.x) {
            const long long i32 = all_i33 / 128;
            const long long i33 = all_i33 % 128;
            const float v34 = w37[i32 * 128 + i33];
            const float v35 = w43[i32];
            const float v36 = v34 - v35;
            y6[t * z6 + i32 * 128 + i33] = v36;
        }
        __syncthreads();
        for (long long i37 = threadIdx.x / GS_WARP; i37 < n24; i37 += blockDim.x / GS_WARP) {
            float s38 = 0.0f;
            for (long long i39 = threadIdx.x % GS_WARP; i39 < 128; i39 += GS_WARP) {
                const float v40 = y6[t * z6 + i37 * 128 + i39];
                const float v41 = gs_sqr_f32(v40);
                s38 = s38 + v41;
            }
            s38 = gs_warp_sum_f32(s38);
            if (threadIdx.x % GS_WARP == 0) {
                w44[i37] = s38;
            }
        }
        __syncthreads();
        for (long long i42 = threadIdx.x; i42 < n24; i42 += blockDim.x) {
            const float v43 = w44[i42];
            const float v44 = k3[0];
            const float v45 = v43 / v44;
            const float v46 = v45 + 9.999999747378752e-06f;
            const float v47 = gs_sqrt_f32(v46);
            y5[t * z5 + i42] = v47;
        }
        __syncthreads();
        gs_copied();
        for (int all_i49 = threadIdx.x; all_i49 < n24 * 32; all_i49 += blockDim.x) {
            const long long i48 = all_i49 / 32;
            const long long i49 = all_i49 % 32;
            const float v50 = x1_early[i48 * 32 + i49];
            const float gain_value = gain[i49];
            const float v52 = y6[t * z6 + i48 * 128 + (i49 + 64)];
            const float v53 = y5[t * z5 + i48];
            const float b_value = b[i49];
            const float v60 = x2_early[i48 * 32 + i49];
            const float gain_61 = gain_7[i49];
            const float v62 = y6[t * z6 + i48 * 128 + (i49 + 32)];
            const float b_66 = b_8[i49];
            const float v69 = x3_early[i48 * 32 + i49];
            const float gain_70 = gain_9[i49];
            const float v71 = y6[t * z6 + i48 * 128 + i49];
            const float b_75 = b_10[i49];
            const float v78 = x4_early[i48 * 32 + i49];
            const float gain_79 = gain_11[i49];
            const float v80 = y6[t * z6 + i48 * 128 + (i49 + 96)];
            const float b_84 = b_12[i49];
            const float mask_87 = mask[t * s1_0 + i48 * s1_1];
            const float v88 = c1[i48 * 32 + i49];
            const float v93 = w41[i48 * 32 + i49];
            const float v94 = w40[i48 * 32 + i49];
            const float v54 = v52 / v53;
            const float v55 = gain_value * v54;
            const float v56 = v50 + v55;
            const float v58 = v56 + b_value;
            const float v59 = gs_sigmoid_f32(v58);
            const float v63 = v62 / v53;
            const float v64 = gain_61 * v63;
            const float v65 = v60 + v64;
            const float v67 = v65 + b_66;
            const float v68 = gs_sigmoid_f32(v67);
            const float v72 = v71 / v53;
            const float v73 = gain_70 * v72;
            const float v74 = v69 + v73;
            const float v76 = v74 + b_75;
            const float v77 = gs_sigmoid_f32(v76);
            const float v81 = v80 / v53;
            const float v82 = gain_79 * v81;
            const float v83 = v78 + v82;
            const float v85 = v83 + b_84;
            const float v86 = gs_tanh_f32(v85);
            const float v89 = mask_87 * v88;
            const float v90 = v68 * v89;
            const float v91 = v77 * v86;
            const float v92 = v90 + v91;
            const float v95 = v94 * v92;
            const float v96 = v93 + v95;
            y7[t * z7 + i48 * 32 + i49] = v59;
            y8[t * z8 + i48 * 32 + i49] = v68;
            y9[t * z9 + i48 * 32 + i49] = v77;
            y10[t * z10 + i48 * 32 + i49] = v86;
            w45[i48 * 32 + i49] = v92;
            y2[t * z2 + i48 * 32 + i49] = v96;
            gs_copy(x1_early + i48 * 32 + i49, x1 + next_t * s2_0 + i48 * s2_1 + i49);
            gs_copy(x2_early + i48 * 32 + i49, x2 + next_t * s3_0 + i48 * s3_1 + i49);
            gs_copy(x3_early + i48 * 32 + i49, x3 + next_t * s4_0 + i48 * s4_1 + i49);
            gs_copy(x4_early + i48 * 32 + i49, x4 + next_t * s5_0 + i48 * s5_1 + i49);
        }
        __syncthreads();
        for (long long i97 = threadIdx.x / GS_WARP; i97 < n24; i97 += blockDim.x / GS_WARP) {
            float s98 = 0.0f;
            for (long long i99 = threadIdx.x % GS_WARP; i99 < 32; i99 += GS_WARP) {
                const float v100 = w45[i97 * 32 + i99];
                s98 = s98 + v100;
            }
            s98 = gs_warp_sum_f32(s98);
            if (threadIdx.x % GS_WARP == 0) {
                w46[i97] = s98;
            }
        }
        __syncthreads();
        for (long long i101 = threadIdx.x; i101 < n24; i101 += blockDim.x) {
            const float v102 = w46[i101];
            const float v103 = k4[0];
            const float v104 = v102 / v103;
            y4[t * z4 + i101] = v104;
        }
        __syncthreads();
        for (int all_i106 = threadIdx.x; all_i106 < n24 * 32; all_i106 += blockDim.x) {
            const long long i105 = all_i106 / 32;
            const long long i106 = all_i106 % 32;
            const float v107 = w45[i105 * 32 + i106];
            const float v108 = y4[t * z4 + i105];
            const float v109 = v107 - v108;
            w47[i105 * 32 + i106] = v109;
        }
        __syncthreads();
        for (long long i110 = threadIdx.x / GS_WARP; i110 < n24; i110 += blockDim.x / GS_WARP) {
            float s111 = 0.0f;
            for (long long i112 = threadIdx.x % GS_WARP; i112 < 32; i112 += GS_WARP) {
                const float v113 = w47[i110 * 32 + i112];
                const float v114 = gs_sqr_f32(v113);
                s111 = s111 + v114;
            }
            s111 = gs_warp_sum_f32(s111);
            if (threadIdx.x % GS_WARP == 0) {
                w48[i110] = s111;
            }
        }
        __syncthreads();
        for (long long i115 = threadIdx.x; i115 < n24; i115 += blockDim.x) {
            const float v116 = w48[i115];
            const float v117 = k4[0];
            const float v118 = v116 / v117;
            const float v119 = v118 + 9.999999747378752e-06f;
            const float v120 = gs_sqrt_f32(v119);
            y3[t * z3 + i115] = v120;
        }
        __syncthreads();
        for (int all_i122 = threadIdx.x; all_i122 < n24 * 32; all_i122 += blockDim.x) {
            const long long i121 = all_i122 / 32;
            const long long i122 = all_i122 % 32;
            const float v123 = w39[i121 * 32 + i122];
            const float v124 = w40[i121 * 32 + i122];
            const float v125 = y7[t * z7 + i121 * 32 + i122];
            const float v126 = w47[i121 * 32 + i122];
            const float v127 = y3[t * z3 + i121];
            const float v128 = v126 / v127;
            const float v129 = gs_tanh_f32(v128);
            const float v130 = v125 * v129;
            const float v131 = v124 * v130;
            const float v132 = v123 + v131;
            y0[t * z0 + i121 * 32 + i122] = v132;
        }
    }
    gs_finish(done, last);
}
