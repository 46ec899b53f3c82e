#include "persistent.h"
#include "scalars.h"

extern "C" __global__ void __launch_bounds__(128, 1) loop(const float *__restrict__ x0,
        const float *__restrict__ U, const float *__restrict__ b, float *y0, float *h0_0,
        long long *done, long long last, long long rows, long long s1_0, long long s1_1,
        long long s3_0, long long s3_1, long long z0) {
    const long long row = gs_thread();
    if (row >= rows) {
        return;
    }
    x0 += row * s1_1;
    y0 += row * 2;
    h0_0 += row * 2;
    float h0_now[2];
    float h0_next[2];
    float w7[2];
    GS_UNROLL for (long long i2 = 0; i2 < 2; i2++) {
        h0_now[i2] = h0_0[i2];
    }
    for (long long t = 0; t < last; t++) {
        GS_UNROLL for (long long i4 = 0; i4 < 2; i4++) {
            float s5 = 0.0f;
            GS_UNROLL for (long long i6 = 0; i6 < 2; i6++) {
                const float h0 = h0_now[i6];
                const float U_value = U[i6 * s3_0 + i4 * s3_1];
                s5 = s5 + (h0 * U_value);
            }
            w7[i4] = s5;
        }
        GS_UNROLL for (long long i10 = 0; i10 < 2; i10++) {
            const float v11 = x0[t * s1_0 + i10];
            const float v12 = w7[i10];
            const float v13 = v11 + v12;
            const float b_value = b[i10];
            const float v15 = v13 + b_value;
            const float v16 = gs_tanh_f32(v15);
            h0_next[i10] = v16;
        }
        GS_UNROLL for (long long i18 = 0; i18 < 2; i18++) {
            const float v19 = h0_next[i18];
            y0[t * z0 + i18] = v19;
        }
        GS_UNROLL for (long long i21 = 0; i21 < 2; i21++) {
            h0_now[i21] = h0_next[i21];
        }
    }
    GS_UNROLL for (long long i23 = 0; i23 < 2; i23++) {
        h0_0[i23] = h0_now[i23];
    }
    gs_finish(done, last);
}
