#include "persistent.h"
#include "scalars.h"
#include "block_draws.h"

extern "C" __global__ void __launch_bounds__(128, 1) loop(float *y0, float *a0,
        unsigned long long *rng_1_0, unsigned long long *rng_0_0, long long *done, long long last,
        long long rows, long long z0) {
    const long long row = gs_thread();
    if (row >= rows) {
        return;
    }
    y0 += row;
    a0 += row;
    float c0[1];
    float d0[1];
    rng_1_0 += row * 3;
    unsigned long long rng_1_now[3];
    unsigned long long rng_1_next[3];
    rng_0_0 += row * 3;
    unsigned long long rng_0_now[3];
    unsigned long long rng_0_next[3];
    float w11[1];
    unsigned long long l12[3];
    l12[0] = 0ull;
    l12[1] = 1ull;
    l12[2] = 0ull;
    float w13[1];
    float w14[1];
    c0[0] = a0[0];
    GS_UNROLL for (long long i3 = 0; i3 < 3; i3++) {
        rng_1_now[i3] = rng_1_0[i3];
    }
    GS_UNROLL for (long long i4 = 0; i4 < 3; i4++) {
        rng_0_now[i4] = rng_0_0[i4];
    }
    for (long long t = 0; t < last; t++) {
        const float v6 = c0[0];
        const float v7 = gs_sqr_f32(v6);
        const float v8 = v7 - 1.0f;
        const float v9 = gs_sqr_f32(v8);
        w11[0] = v9;
        GS_UNROLL for (long long i10 = 0; i10 < 3; i10++) {
            const unsigned long long rng_1 = rng_1_now[i10];
            const unsigned long long v12 = l12[i10];
            const unsigned long long v13 = rng_1 + v12;
            rng_1_next[i10] = v13;
            const unsigned long long rng_0 = rng_0_now[i10];
            const unsigned long long v15 = rng_0 + v12;
            rng_0_next[i10] = v15;
        }
        gs_own_uniforms<1>(rng_1_now, 1, row, w13);
        gs_own_uniforms<1>(rng_0_now, 1, row, w14);
        const float v17 = w13[0];
        const float v18 = w11[0];
        const float v19 = c0[0];
        const float v20 = w14[0];
        const float v21 = gs_normal_icdf_f32(v20);
        const float v22 = 0.800000011920929f * v21;
        const float v23 = v19 + v22;
        const float v24 = gs_sqr_f32(v23);
        const float v25 = v24 - 1.0f;
        const float v26 = gs_sqr_f32(v25);
        const float v27 = v18 - v26;
        const float v28 = gs_exp_f32(v27);
        const unsigned char v29 = v17 < v28;
        const float v30 = v29 ? v23 : v19;
        d0[0] = v30;
        const float v32 = d0[0];
        y0[t * z0] = v32;
        c0[0] = d0[0];
        GS_UNROLL for (long long i35 = 0; i35 < 3; i35++) {
            rng_1_now[i35] = rng_1_next[i35];
        }
        GS_UNROLL for (long long i37 = 0; i37 < 3; i37++) {
            rng_0_now[i37] = rng_0_next[i37];
        }
    }
    a0[0] = c0[0];
    GS_UNROLL for (long long i36 = 0; i36 < 3; i36++) {
        rng_1_0[i36] = rng_1_now[i36];
    }
    GS_UNROLL for (long long i38 = 0; i38 < 3; i38++) {
        rng_0_0[i38] = rng_0_now[i38];
    }
    gs_finish(done, last);
}
