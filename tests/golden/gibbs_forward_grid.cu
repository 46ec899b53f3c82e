#include "persistent.h"
#include "scalars.h"
#include "block_draws.h"
#include "held.h"

extern "C" __global__ void __launch_bounds__(256, 1) loop(const float *__restrict__ W,
        const float *__restrict__ bh, const float *__restrict__ W_T, const float *__restrict__ bv,
        float *y0, float *a0, unsigned long long *rng_1_0, unsigned long long *rng_1_1,
        unsigned long long *rng_0_0, unsigned long long *rng_0_1, long long *meeting,
        const unsigned long long *__restrict__ l14, float *w19, long long *done, long long last,
        long long rows, long long rows_a_group, long long members, long long sums_float32_place,
        long long w15_place, long long w16_place, long long w17_place, long long w19_apart,
        long long w20_place, long long bh_kept_place, long long s4_0, long long s4_1,
        long long s9_0, long long s9_1, long long z0) {
    GS_SHARED(shared);
    const long long group = blockIdx.x / members;
    const long long member = blockIdx.x % members;
    const long long row = group * rows_a_group;
    const long long n7 = rows - row < rows_a_group ? rows - row : rows_a_group;
    const long long u0_first = 4 * (96 * member / members);
    const long long u0_end = 4 * (96 * (member + 1) / members);
    const long long u0_count = u0_end - u0_first;
    const long long u1_first = 2 * (128 * member / members);
    const long long u1_end = 2 * (128 * (member + 1) / members);
    const long long u1_count = u1_end - u1_first;
    y0 += row * 384;
    a0 += row * 384;
    rng_1_0 += blockIdx.x * 3;
    rng_1_1 += blockIdx.x * 3;
    rng_0_0 += blockIdx.x * 3;
    rng_0_1 += blockIdx.x * 3;
    meeting += group * GS_GRID_MEETING;
    gs_u32 *const met = gs_not_met(shared + 248);
    gs_held<float, 384, 38, 256, 1, 4> p18_held;
    p18_held.clear();
    gs_held<float, 256, 56, 256, 1, 4> p21_held;
    p21_held.clear();
    float *const sums_float32 = (float *)(shared + sums_float32_place);
    float *const w15 = (float *)(shared + w15_place);
    float *const w16 = (float *)(shared + w16_place);
    float *const w17 = (float *)(shared + w17_place);
    w19 += group * w19_apart;
    float *const w20 = (float *)(shared + w20_place);
    float *const bh_kept = (float *)(shared + bh_kept_place);
    p18_held.load(0, W + u1_first * s4_1, s4_0, s4_1, u1_count, sums_float32);
    __syncthreads();
    p21_held.load(0, W_T + u0_first * s9_1, s9_0, s9_1, u0_count, sums_float32);
    for (int all_i11 = threadIdx.x; all_i11 < n7 * u1_count; all_i11 += blockDim.x) {
        const long long i10 = all_i11 / (int)u1_count;
        const long long i11 = u1_first + all_i11 % (int)u1_count;
        gs_copy(bh_kept + i10 * u1_count + (i11 - u1_first), bh + i11);
    }
    gs_copied();
    for (long long t = 0; t < last; t++) {
        const float *const c0 = t ? y0 + (t - 1) * z0 : a0;
        const unsigned long long *const rng_1_now = t % 2 ? rng_1_1 : rng_1_0;
        unsigned long long *const rng_1_next = t % 2 ? rng_1_0 : rng_1_1;
        const unsigned long long *const rng_0_now = t % 2 ? rng_0_1 : rng_0_0;
        unsigned long long *const rng_0_next = t % 2 ? rng_0_0 : rng_0_1;
        for (long long i4 = threadIdx.x; i4 < 3; i4 += blockDim.x) {
            const unsigned long long rng_1 = rng_1_now[i4];
            const unsigned long long v6 = l14[i4];
            const unsigned long long rng_0 = rng_0_now[i4];
            const unsigned long long v7 = rng_1 + v6;
            const unsigned long long v9 = rng_0 + v6;
            rng_1_next[i4] = v7;
            rng_0_next[i4] = v9;
        }
        __syncthreads();
        gs_uniform_rows_f32(rng_1_now, 384, row * 384 + u0_first, n7, 384, u0_count, w15, u0_count);
        gs_uniform_rows_f32(rng_0_now, 256, row * 256 + u1_first, n7, 256, u1_count, w16, u1_count);
        if (gs_meet(meeting, met, members, member)) return gs_unmet(done);
        p18_held.multiply(n7, c0, 384, 1, u1_count, sums_float32, w17);
        __syncthreads();
        for (int all_i11 = threadIdx.x; all_i11 < n7 * u1_count; all_i11 += blockDim.x) {
            const long long i10 = all_i11 / (int)u1_count;
            const long long i11 = u1_first + all_i11 % (int)u1_count;
            const float v12 = w16[0 - u1_first + i10 * u1_count + i11];
            const float v13 = w17[0 - u1_first + i10 * u1_count + i11];
            const float bh_value = bh_kept[i10 * u1_count + (i11 - u1_first)];
            const float v15 = v13 + bh_value;
            const float v16 = gs_sigmoid_f32(v15);
            const unsigned char v17 = v12 < v16;
            const float v18 = v17 ? 1.0f : 0.0f;
            w19[i10 * 256 + i11] = v18;
        }
        if (gs_meet(meeting, met, members, member)) return gs_unmet(done);
        p21_held.multiply(n7, w19, 256, 1, u0_count, sums_float32, w20);
        __syncthreads();
        for (int all_i20 = threadIdx.x; all_i20 < n7 * u0_count; all_i20 += blockDim.x) {
            const long long i19 = all_i20 / (int)u0_count;
            const long long i20 = u0_first + all_i20 % (int)u0_count;
            const float v21 = w15[0 - u0_first + i19 * u0_count + i20];
            const float v22 = w20[0 - u0_first + i19 * u0_count + i20];
            const float bv_value = bv[i20];
            const float v24 = v22 + bv_value;
            const float v25 = gs_sigmoid_f32(v24);
            const unsigned char v26 = v21 < v25;
            const float v27 = v26 ? 1.0f : 0.0f;
            y0[t * z0 + i19 * 384 + i20] = v27;
        }
    }
    gs_finish(done, last);
}
