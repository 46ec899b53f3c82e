#include "persistent.h"
#include "held.h"

extern "C" __global__ void __launch_bounds__(256, 1) loop(const float *__restrict__ x0,
        const float *__restrict__ x1, const float *__restrict__ U_T, float *y0, float *h0_grad_0,
        float *h0_grad_1, long long *meeting, long long *done, long long last, long long rows,
        long long rows_a_group, long long members, long long sums_float32_place,
        long long x1_early_place, long long x0_early_place, long long s1_0, long long s1_1,
        long long s2_0, long long s2_1, long long s4_0, long long s4_1, long long z0) {
    GS_SHARED(shared);
    const long long group = blockIdx.x / members;
    const long long member = blockIdx.x % members;
    const long long row = group * rows_a_group;
    const long long n0 = rows - row < rows_a_group ? rows - row : rows_a_group;
    const long long u0_first = 4 * (64 * member / members);
    const long long u0_end = 4 * (64 * (member + 1) / members);
    const long long u0_count = u0_end - u0_first;
    x0 += row * s1_1;
    x1 += row * s2_1;
    y0 += row * 256;
    h0_grad_0 += row * 256;
    h0_grad_1 += row * 256;
    meeting += group * GS_GRID_MEETING;
    gs_u32 *const met = gs_not_met(shared + 248);
    gs_held<float, 256, 128, 256, 1, 8, true> p7_held;
    p7_held.clear();
    float *const sums_float32 = (float *)(shared + sums_float32_place);
    float *const x1_early = (float *)(shared + x1_early_place);
    float *const x0_early = (float *)(shared + x0_early_place);
    p7_held.load(0, U_T + u0_first * s4_1, s4_0, s4_1, u0_count, sums_float32);
    if (last > 0) {
        for (int all_i2 = threadIdx.x; all_i2 < n0 * u0_count; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / (int)u0_count;
            const long long i2 = u0_first + all_i2 % (int)u0_count;
            gs_copy(x1_early + i1 * u0_count + (i2 - u0_first), x1 + i1 * s2_1 + i2);
            gs_copy(x0_early + i1 * u0_count + (i2 - u0_first), x0 + i1 * s1_1 + i2);
        }
    }
    for (long long t = 0; t < last; t++) {
        const float *const h0_grad_now = t % 2 ? h0_grad_1 : h0_grad_0;
        float *const h0_grad_next = t % 2 ? h0_grad_0 : h0_grad_1;
        __syncthreads();
        gs_copied();
        for (int all_i2 = threadIdx.x; all_i2 < n0 * u0_count; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / (int)u0_count;
            const long long i2 = u0_first + all_i2 % (int)u0_count;
            const float h0_grad = h0_grad_now[i1 * 256 + i2];
            const float v4 = x1_early[i1 * u0_count + (i2 - u0_first)];
            const float v6 = x0_early[i1 * u0_count + (i2 - u0_first)];
            const float v5 = h0_grad + v4;
            const float v7 = v6 * v6;
            const float v8 = 1.0f - v7;
            const float v9 = v5 * v8;
            y0[t * z0 + i1 * 256 + i2] = v9;
        }
        gs_enter(meeting, members, member);
        if (t + 1 < last) {
            for (int all_i2 = threadIdx.x; all_i2 < n0 * u0_count; all_i2 += blockDim.x) {
                const long long i1 = all_i2 / (int)u0_count;
                const long long i2 = u0_first + all_i2 % (int)u0_count;
                gs_copy(x1_early + i1 * u0_count + (i2 - u0_first), x1 + (t + 1) * s2_0 + i1 * s2_1 + i2);
                gs_copy(x0_early + i1 * u0_count + (i2 - u0_first), x0 + (t + 1) * s1_0 + i1 * s1_1 + i2);
            }
        }
        if (gs_leave(meeting, met, members)) return gs_unmet(done);
        p7_held.multiply_far(n0, y0 + t * z0, 256, 1, 256, sums_float32, h0_grad_next + u0_first);
    }
    gs_finish(done, last);
}
