#include "persistent.h"
#include "scalars.h"
#include "folds.h"
#include "held.h"

extern "C" __global__ void __launch_bounds__(256, 1) loop(const float *__restrict__ x0,
        const float *__restrict__ x1, const float *__restrict__ x2, const float *__restrict__ x3,
        const float *__restrict__ x4, const float *__restrict__ x5, const float *__restrict__ x6,
        const float *__restrict__ x7, const float *__restrict__ x8, const float *__restrict__ x9,
        const float *__restrict__ x10, const float *__restrict__ mask,
        const float *__restrict__ x12, const float *__restrict__ x13, const float *__restrict__ x14,
        const float *__restrict__ k2, const float *__restrict__ gain, const float *__restrict__ k6,
        const float *__restrict__ U_T, float *y0, float *y1, float *h0_grad_0, float *h0_grad_1,
        float *a1, float *b1, long long *done, long long last, long long rows,
        long long rows_a_block, long long sums_float32_place, long long w31_place,
        long long w32_place, long long w33_place, long long w34_place, long long w35_place,
        long long w36_place, long long w37_place, long long w38_place, long long w39_place,
        long long w40_place, long long w41_place, long long w42_place, long long w43_place,
        long long w44_place, long long w45_place, long long w46_place, long long w47_place,
        long long y1_here_place, long long x0_early_place, long long x10_early_place,
        long long x5_early_place, long long x13_early_place, long long x1_early_place,
        long long x6_early_place, long long mask_early_place, long long x9_early_place,
        long long x7_early_place, long long x8_early_place, long long x2_early_place,
        long long x3_early_place, long long x4_early_place, long long s1_0, long long s1_1,
        long long s2_0, long long s2_1, long long s3_0, long long s3_1, long long s4_0,
        long long s4_1, long long s5_0, long long s5_1, long long s6_0, long long s6_1,
        long long s7_0, long long s7_1, long long s8_0, long long s8_1, long long s9_0,
        long long s9_1, long long s10_0, long long s10_1, long long s11_0, long long s11_1,
        long long s12_0, long long s12_1, long long s13_0, long long s13_1, long long s14_0,
        long long s14_1, long long s15_0, long long s15_1, long long s26_0, long long s26_1,
        long long z0, long long z1) {
    GS_SHARED(shared);
    const long long row = blockIdx.x * rows_a_block;
    const long long n4 = rows - row < rows_a_block ? rows - row : rows_a_block;
    x0 += row * s1_1;
    x1 += row * s2_1;
    x2 += row * s3_1;
    x3 += row * s4_1;
    x4 += row * s5_1;
    x5 += row * s6_1;
    x6 += row * s7_1;
    x7 += row * s8_1;
    x8 += row * s9_1;
    x9 += row * s10_1;
    x10 += row * s11_1;
    mask += row * s12_1;
    x12 += row * s13_1;
    x13 += row * s14_1;
    x14 += row * s15_1;
    y0 += row * 128;
    y1 += row * 128;
    h0_grad_0 += row * 32;
    h0_grad_1 += row * 32;
    a1 += row * 32;
    b1 += row * 32;
    gs_held<float, 128, 32, 256, 1> p48_held;
    p48_held.clear();
    float *const sums_float32 = (float *)(shared + sums_float32_place);
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
    float *const w43 = (float *)(shared + w43_place);
    float *const w44 = (float *)(shared + w44_place);
    float *const w45 = (float *)(shared + w45_place);
    float *const w46 = (float *)(shared + w46_place);
    float *const w47 = (float *)(shared + w47_place);
    float *const y1_here = (float *)(shared + y1_here_place);
    float *const x0_early = (float *)(shared + x0_early_place);
    float *const x10_early = (float *)(shared + x10_early_place);
    float *const x5_early = (float *)(shared + x5_early_place);
    float *const x13_early = (float *)(shared + x13_early_place);
    float *const x1_early = (float *)(shared + x1_early_place);
    float *const x6_early = (float *)(shared + x6_early_place);
    float *const mask_early = (float *)(shared + mask_early_place);
    float *const x9_early = (float *)(shared + x9_early_place);
    float *const x7_early = (float *)(shared + x7_early_place);
    float *const x8_early = (float *)(shared + x8_early_place);
    float *const x2_early = (float *)(shared + x2_early_place);
    float *const x3_early = (float *)(shared + x3_early_place);
    float *const x4_early = (float *)(shared + x4_early_place);
    p48_held.load(0, U_T, s26_0, s26_1, 32, sums_float32);
    if (last > 0) {
        for (int all_i6 = threadIdx.x; all_i6 < n4 * 32; all_i6 += blockDim.x) {
            const long long i5 = all_i6 / 32;
            const long long i6 = all_i6 % 32;
            gs_copy(x0_early + i5 * 32 + i6, x0 + i5 * s1_1 + i6);
            gs_copy(x10_early + i5 * 32 + i6, x10 + i5 * s11_1 + i6);
            gs_copy(x5_early + i5 * 32 + i6, x5 + i5 * s6_1 + i6);
            gs_copy(x13_early + i5 * 32 + i6, x13 + i5 * s14_1 + i6);
            gs_copy(x1_early + i5 * 32 + i6, x1 + i5 * s2_1);
            gs_copy(x6_early + i5 * 32 + i6, x6 + i5 * s7_1 + i6);
            gs_copy(mask_early + i5 * 32 + i6, mask + i5 * s12_1);
            gs_copy(x9_early + i5 * 32 + i6, x9 + i5 * s10_1 + i6);
            gs_copy(x7_early + i5 * 32 + i6, x7 + i5 * s8_1 + i6);
            gs_copy(x8_early + i5 * 32 + i6, x8 + i5 * s9_1 + i6);
            gs_copy(x2_early + i5 * 32 + i6, x2 + i5 * s3_1);
        }
    }
    if (last > 0) {
        for (int all_i123 = threadIdx.x; all_i123 < n4 * 128; all_i123 += blockDim.x) {
            const long long i122 = all_i123 / 128;
            const long long i123 = all_i123 % 128;
            gs_copy(x3_early + i122 * 128 + i123, x3 + i122 * s4_1);
        }
    }
    if (last > 0) {
        for (int all_i148 = threadIdx.x; all_i148 < n4 * 128; all_i148 += blockDim.x) {
            const long long i147 = all_i148 / 128;
            const long long i148 = all_i148 % 128;
            gs_copy(x4_early + i147 * 128 + i148, x4 + i147 * s5_1 + i148);
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
        for (int all_i6 = threadIdx.x; all_i6 < n4 * 32; all_i6 += blockDim.x) {
            const long long i5 = all_i6 / 32;
            const long long i6 = all_i6 % 32;
            const float v7 = c1[i5 * 32 + i6];
            const float v8 = x0_early[i5 * 32 + i6];
            const float h0_grad = h0_grad_now[i5 * 32 + i6];
            const float v12 = x10_early[i5 * 32 + i6];
            const float v15 = x5_early[i5 * 32 + i6];
            const float v17 = x13_early[i5 * 32 + i6];
            const float v21 = x1_early[i5 * 32 + i6];
            const float v23 = x6_early[i5 * 32 + i6];
            const float mask_value = mask_early[i5 * 32 + i6];
            const float v25 = x9_early[i5 * 32 + i6];
            const float v28 = x7_early[i5 * 32 + i6];
            const float v29 = x8_early[i5 * 32 + i6];
            const float v32 = x2_early[i5 * 32 + i6];
            const float v9 = 1.0f - v8;
            const float v10 = v7 * v9;
            const float v13 = h0_grad + v12;
            const float v14 = v13 * v9;
            const float v16 = v14 * v15;
            const float v18 = v17 * v17;
            const float v19 = 1.0f - v18;
            const float v20 = v16 * v19;
            const float v22 = v20 / v21;
            const float v26 = mask_value * v25;
            const float v27 = v23 * v26;
            const float v30 = v28 * v29;
            const float v31 = v27 + v30;
            const float v33 = v31 - v32;
            const float v34 = v14 * v17;
            const float v35 = v34 * v15;
            const float v36 = 1.0f - v15;
            const float v37 = v35 * v36;
            const float v38 = v29 * v29;
            const float v39 = 1.0f - v38;
            const float v40 = v13 * v8;
            w31[i5 * 32 + i6] = v10;
            w32[i5 * 32 + i6] = v22;
            w33[i5 * 32 + i6] = v33;
            y0[t * z0 + 32 + 32 + i5 * 128 + i6] = v37;
            w34[i5 * 32 + i6] = v39;
            w35[i5 * 32 + i6] = v40;
            gs_copy(x0_early + i5 * 32 + i6, x0 + next_t * s1_0 + i5 * s1_1 + i6);
            gs_copy(x10_early + i5 * 32 + i6, x10 + next_t * s11_0 + i5 * s11_1 + i6);
            gs_copy(x5_early + i5 * 32 + i6, x5 + next_t * s6_0 + i5 * s6_1 + i6);
            gs_copy(x13_early + i5 * 32 + i6, x13 + next_t * s14_0 + i5 * s14_1 + i6);
            gs_copy(x1_early + i5 * 32 + i6, x1 + next_t * s2_0 + i5 * s2_1);
            gs_copy(x6_early + i5 * 32 + i6, x6 + next_t * s7_0 + i5 * s7_1 + i6);
            gs_copy(mask_early + i5 * 32 + i6, mask + next_t * s12_0 + i5 * s12_1);
            gs_copy(x9_early + i5 * 32 + i6, x9 + next_t * s10_0 + i5 * s10_1 + i6);
            gs_copy(x7_early + i5 * 32 + i6, x7 + next_t * s8_0 + i5 * s8_1 + i6);
            gs_copy(x8_early + i5 * 32 + i6, x8 + next_t * s9_0 + i5 * s9_1 + i6);
            gs_copy(x2_early + i5 * 32 + i6, x2 + next_t * s3_0 + i5 * s3_1);
        }
        __syncthreads();
        for (long long i41 = threadIdx.x / GS_WARP; i41 < n4; i41 += blockDim.x / GS_WARP) {
            float s42 = 0.0f;
            for (long long i43 = threadIdx.x % GS_WARP; i43 < 32; i43 += GS_WARP) {
                const float h0_grad_value = h0_grad_now[i41 * 32 + i43];
                const float v45 = x10[t * s11_0 + i41 * s11_1 + i43];
                const float v46 = h0_grad_value + v45;
                const float v47 = x0[t * s1_0 + i41 * s1_1 + i43];
                const float v48 = 1.0f - v47;
                const float v49 = v46 * v48;
                const float v50 = x5[t * s6_0 + i41 * s6_1 + i43];
                const float v51 = v49 * v50;
                const float v52 = x13[t * s14_0 + i41 * s14_1 + i43];
                const float v53 = v52 * v52;
                const float v54 = 1.0f - v53;
                const float v55 = v51 * v54;
                const float v56 = -v55;
                const float v57 = x12[t * s13_0 + i41 * s13_1 + i43];
                const float v58 = v56 * v57;
                const float v59 = x1[t * s2_0 + i41 * s2_1];
                const float v60 = v58 / v59;
                s42 = s42 + v60;
            }
            s42 = gs_warp_sum_f32(s42);
            if (threadIdx.x % GS_WARP == 0) {
                w36[i41] = s42;
            }
        }
        __syncthreads();
        for (long long i61 = threadIdx.x; i61 < n4; i61 += blockDim.x) {
            const float v62 = w36[i61];
            const float v63 = x1[t * s2_0 + i61 * s2_1];
            const float v66 = k2[0];
            const float v64 = v63 + v63;
            const float v65 = v62 / v64;
            const float v67 = v65 / v66;
            w37[i61] = v67;
        }
        __syncthreads();
        for (int all_i69 = threadIdx.x; all_i69 < n4 * 32; all_i69 += blockDim.x) {
            const long long i68 = all_i69 / 32;
            const long long i69 = all_i69 % 32;
            const float v70 = w31[i68 * 32 + i69];
            const float v71 = w32[i68 * 32 + i69];
            const float v72 = w37[i68];
            const float v73 = w33[i68 * 32 + i69];
            const float v74 = v72 * v73;
            const float v75 = v74 * 2.0f;
            const float v76 = v71 + v75;
            const float v77 = v70 + v76;
            w38[i68 * 32 + i69] = v77;
        }
        for (long long i78 = threadIdx.x / GS_WARP; i78 < n4; i78 += blockDim.x / GS_WARP) {
            float s79 = 0.0f;
            for (long long i80 = threadIdx.x % GS_WARP; i80 < 32; i80 += GS_WARP) {
                const float v81 = w32[i78 * 32 + i80];
                const float v82 = w37[i78];
                const float v83 = w33[i78 * 32 + i80];
                const float v84 = v82 * v83;
                const float v85 = v84 * 2.0f;
                const float v86 = v81 + v85;
                const float v87 = -v86;
                s79 = s79 + v87;
            }
            s79 = gs_warp_sum_f32(s79);
            if (threadIdx.x % GS_WARP == 0) {
                w39[i78] = s79;
            }
        }
        __syncthreads();
        for (long long i88 = threadIdx.x; i88 < n4; i88 += blockDim.x) {
            const float v89 = w39[i88];
            const float v90 = k2[0];
            const float v91 = v89 / v90;
            w40[i88] = v91;
        }
        __syncthreads();
        for (int all_i93 = threadIdx.x; all_i93 < n4 * 32; all_i93 += blockDim.x) {
            const long long i92 = all_i93 / 32;
            const long long i93 = all_i93 % 32;
            const float v94 = w38[i92 * 32 + i93];
            const float v95 = w40[i92];
            const float v97 = x8[t * s9_0 + i92 * s9_1 + i93];
            const float v99 = x7[t * s8_0 + i92 * s8_1 + i93];
            const float mask_103 = mask[t * s12_0 + i92 * s12_1];
            const float v104 = x9[t * s10_0 + i92 * s10_1 + i93];
            const float v107 = x6[t * s7_0 + i92 * s7_1 + i93];
            const float v112 = w34[i92 * 32 + i93];
            const float v114 = c1[i92 * 32 + i93];
            const float v115 = x0[t * s1_0 + i92 * s1_1 + i93];
            const float v96 = v94 + v95;
            const float v98 = v96 * v97;
            const float v100 = v98 * v99;
            const float v101 = 1.0f - v99;
            const float v102 = v100 * v101;
            const float v105 = mask_103 * v104;
            const float v106 = v96 * v105;
            const float v108 = v106 * v107;
            const float v109 = 1.0f - v107;
            const float v110 = v108 * v109;
            const float v111 = v96 * v99;
            const float v113 = v111 * v112;
            const float v116 = v114 * v115;
            const float v117 = v96 * v107;
            const float v118 = v116 + v117;
            const float v119 = v118 * mask_103;
            y0[t * z0 + i92 * 128 + i93] = v102;
            y0[t * z0 + 32 + i92 * 128 + i93] = v110;
            y0[t * z0 + 32 + 32 + 32 + i92 * 128 + i93] = v113;
            d1[i92 * 32 + i93] = v119;
        }
        __syncthreads();
        gs_copied();
        for (int all_i123 = threadIdx.x; all_i123 < n4 * 128; all_i123 += blockDim.x) {
            const long long i122 = all_i123 / 128;
            const long long i123 = all_i123 % 128;
            const float v124 = y0[t * z0 + i122 * 128 + i123];
            const float gain_value = gain[i123];
            const float v127 = x3_early[i122 * 128 + i123];
            const float v126 = v124 * gain_value;
            const float v128 = v126 / v127;
            w41[i122 * 128 + i123] = v128;
            gs_copy(x3_early + i122 * 128 + i123, x3 + next_t * s4_0 + i122 * s4_1);
        }
        for (long long i129 = threadIdx.x / GS_WARP; i129 < n4; i129 += blockDim.x / GS_WARP) {
            float s130 = 0.0f;
            for (long long i131 = threadIdx.x % GS_WARP; i131 < 128; i131 += GS_WARP) {
                const float v132 = y0[t * z0 + i129 * 128 + i131];
                const float gain_133 = gain[i131];
                const float v134 = v132 * gain_133;
                const float v135 = -v134;
                const float v136 = x14[t * s15_0 + i129 * s15_1 + i131];
                const float v137 = v135 * v136;
                const float v138 = x3[t * s4_0 + i129 * s4_1];
                const float v139 = v137 / v138;
                s130 = s130 + v139;
            }
            s130 = gs_warp_sum_f32(s130);
            if (threadIdx.x % GS_WARP == 0) {
                w42[i129] = s130;
            }
        }
        __syncthreads();
        for (long long i140 = threadIdx.x; i140 < n4; i140 += blockDim.x) {
            const float v141 = w42[i140];
            const float v142 = x3[t * s4_0 + i140 * s4_1];
            const float v145 = k6[0];
            const float v143 = v142 + v142;
            const float v144 = v141 / v143;
            const float v146 = v144 / v145;
            w43[i140] = v146;
        }
        __syncthreads();
        gs_copied();
        for (int all_i148 = threadIdx.x; all_i148 < n4 * 128; all_i148 += blockDim.x) {
            const long long i147 = all_i148 / 128;
            const long long i148 = all_i148 % 128;
            const float v149 = w41[i147 * 128 + i148];
            const float v150 = w43[i147];
            const float v151 = x4_early[i147 * 128 + i148];
            const float v152 = v150 * v151;
            const float v153 = v152 * 2.0f;
            const float v154 = v149 + v153;
            w44[i147 * 128 + i148] = v154;
            gs_copy(x4_early + i147 * 128 + i148, x4 + next_t * s5_0 + i147 * s5_1 + i148);
        }
        __syncthreads();
        for (long long i155 = threadIdx.x / GS_WARP; i155 < n4; i155 += blockDim.x / GS_WARP) {
            float s156 = 0.0f;
            for (long long i157 = threadIdx.x % GS_WARP; i157 < 128; i157 += GS_WARP) {
                const float v158 = w44[i155 * 128 + i157];
                const float v159 = -v158;
                s156 = s156 + v159;
            }
            s156 = gs_warp_sum_f32(s156);
            if (threadIdx.x % GS_WARP == 0) {
                w45[i155] = s156;
            }
        }
        __syncthreads();
        for (long long i160 = threadIdx.x; i160 < n4; i160 += blockDim.x) {
            const float v161 = w45[i160];
            const float v162 = k6[0];
            const float v163 = v161 / v162;
            w46[i160] = v163;
        }
        __syncthreads();
        for (int all_i165 = threadIdx.x; all_i165 < n4 * 128; all_i165 += blockDim.x) {
            const long long i164 = all_i165 / 128;
            const long long i165 = all_i165 % 128;
            const float v166 = w44[i164 * 128 + i165];
            const float v167 = w46[i164];
            const float v168 = v166 + v167;
            y1[t * z1 + i164 * 128 + i165] = v168;
            y1_here[i164 * 128 + i165] = v168;
        }
        __syncthreads();
        p48_held.multiply(n4, y1_here, 128, 1, 32, sums_float32, w47);
        __syncthreads();
        for (int all_i170 = threadIdx.x; all_i170 < n4 * 32; all_i170 += blockDim.x) {
            const long long i169 = all_i170 / 32;
            const long long i170 = all_i170 % 32;
            const float v171 = w47[i169 * 32 + i170];
            const float v172 = w35[i169 * 32 + i170];
            const float mask_174 = mask[t * s12_0 + i169 * s12_1];
            const float v173 = v171 + v172;
            const float v175 = v173 * mask_174;
            h0_grad_next[i169 * 32 + i170] = v175;
        }
    }
    gs_finish(done, last);
}
