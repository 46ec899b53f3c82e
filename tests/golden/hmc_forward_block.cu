#include "persistent.h"
#include "scalars.h"
#include "block_draws.h"
#include "folds.h"

extern "C" __global__ void __launch_bounds__(256, 1) loop(const float *__restrict__ k2,
        const float *__restrict__ k3, float *y0, float *a0, unsigned long long *rng_1_0,
        unsigned long long *rng_1_1, unsigned long long *rng_0_0, unsigned long long *rng_0_1,
        const unsigned long long *__restrict__ l10, long long *done, long long last, long long rows,
        long long rows_a_block, long long w11_place, long long w12_place, long long w13_place,
        long long w14_place, long long w15_place, long long w16_place, long long w17_place,
        long long w18_place, long long w19_place, long long w20_place, long long w21_place,
        long long w22_place, long long w23_place, long long n5, long long s6_0, long long s7_0,
        long long z0) {
    GS_SHARED(shared);
    const long long row = blockIdx.x * rows_a_block;
    const long long n4 = rows - row < rows_a_block ? rows - row : rows_a_block;
    k2 += row * s6_0;
    k3 += row * s7_0;
    y0 += row * n5;
    a0 += row * n5;
    rng_1_0 += blockIdx.x * 3;
    rng_1_1 += blockIdx.x * 3;
    rng_0_0 += blockIdx.x * 3;
    rng_0_1 += blockIdx.x * 3;
    float *const w11 = (float *)(shared + w11_place);
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
    unsigned char *const w23 = (unsigned char *)(shared + w23_place);
    for (long long t = 0; t < last; t++) {
        const float *const c0 = t ? y0 + (t - 1) * z0 : a0;
        const unsigned long long *const rng_1_now = t % 2 ? rng_1_1 : rng_1_0;
        unsigned long long *const rng_1_next = t % 2 ? rng_1_0 : rng_1_1;
        const unsigned long long *const rng_0_now = t % 2 ? rng_0_1 : rng_0_0;
        unsigned long long *const rng_0_next = t % 2 ? rng_0_0 : rng_0_1;
        for (long long i3 = threadIdx.x; i3 < 3; i3 += blockDim.x) {
            const unsigned long long rng_1 = rng_1_now[i3];
            const unsigned long long v5 = l10[i3];
            const unsigned long long rng_0 = rng_0_now[i3];
            const unsigned long long v6 = rng_1 + v5;
            const unsigned long long v8 = rng_0 + v5;
            rng_1_next[i3] = v6;
            rng_0_next[i3] = v8;
        }
        __syncthreads();
        gs_uniforms_f32(rng_1_now, 1, row, n4, w11);
        for (long long i9 = threadIdx.x / GS_WARP; i9 < n4; i9 += blockDim.x / GS_WARP) {
            float s10 = 0.0f;
            for (long long i11 = threadIdx.x % GS_WARP; i11 < n5; i11 += GS_WARP) {
                const float v12 = c0[i9 * n5 + i11];
                const float v13 = gs_sqr_f32(v12);
                const float v14 = v13 / 2.0f;
                const float v15 = 2.0f * v12;
                const float v16 = gs_cos_f32(v15);
                const float v17 = v14 + v16;
                s10 = s10 + v17;
            }
            s10 = gs_warp_sum_f32(s10);
            if (threadIdx.x % GS_WARP == 0) {
                w12[i9] = s10;
            }
        }
        gs_uniforms_f32(rng_0_now, n5, row * n5, n4 * n5, w13);
        __syncthreads();
        for (int all_i19 = threadIdx.x; all_i19 < n4 * n5; all_i19 += blockDim.x) {
            const long long i18 = all_i19 / (int)n5;
            const long long i19 = all_i19 % (int)n5;
            const float v20 = w13[i18 * n5 + i19];
            const float v21 = gs_normal_icdf_f32(v20);
            w14[i18 * n5 + i19] = v21;
        }
        __syncthreads();
        for (long long i22 = threadIdx.x / GS_WARP; i22 < n4; i22 += blockDim.x / GS_WARP) {
            float s23 = 0.0f;
            for (long long i24 = threadIdx.x % GS_WARP; i24 < n5; i24 += GS_WARP) {
                const float v25 = w14[i22 * n5 + i24];
                const float v26 = gs_sqr_f32(v25);
                s23 = s23 + v26;
            }
            s23 = gs_warp_sum_f32(s23);
            if (threadIdx.x % GS_WARP == 0) {
                w15[i22] = s23;
            }
        }
        for (int all_i29 = threadIdx.x; all_i29 < n4 * n5; all_i29 += blockDim.x) {
            const long long i28 = all_i29 / (int)n5;
            const long long i29 = all_i29 % (int)n5;
            const float v30 = c0[i28 * n5 + i29];
            w16[i28 * n5 + i29] = v30;
        }
        for (int all_i32 = threadIdx.x; all_i32 < n4 * n5; all_i32 += blockDim.x) {
            const long long i31 = all_i32 / (int)n5;
            const long long i32 = all_i32 % (int)n5;
            const float v33 = w14[i31 * n5 + i32];
            w18[i31 * n5 + i32] = v33;
        }
        for (long long t27 = 0; t27 < 5; t27++) {
            const float *const g34 = t27 % 2 ? w17 : w16;
            const float *const g35 = t27 % 2 ? w19 : w18;
            float *const o36 = (t27 + 1) % 2 ? w17 : w16;
            float *const o37 = (t27 + 1) % 2 ? w19 : w18;
            __syncthreads();
            for (int all_i39 = threadIdx.x; all_i39 < n4 * n5; all_i39 += blockDim.x) {
                const long long i38 = all_i39 / (int)n5;
                const long long i39 = all_i39 % (int)n5;
                const float v40 = g34[i38 * n5 + i39];
                const float v41 = g35[i38 * n5 + i39];
                const float v42 = k2[i38 * s6_0 + i39];
                const float v47 = k3[i38 * s7_0 + i39];
                const float v43 = 2.0f * v40;
                const float v44 = gs_sin_f32(v43);
                const float v45 = v42 * v44;
                const float v46 = v45 * 2.0f;
                const float v48 = v47 * v40;
                const float v49 = v48 * 2.0f;
                const float v50 = v46 + v49;
                const float v51 = 0.15000000596046448f * v50;
                const float v52 = v41 + v51;
                const float v53 = 0.30000001192092896f * v52;
                const float v54 = v40 + v53;
                const float v55 = 2.0f * v54;
                const float v56 = gs_sin_f32(v55);
                const float v57 = v42 * v56;
                const float v58 = v57 * 2.0f;
                const float v59 = v47 * v54;
                const float v60 = v59 * 2.0f;
                const float v61 = v58 + v60;
                const float v62 = 0.15000000596046448f * v61;
                const float v63 = v52 + v62;
                o36[i38 * n5 + i39] = v54;
                o37[i38 * n5 + i39] = v63;
            }
        }
        const float *const g64 = w17;
        const float *const g65 = w19;
        __syncthreads();
        for (long long i66 = threadIdx.x; i66 < n4; i66 += blockDim.x) {
            const float v67 = w12[i66];
            const float v68 = w15[i66];
            const float v69 = v68 / 2.0f;
            const float v70 = v67 + v69;
            w20[i66] = v70;
        }
        for (long long i71 = threadIdx.x / GS_WARP; i71 < n4; i71 += blockDim.x / GS_WARP) {
            float s72 = 0.0f;
            for (long long i73 = threadIdx.x % GS_WARP; i73 < n5; i73 += GS_WARP) {
                const float v74 = g64[i71 * n5 + i73];
                const float v75 = gs_sqr_f32(v74);
                const float v76 = v75 / 2.0f;
                const float v77 = 2.0f * v74;
                const float v78 = gs_cos_f32(v77);
                const float v79 = v76 + v78;
                s72 = s72 + v79;
            }
            s72 = gs_warp_sum_f32(s72);
            if (threadIdx.x % GS_WARP == 0) {
                w21[i71] = s72;
            }
        }
        for (long long i80 = threadIdx.x / GS_WARP; i80 < n4; i80 += blockDim.x / GS_WARP) {
            float s81 = 0.0f;
            for (long long i82 = threadIdx.x % GS_WARP; i82 < n5; i82 += GS_WARP) {
                const float v83 = g65[i80 * n5 + i82];
                const float v84 = gs_sqr_f32(v83);
                s81 = s81 + v84;
            }
            s81 = gs_warp_sum_f32(s81);
            if (threadIdx.x % GS_WARP == 0) {
                w22[i80] = s81;
            }
        }
        __syncthreads();
        for (long long i85 = threadIdx.x; i85 < n4; i85 += blockDim.x) {
            const float v86 = w11[i85];
            const float v87 = w20[i85];
            const float v88 = w21[i85];
            const float v89 = w22[i85];
            const float v90 = v89 / 2.0f;
            const float v91 = v88 + v90;
            const float v92 = v87 - v91;
            const float v93 = gs_exp_f32(v92);
            const unsigned char v94 = v86 < v93;
            w23[i85] = v94;
        }
        __syncthreads();
        for (int all_i96 = threadIdx.x; all_i96 < n4 * n5; all_i96 += blockDim.x) {
            const long long i95 = all_i96 / (int)n5;
            const long long i96 = all_i96 % (int)n5;
            const unsigned char v97 = w23[i95];
            const float v98 = g64[i95 * n5 + i96];
            const float v99 = c0[i95 * n5 + i96];
            const float v100 = v97 ? v98 : v99;
            y0[t * z0 + i95 * n5 + i96] = v100;
        }
    }
    gs_finish(done, last);
}
