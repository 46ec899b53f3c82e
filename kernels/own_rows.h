/* What rows.h does for a row of elements that are a thread's own. */
#ifndef GS_OWN_ROWS_H
#define GS_OWN_ROWS_H

#include "device.h"
#include "rows.h"

GS_FN float gs_exp(float x) { return gs_exp_f32(x); }
GS_FN double gs_exp(double x) { return gs_exp_f64(x); }
GS_FN float gs_log(float x) { return gs_log_f32(x); }
GS_FN double gs_log(double x) { return gs_log_f64(x); }

/* The softmax of rows.h, and its logarithm, of COUNT elements that are a thread's own: all indices
 * are known, as registers have none. Its sums are in the same order. */
template <int COUNT, int STRIDE, class T> GS_FN T gs_own_centred_sum(T *y, bool keep) {
    T lanes[GS_LANES] = {0}, most = y[0];
    GS_UNROLL for (int i = 1; i < COUNT; i++) most = y[i * STRIDE] > most ? y[i * STRIDE] : most;
    GS_UNROLL for (int i = 0; i < COUNT; i++) {
        y[i * STRIDE] -= most;
        const T e = gs_exp(y[i * STRIDE]);
        if (keep) y[i * STRIDE] = e;
        lanes[i % GS_LANES] += e;
    }
    GS_UNROLL for (int width = GS_LANES / 2; width > 0; width /= 2)
        GS_UNROLL for (int l = 0; l < GS_LANES / 2; l++) if (l < width) lanes[l] += lanes[l + width];
    return lanes[0];
}
template <int COUNT, int STRIDE, class T> GS_FN void gs_own_softmax(T *y) {
    const T sum = gs_own_centred_sum<COUNT, STRIDE>(y, true);
    GS_UNROLL for (int i = 0; i < COUNT; i++) y[i * STRIDE] /= sum;
}
template <int COUNT, int STRIDE, class T> GS_FN void gs_own_log_softmax(T *y) {
    const T log_sum = gs_log(gs_own_centred_sum<COUNT, STRIDE>(y, false));
    GS_UNROLL for (int i = 0; i < COUNT; i++) y[i * STRIDE] -= log_sum;
}

#endif
