#include "persistent.h"

extern "C" __global__ void __launch_bounds__(256, 1) loop(const float *__restrict__ x0,
        const float *__restrict__ x1, const float *__restrict__ x2, const float *__restrict__ x3,
        const float *__restrict__ x4, const float *__restrict__ x5, const float *__restrict__ x6,
        const float *__restrict__ x7, const float *__restrict__ x8, const float *__restrict__ x9,
        const float *__restrict__ x10, const float *__restrict__ x11, const float *__restrict__ x12,
        const float *__restrict__ x13, const float *__restrict__ x14,
        const long long *__restrict__ k1, const float *__restrict__ k2,
        const long long *__restrict__ k3, const float *__restrict__ k4,
        const long long *__restrict__ k5, const float *__restrict__ k6,
        const long long *__restrict__ k7, const float *__restrict__ k8, float *y0, float *y1,
        float *a0, float *b0, float *a1, float *b1, long long *done, long long last, long long rows,
        long long rows_a_block, long long sums_float32_place, long long w31_place,
        long long w32_place, long long w33_place, long long w34_place, long long w35_place,
        long long w36_place, long long w37_place, long long w38_place, long long w39_place,
        long long w40_place, long long w41_place, long long w42_place, long long w43_place,
        long long w44_place, long long w45_place, long long w46_place, long long w47_place,
        long long w48_place, long long w49_place, long long w50_place, long long w51_place,
        long long s1_0, long long s1_1, long long s2_0, long long s2_1, long long s3_0,
        long long s3_1, long long s4_0, long long s4_1, long long s5_0, long long s5_1,
        long long s6_0, long long s6_1, long long s7_0, long long s7_1, long long s8_0,
        long long s8_1, long long s9_0, long long s9_1, long long s10_0, long long s10_1,
        long long s11_0, long long s11_1, long long s12_0, long long s12_1, long long s13_0,
        long long s13_1, long long s14_0, long long s14_1, long long s15_0, long long s15_1,
        long long s26_0, long long s26_1, long long z0, long long z1) {
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
    x11 += row * s12_1;
    x12 += row * s13_1;
    x13 += row * s14_1;
    x14 += row * s15_1;
    y0 += row * 128;
    y1 += row * 128;
    a0 += row * 32;
    b0 += row * 32;
    a1 += row * 32;
    b1 += row * 32;
    gs_held<float, 128, 32, 256, 1> p52_held;
    p52_held.clear();
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
    float *const w48 = (float *)(shared + w48_place);
    float *const w49 = (float *)(shared + w49_place);
    float *const w50 = (float *)(shared + w50_place);
    float *const w51 = (float *)(shared + w51_place);
    const long long q1 = k1[0];
    const long long q2 = k3[0];
    const long long q3 = k5[0];
    const long long q4 = k7[0];
    p52_held.load(0, k8, s26_0, s26_1, 32, sums_float32);
    for (long long t = 0; t < last; t++) {
        const float *const c0 = t % 2 ? b0 : a0;
        float *const d0 = t % 2 ? a0 : b0;
        const float *const c1 = t % 2 ? b1 : a1;
        float *const d1 = t % 2 ? a1 : b1;
        __syncthreads();
        for (int all_i6 = threadIdx.x; all_i6 < n4 * 32; all_i6 += blockDim.x) {
            const long long i5 = all_i6 / 32;
            const long long i6 = all_i6 % 32;
            const float v7 = c1[i5 * 32 + i6];
            const float v8 = x0[t * s1_0 + i5 * s1_1 + i6];
            const float v9 = 0x1.0000000000000p+0f - v8;
            const float v10 = v7 * v9;
            w31[i5 * 32 + i6] = v10;
            const float v11 = c0[i5 * 32 + i6];
            const float v12 = x10[t * s11_0 + i5 * s11_1 + i6];
            const float v13 = v11 + v12;
            const float v14 = v13 * v9;
            const float v15 = x5[t * s6_0 + i5 * s6_1 + i6];
            const float v16 = v14 * v15;
            const float v17 = x13[t * s14_0 + i5 * s14_1 + i6];
            const float v18 = v17 * v17;
            const float v19 = 0x1.0000000000000p+0f - v18;
            const float v20 = v16 * v19;
            const float v21 = x1[t * s2_0 + i5 * s2_1];
            const float v22 = v20 / v21;
            w32[i5 * 32 + i6] = v22;
            const float v23 = -v20;
            const float v24 = x12[t * s13_0 + i5 * s13_1 + i6];
            const float v25 = v23 * v24;
            const float v26 = v25 / v21;
            w33[i5 * 32 + i6] = v26;
            const float v27 = x6[t * s7_0 + i5 * s7_1 + i6];
            const float v28 = x11[t * s12_0 + i5 * s12_1];
            const float v29 = x9[t * s10_0 + i5 * s10_1 + i6];
            const float v30 = v28 * v29;
            const float v31 = v27 * v30;
            const float v32 = x7[t * s8_0 + i5 * s8_1 + i6];
            const float v33 = x8[t * s9_0 + i5 * s9_1 + i6];
            const float v34 = v32 * v33;
            const float v35 = v31 + v34;
            const float v36 = x2[t * s3_0 + i5 * s3_1];
            const float v37 = v35 - v36;
            w34[i5 * 32 + i6] = v37;
            const float v38 = v14 * v17;
            const float v39 = v38 * v15;
            const float v40 = 0x1.0000000000000p+0f - v15;
            const float v41 = v39 * v40;
            y0[t * z0 + 32 + 32 + i5 * 128 + i6] = v41;
            const float v42 = v33 * v33;
            const float v43 = 0x1.0000000000000p+0f - v42;
            w35[i5 * 32 + i6] = v43;
            const float v44 = v13 * v8;
            w36[i5 * 32 + i6] = v44;
        }
        __syncthreads();
        for (long long i45 = threadIdx.x / GS_WARP; i45 < n4; i45 += blockDim.x / GS_WARP) {
            float s46 = 0x0.0p+0f;
            for (long long i47 = threadIdx.x % GS_WARP; i47 < 32; i47 += GS_WARP) {
                const float v48 = w33[i45 * 32 + i47];
                s46 = s46 + v48;
            }
            s46 = gs_warp_sum_f32(s46);
            if (threadIdx.x % GS_WARP == 0) {
                w37[i45] = s46;
            }
        }
        __syncthreads();
        for (long long i49 = threadIdx.x; i49 < n4; i49 += blockDim.x) {
            const float v50 = w37[i49];
            const float v51 = x1[t * s2_0 + i49 * s2_1];
            const float v52 = v51 + v51;
            const float v53 = v50 / v52;
            const float v54 = k2[0];
            const float v55 = v53 / v54;
            w38[i49] = v55;
        }
        __syncthreads();
        for (int all_i57 = threadIdx.x; all_i57 < n4 * 32; all_i57 += blockDim.x) {
            const long long i56 = all_i57 / 32;
            const long long i57 = all_i57 % 32;
            const float v58 = w31[i56 * 32 + i57];
            const float v59 = w32[i56 * 32 + i57];
            const float v60 = w38[i56];
            const float v61 = w34[i56 * 32 + i57];
            const float v62 = v60 * v61;
            const float v63 = v62 * 0x1.0000000000000p+1f;
            const float v64 = v59 + v63;
            const float v65 = v58 + v64;
            w39[i56 * 32 + i57] = v65;
            const float v66 = -v64;
            w40[i56 * 32 + i57] = v66;
        }
        __syncthreads();
        for (long long i67 = threadIdx.x / GS_WARP; i67 < n4; i67 += blockDim.x / GS_WARP) {
            float s68 = 0x0.0p+0f;
            for (long long i69 = threadIdx.x % GS_WARP; i69 < 32; i69 += GS_WARP) {
                const float v70 = w40[i67 * 32 + i69];
                s68 = s68 + v70;
            }
            s68 = gs_warp_sum_f32(s68);
            if (threadIdx.x % GS_WARP == 0) {
                w41[i67] = s68;
            }
        }
        __syncthreads();
        for (long long i71 = threadIdx.x; i71 < n4; i71 += blockDim.x) {
            const float v72 = w41[i71];
            const float v73 = k2[0];
            const float v74 = v72 / v73;
            w42[i71] = v74;
        }
        __syncthreads();
        for (int all_i76 = threadIdx.x; all_i76 < n4 * 32; all_i76 += blockDim.x) {
            const long long i75 = all_i76 / 32;
            const long long i76 = all_i76 % 32;
            const float v77 = w39[i75 * 32 + i76];
            const float v78 = w42[i75];
            const float v79 = v77 + v78;
            const float v80 = x8[t * s9_0 + i75 * s9_1 + i76];
            const float v81 = v79 * v80;
            const float v82 = x7[t * s8_0 + i75 * s8_1 + i76];
            const float v83 = v81 * v82;
            const float v84 = 0x1.0000000000000p+0f - v82;
            const float v85 = v83 * v84;
            y0[t * z0 + i75 * 128 + i76] = v85;
            const float v86 = x11[t * s12_0 + i75 * s12_1];
            const float v87 = x9[t * s10_0 + i75 * s10_1 + i76];
            const float v88 = v86 * v87;
            const float v89 = v79 * v88;
            const float v90 = x6[t * s7_0 + i75 * s7_1 + i76];
            const float v91 = v89 * v90;
            const float v92 = 0x1.0000000000000p+0f - v90;
            const float v93 = v91 * v92;
            y0[t * z0 + 32 + i75 * 128 + i76] = v93;
            const float v94 = v79 * v82;
            const float v95 = w35[i75 * 32 + i76];
            const float v96 = v94 * v95;
            y0[t * z0 + 32 + 32 + 32 + i75 * 128 + i76] = v96;
            const float v97 = c1[i75 * 32 + i76];
            const float v98 = x0[t * s1_0 + i75 * s1_1 + i76];
            const float v99 = v97 * v98;
            const float v100 = v79 * v90;
            const float v101 = v99 + v100;
            const float v102 = v101 * v86;
            d1[i75 * 32 + i76] = v102;
        }
        __syncthreads();
        for (int all_i104 = threadIdx.x; all_i104 < 0; all_i104 += blockDim.x) {
            const long long i103 = all_i104 / 0;
            const long long i104 = all_i104 % 0;
            y0[t * z0 + 32 + 32 + 32 + 32 + i103 * 128 + i104] = 0x0.0p+0f;
        }
        __syncthreads();
        for (int all_i106 = threadIdx.x; all_i106 < n4 * 128; all_i106 += blockDim.x) {
            const long long i105 = all_i106 / 128;
            const long long i106 = all_i106 % 128;
            const float v107 = y0[t * z0 + i105 * 128 + i106];
            const float v108 = k4[i106];
            const float v109 = v107 * v108;
            const float v110 = x3[t * s4_0 + i105 * s4_1];
            const float v111 = v109 / v110;
            w43[i105 * 128 + i106] = v111;
            const float v112 = -v109;
            const float v113 = x14[t * s15_0 + i105 * s15_1 + i106];
            const float v114 = v112 * v113;
            const float v115 = v114 / v110;
            w44[i105 * 128 + i106] = v115;
        }
        __syncthreads();
        for (long long i116 = threadIdx.x / GS_WARP; i116 < n4; i116 += blockDim.x / GS_WARP) {
            float s117 = 0x0.0p+0f;
            for (long long i118 = threadIdx.x % GS_WARP; i118 < 128; i118 += GS_WARP) {
                const float v119 = w44[i116 * 128 + i118];
                s117 = s117 + v119;
            }
            s117 = gs_warp_sum_f32(s117);
            if (threadIdx.x % GS_WARP == 0) {
                w45[i116] = s117;
            }
        }
        __syncthreads();
        for (long long i120 = threadIdx.x; i120 < n4; i120 += blockDim.x) {
            const float v121 = w45[i120];
            const float v122 = x3[t * s4_0 + i120 * s4_1];
            const float v123 = v122 + v122;
            const float v124 = v121 / v123;
            const float v125 = k6[0];
            const float v126 = v124 / v125;
            w46[i120] = v126;
        }
        __syncthreads();
        for (int all_i128 = threadIdx.x; all_i128 < n4 * 128; all_i128 += blockDim.x) {
            const long long i127 = all_i128 / 128;
            const long long i128 = all_i128 % 128;
            const float v129 = w43[i127 * 128 + i128];
            const float v130 = w46[i127];
            const float v131 = x4[t * s5_0 + i127 * s5_1 + i128];
            const float v132 = v130 * v131;
            const float v133 = v132 * 0x1.0000000000000p+1f;
            const float v134 = v129 + v133;
            w47[i127 * 128 + i128] = v134;
            const float v135 = -v134;
            w48[i127 * 128 + i128] = v135;
        }
        __syncthreads();
        for (long long i136 = threadIdx.x / GS_WARP; i136 < n4; i136 += blockDim.x / GS_WARP) {
            float s137 = 0x0.0p+0f;
            for (long long i138 = threadIdx.x % GS_WARP; i138 < 128; i138 += GS_WARP) {
                const float v139 = w48[i136 * 128 + i138];
                s137 = s137 + v139;
            }
            s137 = gs_warp_sum_f32(s137);
            if (threadIdx.x % GS_WARP == 0) {
                w49[i136] = s137;
            }
        }
        __syncthreads();
        for (long long i140 = threadIdx.x; i140 < n4; i140 += blockDim.x) {
            const float v141 = w49[i140];
            const float v142 = k6[0];
            const float v143 = v141 / v142;
            w50[i140] = v143;
        }
        __syncthreads();
        for (int all_i145 = threadIdx.x; all_i145 < n4 * 128; all_i145 += blockDim.x) {
            const long long i144 = all_i145 / 128;
            const long long i145 = all_i145 % 128;
            const float v146 = w47[i144 * 128 + i145];
            const float v147 = w50[i144];
            const float v148 = v146 + v147;
            y1[t * z1 + i144 * 128 + i145] = v148;
        }
        __syncthreads();
        p52_held.multiply(n4, y1 + t * z1, 128, 1, 32, sums_float32, w51);
        __syncthreads();
        for (int all_i150 = threadIdx.x; all_i150 < n4 * 32; all_i150 += blockDim.x) {
            const long long i149 = all_i150 / 32;
            const long long i150 = all_i150 % 32;
            const float v151 = w51[i149 * 32 + i150];
            const float v152 = w36[i149 * 32 + i150];
            const float v153 = v151 + v152;
            const float v154 = x11[t * s12_0 + i149 * s12_1];
            const float v155 = v153 * v154;
            d0[i149 * 32 + i150] = v155;
        }
    }
    gs_finish(done, last);
    return;
}
