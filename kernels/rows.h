/* What a loop on the host calls for whole rows. */
#ifndef GS_ROWS_H
#define GS_ROWS_H

#include "scalars.h"

#define GS_LANES 32

/* Adds the n elements of a row to a total. The lanes of a few hundred elements lose little, and the
 * total of all such rows next to nothing. */
#define GS_ADD_UP(type, t)                                                                \
    GS_APART void gs_add_up_##t(const type *GS_RESTRICT x, long long n, double *total) {  \
        type lanes[GS_LANES] = {0};                                                       \
        const long long whole = n - n % GS_LANES;                                         \
        for (long long start = 0; start < whole; start += GS_LANES)                       \
            for (int l = 0; l < GS_LANES; l++) lanes[l] += x[start + l];                  \
        for (long long i = whole; i < n; i++) lanes[i - whole] += x[i];                   \
        for (int width = GS_LANES / 2; width > 0; width /= 2)                             \
            for (int l = 0; l < width; l++) lanes[l] += lanes[l + width];                 \
        *total += lanes[0];                                                               \
    }

GS_ADD_UP(float, f32)
GS_ADD_UP(double, f64)

/* Of a softmax gpuscan/ops/softmax.py gives the order of the sum. A row's n elements are `stride`
 * apart and are written over. */

/* A function of a row, also compiled for elements that lie together. */
#define GS_AT_ANY_STRIDE(name, type, t)                                                   \
    GS_APART void gs_##name##_##t(long long n, type *y, long long stride) {               \
        if (n < 1) return;                                                                \
        if (stride == 1)                                                                  \
            gs_##name##_row_##t(n, y, 1);                                                 \
        else                                                                              \
            gs_##name##_row_##t(n, y, stride);                                            \
    }

#define GS_SOFTMAX(type, t)                                                               \
    /* y - max(y); NaN where one of them is. */                                           \
    GS_FN void gs_centre_##t(long long n, type *GS_RESTRICT y, long long stride) {        \
        type lanes[GS_LANES], most = y[0];                                                \
        for (int l = 0; l < GS_LANES; l++) lanes[l] = most;                               \
        for (long long start = 0; start < n; start += GS_LANES) {                         \
            const long long count = n - start < GS_LANES ? n - start : GS_LANES;          \
            const type *const part = y + start * stride;                                  \
            for (long long l = 0; l < count; l++)                                         \
                lanes[l] = part[l * stride] > lanes[l] ? part[l * stride] : lanes[l];     \
        }                                                                                 \
        for (int l = 0; l < GS_LANES; l++) most = lanes[l] > most ? lanes[l] : most;      \
        for (long long i = 0; i < n; i++) y[i * stride] -= most;                          \
    }                                                                                     \
    /* The sum of exp(y), which also replace the elements where `keep`. */                \
    GS_FN type gs_sum_exp_##t(                                                            \
        long long n, type *GS_RESTRICT y, long long stride, int keep) {                   \
        type lanes[GS_LANES] = {0};                                                       \
        for (long long start = 0; start < n; start += GS_LANES) {                         \
            const long long count = n - start < GS_LANES ? n - start : GS_LANES;          \
            type *const part = y + start * stride;                                        \
            for (long long l = 0; l < count; l++) {                                       \
                const type e = gs_exp_##t(part[l * stride]);                              \
                if (keep) part[l * stride] = e;                                           \
                lanes[l] += e;                                                            \
            }                                                                             \
        }                                                                                 \
        for (int width = GS_LANES / 2; width > 0; width /= 2)                             \
            for (int l = 0; l < width; l++) lanes[l] += lanes[l + width];                 \
        return lanes[0];                                                                  \
    }                                                                                     \
    GS_FN void gs_softmax_row_##t(long long n, type *GS_RESTRICT y, long long stride) {   \
        gs_centre_##t(n, y, stride);                                                      \
        const type sum = gs_sum_exp_##t(n, y, stride, 1);                                 \
        for (long long i = 0; i < n; i++) y[i * stride] /= sum;                           \
    }                                                                                     \
    GS_FN void gs_log_softmax_row_##t(                                                    \
        long long n, type *GS_RESTRICT y, long long stride) {                             \
        gs_centre_##t(n, y, stride);                                                      \
        const type log_sum = gs_log_##t(gs_sum_exp_##t(n, y, stride, 0));                 \
        for (long long i = 0; i < n; i++) y[i * stride] -= log_sum;                       \
    }                                                                                     \
    GS_AT_ANY_STRIDE(softmax, type, t)                                                    \
    GS_AT_ANY_STRIDE(log_softmax, type, t)

GS_SOFTMAX(float, f32)
GS_SOFTMAX(double, f64)

#endif
