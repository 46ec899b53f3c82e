#include "persistent.h"
#include "scalars.h"
#include "held.h"

extern "C" __global__ void __launch_bounds__(256, 1) loop(const float *__restrict__ x0,
        const float *__restrict__ U, const float *__restrict__ b, float *y0, float *h0_0,
        long long *done, long long last, long long rows, long long rows_a_block,
        long long sums_float32_place, long long w6_place, long long y0_here_place,
        long long x0_early_place, long long s1_0, long long s1_1, long long s3_0, long long s3_1,
        long long z0) {
    GS_SHARED(shared);
    const long long row = blockIdx.x * rows_a_block;
    const long long n2 = rows - row < rows_a_block ? rows - row : rows_a_block;
    x0 += row * s1_1;
    y0 += row * 32;
    h0_0 += row * 32;
    gs_held<float, 32, 32, 256, 1> p7_held;
    p7_held.clear();
    float *const sums_float32 = (float *)(shared + sums_float32_place);
    float *const w6 = (float *)(shared + w6_place);
    float *const y0_here = (float *)(shared + y0_here_place);
    float *const x0_early = (float *)(shared + x0_early_place);
    p7_held.load(0, U, s3_0, s3_1, 32, sums_float32);
    for (int all_i2 = threadIdx.x; all_i2 < n2 * 32; all_i2 += blockDim.x) {
        const long long i1 = all_i2 / 32;
        const long long i2 = all_i2 % 32;
        const float first_value = h0_0[i1 * 32 + i2];
        y0_here[i1 * 32 + i2] = first_value;
    }
    if (last > 0) {
        for (int all_i2 = threadIdx.x; all_i2 < n2 * 32; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / 32;
            const long long i2 = all_i2 % 32;
            gs_copy(x0_early + i1 * 32 + i2, x0 + i1 * s1_1 + i2);
        }
    }
    for (long long t = 0; t < last; t++) {
        const long long next_t = t + 1 < last ? t + 1 : t;
        const float *const h0_now = t ? y0 + (t - 1) * z0 : h0_0;
        __syncthreads();
        p7_held.multiply(n2, y0_here, 32, 1, 32, sums_float32, w6);
        __syncthreads();
        gs_copied();
        for (int all_i2 = threadIdx.x; all_i2 < n2 * 32; all_i2 += blockDim.x) {
            const long long i1 = all_i2 / 32;
            const long long i2 = all_i2 % 32;
            const float v3 = x0_early[i1 * 32 + i2];
            const float v4 = w6[i1 * 32 + i2];
            const float b_value = b[i2];
            const float v5 = v3 + v4;
            const float v7 = v5 + b_value;
            const float v8 = gs_tanh_f32(v7);
            y0[t * z0 + i1 * 32 + i2] = v8;
            y0_here[i1 * 32 + i2] = v8;
            gs_copy(x0_early + i1 * 32 + i2, x0 + next_t * s1_0 + i1 * s1_1 + i2);
        }
    }
    gs_finish(done, last);
}
