#include "persistent.h"

extern "C" __global__ void __launch_bounds__(128, 1) loop(const float *__restrict__ x0,
        const float *__restrict__ k0, float *y0, float *y1, float *y2, float *a0, long long *done,
        long long last, long long rows, long long s1_0, long long s1_1, long long s3_0,
        long long s3_1, long long z0, long long z1, long long z2) {
    const long long row = gs_thread();
    if (row >= rows) {
        return;
    }
    x0 += row * s1_1;
    y0 += row * 2;
    y1 += row;
    y2 += row * 2;
    a0 += row * 2;
    float c0[2];
    float d0[2];
    float w8[2];
    float w9[1];
    GS_UNROLL for (long long i2 = 0; i2 < 2; i2++) {
        c0[i2] = a0[i2];
    }
    for (long long t = 0; t < last; t++) {
        GS_UNROLL for (long long i4 = 0; i4 < 2; i4++) {
            float s5 = 0.0f;
            GS_UNROLL for (long long i6 = 0; i6 < 2; i6++) {
                const float v7 = c0[i6];
                const float v8 = k0[i6 * s3_0 + i4 * s3_1];
                s5 = s5 + (v7 * v8);
            }
            y2[t * z2 + i4] = s5;
        }
        GS_UNROLL for (long long i10 = 0; i10 < 2; i10++) {
            const float v11 = y2[t * z2 + i10];
            const float v12 = x0[t * s1_0 + i10];
            const float v13 = v11 * v12;
            w8[i10] = v13;
        }
        float s15 = 0.0f;
        GS_UNROLL for (long long i16 = 0; i16 < 2; i16++) {
            const float v17 = w8[i16];
            s15 = s15 + v17;
        }
        w9[0] = s15;
        const float v19 = w9[0];
        y1[t * z1] = v19;
        GS_UNROLL for (long long i21 = 0; i21 < 2; i21++) {
            const float v22 = w8[i21];
            const float v23 = y1[t * z1];
            const float v24 = v22 / v23;
            d0[i21] = v24;
        }
        GS_UNROLL for (long long i26 = 0; i26 < 2; i26++) {
            const float v27 = d0[i26];
            y0[t * z0 + i26] = v27;
        }
        GS_UNROLL for (long long i29 = 0; i29 < 2; i29++) {
            c0[i29] = d0[i29];
        }
    }
    GS_UNROLL for (long long i31 = 0; i31 < 2; i31++) {
        a0[i31] = c0[i31];
    }
    gs_finish(done, last);
}
