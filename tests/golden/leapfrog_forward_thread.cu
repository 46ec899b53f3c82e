#include "persistent.h"

extern "C" __global__ void __launch_bounds__(128, 1) loop(const float *__restrict__ k0,
        const float *__restrict__ k1, const float *__restrict__ k2, const float *__restrict__ k3,
        float *y0, float *y1, float *y2, float *y3, float *a0, float *a1, long long *done,
        long long last, long long rows, long long s3_0, long long s3_1, long long s6_0,
        long long s6_1, long long z0, long long z1, long long z2, long long z3) {
    const long long row = gs_thread();
    if (row >= rows) {
        return;
    }
    y0 += row * 2;
    y1 += row * 2;
    y2 += row * 2;
    y3 += row * 2;
    a0 += row * 2;
    float c0[2];
    float d0[2];
    a1 += row * 2;
    float c1[2];
    float d1[2];
    float w14[2];
    float w15[2];
    float w16[2];
    float w17[2];
    float w18[2];
    float w19[2];
    float w20[2];
    GS_UNROLL for (long long i2 = 0; i2 < 2; i2++) {
        c0[i2] = a0[i2];
    }
    GS_UNROLL for (long long i4 = 0; i4 < 2; i4++) {
        c1[i4] = a1[i4];
    }
    for (long long t = 0; t < last; t++) {
        GS_UNROLL for (long long i6 = 0; i6 < 2; i6++) {
            const float v7 = c0[i6];
            const float v8 = (-0.5f) * v7;
            w14[i6] = v8;
        }
        GS_UNROLL for (long long i10 = 0; i10 < 2; i10++) {
            float s11 = 0.0f;
            GS_UNROLL for (long long i12 = 0; i12 < 2; i12++) {
                const float v13 = c0[i12];
                const float v14 = k0[i12 * s3_0 + i10 * s3_1];
                s11 = s11 + (v13 * v14);
            }
            w15[i10] = s11;
        }
        GS_UNROLL for (long long i16 = 0; i16 < 2; i16++) {
            float s17 = 0.0f;
            GS_UNROLL for (long long i18 = 0; i18 < 2; i18++) {
                const float v19 = w14[i18];
                const float v20 = k3[i18 * s6_0 + i16 * s6_1];
                s17 = s17 + (v19 * v20);
            }
            w16[i16] = s17;
        }
        GS_UNROLL for (long long i22 = 0; i22 < 2; i22++) {
            const float v23 = w15[i22];
            const float v24 = (-0.5f) * v23;
            const float v25 = w16[i22];
            const float v26 = v24 + v25;
            y2[t * z2 + i22] = v26;
            const float v27 = c1[i22];
            const float v28 = k2[0];
            const float v29 = v28 * v26;
            const float v30 = v27 + v29;
            w17[i22] = v30;
            const float v31 = c0[i22];
            const float v32 = k1[0];
            const float v33 = v32 * v30;
            const float v34 = v31 + v33;
            d0[i22] = v34;
            const float v35 = (-0.5f) * v34;
            w18[i22] = v35;
        }
        GS_UNROLL for (long long i37 = 0; i37 < 2; i37++) {
            float s38 = 0.0f;
            GS_UNROLL for (long long i39 = 0; i39 < 2; i39++) {
                const float v40 = d0[i39];
                const float v41 = k0[i39 * s3_0 + i37 * s3_1];
                s38 = s38 + (v40 * v41);
            }
            w19[i37] = s38;
        }
        GS_UNROLL for (long long i43 = 0; i43 < 2; i43++) {
            float s44 = 0.0f;
            GS_UNROLL for (long long i45 = 0; i45 < 2; i45++) {
                const float v46 = w18[i45];
                const float v47 = k3[i45 * s6_0 + i43 * s6_1];
                s44 = s44 + (v46 * v47);
            }
            w20[i43] = s44;
        }
        GS_UNROLL for (long long i49 = 0; i49 < 2; i49++) {
            const float v50 = w19[i49];
            const float v51 = (-0.5f) * v50;
            const float v52 = w20[i49];
            const float v53 = v51 + v52;
            y3[t * z3 + i49] = v53;
            const float v54 = w17[i49];
            const float v55 = k2[0];
            const float v56 = v55 * v53;
            const float v57 = v54 + v56;
            d1[i49] = v57;
        }
        GS_UNROLL for (long long i59 = 0; i59 < 2; i59++) {
            const float v60 = d0[i59];
            y0[t * z0 + i59] = v60;
        }
        GS_UNROLL for (long long i62 = 0; i62 < 2; i62++) {
            const float v63 = d1[i62];
            y1[t * z1 + i62] = v63;
        }
        GS_UNROLL for (long long i65 = 0; i65 < 2; i65++) {
            c0[i65] = d0[i65];
        }
        GS_UNROLL for (long long i69 = 0; i69 < 2; i69++) {
            c1[i69] = d1[i69];
        }
    }
    GS_UNROLL for (long long i67 = 0; i67 < 2; i67++) {
        a0[i67] = c0[i67];
    }
    GS_UNROLL for (long long i71 = 0; i71 < 2; i71++) {
        a1[i71] = c1[i71];
    }
    gs_finish(done, last);
}
