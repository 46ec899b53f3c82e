#include "persistent.h"
#include "scalars.h"
#include "held.h"

extern "C" __global__ void __launch_bounds__(256, 1) loop(const float *__restrict__ x0,
        const float *__restrict__ U, const float *__restrict__ b, float *y0, float *h0_0,
        long long *meeting, long long *done, long long last, long long rows, long long rows_a_group,
        long long members, long long sums_float32_place, long long w6_place,
        long long x0_early_place, long long b_kept_place, long long s1_0, long long s1_1,
        long long s3_0, long long s3_1, long long z0) {
    GS_SHARED(shared);
    const long long group = blockIdx.x / members;
    const long long member = blockIdx.x % members;
    const long long row = group * rows_a_group;
    const long long n2 = rows - row < rows_a_group ? rows - row : rows_a_group;
    const long long u0_first = 4 * (64 * member / members);
    const long long u0_end = 4 * (64 * (member + 1) / members);
    const long long u0_count = u0_end - u0_first;
    x0 += row * s1_1;
    y0 += row * 256;
    h0_0 += row * 256;
    meeting += group * GS_GRID_MEETING;
    gs_u32 *const met = gs_not_met(shared + 248);
    gs_held<float, 256, 128, 256, 1, 8, true> p7_held;
    p7_held.clear();
    float *const sums_float32 = (float *)(shared + sums_float32_place);
    float *const w6 = (float *)(shared + w6_place);
    float *const x0_early = (float *)(shared + x0_early_place);
    float *const b_kept = (float *)(shared + b_kept_place);
    p7_held.load(0, U + u0_first * s3_1, s3_0, s3_1, u0_count, sums_float32);
    for (int all_i2 = threadIdx.x; all_i2 < n2 * u0_count; all_i2 += blockDim.x) {
        const long long i1 = all_i2 / (int)u0_count;
        const long long i2 = u0_first + all_i2 % (int)u0_count;
        gs_copy(b_kept + i1 * u0_count + (i2 - u0_first), b + i2);
    }
    for (long long t = 0; t < last; t++) {
        const float *const h0_now = t ? y0 + (t - 1) * z0 : h0_0;
        gs_enter(meeting, members, member);
        for (int all_i2 = threadIdx.x; all_i2 < n2 * u0_count; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / (int)u0_count;
            const long long i2 = u0_first + all_i2 % (int)u0_count;
            gs_copy(x0_early + i1 * u0_count + (i2 - u0_first), x0 + t * s1_0 + i1 * s1_1 + i2);
        }
        if (gs_leave(meeting, met, members)) return gs_unmet(done);
        p7_held.multiply_far(n2, h0_now, 256, 1, u0_count, sums_float32, w6);
        __syncthreads();
        gs_copied();
        for (int all_i2 = threadIdx.x; all_i2 < n2 * u0_count; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / (int)u0_count;
            const long long i2 = u0_first + all_i2 % (int)u0_count;
            const float v3 = x0_early[i1 * u0_count + (i2 - u0_first)];
            const float v4 = w6[0 - u0_first + i1 * u0_count + i2];
            const float b_value = b_kept[i1 * u0_count + (i2 - u0_first)];
            const float v5 = v3 + v4;
            const float v7 = v5 + b_value;
            const float v8 = gs_tanh_f32(v7);
            y0[t * z0 + i1 * 256 + i2] = v8;
        }
    }
    gs_finish(done, last);
}
