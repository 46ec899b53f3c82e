#include "persistent.h"
#include "scalars.h"
#include "held.h"

extern "C" __global__ void __launch_bounds__(256, 1) loop(const float *__restrict__ x0,
        const float *__restrict__ x1, const float *__restrict__ x2, const float *__restrict__ U,
        const float *__restrict__ U_1, const float *__restrict__ U_2, float *y0, float *y1,
        float *y2, float *y3, float *h0_0, long long *meeting, float *w17, long long *done,
        long long last, long long rows, long long rows_a_group, long long members,
        long long sums_float32_place, long long w12_place, long long w14_place, long long w16_place,
        long long w17_apart, long long w18_place, long long w19_place, long long x0_early_place,
        long long x2_early_place, long long h0_now_met_place, long long y2_late_place,
        long long y3_late_place, long long s1_0, long long s1_1, long long s2_0, long long s2_1,
        long long s3_0, long long s3_1, long long s5_0, long long s5_1, long long s6_0,
        long long s6_1, long long s7_0, long long s7_1, long long z0, long long z1, long long z2,
        long long z3) {
    GS_SHARED(shared);
    const long long group = blockIdx.x / members;
    const long long member = blockIdx.x % members;
    const long long row = group * rows_a_group;
    const long long n11 = rows - row < rows_a_group ? rows - row : rows_a_group;
    const long long u0_first = 2 * (128 * member / members);
    const long long u0_end = 2 * (128 * (member + 1) / members);
    const long long u0_count = u0_end - u0_first;
    x0 += row * s1_1;
    x1 += row * s2_1;
    x2 += row * s3_1;
    y0 += row * 256;
    y1 += row * 256;
    y2 += row * 256;
    y3 += row * 256;
    h0_0 += row * 256;
    meeting += group * GS_GRID_MEETING;
    gs_u32 *const met = gs_not_met(shared + 248);
    gs_held<float, 256, 38, 256, 2, 4> p13_held;
    p13_held.clear();
    gs_held<float, 256, 38, 256, 1, 4> p20_held;
    p20_held.clear();
    float *const sums_float32 = (float *)(shared + sums_float32_place);
    float *const w12 = (float *)(shared + w12_place);
    float *const w14 = (float *)(shared + w14_place);
    float *const w16 = (float *)(shared + w16_place);
    w17 += group * w17_apart;
    float *const w18 = (float *)(shared + w18_place);
    float *const w19 = (float *)(shared + w19_place);
    float *const x0_early = (float *)(shared + x0_early_place);
    float *const x2_early = (float *)(shared + x2_early_place);
    float *const h0_now_met = (float *)(shared + h0_now_met_place);
    float *const y2_late = (float *)(shared + y2_late_place);
    float *const y3_late = (float *)(shared + y3_late_place);
    p13_held.load(0, U_1 + u0_first * s6_1, s6_0, s6_1, u0_count, sums_float32);
    __syncthreads();
    p13_held.load(1, U_2 + u0_first * s7_1, s7_0, s7_1, u0_count, sums_float32);
    __syncthreads();
    p20_held.load(0, U + u0_first * s5_1, s5_0, s5_1, u0_count, sums_float32);
    for (long long t = 0; t < last; t++) {
        const float *const h0_now = t ? y0 + (t - 1) * z0 : h0_0;
        gs_enter(meeting, members, member);
        if (t > 0) {
            for (int all_i2 = threadIdx.x; all_i2 < n11 * u0_count; all_i2 += blockDim.x) {
                const long long i1 = all_i2 / (int)u0_count;
                const long long i2 = u0_first + all_i2 % (int)u0_count;
                y2[(t - 1) * z2 + i1 * 256 + i2] = y2_late[i1 * u0_count + (i2 - u0_first)];
                y3[(t - 1) * z3 + i1 * 256 + i2] = y3_late[i1 * u0_count + (i2 - u0_first)];
            }
        }
        for (int all_i2 = threadIdx.x; all_i2 < n11 * u0_count; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / (int)u0_count;
            const long long i2 = u0_first + all_i2 % (int)u0_count;
            gs_copy(x0_early + i1 * u0_count + (i2 - u0_first), x0 + t * s1_0 + i1 * s1_1 + i2);
            gs_copy(x2_early + i1 * u0_count + (i2 - u0_first), x2 + t * s3_0 + i1 * s3_1 + i2);
        }
        if (gs_leave(meeting, met, members)) return gs_unmet(done);
        for (int all_i2 = threadIdx.x; all_i2 < n11 * u0_count; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / (int)u0_count;
            const long long i2 = u0_first + all_i2 % (int)u0_count;
            gs_copy(h0_now_met + i1 * u0_count + (i2 - u0_first), h0_now + i1 * 256 + i2);
        }
        p13_held.multiply(n11, h0_now, 256, 1, u0_count, sums_float32, w12, w14);
        __syncthreads();
        gs_copied();
        for (int all_i2 = threadIdx.x; all_i2 < n11 * u0_count; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / (int)u0_count;
            const long long i2 = u0_first + all_i2 % (int)u0_count;
            const float v3 = x0_early[i1 * u0_count + (i2 - u0_first)];
            const float v4 = w12[0 - u0_first + i1 * u0_count + i2];
            const float v8 = x2_early[i1 * u0_count + (i2 - u0_first)];
            const float v9 = w14[0 - u0_first + i1 * u0_count + i2];
            const float h0 = h0_now_met[i1 * u0_count + (i2 - u0_first)];
            const float v5 = v3 + v4;
            const float v6 = gs_sigmoid_f32(v5);
            const float v7 = 1.0f - v6;
            const float v10 = v8 + v9;
            const float v11 = gs_sigmoid_f32(v10);
            const float v13 = v11 * h0;
            const float v14 = v6 * h0;
            y2_late[i1 * u0_count + (i2 - u0_first)] = v6;
            w16[0 - u0_first + i1 * u0_count + i2] = v7;
            y3_late[i1 * u0_count + (i2 - u0_first)] = v11;
            w17[i1 * 256 + i2] = v13;
            w18[0 - u0_first + i1 * u0_count + i2] = v14;
        }
        if (gs_meet(meeting, met, members, member)) return gs_unmet(done);
        p20_held.multiply(n11, w17, 256, 1, u0_count, sums_float32, w19);
        __syncthreads();
        for (int all_i16 = threadIdx.x; all_i16 < n11 * u0_count; all_i16 += blockDim.x) {
            const long long i15 = all_i16 / (int)u0_count;
            const long long i16 = u0_first + all_i16 % (int)u0_count;
            const float v17 = x1[t * s2_0 + i15 * s2_1 + i16];
            const float v18 = w19[0 - u0_first + i15 * u0_count + i16];
            const float v21 = w16[0 - u0_first + i15 * u0_count + i16];
            const float v23 = w18[0 - u0_first + i15 * u0_count + i16];
            const float v19 = v17 + v18;
            const float v20 = gs_tanh_f32(v19);
            const float v22 = v21 * v20;
            const float v24 = v22 + v23;
            y1[t * z1 + i15 * 256 + i16] = v20;
            y0[t * z0 + i15 * 256 + i16] = v24;
        }
    }
    if (last > 0) {
        for (int all_i2 = threadIdx.x; all_i2 < n11 * u0_count; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / (int)u0_count;
            const long long i2 = u0_first + all_i2 % (int)u0_count;
            y2[(last - 1) * z2 + i1 * 256 + i2] = y2_late[i1 * u0_count + (i2 - u0_first)];
            y3[(last - 1) * z3 + i1 * 256 + i2] = y3_late[i1 * u0_count + (i2 - u0_first)];
        }
    }
    gs_finish(done, last);
}
