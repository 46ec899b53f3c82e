#include "persistent.h"

extern "C" __global__ void __launch_bounds__(256, 1) loop(const long long *__restrict__ k0,
        const long long *__restrict__ k1, const float *__restrict__ k2,
        const float *__restrict__ k3, float *y0, float *a0, unsigned long long *rng_1_0,
        unsigned long long *rng_1_1, unsigned long long *rng_0_0, unsigned long long *rng_0_1,
        const unsigned long long *__restrict__ l11, long long *done, long long last,
        long long w10_place, long long w12_place, long long w13_place, long long w14_place,
        long long w15_place, long long w16_place, long long w17_place, long long w18_place,
        long long w19_place, long long w20_place, long long w21_place, long long w22_place,
        long long w23_place, long long w24_place, long long w25_place, long long w26_place,
        long long w27_place, long long n4, long long n5, long long s6_0, long long s7_0,
        long long z0) {
    GS_SHARED(shared);
    float *const w10 = (float *)(shared + w10_place);
    float *const w12 = (float *)(shared + w12_place);
    float *const w13 = (float *)(shared + w13_place);
    float *const w14 = (float *)(shared + w14_place);
    float *const w15 = (float *)(shared + w15_place);
    float *const w16 = (float *)(shared + w16_place);
    float *const w17 = (float *)(shared + w17_place);
    float *const w18 = (float *)(shared + w18_place);
    float *const w19 = (float *)(shared + w19_place);
    float *const w20 = (float *)(shared + w20_place);
    float *const w21 = (float *)(shared + w21_place);
    float *const w22 = (float *)(shared + w22_place);
    float *const w23 = (float *)(shared + w23_place);
    float *const w24 = (float *)(shared + w24_place);
    float *const w25 = (float *)(shared + w25_place);
    float *const w26 = (float *)(shared + w26_place);
    unsigned char *const w27 = (unsigned char *)(shared + w27_place);
    const long long q1 = k0[0];
    const long long q2 = k1[0];
    for (long long t = 0; t < last; t++) {
        const float *const c0 = t ? y0 + (t - 1) * z0 : a0;
        const unsigned long long *const rng_1_now = t % 2 ? rng_1_1 : rng_1_0;
        unsigned long long *const rng_1_next = t % 2 ? rng_1_0 : rng_1_1;
        const unsigned long long *const rng_0_now = t % 2 ? rng_0_1 : rng_0_0;
        unsigned long long *const rng_0_next = t % 2 ? rng_0_0 : rng_0_1;
        __syncthreads();
        for (int all_i4 = threadIdx.x; all_i4 < n4 * n5; all_i4 += blockDim.x) {
            const long long i3 = all_i4 / (int)n5;
            const long long i4 = all_i4 % (int)n5;
            const float v5 = c0[i3 * n5 + i4];
            const float v6 = gs_sqr_f32(v5);
            const float v7 = v6 / 0x1.0000000000000p+1f;
            const float v8 = 0x1.0000000000000p+1f * v5;
            const float v9 = gs_cos_f32(v8);
            const float v10 = v7 + v9;
            w10[i3 * n5 + i4] = v10;
        }
        for (long long i11 = threadIdx.x; i11 < 2; i11 += blockDim.x) {
            const unsigned long long v12 = rng_1_now[i11];
            const unsigned long long v13 = l11[i11];
            const unsigned long long v14 = v12 + v13;
            rng_1_next[i11] = v14;
            const unsigned long long v15 = rng_0_now[i11];
            const unsigned long long v16 = v15 + v13;
            rng_0_next[i11] = v16;
        }
        __syncthreads();
        gs_uniforms_f32(rng_1_now, 0, n4, w12);
        for (long long i17 = threadIdx.x / GS_WARP; i17 < n4; i17 += blockDim.x / GS_WARP) {
            float s18 = 0x0.0p+0f;
            for (long long i19 = threadIdx.x % GS_WARP; i19 < n5; i19 += GS_WARP) {
                const float v20 = w10[i17 * n5 + i19];
                s18 = s18 + v20;
            }
            s18 = gs_warp_sum_f32(s18);
            if (threadIdx.x % GS_WARP == 0) {
                w13[i17] = s18;
            }
        }
        gs_uniforms_f32(rng_0_now, 0, n4 * n5, w14);
        __syncthreads();
        for (int all_i22 = threadIdx.x; all_i22 < n4 * n5; all_i22 += blockDim.x) {
            const long long i21 = all_i22 / (int)n5;
            const long long i22 = all_i22 % (int)n5;
            const float v23 = w14[i21 * n5 + i22];
            const float v24 = gs_normal_icdf_f32(v23);
            w15[i21 * n5 + i22] = v24;
            const float v25 = gs_sqr_f32(v24);
            w16[i21 * n5 + i22] = v25;
        }
        __syncthreads();
        for (long long i26 = threadIdx.x / GS_WARP; i26 < n4; i26 += blockDim.x / GS_WARP) {
            float s27 = 0x0.0p+0f;
            for (long long i28 = threadIdx.x % GS_WARP; i28 < n5; i28 += GS_WARP) {
                const float v29 = w16[i26 * n5 + i28];
                s27 = s27 + v29;
            }
            s27 = gs_warp_sum_f32(s27);
            if (threadIdx.x % GS_WARP == 0) {
                w17[i26] = s27;
            }
        }
        for (int all_i32 = threadIdx.x; all_i32 < n4 * n5; all_i32 += blockDim.x) {
            const long long i31 = all_i32 / (int)n5;
            const long long i32 = all_i32 % (int)n5;
            const float v33 = c0[i31 * n5 + i32];
            w18[i31 * n5 + i32] = v33;
        }
        for (int all_i35 = threadIdx.x; all_i35 < n4 * n5; all_i35 += blockDim.x) {
            const long long i34 = all_i35 / (int)n5;
            const long long i35 = all_i35 % (int)n5;
            const float v36 = w15[i34 * n5 + i35];
            w20[i34 * n5 + i35] = v36;
        }
        for (long long t30 = 0; t30 < 5; t30++) {
            const float *const g37 = t30 % 2 ? w19 : w18;
            const float *const g38 = t30 % 2 ? w21 : w20;
            float *const o39 = (t30 + 1) % 2 ? w19 : w18;
            float *const o40 = (t30 + 1) % 2 ? w21 : w20;
            __syncthreads();
            for (int all_i42 = threadIdx.x; all_i42 < n4 * n5; all_i42 += blockDim.x) {
                const long long i41 = all_i42 / (int)n5;
                const long long i42 = all_i42 % (int)n5;
                const float v43 = g37[i41 * n5 + i42];
                const float v44 = g38[i41 * n5 + i42];
                const float v45 = k2[i41 * s6_0 + i42];
                const float v46 = 0x1.0000000000000p+1f * v43;
                const float v47 = gs_sin_f32(v46);
                const float v48 = v45 * v47;
                const float v49 = v48 * 0x1.0000000000000p+1f;
                const float v50 = k3[i41 * s7_0 + i42];
                const float v51 = v50 * v43;
                const float v52 = v51 * 0x1.0000000000000p+1f;
                const float v53 = v49 + v52;
                const float v54 = 0x1.3333340000000p-3f * v53;
                const float v55 = v44 + v54;
                const float v56 = 0x1.3333340000000p-2f * v55;
                const float v57 = v43 + v56;
                o39[i41 * n5 + i42] = v57;
                const float v58 = 0x1.0000000000000p+1f * v57;
                const float v59 = gs_sin_f32(v58);
                const float v60 = v45 * v59;
                const float v61 = v60 * 0x1.0000000000000p+1f;
                const float v62 = v50 * v57;
                const float v63 = v62 * 0x1.0000000000000p+1f;
                const float v64 = v61 + v63;
                const float v65 = 0x1.3333340000000p-3f * v64;
                const float v66 = v55 + v65;
                o40[i41 * n5 + i42] = v66;
            }
        }
        const float *const g67 = 1 ? w19 : w18;
        const float *const g68 = 1 ? w21 : w20;
        __syncthreads();
        for (long long i69 = threadIdx.x; i69 < n4; i69 += blockDim.x) {
            const float v70 = w13[i69];
            const float v71 = w17[i69];
            const float v72 = v71 / 0x1.0000000000000p+1f;
            const float v73 = v70 + v72;
            w22[i69] = v73;
        }
        for (int all_i75 = threadIdx.x; all_i75 < n4 * n5; all_i75 += blockDim.x) {
            const long long i74 = all_i75 / (int)n5;
            const long long i75 = all_i75 % (int)n5;
            const float v76 = g67[i74 * n5 + i75];
            const float v77 = gs_sqr_f32(v76);
            const float v78 = v77 / 0x1.0000000000000p+1f;
            const float v79 = 0x1.0000000000000p+1f * v76;
            const float v80 = gs_cos_f32(v79);
            const float v81 = v78 + v80;
            w23[i74 * n5 + i75] = v81;
            const float v82 = g68[i74 * n5 + i75];
            const float v83 = gs_sqr_f32(v82);
            w24[i74 * n5 + i75] = v83;
        }
        __syncthreads();
        for (long long i84 = threadIdx.x / GS_WARP; i84 < n4; i84 += blockDim.x / GS_WARP) {
            float s85 = 0x0.0p+0f;
            for (long long i86 = threadIdx.x % GS_WARP; i86 < n5; i86 += GS_WARP) {
                const float v87 = w23[i84 * n5 + i86];
                s85 = s85 + v87;
            }
            s85 = gs_warp_sum_f32(s85);
            if (threadIdx.x % GS_WARP == 0) {
                w25[i84] = s85;
            }
        }
        for (long long i88 = threadIdx.x / GS_WARP; i88 < n4; i88 += blockDim.x / GS_WARP) {
            float s89 = 0x0.0p+0f;
            for (long long i90 = threadIdx.x % GS_WARP; i90 < n5; i90 += GS_WARP) {
                const float v91 = w24[i88 * n5 + i90];
                s89 = s89 + v91;
            }
            s89 = gs_warp_sum_f32(s89);
            if (threadIdx.x % GS_WARP == 0) {
                w26[i88] = s89;
            }
        }
        __syncthreads();
        for (long long i92 = threadIdx.x; i92 < n4; i92 += blockDim.x) {
            const float v93 = w12[i92];
            const float v94 = w22[i92];
            const float v95 = w25[i92];
            const float v96 = w26[i92];
            const float v97 = v96 / 0x1.0000000000000p+1f;
            const float v98 = v95 + v97;
            const float v99 = v94 - v98;
            const float v100 = gs_exp_f32(v99);
            const unsigned char v101 = v93 < v100;
            w27[i92] = v101;
        }
        __syncthreads();
        for (int all_i103 = threadIdx.x; all_i103 < n4 * n5; all_i103 += blockDim.x) {
            const long long i102 = all_i103 / (int)n5;
            const long long i103 = all_i103 % (int)n5;
            const unsigned char v104 = w27[i102];
            const float v105 = g67[i102 * n5 + i103];
            const float v106 = c0[i102 * n5 + i103];
            const float v107 = v104 ? v105 : v106;
            y0[t * z0 + i102 * n5 + i103] = v107;
        }
    }
    gs_finish(done, last);
    return;
}
