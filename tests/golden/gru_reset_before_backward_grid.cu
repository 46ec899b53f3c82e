#include "persistent.h"
#include "held.h"

extern "C" __global__ void __launch_bounds__(256, 1) loop(const float *__restrict__ x0,
        const float *__restrict__ x1, const float *__restrict__ x2, const float *__restrict__ h0,
        const float *__restrict__ x4, const float *__restrict__ U_T,
        const float *__restrict__ U_T_3, float *y0, float *y1, float *h0_grad_0, float *h0_grad_1,
        long long *meeting, long long *done, long long last, long long rows, long long rows_a_group,
        long long members, long long sums_float32_place, long long w15_place, long long w16_place,
        long long w18_place, long long w19_place, long long x2_early_place,
        long long h0_early_place, long long s1_0, long long s1_1, long long s2_0, long long s2_1,
        long long s3_0, long long s3_1, long long s4_0, long long s4_1, long long s5_0,
        long long s5_1, long long s9_0, long long s9_1, long long s10_0, long long s10_1,
        long long n18, long long z0, long long z1) {
    GS_SHARED(shared);
    const long long group = blockIdx.x / members;
    const long long member = blockIdx.x % members;
    const long long row = group * rows_a_group;
    const long long n0 = rows - row < rows_a_group ? rows - row : rows_a_group;
    const long long u0_first = 2 * (128 * member / members);
    const long long u0_end = 2 * (128 * (member + 1) / members);
    const long long u0_count = u0_end - u0_first;
    x0 += row * s1_1;
    x1 += row * s2_1;
    x2 += row * s3_1;
    h0 += row * s4_1;
    x4 += row * s5_1;
    y0 += row * n18;
    y1 += row * 512;
    h0_grad_0 += row * 256;
    h0_grad_1 += row * 256;
    meeting += group * GS_GRID_MEETING;
    gs_u32 *const met = gs_not_met(shared + 248);
    gs_held<float, 512, 38, 256, 1, 4> p20_held;
    p20_held.clear();
    gs_held<float, 256, 38, 256, 1, 4> p17_held;
    p17_held.clear();
    float *const sums_float32 = (float *)(shared + sums_float32_place);
    float *const w15 = (float *)(shared + w15_place);
    float *const w16 = (float *)(shared + w16_place);
    float *const w18 = (float *)(shared + w18_place);
    float *const w19 = (float *)(shared + w19_place);
    float *const x2_early = (float *)(shared + x2_early_place);
    float *const h0_early = (float *)(shared + h0_early_place);
    p17_held.load(0, U_T + u0_first * s9_1, s9_0, s9_1, u0_count, sums_float32);
    __syncthreads();
    p20_held.load(0, U_T_3 + u0_first * s10_1, s10_0, s10_1, u0_count, sums_float32);
    for (long long t = 0; t < last; t++) {
        const float *const h0_grad_now = t % 2 ? h0_grad_1 : h0_grad_0;
        float *const h0_grad_next = t % 2 ? h0_grad_0 : h0_grad_1;
        __syncthreads();
        for (int all_i3 = threadIdx.x; all_i3 < n0 * u0_count; all_i3 += blockDim.x) {
            const long long i2 = all_i3 / (int)u0_count;
            const long long i3 = u0_first + all_i3 % (int)u0_count;
            const float h0_grad = h0_grad_now[i2 * 256 + i3];
            const float v5 = x4[t * s5_0 + i2 * s5_1 + i3];
            const float v7 = x1[t * s2_0 + i2 * s2_1 + i3];
            const float v11 = x0[t * s1_0 + i2 * s1_1 + i3];
            const float h0_value = h0[t * s4_0 + i2 * s4_1 + i3];
            const float v6 = h0_grad + v5;
            const float v8 = v6 * v7;
            const float v9 = 1.0f - v7;
            const float v10 = v6 * v9;
            const float v12 = v11 * v11;
            const float v13 = 1.0f - v12;
            const float v14 = v10 * v13;
            const float v16 = v6 * h0_value;
            const float v17 = v16 * v7;
            const float v18 = v17 * v9;
            const float v19 = v6 * v11;
            const float v20 = v19 * v7;
            const float v21 = v20 * v9;
            const float v22 = -v21;
            const float v23 = v18 + v22;
            w15[0 - u0_first + i2 * u0_count + i3] = v8;
            y0[t * z0 + 256 + 256 + i2 * n18 + i3] = v14;
            y1[t * z1 + 256 + i2 * 512 + i3] = v23;
        }
        gs_enter(meeting, members, member);
        for (int all_i25 = threadIdx.x; all_i25 < n0 * u0_count; all_i25 += blockDim.x) {
            const long long i24 = all_i25 / (int)u0_count;
            const long long i25 = u0_first + all_i25 % (int)u0_count;
            gs_copy(x2_early + i24 * u0_count + (i25 - u0_first), x2 + t * s3_0 + i24 * s3_1 + i25);
            gs_copy(h0_early + i24 * u0_count + (i25 - u0_first), h0 + t * s4_0 + i24 * s4_1 + i25);
        }
        if (gs_leave(meeting, met, members)) return gs_unmet(done);
        p17_held.multiply(n0, y0 + t * z0 + 256 + 256, n18, 1, u0_count, sums_float32, w16);
        __syncthreads();
        gs_copied();
        for (int all_i25 = threadIdx.x; all_i25 < n0 * u0_count; all_i25 += blockDim.x) {
            const long long i24 = all_i25 / (int)u0_count;
            const long long i25 = u0_first + all_i25 % (int)u0_count;
            const float v26 = w15[0 - u0_first + i24 * u0_count + i25];
            const float v27 = w16[0 - u0_first + i24 * u0_count + i25];
            const float v28 = x2_early[i24 * u0_count + (i25 - u0_first)];
            const float h0_31 = h0_early[i24 * u0_count + (i25 - u0_first)];
            const float v29 = v27 * v28;
            const float v30 = v26 + v29;
            const float v32 = v27 * h0_31;
            const float v33 = v32 * v28;
            const float v34 = 1.0f - v28;
            const float v35 = v33 * v34;
            w18[0 - u0_first + i24 * u0_count + i25] = v30;
            y1[t * z1 + i24 * 512 + i25] = v35;
        }
        __syncthreads();
        for (int all_i39 = threadIdx.x; all_i39 < n0 * u0_count; all_i39 += blockDim.x) {
            const long long i38 = all_i39 / (int)u0_count;
            const long long i39 = u0_first + all_i39 % (int)u0_count;
            const float v40 = y1[t * z1 + i38 * 512 + i39];
            y0[t * z0 + i38 * n18 + i39] = v40;
        }
        __syncthreads();
        for (int all_i42 = threadIdx.x; all_i42 < n0 * u0_count; all_i42 += blockDim.x) {
            const long long i41 = all_i42 / (int)u0_count;
            const long long i42 = u0_first + all_i42 % (int)u0_count;
            const float v43 = y1[t * z1 + 256 + i41 * 512 + i42];
            y0[t * z0 + 256 + i41 * n18 + i42] = v43;
        }
        if (gs_meet(meeting, met, members, member)) return gs_unmet(done);
        p20_held.multiply(n0, y1 + t * z1, 512, 1, u0_count, sums_float32, w19);
        __syncthreads();
        for (int all_i47 = threadIdx.x; all_i47 < n0 * u0_count; all_i47 += blockDim.x) {
            const long long i46 = all_i47 / (int)u0_count;
            const long long i47 = u0_first + all_i47 % (int)u0_count;
            const float v48 = w18[0 - u0_first + i46 * u0_count + i47];
            const float v49 = w19[0 - u0_first + i46 * u0_count + i47];
            const float v50 = v48 + v49;
            h0_grad_next[i46 * 256 + i47] = v50;
        }
    }
    gs_finish(done, last);
}
