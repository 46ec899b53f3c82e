#include "persistent.h"
#include "scalars.h"
#include "held.h"

extern "C" __global__ void __launch_bounds__(256, 1) loop(const float *__restrict__ x0,
        const float *__restrict__ x1, const float *__restrict__ x2, const float *__restrict__ x3,
        const float *__restrict__ U, const float *__restrict__ b, const float *__restrict__ U_2,
        const float *__restrict__ b_3, const float *__restrict__ U_4, const float *__restrict__ b_5,
        const float *__restrict__ U_6, const float *__restrict__ b_7, float *y0, float *y1,
        float *y2, float *y3, float *y4, float *y5, float *h0_0, float *a1, long long *meeting,
        long long *done, long long last, long long rows, long long rows_a_group, long long members,
        long long sums_float32_place, long long w21_place, long long w23_place, long long w25_place,
        long long w27_place, long long x0_early_place, long long x1_early_place,
        long long x2_early_place, long long x3_early_place, long long y1_late_place,
        long long b_kept_place, long long b_3_kept_place, long long b_5_kept_place,
        long long b_7_kept_place, long long y2_late_place, long long y5_late_place,
        long long y3_late_place, long long y4_late_place, long long s1_0, long long s1_1,
        long long s2_0, long long s2_1, long long s3_0, long long s3_1, long long s4_0,
        long long s4_1, long long s7_0, long long s7_1, long long s9_0, long long s9_1,
        long long s11_0, long long s11_1, long long s13_0, long long s13_1, long long z0,
        long long z1, long long z2, long long z3, long long z4, long long z5) {
    GS_SHARED(shared);
    const long long group = blockIdx.x / members;
    const long long member = blockIdx.x % members;
    const long long row = group * rows_a_group;
    const long long n20 = rows - row < rows_a_group ? rows - row : rows_a_group;
    const long long u0_first = 4 * (64 * member / members);
    const long long u0_end = 4 * (64 * (member + 1) / members);
    const long long u0_count = u0_end - u0_first;
    x0 += row * s1_1;
    x1 += row * s2_1;
    x2 += row * s3_1;
    x3 += row * s4_1;
    y0 += row * 256;
    y1 += row * 256;
    y2 += row * 256;
    y3 += row * 256;
    y4 += row * 256;
    y5 += row * 256;
    h0_0 += row * 256;
    a1 += row * 256;
    meeting += group * GS_GRID_MEETING;
    gs_u32 *const met = gs_not_met(shared + 248);
    gs_held<float, 256, 32, 256, 4, 8, true> p22_held;
    p22_held.clear();
    float *const sums_float32 = (float *)(shared + sums_float32_place);
    float *const w21 = (float *)(shared + w21_place);
    float *const w23 = (float *)(shared + w23_place);
    float *const w25 = (float *)(shared + w25_place);
    float *const w27 = (float *)(shared + w27_place);
    float *const x0_early = (float *)(shared + x0_early_place);
    float *const x1_early = (float *)(shared + x1_early_place);
    float *const x2_early = (float *)(shared + x2_early_place);
    float *const x3_early = (float *)(shared + x3_early_place);
    float *const y1_late = (float *)(shared + y1_late_place);
    float *const b_kept = (float *)(shared + b_kept_place);
    float *const b_3_kept = (float *)(shared + b_3_kept_place);
    float *const b_5_kept = (float *)(shared + b_5_kept_place);
    float *const b_7_kept = (float *)(shared + b_7_kept_place);
    float *const y2_late = (float *)(shared + y2_late_place);
    float *const y5_late = (float *)(shared + y5_late_place);
    float *const y3_late = (float *)(shared + y3_late_place);
    float *const y4_late = (float *)(shared + y4_late_place);
    p22_held.load(0, U + u0_first * s7_1, s7_0, s7_1, u0_count, sums_float32);
    __syncthreads();
    p22_held.load(1, U_2 + u0_first * s9_1, s9_0, s9_1, u0_count, sums_float32);
    __syncthreads();
    p22_held.load(2, U_4 + u0_first * s11_1, s11_0, s11_1, u0_count, sums_float32);
    __syncthreads();
    p22_held.load(3, U_6 + u0_first * s13_1, s13_0, s13_1, u0_count, sums_float32);
    for (int all_i2 = threadIdx.x; all_i2 < n20 * u0_count; all_i2 += blockDim.x) {
        const long long i1 = all_i2 / (int)u0_count;
        const long long i2 = u0_first + all_i2 % (int)u0_count;
        y1_late[i1 * u0_count + (i2 - u0_first)] = a1[i1 * 256 + i2];
    }
    for (int all_i2 = threadIdx.x; all_i2 < n20 * u0_count; all_i2 += blockDim.x) {
        const long long i1 = all_i2 / (int)u0_count;
        const long long i2 = u0_first + all_i2 % (int)u0_count;
        gs_copy(b_kept + i1 * u0_count + (i2 - u0_first), b + i2);
        gs_copy(b_3_kept + i1 * u0_count + (i2 - u0_first), b_3 + i2);
        gs_copy(b_5_kept + i1 * u0_count + (i2 - u0_first), b_5 + i2);
        gs_copy(b_7_kept + i1 * u0_count + (i2 - u0_first), b_7 + i2);
    }
    for (long long t = 0; t < last; t++) {
        const float *const h0_now = t ? y0 + (t - 1) * z0 : h0_0;
        gs_enter(meeting, members, member);
        if (t > 0) {
            for (int all_i2 = threadIdx.x; all_i2 < n20 * u0_count; all_i2 += blockDim.x) {
                const long long i1 = all_i2 / (int)u0_count;
                const long long i2 = u0_first + all_i2 % (int)u0_count;
                y2[(t - 1) * z2 + i1 * 256 + i2] = y2_late[i1 * u0_count + (i2 - u0_first)];
                y5[(t - 1) * z5 + i1 * 256 + i2] = y5_late[i1 * u0_count + (i2 - u0_first)];
                y3[(t - 1) * z3 + i1 * 256 + i2] = y3_late[i1 * u0_count + (i2 - u0_first)];
                y4[(t - 1) * z4 + i1 * 256 + i2] = y4_late[i1 * u0_count + (i2 - u0_first)];
                y1[(t - 1) * z1 + i1 * 256 + i2] = y1_late[i1 * u0_count + (i2 - u0_first)];
            }
        }
        for (int all_i2 = threadIdx.x; all_i2 < n20 * u0_count; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / (int)u0_count;
            const long long i2 = u0_first + all_i2 % (int)u0_count;
            gs_copy(x0_early + i1 * u0_count + (i2 - u0_first), x0 + t * s1_0 + i1 * s1_1 + i2);
            gs_copy(x1_early + i1 * u0_count + (i2 - u0_first), x1 + t * s2_0 + i1 * s2_1 + i2);
            gs_copy(x2_early + i1 * u0_count + (i2 - u0_first), x2 + t * s3_0 + i1 * s3_1 + i2);
            gs_copy(x3_early + i1 * u0_count + (i2 - u0_first), x3 + t * s4_0 + i1 * s4_1 + i2);
        }
        if (gs_leave(meeting, met, members)) return gs_unmet(done);
        p22_held.multiply_far(n20, h0_now, 256, 1, u0_count, sums_float32, w21, w23, w25, w27);
        __syncthreads();
        gs_copied();
        for (int all_i2 = threadIdx.x; all_i2 < n20 * u0_count; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / (int)u0_count;
            const long long i2 = u0_first + all_i2 % (int)u0_count;
            const float v3 = x0_early[i1 * u0_count + (i2 - u0_first)];
            const float v4 = w21[0 - u0_first + i1 * u0_count + i2];
            const float b_value = b_kept[i1 * u0_count + (i2 - u0_first)];
            const float v9 = x1_early[i1 * u0_count + (i2 - u0_first)];
            const float v10 = w23[0 - u0_first + i1 * u0_count + i2];
            const float b_12 = b_3_kept[i1 * u0_count + (i2 - u0_first)];
            const float v15 = x2_early[i1 * u0_count + (i2 - u0_first)];
            const float v16 = w25[0 - u0_first + i1 * u0_count + i2];
            const float b_18 = b_5_kept[i1 * u0_count + (i2 - u0_first)];
            const float v21 = x3_early[i1 * u0_count + (i2 - u0_first)];
            const float v22 = w27[0 - u0_first + i1 * u0_count + i2];
            const float b_24 = b_7_kept[i1 * u0_count + (i2 - u0_first)];
            const float v27 = y1_late[i1 * u0_count + (i2 - u0_first)];
            const float v5 = v3 + v4;
            const float v7 = v5 + b_value;
            const float v8 = gs_sigmoid_f32(v7);
            const float v11 = v9 + v10;
            const float v13 = v11 + b_12;
            const float v14 = gs_sigmoid_f32(v13);
            const float v17 = v15 + v16;
            const float v19 = v17 + b_18;
            const float v20 = gs_sigmoid_f32(v19);
            const float v23 = v21 + v22;
            const float v25 = v23 + b_24;
            const float v26 = gs_tanh_f32(v25);
            const float v28 = v14 * v27;
            const float v29 = v20 * v26;
            const float v30 = v28 + v29;
            const float v31 = gs_tanh_f32(v30);
            const float v32 = v8 * v31;
            y2_late[i1 * u0_count + (i2 - u0_first)] = v8;
            y5_late[i1 * u0_count + (i2 - u0_first)] = v14;
            y3_late[i1 * u0_count + (i2 - u0_first)] = v20;
            y4_late[i1 * u0_count + (i2 - u0_first)] = v26;
            y1_late[i1 * u0_count + (i2 - u0_first)] = v30;
            y0[t * z0 + i1 * 256 + i2] = v32;
        }
    }
    if (last > 0) {
        for (int all_i2 = threadIdx.x; all_i2 < n20 * u0_count; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / (int)u0_count;
            const long long i2 = u0_first + all_i2 % (int)u0_count;
            y2[(last - 1) * z2 + i1 * 256 + i2] = y2_late[i1 * u0_count + (i2 - u0_first)];
            y5[(last - 1) * z5 + i1 * 256 + i2] = y5_late[i1 * u0_count + (i2 - u0_first)];
            y3[(last - 1) * z3 + i1 * 256 + i2] = y3_late[i1 * u0_count + (i2 - u0_first)];
            y4[(last - 1) * z4 + i1 * 256 + i2] = y4_late[i1 * u0_count + (i2 - u0_first)];
            y1[(last - 1) * z1 + i1 * 256 + i2] = y1_late[i1 * u0_count + (i2 - u0_first)];
        }
    }
    gs_finish(done, last);
}
