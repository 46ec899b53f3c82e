#include "persistent.h"

extern "C" __global__ void __launch_bounds__(128, 1) loop(const float *__restrict__ x0,
        const float *__restrict__ x1, const float *__restrict__ x2, const float *__restrict__ x3,
        const float *__restrict__ k2, float *y0, float *y1, float *a0, long long *done,
        long long last, long long rows, long long s1_0, long long s1_1, long long s2_0,
        long long s2_1, long long s3_0, long long s3_1, long long s4_0, long long s4_1,
        long long s8_0, long long s8_1, long long z0, long long z1) {
    const long long row = gs_thread();
    if (row >= rows) {
        return;
    }
    x0 += row * s1_1;
    x1 += row * s2_1;
    x2 += row * s3_1;
    x3 += row * s4_1;
    y0 += row * 2;
    y1 += row * 2;
    a0 += row * 2;
    float c0[2];
    float d0[2];
    float w12[2];
    float w13[1];
    float w14[1];
    GS_UNROLL for (long long i4 = 0; i4 < 2; i4++) {
        c0[i4] = a0[i4];
    }
    for (long long t = 0; t < last; t++) {
        GS_UNROLL for (long long i6 = 0; i6 < 2; i6++) {
            const float v7 = c0[i6];
            const float v8 = x1[t * s2_0];
            const float v9 = v7 / v8;
            w12[i6] = v9;
        }
        float s11 = 0.0f;
        GS_UNROLL for (long long i12 = 0; i12 < 2; i12++) {
            const float v13 = c0[i12];
            const float v14 = -v13;
            const float v15 = x0[t * s1_0 + i12];
            const float v16 = v14 * v15;
            const float v17 = x1[t * s2_0];
            const float v18 = v16 / v17;
            s11 = s11 + v18;
        }
        w13[0] = s11;
        const float v20 = x2[t * s3_0];
        const float v21 = w13[0];
        const float v22 = v20 + v21;
        w14[0] = v22;
        GS_UNROLL for (long long i24 = 0; i24 < 2; i24++) {
            const float v25 = w12[i24];
            const float v26 = w14[0];
            const float v27 = v25 + v26;
            y1[t * z1 + i24] = v27;
            const float v28 = x3[t * s4_0 + i24];
            const float v29 = v27 * v28;
            y0[t * z0 + i24] = v29;
        }
        GS_UNROLL for (long long i31 = 0; i31 < 2; i31++) {
            float s32 = 0.0f;
            GS_UNROLL for (long long i33 = 0; i33 < 2; i33++) {
                const float v34 = y0[t * z0 + i33];
                const float v35 = k2[i33 * s8_0 + i31 * s8_1];
                s32 = s32 + (v34 * v35);
            }
            d0[i31] = s32;
        }
        GS_UNROLL for (long long i37 = 0; i37 < 2; i37++) {
            c0[i37] = d0[i37];
        }
    }
    GS_UNROLL for (long long i39 = 0; i39 < 2; i39++) {
        a0[i39] = c0[i39];
    }
    gs_finish(done, last);
}
